//! Whom a submission waits for: `ack`, tickets, and what became of them (docs/protocol.md 6).
//!
//! ```text
//!   submit ──▶ ticket 17 … record leaves in frame 45 … proven frontiers of enough members ≥ 45 ──▶ 17: acknowledged
//!                 └────────────────────── ack_timeout ───────────────────────────────────────────▶ 17: failed
//! ```
//!
//! Tickets of one policy resolve in the order of their submission: the frame that each waits for, and its deadline, are not
//! before those of the one ahead of it. So there is a queue for each policy, and only its front is ever looked at. What the
//! daemon's source submits has no tickets: it waits in [`Spans`], and its failures are counted.

use super::breakage::Breakage;
use super::event::{Event, Role};
use super::outbox::Mark;
use super::spans::Spans;
use super::{Engine, UpdateError};
use crate::flow::{Change, SectionChange};
use crate::time::{Duration, Instant};
use crate::wire::{Advert, AdvertFlags, Header, PEERS_MAX, Status, SyncCode};
use std::collections::VecDeque;

/// Tickets that are open, or resolved and not fetched; a submission beyond them is refused.
pub const TICKETS_MAX: usize = 16_384;

/// Least time between two reports of submissions that failed.
const REPORT_SPACING: Duration = Duration::from_secs(1);

/// Whose acknowledgement a submission waits for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum Ack {
    /// Nobody's.
    #[default]
    None,
    /// One proven follower's.
    One,
    /// So many that they and the master are more than half of the configured members.
    Quorum,
    /// All other configured members'.
    All,
}

impl Ack {
    /// Every policy.
    pub const EVERY: [Ack; 4] = [Ack::None, Ack::One, Ack::Quorum, Ack::All];

    /// Its word in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Ack::None => "none",
            Ack::One => "one",
            Ack::Quorum => "quorum",
            Ack::All => "all",
        }
    }

    /// Whether it is counted from the number of members.
    pub const fn counts_members(self) -> bool {
        matches!(self, Ack::Quorum | Ack::All)
    }

    /// How many followers it asks for; `None` if that is counted from members that are not known.
    pub(super) fn followers(self, members: Option<u32>) -> Option<usize> {
        Some(match self {
            Ack::None => 0,
            Ack::One => 1,
            Ack::Quorum => members? as usize / 2,
            Ack::All => (members? as usize).saturating_sub(1),
        })
    }
}

/// A submission that waits for acknowledgement; numbers grow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

/// A submission was not acknowledged by enough followers in time, or its mastership has ended. It is replicated all the
/// same, as far as this node still can.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not acknowledged in time by the followers that were asked for")]
pub struct DurabilityFailed;

/// The frontier that a peer has said while it was proven: up to there our stream is in its table.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Acked {
    frontier: Option<u64>,
    /// The control frame that said so, or that there is no proof.
    said: u64,
}

impl Acked {
    /// `None` while the peer is not known to be proven.
    pub(super) fn frontier(&self) -> Option<u64> {
        self.frontier
    }

    /// Control frame number `said` says how far a proven peer is, or that it is not proven. Frames overtake each other, and
    /// one that was overtaken says nothing: the proof that it tells of may have ended.
    pub(super) fn hear(&mut self, said: u64, frontier: Option<u64>) {
        if said >= self.said {
            self.said = said;
            self.frontier = frontier.map(|frontier| frontier.max(self.frontier.unwrap_or(0)));
        }
    }

    /// What was said of another stream counts no more.
    pub(super) fn forget(&mut self) {
        self.frontier = None;
    }
}

/// The acknowledged frontiers of all proven followers.
#[derive(Debug)]
pub(super) struct Acknowledged {
    /// The highest first.
    frontiers: [u64; PEERS_MAX],
    count: usize,
}

impl Acknowledged {
    fn new(frontiers: impl Iterator<Item = u64>) -> Self {
        let mut sorted = Acknowledged { frontiers: [0; PEERS_MAX], count: 0 };
        for (place, frontier) in sorted.frontiers.iter_mut().zip(frontiers) {
            *place = frontier;
            sorted.count += 1;
        }
        sorted.frontiers[..sorted.count].sort_unstable_by(|one, other| other.cmp(one));
        sorted
    }

