//! Every reason for which this room refuses a frame, each raised by a frame written out by hand.
//!
//! The frames are bytes, put together here and not by the project's encoder; only their checksum is computed.

use ssyncp::wire::{DropCounters, Frame, FrameError, Payload, Secret, unseal};
use std::collections::BTreeSet;

/// The plain record that most of the frames hold: tcp 10.0.0.1:40000 -> 192.0.2.10:80.
const PLAIN: [u8; 24] = [1, 1, 0, 6, 10, 0, 0, 1, 192, 0, 2, 10, 0x9c, 0x40, 0, 80, 6, 3, 0, 14, 0, 6, 0x97, 0x80];

/// A delete of the same.
const DELETE: [u8; 20] = [1, 2, 0, 5, 10, 0, 0, 1, 192, 0, 2, 10, 0x9c, 0x40, 0, 80, 6, 0, 0, 0];

/// A STATUS to node 1, incarnation 2, that misses nothing.
const STATUS: [u8; 40] = [
    0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 5, 2, 0,
    0, 0,
];

/// A PULL of bucket 7 from node 1, incarnation 2.
const PULL: [u8; 24] = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 1, 0, 0, 0, 7, 0, 1];

/// tcp [2001:db8::1]:40000 -> [2001:db8::2]:80 over IPv6, plain.
const PLAIN6: [u8; 48] = [
    2, 1, 0, 12, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 2, 0x9c, 0x40, 0, 80, 6, 3, 0, 14, 0, 6, 0x97, 0x80,
];

/// Section 9: "web" is "hello".
const SECTION: [u8; 36] = [
    16, 1, 0, 9, 0, 9, 0, 3, 0, 0, 14, 16, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, b'w', b'e', b'b', 0, b'h', b'e', b'l',
    b'l', b'o', 0, 0, 0,
];

/// A DIGESTS request for bucket 7 to node 1, incarnation 2.
const DIGESTS: [u8; 20] = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 7, 0, 1];

/// The answer to it, from number 9.
const ANSWER: [u8; 56] = [
    0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 9, 0, 7, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 8,
];

/// A PULL to node 1, incarnation 2, of what it has of node 3's stream.
const MERGE: [u8; 48] = [
    0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0,
    0, 5, 0, 0, 0, 0, 0, 0, 0, 0,
];

/// An empty and last page for node 1, incarnation 2.
const PAGE: [u8; 32] =
    [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255];

/// An ADVERT of every 100 ms, without a name and without peers.
fn advert() -> Vec<u8> {
    let mut payload = vec![0; 96];
    payload[3] = 100;
    payload
}

/// A frame of node 7, incarnation 8, number 9, term 1, with a correct size and checksum.
fn frame(kind: u8, count: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 40];
    (frame[0], frame[1], frame[4], frame[5]) = (count, 81, 1, kind);
    (frame[15], frame[23], frame[31], frame[39]) = (7, 8, 9, 1);
    frame.extend_from_slice(payload);
    finish(frame)
}

