//! Planned switch, preemption by asking, draining, and the oath that a peer is dead (docs/protocol.md 5.3).

use super::*;
use crate::wire::{Advert, AdvertFlags, Frame, Header, Kind, Payload};

const SECOND: Duration = Duration::from_secs(1);

/// A pair in sync with so many flows: node 0 is master with priority 150, node 1 has 100.
fn pair_in_sync(flows: u32, change: impl Fn(Config) -> Config) -> World {
    let configs = vec![change(Config { priority: 150, ..config(1) }), change(config(2))];
    in_sync(World::new(configs), flows)
}

/// Three nodes in sync: priorities 150, 120 and 100.
fn three_in_sync(flows: u32, change: impl Fn(Config) -> Config) -> World {
    let configs = [(1, 150), (2, 120), (3, 100)].map(|(node, priority)| change(Config { priority, ..config(node) }));
    in_sync(World::new(configs.into()), flows)
}

fn in_sync(mut world: World, flows: u32) -> World {
    world.run(SECOND);
    assert_eq!(world.role(0), Role::Master);
    world.dump_done(0);
    (0..flows).for_each(|number| world.upsert(0, number));
    world.run(ms(500));
    assert!((1..world.nodes.len()).all(|at| world.sync(at) == SyncState::InSync));
    world
}

fn switchover(world: &mut World, at: usize, heir: Option<u32>) -> Result<NodeId, SwitchoverError> {
    let now = world.now;
    world.node(at).engine.switchover(now, heir.map(NodeId))
}

fn drain(world: &mut World, at: usize, draining: bool) {
    let now = world.now;
    world.node(at).engine.set_draining(now, draining);
}

/// Runs in steps of 100 µs until node `at` is master; in none of them two nodes have the addresses.
fn until_master(world: &mut World, at: usize) -> Duration {
    let start = world.now;
    while world.role(at) != Role::Master {
        assert!(world.now.since(start) < Duration::from_secs(60), "node {at} is not master within a minute");
        world.run(Duration::from_micros(100));
        let holders = world.nodes.iter().flatten().filter(|node| node.engine.holds_addresses()).count();
        assert!(holders <= 1, "{holders} nodes have the addresses");
    }
    world.now.since(start)
}

/// What the ADVERTs of one node have said since so many frames had been sent: header, flags, heir, stream_seq.
fn adverts(world: &World, from: usize, since: usize) -> Vec<(Header, AdvertFlags, u32, u64)> {
    let sent = world.sent[since..].iter().filter(|(_, node, bytes)| *node == from && bytes[5] == Kind::ADVERT.0);
    let read = |bytes: &[u8]| {
        let frame = Frame::parse(bytes).unwrap();
        let header = frame.header();
        let verified = frame.verify().unwrap();
        let Payload::Advert(Advert { flags, follows, stream_seq, .. }) = verified.payload() else { panic!() };
        (header, flags, follows.heir.0, stream_seq)
    };
    sent.map(|(_, _, bytes)| read(bytes)).collect()
}

fn hands_over(said: &(Header, AdvertFlags, u32, u64)) -> bool {
    said.1.contains(AdvertFlags::HANDING_OVER)
}

fn asks(said: &(Header, AdvertFlags, u32, u64)) -> bool {
    said.1.contains(AdvertFlags::ASKS)
}

/// [5.3.2] [5.3.4] The role goes to the heir in a few frames and with all that the master held, and nobody has the addresses
/// at the same time as another.
#[test]
fn a_switch_takes_a_few_frames_and_loses_nothing() {
    let mut world = pair_in_sync(1000, |config| config);
    (1000..3000).for_each(|number| world.upsert(0, number));
    let start = world.sent.len();
    assert_eq!(switchover(&mut world, 0, None), Ok(NodeId(2)));
    assert!(!world.engine(0).holds_addresses() && world.role(0) == Role::Master);
    assert_eq!(world.engine(0).heir(), Some(NodeId(2)));
    let took = until_master(&mut world, 1);
    assert!(took < ms(5), "took {took:?}");
    assert_eq!((world.table(1).len(), world.engine(1).status().term), (3000, 2));
    let said = adverts(&world, 0, start);
    let first = said.iter().find(|said| hands_over(said)).unwrap();
    assert_eq!((first.2, first.3, first.0.term), (2, world.engine(0).status().stream_seq, 1));
    world.run(SECOND);
    assert_eq!((world.role(0), world.sync(0)), (Role::Backup, SyncState::InSync));
    world.assert_equal(0, 1);
    let events = |at, names: &[&str]| names.iter().map(|name| world.events(at, name)).collect::<Vec<_>>();
    assert_eq!(events(0, &["HandoverStarted", "HandoverDone", "HandoverFailed", "DuplicateMaster"]), [1, 1, 0, 0]);
    let never = ["ElectionStarted", "MasterLost", "PeerDown", "CommitDeadlinePassed", "DuplicateMaster"];
    assert_eq!(events(1, &never), [0, 0, 0, 0, 0]);
}

