//! From descriptors to frames: the memory that we share with the kernel, the accounts of it, and a frame that comes in
//! several pieces.
//!
//! ```text
//!   descriptor ─ addr, len ─▶ ledger: can that be? ─▶ those bytes ─┬─ the whole of it ─────────▶ lent to the reader
//!              └ options: more follows ────────────────────────────┴─ a piece ─▶ assembly ─ last ─▶ lent
//! ```
//!
//! What a descriptor says is believed as far as the ledger lets it: bytes of one chunk that the kernel had. Everything else is
//! told to the caller, who counts it, and touches nothing.

use super::ledger::Ledger;
use super::memory::Umem;
use std::ops::Range;

/// Memory of frames, and whose each part of it is.
#[derive(Debug)]
pub(super) struct Frames {
    umem: Umem,
    pub(super) ledger: Ledger,
    /// A frame that came in several chunks, as far as it has come: never more than its capacity.
    assembly: Vec<u8>,
    assembling: bool,
}

impl Frames {
    /// For frames of at most `frame_len` bytes.
    pub(super) fn new(umem: Umem, ledger: Ledger, frame_len: usize) -> Self {
        Frames { umem, ledger, assembly: Vec::with_capacity(frame_len), assembling: false }
    }

    /// Takes one descriptor of the receive ring; whether a frame was delivered with it, `None` if it cannot be.
    pub(super) fn take(&mut self, descriptor: libc::xdp_desc, deliver: &mut dyn FnMut(&mut [u8])) -> Option<bool> {
        let more = descriptor.options & libc::XDP_PKT_CONTD != 0;
        let range = self.ledger.accept(descriptor.addr, descriptor.len)?;
        let start = range.start;
        let bytes = self.umem.bytes(range);
        if !more && !self.assembling {
            deliver(bytes);
        } else {
            let room = self.assembly.capacity() - self.assembly.len();
            self.assembly.extend_from_slice(&bytes[..bytes.len().min(room)]);
            if !more {
                deliver(&mut self.assembly);
                self.assembly.clear();
            }
            self.assembling = more;
        }
        self.ledger.take_back(start);
        Some(!more)
    }

    /// Some of the bytes: a slot that is ours.
    ///
    /// # Panics
    /// If they lie outside.
    pub(super) fn bytes(&mut self, range: Range<usize>) -> &mut [u8] {
        self.umem.bytes(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CHUNK: usize = 4096;
    const RECEIVE: usize = 6;
    const FRAME_LEN: usize = 9000;

    /// Six chunks for receiving and two slots of two chunks, behind which the mapping ends; every byte is its chunk's number.
    fn frames() -> Frames {
        let ledger = Ledger::new(RECEIVE as u32, 2, 2 * CHUNK);
        let mut umem = Umem::new(ledger.memory_len()).unwrap();
        for chunk in 0..ledger.memory_len() / CHUNK {
            umem.bytes(chunk * CHUNK..(chunk + 1) * CHUNK).fill(chunk as u8);
        }
        Frames::new(umem, ledger, FRAME_LEN)
    }

    /// What the kernel might say: mostly where something is, and its borders; and anything at all.
    fn descriptors() -> impl Strategy<Value = Vec<(u64, u32, u32, bool)>> {
        let near = (0u64..12, -2i64..3).prop_map(|(chunk, off)| (chunk * 4096).wrapping_add_signed(off));
        let address = prop_oneof![4 => (0u64..6, 0u64..4096).prop_map(|(chunk, at)| chunk * 4096 + at), 3 => near, 1 => any::<u64>()];
        let length = prop_oneof![4 => 0u32..2048, 2 => 4090u32..4100, 1 => any::<u32>()];
        let options = prop_oneof![3 => Just(0u32), 2 => Just(libc::XDP_PKT_CONTD), 1 => any::<u32>()];
        prop::collection::vec((address, length, options, any::<bool>()), 1..200)
    }

    proptest! {
        /// Nothing that is delivered comes from outside of the chunk that its descriptor names, nor from one that the kernel
        /// was not given, nor from where a frame of ours lies on its way out; and what comes in pieces never outgrows a frame.
        #[test]
        fn no_stream_of_descriptors_delivers_what_was_not_received(stream in descriptors()) {
            let mut frames = frames();
            // Chunks that the kernel has, by our own count; a slot of ours is out, too.
            let mut theirs = [false; RECEIVE];
            frames.ledger.commit(2 * CHUNK).for_each(drop);
            let mut pieces: Vec<u8> = Vec::new();
            let mut in_pieces = false;
            for (addr, len, options, offers) in stream {
                if offers && let Some(address) = frames.ledger.offer() {
                    theirs[address as usize / CHUNK] = true;
                }
                let first = (addr / 4096) as usize;
                let inside = addr % 4096 + u64::from(len) <= 4096;
                let can_be = inside && first < RECEIVE && theirs[first];
                let mut heard = None;
                let taken = frames.take(libc::xdp_desc { addr, len, options }, &mut |bytes| heard = Some(bytes.to_vec()));
                let more = options & 1 == 1;
                prop_assert_eq!(taken, can_be.then_some(!more), "{} bytes at {}", len, addr);
                if !can_be {
                    prop_assert_eq!(heard, None);
                    continue;
                }
                theirs[first] = false;
                pieces.extend(std::iter::repeat_n(first as u8, len as usize));
                in_pieces |= more;
                if in_pieces {
                    pieces.truncate(FRAME_LEN);
                }
                if more {
                    prop_assert_eq!(heard, None);
                } else {
                    prop_assert_eq!(heard.as_deref(), Some(&pieces[..]));
                    pieces.clear();
                    in_pieces = false;
                }
            }
        }
    }
}
