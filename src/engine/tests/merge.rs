//! What only one of two tables holds lives on in both.

use super::*;
use crate::wire::{CURSOR_END, Frame, Header, Kind, MergePull, MergeWriter, Payload, Target, encode_merge_pull};
use std::cell::RefCell;
use std::rc::Rc;

const SECOND: Duration = Duration::from_secs(1);

/// A pair that holds flows 0 to 99, is cut in two, and has two masters: node 1 has the higher term.
fn split() -> World {
    split_of(World::elected_pair_without_preempt())
}

fn split_of(mut world: World) -> World {
    (0..100).for_each(|number| world.upsert(0, number));
    world.run(ms(250));
    assert_eq!(world.sync(1), SyncState::InSync);
    world.passes = Box::new(|_, _, _| false);
    world.run(SECOND * 2);
    assert_eq!((world.role(0), world.role(1)), (Role::Master, Role::Master));
    world
}

fn heal(world: &mut World) {
    world.passes = Box::new(|_, _, _| true);
    world.run_until("one master", |world| world.role(0) == Role::Backup);
    world.run_until("in sync", |world| world.sync(0) == SyncState::InSync);
}

fn numbers(world: &World, at: usize) -> Vec<u32> {
    (0..2000).filter(|number| world.engine(at).flow(&key(*number), world.now).is_some()).collect()
}

/// The question for a merge in a frame: its cursor.
fn asked(bytes: &[u8]) -> Option<u64> {
    let frame = Frame::parse(bytes).unwrap();
    match frame.verify().unwrap().payload() {
        Payload::MergePull(pull) => Some(pull.cursor),
        _ => None,
    }
}

fn is_page(bytes: &[u8]) -> bool {
    Frame::parse(bytes).unwrap().header().kind == Kind::RECORDS
}

/// Whether it is a page behind the first one.
fn is_later_page(bytes: &[u8]) -> bool {
    let frame = Frame::parse(bytes).unwrap();
    matches!(frame.verify().unwrap().payload(), Payload::MergeRecords(page) if page.cursor != 0)
}

fn questions(world: &World) -> usize {
    world.sent.iter().filter(|(_, _, bytes)| asked(bytes).is_some_and(|cursor| cursor != CURSOR_END)).count()
}

/// [5.5.1] [5.5.3] Connections made on either side of a split live on, on both nodes and in the winner's kernel.
#[test]
fn what_only_the_loser_learned_while_it_was_master_lives_on() {
    let mut world = split();
    (500..1200).for_each(|number| world.upsert(0, number));
    (1300..1400).for_each(|number| world.upsert(1, number));
    world.run(SECOND);
    world.node(1).sink.clear();
    heal(&mut world);
    world.assert_equal(0, 1);
    let all: Vec<u32> = (0..100).chain(500..1200).chain(1300..1400).collect();
    assert_eq!(numbers(&world, 1), all);
    assert_eq!(world.node(1).sink.len(), 700, "its kernel did not know them");
    let merged = Event::Merged { from: NodeId(1), adopted: 700, took: Duration::ZERO };
    let is_merged = |event: &&Event| matches!(event, Event::Merged { .. });
    let told = world.node(1).events.iter().find(is_merged).cloned().map(|event| match event {
        Event::Merged { from, adopted, .. } => Event::Merged { from, adopted, took: Duration::ZERO },
        other => other,
    });
    assert_eq!(told, Some(merged));
    assert_eq!(world.counter(1, "merge_adopted"), 700);
    assert_eq!(world.counter(0, "merge_adopted"), 0);
}

/// [5.5.1] Only what is newer than what the winner had of the loser's stream is asked for: what it lacks of the rest has ended.
#[test]
fn what_the_winner_knew_at_its_takeover_is_not_told() {
    let mut world = split();
    world.upsert(0, 500);
    world.update(1, Change::Delete(key(7)));
    world.dump_done(1);
    world.upsert(1, 501);
    heal(&mut world);
    assert_eq!(numbers(&world, 1), [500, 501]);
    assert_eq!((world.counter(1, "merge_adopted"), world.counter(1, "merge_kept")), (1, 0));
    assert_eq!(world.counter(0, "merge_pages_sent"), world.counter(1, "merge_pages_received"));
}

