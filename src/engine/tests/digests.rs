//! Comparing bucket by bucket: what differs is walked, and nothing else; and nobody can ask for too much.

use super::repair::filled_master;
use super::*;
use crate::wire::{
    BucketDigest, BucketRange, DigestsAnswer, DigestsRequest, Frame, FrameFlags, Header, Kind, Payload, Pull, Target,
    encode_digests_answer, encode_digests_request, encode_pull,
};

/// A pair in sync over so many flows.
fn filled_pair(flows: u32) -> World {
    let mut world = filled_master(flows);
    world.start(1, config(2));
    world.run_until("in sync", |world| world.sync(1) == SyncState::InSync);
    world
}

/// Node 1 starts with what its kernel still holds: these flows.
fn start_with(world: &mut World, flows: impl Iterator<Item = Flow>) {
    world.start(1, config(2));
    let now = world.now;
    for flow in flows {
        world.node(1).engine.preload(now, &flow).unwrap();
    }
}

/// A flow of node 1 changes without anybody having said so, as a flipped bit does.
fn flip(world: &mut World, number: u32) -> u16 {
    let now = world.now;
    let engine = &mut world.node(1).engine;
    let local = engine.inbox.local(engine.inbox.frontier());
    let flipped = Flow { mark: 0x8000, ..flow(number) };
    engine.table.apply_upsert(&flipped, local, now).unwrap();
    engine.table.bucket_of(&flipped.key)
}

/// Buckets of so many flows that all lie in different ones.
fn five_apart(world: &World) -> Vec<u32> {
    let table = &world.engine(0).table;
    let mut seen = std::collections::BTreeSet::new();
    (0..10_000).filter(|number| seen.insert(table.bucket_of(&key(*number)))).take(5).collect()
}

fn answers(world: &World, from: Instant) -> Vec<(Instant, Vec<u8>)> {
    let answers = world.sent.iter().filter(|(at, _, bytes)| *at >= from && bytes[5] == 5);
    answers.map(|(at, _, bytes)| (*at, bytes.clone())).collect()
}

/// [4.5.1] A PULL has room for 64 ranges. What differs in a thousand places takes many, and none waits for a timer: 20 of them
/// at two intervals each would be 4 s.
#[test]
fn what_differs_in_many_places_is_asked_for_without_a_pause() {
    let mut world = filled_master(10_000);
    // Every third one of its 10,000 flows, so that hardly two buckets beside each other are equal.
    start_with(&mut world, (0..10_000).filter(|number| number % 3 == 0).map(flow));
    let began = world.now;
    world.run_until("in sync", |world| world.sync(1) == SyncState::InSync);
    assert!(world.engine(1).counters().pulls_sent > 5, "{}", world.engine(1).counters().pulls_sent);
    assert!(world.now.since(began) < ms(1500), "{:?}", world.now.since(began));
}

/// [4.3.3] [4.5.1] [4.4.9] A node that comes back with 10,000 flows of which five are old pulls five buckets.
#[test]
fn a_returning_node_pulls_only_the_buckets_that_differ() {
    let mut world = filled_master(10_000);
    let changed = five_apart(&world);
    let old = |number: u32| Flow { mark: if changed.contains(&number) { 7 } else { 0 }, ..flow(number) };
    let in_them = {
        let table = &world.engine(0).table;
        let buckets: Vec<u16> = changed.iter().map(|number| table.bucket_of(&key(*number))).collect();
        (0..10_000).filter(|number| buckets.contains(&table.bucket_of(&key(*number)))).count() as u64
    };
    start_with(&mut world, (0..10_000).map(old));
    assert!(world.engine(1).status().cold);
    let before = world.counter(0, "records_sent");
    let took = world.run_until("in sync", |world| world.sync(1) == SyncState::InSync);
    assert!(took < ms(1000), "took {took:?}");
    world.assert_equal(0, 1);
    assert_eq!(world.counter(0, "buckets_walked"), 5);
    assert_eq!(world.counter(0, "records_sent") - before, in_them);
    assert!(in_them < 50, "{in_them} of 10,000");
    assert_eq!(world.node(1).sink.len(), 5, "the kernel hears of what changed");
    assert_eq!(world.events(1, "Diverged"), 0, "it was not proven before");
}

