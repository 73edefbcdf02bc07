//! The source against the kernel: what events and dumps say, and what happens when they are lost.

use crate::support::*;
use nix::sys::socket::{setsockopt, sockopt};
use ssyncp::bridge::conntrack::{ConntrackSource, SourceOptions};
use ssyncp::bridge::{Interest, Source, SourceError};
use ssyncp::flow::{Change, TcpInfo, protocol, status};
use ssyncp::sys::namespace::Namespace;
use ssyncp::sys::netlink::{MessageWriter, Messages};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};

fn open(namespace: &Namespace, options: &SourceOptions) -> ConntrackSource {
    namespace.run(|| ConntrackSource::open(options).map_err(io_error)).unwrap()
}

fn default_source(namespace: &Namespace) -> ConntrackSource {
    open(namespace, &SourceOptions { receive_buffer: 4 << 20, ..SourceOptions::default() })
}

/// Inserts UDP entries 10.0.0.1:port -> 192.0.2.1:53 for every port of the range, many per datagram.
fn insert_udp(raw: &mut Raw, ports: std::ops::Range<u16>) {
    for chunk in ports.collect::<Vec<_>>().chunks(200) {
        let mut writer = MessageWriter::new();
        for port in chunk {
            let last = port == chunk.last().unwrap();
            writer.begin(CT_NEW, REQUEST | CREATE_EXCL | if last { ACK } else { 0 }, 1, 2, 0);
            write_tuple(&mut writer, 1, (0x0a000001, *port), (0xc0000201, 53), 17, 0);
            write_tuple(&mut writer, 2, (0xc0000201, 53), (0x0a000001, *port), 17, 0);
            writer.attribute_u32_be(7, 600);
            writer.end();
        }
        raw.0.send(writer.bytes()).unwrap();
        let datagram = raw.next_datagram();
        let message = Messages::new(&datagram).next().unwrap().unwrap();
        assert_eq!(message.error_code(), Some(0));
    }
}

#[test]
fn packets_come_as_new_update_and_destroy() {
    let Some(namespace) = namespace_with_rules("") else { return };
    let mut source = default_source(&namespace);
    let (client, server) =
        namespace.run(|| Ok((UdpSocket::bind("10.9.0.1:4000")?, UdpSocket::bind("10.9.0.2:53")?))).unwrap();
    let mut mirror = Mirror::default();
    let flow = key(protocol::UDP, "10.9.0.1", 4000, "10.9.0.2", 53);

    client.send_to(b"question", "10.9.0.2:53").unwrap();
    mirror.read_until(&mut source, |mirror| mirror.flows.contains_key(&flow));
    assert_eq!(mirror.flows[&flow].status & status::SEEN_REPLY, 0);
    assert!((1..=30).contains(&mirror.flows[&flow].timeout), "{:?}", mirror.flows[&flow]);

    server.send_to(b"answer", "10.9.0.1:4000").unwrap();
    mirror.read_until(&mut source, |mirror| mirror.flows[&flow].status & status::SEEN_REPLY != 0);

    Raw::open(&namespace).flush();
    mirror.read_until(&mut source, |mirror| mirror.flows.is_empty());
    assert_eq!(mirror.changes.last(), Some(&Change::Delete(flow)));
}

/// A mark that changes alone comes as an UPDATE without the TCP state. What is known must not be overwritten by it.
/// Of what nobody listens to the kernel makes no event, and what was missed is in the next dump.
#[test]
fn who_keeps_copies_hears_of_ends_alone_until_it_wants_all_again() {
    let Some(namespace) = namespace_with_rules("") else { return };
    let mut raw = Raw::open(&namespace);
    let mut source = default_source(&namespace);
    let mut mirror = Mirror::default();
    let new_events = |source: &ConntrackSource| {
        let counters = source.counters();
        counters.iter().find(|(name, _)| *name == "events_new").unwrap().1
    };
    insert_udp(&mut raw, 1000..1010);
    mirror.read_until(&mut source, |mirror| mirror.flows.len() == 10);
    source.set_interest(Interest::Ends).unwrap();
    insert_udp(&mut raw, 2000..2010);
    raw.flush();
    mirror.read_until(&mut source, |mirror| mirror.changes.len() == 30);
    assert_eq!((mirror.flows.len(), new_events(&source)), (0, 10));
    assert!(mirror.changes[10..].iter().all(|change| matches!(change, Change::Delete(_))));
    insert_udp(&mut raw, 3000..3010);
    source.set_interest(Interest::Changes).unwrap();
    source.request_dump().unwrap();
    mirror.read_until(&mut source, |mirror| mirror.dumps == 1);
    assert_eq!((mirror.flows.len(), new_events(&source)), (10, 10));
    insert_udp(&mut raw, 4000..4010);
    mirror.read_until(&mut source, |mirror| mirror.flows.len() == 20);
    assert_eq!(new_events(&source), 20);
}

