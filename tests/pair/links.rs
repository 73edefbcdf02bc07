//! Two `ssyncp run` with real kernels on two sync links, of which one or both are cut; on a link that speaks IPv6 only;
//! and on links whose MTU changes under them.
//!
//! ```text
//!   node a ── s1 ═══════ s1 ── node b
//!          ── s2 ═══════ s2 ──            no switch between them: who is switched off takes the other's carrier
//! ```

use crate::support;
use crate::support::{Node, eventually, ip, path_of, root, run};
use serde_json::Value;

/// Two nodes on links of their own.
struct Pair {
    a: Node,
    b: Node,
}

impl Pair {
    /// Everything but the daemons, on these links; `more` goes to the end of each group's settings.
    fn new(links: &[&str], more: &str) -> Self {
        let pair = Pair { a: Node::new('a', 150, ""), b: Node::new('b', 100, "") };
        for (node, id, priority, letter) in [(&pair.a, 1, 150, 'a'), (&pair.b, 2, 100, 'b')] {
            node.configure(&format!(
                "[node]\nid = {id}\nname = \"{letter}\"\n[control]\nsocket = \"{}\"\n[[group]]\nsync_id = 51\n\
                 interfaces = {links:?}\npriority = {priority}\naddresses = [\"{} dev l{letter}\"]\n{more}\n",
                node.socket().display(),
                support::ADDRESS
            ));
        }
        links.iter().for_each(|link| pair.plug_in(link));
        pair
    }

    /// Makes a link with both its ends.
    fn plug_in(&self, link: &str) {
        let there = path_of(&self.b.namespace);
        ip(&self.a.namespace, &format!("link add {link} type veth peer name {link} netns {there}\nlink set {link} up"));
        ip(&self.b.namespace, &format!("link set {link} up"));
    }

    fn start(&mut self) {
        self.a.start();
        eventually("a is master", || self.a.is("master", "source"));
        self.b.start();
        self.settle();
    }

    fn settle(&self) {
        eventually("a is master, b is in sync", || self.a.is("master", "source") && self.b.is("backup", "in_sync"));
    }

    fn until_equal(&self, least: usize) {
        eventually("both kernels hold the same", || {
            let (a, b) = (self.a.table(), self.b.table());
            a.len() >= least && ssyncp::demo::kernel::compare(&a, &b) == Default::default()
        });
    }

    fn both(&self) -> [&Node; 2] {
        [&self.a, &self.b]
    }
}

/// What a node says of one of its links.
fn link(node: &Node, number: usize) -> Value {
    node.group()["links"][number].clone()
}

/// The sentences of a node's last events of this name.
fn told(node: &Node, name: &str) -> Vec<String> {
    let group = node.group();
    let events = group["last_events"].as_array().into_iter().flatten();
    events.filter(|event| event["event"] == name).map(|event| event["text"].as_str().unwrap().to_owned()).collect()
}

/// What would have happened if a node had noticed the loss otherwise than by a line in its status.
fn upheavals(node: &Node) -> Vec<(String, u64)> {
    let mut found = node.counters("engine_holes");
    found.extend(node.counters("drop_"));
    let names = ["RoleChanged", "MasterLost", "Diverged", "PeerDown", "NewMaster", "TransportFailed"];
    found.extend(names.map(|name| (name.to_owned(), told(node, name).len() as u64)));
    found.push(("term".into(), node.group()["term"].as_u64().unwrap()));
    found
}

/// [7.0.1] [3.0.6] One of two links is cut, and comes back, then the other: an event and a line in the status of each
/// node, no change of role, nothing lost. Then both: nobody works.
#[test]
fn one_link_of_two_may_go_and_come_and_only_the_last_one_counts() {
    if !root() {
        return;
    }
    // A machine that stands still for a moment moves no role.
    let mut pair = Pair::new(&["s1", "s2"], "advert_interval = \"400ms\"");
    pair.start();
    let mut held = 500;
    pair.a.connect(0..held);
    pair.until_equal(500);
    let before = pair.both().map(upheavals);
    for (cut, name) in [(0, "s1"), (1, "s2")] {
        ip(&pair.b.namespace, &format!("link set {name} down"));
        eventually("both know", || pair.both().iter().all(|node| link(node, cut)["up"] == false));
        assert_eq!(link(&pair.a, cut)["condition"], "no carrier");
        assert_eq!(link(&pair.b, cut)["condition"], "switched off");
        assert!(told(&pair.a, "LinkDown").contains(&format!("sync link {name} is down: no carrier")));
        assert!(told(&pair.b, "LinkDown").contains(&format!("sync link {name} is down: switched off")));
        pair.a.connect(held..held + 500);
        held += 500;
        pair.until_equal(held as usize);
        assert!(pair.both().iter().all(|node| link(node, 1 - cut)["up"] == true && node.group()["link_up"] == true));
        ip(&pair.b.namespace, &format!("link set {name} up"));
        eventually("it is back", || pair.both().iter().all(|node| link(node, cut)["up"] == true));
        let back = format!("sync link {name} is up");
        assert!(pair.both().iter().all(|node| told(node, "LinkUp").contains(&back)));
        // Both bring frames again.
        let heard = pair.both().map(|node| link(node, cut)["frames_received"].as_u64().unwrap());
        eventually("frames come by it", || {
            pair.both().iter().zip(heard).all(|(node, heard)| link(node, cut)["frames_received"].as_u64() > Some(heard))
        });
    }
    pair.settle();
    assert_eq!(pair.both().map(upheavals), before);
    assert!(pair.both().iter().all(|node| node.counter("engine_duplicates") > 0), "every frame comes twice");
    ip(&pair.b.namespace, "link set s1 down\nlink set s2 down");
    eventually("nobody works", || {
        pair.both().iter().all(|node| node.group()["role"] == "fault" && !node.holds_the_address())
    });
    assert!(told(&pair.a, "LinkDown").contains(&"all sync links are down".to_owned()));
    ip(&pair.b.namespace, "link set s2 up");
    eventually("one link is enough", || {
        let roles = pair.both().map(|node| node.group()["role"].clone());
        roles.contains(&"master".into()) && roles.contains(&"backup".into())
    });
    pair.until_equal(held as usize);
}

