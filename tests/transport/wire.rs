//! What the socket transports must do on a real wire, between network namespaces, asked of all of them.
//!
//! A claim that nothing arrives is proven with a fence: a good frame sent afterwards, which order makes arrive last.

use crate::support::machine::root;
use crate::support::{
    BATCH, BUFFER, Crafted, Lan, SocketTransport, hear, hear_others, ip, is_up, open, options, reopen, send, until,
    until_counted, until_heard,
};
use ssyncp::sys::{poll, socket};
use ssyncp::transport::{RawOptions, RawTransport, Transport, TransportError};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

macro_rules! on_the_wire {
    ($($claim:ident)*) => {
        over!(raw, RawTransport: $($claim)*);
        over!(reference, NixTransport: $($claim)*);
    };
}

on_the_wire! {
    a_datagram_that_has_crossed_a_router_is_refused
    ip_options_are_skipped
    a_datagram_without_a_frame_is_malformed
    a_frame_longer_than_the_largest_is_counted_and_the_next_one_passes
    drops_by_the_kernel_are_counted_to_the_last
    a_group_that_was_not_joined_is_unheard
    the_kernels_own_ipvs_frames_are_ignored
    what_a_sibling_hears_does_not_come_here_and_all_else_does
    a_frame_never_leaves_in_fragments
    frames_that_the_wire_does_not_take_wait_and_leave_in_order
    frames_that_the_socket_does_not_take_wait_and_leave_in_order
    a_call_that_begins_with_what_was_left_moves_no_more_than_a_batch
    a_link_that_goes_down_says_so_and_works_again_when_it_is_up
    a_link_that_loses_its_carrier_is_not_up
    an_interface_that_was_replaced_is_opened_again
    a_link_without_an_address_will_do
    frames_go_out_on_all_links_and_tell_which_one_they_came_by
    what_is_waited_on_hangs_on_no_epoll
    one_link_of_two_may_fail
    a_sender_hears_nothing
    the_largest_frame_follows_the_smallest_mtu
    an_interface_that_is_missing_has_its_own_error
}

// The same over packet sockets, without what it does otherwise: see tests/transport/packet.rs.
over! { packet, PacketTransport:
    a_group_that_was_not_joined_is_unheard
    a_datagram_that_has_crossed_a_router_is_refused
    ip_options_are_skipped
    a_datagram_without_a_frame_is_malformed
    a_frame_longer_than_the_largest_is_counted_and_the_next_one_passes
    drops_by_the_kernel_are_counted_to_the_last
    the_kernels_own_ipvs_frames_are_ignored
    what_a_sibling_hears_does_not_come_here_and_all_else_does
    a_frame_never_leaves_in_fragments
    a_link_that_goes_down_says_so_and_works_again_when_it_is_up
    a_link_that_loses_its_carrier_is_not_up
    an_interface_that_was_replaced_is_opened_again
    a_link_without_an_address_will_do
    frames_go_out_on_all_links_and_tell_which_one_they_came_by
    what_is_waited_on_hangs_on_no_epoll
    one_link_of_two_may_fail
    the_largest_frame_follows_the_smallest_mtu
    an_interface_that_is_missing_has_its_own_error
}

// The same over AF_XDP, without what it does otherwise: see tests/transport/xdp.rs.
over! { xdp, XdpTransport:
    a_datagram_that_has_crossed_a_router_is_refused
    ip_options_are_skipped
    a_datagram_without_a_frame_is_malformed
    a_frame_longer_than_the_largest_is_counted_and_the_next_one_passes
    drops_by_the_kernel_are_counted_to_the_last
    the_kernels_own_ipvs_frames_are_ignored
    a_frame_never_leaves_in_fragments
    a_link_that_goes_down_says_so_and_works_again_when_it_is_up
    a_link_that_loses_its_carrier_is_not_up
    an_interface_that_was_replaced_is_opened_again
    a_link_without_an_address_will_do
    frames_go_out_on_all_links_and_tell_which_one_they_came_by
    what_is_waited_on_hangs_on_no_epoll
    one_link_of_two_may_fail
    a_sender_hears_nothing
    the_largest_frame_follows_the_smallest_mtu
    an_interface_that_is_missing_has_its_own_error
}

