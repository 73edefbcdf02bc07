//! Active/active: two groups over one kernel table, divided by virtual address. Node a is master of group 51, node b of group
//! 52; whoever dies, the other one has both, and every connection of both.

use crate::support::{Node, Pair, connection, eventually, root, run};
use nix::sys::signal::Signal;
use serde_json::Value;
use ssyncp::flow::{Change, Endpoint, Flow, status};
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

/// Connections of each group.
const EACH: u32 = 1000;
/// The groups' sync ids, and the last byte of the address that each holds.
const GROUPS: [(u64, u8); 2] = [(51, 10), (52, 20)];

/// A pair that divides its work: each node has the higher priority for one of the groups.
fn divided() -> Pair {
    let pair = Pair::new("");
    for (node, letter, priorities) in [(&pair.a, 'a', [150, 100]), (&pair.b, 'b', [100, 150])] {
        let id = u32::from(letter) - u32::from('a') + 1;
        let mut text = format!("[node]\nid = {id}\n[control]\nsocket = \"{}\"\n", node.socket().display());
        for ((sync_id, host), priority) in GROUPS.into_iter().zip(priorities) {
            text += &format!(
                "[[group]]\nsync_id = {sync_id}\ninterfaces = [\"s{letter}\"]\npriority = {priority}\n\
                 addresses = [\"192.0.2.{host}/24 dev l{letter}\"]\naudit_interval = \"1s\"\ndump_interval = \"1s\"\n"
            );
        }
        node.configure(&text);
    }
    pair
}

/// A connection of a group: every third is translated at its source, and names the virtual address in the reply alone.
fn owned(host: u8, number: u32) -> Flow {
    let mut flow = connection(number);
    let address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, host));
    (flow.reply_source, flow.reply_destination) = (None, None);
    flow.status &= !(status::SRC_NAT | status::DST_NAT);
    if number.is_multiple_of(3) {
        flow.key.destination = IpAddr::V4(Ipv4Addr::new(203, 0, 113, host));
        flow.reply_destination = Some(Endpoint { address, port: 20_000 + number as u16 });
        flow.status |= status::SRC_NAT;
    } else {
        flow.key.destination = address;
    }
    flow
}

fn begin(node: &Node, group: usize, numbers: std::ops::Range<u32>) {
    node.write(numbers.map(|number| Change::Upsert(owned(GROUPS[group].1, number))));
}

fn end(node: &Node, group: usize, numbers: std::ops::Range<u32>) {
    node.write(numbers.map(|number| Change::Delete(owned(GROUPS[group].1, number).key)));
}

fn group(node: &Node, group: usize) -> Value {
    node.ask("/v1/status").map_or(Value::Null, |status| status["groups"][group].clone())
}

fn is_master(node: &Node, number: usize) -> bool {
    let addresses = run(&node.namespace, "ip", &["-4", "-o", "address", "show"]);
    let (state, held) = (group(node, number), format!(" 192.0.2.{}/24", GROUPS[number].1));
    state["role"] == "master" && state["sync"] == "source" && addresses.contains(&held)
}

fn is_ready(node: &Node, number: usize) -> bool {
    let state = group(node, number);
    state["role"] == "backup" && state["sync"] == "in_sync"
}

fn until_each_has_its_own(pair: &Pair) {
    eventually("each is master of its group and backup of the other", || {
        is_master(&pair.a, 0) && is_ready(&pair.a, 1) && is_master(&pair.b, 1) && is_ready(&pair.b, 0)
    });
}

fn until_both_are_of(node: &Node) {
    eventually("one node is master of both groups", || is_master(node, 0) && is_master(node, 1));
}

fn told(node: &Node, number: usize, event: &str) -> bool {
    group(node, number)["last_events"].to_string().contains(event)
}

/// A pair at work: each node has [`EACH`] connections of its own group, and copies of the other's.
fn at_work() -> Pair {
    let mut pair = divided();
    pair.a.start();
    pair.b.start();
    until_each_has_its_own(&pair);
    begin(&pair.a, 0, 0..EACH);
    begin(&pair.b, 1, 0..EACH);
    pair.until_equal(2 * EACH as usize);
    pair
}

#[test]
fn whichever_node_dies_the_other_one_is_master_of_both_groups_and_has_every_connection() {
    if !root() {
        return;
    }
    let mut pair = at_work();
    pair.a.end(Signal::SIGKILL);
    until_both_are_of(&pair.b);
    assert_eq!(pair.b.kernel_entries(), 2000, "nothing is lost of either group");
    begin(&pair.b, 0, 3000..3100);
    end(&pair.b, 0, 0..50);
    end(&pair.b, 1, 0..50);
    pair.a.start();
    until_each_has_its_own(&pair);
    pair.until_equal(2000);
    assert_eq!(pair.a.kernel_entries(), 2000);

    pair.b.end(Signal::SIGKILL);
    until_both_are_of(&pair.a);
    assert_eq!(pair.a.kernel_entries(), 2000, "nothing is lost of either group");
    begin(&pair.a, 1, 3000..3100);
    pair.b.start();
    until_each_has_its_own(&pair);
    pair.until_equal(2100);
}

/// What one group replicates is its own share, on the wire already: a table holds nothing of the other group.
#[test]
fn each_group_replicates_its_own_share_and_what_no_group_owns_is_told_of() {
    if !root() {
        return;
    }
    let pair = at_work();
    let flows = |node: &Node, number: usize| group(node, number)["entries"].as_u64();
    assert_eq!((flows(&pair.a, 0), flows(&pair.a, 1)), (Some(1000), Some(1000)));
    assert_eq!((flows(&pair.b, 0), flows(&pair.b, 1)), (Some(1000), Some(1000)));
    assert!(!told(&pair.a, 0, "FlowsLeftOver"));
    let mut stray = connection(0);
    stray.key.destination = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 99));
    pair.a.write([Change::Upsert(stray)].into_iter());
    eventually("it is told", || told(&pair.a, 0, "connections pass this node that belong to no group, 1 at present"));
    assert_eq!((pair.a.kernel_entries(), pair.b.kernel_entries()), (2001, 2000));
}

#[test]
fn a_backup_removes_what_is_stale_in_its_share_and_touches_nothing_of_the_other() {
    if !root() {
        return;
    }
    let pair = at_work();
    // As if the end of these had been missed: nobody but b's kernel knows them.
    begin(&pair.b, 0, 5000..5010);
    eventually("the stale ones are removed", || pair.b.kernel_entries() == 2000);
    pair.until_equal(2000);
    let removed = |number: usize| group(&pair.b, number)["counters"]["driver_audit_removed"].as_u64();
    assert_eq!((removed(0), removed(1)), (Some(10), Some(0)));
}

/// The demo's own processes, traffic and judge: real connections through both groups.
#[test]
fn the_demo_of_both_nodes_at_work_loses_no_connection_to_either_death() {
    if !root() {
        return;
    }
    let demo = Command::new(env!("CARGO_BIN_EXE_ssyncp"))
        .args(["demo", "--active-active", "--connections", "200", "--json"])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&demo.stderr);
    assert!(demo.status.success(), "{told}");
    let report: Value = serde_json::from_slice(&demo.stdout).unwrap();
    let died: Vec<_> = report["deaths"].as_array().unwrap().iter().map(|death| death["died"].clone()).collect();
    assert_eq!(died, ["lb-a", "lb-b"]);
    for death in report["deaths"].as_array().unwrap() {
        assert_eq!((death["survived"].as_u64(), death["reset"].as_u64()), (Some(200), Some(0)), "{report}");
    }
}
