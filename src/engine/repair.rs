//! Is our table the master's table? What is not proven is compared bucket by bucket, and only what differs is walked.
//!
//! ```text
//!            follow, hole, totals differ                              equal
//!   (all) ──────────────────────────────▶ unproven ── DIGESTS, held until ────▶ clean ── every bucket: proven
//!                                          ▲     │    the frontier is there      ▲
//!                       walked: bucket-end │     │ different                     │ equal totals clean all at once
//!                                          │     ▼                               │
//!                                        to be PULLed ◀── 100 ms … 60 s ── differs still, though it was walked
//! ```
//!
//! A cold join, a hole in the history, a warm restart and a silent bit-flip are this one path; a node that holds nothing has
//! nothing to compare and begins at PULL. A bucket is in exactly one of four sets: clean, [`Repair::unproven`],
//! [`Repair::wanted`] and [`Repair::stubborn`]. An answer that says nothing about its bucket (not settled, or touched since)
//! leaves it where it is, for the next round.

use super::outbox::BucketSet;
use super::progress::Progress;
use crate::table::BUCKETS;
use crate::time::{Duration, Instant};
use crate::wire::{BucketRange, RANGES_MAX};

/// Longest time between two attempts at a bucket that still differs after a whole walk, and between two rounds of questions
/// that decide nothing.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Longest time between two rounds of questions: what changes all the time is asked for often, or it is never met at rest.
const ASK_MAX: Duration = Duration::from_secs(1);

/// Least time between two rounds: what a master grants each peer in any case (see `digests`).
const ASK_MIN: Duration = Duration::from_millis(100);

/// Rounds in a row without any answer after which the master is taken for one that does not answer: everything in question is
/// then PULLed.
const UNANSWERED_MAX: u32 = 5;

/// Time in which the first differences gather before they are PULLed together.
const GATHER: Duration = Duration::from_millis(5);

/// Buckets without a member between two that are asked for, from which on they are asked for by two requests.
const ASK_GAP: u16 = 64;

/// Least time between two reports of progress, and least progress between them, in per cent.
const REPORT_SPACING: Duration = Duration::from_secs(1);
const REPORT_STEP: u32 = 10;

/// A digest that waits for the frontier to reach its cut.
#[derive(Clone, Copy, Default, Debug)]
struct Answer {
    cut: u64,
    digest: u64,
}

/// What a whole repair did, when it is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Proof {
    /// Time since the proof was lost, or since the stream is followed.
    pub(super) took: Duration,
    /// Buckets that were found to differ after a proof had stood, and flows removed from them.
    pub(super) repaired: Option<(u32, u64)>,
}

/// What is known about the equality of two tables.
#[derive(Debug)]
pub(super) struct Repair {
    /// To be compared.
    unproven: BucketSet,
    /// To be walked.
    wanted: BucketSet,
    /// Different even after a walk: walked again when `retry_at` comes.
    stubborn: BucketSet,
    /// Walked since the start; it is compared next.
    walked: BucketSet,
    /// Found to be different, and not found equal since.
    different: BucketSet,
    /// All that were in `different` since the start.
    ever_different: u32,
    /// Buckets with a slot in `answers`; a subset of `unproven`.
    held: BucketSet,
    answers: Box<[Answer]>,
    /// No held answer has a cut below it.
    earliest_cut: u64,
    proven: bool,
    /// Times that it became proven.
    proofs: u64,
    proven_at: Option<Instant>,
    started_at: Instant,
    /// A proof has stood since this stream is followed.
    was_proven: bool,
    /// What differs is to be told with the next PULL.
    diverged_due: bool,
    /// Flows that walks have removed since the start.
    removed: u64,
    records_at_start: Option<u64>,
    reported_at: Instant,
    reported_percent: u32,
    pull_at: Option<Instant>,
    pulled: bool,
    /// Behind the last bucket that the last PULL has named.
    pulled_below: u16,
    retry_at: Option<Instant>,
    retry: Duration,
    first_retry: Duration,
    ask_at: Option<Instant>,
    /// The bucket at which the running round goes on, if one runs.
    round: Option<u16>,
    asked_at: Option<Instant>,
    ask_delay: Duration,
    first_ask: Duration,
    answered: bool,
    decided: bool,
    unanswered: u32,
    /// Somebody wants every bucket walked, whatever the totals say.
    walk_all: bool,
    /// The master's table fits into ours, as far as its last ADVERT told.
    fits: bool,
    walk_patience: Duration,
}

