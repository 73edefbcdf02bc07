//! A planned switch: a living master gives the role to an heir, and no packet finds two nodes that answer, or a table that
//! lacks what the other has sent (docs/protocol.md 5.3).
//!
//! ```text
//!   master A                                                     heir B, proven
//!   │                      ADVERT: asks for the role (flag 2)      │  preemption, or `ssyncp switchover` here
//!   │◀─────────────────────────────────────────────────────────────┤
//!   │  (or `ssyncp switchover`, or draining there)                 │
//!   │  addresses go ▶ what waits is sent ▶ the last number is n    │
//!   │  ADVERT: handing over (flag 3), heir B, stream_seq n         │  each interval
//!   ├─────────────────────────────────────────────────────────────▶│  frontier ≥ n: Promoting, writes its table
//!   │                      ADVERT: master of the next term         │  Master, addresses come
//!   │◀─────────────────────────────────────────────────────────────┤
//!   │  Backup                                                      │
//! ```
//!
//! If that does not come within `handover_deadline`, A is master again, in a new term. At 3 a.m.: HandoverStarted without
//! HandoverDone means that addresses would not go, that records could not leave, or that the heir did not answer.

use super::Engine;
use super::breakage::Breakage;
use super::config::RoleMode;
use super::election::Input;
use super::event::{Event, Role};
use super::inbox::Stream;
use super::outbox::Mark;
use super::peers::{Peer, Word};
use crate::time::Instant;
use crate::wire::{AdvertFlags, Follows, Header, NodeId};

/// After a switch that failed none begins by itself for so many times `handover_deadline`: each costs an outage of that
/// length, and what made one fail may stay.
const PAUSE_IN_DEADLINES: u32 = 5;

/// A switch that a backup or draining asks for waits for the dump that makes up for lost changes, but no longer than this part
/// of `handover_deadline`: after all of it a node of higher priority would take this one for deaf.
const DUMP_PATIENCE_PARTS: u32 = 2;

/// Why there is no planned switch. Nothing has changed then.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum SwitchoverError {
    /// Nobody is proven equal to the master, so that nobody may inherit.
    #[error("no backup is proven equal to the master; wait until one is in sync")]
    NoHeir,
    /// This node is not in a state to give the role, nor to ask for it.
    #[error("this node is neither master nor a backup that is in sync")]
    NotInSync,
    /// The heir that was named must not inherit.
    #[error("node {} is no backup that is in sync and not draining; it cannot be the next master", .0.0)]
    Unfit(NodeId),
    /// Only the master can give the role to a third node.
    #[error("this node is not master, and can ask for the role only for itself; tell the master, which is node {}", .0.0)]
    NotMaster(NodeId),
    /// The heir that was named is master.
    #[error("this node is master already")]
    AlreadyMaster,
    /// A node that drains does not ask for the role.
    #[error("this node is draining; end that first (ssyncp drain --off)")]
    Draining,
    /// One switch at a time.
    #[error("a switch to node {} is under way", .0.0)]
    UnderWay(NodeId),
}

/// Nobody of this number is known.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[error("node {} is not known here: it is silent already, or was never heard", .0.0)]
pub struct UnknownPeer(pub NodeId);

/// What a node knows of planned switches: as master, as heir, and as one of the others.
#[derive(Debug, Default)]
pub(super) struct Handover {
    draining: bool,
    /// The owner has not withdrawn the addresses yet, so that the last number is not known.
    held: bool,
    giving: Option<Giving>,
    /// After a switch that failed none begins by itself before.
    pub(super) not_before: Option<Instant>,
    /// The owner of this backup wishes it to be master; it asks until then.
    wish_until: Option<Instant>,
    /// Since when this backup asks because its priority is higher.
    preempting_since: Option<Instant>,
    heard: Option<Heard>,
    accepted: Option<Accepted>,
    /// Since when a draining node's timer has been held back for the others.
    yields_since: Option<Instant>,
    /// What this master's source has lost.
    gap: Option<Gap>,
}

