//! The short form of tools/compare-keepalived: one death of the contender that needs nothing but this program, and the form of
//! the report.

#[path = "support/machine.rs"]
mod machine;
#[path = "../examples/rivals/main.rs"]
#[allow(dead_code)]
mod rivals;

use rivals::contender::Contender;
use rivals::report::{Report, SCHEMA};
use rivals::{Context, race};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn context(connections: u32) -> Context {
    // Beside other tests a machine that stands still for a moment must not move the role.
    let advert_interval = "100ms";
    Context {
        program: PathBuf::from(env!("CARGO_BIN_EXE_ssyncp")),
        connections,
        failovers: 1,
        advert_interval,
        keep: false,
    }
}

fn schema() -> Value {
    schemars::schema_for!(Report).to_value()
}

/// The report as it is printed, which must fit its schema.
#[track_caller]
fn printed(report: &Report) -> Value {
    let report = serde_json::to_value(report).unwrap();
    let errors: Vec<String> =
        jsonschema::validator_for(&schema()).unwrap().iter_errors(&report).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:#?}\n{report:#}");
    report
}

#[test]
fn connections_outlive_the_death_of_a_master_and_the_report_says_so() {
    if !machine::root() || !machine::program("nft") {
        return;
    }
    let context = context(50);
    let mut report = Report::new(&context);
    report.runs.push(race::run(Contender::Ssyncp, &context, &|line| println!("{line}")));
    let report = printed(&report);
    let run = &report["runs"][0];
    assert_eq!((&report["schema"], &run["contender"]), (&json!(SCHEMA), &json!("ssyncp")));
    assert_eq!(run["problem"], Value::Null, "{run:#}");
    let [survived, reset, stalled] = ["survived", "reset", "stalled"].map(|key| run[key].as_u64());
    assert_eq!((survived, reset, stalled), (Some(50), Some(0), Some(0)), "{run:#}");
    assert!(run["failovers"][0]["announced_ms"].as_f64().is_some_and(|time| time > 0.0), "{run:#}");
}

/// A contender that could not even begin has no figures, and they are null and not 0.
#[test]
fn the_schema_in_docs_is_that_of_the_report_and_what_was_not_measured_is_null() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schemas/rivals.json");
    let made = format!("{:#}\n", schema());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == made, "docs/schemas/rivals.json is not what the code says: UPDATE_DOCS=1 cargo test --test rivals");
    let mut report = Report::new(&context(1));
    let run = rivals::report::Run::new(Contender::KeepalivedConntrackd);
    report.runs.push(rivals::report::Run { problem: Some("needs the program conntrackd".into()), ..run }.finish());
    let report = printed(&report);
    let run = &report["runs"][0];
    assert_eq!([&run["reset"], &run["blackout_ms_p50"], &run["survived"]], [&Value::Null; 3]);
    assert!(!jsonschema::validator_for(&schema()).unwrap().is_valid(&json!({ "schema": "ssyncp.rivals/1" })));
}
