//! A pair of daemons with the real kernel between them, in namespaces of their own.
//!
//! ```text
//!   node a ── sa ═══ sync ═══ sb ── node b
//!     └ la ══ la0 (same namespace)     └ lb ══ lb0      the interfaces that hold the address
//! ```

#[path = "support/machine.rs"]
mod machine;

use machine::{eventually, ip, path_of, root};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use ssyncp::bridge::Sink;
use ssyncp::bridge::conntrack::{ConntrackSink, SinkOptions};
use ssyncp::daemon::client;
use ssyncp::flow::{Change, Flow, FlowKey, Zone, status};
use ssyncp::sys::namespace::Namespace;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Instant;

const ADDRESS: &str = "192.0.2.10/24";

struct Node {
    namespace: Namespace,
    directory: tempfile::TempDir,
    child: Option<Child>,
}

impl Node {
    /// A node with the interfaces `s<letter>` (still to be made) and `l<letter>`.
    fn new(letter: char, priority: u8, more: &str) -> Self {
        let namespace = Namespace::create().unwrap();
        let (local, other) = (format!("l{letter}"), format!("l{letter}0"));
        ip(&namespace, &["link", "set", "lo", "up"]);
        ip(&namespace, &["link", "add", &local, "type", "veth", "peer", "name", &other]);
        ip(&namespace, &["link", "set", &local, "up"]);
        ip(&namespace, &["link", "set", &other, "up"]);
        let directory = tempfile::tempdir().unwrap();
        let id = if letter == 'a' { 1 } else { 2 };
        let text = format!(
            "[node]\nid = {id}\nname = \"{letter}\"\n[control]\nsocket = \"{}\"\n[[group]]\nsync_id = 51\n\
             interfaces = [\"s{letter}\"]\npriority = {priority}\naddresses = [\"{ADDRESS} dev l{letter}\"]\n{more}\n",
            directory.path().join("control.sock").display()
        );
        std::fs::write(directory.path().join("ssyncp.toml"), text).unwrap();
        Node { namespace, directory, child: None }
    }

    /// Starts the daemon. PDEATHSIG follows the thread: that of the test outlives it.
    fn start(&mut self) {
        let mut command = self.namespace.command(env!("CARGO_BIN_EXE_ssyncp")).unwrap();
        command.arg("run").arg("-c").arg(self.directory.path().join("ssyncp.toml"));
        self.child = Some(command.stdin(Stdio::null()).spawn().unwrap());
    }

    fn signal(&mut self, signal: Signal) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        child.wait().unwrap()
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    fn ask(&self, path: &str) -> Option<Value> {
        client::get(&self.socket(), path).ok()
    }

    fn group(&self) -> Value {
        self.ask("/v1/status").map_or(Value::Null, |status| status["groups"][0].clone())
    }

    fn is(&self, role: &str, sync: &str) -> bool {
        let group = self.group();
        group["role"] == role && group["sync"] == sync
    }

    fn holds_the_address(&self) -> bool {
        ip(&self.namespace, &["-4", "-o", "address", "show"]).contains(ADDRESS)
    }

    /// Entries of this node's kernel.
    fn kernel_entries(&self) -> u64 {
        let count = "/proc/sys/net/netfilter/nf_conntrack_count";
        let text = self.namespace.run(|| std::fs::read_to_string(count)).unwrap();
        text.trim().parse().unwrap()
    }

    /// Makes `count` connections in this node's kernel, as if traffic had.
    fn connections(&self, count: u16) {
        self.namespace
            .run(|| {
                let mut sink = ConntrackSink::open(&SinkOptions::default()).map_err(std::io::Error::other)?;
                for number in 0..count {
                    sink.apply(&Change::Upsert(flow(number)))?;
                }
                sink.flush().map(|_| ())
            })
            .unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn flow(number: u16) -> Flow {
    let key = FlowKey {
        source: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
        destination: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)),
        source_port: 1024 + number,
        destination_port: 80,
        protocol: 6,
        zone: Zone::DEFAULT,
    };
    let status = status::SEEN_REPLY | status::ASSURED | status::CONFIRMED;
    Flow { state: 3, status, timeout: 1000, ..Flow::new(key) }
}

