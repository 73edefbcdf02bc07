//! The sink against the kernel: what it makes of a flow, and that a copy is a copy.

use crate::support::*;
use ssyncp::bridge::conntrack::{ConntrackSink, ConntrackSource, SinkOptions, SourceOptions};
use ssyncp::bridge::{Sink, Source};
use ssyncp::flow::{Change, Endpoint, Flow, FlowKey, TcpInfo, Zone, protocol, status};
use ssyncp::sys::namespace::Namespace;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

const SEEN: u16 = status::SEEN_REPLY | status::CONFIRMED;
const ASSURED: u16 = SEEN | status::ASSURED;

fn open(namespace: &Namespace) -> ConntrackSink {
    open_with(namespace, &SinkOptions::default())
}

fn open_with(namespace: &Namespace, options: &SinkOptions) -> ConntrackSink {
    namespace.run(|| ConntrackSink::open(options).map_err(io_error)).unwrap()
}

fn dump(namespace: &Namespace) -> Vec<Flow> {
    let mut source = namespace.run(|| ConntrackSource::open(&SourceOptions::default()).map_err(io_error)).unwrap();
    let mut mirror = Mirror::default();
    source.request_dump().unwrap();
    mirror.read_until(&mut source, |mirror| mirror.dumps == 1);
    mirror.flows.into_values().collect()
}

fn write(sink: &mut ConntrackSink, changes: &[Change]) {
    changes.iter().for_each(|change| sink.apply(change).unwrap());
    assert_eq!(sink.flush().unwrap(), changes.len());
}

fn endpoint(text: &str, port: u16) -> Option<Endpoint> {
    Some(Endpoint { address: address(text), port })
}

/// An established connection through a director: DNAT from 192.0.2.10:80 to 172.16.0.1:8080.
fn dnat() -> Flow {
    Flow {
        reply_source: endpoint("172.16.0.1", 8080),
        state: 3,
        status: ASSURED,
        timeout: 600,
        tcp: Some(TcpInfo { window_scale_original: 7, window_scale_reply: 8, flags_original: 3, flags_reply: 3 }),
        mark: 0x2a,
        ..Flow::new(key(protocol::TCP, "10.0.0.1", 40000, "192.0.2.10", 80))
    }
}

fn only_entry(raw: &mut Raw) -> Attributes {
    let mut entries = raw.dump();
    assert_eq!(entries.len(), 1);
    entries.remove(0)
}

#[test]
fn ten_thousand_mixed_entries_are_equal_in_the_copy() {
    let (Some(first), Some(second)) = (namespace(), namespace()) else { return };
    let (mut original, mut copy) = (Raw::open(&first), Raw::open(&second));
    fill_mixed(&mut original);
    let entries = original.dump();
    // What the test itself made is as varied as it claims: NAT bits none, done, DST, SRC, both.
    for nat_bits in [0x000, 0x180, 0x1a0, 0x190, 0x1b0] {
        let count = entries.iter().filter(|entry| number(entry, 3).unwrap() & 0x1b0 == nat_bits).count();
        assert_eq!(count, 2000, "{nat_bits:#x}");
    }
    let mut sink = open(&second);
    let flows = dump(&first);
    assert_eq!(flows.len(), 10_000);
    write(&mut sink, &flows.iter().cloned().map(Change::Upsert).collect::<Vec<_>>());
    assert_eq!(counter(&sink.counters(), "created"), 10_000, "{:?}", sink.counters());
    assert_eq!(essences(&copy.dump()), essences(&entries));

    // Once more changes nothing, and is done in place.
    write(&mut sink, &flows.iter().cloned().map(Change::Upsert).collect::<Vec<_>>());
    assert_eq!(counter(&sink.counters(), "updated"), 10_000, "{:?}", sink.counters());
    assert_eq!(essences(&copy.dump()), essences(&entries));

    write(&mut sink, &flows.iter().map(|flow| Change::Delete(flow.key)).collect::<Vec<_>>());
    assert_eq!(counter(&sink.counters(), "deleted"), 10_000, "{:?}", sink.counters());
    assert_eq!(copy.dump().len(), 0);
}

