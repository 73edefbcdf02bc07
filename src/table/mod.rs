//! The connection table: every flow that is replicated, in one allocation of fixed size; and beside them the
//! [`sections`], keys and values of any length that share its streams, versions and digest.
//!
//! A master fills it from its source and empties its wire list into frames; a backup fills it from frames and empties
//! its sink list into the kernel. A slot is on at most one list, whatever happens to it: fifty changes of a flow
//! between two frames cost one record, and a slow link means longer lists, never more memory.
//!
//! ```text
//!            master                                        backup
//! source ── put, take ──→ ┌──────────┐           ┌──────────┐ ←── apply_upsert, apply_delete ── frames
//!                         │  table   │           │  table   │
//! frames ←─ peek, sent ── │ (wire)   │           │   (sink) │ ──── pop_applied ──→ sink
//!                         └──────────┘           └──────────┘
//!                    digest, per bucket  ══ equal? ══  digest, per bucket
//! ```
//!
//! What happens to a slot:
//!
//! ```text
//!            put                      sent
//!   empty ─────────→ live on wire ─────────────→ live ── take ──→ dead on wire ── sent ──→ empty
//!       └─ apply_upsert → live on sink ── pop ──↗  └─ apply_delete → dead on sink ── pop ──→ empty; a grave stays behind
//!                                                                                            until the frontier passes it
//! ```
//!
//! Rules: docs/protocol.md 4.1 (streams and versions), 4.2 (order-free apply), 4.4 (digest), 4.5 (repair),
//! 4.6 (time-outs). No I/O, no clock: `now` comes in.
//!
//! An IPv4 flow without attributes is its slot, one cache line. Of any other flow the addresses and attributes stand in
//! the annex: blocks from one allocation that costs no memory until it is used. After [`Table::new`] nothing is
//! allocated, but for sections and the attributes of a flow that is handed out.

#![forbid(unsafe_code)]

mod ahead;
mod annex;
mod audit;
mod backup;
mod clocks;
mod digest;
mod entry;
mod graves;
mod index;
mod lists;
mod master;
mod merge;
mod record;
mod sections;
mod slots;

use crate::flow::{Flow, FlowKey, PlainFlow};
use crate::planted::{Plant, planted};
use crate::time::{Duration, Instant};
pub use ahead::Ahead;
use annex::Extent;
pub use audit::Held;
use core::fmt;
use core::ops::Range;
pub use digest::BUCKETS;
use digest::{Digest, bucket_of_hash};
use entry::{Entry, Kind, OWED, OWN, Place, TOMBSTONE, UNSENT, Version, deadline};
use graves::Graves;
use index::Gap;
use merge::Ended;
pub use merge::{Adopted, PageEntry};
use record::{Key, Packed};
use sections::Sections;
pub use sections::{PendingSection, Rest, SECTION_KEY_MAX, SectionLimits, SectionPart, SectionRefused};
use slots::Slots;

/// A backup's sink hears a time-out so much before its clock has run to half: a master sends each refreshment only once,
/// just past the half by its own clock, and a backup's clock is behind by rounding to whole seconds and by the way.
const SINK_SLACK: Duration = Duration::from_secs(2);

/// Why a flow was not taken. Nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Refused {
    /// Every slot is taken, by flows or by deletes that somebody has yet to hear of.
    #[error("the table is full")]
    TableFull,
    /// No room in the annex for what of the flow has none in its slot. A flow that is held keeps the value that it had.
    #[error("the annex of the table is full")]
    AnnexFull,
    /// Too many deletes have come before what they delete; the frame counts as not received [4.2].
    #[error("too many tombstones")]
    TombstonesFull,
    /// Its addresses are of two families, or its zone has no direction that exists: the wire has no form for it.
    #[error("this kind of flow is not replicated")]
    Unsupported,
}

