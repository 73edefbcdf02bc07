//! The classic profile's messages: golden frames in `pcap/classic-*`, every refusal, and what holds for all values and
//! all bytes.
//!
//! The messages are put together here by hand, byte by byte, and summed by pnet; the project's writer is then held to
//! them. `SSYNCP_BLESS=1 cargo test --test wire classic` writes the files anew, and a person reads the difference.

use crate::kept;
use crate::kept::{file, packet_around, read_packet, text};
use core::net::IpAddr;
use proptest::collection::vec;
use proptest::prelude::*;
use ssyncp::flow::Endpoint;
use ssyncp::wire::classic::{Message, Writer};
use ssyncp::wire::ipvs::{Connection, ConnectionFlags, Sequence, Sequences};
use ssyncp::wire::{FrameError, describe};
use std::fs;

/// A message with these records: count, group 81, size, zero, checksum.
fn message(count: usize, records: &[u8]) -> Vec<u8> {
    let mut message = vec![count as u8, 81, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(records);
    finish(message)
}

/// Corrects size and checksum.
fn finish(mut message: Vec<u8>) -> Vec<u8> {
    let size = u16::try_from(message.len()).expect("fits");
    message[2..4].copy_from_slice(&size.to_be_bytes());
    summed(message)
}

/// Corrects the checksum.
fn summed(mut message: Vec<u8>) -> Vec<u8> {
    let sum = pnet::util::checksum(&message, 3);
    message[6..8].copy_from_slice(&sum.to_be_bytes());
    message
}

/// TCP 10.0.0.1:(40000 + nth) -> 192.0.2.10:80 -> 10.1.0.20:8080, ESTABLISHED.
fn plain(nth: u8) -> Vec<u8> {
    vec![0, 6, 0x9c, 0x40 + nth, 0, 80, 0x1f, 0x90, 10, 0, 0, 1, 192, 0, 2, 10, 10, 1, 0, 20, 0, 0, 0, 1]
}

/// The same with an FTP helper's shifts: the client's numbers from 1000 on by -3, the server's from 2000 on by +5.
fn full(nth: u8) -> Vec<u8> {
    let mut record = plain(nth);
    record[20] = 0x06;
    record.extend([0, 0, 0x03, 0xe8, 0xff, 0xff, 0xff, 0xfd, 0, 0, 0, 0]);
    record.extend([0, 0, 0x07, 0xd0, 0, 0, 0, 5, 0, 0, 0, 2]);
    record
}

/// What makes clients of 10.0.0.0 go to 10.1.0.20: client port 0, flags masquerading, template.
fn template() -> Vec<u8> {
    vec![0, 6, 0, 0, 0, 80, 0x1f, 0x90, 10, 0, 0, 0, 192, 0, 2, 10, 10, 1, 0, 20, 0x10, 0, 0, 0]
}

/// A UDP flow to a real server that answers by itself (direct routing).
fn direct() -> Vec<u8> {
    vec![0, 17, 0x9c, 0x40, 0, 53, 0, 53, 10, 0, 0, 1, 192, 0, 2, 10, 10, 1, 0, 21, 0, 3, 0, 0]
}

fn changed(mut bytes: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    bytes[at] = value;
    bytes
}

/// Name, story, bytes, and how many records are read or why none is.
type Golden = (&'static str, &'static str, Vec<u8>, Result<usize, FrameError>);

fn goldens() -> Vec<Golden> {
    let fifty = || (0..50).flat_map(plain).collect::<Vec<u8>>();
    let one = || message(1, &plain(0));
    vec![
        ("classic-plain", "As many plain connections as a message holds: 50.", message(50, &fifty()), Ok(50)),
        (
            "classic-full",
            "As many connections with sequence options as a message holds: 25.",
            message(25, &(0..25).flat_map(full).collect::<Vec<u8>>()),
            Ok(25),
        ),
        (
            "classic-mixed",
            "Plain, with options, plain, with options, plain; the last is UDP by direct routing.",
            message(5, &[plain(0), full(1), plain(2), full(3), direct()].concat()),
            Ok(5),
        ),
        (
            "classic-templates",
            "A template (client port 0) and the connection that came of it.",
            message(2, &[template(), plain(0)].concat()),
            Ok(2),
        ),
        (
            "classic-closing",
            "The last word about a connection: state CLOSE, inactive.",
            message(1, &changed(changed(plain(0), 20, 1), 23, 6)),
            Ok(1),
        ),
        (
            "classic-unknown-protocol",
            "A record of GRE, which IPVS does not balance: stepped over, and counted.",
            message(2, &[changed(plain(0), 1, 47), plain(1)].concat()),
            Ok(2),
        ),
        ("classic-refused-truncated", "Seven bytes.", vec![1, 81, 0, 7, 0, 0, 0], Err(FrameError::Truncated)),
        (
            "classic-refused-oversized",
            "51 records: 1232 bytes.",
            message(51, &[fifty(), plain(50)].concat()),
            Err(FrameError::Oversized),
        ),
        (
            "classic-refused-size",
            "One record, and a size field that leaves its last byte out.",
            summed(changed(one(), 3, 31)),
            Err(FrameError::SizeMismatch),
        ),
        (
            "classic-refused-version",
            "The second reserved byte is 1: nobody's version.",
            summed(changed(one(), 5, 1)),
            Err(FrameError::UnknownVersion),
        ),
        (
            "classic-refused-checksum",
            "One bit flipped on the way: port 40000 reads 40001.",
            changed(one(), 11, 0x41),
            Err(FrameError::Checksum),
        ),
        (
            "classic-refused-cut",
            "The record says that it has sequence options, and ends before them.",
            message(1, &changed(plain(0), 20, 4)),
            Err(FrameError::RecordTruncated),
        ),
        (
            "classic-refused-state",
            "State 11 of TCP, one more than there are.",
            message(1, &changed(plain(0), 23, 11)),
            Err(FrameError::RecordField),
        ),
        (
            "classic-refused-reserved",
            "The reserved byte of the second record is not zero.",
            message(2, &[plain(0), changed(plain(1), 0, 1)].concat()),
            Err(FrameError::RecordField),
        ),
        (
            "classic-refused-count",
            "The count says one, and there are two.",
            message(1, &[plain(0), plain(1)].concat()),
            Err(FrameError::CountMismatch),
        ),
    ]
}

fn bless() {
    kept::bless(&[], || goldens().into_iter().map(|(name, story, bytes, _)| (name, story, bytes)).collect());
}

#[test]
fn every_golden_packet_says_what_its_text_says() {
    bless();
    for (name, story, bytes, _) in goldens() {
        let packet = read_packet(name);
        assert_eq!(packet, packet_around(&bytes), "pcap/{name}.pcap");
        let expected = fs::read_to_string(file(name, "txt")).unwrap_or_default();
        assert_eq!(text(name, story, &packet, &[]), expected, "pcap/{name}.txt");
    }
}

/// [3.1.1] [3.1.2] [3.1.3] The message is taken whole, or refused whole for the first reason that holds.
#[test]
fn every_golden_message_is_read_or_refused_as_it_must_be() {
    for (name, _, bytes, expected) in goldens() {
        let read = Message::parse(&bytes).and_then(Message::verify).map(Iterator::count);
        assert_eq!(read, expected, "{name}");
    }
    let refused = |bytes: &[u8]| Message::parse(bytes).and_then(Message::verify).err();
    for len in 0..8 {
        assert_eq!(refused(&vec![0; len]), Some(FrameError::Truncated));
    }
    assert_eq!(refused(&finish(vec![0; 1209])), Some(FrameError::Oversized));
    assert_eq!(refused(&message(0, &[])), None, "a message without records is odd and harmless");
    for rest in 1..24 {
        assert_eq!(refused(&message(1, &plain(0)[..rest])), Some(FrameError::RecordTruncated), "{rest} bytes");
        assert_eq!(refused(&message(1, &[&plain(0), &plain(1)[..rest]].concat())), Some(FrameError::RecordTruncated));
        assert_eq!(refused(&message(1, &full(0)[..24 + rest])), Some(FrameError::RecordTruncated));
    }
}

/// [3.1.3] SSYNCP/1 has its version in byte 4, which the draft has zero.
#[test]
fn a_frame_of_ssyncp1_is_of_another_version_whatever_else_it_is() {
    let mut frame = vec![0; 40];
    (frame[0], frame[1], frame[3], frame[4], frame[5]) = (1, 81, 40, 1, 2);
    assert_eq!(Message::parse(&frame).err(), Some(FrameError::UnknownVersion));
    assert_eq!(ssyncp::wire::Frame::parse(&message(1, &plain(0))).err(), Some(FrameError::UnknownVersion));
}

fn end(address: [u8; 4], port: u16) -> Endpoint {
    Endpoint { address: IpAddr::from(address), port }
}

fn connection(port: u16) -> Connection<'static> {
    Connection {
        protocol: 6,
        client: end([10, 0, 0, 1], port),
        service: end([192, 0, 2, 10], 80),
        server: end([10, 1, 0, 20], 8080),
        flags: ConnectionFlags(0),
        state: 1,
        firewall_mark: 0,
        timeout: None,
        sequences: None,
        engine: &[],
        engine_data: &[],
    }
}

