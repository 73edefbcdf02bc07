//! A master and two backups, with real kernels: the master dies, then its successor, and the third carries on.

use crate::support::{Node, eventually, ip, path_of, root, run};
use nix::sys::signal::Signal;
use serde_json::json;
use ssyncp::demo::kernel::{self, Difference};
use ssyncp::sys::namespace::Namespace;

/// Three machines and the switch between them.
struct Trio {
    nodes: [Node; 3],
    /// Holds the bridge `sync` and its ports.
    _switch: Namespace,
}

impl Trio {
    /// All three run; the first is master, the others are in sync.
    fn at_work() -> Self {
        let switch = Namespace::create().unwrap();
        ip(&switch, "link add sync type bridge mcast_snooping 0\nlink set sync up");
        let mut nodes = [('a', 150), ('b', 100), ('c', 50)].map(|(letter, priority)| Node::new(letter, priority, ""));
        for (host, (letter, node)) in ['a', 'b', 'c'].into_iter().zip(&mut nodes).enumerate() {
            let there = path_of(&node.namespace);
            ip(
                &switch,
                &format!(
                    "link add p{letter} type veth peer name s{letter} netns {there}
                     link set p{letter} master sync up"
                ),
            );
            ip(&node.namespace, &format!("address add 10.255.0.{}/24 dev s{letter}\nlink set s{letter} up", host + 1));
            node.start();
        }
        let trio = Trio { nodes, _switch: switch };
        trio.settle(0, &[1, 2]);
        trio
    }

    /// Waits until this one is master and has the address alone, and these are in sync with it.
    fn settle(&self, master: usize, backups: &[usize]) {
        eventually(&format!("{master} is master, {backups:?} are in sync"), || {
            let number = master as u64 + 1;
            self.nodes[master].is("master", "source")
                && self.nodes[master].holds_the_address()
                && backups.iter().all(|at| {
                    let group = self.nodes[*at].group();
                    group["role"] == "backup" && group["sync"] == "in_sync" && group["master"] == number
                })
                && backups.iter().all(|at| !self.nodes[*at].holds_the_address())
        });
    }

    /// Waits until the kernels of these hold the same entries, and so many.
    fn until_equal(&self, nodes: &[usize], entries: usize) {
        eventually(&format!("the kernels of {nodes:?} hold the same {entries} entries"), || {
            let tables: Vec<_> = nodes.iter().map(|at| self.nodes[*at].table()).collect();
            tables
                .iter()
                .all(|table| table.len() == entries && kernel::compare(&tables[0], table) == Difference::default())
        });
    }
}

/// [3.5.13] What every node says of itself stands in the status of every other: what its records may have, and how much its
/// kernel can hold.
#[test]
fn every_node_knows_what_the_other_two_can_take() {
    if !root() {
        return;
    }
    let trio = Trio::at_work();
    let number = |node: &Node, name: &str| {
        let text = run(&node.namespace, "sysctl", &["-n", &format!("net.netfilter.{name}")]);
        text.trim().parse::<u64>().unwrap()
    };
    let [capacity, buckets] = ["nf_conntrack_max", "nf_conntrack_buckets"].map(|name| number(&trio.nodes[0], name));
    for (at, node) in (1..).zip(&trio.nodes) {
        eventually(&format!("node {at} knows the others"), || {
            let group = node.group();
            let Some(peers) = group["peers"].as_array() else { return false };
            let mut known: Vec<_> = peers.iter().map(|peer| peer["node"].as_u64()).collect();
            known.sort();
            let others: Vec<_> = (1..4).filter(|other| *other != at).map(Some).collect();
            known == others
                && peers.iter().all(|peer| {
                    peer["capabilities"] == json!(["conn6", "attributes", "section", "digests", "merge"])
                        && peer["kernel_capacity"] == capacity
                        && peer["kernel_buckets"] == buckets
                })
        });
    }
}

/// [1.5.1] Each successor has everything that any master had, and those that come back are filled and stay backups of
/// nobody but the one master.
#[test]
fn the_third_carries_on_when_the_master_and_its_successor_have_died() {
    if !root() {
        return;
    }
    let mut trio = Trio::at_work();
    trio.nodes[0].connect(0..2000);
    trio.until_equal(&[0, 1, 2], 2000);

    trio.nodes[0].end(Signal::SIGKILL);
    trio.settle(1, &[2]);
    trio.nodes[1].connect(2000..2500);
    trio.nodes[1].disconnect(0..100);
    trio.until_equal(&[1, 2], 2400);

    trio.nodes[1].end(Signal::SIGKILL);
    trio.settle(2, &[]);
    assert_eq!(trio.nodes[2].table().len(), 2400, "the third has what the first and the second had");
    trio.nodes[2].connect(2500..2600);

    // Nothing was deleted while they were dead but what they hear of now.
    trio.nodes[1].start();
    trio.settle(1, &[2]);
    trio.until_equal(&[1, 2], 2500);
}

/// [4.1.2] A backup that follows a new master is filled by it, also while the other backup is filled too.
#[test]
fn two_backups_that_were_away_are_filled_at_once() {
    if !root() {
        return;
    }
    let mut trio = Trio::at_work();
    trio.nodes[1].end(Signal::SIGKILL);
    trio.nodes[2].end(Signal::SIGKILL);
    trio.nodes[0].connect(0..3000);
    trio.nodes[1].start();
    trio.nodes[2].start();
    trio.settle(0, &[1, 2]);
    trio.until_equal(&[0, 1, 2], 3000);
}