/// [5.0.5] A backup without a carrier hears no master, and must not take its own deafness for a dead master. (The kernel may
/// take a second to tell of a carrier: adverts are slow enough to wait for it.)
#[test]
fn a_backup_that_loses_its_carrier_takes_nothing_over() {
    if !root() {
        return;
    }
    let mut pair = Pair::new(&["s1"], "advert_interval = \"1s\"");
    pair.start();
    ip(&pair.a.namespace, "link set s1 down");
    eventually("b knows", || pair.b.group()["role"] == "fault");
    assert_eq!(told(&pair.b, "RoleChanged").last().map(String::as_str), Some("role: backup to fault, term 1"));
    assert!(told(&pair.b, "LinkDown").contains(&"sync link s1 is down: no carrier".to_owned()));
}

/// An interface that is made anew beside one that works is opened again, although nothing ever failed.
#[test]
fn one_interface_of_two_that_is_made_anew_is_used_again() {
    if !root() {
        return;
    }
    // A machine that stands still for a moment moves no role.
    let mut pair = Pair::new(&["s1", "s2"], "advert_interval = \"400ms\"");
    pair.start();
    ip(&pair.a.namespace, "link del s1");
    eventually("both miss it", || pair.both().iter().all(|node| link(node, 0)["up"] == false));
    assert_eq!(link(&pair.a, 0)["condition"], "there is no such interface");
    pair.plug_in("s1");
    eventually("both use it", || pair.both().iter().all(|node| link(node, 0)["up"] == true));
    let heard = link(&pair.b, 0)["frames_received"].as_u64();
    eventually("frames come by it", || link(&pair.b, 0)["frames_received"].as_u64() > heard);
    pair.settle();
    assert_eq!(pair.a.group()["term"], 1);
}

/// [3.0.5] No IPv4 anywhere on the link, and duplicate address detection as on any machine.
#[test]
fn a_pair_gets_in_sync_over_a_link_that_speaks_ipv6_only() {
    if !root() {
        return;
    }
    let mut pair = Pair::new(&["s1"], "group = \"ff02::7251\"");
    pair.start();
    pair.a.connect(0..2000);
    pair.until_equal(2000);
    pair.settle();
    assert_eq!(run(&pair.a.namespace, "ip", &["-4", "-o", "address", "show", "dev", "s1"]), "");
    assert_eq!(pair.b.group()["frame_len"], 1460);
    assert_eq!(pair.b.counters("drop_"), []);
    // Away and back: the address has to prove itself anew, and so does the table.
    ip(&pair.b.namespace, "link set s1 down");
    eventually("nobody works", || pair.both().iter().all(|node| node.group()["role"] == "fault"));
    ip(&pair.b.namespace, "link set s1 up");
    pair.settle();
    pair.until_equal(2000);
}

/// [3.0.8] [3.6.7] The MTU falls and rises while connections come: frames follow, and both stay equal.
#[test]
fn frames_follow_the_mtu_under_traffic_and_nothing_is_lost() {
    if !root() {
        return;
    }
    // A machine that stands still for a moment moves no role.
    let mut pair = Pair::new(&["s1", "s2"], "advert_interval = \"400ms\"");
    pair.start();
    let term = pair.a.group()["term"].clone();
    let mut held = 0;
    for (mtu, frame_len) in [(1228, 1208), (9000, 8960), (1500, 1480)] {
        std::thread::scope(|scope| {
            let traffic = scope.spawn(|| pair.a.connect(held..held + 3000));
            // The receiving end of a veth takes what is as long as its own MTU, and the other end sends.
            ip(&pair.b.namespace, "link set s1 mtu 9000\nlink set s2 mtu 9000");
            ip(&pair.a.namespace, &format!("link set s1 mtu 9000\nlink set s2 mtu {mtu}"));
            traffic.join().unwrap();
        });
        held += 3000;
        eventually("a makes frames of that length", || pair.a.group()["frame_len"] == frame_len);
        assert_eq!(link(&pair.a, 1)["mtu"], mtu);
        pair.until_equal(held as usize);
    }
    pair.settle();
    assert_eq!(pair.a.group()["term"], term);
    let told = told(&pair.a, "FrameLengthChanged");
    let last = "frames have up to 1480 bytes now, before 8960: the MTU of a sync link has changed";
    assert_eq!(told.last().map(String::as_str), Some(last));
}
