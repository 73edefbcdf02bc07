//! What only one of two tables holds lives on in both (docs/protocol.md 5.5, 5.2.5, 5.1.3).
//!
//! ```text
//!   who was master, and is backup now                  the master (or who is about to be)
//!      │ ADVERT: "I offer"                                │
//!      ├─────────────────────────────────────────────────▶│  it knows my stream up to 700, or nothing of it
//!      │          PULL: stream (me), after 700, cursor 0  │
//!      │◀─────────────────────────────────────────────────┤  one question at a time; repeated until it is answered
//!      │ RECORDS: cursor 0, next 0x3a…, 50 entries        │
//!      ├─────────────────────────────────────────────────▶│  absent, or not said since the takeover: adopted
//!      │          …                  PULL: done           │
//!      │◀─────────────────────────────────────────────────┤
//!      │ removes what its master lacks, as any backup     │
//! ```
//!
//! A node remembers which streams it has followed and mastered, by the ordinals that its table gave them: so each entry
//! tells where it comes from. Nothing is adopted that was not asked for.

use super::breakage::Breakage;
use super::event::{Event, Role};
use super::peers::Peer;
use super::{Engine, STREAM_SEQ_MAX};
use crate::flow::Flow;
use crate::table::{Adopted, PageEntry, Refused};
use crate::time::{Duration, Instant};
use crate::wire::{
    CURSOR_END, FrameError, Header, Kind, MergePull, MergeRecords, MergeWriter, NodeId, PEERS_MAX, PushError,
    RECORDS_MAX, Record, Target, encode_merge_pull,
};
use std::collections::VecDeque;

/// Streams that are remembered, the newest of them.
const STREAMS_MAX: usize = 64;
/// Slots looked at for a page, about.
const PAGE_SLOTS: u32 = 16_384;
/// Time after which a question is repeated at first, and at most.
const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_millis(500);
/// Times that "done" is said before a peer that offers still is asked anew: then it was master again meanwhile.
const DONE_MAX: u8 = 2;
/// In place of a number of those: no more is asked for.
const GIVEN_UP: u8 = u8::MAX;
/// The bits of a cursor that tell the order of the table in which it was given; the rest is of a key's hash.
const ORDER_BITS: u64 = 0xff;
/// Orders are counted from 1 to this, and then anew. So no cursor is 0, which is in no order, and none is [`CURSOR_END`].
const ORDER_MAX: u64 = 0xfe;

/// One of the streams that this node has followed or mastered.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// As the table counts it.
    ordinal: u16,
    node: NodeId,
    incarnation: u64,
    /// What the table's numbers are counted from.
    origin: u64,
    own: bool,
    /// Where this node stood when it followed it no longer, above what it has missed nothing, and whether it was proven then.
    frontier: u64,
    base: u64,
    proven: bool,
}

/// What is told of streams that a question does not name.
#[derive(Clone, Copy, Debug)]
struct Scope {
    asker: Target,
    /// What was said from the stream of this ordinal on: since the asker left the named one, or as far as it is offered. What
    /// the asker itself has said it knows.
    since: Option<u16>,
    /// What was said before the stream of this ordinal: this node has skipped a part of the named one, and has proven what it
    /// holds by digests, so that it cannot tell which entries were named there.
    unheard_before: u16,
}

/// The stream that a master has taken over.
#[derive(Clone, Copy, Debug)]
struct Predecessor {
    node: NodeId,
    incarnation: u64,
    /// Up to here everything was held; 0 where that is not sure.
    after: u64,
}

/// A merge that runs.
#[derive(Clone, Copy, Debug)]
struct Asking {
    /// The question that is open.
    pull: MergePull,
    /// Before a takeover: what is said is newer than this frame of the stream that was followed, as the table counts. 0: a
    /// master asks, because of an offer.
    upto: u64,
    ask_at: Instant,
    delay: Duration,
    since: Instant,
    adopted: u64,
}

