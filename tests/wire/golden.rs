//! Golden frames: `pcap/NAME.pcap` is one real IPv4 packet, `pcap/NAME.txt` is what it says, field by field.
//!
//! The files are the promise to everybody who speaks the protocol: what stands in them is what leaves and what is
//! understood. They change only when the protocol does; `SSYNCP_BLESS=1 cargo test --test wire golden` writes them
//! anew from the values below, and the difference is then read by a person.

use crate::kept;
use crate::kept::{file, read_packet, text};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use pnet::packet::Packet;
use pnet::packet::ipv4::{Ipv4Packet, checksum};
use ssyncp::flow::{
    Change, Endpoint, Flow, FlowKey, SequenceAdjustment, Synproxy, TcpInfo, Tuple, Zone, attribute, protocol, status,
};
use ssyncp::wire::{
    Advert, AdvertFlags, BucketDigest, BucketRange, CURSOR_END, Capabilities, DataWriter, DigestsAnswer,
    DigestsRequest, Follows, Fragment, Frame, FrameError, FrameFlags, Header, Kind, MergePull, MergeWriter,
    MissingRange, NodeId, Payload, PeerReport, Pull, Record, Section, Status, SyncCode, Target, WireRole,
    encode_advert, encode_digests_answer, encode_digests_request, encode_merge_pull, encode_pull, encode_status,
};
use std::fs;

/// Largest frame on a link of 1500 bytes.
const FRAME_LEN: usize = 1480;

/// What a golden frame holds.
enum Content {
    Advert(Advert<'static>),
    Status(Status<'static>),
    Pull(Pull<'static>),
    MergePull(MergePull),
    /// A page: the cursor that it answers, the next one, and the entries.
    Records(u64, u64, Vec<Entry<'static>>),
    DigestsRequest(DigestsRequest),
    DigestsAnswer(DigestsAnswer<'static>),
    Data(Vec<Entry<'static>>),
    /// Another golden frame, damaged, and the reason for which it is refused.
    Refused(&'static str, fn(&mut Vec<u8>), FrameError),
}

/// One record, as a value.
#[derive(Clone, PartialEq, Debug)]
enum Entry<'a> {
    Change(Change),
    BucketEnd(u16, u64),
    Section(Section<'a>),
}

impl<'a> From<Record<'a>> for Entry<'a> {
    fn from(record: Record<'a>) -> Self {
        match record {
            Record::Upsert(conn) => upsert(conn.flow()),
            Record::Delete(conn) => Entry::Change(Change::Delete(conn.key())),
            Record::BucketEnd { bucket, since } => Entry::BucketEnd(bucket, since),
            Record::Section(section) => Entry::Section(section),
            Record::Unknown { kind } => panic!("a record of unknown type {kind}"),
        }
    }
}

struct Golden {
    name: &'static str,
    story: &'static str,
    header: Header,
    content: Content,
}

const FIRST: Header = Header {
    sync_id: 81,
    kind: Kind::ADVERT,
    flags: FrameFlags(0),
    node: NodeId(1),
    incarnation: 0x1111_2222_3333_4444,
    seq: 1,
    term: 0,
};
const MASTER: Header = Header { seq: 1207, term: 3, ..FIRST };
const STREAM: Header = Header { kind: Kind::DATA, seq: 5001, term: 3, ..FIRST };
const BACKUP: Header =
    Header { kind: Kind::STATUS, node: NodeId(2), incarnation: 0xaaaa_bbbb_cccc_dddd, seq: 88, term: 3, ..FIRST };

const ASKER: Target = Target { node: NodeId(2), incarnation: 0xaaaa_bbbb_cccc_dddd };
const TARGET: Target = Target { node: NodeId(1), incarnation: 0x1111_2222_3333_4444 };

const KEY: FlowKey = FlowKey {
    source: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
    destination: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)),
    source_port: 40000,
    destination_port: 80,
    protocol: protocol::TCP,
    zone: Zone::DEFAULT,
};

fn plain(source_port: u16) -> Flow {
    Flow {
        state: 3,
        status: status::SEEN_REPLY | status::ASSURED | status::CONFIRMED,
        timeout: 432_000,
        ..Flow::new(FlowKey { source_port, ..KEY })
    }
}

fn natted() -> Flow {
    Flow {
        key: FlowKey { zone: Zone { id: 100, direction: Zone::ORIGINAL }, ..KEY },
        reply_source: Some(Endpoint { address: IpAddr::V4(Ipv4Addr::new(10, 1, 0, 20)), port: 8080 }),
        reply_destination: Some(Endpoint { address: IpAddr::V4(Ipv4Addr::new(10, 1, 0, 1)), port: 1025 }),
        status: 0x01be,
        tcp: Some(TcpInfo { window_scale_original: 7, window_scale_reply: 9, flags_original: 0x23, flags_reply: 0x33 }),
        mark: 0x2a,
        ..plain(40000)
    }
}

fn echo() -> Flow {
    let key = FlowKey { source_port: 0x1234, destination_port: 0x0800, protocol: protocol::ICMP, ..KEY };
    Flow { status: status::SEEN_REPLY | status::CONFIRMED, timeout: 30, ..Flow::new(key) }
}

const KEY6: FlowKey = FlowKey {
    source: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 1)),
    destination: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 10)),
    ..KEY
};

