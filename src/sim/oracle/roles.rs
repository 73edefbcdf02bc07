//! Who may be master, and who must not be (docs/protocol.md 5), by what each node was told in ADVERTs that reached it.
//!
//! ```text
//!   master Y hears ADVERT of master X   X above Y: Y steps down                          [5.4.1]
//!                                       Y above X: Y stays, and its term is above X's    [5.4.1, 5.4.3]
//!   master Y hears that P follows a living master of a higher term: Y steps down         [5.4.4]
//!   N takes over                        no peer that it hears both ways says that it follows a living master   [5.2.3]
//!   N begins to follow                  not a cold master, if N is warm                  [5.1.5]
//!   N stalled as master                 its incarnation of then sends nothing more       [5.6.1]
//! ```

use super::Oracle;
use super::sent::{Beat, StreamId};
use crate::engine::election::master_down;
use crate::engine::{Engine, Role, RoleMode};
use crate::time::{Duration, Instant};
use crate::wire::{Header, Kind, NodeId};

/// A master's place among masters: warm, term, priority, number.
pub(super) type Place = (bool, u64, u8, NodeId);

/// What a master said of itself just before it was handed an ADVERT.
#[derive(Clone, Debug)]
pub(super) struct Rank {
    place: Place,
    /// Established peers.
    peers: Vec<(NodeId, u64)>,
}

impl Rank {
    pub(super) fn new(place: Place, peers: Vec<(NodeId, u64)>) -> Self {
        Rank { place, peers }
    }
}

/// What one node has heard of another.
#[derive(Clone, Copy, Debug)]
struct Heard {
    incarnation: u64,
    seq: u64,
    /// Since when without a pause.
    since: Instant,
    last: Instant,
    beat: Beat,
}

/// Control numbers that a receiver remembers of a sender, up to the highest: one that is older is dropped [3.4.3].
const REPLAY_WINDOW: u64 = 64;

/// Who hears whom: `[receiver][sender]`.
#[derive(Debug, Default)]
pub(super) struct Hearing {
    adverts: Vec<Vec<Option<Heard>>>,
    /// Incarnation and highest control number.
    highest: Vec<Vec<(u64, u64)>>,
}

impl Hearing {
    pub(super) fn new(nodes: usize) -> Self {
        Hearing { adverts: vec![vec![None; nodes]; nodes], highest: vec![vec![(0, 0); nodes]; nodes] }
    }

    /// The node is dead: it hears nobody, and nobody hears it.
    pub(super) fn forget(&mut self, node: usize) {
        self.adverts[node].fill(None);
        self.adverts.iter_mut().for_each(|heard| heard[node] = None);
        self.highest[node].fill((0, 0));
    }

    /// A control frame was handed to a node; whether so many newer ones had been that its number is forgotten.
    fn is_forgotten(&mut self, to: usize, from: usize, header: &Header) -> bool {
        let (incarnation, highest) = &mut self.highest[to][from];
        if *incarnation != header.incarnation {
            (*incarnation, *highest) = (header.incarnation, header.seq);
        }
        *highest = header.seq.max(*highest);
        *highest - header.seq >= REPLAY_WINDOW
    }

    fn note(&mut self, now: Instant, to: usize, from: usize, header: &Header, beat: Beat) {
        let fresh = Heard { incarnation: header.incarnation, seq: header.seq, since: now, last: now, beat };
        let slot = &mut self.adverts[to][from];
        *slot = match *slot {
            Some(heard) if heard.incarnation == header.incarnation && heard.seq >= header.seq => return,
            Some(heard) if heard.incarnation == header.incarnation && now.since(heard.last) <= pause(beat) => {
                Some(Heard { since: heard.since, ..fresh })
            }
            _ => Some(fresh),
        };
    }
}

/// Who is not heard for so long is not heard without a pause.
fn pause(beat: Beat) -> Duration {
    Duration::from_millis(u64::from(beat.interval_ms)) * 5 / 2
}

