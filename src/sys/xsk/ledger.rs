//! Which part of the memory that we share with the kernel is whose: plain accounts, in which everything is checked that
//! the kernel says.
//!
//! ```text
//!   chunk 0        R - 1   R                                 K chunks, one after the other, are a slot: a frame that is
//!   │ receive ... │       │ slot 0 │ slot 1 │ ...            longer than a chunk lies in it in one piece, and goes out
//!                                                            as several descriptors
//!   ours ─ offer ─▶ fill ring ─▶ kernel ─▶ receive ring ─ accept ─▶ lent to the reader ─ take_back ─▶ ours
//!   ours ─ open, commit ─▶ send ring ─▶ kernel ─▶ completion ring ─ complete ─▶ ours (a slot: when all of it is back)
//! ```
//!
//! A chunk that is with the kernel is touched by nobody here, and one that is not is never given out twice. A descriptor
//! that names a chunk which the kernel does not have, or bytes outside of one chunk, is refused.

use std::ops::Range;

/// Bytes of a chunk: a page, the most that the kernel takes without huge pages.
pub(super) const CHUNK_LEN: usize = 4096;

/// The accounts of one UMEM.
#[derive(Debug)]
pub(super) struct Ledger {
    /// For each chunk, whether the kernel has it.
    with_kernel: Vec<bool>,
    /// Receive chunks that are ours, the one used last at the end.
    spare: Vec<u32>,
    /// Chunks for receiving, the first ones.
    receive_chunks: u32,
    slot_chunks: u32,
    /// Slots that are ours, the one used last at the end.
    free_slots: Vec<u32>,
    /// For each slot, its chunks that the kernel has.
    out: Vec<u32>,
}

/// A part of a frame that is to go out, as the send ring wants it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Piece {
    /// Where it begins, from the start of the memory.
    pub(super) address: u64,
    /// Its bytes.
    pub(super) length: u32,
    /// Whether another one of the same frame follows.
    pub(super) more: bool,
}

impl Ledger {
    /// Everything is ours.
    pub(super) fn new(receive_chunks: u32, slots: u32, slot_len: usize) -> Self {
        let slot_chunks = slot_len.div_ceil(CHUNK_LEN) as u32;
        Ledger {
            with_kernel: vec![false; (receive_chunks + slots * slot_chunks) as usize],
            spare: (0..receive_chunks).rev().collect(),
            receive_chunks,
            slot_chunks,
            free_slots: (0..slots).rev().collect(),
            out: vec![0; slots as usize],
        }
    }

    /// Bytes of memory that it speaks of.
    pub(super) fn memory_len(&self) -> usize {
        self.with_kernel.len() * CHUNK_LEN
    }

    /// Descriptors that all slots together can need.
    pub(super) fn pieces_max(&self) -> u32 {
        self.out.len() as u32 * self.slot_chunks
    }

    /// Gives a receive chunk to the kernel; where it begins.
    pub(super) fn offer(&mut self) -> Option<u64> {
        let chunk = self.spare.pop()?;
        self.with_kernel[chunk as usize] = true;
        Some(u64::from(chunk) * CHUNK_LEN as u64)
    }

    /// Takes what the kernel says that it has received: which bytes that are. `None` if it cannot be: those stay
    /// untouched.
    pub(super) fn accept(&mut self, address: u64, length: u32) -> Option<Range<usize>> {
        let start = usize::try_from(address).ok()?;
        let chunk = start / CHUNK_LEN;
        let room = CHUNK_LEN - start % CHUNK_LEN;
        if chunk >= self.receive_chunks as usize || length as usize > room || !self.with_kernel[chunk] {
            return None;
        }
        self.with_kernel[chunk] = false;
        Some(start..start + length as usize)
    }

    /// The reader is done with bytes that [`Ledger::accept`] has lent, from this one on.
    pub(super) fn take_back(&mut self, start: usize) {
        self.spare.push((start / CHUNK_LEN) as u32);
    }

    /// The bytes of the slot that will go out next; `None` if all are with the kernel.
    pub(super) fn open(&self) -> Option<Range<usize>> {
        let first = self.first_chunk(*self.free_slots.last()?);
        Some(first * CHUNK_LEN..(first + self.slot_chunks as usize) * CHUNK_LEN)
    }

    /// Gives the first `length` bytes (at least one, at most the slot) of that slot to the kernel.
    pub(super) fn commit(&mut self, length: usize) -> impl Iterator<Item = Piece> + use<> {
        let pieces = length.div_ceil(CHUNK_LEN);
        let first = self.free_slots.pop().map_or(0, |slot| {
            self.out[slot as usize] = pieces as u32;
            let first = self.first_chunk(slot);
            self.with_kernel[first..first + pieces].fill(true);
            first
        });
        (0..pieces).map(move |piece| Piece {
            address: ((first + piece) * CHUNK_LEN) as u64,
            length: (length - piece * CHUNK_LEN).min(CHUNK_LEN) as u32,
            more: piece + 1 < pieces,
        })
    }

    /// A piece with this address is ours again; whether that can be.
    pub(super) fn complete(&mut self, address: u64) -> bool {
        let Ok(start) = usize::try_from(address) else { return false };
        let chunk = start / CHUNK_LEN;
        let is_out = start.is_multiple_of(CHUNK_LEN)
            && chunk >= self.receive_chunks as usize
            && self.with_kernel.get(chunk) == Some(&true);
        if is_out {
            self.with_kernel[chunk] = false;
            let slot = (chunk - self.receive_chunks as usize) / self.slot_chunks as usize;
            self.out[slot] -= 1;
            if self.out[slot] == 0 {
                self.free_slots.push(slot as u32);
            }
        }
        is_out
    }