/// [3.0.2] [3] a receiver drops TTL ≠ 255.
fn a_datagram_that_has_crossed_a_router_is_refused<T: SocketTransport>() {
    let lan = Lan::new(2, 1);
    let mut port: T = open(&lan, 1, &options());
    let wire = lan.packet_socket(0, 0);
    wire.send(&Crafted { ttl: 254, ..Crafted::new(b"far away") }.bytes()).unwrap();
    wire.send(&Crafted { ttl: 1, ..Crafted::new(b"far away") }.bytes()).unwrap();
    wire.send(&Crafted::new(b"near").bytes()).unwrap();
    assert_eq!(hear(&mut port, 1), [b"near"]);
    assert_eq!((port.counters().ttl_refused, port.counters().frames_received), (2, 1));
}

fn ip_options_are_skipped<T: SocketTransport>() {
    let lan = Lan::new(2, 1);
    let mut port: T = open(&lan, 1, &options());
    let wire = lan.packet_socket(0, 0);
    wire.send(&Crafted { options: 10, ..Crafted::new(&[7; 1208]) }.bytes()).unwrap();
    assert_eq!(hear(&mut port, 1), [[7; 1208]]);
}

fn a_datagram_without_a_frame_is_malformed<T: SocketTransport>() {
    let lan = Lan::new(2, 1);
    let mut port: T = open(&lan, 1, &options());
    let wire = lan.packet_socket(0, 0);
    wire.send(&Crafted::new(b"").bytes()).unwrap();
    wire.send(&Crafted::new(b"fence").bytes()).unwrap();
    assert_eq!(hear(&mut port, 1), [b"fence"]);
    assert_eq!(port.counters().malformed, 1);
}

/// [3.0.8] What a receiver takes does not depend on what it could send.
fn a_frame_longer_than_the_largest_is_counted_and_the_next_one_passes<T: SocketTransport>() {
    let lan = Lan::new(2, 1);
    ip(&lan.switch, "link set p0-0 mtu 9100\nlink set p0-1 mtu 9100");
    lan.ip(0, "link set sync0 mtu 9100");
    lan.ip(1, "link set sync0 mtu 9100");
    let mut port: T = open(&lan, 1, &options());
    let wire = lan.packet_socket(0, 0);
    for length in [8960, 8961, 9080, 1] {
        wire.send(&Crafted::new(&vec![length as u8; length]).bytes()).unwrap();
    }
    assert_eq!(port.limits().frame_len, 1208);
    assert_eq!(hear(&mut port, 2), [vec![0; 8960], vec![1; 1]]);
    assert_eq!((port.counters().oversized, port.counters().malformed), (2, 0));
}

fn drops_by_the_kernel_are_counted_to_the_last<T: SocketTransport>() {
    let lan = Lan::new(2, 1);
    let mut sender: T = open(&lan, 0, &options());
    let mut port: T = open(&lan, 1, &RawOptions { receive_buffer: 8192, ..options() });
    assert_eq!(port.counters().receive_buffer, 8192);
    for round in 1..=2 {
        send(&mut sender, &[[5; 1208]; 150]);
        let counters = until_counted(&mut port, |c| c.frames_received + c.dropped_by_kernel == 150 * round);
        assert!(counters.frames_received > 0 && counters.dropped_by_kernel > 0, "{counters:?}");
    }
    // Drops that a later frame has told of are not counted again.
    send(&mut sender, &[b"calm"]);
    hear(&mut port, 1);
    let counters = port.counters();
    assert_eq!(counters.frames_received + counters.dropped_by_kernel, 301);
}

