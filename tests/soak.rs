//! The short form of tools/soak: half a minute of load and faults on a real pair, and the arithmetic of its verdict (beside it, in
//! examples/soak). What depends on how busy the machine is, is not judged here.

#[path = "support/machine.rs"]
mod machine;
#[path = "../examples/soak/main.rs"]
#[allow(dead_code)]
mod soak;

use soak::Context;
use soak::course::Plan;
use soak::report::{Report, SCHEMA};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Lines of the verdict that say how fast this machine is, or that need a longer life.
const OF_THE_MACHINE: [&str; 5] = [
    "in sync after a fault, slowest",
    "delay, median of the last third",
    "probes lost in calm",
    "memory of a, growth in a life",
    "memory of b, growth in a life",
];

#[test]
fn after_half_a_minute_of_faults_the_tables_are_equal_and_nothing_has_leaked() {
    if !machine::root() || !machine::program("nft") {
        return;
    }
    let context = Context { program: PathBuf::from(env!("CARGO_BIN_EXE_ssyncp")), quick: true, keep: false };
    let folder = tempfile::tempdir().unwrap();
    let plan = Plan { time: Duration::from_secs(30), seed: 5, rate: 300, folder: folder.path().to_owned() };
    let report = soak::perform(&context, &plan, None, &|line| println!("{line}")).unwrap();
    report.lines.iter().for_each(|line| println!("{}", line.words()));
    assert_eq!((&report.problem, &report.errors), (&None, &vec![]));
    for line in report.lines.iter().filter(|line| !OF_THE_MACHINE.contains(&line.name.as_str())) {
        assert!(line.passed, "{}", line.words());
    }
    assert!(report.faults.iter().all(|fault| fault.in_sync_s.is_some()), "{:?}", report.faults);
    assert!(
        report.connections > 1000 && report.quiets.iter().all(|quiet| quiet.entries >= 1000),
        "{:?}",
        report.quiets
    );
    let schema = schemars::schema_for!(Report).to_value();
    assert!(jsonschema::is_valid(&schema, &serde_json::to_value(&report).unwrap()));
    let kept = ["a.log", "b.log", "a.toml", "b.toml", "samples.csv", "soak.svg", "report.json"];
    assert!(kept.iter().all(|name| folder.path().join(name).is_file()));
}

#[test]
fn the_schema_in_docs_is_that_of_the_report_and_a_report_keeps_it() {
    let schema = schemars::schema_for!(Report).to_value();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schemas/soak.json");
    let made = format!("{schema:#}\n");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == made, "docs/schemas/soak.json is not what the code says: UPDATE_DOCS=1 cargo test --test soak");
    let report = Report { schema: SCHEMA.into(), quiets: vec![Default::default()], ..Report::default() };
    let report = serde_json::to_value(report).unwrap();
    assert_eq!(report["schema"], "ssyncp.soak/1");
    let validator = jsonschema::validator_for(&schema).unwrap();
    assert!(validator.is_valid(&report));
    assert!(!validator.is_valid(&serde_json::json!({ "schema": "ssyncp.soak/1" })));
}
