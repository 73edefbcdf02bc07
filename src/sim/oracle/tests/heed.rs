//! Whom a master waits for: by the newest word of each follower, in its present term.

use super::*;
use crate::wire::{Status, SyncCode, Target};

impl Stage {
    /// The number of node 0's newest DATA frame.
    fn newest(&self) -> u64 {
        self.sent.iter().rev().find_map(|(_, bytes)| data(bytes)).expect("sent").seq
    }

    /// Node 1 says to node 0 that it holds everything and can take no more; it is proven, or is not.
    fn hear_status(&mut self, seq: u64, state: SyncCode) {
        let newest = self.newest();
        let target = Target { node: NodeId(1), incarnation: 100 };
        let status = Status { target, frontier: newest, base: 0, credit: 0, state, missing: &[] };
        let term = self.engines[0].status().term;
        let header = Header { node: NodeId(2), incarnation: 101, kind: Kind::STATUS, seq, term, ..Header::default() };
        self.oracle.note_status(self.now, 0, &header, &status);
    }

    /// Node 0 sends one more frame, whatever anybody can take.
    fn send_beyond(&mut self) {
        let next = self.newest() + 1;
        self.oracle.judge_credit(self.now, 0, &self.engines[0], next);
    }
}

#[test]
fn data_beyond_the_edge_of_who_is_proven_is_noticed() {
    for (state, fires) in [(SyncCode::PROVEN, true), (SyncCode::SYNCING, false), (SyncCode::LAGGING, false)] {
        let mut stage = Stage::pair();
        stage.hear_status(9001, state);
        stage.send_beyond();
        if fires { stage.fires("credit") } else { stage.is_silent() }
    }
}

#[test]
fn of_what_a_follower_says_of_its_proof_the_newest_word_counts() {
    let mut stage = Stage::pair();
    stage.hear_status(9002, SyncCode::SYNCING);
    stage.hear_status(9001, SyncCode::PROVEN);
    stage.send_beyond();
    stage.is_silent();
    stage.hear_status(9003, SyncCode::PROVEN);
    stage.hear_status(9002, SyncCode::SYNCING);
    stage.send_beyond();
    stage.fires("credit");
}

#[test]
fn what_was_said_under_an_older_term_holds_nobody_back() {
    let mut stage = Stage::pair();
    stage.hear_status(9001, SyncCode::PROVEN);
    let saying = stage.oracle.nodes[0].saying.as_mut().expect("master");
    let stream = saying.stream.as_mut().expect("sends");
    stream.term += 1;
    stage.send_beyond();
    stage.is_silent();
}
