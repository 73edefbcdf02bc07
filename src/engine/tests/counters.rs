//! Counters are true: each is held against causes that the test has counted itself, most of them as an observer on the wire.

use super::*;
use crate::wire::{BucketRange, DataWriter, Fragment, Frame, FrameFlags, Header, Kind, Pull, Target, encode_pull};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

const ADVERT: u8 = 1;
const DATA: u8 = 2;
const STATUS: u8 = 3;
const DIGESTS_REQUEST: u8 = 4;
const DIGESTS_ANSWER: u8 = 5;
const PULL: u8 = 6;

/// What an observer has seen of frames on their way from one node to another: by kind, and the numbers of DATA.
#[derive(Default)]
struct Seen {
    left: BTreeMap<u8, u64>,
    arrived: BTreeMap<u8, u64>,
    data: BTreeSet<u64>,
    data_arrived: BTreeSet<u64>,
}

fn count(of: &BTreeMap<u8, u64>, kind: u8) -> u64 {
    of.get(&kind).copied().unwrap_or(0)
}

/// Lets the network lose every fifth DATA frame to node 1, and watches both ways.
fn watched(world: &mut World) -> [Rc<RefCell<Seen>>; 2] {
    let seen = [Rc::new(RefCell::new(Seen::default())), Rc::new(RefCell::new(Seen::default()))];
    let watchers = seen.clone();
    let mut nth = 0;
    world.passes = Box::new(move |from, _, bytes| {
        let (kind, seq) = (bytes[5], Frame::parse(bytes).unwrap().header().seq);
        let mut seen = watchers[from].borrow_mut();
        *seen.left.entry(kind).or_default() += 1;
        nth += u64::from(kind == DATA);
        let passes = kind != DATA || nth % 5 != 0;
        if kind == DATA {
            seen.data.insert(seq);
        }
        if passes {
            *seen.arrived.entry(kind).or_default() += 1;
            if kind == DATA {
                seen.data_arrived.insert(seq);
            }
        }
        passes
    });
    seen
}

/// What a counter has grown by since `before`.
fn grown(world: &World, at: usize, before: &EngineStatus, name: &str) -> u64 {
    let was = before.counters.iter().find(|(known, _)| known == name).unwrap().1;
    world.counter(at, name) - was
}

/// [3.6.2] [3.6.4] Frames by kind, first and again, sent and received: as the wire saw them, under loss.
#[test]
fn counters_of_frames_are_those_of_an_observer_on_the_wire() {
    let mut world = World::elected_pair_without_preempt();
    // Nothing is under way when the observer begins.
    world.run(ms(30));
    let before = [world.engine(0).status(), world.engine(1).status()];
    let seen = watched(&mut world);
    for number in 0..3000 {
        world.upsert(0, number);
        world.run(Duration::from_micros(100));
    }
    let now = world.now;
    world.node(1).engine.resync(now, false).unwrap();
    world.run_until("in sync", |world| world.sync(1) == SyncState::InSync);
    world.run(ms(20));
    world.assert_equal(0, 1);
    let (master, backup) = (seen[0].borrow(), seen[1].borrow());
    let of = |at: usize, name: &str| grown(&world, at, &before[at], name);
    let lost = count(&master.left, DATA) - count(&master.arrived, DATA);
    assert!(lost > 50 && of(0, "data_resent") >= lost, "{lost} lost");
    assert_eq!(of(0, "data_sent"), master.data.len() as u64);
    assert_eq!(of(0, "data_sent") + of(0, "data_resent"), count(&master.left, DATA));
    assert_eq!(of(1, "data_received"), master.data_arrived.len() as u64);
    assert_eq!(of(1, "data_received") + of(1, "data_duplicate"), count(&master.arrived, DATA));
    assert_eq!(
        (of(0, "adverts_sent"), of(1, "adverts_received")),
        (count(&master.left, ADVERT), count(&master.left, ADVERT))
    );
    assert_eq!(
        (of(1, "adverts_sent"), of(0, "adverts_received")),
        (count(&backup.left, ADVERT), count(&backup.left, ADVERT))
    );
    assert_eq!(
        (of(1, "status_sent"), of(0, "status_received")),
        (count(&backup.left, STATUS), count(&backup.left, STATUS))
    );
    assert_eq!(of(0, "frames_sent"), master.left.values().sum::<u64>());
    assert_eq!(of(1, "frames_received"), master.arrived.values().sum::<u64>());
    assert_eq!((of(0, "records_sent"), of(1, "records_applied")), (3000, 3000));
}

