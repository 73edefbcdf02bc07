//! One master: not two for long, not none for long, and none that takes the role without having the table.

use super::super::sent::Beat;
use super::*;
use crate::wire::{AdvertFlags, Follows, WireRole};

const INTERVAL: Duration = Duration::from_millis(100);

fn beat(role: WireRole, follows: u32) -> Beat {
    Beat {
        role,
        priority: 90,
        flags: AdvertFlags::default(),
        interval_ms: 100,
        term: 1,
        stream_seq: 0,
        history_start: 1,
        follows: Follows { node: NodeId(follows), incarnation: 1, term: 1, ..Follows::default() },
    }
}

impl Stage {
    fn advert(&mut self, to: usize, from: u32, seq: u64, beat: Beat) {
        let incarnation = u64::from(from) + 99;
        let header = Header { node: NodeId(from), incarnation, seq, kind: Kind::ADVERT, ..Header::default() };
        let news = self.oracle.note_heard(self.now, to, &header, beat);
        self.oracle.note_told(self.now, to, &self.engines[to], (NodeId(from), incarnation), beat, news);
    }

    /// So many intervals in which the nodes hear each other's ADVERTs, and nothing else happens.
    fn hear_each_other(&mut self, intervals: u64, there: Beat, back: Beat) {
        for step in 0..intervals {
            self.now += INTERVAL;
            self.advert(0, 2, 1000 + step, there);
            self.advert(1, 1, 1000 + step, back);
        }
    }
}

/// 16 intervals and 300 ms are the limit.
#[test]
fn two_masters_that_hear_each_other_for_long_are_noticed() {
    for (intervals, idle, fires) in [(19, false, false), (21, false, true), (21, true, false)] {
        let mut stage = Stage::pair();
        stage.oracle.nodes[1].role = Some(Role::Master);
        stage.oracle.begin_duty(stage.now, 1);
        stage.oracle.idles(stage.now, 1, idle);
        let master = beat(WireRole::MASTER, 0);
        stage.hear_each_other(intervals, master, master);
        stage.oracle.judge_mastership(stage.now, 0);
        if fires { stage.fires("two-masters-stay") } else { stage.is_silent() }
    }
}

#[test]
fn two_masters_that_do_not_hear_each_other_are_met_with_silence() {
    let mut stage = Stage::pair();
    stage.oracle.nodes[1].role = Some(Role::Master);
    let master = beat(WireRole::MASTER, 0);
    stage.hear_each_other(21, master, master);
    // One of them falls silent for three intervals.
    for step in 0..3 {
        stage.now += INTERVAL;
        stage.advert(1, 1, 2000 + step, master);
    }
    stage.oracle.judge_mastership(stage.now, 0);
    stage.is_silent();
}

/// The limit is the same: 16 intervals and 300 ms since somebody told of a master.
#[test]
fn a_backup_that_is_told_of_no_master_for_long_is_noticed() {
    let judged = |intervals: u64, word: Beat, spoil: fn(&mut Stage)| {
        let mut stage = Stage::pair();
        stage.hear_each_other(intervals, beat(WireRole::BACKUP, 0), word);
        spoil(&mut stage);
        stage.oracle.judge_mastership(stage.now, 1);
        stage.oracle.violation().map(|it| it.rule)
    };
    let nobody = beat(WireRole::BACKUP, 0);
    assert_eq!(judged(21, nobody, |_| {}), Some("masterless"));
    assert_eq!(judged(18, nobody, |_| {}), None);
    assert_eq!(judged(21, beat(WireRole::MASTER, 0), |_| {}), None);
    assert_eq!(judged(21, beat(WireRole::PROMOTING, 0), |_| {}), None);
    assert_eq!(judged(21, beat(WireRole::BACKUP, 3), |_| {}), None, "a witness");
    assert_eq!(judged(21, beat(WireRole::BACKUP, 2), |_| {}), Some("masterless"), "of itself");
    let goodbye = Beat { priority: 0, ..beat(WireRole::MASTER, 0) };
    assert_eq!(judged(21, goodbye, |_| {}), Some("masterless"), "one that leaves is no master");
    assert_eq!(judged(21, nobody, |stage| stage.oracle.idles(stage.now, 1, true)), None);
    assert_eq!(judged(21, nobody, |stage| stage.oracle.idles(stage.now, 1, false)), None, "it was until now");
    assert_eq!(judged(21, nobody, |stage| stage.oracle.drains(stage.now, 1, true)), None);
}