/// Corrects size and checksum.
fn finish(mut frame: Vec<u8>) -> Vec<u8> {
    let size = u16::try_from(frame.len()).expect("fits");
    frame[2..4].copy_from_slice(&size.to_be_bytes());
    frame[8..12].fill(0);
    let checksum = crc32fast::hash(&frame);
    frame[8..12].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// The frame with some of its bytes changed, size and checksum correct again.
fn changed(frame: &[u8], changes: &[(usize, u8)]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    for (index, value) in changes {
        frame[*index] = *value;
    }
    finish(frame)
}

fn data(record: &[u8]) -> Vec<u8> {
    frame(2, 1, record)
}

/// The record with its first bytes replaced and with `more` behind it.
fn record(start: [u8; 4], record: &[u8], more: &[u8]) -> Vec<u8> {
    [&start[..], &record[4..], more].concat()
}

/// 928 bytes of attributes: more than a flow may have, although this record has room for them.
fn too_long() -> Vec<u8> {
    let mut row = Vec::new();
    for (kind, len) in [(1, 254), (2, 254), (3, 254), (4, 158)] {
        row.extend_from_slice(&[kind, len]);
        row.resize(row.len() + usize::from(len), 0);
    }
    row
}

/// Every way to be refused, with the reason. Each is a valid frame but for the one thing.
fn refused() -> Vec<(Vec<u8>, FrameError)> {
    use FrameError as E;
    let plain = data(&PLAIN);
    let mut with_surplus = plain.clone();
    with_surplus.push(0);
    let mut damaged = plain.clone();
    damaged[63] ^= 0x80;
    let mut cut_header = plain[..39].to_vec();
    cut_header[3] = 39;
    vec![
        (Vec::new(), E::Truncated),
        (plain[..7].to_vec(), E::Truncated),
        (cut_header, E::Truncated),
        (finish(vec![0; 8961]), E::Oversized),
        (with_surplus, E::SizeMismatch),
        (plain[..63].to_vec(), E::SizeMismatch),
        (changed(&plain, &[(4, 0)]), E::UnknownVersion),
        (changed(&plain, &[(4, 2)]), E::UnknownVersion),
        (damaged, E::Checksum),
        (changed(&plain, &[(15, 0)]), E::ZeroNode),
        (changed(&plain, &[(23, 0)]), E::ZeroIncarnation),
        (changed(&plain, &[(31, 0)]), E::ZeroSequence),
        (changed(&plain, &[(7, 1)]), E::Sealed),
        (changed(&plain, &[(7, 2)]), E::UnknownFlags),
        (changed(&plain, &[(6, 1)]), E::UnknownFlags),
        (frame(0, 0, &[]), E::UnknownKind),
        (frame(8, 0, &[]), E::UnknownKind),
        (frame(255, 0, &[]), E::UnknownKind),
        (frame(2, 0, &PLAIN), E::CountMismatch),
        (frame(2, 2, &PLAIN), E::CountMismatch),
        (frame(2, 1, &[]), E::CountMismatch),
        (frame(1, 1, &advert()), E::CountMismatch),
        (frame(3, 1, &STATUS), E::CountMismatch),
        (frame(6, 1, &PULL), E::CountMismatch),
        (frame(6, 1, &MERGE), E::CountMismatch),
        (frame(4, 1, &DIGESTS), E::CountMismatch),
        (frame(5, 1, &ANSWER), E::CountMismatch),
        (frame(7, 1, &PAGE), E::CountMismatch),
        (data(&PLAIN[..20]), E::RecordTruncated),
        (data(&[1, 1, 0]), E::RecordTruncated),
        (data(&[9, 9, 9, 0]), E::RecordLength),
        (data(&record([1, 1, 0, 7], &PLAIN, &[0; 4])), E::RecordLength),
        (data(&record([1, 1, 8, 6], &PLAIN, &[])), E::RecordLength),
        (data(&record([1, 3, 0, 6], &PLAIN, &[])), E::RecordOperation),
        (data(&record([0, 1, 0, 6], &PLAIN, &[])), E::RecordOperation),
        (data(&record([1, 1, 0x20, 6], &PLAIN, &[])), E::RecordPresent),
        (data(&record([1, 2, 0x08, 6], &DELETE, &[0; 4])), E::RecordPresent),
        (data(&record([1, 1, 0x10, 7], &PLAIN, &[0, 1, 3, 0])), E::RecordField),
        (data(&[0, 3, 0, 4, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]), E::RecordField),
        (data(&record([1, 1, 0x80, 7], &PLAIN, &[1, 24, 0, 0])), E::RecordAttribute),
        (data(&PLAIN6[..44]), E::RecordTruncated),
        (data(&record([2, 1, 0, 13], &PLAIN6, &[0; 4])), E::RecordLength),
        (data(&record([2, 1, 1, 14], &PLAIN6, &[0; 8])), E::RecordLength),
        (data(&record([2, 3, 0, 12], &PLAIN6, &[])), E::RecordOperation),
        (data(&record([2, 1, 0x40, 12], &PLAIN6, &[])), E::RecordPresent),
        (data(&record([2, 2, 0, 11], &PLAIN6[..44], &[])), E::RecordField),
        (data(&record([2, 1, 0x80, 13], &PLAIN6, &[2, 1, 7, 1])), E::RecordAttribute),
        (data(&record([1, 1, 0x80, 238], &PLAIN, &too_long())), E::RecordAttribute),
        (data(&record([16, 3, 0, 9], &SECTION, &[])), E::RecordOperation),
        (data(&record([16, 1, 1, 9], &SECTION, &[])), E::RecordPresent),
        (data(&record([16, 1, 0, 10], &SECTION, &[0; 4])), E::RecordLength),
        (changed(&data(&SECTION), &[(47, 0)]), E::RecordField),
        (frame(1, 0, &advert()[..95]), E::AdvertLength),
        (frame(1, 0, &[&advert()[..], &[0]].concat()), E::AdvertLength),
        (changed(&frame(1, 0, &advert()), &[(43, 0)]), E::AdvertField),
        (frame(3, 0, &STATUS[..39]), E::StatusLength),
        (changed(&frame(3, 0, &STATUS), &[(77, 1)]), E::StatusLength),
        (changed(&frame(3, 0, &STATUS), &[(43, 0)]), E::StatusField),
        (frame(6, 0, &PULL[..20]), E::PullLength),
        (changed(&frame(6, 0, &PULL), &[(43, 0)]), E::PullField),
        (changed(&frame(6, 0, &PULL), &[(56, 2)]), E::PullLength),
        (changed(&frame(6, 0, &PULL), &[(56, 3)]), E::UnknownPull),
        (frame(6, 0, &MERGE[..44]), E::PullLength),
        (changed(&frame(6, 0, &MERGE), &[(63, 0)]), E::PullField),
        (frame(4, 0, &DIGESTS[..19]), E::DigestsLength),
        (changed(&frame(4, 0, &DIGESTS), &[(59, 0)]), E::DigestsField),
        (frame(5, 0, &ANSWER[..48]), E::DigestsLength),
        (changed(&frame(5, 0, &ANSWER), &[(87, 0)]), E::DigestsField),
        (frame(7, 0, &PAGE[..31]), E::RecordsLength),
        (changed(&frame(7, 0, &PAGE), &[(43, 0)]), E::RecordsField),
        (frame(7, 1, &[&PAGE[..], &DELETE].concat()), E::RecordsField),
        (frame(7, 1, &[&PAGE[..], &PLAIN[..20]].concat()), E::RecordTruncated),
    ]
}

/// [3.2.2] [3.2.4] [3.2.5] [3.2.6] [3.2.7] [1.2.1] A frame that fails any check is refused under one named reason.
#[test]
fn every_frame_is_refused_for_its_own_reason() {
    let mut counters = DropCounters::default();
    for (nth, (bytes, expected)) in refused().into_iter().enumerate() {
        let found = Frame::parse(&bytes).and_then(Frame::verify).err();
        assert_eq!(found, Some(expected), "frame {nth}: {bytes:02x?}");
        counters.count(expected);
    }
    assert_eq!(counters.get(FrameError::Truncated), 3);
    assert_eq!(counters.get(FrameError::WrongGroup), 0);
}

#[test]
fn the_frames_that_the_refused_ones_were_made_from_are_valid() {
    for bytes in [
        data(&PLAIN),
        data(&DELETE),
        frame(2, 0, &[]),
        frame(1, 0, &advert()),
        frame(3, 0, &STATUS),
        frame(6, 0, &PULL),
        data(&PLAIN6),
        data(&SECTION),
        frame(4, 0, &DIGESTS),
        frame(5, 0, &ANSWER),
        frame(6, 0, &MERGE),
        frame(7, 0, &PAGE),
        frame(7, 1, &[&PAGE[..], &PLAIN].concat()),
    ] {
        assert_eq!(Frame::parse(&bytes).and_then(Frame::verify).err(), None, "{bytes:02x?}");
    }
}

/// The list above is whole: what it does not raise is exactly what only an engine can know.
#[test]
fn every_reason_of_this_room_was_raised() {
    let mut raised: BTreeSet<FrameError> = refused().into_iter().map(|(_, reason)| reason).collect();
    // Who has a secret opens what claims to be sealed with it.
    let secret = Secret::new(0, &[7; 32]).unwrap();
    raised.extend(unseal(&[secret], &mut changed(&data(&PLAIN), &[(7, 1)])).err());
    assert!(raised.contains(&FrameError::Forged));
    let rest: Vec<&str> =
        FrameError::ALL.iter().filter(|reason| !raised.contains(reason)).map(|reason| reason.name()).collect();
    assert_eq!(
        rest,
        [
            "unsealed",
            "crowded",
            "untried",
            "wrong_group",
            "own_node",
            "replayed",
            "stale",
            "unestablished",
            "term_jump"
        ]
    );
}

/// [3.2.8] [3.4] The order of the checks: of two things that are wrong the earlier one is named, and what was not yet checked
/// is not looked at.
#[test]
fn of_two_faults_the_earlier_check_names_its_own() {
    let plain = data(&PLAIN);
    let mut version_and_size = changed(&plain, &[(4, 2)]);
    version_and_size.pop();
    assert_eq!(Frame::parse(&version_and_size).err(), Some(FrameError::SizeMismatch));
    let mut version_and_checksum = plain.clone();
    version_and_checksum[4] = 2;
    assert_eq!(Frame::parse(&version_and_checksum).err(), Some(FrameError::UnknownVersion));
    let mut node_and_checksum = plain.clone();
    node_and_checksum[15] = 0;
    assert_eq!(Frame::parse(&node_and_checksum).err(), Some(FrameError::Checksum));
    let anonymous = changed(&plain, &[(15, 0), (23, 0), (31, 0), (5, 99)]);
    assert_eq!(Frame::parse(&anonymous).err(), Some(FrameError::ZeroNode));
    let sealed = changed(&plain, &[(7, 0x81), (5, 99)]);
    assert_eq!(Frame::parse(&sealed).and_then(Frame::verify).err(), Some(FrameError::Sealed));
    let flags_and_kind = changed(&plain, &[(7, 0x80), (5, 99)]);
    assert_eq!(Frame::parse(&flags_and_kind).and_then(Frame::verify).err(), Some(FrameError::UnknownFlags));
}

/// [3.2.9] [1.2] A frame is taken whole or not at all: one bad record at its end, and none of it is seen.
#[test]
fn one_bad_record_refuses_the_good_ones_before_it() {
    let mut payload = PLAIN.repeat(10);
    assert!(Frame::parse(&frame(2, 10, &payload)).and_then(Frame::verify).is_ok());
    payload.extend_from_slice(&record([1, 1, 0x20, 6], &PLAIN, &[]));
    let bad = frame(2, 11, &payload);
    assert_eq!(Frame::parse(&bad).and_then(Frame::verify).err(), Some(FrameError::RecordPresent));
}

/// [3.3.1] A type of a later version is stepped over, whatever is in it.
#[test]
fn a_record_of_a_later_version_does_not_hide_the_others() {
    let payload = [&[77, 200, 0xff, 2, 0xff, 0xff, 0xff, 0xff], &PLAIN[..]].concat();
    let bytes = frame(2, 2, &payload);
    let verified = Frame::parse(&bytes).and_then(Frame::verify).expect("valid");
    let Payload::Data(records) = verified.payload() else { panic!("not DATA") };
    assert_eq!(records.len(), 2);
    let seen: Vec<String> = records.map(|record| format!("{record:?}").chars().take(8).collect()).collect();
    assert_eq!(seen, ["Unknown ", "Upsert(C"]);
}
