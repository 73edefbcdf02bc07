//! Joining late, missing much, being proven equal.

use super::*;

/// A master with so many flows, and an absent second node.
pub(super) fn filled_master(flows: u32) -> World {
    let mut world = World::new(vec![Config { priority: 150, ..config(1) }]);
    world.nodes.push(None);
    world.run(Duration::from_secs(1));
    world.dump_done(0);
    for number in 0..flows {
        world.upsert(0, number);
    }
    world.run(Duration::from_secs(1));
    world
}

/// [4.5.1] [4.5.2] [4.4.5] A node that comes when the table is long full gets all of it, and can prove it.
#[test]
fn a_late_joiner_is_filled_and_proven() {
    let mut world = filled_master(20_000);
    world.start(1, config(2));
    let took = world.run_until("in sync", |world| world.sync(1) == SyncState::InSync);
    assert!(took < Duration::from_secs(1), "took {took:?}");
    world.assert_equal(0, 1);
    assert_eq!(world.node(1).sink.len(), 20_000);
    assert_eq!(world.counter(1, "pulls_sent"), 1);
    assert!(!world.engine(1).status().cold);
    assert_eq!(world.events(1, "SyncStarted"), 1);
    assert_eq!(world.events(1, "InSync"), 1);
}

/// [1.1.1] [4.5.1] The same with a tenth of all frames lost, and live changes all the while.
#[test]
fn a_late_joiner_is_filled_through_loss_and_under_load() {
    let mut world = filled_master(20_000);
    let mut roll = dice(3);
    world.passes = Box::new(move |_, _, _| roll(10) != 0);
    world.start(1, config(2));
    let mut choose = dice(4);
    for _ in 0..1000 {
        let number = choose(25_000) as u32;
        let change = if choose(2) == 0 { Change::Delete(key(number)) } else { Change::Upsert(flow(number)) };
        world.update(0, change);
        world.run(ms(1));
    }
    world.passes = Box::new(|_, _, _| true);
    // It may be proven long ago, and lack the frames that were lost last.
    world.run(ms(200));
    world.run_until("in sync", |world| world.sync(1) == SyncState::InSync);
    world.assert_equal(0, 1);
    let (sink, table) = (world.node(1).sink.len(), world.table(1).len());
    assert_eq!(sink, table);
}

/// [4.3.1] [4.5.3] Cut off for so long that the history is gone: what died meanwhile dies here too, what was born arrives.
#[test]
fn a_hole_in_the_history_is_repaired_and_leaves_no_zombies() {
    let mut world = filled_master(2000);
    world.start(1, config(2));
    world.run_until("in sync", |world| world.sync(1) == SyncState::InSync);
    // Only ADVERTs pass, so the peers stay established while 256 frames of history are overrun.
    world.passes = Box::new(|from, _, bytes| from == 1 || bytes[5] == 1);
    for number in 0..1000 {
        world.update(0, Change::Delete(key(number)));
        world.upsert(0, 5000 + number);
        world.run(Duration::from_micros(1100));
    }
    assert!(world.counter(1, "holes") > 0);
    assert_ne!(world.sync(1), SyncState::InSync);
    world.passes = Box::new(|_, _, _| true);
    world.run_until("in sync again", |world| world.sync(1) == SyncState::InSync);
    world.assert_equal(0, 1);
    assert_eq!(world.node(1).sink.len(), 2000);
    assert!(!world.node(1).sink.contains_key(&key(0)));
    assert_eq!(world.events(1, "SyncStarted"), 2, "that the proof is lost is told");
}

/// [4.4.7] [4.4.5] After a takeover the tables are equal already: proven by the totals, and nothing is walked.
#[test]
fn a_warm_backup_of_a_new_master_needs_no_walk() {
    let mut world =
        World::new(vec![Config { priority: 150, ..config(1) }, Config { priority: 120, ..config(2) }, config(3)]);
    world.run(Duration::from_secs(1));
    world.dump_done(0);
    for number in 0..3000 {
        world.upsert(0, number);
    }
    world.run_until("in sync", |world| world.sync(1) == SyncState::InSync && world.sync(2) == SyncState::InSync);
    let walked = world.counter(2, "buckets_repaired");
    world.kill(0);
    world.run_until("a new master", |world| world.role(1) == Role::Master);
    world.run_until("in sync", |world| world.sync(2) == SyncState::InSync);
    world.assert_equal(1, 2);
    assert_eq!(world.counter(2, "buckets_repaired"), walked);
    assert_eq!(world.engine(2).status().entries, 3000);
}

/// [4.3.2] The source lost changes: what its next complete dump does not name is deleted here and on the peers.
#[test]
fn what_a_dump_does_not_name_dies_everywhere() {
    let mut world = filled_master(100);
    world.start(1, config(2));
    world.run_until("in sync", |world| world.sync(1) == SyncState::InSync);
    let now = world.now;
    let master = &mut world.node(0).engine;
    master.source_overrun(now);
    master.begin_dump(now);
    for number in 50..110 {
        master.update(now, &Change::Upsert(flow(number))).unwrap();
    }
    master.end_dump(now);
    world.run(ms(300));
    assert_eq!(world.engine(0).status().entries, 60);
    world.assert_equal(0, 1);
    assert_eq!(world.counter(0, "dump_deletes"), 50);
    assert_eq!(world.events(0, "SourceOverrun"), 1);
}

