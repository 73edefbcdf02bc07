//! The tombstones that wait for the frontier, so arranged that its every step finds those it passes.
//!
//! A delete that came early, say with number 44 while the frontier stands at 40, must be remembered until the frontier
//! passes 44: until then an upsert with number 41 to 43 may still arrive, and must not resurrect what 44 deleted
//! [4.2]. Numbers come in any order, and only the frontier's order matters, so that a radix heap fits: a number lies
//! on the list of the highest bit in which it differs from the frontier.
//!
//! ```text
//! frontier 40 = 101000     list 0: 41        a step to 42 = 101010 differs from 40 first in bit 1: what lies on
//!                          list 1: 42, 43    lists below 1 has been passed; what lies on list 1 has been passed or
//!                          list 2: 44..47    moves down (43, to list 0); what lies above stays where it is
//! ```
//!
//! A number moves down at most 48 times in its life, and for a gap of 2^k frames at most k times; a step of the
//! frontier looks at two lists on average.

use super::entry::{Entry, MAX_NUMBER};
use super::lists::{List, NONE};

/// Bits of a stream number, and so lists.
const LISTS: usize = 48;

/// The lists of buried entries, and the frontier that they refer to.
pub(super) struct Graves {
    frontier: u64,
    lists: [List; LISTS],
}

impl Graves {
    pub(super) fn new() -> Self {
        Graves { frontier: 0, lists: [List::EMPTY; LISTS] }
    }

    /// The number up to which everything has been seen.
    pub(super) fn frontier(&self) -> u64 {
        self.frontier
    }

    /// The list on which a number above the frontier lies.
    pub(super) fn list_of(&mut self, number: u64) -> &mut List {
        debug_assert!(number > self.frontier, "only what is above the frontier is buried");
        &mut self.lists[(number ^ self.frontier).max(1).ilog2() as usize]
    }

    /// The highest list that a step of the frontier to `frontier` concerns; `None` if that is no step forward.
    pub(super) fn turn(&self, frontier: u64) -> Option<usize> {
        let frontier = frontier.min(MAX_NUMBER);
        (frontier > self.frontier).then(|| (frontier ^ self.frontier).ilog2() as usize)
    }

    /// One of the lists.
    pub(super) fn list(&mut self, index: usize) -> &mut List {
        &mut self.lists[index]
    }

    /// Takes the step, after what it passes has left lists 0 to `turn`: the rest of that list moves down.
    pub(super) fn step(&mut self, slots: &mut [Entry], frontier: u64, turn: usize) {
        self.frontier = frontier.min(MAX_NUMBER);
        let mut at = core::mem::replace(&mut self.lists[turn], List::EMPTY).head;
        while at != NONE {
            let Entry { next, version, .. } = slots[at as usize];
            self.list_of(version.number()).push(slots, at);
            at = next;
        }
    }

    /// Any buried slot.
    pub(super) fn any(&self) -> Option<u32> {
        self.lists.iter().find_map(List::first)
    }

    /// Every list, the lowest bit's first.
    pub(super) fn lists(&self) -> impl Iterator<Item = &List> {
        self.lists.iter()
    }

    /// Back to the beginning of a stream; every list must be empty.
    pub(super) fn reset(&mut self) {
        debug_assert!(self.any().is_none(), "the dead are gone before a new stream begins");
        self.frontier = 0;
    }

    /// Forgets every list; the entries are to be put on again.
    pub(super) fn forget(&mut self) {
        self.lists = [List::EMPTY; LISTS];
    }
}
