//! One engine turn, beside what it cannot be cheaper than: a thousand changes from the source to the peer's table, and the
//! same thousand into two plain hash maps with nothing between them.
//!
//! And what a frame costs that is refused, at each of the checks where a hostile one can end (docs/protocol.md 3.4.6): what a
//! flood of them costs.
//!
//! `cargo bench --bench engine`

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ssyncp::engine::{Auth, Config, Engine, Role};
use ssyncp::flow::{Change, Flow, FlowKey, Zone, protocol};
use ssyncp::sys::huge::HugePages;
use ssyncp::time::{Duration, Instant};
use ssyncp::wire::{FrameMeta, Kind, NodeId, Secret};
use std::collections::HashMap;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

#[global_allocator]
static ALLOCATOR: HugePages = HugePages;

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

/// A backup that follows a sealed master, and the frames that the master has sent.
struct Sealed {
    now: Instant,
    backup: Engine,
    heard: Vec<Vec<u8>>,
}

impl Sealed {
    fn in_sync() -> Self {
        let mut now = Instant::from_nanos(1_000_000_000);
        let engine = |node: u32, priority| {
            let secrets = vec![Secret::new(1, &[7; 32]).expect("a number below 4")];
            let config = Config {
                incarnation: u64::from(node),
                seed: 5,
                priority,
                capacity: 4096,
                ..Config::new(NodeId(node), 1)
            };
            let mut engine = Engine::new(Config { secrets, auth: Auth::Enforce, ..config }, now).expect("valid");
            engine.handle_link(now, true);
            engine
        };
        let (mut master, mut backup) = (engine(1, 200), engine(2, 100));
        let (mut slot, mut heard) = ([0; 1480], Vec::new());
        for turn in 0..2000 {
            now += Duration::from_millis(1);
            if master.role() == Role::Master {
                let _ = master.update(now, &Change::Upsert(flow(turn, 1)));
            }
            master.handle_timeout(now);
            while let Some(length) = master.poll_transmit(now, &mut slot) {
                heard.push(slot[..length].to_vec());
                backup.handle_frame(now, META, &mut slot[..length]);
            }
            exchange(now, &mut backup, &mut master, &mut slot);
            master.handle_committed(now);
            backup.handle_committed(now);
        }
        assert_eq!(backup.following().map(|(node, _, _)| node), Some(NodeId(1)));
        Sealed { now, backup, heard }
    }

    /// The newest frame of a kind, so long, changed, with a checksum that fits.
    fn hostile(&self, kind: Kind, length: usize, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let newest = self.heard.iter().rfind(|bytes| bytes[5] == kind.0).expect("a master sends all of these");
        let mut bytes = newest.clone();
        bytes.resize(length, 0x5a);
        bytes[2..4].copy_from_slice(&(length as u16).to_be_bytes());
        change(&mut bytes);
        bytes[8..12].fill(0);
        let checksum = crc32fast::hash(&bytes);
        bytes[8..12].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }
}

fn refusals(criterion: &mut Criterion) {
    let mut sealed = Sealed::in_sync();
    let frames = [
        ("unsealed, 64 bytes", sealed.hostile(Kind::DATA, 64, |bytes| bytes[6..8].fill(0)), "drop_unsealed"),
        ("no such secret, 64 bytes", sealed.hostile(Kind::DATA, 64, |bytes| bytes[6] = 3), "drop_sealed"),
        ("stranger's DATA, 64 bytes", sealed.hostile(Kind::DATA, 64, |bytes| bytes[16] = 9), "drop_unestablished"),
        ("replayed DATA, 1480 bytes", sealed.hostile(Kind::DATA, 1480, |_| {}), "data_duplicate"),
        ("replayed ADVERT, 200 bytes", sealed.hostile(Kind::ADVERT, 200, |_| {}), "drop_replayed"),
        ("forged DATA of the master, 64 bytes", sealed.hostile(Kind::DATA, 64, |bytes| bytes[30] += 1), "drop_forged"),
        (
            "forged DATA of the master, 1480 bytes",
            sealed.hostile(Kind::DATA, 1480, |bytes| bytes[30] += 1),
            "drop_forged",
        ),
        (
            "stranger's ADVERT, no budget left, 200 bytes",
            sealed.hostile(Kind::ADVERT, 200, |bytes| bytes[16] = 9),
            "drop_untried",
        ),
    ];
    let mut group = criterion.benchmark_group("a frame that is refused");
    for (name, bytes, reason) in frames {
        let before = counter(&sealed.backup, reason);
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || bytes.clone(),
                |bytes| sealed.backup.handle_frame(sealed.now, META, bytes),
                BatchSize::SmallInput,
            );
        });
        assert!(counter(&sealed.backup, reason) > before, "{name}: refused for something else");
    }
    let stranger = sealed.hostile(Kind::ADVERT, 200, |bytes| bytes[16] = 9);
    group.bench_function("stranger's ADVERT, a key derived, 200 bytes", |bencher| {
        bencher.iter_batched_ref(
            || stranger.clone(),
            |bytes| {
                sealed.now += Duration::from_nanos(31_250);
                sealed.backup.handle_frame(sealed.now, META, bytes);
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn counter(engine: &Engine, name: &str) -> u64 {
    engine.status().counters.iter().find(|(known, _)| known == name).map_or(0, |(_, count)| *count)
}

criterion_group!(benches, turns, refusals);
criterion_main!(benches);
