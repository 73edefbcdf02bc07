//! All who look on while a world runs: the oracle, the story, what was seen, and how much happened.

use super::coverage::{Coverage, Seen};
use super::oracle::{Oracle, Violation};
use super::story::Story;
use super::trace::Trace;
use crate::time::Instant;

/// See the module.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) oracle: Oracle,
    pub(super) trace: Trace,
    /// Where the attacker must make no difference: what was told and sent.
    pub(super) story: Option<Story>,
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
            story: None,
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
        self.trace.tell(now, text);
        if self.story.as_mut().is_some_and(|story| !story.line(self.trace.digest())) {
            self.violated(now, "attack", format!("without the attacker this was not told: {text}"));
        }
    }

    /// A frame has left a node.
    pub(super) fn left(&mut self, now: Instant, node: usize, frame: &[u8]) {
        if self.story.as_mut().is_some_and(|story| !story.frame(now, node, frame)) {
            // Byte 5 is the kind, bytes 24 to 31 the number.
            let (kind, number) = (frame.get(5), frame.get(24..32));
            let text = format!("without the attacker node {node} did not send this: kind {kind:?}, number {number:x?}");
            self.violated(now, "attack", text);
        }
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
