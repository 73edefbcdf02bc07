//! What the demo says while it runs: a line a step, with the time since its start. Silent where only the figures are
//! wanted.

use core::fmt::Display;
use std::io::Write;
use std::time::{Duration, Instant};

/// Says what happens.
#[derive(Debug)]
pub(super) struct Narrator {
    started: Instant,
    silent: bool,
}

impl Narrator {
    /// Begins to count the time.
    pub(super) fn new(silent: bool) -> Self {
        Narrator { started: Instant::now(), silent }
    }

    /// One step.
    pub(super) fn say(&self, words: impl Display) {
        if !self.silent {
            line(format_args!("[{:5.2} s] {words}", self.elapsed().as_secs_f64()));
        }
    }

    /// A line that belongs to the step before.
    pub(super) fn add(&self, words: impl Display) {
        if !self.silent {
            line(format_args!("          {words}"));
        }
    }

    /// Text that stands for itself.
    pub(super) fn print(&self, text: impl Display) {
        if !self.silent {
            line(text);
        }
    }

    /// Time since the start.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

/// One line to standard output. A reader who has gone away is no reason to stop: the exit status still says the
/// verdict.
pub(super) fn line(text: impl Display) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// A number as people read it: 1,000.
pub(super) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn thousands_are_grouped_from_the_right() {
        assert_eq!(
            [0, 7, 999, 1000, 262_144, 1_048_576].map(number),
            ["0", "7", "999", "1,000", "262,144", "1,048,576"]
        );
    }
}
