//! The daemons' logs: kept, and looked through for what no fault explains.

use super::chaos::node::Node;
use std::fs;
use std::io;
use std::path::Path;

/// Errors that a cut of the link must cause.
const EXPECTED: [&str; 2] = ["all sync links are down", "to fault"];
/// Most lines that are told.
const LINES_MAX: usize = 20;

/// Copies configuration and log of a machine into the folder, and returns the lines that say ERROR or tell of a panic.
///
/// # Errors
/// The operating system's error.
pub fn unexpected(node: &Node, folder: &Path) -> io::Result<Vec<String>> {
    for extension in ["toml", "log"] {
        fs::copy(node.file(extension), folder.join(format!("{}.{extension}", node.letter)))?;
    }
    let log = fs::read(node.file("log"))?;
    Ok(errors(&String::from_utf8_lossy(&log)).map(|line| format!("{}: {line}", node.letter)).take(LINES_MAX).collect())
}

fn errors(log: &str) -> impl Iterator<Item = &str> {
    let is_error = |line: &&str| line.contains(" ERROR ") || line.contains("panicked at");
    log.lines().filter(is_error).filter(|line| !EXPECTED.iter().any(|expected| line.contains(expected)))
}

#[cfg(test)]
mod tests {
    use super::errors;

    #[test]
    fn a_cut_explains_its_errors_and_no_others() {
        let log = "2026-01-01T00:00:00Z  INFO group=51 event=\"LinkUp\": a sync link is up\n\
                   2026-01-01T00:00:01Z ERROR group=51 event=\"LinkDown\": all sync links are down\n\
                   2026-01-01T00:00:02Z ERROR group=51: waiting failed\n\
                   thread 'group-51' panicked at src/x.rs:1:1:\n";
        let errors: Vec<&str> = errors(log).collect();
        let expected =
            ["2026-01-01T00:00:02Z ERROR group=51: waiting failed", "thread 'group-51' panicked at src/x.rs:1:1:"];
        assert_eq!(errors, expected);
    }
}