fn a_group_that_was_not_joined_is_unheard<T: SocketTransport>() {
    let lan = Lan::new(2, 1);
    let mut port: T = open(&lan, 1, &options());
    let other = Ipv4Addr::new(224, 0, 0, 82);
    // Another socket of the host has joined it, which is enough for a socket that leaves IP_MULTICAST_ALL on.
    let mut neighbour: T = open(&lan, 1, &RawOptions { group: other.into(), ..options() });
    let wire = lan.packet_socket(0, 0);
    wire.send(&Crafted { group: other, ..Crafted::new(b"not for us") }.bytes()).unwrap();
    wire.send(&Crafted::new(b"fence").bytes()).unwrap();
    assert_eq!(hear(&mut port, 1), [b"fence"]);
    assert_eq!(hear(&mut neighbour, 1), [b"not for us"]);
}

/// [3.0.3] [3] the kernel's IPVS daemon uses the same group with UDP port 8848; ignored, and not malformed.
fn the_kernels_own_ipvs_frames_are_ignored<T: SocketTransport>() {
    let lan = Lan::new(2, 1);
    let mut port: T = open(&lan, 1, &options());
    let wire = lan.packet_socket(0, 0);
    let udp = [0x22, 0x90, 0x22, 0x90, 0, 12, 0, 0, 1, 2, 3, 4];
    wire.send(&Crafted { protocol: 17, ..Crafted::new(&udp) }.bytes()).unwrap();
    wire.send(&Crafted::new(b"fence").bytes()).unwrap();
    assert_eq!(hear(&mut port, 1), [b"fence"]);
    let counters = port.counters();
    assert_eq!((counters.frames_received, counters.malformed, counters.ttl_refused), (1, 0, 0));
}

/// The kernel drops what another thread of this process hears anyway; what is of a stranger's group, or too short to be of any,
/// must come, for it is counted here.
fn what_a_sibling_hears_does_not_come_here_and_all_else_does<T: SocketTransport>() {
    for group in ["224.0.0.81", "ff02::7251"] {
        let lan = Lan::new(2, 1);
        let options = RawOptions { group: group.parse().unwrap(), ..options() };
        let mut sender: T = open(&lan, 0, &options);
        let mut port: T = open(&lan, 1, &RawOptions { siblings: vec![52, 53], ..options });
        let frame = |sync_id: u8| {
            let mut frame = [0; 100];
            frame[1] = sync_id;
            frame.to_vec()
        };
        until_heard(&mut sender, &mut port, b"?");
        let sent = [frame(51), frame(52), vec![0], frame(53), vec![0, 54], frame(54)];
        send(&mut sender, &sent);
        let heard = hear_others(&mut port, 4, b"?");
        assert_eq!(heard, [frame(51), vec![0], vec![0, 54], frame(54)], "{group}");
    }
}

/// [3.0.1] [3] don't-fragment, TTL 255, protocol 114, to 224.0.0.81; one frame is one datagram.
fn a_frame_never_leaves_in_fragments<T: SocketTransport>() {
    let lan = Lan::new(2, 1);
    let mut sender: T = open(&lan, 0, &RawOptions { frame_len: Some(1480), ..options() });
    let mut wire = lan.packet_socket(1, 0x0800);
    send(&mut sender, &[[8; 1480]]);
    until(|| next_of_ours(&mut wire, &mut [0; 2000]) == Some(14 + 20 + 1480));
    lan.ip(0, "link set sync0 mtu 1300");
    let mut lengths = [1281, 1280].into_iter();
    let fill = &mut |slot: &mut [u8]| {
        slot.fill(9);
        lengths.next()
    };
    assert_eq!(sender.transmit(fill).unwrap(), 1, "one byte more than the link carries does not leave");
    assert_eq!((sender.counters().send_errors, sender.pending()), (1, 0));
    let mut buffer = [0; 2000];
    let mut length = None;
    until(|| {
        length = next_of_ours(&mut wire, &mut buffer);
        length.is_some()
    });
    assert_eq!(length, Some(14 + 20 + 1280), "the first thing on the wire is the frame that fits");
    assert_eq!(buffer[..6], crate::support::GROUP_MAC);
    assert_eq!(buffer[20..22], [0x40, 0], "don't-fragment, and no fragment");
    assert_eq!(buffer[22..24], [255, 114]);
    assert_eq!(buffer[30..34], [224, 0, 0, 81]);
}

