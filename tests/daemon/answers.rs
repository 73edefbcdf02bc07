//! What the control interface says of itself is true: the schemas and the OpenAPI document in docs/ are those of the
//! code, and what a running pair of daemons answers, in every call and from every command, fits them.

use crate::support::{Node, Pair, eventually, root};
use serde_json::{Value, json};
use ssyncp::daemon::{answers, http};
use std::path::Path;
use std::process::{Command, Output};

/// Holds a file of docs/ to what the code makes of it; with UPDATE_DOCS=1 it is written.
fn is_current(name: &str, made: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    let made = format!("{made:#}\n");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == made, "docs/{name} is not what the code says: UPDATE_DOCS=1 cargo test --test daemon answers");
}

#[test]
fn the_schemas_in_docs_are_those_of_the_code() {
    for (name, schema) in answers::schemas() {
        is_current(&format!("schemas/{name}.json"), &schema);
    }
}

#[test]
fn the_openapi_document_in_docs_is_that_of_the_code_and_every_reference_in_it_leads_somewhere() {
    let document = http::openapi();
    is_current("openapi.json", &document);
    assert_eq!(document["openapi"], "3.1.0");
    let text = document.to_string();
    let mut references = 0;
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
        references += 1;
    }
    assert!(references > 20, "{references}");
    let calls: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    assert_eq!(
        calls,
        [
            "/healthz",
            "/metrics",
            "/readyz",
            "/v1/config",
            "/v1/drain",
            "/v1/events",
            "/v1/flows",
            "/v1/flush",
            "/v1/openapi.json",
            "/v1/peer-dead",
            "/v1/peers",
            "/v1/reload",
            "/v1/resync",
            "/v1/role",
            "/v1/sections",
            "/v1/sections/{table}/{key}",
            "/v1/status",
            "/v1/switchover",
        ]
    );
}

/// Holds an answer to the schema in docs/ that it names itself.
#[track_caller]
fn fits(answer: &Value) {
    let named = answer["schema"].as_str().unwrap_or_else(|| panic!("no schema in {answer}"));
    let name = named.strip_prefix("ssyncp.").unwrap().split('/').next().unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("docs/schemas/{name}.json"));
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> =
        validator.iter_errors(answer).map(|error| format!("{error} at {}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{named}: {errors:#?}\n{answer:#}");
}

#[test]
fn a_schema_refuses_what_is_missing_what_is_unknown_and_what_is_of_another_kind() {
    let schema = answers::schemas().into_iter().find(|(name, _)| *name == "reload").unwrap().1;
    let validator = jsonschema::validator_for(&schema).unwrap();
    assert!(validator.is_valid(&json!({ "schema": "ssyncp.reload/1", "changes": ["x"], "warnings": [] })));
    for wrong in [
        json!({ "schema": "ssyncp.reload/1" }),
        json!({ "schema": "ssyncp.reload/2", "changes": [] }),
        json!({ "schema": "ssyncp.reload/1", "changes": [1], "warnings": [] }),
        json!({ "schema": "ssyncp.reload/1", "changes": [], "warnings": [], "more": 1 }),
    ] {
        assert!(!validator.is_valid(&wrong), "{wrong}");
    }
}

fn ssyncp(node: &Node, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ssyncp"));
    command.args(arguments).args(["--json", "--socket"]).arg(node.socket()).output().unwrap()
}

/// What a command says with `--json`, which must fit its schema, and its exit status.
#[track_caller]
fn says(node: &Node, arguments: &[&str]) -> (Value, Option<i32>) {
    let output = ssyncp(node, arguments);
    let text = String::from_utf8(output.stdout).unwrap();
    let answer: Value = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    fits(&answer);
    (answer, output.status.code())
}

