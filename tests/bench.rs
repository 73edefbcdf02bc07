//! `ssyncp bench`, as its user meets it. Its figures are not judged: a machine that is busy is slow, and that is no fault.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

/// Everything is measured, for as short as it can be.
const SHORT: [&str; 6] = ["--seconds", "0.02", "--runs", "2", "--flows", "2000"];

/// One at a time: they measure, and would only measure each other.
static TURN: Mutex<()> = Mutex::new(());

fn bench(arguments: &[&str]) -> Output {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    Command::new(env!("CARGO_BIN_EXE_ssyncp")).arg("bench").args(SHORT).args(arguments).output().unwrap()
}

/// The report, which must fit its schema.
#[track_caller]
fn report(arguments: &[&str]) -> Value {
    let output = bench(&[&["--json"], arguments].concat());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schemas/bench.json");
    let schema: Value = serde_json::from_slice(&std::fs::read(schema).unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator.iter_errors(&report).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:#?}\n{report:#}");
    report
}

#[track_caller]
fn row<'a>(report: &'a Value, transport: Option<&str>, what: &str) -> &'a Value {
    let rows = report["rows"].as_array().unwrap();
    let is_it = |row: &&Value| row["transport"].as_str() == transport && row["what"] == what;
    rows.iter().find(is_it).unwrap_or_else(|| panic!("no row {what} of {transport:?} in {report:#}"))
}

/// Whether something was measured, in as many runs as were asked for, and within its limits' arithmetic.
#[track_caller]
fn is_measured(row: &Value) {
    let figure = |name: &str| row[name].as_f64().unwrap_or_else(|| panic!("{name} of {row}"));
    let (median, min, max) = (figure("median"), figure("min"), figure("max"));
    assert!(min > 0.0 && min <= median && median <= max, "{row}");
    assert_eq!(row["runs"], 2, "{row}");
    if let Some(limit) = row["limit"].as_f64() {
        assert!((figure("ratio") * limit - median).abs() <= median * 1e-9, "{row}");
    }
}

#[test]
fn the_memory_transport_and_the_table_are_measured_anywhere() {
    let report = report(&["--transport", "memory"]);
    assert_eq!((&report["seconds"], &report["runs"], &report["flows"]), (&0.02.into(), &2.into(), &2000.into()));
    for what in ["memory walk", "copy", "crc32", "table apply"] {
        is_measured(row(&report, None, what));
    }
    for what in ["frames sent", "frames received", "records sent", "records received", "records applied"] {
        is_measured(row(&report, Some("memory"), what));
    }
    assert!(row(&report, Some("memory"), "frames received")["limit"].is_number(), "copies are its limit");
    let rows = report["rows"].as_array().unwrap();
    assert!(!rows.iter().any(|row| row["transport"] == "raw"), "nobody asked for it");
}

#[test]
fn raw_sockets_stand_beside_bare_ones_and_a_chart_is_drawn() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let chart = folder.path().join("bench.svg");
    let report = report(&["--transport", "raw", "--svg", chart.to_str().unwrap()]);
    for what in ["frames sent", "frames received", "frames, sender", "frames, receiver"] {
        is_measured(row(&report, Some("raw"), what));
        assert!(row(&report, Some("raw"), what)["limit"].is_number(), "{what}");
    }
    is_measured(row(&report, Some("raw"), "frames by bare"));
    for what in ["records sent", "records applied", "sealed by unsealed", "records, sender", "latency idle p50"] {
        is_measured(row(&report, Some("raw"), what));
    }
    // Of forty latencies nobody knows the thousandth part.
    let unknown = row(&report, Some("raw"), "latency idle p999");
    assert_eq!((&unknown["median"], &unknown["ratio"], &unknown["runs"]), (&Value::Null, &Value::Null, &0.into()));
    let chart = std::fs::read_to_string(chart).unwrap();
    assert!(chart.starts_with("<svg") && chart.contains("frames received"), "{chart}");
}

