//! How far the master sends, whom it waits for, and who asks for what was lost.

use super::*;
use crate::wire::{
    AdvertFlags, Frame, Header, Kind, Payload, PeerReport, Status, SyncCode, encode_advert, encode_status,
};

fn header(bytes: &[u8]) -> Header {
    Frame::parse(bytes).unwrap().header()
}

/// A pair that is in sync, whose backup reads as slowly as the socket says.
fn pair_in_sync() -> World {
    let mut world = World::elected_pair();
    world.run_until("in sync", |world| world.sync(1) == SyncState::InSync);
    world.run(ms(50));
    world
}

/// Node 0 is master; 1 and 2 follow it, and are in sync.
fn three_in_sync() -> World {
    let mut world =
        World::new(vec![Config { priority: 150, ..config(1) }, config(2), Config { priority: 90, ..config(3) }]);
    world.run(Duration::from_secs(1));
    world.dump_done(0);
    world.run_until("in sync", |world| [1, 2].iter().all(|at| world.sync(*at) == SyncState::InSync));
    world.run(ms(300));
    world
}

/// The STATUS frames of a node that ask for something.
fn requests(world: &World, node: usize) -> usize {
    let asks = |(_, by, bytes): &&(Instant, usize, Vec<u8>)| {
        let Payload::Status(status) = Frame::parse(bytes).unwrap().verify().unwrap().payload() else { return false };
        *by == node && !status.missing.is_empty()
    };
    world.sent.iter().filter(asks).count()
}

/// The same frame, said by a node that can take nothing, and whose STATUS has this state.
fn without_credit(bytes: &[u8], state: SyncCode) -> Vec<u8> {
    let header = header(bytes);
    let frame = Frame::parse(bytes).unwrap().verify().unwrap();
    let mut slot = [0; 1480];
    let length = match frame.payload() {
        Payload::Advert(mut advert) => {
            let nothing = |it: &PeerReport| PeerReport::new(it.node(), it.incarnation(), 0, it.heard(), it.frontier());
            let peers: Vec<PeerReport> = advert.peers.iter().map(nothing).collect();
            advert.peers = &peers;
            encode_advert(&mut slot, header, &advert).unwrap()
        }
        Payload::Status(status) => encode_status(&mut slot, header, &Status { credit: 0, state, ..status }).unwrap(),
        _ => return bytes.to_vec(),
    };
    slot[..length].to_vec()
}

/// Lets the world run while node 1 says that it can take nothing.
fn run_without_credit(world: &mut World, state: SyncCode, time: Duration) {
    world.passes = Box::new(|from, _, _| from == 0);
    let mut seen = world.sent.len();
    for _ in 0..time.as_millis() {
        world.run(ms(1));
        for at in std::mem::replace(&mut seen, world.sent.len())..world.sent.len() {
            let (_, from, bytes) = world.sent[at].clone();
            if from == 1 {
                world.hand_in(0, &mut without_credit(&bytes, state));
            }
        }
    }
}

/// [3.6.6] A backup that takes a frame each 10 ms, and can hold 32 of them, is sent no more than that: changes replace each
/// other in the master's table, nothing is lost, and nobody is called lagging.
#[test]
fn a_slow_receiver_loses_nothing_and_the_sender_coalesces() {
    let mut world = pair_in_sync();
    world.node(1).engine.set_receive_room(24);
    world.run(ms(200));
    let next_at = world.now;
    world.socket = Some(Socket { node: 1, pace: ms(10), room: 32, waiting: VecDeque::new(), next_at, lost: 0 });
    let (sent, mut choose) = (world.counter(0, "records_sent"), dice(3));
    let mut waited = 0;
    for _ in 0..3000 {
        (0..20).for_each(|_| {
            world.update(0, Change::Upsert(Flow { state: choose(9) as u8, ..flow(choose(2000) as u32) }))
        });
        world.run(ms(1));
        waited = waited.max(world.engine(0).status().pending);
    }
    let sent = world.counter(0, "records_sent") - sent;
    assert!(sent < 30_000, "{sent} records of 60,000 changes");
    assert!(world.counter(0, "credit_waits") > 10);
    assert!(waited > 500, "{waited} records waited at the most");
    world.run(Duration::from_secs(2));
    world.assert_equal(0, 1);
    assert_eq!(world.sync(1), SyncState::InSync);
    assert_eq!((world.socket.as_ref().unwrap().lost, world.counter(0, "data_resent")), (0, 0));
    assert_eq!((world.events(0, "Lagging"), world.counter(1, "holes")), (0, 0));
}

