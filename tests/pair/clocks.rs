//! Clocks of copies: what a backup's kernel holds outlives what nobody tells it, is put back when it is dropped, and is worth
//! something to the next daemon.

use crate::support::{Node, Pair, eventually, figure, ip, root, run};
use nix::sys::signal::Signal;
use ssyncp::bridge::conntrack::{ConntrackInspector, Filter};
use ssyncp::bridge::{Inspector, Piece};
use ssyncp::demo::kernel::Difference;
use ssyncp::flow::Flow;
use ssyncp::sys::namespace::Namespace;
use std::io;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

/// The flow of one UDP port in a namespace's kernel, with the seconds that it has left.
fn of_port(namespace: &Namespace, port: u16) -> Option<Flow> {
    let read = || {
        let mut inspector = ConntrackInspector::open(Filter::default()).map_err(io::Error::other)?;
        let mut found = None;
        inspector.begin()?;
        while inspector.read(&mut |flow| {
            if flow.key.source_port == port {
                found = Some(flow);
            }
        })? != Piece::Complete
        {}
        Ok(found)
    };
    namespace.run(read).unwrap()
}

/// A socket of node `a` whose datagrams leave by `la` and are tracked, each for one second.
fn one_second_flow(a: &Node, port: u16) -> UdpSocket {
    ip(&a.namespace, "address add 10.9.0.1/24 dev la\nneigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev la");
    let rules = "table ip test { chain out { type filter hook output priority 0; ct state new accept; }; }";
    run(&a.namespace, "nft", &[rules]);
    run(&a.namespace, "sysctl", &["-w", "net.netfilter.nf_conntrack_udp_timeout=1"]);
    a.namespace.run(|| UdpSocket::bind(("10.9.0.1", port))).unwrap()
}

/// [4.6.4] [4.6.5] The master's dumps are an hour apart, its flow has a second left at most, and no event tells that packets
/// refresh it: the copy is there all the time, with `takeover_grace` left whenever the role might be taken, and afterwards.
#[test]
fn a_flow_that_only_its_packets_keep_alive_outlives_many_of_its_time_outs_on_a_backup() {
    if !root() {
        return;
    }
    let mut pair = Pair::new("dump_interval = \"1h\"\naudit = \"off\"\ntakeover_grace = \"20s\"");
    pair.start();
    let socket = one_second_flow(&pair.a, 5000);
    let packet = || assert_eq!(socket.send_to(b"!", ("10.9.0.2", 9)).unwrap(), 1);
    packet();
    eventually("b has a copy", || of_port(&pair.b.namespace, 5000).is_some());
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(8) {
        packet();
        let master = of_port(&pair.a.namespace, 5000).map(|flow| flow.timeout);
        assert!(master.is_some_and(|left| left <= 1), "the master's own clock: {master:?}");
        let copy = of_port(&pair.b.namespace, 5000).map(|flow| flow.timeout);
        assert!(copy.is_some_and(|left| (21..=116).contains(&left)), "after {:?}: {copy:?}", start.elapsed());
        std::thread::sleep(Duration::from_millis(100));
    }
    pair.a.end(Signal::SIGKILL);
    eventually("b is master", || pair.b.is("master", "source") && pair.b.counter("driver_source_dumps_completed") > 0);
    let copy = of_port(&pair.b.namespace, 5000).map(|flow| flow.timeout);
    assert!(copy.is_some_and(|left| left >= 20), "{copy:?}");
}

/// [4.6.6] By its events, long before an audit looks.
#[test]
fn what_a_backups_kernel_drops_is_put_back_because_it_says_so() {
    if !root() {
        return;
    }
    let mut pair = Pair::new("audit_interval = \"1h\"");
    pair.start();
    pair.a.connect(0..1000);
    pair.until_equal(1000);
    pair.b.disconnect(100..400);
    eventually("the backup has heard of it", || pair.b.counter("driver_source_copies_put_back") == 300);
    eventually("all is there again", || pair.difference() == Difference::default());
    assert_eq!((pair.b.kernel_entries(), pair.b.group()["entries"].as_u64()), (1000, Some(1000)));
    // What really ends, ends.
    pair.a.disconnect(0..500);
    eventually("both have half", || pair.a.kernel_entries() == 500 && pair.difference() == Difference::default());
    assert_eq!(pair.b.counter("driver_source_copies_put_back"), 300);
}

/// [4.6.6] More than a second's worth of them, or more than the buffer of events holds: the kernel itself is looked at.
#[test]
fn a_backups_kernel_that_loses_everything_is_filled_again() {
    if !root() {
        return;
    }
    let mut pair = Pair::new("audit_interval = \"1h\"\nevent_buffer = \"1MiB\"");
    pair.start();
    pair.a.connect(0..20_000);
    pair.until_equal(20_000);
    eventually("the kernel was looked at once", || pair.b.counter("driver_audits") == 1);
    pair.b.disconnect(0..20_000);
    eventually("all is there again", || {
        pair.b.kernel_entries() == 20_000 && pair.difference() == Difference::default()
    });
    assert_eq!(pair.a.group()["entries"].as_u64(), Some(20_000));
}

