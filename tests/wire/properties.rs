//! What holds for every value and for every string of bytes: values come back as they went, bytes are taken or
//! refused and never bring anything down, and a damaged frame is refused.

use core::net::{IpAddr, Ipv4Addr};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use ssyncp::flow::{Attributes, Change, Endpoint, Flow, FlowKey, TcpInfo, Zone};
use ssyncp::wire::{
    Advert, AdvertFlags, BucketDigest, BucketRange, Capabilities, DataWriter, DigestsAnswer, DigestsRequest,
    FRAME_LEN_MAX, FRAME_LEN_MIN, Follows, Fragment, Frame, FrameError, FrameFlags, HEADER_LEN, Header, Kind,
    MergePull, MergeRecords, MergeWriter, MissingRange, NodeId, Payload, PeerReport, Pull, PushError, Record, Section,
    Status, SyncCode, Target, WireRole, describe, encode_advert, encode_digests_answer, encode_digests_request,
    encode_merge_pull, encode_pull, encode_status,
};

/// One record, as a value.
#[derive(Clone, PartialEq, Debug)]
enum Entry {
    Change(Change),
    BucketEnd(u16, u64),
    /// Table and key; of a value that is still there: expiry, total, offset, back, and the bytes.
    Section(u16, Vec<u8>, Option<([u32; 4], Vec<u8>)>),
}

impl Entry {
    fn push(&self, writer: &mut DataWriter<'_>) -> Result<(), PushError> {
        match self {
            Entry::Change(Change::Upsert(flow)) => writer.push_upsert(flow),
            Entry::Change(Change::Delete(key)) => writer.push_delete(key),
            Entry::BucketEnd(bucket, since) => writer.push_bucket_end(*bucket, *since),
            Entry::Section(table, key, fragment) => {
                let fragment = fragment.as_ref().map(|([expiry, total, offset, back], bytes)| Fragment {
                    expiry: *expiry,
                    total: *total,
                    offset: *offset,
                    back: *back,
                    bytes,
                });
                writer.push_section(&Section { table: *table, key, fragment })
            }
        }
    }

    /// `None` for a record of unknown type.
    fn read(record: Record<'_>) -> Option<Self> {
        match record {
            Record::Upsert(conn) => Some(Entry::Change(Change::Upsert(conn.flow()))),
            Record::Delete(conn) => Some(Entry::Change(Change::Delete(conn.key()))),
            Record::BucketEnd { bucket, since } => Some(Entry::BucketEnd(bucket, since)),
            Record::Section(Section { table, key, fragment }) => {
                let fragment = fragment.map(|it| ([it.expiry, it.total, it.offset, it.back], it.bytes.to_vec()));
                Some(Entry::Section(table, key.to_vec(), fragment))
            }
            Record::Unknown { .. } => None,
        }
    }
}

/// An address of one family, and a port.
fn endpoint(six: bool) -> impl Strategy<Value = Endpoint> {
    any::<([u8; 16], u16)>().prop_map(move |(octets, port)| {
        let address =
            if six { IpAddr::from(octets) } else { IpAddr::from([octets[0], octets[1], octets[2], octets[3]]) };
        Endpoint { address, port }
    })
}

/// Any attributes that a flow can have.
fn attributes() -> impl Strategy<Value = Attributes> {
    let row = vec((1..=255_u8, prop_oneof![9 => vec(any::<u8>(), 0..40), 1 => vec(any::<u8>(), 0..256)]), 0..12);
    prop_oneof![
        2 => Just(Attributes::NONE),
        1 => row.prop_map(|row| {
            let mut attributes = Attributes::NONE;
            for (kind, data) in row {
                // One that does not fit changes nothing.
                let _ = attributes.set(kind, &data);
            }
            attributes
        }),
    ]
}

fn zone() -> impl Strategy<Value = Zone> {
    prop_oneof![
        2 => Just(Zone::DEFAULT),
        1 => (prop_oneof![Just(0), any::<u16>()], 0..=2_u8).prop_map(|(id, direction)| Zone { id, direction }),
    ]
}

fn key(six: bool) -> impl Strategy<Value = FlowKey> {
    (endpoint(six), endpoint(six), any::<u8>(), zone()).prop_map(|(source, destination, protocol, zone)| FlowKey {
        source: source.address,
        destination: destination.address,
        source_port: source.port,
        destination_port: destination.port,
        protocol,
        zone,
    })
}

