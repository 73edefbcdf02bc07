//! Establishment, election, takeover, return.

use super::*;
use crate::wire::{Frame, Kind};

/// [3.5.2] [5.0.1] Two nodes find each other; the higher priority becomes master after its own master-down time:
/// 3 × 100 ms + 106/256 × 100 ms = 341.4 ms.
#[test]
fn the_higher_priority_becomes_master_after_its_master_down_time() {
    let mut world = World::pair();
    world.run(Duration::from_micros(341_000));
    assert_eq!((world.role(0), world.role(1)), (Role::Backup, Role::Backup));
    assert!(world.engine(0).status().peers[0].established);
    world.run(Duration::from_micros(1000));
    assert_eq!((world.role(0), world.role(1)), (Role::Master, Role::Backup));
    assert_eq!(world.engine(1).status().master, Some(NodeId(1)));
    assert_eq!((world.engine(0).status().term, world.engine(1).status().term), (1, 1));
}

/// [3.5.2] Establishment takes one round of ADVERTs, not one interval: 4 frames of 50 µs.
#[test]
fn two_nodes_are_established_within_a_few_round_trips() {
    let mut world = World::pair();
    let established = |world: &World, at: usize| world.engine(at).status().peers.iter().any(|peer| peer.established);
    world.run_until("established", |world| established(world, 0) && established(world, 1));
    // Answers are spaced by a quarter of an interval at the most.
    assert!(world.now.since(Instant::from_nanos(1_000_000_000)) <= ms(76));
}

/// [3.5.3] A recording of a whole earlier life proves nothing: no peer, no master, no term.
#[test]
fn a_recording_is_never_established() {
    let mut recorded = World::elected_pair();
    recorded.run(Duration::from_secs(1));
    let frames: Vec<Vec<u8>> =
        recorded.sent.iter().filter(|(_, from, _)| *from == 0).map(|(_, _, b)| b.clone()).collect();
    assert!(frames.len() > 10);

    let mut world = World::new(vec![Config { incarnation: 7777, ..config(2) }]);
    for mut frame in frames {
        world.hand_in(0, &mut frame);
        world.run(ms(1));
    }
    let status = world.engine(0).status();
    assert_eq!((status.term, status.master), (0, None));
    assert!(status.peers.iter().all(|peer| !peer.established));
    assert_eq!(world.events(0, "PeerUp"), 0);
}

/// [1.5.1] [5.2.4] [5.2.1] [5.2.2] The master dies: the backup writes its table first, then takes the role under a new term; flows stay.
#[test]
fn a_backup_takes_over_in_two_phases_and_keeps_every_flow() {
    let mut world = World::elected_pair();
    for number in 0..1000 {
        world.upsert(0, number);
    }
    world.run(ms(250));
    let table = world.table(0);
    world.kill(0);
    world.node(1).commits = false;
    let took = world.run_until("promoting", |world| world.role(1) == Role::Promoting);
    // 3 × 100 ms + 156/256 × 100 ms = 360.9 ms after the last sign of life, which is up to 100 ms old.
    assert!((ms(260)..=ms(362)).contains(&took), "took {took:?}");
    world.run(ms(500));
    assert_eq!(world.role(1), Role::Promoting);
    world.node(1).commits = true;
    world.run(ms(1));
    assert_eq!(world.role(1), Role::Master);
    assert_eq!(world.engine(1).status().term, 2);
    assert_eq!(world.table(1), table);
    assert_eq!(world.events(1, "MasterLost"), 1);
    assert_eq!(world.events(1, "CommitDeadlinePassed"), 0);
}

/// [5.2.2] A sink that does not answer delays the takeover by `commit_deadline` (1 s) and no longer.
#[test]
fn availability_wins_when_the_sink_does_not_answer() {
    let mut world = World::elected_pair();
    world.node(1).commits = false;
    world.kill(0);
    world.run_until("promoting", |world| world.role(1) == Role::Promoting);
    let took = world.run_until("master", |world| world.role(1) == Role::Master);
    assert!((ms(998)..=ms(1001)).contains(&took), "took {took:?}");
    assert_eq!(world.events(1, "CommitDeadlinePassed"), 1);
}