/// Two nodes with a sync link between them.
fn pair(more: &str) -> (Node, Node) {
    let (a, b) = (Node::new('a', 150, more), Node::new('b', 100, more));
    link(&a, &b);
    (a, b)
}

fn link(a: &Node, b: &Node) {
    let there = path_of(&b.namespace);
    ip(&a.namespace, &["link", "add", "sa", "type", "veth", "peer", "name", "sb", "netns", &there]);
    ip(&a.namespace, &["address", "add", "10.255.0.1/24", "dev", "sa"]);
    ip(&b.namespace, &["address", "add", "10.255.0.2/24", "dev", "sb"]);
    ip(&a.namespace, &["link", "set", "sa", "up"]);
    ip(&b.namespace, &["link", "set", "sb", "up"]);
}

#[test]
fn connections_and_address_move_when_the_master_is_killed_and_come_back_with_it() {
    if !root() {
        return;
    }
    let (mut a, mut b) = pair("");
    a.start();
    eventually("a is master with its address", || a.is("master", "source") && a.holds_the_address());
    b.start();
    eventually("b is in sync", || b.is("backup", "in_sync"));
    a.connections(500);
    eventually("b has the flows", || b.group()["entries"] == 500 && b.is("backup", "in_sync"));
    eventually("and so has its kernel", || b.kernel_entries() == 500);
    assert_eq!(b.ask("/v1/flows?protocol=tcp&port=80").unwrap()["count"], 500);
    assert!(!b.holds_the_address());

    a.signal(Signal::SIGKILL);
    eventually("b is master with the address", || b.is("master", "source") && b.holds_the_address());
    assert_eq!(b.group()["entries"], 500);
    assert!(a.holds_the_address(), "nobody could remove it");

    a.start();
    eventually("what was left is removed, and the role comes back once proven", || {
        a.is("master", "source") && a.holds_the_address() && b.is("backup", "in_sync") && !b.holds_the_address()
    });
    assert_eq!((&a.group()["entries"], &b.group()["entries"]), (&json!(500), &json!(500)));
}

#[test]
fn a_node_that_is_told_to_end_leaves_nothing_behind_and_exits_with_0() {
    if !root() {
        return;
    }
    let (mut a, mut b) = pair("advert_interval = \"1s\"");
    a.start();
    b.start();
    eventually("a is master, b in sync", || a.is("master", "source") && b.is("backup", "in_sync"));
    let socket = a.socket();
    let start = Instant::now();
    assert_eq!(a.signal(Signal::SIGTERM).code(), Some(0));
    assert!(!a.holds_the_address() && !Path::new(&socket).exists());
    eventually("b is master", || b.is("master", "source") && b.holds_the_address());
    // Three silent intervals would be 3 s; who says goodbye is not waited for.
    println!("b took over {:?} after the signal", start.elapsed());
    assert_eq!(b.signal(Signal::SIGINT).code(), Some(0));
}

#[test]
fn a_missing_interface_is_waited_for() {
    if !root() {
        return;
    }
    let (mut a, b) = (Node::new('a', 150, ""), Node::new('b', 100, ""));
    a.start();
    eventually("a says what it waits for", || a.group()["trouble"] == "there is no interface sa");
    assert!(client::get(&a.socket(), "/readyz").is_err());
    link(&a, &b);
    eventually("a is master", || a.is("master", "source"));
    assert_eq!(client::get(&a.socket(), "/readyz").unwrap()["ok"], true);
}

#[test]
fn a_sync_link_that_goes_and_comes_is_followed() {
    if !root() {
        return;
    }
    let (mut a, mut b) = pair("");
    a.start();
    b.start();
    eventually("b is in sync", || a.is("master", "source") && b.is("backup", "in_sync"));
    ip(&b.namespace, &["link", "set", "sb", "down"]);
    eventually("b sees it", || b.group()["link_up"] == false);
    ip(&b.namespace, &["link", "set", "sb", "up"]);
    eventually("b is in sync again", || b.is("backup", "in_sync") && a.is("master", "source"));
    ip(&b.namespace, &["link", "del", "sb"]);
    eventually("b has no link", || b.group()["link_up"] == false);
    link(&a, &b);
    eventually("b is in sync over a new one", || b.is("backup", "in_sync") && a.is("master", "source"));
}