/// [3.6.6] [3.6.8] One of two backups gets no DATA any more. The other waits for `lag_limit` at the longest; the first one is
/// told of, knows it, and is repaired when it hears again.
#[test]
fn a_follower_that_stands_still_delays_nobody_for_longer_than_the_lag_limit() {
    let mut world = three_in_sync();
    world.passes = Box::new(|_, to, bytes| to != 2 || header(bytes).kind != Kind::DATA);
    let start = world.now;
    let mut number = 0;
    let mut change = |world: &mut World, times: u32| {
        for _ in 0..times {
            number += 1;
            world.upsert(0, number % 3000);
            world.update(0, Change::Delete(key((number + 1500) % 3000)));
            world.run(ms(1));
        }
    };
    change(&mut world, 450);
    assert_eq!(world.events(0, "Lagging"), 0);
    assert!(world.table(1).len() < world.table(0).len(), "the history ends, and is not overwritten yet");
    change(&mut world, 100);
    assert_eq!(world.events(0, "Lagging"), 1);
    assert!(world.now.since(start) < ms(560));
    let lagging = |world: &World| {
        let peers = world.engine(0).status().peers;
        let of = |node| peers.iter().find(|peer| peer.node == NodeId(node)).unwrap().lagging;
        (of(2), of(3))
    };
    assert_eq!(lagging(&world), (false, true));
    for _ in 0..600 {
        change(&mut world, 1);
        world.run(ms(1));
        assert_eq!(world.engine(0).status().pending, 0);
    }
    assert_eq!(world.table(1), world.table(0), "a living backup waits for nobody now");
    assert_eq!(world.sync(2), SyncState::Lagging);
    world.passes = Box::new(|_, _, _| true);
    world.run_until("repaired", |world| world.sync(2) == SyncState::InSync && world.table(2) == world.table(0));
    world.run(ms(300));
    world.assert_equal(0, 2);
    assert_eq!((lagging(&world), world.events(0, "Lagging")), ((false, false), 1));
    assert_eq!((world.counter(0, "lagging_released"), world.counter(0, "lagging_returned")), (1, 1));
}

/// [3.6.6] A proven follower that says from the beginning that it can take nothing: the master waits once, does not call its
/// digest valid meanwhile, and then no longer cares.
#[test]
fn a_follower_without_credit_is_waited_for_once() {
    let mut world = pair_in_sync();
    run_without_credit(&mut world, SyncCode::PROVEN, ms(150));
    let start = world.now;
    world.upsert(0, 1);
    run_without_credit(&mut world, SyncCode::PROVEN, ms(250));
    let valid = |world: &World| {
        let (_, _, bytes) =
            world.sent.iter().rfind(|(_, by, bytes)| *by == 0 && header(bytes).kind == Kind::ADVERT).unwrap();
        let Payload::Advert(advert) = Frame::parse(bytes).unwrap().verify().unwrap().payload() else { return false };
        advert.flags.contains(AdvertFlags::DIGEST_VALID)
    };
    assert_eq!((world.table(1).len(), valid(&world)), (0, false));
    run_without_credit(&mut world, SyncCode::PROVEN, ms(400));
    assert_eq!((world.table(1).len(), valid(&world), world.events(0, "Lagging")), (1, true, 1));
    assert_eq!(world.counter(0, "credit_waits"), 1);
    world.upsert(0, 2);
    run_without_credit(&mut world, SyncCode::PROVEN, ms(10));
    assert_eq!(world.table(1).len(), 2);
    run_without_credit(&mut world, SyncCode::PROVEN, ms(2000));
    assert_eq!(world.events(0, "Lagging"), 1, "it has no credit still, and is not heeded again");
    assert!(world.now.since(start) > ms(2600));
    world.passes = Box::new(|_, _, _| true);
    world.upsert(0, 3);
    world.run(ms(300));
    assert_eq!(world.counter(0, "lagging_returned"), 1);
}