/// [7.0.1] A takeover that does not come to its end is reported with its cause, one that does is not.
#[test]
fn a_takeover_that_fails_says_why() {
    let failed = |end: fn(&mut World)| {
        let with = |node, priority| Config { priority, preempt: false, ..config(node) };
        let mut world = World::new(vec![with(1, 150), with(2, 100), with(3, 90)]);
        world.run(Duration::from_secs(1));
        world.dump_done(0);
        world.run(ms(300));
        world.node(1).commits = false;
        world.kill(0);
        world.run_until("promoting", |world| world.role(1) == Role::Promoting);
        end(&mut world);
        world.run(ms(1));
        let cause = |event: &Event| if let Event::ElectionFailed { cause } = event { Some(*cause) } else { None };
        let causes: Vec<ElectionFailure> = world.node(1).events.iter().filter_map(cause).collect();
        (world.role(1), causes)
    };
    let link_down = failed(|world| {
        let now = world.now;
        world.node(1).engine.handle_link(now, false);
    });
    assert_eq!(link_down, (Role::Fault, vec![ElectionFailure::LinkDown]));
    let withdrawn = failed(|world| {
        let now = world.now;
        world.node(1).engine.set_role(now, RoleRequest::Backup);
    });
    assert_eq!(withdrawn, (Role::Backup, vec![ElectionFailure::Withdrawn]));
    let another = failed(|world| {
        // The owner of the third node wants that one to be master, and at once.
        let now = world.now;
        world.node(2).engine.set_role(now, RoleRequest::Master);
        world.run_until("the third is master", |world| world.role(2) == Role::Master);
    });
    assert_eq!(another, (Role::Backup, vec![ElectionFailure::AnotherIsMaster]));
    let none = failed(|world| {
        world.node(1).commits = true;
    });
    assert_eq!(none, (Role::Master, vec![]));
}

/// [4.6.3] At a takeover every flow whose clock has run out is given to the sink again: its kernel may have dropped it.
#[test]
fn flows_whose_clock_ran_out_are_committed_again_at_takeover() {
    let mut world = World::elected_pair();
    world.update(0, Change::Upsert(Flow { timeout: 2, ..flow(1) }));
    world.upsert(0, 2);
    world.run(Duration::from_secs(4));
    assert_eq!(world.table(1).len(), 2, "a backup keeps an expired entry until told");
    world.node(1).sink.clear();
    world.kill(0);
    world.run_until("master", |world| world.role(1) == Role::Master);
    assert_eq!(world.node(1).sink.keys().collect::<Vec<_>>(), [&key(1)]);
}

/// [5.0.3] A master that leaves politely flushes, says priority 0, and is replaced after the skew: 156/256 × 100 ms.
#[test]
fn a_polite_goodbye_is_answered_within_the_skew() {
    let mut world = World::elected_pair();
    world.upsert(0, 1);
    world.run(Duration::from_micros(200));
    world.upsert(0, 2);
    let now = world.now;
    world.node(0).engine.leave(now);
    let took = world.run_until("master", |world| world.role(1) == Role::Master);
    assert!((ms(60)..=ms(63)).contains(&took), "took {took:?}");
    assert_eq!(world.role(0), Role::None);
    assert_eq!(world.table(1).len(), 2);
    assert_eq!(world.events(1, "PeerLeft"), 1);
    let frames = world.sent.iter().filter(|(at, from, _)| *from == 0 && *at > now + ms(1)).count();
    assert_eq!(frames, 0, "who has left is silent");
}

/// [1.5.2] [5.1.2] A master that comes back before anybody noticed its death has an empty table: its new incarnation ends the old
/// mastership, and it becomes a backup of the one that held the flows.
#[test]
fn a_restarted_master_does_not_empty_its_backup() {
    let mut world = World::elected_pair();
    for number in 0..1000 {
        world.upsert(0, number);
    }
    world.run(ms(250));
    let table = world.table(0);
    world.kill(0);
    world.run(ms(20));
    world.start(0, Config { priority: 150, incarnation: 5555, preempt: false, ..config(1) });
    let took = world.run_until("master", |world| world.role(1) == Role::Master);
    assert!(took < ms(200), "took {took:?}");
    world.run_until("in sync", |world| world.sync(0) == SyncState::InSync);
    assert_eq!(world.role(0), Role::Backup);
    assert_eq!(world.table(0), table);
    assert_eq!(world.table(1), table);
}