    /// What so many of them hold; `None` if there are not so many.
    pub(super) fn by(&self, followers: usize) -> Option<u64> {
        match followers.checked_sub(1) {
            None => Some(u64::MAX),
            Some(at) => self.frontiers[..self.count].get(at).copied(),
        }
    }

    /// What all of them hold; `None` if there is none.
    pub(super) fn slowest(&self) -> Option<u64> {
        self.frontiers[..self.count].last().copied()
    }
}

/// A submission whose ticket is not resolved.
#[derive(Clone, Copy, Debug)]
struct Open {
    ticket: Ticket,
    at: Instant,
    /// Behind its record in the queue.
    end: Mark,
    /// The frame that carries it, or one after it, once it has left.
    seq: Option<u64>,
}

/// Open tickets of one policy, the oldest first.
#[derive(Debug)]
struct Queue {
    open: VecDeque<Open>,
    /// Tickets at the front whose record has left.
    left: usize,
}

impl Queue {
    fn new() -> Self {
        Queue { open: VecDeque::with_capacity(TICKETS_MAX), left: 0 }
    }

    fn seal(&mut self, seq: u64, has_left: impl Fn(&Mark) -> bool) {
        while let Some(open) = self.open.get_mut(self.left).filter(|open| has_left(&open.end)) {
            open.seq = Some(seq);
            self.left += 1;
        }
    }

    fn take_if(&mut self, wanted: impl Fn(&Open) -> bool) -> Option<Ticket> {
        let ticket = self.open.front().filter(|open| wanted(open))?.ticket;
        self.open.pop_front();
        self.left = self.left.saturating_sub(1);
        Some(ticket)
    }
}

/// The policies that wait, in the order of their queues.
const WAITING: [Ack; 3] = [Ack::One, Ack::Quorum, Ack::All];

/// Tickets, and what the source has submitted under the group's policy.
#[derive(Debug)]
pub(super) struct Durability {
    next: u64,
    queues: [Queue; WAITING.len()],
    resolved: VecDeque<(Ticket, bool)>,
    submitted: Spans,
    /// Submissions without a ticket that failed and are not reported.
    unreported: u64,
    reported_at: Option<Instant>,
    /// Masterships of this engine.
    pub(super) masterships: u64,
}

impl Durability {
    pub(super) fn new() -> Self {
        Durability {
            next: 1,
            queues: [Queue::new(), Queue::new(), Queue::new()],
            resolved: VecDeque::with_capacity(TICKETS_MAX),
            submitted: Spans::new(),
            unreported: 0,
            reported_at: None,
            masterships: 0,
        }
    }

    fn tickets(&self) -> usize {
        self.resolved.len() + self.queues.iter().map(|queue| queue.open.len()).sum::<usize>()
    }

    /// Whether anything waits for acknowledgement.
    fn is_idle(&self) -> bool {
        self.submitted.is_empty() && self.queues.iter().all(|queue| queue.open.is_empty())
    }

    fn open(&mut self, now: Instant, ack: Ack, end: Mark) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        match WAITING.iter().position(|policy| *policy == ack) {
            Some(at) => self.queues[at].open.push_back(Open { ticket, at: now, end, seq: None }),
            None => self.resolved.push_back((ticket, true)),
        }
        ticket
    }

    /// What has left the queue is in frames up to `seq`.
    fn seal(&mut self, seq: u64, has_left: impl Fn(&Mark) -> bool) {
        self.queues.iter_mut().for_each(|queue| queue.seal(seq, &has_left));
        self.submitted.seal(seq, &has_left);
    }

    /// When the oldest submission has waited for so long, or the next report of those that failed is due.
    fn deadline(&self, timeout: Duration) -> Option<Instant> {
        let opened = self.queues.iter().filter_map(|queue| queue.open.front()).map(|open| open.at);
        let waiting = opened.chain(self.submitted.first().map(|span| span.last)).min().map(|at| at + timeout);
        let report = (self.unreported > 0).then(|| self.reported_at.map_or(Instant::ZERO, |at| at + REPORT_SPACING));
        [waiting, report].into_iter().flatten().min()
    }
}

