//! Reading the configuration anew: what comes, what goes, what is refused, and that nothing else notices.

use crate::support::{ADDRESS, Node, Pair, eventually, ip, root, run};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use ssyncp::daemon::client;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

/// A daemon alone, which needs no rights: its frames stay in its memory, and its flows are invented.
struct Alone {
    directory: tempfile::TempDir,
    child: Child,
}

impl Alone {
    fn start(groups: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ssyncp.toml");
        std::fs::write(&file, text(&directory.path().join("control.sock"), groups)).unwrap();
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ssyncp"));
        command.args(["run", "-c"]).arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let alone = Alone { child: command.spawn().unwrap(), directory };
        eventually("every group is master", || client::get(&alone.socket(), "/readyz").is_ok());
        alone
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    fn configure(&self, groups: &str) {
        std::fs::write(self.directory.path().join("ssyncp.toml"), text(&self.socket(), groups)).unwrap();
    }

    fn ssyncp(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ssyncp"));
        command.args(arguments).arg("--socket").arg(self.socket()).output().unwrap()
    }

    fn get(&self, path: &str) -> Value {
        client::get(&self.socket(), path).unwrap()
    }

    fn groups(&self) -> Vec<u64> {
        let status = self.get("/v1/status");
        status["groups"].as_array().unwrap().iter().map(|group| group["sync_id"].as_u64().unwrap()).collect()
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(socket: &std::path::Path, groups: &str) -> String {
    let control = format!("[control]\nsocket = \"{}\"\n", socket.display());
    format!("[node]\nid = 1\nname = \"alone\"\nrealtime_priority = 0\n{control}{groups}")
}

/// With ADVERTs so seldom that a busy machine is not taken for a stall, which would be one more change of role.
fn group(sync_id: u8, more: &str) -> String {
    let interval = if more.contains("advert_interval") { "" } else { "advert_interval = \"400ms\"\n" };
    format!("[[group]]\nsync_id = {sync_id}\ntransport = \"memory\"\nsource = \"synthetic\"\n{interval}{more}\n")
}

fn words(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_reload_says_what_has_changed_and_the_role_stays() {
    let node = Alone::start(&group(51, ""));
    let term = node.get("/v1/status")["groups"][0]["term"].clone();
    node.configure(&group(51, "priority = 200\nadvert_interval = \"500ms\""));
    let reload = node.ssyncp(&["reload"]);
    assert_eq!(
        words(&reload.stdout),
        "group 51: advert_interval: \"400ms\" is now \"500ms\"\ngroup 51: priority: 100 is now 200\n"
    );
    assert_eq!(reload.status.code(), Some(0));
    let status = node.get("/v1/status");
    let group = &status["groups"][0];
    assert_eq!((&group["role"], &group["priority"], &group["term"]), (&json!("master"), &json!(200), &term));
    assert_eq!(status["reload"]["result"], "done");
    assert_eq!(node.get("/v1/config")["settings"]["group"][0]["advert_interval"], "500ms");
    assert!(words(&node.ssyncp(&["config"]).stdout).contains("advert_interval = \"500ms\"\n"));
    let again = node.ssyncp(&["reload"]);
    assert_eq!((words(&again.stdout).as_str(), again.status.code()), ("nothing has changed\n", Some(0)));
}

#[test]
fn a_bad_file_is_refused_with_all_its_problems_and_the_old_settings_stay() {
    let node = Alone::start(&group(51, ""));
    let before = node.get("/v1/config");
    node.configure(&group(51, "priority = 0\ncapacity = \"many\""));
    let reload = node.ssyncp(&["reload"]);
    assert_eq!(reload.status.code(), Some(2));
    let said = words(&reload.stderr);
    assert!(said.starts_with("ssyncp: not reloaded, the old settings stay in force\n"), "{said}");
    assert!(said.contains("ssyncp.toml:12: priority: 0 is not from 1 to 255\n"), "{said}");
    assert!(said.contains("ssyncp.toml:13: capacity: \"many\" is no whole number"), "{said}");
    assert_eq!(node.get("/v1/config"), before);
    let status = node.get("/v1/status");
    assert_eq!((&status["reload"]["result"], &status["groups"][0]["role"]), (&json!("refused"), &json!("master")));
}

#[test]
fn what_needs_a_restart_is_named_and_nothing_of_the_file_is_applied() {
    let node = Alone::start(&group(51, ""));
    node.configure(&(group(51, "priority = 7\ncapacity = 1000\nhistory = 64") + &group(52, "")));
    let reload = node.ssyncp(&["reload"]);
    assert_eq!(reload.status.code(), Some(4));
    let said = words(&reload.stderr);
    assert!(said.contains("group 51: capacity: needs a restart (262144 is in force, 1000 in the file)"), "{said}");
    assert!(said.contains("group 51: history: needs a restart (4096 is in force, 64 in the file)"), "{said}");
    assert_eq!((node.groups(), node.get("/v1/status")["groups"][0]["priority"].clone()), (vec![51], json!(100)));
}

#[test]
fn groups_come_and_go_in_the_order_of_the_file() {
    let node = Alone::start(&(group(51, "") + &group(52, "")));
    node.configure(&(group(53, "") + &group(51, "")));
    let reload = node.ssyncp(&["reload"]);
    assert_eq!(
        (words(&reload.stdout).as_str(), reload.status.code()),
        ("group 53: added\ngroup 52: removed\n", Some(0))
    );
    assert_eq!(node.groups(), [53, 51]);
    eventually("the new one is master", || client::get(&node.socket(), "/readyz").is_ok());
    // A group of the same number may come back.
    node.configure(&(group(51, "") + &group(52, "")));
    assert_eq!(node.ssyncp(&["reload"]).status.code(), Some(0));
    assert_eq!(node.groups(), [51, 52]);
    eventually("the daemon goes on", || client::get(&node.socket(), "/readyz").is_ok());
}

#[test]
fn a_hangup_reloads_and_whoever_follows_the_events_hears_of_it() {
    let node = Alone::start(&group(51, ""));
    let mut heard = Vec::new();
    client::follow(&node.socket(), "/v1/events", |data| {
        let Some(data) = data else { return true };
        let event: Value = serde_json::from_str(data).unwrap();
        heard.push((event["event"].clone(), event["text"].clone()));
        match heard.len() {
            1 => node.configure(&group(51, "priority = 200")),
            2 => node.configure("nonsense"),
            _ => return false,
        }
        let process = nix::unistd::Pid::from_raw(node.child.id() as i32);
        nix::sys::signal::kill(process, Signal::SIGHUP).unwrap();
        true
    })
    .unwrap();
    assert_eq!(heard[1], (json!("Reloaded"), json!("reloaded: group 51: priority: 100 is now 200")));
    assert_eq!(heard[2].0, "ReloadRefused");
    assert_eq!(node.get("/v1/status")["groups"][0]["priority"], 200);
}

#[test]
fn the_event_stream_is_printed_line_by_line_until_its_reader_goes() {
    let node = Alone::start(&group(51, ""));
    let mut command = Command::new(env!("CARGO_BIN_EXE_ssyncp"));
    let mut events = command.args(["events", "--socket"]).arg(node.socket()).stdout(Stdio::piped()).spawn().unwrap();
    let mut reader = BufReader::new(events.stdout.take().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert!(line.starts_with('[') && line.contains("] group 51: State: master, source, "), "{line}");
    drop(reader);
    assert_eq!(node.ssyncp(&["reload"]).status.code(), Some(0));
    assert_eq!(events.wait().unwrap().code(), Some(0), "the next event finds nobody");
}

/// Everything of the pair's file that a reload may touch, with some addresses.
fn configure(node: &Node, letter: char, addresses: &str, more: &str) {
    let id = if letter == 'a' { 1 } else { 2 };
    node.configure(&format!(
        "[node]\nid = {id}\nname = \"{letter}\"\n[control]\nsocket = \"{}\"\n[[group]]\nsync_id = 51\n\
         interfaces = [\"s{letter}\"]\naddresses = [{addresses}]\n{more}\n",
        node.socket().display()
    ));
}

fn holds(node: &Node, address: &str) -> bool {
    run(&node.namespace, "ip", &["-4", "-o", "address", "show"]).contains(address)
}

#[test]
fn addresses_come_and_go_and_one_that_is_kept_is_not_touched() {
    if !root() {
        return;
    }
    // A busy machine taken for a stall would be another term and another stream.
    let seldom = "advert_interval = \"1s\"";
    let mut pair = Pair::new(seldom);
    pair.start();
    pair.a.connect(0..100);
    pair.until_equal(100);
    pair.settle();
    let reload = |node: &Node| client::post(&node.socket(), "/v1/reload", &json!({})).unwrap();
    let before = [pair.a.group(), pair.b.group()];
    // Whoever watches the kernel sees every touch.
    let watched = tempfile::NamedTempFile::new().unwrap();
    let mut watch = pair.a.namespace.command("ip").unwrap();
    let mut watch = watch.args(["-4", "monitor", "address"]).stdout(watched.reopen().unwrap()).spawn().unwrap();
    let seen = || std::fs::read_to_string(watched.path()).unwrap();
    eventually("the watch works", || {
        ip(&pair.a.namespace, "address replace 203.0.113.1/32 dev la");
        seen().contains("203.0.113.1/32")
    });

    let kept = format!("\"{ADDRESS} dev la\"");
    let settings = format!("priority = 150\n{seldom}\nlag_limit = \"600ms\"");
    configure(&pair.a, 'a', &format!("{kept}, \"192.0.2.77/32 dev la\""), &settings);
    reload(&pair.a);
    eventually("the new address is here", || holds(&pair.a, "192.0.2.77/32"));
    configure(&pair.a, 'a', &kept, &format!("{settings}\nreorder_delay = \"3ms\""));
    reload(&pair.a);
    eventually("and gone", || !holds(&pair.a, "192.0.2.77/32"));
    let settings = format!("priority = 100\n{seldom}");
    configure(&pair.b, 'b', &format!("\"{ADDRESS} dev lb\", \"192.0.2.77/32 dev lb\""), &settings);
    reload(&pair.b);
    eventually("b knows of the address", || pair.b.group()["addresses"].as_array().map(Vec::len) == Some(2));
    assert!(!holds(&pair.b, "192.0.2."), "a backup holds nothing");

    ip(&pair.a.namespace, "address add 203.0.113.2/32 dev la");
    eventually("the watch has seen everything", || seen().contains("203.0.113.2/32"));
    watch.kill().unwrap();
    watch.wait().unwrap();
    let seen = seen();
    assert_eq!(seen.matches("192.0.2.77/32").count(), 2, "{seen}");
    assert!(!seen.contains(ADDRESS), "{seen}");
    let after = [pair.a.group(), pair.b.group()];
    for (before, after) in before.iter().zip(&after) {
        for key in ["role", "term", "entries", "digest", "sync", "frontier"] {
            assert_eq!(before[key], after[key], "{key}");
        }
    }
    assert_eq!(after[0]["stream_seq"], before[0]["stream_seq"], "nothing was sent again");
}

/// What a status says of the last audit: entries, and what was wrong.
fn verified(node: &Node) -> [Option<u64>; 4] {
    let verified = node.group()["kernel_verified"].clone();
    ["entries", "differing", "missing", "extra"].map(|name| verified[name].as_u64())
}

/// One connection in eight is a ping.
#[test]
fn other_rules_of_the_filter_hold_at_once_for_what_is_replicated_and_for_what_is_audited() {
    if !root() {
        return;
    }
    let mut pair = Pair::new("audit_interval = \"1s\"");
    pair.start();
    pair.a.connect(0..800);
    pair.until_equal(800);
    eventually("b's kernel is verified", || verified(&pair.b) == [Some(800), Some(0), Some(0), Some(0)]);
    let pings = pair.a.table().iter().filter(|entry| entry.original.protocol == 1).count() as u64;
    assert_eq!(pings, 100);
    let address = |letter| format!("\"{ADDRESS} dev l{letter}\"");
    for (node, letter, priority) in [(&pair.b, 'b', 100), (&pair.a, 'a', 150)] {
        let rules = "audit_interval = \"1s\"\nfilter = [\"not icmp\"]";
        configure(node, letter, &address(letter), &format!("priority = {priority}\n{rules}"));
        let reloaded = client::post(&node.socket(), "/v1/reload", &json!({})).unwrap();
        assert_eq!(reloaded["changes"], json!(["group 51: filter: [] is now [\"not icmp\"]"]));
    }
    eventually("no ping is replicated", || [&pair.a, &pair.b].iter().all(|node| node.group()["entries"] == 700));
    eventually("nor in b's kernel", || pair.b.kernel_entries() == 700);
    assert_eq!(pair.a.kernel_entries(), 800, "a's kernel is its own");
    // What the rules leave out is nobody's business, not even if it looks stale.
    pair.b.connect(6..7);
    let audits = pair.b.counter("driver_audits");
    eventually("b is audited by the new rules", || {
        pair.b.counter("driver_audits") > audits + 1 && verified(&pair.b) == [Some(700), Some(0), Some(0), Some(0)]
    });
    assert_eq!((pair.b.kernel_entries(), pair.b.counter("driver_audit_removed")), (701, 0));
    pair.a.connect(800..808);
    eventually("new ones obey the rules", || pair.b.group()["entries"] == 707 && pair.b.kernel_entries() == 708);
}

#[test]
fn an_audit_is_switched_on_and_off_and_leaves_alone_what_may_be_another_groups() {
    if !root() {
        return;
    }
    let mut pair = Pair::new("audit = \"off\"");
    pair.start();
    pair.a.connect(0..100);
    pair.until_equal(100);
    assert_eq!((verified(&pair.b), pair.b.counter("driver_audits")), ([None; 4], 0));
    pair.b.connect(100..120);
    let address = format!("\"{ADDRESS} dev lb\"");
    let reload = |audit: &str, second: &str| {
        configure(&pair.b, 'b', &address, &format!("priority = 100\n{audit}\n{second}"));
        client::post(&pair.b.socket(), "/v1/reload", &json!({})).unwrap()["changes"].clone()
    };
    // A second group comes, and the kernel is no longer this one's alone.
    let second = "divide = \"none\"\n[[group]]\nsync_id = 52\ninterfaces = [\"sb\"]\npriority = 100\naudit = \"off\"";
    assert_eq!(reload("audit = \"off\"", second), json!(["group 52: added"]));
    let now = "audit_interval = \"1s\"";
    assert_eq!(
        reload(now, second),
        json!(["group 51: audit: \"off\" is now \"repair\"", "group 51: audit_interval: \"1m\" is now \"1s\"",])
    );
    eventually("it looks, and again", || pair.b.counter("driver_audits") > 1);
    assert_eq!(verified(&pair.b), [Some(120), Some(0), Some(0), Some(0)], "what is unknown may be the other's");
    assert_eq!(reload(now, ""), json!(["group 52: removed"]));
    eventually("alone again, it removes what is stale", || pair.b.kernel_entries() == 100);
    assert_eq!(pair.b.counter("driver_audit_removed"), 20);
    assert_eq!(
        reload("audit = \"off\"\naudit_interval = \"1s\"", ""),
        json!(["group 51: audit: \"repair\" is now \"off\""])
    );
    let audits = pair.b.counter("driver_audits");
    eventually("what it found is forgotten", || verified(&pair.b) == [None; 4]);
    pair.b.disconnect(0..10);
    // No audit finds that they are gone: the kernel itself has said it [4.6.6].
    eventually("they are put back", || pair.b.kernel_entries() == 100);
    assert_eq!(pair.b.counter("driver_audits"), audits);
    assert!(pair.b.is("backup", "in_sync"));
}