/// What became of a record of the followed stream.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Applied {
    /// The table is another now, and the sink will hear of it.
    Changed,
    /// The value was the same (or the key was not held), and now has this version. The sink hears of it only if the
    /// time-out had to be refreshed.
    Unchanged,
    /// Something newer is known of this key [4.2]; nothing changed.
    Older,
}

/// A record that must be sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Pending {
    /// The flow is this; its time-out is what is left of it now.
    Upsert(Flow),
    /// The flow is gone.
    Delete(FlowKey),
}

/// Rules that a table breaks on purpose, for a test of the tests. Has no size where nothing can be broken.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Faults {
    /// What dies stays in the digest.
    #[cfg(any(test, feature = "breakages"))]
    pub(crate) digest_forgets_deletes: bool,
    /// Parts of an older value of a section are kept when a newer one of its key begins.
    #[cfg(any(test, feature = "breakages"))]
    pub(crate) parts_of_any_version: bool,
}

#[allow(clippy::unused_self, reason = "without the feature the answers do not depend on it")]
impl Faults {
    const fn digest_forgets_deletes(self) -> bool {
        #[cfg(any(test, feature = "breakages"))]
        return self.digest_forgets_deletes;
        #[cfg(not(any(test, feature = "breakages")))]
        false
    }

    const fn parts_of_any_version(self) -> bool {
        #[cfg(any(test, feature = "breakages"))]
        return self.parts_of_any_version;
        #[cfg(not(any(test, feature = "breakages")))]
        false
    }
}

/// The connection table of one group. See the module's figure.
pub struct Table {
    slots: Slots,
    graves: Graves,
    sections: Sections,
    digest: Digest,
    capacity: u32,
    tombstone_limit: u32,
    live: u32,
    /// Entries that are tombstones, and wait for the sink.
    tombstones: u32,
    /// Entries on the wire list that go on to the sink list.
    owed: u32,
    attributes_dropped: u64,
    tombstone_hits: u64,
    /// Counts the streams; see [`Version`].
    ordinal: u16,
    /// The first stream of the present mastership, or of the last one.
    reign: u16,
    ended: Ended,
    /// Seconds that copies in the sink had over their flows at most.
    margin: u32,
    /// Counts the dumps of the source and the audits of the sink, so that an entry can say which one named it last.
    dump: u8,
    dumping: bool,
    /// Buckets below this one have been rid of what a completed dump did not name.
    swept: u16,
    faults: Faults,
}

impl Table {
    /// The most that `capacity` can be.
    pub const MAX_CAPACITY: u32 = 1 << 31;

    /// Blocks that the annex of the smallest table has: room for some flows with the most attributes.
    const ANNEX_MIN: u32 = 64;

    /// An empty table for `capacity` flows, of which at most `tombstones` slots may hold deletes that came early, with an
    /// annex of two blocks of 60 bytes for each flow. An IPv6 flow needs one block with up to 20 bytes of attributes; an
    /// IPv4 flow none without attributes, and one with up to 60 bytes of them (48 behind NAT).
    ///
    /// The only place that allocates: 76 bytes per flow and 100 kB; and address space for 128 bytes per flow and about 40 per
    /// tombstone, of which only what is used takes memory.
    ///
    /// # Panics
    /// If `capacity` is above [`Table::MAX_CAPACITY`].
    pub fn new(capacity: u32, tombstones: u32, seed: u64) -> Table {
        Self::with_annex(capacity, tombstones, capacity.saturating_mul(2).max(Self::ANNEX_MIN), seed)
    }

