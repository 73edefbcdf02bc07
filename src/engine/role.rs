//! What a change of role means to the engine, and what has to be looked at before one: the role machine itself
//! ([`super::election`]) knows roles, timers and requests only.
//!
//! ```text
//!   timer ──▶ reason_to_hold? ──no──▶ Promoting ──▶ table to the sink ──▶ Master: a new term, a new stream
//!                  └─yes─▶ a master lives, or somebody stands nearer: wait, and look again
//! ```

use super::breakage::Breakage;
use super::config::RoleMode;
use super::election::{Input, master_down};
use super::event::{ElectionFailure, Event, Role};
use super::{Engine, TERM_MAX, peers};
use crate::time::{Duration, Instant};
use crate::wire::NodeId;

impl Engine {
    /// Gives the role machine an input and does what the change of role asks for.
    pub(super) fn input(&mut self, now: Instant, input: Input) {
        // Each time that its timer starts anew a cold node has one master-down to give to a warmer one.
        self.deferred &= !matches!(input, Input::MasterHeard { .. } | Input::MasterLeft { .. });
        self.one_way_since = self.one_way_since.filter(|_| !matches!(input, Input::MasterHeard { .. }));
        let give_up = self.election.deadline();
        let Some((from, to)) = self.election.handle(now, input) else { return };
        self.one_way_since = None;
        if from == Role::Master {
            self.end_waiting(now);
            self.table.set_clocks_back(self.copy_margin());
            self.offer();
        }
        if !matches!(to, Role::Promoting | Role::Master) {
            self.forget_merge();
        }
        self.handover_follows_role(from, to);
        match to {
            Role::Promoting => {
                self.table.queue_expired(now);
                self.begin_early_merge(now);
            }
            Role::Master => {
                if from == Role::Promoting && input == Input::TimerExpired && give_up.is_some() {
                    self.event(Event::CommitDeadlinePassed);
                }
                self.begin_mastership(now);
            }
            Role::Backup => self.deferred = false,
            Role::None | Role::Fault => self.unfollow(),
            Role::Init => {}
        }
        if from == Role::Promoting && to != Role::Master {
            self.event(Event::ElectionFailed { cause: failure(input) });
        }
        self.event(Event::RoleChanged { from, to, term: self.term });
        // The others wait for this one; it happens too seldom to need a limit.
        self.advert_at = now;
    }

    /// The role's own timer has run out. Before a backup acts on it, it looks whether somebody else should, or whether the
    /// master is alive after all (docs/protocol.md 3.5, 5.1 and 5.2).
    pub(super) fn role_timer(&mut self, now: Instant) {
        if self.role() == Role::Backup {
            if let Some(hold) = self.reason_to_hold(now) {
                return self.input(now, hold);
            }
            if let Some(stream) = self.inbox.stream() {
                self.master_lost(stream.node);
            }
            self.event(Event::ElectionStarted);
        }
        self.input(now, Input::TimerExpired);
    }

    pub(super) fn reason_to_hold(&mut self, now: Instant) -> Option<Input> {
        if self.meddles() {
            return None;
        }
        let own = self.config.node;
        let short = (self.config.advert_interval / 4).max(Duration::from_millis(1));
        let one_way_hold = self.config.one_way_hold;
        // A peer that hears a living master says so; then it is our link that is at fault.
        let witness = self.peers.established().find(|peer| {
            let follows = &peer.word.follows;
            let cold = |master: &peers::Peer| !self.cold && master.established && master.word.is_cold();
            let believed = !self.peers.get(follows.node, follows.incarnation).is_some_and(cold);
            follows.node != NodeId(0) && follows.node != own && believed
        });
        // What is sealed may be a recording of a master of old, which no later term would have let be one.
        let term = self.term;
        let is_present =
            |peer: &peers::Peer| peer.word.is_master() && (peer.sealed_with.is_none() || peer.word.term >= term);
        let unproven = self
            .peers
            .iter()
            .find(|peer| !peer.established && is_present(peer) && now.since(peer.since) < one_way_hold);
        let unproven = unproven.map(|peer| peer.node);
        // All of them together get that time: recordings of one former life after the other would get it each.
        let since = unproven.map(|_| *self.one_way_since.get_or_insert(now));
        let unproven = unproven.filter(|_| since.is_some_and(|since| now.since(since) < one_way_hold));
        let one_way = witness.map(|peer| peer.word.follows.node).or(unproven);
        if let Some(node) = one_way.filter(|_| !self.breaks(Breakage::TakeoverDespiteWitness)) {
            self.report_one_way(node);
            return Some(Input::Hold { wait: short });
        }
        // Somebody is taking over already, and only waits for its sink. One who has nothing stops nobody who has something.
        let promoting = |peer: &peers::Peer| peer.role() == Role::Promoting && (self.cold || !peer.word.is_cold());
        if self.peers.established().any(promoting) {
            return Some(Input::Hold { wait: short });
        }
        if self.yields(now) {
            return Some(Input::Hold { wait: short });
        }
        let waits = !self.deferred && !self.breaks(Breakage::ColdDoesNotWait);
        if self.cold && self.hears_a_warm_backup() && waits {
            self.deferred = true;
            return Some(Input::Hold { wait: master_down(self.election.priority(), self.config.advert_interval) });
        }
        None
    }

