//! What the kernel says, and what the operator wants to hear of it.

use super::captures::text;
use super::frames::captured_flows;
use ssyncp::bridge::conntrack::codec;
use ssyncp::bridge::conntrack::filter::{Filter, Rule};
use ssyncp::bridge::conntrack::source::translate;
use ssyncp::flow::{Expectation, ExpectationNat, Flow, FlowKey, Tuple, Zone};
use ssyncp::sys::interface;
use ssyncp::sys::netlink::{Message, MessageWriter, Messages};
use std::net::IpAddr;

/// `RTM_NEWLINK`.
const NEW_LINK: u16 = 16;

/// What the kernel says on a netlink socket: read, written as a request, read again.
pub fn netlink(data: &[u8]) {
    for message in Messages::new(data).flatten() {
        let _ = (message.error_code(), message.family(), codec::start_time(&message));
        assert!(!codec::is_expectation(&message) || codec::decode(&message).is_err(), "both at once");
        entry(&message);
        expectation(&message);
        let link = Some(message.payload).filter(|_| message.kind == NEW_LINK).and_then(interface::read);
        assert!(link.is_none_or(|link| link.enabled || !link.carrier), "a carrier on what is switched off");
    }
    source(data);
}

/// The same as events, and as a part of a dump: a message is one change at most, and the dump ends as its last end says.
fn source(data: &[u8]) {
    let mut changes = 0;
    let ended = translate(&Filter::default(), data, data, &mut |_| changes += 1);
    let messages: Vec<Message<'_>> = Messages::new(data).flatten().collect();
    assert!(changes <= 2 * messages.len(), "more changes than messages");
    let end = messages.iter().rev().find_map(Message::error_code);
    assert_eq!(end.map(|code| code == 0), ended.map(|ended| ended.is_ok()));
}

/// Messages as our own sink writes them, one datagram each.
pub fn netlink_seeds() -> Vec<Vec<u8>> {
    let create = |flow: &Flow| {
        let mut writer = MessageWriter::new();
        codec::write_create(&mut writer, 1, flow, 600, codec::Without::default());
        writer.bytes().to_vec()
    };
    let announce = |told: &Expectation| {
        let mut writer = MessageWriter::new();
        codec::write_expectation(&mut writer, 1, &codec::master_key(&told.tuple), told);
        writer.bytes().to_vec()
    };
    let entries = captured_flows();
    let told: Vec<Vec<u8>> = entries.iter().take(60).map(create).chain(expected().iter().map(announce)).collect();
    // A dump that ends well, one that was interrupted and ends badly, and an interface.
    let plain = |kind: u16, flags: u16, payload: &[u8]| {
        let length = (16 + payload.len() as u32).to_ne_bytes();
        [&length[..], &kind.to_ne_bytes(), &flags.to_ne_bytes(), &[1, 0, 0, 0, 0, 0, 0, 0], payload].concat()
    };
    let done = [&told[0][..], &told[1], &plain(3, 2, &[0; 4])].concat();
    let failed = [&told[2][..], &plain(3, 0x12, &(-4_i32).to_ne_bytes())].concat();
    let link = [
        0, 0, 1, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 8, 0, 4, 0, 0x78, 5, 0, 0, 5, 0, 16, 0, 6, 0, 0, 0, 5, 0, 33,
        0, 1,
    ];
    told.into_iter().chain([done, failed, plain(NEW_LINK, 0, &[&link[..], &[0; 3]].concat())]).collect()
}

fn entry(message: &Message<'_>) {
    let Ok(decoded) = codec::decode(message) else { return };
    if codec::check_flow(&decoded.flow).is_err() {
        return;
    }
    let mut writer = MessageWriter::new();
    codec::write_create(&mut writer, 1, &decoded.flow, decoded.flow.timeout, codec::Without::default());
    codec::write_update(&mut writer, 2, &decoded.flow, decoded.flow.timeout);
    for message in Messages::new(writer.bytes()) {
        let message = message.expect("what we write is whole");
        let again = codec::decode(&message).expect("what we write can be read");
        assert_eq!(again.flow.key, decoded.flow.key, "a key changes on its way to the kernel");
    }
}

