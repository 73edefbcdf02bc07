//! The rules against the kernel: the socket filter decides as user space does, over real messages; and what no longer
//! meets the rules ends.

use crate::support::*;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use ssyncp::bridge::Source;
use ssyncp::bridge::conntrack::{ConntrackSource, Division, Filter, Rule, SourceOptions};
use ssyncp::flow::{Change, Flow, FlowKey, Zone};
use ssyncp::sys::namespace::Namespace;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn rules(texts: &[&str]) -> Filter {
    Filter::new(&texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Rule>>())
}

fn open(namespace: &Namespace, filter: Filter) -> ConntrackSource {
    let options = SourceOptions { filter, receive_buffer: 4 << 20, ..SourceOptions::default() };
    namespace.run(|| ConntrackSource::open(&options).map_err(io_error)).unwrap()
}

/// Entries of many kinds, none of which begins in a loopback network.
fn fill(raw: &mut Raw) {
    let mut number = 0u32;
    for protocol in [1u8, 2, 6, 17, 50, 132, 136] {
        for source in [0x0a00_0001u32, 0x0a00_0101, 0xc0a8_0001] {
            for (sport, dport) in [(1000u16, 22u16), (40_000, 80), (40_001, 1024)] {
                number += 1;
                let portless = matches!(protocol, 2 | 50);
                if portless && sport != 1000 {
                    continue;
                }
                let zone = match number % 5 {
                    0 => Zone { id: 5, direction: (number / 5 % 3) as u8 },
                    _ => Zone::DEFAULT,
                };
                let to = if protocol == 1 { 0x0800 } else { dport };
                insert(raw, ((source, sport), (0xc000_0200 + number % 3, to), protocol), zone, |writer| {
                    writer.attribute_u32_be(8, number);
                    if protocol == 6 {
                        write_tcp(writer, 1 + (number % 9) as u8, 3);
                    }
                    if protocol == 132 {
                        writer.nest(4, |info| {
                            info.nest(3, |sctp| {
                                sctp.attribute_u8(1, 4);
                                sctp.attribute_u32_be(2, 1);
                                sctp.attribute_u32_be(3, 2);
                            });
                        });
                    }
                });
            }
        }
    }
    // And the same over IPv6, of UDP.
    for (sport, last) in [(1000u16, 1u8), (2000, 2), (3000, 3)] {
        let mut from = [0u8; 16];
        from[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        from[15] = last;
        let to = {
            let mut to = from;
            to[4] = 1;
            to
        };
        let errno = raw.request_family(10, CT_NEW, CREATE_EXCL, |writer| {
            for (kind, a, b, first, second) in [(1, from, to, sport, 53u16), (2, to, from, 53, sport)] {
                writer.nest(kind, |tuple| {
                    tuple.nest(1, |ip| {
                        ip.attribute(3, &a);
                        ip.attribute(4, &b);
                    });
                    tuple.nest(2, |layer| {
                        layer.attribute_u8(1, 17);
                        layer.attribute_u16_be(2, first);
                        layer.attribute_u16_be(3, second);
                    });
                });
            }
            writer.attribute_u32_be(7, 600);
        });
        assert_eq!(errno, 0);
    }
}

fn any_term() -> impl Strategy<Value = String> {
    let end = || prop::sample::select(vec!["src", "dst", "addr"]);
    let port_end = || prop::sample::select(vec!["sport", "dport", "port"]);
    let network = prop::sample::select(vec![
        "10.0.0.0/8",
        "10.0.1.0/24",
        "192.0.2.1",
        "0.0.0.0/0",
        "::/0",
        "2001:db8::/32",
        "2001:db8:100::/40",
        "2001:db8::2",
        "10.0.0.1, 2001:db8::1",
        "192.168.0.0/16,192.0.2.0/31",
    ]);
    let test = prop_oneof![
        prop::sample::select(vec!["tcp", "udp,icmp", "132", "proto 2, 50", "udplite", "sctp"]).prop_map(str::to_owned),
        (end(), network).prop_map(|(end, network)| format!("{end} {network}")),
        (port_end(), prop::sample::select(vec!["22", "1000-2000", "0-65535", "53,80", "40001"]))
            .prop_map(|(end, ports)| format!("{end} {ports}")),
        prop::sample::select(vec!["zone 5", "zone 0", "zone 0,5"]).prop_map(str::to_owned),
        prop::sample::select(vec!["mark 7", "mark 1/1", "ct state established", "tcp state established"])
            .prop_map(str::to_owned),
    ];
    (any::<bool>(), test).prop_map(|(negated, test)| if negated { format!("not {test}") } else { test })
}

/// One to three rules of one to two alternatives of one to three terms.
fn any_rules() -> impl Strategy<Value = Vec<String>> {
    let alternative = prop::collection::vec(any_term(), 1..=3).prop_map(|terms| terms.join(" and "));
    let rule = prop::collection::vec(alternative, 1..=2).prop_map(|alternatives| alternatives.join(" or "));
    prop::collection::vec(rule, 1..=3)
}

/// Everything is inserted, and one source per filter has its events filtered by the kernel; user space counts what it
/// had to leave out itself.
#[test]
fn the_kernel_decides_about_events_as_user_space_does() {
    let Some(namespace) = namespace() else { return };
    let mut raw = Raw::open(&namespace);
    let mut all = open(&namespace, rules(&[]));
    fill(&mut raw);
    let mut everything = Mirror::default();
    everything.read_all(&mut all);
    assert!(everything.flows.len() > 50, "{}", everything.flows.len());
    raw.flush_all();
    let cases = Config { cases: 60, failure_persistence: None, ..Config::default() };
    let (raw, partly) = (RefCell::new(raw), Cell::new(0));
    TestRunner::new(cases)
        .run(&any_rules(), |texts| {
            let mut raw = raw.borrow_mut();
            let texts: Vec<_> = texts.iter().map(String::as_str).collect();
            let filter = rules(&texts);
            let mut source = open(&namespace, filter.clone());
            fill(&mut raw);
            let mut mirror = Mirror::default();
            mirror.read_all(&mut source);
            let wanted: HashSet<FlowKey> =
                everything.flows.values().filter(|flow| filter.matches(flow)).map(|flow| flow.key).collect();
            let told: HashSet<FlowKey> = mirror.flows.keys().copied().collect();
            prop_assert_eq!(&told, &wanted);
            // What cannot change was left out by the kernel: user space saw only what it alone can decide.
            let may = everything.flows.keys().filter(|key| filter.may_match(key)).count();
            let counters = source.counters();
            let [seen, left_out] = ["events_new", "filtered"].map(|name| counter(&counters, name) as usize);
            prop_assert_eq!((seen, left_out), (may, may - wanted.len()));
            // A dump says the same.
            let mut dumped = Mirror::default();
            source.request_dump().unwrap();
            dumped.read_until(&mut source, |mirror| mirror.dumps == 1);
            let told: HashSet<FlowKey> = dumped.flows.keys().copied().collect();
            prop_assert_eq!(&told, &wanted);
            // Ends are told of everything that may have been replicated.
            let mut ends = Mirror::default();
            raw.flush_all();
            ends.read_all(&mut source);
            prop_assert_eq!(ends.changes.len(), may);
            partly.set(partly.get() + usize::from(may > wanted.len()));
            Ok(())
        })
        .unwrap();
    assert!(partly.get() > 0, "no rule was about what can change");
}

/// Addresses of which flows are made, and that groups hold: any of them may be anybody's.
const V4: [u32; 4] = [0x0a00_0001, 0xc000_020a, 0xc000_0214, 0xcb00_7102];
const V6: [[u8; 16]; 3] = [v6(0, 1), v6(0, 10), v6(10, 1)];

const fn v6(middle: u8, last: u8) -> [u8; 16] {
    [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, middle, 0, 0, 0, 0, 0, 0, 0, last]
}

fn held() -> impl Iterator<Item = IpAddr> {
    V4.iter().map(|bits| Ipv4Addr::from(*bits).into()).chain(V6.iter().map(|bits| Ipv6Addr::from(*bits).into()))
}

/// From each address to each, with answers to each: UDP over IPv4 and IPv6.
fn fill_translated(raw: &mut Raw) {
    let mut port = 1000;
    let mut ports = || {
        port += 1;
        port
    };
    let every = |count: usize| (0..count.pow(3)).map(move |n| [n % count, n / count % count, n / count / count]);
    for [from, to, back] in every(V4.len()) {
        let port = ports();
        let errno = raw.request(CT_NEW, CREATE_EXCL, |writer| {
            write_tuple(writer, 1, (V4[from], port), (V4[to], 53), 17, 0);
            write_tuple(writer, 2, (V4[to], 53), (V4[back], port), 17, 0);
            writer.attribute_u32_be(7, 600);
        });
        assert_eq!(errno, 0);
    }
    for [from, to, back] in every(V6.len()) {
        let port = ports();
        let errno = raw.request_family(10, CT_NEW, CREATE_EXCL, |writer| {
            for (kind, ends, ports) in [(1, [from, to], [port, 53]), (2, [to, back], [53, port])] {
                writer.nest(kind, |tuple| {
                    tuple.nest(1, |ip| (3..).zip(ends).for_each(|(kind, end)| ip.attribute(kind, &V6[end])));
                    tuple.nest(2, |layer| {
                        layer.attribute_u8(1, 17);
                        (2..).zip(ports).for_each(|(kind, port)| layer.attribute_u16_be(kind, port));
                    });
                });
            }
            writer.attribute_u32_be(7, 600);
        });
        assert_eq!(errno, 0);
    }
}

/// Each address is a group's own, another group's, or nobody's; the kernel leaves out exactly what user space would.
#[test]
fn the_kernel_divides_events_as_user_space_does() {
    let Some(namespace) = namespace() else { return };
    let mut raw = Raw::open(&namespace);
    let (mut all, mut everything) = (open(&namespace, rules(&[])), Mirror::default());
    fill_translated(&mut raw);
    everything.read_all(&mut all);
    assert_eq!(everything.flows.len(), 64 + 27);
    raw.flush_all();
    let cases = Config { cases: 60, failure_persistence: None, ..Config::default() };
    let (raw, owned) = (RefCell::new(raw), Cell::new(0));
    let holders = prop::collection::vec(0u8..3, V4.len() + V6.len());
    TestRunner::new(cases)
        .run(&holders, |holders| {
            let of =
                |holder: u8| held().zip(&holders).filter(move |(_, it)| **it == holder).map(|(address, _)| address);
            let filter = rules(&[]).divided(Some(Division::new(of(1), of(2))));
            let mut raw = raw.borrow_mut();
            let (mut source, mut mirror) = (open(&namespace, filter.clone()), Mirror::default());
            fill_translated(&mut raw);
            mirror.read_all(&mut source);
            raw.flush_all();
            let own = everything.flows.values().filter(|flow| filter.matches(flow)).map(|flow| flow.key);
            let wanted: HashSet<FlowKey> = own.collect();
            prop_assert_eq!(&mirror.flows.keys().copied().collect::<HashSet<_>>(), &wanted);
            let [seen, left_out] = ["events_new", "filtered"].map(|name| counter(&source.counters(), name) as usize);
            prop_assert_eq!((seen, left_out), (wanted.len(), 0), "user space had to decide");
            owned.set(owned.get() + wanted.len());
            Ok(())
        })
        .unwrap();
    assert!((1..60 * 91).contains(&owned.get()), "no division that divides: {}", owned.get());
}

fn tcp(raw: &mut Raw, port: u16, mark: u32) {
    insert(raw, ((0x0a00_0001, port), (0xc000_0201, 80), 6), Zone::DEFAULT, |writer| {
        writer.attribute_u32_be(8, mark);
        write_tcp(writer, 3, 3);
    });
}

fn set_mark(raw: &mut Raw, port: u16, mark: u32) {
    let errno = raw.request(CT_NEW, 0, |writer| {
        write_tuple(writer, 1, (0x0a00_0001, port), (0xc000_0201, 80), 6, 0);
        writer.attribute_u32_be(8, mark);
    });
    assert_eq!(errno, 0);
}

fn marks(mirror: &Mirror) -> Vec<(u16, u32)> {
    let mut marks: Vec<_> = mirror.flows.values().map(|flow: &Flow| (flow.key.source_port, flow.mark)).collect();
    marks.sort_unstable();
    marks
}

#[test]
fn a_flow_that_no_longer_meets_the_rules_ends_and_one_that_does_again_begins() {
    let Some(namespace) = namespace() else { return };
    let mut raw = Raw::open(&namespace);
    let (mut source, mut mirror) = (open(&namespace, rules(&["mark 1/1"])), Mirror::default());
    tcp(&mut raw, 1, 1);
    tcp(&mut raw, 2, 2);
    mirror.read_until(&mut source, |mirror| mirror.flows.len() == 1);
    assert_eq!((marks(&mirror), mirror.changes.len()), (vec![(1, 1)], 1));
    set_mark(&mut raw, 1, 4);
    set_mark(&mut raw, 2, 3);
    mirror.read_until(&mut source, |mirror| marks(mirror) == [(2, 3)]);
    assert!(matches!(mirror.changes[1], Change::Delete(key) if key.source_port == 1), "{:?}", mirror.changes);
}

#[test]
fn other_rules_take_effect_for_events_and_by_a_dump_for_what_is_there() {
    let Some(namespace) = namespace() else { return };
    let mut raw = Raw::open(&namespace);
    let (mut source, mut mirror) = (open(&namespace, rules(&["dport 81"])), Mirror::default());
    tcp(&mut raw, 1, 0);
    mirror.read_all(&mut source);
    assert_eq!(marks(&mirror), []);
    source.set_filter(&rules(&["dport 80"])).unwrap();
    source.request_dump().unwrap();
    mirror.read_until(&mut source, |mirror| mirror.dumps == 1);
    assert_eq!(marks(&mirror), [(1, 0)]);
    tcp(&mut raw, 2, 0);
    mirror.read_until(&mut source, |mirror| marks(mirror).len() == 2);
    source.set_filter(&rules(&["not tcp"])).unwrap();
    source.request_dump().unwrap();
    let mut anew = Mirror::default();
    anew.read_until(&mut source, |mirror| mirror.dumps == 1);
    assert_eq!(marks(&anew), []);
}

/// 64 rules of many networks do not fit into the kernel's 4096 instructions: what does not, user space decides.
#[test]
fn rules_that_do_not_fit_into_the_kernel_are_still_obeyed() {
    let Some(namespace) = namespace() else { return };
    let mut raw = Raw::open(&namespace);
    let networks = (0..100).map(|number| format!("172.16.{number}.0/24")).collect::<Vec<_>>().join(",");
    let many: Vec<String> = (0..64).map(|_| format!("not addr {networks}")).collect();
    let mut texts: Vec<&str> = many.iter().map(String::as_str).collect();
    texts.push("sport 2");
    let (mut source, mut mirror) = (open(&namespace, rules(&texts)), Mirror::default());
    tcp(&mut raw, 1, 0);
    tcp(&mut raw, 2, 0);
    mirror.read_until(&mut source, |mirror| !mirror.flows.is_empty());
    mirror.read_all(&mut source);
    assert_eq!(marks(&mirror), [(2, 0)]);
}
