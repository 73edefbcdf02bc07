//! Several sync links, links over IPv6, and links whose MTU changes: what the socket transports make of them on a real
//! wire, asked of all of them.

use crate::support::machine::root;
use crate::support::{
    Crafted, Lan, SocketTransport, hear, hear_others, ip, ipv6_frame, ipv6_options, is_up, open, options, send, until,
    until_heard,
};
use ssyncp::sys::interface::InterfaceWatch;
use ssyncp::transport::{LinkCondition, LinkStatus, RawOptions, RawTransport, Transport};

macro_rules! on_the_wire {
    ($($claim:ident)*) => {
        over!(raw, RawTransport: $($claim)*);
        over!(reference, NixTransport: $($claim)*);
    };
}

on_the_wire! {
    a_frame_over_ipv6_is_a_datagram_as_the_rules_want_it
    over_ipv6_what_has_crossed_a_router_or_is_too_long_is_refused
    over_ipv6_another_group_is_unheard
    over_ipv6_a_frame_never_leaves_in_fragments
    over_ipv6_a_sender_hears_nothing
    an_ipv6_link_is_up_when_its_address_is_usable
    frames_follow_the_mtu_in_both_directions
    an_mtu_that_is_too_small_is_a_link_that_is_down
    over_ipv6_frames_follow_the_mtu_too
    the_smallest_of_several_links_counts_unless_it_is_gone
    each_link_counts_for_itself
    a_link_without_a_carrier_holds_up_nobody
    one_interface_of_two_that_was_replaced_is_opened_again
}

// The same over packet sockets, without what it does otherwise: see tests/transport/packet.rs.
over! { packet, PacketTransport:
    a_frame_over_ipv6_is_a_datagram_as_the_rules_want_it
    over_ipv6_another_group_is_unheard
    over_ipv6_what_has_crossed_a_router_or_is_too_long_is_refused
    frames_follow_the_mtu_in_both_directions
    an_mtu_that_is_too_small_is_a_link_that_is_down
    over_ipv6_frames_follow_the_mtu_too
    the_smallest_of_several_links_counts_unless_it_is_gone
    each_link_counts_for_itself
    a_link_without_a_carrier_holds_up_nobody
    one_interface_of_two_that_was_replaced_is_opened_again
}

// The same over AF_XDP, without what it does otherwise: see tests/transport/xdp.rs.
over! { xdp, XdpTransport:
    over_ipv6_what_has_crossed_a_router_or_is_too_long_is_refused
    over_ipv6_a_frame_never_leaves_in_fragments
    over_ipv6_a_sender_hears_nothing
    frames_follow_the_mtu_in_both_directions
    an_mtu_that_is_too_small_is_a_link_that_is_down
    over_ipv6_frames_follow_the_mtu_too
    the_smallest_of_several_links_counts_unless_it_is_gone
    each_link_counts_for_itself
    a_link_without_a_carrier_holds_up_nobody
    one_interface_of_two_that_was_replaced_is_opened_again
}

fn two() -> RawOptions {
    RawOptions { interfaces: vec!["sync0".into(), "sync1".into()], ..options() }
}

fn conditions(status: &[LinkStatus]) -> Vec<(&str, LinkCondition)> {
    status.iter().map(|link| (link.name.as_str(), link.condition)).collect()
}

/// A pair over IPv6, ready to speak.
fn ipv6_pair<T: SocketTransport>(lan: &Lan, options: &RawOptions) -> (T, T) {
    let (mut a, mut b): (T, T) = (open(lan, 0, options), open(lan, 1, options));
    until(|| is_up(lan, 0, &mut a) && is_up(lan, 1, &mut b));
    (a, b)
}

