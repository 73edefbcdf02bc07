//! The README's `curl` lines, pasted against a running pair: each of them does what stands beside it.

mod support;

use std::process::{Command, Output};
use support::{Node, Pair, eventually, root};

/// The block of the README that begins with the definition of `ctl`: that definition, and every line that uses it.
fn examples() -> (String, Vec<String>) {
    let readme = include_str!("../README.md");
    let block = readme.split("```").find(|block| block.contains("ctl() {")).expect("the README defines ctl");
    let lines = block.lines().filter(|line| line.starts_with("ctl"));
    let (definition, uses): (Vec<&str>, Vec<&str>) = lines.partition(|line| line.starts_with("ctl()"));
    (definition.concat(), uses.into_iter().map(str::to_owned).collect())
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
    assert_eq!(lines.len(), 16, "one for each call");
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
        let known =
            said.contains("\"schema\":\"ssyncp.") || said.contains("\"openapi\"") || said.contains("# TYPE ssyncp_");
        assert!(known, "{line}: {said}");
    }
}