/// [5.5.1] [6] What the winner has ended since stays ended: it was told, took nothing, and says nothing.
#[test]
fn a_merge_that_brings_nothing_is_no_event() {
    let mut world = split();
    world.update(1, Change::Delete(key(7)));
    world.run(SECOND);
    world.update(0, Change::Upsert(Flow { state: 7, ..flow(7) }));
    world.run(SECOND);
    heal(&mut world);
    assert!(world.counter(1, "merge_pages_received") > 0);
    assert_eq!((world.counter(1, "merge_kept"), world.counter(1, "merge_adopted")), (1, 0));
    assert_eq!(world.events(1, "Merged"), 0);
}

/// [5.5.1] What the winner has changed or ended since its takeover stays as it says.
#[test]
fn the_winners_own_changes_and_deletes_win() {
    let mut world = split();
    let with = |number, state| Change::Upsert(Flow { state, ..flow(number) });
    world.update(1, Change::Delete(key(1)));
    world.update(1, with(2, 5));
    world.run(SECOND);
    // After that, so that the loser's word is the later one.
    [1, 2, 3].into_iter().for_each(|number| world.update(0, with(number, 7)));
    world.update(0, Change::Delete(key(4)));
    world.run(SECOND);
    heal(&mut world);
    let state = |number| world.engine(1).flow(&key(number), world.now).map(|flow| flow.state);
    assert_eq!([1, 2, 3, 4].map(state), [None, Some(5), Some(7), Some(3)]);
    assert_eq!((world.counter(1, "merge_adopted"), world.counter(1, "merge_kept")), (1, 2));
    world.assert_equal(0, 1);
}

/// [5.5.1] What the loser had not even sent when it stepped down is told, too.
#[test]
fn what_waited_to_be_sent_when_the_loser_stepped_down_is_told() {
    let mut world = split();
    let now = world.now;
    world.node(0).engine.config.batch_delay = SECOND;
    world.upsert(0, 500);
    world.run(ms(1));
    world.update(0, Change::Upsert(Flow { state: 7, ..flow(8) }));
    assert_eq!(world.engine(0).status().pending, 1, "it waits");
    let _ = now;
    heal(&mut world);
    assert!(numbers(&world, 1).contains(&500));
    assert_eq!(world.engine(1).flow(&key(8), world.now).map(|flow| flow.state), Some(7));
}

/// [5.5.1] [5.5.3] A question or page that is lost is asked for again, and "done" is repeated.
#[test]
fn a_merge_over_a_bad_link_comes_to_its_end() {
    let mut world = split();
    (500..1500).for_each(|number| world.upsert(0, number));
    let mut dice = dice(7);
    world.passes = Box::new(move |_, _, bytes| !(is_page(bytes) || asked(bytes).is_some()) || dice(2) == 0);
    world.run_until("in sync", |world| world.role(0) == Role::Backup && world.sync(0) == SyncState::InSync);
    world.assert_equal(0, 1);
    assert_eq!(numbers(&world, 1).len(), 1100);
    assert_eq!(world.events(0, "MergeGivenUp") + world.events(1, "MergeGivenUp"), 0);
    assert_eq!(world.counter(0, "merge_offers_expired"), 0);
    // Also those that were lost, and those that say that all is there.
    let questions = |node| world.sent.iter().filter(|(_, from, bytes)| *from == node && asked(bytes).is_some()).count();
    assert_eq!(world.counter(1, "merge_pulls_sent"), questions(1) as u64);
    assert_eq!((world.counter(0, "merge_pulls_sent"), questions(0)), (0, 0));
}

/// [5.5.3] What the winner has no room for is counted, entry by entry.
#[test]
fn what_finds_no_room_at_the_winner_is_counted() {
    let patient = |config: Config| Config { preempt: false, ..config };
    let small = Config { capacity: 150, ..config(2) };
    let mut world =
        split_of(World::new(vec![patient(Config { priority: 150, ..config(1) }), patient(small)]).elected());
    (500..600).for_each(|number| world.upsert(0, number));
    world.passes = Box::new(|_, _, _| true);
    world.run_until("one master", |world| world.role(0) == Role::Backup);
    world.run(SECOND);
    assert_eq!(world.engine(1).status().entries, 150);
    assert_eq!((world.counter(1, "merge_adopted"), world.counter(1, "merge_refused")), (50, 50));
}

