//! When what was submitted, in little memory: submissions that came close together share a span, and the more time there
//! is to cover, the longer the spans become.
//!
//! ```text
//!   time    ──▶  0 ms      1 ms           40 ms
//!   spans       [ 3 ]     [ 12 ]         [ 1 ]      submissions in each
//!   queue        … c        … o            p        end: a mark behind the span's last record
//!   stream        41         41            -        seq: its last frame, once everything of it has left
//! ```
//!
//! A full row is halved: neighbours merge, and spans are twice as long from then on. So a note costs O(1) on average, and an
//! age that is read here is wrong by at most a thirty-second of the time covered, or a millisecond.

use super::outbox::Mark;
use crate::time::{Duration, Instant};
use std::collections::VecDeque;

/// Most spans of a row.
pub(super) const SPANS_MAX: usize = 64;

/// Shortest span: what comes within it is not told apart.
const GRAIN_MIN: Duration = Duration::from_millis(1);

/// Submissions that came close together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    /// When the first of them came.
    pub(super) first: Instant,
    /// When the last of them came.
    pub(super) last: Instant,
    /// Behind the last of them in the queue.
    end: Mark,
    /// The frame up to which all of them are sent; `None` while one waits.
    pub(super) seq: Option<u64>,
    /// How many.
    pub(super) submissions: u64,
}

impl Span {
    /// This one and the one that came next, as one.
    fn with(self, next: Span) -> Span {
        Span { first: self.first, submissions: self.submissions + next.submissions, ..next }
    }
}

/// A row of spans, the oldest first.
#[derive(Debug)]
pub(super) struct Spans {
    row: VecDeque<Span>,
    /// Spans at the front that have left the queue.
    left: usize,
    grain: Duration,
}

impl Spans {
    pub(super) fn new() -> Self {
        Spans { row: VecDeque::with_capacity(SPANS_MAX), left: 0, grain: GRAIN_MIN }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.row.is_empty()
    }

    /// The oldest.
    pub(super) fn first(&self) -> Option<&Span> {
        self.row.front()
    }

    /// Notes a submission; `end` marks everything that waits now.
    pub(super) fn note(&mut self, now: Instant, end: Mark) {
        let next = Span { first: now, last: now, end, seq: None, submissions: 1 };
        if self.row.is_empty() {
            self.grain = GRAIN_MIN;
        }
        match self.row.back_mut() {
            // What has left waits again, with what has joined it.
            Some(span) if now.since(span.first) < self.grain => {
                *span = span.with(next);
                self.left = self.left.min(self.row.len() - 1);
            }
            _ => {
                self.make_room();
                self.row.push_back(next);
            }
        }
    }

    /// Notes that spans have left the queue, in frames up to `seq`.
    pub(super) fn seal(&mut self, seq: u64, has_left: impl Fn(&Mark) -> bool) {
        while let Some(span) = self.row.get_mut(self.left).filter(|span| has_left(&span.end)) {
            span.seq = Some(seq);
            self.left += 1;
        }
    }

    /// Takes out the oldest, if all of it has left in frames up to `seq`.
    pub(super) fn take_left(&mut self, seq: u64) -> Option<Span> {
        self.take_if(|span| span.seq.is_some_and(|last| last <= seq))
    }

    /// Takes out the oldest, if the last of it came at `latest` or before.
    pub(super) fn take_late(&mut self, latest: Instant) -> Option<Span> {
        self.take_if(|span| span.last <= latest)
    }

    /// Takes out everything: how many submissions.
    pub(super) fn clear(&mut self) -> u64 {
        self.left = 0;
        self.row.drain(..).map(|span| span.submissions).sum()
    }

    fn take_if(&mut self, wanted: impl Fn(&Span) -> bool) -> Option<Span> {
        let span = *self.row.front().filter(|span| wanted(span))?;
        self.row.pop_front();
        self.left = self.left.saturating_sub(1);
        Some(span)
    }

    fn make_room(&mut self) {
        if self.row.len() < SPANS_MAX / 4 {
            self.grain = (self.grain / 2).max(GRAIN_MIN);
        }
        if self.row.len() < SPANS_MAX {
            return;
        }
        for at in 0..SPANS_MAX / 2 {
            self.row[at] = self.row[2 * at].with(self.row[2 * at + 1]);
        }
        self.row.truncate(SPANS_MAX / 2);
        self.left /= 2;
        self.grain *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The age of what is at risk counts from the first of those that became one.
    #[test]
    fn what_comes_within_a_grain_joins_the_one_before_and_keeps_its_beginning() {
        let at = |micros: u64| Instant::from_nanos(micros * 1000);
        let mut spans = Spans::new();
        [10_000, 10_400, 10_900, 11_000].into_iter().for_each(|micros| spans.note(at(micros), Mark::default()));
        let first = *spans.first().unwrap();
        assert_eq!((first.first, first.last, first.submissions), (at(10_000), at(10_900), 3));
        assert_eq!(spans.clear(), 4);
    }
}
