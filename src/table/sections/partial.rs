//! Values of which only parts have come.
//!
//! ```text
//!   value       0 ├────────┤├────────┤          ├────────┤         total
//!   parts         offset 0   992                 2976
//!                 └────── prefix ────┘           in the way of nothing: it waits
//! ```
//!
//! A master sends one value at a time. So of all values that began at or below the frontier only the last can still get
//! whole; those before it were given up, because they changed while they were being sent. And a part in the frame behind
//! the frontier stands exactly behind what has come, or what stands before it will never come.
//!
//! Of one key several values can be under way, when frames overtake one another. Parts of a newer one do not stop an older one:
//! the frontier would pass what never applied, and what was acknowledged would not be here.

use super::{Name, SectionPart, SectionRefused};
use crate::planted::{Plant, planted};
use crate::time::Instant;
use std::collections::{BTreeMap, BTreeSet};

/// What a part, and a partial value, cost beside their bytes and key: about what the maps and boxes take.
const OVERHEAD: u64 = 64;

/// One of them; its version is the frame that brings offset 0.
#[derive(Debug)]
struct Partial {
    total: u32,
    deadline: Option<Instant>,
    parts: BTreeMap<u32, Box<[u8]>>,
    /// Everything before this offset has come.
    prefix: u32,
    /// What it takes of the limit.
    cost: u64,
}

/// A value that is whole, and its deadline.
type Whole = (Vec<u8>, Option<Instant>);

/// All of them.
#[derive(Default, Debug)]
pub(super) struct Partials {
    values: BTreeMap<(Name, u64), Partial>,
    begun: BTreeSet<(u64, Name)>,
    limit: u64,
    held: u64,
    discarded: u64,
}

impl Partials {
    pub(super) fn new(limit: u32) -> Self {
        Partials { limit: limit.into(), ..Partials::default() }
    }

    /// Bytes that they take.
    pub(super) fn held(&self) -> u64 {
        self.held
    }

    pub(super) fn discarded(&self) -> u64 {
        self.discarded
    }

    /// A stream has ended: none of them gets whole.
    pub(super) fn clear(&mut self) {
        self.discarded += self.values.len() as u64;
        self.values.clear();
        self.begun.clear();
        self.held = 0;
    }

    /// Discards what is older than version `first` of this key: that is whole, or a delete. What is newer goes on.
    pub(super) fn makes_way(&mut self, name: &Name, first: u64) {
        while let Some((version, _)) = self.values.range((name.clone(), 0)..(name.clone(), first)).next() {
            let (_, version) = version.clone();
            self.discard(name, version);
        }
    }

    /// For a test of the tests: what has come of an older version counts as of this one.
    pub(super) fn adopt(&mut self, name: &Name, first: u64) {
        let older = self.values.range((name.clone(), 0)..(name.clone(), first)).next_back();
        let Some(older) = older.map(|(older, _)| older.clone()) else { return };
        if let Some(partial) = self.values.remove(&older) {
            self.begun.remove(&(older.1, older.0));
            self.makes_way(name, first + 1);
            self.begun.insert((first, name.clone()));
            self.values.insert((name.clone(), first), partial);
        }
    }

    /// Adds a part of the value that began in frame `first`; the value and its deadline when it is whole.
    pub(super) fn add(
        &mut self,
        name: &Name,
        first: u64,
        part: &SectionPart<'_>,
        deadline: Option<Instant>,
        in_order: bool,
    ) -> Result<Option<Whole>, SectionRefused> {
        let (prefix, total, cost) = match self.values.get(&(name.clone(), first)) {
            None => (0, part.total, 2 * OVERHEAD + name.key.key.len() as u64),
            Some(partial) if partial.parts.contains_key(&part.offset) => return Ok(None),
            Some(partial) => (partial.prefix, partial.total, OVERHEAD),
        };
        if total != part.total || part.offset < prefix || (in_order && part.offset > prefix) {
            self.discard(name, first);
            return Err(SectionRefused::Stray);
        }
        let cost = cost + part.bytes.len() as u64;
        if !in_order && self.held + cost > self.limit && !planted(Plant::PartialRoom) {
            return Err(SectionRefused::PartialFull);
        }
        self.held += cost;
        self.begun.insert((first, name.clone()));
        let empty = || Partial { total, deadline, parts: BTreeMap::new(), prefix: 0, cost: 0 };
        let partial = self.values.entry((name.clone(), first)).or_insert_with(empty);
        partial.cost += cost;
        partial.parts.insert(part.offset, part.bytes.into());
        while let Some(next) = partial.parts.get(&partial.prefix).filter(|next| !next.is_empty()) {
            partial.prefix += next.len() as u32;
        }
        Ok(if partial.prefix == total { self.take(name, first) } else { None })
    }

    /// The frontier stands at `frontier` now: whatever began before another that began at or below it was given up.
    pub(super) fn passed(&mut self, frontier: u64) {
        while self.begun.iter().nth(1).is_some_and(|(first, _)| *first <= frontier) {
            let Some((first, name)) = self.begun.first().cloned() else { return };
            self.discard(&name, first);
        }
    }

    fn discard(&mut self, name: &Name, first: u64) {
        self.discarded += u64::from(self.remove(name, first).is_some());
    }

    fn take(&mut self, name: &Name, first: u64) -> Option<Whole> {
        let partial = self.remove(name, first)?;
        let mut value = Vec::with_capacity(partial.total as usize);
        while let Some(next) = partial.parts.get(&(value.len() as u32)) {
            value.extend_from_slice(next);
        }
        Some((value, partial.deadline))
    }

    fn remove(&mut self, name: &Name, first: u64) -> Option<Partial> {
        let partial = self.values.remove(&(name.clone(), first))?;
        self.begun.remove(&(first, name.clone()));
        self.held -= partial.cost;
        Some(partial)
    }

    /// Asserts all that must be true between two calls.
    pub(super) fn assert_consistent(&self) {
        assert_eq!(self.held, self.values.values().map(|partial| partial.cost).sum::<u64>(), "bytes of partial values");
        assert_eq!(self.begun.len(), self.values.len(), "partial values by number");
        let is_known = |(name, first): &(Name, u64)| self.begun.contains(&(*first, name.clone()));
        assert!(self.values.keys().all(is_known), "a partial value of another number");
    }
}
