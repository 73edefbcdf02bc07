//! The master's side: what the source says goes in, what must be sent comes out.

use super::entry::{Entry, Kind, OWED, OWN, Place, SAID, UNSENT, Version, deadline};
use super::record::Packed;
use super::{BUCKETS, Pending, Refused, Table};
use crate::flow::{Flow, FlowKey, PlainFlow, attribute};
use crate::time::Instant;

impl Table {
    /// The source says that the flow is this. Whether it now waits for the wire: because it is new, because its value
    /// is another, because its time-out is more than twice what is left of the one that the peers were told [4.6], or
    /// because it waited already. The source is newer than what waits for the sink: that is struck. Attributes that no
    /// source of this version can know stay as they are [4.1.5].
    ///
    /// # Errors
    /// [`Refused::TableFull`] for a new key, [`Refused::AnnexFull`] for one that is held too: it then keeps its former
    /// value. [`Refused::Unsupported`] if it has no form on the wire.
    pub fn put(&mut self, flow: &Flow, now: Instant) -> Result<bool, Refused> {
        let said = Packed::new(flow, self.seed()).ok_or(Refused::Unsupported)?;
        let hash = said.key.hash;
        let at = match self.slots.find(&said.key) {
            Ok(at) => at,
            Err(gap) => {
                let unsent = if self.graves.number_of(&said.key, self.seed()).is_some() { 0 } else { UNSENT };
                let at = self.create(gap, &said, deadline(flow.timeout, now))?;
                self.place(at, hash, Place::Wire);
                self.slots.get_mut(at).set(unsent | SAID | OWN);
                return Ok(true);
            }
        };
        // Named by the dump, even if its new value finds no room.
        self.slots.get_mut(at).dump = self.dump;
        match self.with_unknown(at, flow) {
            None => self.put_at(at, &said, flow.timeout, now),
            Some(whole) => {
                let said = Packed::new(&whole, self.seed()).ok_or(Refused::Unsupported)?;
                self.put_at(at, &said, whole.timeout, now)
            }
        }
    }

    fn put_at(&mut self, at: u32, said: &Packed<'_>, timeout: u32, now: Instant) -> Result<bool, Refused> {
        let (_, due) = self.assign(at, (said, timeout), now, Place::Wire)?;
        if due {
            self.slots.get_mut(at).set(SAID);
        } else {
            self.place(at, said.key.hash, Place::Nowhere);
        }
        self.forgive(at);
        Ok(due)
    }

    /// The flow with those attributes of the held one that this version does not know, so that its source, which does
    /// not know them either, does not take them away. `None` if there are none. What has no room in a record is dropped,
    /// and counted.
    fn with_unknown(&mut self, at: u32, flow: &Flow) -> Option<Flow> {
        let entry = self.slots.get(at);
        if entry.kind != Kind::Live || entry.record.plain().is_some() {
            return None;
        }
        let mut scratch = None;
        let held = self.slots.view(at, &mut scratch);
        let is_kept = |&(kind, _): &(u8, &[u8])| kind > attribute::KNOWN_MAX && flow.attributes.get(kind).is_none();
        let mut kept = held.attributes().filter(is_kept).peekable();
        kept.peek()?;
        let (mut whole, mut dropped) = (flow.clone(), 0);
        for (kind, data) in kept {
            dropped += u64::from(whole.attributes.set(kind, data).is_err());
        }
        self.attributes_dropped += dropped;
        Some(whole)
    }

    /// The source says that the flow is gone: a delete waits for the wire, in the turn of the upsert that waited. An
    /// insert that was never sent is cancelled instead, and costs nothing [4.2]. Whether the flow was held.
    pub fn take(&mut self, key: &FlowKey) -> bool {
        let Some((at, hash)) = self.find_live(key) else { return false };
        self.take_at(at, hash);
        true
    }

    /// Whether the slot was freed.
    fn take_at(&mut self, at: u32, hash: u64) -> bool {
        let unsent = self.slots.get(at).is(UNSENT);
        self.ended.note(hash);
        self.kill(at, hash);
        self.place(at, hash, if unsent { Place::Nowhere } else { Place::Wire });
        if unsent {
            self.free(at, hash);
        }
        unsent
    }

    /// A dump of the source begins; one that runs begins anew.
    pub fn begin_dump(&mut self) {
        self.dumping = true;
        self.swept = 0;
        self.next_dump();
    }

    /// From here on, nothing counts as named.
    pub(super) fn next_dump(&mut self) {
        self.dump = match self.dump.checked_add(1) {
            Some(dump) => dump,
            None => {
                self.slots.iter_mut().for_each(|entry| entry.dump = 0);
                1
            }
        };
    }

    /// Whether a dump runs. It ends with [`Table::end_dump`], or is given up when a stream begins.
    pub fn dumping(&self) -> bool {
        self.dumping
    }

