//! The short form of tools/chaos: a few real faults, small, on the machine that runs the tests. Its judge reads the kernels and
//! shares nothing with what it judges.

#[path = "../examples/chaos/main.rs"]
#[allow(dead_code)]
mod chaos;
#[path = "support/machine.rs"]
mod machine;

use chaos::Context;
use chaos::report::{Outcome, Report, SCHEMA};
use std::path::{Path, PathBuf};

/// What one scenario of the short form says; `None` where it cannot run.
fn outcome(name: &str) -> Option<Outcome> {
    if !machine::root() || !machine::program("nft") {
        return None;
    }
    let context = Context { program: PathBuf::from(env!("CARGO_BIN_EXE_ssyncp")), quick: true, keep: false };
    let scenario = chaos::scenarios::SCENARIOS.iter().find(|scenario| scenario.name == name).unwrap();
    let outcome = chaos::run(scenario, &context);
    println!("{}\n{}", chaos::report::head(), outcome.line());
    Some(outcome)
}

/// Whether everything became equal, however long a busy machine took: missing, extra and stale are 0 at the end.
fn becomes_equal(name: &str) {
    let Some(outcome) = outcome(name) else { return };
    assert_eq!(outcome.problem, None);
    assert!(outcome.equal_s.is_some() && outcome.in_sync_s.is_some(), "{}", outcome.line());
    assert!(outcome.entries > 0, "{}", outcome.line());
}

/// [1.1.1]
#[test]
fn after_loss_in_both_directions_the_kernels_become_equal() {
    becomes_equal("loss-20-both");
}

/// [1.1.1]
#[test]
fn a_backup_that_was_killed_becomes_equal() {
    becomes_equal("receiver-kill");
}

/// [1.1.1]
#[test]
fn what_ended_while_the_masters_daemon_was_dead_ends_on_the_backup() {
    becomes_equal("ended-while-dead");
}

/// [1.1.1]
#[test]
fn what_the_kernel_did_not_tell_is_found_by_itself() {
    becomes_equal("overrun");
}

/// [5.5.1] Two masters hear each other again: what either has learned lives on.
#[test]
fn nothing_that_two_masters_have_learned_is_lost() {
    let Some(outcome) = outcome("silent-split") else { return };
    assert_eq!((&outcome.problem, outcome.lost), (&None, 0), "{}", outcome.line());
    assert!(outcome.equal_s.is_some() && outcome.in_sync_s.is_some(), "{}", outcome.line());
    assert!(outcome.entries > 0, "{}", outcome.line());
}

#[test]
fn the_schema_in_docs_is_that_of_the_report_and_a_report_keeps_it() {
    let schema = schemars::schema_for!(Report).to_value();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schemas/chaos.json");
    let made = format!("{schema:#}\n");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == made, "docs/schemas/chaos.json is not what the code says: UPDATE_DOCS=1 cargo test --test chaos");
    let report = Report { schema: SCHEMA.into(), faults: vec![Outcome::default()], ..Report::default() };
    let report = serde_json::to_value(report).unwrap();
    assert_eq!(report["schema"], "ssyncp.chaos/1");
    let validator = jsonschema::validator_for(&schema).unwrap();
    assert!(validator.is_valid(&report));
    assert!(!validator.is_valid(&serde_json::json!({ "schema": "ssyncp.chaos/1" })));
}
