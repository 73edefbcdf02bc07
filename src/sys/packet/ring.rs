//! Where things are in a receive ring (TPACKET_V2): arithmetic only, so that no header, whatever it says, leads out of its
//! slot.
//!
//! ```text
//!   block 0                              block 1
//!   │ slot 0 │ slot 1 │ … │ slot 6 │rest│ slot 7 │ …      a slot never crosses blocks; the rest is unused
//!   │        │
//!   │ tpacket2_hdr │ sockaddr_ll │ │ packet … │           the packet begins tp_mac bytes into its slot, and
//!   0                              ▲ tp_mac               tp_snaplen bytes of it were kept
//! ```
//!
//! **Cache lines.** What we read of a slot the kernel's processor has to fetch back before it writes there again. So slots
//! begin at a line, and a packet stands such that all that is read of it first is on one more: its type, an IPv4 header
//! and the header of a frame, 62 bytes.

use std::ops::Range;

/// Bytes of a block. The kernel takes memory for it in one piece if it can: 16 pages.
pub const BLOCK_LEN: usize = 1 << 16;
/// Slots begin at a multiple of this: a cache line. (The kernel wants one of 16, TPACKET_ALIGNMENT.)
const ALIGNMENT: usize = 64;
/// Bytes that the kernel is asked to leave free in front of a packet (PACKET_RESERVE), so that the last two of its Ethernet
/// header begin a cache line.
pub const RESERVE: usize = 50;
/// Bytes in front of an IP header: `tpacket2_hdr`, `sockaddr_ll` (TPACKET2_HDRLEN) and an Ethernet header, up to a multiple of
/// 16, and the reserve (`tpacket_rcv` of net/packet/af_packet.c).
pub const HEADER_LEN: usize = 80 + RESERVE;
/// Most blocks of a ring: 4 GiB, which is what the kernel's own arithmetic takes.
const BLOCKS_MAX: usize = 1 << 16;

/// The measures of a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    slot_len: usize,
    slots_per_block: usize,
    blocks: usize,
}

impl Shape {
    /// A ring of at least `slots` slots (and one block), each with room for a packet of `packet_len` bytes. `None` if one
    /// does not fit into a block, or the ring would be too large.
    pub fn new(slots: usize, packet_len: usize) -> Option<Self> {
        let slot_len = packet_len.checked_add(HEADER_LEN)?.checked_next_multiple_of(ALIGNMENT)?;
        let slots_per_block = BLOCK_LEN.checked_div(slot_len).filter(|slots| *slots > 0)?;
        let blocks = slots.div_ceil(slots_per_block).max(1);
        (blocks <= BLOCKS_MAX).then_some(Shape { slot_len, slots_per_block, blocks })
    }

    /// Bytes of a slot.
    pub fn slot_len(self) -> usize {
        self.slot_len
    }

    /// Number of slots.
    pub fn slots(self) -> usize {
        self.slots_per_block * self.blocks
    }

    /// Number of blocks, each [`BLOCK_LEN`] bytes long.
    pub fn blocks(self) -> usize {
        self.blocks
    }

    /// Bytes of the whole ring.
    pub fn byte_len(self) -> usize {
        self.blocks * BLOCK_LEN
    }

    /// Where slot `number` begins, counted round and round.
    pub fn offset(self, number: usize) -> usize {
        let number = number % self.slots();
        number / self.slots_per_block * BLOCK_LEN + number % self.slots_per_block * self.slot_len
    }

    /// The slot after `number`.
    pub fn after(self, number: usize) -> usize {
        (number + 1) % self.slots()
    }

    /// Where in its slot a packet lies, by the slot's header; `None` if the header leads elsewhere.
    pub fn packet(self, mac: u16, snaplen: u32) -> Option<Range<usize>> {
        let start = usize::from(mac);
        let end = start.checked_add(usize::try_from(snaplen).ok()?)?;
        (start >= size_of::<libc::tpacket2_hdr>() && end <= self.slot_len).then_some(start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// For frames of 8960 bytes with Ethernet and the longest IPv4 header.
    const SHAPE: Shape = Shape { slot_len: 9216, slots_per_block: 7, blocks: 2 };

    #[test]
    fn slots_fill_blocks_and_never_cross_them() {
        assert_eq!(Shape::new(8, 9034), Some(SHAPE));
        assert_eq!(Shape::new(14, 9034), Some(SHAPE));
        assert_eq!((SHAPE.slots(), SHAPE.byte_len(), SHAPE.slot_len(), SHAPE.blocks()), (14, 131_072, 9216, 2));
        assert_eq!(Shape::new(0, 9034).map(Shape::slots), Some(7), "never none");
        assert_eq!((SHAPE.offset(6), SHAPE.offset(7), SHAPE.offset(13)), (55_296, 65_536, 120_832));
        assert_eq!((SHAPE.after(12), SHAPE.after(13), SHAPE.offset(14)), (13, 0, 0));
    }

    #[test]
    fn a_packet_that_no_block_holds_has_no_ring() {
        assert_eq!(Shape::new(1, 65_406).map(Shape::slots), Some(1));
        assert_eq!(Shape::new(1, 65_407), None);
        assert_eq!(Shape::new(1, usize::MAX), None);
        assert_eq!(Shape::new(usize::MAX, 9034), None);
    }

    #[test]
    fn a_packet_lies_behind_its_header_and_ends_in_its_slot() {
        assert_eq!(SHAPE.packet(116, 1242), Some(116..1358));
        assert_eq!(SHAPE.packet(116, 9100), Some(116..9216));
        assert_eq!(SHAPE.packet(116, 9101), None);
        assert_eq!(SHAPE.packet(31, 1), None, "inside of the header, which must stay as it is");
        assert_eq!(SHAPE.packet(32, 0), Some(32..32));
        assert_eq!(SHAPE.packet(u16::MAX, u32::MAX), None);
    }

    proptest! {
        /// Whatever a header says, and whichever slot it is in: inside of the slot, and so of the mapped blocks.
        #[test]
        fn no_header_leads_out_of_its_slot(
            slots in 0usize..5000, packet_len in 0usize..70_000, number: usize, mac: u16, snaplen: u32,
        ) {
            let Some(shape) = Shape::new(slots, packet_len) else { return Ok(()) };
            let offset = shape.offset(number);
            prop_assert!(offset + shape.slot_len() <= shape.byte_len());
            prop_assert_eq!(offset % 64, 0);
            prop_assert_eq!(offset / 65_536, (offset + shape.slot_len() - 1) / 65_536);
            for snaplen in [snaplen, snaplen % 10_000] {
                if let Some(packet) = shape.packet(mac, snaplen) {
                    prop_assert!(packet.start >= 32 && packet.start <= packet.end && packet.end <= shape.slot_len());
                }
            }
        }

        /// Every slot is visited once, and none overlaps another.
        #[test]
        fn slots_follow_each_other_without_overlap(slots in 1usize..200, packet_len in 0usize..10_000) {
            let shape = Shape::new(slots, packet_len).unwrap();
            let (mut at, mut end) = (0, 0);
            for _ in 0..shape.slots() {
                prop_assert!(shape.offset(at) >= end);
                end = shape.offset(at) + shape.slot_len();
                at = shape.after(at);
            }
            prop_assert_eq!(at, 0);
            prop_assert!(shape.slots() >= slots);
        }
    }
}
