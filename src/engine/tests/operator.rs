//! What an operator asks of an engine that runs: other settings, a table proven anew, a proof that all has arrived.

use super::*;

fn tuning(world: &World, at: usize) -> Tuning {
    Tuning::from(&world.engine(at).config)
}

fn milliseconds(count: u64) -> Duration {
    ms(count)
}

#[test]
fn other_settings_reset_neither_role_nor_stream_nor_table() {
    let mut world = World::elected_pair();
    (0..500).for_each(|number| world.upsert(0, number));
    world.run_until("in sync", |world| world.sync(1) == SyncState::InSync && world.table(1).len() == 500);
    let (before, incarnations) = (world.engine(0).status(), [world.engine(0).incarnation, world.engine(1).incarnation]);
    let now = world.now;
    for at in 0..2 {
        let changed = Tuning {
            advert_interval: milliseconds(50),
            commit_deadline: milliseconds(300),
            reorder_delay: milliseconds(3),
            preempt: false,
            priority: 120 - at as u8,
            ..tuning(&world, at)
        };
        world.node(at).engine.reconfigure(now, &changed).unwrap();
    }
    world.run(Duration::from_secs(5));
    let after = world.engine(0).status();
    assert_eq!((after.role, after.term, after.entries, after.stream_seq), (Role::Master, 1, 500, before.stream_seq));
    assert_eq!(after.priority, 120);
    assert_eq!(world.engine(1).status().peers[0].priority, 120, "and the other has heard of it");
    assert_eq!([world.engine(0).incarnation, world.engine(1).incarnation], incarnations);
    assert_eq!((world.role(1), world.sync(1)), (Role::Backup, SyncState::InSync));
    assert_eq!((world.events(0, "RoleChanged"), world.events(1, "RoleChanged")), (3, 1));
    assert_eq!((world.events(1, "MasterLost"), world.events(1, "SyncStarted")), (0, 1));
}

/// [5.0.1] Peers count with the interval that they have heard: 10 s on it must not look like death, even if an ADVERT
/// that tells of it is lost.
#[test]
fn a_longer_interval_is_told_before_it_is_kept() {
    let mut world = World::elected_pair();
    let now = world.now;
    let mut adverts = 0;
    world.passes = Box::new(move |from, _, bytes| {
        adverts += u32::from(from == 0 && bytes[5] == 1);
        from == 1 || adverts > 2
    });
    let longer = Tuning { advert_interval: Duration::from_secs(10), ..tuning(&world, 0) };
    world.node(0).engine.reconfigure(now, &longer).unwrap();
    world.run(Duration::from_secs(120));
    assert_eq!((world.role(0), world.role(1)), (Role::Master, Role::Backup));
    assert_eq!(world.events(1, "MasterLost"), 0);
    let from_master = |(_, from, _): &&(Instant, usize, Vec<u8>)| *from == 0;
    let late = world.sent.iter().filter(from_master).filter(|(at, ..)| at.since(now) > Duration::from_secs(60)).count();
    assert_eq!(late, 6, "one each 10 s");
}

/// [4.6.5] The kernel's clocks stand behind the table's by the new margin, those of copies from before, too: they are
/// written again by so much earlier (100 + 75 s to 16 s later, for 400 + 75 s).
#[test]
fn a_longer_grace_holds_for_the_copies_that_are_there_already() {
    let mut world = World::elected_pair();
    world.update(0, Change::Upsert(Flow { timeout: 400, ..flow(1) }));
    world.run_until("a copy", |world| world.nodes[1].as_ref().unwrap().sink.contains_key(&key(1)));
    assert_eq!(world.node(1).sink[&key(1)].timeout, 675);
    let now = world.now;
    for at in 0..2 {
        let longer = Tuning { takeover_grace: Duration::from_secs(480), ..tuning(&world, at) };
        world.node(at).engine.reconfigure(now, &longer).unwrap();
    }
    assert_eq!(world.engine(0).flow(&key(1), now).map(|flow| flow.timeout), Some(400), "a master's clocks stay");
    world.node(1).sink.clear();
    world.run(Duration::from_secs(170));
    assert_eq!(world.node(1).sink.len(), 0);
    world.run(Duration::from_secs(25));
    assert_eq!(world.node(1).sink[&key(1)].timeout, 575);
}

#[test]
fn impossible_settings_are_refused_and_change_nothing() {
    let mut world = World::elected_pair();
    let (now, before) = (world.now, tuning(&world, 0));
    let wrong = Tuning { priority: 0, advert_interval: Duration::from_secs(7), ..before.clone() };
    assert_eq!(world.node(0).engine.reconfigure(now, &wrong).unwrap_err().key, "priority");
    assert_eq!(tuning(&world, 0), before);
}

/// A higher priority takes the role back, and a reload may be what makes it higher.
#[test]
fn a_priority_that_becomes_the_higher_one_takes_the_role_in_good_order() {
    let mut world = World::elected_pair();
    let now = world.now;
    let higher = Tuning { priority: 200, ..tuning(&world, 1) };
    world.node(1).engine.reconfigure(now, &higher).unwrap();
    world.run_until("the role moves", |world| world.role(1) == Role::Master && world.role(0) == Role::Backup);
    assert_eq!(world.events(1, "MasterLost"), 0, "nobody died");
}

