//! A peer that is established and lies, or is broken: numbers that cannot be, at the edges of what 64 bits hold. Nothing of it
//! may panic, wrap, or cost more than a frame of truth.

use super::*;
use crate::wire::{
    Advert, AdvertFlags, Capabilities, DataWriter, Follows, Frame, FrameFlags, Header, Kind, MergePull, MergeWriter,
    MissingRange, Payload, PeerReport, Section, Status, SyncCode, Target, WireRole, encode_advert, encode_merge_pull,
    encode_status,
};

/// The newest ADVERT of node `from`, with a later number, said in another way.
fn retold(world: &World, from: usize, change: impl FnOnce(&mut Header, &mut Advert<'_>)) -> Vec<u8> {
    let is_advert = |bytes: &[u8]| bytes[5] == Kind::ADVERT.0;
    let (_, _, bytes) = world.sent.iter().rfind(|(_, by, bytes)| *by == from && is_advert(bytes)).unwrap();
    let frame = Frame::parse(bytes).unwrap();
    let mut header = frame.header();
    let Payload::Advert(mut advert) = frame.verify().unwrap().payload() else { unreachable!() };
    header.seq += 20;
    change(&mut header, &mut advert);
    let mut slot = [0; 1480];
    let length = encode_advert(&mut slot, header, &advert).unwrap();
    slot[..length].to_vec()
}

fn header(node: u32, kind: Kind, seq: u64) -> Header {
    let incarnation = 1000 + u64::from(node);
    Header { sync_id: 51, kind, flags: FrameFlags(0), node: NodeId(node), incarnation, seq, term: 1 }
}

/// A DATA frame of node 1's first mastership.
fn data(seq: u64, write: impl FnOnce(&mut DataWriter<'_>)) -> Vec<u8> {
    let mut slot = [0; 1480];
    let mut writer = DataWriter::new(&mut slot, header(1, Kind::DATA, seq)).unwrap();
    write(&mut writer);
    let length = writer.finish();
    slot[..length].to_vec()
}

/// [3.5.12] The start of a stream lies not behind its end, its oldest frame between them, and its end within 48 bits.
#[test]
fn an_advert_whose_numbers_cannot_be_is_refused() {
    let mut world = World::elected_pair();
    world.upsert(0, 1);
    world.run(ms(250));
    let impossible = [
        (5, 4, 5),
        (u64::MAX, u64::MAX, u64::MAX),
        (0, u64::MAX, 1),
        (0, 1 << 48, 1),
        (0, 10, 0),
        (5, 10, 5),
        (5, 10, 12),
        (0, 10, u64::MAX),
    ];
    let before = world.engine(1).status();
    for (count, (term_start, stream_seq, history_start)) in (1..).zip(impossible) {
        let mut bytes = retold(&world, 0, |_, advert| {
            (advert.term_start, advert.stream_seq, advert.history_start) = (term_start, stream_seq, history_start);
        });
        world.hand_in(1, &mut bytes);
        assert_eq!(world.counter(1, "drop_advert_field"), count, "{term_start} {stream_seq} {history_start}");
    }
    let after = world.engine(1).status();
    assert_eq!((after.frontier, after.sync, after.digest), (before.frontier, SyncState::InSync, before.digest));
}

/// [1.2.2] A stream that jumps by 2^47 frames is a hole like any other, and costs no more.
#[test]
fn an_enormous_jump_is_one_hole() {
    let mut world = World::elected_pair();
    world.upsert(0, 1);
    world.run(ms(250));
    let far = (1 << 48) - 1;
    let mut bytes = retold(&world, 0, |_, advert| (advert.stream_seq, advert.history_start) = (far, far - 10));
    world.hand_in(1, &mut bytes);
    assert_eq!((world.counter(1, "holes"), world.engine(1).status().frontier), (1, far - 11));
    world.run(ms(50));
    // What is beyond 48 bits is nothing that could be held.
    for seq in far - 10..=far {
        world.hand_in(1, &mut data(seq, |writer| assert!(writer.push_upsert(&flow(2)).is_ok())));
    }
    world.hand_in(1, &mut data(u64::MAX, |writer| assert!(writer.push_upsert(&flow(3)).is_ok())));
    assert_eq!(world.counter(1, "data_beyond_window"), 1);
    assert_eq!(world.engine(1).status().frontier, far);
    world.run(ms(50));
}

/// [4.5.3] A bucket-end that says that its walk began after itself would delete what is newer than it.
#[test]
fn a_bucket_end_from_the_future_deletes_nothing() {
    let mut world = World::elected_pair();
    world.upsert(0, 1);
    world.run(ms(250));
    let bucket = world.engine(1).table.bucket_of(&key(1));
    let newest = world.engine(0).status().stream_seq;
    for (seq, since) in [(newest + 1, u64::MAX), (newest + 2, newest + 2)] {
        world.hand_in(1, &mut data(seq, |writer| assert!(writer.push_bucket_end(bucket, since).is_ok())));
    }
    assert_eq!((world.engine(1).status().frontier, world.engine(1).status().entries), (newest + 2, 1));
}

/// [3.6.5] A follower says that it holds what was never sent: it holds what was sent.
#[test]
fn a_frontier_beyond_the_stream_is_the_streams_end() {
    let mut world = World::elected_pair();
    world.upsert(0, 1);
    world.run(ms(10));
    let newest = world.engine(0).status().stream_seq;
    const REPORT: &[PeerReport] = &[PeerReport::new(NodeId(1), 1001, 0, 20, u64::MAX)];
    let mut bytes = retold(&world, 1, |_, advert| advert.peers = REPORT);
    world.hand_in(0, &mut bytes);
    assert_eq!(world.engine(0).status().peers[0].frontier, newest);
    let target = Target { node: NodeId(1), incarnation: 1001 };
    let missing = [MissingRange::new(1, u32::MAX), MissingRange::new(u64::MAX - 1, 1)];
    let (frontier, state) = (u64::MAX, SyncCode::PROVEN);
    let status = Status { target, frontier, base: u64::MAX, credit: u32::MAX, state, missing: &missing };
    let mut slot = [0; 1480];
    let length = encode_status(&mut slot, header(2, Kind::STATUS, 1_000_000), &status).unwrap();
    world.hand_in(0, &mut slot[..length]);
    assert_eq!(world.engine(0).status().peers[0].frontier, newest);
    world.node(0).engine.outbox.want(0, 4096);
    world.run(ms(50));
    assert!(world.counter(0, "buckets_walked") >= 4096);
}

/// [3.5.2] Nobody has heard a frame that was not sent yet, however high the number that is claimed.
#[test]
fn a_candidate_that_heard_the_future_is_not_established() {
    let mut world = World::elected_pair();
    const NEVER: &[PeerReport] = &[PeerReport::new(NodeId(1), 1001, 0, 0, 0)];
    const FUTURE: &[PeerReport] = &[PeerReport::new(NodeId(1), 1001, 0, u64::MAX, 0)];
    for (seq, peers) in [(1, NEVER), (2, FUTURE)] {
        let mut bytes = retold(&world, 1, |header, advert| {
            (header.node, header.incarnation, header.seq) = (NodeId(9), 9, seq);
            advert.peers = peers;
        });
        world.hand_in(0, &mut bytes);
    }
    let nine = world.engine(0).status().peers.into_iter().find(|peer| peer.node == NodeId(9)).unwrap();
    assert!(!nine.established);
}

/// Counts, terms and intervals at their ends: taken or refused, nothing wraps.
#[test]
fn the_ends_of_all_numbers_are_harmless() {
    let mut world = World::elected_pair();
    world.upsert(0, 1);
    world.run(ms(250));
    for extreme in [0, 1, u64::MAX] {
        let mut bytes = retold(&world, 0, |_, advert| {
            (advert.entries, advert.digest, advert.hash_seed) = (extreme, extreme, extreme);
            advert.interval_ms = if extreme == 0 { 1 } else { u16::MAX };
            advert.flags = AdvertFlags(u32::MAX);
        });
        world.hand_in(1, &mut bytes);
        let mut bytes = retold(&world, 1, |header, advert| {
            header.term = extreme;
            advert.follows = Follows { node: NodeId(7), heir: NodeId(7), incarnation: extreme, term: extreme };
            (advert.entries, advert.role) = (extreme, WireRole(extreme as u8));
        });
        world.hand_in(0, &mut bytes);
        world.run(ms(20));
    }
    world.run(Duration::from_secs(2));
    let masters = [0, 1].into_iter().filter(|at| world.role(*at) == Role::Master).count();
    assert_eq!(masters, 1);
}

/// [5.4.2] A node that has just started joins a group that is a million terms old.
#[test]
fn a_newcomer_believes_an_old_groups_term() {
    let mut world = World::new(vec![Config { priority: 150, ..config(1) }]);
    world.nodes.push(None);
    world.node(0).engine.term = 1 << 40;
    world.run(Duration::from_secs(1));
    world.dump_done(0);
    world.start(1, config(2));
    world.run(Duration::from_secs(1));
    assert_eq!((world.role(1), world.sync(1)), (Role::Backup, SyncState::InSync));
    assert_eq!(world.engine(1).status().term, (1 << 40) + 1);
    let mut absurd = retold(&world, 0, |header, _| (header.node, header.term) = (NodeId(8), (1 << 62) + 1));
    world.start(1, Config { incarnation: 5, ..config(2) });
    world.hand_in(1, &mut absurd);
    assert_eq!(world.counter(1, "drop_term_jump"), 1);
}

/// [3.4.3] A control number at the end of all numbers silences its own sender, and nobody else.
#[test]
fn the_highest_control_number_silences_only_its_sender() {
    let mut world = World::new(vec![Config { priority: 150, ..config(1) }, config(2), config(3)]);
    world.run(Duration::from_secs(1));
    let mut bytes = retold(&world, 2, |header, _| header.seq = u64::MAX);
    world.hand_in(0, &mut bytes);
    world.run(ms(700));
    let peers = world.engine(0).status().peers;
    let two = peers.iter().find(|peer| peer.node == NodeId(2)).unwrap();
    assert!(two.established && world.role(0) == Role::Master);
    assert!(world.counter(0, "drop_stale") + world.counter(0, "drop_replayed") > 0);
}

/// [3.2.7] [3.2.10] [3.5.3] A merge's question and an answer that nobody asked for are counted by name, and change nothing.
#[test]
fn questions_and_unasked_answers_of_a_merge_are_counted_by_name() {
    type Write = fn(&mut [u8], Header, Target) -> Option<usize>;
    let kinds: [(&str, Write); 2] = [
        ("merge_pulls_received", |slot, header, target| {
            let pull = MergePull { target, node: NodeId(3), incarnation: 1, after: 0, cursor: 0 };
            encode_merge_pull(slot, header, &pull)
        }),
        ("merge_pages_unasked", |slot, header, target| {
            let mut writer = MergeWriter::new(slot, header, target, 0)?;
            writer.push_upsert(&flow(9)).ok()?;
            Some(writer.finish(1))
        }),
    ];
    let mut world = World::elected_pair();
    world.upsert(0, 1);
    world.run(ms(250));
    let before = world.engine(1).status();
    for (nth, (name, write)) in (1..).zip(kinds) {
        let mut send = |node, seq, incarnation| {
            let mut slot = [0; 1480];
            let target = Target { node: NodeId(2), incarnation };
            let length = write(&mut slot, header(node, Kind(0), seq), target).unwrap();
            world.hand_in(1, &mut slot[..length].to_vec());
        };
        send(1, 500 + 2 * nth, 1002);
        send(1, 501 + 2 * nth, 1003);
        send(9, 1, 1002);
        let counters = (world.counter(1, name), world.counter(1, "not_for_us"));
        assert_eq!((counters, world.counter(1, "drop_unestablished")), ((1, nth), nth), "{name}");
    }
    let newest = world.engine(0).status().stream_seq;
    let section = Section { table: 1, key: b"k", fragment: None };
    world.hand_in(1, &mut data(newest + 1, |writer| writer.push_section(&section).unwrap()));
    let after = world.engine(1).status();
    assert_eq!((world.counter(1, "records_applied"), after.frontier), (2, newest + 1));
    assert_eq!((after.digest, after.entries), (before.digest, before.entries));
}

/// [3.5.13] What a peer says that it can take is shown, whatever it is.
#[test]
fn what_a_peer_can_take_is_shown() {
    let mut world = World::elected_pair();
    world.run(ms(250));
    let mut bytes = retold(&world, 0, |_, advert| {
        (advert.capabilities, advert.kernel_capacity, advert.kernel_buckets) =
            (Capabilities(0x8000_0003), 262_144, 65_536);
    });
    world.hand_in(1, &mut bytes);
    let status = world.engine(1).status();
    let peer = &status.peers[0];
    assert_eq!(peer.capabilities, Capabilities(0x8000_0003));
    assert_eq!((peer.kernel_capacity, peer.kernel_buckets), (262_144, 65_536));
}
