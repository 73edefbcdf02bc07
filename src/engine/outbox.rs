//! The master's side of the stream: its numbers, the frames kept for re-sending, and the walk through the buckets that
//! somebody asked for.
//!
//! ```text
//!   history   ┌──────────────┬──────────────────────────────────────┐
//!             │  overwritten │ first() ...                     seq  │   a ring of `history` frames, as they were sent
//!             └──────────────┴──────────────────────────────────────┘
//! ```
//!
//! A frame that is sent again is the stored bytes, never a new frame under an old number.

use crate::table::{BUCKETS, Table};
use crate::time::{Duration, Instant};
use std::collections::VecDeque;
use std::ops::RangeInclusive;

/// Records queued by walks at a time, so that a live change never waits behind more than this and one bucket.
const WALK_AHEAD: u32 = 128;

/// Buckets walked at a time; a frame has room for fewer bucket-ends.
const WALKS_MAX: usize = 128;

/// A set of buckets.
#[derive(Debug)]
pub(super) struct BucketSet {
    bits: [u64; BUCKETS / 64],
    len: u32,
}

impl BucketSet {
    pub(super) const fn empty() -> Self {
        BucketSet { bits: [0; BUCKETS / 64], len: 0 }
    }

    pub(super) fn len(&self) -> u32 {
        self.len
    }

    pub(super) fn contains(&self, bucket: u16) -> bool {
        let bucket = usize::from(bucket);
        bucket < BUCKETS && self.bits[bucket / 64] & (1 << (bucket % 64)) != 0
    }

    pub(super) fn insert(&mut self, bucket: u16) {
        if usize::from(bucket) < BUCKETS && !self.contains(bucket) {
            self.bits[usize::from(bucket) / 64] |= 1 << (bucket % 64);
            self.len += 1;
        }
    }

    pub(super) fn remove(&mut self, bucket: u16) {
        if self.contains(bucket) {
            self.bits[usize::from(bucket) / 64] &= !(1 << (bucket % 64));
            self.len -= 1;
        }
    }

    pub(super) fn fill(&mut self) {
        *self = BucketSet { bits: [u64::MAX; BUCKETS / 64], len: BUCKETS as u32 };
    }

    pub(super) fn clear(&mut self) {
        *self = BucketSet::empty();
    }

    /// Takes over every member of another set, which is empty then.
    pub(super) fn append(&mut self, other: &mut BucketSet) {
        self.bits.iter_mut().zip(&other.bits).for_each(|(own, more)| *own |= more);
        self.len = self.bits.iter().map(|word| word.count_ones()).sum();
        other.clear();
    }

    /// Members that are not in another set.
    pub(super) fn len_without(&self, other: &BucketSet) -> u32 {
        self.bits.iter().zip(&other.bits).map(|(own, not)| (own & !not).count_ones()).sum()
    }

    /// The first member that is not below `from`.
    pub(super) fn next(&self, from: u16) -> Option<u16> {
        let mut word = usize::from(from) / 64;
        if word >= self.bits.len() {
            return None;
        }
        let mut bits = self.bits[word] & (u64::MAX << (from % 64));
        while bits == 0 {
            word += 1;
            bits = *self.bits.get(word)?;
        }
        Some((word * 64) as u16 + bits.trailing_zeros() as u16)
    }
}

/// A point in the queue: everything that waited when it was set. The queue is first in, first out, and a change that
/// replaces one which waits takes its place, so nothing that comes later is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Mark {
    /// When so many records of flows have left the queue since the start, all that stood before the mark are out.
    records: u64,
    /// Entries of sections have a queue of their own, and this turn in it.
    section: u64,
}

/// A bucket that is being walked: its entries stand in the queue.
#[derive(Clone, Copy, Debug)]
struct Walking {
    bucket: u16,
    /// The stream number before the walk's first frame.
    since: u64,
    /// Behind its last entry.
    end: Mark,
}

/// The stored frames that somebody asked for: a bit for each place of the ring, so that it costs the same however many ask
/// and however often.
#[derive(Debug)]
struct Asked {
    bits: Box<[u64]>,
    places: u64,
    /// Every number in it lies from `first` to `last`.
    first: u64,
    last: u64,
}