impl Oracle {
    /// Before a master is handed an ADVERT: its place, and whom it takes for established.
    pub(super) fn note_rank(&mut self, at: usize, engine: &Engine, bytes: &[u8]) {
        self.nodes[at].rank = None;
        // Byte 5 is the kind, byte 40 the role.
        if engine.role() != Role::Master || bytes.get(5) != Some(&Kind::ADVERT.0) {
            return;
        }
        let Some(node) = self.nodes[at].config.as_ref().map(|config| config.node) else { return };
        let place = (!engine.is_cold(), engine.term(), engine.priority(), node);
        let peers = engine.peers();
        let established = peers.iter().filter(|peer| peer.established);
        let peers = established.map(|peer| (peer.node, peer.incarnation)).collect();
        self.nodes[at].rank = Some(Rank::new(place, peers));
    }

    /// Notes that an ADVERT reached a node; whether it is the newest of a sender that still is who it was.
    pub(super) fn note_heard(&mut self, now: Instant, at: usize, header: &Header, beat: Beat) -> bool {
        let Some(from) = self.index(header.node).filter(|from| *from != at) else { return false };
        if self.hearing.is_forgotten(at, from, header) {
            return false;
        }
        let newer = |heard: Heard| heard.incarnation != header.incarnation || heard.seq < header.seq;
        let news =
            self.hearing.adverts[at][from].is_none_or(newer) && self.nodes[from].incarnation == header.incarnation;
        if news {
            self.hearing.note(now, at, from, header, beat);
        }
        news
    }

    /// Another control frame was handed to a node.
    pub(super) fn note_control(&mut self, at: usize, header: &Header) {
        if let Some(from) = self.index(header.node).filter(|from| *from != at) {
            self.hearing.is_forgotten(at, from, header);
        }
    }

    /// An ADVERT was handed to a node, and is news: a master answers by its rules.
    pub(super) fn judge_beat_taken(&mut self, now: Instant, at: usize, engine: &Engine, header: &Header, beat: Beat) {
        let Some(rank) = self.nodes[at].rank.take() else { return };
        if !rank.peers.contains(&(header.node, header.incarnation)) || beat.priority == 0 {
            return;
        }
        let (ours, stays) = (rank.place, engine.role() == Role::Master);
        if beat.is_master() {
            let theirs = (!beat.is_cold(), beat.term, beat.priority, header.node);
            let text = format!("node {at}, master {ours:?} (warm, term, priority, node), hears master {theirs:?}");
            if stays && theirs > ours {
                self.broken(now, "two-masters", format!("{text}, and stays"));
            } else if !stays && theirs < ours && !self.may_have_stalled(now, at) {
                self.broken(now, "two-masters", format!("{text}, and steps down"));
            } else if stays && engine.term() <= beat.term {
                self.broken(now, "two-masters", format!("{text}, and keeps its term"));
            }
            self.sightings.insert("two-masters");
        } else if stays && beat.follows.node != NodeId(0) && beat.follows.node != ours.3 && beat.follows.term > ours.1 {
            let text = format!(
                "node {at}, master of term {}, hears that node number {} follows the living master {} of term {}, and stays",
                ours.1, header.node, beat.follows.node, beat.follows.term
            );
            self.broken(now, "two-masters", text);
        }
    }

    /// A takeover that nobody asked for: only where no peer, that hears this node and is heard by it, follows a living
    /// master.
    pub(super) fn judge_takeover(&mut self, now: Instant, at: usize, engine: &Engine) {
        let node = &self.nodes[at];
        let Some(config) = node.config.as_ref().filter(|config| config.role == RoleMode::Vrrp) else { return };
        let down = master_down(config.priority, config.advert_interval);
        // Who takes the role from a living master on purpose still follows it.
        if self.is_wished(at) || engine.following().is_some() {
            return;
        }
        for peer in 0..self.nodes.len() {
            let (Some(heard), Some(back)) = (self.hearing.adverts[at][peer], self.hearing.adverts[peer][at]) else {
                continue;
            };
            let interval = Duration::from_millis(u64::from(heard.beat.interval_ms));
            let both_ways = now.since(heard.since.max(back.since)) > down * 4;
            let fresh = now.since(heard.last) <= interval * 3 / 2 && now.since(back.last) <= interval * 2;
            let follows = heard.beat.follows;
            let left = heard.beat.priority == 0;
            if !both_ways || !fresh || left || follows.node == NodeId(0) || follows.node == config.node {
                continue;
            }
            let master = self.index(follows.node).and_then(|master| self.hearing.adverts[at][master]);
            // Who says goodbye is no peer from then on, as master or as witness.
            let said_goodbye = heard.beat.priority == 0 || master.is_some_and(|master| master.beat.priority == 0);
            if said_goodbye || (node.warm && master.is_some_and(|master| master.beat.is_cold())) {
                continue;
            }
            let text = format!(
                "node {at} takes over; node {peer}, which it has heard both ways since {:?}, follows the living master {} of \
                 term {}",
                heard.since.max(back.since),
                follows.node,
                follows.term
            );
            return self.broken(now, "takeover", text);
        }
    }

