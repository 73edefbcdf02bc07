//! A real pair goes from no secret to a secret, and from one secret to the next, by reloads alone and under changes of its
//! table, with the commands of docs/operations.md: no role moves, no peer is lost, no frame is refused.

use crate::support::{Node, Pair, eventually, root};
use serde_json::{Value, json};
use ssyncp::daemon::client;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Connections that come, and as many that go, at a time.
const STEP: u32 = 40;
/// Connections that stay.
const STAYING: u32 = 1000;
/// Other secrets, one after the other.
const ROTATIONS: usize = 3;
/// What must not happen: a role that moves, or a peer that is lost.
const DISTURBANCES: [&str; 7] =
    ["RoleChanged", "PeerDown", "PeerLeft", "MasterLost", "ElectionStarted", "DuplicateMaster", "Diverged"];
/// Why a frame is refused that is sealed with something else than is expected.
const REFUSALS: [&str; 6] = ["forged", "unsealed", "sealed", "replayed", "crowded", "untried"];

/// The commands of docs/operations.md that begin so, in their order.
fn documented(beginning: &str) -> Vec<&'static str> {
    let document = include_str!("../../docs/operations.md");
    let section = document.split("### Another secret").nth(1).expect("the section is there");
    section.lines().filter(|line| line.starts_with(beginning)).collect()
}

fn secret_file(node: &Node) -> PathBuf {
    node.configuration().with_file_name("secret")
}

