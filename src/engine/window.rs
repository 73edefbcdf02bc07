//! How far the master may send, and whom it heeds: credit, lagging followers, and the round trip (docs/protocol.md 3.6).
//!
//! ```text
//!   stream   ───────────┬──────────────┬─────────────────────┬────────────────────────┬──────▶
//!                   frontier        newest                  edge                 our history ends
//!              follower holds   in flight, or lost   what it can take        what could be sent again
//!                               no new DATA passes the nearest edge of those that are heeded
//! ```
//!
//! While nothing may be sent, changes replace each other in the table: a slow follower costs freshness and no memory, and
//! nothing is lost. One that stands still for `lag_limit` is *lagging*: it is heeded no longer, so that it costs the others
//! nothing more, and comes back when it has caught up, or by holes and digests (4.3, 4.4). Who comes back only to stand again
//! is waited for ever more shortly (`patience`).

use super::Engine;
use super::breakage::Breakage;
use super::event::{Event, Role};
use super::peers::Peer;
use crate::time::{Duration, Instant};
use crate::wire::{Advert, Header, NodeId, Status, SyncCode};

/// Frames of a walk, or of sections, that may be on their way to a follower. A live change stands behind no more than these:
/// a few thousand records, which a table takes in a millisecond or two; and two acknowledgements' worth, so that a walk does
/// not wait for each.
const WALK_WINDOW: u64 = 64;

/// What a peer has told of itself as a follower of our stream, in its present term.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Follower {
    /// The last number that it can take.
    edge: u64,
    /// The number of its control frame that said so; 0 if none has.
    told_by: u64,
    /// Its table is equal to ours, by its last STATUS.
    pub(super) proven: bool,
    /// A walk that it asked for runs.
    pub(super) pulled: bool,
    /// Since when something that was sent is missing there, or it can take nothing more, and it has not moved.
    behind_since: Option<Instant>,
    pub(super) lagging: bool,
    /// Smoothed; zero until it was measured.
    round_trip: Duration,
}

impl Follower {
    /// Frames that it can take above `newest`.
    pub(super) fn credit(&self, newest: u64) -> u64 {
        self.edge.saturating_sub(newest)
    }

    /// RFC 6298's smoothing: an eighth of each sample.
    fn measure(&mut self, sample: Duration) {
        self.round_trip = if self.round_trip == Duration::ZERO { sample } else { (self.round_trip * 7 + sample) / 8 };
    }
}

/// What one frame of a follower says.
#[derive(Clone, Copy)]
struct Told {
    by: u64,
    frontier: u64,
    credit: u32,
}

impl Engine {
    /// The sync links can hold so many frames that this node has not read yet; what it tells its master that it can take
    /// follows from it. At least 1. Unlimited until it is told.
    pub fn set_receive_room(&mut self, frames: u32) {
        self.inbox.set_room(frames.max(1));
    }

    /// Whether a new DATA frame may leave. A node that leaves sends all it has: nobody can wait for it any more.
    pub(super) fn may_send(&self) -> bool {
        let newest = self.outbox.seq();
        let kept = u64::from(self.config.history);
        let blocks = |peer: &Peer| peer.follower.edge <= newest || newest - self.held_by(peer) >= kept;
        self.leaving || self.breaks(Breakage::CreditIgnored) || !self.heeded().any(blocks)
    }

    /// A walk, and sections, may run ahead of who is heeded by [`WALK_WINDOW`], so that no live change waits long behind them,
    /// and by half the history, so that what is lost can still be sent again.
    /// If all who asked for a walk are lagging, it waits for them.
    pub(super) fn may_walk(&self) -> bool {
        let within =
            |peer: &Peer| self.outbox.seq() - self.held_by(peer) < WALK_WINDOW.min(u64::from(self.config.history / 2));
        let has_pulled = |peer: &&Peer| peer.follower.pulled;
        self.heeded().all(within)
            && (self.heeded().any(|peer| peer.follower.pulled) || self.followers().filter(has_pulled).all(within))
    }

    /// New DATA waits for credit; counted each time that it begins to.
    pub(super) fn wait_for_credit(&mut self) {
        self.counters.credit_waits += u64::from(!std::mem::replace(&mut self.held_up, true));
    }

    /// A DATA frame has left for the first time: who does not move from now on is behind it.
    pub(super) fn data_left(&mut self, now: Instant) {
        self.held_up = false;
        for peer in self.peers.iter_mut().filter(|peer| peer.established) {
            peer.follower.behind_since.get_or_insert(now);
        }
    }

    /// No walk runs any more.
    pub(super) fn walks_ended(&mut self) {
        self.peers.iter_mut().for_each(|peer| peer.follower.pulled = false);
    }

    /// An established peer's ADVERT: what it says of our stream, if it follows that in our present term.
    pub(super) fn told_by_advert(&mut self, now: Instant, header: &Header, advert: &Advert<'_>) {
        let follows = &advert.follows;
        let ours = (self.config.node, self.incarnation, self.term);
        let report = advert.peers.iter().find(|report| (report.node(), report.incarnation()) == (ours.0, ours.1));
        let Some(report) = report.filter(|_| (follows.node, follows.incarnation, follows.term) == ours) else { return };
        let told = Told { by: header.seq, frontier: report.frontier(), credit: report.credit() };
        self.told(now, header, told);
    }

