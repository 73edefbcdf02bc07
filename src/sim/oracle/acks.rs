//! Acknowledged means present: a ticket that resolves well is held against the tables of the others.
//!
//! ```text
//!   submitted ──▶ carried by DATA n ──▶ resolved Ok:  as many peers as its policy asks for hold the entry by frame n or a
//!       │                                             newer one of the same stream, or held it when they left the stream,
//!       │                                             and had claimed to be proven on it
//!       └─ ack_timeout, and a little ─▶ must be resolved by now, well or not
//! ```

use super::prints::{Name, Value};
use super::sent::StreamId;
use super::{Oracle, told};
use crate::engine::{Ack, DurabilityFailed, Ticket};
use crate::time::{Duration, Instant};
use std::collections::{BTreeMap, BTreeSet};

/// Beside a tenth of the time-out, what a clock that goes wrong and a node's turn may take.
const SLACK: Duration = Duration::from_millis(300);

/// A submission that waits.
#[derive(Clone, Debug)]
struct Open {
    name: Name,
    value: Option<Value>,
    needed: usize,
    expires: Instant,
    /// The first frame that carried the entry after the submission.
    carried: Option<(StreamId, u64)>,
    /// Nodes that held it when they left the stream.
    held: BTreeSet<usize>,
}

/// Every ticket, by its node.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    open: BTreeMap<(usize, Ticket), Open>,
    /// Those that no frame has carried yet.
    waiting: BTreeMap<(usize, Name), Vec<Ticket>>,
}

impl Tickets {
    /// A node's engine is gone, and its tickets with it.
    pub(super) fn drop_all(&mut self, node: usize) {
        self.open.retain(|(owner, _), _| *owner != node);
        self.waiting.retain(|(owner, _), _| *owner != node);
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }
}

impl Oracle {
    pub(super) fn submitted(&mut self, now: Instant, at: usize, name: Name, ticket: Ticket, ack: Ack) {
        let Some(config) = self.nodes[at].config.as_ref().filter(|_| ticket.0 > 0) else { return };
        let members = config.members.map_or(self.nodes.len(), |members| members as usize);
        let needed = match ack {
            Ack::None => 0,
            Ack::One => 1,
            Ack::Quorum => members / 2,
            Ack::All => members.saturating_sub(1),
        };
        let timeout = config.ack_timeout;
        let expires = now + timeout + timeout / 10 + SLACK;
        let value = self.nodes[at].shadow.value(name);
        let open = Open { name, value, needed, expires, carried: None, held: BTreeSet::new() };
        if self.tickets.open.insert((at, ticket), open).is_some() {
            self.broken(now, "ticket", format!("node {at} gave ticket {} twice", ticket.0));
        }
        self.tickets.waiting.entry((at, name)).or_default().push(ticket);
    }

    /// Frame `seq` of a master says what the entry is.
    pub(super) fn carried(&mut self, at: usize, name: Name, seq: u64) {
        if self.tickets.waiting.is_empty() {
            return;
        }
        let Some(stream) = self.nodes[at].saying.as_ref().and_then(|saying| saying.stream) else { return };
        for ticket in self.tickets.waiting.remove(&(at, name)).unwrap_or_default() {
            if let Some(open) = self.tickets.open.get_mut(&(at, ticket)) {
                open.carried = Some((stream, seq));
            }
        }
    }

    /// A node leaves the stream that it follows: what it held of it until now counts.
    pub(super) fn note_holder(&mut self, at: usize) {
        let Some(stream) = self.nodes[at].following else { return };
        let Some(master) = self.sent.streams.get(&stream).map(|said| said.master) else { return };
        let range = (master, Ticket(0))..=(master, Ticket(u64::MAX));
        let holders = self.tickets.open.range(range).filter(|(_, open)| self.holds(at, stream, open));
        let tickets: Vec<_> = holders.map(|(key, _)| *key).collect();
        for key in tickets {
            if let Some(open) = self.tickets.open.get_mut(&key) {
                open.held.insert(at);
            }
        }
    }

    /// Whether a follower of the stream holds what was submitted, or what was said later, and has been proven.
    fn holds(&self, at: usize, stream: StreamId, open: &Open) -> bool {
        let node = &self.nodes[at];
        if !node.was_proven || node.following != Some(stream) {
            return false;
        }
        let same = node.shadow.value(open.name) == open.value;
        match open.carried {
            Some((carried, seq)) if carried == stream => {
                // Its end may be forgotten once the frontier has passed it.
                node.shadow.seq(open.name) >= seq || (node.frontier >= seq && same)
            }
            _ => same,
        }
    }

    pub(super) fn judge_ticket(
        &mut self,
        now: Instant,
        at: usize,
        ticket: Ticket,
        result: Result<(), DurabilityFailed>,
    ) {
        if ticket.0 == 0 {
            return;
        }
        let Some(open) = self.tickets.open.remove(&(at, ticket)) else {
            let text = format!("node {at} resolves ticket {}, which is not open", ticket.0);
            return self.broken(now, "ticket", text);
        };
        if let Some(waiting) = self.tickets.waiting.get_mut(&(at, open.name)) {
            waiting.retain(|it| *it != ticket);
            if waiting.is_empty() {
                self.tickets.waiting.remove(&(at, open.name));
            }
        }
        if result.is_err() {
            self.sightings.insert("ticket-failed");
            return;
        }
        self.sightings.insert("ticket-acknowledged");
        let holds = |peer: &usize| {
            let stream = open.carried.map(|(stream, _)| stream).or(self.nodes[*peer].following);
            let of_node = stream.and_then(|stream| self.sent.streams.get(&stream)).is_some_and(|it| it.master == at);
            let now = of_node && stream.is_some_and(|stream| self.holds(*peer, stream, &open));
            *peer != at && (now || open.held.contains(peer))
        };
        let holders: Vec<usize> = (0..self.nodes.len()).filter(holds).collect();
        if holders.len() < open.needed {
            let text = format!(
                "node {at} says that ticket {} is acknowledged: {} of {}, carried by {:?}; {} proven peers must hold it, and \
                 {holders:?} do",
                ticket.0,
                told(open.value),
                self.label(open.name),
                open.carried,
                open.needed
            );
            self.broken(now, "acknowledged", text);
        }
    }

    /// A ticket is resolved in time, while its node runs.
    pub(super) fn judge_deadlines(&mut self, now: Instant, at: usize) {
        let range = (at, Ticket(0))..=(at, Ticket(u64::MAX));
        if let Some(((_, ticket), open)) = self.tickets.open.range(range).next().filter(|(_, open)| open.expires < now)
        {
            let text =
                format!("node {at} has not resolved ticket {}, which was due before {:?}", ticket.0, open.expires);
            self.broken(now, "ticket", text);
        }
    }
}