/// The next IPv6 packet of protocol 114 at `wire`, from its Ethernet header on.
fn next_ipv6(wire: &mut ssyncp::sys::socket::PacketSocket) -> Vec<u8> {
    let mut buffer = [0; 10_000];
    let mut found = Vec::new();
    until(|| {
        while let Some((length, _)) = wire.receive(&mut buffer).unwrap() {
            if found.is_empty() && buffer[20] == 114 {
                found = buffer[..length].to_vec();
            }
        }
        !found.is_empty()
    });
    found
}

/// [3.0.5] Next header 114, hop limit 255, from a link-local address to ff02::7251.
fn a_frame_over_ipv6_is_a_datagram_as_the_rules_want_it<T: SocketTransport>() {
    let lan = Lan::new(2, 1);
    let (mut a, mut b) = ipv6_pair::<T>(&lan, &ipv6_options());
    let mut wire = lan.packet_socket(1, 0x86dd);
    send(&mut a, &[b"over six"]);
    let packet = next_ipv6(&mut wire);
    assert_eq!(packet[..6], [0x33, 0x33, 0, 0, 0x72, 0x51]);
    assert_eq!(packet[14] >> 4, 6);
    assert_eq!(packet[18..22], [0, 8, 114, 255], "payload length, next header, hop limit");
    assert_eq!(packet[22..24], [0xfe, 0x80]);
    assert_eq!(packet[38..54], [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x72, 0x51]);
    assert_eq!(packet[54..62], *b"over six");
    let mut source = None;
    until(|| b.receive(&mut |meta, _| source = Some(meta.source)).unwrap() == 1);
    let std::net::IpAddr::V6(source) = source.unwrap() else { panic!("not over IPv6") };
    assert_eq!(source.octets(), packet[22..38]);
}

/// [3.0.5] [3.0.8]
fn over_ipv6_what_has_crossed_a_router_or_is_too_long_is_refused<T: SocketTransport>() {
    let lan = Lan::new(2, 1);
    ip(&lan.switch, "link set p0-0 mtu 9100\nlink set p0-1 mtu 9100");
    lan.ip(0, "link set sync0 mtu 9100");
    lan.ip(1, "link set sync0 mtu 9100");
    let (_, mut b) = ipv6_pair::<T>(&lan, &ipv6_options());
    let wire = lan.packet_socket(0, 0);
    for (hop_limit, length) in [(254, 4), (1, 4), (255, 8961), (255, 8960), (255, 4)] {
        wire.send(&ipv6_frame(0x7251, hop_limit, &vec![length as u8; length])).unwrap();
    }
    assert_eq!(hear(&mut b, 2), [vec![0; 8960], vec![4; 4]]);
    let counters = b.counters();
    assert_eq!((counters.ttl_refused, counters.oversized, counters.malformed), (2, 1, 0));
}

fn over_ipv6_another_group_is_unheard<T: SocketTransport>() {
    let lan = Lan::new(2, 1);
    let other = RawOptions { group: "ff02::7252".parse().unwrap(), ..ipv6_options() };
    let (_, mut neighbour) = ipv6_pair::<T>(&lan, &other);
    let (_, mut b) = ipv6_pair::<T>(&lan, &ipv6_options());
    let mut ipv4: T = open(&lan, 1, &options());
    let wire = lan.packet_socket(0, 0);
    wire.send(&ipv6_frame(0x7252, 255, b"not for us")).unwrap();
    wire.send(&ipv6_frame(0x7251, 255, b"fence")).unwrap();
    wire.send(&Crafted::new(b"four").bytes()).unwrap();
    assert_eq!(hear(&mut b, 1), [b"fence"]);
    assert_eq!(hear(&mut neighbour, 1), [b"not for us"]);
    assert_eq!(hear(&mut ipv4, 1), [b"four"]);
    assert_eq!(b.receive(&mut |_, _| panic!("not over IPv6")).unwrap(), 0);
}

