//! `decode`, `record` and `replay` as their callers see them: schemas, exit statuses, words.

mod support;

use serde_json::Value;
use ssyncp::sys::namespace::Namespace;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

fn root_of_the_project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn ssyncp(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ssyncp")).args(arguments).output().unwrap()
}

fn golden(name: &str) -> String {
    root_of_the_project().join("pcap").join(name).to_str().unwrap().to_owned()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn validator(schema: &str) -> jsonschema::Validator {
    let file = root_of_the_project().join("docs/schemas").join(schema);
    jsonschema::validator_for(&serde_json::from_slice(&fs::read(file).unwrap()).unwrap()).unwrap()
}

/// Every recording of the project.
fn recordings() -> Vec<PathBuf> {
    let folders = ["pcap", "pcap/ipvs"].map(|folder| fs::read_dir(root_of_the_project().join(folder)).unwrap());
    let files = folders.into_iter().flatten().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "pcap")).collect()
}

#[test]
fn what_decode_and_replay_print_is_what_their_schemas_say() {
    let (frame, replay) = (validator("frame.json"), validator("replay.json"));
    let valid = |validator: &jsonschema::Validator, value: &Value| {
        let problems: Vec<String> =
            validator.iter_errors(value).map(|error| format!("{error} at {}", error.instance_path())).collect();
        assert!(problems.is_empty(), "{problems:#?}\n{value:#}");
    };
    let (mut lines, mut files) = (0, 0);
    for file in recordings() {
        let file = file.to_str().unwrap();
        for line in text(&ssyncp(&["decode", file, "--json"]).stdout).lines() {
            valid(&frame, &serde_json::from_str(line).unwrap());
            lines += 1;
        }
        valid(&replay, &serde_json::from_slice(&ssyncp(&["replay", file, "--json"]).stdout).unwrap());
        files += 1;
    }
    assert!(files >= 32 && lines >= 40, "{files} files, {lines} lines");
    let mut wrong: Value =
        serde_json::from_slice(&ssyncp(&["replay", &golden("data-plain.pcap"), "--json"]).stdout).unwrap();
    wrong["surprise"] = 1.into();
    assert!(!replay.is_valid(&wrong), "a field that the schema does not know");
}

#[test]
fn each_check_of_a_refused_frame_is_explained() {
    let output = ssyncp(&["decode", &golden("refused-checksum.pcap")]);
    assert!(output.status.success());
    let words = text(&output.stdout);
    let checks: Vec<&str> = words.lines().skip(1).take(10).collect();
    assert_eq!(
        checks,
        [
            "  ok    ip_checksum: the IP header is undamaged",
            "  ok    ttl: TTL 255, it has crossed no router",
            "  ok    whole: did it arrive whole? yes",
            "  ok    version: is its version known? yes",
            "  FAIL  checksum: is it undamaged? no: checksum: the checksum does not fit the bytes",
            "   -    sender: does it name its sender and its number? not asked any more",
            "   -    seal: can it be opened? not asked any more",
            "   -    flags: are its flags known? not asked any more",
            "   -    kind: is its kind known? not asked any more",
            "   -    payload: is every record and count of it right? not asked any more",
        ]
    );
    assert!(words.contains("refused: checksum: the checksum does not fit the bytes\n"));
    assert!(text(&output.stderr).contains("1 packets: 1 frames of protocol 114, 0 messages of IPVS\n"));
}

#[test]
fn a_file_that_breaks_off_is_shown_as_far_as_it_goes_and_is_no() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("cut.pcap");
    let mut bytes = fs::read(golden("data-plain.pcap")).unwrap();
    let whole = bytes.len();
    bytes.extend_from_within(24..50);
    fs::write(&file, bytes).unwrap();
    let output = ssyncp(&["decode", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("\naccepted\n"));
    let reason = format!("offset {whole}: the file ends in the middle of a packet or block\n");
    assert!(text(&output.stderr).ends_with(&reason), "{}", text(&output.stderr));
}