impl Repair {
    pub(super) fn new() -> Self {
        Repair {
            unproven: BucketSet::empty(),
            wanted: BucketSet::empty(),
            stubborn: BucketSet::empty(),
            walked: BucketSet::empty(),
            different: BucketSet::empty(),
            ever_different: 0,
            held: BucketSet::empty(),
            answers: vec![Answer::default(); BUCKETS].into_boxed_slice(),
            earliest_cut: u64::MAX,
            proven: false,
            proofs: 0,
            proven_at: None,
            started_at: Instant::ZERO,
            was_proven: false,
            diverged_due: false,
            removed: 0,
            records_at_start: None,
            reported_at: Instant::ZERO,
            reported_percent: 0,
            pull_at: None,
            pulled: false,
            pulled_below: 0,
            retry_at: None,
            retry: ASK_MIN,
            first_retry: ASK_MIN,
            ask_at: None,
            round: None,
            asked_at: None,
            ask_delay: ASK_MIN,
            first_ask: ASK_MIN,
            answered: false,
            decided: false,
            unanswered: 0,
            walk_all: false,
            fits: true,
            walk_patience: Duration::from_millis(200),
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

    /// Buckets that are not proven.
    pub(super) fn dirty(&self) -> u32 {
        self.unproven.len() + self.wanted.len() + self.stubborn.len()
    }

    /// Buckets that were found to differ and not found equal since.
    pub(super) fn different(&self) -> u32 {
        self.different.len()
    }

    /// Whether the table was proven once on this stream, and is known to differ now.
    pub(super) fn is_diverged(&self) -> bool {
        self.was_proven && !self.proven && self.different.len() > 0
    }

    /// When a PULL is due.
    pub(super) fn pull_at(&self) -> Option<Instant> {
        [self.pull_at, self.retry_at].into_iter().flatten().min()
    }

    /// When a DIGESTS request is due.
    pub(super) fn ask_at(&self) -> Option<Instant> {
        if self.round.is_some() { Some(Instant::ZERO) } else { self.ask_at }
    }

    // ------------------------------------------------------------------ what starts it

    /// A stream is followed from now on. The totals may already be equal, so the first ADVERTs may speak before anything is
    /// asked for. A node that holds nothing has nothing to compare.
    pub(super) fn follow(&mut self, now: Instant, interval: Duration, holds_nothing: bool) {
        self.walk_patience = (interval * 2).max(Duration::from_millis(200));
        (self.first_retry, self.retry) = (interval, interval);
        self.first_ask = interval.clamp(ASK_MIN, ASK_MAX);
        (self.unanswered, self.asked_at) = (0, None);
        (self.was_proven, self.fits) = (false, true);
        self.start(now);
        if holds_nothing {
            self.want_all();
            self.pull_at = Some(now + interval * 2);
        } else {
            self.ask_at = Some(now + interval * 2);
        }
    }

    /// Nobody is followed: nothing can be asked for.
    pub(super) fn unfollow(&mut self) {
        (self.pull_at, self.retry_at, self.ask_at, self.round) = (None, None, None, None);
        self.forget_answers();
        self.proven = false;
        self.walk_all = false;
    }

    /// Something was missed, or the totals differ: nothing is proven any more, and everything is compared. Whether it was.
    pub(super) fn doubt(&mut self, now: Instant) -> bool {
        let was = self.proven;
        self.start(now);
        self.ask_soon(now);
        was
    }

    /// A record of this bucket was refused: it is proven no longer, and with it the table. Whether the table was.
    pub(super) fn refused(&mut self, now: Instant, bucket: u16) -> bool {
        if self.wanted.contains(bucket) || self.stubborn.contains(bucket) {
            return false;
        }
        let was = self.proven;
        if was {
            self.start(now);
            self.unproven.clear();
        }
        self.unproven.insert(bucket);
        self.ask_soon(now);
        was
    }

    /// Nothing is believed any more because somebody asks for it. The master's next totals may prove it again; with `full`
    /// every bucket is walked first, whatever they say.
    pub(super) fn ask_anew(&mut self, now: Instant, interval: Duration, full: bool) {
        self.start(now);
        self.walk_all = full;
        if full {
            self.want_all();
            self.pull_at = Some(now);
        } else {
            self.ask_at = Some(now + interval * 2);
        }
    }

    // ------------------------------------------------------------------ totals

    /// The totals were compared at a point where both tables must be equal, and they were: what was repaired, if that is
    /// news.
    pub(super) fn matched(&mut self, now: Instant) -> Option<Proof> {
        if self.walk_all {
            return None;
        }
        let news = !self.proven;
        self.proven_at = Some(now);
        news.then(|| self.prove(now))
    }

    /// The totals were compared, and they differ; `fits` says whether the master's table would fit into ours. Whether
    /// something proven was lost by it.
    pub(super) fn differed(&mut self, now: Instant, fits: bool) -> bool {
        let fitted = std::mem::replace(&mut self.fits, fits);
        let room_came = fits && !fitted;
        if self.proven {
            return self.doubt(now);
        }
        if room_came {
            self.hurry(now);
        }
        if self.wanted.len() > 0 {
            if !self.pulled {
                self.pull_at = Some(now);
            }
        } else if self.unproven.len() > 0 {
            self.ask_soon(now);
        }
        false
    }

    /// There is room for what was refused: the next attempt need not wait.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.retry = self.first_retry;
        if self.stubborn.len() > 0 {
            self.retry_at = Some(now);
        }
    }

    // ------------------------------------------------------------------ walks

    /// The bucket was walked, and the `removed` flows that the walk did not name are gone.
    pub(super) fn bucket_walked(&mut self, now: Instant, bucket: u16, removed: u32) {
        self.removed += u64::from(removed);
        let asked_for = self.wanted.contains(bucket) || self.stubborn.contains(bucket);
        if asked_for {
            self.wanted.remove(bucket);
            self.stubborn.remove(bucket);
            self.unproven.insert(bucket);
        }
        if self.unproven.contains(bucket) {
            self.walked.insert(bucket);
        }
        self.walk_all &= self.wanted.len() > 0;
        // A PULL names as many as it has room for; when these are walked, the next ones need not wait.
        let waits = self.wanted.next(0).is_some_and(|first| first < self.pulled_below);
        self.pull_at = (self.wanted.len() > 0).then(|| if waits { now + self.walk_patience } else { now });
        if asked_for && self.wanted.len() == 0 {
            // The next ADVERTs may prove all of it at once.
            let patience = now + self.walk_patience;
            self.ask_at = Some(self.ask_at.map_or(patience, |at| at.min(patience)));
        }
    }

    /// A PULL is due: fills `ranges` with what is asked for and says how many there are.
    pub(super) fn pull_leaves(&mut self, now: Instant, ranges: &mut [BucketRange; RANGES_MAX]) -> usize {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            if self.fits {
                self.diverged_due = true;
                self.wanted.append(&mut self.stubborn);
            }
        }
        self.pulled = true;
        self.pull_at = (self.wanted.len() > 0).then(|| now + self.walk_patience);
        let mut count = 0;
        let mut from = 0;
        while let Some(first) = self.wanted.next(from).filter(|_| count < RANGES_MAX) {
            let mut end = first;
            while self.wanted.contains(end) {
                end += 1;
            }
            ranges[count] = BucketRange::new(first, end - first);
            count += 1;
            from = end;
        }
        self.pulled_below = from;
        count
    }

