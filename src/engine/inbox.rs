//! The backup's side of the stream: which one is followed, what of it is held, what is missing.
//!
//! ```text
//!   numbers   ──────────────┬─────────┬──────────────────────┬───────────▶
//!                         base     frontier      highest   known
//!   above base nothing was missed; up to the frontier everything is held; between frontier and highest there are
//!   holes; known is what the master says it has sent. The window is a bitmap over (frontier, frontier + window].
//! ```
//!
//! A record is applied when it arrives; only its repair waits (no head-of-line blocking).

use super::breakage::{Breakage, Broken};
use super::config::Config;
use super::{STREAM_SEQ_MAX, splitmix64};
use crate::time::{Duration, Instant};
use crate::wire::{Header, MissingRange, NodeId, RANGES_MAX};

/// Bucket-ends that wait for the frontier; a further one is dropped, and its bucket is asked for again.
const BUCKET_ENDS_MAX: usize = 8192;

/// One mastership's frames, as they are named on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stream {
    pub(super) node: NodeId,
    pub(super) incarnation: u64,
    pub(super) term: u64,
}

/// A bucket-end that waits until everything before it is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct BucketEnd {
    seq: u64,
    bucket: u16,
    since: u64,
}

/// Whether a frame's number is new.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Number {
    New,
    Duplicate,
    /// Beyond what the window can note: as good as lost, and asked for later.
    Beyond,
}

/// What a backup knows of the stream that it follows.
#[derive(Debug)]
pub(super) struct Inbox {
    stream: Option<Stream>,
    origin: u64,
    frontier: u64,
    base: u64,
    highest: u64,
    known: u64,
    window: Box<[u64]>,
    bucket_ends: Vec<BucketEnd>,
    earliest_bucket_end: u64,
    gap_since: Option<Instant>,
    ask_at: Option<Instant>,
    ask_delay: Duration,
    unacknowledged: u32,
    acknowledge_at: Option<Instant>,
    status_now: bool,
    broken: Broken,
    /// Frames that can wait below us until we read them.
    room: u32,
    /// Others follow the same stream, and may miss the same frames.
    company: bool,
    random: u64,
    /// Another follower has asked for what we miss, since we last did.
    suppressed: bool,
    /// Since when more than half a history is missing.
    far_since: Option<Instant>,
    lagging: bool,
}

impl Inbox {
    pub(super) fn new(config: &Config) -> Self {
        let bits = config.history.next_power_of_two().max(64) as usize;
        Inbox {
            stream: None,
            origin: 0,
            frontier: 0,
            base: 0,
            highest: 0,
            known: 0,
            window: vec![0; bits / 64].into_boxed_slice(),
            bucket_ends: Vec::with_capacity(BUCKET_ENDS_MAX),
            earliest_bucket_end: u64::MAX,
            gap_since: None,
            ask_at: None,
            ask_delay: config.reorder_delay,
            unacknowledged: 0,
            acknowledge_at: None,
            status_now: false,
            broken: config.broken(),
            room: u32::MAX,
            company: false,
            random: config.seed,
            suppressed: false,
            far_since: None,
            lagging: false,
        }
    }

    pub(super) fn stream(&self) -> Option<Stream> {
        self.stream
    }

    /// Whether a frame with this header is of the stream that is followed, by its own word.
    pub(super) fn follows(&self, header: &Header) -> bool {
        self.stream == Some(Stream { node: header.node, incarnation: header.incarnation, term: header.term })
    }

    pub(super) fn frontier(&self) -> u64 {
        self.frontier
    }

    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// The stream number as the table counts it.
    pub(super) fn local(&self, seq: u64) -> u64 {
        seq.saturating_sub(self.origin)
    }

    /// Whether everything that the master says it has sent is held, and nothing beyond it.
    pub(super) fn is_complete_at(&self, seq: u64) -> bool {
        self.frontier == seq && self.highest <= seq
    }

    /// Starts to follow `stream` from the number `from` on (docs/protocol.md 4.1).
    pub(super) fn follow(&mut self, stream: Stream, origin: u64, from: u64) {
        self.stream = Some(stream);
        self.origin = origin;
        (self.frontier, self.base, self.highest, self.known) = (from, from, from, from);
        self.window.fill(0);
        self.forget_bucket_ends();
        self.gap_closed();
        (self.far_since, self.lagging) = (None, false);
        self.acknowledged();
        self.status_now = true;
    }