    fn first_chunk(&self, slot: u32) -> usize {
        (self.receive_chunks + slot * self.slot_chunks) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_received_frame_is_where_the_descriptor_says_and_only_once() {
        let mut ledger = Ledger::new(2, 0, 0);
        assert_eq!(ledger.memory_len(), 8192);
        assert_eq!((ledger.offer(), ledger.offer(), ledger.offer()), (Some(0), Some(4096), None));
        assert_eq!(ledger.accept(4096 + 256, 1242), Some(4352..5594));
        assert_eq!(ledger.accept(4096 + 256, 1242), None, "the same again");
        assert_eq!(ledger.offer(), None, "it is still lent");
        ledger.take_back(4352);
        assert_eq!(ledger.offer(), Some(4096));
    }

    #[test]
    fn a_descriptor_that_cannot_be_is_refused_and_changes_nothing() {
        let mut ledger = Ledger::new(2, 1, 4096);
        ledger.offer();
        for (address, length) in
            [(1, 4096), (4095, 2), (4096, 1), (8192, 1), (1 << 40, 1), (u64::MAX, 1), (0, 4097), (0, u32::MAX)]
        {
            assert_eq!(ledger.accept(address, length), None, "{length} bytes at {address}");
        }
        assert_eq!(ledger.accept(0, 4096), Some(0..4096));
    }

    #[test]
    fn a_long_frame_lies_in_one_piece_and_goes_out_in_several() {
        let mut ledger = Ledger::new(1, 2, 8994);
        assert_eq!((ledger.memory_len(), ledger.pieces_max()), (7 * 4096, 6));
        assert_eq!(ledger.open(), Some(4096..16384));
        let piece = |address, length, more| Piece { address, length, more };
        let pieces: Vec<Piece> = ledger.commit(8994).collect();
        assert_eq!(pieces, [piece(4096, 4096, true), piece(8192, 4096, true), piece(12288, 802, false)]);
        assert_eq!(ledger.open(), Some(16384..28672));
        assert_eq!(ledger.commit(4096).collect::<Vec<_>>(), [piece(16384, 4096, false)]);
        assert_eq!(ledger.open(), None);
        assert!(ledger.complete(8192) && ledger.complete(4096));
        assert_eq!(ledger.open(), None, "a third of it is still out");
        assert!(ledger.complete(12288));
        assert_eq!(ledger.open(), Some(4096..16384));
        for impossible in [12288, 16385, 20480, 0, 28672, u64::MAX] {
            assert!(!ledger.complete(impossible), "{impossible}");
        }
        assert!(ledger.complete(16384));
    }

    /// A step of whoever is on the other side of the rings: an address, a length, and what to do.
    fn steps() -> impl Strategy<Value = Vec<(u64, u32, u8)>> {
        let address = prop_oneof![0u64..70_000, (0u64..17).prop_map(|chunk| chunk * 4096), any::<u64>()];
        let length = prop_oneof![0u32..4200, any::<u32>()];
        prop::collection::vec((address, length, 0u8..6), 1..300)
    }

    proptest! {
        /// Whatever descriptors come, what is lent lies inside one chunk of the memory, and no two lent ranges touch the
        /// same chunk, nor one that the kernel has.
        #[test]
        fn no_stream_of_descriptors_reaches_outside(steps in steps()) {
            let mut ledger = Ledger::new(8, 4, 8192);
            let mut lent: Vec<Range<usize>> = Vec::new();
            for (address, length, what) in steps {
                match what {
                    0 => if let Some(offered) = ledger.offer() {
                        prop_assert!(offered < 8 * 4096 && offered % 4096 == 0);
                        prop_assert!(lent.iter().all(|range| range.start / 4096 != offered as usize / 4096));
                    },
                    1 | 2 => if let Some(range) = ledger.accept(address, length) {
                        prop_assert_eq!(range.start as u64, address);
                        prop_assert_eq!(range.len(), length as usize);
                        prop_assert!(range.end <= 8 * 4096);
                        prop_assert!(range.end <= (range.start / 4096 + 1) * 4096);
                        prop_assert!(lent.iter().all(|other| other.start / 4096 != range.start / 4096));
                        lent.push(range);
                    },
                    3 => if let Some(range) = lent.pop() {
                        ledger.take_back(range.start);
                    },
                    4 => if let Some(slot) = ledger.open() {
                        prop_assert!(slot.start >= 8 * 4096 && slot.end <= 16 * 4096 && slot.len() == 8192);
                        prop_assert!(!ledger.with_kernel[slot.start / 4096] && !ledger.with_kernel[slot.start / 4096 + 1]);
                        ledger.commit(1 + length as usize % 8192).for_each(drop);
                    },
                    _ => {
                        ledger.complete(address);
                    }
                }
                let out = ledger.with_kernel[..8].iter().filter(|with_kernel| **with_kernel).count();
                prop_assert_eq!(out + lent.len() + ledger.spare.len(), 8, "no chunk is lost");
                let busy = ledger.out.iter().filter(|out| **out > 0).count();
                prop_assert_eq!(busy + ledger.free_slots.len(), 4, "no slot is lost");
            }
        }
    }
}
