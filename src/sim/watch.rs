//! All who look on while a world runs: the oracle, the story, what was seen, and how much happened.

use super::coverage::{Coverage, Seen};
use super::oracle::{Oracle, Violation};
use super::trace::Trace;
use crate::time::Instant;

/// See the module.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) oracle: Oracle,
    pub(super) trace: Trace,
    pub(super) coverage: Coverage,
    /// Changes that engines took, frames that were handed to nodes, and faults of both network and nodes.
    pub(super) operations: u64,
    /// What the world itself saw that must not be.
    violation: Option<Violation>,
}

impl Watch {
    pub(super) fn new(nodes: usize, keep_lines: bool) -> Self {
        Watch {
            oracle: Oracle::new(nodes),
            trace: Trace::new(keep_lines),
            coverage: Coverage::default(),
            operations: 0,
            violation: None,
        }
    }

    /// Something of a kind that a batch must have seen; it counts as an operation.
    pub(super) fn happened(&mut self, seen: Seen) {
        self.operations += 1;
        self.coverage.note(seen);
    }

    /// The same for what is no operation.
    pub(super) fn saw(&mut self, name: &'static str) {
        self.coverage.note(Seen(name));
    }

    /// A line of the story.
    pub(super) fn tell(&mut self, now: Instant, text: std::fmt::Arguments<'_>) {
        self.trace.line(now, &text.to_string());
    }

    /// The world itself saw what must not be.
    pub(super) fn violated(&mut self, now: Instant, rule: &'static str, text: String) {
        self.violation.get_or_insert(Violation { rule, text, at: now });
    }

    /// The first promise that was broken.
    pub(super) fn violation(&self) -> Option<&Violation> {
        self.oracle.violation().or(self.violation.as_ref())
    }

    #[cfg(test)]
    pub(super) fn count(&self, name: &str) -> u64 {
        self.coverage.iter().find(|(known, _)| *known == name).map_or(0, |(_, count)| count)
    }
}
