//! STATUS: what I hold of your stream, and what I miss. A backup's acknowledgement and its request to send again.
//!
//! ```text
//!    0 target: node u32, zero u32, incarnation u64
//!   16 frontier u64         24 base u64           32 credit u32
//!   36 state u8, range count u8, zero u16         40 per range 12 bytes: first u64, length u32
//! ```

use super::control::{RawTarget, encode, list};
use super::{FrameError, Header, Kind, RANGES_MAX, Target};
use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// STATUS: what I hold of your stream and what I miss [3.6].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Status<'a> {
    /// The master that it is for.
    pub target: Target,
    /// Every frame up to and including this number is held.
    pub frontier: u64,
    /// Above this number nothing was missed.
    pub base: u64,
    /// Frames that I can still take.
    pub credit: u32,
    /// How far I am.
    pub state: SyncCode,
    /// Frames that I miss and ask for again, at most [`RANGES_MAX`] ranges.
    pub missing: &'a [MissingRange],
}

/// How far a follower is, as it travels. Any number is valid: one of unknown meaning is not proven.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct SyncCode(pub u8);

impl SyncCode {
    /// Not proven since it started.
    pub const COLD: SyncCode = SyncCode(0);
    /// Is being filled or repaired.
    pub const SYNCING: SyncCode = SyncCode(1);
    /// Proven equal.
    pub const PROVEN: SyncCode = SyncCode(2);
    /// Cannot keep up.
    pub const LAGGING: SyncCode = SyncCode(3);

    /// The word for logs.
    pub const fn name(self) -> &'static str {
        match self {
            SyncCode::COLD => "cold",
            SyncCode::SYNCING => "syncing",
            SyncCode::PROVEN => "proven",
            SyncCode::LAGGING => "lagging",
            _ => "unknown",
        }
    }
}

/// Consecutive numbers of the stream that are missed: at least one, from 1, and none beyond the end of numbers. As it
/// travels.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct MissingRange {
    first: U64,
    length: U32,
}

impl MissingRange {
    /// The `length` numbers from `first` on.
    pub const fn new(first: u64, length: u32) -> Self {
        MissingRange { first: U64::new(first), length: U32::new(length) }
    }

    /// The first number missed.
    pub const fn first(&self) -> u64 {
        self.first.get()
    }

    /// How many are missed.
    pub const fn length(&self) -> u32 {
        self.length.get()
    }

    fn is_valid(&self) -> bool {
        self.first() != 0 && self.length() != 0 && self.first().checked_add(u64::from(self.length())).is_some()
    }
}

/// Writes a whole STATUS frame; otherwise as [`encode_advert`](super::encode_advert).
#[must_use]
pub fn encode_status(slot: &mut [u8], header: Header, status: &Status<'_>) -> Option<usize> {
    if status.missing.len() > RANGES_MAX || !status.is_valid() {
        return None;
    }
    let fixed = RawStatus {
        target: RawTarget::new(status.target),
        frontier: U64::new(status.frontier),
        base: U64::new(status.base),
        credit: U32::new(status.credit),
        state: status.state.0,
        range_count: status.missing.len() as u8,
        zero: U16::ZERO,
    };
    encode(slot, Header { kind: Kind::STATUS, ..header }, [fixed.as_bytes(), status.missing.as_bytes(), &[]])
}

impl<'a> Status<'a> {
    pub(super) fn decode(payload: &'a [u8]) -> Result<Self, FrameError> {
        let (raw, ranges) = RawStatus::ref_from_prefix(payload).map_err(|_| FrameError::StatusLength)?;
        if usize::from(raw.range_count) > RANGES_MAX || raw.zero != U16::ZERO {
            return Err(FrameError::StatusField);
        }
        let status = Status {
            target: raw.target.get().ok_or(FrameError::StatusField)?,
            frontier: raw.frontier.get(),
            base: raw.base.get(),
            credit: raw.credit.get(),
            state: SyncCode(raw.state),
            missing: list(ranges, raw.range_count).ok_or(FrameError::StatusLength)?,
        };
        if status.is_valid() { Ok(status) } else { Err(FrameError::StatusField) }
    }

    fn is_valid(&self) -> bool {
        self.target.is_valid() && self.missing.iter().all(MissingRange::is_valid)
    }
}

