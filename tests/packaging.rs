//! What is packaged says what the program does.

use ssyncp::daemon::settings::Settings;
use std::path::Path;

const UNIT: &str = include_str!("../packaging/ssyncp.service");

/// The value of a key that stands once in the unit.
fn value(key: &str) -> &'static str {
    let mut found = UNIT.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let value = found.next().unwrap_or_else(|| panic!("no {key}"));
    assert_eq!(found.next(), None, "{key} stands twice");
    value
}

#[test]
fn the_example_configuration_has_no_mistake() {
    let settings = Settings::parse(include_str!("../packaging/ssyncp.toml"), Path::new("ssyncp.toml")).unwrap();
    assert_eq!(settings.groups.len(), 1);
    assert!(settings.node.sandbox);
}

#[test]
fn every_commented_line_of_the_example_is_one_that_could_be_there() {
    let text = include_str!("../packaging/ssyncp.toml");
    let keys = |line: &str| line.strip_prefix('#').is_some_and(|line| !line.starts_with(' '));
    let all: String = text.lines().map(|line| format!("{}\n", if keys(line) { &line[1..] } else { line })).collect();
    let settings = Settings::parse(&all, Path::new("ssyncp.toml")).unwrap();
    assert_eq!(settings.node.name, "lb-a");
    assert_eq!(settings.groups[0].addresses.len(), 1);
}

#[test]
fn the_unit_gives_the_capabilities_that_the_daemon_can_keep_and_its_own_user() {
    assert_eq!(value("AmbientCapabilities"), "CAP_NET_ADMIN CAP_NET_RAW CAP_SYS_NICE");
    assert_eq!(value("CapabilityBoundingSet"), "CAP_NET_ADMIN CAP_NET_RAW CAP_SYS_NICE");
    assert_eq!((value("User"), value("Group")), ("ssyncp", "ssyncp"));
    assert!(include_str!("../packaging/ssyncp.sysusers").contains("\nu ssyncp - "));
    assert!(include_str!("../packaging/ssyncp.tmpfile").contains("\nd /run/ssyncp 0755 ssyncp ssyncp "));
    assert_eq!((value("Type"), value("NoNewPrivileges"), value("RestartPreventExitStatus")), ("notify", "yes", "2"));
}

#[test]
fn the_watchdog_waits_longer_than_a_loop_may_stand_still_and_a_reload_may_take() {
    let seconds: u64 = value("WatchdogSec").parse().unwrap();
    // A reload keeps the main thread for one START_DEADLINE for each group that it adds, and does not start well.
    assert_eq!(ssyncp::daemon::http::HEALTH_DEADLINE.as_secs(), 5);
    assert_eq!(ssyncp::daemon::run::START_DEADLINE.as_secs(), 10);
    assert!(seconds >= 60, "{seconds}");
}