impl Asked {
    fn new(places: usize) -> Self {
        Asked { bits: vec![0; places.div_ceil(64)].into_boxed_slice(), places: places as u64, first: 1, last: 0 }
    }

    fn is_empty(&self) -> bool {
        self.first > self.last
    }

    fn clear(&mut self) {
        self.bits.fill(0);
        (self.first, self.last) = (1, 0);
    }

    /// Puts in the numbers of a range that is no longer than the ring.
    fn insert(&mut self, first: u64, last: u64) {
        if self.is_empty() {
            (self.first, self.last) = (first, last);
        }
        (self.first, self.last) = (self.first.min(first), self.last.max(last));
        let mut seq = first;
        while seq <= last {
            let (word, bit, room) = self.place(seq);
            let count = room.min(last - seq + 1);
            self.bits[word] |= (u64::MAX >> (64 - count)) << bit;
            seq += count;
        }
    }

    fn remove(&mut self, seq: u64) {
        let (word, bit, _) = self.place(seq);
        self.bits[word] &= !(1 << bit);
    }

    /// Takes out the lowest number; below `oldest` there is none.
    fn take_first(&mut self, oldest: u64) -> Option<u64> {
        self.first = self.first.max(oldest);
        while !self.is_empty() {
            let (word, bit, room) = self.place(self.first);
            let found = (self.bits[word] >> bit).trailing_zeros();
            if u64::from(found) < room {
                let seq = self.first + u64::from(found);
                self.first = seq + 1;
                self.remove(seq);
                return Some(seq);
            }
            self.first += room;
        }
        None
    }

    /// Word and bit of a number, and how many numbers from it on lie in the same word one after the other.
    fn place(&self, seq: u64) -> (usize, u64, u64) {
        let place = seq % self.places;
        let bit = place % 64;
        ((place / 64) as usize, bit, (64 - bit).min(self.places - place))
    }
}

/// What a master keeps of its stream.
#[derive(Debug)]
pub(super) struct Outbox {
    frame_len: usize,
    frames: Box<[u8]>,
    lengths: Box<[u16]>,
    sent_at: Box<[Instant]>,
    resent_at: Box<[Instant]>,
    /// Number of the newest frame; goes on over masterships.
    seq: u64,
    /// Frames up to this number are not sent again: one of them is longer than the links carry now, or its seal is out of use.
    unfit: u64,
    /// The stream number before the first of this term.
    term_start: u64,
    /// The stream number before the first of this mastership: what the table's numbers are counted from.
    origin: u64,
    pub(super) last_sent_at: Instant,
    /// Requests for a frame that had just been sent again.
    too_soon: u64,
    asked: Asked,
    wanted: BucketSet,
    walking: VecDeque<Walking>,
    /// Records that have left the queue.
    left: u64,
    cursor: u16,
}

impl Outbox {
    /// `first` is the number before that of the first frame.
    pub(super) fn new(history: u32, frame_len: usize, first: u64) -> Self {
        let history = history as usize;
        Outbox {
            frame_len,
            frames: vec![0; history * frame_len].into_boxed_slice(),
            lengths: vec![0; history].into_boxed_slice(),
            sent_at: vec![Instant::ZERO; history].into_boxed_slice(),
            resent_at: vec![Instant::ZERO; history].into_boxed_slice(),
            seq: first,
            unfit: 0,
            term_start: first,
            origin: first,
            last_sent_at: Instant::ZERO,
            too_soon: 0,
            asked: Asked::new(history),
            wanted: BucketSet::empty(),
            walking: VecDeque::with_capacity(WALKS_MAX),
            left: 0,
            cursor: 0,
        }
    }

    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    pub(super) fn term_start(&self) -> u64 {
        self.term_start
    }

    /// The stream number as the table counts it.
    pub(super) fn local(&self, seq: u64) -> u64 {
        seq - self.origin
    }

    /// The oldest frame that can be sent again.
    pub(super) fn history_start(&self) -> u64 {
        (self.term_start + 1).max((self.seq + 1).saturating_sub(self.lengths.len() as u64)).max(self.unfit + 1)
    }

