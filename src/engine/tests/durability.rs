//! Acknowledged means present in the peer's table, and proven there; and what is not acknowledged is told as such.

use super::*;
use crate::wire::{AdvertFlags, FRAME_LEN_MAX, Status, SyncCode, encode_status};

fn milliseconds(count: u64) -> Duration {
    ms(count)
}

/// So many nodes of one group, the first of them master, all others proven.
fn proven_group(members: u32, more: impl Fn(Config) -> Config) -> World {
    let node = |number: u32| Config {
        priority: if number == 1 { 150 } else { 100 },
        preempt: false,
        members: Some(members),
        ack_timeout: milliseconds(200),
        ..config(number)
    };
    let mut world = World::new((1..=members).map(|number| more(node(number))).collect());
    world.run_until("a master", |world| world.role(0) == Role::Master);
    world.dump_done(0);
    world.run_until("all are proven", |world| {
        (1..members as usize).all(|at| world.sync(at) == SyncState::InSync)
            && world.engine(0).status().peers.iter().filter(|peer| peer.acknowledged.is_some()).count()
                == members as usize - 1
    });
    world
}

fn submit(world: &mut World, number: u32, ack: Ack) -> Ticket {
    let now = world.now;
    world.node(0).engine.submit(now, &Change::Upsert(flow(number)), ack).unwrap()
}

type Answer = (Ticket, Result<(), DurabilityFailed>);

fn answers(world: &mut World) -> Vec<Answer> {
    std::iter::from_fn(|| world.node(0).engine.poll_ticket()).collect()
}

/// Runs until a ticket is answered; the answer, and how long that took.
fn answer(world: &mut World) -> (Answer, Duration) {
    let start = world.now;
    loop {
        if let Some(answer) = world.node(0).engine.poll_ticket() {
            return (answer, world.now.since(start));
        }
        assert!(world.now.since(start) < Duration::from_secs(10), "no answer");
        world.run(Duration::from_micros(100));
    }
}

/// Nothing that node 0 says of its stream reaches these nodes, and nothing but ADVERTs leaves them if they are `dumb`.
fn deafen(world: &mut World, deaf: &'static [usize]) {
    world.passes = Box::new(move |_, to, bytes| bytes[5] != 2 || !deaf.contains(&to));
}

/// [6.0.1] [6.0.4] With loss: whatever is acknowledged is in the table of as many followers as were asked for.
#[test]
fn acknowledged_means_present_in_the_tables_of_those_who_were_asked_for() {
    let mut world = proven_group(3, |config| config);
    let mut dice = dice(6);
    world.passes = Box::new(move |_, _, _| dice(100) >= 20);
    let mut asked = BTreeMap::new();
    let mut acknowledged = [0; 4];
    for number in 0..2000 {
        let ack = Ack::EVERY[number as usize % 4];
        asked.insert(submit(&mut world, number, ack), (number, ack));
        if number % 10 == 0 {
            world.run(milliseconds(1));
        }
        for (ticket, result) in answers(&mut world) {
            let (number, ack) = asked.remove(&ticket).unwrap();
            if result.is_err() {
                continue;
            }
            let holders = (1..3).filter(|at| world.engine(*at).flow(&key(number), world.now).is_some()).count();
            let needed = match ack {
                Ack::None => 0,
                Ack::One | Ack::Quorum => 1,
                Ack::All => 2,
            };
            assert!(holders >= needed, "{number} is acknowledged by {needed}, and {holders} hold it");
            acknowledged[needed] += 1;
        }
    }
    world.run(milliseconds(300));
    answers(&mut world).iter().for_each(|(ticket, _)| assert!(asked.remove(ticket).is_some()));
    assert!(asked.is_empty(), "each ticket was answered once");
    assert!(acknowledged[0] == 500 && acknowledged[1] > 800 && acknowledged[2] > 300, "{acknowledged:?}");
}

