//! DIGESTS, both sides of them: a follower asks which buckets differ, its master answers from its table as it stands.
//!
//! ```text
//!   follower                                    master, stream at 4711
//!      │ request: buckets 0 to 4095                │
//!      ├──────────────────────────────────────────▶│ noted: a set of buckets for each asker
//!      │                          DATA 4712 …      │
//!      │◀──────────────────────────────────────────┤ live changes go first; every fourth frame may be an answer
//!      │ answer: cut 4715, buckets 0 to 127        │
//!      │◀──────────────────────────────────────────┤ a bucket of which a record waits to be sent: not settled
//!      │ frontier 4715: bucket untouched since     │
//!      │ the cut → equal or different              │
//! ```
//!
//! Whoever asks too much is refused, and counted: each peer is granted so many buckets per [`GRANT_PERIOD`], of digests and
//! of walks. What it has asked for and not got is a bit in a set, however often it asks.

use super::breakage::Breakage;
use super::outbox::BucketSet;
use super::{Engine, Role};
use crate::table::BUCKETS;
use crate::time::{Duration, Instant};
use crate::wire::{
    BucketDigest, DIGESTS_MAX, DigestsAnswer, DigestsRequest, FrameError, Header, Kind, NodeId, PEERS_MAX, Target,
    encode_digests_answer, encode_digests_request,
};

/// How often a peer's grants are renewed.
const GRANT_PERIOD: Duration = Duration::from_millis(100);

/// Buckets of which a peer may ask the digests in a period: every one twice.
const DIGESTS_GRANTED: u32 = 2 * BUCKETS as u32;

/// Buckets that a peer may PULL in a period: every one twice.
const PULLS_GRANTED: u32 = 2 * BUCKETS as u32;

/// Pages of a merge that a peer may ask for in a period: no question is answered sooner than the one before has arrived.
const PAGES_GRANTED: u32 = 512;

/// DATA frames that leave before an answer, as long as any waits.
const DATA_PER_ANSWER: u32 = 4;

/// One who asks.
#[derive(Debug)]
struct Asker {
    node: NodeId,
    incarnation: u64,
    /// Buckets of which it waits to hear.
    waits_for: BucketSet,
    granted_at: Instant,
    digests_left: u32,
    pulls_left: u32,
    pages_left: u32,
}

/// What a master still has to answer, and to whom.
#[derive(Debug)]
pub(super) struct Answers {
    askers: Vec<Asker>,
    /// The asker whose turn it is.
    turn: usize,
    /// DATA frames since the last answer.
    data_since: u32,
}

impl Answers {
    pub(super) fn new() -> Self {
        Answers { askers: Vec::with_capacity(PEERS_MAX), turn: 0, data_since: 0 }
    }

    /// Nothing is answered any more.
    pub(super) fn clear(&mut self) {
        self.askers.clear();
    }

    /// Whether somebody waits for an answer.
    pub(super) fn are_waited_for(&self) -> bool {
        self.askers.iter().any(|asker| asker.waits_for.len() > 0)
    }

    /// A DATA frame has left.
    fn data_left(&mut self) {
        self.data_since += 1;
    }

    /// Whether so many DATA frames have left that an answer goes first.
    fn come_first(&self) -> bool {
        self.data_since >= DATA_PER_ANSWER && self.are_waited_for()
    }

    /// Whether this peer may ask for the digests of so many buckets now; it then waits for them.
    fn want(&mut self, now: Instant, peer: (NodeId, u64), buckets: std::ops::Range<u16>) -> bool {
        let Some(asker) = self.asker(now, peer) else { return false };
        let count = u32::from(buckets.end.saturating_sub(buckets.start));
        let Some(left) = asker.digests_left.checked_sub(count) else { return false };
        asker.digests_left = left;
        buckets.for_each(|bucket| asker.waits_for.insert(bucket));
        true
    }

