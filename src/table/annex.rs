//! What does not fit the line of a slot: the addresses of IPv6, and attributes.
//!
//! Blocks of one cache line each, chained by number, from one allocation that is zeroed by the kernel: a block that was
//! never used costs no memory. Who stores something keeps its [`Extent`]; nothing here knows to whom it belongs.
//!
//! ```text
//! Extent { head 7, len 88 }      block 7: next 4 │ data 60 bytes ──→ block 4: … │ data 28 bytes, the rest unused
//!
//! blocks   │ in use, or on the free list │ fresh: never used, zero │
//!          0                             fresh                     the bound
//! ```

use super::lists::NONE;
use zerocopy::FromZeros;

/// Bytes that a block holds.
pub(super) const BLOCK_LEN: usize = 60;

/// One cache line.
#[derive(Clone, Copy, FromZeros)]
#[repr(C, align(64))]
struct Block {
    /// The next block of the chain, or of the free list; without meaning in the last one of a chain.
    next: u32,
    data: [u8; BLOCK_LEN],
}

const _: () = assert!(size_of::<Block>() == 64 && align_of::<Block>() == 64);

/// Where something stands in the annex.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Extent {
    /// Its first block.
    pub(super) head: u32,
    /// Bytes; with 0 there is no block.
    pub(super) len: u16,
}

impl Extent {
    /// Nothing, in no block.
    pub(super) const NONE: Extent = Extent { head: NONE, len: 0 };

    /// Blocks in its chain.
    pub(super) fn blocks(self) -> u32 {
        blocks_for(usize::from(self.len))
    }
}

/// Blocks that hold so many bytes.
pub(super) fn blocks_for(len: usize) -> u32 {
    len.div_ceil(BLOCK_LEN) as u32
}

/// The blocks.
pub(super) struct Annex {
    blocks: Box<[Block]>,
    /// First of the free list.
    free: u32,
    /// Blocks from this one on were never used.
    fresh: u32,
    used: u32,
}

impl Annex {
    /// So many blocks, all free.
    ///
    /// # Panics
    /// If there is no address space for them.
    pub(super) fn new(blocks: u32) -> Self {
        let blocks = Block::new_vec_zeroed(blocks as usize).expect("address space for the annex");
        Annex { blocks: blocks.into_boxed_slice(), free: NONE, fresh: 0, used: 0 }
    }

    /// Blocks in all.
    pub(super) fn count(&self) -> u32 {
        self.blocks.len() as u32
    }

    /// Blocks that hold something.
    pub(super) fn used(&self) -> u32 {
        self.used
    }

    /// Stores the pieces, one behind the other, in place of what `old` names. `None` if there is no room for them;
    /// nothing has changed then.
    pub(super) fn replace(&mut self, old: Extent, pieces: [&[u8]; 3]) -> Option<Extent> {
        let len: usize = pieces.iter().map(|piece| piece.len()).sum();
        if blocks_for(len) > self.count() - self.used + old.blocks() {
            return None;
        }
        self.truncate(old, 0);
        let mut extent = Extent { head: NONE, len: u16::try_from(len).ok()? };
        let (mut last, mut room) = (NONE, 0);
        for mut piece in pieces {
            while !piece.is_empty() {
                if room == 0 {
                    let block = self.take();
                    match last {
                        NONE => extent.head = block,
                        last => self.blocks[last as usize].next = block,
                    }
                    (last, room) = (block, BLOCK_LEN);
                }
                let (now, later) = piece.split_at(piece.len().min(room));
                self.blocks[last as usize].data[BLOCK_LEN - room..][..now.len()].copy_from_slice(now);
                (piece, room) = (later, room - now.len());
            }
        }
        Some(extent)
    }

    /// Keeps the first `len` bytes and frees the blocks behind them.
    pub(super) fn truncate(&mut self, extent: Extent, len: u16) -> Extent {
        let (kept, mut rest) = (blocks_for(usize::from(len)), extent.blocks());
        let mut block = extent.head;
        for number in 0..rest {
            let next = self.blocks[block as usize].next;
            if number >= kept {
                self.give(block);
                rest -= 1;
            }
            block = next;
        }
        if rest == 0 { Extent::NONE } else { Extent { len: len.min(extent.len), ..extent } }
    }

    /// What stands there. Only what has more than one block is copied, into `scratch`.
    pub(super) fn read<'a, const N: usize>(&'a self, extent: Extent, scratch: &'a mut Option<[u8; N]>) -> &'a [u8] {
        let len = usize::from(extent.len);
        if len == 0 {
            return &[];
        }
        if len <= BLOCK_LEN {
            return &self.blocks[extent.head as usize].data[..len];
        }
        let bytes = &mut scratch.insert([0; N])[..len];
        let mut at = extent.head;
        for piece in bytes.chunks_mut(BLOCK_LEN) {
            let block = &self.blocks[at as usize];
            piece.copy_from_slice(&block.data[..piece.len()]);
            at = block.next;
        }
        bytes
    }

