//! The laboratory: two or three machines, a sync link that can be hurt, and a street before and behind each machine.
//!
//! ```text
//!   street ═ front ═ a ═ back ═ street        each machine forwards: 192.0.2.10:80 -> 203.0.113.7:8080 (DNAT)
//!                    │ sync 10.255.0.1
//!                ┌───┴────┐
//!                │ switch │                    loss, per direction: a rule (nft, numgen) where a machine receives
//!                └┬──────┬┘                    cut: the port of a machine is set down, its carrier is gone
//!                 b      c                     the sync link is not tracked
//! ```
//!
//! Namespaces have no names: they end with this process. What a machine has beside its namespace is in [`Node`].

use super::node::Node;
use super::{Context, Doing, Trouble};
use ssyncp::demo::links::{FarEnd, Links};
use ssyncp::sys::namespace::Namespace;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Name of the sync interface of each machine.
pub const SYNC: &str = "sync";

/// Everything that is cabled together.
#[derive(Debug)]
pub struct Lab {
    /// The machines: a, b and perhaps c. The lower the letter, the higher the priority.
    pub nodes: Vec<Node>,
    manual: bool,
    links: Links,
    bridge: u32,
    /// Configurations, control sockets and logs.
    _directory: tempfile::TempDir,
    _switch: Namespace,
}

/// What a laboratory is made of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The program `ssyncp`.
    pub program: PathBuf,
    /// Number of machines, 2 or 3.
    pub machines: usize,
    /// Lines at the end of each group's settings.
    pub settings: String,
    /// Priority of the first machine; those of the others are 100 and 50.
    pub first_priority: u8,
    /// Whether roles are decided by hand: the first machine is told to be master, and nobody else ever becomes it.
    pub manual: bool,
    /// Whether `program` is conntrackd.
    pub conntrackd: bool,
    /// Whether configurations and logs stay when the laboratory is gone.
    pub keep: bool,
}

impl Plan {
    /// Two machines with the settings that everybody has.
    pub fn new(context: &Context) -> Self {
        Plan {
            program: context.program.clone(),
            machines: 2,
            settings: String::new(),
            first_priority: 150,
            manual: false,
            conntrackd: false,
            keep: context.keep,
        }
    }

    /// With other settings.
    pub fn with(mut self, settings: &str) -> Self {
        self.settings.push_str(settings);
        self.settings.push('\n');
        self
    }
}

impl Lab {
    /// Builds all of it; no daemon runs yet.
    ///
    /// # Errors
    /// [`Trouble`] names the step.
    pub fn build(plan: &Plan) -> Result<Self, Trouble> {
        let step = |source| Trouble::Step { doing: "building the lab", source };
        let mut directory = tempfile::Builder::new().prefix("ssyncp-chaos-").tempdir().map_err(step)?;
        if plan.keep {
            directory.disable_cleanup(true);
            eprintln!("kept: {}", directory.path().display());
        }
        let switch = Namespace::create().map_err(step)?;
        quiet(&switch).map_err(step)?;
        let links = Links::open(&switch).map_err(step)?;
        let bridge = links.switch(SYNC).map_err(step)?;
        let mut nodes = Vec::new();
        for (index, letter) in ['a', 'b', 'c'].into_iter().take(plan.machines).enumerate() {
            let node = Node::build(letter, directory.path(), plan)?;
            let far = FarEnd { namespace: &node.namespace, name: SYNC };
            links.cable(&port(index), bridge, 10 + index as u32, far).map_err(step)?;
            ip(&node.namespace, &format!("addr add 10.255.0.{}/24 dev {SYNC}", index + 1)).map_err(step)?;
            nodes.push(node);
        }
        Ok(Lab { nodes, manual: plan.manual, links, bridge, _directory: directory, _switch: switch })
    }