/// [5.3.1] A node of higher priority returns: it takes the role only when it is proven equal, and nothing is lost.
#[test]
fn a_returning_node_preempts_only_when_proven() {
    let mut world = World::elected_pair();
    for number in 0..5000 {
        world.upsert(0, number);
    }
    world.run(ms(250));
    let table = world.table(0);
    world.kill(0);
    world.run_until("master", |world| world.role(1) == Role::Master);
    world.run(Duration::from_secs(1));
    // Everything but DATA passes: it can hear, but never be equal.
    world.passes = Box::new(|_, _, bytes| Frame::parse(bytes).unwrap().header().kind != Kind::DATA);
    world.start(0, Config { priority: 150, incarnation: 5555, ..config(1) });
    world.run(Duration::from_secs(5));
    assert_eq!((world.role(0), world.role(1)), (Role::Backup, Role::Master));
    world.passes = Box::new(|_, _, _| true);
    world.run_until("the return", |world| world.role(0) == Role::Master);
    assert_eq!(world.table(0), table);
    world.run_until("the other follows", |world| world.role(1) == Role::Backup);
    assert_eq!(world.engine(0).status().term, 3);
    world.run_until("in sync", |world| world.sync(1) == SyncState::InSync);
    world.assert_equal(0, 1);
}

/// [5.3.1] With `preempt = false` it stays backup.
#[test]
fn without_preempt_a_returning_node_stays_backup() {
    let mut world = World::elected_pair();
    world.kill(0);
    world.run_until("master", |world| world.role(1) == Role::Master);
    world.dump_done(1);
    world.start(0, Config { priority: 150, incarnation: 5555, preempt: false, ..config(1) });
    world.run(Duration::from_secs(5));
    assert_eq!((world.role(0), world.sync(0)), (Role::Backup, SyncState::InSync));
}

/// [5.4.1] The link was cut, both are master: the higher term wins over the higher priority, and the loser takes its table.
#[test]
fn of_two_masters_the_higher_term_wins() {
    let mut world = World::elected_pair_without_preempt();
    for number in 0..100 {
        world.upsert(0, number);
    }
    world.run(ms(250));
    world.passes = Box::new(|_, _, _| false);
    world.run(Duration::from_secs(2));
    assert_eq!((world.role(0), world.role(1)), (Role::Master, Role::Master));
    assert_eq!((world.engine(0).status().term, world.engine(1).status().term), (1, 2));
    world.upsert(1, 500);
    world.dump_done(1); // node 1's source has nothing of the old flows
    world.upsert(1, 501);
    world.passes = Box::new(|_, _, _| true);
    world.run_until("one master", |world| world.role(0) == Role::Backup);
    assert_eq!(world.role(1), Role::Master);
    assert_eq!(world.events(0, "DuplicateMaster"), 1);
    world.run_until("in sync", |world| world.sync(0) == SyncState::InSync);
    world.assert_equal(0, 1);
    assert_eq!(world.table(0).keys().collect::<Vec<_>>(), [&key(501)]);
}

/// [5.6.1] A master that did not run for longer than its master-down steps down before it sends anything, as somebody new.
#[test]
fn a_master_that_stalled_steps_down_before_it_speaks() {
    let mut world = World::elected_pair_without_preempt();
    world.upsert(0, 1);
    world.run(ms(250));
    let mut stalled = world.nodes[0].take().unwrap();
    world.run_until("a new master", |world| world.role(1) == Role::Master);
    world.run(Duration::from_secs(60));
    let now = world.now;
    stalled.engine.handle_timeout(now);
    assert_eq!(stalled.engine.role(), Role::Backup);
    world.nodes[0] = Some(stalled);
    let from = world.sent.len();
    world.run(Duration::from_secs(2));
    for (_, _, bytes) in world.sent[from..].iter().filter(|(_, node, _)| *node == 0) {
        let header = Frame::parse(bytes).unwrap().header();
        assert_ne!(header.incarnation, 1001);
        assert_ne!(header.kind, Kind::DATA);
    }
    assert_eq!(world.events(0, "StallDetected"), 1);
    assert_eq!((world.role(0), world.role(1)), (Role::Backup, Role::Master));
    world.run_until("in sync", |world| world.sync(0) == SyncState::InSync);
}

