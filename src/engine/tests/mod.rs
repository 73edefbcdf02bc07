//! A small world for the engine's own tests: engines, a network with a fixed delay that can lose, and virtual time. It
//! calls an engine exactly as the daemon does, so a node that would spin or sleep for ever does so here too, and is caught.

mod audit;
mod chaos;
mod classic;
mod clocks;
mod counters;
mod digests;
mod durability;
mod handover;
mod hostile;
mod insane;
mod links;
mod merge;
mod operator;
mod pacing;
mod patience;
mod repair;
mod replays;
mod roles;
mod rotation;
mod rules;
mod seal;
mod sections;
mod stream;
mod wide;
mod window;
mod wrap;

use super::*;
use crate::flow::{Endpoint, FlowKey, SectionChange, SectionKey, TcpInfo, Zone, protocol};
use crate::time::Duration;
use crate::wire::Secret;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// One way through the network.
const DELAY: Duration = Duration::from_micros(50);

/// Turns without a step of time after which a node counts as spinning.
const SPIN_MAX: u32 = 100;

pub(super) struct Node {
    pub(super) engine: Engine,
    pub(super) events: Vec<Event>,
    /// What the sink was given: the oracle of the backup's kernel.
    pub(super) sink: BTreeMap<FlowKey, Flow>,
    /// The values of sections that its owner was given.
    pub(super) sections: BTreeMap<SectionKey, Box<[u8]>>,
    /// Whether the sink answers; a takeover waits for it.
    pub(super) commits: bool,
}

struct InFlight {
    at: Instant,
    to: usize,
    bytes: Vec<u8>,
}

/// A node that takes one frame at a time, from a socket that holds few.
pub(super) struct Socket {
    pub(super) node: usize,
    /// Time from one frame to the next.
    pub(super) pace: Duration,
    pub(super) room: usize,
    pub(super) waiting: VecDeque<Vec<u8>>,
    pub(super) next_at: Instant,
    /// Frames that found it full.
    pub(super) lost: u32,
}

/// Decides the fate of a frame: from, to, bytes. `false` loses it.
type Passes = Box<dyn FnMut(usize, usize, &[u8]) -> bool>;

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) nodes: Vec<Option<Node>>,
    network: VecDeque<InFlight>,
    pub(super) socket: Option<Socket>,
    pub(super) passes: Passes,
    /// Sync links: each frame comes by all of them, one after the other.
    pub(super) links: u8,
    /// Bytes that a link carries: the length of the slots that engines are lent.
    pub(super) slot_len: usize,
    /// Every frame that left: when, from whom, its bytes.
    pub(super) sent: Vec<(Instant, usize, Vec<u8>)>,
}

pub(super) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub(super) fn config(node: u32) -> Config {
    Config {
        incarnation: 1000 + u64::from(node),
        seed: 77 * u64::from(node),
        capacity: 100_000,
        history: 256,
        ..Config::new(NodeId(node), 51)
    }
}

impl World {
    pub(super) fn new(configs: Vec<Config>) -> Self {
        let mut world = World {
            now: Instant::from_nanos(1_000_000_000),
            nodes: Vec::new(),
            network: VecDeque::new(),
            socket: None,
            passes: Box::new(|_, _, _| true),
            links: 1,
            slot_len: 1480,
            sent: Vec::new(),
        };
        for config in configs {
            world.nodes.push(None);
            world.start(world.nodes.len() - 1, config);
        }
        world
    }

    /// Two nodes of priority 150 and 100.
    pub(super) fn pair() -> Self {
        World::new(vec![Config { priority: 150, ..config(1) }, config(2)])
    }

    /// A pair after its first election in which nobody takes the role from a living master.
    pub(super) fn elected_pair_without_preempt() -> Self {
        let patient = |config: Config| Config { preempt: false, ..config };
        World::new(vec![patient(Config { priority: 150, ..config(1) }), patient(config(2))]).elected()
    }

    /// A pair after its first election: node 0 is master, and has dumped an empty source.
    pub(super) fn elected_pair() -> Self {
        World::pair().elected()
    }