/// [3.0.5] The kernel would cut it in pieces unless it is told otherwise; IPV6_DONTFRAG alone does not tell it.
fn over_ipv6_a_frame_never_leaves_in_fragments<T: SocketTransport>() {
    let lan = Lan::new(2, 1);
    let sender = lan.nodes[0].run(|| {
        let interface = ssyncp::sys::socket::interface("sync0")?;
        let group = "ff02::7251".parse().unwrap();
        ssyncp::sys::socket::multicast_sender(114, group, &interface, 1 << 20).map_err(std::io::Error::other)
    });
    let sender = sender.unwrap();
    let to: socket2::SockAddr = "[ff02::7251]:0".parse::<std::net::SocketAddr>().unwrap().into();
    let mut wire = lan.packet_socket(1, 0x86dd);
    let error = sender.send_to(&[1; 1461], &to).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
    assert_eq!(sender.send_to(&[2; 1460], &to).unwrap(), 1460);
    let packet = next_ipv6(&mut wire);
    assert_eq!((packet.len(), packet[54]), (14 + 40 + 1460, 2), "the first thing on the wire is the frame that fits");
    let _ = open::<T>(&lan, 0, &ipv6_options());
}

/// [3.0.5] An unbound raw IPv6 socket hears every group of its host, so only a filter makes it deaf.
fn over_ipv6_a_sender_hears_nothing<T: SocketTransport>() {
    let lan = Lan::new(2, 1);
    let (_, mut b) = ipv6_pair::<T>(&lan, &ipv6_options());
    let wire = lan.packet_socket(0, 0);
    for _ in 0..100 {
        wire.send(&ipv6_frame(0x7251, 255, &[1; 100])).unwrap();
    }
    assert_eq!(hear(&mut b, 100).len(), 100);
    let sockets = lan.nodes[1].run(|| std::fs::read_to_string("/proc/thread-self/net/raw6")).unwrap();
    let sender = sockets.lines().find(|line| line.contains(" 00000000000000000000000000000000:0072 "));
    let columns: Vec<&str> = sender.expect("the send socket").split_whitespace().collect();
    assert_eq!(columns[4], "00000000:00000000", "{sockets}");
}

/// While duplicate address detection runs, nothing can leave; that is a link that is not up yet, and no error.
fn an_ipv6_link_is_up_when_its_address_is_usable<T: SocketTransport>() {
    let lan = Lan::new(2, 1);
    let (mut a, mut b) = ipv6_pair::<T>(&lan, &ipv6_options());
    lan.ip(0, "addr flush dev sync0 scope link");
    let mut frames = 1;
    let error = a.transmit(&mut |_| (frames > 0).then(|| frames -= 1).map(|()| 10)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrNotAvailable);
    until(|| !is_up(&lan, 0, &mut a) || a.transmit(&mut |_| None).is_err());
    assert_eq!(conditions(&a.links()), [("sync0", LinkCondition::NoAddress)]);
    lan.ip(0, "addr add fe80::114/64 dev sync0 nodad");
    until(|| is_up(&lan, 0, &mut a));
    until_heard(&mut a, &mut b, b"addressed");
}

/// Sends as many frames as asked for, each as long as its slot, and returns their lengths.
fn fill_slots(port: &mut dyn Transport, count: usize) -> Vec<usize> {
    let mut lengths = Vec::new();
    let fill = &mut |slot: &mut [u8]| {
        (lengths.len() < count).then(|| lengths.push(slot.len())).map(|()| {
            slot.fill(7);
            slot.len()
        })
    };
    port.transmit(fill).unwrap();
    lengths
}

fn set_mtu(lan: &Lan, link: usize, mtu: u32) {
    // The wider end first, so that no end ever sends what the other does not take.
    ip(&lan.switch, &format!("link set p{link}-0 mtu 9000\nlink set p{link}-1 mtu 9000"));
    lan.ip(0, &format!("link set sync{link} mtu {mtu}"));
}

