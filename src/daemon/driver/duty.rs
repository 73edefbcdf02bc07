//! What a role means outside the engine: addresses, the source's dump, the journal, and the goodbye.

use super::{Driver, EVENTS_PER_TURN, FAREWELL, Load};
use crate::daemon::draining::Cause;
use crate::daemon::journal::Weight;
use crate::daemon::notify::{Arrival, Notify};
use crate::daemon::takeover::Takeover;
use crate::engine::{Event, Role};
use crate::time::{Duration, Instant};
use std::sync::Arc;

/// Longest time that a master's guard waits for the kernel to have the table.
pub(crate) const GUARD_PATIENCE: Duration = Duration::from_secs(5);

impl Driver {
    /// Gives the role machine what keepalived has said, and says it again where it did not last.
    pub(super) fn follow_keepalived(&mut self, now: Instant) {
        let Some(reins) = &mut self.reins else { return };
        if let Some(news) = self.desk.news() {
            reins.hear(now, news, &mut self.engine, &mut self.journal);
        }
        reins.look(now, &mut self.engine, &mut self.journal);
    }

    /// Carries out what another role means outside the engine.
    pub(super) fn follow_role(&mut self, now: Instant) {
        let role = self.engine.role();
        let before = std::mem::replace(&mut self.role, role);
        self.note_takeover(now, before, role);
        self.follow_addresses();
        self.follow_guard(now, role);
        if (before == Role::Master) != (role == Role::Master) {
            self.feed.master(now, role == Role::Master);
        }
    }

    /// A master that gives its role away does without the addresses first, and tells its heir when they are gone.
    fn follow_addresses(&mut self) {
        let holds = self.engine.holds_addresses();
        let changed = std::mem::replace(&mut self.holds_addresses, holds) != holds;
        if let Some(takeover) = self.takeover.as_ref().filter(|_| changed) {
            takeover.hold(holds);
        }
        self.withdraws =
            !holds && self.role == Role::Master && !self.takeover.as_ref().is_none_or(Takeover::is_withdrawn);
        let held = self.withdraws;
        if let Some(engine) = self.engine.ssyncp1() {
            engine.hold_handover(held);
        }
    }

    /// There is a reason to be without the role, or that one holds no more.
    pub(super) fn drain_role(&mut self, now: Instant, cause: Cause, holds: bool) -> Result<(), String> {
        let draining = self.draining.set(cause, holds);
        let told = self.engine.set_draining(now, draining);
        if told.is_err() {
            self.draining.set(cause, false);
        }
        told
    }

    /// The guard is lifted when this node is master, with the addresses, and its kernel has the table. A sink that never gets done must not keep
    /// the addresses shut for ever.
    fn follow_guard(&mut self, now: Instant, role: Role) {
        let role = if self.holds_addresses { role } else { Role::Backup };
        let (Some(takeover), Role::Master) = (&self.takeover, role) else {
            self.master_since = None;
            return self.takeover.iter().for_each(|takeover| takeover.guard(true));
        };
        let since = *self.master_since.get_or_insert(now);
        if self.drain.settled() || now >= since + GUARD_PATIENCE {
            takeover.guard(false);
        }
    }

    /// A commit lasts from Promoting to Master; one that had nothing to write happens within a turn.
    pub(super) fn note_takeover(&mut self, now: Instant, before: Role, role: Role) {
        match (before, role) {
            (_, Role::Promoting) if before != Role::Promoting => self.promoting_since = Some(now),
            (_, Role::Master) if before != Role::Master => {
                let since = self.promoting_since.take().unwrap_or(now);
                self.last_commit = (self.clock)().since(since);
                self.commits.observe(self.last_commit);
            }
            (Role::Promoting, Role::Promoting) => {}
            _ => self.promoting_since = None,
        }
    }

    pub(super) fn note_events(&mut self, now: Instant) {
        while let Some(took) = self.takeover.as_ref().and_then(Takeover::next_move) {
            self.takeovers.observe(self.last_commit + took);
        }
        while let Some(told) = self.takeover.as_ref().and_then(Takeover::next_told) {
            self.journal.note(now, told.weight, told.event, told.text);
        }
        while let Some(text) = self.notify.next_failure() {
            self.journal.note(now, Weight::Warning, "HookFailed", text);
        }
        for _ in 0..EVENTS_PER_TURN {
            let Some(event) = self.engine.poll_event() else { return };
            self.journal.event(now, &event);
            if let Event::RoleChanged { to, .. } = &event {
                let takeover = self.takeover.as_ref().filter(|_| *to == Role::Master);
                let arrival = takeover.map(|takeover| Arc::new(takeover.arrival()) as Arrival);
                self.notify.role(*to, self.fitness.priority(), arrival);
            }
            // Whoever comes back may have held the addresses meanwhile, and have told the neighbours so.
            if let (Event::PeerUp { .. } | Event::DuplicateMaster { .. }, Some(takeover)) = (&event, &self.takeover) {
                takeover.announce();
            }
        }
    }

    /// A master gives its role away before it leaves, if somebody may inherit [5.3.10]. The engine ends the wait: the heir is
    /// master, or has not become it within `handover_deadline`.
    pub(super) fn give_away(&mut self) {
        let now = (self.clock)();
        if let Some(engine) = self.engine.ssyncp1() {
            engine.give_away(now);
        }
        while self.engine.ssyncp1().is_some_and(|engine| engine.heir().is_some()) {
            let found = self.turn();
            self.rest(found);
        }
    }

    /// Withdraws the addresses, says goodbye and sends what is left.
    pub(super) fn leave(&mut self) {
        let start = (self.clock)();
        if let Some(takeover) = &self.takeover {
            takeover.hold(false);
        }
        self.engine.leave(start);
        loop {
            let now = (self.clock)();
            let mut load = Load::default();
            self.transmit(now, &mut load);
            self.note_events(now);
            // The engine has said all when it takes part in nothing; the transport, when nothing is stuck in it.
            let all_said = self.engine.role() == Role::None && !load.queue_full;
            if all_said || !self.watch.usable() || now.since(start) >= FAREWELL {
                break;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        if let Some(takeover) = self.takeover.take() {
            takeover.finish();
        }
        let mut notify = std::mem::replace(&mut self.notify, Notify::nobody(self.desk.sync_id));
        notify.role(Role::None, self.fitness.priority(), None);
        notify.finish();
    }
}