#[test]
fn an_update_that_leaves_out_the_state_does_not_erase_it() {
    let rules = "chain marks { type filter hook output priority 1; tcp dport 80 ct mark set meta mark; }";
    let Some(namespace) = namespace_with_rules(rules) else { return };
    let mut source = default_source(&namespace);
    let mut events = Raw::open(&namespace);
    events.0.join(2).unwrap();
    let (mut client, mut server) = namespace
        .run(|| {
            let listener = TcpListener::bind("10.9.0.2:80")?;
            let client = TcpStream::connect("10.9.0.2:80")?;
            Ok((client, listener.accept()?.0))
        })
        .unwrap();
    let port = client.local_addr().unwrap().port();
    let flow = key(protocol::TCP, "10.9.0.2", port, "10.9.0.2", 80);
    let mut mirror = Mirror::default();
    mirror.read_until(&mut source, |mirror| mirror.flows.get(&flow).is_some_and(|flow| flow.state == 3));
    while events.0.receive().unwrap().is_some() {}
    assert_eq!(counter(&source.counters(), "questions"), 0);

    setsockopt(&client, sockopt::Mark, &7).unwrap();
    client.write_all(b"x").unwrap();
    server.read_exact(&mut [0]).unwrap();
    let datagram = events.next_datagram();
    let message = Messages::new(&datagram).next().unwrap().unwrap();
    let entry = attributes(&message.payload[4..]);
    println!("UPDATE by mark: {:?}", entry.keys().collect::<Vec<_>>());
    assert_eq!((number(&entry, 8), entry.contains_key(&4)), (Some(7), false));

    mirror.read_until(&mut source, |mirror| mirror.flows[&flow].mark == 7);
    assert_eq!(mirror.flows[&flow].state, 3);
    assert_ne!(mirror.flows[&flow].tcp, None);
    assert_eq!(counter(&source.counters(), "questions"), 1);

    // Back to no mark: said explicitly, so that an absent mark can only mean none.
    setsockopt(&client, sockopt::Mark, &0).unwrap();
    client.write_all(b"x").unwrap();
    let datagram = events.next_datagram();
    let message = Messages::new(&datagram).next().unwrap().unwrap();
    assert_eq!(number(&attributes(&message.payload[4..]), 8), Some(0));
    mirror.read_until(&mut source, |mirror| mirror.flows[&flow].mark == 0);
}

/// All that an UPDATE for another reason than the mark leaves out would be zero in the flow. It carries the mark.
#[test]
fn every_update_carries_a_mark_that_is_set() {
    let rules = "chain marks { type filter hook output priority 1; udp dport 53 ct mark set 9; }";
    let Some(namespace) = namespace_with_rules(rules) else { return };
    let mut events = Raw::open(&namespace);
    [1, 2, 3].into_iter().for_each(|group| events.0.join(group).unwrap());
    let (client, server) =
        namespace.run(|| Ok((UdpSocket::bind("10.9.0.1:4000")?, UdpSocket::bind("10.9.0.2:53")?))).unwrap();
    client.send_to(b"question", "10.9.0.2:53").unwrap();
    server.send_to(b"answer", "10.9.0.1:4000").unwrap();
    Raw::open(&namespace).flush();
    for (kind, what) in [(CT_NEW, "NEW"), (CT_NEW, "UPDATE"), (CT_DELETE, "DESTROY")] {
        let datagram = events.next_datagram();
        let message = Messages::new(&datagram).next().unwrap().unwrap();
        let entry = attributes(&message.payload[4..]);
        println!("{what}: flags {:#x} pid {} {:?}", message.flags, message.port_id, entry.keys().collect::<Vec<_>>());
        assert_eq!((message.kind, number(&entry, 8)), (kind, Some(9)));
    }
}

