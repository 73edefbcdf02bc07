//! Somebody on the sync link who has no secret: hears every frame, sends whatever it likes, to whom it likes. It can neither
//! stop nor delay honest frames; that is the network's part.
//!
//! ```text
//!   honest frames ─▶ tape ─┬─ again: at once, late, to others, by other links, after restarts
//!                          ├─ bits turned, cut short, one's header before another's payload; the checksum made to fit
//!                          └─ names, incarnations, numbers, terms ─▶ forged frames of every kind, in the clear,
//!                                                                    sealed with a wrong secret, or only said to be sealed
//! ```
//!
//! There are two of them. The *quiet* one speaks between two honest frames of a turn and takes up no room in sockets: what it
//! sends must make no difference at all, so it repeats only frames that the receiver has taken before: DATA of the stream that
//! it follows, and control frames of peers that are established there. (An ADVERT of any other incarnation is answered, and
//! what a node never got may be brought to it by anybody: differences that authentic frames make.) The *loud* one does all of
//! that, and floods.

use super::forgery;
use super::network::Network;
use super::node::Stage;
use super::random::Random;
use super::seal::{Before, complete};
use super::world::Agenda;
use crate::engine::{Engine, PeerStatus};
use crate::time::{Duration, Instant};
use crate::wire::{
    FRAME_LEN_MIN, Frame, FrameFlags, FrameMeta, HEADER_LEN, Header, Kind, NodeId, SECRET_LEN, SECRETS_MAX, Sealer,
    Secret, TAG_LEN, Target,
};
use std::net::{IpAddr, Ipv4Addr};

/// Frames that it keeps, of all nodes; and of those that each node has taken.
const TAPE: usize = 128;
const TAKEN: usize = 32;
/// Frames of the quiet one between two honest frames, and in a millisecond to each node, at the most.
const FRAMES_BETWEEN: u64 = 3;
const FRAMES_PER_MS: u32 = 8;
/// Frames of one stroke of the loud one, and of one that is a flood.
const FRAMES_PER_STROKE: u64 = 12;
const FRAMES_PER_FLOOD: u64 = 600;
const FLOOD_ONE_IN: u64 = 60;
/// Strokes of the loud one in an interval of ADVERTs, on average.
const STROKES_PER_INTERVAL: u32 = 4;
/// A secret that is nobody's.
const WRONG: [u8; SECRET_LEN] = [0x66; SECRET_LEN];

/// The attacker of a world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Attack {
    /// What its randomness comes from.
    pub(super) seed: u64,
    /// It must make no difference.
    pub(super) quiet: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Attacker {
    attack: Attack,
    dice: Random,
    sync_id: u8,
    links: u8,
    tape: Vec<Vec<u8>>,
    /// Frames that each node has taken since its start.
    taken: Vec<Vec<Vec<u8>>>,
    /// The millisecond, and what is left to be sent in it to each node.
    budget: Vec<(u64, u32)>,
    slot: Vec<u8>,
}

impl Attacker {
    pub(super) fn new(attack: Attack, nodes: usize, sync_id: u8, links: u8) -> Self {
        Attacker {
            attack,
            dice: Random::new(attack.seed),
            sync_id,
            links,
            tape: Vec::new(),
            taken: vec![Vec::new(); nodes],
            budget: vec![(0, 0); nodes],
            slot: vec![0; FRAME_LEN_MIN],
        }
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.attack.quiet
    }

    /// An honest frame is on the network.
    pub(super) fn hears(&mut self, frame: &[u8]) {
        keep(&mut self.tape, TAPE, frame, &mut self.dice);
    }

    /// A node was started anew.
    pub(super) fn forget(&mut self, node: usize) {
        self.taken[node].clear();
    }

    /// The quiet one notes what a node takes.
    fn saw_taken(&mut self, node: usize, frame: &[u8]) {
        keep(&mut self.taken[node], TAKEN, frame, &mut self.dice);
    }

    /// Whether another frame may be sent to this node now.
    fn may_send(&mut self, now: Instant, node: usize) -> bool {
        let millisecond = now.as_nanos() / 1_000_000;
        let (at, left) = &mut self.budget[node];
        if *at != millisecond {
            (*at, *left) = (millisecond, FRAMES_PER_MS);
        }
        *left = left.saturating_sub(1);
        *left > 0
    }

