//! What a node tracks moves its priority, and with it the role: interfaces, scripts, processes and servers, in a pair of
//! daemons in namespaces.

use crate::support::{Node, Pair, eventually, ip, root};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use ssyncp::daemon::client;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A pair of which `a` heeds `track`, described by `more`. The interface `out` of `a` is what can fail.
fn pair(track: &str, more: &str) -> Pair {
    let pair = Pair::new("");
    ip(&pair.a.namespace, "link add out type veth peer name out0\nlink set out0 up\nlink set out up");
    heed(&pair.a, track, more);
    pair
}

/// Adds to the group of a node's settings, which end with it, and to the end of the file.
fn heed(node: &Node, track: &str, more: &str) {
    let text = fs::read_to_string(node.configuration()).unwrap();
    let text = text.split("track = [").next().unwrap();
    node.configure(&format!("{text}track = [{track}]\n{more}\n"));
}

fn tracks(node: &Node) -> Vec<Value> {
    node.group()["tracks"].as_array().cloned().unwrap_or_default()
}

/// Name, state and words of the only track.
fn track(node: &Node) -> (Value, Value) {
    let tracks = tracks(node);
    tracks.first().map_or((Value::Null, Value::Null), |track| (track["up"].clone(), track["output"].clone()))
}

fn priority(node: &Node) -> (Value, Value) {
    let group = node.group();
    (group["priority"].clone(), group["configured_priority"].clone())
}

/// Texts of the last events of some name.
fn events(node: &Node, name: &str) -> Vec<String> {
    let events = node.group()["last_events"].as_array().cloned().unwrap_or_default();
    let named = events.iter().filter(|event| event["event"] == name);
    named.map(|event| event["text"].as_str().unwrap().to_owned()).collect()
}

/// The role moves to `b` when the uplink of `a` loses its carrier, and back when it has it again: `a` preempts.
#[test]
fn an_interface_that_goes_down_lowers_the_priority_and_moves_the_role_and_back() {
    if !root() {
        return;
    }
    let mut pair = pair("\"uplink\"", "[[track]]\nname = \"uplink\"\ninterface = \"out\"\nweight = -60");
    pair.start();
    eventually("the uplink is known", || track(&pair.a) == (json!(true), json!("running")));
    assert_eq!(priority(&pair.a), (json!(150), json!(150)));
    ip(&pair.a.namespace, "link set out0 down");
    eventually("the role has moved", || pair.b.is("master", "source") && pair.a.is("backup", "in_sync"));
    pair.settle();
    assert_eq!(track(&pair.a), (json!(false), json!("no carrier")));
    assert_eq!(priority(&pair.a), (json!(90), json!(150)));
    assert_eq!(
        events(&pair.a, "TrackDown"),
        ["track uplink (interface) is down: no carrier; priority 90 of 150 configured"]
    );
    let metrics = client::fetch(&pair.a.socket(), "/metrics").unwrap();
    let metrics = String::from_utf8_lossy(&metrics);
    assert!(metrics.contains("ssyncp_track_up{group=\"51\",name=\"uplink\"} 0.0\n"), "{metrics}");
    ip(&pair.a.namespace, "link set out0 up");
    eventually("and back", || pair.a.is("master", "source") && pair.b.is("backup", "in_sync"));
    assert_eq!(events(&pair.a, "TrackUp").len(), 2);
    // An interface that is gone is down; one of the same name is another, and up.
    ip(&pair.a.namespace, "link del out");
    eventually("it is gone", || track(&pair.a) == (json!(false), json!("no such interface")));
    ip(&pair.a.namespace, "link add out type veth peer name out0\nlink set out0 up\nlink set out up");
    eventually("it is back", || track(&pair.a) == (json!(true), json!("running")));
}

