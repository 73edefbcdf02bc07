//! Acknowledged means present: a ticket that resolves well is held against the tables of the others.
//!
//! ```text
//!   submitted ──▶ said in DATA n ──▶ resolved well:  as many peers as its policy asks for hold the entry as frame n or a
//!       │   └ said already ─▶           │            newer one of the mastership says it, or held it so when they left the
//!       │                               │            stream, and had claimed to be proven on it
//!       └─ ack_timeout, and a little ───┴▶ must be resolved by now, well or not
//! ```
//!
//! What changes nothing is said already, and so is what was cancelled before it left: the peers are to hold what the stream
//! says of the entry, and to have come as far as the stream was when it was submitted.

use super::prints::{Name, Value};
use super::sent::{Stream, StreamId};
use super::{Oracle, told};
use crate::engine::{Ack, DurabilityFailed, Ticket};
use crate::time::{Duration, Instant};
use std::collections::{BTreeMap, BTreeSet};

/// Beside a tenth of the time-out, what a clock that goes wrong and a node's turn may take.
const SLACK: Duration = Duration::from_millis(300);

/// A place in the frames of a mastership; no stream before its first word.
type Place = (Option<StreamId>, u64);

/// A submission that waits.
#[derive(Clone, Debug)]
pub(super) struct Open {
    name: Name,
    value: Option<Value>,
    needed: usize,
    expires: Instant,
    /// When the mastership began.
    pub(super) since: Instant,
    /// The newest frame when it was submitted.
    after: Place,
    /// Where the entry was first said to be what was submitted, or something newer.
    said: Option<Place>,
    /// What it was said to be there, and later.
    words: Vec<Option<Value>>,
    /// Nodes that held it when they left the stream.
    held: BTreeSet<usize>,
}

impl Open {
    fn say(&mut self, place: Place, word: Option<Value>) {
        self.said.get_or_insert(place);
        if !self.words.contains(&word) {
            self.words.push(word);
        }
    }
}

/// Every ticket, by its node.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    pub(super) open: BTreeMap<(usize, Ticket), Open>,
    /// The same by the entry.
    waiting: BTreeMap<(usize, Name), Vec<Ticket>>,
}

impl Tickets {
    /// A node's engine is gone, and its tickets with it.
    pub(super) fn drop_all(&mut self, node: usize) {
        self.open.retain(|(owner, _), _| *owner != node);
        self.waiting.retain(|(owner, _), _| *owner != node);
    }

    /// A node's clock has stood for so long.
    pub(super) fn wait_longer(&mut self, node: usize, stood: Duration) {
        for (_, open) in self.open.range_mut((node, Ticket(0))..=(node, Ticket(u64::MAX))) {
            open.expires += stood;
        }
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
        let (value, since) = (self.nodes[at].shadow.value(name), self.nodes[at].master_since);
        let stream = self.nodes[at].saying.as_ref().and_then(|saying| saying.stream);
        let newest = stream.and_then(|stream| self.sent.streams.get(&stream)).map_or(0, Stream::newest);
        let (after, held) = ((stream, newest), BTreeSet::new());
        let open = Open { name, value, needed, expires, since, after, said: None, words: Vec::new(), held };
        if self.tickets.open.insert((at, ticket), open).is_some() {
            self.broken(now, "ticket", format!("node {at} gave ticket {} twice", ticket.0));
        }
        self.tickets.waiting.entry((at, name)).or_default().push(ticket);
        self.note_unsaid(at, name);
    }

    /// An entry has changed at a master. If it is again what the stream says of it, nothing more has to leave.
    pub(super) fn note_unsaid(&mut self, at: usize, name: Name) {
        let node = &self.nodes[at];
        let Some(saying) = node.saying.as_ref().filter(|_| !self.tickets.waiting.is_empty()) else { return };
        let word = saying.content.get(&name).copied();
        if word != node.shadow.value(name) {
            return;
        }
        // Who left with the very table that the stream says held this too, and its word may still be on its way.
        let stream = saying.stream.and_then(|stream| self.sent.streams.get(&stream));
        let equal = |stream: &Stream, print| stream.print(stream.newest()) == Some(print);
        let left = stream.into_iter().flat_map(|it| it.left.iter().filter(|(_, print)| equal(it, **print)));
        let holders: Vec<usize> = left.map(|(node, _)| *node).collect();
        self.each_waiting(at, name, |open| {
            open.say(open.after, word);
            open.held.extend(&holders);
        });
    }

    /// Frame `seq` of a master says what the entry is.
    pub(super) fn carried(&mut self, at: usize, name: Name, seq: u64) {
        let Some(saying) = self.nodes[at].saying.as_ref().filter(|_| !self.tickets.waiting.is_empty()) else { return };
        let (place, word) = ((saying.stream, seq), saying.content.get(&name).copied());
        self.each_waiting(at, name, |open| open.say(place, word));
    }

    fn each_waiting(&mut self, at: usize, name: Name, act: impl Fn(&mut Open)) {
        for ticket in self.tickets.waiting.get(&(at, name)).into_iter().flatten() {
            self.tickets.open.get_mut(&(at, *ticket)).into_iter().for_each(&act);
        }
    }

    /// A node leaves the stream that it follows: what it held of it until now counts.
    pub(super) fn note_holder(&mut self, at: usize) {
        let Some(stream) = self.nodes[at].following else { return };
        let Some(said) = self.sent.streams.get_mut(&stream) else { return };
        if self.nodes[at].was_proven {
            said.left.insert(at, self.nodes[at].shadow.print());
        }
        let master = said.master;
        let range = (master, Ticket(0))..=(master, Ticket(u64::MAX));
        let holders = self.tickets.open.range(range).filter(|(_, open)| self.holds(at, master, open));
        let tickets: Vec<_> = holders.map(|(key, _)| *key).collect();
        for key in tickets {
            if let Some(open) = self.tickets.open.get_mut(&key) {
                open.held.insert(at);
            }
        }
    }

    /// Whether a follower of that mastership holds what was submitted, or what was said later, and has been proven.
    fn holds(&self, at: usize, master: usize, open: &Open) -> bool {
        let node = &self.nodes[at];
        let (Some(stream), Some((said_in, seq))) = (node.following.filter(|_| node.was_proven), open.said) else {
            return false;
        };
        let Some(followed) = self.sent.streams.get(&stream) else { return false };
        // A mastership can have several terms. What was said in an earlier one is older than all of this stream.
        let far_enough = match said_in.and_then(|said_in| self.sent.streams.get(&said_in)) {
            Some(_) if said_in == Some(stream) => node.frontier >= seq || node.shadow.seq(open.name) >= seq,
            Some(said_in) => said_in.began <= followed.began,
            None => true,
        };
        let of_mastership = followed.master == master && followed.began >= open.since;
        of_mastership && far_enough && open.words.contains(&node.shadow.value(open.name))
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
        let holds = |peer: &usize| *peer != at && (self.holds(*peer, at, &open) || open.held.contains(peer));
        let holders: Vec<usize> = (0..self.nodes.len()).filter(holds).collect();
        if holders.len() < open.needed {
            let text = format!(
                "node {at} says that ticket {} is acknowledged: {} of {}, said in {:?}; {} proven peers must hold it, and \
                 {holders:?} do",
                ticket.0,
                told(open.value),
                self.label(open.name),
                open.said,
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
