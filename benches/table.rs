//! The connection table beside hash maps that hold the same flows, without digest, lists, versions and tombstones.
//!
//! Keys are visited in an order that no prefetcher guesses. "change" is what a packet costs that changes a flow's
//! state; "churn" is a flow's whole life. Run with `cargo bench --bench table`; about half a minute.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ssyncp::flow::{Flow, FlowKey, Zone};
use ssyncp::sys::huge::HugePages;
use ssyncp::table::Table;
use ssyncp::time::Instant;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: HugePages = HugePages;

const NOW: Instant = Instant::from_nanos(1_000_000_000_000);
const SIZES: [u32; 2] = [10_000, 1_000_000];

/// The flow with this number; neighbours in number are not neighbours in any table.
fn flow(number: u32, state: u8) -> Flow {
    let key = FlowKey {
        source: IpAddr::V4(Ipv4Addr::from(0x0a00_0000 | number >> 8)),
        destination: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)),
        source_port: 1024 + (number & 0xff) as u16 * 199,
        destination_port: 443,
        protocol: 6,
        zone: Zone::DEFAULT,
    };
    Flow { state, status: 0x018e, timeout: 432_000, ..Flow::new(key) }
}

/// Numbers below `size` in an order that looks random and never ends.
struct Numbers {
    size: u32,
    state: u64,
}

impl Numbers {
    fn new(size: u32) -> Self {
        Numbers { size, state: 0x9e37_79b9_7f4a_7c15 }
    }

    fn next(&mut self) -> u32 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (((self.state >> 32) * u64::from(self.size)) >> 32) as u32
    }
}

fn full_table(size: u32) -> Table {
    let mut table = Table::new(size + 16, 16, 0x5eed);
    for number in 0..size {
        table.put(&flow(number, 0), NOW).expect("room");
        table.sent(1);
    }
    println!("{size} flows: {:.1} bytes each, lists and digest included", table.bytes() as f64 / f64::from(size));
    table
}

fn map_of<S: BuildHasher + Default>(size: u32) -> HashMap<FlowKey, Flow, S> {
    let mut map = HashMap::with_capacity_and_hasher(size as usize, S::default());
    map.extend((0..size).map(|number| (flow(number, 0).key, flow(number, 0))));
    map
}

fn tables(criterion: &mut Criterion) {
    for size in SIZES {
        let mut table = full_table(size);
        let mut numbers = Numbers::new(size);
        let mut state = 0;
        let mut frame = 1;
        let mut group = criterion.benchmark_group(format!("table/{size}"));
        group.bench_function("get", |bencher| bencher.iter(|| table.get(&flow(numbers.next(), 0).key, NOW)));
        group.bench_function("put unchanged", |bencher| {
            bencher.iter(|| table.put(&flow(numbers.next(), 0), NOW));
        });
        while table.peek_pending(NOW).is_some() {
            table.sent(1);
        }
        group.bench_function("change: put, peek, sent", |bencher| {
            bencher.iter(|| {
                state = (state + 1) & 7;
                black_box(table.put(&flow(numbers.next(), state), NOW)).expect("room");
                black_box(table.peek_pending(NOW));
                table.sent(1);
            });
        });
        group.bench_function("churn: put, sent, take, sent", |bencher| {
            bencher.iter(|| {
                let new = flow(size + numbers.next(), 1);
                black_box(table.put(&new, NOW)).expect("room");
                table.sent(1);
                table.take(&new.key);
                table.sent(1);
            });
        });
        table.begin_stream();
        group.bench_function("change: apply_upsert, pop_applied", |bencher| {
            bencher.iter(|| {
                (state, frame) = ((state + 1) & 7, frame + 1);
                black_box(table.apply_upsert(&flow(numbers.next(), state), frame, NOW)).expect("room");
                black_box(table.pop_applied(NOW));
            });
        });
        group.bench_function("churn: apply_upsert, pop_applied, apply_delete, pop_applied", |bencher| {
            bencher.iter(|| {
                frame += 2;
                let new = flow(size + numbers.next(), 1);
                black_box(table.apply_upsert(&new, frame, NOW)).expect("room");
                black_box(table.pop_applied(NOW));
                black_box(table.apply_delete(&new.key, frame + 1, frame)).expect("room");
                black_box(table.pop_applied(NOW));
            });
        });
        group.throughput(Throughput::Elements(50));
        group.bench_function("frame of 50 apply_upsert", |bencher| {
            bencher.iter_batched_ref(
                || [(); 50].map(|()| flow(numbers.next(), 9)),
                |flows| {
                    frame += 1;
                    for flow in flows {
                        black_box(table.apply_upsert(flow, frame, NOW)).expect("room");
                    }
                    while table.pop_applied(NOW).is_some() {}
                },
                BatchSize::SmallInput,
            );
        });
        group.finish();
    }
}

