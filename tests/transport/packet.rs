//! What only packet sockets can be asked: they go past the kernel's IP, so what it did for raw sockets they do themselves,
//! and what it does for everybody else must go on undisturbed.
//!
//! A claim that nothing arrives is proven with a fence: a good frame sent afterwards, which order makes arrive last.

use crate::support::machine::{program, root};
use crate::support::{
    Crafted, Lan, hear, ip, ipv6_options, is_up, open, options, send, until, until_counted, until_heard,
};
use ssyncp::sys::socket::{self, PacketSocket};
use ssyncp::transport::{LinkCondition, PacketTransport, RawOptions, RawTransport, Transport};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};

fn pair(lan: &Lan, options: &RawOptions) -> (PacketTransport, PacketTransport) {
    let (mut a, mut b): (PacketTransport, PacketTransport) = (open(lan, 0, options), open(lan, 1, options));
    until(|| is_up(lan, 0, &mut a) && is_up(lan, 1, &mut b));
    (a, b)
}

#[test]
fn a_link_says_that_it_runs_on_packet_sockets() {
    if !root() {
        return;
    }
    let lan = Lan::new(1, 1);
    let port: PacketTransport = open(&lan, 0, &options());
    assert_eq!((port.links()[0].mode.word, port.links()[0].mode.instead_of.clone()), ("packet", None));
    let port = port.instead_of(Some("xdp: it is not there".into()));
    assert_eq!(port.links()[0].mode.instead_of.as_deref(), Some("xdp: it is not there"));
}

/// Raw and packet sockets speak the same on the wire, to the last byte in front of the frame but the identification.
#[test]
fn packet_and_raw_sockets_understand_each_other() {
    if !root() {
        return;
    }
    for options in [options(), ipv6_options()] {
        let lan = Lan::new(2, 1);
        let mut raw: RawTransport = open(&lan, 0, &options);
        let mut packet: PacketTransport = open(&lan, 1, &options);
        until(|| is_up(&lan, 0, &mut raw) && is_up(&lan, 1, &mut packet));
        send(&mut raw, &[&[1; 1208][..], b"short"]);
        assert_eq!(hear(&mut packet, 2), [vec![1; 1208], b"short".to_vec()]);
        send(&mut packet, &[&[2; 1208][..], b"short"]);
        assert_eq!(hear(&mut raw, 2), [vec![2; 1208], b"short".to_vec()]);
        let (from_raw, from_packet) = (raw.counters(), packet.counters());
        assert_eq!((from_raw.malformed, from_packet.malformed), (0, 0));
    }
}

/// [3.0.1] Don't-fragment, TTL 255, protocol 114, from the interface's addresses to the group's.
#[test]
fn a_frame_leaves_as_a_whole_ethernet_frame() {
    if !root() {
        return;
    }
    let lan = Lan::new(2, 1);
    lan.ip(0, "link set sync0 address 02:11:22:33:44:55");
    let (mut a, _b) = pair(&lan, &options());
    let mut wire = lan.packet_socket(1, 0x0800);
    send(&mut a, &[b"data"]);
    let (mut buffer, mut length) = ([0; 2000], 0);
    until(|| {
        length = wire.receive(&mut buffer).unwrap().map_or(0, |(length, _)| length);
        length > 0 && buffer[23] == 114
    });
    let head = [1, 0, 0x5e, 0, 0, 0x51, 2, 0x11, 0x22, 0x33, 0x44, 0x55, 8, 0];
    assert_eq!(buffer[..14], head);
    assert_eq!(buffer[14..26], [0x45, 0, 0, 24, 0, 0, 0x40, 0, 255, 114, 0x90, 0xaf], "and a checksum that is right");
    assert_eq!(buffer[26..length.min(38)], [10, 114, 0, 1, 224, 0, 0, 81, b'd', b'a', b't', b'a']);
}

#[test]
fn a_new_hardware_address_and_a_new_address_are_taken_up() {
    if !root() {
        return;
    }
    let lan = Lan::new(2, 1);
    let (mut a, mut b) = pair(&lan, &options());
    let mut wire = lan.packet_socket(1, 0x0800);
    lan.ip(
        0,
        "link set sync0 address 02:aa:bb:cc:dd:ee\naddr del 10.114.0.1/24 dev sync0\naddr add 10.114.0.77/24 dev sync0",
    );
    assert!(is_up(&lan, 0, &mut a));
    send(&mut a, &[b"moved"]);
    let mut source = None;
    until(|| b.receive(&mut |meta, _| source = Some(meta.source)).unwrap() == 1);
    assert_eq!(source, Some(IpAddr::V4(Ipv4Addr::new(10, 114, 0, 77))));
    let mut buffer = [0; 2000];
    until(|| wire.receive(&mut buffer).unwrap().is_some() && buffer[23] == 114);
    assert_eq!(buffer[6..12], [2, 0xaa, 0xbb, 0xcc, 0xdd, 0xee]);
}

