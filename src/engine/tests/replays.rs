//! What somebody without the secret can do with what it has recorded: nothing (docs/protocol.md 3.4.3, 3.4.6).

use super::seal::{sealed, sealed_pair};
use super::*;

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
    world.run(Duration::from_millis(300));
    world.assert_equal(0, 1);
    let data = recorded(&world, 0, 2);
    world.kill(0);
    let mut waited = Duration::ZERO;
    while world.role(1) != Role::Master {
        world.hand_in(1, &mut data.clone());
        world.run(Duration::from_millis(5));
        waited += Duration::from_millis(5);
        assert!(waited < Duration::from_millis(400), "three intervals and a skew, as without the recording");
    }
}

/// [3.4.3] A peer is forgotten and comes back: nothing of what it said before may be said again.
#[test]
fn what_was_recorded_before_a_peer_was_forgotten_is_not_taken_afterwards() {
    let mut world = sealed_pair();
    world.upsert(0, 1);
    world.run(Duration::from_millis(300));
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
    world.run(Duration::from_millis(10));
    world.hand_in(0, &mut foreign.clone());
    world.run(Duration::from_millis(10));
    assert_eq!(world.events(0, "VersionMismatch"), 1);
}
