//! The binary as an operator meets it: texts and exit statuses.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn ssyncp(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ssyncp"));
    command.args(arguments).env_remove("NOTIFY_SOCKET").env_remove("SSYNCP_LOG");
    command
}

fn output(arguments: &[&str]) -> Output {
    ssyncp(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Files(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

/// Answers `count` requests on a socket with the same status and body; the requests' first lines and bodies.
fn answering(
    socket: &Path,
    status: &'static str,
    body: &'static str,
    count: usize,
) -> std::thread::JoinHandle<Vec<String>> {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        (0..count)
            .map(|_| {
                let (stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(&stream);
                let (mut request, mut length) = (String::new(), 0);
                reader.read_line(&mut request).unwrap();
                loop {
                    let mut header = String::new();
                    reader.read_line(&mut header).unwrap();
                    if let Some(value) = header.to_lowercase().strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                    if header == "\r\n" {
                        break;
                    }
                }
                let mut sent = vec![0; length];
                reader.read_exact(&mut sent).unwrap();
                write!(&stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
                format!("{} {}", request.trim(), text(&sent)).trim().to_owned()
            })
            .collect()
    })
}

const GOOD: &str = "[node]\nid = 1\n[[group]]\nsync_id = 51\ninterfaces = [\"eth1\"]\n";

#[test]
fn a_good_configuration_is_ok_and_can_be_shown() {
    let files = Files::new();
    let file = files.write("good.toml", GOOD);
    let checked = output(&["check", "-c", &file]);
    assert_eq!((checked.status.code(), text(&checked.stdout).as_str()), (Some(0), "ok\n"));
    let shown = output(&["check", "-c", &file, "--show"]);
    assert_eq!(shown.status.code(), Some(0));
    let again = files.write("again.toml", &text(&shown.stdout));
    assert_eq!(text(&output(&["check", "-c", &again, "--show"]).stdout), text(&shown.stdout));
}

#[test]
fn every_problem_is_printed_with_file_and_line_and_the_status_is_2() {
    let files = Files::new();
    let file =
        files.write("bad.toml", "[node]\nid = 0\n[[group]]\nsync_id = 51\ninterfaces = []\nadvert_intervall = 5\n");
    let checked = output(&["check", "-c", &file]);
    assert_eq!(checked.status.code(), Some(2));
    assert_eq!(
        text(&checked.stdout).replace(&file, "FILE"),
        "FILE:2: id: 0 is not from 1 to 4294967295\n\
         FILE:5: interfaces: names none; transport \"raw\" needs at least one, as [\"eth1\"]\n\
         FILE:6: unknown key \"advert_intervall\" in [[group]]; did you mean \"advert_interval\"?\n"
    );
    let run = output(&["run", "-c", &file]);
    assert_eq!(run.status.code(), Some(2));
    assert_eq!(text(&run.stderr).lines().count(), 3);
    assert_eq!(output(&["check", "-c", "/nonexistent.toml"]).status.code(), Some(2));
}

#[test]
fn nonsense_on_the_command_line_is_2_and_help_is_0() {
    assert_eq!(output(&["frobnicate"]).status.code(), Some(2));
    assert_eq!(output(&["role", "king"]).status.code(), Some(2));
    assert_eq!(output(&["table", "--protocol", "tpc"]).status.code(), Some(2));
    assert_eq!(output(&[]).status.code(), Some(2));
    let help = output(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    let help = text(&help.stdout);
    assert!(help.contains("Exit status: 0 done, 1 the answer is no"));
    for hidden in ["demo-part", "drill", "explain", "relay"] {
        assert!(!help.lines().any(|line| line.trim_start().starts_with(hidden)), "{hidden}");
    }
}

#[test]
fn a_daemon_that_is_not_there_is_3_with_the_cure() {
    let files = Files::new();
    let socket = files.path("none.sock");
    let socket = socket.to_str().unwrap();
    for arguments in [&["status"][..], &["table"], &["role", "backup"]] {
        let answer = ssyncp(arguments).args(["--socket", socket]).output().unwrap();
        assert_eq!(answer.status.code(), Some(3), "{arguments:?}");
        assert!(text(&answer.stderr).contains("is ssyncp running? name another socket with --socket"));
    }
}

#[test]
fn a_refused_role_is_4_and_a_silent_group_3() {
    let files = Files::new();
    let socket = files.path("control.sock");
    let body = r#"{"schema": "ssyncp.error/1", "error": "group 51: not proven", "reason": "role_refused"}"#;
    let server = answering(&socket, "409 Conflict", body, 1);
    let answer = ssyncp(&["role", "master", "--group", "51", "--socket"]).arg(&socket).output().unwrap();
    assert_eq!(answer.status.code(), Some(4));
    assert_eq!(text(&answer.stderr), "ssyncp: group 51: not proven\n");
    assert_eq!(server.join().unwrap(), [r#"POST /v1/role HTTP/1.1 {"group":51,"role":"master"}"#]);

    let socket = files.path("silent.sock");
    let server =
        answering(&socket, "503 Service Unavailable", r#"{"error": "group 51: the group does not answer"}"#, 1);
    let answer = ssyncp(&["status", "--socket"]).arg(&socket).output().unwrap();
    assert_eq!(answer.status.code(), Some(3));
    server.join().unwrap();
}

#[test]
fn a_granted_role_is_told_in_words() {
    let files = Files::new();
    let socket = files.path("control.sock");
    let body = r#"{"schema": "ssyncp.role/1", "groups": [{"sync_id": 51, "requested": "backup", "role": "master"}]}"#;
    let server = answering(&socket, "200 OK", body, 1);
    let answer = ssyncp(&["role", "backup", "--socket"]).arg(&socket).output().unwrap();
    assert_eq!(
        (answer.status.code(), text(&answer.stdout).as_str()),
        (Some(0), "group 51: backup requested, master now\n")
    );
    assert_eq!(server.join().unwrap(), [r#"POST /v1/role HTTP/1.1 {"role":"backup"}"#]);
}

const FLOWS: &str = r#"{"schema":"ssyncp.flows/1","flows":[{"sync_id":51,"protocol":17,"source":"10.0.0.1","source_port":5353,
    "destination":"192.0.2.10","destination_port":53,"reply_source":"192.0.2.10","reply_source_port":53,
    "reply_destination":"10.0.0.1","reply_destination_port":5353,"state":0,"state_name":null,"status":14,"timeout_s":30,
    "mark":0,"zone":0}],"count":1,"complete":true}"#;

#[test]
fn the_table_is_printed_as_conntrack_prints_it_and_the_filter_is_passed_on() {
    let files = Files::new();
    let socket = files.path("control.sock");
    let server = answering(&socket, "200 OK", FLOWS, 2);
    let table =
        ssyncp(&["table", "-p", "udp", "--port", "53", "--limit", "9", "--socket"]).arg(&socket).output().unwrap();
    assert_eq!(table.status.code(), Some(0));
    assert_eq!(
        text(&table.stdout),
        "udp      17 30 src=10.0.0.1 dst=192.0.2.10 sport=5353 dport=53 \
         src=192.0.2.10 dst=10.0.0.1 sport=53 dport=5353 [ASSURED] mark=0\n"
    );
    assert_eq!(text(&table.stderr), "ssyncp: 1 flow shown\n");
    let json =
        ssyncp(&["table", "--json", "-s", "10.0.0.1", "--group", "51", "--socket"]).arg(&socket).output().unwrap();
    assert_eq!(text(&json.stdout), FLOWS);
    assert_eq!(
        server.join().unwrap(),
        [
            "GET /v1/flows?limit=9&protocol=17&port=53 HTTP/1.1",
            "GET /v1/flows?limit=268435456&source=10.0.0.1&group=51 HTTP/1.1",
        ]
    );
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let files = Files::new();
    let socket = files.path("control.sock");
    // More than a pipe holds.
    let rows = vec![FLOWS.split_once('[').unwrap().1.split_once("],").unwrap().0; 2000].join(",");
    let body = format!("{{\"schema\":\"ssyncp.flows/1\",\"flows\":[{rows}],\"count\":2000,\"complete\":true}}");
    let server = answering(&socket, "200 OK", body.leak(), 1);
    let mut table =
        ssyncp(&["table", "--socket"]).arg(&socket).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(table.stdout.take());
    let finished = table.wait_with_output().unwrap();
    assert_eq!(finished.status.code(), Some(0));
    assert_eq!(text(&finished.stderr), "ssyncp: 2000 flows shown\n");
    server.join().unwrap();
}

/// Status with one group of this role and sync state.
fn status(role: &str, sync: &str) -> &'static str {
    format!(
        r#"{{"schema":"ssyncp.status/1","node":{{"id":1,"name":"lb-a","version":"0.1.0"}},"refused_requests":{{}},"groups":[{{
        "sync_id":51,"role":"{role}","term":7,"priority":100,"master":2,"sync":"{sync}","cold":false,"entries":3,"capacity":10,
        "digest":"0000000000000abc","digest_age_s":0.5,"buckets_unproven":0,"stream_seq":0,"frontier":9,"pending":0,
        "unapplied":0,"link_up":true,"trouble":null,"addresses":[],"peers":[],"counters":{{}},"last_events":[]}}]}}"#
    )
    .leak()
}

