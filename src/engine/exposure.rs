//! What a death of this master would cost now (the recovery point, RPO): what waits to be sent, and what was sent and is not
//! known to be held by a proven follower.
//!
//! ```text
//!   frames   … 41      42      43      44      45 │ waiting
//!   records  … 900    912     950    1000    1040 │ 25           running total, kept with each stored frame
//!              node 3 ┘               └ node 2
//!   not every proven follower holds 128 records and those that wait; none holds 40 and those that wait: those are at risk
//! ```
//!
//! A repair sends entries again that others hold. Its records wait in the same queue and cannot be told apart, so they count
//! beside submissions, and not where there are none.

use super::Engine;
use super::event::Role;
use super::outbox::Mark;
use super::spans::Spans;
use crate::time::Instant;

/// What would be lost if the master died now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AtRisk {
    /// Records that no proven follower is known to hold; while none is proven, as many as the table has entries, at least.
    pub records: u64,
    /// When the oldest of them was submitted; while no follower is proven, when one was last. `None` if there are none.
    pub since: Option<Instant>,
}

/// What is remembered of a stored frame.
#[derive(Clone, Copy, Debug)]
struct Note {
    /// Records in all frames before it.
    before: u64,
    /// When the oldest of its submissions came, or one that is older.
    since: Instant,
}

/// What of the submissions has left, and when they came.
#[derive(Debug)]
pub(super) struct Exposure {
    waiting: Spans,
    notes: Box<[Note]>,
    /// Records in all frames so far.
    records: u64,
    /// The same when the mastership began.
    begun: u64,
    /// The newest frame.
    seq: u64,
    /// The stream number before this mastership's first frame.
    origin: u64,
    /// When a follower was last known to be proven, or the mastership began.
    covered_at: Instant,
}

impl Exposure {
    pub(super) fn new(history: u32) -> Self {
        let note = Note { before: 0, since: Instant::ZERO };
        Exposure {
            waiting: Spans::new(),
            notes: vec![note; history as usize].into_boxed_slice(),
            records: 0,
            begun: 0,
            seq: 0,
            origin: 0,
            covered_at: Instant::ZERO,
        }
    }

    /// A mastership begins behind frame `seq`.
    pub(super) fn begin(&mut self, now: Instant, seq: u64) {
        self.waiting.clear();
        (self.begun, self.seq, self.origin, self.covered_at) = (self.records, seq, seq, now);
    }

    /// Something was submitted; `end` marks everything that waits now.
    pub(super) fn submitted(&mut self, now: Instant, end: Mark) {
        self.waiting.note(now, end);
    }

    /// A frame of so many records has left.
    pub(super) fn frame_left(&mut self, now: Instant, seq: u64, records: u64, has_left: impl Fn(&Mark) -> bool) {
        let since = self.waiting.first().map_or(now, |span| span.first);
        let at = (seq % self.notes.len() as u64) as usize;
        self.notes[at] = Note { before: self.records, since };
        self.records += if self.waiting.is_empty() { 0 } else { records };
        self.seq = seq;
        self.settle(has_left);
    }

    /// What was cancelled may have been the last that waited.
    pub(super) fn settle(&mut self, has_left: impl Fn(&Mark) -> bool) {
        if !self.waiting.is_empty() {
            self.waiting.seal(self.seq, has_left);
            while self.waiting.take_left(u64::MAX).is_some() {}
        }
    }

    /// A follower is known to be proven.
    pub(super) fn covered(&mut self, now: Instant) {
        self.covered_at = now;
    }

    /// When the oldest was submitted that waits to be sent.
    fn unsent_since(&self) -> Option<Instant> {
        self.waiting.first().map(|span| span.first)
    }

    /// Records above a frame.
    pub(super) fn records_above(&self, frontier: u64) -> u64 {
        self.above(frontier).0
    }

    /// Records above a frame, and when the oldest of them was submitted. All of the mastership if its number is no longer
    /// stored.
    fn above(&self, frontier: u64) -> (u64, Option<Instant>) {
        if frontier >= self.seq {
            return (0, None);
        }
        let oldest = (self.seq + 1).saturating_sub(self.notes.len() as u64).max(self.origin + 1);
        let next = self.notes[(oldest.max(frontier + 1) % self.notes.len() as u64) as usize];
        let before = if frontier + 1 < oldest { self.begun } else { next.before };
        let records = self.records - before;
        (records, (records > 0).then_some(next.since))
    }
}

/// The figures of [`super::EngineStatus`] about what the others do not hold.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Figures {
    pub(super) unsent: u64,
    pub(super) unsent_since: Option<Instant>,
    pub(super) unacknowledged: Option<u64>,
    pub(super) unacknowledged_records: Option<u64>,
    pub(super) unacknowledged_since: Option<Instant>,
    pub(super) at_risk: Option<AtRisk>,
}

impl Engine {
    /// What the others do not hold, as of now; nothing of it on who is no master.
    pub(super) fn figures(&self) -> Figures {
        if self.role() != Role::Master {
            return Figures::default();
        }
        let unsent_since = self.exposure.unsent_since();
        let unsent = match unsent_since {
            Some(_) => u64::from(self.table.pending()) + u64::from(self.table.pending_sections()),
            None => 0,
        };
        let figures = Figures { unsent, unsent_since, ..Figures::default() };
        let acknowledged = self.acknowledged();
        let (Some(slowest), Some(best)) = (acknowledged.slowest(), acknowledged.by(1)) else {
            let records = u64::from(self.table.len()).max(unsent);
            let since = (records > 0).then_some(self.exposure.covered_at);
            return Figures { at_risk: Some(AtRisk { records, since }), ..figures };
        };
        let earlier = |since: Option<Instant>| [since, unsent_since].into_iter().flatten().min();
        let ((lacking, lacking_since), (lost, lost_since)) = (self.exposure.above(slowest), self.exposure.above(best));
        Figures {
            unacknowledged: Some(self.outbox.seq() - slowest),
            unacknowledged_records: Some(lacking + unsent),
            unacknowledged_since: earlier(lacking_since),
            at_risk: Some(AtRisk { records: lost + unsent, since: earlier(lost_since) }),
            ..figures
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::outbox::Outbox;
    use super::*;
    use crate::table::Table;
    use crate::time::Duration;

    fn at(second: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(second)
    }

    /// Of frames 1 to 6, of ten records each, a history of four has 3 to 6. What is above 2 can still be told, what is above 1
    /// not: that counts as all of it, and as if it had come when the oldest that is known did.
    #[test]
    fn what_is_above_a_frame_is_told_as_far_as_frames_are_stored() {
        let mut exposure = Exposure::new(4);
        let mark = Outbox::new(4, 1208, 0).mark(&Table::new(8, 8, 0));
        exposure.begin(at(0), 0);
        for seq in 1..=6 {
            exposure.submitted(at(seq), mark);
            exposure.frame_left(at(seq), seq, 10, |_| true);
        }
        let above: Vec<_> = (0..=6).map(|frontier| exposure.above(frontier)).collect();
        let known = |records, second| (records, Some(at(second)));
        let all = known(60, 3);
        assert_eq!(above, [all, all, known(40, 3), known(30, 4), known(20, 5), known(10, 6), (0, None)]);
    }
}