/// Entries that packets made, under rules that translate.
#[test]
fn what_packets_made_is_equal_in_the_copy() {
    let rules = "chain outgoing { type nat hook output priority -100; ip daddr 10.9.0.9 dnat to 10.9.0.2; }
                 chain leaving { type nat hook postrouting priority 100; tcp dport 81 snat to 10.9.0.1:7777; }
                 chain incoming { type nat hook input priority 100; }
                 chain arriving { type nat hook prerouting priority -100; }";
    let (Some(first), Some(second)) = (namespace_with_rules(rules), namespace()) else { return };
    shell(&first, "ip route add 10.9.0.9/32 dev lo");
    let _sockets = first
        .run(|| {
            let listeners = (TcpListener::bind("10.9.0.2:80")?, TcpListener::bind("10.9.0.2:81")?);
            let plain = TcpStream::connect("10.9.0.2:80")?;
            let dnat = TcpStream::connect("10.9.0.9:80")?;
            let snat = TcpStream::connect("10.9.0.2:81")?;
            let udp = UdpSocket::bind("10.9.0.1:4000")?;
            udp.send_to(b"nobody listens", "10.9.0.9:53")?;
            Ok((listeners, plain, dnat, snat, udp))
        })
        .unwrap();
    let flows = dump(&first);
    let translated = |flow: &&Flow| flow.reply_source.is_some() || flow.reply_destination.is_some();
    assert_eq!(flows.iter().filter(translated).count(), 3, "{flows:?}");
    write(&mut open(&second), &flows.iter().cloned().map(Change::Upsert).collect::<Vec<_>>());
    let (original, copy) = (Raw::open(&first).dump(), Raw::open(&second).dump());
    assert!(original.len() >= 4);
    assert_eq!(essences(&copy), essences(&original));
}

/// The table is lost and comes back as a copy, and connections go on: translated, in both directions, and past rules
/// that drop what is invalid and what begins in the middle.
#[test]
fn a_copy_carries_the_packets_of_a_running_connection() {
    let rules = "chain outgoing { type nat hook output priority -100; ip daddr 10.9.0.9 dnat to 10.9.0.2; }
                 chain strict { type filter hook output priority 10; ct state invalid drop;
                                tcp flags & (syn | ack) == ack ct state new drop; }";
    let Some(namespace) = namespace_with_rules(rules) else { return };
    shell(&namespace, "ip route add 10.9.0.9/32 dev lo");
    let (mut client, mut server) = namespace
        .run(|| {
            let listener = TcpListener::bind("10.9.0.2:80")?;
            let client = TcpStream::connect("10.9.0.9:80")?;
            Ok((client, listener.accept()?.0))
        })
        .unwrap();
    let patience = Some(Duration::from_secs(10));
    client.set_read_timeout(patience).unwrap();
    server.set_read_timeout(patience).unwrap();
    let flows = dump(&namespace);
    assert_eq!(flows.iter().map(|flow| flow.reply_source).collect::<Vec<_>>(), [endpoint("10.9.0.2", 80)]);
    Raw::open(&namespace).flush();
    write(&mut open(&namespace), &[Change::Upsert(flows[0].clone())]);

    for round in 0..3u8 {
        let mut told = [0; 1000];
        client.write_all(&[round; 1000]).unwrap();
        server.read_exact(&mut told).unwrap();
        assert_eq!(told, [round; 1000]);
        server.write_all(&[round + 1; 1000]).unwrap();
        client.read_exact(&mut told).unwrap();
        assert_eq!(told, [round + 1; 1000]);
    }
    let flows = dump(&namespace);
    assert_eq!((flows.len(), flows[0].reply_source, flows[0].state), (1, endpoint("10.9.0.2", 80), 3));
}

