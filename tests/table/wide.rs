//! Flows that do not fit one line of the table: IPv6, and attributes of either family. Literal values; numbers in brackets
//! are rules of docs/protocol.md. Every test that changes a table also asks it whether its annex leaks.

use ssyncp::flow::{Attributes, Change, Endpoint, Flow, FlowKey, TcpInfo, Zone, attribute};
use ssyncp::table::{Applied, Pending, Refused, Table};
use ssyncp::time::Instant;
use ssyncp::wire::{DataWriter, FRAME_LEN_MIN, Header};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const SEED: u64 = 0x0123_4567_89ab_cdef;

fn table() -> Table {
    Table::with_annex(100, 10, 20, SEED)
}

fn address(last: u8) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(last)))
}

fn key(last: u8) -> FlowKey {
    FlowKey {
        source: address(last),
        destination: address(0xff),
        source_port: 40000,
        destination_port: 80,
        protocol: 6,
        zone: Zone::DEFAULT,
    }
}

fn flow(last: u8, state: u8) -> Flow {
    Flow { state, timeout: 120, ..Flow::new(key(last)) }
}

fn narrow(last: u8) -> Flow {
    let (source, destination) = (Ipv4Addr::new(10, 0, 0, last).into(), Ipv4Addr::new(192, 0, 2, 10).into());
    Flow { timeout: 120, ..Flow::new(FlowKey { source, destination, ..key(1) }) }
}

fn with(flow: Flow, attributes: &[(u8, &[u8])]) -> Flow {
    let mut all = Attributes::NONE;
    attributes.iter().for_each(|(kind, data)| all.set(*kind, data).expect("fits a record"));
    Flow { attributes: all, ..flow }
}

/// 516 bytes of attributes: ten blocks with an IPv6 key, nine with an IPv4 key.
fn heavy(flow: Flow) -> Flow {
    with(flow, &[(200, &[1; 255]), (201, &[2; 254])])
}

fn at(second: u64) -> Instant {
    Instant::from_nanos(second * 1_000_000_000)
}

fn send_all(table: &mut Table, number: u64) -> Vec<Pending> {
    let mut sent = Vec::new();
    while let Some(pending) = table.peek_pending(at(0)) {
        sent.push(pending);
        table.sent(number);
    }
    sent
}

fn drain(table: &mut Table) -> Vec<Change> {
    std::iter::from_fn(|| table.pop_applied(at(0))).collect()
}

/// Blocks in use, after all that must be true was asserted.
fn used(table: &Table) -> u32 {
    table.assert_consistent();
    table.annex_used()
}

mod digest {
    use super::*;

    fn full(source: IpAddr, destination: IpAddr, reply_source: IpAddr, reply_destination: IpAddr) -> Flow {
        let zone = Zone { id: 0x0102, direction: 2 };
        Flow {
            key: FlowKey { source, destination, zone, ..key(1) },
            reply_source: Some(Endpoint { address: reply_source, port: 8080 }),
            reply_destination: Some(Endpoint { address: reply_destination, port: 61000 }),
            state: 3,
            status: 0x018e,
            timeout: 432_000,
            tcp: Some(TcpInfo {
                window_scale_original: 7,
                window_scale_reply: 9,
                flags_original: 0x23,
                flags_reply: 0x22,
            }),
            mark: 0xdead_beef,
            attributes: Attributes::NONE,
        }
    }

    fn wide() -> Flow {
        full(address(1), address(2), address(0xaa), address(0xbb))
    }

    fn digest_of(flow: &Flow, seed: u64) -> u64 {
        let mut table = Table::new(4, 0, SEED);
        table.put(flow, at(0)).expect("room");
        table.reseed(seed);
        table.digest()
    }

    /// [4.4.2] [4.4.3] Protocol: these numbers are the same on every node and in every version. They were computed with the
    /// reference implementation of XXH3 (python3-xxhash), from the bytes in src/table/record.rs.
    #[test]
    fn the_digest_of_known_wide_flows_is_known() {
        let plain = Flow { reply_source: None, reply_destination: None, ..wide() };
        assert_eq!(digest_of(&wide(), SEED), 0x6de5_2ca0_be7e_e554);
        assert_eq!(digest_of(&wide(), 0), 0x1ff0_3c42_86d1_2e46);
        assert_eq!(digest_of(&plain, SEED), 0x5482_773c_ca83_735e);
        assert_eq!(digest_of(&plain, 0), 0xe366_f6b3_bd28_1978);
        let mut table = table();
        assert_eq!(table.bucket_of(&wide().key), 817);
        table.reseed(0);
        assert_eq!(table.bucket_of(&wide().key), 2351);
    }