/// Of a group that may leave the link, receivers take nothing that comes from 0.0.0.0; over IPv6, of none.
#[test]
fn a_link_without_an_address_is_not_up_and_says_why() {
    if !root() {
        return;
    }
    let far = RawOptions { group: "239.1.1.4".parse().unwrap(), ..options() };
    for (options, flush, add) in [
        (far.clone(), "addr flush dev sync0", "addr add 10.114.0.1/24 dev sync0"),
        (ipv6_options(), "addr flush dev sync0 scope link", "addr add fe80::114/64 dev sync0 nodad"),
    ] {
        let lan = Lan::new(2, 1);
        let (mut a, mut b) = pair(&lan, &options);
        lan.ip(0, flush);
        assert!(!is_up(&lan, 0, &mut a));
        assert_eq!(a.links()[0].condition, LinkCondition::NoAddress);
        assert_eq!(a.links()[0].condition.words(), "no usable address that frames could come from");
        let mut frames = 1;
        let error = a.transmit(&mut |_| (frames > 0).then(|| frames -= 1).map(|()| 10)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AddrNotAvailable);
        // It hears all the same.
        send(&mut b, &[b"you there"]);
        assert_eq!(hear(&mut a, 1), [b"you there"]);
        lan.ip(0, add);
        until(|| is_up(&lan, 0, &mut a));
        until_heard(&mut a, &mut b, b"addressed");
    }
}

/// What the kernel's IP would have kept from a raw socket: broken headers, pieces, other VLANs, other hosts.
#[test]
fn what_a_raw_socket_would_never_see_is_refused_and_counted_or_unheard() {
    if !root() {
        return;
    }
    let lan = Lan::new(2, 1);
    let mut port: PacketTransport = open(&lan, 1, &options());
    // From the other end of its cable: a bridge throws away what has a wrong checksum.
    let wire = lan.switch.run(|| PacketSocket::open(socket::interface("p0-1")?.index, 0)).unwrap();
    let changed = |index: usize, value: u8| {
        let mut frame = Crafted::new(b"odd").bytes();
        frame[index] = value;
        frame
    };
    // Counted: a checksum that is wrong; a first fragment (with a right one).
    wire.send(&changed(25, 0)).unwrap();
    until_counted(&mut port, |c| c.malformed == 1);
    let mut piece = changed(20, 0x20);
    let sum = u16::from_be_bytes([piece[24], piece[25]]) - 0x2000;
    piece[24..26].copy_from_slice(&sum.to_be_bytes());
    wire.send(&piece).unwrap();
    until_counted(&mut port, |c| c.malformed == 2);
    // Unheard: on VLAN 5, and for another host's hardware address while the interface is promiscuous.
    let mut tagged = Crafted::new(b"odd").bytes();
    tagged.splice(12..12, [0x81, 0x00, 0, 5]);
    wire.send(&tagged).unwrap();
    lan.ip(1, "link set sync0 promisc on");
    let mut for_another = Crafted::new(b"odd").bytes();
    for_another[..6].copy_from_slice(&[2, 9, 9, 9, 9, 9]);
    wire.send(&for_another).unwrap();
    wire.send(&Crafted::new(b"fence").bytes()).unwrap();
    assert_eq!(hear(&mut port, 1), [b"fence"]);
    assert_eq!((port.counters().malformed, port.counters().frames_received), (2, 1));
}

/// Whatever the host has queued before its interface: sync frames do not stand in line behind it.
#[test]
fn frames_pass_by_the_queueing_discipline() {
    if !root() {
        return;
    }
    let lan = Lan::new(2, 1);
    let (mut a, mut b) = pair(&lan, &options());
    // 8 bits a second after the first 2000 bytes.
    lan.tc(0, "qdisc add dev sync0 root tbf rate 8bit burst 2000 limit 2000");
    let frames: Vec<Vec<u8>> = (0..50u8).map(|number| vec![number; 1208]).collect();
    send(&mut a, &frames);
    assert_eq!(hear(&mut b, 50), frames);
    assert_eq!(a.counters().send_errors, 0);
}

/// A burst that nobody reads fills the ring; what was in it is delivered, in order, and what was not is counted.
#[test]
fn a_full_ring_loses_the_newest_and_goes_on() {
    if !root() {
        return;
    }
    let lan = Lan::new(2, 1);
    // Less than one block, which holds 7 slots: 7 it is.
    let (mut a, mut b) = pair(&lan, &RawOptions { receive_buffer: 4096, ..options() });
    for round in 0..3u8 {
        let frames: Vec<[u8; 2]> = (0..20).map(|number| [round, number]).collect();
        send(&mut a, &frames);
        // Before anything is read: what comes later than that would find room.
        until(|| b.counters().dropped_by_kernel == 13 * (u64::from(round) + 1));
        let heard = hear(&mut b, 7);
        assert_eq!(heard, frames[..7]);
    }
}

/// What is read of each frame first is fetched from the sender's processor: type (2 bytes), IPv4 header (20) and the frame's
/// own (40) begin a cache line, in whichever slot.
#[test]
fn what_is_read_first_of_a_frame_lies_on_one_cache_line() {
    if !root() {
        return;
    }
    let lan = Lan::new(2, 1);
    let (mut a, mut b) = pair(&lan, &options());
    let mut places = Vec::new();
    for number in 0..20u8 {
        send(&mut a, &[[number]]);
        until(|| b.receive(&mut |_, frame| places.push(frame.as_ptr() as usize % 64)).unwrap() > 0);
    }
    assert_eq!(places, [22; 20]);
}