impl Engine {
    /// As [`Engine::update`], and the ticket is told by [`Engine::poll_ticket`] when `ack` is fulfilled or has failed.
    ///
    /// # Errors
    /// [`UpdateError`]; nothing has changed then.
    pub fn submit(&mut self, now: Instant, change: &Change, ack: Ack) -> Result<Ticket, UpdateError> {
        self.may_wait(ack)?;
        if self.change(now, change)? {
            self.exposure.submitted(now, self.outbox.mark(&self.table));
        }
        Ok(self.open_ticket(now, ack))
    }

    /// The same for an entry of a section.
    ///
    /// # Errors
    /// [`UpdateError`]; nothing has changed then.
    pub fn submit_section(&mut self, now: Instant, change: &SectionChange, ack: Ack) -> Result<Ticket, UpdateError> {
        self.may_wait(ack)?;
        self.change_section(now, change)?;
        self.exposure.submitted(now, self.outbox.mark(&self.table));
        Ok(self.open_ticket(now, ack))
    }

    /// The next ticket that is resolved.
    pub fn poll_ticket(&mut self) -> Option<(Ticket, Result<(), DurabilityFailed>)> {
        let (ticket, acknowledged) = self.durability.resolved.pop_front()?;
        Some((ticket, if acknowledged { Ok(()) } else { Err(DurabilityFailed) }))
    }

    /// Whether a submission can be waited for. Looked at before it is taken, so that a refusal changes nothing.
    fn may_wait(&mut self, ack: Ack) -> Result<(), UpdateError> {
        if ack.counts_members() && self.config.members.is_none() {
            return Err(UpdateError::MembersUnknown);
        }
        if self.durability.tickets() >= TICKETS_MAX {
            self.counters.tickets_refused += 1;
            return Err(UpdateError::TicketsFull);
        }
        Ok(())
    }

    fn open_ticket(&mut self, now: Instant, ack: Ack) -> Ticket {
        let ticket = self.durability.open(now, ack, self.outbox.mark(&self.table));
        if self.table.pending() == 0 && self.table.pending_sections() == 0 {
            self.settle(now);
        }
        ticket
    }

    /// The source, or time, has changed the table: it counts under the group's own policy.
    pub(super) fn submitted(&mut self, now: Instant) {
        let end = self.outbox.mark(&self.table);
        self.exposure.submitted(now, end);
        if self.config.ack != Ack::None {
            self.durability.submitted.note(now, end);
        }
        // The last that waited was cancelled: nothing will leave that could be waited for.
        if self.table.pending() == 0 {
            self.settle(now);
        }
    }

    /// A frame of so many records has left: what was in it is known from now on.
    pub(super) fn frame_left(&mut self, now: Instant, records: u64) {
        let (outbox, table) = (&self.outbox, &self.table);
        let has_left = |mark: &Mark| outbox.has_left(mark, table);
        self.exposure.frame_left(now, outbox.seq(), records, has_left);
        self.durability.seal(outbox.seq(), has_left);
    }

    /// Resolves what has been acknowledged, or has waited for too long.
    pub(super) fn settle(&mut self, now: Instant) {
        if self.role() != Role::Master {
            return;
        }
        let (outbox, table) = (&self.outbox, &self.table);
        self.exposure.settle(|mark| outbox.has_left(mark, table));
        let acknowledged = self.acknowledged();
        if acknowledged.slowest().is_some() {
            self.exposure.covered(now);
        }
        if !self.durability.is_idle() {
            self.durability.seal(self.outbox.seq(), |mark| self.outbox.has_left(mark, &self.table));
            self.resolve_tickets(now, &acknowledged);
            self.resolve_submitted(now, &acknowledged);
        }
        self.report_failures(now, false);
    }

    fn resolve_tickets(&mut self, now: Instant, acknowledged: &Acknowledged) {
        let latest = self.latest_in_time(now);
        for (queue, ack) in self.durability.queues.iter_mut().zip(WAITING) {
            let held = ack.followers(self.config.members).and_then(|followers| acknowledged.by(followers));
            while let Some(ticket) = queue.take_if(|open| open.seq.is_some() && open.seq <= held) {
                self.durability.resolved.push_back((ticket, true));
            }
            while let Some(ticket) = queue.take_if(|open| latest.is_some_and(|latest| open.at <= latest)) {
                self.counters.tickets_failed += 1;
                self.durability.resolved.push_back((ticket, false));
            }
        }
    }