    /// Follows nobody from now on.
    pub(super) fn unfollow(&mut self) {
        self.stream = None;
        self.forget_bucket_ends();
        self.gap_closed();
        (self.far_since, self.lagging) = (None, false);
        self.acknowledged();
    }

    /// What this node holds is proven now, or is so no more: the master, which heeds who is proven, hears of it at once.
    pub(super) fn say_state(&mut self) {
        self.status_now |= self.stream.is_some();
    }

    /// What the number of an arriving frame means.
    pub(super) fn number(&self, seq: u64) -> Number {
        if seq <= self.frontier {
            Number::Duplicate
        } else if seq - self.frontier > self.window_len() || seq > STREAM_SEQ_MAX {
            Number::Beyond
        } else if self.is_held(seq) {
            Number::Duplicate
        } else {
            Number::New
        }
    }

    /// The frame `seq` is applied: notes it, and moves the frontier over everything that is now held.
    pub(super) fn hold(&mut self, now: Instant, seq: u64, config: &Config) {
        self.set(seq, true);
        self.highest = self.highest.max(seq);
        self.known = self.known.max(seq);
        if self.advance() && self.frontier < self.known {
            // What is repaired in pieces is asked for eagerly as long as the pieces arrive.
            self.ask_delay = config.reorder_delay;
            let soon = now + self.jittered(self.ask_delay);
            self.ask_at = self.ask_at.map(|at| at.min(soon));
        }
        self.note_gap(now, config);
        self.unacknowledged += 1;
        // Who can take little must say early that it has taken it, or its master waits for that.
        if self.unacknowledged >= config.ack_every.min((self.room / 4).max(1)) {
            self.status_now = true;
        } else if self.acknowledge_at.is_none() {
            self.acknowledge_at = Some(now + config.ack_delay);
        }
    }

    /// A frame that is already held came again: the sender does not know how far we are.
    pub(super) fn duplicate(&mut self, now: Instant, config: &Config) {
        if self.acknowledge_at.is_none() {
            self.acknowledge_at = Some(now + config.ack_delay);
        }
    }

    /// The master has sent everything up to `seq`: a lost tail shows here.
    pub(super) fn sent_up_to(&mut self, now: Instant, seq: u64, config: &Config) {
        self.known = self.known.max(seq);
        self.note_gap(now, config);
    }

    /// Frames below `start` can no longer be had (docs/protocol.md 4.3). Whether something was missed.
    pub(super) fn history_starts_at(&mut self, now: Instant, start: u64, config: &Config) -> bool {
        if self.frontier + 1 >= start {
            return false;
        }
        let to = start - 1;
        if to - self.frontier >= self.window_len() {
            self.window.fill(0);
        } else {
            for seq in self.frontier + 1..=to {
                self.set(seq, false);
            }
        }
        (self.frontier, self.base) = (to, to);
        (self.highest, self.known) = (self.highest.max(to), self.known.max(to));
        self.forget_bucket_ends();
        self.advance();
        self.gap_closed();
        self.note_gap(now, config);
        true
    }

    /// Notes a bucket-end of frame `seq`.
    pub(super) fn bucket_end(&mut self, seq: u64, bucket: u16, since: u64) {
        if self.bucket_ends.len() < BUCKET_ENDS_MAX {
            self.bucket_ends.push(BucketEnd { seq, bucket, since });
            self.earliest_bucket_end = self.earliest_bucket_end.min(seq);
        }
    }

    /// Hands over every bucket-end that the frontier has passed and that may be believed: its walk must have begun at the
    /// base or above it, or it says nothing about what was missed below, and before its own frame. Arguments: the bucket, and
    /// the number before the walk's first frame as the table counts it. How many were not to be believed.
    pub(super) fn take_bucket_ends(&mut self, mut believe: impl FnMut(u16, u64)) -> u64 {
        let early = self.broken.is(Breakage::BucketEndBeforeFrontier);
        let mut refused = 0;
        if self.frontier < self.earliest_bucket_end && !early {
            return refused;
        }
        self.earliest_bucket_end = u64::MAX;
        let mut at = 0;
        while let Some(end) = self.bucket_ends.get(at).copied() {
            if end.seq > self.frontier && !early {
                self.earliest_bucket_end = self.earliest_bucket_end.min(end.seq);
                at += 1;
                continue;
            }
            self.bucket_ends.swap_remove(at);
            let base = if self.broken.is(Breakage::BucketEndWithoutSinceAboveBase) { 0 } else { self.base };
            if (base..end.seq).contains(&end.since) {
                believe(end.bucket, self.local(end.since));
            } else {
                refused += 1;
            }
        }
        refused
    }

