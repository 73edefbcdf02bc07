//! Every cause for which the role moves, with live connections through a real NAT: nothing is lost, and who comes late keeps
//! silent. Needs root.

use crate::machine::root;
use serde_json::{Value, json};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Nodes must keep their roles: each demo has the machine's time alone.
static TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a demo, and returns its report; its verdict must be the expected one.
fn report(arguments: &[&str]) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ssyncp"));
    let output = command.arg("demo").args(arguments).arg("--json").env("TMPDIR", directory.path()).output().unwrap();
    let (words, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_str(&words).unwrap_or_else(|error| panic!("{error}: {words}{errors}"));
    assert_eq!(output.status.code(), Some(0), "{report}");
    report
}

/// Each event of it by name, after it is clear that nothing was lost, and that the role moved where it should.
fn events(report: &Value, connections: u32) -> Vec<String> {
    let name = |failover: &Value| failover["event"].as_str().unwrap().to_owned();
    for failover in report["failovers"].as_array().unwrap() {
        let lost = (&failover["survived"], &failover["reset"], &failover["stalled"], &failover["mismatches"]);
        assert_eq!(lost, (&connections.into(), &0.into(), &0.into(), &0.into()), "{report}");
        let differences = (&failover["missing"], &failover["extra"], &failover["stale"]);
        assert_eq!(differences, (&0.into(), &0.into(), &0.into()), "{report}");
        let mends = ["restart", "continue", "sync-up", "both-ways"].contains(&name(failover).as_str());
        assert_eq!(failover["takeover_ms"].is_null(), mends, "{report}");
    }
    report["failovers"].as_array().unwrap().iter().map(name).collect()
}

/// The dead daemon's kernel holds the address and answers for it; the new master wins and stays, and the daemon that starts
/// anew gives the address up. Twice, so that each node has been both.
#[test]
fn a_master_whose_daemon_is_killed_is_replaced_while_its_kernel_still_holds_the_address() {
    if !root() {
        return;
    }
    let _alone = alone();
    let report = report(&["--cause", "daemon-kill", "--failovers", "2", "--connections", "200", "--stop-for", "1s"]);
    assert_eq!(events(&report, 200), ["daemon-kill", "restart", "daemon-kill", "restart"]);
    assert!(report["failovers"][1]["duplicate_address_ms"].as_f64().unwrap() < 10_000.0, "{report}");
}

/// [5.6.1] The one that was stopped says nothing as master any more. Twice: who was master before and comes back without a
/// reboot has entries with sequence windows of the past.
#[test]
fn a_master_that_is_stopped_and_goes_on_never_speaks_as_master_again() {
    if !root() {
        return;
    }
    let _alone = alone();
    let report = report(&["--cause", "stop", "--failovers", "2", "--connections", "200"]);
    assert_eq!(events(&report, 200), ["stop", "continue", "stop", "continue"]);
    assert_eq!((&report["late_adverts"], &report["two_masters_ms"]), (&0.into(), &json!(0.0)), "{report}");
}

#[test]
fn a_graceful_end_costs_no_connection() {
    if !root() {
        return;
    }
    let _alone = alone();
    let report = report(&["--cause", "graceful", "--failovers", "2", "--connections", "200"]);
    assert_eq!(events(&report, 200), ["graceful", "graceful"]);
}

/// [5.4.1] Both are master while the link is down, and every connection lives on through the newer one; when it is back there is
/// one master.
#[test]
fn a_cut_sync_link_makes_two_masters_and_costs_no_connection() {
    if !root() {
        return;
    }
    let _alone = alone();
    let report = report(&["--cause", "sync-link", "--connections", "200", "--stop-for", "1s"]);
    assert_eq!(events(&report, 200), ["sync-down", "sync-up"]);
}

#[test]
fn a_master_that_is_not_heard_but_hears_gives_way() {
    if !root() {
        return;
    }
    let _alone = alone();
    // Packet sockets hear what a firewall drops.
    for transport in ["raw", "packet"] {
        let usual = ["--cause", "one-way", "--connections", "200", "--stop-for", "1s", "--transport", transport];
        assert_eq!(events(&report(&usual), 200), ["one-way", "both-ways"]);
    }
}

/// [5.3.1] Three times the node of higher priority dies and comes back, its sync link cut at random points on the way: it never
/// takes the role while its kernel differs from the master's.
#[test]
fn who_returns_through_cuts_takes_the_role_only_when_the_kernels_are_equal() {
    if !root() {
        return;
    }
    let _alone = alone();
    let report = report(&["--cause", "reboot-loop", "--failovers", "3", "--connections", "200", "--seed", "1"]);
    assert_eq!(events(&report, 200), ["node-death", "return", "node-death", "return", "node-death", "return"]);
    assert_eq!(report["taken_differing"], 0, "{report}");
    let died = report["failovers"].as_array().unwrap().iter().map(|failover| failover["died"].as_str().unwrap());
    assert!(died.clone().all(|name| name == "lb-a"), "{report}");
}

/// The master dies, then its successor, and the third carries on with every connection.
#[test]
fn of_three_nodes_two_die_under_load_and_no_connection_is_lost() {
    if !root() {
        return;
    }
    let _alone = alone();
    let report = report(&["--nodes", "3", "--failovers", "2", "--connections", "200"]);
    assert_eq!(events(&report, 200), ["node-death", "node-death"]);
    assert_ne!(report["failovers"][0]["died"], report["failovers"][1]["died"]);
}

/// With the usual second between two ADVERTs a takeover takes some three of them, and connections of both families wait for
/// it.
#[test]
fn adverts_of_a_second_and_connections_of_both_families() {
    if !root() {
        return;
    }
    let _alone = alone();
    let report = report(&["--advert-interval", "1s", "--ipv6", "--connections", "100"]);
    assert_eq!(events(&report, 100), ["node-death"]);
    let takeover = report["takeover_ms"].as_f64().unwrap();
    assert!(takeover > 2000.0, "three adverts of a second, less what had passed since the last: {takeover}");
}