/// [5.6.1] The others count from its last ADVERT: a loop that stood still when the next one was due is given up after less
/// than its own master-down.
#[test]
fn a_master_that_stalled_when_its_advert_was_due_steps_down_as_well() {
    let mut world = World::elected_pair_without_preempt();
    let last_advert = |world: &World| world.engine(0).last_advert_at.unwrap();
    let before = last_advert(&world);
    world.run_until("its next ADVERT", |world| last_advert(world) != before);
    let due = last_advert(&world) + ms(100);
    world.run(due.since(world.now) - ms(1));
    let mut stalled = world.nodes[0].take().unwrap();
    let stopped = world.now;
    world.run_until("a new master", |world| world.role(1) == Role::Master);
    let gap = world.now.since(stopped);
    assert!(gap > ms(200) && gap < ms(300), "{gap:?}");
    stalled.engine.handle_timeout(world.now);
    assert_eq!(stalled.engine.role(), Role::Backup);
    world.nodes[0] = Some(stalled);
    world.run(ms(1));
    assert_eq!(world.events(0, "StallDetected"), 1);
}

/// [5.6.1] A backup that did not run has heard nobody: it starts its timer anew, and takes nothing from a living master.
#[test]
fn a_backup_that_stalled_gives_its_master_another_master_down() {
    let mut world = World::elected_pair();
    let mut stalled = world.nodes[1].take().unwrap();
    world.run(Duration::from_secs(1));
    let now = world.now;
    stalled.engine.handle_timeout(now);
    assert_eq!((stalled.engine.role(), stalled.engine.counters().stalls), (Role::Backup, 1));
    // 3 × 100 ms + 156/256 × 100 ms = 360.9 ms from now on.
    stalled.engine.handle_timeout(now + ms(360));
    assert_eq!(stalled.engine.role(), Role::Backup);
    stalled.engine.handle_timeout(now + ms(361));
    assert_eq!((stalled.engine.role(), stalled.engine.counters().stalls), (Role::Promoting, 1));
}

/// [5.6.1] That nothing leaves is no stall: the role stays where it is, for nobody else may be there to take it.
#[test]
fn a_master_whose_loop_runs_has_not_stalled_whatever_leaves() {
    let mut world = World::elected_pair_without_preempt();
    let mut blocked = world.nodes[0].take().unwrap();
    for step in 1..=10 {
        blocked.engine.handle_timeout(world.now + ms(200) * step);
        assert_eq!(blocked.engine.role(), Role::Master);
    }
}

/// [5.6.1] Whatever a master hears of first after a stall, it speaks as somebody new: here its link, or its sink.
#[test]
fn a_stall_is_noticed_also_by_a_master_that_hears_of_its_link_or_sink_first() {
    let firsts: [fn(&mut Engine, Instant); 2] = [
        |engine, now| {
            engine.handle_link(now, false);
            engine.handle_link(now, true);
        },
        |engine, now| engine.handle_committed(now),
    ];
    for first in firsts {
        let mut world = World::elected_pair_without_preempt();
        let mut stalled = world.nodes[0].take().unwrap();
        world.run_until("a new master", |world| world.role(1) == Role::Master);
        first(&mut stalled.engine, world.now);
        assert_eq!(stalled.engine.role(), Role::Backup);
        world.nodes[0] = Some(stalled);
        let from = world.sent.len();
        world.run(Duration::from_secs(1));
        let ours = world.sent[from..].iter().filter(|(_, node, _)| *node == 0);
        let mut incarnations: Vec<u64> =
            ours.map(|(_, _, bytes)| Frame::parse(bytes).unwrap().header().incarnation).collect();
        incarnations.dedup();
        assert_eq!(incarnations.len(), 1);
        assert_ne!(incarnations, [1001]);
        assert_eq!(world.events(0, "StallDetected"), 1);
    }
}

/// [3.5.5] A master is heard that does not hear us: it delays our takeover by `one_way_hold` (10 s), and that is said.
#[test]
fn a_one_way_master_delays_the_takeover_and_is_reported() {
    let mut world = World::new(vec![Config { priority: 150, ..config(1) }]);
    world.nodes.push(None);
    world.run(Duration::from_secs(1));
    world.passes = Box::new(|from, _, _| from == 0);
    world.start(1, config(2));
    world.run(ms(9_900));
    assert_eq!(world.role(1), Role::Backup);
    assert_eq!(world.events(1, "PeerOneWay"), 1);
    world.run(ms(600));
    assert_eq!(world.role(1), Role::Master);
}

