//! A list of operations on a small cluster: two nodes and a line between them, with somebody hostile on it.
//!
//! Two bytes are one operation. What is checked: no panic, queues within their bounds, no claim of being in sync that is
//! wrong, and after the last operation, with the line whole again, one master and equal tables.

use ssyncp::engine::{Config, Engine, Role, RoleRequest, SyncState};
use ssyncp::flow::{Change, Endpoint, Flow, FlowKey, Section, SectionChange, SectionKey, Zone, attribute};
use ssyncp::time::{Duration, Instant};
use ssyncp::wire::{FRAME_LEN_MAX, FrameMeta, NodeId};
use std::collections::VecDeque;
use std::net::IpAddr;

/// Operations of one run; more bytes are not read.
const OPERATIONS_MAX: usize = 400;
/// The bits of an operation that make it one of the rarer ones.
const RARE: u8 = 0x60;
/// Frames that wait on the line in one direction.
const LINE_MAX: usize = 64;
/// Rounds of 5 ms that the cluster has to find together in the end: five seconds.
const CALM_ROUNDS: usize = 1000;
pub(super) const CAPACITY: u32 = 48;

struct Node {
    engine: Engine,
    /// Frames on their way to it.
    inbound: VecDeque<Vec<u8>>,
}

struct World {
    now: Instant,
    nodes: [Node; 2],
    lives: u64,
}

/// Lists of operations: some of everything, changes and losses, damage and restarts; and a table that is filled.
pub fn seeds() -> Vec<Vec<u8>> {
    let full: Vec<u8> = (0..CAPACITY as u8).flat_map(|number| [2, number, 0x82, number]).collect();
    let begun = [0, 40, 4, 64, 0x84, 64].repeat(12);
    let filled = [&begun[..], &full, &[2, 40, 0x82, 41, 12, 1, 0x8c, 1].repeat(8)].concat();
    vec![filled, (0..=255).collect(), [3, 200, 0, 5, 1, 40].repeat(40), [9, 4, 1, 250, 7, 30].repeat(60)]
}

/// See the module.
pub fn engine(data: &[u8]) {
    let mut world = World::new();
    for operation in data.chunks_exact(2).take(OPERATIONS_MAX) {
        world.operate(operation[0], operation[1]);
        world.check();
    }
    world.calm();
}

pub(super) fn config(node: usize, life: u64) -> Config {
    Config {
        incarnation: 1000 * (node as u64 + 1) + life,
        seed: life * 7 + node as u64,
        capacity: CAPACITY,
        tombstones: 16,
        history: 16,
        frame_len: 1208,
        advert_interval: Duration::from_millis(20),
        priority: 100 + node as u8,
        ..Config::new(NodeId(node as u32 + 1), 51)
    }
}

/// 64 keys, three of eight of IPv6, each with four values: plain, behind NAT, with an attribute that nobody knows, and
/// with so many that a dozen of them fill the annex.
pub(super) fn flow(number: u8) -> Flow {
    let last = number & 63;
    let wide = number & 7 >= 5;
    let address = |host: u8| match wide {
        true => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(host)]),
        false => IpAddr::from([10, 0, 0, host]),
    };
    let key = FlowKey {
        source: address(last),
        destination: address(200),
        source_port: 1024 + u16::from(last),
        destination_port: 80,
        protocol: if wide { 132 } else { 6 },
        zone: Zone { id: u16::from(number & 1), direction: 0 },
    };
    let mut flow = Flow { state: 3, status: 0x0e, timeout: 600, mark: u32::from(number >> 6), ..Flow::new(key) };
    match number >> 6 {
        0 => {}
        1 => flow.reply_source = Some(Endpoint { address: address(100), port: 8080 }),
        2 => flow.attributes.set(201, &[number; 9]).expect("room"),
        _ => {
            for kind in [attribute::EXPECTATIONS, 202] {
                flow.attributes.set(kind, &[number; 190]).expect("room");
            }
        }
    }
    flow
}

