//! What only one of two tables holds lives on, and nobody adopts what it has not asked for.
//!
//! ```text
//!   two masters    P: source says K ────────────┐            P steps down, follows W      W says "done" to P
//!                  W: master since before that  └─ learned ──┴─ must not lose K until ────┴─ must hold K, or have
//!                                                                                            ended it itself
//!   takeover       C reports frontier 40 of the dead stream, W stands at 30: all that frames 31 to 40 leave alive must be
//!                  at W when it is master
//! ```

use super::prints::{Map, Name, Value};
use super::sent::{Content, StreamId, Told};
use super::{Oracle, told};
use crate::engine::{Engine, Role};
use crate::time::Instant;
use crate::wire::{Advert, AdvertFlags, CURSOR_END, Header, MergePull, MergeRecords, NodeId, Record, Target};
use core::ops::Range;

/// A stream whatever its term: its master's node and incarnation.
pub(super) type Stream = (NodeId, u64);

/// What a node said of itself as a follower: master, incarnation, frontier, and whether it was proven.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stand {
    node: NodeId,
    incarnation: u64,
    frontier: u64,
    proven: bool,
    /// The incarnation that says so.
    by: u64,
}

/// What is known of a node's merges.
#[derive(Debug, Default)]
pub(super) struct Merging {
    /// What its source has changed while it was master.
    learned: Map<Name, Learned>,
    /// Up to where it has followed the streams of others, by node and incarnation of their masters.
    followed: Map<Stream, u64>,
    /// What it has ended itself since it followed anybody.
    ended: Map<Name, ()>,
    /// Since when it has to be asked for that; `None`: it was, or it is equal to its master.
    owes_since: Option<Instant>,
    /// Its last question.
    asked: Option<(Target, u64)>,
    /// What each other node said last.
    stands: Map<usize, Stand>,
    /// What it must hold when it is master, and whom it is to ask for that.
    wanted: Option<(usize, Vec<Name>, Instant)>,
}

/// A word of a node's own source.
#[derive(Clone, Copy, Debug)]
struct Learned {
    at: Instant,
    /// The stream that was followed since, and its frame that has put another word in its place.
    replaced: Option<(Stream, u64)>,
}

impl Stand {
    fn of(by: u64, advert: &Advert<'_>, before: Option<Stand>) -> Option<Stand> {
        let before = before.filter(|before| before.by == by);
        let Some(report) = advert.peers.iter().find(|report| report.frontier() > 0) else { return before };
        let (node, incarnation, frontier) = (report.node(), report.incarnation(), report.frontier());
        let same = before.filter(|before| (before.node, before.incarnation) == (node, incarnation));
        let follows = advert.follows.node == node;
        let proven =
            if follows { advert.flags.contains(AdvertFlags::PROVEN) } else { same.is_some_and(|it| it.proven) };
        Some(Stand { node, incarnation, frontier, proven, by })
    }
}

impl Oracle {
    // ------------------------------------------------------------------ frames

    /// A page leaves: what is in it, by its places in [`super::sent::Sent::told`].
    pub(super) fn note_page(&mut self, page: &MergeRecords<'_>) -> Content {
        let from = self.sent.told.len();
        for record in page.records.clone() {
            if let Record::Upsert(conn) = record {
                let flow = conn.flow();
                let name = self.flow_name(&flow.key);
                self.sent.told.push(Told::Entry { name, value: Some(Value::of_flow(&flow)) });
            }
        }
        Content::Page { target: page.target, cursor: page.cursor, range: from..self.sent.told.len() }
    }

    /// A question leaves, or "done".
    pub(super) fn note_question(&mut self, now: Instant, at: usize, engine: &Engine, pull: &MergePull) {
        self.nodes[at].merging.asked = Some((pull.target, pull.cursor));
        if pull.cursor == CURSOR_END {
            self.judge_done(now, at, engine, pull.target);
        }
    }

