//! `decode` and `replay` of sealed recordings: what `--secret-file` shows, and what is shown without.

use crate::vectors;
use serde_json::Value;
use ssyncp::engine::{Config, Engine, Role, SyncState};
use ssyncp::flow::{Change, Flow, FlowKey, Zone, protocol};
use ssyncp::time::{Duration, Instant};
use ssyncp::transport::pcap::{Format, Writer, ip_header};
use ssyncp::wire::{FRAME_LEN_MAX, FrameMeta, NodeId};
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A secret that sealed nothing here.
const OTHER: &str = "ff0cc4338a0be9015bd8a9e525a98ec30a617a60bb30d08dc159db44354d9265";

fn ssyncp(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ssyncp")).args(arguments).output().unwrap()
}

fn golden(name: &str) -> String {
    format!("{}/pcap/{name}.pcap", env!("CARGO_MANIFEST_DIR"))
}

fn words(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A file that only its owner can read.
fn secret_file(directory: &Path, name: &str, lines: &str) -> PathBuf {
    use std::io::Write;
    let file = directory.join(name);
    let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file).unwrap();
    out.write_all(lines.as_bytes()).unwrap();
    file
}

/// The secrets of the golden frames, as lines; those of these numbers.
fn lines_of(numbers: &[u64]) -> String {
    let document = vectors::document();
    let secrets = document["secrets"].as_array().unwrap();
    let line = |entry: &Value| format!("{} {}\n", entry["number"], entry["secret"].as_str().unwrap());
    secrets.iter().filter(|entry| numbers.contains(&entry["number"].as_u64().unwrap())).map(line).collect()
}

#[test]
fn decode_opens_what_a_secret_of_the_file_has_sealed_and_says_why_not() {
    let directory = tempfile::tempdir().unwrap();
    let all = secret_file(directory.path(), "all", &format!("# of the golden frames\n{}", lines_of(&[0, 1, 2, 3])));
    let other = secret_file(directory.path(), "other", &lines_of(&[2]));
    let seal = |name: &str, file: Option<&Path>| {
        let golden = golden(name);
        let mut arguments = vec!["decode", &golden];
        arguments.extend(file.iter().flat_map(|file| ["--secret-file", file.to_str().unwrap()]));
        let told = words(&ssyncp(&arguments).stdout);
        let line = told.lines().find(|line| line.contains(" seal: ")).unwrap().trim().to_owned();
        (line, told.lines().last().unwrap_or_default().to_owned(), told)
    };
    let (line, _, told) = seal("sealed-data-plain", Some(&all));
    assert_eq!(line, "ok    seal: can it be opened? yes, by secret 0");
    assert!(told.contains("record 1: upsert tcp 10.0.0.1:40000 -> 192.0.2.10:80\n"), "{told}");
    assert!(told.contains("\naccepted\n"), "{told}");
    let (line, ..) = seal("refused-forged", Some(&all));
    let forged = "FAIL  seal: can it be opened? no: forged: the seal does not fit: another secret, or a forgery";
    assert_eq!(line, forged);
    for file in [None, Some(other.as_path())] {
        let (line, _, told) = seal("sealed-data-plain", file);
        let reason = "no: sealed: the frame is sealed and there is no key for it (secret 0; see --secret-file)";
        assert_eq!(line, format!("FAIL  seal: can it be opened? {reason}"));
        assert!(told.contains("sealed payload\n") && !told.contains("10.0.0.1"), "{told}");
    }
    let (line, ..) = seal("data-plain", Some(&all));
    assert_eq!(line, "ok    seal: can it be opened? yes");
}

#[test]
fn decode_tells_programs_who_sealed_a_frame_and_what_is_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let all = secret_file(directory.path(), "all", &lines_of(&[0, 1, 2, 3]));
    let line = |name: &str, more: &[&str]| -> Value {
        let golden = golden(name);
        serde_json::from_slice(&ssyncp(&[&["decode", "--json", &golden], more].concat()).stdout).unwrap()
    };
    let with = ["--secret-file", all.to_str().unwrap()];
    let validator: Value =
        serde_json::from_slice(&fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/schemas/frame.json")).unwrap())
            .unwrap();
    let validator = jsonschema::validator_for(&validator).unwrap();
    let told = |value: Value| {
        assert!(validator.is_valid(&value), "{value:#}");
        let frame = &value["frame"];
        let name = frame["payload"]["name"].as_str().map(str::to_owned);
        (value["verdict"].as_str().unwrap().to_owned(), frame["seal"].to_string(), name)
    };
    let advert = Some("lb1.example".to_owned());
    let seal = |opened: bool| format!("{{\"opened\":{opened},\"secret\":1}}");
    assert_eq!(told(line("sealed-advert", &with)), ("accepted".into(), seal(true), advert.clone()));
    assert_eq!(told(line("sealed-advert", &[])), ("sealed".into(), seal(false), None));
    assert_eq!(told(line("advert-master-with-peers", &with)), ("accepted".into(), "null".into(), advert));
    let (verdict, seal, _) = told(line("refused-forged", &with));
    assert_eq!((verdict.as_str(), seal.as_str()), ("forged", "{\"opened\":false,\"secret\":0}"));
}

