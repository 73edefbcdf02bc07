//! Protocols, address families and attributes against the kernel: what the sink writes the source reads back as the same
//! flow, and the kernel's own tool shows it as its kind.

use crate::support::*;
use ssyncp::bridge::conntrack::{ConntrackSink, ConntrackSource, SinkOptions, SourceOptions};
use ssyncp::bridge::{Sink, Source};
use ssyncp::flow::{
    Attributes, Change, Endpoint, Expectation, ExpectationNat, Flow, FlowKey, ProtocolInfo, SequenceAdjustment,
    Synproxy, Tuple, Zone, attribute, protocol, status,
};
use ssyncp::sys::namespace::Namespace;
use std::net::IpAddr;

const ASSURED: u16 = status::SEEN_REPLY | status::ASSURED | status::CONFIRMED;

fn sink(namespace: &Namespace) -> ConntrackSink {
    namespace.run(|| ConntrackSink::open(&SinkOptions::default()).map_err(io_error)).unwrap()
}

fn source(namespace: &Namespace) -> ConntrackSource {
    namespace.run(|| ConntrackSource::open(&SourceOptions::default()).map_err(io_error)).unwrap()
}

fn dump(namespace: &Namespace) -> Vec<Flow> {
    let (mut source, mut mirror) = (source(namespace), Mirror::default());
    source.request_dump().unwrap();
    mirror.read_until(&mut source, |mirror| mirror.dumps == 1);
    let mut flows: Vec<_> = mirror.flows.into_values().collect();
    flows.sort_by_key(|flow| flow.key);
    flows
}

fn write(sink: &mut ConntrackSink, flows: &[Flow]) {
    flows.iter().for_each(|flow| sink.apply(&Change::Upsert(flow.clone())).unwrap());
    assert_eq!(sink.flush().unwrap(), flows.len());
}

fn flow(protocol: u8, source: &str, source_port: u16, destination: &str, destination_port: u16) -> Flow {
    let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
    let key = FlowKey { source, destination, source_port, destination_port, protocol, zone: Zone::DEFAULT };
    Flow { status: ASSURED, timeout: 600, ..Flow::new(key) }
}

fn with(mut flow: Flow, kind: u8, data: &[u8]) -> Flow {
    flow.attributes.set(kind, data).unwrap();
    flow
}

fn sctp(source: &str, destination: &str) -> Flow {
    let tags = ProtocolInfo::Sctp { tag_original: 0x0a0b_0c0d, tag_reply: 7 };
    // 4 is ESTABLISHED (enum sctp_conntrack).
    Flow {
        state: 4,
        ..with(flow(protocol::SCTP, source, 5000, destination, 36412), attribute::PROTOCOL, &tags.to_wire())
    }
}

fn endpoint(address: &str, port: u16) -> Option<Endpoint> {
    Some(Endpoint { address: address.parse().unwrap(), port })
}

/// One of each kind, over both families, plain and translated.
fn every_kind() -> Vec<Flow> {
    let (four, six) = (["10.0.0.1", "192.0.2.10"], ["2001:db8::1", "2001:db8:1::10"]);
    let mut flows = Vec::new();
    for ([client, server], real, out) in [(four, "172.16.0.1", "203.0.113.1"), (six, "fd00::1", "2001:db8:2::1")] {
        let mut with_ports = vec![sctp(client, server)];
        with_ports.extend([protocol::UDP, protocol::UDPLITE].map(|number| flow(number, client, 4000, server, 53)));
        with_ports.push(Flow { state: 3, ..flow(protocol::TCP, client, 4000, server, 80) });
        for plain in with_ports {
            let moved = |port| FlowKey { source_port: port, ..plain.key };
            let dnat = Flow { key: moved(5001), reply_source: endpoint(real, 8080), ..plain.clone() };
            let snat = Flow { key: moved(5002), reply_destination: endpoint(out, 20000), ..plain.clone() };
            let both = Flow { key: moved(5003), reply_destination: endpoint(out, 20001), ..dnat.clone() };
            flows.extend([plain, dnat, snat, both]);
        }
        let zone = |direction| Zone { id: 7, direction };
        for direction in [Zone::BOTH, Zone::ORIGINAL, Zone::REPLY] {
            let mut zoned = flow(protocol::UDP, client, 7000 + u16::from(direction), server, 53);
            zoned.key.zone = zone(direction);
            flows.push(Flow { mark: 5, ..zoned });
        }
        // IGMP, ESP, OSPF: the kernel knows nothing of them but their number.
        flows.extend([2, 50, 89].map(|number| flow(number, client, 0, server, 0)));
        let mut translated = flow(50, client, 0, real, 0);
        translated.reply_destination = endpoint(out, 0);
        flows.push(translated);
    }
    flows.push(flow(protocol::ICMP, "10.0.0.1", 9, "192.0.2.10", 0x0800));
    let mut ping = flow(protocol::ICMPV6, "2001:db8::1", 9, "2001:db8:1::10", 0x8000);
    flows.push(ping.clone());
    ping.key.source_port = 10;
    ping.reply_destination = endpoint("2001:db8:2::1", 77);
    flows.push(ping);
    flows.push(flow(protocol::GRE, "10.0.0.1", 17, "192.0.2.10", 18));
    flows.sort_by_key(|flow| flow.key);
    flows
}