fn shifted(port: u16) -> Connection<'static> {
    let incoming = Sequence { initial: 1000, delta: 3_u32.wrapping_neg(), previous_delta: 0 };
    let outgoing = Sequence { initial: 2000, delta: 5, previous_delta: 2 };
    Connection { flags: ConnectionFlags(0x0600), sequences: Some(Sequences { incoming, outgoing }), ..connection(port) }
}

fn write(connections: &[Connection<'_>]) -> Vec<u8> {
    let mut slot = [0; 1208];
    let mut writer = Writer::new(&mut slot, 81).expect("room");
    for connection in connections {
        assert!(writer.push(connection));
    }
    let len = writer.finish();
    slot[..len].to_vec()
}

/// [3.1.1]
#[test]
fn the_writer_writes_what_stands_in_the_golden_frames() {
    let golden = |name| goldens().into_iter().find(|golden| golden.0 == name).expect("a golden frame").2;
    let plain: Vec<_> = (40_000..40_050).map(connection).collect();
    assert_eq!(write(&plain), golden("classic-plain"));
    let full: Vec<_> = (40_000..40_025).map(shifted).collect();
    assert_eq!(write(&full), golden("classic-full"));
    let direct = Connection {
        protocol: 17,
        service: end([192, 0, 2, 10], 53),
        server: end([10, 1, 0, 21], 53),
        flags: ConnectionFlags(3),
        state: 0,
        ..connection(40_000)
    };
    let mixed = [connection(40_000), shifted(40_001), connection(40_002), shifted(40_003), direct];
    assert_eq!(write(&mixed), golden("classic-mixed"));
    let client = end([10, 0, 0, 0], 0);
    let template = Connection { client, flags: ConnectionFlags(0x1000), state: 0, ..connection(0) };
    assert_eq!(write(&[template, connection(40_000)]), golden("classic-templates"));
    let closing = Connection { flags: ConnectionFlags(0x0100), state: 6, ..connection(40_000) };
    assert_eq!(write(&[closing]), golden("classic-closing"));
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    any::<([u8; 4], u16)>().prop_map(|(address, port)| end(address, port))
}

/// Any connection or template that a record can say.
fn any_connection() -> impl Strategy<Value = Connection<'static>> {
    let ends = (endpoint(), endpoint(), endpoint());
    let words = any::<[u32; 6]>();
    (ends, any::<u16>(), 0..11_u16, any::<bool>(), words).prop_map(
        |((client, service, server), flags, state, tcp, words)| {
            let flags = ConnectionFlags(u32::from(flags));
            let [i0, i1, i2, o0, o1, o2] = words;
            let incoming = Sequence { initial: i0, delta: i1, previous_delta: i2 };
            let outgoing = Sequence { initial: o0, delta: o1, previous_delta: o2 };
            Connection {
                protocol: if tcp { 6 } else { 17 },
                client,
                service,
                server,
                flags,
                state: if flags.is_template() {
                    state % 2
                } else if tcp {
                    state
                } else {
                    0
                },
                sequences: flags.has_sequences().then_some(Sequences { incoming, outgoing }),
                ..connection(0)
            }
        },
    )
}