fn tcp() -> impl Strategy<Value = TcpInfo> {
    (0..=15_u8, 0..=15_u8, any::<u8>(), any::<u8>()).prop_map(|(original, reply, flags_original, flags_reply)| {
        TcpInfo { window_scale_original: original, window_scale_reply: reply, flags_original, flags_reply }
    })
}

/// Any canonical flow of one family.
fn flow(six: bool) -> impl Strategy<Value = Flow> {
    let reply = (option::of(endpoint(six)), option::of(endpoint(six)));
    let mark = prop_oneof![Just(0), any::<u32>()];
    (key(six), reply, any::<(u8, u16, u32)>(), option::of(tcp()), mark, attributes()).prop_map(
        |(key, (reply_source, reply_destination), (state, status, timeout), tcp, mark, attributes)| {
            Flow { key, reply_source, reply_destination, state, status, timeout, tcp, mark, attributes }.canonical()
        },
    )
}

fn entry() -> impl Strategy<Value = Entry> {
    prop_oneof![
        4 => any::<bool>().prop_flat_map(flow).prop_map(|flow| Entry::Change(Change::Upsert(flow))),
        2 => any::<bool>().prop_flat_map(key).prop_map(|key| Entry::Change(Change::Delete(key))),
        1 => section(),
        1 => (0..4096_u16, any::<u64>()).prop_map(|(bucket, since)| Entry::BucketEnd(bucket, since)),
    ]
}

/// Any section's change that is within the bounds.
fn section() -> impl Strategy<Value = Entry> {
    let key = vec(any::<u8>(), 1..=64);
    let fragment = (any::<[u32; 2]>(), 0..4000_u32, vec(any::<u8>(), 0..=600), any::<bool>());
    (any::<u16>(), key, option::of(fragment)).prop_map(|(table, key, fragment)| {
        let fragment = fragment.map(|([expiry, back], words, mut bytes, last)| {
            let offset = if bytes.is_empty() { 0 } else { words * 4 };
            if !last {
                bytes.truncate(bytes.len() / 4 * 4);
            }
            let end = offset + bytes.len() as u32;
            let total = if last || bytes.is_empty() { end } else { end + 1 };
            let (offset, total) = if bytes.is_empty() { (0, 0) } else { (offset, total) };
            ([expiry, total, offset, if offset == 0 { 0 } else { back }], bytes)
        });
        Entry::Section(table, key, fragment)
    })
}

/// Any valid header, its kind left to the encoder.
fn header() -> impl Strategy<Value = Header> {
    (any::<u8>(), 1..=u32::MAX, 1..=u64::MAX, 1..=u64::MAX, any::<u64>()).prop_map(
        |(sync_id, node, incarnation, seq, term)| Header {
            sync_id,
            kind: Kind::default(),
            flags: FrameFlags::default(),
            node: NodeId(node),
            incarnation,
            seq,
            term,
        },
    )
}

/// Mostly numbers that are valid, and now and then one at the edge.
fn edgy() -> impl Strategy<Value = u64> {
    prop_oneof![4 => any::<u64>(), 1 => Just(0), 1 => Just(u64::MAX)]
}

prop_compose! {
    fn peer()(node in 0..=3_u32, incarnation in edgy(), credit: u32, heard: u64, frontier: u64) -> PeerReport {
        PeerReport::new(NodeId(node), incarnation, credit, heard, frontier)
    }
}

prop_compose! {
    fn advert_numbers()(
        bytes: [u8; 2],
        interval_ms in prop_oneof![9 => any::<u16>(), 1 => Just(0)],
        numbers: [u64; 9],
        words: [u32; 6],
    ) -> Advert<'static> {
        Advert {
            role: WireRole(bytes[0]),
            priority: bytes[1],
            interval_ms,
            flags: AdvertFlags(words[0]),
            term_start: numbers[0],
            stream_seq: numbers[1],
            history_start: numbers[2],
            digest: numbers[3],
            entries: numbers[4],
            follows: Follows {
                node: NodeId(words[1]),
                heir: NodeId(words[2]),
                incarnation: numbers[5],
                term: numbers[6],
            },
            hash_seed: numbers[7],
            capabilities: Capabilities(words[3]),
            kernel_capacity: words[4],
            kernel_buckets: words[5],
            name: &[],
            peers: &[],
        }
    }
}

