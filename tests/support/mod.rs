//! A pair of `ssyncp run`, each in a network namespace with a connection table of its own, and a switch between them.
//!
//! ```text
//!   node a ── sa ═══ pa ┌────────┐ pb ═══ sb ── node b
//!     └ la ══ la0       │ switch │                └ lb ══ lb0     the interfaces that hold the address
//!                       └───┬────┘
//!                  si ═════ pi          stranger: whoever else is on the sync link
//! ```
//!
//! What the kernels hold is judged by `demo::kernel`, which shares nothing with the bridge that replicates.
#![allow(dead_code, unreachable_pub)] // Each test file uses its own part.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use ssyncp::bridge::Sink;
use ssyncp::bridge::conntrack::{ConntrackSink, SinkOptions};
use ssyncp::daemon::client;
use ssyncp::demo::kernel::{self, Difference};
use ssyncp::flow::{Change, Endpoint, Flow, FlowKey, Zone, protocol, status};
use ssyncp::sys::namespace::Namespace;
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Nothing here takes longer; who waits so long waits for what will not come.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The address that the master holds.
pub const ADDRESS: &str = "192.0.2.10/24";
/// Time between two looks at what is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Lines of a node's log that a failed test shows.
const LOG_LINES: usize = 60;

/// Whether the test can run; says so in one line if not.
pub fn root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("skipped: needs root");
    }
    root
}

/// Runs a program inside a namespace and returns what it says; it must succeed.
pub fn run(namespace: &Namespace, program: &str, arguments: &[&str]) -> String {
    let output = namespace.run(|| Command::new(program).args(arguments).output()).unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// `ip`, one call per line of `script`.
pub fn ip(namespace: &Namespace, script: &str) {
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        run(namespace, "ip", &line.split_ascii_whitespace().collect::<Vec<_>>());
    }
}

/// A path that stands for the namespace wherever a program wants a name.
pub fn path_of(namespace: &Namespace) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), namespace.as_fd().as_raw_fd())
}

/// Polls until it holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// A number from the environment, for a run by hand with other figures than those of the test.
pub fn figure(name: &str, usual: u32) -> u32 {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap())
}

/// One machine.
pub struct Node {
    /// Its network and its connection table.
    pub namespace: Namespace,
    letter: char,
    directory: tempfile::TempDir,
    child: Option<Child>,
}

impl Node {
    /// A machine with the interfaces `l<letter>`, which will hold the address; `more` goes to the end of its group's
    /// settings. Nothing runs yet.
    pub fn new(letter: char, priority: u8, more: &str) -> Self {
        let namespace = Namespace::create().unwrap();
        ip(
            &namespace,
            &format!(
                "link set lo up
                 link add l{letter} type veth peer name l{letter}0
                 link set l{letter} up
                 link set l{letter}0 up"
            ),
        );
        // What flows on the sync link is no connection; entries made while nobody listens would never tell anything.
        let events = "/proc/sys/net/netfilter/nf_conntrack_events";
        namespace.run(|| fs::write(events, "1")).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let node = Node { namespace, letter, directory, child: None };
        let id = u32::from(letter) - u32::from('a') + 1;
        node.configure(&format!(
            "[node]\nid = {id}\nname = \"{letter}\"\n[control]\nsocket = \"{}\"\n[[group]]\nsync_id = 51\n\
             interfaces = [\"s{letter}\"]\npriority = {priority}\naddresses = [\"{ADDRESS} dev l{letter}\"]\n{more}\n",
            node.socket().display()
        ));
        node
    }

    /// Its configuration's file.
    pub fn configuration(&self) -> PathBuf {
        self.directory.path().join("ssyncp.toml")
    }

    /// Replaces its configuration.
    pub fn configure(&self, text: &str) {
        fs::write(self.directory.path().join("ssyncp.toml"), text).unwrap();
    }

