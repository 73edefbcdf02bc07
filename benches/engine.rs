//! One engine turn, beside what it cannot be cheaper than: a thousand changes from the source to the peer's table, and the
//! same thousand into two plain hash maps with nothing between them.
//!
//! `cargo bench --bench engine`

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ssyncp::engine::{Config, Engine, Role};
use ssyncp::flow::{Change, Flow, FlowKey, Zone, protocol};
use ssyncp::time::{Duration, Instant};
use ssyncp::wire::{FrameMeta, NodeId};
use std::collections::HashMap;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

const CHANGES: u32 = 1000;
/// Flows that the tables hold beside those that change.
const HELD: u32 = 200_000;
const META: FrameMeta = FrameMeta { link: 0, source: IpAddr::V4(Ipv4Addr::LOCALHOST) };

fn flow(number: u32, state: u8) -> Flow {
    let key = FlowKey {
        source: IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number)),
        destination: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)),
        source_port: 40_000,
        destination_port: 443,
        protocol: protocol::TCP,
        zone: Zone::DEFAULT,
    };
    Flow { state, status: 0x0e, timeout: 432_000, ..Flow::new(key) }
}

/// A master and its backup, in sync, without anything between them.
struct Pair {
    now: Instant,
    master: Engine,
    backup: Engine,
    slot: [u8; 1480],
    batch: Vec<Change>,
}

impl Pair {
    fn in_sync() -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let engine = |node: u32, priority| {
            let config = Config { incarnation: u64::from(node), seed: 5, priority, ..Config::new(NodeId(node), 1) };
            let mut engine = Engine::new(config, now).expect("a valid configuration");
            engine.handle_link(now, true);
            engine
        };
        let (master, backup) = (engine(1, 200), engine(2, 100));
        let mut pair = Pair { now, master, backup, slot: [0; 1480], batch: Vec::with_capacity(1 << 18) };
        while pair.master.role() != Role::Master {
            pair.turn();
        }
        pair.master.begin_dump(pair.now);
        pair.master.end_dump(pair.now);
        for number in 0..HELD {
            pair.change(number, 1);
            if number % CHANGES == 0 {
                pair.turn();
            }
        }
        (0..300).for_each(|_| pair.turn());
        assert_eq!(pair.backup.status().entries, u64::from(HELD));
        pair
    }

    fn change(&mut self, number: u32, state: u8) {
        self.master.update(self.now, &Change::Upsert(flow(number, state))).expect("there is room");
    }

    /// Two milliseconds: everything that waits leaves, arrives, is applied and acknowledged.
    fn turn(&mut self) {
        for _ in 0..2 {
            self.now += Duration::from_millis(1);
            exchange(self.now, &mut self.master, &mut self.backup, &mut self.slot);
            exchange(self.now, &mut self.backup, &mut self.master, &mut self.slot);
            self.batch.clear();
            self.backup.poll_applied(self.now, &mut self.batch, 1 << 18);
            self.backup.handle_committed(self.now);
            self.master.handle_committed(self.now);
            while self.master.poll_event().is_some() || self.backup.poll_event().is_some() {}
        }
    }
}

fn exchange(now: Instant, from: &mut Engine, to: &mut Engine, slot: &mut [u8]) {
    from.handle_timeout(now);
    while let Some(length) = from.poll_transmit(now, slot) {
        to.handle_frame(now, META, &mut slot[..length]);
    }
}

fn turns(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a thousand changes");
    group.throughput(Throughput::Elements(CHANGES.into())).sample_size(20);

    let mut pair = Pair::in_sync();
    let mut round = 0_u32;
    group.bench_function("source to the peer's table and sink", |bencher| {
        bencher.iter(|| {
            round += 1;
            let state = (round % 200) as u8 + 2;
            // A stride that is prime to the number held: no two changes share a cache line.
            for change in 0..CHANGES {
                pair.change((round.wrapping_mul(7919) % HELD + change * 104_729) % HELD, state);
            }
            pair.turn();
            black_box(pair.batch.len())
        });
    });

    let mut maps = [HashMap::with_capacity(262_144), HashMap::with_capacity(262_144)];
    for map in &mut maps {
        map.extend((0..HELD).map(|number| (flow(number, 1).key, flow(number, 1))));
    }
    let mut round = 0_u32;
    group.bench_function("two std hash maps, nothing between", |bencher| {
        bencher.iter(|| {
            round += 1;
            for change in 0..CHANGES {
                let flow = flow((round.wrapping_mul(7919) % HELD + change * 104_729) % HELD, round as u8);
                for map in &mut maps {
                    map.insert(flow.key, flow.clone());
                }
            }
        });
    });
    group.finish();
}

criterion_group!(benches, turns);
criterion_main!(benches);