/// [6.0.1] One of three is dead: the majority is still there, all are not. Literally: in 5 nodes two followers make it.
#[test]
fn a_quorum_of_three_and_of_five_stands_one_death_and_all_do_not() {
    for members in [3, 5] {
        let mut world = proven_group(members, |config| config);
        world.kill(2);
        let all = submit(&mut world, 1, Ack::All);
        let quorum = submit(&mut world, 2, Ack::Quorum);
        let (told, took) = answer(&mut world);
        assert_eq!(told, (quorum, Ok(())));
        assert!(took < milliseconds(20), "{took:?}");
        assert_eq!(answer(&mut world).0, (all, Err(DurabilityFailed)));
        assert_eq!(world.counter(0, "tickets_failed"), 1);
    }
}

/// [6.0.1] Two of five is one less than a majority, master included; three are one.
#[test]
fn a_quorum_of_five_needs_two_followers() {
    let mut world = proven_group(5, |config| config);
    deafen(&mut world, &[1, 2, 3]);
    let ticket = submit(&mut world, 1, Ack::Quorum);
    assert_eq!(answer(&mut world).0, (ticket, Err(DurabilityFailed)), "only node 4 holds it");
    deafen(&mut world, &[1, 2]);
    let ticket = submit(&mut world, 2, Ack::Quorum);
    assert_eq!(answer(&mut world).0, (ticket, Ok(())));
    let one = |world: &World, at: usize| world.engine(at).flow(&key(2), world.now).is_some();
    assert_eq!([1, 2, 3, 4].map(|at| one(&world, at)), [false, false, true, true]);
}

/// [6.0.3] Failure comes `ack_timeout` after the submission, to the nanosecond and not before; the record is replicated.
#[test]
fn a_ticket_fails_at_its_deadline_and_its_record_is_replicated_all_the_same() {
    let mut world = proven_group(2, |config| config);
    deafen(&mut world, &[1]);
    let ticket = submit(&mut world, 7, Ack::One);
    world.run(milliseconds(200) - Duration::from_nanos(1));
    assert_eq!(answers(&mut world), []);
    world.run(Duration::from_nanos(1));
    assert_eq!(answers(&mut world), [(ticket, Err(DurabilityFailed))]);
    deafen(&mut world, &[]);
    world.run_until("it is there", |world| world.engine(1).flow(&key(7), world.now).is_some());
    assert_eq!(answers(&mut world), []);
}

/// [6.0.3] Whoever is alone waits for somebody to come, and no longer than `ack_timeout`.
#[test]
fn with_no_peer_one_and_all_fail_and_none_does_not() {
    let mut world = proven_group(2, |config| config);
    world.kill(1);
    world.run(Duration::from_secs(1));
    let none = submit(&mut world, 1, Ack::None);
    assert_eq!(answers(&mut world), [(none, Ok(()))]);
    let (one, all) = (submit(&mut world, 2, Ack::One), submit(&mut world, 3, Ack::All));
    let (first, took) = answer(&mut world);
    assert_eq!((first, took), ((one, Err(DurabilityFailed)), milliseconds(200)));
    assert_eq!(answers(&mut world), [(all, Err(DurabilityFailed))]);
}

/// [6.0.2] A follower whose history is gone stands above what it has missed: its frontier says nothing until it is proven.
#[test]
fn the_frontier_of_a_follower_with_a_hole_counts_only_when_it_is_proven_again() {
    let mut world = proven_group(2, |config| config);
    // 300 frames are more than the history of 256. Nothing repairs node 1 yet: PULLs do not pass.
    world.passes = Box::new(|from, _, bytes| bytes[5] != 6 && (from == 1 || bytes[5] != 2));
    for number in 0..300 {
        world.upsert(0, number);
        world.run(milliseconds(2));
    }
    world.passes = Box::new(|_, _, bytes| bytes[5] != 6);
    world.run_until("the hole is noticed", |world| world.counter(1, "holes") >= 1);
    world.run(milliseconds(200));
    let ticket = submit(&mut world, 1000, Ack::One);
    world.run(milliseconds(100));
    let (peer, master) = (world.engine(0).status().peers[0].clone(), world.engine(0).status());
    assert_eq!((peer.frontier, peer.acknowledged), (master.stream_seq, None), "it holds the end, and not the middle");
    assert!(
        world.engine(1).flow(&key(1000), world.now).is_some() && world.engine(1).flow(&key(5), world.now).is_none()
    );
    assert_eq!(master.at_risk.map(|risk| risk.records), Some(301), "nobody is proven: all of it");
    world.run(milliseconds(100));
    assert_eq!(answers(&mut world), [(ticket, Err(DurabilityFailed))]);
    world.passes = Box::new(|_, _, _| true);
    world.run_until("proven", |world| world.sync(1) == SyncState::InSync);
    let ticket = submit(&mut world, 1001, Ack::One);
    assert_eq!(answer(&mut world).0, (ticket, Ok(())));
    world.assert_equal(0, 1);
}

