//! Who is believed, and what is sealed.

use super::*;
use crate::engine::Auth;
use crate::sim::seal::Reader;
use crate::wire::{SECRET_LEN, Sealer, Secret};

fn secrets() -> Vec<Secret> {
    Secret::new(1, &[7; SECRET_LEN]).into_iter().collect()
}

/// A pair of which it is said that it takes nothing unsealed, which is a lie.
fn pair_said_to_be_sealed() -> Stage {
    let mut stage = Stage::pair();
    stage.oracle.read_with(Reader::new(51, secrets()));
    (0..2).for_each(|node| stage.oracle.reloaded(node, &secrets(), Auth::Enforce));
    stage
}

/// The last ADVERT of node 0.
fn advert(stage: &Stage) -> Vec<u8> {
    let is_advert = |bytes: &&(usize, Vec<u8>)| bytes.0 == 0 && bytes.1[5] == Kind::ADVERT.0;
    stage.sent.iter().rev().find(is_advert).expect("it has sent some").1.clone()
}

/// The same ADVERT with another byte in its name, sealed.
fn sealed(advert: &[u8], other: u8) -> Vec<u8> {
    let mut slot = [0; 1208];
    slot[..advert.len()].copy_from_slice(advert);
    *slot[..advert.len()].last_mut().expect("long") ^= other;
    let header = Frame::parse(advert).expect("valid").header();
    let mut sealer = Sealer::new(&secrets(), 51, header.node, header.incarnation);
    let length = sealer.seal(1, &mut slot, advert.len()).expect("room");
    slot[..length].to_vec()
}

#[test]
fn a_number_that_is_sealed_twice_is_noticed() {
    let mut stage = pair_said_to_be_sealed();
    let (one, other) = (sealed(&advert(&stage), 0), sealed(&advert(&stage), 1));
    let mut sent = |bytes: &[u8]| stage.oracle.judge_seal(stage.now, 0, bytes).len();
    assert_eq!((sent(&one), sent(&one)), (one.len() - 16, one.len() - 16), "the same again is the same");
    sent(&other);
    stage.fires("nonce");
}

#[test]
fn a_frame_that_leaves_in_the_clear_is_noticed() {
    let mut stage = pair_said_to_be_sealed();
    let bytes = advert(&stage);
    stage.oracle.judge_seal(stage.now, 0, &bytes);
    stage.fires("sealed");
}

/// Nothing is handed to the engine, so that it counts nothing as refused.
fn believes(stage: &mut Stage, bytes: &[u8]) {
    stage.oracle.before_frame(stage.now, 1, &stage.engines[1], bytes);
    stage.oracle.after_frame(stage.now, 1, &stage.engines[1]);
}

#[test]
fn belief_in_what_nobody_has_sealed_is_noticed() {
    let mut stage = pair_said_to_be_sealed();
    let bytes = advert(&stage);
    believes(&mut stage, &bytes);
    stage.fires("authentic");
}

#[test]
fn what_was_sealed_may_be_believed_and_once() {
    let mut stage = pair_said_to_be_sealed();
    let bytes = sealed(&advert(&stage), 0);
    stage.oracle.judge_seal(stage.now, 0, &bytes);
    stage.oracle.forget_believed(1);
    believes(&mut stage, &bytes);
    stage.is_silent();
    believes(&mut stage, &bytes);
    stage.fires("taken-once");
}

#[test]
fn an_incarnation_of_itself_that_there_never_was_is_noticed() {
    let mut stage = pair_said_to_be_sealed();
    let incarnation = stage.oracle.nodes[1].incarnation;
    stage.oracle.judge_strangers(stage.now, 1, &Event::DuplicateNode { incarnation });
    stage.is_silent();
    stage.oracle.judge_strangers(stage.now, 1, &Event::DuplicateNode { incarnation: 0x99 });
    stage.fires("stranger");
}

#[test]
fn what_the_attacker_sends_is_counted_by_what_became_of_it() {
    let mut stage = Stage::pair();
    stage.oracle.next_is_hostile();
    stage.hand_in(1, &[0; 3]);
    let bytes = advert(&stage);
    stage.oracle.next_is_hostile();
    stage.hand_in(1, &bytes);
    stage.hand_in(1, &bytes);
    let attacks = stage.oracle.attacks();
    assert_eq!((attacks.frames, attacks.not_refused), (2, 0));
    assert_eq!(attacks.refused.clone().into_iter().collect::<Vec<_>>(), [("replayed", 1), ("truncated", 1)]);
}
