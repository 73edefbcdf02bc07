//! A sealed pair in one process: what its nodes say is held back while they are told forgeries of it.

use super::mutate::{Dice, How, Kind, mend};
use ssyncp::engine::{Auth, Config, Engine, Role, SyncState};
use ssyncp::flow::{Change, Flow, FlowKey, Zone, protocol};
use ssyncp::time::{Duration, Instant};
use ssyncp::wire::{FRAME_LEN_MAX, FrameMeta, NodeId, SECRET_LEN, Sealer, Secret, unseal};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

const META: FrameMeta = FrameMeta { link: 0, source: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)) };
const SYNC_ID: u8 = 51;
/// The secret that frames are sealed with, and the one beside it, by their numbers.
const SECRETS: [u8; 2] = [1, 2];
/// Time between two honest words.
const STEP: Duration = Duration::from_millis(40);
/// Time that one forged frame takes.
const FORGERY: Duration = Duration::from_nanos(1000);
/// Steps in which the pair has to find together.
const STEPS_MAX: usize = 1000;
/// Flows that come and go.
const FLOWS: u64 = 4096;
/// Frames that were taken and are kept for replays, of each node.
const KEPT: usize = 256;

pub(crate) struct Pair {
    now: Instant,
    nodes: [Engine; 2],
    /// What a node has sent, and the other has not been told yet.
    waiting: [Vec<Vec<u8>>; 2],
    /// What a node has sent, and the other has taken.
    taken: [Vec<Vec<u8>>; 2],
    refused: u64,
}

/// What nobody without the secret may change of a node.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct State {
    role: Role,
    term: u64,
    master: Option<NodeId>,
    sync: SyncState,
    digest: u64,
    entries: u64,
    frontier: u64,
    /// Node, incarnation, established, role, priority, and what it holds.
    peers: Vec<(NodeId, u64, bool, Role, u8, u64)>,
}

impl Pair {
    /// A master, and a backup that is proven equal.
    pub(crate) fn in_sync(seed: u64) -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let engine = |node: u32| {
            let config = Config {
                incarnation: (seed ^ 0x5ea1_ed00_0000_0000) | u64::from(node),
                seed,
                secrets: SECRETS.map(secret).to_vec(),
                auth: Auth::Enforce,
                role: ssyncp::engine::RoleMode::Vrrp,
                priority: if node == 1 { 200 } else { 100 },
                capacity: 2 * FLOWS as u32,
                ..Config::new(NodeId(node), SYNC_ID)
            };
            let mut engine = Engine::new(config, now).expect("a valid configuration");
            engine.handle_link(now, true);
            engine
        };
        let nodes = [engine(1), engine(2)];
        let mut pair = Pair { now, nodes, waiting: Default::default(), taken: Default::default(), refused: 0 };
        pair.settle(|pair| pair.nodes[0].role() == Role::Master);
        pair.nodes[0].begin_dump(pair.now);
        for number in 0..FLOWS / 2 {
            pair.change(&Change::Upsert(flow(number, 3)));
        }
        pair.nodes[0].end_dump(pair.now);
        assert!(pair.ends_in_sync(), "a sealed pair finds together");
        pair
    }

    /// Lets the pair speak and listen until it is so; whether it was.
    fn settle(&mut self, done: impl Fn(&Pair) -> bool) -> bool {
        for _ in 0..STEPS_MAX {
            if done(self) {
                return true;
            }
            self.now += Duration::from_millis(5);
            self.transmit();
            self.deliver();
        }
        false
    }

    /// Whether the pair, left alone, is in sync at the end, with the same table.
    pub(crate) fn ends_in_sync(&mut self) -> bool {
        self.settle(|pair| {
            let [master, backup] = [pair.nodes[0].status(), pair.nodes[1].status()];
            backup.sync == SyncState::InSync
                && (master.digest, master.entries, master.pending) == (backup.digest, backup.entries, 0)
        })
    }

    fn change(&mut self, change: &Change) {
        self.nodes[0].update(self.now, change).expect("a master with room takes it");
    }

    /// A while passes: flows change, and both nodes say what they have to say. Nobody hears it yet.
    pub(crate) fn speak(&mut self, dice: &mut Dice) {
        self.now += STEP;
        for _ in 0..=dice.roll(8) {
            let (number, state) = (dice.next() % FLOWS, dice.roll(4) as u8);
            let change = match state {
                0 => Change::Delete(flow(number, 3).key),
                state => Change::Upsert(flow(number, state)),
            };
            self.change(&change);
        }
        self.transmit();
    }

    fn transmit(&mut self) {
        let mut slot = [0; FRAME_LEN_MAX];
        for (node, waiting) in self.nodes.iter_mut().zip(&mut self.waiting) {
            node.handle_timeout(self.now);
            let mut batch = Vec::new();
            node.poll_applied(self.now, &mut batch, usize::MAX);
            node.handle_committed(self.now);
            while node.poll_event().is_some() {}
            while let Some(length) = node.poll_transmit(self.now, &mut slot[..1480]) {
                waiting.push(slot[..length].to_vec());
            }
        }
    }

    /// Whether a frame is on its way to this node.
    pub(crate) fn waits_for(&self, victim: usize) -> bool {
        !self.waiting[1 - victim].is_empty()
    }

    /// Gives both nodes what was held back; how many frames that were.
    pub(crate) fn deliver(&mut self) -> u64 {
        let before = self.refusals();
        let mut count = 0;
        for from in 0..2 {
            for frame in std::mem::take(&mut self.waiting[from]) {
                self.nodes[1 - from].handle_frame(self.now, META, &mut frame.clone());
                if self.taken[from].len() == KEPT {
                    self.taken[from].remove(0);
                }
                self.taken[from].push(frame);
                count += 1;
            }
        }
        self.refused += self.refusals() - before;
        count
    }

    /// Honest frames that were refused since this was last asked.
    pub(crate) fn honest_refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }

    fn refusals(&self) -> u64 {
        (0..2).map(|at| self.drops(at).values().sum::<u64>()).sum()
    }

    /// What nobody may change, of both nodes.
    pub(crate) fn state(&self) -> [State; 2] {
        [0, 1].map(|at| {
            let status = self.nodes[at].status();
            let peers = status.peers.iter();
            let peers = peers.map(|it| (it.node, it.incarnation, it.established, it.role, it.priority, it.frontier));
            State {
                role: status.role,
                term: status.term,
                master: status.master,
                sync: status.sync,
                digest: status.digest,
                entries: status.entries,
                frontier: status.frontier,
                peers: peers.collect(),
            }
        })
    }

    /// Tells a node so many forgeries of one kind of what is on its way to it: how many were not taken, by reason; what was
    /// is under "taken".
    pub(crate) fn forge(&mut self, victim: usize, kind: &Kind, count: u64, dice: &mut Dice) -> BTreeMap<String, u64> {
        let before = self.drops(victim);
        let sources = &self.waiting[1 - victim];
        let guessed: Vec<Vec<u8>> = match kind.how {
            How::Guessed => sources.iter().map(|frame| reseal(frame, dice)).collect(),
            _ => Vec::new(),
        };
        let (replayed, node) = (&self.taken[1 - victim], &mut self.nodes[victim]);
        let mut frame = Vec::with_capacity(FRAME_LEN_MAX);
        for _ in 0..count {
            frame.clear();
            match kind.how {
                How::Changed(change) => change_one(&mut frame, dice, sources, replayed, change),
                How::Guessed => frame.extend_from_slice(&guessed[dice.roll(guessed.len())]),
                How::Replayed => frame.extend_from_slice(&replayed[dice.roll(replayed.len())]),
            }
            self.now += FORGERY;
            node.handle_frame(self.now, META, &mut frame);
        }
        let after = self.drops(victim).into_iter();
        let mut reasons: BTreeMap<String, u64> = after.map(|(name, all)| (name.clone(), all - before[&name])).collect();
        let taken = count - reasons.values().sum::<u64>();
        reasons.insert("taken".to_owned(), taken);
        reasons.retain(|_, count| *count > 0);
        reasons
    }

    /// Frames that a node has not taken since its start, by reason. One whose number it holds already is a duplicate, whatever
    /// else it says: nobody looks at it.
    fn drops(&self, at: usize) -> BTreeMap<String, u64> {
        let mut drops = BTreeMap::new();
        for (name, count) in self.nodes[at].status().counters {
            let name = match name.as_str() {
                "duplicates" | "data_duplicate" => "duplicate",
                name => name.strip_prefix("drop_").unwrap_or_default(),
            };
            if !name.is_empty() {
                *drops.entry(name.to_owned()).or_default() += count;
            }
        }
        drops
    }
}