/// [4.4.9] Requests, answers and pulls of a repair, and the buckets that it compared: as the wire saw them.
#[test]
fn counters_of_a_repair_are_those_of_an_observer_on_the_wire() {
    let mut world = World::elected_pair_without_preempt();
    (0..500).for_each(|number| world.upsert(0, number));
    world.kill(1);
    world.run(Duration::from_secs(1));
    let seen = watched(&mut world);
    world.start(1, Config { preempt: false, ..config(2) });
    let now = world.now;
    let stale = |number: u32| Flow { mark: u32::from(number == 7), ..flow(number) };
    (0..500).for_each(|number| world.node(1).engine.preload(now, &stale(number)).unwrap());
    let before = world.engine(0).status();
    world.run_until("in sync", |world| world.sync(1) == SyncState::InSync);
    world.run(ms(20));
    let (master, backup) = (seen[0].borrow(), seen[1].borrow());
    let asked = count(&backup.left, DIGESTS_REQUEST);
    assert!(asked > 0);
    let requests = (world.counter(1, "digests_requests_sent"), grown(&world, 0, &before, "digests_requests_received"));
    assert_eq!(requests, (asked, asked));
    let answered = count(&master.left, DIGESTS_ANSWER);
    let answers = (grown(&world, 0, &before, "digests_answers_sent"), world.counter(1, "digests_answers_received"));
    assert_eq!((answers, answered >= 32), ((answered, answered), true), "4096 buckets, 128 in a frame");
    let pulled = count(&backup.left, PULL);
    let pulls = (world.counter(1, "pulls_sent"), grown(&world, 0, &before, "pulls_received"));
    assert_eq!((pulls, pulled > 0), ((pulled, pulled), true));
    assert_eq!(grown(&world, 0, &before, "buckets_walked"), 1, "one flow was stale");
    assert_eq!(world.counter(1, "buckets_repaired"), 1);
    assert!(world.counter(1, "buckets_differed") >= 1, "compared again until it is walked");
    assert!(world.counter(1, "buckets_matched") >= 4095);
}