    /// A STATUS about our stream. Who has not heard of our present term speaks of numbers of an older one.
    pub(super) fn told_by_status(&mut self, now: Instant, header: &Header, status: &Status<'_>) {
        if header.term < self.term {
            return;
        }
        // A frontier that waited for a frame that was sent again tells the time of that wait, and no round trip.
        let newest = status.frontier.min(self.outbox.seq());
        let before = self.peers.get_mut(header.node, header.incarnation).map_or(newest, |peer| peer.frontier);
        let first = before.saturating_add(1).max(self.outbox.history_start());
        let sent_at = self.outbox.all_sent_once(first..=newest);
        let longest = self.config.advert_interval;
        let told = Told { by: header.seq, frontier: status.frontier, credit: status.credit };
        let advanced = self.told(now, header, told);
        let Some(peer) = self.peers.get_mut(header.node, header.incarnation) else { return };
        peer.follower.proven = status.state == SyncCode::PROVEN;
        if let Some(sent_at) = sent_at.filter(|_| advanced) {
            peer.follower.measure(now.since(sent_at).min(longest));
        }
    }

    /// Whether the frontier of this peer has moved.
    fn told(&mut self, now: Instant, header: &Header, told: Told) -> bool {
        let (newest, start) = (self.outbox.seq(), self.outbox.term_start());
        let near = u64::from(self.config.history / 2);
        let Some(peer) = self.peers.get_mut(header.node, header.incarnation) else { return false };
        // No peer can hold what was never sent.
        let frontier = told.frontier.min(newest);
        let advanced = frontier > peer.frontier;
        peer.frontier = peer.frontier.max(frontier);
        let follower = &mut peer.follower;
        let edge = frontier.max(start) + u64::from(told.credit);
        let grew = edge > follower.edge;
        if told.by > follower.told_by {
            (follower.told_by, follower.edge) = (told.by, edge);
        }
        let held = peer.frontier.max(start);
        let behind = held < newest || follower.edge <= newest;
        if advanced || !behind {
            follower.behind_since = None;
        }
        if behind {
            follower.behind_since.get_or_insert(now);
        }
        if follower.lagging && (advanced || grew) && newest - held <= near && follower.edge > newest {
            follower.lagging = false;
            follower.behind_since = behind.then_some(now);
            self.counters.lagging_returned += 1;
        }
        advanced
    }

    /// A peer has asked for a walk.
    pub(super) fn pulled_by(&mut self, node: NodeId, incarnation: u64) {
        if let Some(peer) = self.peers.get_mut(node, incarnation) {
            peer.follower.pulled = true;
        }
    }

    /// When the next one that is heeded may be lagging.
    pub(super) fn lag_at(&self) -> Option<Instant> {
        if self.breaks(Breakage::LaggingNeverReleased) {
            return None;
        }
        self.heeded().filter_map(|peer| self.stands_until(peer)).min()
    }

    /// Heeds no longer who has stood still for too long.
    pub(super) fn release_lagging(&mut self, now: Instant) {
        if self.breaks(Breakage::LaggingNeverReleased) {
            return;
        }
        while let Some((node, incarnation)) = self.one_that_stands_too_long(now) {
            let Some(peer) = self.peers.get_mut(node, incarnation) else { return };
            peer.follower.lagging = true;
            self.counters.lagging_released += 1;
            if self.patience.released(now, node) {
                self.event(Event::Lagging { node });
            }
        }
    }

    fn one_that_stands_too_long(&self, now: Instant) -> Option<(NodeId, u64)> {
        let stands = |peer: &&Peer| self.stands_until(peer).is_some_and(|until| until <= now);
        self.heeded().find(stands).map(|peer| (peer.node, peer.incarnation))
    }

    /// Until when one that stands still is waited for.
    fn stands_until(&self, peer: &Peer) -> Option<Instant> {
        let since = peer.follower.behind_since?;
        Some(since + self.patience.limit(since, peer.node, self.lag_limit()))
    }

    /// Time between two retransmissions of one frame: the first must have had time to arrive and to be said so.
    pub(super) fn resend_spacing(&self) -> Duration {
        let slowest = self.heeded().map(|peer| peer.follower.round_trip).max();
        slowest.unwrap_or(Duration::ZERO).max(self.config.reorder_delay)
    }

    /// A lost tail is found by the next ADVERT: who has not had two chances to find it does not lag.
    fn lag_limit(&self) -> Duration {
        self.config.lag_limit.max(self.config.advert_interval * 2)
    }

    /// What of our stream it holds, as far as this term goes.
    fn held_by(&self, peer: &Peer) -> u64 {
        peer.frontier.max(self.outbox.term_start())
    }

    /// Established peers that follow our stream and have told how far they are in it, by their newest word: who begins to
    /// follow says so by STATUS at once, and may have to wait with its ADVERT.
    fn followers(&self) -> impl Iterator<Item = &Peer> {
        let own = (self.config.node, self.incarnation);
        let is_master = self.role() == Role::Master;
        self.peers.established().filter(move |peer| {
            let follows = (peer.word.follows.node, peer.word.follows.incarnation);
            let told_by = peer.follower.told_by;
            is_master && told_by > 0 && (follows == own || told_by > peer.newest_advert())
        })
    }

    /// Those that the master waits for: proven, or being walked, and not lagging. Who is neither gains nothing by it: what it
    /// misses is found by digest anyway.
    fn heeded(&self) -> impl Iterator<Item = &Peer> {
        self.followers().filter(|peer| {
            let Follower { proven, pulled, lagging, .. } = peer.follower;
            (proven || pulled) && !lagging
        })
    }
}
