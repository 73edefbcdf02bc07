//! Clocks: of copies, at a takeover, and of a node that is being filled.

use super::*;
use crate::wire::{
    BucketDigest, DataWriter, DigestsAnswer, Header, Kind, MergePull, Target, encode_digests_answer, encode_merge_pull,
};

/// What a flow that is told with so many seconds gets in the backup's sink.
fn copied(world: &mut World, number: u32, timeout: u32) -> u32 {
    world.update(0, Change::Upsert(Flow { timeout, ..flow(number) }));
    world.run_until("a copy", |world| world.nodes[1].as_ref().unwrap().sink.contains_key(&key(number)));
    world.node(1).sink[&key(number)].timeout
}

/// [4.6.5] takeover_grace, 180 s unless it is configured, and 95 s.
#[test]
fn a_copy_is_given_the_margin_over_its_flow() {
    let mut world = World::elected_pair();
    assert_eq!(copied(&mut world, 1, 100), 375);
    assert_eq!(copied(&mut world, 2, u32::MAX), u32::MAX);
    let short = |config: Config| Config { takeover_grace: Duration::from_secs(7), ..config };
    let mut world = World::new(vec![short(Config { priority: 150, ..config(1) }), short(config(2))]).elected();
    assert_eq!(copied(&mut world, 1, 100), 202);
}

/// [4.6.5] A backup whose master dumps too seldom keeps its copies all the same; the master itself renews nothing.
#[test]
fn a_copy_of_which_no_word_comes_is_written_again_and_no_takeover_is_slowed_by_it() {
    let mut world = World::elected_pair();
    copied(&mut world, 1, 10);
    world.node(1).sink.clear();
    world.run(Duration::from_secs(84));
    assert_eq!((world.node(1).sink.len(), world.counter(1, "copies_renewed")), (0, 0));
    world.run(Duration::from_secs(18));
    assert_eq!(world.counter(1, "copies_renewed"), 1);
    assert_eq!(world.node(1).sink[&key(1)].timeout, 275);
    world.run(Duration::from_secs(200));
    assert_eq!((world.counter(1, "copies_renewed"), world.counter(0, "copies_renewed")), (3, 0));
    // A delete ends it.
    world.update(0, Change::Delete(key(1)));
    world.run(Duration::from_secs(200));
    assert_eq!((world.counter(1, "copies_renewed"), world.node(1).sink.len()), (3, 0));
}

/// [4.6.4] Where time alone ends flows, what had one second left by the last word has the grace, and what had more keeps it.
#[test]
fn a_new_master_whose_source_finds_no_deaths_gives_every_flow_its_grace() {
    let by_time = |config: Config| Config { source_expires: false, ..config };
    let mut world = World::new(vec![by_time(Config { priority: 150, ..config(1) }), by_time(config(2))]).elected();
    for (number, timeout) in [(1, 1), (2, 100), (3, 4000)] {
        copied(&mut world, number, timeout);
    }
    world.kill(0);
    world.run_until("master", |world| world.role(1) == Role::Master);
    let now = world.now;
    let left = |number| world.engine(1).flow(&key(number), now).unwrap().timeout;
    assert_eq!((left(1), left(2)), (180, 180));
    assert!((3990..=4000).contains(&left(3)));
}

/// [4.6.2] [4.6.4] The copy was written with 475 s; 50 s later its node takes over, and dumps its kernel after 100 more. Nobody
/// takes the margin for the flow's own time: nothing is told, and who joins from nothing is told what is left of the 200 s.
#[test]
fn a_copy_that_no_packet_has_touched_is_not_told_with_its_margin() {
    let mut world = World::elected_pair_without_preempt();
    copied(&mut world, 1, 200);
    world.run(Duration::from_secs(50));
    world.kill(0);
    world.run_until("master", |world| world.role(1) == Role::Master);
    world.run(Duration::from_secs(100));
    world.update(1, Change::Upsert(Flow { timeout: 325, ..flow(1) }));
    assert_eq!(world.counter(1, "records_sent"), 0);
    world.start(0, Config { incarnation: 5555, ..config(1) });
    world.run_until("in sync", |world| world.sync(0) == SyncState::InSync);
    let copy = world.node(0).sink[&key(1)].timeout;
    assert!((315..=326).contains(&copy), "some 45 s and the margin: {copy}");
    // A packet sets the kernel's clock.
    let told = world.counter(1, "records_sent");
    world.update(1, Change::Upsert(Flow { timeout: 600, ..flow(1) }));
    world.run(Duration::from_secs(1));
    assert_eq!(world.counter(1, "records_sent"), told + 1);
    assert_eq!(world.node(0).sink[&key(1)].timeout, 875);
}

/// [4.6.5] Its kernel's clocks were those of its own packets.
#[test]
fn a_former_master_writes_what_has_little_time_again() {
    let mut world = World::elected_pair_without_preempt();
    copied(&mut world, 1, 100);
    copied(&mut world, 2, 4000);
    let now = world.now;
    world.node(0).engine.set_role(now, RoleRequest::Backup);
    world.run_until("the other is master", |world| world.role(1) == Role::Master && world.role(0) == Role::Backup);
    world.run(Duration::from_secs(20));
    assert_eq!(world.node(0).sink.keys().collect::<Vec<_>>(), [&key(1)]);
}