/// Length of the next Ethernet frame that holds protocol 114. (Hosts send IGMP reports, too.)
fn next_of_ours(wire: &mut socket::PacketSocket, buffer: &mut [u8]) -> Option<usize> {
    let mut found = None;
    while let (None, Some((length, _))) = (found, wire.receive(buffer).unwrap()) {
        found = (buffer[23] == 114).then_some(length);
    }
    found
}

fn frames_that_the_wire_does_not_take_wait_and_leave_in_order<T: SocketTransport>() {
    // The socket has room for everything; the queueing discipline below it, for two or three frames.
    leave_in_order::<T>("rate 20mbit burst 3000 limit 4000", BUFFER);
}

fn a_call_that_begins_with_what_was_left_moves_no_more_than_a_batch<T: SocketTransport>() {
    let lan = Lan::new(2, 1);
    // 8 bits a second after the first 2000 bytes: one frame passes, one waits below the socket, the rest waits in the
    // transport.
    lan.tc(0, "qdisc add dev sync0 root tbf rate 8bit burst 2000 limit 2000");
    let mut sender: T = open(&lan, 0, &options());
    let mut frames = 4;
    let four = &mut |_: &mut [u8]| (frames > 0).then(|| frames -= 1).map(|()| 1208);
    assert_eq!(sender.transmit(four).unwrap(), 2);
    let asked_in_vain = &mut |_: &mut [u8]| panic!("a full queue wants no more frames");
    assert_eq!((sender.transmit(asked_in_vain).unwrap(), sender.pending()), (0, 2));
    lan.tc(0, "qdisc del dev sync0 root");
    let mut asked = 0;
    let fill = &mut |_: &mut [u8]| {
        asked += 1;
        Some(1208)
    };
    assert_eq!(sender.transmit(fill).unwrap(), 8);
    assert_eq!((asked, sender.pending()), (6, 0));
}

fn frames_that_the_socket_does_not_take_wait_and_leave_in_order<T: SocketTransport>() {
    leave_in_order::<T>("rate 20mbit burst 3000 limit 4000000", 4096);
}

fn leave_in_order<T: SocketTransport>(queue: &str, send_buffer: usize) {
    let lan = Lan::new(2, 1);
    lan.tc(0, &format!("qdisc add dev sync0 root tbf {queue}"));
    let mut sender: T = open(&lan, 0, &RawOptions { send_buffer, ..options() });
    let mut port: T = open(&lan, 1, &options());
    let frames: Vec<Vec<u8>> = (0..150u8).map(|n| vec![n; 1208]).collect();
    let mut next = frames.iter();
    let fill = &mut |slot: &mut [u8]| {
        slot.copy_from_slice(next.next()?);
        Some(1208)
    };
    let (mut left, mut waited, mut heard) = (0, false, Vec::new());
    until(|| {
        let leave = sender.transmit(fill).unwrap();
        assert!(leave <= BATCH, "{leave} frames left in one call");
        left += leave;
        waited |= sender.pending() > 0;
        port.receive(&mut |_, frame| heard.push(frame.to_vec())).unwrap();
        heard.len() >= 150
    });
    assert!(waited, "the queue was never full, so this shows nothing");
    assert_eq!(heard, frames);
    assert_eq!((left, sender.counters().frames_sent, sender.counters().send_errors), (150, 150, 0));
}