    /// A node says that it has all that another offers.
    fn judge_done(&mut self, now: Instant, at: usize, engine: &Engine, target: Target) {
        let Some(peer) = self.index(target.node).filter(|_| self.nodes[at].role == Some(Role::Master)) else { return };
        let (winner, loser) = (&self.nodes[at], &self.nodes[peer]);
        let own = winner.config.as_ref().map(|config| (config.node, winner.incarnation));
        if loser.following.is_none_or(|stream| Some((stream.node, stream.incarnation)) != own) {
            return;
        }
        let no_room = engine.counters().merge_refused > 0;
        let lost = loser.merging.learned.iter().filter(|(name, learned)| {
            let spoken = loser.shadow.seq(**name) > 0;
            let alive = loser.shadow.value(**name).is_some();
            let ended = winner.shadow.is_of_this_stream(**name) || winner.merging.ended.contains_key(*name);
            // What the loser holds is the word of a third one, and the winner has heard that and what came after it.
            let heard = |(stream, seq)| winner.merging.followed.get(&stream).is_some_and(|heard| *heard >= seq);
            let known = spoken || ended || learned.replaced.is_some_and(heard);
            learned.at > winner.master_since && alive && winner.shadow.value(**name).is_none() && !known
        });
        let mut lost: Vec<Name> = lost.map(|(name, _)| *name).collect();
        lost.sort_unstable();
        if let Some(name) = lost.first().filter(|_| !no_room) {
            let text = format!(
                "node {at}, master since {:?}, says to node {peer} that it has all; it lacks {} entries that node {peer} learned \
                 as master, as {}",
                winner.master_since,
                lost.len(),
                self.label(*name)
            );
            return self.broken(now, "merge", text);
        }
        self.nodes[peer].merging.owes_since = None;
        self.sightings.insert("merge-done");
    }

    /// A page was handed to a node.
    pub(super) fn judge_page_taken(
        &mut self,
        now: Instant,
        at: usize,
        engine: &Engine,
        header: &Header,
        (target, cursor): (Target, u64),
        range: Range<usize>,
    ) {
        self.look(now, at, engine);
        let node = &self.nodes[at];
        let own = node.config.as_ref().is_some_and(|config| config.node == target.node);
        let from = Target { node: header.node, incarnation: header.incarnation };
        let role = matches!(node.role, Some(Role::Master | Role::Promoting));
        let asked = own && node.incarnation == target.incarnation && node.merging.asked == Some((from, cursor)) && role;
        for index in range {
            let Told::Entry { name, value } = self.sent.told[index] else { continue };
            let (held, known) = (self.held(engine, name, now), self.nodes[at].shadow.value(name));
            if held == known || held.is_none() {
                continue;
            }
            if !asked || held != value {
                let (label, held, known) = (self.label(name), told(held), told(known));
                let why = if asked { "which says otherwise" } else { "which it had not asked for" };
                let text = format!("node {at} holds {held} of {label} by a page of a merge, {why}; it was {known}");
                return self.broken(now, "adopts", text);
            }
            self.sightings.insert("merge-adopted");
            let node = &mut self.nodes[at];
            node.work += 1;
            node.unsunk.insert(name, ());
            node.shadow.put(now, name, value, 0);
            self.note_unsaid(at, name);
        }
    }

    /// What another node says of itself as a follower.
    pub(super) fn note_stand(&mut self, at: usize, header: &Header, advert: &Advert<'_>) {
        let Some(peer) = self.index(header.node) else { return };
        let stands = &mut self.nodes[at].merging.stands;
        match Stand::of(header.incarnation, advert, stands.get(&peer).copied()) {
            Some(stand) => drop(stands.insert(peer, stand)),
            None => drop(stands.remove(&peer)),
        }
    }

    /// Another node is gone for this one: what it said is forgotten.
    pub(super) fn forget_stand(&mut self, at: usize, peer: NodeId) {
        if let Some(peer) = self.index(peer) {
            self.nodes[at].merging.stands.remove(&peer);
        }
    }

