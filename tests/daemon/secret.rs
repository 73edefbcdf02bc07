//! A daemon with a secret: what it takes for one, what a reload does with it, and that it appears nowhere: not in what any
//! command or call says, not in the log at its most talkative, not in a core dump, and not in the memory of the process.

use crate::support::{eventually, root};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use ssyncp::daemon::client;
use std::fs::{self, File, Permissions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// The secret that is looked for, and its Base64 (RFC 4648).
const SECRET: &str = "5a1fc09b7e3386d24417f0aa91cce5037bd86e1240f95b3cb7812a6f0d94e3c8";
const BASE64: &str = "Wh/Am34zhtJEF/CqkczlA3vYbhJA+Vs8t4Eqbw2U48g=";
/// Another one.
const OTHER: &str = "c3d0418f5be92a7610ff86b4e37dc15a2298047ed13b6fa5c8e6905b71f2ad34";
/// Bytes of a part that is looked for by itself: a copy that was written over in half is a leak, too.
const PART: usize = 8;

/// What must not be found: each part of the secret as bytes, as hexadecimal digits of both cases, as Base64 and as a list.
fn needles() -> Vec<Vec<u8>> {
    let bytes: Vec<u8> = (0..32).map(|at| u8::from_str_radix(&SECRET[2 * at..2 * at + 2], 16).unwrap()).collect();
    let list: Vec<String> = bytes.iter().map(u8::to_string).collect();
    let mut needles: Vec<Vec<u8>> = bytes.chunks(PART).map(<[u8]>::to_vec).collect();
    for digits in SECRET.as_bytes().chunks(2 * PART) {
        needles.push(digits.to_vec());
        needles.push(digits.to_ascii_uppercase());
    }
    needles.extend(BASE64.as_bytes()[..40].chunks(10).map(<[u8]>::to_vec));
    needles.push(list[..4].join(", ").into_bytes());
    needles
}

/// Which of the needles is in there, and where.
fn found(hay: &[u8], needles: &[Vec<u8>]) -> Option<(usize, Vec<u8>)> {
    let mut begins = [false; 256];
    needles.iter().for_each(|needle| begins[usize::from(needle[0])] = true);
    let candidates = hay.iter().enumerate().filter(|(_, byte)| begins[usize::from(**byte)]);
    let at = |at: usize| needles.iter().find(|needle| hay[at..].starts_with(needle)).map(|needle| (at, needle.clone()));
    candidates.map(|(place, _)| place).find_map(at)
}

/// A daemon alone, whose frames stay in its memory and whose flows are invented.
struct Alone {
    directory: tempfile::TempDir,
    child: Option<Child>,
    /// Everything that was said, by whom.
    said: Vec<(String, Vec<u8>)>,
}

impl Alone {
    fn new() -> Self {
        let alone = Alone { directory: tempfile::tempdir().unwrap(), child: None, said: Vec::new() };
        alone.write_secret(&format!("0 {SECRET}\n"));
        alone.configure(&alone.keys());
        alone
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn keys(&self) -> String {
        format!("secret_file = \"{}\"\n", self.path("secret").display())
    }

    fn write_secret(&self, text: &str) {
        fs::write(self.path("secret"), text).unwrap();
        fs::set_permissions(self.path("secret"), Permissions::from_mode(0o600)).unwrap();
    }

    /// With ADVERTs so seldom that a busy machine is not taken for a stall, which would be one more change of role.
    fn configure(&self, node: &str) {
        let text = format!(
            "[node]\nid = 1\nrealtime_priority = 0\n{node}[control]\nsocket = \"{}\"\n[[group]]\nsync_id = 51\n\
             transport = \"memory\"\nsource = \"synthetic\"\nadvert_interval = \"400ms\"\ncapacity = 1000\nhistory = 16\n\
             tap = \"{}\"\n",
            self.socket().display(),
            self.path("sync.pcap").display()
        );
        fs::write(self.path("ssyncp.toml"), text).unwrap();
    }

    fn socket(&self) -> PathBuf {
        self.path("control.sock")
    }

    /// Starts it, at its most talkative, with cores as large as they like.
    fn start(&mut self) {
        self.start_by("ulimit -c unlimited; exec", &[]);
    }

    /// The same by a shell's words before the command, and with these in its environment.
    fn start_by(&mut self, words: &str, environment: &[(&str, &Path)]) {
        let log = File::options().create(true).append(true).open(self.path("log")).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{words} \"$0\" run -c \"$1\""), env!("CARGO_BIN_EXE_ssyncp")]);
        command.envs(environment.iter().copied());
        command.arg(self.path("ssyncp.toml")).current_dir(self.directory.path());
        command.envs([("SSYNCP_LOG", "trace"), ("RUST_LOG", "trace"), ("RUST_BACKTRACE", "full")]);
        self.child = Some(command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        eventually("its group is master", || client::get(&self.socket(), "/readyz").is_ok());
    }

    fn process(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    fn note(&mut self, by: &str, what: Vec<u8>) {
        self.said.push((by.to_owned(), what));
    }

    /// A command; what it says is kept.
    fn ssyncp(&mut self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ssyncp"));
        let output = command.args(arguments).current_dir(self.directory.path()).output().unwrap();
        self.note(&arguments.join(" "), [output.stdout.clone(), output.stderr.clone()].concat());
        output
    }

    /// The same, told to talk to this daemon.
    fn ask(&mut self, arguments: &[&str]) -> Output {
        let socket = self.socket().display().to_string();
        self.ssyncp(&[arguments, &["--socket", &socket]].concat())
    }

    fn term(&self) -> Value {
        client::get(&self.socket(), "/v1/status").unwrap()["groups"][0]["term"].clone()
    }

    fn seal(&self) -> Value {
        client::get(&self.socket(), "/v1/status").unwrap()["groups"][0]["seal"].clone()
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

fn words(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_reload_takes_other_secrets_and_a_bad_file_keeps_the_old_ones_with_every_reason_said() {
    let mut node = Alone::new();
    node.start();
    assert_eq!(
        (&node.seal()["secrets"], &node.seal()["seals_with"], &node.seal()["auth"]),
        (&json!([0]), &json!(0), &json!("enforce"))
    );
    let before = (node.seal(), node.term());
    node.write_secret(&format!("0 {SECRET}\n0 {OTHER}\n7 zz\n1 {}\n", "00".repeat(32)));
    fs::set_permissions(node.path("secret"), Permissions::from_mode(0o600)).unwrap();
    let reload = node.ask(&["reload"]);
    assert_eq!(reload.status.code(), Some(2));
    let file = node.path("secret").display().to_string();
    let toml = node.path("ssyncp.toml").display().to_string();
    let said = words(&reload.stderr).replace(&file, "SECRET").replace(&toml, "TOML");
    assert_eq!(
        said,
        "ssyncp: not reloaded, the old settings stay in force\n\
         ssyncp: TOML:4: secret_file: SECRET:2: the number 0 stands in line 1 too; give each secret its own, on all nodes the same\n\
         ssyncp: TOML:4: secret_file: SECRET:3: begins with no number from 0 to 3; write one before the secret, on all nodes the same\n\
         ssyncp: TOML:4: secret_file: SECRET:4: its bytes only count: it can be guessed; make one with ssyncp keygen\n"
    );
    let check = node.ssyncp(&["check", "-c", &toml]);
    assert_eq!((check.status.code(), words(&check.stdout).lines().count()), (Some(2), 3));
    // Another secret under the number of the old one: the peers would be cut off.
    node.write_secret(&format!("0 {OTHER}\n"));
    let reload = node.ask(&["reload"]);
    assert_eq!(reload.status.code(), Some(4));
    assert!(words(&reload.stderr).contains("secret 0 is another one than before, and the peers have the old one"));
    node.write_secret(&format!("1 {OTHER}\n0 {SECRET}\n"));
    fs::set_permissions(node.path("secret"), Permissions::from_mode(0o644)).unwrap();
    assert_eq!(node.ask(&["reload"]).status.code(), Some(2));
    assert_eq!((node.seal(), node.term()), before);

    fs::set_permissions(node.path("secret"), Permissions::from_mode(0o600)).unwrap();
    let reload = node.ask(&["reload"]);
    assert_eq!((reload.status.code(), words(&reload.stdout).as_str()), (Some(0), "[node]: secrets: 0 is now 1, 0\n"));
    assert_eq!((&node.seal()["secrets"], &node.seal()["seals_with"]), (&json!([1, 0]), &json!(1)));
    node.configure(&format!("{}auth = \"permissive\"\n", node.keys()));
    let reload = node.ask(&["reload"]);
    assert_eq!(words(&reload.stdout), "[node]: auth: \"enforce\" is now \"permissive\"\n");
    assert!(
        fs::read_to_string(node.path("log"))
            .unwrap()
            .contains("auth = \"permissive\": frames that are not sealed are taken")
    );
    assert_eq!(node.term(), before.1);
    // A credential that systemd has not handed over.
    node.configure("secret_file = \"credential:ssyncp-secret\"\n");
    let reload = node.ask(&["reload"]);
    assert!(words(&reload.stderr).contains("credential:ssyncp-secret: CREDENTIALS_DIRECTORY is not set"));
}

#[test]
fn keygen_prints_one_line_or_makes_a_file_that_check_takes_and_says_what_is_next() {
    let directory = tempfile::tempdir().unwrap();
    let keygen = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ssyncp"));
        let output = command.arg("keygen").args(arguments).current_dir(directory.path()).output().unwrap();
        (output.status.code(), words(&output.stdout), words(&output.stderr))
    };
    let (status, line, next) = keygen(&["--number", "3"]);
    assert_eq!((status, line.len(), line.starts_with("3 ")), (Some(0), 67, true));
    assert!(next.contains("this line is a secret") && !next.contains(line[2..].trim()));
    let file = directory.path().join("secret").display().to_string();
    let (status, said, complaint) = keygen(&["secret"]);
    assert_eq!((status, complaint.as_str()), (Some(0), ""));
    assert!(said.contains(&format!("secret_file = \"{file}\"")), "{said}");
    assert_eq!(keygen(&["secret"]).0, Some(4), "never over another");
    assert_eq!(keygen(&["--add", "secret"]).0, Some(0));
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!((text.lines().count(), &text[..2], &text[67..69]), (2, "0 ", "1 "));
    assert_eq!(keygen(&["--add", "--number", "1", "secret"]).0, Some(4));
    assert_eq!(keygen(&["--add", "none"]).0, Some(2));
    assert_eq!([keygen(&["--add"]).0, keygen(&["--number", "4"]).0], [Some(2); 2]);
}

#[test]
fn a_credential_is_read_from_where_systemd_says() {
    let mut node = Alone::new();
    fs::rename(node.path("secret"), node.path("ssyncp-secret")).unwrap();
    fs::set_permissions(node.path("ssyncp-secret"), Permissions::from_mode(0o440)).unwrap();
    node.configure("secret_file = \"credential:ssyncp-secret\"\n");
    let mut check = Command::new(env!("CARGO_BIN_EXE_ssyncp"));
    check.arg("check").arg("-c").arg(node.path("ssyncp.toml")).env("CREDENTIALS_DIRECTORY", node.directory.path());
    assert_eq!(words(&check.output().unwrap().stdout), "ok\n");
    let without = node.ssyncp(&["check", "-c", "ssyncp.toml"]);
    assert_eq!(without.status.code(), Some(2));
    // As systemd.exec(5) says that it is: a folder of its own that nobody may write to, and files that nobody may change.
    let folder = node.path("credentials");
    fs::create_dir(&folder).unwrap();
    fs::copy(node.path("ssyncp-secret"), folder.join("ssyncp-secret")).unwrap();
    fs::set_permissions(folder.join("ssyncp-secret"), Permissions::from_mode(0o400)).unwrap();
    fs::set_permissions(&folder, Permissions::from_mode(0o500)).unwrap();
    node.start_by("exec", &[("CREDENTIALS_DIRECTORY", folder.as_path())]);
    assert_eq!((&node.seal()["seals_with"], &node.seal()["auth"]), (&json!(0), &json!("enforce")));
    assert_eq!(words(&node.ask(&["reload"]).stdout), "nothing has changed\n", "it is still there");
    fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
}

/// KiB that are kept out of swap.
fn locked_kb(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse().unwrap()
}

#[test]
fn keys_are_kept_out_of_swap_and_where_they_cannot_be_it_is_said_with_the_cure() {
    let swap = |node: &Alone| client::get(&node.socket(), "/v1/status").unwrap()["swap"].clone();
    let mut plain = Alone::new();
    plain.configure("");
    plain.start();
    assert_eq!((swap(&plain), locked_kb(plain.process())), (Value::Null, 0), "there is nothing to hide");
    if !root() {
        return;
    }
    // What comes later is kept out where the right to do so is still there; else that is said.
    plain.configure(&plain.keys());
    assert_eq!(plain.ask(&["reload"]).status.code(), Some(0));
    assert_eq!(swap(&plain)["locked"], swap(&plain)["problem"].is_null());
    let mut node = Alone::new();
    node.start();
    assert_eq!(swap(&node), json!({ "locked": true, "problem": null }));
    if cfg!(sanitized) {
        return println!("skipped: with address sanitizer mlockall does nothing");
    }
    assert!(locked_kb(node.process()) > 4096);

    // A limit goes for nobody who has the right to lock: such a user is the daemon's own, and keeps it in all threads, as each
    // of them allocates.
    let mut user = Alone::new();
    for path in [user.directory.path(), &user.path("secret"), &user.path("ssyncp.toml")] {
        nix::unistd::chown(path, Some(nix::unistd::Uid::from_raw(65534)), Some(nix::unistd::Gid::from_raw(65534)))
            .unwrap();
    }
    let right = "--inh-caps=-all,+ipc_lock --ambient-caps=-all,+ipc_lock --bounding-set=-all,+ipc_lock";
    user.start_by(&format!("ulimit -l 64; exec setpriv --reuid=65534 --regid=65534 --clear-groups {right}"), &[]);
    assert_eq!(swap(&user), json!({ "locked": true, "problem": null }));
    assert!(locked_kb(user.process()) > 4096);
    for thread in fs::read_dir(format!("/proc/{}/task", user.process())).unwrap().flatten() {
        let status = fs::read_to_string(thread.path().join("status")).unwrap();
        assert!(status.contains("CapEff:\t0000000000004000"), "{status}");
    }
    assert_eq!(user.ask(&["reload"]).status.code(), Some(0));

    let mut poor = Alone::new();
    let rights = "setpriv --bounding-set=-sys_resource,-ipc_lock --inh-caps=-sys_resource,-ipc_lock";
    poor.start_by(&format!("ulimit -l 64; exec {rights}"), &[]);
    let problem = swap(&poor)["problem"].as_str().unwrap().to_owned();
    assert!(problem.contains("Operation not permitted") && problem.contains("LimitMEMLOCK=infinity"), "{problem}");
    assert_eq!((&swap(&poor)["locked"], locked_kb(poor.process())), (&json!(false), 0));
    assert!(fs::read_to_string(poor.path("log")).unwrap().contains("keys may be written to swap: "));
    assert!(words(&poor.ask(&["status"]).stdout).contains("keys may be written to swap: "));
    // And it works all the same.
    assert_eq!(poor.ask(&["reload"]).status.code(), Some(0));
}

#[test]
fn a_reload_from_nothing_to_enforce_warns_with_the_cure_and_is_done() {
    let mut node = Alone::new();
    node.configure("");
    node.start();
    node.configure(&node.keys());
    let reload = node.ask(&["reload"]);
    assert_eq!(reload.status.code(), Some(0));
    let warning = words(&reload.stderr);
    assert!(
        warning.starts_with("ssyncp: warning: [node]: auth is \"enforce\", and nothing was sealed before"),
        "{warning}"
    );
    assert!(warning.contains("Write auth = \"permissive\" on every node"), "{warning}");
    assert!(fs::read_to_string(node.path("log")).unwrap().contains("nothing was sealed before"));
    let socket = node.socket();
    node.configure(&format!("{}auth = \"permissive\"\n", node.keys()));
    let answer = client::post(&socket, "/v1/reload", &json!({})).unwrap();
    assert_eq!(answer["warnings"].as_array().unwrap().len(), 1, "{answer}");
    assert!(answer["warnings"][0].as_str().unwrap().starts_with("auth = \"permissive\": frames that are not sealed"));
}

/// Every call that reads, and every command.
fn ask_everything(node: &mut Alone) {
    for path in
        ["/v1/status", "/v1/config", "/v1/peers", "/v1/flows", "/v1/openapi.json", "/metrics", "/readyz", "/nowhere"]
    {
        let answer = client::fetch(&node.socket(), path).map(|bytes| bytes.to_vec());
        node.note(path, answer.unwrap_or_else(|error| format!("{error} {error:?}").into_bytes()));
    }
    let mut events = Vec::new();
    client::follow(&node.socket(), "/v1/events", |data| {
        events.extend_from_slice(data.unwrap_or_default().as_bytes());
        false
    })
    .unwrap();
    node.note("/v1/events", events);
    for command in [&["status"][..], &["status", "--json"], &["peers", "--json"], &["config"], &["config", "--json"]] {
        node.ask(command);
    }
    for more in [&[][..], &["--show"], &["--json", "--show"]] {
        node.ssyncp(&[&["check", "-c", "ssyncp.toml"], more].concat());
    }
}

/// Files that hold the secret in some wrong way, and configurations that hold it at all.
fn make_every_mistake(node: &mut Alone) {
    for text in [
        format!("{SECRET}\n"),
        format!("0 {SECRET} {SECRET}\n"),
        format!("9 {SECRET}\n"),
        format!("0 {SECRET}00\n"),
        format!("0 x{}\n", &SECRET[1..]),
        format!("0 {SECRET}\n1 {SECRET}\n0 {OTHER}\n"),
        format!("0={SECRET}"),
    ] {
        node.write_secret(&text);
        assert_eq!(node.ssyncp(&["check", "-c", "ssyncp.toml"]).status.code(), Some(2), "a mistake");
        assert_eq!(node.ask(&["reload"]).status.code(), Some(2), "a mistake");
    }
    node.write_secret(&format!("0 {SECRET}\n"));
    for keys in [
        format!("secret_file = \"{SECRET}\"\n"),
        format!("secret_file = \"0 {SECRET}\"\n"),
        format!("secret_file = \"credential:{SECRET}!\"\n"),
        format!("secret_file = [\"{SECRET}\"]\n"),
        format!("secret = \"{SECRET}\"\n"),
    ] {
        node.configure(&keys);
        assert_eq!(node.ssyncp(&["check", "-c", "ssyncp.toml"]).status.code(), Some(2), "a mistake");
        assert_eq!(node.ask(&["reload"]).status.code(), Some(2), "a mistake");
    }
    node.configure(&node.keys());
    // The one file for the other.
    assert_eq!(node.ssyncp(&["check", "-c", "secret"]).status.code(), Some(2));
    assert_eq!(node.ssyncp(&["run", "-c", "secret"]).status.code(), Some(2));
}

/// Every part of a process's memory that can be read; nothing if this is not root.
fn memory(process: u32) -> Vec<(String, Vec<u8>)> {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let mut memory = File::open(format!("/proc/{process}/mem")).unwrap();
    let mut regions = Vec::new();
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|rights| rights.starts_with("rw"))) {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|number| u64::from_str_radix(number, 16).unwrap());
        let mut bytes = vec![0; (to - from) as usize];
        memory.seek(SeekFrom::Start(from)).unwrap();
        // What was never touched may not be there.
        if memory.read_exact(&mut bytes).is_ok() {
            regions.push((line.to_owned(), bytes));
        }
    }
    regions
}