fn a_link_that_goes_down_says_so_and_works_again_when_it_is_up<T: SocketTransport>() {
    let lan = Lan::new(2, 1);
    let (mut a, mut b): (T, T) = (open(&lan, 0, &options()), open(&lan, 1, &options()));
    assert!(a.link_is_up() && b.link_is_up());
    lan.ip(0, "link set sync0 down");
    assert!(!is_up(&lan, 0, &mut a));
    let mut frames = 3;
    let error = a.transmit(&mut |_| (frames > 0).then(|| frames -= 1).map(|()| 10)).unwrap_err();
    assert!(matches!(error.kind(), io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown), "{error}");
    assert_eq!((a.counters().send_errors, a.pending()), (3, 0));
    assert_eq!(a.transmit(&mut |_| None).unwrap(), 0, "who has nothing to say meets no error");
    assert_eq!(a.receive(&mut |_, _| {}).unwrap_or(0), 0);
    lan.ip(0, "link set sync0 up");
    until(|| is_up(&lan, 0, &mut a));
    until_heard(&mut a, &mut b, b"back");
    send(&mut b, &[b"welcome"]);
    // To open again what is as it was must cost nothing that waits.
    poll::wait(&a.readiness(), Some(crate::support::DEADLINE)).unwrap();
    reopen(&lan, 0, &mut a);
    assert_eq!(hear(&mut a, 1), [b"welcome"]);
}

fn a_link_that_loses_its_carrier_is_not_up<T: SocketTransport>() {
    let lan = Lan::new(2, 1);
    let mut port: T = open(&lan, 0, &options());
    ip(&lan.switch, "link set p0-0 down");
    until(|| !is_up(&lan, 0, &mut port));
    ip(&lan.switch, "link set p0-0 up");
    until(|| is_up(&lan, 0, &mut port));
}

fn an_interface_that_was_replaced_is_opened_again<T: SocketTransport>() {
    let lan = Lan::new(2, 1);
    let mut a: T = open(&lan, 0, &RawOptions { receive_buffer: 8192, ..options() });
    let mut b: T = open(&lan, 1, &options());
    send(&mut b, &[[6; 1208]; 100]);
    let before = until_counted(&mut a, |c| c.frames_received + c.dropped_by_kernel == 100);
    assert!(before.dropped_by_kernel > 0);
    lan.ip(0, "link del sync0");
    assert!(!is_up(&lan, 0, &mut a));
    let error = lan.nodes[0].run(|| Ok(a.reopen())).unwrap().unwrap_err();
    assert!(matches!(error, TransportError::NoInterface { ref name } if name == "sync0"), "{error}");
    lan.plug(0, 0);
    lan.await_carrier(0, 0);
    let mut frames = 1;
    assert!(a.transmit(&mut |_| (frames > 0).then(|| frames -= 1).map(|()| 10)).is_err());
    assert!(!a.link_is_up(), "an interface of the same name is not yet ours");
    assert!(is_up(&lan, 0, &mut a), "a look opens it");
    until_heard(&mut a, &mut b, b"back");
    send(&mut b, &[b"welcome"]);
    assert_eq!(hear(&mut a, 1), [b"welcome"]);
    let after = a.counters();
    assert_eq!(after.frames_received, before.frames_received + 1);
    assert_eq!(after.dropped_by_kernel, before.dropped_by_kernel);
}

fn a_link_without_an_address_will_do<T: SocketTransport>() {
    let lan = Lan::new(2, 1);
    lan.ip(0, "addr flush dev sync0");
    lan.ip(1, "addr flush dev sync0");
    let (mut a, mut b): (T, T) = (open(&lan, 0, &options()), open(&lan, 1, &options()));
    send(&mut a, &[b"unnumbered"]);
    let mut source = None;
    until(|| b.receive(&mut |meta, _| source = Some(meta.source.to_string())).unwrap() == 1);
    assert_eq!(source.as_deref(), Some("0.0.0.0"));
}

