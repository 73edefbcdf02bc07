//! What the control frames share.
//!
//! Each has a fixed part and then lists, whose counts stand in the fixed part. What is encoded is what is decoded: one
//! struct for both ways, whose lists are borrowed from the frame. An encoder answers `None` rather than write what a
//! receiver would refuse. Every control frame but ADVERT begins with its target:
//!
//! ```text
//!   0 node u32     4 zero u32     8 incarnation u64
//! ```

use super::frame::complete;
use super::{HEADER_LEN, Header, NodeId};
use zerocopy::byteorder::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Whom a control frame is for. Every control frame but ADVERT begins with it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Target {
    /// Node; not zero.
    pub node: NodeId,
    /// Incarnation; not zero.
    pub incarnation: u64,
}

impl Target {
    pub(super) fn is_valid(self) -> bool {
        self.node.0 != 0 && self.incarnation != 0
    }
}

/// Writes a frame: the payload's parts one behind the other, and the header before them. `None` if the slot is too
/// small.
pub(super) fn encode(slot: &mut [u8], header: Header, parts: [&[u8]; 3]) -> Option<usize> {
    let len = HEADER_LEN + parts.iter().map(|part| part.len()).sum::<usize>();
    let frame = slot.get_mut(..len)?;
    let mut at = HEADER_LEN;
    for part in parts {
        frame[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    complete(frame, &header, 0)
}

/// The bytes as exactly `count` items; `None` if they are more or fewer.
pub(super) fn list<T: FromBytes + Immutable + KnownLayout + Unaligned>(bytes: &[u8], count: u8) -> Option<&[T]> {
    <[T]>::ref_from_bytes_with_elems(bytes, usize::from(count)).ok()
}

/// A target as it travels.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawTarget {
    node: U32,
    zero: U32,
    incarnation: U64,
}

impl RawTarget {
    pub(super) fn new(target: Target) -> Self {
        RawTarget { node: U32::new(target.node.0), zero: U32::ZERO, incarnation: U64::new(target.incarnation) }
    }

    /// The target; `None` if it is nobody's, or if the reserved bytes are not zero.
    pub(super) fn get(&self) -> Option<Target> {
        let target = Target { node: NodeId(self.node.get()), incarnation: self.incarnation.get() };
        (self.zero == U32::ZERO && target.is_valid()).then_some(target)
    }
}

/// A payload with other bytes at some places: (index, value).
#[cfg(test)]
pub(super) fn with(payload: &[u8], changes: &[(usize, u8)]) -> Vec<u8> {
    let mut payload = payload.to_vec();
    for (index, value) in changes {
        payload[*index] = *value;
    }
    payload
}
