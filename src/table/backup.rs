//! The backup's side: what the followed stream says goes in, what the sink must hear comes out.

use super::clocks::whole_seconds;
use super::entry::{Entry, FOUND, Kind, Place, TOMBSTONE, Version};
use super::record::{Key, Packed};
use super::{Ahead, Applied, Refused, Table, deadline};
use crate::flow::{Change, Flow, FlowKey, KeyBytes, PlainFlow};
use crate::time::{Duration, Instant};

impl Table {
    /// Frame `number` of the followed stream says that the flow is this. It applies if the key is unknown or its
    /// version is older [4.2]. The sink hears of it if the value is another, or if the time-out must be refreshed.
    ///
    /// # Errors
    /// [`Refused::TableFull`] for a new key, [`Refused::AnnexFull`] for one that is held too: it then keeps its former
    /// value, but counts as named by this frame. [`Refused::Unsupported`] if it has no form on the wire.
    pub fn apply_upsert(&mut self, flow: &Flow, number: u64, now: Instant) -> Result<Applied, Refused> {
        let said = Packed::new(flow, self.seed()).ok_or(Refused::Unsupported)?;
        self.apply_said(&said, flow.timeout, number, now)
    }

    /// The same of a flow in its shorter form, for whose key the table has looked ahead.
    ///
    /// # Errors
    /// As [`Table::apply_upsert`].
    #[inline]
    pub fn apply_plain(
        &mut self,
        plain: &PlainFlow,
        ahead: Ahead,
        number: u64,
        now: Instant,
    ) -> Result<Applied, Refused> {
        self.apply_said(&Packed::of_plain(plain, ahead.0), plain.timeout, number, now)
    }

    fn apply_said(&mut self, said: &Packed<'_>, timeout: u32, number: u64, now: Instant) -> Result<Applied, Refused> {
        let hash = said.key.hash;
        let version = Version::new(self.ordinal, number);
        let (at, changed) = match self.slots.find(&said.key) {
            Ok(at) if self.slots.get(at).version >= version => {
                self.tombstone_hits += u64::from(self.slots.get(at).kind == Kind::Dead);
                return Ok(Applied::Older);
            }
            Ok(at) => (at, self.assign(at, (said, timeout), now, Place::Sink).map(|(changed, _)| changed)),
            Err(gap) => {
                if self.graves.number_of(&said.key, self.seed()).is_some_and(|buried| buried >= version.number()) {
                    self.tombstone_hits += 1;
                    return Ok(Applied::Older);
                }
                let at = self.create(gap, said, deadline(timeout, now))?;
                self.place(at, hash, Place::Sink);
                (at, Ok(true))
            }
        };
        if changed.is_ok() || self.slots.get(at).kind == Kind::Live {
            self.slots.get_mut(at).version = version;
            self.digest.touch(hash, number);
        }
        changed.map(|changed| if changed { Applied::Changed } else { Applied::Unchanged })
    }

    /// Frame `number` of the followed stream said something about this flow that was refused: its bucket is touched by it,
    /// so that no digest from before it can prove the bucket [4.4].
    pub fn touch(&mut self, key: &FlowKey, number: u64) {
        if let Some(key) = Key::pack(key, self.seed()) {
            self.digest.touch(key.hash, number);
        }
    }

    /// The sink already holds this flow, from before any stream: it does not hear of it, and all that a stream says is
    /// newer. Its clock in the sink has no `margin` over its own, as what is written there has: the table's is set back by
    /// that [4.6.5]. `found`: others may write to the sink as well, so that it may be theirs.
    ///
    /// # Errors
    /// As [`Table::apply_upsert`].
    pub fn preload(&mut self, flow: &Flow, margin: Duration, found: bool, now: Instant) -> Result<(), Refused> {
        let said = Packed::new(flow, self.seed()).ok_or(Refused::Unsupported)?;
        let deadline = deadline(flow.timeout, now).saturating_sub(whole_seconds(margin));
        match self.slots.find(&said.key) {
            Ok(at) => {
                self.assign(at, (&said, flow.timeout), now, Place::Nowhere)?;
                self.slots.get_mut(at).deadline = deadline;
            }
            Err(gap) => {
                let at = self.create(gap, &said, deadline)?;
                if found {
                    self.slots.get_mut(at).set(FOUND);
                }
            }
        }
        Ok(())
    }

    /// Frame `number` of the followed stream says that the flow is gone, while the frontier stands at `frontier`. It
    /// applies if the key is unknown or its version is older. Above `frontier + 1` it leaves a tombstone, also for an
    /// unknown key, so that a late upsert with a lower number cannot bring the flow back [4.2].
    ///
    /// # Errors
    /// [`Refused::TombstonesFull`] if it must leave one and there are too many, [`Refused::Unsupported`] if it has no form
    /// on the wire.
    pub fn apply_delete(&mut self, key: &FlowKey, number: u64, frontier: u64) -> Result<Applied, Refused> {
        let key = Key::pack(key, self.seed()).ok_or(Refused::Unsupported)?;
        self.apply_gone(&key, number, frontier)
    }

    /// The same of a key for which the table has looked ahead.
    ///
    /// # Errors
    /// As [`Table::apply_delete`].
    #[inline]
    pub fn apply_delete_ahead(
        &mut self,
        key: KeyBytes,
        ahead: Ahead,
        number: u64,
        frontier: u64,
    ) -> Result<Applied, Refused> {
        self.apply_gone(&Key { hash: ahead.0, bytes: key }, number, frontier)
    }

