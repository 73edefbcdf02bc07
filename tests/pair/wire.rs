//! What a third party on the sync link sees of two `ssyncp run`.

use crate::support;
use crate::support::{Pair, eventually, root};
use nix::sys::socket::{setsockopt, sockopt};
use pnet::packet::Packet;
use pnet::packet::ethernet::{EtherTypes, EthernetPacket};
use pnet::packet::ip::IpNextHeaderProtocol;
use pnet::packet::ipv4::{Ipv4Flags, Ipv4Packet, checksum};
use ssyncp::sys::socket::{self, PacketSocket};
use ssyncp::wire::{Frame, Kind};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

const IPV4: u16 = 0x0800;
/// Bytes of receive buffer: the watcher must not be the one who loses frames.
const BUFFER: usize = 16 << 20;

/// What was seen of one sender: numbers of its DATA frames and of its control frames, kinds and lengths.
#[derive(Default)]
struct Seen {
    data: Vec<u64>,
    control: Vec<u64>,
    kinds: BTreeMap<u8, u32>,
    longest: usize,
}

/// [3.0.1] [3.2.1] Every datagram of the daemons is a frame as the protocol writes it, and none goes astray: each
/// sender's numbers are seen without a gap.
#[test]
fn every_datagram_is_one_whole_frame_to_the_group_that_no_router_passes_on() {
    if !root() {
        return;
    }
    let mut pair = Pair::new("");
    let open = || PacketSocket::open(socket::interface("si")?.index, IPV4);
    let mut wire = pair.stranger.run(open).unwrap();
    setsockopt(&wire, sockopt::RcvBufForce, &BUFFER).unwrap();
    let mut seen: BTreeMap<u32, Seen> = BTreeMap::new();
    pair.a.connect(0..3000);
    pair.a.start();
    eventually("a is master with its table", || {
        look(&mut wire, &mut seen);
        pair.a.is("master", "source") && pair.a.group()["entries"] == 3000
    });
    pair.b.start();
    eventually("b is in sync", || {
        look(&mut wire, &mut seen);
        pair.b.is("backup", "in_sync")
    });
    pair.a.connect(3000..3500);
    pair.a.disconnect(0..100);
    eventually("b has all that happened", || {
        look(&mut wire, &mut seen);
        pair.b.group()["entries"] == 3400 && pair.b.is("backup", "in_sync")
    });
    let sent = |node: &support::Node| node.counter("transport_frames_sent");
    let least = (sent(&pair.a), sent(&pair.b));
    eventually("all that was sent by then was seen", || {
        look(&mut wire, &mut seen);
        let count = |node: u32| seen.get(&node).map_or(0, |seen| (seen.data.len() + seen.control.len()) as u64);
        count(1) >= least.0 && count(2) >= least.1
    });

    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), [1, 2]);
    for (node, seen) in &mut seen {
        let Seen { data, control, kinds, longest } = seen;
        println!("node {node}: kinds {kinds:?}, longest frame {longest} bytes");
        data.sort_unstable();
        assert_eq!(*data, (1..=data.len() as u64).collect::<Vec<_>>(), "DATA of node {node}");
        assert_eq!(*control, (1..=control.len() as u64).collect::<Vec<_>>(), "control frames of node {node}");
        assert!(*longest <= 1480, "{longest}");
    }
    let kinds = |node: u32| seen[&node].kinds.keys().copied().collect::<Vec<_>>();
    assert_eq!(kinds(1), [Kind::ADVERT.0, Kind::DATA.0]);
    assert_eq!(kinds(2), [Kind::ADVERT.0, Kind::STATUS.0, Kind::PULL.0]);
}

/// Checks every datagram that has arrived; the sync link carries nothing else.
fn look(wire: &mut PacketSocket, seen: &mut BTreeMap<u32, Seen>) {
    let mut buffer = [0; 16 << 10];
    while let Some((length, _)) = wire.receive(&mut buffer).unwrap() {
        let ethernet = EthernetPacket::new(&buffer[..length]).unwrap();
        assert_eq!(ethernet.get_ethertype(), EtherTypes::Ipv4);
        let ip = Ipv4Packet::new(ethernet.payload()).unwrap();
        if ip.get_next_level_protocol() != IpNextHeaderProtocol(114) {
            // Group membership (IGMP) is the kernel's own.
            assert_eq!(ip.get_next_level_protocol(), IpNextHeaderProtocol(2));
            continue;
        }
        assert_eq!(ethernet.get_destination().octets(), [0x01, 0x00, 0x5e, 0x00, 0x00, 0x51]);
        assert_eq!(ip.get_destination(), Ipv4Addr::new(224, 0, 0, 81));
        assert_eq!(ip.get_ttl(), 255);
        assert_eq!((ip.get_flags(), ip.get_fragment_offset()), (Ipv4Flags::DontFragment, 0));
        assert_eq!((ip.get_header_length(), ip.get_checksum()), (5, checksum(&ip)));
        let bytes = &ethernet.payload()[20..usize::from(ip.get_total_length())];
        let frame = Frame::parse(bytes).unwrap().verify().unwrap();
        let header = frame.header();
        assert_eq!(ip.get_source(), Ipv4Addr::new(10, 255, 0, header.node.0 as u8));
        let seen = seen.entry(header.node.0).or_default();
        *seen.kinds.entry(header.kind.0).or_default() += 1;
        seen.longest = seen.longest.max(bytes.len());
        // Frames that are sent again would carry a number twice; nothing is lost on this link.
        if header.kind == Kind::DATA { &mut seen.data } else { &mut seen.control }.push(header.seq);
    }
}