fn natted6() -> Flow {
    let inside = |last| IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last));
    Flow {
        key: FlowKey { zone: Zone { id: 100, direction: Zone::ORIGINAL }, ..KEY6 },
        reply_source: Some(Endpoint { address: inside(20), port: 8080 }),
        reply_destination: Some(Endpoint { address: inside(1), port: 1025 }),
        ..natted()
    }
}

/// A flow with an attribute of every type that has a name, and one that has none.
fn attributed() -> Flow {
    let sides = [
        SequenceAdjustment { position: 0x1000_0000, before: 0, after: 12 },
        SequenceAdjustment { position: 0x2000_0000, before: 0xffff_fff4, after: 0xffff_ffff },
    ];
    let mut labels = [0; 16];
    (labels[0], labels[15]) = (0x81, 0x01);
    let master = Tuple {
        source: KEY.source,
        destination: KEY.destination,
        source_port: 40_000,
        destination_port: 21,
        protocol: protocol::TCP,
    };
    let counters: Vec<u8> = [10_u64, 4_000, 9, 90_000].into_iter().flat_map(u64::to_be_bytes).collect();
    let synproxy = Synproxy { isn: 0x0102_0304, its: 0x0506_0708, timestamp_offset: 0xffff_fffe };
    let rows: [(u8, &[u8]); 11] = [
        (attribute::SEQUENCE_ADJUSTMENT, &SequenceAdjustment::to_wire(&sides)),
        (attribute::LABELS, &labels),
        (attribute::HELPER, b"ftp-20021"),
        (attribute::IPVS, &[0, 0, 1, 0, 0, 0, 0, 7]),
        (attribute::MASTER, &master.to_wire().expect("one family")),
        (attribute::COUNTERS, &counters),
        (attribute::SYNPROXY, &synproxy.to_wire()),
        (attribute::START, &1_700_000_000_000_000_000_u64.to_be_bytes()),
        (attribute::EXPECTATIONS, &[1, 2, 3]),
        (attribute::PROTOCOL, &[1, 2, 3, 4, 5]),
        (200, &[0xab]),
    ];
    let mut flow = natted();
    for (kind, data) in rows {
        flow.attributes.set(kind, data).expect("fits");
    }
    flow
}

/// An expected flow over IPv6: its master's tuple has 40 bytes.
fn expected6() -> Flow {
    let FlowKey { source, destination, .. } = KEY6;
    let master = Tuple { source, destination, source_port: 40_000, destination_port: 21, protocol: protocol::TCP };
    let mut flow = Flow { state: 3, timeout: 300, ..Flow::new(FlowKey { destination_port: 30_000, ..KEY6 }) };
    flow.attributes.set(attribute::MASTER, &master.to_wire().expect("one family")).expect("fits");
    flow
}

/// 1000 bytes of a value, from `offset` on.
fn part(offset: u32, back: u32, bytes: &'static [u8]) -> Entry<'static> {
    let fragment = Some(Fragment { expiry: 0, total: 1000, offset, back, bytes });
    Entry::Section(Section { table: 7, key: b"long", fragment })
}

fn upsert(flow: Flow) -> Entry<'static> {
    Entry::Change(Change::Upsert(flow))
}