/// The kernel would call it for each frame.
fn what_is_waited_on_hangs_on_no_epoll<T: SocketTransport>() {
    let lan = Lan::new(1, 2);
    let two = RawOptions { interfaces: vec!["sync0".into(), "sync1".into()], ..options() };
    let port: T = open(&lan, 0, &two);
    let readiness = port.readiness();
    assert!(readiness.len() >= 3, "two links, and what is told of them: {readiness:?}");
    for descriptor in readiness.iter() {
        let path = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
        let kind = std::fs::read_link(path).unwrap().into_os_string().into_string().unwrap();
        assert!(kind.starts_with("socket:"), "{kind}");
    }
}

fn frames_go_out_on_all_links_and_tell_which_one_they_came_by<T: SocketTransport>() {
    let lan = Lan::new(2, 2);
    let two = RawOptions { interfaces: vec!["sync0".into(), "sync1".into()], ..options() };
    let (mut a, mut b): (T, T) = (open(&lan, 0, &two), open(&lan, 1, &two));
    send(&mut a, &[[1], [2]]);
    assert_eq!((a.counters().frames_sent, a.counters().bytes_sent), (2, 2), "a frame counts once, not once a link");
    let mut heard = Vec::new();
    until(|| {
        poll::wait(&b.readiness(), Some(crate::support::DEADLINE)).unwrap();
        b.receive(&mut |meta, frame| heard.push((meta.link, meta.source.to_string(), frame[0]))).unwrap();
        heard.len() == 4
    });
    send(&mut a, &[[3]; 10]);
    let mut total = 0;
    until(|| {
        let count = b.receive(&mut |_, _| {}).unwrap();
        assert!(count <= BATCH, "{count} frames in one call: a batch is a batch, however many links there are");
        total += count;
        total == 20
    });
    heard.sort();
    let heard: Vec<(u8, &str, u8)> = heard.iter().map(|(link, from, frame)| (*link, from.as_str(), *frame)).collect();
    assert_eq!(heard, [(0, "10.114.0.1", 1), (0, "10.114.0.1", 2), (1, "10.114.1.1", 1), (1, "10.114.1.1", 2)]);
}

fn one_link_of_two_may_fail<T: SocketTransport>() {
    let lan = Lan::new(2, 2);
    let two = RawOptions { interfaces: vec!["sync0".into(), "sync1".into()], ..options() };
    let (mut a, mut b): (T, T) = (open(&lan, 0, &two), open(&lan, 1, &two));
    lan.ip(0, "link set sync0 down");
    assert!(is_up(&lan, 0, &mut a));
    send(&mut a, &[[1], [2], [3]]);
    assert_eq!(hear(&mut b, 3), [[1], [2], [3]]);
    assert_eq!((a.counters().frames_sent, a.counters().send_errors), (3, 3));
    lan.ip(0, "link set sync1 down");
    assert!(!is_up(&lan, 0, &mut a));
}

/// [3.0.1] The send socket is a raw socket of the same protocol: it must not gather frames that nobody reads.
fn a_sender_hears_nothing<T: SocketTransport>() {
    let lan = Lan::new(2, 1);
    let mut port: T = open(&lan, 1, &options());
    let wire = lan.packet_socket(0, 0);
    for _ in 0..100 {
        wire.send(&Crafted::new(&[1; 100]).bytes()).unwrap();
    }
    assert_eq!(hear(&mut port, 100).len(), 100);
    let sockets = lan.nodes[1].run(|| std::fs::read_to_string("/proc/thread-self/net/raw")).unwrap();
    // Columns: local address, remote address, state, tx_queue:rx_queue … drops. 510000E0 is the receiver's 224.0.0.81.
    let sender = sockets.lines().find(|line| line.contains(" 00000000:0072 ")).expect("the send socket");
    let columns: Vec<&str> = sender.split_whitespace().collect();
    assert_eq!(columns[4], "00000000:00000000", "{sender}");
    assert_eq!(columns.last(), Some(&"0"), "{sender}");
}