#[test]
fn a_translated_connection_is_written_bit_by_bit() {
    let Some(namespace) = namespace() else { return };
    let mut sink = open(&namespace);
    write(&mut sink, &[Change::Upsert(dnat())]);
    let entry = only_entry(&mut Raw::open(&namespace));
    // SEEN_REPLY, ASSURED, CONFIRMED, DST_NAT, both DONE.
    assert_eq!(number(&entry, 3), Some(0x1ae));
    assert_eq!(number(&entry, 8), Some(0x2a));
    // ESTABLISHED, scales 7 and 8, WINDOW_SCALE | SACK_PERM | BE_LIBERAL.
    assert_eq!(tcp(&entry), Some([3, 7, 8, 0x0b, 0x0b]));
    let reply = attributes(&entry[&2]);
    assert_eq!(attributes(&reply[&1])[&1], [172, 16, 0, 1]);
    assert_eq!(attributes(&reply[&2])[&2], [0x1f, 0x90]);
    assert!((595..=600).contains(&number(&entry, 7).unwrap()));
}

#[test]
fn a_copy_lives_at_least_the_minimum_time_out() {
    let Some(namespace) = namespace() else { return };
    let options = SinkOptions { minimum_timeout: Duration::from_secs(300), ..SinkOptions::default() };
    let mut sink = open_with(&namespace, &options);
    write(&mut sink, &[Change::Upsert(Flow { timeout: 5, ..dnat() })]);
    let timeout = |raw: &mut Raw| number(&only_entry(raw), 7).unwrap();
    let mut raw = Raw::open(&namespace);
    assert!((295..=300).contains(&timeout(&mut raw)));
    write(&mut sink, &[Change::Upsert(Flow { timeout: 900, ..dnat() })]);
    assert!((895..=900).contains(&timeout(&mut raw)));
    write(&mut sink, &[Change::Upsert(Flow { timeout: 0, ..dnat() })]);
    assert!((295..=300).contains(&timeout(&mut raw)));
}

#[test]
fn state_status_and_mark_of_an_existing_copy_are_updated_in_place() {
    let Some(namespace) = namespace() else { return };
    let mut sink = open(&namespace);
    let mut raw = Raw::open(&namespace);
    let opening = Flow { state: 1, status: status::CONFIRMED, mark: 0, ..dnat() };
    write(&mut sink, &[Change::Upsert(opening)]);
    let identity = only_entry(&mut raw)[&12].clone();
    write(&mut sink, &[Change::Upsert(dnat())]);
    let entry = only_entry(&mut raw);
    assert_eq!((number(&entry, 3), number(&entry, 8), tcp(&entry).unwrap()[0]), (Some(0x1ae), Some(0x2a), 3));
    assert_eq!(entry[&12], identity, "the same entry");
    write(&mut sink, &[Change::Upsert(Flow { mark: 0, state: 7, ..dnat() })]);
    let entry = only_entry(&mut raw);
    assert_eq!((number(&entry, 8).unwrap_or(0), tcp(&entry).unwrap()[0]), (0, 7));
    let counters = sink.counters();
    assert_eq!(
        (counter(&counters, "created"), counter(&counters, "updated"), counter(&counters, "replaced")),
        (1, 2, 0)
    );
}

#[test]
fn another_translation_or_a_lost_status_bit_replaces_the_entry() {
    let Some(namespace) = namespace() else { return };
    let mut sink = open(&namespace);
    let mut raw = Raw::open(&namespace);
    write(&mut sink, &[Change::Upsert(dnat())]);
    let moved = Flow { reply_source: endpoint("172.16.0.2", 8081), ..dnat() };
    write(&mut sink, &[Change::Upsert(moved.clone())]);
    let reply = attributes(&only_entry(&mut raw)[&2]);
    assert_eq!(attributes(&reply[&1])[&1], [172, 16, 0, 2]);
    let reused = Flow { state: 1, status: status::CONFIRMED, ..moved };
    write(&mut sink, &[Change::Upsert(reused.clone())]);
    assert_eq!(number(&only_entry(&mut raw), 3), Some(0x1a8));
    let untranslated = Flow { reply_source: None, ..reused };
    write(&mut sink, &[Change::Upsert(untranslated)]);
    assert_eq!(number(&only_entry(&mut raw), 3), Some(0x8));
    let counters = sink.counters();
    assert_eq!(
        (counter(&counters, "created"), counter(&counters, "replaced"), counter(&counters, "updated")),
        (1, 3, 0)
    );
}