    fn elected(mut self) -> Self {
        self.run(Duration::from_secs(1));
        assert_eq!((self.role(0), self.role(1)), (Role::Master, Role::Backup));
        self.dump_done(0);
        self.run(ms(300));
        self
    }

    pub(super) fn start(&mut self, at: usize, config: Config) {
        let mut engine = Engine::new(config, self.now).unwrap();
        engine.handle_link(self.now, true);
        self.nodes[at] =
            Some(Node { engine, events: Vec::new(), sink: BTreeMap::new(), sections: BTreeMap::new(), commits: true });
    }

    pub(super) fn kill(&mut self, at: usize) {
        self.nodes[at] = None;
        self.network.retain(|frame| frame.to != at);
    }

    pub(super) fn node(&mut self, at: usize) -> &mut Node {
        self.nodes[at].as_mut().unwrap()
    }

    pub(super) fn engine(&self, at: usize) -> &Engine {
        &self.nodes[at].as_ref().unwrap().engine
    }

    pub(super) fn role(&self, at: usize) -> Role {
        self.engine(at).role()
    }

    pub(super) fn sync(&self, at: usize) -> SyncState {
        self.engine(at).sync_state()
    }

    pub(super) fn counter(&self, at: usize, name: &str) -> u64 {
        let counters = self.engine(at).status().counters;
        counters.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("no counter {name}")).1
    }

    pub(super) fn events(&self, at: usize, name: &str) -> usize {
        self.nodes[at].as_ref().unwrap().events.iter().filter(|event| event.name() == name).count()
    }

    pub(super) fn table(&self, at: usize) -> BTreeMap<FlowKey, Flow> {
        let flows = self.engine(at).flows(self.now);
        flows.map(|flow| (flow.key, Flow { timeout: 0, ..flow })).collect()
    }

    pub(super) fn update(&mut self, at: usize, change: Change) {
        let now = self.now;
        self.node(at).engine.update(now, &change).unwrap();
    }

    pub(super) fn upsert(&mut self, at: usize, number: u32) {
        self.update(at, Change::Upsert(flow(number)));
    }

    pub(super) fn dump_done(&mut self, at: usize) {
        let now = self.now;
        self.node(at).engine.begin_dump(now);
        self.node(at).engine.end_dump(now);
    }

    /// Lets the world run for a while.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        let mut spins = 0;
        loop {
            self.turns();
            let next = self.next_event();
            spins = if next > self.now { 0 } else { spins + 1 };
            assert!(spins < SPIN_MAX, "a node spins: it says that something is due, and does nothing about it");
            if next > end {
                break;
            }
            self.now = next.max(self.now);
            self.deliver();
            self.read_slowly();
        }
        self.now = end;
    }

    /// Runs until `done`, at most 60 s; the time that it took.
    pub(super) fn run_until(&mut self, what: &str, mut done: impl FnMut(&World) -> bool) -> Duration {
        self.run_until_with(what, |world| done(world))
    }

    /// The same, where something may be done to the world each millisecond.
    pub(super) fn run_until_with(&mut self, what: &str, mut done: impl FnMut(&mut World) -> bool) -> Duration {
        let start = self.now;
        while !done(self) {
            assert!(self.now.since(start) < Duration::from_secs(60), "{what}: not within a minute");
            self.run(ms(1));
        }
        self.now.since(start)
    }

    /// One turn of every node, in the daemon's order.
    fn turns(&mut self) {
        for at in 0..self.nodes.len() {
            let Some(node) = &mut self.nodes[at] else { continue };
            node.engine.handle_timeout(self.now);
            let mut batch = Vec::new();
            node.engine.poll_applied(self.now, &mut batch, usize::MAX);
            for change in batch {
                match change {
                    Change::Upsert(flow) => drop(node.sink.insert(flow.key, flow)),
                    Change::Delete(key) => drop(node.sink.remove(&key)),
                }
            }
            while let Some(change) = node.engine.poll_section(self.now) {
                match change {
                    SectionChange::Put(section) => drop(node.sections.insert(section.key, section.value)),
                    SectionChange::Delete(key) => drop(node.sections.remove(&key)),
                }
            }
            if node.commits {
                node.engine.handle_committed(self.now);
            }
            while let Some(event) = node.engine.poll_event() {
                node.events.push(event);
            }
            let mut slot = [0; 8960];
            let slot_len = self.slot_len;
            let now = self.now;
            while let Some(length) = self.node(at).engine.poll_transmit(now, &mut slot[..slot_len]) {
                self.carry(at, &slot[..length]);
            }
        }
    }

    fn carry(&mut self, from: usize, bytes: &[u8]) {
        self.sent.push((self.now, from, bytes.to_vec()));
        for to in (0..self.nodes.len()).filter(|to| *to != from) {
            if self.nodes[to].is_some() && (self.passes)(from, to, bytes) {
                self.network.push_back(InFlight { at: self.now + DELAY, to, bytes: bytes.to_vec() });
            }
        }
    }

    fn next_event(&self) -> Instant {
        let frame = self.network.front().map(|frame| frame.at);
        let timers = self.nodes.iter().flatten().filter_map(|node| node.engine.poll_timeout());
        let read = self.socket.as_ref().filter(|socket| !socket.waiting.is_empty()).map(|socket| socket.next_at);
        timers.chain(frame).chain(read).min().unwrap_or(Instant::from_nanos(u64::MAX)).max(self.now)
    }

    fn deliver(&mut self) {
        while self.network.front().is_some_and(|frame| frame.at <= self.now) {
            let mut frame = self.network.pop_front().unwrap();
            if let Some(socket) = self.socket.as_mut().filter(|socket| socket.node == frame.to) {
                let fits = socket.waiting.len() < socket.room;
                socket.lost += u32::from(!fits);
                socket.waiting.extend(fits.then_some(frame.bytes));
                continue;
            }
            for link in 0..self.links {
                self.hand_in_by(link, frame.to, &mut frame.bytes);
            }
        }
    }

    fn read_slowly(&mut self) {
        let now = self.now;
        let Some(socket) = self.socket.as_mut().filter(|socket| socket.next_at <= now) else { return };
        let Some(mut bytes) = socket.waiting.pop_front() else { return };
        socket.next_at = now + socket.pace;
        let node = socket.node;
        self.hand_in(node, &mut bytes);
    }

    /// Hands a frame in as if it had come from the network.
    pub(super) fn hand_in(&mut self, to: usize, bytes: &mut [u8]) {
        self.hand_in_by(0, to, bytes);
    }

    /// The same, by one of several sync links.
    pub(super) fn hand_in_by(&mut self, link: u8, to: usize, bytes: &mut [u8]) {
        self.hand_in_as(FrameMeta { link, source: IpAddr::V4(Ipv4Addr::LOCALHOST) }, to, bytes);
    }

    /// The same, from wherever.
    pub(super) fn hand_in_as(&mut self, meta: FrameMeta, to: usize, bytes: &mut [u8]) {
        let now = self.now;
        if let Some(node) = &mut self.nodes[to] {
            node.engine.handle_frame(now, meta, bytes);
        }
    }

    /// Asserts that two nodes hold the same, by content and by digest.
    pub(super) fn assert_equal(&self, one: usize, other: usize) {
        assert_eq!(self.table(one), self.table(other));
        assert_eq!(self.engine(one).status().digest, self.engine(other).status().digest);
    }
}

/// A generator for the tests' own dice.
pub(super) fn dice(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |sides| splitmix64(&mut state) % sides
}

pub(super) fn key(number: u32) -> FlowKey {
    FlowKey {
        source: IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number / 1000)),
        destination: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)),
        source_port: 1024 + (number % 1000) as u16,
        destination_port: 443,
        protocol: protocol::TCP,
        zone: Zone::DEFAULT,
    }
}

pub(super) fn flow(number: u32) -> Flow {
    Flow {
        reply_source: Some(Endpoint { address: IpAddr::V4(Ipv4Addr::new(10, 2, 0, 7)), port: 8443 }),
        state: 3,
        status: 0x0e,
        timeout: 432_000,
        tcp: Some(TcpInfo { window_scale_original: 7, window_scale_reply: 8, flags_original: 3, flags_reply: 3 }),
        ..Flow::new(key(number))
    }
}
