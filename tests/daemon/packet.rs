//! Pairs of daemons over packet sockets: as over raw ones, held in as they are; and what a daemon does that cannot have
//! what it was told to run on.

use crate::support;
use crate::support::{Pair, eventually, ip, root};
use nix::sys::signal::Signal;
use std::fs;

fn link(node: &support::Node) -> serde_json::Value {
    node.group()["links"][0].clone()
}

/// The interface goes and comes back under another number, long after the daemon has given up its rights.
#[test]
fn a_pair_over_packet_sockets_survives_a_new_interface_and_a_death() {
    if !root() {
        return;
    }
    let mut pair = Pair::new("transport = \"packet\"");
    pair.start();
    pair.settle();
    for node in [&pair.a, &pair.b] {
        assert_eq!(node.group()["transport"], "packet");
        assert_eq!((&link(node)["transport"], &link(node)["instead_of"]), (&"packet".into(), &serde_json::Value::Null));
    }
    let status = fs::read_to_string(format!("/proc/{}/status", pair.b.process())).unwrap();
    assert!(status.contains("Seccomp:\t2"), "it is held in: {status}");
    pair.a.connect(0..100);
    pair.until_equal(100);
    ip(&pair.b.namespace, "link del sb");
    eventually("b has lost its link", || pair.b.group()["link_up"] == false);
    assert_eq!(link(&pair.b)["condition"], "there is no such interface");
    pair.plug_in('b');
    eventually("b is back", || pair.b.is("backup", "in_sync"));
    assert_eq!(link(&pair.b)["transport"], "packet");
    pair.a.connect(100..200);
    pair.until_equal(200);
    pair.a.end(Signal::SIGKILL);
    eventually("b is master", || pair.b.is("master", "source"));
    eventually("b holds the address", || pair.b.holds_the_address());
}

/// Without the right to load programs.
#[test]
fn what_af_xdp_cannot_have_runs_on_packet_sockets_and_says_why() {
    if !root() {
        return;
    }
    let pair = Pair::new("transport = \"xdp\"");
    let mut command = pair.a.namespace.command("setpriv").unwrap();
    command.args(["--bounding-set", "-bpf,-sys_admin", env!("CARGO_BIN_EXE_ssyncp"), "run", "-c"]);
    let mut child = command.arg(pair.a.configuration()).spawn().unwrap();
    eventually("it is master", || pair.a.is("master", "source"));
    let (group, link) = (pair.a.group(), link(&pair.a));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!((&group["transport"], &link["transport"]), (&"packet".into(), &"packet".into()), "{group}");
    let reason = link["instead_of"].as_str().unwrap();
    assert!(reason.starts_with("xdp: ") && reason.contains("CAP_BPF"), "{reason}");
    let events = group["last_events"].as_array().unwrap();
    let told = events.iter().find(|event| event["event"] == "TransportFallback").unwrap();
    assert_eq!(told["text"], format!("sync link sa runs on packet, because of {reason}"));
}
