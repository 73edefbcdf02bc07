//! A pair of daemons with the real kernel between them, in namespaces of their own.
//!
//! ```text
//!   node a ── sa ═══ sync ═══ sb ── node b
//!     └ la ══ la0 (same namespace)     └ lb ══ lb0      the interfaces that hold the address
//! ```

use crate::machine::{eventually, ip, path_of, root};
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
use std::process::{Child, Command, ExitStatus, Stdio};
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
        self.write((0..count).map(|number| Change::Upsert(flow(number))));
    }

    /// Changes this node's kernel.
    fn write(&self, changes: impl IntoIterator<Item = Change> + Send) {
        self.namespace
            .run(|| {
                let mut sink = ConntrackSink::open(&SinkOptions::default()).map_err(std::io::Error::other)?;
                changes.into_iter().try_for_each(|change| sink.apply(&change))?;
                sink.flush().map(|_| ())
            })
            .unwrap();
    }

    /// Sets a switch of this node's connection tracking.
    fn switch(&self, name: &str, value: &str) {
        let path = format!("/proc/sys/net/netfilter/{name}");
        self.namespace.run(|| std::fs::write(path, value)).unwrap();
    }

    fn counter(&self, name: &str) -> u64 {
        self.group()["counters"][name].as_u64().unwrap()
    }

    /// Seconds that the flows of this node's table have left.
    fn time_left(&self) -> Vec<u64> {
        let answer = self.ask("/v1/flows").unwrap();
        answer["flows"].as_array().unwrap().iter().map(|flow| flow["timeout_s"].as_u64().unwrap()).collect()
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
    eventually("a has its address", || a.holds_the_address());
    ip(&a.namespace, &["address", "del", ADDRESS, "dev", "la"]);
    eventually("what somebody removed is back, and told", || {
        let group = a.group();
        let told = |event: &Value| event["event"] == "AddressLost";
        a.holds_the_address() && group["last_events"].as_array().is_some_and(|events| events.iter().any(told))
    });
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
fn a_drain_that_is_wished_while_an_interface_is_waited_for_holds_when_it_has_come() {
    if !root() {
        return;
    }
    let (mut a, mut b) = (Node::new('a', 150, ""), Node::new('b', 100, ""));
    a.start();
    b.start();
    eventually("a says what it waits for", || a.group()["trouble"] == "there is no interface sa");
    let socket = a.socket();
    let drain = |off: bool| {
        let body = serde_json::json!({ "off": off }).to_string();
        let answer = client::send(&socket, hyper::Method::POST, "/v1/drain", body).unwrap();
        serde_json::from_slice::<Value>(&answer).unwrap()["groups"][0].clone()
    };
    let row = |causes: &[&str]| serde_json::json!({ "sync_id": 51, "role": "init", "draining": causes });
    assert_eq!([drain(false), drain(true), drain(false)], [row(&["operator"]), row(&[]), row(&["operator"])]);
    assert_eq!(a.group()["draining"], serde_json::json!(["operator"]));
    link(&a, &b);
    eventually("b has the role although its priority is the lower one", || {
        b.is("master", "source") && a.is("backup", "in_sync") && b.group()["peers"][0]["draining"] == true
    });
    assert_eq!((&a.group()["draining"], &a.group()["asks"]), (&serde_json::json!(["operator"]), &false.into()));
    assert_eq!(drain(true)["draining"], serde_json::json!([]));
    eventually("who drains no longer takes the role by its priority", || a.is("master", "source"));
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

/// [4.6.2] [4.3.2] No zombies: the kernel is silent about entries that were made while events were off.
#[test]
fn a_flow_that_died_in_silence_is_gone_from_every_node_after_a_dump() {
    if !root() {
        return;
    }
    let (mut a, mut b) = pair("dump_interval = \"1s\"");
    a.switch("nf_conntrack_events", "0");
    a.connections(10);
    a.start();
    eventually("a is master", || a.is("master", "source"));
    b.start();
    eventually("b has the flows", || b.is("backup", "in_sync") && b.group()["entries"] == 10);
    eventually("and so has its kernel", || b.kernel_entries() == 10);

    a.write([Change::Delete(flow(3).key)]);
    assert_eq!(a.kernel_entries(), 9);
    eventually("b's table and kernel follow", || b.group()["entries"] == 9 && b.kernel_entries() == 9);
    eventually("and are proven", || b.is("backup", "in_sync"));
    assert_eq!((a.counter("source_events_destroy"), a.counter("engine_dump_deletes")), (0, 1));
}

/// [4.6.2] Packets refresh a time-out without an event.
#[test]
fn a_time_out_that_packets_refresh_is_fresh_on_the_backup_too() {
    if !root() {
        return;
    }
    let (mut a, mut b) = pair("dump_interval = \"1s\"");
    ip(&a.namespace, &["address", "add", "10.9.0.1/32", "dev", "lo"]);
    a.switch("nf_conntrack_udp_timeout", "8");
    // A rule that asks for the state is what makes the kernel track.
    let rules =
        "add table ip t; add chain ip t c { type filter hook output priority 0; }; add rule ip t c ct state new accept";
    let nft = a.namespace.run(|| Command::new("nft").arg(rules).output()).unwrap();
    assert!(nft.status.success(), "{}", String::from_utf8_lossy(&nft.stderr));
    a.start();
    b.start();
    eventually("b is in sync", || a.is("master", "source") && b.is("backup", "in_sync"));

    let socket = a.namespace.run(|| std::net::UdpSocket::bind("10.9.0.1:4000")).unwrap();
    let send = || socket.send_to(b"one way", "10.9.0.1:4001").unwrap();
    let left = |seconds: std::ops::RangeInclusive<u64>| b.time_left().iter().all(|left| seconds.contains(left));
    eventually("b has the flow", || send() > 0 && b.group()["entries"] == 1);
    eventually("its clock runs down", || send() > 0 && left(0..=4));
    // The kernel shows whole seconds, rounded down.
    eventually("and is set again", || send() > 0 && left(7..=8));
    assert_eq!((a.counter("source_events_new"), a.counter("source_events_update")), (1, 0));
    assert_eq!(b.kernel_entries(), 1);
}