#[test]
fn a_flood_tells_what_is_lost_and_how_late_the_rest_comes() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let report = report(&["--flood", "--transport", "raw"]);
    for storm in ["calm", "small packets", "foreign group", "receiver stopped"] {
        assert!(row(&report, Some("raw"), &format!("lost, {storm}"))["median"].is_number(), "0 is a figure here");
        let late = row(&report, Some("raw"), &format!("latency p99, {storm}"));
        is_measured(late);
        assert!(late["limit"].is_number(), "{late}");
    }
    for storm in ["storm, small packets", "storm, foreign group"] {
        is_measured(row(&report, Some("raw"), storm));
    }
}

#[test]
fn cost_is_shown_by_groups_nodes_and_flows_and_its_curves_are_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let chart = folder.path().join("scale.svg");
    let report = report(&["--scale", "--transport", "memory", "--svg", chart.to_str().unwrap()]);
    for what in ["records applied, 1 group", "records at 100,000/s, both sides, 1 group", "records applied, 2 nodes"] {
        is_measured(row(&report, Some("memory"), what));
    }
    // So many threads may be more than a busy machine has time for; then there is a note.
    for what in [
        "records applied, 16 groups",
        "records at 100,000/s, both sides, 4 groups",
        "records at 100,000/s, receiver, 8 nodes",
    ] {
        let row = row(&report, Some("memory"), what);
        assert!(row["median"].is_number() || !report["notes"].as_array().unwrap().is_empty(), "{row}");
    }
    is_measured(row(&report, None, "table apply, 2000 flows"));
    assert!(!report.to_string().contains("10000 flows"), "--flows bounds the tables");
    let chart = std::fs::read_to_string(chart).unwrap();
    assert!(chart.starts_with("<svg") && chart.contains("by nodes") && chart.contains("<polyline"), "{chart}");
}

/// What tools/guard compares is what there is.
#[test]
fn every_workload_of_the_guard_is_kept_with_its_count() {
    let output = bench(&["--workload", "list"]);
    let names = String::from_utf8(output.stdout).unwrap();
    let kept = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/guard.counts")).unwrap();
    let rows: Vec<Vec<&str>> = kept
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_ascii_whitespace().collect())
        .collect();
    assert_eq!(rows.iter().map(|row| row[0]).collect::<Vec<_>>(), names.lines().collect::<Vec<_>>());
    for row in rows {
        assert!(row[1].parse::<u64>().is_ok_and(|count| count > 0) && row.len() > 3, "count, day, reason: {row:?}");
    }
}

#[test]
fn what_cannot_be_measured_is_null_and_has_a_note() {
    let report = report(&["--transport", "raw", "--interface", "nowhere0"]);
    assert_eq!(report["interface"], "nowhere0");
    for what in ["frames sent", "records applied", "latency half load p50"] {
        let row = row(&report, Some("raw"), what);
        assert_eq!(
            (&row["median"], &row["min"], &row["limit"], &row["runs"]),
            (&Value::Null, &Value::Null, &Value::Null, &0.into())
        );
    }
    let notes = report["notes"].to_string();
    assert!(notes.contains("frames of raw: ") && notes.contains("the limit of raw: "), "{notes}");
}

#[test]
fn words_name_the_machine_and_say_what_was_not_measured() {
    let output = bench(&["--transport", "memory"]);
    let words = String::from_utf8(output.stdout).unwrap();
    assert!(words.starts_with(concat!("ssyncp ", env!("CARGO_PKG_VERSION"), ", Linux ")), "{words}");
    assert!(words.contains("2000 flows, 2 runs of 0.02 s"), "{words}");
    assert!(words.contains("\nmemory    records applied "), "{words}");
    let wrong = bench(&["--transport", "pigeon"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8(wrong.stderr).unwrap().contains("memory, raw, packet, nix, xdp"));
}
