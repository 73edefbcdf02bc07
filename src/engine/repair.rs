//! Is our table the master's table? What is not proven is asked for, bucket by bucket, until it is.
//!
//! ```text
//!   follow ──▶ all dirty ──(totals equal)──────────────────────────────▶ proven
//!                 │ PULL                                                  ▲  │ hole, refused record,
//!                 ▼                                                       │  ▼ totals differ
//!              walked bucket by bucket ──▶ none dirty ──(totals equal)────┘ all dirty again
//! ```
//!
//! A cold join, a hole in the history, a warm restart and a silent bit-flip are this one path. (Comparing bucket digests, so
//! that only the buckets that differ are walked, comes with the DIGESTS frames.)

use super::outbox::BucketSet;
use crate::time::{Duration, Instant};
use crate::wire::{BucketRange, RANGES_MAX};

/// Longest time between two attempts at a table that still differs after a whole walk.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// What is known about the equality of two tables.
#[derive(Debug)]
pub(super) struct Repair {
    dirty: BucketSet,
    proven: bool,
    /// Times that it became proven.
    proofs: u64,
    proven_at: Option<Instant>,
    started_at: Instant,
    pull_at: Option<Instant>,
    asked: bool,
    /// Somebody wants every bucket walked, whatever the totals say.
    walk_all: bool,
    walk_patience: Duration,
    first_retry: Duration,
    retry: Duration,
}

impl Repair {
    pub(super) fn new() -> Self {
        Repair {
            dirty: BucketSet::empty(),
            proven: false,
            proofs: 0,
            proven_at: None,
            started_at: Instant::ZERO,
            pull_at: None,
            asked: false,
            walk_all: false,
            walk_patience: Duration::from_millis(200),
            first_retry: Duration::from_millis(100),
            retry: Duration::from_millis(100),
        }
    }

    pub(super) fn is_proven(&self) -> bool {
        self.proven
    }

    /// The proof that stands, by its number: another one after each time that it was lost.
    pub(super) fn proof(&self) -> Option<u64> {
        self.proven.then_some(self.proofs)
    }

    pub(super) fn proven_at(&self) -> Option<Instant> {
        self.proven_at
    }

    pub(super) fn dirty(&self) -> u32 {
        self.dirty.len()
    }

    pub(super) fn pull_at(&self) -> Option<Instant> {
        self.pull_at
    }

    /// A stream is followed from now on. The totals may already be equal, so the first ADVERTs may speak before anything is
    /// asked for.
    pub(super) fn follow(&mut self, now: Instant, interval: Duration) {
        self.walk_patience = (interval * 2).max(Duration::from_millis(200));
        (self.first_retry, self.retry) = (interval, interval);
        self.start(now);
        self.pull_at = Some(now + interval * 2);
    }

    /// Nobody is followed: nothing can be asked for.
    pub(super) fn unfollow(&mut self) {
        self.pull_at = None;
        self.proven = false;
        self.walk_all = false;
    }

    /// Something was missed or refused: nothing is proven any more. Whether it was.
    pub(super) fn doubt(&mut self, now: Instant) -> bool {
        let was = self.proven;
        self.start(now);
        self.pull_at = Some(now);
        was
    }

    /// Nothing is believed any more because somebody asks for it. The master's next totals may prove it again; with `full`
    /// every bucket is walked first, whatever they say.
    pub(super) fn ask_anew(&mut self, now: Instant, interval: Duration, full: bool) {
        self.start(now);
        self.walk_all = full;
        self.pull_at = Some(if full { now } else { now + interval * 2 });
    }

    /// The totals were compared at a point where both tables must be equal, and they were: whether that is news, and how
    /// long it took.
    pub(super) fn matched(&mut self, now: Instant) -> Option<Duration> {
        if self.walk_all {
            return None;
        }
        let news = (!self.proven).then(|| now.since(self.started_at));
        self.proofs += u64::from(!self.proven);
        self.proven = true;
        self.proven_at = Some(now);
        self.retry = self.first_retry;
        self.dirty.clear();
        self.pull_at = None;
        news
    }

    /// The totals were compared, and they differ; `fits` says whether the master's table would fit into ours. Whether
    /// something proven was lost by it.
    pub(super) fn differed(&mut self, now: Instant, fits: bool) -> bool {
        if self.proven {
            return self.doubt(now);
        }
        if self.dirty.len() == 0 && !fits {
            // No walk can help before there is room, and then the first comparison asks for one.
        } else if self.dirty.len() == 0 {
            // A whole walk did not help: try again, ever more rarely.
            self.dirty.fill();
            self.pull_at = Some(now + self.retry);
            self.retry = (self.retry * 2).min(RETRY_MAX);
            self.asked = true;
        } else if !self.asked {
            self.pull_at = Some(now);
        }
        false
    }