/// The master gave the port of an old connection to a new one, and the end of the old one has not come yet.
#[test]
fn a_stale_entry_that_holds_the_reply_tuple_gives_way() {
    let Some(namespace) = namespace() else { return };
    let mut sink = open(&namespace);
    let through = |source_port| Flow {
        reply_destination: endpoint("203.0.113.1", 20000),
        status: ASSURED,
        timeout: 600,
        ..Flow::new(key(protocol::UDP, "10.0.0.1", source_port, "192.0.2.1", 53))
    };
    write(&mut sink, &[Change::Upsert(through(1000)), Change::Upsert(through(1001))]);
    let flows = dump(&namespace);
    assert_eq!(flows.len(), 1);
    assert_eq!((flows[0].key.source_port, flows[0].reply_destination), (1001, endpoint("203.0.113.1", 20000)));
    assert_eq!((counter(&sink.counters(), "created"), counter(&sink.counters(), "replaced")), (1, 1));
}

/// DNAT alone: the kernel would choose another source port by itself if the reply tuple is taken.
#[test]
fn a_clash_never_changes_the_side_that_is_not_translated() {
    let Some(namespace) = namespace() else { return };
    let mut sink = open(&namespace);
    let direct =
        Flow { status: ASSURED, timeout: 600, ..Flow::new(key(protocol::UDP, "10.0.0.1", 1000, "172.16.0.1", 5353)) };
    let translated = Flow {
        reply_source: endpoint("172.16.0.1", 5353),
        status: ASSURED,
        timeout: 600,
        ..Flow::new(key(protocol::UDP, "10.0.0.1", 1000, "192.0.2.1", 53))
    };
    write(&mut sink, &[Change::Upsert(direct), Change::Upsert(translated.clone())]);
    let flows = dump(&namespace);
    assert_eq!(flows.len(), 1);
    assert_eq!((flows[0].key, flows[0].reply_destination), (translated.key, None));
}

#[test]
fn the_delete_of_what_is_not_there_is_counted_and_no_error() {
    let Some(namespace) = namespace() else { return };
    let mut sink = open(&namespace);
    write(&mut sink, &[Change::Upsert(dnat())]);
    let missing = FlowKey { source_port: 1, ..dnat().key };
    let zoned = FlowKey { zone: Zone { id: 5, direction: Zone::BOTH }, ..dnat().key };
    write(&mut sink, &[Change::Delete(missing), Change::Delete(zoned)]);
    assert_eq!((counter(&sink.counters(), "deleted"), counter(&sink.counters(), "delete_missing")), (0, 2));
    assert_eq!(dump(&namespace).len(), 1);
    write(&mut sink, &[Change::Delete(dnat().key)]);
    assert_eq!((counter(&sink.counters(), "deleted"), dump(&namespace).len()), (1, 0));
    assert!(sink.counters().iter().all(|(name, count)| !name.starts_with("error") || *count == 0));
}

#[test]
fn of_several_changes_of_a_key_in_one_batch_the_last_one_counts() {
    let Some(namespace) = namespace() else { return };
    let mut sink = open(&namespace);
    let mut raw = Raw::open(&namespace);
    write(&mut sink, &[Change::Upsert(dnat())]);
    // An upsert of what exists, then its end: it must not come back by the amending rounds.
    write(&mut sink, &[Change::Upsert(Flow { mark: 1, ..dnat() }), Change::Delete(dnat().key)]);
    assert_eq!(raw.dump().len(), 0);
    write(&mut sink, &[Change::Delete(dnat().key), Change::Upsert(Flow { mark: 2, ..dnat() })]);
    assert_eq!(number(&only_entry(&mut raw), 8), Some(2));
    assert_eq!(counter(&sink.counters(), "coalesced"), 2);
}