    /// A table with an annex of so many blocks.
    ///
    /// # Panics
    /// As [`Table::new`].
    pub fn with_annex(capacity: u32, tombstones: u32, annex: u32, seed: u64) -> Table {
        assert!(capacity <= Self::MAX_CAPACITY, "slot numbers have 32 bits");
        Table {
            slots: Slots::new(capacity, annex, seed),
            graves: Graves::new(tombstones),
            sections: Sections::new(SectionLimits::default()),
            digest: Digest::new(seed),
            capacity,
            tombstone_limit: tombstones,
            live: 0,
            tombstones: 0,
            owed: 0,
            attributes_dropped: 0,
            tombstone_hits: 0,
            ordinal: 0,
            reign: 0,
            margin: 0,
            ended: Ended::new(tombstones),
            dump: 0,
            dumping: false,
            swept: 0,
            faults: Faults::default(),
        }
    }

    /// Breaks rules on purpose.
    #[cfg(any(test, feature = "breakages"))]
    pub(crate) fn with_faults(mut self, faults: Faults) -> Table {
        (self.faults, self.sections.faults) = (faults, faults);
        self
    }

    /// Entries held: flows, and entries of sections.
    pub fn len(&self) -> u32 {
        self.live + self.sections.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Slots that may be taken, by flows and by deletes that somebody has yet to hear of.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Slots that are free: new keys that would be taken now.
    pub fn room(&self) -> u32 {
        self.capacity - self.slots.used()
    }

    /// Deletes that are remembered because older records of their keys may still arrive [4.2]. One that waits for the
    /// sink counts until the sink has taken it, even if the frontier passes it before.
    pub fn tombstones(&self) -> u32 {
        self.tombstones + self.graves.len()
    }

    /// Upserts that came after the delete that a later frame had brought [4.2].
    pub fn tombstone_hits(&self) -> u64 {
        self.tombstone_hits
    }

    /// Attributes that [`Table::put`] was to keep [4.1.5], and that found no room in a record.
    pub fn attributes_dropped(&self) -> u64 {
        self.attributes_dropped
    }

    /// Bytes that the table takes, full or empty, without its annex.
    pub fn bytes(&self) -> usize {
        size_of::<Table>() + self.slots.bytes() + self.graves.bytes() + self.digest.bytes()
    }

    /// Blocks of 64 bytes in the annex.
    pub fn annex_blocks(&self) -> u32 {
        self.slots.annex.count()
    }

    /// Those of them that hold something.
    pub fn annex_used(&self) -> u32 {
        self.slots.annex.used()
    }

    /// The seed of digest and places.
    pub fn seed(&self) -> u64 {
        self.digest.seed()
    }

    /// Digest of the whole table: the wrapping sum over the buckets [4.4].
    pub fn digest(&self) -> u64 {
        self.digest.total()
    }

    /// Digest of one bucket; 0 for a bucket that does not exist.
    pub fn bucket_digest(&self, bucket: u16) -> u64 {
        self.digest.bucket(bucket).sum
    }

    /// The highest number of the present stream that touched the bucket [4.4]; 0 for none.
    pub fn touched(&self, bucket: u16) -> u64 {
        self.digest.bucket(bucket).touched
    }

    /// Records of the bucket that wait to be sent: with none, its digest is what the stream has said [4.4].
    pub fn bucket_pending(&self, bucket: u16) -> u32 {
        self.digest.bucket(bucket).pending
    }

    /// The bucket of a key, below [`BUCKETS`]; 0 for one that has no form.
    pub fn bucket_of(&self, key: &FlowKey) -> u16 {
        Key::pack(key, self.seed()).map_or(0, |key| bucket_of_hash(key.hash))
    }

    /// The flow of this key, with the time that it has left; `None` if it is not held.
    pub fn get(&self, key: &FlowKey, now: Instant) -> Option<Flow> {
        let (at, _) = self.find_live(key)?;
        Some(self.flow_at(at, now))
    }

    /// Every flow held, with the time that it has left, in no order that means anything.
    pub fn iter(&self, now: Instant) -> impl Iterator<Item = Flow> + '_ {
        self.iter_in(0..self.slots(), now)
    }

