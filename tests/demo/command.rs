//! `ssyncp demo` from outside: its verdicts, its refusals, and what is left behind. The runs with namespaces need a kernel
//! that lets this user make them; those as another user need root.

use crate::machine::{eventually, program, root};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{PoisonError, RwLock};

/// Demos share the machine's time, except with one in which nodes must keep their roles: that one has it alone.
static TIME: RwLock<()> = RwLock::new(());
/// The user and group that have nothing.
const NOBODY: u32 = 65534;

/// `ssyncp demo` with its temporary files below `directory`.
fn demo(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ssyncp"));
    command.arg("demo").args(arguments).env("TMPDIR", directory);
    command
}

/// Runs it, and returns its exit status and the one object that it prints.
fn verdict(mut command: Command) -> (Option<i32>, Value) {
    let output = command.output().unwrap();
    let (words, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(words.lines().count(), 1, "not one line: {words}{errors}");
    (output.status.code(), serde_json::from_str(&words).unwrap())
}

/// Numbers of the processes that `parent` has started.
fn children(parent: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    list.split_ascii_whitespace().map(|child| child.parse().unwrap()).collect()
}

/// Whether a process still runs (one that is dead and not yet waited for does not).
fn runs(process: u32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{process}/stat")) else { return false };
    !status.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']))
}

/// A demo without SSYNCP whose four parts (server, ear of the probe, probe, clients) have been started; and their numbers.
fn in_full_swing(directory: &Path) -> (Child, Vec<u32>) {
    let mut child = demo(directory, &["--no-sync", "--connections", "20"]).stdout(Stdio::null()).spawn().unwrap();
    eventually("all four parts run", || {
        assert!(child.try_wait().unwrap().is_none(), "the demo has ended by itself");
        children(child.id()).len() == 4
    });
    let parts = children(child.id());
    (child, parts)
}

#[test]
fn every_connection_survives_two_deaths() {
    if !root() {
        return;
    }
    let _alone = TIME.write().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["--connections", "200", "--failovers", "2", "--json"];
    let (status, report) = verdict(demo(directory.path(), &arguments));
    assert_eq!(report["mode"], "root", "{report}");
    assert_eq!(report["transport"], "raw");
    assert_eq!((&report["connections"], &report["survived"]), (&200.into(), &200.into()), "{report}");
    assert_eq!((&report["missing"], &report["extra"], &report["stale"]), (&0.into(), &0.into(), &0.into()), "{report}");
    // Who died is whoever was master; on a machine that is short of time the role may have moved before.
    assert_eq!(report["failovers"].as_array().unwrap().len(), 2);
    assert!(report["takeover_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(status, Some(0));
}

/// The same zeros past the kernel's IP. The demo itself asks the nodes whether they run on it.
#[test]
fn every_connection_survives_a_death_over_packet_sockets() {
    if !root() {
        return;
    }
    let _alone = TIME.write().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    let (status, report) =
        verdict(demo(directory.path(), &["--connections", "100", "--transport", "packet", "--json"]));
    assert_eq!((&report["transport"], &report["survived"]), (&"packet".into(), &100.into()), "{report}");
    assert_eq!((&report["missing"], &report["extra"], &report["stale"]), (&0.into(), &0.into(), &0.into()), "{report}");
    assert_eq!(status, Some(0));
}

/// IPv6, UDP and SCTP live on as well, and a recording of two lives of the pair rebuilds the table that the backup had.
#[test]
fn a_mix_survives_two_deaths_and_its_recording_gives_the_backups_table() {
    if !root() {
        return;
    }
    let _alone = TIME.write().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).into_os_string().into_string().unwrap();
    let (recording, table) = (file("sync.pcapng"), file("b.json"));
    let mut command = demo(directory.path(), &["--mix", "--connections", "60", "--failovers", "2", "--json"]);
    command.args(["--record", &recording, "--table", &table]);
    let (status, report) = verdict(command);
    assert_eq!((&report["connections"], &report["survived"]), (&60.into(), &60.into()), "{report}");
    for failover in report["failovers"].as_array().unwrap() {
        let wanted = serde_json::json!({
            "ipv6_connections": 28, "ipv6_survived": 28, "udp_flows": 100, "udp_survived": 100,
            "sctp_associations": 50, "sctp_survived": 50,
        });
        assert_eq!(failover["mix"], wanted, "{report}");
        // TCP, UDP, SCTP, and the five flows of the probe.
        assert_eq!((&failover["flows_master"], &failover["flows_backup"]), (&215.into(), &215.into()), "{report}");
        assert_eq!((&failover["missing"], &failover["extra"], &failover["stale"]), (&0.into(), &0.into(), &0.into()));
    }
    assert_eq!(status, Some(0));

    let replay = |table: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ssyncp"));
        let output = command
            .args(["replay", &recording, "--secret-file", &format!("{recording}.secret"), "--verify", table])
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(replay(&table), (Some(0), "equal: 215 flows\n".to_owned()));
    let other = fs::read_to_string(&table).unwrap().replacen("2001:db8:f::100", "2001:db8:f::101", 1);
    fs::write(&table, other).unwrap();
    assert_eq!(replay(&table).0, Some(1));
}

#[test]
fn a_recording_is_never_written_over() {
    if !root() {
        return;
    }
    let _shared = TIME.read().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    let recording = directory.path().join("sync.pcap");
    fs::write(&recording, "mine").unwrap();
    let mut command = demo(directory.path(), &["--connections", "1", "--json"]);
    let output = command.arg("--record").arg(&recording).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(words.contains("is there already; remove it, or name another file"), "{words}");
    assert_eq!(fs::read_to_string(&recording).unwrap(), "mine");
}

#[test]
fn without_ssyncp_a_mix_loses_tcp_and_sctp() {
    if !root() {
        return;
    }
    let _shared = TIME.read().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    let (status, report) = verdict(demo(directory.path(), &["--mix", "--no-sync", "--connections", "20", "--json"]));
    assert_eq!((&report["connections"], &report["survived"]), (&20.into(), &0.into()), "{report}");
    // Any packet of UDP makes a new entry, of either family: the way itself is there.
    let wanted = serde_json::json!({
        "ipv6_connections": 8, "ipv6_survived": 0, "udp_flows": 100, "udp_survived": 100,
        "sctp_associations": 50, "sctp_survived": 0,
    });
    assert_eq!(report["mix"], wanted, "{report}");
    assert_eq!(status, Some(0));
}

#[test]
fn without_ssyncp_every_connection_is_lost() {
    if !root() {
        return;
    }
    let _shared = TIME.read().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    let (status, report) = verdict(demo(directory.path(), &["--no-sync", "--connections", "50", "--json"]));
    assert_eq!(report["mode"], "root", "{report}");
    assert_eq!(report["transport"], Value::Null);
    assert_eq!((&report["connections"], &report["survived"]), (&50.into(), &0.into()), "{report}");
    assert_eq!(report["reset"].as_u64().unwrap() + report["stalled"].as_u64().unwrap(), 50);
    assert_eq!(report["flows_backup"], 0);
    assert_eq!(report["missing"], report["flows_master"]);
    assert_eq!(status, Some(0));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "something is left in the temporary directory");
}

#[test]
fn an_ordinary_user_gets_a_user_namespace() {
    if !root() {
        return;
    }
    let _shared = TIME.read().unwrap_or_else(PoisonError::into_inner);
    // The build's own directory may be closed to others.
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let executable = directory.path().join("ssyncp");
    // Not copied here: a program that another test starts meanwhile would have it open for writing, and it would not start.
    assert!(Command::new("cp").arg(env!("CARGO_BIN_EXE_ssyncp")).arg(&executable).status().unwrap().success());
    let mut command = Command::new(&executable);
    command.args(["demo", "--no-sync", "--connections", "20", "--json"]).env("TMPDIR", directory.path());
    command.current_dir("/").uid(NOBODY).gid(NOBODY);
    let (status, report) = verdict(command);
    if report["mode"] == "memory" {
        println!("skipped: needs a kernel that lets an ordinary user make namespaces");
        return;
    }
    assert_eq!(report["mode"], "userns", "{report}");
    assert_eq!((&report["connections"], &report["survived"]), (&20.into(), &0.into()), "{report}");
    assert_eq!(status, Some(0));
}

#[test]
fn a_user_who_may_make_no_namespaces_sees_the_memory_mode() {
    if !root() {
        return;
    }
    let _shared = TIME.read().unwrap_or_else(PoisonError::into_inner);
    if !program("unshare") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    // In a user namespace that allows no further ones of either kind.
    let script = "echo 0 > /proc/sys/user/max_user_namespaces; echo 0 > /proc/sys/user/max_net_namespaces; exec \"$@\"";
    let without_namespaces = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_ssyncp"), "demo"]);
        command.args(["--connections", "500", "--json"]).args(arguments).env("TMPDIR", directory.path());
        command
    };
    let (status, report) = verdict(without_namespaces(&[]));
    assert_eq!((&report["mode"], &report["transport"]), (&"memory".into(), &"memory".into()), "{report}");
    assert_eq!((&report["connections"], &report["survived"]), (&500.into(), &500.into()), "{report}");
    assert_eq!(report["blackout_ms_max"], Value::Null);
    assert_eq!(report["mix"], Value::Null);
    assert_eq!(status, Some(0));

    let (status, report) = verdict(without_namespaces(&["--mix"]));
    assert_eq!((&report["mode"], &report["survived"]), (&"memory".into(), &500.into()), "{report}");
    let wanted = serde_json::json!({
        "ipv6_connections": 250, "ipv6_survived": 250, "udp_flows": 100, "udp_survived": 100,
        "sctp_associations": 50, "sctp_survived": 50,
    });
    assert_eq!((&report["mix"], &report["flows_backup"]), (&wanted, &650.into()), "{report}");
    assert_eq!(status, Some(0));

    // There is no link to record, and it says so.
    let recording = directory.path().join("sync.pcap");
    let output = without_namespaces(&["--record", recording.to_str().unwrap()]).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len(), recording.exists()), (Some(1), 0, false));
    assert!(
        String::from_utf8_lossy(&output.stderr)
            .contains("--record, --table, --cause and --nodes need network namespaces")
    );
}