/// [5.3.2] Until its owner has withdrawn the addresses the master names no heir, and what the source yields meanwhile is
/// sent before the last number.
#[test]
fn the_last_number_is_said_when_the_addresses_are_gone() {
    let mut world = pair_in_sync(10, |config| config);
    let start = world.sent.len();
    assert_eq!(switchover(&mut world, 0, Some(2)), Ok(NodeId(2)));
    world.node(0).engine.hold_handover(true);
    world.run(ms(250));
    world.upsert(0, 77);
    world.run(ms(250));
    assert!(adverts(&world, 0, start).len() >= 5);
    assert!(adverts(&world, 0, start).iter().all(|said| !hands_over(said) && said.2 == 0));
    world.upsert(0, 78);
    world.node(0).engine.hold_handover(false);
    until_master(&mut world, 1);
    assert_eq!(world.table(1).len(), 12);
}

/// [5.3.2] While nothing takes the last number from it, the master says it with every ADVERT; what its source yields later is
/// sent all the same.
#[test]
fn a_master_that_hands_over_says_so_each_interval_and_still_sends() {
    let mut world = pair_in_sync(10, |config| config);
    world.node(1).commits = false;
    let start = world.sent.len();
    switchover(&mut world, 0, None).unwrap();
    world.run(ms(450));
    assert_eq!(world.role(1), Role::Promoting);
    world.upsert(0, 77);
    world.run(ms(1));
    assert_eq!(world.table(1).len(), 11);
    let said = adverts(&world, 0, start);
    assert!((5..=6).contains(&said.len()), "{}", said.len());
    assert!(said.iter().all(|said| hands_over(said) && said.2 == 2));
}

/// [5.3.4] The heir waits for what it misses, although everything else says that it may begin.
#[test]
fn an_heir_that_misses_a_frame_waits_for_it() {
    let mut world = pair_in_sync(10, |config| config);
    world.passes = Box::new(|from, _, bytes| from != 0 || bytes[5] != Kind::DATA.0);
    world.upsert(0, 77);
    world.run(Duration::from_micros(200));
    switchover(&mut world, 0, None).unwrap();
    world.run(ms(350));
    assert_eq!((world.role(0), world.role(1), world.sync(1)), (Role::Master, Role::Backup, SyncState::InSync));
    world.passes = Box::new(|_, _, _| true);
    world.run_until("the heir", |world| world.role(1) == Role::Master);
    assert_eq!(world.table(1).len(), 11);
    assert_eq!(world.events(1, "ElectionStarted"), 0);
}

/// [5.3.4] The same with the rule broken: the flow that was lost on the wire is lost for good.
#[test]
fn without_the_rule_the_heir_begins_with_a_hole() {
    let breakage = Some(Breakage::HeirBeforeLastNumber);
    let mut world = pair_in_sync(10, |config| Config { breakage, ..config });
    world.passes = Box::new(|from, _, bytes| from != 0 || bytes[5] != Kind::DATA.0);
    world.upsert(0, 77);
    world.run(Duration::from_micros(200));
    switchover(&mut world, 0, None).unwrap();
    until_master(&mut world, 1);
    assert_eq!(world.table(1).len(), 10);
}

/// [5.3.4] An heir has no use for a timer: in mode `manual` it takes over as well.
#[test]
fn a_manual_group_switches_as_any_other() {
    let manual = |config: Config| Config { role: RoleMode::Manual, ..config };
    let mut world = World::new(vec![manual(config(1)), manual(config(2))]);
    let now = world.now;
    world.node(0).engine.set_role(now, RoleRequest::Master);
    let mut world = in_sync(world, 10);
    assert_eq!(switchover(&mut world, 1, None), Ok(NodeId(2)));
    assert!(until_master(&mut world, 1) < ms(5));
    world.run(SECOND);
    assert_eq!(world.role(0), Role::Backup);
}

