//! Who watches: plain maps built from what goes in and out of the nodes, and nothing of the engines' own books.
//!
//! The world calls these in the order in which things happen; `now` is always the world's time, never a node's clock. What an engine says of itself (role, frontier, in sync) is a
//! claim here, to be held against the maps.

use super::coverage::Coverage;
use crate::engine::{Ack, Config, DurabilityFailed, Engine, Event, Ticket};
use crate::flow::{Change, Flow, SectionChange};
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

/// How a running node ended.
#[derive(Debug)]
pub(super) struct End<'a> {
    pub(super) node: usize,
    pub(super) engine: &'a Engine,
    /// What its kernel holds.
    pub(super) kernel: Vec<Flow>,
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

    /// A node's engine was built (first start, or after a crash), and filled with what its kernel held, if it was.
    pub(super) fn started(&mut self, now: Instant, node: usize, engine: &Engine, config: &Config) {
        let _ = (now, node, engine, config);
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
    pub(super) fn updated(
        &mut self,
        now: Instant,
        node: usize,
        engine: &Engine,
        change: &Change,
        ticket: Option<(Ticket, Ack)>,
    ) {
        let _ = (now, node, engine, change, ticket);
    }

    /// The node's owner changed a section, and the engine took it.
    pub(super) fn section_updated(
        &mut self,
        now: Instant,
        node: usize,
        engine: &Engine,
        change: &SectionChange,
        ticket: Option<(Ticket, Ack)>,
    ) {
        let _ = (now, node, engine, change, ticket);
    }

    /// `begin_dump` was called.
    pub(super) fn dump_began(&mut self, now: Instant, node: usize, engine: &Engine) {
        let _ = (now, node, engine);
    }

    /// `end_dump` was called: every flow of the node's source was given by `updated` since the dump began, and what was not
    /// named is dead.
    pub(super) fn dumped(&mut self, now: Instant, node: usize, engine: &Engine) {
        let _ = (now, node, engine);
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

    /// After `handle_timeout`, `handle_committed`, `set_role` and whatever else may change a role or a stream, and at the end
    /// of each turn: what must hold at every moment.
    pub(super) fn turned(&mut self, now: Instant, node: usize, engine: &Engine) {
        let _ = (now, node, engine);
    }

    /// All is equal and nothing changes any more: from here to `ended` (some seconds) only heartbeats may travel.
    pub(super) fn quiet(&mut self, now: Instant) {
        let _ = now;
    }

    /// The liveness phase is over: everything must be equal and proven.
    pub(super) fn ended(&mut self, now: Instant, ends: &[End<'_>]) {
        let _ = (now, ends);
    }

    /// Engines' counters and the oracle's own sightings, by name.
    pub(super) fn cover(&self, coverage: &mut Coverage) {
        let _ = coverage;
    }
}