/// Both sides of merges.
#[derive(Debug)]
pub(super) struct Merge {
    known: VecDeque<Known>,
    /// Entries of own masterships, from the stream of this ordinal on, that no master has asked for.
    offered: Option<u16>,
    /// Until then nothing is removed because the followed master lacks it.
    held_until: Option<Instant>,
    /// Who has asked, and was not heard to be done.
    asked_by: Option<(NodeId, u64)>,
    /// Who was given the last page of what it asked for.
    served: Option<(NodeId, u64)>,
    /// Questions that wait to be answered: one of each asker.
    questions: VecDeque<(Target, MergePull)>,
    page: Vec<PageEntry>,
    /// The seed by which the table stood when the last page was given, and which order that was.
    order: (u64, u64),
    predecessor: Option<Predecessor>,
    asking: Option<Asking>,
    /// To be said: that was all.
    done: Option<MergePull>,
}

impl Merge {
    pub(super) fn new() -> Self {
        Merge {
            known: VecDeque::with_capacity(STREAMS_MAX),
            offered: None,
            held_until: None,
            asked_by: None,
            served: None,
            questions: VecDeque::with_capacity(PEERS_MAX),
            page: Vec::with_capacity(RECORDS_MAX + 1),
            order: (0, 1),
            predecessor: None,
            asking: None,
            done: None,
        }
    }

    fn know(&mut self, stream: Known) {
        // Ordinals that begin anew say nothing of the old ones.
        if self.known.back().is_some_and(|last| stream.ordinal != last.ordinal + 1) {
            self.known.clear();
            self.offered = None;
        }
        if self.known.len() == STREAMS_MAX {
            self.known.pop_front();
        }
        self.known.push_back(stream);
    }

    /// Which entries answer a question, told from the streams in which they were said last.
    fn scope(&self, asker: Target, pull: &MergePull) -> Scope {
        let is_named = |known: &&Known| (known.node, known.incarnation) == (pull.node, pull.incarnation);
        let skipped = |known: &&Known| !known.own && known.proven && known.base > pull.after;
        let named = self.known.iter().rev().find(is_named);
        let left = self.known.iter().rev().filter(is_named).find(|known| known.origin <= pull.after);
        let since = [self.offered, left.map(|known| known.ordinal + 1)].into_iter().flatten().min();
        Scope { asker, since, unheard_before: named.filter(skipped).map_or(0, |known| known.ordinal) }
    }

    /// Whether an entry that was said in frame `number` of the stream with this ordinal answers the question.
    fn answers(&self, pull: &MergePull, scope: Scope, (ordinal, number): (u16, u64)) -> bool {
        if pull.after == 0 || ordinal < scope.unheard_before {
            return true;
        }
        let Some(first) = self.known.front() else { return false };
        let Some(known) = self.known.get(usize::from(ordinal.wrapping_sub(first.ordinal))) else { return false };
        let stream = (known.node, known.incarnation);
        if stream == (pull.node, pull.incarnation) {
            return known.origin.saturating_add(number) > pull.after;
        }
        stream != (scope.asker.node, scope.asker.incarnation) && scope.since.is_some_and(|since| ordinal >= since)
    }

    /// Where in the table a page begins. A table that is hashed by another seed since stands in another order: it is told
    /// from its beginning.
    fn page_start(&mut self, seed: u64, cursor: u64) -> u64 {
        if self.order.0 != seed {
            self.order = (seed, self.order.1 % ORDER_MAX + 1);
        }
        if cursor & ORDER_BITS == self.order.1 { cursor & !ORDER_BITS } else { 0 }
    }

    /// The cursor of a page that begins with this hash.
    fn cursor(&self, hash: u64) -> u64 {
        hash & !ORDER_BITS | self.order.1
    }

    /// Nothing is offered any more, and nothing held back.
    fn release(&mut self) {
        (self.offered, self.held_until, self.asked_by, self.served) = (None, None, None, None);
    }
}

impl Engine {
    // ------------------------------------------------------------------ which streams there were