/// [4.5.3] What died while the node was away goes from its table and its kernel.
#[test]
fn a_returning_node_loses_what_died_meanwhile() {
    let mut world = filled_master(1000);
    world.start(1, config(2));
    for number in 990..1010 {
        world.node(1).sink.insert(key(number), flow(number));
    }
    let now = world.now;
    (990..1010).for_each(|number| world.node(1).engine.preload(now, &flow(number)).unwrap());
    world.run_until("in sync", |world| world.sync(1) == SyncState::InSync);
    world.assert_equal(0, 1);
    assert_eq!((world.counter(1, "repair_deletes"), world.node(1).sink.len()), (10, 1000));
}

/// [4.1.2] What is preloaded is older than any stream, the sink does not hear of it, and nobody is warm by it.
#[test]
fn a_preloaded_table_is_cold_and_silent_and_yields_to_the_stream() {
    let mut world = filled_master(3);
    start_with(&mut world, (0..3).map(|number| Flow { mark: 9, ..flow(number) }));
    let now = world.now;
    assert_eq!(world.node(1).engine.poll_applied(now, &mut Vec::new(), 10), 0);
    assert_eq!((world.engine(1).status().entries, world.sync(1)), (3, SyncState::Cold));
    world.run_until("in sync", |world| world.sync(1) == SyncState::InSync);
    world.assert_equal(0, 1);
    assert_eq!(world.node(1).engine.preload(now, &flow(1)), Err(UpdateError::NotMaster));
    assert_eq!(world.node(0).engine.preload(now, &flow(1)), Err(UpdateError::NotMaster));
}

/// [1.1.2] [4.4.6] [4.4.9] A flipped bit is found by its digest and repaired by the walk of one bucket, and all of it is told.
#[test]
fn a_flipped_bit_is_repaired_by_the_walk_of_one_bucket() {
    let mut world = filled_pair(500);
    world.upsert(0, 500);
    world.run(ms(250));
    let walked = world.counter(0, "buckets_walked");
    flip(&mut world, 3);
    world.run_until("known", |world| world.sync(1) == SyncState::Diverged);
    assert_eq!(world.engine(1).status().buckets_different, 1);
    world.run_until("in sync", |world| world.sync(1) == SyncState::InSync);
    world.assert_equal(0, 1);
    assert_eq!(world.counter(0, "buckets_walked"), walked + 1);
    assert_eq!(world.engine(1).status().buckets_different, 0);
    let told: Vec<Event> = world.node(1).events.clone();
    assert!(told.contains(&Event::Diverged { buckets: 1 }));
    let repaired = told.iter().find(|event| event.name() == "Repaired");
    assert!(matches!(repaired, Some(Event::Repaired { buckets: 1, removed: 0, took }) if *took < ms(500)));
}

/// [4.4.9] A hole leads to a comparison: only what was missed in it is walked.
#[test]
fn a_hole_is_repaired_in_proportion_to_what_was_missed() {
    let mut world = filled_pair(5000);
    let walked = world.counter(0, "buckets_walked");
    world.passes = Box::new(|from, _, bytes| from == 1 || bytes[5] != 2);
    for _ in 0..600 {
        world.upsert(0, 9000);
        world.update(0, Change::Delete(key(9000)));
        world.update(0, Change::Upsert(Flow { mark: world.now.as_nanos() as u32, ..flow(9001) }));
        world.run(Duration::from_micros(1100));
    }
    assert!(world.counter(1, "holes") > 0);
    world.passes = Box::new(|_, _, _| true);
    world.run_until("in sync", |world| world.sync(1) == SyncState::InSync);
    world.assert_equal(0, 1);
    assert!(world.counter(0, "buckets_walked") - walked <= 4, "two flows changed");
}

