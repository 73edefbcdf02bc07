//! What sealing promises: nobody without a secret is believed, nothing is believed twice, and no number is sealed twice.
//!
//! ```text
//!   leaves a node    ─▶ its bytes, under (secret, node, incarnation, channel, number): one for ever        nonce
//!   handed to a node ─▶ believed (by what it counts as refused)? then those very bytes were sealed         authentic
//!                       a control frame? then for the first time                                          taken-once
//!   an event         ─▶ another incarnation of its own number? then there was one                          stranger
//! ```

use super::Oracle;
use super::prints::{Map, of_frame};
use crate::engine::{Auth, Engine, Event};
use crate::sim::seal::{Before, Reader, Sealed, sealed_by};
use crate::time::Instant;
use crate::wire::{DropCounters, Frame, FrameError, Header, Kind, NodeId, Secret};
use std::collections::{BTreeMap, BTreeSet};

/// What an attacker did, and what became of it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Attacks {
    /// Worlds whose frames are sealed.
    pub sealed: u64,
    /// Of them, those with an attacker.
    pub attacked: u64,
    /// Of them, those that were compared step by step with the same world without it.
    pub compared: u64,
    /// Frames of the attacker that were handed to nodes.
    pub frames: u64,
    /// Those that were not refused: honest frames, sent again by it.
    pub not_refused: u64,
    /// Those that were refused, by reason.
    pub refused: BTreeMap<&'static str, u64>,
}

impl Attacks {
    /// Takes in those of other worlds.
    pub fn merge(&mut self, other: &Attacks) {
        self.sealed += other.sealed;
        self.attacked += other.attacked;
        self.compared += other.compared;
        self.frames += other.frames;
        self.not_refused += other.not_refused;
        for (reason, count) in &other.refused {
            *self.refused.entry(reason).or_default() += count;
        }
    }
}

/// What is known of the seals of a world.
#[derive(Debug, Default)]
pub(super) struct Seals {
    pub(super) reader: Reader,
    /// What left under each number: the print of the sealed bytes.
    sealed: Map<(Sealed, bool, u64), u64>,
    incarnations: BTreeSet<(NodeId, u64)>,
    /// Control frames that each node has believed since its start.
    believed: BTreeSet<(usize, NodeId, u64, u64)>,
    /// The frame that is being handed to a node.
    handed: Handed,
    pub(super) attacks: Attacks,
}

#[derive(Debug, Default)]
struct Handed {
    hostile: bool,
    header: Option<Header>,
    print: u64,
    plain: Vec<u8>,
    before: Option<Before>,
    drops: DropCounters,
}

impl Oracle {
    /// The frames of this world are sealed, and these are all its secrets.
    pub(in crate::sim) fn read_with(&mut self, reader: Reader) {
        self.seals.attacks.sealed = u64::from(reader.reads_seals());
        self.seals.reader = reader;
    }

    /// A node was given other secrets.
    pub(in crate::sim) fn reloaded(&mut self, at: usize, secrets: &[Secret], auth: Auth) {
        if let Some(config) = &mut self.nodes[at].config {
            (config.secrets, config.auth) = (secrets.to_vec(), auth);
        }
    }

    /// What the attacker did.
    pub(in crate::sim) fn attacks(&mut self) -> &mut Attacks {
        &mut self.seals.attacks
    }

    /// The next frame that is handed to a node is of the attacker.
    pub(in crate::sim) fn next_is_hostile(&mut self) {
        self.seals.handed.hostile = true;
    }

    /// A node forgets what it believed.
    pub(super) fn forget_believed(&mut self, at: usize) {
        self.seals.believed.retain(|(node, ..)| *node != at);
    }

    /// A frame leaves a node; as it was before it was sealed.
    pub(super) fn judge_seal(&mut self, now: Instant, at: usize, bytes: &[u8]) -> Vec<u8> {
        let Some(header) = Frame::parse(bytes).ok().map(|frame| frame.header()) else { return bytes.to_vec() };
        self.seals.incarnations.insert((header.node, header.incarnation));
        let print = of_frame(bytes);
        if let Some(by) = sealed_by(&header) {
            let channel = (by, header.kind == Kind::DATA, header.seq);
            let known = *self.seals.sealed.entry(channel).or_insert(print);
            if known != print {
                let text =
                    format!("node {at} has sealed {} {} twice, with other bytes", header.kind.name(), header.seq);
                self.broken(now, "nonce", text);
            }
        } else if self.enforces(at) {
            self.broken(now, "sealed", format!("node {at} sent {} {} in the clear", header.kind.name(), header.seq));
        }
        self.seals.reader.plain(bytes).into_owned()
    }

