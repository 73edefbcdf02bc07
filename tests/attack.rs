//! The short form of tools/attack: a few thousand hostile packets of each kind at a sealed pair of real daemons, on the machine
//! that runs the tests.

#[path = "../examples/attack/main.rs"]
#[allow(dead_code)]
mod attack;
#[path = "support/machine.rs"]
mod machine;

use attack::Context;
use attack::kinds::{KINDS, Pace};
use attack::report::{Attack, Report, SCHEMA};
use attack::siege::Measure;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Hostile packets of each kind that is no flood.
const PACKETS: u64 = 2000;

fn report(measure: Measure, only: &[String]) -> Option<Report> {
    if !machine::root() || !machine::program("nft") {
        return None;
    }
    let context = Context { program: PathBuf::from(env!("CARGO_BIN_EXE_ssyncp")), quick: true, keep: false };
    let report = attack::perform(&context, measure, only, &|line| println!("{line}"));
    assert_eq!(report.problems, [] as [String; 0]);
    Some(report)
}

/// [1.2.1] [1.2.3] [3.4.2] [3.4.3] [3.4.6] Who does not have the secret changes no record, no role and no peer, whatever it sends, and
/// the backup comes back in the middle of it.
#[test]
fn whatever_is_sent_without_the_secret_changes_nothing() {
    let measure = Measure { packets: PACKETS, time: Duration::from_secs(1), secret: true };
    let Some(report) = report(measure, &[]) else { return };
    assert_eq!(report.attacks.len(), KINDS.len());
    for (attack, kind) in report.attacks.iter().zip(&KINDS) {
        assert!(attack.is_harmless(), "{}", attack.line());
        assert!(kind.pace != Pace::Counted || attack.sent == PACKETS, "{}", attack.line());
        assert!(kind.pace == Pace::KillMaster || attack.refused.values().sum::<u64>() > 0, "{}", attack.line());
        assert_eq!(attack.restart_in_sync_s.is_some(), kind.pace == Pace::FloodAndRestart, "{}", attack.line());
    }
    assert!(report.resyncs_caused <= 1);
}

/// The judge sees what an attack achieves: without a secret a forged goodbye takes the role from the master.
#[test]
fn without_a_secret_the_same_tool_shows_what_a_goodbye_does() {
    let measure = Measure { packets: PACKETS, time: Duration::from_secs(1), secret: false };
    let Some(report) = report(measure, &["forge-clear".into(), "goodbye".into()]) else { return };
    let [forged, goodbye] = &report.attacks[..] else { panic!("{} attacks", report.attacks.len()) };
    assert_ne!(forged.changed, 0, "{}", forged.line());
    assert_ne!(goodbye.role_changes + goodbye.peer_resets, 0, "{}", goodbye.line());
    assert!(!report.passed);
}

#[test]
fn the_schema_in_docs_is_that_of_the_report_and_a_report_keeps_it() {
    let schema = schemars::schema_for!(Report).to_value();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schemas/attack.json");
    let made = format!("{schema:#}\n");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == made, "docs/schemas/attack.json is not what the code says: UPDATE_DOCS=1 cargo test --test attack");
    let report = Report { schema: SCHEMA.into(), attacks: vec![Attack::default()], ..Report::default() };
    let report = serde_json::to_value(report).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    assert!(validator.is_valid(&report));
    assert_eq!(report["quiet"], serde_json::Value::Null);
    assert!(!validator.is_valid(&serde_json::json!({ "schema": "ssyncp.attack/1" })));
}

/// What is done after one thing or another counts: nothing passes that has changed anything.
#[test]
fn a_report_passes_only_without_any_harm() {
    let verdict = |attack: Attack| {
        let mut report = Report { attacks: vec![attack], ..Report::default() };
        report.sum();
        report.passed
    };
    let harmless = Attack { recovered: true, resyncs_caused: 1, ..Attack::default() };
    assert!(verdict(harmless.clone()));
    assert!(!verdict(Attack { changed: 1, ..harmless.clone() }));
    assert!(!verdict(Attack { role_changes: 1, ..harmless.clone() }));
    assert!(!verdict(Attack { peer_resets: 1, ..harmless.clone() }));
    assert!(!verdict(Attack { resyncs_caused: 2, ..harmless.clone() }));
    assert!(!verdict(Attack { recovered: false, ..harmless }));
}