    /// The number up to which a peer is told that everything is held.
    pub(super) fn acknowledged_up_to(&self) -> u64 {
        if self.broken.is(Breakage::AcknowledgedBeforeApplied) { self.known } else { self.frontier }
    }

    /// When a STATUS is due for a gap or an acknowledgement.
    pub(super) fn status_at(&self) -> Option<Instant> {
        self.stream?;
        if self.status_now {
            return Some(Instant::ZERO);
        }
        [self.ask_at, self.acknowledge_at].into_iter().flatten().min()
    }

    /// A STATUS leaves now: fills `ranges` with what is missing (only if a gap has stood for long enough), says how many,
    /// and sets the timers for the next.
    pub(super) fn status_leaves(
        &mut self,
        now: Instant,
        longest_delay: Duration,
        ranges: &mut [MissingRange; RANGES_MAX],
    ) -> usize {
        let mut count = 0;
        if self.ask_at.is_some_and(|at| at <= now) {
            count = self.missing(ranges);
            self.suppressed = false;
            self.back_off(now, longest_delay);
        }
        self.acknowledged();
        count
    }

    /// Frames above the frontier that can be taken: what the window can note, and no more above the highest that was read
    /// than can wait below us. The sink needs none of it: what waits for it is linked in the table once a flow.
    pub(super) fn credit(&self) -> u32 {
        let read = if self.stream.is_some() { self.highest - self.frontier } else { 0 };
        u32::try_from((read + u64::from(self.room)).min(self.window_len())).unwrap_or(u32::MAX)
    }

    /// So many frames can wait below us until we read them.
    pub(super) fn set_room(&mut self, frames: u32) {
        self.room = frames;
    }

    /// Whether others follow the same stream. Then requests are spread at random, so that one is heard by all before they ask.
    pub(super) fn set_company(&mut self, company: bool) {
        self.company = company;
    }

    /// Another follower has asked for these frames. If they are all that we miss, our own request waits for its next
    /// back-off, once: what is sent again comes to all. Whether it does.
    pub(super) fn asked_by_another(&mut self, now: Instant, asked: &[MissingRange], longest_delay: Duration) -> bool {
        if self.suppressed || asked.is_empty() || self.ask_at.is_none_or(|at| at <= now) {
            return false;
        }
        let mut ranges = [MissingRange::new(1, 1); RANGES_MAX];
        let count = self.missing(&mut ranges);
        let holds = |outer: &MissingRange, inner: &MissingRange| {
            let end = |range: &MissingRange| range.first() + u64::from(range.length());
            outer.first() <= inner.first() && end(inner) <= end(outer)
        };
        self.suppressed = ranges[..count].iter().all(|ours| asked.iter().any(|theirs| holds(theirs, ours)));
        if self.suppressed {
            self.back_off(now, longest_delay);
        }
        self.suppressed
    }

    /// Whether it has been far behind its master for too long.
    pub(super) fn is_lagging(&self) -> bool {
        self.lagging
    }

    /// When it may be.
    pub(super) fn lag_at(&self, config: &Config) -> Option<Instant> {
        self.far_since.filter(|_| !self.lagging).map(|since| since + config.lag_limit)
    }

    pub(super) fn notice_lag(&mut self, now: Instant, config: &Config) {
        self.lagging |= self.lag_at(config).is_some_and(|at| at <= now);
    }

    /// Moves the frontier over everything that is held; whether it moved.
    fn advance(&mut self) -> bool {
        let before = self.frontier;
        let over_gaps = self.broken.is(Breakage::FrontierOverAGap);
        while self.frontier < self.highest && (over_gaps || self.is_held(self.frontier + 1)) {
            self.frontier += 1;
            self.set(self.frontier, false);
        }
        self.frontier > before
    }

    fn forget_bucket_ends(&mut self) {
        self.bucket_ends.clear();
        self.earliest_bucket_end = u64::MAX;
    }

    fn acknowledged(&mut self) {
        self.unacknowledged = 0;
        self.acknowledge_at = None;
        self.status_now = false;
    }