#[test]
fn the_status_of_a_ready_node_is_0_and_of_one_that_is_not_1() {
    for (role, sync, code, verdict) in [
        ("backup", "in_sync", 0, "group 51: backup, ready"),
        ("master", "source", 0, "group 51: master, ready"),
        ("backup", "syncing", 1, "group 51: backup, not ready: backup, syncing"),
    ] {
        let files = Files::new();
        let socket = files.path("control.sock");
        let server = answering(&socket, "200 OK", status(role, sync), 2);
        let words = ssyncp(&["status", "--socket"]).arg(&socket).output().unwrap();
        assert_eq!(words.status.code(), Some(code));
        let shown = text(&words.stdout);
        assert!(shown.contains(verdict) && !shown.contains('\x1b'), "{shown}");
        let json = ssyncp(&["status", "--json", "--socket"]).arg(&socket).output().unwrap();
        assert_eq!((json.status.code(), text(&json.stdout).as_str()), (Some(code), status(role, sync)));
        server.join().unwrap();
    }
}

#[test]
fn a_missing_privilege_is_one_line_with_the_cure_and_4() {
    if !nix::unistd::Uid::effective().is_root() {
        println!("skipped: needs root to drop privileges from");
        return;
    }
    let files = Files::new();
    let file = files.write("good.toml", &format!("{GOOD}[control]\nsocket = \"{}\"\n", files.path("c.sock").display()));
    // setpriv of util-linux takes every capability away.
    let run = Command::new("setpriv")
        .args(["--bounding-set=-all", "--inh-caps=-all", env!("CARGO_BIN_EXE_ssyncp"), "run", "-c", &file])
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(4), "{}", text(&run.stderr));
    assert_eq!(
        text(&run.stderr),
        "ssyncp: missing CAP_NET_ADMIN (for source = \"conntrack\") and CAP_NET_RAW (for transport = \"raw\"); \
         run it as root or by its systemd unit, or give it to the program: \
         setcap cap_net_admin,cap_net_raw+ep $(command -v ssyncp)\n"
    );
}