fn target() -> impl Strategy<Value = Target> {
    (0..=3_u32, edgy()).prop_map(|(node, incarnation)| Target { node: NodeId(node), incarnation })
}

/// Writes as many of the entries as fit and says how many did.
fn write(slot: &mut [u8], header: Header, entries: &[Entry]) -> (usize, usize) {
    let mut writer = DataWriter::new(slot, header).expect("room for the header");
    for entry in entries {
        if entry.push(&mut writer).is_err() {
            break;
        }
    }
    (writer.count(), writer.finish())
}

/// The records of a DATA frame as values; those of unknown type are left out.
fn read(payload: Payload<'_>) -> Vec<Entry> {
    let (Payload::Data(records) | Payload::MergeRecords(MergeRecords { records, .. })) = payload else {
        panic!("neither DATA nor RECORDS")
    };
    let announced = records.len();
    let all: Vec<Record<'_>> = records.collect();
    assert_eq!(all.len(), announced);
    all.into_iter().filter_map(Entry::read).collect()
}

/// Corrects size and checksum, so that a frame meets the checks behind them.
fn finish(frame: &mut [u8]) {
    let Ok(size) = u16::try_from(frame.len()) else { return };
    if frame.len() < HEADER_LEN {
        return;
    }
    frame[2..4].copy_from_slice(&size.to_be_bytes());
    frame[8..12].fill(0);
    let checksum = crc32fast::hash(frame);
    frame[8..12].copy_from_slice(&checksum.to_be_bytes());
}

/// Takes bytes as far as they go: parse, verify, read every value, describe. If they are a frame, what was read is
/// encoded again and must read the same.
fn exercise(bytes: &[u8]) -> Result<(), FrameError> {
    assert!(describe(bytes, &[]).contains(match Frame::parse(bytes).and_then(Frame::verify) {
        Ok(_) => "\naccepted\n",
        Err(_) => "\nrefused: ",
    }));
    let verified = Frame::parse(bytes).and_then(Frame::verify)?;
    let header = verified.header();
    let mut slot = [0; FRAME_LEN_MAX];
    let len = match verified.payload() {
        Payload::Advert(advert) => encode_advert(&mut slot, header, &advert).expect("what was read can be written"),
        Payload::Status(status) => encode_status(&mut slot, header, &status).expect("what was read can be written"),
        Payload::Pull(pull) => encode_pull(&mut slot, header, &pull).expect("what was read can be written"),
        Payload::MergePull(pull) => encode_merge_pull(&mut slot, header, &pull).expect("what was read can be written"),
        Payload::DigestsRequest(request) => {
            encode_digests_request(&mut slot, header, &request).expect("what was read can be written")
        }
        Payload::DigestsAnswer(answer) => {
            assert_eq!(answer.iter().count(), answer.digests.len());
            encode_digests_answer(&mut slot, header, &answer).expect("what was read can be written")
        }
        payload @ (Payload::Data(_) | Payload::MergeRecords(_)) => {
            let entries = read(payload);
            let (count, len) = write(&mut slot, header, &entries);
            assert_eq!(count, entries.len());
            let again = Frame::parse(&slot[..len]).and_then(Frame::verify).expect("what was written can be read");
            assert_eq!(read(again.payload()), entries);
            return Ok(());
        }
    };
    assert_eq!(&slot[..len], bytes, "a control frame has one form");
    Ok(())
}