    /// [4.4.2] Attributes are in it, unknown ones too, and counters are not.
    #[test]
    fn the_digest_of_known_attributes_is_known() {
        let four = |last: [u8; 4]| IpAddr::from(last);
        let narrow = full(four([10, 0, 0, 1]), four([192, 0, 2, 10]), four([10, 9, 8, 7]), four([203, 0, 113, 5]));
        let known = [(attribute::HELPER, &b"ftp"[..]), (200, &[8, 9, 10])];
        let counted = [known[0], (attribute::COUNTERS, &[1; 32]), known[1]];
        for attributes in [&known[..], &counted] {
            assert_eq!(digest_of(&with(narrow.clone(), attributes), SEED), 0xefb1_eb85_4be8_acc9);
            assert_eq!(digest_of(&with(narrow.clone(), attributes), 0), 0x03ea_b4b9_64c5_8077);
            assert_eq!(digest_of(&with(wide(), attributes), SEED), 0x5b7d_f727_cdaf_5105);
            assert_eq!(digest_of(&with(wide(), attributes), 0), 0xd71e_7970_16a4_46a7);
        }
        let only_counted = with(narrow.clone(), &[(attribute::COUNTERS, &[1; 32])]);
        assert_eq!(digest_of(&only_counted, SEED), 0x9180_ce66_6770_d990, "as without attributes");
        assert_eq!(digest_of(&narrow, SEED), 0x9180_ce66_6770_d990);
    }
}

/// Nothing of a plain flow is in the annex; of the others as many blocks of sixty bytes as they need.
#[test]
fn each_flow_takes_the_blocks_that_it_needs() {
    let reply_source = Some(Endpoint { address: address(9), port: 1 });
    let translated = Some(Endpoint { address: Ipv4Addr::new(10, 9, 9, 9).into(), port: 1 });
    for (flow, blocks) in [
        (Flow { reply_source: translated, mark: 7, ..narrow(1) }, 0),
        (with(narrow(1), &[(attribute::LABELS, &[1; 16])]), 1),
        (with(Flow { reply_source: translated, ..narrow(1) }, &[(9, &[1; 46])]), 1),
        (with(Flow { reply_source: translated, ..narrow(1) }, &[(9, &[1; 47])]), 2),
        (flow(1, 3), 1),
        (with(flow(1, 3), &[(attribute::LABELS, &[1; 16])]), 1),
        (with(flow(1, 3), &[(attribute::LABELS, &[1; 16]), (200, &[])]), 2),
        (Flow { reply_source, ..flow(1, 3) }, 2),
        (heavy(narrow(1)), 9),
        (heavy(flow(1, 3)), 10),
    ] {
        let mut table = table();
        table.put(&flow, at(0)).expect("room");
        assert_eq!((used(&table), table.get(&flow.key, at(0))), (blocks, Some(flow.clone())));
        table.take(&flow.key);
        assert_eq!((used(&table), table.len()), (0, 0));
    }
}

/// [4.2.2] [4.2.1] A tombstone of an IPv6 key, before and after the flow was known, costs one block until the sink has heard
/// of it, and none from then on.
#[test]
fn a_tombstone_keeps_its_key_for_the_sink_and_nothing_else() {
    let mut table = table();
    table.begin_stream();
    assert_eq!(table.apply_delete(&key(1), 7, 4), Ok(Applied::Unchanged));
    assert_eq!((used(&table), table.tombstones()), (0, 1));
    assert_eq!(table.apply_upsert(&flow(1, 3), 6, at(0)), Ok(Applied::Older));
    assert_eq!(table.apply_upsert(&heavy(flow(1, 3)), 8, at(0)), Ok(Applied::Changed));
    assert_eq!((used(&table), table.tombstones()), (10, 0));
    assert_eq!(table.apply_delete(&key(1), 12, 4), Ok(Applied::Changed));
    assert_eq!((used(&table), table.tombstones()), (1, 1));
    assert_eq!(drain(&mut table), [Change::Delete(key(1))]);
    assert_eq!(table.apply_upsert(&flow(1, 3), 11, at(0)), Ok(Applied::Older));
    table.passed(12);
    assert_eq!((used(&table), table.tombstones()), (0, 0));
    assert_eq!(table.apply_upsert(&flow(1, 3), 13, at(0)), Ok(Applied::Changed));
}

