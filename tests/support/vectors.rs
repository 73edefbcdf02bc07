//! docs/vectors/seal.json.

use serde_json::Value;
use ssyncp::wire::Secret;
use std::path::PathBuf;

pub(crate) fn document() -> Value {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/vectors/seal.json");
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

/// Bytes that stand there as hexadecimal digits.
pub(crate) fn bytes(value: &Value) -> Vec<u8> {
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
