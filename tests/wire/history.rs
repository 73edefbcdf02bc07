//! Version skew: what former releases have sent is understood for ever, and what later ones may send passes.
//!
//! `pcap/vX.Y/` holds what the release X.Y sent: a conversation with frames of every kind, and what it meant, one line
//! a frame and a record. These files are never written anew: a release that reads them differently has broken the
//! protocol. A new release adds a directory of its own.

use pcap_file::pcap::PcapReader;
use pnet::packet::Packet;
use pnet::packet::ipv4::Ipv4Packet;
use ssyncp::flow::{Flow, attribute};
use ssyncp::wire::{
    DataWriter, DropCounters, Frame, FrameError, Header, Kind, NodeId, Payload, Record, Records, Verified,
};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

fn history() -> Vec<PathBuf> {
    let pcap = Path::new(env!("CARGO_MANIFEST_DIR")).join("pcap");
    let entries = fs::read_dir(pcap).expect("readable").map(|entry| entry.expect("readable").path());
    let of_a_release = |path: &PathBuf| {
        let version = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix('v'));
        path.is_dir() && version.is_some_and(|version| version.starts_with(|first: char| first.is_ascii_digit()))
    };
    let mut releases: Vec<PathBuf> = entries.filter(of_a_release).collect();
    releases.sort();
    releases
}

fn frames(release: &Path) -> Vec<Vec<u8>> {
    let file = fs::File::open(release.join("conversation.pcap")).expect("a capture");
    let mut reader = PcapReader::new(file).expect("a pcap file");
    let mut frames = Vec::new();
    while let Some(packet) = reader.next_packet() {
        let packet = packet.expect("a whole packet");
        frames.push(Ipv4Packet::new(&packet.data).expect("an IPv4 packet").payload().to_vec());
    }
    frames
}

/// What a frame means, in words of this test's own: they change with no release.
fn meaning(verified: &Verified<'_>) -> String {
    let Header { kind, node, seq, term, .. } = verified.header();
    let mut text = format!("{} of node {node}, number {seq}, term {term}", kind.name());
    match verified.payload() {
        Payload::Advert(it) => {
            let (name, peers) = (String::from_utf8_lossy(it.name), it.peers.len());
            let _ = write!(text, ": {name} {}, priority {}, digest {:x},", it.role.name(), it.priority, it.digest);
            let _ = write!(text, " stream {} to {}, kernel", it.history_start, it.stream_seq);
            let _ = write!(text, " {}/{}, {peers} peers", it.kernel_capacity, it.kernel_buckets);
        }
        Payload::Status(it) => {
            let missing: Vec<(u64, u32)> = it.missing.iter().map(|range| (range.first(), range.length())).collect();
            let _ = write!(text, ": frontier {}, {}, missing {missing:?}", it.frontier, it.state.name());
        }
        Payload::Pull(it) => {
            let ranges: Vec<(u16, u16)> = it.ranges.iter().map(|range| (range.first(), range.count())).collect();
            let _ = write!(text, ": buckets {ranges:?}");
        }
        Payload::MergePull(it) => {
            let _ = write!(text, ": stream of {} after {}, cursor {:x}", it.node, it.after, it.cursor);
        }
        Payload::DigestsRequest(it) => {
            let _ = write!(text, ": {} buckets from {}", it.buckets.count(), it.buckets.first());
        }
        Payload::DigestsAnswer(it) => {
            let _ = write!(text, ": as of {}, {:x?}", it.cut, it.iter().collect::<Vec<_>>());
        }
        Payload::MergeRecords(it) => {
            let _ = write!(text, ": cursor {:x}, next {:x}", it.cursor, it.next);
            list(&mut text, it.records);
        }
        Payload::Data(records) => list(&mut text, records),
    }
    text.push('\n');
    text
}

fn list(text: &mut String, records: Records<'_>) {
    for record in records {
        let _ = match record {
            Record::Upsert(conn) => write!(text, "\n  {}", flow(&conn.flow())),
            Record::Delete(conn) => write!(text, "\n  gone: {}", conn.key()),
            Record::BucketEnd { bucket, since } => write!(text, "\n  end of bucket {bucket}, since {since}"),
            Record::Section(it) => {
                let key = String::from_utf8_lossy(it.key);
                let value = it.fragment.map(|part| (part.expiry, part.total, part.offset, part.back, part.bytes.len()));
                write!(text, "\n  section {} {key}: {value:?}", it.table)
            }
            Record::Unknown { kind } => write!(text, "\n  of type {kind}"),
        };
    }
}

fn flow(flow: &Flow) -> String {
    let mut text = format!("{}, state {}, status {:x}, {} s", flow.key, flow.state, flow.status, flow.timeout);
    for (name, end) in [("replies from", flow.reply_source), ("replies to", flow.reply_destination)] {
        if let Some(end) = end {
            let _ = write!(text, ", {name} {} {}", end.address, end.port);
        }
    }
    if let Some(tcp) = flow.tcp {
        let scales = (tcp.window_scale_original, tcp.window_scale_reply);
        let _ = write!(text, ", scales {scales:?}, flags {:x} {:x}", tcp.flags_original, tcp.flags_reply);
    }
    if flow.mark != 0 {
        let _ = write!(text, ", mark {:x}", flow.mark);
    }
    for (kind, data) in &flow.attributes {
        let _ = write!(text, ", attribute {kind} {data:02x?}");
    }
    text
}

