//! The short form of tools/attack: a few thousand hostile packets of each kind at a sealed pair of real daemons, on the machine
//! that runs the tests.

#[path = "../examples/attack/main.rs"]
#[allow(dead_code)]
mod attack;
#[path = "support/machine.rs"]
mod machine;

use attack::Context;
use attack::kinds::{KINDS, Pace};
use attack::report::{Attack, Expected, Report, SCHEMA};
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
        assert_eq!(attack.restart_in_sync_s.is_some(), kind.pace == Pace::FloodAndRestart, "{}", attack.line());
        assert_eq!(attack.takeover_s.is_some(), kind.pace == Pace::KillMaster, "{}", attack.line());
    }
    assert!(report.passed && report.resyncs_caused <= 1);
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

/// Of one thing or another that an attack has achieved, or shown nothing about, each fails it; and with it the whole.
#[test]
fn a_report_passes_only_without_any_harm() {
    let verdict = |mut attack: Attack, expected, undisturbed| {
        attack.judge(expected, undisturbed);
        let line = attack.line();
        let mut report = Report { attacks: vec![attack.clone()], ..Report::default() };
        report.sum();
        assert_eq!(report.passed, attack.faults.is_empty());
        assert!(line.ends_with("; passed") == report.passed && line.contains("; FAILED: ") != report.passed, "{line}");
        attack.faults.join("; ")
    };
    let refused = [("forged".to_owned(), 2)].into();
    let harmless = Attack { sent: 1, refused, recovered: true, resyncs_caused: 1, ..Attack::default() };
    let of = |attack: Attack| verdict(attack, Expected::Refused, None);
    assert_eq!(of(harmless.clone()), "");
    assert_eq!(of(Attack { changed: 1, ..harmless.clone() }), "1 records changed");
    assert_eq!(of(Attack { role_changes: 1, ..harmless.clone() }), "1 changes of role");
    assert_eq!(of(Attack { peer_resets: 3, ..harmless.clone() }), "3 peers lost or taken for new");
    assert_eq!(of(Attack { resyncs_caused: 2, ..harmless.clone() }), "1 resyncs beside the one that may be");
    assert_eq!(of(Attack { recovered: false, ..harmless.clone() }), "the pair did not recover");
    assert_eq!(of(Attack { sent: 0, ..harmless.clone() }), "nothing was sent");
    assert_eq!(of(Attack { refused: Default::default(), ..harmless.clone() }), "nothing was refused: did it arrive?");
    assert_eq!(verdict(harmless.clone(), Expected::Restarted, None), "the node that was killed did not come back");
    let back = Attack { restart_in_sync_s: Some(9.0), ..harmless.clone() };
    assert_eq!(verdict(back, Expected::Restarted, None), "");

    let taken_over = |after| Attack { takeover_s: after, refused: Default::default(), ..harmless.clone() };
    let of = |after, undisturbed| verdict(taken_over(after), Expected::TakenOver, undisturbed);
    assert_eq!(of(None, Some(0.3)), "nobody took over");
    assert_eq!(of(Some(1.25), Some(0.26)), "");
    assert_eq!(of(Some(2.8), Some(0.26)), "taken over after 2.80 s, and after 0.26 s without");
    assert_eq!(of(Some(2.8), None), "", "there is nothing to compare it with");
    let alone = Attack { name: "kill".into(), sent: 0, ..taken_over(Some(0.26)) };
    assert_eq!(verdict(alone, Expected::TakenOver, None), "");
}

/// One resync may be caused, but not one by each attack.
#[test]
fn resyncs_are_added_up_over_all_attacks() {
    let one = Attack { recovered: true, resyncs_caused: 1, ..Attack::default() };
    let mut report = Report { attacks: vec![one.clone(), one], ..Report::default() };
    report.sum();
    assert_eq!((report.resyncs_caused, report.passed), (2, false));
}