impl World {
    fn new() -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let node = |at| {
            let mut engine = Engine::new(config(at, 1), now).expect("a valid configuration");
            engine.handle_link(now, true);
            Node { engine, inbound: VecDeque::new() }
        };
        World { now, nodes: [node(0), node(1)], lives: 1 }
    }

    fn operate(&mut self, what: u8, how: u8) {
        let at = usize::from(what >> 7);
        match what & 0x0f {
            _ if what & RARE == RARE => self.operate_rarely(at, what & 0x0f, how),
            0 => self.pass(Duration::from_millis(u64::from(how))),
            1 => self.pass(Duration::from_millis(u64::from(how) * 20)),
            2 => drop(self.nodes[at].engine.update(self.now, &Change::Upsert(flow(how)))),
            3 => drop(self.nodes[at].engine.update(self.now, &Change::Delete(flow(how).key))),
            4 => self.deliver(at, usize::from(how)),
            5 => drop(self.nodes[at].inbound.remove(usize::from(how) % LINE_MAX)),
            6 => {
                if let Some(frame) = self.nodes[at].inbound.get(usize::from(how) % LINE_MAX).cloned() {
                    self.nodes[at].inbound.push_back(frame);
                }
            }
            7 => self.damage(at, how, false),
            8 => self.damage(at, how, true),
            9 => self.nodes[at].engine.handle_link(self.now, how & 1 == 1),
            10 => {
                let request = [RoleRequest::Master, RoleRequest::Backup, RoleRequest::None][usize::from(how) % 3];
                self.nodes[at].engine.set_role(self.now, request);
            }
            11 => self.restart(at),
            12 => self.dump(at, how),
            13 => drop(self.nodes[at].engine.set_priority(self.now, how)),
            14 => {
                // Its own frames come back, or the other's reach the wrong one.
                if let Some(frame) = self.nodes[1 - at].inbound.front().cloned() {
                    self.nodes[at].inbound.push_back(frame);
                }
            }
            _ => self.nodes[at].engine.source_overrun(self.now),
        }
        self.turn();
    }

    fn operate_rarely(&mut self, at: usize, what: u8, how: u8) {
        match what {
            0..=3 => self.put_section(at, how),
            4 | 5 => {
                let key = SectionKey { table: 7, key: vec![how & 3].into() };
                let _ = self.nodes[at].engine.update_section(self.now, &SectionChange::Delete(key));
            }
            6..=9 => self.deliver(at, LINE_MAX),
            // Time for a frame to gather.
            _ => self.pass(Duration::from_millis(2)),
        }
    }

    /// One of four keys gets a value of up to three frames, or none.
    fn put_section(&mut self, at: usize, how: u8) {
        let key = SectionKey { table: 7, key: vec![how & 3].into() };
        let expiry = u32::from(how >> 6);
        let value = vec![how; usize::from(how >> 2 & 15) * 200];
        let put = SectionChange::Put(Section { key, value: value.into(), expiry });
        let _ = self.nodes[at].engine.update_section(self.now, &put);
    }

    /// Both nodes' turns: time-outs, sinks, events, frames onto the line.
    fn turn(&mut self) {
        for at in 0..2 {
            let engine = &mut self.nodes[at].engine;
            engine.handle_timeout(self.now);
            let mut batch = Vec::new();
            while engine.poll_applied(self.now, &mut batch, 64) > 0 {
                batch.clear();
            }
            while engine.poll_section(self.now).is_some() {}
            engine.handle_committed(self.now);
            while engine.poll_event().is_some() {}
            let mut slot = [0; FRAME_LEN_MAX];
            for _ in 0..LINE_MAX {
                let Some(len) = self.nodes[at].engine.poll_transmit(self.now, &mut slot[..1208]) else { break };
                let other = &mut self.nodes[1 - at].inbound;
                if other.len() < LINE_MAX {
                    other.push_back(slot[..len].to_vec());
                }
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn deliver(&mut self, at: usize, most: usize) {
        let meta = FrameMeta { link: 0, source: IpAddr::from([10, 99, 0, 1]) };
        for _ in 0..=most {
            let Some(mut frame) = self.nodes[at].inbound.pop_front() else { break };
            self.nodes[at].engine.handle_frame(self.now, meta, &mut frame);
        }
    }

    /// One byte of a waiting frame changes; with `mended` its checksum is right again, as a hostile sender's would be.
    fn damage(&mut self, at: usize, how: u8, mended: bool) {
        let number = usize::from(how & 3);
        let Some(frame) = self.nodes[at].inbound.get_mut(number) else { return };
        let place = usize::from(how) * 5 % frame.len();
        frame[place] ^= 1 << (how & 7);
        if mended {
            super::frames::mend(frame);
        }
    }

    fn restart(&mut self, at: usize) {
        self.lives += 1;
        let mut engine = Engine::new(config(at, self.lives), self.now).expect("a valid configuration");
        engine.handle_link(self.now, true);
        self.nodes[at].engine = engine;
    }

    fn dump(&mut self, at: usize, how: u8) {
        let engine = &mut self.nodes[at].engine;
        engine.begin_dump(self.now);
        for number in 0..how & 31 {
            let _ = engine.update(self.now, &Change::Upsert(flow(number.wrapping_mul(37))));
        }
        engine.end_dump(self.now);
    }

    fn check(&self) {
        for node in &self.nodes {
            assert!(node.engine.entries() <= u64::from(CAPACITY), "more flows than fit");
            assert!(node.engine.peers().len() <= 32, "more peers than fit");
        }
    }

    /// Nobody interferes any more: everything that is sent arrives.
    fn calm(&mut self) {
        for at in 0..2 {
            self.nodes[at].inbound.clear();
            // A forged frame may have carried off a term or an incarnation for good; a restart is what an operator does.
            self.restart(at);
        }
        for _ in 0..CALM_ROUNDS {
            self.pass(Duration::from_millis(5));
            self.turn();
            for at in 0..2 {
                self.deliver(at, LINE_MAX);
                let engine = &mut self.nodes[at].engine;
                if engine.role() == Role::Master && engine.is_cold() {
                    engine.begin_dump(self.now);
                    for number in 0_u8..9 {
                        let kept = engine.update(self.now, &Change::Upsert(flow(number.wrapping_mul(29))));
                        assert_eq!(kept, Ok(()));
                    }
                    engine.end_dump(self.now);
                }
            }
            if self.found_together() {
                return;
            }
        }
        let roles = [self.nodes[0].engine.role(), self.nodes[1].engine.role()];
        let [a, b] = [self.nodes[0].engine.status(), self.nodes[1].engine.status()];
        panic!("not together: {roles:?}, {a:#?}, {b:#?}");
    }

    /// One master and one backup, which holds the same nine flows and is proven to.
    fn found_together(&self) -> bool {
        let [a, b] = [&self.nodes[0].engine, &self.nodes[1].engine];
        let backup = match [a.role(), b.role()] {
            [Role::Master, Role::Backup] => b,
            [Role::Backup, Role::Master] => a,
            _ => return false,
        };
        if backup.sync_state() != SyncState::InSync {
            return false;
        }
        let [a, b] = [a.status(), b.status()];
        (a.entries, b.entries) == (9, 9) && a.digest == b.digest
    }
}