    fn gap_closed(&mut self) {
        self.gap_since = None;
        self.ask_at = None;
        self.suppressed = false;
    }

    fn back_off(&mut self, now: Instant, longest_delay: Duration) {
        self.ask_delay = (self.ask_delay * 2).min(longest_delay.max(self.ask_delay));
        self.ask_at = Some(now + self.jittered(self.ask_delay));
    }

    /// Up to twice the delay where others may ask for the same.
    fn jittered(&mut self, delay: Duration) -> Duration {
        if !self.company {
            return delay;
        }
        delay + delay * (splitmix64(&mut self.random) % 1024) as u32 / 1024
    }

    fn note_gap(&mut self, now: Instant, config: &Config) {
        if self.known - self.frontier.min(self.known) <= u64::from(config.history / 2) {
            (self.far_since, self.lagging) = (None, false);
        } else {
            self.far_since.get_or_insert(now);
        }
        if self.frontier >= self.known {
            self.gap_closed();
        } else if self.gap_since.is_none() {
            self.gap_since = Some(now);
            self.ask_delay = config.reorder_delay;
            self.ask_at = Some(now + self.jittered(self.ask_delay));
        }
    }

    fn missing(&self, ranges: &mut [MissingRange; RANGES_MAX]) -> usize {
        let mut count = 0;
        let mut seq = self.frontier + 1;
        let end = self.known.min(self.frontier + self.window_len());
        while seq <= end && count < RANGES_MAX {
            if self.is_held(seq) {
                seq += 1;
                continue;
            }
            let first = seq;
            while seq <= end && !self.is_held(seq) {
                seq += 1;
            }
            ranges[count] = MissingRange::new(first, (seq - first) as u32);
            count += 1;
        }
        count
    }

    fn window_len(&self) -> u64 {
        self.window.len() as u64 * 64
    }

    /// Only for numbers in (frontier, frontier + window].
    fn is_held(&self, seq: u64) -> bool {
        let bit = seq % self.window_len();
        self.window[(bit / 64) as usize] & (1 << (bit % 64)) != 0
    }