    /// Another stream is followed from now on; its numbers are counted from `origin`.
    pub(super) fn know_followed(&mut self, now: Instant, (node, incarnation): (NodeId, u64), origin: u64) {
        let ordinal = self.table.ordinal();
        self.merge.know(Known { ordinal, node, incarnation, origin, own: false, frontier: 0, base: 0, proven: false });
        if self.merge.offered.is_some() || self.merge.asked_by == Some((node, incarnation)) {
            self.merge.held_until = Some(now + self.config.merge_deadline);
        }
    }

    /// Nobody is followed from now on: what was known of the stream is noted.
    pub(super) fn unfollow(&mut self) {
        self.note_stand();
        self.merge.held_until = None;
        self.inbox.unfollow();
        self.repair.unfollow();
    }

    /// Where this node stands in the stream that it follows.
    fn note_stand(&mut self) {
        let (frontier, base, proven) = (self.inbox.frontier(), self.inbox.base(), self.repair.is_proven());
        if let Some(known) = self.merge.known.back_mut().filter(|_| self.inbox.stream().is_some()) {
            (known.frontier, known.base, known.proven) = (frontier, base, proven);
        }
    }

    /// An own stream has begun; `anew`: with a mastership, and not because numbers came to their end.
    pub(super) fn know_own(&mut self, anew: bool) {
        let last = self.merge.known.back().copied();
        if let Some(known) = last.filter(|known| anew && !known.own) {
            let Known { node, incarnation, frontier, proven, .. } = known;
            self.merge.predecessor = Some(Predecessor { node, incarnation, after: if proven { frontier } else { 0 } });
        }
        if anew && !last.is_some_and(|known| known.own) {
            self.table.begin_reign();
        }
        self.merge.know(Known {
            ordinal: self.table.ordinal(),
            node: self.config.node,
            incarnation: self.incarnation,
            origin: self.outbox.seq(),
            own: true,
            frontier: 0,
            base: 0,
            proven: false,
        });
    }

    /// The mastership is over: the next master may lack what this one has.
    pub(super) fn offer(&mut self) {
        self.merge.offered.get_or_insert(self.table.reign());
        self.merge.served = None;
    }

    /// Whether a master is to ask this node.
    pub(super) fn offers(&self) -> bool {
        let waits = self.merge.offered.is_some() || self.merge.held_until.is_some();
        waits && self.role() == Role::Backup
    }

    /// The table is equal to the followed master's: it lacks nothing.
    pub(super) fn nothing_to_offer(&mut self) {
        self.merge.release();
    }

    /// Whether this node's repair waits until its master has asked for what it lacks.
    pub(super) fn repair_waits(&self) -> bool {
        self.merge.held_until.is_some() && !self.breaks(Breakage::BucketEndsDuringMerge)
    }

    // ------------------------------------------------------------------ who asks, and whom

    /// The first phase of a takeover begins: what a peer holds of the dead stream beyond our frontier comes first; and to
    /// a node that has nothing yet, everything [5.1.3] [5.2.5].
    pub(super) fn begin_early_merge(&mut self, now: Instant) {
        if self.breaks(Breakage::NoMergeBeforeTakeover) {
            return;
        }
        let question = if self.cold { self.ask_the_warmest() } else { self.ask_the_furthest() };
        if let Some((pull, upto)) = question {
            self.ask(now, pull, upto);
        }
    }

    fn ask_the_warmest(&self) -> Option<(MergePull, u64)> {
        let warm = self.peers.established().filter(|peer| !peer.word.is_cold());
        let peer = warm.max_by_key(|peer| (peer.word.entries, peer.node))?;
        Some((question(peer, (peer.node, peer.incarnation), 0), u64::MAX))
    }

