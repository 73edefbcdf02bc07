//! The tombstones that only the frontier has yet to pass, apart from the flows: small, so that they stay in the cache, and
//! so arranged that every step of the frontier finds those that it passes.
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
//!
//! A grave is found by the hash of its key, in chains whose heads double with the graves. It has no room for the key
//! itself: 64 bits under a secret seed are as good a name as the digest's are a proof, and if two keys ever had the same,
//! a record would count as older that is not, which the digest shows.

use super::entry::MAX_NUMBER;
use super::lists::{Linked, Links, List, NONE};
use super::record::Key;
use zerocopy::FromZeros;

/// Bits of a stream number, and so lists.
const LISTS: usize = 48;

/// Heads of chains while there are few graves.
const HEADS_MIN: usize = 1024;

/// A tombstone.
#[derive(Clone, Copy, FromZeros)]
#[repr(C)]
struct Grave {
    /// Hash of the key, under the seed of [`Graves`].
    name: u64,
    number: u64,
    /// Its list; of a free one, `next` is the next free one.
    links: Links,
    /// The next of its chain, as a [`Graves::heads`] has it.
    chain: u32,
}

impl Linked for Grave {
    fn links(&mut self) -> &mut Links {
        &mut self.links
    }
}

/// All tombstones but those that wait for the sink, and the frontier that they refer to.
pub(super) struct Graves {
    frontier: u64,
    /// The seed that the table had when the first of them came.
    seed: u64,
    graves: Box<[Grave]>,
    /// The first grave of each chain, counted from 1; 0 is none.
    heads: Box<[u32]>,
    /// Heads in use: a power of two.
    chains: usize,
    len: u32,
    /// First of the free list.
    free: u32,
    /// Graves from this one on were never used.
    fresh: u32,
    lists: [List; LISTS],
}

impl Graves {
    /// Room for `limit` of them, which takes memory when it is used.
    ///
    /// # Panics
    /// If there is no address space for them.
    pub(super) fn new(limit: u32) -> Self {
        let graves = Grave::new_vec_zeroed(limit as usize).expect("address space for the graves");
        Graves {
            frontier: 0,
            seed: 0,
            graves: graves.into_boxed_slice(),
            heads: vec![0; (limit as usize).next_power_of_two().max(HEADS_MIN)].into_boxed_slice(),
            chains: HEADS_MIN,
            len: 0,
            free: NONE,
            fresh: 0,
            lists: [List::EMPTY; LISTS],
        }
    }

