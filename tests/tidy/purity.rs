//! The thinking wing has no clock, no entropy, no sockets, no files, no threads: everything comes in as an argument,
//! so that a test can replay a whole cluster from one number.

use super::source::Source;
use super::tree::Finding;

/// Paths whose beginning gives the wing away.
const FORBIDDEN_ROOTS: [&[&str]; 18] = [
    &["std", "thread"],
    &["std", "fs"],
    &["std", "process"],
    &["std", "env"],
    &["std", "os"],
    &["std", "time", "Instant"],
    &["std", "time", "SystemTime"],
    &["getrandom"],
    &["rand"],
    &["fastrand"],
    &["libc"],
    &["nix"],
    &["socket2"],
    &["pnet"],
    &["rtnetlink"],
    &["tokio"],
    &["axum"],
    &["hyper"],
];

/// Names that give it away wherever they stand.
const FORBIDDEN_NAMES: [&str; 9] = [
    "SystemTime",
    "RandomState",
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "UnixStream",
    "UnixListener",
    "UnixDatagram",
    "thread_rng",
];

/// What a file of the thinking wing must not reach for. Tests may.
pub(crate) fn impurities(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for path in source.paths().iter().filter(|path| !source.is_test(path.line)) {
        let root = FORBIDDEN_ROOTS.iter().any(|root| path.names.starts_with(root));
        let reads_clock = path.names.windows(2).any(|pair| pair == ["Instant", "now"]);
        if root || reads_clock {
            let written = path.names.join("::");
            findings.push(Finding::new(&source.path, path.line, format!("`{written}` in the thinking wing")));
        }
    }
    for token in source.tokens().iter().filter(|token| !source.is_test(token.line)) {
        if FORBIDDEN_NAMES.contains(&token.text) {
            findings.push(Finding::new(&source.path, token.line, format!("`{}` in the thinking wing", token.text)));
        }
    }
    findings
}

mod tests {
    use super::*;

    fn findings(text: &str) -> Vec<String> {
        impurities(&Source::new("src/engine/a.rs", text)).iter().map(Finding::to_string).collect()
    }

    #[test]
    fn clocks_entropy_sockets_files_and_threads_are_found() {
        assert_eq!(findings("let a = Instant::now();"), ["src/engine/a.rs:1: `Instant::now` in the thinking wing"]);
        assert_eq!(findings("\nuse std::{fs, fmt};"), ["src/engine/a.rs:2: `std::fs` in the thinking wing"]);
        assert_eq!(
            findings("std::thread::spawn(a);"),
            ["src/engine/a.rs:1: `std::thread::spawn` in the thinking wing"]
        );
        assert_eq!(findings("let a = getrandom::u64();"), ["src/engine/a.rs:1: `getrandom::u64` in the thinking wing"]);
        assert_eq!(findings("use std::net::UdpSocket;"), ["src/engine/a.rs:1: `UdpSocket` in the thinking wing"]);
        assert_eq!(findings("let a = rand::rng();"), ["src/engine/a.rs:1: `rand::rng` in the thinking wing"]);
    }

    #[test]
    fn addresses_durations_and_tests_are_free() {
        assert!(findings("use core::net::IpAddr; use std::time::Duration; let rand = 1;").is_empty());
        assert!(findings("#[cfg(test)]\nmod tests { fn a() { std::fs::read(\"a\"); } }").is_empty());
    }
}