fn the_largest_frame_follows_the_smallest_mtu<T: SocketTransport>() {
    let lan = Lan::new(1, 2);
    let two = RawOptions { interfaces: vec!["sync0".into(), "sync1".into()], frame_len: None, ..options() };
    assert_eq!(open::<T>(&lan, 0, &two).limits().frame_len, 1480);
    lan.ip(0, "link set sync1 mtu 1400");
    assert_eq!(open::<T>(&lan, 0, &two).limits().frame_len, 1380);
    lan.ip(0, "link set sync0 mtu 9000\nlink set sync1 mtu 9000");
    assert_eq!(open::<T>(&lan, 0, &two).limits().frame_len, 8960);
    lan.ip(0, "link set sync1 mtu 1227");
    let error = lan.nodes[0].run(|| Ok(T::open(&two))).unwrap().err().unwrap();
    assert_eq!(error.to_string(), "interface \"sync1\" has an MTU of 1227 bytes; frames need at least 1228");
}

fn an_interface_that_is_missing_has_its_own_error<T: SocketTransport>() {
    let lan = Lan::new(1, 1);
    let error = lan.nodes[0].run(|| Ok(T::open(&RawOptions::new(["sync0", "sync7"])))).unwrap().err().unwrap();
    assert!(matches!(error, TransportError::NoInterface { ref name } if name == "sync7"), "{error}");
    assert_eq!(error.to_string(), "there is no interface \"sync7\" in this network namespace");
}

/// A link that is stuck holds up a batch for a while, and then no longer the healthy one.
#[test]
fn a_stuck_link_is_left_behind_and_the_other_goes_on() {
    if !root() {
        return;
    }
    let lan = Lan::new(2, 2);
    // 8 bits a second after the first 2000 bytes: one frame passes, the second never will.
    lan.tc(0, "qdisc add dev sync1 root tbf rate 8bit burst 2000 limit 2000");
    let two = RawOptions { interfaces: vec!["sync0".into(), "sync1".into()], ..options() };
    let (mut a, mut b): (RawTransport, RawTransport) = (open(&lan, 0, &two), open(&lan, 1, &options()));
    let frames: Vec<Vec<u8>> = (0..100u8).map(|n| vec![n; 1208]).collect();
    send(&mut a, &frames);
    assert_eq!(hear(&mut b, 100), frames);
    let counters = a.counters();
    assert_eq!(counters.frames_sent, 100);
    assert!((97..=99).contains(&counters.send_errors), "{counters:?}");
}

#[test]
fn the_interface_table_tells_what_ip_has_set() {
    if !root() {
        return;
    }
    let lan = Lan::new(1, 1);
    lan.ip(0, "link set sync0 address 02:11:22:33:44:55 mtu 1400\naddr add 192.0.2.7/24 dev sync0");
    let interface = lan.nodes[0].run(|| socket::interface("sync0")).unwrap();
    assert_eq!(interface.mac, [0x02, 0x11, 0x22, 0x33, 0x44, 0x55]);
    assert_eq!((interface.mtu, interface.up, interface.running), (1400, true, true));
    let addresses: Vec<String> = interface.ipv4.iter().map(|address| address.to_string()).collect();
    assert_eq!(addresses, ["10.114.0.1", "192.0.2.7"]);
}