/// [4.5.1] [4.5.2] Equal tables are proven again by their totals; a full resync walks them all the same.
#[test]
fn a_resync_compares_and_a_full_one_walks() {
    let mut world = World::elected_pair();
    (0..500).for_each(|number| world.upsert(0, number));
    world.run_until("in sync", |world| world.sync(1) == SyncState::InSync && world.table(1).len() == 500);
    let pulls = world.counter(1, "pulls_sent");
    let (now, digest) = (world.now, world.engine(1).status().digest);
    assert_eq!(world.node(1).engine.resync(now, false), Ok(4096));
    assert_eq!(world.sync(1), SyncState::Syncing);
    world.run_until("proven again", |world| world.sync(1) == SyncState::InSync);
    assert_eq!(world.counter(1, "pulls_sent"), pulls, "equal totals need no walk");

    let (now, repaired) = (world.now, world.counter(1, "buckets_repaired"));
    assert_eq!(world.node(1).engine.resync(now, true), Ok(4096));
    world.run_until("walked", |world| world.sync(1) == SyncState::InSync);
    assert_eq!(world.counter(1, "pulls_sent"), pulls + 1);
    assert_eq!(world.counter(1, "buckets_repaired"), repaired + 4096);
    assert_eq!((world.role(1), world.engine(1).status().digest), (Role::Backup, digest));
    assert_eq!(world.events(1, "Diverged"), 0, "nothing was wrong");
    world.assert_equal(0, 1);
}

#[test]
fn a_master_and_a_node_without_a_master_are_not_resynced() {
    let mut world = World::elected_pair();
    let now = world.now;
    assert_eq!(world.node(0).engine.resync(now, true), Err(ResyncError::Master));
    let mut alone = World::new(vec![config(1)]);
    let now = alone.now;
    assert_eq!(alone.node(0).engine.resync(now, false), Err(ResyncError::NoMaster));
}

#[test]
fn a_flush_is_done_when_the_proven_follower_holds_what_was_submitted_and_not_before() {
    let mut world = World::elected_pair();
    world.run_until("in sync", |world| world.sync(1) == SyncState::InSync);
    let minute = Duration::from_secs(60);
    assert_eq!(world.engine(1).begin_flush(world.now, minute, None), Err(NotMaster));
    let before = world.engine(0).status().stream_seq;
    (0..500).for_each(|number| world.upsert(0, number));
    let mut flush = world.engine(0).begin_flush(world.now, minute, None).unwrap();
    assert_eq!((world.engine(0).flush_state(world.now, &mut flush), flush.seq()), (Ok(FlushState::Waiting), None));
    // Nothing from the master arrives: the frames leave, and nobody holds them.
    world.passes = Box::new(|from, _, bytes| from == 1 || bytes[5] != 2);
    world.run(milliseconds(20));
    assert_eq!(world.engine(0).flush_state(world.now, &mut flush), Ok(FlushState::Waiting));
    let status = world.engine(0).status();
    assert_eq!(flush.seq(), Some(status.stream_seq));
    assert_eq!(status.unacknowledged, Some(status.stream_seq - before), "every frame since");
    let age = world.now.since(status.unacknowledged_since.unwrap());
    assert!(age > milliseconds(15) && age <= milliseconds(20), "{age:?}");
    world.passes = Box::new(|_, _, _| true);
    let done = |world: &World, flush: &mut Flush| world.engine(0).flush_state(world.now, flush) == Ok(FlushState::Done);
    world.run_until("flushed", |world| done(world, &mut flush));
    assert_eq!(world.table(1).len(), 500);
    let status = world.engine(0).status();
    assert_eq!((status.unacknowledged, status.unacknowledged_since), (Some(0), None));
}

#[test]
fn a_flush_needs_somebody_who_holds_it_and_ends_with_the_mastership() {
    let mut world = World::elected_pair();
    world.run_until("in sync", |world| world.sync(1) == SyncState::InSync);
    world.kill(1);
    world.run(Duration::from_secs(1));
    let mut flush = world.engine(0).begin_flush(world.now, milliseconds(101), None).unwrap();
    world.run(milliseconds(100));
    assert_eq!(world.engine(0).flush_state(world.now, &mut flush), Ok(FlushState::Waiting));
    world.run(milliseconds(1));
    assert_eq!(world.engine(0).flush_state(world.now, &mut flush), Ok(FlushState::TimedOut));
    assert_eq!(world.engine(0).status().unacknowledged, None);
    let now = world.now;
    world.node(0).engine.set_role(now, RoleRequest::Backup);
    assert_eq!(world.engine(0).flush_state(world.now, &mut flush), Err(NotMaster));
}

/// One that is left out would be the old one, and no problem of it would be told.
#[test]
fn every_setting_is_exchanged() {
    let mut world = World::elected_pair();
    let now = world.now;
    let other = Tuning {
        priority: 77,
        preempt: false,
        advert_interval: milliseconds(60),
        batch_delay: milliseconds(2),
        ack_every: 9,
        ack_delay: milliseconds(7),
        reorder_delay: milliseconds(4),
        lag_limit: milliseconds(2300),
        commit_deadline: milliseconds(800),
        handover_deadline: milliseconds(1700),
        merge_deadline: milliseconds(1900),
        takeover_grace: Duration::from_secs(130),
        startup_delay: Duration::from_secs(8),
        ack: Ack::Quorum,
        ack_timeout: milliseconds(900),
        members: Some(3),
    };
    world.node(0).engine.reconfigure(now, &other).unwrap();
    assert_eq!(tuning(&world, 0), other);
    // Each alone is a change.
    let longer = Tuning { startup_delay: Duration::from_secs(9), ..other };
    world.node(0).engine.reconfigure(now, &longer).unwrap();
    assert_eq!(tuning(&world, 0).startup_delay, Duration::from_secs(9));
}