/// The fixed part as it travels.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawStatus {
    target: RawTarget,
    frontier: U64,
    base: U64,
    credit: U32,
    state: u8,
    range_count: u8,
    zero: U16,
}

const _: () = assert!(size_of::<RawStatus>() == 40 && size_of::<MissingRange>() == 12);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::NodeId;
    use crate::wire::control::with;

    #[test]
    fn states_have_the_words_of_the_log() {
        let names: Vec<_> = (0..5).map(|code| SyncCode(code).name()).collect();
        assert_eq!(names, ["cold", "syncing", "proven", "lagging", "unknown"]);
    }

    const STATUS_PAYLOAD: [u8; 52] = [
        0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, // target
        0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, // frontier, base
        0, 0, 0, 5, 2, 1, 0, 0, // credit, state, ranges, zero
        0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 7, // missing
    ];

    /// [3.6.5]
    #[test]
    fn a_status_is_written_and_read_field_by_field() {
        let status = Status {
            target: Target { node: NodeId(1), incarnation: 2 },
            frontier: 3,
            base: 4,
            credit: 5,
            state: SyncCode::PROVEN,
            missing: &[MissingRange::new(6, 7)],
        };
        let mut slot = [0xaa; 92];
        assert_eq!(encode_status(&mut slot, Header::default(), &status), Some(92));
        assert_eq!(slot[40..], STATUS_PAYLOAD);
        assert_eq!(slot[5], 3);
        assert_eq!(Status::decode(&STATUS_PAYLOAD), Ok(status));
    }

    #[test]
    fn a_state_of_unknown_meaning_is_kept() {
        let status = with(&STATUS_PAYLOAD, &[(36, 200)]);
        let state = Status::decode(&status).map(|status| status.state);
        assert_eq!(state.map(|state| (state, state.name())), Ok((SyncCode(200), "unknown")));
    }

    #[test]
    fn statuses_of_impossible_shape_are_refused() {
        let refused = |changes: &[(usize, u8)]| Status::decode(&with(&STATUS_PAYLOAD, changes)).err();
        assert_eq!(Status::decode(&STATUS_PAYLOAD[..39]), Err(FrameError::StatusLength));
        assert_eq!(Status::decode(&STATUS_PAYLOAD[..51]), Err(FrameError::StatusLength));
        assert_eq!(refused(&[(37, 0)]), Some(FrameError::StatusLength));
        assert_eq!(refused(&[(37, 2)]), Some(FrameError::StatusLength));
        assert_eq!(refused(&[(37, 65)]), Some(FrameError::StatusField));
        assert_eq!(refused(&[(39, 1)]), Some(FrameError::StatusField));
        assert_eq!(refused(&[(7, 1)]), Some(FrameError::StatusField), "reserved in the target");
        assert_eq!(refused(&[(3, 0)]), Some(FrameError::StatusField), "target node 0");
        assert_eq!(refused(&[(15, 0)]), Some(FrameError::StatusField), "target incarnation 0");
        assert_eq!(refused(&[(47, 0)]), Some(FrameError::StatusField), "first 0");
        assert_eq!(refused(&[(51, 0)]), Some(FrameError::StatusField), "length 0");
        let last = [(40, 255), (41, 255), (42, 255), (43, 255), (44, 255), (45, 255), (46, 255)];
        assert_eq!(refused(&[&last[..], &[(47, 248)]].concat()), None);
        assert_eq!(refused(&[&last[..], &[(47, 249)]].concat()), Some(FrameError::StatusField), "past the end");
    }

    /// An encoder never writes what a receiver would refuse; and what it writes fits the smallest frame that may be
    /// configured, even with a seal's tag of 16 bytes [8].
    #[test]
    fn what_would_be_refused_is_not_written() {
        let target = Target { node: NodeId(1), incarnation: 1 };
        let mut slot = [0; 1208 - 16];
        let mut status = |status: Status<'_>| encode_status(&mut slot, Header::default(), &status);
        let missing = [MissingRange::new(1, 1); 65];
        assert_eq!(status(Status { target, missing: &missing[..64], ..Status::default() }), Some(848));
        assert_eq!(status(Status { target, missing: &missing, ..Status::default() }), None);
        assert_eq!(status(Status { target, missing: &[MissingRange::new(0, 1)], ..Status::default() }), None);
        assert_eq!(status(Status::default()), None, "nobody's");
    }
}