    // ------------------------------------------------------------------ digests

    /// The next DIGESTS request of a round that is due: buckets in question, and few others between them.
    pub(super) fn request_leaves(&mut self, now: Instant) -> Option<BucketRange> {
        if self.round.is_none() {
            self.begin_round(now)?;
        }
        let from = self.round?;
        let Some(first) = self.unproven.next(from) else {
            self.round = None;
            return None;
        };
        let mut last = first;
        while let Some(next) = self.unproven.next(last + 1).filter(|next| next - last <= ASK_GAP) {
            last = next;
        }
        self.round = self.unproven.next(last + 1);
        Some(BucketRange::new(first, last + 1 - first))
    }

    fn begin_round(&mut self, now: Instant) -> Option<()> {
        self.ask_at.filter(|at| *at <= now)?;
        self.ask_at = None;
        if self.unproven.len() == 0 {
            return None;
        }
        if self.asked_at.is_some() && !self.answered {
            self.unanswered += 1;
        }
        if self.unanswered >= UNANSWERED_MAX {
            self.unanswered = 0;
            self.asked_at = None;
            self.forget_answers();
            self.wanted.append(&mut self.unproven);
            self.pull_at = Some(now);
            return None;
        }
        self.ask_delay = if self.decided { self.first_ask } else { (self.ask_delay * 2).min(ASK_MAX) };
        (self.answered, self.decided) = (false, false);
        self.asked_at = Some(now);
        self.ask_at = Some(now + self.ask_delay);
        self.round = Some(0);
        Some(())
    }

