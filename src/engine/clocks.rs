//! The clocks of copies: how long what a backup's sink was given lives in its kernel, and what a takeover does to clocks
//! (docs/protocol.md 4.6).
//!
//! ```text
//!   told 120 s                 run out      written again, if nobody said that it is gone
//!     ├──────────── 120 s ────────┼── PATIENCE 75 s ──┼─ ROUND 16 s ─┤
//!   kernel: 120 s + margin 275 s = 395 s              ┊              ┊
//!     ├───────────────────────────┼───────────────────┼──────────────┼─ 4 s ─┼─── takeover_grace 180 s ────────┤
//! ```
//!
//! So whenever the role is taken, each copy has `takeover_grace` left at least, and the takeover has nothing to write for the
//! sake of time. How often the master dumps, and how late its word comes, does not matter.

use super::{Engine, Role, UpdateError};
use crate::flow::{Change, Flow, FlowKey};
use crate::table::Refused;
use crate::time::{Duration, Instant};

/// A clock that has run out is nothing to act upon for so long: a kernel finds out within 60 s that an entry's time is over
/// (`gc_worker` in nf_conntrack_core.c), and then the delete is on its way.
const PATIENCE: Duration = Duration::from_secs(75);
/// Time in which every copy is looked at once.
const ROUND: Duration = Duration::from_secs(16);
/// Most slots that are looked at together: 4 MB of memory, less than a millisecond.
const SLOTS_AT_ONCE: u32 = 65_536;
/// Fewest looks of a round.
const LOOKS_MIN: u32 = 16;
/// What copies have over the takeover's grace: PATIENCE, ROUND, and some seconds for the sink.
const RESERVE: Duration = Duration::from_secs(95);

/// Time that a change may take from here into the sink; until then its flow's clock runs on, and that of the copy does not.
const SINK_LATE: Duration = Duration::from_secs(30);

/// How far the round over the copies is.
#[derive(Debug)]
pub(super) struct Copies {
    hand: u32,
    next_at: Instant,
    /// What the kernel holds is on its way into the table.
    pub(super) filling: bool,
}

impl Copies {
    pub(super) fn new(now: Instant) -> Self {
        Copies { hand: 0, next_at: now, filling: false }
    }
}

impl Engine {
    /// The kernel of this node has dropped an entry, and it was no master's [4.6.6]: if the table still holds the flow,
    /// [`Engine::poll_applied`] yields it again. Whether it does.
    pub fn put_back(&mut self, key: &FlowKey) -> bool {
        let warm = !self.cold;
        let back = self.table.put_back(key, warm);
        self.counters.copies_put_back += u64::from(back);
        back
    }

    /// Fills the table with what this node's sink still holds from before a restart, so that only what differs has to come
    /// over the wire. Only while no stream is followed and this node is not master; it stays cold all the same.
    ///
    /// # Errors
    /// [`UpdateError::NotMaster`] if a stream is followed or this node is master already; or that there is no room.
    pub fn preload(&mut self, now: Instant, flow: &Flow) -> Result<(), UpdateError> {
        self.fill(now, flow, false)
    }

    /// As [`Engine::preload`], from a sink that others write to as well, as a kernel's connection table: if the stream does
    /// not name the flow, it is forgotten, and not taken from the sink, because it may be somebody else's [4.5.7].
    ///
    /// # Errors
    /// As there.
    pub fn preload_found(&mut self, now: Instant, flow: &Flow) -> Result<(), UpdateError> {
        self.fill(now, flow, true)
    }

    /// While it is filled by [`Engine::preload`], a node follows nobody; in everything else it takes part.
    pub fn set_filling(&mut self, filling: bool) {
        self.copies.filling = filling;
    }

    fn fill(&mut self, now: Instant, flow: &Flow, found: bool) -> Result<(), UpdateError> {
        if self.inbox.stream().is_some() || matches!(self.role(), Role::Promoting | Role::Master) {
            return Err(UpdateError::NotMaster);
        }
        self.table.preload(flow, self.copy_margin(), found, now).map_err(|refused| match refused {
            Refused::Unsupported => UpdateError::Unsupported,
            Refused::TableFull | Refused::TombstonesFull => UpdateError::TableFull,
            Refused::AnnexFull => UpdateError::AnnexFull,
        })
    }

    /// What the source names a copy with over its flow at most, as late as it may have been written.
    pub(super) fn named_margin(&self) -> Duration {
        self.copy_margin() + SINK_LATE
    }

    /// What a copy has over its flow.
    pub(super) fn copy_margin(&self) -> Duration {
        self.config.takeover_grace + RESERVE
    }

    pub(super) fn with_margin(&self, change: Change) -> Change {
        match change {
            Change::Upsert(flow) => Change::Upsert(with_margin(flow, self.copy_margin())),
            Change::Delete(key) => Change::Delete(key),
        }
    }

    /// Looks after a part of the copies, when it is time.
    pub(super) fn renew_copies(&mut self, now: Instant) {
        if self.copies_at().is_none_or(|at| now < at) {
            return;
        }
        let slots = self.table.slots();
        let looks = slots.div_ceil(SLOTS_AT_ONCE).max(LOOKS_MIN);
        self.copies.next_at = now + ROUND / looks;
        let warm = !self.cold;
        let renewed = self.table.renew_copies(now, PATIENCE, &mut self.copies.hand, slots.div_ceil(looks), warm);
        self.counters.copies_renewed += u64::from(renewed);
    }

    /// When the next part is due; never for a master, whose kernel is the truth, nor for who takes part in nothing.
    pub(super) fn copies_at(&self) -> Option<Instant> {
        let keeps = matches!(self.role(), Role::Backup | Role::Fault | Role::Promoting);
        (keeps && !self.table.is_empty()).then_some(self.copies.next_at)
    }
}

/// The flow with the time that its copy is to have.
pub(super) fn with_margin(flow: Flow, margin: Duration) -> Flow {
    let timeout = u64::from(flow.timeout) + margin.as_secs();
    Flow { timeout: u32::try_from(timeout).unwrap_or(u32::MAX), ..flow }
}