    /// The dump is complete: flows that no [`Table::put`] named since it began have died unseen, and are taken. One call
    /// looks at about `slots` slots, in whole buckets and at least one; the dump has ended when [`Table::dumping`] says
    /// so. How many were taken; none if no dump runs.
    pub fn end_dump(&mut self, slots: u32) -> u32 {
        if !self.dumping {
            return 0;
        }
        let buckets = u64::from(slots) * BUCKETS as u64 / u64::from(self.slots.count());
        let end = (u64::from(self.swept) + buckets.max(1)).min(BUCKETS as u64) as u16;
        let taken = (self.swept..end).map(|bucket| self.take_unnamed(bucket)).sum();
        self.swept = end;
        self.dumping = usize::from(end) < BUCKETS;
        taken
    }

    /// Takes the flows of a bucket that the dump has not named.
    fn take_unnamed(&mut self, bucket: u16) -> u32 {
        let mut walk = self.slots.index.walk(bucket);
        let mut taken = 0;
        while let Some(at) = self.slots.index.next_of(&mut walk) {
            let entry = *self.slots.get(at);
            // What a merge has brought and the sink has not taken is in no dump.
            let owed = entry.is(OWED) || (entry.is(SAID) && entry.place == Place::Sink);
            if entry.kind == Kind::Live && entry.dump != self.dump && !owed {
                taken += 1;
                if self.take_at(at, self.slots.hash_at(at)) {
                    walk.again();
                }
            }
        }
        taken
    }

    /// Records of flows that wait to be sent.
    pub fn pending(&self) -> u32 {
        self.slots.wire.len
    }

    /// The record that waits longest; a flow comes with the time that it has left.
    pub fn peek_pending(&self, now: Instant) -> Option<Pending> {
        let at = self.slots.wire.first()?;
        Some(match self.slots.get(at).kind {
            Kind::Live => Pending::Upsert(self.flow_at(at, now)),
            _ => Pending::Delete(self.key_at(at)),
        })
    }

    /// The same, if it is an upsert of IPv4 without attributes, in its shorter form.
    #[inline]
    pub fn peek_plain(&self, now: Instant) -> Option<PlainFlow> {
        let entry = self.slots.get(self.slots.wire.first()?);
        let encoding = entry.record.plain().filter(|_| entry.kind == Kind::Live)?;
        Some(PlainFlow { encoding: *encoding, timeout: entry.remaining(now) })
    }

    /// Every flow that waits to be sent, the longest first, as it is, or as it was when it died; and whether it lives. Of a
    /// dead one the attributes are gone, and if it is of IPv6 all but the key.
    pub fn pending_flows(&self, now: Instant) -> impl Iterator<Item = (Flow, bool)> + '_ {
        let from = self.slots.wire.first();
        core::iter::successors(from, |at| self.slots.following(*at)).map(move |at| {
            let entry = self.slots.get(at);
            (self.flow_at(at, now), entry.kind == Kind::Live)
        })
    }

    /// The record that [`Table::peek_pending`] showed went out in frame `number` of the own stream.
    pub fn sent(&mut self, number: u64) {
        let Some(at) = self.slots.wire.first() else { return };
        let hash = self.slots.hash_at(at);
        self.digest.touch(hash, number);
        let entry = self.slots.get_mut(at);
        entry.version = Version::new(self.ordinal, number);
        let (kind, owed) = (entry.kind, entry.is(OWED));
        self.place(at, hash, if owed { Place::Sink } else { Place::Nowhere });
        if kind == Kind::Dead {
            self.free(at, hash);
        }
    }

    /// Puts every flow of a bucket on the wire list, for a walk [4.5]; those that are there keep their turn, those that
    /// wait for the sink go to it afterwards. Its sections join their queue. How many it adds to both.
    pub fn queue_bucket(&mut self, bucket: u16) -> u32 {
        let mut walk = self.slots.index.walk(bucket);
        let mut added = 0;
        while let Some(at) = self.slots.index.next_of(&mut walk) {
            let Entry { kind, place, .. } = *self.slots.get(at);
            if kind == Kind::Live && place != Place::Wire {
                self.forget_said(at);
                self.place(at, self.slots.hash_at(at), Place::Wire);
                added += 1;
                if place == Place::Sink {
                    self.slots.get_mut(at).set(OWED);
                    self.owed += 1;
                }
            }
        }
        added + self.queue_sections(bucket)
    }

    /// Takes flows whose time is over, for a source that does not report deaths itself [4.6]: looks at `slots` slots
    /// from `hand` on, and leaves the hand where it stopped. How many were taken.
    pub fn expire(&mut self, now: Instant, hand: &mut u32, slots: u32) -> u32 {
        let mut at = if *hand < self.slots.count() { *hand } else { 0 };
        let mut taken = 0;
        for _ in 0..slots.min(self.slots.count()) {
            let entry = self.slots.get(at);
            let over = entry.kind == Kind::Live && entry.expired(now);
            if over {
                self.take_at(at, self.slots.hash_at(at));
                taken += 1;
            }
            at = self.slots.after(at);
        }
        *hand = at;
        taken
    }
}
