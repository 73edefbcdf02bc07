//! What a backup's kernel really holds is found out and put right, on a pair with the real kernel between them.

use crate::support::{Node, Pair, connection, eventually, root, run};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use ssyncp::bridge::conntrack::{ConntrackInspector, ConntrackSink, Filter, SinkOptions};
use ssyncp::bridge::{Inspector, Piece, Sink};
use ssyncp::flow::{Change, Flow, FlowKey, Zone, status};
use ssyncp::sys::namespace::Namespace;
use std::io;
use std::net::IpAddr;
use std::process::Command;

/// Whether the last audit of a node found nothing wrong, in a kernel with so many entries.
fn verified(node: &Node, entries: u64) -> bool {
    let verified = &node.group()["kernel_verified"];
    let number = |name: &str| verified[name].as_u64();
    [number("entries"), number("differing"), number("missing"), number("extra")]
        == [Some(entries), Some(0), Some(0), Some(0)]
}

fn told(node: &Node, name: &str) -> bool {
    let group = node.group();
    let is = |event: &Value| event["event"] == name;
    group["last_events"].as_array().is_some_and(|events| events.iter().any(is))
}

/// An entry of a node's own: one end is the address of its sync link.
fn own(host: u8) -> Flow {
    let key = FlowKey {
        source: IpAddr::from([10, 255, 0, host]),
        destination: IpAddr::from([198, 51, 100, 99]),
        source_port: 50_000,
        destination_port: 443,
        protocol: 6,
        zone: Zone::DEFAULT,
    };
    Flow { state: 3, status: status::SEEN_REPLY | status::ASSURED | status::CONFIRMED, timeout: 900, ..Flow::new(key) }
}

fn write(namespace: &Namespace, change: Change) {
    let write = || {
        let mut sink = ConntrackSink::open(&SinkOptions::default()).map_err(io::Error::other)?;
        sink.apply(&change)?;
        sink.flush()
    };
    assert_eq!(namespace.run(write).unwrap(), 1);
}

/// Everything that an inspector finds in a namespace.
fn read_back(namespace: &Namespace) -> Vec<Flow> {
    let read = || {
        let mut inspector = ConntrackInspector::open(Filter::default()).map_err(io::Error::other)?;
        let mut flows = Vec::new();
        inspector.begin()?;
        while inspector.read(&mut |flow| flows.push(flow))? != Piece::Complete {}
        assert!(inspector.read(&mut |_| ()).is_err(), "what has ended is over");
        Ok(flows)
    };
    namespace.run(read).unwrap()
}

#[test]
fn an_inspector_finds_what_a_sink_has_written_and_how_large_the_table_is() {
    if !root() {
        return;
    }
    let node = Node::new('a', 150, "");
    node.connect(0..1000);
    write(&node.namespace, Change::Upsert(own(1)));
    let flows = read_back(&node.namespace);
    assert_eq!(flows.len(), 1001);
    let inspector =
        node.namespace.run(|| ConntrackInspector::open(Filter::default()).map_err(io::Error::other)).unwrap();
    for flow in flows.iter().filter(|flow| flow.key != own(1).key) {
        let same = (0..1000).map(connection).find(|wanted| wanted.key == flow.key);
        assert!(same.is_some_and(|wanted| inspector.agrees(flow, &wanted)), "{flow:?}");
    }
    let room = node.namespace.run(|| inspector.room()).unwrap();
    let capacity: u64 =
        run(&node.namespace, "sysctl", &["-n", "net.netfilter.nf_conntrack_max"]).trim().parse().unwrap();
    assert_eq!((room.entries, room.capacity), (1001, capacity));
    assert!(room.buckets > 0);
}

/// [5.2.6] What died on the other node while this one's daemon was dead does not come back with this one.
#[test]
fn what_ended_while_a_backups_daemon_was_dead_is_removed_from_its_kernel() {
    if !root() {
        return;
    }
    let mut pair = Pair::new("audit_interval = \"1s\"");
    pair.start();
    pair.a.connect(0..1000);
    pair.until_equal(1000);
    eventually("b's kernel is verified", || verified(&pair.b, 1000) && told(&pair.b, "KernelVerified"));
    assert!(!told(&pair.b, "KernelDiffers"));
    eventually("each knows how large the other's kernel is", || {
        [&pair.a, &pair.b].into_iter().all(|node| {
            let kernel = node.group()["kernel"].clone();
            let same = |own: &str, peer: &str| kernel[own].as_u64() > Some(0) && kernel[own] == kernel[peer];
            same("capacity", "peer_capacity") && same("buckets", "peer_buckets")
        })
    });

    pair.b.end(Signal::SIGKILL);
    pair.a.disconnect(0..500);
    write(&pair.b.namespace, Change::Upsert(own(2)));
    assert_eq!((pair.a.kernel_entries(), pair.b.kernel_entries()), (500, 1001));
    pair.b.start();
    // Its own entry is one of the 501, and stays.
    eventually("only the stale ones are gone", || verified(&pair.b, 501));
    assert_eq!((pair.b.counter("driver_audit_extra"), pair.b.counter("driver_audit_removed")), (500, 500));
    assert!(told(&pair.b, "KernelDiffers"));
    assert_eq!(pair.b.kernel_entries(), 501);

    pair.a.end(Signal::SIGKILL);
    eventually("b is master", || pair.b.is("master", "source") && pair.b.counter("driver_source_dumps_completed") > 0);
    assert_eq!(pair.b.kernel_entries(), 501);
    // Its own connection is a flow like any other from now on.
    assert_eq!(pair.b.group()["entries"], 501);
    assert_eq!(pair.b.group()["kernel_verified"], Value::Null);
}