    /// The loud one sends what it likes to whom it likes; when it does so again.
    pub(super) fn strike(
        &mut self,
        now: Instant,
        interval: Duration,
        network: &mut Network,
        agenda: &mut Agenda,
    ) -> Instant {
        let flooded = self.dice.one_in(FLOOD_ONE_IN).then(|| self.dice.below(self.taken.len() as u64) as usize);
        for _ in 0..self.dice.below(if flooded.is_some() { FRAMES_PER_FLOOD } else { FRAMES_PER_STROKE }) {
            let to = flooded.unwrap_or_else(|| self.dice.below(self.taken.len() as u64) as usize);
            self.any(to, None);
            let (link, at) =
                (self.dice.below(self.links.into()) as u8, now + self.dice.around(Duration::from_micros(200)));
            network.inject(at, (to, link), &self.slot, agenda);
        }
        now + self.dice.around(interval / STROKES_PER_INTERVAL)
    }

    // ------------------------------------------------------------------ what it sends

    /// A frame, left in the slot: its length.
    fn any(&mut self, to: usize, engine: Option<&Engine>) -> usize {
        match (self.dice.below(10), engine) {
            (0..=2, Some(engine)) => self.repeat(to, engine),
            (0..=2, None) => self.recorded(),
            (3, _) => self.turn_bits(),
            (4, _) => self.splice(),
            (5, _) => self.cut_short(),
            (6, _) => self.noise(),
            _ => self.forge(to),
        }
    }

    /// One of the frames that this node has taken, if it can tell.
    fn repeat(&mut self, to: usize, engine: &Engine) -> usize {
        let at = self.dice.below(self.taken[to].len() as u64) as usize;
        let Some(frame) = self.taken[to].get(at) else { return self.noise() };
        if !Frame::parse(frame).is_ok_and(|frame| is_held(engine, &frame.header())) {
            return self.noise();
        }
        self.slot.clear();
        self.slot.extend_from_slice(frame);
        self.slot.len()
    }

    fn recorded(&mut self) -> usize {
        if self.tape.is_empty() {
            return self.noise();
        }
        let at = self.dice.below(self.tape.len() as u64) as usize;
        self.slot.clear();
        self.slot.extend_from_slice(&self.tape[at]);
        self.slot.len()
    }

    /// One to three bits of anything but size and checksum, which are made to fit.
    fn turn_bits(&mut self) -> usize {
        let length = self.recorded();
        if length < HEADER_LEN {
            return length;
        }
        for _ in 0..self.dice.within(1, 3) {
            let bit = self.dice.below(length as u64 * 8) as usize;
            if !(2..4).contains(&(bit / 8)) && !(8..12).contains(&(bit / 8)) {
                self.slot[bit / 8] ^= 1 << (bit % 8);
            }
        }
        // Twice the same bit, or none: then it is no other frame than before.
        self.slot[0] ^= u8::from(self.tape.contains(&self.slot)) << 3;
        complete(&mut self.slot);
        length
    }

    /// The header of one frame before the payload of another.
    fn splice(&mut self) -> usize {
        let length = self.recorded();
        let Some(head) = self.slot.get(..HEADER_LEN).map(<[u8]>::to_vec) else { return length };
        self.recorded();
        if self.slot.len() < HEADER_LEN || self.slot[..HEADER_LEN] == head {
            return self.noise();
        }
        self.slot[..HEADER_LEN].copy_from_slice(&head);
        complete(&mut self.slot);
        self.slot.len()
    }

    fn cut_short(&mut self) -> usize {
        let length = self.recorded();
        self.slot.truncate(self.dice.below(length as u64) as usize);
        complete(&mut self.slot);
        self.slot.len()
    }

    fn noise(&mut self) -> usize {
        let length = if self.dice.one_in(4) { self.dice.below(8) } else { self.dice.within(8, 200) };
        self.slot.clear();
        for _ in 0..length {
            let byte = self.dice.next() as u8;
            self.slot.push(byte);
        }
        if length > HEADER_LEN as u64 && self.dice.one_in(2) {
            // One that passes for a frame up to its seal.
            (self.slot[1], self.slot[4]) = (self.sync_id, 1);
            let by = FrameFlags::sealed_with(self.slot[6] % SECRETS_MAX as u8);
            self.slot[6..8].copy_from_slice(&by.0.to_be_bytes());
            complete(&mut self.slot);
        }
        self.slot.len()
    }

    // ------------------------------------------------------------------ forgeries

    /// Somebody's name, mostly of one who is there: node, incarnation, number, term.
    fn name(&mut self, to: usize) -> Header {
        let length = self.recorded();
        let known = Frame::parse(&self.slot[..length]).ok().map(|frame| frame.header());
        let dice = &mut self.dice;
        let stranger = (NodeId(dice.doubling(1, 1 << 32) as u32 | 1), dice.next() | 1);
        let (node, incarnation) = known.map_or(stranger, |header| (header.node, header.incarnation));
        let (seq, term) = known.map_or((1, 1), |header| (header.seq, header.term));
        let seq = match dice.below(4) {
            0 => seq + dice.within(1, 100),
            1 => dice.doubling(1, 1 << 62),
            2 => dice.within(1, 1000),
            _ => seq,
        };
        let term = match dice.below(4) {
            0 => (1 << 62) - dice.below(3),
            1 => term + dice.within(1, 1 << 20),
            _ => term,
        };
        let (node, incarnation) = match dice.below(6) {
            // An incarnation that there never was, of a node that there is.
            0 => (node, dice.next() | 1),
            1 => stranger,
            2 => (NodeId(to as u32 + 1), dice.next() | 1),
            _ => (node, incarnation),
        };
        Header { sync_id: self.sync_id, kind: Kind::ADVERT, flags: FrameFlags(0), node, incarnation, seq, term }
    }