    /// Frames may have this many bytes from now on. Memory grows to it, and never shrinks: an MTU that came back must not
    /// cost an allocation each time.
    pub(super) fn set_frame_len(&mut self, frame_len: usize) {
        if frame_len > self.frame_len {
            let mut frames = vec![0; self.lengths.len() * frame_len].into_boxed_slice();
            let places = self.frames.chunks_exact(self.frame_len).zip(frames.chunks_exact_mut(frame_len));
            for ((from, to), length) in places.zip(&self.lengths) {
                let length = usize::from(*length);
                to[..length].copy_from_slice(&from[..length]);
            }
            (self.frames, self.frame_len) = (frames, frame_len);
        }
        let stored = (self.history_start()..=self.seq).rev();
        let longest_ago = stored.into_iter().find(|seq| {
            let at = (seq % self.lengths.len() as u64) as usize;
            usize::from(self.lengths[at]) > frame_len
        });
        self.unfit = longest_ago.unwrap_or(self.unfit);
    }

    /// Frames up to this number are not sent again: somebody could not open them, or would not take them.
    pub(super) fn forget_up_to(&mut self, seq: u64) {
        self.unfit = self.unfit.max(seq.min(self.seq));
    }

    /// When a frame left, if that was the only time: only then its acknowledgement tells the round trip (Karn, 1987).
    pub(super) fn sent_once_at(&self, seq: u64) -> Option<Instant> {
        let at = (seq % self.lengths.len() as u64) as usize;
        let stored = (self.history_start()..=self.seq).contains(&seq);
        (stored && self.resent_at[at] == Instant::ZERO).then_some(self.sent_at[at])
    }

    /// The same of the last of several frames, if each of them left only once.
    pub(super) fn all_sent_once(&self, mut frames: RangeInclusive<u64>) -> Option<Instant> {
        let last = self.sent_once_at(*frames.end())?;
        frames.all(|seq| self.sent_once_at(seq).is_some()).then_some(last)
    }

    /// Requests that were not answered because the frame had just been sent again.
    pub(super) fn too_soon(&self) -> u64 {
        self.too_soon
    }

    /// Marks everything that waits in the queue now.
    pub(super) fn mark(&self, table: &Table) -> Mark {
        Mark { records: self.left + u64::from(table.pending()), section: table.section_mark() }
    }

    /// Whether everything before the mark stands in frames up to [`Outbox::seq`]. A record can also leave the queue by being
    /// cancelled (an insert and its delete cost nothing), and is not counted then, because it may have stood behind the mark:
    /// so this may say yes a little late, but never too early, and at the latest when the queue is empty.
    pub(super) fn has_left(&self, mark: &Mark, table: &Table) -> bool {
        self.flows_have_left(mark, table) && table.sections_left(mark.section)
    }

    fn flows_have_left(&self, mark: &Mark, table: &Table) -> bool {
        self.left >= mark.records || table.pending() == 0
    }

    /// A new mastership: an empty history, nothing asked for.
    pub(super) fn begin_mastership(&mut self) {
        self.origin = self.seq;
        self.wanted.clear();
        self.begin_term();
    }

    /// A new stream of the same mastership: its numbers begin with 1.
    pub(super) fn begin_numbers(&mut self) {
        (self.seq, self.unfit) = (0, 0);
        self.begin_mastership();
    }

    /// A new term of the same mastership: frames of the old one are never sent again. Walks go on, under new numbers.
    pub(super) fn begin_term(&mut self) {
        self.term_start = self.seq;
        self.asked.clear();
        for walking in self.walking.drain(..) {
            self.wanted.insert(walking.bucket);
        }
    }

    /// The next number, and the place where its bytes are kept.
    pub(super) fn next_seq(&self) -> u64 {
        self.seq + 1
    }

    /// The frame with the next number is in `frame`: keeps it.
    pub(super) fn keep(&mut self, now: Instant, frame: &[u8]) {
        self.seq += 1;
        let at = (self.seq % self.lengths.len() as u64) as usize;
        self.frames[at * self.frame_len..][..frame.len()].copy_from_slice(frame);
        self.lengths[at] = frame.len() as u16;
        self.asked.remove(self.seq);
        self.sent_at[at] = now;
        self.resent_at[at] = Instant::ZERO;
        self.last_sent_at = now;
    }

