//! The README's `curl` lines, pasted against a running pair: each of them does what stands beside it.

use crate::support::{Node, Pair, eventually, root};
use ssyncp::daemon::reload::{GROUP_KEYS_LIVE, NODE_KEYS_LIVE};
use std::process::{Command, Output};

/// The block of the README that begins with the definition of `ctl`: that definition, and every line that uses it.
fn examples() -> (String, Vec<String>) {
    let readme = include_str!("../../README.md");
    let block = readme.split("```").find(|block| block.contains("ctl() {")).expect("the README defines ctl");
    let lines = block.lines().filter(|line| line.starts_with("ctl"));
    let (definition, uses): (Vec<&str>, Vec<&str>) = lines.partition(|line| line.starts_with("ctl()"));
    (definition.concat(), uses.into_iter().map(str::to_owned).collect())
}

/// What a reload changes without a restart stands in one sentence.
#[test]
fn the_readme_names_every_setting_that_changes_without_a_restart_and_no_other() {
    let readme = include_str!("../../README.md");
    let sentence =
        readme.split_once("Without a restart change:").unwrap().1.split_once(", and whole groups").unwrap().0;
    let mut named: Vec<&str> = sentence.split('`').skip(1).step_by(2).collect();
    // What stands in the file of the secrets is meant with it.
    let mut live: Vec<&str> = [GROUP_KEYS_LIVE, NODE_KEYS_LIVE].concat();
    named.sort_unstable();
    live.sort_unstable();
    assert_eq!(named, live);
}

fn paste(definition: &str, line: &str, node: &Node) -> Output {
    let socket = node.socket().display().to_string();
    // A refusal shall show in the exit status; and who follows the events would follow them for ever.
    let definition = definition.replace("/run/ssyncp/control.sock", &socket).replace("-sS", "-sS --fail --max-time 5");
    Command::new("sh").args(["-c", &format!("{definition}\n{line}")]).output().unwrap()
}

#[test]
fn every_line_of_the_readme_works_on_a_running_pair() {
    if !root() {
        return;
    }
    if Command::new("curl").arg("--version").output().is_err() {
        return println!("skipped: needs the program curl");
    }
    let mut pair = Pair::new("");
    pair.start();
    let (definition, lines) = examples();
    assert_eq!(lines.len(), 20, "one for each call");
    for line in &lines {
        let node = if line.contains("on a backup") { &pair.b } else { &pair.a };
        if line.contains("/v1/switchover") {
            eventually("whoever is to inherit is in sync", || pair.b.is("backup", "in_sync"));
        }
        let output = paste(&definition, line, node);
        let (said, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if line.contains("/v1/events") {
            assert!(
                said.starts_with("event: State\ndata: {\"schema\":\"ssyncp.event/1\""),
                "{line}: {said}{complaint}"
            );
            continue;
        }
        assert!(output.status.success() && !said.is_empty(), "{line}: {said}{complaint}");
        if line.contains("what was put") {
            assert_eq!(said, std::fs::read_to_string("/etc/os-release").unwrap());
            continue;
        }
        let known =
            said.contains("\"schema\":\"ssyncp.") || said.contains("\"openapi\"") || said.contains("# TYPE ssyncp_");
        assert!(known, "{line}: {said}");
    }
}