/// The source has lost changes: what ended meanwhile stands in the table still, and an heir would write it to its kernel.
#[derive(Clone, Copy, Debug)]
struct Gap {
    since: Instant,
    /// A dump runs that began after the last of them.
    dumping: bool,
}

/// A master's switch that is under way.
#[derive(Clone, Copy, Debug)]
struct Giving {
    heir: NodeId,
    incarnation: u64,
    deadline: Instant,
    /// Behind what waited when the addresses were gone.
    mark: Option<Mark>,
    /// The stream's number when all of that had left.
    last: Option<u64>,
}

/// What the followed master has said of its switch.
#[derive(Clone, Copy, Debug)]
struct Heard {
    stream: Stream,
    heir: NodeId,
    /// The heir must hold everything up to here.
    last: u64,
}

/// A mastership that began by a switch although this node, of higher priority, could have had the role: somebody wished
/// it so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Accepted {
    master: NodeId,
    priority: u8,
    own_priority: u8,
}

impl Engine {
    /// A master hands the role over to `heir`, or to the best of its followers; a backup asks its master for it. Says who is
    /// to be the next master. Whether it becomes that is told by events: HandoverDone or HandoverFailed on the master,
    /// RoleChanged or HandoverFailed on a backup that has asked.
    ///
    /// # Errors
    /// [`SwitchoverError`]; nothing has changed then.
    pub fn switchover(&mut self, now: Instant, heir: Option<NodeId>) -> Result<NodeId, SwitchoverError> {
        match self.role() {
            Role::Master => {
                if let Some(giving) = &self.handover.giving {
                    return Err(SwitchoverError::UnderWay(giving.heir));
                }
                let chosen = match heir {
                    Some(node) if node == self.config.node => return Err(SwitchoverError::AlreadyMaster),
                    Some(node) => self.heirs().find(|peer| peer.node == node).ok_or(SwitchoverError::Unfit(node)),
                    None => self.best_heir().ok_or(SwitchoverError::NoHeir),
                };
                let (node, incarnation) = chosen.map(|peer| (peer.node, peer.incarnation))?;
                self.begin_handover(now, node, incarnation);
                Ok(node)
            }
            Role::Backup => {
                let master = self.inbox.stream().ok_or(SwitchoverError::NotInSync)?.node;
                if heir.is_some_and(|node| node != self.config.node) {
                    return Err(SwitchoverError::NotMaster(master));
                }
                if !self.repair.is_proven() {
                    return Err(SwitchoverError::NotInSync);
                }
                if self.handover.draining {
                    return Err(SwitchoverError::Draining);
                }
                self.handover.wish_until = Some(now + self.config.handover_deadline);
                self.advert_soon(now);
                Ok(self.config.node)
            }
            _ => Err(SwitchoverError::NotInSync),
        }
    }

    /// Before [`Engine::leave`]: a master by election gives its role to the best of its followers, if one is proven [5.3.10].
    /// It had better wait until [`Engine::heir`] says nobody, for `handover_deadline` at most.
    pub fn give_away(&mut self, now: Instant) {
        if self.role() == Role::Master && self.config.role == RoleMode::Vrrp {
            // Whoever has no heir, or gives already, changes nothing.
            let _ = self.switchover(now, None);
        }
    }

    /// A draining node gives the role to whoever is proven equal to it, as soon as somebody is, and does not take it again
    /// while anybody else may have it.
    pub fn set_draining(&mut self, now: Instant, draining: bool) {
        if std::mem::replace(&mut self.handover.draining, draining) == draining {
            return;
        }
        (self.handover.not_before, self.handover.yields_since) = (None, None);
        (self.handover.wish_until, self.handover.preempting_since) = (None, None);
        if !draining {
            self.handover.accepted = None;
        }
        self.event(Event::Draining { draining });
        self.advert_soon(now);
        self.hand_over_if_draining(now);
    }