/// Ping, TCP and the kernel's own sync daemon (UDP to the same group) work on the link as if we were not there.
#[test]
fn the_hosts_other_traffic_goes_on() {
    if !root() || !program("ping") {
        return;
    }
    let lan = Lan::new(2, 1);
    let (mut a, mut b) = pair(&lan, &options());
    let group = Ipv4Addr::new(224, 0, 0, 81);
    let ipvs = lan.nodes[1].run(|| {
        let socket = UdpSocket::bind((group, 8848))?;
        socket.join_multicast_v4(&group, &Ipv4Addr::new(10, 114, 0, 2))?;
        socket.set_read_timeout(Some(crate::support::DEADLINE))?;
        Ok(socket)
    });
    let listener = lan.nodes[1].run(|| TcpListener::bind("10.114.0.2:4711")).unwrap();
    let ours: Vec<Vec<u8>> = (0..100u8).map(|number| vec![number; 1000]).collect();
    send(&mut a, &ours);
    let mut client = lan.nodes[0].run(|| TcpStream::connect("10.114.0.2:4711")).unwrap();
    client.write_all(&[7; 10_000]).unwrap();
    drop(client);
    let mut text = Vec::new();
    listener.accept().unwrap().0.read_to_end(&mut text).unwrap();
    assert_eq!(text, [7; 10_000]);
    let udp = lan.nodes[0].run(|| UdpSocket::bind("10.114.0.1:8848")).unwrap();
    udp.send_to(b"ipvs", (group, 8848)).unwrap();
    let mut buffer = [0; 100];
    assert_eq!(ipvs.unwrap().recv(&mut buffer).unwrap(), 4);
    let ping = lan.nodes[0].command("ping").unwrap().args(["-c", "3", "-i", "0.01", "-W", "5", "10.114.0.2"]).output();
    let ping = String::from_utf8(ping.unwrap().stdout).unwrap();
    assert!(ping.contains("3 received"), "{ping}");
    assert_eq!(hear(&mut b, 100), ours);
    assert_eq!(b.counters().malformed, 0);
}

/// The host's firewall is not on the way, in neither direction; that is what the manual says.
#[test]
fn the_hosts_firewall_does_not_see_the_frames() {
    if !root() || !program("nft") {
        return;
    }
    let lan = Lan::new(2, 1);
    let (mut a, mut b) = pair(&lan, &options());
    for node in [0, 1] {
        let mut nft = lan.nodes[node].command("nft").unwrap();
        let rules = "table ip t { chain i { type filter hook input priority 0; policy drop; }; \
                     chain o { type filter hook output priority 0; policy drop; }; }";
        assert!(nft.arg(rules).status().unwrap().success());
    }
    send(&mut a, &[b"all the same"]);
    assert_eq!(hear(&mut b, 1), [b"all the same"]);
}

/// What [`with_one_capability`] runs in a process of its own; alone it does nothing.
#[test]
fn probe() {
    if std::env::var_os("SSYNCP_TRANSPORT_PROBE").is_none() {
        return;
    }
    match PacketTransport::open(&RawOptions { batch: 1, receive_buffer: 4096, ..RawOptions::new(["lo"]) }) {
        Ok(port) => println!("probe: {}", port.links()[0].mode.word),
        Err(error) => println!("probe: {error}"),
    }
}

/// So an interface that was replaced is opened again by a daemon that has given up everything else.
#[test]
fn the_right_to_raw_sockets_is_all_that_it_needs() {
    if !root() {
        return;
    }
    let probe = |capabilities: &str| {
        let output = std::process::Command::new("setpriv")
            .args(["--bounding-set", capabilities, "--inh-caps", capabilities])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "packet::probe", "--nocapture"])
            .env("SSYNCP_TRANSPORT_PROBE", "1")
            .output()
            .unwrap();
        let output = String::from_utf8(output.stdout).unwrap();
        output.lines().find_map(|line| line.split_once("probe: ")).unwrap_or_else(|| panic!("{output}")).1.to_owned()
    };
    assert_eq!(probe("-all,+net_raw"), "packet");
    assert!(probe("-net_raw").starts_with("raw sockets need the capability CAP_NET_RAW"));
}

#[test]
fn a_bridge_port_that_flaps_is_survived() {
    if !root() {
        return;
    }
    let lan = Lan::new(2, 1);
    let (mut a, mut b) = pair(&lan, &options());
    for round in 0..5u8 {
        ip(&lan.switch, "link set p0-0 down");
        until(|| !is_up(&lan, 0, &mut a));
        ip(&lan.switch, "link set p0-0 up");
        until(|| is_up(&lan, 0, &mut a));
        until_heard(&mut a, &mut b, &[round, 1]);
        until_heard(&mut b, &mut a, &[round, 2]);
    }
}