    // ------------------------------------------------------------------ the loser

    /// A master's source has changed an entry.
    pub(super) fn note_learned(&mut self, now: Instant, at: usize, name: Name, value: Option<Value>) {
        let node = &mut self.nodes[at];
        if node.shadow.value(name) == value {
            return;
        }
        match value {
            Some(_) => drop(node.merging.learned.insert(name, Learned { at: now, replaced: None })),
            None => self.note_ended(at, name),
        }
    }

    /// An entry has ended at its source.
    pub(super) fn note_ended(&mut self, at: usize, name: Name) {
        self.nodes[at].merging.learned.remove(&name);
        self.nodes[at].merging.ended.insert(name, ());
    }

    /// A frame of the followed stream has spoken of an entry.
    pub(super) fn note_replaced(&mut self, at: usize, name: Name, seq: u64) {
        let node = &mut self.nodes[at];
        if let (Some(stream), Some(learned)) = (node.following, node.merging.learned.get_mut(&name)) {
            learned.replaced = Some(((stream.node, stream.incarnation), seq));
        }
    }

    /// A node follows a stream no longer.
    pub(super) fn note_followed(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let Some(stream) = node.following else { return };
        let heard = node.merging.followed.entry((stream.node, stream.incarnation)).or_default();
        *heard = node.frontier.max(*heard);
    }

    /// A node follows a stream: what it has ended itself is known to its master.
    pub(super) fn note_following(&mut self, at: usize) {
        self.nodes[at].merging.ended.clear();
    }

    /// A node is equal to its master: it owes nothing.
    pub(super) fn note_equal(&mut self, at: usize) {
        self.nodes[at].merging.owes_since = None;
        self.nodes[at].merging.learned.clear();
    }

    /// An entry has gone at a follower by a walk: not before its master was told of it.
    pub(super) fn judge_walk_removal(&mut self, now: Instant, at: usize, name: Name) {
        let node = &self.nodes[at];
        let Some(deadline) = node.config.as_ref().map(|config| config.merge_deadline) else { return };
        let (Some(owes), Some(stream)) = (node.merging.owes_since, node.following) else { return };
        let Some(learned) = node.merging.learned.get(&name).map(|learned| learned.at) else { return };
        let master = self.sent.streams.get(&stream).map(|said| &self.nodes[said.master]);
        let both = master.is_some_and(|master| learned > master.master_since);
        if both && now.since(owes) < deadline * 4 / 5 {
            let text = format!(
                "node {at} has removed {}, which it learned as master at {learned:?}, before its master has asked for it",
                self.label(name)
            );
            self.broken(now, "merge", text);
        }
    }

    // ------------------------------------------------------------------ roles

    pub(super) fn note_merge_role(&mut self, now: Instant, at: usize, engine: &Engine, from: Option<Role>, role: Role) {
        if from == Some(Role::Master) {
            self.nodes[at].merging.owes_since = Some(now);
        }
        match role {
            Role::Promoting => self.nodes[at].merging.wanted = self.wanted(now, at, engine),
            Role::Master => {
                self.judge_wanted(now, at, engine);
                self.nodes[at].left = None;
            }
            _ => self.nodes[at].merging.wanted = None,
        }
    }

