//! The daemon gives up what it does not need: asked of the kernel, in /proc, while it does its work.

use crate::support::{Node, Pair, eventually, root};
use nix::sys::signal::Signal;
use std::fs;

/// One line of /proc/PID/status.
fn line(node: &Node, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{}/status", node.process())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).trim().to_owned()
}

/// What the status says of the sandbox.
fn sandbox(node: &Node) -> serde_json::Value {
    node.ask("/v1/status").unwrap()["sandbox"].clone()
}

#[test]
fn root_keeps_three_capabilities_and_every_thread_is_held_in_while_a_pair_does_its_work() {
    if !root() {
        return;
    }
    let mut pair = Pair::new("");
    pair.start();
    pair.settle();
    let node = &pair.a;
    // 12 CAP_NET_ADMIN, 13 CAP_NET_RAW, 23 CAP_SYS_NICE.
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(line(node, set), "0000000000803000", "{set}");
    }
    assert_eq!((line(node, "CapInh"), line(node, "CapAmb")), ("0000000000000000".into(), "0000000000000000".into()));
    let threads: Vec<_> = fs::read_dir(format!("/proc/{}/task", node.process())).unwrap().flatten().collect();
    assert!(threads.len() >= 4, "{}", threads.len());
    for thread in threads {
        let status = fs::read_to_string(thread.path().join("status")).unwrap();
        for wanted in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000803000"] {
            assert!(status.contains(wanted), "{wanted}: {status}");
        }
    }
    let said = sandbox(node);
    assert_eq!(said["no_new_privileges"]["applied"], true, "{said}");
    assert_eq!(said["system_calls"]["applied"], true, "{said}");
    let names: Vec<_> = said["capabilities"].as_array().unwrap().iter().map(|row| row["name"].clone()).collect();
    assert_eq!(names, ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_NICE"]);

    // It commits, takes over and removes what it has put up, held in as it is.
    pair.a.connect(0..200);
    pair.until_equal(200);
    pair.a.end(Signal::SIGKILL);
    eventually("b is master", || pair.b.is("master", "source"));
    eventually("b holds the address", || pair.b.holds_the_address());
}

/// Capabilities are each thread's own, and CAP_BPF (39) opens a sync link, which only a group's thread does: once it is open
/// nobody has it. A tap has a thread, too.
#[test]
fn over_af_xdp_no_thread_can_load_a_program_once_the_links_are_open() {
    if !root() {
        return;
    }
    let taps = tempfile::tempdir().unwrap();
    let tap = taps.path().join("sync.pcap");
    let mut pair = Pair::new(&format!("transport = \"xdp\"\ntap = \"{}\"", tap.display()));
    pair.start();
    let node = &pair.a;
    let links = node.group()["links"].clone();
    assert!(links[0]["transport"].as_str().unwrap().starts_with("xdp"), "{links}");
    let threads = || {
        let threads = fs::read_dir(format!("/proc/{}/task", node.process())).unwrap().flatten();
        let read = |name: &str, thread: &fs::DirEntry| fs::read_to_string(thread.path().join(name)).unwrap();
        let set = |status: &str, name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
            u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
        };
        let mut threads: Vec<_> = threads
            .map(|thread| {
                let status = read("status", &thread);
                let sets = ["CapEff", "CapPrm", "CapInh", "CapAmb"].map(|name| set(&status, name));
                (read("comm", &thread).trim().to_owned(), sets)
            })
            .collect();
        threads.sort();
        threads
    };
    eventually("the main thread has given it up", || {
        threads().iter().all(|(_, sets)| sets.iter().all(|set| set & 1 << 39 == 0))
    });
    let threads = threads();
    let names: Vec<_> = threads.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["errands", "group-51", "http", "ssyncp", "takeover-51", "tap"]);
    // 12 CAP_NET_ADMIN, 13 CAP_NET_RAW, 14 CAP_IPC_LOCK, 23 CAP_SYS_NICE.
    assert!(threads.iter().all(|(_, sets)| *sets == [0x80_7000, 0x80_7000, 0, 0]), "{threads:x?}");
    // Who starts groups cannot open another such link, and says so; what runs goes on.
    let text = fs::read_to_string(node.configuration()).unwrap();
    let other =
        "sync_id = 52\ninterfaces = [\"sa\"]\ngroup = \"224.0.0.82\"\ntransport = \"xdp\"\nsource = \"synthetic\"";
    node.configure(&format!("{text}\n[[group]]\n{other}\n"));
    node.tell(Signal::SIGHUP);
    let mut said = String::new();
    eventually("the reload is refused", || {
        said = node.ask("/v1/status").map_or_else(String::new, |status| status["reload"]["text"].to_string());
        !said.is_empty() && said != "null"
    });
    assert!(said.contains("needs a restart: this daemon has given up CAP_BPF"), "{said}");
    assert!(node.is("master", "source"), "{said}");
    pair.a.connect(0..50);
    pair.until_equal(50);
}

#[test]
fn a_hook_is_the_operators_and_keeps_the_rights_that_it_had() {
    if !root() {
        return;
    }
    let told = tempfile::tempdir().unwrap();
    let file = told.path().join("rights");
    let hook = format!("notify_backup = [\"/bin/sh\", \"-c\", \"grep CapEff /proc/self/status > {}\"]", file.display());
    let mut pair = Pair::new(&hook);
    pair.start();
    pair.settle();
    let node = &pair.a;
    let mine = fs::read_to_string("/proc/self/status").unwrap();
    let mine = mine.lines().find(|line| line.starts_with("CapEff:")).unwrap().to_owned();
    eventually("the hook has told its rights", || fs::read_to_string(&file).is_ok_and(|text| text.trim_end() == mine));
    assert_eq!(line(node, "CapEff"), "0000000000803000");
    assert_eq!((line(node, "NoNewPrivs"), line(node, "Seccomp")), ("0".into(), "0".into()));
    let said = sandbox(node);
    assert_eq!(said["files"]["applied"], false);
    let reason = said["files"]["reason"].as_str().unwrap();
    assert!(reason.starts_with("the configuration names programs"), "{reason}");
}

#[test]
fn a_reload_that_asks_for_more_than_is_left_is_refused_with_every_reason() {
    if !root() {
        return;
    }
    let mut pair = Pair::new("");
    pair.start();
    pair.settle();
    let text = fs::read_to_string(pair.a.configuration()).unwrap();
    pair.a.configure(&format!("{text}\nnotify = [\"/bin/true\"]\n"));
    pair.a.tell(Signal::SIGHUP);
    eventually("the reload is refused", || {
        pair.a.ask("/v1/status").is_some_and(|status| {
            let reload = status["reload"]["text"].as_str().unwrap_or_default().to_owned();
            reload.contains("needs a restart: the sandbox of this daemon lets it run no program (hooks, scripts)")
        })
    });
    assert!(pair.a.is("master", "source"));
}
