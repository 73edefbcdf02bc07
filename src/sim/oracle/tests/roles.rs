//! Roles: who steps down, who takes over, who follows whom, and under which name a master speaks that has stalled.

use super::super::roles::Rank;
use super::super::sent::Beat;
use super::*;
use crate::wire::{AdvertFlags, Follows, WireRole};

fn beat(role: WireRole, term: u64, follows: u32) -> Beat {
    Beat {
        role,
        priority: 100,
        flags: AdvertFlags::default(),
        interval_ms: 100,
        term,
        stream_seq: 0,
        history_start: 1,
        follows: Follows { node: NodeId(follows), incarnation: 1, term, ..Follows::default() },
    }
}

fn header(node: u32, incarnation: u64, seq: u64) -> Header {
    Header { node: NodeId(node), incarnation, seq, kind: Kind::ADVERT, ..Header::default() }
}

#[test]
fn of_two_masters_the_lower_one_steps_down() {
    let place = |term| Rank::new((true, term, 100, NodeId(1)), vec![(NodeId(2), 101)]);
    let judged_after = |stood: bool, own: u64, theirs: Beat, stays: bool| {
        let mut stage = Stage::pair();
        stage.oracle.nodes[0].stood_until = stood.then_some(stage.now);
        stage.oracle.nodes[0].rank = Some(place(own));
        let engine = &stage.engines[usize::from(!stays)];
        stage.oracle.judge_beat_taken(stage.now, 0, engine, &header(2, 101, 9000), theirs);
        stage.oracle.violation().map(|it| it.rule)
    };
    let judged = |own, theirs, stays| judged_after(false, own, theirs, stays);
    let term = Stage::pair().engines[0].status().term;
    assert_eq!(judged(term, beat(WireRole::MASTER, term - 1, 0), true), None);
    assert_eq!(judged(term, beat(WireRole::MASTER, term - 1, 0), false), Some("two-masters"));
    // By its own clock it may have stalled, and steps down for that.
    assert_eq!(judged_after(true, term, beat(WireRole::MASTER, term - 1, 0), false), None);
    assert_eq!(judged(term, beat(WireRole::MASTER, term + 1, 0), false), None);
    assert_eq!(judged(term, beat(WireRole::MASTER, term + 1, 0), true), Some("two-masters"));
    // Of one term, and the other one is below by its priority: this one stays, and must take another term.
    let below = Beat { priority: 50, ..beat(WireRole::MASTER, term, 0) };
    assert_eq!(judged(term, below, true), Some("two-masters"));
    // A cold master is below every warm one.
    let cold = Beat { flags: AdvertFlags::COLD, ..beat(WireRole::MASTER, term + 1, 0) };
    assert_eq!(judged(term, cold, false), Some("two-masters"));
    // A witness of a living master of a higher term.
    assert_eq!(judged(term, beat(WireRole::BACKUP, term + 1, 3), true), Some("two-masters"));
    assert_eq!(judged(term, beat(WireRole::BACKUP, term + 1, 3), false), None);
}

#[test]
fn a_takeover_beside_a_witness_of_the_living_master_is_noticed() {
    let judged = |follows: u32, heard_for: u64| {
        let mut stage = Stage::new(3);
        for step in 0..=heard_for / 100 {
            let now = Instant::from_nanos(step * 100_000_000);
            let (there, back) = (beat(WireRole::BACKUP, 3, follows), beat(WireRole::BACKUP, 3, 0));
            assert!(stage.oracle.note_heard(now, 0, &header(2, 101, step + 1), there));
            assert!(stage.oracle.note_heard(now, 1, &header(1, 100, step + 1), back));
        }
        let now = Instant::from_nanos(heard_for * 1_000_000 + 1);
        stage.oracle.judge_takeover(now, 0, &stage.engines[0]);
        stage.oracle.violation().map(|it| it.rule)
    };
    assert_eq!(judged(3, 2000), Some("takeover"));
    assert_eq!(judged(3, 500), None, "not for long enough to be established for sure");
    assert_eq!(judged(0, 2000), None, "it follows nobody");
    assert_eq!(judged(1, 2000), None, "it follows the one that takes over");
}

#[test]
fn a_warm_node_that_follows_a_cold_master_is_noticed() {
    for (warm, flags, fires) in
        [(true, AdvertFlags::COLD, true), (false, AdvertFlags::COLD, false), (true, AdvertFlags::default(), false)]
    {
        let mut stage = Stage::new(2);
        stage.oracle.nodes[1].warm = warm;
        stage.oracle.nodes[1].handed = Some((NodeId(1), 100, Beat { flags, ..beat(WireRole::MASTER, 3, 0) }));
        stage.oracle.judge_followed(stage.now, 1, (NodeId(1), 100, 3).into());
        if fires { stage.fires("cold-master") } else { stage.is_silent() }
    }
}

#[test]
fn a_master_that_stalled_speaks_under_another_incarnation() {
    let mut stage = Stage::pair();
    let before = stage.sent.iter().rev().find(|(node, _)| *node == 0).expect("sent").1.clone();
    stage.now += Duration::from_secs(3);
    let now = stage.now;
    stage.engines[0].handle_timeout(now);
    stage.oracle.turned(now, 0, &stage.engines[0]);
    stage.transmit(0);
    stage.is_silent();
    stage.oracle.sent(now, 0, &stage.engines[0], &before);
    stage.fires("stall");
}

#[test]
fn a_stream_that_nobody_sends_is_not_followed() {
    let mut stage = Stage::pair();
    let stream = *stage.oracle.sent.streams.keys().next().expect("one");
    stage.oracle.sent.streams.clear();
    stage.oracle.nodes[1].following = None;
    stage.oracle.turned(stage.now, 1, &stage.engines[1]);
    stage.fires("not-followed");
    assert_eq!(stream.node, NodeId(1));
}
