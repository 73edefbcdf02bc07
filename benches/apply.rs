//! What a backup does with what arrives: whole frames with their CRC, half updates, a quarter inserts, a quarter deletes, keys
//! random and uniform, no frame twice; digest, versions, tombstones and the sink's list are kept. Beside it the same frames go
//! into the fastest hash maps that we know, which keep none of that: 16 bytes of key, 24 of value, no more.
//!
//! `cargo bench --bench apply`; about a minute, and 2 GB for the ten million.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ssyncp::bench::workload::{self, FRAME_LEN, RECORDS, Stream};
use ssyncp::flow::{FlowKey, KeyBytes};
use ssyncp::sys::huge::HugePages;
use ssyncp::time::Instant;
use ssyncp::wire::{Frame, Payload, Record};
use std::hint::black_box;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: HugePages = HugePages;

const NOW: Instant = Instant::from_nanos(1_000_000_000_000);
const SIZES: [u32; 3] = [10_000, 1_000_000, 10_000_000];
/// Frames that are made before each stretch that is timed: they stay in the cache, as what has just arrived does.
const FRAMES: usize = 64;

type Key = [u8; 16];
type Value = [u8; 24];

/// A map that can be fed.
trait Map {
    fn put(&mut self, key: Key, value: Value);
    fn take(&mut self, key: &Key);
}

impl<S: std::hash::BuildHasher> Map for std::collections::HashMap<Key, Value, S> {
    fn put(&mut self, key: Key, value: Value) {
        self.insert(key, value);
    }

    fn take(&mut self, key: &Key) {
        self.remove(key);
    }
}

impl<S: std::hash::BuildHasher> Map for hashbrown::HashMap<Key, Value, S> {
    fn put(&mut self, key: Key, value: Value) {
        self.insert(key, value);
    }

    fn take(&mut self, key: &Key) {
        self.remove(key);
    }
}

fn key(key: &FlowKey) -> Key {
    match KeyBytes::of(key) {
        Some(KeyBytes::V4(bytes)) => bytes,
        _ => [0; 16],
    }
}

/// In the form that costs the map least: what is hashed and what is kept stand in the record as they are.
fn feed(map: &mut impl Map, frame: &[u8]) {
    let Ok(frame) = Frame::parse(frame).and_then(Frame::verify) else { return };
    let Payload::Data(records) = frame.payload() else { return };
    for record in records {
        match record {
            Record::Upsert(conn) => {
                let encoding = conn.plain().map_or([0; 40], |plain| plain.encoding);
                if let (Some(key), Some(value)) = (encoding.first_chunk(), encoding.last_chunk()) {
                    map.put(*key, *value);
                }
            }
            Record::Delete(conn) => map.take(&key(&conn.key())),
            _ => {}
        }
    }
}

/// Time of so many frames, without that of making them.
fn timed(stream: &mut Stream, frames: u64, mut each: impl FnMut(&[u8])) -> Duration {
    let mut made = vec![([0_u8; FRAME_LEN], 0); FRAMES];
    let (mut left, mut passed) = (frames as usize, Duration::ZERO);
    while left > 0 {
        let count = left.min(FRAMES);
        for (frame, length) in &mut made[..count] {
            *length = stream.next_frame(frame);
        }
        let start = std::time::Instant::now();
        for (frame, length) in &made[..count] {
            each(black_box(&frame[..*length]));
        }
        passed += start.elapsed();
        left -= count;
    }
    passed
}

fn map<M: Map>(criterion: &mut Criterion, name: &str, size: u32, mut map: M) {
    let mut stream = Stream::new(size);
    stream.held().for_each(|flow| map.put(key(&flow.key), [0; 24]));
    let mut group = criterion.benchmark_group(format!("apply/{size}"));
    group.throughput(Throughput::Elements(RECORDS as u64));
    group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
        bencher.iter_custom(|frames| timed(&mut stream, frames, |frame| feed(&mut map, frame)));
    });
    group.finish();
}

fn apply(criterion: &mut Criterion) {
    for size in SIZES {
        let mut stream = Stream::new(size);
        let mut table = workload::table(&stream, NOW);
        let mut group = criterion.benchmark_group(format!("apply/{size}"));
        group.throughput(Throughput::Elements(RECORDS as u64));
        group.bench_function("ssyncp", |bencher| {
            bencher.iter_custom(|frames| {
                timed(&mut stream, frames, |frame| {
                    black_box(workload::apply(&mut table, frame, NOW));
                })
            });
        });
        group.bench_function("ssyncp, without looking ahead", |bencher| {
            bencher.iter_custom(|frames| {
                timed(&mut stream, frames, |frame| {
                    black_box(workload::apply_one_by_one(&mut table, frame, NOW));
                })
            });
        });
        group.finish();
        drop(table);
        let slots = size as usize + size as usize / 4;
        let hasher = foldhash::fast::RandomState::default();
        map(criterion, "hashbrown, foldhash", size, hashbrown::HashMap::with_capacity_and_hasher(slots, hasher));
        let hasher = foldhash::fast::RandomState::default();
        map(criterion, "std, foldhash", size, std::collections::HashMap::with_capacity_and_hasher(slots, hasher));
    }
}

/// The digest of every flow anew, and their places: what a new seed costs.
fn digest(criterion: &mut Criterion) {
    const HELD: u32 = 1_000_000;
    let mut table = workload::table(&Stream::new(HELD), NOW);
    let mut seed = 0;
    let mut group = criterion.benchmark_group("digest");
    group.throughput(Throughput::Elements(HELD.into()));
    group.bench_function("of a million flows anew, with their places", |bencher| {
        bencher.iter(|| {
            seed += 1;
            table.reseed(seed);
            black_box(table.digest())
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1000))
        .without_plots();
    targets = apply, digest
}
criterion_main!(benches);