/// An expectation comes back as it was told, under the master that it was told of.
fn expectation(message: &Message<'_>) {
    let Ok(told) = codec::decode_expectation(message) else { return };
    let master = codec::master_key(&told.master);
    let one_family = |address: IpAddr| address.is_ipv4() == told.master.source.is_ipv4();
    let of_one_family = one_family(told.expectation.tuple.source)
        && one_family(told.expectation.mask_address)
        && told.expectation.nat.is_none_or(|nat| one_family(nat.address));
    if codec::check_key(&master).is_err() || !of_one_family {
        return;
    }
    let mut writer = MessageWriter::new();
    codec::write_expectation(&mut writer, 1, &master, &told.expectation);
    let mut messages = Messages::new(writer.bytes());
    let message = messages.next().expect("one message").expect("what we write is whole");
    assert!(messages.next().is_none());
    let again = codec::decode_expectation(&message).expect("what we write can be read");
    assert_eq!(codec::master_key(&again.master), master);
    let ports = |told: &Expectation| (told.tuple.source, told.tuple.destination, told.tuple.protocol);
    assert_eq!(ports(&again.expectation), ports(&told.expectation));
    let rest = |told: &Expectation| (told.timeout, told.flags, told.class, told.helper.clone(), told.function.clone());
    assert_eq!(rest(&again.expectation), rest(&told.expectation));
    assert_eq!(again.expectation.mask_address, told.expectation.mask_address);
}

/// An ftp server that listens for data, over IPv4 without NAT and over IPv6 with it.
pub fn expected() -> Vec<Expectation> {
    let of = |source: IpAddr, destination: IpAddr, mask_address: IpAddr| Expectation {
        tuple: Tuple { source, destination, source_port: 0, destination_port: 40_001, protocol: 6 },
        mask_address,
        mask_port: 0,
        timeout: 300,
        flags: 0,
        class: 0,
        nat: None,
        helper: "ftp".into(),
        function: String::new(),
    };
    let wide = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
    let plain = of([10, 0, 0, 1].into(), [192, 0, 2, 10].into(), [255, 255, 255, 255].into());
    let nat = Some(ExpectationNat { address: wide(9), port: 40_001, direction: 1 });
    let translated = Expectation { nat, function: "nat-follow-master".into(), ..of(wide(1), wide(2), wide(0xffff)) };
    vec![plain, translated]
}

/// A filter: one rule in each line. What is parsed prints as it was written, and parses again as the same; a flow that
/// meets the rules has a key that may.
pub fn filter(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut rules: Vec<Rule> = Vec::new();
    for line in text.lines() {
        match line.parse::<Rule>() {
            Ok(rule) => {
                assert_eq!(rule.to_string(), line);
                assert_eq!(rule.to_string().parse().as_ref(), Ok(&rule));
                rules.push(rule);
            }
            Err(error) => {
                let columns = line.chars().count() + 1;
                assert!((1..=columns).contains(&error.column), "column {} of {columns}", error.column);
            }
        }
    }
    let filter = Filter::new(&rules);
    for flow in flows() {
        let alone = |rule: &Rule| Filter::new(std::slice::from_ref(rule)).matches(&flow);
        assert_eq!(filter.matches(&flow), Filter::default().matches(&flow) && rules.iter().all(alone));
        assert!(!filter.matches(&flow) || filter.may_match(&flow.key), "the kernel would leave out {flow:?}");
    }
}

/// Rules of the documents and of the language's own description.
pub fn filter_seeds() -> Vec<Vec<u8>> {
    let by_hand = [
        "not dst 192.168.0.0/16\ntcp or udp port 53",
        "tcp, udp and not addr 10.0.0.0/8, 2001:db8::/32",
        "tcp state established, close_wait or ct state related and zone 5",
        "proto 132 and mark 0x1/0xff or ct status assured, dnat",
        "not not icmpv6 and sport 1024-65535 and dport 80, 443",
        "sctp state cookie_wait or dccp state open",
    ];
    let quoted = |line: &str| line.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let readme = text("README.md");
    let documented = readme.lines().filter(|line| line.contains("filter")).flat_map(quoted);
    by_hand.into_iter().map(str::to_owned).chain(documented).map(String::into_bytes).collect()
}

fn flows() -> Vec<Flow> {
    let key = FlowKey {
        source: IpAddr::from([10, 0, 0, 1]),
        destination: IpAddr::from([192, 0, 2, 10]),
        source_port: 40_000,
        destination_port: 80,
        protocol: 6,
        zone: Zone::DEFAULT,
    };
    let wide = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
    let tcp = Flow { state: 3, status: 0x0e, mark: 0x41, ..Flow::new(key) };
    let new = Flow { state: 1, status: 0x08, ..Flow::new(FlowKey { zone: Zone { id: 5, direction: 0 }, ..key }) };
    let six = FlowKey { source: wide(1), destination: wide(2), protocol: 132, ..key };
    let ping = FlowKey { protocol: 58, source_port: 5, destination_port: 128 << 8, ..six };
    let local = FlowKey { source: [127, 0, 0, 1].into(), ..key };
    let gre = FlowKey { protocol: 47, ..key };
    [six, ping, local, gre].map(Flow::new).into_iter().chain([tcp, new]).collect()
}
