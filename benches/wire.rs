//! What a frame costs: written, read, and beside both the checksum alone, which nobody can go below.
//!
//! The frame is 1480 bytes (Ethernet less the IPv4 header) with 60 plain IPv4 connections; then 30 of IPv6, and 24 with
//! attributes.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ssyncp::flow::{Flow, FlowKey, Zone, attribute, protocol};
use ssyncp::sys::huge::HugePages;
use ssyncp::wire::{DataWriter, Frame, FrameFlags, Header, Kind, NodeId, Payload, Record};
use std::hint::black_box;

#[global_allocator]
static ALLOCATOR: HugePages = HugePages;

const FRAME_LEN: usize = 1480;
const FLOWS: u16 = 60;

fn header() -> Header {
    let (node, flags) = (NodeId(1), FrameFlags::default());
    Header { sync_id: 81, kind: Kind::DATA, flags, node, incarnation: 1, seq: 1, term: 1 }
}

fn flows() -> Vec<Flow> {
    let key = |port| FlowKey {
        source: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
        destination: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)),
        source_port: port,
        destination_port: 80,
        protocol: protocol::TCP,
        zone: Zone::DEFAULT,
    };
    (0..FLOWS).map(|port| Flow { state: 3, status: 14, timeout: 300, ..Flow::new(key(40_000 + port)) }).collect()
}

fn encode(slot: &mut [u8], flows: &[Flow]) -> usize {
    let Some(mut writer) = DataWriter::new(slot, header()) else { return 0 };
    let written = flows.iter().filter(|flow| writer.push_upsert(flow).is_ok()).count();
    assert_eq!(written, flows.len());
    writer.finish()
}

fn decode(frame: &[u8], mut each: impl FnMut(&Flow)) -> usize {
    let verified = Frame::parse(frame).and_then(Frame::verify).expect("a valid frame");
    let Payload::Data(records) = verified.payload() else { return 0 };
    let mut count = 0;
    for record in records {
        if let Record::Upsert(conn) = record {
            each(&conn.flow());
            count += 1;
        }
    }
    count
}

/// The same connections over IPv6.
fn flows_v6() -> Vec<Flow> {
    let (source, destination) =
        (Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 1), Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 10));
    let over_v6 = |flow: Flow| Flow {
        key: FlowKey { source: source.into(), destination: destination.into(), ..flow.key },
        ..flow
    };
    flows().into_iter().take(30).map(over_v6).collect()
}

/// The same connections with a helper and adjusted sequence numbers each: 36 bytes of attributes.
fn flows_with_attributes() -> Vec<Flow> {
    let attributed = |mut flow: Flow| {
        flow.attributes.set(attribute::SEQUENCE_ADJUSTMENT, &[1; 24]).expect("fits");
        flow.attributes.set(attribute::HELPER, b"ftp").expect("fits");
        flow
    };
    flows().into_iter().take(24).map(attributed).collect()
}

/// Writing and reading of frames that are full, or nearly so, of connections that are not plain IPv4.
fn others(criterion: &mut Criterion) {
    for (name, flows) in
        [("frame of 30 IPv6 connections", flows_v6()), ("frame of 24 with attributes", flows_with_attributes())]
    {
        let mut slot = [0; FRAME_LEN];
        let len = encode(&mut slot, &flows);
        let frame = slot[..len].to_vec();
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(flows.len() as u64));
        group.bench_function("encode", |bencher| bencher.iter(|| encode(black_box(&mut slot), black_box(&flows))));
        group.bench_function("parse, verify, read as flows", |bencher| {
            bencher.iter(|| decode(black_box(&frame), |flow| _ = black_box(flow)));
        });
        group.finish();
    }
}

fn frames(criterion: &mut Criterion) {
    let flows = flows();
    let mut slot = [0; FRAME_LEN];
    assert_eq!(encode(&mut slot, &flows), FRAME_LEN);
    let frame = slot;
    assert_eq!(decode(&frame, |_| ()), usize::from(FLOWS));

    let mut group = criterion.benchmark_group("frame of 60 connections");
    group.throughput(Throughput::Elements(u64::from(FLOWS)));
    group.bench_function("crc32fast alone", |bencher| bencher.iter(|| crc32fast::hash(black_box(&frame))));
    group.bench_function("encode", |bencher| bencher.iter(|| encode(black_box(&mut slot), black_box(&flows))));
    group.bench_function("parse", |bencher| bencher.iter(|| Frame::parse(black_box(&frame)).is_ok()));
    group.bench_function("parse, verify", |bencher| {
        bencher.iter(|| Frame::parse(black_box(&frame)).and_then(Frame::verify).is_ok());
    });
    group.bench_function("parse, verify, read as flows", |bencher| {
        bencher.iter(|| decode(black_box(&frame), |flow| _ = black_box(flow)));
    });
    group.finish();
}

criterion_group!(benches, frames, others);
criterion_main!(benches);