#[test]
fn a_dump_of_20000_entries_is_complete() {
    let Some(namespace) = namespace() else { return };
    let mut raw = Raw::open(&namespace);
    insert_udp(&mut raw, 1000..21_000);
    let mut source = default_source(&namespace);
    let mut mirror = Mirror::default();
    source.request_dump().unwrap();
    mirror.read_until(&mut source, |mirror| mirror.dumps == 1);
    assert_eq!(mirror.flows.len(), 20_000);
    assert!(
        (1000..21_000)
            .all(|port| { mirror.flows.contains_key(&key(protocol::UDP, "10.0.0.1", port, "192.0.2.1", 53)) })
    );
    assert_eq!(counter(&source.counters(), "dump_entries"), 20_000);
}

#[test]
fn a_dump_asked_for_during_a_dump_begins_anew_and_is_complete() {
    let Some(namespace) = namespace() else { return };
    insert_udp(&mut Raw::open(&namespace), 1000..11_000);
    let mut source = default_source(&namespace);
    let mut mirror = Mirror::default();
    source.request_dump().unwrap();
    mirror.read(&mut source);
    assert_eq!(mirror.dumps, 0);
    source.request_dump().unwrap();
    mirror.flows.clear();
    mirror.read_until(&mut source, |mirror| mirror.dumps == 1);
    assert_eq!(mirror.flows.len(), 10_000);
    let counters = source.counters();
    assert_eq!((counter(&counters, "dumps_started"), counter(&counters, "dumps_completed")), (2, 1));
}

/// The kernel builds a dump one datagram ahead, and no more. The source relies on it to know how old an entry can be.
#[test]
fn the_kernel_builds_a_dump_only_one_datagram_ahead() {
    let Some(namespace) = namespace() else { return };
    let mut raw = Raw::open(&namespace);
    insert_udp(&mut raw, 1000..6000);
    let mut dump = Raw::open(&namespace);
    let mut writer = MessageWriter::new();
    writer.begin(CT_GET, REQUEST | 0x300, 2, 2, 0);
    writer.end();
    dump.0.send(writer.bytes()).unwrap();
    let entries =
        |datagram: Vec<u8>| Messages::new(&datagram).filter(|message| message.unwrap().kind == CT_NEW).count();
    assert_ne!(entries(dump.next_datagram()), 0);
    raw.flush();
    assert_ne!(entries(dump.next_datagram()), 0, "the datagram that was built before the flush");
    assert_eq!(entries(dump.next_datagram()), 0, "one that was built after it");
}

#[test]
fn an_entry_that_is_deleted_while_it_is_dumped_does_not_come_back() {
    let Some(namespace) = namespace() else { return };
    let mut raw = Raw::open(&namespace);
    insert_udp(&mut raw, 1000..1100);
    let mut source = default_source(&namespace);
    let mut mirror = Mirror::default();
    // The first datagram is built here, with all entries in it; the events about their end are read before it.
    source.request_dump().unwrap();
    raw.flush();
    mirror.read_until(&mut source, |mirror| mirror.dumps == 1);
    assert_eq!(mirror.flows.len(), 0);
    // As many as fit into the first datagram.
    assert_ne!(counter(&source.counters(), "dump_superseded"), 0);
}

#[test]
fn what_is_changed_during_a_long_dump_ends_as_the_kernel_has_it() {
    let Some(namespace) = namespace() else { return };
    let mut raw = Raw::open(&namespace);
    insert_udp(&mut raw, 1000..9000);
    let mut source = default_source(&namespace);
    let mut mirror = Mirror::default();
    source.request_dump().unwrap();
    let mut port = 1000;
    mirror.read_until(&mut source, |mirror| {
        // Between two reads, some of the old entries go and some new ones come.
        for gone in port..port + 150 {
            let write =
                |writer: &mut MessageWriter| write_tuple(writer, 1, (0x0a000001, gone), (0xc0000201, 53), 17, 0);
            assert_eq!(raw.request(CT_DELETE, 0, write), 0);
        }
        insert_udp(&mut raw, port + 20_000..port + 20_050);
        port += 150;
        mirror.dumps == 1
    });
    assert!(port > 1300, "the dump was over too soon to prove anything");
    mirror.read_all(&mut source);
    assert_eq!(mirror.flows.len(), raw.dump().len());
    assert!(mirror.flows.keys().all(|flow| flow.source_port >= port));
}