/// A few frames of every kind, as seeds for damage.
fn seeds() -> Vec<Vec<u8>> {
    let header = Header { sync_id: 81, node: NodeId(7), incarnation: 8, seq: 9, term: 10, ..Header::default() };
    let target = Target { node: NodeId(1), incarnation: 2 };
    let mut slot = [0; 1480];
    let peers = [PeerReport::new(NodeId(2), 3, 4, 5, 6), PeerReport::new(NodeId(3), 4, 5, 6, 7)];
    let advert = Advert { interval_ms: 100, name: b"lb1", peers: &peers, ..Advert::default() };
    let missing = [MissingRange::new(5, 1), MissingRange::new(7, 2)];
    let status = Status { target, missing: &missing, ..Status::default() };
    let ranges = [BucketRange::new(0, 16), BucketRange::new(4095, 1)];
    let address = IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3));
    let plain = FlowKey {
        source: address,
        destination: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        source_port: 4000,
        destination_port: 80,
        protocol: 6,
        zone: Zone::DEFAULT,
    };
    let natted = Flow {
        reply_source: Some(Endpoint { address, port: 1 }),
        reply_destination: Some(Endpoint { address, port: 2 }),
        tcp: Some(TcpInfo { window_scale_original: 7, ..TcpInfo::default() }),
        mark: 5,
        ..Flow::new(FlowKey { zone: Zone { id: 9, direction: 1 }, ..plain })
    };
    let mut six = Flow {
        key: FlowKey { source: IpAddr::from([1; 16]), destination: IpAddr::from([2; 16]), ..natted.key },
        reply_source: Some(Endpoint { address: IpAddr::from([3; 16]), port: 3 }),
        ..Flow::new(plain)
    };
    six.attributes.set(3, b"ftp").expect("fits");
    let entries = [
        Entry::Change(Change::Upsert(Flow::new(plain))),
        Entry::Change(Change::Upsert(natted.clone())),
        Entry::Change(Change::Delete(natted.key)),
        Entry::BucketEnd(9, 1),
    ];
    let mut seeds = Vec::new();
    let len = encode_advert(&mut slot, header, &advert).expect("fits");
    seeds.push(slot[..len].to_vec());
    let len = encode_status(&mut slot, header, &status).expect("fits");
    seeds.push(slot[..len].to_vec());
    let len = encode_pull(&mut slot, header, &Pull { target, ranges: &ranges }).expect("fits");
    seeds.push(slot[..len].to_vec());
    let (count, len) = write(&mut slot, header, &entries);
    assert_eq!((count, len), (4, 40 + 24 + 52 + 24 + 16));
    seeds.push(slot[..len].to_vec());
    let entries = [
        Entry::Change(Change::Upsert(six.clone())),
        Entry::Change(Change::Delete(six.key)),
        Entry::Section(9, b"web".to_vec(), Some(([5, 9, 4, 1], b"hello".to_vec()))),
        Entry::Section(9, b"old".to_vec(), None),
    ];
    let (count, len) = write(&mut slot, header, &entries);
    assert_eq!((count, len), (4, 40 + 80 + 48 + 36 + 12));
    seeds.push(slot[..len].to_vec());
    let request = DigestsRequest { target, buckets: BucketRange::new(7, 2) };
    let len = encode_digests_request(&mut slot, header, &request).expect("fits");
    seeds.push(slot[..len].to_vec());
    let digests = [BucketDigest::new(5), BucketDigest::new(0)];
    let answer = DigestsAnswer { target, cut: 3, first: 7, settled: 1, digests: &digests };
    let len = encode_digests_answer(&mut slot, header, &answer).expect("fits");
    seeds.push(slot[..len].to_vec());
    let pull = MergePull { target, node: NodeId(3), incarnation: 4, after: 5, cursor: 6 };
    let len = encode_merge_pull(&mut slot, header, &pull).expect("fits");
    seeds.push(slot[..len].to_vec());
    let mut page = MergeWriter::new(&mut slot, header, target, 6).expect("fits");
    page.push_upsert(&natted).expect("fits");
    page.push_upsert(&six).expect("fits");
    let len = page.finish(7);
    seeds.push(slot[..len].to_vec());
    // One more DATA frame, with attributes and with a record of a later version.
    let mut later = seeds[3][..HEADER_LEN].to_vec();
    later[0] = 2;
    later.extend_from_slice(&[1, 1, 0x80, 9, 10, 0, 0, 1, 10, 0, 0, 2, 0, 1, 0, 2, 17, 0, 0, 8, 0, 0, 0, 30]);
    later.extend_from_slice(&[4, 6, 1, 2, 3, 4, 5, 6, 9, 1, 7, 0, 77, 1, 2, 2, 3, 4, 5, 6]);
    finish(&mut later);
    seeds.push(later);
    seeds
}