/// [5.3.5] The third node neither shortens its timer nor elects when the flag comes, nor when the old master is one no more.
#[test]
fn others_take_no_part_in_a_switch() {
    let mut world = three_in_sync(10, |config| config);
    world.node(1).commits = false;
    switchover(&mut world, 0, Some(2)).unwrap();
    world.run(ms(450));
    // 3 × 100 ms + 156/256 × 100 ms after the last ADVERT, which is up to 100 ms old.
    let left = |world: &World| world.engine(2).election.deadline().unwrap().since(world.now);
    assert!(left(&world) > ms(255), "left {:?}", left(&world));
    // From now on the third hears of the heir nothing; the old master's word that it is one no more must not start a race.
    world.passes = Box::new(|from, to, _| (from, to) != (1, 2));
    world.node(1).commits = true;
    world.run_until("the heir", |world| world.role(0) == Role::Backup);
    world.run(ms(1));
    assert_eq!(world.events(2, "MasterLost"), 1);
    assert!(left(&world) > ms(200), "left {:?}", left(&world));
    world.passes = Box::new(|_, _, _| true);
    world.run(SECOND);
    assert_eq!((world.role(1), world.role(2), world.events(2, "ElectionStarted")), (Role::Master, Role::Backup, 0));
}

/// [5.3.5] With the rule broken the third node takes the role in its skew, while the heir still writes.
#[test]
fn without_the_rule_a_third_node_takes_the_role() {
    let breakage = Some(Breakage::OthersStartTimersInHandover);
    let mut world = three_in_sync(10, |config| Config { breakage, ..config });
    world.node(1).commits = false;
    switchover(&mut world, 0, Some(2)).unwrap();
    world.run(ms(150));
    assert_eq!((world.events(2, "ElectionStarted"), world.events(0, "HandoverFailed")), (1, 1));
}

/// [5.3.5] If the master dies in the middle of it, before the heir has what it needs, the ordinary timers find another.
#[test]
fn a_master_that_dies_while_it_hands_over_is_replaced_by_timer() {
    let mut world = three_in_sync(10, |config| config);
    world.passes = Box::new(|from, _, bytes| from != 0 || bytes[5] != Kind::DATA.0);
    world.upsert(0, 77);
    world.run(ms(1));
    switchover(&mut world, 0, Some(3)).unwrap();
    world.run(ms(150));
    world.kill(0);
    let took = world.run_until("a master", |world| (1..3).any(|at| world.role(at) == Role::Master));
    assert!((ms(200)..ms(365)).contains(&took), "took {took:?}");
    world.run(SECOND);
    assert_eq!((1..3).filter(|at| world.role(*at) == Role::Master).count(), 1);
}

/// [5.3.6] An heir that does not come within `handover_deadline` (2 s): the master takes the role back in a new term, and the
/// heir, which was on its way, is a backup again.
#[test]
fn a_role_that_nobody_takes_is_taken_back() {
    let mut world = pair_in_sync(10, |config| Config { commit_deadline: 30 * SECOND, ..config });
    world.node(1).commits = false;
    switchover(&mut world, 0, None).unwrap();
    let end = world.now + ms(2000);
    assert_eq!(world.engine(0).handover_at(), Some(end), "no other deadline ends it in time");
    let took = world.run_until("the end", |world| world.engine(0).holds_addresses());
    assert!((ms(2000)..=ms(2001)).contains(&took), "took {took:?}");
    assert_eq!((world.role(0), world.engine(0).status().term), (Role::Master, 2));
    world.run(ms(1));
    assert_eq!(world.role(1), Role::Backup);
    world.node(1).commits = true;
    world.run(SECOND);
    assert_eq!((world.role(0), world.sync(1)), (Role::Master, SyncState::InSync));
    world.assert_equal(0, 1);
    assert_eq!((world.events(0, "HandoverFailed"), world.events(0, "HandoverDone")), (1, 0));
}