/// [3.6.6] Who is not proven, and not being walked, is not waited for.
#[test]
fn an_unproven_follower_without_credit_stops_nobody() {
    let mut world = pair_in_sync();
    world.upsert(0, 1);
    run_without_credit(&mut world, SyncCode::SYNCING, ms(150));
    world.upsert(0, 2);
    run_without_credit(&mut world, SyncCode::SYNCING, ms(10));
    assert_eq!(world.table(1).len(), 2);
    assert_eq!((world.counter(0, "credit_waits"), world.events(0, "Lagging")), (0, 0));
}

/// [3.6.6] A follower that has left, or died, holds nobody up.
#[test]
fn a_follower_that_is_gone_is_not_waited_for() {
    let mut world = three_in_sync();
    world.node(2).engine.set_receive_room(1);
    world.run(ms(150));
    world.kill(2);
    (0..3000).for_each(|number| world.upsert(0, number));
    world.run(ms(20));
    assert!(world.engine(0).status().pending > 0);
    // Three intervals, and a skew of (256 − 90) / 256 of one.
    world.run(ms(400));
    assert_eq!((world.engine(0).status().pending, world.table(1).len()), (0, 3000));
    assert_eq!((world.events(0, "PeerDown"), world.events(0, "Lagging")), (1, 0));
}

/// [3.6.9] What a STATUS says counts only if its sender has heard of the master's present term.
#[test]
fn numbers_of_an_older_term_are_no_acknowledgement() {
    let mut world = pair_in_sync();
    world.passes = Box::new(|_, _, _| false);
    world.upsert(0, 1);
    world.run(ms(1));
    let newest = world.engine(0).status().stream_seq;
    let is_control = |(_, by, bytes): &&(Instant, usize, Vec<u8>)| *by == 1 && header(bytes).kind != Kind::DATA;
    let last = header(&world.sent.iter().rfind(is_control).unwrap().2);
    let is_status = |(_, by, bytes): &&(Instant, usize, Vec<u8>)| *by == 1 && header(bytes).kind == Kind::STATUS;
    let status = world.sent.iter().rfind(is_status).unwrap().2.clone();
    let told = |term, ahead| {
        let frame = Frame::parse(&status).unwrap().verify().unwrap();
        let Payload::Status(status) = frame.payload() else { unreachable!() };
        let header = Header { kind: Kind::STATUS, term, seq: last.seq + ahead, ..last };
        let mut slot = [0; 1480];
        let length = encode_status(&mut slot, header, &Status { frontier: newest, ..status }).unwrap();
        slot[..length].to_vec()
    };
    let (mut older, mut present) = (told(0, 20), told(1, 21));
    world.hand_in(0, &mut older);
    assert_eq!(world.engine(0).status().unacknowledged, Some(1));
    world.hand_in(0, &mut present);
    assert_eq!(world.engine(0).status().unacknowledged, Some(0));
}

/// [3.6.2] [3.6.4] Two backups miss the same frame, ten times: one of them asks, the other hears it and waits, and what is
/// sent again comes to both.
#[test]
fn two_followers_that_miss_the_same_frame_ask_once_and_get_it_once() {
    let mut world = three_in_sync();
    let suppressed = |world: &World| world.counter(1, "requests_suppressed") + world.counter(2, "requests_suppressed");
    let before = (requests(&world, 1) + requests(&world, 2), suppressed(&world), world.counter(0, "data_resent"));
    for number in 0..10 {
        world.passes = Box::new(|_, _, bytes| header(bytes).kind != Kind::DATA);
        world.upsert(0, number);
        world.run(ms(1));
        world.passes = Box::new(|_, _, _| true);
        world.upsert(0, 100 + number);
        world.run(ms(30));
        assert_eq!((world.table(1) == world.table(0), world.table(2) == world.table(0)), (true, true));
    }
    let asked = requests(&world, 1) + requests(&world, 2) - before.0;
    let spared = suppressed(&world) - before.1;
    // Two that ask within the 50 µs that a frame takes cannot have heard each other: that happens once here.
    assert_eq!((asked, world.counter(0, "data_resent") - before.2, world.counter(0, "resends_too_soon")), (11, 10, 1));
    assert!(spared >= 9, "{spared} requests waited");
}