/// [5.3.3] The same for who comes back to take the role: it looks first.
#[test]
fn who_comes_back_to_preempt_brings_nothing_back_that_has_ended() {
    if !root() {
        return;
    }
    let mut pair = Pair::new("");
    pair.start();
    pair.a.connect(0..1000);
    pair.until_equal(1000);
    pair.a.end(Signal::SIGKILL);
    eventually("b is master", || pair.b.is("master", "source"));
    pair.b.disconnect(0..500);
    pair.a.start();
    eventually("a is master again", || pair.a.is("master", "source") && pair.b.is("backup", "in_sync"));
    eventually("a has compared its table with its kernel", || pair.a.counter("driver_source_dumps_completed") > 0);
    // The role may come so late that there was another audit, which found nothing more.
    assert!(pair.a.counter("driver_audits") >= 1);
    assert_eq!(pair.a.counter("driver_audit_removed"), 500);
    assert_eq!((pair.a.group()["entries"].clone(), pair.a.kernel_entries()), (json!(500), 500));
    eventually("b agrees", || pair.b.is("backup", "in_sync") && pair.b.group()["entries"] == 500);
}

/// [5.2.6]
#[test]
fn what_somebody_deletes_or_alters_behind_our_back_is_written_again() {
    let installed = Command::new("conntrack").arg("--version").output().is_ok();
    if !installed {
        println!("skipped: needs the program conntrack");
    }
    if !installed || !root() {
        return;
    }
    let mut pair = Pair::new("audit_interval = \"1s\"");
    pair.start();
    pair.a.connect(0..100);
    pair.until_equal(100);
    eventually("b's kernel is verified", || verified(&pair.b, 100));

    let of = |number: u32| {
        let key = connection(number).key;
        let words = format!("-p udp -s {} -d {} --sport {} --dport 80", key.source, key.destination, key.source_port);
        words.split(' ').map(str::to_owned).collect::<Vec<_>>()
    };
    // Numbers 5 and 13 are UDP, with their numbers as marks.
    let conntrack = |option: &str, number: u32, more: &[&str]| {
        let words = of(number);
        let words = [option].into_iter().chain(words.iter().map(String::as_str)).chain(more.iter().copied());
        run(&pair.b.namespace, "conntrack", &words.collect::<Vec<_>>())
    };
    conntrack("-D", 5, &[]);
    conntrack("-U", 13, &["-m", "99"]);
    eventually("both are as they were", || pair.difference() == ssyncp::demo::kernel::Difference::default());
    // What is wrong is repaired while an audit runs, and counted at its end; the one before it may still be shown.
    let counted = || (pair.b.counter("driver_audit_missing"), pair.b.counter("driver_audit_differing"));
    eventually("the audit has ended", || counted() != (0, 0));
    eventually("and the next finds nothing", || verified(&pair.b, 100));
    // What was deleted was put back because the kernel said so.
    assert_eq!((counted(), pair.b.counter("driver_source_copies_put_back")), ((0, 1), 1));
    assert_eq!((pair.b.counter("driver_audit_extra"), pair.b.counter("driver_audit_removed")), (0, 0));
}

/// [5.2.6]
#[test]
fn an_audit_that_only_reports_changes_nothing() {
    if !root() {
        return;
    }
    let mut pair = Pair::new("audit = \"report\"\naudit_interval = \"1s\"");
    pair.start();
    pair.a.connect(0..100);
    pair.until_equal(100);
    eventually("b's kernel is verified", || verified(&pair.b, 100));
    pair.b.disconnect(0..10);
    pair.b.connect(200..220);
    eventually("what is wrong is told", || {
        let verified = &pair.b.group()["kernel_verified"];
        (&verified["missing"], &verified["extra"]) == (&json!(10), &json!(20))
    });
    let audits = pair.b.counter("driver_audits");
    eventually("again and again", || pair.b.counter("driver_audits") > audits + 1);
    assert_eq!((pair.b.kernel_entries(), pair.b.counter("driver_audit_removed")), (110, 0));
}