    /// There is room for what was refused: the next attempt need not wait.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.retry = self.first_retry;
        self.pull_at = self.pull_at.map(|at| at.min(now));
    }

    /// The bucket was walked, and what the walk did not name is gone.
    pub(super) fn bucket_walked(&mut self, now: Instant, bucket: u16) {
        self.dirty.remove(bucket);
        self.walk_all &= self.dirty.len() > 0;
        self.pull_at = (self.dirty.len() > 0).then(|| now + self.walk_patience);
    }

    /// A PULL leaves now: fills `ranges` with what is asked for and says how many there are.
    pub(super) fn pull_leaves(&mut self, now: Instant, ranges: &mut [BucketRange; RANGES_MAX]) -> usize {
        self.asked = true;
        self.pull_at = Some(now + self.walk_patience);
        let mut count = 0;
        let mut from = 0;
        while let Some(first) = self.dirty.next(from).filter(|_| count < RANGES_MAX) {
            let mut end = first;
            while self.dirty.contains(end) {
                end += 1;
            }
            ranges[count] = BucketRange::new(first, end - first);
            count += 1;
            from = end;
        }
        count
    }

    fn start(&mut self, now: Instant) {
        self.dirty.fill();
        self.proven = false;
        self.started_at = now;
        self.asked = false;
        self.walk_all = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Instant {
        Instant::from_nanos(milliseconds * 1_000_000)
    }

    fn pulled(repair: &mut Repair, now: Instant) -> Vec<(u16, u16)> {
        let mut ranges = [BucketRange::new(0, 1); RANGES_MAX];
        let count = repair.pull_leaves(now, &mut ranges);
        ranges[..count].iter().map(|range| (range.first(), range.count())).collect()
    }

    fn followed() -> Repair {
        let mut repair = Repair::new();
        repair.follow(at(0), Duration::from_millis(100));
        repair
    }

    /// [4.4.5] Equal totals prove everything at once: nothing is pulled.
    #[test]
    fn equal_totals_spare_the_walk() {
        let mut repair = followed();
        assert_eq!(repair.pull_at(), Some(at(200)));
        assert_eq!(repair.matched(at(30)), Some(Duration::from_millis(30)));
        assert_eq!((repair.is_proven(), repair.dirty(), repair.pull_at()), (true, 0, None));
        assert_eq!(repair.matched(at(40)), None);
        assert_eq!(repair.proven_at(), Some(at(40)));
    }

    /// [4.5.1] What is not proven is pulled, and pulled again when nothing comes.
    #[test]
    fn unequal_totals_pull_at_once_and_again_after_silence() {
        let mut repair = followed();
        assert!(!repair.differed(at(1), true));
        assert_eq!(repair.pull_at(), Some(at(1)));
        assert_eq!(pulled(&mut repair, at(1)), vec![(0, 4096)]);
        assert!(!repair.differed(at(5), true));
        assert_eq!(repair.pull_at(), Some(at(201)));
        for bucket in (0..4096).filter(|bucket| ![7, 8, 4095].contains(bucket)) {
            repair.bucket_walked(at(10), bucket);
        }
        assert_eq!(repair.pull_at(), Some(at(210)));
        assert_eq!(pulled(&mut repair, at(210)), vec![(7, 2), (4095, 1)]);
    }

    /// [4.5.5] A table that still differs after a whole walk is walked again with back-off up to 60 s.
    #[test]
    fn a_walk_that_did_not_help_is_repeated_ever_more_rarely() {
        let mut repair = followed();
        let mut waits = Vec::new();
        for _ in 0..12 {
            pulled(&mut repair, at(0));
            (0..4096).for_each(|bucket| repair.bucket_walked(at(0), bucket));
            assert_eq!(repair.pull_at(), None);
            assert!(!repair.differed(at(0), true));
            waits.push(repair.pull_at().unwrap().since(at(0)).as_millis());
        }
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000]);
    }

    /// [4.4.5] Whoever asks for a full walk gets one, although equal totals would prove everything at once.
    #[test]
    fn a_full_walk_that_was_asked_for_is_not_spared_by_equal_totals() {
        let interval = Duration::from_millis(100);
        let mut repair = followed();
        repair.matched(at(1));
        repair.ask_anew(at(10), interval, true);
        assert_eq!((repair.is_proven(), repair.pull_at()), (false, Some(at(10))));
        assert_eq!(pulled(&mut repair, at(10)), vec![(0, 4096)]);
        assert_eq!((repair.matched(at(11)), repair.dirty()), (None, 4096));
        (0..4096).for_each(|bucket| repair.bucket_walked(at(12), bucket));
        assert_eq!(repair.matched(at(20)), Some(Duration::from_millis(10)));
        // Without it the totals decide, and only if they do not come something is asked for.
        repair.ask_anew(at(30), interval, false);
        assert_eq!((repair.is_proven(), repair.pull_at()), (false, Some(at(230))));
        assert_eq!(repair.matched(at(40)), Some(Duration::from_millis(10)));
        assert_eq!((repair.is_proven(), repair.pull_at()), (true, None));
    }

    /// [4.4.6] A proof is lost when the totals differ later.
    #[test]
    fn a_difference_after_the_proof_is_noticed() {
        let mut repair = followed();
        repair.matched(at(1));
        assert!(repair.differed(at(2), true));
        assert_eq!((repair.is_proven(), repair.dirty(), repair.pull_at()), (false, 4096, Some(at(2))));
    }
}