/// One piece of damage to a frame.
#[derive(Clone, Debug)]
enum Damage {
    Set(usize, u8),
    Insert(usize, Vec<u8>),
    Remove(usize, usize),
    Repeat(usize, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => (any::<usize>(), any::<u8>()).prop_map(|(at, value)| Damage::Set(at, value)),
        1 => (any::<usize>(), vec(any::<u8>(), 1..40)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        1 => (any::<usize>(), 1..40_usize).prop_map(|(at, len)| Damage::Remove(at, len)),
        1 => (any::<usize>(), 1..60_usize).prop_map(|(at, len)| Damage::Repeat(at, len)),
    ]
}

fn apply(frame: &mut Vec<u8>, damage: &Damage) {
    let place = |at: usize| at % frame.len().max(1);
    match damage {
        Damage::Set(at, value) => {
            let at = place(*at);
            if let Some(byte) = frame.get_mut(at) {
                *byte = *value;
            }
        }
        Damage::Insert(at, bytes) => {
            let at = place(*at);
            frame.splice(at..at, bytes.iter().copied());
        }
        Damage::Remove(at, len) => {
            let at = place(*at);
            let end = (at + len).min(frame.len());
            frame.drain(at..end);
        }
        Damage::Repeat(at, len) => {
            let at = place(*at);
            let end = (at + len).min(frame.len());
            frame.extend_from_within(at..end);
        }
    }
}

proptest! {
    /// [3.3] Whatever was written comes back, record for record, and nothing else does.
    #[test]
    fn a_data_frame_comes_back_as_it_was_written(
        header in header(),
        entries in vec(entry(), 0..80),
        room in 40..=1480_usize,
    ) {
        let mut slot = vec![0xaa; room];
        let (count, len) = write(&mut slot, header, &entries);
        let verified = Frame::parse(&slot[..len]).and_then(Frame::verify).expect("valid");
        prop_assert_eq!(verified.header(), Header { kind: Kind::DATA, ..header });
        prop_assert_eq!(&read(verified.payload())[..], &entries[..count]);
        prop_assert!(slot[len..].iter().all(|byte| *byte == 0xaa), "nothing is written behind the frame");
        if count < entries.len() {
            let mut empty = [0; FRAME_LEN_MIN];
            prop_assert_eq!(write(&mut empty, header, &entries[count..=count]).0, 1, "only for want of room");
        }
    }

    /// [3.3.9] [3.3.10] Any flow of either family, with any attributes, travels in the smallest frame there is.
    #[test]
    fn any_flow_comes_back_from_the_smallest_frame(header in header(), flow in any::<bool>().prop_flat_map(flow)) {
        let mut slot = [0; FRAME_LEN_MIN];
        let (count, len) = write(&mut slot, header, &[Entry::Change(Change::Upsert(flow.clone()))]);
        prop_assert_eq!(count, 1);
        let verified = Frame::parse(&slot[..len]).and_then(Frame::verify).expect("valid");
        prop_assert_eq!(read(verified.payload()), [Entry::Change(Change::Upsert(flow))]);
    }

    /// [4.4.8] [5.5.2] What is asked and answered about digests and merges comes back as it was written.
    #[test]
    fn digests_and_pages_come_back_as_they_were_written(
        header in header(),
        target in target(),
        numbers: (u64, u64, u128),
        first in 0..4200_u16,
        sums in vec(any::<u64>(), 0..=130),
        flows in vec(any::<bool>().prop_flat_map(flow), 0..4),
    ) {
        let (cut, cursor, settled) = numbers;
        let bits = u32::try_from(sums.len()).expect("few").min(128);
        let settled = if bits == 128 { settled } else { settled & ((1 << bits) - 1) };
        let is_settled = |nth: usize| nth < 128 && settled >> nth & 1 == 1;
        let digests: Vec<BucketDigest> =
            sums.iter().enumerate().map(|(nth, sum)| BucketDigest::new(if is_settled(nth) { *sum } else { 0 })).collect();
        let answer = DigestsAnswer { target, cut, first, settled, digests: &digests };
        let mut slot = [0; FRAME_LEN_MAX];
        let real = target.node != NodeId(0) && target.incarnation != 0;
        let valid = real && !sums.is_empty() && sums.len() <= 128 && usize::from(first) + sums.len() <= 4096;
        let len = encode_digests_answer(&mut slot, header, &answer);
        prop_assert_eq!(len.is_some(), valid);
        if let Some(len) = len {
            let verified = Frame::parse(&slot[..len]).and_then(Frame::verify).expect("valid");
            let Payload::DigestsAnswer(read) = verified.payload() else { panic!("no answer") };
            prop_assert_eq!(read, answer);
        }
        let Some(mut page) = MergeWriter::new(&mut slot, header, target, cursor) else {
            prop_assert!(!real || cursor == u64::MAX);
            return Ok(());
        };
        for flow in &flows {
            prop_assert_eq!(page.push_upsert(flow), Ok(()));
        }
        let len = page.finish(cut.max(1));
        let verified = Frame::parse(&slot[..len]).and_then(Frame::verify).expect("valid");
        let entries: Vec<Entry> = flows.into_iter().map(|flow| Entry::Change(Change::Upsert(flow))).collect();
        prop_assert_eq!(read(verified.payload()), entries);
        let Payload::MergeRecords(page) = verified.payload() else { panic!("no page") };
        prop_assert_eq!((page.target, page.cursor, page.next), (target, cursor, cut.max(1)));
    }

    /// [3.5] Every ADVERT that can be written comes back; one that cannot has a value that would be refused.
    #[test]
    fn an_advert_comes_back_as_it_was_written(
        header in header(),
        numbers in advert_numbers(),
        name in vec(any::<u8>(), 0..=33),
        peers in vec(peer(), 0..=4),
    ) {
        let advert = Advert { name: &name, peers: &peers, ..numbers };
        let mut slot = [0; 1208];
        let valid = advert.interval_ms != 0
            && name.len() <= 32
            && peers.iter().all(|peer| peer.node() != NodeId(0) && peer.incarnation() != 0);
        let len = encode_advert(&mut slot, header, &advert);
        prop_assert_eq!(len.is_some(), valid);
        if let Some(len) = len {
            let verified = Frame::parse(&slot[..len]).and_then(Frame::verify).expect("valid");
            prop_assert_eq!(verified.header(), Header { kind: Kind::ADVERT, ..header });
            let Payload::Advert(read) = verified.payload() else { panic!("not an ADVERT") };
            prop_assert_eq!(read, advert);
        }
    }

    /// [3.6]
    #[test]
    fn a_status_comes_back_as_it_was_written(
        header in header(),
        target in target(),
        numbers: (u64, u64, u32, u8),
        missing in vec((edgy(), prop_oneof![9 => any::<u32>(), 1 => Just(0)]), 0..=4),
    ) {
        let (frontier, base, credit, state) = numbers;
        let ranges: Vec<MissingRange> =
            missing.iter().map(|(first, length)| MissingRange::new(*first, *length)).collect();
        let status = Status { target, frontier, base, credit, state: SyncCode(state), missing: &ranges };
        let mut slot = [0; 1208];
        let valid = target.node != NodeId(0)
            && target.incarnation != 0
            && missing.iter().all(|(first, length)| {
                *first != 0 && *length != 0 && u128::from(*first) + u128::from(*length) <= u128::from(u64::MAX)
            });
        let len = encode_status(&mut slot, header, &status);
        prop_assert_eq!(len.is_some(), valid);
        if let Some(len) = len {
            let verified = Frame::parse(&slot[..len]).and_then(Frame::verify).expect("valid");
            prop_assert_eq!(verified.header(), Header { kind: Kind::STATUS, ..header });
            let Payload::Status(read) = verified.payload() else { panic!("not a STATUS") };
            prop_assert_eq!(read, status);
        }
    }

    /// [4.5]
    #[test]
    fn a_pull_comes_back_as_it_was_written(
        header in header(),
        target in target(),
        buckets in vec((0..=4200_u16, 0..=300_u16), 0..=4),
    ) {
        let ranges: Vec<BucketRange> = buckets.iter().map(|(first, count)| BucketRange::new(*first, *count)).collect();
        let pull = Pull { target, ranges: &ranges };
        let mut slot = [0; 1208];
        let valid = target.node != NodeId(0)
            && target.incarnation != 0
            && buckets.iter().all(|(first, count)| *count != 0 && first + count <= 4096);
        let len = encode_pull(&mut slot, header, &pull);
        prop_assert_eq!(len.is_some(), valid);
        if let Some(len) = len {
            let verified = Frame::parse(&slot[..len]).and_then(Frame::verify).expect("valid");
            prop_assert_eq!(verified.header(), Header { kind: Kind::PULL, ..header });
            let Payload::Pull(read) = verified.payload() else { panic!("not a PULL") };
            prop_assert_eq!(read, pull);
        }
    }

    /// [1.2.2] Any bytes at all.
    #[test]
    fn no_bytes_bring_the_reader_down(bytes in vec(any::<u8>(), 0..300)) {
        let _ = exercise(&bytes);
    }

    /// [1.2] Any payload behind a header that passes every check: the reader gets to see it.
    #[test]
    fn no_payload_brings_the_reader_down(kind in 0..=8_u8, count in 0..=3_u8, payload in vec(any::<u8>(), 0..200)) {
        let mut frame = vec![0; HEADER_LEN];
        (frame[0], frame[4], frame[5]) = (count, 1, kind);
        (frame[15], frame[23], frame[31]) = (1, 1, 1);
        frame.extend_from_slice(&payload);
        finish(&mut frame);
        let _ = exercise(&frame);
    }

    /// [1.2] Frames that are nearly right, with a correct size and checksum: either refused, or read as something that
    /// can be written and read again.
    #[test]
    fn what_is_nearly_a_frame_is_refused_or_means_something(
        seed in any::<prop::sample::Index>(),
        damages in vec(damage(), 1..6),
    ) {
        let seeds = seeds();
        let mut frame = seed.get(&seeds).clone();
        for damage in &damages {
            apply(&mut frame, damage);
        }
        finish(&mut frame);
        let _ = exercise(&frame);
    }
}

#[test]
fn the_seeds_are_frames() {
    for seed in seeds() {
        assert_eq!(exercise(&seed), Ok(()));
    }
}

/// [3.2.4] Every single flipped bit is noticed, wherever it is: CRC-32 misses none.
#[test]
fn no_flipped_bit_is_missed() {
    for seed in seeds() {
        for bit in 0..seed.len() * 8 {
            let mut frame = seed.clone();
            frame[bit / 8] ^= 1 << (bit % 8);
            let expected = match bit / 8 {
                2 | 3 => FrameError::SizeMismatch,
                4 => FrameError::UnknownVersion,
                _ => FrameError::Checksum,
            };
            assert_eq!(Frame::parse(&frame).err(), Some(expected), "bit {bit}");
        }
    }
}

/// [3.2.2] A frame that was cut short anywhere, or has something behind it, is noticed.
#[test]
fn no_cut_and_no_surplus_is_missed() {
    for seed in seeds() {
        for len in 0..seed.len() {
            let expected = if len < 8 { FrameError::Truncated } else { FrameError::SizeMismatch };
            assert_eq!(Frame::parse(&seed[..len]).err(), Some(expected), "{len} bytes");
        }
        let longer = [&seed[..], &[0]].concat();
        assert_eq!(Frame::parse(&longer).err(), Some(FrameError::SizeMismatch));
    }
}

/// [3.2.9] A frame whose payload was cut short anywhere is refused, although its size and checksum are correct again.
#[test]
fn no_payload_cut_short_is_taken_for_a_whole_one() {
    for seed in seeds() {
        for len in HEADER_LEN..seed.len() {
            let mut frame = seed[..len].to_vec();
            finish(&mut frame);
            assert!(Frame::parse(&frame).is_ok());
            assert!(Frame::parse(&frame).and_then(Frame::verify).is_err(), "{len} of {} bytes", seed.len());
        }
    }
}

/// [1.2] Every byte of every seed with every value, size and checksum correct again: the reader meets each field's
/// whole range.
#[test]
fn no_value_of_any_byte_brings_the_reader_down() {
    for seed in seeds() {
        for at in 0..seed.len() {
            for value in 0..=255 {
                let mut frame = seed.clone();
                frame[at] = value;
                finish(&mut frame);
                let _ = Frame::parse(&frame).and_then(Frame::verify).map(|verified| match verified.payload() {
                    payload @ (Payload::Data(_) | Payload::MergeRecords(_)) => read(payload).len(),
                    Payload::DigestsAnswer(answer) => answer.iter().count(),
                    _ => 0,
                });
            }
        }
    }
}