/// [5.1.1] While a cold node hears a warmer backup it gives that one a master-down more.
#[test]
fn a_cold_node_lets_the_warmer_one_go_first() {
    let mut world = World::elected_pair();
    world.upsert(0, 1);
    world.run(ms(250));
    assert_eq!(world.sync(1), SyncState::InSync);
    world.passes = Box::new(|_, _, bytes| Frame::parse(bytes).unwrap().header().kind != Kind::DATA);
    world.upsert(0, 2); // from now on nobody can be proven
    world.nodes.push(None);
    world.start(2, Config { priority: 254, ..config(3) });
    world.run(Duration::from_secs(1));
    assert!(world.engine(2).status().cold);
    world.kill(0);
    world.run_until("a master", |world| world.role(1) == Role::Master || world.role(2) == Role::Master);
    assert_eq!(world.role(1), Role::Master, "priority 254 is nothing worth while the table is empty");
}

/// [5.2.3] A peer still hears the living master: our link is at fault, and we do not take over.
#[test]
fn nobody_takes_over_while_a_peer_follows_a_living_master() {
    let mut world = World::new(vec![Config { priority: 150, ..config(1) }, config(2), config(3)]);
    world.run(Duration::from_secs(1));
    world.dump_done(0);
    world.run(Duration::from_secs(1));
    world.passes = Box::new(|from, to, _| (from, to) != (0, 1));
    world.run(Duration::from_secs(3));
    assert_eq!((world.role(0), world.role(1), world.role(2)), (Role::Master, Role::Backup, Role::Backup));
    assert!(world.events(1, "PeerOneWay") >= 1);
    world.kill(0);
    world.run(Duration::from_secs(1));
    assert!(world.role(1) == Role::Master || world.role(2) == Role::Master);
}

/// [5.0.4] In mode `manual` roles are what the owner says; the term tells the old master who is the new one.
#[test]
fn manual_roles_follow_the_owner() {
    let manual = |node| Config { role: RoleMode::Manual, ..config(node) };
    let mut world = World::new(vec![manual(1), manual(2)]);
    world.run(Duration::from_secs(5));
    assert_eq!((world.role(0), world.role(1)), (Role::Backup, Role::Backup));
    let now = world.now;
    world.node(0).engine.set_role(now, RoleRequest::Master);
    world.run(ms(100));
    world.dump_done(0);
    world.upsert(0, 1);
    world.run(ms(500));
    assert_eq!((world.role(0), world.sync(1)), (Role::Master, SyncState::InSync));
    let now = world.now;
    world.node(1).engine.set_role(now, RoleRequest::Master);
    world.run(ms(500));
    assert_eq!((world.role(0), world.role(1)), (Role::Backup, Role::Master));
    world.assert_equal(0, 1);
    let now = world.now;
    world.node(1).engine.set_role(now, RoleRequest::None);
    world.run(Duration::from_secs(1));
    assert_eq!((world.role(0), world.role(1)), (Role::Backup, Role::None));
}

/// [5.0.5] Without a link a node is in Fault, and comes back as a backup.
#[test]
fn a_node_without_a_link_is_in_fault() {
    let mut world = World::elected_pair();
    let now = world.now;
    world.node(0).engine.handle_link(now, false);
    assert_eq!(world.role(0), Role::Fault);
    world.run(Duration::from_secs(1));
    assert_eq!(world.role(1), Role::Master);
    let now = world.now;
    world.node(0).engine.handle_link(now, true);
    world.run(ms(10));
    assert_eq!(world.role(0), Role::Backup);
    assert_eq!((world.events(0, "LinkDown"), world.events(0, "LinkUp")), (1, 2));
}