    /// What who takes over has to ask for first: what the one who says that it is furthest holds beyond it.
    fn wanted(&self, now: Instant, at: usize, engine: &Engine) -> Option<(usize, Vec<Name>, Instant)> {
        let node = &self.nodes[at];
        let (stream, frontier) = node.left.filter(|_| engine.following().is_none() && node.warm)?;
        let is_further = |stand: &Stand| {
            (stand.node, stand.incarnation) == (stream.node, stream.incarnation)
                && stand.proven
                && stand.frontier > frontier
        };
        // Who has not proven itself (again) is not asked [5.2.5]; that it takes no longer than it may is another promise.
        let peers = engine.peers();
        let proven = |by: u64| peers.iter().any(|it| it.established && it.incarnation == by);
        let lives = |peer: usize, stand: &Stand| {
            self.nodes[peer].incarnation == stand.by && proven(stand.by) && self.hears(now, at, peer)
        };
        let further = node.merging.stands.iter().filter(|(peer, stand)| is_further(stand) && lives(**peer, stand));
        let (peer, stand) = further.max_by_key(|(_, stand)| stand.frontier)?;
        let mut words: Map<Name, bool> = Map::default();
        for seq in frontier + 1..=stand.frontier {
            let Some(Content::Data(range)) = self.sent.data(stream, seq).map(|frame| frame.content.clone()) else {
                continue;
            };
            for word in &self.sent.told[range] {
                if let Told::Entry { name, value } = word
                    && self.is_flow(*name)
                {
                    words.insert(*name, value.is_some());
                }
            }
        }
        // What it has heard early itself is newer than what the peer can know.
        let is_wanted = |name: &Name, alive: bool| alive && node.shadow.seq(*name) <= stand.frontier;
        let names: Vec<Name> =
            words.into_iter().filter(|(name, alive)| is_wanted(name, *alive)).map(|(name, _)| name).collect();
        (!names.is_empty()).then_some((*peer, names, now))
    }

    fn judge_wanted(&mut self, now: Instant, at: usize, engine: &Engine) {
        let Some((peer, names, since)) = self.nodes[at].merging.wanted.take() else { return };
        let Some(deadline) = self.nodes[at].config.as_ref().map(|config| config.commit_deadline) else { return };
        let late = now.since(since) >= deadline * 4 / 5;
        let gone = self.nodes[peer].following.is_some() || self.nodes[peer].role != Some(Role::Backup);
        let no_room = engine.counters().merge_refused > 0;
        if late || gone || no_room || !self.hears(now, at, peer) {
            return;
        }
        let stream = self.nodes[at].left.map(|(stream, _)| stream);
        let mut lost: Vec<Name> = names;
        lost.retain(|name| self.nodes[peer].shadow.value(*name).is_some() && self.held(engine, *name, now).is_none());
        // Of two that said the same the one that was asked may have heard more since, and so of an end.
        lost.retain(|name| stream.is_none_or(|stream| !self.ends_in(stream, *name)));
        lost.sort_unstable();
        if let Some(name) = lost.first() {
            let text = format!(
                "node {at} takes over without {} entries that node {peer} holds beyond it, as {}",
                lost.len(),
                self.label(*name)
            );
            return self.broken(now, "merge-first", text);
        }
        self.sightings.insert("merge-first");
    }

    /// Whether the last word of a stream about an entry was that it is gone.
    fn ends_in(&self, stream: StreamId, name: Name) -> bool {
        let Some((start, newest)) = self.sent.streams.get(&stream).map(|it| (it.start, it.newest())) else {
            return false;
        };
        let words = (start + 1..=newest).rev().filter_map(|seq| match &self.sent.data(stream, seq)?.content {
            Content::Data(range) => Some(&self.sent.told[range.clone()]),
            _ => None,
        });
        let about_it = |told: &Told| match told {
            Told::Entry { name: it, value } if *it == name => Some(value.is_none()),
            _ => None,
        };
        words.flatten().find_map(about_it).unwrap_or(false)
    }

    fn hears(&self, now: Instant, at: usize, peer: usize) -> bool {
        let interval = self.nodes[at].config.as_ref().map(|config| config.advert_interval).unwrap_or_default();
        self.nodes[peer].config.is_some()
            && self.is_heard_lately(at, peer, now, interval * 3 / 2)
            && self.is_heard_lately(peer, at, now, interval * 3 / 2)
    }
}

/// Where a node stood in the stream that it followed last.
pub(super) type Left = (StreamId, u64);
