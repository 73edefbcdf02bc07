//! The checks that a frame goes through, one by one, for people: which it passed, and at which it ended.
//!
//! ```text
//!   whole ✓   version ✓   checksum ✗ the checksum does not fit the bytes   sender –   seal –   …
//! ```

use super::{Frame, FrameError};

/// What became of one check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The frame passed it.
    Passed,
    /// The frame was refused by it.
    Failed(FrameError),
    /// The frame was refused before.
    NotReached,
}

/// One check of [`Frame::parse`] or [`Frame::verify`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Check {
    /// Its word.
    pub name: &'static str,
    /// What it asks.
    pub question: &'static str,
    /// What became of it.
    pub outcome: Outcome,
}

/// Number of checks.
pub const CHECKS: usize = 8;

/// Every check in its order, what it asks, and the last of the reasons for which it refuses.
const STAGES: [(&str, &str, FrameError); CHECKS] = [
    ("whole", "did it arrive whole", FrameError::SizeMismatch),
    ("version", "is it of this version", FrameError::UnknownVersion),
    ("checksum", "is it undamaged", FrameError::Checksum),
    ("sender", "does it name its sender and its number", FrameError::ZeroSequence),
    ("seal", "can it be opened", FrameError::Sealed),
    ("flags", "are its flags known", FrameError::UnknownFlags),
    ("kind", "is its kind known", FrameError::UnknownKind),
    ("payload", "is every record and count of it right", FrameError::UnknownPull),
];

/// Has a frame checked as a receiver would. (What only a receiver in a group can know, such as its own number and what it
/// has seen before, is not asked.)
pub fn checks(bytes: &[u8]) -> [Check; CHECKS] {
    let error = Frame::parse(bytes).and_then(Frame::verify).err();
    let failed = error.and_then(|error| STAGES.iter().position(|(_, _, last)| error <= *last));
    let mut at = 0;
    STAGES.map(|(name, question, _)| {
        let outcome = match (failed, error) {
            (Some(failed), Some(error)) if failed == at => Outcome::Failed(error),
            (Some(failed), _) if failed < at => Outcome::NotReached,
            _ => Outcome::Passed,
        };
        at += 1;
        Check { name, question, outcome }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The word of the check that refuses, and how many are not reached.
    fn verdict(bytes: &[u8]) -> (Option<(&'static str, FrameError)>, usize) {
        let all = checks(bytes);
        let failed = all.iter().find_map(|check| match check.outcome {
            Outcome::Failed(error) => Some((check.name, error)),
            _ => None,
        });
        (failed, all.iter().filter(|check| check.outcome == Outcome::NotReached).count())
    }

    #[test]
    fn a_refused_frame_ends_at_the_check_that_refuses_it() {
        assert_eq!(verdict(&[]), (Some(("whole", FrameError::Truncated)), 7));
        let mut frame = [0; 40];
        (frame[3], frame[4]) = (40, 2);
        assert_eq!(verdict(&frame), (Some(("version", FrameError::UnknownVersion)), 6));
        frame[4] = 1;
        assert_eq!(verdict(&frame), (Some(("checksum", FrameError::Checksum)), 5));
    }

    /// Each reason that this room raises belongs to one check; those that only an engine raises come later.
    #[test]
    fn the_stages_are_in_the_order_of_the_reasons() {
        assert!(STAGES.is_sorted_by_key(|(_, _, last)| *last));
        assert!(FrameError::UnknownPull < FrameError::WrongGroup);
    }
}
