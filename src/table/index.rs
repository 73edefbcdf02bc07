//! Which slot holds a key: a cell of eight bytes for each, in the order of the keys' hashes.
//!
//! Open addressing with linear probing. A cell's home is the multiply-shift of the upper half of its key's hash, which
//! keeps the order of the hashes, so that a bucket (the top bits of the same half) is one stretch of the index. A cell
//! has that half itself: probing, removing and walking a bucket need no look at the slots. A removed cell leaves no
//! mark: those behind it move up until one is at home (backward shift). Thus churn never makes a probe longer.
//!
//! ```text
//! cell   upper half of the hash 4 │ slot 4, or NONE                   eight of them to a cache line
//!
//! hash   0 ────────────────────────────────────────────────────────── 2^64
//! cells  │ bucket 0 │ bucket 1 │ …                       │ bucket 4095 │ ↺ a run that reaches the end goes on at 0
//! ```
//!
//! At most two cells in three are taken: there is always an empty one, and every probe ends there.

use super::digest::{bucket_of_hash, first_hash};
use super::lists::NONE;

/// One cell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cell {
    half: u32,
    slot: u32,
}

impl Cell {
    const EMPTY: Cell = Cell { half: 0, slot: NONE };

    fn new(hash: u64, slot: u32) -> Self {
        Cell { half: upper_half(hash), slot }
    }

    /// The slot, if there is one.
    pub(super) fn slot(self) -> Option<u32> {
        (self.slot != NONE).then_some(self.slot)
    }

    fn bucket(self) -> u16 {
        bucket_of_hash(u64::from(self.half) << 32)
    }
}

fn upper_half(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// The empty cell at which the search for a key has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Gap(u32);

/// All cells.
pub(super) struct Index(Box<[Cell]>);

impl Index {
    /// Cells for so many slots.
    pub(super) fn new(slots: u32) -> Self {
        Index(vec![Cell::EMPTY; slots as usize + slots as usize / 2 + 1].into_boxed_slice())
    }

    /// Cells in all.
    pub(super) fn count(&self) -> u32 {
        self.0.len() as u32
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.0)
    }

    pub(super) fn get(&self, at: u32) -> Cell {
        self.0[at as usize]
    }

    /// The cell after this one.
    pub(super) fn after(&self, at: u32) -> u32 {
        if at + 1 < self.count() { at + 1 } else { 0 }
    }

    /// The cell in which a key of this hash would best lie.
    pub(super) fn home(&self, hash: u64) -> u32 {
        ((u64::from(upper_half(hash)) * self.0.len() as u64) >> 32) as u32
    }

    /// The lowest hash whose home is this cell or one behind it; `None` behind the last cell.
    pub(super) fn first_hash_from(&self, at: u32) -> Option<u64> {
        let half = (u64::from(at) << 32).div_ceil(self.0.len() as u64);
        u32::try_from(half).ok().map(|half| u64::from(half) << 32)
    }

    /// What is in the home of this hash, so that it is in the cache.
    pub(super) fn read(&self, hash: u64) -> u32 {
        self.get(self.home(hash)).slot
    }

    /// The slot of a key, or else the gap where it belongs. Only those slots are asked whether they hold it of whose
    /// hashes the upper half is the same.
    #[inline]
    pub(super) fn find(&self, hash: u64, holds_it: impl Fn(u32) -> bool) -> Result<u32, Gap> {
        let mut at = self.home(hash);
        loop {
            let Cell { half, slot } = self.get(at);
            if slot == NONE {
                return Err(Gap(at));
            }
            if half == upper_half(hash) && holds_it(slot) {
                return Ok(slot);
            }
            at = self.after(at);
        }
    }

    /// Fills the gap that [`Index::find`] named for a key of this hash.
    pub(super) fn fill(&mut self, gap: Gap, hash: u64, slot: u32) {
        debug_assert!(self.get(gap.0) == Cell::EMPTY, "a gap is empty");
        self.0[gap.0 as usize] = Cell::new(hash, slot);
    }

    /// Empties the cell of a slot; cells behind it may move up, into this one too.
    pub(super) fn remove(&mut self, hash: u64, slot: u32) {
        let mut hole = self.home(hash);
        while self.get(hole).slot != slot {
            debug_assert!(self.get(hole) != Cell::EMPTY, "every slot that is taken has a cell");
            hole = self.after(hole);
        }
        let mut probe = self.after(hole);
        while let cell = self.get(probe)
            && cell != Cell::EMPTY
        {
            let home = self.home(u64::from(cell.half) << 32);
            if self.distance(home, probe) >= self.distance(hole, probe) {
                self.0[hole as usize] = cell;
                hole = probe;
            }
            probe = self.after(probe);
        }
        self.0[hole as usize] = Cell::EMPTY;
    }

    /// Empties every cell.
    pub(super) fn clear(&mut self) {
        self.0.fill(Cell::EMPTY);
    }

    /// Steps from one cell forward to another.
    fn distance(&self, from: u32, to: u32) -> u32 {
        if to >= from { to - from } else { to + (self.count() - from) }
    }

    /// A walk through the slots of a bucket; see [`Index::next_of`].
    pub(super) fn walk(&self, bucket: u16) -> Walk {
        let first = self.home(first_hash(bucket));
        let last = self.home(first_hash(bucket) | (first_hash(1) - 1));
        Walk { bucket, at: first, before: first, walked: 0, holes_until: last - first }
    }

    /// The next slot of the bucket; its neighbours are skipped. Entries may change during the walk, but none may be
    /// freed (see [`Walk::again`]). The walk ends at the first empty cell that is not before the last of the bucket's own
    /// stretch: nothing of it lies beyond.
    pub(super) fn next_of(&self, walk: &mut Walk) -> Option<u32> {
        while walk.walked < self.count() {
            let cell = self.get(walk.at);
            if cell == Cell::EMPTY && walk.walked >= walk.holes_until {
                return None;
            }
            (walk.before, walk.at) = (walk.at, self.after(walk.at));
            walk.walked += 1;
            if cell != Cell::EMPTY && cell.bucket() == walk.bucket {
                return cell.slot();
            }
        }
        None
    }
}