/// [6.0.2] The proof may end in the middle of everything: the master hears of it with the next frame, not with the next
/// ADVERT.
#[test]
fn a_follower_whose_proof_ends_says_so_at_once() {
    let mut world = proven_group(2, |config| config);
    world.run(milliseconds(50));
    let (now, sent) = (world.now, world.sent.len());
    world.node(1).engine.resync(now, true).unwrap();
    world.run(milliseconds(1));
    assert_eq!(world.engine(0).status().peers[0].acknowledged, None);
    let said = world.sent[sent..].iter().find(|(_, from, _)| *from == 1).unwrap();
    assert_eq!((said.0, said.2[5], said.2[76]), (now, 3, 1), "a STATUS, of state 1, syncing");
    let advert = world.sent[sent..].iter().find(|(_, from, bytes)| *from == 1 && bytes[5] == 1).unwrap();
    assert_eq!(advert.2[47] & 32, 0, "and the ADVERT does not say otherwise");
}

/// [6.0.2] Control frames overtake each other: an older word of a proof that has ended since is not heard.
#[test]
fn a_word_that_was_overtaken_proves_nothing() {
    let mut acked = super::super::durability::Acked::default();
    acked.hear(10, Some(40));
    acked.hear(9, Some(90));
    assert_eq!(acked.frontier(), Some(40));
    acked.hear(12, None);
    acked.hear(11, Some(50));
    assert_eq!(acked.frontier(), None);
    acked.hear(13, Some(50));
    acked.hear(14, Some(45));
    assert_eq!(acked.frontier(), Some(50), "of one proof the highest counts");
}

/// [6.0.2] A STATUS that says proven does not count from who follows another term of ours.
#[test]
fn what_was_proven_of_another_term_does_not_count() {
    let mut world = proven_group(2, |config| config);
    let now = world.now;
    let term = world.engine(0).term;
    world.node(0).engine.renew_term(now, term);
    assert_eq!(world.engine(0).status().peers[0].acknowledged, None);
    let engine = world.engine(1);
    let mut header = engine.header(crate::wire::Kind::STATUS, engine.control_seq + 40);
    header.term = term + 1;
    let target = crate::wire::Target { node: NodeId(1), incarnation: 1001 };
    let status = Status { target, frontier: 99, state: SyncCode::PROVEN, ..Status::default() };
    let mut slot = [0; FRAME_LEN_MAX];
    let length = encode_status(&mut slot, header, &status).unwrap();
    world.hand_in(0, &mut slot[..length]);
    assert_eq!(world.counter(0, "drop_stale") + world.counter(0, "drop_replayed"), 0, "it was heard");
    assert_eq!(world.engine(0).status().peers[0].acknowledged, None);
    assert_eq!(AdvertFlags::PROVEN.0, 32);
    world.run_until("proven in the new term", |world| world.engine(0).status().peers[0].acknowledged.is_some());
}

/// [6.0.4] A refusal is named and counted, and changes nothing; what is fetched makes room.
#[test]
fn too_many_tickets_are_refused_by_name_and_change_nothing() {
    let mut world = proven_group(2, |config| config);
    let now = world.now;
    for _ in 0..16_384 {
        submit(&mut world, 1, Ack::One);
    }
    let refused = world.node(0).engine.submit(now, &Change::Upsert(flow(2)), Ack::None);
    assert_eq!(refused, Err(UpdateError::TicketsFull));
    assert_eq!((world.counter(0, "tickets_refused"), world.engine(0).flow(&key(2), now)), (1, None));
    world.run(milliseconds(50));
    assert_eq!(world.node(0).engine.submit(now, &Change::Upsert(flow(2)), Ack::None), Err(UpdateError::TicketsFull));
    assert_eq!(world.node(0).engine.poll_ticket(), Some((Ticket(1), Ok(()))));
    assert_eq!(world.node(0).engine.submit(now, &Change::Upsert(flow(2)), Ack::None), Ok(Ticket(16_385)));
}