/// The default deadlines of commit, merge and handover: 1, 10 and 2 s; a tenth more, and 300 ms.
#[test]
fn a_first_phase_without_end_is_noticed() {
    for (seconds, fires) in [(14, false), (15, true)] {
        let mut stage = Stage::pair();
        stage.oracle.nodes[1].role = Some(Role::Promoting);
        stage.oracle.begin_duty(stage.now, 1);
        stage.now += Duration::from_secs(seconds);
        stage.oracle.judge_mastership(stage.now, 1);
        if fires { stage.fires("commit-deadline") } else { stage.is_silent() }
    }
}

#[test]
fn the_role_is_taken_from_a_living_master_only_by_whoever_may_and_has_everything() {
    let judged = |priority: u8, preempt: bool, ahead: u64, spoil: fn(&mut Stage)| {
        let mut stage = Stage::pair();
        stage.oracle.nodes[1].config.as_mut().expect("runs").preempt = preempt;
        let stream = stage.oracle.nodes[1].following.expect("follows");
        let stream_seq = stage.oracle.nodes[1].frontier + ahead;
        let word = Beat { priority, term: stream.term, stream_seq, ..beat(WireRole::MASTER, 0) };
        stage.oracle.nodes[1].handed = Some((stream.node, stream.incarnation, word));
        spoil(&mut stage);
        stage.oracle.judge_succession(stage.now, 1, &stage.engines[1]);
        stage.oracle.judge_inheritance(stage.now, 1, &stage.engines[1]);
        stage.oracle.violation().map(|it| it.rule)
    };
    assert_eq!(judged(90, true, 0, |_| {}), None);
    assert_eq!(judged(90, false, 0, |_| {}), Some("succession"), "it may not preempt");
    assert_eq!(judged(100, true, 0, |_| {}), Some("succession"), "its priority is not higher");
    assert_eq!(judged(90, true, 1, |_| {}), Some("succession"), "it lacks a frame");
    assert_eq!(judged(100, false, 1, |stage| stage.oracle.wished(1)), None, "its owner wants it so");
    let unproven = |stage: &mut Stage| {
        let _ = stage.engines[1].resync(stage.now, true);
    };
    assert_eq!(judged(90, true, 0, unproven), Some("succession"));
    let other = |stage: &mut Stage| {
        let name = Name::of_flow(&flow(77, 1).key);
        let saying = stage.oracle.sent.streams.get_mut(&stage.oracle.nodes[1].following.expect("follows"));
        let mut print = stage.oracle.nodes[1].shadow.print();
        print.add(name, Value::of_flow(&flow(77, 1)));
        saying.expect("sent").push(print);
        stage.oracle.nodes[1].frontier += 1;
    };
    assert_eq!(judged(90, true, 0, other), Some("succession"), "its table is another");
}

/// What the master sends after it has named its heir and the last number the heir need not have.
#[test]
fn an_heir_needs_what_it_first_heard_of_and_no_higher_priority() {
    for (first, fires) in [(0, false), (1, true)] {
        let mut stage = Stage::pair();
        stage.oracle.handover_asked();
        let stream = stage.oracle.nodes[1].following.expect("follows");
        let heir = Follows { heir: NodeId(2), ..Follows::default() };
        for ahead in [first, first + 5] {
            let stream_seq = stage.oracle.nodes[1].frontier + ahead;
            let flags = AdvertFlags::HANDING_OVER;
            let word = Beat {
                priority: 200,
                term: stream.term,
                stream_seq,
                flags,
                follows: heir,
                ..beat(WireRole::MASTER, 0)
            };
            stage.oracle.note_told(stage.now, 1, &stage.engines[1], (stream.node, stream.incarnation), word, true);
            stage.oracle.nodes[1].handed = Some((stream.node, stream.incarnation, word));
        }
        stage.oracle.judge_succession(stage.now, 1, &stage.engines[1]);
        if fires { stage.fires("succession") } else { stage.is_silent() }
    }
}