/// [3.0.8] Under traffic: no frame is lost to a change, neither to a smaller MTU nor to a larger one.
fn frames_follow_the_mtu_in_both_directions<T: SocketTransport>() {
    let lan = Lan::new(2, 1);
    lan.ip(1, "link set sync0 mtu 9000");
    let all = RawOptions { frame_len: None, ..options() };
    let (mut a, mut b): (T, T) = (open(&lan, 0, &all), open(&lan, 1, &all));
    until(|| is_up(&lan, 0, &mut a) && is_up(&lan, 1, &mut b));
    until_heard(&mut a, &mut b, b"ready");
    let mut sent = 0;
    for (mtu, frame_len) in [(1500, 1480), (1228, 1208), (9000, 8960), (1500, 1480), (65535, 8960), (1229, 1209)] {
        set_mtu(&lan, 0, mtu);
        assert_eq!(fill_slots(&mut a, 3), [frame_len; 3], "MTU {mtu}");
        assert_eq!((a.limits().frame_len, a.links()[0].mtu), (frame_len, mtu));
        sent += 3;
        let lengths: Vec<usize> = hear_others(&mut b, 3, b"ready").iter().map(Vec::len).collect();
        assert_eq!(lengths, [frame_len; 3]);
    }
    assert_eq!((a.counters().send_errors, a.pending()), (0, 0));
    assert_eq!((b.counters().oversized, sent), (0, 18));
}

fn an_mtu_that_is_too_small_is_a_link_that_is_down<T: SocketTransport>() {
    let lan = Lan::new(2, 1);
    let mut a: T = open(&lan, 0, &RawOptions { frame_len: None, ..options() });
    until(|| is_up(&lan, 0, &mut a));
    lan.ip(0, "link set sync0 mtu 1227");
    assert!(!is_up(&lan, 0, &mut a));
    assert_eq!(conditions(&a.links()), [("sync0", LinkCondition::SmallMtu)]);
    assert_eq!(a.limits().frame_len, 1480, "what it was stays what is planned with");
    lan.ip(0, "link set sync0 mtu 1228");
    assert!(is_up(&lan, 0, &mut a));
    assert_eq!(a.limits().frame_len, 1208);
}

fn over_ipv6_frames_follow_the_mtu_too<T: SocketTransport>() {
    let lan = Lan::new(2, 1);
    let all = RawOptions { frame_len: None, ..ipv6_options() };
    let (mut a, mut b) = ipv6_pair::<T>(&lan, &all);
    for (mtu, frame_len) in [(1500, 1460), (1280, 1240), (9000, 8960)] {
        set_mtu(&lan, 0, mtu);
        assert_eq!(fill_slots(&mut a, 3), [frame_len; 3], "MTU {mtu}");
    }
    assert_eq!(a.counters().send_errors, 0);
    lan.ip(0, "link set sync0 mtu 1279");
    assert!(!is_up(&lan, 0, &mut a));
    assert_eq!(conditions(&a.links()), [("sync0", LinkCondition::SmallMtu)]);
    // The interface has forgotten the group, and is to hear it again all the same.
    lan.ip(0, "link set sync0 mtu 1500");
    until(|| is_up(&lan, 0, &mut a));
    until_heard(&mut b, &mut a, b"do you hear");
    until_heard(&mut a, &mut b, b"I do");
}

/// [3.0.8]
fn the_smallest_of_several_links_counts_unless_it_is_gone<T: SocketTransport>() {
    let lan = Lan::new(2, 2);
    let mut a: T = open(&lan, 0, &RawOptions { frame_len: None, ..two() });
    until(|| is_up(&lan, 0, &mut a));
    lan.ip(0, "link set sync1 mtu 1300");
    assert_eq!(fill_slots(&mut a, 1), [1280]);
    lan.ip(0, "link set sync0 mtu 1250");
    assert_eq!(fill_slots(&mut a, 1), [1230]);
    // One that is down comes back as it was, and the frames are ready for it.
    lan.ip(0, "link set sync0 down");
    assert_eq!(fill_slots(&mut a, 1), [1230]);
    lan.ip(0, "link del sync0");
    assert_eq!(fill_slots(&mut a, 1), [1280]);
}