fn goldens() -> Vec<Golden> {
    let golden = |name, story, header, content| Golden { name, story, header, content };
    vec![
        golden(
            "advert-first",
            "The first word of a node that has just started: cold, without a role, and it hears nobody.",
            FIRST,
            Content::Advert(Advert {
                role: WireRole::INIT,
                priority: 100,
                interval_ms: 100,
                flags: AdvertFlags::COLD,
                name: b"lb1",
                ..Advert::default()
            }),
        ),
        golden(
            "advert-master-with-peers",
            "A master at work: term 3 began after number 4000, 5001 has been sent, and two backups are heard.",
            MASTER,
            Content::Advert(Advert {
                role: WireRole::MASTER,
                priority: 150,
                interval_ms: 100,
                flags: AdvertFlags::DIGEST_VALID,
                term_start: 4000,
                stream_seq: 5001,
                history_start: 4001,
                digest: 0xfeed_face_dead_beef,
                entries: 61_440,
                follows: Follows::default(),
                hash_seed: 0x0123_4567_89ab_cdef,
                capabilities: Capabilities::CONN6.with(Capabilities::ATTRIBUTES),
                kernel_capacity: 262_144,
                kernel_buckets: 65_536,
                name: b"lb1.example",
                peers: const {
                    &[
                        PeerReport::new(NodeId(2), 0xaaaa_bbbb_cccc_dddd, 4096, 88, 5001),
                        PeerReport::new(NodeId(3), 0x3333_0000_3333_0000, 0, 7, 4990),
                    ]
                },
            }),
        ),
        golden(
            "advert-backup-follows",
            "A backup that is proven, follows node 1, and asks for the role.",
            Header { kind: Kind::ADVERT, seq: 89, ..BACKUP },
            Content::Advert(Advert {
                role: WireRole::BACKUP,
                priority: 200,
                interval_ms: 100,
                flags: AdvertFlags::ASKS,
                follows: Follows { node: NodeId(1), heir: NodeId(0), incarnation: TARGET.incarnation, term: 3 },
                name: b"lb2.example",
                peers: const { &[PeerReport::new(NodeId(1), TARGET.incarnation, 4096, 1207, 5001)] },
                ..Advert::default()
            }),
        ),
        golden(
            "data-plain",
            "One TCP connection without NAT: 24 bytes.",
            STREAM,
            Content::Data(vec![upsert(plain(40000))]),
        ),
        golden(
            "data-nat",
            "One TCP connection with everything: DNAT, SNAT, window scales, mark and zone.",
            Header { seq: 5002, ..STREAM },
            Content::Data(vec![upsert(natted())]),
        ),
        golden(
            "data-icmp",
            "An ICMP echo: the identifier stands for the source port, type and code for the destination port.",
            Header { seq: 5003, ..STREAM },
            Content::Data(vec![upsert(echo())]),
        ),
        golden(
            "data-delete",
            "Two connections are gone; the second was in a zone.",
            Header { seq: 5004, ..STREAM },
            Content::Data(vec![Entry::Change(Change::Delete(KEY)), Entry::Change(Change::Delete(natted().key))]),
        ),
        golden(
            "data-bucket-end",
            "The end of a walk: one entry of bucket 4095, and the word that there are no others since 5000.",
            Header { seq: 5005, ..STREAM },
            Content::Data(vec![upsert(plain(40001)), Entry::BucketEnd(4095, 5000)]),
        ),
        golden(
            "data-full",
            "As many plain connections as a link of 1500 bytes carries: 60.",
            Header { seq: 5006, ..STREAM },
            Content::Data((0..60).map(|nth| upsert(plain(50_000 + nth))).collect()),
        ),
        golden(
            "status-ack",
            "A proven backup acknowledges everything up to 5001.",
            BACKUP,
            Content::Status(Status {
                target: TARGET,
                frontier: 5001,
                base: 4000,
                credit: 4096,
                state: SyncCode::PROVEN,
                missing: &[],
            }),
        ),
        golden(
            "status-missing",
            "A backup asks again for 4991 and for 4995 to 4999.",
            Header { seq: 90, ..BACKUP },
            Content::Status(Status {
                target: TARGET,
                frontier: 4990,
                base: 4000,
                credit: 4085,
                state: SyncCode::SYNCING,
                missing: const { &[MissingRange::new(4991, 1), MissingRange::new(4995, 5)] },
            }),
        ),
        golden(
            "data-conn6-plain",
            "One TCP connection over IPv6 without NAT: 48 bytes.",
            Header { seq: 5007, ..STREAM },
            Content::Data(vec![upsert(Flow {
                state: 3,
                status: status::SEEN_REPLY | status::ASSURED | status::CONFIRMED,
                timeout: 432_000,
                ..Flow::new(KEY6)
            })]),
        ),
        golden(
            "data-conn6-nat",
            "One TCP connection over IPv6 with everything but attributes: 100 bytes.",
            Header { seq: 5008, ..STREAM },
            Content::Data(vec![upsert(natted6())]),
        ),
        golden(
            "data-conn6-delete",
            "Two connections over IPv6 are gone; the second was in a zone.",
            Header { seq: 5009, ..STREAM },
            Content::Data(vec![Entry::Change(Change::Delete(KEY6)), Entry::Change(Change::Delete(natted6().key))]),
        ),
        golden(
            "data-attributes",
            "An attribute of every type that has a name and one that has none; and an expected flow over IPv6.",
            Header { seq: 5010, ..STREAM },
            Content::Data(vec![upsert(attributed()), upsert(expected6())]),
        ),
        golden(
            "data-section",
            "Section 7: \"web\" is \"hello\" for an hour, \"off\" is empty, \"old\" is gone.",
            Header { seq: 5011, ..STREAM },
            Content::Data(vec![
                Entry::Section(Section {
                    table: 7,
                    key: b"web",
                    fragment: Some(Fragment { expiry: 3600, total: 5, offset: 0, back: 0, bytes: b"hello" }),
                }),
                Entry::Section(Section {
                    table: 7,
                    key: b"off",
                    fragment: Some(Fragment { expiry: 0, total: 0, offset: 0, back: 0, bytes: b"" }),
                }),
                Entry::Section(Section { table: 7, key: b"old", fragment: None }),
            ]),
        ),
        golden(
            "data-fragments",
            "A value of 1000 bytes: its first two fragments are in this frame.",
            Header { seq: 5012, ..STREAM },
            Content::Data(vec![part(0, 0, &[1; 600]), part(600, 0, &[2; 200])]),
        ),
        golden(
            "data-fragment-last",
            "The last 200 bytes of that value, one frame later.",
            Header { seq: 5013, ..STREAM },
            Content::Data(vec![part(800, 1, &[3; 200])]),
        ),
        golden(
            "digests-request",
            "A backup asks for the digests of the buckets 4088 to 4095.",
            Header { kind: Kind::DIGESTS_REQUEST, seq: 91, ..BACKUP },
            Content::DigestsRequest(DigestsRequest { target: TARGET, buckets: BucketRange::new(4088, 8) }),
        ),
        golden(
            "digests-answer",
            "The answer as of number 5013; a change of bucket 4090 still waits to be sent.",
            Header { kind: Kind::DIGESTS_ANSWER, seq: 1208, ..MASTER },
            Content::DigestsAnswer(DigestsAnswer {
                target: ASKER,
                cut: 5013,
                first: 4088,
                settled: 0b1111_1011,
                digests: const {
                    &[
                        BucketDigest::new(0x0102_0304_0506_0708),
                        BucketDigest::new(0),
                        BucketDigest::new(0),
                        BucketDigest::new(3),
                        BucketDigest::new(4),
                        BucketDigest::new(5),
                        BucketDigest::new(6),
                        BucketDigest::new(u64::MAX),
                    ]
                },
            }),
        ),
        golden(
            "pull-merge",
            "A new master asks node 1, who was one too, for what it has of node 3's stream above 4990.",
            Header { kind: Kind::PULL, seq: 92, ..BACKUP },
            Content::MergePull(MergePull {
                target: TARGET,
                node: NodeId(3),
                incarnation: 0x3333_0000_3333_0000,
                after: 4990,
                cursor: 0,
            }),
        ),
        golden(
            "pull-merge-done",
            "It has asked for the last page and says so.",
            Header { kind: Kind::PULL, seq: 94, ..BACKUP },
            Content::MergePull(MergePull {
                target: TARGET,
                node: NodeId(3),
                incarnation: 0x3333_0000_3333_0000,
                after: 4990,
                cursor: CURSOR_END,
            }),
        ),
        golden(
            "records-first",
            "The first page of the answer: two entries, and where to ask on.",
            Header { kind: Kind::RECORDS, seq: 1209, ..MASTER },
            Content::Records(0, 0x0000_0001_0000_0002, vec![upsert(plain(40_002)), upsert(natted6())]),
        ),
        golden(
            "records-last",
            "The last page.",
            Header { kind: Kind::RECORDS, seq: 1210, ..MASTER },
            Content::Records(0x0000_0001_0000_0002, CURSOR_END, vec![upsert(plain(40_003))]),
        ),
        golden(
            "pull-all",
            "A cold backup asks for all 4096 buckets.",
            Header { kind: Kind::PULL, seq: 3, ..BACKUP },
            Content::Pull(Pull { target: TARGET, ranges: const { &[BucketRange::new(0, 4096)] } }),
        ),
        golden(
            "refused-checksum",
            "One bit of data-plain flipped on the way: port 40000 reads 40001.",
            STREAM,
            Content::Refused("data-plain", |frame| frame[53] ^= 1, FrameError::Checksum),
        ),
        golden(
            "refused-size",
            "data-plain with four bytes behind its end.",
            STREAM,
            Content::Refused("data-plain", |frame| frame.extend([0; 4]), FrameError::SizeMismatch),
        ),
        golden(
            "refused-version",
            "data-plain in a version 2 that nobody has written yet.",
            STREAM,
            Content::Refused(
                "data-plain",
                |frame| {
                    frame[4] = 2;
                    repair_checksum(frame);
                },
                FrameError::UnknownVersion,
            ),
        ),
        golden(
            "refused-sealed",
            "A sealed frame for a node without a secret: the payload is encrypted, a tag of 16 bytes follows.",
            STREAM,
            Content::Refused(
                "data-plain",
                |frame| {
                    frame[6..8].copy_from_slice(&[0x01, 0x01]);
                    frame[40..].iter_mut().for_each(|byte| *byte ^= 0x5a);
                    frame.extend([0xa5; 16]);
                    frame[3] += 16;
                    repair_checksum(frame);
                },
                FrameError::Sealed,
            ),
        ),
        golden(
            "refused-record",
            "data-plain whose record says that it has a mark and is too short for one.",
            STREAM,
            Content::Refused(
                "data-plain",
                |frame| {
                    frame[42] = 0x08;
                    repair_checksum(frame);
                },
                FrameError::RecordLength,
            ),
        ),
        golden(
            "refused-conn6",
            "data-conn6-plain whose record says that it is one of IPv4.",
            STREAM,
            Content::Refused("data-conn6-plain", |frame| set(frame, 40, 1), FrameError::RecordLength),
        ),
        golden(
            "refused-attribute",
            "data-attributes whose attribute of unknown type goes on past the end of its record.",
            STREAM,
            Content::Refused(
                "data-attributes",
                |frame| {
                    let at = frame.windows(3).position(|bytes| bytes == [200, 1, 0xab]).expect("is there");
                    set(frame, at + 1, 3);
                },
                FrameError::RecordAttribute,
            ),
        ),
        golden(
            "refused-section",
            "data-fragment-last whose offset lies behind the end of its value.",
            STREAM,
            Content::Refused("data-fragment-last", |frame| set(frame, 58, 4), FrameError::RecordField),
        ),
        golden(
            "refused-digests-length",
            "digests-answer that says it has one digest more.",
            STREAM,
            Content::Refused("digests-answer", |frame| set(frame, 67, 7), FrameError::DigestsLength),
        ),
        golden(
            "refused-digests-field",
            "digests-request for eight buckets of which the last is not there.",
            STREAM,
            Content::Refused("digests-request", |frame| set(frame, 57, 0xf9), FrameError::DigestsField),
        ),
        golden(
            "refused-records-length",
            "records-last cut off before its next cursor, the size corrected.",
            STREAM,
            Content::Refused(
                "records-last",
                |frame| {
                    frame.truncate(64);
                    set(frame, 3, 64);
                },
                FrameError::RecordsLength,
            ),
        ),
        golden(
            "refused-records-field",
            "records-last that answers to nobody.",
            STREAM,
            Content::Refused("records-last", |frame| set(frame, 43, 0), FrameError::RecordsField),
        ),
    ]
}

