//! One slot of the table: 64 bytes, one cache line.
//!
//! ```text
//!  0 ┌─────────────────────────────────────────────┐
//!    │ record: key 16 bytes, value 24 bytes        │  what the digest covers, see record.rs
//! 40 ├──────────────────────┬──────────┬───────────┤
//!    │ version 8            │deadline 4│ links 4   │  version = stream ordinal << 48 | number
//! 56 ├──────────┬─────┬─────┼─────┬────┴┬──────────┘
//!    │      + 4 │kind │place│flags│dump │
//! 64 └──────────┴─────┴─────┴─────┴─────┘
//! ```

use super::lists::{Linked, Links};
use super::record::Record;
use crate::time::Instant;

/// The highest stream number that a version can carry: 48 bits, nine years at a million frames a second.
pub(super) const MAX_NUMBER: u64 = (1 << 48) - 1;

/// When a value was said: in which of the streams that this table has followed, and in which frame of it.
///
/// Ordering is age: everything of a former stream is older than all of a later one [4.1].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct Version(u64);

impl Version {
    /// Frame `number` of the stream that was followed `ordinal`-th. Numbers beyond 48 bits count as the highest.
    pub(super) const fn new(ordinal: u16, number: u64) -> Self {
        let number = if number < MAX_NUMBER { number } else { MAX_NUMBER };
        Version((ordinal as u64) << 48 | number)
    }

    /// The stream, as they are counted.
    pub(super) const fn ordinal(self) -> u16 {
        (self.0 >> 48) as u16
    }

    /// The frame's stream number.
    pub(super) const fn number(self) -> u64 {
        self.0 & MAX_NUMBER
    }
}

/// What a slot holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub(super) enum Kind {
    /// Nothing.
    #[default]
    Empty,
    /// A flow.
    Live,
    /// A flow that is gone, while the wire or the sink has yet to hear of it.
    Dead,
}

/// The one list that an entry is on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub(super) enum Place {
    /// None: nobody has to hear of it.
    #[default]
    Nowhere,
    /// It must be sent.
    Wire,
    /// It must go to the sink.
    Sink,
}

/// Created by [`super::Table::put`] and in no frame yet; only ever set on the wire list.
pub(super) const UNSENT: u8 = 1 << 0;
/// A dead entry that counts as a tombstone, until it is buried with the others or freed.
pub(super) const TOMBSTONE: u8 = 1 << 1;
/// On the wire list, and goes on to the sink list from there.
pub(super) const OWED: u8 = 1 << 2;
/// The own source, or a merge, has said something of it; in the present mastership, if `version` is of that or it waits for
/// the wire.
pub(super) const SAID: u8 = 1 << 5;
/// Its clock is a word of the own source, valid as [`SAID`] is. Without it, it is a copy's still: the source may name it with
/// the margin that the sink was given.
pub(super) const OWN: u8 = 1 << 3;
/// Found in a sink that others write to as well; until a stream names it, it may be somebody else's.
pub(super) const FOUND: u8 = 1 << 4;

/// One slot.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
pub(super) struct Entry {
    pub(super) record: Record,
    pub(super) version: Version,
    /// Second at which its time is over, see [`deadline`].
    pub(super) deadline: u32,
    /// Neighbours on the list that `place` names; of an empty slot, `next` is the next free one.
    pub(super) links: Links,
    pub(super) kind: Kind,
    pub(super) place: Place,
    pub(super) flags: u8,
    /// The dump or audit that named it last.
    pub(super) dump: u8,
}

const _: () = assert!(size_of::<Entry>() == 64 && align_of::<Entry>() == 64);

impl Linked for Entry {
    fn links(&mut self) -> &mut Links {
        &mut self.links
    }
}

impl Entry {
    pub(super) fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub(super) fn set(&mut self, flag: u8) {
        self.flags |= flag;
    }

    pub(super) fn clear(&mut self, flag: u8) {
        self.flags &= !flag;
    }

    /// Whole seconds that are left at `now`; 0 when the time is over.
    pub(super) fn remaining(&self, now: Instant) -> u32 {
        u64::from(self.deadline).saturating_sub(second_not_before(now)) as u32
    }

    /// Whether the time is over at `now`.
    pub(super) fn expired(&self, now: Instant) -> bool {
        now.as_secs() >= u64::from(self.deadline)
    }

    /// Whether somebody who was told this clock has to be told `timeout`: it is more than twice what is left [4.6].
    pub(super) fn needs_refresh(&self, timeout: u32, now: Instant) -> bool {
        u64::from(timeout) > 2 * u64::from(self.remaining(now))
    }
}

/// The second at which an entry dies that has `timeout` seconds left at `now`. A start within a second counts from the
/// end of it, so that nothing dies early; the last second that fits (136 years) is the latest.
pub(super) fn deadline(timeout: u32, now: Instant) -> u32 {
    u32::try_from(second_not_before(now) + u64::from(timeout)).unwrap_or(u32::MAX)
}

fn second_not_before(now: Instant) -> u64 {
    now.as_nanos().div_ceil(1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Instant {
        Instant::from_nanos(milliseconds * 1_000_000)
    }

    #[test]
    fn a_former_stream_is_older_whatever_its_numbers() {
        assert!(Version::new(1, MAX_NUMBER) < Version::new(2, 0));
        assert!(Version::new(2, 7) < Version::new(2, 8));
        assert_eq!(Version::new(2, 8).number(), 8);
        assert_eq!(Version::new(3, u64::MAX), Version::new(3, MAX_NUMBER));
    }

    #[test]
    fn nothing_dies_early_and_nothing_lives_a_second_too_long() {
        let entry = Entry { deadline: deadline(10, at(500)), ..Entry::default() };
        assert_eq!(entry.remaining(at(500)), 10);
        assert_eq!(entry.remaining(at(10_500)), 0);
        assert!(!entry.expired(at(10_500)));
        assert!(!entry.expired(at(10_999)));
        assert!(entry.expired(at(11_000)));
        let sharp = Entry { deadline: deadline(10, at(3_000)), ..Entry::default() };
        assert!(!sharp.expired(at(12_999)));
        assert!(sharp.expired(at(13_000)));
        assert_eq!(sharp.remaining(at(90_000)), 0);
    }

    #[test]
    fn the_latest_deadline_is_a_wall() {
        assert_eq!(deadline(u32::MAX, at(5_000)), 4_294_967_295);
        assert_eq!(deadline(4_294_967_290, at(5_000)), 4_294_967_295);
        assert_eq!(deadline(4_294_967_289, at(5_000)), 4_294_967_294);
    }

    #[test]
    fn a_refresh_is_due_past_half_and_not_before() {
        let entry = Entry { deadline: 100, ..Entry::default() };
        assert!(!entry.needs_refresh(100, at(50_000)));
        assert!(entry.needs_refresh(101, at(50_000)));
        assert!(entry.needs_refresh(1, at(100_000)));
        assert!(!entry.needs_refresh(0, at(100_000)));
        let long = Entry { deadline: u32::MAX, ..Entry::default() };
        assert!(!long.needs_refresh(u32::MAX, at(0)), "twice the longest time does not wrap");
    }
}
