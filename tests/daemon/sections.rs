//! Entries beside the flows, through the control socket: what the master is given, every node can read, also after a
//! takeover. [3.3.11]

use crate::support::{Node, Pair, eventually, root};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use ssyncp::daemon::client;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// `ssyncp section` with these arguments, told to talk to a socket, with this on its standard input.
fn section(socket: &Path, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ssyncp"));
    command.arg("section").args(arguments).arg("--socket").arg(socket);
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().unwrap();
    // A command that refuses before it reads closes its end.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// Exit status and what was said, to either output.
fn said(output: &Output) -> (Option<i32>, String) {
    let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
    (output.status.code(), text)
}

/// A value of a megabyte less one byte, of which no two parts are equal: hundreds of frames.
fn long_value() -> Vec<u8> {
    (0..(1_u32 << 18)).flat_map(|number| number.wrapping_mul(0x9e37_79b1).to_be_bytes()).skip(1).collect()
}

/// A daemon alone, which needs no rights.
struct Alone {
    directory: tempfile::TempDir,
    child: Child,
}

impl Alone {
    fn start(groups: &str, listen: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ssyncp.toml");
        let socket = directory.path().join("control.sock");
        let head = format!(
            "[node]\nid = 1\nname = \"alone\"\nrealtime_priority = 0\n[control]\nsocket = \"{}\"\n{listen}\n",
            socket.display()
        );
        std::fs::write(&file, head + groups).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ssyncp"));
        command.args(["run", "-c"]).arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Alone { child: command.spawn().unwrap(), directory }
    }

    fn section(&self, arguments: &[&str], input: &[u8]) -> Output {
        section(&self.directory.path().join("control.sock"), arguments, input)
    }

    fn get(&self, path: &str) -> Value {
        client::get(&self.directory.path().join("control.sock"), path).unwrap_or_default()
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// ADVERTs so seldom that a busy machine is not taken for a stall: one that is no longer master takes no changes.
const SELDOM: &str = "advert_interval = \"400ms\"";

fn group(sync_id: u8, more: &str) -> String {
    format!("[[group]]\nsync_id = {sync_id}\ntransport = \"memory\"\nsource = \"synthetic\"\n{more}\n")
}

fn put(alone: &Alone, key: &str, value: &[u8]) -> (Option<i32>, String) {
    said(&alone.section(&["put", key, "-"], value))
}

#[test]
fn what_is_put_is_got_listed_replaced_and_deleted() {
    let alone = Alone::start(&group(51, SELDOM), "");
    eventually("it is master", || alone.get("/v1/status")["groups"][0]["role"] == "master");
    // A key may hold what a path may not, and a value anything.
    let key = "etc/ä?b=c#%2f ..";
    let value = b"\0\xff\r\n{}";
    assert_eq!(put(&alone, key, value), (Some(0), format!("0/{key}: 6 bytes\n")));
    let got = alone.section(&["get", key], b"");
    assert_eq!((got.status.code(), got.stdout), (Some(0), value.to_vec()));
    assert_eq!(put(&alone, key, b"").0, Some(0));
    assert_eq!(alone.section(&["get", key], b"").stdout, b"", "a value may be empty");
    let expiring = alone.section(&["put", "x", "-", "--table", "65535", "--expires", "1h"], b"three");
    assert_eq!(said(&expiring), (Some(0), "65535/x: 5 bytes, expires in 3600 s\n".into()));
    assert_eq!(alone.section(&["get", "x"], b"").status.code(), Some(1), "of another section");

    let listed: Value = serde_json::from_slice(&alone.section(&["list", "--json"], b"").stdout).unwrap();
    let expires = listed["groups"][0]["sections"][1]["expires_s"].as_u64().unwrap();
    assert!((3500..=3600).contains(&expires), "{expires}");
    assert_eq!(
        listed["groups"][0]["sections"],
        json!([
            { "table": 0, "key": key, "bytes": 0, "expires_s": null },
            { "table": 65535, "key": "x", "bytes": 5, "expires_s": expires },
        ])
    );
    assert_eq!(
        (&listed["groups"][0]["entries_max"], &listed["groups"][0]["bytes_max"]),
        (&json!(4096), &json!(16 << 20))
    );

    assert_eq!(said(&alone.section(&["delete", key], b"")), (Some(0), format!("0/{key}: deleted\n")));
    assert_eq!(said(&alone.section(&["delete", key], b"")), (Some(1), format!("0/{key}: there was no such entry\n")));
    let absent = "ssyncp: group 51: there is no entry of this key in section 0\n";
    assert_eq!(said(&alone.section(&["get", key], b"")), (Some(1), absent.into()));
}

#[test]
fn every_limit_has_a_name_and_what_is_refused_changes_nothing() {
    let alone = Alone::start(&group(51, SELDOM), "");
    eventually("it is master", || alone.get("/v1/status")["groups"][0]["role"] == "master");
    let value = vec![7; 1 << 20];
    assert_eq!(put(&alone, "largest", &value).0, Some(0));
    assert_eq!(alone.section(&["get", "largest"], b"").stdout, value);
    let (code, text) = put(&alone, "larger", &vec![7; (1 << 20) + 1]);
    assert!(code == Some(2) && text.contains("a value has at most 1048576 bytes"), "{code:?} {text}");
    let socket = alone.directory.path().join("control.sock");
    let larger = client::send(&socket, hyper::Method::PUT, "/v1/sections/0/larger", vec![7; (1 << 20) + 1]);
    assert!(larger.unwrap_err().to_string().contains("at most 1048576 bytes"));
    assert_eq!(put(&alone, &"k".repeat(257), b"x").0, Some(2));
    for number in 1..15 {
        assert_eq!(put(&alone, &format!("more-{number}"), &value).0, Some(0), "{number}");
    }
    let (code, text) = put(&alone, "too-much", &value);
    assert_eq!(code, Some(4));
    assert!(text.contains("the sections are full: 15 of 4096 entries") && text.contains("delete some"), "{text}");
    assert_eq!(alone.get("/v1/sections")["groups"][0]["sections"].as_array().unwrap().len(), 15);
    assert_eq!(alone.get("/v1/status")["groups"][0]["counters"]["engine_sections_full"], 1);
    assert_eq!(put(&alone, "more-1", b"short").0, Some(0), "a shorter value makes room");
    assert_eq!(put(&alone, "fits-now", &value).0, Some(0));
}

#[test]
fn a_group_is_named_where_there_are_several_and_the_classic_profile_has_no_sections() {
    let classic = "profile = \"classic\"\nrole = \"manual\"";
    let alone = Alone::start(&(group(51, "role = \"manual\"") + &group(52, classic)), "");
    eventually("it runs", || alone.get("/v1/status")["groups"][1]["role"] == "backup");
    let (code, text) = put(&alone, "x", b"");
    assert!(code == Some(2) && text.contains("there are several groups; name one of 51, 52"), "{code:?} {text}");
    let (code, text) = said(&alone.section(&["put", "x", "-", "--group", "52"], b""));
    assert!(code == Some(4) && text.contains("profile \"classic\" carries flows alone"), "{code:?} {text}");
    let (code, text) = said(&alone.section(&["put", "x", "-", "--group", "51"], b""));
    assert!(code == Some(4) && text.contains("this node is backup"), "{code:?} {text}");
    assert_eq!(alone.get("/v1/sections")["groups"].as_array().map(Vec::len), Some(1), "the classic one is left out");
}

/// Keys may be seen by whoever may see flows; values, and every change, are for who has the socket.
#[test]
fn the_reading_address_lists_and_shows_no_value() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let alone = Alone::start(&group(51, SELDOM), &format!("listen = \"{address}\""));
    eventually("it is master", || alone.get("/v1/status")["groups"][0]["role"] == "master");
    assert_eq!(put(&alone, "x", b"a value").0, Some(0));
    let exchange = |request: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        let text = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(exchange("GET /v1/sections").contains("\"key\":\"x\""));
    for request in ["GET /v1/sections/0/x", "PUT /v1/sections/0/x", "DELETE /v1/sections/0/x"] {
        let answer = exchange(request);
        assert!(answer.starts_with("HTTP/1.1 403 ") && !answer.contains("a value"), "{request}: {answer}");
    }
    assert_eq!(alone.section(&["get", "x"], b"").stdout, b"a value");
}

/// The value of an entry as a node has it.
fn value(node: &Node, key: &str) -> Option<Vec<u8>> {
    let output = section(&node.socket(), &["get", key], b"");
    (output.status.code() == Some(0)).then_some(output.stdout)
}

#[test]
fn a_backup_reads_what_the_master_was_given_and_has_it_after_a_takeover() {
    if !root() {
        return;
    }
    let mut pair = Pair::new("");
    pair.start();
    let put = |node: &Node, key: &str, value: &[u8]| said(&section(&node.socket(), &["put", key, "-"], value));
    let long = long_value();
    assert_eq!(put(&pair.a, "long", &long).0, Some(0));
    assert_eq!(put(&pair.a, "short", b"one").0, Some(0));
    assert_eq!(put(&pair.a, "gone", b"soon").0, Some(0));
    // What has been flushed is there: a backup acknowledges what it can show.
    let flush = Command::new(env!("CARGO_BIN_EXE_ssyncp")).arg("flush").arg("--socket").arg(pair.a.socket()).output();
    assert_eq!(flush.unwrap().status.code(), Some(0));
    assert_eq!(value(&pair.b, "short").as_deref(), Some(&b"one"[..]));
    assert!(value(&pair.b, "long") == Some(long.clone()), "another value than was put");
    let (code, text) = put(&pair.b, "short", b"two");
    assert_eq!(code, Some(4));
    assert!(text.contains("this node is backup, and only the master takes changes; do it on node 1 (a)"), "{text}");
    assert_eq!(said(&section(&pair.a.socket(), &["delete", "gone"], b"")).0, Some(0));
    eventually("a delete arrives, too", || value(&pair.b, "gone").is_none());

    pair.a.end(Signal::SIGKILL);
    eventually("b is master", || pair.b.is("master", "source"));
    let events = pair.b.group()["last_events"].clone();
    assert!(!events.to_string().contains("CommitDeadlinePassed"), "entries hold up no takeover: {events:#}");
    assert!(value(&pair.b, "long") == Some(long.clone()), "another value than was put");
    assert_eq!((value(&pair.b, "short"), value(&pair.b, "gone")), (Some(b"one".to_vec()), None));
    assert_eq!(put(&pair.b, "short", b"two").0, Some(0));

    // Who comes back from nothing has what its master has.
    pair.a.start();
    eventually("a has it again", || value(&pair.a, "short").as_deref() == Some(b"two"));
    eventually("all of it", || value(&pair.a, "long").is_some_and(|value| value == long));
}