    /// Whether this node is to be without the role.
    pub fn is_draining(&self) -> bool {
        self.handover.draining
    }

    /// Whether the group's addresses belong to this node: it is master, and not about to give the role away.
    pub fn holds_addresses(&self) -> bool {
        self.role() == Role::Master && self.handover.giving.is_none()
    }

    /// To whom this master gives the role at present.
    pub fn heir(&self) -> Option<NodeId> {
        self.handover.giving.map(|giving| giving.heir)
    }

    /// Whether this backup asks for the role, or was named heir and does not have it yet.
    pub fn is_about_to_inherit(&self) -> bool {
        let Handover { wish_until, preempting_since, heard, .. } = &self.handover;
        let named =
            heard.is_some_and(|heard| heard.heir == self.config.node && self.inbox.stream() == Some(heard.stream));
        self.role() == Role::Backup && (wish_until.is_some() || preempting_since.is_some() || named)
    }

    /// While held, a master that gives its role away does not say its last number: the owner has addresses still to
    /// withdraw, and its source may yield more. To be said before [`Engine::poll_transmit`] is next asked.
    pub fn hold_handover(&mut self, held: bool) {
        self.handover.held = held;
    }

    /// The owner swears that a node is dead: nothing of it is waited for any more [5.3.9].
    ///
    /// # Errors
    /// [`UnknownPeer`]; nothing has changed then.
    pub fn peer_is_dead(&mut self, now: Instant, node: NodeId) -> Result<(), UnknownPeer> {
        let of_it = |peer: &&Peer| peer.node == node;
        let interval = self.peers.iter().find(of_it).ok_or(UnknownPeer(node))?.word.interval;
        let was_master = self.inbox.stream().is_some_and(|stream| stream.node == node);
        loop {
            // One established, and candidates: as many as there are incarnations.
            let Some(incarnation) = self.peers.iter().find(of_it).map(|peer| peer.incarnation) else { break };
            self.peers.remove(now, node, incarnation);
            self.peer_is_gone(now, node, incarnation);
        }
        self.event(Event::PeerDown { node });
        if was_master {
            self.input(now, Input::MasterLeft { interval });
        }
        self.advert_soon(now);
        Ok(())
    }

    // ------------------------------------------------------------------ the master's side

    /// Who may inherit: established backups whose newest word is that they are proven, and that do not drain.
    fn heirs(&self) -> impl Iterator<Item = &Peer> {
        self.peers.established().filter(|peer| {
            let willing = peer.role() == Role::Backup && !peer.word.is_draining();
            willing && !peer.word.is_cold() && !peer.follower.lagging && peer.acked.frontier().is_some()
        })
    }

    fn best_heir(&self) -> Option<&Peer> {
        self.heirs().max_by_key(|peer| (peer.word.priority, peer.node))
    }

    fn begin_handover(&mut self, now: Instant, heir: NodeId, incarnation: u64) {
        let deadline = now + self.config.handover_deadline;
        self.handover.giving = Some(Giving { heir, incarnation, deadline, mark: None, last: None });
        self.event(Event::HandoverStarted { heir });
    }

    fn may_begin(&self, now: Instant) -> bool {
        let paused = self.may_begin_at().is_some_and(|at| now < at);
        self.role() == Role::Master && self.handover.giving.is_none() && !paused
    }

    /// When a switch may begin by itself, if not now.
    fn may_begin_at(&self) -> Option<Instant> {
        let patience = self.config.handover_deadline / DUMP_PATIENCE_PARTS;
        self.handover.not_before.max(self.handover.gap.map(|gap| gap.since + patience))
    }

    /// The source has lost changes.
    pub(super) fn source_has_a_gap(&mut self, now: Instant) {
        let since = self.handover.gap.map_or(now, |gap| gap.since);
        self.handover.gap = Some(Gap { since, dumping: false });
    }

