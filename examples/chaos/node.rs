//! One machine: its kernel, its daemon, and what the daemon says of itself.

use super::conntrackd;
use super::interrupt::until;
use super::lab::{self, Plan, SYNC, path_of};
use super::{Doing, Trouble};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use ssyncp::daemon::client;
use ssyncp::demo::kernel::{self, Entry};
use ssyncp::flow::FlowKey;
use ssyncp::sys::namespace::Namespace;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

/// Nothing that is no measurement takes longer than this.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Lines of a log that are shown.
const LOG_LINES: usize = 12;
/// IANA numbers of the protocols that flows of the lab have.
const TCP_AND_UDP: [u8; 2] = [6, 17];

/// One machine. Dropping it kills its daemon.
#[derive(Debug)]
pub struct Node {
    /// `a`, `b` or `c`.
    pub letter: char,
    /// Its network and its connection table.
    pub namespace: Namespace,
    /// Where its clients and its server live.
    pub street: Namespace,
    program: PathBuf,
    conntrackd: bool,
    files: PathBuf,
    child: Option<Child>,
}

/// What a daemon says of its only group.
#[derive(Debug, Clone)]
pub struct Status(Value);

impl Status {
    /// What the daemon at a control socket says; `None` if it does not answer.
    pub fn ask(socket: &Path) -> Option<Self> {
        let status = client::get(socket, "/v1/status").ok()?;
        Some(Status(status["groups"][0].clone()))
    }

    /// Whether it says that it is this.
    pub fn is(&self, role: &str, sync: &str) -> bool {
        self.0["role"] == role && self.0["sync"] == sync
    }

    /// Whether it is a working master.
    pub fn is_master(&self) -> bool {
        self.is("master", "source")
    }

    /// Whether it is a backup that is proven equal to its master.
    pub fn is_in_sync(&self) -> bool {
        self.is("backup", "in_sync")
    }

    /// Flows in its table.
    pub fn entries(&self) -> u64 {
        self.0["entries"].as_u64().unwrap_or(0)
    }

    /// Seconds since its digest was last seen equal to the master's.
    pub fn digest_age_s(&self) -> Option<f64> {
        self.0["digest_age_s"].as_f64()
    }

    /// One of its counters; 0 if it has none of this name.
    pub fn counter(&self, name: &str) -> u64 {
        self.0["counters"][name].as_u64().unwrap_or(0)
    }

    /// All of it, as the control socket answered.
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// Role and state in words.
    pub fn words(&self) -> String {
        let word = |key: &str| self.0[key].as_str().unwrap_or("?").to_owned();
        format!("{}, {}", word("role"), word("sync"))
    }
}

impl Node {
    /// The machine with its street and its configuration. It has no sync link yet.
    ///
    /// # Errors
    /// [`Trouble::Step`].
    pub fn build(letter: char, directory: &Path, plan: &Plan) -> Result<Self, Trouble> {
        let step = |source| Trouble::Step { doing: "building a machine", source };
        let namespace = Namespace::create().map_err(step)?;
        let street = Namespace::create().map_err(step)?;
        [&namespace, &street].into_iter().try_for_each(lab::quiet).map_err(step)?;
        let files = directory.join(letter.to_string());
        let (id, priority) = match letter {
            'a' => (1, plan.first_priority),
            'b' => (2, 100),
            _ => (3, 50),
        };
        let socket = files.with_extension("sock");
        let text = format!(
            "[node]\nid = {id}\nname = \"{letter}\"\n\n[control]\nsocket = {}\n\n[[group]]\nsync_id = 51\n\
             interfaces = [\"{SYNC}\"]\npriority = {priority}\n{}",
            toml::Value::String(socket.display().to_string()),
            if plan.manual { format!("role = \"manual\"\n{}", plan.settings) } else { plan.settings.clone() }
        );
        fs::write(files.with_extension("toml"), text).map_err(step)?;
        fs::write(files.with_extension("conf"), conntrackd::configuration(&files, id)).map_err(step)?;
        let (program, conntrackd) = (plan.program.clone(), plan.conntrackd);
        let node = Node { letter, namespace, street, program, conntrackd, files, child: None };
        node.cable().map_err(step)?;
        Ok(node)
    }

