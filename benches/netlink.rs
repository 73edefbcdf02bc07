//! What an event of the kernel costs before the engine sees it: a ctnetlink message read as a flow, and one written.
//!
//! `cargo bench --bench netlink`

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ssyncp::bench::workload;
use ssyncp::bridge::conntrack::codec;
use ssyncp::sys::huge::HugePages;
use ssyncp::sys::netlink::{MessageWriter, Messages};
use std::hint::black_box;

#[global_allocator]
static ALLOCATOR: HugePages = HugePages;

const MESSAGES: u32 = 64;

fn netlink(criterion: &mut Criterion) {
    let mut writer = MessageWriter::new();
    let without = codec::Without::default();
    for number in 0..MESSAGES {
        codec::write_create(&mut writer, number, &workload::flow(number, 3), 432_000, without);
    }
    let datagram = writer.bytes().to_vec();
    let decoded = Messages::new(&datagram).filter_map(Result::ok).filter(|message| codec::decode(message).is_ok());
    assert_eq!(decoded.count(), MESSAGES as usize);
    println!("{} bytes a message", datagram.len() / MESSAGES as usize);
    let mut group = criterion.benchmark_group("netlink, 64 messages");
    group.throughput(Throughput::Elements(MESSAGES.into()));
    group.bench_function("parse", |bencher| {
        bencher.iter(|| {
            for message in Messages::new(black_box(&datagram)).filter_map(Result::ok) {
                let _ = black_box(codec::decode(&message));
            }
        });
    });
    group.bench_function("write", |bencher| {
        bencher.iter(|| {
            writer.clear();
            for number in 0..MESSAGES {
                codec::write_create(&mut writer, number, &workload::flow(number, 3), 432_000, without);
            }
            black_box(writer.bytes().len())
        });
    });
    group.finish();
}

criterion_group!(benches, netlink);
criterion_main!(benches);