    fn ask_the_furthest(&self) -> Option<(MergePull, u64)> {
        // While a master lives, nothing of it is lost; and what is followed is not to be mixed with what another one says.
        let dead = self.inbox.stream().is_none();
        let known = self.merge.known.back().filter(|known| dead && !known.own)?;
        let (frontier, proven) = (known.frontier, known.proven);
        let stream = (known.node, known.incarnation);
        let is_further = |peer: &&Peer| {
            let held = peer.followed;
            let enough = if proven { held.frontier > frontier } else { held.proven && held.frontier >= frontier };
            (held.node, held.incarnation) == stream && enough
        };
        let furthest = self.peers.established().filter(is_further);
        let peer = furthest.max_by_key(|peer| (peer.followed.proven, peer.followed.frontier, peer.node))?;
        let after = if proven { frontier } else { 0 };
        Some((question(peer, stream, after), peer.followed.frontier.saturating_sub(known.origin)))
    }

    /// A backup's ADVERT: whether it offers what we may lack.
    pub(super) fn hear_offer(&mut self, now: Instant, header: &Header) {
        let own = (self.config.node, self.incarnation);
        let is_master = self.role() == Role::Master;
        let predecessor = self.merge.predecessor;
        let Some(peer) = self.peers.get_mut(header.node, header.incarnation) else { return };
        if !peer.word.offers() {
            peer.merged = 0;
            return;
        }
        let follows = (peer.word.follows.node, peer.word.follows.incarnation);
        if !is_master || follows != own || peer.merged == GIVEN_UP || self.merge.asking.is_some() {
            return;
        }
        let stream = predecessor.map_or((peer.node, peer.incarnation), |it| (it.node, it.incarnation));
        let pull = question(peer, stream, predecessor.map_or(0, |it| it.after));
        if (1..=DONE_MAX).contains(&peer.merged) {
            peer.merged += 1;
            self.merge.done = Some(MergePull { cursor: CURSOR_END, ..pull });
        } else {
            peer.merged = 0;
            self.ask(now, pull, 0);
        }
    }

    fn ask(&mut self, now: Instant, pull: MergePull, upto: u64) {
        let delay = RETRY_MIN;
        self.merge.asking = Some(Asking { pull, upto, ask_at: now, delay, since: now, adopted: 0 });
    }

    /// Whether [`Engine::poll_applied`] would yield something at a master, as after frames that told what a merge has brought.
    pub fn sink_waits(&self) -> bool {
        self.role() == Role::Master && self.table.sink_waits()
    }

    /// Whether the first phase of a takeover has to wait for a merge.
    pub(super) fn merges_first(&self) -> bool {
        self.merge.asking.is_some() && self.role() == Role::Promoting
    }

    /// This node is to be master no longer.
    pub(super) fn forget_merge(&mut self) {
        (self.merge.asking, self.merge.done) = (None, None);
    }

    // ------------------------------------------------------------------ time

    /// When something is due.
    pub(super) fn merge_at(&self) -> Option<Instant> {
        let give_up = self.merge.asking.map(|it| it.since + self.config.merge_deadline);
        let ask = self.merge.asking.map(|it| it.ask_at);
        let waits = self.merge.done.is_some() || !self.merge.questions.is_empty();
        let sends = [ask, waits.then_some(Instant::ZERO)].into_iter().flatten().min().filter(|_| self.link_up);
        [give_up, sends, self.merge.held_until].into_iter().flatten().min()
    }

    /// Gives up what has lasted too long, and what nobody can answer any more.
    pub(super) fn merge_timers(&mut self, now: Instant) {
        if self.merge.asking.is_some_and(|it| it.since + self.config.merge_deadline <= now) {
            self.give_up_merge();
        }
        if self.merge.asking.is_some_and(|it| !self.is_established(&it.pull.target)) {
            self.give_up_merge();
            // Before a takeover the next one is asked.
            if self.role() == Role::Promoting {
                self.begin_early_merge(now);
            }
        }
        if self.merge.held_until.is_some_and(|at| at <= now) {
            self.merge.release();
            self.counters.merge_offers_expired += 1;
            if let Some(stream) = self.inbox.stream() {
                self.event(Event::MergeGivenUp { with: stream.node, adopted: 0 });
            }
        }
    }

