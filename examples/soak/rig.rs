//! The pair: the laboratory of tools/chaos, with a secret, and with an address that moves.
//!
//! ```text
//!   clients ─ front ─▶ 192.0.2.10, on whoever is master ─▶ back ─ server
//!                      └ a packet to it that comes to the other one is dropped before it is tracked
//!   clients ◀ front ─ 10.16.0.0/12, a route of whoever is master ◀ back ─ server
//!                      └ the same
//! ```
//!
//! So the kernels decide which machine a packet counts for, at the moment at which the daemons move address and route, however
//! late the clients learn of it.

use super::chaos::lab::{self, Lab, Plan, SYNC};
use super::chaos::node::Node;
use super::chaos::traffic::{SERVER, SERVICE};
use super::chaos::{Context, Doing, Trouble};
use super::load::UDP_SERVICE;
use serde_json::{Value, json};
use ssyncp::daemon::client;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// Settings of the group. The reload changes the last of them back and forth.
const SETTINGS: &str = r#"addresses = ["192.0.2.10/32 dev front"]
routes = ["10.16.0.0/12 via 10.1.0.2 dev front"]
takeover_grace = "5s"
dump_interval = "10s"
"#;
/// What a reload finds, in turn.
const RELOADED: [&str; 2] = ["dump_interval = \"10s\"", "dump_interval = \"11s\""];
/// Seconds after which an entry of which nothing is heard ends: so short that a pause sees the end of all but those that last.
const TIMEOUTS: [(&str, &str); 9] = [
    ("tcp_timeout_syn_sent", "5"),
    ("tcp_timeout_syn_recv", "5"),
    ("tcp_timeout_established", "120"),
    ("tcp_timeout_fin_wait", "5"),
    ("tcp_timeout_last_ack", "5"),
    ("tcp_timeout_time_wait", "3"),
    ("tcp_timeout_close", "2"),
    ("udp_timeout", "3"),
    ("udp_timeout_stream", "5"),
];
/// MTU of the sync link, and the smaller one.
const MTU: u32 = 1500;
const SMALL_MTU: u32 = 1400;
/// Numbers that a secret can have (docs/operations.md).
const SECRETS: u8 = 4;

/// The pair.
#[derive(Debug)]
pub struct Rig {
    /// Machines and links.
    pub lab: Lab,
    /// Lines of the file of secrets: the first one seals.
    secrets: Vec<String>,
    reloads: usize,
}

impl Rig {
    /// Builds it; no daemon runs yet.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn build(context: &Context) -> Result<Self, Trouble> {
        let lab = Lab::build(&Plan::new(context).with(SETTINGS))?;
        let rig = Rig { lab, secrets: vec![secret(0)], reloads: 0 };
        rig.write_secrets()?;
        for node in &rig.lab.nodes {
            gate(node).doing("building a machine")?;
            let setting = format!("secret_file = {:?}\n\n[control]", node.file("secret").display().to_string());
            node.configure(&node.configuration()?.replacen("[control]", &setting, 1))?;
        }
        Ok(rig)
    }

    /// Reads the configuration anew on both machines: a setting has changed.
    ///
    /// # Errors
    /// [`Trouble::Step`].
    pub fn reload(&mut self) -> Result<(), Trouble> {
        let (old, new) = (RELOADED[self.reloads % 2], RELOADED[(self.reloads + 1) % 2]);
        for node in &self.lab.nodes {
            node.configure(&node.configuration()?.replace(old, new))?;
        }
        self.reloads += 1;
        self.post_both("/v1/reload", &json!({}))
    }

    /// Gives both another secret, in three steps (docs/operations.md).
    ///
    /// # Errors
    /// [`Trouble::Step`].
    pub fn rotate(&mut self) -> Result<(), Trouble> {
        let number = self.secrets[0].bytes().next().unwrap_or(b'0') - b'0';
        self.secrets.push(secret((number + 1) % SECRETS));
        let steps: [fn(&mut Vec<String>); 3] = [|_| {}, |secrets| secrets.swap(0, 1), |secrets| drop(secrets.pop())];
        for step in steps {
            step(&mut self.secrets);
            self.write_secrets()?;
            self.post_both("/v1/reload", &json!({}))?;
        }
        Ok(())
    }

    /// Makes the sync links smaller, or as they were.
    ///
    /// # Errors
    /// [`Trouble::Step`].
    pub fn narrow(&self, small: bool) -> Result<(), Trouble> {
        let mtu = if small { SMALL_MTU } else { MTU };
        let set = |node: &Node| lab::ip(&node.namespace, &format!("link set dev {SYNC} mtu {mtu}"));
        self.lab.nodes.iter().try_for_each(set).doing("changing an MTU")
    }

    /// Tells one machine something; a refusal is no failure: roles move while one asks.
    pub fn post(&self, machine: usize, path: &str, body: &Value) -> Result<(), String> {
        let answer = client::post(&self.lab.nodes[machine].file("sock"), path, body);
        answer.map(drop).map_err(|error| error.to_string())
    }

    fn post_both(&self, path: &str, body: &Value) -> Result<(), Trouble> {
        for node in &self.lab.nodes {
            client::post(&node.file("sock"), path, body).map(drop).doing("telling a daemon")?;
        }
        Ok(())
    }

    fn write_secrets(&self) -> Result<(), Trouble> {
        let write = |node: &Node| {
            let file = node.file("secret");
            fs::write(&file, self.secrets.concat())?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600))
        };
        self.lab.nodes.iter().try_for_each(write).doing("writing a secret")
    }
}

/// A new secret's line.
fn secret(number: u8) -> String {
    ssyncp::daemon::settings::secret::line(number).to_string()
}

/// What a machine has beyond one of tools/chaos.
fn gate(node: &Node) -> std::io::Result<()> {
    // This route is the daemon's.
    lab::ip(&node.namespace, "route del 10.16.0.0/12\n")?;
    let ((address, _), (server, _), (asked, answered)) = (SERVICE, SERVER, UDP_SERVICE);
    lab::nft(
        &node.namespace,
        &format!(
            "add rule ip chaos services ip daddr {address} udp dport {asked} dnat to {server}:{answered}
             table ip soak {{
                 chain gate {{ type filter hook prerouting priority -340;
                     iifname front ip daddr {address} fib daddr type != local drop
                     iifname back fib daddr oif missing drop
                 }}
                 chain nobody_begins_behind {{ type filter hook forward priority filter;
                     iifname back ct state new,invalid drop
                 }}
             }}\n"
        ),
    )?;
    let set = |(name, value): (&str, &str)| lab::set(&node.namespace, &format!("netfilter/nf_conntrack_{name}"), value);
    TIMEOUTS.into_iter().try_for_each(set)
}