    /// Starts the daemon. PDEATHSIG follows the thread: that of the test outlives it.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.letter);
        let log = File::options().create(true).append(true).open(self.log_file()).unwrap();
        let mut command = self.namespace.command(env!("CARGO_BIN_EXE_ssyncp")).unwrap();
        command.arg("run").arg("-c").arg(self.directory.path().join("ssyncp.toml"));
        self.child = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    /// Number of its process.
    pub fn process(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Sends a signal to it, and does not wait.
    pub fn tell(&self, signal: Signal) {
        kill(Pid::from_raw(self.process() as i32), signal).unwrap();
    }

    /// Sends a signal that it dies of.
    pub fn end(&mut self, signal: Signal) -> ExitStatus {
        self.tell(signal);
        self.child.take().unwrap().wait().unwrap()
    }

    /// Its control socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    fn log_file(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// What it has written to its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// What its control socket answers, if it does.
    pub fn ask(&self, path: &str) -> Option<Value> {
        client::get(&self.socket(), path).ok()
    }

    /// The status of its group; null if nobody answers.
    pub fn group(&self) -> Value {
        self.ask("/v1/status").map_or(Value::Null, |status| status["groups"][0].clone())
    }

    /// Whether it says that it is this.
    pub fn is(&self, role: &str, sync: &str) -> bool {
        let group = self.group();
        group["role"] == role && group["sync"] == sync
    }

    /// One of its counters.
    pub fn counter(&self, name: &str) -> u64 {
        let group = self.group();
        group["counters"][name].as_u64().unwrap_or_else(|| panic!("no counter {name}: {group:#}"))
    }

    /// Counters whose name contains `part` and that are not zero.
    pub fn counters(&self, part: &str) -> Vec<(String, u64)> {
        let group = self.group();
        let all = group["counters"].as_object().into_iter().flatten();
        let some = all.filter(|(name, _)| name.contains(part)).map(|(name, count)| (name.clone(), count.as_u64()));
        some.filter_map(|(name, count)| count.filter(|count| *count > 0).map(|count| (name, count))).collect()
    }

    /// Whether it holds the address.
    pub fn holds_the_address(&self) -> bool {
        run(&self.namespace, "ip", &["-4", "-o", "address", "show"]).contains(ADDRESS)
    }

    /// Processor time that all its threads have used.
    pub fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process())).unwrap().flatten();
        let nanoseconds = tasks.map(|task| {
            let line = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            line.split_ascii_whitespace().next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0)
        });
        Duration::from_nanos(nanoseconds.sum())
    }

    /// Makes the connections with these numbers in its kernel, as packets would.
    pub fn connect(&self, numbers: std::ops::Range<u32>) {
        self.write(numbers.map(|number| Change::Upsert(connection(number))));
    }

    /// Removes them from its kernel.
    pub fn disconnect(&self, numbers: std::ops::Range<u32>) {
        self.write(numbers.map(|number| Change::Delete(connection(number).key)));
    }

    /// Changes its kernel, as packets would.
    pub fn write(&self, changes: impl Iterator<Item = Change> + Send) {
        let write = || {
            let options = SinkOptions { batch: 1024, ..SinkOptions::default() };
            let mut sink = ConntrackSink::open(&options).map_err(io::Error::other)?;
            for change in changes {
                sink.apply(&change)?;
            }
            sink.flush()?;
            let failed: Vec<_> = sink.counters().into_iter().filter(|(name, _)| name.starts_with("error")).collect();
            assert_eq!(failed.iter().map(|(_, count)| count).sum::<u64>(), 0, "{failed:?}");
            Ok(())
        };
        self.namespace.run(write).unwrap();
    }

    /// Entries that its kernel counts.
    pub fn kernel_entries(&self) -> u64 {
        kernel::count(&self.namespace).unwrap()
    }

    /// Entries of its kernel's table that are replicated: TCP, UDP and ICMP that leave the machine.
    pub fn table(&self) -> Vec<kernel::Entry> {
        let mut entries = kernel::dump(&self.namespace).unwrap();
        entries.retain(|entry| {
            let tuple = entry.original;
            let known = [protocol::ICMP, protocol::TCP, protocol::UDP].contains(&tuple.protocol);
            known && !tuple.source.is_loopback() && !tuple.destination.is_loopback()
        });
        entries
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n  ");
            let counters = if self.child.is_some() { self.counters("") } else { Vec::new() };
            eprintln!("node {}, the end of its log:\n  {tail}\n  counters: {counters:?}", self.letter);
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Two machines, the switch between them, and a third party on it.
pub struct Pair {
    /// Node 1, priority 150.
    pub a: Node,
    /// Node 2, priority 100.
    pub b: Node,
    /// Who else is on the sync link, by its interface `si`.
    pub stranger: Namespace,
    /// Holds the bridge `sync` and its ports `pa`, `pb` and `pi`.
    pub switch: Namespace,
}

impl Pair {
    /// Everything but the daemons; `more` goes to the end of each group's settings.
    pub fn new(more: &str) -> Self {
        let (a, b) = (Node::new('a', 150, more), Node::new('b', 100, more));
        let (stranger, switch) = (Namespace::create().unwrap(), Namespace::create().unwrap());
        // Without snooping the bridge floods multicast, as a cable would.
        ip(&switch, "link add sync type bridge mcast_snooping 0\nlink set sync up");
        let pair = Pair { a, b, stranger, switch };
        for letter in ['a', 'b', 'i'] {
            pair.plug_in(letter);
        }
        pair
    }

    fn end_of(&self, letter: char) -> (&Namespace, u8) {
        match letter {
            'a' => (&self.a.namespace, 1),
            'b' => (&self.b.namespace, 2),
            _ => (&self.stranger, 3),
        }
    }

    /// Makes the sync interface of a machine, and its cable.
    pub fn plug_in(&self, letter: char) {
        let (machine, host) = self.end_of(letter);
        let there = path_of(machine);
        ip(
            &self.switch,
            &format!(
                "link add p{letter} type veth peer name s{letter} netns {there}
                 link set p{letter} master sync up"
            ),
        );
        ip(machine, &format!("address add 10.255.0.{host}/24 dev s{letter}\nlink set s{letter} up"));
    }

    /// Starts both, and waits until `a` is master and `b` is in sync.
    pub fn start(&mut self) {
        self.a.start();
        eventually("a is master", || self.a.is("master", "source"));
        self.b.start();
        self.settle();
        assert!(self.a.is("master", "source"));
    }

    /// Waits until one of the two is master and has the address, and the other is in sync and has it not.
    pub fn settle(&self) {
        eventually("one is master, one is in sync", || {
            let one_way = |master: &Node, backup: &Node| {
                master.is("master", "source") && backup.is("backup", "in_sync") && {
                    master.holds_the_address() && !backup.holds_the_address()
                }
            };
            one_way(&self.a, &self.b) || one_way(&self.b, &self.a)
        });
    }

    /// How the kernel of `b` differs from that of `a`.
    pub fn difference(&self) -> Difference {
        kernel::compare(&self.a.table(), &self.b.table())
    }

    /// Waits until both kernels hold the same entries, and at least this many.
    pub fn until_equal(&self, least: usize) {
        let start = Instant::now();
        loop {
            let (a, b) = (self.a.table(), self.b.table());
            let difference = kernel::compare(&a, &b);
            if a.len() >= least && difference == Difference::default() {
                return;
            }
            let found = format!("{} and {} entries, {difference:?}", a.len(), b.len());
            assert!(start.elapsed() < PATIENCE, "the kernels are not equal: {found}");
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// A connection for each number: TCP in three states, with and without translation, UDP, ICMP, marks and zones.
pub fn connection(number: u32) -> Flow {
    let host = |network: u8| IpAddr::V4(Ipv4Addr::new(198, 18 + network, (number >> 16) as u8, (number >> 8) as u8));
    let kind = number % 8;
    let key = FlowKey {
        source: host(0),
        destination: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)),
        source_port: 1024 + (number & 0xff) as u16,
        destination_port: if kind == 6 { 0x0800 } else { 80 },
        protocol: match kind {
            0..=3 => protocol::TCP,
            4 | 5 => protocol::UDP,
            6 => protocol::ICMP,
            _ => protocol::TCP,
        },
        zone: if kind == 7 { Zone { id: 7, direction: Zone::BOTH } } else { Zone::DEFAULT },
    };
    let answered = status::SEEN_REPLY | status::ASSURED | status::CONFIRMED;
    let flow = Flow { status: answered, timeout: 3000, ..Flow::new(key) };
    let server = Endpoint { address: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7)), port: 8080 };
    match kind {
        0 => Flow { state: 3, ..flow },
        1 => Flow { state: 3, reply_source: Some(server), status: answered | status::DST_NAT, ..flow },
        2 => {
            let gateway = Endpoint { address: host(1), port: key.source_port };
            Flow { state: 7, reply_destination: Some(gateway), status: answered | status::SRC_NAT, ..flow }
        }
        3 => Flow { state: 1, status: status::CONFIRMED, ..flow },
        5 => Flow { mark: number, ..flow },
        7 => Flow { state: 3, ..flow },
        _ => flow,
    }
}