/// What the kernel makes of the status itself.
fn without_nat_bits(flow: &Flow) -> Flow {
    let nat = status::SRC_NAT | status::DST_NAT | status::SRC_NAT_DONE | status::DST_NAT_DONE;
    Flow { status: flow.status & !nat, timeout: 600, ..flow.clone() }
}

#[test]
fn every_kind_of_entry_comes_back_as_it_was_written() {
    let Some(namespace) = namespace() else { return };
    let (mut sink, flows) = (sink(&namespace), every_kind());
    write(&mut sink, &flows);
    assert_eq!(counter(&sink.counters(), "created"), flows.len() as u64, "{:?}", sink.counters());
    let found: Vec<_> = dump(&namespace).iter().map(without_nat_bits).collect();
    assert_eq!(found, flows);
    // Once more is an update in place, and deleting leaves nothing.
    write(&mut sink, &flows);
    assert_eq!(counter(&sink.counters(), "updated"), flows.len() as u64, "{:?}", sink.counters());
    assert_eq!(dump(&namespace).iter().map(without_nat_bits).collect::<Vec<_>>(), flows);
    flows.iter().for_each(|flow| sink.apply(&Change::Delete(flow.key)).unwrap());
    sink.flush().unwrap();
    assert_eq!(counter(&sink.counters(), "deleted"), flows.len() as u64, "{:?}", sink.counters());
    assert_eq!(dump(&namespace), []);
}

/// conntrack(8) shows what our own reader can not be a witness of.
#[test]
fn the_kernels_own_tool_shows_each_kind() {
    if !program("conntrack") {
        return;
    }
    let Some(namespace) = namespace() else { return };
    write(&mut sink(&namespace), &every_kind());
    let listed = shell_output(&namespace, "conntrack -L 2>/dev/null; conntrack -L -f ipv6 2>/dev/null");
    for words in [
        "sctp     132 ",
        "ESTABLISHED src=2001:db8::1 dst=2001:db8:1::10 sport=5001 dport=36412 src=fd00::1 dst=2001:db8::1 sport=8080",
        "udplite  136 ",
        "icmpv6   58 ",
        "src=2001:db8::1 dst=2001:db8:1::10 type=128 code=0 id=9",
        "gre      47 ",
        "srckey=0x11 dstkey=0x12",
        "zone=7",
        "zone-orig=7",
        "zone-reply=7",
    ] {
        assert!(listed.contains(words), "{words}:\n{listed}");
    }
}

/// A control connection of ftp with all that can hang on it.
fn rich() -> Flow {
    let sides = [
        SequenceAdjustment { position: 1000, before: 3, after: 5 },
        SequenceAdjustment { position: 2000, before: 0, after: 0xffff_fffe },
    ];
    let synproxy = Synproxy { isn: 11, its: 12, timestamp_offset: 13 };
    let plain = Flow { state: 3, mark: 9, ..flow(protocol::TCP, "10.0.0.1", 4000, "192.0.2.10", 21) };
    let adjusted = with(plain, attribute::SEQUENCE_ADJUSTMENT, &SequenceAdjustment::to_wire(&sides));
    let helped = with(adjusted, attribute::HELPER, b"ftp");
    with(helped, attribute::SYNPROXY, &synproxy.to_wire())
}

#[test]
fn what_hangs_on_a_flow_comes_back_with_it() {
    let Some(namespace) = namespace() else { return };
    let mut sink = sink(&namespace);
    write(&mut sink, &[rich()]);
    let found = dump(&namespace);
    assert_eq!(found.len(), 1, "{:?}", sink.counters());
    assert_eq!(found[0].attributes, rich().attributes);
    assert_eq!(found[0].status & status::SEQ_ADJUST, status::SEQ_ADJUST);
    // An update changes it in place; another helper is only to be had by a new entry.
    let moved = with(rich(), attribute::SEQUENCE_ADJUSTMENT, &[1; 24]);
    write(&mut sink, std::slice::from_ref(&moved));
    assert_eq!((counter(&sink.counters(), "updated"), dump(&namespace)[0].attributes.clone()), (1, moved.attributes));
    let plain = Flow { attributes: Attributes::NONE, ..rich() };
    write(&mut sink, std::slice::from_ref(&plain));
    assert_eq!((counter(&sink.counters(), "replaced"), dump(&namespace)[0].attributes.clone()), (1, plain.attributes));
}

