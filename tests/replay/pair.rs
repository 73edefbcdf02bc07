//! A recording of a real pair, replayed, is the table that the backup has.

use crate::support::{Node, Pair, eventually, root};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

const SSYNCP: &str = env!("CARGO_BIN_EXE_ssyncp");

/// Begins to record the switch's side of everything, before anybody has said a word.
fn record(pair: &Pair, file: &Path) -> Child {
    let mut command = pair.stranger.command(SSYNCP).unwrap();
    command.arg("record").arg(file).args(["-i", "si"]).stderr(Stdio::null());
    let child = command.spawn().unwrap();
    eventually("the recording has begun", || file.exists());
    child
}

fn interrupt(mut child: Child) {
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert!(child.wait().unwrap().success(), "nothing was lost");
}

/// What `ssyncp table --json` says of a node.
fn table(node: &Node, directory: &Path) -> PathBuf {
    let output = Command::new(SSYNCP).args(["table", "--json", "--socket"]).arg(node.socket()).output().unwrap();
    assert!(output.status.success());
    let file = directory.join("table.json");
    std::fs::write(&file, output.stdout).unwrap();
    file
}

fn replay(recording: &Path, more: &[&str]) -> Output {
    let output = Command::new(SSYNCP).arg("replay").arg(recording).args(more).output().unwrap();
    println!("replay {more:?}: {}{}", words(&output.stdout), words(&output.stderr));
    output
}

fn words(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Everything that happens to a table: entries before the join, new ones, other values, deaths.
fn live(pair: &mut Pair) {
    pair.a.connect(0..2000);
    pair.a.start();
    eventually("a is master with its table", || pair.a.is("master", "source") && pair.a.group()["entries"] == 2000);
    pair.b.start();
    eventually("b is in sync", || pair.b.is("backup", "in_sync"));
    pair.a.connect(2000..2300);
    pair.a.disconnect(0..100);
    eventually("b has all that happened", || pair.b.group()["entries"] == 2200 && pair.b.is("backup", "in_sync"));
}

#[test]
fn a_recording_from_the_beginning_gives_the_backups_table() {
    if !root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut pair = Pair::new("");
    let recording = directory.path().join("link.pcapng");
    let recorder = record(&pair, &recording);
    live(&mut pair);
    interrupt(recorder);
    let table = table(&pair.b, directory.path());
    let table_name = table.to_str().unwrap();

    let verified = replay(&recording, &["--verify", table_name, "--group", "51"]);
    assert!(verified.status.success());
    assert_eq!(words(&verified.stdout), "equal: 2200 flows\n");

    // One value changed in the other table: named, and no longer equal.
    let text = std::fs::read_to_string(&table).unwrap();
    let mut changed: Value = serde_json::from_str(&text).unwrap();
    let first = &mut changed["flows"][0];
    first["mark"] = (first["mark"].as_u64().unwrap() + 1).into();
    std::fs::write(&table, changed.to_string()).unwrap();
    let differs = replay(&recording, &["--verify", table_name]);
    assert_eq!(differs.status.code(), Some(1));
    assert!(words(&differs.stdout).starts_with("differs: group 51 protocol "), "{}", words(&differs.stdout));
    assert!(words(&differs.stdout).ends_with("not equal: 1 differences, 2199 flows are equal\n"));

    // Nobody says that a part of the way is the end of it.
    let early = replay(&recording, &["--verify", table_name, "--until", "5"]);
    assert_eq!(early.status.code(), Some(1));
}

#[test]
fn a_tap_on_the_backup_records_enough_to_rebuild_its_table() {
    if !root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut pair = Pair::new("");
    let recording = directory.path().join("tap.pcap");
    let configuration = std::fs::read_to_string(pair.b.configuration()).unwrap();
    pair.b.configure(&format!("{configuration}\ntap = \"{}\"\n", recording.display()));
    live(&mut pair);
    let table = table(&pair.b, directory.path());
    assert_eq!(pair.b.counter("tap_dropped"), 0);
    pair.b.end(nix::sys::signal::Signal::SIGTERM);
    let verified = replay(&recording, &["--verify", table.to_str().unwrap()]);
    assert!(verified.status.success());
    assert_eq!(words(&verified.stdout), "equal: 2200 flows\n");
}

#[test]
fn a_recording_that_begins_after_the_join_says_that_it_cannot_verify() {
    if !root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut pair = Pair::new("");
    live(&mut pair);
    let recording = directory.path().join("late.pcap");
    let recorder = record(&pair, &recording);
    pair.a.connect(3000..3010);
    eventually("b has the new ones", || pair.b.group()["entries"] == 2210);
    let said = pair.a.counter("engine_adverts_sent");
    eventually("a has said who it is often enough", || pair.a.counter("engine_adverts_sent") > said + 5);
    interrupt(recorder);
    let table = table(&pair.b, directory.path());
    let verified = replay(&recording, &["--verify", table.to_str().unwrap()]);
    assert_eq!(verified.status.code(), Some(1));
    assert!(words(&verified.stderr).contains("cannot verify: group 51: the recording starts after the first join"));
}

#[test]
fn a_change_of_master_is_followed() {
    if !root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut pair = Pair::new("");
    let recording = directory.path().join("link.pcap");
    let recorder = record(&pair, &recording);
    live(&mut pair);
    pair.a.end(nix::sys::signal::Signal::SIGKILL);
    eventually("b is master", || pair.b.is("master", "source"));
    pair.b.connect(4000..4050);
    eventually("b has the new ones", || pair.b.group()["entries"] == 2250);
    pair.a.start();
    eventually("one is proven equal to the other", || {
        pair.a.group()["entries"] == 2250 && (pair.a.is("backup", "in_sync") || pair.b.is("backup", "in_sync"))
    });
    interrupt(recorder);
    let table = table(&pair.b, directory.path());
    let verified = replay(&recording, &["--verify", table.to_str().unwrap()]);
    assert!(verified.status.success());
    assert_eq!(words(&verified.stdout), "equal: 2250 flows\n");
}