/// [5.3.6] As long as no heir was named, nothing has to be taken back: the term stays. And who is gone is not waited for.
#[test]
fn a_switch_that_had_not_come_far_ends_in_the_same_term() {
    let mut world = pair_in_sync(10, |config| config);
    switchover(&mut world, 0, None).unwrap();
    world.node(0).engine.hold_handover(true);
    world.run(ms(1900));
    assert!(!world.engine(0).holds_addresses());
    world.run(ms(101));
    assert!(world.engine(0).holds_addresses());
    world.node(0).engine.hold_handover(false);
    world.run(ms(500));
    assert_eq!((world.engine(0).status().term, world.role(1)), (1, Role::Backup));

    let mut world = pair_in_sync(10, |config| config);
    world.kill(1);
    switchover(&mut world, 0, None).unwrap();
    let took = world.run_until("the end", |world| world.engine(0).holds_addresses());
    assert!(took < ms(365), "took {took:?}");
    assert_eq!((world.events(0, "HandoverFailed"), world.engine(0).status().term), (1, 2));
}

/// [5.3.6] After a failure none begins by itself for five deadlines (10 s); an owner's word is followed at once.
#[test]
fn after_a_failure_there_is_a_pause() {
    let mut world = pair_in_sync(10, |config| Config { commit_deadline: 30 * SECOND, ..config });
    let now = world.now;
    world.node(1).commits = false;
    world.node(1).engine.set_priority(now, 200).unwrap();
    world.run_until("the failure", |world| world.events(0, "HandoverFailed") == 1);
    world.node(1).commits = true;
    world.run(9 * SECOND);
    assert_eq!((world.role(0), world.events(0, "HandoverStarted")), (Role::Master, 1));
    let mut early = world;
    early.run(2 * SECOND);
    assert_eq!((early.role(1), early.events(0, "HandoverDone")), (Role::Master, 1));
}

/// [5.3.1] A node of higher priority takes nothing: it asks, and is given.
#[test]
fn preemption_asks_and_is_given_the_role() {
    let mut world = pair_in_sync(100, |config| config);
    let (now, start) = (world.now, world.sent.len());
    world.node(1).engine.set_priority(now, 200).unwrap();
    assert!(until_master(&mut world, 1) < ms(110));
    world.run(ms(100));
    assert!(adverts(&world, 1, start).iter().any(asks));
    assert_eq!((world.events(0, "HandoverStarted"), world.events(0, "HandoverDone")), (1, 1));
    assert_eq!((world.role(0), world.engine(0).status().term), (Role::Backup, 2));
    let later = world.sent.len();
    world.run(ms(300));
    assert!(!adverts(&world, 1, later).iter().any(asks));
}

/// [5.3.1] A master that does not answer for `handover_deadline` (2 s) does not know how: the role is taken from it.
#[test]
fn a_deaf_master_is_replaced_by_force_after_the_deadline() {
    let mut world = pair_in_sync(100, |config| config);
    let now = world.now;
    world.node(0).engine.handover.not_before = Some(now + 3600 * SECOND);
    world.node(1).engine.set_priority(now, 200).unwrap();
    let took = world.run_until("force", |world| world.role(1) == Role::Master);
    assert!((ms(2000)..=ms(2201)).contains(&took), "took {took:?}");
    world.run(ms(300));
    assert_eq!((world.role(0), world.events(0, "HandoverStarted")), (Role::Backup, 0));
}

/// [5.0.7] Nor does a node ask before its startup hold is over.
#[test]
fn a_node_that_has_just_come_up_does_not_ask() {
    let mut world = pair_in_sync(10, |config| config);
    world.kill(1);
    world.run(SECOND);
    let start = world.sent.len();
    let fresh = Config { incarnation: 5555, priority: 200, startup_delay: 5 * SECOND, ..config(2) };
    world.start(1, fresh);
    world.run(ms(4950));
    assert_eq!((world.role(0), world.sync(1)), (Role::Master, SyncState::InSync));
    assert!(!adverts(&world, 1, start).iter().any(asks));
    world.run(ms(200));
    assert_eq!((world.role(1), world.events(0, "HandoverDone")), (Role::Master, 1));
}

/// [5.3.1] With `role = "manual"` nobody preempts, whatever the priority.
#[test]
fn a_manual_backup_never_asks_by_itself() {
    let manual = |config: Config| Config { role: RoleMode::Manual, ..config };
    let mut world = World::new(vec![manual(config(1)), manual(Config { priority: 200, ..config(2) })]);
    let now = world.now;
    world.node(0).engine.set_role(now, RoleRequest::Master);
    let mut world = in_sync(world, 10);
    let start = world.sent.len();
    world.run(3 * SECOND);
    assert!(!adverts(&world, 1, start).iter().any(asks));
    assert_eq!(world.role(0), Role::Master);
}