/// [5.5.1] Who asks for more pages than it is granted in a while is refused them, each one counted.
#[test]
fn questions_beyond_what_is_granted_are_refused_and_counted() {
    let mut world = World::elected_pair();
    world.upsert(0, 1);
    world.run(SECOND);
    let (asker, asked) = (world.engine(1), world.engine(0));
    let target = Target { node: asked.config.node, incarnation: asked.incarnation };
    let pull = MergePull { target, node: NodeId(9), incarnation: 9, after: 0, cursor: 0 };
    let header = Header {
        sync_id: 51,
        kind: Kind::PULL,
        node: asker.config.node,
        incarnation: asker.incarnation,
        term: asker.term,
        ..Header::default()
    };
    let first = asker.control_seq + 1;
    for seq in first..first + 600 {
        let mut slot = [0; 1480];
        let length = encode_merge_pull(&mut slot, Header { seq, ..header }, &pull).unwrap();
        world.hand_in(0, &mut slot[..length]);
    }
    // 512 pages are granted at a time.
    assert_eq!((world.counter(0, "merge_pulls_received"), world.counter(0, "merge_pulls_refused")), (600, 88));
}

/// [5.5.4] Until it was asked, the loser removes nothing and asks for nothing; after `merge_deadline` it repairs.
#[test]
fn a_loser_whom_nobody_asks_waits_for_the_deadline_and_then_repairs() {
    let mut world = split();
    (500..600).for_each(|number| world.upsert(0, number));
    world.upsert(1, 1300);
    world.passes = Box::new(|_, _, bytes| asked(bytes).is_none());
    world.run_until("one master", |world| world.role(0) == Role::Backup);
    world.run(SECOND * 9);
    assert_eq!(numbers(&world, 0).len(), 201, "its own are held, and the master's have come");
    assert_ne!(world.sync(0), SyncState::InSync);
    assert_eq!(world.counter(0, "pulls_sent") + world.counter(0, "digests_requests_sent"), 0);
    world.run(SECOND * 2);
    assert_eq!(world.counter(0, "merge_offers_expired"), 1);
    assert_eq!((world.events(0, "MergeGivenUp"), world.events(1, "MergeGivenUp")), (1, 1));
    world.run_until("in sync", |world| world.sync(0) == SyncState::InSync);
    assert_eq!(numbers(&world, 0).len(), 101);
    // Nobody asks again for what nobody offers.
    let before = questions(&world);
    world.run(SECOND * 3);
    assert_eq!(questions(&world), before);
}

/// [5.5.4] A deadline that is changed while the node runs is kept by its next merge.
#[test]
fn another_merge_deadline_is_kept_by_the_next_merge() {
    let mut world = split();
    world.upsert(0, 500);
    let now = world.now;
    for at in 0..2 {
        let engine = &mut world.node(at).engine;
        let shorter = Tuning { merge_deadline: SECOND * 2, ..Tuning::from(&engine.config) };
        engine.reconfigure(now, &shorter).unwrap();
    }
    world.passes = Box::new(|_, _, bytes| asked(bytes).is_none());
    world.run_until("one master", |world| world.role(0) == Role::Backup);
    world.run(SECOND * 3);
    assert_eq!((world.events(0, "MergeGivenUp"), world.events(1, "MergeGivenUp")), (1, 1));
}

/// [5.5.4] A bucket-end that a third node has caused removes nothing of what the loser still has to tell.
#[test]
fn a_walk_for_somebody_else_takes_nothing_from_a_loser_before_it_was_asked() {
    let mut world = split();
    (500..600).for_each(|number| world.upsert(0, number));
    world.passes = Box::new(|_, _, bytes| asked(bytes).is_none());
    world.run_until("one master", |world| world.role(0) == Role::Backup);
    world.nodes.push(None);
    world.start(2, Config { priority: 10, ..config(3) });
    world.run_until("the third is in sync", |world| world.sync(2) == SyncState::InSync);
    assert!(world.counter(0, "bucket_ends_held_back") > 0);
    assert_eq!(numbers(&world, 0).len(), 200);
    heal(&mut world);
    world.run_until("the third too", |world| world.sync(2) == SyncState::InSync && numbers(world, 2).len() == 200);
    world.assert_equal(0, 2);
}

