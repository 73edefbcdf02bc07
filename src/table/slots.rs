//! Where an entry is: its slot in the one big allocation, and its place on a list.
//!
//! Open addressing with linear probing. An entry's home is the multiply-shift of its key's hash, which keeps the order
//! of the hashes, so that a bucket (the top bits of the same hash) is one stretch of the table. A removed entry leaves
//! no mark: the entries behind it move up until one is at home (backward shift), and their neighbours on lists are
//! told. Thus churn never makes a probe longer.
//!
//! ```text
//! hash   0 ────────────────────────────────────────────────────────── 2^64
//! slots  │ bucket 0 │ bucket 1 │ …                       │ bucket 4095 │ ↺ a run that reaches the end goes on at 0
//! ```
//!
//! At most three slots in four are taken: there is always an empty one, and every probe ends there.

use super::annex::{Annex, Extent};
use super::digest::{bucket_of_hash, first_hash, hash_key};
use super::entry::{ASTRAY, Entry, Kind, Place};
use super::graves::Graves;
use super::lists::{List, NONE};
use super::record::{Key, KeyBytes, Packed, Record, Scratch, View};

/// Slots, the lists that run through them, and what of their entries has no room in them.
pub(super) struct Slots {
    entries: Box<[Entry]>,
    pub(super) annex: Annex,
    used: u32,
    seed: u64,
    pub(super) wire: List,
    pub(super) sink: List,
    pub(super) graves: Graves,
}

impl Slots {
    /// Room for `capacity` entries at a load of three quarters, and an annex of so many blocks.
    pub(super) fn new(capacity: u32, annex: u32, seed: u64) -> Self {
        let slots = capacity as usize + capacity as usize / 3 + 1;
        Slots {
            entries: vec![Entry::default(); slots].into_boxed_slice(),
            annex: Annex::new(annex),
            used: 0,
            seed,
            wire: List::EMPTY,
            sink: List::EMPTY,
            graves: Graves::new(),
        }
    }

    /// Slots in all.
    pub(super) fn count(&self) -> u32 {
        self.entries.len() as u32
    }

    /// Slots that are taken.
    pub(super) fn used(&self) -> u32 {
        self.used
    }

    pub(super) fn get(&self, at: u32) -> &Entry {
        &self.entries[at as usize]
    }

    pub(super) fn get_mut(&mut self, at: u32) -> &mut Entry {
        &mut self.entries[at as usize]
    }