    /// The master has answered for some buckets.
    pub(super) fn answered(&mut self) {
        self.answered = true;
        self.unanswered = 0;
    }

    /// The bucket had this digest when the stream stood at `cut`, which is not below the base: it is held until the frontier
    /// is there, or a newer answer comes.
    pub(super) fn hold(&mut self, bucket: u16, cut: u64, digest: u64) {
        if self.unproven.contains(bucket) {
            self.answers[usize::from(bucket)] = Answer { cut, digest };
            self.held.insert(bucket);
            self.earliest_cut = self.earliest_cut.min(cut);
        }
    }

    /// The frontier stands at `frontier`: judges every answer that it has reached. `judge` is given bucket, cut and digest;
    /// `None` is no judgement, because something newer has touched the bucket. What was repaired, if all is proven by it.
    pub(super) fn judge(
        &mut self,
        now: Instant,
        frontier: u64,
        mut judge: impl FnMut(u16, u64, u64) -> Option<bool>,
    ) -> Option<Proof> {
        if frontier < self.earliest_cut {
            return None;
        }
        self.earliest_cut = u64::MAX;
        let mut from = 0;
        while let Some(bucket) = self.held.next(from) {
            from = bucket + 1;
            let Answer { cut, digest } = self.answers[usize::from(bucket)];
            if cut > frontier {
                self.earliest_cut = self.earliest_cut.min(cut);
                continue;
            }
            self.held.remove(bucket);
            match judge(bucket, cut, digest) {
                Some(true) => self.found_equal(bucket),
                Some(false) => self.found_different(now, bucket),
                None => {}
            }
        }
        let all = !self.proven && self.dirty() == 0 && !self.walk_all;
        if all {
            self.proven_at = Some(now);
        }
        all.then(|| self.prove(now))
    }

    fn found_equal(&mut self, bucket: u16) {
        self.decided = true;
        self.unproven.remove(bucket);
        self.different.remove(bucket);
    }

    fn found_different(&mut self, now: Instant, bucket: u16) {
        self.decided = true;
        self.unproven.remove(bucket);
        if !self.different.contains(bucket) {
            self.different.insert(bucket);
            self.ever_different += 1;
        }
        if !self.walked.contains(bucket) {
            self.wanted.insert(bucket);
            let gathered = now + GATHER;
            self.pull_at = Some(self.pull_at.map_or(gathered, |at| at.min(gathered)));
            return;
        }
        // A whole walk did not help: again, ever more rarely; and not before there is room for it.
        self.stubborn.insert(bucket);
        if self.retry_at.is_none() && self.fits {
            self.retry_at = Some(now + self.retry);
            self.retry = (self.retry * 2).min(RETRY_MAX);
        }
    }

    // ------------------------------------------------------------------ what the operator is told

    /// A PULL has just left: buckets known to differ, if that is to be reported now.
    pub(super) fn diverged(&mut self) -> Option<u32> {
        let news = self.diverged_due && self.different.len() > 0;
        self.diverged_due &= !news;
        news.then(|| self.different.len())
    }

    /// How far it is, if it is not proven; `records` are all that were ever applied.
    pub(super) fn progress(&self, now: Instant, records: u64) -> Option<Progress> {
        if self.proven {
            return None;
        }
        let left = self.left();
        let since = records.saturating_sub(self.records_at_start.unwrap_or(records));
        Some(Progress::of(left, now.since(self.started_at), since))
    }

    /// The same, when it is time to tell it to those who listen.
    pub(super) fn report(&mut self, now: Instant, records: u64) -> Option<Progress> {
        self.records_at_start.get_or_insert(records);
        if self.proven || now.since(self.reported_at) < REPORT_SPACING {
            return None;
        }
        let progress = self.progress(now, records)?;
        if u32::from(progress.percent) < self.reported_percent + REPORT_STEP {
            return None;
        }
        (self.reported_at, self.reported_percent) = (now, u32::from(progress.percent));
        Some(progress)
    }