fn each_link_counts_for_itself<T: SocketTransport>() {
    let lan = Lan::new(2, 2);
    let (mut a, mut b): (T, T) = (open(&lan, 0, &two()), open(&lan, 1, &two()));
    until(|| is_up(&lan, 0, &mut a) && is_up(&lan, 1, &mut b));
    send(&mut a, &[&b"four"[..], b"seven.."]);
    hear(&mut b, 4);
    lan.ip(0, "link set sync1 down");
    assert!(is_up(&lan, 0, &mut a));
    send(&mut a, &[b"one"]);
    hear(&mut b, 1);
    let sent = |link: &LinkStatus| (link.counters.frames_sent, link.counters.bytes_sent, link.counters.send_errors);
    assert_eq!(a.links().iter().map(sent).collect::<Vec<_>>(), [(3, 14, 0), (2, 11, 1)]);
    let heard = |link: &LinkStatus| (link.counters.frames_received, link.counters.bytes_received);
    assert_eq!(b.links().iter().map(heard).collect::<Vec<_>>(), [(3, 14), (2, 11)]);
    assert_eq!(conditions(&a.links()), [("sync0", LinkCondition::Up), ("sync1", LinkCondition::Disabled)]);
}

/// Its queue takes nothing, and says "full" for ever.
fn a_link_without_a_carrier_holds_up_nobody<T: SocketTransport>() {
    let lan = Lan::new(2, 2);
    let (mut a, mut b): (T, T) = (open(&lan, 0, &two()), open(&lan, 1, &two()));
    ip(&lan.switch, "link set p0-0 down");
    until(|| is_up(&lan, 0, &mut a) && conditions(&a.links())[0].1 == LinkCondition::NoCarrier);
    let frames: Vec<[u8; 100]> = (0..100).map(|number| [number; 100]).collect();
    for frame in &frames {
        // One call, and it is gone.
        send(&mut a, &[frame]);
        assert_eq!(a.pending(), 0);
    }
    assert_eq!(hear(&mut b, 100), frames);
    assert_eq!((a.counters().frames_sent, a.counters().send_errors), (100, 100));
}

fn one_interface_of_two_that_was_replaced_is_opened_again<T: SocketTransport>() {
    let lan = Lan::new(2, 2);
    let (mut a, mut b): (T, T) = (open(&lan, 0, &two()), open(&lan, 1, &two()));
    lan.ip(0, "link del sync1");
    assert!(is_up(&lan, 0, &mut a));
    assert_eq!(conditions(&a.links()), [("sync0", LinkCondition::Up), ("sync1", LinkCondition::Missing)]);
    lan.plug(0, 1);
    lan.await_carrier(0, 1);
    until(|| is_up(&lan, 0, &mut a) && conditions(&a.links())[1].1 == LinkCondition::Up);
    let mut by = [false; 2];
    until(|| {
        send(&mut a, &[b"twice"]);
        b.receive(&mut |meta, _| by[usize::from(meta.link)] = true).unwrap();
        by == [true; 2]
    });
}

/// [7.0.1] A link that goes down and one that comes back is told of once, whatever it did meanwhile.
#[test]
fn a_change_of_a_link_is_told_once() {
    if !root() {
        return;
    }
    let lan = Lan::new(2, 2);
    let mut a: RawTransport = open(&lan, 0, &two());
    until(|| is_up(&lan, 0, &mut a) && a.links().iter().all(LinkStatus::up));
    while a.next_change().is_some() {}
    lan.ip(0, "link set sync1 down");
    is_up(&lan, 0, &mut a);
    is_up(&lan, 0, &mut a);
    let change = a.next_change().unwrap();
    assert_eq!((change.name.as_str(), change.up(), change.condition.words()), ("sync1", false, "switched off"));
    assert!(a.next_change().is_none());
    lan.ip(0, "link set sync1 up");
    until(|| is_up(&lan, 0, &mut a) && a.links()[1].up());
    lan.ip(0, "link set sync1 down\nlink set sync1 up");
    until(|| is_up(&lan, 0, &mut a) && a.links()[1].up());
    assert_eq!(a.next_change().map(|change| (change.name.clone(), change.up())), Some(("sync1".into(), true)));
    assert!(a.next_change().is_none());
}

