//! One `ssyncp run` in a balancer: its configuration, its process, and what it says of itself.

use super::DemoError;
use super::lab::{BACK, Balancer, FRONT, GATEWAY, GATEWAY6, PREFIX_LEN, PREFIX6_LEN, SYNC, VIRTUAL, VIRTUAL6};
use super::seal::Drawn;
use crate::daemon::client;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Number of the demo's group.
const SYNC_ID: u8 = 51;
/// Time between two looks at a node's status.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Lines of a node's log that are shown when it fails.
const LOG_LINES: usize = 12;

/// What a node is told.
#[derive(Debug, Clone, Copy)]
pub(super) struct NodePlan<'a> {
    /// Its number.
    pub(super) id: u32,
    /// Its VRRP priority.
    pub(super) priority: u8,
    /// What carries its frames, as the configuration says it.
    pub(super) transport: &'a str,
    /// Time between two of its ADVERTs, as the configuration says it.
    pub(super) advert_interval: &'a str,
    /// Whether it takes the role from one of lower priority.
    pub(super) preempt: bool,
    /// Whether it watches its link to the clients.
    pub(super) tracks: bool,
    /// Whether it has addresses of IPv6 too.
    pub(super) with_ipv6: bool,
    /// What frames are sealed with, if they are.
    pub(super) secret: Option<&'a Drawn>,
    /// Where its files go.
    pub(super) directory: &'a Path,
    /// Where its log goes.
    pub(super) logs: &'a Path,
}

/// What a node says of its only group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodeStatus {
    /// `init`, `backup`, `promoting`, `master`, `fault` or `none`.
    pub(super) role: String,
    /// `cold`, `syncing`, `in_sync` or `source`.
    pub(super) sync: String,
    /// What carries its frames: `raw`, `packet`, or `xdp` with its mode.
    pub(super) transport: String,
}

impl NodeStatus {
    /// Whether this is a working master.
    pub(super) fn is_master(&self) -> bool {
        self.role == "master" && self.sync == "source"
    }

    /// Whether this is a backup that is proven equal to its master.
    pub(super) fn is_ready_backup(&self) -> bool {
        self.role == "backup" && self.sync == "in_sync"
    }
}