/// [4.6.6] The kernel of a backup has dropped copies while its daemon slept, and its master is dead when it wakes.
#[test]
fn what_a_kernel_dropped_before_a_takeover_does_not_die_of_the_takeover() {
    if !root() {
        return;
    }
    let mut pair = Pair::new("audit_interval = \"1h\"");
    pair.start();
    pair.a.connect(0..100);
    pair.until_equal(100);
    pair.b.tell(Signal::SIGSTOP);
    pair.b.disconnect(0..50);
    pair.a.end(Signal::SIGKILL);
    pair.b.tell(Signal::SIGCONT);
    eventually("b is master", || pair.b.is("master", "source") && pair.b.counter("driver_source_dumps_completed") > 0);
    assert_eq!((pair.b.kernel_entries(), pair.b.group()["entries"].as_u64()), (100, Some(100)));
    pair.a.start();
    pair.settle();
    pair.until_equal(100);
}

/// [4.5.7] 20,000 entries, of which ten are other ones now.
#[test]
fn a_daemon_that_comes_back_to_a_full_kernel_asks_for_what_has_changed() {
    if !root() {
        return;
    }
    let mut pair = Pair::new("audit_interval = \"1s\"");
    pair.start();
    pair.a.connect(0..20_000);
    pair.until_equal(20_000);
    pair.b.end(Signal::SIGKILL);
    pair.a.disconnect(0..5);
    pair.a.connect(20_000..20_005);
    let walked = pair.a.counter("engine_buckets_walked");
    pair.b.start();
    eventually("b is in sync", || pair.b.is("backup", "in_sync"));
    let walked = pair.a.counter("engine_buckets_walked") - walked;
    println!("{walked} buckets walked, {:?}", pair.b.counters("preloaded"));
    assert_eq!(pair.b.counter("driver_source_flows_preloaded"), 20_000);
    assert!((1..=10).contains(&walked), "{walked} buckets");
    // What ended meanwhile is not deleted unseen: the audit looks twice.
    eventually("what has ended is removed", || pair.b.counter("driver_audit_removed") == 5);
    pair.until_equal(20_000);
}

/// Seconds of the day of the last line of a log that says this.
fn logged_at(log: &str, text: &str) -> f64 {
    let line = log.lines().rfind(|line| line.contains(text)).unwrap_or_else(|| panic!("no \"{text}\" in the log"));
    let (_, time) = line.split_once('T').unwrap();
    let (time, _) = time.split_once('Z').unwrap();
    time.split(':').fold(0.0, |sum, part| sum * 60.0 + part.parse::<f64>().unwrap())
}

/// [5.2.1] Seconds of the first phase of a takeover from a master with so many connections.
fn first_phase(entries: u32, commit: &str) -> f64 {
    let capacity = entries + entries / 4;
    let settings =
        format!("commit = \"{commit}\"\ncommit_deadline = \"1m\"\ncapacity = {capacity}\nevent_buffer = \"512MiB\"");
    let mut pair = Pair::new(&settings);
    pair.start();
    pair.a.connect(0..entries);
    let held = |node: &Node| node.group()["entries"].as_u64() == Some(entries.into());
    eventually("b has all", || held(&pair.b) && pair.b.is("backup", "in_sync"));
    let written = if commit == "continuous" { entries.into() } else { 0 };
    eventually("b's kernel is as it should be", || pair.b.kernel_entries() == written);
    pair.a.end(Signal::SIGKILL);
    eventually("b is master", || pair.b.is("master", "source") && pair.b.kernel_entries() == u64::from(entries));
    assert_eq!(pair.b.counter("driver_sink_changes_written"), u64::from(entries), "each of them once");
    let log = pair.b.log();
    assert!(!log.contains("CommitDeadlinePassed"));
    logged_at(&log, "role: promoting to master") - logged_at(&log, "role: backup to promoting")
}

/// [5.2.1] By hand: `COMMIT_ENTRIES=500000 cargo test --release --test pair clocks nothing_twice -- --nocapture`
#[test]
fn a_takeover_writes_what_the_kernel_lacks_and_nothing_twice() {
    if !root() {
        return;
    }
    let entries = figure("COMMIT_ENTRIES", 5_000);
    let [continuous, on_takeover] = ["continuous", "on-takeover"].map(|commit| first_phase(entries, commit));
    println!("first phase, {entries} entries: continuous {continuous:.6} s, on-takeover {on_takeover:.6} s");
}
