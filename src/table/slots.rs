//! Where an entry is: its slot in the one big allocation, which it never leaves while it lives, and its place on a list.
//!
//! ```text
//! index    │ cell │ cell │ … in the order of the hashes          ── find, walk, page
//!              └──────────────┐
//! slots    │ entry │ free ─┐│ entry │ entry ⇄ … ⇄ entry │ fresh  ── lists: wire, sink
//!                          └─→ the next free one
//! ```
//!
//! The slot that was freed last is taken first: its line is in the cache still.

use super::ahead::Ahead;
use super::annex::{Annex, Extent};
use super::digest::hash_key;
use super::entry::{Entry, Kind, Place};
use super::index::{Gap, Index};
use super::lists::{Links, List, NONE};
use super::record::{Key, Packed, Record, Scratch, View};
use crate::flow::KeyBytes;

/// Slots, where they are found, the lists that run through them, and what of their entries has no room in them.
pub(super) struct Slots {
    entries: Box<[Entry]>,
    pub(super) index: Index,
    pub(super) annex: Annex,
    used: u32,
    /// First of the free list.
    free: u32,
    /// Slots from this one on were never used.
    fresh: u32,
    seed: u64,
    pub(super) wire: List,
    pub(super) sink: List,
}

impl Slots {
    /// Room for `capacity` entries, and an annex of so many blocks.
    pub(super) fn new(capacity: u32, annex: u32, seed: u64) -> Self {
        let slots = capacity.max(1);
        Slots {
            entries: vec![Entry::default(); slots as usize].into_boxed_slice(),
            index: Index::new(slots),
            annex: Annex::new(annex),
            used: 0,
            free: NONE,
            fresh: 0,
            seed,
            wire: List::EMPTY,
            sink: List::EMPTY,
        }
    }

    /// Slots in all; at least one.
    pub(super) fn count(&self) -> u32 {
        self.entries.len() as u32
    }

    /// Bytes on the heap, without the annex.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.entries) + self.index.bytes()
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

    /// The key in a slot.
    pub(super) fn key_at(&self, at: u32) -> Key {
        let record = &self.get(at).record;
        let wide = self.annex.first(record.extent()).filter(|_| record.is_wide());
        let bytes = wide.map_or_else(|| KeyBytes::V4(*record.narrow_key()), |bytes| KeyBytes::V6(*bytes));
        Key { hash: self.hash_of(record), bytes }
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

    /// The slot that holds the key, or else the gap of the index where it belongs. Only for a key of IPv6 whose hash is
    /// there the annex is looked at.
    pub(super) fn find(&self, key: &Key) -> Result<u32, Gap> {
        self.index.find(key.hash, |slot| self.is_of(&self.get(slot).record, key))
    }

    /// Reads the cells of these hashes, and then the slots. What is read is thrown away, but nobody may find that out.
    pub(super) fn read(&self, ahead: &[Ahead]) {
        let cells = ahead.iter().fold(0, |read, Ahead(hash)| read ^ self.index.read(*hash));
        core::hint::black_box(cells);
        let found = |Ahead(hash): &Ahead| self.index.find(*hash, |_| true).ok();
        let slots = ahead.iter().filter_map(found).fold(0, |read, slot| read ^ self.get(slot).deadline);
        core::hint::black_box(slots);
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

    /// Fills a free slot, there must be one, and the gap that [`Slots::find`] named for a key of this hash. The slot.
    pub(super) fn occupy(&mut self, gap: Gap, hash: u64, entry: Entry) -> u32 {
        let at = match self.free {
            NONE => {
                self.fresh += 1;
                self.fresh - 1
            }
            free => {
                self.free = self.get(free).links.next;
                free
            }
        };
        self.used += 1;
        *self.get_mut(at) = entry;
        self.index.fill(gap, hash, at);
        at
    }

    /// Frees a slot that is on no list; `hash` is that of its key.
    pub(super) fn vacate(&mut self, at: u32, hash: u64) {
        debug_assert!(self.get(at).place == Place::Nowhere, "what is on a list is not freed");
        self.index.remove(hash, at);
        *self.get_mut(at) = Entry { links: Links { previous: NONE, next: self.free }, ..Entry::default() };
        self.free = at;
        self.used -= 1;
    }

    /// Puts an entry at the end of a list, or on none, off the one that it is on.
    pub(super) fn enlist(&mut self, at: u32, place: Place) {
        let from = core::mem::replace(&mut self.get_mut(at).place, place);
        if let Some(list) = Self::list_of(from, &mut self.wire, &mut self.sink) {
            list.unlink(&mut self.entries, at);
        }
        if let Some(list) = Self::list_of(place, &mut self.wire, &mut self.sink) {
            list.push(&mut self.entries, at);
        }
    }

    /// The slot behind this one on its list.
    pub(super) fn following(&self, at: u32) -> Option<u32> {
        Some(self.get(at).links.next).filter(|next| *next != NONE)
    }

    fn list_of<'a>(place: Place, wire: &'a mut List, sink: &'a mut List) -> Option<&'a mut List> {
        match place {
            Place::Nowhere => None,
            Place::Wire => Some(wire),
            Place::Sink => Some(sink),
        }
    }

    /// Finds every entry under another seed from now on, in O(n) and in place. No entry moves, and no list changes.
    pub(super) fn reseed(&mut self, seed: u64) {
        self.seed = seed;
        self.index.clear();
        for at in 0..self.count() {
            if self.get(at).kind == Kind::Empty {
                continue;
            }
            let record = &mut self.entries[at as usize].record;
            if let Some(key) = self.annex.first::<40>(record.extent()).filter(|_| record.is_wide()) {
                record.set_hash(hash_key(seed, key));
            }
            let hash = self.hash_at(at);
            // No two entries have one key.
            if let Err(gap) = self.index.find(hash, |_| false) {
                self.index.fill(gap, hash, at);
            }
        }
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
        }
        let taken_ones = self.iter().filter(|entry| entry.kind != Kind::Empty);
        self.annex.assert_consistent(taken_ones.map(|entry| entry.record.extent()));
        assert_eq!(self.used, taken, "slots taken");
        let cells = (0..self.index.count()).filter(|at| self.index.get(*at).slot().is_some()).count();
        assert_eq!(cells, taken as usize, "cells taken");
        let mut free = 0;
        let mut at = self.free;
        while at != NONE {
            assert!(at < self.fresh && self.get(at).kind == Kind::Empty, "slot {at} is not free");
            (free, at) = (free + 1, self.get(at).links.next);
        }
        assert_eq!(self.fresh, taken + free, "slots that were used once");
        for (place, list) in [(Place::Wire, &self.wire), (Place::Sink, &self.sink)] {
            let mut members = 0;
            let (mut before, mut at) = (NONE, list.head);
            while at != NONE {
                let entry = self.get(at);
                assert_eq!((entry.place, entry.links.previous), (place, before), "slot {at}: links");
                members += 1;
                (before, at) = (at, entry.links.next);
            }
            assert_eq!((list.tail, list.len), (before, members), "end and length of {place:?}");
            let says = self.iter().filter(|entry| entry.place == place).count() as u32;
            assert_eq!(says, members, "entries that say they are on {place:?}");
        }
    }
}