/// [4.4.9] Requests and answers that are lost are asked for again.
#[test]
fn lost_requests_and_answers_are_made_up_for() {
    let mut world = filled_master(3000);
    let mut seen = 0;
    world.passes = Box::new(move |_, _, bytes| {
        let counts = bytes[5] == 4 || bytes[5] == 5;
        seen += u32::from(counts);
        !counts || seen % 2 == 0
    });
    start_with(&mut world, (1..3000).map(flow));
    world.run_until("in sync", |world| world.sync(1) == SyncState::InSync);
    world.assert_equal(0, 1);
    assert_eq!(world.counter(0, "buckets_walked"), 1);
    assert!(world.counter(1, "digests_requests_sent") > 1);
}

/// A frame of node 1 to node 0, with its next number.
fn frame_of_one(world: &mut World, write: impl Fn(&mut [u8], Header, Target) -> Option<usize>) -> Vec<u8> {
    let engine = &mut world.node(1).engine;
    engine.control_seq += 1;
    let header = Header {
        sync_id: 51,
        kind: Kind(0),
        flags: FrameFlags(0),
        node: NodeId(2),
        incarnation: 1002,
        seq: engine.control_seq,
        term: engine.term,
    };
    let mut slot = [0; 1480];
    let length = write(&mut slot, header, Target { node: NodeId(1), incarnation: 1001 }).unwrap();
    slot[..length].to_vec()
}

fn ask_for_all(world: &mut World) {
    let mut frame = frame_of_one(world, |slot, header, target| {
        encode_digests_request(slot, header, &DigestsRequest { target, buckets: BucketRange::new(0, 4096) })
    });
    world.hand_in(0, &mut frame);
}

/// [4.4.10] Of every bucket twice in 100 ms; what is asked for beyond it is refused and counted.
#[test]
fn a_peer_that_asks_too_much_is_refused_and_counted() {
    let mut world = filled_pair(10);
    world.run(ms(200));
    let start = world.now;
    (0..10).for_each(|_| ask_for_all(&mut world));
    let pull = |slot: &mut [u8], header, target| {
        encode_pull(slot, header, &Pull { target, ranges: &[BucketRange::new(0, 4096)] })
    };
    let pulls = world.counter(0, "pulls_received");
    for _ in 0..10 {
        let mut frame = frame_of_one(&mut world, pull);
        world.hand_in(0, &mut frame);
    }
    assert_eq!(world.counter(0, "digests_requests_received"), 2);
    assert_eq!(world.counter(0, "digests_requests_refused"), 8);
    assert_eq!((world.counter(0, "pulls_received") - pulls, world.counter(0, "pulls_refused")), (2, 8));
    world.run(ms(50));
    assert_eq!(answers(&world, start).len(), 32, "what is asked for twice before it is answered is answered once");
    world.run(ms(51));
    ask_for_all(&mut world);
    assert_eq!(world.counter(0, "digests_requests_received"), 3);
}

/// [4.4.10] Answers never hold up live changes: at most one goes before four DATA frames.
#[test]
fn live_changes_go_before_answers() {
    let mut world = filled_pair(5000);
    world.run(ms(200));
    for number in 0..5000 {
        world.update(0, Change::Upsert(Flow { mark: 5, ..flow(number) }));
    }
    ask_for_all(&mut world);
    let now = world.now;
    let mut kinds = Vec::new();
    let mut slot = [0; 1480];
    while world.engine(0).status().pending > 200 {
        world.node(0).engine.poll_transmit(now, &mut slot).unwrap();
        kinds.push(slot[5]);
    }
    let data = kinds.iter().filter(|kind| **kind == 2).count();
    let answers = kinds.iter().filter(|kind| **kind == 5).count();
    assert!(data >= 40 && answers >= 8 && answers <= data / 4, "{data} DATA and {answers} answers");
}