/// [6.0.3] Nothing of a mastership that is over can be acknowledged.
#[test]
fn whoever_loses_the_role_tells_all_tickets_at_once() {
    let mut world = proven_group(2, |config| Config { ack: Ack::One, ..config });
    deafen(&mut world, &[1]);
    let tickets =
        [submit(&mut world, 1, Ack::One), submit(&mut world, 2, Ack::Quorum), submit(&mut world, 3, Ack::All)];
    world.upsert(0, 4);
    world.run(milliseconds(5));
    let now = world.now;
    world.node(0).engine.set_role(now, RoleRequest::Backup);
    assert_eq!(answers(&mut world), tickets.map(|ticket| (ticket, Err(DurabilityFailed))));
    world.run(milliseconds(1));
    assert_eq!(world.events(0, "DurabilityFailed"), 1);
    assert_eq!((world.counter(0, "tickets_failed"), world.counter(0, "submissions_failed")), (3, 1));
    assert_eq!(world.node(0).engine.submit(now, &Change::Upsert(flow(5)), Ack::One), Err(UpdateError::NotMaster));
}

/// [6.0.5] The source has no tickets: what fails is counted, and told once a second and not once a change.
#[test]
fn failures_of_the_source_are_counted_and_told_once_a_second() {
    let mut world = proven_group(2, |config| Config { ack: Ack::All, ..config });
    (0..50).for_each(|number| world.upsert(0, number));
    world.run(milliseconds(400));
    assert_eq!((world.counter(0, "submissions_failed"), world.events(0, "DurabilityFailed")), (0, 0));
    deafen(&mut world, &[1]);
    for number in 50..2050 {
        world.upsert(0, number);
        world.run(milliseconds(1));
    }
    // Again what is held already: nobody has to hear of it, and nobody waits.
    (50..60).for_each(|number| world.upsert(0, number));
    world.run(milliseconds(1300));
    assert_eq!(world.counter(0, "submissions_failed"), 2000);
    let told = |event: &Event| match event {
        Event::DurabilityFailed { submissions } => Some(*submissions),
        _ => None,
    };
    let told: Vec<u64> = world.node(0).events.iter().filter_map(told).collect();
    assert_eq!(told.iter().sum::<u64>(), 2000);
    assert!((3..=4).contains(&told.len()), "{told:?}");
    assert_eq!(answers(&mut world), []);
}

#[test]
fn policies_that_count_members_are_refused_without_them() {
    let problems = |ack, members| Config { ack, members, ..config(1) }.problems();
    for ack in [Ack::Quorum, Ack::All] {
        let problems = problems(ack, None);
        assert_eq!((problems.len(), problems[0].key), (1, "ack"));
        assert_eq!(
            problems[0].problem,
            format!(
                "\"{}\" counts the nodes of the group, and nobody says how many there are; write members = 2, or as \
                 many as there are with this one",
                ack.name()
            )
        );
    }
    assert!(problems(Ack::One, None).is_empty() && problems(Ack::Quorum, Some(2)).is_empty());
    assert_eq!(problems(Ack::None, Some(1))[0].problem, "1; a group has 2 to 33 nodes, this one included");
    assert!(problems(Ack::None, Some(33)).is_empty() && problems(Ack::None, Some(34))[0].key == "members");
    let timeout = |ack_timeout| Config { ack_timeout, ..config(1) }.problems().len();
    assert_eq!((timeout(Duration::ZERO), timeout(Duration::from_secs(3601)), timeout(milliseconds(1))), (1, 1, 0));

    let mut world = World::elected_pair();
    let now = world.now;
    let refused = world.node(0).engine.submit(now, &Change::Upsert(flow(1)), Ack::Quorum);
    assert_eq!((refused, world.engine(0).flow(&key(1), now)), (Err(UpdateError::MembersUnknown), None));
}