    /// A dump of the source begins.
    pub(super) fn gap_is_dumped(&mut self) {
        self.handover.gap.iter_mut().for_each(|gap| gap.dumping = true);
    }

    /// The dump is complete, and what it did not name is deleted.
    pub(super) fn gap_is_closed(&mut self) {
        self.handover.gap = self.handover.gap.filter(|gap| !gap.dumping);
    }

    /// A backup asks for the role.
    pub(super) fn asked_for_role(&mut self, now: Instant, header: &Header, word: &Word) {
        if !word.flags.contains(AdvertFlags::ASKS) || !self.may_begin(now) {
            return;
        }
        if self.heirs().any(|peer| (peer.node, peer.incarnation) == (header.node, header.incarnation)) {
            self.begin_handover(now, header.node, header.incarnation);
        }
    }

    pub(super) fn hand_over_if_draining(&mut self, now: Instant) {
        if !self.handover.draining || !self.may_begin(now) {
            return;
        }
        if let Some((heir, incarnation)) = self.best_heir().map(|peer| (peer.node, peer.incarnation)) {
            self.begin_handover(now, heir, incarnation);
        }
    }

    /// The addresses are gone, and what waited has left: from now on the ADVERTs say who is the heir.
    pub(super) fn advance_handover(&mut self, now: Instant) {
        let Some(giving) = self.handover.giving.as_mut().filter(|giving| giving.last.is_none()) else { return };
        if self.handover.held {
            return;
        }
        let mark = giving.mark.get_or_insert_with(|| self.outbox.mark(&self.table));
        if self.outbox.has_left(mark, &self.table) {
            giving.last = Some(self.outbox.seq());
            self.advert_at = now;
        }
    }

    /// Looks at the clock: an heir that does not answer, a wish that was not granted.
    pub(super) fn look_at_handover(&mut self, now: Instant) {
        if let Some(Giving { heir, incarnation, deadline, .. }) = self.handover.giving {
            let lives = self.peers.get(heir, incarnation).is_some_and(|peer| peer.established);
            if deadline <= now || !lives {
                self.take_back(now);
            }
        }
        if self.handover.wish_until.is_some_and(|until| until <= now) {
            self.handover.wish_until = None;
            self.event(Event::HandoverFailed { heir: self.config.node });
        }
        self.hand_over_if_draining(now);
    }

    /// When [`Engine::look_at_handover`] is due.
    pub(super) fn handover_at(&self) -> Option<Instant> {
        let Handover { giving, wish_until, draining, .. } = &self.handover;
        let waits = *draining && giving.is_none() && self.role() == Role::Master && self.best_heir().is_some();
        let paused = self.may_begin_at().filter(|_| waits);
        [giving.map(|giving| giving.deadline), *wish_until, paused].into_iter().flatten().min()
    }

    /// The heir did not come: this node is master again, in a new term if the heir may have begun.
    fn take_back(&mut self, now: Instant) {
        let Some(giving) = self.handover.giving.take() else { return };
        self.event(Event::HandoverFailed { heir: giving.heir });
        self.pause(now);
        if giving.last.is_some() {
            self.renew_term(now, self.term);
        }
        self.advert_at = now;
    }

    /// `node` is master: if this one gave it the role, that is done.
    pub(super) fn given_to(&mut self, node: NodeId) {
        let Some(giving) = self.handover.giving.filter(|giving| giving.heir == node) else { return };
        self.handover.giving = None;
        self.handover.not_before = None;
        self.event(Event::HandoverDone { heir: node });
        let priority = self.peers.get(node, giving.incarnation).map_or(0, |peer| peer.word.priority);
        self.accept(node, priority);
    }

    /// Whether the other master is the one that this one gave its role to.
    pub(super) fn gives_to(&self, node: NodeId) -> bool {
        self.heir() == Some(node)
    }