/// Does to a node's file what an operator pastes.
fn paste(node: &Node, command: &str) {
    let file = secret_file(node).display().to_string();
    let command = command.replace("/etc/ssyncp/secret", &file).replace("ssyncp keygen", "\"$SSYNCP\" keygen");
    let output =
        Command::new("sh").args(["-ec", &command]).env("SSYNCP", env!("CARGO_BIN_EXE_ssyncp")).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

fn copy(from: &Node, to: &Node) {
    let (from, to) = (secret_file(from), secret_file(to));
    assert!(Command::new("cp").arg("-p").args([from, to]).status().unwrap().success());
}

/// Writes both keys into a node's configuration, as it was without them.
fn configure(node: &Node, plain: &str, auth: &str) {
    let keys = format!("[node]\nsecret_file = \"{}\"\nauth = \"{auth}\"\n", secret_file(node).display());
    node.configure(&plain.replacen("[node]\n", &keys, 1));
}

fn reload(node: &Node) -> Value {
    client::post(&node.socket(), "/v1/reload", &json!({})).unwrap()["changes"].clone()
}

fn seal(node: &Node) -> Value {
    node.group()["seal"].clone()
}

/// Waits until every node says so, as its operator would read it.
fn until_ready(pair: &Pair, seals_with: &Value) {
    eventually("every peer is ready", || {
        [&pair.a, &pair.b].iter().all(|node| {
            let socket = node.socket().display().to_string();
            let status =
                Command::new(env!("CARGO_BIN_EXE_ssyncp")).args(["status", "--socket", &socket]).output().unwrap();
            let words = String::from_utf8_lossy(&status.stdout).contains("; every peer is ready\n");
            words && seal(node)["seals_with"] == *seals_with && seal(node)["ready"] == true
        })
    });
}

/// Ends those who look at a flag, also when the test fails in between.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Changes the master's table without a pause.
fn change(master: &Node, stop: &AtomicBool, changed: &AtomicU32) {
    let mut number = STAYING;
    while !stop.load(Ordering::Relaxed) {
        master.connect(number..number + STEP);
        if number >= STAYING + 10 * STEP {
            master.disconnect(number - 10 * STEP..number - 9 * STEP);
        }
        number += STEP;
        changed.store(number, Ordering::Relaxed);
    }
}

/// Everything that the steps are to leave as it is.
fn untouched(node: &Node) -> (Value, Value, usize) {
    let (group, log) = (node.group(), node.log());
    let disturbances = DISTURBANCES.iter().map(|name| log.matches(name).count()).sum();
    (group["role"].clone(), group["term"].clone(), disturbances)
}

/// [3.4.7] [3.4.8]
#[test]
fn secrets_come_and_change_by_reloads_under_traffic_and_nobody_notices() {
    if !root() {
        return;
    }
    // A machine that stands still for a moment moves no role.
    let mut pair = Pair::new("advert_interval = \"400ms\"");
    pair.start();
    pair.a.connect(0..STAYING);
    pair.until_equal(STAYING as usize);
    let plain = [&pair.a, &pair.b].map(|node| std::fs::read_to_string(node.configuration()).unwrap());
    let nodes = [&pair.a, &pair.b];
    let before = nodes.map(untouched);
    let (stop, changed) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        let _ending = Ending(&stop);
        scope.spawn(|| change(&pair.a, &stop, &changed));
        let went_on = || {
            let now = changed.load(Ordering::Relaxed);
            eventually("the table goes on changing", || changed.load(Ordering::Relaxed) > now);
            assert_eq!(nodes.map(untouched), before);
        };

        assert_eq!(nodes.map(seal), [Value::Null, Value::Null]);
        paste(&pair.a, "ssyncp keygen /etc/ssyncp/secret");
        copy(&pair.a, &pair.b);
        configure(&pair.a, &plain[0], "permissive");
        assert_eq!(
            reload(&pair.a)[1],
            "[node]: secret_file: nothing is now \"FILE\"".replace("FILE", &secret_file(&pair.a).display().to_string())
        );
        eventually("a waits for b", || seal(&pair.a)["waits_for"] == json!([2]));
        assert_eq!((&seal(&pair.a)["seals_with"], &seal(&pair.a)["ready"]), (&Value::Null, &json!(false)));
        went_on();
        configure(&pair.b, &plain[1], "permissive");
        reload(&pair.b);
        until_ready(&pair, &json!(0));
        went_on();
        for (node, plain) in nodes.iter().zip(&plain) {
            configure(node, plain, "enforce");
            assert_eq!(reload(node), json!(["[node]: auth: \"permissive\" is now \"enforce\""]));
            went_on();
        }
        until_ready(&pair, &json!(0));

        let [add, first, remove] = [documented("ssyncp keygen"), documented("sed -i '1"), documented("sed -i '$")];
        for rotation in 0..ROTATIONS {
            let (old, new) = (json!(rotation % 4), json!((rotation + 1) % 4));
            paste(&pair.a, add[0]);
            copy(&pair.a, &pair.b);
            assert_eq!(reload(&pair.a), json!([format!("[node]: secrets: {old} is now {old}, {new}")]));
            eventually("a sees that b has not the new one", || seal(&pair.a)["ready"] == false);
            reload(&pair.b);
            until_ready(&pair, &old);
            went_on();
            for node in nodes {
                paste(node, first[0]);
                assert_eq!(reload(node), json!([format!("[node]: secrets: {old}, {new} is now {new}, {old}")]));
                went_on();
            }
            until_ready(&pair, &new);
            for node in nodes {
                paste(node, remove[0]);
                reload(node);
                went_on();
            }
            until_ready(&pair, &new);
            assert_eq!(nodes.map(|node| seal(node)["secrets"].clone()), [json!([new]), json!([new])]);
        }
    });
    pair.until_equal(STAYING as usize);
    eventually("the tables are proven equal", || {
        let [a, b] = nodes.map(Node::group);
        a["digest"] == b["digest"] && b["sync"] == "in_sync"
    });
    assert_eq!(nodes.map(untouched), before);
    for node in nodes {
        for reason in REFUSALS {
            assert_eq!(node.counter(&format!("engine_drop_{reason}")), 0, "{reason}");
        }
    }
}

#[test]
fn with_another_secret_of_the_same_number_two_nodes_do_not_hear_each_other_and_say_so() {
    if !root() {
        return;
    }
    let mut pair = Pair::new("");
    for node in [&pair.a, &pair.b] {
        let plain = std::fs::read_to_string(node.configuration()).unwrap();
        paste(node, "ssyncp keygen /etc/ssyncp/secret");
        configure(node, &plain, "enforce");
    }
    pair.a.start();
    pair.b.start();
    for node in [&pair.a, &pair.b] {
        eventually("it refuses the other", || {
            let group = node.group();
            group["drops"]["forged"].as_u64().unwrap_or(0) > 0 && node.log().contains("AuthFailed")
        });
        assert_eq!(node.group()["peers"], json!([]));
    }
}