#[test]
fn everything_that_a_running_pair_says_fits_its_schema() {
    if !root() {
        return;
    }
    let mut pair = Pair::new("");
    pair.start();
    pair.settle();
    let (a, b) = (&pair.a, &pair.b);
    a.connect(0..20);
    eventually("b has the flows", || b.group()["entries"] == 20 && b.is("backup", "in_sync"));
    eventually("a knows its rates", || !a.group()["rates"].is_null());

    for path in ["/v1/status", "/v1/flows", "/v1/peers", "/v1/config", "/healthz", "/readyz"] {
        fits(&a.ask(path).unwrap_or_else(|| panic!("{path}")));
        fits(&b.ask(path).unwrap_or_else(|| panic!("{path}")));
    }
    assert_eq!(a.ask("/v1/openapi.json").unwrap(), http::openapi());

    let (status, code) = says(a, &["status"]);
    assert_eq!((&status["groups"][0]["unacknowledged"], code), (&json!(0), Some(0)));
    assert_eq!(says(b, &["status"]).0["groups"][0]["unacknowledged"], Value::Null, "not measured is null");
    assert_eq!(says(a, &["table"]).0["count"], 20);
    assert_eq!(says(a, &["peers"]).0["groups"][0]["peers"][0]["name"], "b");
    assert_eq!(says(a, &["config"]).0["settings"]["group"][0]["priority"], 150);
    let file = a.configuration().display().to_string();
    assert_eq!(says(a, &["section", "put", "k", &file]).0["section"]["key"], "k");
    assert_eq!(says(a, &["section", "list"]).0["groups"][0]["sections"][0]["expires_s"], Value::Null);
    assert_eq!(says(a, &["section", "delete", "k"]).0["deleted"], true);
    assert_eq!(
        says(a, &["section", "delete", "k"]),
        (
            json!({ "schema": "ssyncp.section-delete/1", "sync_id": 51, "table": 0, "key": "k", "deleted": false }),
            Some(1)
        )
    );
    let (flush, code) = says(a, &["flush", "--timeout", "5s"]);
    assert_eq!((&flush["flushed"], code), (&json!(true), Some(0)));
    assert_eq!(flush["groups"][0]["seq"], flush["groups"][0]["peers"][0]["frontier"]);
    assert_eq!(ssyncp(b, &["flush"]).status.code(), Some(4), "only a master flushes");
    assert_eq!(ssyncp(a, &["resync"]).status.code(), Some(4), "a master is not resynced");
    let (resync, code) = says(b, &["resync", "--full"]);
    assert_eq!((&resync["groups"][0]["buckets"], code), (&json!(4096), Some(0)));
    eventually("b is proven again", || b.is("backup", "in_sync"));
    assert_eq!(says(a, &["reload"]), (json!({ "schema": "ssyncp.reload/1", "changes": [], "warnings": [] }), Some(0)));
    fits(&a.ask("/v1/status").unwrap());
    assert_eq!(says(b, &["role", "backup"]).0["groups"][0]["role"], "backup");
    assert_eq!(says(b, &["drain"]).0["groups"][0]["draining"], json!(["operator"]));
    assert_eq!(says(b, &["drain", "--off"]).0["groups"][0]["draining"], json!([]));
    eventually("b may inherit", || a.group()["peers"][0]["draining"] == false && b.is("backup", "in_sync"));
    assert_eq!(
        says(b, &["switchover", "--wait"]),
        (json!({ "schema": "ssyncp.switchover/1", "groups": [{ "sync_id": 51, "heir": 2 }] }), Some(0))
    );
    eventually("a is in sync", || a.is("backup", "in_sync"));
    assert_eq!(says(a, &["switchover", "--wait"]).0["groups"][0]["heir"], 1);
    eventually("b is in sync", || b.is("backup", "in_sync"));
    assert_eq!(says(a, &["peer-dead", "2"]).0["node"], 2);
    eventually("b is back", || a.group()["peers"][0]["established"] == true && b.is("backup", "in_sync"));

    let mut events = Vec::new();
    ssyncp::daemon::client::follow(&b.socket(), "/v1/events", |data| {
        let Some(data) = data else { return true };
        let event: Value = serde_json::from_str(data).unwrap();
        fits(&event);
        events.push(event["event"].clone());
        if events.len() == 1 {
            a.tell(nix::sys::signal::Signal::SIGTERM);
        }
        event["event"] != "PeerLeft"
    })
    .unwrap();
    assert_eq!(events[0], "State");
    assert!(events.contains(&json!("RoleChanged")), "{events:?}");

    let (alone, code) = says(b, &["flush", "--timeout", "100ms"]);
    assert_eq!((&alone["flushed"], code), (&json!(false), Some(1)), "nobody is there to hold it");
    let refused = ssyncp::daemon::client::send(&b.socket(), hyper::Method::POST, "/v1/resync", String::new());
    assert!(refused.unwrap_err().to_string().contains("this node is master"));
}

#[test]
fn a_check_of_a_file_good_or_bad_fits_its_schema() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ssyncp.toml");
    let check = |text: &str, more: &[&str]| {
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ssyncp"));
        let output = command.args(["check", "--json", "-c"]).arg(&file).args(more).output().unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        fits(&answer);
        (answer, output.status.code())
    };
    let good = "[node]\nid = 1\n[[group]]\nsync_id = 51\ninterfaces = [\"eth1\"]\n";
    let (answer, code) = check(good, &[]);
    assert_eq!((&answer["ok"], &answer["settings"], code), (&json!(true), &Value::Null, Some(0)));
    assert_eq!(check(good, &["--show"]).0["settings"]["group"][0]["advert_interval"], "100ms");
    let (answer, code) = check("[node]\nid = 1\n[[group]]\nsync_id = 51\ninterfaces = [\"eth1\"]\npriority = 0\n", &[]);
    assert_eq!((&answer["problems"][0]["line"], code), (&json!(6), Some(2)));
}