/// [3.6.4] The round trip that is measured holds what the network takes, 2 × 50 µs, and the follower's `ack_delay`, 5 ms.
#[test]
fn the_round_trip_is_measured_from_a_frame_to_its_acknowledgement() {
    let mut world = pair_in_sync();
    for number in 0..100 {
        world.upsert(0, number);
        world.run(ms(20));
    }
    let spacing = world.engine(0).resend_spacing();
    assert!((Duration::from_micros(5050)..Duration::from_micros(5200)).contains(&spacing), "{spacing:?}");
}

/// [3.6.4] A frame that was just sent again is not sent once more, and that is counted.
#[test]
fn a_frame_is_not_sent_again_within_the_round_trip() {
    let mut world = pair_in_sync();
    (0..50).for_each(|number| {
        world.upsert(0, number);
        world.run(ms(20));
    });
    // The first two retransmissions are lost: asked for after 2 ms, then 4 ms and 8 ms later.
    let mut left = 3;
    world.passes = Box::new(move |_, _, bytes| {
        left -= i32::from(header(bytes).kind == Kind::DATA && left > 0);
        header(bytes).kind != Kind::DATA || left == 0
    });
    world.upsert(0, 100);
    world.run(ms(120));
    world.run(ms(120));
    world.assert_equal(0, 1);
    assert!(world.counter(0, "resends_too_soon") >= 1);
}

/// [8.0.1]
#[test]
fn a_lag_limit_and_first_numbers_that_make_no_sense_are_refused() {
    let problems = |config: Config| config.problems().iter().map(|problem| problem.key).collect::<Vec<_>>();
    assert_eq!(problems(Config { lag_limit: ms(9), ..config(1) }), ["lag_limit"]);
    assert_eq!(problems(Config { lag_limit: ms(60_001), ..config(1) }), ["lag_limit"]);
    assert_eq!(
        problems(Config { first_seq: 1 << 48, first_term: (1 << 62) + 1, ..config(1) }),
        ["first_seq", "first_term"]
    );
}

/// Frames of a full walk that leave while its follower gets none of them; and how many more when a live change comes.
fn frames_of_a_walk_that_nobody_gets(history: u32) -> (u64, u64) {
    let first = Config { priority: 150, history, ..config(1) };
    let mut world = World::new(vec![first, Config { history, ..config(2) }]);
    world.run(Duration::from_secs(1));
    world.dump_done(0);
    for number in 0..3000 {
        world.upsert(0, number);
        world.run(Duration::from_micros(100));
    }
    world.run_until("in sync", |world| world.sync(1) == SyncState::InSync && world.table(1) == world.table(0));
    world.run(ms(200));
    let sent = |world: &World| world.engine(0).status().stream_seq;
    let before = sent(&world);
    assert_eq!(world.engine(0).status().unacknowledged, Some(0));
    world.passes = Box::new(|_, _, bytes| header(bytes).kind != Kind::DATA);
    let now = world.now;
    assert_eq!(world.node(1).engine.resync(now, true), Ok(4096));
    world.run(ms(60));
    let walked = sent(&world) - before;
    world.upsert(0, 5000);
    world.run(ms(10));
    (walked, sent(&world) - before - walked)
}

/// [4.5.2] A walk takes up no bucket when it is ahead of its follower by 64 frames, or by half the history; the 128 records
/// that it had taken up by then fill three more, and a live change does not wait for the rest.
#[test]
fn a_walk_runs_no_further_ahead_than_its_window() {
    let walks = [512, 64].map(frames_of_a_walk_that_nobody_gets);
    assert_eq!(walks, [(67, 1), (35, 1)]);
}