    /// Bytes on the heap, when all are used.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.graves) + size_of_val(&*self.heads)
    }

    /// The number up to which everything has been seen.
    pub(super) fn frontier(&self) -> u64 {
        self.frontier
    }

    /// Tombstones.
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// The number of the delete of this key; `seed` is that of its hash.
    pub(super) fn number_of(&self, key: &Key, seed: u64) -> Option<u64> {
        self.find(key, seed).map(|at| self.graves[at as usize].number)
    }

    /// Remembers the delete of this key, or its later number. The caller has seen that the limit leaves room.
    pub(super) fn bury(&mut self, key: &Key, seed: u64, number: u64) {
        debug_assert!(number > self.frontier, "only what is above the frontier is buried");
        if self.len == 0 {
            self.seed = seed;
        }
        let at = match self.find(key, seed) {
            Some(at) => {
                self.unlink(at);
                at
            }
            None => self.dig(self.name(key, seed)),
        };
        self.graves[at as usize].number = number;
        self.link(at);
    }

    /// Forgets the delete of this key; its number, if there was one.
    pub(super) fn exhume(&mut self, key: &Key, seed: u64) -> Option<u64> {
        let at = self.find(key, seed)?;
        self.unlink(at);
        self.fill(at);
        Some(self.graves[at as usize].number)
    }

    /// The frontier stands at `frontier` now: forgets all that it has passed.
    pub(super) fn pass(&mut self, frontier: u64) {
        let frontier = frontier.min(MAX_NUMBER);
        if frontier <= self.frontier {
            return;
        }
        let turn = (frontier ^ self.frontier).ilog2() as usize;
        self.frontier = frontier;
        for list in 0..=turn {
            let mut next = core::mem::replace(&mut self.lists[list], List::EMPTY).first();
            while let Some(at) = next {
                let Grave { number, links, .. } = self.graves[at as usize];
                if number <= frontier {
                    self.fill(at);
                } else {
                    self.link(at);
                }
                next = Some(links.next).filter(|next| *next != NONE);
            }
        }
    }

    /// Forgets all of them, and the frontier: a stream begins.
    pub(super) fn clear(&mut self) {
        self.heads[..self.chains].fill(0);
        self.lists = [List::EMPTY; LISTS];
        (self.frontier, self.len, self.free, self.fresh) = (0, 0, NONE, 0);
        self.chains = HEADS_MIN;
    }

    /// The list on which a number above the frontier lies.
    fn list_of(&self, number: u64) -> usize {
        (number ^ self.frontier).max(1).ilog2() as usize
    }

    fn link(&mut self, at: u32) {
        let list = self.list_of(self.graves[at as usize].number);
        self.lists[list].push(&mut self.graves, at);
    }

    fn unlink(&mut self, at: u32) {
        let list = self.list_of(self.graves[at as usize].number);
        self.lists[list].unlink(&mut self.graves, at);
    }

    fn name(&self, key: &Key, seed: u64) -> u64 {
        if seed == self.seed { key.hash } else { Key::new(key.bytes, self.seed).hash }
    }

    fn find(&self, key: &Key, seed: u64) -> Option<u32> {
        if self.len == 0 {
            return None;
        }
        let name = self.name(key, seed);
        let mut link = self.heads[self.chain_of(name)];
        while link != 0 && self.graves[link as usize - 1].name != name {
            link = self.graves[link as usize - 1].chain;
        }
        link.checked_sub(1)
    }

    /// The chain of a name: by its low bits, because the index has used the high ones.
    fn chain_of(&self, name: u64) -> usize {
        name as usize & (self.chains - 1)
    }

    /// A grave with this name, at the head of its chain.
    fn dig(&mut self, name: u64) -> u32 {
        if self.len as usize == self.chains && self.chains < self.heads.len() {
            self.double();
        }
        let at = match self.free {
            NONE => {
                self.fresh += 1;
                self.fresh - 1
            }
            free => {
                self.free = self.graves[free as usize].links.next;
                free
            }
        };
        self.len += 1;
        self.graves[at as usize].name = name;
        self.chain(at);
        at
    }

    fn chain(&mut self, at: u32) {
        let grave = &mut self.graves[at as usize];
        let chain = grave.name as usize & (self.chains - 1);
        grave.chain = core::mem::replace(&mut self.heads[chain], at + 1);
    }

    /// Frees a grave that is on no list.
    fn fill(&mut self, at: u32) {
        let Grave { name, chain, .. } = self.graves[at as usize];
        let first = self.chain_of(name);
        let mut link = self.heads[first];
        if link == at + 1 {
            self.heads[first] = chain;
        } else {
            while self.graves[link as usize - 1].chain != at + 1 {
                link = self.graves[link as usize - 1].chain;
            }
            self.graves[link as usize - 1].chain = chain;
        }
        self.graves[at as usize].links.next = self.free;
        self.free = at;
        self.len -= 1;
        if self.len == 0 {
            self.chains = HEADS_MIN;
        }
    }

    /// Twice as many chains.
    fn double(&mut self) {
        self.chains *= 2;
        self.heads[..self.chains].fill(0);
        for list in 0..LISTS {
            let mut at = self.lists[list].head;
            while at != NONE {
                self.chain(at);
                at = self.graves[at as usize].links.next;
            }
        }
    }

    /// Asserts all that must always be true; O(n), for tests.
    pub(super) fn assert_consistent(&self) {
        let mut members = 0;
        for (bit, list) in self.lists.iter().enumerate() {
            let (mut before, mut at, mut len) = (NONE, list.head, 0);
            while at != NONE {
                let Grave { name, number, links, .. } = self.graves[at as usize];
                assert_eq!(links.previous, before, "grave {at}: links");
                assert!(number > self.frontier, "grave {at}: passed and not freed");
                assert_eq!((number ^ self.frontier).ilog2() as usize, bit, "grave {at}: on the wrong list");
                let mut link = self.heads[self.chain_of(name)];
                while link != at + 1 {
                    assert_ne!(link, 0, "grave {at} is not found");
                    assert_ne!(self.graves[link as usize - 1].name, name, "grave {at}: two of one name");
                    link = self.graves[link as usize - 1].chain;
                }
                len += 1;
                (before, at) = (at, links.next);
            }
            assert_eq!((list.tail, list.len), (before, len), "end and length of list {bit}");
            members += len;
        }
        assert_eq!(self.len, members, "graves");
        assert!(self.heads[self.chains..].iter().all(|head| *head == 0), "a chain that is not in use");
        let chained: usize = self.heads.iter().filter(|head| **head != 0).count();
        assert!(chained <= members as usize, "a chain of what is free");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::KeyBytes;

    fn key(number: u32, seed: u64) -> Key {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        Key::new(KeyBytes::V4(bytes), seed)
    }

    #[test]
    fn as_many_as_the_limit_are_found_until_they_are_passed() {
        let mut graves = Graves::new(3000);
        for round in 0..2 {
            for number in 1..=3000 {
                graves.bury(&key(number, 7), 7, u64::from(number) + round * 3000);
            }
            graves.assert_consistent();
            graves.pass(round * 3000 + 1234);
            graves.assert_consistent();
            assert_eq!(graves.len(), 1766);
            assert_eq!(graves.number_of(&key(1234, 7), 7), None);
            assert_eq!(graves.number_of(&key(1235, 7), 7), Some(round * 3000 + 1235));
            graves.pass(round * 3000 + 3000);
            graves.assert_consistent();
            assert_eq!((graves.len(), graves.frontier()), (0, round * 3000 + 3000));
        }
    }

    #[test]
    fn a_key_has_one_grave_with_its_latest_number() {
        let mut graves = Graves::new(10);
        graves.bury(&key(1, 7), 7, 5);
        graves.bury(&key(1, 7), 7, 1 << 40);
        graves.assert_consistent();
        graves.pass(6);
        assert_eq!((graves.len(), graves.exhume(&key(1, 7), 7)), (1, Some(1 << 40)));
        assert_eq!((graves.len(), graves.exhume(&key(1, 7), 7)), (0, None));
        graves.assert_consistent();
    }

    #[test]
    fn a_new_seed_of_the_table_loses_no_grave() {
        let mut graves = Graves::new(10);
        graves.bury(&key(1, 7), 7, 5);
        graves.bury(&key(2, 8), 8, 6);
        assert_eq!([1, 2, 3].map(|number| graves.number_of(&key(number, 8), 8)), [Some(5), Some(6), None]);
        graves.clear();
        graves.assert_consistent();
        assert_eq!((graves.len(), graves.number_of(&key(1, 8), 8)), (0, None));
    }
}
