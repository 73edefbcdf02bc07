//! The role goes from one `ssyncp run` to another in good order, under live TCP connections through NAT.
//!
//! ```text
//!   client 192.0.2.1 ──┐                ┌── la, node a ── sa ══ switch ══ sb ── node b, lb ──┐
//!   server 192.0.2.20 ─┴── bridge lan ──┴────────────────────────────────────────────────────┘
//!   192.0.2.10:80 is the server's port 7: destination and source are translated on the node that has the address
//! ```
//!
//! That never two nodes have the address is judged by the kernels' own events: when one says "added", the other's "removed"
//! must be there already, whatever the scheduler does to who reads them.

use crate::support::{Node, PATIENCE, Pair, eventually, ip, path_of, root, run};
use nix::sys::signal::Signal;
use ssyncp::sys::namespace::Namespace;
use ssyncp::sys::netlink::NetlinkSocket;
use ssyncp::sys::poll;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Scope;
use std::time::{Duration, Instant};

/// Connections that live through all of it.
const CONNECTIONS: usize = 20;
/// What the clients talk to: the address that the master holds.
const SERVICE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 10), 80);
/// Netlink protocol, group and kinds of messages (linux/netlink.h, linux/rtnetlink.h).
const NETLINK_ROUTE: i32 = 0;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;

/// `ssyncp` with these arguments, told to talk to a node.
fn ssyncp(node: &Node, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ssyncp")).args(arguments).arg("--socket").arg(node.socket()).output().unwrap()
}

/// The same, which must end with this status and say this.
#[track_caller]
fn says(node: &Node, arguments: &[&str], status: i32, words: &str) {
    let output = ssyncp(node, arguments);
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    assert!(output.status.code() == Some(status) && said.contains(words), "{arguments:?}: {}: {said}", output.status);
}

/// How often an event of this name stands among a node's last ones.
fn events(node: &Node, name: &str) -> usize {
    let group = node.group();
    group["last_events"].as_array().into_iter().flatten().filter(|event| event["event"] == name).count()
}

/// Ends those who look at a flag, also when the test fails in between.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Client and server on one LAN with the nodes, which translate between them.
struct Lan {
    client: Namespace,
    server: Namespace,
}

impl Lan {
    fn new(pair: &Pair) -> Self {
        let (client, server) = (Namespace::create().unwrap(), Namespace::create().unwrap());
        let there = path_of(&client);
        ip(&client, "link set lo up\nlink add lan type bridge mcast_snooping 0\nlink set lan up");
        for (node, letter) in [(&pair.a, 'a'), (&pair.b, 'b')] {
            ip(&node.namespace, &format!("link set l{letter}0 netns {there}"));
            ip(&client, &format!("link set l{letter}0 master lan up"));
            translate(node, letter);
        }
        ip(
            &client,
            &format!(
                "link add sv0 type veth peer name sv netns {}
                 link set sv0 master lan up
                 address add 192.0.2.1/24 dev lan",
                path_of(&server)
            ),
        );
        ip(&server, "link set lo up\nlink set sv up\naddress add 192.0.2.20/24 dev sv");
        Lan { client, server }
    }
}

fn translate(node: &Node, letter: char) {
    let set = |(name, value): (&str, &str)| std::fs::write(format!("/proc/sys/net/{name}"), value);
    let settings = [
        ("ipv4/ip_forward", "1"),
        ("ipv4/conf/all/send_redirects", "0"),
        ("ipv4/conf/default/send_redirects", "0"),
        ("netfilter/nf_conntrack_tcp_be_liberal", "1"),
    ];
    node.namespace.run(|| settings.into_iter().try_for_each(set)).unwrap();
    ip(&node.namespace, &format!("link set l{letter} up"));
    let off = format!("ipv4/conf/l{letter}/send_redirects");
    node.namespace.run(|| set((&off, "0"))).unwrap();
    let rules = format!(
        "table ip test {{
            chain untracked_in {{ type filter hook prerouting priority raw; iifname s{letter} notrack; }}
            chain untracked_out {{ type filter hook output priority raw; oifname s{letter} notrack; }}
            chain services {{ type nat hook prerouting priority dstnat; ip daddr 192.0.2.10 tcp dport 80 dnat to 192.0.2.20:7; }}
            chain gateway {{ type nat hook postrouting priority srcnat; ip daddr 192.0.2.20 snat to 192.0.2.10; }}
        }}"
    );
    run(&node.namespace, "nft", &[&rules]);
}