    fn is_established(&self, target: &Target) -> bool {
        self.peers.get(target.node, target.incarnation).is_some_and(|peer| peer.established)
    }

    fn give_up_merge(&mut self) {
        let Some(asking) = self.merge.asking.take() else { return };
        let Target { node, incarnation } = asking.pull.target;
        if let Some(peer) = self.peers.get_mut(node, incarnation) {
            peer.merged = GIVEN_UP;
        }
        self.event(Event::MergeGivenUp { with: node, adopted: asking.adopted });
    }

    // ------------------------------------------------------------------ the way out

    /// A question, or an answer.
    pub(super) fn send_merge(&mut self, now: Instant, slot: &mut [u8]) -> Option<usize> {
        if let Some(pull) = self.merge.done.take() {
            return self.send_question(slot, &pull);
        }
        if let Some(asking) = self.merge.asking.filter(|asking| asking.ask_at <= now) {
            if !self.is_established(&asking.pull.target) {
                // The next turn of the timers asks another one, or gives up.
                self.merge.asking = Some(Asking { ask_at: now + asking.delay, ..asking });
                return None;
            }
            let delay = (asking.delay * 2).min(RETRY_MAX);
            self.merge.asking = Some(Asking { ask_at: now + asking.delay, delay, ..asking });
            return self.send_question(slot, &asking.pull);
        }
        let (asker, pull) = self.merge.questions.pop_front()?;
        self.send_page(now, slot, asker, &pull)
    }

    fn send_question(&mut self, slot: &mut [u8], pull: &MergePull) -> Option<usize> {
        let header = self.control_header(Kind::PULL);
        let length = encode_merge_pull(slot, header, pull)?;
        self.counters.merge_pulls_sent += 1;
        Some(length)
    }

    fn send_page(&mut self, now: Instant, slot: &mut [u8], asker: Target, pull: &MergePull) -> Option<usize> {
        self.note_stand();
        let mut page = std::mem::take(&mut self.merge.page);
        let scope = self.merge.scope(asker, pull);
        let start = self.merge.page_start(self.table.seed(), pull.cursor);
        let answers = |ordinal, number| self.merge.answers(pull, scope, (ordinal, number));
        let mut next = self.table.page(start, PAGE_SLOTS, &mut page, answers);
        let header = self.control_header(Kind::RECORDS);
        let mut writer = MergeWriter::new(slot, header, asker, pull.cursor);
        if let Some(writer) = &mut writer {
            for entry in &page {
                match writer.push_upsert(&self.table.flow_in_slot(entry.slot, now)) {
                    Err(PushError::Full) => {
                        next = Some(entry.cursor);
                        break;
                    }
                    Err(_) => self.counters.records_unsayable += 1,
                    Ok(()) => {}
                }
            }
        }
        self.merge.page = page;
        if next.is_none() {
            self.merge.served = Some((asker.node, asker.incarnation));
        }
        let length = writer?.finish(next.map_or(CURSOR_END, |hash| self.merge.cursor(hash)));
        self.counters.merge_pages_sent += 1;
        Some(length)
    }

    // ------------------------------------------------------------------ the way in

    /// Somebody asks for what it lacks, or has it all.
    pub(super) fn receive_merge_pull(
        &mut self,
        now: Instant,
        header: &Header,
        pull: &MergePull,
    ) -> Result<(), FrameError> {
        let ours = self.is_own(&pull.target);
        self.peers.control(now, header, false)?;
        // Whomever it asks: the master lives.
        self.master_lives(now, header);
        let asker = Target { node: header.node, incarnation: header.incarnation };
        if !ours {
            self.counters.not_for_us += 1;
            return Ok(());
        }
        self.counters.merge_pulls_received += 1;
        if pull.cursor == CURSOR_END {
            self.merge_is_done(now, asker);
            return Ok(());
        }
        if !self.answers.grant_page(now, (asker.node, asker.incarnation)) {
            self.counters.merge_pulls_refused += 1;
            return Ok(());
        }
        // Who asks again has not got what it asked for before.
        self.merge.questions.retain(|(waiting, _)| *waiting != asker);
        self.merge.asked_by = Some((asker.node, asker.incarnation));
        if self.merge.questions.len() < PEERS_MAX {
            self.merge.questions.push_back((asker, *pull));
        }
        Ok(())
    }