fn set(frame: &mut [u8], at: usize, value: u8) {
    frame[at] = value;
    repair_checksum(frame);
}

fn repair_checksum(frame: &mut [u8]) {
    frame[8..12].fill(0);
    let checksum = crc32fast::hash(frame);
    frame[8..12].copy_from_slice(&checksum.to_be_bytes());
}

/// The frame that the encoder writes for a golden's values.
fn encode(golden: &Golden) -> Vec<u8> {
    let mut slot = [0; FRAME_LEN];
    let header = golden.header;
    let len = match &golden.content {
        Content::Advert(advert) => encode_advert(&mut slot, header, advert).expect("fits"),
        Content::Status(status) => encode_status(&mut slot, header, status).expect("fits"),
        Content::Pull(pull) => encode_pull(&mut slot, header, pull).expect("fits"),
        Content::MergePull(pull) => encode_merge_pull(&mut slot, header, pull).expect("fits"),
        Content::DigestsRequest(request) => encode_digests_request(&mut slot, header, request).expect("fits"),
        Content::DigestsAnswer(answer) => encode_digests_answer(&mut slot, header, answer).expect("fits"),
        Content::Records(cursor, next, entries) => {
            let mut writer = MergeWriter::new(&mut slot, header, ASKER, *cursor).expect("fits");
            for entry in entries {
                let Entry::Change(Change::Upsert(flow)) = entry else { panic!("a page has flows") };
                assert_eq!(writer.push_upsert(flow), Ok(()));
            }
            writer.finish(*next)
        }
        Content::Data(entries) => {
            let mut writer = DataWriter::new(&mut slot, header).expect("fits");
            for entry in entries {
                let written = match entry {
                    Entry::Change(Change::Upsert(flow)) => writer.push_upsert(flow),
                    Entry::Change(Change::Delete(key)) => writer.push_delete(key),
                    Entry::BucketEnd(bucket, since) => writer.push_bucket_end(*bucket, *since),
                    Entry::Section(section) => writer.push_section(section),
                };
                assert_eq!(written, Ok(()));
            }
            writer.finish()
        }
        Content::Refused(original, damage, _) => {
            let mut frame = frame_of(original);
            damage(&mut frame);
            return frame;
        }
    };
    slot[..len].to_vec()
}

