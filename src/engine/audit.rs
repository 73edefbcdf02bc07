//! What an owner needs who compares the sink's side with the table. See [`crate::table`] for how entries are marked.

use super::{Engine, Role};
use crate::flow::{Flow, FlowKey};
use crate::table::Held;
use crate::time::Instant;
use core::ops::Range;

impl Engine {
    /// Which proof of a backup's table stands: another number after each time that it was lost; `None` while none does.
    /// What is not in a proven table is not in its master's either.
    pub fn proof(&self) -> Option<u64> {
        let follows = self.role() == Role::Backup && self.inbox.stream().is_some();
        self.repair.proof().filter(|_| follows)
    }

    /// Flows that fit the table.
    pub fn capacity(&self) -> u64 {
        u64::from(self.table.capacity())
    }

    /// An audit of the sink begins, which has taken everything that it was given.
    pub fn begin_audit(&mut self) {
        self.table.begin_audit();
    }

    /// The sink's side holds an entry of this key; `agrees` says whether it is what a flow asks for. One that is other is
    /// yielded by [`Engine::poll_applied`] again, if it is to be repaired.
    pub fn audit_held(
        &mut self,
        key: &FlowKey,
        now: Instant,
        repair: bool,
        agrees: impl FnOnce(&Flow) -> bool,
    ) -> Held {
        self.table.audit_held(key, now, repair, agrees)
    }

    /// Flows in these of the table's [`Engine::slots`] that the audit has not named, and that the sink takes: how many.
    /// They are yielded by [`Engine::poll_applied`] again, if they are to be repaired.
    pub fn audit_missing(
        &mut self,
        slots: Range<u32>,
        now: Instant,
        repair: bool,
        takes: impl Fn(&Flow) -> bool,
    ) -> u32 {
        self.table.audit_missing(slots, now, repair, takes)
    }

    /// Whether neither the flow is in the table, nor is its end still on the way to the sink.
    pub fn lacks(&self, key: &FlowKey) -> bool {
        self.table.lacks(key)
    }

    /// While held, this node does not take the role from a living master [5.3.1]; a dead one is replaced all the same.
    pub fn hold_preemption(&mut self, held: bool) {
        self.preemption_held = held;
    }
}