/// [3.2.9] Every frame that any release has sent is taken, and means what it meant.
#[test]
fn what_former_releases_sent_means_what_it_meant() {
    let releases = history();
    assert!(!releases.is_empty());
    for release in releases {
        let mut text = String::new();
        for frame in frames(&release) {
            let verified = Frame::parse(&frame).and_then(Frame::verify);
            text.push_str(&meaning(&verified.unwrap_or_else(|error| panic!("{}: {error}", release.display()))));
        }
        let expected = fs::read_to_string(release.join("conversation.txt")).unwrap_or_default();
        assert_eq!(text, expected, "{}", release.display());
    }
}

/// [3.2.7] The capture of this release has frames of every kind, and records of every type, that it knows.
#[test]
fn the_newest_conversation_leaves_nothing_out() {
    let newest = history().pop().expect("a release");
    let (mut kinds, mut records) = ([false; 8], [false; 4]);
    for frame in frames(&newest) {
        let verified = Frame::parse(&frame).and_then(Frame::verify).expect("valid");
        kinds[usize::from(verified.header().kind.0)] = true;
        let Payload::Data(rows) = verified.payload() else { continue };
        for record in rows {
            match record {
                Record::Upsert(_) => records[0] = true,
                Record::Delete(_) => records[1] = true,
                Record::BucketEnd { .. } => records[2] = true,
                Record::Section(_) => records[3] = true,
                Record::Unknown { kind } => panic!("of unknown type {kind}"),
            }
        }
    }
    assert_eq!(kinds, [false, true, true, true, true, true, true, true]);
    assert_eq!(records, [true; 4]);
}

const HEADER: Header = Header {
    sync_id: 81,
    kind: Kind::DATA,
    flags: ssyncp::wire::FrameFlags(0),
    node: NodeId(7),
    incarnation: 8,
    seq: 9,
    term: 10,
};

/// Corrects size and checksum.
fn finish(mut frame: Vec<u8>) -> Vec<u8> {
    let size = u16::try_from(frame.len()).expect("fits");
    frame[2..4].copy_from_slice(&size.to_be_bytes());
    frame[8..12].fill(0);
    let checksum = crc32fast::hash(&frame);
    frame[8..12].copy_from_slice(&checksum.to_be_bytes());
    frame
}

fn empty(kind: u8) -> Vec<u8> {
    let mut slot = [0; 40];
    DataWriter::new(&mut slot, HEADER).expect("room").finish();
    slot[5] = kind;
    finish(slot.to_vec())
}

/// [3.2.7] A kind that does not exist yet is skipped, whatever is in it, and counted under a name of its own.
#[test]
fn a_kind_of_a_later_release_is_skipped_and_counted() {
    let mut counters = DropCounters::default();
    for kind in 8..=255 {
        let mut frame = empty(kind);
        frame[0] = 3;
        frame.extend_from_slice(&[0xff; 33]);
        let frame = finish(frame);
        let error = Frame::parse(&frame).and_then(Frame::verify).expect_err("of a later release");
        counters.count(error);
    }
    assert_eq!((counters.get(FrameError::UnknownKind), counters.total()), (248, 248));
}

/// [3.3.1] A type of record that does not exist yet is stepped over, and those around it are taken.
#[test]
fn a_record_of_a_later_release_is_stepped_over() {
    let known = [1, 2, 0, 5, 10, 0, 0, 1, 10, 0, 0, 2, 0, 1, 0, 2, 17, 0, 0, 0];
    for kind in (3..=15).chain(17..=255) {
        let mut frame = empty(2);
        frame[0] = 3;
        frame.extend_from_slice(&known);
        frame.extend_from_slice(&[kind, 9, 0xff, 3, 1, 2, 3, 4, 5, 6, 7, 8]);
        frame.extend_from_slice(&known);
        let frame = finish(frame);
        let verified = Frame::parse(&frame).and_then(Frame::verify).expect("valid");
        let Payload::Data(records) = verified.payload() else { panic!("not DATA") };
        let records: Vec<Record<'_>> = records.collect();
        assert_eq!(records[1], Record::Unknown { kind });
        assert!(matches!((records.len(), records[0], records[2]), (3, Record::Delete(_), Record::Delete(_))));
    }
}

/// [3.3.9] An attribute that does not exist yet is kept, and leaves again as it came, in its place.
#[test]
fn an_attribute_of_a_later_release_is_passed_on() {
    let record = [
        1, 1, 0x80, 11, 10, 0, 0, 1, 10, 0, 0, 2, 0, 1, 0, 2, 17, 0, 0, 8, 0, 0, 0, 30, // plain, then attributes
        3, 3, b'f', b't', b'p', 0, 0, 0, 11, 2, 0xca, 0xfe, 255, 5, 1, 2, 3, 4, 5, 0,
    ];
    let mut frame = empty(2);
    frame[0] = 1;
    frame.extend_from_slice(&record);
    let frame = finish(frame);
    let verified = Frame::parse(&frame).and_then(Frame::verify).expect("valid");
    let Payload::Data(mut records) = verified.payload() else { panic!("not DATA") };
    let Some(Record::Upsert(conn)) = records.next() else { panic!("not an upsert") };
    let mut flow = conn.flow();
    assert_eq!(flow.attributes.get(255), Some(&[1, 2, 3, 4, 5][..]));
    let mut slot = [0; 1208];
    let mut writer = DataWriter::new(&mut slot, HEADER).expect("room");
    writer.push_upsert(&flow).expect("fits");
    assert_eq!(writer.finish(), frame.len());
    assert_eq!(slot[40..frame.len()], record);
    // Also where this release changes one that it knows.
    flow.attributes.set(attribute::LABELS, &[1; 16]).expect("fits");
    let kinds: Vec<u8> = flow.attributes.iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, [2, 3, 11, 255]);
}