/// [6.0.6] An insert that its delete cancels leaves nothing to wait for.
#[test]
fn a_flush_on_an_idle_master_does_not_wait_for_what_was_cancelled() {
    let mut world = proven_group(2, |config| config);
    world.run(milliseconds(50));
    let now = world.now;
    world.update(0, Change::Upsert(flow(1)));
    let mut flush = world.engine(0).begin_flush(now, milliseconds(500), None).unwrap();
    let ticket = world.node(0).engine.submit(now, &Change::Upsert(flow(2)), Ack::One).unwrap();
    world.update(0, Change::Delete(key(1)));
    world.update(0, Change::Delete(key(2)));
    assert_eq!(world.engine(0).flush_state(now, &mut flush), Ok(FlushState::Done));
    assert_eq!(answers(&mut world), [(ticket, Ok(()))]);
    assert_eq!((world.engine(0).status().unsent, world.engine(0).status().unsent_since), (0, None));
}

/// [6.0.6] A flush can ask for less, or for more, than every proven follower.
#[test]
fn a_flush_waits_for_whom_its_policy_names() {
    let mut world = proven_group(3, |config| config);
    deafen(&mut world, &[2]);
    world.upsert(0, 1);
    let flush = |world: &World, ack| world.engine(0).begin_flush(world.now, milliseconds(300), ack).unwrap();
    let mut flushes = [flush(&world, None), flush(&world, Some(Ack::All)), flush(&world, Some(Ack::Quorum))];
    world.run(milliseconds(50));
    let state = |world: &World, flush: &mut Flush| world.engine(0).flush_state(world.now, flush).unwrap();
    let states = flushes.each_mut().map(|flush| state(&world, flush));
    assert_eq!(states, [FlushState::Waiting, FlushState::Waiting, FlushState::Done]);
    world.kill(2);
    world.run(milliseconds(250));
    assert_eq!(flushes.each_mut().map(|flush| state(&world, flush))[1], FlushState::TimedOut);
    world.run(milliseconds(250));
    assert_eq!(state(&world, &mut flushes[0]), FlushState::Done, "who is gone is not waited for");
}

/// What a death would cost: records, and the age of the oldest.
#[test]
fn what_is_at_risk_is_told_in_records_and_time() {
    let mut world = proven_group(3, |config| config);
    world.run(milliseconds(50));
    let nothing = AtRisk { records: 0, since: None };
    assert_eq!((world.engine(0).status().at_risk, world.engine(1).status().at_risk), (Some(nothing), None));
    deafen(&mut world, &[2]);
    let start = world.now;
    (0..100).for_each(|number| world.upsert(0, number));
    world.run(milliseconds(20));
    let status = world.engine(0).status();
    assert_eq!((status.at_risk, status.unacknowledged_records), (Some(nothing), Some(100)), "node 1 holds them");
    assert_eq!(status.unacknowledged_since, Some(start));
    deafen(&mut world, &[1, 2]);
    let second = world.now;
    (100..130).for_each(|number| world.upsert(0, number));
    let status = world.engine(0).status();
    assert_eq!((status.unsent, status.unsent_since), (30, Some(second)));
    world.run(milliseconds(20));
    let status = world.engine(0).status();
    assert_eq!((status.unsent, status.unsent_since, status.unacknowledged_records), (0, None, Some(130)));
    assert_eq!(status.at_risk, Some(AtRisk { records: 30, since: Some(second) }));
    deafen(&mut world, &[]);
    world.run_until("all of it is held", |world| world.engine(0).status().at_risk == Some(nothing));
    assert_eq!(world.engine(0).status().unacknowledged_records, Some(0));
    let covered = world.now;
    world.kill(1);
    world.kill(2);
    world.run(Duration::from_secs(2));
    let alone = world.engine(0).status().at_risk.unwrap();
    let bare_since = alone.since.unwrap().since(covered);
    assert_eq!(alone.records, 130, "nobody holds anything any more");
    assert!(bare_since > milliseconds(200) && bare_since < milliseconds(500), "{bare_since:?}");
}