/// [5.5.1] A page that was not asked for changes nothing but a counter: at whom it names, and at everybody else.
#[test]
fn nobody_adopts_what_it_has_not_asked_for() {
    let mut world = World::elected_pair();
    world.upsert(0, 1);
    world.run(SECOND);
    for (to, from) in [(0_usize, 1_usize), (1, 0)] {
        let source = world.engine(from);
        let header = Header {
            sync_id: 51,
            kind: Kind::RECORDS,
            node: source.config.node,
            incarnation: source.incarnation,
            seq: source.control_seq + 1,
            term: source.term,
            ..Header::default()
        };
        let target = Target { node: world.engine(to).config.node, incarnation: world.engine(to).incarnation };
        let mut slot = [0; 1480];
        let mut writer = MergeWriter::new(&mut slot, header, target, 0).unwrap();
        writer.push_upsert(&flow(900)).unwrap();
        let length = writer.finish(CURSOR_END);
        let before = world.engine(to).status().digest;
        world.hand_in(to, &mut slot[..length]);
        assert_eq!(world.engine(to).status().digest, before);
        assert_eq!((world.counter(to, "merge_pages_unasked"), world.counter(to, "merge_adopted")), (1, 0));
        assert_eq!(world.engine(to).flow(&key(900), world.now), None);
    }
}

/// [5.5.1] Two winners in a row: what the first one did not come to ask for is told to the second.
#[test]
fn what_a_dead_winner_never_asked_for_its_successor_asks_for() {
    let mut world = split();
    (500..600).for_each(|number| world.upsert(0, number));
    world.nodes.push(None);
    world.start(2, Config { priority: 120, preempt: false, ..config(3) });
    // The third hears the second only, and the first hears nobody.
    world.passes = Box::new(|from, to, _| from != 0 && to != 0);
    world.run_until("the third is in sync", |world| world.sync(2) == SyncState::InSync);
    world.passes = Box::new(|_, _, bytes| asked(bytes).is_none());
    world.run_until("one master", |world| world.role(0) == Role::Backup);
    world.run(ms(300));
    world.kill(1);
    world.passes = Box::new(|_, _, _| true);
    world.run_until("a successor", |world| [0, 2].iter().any(|at| world.role(*at) == Role::Master));
    world.run(SECOND * 2);
    assert_eq!((world.table(0).len(), world.table(2).len()), (200, 200), "{:?} {:?}", world.role(0), world.role(2));
    world.assert_equal(0, 2);
    assert_eq!(numbers(&world, 2).len(), 200);
}

/// [5.5.2] Between two pages the loser begins to follow a third master, by whose seed its table stands in another order: it
/// tells the rest all the same.
#[test]
fn a_table_that_is_hashed_anew_between_two_pages_is_told_to_its_end() {
    let mut world = split();
    (500..1500).for_each(|number| world.upsert(0, number));
    world.nodes.push(None);
    world.start(2, Config { priority: 200, ..config(3) });
    world.run_until("a third master", |world| world.role(2) == Role::Master);
    let now = world.now;
    world.node(2).engine.set_role(now, RoleRequest::Backup);
    world.node(2).engine.set_role(now, RoleRequest::Master);
    world.run(SECOND);
    world.dump_done(2);
    assert_eq!([1, 2].map(|at| world.engine(at).status().term), [2, 2], "so that the second stays master beside it");
    world.passes = Box::new(|from, to, bytes| from != 2 && to != 2 && !is_later_page(bytes));
    world.run_until("a first page", |world| world.counter(1, "merge_pages_received") == 1);
    assert_eq!(world.engine(0).following().map(|stream| stream.0), Some(NodeId(2)));
    let seed = world.engine(0).table.seed();
    // The second hears nothing but pages: it is to stay as it is.
    let passes = |from: usize, to: usize, bytes: &[u8]| from + to != 3 && (to != 1 || is_page(bytes));
    world.passes = Box::new(move |from, to, bytes| passes(from, to, bytes) && !is_later_page(bytes));
    world.run_until("another stream", |world| world.engine(0).following().map(|stream| stream.0) == Some(NodeId(3)));
    assert_ne!(world.engine(0).table.seed(), seed);
    world.passes = Box::new(passes);
    world.run_until("merged", |world| world.events(1, "Merged") == 1);
    assert_eq!((world.role(1), numbers(&world, 1).len()), (Role::Master, 1100));
}