    fn enforces(&self, at: usize) -> bool {
        let config = self.nodes[at].config.as_ref();
        config.is_some_and(|config| !config.secrets.is_empty() && config.auth == Auth::Enforce)
    }

    /// A frame is about to be handed to a node: keeps what is needed of it, because it is opened in its place.
    /// What nobody has sealed, where everything must be, is nothing.
    pub(super) fn note_handed(&mut self, at: usize, engine: &Engine, bytes: &[u8]) -> Vec<u8> {
        let (header, print) = (Frame::parse(bytes).ok().map(|frame| frame.header()), of_frame(bytes));
        let authentic = !self.enforces(at) || header.is_some_and(|header| self.is_sealed_as(&header, print));
        let seals = &mut self.seals;
        let plain = if authentic { seals.reader.plain(bytes).into_owned() } else { Vec::new() };
        let handed = &mut seals.handed;
        (handed.header, handed.print) = (header, print);
        handed.before = Some(Before::of(engine));
        handed.plain.clone_from(&plain);
        if handed.hostile {
            handed.drops.clone_from(engine.drops());
        }
        plain
    }

    fn is_sealed_as(&self, header: &Header, print: u64) -> bool {
        let known =
            sealed_by(header).and_then(|by| self.seals.sealed.get(&(by, header.kind == Kind::DATA, header.seq)));
        known == Some(&print)
    }

    /// It was handed in; as it was before it was sealed.
    pub(super) fn judge_handed(&mut self, now: Instant, at: usize, engine: &Engine) -> Vec<u8> {
        let believed = self.seals.handed.before.take().is_some_and(|before| before.believed(engine));
        self.count_hostile(engine, believed);
        if let Some(header) = self.seals.handed.header.take().filter(|_| believed) {
            self.judge_believed(now, at, engine, &header);
        }
        std::mem::take(&mut self.seals.handed.plain)
    }

    fn judge_believed(&mut self, now: Instant, at: usize, engine: &Engine, header: &Header) {
        let what = |header: &Header| format!("{} {} of node number {}", header.kind.name(), header.seq, header.node);
        let is_data = header.kind == Kind::DATA;
        if self.enforces(at) && !self.is_sealed_as(header, self.seals.handed.print) {
            return self.broken(
                now,
                "authentic",
                format!("node {at} has believed {}; nobody has sealed it", what(header)),
            );
        }
        if is_data || self.seals.believed.insert((at, header.node, header.incarnation, header.seq)) {
            return;
        }
        // Who is not established can be forgotten, and is then heard for the first time again.
        let established = |it: &crate::engine::PeerStatus| {
            it.established && (it.node, it.incarnation) == (header.node, header.incarnation)
        };
        if engine.peers().iter().any(established) {
            self.broken(now, "taken-once", format!("node {at} has believed {} twice", what(header)));
        }
    }

    fn count_hostile(&mut self, engine: &Engine, believed: bool) {
        let handed = &mut self.seals.handed;
        if !std::mem::take(&mut handed.hostile) {
            return;
        }
        let attacks = &mut self.seals.attacks;
        attacks.frames += 1;
        let refused = FrameError::ALL.iter().find(|reason| engine.drops().get(**reason) != handed.drops.get(**reason));
        match refused {
            Some(reason) => *attacks.refused.entry(reason.name()).or_default() += 1,
            None if believed => attacks.not_refused += 1,
            None => *attacks.refused.entry("unread").or_default() += 1,
        }
    }

    /// What a stranger could make a node say.
    pub(super) fn judge_strangers(&mut self, now: Instant, at: usize, event: &Event) {
        let Event::DuplicateNode { incarnation } = event else { return };
        let Some(node) = self.nodes[at].config.as_ref().map(|config| config.node) else { return };
        if self.enforces(at) && !self.seals.incarnations.contains(&(node, *incarnation)) {
            let text = format!("node {at} has heard of incarnation {incarnation:x} of itself, which there never was");
            self.broken(now, "stranger", text);
        }
    }
}
