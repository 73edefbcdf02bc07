//! What somebody without rights is told.

use ssyncp::bridge::conntrack::{ConntrackSink, ConntrackSource, OpenError, SinkOptions, SourceOptions};
use std::os::unix::process::CommandExt;
use std::process::Command;

const TEST: &str = "permission::without_the_capability_it_is_named_with_its_cure";
const INSIDE: &str = "SSYNCP_TEST_WITHOUT_RIGHTS";

/// The user "nobody".
const NOBODY: u32 = 65534;

#[test]
fn without_the_capability_it_is_named_with_its_cure() {
    if std::env::var_os(INSIDE).is_some() {
        return check();
    }
    if !nix::unistd::geteuid().is_root() {
        return check();
    }
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program).args(["--exact", TEST]).env(INSIDE, "1").uid(NOBODY).gid(NOBODY).output();
    let Ok(output) = output else {
        println!("skipped: the user nobody may not run this test's program");
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

fn check() {
    let sink = ConntrackSink::open(&SinkOptions::default()).unwrap_err();
    assert!(matches!(sink, OpenError::MissingCapability), "{sink}");
    let source = ConntrackSource::open(&SourceOptions::default()).unwrap_err();
    assert!(source.to_string().contains("CAP_NET_ADMIN"), "{source}");
}
