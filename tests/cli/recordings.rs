//! `decode`, `record` and `replay` as their callers see them: schemas, exit statuses, words.

use crate::support;
use serde_json::Value;
use ssyncp::flow::Endpoint;
use ssyncp::sys::namespace::Namespace;
use ssyncp::transport::pcap::{Format, Writer, ip_header};
use ssyncp::wire::ipvs::{Connection, ConnectionFlags};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

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
fn each_check_of_a_classic_message_is_explained_and_its_records_are_shown() {
    let checks = |name: &str| {
        let output = ssyncp(&["decode", &golden(name)]);
        text(&output.stdout).lines().skip(3).take(4).map(str::to_owned).collect::<Vec<_>>()
    };
    let begin = ["  ok    whole: did it arrive whole? yes", "  ok    version: is its version known? yes"];
    let undamaged = "  ok    checksum: is it undamaged? yes";
    let payload = "payload: is every record and count of it right?";
    assert_eq!(checks("classic-plain.pcap"), [&begin[..], &[undamaged, &format!("  ok    {payload} yes")]].concat());
    let reason = "no: count_mismatch: the count field differs from the number of records";
    let refused = format!("  FAIL  {payload} {reason}");
    assert_eq!(checks("classic-refused-count.pcap"), [&begin[..], &[undamaged, &refused]].concat());
    let damaged = "  FAIL  checksum: is it undamaged? no: checksum: the checksum does not fit the bytes";
    let not_asked = format!("   -    {payload} not asked any more");
    assert_eq!(checks("classic-refused-checksum.pcap"), [&begin[..], &[damaged, &not_asked]].concat());

    let line =
        |name: &str| -> Value { serde_json::from_slice(&ssyncp(&["decode", &golden(name), "--json"]).stdout).unwrap() };
    let message = line("classic-templates.pcap");
    assert_eq!(
        (&message["verdict"], &message["frame"], &message["classic"]["sync_id"]),
        (&"accepted".into(), &Value::Null, &81.into())
    );
    let templates = message["classic"]["records"].as_array().unwrap();
    assert_eq!(Value::from(templates.len()), message["classic"]["count"]);
    assert!(templates.iter().any(|record| record["template"] == true), "{templates:#?}");
    let refused = line("classic-refused-state.pcap");
    assert_eq!((&refused["verdict"], &refused["classic"]["records"]), (&"record_field".into(), &Value::Null));
    assert_eq!(line("classic-refused-checksum.pcap")["classic"], Value::Null);
}

/// A refused frame is told by its verdict and by one check that failed, whatever is wrong with it.
#[test]
fn no_refused_frame_passes_every_check() {
    let mut refused = 0;
    for file in recordings().iter().filter(|file| file.to_str().unwrap().contains("refused")) {
        let line: Value =
            serde_json::from_slice(&ssyncp(&["decode", file.to_str().unwrap(), "--json"]).stdout).unwrap();
        let failed = line["checks"].as_array().unwrap().iter().filter(|check| check["passed"] == false).count();
        assert_eq!((failed, line["verdict"] == "accepted"), (1, false), "{}", file.display());
        refused += 1;
    }
    assert!(refused >= 20, "{refused}");
}

/// A message of group 51 with these connections: client's port, server's last byte, state of TCP.
fn classic_message(connections: &[(u16, u8, u16)]) -> Vec<u8> {
    let mut slot = [0; 1208];
    let mut writer = ssyncp::wire::classic::Writer::new(&mut slot, 51).unwrap();
    for (port, server, state) in connections {
        let end = |last: u8, port| Endpoint { address: [192, 0, 2, last].into(), port };
        assert!(writer.push(&Connection {
            protocol: 6,
            client: end(1, *port),
            service: end(10, 80),
            server: end(*server, 8080),
            flags: ConnectionFlags(0),
            state: *state,
            firewall_mark: 0,
            timeout: None,
            sequences: None,
            engine: &[],
            engine_data: &[],
        }));
    }
    let len = writer.finish();
    slot[..len].to_vec()
}

/// A master says three connections, closes one of them after 5 s (which lives for 10 s then), says another one again from
/// another server, and a damaged message is left out. 900 s is what the format's receivers give an established one.
#[test]
fn a_classic_recording_is_replayed_with_its_time_outs_and_compared_as_far_as_it_goes() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("classic.pcap");
    let mut writer = Writer::new(Format::Pcap, fs::File::create(&file).unwrap()).unwrap();
    let damaged = [&classic_message(&[(9, 9, 1)])[..], &[0]].concat();
    for (second, message) in [
        (0, classic_message(&[(1, 21, 1), (2, 22, 1), (3, 23, 1)])),
        (5, classic_message(&[(2, 22, 6), (3, 33, 1)])),
        (6, damaged),
        (40, classic_message(&[(4, 24, 2)])),
    ] {
        let header = ip_header([10, 99, 0, 1].into(), [224, 0, 0, 81].into(), 114, message.len()).unwrap();
        writer.write(Duration::from_secs(1_700_000_000 + second), &[header.as_ref(), &message].concat()).unwrap();
    }
    writer.flush().unwrap();
    let file = file.to_str().unwrap();

    let output = ssyncp(&["replay", file]);
    let mut lines: Vec<String> = text(&output.stdout).lines().map(str::to_owned).collect();
    lines.sort();
    let line = |left: u32, state: &str, port: u16, server: u8, end: &str| {
        format!(
            "tcp      6 {left} {state} src=192.0.2.1 dst=192.0.2.10 sport={port} dport=80 src=192.0.2.{server} \
             dst=192.0.2.1 sport=8080 dport={port} {end}mark=0"
        )
    };
    let expected = [
        line(120, "SYN_SENT", 4, 24, ""),
        line(860, "ESTABLISHED", 1, 21, "[ASSURED] "),
        line(865, "ESTABLISHED", 3, 33, "[ASSURED] "),
    ];
    assert_eq!(lines, expected);
    let told = "group 51: classic: 4 messages, 3 flows: the classic profile has no numbers and no digest: that no message is \
                missing cannot be proven; 1 × size_mismatch\n";
    assert!(text(&output.stderr).contains(told), "{}", text(&output.stderr));

    let mut table: Value = serde_json::from_slice(&ssyncp(&["replay", file, "--json"]).stdout).unwrap();
    assert_eq!((&table["complete"], &table["groups"][0]["profile"]), (&false.into(), &"classic".into()));
    // As its master shows it: with a mark that no record says, and another time-out.
    (table["complete"], table["flows"][0]["mark"], table["flows"][1]["timeout_s"]) = (true.into(), 7.into(), 1.into());
    let other = directory.path().join("table.json");
    let verify = |table: &Value| {
        fs::write(&other, table.to_string()).unwrap();
        let output = ssyncp(&["replay", file, "--verify", other.to_str().unwrap()]);
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (status, words, told) = verify(&table);
    assert_eq!((status, words.as_str()), (Some(0), "equal: 3 flows\n"));
    assert!(
        told.contains(
            "group 51: compared without mark, status, helper, labels, master, attributes, which no record says"
        )
    );
    table["flows"][2]["reply_source"] = "192.0.2.99".into();
    let (status, words, _) = verify(&table);
    assert_eq!(status, Some(1));
    assert!(words.ends_with("not equal: 1 differences, 2 flows are equal\n"), "{words}");
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
