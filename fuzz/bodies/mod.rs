//! What is done with the bytes of each fuzz target, as plain functions: libFuzzer calls them, and so does
//! `tests/fuzz_corpora.rs` on a stable compiler, with every seed and every input that ever broke something.
//!
//! A body does more than wait for a panic: what can be read must be written again and read the same, and engines that
//! were told nonsense must find together afterwards.

#![allow(dead_code, unreachable_pub, reason = "each target uses one of them")]

mod engine;

use ssyncp::bridge::conntrack::codec;
use ssyncp::daemon::settings::Settings;
use ssyncp::flow::Change;
use ssyncp::sys::netlink::{MessageWriter, Messages};
use ssyncp::wire::{self, DataWriter, Frame, Header, Payload, Record};
use std::path::{Path, PathBuf};

pub use engine::engine;

/// One target.
pub struct Target {
    /// Its name: that of its program, and of its folders of seeds and inputs.
    pub name: &'static str,
    /// What it does with the bytes.
    pub body: fn(&[u8]),
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "frame", body: frame },
    Target { name: "records", body: records },
    Target { name: "netlink", body: netlink },
    Target { name: "config", body: config },
    Target { name: "engine", body: engine },
];

/// A frame of SSYNCP/1 as it comes from the wire; then the same with size and checksum put right, so that the fuzzer gets
/// past them.
pub fn frame(data: &[u8]) {
    take_frame(data);
    let mut data = data[..data.len().min(wire::FRAME_LEN_MAX)].to_vec();
    if mend(&mut data) {
        take_frame(&data);
    }
}

/// The payload of a DATA frame: its first byte is the number of records.
pub fn records(data: &[u8]) {
    let Some((&count, payload)) = data.split_first() else { return };
    let payload = &payload[..payload.len().min(wire::FRAME_LEN_MAX - wire::HEADER_LEN)];
    let mut frame = vec![count, 51, 0, 0, wire::VERSION, wire::Kind::DATA.0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    for number in [7_u64, 9, 3] {
        frame.extend_from_slice(&number.to_be_bytes());
    }
    frame.extend_from_slice(payload);
    if mend(&mut frame) {
        take_frame(&frame);
    }
}

/// What the kernel says on a netlink socket: read, written as a request, read again.
pub fn netlink(data: &[u8]) {
    for message in Messages::new(data).flatten() {
        let _ = message.error_code();
        let Ok(decoded) = codec::decode(&message) else { continue };
        if codec::check_flow(&decoded.flow).is_err() {
            continue;
        }
        let mut writer = MessageWriter::new();
        codec::write_create(&mut writer, 1, &decoded.flow, decoded.flow.timeout);
        codec::write_update(&mut writer, 2, &decoded.flow, decoded.flow.timeout);
        for message in Messages::new(writer.bytes()) {
            let message = message.expect("what we write is whole");
            let again = codec::decode(&message).expect("what we write can be read");
            assert_eq!(again.flow.key, decoded.flow.key, "a key changes on its way to the kernel");
        }
    }
}

/// A configuration file. One that is right reads back from what `check --show` prints.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Settings::parse(text, Path::new("fuzz.toml")) {
        Ok(settings) => {
            let _ = settings.warnings();
            let shown = settings.to_toml();
            let again = Settings::parse(&shown, Path::new("shown.toml")).expect("what is shown can be read");
            assert_eq!(again.to_toml(), shown);
        }
        Err(problems) => assert!(!problems.to_string().is_empty()),
    }
}

