//! The daemons' logs: kept, and looked through for what no fault explains.

use super::chaos::node::Node;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

/// Errors that a cut of the link must cause.
const EXPECTED: [&str; 2] = ["all sync links are down", "to fault"];
/// Most lines that are told.
const LINES_MAX: usize = 20;

/// Copies configuration and log of a machine into the folder, and adds to what was told: warnings and errors by
/// the names of their events, and the lines that say ERROR, or tell of a panic, and that no fault explains.
///
/// # Errors
/// The operating system's error.
pub fn keep(node: &Node, folder: &Path, told: &mut BTreeMap<String, u64>) -> io::Result<Vec<String>> {
    for extension in ["toml", "log"] {
        fs::copy(node.file(extension), folder.join(format!("{}.{extension}", node.letter)))?;
    }
    let log = fs::read(node.file("log"))?;
    let log = String::from_utf8_lossy(&log);
    warnings(&log).for_each(|event| *told.entry(event.to_owned()).or_default() += 1);
    Ok(errors(&log).map(|line| format!("{}: {line}", node.letter)).take(LINES_MAX).collect())
}

fn errors(log: &str) -> impl Iterator<Item = &str> {
    let is_error = |line: &&str| line.contains(" ERROR ") || line.contains("panicked at");
    log.lines().filter(is_error).filter(|line| !EXPECTED.iter().any(|expected| line.contains(expected)))
}

/// Names of the events that are warnings or errors, one after the other.
fn warnings(log: &str) -> impl Iterator<Item = &str> {
    let loud = log.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR "));
    loud.filter_map(|line| line.split_once("event=\"")?.1.split('"').next())
}

#[cfg(test)]
mod tests {
    use super::{errors, warnings};

    #[test]
    fn a_cut_explains_its_errors_and_no_others() {
        let log = "2026-01-01T00:00:00Z  INFO a sync link is up group=51 event=\"LinkUp\"\n\
                   2026-01-01T00:00:01Z ERROR all sync links are down group=51 event=\"LinkDown\"\n\
                   2026-01-01T00:00:02Z ERROR waiting failed group=51\n\
                   thread 'group-51' panicked at src/x.rs:1:1:\n";
        let errors: Vec<&str> = errors(log).collect();
        let expected =
            ["2026-01-01T00:00:02Z ERROR waiting failed group=51", "thread 'group-51' panicked at src/x.rs:1:1:"];
        assert_eq!(errors, expected);
    }

    #[test]
    fn warnings_are_known_by_their_events() {
        let log = "2026-01-01T00:00:00Z  INFO a sync link is up group=51 event=\"LinkUp\"\n\
                   2026-01-01T00:00:01Z  WARN peer 2 is silent group=51 event=\"PeerDown\"\n\
                   2026-01-01T00:00:01Z  WARN no event\n\
                   2026-01-01T00:00:02Z ERROR all sync links are down group=51 event=\"LinkDown\"\n";
        assert_eq!(warnings(log).collect::<Vec<_>>(), ["PeerDown", "LinkDown"]);
    }
}