    /// A peer misses `length` frames from `first` on.
    pub(super) fn ask_again(&mut self, first: u64, length: u32) {
        let last = first.saturating_add(u64::from(length) - 1).min(self.seq);
        let first = first.max(self.history_start());
        if first <= last {
            self.asked.insert(first, last);
        }
    }

    /// The next stored frame that was asked for and was not sent again within `spacing`, copied into `slot`.
    pub(super) fn send_again(&mut self, now: Instant, spacing: Duration, slot: &mut [u8]) -> Option<usize> {
        while let Some(seq) = self.asked.take_first(self.history_start()) {
            let at = (seq % self.lengths.len() as u64) as usize;
            let length = usize::from(self.lengths[at]);
            let too_soon = self.resent_at[at] != Instant::ZERO && now.since(self.resent_at[at]) < spacing;
            self.too_soon += u64::from(too_soon);
            if too_soon || length > slot.len() {
                continue;
            }
            self.resent_at[at] = now;
            slot[..length].copy_from_slice(&self.frames[at * self.frame_len..][..length]);
            return Some(length);
        }
        None
    }

    pub(super) fn resend_waiting(&self) -> bool {
        !self.asked.is_empty()
    }

    /// A peer wants these buckets walked. How many of them are being walked: they are walked again.
    pub(super) fn want(&mut self, first: u16, count: u16) -> u64 {
        let buckets = first..first.saturating_add(count).min(BUCKETS as u16);
        let mut again = 0;
        for walking in self.walking.iter().filter(|walking| buckets.contains(&walking.bucket)) {
            again += u64::from(!self.wanted.contains(walking.bucket));
            self.wanted.insert(walking.bucket);
        }
        buckets.for_each(|bucket| self.wanted.insert(bucket));
        again
    }

    /// Whether buckets wait to be walked, or are being walked.
    pub(super) fn is_walking(&self) -> bool {
        !self.walking.is_empty() || self.wanted.len() > 0
    }

    /// Queues the next buckets as long as the queue is short. Only between two frames, so that no frame holds a key twice.
    /// Buckets are taken in turn, so that none starves.
    pub(super) fn walk_on(&mut self, table: &mut Table) {
        while table.pending() + table.pending_sections() < WALK_AHEAD && self.walking.len() < WALKS_MAX {
            let Some(bucket) = self.wanted.next(self.cursor).or_else(|| self.wanted.next(0)) else { break };
            self.wanted.remove(bucket);
            self.cursor = (bucket + 1) % BUCKETS as u16;
            table.queue_bucket(bucket);
            self.walking.push_back(Walking { bucket, since: self.seq, end: self.mark(table) });
        }
    }

    /// One queued record has left.
    pub(super) fn one_left(&mut self) {
        self.left += 1;
    }

    /// The oldest walk of which every entry has left: bucket and `since`. A long value, or one that changes again and again
    /// while it leaves, holds up its own bucket and no other.
    pub(super) fn walked(&self, table: &Table) -> Option<(u16, u64)> {
        let mut out = self.walking.iter().take_while(|walking| self.flows_have_left(&walking.end, table));
        let walking = out.find(|walking| table.bucket_sections_left(walking.bucket, walking.end.section))?;
        Some((walking.bucket, walking.since))
    }

