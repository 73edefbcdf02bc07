//! Hooks and the FIFO, as keepalived's users expect them; and the same script under keepalived itself.

use crate::support::{Node, eventually, ip, root};
use nix::sys::signal::Signal;
use ssyncp::daemon::client;
use ssyncp::sys::namespace::Namespace;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A daemon alone, which needs no rights: its frames stay in its memory, and its flows are invented.
struct Alone {
    directory: tempfile::TempDir,
    child: Option<Child>,
}

impl Alone {
    fn new() -> Self {
        Alone { directory: tempfile::tempdir().unwrap(), child: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A script with this body below `#!/bin/sh`; its path.
    fn script(&self, name: &str, body: &str) -> String {
        script(&self.path(name), body)
    }

    /// With ADVERTs so seldom that a busy machine is not taken for a stall, which would be one more change of role.
    fn configure(&self, more: &str) {
        let socket = self.path("control.sock");
        let text = format!(
            "[node]\nid = 1\nrealtime_priority = 0\n[control]\nsocket = \"{}\"\n[[group]]\nsync_id = 51\n\
             transport = \"memory\"\nsource = \"synthetic\"\nadvert_interval = \"400ms\"\n{more}\n",
            socket.display()
        );
        fs::write(self.path("ssyncp.toml"), text).unwrap();
    }

    fn start(&mut self) {
        let log = fs::File::create(self.path("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ssyncp"));
        command.args(["run", "-c"]).arg(self.path("ssyncp.toml")).stdin(Stdio::null()).stdout(Stdio::null());
        self.child = Some(command.stderr(log).spawn().unwrap());
    }

    fn ssyncp(&self, words: &[&str]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ssyncp"));
        let output = command.args(words).arg("--socket").arg(self.path("control.sock")).output().unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
    }

    fn counter(&self, name: &str) -> u64 {
        let status = client::get(&self.path("control.sock"), "/v1/status").unwrap_or_default();
        status["groups"][0]["counters"][name].as_u64().unwrap_or_default()
    }

    fn events(&self, name: &str) -> Vec<String> {
        let status = client::get(&self.path("control.sock"), "/v1/status").unwrap_or_default();
        let events = status["groups"][0]["last_events"].as_array().cloned().unwrap_or_default();
        let named = events.iter().filter(|event| event["event"] == name);
        named.map(|event| event["text"].as_str().unwrap().to_owned()).collect()
    }

    fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
        assert!(child.wait().unwrap().success());
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.path("log")).unwrap_or_default());
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn script(path: &Path, body: &str) -> String {
    // Written by a process that has ended: a script that a fork of this one still holds open for writing cannot be run
    // (ETXTBSY), and other tests fork at the same time.
    let written = path.with_extension("new");
    fs::write(&written, format!("#!/bin/sh\n{body}\n")).unwrap();
    assert!(Command::new("install").args(["-m", "755"]).arg(&written).arg(path).status().unwrap().success());
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o755);
    path.to_str().unwrap().to_owned()
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn hooks_are_called_one_at_a_time_in_order_with_keepalived_s_words_and_the_end_is_told() {
    let mut node = Alone::new();
    let told = node.path("told");
    // The first hook is slow: the next must not overtake it.
    let slow = node.script("slow", &format!("sleep 0.2; echo backup \"$@\" >> {}", told.display()));
    let all = node.script("all", &format!("echo all \"$@\" >> {}", told.display()));
    let master = node.script("master", &format!("echo master \"$@\" >> {}", told.display()));
    let stop = node.script("stop", &format!("echo stop \"$@\" >> {}", told.display()));
    node.configure(&format!(
        "priority = 150\ninstance = \"VI_51\"\nnotify = [\"{all}\", \"a b\"]\nnotify_backup = [\"{slow}\", \"now\"]\n\
         notify_master = [\"{master}\"]\nnotify_stop = [\"{stop}\"]"
    ));
    node.start();
    eventually("the master's hooks have run", || lines(&told).len() == 4);
    node.stop();
    assert_eq!(
        lines(&told),
        [
            "backup now",
            "all a b INSTANCE VI_51 BACKUP 150",
            "master",
            "all a b INSTANCE VI_51 MASTER 150",
            "stop",
            "all a b INSTANCE VI_51 STOP 150",
        ]
    );
}

#[test]
fn a_hook_that_fails_hangs_or_is_not_there_is_told_and_the_next_one_runs() {
    let mut node = Alone::new();
    let told = node.path("told");
    let hangs = node.script("hangs", "sleep 1000 & wait");
    let all = node.script("all", &format!("echo \"$3\" >> {}; echo no >&2; exit 7", told.display()));
    // Long enough for a script that does not hang, on a busy machine too.
    node.configure(&format!(
        "notify_backup = [\"{hangs}\"]\nnotify_master = [\"/nowhere/hook\"]\nnotify = [\"{all}\"]\nnotify_timeout = \"2s\""
    ));
    node.start();
    eventually("each has been told", || node.events("HookFailed").len() == 4);
    assert_eq!(
        node.events("HookFailed"),
        [
            format!("notify_backup ({hangs}) for BACKUP: killed after 2000 ms"),
            format!("notify ({all}) for BACKUP: exit status: 7: no"),
            "notify_master (/nowhere/hook) for MASTER: cannot be run: No such file or directory (os error 2)"
                .to_owned(),
            format!("notify ({all}) for MASTER: exit status: 7: no"),
        ]
    );
    assert_eq!(lines(&told), ["BACKUP", "MASTER"]);
    assert_eq!((node.counter("notify_hooks_run"), node.counter("notify_hooks_failed")), (4, 4));
}

#[test]
fn a_reader_of_the_fifo_gets_the_state_first_and_then_each_change_and_so_does_the_next_one() {
    let mut node = Alone::new();
    let fifo = node.path("fifo");
    node.configure(&format!("role = \"manual\"\nnotify_fifo = \"{}\"", fifo.display()));
    node.start();
    eventually("the group runs", || client::get(&node.path("control.sock"), "/v1/status").is_ok());
    eventually("the FIFO is made", || fifo.exists());
    assert_eq!(fs::metadata(&fifo).unwrap().permissions().mode() & 0o7777, 0o600);
    node.ssyncp(&["role", "master"]);
    eventually("it is master", || node.events("RoleChanged").iter().any(|text| text.contains("to master")));
    let mut reader = BufReader::new(fs::File::open(&fifo).unwrap()).lines().map(Result::unwrap);
    assert_eq!(reader.next().unwrap(), "INSTANCE \"51\" MASTER 100");
    node.ssyncp(&["role", "backup"]);
    assert_eq!(reader.next().unwrap(), "INSTANCE \"51\" BACKUP 100");
    node.ssyncp(&["role", "master"]);
    assert_eq!(reader.next().unwrap(), "INSTANCE \"51\" MASTER 100");
    drop(reader);
    let mut reader = BufReader::new(fs::File::open(&fifo).unwrap()).lines().map(Result::unwrap);
    // Whoever opens it in the same instant as the last one leaves is the same reader to the kernel: a change then.
    node.ssyncp(&["role", "backup"]);
    let first = reader.next().unwrap();
    if first.contains("MASTER") {
        assert_eq!(reader.next().unwrap(), "INSTANCE \"51\" BACKUP 100");
    } else {
        assert_eq!(first, "INSTANCE \"51\" BACKUP 100");
    }
    node.stop();
    assert_eq!(reader.next().unwrap(), "INSTANCE \"51\" STOP 100");
    assert_eq!(reader.next(), None);
    assert!(fifo.exists(), "it stays for the next start");
}

#[test]
fn something_else_in_the_fifo_s_place_is_told_and_not_touched() {
    let mut node = Alone::new();
    let file = node.path("file");
    fs::write(&file, "mine").unwrap();
    node.configure(&format!("notify_fifo = \"{}\"", file.display()));
    node.start();
    eventually("it is told", || !node.events("HookFailed").is_empty());
    assert_eq!(
        node.events("HookFailed"),
        [format!("notify_fifo {}: it is no FIFO; remove it, or name another", file.display())]
    );
    node.stop();
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
}

#[test]
fn a_reload_exchanges_the_hooks() {
    let mut node = Alone::new();
    let told = node.path("told");
    let [one, two] = ["one", "two"].map(|name| node.script(name, &format!("echo {name} \"$3\" >> {}", told.display())));
    node.configure(&format!("role = \"manual\"\nnotify = [\"{one}\"]"));
    node.start();
    eventually("the first is called", || lines(&told) == ["one BACKUP"]);
    node.configure(&format!("role = \"manual\"\nnotify = [\"{two}\"]"));
    node.ssyncp(&["reload"]);
    node.ssyncp(&["role", "master"]);
    eventually("the second is called", || lines(&told) == ["one BACKUP", "two MASTER"]);
    node.configure("role = \"manual\"");
    node.ssyncp(&["reload"]);
    node.stop();
    assert_eq!(lines(&told).len(), 2);
}

/// A group whose sync link is missing can take no role: keepalived calls that FAULT.
#[test]
fn a_group_that_waits_for_its_link_is_in_fault() {
    if !root() {
        return;
    }
    let mut node = Node::new('a', 150, "");
    let told = node.configuration().with_file_name("told");
    let hook = script(&node.configuration().with_file_name("hook"), &format!("echo \"$@\" >> {}", told.display()));
    let text = fs::read_to_string(node.configuration()).unwrap();
    node.configure(&format!("{text}notify = [\"{hook}\"]\n"));
    node.start();
    eventually("FAULT", || lines(&told) == ["INSTANCE 51 FAULT 150"]);
    ip(&node.namespace, "link add sa type veth peer name sa0\nlink set sa0 up\nlink set sa up");
    eventually("the role is taken", || lines(&told).len() == 3);
    node.end(Signal::SIGTERM);
    let words = lines(&told);
    assert_eq!(words[1..], ["INSTANCE 51 BACKUP 150", "INSTANCE 51 MASTER 150", "INSTANCE 51 STOP 150"]);
}

/// The same script, the same FIFO, the same life (start, master, end): keepalived's calls and lines, and ours.
#[test]
fn a_script_and_a_fifo_of_keepalived_are_told_the_same_words_by_ssyncp() {
    if !root() {
        return;
    }
    if Command::new("keepalived").arg("--version").output().is_err() {
        println!("skipped: needs the program keepalived");
        return;
    }
    let theirs = life_of_keepalived();
    let ours = life_of_ssyncp();
    // keepalived does not wait for one hook before it calls the next, so their order is its own affair; the words are not.
    let sorted = |calls: &[String]| {
        let mut calls = calls.to_vec();
        calls.sort();
        calls
    };
    assert_eq!(sorted(&ours.calls), sorted(&theirs.calls), "calls of the hooks");
    assert_eq!(ours.lines, theirs.lines, "lines of the FIFO");
    assert_eq!(
        ours.lines,
        ["INSTANCE \"VI_51\" BACKUP 150", "INSTANCE \"VI_51\" MASTER 150", "INSTANCE \"VI_51\" STOP 150"]
    );
    assert_eq!(ours.calls.len(), 6);
}

/// What one life told.
struct Life {
    calls: Vec<String>,
    lines: Vec<String>,
}

/// One script that notes its name and its arguments, under four names; and a FIFO.
struct Witness {
    directory: tempfile::TempDir,
}

impl Witness {
    fn new() -> Self {
        let witness = Witness { directory: tempfile::tempdir().unwrap() };
        for name in ["all", "master", "backup", "stop"] {
            // Noted in one write, because keepalived runs several at once.
            script(
                &witness.path(name),
                &format!("echo \"$(basename \"$0\") $# $*\" >> {}", witness.path("calls").display()),
            );
        }
        nix::unistd::mkfifo(&witness.path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        witness
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Reads the FIFO until the writer has gone; lets it end after it has told of a master and the hooks were called.
    fn watch(&self, end: impl FnOnce()) -> Life {
        // Opened for both: a reader that is there before any writer, and that sees no end between two.
        let file = fs::File::options().read(true).write(true).open(self.path("fifo")).unwrap();
        let mut reader = BufReader::new(file).lines().map(Result::unwrap);
        let mut lines = Vec::new();
        while !lines.last().is_some_and(|line: &String| line.contains("MASTER")) {
            lines.push(reader.next().unwrap());
        }
        eventually("four hooks were called", || self.calls().len() == 4);
        end();
        while !lines.last().is_some_and(|line: &String| line.contains("STOP")) {
            lines.push(reader.next().unwrap());
        }
        eventually("six hooks were called", || self.calls().len() == 6);
        Life { calls: self.calls(), lines }
    }

    fn calls(&self) -> Vec<String> {
        lines(&self.path("calls"))
    }
}

/// An empty machine with the interface `sa`, which has a carrier.
fn machine() -> Namespace {
    let machine = Namespace::create().unwrap();
    ip(
        &machine,
        "link set lo up
         link add sa type veth peer name sa0
         link set sa0 up
         link set sa up
         address add 10.255.0.1/24 dev sa",
    );
    machine
}

fn life_of_keepalived() -> Life {
    let (machine, witness) = (machine(), Witness::new());
    let path = |name| witness.path(name).display().to_string();
    let text = format!(
        "global_defs {{\n script_user root\n vrrp_notify_fifo {fifo}\n}}\n\
         vrrp_instance VI_51 {{\n state BACKUP\n interface sa\n virtual_router_id 51\n priority 150\n advert_int 1\n\
         virtual_ipaddress {{\n 192.0.2.10/24 dev sa\n }}\n notify \"{all} more\"\n notify_master \"{master} m\"\n\
         notify_backup {backup}\n notify_stop {stop}\n}}\n",
        fifo = path("fifo"),
        all = path("all"),
        master = path("master"),
        backup = path("backup"),
        stop = path("stop"),
    );
    fs::write(witness.path("keepalived.conf"), text).unwrap();
    let mut command = machine.command("keepalived").unwrap();
    command.args(["--dont-fork", "--log-console", "--vrrp", "--use-file"]).arg(witness.path("keepalived.conf"));
    for (option, file) in [("--pid", "pid"), ("--vrrp_pid", "vrrp_pid"), ("--checkers_pid", "checkers_pid")] {
        command.arg(option).arg(witness.path(file));
    }
    let log = fs::File::create(witness.path("log")).unwrap();
    let mut child = Killed(command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    let process = nix::unistd::Pid::from_raw(child.0.id() as i32);
    let life = witness.watch(|| nix::sys::signal::kill(process, Signal::SIGTERM).unwrap());
    child.0.wait().unwrap();
    life
}

/// A child that does not outlive a test that fails.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn life_of_ssyncp() -> Life {
    let witness = Witness::new();
    let path = |name| witness.path(name).display().to_string();
    let mut node = Node::new('a', 150, "");
    let text = fs::read_to_string(node.configuration()).unwrap();
    node.configure(&format!(
        "{text}instance = \"VI_51\"\nnotify = [\"{}\", \"more\"]\nnotify_master = [\"{}\", \"m\"]\n\
         notify_backup = [\"{}\"]\nnotify_stop = [\"{}\"]\nnotify_fifo = \"{}\"\n",
        path("all"),
        path("master"),
        path("backup"),
        path("stop"),
        path("fifo"),
    ));
    ip(&node.namespace, "link add sa type veth peer name sa0\nlink set sa0 up\nlink set sa up");
    node.start();
    witness.watch(|| {
        node.end(Signal::SIGTERM);
    })
}