fn frame_of(name: &str) -> Vec<u8> {
    encode(goldens().iter().find(|golden| golden.name == name).expect("a golden frame of this name"))
}

fn read_frame(name: &str) -> Vec<u8> {
    Ipv4Packet::new(&read_packet(name)).expect("an IPv4 packet").payload().to_vec()
}

fn bless() {
    kept::bless(&[], || goldens().iter().map(|golden| (golden.name, golden.story, encode(golden))).collect());
}

#[test]
fn every_golden_packet_says_what_its_text_says() {
    bless();
    for golden in goldens() {
        let expected = fs::read_to_string(file(golden.name, "txt")).unwrap_or_default();
        let told = text(golden.name, golden.story, &read_packet(golden.name), &[]);
        assert_eq!(told, expected, "pcap/{}.txt", golden.name);
    }
}

#[test]
fn every_golden_frame_is_what_the_encoder_writes() {
    bless();
    for golden in goldens() {
        assert_eq!(read_frame(golden.name), encode(&golden), "pcap/{}.pcap", golden.name);
    }
}

/// [3.0.1] [3] Protocol 114 to 224.0.0.81, TTL 255, not to be fragmented, a correct header checksum.
#[test]
fn every_golden_packet_travels_as_the_protocol_says() {
    bless();
    for golden in goldens() {
        let packet = read_packet(golden.name);
        // Version 4, 20 bytes of header; DF; TTL 255, protocol 114; destination.
        assert_eq!((packet[0], packet[6], packet[8], packet[9]), (0x45, 0x40, 255, 114), "{}", golden.name);
        assert_eq!(packet[16..20], [224, 0, 0, 81], "{}", golden.name);
        let ip = Ipv4Packet::new(&packet).expect("an IPv4 packet");
        assert_eq!(ip.get_checksum(), checksum(&ip), "{}", golden.name);
        assert_eq!(usize::from(ip.get_total_length()), packet.len(), "{}", golden.name);
    }
}