/// A configuration that cannot work is refused with the setting's name [8.0.1].
#[test]
fn an_engine_refuses_a_configuration_that_cannot_work() {
    let now = Instant::ZERO;
    let refused = |config: Config| Engine::new(config, now).map(|_| ()).unwrap_err().key;
    assert_eq!(refused(Config { node: NodeId(0), ..config(1) }), "id");
    assert_eq!(refused(Config { frame_len: 1207, ..config(1) }), "frame_len");
    assert_eq!(refused(Config { frame_len: 8961, ..config(1) }), "frame_len");
    assert_eq!(refused(Config { priority: 0, ..config(1) }), "priority");
    assert_eq!(refused(Config { advert_interval: ms(4), ..config(1) }), "advert_interval");
    assert_eq!(refused(Config { advert_interval: ms(40_001), ..config(1) }), "advert_interval");
    assert_eq!(refused(Config { capacity: 0, ..config(1) }), "capacity");
    assert_eq!(refused(Config { tombstones: 268_435_457, ..config(1) }), "tombstones");
    assert_eq!(refused(Config { history: 15, ..config(1) }), "history");
    assert_eq!(refused(Config { history: 1_048_577, ..config(1) }), "history");
    assert_eq!(refused(Config { incarnation: 0, ..config(1) }), "incarnation");
    let deadlines = [9, 60_001].map(Duration::from_millis);
    for handover_deadline in deadlines {
        assert_eq!(refused(Config { handover_deadline, ..config(1) }), "handover_deadline");
    }
    let nonsense = Config { node: NodeId(0), priority: 0, capacity: 0, ..config(1) };
    assert_eq!(nonsense.problems().len(), 3, "every problem at once");
    let most = Config { capacity: 1 << 28, tombstones: 1 << 28, history: 1 << 20, ..config(1) };
    assert_eq!(most.problems(), []);
    let more = Config { capacity: (1 << 28) + 1, tombstones: (1 << 28) + 1, history: (1 << 20) + 1, ..config(1) };
    let keys: Vec<_> = more.problems().iter().map(|problem| problem.key).collect();
    assert_eq!(keys, ["capacity", "tombstones", "history"]);
}

/// Three nodes of priority 150, 120 and 100, the first one master with an empty dump, all in sync.
fn elected_three(change: impl Fn(Config) -> Config) -> World {
    let priorities = [(1, 150), (2, 120), (3, 100)];
    let configs = priorities.map(|(node, priority)| change(Config { priority, ..config(node) }));
    let mut world = World::new(configs.into());
    world.run(Duration::from_secs(1));
    world.dump_done(0);
    world.run(ms(300));
    assert_eq!((world.role(0), world.sync(1), world.sync(2)), (Role::Master, SyncState::InSync, SyncState::InSync));
    world
}

/// [5.1.4] A backup that is slow to write its table is already taking over: a cold node, which has nothing to write, must not
/// come first.
#[test]
fn a_node_that_is_promoting_is_waited_for() {
    let mut world = elected_three(|config| config);
    (0..100).for_each(|number| world.upsert(0, number));
    world.run(ms(250));
    world.kill(2);
    world.start(2, Config { incarnation: 5555, priority: 254, preempt: false, ..config(3) });
    world.run(ms(30)); // established, and not yet proven
    world.passes = Box::new(|_, _, bytes| bytes[5] != Kind::DATA.0);
    world.upsert(0, 500);
    world.node(1).commits = false;
    world.kill(0);
    world.run_until("promoting", |world| world.role(1) == Role::Promoting);
    assert!(world.engine(2).status().cold);
    world.run(ms(950));
    assert_eq!((world.role(1), world.role(2)), (Role::Promoting, Role::Backup));
    world.node(1).commits = true;
    world.run(ms(1));
    assert_eq!((world.role(1), world.engine(1).status().entries), (Role::Master, 100));
}

/// [5.1.1] The master-down that a cold node gives is given anew after a sign of life of the master, after its goodbye, and after
/// the word of a witness: what was given before, when the master was silent for a moment, counts no more.
#[test]
fn a_cold_node_gives_way_also_when_it_has_given_way_in_vain() {
    let after = |heard: fn(usize) -> bool, end: fn(&mut World)| {
        let mut world = elected_three(|config| config);
        world.passes = Box::new(|from, to, bytes| bytes[5] != Kind::DATA.0 || from + to == 1);
        (0..100).for_each(|number| world.upsert(0, number));
        world.run(ms(250));
        world.kill(2);
        world.start(2, Config { incarnation: 5555, priority: 254, ..config(3) });
        world.run(Duration::from_secs(1));
        // Silent for so long that the cold node's timer (300.8 ms) runs out, and neither that of the warm one (360.9 ms) nor its
        // patience with the master (341.4 ms) does.
        let adverts = world.engine(0).counters().adverts_sent;
        world.run_until("an ADVERT", |world| world.engine(0).counters().adverts_sent > adverts);
        world.run(ms(1));
        world.passes = Box::new(|from, _, bytes| from != 0 && bytes[5] != Kind::DATA.0);
        world.run(ms(325));
        assert_eq!((world.role(1), world.role(2)), (Role::Backup, Role::Backup));
        world.passes = Box::new(move |from, to, bytes| (from != 0 || heard(to)) && bytes[5] != Kind::DATA.0);
        end(&mut world);
        world.run_until("a master", |world| world.role(1) == Role::Master || world.role(2) == Role::Master);
        (world.role(1), world.role(2))
    };
    let dies = |world: &mut World| {
        let now = world.now;
        // It speaks at once, and not with the next interval.
        world.node(0).engine.set_priority(now, 149).expect("valid");
        world.run(Duration::from_secs(1));
        world.kill(0);
    };
    let dies_soon = |world: &mut World| {
        let now = world.now;
        world.node(0).engine.set_priority(now, 149).expect("valid");
        world.run(ms(20));
        world.kill(0);
    };
    let leaves = |world: &mut World| {
        let now = world.now;
        world.node(0).engine.leave(now);
    };
    assert_eq!(after(|_| true, dies), (Role::Master, Role::Backup), "after a sign of life");
    assert_eq!(after(|to| to == 1, dies), (Role::Master, Role::Backup), "after the word of a witness");
    assert_eq!(after(|to| to == 1, dies_soon), (Role::Master, Role::Backup), "after a witness who came and went");
    assert_eq!(after(|_| true, leaves), (Role::Master, Role::Backup), "after a goodbye");
}