    /// Whether the other master gives its role to this one, and has not heard yet that it is taken.
    pub(super) fn was_given_by(&self, word: &Word) -> bool {
        word.flags.contains(AdvertFlags::HANDING_OVER) && word.follows.heir == self.config.node
    }

    fn pause(&mut self, now: Instant) {
        self.handover.not_before = Some(now + self.config.handover_deadline * PAUSE_IN_DEADLINES);
    }

    fn accept(&mut self, master: NodeId, priority: u8) {
        let own_priority = self.election.priority();
        self.handover.accepted = (own_priority > priority).then_some(Accepted { master, priority, own_priority });
    }

    // ------------------------------------------------------------------ what the ADVERT says

    /// The flags of an ADVERT that speak of a planned switch.
    pub(super) fn handover_flags(&self) -> AdvertFlags {
        let Handover { draining, giving, .. } = &self.handover;
        AdvertFlags::default()
            .with_if(AdvertFlags::ASKS, self.asks())
            .with_if(AdvertFlags::HANDING_OVER, giving.is_some_and(|giving| giving.last.is_some()))
            .with_if(AdvertFlags::DRAINING, *draining)
    }

    /// The heir that it names, with nobody followed.
    pub(super) fn named_heir(&self) -> Follows {
        let heir = self.handover.giving.filter(|giving| giving.last.is_some()).map(|giving| giving.heir);
        Follows { heir: heir.unwrap_or_default(), ..Follows::default() }
    }

    fn asks(&self) -> bool {
        let Handover { wish_until, preempting_since, heard, .. } = &self.handover;
        let preempts = preempting_since.is_some() && !self.preemption_held;
        let proven = self.role() == Role::Backup && self.inbox.stream().is_some() && self.repair.is_proven();
        proven && heard.is_none() && (wish_until.is_some() || preempts)
    }

    // ------------------------------------------------------------------ the heir, and the others

    /// The followed master speaks, of a switch or not.
    pub(super) fn hear_handover(&mut self, now: Instant, stream: Stream, word: &Word) {
        let own = self.config.node;
        if let Some(before) = self.handover.heard.filter(|heard| heard.stream != stream) {
            self.handover.heard = None;
            let taken_back = (before.stream.node, before.stream.incarnation) == (stream.node, stream.incarnation);
            if taken_back && before.heir == own {
                self.pause(now);
            }
        }
        let heir = word.follows.heir;
        if !word.flags.contains(AdvertFlags::HANDING_OVER) || heir == NodeId(0) {
            return;
        }
        self.handover.preempting_since = None;
        if self.handover.heard.is_none() {
            self.handover.heard = Some(Heard { stream, heir, last: word.stream_seq });
            if heir == own {
                self.handover.wish_until = None;
            } else if self.repair.is_proven() {
                let priority = self.peers.established().find(|peer| peer.node == heir);
                let priority = priority.map_or(0, |peer| peer.word.priority);
                self.accept(heir, priority);
            }
        }
        if heir != own && self.breaks(Breakage::OthersStartTimersInHandover) {
            self.input(now, Input::MasterLeft { interval: word.interval });
        }
        self.consider_inheriting(now);
    }

    /// An heir that is proven and holds everything up to the last number takes over.
    pub(super) fn consider_inheriting(&mut self, now: Instant) {
        let Some(heard) = self.handover.heard.filter(|heard| heard.heir == self.config.node) else { return };
        if self.role() != Role::Backup || self.inbox.stream() != Some(heard.stream) {
            return;
        }
        let whole = self.repair.is_proven() && self.inbox.frontier() >= heard.last;
        if whole || self.breaks(Breakage::HeirBeforeLastNumber) {
            self.input(now, Input::Inherit { term: heard.stream.term });
        }
    }

