//! One group of a recording, followed by an engine of its own.
//!
//! The engine is that of the daemon, and takes a recording for what it is: nothing that a living node would believe. So it
//! stands in the group as one node more. Each ADVERT of the recording gets a line that says that its sender hears that
//! node, with the number that the engine sent last; everything else is shown to it unchanged, at its time. What the
//! engine sends reaches nobody.
//!
//! ```text
//!   recorded ADVERT ──▶ "… and I hear node 4294967294" ──▶ engine ──▶ (what it sends is dropped)
//!   recorded DATA ─────────────────────────────────────▶ engine ──▶ table
//! ```
//!
//! Sealed frames are opened before, and shown to it as if they had been sent without a secret: what it is told beside them
//! nobody has sealed.
//!
//! A new master may send DATA before the ADVERT that says so. A living backup passes it over and asks for it; here nobody
//! would answer, so such frames are kept and shown once more when their sender is followed.
//!
//! It is told nothing twice else, so it must have seen the first join: only then somebody asked for every bucket, and the whole
//! table passed by. Whether it is whole the engine knows by itself: the master's digest says so.

use crate::daemon::journal;
use crate::engine::{Config, Engine, Event, RoleMode};
use crate::flow::Flow;
use crate::time::{Duration, Instant};
use crate::wire::{
    Advert, DropCounters, FRAME_LEN_MAX, Frame, FrameError, FrameMeta, Header, Kind, NodeId, PEERS_MAX, Payload,
    PeerReport, Secret, TTL, WireRole, encode_advert, unseal,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

/// The node that follows; a number that nobody gives to a machine.
const OWN_NODE: NodeId = NodeId(u32::MAX - 1);
/// Drawn once, for all replays: the same recording gives the same result.
const INCARNATION: u64 = 0x5eed_0f00_5eed_0f00;
/// Where the engine's time begins.
const START: Instant = Instant::from_nanos(1_000_000_000);
/// Time that passes at least when the engine asks to be called and has nothing to do.
const STEP: Duration = Duration::from_millis(1);
/// Calls of the engine's timer for one gap in the recording; a longer silence is jumped over.
const STEPS_MAX: usize = 100_000;
/// Frames of the engine that are taken after each call.
const SENT_MAX: usize = 64;
/// DATA frames that are kept of streams that are not followed yet; the oldest goes first.
const EARLY_MAX: usize = 1024;
/// Streams of which the newest number is kept.
const STREAMS_MAX: usize = 1024;

/// A stream: its master and its term.
type Stream = (u32, u64);

/// One group that is being followed.
pub(super) struct Session {
    engine: Engine,
    secrets: Vec<Secret>,
    /// Sealed frames that the secrets did not open, by reason.
    closed: DropCounters,
    now: Instant,
    /// Number of the last control frame that the engine sent; 0 before the first.
    sent: u64,
    /// What the engine sends, and what it is shown.
    slot: Vec<u8>,
    events: Vec<String>,
    followed: Option<Stream>,
    /// DATA of streams that were not followed when it came, and who sent it.
    early: VecDeque<(Stream, IpAddr, Vec<u8>)>,
    /// The highest number that is known of each stream.
    newest: BTreeMap<Stream, u64>,
    ever_proven: bool,
    proven: bool,
    full: bool,
    frames: u64,
    far: u64,
}

impl Session {
    /// Follows group `sync_id` with a table of so many flows, and opens what one of the secrets has sealed; `None` if there is
    /// no such engine.
    pub(super) fn new(sync_id: u8, capacity: u32, secrets: Vec<Secret>) -> Option<Self> {
        let config = Config {
            name: "replay".into(),
            incarnation: INCARNATION,
            seed: 1,
            frame_len: FRAME_LEN_MAX,
            capacity,
            role: RoleMode::Manual,
            preempt: false,
            ..Config::new(OWN_NODE, sync_id)
        };
        let mut engine = Engine::new(config, START).ok()?;
        engine.handle_link(START, true);
        let mut session = Session {
            engine,
            secrets,
            closed: DropCounters::default(),
            now: START,
            sent: 0,
            slot: vec![0; FRAME_LEN_MAX],
            events: Vec::new(),
            followed: None,
            early: VecDeque::new(),
            newest: BTreeMap::new(),
            ever_proven: false,
            proven: false,
            full: false,
            frames: 0,
            far: 0,
        };
        session.settle();
        Some(session)
    }

    /// Shows the engine one frame, seen so long after the start of the recording.
    pub(super) fn take(&mut self, time: Duration, source: IpAddr, ttl: u8, frame: &[u8]) {
        self.pass(START + time);
        self.frames += 1;
        if ttl != TTL {
            // A node's transport refuses it.
            self.far += 1;
            return;
        }
        match self.clear(frame) {
            Ok(frame) => self.take_clear(source, &frame),
            Err(reason) => self.closed.count(reason),
        }
    }

    /// The frame without its seal. What is wrong with it otherwise the engine finds and counts.
    fn clear(&self, frame: &[u8]) -> Result<Vec<u8>, FrameError> {
        let mut opened = frame.to_vec();
        match unseal(&self.secrets, &mut opened) {
            Err(reason @ (FrameError::Sealed | FrameError::Forged)) => Err(reason),
            Err(_) => Ok(frame.to_vec()),
            Ok(opened) => {
                let mut slot = vec![0; frame.len()];
                let length = opened.write_unsealed(&mut slot).unwrap_or_default();
                slot.truncate(length);
                Ok(slot)
            }
        }
    }

    fn take_clear(&mut self, source: IpAddr, frame: &[u8]) {
        self.note_newest(frame);
        let before = self.followed;
        self.show(source, self.with_us(frame).unwrap_or_else(|| frame.to_vec()));
        self.keep_early(source, frame);
        if self.followed != before {
            for (stream, source, frame) in std::mem::take(&mut self.early) {
                if self.followed == Some(stream) {
                    self.show(source, frame);
                }
            }
        }
    }

    fn show(&mut self, source: IpAddr, mut frame: Vec<u8>) {
        self.engine.handle_frame(self.now, FrameMeta { link: 0, source }, &mut frame);
        self.settle();
    }

    /// Keeps DATA of a stream that is not followed yet.
    fn keep_early(&mut self, source: IpAddr, frame: &[u8]) {
        let Ok(header) = Frame::parse(frame).map(|frame| frame.header()) else { return };
        let stream = (header.node.0, header.term);
        if header.kind == Kind::DATA && self.followed != Some(stream) {
            if self.early.len() == EARLY_MAX {
                self.early.pop_front();
            }
            self.early.push_back((stream, source, frame.to_vec()));
        }
    }

    /// What has happened since the last call, in words.
    pub(super) fn events(&mut self) -> Vec<String> {
        std::mem::take(&mut self.events)
    }

    /// The table.
    pub(super) fn flows(&self) -> impl Iterator<Item = Flow> {
        self.engine.flows(self.now)
    }

    /// Why the table may not be the master's; `None` if it is proven to be.
    pub(super) fn unproven(&self) -> Option<String> {
        let closed = self.closed.total();
        if closed > 0 && self.followed.is_none() {
            return Some(format!("{closed} frames are sealed, and no secret opens them; name it with --secret-file"));
        }
        let Some(followed) = self.followed else {
            return Some("no master was heard long enough to be followed".to_owned());
        };
        if self.full {
            return Some("the table is full; name a larger one with --capacity".to_owned());
        }
        if !self.ever_proven {
            return Some(
                "the recording starts after the first join, or lacks frames: its table was never proven \
                 equal to its master's"
                    .to_owned(),
            );
        }
        if !self.proven {
            return Some(
                "its table was proven equal to its master's once, and is not any more: frames are missing".to_owned(),
            );
        }
        let newest = self.newest.get(&followed).copied().unwrap_or(0);
        let frontier = self.engine.status().frontier;
        (frontier < newest)
            .then(|| format!("the end lacks frames: {newest} were sent, and {frontier} are there without a gap"))
    }

    /// How it went, in one line.
    pub(super) fn words(&self) -> String {
        let verdict = self.unproven().unwrap_or_else(|| "proven equal to its master's table".to_owned());
        let status = self.engine.status();
        let mut text = format!("{} frames, {} flows, term {}: {verdict}", self.frames, status.entries, status.term);
        for (name, count) in self.drops() {
            text += &format!("; {count} × {name}");
        }
        text
    }

    /// How it went, as JSON.
    pub(super) fn json(&self) -> Value {
        let status = self.engine.status();
        json!({
            "profile": "ssyncp",
            "frames": self.frames,
            "entries": status.entries,
            "master": status.master.map(|node| node.0),
            "term": status.term,
            "digest": format!("{:016x}", status.digest),
            "proven": self.unproven().is_none(),
            "reason": self.unproven(),
            "refused": self.drops().collect::<BTreeMap<_, _>>(),
        })
    }

    /// Frames that were refused, by reason.
    fn drops(&self) -> impl Iterator<Item = (String, u64)> {
        let counted = self.engine.status().counters.into_iter();
        let drops = counted.filter_map(|(name, count)| name.strip_prefix("drop_").map(|name| (name.to_owned(), count)));
        let closed = self.closed.iter().map(|(name, count)| (name.to_owned(), count));
        drops.chain(closed).chain([("ttl".to_owned(), self.far)]).filter(|(_, count)| *count > 0)
    }

    /// Lets the time until `target` pass, with everything that the engine does meanwhile.
    fn pass(&mut self, target: Instant) {
        for _ in 0..STEPS_MAX {
            let Some(due) = self.engine.poll_timeout().filter(|due| *due < target) else { break };
            self.now = if due > self.now { due } else { self.now + STEP };
            if self.now >= target {
                break;
            }
            self.engine.handle_timeout(self.now);
            self.settle();
        }
        self.now = self.now.max(target);
        self.engine.handle_timeout(self.now);
        self.settle();
    }

    /// Takes from the engine whatever it has to say.
    fn settle(&mut self) {
        for _ in 0..SENT_MAX {
            let Some(length) = self.engine.poll_transmit(self.now, &mut self.slot) else { break };
            if let Ok(frame) = Frame::parse(&self.slot[..length])
                && frame.header().kind != Kind::DATA
            {
                self.sent = frame.header().seq;
            }
        }
        let mut applied = Vec::new();
        while self.engine.poll_applied(self.now, &mut applied, 256) > 0 {
            applied.clear();
        }
        while let Some(event) = self.engine.poll_event() {
            self.note(&event);
        }
    }

    fn note(&mut self, event: &Event) {
        match event {
            Event::NewMaster { node, term } => self.followed = Some((node.0, *term)),
            Event::SyncStarted { .. } | Event::Diverged { .. } => self.proven = false,
            Event::InSync { .. } => (self.proven, self.ever_proven) = (true, true),
            Event::TableFull { .. } => self.full = true,
            _ => {}
        }
        self.events.push(journal::describe(event));
    }

    fn note_newest(&mut self, frame: &[u8]) {
        let Ok(frame) = Frame::parse(frame) else { return };
        let header = frame.header();
        let newest = match frame.verify().map(|verified| verified.payload()) {
            Ok(Payload::Data(_)) => header.seq,
            Ok(Payload::Advert(advert)) if advert.role == WireRole::MASTER => advert.stream_seq,
            _ => return,
        };
        let stream = (header.node.0, header.term);
        if self.newest.len() < STREAMS_MAX || self.newest.contains_key(&stream) {
            let known = self.newest.entry(stream).or_default();
            *known = newest.max(*known);
        }
    }

    /// An ADVERT with the line that names our engine; `None` for what is no ADVERT, or cannot have one.
    fn with_us(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let frame = Frame::parse(frame).ok()?;
        let header = frame.header();
        let verified = frame.verify().ok()?;
        match verified.payload() {
            Payload::Advert(advert) if self.sent > 0 => hearing(header, &advert, self.sent),
            _ => None,
        }
    }
}

/// The ADVERT as its sender would have written it if it heard us.
fn hearing(header: Header, advert: &Advert<'_>, heard: u64) -> Option<Vec<u8>> {
    let mut peers: Vec<PeerReport> = advert.peers.iter().take(PEERS_MAX - 1).copied().collect();
    peers.push(PeerReport::new(OWN_NODE, INCARNATION, 0, heard, 0));
    let mut slot = vec![0; FRAME_LEN_MAX];
    let length = encode_advert(&mut slot, header, &Advert { peers: &peers, ..*advert })?;
    slot.truncate(length);
    Some(slot)
}