/// [5.1.1] A node that is still cold gives way at every death of a master, not at the first only.
#[test]
fn a_cold_node_gives_way_every_time() {
    let mut world = elected_three(|config| config);
    world.passes = Box::new(|from, to, bytes| bytes[5] != Kind::DATA.0 || (from, to) == (0, 1) || (from, to) == (1, 0));
    (0..100).for_each(|number| world.upsert(0, number));
    world.run(ms(250));
    world.kill(2);
    world.start(2, Config { incarnation: 5555, priority: 254, ..config(3) });
    world.run(Duration::from_secs(1));
    world.kill(0);
    world.run_until("the second master", |world| world.role(1) == Role::Master);
    world.start(0, Config { incarnation: 6666, priority: 90, ..config(1) });
    world.run_until("in sync", |world| world.sync(0) == SyncState::InSync);
    assert!(world.engine(2).status().cold);
    world.kill(1);
    world.run_until("the third master", |world| world.role(0) == Role::Master || world.role(2) == Role::Master);
    assert_eq!((world.role(0), world.engine(0).status().entries), (Role::Master, 100));
}

/// [5.4.1] [1.5.2] Of two masters the cold one gives way, whatever its term: it has nothing.
#[test]
fn of_two_masters_the_cold_one_gives_way() {
    let mut world = World::elected_pair_without_preempt();
    (0..100).for_each(|number| world.upsert(0, number));
    world.run(ms(250));
    world.kill(1);
    world.passes = Box::new(|_, _, _| false);
    world.start(1, Config { incarnation: 5555, priority: 254, preempt: false, ..config(2) });
    world.node(1).engine.term = 40;
    world.run(Duration::from_secs(1));
    assert_eq!((world.role(0), world.role(1), world.engine(1).status().term), (Role::Master, Role::Master, 41));
    world.passes = Box::new(|_, _, _| true);
    world.run_until("in sync", |world| world.sync(1) == SyncState::InSync);
    assert_eq!((world.role(0), world.role(1)), (Role::Master, Role::Backup));
    assert!(world.engine(0).status().term > 41);
    assert_eq!(world.table(1).len(), 100);
}

/// [5.1.5] [1.5.2] A cold node became master while the warm one was cut off. The warm one does not follow it but takes the role,
/// even if the cold one's source has told all that it knows: nothing.
#[test]
fn a_warm_backup_takes_the_role_from_a_cold_master() {
    let mut world = elected_three(|config| Config { preempt: false, ..config });
    (0..100).for_each(|number| world.upsert(0, number));
    world.run(ms(250));
    world.kill(2);
    world.kill(0);
    // Node 2 hears nobody: the warm one does not run.
    let stalled = world.nodes[1].take();
    world.start(2, Config { incarnation: 5555, priority: 254, preempt: false, ..config(3) });
    world.run_until("a cold master", |world| world.role(2) == Role::Master);
    world.nodes[1] = stalled;
    world.run_until("they hear each other", |world| world.engine(2).status().peers.iter().any(|peer| peer.established));
    world.dump_done(2);
    assert!(world.engine(2).status().cold);
    world.run_until("in sync", |world| world.sync(2) == SyncState::InSync);
    assert_eq!((world.role(1), world.role(2)), (Role::Master, Role::Backup));
    assert_eq!((world.table(1).len(), world.table(2).len()), (100, 100));
    assert_eq!((world.counter(1, "repair_deletes"), world.events(1, "NewMaster")), (0, 1));
}