    /// The bucket-end of this walk has left.
    pub(super) fn bucket_ended(&mut self, bucket: u16, since: u64) {
        let ended = self.walking.iter().position(|walking| (walking.bucket, walking.since) == (bucket, since));
        if let Some(at) = ended {
            self.walking.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Flow, FlowKey, Zone};
    use std::net::{IpAddr, Ipv4Addr};

    const KEY: FlowKey = FlowKey {
        source: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
        destination: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)),
        source_port: 1,
        destination_port: 443,
        protocol: 6,
        zone: Zone::DEFAULT,
    };

    fn outbox(frames: u64) -> Outbox {
        let mut outbox = Outbox::new(16, 1208, 0);
        for number in 1..=frames {
            outbox.keep(Instant::from_nanos(number), &[number as u8; 100]);
        }
        outbox
    }

    fn resent(outbox: &mut Outbox, now: u64) -> Vec<u8> {
        let mut slot = [0; 1208];
        let mut seen = Vec::new();
        while let Some(length) = outbox.send_again(Instant::from_nanos(now), Duration::from_nanos(1000), &mut slot) {
            assert_eq!(length, 100);
            seen.push(slot[0]);
        }
        seen
    }

    #[test]
    fn members_that_are_in_no_other_set_are_counted() {
        let of = |members: &[u16]| {
            let mut set = BucketSet::empty();
            members.iter().for_each(|member| set.insert(*member));
            set
        };
        assert_eq!(of(&[1, 64, 65, 200]).len_without(&of(&[64, 200, 201])), 2);
        assert_eq!((of(&[]).len_without(&of(&[1])), of(&[1]).len_without(&of(&[]))), (0, 1));
    }

    /// [3.6.3] The history is a ring, and its start is known.
    #[test]
    fn the_history_holds_the_newest_frames_and_knows_its_start() {
        assert_eq!(outbox(0).history_start(), 1);
        assert_eq!(outbox(16).history_start(), 1);
        assert_eq!(outbox(17).history_start(), 2);
    }

    /// [3.6.4] A retransmission is the stored bytes; a frame that is gone is not sent, nor one that never was.
    #[test]
    fn frames_are_sent_again_as_they_were_and_only_from_the_history() {
        let mut outbox = outbox(20);
        outbox.ask_again(3, 5); // 3 and 4 are gone
        outbox.ask_again(19, 9); // 21 and later are not there yet
        assert_eq!(resent(&mut outbox, 5_000), vec![5, 6, 7, 19, 20]);
    }

    /// [3.6.4] Two backups that miss the same frame get it once.
    #[test]
    fn a_frame_is_sent_again_at_most_once_in_its_spacing() {
        let mut outbox = outbox(5);
        outbox.ask_again(2, 2);
        outbox.ask_again(2, 2);
        assert_eq!(resent(&mut outbox, 5_000), vec![2, 3]);
        outbox.ask_again(2, 1);
        assert_eq!(resent(&mut outbox, 5_999), Vec::<u8>::new());
        outbox.ask_again(2, 1);
        assert_eq!(resent(&mut outbox, 6_000), vec![2]);
    }

    /// [3.6.4] What was sent again, or is not kept any more, tells no round trip.
    #[test]
    fn only_a_frame_that_left_once_tells_the_round_trip() {
        let mut outbox = outbox(20);
        outbox.ask_again(7, 1);
        assert_eq!(resent(&mut outbox, 5_000), vec![7]);
        let at = |seq| outbox.sent_once_at(seq).map(|at| at.since(Instant::ZERO).as_nanos());
        assert_eq!([4, 5, 7, 20, 21].map(at), [None, Some(5), None, Some(20), None]);
        let all = |frames| outbox.all_sent_once(frames).map(|at| at.since(Instant::ZERO).as_nanos());
        assert_eq!([8..=12, 7..=12, 5..=6, 5..=7, 20..=21].map(all), [Some(12), None, Some(6), None, None]);
    }

    /// [1.2.2] However many ask for everything, and however often: a frame is looked at once.
    #[test]
    fn asking_again_and_again_costs_nothing_more() {
        let mut outbox = Outbox::new(100, 1208, 0);
        for number in 1..=170 {
            outbox.keep(Instant::from_nanos(number), &[number as u8; 100]);
        }
        for _ in 0..1000 {
            outbox.ask_again(1, u32::MAX);
            outbox.ask_again(u64::MAX, 1);
        }
        assert_eq!(resent(&mut outbox, 5_000), (71..=170).collect::<Vec<u8>>());
        assert!(!outbox.resend_waiting());
        outbox.ask_again(165, 3);
        outbox.ask_again(90, 2);
        (171..=192).for_each(|number| outbox.keep(Instant::from_nanos(number), &[number as u8; 100]));
        assert_eq!(resent(&mut outbox, 9_000), vec![165, 166, 167], "90 and 91 have been overwritten");
    }

    #[test]
    fn frames_of_an_older_term_are_never_sent_again() {
        let mut outbox = outbox(5);
        outbox.ask_again(1, 5);
        outbox.begin_term();
        outbox.ask_again(1, 5);
        assert_eq!(outbox.history_start(), 6);
        assert_eq!(resent(&mut outbox, 5_000), Vec::<u8>::new());
    }

    /// [3.6.7] A frame that is longer than the links carry is not sent again, and no older one: a hole has one end.
    #[test]
    fn a_smaller_frame_length_ends_the_history_behind_the_last_frame_that_is_too_long() {
        let mut outbox = Outbox::new(16, 2000, 0);
        for (number, length) in (1..).zip([1300, 1400, 1300, 1208, 100]) {
            outbox.keep(Instant::from_nanos(number), &vec![number as u8; length]);
        }
        outbox.set_frame_len(1350);
        assert_eq!(outbox.history_start(), 3);
        outbox.set_frame_len(1208);
        assert_eq!(outbox.history_start(), 4);
        outbox.ask_again(1, 5);
        let mut slot = [0; 1208];
        let length = outbox.send_again(Instant::from_nanos(9), Duration::from_nanos(1000), &mut slot);
        assert_eq!((length, slot[0], slot[1207]), (Some(1208), 4, 4));
        let length = outbox.send_again(Instant::from_nanos(9), Duration::from_nanos(1000), &mut slot);
        assert_eq!((length, slot[0], outbox.resend_waiting()), (Some(100), 5, false));
        outbox.set_frame_len(2000);
        assert_eq!(outbox.history_start(), 4, "what was given up stays so");
    }

    /// [3.6.7]
    #[test]
    fn a_larger_frame_length_keeps_the_history() {
        let mut outbox = outbox(20);
        outbox.set_frame_len(8960);
        outbox.keep(Instant::from_nanos(21), &[21; 8960]);
        outbox.ask_again(1, 30);
        let mut slot = [0; 8960];
        let mut seen = Vec::new();
        while let Some(length) = outbox.send_again(Instant::from_nanos(99), Duration::from_nanos(1), &mut slot) {
            seen.push((slot[0], length));
            assert!(slot[..length].iter().all(|byte| *byte == slot[0]));
        }
        assert_eq!((seen[0], seen[14], seen[15], seen.len()), ((6, 100), (20, 100), (21, 8960), 16));
    }

    #[test]
    fn a_mark_is_passed_when_all_before_it_have_left_or_nothing_waits() {
        let flow = |port| Flow::new(FlowKey { source_port: port, ..KEY });
        let mut outbox = outbox(0);
        let mut table = Table::new(64, 64, 1);
        for port in 1..=3 {
            table.put(&flow(port), Instant::ZERO).unwrap();
        }
        let mark = outbox.mark(&table);
        let mut waiting = Vec::new();
        for port in 4..=7 {
            table.put(&flow(port), Instant::ZERO).unwrap();
            table.sent(1);
            outbox.one_left();
            waiting.push(!outbox.has_left(&mark, &table));
        }
        assert_eq!(waiting, [true, true, false, false]);
        // One of four that are marked is cancelled: nothing that comes later is needed in its place.
        table.put(&flow(8), Instant::ZERO).unwrap();
        let mark = outbox.mark(&table);
        table.take(&flow(8).key);
        assert_eq!((table.pending(), outbox.has_left(&mark, &table)), (3, false));
        for left in [false, false, true] {
            table.sent(2);
            outbox.one_left();
            assert_eq!(outbox.has_left(&mark, &table), left);
        }
    }

    #[test]
    fn a_bucket_set_finds_its_members_in_order() {
        let mut set = BucketSet::empty();
        for bucket in [4095, 64, 0, 64, 9999] {
            set.insert(bucket);
        }
        assert_eq!(set.len(), 3);
        assert_eq!(
            (set.next(0), set.next(1), set.next(65), set.next(4095)),
            (Some(0), Some(64), Some(4095), Some(4095))
        );
        set.remove(4095);
        assert_eq!((set.next(65), set.len()), (None, 2));
        set.fill();
        assert_eq!((set.len(), set.next(77)), (4096, Some(77)));
    }
}
