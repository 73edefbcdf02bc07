//! Who watches: plain maps built from what goes in and out of the nodes, and nothing of the engines' own books.
//!
//! ```text
//!   source ─ updated ▶ shadow of the master ═ must be what its frames say ═▶ print of the stream at n
//!                                                                              ║ must be equal, where one claims it
//!   frames ─ before, after ▶ shadow of a follower (last word wins) ════════════╝
//!   sink   ◀ applied ─ must be what the shadow holds;  engine.flows() ─ must be the shadow, whenever it is looked at
//! ```
//!
//! The world calls these in the order in which things happen; `now` is always the world's time, never a node's clock. What an
//! engine says of itself (role, frontier, in sync) is a claim here, to be held against the maps. A step costs as much as
//! there is in its frame; tables are compared whole at proofs, and so often that it comes to the same.
//!
//! `stream` judges what is said and what becomes of it, `proof` what is claimed and what vanishes, `acks` tickets, `roles` and
//! `mastership` who is master, `merge` what two tables owe each other, `heed` who counts for whom, `attack` who was believed, `bounds` sizes and the end.

mod acks;
mod attack;
mod bounds;
mod heed;
mod mastership;
mod merge;
mod node;
mod prints;
mod proof;
mod roles;
mod sent;
mod shadow;
mod stream;
#[cfg(test)]
mod tests;

use super::coverage::{Coverage, Seen};
use crate::engine::{Ack, Config, DurabilityFailed, Engine, Event, Ticket};
use crate::flow::{Change, Flow, FlowKey, SectionChange, SectionKey};
use crate::time::{Duration, Instant};
use acks::Tickets;
pub use attack::Attacks;
use attack::Seals;
use node::Node;
use prints::{Label, Map, Name, Value};
use roles::Hearing;
use sent::Sent;
use std::collections::BTreeSet;

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
    /// What its kernel holds, if that is to be what its table holds: a master's is, and that of a backup which writes all the
    /// time.
    pub(super) kernel: Option<Vec<Flow>>,
}

/// Everything that is known of the nodes from outside. Nodes are numbered from 0.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    violation: Option<Violation>,
    nodes: Vec<Node>,
    sent: Sent,
    names: Map<Name, Label>,
    /// Values of sections that go by themselves, and when they may at the earliest.
    expiring: Map<(Name, Value), Instant>,
    tickets: Tickets,
    hearing: Hearing,
    /// Somebody was asked to hand the role over, so that an heir may take it from a living master.
    handovers: bool,
    /// When the quiet at the end began.
    quiet_since: Option<Instant>,
    /// Who has sealed what, and what was believed of it.
    seals: Seals,
    /// What was seen here and nowhere else.
    sightings: BTreeSet<&'static str>,
}

impl Oracle {
    pub(super) fn new(nodes: usize) -> Self {
        let hearing = Hearing::new(nodes);
        Oracle { nodes: (0..nodes).map(|_| Node::default()).collect(), hearing, ..Oracle::default() }
    }

    /// The first promise that was broken; the run ends there.
    pub(super) fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    fn broken(&mut self, now: Instant, rule: &'static str, text: String) {
        if self.violation.is_none() {
            self.violation = Some(Violation { rule, text, at: now });
        }
    }

    /// A node's engine was built (first start, or after a crash), and filled with what its kernel held, if it was.
    pub(super) fn started(&mut self, now: Instant, node: usize, engine: &Engine, config: &Config) {
        let mut fresh = Node::new(config, engine);
        for flow in engine.flows(now) {
            let name = self.flow_name(&flow.key);
            fresh.shadow.put(now, name, Some(Value::of_flow(&flow)), 0);
        }
        self.nodes[node] = fresh;
        self.forget_believed(node);
        self.note_role(now, node, engine.role());
    }

    /// A node's engine is gone, with everything in it.
    pub(super) fn stopped(&mut self, now: Instant, node: usize) {
        let _ = now;
        self.note_holder(node);
        self.tickets.drop_all(node);
        self.nodes[node] = Node::default();
        self.hearing.forget(node);
    }

