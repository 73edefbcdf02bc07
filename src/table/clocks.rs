//! The clocks of a node's own copies: what the sink was given lives in a kernel that counts by itself, and hears nothing of the
//! packets that pass the master.
//!
//! ```text
//!   master's clock of a flow     ├─ told ──────────────────────────┤ run out, unless a packet came; a dump tells that later
//!   the table's, on a backup     ├─ told ──────────────────────────┤ run out ── patience ──┤ written again, from here on anew
//!   its kernel's                 ├─ told ──────────────────────────┼────── margin, more than patience ──────┤ never comes so far
//! ```
//!
//! One rule holds on a backup all the time: the kernel's clock of an entry runs `margin` behind the table's, at least. So a
//! takeover finds every entry with `margin` less `patience` left, and has nothing to write for the sake of time. What the
//! kernel holds from another time, when it was a master's or a dead daemon's, has no such margin: there the table's clock is
//! set back by it, which comes to the same [4.6.5].

use super::Table;
use super::entry::{Entry, FOUND, Kind, OWED, Place, Version, deadline};
use super::record::Key;
use crate::flow::FlowKey;
use crate::time::{Duration, Instant};

impl Table {
    /// What the sink is given has so much over its flow [4.6.5]: until a packet touches it the source may name it so, and that is
    /// no news of the flow [4.6.2]. It never gets shorter, because what was written stays written.
    pub fn set_margin(&mut self, margin: Duration) {
        self.margin = self.margin.max(whole_seconds(margin));
    }

    /// Takeover where the source does not find deaths, so that time does: every flow has at least so much time left from now
    /// on [4.6.4]. O(n), and nothing is told to anybody: the peers keep what they hold until they are told of its end.
    pub fn restart_clocks(&mut self, now: Instant, least: Duration) {
        let least = deadline(whole_seconds(least), now);
        for entry in self.slots.iter_mut().filter(|entry| entry.kind == Kind::Live) {
            entry.deadline = entry.deadline.max(least);
        }
    }

    /// The end of a mastership: its kernel's clocks are those of its own packets, without a margin; and where there is
    /// none, the table's stand so much earlier [4.6.5]. O(n).
    pub fn set_clocks_back(&mut self, margin: Duration) {
        let margin = whole_seconds(margin);
        for entry in self.slots.iter_mut().filter(|entry| entry.kind == Kind::Live) {
            entry.deadline = entry.deadline.saturating_sub(margin);
        }
    }

    /// Looks at `slots` slots of a backup from `hand` on, and leaves the hand where it stopped. Flows whose clock has run out
    /// for as long as `patience` go to the sink again, and their clock counts as run out only now. How many.
    ///
    /// `warm`: whether the table was proven once. Until then nobody has said that what was found in the kernel lives.
    pub fn renew_copies(&mut self, now: Instant, patience: Duration, hand: &mut u32, slots: u32, warm: bool) -> u32 {
        let due = now.as_secs().saturating_sub(patience.as_secs());
        let mut at = if *hand < self.slots.count() { *hand } else { 0 };
        let mut renewed = 0;
        for _ in 0..slots.min(self.slots.count()) {
            let entry = self.slots.get(at);
            if u64::from(entry.deadline) <= due && entry.is_kept_copy(warm) {
                self.slots.get_mut(at).deadline = deadline(0, now);
                renewed += u32::from(self.queue_at(at));
            }
            at = self.slots.after(at);
        }
        *hand = at;
        renewed
    }

    /// The kernel of a backup has dropped its copy of this flow: it goes to the sink again, if it is held. Whether it does now.
    /// `warm` as in [`Table::renew_copies`].
    pub fn put_back(&mut self, key: &FlowKey, warm: bool) -> bool {
        let Some(key) = Key::pack(key, self.seed()) else { return false };
        let Ok(at) = self.slots.find(&key) else { return false };
        self.slots.get(at).is_kept_copy(warm) && self.queue_at(at)
    }

    /// Puts a live entry on the sink list; what waits for the wire keeps its turn there, and goes to the sink afterwards.
    /// Whether the sink would not have heard of it otherwise.
    pub(super) fn queue_at(&mut self, at: u32) -> bool {
        let entry = self.slots.get_mut(at);
        match entry.place {
            Place::Wire if !entry.is(OWED) => {
                entry.set(OWED);
                self.owed += 1;
                true
            }
            Place::Nowhere => {
                self.place(at, self.slots.hash_at(at), Place::Sink);
                true
            }
            _ => false,
        }
    }
}

impl Entry {
    /// Whether it was found in this node's kernel, and no stream has named it.
    pub(super) fn is_hearsay(&self) -> bool {
        self.is(FOUND) && self.version == Version::default()
    }

    fn is_kept_copy(&self, warm: bool) -> bool {
        self.kind == Kind::Live && (warm || !self.is_hearsay())
    }
}

/// Time-outs are told in whole seconds; one that is begun counts.
pub(super) fn whole_seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos().div_ceil(1_000_000_000)).unwrap_or(u32::MAX)
}