    /// A well-formed frame of any kind that nobody honest has sent: in the clear, with a wrong secret, or with a seal that is
    /// none.
    fn forge(&mut self, to: usize) -> usize {
        let header = self.name(to);
        let target = self.name(to);
        let target = Target { node: target.node, incarnation: target.incarnation };
        self.slot.clear();
        self.slot.resize(FRAME_LEN_MIN, 0);
        let length = forgery::write(&mut self.dice, &mut self.slot, header, target);
        let Some(length) = length else { return self.noise() };
        let id = self.dice.below(SECRETS_MAX as u64) as u8;
        match self.dice.below(4) {
            0 => self.slot.truncate(length),
            1 => {
                self.slot.truncate(length + TAG_LEN);
                let by = FrameFlags::sealed_with(id);
                self.slot[6..8].copy_from_slice(&by.0.to_be_bytes());
                complete(&mut self.slot);
            }
            _ => {
                let secrets: Vec<Secret> = Secret::new(id, &WRONG).into_iter().collect();
                let mut sealer = Sealer::new(&secrets, self.sync_id, header.node, header.incarnation);
                let sealed = sealer.seal(id, &mut self.slot, length).unwrap_or(length);
                self.slot.truncate(sealed);
            }
        }
        self.slot.len()
    }
}

/// Whether this node can tell that it has taken a frame of this number: of DATA, what the frontier of the followed stream has
/// passed; of all else, what is of an established peer.
fn is_held(engine: &Engine, header: &Header) -> bool {
    if header.kind == Kind::DATA {
        let stream = Some((header.node, header.incarnation, header.term));
        return engine.following() == stream && header.seq <= engine.frontier();
    }
    let is_sender = |it: &PeerStatus| (it.node, it.incarnation) == (header.node, header.incarnation);
    engine.peers().iter().any(|it| it.established && is_sender(it))
}

/// Keeps a frame on a tape of so many: a random one goes for it, so that some of the very first stay for long.
fn keep(tape: &mut Vec<Vec<u8>>, room: usize, frame: &[u8], dice: &mut Random) {
    if tape.len() < room {
        return tape.push(frame.to_vec());
    }
    let at = dice.below(room as u64 * 4) as usize;
    if let Some(old) = tape.get_mut(at) {
        old.clear();
        old.extend_from_slice(frame);
    }
}

/// What the quiet one sends to a node between two honest frames of its turn.
pub(super) fn beset(stage: &mut Stage<'_>, node: usize, local: Instant, engine: &mut Engine) {
    let Some(attacker) = stage.attacker.as_deref_mut().filter(|it| it.attack.quiet) else { return };
    for _ in 0..attacker.dice.below(FRAMES_BETWEEN + 1) {
        if !attacker.may_send(stage.now, node) {
            return;
        }
        attacker.any(node, Some(engine));
        let link = attacker.dice.below(attacker.links.into()) as u8;
        let meta = FrameMeta { link, source: IpAddr::V4(Ipv4Addr::LOCALHOST) };
        stage.watch.oracle.next_is_hostile();
        stage.watch.oracle.before_frame(stage.now, node, engine, &attacker.slot);
        engine.handle_frame(local, meta, &mut attacker.slot);
        stage.watch.oracle.after_frame(stage.now, node, engine);
    }
}

/// A frame as the attacker has it, while it is handed to a node.
#[derive(Debug)]
pub(super) struct Overheard(Option<(Before, Vec<u8>)>);

impl Overheard {
    /// An honest frame is about to be handed to a node.
    pub(super) fn before(stage: &Stage<'_>, engine: &Engine, frame: &[u8]) -> Self {
        let quiet = stage.attacker.as_deref().is_some_and(Attacker::is_quiet);
        Overheard(quiet.then(|| (Before::of(engine), frame.to_vec())))
    }

    /// It was handed in.
    pub(super) fn after(self, stage: &mut Stage<'_>, node: usize, engine: &Engine) {
        if let (Some((before, frame)), Some(attacker)) = (self.0, stage.attacker.as_deref_mut())
            && before.believed(engine)
        {
            attacker.saw_taken(node, &frame);
        }
    }
}