    /// Whether this peer may PULL so many buckets now.
    pub(super) fn grant_pull(&mut self, now: Instant, peer: (NodeId, u64), count: u32) -> bool {
        let Some(asker) = self.asker(now, peer) else { return false };
        let Some(left) = asker.pulls_left.checked_sub(count) else { return false };
        asker.pulls_left = left;
        true
    }

    /// Whether this peer may ask for a page of a merge now.
    pub(super) fn grant_page(&mut self, now: Instant, peer: (NodeId, u64)) -> bool {
        let Some(asker) = self.asker(now, peer) else { return false };
        let Some(left) = asker.pages_left.checked_sub(1) else { return false };
        asker.pages_left = left;
        true
    }

    /// The next buckets to be answered, at most [`DIGESTS_MAX`] of them, and for whom: askers in turn.
    fn take(&mut self) -> Option<(Target, u16, u16)> {
        let count = self.askers.len();
        let at = (0..count).map(|step| (self.turn + step) % count).find(|at| self.askers[*at].waits_for.len() > 0)?;
        self.turn = at + 1;
        self.data_since = 0;
        let asker = &mut self.askers[at];
        let first = asker.waits_for.next(0)?;
        let mut last = first;
        let end = first + DIGESTS_MAX as u16;
        while let Some(next) = asker.waits_for.next(last).filter(|next| *next < end) {
            asker.waits_for.remove(next);
            last = next;
        }
        Some((Target { node: asker.node, incarnation: asker.incarnation }, first, last + 1 - first))
    }

    /// An asker with what it is granted now; `None` if there are too many who are all still waiting.
    fn asker(&mut self, now: Instant, (node, incarnation): (NodeId, u64)) -> Option<&mut Asker> {
        let known = self.askers.iter().position(|asker| asker.node == node && asker.incarnation == incarnation);
        let at = match known {
            Some(at) => at,
            None => {
                if self.askers.len() == PEERS_MAX {
                    self.askers.retain(|asker| asker.waits_for.len() > 0);
                }
                if self.askers.len() == PEERS_MAX {
                    return None;
                }
                self.askers.push(Asker {
                    node,
                    incarnation,
                    waits_for: BucketSet::empty(),
                    granted_at: now,
                    digests_left: DIGESTS_GRANTED,
                    pulls_left: PULLS_GRANTED,
                    pages_left: PAGES_GRANTED,
                });
                self.askers.len() - 1
            }
        };
        let asker = &mut self.askers[at];
        if now.since(asker.granted_at) >= GRANT_PERIOD {
            asker.granted_at = now;
            (asker.digests_left, asker.pulls_left) = (DIGESTS_GRANTED, PULLS_GRANTED);
            asker.pages_left = PAGES_GRANTED;
        }
        Some(asker)
    }
}

impl Engine {
    // ------------------------------------------------------------------ the master

    pub(super) fn receive_digests_request(
        &mut self,
        now: Instant,
        header: &Header,
        request: &DigestsRequest,
    ) -> Result<(), FrameError> {
        let ours = self.is_own(&request.target);
        let is_master = self.role() == Role::Master;
        self.peers.control(now, header, false)?;
        if !ours || !is_master {
            self.counters.not_for_us += 1;
            return Ok(());
        }
        let (first, count) = (request.buckets.first(), request.buckets.count());
        let granted = self.answers.want(now, (header.node, header.incarnation), first..first + count);
        *(if granted {
            &mut self.counters.digests_requests_received
        } else {
            &mut self.counters.digests_requests_refused
        }) += 1;
        Ok(())
    }

    /// DATA, or an answer when enough DATA has left or none is due: live changes are never held up by who asks.
    pub(super) fn send_data_or_answer(&mut self, now: Instant, slot: &mut [u8]) -> Option<usize> {
        if self.answers.come_first()
            && let Some(length) = self.send_answer(slot)
        {
            return Some(length);
        }
        match self.send_data(now, slot) {
            Some(length) => {
                self.answers.data_left();
                Some(length)
            }
            None => self.send_answer(slot),
        }
    }