/// Anybody can forge an ICMP error about our frames. It must neither fail the next one nor shrink what may leave.
#[test]
fn a_forged_icmp_error_costs_no_frame() {
    if !root() {
        return;
    }
    let lan = Lan::new(2, 1);
    let (mut a, mut b): (RawTransport, RawTransport) = (open(&lan, 0, &options()), open(&lan, 1, &options()));
    let target = lan.nodes[0].run(|| socket::interface("sync0")).unwrap();
    let wire = lan.packet_socket(1, 0);
    // Host unreachable; fragmentation needed, with a next hop of 600 bytes (RFC 1191 section 4).
    for (code, next_hop) in [(1, 0), (4, 600)] {
        wire.send(&crate::support::icmp_unreachable(target.mac, code, next_hop)).unwrap();
        until(|| lan.snmp(0, "Icmp:", "InDestUnreachs") == if code == 1 { 1 } else { 2 });
        send(&mut a, &[[code; 1208], [code; 1208]]);
        assert_eq!(hear(&mut b, 2), [[code; 1208], [code; 1208]]);
    }
    assert_eq!(a.counters().send_errors, 0);
}

/// What [`without_a_capability`] runs in a process of its own; alone it does nothing.
#[test]
fn probe() {
    if std::env::var_os("SSYNCP_TRANSPORT_PROBE").is_none() {
        return;
    }
    match RawTransport::open(&RawOptions { batch: 1, ..RawOptions::new(["lo"]) }) {
        Ok(port) => println!("probe: {}", port.counters().receive_buffer),
        Err(error) => println!("probe: {error}"),
    }
}

/// Runs [`probe`] as a root that lacks one capability.
fn without_a_capability(name: &str) -> String {
    let output = std::process::Command::new("setpriv")
        .args(["--bounding-set", &format!("-{name}"), "--inh-caps", &format!("-{name}")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "wire::probe", "--nocapture"])
        .env("SSYNCP_TRANSPORT_PROBE", "1")
        .output()
        .unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    let line = output.lines().find_map(|line| line.split_once("probe: ")).unwrap_or_else(|| panic!("{output}"));
    line.1.to_owned()
}

#[test]
fn a_missing_right_to_raw_sockets_is_named_with_its_cure() {
    if !root() {
        return;
    }
    assert_eq!(
        without_a_capability("net_raw"),
        "raw sockets need the capability CAP_NET_RAW: run as root, set AmbientCapabilities=CAP_NET_RAW in the systemd unit, \
         or run `setcap cap_net_raw+ep` on the program"
    );
}

/// Only CAP_NET_ADMIN may go past the host's limit; without it the limit is granted, and said.
#[test]
fn a_receive_buffer_is_as_large_as_the_host_allows_and_its_size_is_told() {
    if !root() {
        return;
    }
    let limit: u64 = std::fs::read_to_string("/proc/sys/net/core/rmem_max").unwrap().trim().parse().unwrap();
    let asked = 16 << 20;
    assert_eq!(without_a_capability("net_admin"), limit.min(asked).to_string());
    let port = RawTransport::open(&RawOptions::new(["lo"])).unwrap();
    assert_eq!(port.counters().receive_buffer, 16_777_216);
}

#[test]
fn a_packet_socket_sends_whole_frames_and_tells_when_they_came() {
    if !root() {
        return;
    }
    const ARP: u16 = 0x0806;
    let lan = Lan::new(2, 1);
    let (sender, mut listener, mut other) =
        (lan.packet_socket(0, 0), lan.packet_socket(1, ARP), lan.packet_socket(1, 0x88b5));
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1, 0x08, 0x06]);
    frame.extend([0x5a; 46]);
    sender.send(&frame).unwrap();
    let mut buffer = [0; 2000];
    let (mut ours, mut at) = (false, Default::default());
    until(|| {
        // The hosts may ask for each other's addresses, too.
        let Some((length, time)) = listener.receive(&mut buffer).unwrap() else { return false };
        (ours, at) = (buffer[..length] == frame, time);
        ours
    });
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!(now.abs_diff(at).as_secs() < 60, "the kernel's time stamp is the time of day: {at:?}");
    assert!(other.receive(&mut buffer).unwrap().is_none(), "another ethertype is not for this socket");
    lan.ip(0, "link set sync0 down");
    assert_eq!(sender.send(&frame).unwrap_err().kind(), io::ErrorKind::NetworkDown);
}