    /// Buckets that are still to be compared or walked: those that were walked only wait for their proof.
    fn left(&self) -> u32 {
        self.wanted.len() + self.stubborn.len() + self.unproven.len_without(&self.walked)
    }

    // ------------------------------------------------------------------ small helpers

    fn prove(&mut self, now: Instant) -> Proof {
        let repaired = (self.was_proven && self.ever_different > 0).then_some((self.ever_different, self.removed));
        (self.proven, self.was_proven) = (true, true);
        self.proofs += 1;
        self.retry = self.first_retry;
        self.unproven.clear();
        self.wanted.clear();
        self.stubborn.clear();
        self.different.clear();
        self.forget_answers();
        (self.pull_at, self.retry_at, self.ask_at, self.round) = (None, None, None, None);
        Proof { took: now.since(self.started_at), repaired }
    }

    fn start(&mut self, now: Instant) {
        self.unproven.fill();
        self.wanted.clear();
        self.stubborn.clear();
        self.walked.clear();
        self.different.clear();
        self.forget_answers();
        (self.ever_different, self.removed, self.records_at_start) = (0, 0, None);
        (self.reported_at, self.reported_percent) = (now, 0);
        self.proven = false;
        self.started_at = now;
        self.pulled = false;
        self.walk_all = false;
        self.diverged_due = self.was_proven;
        self.ask_delay = self.first_ask;
        self.decided = true;
        (self.pull_at, self.retry_at, self.ask_at, self.round) = (None, None, None, None);
    }

    fn want_all(&mut self) {
        self.unproven.clear();
        self.wanted.fill();
    }

    /// A round at once, but not sooner after the last one than its answers may take.
    fn ask_soon(&mut self, now: Instant) {
        let earliest = self.asked_at.map_or(now, |at| (at + self.first_ask).max(now));
        self.ask_at = Some(self.ask_at.map_or(earliest, |at| at.min(earliest)));
    }

