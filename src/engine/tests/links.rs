//! Several sync links, which bring every frame several times, and links whose frames become shorter or longer.

use super::*;
use crate::wire::Frame;

/// Frames that were refused, of whatever reason.
fn refused(world: &World, at: usize) -> u64 {
    let counters = world.engine(at).status().counters;
    counters.iter().filter(|(name, _)| name.starts_with("drop_")).map(|(_, count)| count).sum()
}

/// [3.0.6] Whatever a second and a third link bring is a copy: counted as such, and no reason to refuse or to answer.
#[test]
fn what_other_links_bring_again_is_a_copy_and_costs_no_answer() {
    let mut single = World::elected_pair();
    let mut world = World::pair();
    world.links = 3;
    let mut world = world.elected();
    for number in 0..100 {
        single.upsert(0, number);
        world.upsert(0, number);
        single.run(ms(2));
        world.run(ms(2));
    }
    world.assert_equal(0, 1);
    for at in [0, 1] {
        assert_eq!((refused(&world, at), world.counter(at, "data_duplicate")), (0, 0));
        let (frames, copies) = (world.counter(at, "frames_received"), world.counter(at, "duplicates"));
        assert_eq!(copies * 3, frames * 2, "of three that come, two are copies");
        assert_eq!(world.counter(at, "frames_sent"), single.counter(at, "frames_sent"));
    }
}

/// [3.4.3] [3.0.6] What the same link brings twice is a replay, and what another brings for the second time is one, too.
#[test]
fn what_one_link_brings_twice_is_a_replay() {
    let mut world = World::elected_pair();
    // Not at the moment at which one leaves: it has to have arrived.
    world.run(ms(503));
    let advert = world.sent.iter().rev().find(|(_, from, _)| *from == 0).unwrap().2.clone();
    let before = world.counter(1, "drop_replayed");
    let mut told = Vec::new();
    for link in [0, 1, 1, 7, 7, 8, 255] {
        world.hand_in_by(link, 1, &mut advert.clone());
        told.push((world.counter(1, "duplicates"), world.counter(1, "drop_replayed") - before));
    }
    // There are no links 8 and 255: what comes by them is nobody's copy.
    assert_eq!(told, [(0, 1), (1, 1), (1, 2), (2, 2), (2, 3), (2, 4), (2, 5)]);
}

/// [3.0.6] A frame that one link lost and the other brought is new, whichever link it is.
#[test]
fn what_one_link_lost_the_other_brings() {
    let mut world = World::elected_pair();
    world.passes = Box::new(|_, _, bytes| bytes[5] != 2);
    let from = world.sent.len();
    for number in 0..4 {
        world.upsert(0, number);
        world.run(ms(2));
    }
    let data: Vec<Vec<u8>> = world.sent[from..].iter().map(|sent| sent.2.clone()).filter(|b| b[5] == 2).collect();
    assert!(data.len() >= 4);
    for (link, frame) in [(0, 0), (1, 1), (0, 1), (0, 2), (1, 0), (1, 3), (0, 3)] {
        world.hand_in_by(link, 1, &mut data[frame].clone());
    }
    // By 1 comes 0 after 1: the order is broken, so this may be a frame that was sent again, and is answered as one.
    assert_eq!((world.counter(1, "duplicates"), world.counter(1, "data_duplicate")), (2, 1));
    world.passes = Box::new(|_, _, _| true);
    world.run(ms(300));
    world.assert_equal(0, 1);
    assert_eq!(world.counter(1, "holes"), 0);
}

/// [3.6.7] [3.0.8] A backup misses frames that are too long for what the links carry now: it hears that they are gone,
/// and repairs by buckets.
#[test]
fn stored_frames_that_have_become_too_long_are_given_up_and_repaired() {
    let mut world = World::elected_pair();
    world.passes = Box::new(|from, _, bytes| from == 1 || bytes[5] != 2);
    for number in 0..500 {
        world.upsert(0, number);
    }
    world.run(ms(20));
    assert!(world.sent.iter().any(|(_, _, bytes)| bytes.len() > 1300), "long frames are what is missing");
    world.slot_len = 1208;
    world.node(0).engine.set_frame_len(1208);
    world.node(1).engine.set_frame_len(1208);
    world.passes = Box::new(|_, _, _| true);
    let shorter = world.sent.len();
    world.run_until("both are equal", |world| world.table(1).len() == 500 && world.sync(1) == SyncState::InSync);
    world.assert_equal(0, 1);
    assert!(world.counter(1, "holes") > 0);
    let longest = world.sent[shorter..].iter().map(|sent| sent.2.len()).max().unwrap();
    assert!((1184..=1208).contains(&longest), "a full frame has less than a record's room left: {longest}");
}

/// [3.0.8] Longer slots are used when the engine is told, and a full frame is then the longer one.
#[test]
fn longer_frames_are_made_when_links_carry_them() {
    let mut world = World::elected_pair();
    world.slot_len = 8960;
    world.node(0).engine.set_frame_len(8960);
    let from = world.sent.len();
    for number in 0..300 {
        let plain = Flow { reply_source: None, tcp: None, ..flow(number) };
        world.update(0, Change::Upsert(plain));
    }
    // At most 255 records of 24 bytes stand in one frame behind its 40 bytes; that many wait for no company.
    world.run(Duration::from_micros(10));
    assert_eq!(world.sent[from..].iter().map(|sent| sent.2.len()).collect::<Vec<_>>(), [40 + 255 * 24]);
    world.run(ms(300));
    world.assert_equal(0, 1);
    assert!(world.sent[from..].iter().all(|sent| Frame::parse(&sent.2).is_ok()));
}