    /// Cables front and back, and makes the machine a gateway. Who lives in the street answers nothing: what it says is
    /// written by hand, so neighbours are told and not asked.
    fn cable(&self) -> std::io::Result<()> {
        let there = path_of(&self.street);
        lab::ip(
            &self.namespace,
            &format!(
                "link add front address 02:00:00:00:01:01 type veth peer name front address 02:00:00:00:01:02 netns {there}
                 link add back address 02:00:00:00:02:01 type veth peer name back address 02:00:00:00:02:02 netns {there}
                 link set front up
                 link set back up
                 addr add 10.1.0.1/24 dev front
                 addr add 203.0.113.1/24 dev back
                 neigh add 10.1.0.2 lladdr 02:00:00:00:01:02 dev front nud permanent
                 neigh add 203.0.113.7 lladdr 02:00:00:00:02:02 dev back nud permanent
                 route add 10.16.0.0/12 via 10.1.0.2 dev front\n"
            ),
        )?;
        lab::ip(&self.street, "link set front up\nlink set back up\n")?;
        lab::nft(
            &self.namespace,
            "table ip chaos {
                 chain line { type filter hook prerouting priority -350; }
                 chain untracked_in { type filter hook prerouting priority raw; iifname sync notrack; }
                 chain untracked_out { type filter hook output priority raw; oifname sync notrack; }
                 chain services { type nat hook prerouting priority dstnat;
                     ip daddr 192.0.2.10 tcp dport 80 dnat to 203.0.113.7:8080; }
             }\n",
        )?;
        let settings = [
            ("ipv4/ip_forward", "1"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/front/rp_filter", "0"),
            ("ipv4/conf/back/rp_filter", "0"),
            ("netfilter/nf_conntrack_tcp_loose", "0"),
            // With the default, 2, entries that are made while nobody listens never tell anything.
            ("netfilter/nf_conntrack_events", "1"),
        ];
        settings.into_iter().try_for_each(|(name, value)| lab::set(&self.namespace, name, value))
    }

    /// Starts its daemon. To be called from a thread that lasts: the daemon dies with it.
    ///
    /// # Errors
    /// [`Trouble::Step`].
    pub fn start(&mut self) -> Result<(), Trouble> {
        let start = || {
            let log = File::options().create(true).append(true).open(self.files.with_extension("log"))?;
            let mut command = self.namespace.command(&self.program)?;
            if self.conntrackd {
                // One that was killed has left these behind.
                let _ = fs::remove_file(self.files.with_extension("lock"));
                let _ = fs::remove_file(self.files.with_extension("ctl"));
                command.arg("-C").arg(self.files.with_extension("conf"));
            } else {
                command.arg("run").arg("-c").arg(self.files.with_extension("toml")).env_remove("NOTIFY_SOCKET");
            }
            command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()
        };
        self.child = Some(start().doing("starting a daemon")?);
        Ok(())
    }