#[test]
fn every_golden_frame_is_read_as_the_values_it_was_written_from() {
    bless();
    for golden in goldens() {
        let frame = read_frame(golden.name);
        let verified = Frame::parse(&frame).and_then(Frame::verify);
        let name = golden.name;
        if let Content::Refused(_, _, reason) = golden.content {
            assert_eq!(verified.err(), Some(reason), "{name}");
            continue;
        }
        let verified = verified.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(verified.header(), golden.header, "{name}");
        match (verified.payload(), golden.content) {
            (Payload::Advert(read), Content::Advert(written)) => assert_eq!(read, written, "{name}"),
            (Payload::Status(read), Content::Status(written)) => assert_eq!(read, written, "{name}"),
            (Payload::Pull(read), Content::Pull(written)) => assert_eq!(read, written, "{name}"),
            (Payload::MergePull(read), Content::MergePull(written)) => assert_eq!(read, written, "{name}"),
            (Payload::DigestsRequest(read), Content::DigestsRequest(written)) => assert_eq!(read, written, "{name}"),
            (Payload::DigestsAnswer(read), Content::DigestsAnswer(written)) => assert_eq!(read, written, "{name}"),
            (Payload::MergeRecords(read), Content::Records(cursor, next, written)) => {
                assert_eq!((read.target, read.cursor, read.next), (ASKER, cursor, next), "{name}");
                assert_eq!(read.records.map(Entry::from).collect::<Vec<_>>(), written, "{name}");
            }
            (Payload::Data(read), Content::Data(written)) => {
                let read: Vec<Entry<'_>> = read.map(Entry::from).collect();
                assert_eq!(read, written, "{name}");
            }
            _ => panic!("{name}: another kind"),
        }
    }
}