/// [5.3.2] A backup of lower priority is given the role when its owner wishes so. If it is not in time, that is said.
#[test]
fn a_backup_asks_by_its_owners_wish() {
    let mut world = pair_in_sync(10, |config| config);
    assert_eq!(switchover(&mut world, 1, None), Ok(NodeId(2)));
    assert!(until_master(&mut world, 1) < ms(30));

    let mut world = pair_in_sync(10, |config| config);
    let now = world.now;
    world.node(0).engine.handover.not_before = Some(now + 3600 * SECOND);
    assert_eq!(switchover(&mut world, 1, Some(2)), Ok(NodeId(2)));
    world.run(ms(1999));
    assert_eq!(world.events(1, "HandoverFailed"), 0);
    world.run(ms(2));
    assert_eq!(world.events(1, "HandoverFailed"), 1);
    let later = world.sent.len();
    world.run(SECOND);
    assert!(!adverts(&world, 1, later).iter().any(asks));
    assert_eq!(world.role(0), Role::Master);
}

/// [5.3.2] Every reason to refuse, and that nothing happens then.
#[test]
fn a_switch_that_cannot_be_is_refused_by_name() {
    use SwitchoverError::*;
    let mut world = three_in_sync(10, |config| config);
    assert_eq!(switchover(&mut world, 0, Some(1)), Err(AlreadyMaster));
    assert_eq!(switchover(&mut world, 0, Some(9)), Err(Unfit(NodeId(9))));
    assert_eq!(switchover(&mut world, 1, Some(3)), Err(NotMaster(NodeId(1))));
    drain(&mut world, 1, true);
    world.run(ms(100));
    assert_eq!(switchover(&mut world, 1, None), Err(Draining));
    assert_eq!(switchover(&mut world, 0, Some(2)), Err(Unfit(NodeId(2))));
    drain(&mut world, 2, true);
    world.run(ms(100));
    assert_eq!(switchover(&mut world, 0, None), Err(NoHeir));
    drain(&mut world, 2, false);
    world.run(ms(100));
    world.node(2).commits = false;
    assert_eq!(switchover(&mut world, 0, None), Ok(NodeId(3)));
    assert_eq!(switchover(&mut world, 0, None), Err(UnderWay(NodeId(3))));
    world.run(ms(10));
    assert_eq!(switchover(&mut world, 2, None), Err(NotInSync));

    let mut world = World::elected_pair();
    world.passes = Box::new(|_, _, bytes| bytes[5] != Kind::DATA.0);
    world.upsert(0, 1);
    world.kill(1);
    world.start(1, Config { incarnation: 5555, ..config(2) });
    world.run(SECOND);
    assert_eq!(switchover(&mut world, 0, None), Err(NoHeir));
    assert_eq!(switchover(&mut world, 1, None), Err(NotInSync));
}

/// [5.3.2] Without a name the follower of the highest priority inherits.
#[test]
fn the_best_heir_is_the_one_of_the_highest_priority() {
    let mut world = three_in_sync(10, |config| config);
    assert_eq!(switchover(&mut world, 0, None), Ok(NodeId(2)));
    let mut world = three_in_sync(10, |config| config);
    assert_eq!(switchover(&mut world, 0, Some(3)), Ok(NodeId(3)));
    until_master(&mut world, 2);
}

/// [5.3.8] Whoever could have had the role and sees it given to a lower one does not ask for it, until a priority changes.
#[test]
fn a_switch_is_not_undone_by_preemption() {
    let mut world = three_in_sync(10, |config| config);
    switchover(&mut world, 0, Some(3)).unwrap();
    until_master(&mut world, 2);
    world.dump_done(2);
    world.run(10 * SECOND);
    assert_eq!(world.role(2), Role::Master);
    assert!((0..2).all(|at| world.sync(at) == SyncState::InSync));
    let now = world.now;
    world.node(0).engine.set_priority(now, 151).unwrap();
    world.run_until("the return", |world| world.role(0) == Role::Master);
    assert_eq!(world.events(2, "HandoverDone"), 1);
}

