//! Whether the honest nodes live the same story with an attacker on their network as without one.
//!
//! ```text
//!   the world without the attacker ─▶ what was told and sent, step by step ─┐ must be equal, and at the same moments
//!   the same world with it         ─▶ what was told and sent, step by step ─┘
//! ```
//!
//! A step is a line of the story (roles, peers, terms, proofs, faults) or a frame that a node has sent, with its bytes. So
//! whatever an engine keeps to itself shows as soon as it makes any difference to anybody.

use crate::time::Instant;

/// The steps of a world.
#[derive(Debug, Default)]
pub(super) struct Story {
    steps: Vec<u64>,
    /// Those of the same world without an attacker.
    known: Option<Known>,
}

/// A story that was told before.
#[derive(Debug)]
struct Known {
    steps: Vec<u64>,
    /// It broke off, because a promise was broken.
    broke_off: bool,
    at: usize,
}

impl Story {
    /// The world that is to be told again.
    pub(super) fn told_again(self, broke_off: bool) -> Story {
        Story { steps: Vec::new(), known: Some(Known { steps: self.steps, broke_off, at: 0 }) }
    }

    /// A line was told; `digest` is that of all of them so far. Whether it is the same as before.
    pub(super) fn line(&mut self, digest: u64) -> bool {
        self.step(digest)
    }

    /// A node has sent a frame. Whether it is the same as before.
    pub(super) fn frame(&mut self, now: Instant, node: usize, frame: &[u8]) -> bool {
        let print = u64::from(crc32fast::hash(frame)) << 16 | frame.len() as u64;
        self.step(now.as_nanos().rotate_left(24) ^ print ^ (node as u64) << 60)
    }

    fn step(&mut self, step: u64) -> bool {
        let Some(known) = &mut self.known else {
            self.steps.push(step);
            return true;
        };
        known.at += 1;
        known.steps.get(known.at - 1).map_or(known.broke_off, |before| *before == step)
    }

    /// Steps that were told before and have not been told again.
    pub(super) fn untold(&self) -> usize {
        self.known.as_ref().map_or(0, |known| known.steps.len().saturating_sub(known.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> Story {
        let mut story = Story::default();
        assert!(story.line(5));
        assert!(story.frame(Instant::from_nanos(7), 1, b"frame"));
        story
    }

    #[test]
    fn the_same_steps_are_equal_and_any_other_is_not() {
        let mut again = told().told_again(false);
        assert!(again.line(5));
        assert_eq!(again.untold(), 1);
        assert!(again.frame(Instant::from_nanos(7), 1, b"frame"));
        assert_eq!(again.untold(), 0);
        assert!(!again.line(6), "one step more");
        assert!(!told().told_again(false).line(6));
        let other = |at, node, frame: &[u8]| {
            let mut again = told().told_again(false);
            again.line(5) && again.frame(Instant::from_nanos(at), node, frame)
        };
        assert!(!other(8, 1, b"frame") && !other(7, 2, b"frame") && !other(7, 1, b"Frame"));
    }

    #[test]
    fn what_broke_off_is_equal_up_to_there() {
        let mut again = told().told_again(true);
        assert!(again.line(5) && again.frame(Instant::from_nanos(7), 1, b"frame") && again.line(9));
    }
}