/// [4.4.9] [4.4.4] A bucket of which a record waits to be sent is not settled, nor any of a master that is cold.
#[test]
fn what_waits_to_be_sent_is_not_settled() {
    let mut world = filled_pair(100);
    world.run(ms(200));
    let bucket = world.engine(0).table.bucket_of(&key(5));
    world.update(0, Change::Upsert(Flow { mark: 5, ..flow(5) }));
    ask_for_all(&mut world);
    let now = world.now;
    // The next DATA frame waits for company; the answers do not.
    world.node(0).engine.outbox.last_sent_at = now;
    let unsettled = |world: &mut World| {
        let mut unsettled = Vec::new();
        let mut slot = [0; 1480];
        while let Some(length) = world.node(0).engine.poll_transmit(now, &mut slot) {
            let frame = Frame::parse(&slot[..length]).unwrap().verify().unwrap();
            if let Payload::DigestsAnswer(answer) = frame.payload() {
                unsettled.extend(answer.iter().filter(|(_, digest)| digest.is_none()).map(|(bucket, _)| bucket));
            }
        }
        unsettled
    };
    assert_eq!(unsettled(&mut world), [bucket]);
    world.node(0).engine.cold = true;
    ask_for_all(&mut world);
    assert_eq!(unsettled(&mut world).len(), 4096);
}

/// Hands node 1 an answer of its master for one bucket.
fn answer(world: &mut World, seq: u64, cut: u64, bucket: u16, digest: u64) {
    let term = world.engine(0).term;
    let header =
        Header { sync_id: 51, kind: Kind(0), flags: FrameFlags(0), node: NodeId(1), incarnation: 1001, seq, term };
    let target = Target { node: NodeId(2), incarnation: 1002 };
    let digests = [BucketDigest::new(digest)];
    let mut slot = [0; 1480];
    let answer = DigestsAnswer { target, cut, first: bucket, settled: 1, digests: &digests };
    let length = encode_digests_answer(&mut slot, header, &answer).unwrap();
    world.hand_in(1, &mut slot[..length]);
}

/// [4.4.9] An answer decides only where its cut is not below the base, the frontier is there, and nothing newer has touched
/// the bucket.
#[test]
fn an_answer_from_before_the_base_or_the_last_touch_decides_nothing() {
    let mut world = filled_pair(100);
    world.run(ms(200));
    world.upsert(0, 200);
    world.run(ms(20));
    world.passes = Box::new(|_, _, _| false);
    let now = world.now;
    assert_eq!(world.node(1).engine.resync(now, false), Ok(4096));
    let (frontier, base) = (world.engine(1).inbox.frontier(), world.engine(1).inbox.base());
    let touched = world.engine(1).table.bucket_of(&key(200));
    let held = world.engine(1).table.bucket_digest(touched);
    let seq = world.engine(0).control_seq + 1;
    let dirty = |world: &World| world.engine(1).repair.dirty();
    answer(&mut world, seq, frontier - 1, touched, held);
    assert_eq!((dirty(&world), world.counter(1, "buckets_undecided")), (4096, 1), "touched by the last frame");
    let empty = (0..4096).find(|bucket| world.engine(1).table.touched(*bucket) == 0).unwrap();
    answer(&mut world, seq + 1, base.saturating_sub(1), empty, 0);
    assert_eq!(dirty(&world), 4096, "from before the base");
    answer(&mut world, seq + 2, frontier + 1, empty, 0);
    assert_eq!(dirty(&world), 4096, "the frontier is not there yet");
    answer(&mut world, seq + 3, base, empty, 0);
    assert_eq!(dirty(&world), 4095, "nothing has touched it since the base");
    answer(&mut world, seq + 4, frontier, touched, held);
    assert_eq!(dirty(&world), 4094);
}