/// One of these frames, changed: with what else its sender has sent, and never into a frame that is on its way.
fn change_one(
    frame: &mut Vec<u8>,
    dice: &mut Dice,
    sources: &[Vec<u8>],
    others: &[Vec<u8>],
    change: fn(&mut Vec<u8>, &mut Dice, &[Vec<u8>]),
) {
    frame.extend_from_slice(&sources[dice.roll(sources.len())]);
    change(frame, dice, others);
    mend(frame);
    if sources.contains(frame) {
        // A change that changed nothing.
        let last = frame.len() - 1;
        frame[last] ^= 1;
        mend(frame);
    }
}

/// The same frame, sealed with a secret of the same number that nobody has configured.
fn reseal(frame: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut opened = frame.to_vec();
    let opened = unseal(&SECRETS.map(secret), &mut opened).expect("an honest frame opens");
    let (header, mut slot) = (opened.header(), vec![0; FRAME_LEN_MAX]);
    let length = opened.write_unsealed(&mut slot).expect("it was opened");
    let id = header.flags.key_id();
    let guess = std::array::from_fn(|_| dice.next() as u8);
    let guess = [Secret::new(id, &guess).expect("a number that there is")];
    let mut sealer = Sealer::new(&guess, header.sync_id, header.node, header.incarnation);
    let length = sealer.seal(id, &mut slot, length).expect("room for the tag");
    slot.truncate(length);
    slot
}

fn secret(id: u8) -> Secret {
    let bytes: [u8; SECRET_LEN] = std::array::from_fn(|at| (at as u8).wrapping_mul(7).wrapping_add(id));
    Secret::new(id, &bytes).expect("a number that there is")
}

fn flow(number: u64, state: u8) -> Flow {
    let key = FlowKey {
        source: IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number as u32)),
        destination: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)),
        source_port: 40_000,
        destination_port: 443,
        protocol: protocol::TCP,
        zone: Zone::DEFAULT,
    };
    Flow { state, status: 0x0e, timeout: 432_000, ..Flow::new(key) }
}