    /// The followed master has everything that it was given to the end.
    fn merge_is_done(&mut self, now: Instant, asker: Target) {
        let asker = (asker.node, asker.incarnation);
        let follows = self.inbox.stream().is_some_and(|it| (it.node, it.incarnation) == asker);
        if self.merge.served != Some(asker) {
            return;
        }
        self.merge.asked_by = None;
        if follows {
            self.merge.release();
            self.advert_soon(now);
        }
    }

    /// A page: taken if it is the answer to what was asked last, and only then.
    pub(super) fn receive_merge_records(
        &mut self,
        now: Instant,
        header: &Header,
        page: &MergeRecords<'_>,
    ) -> Result<(), FrameError> {
        let ours = self.is_own(&page.target);
        self.peers.control(now, header, false)?;
        let target = Target { node: header.node, incarnation: header.incarnation };
        let is_answer = |it: &Asking| ours && it.pull.target == target && it.pull.cursor == page.cursor;
        let Some(asking) = self.merge.asking.filter(is_answer) else {
            if self.breaks(Breakage::AdoptUnasked) {
                self.adopt_page(now, page, STREAM_SEQ_MAX);
            }
            let unasked = &mut self.counters.merge_pages_unasked;
            *(if ours { unasked } else { &mut self.counters.not_for_us }) += 1;
            return Ok(());
        };
        self.counters.merge_pages_received += 1;
        let adopted = asking.adopted + self.adopt_page(now, page, asking.upto);
        let pull = MergePull { cursor: page.next, ..asking.pull };
        if page.next != CURSOR_END {
            self.merge.asking = Some(Asking { pull, adopted, ask_at: now, delay: RETRY_MIN, ..asking });
            return Ok(());
        }
        self.merge.asking = None;
        self.merge.done = Some(pull);
        // What was asked before the takeover is no answer to what is offered since.
        if asking.upto == 0
            && let Some(peer) = self.peers.get_mut(target.node, target.incarnation)
        {
            peer.merged = 1;
        }
        if adopted > 0 {
            self.event(Event::Merged { from: target.node, adopted, took: now.since(asking.since) });
        }
        Ok(())
    }

    /// How many entries of the page are in the table now that were not before.
    fn adopt_page(&mut self, now: Instant, page: &MergeRecords<'_>, upto: u64) -> u64 {
        let mut adopted = 0;
        for record in page.records.clone() {
            match record {
                Record::Upsert(conn) => adopted += u64::from(self.adopt(now, &conn.flow(), upto)),
                _ => self.counters.records_unknown += 1,
            }
        }
        adopted
    }

    fn adopt(&mut self, now: Instant, flow: &Flow, upto: u64) -> bool {
        let result = if self.role() == Role::Master {
            self.table.adopt(flow, now)
        } else {
            self.table.adopt_early(flow, upto, now)
        };
        match result {
            Ok(Adopted::Taken) => {
                self.counters.merge_adopted += 1;
                return true;
            }
            Ok(Adopted::Same) => self.counters.merge_same += 1,
            Ok(Adopted::Kept) => self.counters.merge_kept += 1,
            Err(refused) => {
                self.counters.merge_refused += 1;
                match refused {
                    Refused::TableFull | Refused::TombstonesFull => self.table_is_full(),
                    Refused::AnnexFull => self.annex_is_full(),
                    Refused::Unsupported => {}
                }
            }
        }
        false
    }
}