#[test]
fn an_interrupt_ends_it_with_130_and_nothing_is_left() {
    if !root() {
        return;
    }
    let _shared = TIME.read().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    let (mut child, parts) = in_full_swing(directory.path());
    let process = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(parts.into_iter().filter(|part| runs(*part)).count(), 0);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn its_parts_die_with_it_however_it_dies() {
    if !root() {
        return;
    }
    let _shared = TIME.read().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    let (mut child, parts) = in_full_swing(directory.path());
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("no part runs", || parts.iter().all(|part| !runs(*part)));
    // The directory stays behind, and the next run takes it away.
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    let (mut next, _) = in_full_swing(directory.path());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    assert!(directory.path().join(format!("ssyncp-demo-{}", next.id())).exists());
    next.kill().unwrap();
    next.wait().unwrap();
}

#[test]
fn an_impossible_number_of_connections_is_refused_in_one_line() {
    let directory = tempfile::tempdir().unwrap();
    for number in ["0", "4000000000"] {
        let output = demo(directory.path(), &["--connections", number, "--json"]).output().unwrap();
        let words = String::from_utf8(output.stderr).unwrap();
        assert_eq!(words.lines().count(), 1, "{words}");
        assert!(words.starts_with(&format!("ssyncp demo: --connections {number}: at ")), "{words}");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    }
}