#[test]
fn an_entry_that_the_kernel_refuses_is_counted_by_name_and_harms_no_other() {
    let Some(namespace) = namespace() else { return };
    let mut sink = open(&namespace);
    let with_port = |source_port, state| {
        let key = FlowKey { source_port, ..dnat().key };
        Change::Upsert(Flow { key, state, ..dnat() })
    };
    // There is no TCP state 14.
    write(&mut sink, &[with_port(1, 3), with_port(2, 14), with_port(3, 3)]);
    assert_eq!((counter(&sink.counters(), "created"), counter(&sink.counters(), "error_erange")), (2, 1));
    assert_eq!(dump(&namespace).len(), 2);
}

#[test]
fn what_no_kernel_can_hold_is_refused_by_name() {
    let Some(namespace) = namespace() else { return };
    let mut sink = open(&namespace);
    let udp = dnat().key;
    let mixed = FlowKey { source: "2001:db8::1".parse().unwrap(), ..udp };
    let strange = FlowKey { protocol: protocol::ICMPV6, ..udp };
    let redirect = FlowKey { protocol: protocol::ICMP, destination_port: 0x0500, ..udp };
    write(&mut sink, &[Change::Upsert(Flow::new(mixed)), Change::Delete(strange), Change::Upsert(Flow::new(redirect))]);
    let counters = sink.counters();
    let refused = ["refused_family", "refused_protocol", "refused_icmp_type"].map(|name| counter(&counters, name));
    assert_eq!((refused, counter(&counters, "batches")), ([1, 1, 1], 0));
}

#[test]
fn a_batch_that_is_full_is_written_without_a_flush() {
    let Some(namespace) = namespace() else { return };
    let mut sink = open_with(&namespace, &SinkOptions { batch: 3, ..SinkOptions::default() });
    let mut raw = Raw::open(&namespace);
    for source_port in 1..=4 {
        sink.apply(&Change::Upsert(Flow { key: FlowKey { source_port, ..dnat().key }, ..dnat() })).unwrap();
    }
    assert_eq!(raw.dump().len(), 3);
    assert_eq!(sink.flush().unwrap(), 4);
    assert_eq!((raw.dump().len(), counter(&sink.counters(), "batches")), (4, 2));
    assert_eq!(sink.flush().unwrap(), 0);
}

#[test]
fn own_writes_do_not_come_back_but_those_of_others_do() {
    let Some(namespace) = namespace() else { return };
    let (mut own, mut other) = (open(&namespace), open(&namespace));
    let options = SourceOptions {
        receive_buffer: 1 << 20,
        ignore_port_ids: vec![own.port_id().unwrap()],
        ..SourceOptions::default()
    };
    let mut source = namespace.run(|| ConntrackSource::open(&options).map_err(io_error)).unwrap();
    let mut mirror = Mirror::default();
    // Create, update, replace, delete: four kinds of events that we caused.
    write(&mut own, &[Change::Upsert(dnat())]);
    write(&mut own, &[Change::Upsert(Flow { state: 4, ..dnat() })]);
    write(&mut own, &[Change::Upsert(Flow { reply_source: None, ..dnat() })]);
    write(&mut own, &[Change::Delete(dnat().key)]);
    mirror.read_all(&mut source);
    assert_eq!(mirror.changes, []);
    write(&mut other, &[Change::Upsert(dnat())]);
    mirror.read_until(&mut source, |mirror| mirror.flows.len() == 1);
    assert_eq!(mirror.changes.len(), 1);
    let told = &mirror.flows[&dnat().key];
    assert!(told.same_value(&Flow { status: 0x1ae, ..dnat() }), "{told:?}");
}
