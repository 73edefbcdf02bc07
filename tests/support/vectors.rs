//! The secrets and the sealed frames of docs/vectors/seal.json.

use serde_json::Value;
use ssyncp::wire::Secret;
use std::path::PathBuf;

fn document() -> Value {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/vectors/seal.json");
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// The secrets, by their numbers: 0 to 3.
pub(crate) fn secrets() -> Vec<Secret> {
    let secrets = document()["secrets"].as_array().unwrap().clone();
    let of = |entry: &Value| {
        Secret::new(entry["number"].as_u64().unwrap() as u8, &bytes(&entry["secret"]).try_into().unwrap()).unwrap()
    };
    secrets.iter().map(of).collect()
}

/// The sealed frame of this name.
pub(crate) fn frame(name: &str) -> Vec<u8> {
    let frames = document()["frames"].as_array().unwrap().clone();
    bytes(&frames.iter().find(|frame| frame["name"] == name).unwrap()["frame"])
}