/// Without a weight a failure takes the role away altogether: the node drains. It has it back when the track is up again.
#[test]
fn a_track_without_a_weight_takes_the_role_away_while_it_is_down() {
    if !root() {
        return;
    }
    let mut pair = pair("\"uplink\"", "[[track]]\nname = \"uplink\"\ninterface = \"out\"");
    pair.start();
    eventually("the uplink is known", || track(&pair.a).0 == json!(true));
    ip(&pair.a.namespace, "link set out down");
    eventually("the role has moved", || pair.b.is("master", "source") && pair.a.is("backup", "in_sync"));
    assert_eq!(priority(&pair.a), (json!(150), json!(150)));
    assert_eq!(
        events(&pair.a, "TrackDown"),
        ["track uplink (interface) is down: switched off; this node is to be without the role"]
    );
    assert_eq!(pair.a.group()["draining"], json!(["track"]));
    ip(&pair.a.namespace, "link set out up");
    eventually("and back", || pair.a.is("master", "source") && pair.b.is("backup", "in_sync"));
}

/// keepalived's `track_file`: 0 while there is none, its number times the weight else; far below nothing at all, the role goes.
#[test]
fn a_number_in_a_file_moves_the_priority_and_with_it_the_role() {
    if !root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("penalty");
    let track_of = |weight: i32| {
        let path = file.display();
        format!("[[track]]\nname = \"load\"\nfile = \"{path}\"\ninterval = \"20ms\"\nweight = {weight}")
    };
    let mut pair = pair("\"load\"", &track_of(-1));
    pair.start();
    eventually("there is no file", || track(&pair.a) == (json!(true), json!("no file: 0")));
    assert_eq!(priority(&pair.a), (json!(150), json!(150)));
    fs::write(&file, "60\n").unwrap();
    eventually("the role has moved", || pair.b.is("master", "source") && pair.a.is("backup", "in_sync"));
    assert_eq!((priority(&pair.a).0, tracks(&pair.a)[0]["number"].clone()), (json!(90), json!(60)));
    assert_eq!(
        events(&pair.a, "TrackChanged"),
        [
            "track load (file) is another number: no file: 0; priority 150 of 150 configured",
            "track load (file) is another number: 60; priority 90 of 150 configured"
        ]
    );
    fs::write(&file, "sixty\n").unwrap();
    eventually("what is no number is told", || track(&pair.a).1.as_str().is_some_and(|said| said.contains("sixty")));
    assert_eq!(priority(&pair.a).0, json!(90), "and changes nothing");
    fs::write(&file, "-20").unwrap();
    eventually("and back", || pair.a.is("master", "source") && pair.b.is("backup", "in_sync"));
    assert_eq!(priority(&pair.a).0, json!(170));
    fs::write(&file, "254").unwrap();
    eventually("too much takes the role away", || pair.b.is("master", "source") && pair.a.is("backup", "in_sync"));
    assert_eq!((pair.a.group()["draining"].clone(), priority(&pair.a).0), (json!(["track"]), json!(150)));
    heed(&pair.a, "\"load\"", &track_of(0));
    client::post(&pair.a.socket(), "/v1/reload", &json!({})).unwrap();
    assert_eq!(track(&pair.a).0, json!(false), "with weight 0 any number but 0 is a failure");
    fs::remove_file(&file).unwrap();
    eventually("and back", || pair.a.is("master", "source") && pair.b.is("backup", "in_sync"));
}

#[test]
fn a_script_moves_the_role_by_its_exit_status_and_its_last_line_is_shown() {
    if !root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let healthy = directory.path().join("healthy");
    fs::write(&healthy, "").unwrap();
    let track_of = |limit: &str| {
        format!(
            "[[track]]\nname = \"proxy\"\nscript = [\"/bin/sh\", \"-c\", \"echo looking; test -e $0 && echo well\", \
             \"{}\"]\ninterval = \"20ms\"\ntimeout = \"30s\"\nweight = -100\nfall = {limit}",
            healthy.display()
        )
    };
    let mut pair = pair("\"proxy\"", &track_of("2"));
    pair.start();
    eventually("it is well", || track(&pair.a) == (json!(true), json!("well")));
    fs::remove_file(&healthy).unwrap();
    eventually("the role has moved", || pair.b.is("master", "source") && pair.a.is("backup", "in_sync"));
    assert_eq!(track(&pair.a), (json!(false), json!("exit status: 1: looking")));
    assert_eq!(priority(&pair.a).0, json!(50));
    assert!(tracks(&pair.a)[0]["failures"].as_u64().unwrap() >= 2);
    fs::write(&healthy, "").unwrap();
    eventually("and back", || pair.a.is("master", "source") && pair.b.is("backup", "in_sync"));
    assert_eq!(zombies(&pair.a), 0);
}