#[test]
fn labels_are_kept_where_a_rule_uses_them_and_their_loss_is_counted_where_none_does() {
    let Some(namespace) = namespace() else { return };
    if !program("nft") {
        return;
    }
    let mut sink = sink(&namespace);
    let labels = [0x05, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80];
    let labelled = |port| with(flow(protocol::UDP, "10.0.0.1", port, "192.0.2.10", 53), attribute::LABELS, &labels);
    write(&mut sink, &[labelled(1), labelled(2)]);
    assert_eq!(counter(&sink.counters(), "labels_lost"), 2);
    assert!(dump(&namespace).iter().all(|flow| flow.attributes.is_empty()));
    shell(&namespace, "nft 'table ip t { chain c { type filter hook input priority 0; ct label 1 counter; }; }'");
    write(&mut sink, &[labelled(3)]);
    assert_eq!(counter(&sink.counters(), "labels_lost"), 2);
    let found = dump(&namespace).into_iter().find(|flow| flow.key.source_port == 3).unwrap();
    assert_eq!(found.attributes.labels(), Some(labels));
    // Labels that are gone: an update can not say so.
    let bare = Flow { attributes: Attributes::NONE, ..labelled(3) };
    write(&mut sink, &[bare]);
    let found = dump(&namespace).into_iter().find(|flow| flow.key.source_port == 3).unwrap();
    assert_eq!((found.attributes.labels(), counter(&sink.counters(), "replaced")), (None, 1));
}

/// An UPDATE about a mark names neither labels, nor helper's master, nor sequence numbers: none of it may get lost.
#[test]
fn a_change_of_the_mark_does_not_lose_what_the_event_leaves_out() {
    let Some(namespace) = namespace() else { return };
    if !program("nft") {
        return;
    }
    shell(&namespace, "nft 'table ip t { chain c { type filter hook input priority 0; ct label 1 counter; }; }'");
    let labelled = with(rich(), attribute::LABELS, &[9; 16]);
    let master = labelled.key;
    let child = flow(protocol::TCP, "10.0.0.1", 4001, "192.0.2.10", 20);
    let tuple = Tuple {
        source: master.source,
        destination: master.destination,
        source_port: 4000,
        destination_port: 21,
        protocol: 6,
    };
    let child = with(Flow { state: 3, ..child }, attribute::MASTER, &tuple.to_wire().unwrap());
    let mut source = source(&namespace);
    write(&mut sink(&namespace), &[labelled.clone(), child.clone()]);
    let mut mirror = Mirror::default();
    mirror.read_until(&mut source, |mirror| mirror.flows.len() == 2);
    assert_eq!(mirror.flows[&master].attributes, labelled.attributes);
    assert_eq!(mirror.flows[&child.key].attributes, child.attributes);
    let mut raw = Raw::open(&namespace);
    for port in [(4000, 21), (4001, 20)] {
        let marked = raw.request(CT_NEW, 0, |writer| {
            write_tuple(writer, 1, (0x0a00_0001, port.0), (0xc000_020a, port.1), 6, 0);
            writer.attribute_u32_be(8, 77);
        });
        assert_eq!(marked, 0);
    }
    mirror.read_until(&mut source, |mirror| mirror.flows.values().all(|flow| flow.mark == 77));
    assert_eq!(mirror.flows[&master].attributes, labelled.attributes);
    assert_eq!(mirror.flows[&child.key].attributes, child.attributes);
    assert_eq!(mirror.flows[&child.key].status & status::EXPECTED, status::EXPECTED);
}

#[test]
fn an_expected_flow_waits_for_its_master_and_does_without_if_it_does_not_come() {
    let Some(namespace) = namespace() else { return };
    let mut sink = sink(&namespace);
    let master = with(Flow { state: 3, ..flow(6, "10.0.0.1", 4000, "192.0.2.10", 21) }, attribute::HELPER, b"ftp");
    let tuple = Tuple {
        source: master.key.source,
        destination: master.key.destination,
        source_port: 4000,
        destination_port: 21,
        protocol: 6,
    };
    let child = |port, master: &Tuple| {
        let child = Flow { state: 3, ..flow(6, "10.0.0.1", port, "192.0.2.10", 20) };
        with(child, attribute::MASTER, &master.to_wire().unwrap())
    };
    // The child comes first.
    let first = child(5000, &tuple);
    write(&mut sink, &[first.clone(), master.clone()]);
    let found = |port| dump(&namespace).into_iter().find(|flow| flow.key.source_port == port).unwrap();
    assert_eq!(found(5000).attributes, first.attributes);
    assert_eq!(counter(&sink.counters(), "masters_missing"), 0);
    let orphan = child(5001, &Tuple { source_port: 1, ..tuple });
    write(&mut sink, &[orphan]);
    assert_eq!((found(5001).attributes, found(5001).state), (Attributes::NONE, 3));
    assert_eq!((counter(&sink.counters(), "masters_missing"), counter(&sink.counters(), "unsettled")), (1, 0));
}

