//! PULL of buckets: send me your entries of these. How a table is filled, and how a difference is repaired.
//!
//! ```text
//!    0 target: node u32, zero u32, incarnation u64
//!   16 what u8 (1: buckets), range count u8, zero u16
//!   20 per range 4 bytes: first u16, count u16
//! ```

use super::control::{RawTarget, encode, list};
use super::{BUCKETS, FrameError, Header, Kind, RANGES_MAX, Target};
use zerocopy::byteorder::big_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// PULL of buckets: send me your entries of these [4.5].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Pull<'a> {
    /// The master that it is for.
    pub target: Target,
    /// Which buckets, at most [`RANGES_MAX`] ranges.
    pub ranges: &'a [BucketRange],
}

/// Consecutive buckets: at least one, and all of them below [`BUCKETS`]. As it travels.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct BucketRange {
    first: U16,
    count: U16,
}

impl BucketRange {
    /// The `count` buckets from `first` on.
    pub const fn new(first: u16, count: u16) -> Self {
        BucketRange { first: U16::new(first), count: U16::new(count) }
    }

    /// The first bucket.
    pub const fn first(&self) -> u16 {
        self.first.get()
    }

    /// How many buckets.
    pub const fn count(&self) -> u16 {
        self.count.get()
    }

    pub(super) fn is_valid(&self) -> bool {
        let end = u32::from(self.first()) + u32::from(self.count());
        self.count() != 0 && end <= u32::from(BUCKETS)
    }
}

/// Writes a whole PULL frame; otherwise as [`encode_advert`](super::encode_advert).
#[must_use]
pub fn encode_pull(slot: &mut [u8], header: Header, pull: &Pull<'_>) -> Option<usize> {
    if pull.ranges.len() > RANGES_MAX || !pull.is_valid() {
        return None;
    }
    let fixed = RawPull {
        target: RawTarget::new(pull.target),
        what: PULL_BUCKETS,
        range_count: pull.ranges.len() as u8,
        zero: U16::ZERO,
    };
    encode(slot, Header { kind: Kind::PULL, ..header }, [fixed.as_bytes(), pull.ranges.as_bytes(), &[]])
}

impl<'a> Pull<'a> {
    pub(super) fn decode(payload: &'a [u8]) -> Result<Self, FrameError> {
        let (raw, ranges) = RawPull::ref_from_prefix(payload).map_err(|_| FrameError::PullLength)?;
        if raw.what != PULL_BUCKETS {
            return Err(FrameError::UnknownPull);
        }
        if usize::from(raw.range_count) > RANGES_MAX || raw.zero != U16::ZERO {
            return Err(FrameError::PullField);
        }
        let pull = Pull {
            target: raw.target.get().ok_or(FrameError::PullField)?,
            ranges: list(ranges, raw.range_count).ok_or(FrameError::PullLength)?,
        };
        if pull.is_valid() { Ok(pull) } else { Err(FrameError::PullField) }
    }

    fn is_valid(&self) -> bool {
        self.target.is_valid() && self.ranges.iter().all(BucketRange::is_valid)
    }
}

/// What a PULL asks for: 1 is entries of buckets.
const PULL_BUCKETS: u8 = 1;
/// Where in the payload it says what it asks for.
pub(super) const PULL_WHAT_AT: usize = 16;

/// The fixed part as it travels.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawPull {
    target: RawTarget,
    what: u8,
    range_count: u8,
    zero: U16,
}

const _: () = assert!(size_of::<RawPull>() == 20 && size_of::<BucketRange>() == 4);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::NodeId;
    use crate::wire::control::with;

    const PULL_PAYLOAD: [u8; 24] = [
        0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, // target
        1, 1, 0, 0, // buckets, ranges, zero
        0, 16, 15, 240, // 16 to 4095
    ];

    /// [4.5.1]
    #[test]
    fn a_pull_is_written_and_read_field_by_field() {
        let pull = Pull { target: Target { node: NodeId(1), incarnation: 2 }, ranges: &[BucketRange::new(16, 4080)] };
        let mut slot = [0xaa; 64];
        assert_eq!(encode_pull(&mut slot, Header::default(), &pull), Some(64));
        assert_eq!(slot[40..], PULL_PAYLOAD);
        assert_eq!(slot[5], 6);
        assert_eq!(Pull::decode(&PULL_PAYLOAD), Ok(pull));
    }

    #[test]
    fn pulls_of_impossible_shape_are_refused() {
        let refused = |changes: &[(usize, u8)]| Pull::decode(&with(&PULL_PAYLOAD, changes)).err();
        assert_eq!(Pull::decode(&PULL_PAYLOAD[..19]), Err(FrameError::PullLength));
        assert_eq!(Pull::decode(&PULL_PAYLOAD[..23]), Err(FrameError::PullLength));
        assert_eq!(refused(&[(17, 0)]), Some(FrameError::PullLength));
        assert_eq!(refused(&[(17, 65)]), Some(FrameError::PullField));
        assert_eq!(refused(&[(18, 1)]), Some(FrameError::PullField));
        assert_eq!(refused(&[(4, 1)]), Some(FrameError::PullField), "reserved in the target");
        assert_eq!(refused(&[(3, 0)]), Some(FrameError::PullField), "target node 0");
        assert_eq!(refused(&[(15, 0)]), Some(FrameError::PullField), "target incarnation 0");
        assert_eq!(refused(&[(16, 0)]), Some(FrameError::UnknownPull));
        assert_eq!(refused(&[(16, 3)]), Some(FrameError::UnknownPull));
        assert_eq!(refused(&[(22, 0), (23, 0)]), Some(FrameError::PullField), "no bucket");
        assert_eq!(refused(&[(21, 17)]), Some(FrameError::PullField), "beyond the last bucket");
        assert_eq!(refused(&[(20, 255), (22, 255)]), Some(FrameError::PullField));
    }

    /// An encoder never writes what a receiver would refuse; and what it writes fits the smallest frame that may be
    /// configured, even with a seal's tag of 16 bytes [8].
    #[test]
    fn what_would_be_refused_is_not_written() {
        let target = Target { node: NodeId(1), incarnation: 1 };
        let mut slot = [0; 1208 - 16];
        let mut pull = |pull: Pull<'_>| encode_pull(&mut slot, Header::default(), &pull);
        let ranges = [BucketRange::new(0, 4096); 65];
        assert_eq!(pull(Pull { target, ranges: &ranges[..64] }), Some(316));
        assert_eq!(pull(Pull { target, ranges: &ranges }), None);
        assert_eq!(pull(Pull { target, ranges: &[BucketRange::new(1, 4096)] }), None);
        assert_eq!(pull(Pull::default()), None, "nobody's");
    }
}