/// [4.2.5] [4.2.4] What is sent is whole, and a delete names the key.
#[test]
fn what_waits_for_the_wire_is_whole() {
    let mut table = table();
    let rich = with(flow(1, 3), &[(attribute::HELPER, b"ftp"), (attribute::COUNTERS, &[7; 32])]);
    table.put(&rich, at(0)).expect("room");
    table.put(&heavy(narrow(2)), at(0)).expect("room");
    assert_eq!(send_all(&mut table, 1), [Pending::Upsert(rich), Pending::Upsert(heavy(narrow(2)))]);
    assert!(table.take(&key(1)) && table.take(&narrow(2).key));
    assert_eq!(used(&table), 1, "the dead IPv4 flow needs none");
    assert_eq!(send_all(&mut table, 2), [Pending::Delete(key(1)), Pending::Delete(narrow(2).key)]);
    assert_eq!(used(&table), 0);
}

/// [4.4.2] Counters and time-outs are no value: nothing is sent for them, and they go along with what is sent.
#[test]
fn counters_alone_wake_nobody() {
    let mut table = table();
    let counted = |count, state| with(flow(1, state), &[(attribute::COUNTERS, &[count; 32])]);
    assert_eq!(table.put(&counted(1, 3), at(0)), Ok(true));
    table.sent(1);
    let digest = table.digest();
    assert_eq!(table.put(&counted(2, 3), at(1)), Ok(false));
    assert_eq!(table.put(&flow(1, 3), at(1)), Ok(false), "none at all");
    assert_eq!((table.digest(), table.get(&key(1), at(0))), (digest, Some(counted(1, 3))));
    assert_eq!(table.put(&counted(3, 4), at(2)), Ok(true));
    assert_eq!(send_all(&mut table, 2), [Pending::Upsert(Flow { timeout: 122, ..counted(3, 4) })]);
    assert_ne!(table.digest(), digest);
    table.begin_stream();
    assert_eq!(table.apply_upsert(&counted(9, 4), 1, at(3)), Ok(Applied::Unchanged));
    assert_eq!((table.unapplied(), used(&table)), (0, 2));
}

/// [4.1.5] The source cannot know what this version does not know: its word neither adds nor takes it away.
#[test]
fn what_the_source_cannot_know_stays() {
    let mut table = table();
    table.begin_stream();
    let told = with(flow(1, 3), &[(attribute::HELPER, b"ftp"), (10, &[9]), (11, &[1]), (200, &[2])]);
    table.apply_upsert(&told, 1, at(0)).expect("room");
    drain(&mut table);
    table.begin_stream();
    let word = with(flow(1, 3), &[(attribute::HELPER, b"ftp")]);
    assert_eq!(table.put(&word, at(0)), Ok(true), "it knows type 10, and says that there is none");
    let whole = with(flow(1, 3), &[(attribute::HELPER, b"ftp"), (11, &[1]), (200, &[2])]);
    assert_eq!(send_all(&mut table, 1), [Pending::Upsert(whole)]);
    assert_eq!(table.put(&with(flow(1, 3), &[(attribute::HELPER, b"ftp")]), at(0)), Ok(false), "the same value");
    assert_eq!(table.put(&with(flow(1, 4), &[(200, &[5])]), at(0)), Ok(true));
    assert_eq!(send_all(&mut table, 1), [Pending::Upsert(with(flow(1, 4), &[(11, &[1]), (200, &[5])]))]);
    table.take(&key(1));
    table.put(&flow(1, 4), at(0)).expect("room");
    assert_eq!(table.get(&key(1), at(0)), Some(flow(1, 4)), "a flow that begins anew has nothing from before");
    assert_eq!(used(&table), 1);
}