/// The first question to a peer.
fn question(peer: &Peer, (node, incarnation): (NodeId, u64), after: u64) -> MergePull {
    MergePull { target: Target { node: peer.node, incarnation: peer.incarnation }, node, incarnation, after, cursor: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId(1);
    const DEAD: NodeId = NodeId(2);
    const ASKER: Target = Target { node: NodeId(3), incarnation: 9 };

    fn followed(ordinal: u16, base: u64, proven: bool) -> Known {
        Known { ordinal, node: DEAD, incarnation: 7, origin: 0, own: false, frontier: 120, base, proven }
    }

    fn pull(after: u64) -> MergePull {
        let target = Target { node: ME, incarnation: 5 };
        MergePull { target, node: DEAD, incarnation: 7, after, cursor: 0 }
    }

    /// [5.5.2] Who began to follow above what is asked for, with entries of its kernel that equal digests have proven, tells
    /// of those as well: the named stream may have named them before.
    #[test]
    fn what_was_proven_and_not_heard_answers_a_question_from_before() {
        let answers = |known: Known, after: u64, entry: (u16, u64)| {
            let mut merge = Merge::new();
            merge.know(known);
            let pull = pull(after);
            merge.answers(&pull, merge.scope(ASKER, &pull), entry)
        };
        let preloaded = (0, 0);
        assert!(answers(followed(1, 50, true), 9, preloaded));
        assert!(!answers(followed(1, 50, false), 9, preloaded), "it may have ended long ago");
        assert!(!answers(followed(1, 9, true), 9, preloaded), "everything above 9 was heard");
        assert!(!answers(followed(1, 50, true), 9, (1, 9)), "the asker holds everything up to 9");
        assert!(answers(followed(1, 50, true), 9, (1, 10)));
    }

    /// [5.5.2] The asker has left the named stream at 20: what any other but itself has said since is not known to it.
    #[test]
    fn what_was_said_since_the_asker_left_answers_whoever_said_it() {
        let stream = |ordinal, node, incarnation, origin, own| {
            let (node, frontier, base, proven) = (NodeId(node), 0, 0, false);
            Known { ordinal, node, incarnation, origin, own, frontier, base, proven }
        };
        let mut merge = Merge::new();
        merge.know(stream(1, 4, 1, 0, false));
        merge.know(stream(2, 2, 7, 0, false));
        merge.know(stream(3, 1, 5, 0, true));
        merge.know(stream(4, 5, 1, 0, false));
        merge.know(stream(5, 3, 9, 0, false));
        let told = |merge: &Merge, pull: MergePull| {
            let answers = |ordinal| merge.answers(&pull, merge.scope(ASKER, &pull), (ordinal, 20));
            [1, 2, 3, 4, 5].map(answers)
        };
        assert_eq!(told(&merge, pull(20)), [false, false, true, true, false]);
        assert_eq!(told(&merge, pull(19)), [false, true, true, true, false]);
        let unknown = MergePull { node: NodeId(8), ..pull(20) };
        assert_eq!(told(&merge, unknown), [false; 5]);
        merge.offered = Some(3);
        assert_eq!(told(&merge, unknown), [false, false, true, true, false]);
    }

    /// [5.5.2] A cursor counts in the order of its seed, and is neither the first one's nor "that was all".
    #[test]
    fn a_cursor_of_another_order_begins_anew() {
        let mut merge = Merge::new();
        assert_eq!(merge.page_start(77, 0), 0);
        let before = merge.cursor(0x1234_5678_9abc_deff);
        assert_eq!(before, 0x1234_5678_9abc_de02);
        assert_eq!(merge.page_start(77, before), 0x1234_5678_9abc_de00);
        assert_eq!(merge.page_start(78, before), 0);
        assert_eq!(merge.page_start(78, before), 0);
        let orders: Vec<u64> = (0..254).map(|seed| (merge.page_start(seed, 0), merge.cursor(u64::MAX)).1).collect();
        assert_eq!(orders.iter().max(), Some(&0xffff_ffff_ffff_fffe));
        assert!(orders.iter().all(|cursor| cursor & 0xff != 0));
    }
}
