//! What an owner needs who compares the sink's side with the table. See [`crate::table`] for how entries are marked.

use super::peers::Peer;
use super::{Engine, Role, clocks};
use crate::flow::{Flow, FlowKey};
use crate::table::Held;
use crate::time::Instant;
use core::ops::Range;

/// How large a kernel's connection table is; all zero where that is not known.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct KernelRoom {
    /// Entries that it can hold.
    pub capacity: u32,
    /// Buckets of its hash.
    pub buckets: u32,
}

impl Engine {
    /// The size of this node's kernel's table: the next ADVERTs tell the others.
    pub fn set_kernel_room(&mut self, room: KernelRoom) {
        self.kernel_room = room;
    }

    /// The size of the kernel's table of the followed master; on a master, the smallest that an established peer has told.
    /// `None` until one is told.
    pub fn peer_room(&self) -> Option<KernelRoom> {
        let (stream, is_master) = (self.inbox.stream(), self.role() == Role::Master);
        let counts = |peer: &&Peer| is_master || stream.is_some_and(|stream| stream.node == peer.node);
        let rooms = self.peers.established().filter(counts).map(|peer| peer.word.kernel);
        rooms.filter(|room| room.capacity > 0).min_by_key(|room| room.capacity)
    }

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
        let margin = self.copy_margin();
        self.table.audit_held(key, now, repair, |flow| agrees(&clocks::with_margin(flow.clone(), margin)))
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
