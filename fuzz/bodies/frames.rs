//! Frames of SSYNCP/1: whatever is read can be written by our own writers, and is read as the same.

use super::captures::{self, payloads};
use ssyncp::flow::{Flow, FlowKey};
use ssyncp::wire::{
    self, DataWriter, Frame, Header, Kind, MergeRecords, MergeWriter, Payload, PushError, Record, Section,
    encode_advert, encode_digests_answer, encode_digests_request, encode_merge_pull, encode_pull, encode_status,
};

/// Where an ADVERT says how long its name is, and behind what the name stands.
const NAME_LEN_AT: usize = wire::HEADER_LEN + 92;
const NAME_AT: usize = wire::HEADER_LEN + 96;

/// A frame as it comes from the wire; then the same with size and checksum put right, so that the fuzzer gets past them; and an
/// ADVERT with no peers and all the rest as its name.
pub fn frame(data: &[u8]) {
    take(data);
    let mut data = data[..data.len().min(wire::FRAME_LEN_MAX)].to_vec();
    if !mend(&mut data) {
        return;
    }
    take(&data);
    if data[5] == Kind::ADVERT.0 && (NAME_AT..NAME_AT + 256).contains(&data.len()) {
        let name_len = (data.len() - NAME_AT) as u8;
        data[NAME_LEN_AT..NAME_AT].copy_from_slice(&[name_len, 0, 0, 0]);
        mend(&mut data);
        take(&data);
    }
}

/// The payload of a DATA frame, and the same as a page of a merge: its first byte is the number of records.
pub fn records(data: &[u8]) {
    let Some((&count, payload)) = data.split_first() else { return };
    for kind in [Kind::DATA, Kind::RECORDS] {
        let mut frame = vec![count, 51, 0, 0, wire::VERSION, kind.0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        for number in [7_u64, 9, 3] {
            frame.extend_from_slice(&number.to_be_bytes());
        }
        if kind == Kind::RECORDS {
            // Asked by node 2, incarnation 5; cursor 0, and the next is 8.
            for number in [2_u64 << 32, 5, 0, 8] {
                frame.extend_from_slice(&number.to_be_bytes());
            }
        }
        frame.extend_from_slice(&payload[..payload.len().min(wire::FRAME_LEN_MAX - frame.len())]);
        if mend(&mut frame) {
            take(&frame);
        }
    }
}

/// Frames of all recordings, those of older versions included; and the longest name.
pub fn frame_seeds() -> Vec<Vec<u8>> {
    let recorded = payloads("pcap").into_iter().chain(payloads("pcap/v0.1")).filter(|frame| frame.get(4) != Some(&0));
    let header = Header { sync_id: 51, node: wire::NodeId(7), incarnation: 1, seq: 1, term: 1, ..Header::default() };
    let mut slot = [0; wire::FRAME_LEN_MIN];
    let named = wire::Advert { interval_ms: 100, name: &[b'n'; wire::NAME_LEN_MAX], ..wire::Advert::default() };
    let len = encode_advert(&mut slot, header, &named).expect("room");
    recorded.chain([slot[..len].to_vec()]).collect()
}

/// What is behind the header of each frame with records.
pub fn record_seeds() -> Vec<Vec<u8>> {
    let behind = |kind| match kind {
        Kind::DATA => Some(wire::HEADER_LEN),
        Kind::RECORDS => Some(wire::HEADER_LEN + 32),
        _ => None,
    };
    frame_seeds()
        .iter()
        .filter_map(|frame| {
            let at = behind(Kind(*frame.get(5)?))?;
            Some([&frame[..1], frame.get(at..)?].concat())
        })
        .collect()
}

/// Flows of all DATA frames in the recordings.
pub fn captured_flows() -> Vec<Flow> {
    let mut flows = Vec::new();
    for frame in captures::payloads("pcap") {
        let Ok(verified) = Frame::parse(&frame).and_then(Frame::verify) else { continue };
        let Payload::Data(records) = verified.payload() else { continue };
        flows.extend(records.filter_map(|record| match record {
            Record::Upsert(conn) => Some(conn.flow()),
            _ => None,
        }));
    }
    flows
}

/// Puts size, version and checksum right; false if there are too few bytes for a header, or too many for a frame.
pub fn mend(frame: &mut [u8]) -> bool {
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

/// CRC-32 (IEEE) byte by byte: a second opinion, and no dependency.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut at = 0;
        while at < 2048 {
            let (byte, bit) = (at / 8, at % 8);
            let crc: u32 = if bit == 0 { byte as u32 } else { table[byte] };
            table[byte] = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
            at += 1;
        }
        table
    };
    !bytes.iter().fold(u32::MAX, |crc, &byte| crc >> 8 ^ TABLE[usize::from(crc as u8 ^ byte)])
}