    /// The flows in some of the slots, for who looks at the table piece by piece. A change between two pieces may move
    /// a flow past the border, so that it is seen twice or not at all.
    pub fn iter_in(&self, slots: Range<u32>, now: Instant) -> impl Iterator<Item = Flow> + '_ {
        let slots = slots.start.min(self.slots())..slots.end.min(self.slots());
        slots.filter(|at| self.slots.get(*at).kind == Kind::Live).map(move |at| self.flow_at(at, now))
    }

    #[inline]
    fn flow_at(&self, at: u32, now: Instant) -> Flow {
        let entry = self.slots.get(at);
        match entry.record.plain() {
            Some(encoding) => PlainFlow { encoding: *encoding, timeout: entry.remaining(now) }.flow(),
            None => self.annexed_flow_at(at, now),
        }
    }

    #[inline(never)]
    fn annexed_flow_at(&self, at: u32, now: Instant) -> Flow {
        self.slots.view(at, &mut None).flow(self.slots.get(at).remaining(now))
    }

    fn key_at(&self, at: u32) -> FlowKey {
        match self.slots.get(at).record.plain() {
            Some(encoding) => PlainFlow { encoding: *encoding, timeout: 0 }.key(),
            None => self.slots.view(at, &mut None).key(),
        }
    }

    /// Slots, taken and empty.
    pub fn slots(&self) -> u32 {
        self.slots.count()
    }

    /// Another seed: every entry gets a new place and every digest is computed anew, in O(n) and in place. Lists keep
    /// their members, not their order. Every bucket counts as touched by the highest number that touched any.
    pub fn reseed(&mut self, seed: u64) {
        if seed == self.seed() {
            return;
        }
        self.slots.reseed(seed);
        self.digest.restart(seed);
        self.swept = 0;
        for at in 0..self.slots.count() {
            let Entry { kind, place, .. } = *self.slots.get(at);
            if kind == Kind::Empty {
                continue;
            }
            let hash = self.slots.hash_at(at);
            if kind == Kind::Live {
                self.digest.add(hash, self.digest_at(at));
            }
            if place == Place::Wire {
                self.digest.bucket_mut(hash).pending += 1;
            }
        }
        self.sections.reseed(&mut self.digest);
    }

    /// A stream begins that is followed, or an own mastership: everything held is older than all of it [4.1].
    ///
    /// Tombstones vanish, and with them every delete that has not been sent; deletes that wait for the sink stay.
    /// Nothing waits for the wire any more. No bucket has been touched, the frontier is 0, and a running dump is
    /// given up: it may not delete what another stream said.
    pub fn begin_stream(&mut self) {
        while let Some(at) = self.slots.wire.first() {
            let hash = self.slots.hash_at(at);
            let entry = *self.slots.get(at);
            self.say_unsent(at);
            self.place(at, hash, if entry.is(OWED) { Place::Sink } else { Place::Nowhere });
            if entry.kind == Kind::Dead {
                self.free(at, hash);
            }
        }
        self.graves.clear();
        let mut next = self.slots.sink.first();
        while let Some(at) = next {
            self.clear_tombstone(at);
            next = self.slots.following(at);
        }
        self.sections.begin_stream(&mut self.digest);
        self.dumping = false;
        self.begin_numbers();
    }

    /// The numbers of the own stream begin anew with 1: everything held is older than all of it. Unlike a new stream, what
    /// waits to be sent stays, and so does a running dump.
    pub fn begin_numbers(&mut self) {
        self.digest.untouch();
        self.restart_section();
        self.ordinal = match self.ordinal.checked_add(1) {
            Some(ordinal) => ordinal,
            None => {
                self.slots.iter_mut().for_each(|entry| entry.version = Version::default());
                self.sections.forget_versions();
                self.reign = 1;
                1
            }
        };
    }

    /// Asserts all that must be true between two calls; O(n), for tests.
    #[doc(hidden)]
    pub fn assert_consistent(&self) {
        self.slots.assert_consistent();
        self.graves.assert_consistent();
        let count = |what: &dyn Fn(&Entry) -> bool| self.slots.iter().filter(|entry| what(entry)).count() as u32;
        assert_eq!(self.live, count(&|entry| entry.kind == Kind::Live), "live entries");
        assert_eq!(self.tombstones, count(&|entry| entry.is(TOMBSTONE)), "tombstones");
        assert_eq!(self.owed, count(&|entry| entry.is(OWED)), "owed to the sink");
        assert!(self.slots.used() <= self.capacity && self.tombstones() <= self.tombstone_limit, "limits");
        let mut digest = Digest::new(self.seed());
        let taken = (0..).zip(self.slots.iter()).filter(|(_, entry)| entry.kind != Kind::Empty);
        for (at, entry) in taken {
            let hash = self.slots.hash_at(at);
            let on_wire = entry.place == Place::Wire;
            assert!(on_wire || !entry.is(UNSENT | OWED), "a flag of the wire list off it");
            assert!(entry.version < Version::new(self.ordinal, u64::MAX), "a version of the future");
            match entry.kind {
                Kind::Live => {
                    assert!(!entry.is(TOMBSTONE), "a living tombstone");
                    digest.add(hash, self.slots.view(at, &mut None).encode(|bytes| digest.of_bytes(bytes)));
                }
                _ => {
                    assert_ne!(entry.place, Place::Nowhere, "a dead entry that nobody waits for");
                    assert!(!entry.is(UNSENT | OWED), "a dead entry with a flag of the living");
                }
            }
            digest.bucket_mut(hash).pending += u32::from(on_wire);
        }
        self.sections.assert_consistent(&mut digest);
        assert_eq!(digest.total(), self.digest.total(), "total digest");
        for bucket in 0..BUCKETS as u16 {
            let (is, should) = (self.digest.bucket(bucket), digest.bucket(bucket));
            assert_eq!((is.sum, is.pending), (should.sum, should.pending), "bucket {bucket}");
        }
    }

    /// The slot of a live entry, and the hash of its key.
    fn find_live(&self, key: &FlowKey) -> Option<(u32, u64)> {
        let key = Key::pack(key, self.seed())?;
        let at = self.slots.find(&key).ok()?;
        (self.slots.get(at).kind == Kind::Live).then_some((at, key.hash))
    }

    /// What the digest sums of a live entry.
    fn digest_at(&self, at: u32) -> u64 {
        match self.slots.get(at).record.plain() {
            Some(record) => self.digest.of_bytes(record),
            None => self.annexed_digest_at(at),
        }
    }

    #[inline(never)]
    fn annexed_digest_at(&self, at: u32) -> u64 {
        self.slots.view(at, &mut None).encode(|bytes| self.digest.of_bytes(bytes))
    }

    /// Fills a free slot with what was not held. If a tombstone stood for it, that is gone, and its number is the entry's.
    /// The caller then gives it a place.
    fn create(&mut self, gap: Gap, said: &Packed<'_>, deadline: u32) -> Result<u32, Refused> {
        if self.slots.used() == self.capacity && !planted(Plant::TableCapacity) {
            return Err(Refused::TableFull);
        }
        let record = self.slots.keep(said, Extent::NONE).ok_or(Refused::AnnexFull)?;
        let version = Version::new(self.ordinal, self.graves.exhume(&said.key, self.seed()).unwrap_or(0));
        let entry = Entry { record, kind: Kind::Live, deadline, version, dump: self.dump, ..Entry::default() };
        let at = self.slots.occupy(gap, said.key.hash, entry);
        self.live += 1;
        self.digest.add(said.key.hash, self.digest_at(at));
        Ok(at)
    }

    /// Gives a held entry, live or dead, this value, and puts it on the list of `listener` if that one must hear of
    /// it: if the value is another, if the clock that it was told must be refreshed [4.6.2], or if it was about to
    /// hear anyway. Otherwise, and where the source names the copy that the sink was given, clock and counters stay as they
    /// were told. Whether the value is another, and whether it must hear.
    fn assign(
        &mut self,
        at: u32,
        said: (&Packed<'_>, u32),
        now: Instant,
        listener: Place,
    ) -> Result<(bool, bool), Refused> {
        let (said, timeout) = said;
        let old = self.slots.get(at);
        let (was_live, extent) = (old.kind == Kind::Live, old.record.extent());
        let changed = !was_live || !self.slots.has_value(at, said);
        if !changed {
            let waits = old.place == listener;
            let slack = if listener == Place::Sink { SINK_SLACK } else { Duration::ZERO };
            // The source names the copy that the sink was given, with its margin, until a packet touches it.
            let is_copy = listener == Place::Wire && self.margin > 0 && !self.is_own(at);
            let news = timeout.saturating_sub(if is_copy { self.margin } else { 0 });
            if !old.needs_refresh(news, now + slack) && (!waits || is_copy) {
                return Ok((false, waits));
            }
        }
        let gone = if changed && was_live { self.digest_at(at) } else { 0 };
        let record = self.slots.keep(said, extent).ok_or(Refused::AnnexFull)?;
        if changed {
            self.clear_tombstone(at);
        }
        self.place(at, said.key.hash, listener);
        let entry = self.slots.get_mut(at);
        entry.kind = Kind::Live;
        entry.record = record;
        entry.deadline = deadline(timeout, now);
        if listener == Place::Wire {
            entry.set(OWN);
        }
        if changed {
            self.live += u32::from(!was_live);
            self.digest.add(said.key.hash, self.digest_at(at).wrapping_sub(gone));
        }
        Ok((changed, true))
    }

    /// A live entry dies, and what it has in the annex is forgotten but for a key; the caller then gives it a place.
    fn kill(&mut self, at: u32, hash: u64) {
        if !self.faults.digest_forgets_deletes() {
            self.digest.remove(hash, self.digest_at(at));
        }
        self.live -= 1;
        self.forgive(at);
        self.slots.forget_value(at);
        let entry = self.slots.get_mut(at);
        entry.kind = Kind::Dead;
        entry.clear(UNSENT);
    }

    /// Empties the slot of a dead entry that is on no list; `hash` is that of its key.
    fn free(&mut self, at: u32, hash: u64) {
        self.clear_tombstone(at);
        self.slots.release(at);
        self.slots.vacate(at, hash);
    }

    /// Puts an entry on a list, off the one that it is on; where it is already, it keeps its turn.
    fn place(&mut self, at: u32, hash: u64, place: Place) {
        let from = self.slots.get(at).place;
        if from == place {
            return;
        }
        if from == Place::Wire {
            self.digest.bucket_mut(hash).pending -= 1;
            self.forgive(at);
            self.slots.get_mut(at).clear(UNSENT);
        }
        if place == Place::Wire {
            self.digest.bucket_mut(hash).pending += 1;
        }
        self.slots.enlist(at, place);
    }

    /// The sink need not hear of it after the wire has.
    fn forgive(&mut self, at: u32) {
        let entry = self.slots.get_mut(at);
        self.owed -= u32::from(entry.is(OWED));
        entry.clear(OWED);
    }

    fn clear_tombstone(&mut self, at: u32) {
        let entry = self.slots.get_mut(at);
        self.tombstones -= u32::from(entry.is(TOMBSTONE));
        entry.clear(TOMBSTONE);
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("len", &self.live)
            .field("sections", &self.sections.len())
            .field("capacity", &self.capacity)
            .field("tombstones", &self.tombstones())
            .field("pending", &self.pending())
            .field("unapplied", &self.unapplied())
            .field("annex_used", &self.annex_used())
            .field("digest", &format_args!("{:016x}", self.digest()))
            .finish_non_exhaustive()
    }
}
