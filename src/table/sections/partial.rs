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

use super::{Name, SectionPart, SectionRefused};
use crate::time::Instant;
use std::collections::{BTreeMap, BTreeSet};

/// What a part, and a partial value, cost beside their bytes and key: about what the maps and boxes take.
const OVERHEAD: u64 = 64;

/// One of them.
#[derive(Debug)]
struct Partial {
    /// The frame that brings offset 0: the version.
    first: u64,
    total: u32,
    deadline: Option<Instant>,
    parts: BTreeMap<u32, Box<[u8]>>,
    /// Everything before this offset has come.
    prefix: u32,
    /// What it takes of the limit.
    cost: u64,
}

/// All of them.
#[derive(Default, Debug)]
pub(super) struct Partials {
    values: BTreeMap<Name, Partial>,
    begun: BTreeSet<(u64, Name)>,
    limit: u64,
    held: u64,
    discarded: u64,
}

/// A value that is whole, and its deadline.
type Whole = (Vec<u8>, Option<Instant>);

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

    /// Whether a value newer than version `first` of this key has come in part.
    pub(super) fn has_newer(&self, name: &Name, first: u64) -> bool {
        self.values.get(name).is_some_and(|partial| partial.first > first)
    }

    /// Discards what is older than version `first` of this key; `false` if what is there is newer.
    pub(super) fn makes_way(&mut self, name: &Name, first: u64) -> bool {
        match self.values.get(name).map(|partial| partial.first.cmp(&first)) {
            Some(std::cmp::Ordering::Greater) => false,
            Some(std::cmp::Ordering::Less) => {
                self.discard(name);
                true
            }
            _ => true,
        }
    }

    /// For a test of the tests: what has come of an older version counts as of this one.
    pub(super) fn adopt(&mut self, name: &Name, first: u64) {
        if let Some(partial) = self.values.get_mut(name) {
            self.begun.remove(&(partial.first, name.clone()));
            partial.first = first;
            self.begun.insert((first, name.clone()));
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
        // What is older goes only when there is room for this: a frame that is refused changes nothing.
        let (prefix, total, cost) = match self.values.get(name).filter(|partial| partial.first == first) {
            None => (0, part.total, 2 * OVERHEAD + name.key.key.len() as u64),
            Some(partial) if partial.parts.contains_key(&part.offset) => return Ok(None),
            Some(partial) => (partial.prefix, partial.total, OVERHEAD),
        };
        if total != part.total || part.offset < prefix || (in_order && part.offset > prefix) {
            self.discard(name);
            return Err(SectionRefused::Stray);
        }
        let cost = cost + part.bytes.len() as u64;
        if !in_order && self.held + cost > self.limit {
            return Err(SectionRefused::PartialFull);
        }
        self.makes_way(name, first);
        self.held += cost;
        self.begun.insert((first, name.clone()));
        let empty = || Partial { first, total, deadline, parts: BTreeMap::new(), prefix: 0, cost: 0 };
        let partial = self.values.entry(name.clone()).or_insert_with(empty);
        partial.cost += cost;
        partial.parts.insert(part.offset, part.bytes.into());
        while let Some(next) = partial.parts.get(&partial.prefix).filter(|next| !next.is_empty()) {
            partial.prefix += next.len() as u32;
        }
        Ok(if partial.prefix == total { self.take(name) } else { None })
    }

    /// The frontier stands at `frontier` now: whatever began before another that began at or below it was given up.
    pub(super) fn passed(&mut self, frontier: u64) {
        while self.begun.iter().nth(1).is_some_and(|(first, _)| *first <= frontier) {
            let Some((_, name)) = self.begun.first().cloned() else { return };
            self.discard(&name);
        }
    }

    /// Discards what is there of this key.
    pub(super) fn discard(&mut self, name: &Name) {
        self.discarded += u64::from(self.remove(name).is_some());
    }

    fn take(&mut self, name: &Name) -> Option<Whole> {
        let partial = self.remove(name)?;
        let mut value = Vec::with_capacity(partial.total as usize);
        while let Some(next) = partial.parts.get(&(value.len() as u32)) {
            value.extend_from_slice(next);
        }
        Some((value, partial.deadline))
    }

    fn remove(&mut self, name: &Name) -> Option<Partial> {
        let partial = self.values.remove(name)?;
        self.begun.remove(&(partial.first, name.clone()));
        self.held -= partial.cost;
        Some(partial)
    }

    /// Asserts all that must be true between two calls.
    pub(super) fn assert_consistent(&self) {
        assert_eq!(self.held, self.values.values().map(|partial| partial.cost).sum::<u64>(), "bytes of partial values");
        assert_eq!(self.begun.len(), self.values.len(), "partial values by number");
        let is_known = |(name, partial): (&Name, &Partial)| self.begun.contains(&(partial.first, name.clone()));
        assert!(self.values.iter().all(is_known), "a partial value of another number");
    }
}
