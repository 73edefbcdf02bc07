//! What somebody without the secret can do with what it has recorded: nothing (docs/protocol.md 3.4.3, 3.4.6).

use super::seal::{sealed, sealed_pair, secret};
use super::*;
use crate::wire::{Advert, FrameFlags, Header, Kind, Sealer, WireRole, encode_advert};

/// The last frame of this kind that this node has sent.
fn recorded(world: &World, from: usize, kind: u8) -> Vec<u8> {
    let is_it = |sent: &&(Instant, usize, Vec<u8>)| sent.1 == from && sent.2[5] == kind;
    world.sent.iter().rev().find(is_it).expect("it has sent one").2.clone()
}

/// [5.0.1] DATA that was recorded must not keep a dead master alive.
#[test]
fn data_that_is_held_is_no_sign_of_life() {
    let mut world = sealed_pair();
    world.upsert(0, 1);
    world.run(ms(300));
    world.assert_equal(0, 1);
    let data = recorded(&world, 0, 2);
    world.kill(0);
    let mut waited = Duration::ZERO;
    while world.role(1) != Role::Master {
        world.hand_in(1, &mut data.clone());
        world.run(ms(5));
        waited += ms(5);
        assert!(waited < ms(400), "three intervals and a skew, as without the recording");
    }
}

/// [3.4.3] A peer is forgotten and comes back: nothing of what it said before may be said again.
#[test]
fn what_was_recorded_before_a_peer_was_forgotten_is_not_taken_afterwards() {
    let mut world = sealed_pair();
    world.upsert(0, 1);
    world.run(ms(300));
    let status = recorded(&world, 1, 3);
    let cut = std::rc::Rc::new(std::cell::Cell::new(true));
    let is_cut = cut.clone();
    world.passes = Box::new(move |_, _, _| !is_cut.get());
    world.run_until("forgotten", |world| world.events(0, "PeerDown") == 1);
    cut.set(false);
    world.run_until("known again", |world| world.events(0, "PeerUp") == 2);
    let (received, replayed) = (world.counter(0, "status_received"), world.counter(0, "drop_replayed"));
    world.hand_in(0, &mut status.clone());
    assert_eq!(world.counter(0, "status_received"), received);
    assert_eq!(world.counter(0, "drop_replayed"), replayed + 1);
}

/// [3.4.6] Nobody can be believed who speaks another version: it is counted, and that is all.
#[test]
fn a_stranger_of_another_version_is_reported_only_where_unsealed_frames_are_taken() {
    let foreign = [0, 51, 0, 12, 9, 1, 0, 0, 1, 2, 3, 4];
    let mut world = sealed_pair();
    world.hand_in(0, &mut foreign.clone());
    assert_eq!((world.counter(0, "drop_unknown_version"), world.events(0, "VersionMismatch")), (1, 0));
    let mut world = World::new(vec![config(1), sealed(config(2))]);
    world.run(ms(10));
    world.hand_in(0, &mut foreign.clone());
    world.run(ms(10));
    assert_eq!(world.events(0, "VersionMismatch"), 1);
}

/// What a former life of node 1 said as master of a term, by its control number.
fn as_master(incarnation: u64, seq: u64, term: u64) -> Vec<u8> {
    let mut slot = [0; 1480];
    let (kind, flags, node) = (Kind::ADVERT, FrameFlags(0), NodeId(1));
    let header = Header { sync_id: 51, kind, flags, node, incarnation, seq, term };
    let advert =
        Advert { role: WireRole::MASTER, priority: 150, interval_ms: 100, history_start: 1, ..Advert::default() };
    let length = encode_advert(&mut slot, header, &advert).unwrap();
    let length = Sealer::new(&[secret(1)], 51, node, incarnation).seal(1, &mut slot, length).unwrap();
    slot[..length].to_vec()
}

/// How long a node that starts alone takes to be master while it is told what so many former lives of a dead master have
/// said, each for 6 s.
fn first_takeover_against(lives: u64) -> Duration {
    let mut world = World::new(vec![sealed(config(2))]);
    let mut turn = 0;
    world.run_until_with("the node takes over", |world| {
        turn += 1;
        let (life, seq) = (turn / 6000, 1 + turn / 50);
        if life < lives && turn % 50 == 1 {
            world.hand_in(0, &mut as_master(700 + life, seq, 5));
        }
        world.role(0) == Role::Master
    })
}

/// [3.5.5] A node that has just started knows no term, so what any life of a master has said could be of now: it waits, but
/// once for all of them.
#[test]
fn recordings_of_many_lives_hold_up_a_first_takeover_no_longer_than_those_of_one() {
    let within = |took: Duration, from: u64, to: u64| {
        assert!((ms(from)..ms(to)).contains(&took), "{took:?}");
    };
    within(first_takeover_against(0), 360, 364);
    within(first_takeover_against(1), 6_300, 6_400);
    within(first_takeover_against(4), 10_360, 10_390);
}

/// [3.5.5] That a living master was heard since ends the wait: another one begins anew.
#[test]
fn a_wait_that_a_living_master_has_ended_counts_no_more() {
    let mut world = sealed_pair();
    let mut turn = 0;
    let mut told = |world: &mut World| {
        turn += 1;
        world.hand_in(1, &mut as_master(700 + turn / 6000, 1 + turn, 9));
    };
    let cut = std::rc::Rc::new(std::cell::Cell::new(true));
    let is_cut = cut.clone();
    world.passes = Box::new(move |_, _, _| !is_cut.get());
    for _ in 0..5000 {
        told(&mut world);
        world.run(ms(1));
    }
    assert_eq!(world.role(1), Role::Backup, "5 s of waiting");
    cut.set(false);
    world.run_until_with("the master is heard", |world| world.events(1, "PeerUp") == 2);
    world.run(ms(300));
    world.kill(0);
    let took = world.run_until_with("the backup takes over", |world| {
        told(world);
        world.role(1) == Role::Master
    });
    assert!((Duration::from_secs(8)..ms(10_400)).contains(&took), "{took:?}");
}