    pub(super) fn iter(&self) -> core::slice::Iter<'_, Entry> {
        self.entries.iter()
    }

    pub(super) fn iter_mut(&mut self) -> core::slice::IterMut<'_, Entry> {
        self.entries.iter_mut()
    }

    /// Hash of the key in a slot.
    pub(super) fn hash_at(&self, at: u32) -> u64 {
        self.hash_of(&self.get(at).record)
    }

    fn hash_of(&self, record: &Record) -> u64 {
        record.hash().unwrap_or_else(|| hash_key(self.seed, record.narrow_key()))
    }

    /// The flow in a slot, wherever its parts stand.
    pub(super) fn view<'a>(&'a self, at: u32, scratch: &'a mut Scratch) -> View<'a> {
        let record = &self.get(at).record;
        record.view(self.annex.read(record.extent(), scratch))
    }

    /// The slot after this one.
    pub(super) fn after(&self, at: u32) -> u32 {
        if at + 1 < self.count() { at + 1 } else { 0 }
    }

    /// The slot in which a key of this hash would best lie.
    pub(super) fn home(&self, hash: u64) -> u32 {
        ((u128::from(hash) * self.entries.len() as u128) >> 64) as u32
    }

    /// The lowest hash whose home is this slot or one behind it; `None` behind the last slot.
    pub(super) fn first_hash_from(&self, slot: u32) -> Option<u64> {
        let count = self.entries.len() as u128;
        let hash = (u128::from(slot) << 64).div_ceil(count);
        u64::try_from(hash).ok()
    }

    /// Steps from one slot forward to another.
    fn distance(&self, from: u32, to: u32) -> u32 {
        if to >= from { to - from } else { to + (self.count() - from) }
    }

    /// The slot that holds the key, or else the empty one where it belongs. Only for a key of IPv6 whose hash is there
    /// the annex is looked at.
    pub(super) fn find(&self, key: &Key) -> Result<u32, u32> {
        let mut at = self.home(key.hash);
        loop {
            let entry = self.get(at);
            if entry.kind == Kind::Empty {
                return Err(at);
            }
            if self.is_of(&entry.record, key) {
                return Ok(at);
            }
            at = self.after(at);
        }
    }

    fn is_of(&self, record: &Record, key: &Key) -> bool {
        match &key.bytes {
            KeyBytes::V4(bytes) => record.narrow_key() == bytes,
            KeyBytes::V6(bytes) => record.hash() == Some(key.hash) && self.annex.first(record.extent()) == Some(bytes),
        }
    }

    /// Whether an entry has this value.
    pub(super) fn has_value(&self, at: u32, said: &Packed<'_>) -> bool {
        let record = &self.get(at).record;
        match (record.plain(), said.record.plain()) {
            (Some(is), Some(said)) => is == said,
            _ => self.view(at, &mut None).same_value(&said.view()),
        }
    }

    /// Puts what does not fit a slot into the annex, in place of what is at `old`. What goes into the slot; `None` if
    /// the annex has no room, and nothing has changed then.
    pub(super) fn keep(&mut self, said: &Packed<'_>, old: Extent) -> Option<Record> {
        if old == Extent::NONE && said.record.plain().is_some() {
            return Some(said.record);
        }
        let extent = self.annex.replace(old, said.annexed())?;
        Some(if said.record.plain().is_some() { said.record } else { said.record.with_extent(extent) })
    }

    /// Keeps of an entry in the annex what [`Record::dead`] needs, for one that dies.
    pub(super) fn forget_value(&mut self, at: u32) {
        let record = self.get(at).record;
        if record.plain().is_none() {
            let extent = record.extent();
            let mut scratch: Scratch = None;
            let (dead, needed) = record.dead(self.annex.read(extent, &mut scratch));
            let extent = self.annex.truncate(extent, needed);
            self.get_mut(at).record = if extent == Extent::NONE { dead } else { dead.with_extent(extent) };
        }
    }

    /// Frees what an entry has in the annex, which then must leave its slot.
    pub(super) fn release(&mut self, at: u32) {
        self.annex.truncate(self.get(at).record.extent(), 0);
    }

    /// Fills the empty slot that [`Slots::find`] named.
    pub(super) fn occupy(&mut self, at: u32, entry: Entry) {
        debug_assert!(self.get(at).kind == Kind::Empty && self.used + 1 < self.count());
        self.used += 1;
        *self.get_mut(at) = entry;
    }

    /// Empties a slot that is on no list; entries behind it may move up, into this slot too.
    pub(super) fn vacate(&mut self, at: u32) {
        debug_assert!(self.get(at).place == Place::Nowhere, "what is on a list is not freed");
        let mut hole = at;
        let mut probe = self.after(at);
        while self.get(probe).kind != Kind::Empty {
            let home = self.home(self.hash_at(probe));
            if self.distance(home, probe) >= self.distance(hole, probe) {
                self.entries[hole as usize] = self.entries[probe as usize];
                self.moved(hole);
                hole = probe;
            }
            probe = self.after(probe);
        }
        *self.get_mut(hole) = Entry::default();
        self.used -= 1;
    }

    /// Puts an entry that is on no list at the end of one.
    pub(super) fn enlist(&mut self, at: u32, place: Place) {
        self.get_mut(at).place = place;
        if let Some((list, entries)) = self.list_of(at) {
            list.push(entries, at);
        }
    }

    /// Takes an entry off the list that it is on.
    pub(super) fn delist(&mut self, at: u32) {
        if let Some((list, entries)) = self.list_of(at) {
            list.unlink(entries, at);
        }
        self.get_mut(at).place = Place::Nowhere;
    }

    /// The slot behind this one on its list.
    pub(super) fn following(&self, at: u32) -> Option<u32> {
        Some(self.get(at).next).filter(|next| *next != NONE)
    }

    fn moved(&mut self, to: u32) {
        if let Some((list, entries)) = self.list_of(to) {
            list.moved(entries, to);
        }
    }

    /// The list that an entry says it is on, and the slots.
    fn list_of(&mut self, at: u32) -> Option<(&mut List, &mut [Entry])> {
        let Entry { place, version, .. } = *self.get(at);
        let list = match place {
            Place::Nowhere => return None,
            Place::Wire => &mut self.wire,
            Place::Sink => &mut self.sink,
            Place::Buried => self.graves.list_of(version.number()),
        };
        Some((list, &mut self.entries))
    }

    /// Takes the frontier's step; what it passes must have left its lists.
    pub(super) fn step(&mut self, frontier: u64, turn: usize) {
        self.graves.step(&mut self.entries, frontier, turn);
    }

    /// Puts every entry in its place under another seed, in O(n) and without a second table. The lists keep their
    /// members, now in the order of the slots.
    ///
    /// Every entry first counts as astray. One is lifted out and probes from its new home; where it meets an empty
    /// slot it settles, where it meets an astray one it takes that one's slot, and that one is next to probe. What
    /// has settled never moves again, so that no probe is ever broken.
    pub(super) fn reseed(&mut self, seed: u64) {
        self.seed = seed;
        for entry in self.entries.iter_mut().filter(|entry| entry.kind != Kind::Empty) {
            entry.set(ASTRAY);
            if let Some(key) = self.annex.first::<40>(entry.record.extent()).filter(|_| entry.record.is_wide()) {
                entry.record.set_hash(hash_key(seed, key));
            }
        }
        for at in 0..self.count() {
            if self.get(at).is(ASTRAY) {
                self.settle(at);
            }
        }
        self.wire = List::EMPTY;
        self.sink = List::EMPTY;
        self.graves.forget();
        for at in 0..self.count() {
            let place = self.get(at).place;
            self.enlist(at, place);
        }
    }

    fn settle(&mut self, at: u32) {
        let mut lifted = core::mem::take(self.get_mut(at));
        while lifted.kind != Kind::Empty {
            lifted.clear(ASTRAY);
            let mut to = self.home(self.hash_of(&lifted.record));
            while self.get(to).kind != Kind::Empty && !self.get(to).is(ASTRAY) {
                to = self.after(to);
            }
            core::mem::swap(self.get_mut(to), &mut lifted);
        }
    }

    /// A walk through the entries of a bucket; see [`Slots::next_of`].
    pub(super) fn walk(&self, bucket: u16) -> Walk {
        let first = self.home(first_hash(bucket));
        let last = self.home(first_hash(bucket) | (first_hash(1) - 1));
        Walk { bucket, at: first, walked: 0, holes_until: last - first }
    }

    /// The next slot of the bucket; its neighbours are skipped. Entries may change during the walk, but none may be
    /// freed (see [`Walk::again`]). The walk ends at the first empty slot that is not before the last of the bucket's own stretch:
    /// nothing of it lies beyond.
    pub(super) fn next_of(&self, walk: &mut Walk) -> Option<u32> {
        while walk.walked < self.count() {
            let at = walk.at;
            let empty = self.get(at).kind == Kind::Empty;
            if empty && walk.walked >= walk.holes_until {
                return None;
            }
            walk.at = self.after(at);
            walk.walked += 1;
            if !empty && bucket_of_hash(self.hash_at(at)) == walk.bucket {
                return Some(at);
            }
        }
        None
    }

    /// Asserts all that must always be true; O(n), for tests.
    pub(super) fn assert_consistent(&self) {
        let mut taken = 0;
        for (at, entry) in (0..).zip(self.iter()) {
            if entry.kind == Kind::Empty {
                assert_eq!((entry.place, entry.flags), (Place::Nowhere, 0), "slot {at}: something on an empty slot");
                continue;
            }
            taken += 1;
            let key = self.view(at, &mut None).key();
            let key = Key::pack(&key, self.seed).expect("what is held has a key");
            assert_eq!(key.hash, self.hash_at(at), "slot {at}: hash");
            assert_eq!(self.find(&key), Ok(at), "slot {at} is not found");
            let len = entry.record.extent().len;
            assert!(entry.kind != Kind::Dead || len <= 40, "slot {at}: a dead entry keeps {len} bytes of the annex");
            assert!(!entry.is(ASTRAY), "slot {at} is still astray");
        }
        let taken_ones = self.iter().filter(|entry| entry.kind != Kind::Empty);
        self.annex.assert_consistent(taken_ones.map(|entry| entry.record.extent()));
        assert_eq!(self.used, taken, "slots taken");
        assert!(self.used < self.count(), "no slot is empty");
        let buried = (0..).zip(self.graves.lists());
        let lists = [(Place::Wire, None, &self.wire), (Place::Sink, None, &self.sink)];
        for (place, bit, list) in lists.into_iter().chain(buried.map(|(bit, list)| (Place::Buried, Some(bit), list))) {
            let mut members = 0;
            let (mut before, mut at) = (NONE, list.head);
            while at != NONE {
                let entry = self.get(at);
                assert_eq!((entry.place, entry.previous), (place, before), "slot {at}: links");
                if let Some(bit) = bit {
                    assert_eq!(entry.kind, Kind::Dead, "slot {at}: buried alive");
                    let number = entry.version.number();
                    assert!(number > self.graves.frontier(), "slot {at}: passed and not freed");
                    assert_eq!((number ^ self.graves.frontier()).ilog2(), bit, "slot {at}: on the wrong list");
                }
                members += 1;
                (before, at) = (at, entry.next);
            }
            assert_eq!((list.tail, list.len), (before, members), "end and length of {place:?}");
        }
        for place in [Place::Wire, Place::Sink, Place::Buried] {
            let says = self.iter().filter(|entry| entry.place == place).count() as u32;
            let holds = match place {
                Place::Wire => self.wire.len,
                Place::Sink => self.sink.len,
                _ => self.graves.lists().map(|list| list.len).sum(),
            };
            assert_eq!(says, holds, "entries that say they are on {place:?}");
        }
    }
}

/// How far a walk through a bucket has come.
pub(super) struct Walk {
    /// One that does not exist has no entries.
    bucket: u16,
    at: u32,
    walked: u32,
    /// Steps to the last slot that is home to the bucket: an empty one before it is a hole, and not the end.
    holes_until: u32,
}

impl Walk {
    /// The slot that the walk came to last was freed: what moved up into it, and behind it, is still to come.
    pub(super) fn again(&mut self, at: u32) {
        self.at = at;
        self.walked -= 1;
    }
}