    fn set(&mut self, seq: u64, held: bool) {
        let bit = seq % self.window_len();
        let word = &mut self.window[(bit / 64) as usize];
        if held {
            *word |= 1 << (bit % 64);
        } else {
            *word &= !(1 << (bit % 64));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config { history: 64, ..Config::new(NodeId(1), 1) }
    }

    fn at(microseconds: u64) -> Instant {
        Instant::from_nanos(microseconds * 1000)
    }

    fn following(from: u64) -> Inbox {
        let mut inbox = Inbox::new(&config());
        inbox.follow(Stream { node: NodeId(2), incarnation: 9, term: 1 }, from, from);
        let mut none = [MissingRange::new(1, 1); RANGES_MAX];
        assert_eq!(inbox.status_leaves(at(0), Duration::from_millis(100), &mut none), 0);
        inbox
    }

    fn ranges(inbox: &mut Inbox, now: Instant) -> Vec<(u64, u32)> {
        let mut ranges = [MissingRange::new(1, 1); RANGES_MAX];
        let count = inbox.status_leaves(now, Duration::from_millis(100), &mut ranges);
        ranges[..count].iter().map(|range| (range.first(), range.length())).collect()
    }

    fn believed(inbox: &mut Inbox) -> Vec<(u16, u64)> {
        let mut ends = Vec::new();
        inbox.take_bucket_ends(|bucket, since| ends.push((bucket, since)));
        ends
    }

    /// [4.1.3] The frontier passes over what is held, and no further.
    #[test]
    fn the_frontier_stands_before_a_gap_and_jumps_when_it_is_filled() {
        let mut inbox = following(10);
        for seq in [11, 13, 14] {
            assert_eq!(inbox.number(seq), Number::New);
            inbox.hold(at(1), seq, &config());
        }
        assert_eq!(inbox.frontier(), 11);
        assert_eq!(inbox.number(13), Number::Duplicate);
        inbox.hold(at(2), 12, &config());
        assert_eq!(inbox.frontier(), 14);
        assert_eq!(inbox.number(12), Number::Duplicate);
    }

    /// [3.6.2] Asked for when a gap has stood for `reorder_delay` (2 ms), then with doubled delays.
    #[test]
    fn a_gap_is_asked_for_after_the_reorder_delay_and_then_ever_more_rarely() {
        let mut inbox = following(0);
        inbox.hold(at(1000), 3, &config());
        inbox.hold(at(1000), 6, &config());
        assert_eq!(inbox.status_at(), Some(at(3000)));
        assert_eq!(ranges(&mut inbox, at(2999)), vec![]);
        assert_eq!(ranges(&mut inbox, at(3000)), vec![(1, 2), (4, 2)]);
        assert_eq!(inbox.status_at(), Some(at(7000)));
        inbox.hold(at(5000), 2, &config());
        assert_eq!(ranges(&mut inbox, at(7000)), vec![(1, 1), (4, 2)]);
        inbox.hold(at(8000), 1, &config());
        inbox.hold(at(8000), 4, &config());
        inbox.hold(at(8000), 5, &config());
        assert_eq!(inbox.frontier(), 6);
        assert_eq!(ranges(&mut inbox, at(60_000)), vec![]);
        assert_eq!(inbox.status_at(), None);
    }

    /// [3.5.7] The last frames of a burst are lost: only the ADVERT's stream_seq tells.
    #[test]
    fn a_lost_tail_is_a_gap_once_the_master_says_how_far_it_is() {
        let mut inbox = following(0);
        inbox.sent_up_to(at(0), 2, &config());
        assert_eq!(ranges(&mut inbox, at(2000)), vec![(1, 2)]);
    }

    /// [4.3.1] A hole in the history: the frontier jumps behind it, over what is held there, and the base moves.
    #[test]
    fn what_can_no_longer_be_had_moves_frontier_and_base() {
        let mut inbox = following(0);
        inbox.hold(at(0), 21, &config());
        inbox.bucket_end(21, 7, 20);
        assert!(!inbox.history_starts_at(at(0), 1, &config()));
        assert!(inbox.history_starts_at(at(0), 21, &config()));
        assert_eq!((inbox.base(), inbox.frontier()), (20, 21));
        assert_eq!(believed(&mut inbox), vec![]);
        assert!(inbox.history_starts_at(at(0), 1000, &config()));
        assert_eq!((inbox.base(), inbox.frontier()), (999, 999));
    }

    /// [4.5.4] A bucket-end whose walk began before the base tells nothing about what was missed since.
    #[test]
    fn a_bucket_end_from_before_the_base_is_not_believed() {
        let mut inbox = following(0);
        inbox.hold(at(0), 1, &config());
        inbox.history_starts_at(at(0), 11, &config());
        inbox.bucket_end(11, 5, 9);
        inbox.bucket_end(11, 6, 10);
        inbox.hold(at(0), 11, &config());
        assert_eq!(believed(&mut inbox), vec![(6, 10)]);
        assert_eq!(believed(&mut inbox), vec![]);
    }

    /// [4.5.3] A bucket-end waits until everything before it is held.
    #[test]
    fn a_bucket_end_above_the_frontier_waits() {
        let mut inbox = following(0);
        inbox.hold(at(0), 2, &config());
        inbox.bucket_end(2, 5, 0);
        assert_eq!(believed(&mut inbox), vec![]);
        inbox.hold(at(0), 1, &config());
        assert_eq!(believed(&mut inbox), vec![(5, 0)]);
    }

    #[test]
    fn a_number_beyond_the_window_is_left_for_later() {
        let inbox = following(100);
        assert_eq!(inbox.number(164), Number::New);
        assert_eq!(inbox.number(165), Number::Beyond);
    }

    /// [3.6.6] The window has 64 places; 10 frames can wait to be read.
    #[test]
    fn credit_is_what_the_window_notes_and_what_can_wait_to_be_read() {
        let mut inbox = following(100);
        assert_eq!(inbox.credit(), 64);
        inbox.set_room(10);
        assert_eq!(inbox.credit(), 10);
        inbox.hold(at(1), 121, &config());
        assert_eq!(inbox.credit(), 31, "up to 131: ten above 121, which was read");
        inbox.hold(at(1), 160, &config());
        assert_eq!(inbox.credit(), 64, "up to 164, where the window ends");
        inbox.unfollow();
        assert_eq!(inbox.credit(), 10, "for whoever is followed next");
    }

    /// [3.6.2] Another one's request spares ours only if it names all that we miss, and once.
    #[test]
    fn a_request_waits_when_another_has_asked_for_all_of_it_and_does_not_wait_twice() {
        let mut inbox = following(0);
        inbox.hold(at(0), 3, &config());
        inbox.hold(at(0), 6, &config());
        let asked = |inbox: &mut Inbox, time, ranges: &[(u64, u32)]| {
            let ranges: Vec<MissingRange> = ranges.iter().map(|range| MissingRange::new(range.0, range.1)).collect();
            inbox.asked_by_another(at(time), &ranges, Duration::from_millis(100))
        };
        assert!(!asked(&mut inbox, 1000, &[]));
        assert!(!asked(&mut inbox, 1000, &[(1, 2)]));
        assert!(!asked(&mut inbox, 1000, &[(2, 5)]));
        assert_eq!(inbox.status_at(), Some(at(2000)));
        assert!(asked(&mut inbox, 1000, &[(1, 2), (4, 9)]));
        inbox.acknowledged();
        assert_eq!(inbox.status_at(), Some(at(5000)), "4 ms: the delay is doubled");
        assert!(!asked(&mut inbox, 1500, &[(1, 6)]));
        assert_eq!(ranges(&mut inbox, at(5000)), vec![(1, 2), (4, 2)]);
        assert!(asked(&mut inbox, 5500, &[(1, 6)]));
    }

    /// [3.6.2] Between one and two delays, not always the same, where others may ask too.
    #[test]
    fn requests_are_spread_where_others_may_ask_too() {
        let mut inbox = following(0);
        inbox.set_company(true);
        let mut waits: Vec<u128> = (1..=100)
            .map(|nth| {
                inbox.hold(at(0), 2 * nth, &config());
                inbox.acknowledged();
                let wait = inbox.status_at().unwrap().since(at(0)).as_micros();
                inbox.hold(at(0), 2 * nth - 1, &config());
                wait
            })
            .collect();
        assert!(waits.iter().all(|wait| (2000..4000).contains(wait)), "{waits:?}");
        waits.sort_unstable();
        waits.dedup();
        assert!(waits.len() > 80, "{waits:?}");
    }

    /// [3.6.8] More than half of the history (64) is missing for 500 ms.
    #[test]
    fn a_follower_that_is_far_behind_for_long_says_so_until_it_is_near() {
        let mut inbox = following(0);
        inbox.sent_up_to(at(0), 32, &config());
        assert_eq!(inbox.lag_at(&config()), None);
        inbox.sent_up_to(at(0), 33, &config());
        assert_eq!(inbox.lag_at(&config()), Some(at(500_000)));
        inbox.notice_lag(at(499_999), &config());
        assert!(!inbox.is_lagging());
        inbox.notice_lag(at(500_000), &config());
        assert!(inbox.is_lagging());
        inbox.hold(at(500_001), 1, &config());
        assert!(!inbox.is_lagging());
    }

    /// [3.5.12] A frame whose number no stream can have is not taken, however near it is.
    #[test]
    fn a_number_that_no_stream_can_have_is_beyond_the_window() {
        let inbox = following((1 << 48) - 3);
        assert_eq!(inbox.number((1 << 48) - 1), Number::New);
        assert_eq!(inbox.number(1 << 48), Number::Beyond);
    }

    /// [3.6.6] Who can hold 16 frames acknowledges after 4, or its master waits for it.
    #[test]
    fn small_buffers_are_acknowledged_early() {
        let mut inbox = following(0);
        inbox.set_room(16);
        (1..=3).for_each(|seq| inbox.hold(at(0), seq, &config()));
        assert_eq!(inbox.status_at(), Some(at(5000)));
        inbox.hold(at(0), 4, &config());
        assert_eq!(inbox.status_at(), Some(Instant::ZERO));
    }

    /// [3.6.1] After `ack_every` frames at once, else after `ack_delay` (5 ms).
    #[test]
    fn frames_are_acknowledged_by_number_and_by_time() {
        let mut inbox = following(0);
        inbox.hold(at(0), 1, &config());
        assert_eq!(inbox.status_at(), Some(at(5000)));
        for seq in 2..=31 {
            inbox.hold(at(0), seq, &config());
        }
        assert_eq!(inbox.status_at(), Some(at(5000)));
        inbox.hold(at(0), 32, &config());
        assert_eq!(inbox.status_at(), Some(Instant::ZERO));
    }
}