/// Children of the daemon that have ended and were not waited for, by their state in /proc.
fn zombies(node: &Node) -> usize {
    let parent = node.process().to_string();
    let is_zombie = |stat: &str| {
        let words: Vec<&str> = stat.rsplit_once(") ").map_or(vec![], |(_, rest)| rest.split(' ').collect());
        words.len() > 1 && words[1] == parent && words[0] == "Z"
    };
    // One that has just ended is one for an instant: it must not stay one.
    let zombies = || -> Vec<u32> {
        let all = fs::read_dir("/proc").unwrap().flatten();
        let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        numbers
            .filter(|n: &u32| is_zombie(&fs::read_to_string(format!("/proc/{n}/stat")).unwrap_or_default()))
            .collect()
    };
    let (first, second) = (zombies(), zombies());
    first.iter().filter(|process| second.contains(process)).filter(|process| zombies().contains(process)).count()
}

#[test]
fn a_script_that_hangs_or_is_not_there_is_down_and_neither_stops_the_loop() {
    if !root() {
        return;
    }
    let mut pair = pair(
        "\"hangs\", \"nowhere\"",
        "[[track]]\nname = \"hangs\"\nscript = [\"/bin/sh\", \"-c\", \"sleep 1000 & wait\"]\ninterval = \"50ms\"\n\
         weight = -1\n[[track]]\nname = \"nowhere\"\nscript = [\"/nowhere/check\"]\ninterval = \"20ms\"\nweight = -2",
    );
    pair.start();
    let outputs = || tracks(&pair.a).iter().map(|track| track["output"].clone()).collect::<Vec<_>>();
    let wanted = ["killed after 50 ms", "cannot be run: No such file or directory (os error 2)"];
    eventually("both are down", || outputs() == wanted);
    eventually("both count", || priority(&pair.a) == (json!(147), json!(150)));
    let seen = || tracks(&pair.a)[1]["not_run"].as_u64().unwrap();
    let before = seen();
    eventually("it is looked at on and on", || seen() > before + 2);
    let told = pair.a.log().lines().filter(|line| line.contains("the check cannot be run")).count();
    assert_eq!(told, 1, "told once");
    assert!(pair.a.is("master", "source"));
}

/// A copy of sleep under a name that no other process has.
struct Sleeper {
    directory: tempfile::TempDir,
    name: String,
    child: Option<Child>,
}

impl Sleeper {
    fn new() -> Self {
        let (directory, name) = (tempfile::tempdir().unwrap(), format!("tracked{}", std::process::id()));
        // Copied by a process that has ended: what a fork of this one still holds open for writing cannot be run (ETXTBSY),
        // and other tests fork at the same time.
        let mut install = Command::new("install");
        install.args(["-m", "755", "/bin/sleep"]).arg(directory.path().join(&name));
        assert!(install.status().unwrap().success());
        Sleeper { directory, name, child: None }
    }

    fn start(&mut self) {
        let mut command = Command::new(self.directory.path().join(&self.name));
        self.child = Some(command.arg("1000").stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap());
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
            let _ = child.wait();
        }
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.stop();
    }
}