/// The kernel tells of a change while nobody looks: whoever waits for frames is woken.
#[test]
fn a_link_that_goes_down_wakes_who_waits() {
    if !root() {
        return;
    }
    let lan = Lan::new(1, 1);
    let mut a: RawTransport = open(&lan, 0, &options());
    until(|| is_up(&lan, 0, &mut a));
    while ssyncp::transport::Transport::transmit(&mut a, &mut |_| None).unwrap() > 0 {}
    lan.ip(0, "link set sync0 down");
    // Without the notification this would never return.
    ssyncp::sys::poll::wait(&a.readiness(), None).unwrap();
    assert!(a.transmit(&mut |_| None).is_ok());
    assert!(!a.link_is_up(), "to send is to have heard of it");
}

#[test]
fn a_watch_hears_of_its_own_interfaces_only_and_gets_every_answer() {
    if !root() {
        return;
    }
    let lan = Lan::new(1, 1);
    let mut watch = lan.nodes[0].run(InterfaceWatch::open).unwrap();
    let index = watch.ask("sync0").unwrap().index;
    watch.listen_to(&[index]).unwrap();
    // Joining the group, being plugged in and the like may still be told.
    until(|| !watch.changed());
    lan.ip(0, "link add other type veth peer name another\nlink set other mtu 1300\nlink del other");
    assert!(!watch.changed());
    lan.ip(0, "link set sync0 mtu 1400");
    assert!(watch.changed());
    assert!(!watch.changed());
    lan.ip(0, "link add other type veth peer name another\nlink set sync0 mtu 1300");
    let answer = watch.ask("other").unwrap();
    assert_eq!((answer.enabled, answer.carrier, answer.mtu), (false, false, 1500));
    assert!(watch.changed(), "what came before the answer is not forgotten");
    assert_eq!(watch.ask("nobody").unwrap_err().raw_os_error(), Some(libc::ENODEV));
    lan.ip(0, "link del sync0");
    assert!(watch.changed());
}

/// [3.0.5] Anybody can forge an ICMPv6 error about our frames. It must neither fail the next one nor shrink what may
/// leave.
#[test]
fn a_forged_icmpv6_error_costs_no_frame() {
    if !root() {
        return;
    }
    let lan = Lan::new(2, 1);
    let (mut a, mut b) = ipv6_pair::<RawTransport>(&lan, &RawOptions { frame_len: Some(1400), ..ipv6_options() });
    let mut wire = lan.packet_socket(1, 0x86dd);
    send(&mut a, &[[1; 1400]]);
    assert_eq!(hear(&mut b, 1), [[1; 1400]]);
    let ours = next_ipv6(&mut wire);
    // Destination unreachable (address), packet too big with 1280 bytes (RFC 4443 sections 3.1 and 3.2).
    for (kind, code, mtu) in [(1, 3, 0), (2, 0, 1280)] {
        wire.send(&crate::support::icmpv6_error(&ours, kind, code, mtu)).unwrap();
        let name = if kind == 1 { "Icmp6InDestUnreachs" } else { "Icmp6InPktTooBigs" };
        until(|| lan.snmp6(0, name) == 1);
        send(&mut a, &[[kind; 1400], [kind; 1400]]);
        assert_eq!(hear(&mut b, 2), [[kind; 1400], [kind; 1400]]);
    }
    assert_eq!(a.counters().send_errors, 0);
}