/// The flow with this number, of IPv6, which has its key in the annex.
fn wide(number: u32, state: u8) -> Flow {
    let flow = flow(number, state);
    let address = |address| match address {
        IpAddr::V4(address) => IpAddr::V6(address.to_ipv6_mapped()),
        address => address,
    };
    let key = FlowKey { source: address(flow.key.source), destination: address(flow.key.destination), ..flow.key };
    Flow { key, ..flow }
}

/// What a second cache line costs.
fn wide_tables(criterion: &mut Criterion) {
    for size in SIZES {
        let mut table = Table::new(size + 16, 16, 0x5eed);
        for number in 0..size {
            table.put(&wide(number, 0), NOW).expect("room");
            table.sent(1);
        }
        println!("{size} flows of IPv6: {} blocks of the annex", table.annex_used());
        let (mut numbers, mut state) = (Numbers::new(size), 0);
        let mut group = criterion.benchmark_group(format!("wide/{size}"));
        group.bench_function("get", |bencher| bencher.iter(|| table.get(&wide(numbers.next(), 0).key, NOW)));
        group.bench_function("change: put, peek, sent", |bencher| {
            bencher.iter(|| {
                state = (state + 1) & 7;
                black_box(table.put(&wide(numbers.next(), state), NOW)).expect("room");
                black_box(table.peek_pending(NOW));
                table.sent(1);
            });
        });
        group.bench_function("churn: put, sent, take, sent", |bencher| {
            bencher.iter(|| {
                let new = wide(size + numbers.next(), 1);
                black_box(table.put(&new, NOW)).expect("room");
                table.sent(1);
                table.take(&new.key);
                table.sent(1);
            });
        });
        group.finish();
    }
}

fn maps(criterion: &mut Criterion) {
    fn bench<S: BuildHasher + Default>(criterion: &mut Criterion, hasher: &str) {
        for size in SIZES {
            let mut map = map_of::<S>(size);
            let mut numbers = Numbers::new(size);
            let mut group = criterion.benchmark_group(format!("map/{size}"));
            group.bench_function(BenchmarkId::new("get", hasher), |bencher| {
                bencher.iter(|| map.get(&flow(numbers.next(), 0).key).cloned());
            });
            group.bench_function(BenchmarkId::new("change", hasher), |bencher| {
                bencher.iter(|| {
                    let flow = flow(numbers.next(), 3);
                    black_box(map.insert(flow.key, flow))
                });
            });
            group.bench_function(BenchmarkId::new("churn", hasher), |bencher| {
                bencher.iter(|| {
                    let flow = flow(size + numbers.next(), 3);
                    black_box(map.insert(flow.key, flow.clone()));
                    black_box(map.remove(&flow.key))
                });
            });
            group.finish();
        }
    }
    println!("a map's slot: {} bytes, at a load of 7/16 to 7/8", size_of::<(FlowKey, Flow)>() + 1);
    bench::<foldhash::fast::RandomState>(criterion, "foldhash");
    bench::<std::hash::RandomState>(criterion, "SipHash");
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500))
        .without_plots();
    targets = tables, wide_tables, maps
}
criterion_main!(benches);