    /// Somebody holds a table that was proven once, and may yet take the role.
    pub(super) fn hears_a_warm_backup(&self) -> bool {
        let may = |peer: &peers::Peer| matches!(peer.role(), Role::Backup | Role::Promoting) && !peer.word.is_cold();
        self.peers.established().any(may)
    }

    /// A master whose dump is complete is cold no more: its table is the one to equal. But while a backup holds more than it
    /// may know of, that one is to take the role from it, and is given time to.
    pub(super) fn warm_up(&mut self, now: Instant) {
        let contested = self.config.role == RoleMode::Vrrp
            && now.since(self.master_since) < self.config.one_way_hold
            && self.hears_a_warm_backup();
        if self.role() == Role::Master && self.dumped && !contested {
            self.cold = false;
        }
    }

    pub(super) fn report_one_way(&mut self, node: NodeId) {
        let mut news = false;
        for peer in self.peers.iter_mut().filter(|peer| peer.node == node || peer.word.follows.node == node) {
            news |= !std::mem::replace(&mut peer.one_way_reported, true);
        }
        if news {
            self.event(Event::PeerOneWay { node });
        }
    }

    pub(super) fn begin_mastership(&mut self, now: Instant) {
        (self.dumped, self.master_since) = (false, now);
        self.unfollow();
        if self.term >= TERM_MAX {
            // No two masterships are named alike, also where there is no higher term.
            self.draw_incarnation(now);
        } else {
            self.term += 1;
        }
        self.table.begin_stream();
        if !self.config.source_expires {
            self.table.restart_clocks(now, self.config.takeover_grace);
        }
        self.outbox.begin_mastership();
        self.know_own(true);
        self.answers.clear();
        self.peers.forget_frontiers();
        self.durability.masterships += 1;
        self.exposure.begin(now, self.outbox.seq());
        (self.full_reported, self.annex_full_reported, self.sections_full_reported) = (false, false, false);
    }

    /// A term that is not this mastership's stands at or above ours: take one above all, so that no two masterships share a
    /// term (docs/protocol.md 5.4).
    pub(super) fn renew_term(&mut self, now: Instant, heard: u64) {
        let highest = self.term.max(heard);
        if highest >= TERM_MAX {
            return;
        }
        self.term = highest + 1;
        self.outbox.begin_term();
        self.table.restart_section();
        self.peers.forget_frontiers();
        self.advert_soon(now);
    }

    pub(super) fn master_lost(&mut self, node: NodeId) {
        self.event(Event::MasterLost { node });
        self.unfollow();
    }

    /// An incarnation is gone for good: if it was our master, its mastership is over.
    pub(super) fn peer_is_gone(&mut self, now: Instant, node: NodeId, incarnation: u64) {
        let Some(stream) = self.inbox.stream() else { return };
        if stream.node == node && stream.incarnation == incarnation {
            self.master_lost(node);
            self.advert_soon(now);
        }
    }

    /// The loop did not run for so long that others may have taken over: step down, with a new incarnation, before anything is
    /// sent (docs/protocol.md 5.6).
    pub(super) fn notice_stall(&mut self, now: Instant) {
        let stalled = now.since(self.last_run);
        self.last_run = self.last_run.max(now);
        match self.role() {
            Role::Master if self.was_given_up(now, stalled) => {
                self.event(Event::StallDetected { stalled });
                self.draw_incarnation(now);
                self.input(now, Input::Stalled);
            }
            Role::Backup if stalled > master_down(self.election.priority(), self.config.advert_interval) => {
                self.counters.stalls += 1;
                self.input(now, Input::Stalled);
            }
            _ => {}
        }
    }

    /// The others count from the last ADVERT. A loop that ran had sent one within the interval before it stood still, so that
    /// two more are missing at least. One that runs and whose ADVERTs do not leave has not stood still: its link is at fault, not it.
    fn was_given_up(&self, now: Instant, stalled: Duration) -> bool {
        let interval = self.config.advert_interval;
        let silent = self.last_advert_at.is_none_or(|sent| now.since(sent) > interval * 3);
        silent && stalled > interval * 2
    }
}

/// Why a takeover does not come to its end, by what ended it.
fn failure(input: Input) -> ElectionFailure {
    match input {
        Input::LinkDown => ElectionFailure::LinkDown,
        Input::Request(_) => ElectionFailure::Withdrawn,
        _ => ElectionFailure::AnotherIsMaster,
    }
}