/// Puts size, version and checksum right; false if there are too few bytes for a header.
fn mend(frame: &mut [u8]) -> bool {
    let len = frame.len();
    if !(wire::HEADER_LEN..=wire::FRAME_LEN_MAX).contains(&len) {
        return false;
    }
    frame[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    frame[4] = wire::VERSION;
    frame[8..12].fill(0);
    let sum = crc32(frame);
    frame[8..12].copy_from_slice(&sum.to_be_bytes());
    true
}

/// CRC-32 (IEEE) bit by bit: a second opinion, and no dependency.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

fn take_frame(data: &[u8]) {
    let _ = Frame::claim(data);
    assert!(!wire::describe(data).is_empty());
    let Ok(frame) = Frame::parse(data).and_then(Frame::verify) else { return };
    if let Payload::Data(records) = frame.payload() {
        write_again(frame.header(), records);
    }
}

/// Whatever a frame says about flows, our own writer can say, and it is read as the same.
fn write_again<'a>(header: Header, records: impl Iterator<Item = Record<'a>>) {
    let said: Vec<Change> = records
        .filter_map(|record| match record {
            Record::Upsert(conn) => Some(Change::Upsert(conn.flow())),
            Record::Delete(conn) => Some(Change::Delete(conn.key())),
            _ => None,
        })
        .collect();
    for change in said {
        let mut slot = [0; wire::FRAME_LEN_MIN];
        let mut writer = DataWriter::new(&mut slot, header).expect("room");
        let fits = match &change {
            Change::Upsert(flow) => writer.push_upsert(flow),
            Change::Delete(key) => writer.push_delete(key),
        };
        assert_eq!(fits, Ok(()), "no frame can carry {change:?}");
        let len = writer.finish();
        let frame = Frame::parse(&slot[..len]).and_then(Frame::verify).expect("what we write is valid");
        let Payload::Data(mut records) = frame.payload() else { panic!("not DATA") };
        let again = match records.next() {
            Some(Record::Upsert(conn)) => Change::Upsert(conn.flow()),
            Some(Record::Delete(conn)) => Change::Delete(conn.key()),
            other => panic!("{other:?}"),
        };
        assert_eq!(again, change);
    }
}

/// What a target begins with: from the golden captures, the examples of the documents, and by hand.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "frame" => captured_frames(),
        "records" => captured_frames()
            .into_iter()
            .filter(|frame| frame.len() > wire::HEADER_LEN && frame[5] == wire::Kind::DATA.0)
            .map(|frame| [&frame[..1], &frame[wire::HEADER_LEN..]].concat())
            .collect(),
        "netlink" => netlink_seeds(),
        "config" => vec![
            b"[node]\nid = 1\n[[group]]\nsync_id = 51\ninterfaces = [\"eth1\"]\n".to_vec(),
            b"[node]\nid = 1\nname = \"a\"\n[[group]]\nsync_id = 1\ntransport = \"memory\"\nsource = \"synthetic\"\n\
              priority = 150\nadvert_interval = \"10ms\"\naddresses = [\"192.0.2.10/24 dev eth0\"]\n\
              [control]\nsocket = \"/tmp/s\"\nlisten = \"127.0.0.1:9114\"\n"
                .to_vec(),
        ],
        "engine" => vec![(0..=255).collect(), [3, 200, 0, 5, 1, 40].repeat(40), [9, 4, 1, 250, 7, 30].repeat(60)],
        _ => Vec::new(),
    }
}

/// Inputs that once broke a target, and a small corpus that reaches far: committed files.
pub fn committed(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for kind in ["regressions", "corpus"] {
        let folder = root().join("fuzz").join(kind).join(target);
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("a readable folder").path();
            found.push((path.clone(), std::fs::read(&path).expect("a readable file")));
        }
    }
    found.sort();
    found
}

/// The payload of every packet in pcap/*.pcap, without its IPv4 header.
fn captured_frames() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for path in captures("pcap") {
        let file = std::fs::File::open(&path).expect("a readable capture");
        let mut reader = pcap_file::pcap::PcapReader::new(file).expect("a capture");
        while let Some(packet) = reader.next_packet() {
            let data = packet.expect("a whole packet").data.into_owned();
            let header = usize::from(data.first().copied().unwrap_or(0) & 0x0f) * 4;
            frames.extend(data.get(header..).map(<[u8]>::to_vec));
        }
    }
    frames
}

/// Every capture below a folder of the repository.
fn captures(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join(folder)).expect("the repository");
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "pcap"))
        .collect();
    found.sort();
    found
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    if here.join("pcap").is_dir() { here.to_owned() } else { here.join("..") }
}

/// Messages as our own sink writes them, one datagram each.
fn netlink_seeds() -> Vec<Vec<u8>> {
    captured_frames()
        .iter()
        .filter_map(|bytes| Frame::parse(bytes).and_then(Frame::verify).ok())
        .filter_map(|frame| match frame.payload() {
            Payload::Data(records) => Some(records.collect::<Vec<_>>()),
            _ => None,
        })
        .flatten()
        .filter_map(|record| match record {
            Record::Upsert(conn) => {
                let mut writer = MessageWriter::new();
                codec::write_create(&mut writer, 1, &conn.flow(), 600);
                Some(writer.bytes().to_vec())
            }
            _ => None,
        })
        .take(40)
        .collect()
}
