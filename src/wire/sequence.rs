//! Which control frames of one sender have been seen: a window of 64 numbers (as RFC 4303 section 3.4.3).
//!
//! ```text
//!      refused: too old        judged one by one              taken
//!   ───────────────────────┬──────────────────────────┬─────────────────▶ seq
//!                     highest − 64                 highest
//! ```
//!
//! Looking and remembering are two steps, because between them the frame has to prove that it is real: a forged number
//! that was remembered would make us refuse the true one.

use super::FrameError;
use crate::planted::{Plant, planted};

/// The last 64 numbers of one sender's control frames, each seen or not.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ReplayWindow {
    /// Highest number marked; 0 before the first.
    highest: u64,
    /// Bit n: number `highest - n` was marked.
    seen: u64,
}

impl ReplayWindow {
    /// Numbers that the window can tell apart.
    pub const WIDTH: u64 = 64;

    /// The window of a sender that is heard for the first time, or for the first time again, with this number: what came
    /// before it is taken for seen, because it may be a recording of what was taken before the sender was forgotten.
    pub fn starting_at(seq: u64) -> Self {
        ReplayWindow { highest: seq, seen: u64::MAX }
    }

    /// Whether a frame of this number may be taken. Changes nothing.
    ///
    /// # Errors
    /// [`FrameError::Replayed`] if the number was marked before, is 64 or more below the highest, or is 0.
    pub fn test(&self, seq: u64) -> Result<(), FrameError> {
        let fresh = match self.highest.checked_sub(seq) {
            _ if seq == 0 => false,
            None => true,
            Some(age) => age < Self::WIDTH + u64::from(planted(Plant::ReplayEdge)) && self.seen & (1 << age) == 0,
        };
        if fresh { Ok(()) } else { Err(FrameError::Replayed) }
    }

    /// Remembers that a frame of this number was taken. A number too old for the window, and 0, leave it as it is.
    pub fn mark(&mut self, seq: u64) {
        match self.highest.checked_sub(seq) {
            _ if seq == 0 => {}
            None => {
                let ahead = seq - self.highest;
                self.seen = if ahead < Self::WIDTH { self.seen << ahead | 1 } else { 1 };
                self.highest = seq;
            }
            Some(age) if age < Self::WIDTH => self.seen |= 1 << age,
            Some(_) => {}
        }
    }

    /// The highest number marked; 0 if there was none.
    pub fn highest(&self) -> u64 {
        self.highest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const REPLAYED: Result<(), FrameError> = Err(FrameError::Replayed);

    /// [3.4.3]
    #[test]
    fn what_came_before_the_first_number_counts_as_taken() {
        let window = ReplayWindow::starting_at(100);
        assert_eq!([37, 99, 100].map(|seq| window.test(seq)), [REPLAYED; 3]);
        assert_eq!(window.test(101), Ok(()));
    }

    /// [3.4.3]
    #[test]
    fn a_number_is_taken_once() {
        let mut window = ReplayWindow::default();
        assert_eq!(window.highest(), 0);
        assert_eq!(window.test(7), Ok(()));
        assert_eq!(window.test(7), Ok(()), "a test alone remembers nothing");
        window.mark(7);
        assert_eq!(window.test(7), REPLAYED);
        assert_eq!(window.highest(), 7);
        window.mark(3);
        assert_eq!(window.highest(), 7);
        assert_eq!(window.test(3), REPLAYED);
        assert_eq!(window.test(4), Ok(()));
    }

    #[test]
    fn zero_is_no_number() {
        let mut window = ReplayWindow::default();
        assert_eq!(window.test(0), REPLAYED);
        window.mark(0);
        assert_eq!(window, ReplayWindow::default());
    }

    /// [3.4.3]
    #[test]
    fn the_window_has_64_numbers() {
        let mut window = ReplayWindow::default();
        window.mark(100);
        assert_eq!(window.test(37), Ok(()));
        assert_eq!(window.test(36), REPLAYED);
        window.mark(37);
        assert_eq!(window.test(37), REPLAYED);
        window.mark(36);
        assert_eq!(window.test(38), Ok(()), "a mark below the window touches nothing");
    }

    #[test]
    fn a_leap_forgets_what_it_leaves_behind_and_no_more() {
        let mut window = ReplayWindow::default();
        window.mark(1);
        window.mark(64);
        assert_eq!(window.test(1), REPLAYED);
        assert_eq!(window.test(2), Ok(()));
        window.mark(128);
        assert_eq!(window.test(65), Ok(()));
        assert_eq!(window.test(64), REPLAYED);
        window.mark(u64::MAX);
        assert_eq!(window.test(u64::MAX), REPLAYED);
        assert_eq!(window.test(u64::MAX - 1), Ok(()));
    }

    proptest! {
        /// Against a set that remembers everything.
        #[test]
        fn it_agrees_with_a_set_that_remembers_everything(numbers in prop::collection::vec(0_u64..300, 1..200)) {
            let mut window = ReplayWindow::default();
            let mut seen = BTreeSet::new();
            for seq in numbers {
                let highest = seen.last().copied().unwrap_or(0);
                let fresh = seq != 0 && !seen.contains(&seq) && seq + 64 > highest;
                prop_assert_eq!(window.test(seq).is_ok(), fresh);
                if fresh {
                    window.mark(seq);
                    seen.insert(seq);
                }
            }
        }
    }
}