/// [4.6.6]
#[test]
fn what_is_put_back_goes_to_the_sink_again_if_it_is_held() {
    let mut world = World::elected_pair();
    copied(&mut world, 1, 100);
    world.node(1).sink.clear();
    assert!(world.node(1).engine.put_back(&key(1)) && !world.node(1).engine.put_back(&key(2)));
    world.run(ms(1));
    assert_eq!(world.node(1).sink.keys().collect::<Vec<_>>(), [&key(1)]);
    assert_eq!(world.counter(1, "copies_put_back"), 1);
}

/// [4.5.7] It speaks and hears; the master's death would make it master. It follows when it is told that it is full.
#[test]
fn a_node_that_is_being_filled_follows_nobody_and_takes_part_in_everything_else() {
    let mut world = World::elected_pair();
    world.upsert(0, 1);
    world.run(ms(10));
    world.kill(1);
    let walked = world.counter(0, "buckets_walked");
    world.start(1, Config { incarnation: 5555, ..config(2) });
    world.node(1).engine.set_filling(true);
    world.run(Duration::from_secs(2));
    assert_eq!((world.role(1), world.engine(1).following()), (Role::Backup, None));
    assert!(world.counter(1, "adverts_sent") >= 20 && world.events(0, "PeerUp") == 2);
    let now = world.now;
    assert_eq!(world.node(1).engine.preload_found(now, &flow(1)), Ok(()));
    world.node(1).engine.set_filling(false);
    world.run_until("proven", |world| world.sync(1) == SyncState::InSync);
    assert_eq!(world.counter(0, "buckets_walked"), walked);

    world.kill(1);
    world.start(1, Config { incarnation: 5556, ..config(2) });
    world.node(1).engine.set_filling(true);
    world.kill(0);
    world.run_until("master", |world| world.role(1) == Role::Master);
}

/// [4.5.7] What the kernel held and the master does not is forgotten, and nobody is told to delete it.
#[test]
fn what_was_found_in_the_kernel_and_is_not_the_masters_is_not_deleted_there() {
    let mut world = World::elected_pair();
    world.upsert(0, 1);
    world.kill(1);
    world.start(1, Config { incarnation: 5555, ..config(2) });
    let now = world.now;
    for number in [1, 2, 3] {
        assert_eq!(world.node(1).engine.preload_found(now, &flow(number)), Ok(()));
        world.node(1).sink.insert(key(number), flow(number));
    }
    world.run_until("proven", |world| world.sync(1) == SyncState::InSync);
    world.assert_equal(0, 1);
    assert_eq!(world.node(1).sink.len(), 3);
}

/// [5.0.1] The master's ADVERTs are lost. 300 ms later comes one frame of another kind, which is for somebody else: from then
/// on its backup waits for its master-down of 3 × 100 ms and a skew of 156/256 × 100 ms.
#[test]
fn any_frame_of_the_master_is_a_sign_of_life() {
    let target = Target { node: NodeId(9), incarnation: 9 };
    type Write<'a> = &'a dyn Fn(&mut [u8], Header) -> usize;
    let master_after = |write: Option<Write<'_>>| {
        let mut world = World::elected_pair();
        world.passes = Box::new(|from, _, _| from == 1);
        world.run(ms(300));
        assert_eq!(world.role(1), Role::Backup);
        let engine = world.engine(0);
        let (node, incarnation, seq, term) =
            (engine.config.node, engine.incarnation, engine.control_seq + 1, engine.term);
        let header = Header { sync_id: 51, node, incarnation, seq, term, ..Header::default() };
        let mut slot = [0; 1480];
        if let Some(write) = write {
            let length = write(&mut slot, header);
            world.hand_in(1, &mut slot[..length]);
        }
        world.run_until("master", |world| world.role(1) == Role::Master).as_millis()
    };
    let pull = MergePull { target, node: NodeId(1), incarnation: 1001, after: 0, cursor: 0 };
    let answer = DigestsAnswer { target, cut: 0, first: 0, settled: 0, digests: &[BucketDigest::new(0)] };
    let next = World::elected_pair().engine(0).outbox.seq() + 1;
    let data = |slot: &mut [u8], header: Header| {
        let header = Header { kind: Kind::DATA, seq: next, ..header };
        DataWriter::new(slot, header).unwrap().finish()
    };
    assert!(master_after(None) <= 61);
    assert_eq!(master_after(Some(&data)), 361);
    assert_eq!(master_after(Some(&|slot, header| encode_digests_answer(slot, header, &answer).unwrap())), 361);
    assert_eq!(master_after(Some(&|slot, header| encode_merge_pull(slot, header, &pull).unwrap())), 361);
    // Of another term it is no word of the mastership that is followed.
    let later = |slot: &mut [u8], header: Header| {
        encode_merge_pull(slot, Header { term: header.term + 1, ..header }, &pull).unwrap()
    };
    assert!(master_after(Some(&later)) <= 61);
}