/// A running node. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Node {
    name: &'static str,
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Node {
    /// Starts this same program as `ssyncp run` inside the balancer. To be called from a thread that lasts.
    pub(super) fn start(balancer: &Balancer, plan: NodePlan<'_>) -> Result<Self, DemoError> {
        let name = balancer.name;
        let file = |suffix: &str| plan.directory.join(format!("{name}.{suffix}"));
        let (settings, socket, log) = (file("toml"), file("sock"), plan.logs.join(format!("{name}.log")));
        let start = || {
            // A node that died as machines die has left its socket behind.
            match fs::remove_file(&socket) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            fs::write(&settings, configuration(name, plan, &socket))?;
            let output = File::options().create(true).append(true).open(&log)?;
            let mut command = balancer.namespace.command(std::env::current_exe()?)?;
            command.arg("run").arg("-c").arg(&settings).env_remove("NOTIFY_SOCKET");
            command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).spawn()
        };
        let child = start().map_err(|source| DemoError::Step { doing: "starting ssyncp run", source })?;
        Ok(Node { name, child, socket, log })
    }

    /// Waits until its status is as wanted.
    pub(super) fn wait_until(
        &mut self,
        what: &'static str,
        within: Duration,
        wanted: impl Fn(&NodeStatus) -> bool,
    ) -> Result<(), DemoError> {
        let start = Instant::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.failure(format!("ended by itself ({status})")));
            }
            let seen = self.status();
            match &seen {
                Ok(status) if wanted(status) => return Ok(()),
                _ if start.elapsed() < within => std::thread::sleep(LOOK_EVERY),
                Ok(NodeStatus { role, sync, transport }) => {
                    return Err(
                        self.failure(format!("is not {what} after {within:?}: role {role}, {sync}, over {transport}"))
                    );
                }
                Err(error) => return Err(self.failure(format!("is not {what} after {within:?}: {error}"))),
            }
        }
    }

    /// Whether its status is as wanted now.
    pub(super) fn is(&self, wanted: fn(&NodeStatus) -> bool) -> bool {
        self.status().is_ok_and(|status| wanted(&status))
    }

    /// Its name: that of its balancer.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Its control socket.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Sends it a signal, and waits for nothing.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        let process = i32::try_from(self.child.id()).map_err(io::Error::other)?;
        Ok(kill(Pid::from_raw(process), signal)?)
    }

    /// Waits until it has ended by itself.
    pub(super) fn wait_ended(&mut self, within: Duration) -> Result<(), DemoError> {
        let start = Instant::now();
        while !matches!(self.child.try_wait(), Ok(Some(_))) {
            if start.elapsed() > within {
                return Err(self.failure(format!("does not end within {within:?}")));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Asks it to hand its role over.
    pub(super) fn hand_over(&self) -> io::Result<()> {
        client::post(&self.socket, "/v1/switchover", &serde_json::json!({})).map(|_| ())
    }

    /// What it says of itself over its control socket.
    fn status(&self) -> io::Result<NodeStatus> {
        let status = client::get(&self.socket, "/v1/status")?;
        let word = |key: &str| {
            let word = status["groups"][0][key].as_str().map(str::to_owned);
            word.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("its status has no groups[0].{key}")))
        };
        Ok(NodeStatus { role: word("role")?, sync: word("sync")?, transport: word("transport")? })
    }

    fn failure(&self, problem: String) -> DemoError {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n  ");
        DemoError::Node { name: self.name, problem, log: tail }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Both fail only for a process that has ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The configuration file, as an operator would write it.
fn configuration(name: &str, plan: NodePlan<'_>, socket: &Path) -> String {
    let NodePlan { id, priority, transport, advert_interval, preempt, tracks, .. } = plan;
    let secret = plan.secret.map(Drawn::settings).unwrap_or_default();
    let (track, tracks) = if tracks {
        ("track = [\"front\"]\n", format!("\n[[track]]\nname = \"front\"\ninterface = \"{FRONT}\"\n"))
    } else {
        ("", String::new())
    };
    let socket = toml::Value::String(socket.display().to_string());
    let more = if plan.with_ipv6 {
        format!(", \"{VIRTUAL6}/{PREFIX6_LEN} dev {FRONT}\", \"{GATEWAY6}/{PREFIX6_LEN} dev {BACK}\"")
    } else {
        String::new()
    };
    format!(
        r#"# Written by ssyncp demo.
[node]
id = {id}
name = "{name}"
{secret}
[[group]]
sync_id = {SYNC_ID}
interfaces = ["{SYNC}"]
transport = "{transport}"
source = "conntrack"
commit = "continuous"
role = "vrrp"
priority = {priority}
advert_interval = "{advert_interval}"
preempt = {preempt}
{track}addresses = ["{VIRTUAL}/{PREFIX_LEN} dev {FRONT}", "{GATEWAY}/{PREFIX_LEN} dev {BACK}"{more}]
{tracks}
[control]
socket = {socket}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_toml_whatever_the_directory_is_called() {
        let directory = Path::new("/tmp/a \"strange\" place");
        let scratch = tempfile::tempdir().unwrap();
        let secret = Drawn::new(scratch.path()).unwrap();
        let plan = NodePlan {
            id: 2,
            priority: 100,
            transport: "packet",
            advert_interval: "1s",
            preempt: true,
            tracks: true,
            with_ipv6: true,
            secret: Some(&secret),
            directory,
            logs: directory,
        };
        let text = configuration("lb-b", plan, &directory.join("lb-b.sock"));
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["control"]["socket"].as_str(), Some("/tmp/a \"strange\" place/lb-b.sock"));
        assert_eq!(table["node"]["id"].as_integer(), Some(2));
        assert_eq!(table["node"]["secret_file"].as_str(), scratch.path().join("secret").to_str());
        let group = &table["group"].as_array().unwrap()[0];
        assert_eq!(group["transport"].as_str(), Some("packet"));
        assert_eq!(group["priority"].as_integer(), Some(100));
        assert_eq!(group["advert_interval"].as_str(), Some("1s"));
        assert_eq!(group["preempt"].as_bool(), Some(true));
        assert_eq!(group["addresses"][0].as_str(), Some("198.51.100.10/24 dev front"));
        assert_eq!(group["addresses"][1].as_str(), Some("203.0.113.1/24 dev back"));
        assert_eq!(group["addresses"][2].as_str(), Some("2001:db8:f::10/64 dev front"));
        assert_eq!(group["addresses"][3].as_str(), Some("2001:db8:b::1/64 dev back"));
    }

    #[test]
    fn only_a_backup_that_is_proven_equal_is_ready() {
        let status = |role: &str, sync: &str| {
            let transport = "raw".into();
            NodeStatus { role: role.into(), sync: sync.into(), transport }
        };
        assert!(status("backup", "in_sync").is_ready_backup());
        assert!(!status("backup", "syncing").is_ready_backup());
        assert!(!status("master", "source").is_ready_backup());
        assert!(status("master", "source").is_master());
        assert!(!status("promoting", "source").is_master());
    }
}
