//! `ssyncp sim`, as its user meets it. (What the worlds show is tested beside their code.)

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ssyncp")).arg("sim").args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_short_batch_is_judged_only_by_its_violations_and_says_so() {
    let output = sim(&["--seeds", "6", "--first", "10", "--jobs", "2", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schemas/sim.json");
    let schema: Value = serde_json::from_slice(&std::fs::read(schema).unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator.iter_errors(&report).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:#?}\n{report:#}");
    assert_eq!((&report["first"], &report["seeds"], &report["jobs"]), (&10.into(), &6.into(), &2.into()));
    assert_eq!(report["violations"], serde_json::json!([]));
    assert_eq!((&report["judged"], &report["passed"]), (&false.into(), &true.into()));
    assert_eq!(output.status.code(), Some(0));
    let words = text(&sim(&["--seeds", "2"]).stdout);
    assert!(words.contains("too few seeds to judge whether enough occurred: 200 are needed"), "{words}");
    assert!(words.ends_with("passed: 0 violations\n"), "{words}");
}

#[test]
fn a_seed_tells_the_same_story_each_time() {
    let (one, other) = (sim(&["--seed", "7", "--trace"]), sim(&["--seed", "7", "--trace"]));
    assert_eq!(one.status.code(), Some(0), "{}", text(&one.stdout));
    assert_eq!(one.stdout, other.stdout);
    let last = text(&one.stdout).lines().last().unwrap().to_owned();
    assert!(last.starts_with("seed 7: ") && last.contains(", digest "), "{last}");
    assert_ne!(one.stdout, sim(&["--seed", "8", "--trace"]).stdout);
}

#[test]
fn an_operators_own_settings_make_the_worlds() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ssyncp.toml");
    let group = |sync_id| format!("[[group]]\nsync_id = {sync_id}\ninterfaces = [\"lo\"]\nhistory = 64\n");
    std::fs::write(&file, format!("[node]\nid = 1\n{}", group(5))).unwrap();
    let name = file.to_str().unwrap();
    let output = sim(&["-c", name, "--seeds", "2"]);
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
    std::fs::write(&file, format!("[node]\nid = 1\n{}{}", group(5), group(6))).unwrap();
    let output = sim(&["-c", name, "--seeds", "2"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("several groups; name one with --group"), "{}", text(&output.stderr));
    assert_eq!(sim(&["-c", name, "--group", "6", "--seeds", "2"]).status.code(), Some(0));
    assert_eq!(sim(&["-c", name, "--group", "7", "--seeds", "2"]).status.code(), Some(2));
    assert_eq!(sim(&["-c", "/nowhere/ssyncp.toml"]).status.code(), Some(2));
}

#[cfg(not(feature = "breakages"))]
#[test]
fn what_is_shipped_can_break_no_rule() {
    let output = sim(&["--break", "no-tombstones"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--break"), "{}", text(&output.stderr));
    let names = ["no-tombstones", "NoTombstones", "frontier-over-a-gap", "FrontierOverAGap"];
    for (name, status) in names.map(|name| (name, 1)).into_iter().chain([("ssyncp.sim/1", 0)]) {
        let grep = Command::new("grep").args(["-qaF", name, env!("CARGO_BIN_EXE_ssyncp")]).status().unwrap();
        assert_eq!(grep.code(), Some(status), "{name}");
    }
}
