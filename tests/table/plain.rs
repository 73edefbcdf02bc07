//! What a frame says of a flow comes into the table by two ways: the general one, and a shorter one for what is of IPv4 and
//! has no attributes, whose place was looked ahead. Whatever a record says, both make the same table.
//!
//! Rules: [4.4.2] one canonical encoding, [4.2] order-free apply.

use proptest::prelude::*;
use ssyncp::flow::{Endpoint, Flow, FlowKey, KeyBytes, TcpInfo, Zone};
use ssyncp::table::{Ahead, Table};
use ssyncp::time::Instant;
use ssyncp::wire::{DataWriter, Frame, FrameFlags, Header, Kind, NodeId, Payload, Record};
use std::net::Ipv4Addr;

const NOW: Instant = Instant::from_nanos(1_000_000_000);

/// Few values each, so that the ends are often those of the mirror, and keys come again.
fn flows() -> impl Strategy<Value = Flow> {
    let address = || (1u8..4).prop_map(|last| Ipv4Addr::new(10, 0, 0, last).into());
    let port = || prop::sample::select(vec![0u16, 80, 0x0800, u16::MAX]);
    let end = || prop::option::of((address(), port()).prop_map(|(address, port)| Endpoint { address, port }));
    let tcp = prop::option::of((0u8..16, 0u8..2, 0u8..2, 0u8..2)).prop_map(|tcp| {
        tcp.map(|(original, reply, flags_original, flags_reply)| TcpInfo {
            window_scale_original: original,
            window_scale_reply: reply,
            flags_original,
            flags_reply,
        })
    });
    let protocol = prop::sample::select(vec![1u8, 6, 17, 58]);
    let zone = prop::sample::select(vec![(0u16, 0u8), (0, 2), (0x0102, 0), (7, 1)]);
    let key = (address(), address(), port(), port(), protocol, zone).prop_map(
        |(source, destination, source_port, destination_port, protocol, (id, direction))| FlowKey {
            source,
            destination,
            source_port,
            destination_port,
            protocol,
            zone: Zone { id, direction },
        },
    );
    let mark = prop::sample::select(vec![0u32, 1, 0xdead_beef]);
    (key, end(), end(), tcp, any::<(u8, u16)>(), 0u32..500, mark).prop_map(
        |(key, reply_source, reply_destination, tcp, (state, status), timeout, mark)| Flow {
            reply_source,
            reply_destination,
            tcp,
            state,
            status,
            timeout,
            mark,
            ..Flow::new(key)
        },
    )
}

/// A frame of these flows, as it is and not as it should be: nothing in it was made canonical.
fn frame(flows: &[(Flow, bool)], seq: u64) -> Vec<u8> {
    let mut slot = vec![0; 8000];
    let (kind, flags, node) = (Kind::DATA, FrameFlags::default(), NodeId(1));
    let header = Header { sync_id: 81, kind, flags, node, incarnation: 1, seq, term: 1 };
    let mut writer = DataWriter::new(&mut slot, header).expect("room");
    for (flow, alive) in flows {
        let pushed = if *alive { writer.push_upsert(flow) } else { writer.push_delete(&flow.key) };
        pushed.expect("has a form");
    }
    let length = writer.finish();
    slot.truncate(length);
    slot
}

proptest! {
    #[test]
    fn the_shorter_way_makes_the_same_table(
        frames in prop::collection::vec(prop::collection::vec((flows(), prop::bool::weighted(0.7)), 1..40), 1..4),
    ) {
        let (mut long, mut short) = (Table::new(1000, 1000, 7), Table::new(1000, 1000, 7));
        // The last frame first, so that deletes leave tombstones.
        for (at, flows) in frames.iter().enumerate().rev() {
            let number = at as u64 + 1;
            let bytes = frame(flows, number);
            let frame = Frame::parse(&bytes).and_then(Frame::verify).expect("whole");
            let Payload::Data(records) = frame.payload() else { panic!("not DATA") };
            let mut ahead = [Ahead::default(); 40];
            short.look_ahead(records.clone().map(Record::key_bytes), &mut ahead);
            for ((record, ahead), (flow, _)) in records.zip(ahead).zip(flows) {
                match record {
                    Record::Upsert(conn) => {
                        let plain = conn.plain().expect("IPv4, without attributes");
                        prop_assert_eq!(plain.flow(), flow.clone().canonical());
                        prop_assert_eq!(plain.key(), flow.key);
                        let applied = long.apply_upsert(flow, number, NOW);
                        prop_assert_eq!(short.apply_plain(&plain, ahead, number, NOW), applied);
                    }
                    Record::Delete(conn) => {
                        prop_assert!(matches!(conn.key_bytes(), KeyBytes::V4(_)));
                        let applied = long.apply_delete(&flow.key, number, 0);
                        prop_assert_eq!(short.apply_delete_ahead(conn.key_bytes(), ahead, number, 0), applied);
                    }
                    _ => panic!("neither"),
                }
            }
            short.assert_consistent();
            prop_assert_eq!((short.digest(), short.len()), (long.digest(), long.len()));
            prop_assert_eq!((short.tombstones(), short.tombstone_hits()), (long.tombstones(), long.tombstone_hits()));
        }
        let popped = |table: &mut Table| std::iter::from_fn(|| table.pop_applied(NOW)).collect::<Vec<_>>();
        prop_assert_eq!(popped(&mut short), popped(&mut long));
    }
}