/// [4.4.4] A master whose source has not been dumped to its end does not offer its digest as proof.
#[test]
fn before_its_first_dump_a_cold_master_proves_nothing() {
    let mut world = World::pair();
    world.run(Duration::from_secs(2));
    assert_eq!((world.role(0), world.sync(1)), (Role::Master, SyncState::Cold));
    world.dump_done(0);
    world.run(ms(300));
    assert_eq!(world.sync(1), SyncState::InSync);
}

/// [4.4.4] [4.4.5] Under a load that never pauses, what waits is sent before an ADVERT: its digest can be compared all the same.
#[test]
fn equality_is_proven_again_and_again_under_load() {
    let mut world = World::elected_pair();
    let matched = world.counter(1, "digests_matched");
    for number in 0..4000 {
        world.upsert(0, number % 500);
        world.update(0, Change::Upsert(Flow { mark: number, ..flow(number % 700) }));
        world.run(Duration::from_micros(250));
    }
    assert_eq!(world.sync(1), SyncState::InSync);
    // One ADVERT in 100 ms for a second; each comes right behind the last change.
    assert!(world.counter(1, "digests_matched") >= matched + 9);
    assert_eq!(world.counter(1, "digests_differed"), 0);
}

/// [4.5.5] While the master's table cannot fit into ours, no walk is asked for; when it can, one is, and at once.
#[test]
fn a_table_too_small_asks_again_when_it_is_not_too_small() {
    let mut world = World::new(vec![Config { priority: 150, ..config(1) }, Config { capacity: 10, ..config(2) }]);
    world.run(Duration::from_secs(1));
    world.dump_done(0);
    (0..40).for_each(|number| world.upsert(0, number));
    world.run(Duration::from_secs(30));
    let pulls = world.counter(1, "pulls_sent");
    assert!(pulls <= 3, "{pulls} pulls of what does not fit");
    (5..40).for_each(|number| world.update(0, Change::Delete(key(number))));
    let took = world.run_until("in sync", |world| world.sync(1) == SyncState::InSync);
    assert!(took <= ms(500), "took {took:?}");
    world.assert_equal(0, 1);
}

/// [4.2.2] A delete that came early into a full table: its tombstone needs no slot, and the upsert that comes late cannot bring
/// the flow back.
#[test]
fn an_early_delete_needs_no_slot() {
    delete_early(Config { capacity: 3, ..config(2) }, (0, 1), 3);
}

/// [4.2.3] A delete that came early and finds no room for its tombstone: its frame counts as not received, so that the upsert
/// that comes late cannot bring the flow back.
#[test]
fn an_early_delete_without_a_tombstone_is_not_taken() {
    delete_early(Config { tombstones: 0, ..config(2) }, (1, 0), 2);
}

/// A flow's delete comes before it: the backup then counts so many frames without a tombstone and hits of one, and has moved
/// its frontier by so many frames.
fn delete_early(backup: Config, (refused, hits): (u64, u64), moved: u64) {
    let mut world = World::new(vec![Config { priority: 150, ..config(1) }, backup]);
    world.run(Duration::from_secs(1));
    world.dump_done(0);
    (0..3).for_each(|number| world.upsert(0, number));
    world.run(ms(300));
    // The frames that make room, and the one that brings flow 9, are on their way when the one that deletes it arrives.
    world.passes = Box::new(|_, _, bytes| bytes[5] != 2);
    let (seq, pulls) = (world.engine(0).status().stream_seq, world.counter(1, "pulls_sent"));
    world.update(0, Change::Delete(key(0)));
    world.run(ms(2));
    world.upsert(0, 9);
    world.run(ms(2));
    world.update(0, Change::Delete(key(9)));
    world.run(ms(2));
    let frames: Vec<Vec<u8>> =
        world.sent.iter().filter(|(_, _, bytes)| bytes[5] == 2).map(|(_, _, b)| b.clone()).collect();
    let mut late = frames[frames.len() - 3..].to_vec();
    assert_eq!(world.engine(0).status().stream_seq, seq + 3);
    for nth in [2, 0, 1] {
        world.hand_in(1, &mut late[nth]);
        world.run(Duration::from_micros(1));
    }
    assert_eq!((world.counter(1, "data_no_tombstone"), world.counter(1, "tombstone_hits")), (refused, hits));
    assert_eq!(world.engine(1).status().frontier, seq + moved);
    world.passes = Box::new(|_, _, _| true);
    world.run(ms(300));
    world.assert_equal(0, 1);
    assert_eq!((world.engine(1).status().entries, world.counter(1, "pulls_sent")), (2, pulls));
}
