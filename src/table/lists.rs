//! Doubly linked lists that live inside the entries: a slot is on at most one, and joining or leaving costs O(1).
//!
//! ```text
//! List { head, tail, len } ── slot ⇄ slot ⇄ slot        links are slot numbers, NONE at both ends
//! ```
//!
//! Lists are first in, first out. A list does not know its name; who holds it writes [`super::entry::Place`].

use super::entry::Entry;

/// The slot number that is none.
pub(super) const NONE: u32 = u32::MAX;

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

    /// Puts a slot that is on no list at the end.
    pub(super) fn push(&mut self, slots: &mut [Entry], at: u32) {
        let entry = &mut slots[at as usize];
        entry.previous = self.tail;
        entry.next = NONE;
        match self.tail {
            NONE => self.head = at,
            tail => slots[tail as usize].next = at,
        }
        self.tail = at;
        self.len += 1;
    }

    /// Takes a slot of this list out of it.
    pub(super) fn unlink(&mut self, slots: &mut [Entry], at: u32) {
        let Entry { previous, next, .. } = slots[at as usize];
        match previous {
            NONE => self.head = next,
            previous => slots[previous as usize].next = next,
        }
        match next {
            NONE => self.tail = previous,
            next => slots[next as usize].previous = previous,
        }
        self.len -= 1;
    }

    /// An entry of this list now sits in slot `to`: its neighbours must know.
    pub(super) fn moved(&mut self, slots: &mut [Entry], to: u32) {
        let Entry { previous, next, .. } = slots[to as usize];
        match previous {
            NONE => self.head = to,
            previous => slots[previous as usize].next = to,
        }
        match next {
            NONE => self.tail = to,
            next => slots[next as usize].previous = to,
        }
    }
}