/// [5.3.7] A draining master gives the role away, and stays without it although its priority is higher.
#[test]
fn a_draining_master_hands_over() {
    let mut world = pair_in_sync(10, |config| config);
    drain(&mut world, 0, true);
    assert!(world.engine(0).is_draining() && !world.engine(0).holds_addresses());
    assert!(until_master(&mut world, 1) < ms(5));
    world.dump_done(1);
    world.run(5 * SECOND);
    assert_eq!((world.role(0), world.role(1), world.sync(0)), (Role::Backup, Role::Master, SyncState::InSync));
    assert_eq!((world.events(0, "Draining"), world.events(0, "HandoverDone")), (1, 1));
    drain(&mut world, 0, false);
    world.run_until("the return", |world| world.role(0) == Role::Master);
    assert_eq!(world.events(0, "Draining"), 2);
}

/// [5.3.11] A master whose source has lost changes gives its role to nobody who asks before the dump that makes up for it: what
/// has ended unheard would live on with the heir. One that drains waits as well.
#[test]
fn a_switch_waits_for_the_dump_that_makes_up_for_lost_changes() {
    for drains in [false, true] {
        let mut world = pair_in_sync(10, |config| Config { preempt: false, ..config });
        let now = world.now;
        world.node(0).engine.source_overrun(now);
        if drains {
            drain(&mut world, 0, true);
        } else {
            assert_eq!(switchover(&mut world, 1, None), Ok(NodeId(2)));
        }
        world.run(ms(500));
        assert_eq!(world.events(0, "HandoverStarted"), 0);
        // A dump that names all but one.
        let now = world.now;
        world.node(0).engine.begin_dump(now);
        (1..10).for_each(|number| world.upsert(0, number));
        world.run(ms(100));
        assert_eq!(world.events(0, "HandoverStarted"), 0, "it is not complete");
        let now = world.now;
        world.node(0).engine.end_dump(now);
        until_master(&mut world, 1);
        assert!(world.now.since(now) < ms(200));
        world.run(ms(10));
        assert_eq!((world.table(1).len(), world.events(0, "HandoverDone")), (9, 1));
    }
}

/// [5.3.11] A dump that began before the changes were lost says nothing of them; and nothing is waited for longer than half of
/// `handover_deadline` (2 s). The owner's word is followed at once.
#[test]
fn a_switch_does_not_wait_for_a_dump_for_ever() {
    let lost = |world: &mut World| {
        let now = world.now;
        world.node(0).engine.source_overrun(now);
    };
    let mut world = pair_in_sync(10, |config| Config { preempt: false, ..config });
    let now = world.now;
    world.node(0).engine.begin_dump(now);
    (0..10).for_each(|number| world.upsert(0, number));
    lost(&mut world);
    let start = world.now;
    drain(&mut world, 0, true);
    let now = world.now;
    world.node(0).engine.end_dump(now);
    world.run(ms(990));
    lost(&mut world);
    assert_eq!(world.events(0, "HandoverStarted"), 0);
    until_master(&mut world, 1);
    assert!((ms(1000)..ms(1200)).contains(&world.now.since(start)), "{:?}", world.now.since(start));
    let mut world = pair_in_sync(10, |config| Config { preempt: false, ..config });
    lost(&mut world);
    assert_eq!(switchover(&mut world, 0, None), Ok(NodeId(2)));
    assert!(until_master(&mut world, 1) < ms(100));
}

/// [5.3.7] A draining master stays while nobody is proven, and goes as soon as somebody is.
#[test]
fn a_draining_master_waits_until_somebody_is_proven() {
    let mut world = pair_in_sync(10, |config| config);
    world.kill(1);
    drain(&mut world, 0, true);
    world.run_until("silence", |world| world.events(0, "PeerDown") == 1);
    assert_eq!((world.events(0, "HandoverStarted"), world.events(0, "HandoverFailed")), (1, 1));
    world.passes = Box::new(|_, _, bytes| bytes[5] != Kind::DATA.0);
    world.start(1, Config { incarnation: 5555, ..config(2) });
    world.run(12 * SECOND);
    assert!(world.engine(0).holds_addresses());
    world.passes = Box::new(|_, _, _| true);
    world.run_until("the heir", |world| world.role(1) == Role::Master);
    assert_eq!(world.table(1).len(), 10);
}