    fn forget_answers(&mut self) {
        self.held.clear();
        self.earliest_cut = u64::MAX;
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

    /// Follows a stream with an empty table, at 0 ms.
    fn followed() -> Repair {
        let mut repair = Repair::new();
        repair.follow(at(0), Duration::from_millis(100), true);
        repair
    }

    /// The same with a table that holds something.
    fn followed_warm() -> Repair {
        let mut repair = Repair::new();
        repair.follow(at(0), Duration::from_millis(100), false);
        repair
    }

    fn asked(repair: &mut Repair, now: Instant) -> Vec<(u16, u16)> {
        std::iter::from_fn(|| repair.request_leaves(now)).map(|range| (range.first(), range.count())).collect()
    }

    /// Every bucket but these is found equal at cut 10.
    fn equal_but(repair: &mut Repair, now: Instant, others: &[u16]) -> Option<Proof> {
        repair.answered();
        (0..4096).filter(|bucket| !others.contains(bucket)).for_each(|bucket| repair.hold(bucket, 10, 1));
        repair.judge(now, 10, |_, _, _| Some(true))
    }

    fn found_different(repair: &mut Repair, now: Instant, bucket: u16) {
        repair.answered();
        repair.hold(bucket, 10, 1);
        assert_eq!(repair.judge(now, 10, |_, _, _| Some(false)), None);
    }

    const NEWS: Option<(u32, u64)> = None;

    /// [4.4.5] Equal totals prove everything at once: nothing is pulled.
    #[test]
    fn equal_totals_spare_the_walk() {
        let mut repair = followed();
        assert_eq!((repair.pull_at(), repair.ask_at()), (Some(at(200)), None));
        assert_eq!(repair.matched(at(30)), Some(Proof { took: Duration::from_millis(30), repaired: NEWS }));
        assert_eq!((repair.is_proven(), repair.dirty(), repair.pull_at()), (true, 0, None));
        assert_eq!(repair.matched(at(40)), None);
        assert_eq!(repair.proven_at(), Some(at(40)));
    }

    /// [4.5.1] What is not proven is pulled, and pulled again when nothing comes.
    #[test]
    fn who_holds_nothing_pulls_at_once_and_again_after_silence() {
        let mut repair = followed();
        assert!(!repair.differed(at(1), true));
        assert_eq!((repair.pull_at(), repair.ask_at()), (Some(at(1)), None));
        assert_eq!(pulled(&mut repair, at(1)), vec![(0, 4096)]);
        assert!(!repair.differed(at(5), true));
        assert_eq!(repair.pull_at(), Some(at(201)));
        for bucket in (0..4096).filter(|bucket| ![7, 8, 4095].contains(bucket)) {
            repair.bucket_walked(at(10), bucket, 0);
        }
        assert_eq!(repair.pull_at(), Some(at(210)));
        assert_eq!(pulled(&mut repair, at(210)), vec![(7, 2), (4095, 1)]);
    }

    /// [4.5.1] [4.4.9] Who holds something asks first, and pulls what differs and nothing else.
    #[test]
    fn who_holds_something_asks_and_pulls_only_what_differs() {
        let mut repair = followed_warm();
        assert_eq!((repair.pull_at(), repair.ask_at()), (None, Some(at(200))));
        assert!(!repair.differed(at(1), true));
        assert_eq!(repair.ask_at(), Some(at(1)));
        assert_eq!(asked(&mut repair, at(1)), vec![(0, 4096)]);
        assert_eq!(equal_but(&mut repair, at(2), &[5, 6, 900]), None);
        [5, 6, 900].into_iter().for_each(|bucket| found_different(&mut repair, at(3), bucket));
        assert_eq!((repair.dirty(), repair.different(), repair.pull_at()), (3, 3, Some(at(8))));
        assert_eq!(pulled(&mut repair, at(8)), vec![(5, 2), (900, 1)]);
        [5, 6, 900].into_iter().for_each(|bucket| repair.bucket_walked(at(9), bucket, 0));
        assert_eq!((repair.dirty(), repair.pull_at()), (3, None));
        assert!(!repair.is_diverged(), "it was never proven");
        let proof = equal_but(&mut repair, at(12), &[]);
        assert_eq!(proof, Some(Proof { took: Duration::from_millis(12), repaired: NEWS }));
        assert_eq!((repair.is_proven(), repair.ask_at(), repair.pull_at()), (true, None, None));
    }

    /// [4.4.9] An answer waits for the frontier; one that decides nothing is asked for again, with what lies near it.
    #[test]
    fn an_answer_waits_for_its_cut_and_what_is_undecided_is_asked_for_again() {
        let mut repair = followed_warm();
        asked(&mut repair, at(200));
        repair.answered();
        (0..4096).for_each(|bucket| repair.hold(bucket, 10, 1));
        assert_eq!(repair.judge(at(201), 9, |_, _, _| unreachable!("before its cut")), None);
        let undecided = [3, 67, 400];
        let judge = |bucket, _, _| (!undecided.contains(&bucket)).then_some(true);
        assert_eq!((repair.judge(at(202), 10, judge), repair.dirty()), (None, 3));
        assert_eq!(repair.ask_at(), Some(at(300)));
        assert_eq!(asked(&mut repair, at(300)), vec![(3, 65), (400, 1)]);
        assert_eq!(repair.ask_at(), Some(at(400)), "the round before decided something");
        assert_eq!(asked(&mut repair, at(400)), vec![(3, 65), (400, 1)]);
        assert_eq!(repair.ask_at(), Some(at(600)), "and this one nothing");
    }

    /// [4.4.9] Who gets no answer in five rounds walks what is in question.
    #[test]
    fn a_master_that_never_answers_is_asked_for_everything() {
        let mut repair = followed_warm();
        let mut rounds = Vec::new();
        while let Some(due) = repair.ask_at() {
            if !asked(&mut repair, due).is_empty() {
                rounds.push(due.since(at(0)).as_millis());
            }
        }
        assert_eq!(rounds, [200, 300, 500, 900, 1700]);
        assert_eq!((repair.pull_at(), repair.dirty()), (Some(at(2700)), 4096));
        assert_eq!(pulled(&mut repair, at(2700)), vec![(0, 4096)]);
    }

    /// [4.5.5] A bucket that still differs after a whole walk is walked again with back-off up to 60 s.
    #[test]
    fn a_walk_that_did_not_help_is_repeated_ever_more_rarely() {
        let mut repair = followed_warm();
        equal_but(&mut repair, at(0), &[9]);
        found_different(&mut repair, at(0), 9);
        pulled(&mut repair, at(5));
        let mut waits = Vec::new();
        for _ in 0..12 {
            repair.bucket_walked(at(0), 9, 0);
            found_different(&mut repair, at(0), 9);
            let due = repair.pull_at().unwrap();
            waits.push(due.since(at(0)).as_millis());
            assert_eq!(pulled(&mut repair, due), vec![(9, 1)]);
            assert_eq!(repair.diverged(), Some(1));
        }
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000]);
    }

    /// [4.5.5] What does not fit is not asked for again; when it does, at once.
    #[test]
    fn a_bucket_for_which_there_is_no_room_waits_for_room() {
        let mut repair = followed_warm();
        repair.differed(at(0), false);
        equal_but(&mut repair, at(0), &[9]);
        found_different(&mut repair, at(0), 9);
        pulled(&mut repair, at(5));
        repair.bucket_walked(at(6), 9, 0);
        found_different(&mut repair, at(7), 9);
        assert_eq!(repair.pull_at(), None);
        repair.differed(at(90), true);
        assert_eq!(repair.pull_at(), Some(at(90)));
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
        (0..4096).for_each(|bucket| repair.bucket_walked(at(12), bucket, 0));
        assert_eq!(repair.matched(at(20)).map(|proof| proof.took), Some(Duration::from_millis(10)));
        // Without it the totals decide, and only if they do not come something is asked for.
        repair.ask_anew(at(30), interval, false);
        assert_eq!((repair.is_proven(), repair.ask_at(), repair.pull_at()), (false, Some(at(230)), None));
        assert_eq!(repair.matched(at(40)).map(|proof| proof.took), Some(Duration::from_millis(10)));
        assert_eq!((repair.is_proven(), repair.ask_at()), (true, None));
    }

    /// [4.4.6] A proof is lost when the totals differ later; what was repaired is told when it stands again.
    #[test]
    fn a_difference_after_the_proof_is_noticed_and_told() {
        let mut repair = followed_warm();
        repair.matched(at(1));
        assert!(repair.differed(at(2), true));
        assert_eq!((repair.is_proven(), repair.dirty(), repair.ask_at()), (false, 4096, Some(at(2))));
        equal_but(&mut repair, at(3), &[9]);
        assert!(!repair.is_diverged(), "nothing is known to differ yet");
        found_different(&mut repair, at(3), 9);
        assert!(repair.is_diverged());
        pulled(&mut repair, at(8));
        assert_eq!((repair.diverged(), repair.diverged()), (Some(1), None));
        repair.bucket_walked(at(9), 9, 4);
        let proof = Proof { took: Duration::from_millis(8), repaired: Some((1, 4)) };
        assert_eq!(repair.matched(at(10)), Some(proof));
    }

    /// [4.4.6] A refused record takes the proof from its bucket alone.
    #[test]
    fn a_refused_record_puts_its_bucket_in_question_and_no_other() {
        let mut repair = followed_warm();
        repair.matched(at(1));
        assert!(repair.refused(at(2), 77));
        assert!(!repair.refused(at(2), 78));
        assert_eq!((repair.is_proven(), asked(&mut repair, at(2))), (false, vec![(77, 2)]));
    }

    #[test]
    fn progress_counts_what_is_walked_and_tells_its_end() {
        let mut repair = followed();
        assert_eq!(repair.report(at(0), 100), None);
        pulled(&mut repair, at(1));
        (0..1024).for_each(|bucket| repair.bucket_walked(at(500), bucket, 0));
        assert_eq!(repair.report(at(500), 5100), None, "not so soon");
        (1024..2048).for_each(|bucket| repair.bucket_walked(at(1000), bucket, 0));
        let eta = Some(Duration::from_secs(1));
        let half = Progress { percent: 50, buckets_left: 2048, records_per_s: 10_000, eta };
        assert_eq!(repair.progress(at(1000), 10_100), Some(half));
        assert_eq!(repair.report(at(1000), 10_100), Some(half));
        assert_eq!(repair.report(at(2500), 10_100), None, "no further");
        repair.matched(at(3000));
        assert_eq!(repair.progress(at(3000), 10_100), None);
    }
}