/// How far a walk through a bucket has come.
pub(super) struct Walk {
    /// One that does not exist has no entries.
    bucket: u16,
    at: u32,
    /// The cell that it came to last.
    before: u32,
    walked: u32,
    /// Steps to the last cell that is home to the bucket: an empty one before it is a hole, and not the end.
    holes_until: u32,
}

impl Walk {
    /// The slot that the walk came to last was freed: what moved up into its cell, and behind it, is still to come.
    pub(super) fn again(&mut self) {
        self.at = self.before;
        self.walked -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its upper half, so that neighbours in number are neighbours in the index.
    fn hash(half: u32) -> u64 {
        u64::from(half) << 32 | 7
    }

    #[test]
    fn a_line_has_eight_cells_and_two_in_three_can_be_taken() {
        assert_eq!(size_of::<Cell>() * 8, 64);
        assert_eq!((Index::new(100).count(), Index::new(1).count()), (151, 2));
        assert_eq!(Index::new(1_000_000).bytes() / 1_000_000, 12);
    }

    /// A run that goes round the end; whichever of it is removed, all others are found, and only by their own slot.
    #[test]
    fn what_is_removed_leaves_no_hole_in_a_run() {
        for removed in 0..6_u32 {
            let mut index = Index::new(10);
            for slot in 0..6 {
                let Err(gap) = index.find(hash(u32::MAX - slot % 3), |_| false) else { panic!("nobody holds it") };
                index.fill(gap, hash(u32::MAX - slot % 3), slot);
            }
            index.remove(hash(u32::MAX - removed % 3), removed);
            for slot in 0..6 {
                let found = index.find(hash(u32::MAX - slot % 3), |other| other == slot);
                assert_eq!(found.ok(), (slot != removed).then_some(slot), "slot {slot} without {removed}");
            }
            assert_eq!((0..index.count()).filter(|at| index.get(*at).slot().is_some()).count(), 5);
        }
    }

    #[test]
    fn a_cell_is_the_home_of_the_first_hash_from_it() {
        let index = Index::new(1000);
        for at in 0..index.count() {
            let first = index.first_hash_from(at).expect("below the end");
            assert_eq!(index.home(first), at);
            assert!(at == 0 || index.home(first - 1) == at - 1);
        }
        assert_eq!(index.first_hash_from(index.count()), None);
    }
}