/// [4.1.5] What the source says has the room first; what is dropped for it is counted once.
#[test]
fn what_has_no_room_beside_the_sources_word_is_dropped_and_counted() {
    let mut table = Table::with_annex(100, 10, 40, SEED);
    table.put(&with(heavy(flow(1, 3)), &[(11, &[7; 30]), (200, &[1; 255]), (201, &[2; 255])]), at(0)).expect("room");
    let told = with(flow(1, 4), &[(1, &[3; 254]), (2, &[4; 254]), (3, &[5; 60])]);
    assert_eq!(table.put(&told, at(0)), Ok(true));
    let kept = with(flow(1, 4), &[(1, &[3; 254]), (2, &[4; 254]), (3, &[5; 60]), (11, &[7; 30]), (200, &[1; 255])]);
    assert_eq!((table.get(&key(1), at(0)), table.attributes_dropped()), (Some(kept), 1));
    assert_eq!(table.put(&told, at(0)), Ok(true), "it waits still");
    assert_eq!((table.attributes_dropped(), used(&table)), (1, 16));
}

/// [8.0.3] What a table takes, one record in the smallest frame says: else it would stand before all others for ever.
#[test]
fn whatever_a_table_takes_has_a_record() {
    let (four, six) = (IpAddr::from([10, 0, 0, 1]), address(1));
    let longest = with(narrow(1), &[(1, &[1; 254]), (2, &[2; 254]), (3, &[3; 254]), (4, &[4; 150])]).attributes;
    let mut taken = 0;
    for choice in 0..1 << 8 {
        let bit = |bit: u32| choice >> bit & 1 == 1;
        let side = |at| if bit(at) { six } else { four };
        let end = |there, at| bit(there).then(|| Endpoint { address: side(at), port: 9 });
        let zone = Zone { id: 7, direction: if bit(6) { 3 } else { 2 } };
        let key = FlowKey { source: side(0), destination: side(1), zone, ..key(1) };
        let flow = Flow {
            reply_source: end(2, 3),
            reply_destination: end(4, 5),
            tcp: Some(TcpInfo { window_scale_original: 200, flags_reply: 1, ..TcpInfo::default() }),
            mark: 1,
            attributes: if bit(7) { longest.clone() } else { Attributes::NONE },
            ..Flow::new(key)
        };
        let mut table = table();
        if table.put(&flow, at(0)).is_err() {
            continue;
        }
        taken += 1;
        let Some(Pending::Upsert(held)) = table.peek_pending(at(0)) else { panic!("{flow:?} does not wait") };
        let mut slot = [0; FRAME_LEN_MIN];
        let mut writer = DataWriter::new(&mut slot, Header::default()).expect("room");
        assert_eq!(writer.push_upsert(&held), Ok(()), "{held:?}");
        table.sent(1);
        assert!(table.take(&key));
        let mut writer = DataWriter::new(&mut slot, Header::default()).expect("room");
        assert_eq!((table.peek_pending(at(0)), writer.push_delete(&key)), (Some(Pending::Delete(key)), Ok(())));
    }
    // Both families, four combinations of reply ends of their own, with and without attributes; of an end that is absent
    // the family does not matter.
    assert_eq!(taken, 2 * 2 * 9);
}