#[test]
fn an_overrun_is_said_and_a_dump_after_it_finds_everything() {
    let Some(namespace) = namespace() else { return };
    let mut source = open(&namespace, &SourceOptions { receive_buffer: 16 * 1024, ..SourceOptions::default() });
    let mut raw = Raw::open(&namespace);
    insert_udp(&mut raw, 1000..3000);
    let mut mirror = Mirror::default();
    source.read(&mut |change| mirror.apply(change)).unwrap();
    // The queue is still full: a dump that began now would miss what is dropped until it is empty.
    source.request_dump().unwrap();
    assert_eq!((counter(&source.counters(), "overruns"), counter(&source.counters(), "dumps_started")), (1, 0));
    mirror.read_until(&mut source, |mirror| mirror.overruns == 1);
    assert!((1..2000).contains(&mirror.flows.len()));
    mirror.read_until(&mut source, |mirror| mirror.dumps == 1);
    assert_eq!(mirror.flows.len(), 2000);
    assert_eq!(counter(&source.counters(), "overruns"), 1);
    // And the events flow again.
    insert_udp(&mut raw, 4000..4001);
    mirror.read_until(&mut source, |mirror| mirror.flows.len() == 2001);
}

/// The births that were waiting come before the overrun is said, the deaths that were lost never: so all that comes
/// afterwards is true, and what a dump does not name is dead.
#[test]
fn nothing_that_is_older_than_an_overrun_comes_after_it() {
    let Some(namespace) = namespace() else { return };
    let mut source = open(&namespace, &SourceOptions { receive_buffer: 1 << 20, ..SourceOptions::default() });
    let mut raw = Raw::open(&namespace);
    insert_udp(&mut raw, 1000..5000);
    raw.flush();
    let mut mirror = Mirror::default();
    mirror.read_until(&mut source, |mirror| mirror.overruns == 1);
    assert_ne!(mirror.flows.len(), 0, "all deaths were told: nothing was proven");
    mirror.changes.clear();
    mirror.read_until(&mut source, |mirror| mirror.dumps == 1);
    assert_eq!(mirror.changes, []);
}