/// Bytes put together without this project's encoder (Python's struct and zlib).
const LITERALS: [(&str, &str); 4] = [
    (
        "advert-first",
        "00 51 00 8b 01 01 00 00 00 1f 46 78 00 00 00 01 11 11 22 22 33 33 44 44 00 00 00 00 00 00 00 01 \
         00 00 00 00 00 00 00 00 00 64 00 64 00 00 00 01 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 \
         00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 \
         00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 \
         00 00 00 00 03 00 00 00 6c 62 31",
    ),
    (
        "data-plain",
        "01 51 00 40 01 02 00 00 c0 50 95 35 00 00 00 01 11 11 22 22 33 33 44 44 00 00 00 00 00 00 13 89 \
         00 00 00 00 00 00 00 03 01 01 00 06 0a 00 00 01 c0 00 02 0a 9c 40 00 50 06 03 00 0e 00 06 97 80",
    ),
    (
        "status-ack",
        "00 51 00 50 01 03 00 00 45 56 c9 7c 00 00 00 02 aa aa bb bb cc cc dd dd 00 00 00 00 00 00 00 58 \
         00 00 00 00 00 00 00 03 00 00 00 01 00 00 00 00 11 11 22 22 33 33 44 44 00 00 00 00 00 00 13 89 \
         00 00 00 00 00 00 0f a0 00 00 10 00 02 00 00 00",
    ),
    (
        "pull-all",
        "00 51 00 40 01 06 00 00 4c 27 c9 39 00 00 00 02 aa aa bb bb cc cc dd dd 00 00 00 00 00 00 00 03 \
         00 00 00 00 00 00 00 03 00 00 00 01 00 00 00 00 11 11 22 22 33 33 44 44 01 01 00 00 00 00 10 00",
    ),
];

/// [3.2.1]
#[test]
fn golden_frames_are_the_bytes_that_somebody_else_would_write() {
    for (name, literal) in LITERALS {
        let bytes: Vec<String> = frame_of(name).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(bytes.join(" "), literal, "{name}");
    }
}
