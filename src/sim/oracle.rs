//! Who watches: plain maps built from what goes in and out of the nodes, and nothing of the engines' own books.
//!
//! The world calls these in the order in which things happen. What an engine says of itself (role, frontier, in sync) is a
//! claim here, to be held against the maps.

use super::coverage::Coverage;
use crate::engine::{Ack, DurabilityFailed, Engine, Event, Ticket};
use crate::flow::{Change, SectionChange};
use crate::time::Instant;

/// A promise that was broken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which promise, by its short name.
    pub rule: &'static str,
    /// What was seen.
    pub text: String,
    /// When, in virtual time.
    pub at: Instant,
}

/// Everything that is known of the nodes from outside. Nodes are numbered from 0.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    violation: Option<Violation>,
}

impl Oracle {
    pub(super) fn new(nodes: usize) -> Self {
        let _ = nodes;
        Oracle::default()
    }

    /// The first promise that was broken; the run ends there.
    pub(super) fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// A node's engine was built (first start, or after a crash); `preloaded` is what it was filled with.
    pub(super) fn started(&mut self, now: Instant, node: usize, engine: &Engine) {
        let _ = (now, node, engine);
    }

    /// A node's engine is gone, with everything in it.
    pub(super) fn stopped(&mut self, now: Instant, node: usize) {
        let _ = (now, node);
    }

    /// A frame left a node for the first time or again.
    pub(super) fn sent(&mut self, now: Instant, node: usize, engine: &Engine, frame: &[u8]) {
        let _ = (now, node, engine, frame);
    }

    /// A frame is about to be handed to a node.
    pub(super) fn before_frame(&mut self, now: Instant, node: usize, engine: &Engine, frame: &[u8]) {
        let _ = (now, node, engine, frame);
    }

    /// The frame was handed to it.
    pub(super) fn after_frame(&mut self, now: Instant, node: usize, engine: &Engine, frame: &[u8]) {
        let _ = (now, node, engine, frame);
    }

    /// The node's source told its engine of a change, and the engine took it.
    pub(super) fn updated(&mut self, now: Instant, node: usize, change: &Change, ticket: Option<(Ticket, Ack)>) {
        let _ = (now, node, change, ticket);
    }

    /// The node's owner changed a section, and the engine took it.
    pub(super) fn section_updated(
        &mut self,
        now: Instant,
        node: usize,
        change: &SectionChange,
        ticket: Option<(Ticket, Ack)>,
    ) {
        let _ = (now, node, change, ticket);
    }

    /// A complete dump of the node's source was told to its engine: every flow was given by `updated`, and what was not
    /// named is dead.
    pub(super) fn dumped(&mut self, now: Instant, node: usize) {
        let _ = (now, node);
    }

    /// The node's engine gave a change to its sink.
    pub(super) fn applied(&mut self, now: Instant, node: usize, engine: &Engine, change: &Change) {
        let _ = (now, node, engine, change);
    }

    /// The node's engine gave a change of a section to its owner.
    pub(super) fn section_applied(&mut self, now: Instant, node: usize, engine: &Engine, change: &SectionChange) {
        let _ = (now, node, engine, change);
    }

    /// A ticket was resolved.
    pub(super) fn resolved(&mut self, now: Instant, node: usize, ticket: Ticket, result: Result<(), DurabilityFailed>) {
        let _ = (now, node, ticket, result);
    }

    /// A node's engine said that something happened.
    pub(super) fn event(&mut self, now: Instant, node: usize, engine: &Engine, event: &Event) {
        let _ = (now, node, engine, event);
    }

    /// After each turn of a node: what must hold at every moment.
    pub(super) fn turned(&mut self, now: Instant, node: usize, engine: &Engine) {
        let _ = (now, node, engine);
    }

    /// The liveness phase is over: everything must be equal and proven. `engines` are the running ones.
    pub(super) fn ended(&mut self, now: Instant, engines: &[(usize, &Engine)]) {
        let _ = (now, engines);
    }

    /// Engines' counters and the oracle's own sightings, by name.
    pub(super) fn cover(&self, coverage: &mut Coverage) {
        let _ = coverage;
    }
}