/// What is wrong is told by file and line, and no byte of the secret is.
#[test]
fn a_secret_file_that_is_wrong_is_a_mistake_of_the_caller_and_is_not_quoted() {
    let directory = tempfile::tempdir().unwrap();
    let digits = "c0ffee0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d";
    let wrong = secret_file(directory.path(), "wrong", &format!("# ours\n7 {digits}\n"));
    let golden = golden("sealed-advert");
    for command in ["decode", "replay"] {
        let output = ssyncp(&[command, &golden, "--secret-file", wrong.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2), "{command}");
        let told = words(&output.stderr);
        assert!(told.contains("/wrong:2: ") && !told.contains("c0ffee"), "{told}");
        assert_eq!(output.stdout, b"");
        assert_eq!(ssyncp(&[command, &golden, "--secret-file", "/no/such/file"]).status.code(), Some(2));
    }
}

/// Both nodes of a sealed pair from their first word on, 500 flows, and a forgery of every tenth frame: a recording of it,
/// and the digest of the master's table.
fn sealed_recording(file: &Path) -> u64 {
    let mut now = Instant::from_nanos(1_000_000_000);
    let mut writer = Writer::new(Format::Pcap, fs::File::create(file).unwrap()).unwrap();
    let mut nodes = [(1, 200), (2, 100)].map(|(node, priority)| {
        let secrets = vectors::secrets().split_off(2);
        let config =
            Config { incarnation: 77 + u64::from(node), seed: 3, secrets, priority, ..Config::new(NodeId(node), 51) };
        let mut engine = Engine::new(config, now).unwrap();
        engine.handle_link(now, true);
        engine
    });
    let (mut slot, mut count, mut dumped) = ([0; FRAME_LEN_MAX], 0, false);
    for turn in 0_u32..4000 {
        if nodes[0].role() == Role::Master && !dumped {
            dumped = true;
            nodes[0].begin_dump(now);
            nodes[0].end_dump(now);
        }
        if dumped && turn.is_multiple_of(2) && nodes[0].status().entries < 500 {
            nodes[0].update(now, &Change::Upsert(flow(turn))).unwrap();
        }
        for from in 0..2 {
            nodes[from].handle_timeout(now);
            nodes[from].poll_applied(now, &mut Vec::new(), usize::MAX);
            nodes[from].handle_committed(now);
            while let Some(length) = nodes[from].poll_transmit(now, &mut slot[..1480]) {
                let source = IpAddr::V4(Ipv4Addr::new(10, 99, 0, from as u8 + 1));
                let mut record = |bytes: &[u8]| {
                    let header = ip_header(source, [224, 0, 0, 81].into(), 114, bytes.len()).unwrap();
                    writer.write(now.since(Instant::ZERO), &[header.as_ref(), bytes].concat()).unwrap();
                };
                record(&slot[..length]);
                count += 1;
                if count % 10 == 0 {
                    let mut forged = slot[..length].to_vec();
                    forged[length - 1] ^= 1;
                    forged[8..12].fill(0);
                    let sum = crc32fast::hash(&forged);
                    forged[8..12].copy_from_slice(&sum.to_be_bytes());
                    record(&forged);
                }
                nodes[1 - from].handle_frame(now, FrameMeta { link: 0, source }, &mut slot[..length]);
            }
        }
        now += Duration::from_millis(2);
    }
    writer.flush().unwrap();
    let [master, backup] = nodes.map(|node| node.status());
    assert_eq!((backup.sync, backup.digest, backup.entries), (SyncState::InSync, master.digest, 500));
    master.digest
}

fn flow(number: u32) -> Flow {
    let key = FlowKey {
        source: IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number)),
        destination: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)),
        source_port: 40_000,
        destination_port: 443,
        protocol: protocol::TCP,
        zone: Zone::DEFAULT,
    };
    Flow { state: 3, status: 0x0e, timeout: 432_000, ..Flow::new(key) }
}

#[test]
fn a_sealed_recording_gives_the_masters_table_to_who_has_the_secret() {
    let directory = tempfile::tempdir().unwrap();
    let recording = directory.path().join("sealed.pcap");
    let digest = sealed_recording(&recording);
    let all = secret_file(directory.path(), "all", &lines_of(&[0, 1, 2, 3]));
    let wrong = secret_file(directory.path(), "wrong", &format!("2 {OTHER}\n"));
    let replay = |file: Option<&Path>| -> Value {
        let mut arguments = vec!["replay", recording.to_str().unwrap(), "--json"];
        arguments.extend(file.iter().flat_map(|file| ["--secret-file", file.to_str().unwrap()]));
        serde_json::from_slice(&ssyncp(&arguments).stdout).unwrap()
    };
    let opened = replay(Some(&all));
    let group = &opened["groups"][0];
    assert_eq!((&opened["complete"], &opened["count"]), (&true.into(), &500.into()), "{group:#}");
    assert_eq!(group["digest"], format!("{digest:016x}"));
    let frames = group["frames"].as_u64().unwrap();
    let forged = group["refused"]["forged"].as_u64().unwrap();
    assert!(forged >= 10 && frames / 11 == forged, "{group:#}");
    assert_eq!(group["refused"].as_object().unwrap().len(), 1, "{group:#}");

    let closed = replay(None);
    let group = &closed["groups"][0];
    assert_eq!((&closed["complete"], &closed["count"]), (&false.into(), &0.into()));
    assert_eq!(group["refused"]["sealed"], frames);
    let reason = format!("{frames} frames are sealed, and no secret opens them; name it with --secret-file");
    assert_eq!(group["reason"], reason);
    assert_eq!(replay(Some(&wrong))["groups"][0]["refused"]["forged"], frames);
}