    /// Kills its daemon without a word, and waits for its end.
    ///
    /// # Errors
    /// [`Trouble::Step`].
    pub fn kill(&mut self) -> Result<(), Trouble> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let killed = child.kill().and_then(|()| child.wait());
        killed.map(drop).doing("killing a daemon")
    }

    /// Sends a signal to its daemon.
    ///
    /// # Errors
    /// [`Trouble::Step`].
    pub fn tell(&self, signal: Signal) -> Result<(), Trouble> {
        let Some(child) = &self.child else { return Ok(()) };
        kill(Pid::from_raw(child.id() as i32), signal)
            .map_err(|errno| Trouble::Step { doing: "sending a signal", source: errno.into() })
    }

    /// What its daemon says; `None` if it does not answer.
    pub fn status(&self) -> Option<Status> {
        Status::ask(&self.files.with_extension("sock"))
    }

    /// Tells its daemon to be master, as soon as that listens.
    ///
    /// # Errors
    /// [`Trouble::Never`].
    pub fn become_master(&self) -> Result<(), Trouble> {
        let told =
            || client::post(&self.files.with_extension("sock"), "/v1/role", &json!({ "role": "master" })).is_ok();
        until("the daemon can be told to be master", PATIENCE, told).map(drop)
    }

    /// Whether its daemon's table has this flow.
    pub fn table_has(&self, key: &FlowKey) -> bool {
        let FlowKey { source, destination, source_port, destination_port, protocol, zone } = key;
        let path = format!(
            "/v1/flows?protocol={protocol}&source={source}&destination={destination}&source_port={source_port}\
             &destination_port={destination_port}&zone={}",
            zone.id
        );
        let answer = client::get(&self.files.with_extension("sock"), &path);
        answer.is_ok_and(|answer| answer["flows"].as_array().is_some_and(|flows| !flows.is_empty()))
    }

    /// Waits until its daemon says so.
    ///
    /// # Errors
    /// [`Trouble::Never`], with the end of its log.
    pub fn until(&self, what: &str, holds: impl Fn(&Status) -> bool) -> Result<Duration, Trouble> {
        let seen = until(what, PATIENCE, || self.status().is_some_and(|status| holds(&status)));
        seen.map_err(|trouble| match trouble {
            Trouble::Never { what, patience } => {
                let is = self.status().map_or("it does not answer".to_owned(), |status| status.words());
                Trouble::Never { what: format!("{} {what} ({is})\n  {}", self.letter, self.log()), patience }
            }
            other => other,
        })
    }

    /// Its configuration, of which others can make their own.
    ///
    /// # Errors
    /// [`Trouble::Step`].
    pub fn configuration(&self) -> Result<String, Trouble> {
        fs::read_to_string(self.files.with_extension("toml")).doing("reading a configuration")
    }

    /// Gives its daemon another configuration, for its next start.
    ///
    /// # Errors
    /// [`Trouble::Step`].
    pub fn configure(&self, text: &str) -> Result<(), Trouble> {
        fs::write(self.files.with_extension("toml"), text).doing("writing a configuration")
    }

    /// A file of this machine.
    pub fn file(&self, extension: &str) -> PathBuf {
        self.files.with_extension(extension)
    }

    /// Number of its daemon's process, if one was started.
    pub fn process(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        let log = fs::read_to_string(self.files.with_extension("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n  ")
    }

    /// Entries that its kernel counts.
    ///
    /// # Errors
    /// [`Trouble::Step`].
    pub fn count(&self) -> Result<u64, Trouble> {
        kernel::count(&self.namespace).doing("counting entries")
    }

    /// The flows in its kernel: TCP and UDP. (What else may be there is nobody's flow.)
    ///
    /// # Errors
    /// [`Trouble::Step`].
    pub fn flows(&self) -> Result<Vec<Entry>, Trouble> {
        let dumped = kernel::dump(&self.namespace);
        let mut entries = dumped.doing("reading a kernel's table")?;
        entries.retain(|entry| TCP_AND_UDP.contains(&entry.original.protocol));
        Ok(entries)
    }

    /// Octets that it has sent on the sync link, Ethernet headers included.
    ///
    /// # Errors
    /// [`Trouble::Step`].
    pub fn octets_sent(&self) -> Result<u64, Trouble> {
        // The line of an interface: name, eight numbers of receiving, then those of sending.
        let read = || fs::read_to_string("/proc/thread-self/net/dev");
        let text = self.namespace.run(read).doing("reading counters")?;
        let line = text.lines().find_map(|line| line.trim().strip_prefix("sync:"));
        Ok(line.and_then(|line| line.split_ascii_whitespace().nth(8)?.parse().ok()).unwrap_or(0))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only for a process that has ended and been waited for.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