    /// A frame left a node for the first time or again.
    pub(super) fn sent(&mut self, now: Instant, node: usize, engine: &Engine, frame: &[u8]) {
        self.look(now, node, engine);
        self.nodes[node].sent += 1;
        let frame = self.judge_seal(now, node, frame);
        self.judge_sent(now, node, engine, &frame);
    }

    /// A frame is about to be handed to a node.
    pub(super) fn before_frame(&mut self, now: Instant, node: usize, engine: &Engine, frame: &[u8]) {
        self.look(now, node, engine);
        let frame = self.note_handed(node, engine, frame);
        self.note_rank(node, engine, &frame);
        self.note_heed(now, node, &frame);
    }

    /// The frame was handed to it.
    pub(super) fn after_frame(&mut self, now: Instant, node: usize, engine: &Engine) {
        let frame = self.judge_handed(now, node, engine);
        self.judge_taken(now, node, engine, &frame);
        self.judge_inheritance(now, node, engine);
        self.judge_echo(now, node, engine, &frame);
        self.judge_claim(now, node, engine);
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
        let name = self.flow_name(change.key());
        self.look_except(now, node, engine, Some(name));
        self.judge_update(now, node, engine, name, change);
        self.note_unsaid(node, name);
        if let Some((ticket, ack)) = ticket {
            self.submitted(now, node, name, ticket, ack);
        }
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
        let name = self.section_name(change.key().table, &change.key().key);
        self.look_except(now, node, engine, Some(name));
        let value = match change {
            SectionChange::Put(section) => Some(Value::of_section(&section.value)),
            SectionChange::Delete(_) => None,
        };
        if let (SectionChange::Put(section), Some(value)) = (change, value)
            && section.expiry > 0
        {
            let earliest = now + Duration::from_secs(section.expiry.into()) * 19 / 20;
            let known = self.expiring.entry((name, value)).or_insert(earliest);
            *known = earliest.min(*known);
        }
        self.must_hold(now, node, engine, name, value);
        self.nodes[node].shadow.put(now, name, value, 0);
        self.note_unsaid(node, name);
        if let Some((ticket, ack)) = ticket {
            self.submitted(now, node, name, ticket, ack);
        }
    }

    /// `begin_dump` was called.
    pub(super) fn dump_began(&mut self, now: Instant, node: usize, engine: &Engine) {
        self.look(now, node, engine);
        let node = &mut self.nodes[node];
        node.shadow.begin_dump();
        node.dump_of = node.saying.is_some().then_some(node.masterships);
    }

    /// `end_dump` was called: every flow of the node's source was given by `updated` since the dump began, and what was not
    /// named is dead.
    pub(super) fn dumped(&mut self, now: Instant, node: usize, engine: &Engine) {
        // What the dump takes is gone already: it is settled before anybody looks.
        let it = &mut self.nodes[node];
        if it.saying.is_some() && it.dump_of.take() == Some(it.masterships) {
            let names = &self.names;
            it.condemned = it.shadow.unnamed();
            it.condemned.retain(|name| matches!(names.get(name), Some(Label::Flow(_))));
        }
        self.look(now, node, engine);
    }

    /// The node's engine gave a change to its sink.
    pub(super) fn applied(&mut self, now: Instant, node: usize, engine: &Engine, change: &Change) {
        let name = self.flow_name(change.key());
        let value = match change {
            Change::Upsert(flow) => Some(Value::of_flow(flow)),
            Change::Delete(_) => None,
        };
        self.look(now, node, engine);
        self.judge_applied(now, node, engine, name, value);
    }

    /// The node's engine gave a change of a section to its owner.
    pub(super) fn section_applied(&mut self, now: Instant, node: usize, engine: &Engine, change: &SectionChange) {
        let name = self.section_name(change.key().table, &change.key().key);
        let value = match change {
            SectionChange::Put(section) => Some(Value::of_section(&section.value)),
            SectionChange::Delete(_) => None,
        };
        self.look(now, node, engine);
        self.judge_applied(now, node, engine, name, value);
    }