    /// The first bytes of what stands there, which lie in its first block.
    pub(super) fn first<const N: usize>(&self, extent: Extent) -> Option<&[u8; N]> {
        self.blocks.get(extent.head as usize)?.data.first_chunk()
    }

    /// A free block; there must be one.
    fn take(&mut self) -> u32 {
        self.used += 1;
        if self.free == NONE {
            self.fresh += 1;
            return self.fresh - 1;
        }
        let block = self.free;
        self.free = self.blocks[block as usize].next;
        block
    }

    fn give(&mut self, block: u32) {
        self.used -= 1;
        self.blocks[block as usize].next = self.free;
        self.free = block;
    }

    /// Asserts that every block is free, fresh, or in exactly one of the chains; O(n), for tests.
    pub(super) fn assert_consistent(&self, extents: impl Iterator<Item = Extent>) {
        let mut owned = vec![false; self.fresh as usize];
        let mut own = |block: u32, whose: &str| {
            assert!(!std::mem::replace(&mut owned[block as usize], true), "block {block} belongs to two, one {whose}");
        };
        let mut used = 0;
        for extent in extents {
            let mut block = extent.head;
            for _ in 0..extent.blocks() {
                own(block, "an entry");
                block = self.blocks[block as usize].next;
                used += 1;
            }
        }
        assert_eq!(self.used, used, "blocks in use");
        let mut block = self.free;
        while block != NONE {
            own(block, "free");
            block = self.blocks[block as usize].next;
        }
        assert!(owned.into_iter().all(|owned| owned), "a block that nobody has");
        assert!(self.used <= self.count(), "more blocks than there are");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(annex: &mut Annex, len: usize) -> Option<Extent> {
        let bytes: Vec<u8> = (0..len).map(|at| at as u8).collect();
        annex.replace(Extent::NONE, [&bytes[..len / 3], &bytes[len / 3..len / 2], &bytes[len / 2..]])
    }

    fn read(annex: &Annex, extent: Extent) -> Vec<u8> {
        annex.read(extent, &mut None::<[u8; 1000]>).to_vec()
    }

    #[test]
    fn a_block_holds_sixty_bytes_and_nothing_needs_none() {
        assert_eq!([0, 1, 60, 61, 120, 121, 996].map(blocks_for), [0, 1, 1, 2, 2, 3, 17]);
        let mut annex = Annex::new(3);
        assert_eq!(store(&mut annex, 0), Some(Extent::NONE));
        assert_eq!((annex.used(), annex.count()), (0, 3));
    }

    #[test]
    fn what_was_stored_in_pieces_is_read_as_a_whole() {
        let mut annex = Annex::new(20);
        for len in [1, 59, 60, 61, 119, 120, 121, 996] {
            let extent = store(&mut annex, len).expect("room");
            assert_eq!(read(&annex, extent), (0..len).map(|at| at as u8).collect::<Vec<_>>(), "{len} bytes");
            assert_eq!(annex.truncate(extent, 0), Extent::NONE);
            assert_eq!(annex.used(), 0);
        }
    }

    #[test]
    fn what_finds_no_room_changes_nothing_and_what_replaces_counts_on_the_room_of_the_old() {
        let mut annex = Annex::new(4);
        let (a, b) = (store(&mut annex, 120).expect("room"), store(&mut annex, 60).expect("room"));
        assert_eq!(store(&mut annex, 61), None);
        assert_eq!(annex.replace(a, [&[1; 181], &[], &[]]), None);
        assert_eq!(read(&annex, a)[119], 119);
        let a = annex.replace(a, [&[7; 180], &[], &[]]).expect("three blocks: two of its own and the free one");
        assert_eq!((annex.used(), read(&annex, a), read(&annex, b).len()), (4, vec![7; 180], 60));
        annex.assert_consistent([a, b].into_iter());
    }

    #[test]
    fn a_shortened_chain_keeps_its_beginning() {
        let mut annex = Annex::new(4);
        let extent = store(&mut annex, 200).expect("room");
        let extent = annex.truncate(extent, 61);
        assert_eq!((annex.used(), read(&annex, extent).len(), read(&annex, extent)[60]), (2, 61, 60));
        assert_eq!(annex.first::<4>(extent), Some(&[0, 1, 2, 3]));
        annex.assert_consistent([extent].into_iter());
    }
}