/// A DATA frame of the master, made by hand, with its next number.
fn forged(world: &World, write: impl Fn(&mut DataWriter<'_>)) -> Vec<u8> {
    let engine = world.engine(0);
    let header = Header {
        sync_id: 51,
        kind: Kind::DATA,
        flags: FrameFlags(0),
        node: NodeId(1),
        incarnation: 1001,
        seq: engine.outbox.seq() + 1,
        term: engine.term,
    };
    let mut slot = [0; 1480];
    let mut writer = DataWriter::new(&mut slot, header).unwrap();
    write(&mut writer);
    let length = writer.finish();
    slot[..length].to_vec()
}

/// [4.2.1] [4.2.2] An upsert that a delete has overtaken is counted as older, and the tombstone that stopped it as hit.
#[test]
fn an_overtaken_upsert_counts_as_older_and_its_tombstone_as_hit() {
    let mut world = World::elected_pair_without_preempt();
    world.run(ms(50));
    let held_back = Rc::new(RefCell::new(Vec::new()));
    let holds = held_back.clone();
    world.passes = Box::new(move |from, _, bytes| {
        let late = from == 0 && bytes[5] == DATA && holds.borrow().is_empty();
        if late {
            holds.borrow_mut().extend_from_slice(bytes);
        }
        !late
    });
    world.upsert(0, 1);
    world.run(ms(1));
    world.update(0, Change::Delete(key(1)));
    world.run(Duration::from_micros(200));
    assert_eq!((world.counter(1, "records_older"), world.counter(1, "tombstone_hits")), (0, 0));
    let mut late = held_back.borrow().clone();
    world.hand_in(1, &mut late);
    assert_eq!((world.counter(1, "records_older"), world.counter(1, "tombstone_hits")), (1, 1));
    assert_eq!(world.engine(1).status().entries, 0);
}

/// [4.5.4] A bucket-end that claims to have begun behind its own frame is refused, and counted.
#[test]
fn an_impossible_bucket_end_is_counted_as_refused() {
    let mut world = World::elected_pair_without_preempt();
    world.upsert(0, 1);
    world.run(ms(300));
    let bucket = world.engine(0).table.bucket_of(&key(1));
    let repaired = world.counter(1, "buckets_repaired");
    let mut frame = forged(&world, |writer| writer.push_bucket_end(bucket, u64::MAX >> 20).unwrap());
    world.hand_in(1, &mut frame);
    assert_eq!((world.counter(1, "bucket_ends_refused"), world.counter(1, "buckets_repaired") - repaired), (1, 0));
    assert_eq!(world.engine(1).status().entries, 1);
}

/// [3.3.12] A part of a value whose beginning nobody sent is counted as stray, and ends the proof.
#[test]
fn a_part_without_a_beginning_is_counted_as_stray() {
    let mut world = World::elected_pair_without_preempt();
    world.run(ms(300));
    assert_eq!(world.sync(1), SyncState::InSync);
    let received = world.counter(1, "data_received");
    let part = Fragment { expiry: 0, total: 2000, offset: 992, back: 0, bytes: &[5; 64] };
    let mut frame = forged(&world, |writer| {
        writer.push_section_part(7, b"web", part).unwrap();
    });
    world.hand_in(1, &mut frame);
    assert_eq!((world.counter(1, "section_parts_stray"), world.counter(1, "data_received") - received), (1, 1));
    assert_ne!(world.sync(1), SyncState::InSync);
}

/// [4.5.6] A bucket that is asked for while it is walked is walked once more, and counted.
#[test]
fn a_bucket_asked_for_during_its_walk_is_counted() {
    let mut world = World::elected_pair_without_preempt();
    (0..5000).for_each(|number| world.upsert(0, number));
    world.run(Duration::from_secs(1));
    let bucket = world.engine(0).table.bucket_of(&key(1));
    let now = world.now;
    let pull = |world: &mut World| {
        let engine = &mut world.node(1).engine;
        engine.control_seq += 1;
        let (seq, term) = (engine.control_seq, engine.term);
        let header =
            Header { sync_id: 51, kind: Kind(0), flags: FrameFlags(0), node: NodeId(2), incarnation: 1002, seq, term };
        let target = Target { node: NodeId(1), incarnation: 1001 };
        let mut slot = [0; 1480];
        let length = encode_pull(&mut slot, header, &Pull { target, ranges: &[BucketRange::new(bucket, 1)] }).unwrap();
        world.hand_in(0, &mut slot[..length]);
    };
    let walked = world.counter(0, "buckets_walked");
    pull(&mut world);
    world.node(0).engine.outbox.walk_on(&mut Table::new(1, 1, 0));
    assert_eq!(world.counter(0, "buckets_walked_again"), 0);
    pull(&mut world);
    assert_eq!(world.counter(0, "buckets_walked_again"), 1);
    let mut slot = [0; 1480];
    while world.node(0).engine.poll_transmit(now, &mut slot).is_some() {}
    assert_eq!(world.counter(0, "buckets_walked") - walked, 2);
}
