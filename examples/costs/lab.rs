//! The laboratory: a router, the street on both its sides, and the machine that has the copy.
//!
//! Who lives in the street answers nothing: what it says is written by hand, so neighbours are told and not asked, and what
//! reaches it is dropped. Namespaces have no names: they end with this process.

use super::{Doing, Trouble};
use ssyncp::sys::namespace::Namespace;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};

/// Name of the sync link's interface on both machines.
pub const SYNC: &str = "sync";

/// Everything that is cabled together.
#[derive(Debug)]
pub struct Lab {
    /// Clients and servers.
    pub street: Namespace,
    /// The router.
    pub a: Namespace,
    /// The machine with the copy.
    pub b: Namespace,
}

/// Packets and octets of the sync link, both directions, with Ethernet headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wire {
    /// Frames of Ethernet.
    pub packets: u64,
    /// Octets.
    pub octets: u64,
}

impl Lab {
    /// Builds it; no daemon runs yet.
    ///
    /// # Errors
    /// [`Trouble`] names the step.
    pub fn build() -> Result<Self, Trouble> {
        let create = || Namespace::create().doing("making a network namespace");
        let lab = Lab { street: create()?, a: create()?, b: create()? };
        lab.cable().doing("cabling")?;
        Ok(lab)
    }

    fn cable(&self) -> io::Result<()> {
        for namespace in [&self.street, &self.a, &self.b] {
            set(namespace, "ipv6/conf/default/disable_ipv6", "1")?;
            ip(namespace, "link set lo up\n")?;
        }
        let (street, b) = (path_of(&self.street), path_of(&self.b));
        ip(
            &self.a,
            &format!(
                "link add front address 02:00:00:00:01:01 type veth peer name front address 02:00:00:00:01:02 netns {street}
                 link add back address 02:00:00:00:02:01 type veth peer name back address 02:00:00:00:02:02 netns {street}
                 link add {SYNC} type veth peer name {SYNC} netns {b}
                 link set front up
                 link set back up
                 link set {SYNC} up
                 addr add 10.1.0.1/24 dev front
                 addr add 10.2.0.1/24 dev back
                 addr add 10.255.0.1/24 dev {SYNC}
                 neigh add 10.1.0.2 lladdr 02:00:00:00:01:02 dev front nud permanent
                 neigh add 10.2.0.2 lladdr 02:00:00:00:02:02 dev back nud permanent
                 route add 10.16.0.0/12 via 10.1.0.2 dev front
                 route add 10.32.0.0/12 via 10.2.0.2 dev back\n"
            ),
        )?;
        ip(&self.street, "link set front up\nlink set back up\n")?;
        ip(&self.b, &format!("link set {SYNC} up\naddr add 10.255.0.2/24 dev {SYNC}\n"))?;
        nft(
            &self.street,
            "table netdev costs {
            chain front { type filter hook ingress device front priority 0; drop; }
            chain back { type filter hook ingress device back priority 0; drop; }
        }\n",
        )?;
        for machine in [&self.a, &self.b] {
            // A rule that asks for a state makes the kernel track connections in this namespace.
            nft(
                machine,
                &format!(
                    "table ip costs {{
                    chain untracked_in {{ type filter hook prerouting priority raw; iifname {SYNC} notrack; }}
                    chain untracked_out {{ type filter hook output priority raw; oifname {SYNC} notrack; }}
                    chain tracked {{ type filter hook forward priority filter; ct state invalid counter; }}
                }}\n"
                ),
            )?;
            for (name, value) in [
                ("ipv4/ip_forward", "1"),
                ("ipv4/conf/all/rp_filter", "0"),
                ("ipv4/conf/default/rp_filter", "0"),
                ("netfilter/nf_conntrack_events", "1"),
                ("netfilter/nf_conntrack_tcp_timeout_syn_sent", "3600"),
                ("netfilter/nf_conntrack_tcp_timeout_syn_recv", "3600"),
            ] {
                set(machine, name, value)?;
            }
        }
        Ok(())
    }

    /// What the sync link has carried.
    ///
    /// # Errors
    /// [`Trouble::Step`].
    pub fn wire(&self) -> Result<Wire, Trouble> {
        // The line of an interface: name, eight numbers of receiving (octets, packets, …), then those of sending.
        let text = self.a.run(|| std::fs::read_to_string("/proc/thread-self/net/dev")).doing("reading counters")?;
        let line = text.lines().find_map(|line| line.trim().strip_prefix("sync:")).unwrap_or_default();
        let numbers: Vec<u64> = line.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
        let number = |at: usize| numbers.get(at).copied().unwrap_or(0);
        Ok(Wire { octets: number(0) + number(8), packets: number(1) + number(9) })
    }
}

impl Wire {
    /// What has passed since.
    pub fn since(self, before: Wire) -> Wire {
        Wire { packets: self.packets - before.packets, octets: self.octets - before.octets }
    }
}

/// A path that stands for the namespace wherever a program wants a name.
fn path_of(namespace: &Namespace) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), namespace.as_fd().as_raw_fd())
}

fn set(namespace: &Namespace, name: &str, value: &str) -> io::Result<()> {
    let write = || std::fs::write(format!("/proc/sys/net/{name}"), value);
    namespace.run(write).map_err(|error| io::Error::new(error.kind(), format!("net/{name}: {error}")))
}

fn ip(namespace: &Namespace, lines: &str) -> io::Result<()> {
    run(namespace, "ip", &["-batch", "-"], lines)
}

fn nft(namespace: &Namespace, rules: &str) -> io::Result<()> {
    run(namespace, "nft", &["-f", "-"], rules)
}

fn run(namespace: &Namespace, program: &str, arguments: &[&str], input: &str) -> io::Result<()> {
    namespace.run(|| {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        if let Some(mut pipe) = child.stdin.take() {
            pipe.write_all(input.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(io::Error::other(format!("{program}: {said}"))) }
    })
}