    /// Whether this master, which is one no more, has named another than this node as its heir: nobody's timer is shortened
    /// then.
    pub(super) fn has_named_another(&self, stream: Stream) -> bool {
        let named = self.handover.heard.is_some_and(|it| it.stream == stream && it.heir != self.config.node);
        named && !self.breaks(Breakage::OthersStartTimersInHandover)
    }

    /// For a breakage only: this node takes part in what is the heir's.
    pub(super) fn meddles(&self) -> bool {
        let another = self.handover.heard.is_some_and(|heard| heard.heir != self.config.node);
        another && self.breaks(Breakage::OthersStartTimersInHandover)
    }

    /// Another mastership is followed.
    pub(super) fn follows_anew(&mut self, stream: Stream) {
        self.handover.preempting_since = None;
        if self.handover.accepted.is_some_and(|accepted| accepted.master != stream.node) {
            self.handover.accepted = None;
        }
    }

    // ------------------------------------------------------------------ preemption

    /// A node of higher priority asks a living master for the role only when it is proven equal to it.
    /// Of several that may, the highest goes first, and each of the others waits for one ADVERT more.
    pub(super) fn consider_preempting(&mut self, now: Instant, word: &Word) {
        if !self.would_preempt(now, word) {
            self.handover.preempting_since = None;
            return;
        }
        let whole = self.repair.is_proven() && self.inbox.frontier() >= word.stream_seq;
        if self.preemption_held || self.election.is_held(now) || !whole {
            return;
        }
        let own = (self.election.priority(), self.config.node);
        let warm = self.peers.established().filter(|peer| {
            let drains = peer.word.is_draining();
            peer.role() == Role::Backup && !peer.word.is_cold() && !drains
        });
        if warm.filter(|peer| (peer.word.priority, peer.node) > own).count() as u32 > self.chances {
            self.chances += 1;
            return;
        }
        let since = *self.handover.preempting_since.get_or_insert(now);
        if since == now {
            self.advert_soon(now);
        }
        // It is deaf, or does not know how to hand over.
        if now.since(since) >= self.config.handover_deadline {
            self.input(now, Input::Preempt { term: word.term });
        }
    }

    fn would_preempt(&self, now: Instant, word: &Word) -> bool {
        let Handover { draining, not_before, heard, accepted, .. } = &self.handover;
        let own_priority = self.election.priority();
        let wished = self.inbox.stream().is_some_and(|stream| {
            *accepted == Some(Accepted { master: stream.node, priority: word.priority, own_priority })
        });
        self.config.preempt
            && self.config.role == RoleMode::Vrrp
            && own_priority > word.priority
            && !*draining
            && !wished
            && heard.is_none()
            && not_before.is_none_or(|at| at <= now)
    }

    // ------------------------------------------------------------------ roles

    /// Whether a draining node's timer waits for somebody else who may have the role.
    pub(super) fn yields(&mut self, now: Instant) -> bool {
        let willing = self.peers.established().any(|peer| {
            let takes_part = matches!(peer.role(), Role::Backup | Role::Promoting) && !peer.word.is_cold();
            takes_part && !peer.word.is_draining()
        });
        if !self.handover.draining || !willing {
            return false;
        }
        let since = *self.handover.yields_since.get_or_insert(now);
        now.since(since) < self.config.one_way_hold
    }

    /// This node's role is another. What belonged to the former one is over.
    pub(super) fn handover_follows_role(&mut self, from: Role, to: Role) {
        if let Some(giving) = self.handover.giving.take().filter(|_| from == Role::Master) {
            self.event(Event::HandoverFailed { heir: giving.heir });
        }
        (self.handover.yields_since, self.handover.gap) = (None, None);
        if to != Role::Backup {
            (self.handover.wish_until, self.handover.preempting_since) = (None, None);
        }
        if to != Role::Backup && to != Role::Promoting {
            (self.handover.heard, self.handover.accepted) = (None, None);
        }
        if to == Role::Master {
            self.handover.not_before = None;
        }
    }
}