    fn resolve_submitted(&mut self, now: Instant, acknowledged: &Acknowledged) {
        let submitted = &mut self.durability.submitted;
        let followers = self.config.ack.followers(self.config.members);
        if let Some(held) = followers.and_then(|followers| acknowledged.by(followers)) {
            while submitted.take_left(held).is_some() {}
        }
        let Some(latest) = self.latest_in_time(now) else { return };
        let mut failed = 0;
        while let Some(span) = self.durability.submitted.take_late(latest) {
            failed += span.submissions;
        }
        self.submissions_failed(failed);
    }

    fn submissions_failed(&mut self, failed: u64) {
        self.counters.submissions_failed += failed;
        self.durability.unreported += failed;
    }

    /// What was submitted then or before has waited for the whole of `ack_timeout`.
    fn latest_in_time(&self, now: Instant) -> Option<Instant> {
        let waited = u64::try_from(self.config.ack_timeout.as_nanos()).ok()?;
        now.as_nanos().checked_sub(waited).map(Instant::from_nanos)
    }

    fn report_failures(&mut self, now: Instant, at_once: bool) {
        let durability = &mut self.durability;
        let due = durability.reported_at.is_none_or(|at| now.since(at) >= REPORT_SPACING);
        if durability.unreported > 0 && (due || at_once) {
            durability.reported_at = Some(now);
            let submissions = std::mem::take(&mut durability.unreported);
            self.event(Event::DurabilityFailed { submissions });
        }
    }

    /// The role is lost: nothing that is still open can be acknowledged.
    pub(super) fn end_waiting(&mut self, now: Instant) {
        for queue in &mut self.durability.queues {
            while let Some(ticket) = queue.take_if(|_| true) {
                self.counters.tickets_failed += 1;
                self.durability.resolved.push_back((ticket, false));
            }
        }
        let failed = self.durability.submitted.clear();
        self.submissions_failed(failed);
        self.report_failures(now, true);
    }

    /// When [`Engine::settle`] is due although nothing happens.
    pub(super) fn settle_at(&self) -> Option<Instant> {
        self.durability.deadline(self.config.ack_timeout).filter(|_| self.role() == Role::Master)
    }

    /// What proven followers of this mastership are known to hold.
    pub(super) fn acknowledged(&self) -> Acknowledged {
        Acknowledged::new(self.peers.established().filter_map(|peer| peer.acked.frontier()))
    }

    /// What an ADVERT says of its sender's proof. It counts if the sender follows the present term of ours.
    pub(super) fn hear_proof(&mut self, header: &Header, advert: &Advert<'_>) {
        let own = (self.config.node, self.incarnation);
        let follows = (advert.follows.node, advert.follows.incarnation) == own && advert.follows.term == self.term;
        let says_proven =
            advert.flags.contains(AdvertFlags::PROVEN) || self.breaks(Breakage::UnprovenFrontierAcknowledges);
        let proven = self.role() == Role::Master && follows && says_proven;
        let report = advert.peers.iter().find(|report| (report.node(), report.incarnation()) == own);
        let newest = self.outbox.seq();
        let frontier = report.filter(|_| proven).map(|report| report.frontier().min(newest));
        if let Some(peer) = self.peers.get_mut(header.node, header.incarnation) {
            peer.acked.hear(header.seq, frontier);
        }
    }

    /// What a STATUS to this master says of its sender's proof. It names no term: that is in the sender's last ADVERT.
    pub(super) fn hear_proof_of_status(&mut self, header: &Header, status: &Status<'_>) {
        let (own, term, newest) = ((self.config.node, self.incarnation), self.term, self.outbox.seq());
        let says_proven = status.state == SyncCode::PROVEN || self.breaks(Breakage::UnprovenFrontierAcknowledges);
        let Some(peer) = self.peers.get_mut(header.node, header.incarnation) else { return };
        let follows = &peer.word.follows;
        let of_this_term = (follows.node, follows.incarnation) == own && follows.term == term;
        peer.acked.hear(header.seq, (of_this_term && says_proven).then(|| status.frontier.min(newest)));
    }
}