/// [5.2.5] [1.5.3] What a peer holds of the dead stream beyond the node that takes over is there before the node is master.
#[test]
fn a_node_that_takes_over_first_asks_who_is_further() {
    let mut world =
        World::new(vec![Config { priority: 200, ..config(1) }, Config { priority: 150, ..config(2) }, config(3)]);
    world.run(SECOND);
    assert_eq!(world.role(0), Role::Master);
    world.dump_done(0);
    (0..100).for_each(|number| world.upsert(0, number));
    world.run(SECOND);
    assert_eq!((world.sync(1), world.sync(2)), (SyncState::InSync, SyncState::InSync));
    // From here on the second node gets no DATA, and the first dies with what only the third has.
    world.passes =
        Box::new(|from, to, bytes| !(from == 0 && to == 1 && Frame::parse(bytes).unwrap().header().kind == Kind::DATA));
    (500..700).for_each(|number| world.upsert(0, number));
    world.update(0, Change::Upsert(Flow { state: 7, ..flow(3) }));
    world.run(ms(150));
    world.kill(0);
    let at_promotion = Rc::new(RefCell::new(0));
    let seen = at_promotion.clone();
    world.run_until("the second is master", |world| {
        if world.role(1) == Role::Promoting {
            *seen.borrow_mut() = numbers(world, 1).len();
        }
        world.role(1) == Role::Master
    });
    assert_eq!(numbers(&world, 1).len(), 300);
    assert_eq!(world.engine(1).flow(&key(3), world.now).map(|flow| flow.state), Some(7));
    assert_eq!(world.node(1).sink.len(), 300, "the kernel has them before the addresses are there");
    assert_eq!((world.events(1, "Merged"), world.events(1, "CommitDeadlinePassed")), (1, 0));
    world.run_until("the third follows", |world| world.sync(2) == SyncState::InSync);
    world.assert_equal(1, 2);
}

/// [5.2.5] [5.2.2] A peer that does not answer holds the takeover up for `commit_deadline` and no longer.
#[test]
fn a_peer_that_does_not_answer_costs_no_more_than_the_deadline() {
    let mut world =
        World::new(vec![Config { priority: 200, ..config(1) }, Config { priority: 150, ..config(2) }, config(3)]);
    world.run(SECOND);
    world.dump_done(0);
    world.upsert(0, 1);
    world.run(SECOND);
    world.passes = Box::new(|from, to, bytes| {
        let data = Frame::parse(bytes).unwrap().header().kind == Kind::DATA;
        !(is_page(bytes) || from == 0 && to == 1 && data)
    });
    world.upsert(0, 2);
    world.run(ms(150));
    world.kill(0);
    world.run_until("promoting", |world| world.role(1) == Role::Promoting);
    let took = world.run_until("master", |world| world.role(1) == Role::Master);
    assert!((ms(998)..=ms(1001)).contains(&took), "took {took:?}");
    assert_eq!(world.events(1, "CommitDeadlinePassed"), 1);
    // It goes on asking as master.
    world.passes = Box::new(|_, _, _| true);
    world.run(SECOND);
    assert!(numbers(&world, 1).contains(&2));
}

/// [5.1.3] A node that is made master before it has learned anything takes everything from the warmest peer first.
#[test]
fn a_cold_node_that_is_made_master_first_takes_what_the_warmest_has() {
    let manual = |config: Config| Config { role: RoleMode::Manual, ..config };
    let mut world = World::new(vec![manual(config(1)), manual(config(2))]);
    world.run(SECOND);
    let now = world.now;
    world.node(0).engine.set_role(now, RoleRequest::Master);
    world.run(ms(100));
    world.dump_done(0);
    (0..700).for_each(|number| world.upsert(0, number));
    world.run(SECOND);
    assert_eq!(world.sync(1), SyncState::InSync);
    world.kill(0);
    world.run(SECOND);
    world.start(0, manual(Config { incarnation: 5555, ..config(1) }));
    world.run(SECOND);
    let now = world.now;
    world.node(0).engine.set_role(now, RoleRequest::Master);
    world.run_until("master", |world| world.role(0) == Role::Master);
    assert_eq!((numbers(&world, 0).len(), world.node(0).sink.len()), (700, 700));
}

/// [5.5.1] A planned change of the role between equal tables costs one question, and adopts nothing.
#[test]
fn equal_tables_have_nothing_to_merge() {
    let mut world = World::elected_pair_without_preempt();
    (0..1000).for_each(|number| world.upsert(0, number));
    world.run(SECOND);
    let now = world.now;
    world.node(1).engine.set_role(now, RoleRequest::Master);
    world.run_until("the change", |world| world.role(0) == Role::Backup && world.role(1) == Role::Master);
    world.run(ms(90));
    assert_eq!((world.counter(1, "merge_adopted"), world.counter(1, "merge_same")), (0, 0));
    assert!(questions(&world) <= 1);
    assert_eq!(world.events(1, "Merged"), 0);
}