#[test]
fn an_overrun_during_a_dump_voids_it() {
    let Some(namespace) = namespace() else { return };
    let mut raw = Raw::open(&namespace);
    insert_udp(&mut raw, 1000..6000);
    let mut source = open(&namespace, &SourceOptions { receive_buffer: 16 * 1024, ..SourceOptions::default() });
    let mut mirror = Mirror::default();
    source.request_dump().unwrap();
    mirror.read(&mut source);
    raw.flush();
    insert_udp(&mut raw, 30_000..31_000);
    // An owner that asks for no other dump is told of none: what was lost may be what it misses.
    let mut overruns = 0;
    loop {
        match source.read(&mut |_| ()) {
            Ok(outcome) => {
                assert!(!outcome.dump_complete);
                if outcome.drained {
                    break;
                }
            }
            Err(SourceError::Overrun) => overruns += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_ne!(overruns, 0);
    assert_eq!(counter(&source.counters(), "dumps_completed"), 0);
    mirror.flows.clear();
    source.request_dump().unwrap();
    mirror.read_until(&mut source, |mirror| mirror.dumps == 1);
    assert_eq!(mirror.flows.len(), 1000);
}

#[test]
fn events_of_ignored_sockets_and_of_the_loopback_network_do_not_wake_us() {
    let Some(namespace) = namespace() else { return };
    let (mut own, mut other) = (Raw::open(&namespace), Raw::open(&namespace));
    let ignore_port_ids = vec![1, own.0.port_id().unwrap()];
    let mut source =
        open(&namespace, &SourceOptions { receive_buffer: 1 << 20, ignore_port_ids, ..SourceOptions::default() });
    insert_udp(&mut own, 1000..1010);
    let insert = |raw: &mut Raw, source: u32, destination: u32, protocol: u8| {
        raw.request(CT_NEW, CREATE_EXCL, |writer| {
            write_tuple(writer, 1, (source, 7), (destination, 9), protocol, 0);
            write_tuple(writer, 2, (destination, 9), (source, 7), protocol, 0);
            writer.attribute_u32_be(7, 600);
        })
    };
    const LOOPBACK: u32 = 0x7f000001;
    const OUTSIDE: u32 = 0x0a000001;
    assert_eq!(insert(&mut other, LOOPBACK, OUTSIDE, 17), 0);
    assert_eq!(insert(&mut other, OUTSIDE, LOOPBACK, 17), 0);
    // The entry that our own frames make.
    assert_eq!(insert(&mut other, OUTSIDE, 0x0a000002, 114), 0);
    let mut mirror = Mirror::default();
    let readiness = source.readiness().unwrap();
    let mut polled = [nix::poll::PollFd::new(readiness, nix::poll::PollFlags::POLLIN)];
    assert_eq!(nix::poll::poll(&mut polled, 0u8).unwrap(), 0, "it woke us");
    // What the others remove is news, be it ours or not.
    other.flush();
    mirror.read_until(&mut source, |mirror| mirror.changes.len() == 10);
    assert!(mirror.changes.iter().all(|change| matches!(change, Change::Delete(key) if key.source_port >= 1000)));
    // A dump has no filter in the kernel: the same is left out here.
    assert_eq!(insert(&mut other, LOOPBACK, LOOPBACK, 17), 0);
    assert_eq!(insert(&mut other, OUTSIDE, 0x0a000002, 114), 0);
    source.request_dump().unwrap();
    mirror.read_until(&mut source, |mirror| mirror.dumps == 1);
    assert_eq!(mirror.flows.len(), 0);
    let counters = source.counters();
    assert_eq!(counter(&counters, "filtered"), 2);
}

/// The end of an entry by its time-out has no requester, so that it passes even if we made the entry.
#[test]
fn an_own_entry_that_times_out_is_news() {
    let Some(namespace) = namespace() else { return };
    let mut own = Raw::open(&namespace);
    let ignore_port_ids = vec![own.0.port_id().unwrap()];
    let mut source =
        open(&namespace, &SourceOptions { receive_buffer: 1 << 20, ignore_port_ids, ..SourceOptions::default() });
    let status = own.request(CT_NEW, CREATE_EXCL, |writer| {
        write_tuple(writer, 1, (0x0a000001, 7), (0x0a000002, 9), 17, 0);
        write_tuple(writer, 2, (0x0a000002, 9), (0x0a000001, 7), 17, 0);
        writer.attribute_u32_be(7, 1);
    });
    assert_eq!(status, 0);
    let mut mirror = Mirror::default();
    mirror.read_until(&mut source, |mirror| {
        // The kernel looks at its clock when it is asked.
        own.dump();
        !mirror.changes.is_empty()
    });
    assert_eq!(mirror.changes, [Change::Delete(key(protocol::UDP, "10.0.0.1", 7, "10.0.0.2", 9))]);
}

/// What was made before is silent, and only a dump shows what became of it.
#[test]
fn events_are_switched_on_for_entries_to_come() {
    let Some(namespace) = namespace() else { return };
    set_events(&namespace, "0");
    let mut raw = Raw::open(&namespace);
    insert_udp(&mut raw, 1000..1010);
    let mut source = default_source(&namespace);
    let value = namespace.run(|| std::fs::read_to_string(EVENTS_SWITCH)).unwrap();
    assert_eq!(value.trim(), "1");
    insert_udp(&mut raw, 1010..1015);
    let mut mirror = Mirror::default();
    source.request_dump().unwrap();
    mirror.read_until(&mut source, |mirror| mirror.dumps == 1 && mirror.flows.len() == 15);
    raw.flush();
    mirror.read_until(&mut source, |mirror| mirror.flows.len() == 10);
    mirror.read_all(&mut source);
    assert_eq!(mirror.flows.len(), 10);
    mirror.flows.clear();
    source.request_dump().unwrap();
    mirror.read_until(&mut source, |mirror| mirror.dumps == 2);
    assert_eq!(mirror.flows.len(), 0);
}

#[test]
fn the_window_scales_of_a_real_connection_are_told() {
    let Some(namespace) = namespace_with_rules("") else { return };
    let mut source = default_source(&namespace);
    let streams = namespace
        .run(|| {
            let listener = TcpListener::bind("10.9.0.2:80")?;
            let client = TcpStream::connect("10.9.0.2:80")?;
            Ok((client, listener.accept()?.0))
        })
        .unwrap();
    let flow = key(protocol::TCP, "10.9.0.2", streams.0.local_addr().unwrap().port(), "10.9.0.2", 80);
    let mut mirror = Mirror::default();
    mirror.read_until(&mut source, |mirror| mirror.flows.get(&flow).is_some_and(|flow| flow.state == 3));
    let Some(TcpInfo { flags_original, flags_reply, .. }) = mirror.flows[&flow].tcp else {
        panic!("no TCP information")
    };
    // Window scaling and selective acknowledgements are what Linux offers.
    assert_eq!((flags_original & 0x03, flags_reply & 0x03), (0x03, 0x03));
    drop(streams);
    mirror.read_until(&mut source, |mirror| mirror.flows[&flow].state == 7);
}
