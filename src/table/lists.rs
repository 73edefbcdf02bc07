//! Doubly linked lists that live inside the places of an array: a place is on at most one, and joining or leaving costs
//! O(1).
//!
//! ```text
//! List { head, tail, len } ── place ⇄ place ⇄ place        links are numbers of places, NONE at both ends
//! ```
//!
//! Lists are first in, first out. A list does not know its name; who holds it writes [`super::entry::Place`].

use zerocopy::FromZeros;

/// The number of a place that is none.
pub(super) const NONE: u32 = u32::MAX;

/// Neighbours on a list; without meaning if on none.
#[derive(Clone, Copy, Default, FromZeros)]
#[repr(C)]
pub(super) struct Links {
    pub(super) previous: u32,
    pub(super) next: u32,
}

/// A place that can be on a list.
pub(super) trait Linked {
    /// Its neighbours.
    fn links(&mut self) -> &mut Links;
}

/// One list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct List {
    pub(super) head: u32,
    pub(super) tail: u32,
    pub(super) len: u32,
}

impl List {
    pub(super) const EMPTY: List = List { head: NONE, tail: NONE, len: 0 };

    /// The oldest one.
    pub(super) fn first(&self) -> Option<u32> {
        (self.head != NONE).then_some(self.head)
    }

    /// Puts a place that is on no list at the end.
    pub(super) fn push(&mut self, places: &mut [impl Linked], at: u32) {
        *places[at as usize].links() = Links { previous: self.tail, next: NONE };
        match self.tail {
            NONE => self.head = at,
            tail => places[tail as usize].links().next = at,
        }
        self.tail = at;
        self.len += 1;
    }

    /// Takes a place of this list out of it.
    pub(super) fn unlink(&mut self, places: &mut [impl Linked], at: u32) {
        let Links { previous, next } = *places[at as usize].links();
        match previous {
            NONE => self.head = next,
            previous => places[previous as usize].links().next = next,
        }
        match next {
            NONE => self.tail = previous,
            next => places[next as usize].links().previous = previous,
        }
        self.len -= 1;
    }
}