#[test]
fn the_secret_appears_nowhere_but_in_its_file() {
    let mut node = Alone::new();
    let needles = needles();
    assert_eq!(found(format!("x{}", &SECRET[16..32]).as_bytes(), &needles).map(|(at, _)| at), Some(1), "it is found");
    node.start();
    ask_everything(&mut node);
    make_every_mistake(&mut node);
    assert_eq!(node.ask(&["reload"]).status.code(), Some(0));
    node.write_secret(&format!("0 {SECRET}\n1 {OTHER}\n"));
    assert_eq!(node.ask(&["reload"]).status.code(), Some(0));
    ask_everything(&mut node);
    for file in ["environ", "cmdline", "status"] {
        let text = fs::read(format!("/proc/{}/{file}", node.process())).unwrap_or_default();
        node.note(file, text);
    }
    eventually("the tap has frames", || fs::metadata(node.path("sync.pcap")).is_ok_and(|tap| tap.len() > 10_000));
    let tap = fs::read(node.path("sync.pcap")).unwrap();
    node.note("the tap", tap);
    let decoded = node.ssyncp(&["decode", "sync.pcap"]);
    assert!(words(&decoded.stdout).contains("sealed"), "frames leave sealed");
    node.ssyncp(&["decode", "sync.pcap", "--json"]);
    if cfg!(sanitized) {
        println!("skipped: address sanitizer keeps what stood on the stack of calls that are over");
    } else if root() {
        let regions = memory(node.process());
        assert!(regions.iter().any(|(line, _)| line.ends_with("[heap]")) && regions.len() > 5, "memory was read");
        // What is in there is found: the path of the file.
        let path = node.path("secret").display().to_string().into_bytes();
        assert!(regions.iter().any(|(_, bytes)| found(bytes, std::slice::from_ref(&path)).is_some()));
        for (line, bytes) in &regions {
            let leak = found(bytes, &needles);
            assert_eq!(leak.as_ref().map(|(at, _)| at), None, "in the memory: {line}, {leak:02x?}");
        }
    }
    let log = fs::read(node.path("log")).unwrap();
    assert!(words(&log).contains("ReloadRefused") && log.len() > 1000);
    node.note("the log", log);
    for (by, said) in &node.said {
        assert_eq!(found(said, &needles), None, "{by}: {}", words(said));
    }
}

/// Ends a daemon as a crash would; whether it has left a core.
fn crashes_with_a_core(node: &mut Alone) -> bool {
    let mut child = node.child.take().unwrap();
    kill(Pid::from_raw(child.id() as i32), Signal::SIGABRT).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(Signal::SIGABRT as i32));
    status.core_dumped() || cores(node.directory.path()) > 0
}

fn cores(directory: &Path) -> usize {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().contains("core")).count()
}

#[test]
fn a_daemon_with_a_secret_leaves_no_core() {
    let mut plain = Alone::new();
    plain.configure("");
    plain.start();
    if !crashes_with_a_core(&mut plain) {
        return println!("skipped: needs a kernel.core_pattern that keeps cores");
    }
    let mut node = Alone::new();
    node.start();
    assert!(!crashes_with_a_core(&mut node));
}