/// Answers each connection with what it says.
fn serve(listener: &TcpListener) {
    for _ in 0..CONNECTIONS {
        let (mut stream, _) = listener.accept().unwrap();
        std::thread::spawn(move || {
            let mut bytes = [0; 8];
            while stream.read_exact(&mut bytes).is_ok() && stream.write_all(&bytes).is_ok() {}
        });
    }
}

/// Live connections: how many rounds each has made, and its longest silence.
#[derive(Default)]
struct Talk {
    stop: AtomicBool,
    lines: [Line; CONNECTIONS],
}

#[derive(Default)]
struct Line {
    rounds: AtomicU64,
    longest_ms: AtomicU64,
}

impl Talk {
    /// Opens all of them; each goes on until it is told to stop.
    fn begin<'a>(&'a self, scope: &'a Scope<'a, '_>, lan: &Lan, listener: &'a TcpListener) {
        scope.spawn(|| serve(listener));
        for line in &self.lines {
            let stream = lan.client.run(|| TcpStream::connect(SERVICE)).unwrap();
            scope.spawn(|| line.converse(stream, &self.stop));
        }
        self.goes_on();
    }

    /// Waits until every one has made some rounds more.
    fn goes_on(&self) {
        let rounds = || self.lines.iter().map(|line| line.rounds.load(Ordering::Relaxed));
        let before: Vec<u64> = rounds().collect();
        eventually("every connection goes on", || rounds().zip(&before).all(|(now, before)| now > before + 3));
    }

    /// The longest silence of each, since this was asked last.
    fn silences_ms(&self) -> Vec<u64> {
        self.lines.iter().map(|line| line.longest_ms.swap(0, Ordering::Relaxed)).collect()
    }
}