fn take(data: &[u8]) {
    let _ = Frame::claim(data);
    assert!(!wire::describe(data, &[]).is_empty());
    let passed = wire::checks(data, &[]).iter().all(|check| check.outcome == wire::Outcome::Passed);
    let verified = Frame::parse(data).and_then(Frame::verify);
    assert_eq!(passed, verified.is_ok(), "checks and verify disagree");
    let Ok(frame) = verified else { return };
    let header = frame.header();
    match frame.payload() {
        Payload::Data(records) => {
            assert_eq!(records.clone().count(), usize::from(data[0]), "another number of records than it says");
            write_data(header, records);
        }
        Payload::MergeRecords(page) => {
            assert_eq!(page.records.clone().count(), usize::from(data[0]), "another number of records than it says");
            write_page(header, &page);
        }
        payload => write_control(data, header, payload),
    }
}

/// What has no records has one form: the same bytes again.
fn write_control(data: &[u8], header: Header, payload: Payload<'_>) {
    let mut slot = [0; wire::FRAME_LEN_MAX];
    let written = match &payload {
        Payload::Advert(advert) => encode_advert(&mut slot, header, advert),
        Payload::Status(status) => encode_status(&mut slot, header, status),
        Payload::Pull(pull) => encode_pull(&mut slot, header, pull),
        Payload::MergePull(pull) => encode_merge_pull(&mut slot, header, pull),
        Payload::DigestsRequest(request) => encode_digests_request(&mut slot, header, request),
        Payload::DigestsAnswer(answer) => encode_digests_answer(&mut slot, header, answer),
        Payload::Data(_) | Payload::MergeRecords(_) => return,
    };
    let written = written.unwrap_or_else(|| panic!("no frame can carry {payload:?}"));
    assert_eq!(&slot[..written], data, "another frame says the same");
}

/// Records as a whole, in their order; and each of them has room in the smallest frame.
fn write_data<'a>(header: Header, records: impl Iterator<Item = Record<'a>>) {
    let mut slot = [0; wire::FRAME_LEN_MAX];
    let mut writer = DataWriter::new(&mut slot, header).expect("room");
    let mut said = Vec::new();
    for record in records {
        let mut smallest = [0; wire::FRAME_LEN_MIN];
        let mut alone = DataWriter::new(&mut smallest, header).expect("room");
        let (Some(alone), Some(together)) = (push(&mut alone, &record), push(&mut writer, &record)) else { continue };
        assert_eq!((alone, together), (Ok(()), Ok(())), "no frame can carry {record:?}");
        said.push(Meaning::of(record));
    }
    let len = writer.finish();
    let Payload::Data(again) = read(&slot[..len]) else { panic!("not DATA") };
    assert_eq!(again.map(Meaning::of).collect::<Vec<_>>(), said);
}

/// `None` for a record that this version does not know.
fn push(writer: &mut DataWriter<'_>, record: &Record<'_>) -> Option<Result<(), PushError>> {
    Some(match record {
        Record::Upsert(conn) => writer.push_upsert(&conn.flow()),
        Record::Delete(conn) => writer.push_delete(&conn.key()),
        Record::BucketEnd { bucket, since } => writer.push_bucket_end(*bucket, *since),
        Record::Section(section) => writer.push_section(section),
        Record::Unknown { .. } => return None,
    })
}

/// A page of a merge as a whole: cursors, and entries in their order.
fn write_page(header: Header, page: &MergeRecords<'_>) {
    let mut slot = [0; wire::FRAME_LEN_MAX];
    let mut writer = MergeWriter::new(&mut slot, header, page.target, page.cursor).expect("a page that was read");
    let mut said = Vec::new();
    for record in page.records.clone() {
        let fits = match &record {
            Record::Upsert(conn) => writer.push_upsert(&conn.flow()),
            Record::Section(section) => writer.push_section(section),
            Record::Unknown { .. } => continue,
            other => panic!("no entry: {other:?}"),
        };
        assert_eq!(fits, Ok(()), "no page can carry {record:?}");
        said.push(Meaning::of(record));
    }
    let len = writer.finish(page.next);
    let Payload::MergeRecords(again) = read(&slot[..len]) else { panic!("not RECORDS") };
    assert_eq!((again.target, again.cursor, again.next), (page.target, page.cursor, page.next));
    assert_eq!(again.records.map(Meaning::of).collect::<Vec<_>>(), said);
}

fn read(frame: &[u8]) -> Payload<'_> {
    Frame::parse(frame).and_then(Frame::verify).expect("what we write is valid").payload()
}

/// What a record says, however it says it.
#[derive(PartialEq, Debug)]
enum Meaning<'a> {
    Upsert(Flow),
    Delete(FlowKey),
    BucketEnd(u16, u64),
    Section(Section<'a>),
    Unknown,
}

impl<'a> Meaning<'a> {
    fn of(record: Record<'a>) -> Self {
        match record {
            Record::Upsert(conn) => Meaning::Upsert(conn.flow()),
            Record::Delete(conn) => Meaning::Delete(conn.key()),
            Record::BucketEnd { bucket, since } => Meaning::BucketEnd(bucket, since),
            Record::Section(section) => Meaning::Section(section),
            Record::Unknown { .. } => Meaning::Unknown,
        }
    }
}