/// [5.1.5] But no longer than `one_way_hold` (10 s): a warm node that must not take the role would block the group for ever.
#[test]
fn a_cold_master_with_a_dump_is_believed_after_a_while() {
    let manual = |node| Config { role: RoleMode::Manual, ..config(node) };
    let mut world = World::new(vec![manual(1), manual(2), config(3)]);
    let now = world.now;
    world.node(0).engine.set_role(now, RoleRequest::Master);
    world.run(ms(100));
    world.dump_done(0);
    world.upsert(0, 1);
    world.run_until("in sync", |world| world.sync(1) == SyncState::InSync);
    world.kill(0);
    world.kill(2);
    world.start(2, Config { incarnation: 5555, ..config(3) });
    world.run_until("a cold master", |world| world.role(2) == Role::Master);
    world.dump_done(2);
    world.run(ms(9_000));
    assert_eq!((world.role(1), world.table(1).len()), (Role::Backup, 1));
    world.run_until("in sync", |world| world.sync(1) == SyncState::InSync);
    assert_eq!((world.role(1), world.role(2)), (Role::Backup, Role::Master));
}

/// [5.3.1] A proven node that misses the newest frame does not take the role yet: what it misses would be lost.
#[test]
fn a_node_that_misses_a_frame_does_not_preempt() {
    let mut world = World::elected_pair();
    world.passes = Box::new(|from, _, bytes| from != 0 || bytes[5] != Kind::DATA.0);
    world.upsert(0, 1);
    world.run(ms(1));
    let now = world.now;
    world.node(1).engine.set_priority(now, 200).unwrap();
    world.run(ms(500));
    assert_eq!((world.role(0), world.sync(1)), (Role::Master, SyncState::InSync));
    world.passes = Box::new(|_, _, _| true);
    world.run_until("the takeover", |world| world.role(1) == Role::Master);
    assert_eq!(world.table(1).len(), 1);
}

/// [5.3.1] Two nodes may take the role from a third at the same moment: the higher one does, the other never promotes.
#[test]
fn of_several_that_may_preempt_the_highest_does() {
    let mut world = elected_three(|config| config);
    let now = world.now;
    world.node(0).engine.set_priority(now, 10).unwrap();
    world.run_until("a new master", |world| world.role(1) == Role::Master);
    world.run(Duration::from_secs(2));
    assert_eq!((world.role(0), world.role(1), world.role(2)), (Role::Backup, Role::Master, Role::Backup));
    assert_eq!((world.events(2, "RoleChanged"), world.engine(1).status().term), (1, 2));
}

/// [5.0.5] Who comes back into the game without a link is in Fault, and elects nobody.
#[test]
fn a_node_that_returns_without_a_link_is_in_fault() {
    let mut world = World::elected_pair();
    let now = world.now;
    world.node(1).engine.set_role(now, RoleRequest::None);
    world.node(1).engine.handle_link(now, false);
    world.node(1).engine.set_role(now, RoleRequest::Backup);
    assert_eq!(world.role(1), Role::Fault);
    world.run(Duration::from_secs(2));
    assert_eq!(world.role(1), Role::Fault);
    let now = world.now;
    world.node(1).engine.handle_link(now, true);
    assert_eq!(world.role(1), Role::Backup);
}

/// A goodbye that is overtaken by the wish to be out of the game: silent, and with nothing left to do.
#[test]
fn a_goodbye_cut_short_leaves_nothing_due() {
    let mut world = World::elected_pair();
    let now = world.now;
    world.node(1).engine.leave(now);
    world.node(1).engine.set_role(now, RoleRequest::None);
    assert_eq!(world.engine(1).poll_timeout(), None);
    world.run(ms(10));
    assert_eq!(world.role(1), Role::None);
}

/// [5.2.4] A master that steps down for a higher term knows that term at once, and never takes it itself.
#[test]
fn a_master_that_steps_down_knows_the_new_term() {
    let mut world = World::elected_pair_without_preempt();
    world.passes = Box::new(|_, _, _| false);
    world.run(Duration::from_secs(1));
    world.passes = Box::new(|_, _, _| true);
    world.run_until("one master", |world| world.role(0) == Role::Backup);
    assert_eq!((world.engine(0).status().term, world.engine(1).status().term), (2, 2));
}