    /// Plugs somebody else into the sync link: a namespace with an interface [`SYNC`] and an address.
    ///
    /// # Errors
    /// [`Trouble::Step`].
    pub fn stranger(&self, host: u8) -> Result<Namespace, Trouble> {
        let plug = || {
            let namespace = Namespace::create()?;
            quiet(&namespace)?;
            let far = FarEnd { namespace: &namespace, name: SYNC };
            self.links.cable(&port(usize::from(host)), self.bridge, 10 + u32::from(host), far)?;
            ip(&namespace, &format!("addr add 10.255.0.{host}/24 dev {SYNC}"))?;
            Ok(namespace)
        };
        plug().doing("plugging in a stranger")
    }

    /// Takes the carrier from a machine's sync link.
    ///
    /// # Errors
    /// [`Trouble::Step`].
    pub fn cut(&self, node: usize) -> Result<(), Trouble> {
        self.links.group_down(10 + node as u32).doing("cutting the link")
    }

    /// Gives it back.
    ///
    /// # Errors
    /// [`Trouble::Step`].
    pub fn mend(&self, node: usize) -> Result<(), Trouble> {
        self.links.up(&port(node)).doing("mending the link")
    }

    /// From now on so many of a thousand packets get lost on their way to this machine; 1000: silence.
    ///
    /// # Errors
    /// [`Trouble::Step`].
    pub fn lose(&self, node: usize, of_a_thousand: u32) -> Result<(), Trouble> {
        let rule = match of_a_thousand {
            0 => String::new(),
            1000.. => format!("add rule ip chaos line iifname {SYNC} counter drop"),
            some => format!("add rule ip chaos line iifname {SYNC} numgen random mod 1000 < {some} counter drop"),
        };
        nft(&self.nodes[node].namespace, &format!("flush chain ip chaos line\n{rule}\n")).doing("losing packets")
    }

    /// The same on the way to every machine.
    ///
    /// # Errors
    /// [`Trouble::Step`].
    pub fn lose_everywhere(&self, of_a_thousand: u32) -> Result<(), Trouble> {
        (0..self.nodes.len()).try_for_each(|node| self.lose(node, of_a_thousand))
    }

    /// Starts all daemons, one after the other, and waits until the first is master and the others are in sync.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn start(&mut self) -> Result<(), Trouble> {
        for index in 0..self.nodes.len() {
            self.nodes[index].start()?;
            let node = &self.nodes[index];
            if self.manual && index == 0 {
                node.become_master()?;
            }
            let (role, sync) = if index == 0 { ("master", "source") } else { ("backup", "in_sync") };
            node.until(&format!("{role}, {sync}"), |status| status.is(role, sync))?;
        }
        Ok(())
    }
}

fn port(index: usize) -> String {
    format!("port{index}")
}

/// An empty machine: loopback up, no IPv6 (its neighbour discovery would only be noise).
///
/// # Errors
/// The operating system's error.
pub fn quiet(namespace: &Namespace) -> io::Result<()> {
    set(namespace, "ipv6/conf/default/disable_ipv6", "1")?;
    Links::open(namespace)?.up("lo")
}

/// Sets a value below /proc/sys/net, in a namespace.
///
/// # Errors
/// The operating system's error, with the name.
pub fn set(namespace: &Namespace, name: &str, value: &str) -> io::Result<()> {
    let write = || std::fs::write(format!("/proc/sys/net/{name}"), value);
    namespace.run(write).map_err(|error| io::Error::new(error.kind(), format!("net/{name}: {error}")))
}

/// A path that stands for the namespace wherever a program wants a name.
pub fn path_of(namespace: &Namespace) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), namespace.as_fd().as_raw_fd())
}

/// `ip`, one call per line.
///
/// # Errors
/// What it says.
pub fn ip(namespace: &Namespace, lines: &str) -> io::Result<()> {
    run(namespace, "ip", &["-batch", "-"], lines)
}

/// `nft -f`.
///
/// # Errors
/// What it says.
pub fn nft(namespace: &Namespace, rules: &str) -> io::Result<()> {
    run(namespace, "nft", &["-f", "-"], rules)
}

fn run(namespace: &Namespace, program: &str, arguments: &[&str], input: &str) -> io::Result<()> {
    let work = || {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        if let Some(mut pipe) = child.stdin.take() {
            pipe.write_all(input.as_bytes())?;
        }
        child.wait_with_output()
    };
    let output = namespace.run(work).map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())))
}