    fn apply_gone(&mut self, key: &Key, number: u64, frontier: u64) -> Result<Applied, Refused> {
        self.passed(frontier);
        let version = Version::new(self.ordinal, number);
        let early = version.number() > self.graves.frontier() + 1;
        let full = early && self.tombstones() >= self.tombstone_limit;
        let applied = match self.slots.find(key) {
            Ok(at) => {
                let old = *self.slots.get(at);
                if old.version >= version {
                    return Ok(Applied::Older);
                }
                if full && !old.is(TOMBSTONE) {
                    return Err(Refused::TombstonesFull);
                }
                if old.kind == Kind::Live {
                    self.kill(at, key.hash);
                    self.place(at, key.hash, Place::Sink);
                }
                self.clear_tombstone(at);
                let entry = self.slots.get_mut(at);
                entry.version = version;
                if early {
                    entry.set(TOMBSTONE);
                    self.tombstones += 1;
                }
                if old.kind == Kind::Live { Applied::Changed } else { Applied::Unchanged }
            }
            Err(_) => {
                let buried = self.graves.number_of(key, self.seed());
                if buried.is_some_and(|buried| buried >= version.number()) {
                    return Ok(Applied::Older);
                }
                if full && buried.is_none() {
                    return Err(Refused::TombstonesFull);
                }
                if early {
                    self.graves.bury(key, self.seed(), version.number());
                }
                Applied::Unchanged
            }
        };
        self.digest.touch(key.hash, number);
        Ok(applied)
    }

    /// The frontier stands at `frontier` now: nothing up to it can still arrive, and tombstones up to it are freed.
    /// Amortised O(1) per tombstone; a frontier that does not move forward changes nothing.
    pub fn passed(&mut self, frontier: u64) {
        self.sections.passed(frontier);
        self.graves.pass(frontier);
    }

    /// The walk of a bucket has ended, and `since` is the stream number before its first [4.5]: entries of the bucket
    /// whose version is of a former stream, or not above `since`, were not named by it. They die, and the sink hears
    /// of it; but not of what was found there and no stream ever named: that may be somebody else's, and who compares
    /// the two looks twice before it removes anything [5.2.6]. How many.
    pub fn remove_older(&mut self, bucket: u16, since: u64) -> u32 {
        let named = Version::new(self.ordinal, since);
        let mut walk = self.slots.index.walk(bucket);
        let mut removed = 0;
        while let Some(at) = self.slots.index.next_of(&mut walk) {
            let entry = *self.slots.get(at);
            if entry.kind != Kind::Live || entry.version > named {
                continue;
            }
            let hash = self.slots.hash_at(at);
            self.kill(at, hash);
            removed += 1;
            if entry.is_hearsay() {
                self.place(at, hash, Place::Nowhere);
                self.free(at, hash);
                walk.again();
            } else {
                self.place(at, hash, Place::Sink);
            }
        }
        removed + self.remove_older_sections(bucket, since)
    }

    /// Flows that wait for the sink, those included that go to the wire first (a bucket is walked by a master whose
    /// sink has not yet taken all).
    pub fn unapplied(&self) -> u32 {
        self.slots.sink.len + self.owed
    }

    /// Takes out the change that waits longest for the sink; a flow comes with the time that it has left.
    pub fn pop_applied(&mut self, now: Instant) -> Option<Change> {
        let at = self.slots.sink.first()?;
        self.slots.enlist(at, Place::Nowhere);
        let entry = self.slots.get_mut(at);
        if entry.kind == Kind::Live {
            // It is written only now: what an audit reads of it may be older, and a dump may have passed its place.
            entry.dump = self.dump;
            return Some(Change::Upsert(self.flow_at(at, now)));
        }
        let (early, number) = (entry.is(TOMBSTONE), entry.version.number());
        let (name, key) = (self.key_at(at), self.slots.key_at(at));
        self.free(at, key.hash);
        if early && number > self.graves.frontier() {
            self.graves.bury(&key, self.seed(), number);
        }
        Some(Change::Delete(name))
    }

    /// Takes flows whose time is over, for a stream that says nothing of deaths [3.1]: looks at `slots` slots from `hand`
    /// on, and leaves the hand where it stopped. The sink hears of each. How many were taken.
    pub fn age(&mut self, now: Instant, hand: &mut u32, slots: u32) -> u32 {
        let mut at = if *hand < self.slots.count() { *hand } else { 0 };
        let mut aged = 0;
        for _ in 0..slots.min(self.slots.count()) {
            let entry = self.slots.get(at);
            if entry.kind == Kind::Live && entry.expired(now) {
                let hash = self.slots.hash_at(at);
                self.kill(at, hash);
                self.place(at, hash, Place::Sink);
                aged += 1;
            }
            at = self.slots.after(at);
        }
        *hand = at;
        aged
    }

    /// Takeover: the sink's kernel may have dropped flows whose time is over, while a backup keeps them [4.6]. They go
    /// to the sink again. How many; O(n).
    pub fn queue_expired(&mut self, now: Instant) -> u32 {
        self.queue_to_sink(|entry| entry.expired(now))
    }

    /// Every flow goes to the sink again. How many; O(n).
    pub fn queue_all_to_sink(&mut self) -> u32 {
        self.queue_to_sink(|_| true)
    }

    /// What waits for the wire keeps its turn there, and goes to the sink afterwards.
    fn queue_to_sink(&mut self, wanted: impl Fn(&Entry) -> bool) -> u32 {
        let before = self.unapplied();
        for at in 0..self.slots.count() {
            let entry = self.slots.get(at);
            if entry.kind == Kind::Live && wanted(entry) {
                self.queue_at(at);
            }
        }
        self.unapplied() - before
    }
}