#[test]
fn what_is_no_recording_is_a_mistake_of_the_caller() {
    let here = root_of_the_project().join("README.md");
    for command in ["decode", "replay"] {
        let output = ssyncp(&[command, here.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2), "{command}");
        assert!(text(&output.stderr).contains("README.md: this is neither a pcap nor a pcapng file"));
        assert_eq!(ssyncp(&[command, "/no/such/file.pcap"]).status.code(), Some(2), "{command}");
    }
    assert_eq!(ssyncp(&["record", "/tmp/recording.txt"]).status.code(), Some(2));
    assert_eq!(
        ssyncp(&["replay", &golden("data-plain.pcap"), "--verify", here.to_str().unwrap()]).status.code(),
        Some(2)
    );
}

#[test]
fn nothing_is_recorded_over_a_file_or_from_an_interface_that_is_not_there() {
    if !support::root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("new.pcap");
    let name = file.to_str().unwrap();
    let output = ssyncp(&["record", name, "-i", "no-such-link"]);
    assert_eq!((output.status.code(), file.exists()), (Some(3), false), "{}", text(&output.stderr));
    fs::write(&file, "precious").unwrap();
    assert_eq!(ssyncp(&["record", name, "-i", "lo"]).status.code(), Some(4));
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

/// Packets of our protocols, others beside them, on a loopback of its own.
#[test]
fn a_recording_ends_with_its_count_and_holds_what_is_ours() {
    if !support::root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lo.pcapng");
    let namespace = Namespace::create().unwrap();
    support::ip(&namespace, "link set lo up");
    let mut recorder = namespace.command(env!("CARGO_BIN_EXE_ssyncp")).unwrap();
    // Each datagram passes a loopback twice.
    let mut recorder = recorder.arg("record").arg(&file).args(["-i", "lo", "--count", "2"]).spawn().unwrap();
    support::eventually("the recording has begun", || file.exists());
    namespace
        .run(|| {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
            socket.send_to(b"something else", "127.0.0.1:9")?;
            socket.send_to(&[0, 7, 0, 8, 0, 1, 0, 0], "127.0.0.1:8848").map(drop)
        })
        .unwrap();
    assert!(recorder.wait().unwrap().success());
    let decoded = text(&ssyncp(&["decode", file.to_str().unwrap(), "--json"]).stdout);
    let rows: Vec<Value> = decoded.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| row["ipvs"]["sync_id"] == 7 && row["verdict"] == "accepted"), "{rows:#?}");
}

#[test]
fn a_tap_is_a_path_with_a_format_and_its_sizes_have_units() {
    let directory = tempfile::tempdir().unwrap();
    let check = |more: &str| {
        let file = directory.path().join("ssyncp.toml");
        fs::write(&file, format!("[node]\nid = 1\n[[group]]\nsync_id = 51\ntransport = \"memory\"\n{more}\n")).unwrap();
        let output = ssyncp(&["check", "-c", file.to_str().unwrap()]);
        let words = text(&output.stdout);
        words.strip_prefix(&format!("{}:6: ", file.display())).unwrap_or(&words).trim_end().to_owned()
    };
    assert_eq!(check("tap = \"/var/tmp/sync.pcap\""), "ok");
    let wrong = "is no absolute path to a .pcap or .pcapng; write \"/var/tmp/sync.pcap\"";
    assert_eq!(check("tap = \"sync.pcap\""), format!("tap: \"sync.pcap\" {wrong}"));
    assert_eq!(check("tap = \"/var/tmp/sync\""), format!("tap: \"/var/tmp/sync\" {wrong}"));
    assert_eq!(check("tap_size = \"1KiB\""), "tap_size: \"1KiB\" is less than 64KiB");
    let unit = "is no size; write a whole number with a unit, as \"512KiB\", \"64MiB\" or \"1GiB\"";
    assert_eq!(check("tap_size = \"64MB\""), format!("tap_size: \"64MB\" {unit}"));
    assert_eq!(check("tap_files = 0"), "tap_files: 0 is not from 1 to 1000");
}
