//! The checks that a frame goes through, one by one, for people: which it passed, and at which it ended.
//!
//! ```text
//!   SSYNCP/1   whole ✓   version ✓   checksum ✗ the checksum does not fit the bytes   sender –   seal –   …
//!   sealed     whole ✓   version ✓   checksum ✓   sender ✓   seal ✓ opened with secret 2   flags ✓   …
//!   classic    whole ✓   version ✓   checksum ✓   payload ✓
//! ```

use super::classic::{self, Message};
use super::{Frame, FrameError, Secret, unseal};

/// What became of one check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The frame passed it.
    Passed,
    /// The frame passed it: it was sealed, and the secret of this number opened it.
    Opened(u8),
    /// The frame was refused by it.
    Failed(FrameError),
    /// The frame was refused before.
    NotReached,
}

/// One check of [`Frame::parse`] or [`Frame::verify`], or of the classic profile's [`Message`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Check {
    /// Its word.
    pub name: &'static str,
    /// What it asks.
    pub question: &'static str,
    /// What became of it.
    pub outcome: Outcome,
}

/// What a check is.
struct Stage {
    name: &'static str,
    question: &'static str,
    /// The last of the reasons for which it refuses, in the order of [`FrameError::ALL`].
    last: FrameError,
    /// Whether messages of the classic profile go through it, too.
    classic: bool,
}

const fn stage(name: &'static str, question: &'static str, last: FrameError, classic: bool) -> Stage {
    Stage { name, question, last, classic }
}

/// The check that opens.
const SEAL: &str = "seal";

/// Every check in its order.
const STAGES: [Stage; 8] = [
    stage("whole", "did it arrive whole", FrameError::SizeMismatch, true),
    stage("version", "is its version known", FrameError::UnknownVersion, true),
    stage("checksum", "is it undamaged", FrameError::Checksum, true),
    stage("sender", "does it name its sender and its number", FrameError::ZeroSequence, false),
    stage(SEAL, "can it be opened", FrameError::Untried, false),
    stage("flags", "are its flags known", FrameError::UnknownFlags, false),
    stage("kind", "is its kind known", FrameError::UnknownKind, false),
    stage("payload", "is every record and count of it right", FrameError::RecordsField, true),
];

/// Has a frame checked as a receiver with these secrets would, of the classic profile if it says that it is of that. (What
/// only a receiver in a group can know, such as its own number and what it has seen before, is not asked; and a frame that
/// is not sealed passes, whatever secrets there are.)
pub fn checks(bytes: &[u8], secrets: &[Secret]) -> Vec<Check> {
    let classic = classic::claims(bytes);
    let mut copy = bytes.to_vec();
    let (error, opened) = match classic {
        true => (Message::parse(bytes).and_then(Message::verify).err(), None),
        false => match unseal(secrets, &mut copy) {
            Ok(frame) => (frame.verify().err(), seal_of(&frame)),
            Err(error) => (Some(error), None),
        },
    };
    let stages: Vec<&Stage> = STAGES.iter().filter(|stage| stage.classic || !classic).collect();
    let failed = error.map(|error| {
        let at = stages.iter().position(|stage| error <= stage.last);
        (at.unwrap_or(stages.len() - 1), error)
    });
    let outcome = |at| match failed {
        Some((failed, error)) if failed == at => Outcome::Failed(error),
        Some((failed, _)) if failed < at => Outcome::NotReached,
        _ => match opened.filter(|_| stages[at].name == SEAL) {
            Some(id) => Outcome::Opened(id),
            None => Outcome::Passed,
        },
    };
    let check =
        |(at, stage): (usize, &&Stage)| Check { name: stage.name, question: stage.question, outcome: outcome(at) };
    stages.iter().enumerate().map(check).collect()
}

/// Number of the secret that sealed a frame.
fn seal_of(frame: &Frame<'_>) -> Option<u8> {
    let flags = frame.header().flags;
    flags.is_sealed().then(|| flags.key_id())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The word of the check that refuses, and how many are not reached.
    fn verdict(bytes: &[u8]) -> (Option<(&'static str, FrameError)>, usize) {
        let all = checks(bytes, &[]);
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

    /// What is wrong with a payload of the last kinds that there are is a check that failed, and no frame without fault.
    #[test]
    fn every_reason_for_a_payload_is_the_payloads() {
        let file = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/pcap/refused-records-field.pcap")).unwrap();
        // Behind the headers of the file, of the packet, and of IPv4.
        let frame = &file[24 + 16 + 20..];
        assert_eq!(verdict(frame), (Some(("payload", FrameError::RecordsField)), 0));
    }

    #[test]
    fn a_message_of_the_draft_has_checks_of_its_own() {
        let mut message = [0, 51, 0, 8, 0, 0, 0xff, 0xc4];
        let passed = |message: &[u8]| {
            let all = checks(message, &[]);
            all.iter().map(|check| (check.name, check.outcome == Outcome::Passed)).collect::<Vec<_>>()
        };
        assert_eq!(passed(&message), [("whole", true), ("version", true), ("checksum", true), ("payload", true)]);
        message[7] = 0xc5;
        assert_eq!(verdict(&message), (Some(("checksum", FrameError::Checksum)), 1));
        (message[0], message[6], message[7]) = (1, 0xfe, 0xc4);
        assert_eq!(verdict(&message), (Some(("payload", FrameError::CountMismatch)), 0));
        message[5] = 1;
        assert_eq!(verdict(&message), (Some(("version", FrameError::UnknownVersion)), 6), "nobody's version");
    }

    /// Each reason that this room raises belongs to one check; those that only an engine raises come later.
    #[test]
    fn the_stages_are_in_the_order_of_the_reasons_and_leave_none_out() {
        assert!(STAGES.is_sorted_by_key(|stage| stage.last));
        let last = FrameError::ALL.iter().position(|reason| *reason == FrameError::RecordsField).unwrap();
        assert_eq!((STAGES[7].last, FrameError::ALL[last + 1]), (FrameError::RecordsField, FrameError::WrongGroup));
    }
}