    /// Whether a node has heard another without a pause for so long.
    pub(super) fn is_heard_since(&self, at: usize, peer: usize, since: Instant) -> bool {
        self.hearing.adverts[at][peer].is_some_and(|heard| heard.since <= since)
    }

    /// Since when two nodes hear each other, if they still do.
    pub(super) fn hear_each_other_since(&self, now: Instant, one: usize, other: usize) -> Option<Instant> {
        let (there, back) = (self.hearing.adverts[one][other]?, self.hearing.adverts[other][one]?);
        let fresh = |heard: Heard| now.since(heard.last) <= pause(heard.beat);
        (fresh(there) && fresh(back)).then(|| there.since.max(back.since))
    }

    /// Whether a node has heard another in this time.
    pub(super) fn is_heard_lately(&self, at: usize, peer: usize, now: Instant, time: Duration) -> bool {
        self.hearing.adverts[at][peer].is_some_and(|heard| now.since(heard.last) <= time)
    }

    /// A warm node does not follow a cold master.
    pub(super) fn judge_followed(&mut self, now: Instant, at: usize, stream: StreamId) {
        // The ADVERT that was just handed to it; the last one of its sender, perhaps, from before that started anew.
        let said = self.nodes[at].handed.filter(|handed| (handed.0, handed.1) == (stream.node, stream.incarnation));
        if self.nodes[at].warm && said.is_some_and(|(.., beat)| beat.is_cold()) {
            self.broken(now, "cold-master", format!("node {at} is warm and follows {stream:?}, whose master is cold"));
        }
    }

    /// Whoever was master when it stalled for longer than the others wait says nothing more under that incarnation.
    pub(super) fn notice_stall(&mut self, now: Instant, at: usize) {
        let node = &mut self.nodes[at];
        let Some(config) = &node.config else { return };
        let limit = master_down(config.priority, config.advert_interval) * 5 / 4;
        if node.role == Some(Role::Master) && node.looked_at != Instant::ZERO {
            let stood = now.since(node.looked_at);
            if stood > limit * 2 / 3 {
                node.stood_until = Some(now);
            }
            if stood > limit {
                node.stalled = Some(node.incarnation);
                self.sightings.insert("stall");
            }
        }
        node.looked_at = now;
    }

    /// Whether a master has just stood for so long that by its own clock it may be a stall, for which it steps down.
    fn may_have_stalled(&self, now: Instant, at: usize) -> bool {
        let node = &self.nodes[at];
        node.stalled.is_some() || node.stood_until == Some(now)
    }

    /// Under which incarnation a node speaks.
    pub(super) fn judge_voice(&mut self, now: Instant, at: usize, header: &Header) {
        let node = &mut self.nodes[at];
        let Some(config) = &node.config else { return };
        let (id, stalled) = (config.node, node.stalled);
        node.incarnation = header.incarnation;
        if header.node != id {
            self.broken(now, "well-formed", format!("node {at} sends as number {}; it is {id}", header.node));
        } else if stalled == Some(header.incarnation) {
            let kind = header.kind.name();
            let text =
                format!("node {at} stalled as master, and sends {kind} {} under its old incarnation", header.seq);
            self.broken(now, "stall", text);
        }
    }
}