/// [5.3.7] A draining backup lets the other have the role of a dead master, though it is the higher one; alone it takes it.
#[test]
fn a_draining_backup_takes_the_role_only_when_nobody_else_can() {
    let mut world = three_in_sync(10, |config| config);
    drain(&mut world, 1, true);
    world.run(ms(200));
    world.kill(0);
    world.run_until("a master", |world| (1..3).any(|at| world.role(at) == Role::Master));
    assert_eq!((world.role(1), world.role(2)), (Role::Backup, Role::Master));
    world.dump_done(2);
    world.run(5 * SECOND);
    assert_eq!((world.role(1), world.sync(1)), (Role::Backup, SyncState::InSync), "it does not preempt");
    world.kill(2);
    let took = world.run_until("availability", |world| world.role(1) == Role::Master);
    assert!(took < ms(800), "took {took:?}");
}

/// [5.3.7] The other is heard and never takes the role: after `one_way_hold` (10 s) the draining one does.
#[test]
fn a_draining_backup_does_not_wait_for_ever() {
    let manual = |config: Config| Config { role: RoleMode::Manual, ..config };
    let configs = vec![Config { priority: 150, ..config(1) }, config(2), manual(config(3))];
    let mut world = in_sync(World::new(configs), 10);
    drain(&mut world, 1, true);
    world.run(ms(200));
    world.kill(0);
    let took = world.run_until("availability", |world| world.role(1) == Role::Master);
    assert!((ms(10_200)..ms(10_500)).contains(&took), "took {took:?}");
}

/// [5.3.10] A master that is to end gives the role away, and is left without it; where nobody may inherit, nothing is waited for.
#[test]
fn a_master_that_is_to_end_gives_its_role_away_first() {
    let give_away = |world: &mut World, at: usize| {
        let now = world.now;
        world.node(at).engine.give_away(now);
        world.engine(at).heir()
    };
    let mut world = pair_in_sync(10, |config| config);
    assert_eq!(give_away(&mut world, 1), None, "a backup has nothing to give");
    assert_eq!(give_away(&mut world, 0), Some(NodeId(2)));
    assert_eq!(give_away(&mut world, 0), Some(NodeId(2)), "it is under way");
    let took = until_master(&mut world, 1);
    assert!(took < ms(2), "took {took:?}");
    world.run(ms(1));
    assert_eq!((world.role(0), world.engine(0).heir(), world.events(0, "HandoverDone")), (Role::Backup, None, 1));

    let mut world = pair_in_sync(10, |config| config);
    drain(&mut world, 1, true);
    world.run(ms(200));
    assert_eq!(give_away(&mut world, 0), None);

    let manual = |config: Config| Config { role: RoleMode::Manual, ..config };
    let mut world = World::new(vec![manual(config(1)), manual(config(2))]);
    let now = world.now;
    world.node(0).engine.set_role(now, RoleRequest::Master);
    let mut world = in_sync(world, 10);
    assert_eq!((give_away(&mut world, 0), world.role(0)), (None, Role::Master));
}

/// [5.3.9] The owner swears that the master is dead: the others wait their skew (156/256 × 100 ms) and not its silence.
#[test]
fn a_master_that_is_sworn_dead_is_replaced_within_the_skew() {
    let mut world = pair_in_sync(10, |config| config);
    world.kill(0);
    world.run(ms(1));
    let now = world.now;
    assert_eq!(world.node(1).engine.peer_is_dead(now, NodeId(7)), Err(UnknownPeer(NodeId(7))));
    assert_eq!(world.node(1).engine.peer_is_dead(now, NodeId(1)), Ok(()));
    assert!(world.engine(1).status().peers.is_empty());
    let took = world.run_until("a master", |world| world.role(1) == Role::Master);
    assert!((ms(60)..=ms(62)).contains(&took), "took {took:?}");
    assert_eq!((world.events(1, "PeerDown"), world.events(1, "MasterLost")), (1, 1));
}

/// [5.3.9] An oath about somebody who is no master costs him his place among the peers and no role; if he lives, he is back.
#[test]
fn a_backup_that_is_sworn_dead_and_lives_comes_back() {
    let mut world = pair_in_sync(10, |config| config);
    let now = world.now;
    world.node(0).engine.peer_is_dead(now, NodeId(2)).unwrap();
    world.run(SECOND);
    assert_eq!((world.role(0), world.role(1), world.sync(1)), (Role::Master, Role::Backup, SyncState::InSync));
    assert_eq!(world.events(0, "PeerUp"), 2);
}