proptest! {
    /// [3.1.1]
    #[test]
    fn what_is_written_is_read_back(connections in vec(any_connection(), 0..=25)) {
        let bytes = write(&connections);
        let read: Vec<_> = Message::parse(&bytes).unwrap().verify().unwrap().map(Result::unwrap).collect();
        prop_assert_eq!(read, connections);
    }

    /// [3.1.7] A second way through flow and record changes nothing any more; only states that conntrack does not have
    /// (LISTEN, SYNACK) become another by the first.
    #[test]
    fn a_flow_made_of_a_record_says_that_record(connection in any_connection()) {
        let flow = connection.to_flow();
        let said = Connection::of_flow(&flow).unwrap();
        prop_assert_eq!(said.flags.is_template(), connection.flags.is_template());
        prop_assert_eq!((said.client, said.service, said.server), (connection.client, connection.service, connection.server));
        let mut again = said.to_flow();
        if connection.state > 8 {
            again.timeout = flow.timeout;
        }
        prop_assert_eq!(again, flow);
    }

    /// [1.2.2] [3.1.2] Random bytes, also behind a correct header.
    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..1300), count in any::<u8>()) {
        let _ = Message::parse(&bytes).map(Message::verify);
        let _ = describe(&bytes, &[]);
        let bytes = message(usize::from(count), &bytes);
        let _ = describe(&bytes, &[]);
        if let Ok(records) = Message::parse(&bytes).and_then(Message::verify) {
            let all: Vec<_> = records.collect();
            prop_assert_eq!(all.len(), usize::from(count));
            prop_assert!(all.len() <= 50);
            for connection in all.into_iter().flatten() {
                let _ = Connection::of_flow(&connection.to_flow());
            }
        }
    }

    /// [3.1.3]
    #[test]
    fn a_flipped_bit_is_noticed(connections in vec(any_connection(), 0..=25), at in any::<prop::sample::Index>(), bit in 0..8) {
        let mut bytes = write(&connections);
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        // The group is in the checksum, too.
        prop_assert!(Message::parse(&bytes).is_err());
    }
}