/// [8.0.2] A full annex refuses by name, what is held keeps its value, and plain flows go on.
#[test]
fn a_full_annex_refuses_and_changes_nothing() {
    let mut table = table();
    table.put(&heavy(flow(1, 3)), at(0)).expect("room");
    table.put(&heavy(narrow(2)), at(0)).expect("room");
    table.put(&flow(3, 3), at(0)).expect("the last block");
    send_all(&mut table, 1);
    let digest = table.digest();
    assert_eq!(table.put(&flow(4, 3), at(0)), Err(Refused::AnnexFull));
    assert_eq!(table.put(&heavy(flow(3, 4)), at(0)), Err(Refused::AnnexFull));
    assert_eq!((table.get(&key(3), at(0)), table.digest()), (Some(flow(3, 3)), digest));
    assert_eq!((used(&table), table.annex_blocks(), table.pending()), (20, 20, 0));
    assert_eq!(table.put(&heavy(flow(1, 9)), at(0)), Ok(true), "in its own place");
    assert_eq!(table.put(&narrow(5), at(0)), Ok(true));
    table.begin_stream();
    assert_eq!(table.apply_delete(&key(6), 9, 0), Ok(Applied::Unchanged), "a tombstone needs no block");
    assert_eq!(table.tombstones(), 1);
    assert_eq!(table.apply_upsert(&heavy(flow(3, 4)), 9, at(0)), Err(Refused::AnnexFull));
    assert_eq!(table.apply_upsert(&flow(3, 5), 8, at(0)), Ok(Applied::Older), "it counts as named by frame 9");
    assert_eq!(table.remove_older(table.bucket_of(&key(3)), 8), 0);
    table.apply_delete(&narrow(2).key, 10, 9).expect("held");
    assert_eq!(table.apply_upsert(&flow(4, 3), 11, at(0)), Ok(Applied::Changed));
    assert_eq!(used(&table), 12);
}

/// [4.3.2] A flow that the dump names in vain is not dead.
#[test]
fn a_dump_that_finds_no_room_deletes_nothing_that_it_named() {
    let mut table = table();
    table.put(&heavy(flow(1, 3)), at(0)).expect("room");
    table.put(&flow(2, 3), at(0)).expect("room");
    table.put(&flow(3, 3), at(0)).expect("room");
    send_all(&mut table, 1);
    table.begin_dump();
    assert_eq!(table.put(&heavy(flow(2, 4)), at(0)), Err(Refused::AnnexFull));
    assert_eq!(table.put(&heavy(flow(1, 4)), at(0)), Ok(true));
    assert_eq!(table.end_dump(u32::MAX), 1, "the one that it did not name");
    assert_eq!(table.get(&key(2), at(0)), Some(flow(2, 3)));
    send_all(&mut table, 2);
    assert_eq!((table.len(), used(&table)), (2, 11));
}

/// [4.6.1] [4.6.2] [4.6.3] Clocks run for wide flows as for all.
#[test]
fn wide_flows_are_refreshed_and_expire() {
    let mut table = table();
    table.put(&flow(1, 3), at(0)).expect("room");
    table.put(&heavy(narrow(2)), at(0)).expect("room");
    send_all(&mut table, 1);
    assert_eq!(table.put(&flow(1, 3), at(60)), Ok(false));
    assert_eq!(table.put(&flow(1, 3), at(61)), Ok(true));
    send_all(&mut table, 2);
    assert_eq!(table.queue_expired(at(130)), 1);
    drain(&mut table);
    assert_eq!(table.expire(at(130), &mut 0, u32::MAX), 1);
    assert_eq!(table.expire(at(200), &mut 0, u32::MAX), 1);
    assert_eq!(send_all(&mut table, 3).len(), 2);
    assert_eq!(used(&table), 0);
}

/// Under one seed after the other, with every second one freed: nobody is lost, and nobody's block is another's.
#[test]
fn many_flows_of_both_families_survive_reseeds_and_shifts() {
    let mut table = Table::with_annex(400, 0, 800, SEED);
    let all: Vec<Flow> = (0..200)
        .flat_map(|last| [with(flow(last, 1), &[(200, &[last; 30])]), with(narrow(last), &[(201, &[last; 90])])])
        .collect();
    all.iter().for_each(|flow| assert_eq!(table.put(flow, at(0)), Ok(true)));
    let (digest, blocks) = (table.digest(), used(&table));
    assert_eq!(blocks, 800);
    for seed in [1, 2, SEED] {
        table.reseed(seed);
        assert_eq!(used(&table), 800);
        all.iter().for_each(|flow| assert_eq!(table.get(&flow.key, at(0)).as_ref(), Some(flow)));
    }
    assert_eq!(table.digest(), digest);
    all.iter().step_by(3).for_each(|flow| assert!(table.take(&flow.key)));
    for (nth, flow) in all.iter().enumerate() {
        assert_eq!(table.get(&flow.key, at(0)), Some(flow.clone()).filter(|_| nth % 3 != 0));
    }
    assert_eq!((table.len(), used(&table)), (266, 532));
}