impl Line {
    /// Counts aloud, and every number must come back.
    fn converse(&self, mut stream: TcpStream, stop: &AtomicBool) {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut number = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            number += 1;
            let asked = Instant::now();
            stream.write_all(&number.to_be_bytes()).unwrap();
            let mut answer = [0; 8];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(u64::from_be_bytes(answer), number);
            self.rounds.store(number, Ordering::Relaxed);
            self.longest_ms.fetch_max(asked.elapsed().as_millis() as u64, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Who has the address, by the kernels' events: each is whether it was added.
struct Watch {
    sockets: [NetlinkSocket; 2],
    events: [VecDeque<bool>; 2],
    holds: [bool; 2],
    /// How often it came to somebody.
    moves: u32,
}

impl Watch {
    /// Looks on from now on; nobody has the address yet.
    fn new(pair: &Pair) -> Self {
        let open = || {
            let socket = NetlinkSocket::open(NETLINK_ROUTE, 1 << 20)?;
            socket.join(RTNLGRP_IPV4_IFADDR)?;
            Ok(socket)
        };
        let sockets = [&pair.a, &pair.b].map(|node| node.namespace.run(open).unwrap());
        Watch { sockets, events: Default::default(), holds: [false; 2], moves: 0 }
    }

    /// Reads events as they come until told to stop, and holds them to the promise; how often the address has moved, and
    /// who has it.
    fn run(mut self, stop: &AtomicBool) -> (u32, [bool; 2]) {
        while !stop.load(Ordering::Relaxed) {
            let [one, other] = &self.sockets;
            poll::wait(&[one.as_fd(), other.as_fd()], Some(ssyncp::time::Duration::from_millis(20))).unwrap();
            self.look();
        }
        self.look();
        (self.moves, self.holds)
    }

    /// What the first says that was read before the second was must find its reason there; what was read after it may
    /// have a reason that comes with the next look.
    fn look(&mut self) {
        self.read(0);
        let certain = self.events[0].len();
        self.read(1);
        self.read(0);
        let all = self.events[0].len();
        while let Some(node) = (0..2).find(|node| self.may_be_next(*node)) {
            let added = self.events[node].pop_front().unwrap();
            self.moves += u32::from(added && !self.holds[node]);
            self.holds[node] = added;
        }
        let taken = all - self.events[0].len();
        assert!(taken >= certain && self.events[1].is_empty(), "both nodes have the address");
    }

    /// A removal always, an addition if the other has it not.
    fn may_be_next(&self, node: usize) -> bool {
        self.events[node].front().is_some_and(|added| !added || !self.holds[1 - node])
    }

    fn read(&mut self, node: usize) {
        while let Some(message) = self.sockets[node].receive().unwrap() {
            let kind = u16::from_ne_bytes([message[4], message[5]]);
            let ours = message.windows(4).any(|bytes| bytes == SERVICE.ip().octets());
            if ours && [RTM_NEWADDR, RTM_DELADDR].contains(&kind) {
                self.events[node].push_back(kind == RTM_NEWADDR);
            }
        }
    }
}

/// Does something to a pair with live connections, all of which are to outlive it; how often the address has moved, and who has it.
/// A machine that stands still for a moment moves no role.
fn under_traffic(act: impl FnOnce(&mut Pair, &Talk)) -> (u32, [bool; 2]) {
    let mut pair = Pair::new("advert_interval = \"400ms\"");
    let lan = Lan::new(&pair);
    let watch = Watch::new(&pair);
    pair.start();
    let talk = Talk::default();
    let listener = lan.server.run(|| TcpListener::bind("0.0.0.0:7")).unwrap();
    let watched = std::thread::scope(|scope| {
        let watch = scope.spawn(|| watch.run(&talk.stop));
        let ending = Ending(&talk.stop);
        talk.begin(scope, &lan, &listener);
        pair.until_equal(CONNECTIONS);
        eventually("a knows that b may inherit", || {
            let peer = pair.a.group()["peers"][0].clone();
            peer["cold"] == false && peer["acknowledged"].is_u64()
        });
        talk.silences_ms();
        act(&mut pair, &talk);
        drop(ending);
        watch.join().unwrap()
    });
    println!("longest silences, in ms: {:?}", talk.silences_ms());
    watched
}

/// [5.3.2] [5.3.4] [5.3.8] The role goes to the other node and comes back, and no connection notices; the address is never
/// on both.
#[test]
fn a_switch_there_and_back_costs_no_connection() {
    if !root() {
        return;
    }
    let watched = under_traffic(|pair, talk| {
        says(&pair.a, &["switchover", "--wait=30s"], 0, "group 51: the role goes to node 2\n");
        pair.settle();
        assert!(pair.b.is("master", "source") && pair.b.holds_the_address());
        assert_eq!((events(&pair.a, "HandoverDone"), events(&pair.b, "ElectionStarted")), (1, 0));
        talk.goes_on();

        // The other asks for it.
        says(&pair.a, &["switchover", "--to", "a", "--wait=30s"], 0, "group 51: the role goes to node 1\n");
        pair.settle();
        assert!(pair.a.is("master", "source") && pair.a.holds_the_address());
        assert_eq!(events(&pair.b, "HandoverDone"), 1);
        talk.goes_on();
    });
    assert_eq!(watched, (3, [true, false]));
}

/// [5.3.10] A master that is told to end gives its role away first: nobody waits for a timer, no connection notices, and the
/// address is never on both.
#[test]
fn a_master_that_ends_in_good_order_costs_no_connection() {
    if !root() {
        return;
    }
    let watched = under_traffic(|pair, talk| {
        assert_eq!(pair.a.end(Signal::SIGTERM).code(), Some(0));
        eventually("b is master", || pair.b.is("master", "source") && pair.b.holds_the_address());
        assert!(!pair.a.holds_the_address());
        // It was named heir, and has heard the goodbye of a backup.
        assert_eq!((events(&pair.b, "ElectionStarted"), events(&pair.b, "PeerLeft")), (0, 1));
        assert!(pair.a.log().contains("node 2 has taken the role over"), "{}", pair.a.log());
        talk.goes_on();
    });
    assert_eq!(watched, (2, [false, true]));
}

/// [5.3.10] [5.0.3] A master whom nobody may inherit says goodbye at once, and is replaced within the skew.
#[test]
fn a_master_without_an_heir_says_goodbye_at_once() {
    if !root() {
        return;
    }
    let mut pair = Pair::new("");
    pair.start();
    says(&pair.b, &["drain"], 0, "draining (operator)");
    eventually("a knows", || pair.a.group()["peers"][0]["draining"] == true);
    assert_eq!(pair.a.end(Signal::SIGTERM).code(), Some(0));
    assert!(!pair.a.log().contains("HandoverStarted"), "{}", pair.a.log());
    eventually("b is master", || pair.b.is("master", "source") && pair.b.holds_the_address());
    assert_eq!((events(&pair.b, "ElectionStarted"), events(&pair.b, "PeerLeft")), (1, 1));
}

/// [5.3.7] [5.3.1] A drained node gives the role away and stays without it, also over a reload; when it drains no more it
/// asks for the role, and is given it.
#[test]
fn a_drained_node_is_without_the_role_until_it_may_have_it_again() {
    if !root() {
        return;
    }
    // A machine that stands still for a moment moves no role.
    let mut pair = Pair::new("audit = \"off\"\nadvert_interval = \"400ms\"");
    let (watch, stop) = (Watch::new(&pair), AtomicBool::new(false));
    pair.start();
    let watched = std::thread::scope(|scope| {
        let watch = scope.spawn(|| watch.run(&stop));
        let ending = Ending(&stop);
        drain_and_end_it(&pair);
        drop(ending);
        watch.join().unwrap()
    });
    assert_eq!(watched, (3, [true, false]));
}

fn drain_and_end_it(pair: &Pair) {
    pair.a.connect(0..500);
    pair.until_equal(500);
    says(&pair.a, &["drain", "--wait=30s"], 0, "group 51: draining (operator), master now\n");
    pair.settle();
    assert!(pair.b.is("master", "source"));
    says(&pair.a, &["reload"], 0, "");
    assert_eq!(pair.a.group()["draining"], serde_json::json!(["operator"]));
    eventually("b knows", || pair.b.group()["peers"][0]["draining"] == true);
    says(&pair.b, &["switchover"], 4, "no backup is proven");
    says(&pair.a, &["switchover"], 4, "draining");
    assert!(pair.b.is("master", "source"));

    says(&pair.a, &["drain", "--off"], 0, "group 51: not draining, backup now\n");
    eventually("a is master again", || pair.a.is("master", "source"));
    pair.settle();
    assert_eq!((events(&pair.b, "HandoverDone"), events(&pair.a, "ElectionStarted")), (1, 1));
    pair.until_equal(500);
}

/// [5.3.2] [5.3.9] What cannot be is refused with exit status 4, and a node that is sworn dead is not waited for.
#[test]
fn an_oath_about_a_dead_master_ends_the_wait() {
    if !root() {
        return;
    }
    let mut pair = Pair::new("advert_interval = \"2s\"");
    pair.start();
    says(&pair.a, &["switchover", "--to", "9"], 4, "node 9 is no backup that is in sync");
    says(&pair.a, &["switchover", "--to", "1"], 4, "this node is master already");
    says(&pair.a, &["switchover", "--to", "a"], 4, "this node is master already");
    says(&pair.a, &["switchover", "--to", "c"], 4, "no node is called \"c\"; known are \"a\" (node 1), \"b\" (node 2)");
    says(&pair.b, &["peer-dead", "9"], 4, "node 9 is not known here");
    says(&pair.a, &["role", "backup", "--group", "52"], 4, "there is no group 52");
    pair.a.end(Signal::SIGKILL);
    says(&pair.b, &["peer-dead", "1"], 0, "group 51: node 1 is forgotten, backup now\n");
    assert_eq!((pair.b.group()["peers"].as_array().unwrap().len(), events(&pair.b, "PeerDown")), (0, 1));
    eventually("b is master", || pair.b.is("master", "source") && pair.b.holds_the_address());
    says(&pair.b, &["role", "master", "--wait=1s"], 0, "master now");
    says(&pair.b, &["role", "none", "--wait"], 0, "group 51: none requested, none now\n");
    says(&pair.b, &["role", "master", "--wait=100ms"], 1, "not within 100 ms");
}