#[test]
fn a_process_that_ends_moves_the_role_and_one_that_starts_brings_it_back() {
    if !root() {
        return;
    }
    let mut sleeper = Sleeper::new();
    sleeper.start();
    let text = format!("[[track]]\nname = \"web\"\nprocess = \"{}\"\ninterval = \"20ms\"\nweight = 70", sleeper.name);
    let mut pair = pair("\"web\"", &text);
    // A positive weight is added while it is up: 80 + 70 is above the peer's 100.
    let text = fs::read_to_string(pair.a.configuration()).unwrap();
    pair.a.configure(&text.replace("priority = 150", "priority = 80"));
    pair.start();
    assert_eq!(priority(&pair.a), (json!(150), json!(80)));
    sleeper.stop();
    eventually("the role has moved", || pair.b.is("master", "source") && pair.a.is("backup", "in_sync"));
    assert_eq!((track(&pair.a), priority(&pair.a).0), ((json!(false), json!("no such process")), json!(80)));
    sleeper.start();
    eventually("and back", || pair.a.is("master", "source") && pair.b.is("backup", "in_sync"));
}

/// A server of HTTP in a namespace that answers each request with the status that it is told, until it is dropped.
struct Server {
    well: Arc<AtomicBool>,
}

impl Server {
    fn start(node: &Node, port: u16) -> Self {
        let listener = node.namespace.run(|| TcpListener::bind(("127.0.0.1", port))).unwrap();
        let well = Arc::new(AtomicBool::new(true));
        let told = Arc::downgrade(&well);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(mut stream), Some(well)) = (stream, told.upgrade()) else { return };
                let _ = stream.read(&mut [0; 1024]);
                let status = if well.load(Ordering::Relaxed) { "302 Found" } else { "503 Service Unavailable" };
                let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            }
        });
        Server { well }
    }
}

#[test]
fn a_server_that_answers_badly_moves_the_role_and_a_reload_exchanges_what_is_heeded() {
    if !root() {
        return;
    }
    let text = "[[track]]\nname = \"web\"\nhttp = \"http://127.0.0.1:8080/healthz\"\ninterval = \"20ms\"\n\
                timeout = \"30s\"\nweight = -60\nrise = 2";
    let mut pair = pair("\"web\"", text);
    let server = Server::start(&pair.a, 8080);
    pair.start();
    eventually("it answers", || track(&pair.a) == (json!(true), json!("302 Found")));
    server.well.store(false, Ordering::Relaxed);
    eventually("the role has moved", || pair.b.is("master", "source") && pair.a.is("backup", "in_sync"));
    assert_eq!((track(&pair.a).1, priority(&pair.a).0), (json!("503 Service Unavailable"), json!(90)));
    // Another weight: the state is kept, the priority is another at once.
    let checks = tracks(&pair.a)[0]["checks"].as_u64().unwrap();
    heed(&pair.a, "\"web\"", &text.replace("-60", "-20"));
    let reload = client::post(&pair.a.socket(), "/v1/reload", &json!({})).unwrap();
    assert_eq!(reload["changes"], json!(["track web: weight: -60 is now -20"]));
    eventually("the new weight counts", || priority(&pair.a) == (json!(130), json!(150)));
    assert!(tracks(&pair.a)[0]["checks"].as_u64().unwrap() >= checks);
    eventually("130 is above 100", || pair.a.is("master", "source") && pair.b.is("backup", "in_sync"));
    // A name that is no track's is refused, and nothing has changed.
    heed(&pair.a, "\"wbe\"", text);
    let refusal = client::post(&pair.a.socket(), "/v1/reload", &json!({})).unwrap_err().to_string();
    assert!(refusal.contains("not reloaded"), "{refusal}");
    assert_eq!(priority(&pair.a), (json!(130), json!(150)));
    // Nothing is heeded any more, and so nothing is looked at.
    heed(&pair.a, "", text);
    client::post(&pair.a.socket(), "/v1/reload", &json!({})).unwrap();
    eventually("the configured priority is in force", || priority(&pair.a) == (json!(150), json!(150)));
    assert_eq!(tracks(&pair.a), Vec::<Value>::new());
    server.well.store(true, Ordering::Relaxed);
}