    /// A master whose table is no proof of anything yet [4.4.4] says so: no bucket of it is settled.
    fn send_answer(&mut self, slot: &mut [u8]) -> Option<usize> {
        if self.role() != Role::Master {
            return None;
        }
        let (target, first, count) = self.answers.take()?;
        let mut digests = [BucketDigest::new(0); DIGESTS_MAX];
        let mut settled = 0;
        for (nth, bucket) in (first..first + count).enumerate() {
            if !self.cold && self.table.bucket_pending(bucket) == 0 {
                settled |= 1 << nth;
                digests[nth] = BucketDigest::new(self.table.bucket_digest(bucket));
            }
        }
        let digests = &digests[..usize::from(count)];
        let answer = DigestsAnswer { target, cut: self.outbox.seq(), first, settled, digests };
        let header = self.control_header(Kind::DIGESTS_ANSWER);
        let body = slot.len().checked_sub(self.keyring.overhead())?;
        let length = encode_digests_answer(&mut slot[..body], header, &answer)?;
        let length = self.keyring.seal(slot, length)?;
        self.counters.digests_answers_sent += 1;
        Some(length)
    }

    // ------------------------------------------------------------------ the follower

    pub(super) fn send_digests_request(&mut self, now: Instant, slot: &mut [u8]) -> Option<usize> {
        let stream = self.inbox.stream()?;
        if self.repair_waits() || self.repair.ask_at()? > now {
            return None;
        }
        let buckets = self.repair.request_leaves(now)?;
        let header = self.control_header(Kind::DIGESTS_REQUEST);
        let target = Target { node: stream.node, incarnation: stream.incarnation };
        let length = encode_digests_request(slot, header, &DigestsRequest { target, buckets })?;
        self.counters.digests_requests_sent += 1;
        Some(length)
    }

    /// An answer counts if it is of the followed stream, and its cut not below the base: what was missed up to there touched
    /// nothing here.
    pub(super) fn receive_digests_answer(
        &mut self,
        now: Instant,
        header: &Header,
        answer: &DigestsAnswer<'_>,
    ) -> Result<(), FrameError> {
        let ours = self.is_own(&answer.target);
        self.peers.control(now, header, false)?;
        // Whomever it answers: the master lives.
        let followed = self.master_lives(now, header);
        if !ours || !followed {
            self.counters.not_for_us += 1;
            return Ok(());
        }
        self.counters.digests_answers_received += 1;
        self.repair.answered();
        if answer.cut < self.inbox.base() || answer.cut > super::STREAM_SEQ_MAX {
            return Ok(());
        }
        for (bucket, digest) in answer.iter() {
            match digest {
                Some(digest) => self.repair.hold(bucket, answer.cut, digest),
                None => self.counters.buckets_undecided += 1,
            }
        }
        self.judge_buckets(now);
        Ok(())
    }

    /// Compares every bucket whose answer the frontier has reached, unless a frame above the cut has touched it [4.4.9].
    pub(super) fn judge_buckets(&mut self, now: Instant) {
        let touched_ignored = self.breaks(Breakage::TouchedIgnored);
        let (table, inbox) = (&self.table, &self.inbox);
        let counters = &mut self.counters;
        let proof = self.repair.judge(now, inbox.frontier(), |bucket, cut, digest| {
            if table.touched(bucket) > inbox.local(cut) && !touched_ignored {
                counters.buckets_undecided += 1;
                return None;
            }
            let equal = table.bucket_digest(bucket) == digest;
            *(if equal { &mut counters.buckets_matched } else { &mut counters.buckets_differed }) += 1;
            Some(equal)
        });
        if let Some(proof) = proof {
            self.proven(now, proof);
        }
    }
}