#[test]
fn a_helper_that_the_kernel_does_not_have_is_left_out_and_counted() {
    let Some(namespace) = namespace() else { return };
    let mut sink = sink(&namespace);
    let strange = |port| with(flow(6, "10.0.0.1", port, "192.0.2.10", 21), attribute::HELPER, b"no-such-helper");
    write(&mut sink, &[strange(1)]);
    write(&mut sink, &[strange(1), strange(2)]);
    let counters = sink.counters();
    let counted = ["created", "updated", "replaced", "helpers_missing"].map(|name| counter(&counters, name));
    assert_eq!(counted, [2, 1, 0, 3]);
    assert!(dump(&namespace).iter().all(|flow| flow.attributes.is_empty()));
}

fn expectation(port: u16) -> Expectation {
    Expectation {
        tuple: Tuple {
            source: "192.0.2.10".parse().unwrap(),
            destination: "10.0.0.1".parse().unwrap(),
            source_port: 0,
            destination_port: port,
            protocol: 6,
        },
        mask_address: IpAddr::from([255; 4]),
        mask_port: 0,
        timeout: 300,
        flags: 0,
        class: 0,
        nat: Some(ExpectationNat { address: "10.0.0.1".parse().unwrap(), port: 6000, direction: 1 }),
        helper: "ftp".into(),
        function: "nat-follow-master".into(),
    }
}

fn expecting(expectations: &[Expectation]) -> Flow {
    let master = Flow { state: 3, ..flow(6, "10.0.0.1", 4000, "192.0.2.10", 21) };
    let master = with(master, attribute::HELPER, b"ftp");
    if expectations.is_empty() {
        return master;
    }
    let (row, left_out) = ssyncp::flow::write_expectations(expectations);
    assert_eq!(left_out, 0);
    with(master, attribute::EXPECTATIONS, &row)
}

fn expected_ports(flow: &Flow) -> Vec<u16> {
    let list = flow.attributes.expectations().unwrap_or_default();
    list.iter().map(|expectation| expectation.tuple.destination_port).collect()
}

#[test]
fn what_a_flow_expects_is_written_read_back_and_taken_back() {
    let Some(namespace) = namespace() else { return };
    let (mut sink, mut source, mut mirror) = (sink(&namespace), source(&namespace), Mirror::default());
    let key = expecting(&[]).key;
    let expects =
        |mirror: &Mirror, ports: &[u16]| mirror.flows.get(&key).is_some_and(|flow| expected_ports(flow) == ports);
    write(&mut sink, &[expecting(&[expectation(6001)])]);
    assert_eq!(counter(&sink.counters(), "expectations_created"), 1, "{:?}", sink.counters());
    mirror.read_until(&mut source, |mirror| expects(mirror, &[6001]));
    let told = mirror.flows[&key].attributes.expectations().unwrap();
    assert!(told[0].same_value(&expectation(6001)), "{told:?}");
    assert_eq!(expected_ports(&dump(&namespace)[0]), [6001]);
    // The same again is left as it is; another one takes its place.
    write(&mut sink, &[expecting(&[expectation(6001)])]);
    assert_eq!(counter(&sink.counters(), "expectations_created"), 1);
    write(&mut sink, &[expecting(&[expectation(6002)])]);
    mirror.read_until(&mut source, |mirror| expects(mirror, &[6002]));
    let counters = sink.counters();
    assert_eq!(["expectations_created", "expectations_removed"].map(|name| counter(&counters, name)), [2, 1]);
    write(&mut sink, &[expecting(&[])]);
    mirror.read_until(&mut source, |mirror| expects(mirror, &[]));
    assert_eq!(counter(&sink.counters(), "expectations_removed"), 2);
    assert!(expected_ports(&dump(&namespace)[0]).is_empty());
}

#[test]
fn an_expectation_of_a_master_without_a_helper_is_refused_and_counted() {
    let Some(namespace) = namespace() else { return };
    let mut sink = sink(&namespace);
    let mut master = expecting(&[expectation(6001)]);
    master.attributes.remove(attribute::HELPER);
    write(&mut sink, &[master]);
    let counters = sink.counters();
    assert_eq!(["created", "expectations_refused"].map(|name| counter(&counters, name)), [1, 1]);
}