    /// A ticket was resolved.
    pub(super) fn resolved(&mut self, now: Instant, node: usize, ticket: Ticket, result: Result<(), DurabilityFailed>) {
        self.judge_ticket(now, node, ticket, result);
    }

    /// Every ticket that was resolved has been fetched.
    pub(super) fn fetched(&mut self, now: Instant, node: usize) {
        self.judge_deadlines(now, node);
    }

    /// A node's engine said that something happened.
    pub(super) fn event(&mut self, now: Instant, node: usize, engine: &Engine, event: &Event) {
        self.look(now, node, engine);
        self.nodes[node].events += 1;
        if let Event::PeerUp { node: peer, incarnation, .. } = event {
            self.note_established(node, (*peer, *incarnation));
        }
        if let Event::PeerDown { node: peer } | Event::PeerLeft { node: peer } = event {
            self.forget_stand(node, *peer);
        }
        if let Event::Lagging { node: peer } = event {
            self.note_released(node, *peer);
        }
        self.judge_strangers(now, node, event);
        self.judge_event(now, node, event);
    }

    /// After `handle_timeout`, `handle_committed`, `set_role` and whatever else may change a role or a stream, and at the end
    /// of each turn: what must hold at every moment.
    pub(super) fn turned(&mut self, now: Instant, node: usize, engine: &Engine) {
        self.settle_expired(now, node, engine);
        self.look(now, node, engine);
        self.wish_is_over(node);
        self.judge_inheritance(now, node, engine);
        self.judge_mastership(now, node);
        self.judge_claim(now, node, engine);
        self.judge_lagging(now, node, engine);
        self.judge_bounds(now, node, engine);
    }

    /// A node that stood still runs again, and its clock has stood with it: it cannot know.
    pub(super) fn froze(&mut self, now: Instant, node: usize) {
        let stood = now.since(std::mem::replace(&mut self.nodes[node].looked_at, now));
        self.tickets.wait_longer(node, stood);
    }

    /// All is equal and nothing changes any more: from here to `ended` (some seconds) only heartbeats may travel.
    pub(super) fn quiet(&mut self, now: Instant) {
        self.quiet_since = Some(now);
        self.nodes.iter_mut().for_each(|node| node.sent = 0);
    }

    /// The liveness phase is over: everything must be equal and proven.
    pub(super) fn ended(&mut self, now: Instant, ends: &[End<'_>]) {
        for end in ends {
            self.look(now, end.node, end.engine);
        }
        self.judge_end(now, ends);
    }

    /// The oracle's own sightings, by name.
    pub(super) fn cover(&self, coverage: &mut Coverage) {
        self.sightings.iter().for_each(|seen| coverage.note(Seen(seen)));
    }

    // ------------------------------------------------------------------ names

    fn flow_name(&mut self, key: &FlowKey) -> Name {
        let name = Name::of_flow(key);
        self.names.entry(name).or_insert_with(|| Label::Flow(*key));
        name
    }

    fn section_name(&mut self, table: u16, key: &[u8]) -> Name {
        let name = Name::of_section(table, key);
        self.names.entry(name).or_insert_with(|| Label::Section(SectionKey { table, key: key.into() }));
        name
    }

    fn label(&self, name: Name) -> String {
        self.names.get(&name).map_or_else(|| format!("{name:?}"), ToString::to_string)
    }

    /// What the engine holds under this name.
    fn held(&self, engine: &Engine, name: Name, now: Instant) -> Option<Value> {
        match self.names.get(&name)? {
            Label::Flow(key) => engine.flow(key, now).map(|flow| Value::of_flow(&flow)),
            Label::Section(key) => engine.section(key, now).map(|section| Value::of_section(&section.value)),
        }
    }

    /// The node with this number on the wire.
    fn index(&self, id: crate::wire::NodeId) -> Option<usize> {
        self.nodes.iter().position(|node| node.config.as_ref().is_some_and(|config| config.node == id))
    }
}

/// A value for people: they compare it with another.
fn told(value: Option<Value>) -> String {
    value.map_or_else(|| "nothing".into(), |value| format!("{value:x?}"))
}
