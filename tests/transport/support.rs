//! A small LAN for the transport tests: network namespaces without names, joined by bridges.
//!
//! ```text
//!   node 0 ─ sync0 ──┬── switch, bridge 0 ──┬── sync0 ─ node 1     10.114.0.(node + 1)/24
//!          ─ sync1 ──┼── switch, bridge 1 ──┼── sync1 ─            10.114.1.(node + 1)/24
//! ```

#![allow(dead_code, unreachable_pub, unused_macros)]

/// A room of tests: each claim, asked of one transport, by root.
macro_rules! over {
    ($room:ident, $transport:ident: $($claim:ident)*) => {
        mod $room {
            $(#[test] fn $claim() { if super::root() { super::$claim::<ssyncp::transport::$transport>(); } })*
        }
    };
}

#[path = "../support/machine.rs"]
pub(crate) mod machine;

use machine::path_of;
use pnet::packet::ipv4::{MutableIpv4Packet, checksum};
use ssyncp::sys::namespace::Namespace;
use ssyncp::sys::poll;
use ssyncp::sys::socket::{self, PacketSocket};
use ssyncp::transport::{
    LinkStatus, NixTransport, Port, RawOptions, Transport, TransportCounters, TransportError, Wired,
};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The protocol's group.
pub const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 81);
/// Its hardware address (RFC 1112 section 6.4).
pub const GROUP_MAC: [u8; 6] = [0x01, 0x00, 0x5e, 0x00, 0x00, 0x51];
/// Longest time that a test waits for what must happen.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Frames of one call, small so that tests pass it.
pub const BATCH: usize = 8;
/// Largest frame.
pub const FRAME_LEN: usize = 1208;
/// Bytes of socket buffer.
pub const BUFFER: usize = 4 << 20;

/// One link, small limits.
pub fn options() -> RawOptions {
    RawOptions {
        frame_len: Some(FRAME_LEN),
        batch: BATCH,
        receive_buffer: BUFFER,
        send_buffer: BUFFER,
        ..RawOptions::new(["sync0"])
    }
}

/// The same over IPv6.
pub fn ipv6_options() -> RawOptions {
    RawOptions { group: "ff02::7251".parse().unwrap(), ..options() }
}

/// Nodes on common links.
pub struct Lan {
    /// Where the nodes live; their interfaces are `sync0`, `sync1`, …
    pub nodes: Vec<Namespace>,
    /// Where the other ends live: `p<link>-<node>` on bridge `br<link>`.
    pub switch: Namespace,
}

impl Lan {
    pub fn new(nodes: usize, links: usize) -> Self {
        let lan = Lan {
            nodes: (0..nodes).map(|_| Namespace::create().unwrap()).collect(),
            switch: Namespace::create().unwrap(),
        };
        for node in &lan.nodes {
            // An IPv6 address is usable at once, without the second of duplicate address detection.
            let setting = "/proc/sys/net/ipv6/conf/default/accept_dad";
            node.run(|| std::fs::write(setting, "0")).unwrap();
        }
        for link in 0..links {
            ip(
                &lan.switch,
                &format!("link add br{link} type bridge forward_delay 0 stp_state 0\nlink set br{link} up"),
            );
            for node in 0..nodes {
                lan.plug(node, link);
            }
        }
        for link in 0..links {
            for node in 0..nodes {
                lan.await_carrier(node, link);
            }
        }
        lan
    }

    /// Joins a new interface of `node` to `link`.
    pub fn plug(&self, node: usize, link: usize) {
        let home = path_of(&self.nodes[node]);
        let port = format!("p{link}-{node}");
        ip(
            &self.switch,
            &format!(
                "link add {port} type veth peer name sync{link} netns {home}\n\
                 link set {port} master br{link}\nlink set {port} up"
            ),
        );
        let address = format!("10.114.{link}.{}/24", node + 1);
        ip(&self.nodes[node], &format!("addr add {address} dev sync{link}\nlink set sync{link} up"));
    }

    pub fn await_carrier(&self, node: usize, link: usize) {
        let name = format!("sync{link}");
        until(|| self.nodes[node].run(|| socket::interface(&name)).unwrap().running);
    }

    /// A socket for hand-made Ethernet frames on a node's `sync0`.
    pub fn packet_socket(&self, node: usize, ethertype: u16) -> PacketSocket {
        self.nodes[node].run(|| PacketSocket::open(socket::interface("sync0")?.index, ethertype)).unwrap()
    }

    /// Runs lines of `ip` in a node's namespace.
    pub fn ip(&self, node: usize, lines: &str) {
        ip(&self.nodes[node], lines);
    }

    /// A counter of a node's `/proc/net/snmp`.
    pub fn snmp(&self, node: usize, group: &str, name: &str) -> u64 {
        let table = self.nodes[node].run(|| std::fs::read_to_string("/proc/thread-self/net/snmp")).unwrap();
        let mut rows = table.lines().filter(|line| line.starts_with(group)).map(str::split_whitespace);
        let (names, values) = (rows.next().unwrap(), rows.next().unwrap());
        names.zip(values).find(|(column, _)| *column == name).unwrap().1.parse().unwrap()
    }

    /// A counter of a node's `/proc/net/snmp6`.
    pub fn snmp6(&self, node: usize, name: &str) -> u64 {
        let table = self.nodes[node].run(|| std::fs::read_to_string("/proc/thread-self/net/snmp6")).unwrap();
        let row = table.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        row.trim().parse().unwrap()
    }

    /// Runs `tc` in a node's namespace.
    pub fn tc(&self, node: usize, arguments: &str) {
        let mut command = self.nodes[node].command("tc").unwrap();
        assert!(command.args(arguments.split_whitespace()).status().unwrap().success(), "tc {arguments}");
    }
}

/// What both socket transports have beside [`Transport`].
pub trait SocketTransport: Transport + Send + Sized + 'static {
    fn open(options: &RawOptions) -> Result<Self, TransportError>;
    fn look(&mut self);
    fn link_is_up(&self) -> bool;
    fn links(&self) -> Vec<LinkStatus>;
    fn reopen(&mut self) -> Result<(), TransportError>;
}

impl<P: Port + Send + 'static> SocketTransport for Wired<P>
where
    P::Incoming: Send,
{
    fn open(options: &RawOptions) -> Result<Self, TransportError> {
        Wired::open(options)
    }
    fn look(&mut self) {
        Wired::look(self);
    }
    fn link_is_up(&self) -> bool {
        Wired::link_is_up(self)
    }
    fn links(&self) -> Vec<LinkStatus> {
        Wired::links(self)
    }
    fn reopen(&mut self) -> Result<(), TransportError> {
        Wired::reopen(self)
    }
}

impl SocketTransport for NixTransport {
    fn open(options: &RawOptions) -> Result<Self, TransportError> {
        NixTransport::open(options)
    }
    fn look(&mut self) {
        NixTransport::look(self);
    }
    fn link_is_up(&self) -> bool {
        NixTransport::link_is_up(self)
    }
    fn links(&self) -> Vec<LinkStatus> {
        NixTransport::links(self)
    }
    fn reopen(&mut self) -> Result<(), TransportError> {
        NixTransport::reopen(self)
    }
}

/// Opens a transport in a node's namespace.
pub fn open<T: SocketTransport>(lan: &Lan, node: usize, options: &RawOptions) -> T {
    lan.nodes[node].run(|| T::open(options).map_err(io::Error::other)).unwrap()
}

/// Looks at a transport's links, in a node's namespace; whether one is up.
pub fn is_up<T: SocketTransport>(lan: &Lan, node: usize, transport: &mut T) -> bool {
    lan.nodes[node]
        .run(|| {
            transport.look();
            Ok(transport.link_is_up())
        })
        .unwrap()
}

/// Opens a transport again, in a node's namespace.
pub fn reopen<T: SocketTransport>(lan: &Lan, node: usize, transport: &mut T) {
    lan.nodes[node].run(|| transport.reopen().map_err(io::Error::other)).unwrap();
}

/// Runs lines of `ip` in a namespace.
pub fn ip(namespace: &Namespace, lines: &str) {
    let mut command: Command = namespace.command("ip").unwrap();
    let mut child = command.args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "ip: {lines}");
}

/// Asks until the answer is yes.
pub fn until(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "it has not happened in {DEADLINE:?}");
        poll::wait(&[], Some(Duration::from_millis(1))).unwrap();
    }
}

/// Sends these frames, however many calls it takes.
pub fn send<F: AsRef<[u8]>>(port: &mut dyn Transport, frames: &[F]) {
    let mut next = frames.iter();
    let mut left = 0;
    until(|| {
        left += port
            .transmit(&mut |slot| {
                let frame = next.next()?.as_ref();
                slot[..frame.len()].copy_from_slice(frame);
                Some(frame.len())
            })
            .unwrap();
        next.len() == 0 && port.pending() == 0
    });
    assert_eq!(left, frames.len(), "every frame leaves, and is counted once");
}

/// Waits for `count` frames; more may come in the last call.
pub fn hear(port: &mut dyn Transport, count: usize) -> Vec<Vec<u8>> {
    hear_those(port, count, |_| true)
}

/// The same of frames other than `known`: of those that [`until_heard`] has sent, some may still be under way.
pub fn hear_others(port: &mut dyn Transport, count: usize, known: &[u8]) -> Vec<Vec<u8>> {
    hear_those(port, count, |frame| frame != known)
}

fn hear_those(port: &mut dyn Transport, count: usize, wanted: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let start = Instant::now();
    while frames.len() < count {
        assert!(start.elapsed() < DEADLINE, "{} of {count} frames in {DEADLINE:?}", frames.len());
        if port.receive(&mut |_, frame| frames.extend(wanted(frame).then(|| frame.to_vec()))).unwrap() == 0 {
            poll::wait(&port.readiness(), Some(Duration::from_millis(100))).unwrap();
        }
    }
    frames
}

/// Sends a frame again and again until it arrives. A bridge has a link watch of its own: for a while after a port came
/// back it passes nothing, whatever the ends say.
pub fn until_heard(from: &mut dyn Transport, to: &mut dyn Transport, frame: &[u8]) {
    let mut heard = false;
    until(|| {
        send(from, &[frame]);
        to.receive(&mut |_, arrived| heard |= arrived == frame).unwrap();
        heard
    });
}

/// Receives (and forgets) until the counters satisfy a condition.
pub fn until_counted(port: &mut dyn Transport, condition: impl Fn(&TransportCounters) -> bool) -> TransportCounters {
    until(|| {
        while port.receive(&mut |_, _| {}).unwrap() > 0 {}
        condition(&port.counters())
    });
    port.counters()
}

/// An Ethernet frame from node 0 to the group.
pub struct Crafted {
    pub ttl: u8,
    pub protocol: u8,
    pub group: Ipv4Addr,
    /// Words of IP options ("no operation").
    pub options: u8,
    pub payload: Vec<u8>,
}

impl Crafted {
    /// What a well-behaved sender sends.
    pub fn new(payload: &[u8]) -> Self {
        Crafted { ttl: 255, protocol: 114, group: GROUP, options: 0, payload: payload.to_vec() }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let header_len = 20 + usize::from(self.options) * 4;
        let mut datagram = vec![0; header_len + self.payload.len()];
        let length = datagram.len() as u16;
        let mut packet = MutableIpv4Packet::new(&mut datagram).unwrap();
        packet.set_version(4);
        packet.set_header_length(5 + self.options);
        packet.set_total_length(length);
        packet.set_ttl(self.ttl);
        packet.set_next_level_protocol(pnet::packet::ip::IpNextHeaderProtocol(self.protocol));
        packet.set_source(Ipv4Addr::new(10, 114, 0, 1));
        packet.set_destination(self.group);
        packet.get_options_raw_mut().fill(1);
        packet.set_checksum(checksum(&packet.to_immutable()));
        datagram[header_len..].copy_from_slice(&self.payload);
        let low = self.group.octets();
        let mut frame = vec![0x01, 0x00, 0x5e, low[1] & 0x7f, low[2], low[3], 2, 0, 0, 0, 0, 1, 0x08, 0x00];
        frame.extend(datagram);
        frame
    }
}

/// An ICMP "destination unreachable" from node 1 to node 0, about a frame that node 0 has sent to the group.
pub fn icmp_unreachable(to: [u8; 6], code: u8, next_hop_mtu: u16) -> Vec<u8> {
    let about = Crafted::new(&[0; 8]).bytes();
    let mut message = vec![3, code, 0, 0, 0, 0];
    message.extend(next_hop_mtu.to_be_bytes());
    message.extend(&about[14..]);
    let sum = pnet::packet::util::checksum(&message, 1);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = Crafted { protocol: 1, ..Crafted::new(&message) }.bytes();
    frame[..6].copy_from_slice(&to);
    let header = &mut MutableIpv4Packet::new(&mut frame[14..]).unwrap();
    header.set_source(Ipv4Addr::new(10, 114, 0, 2));
    header.set_destination(Ipv4Addr::new(10, 114, 0, 1));
    header.set_checksum(checksum(&header.to_immutable()));
    frame
}

/// An Ethernet frame with an IPv6 packet of protocol 114 from fe80::1 to ff02::`group`.
pub fn ipv6_frame(group: u16, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = group.to_be_bytes();
    let mut frame = vec![0x33, 0x33, 0, 0, high, low, 2, 0, 0, 0, 0, 1, 0x86, 0xdd];
    frame.extend([0x60, 0, 0, 0]);
    frame.extend((payload.len() as u16).to_be_bytes());
    frame.extend([114, hop_limit]);
    frame.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    frame.extend([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, high, low]);
    frame.extend(payload);
    frame
}

/// An ICMPv6 error about `packet` (an Ethernet frame), from somebody on the link to its sender.
pub fn icmpv6_error(packet: &[u8], kind: u8, code: u8, mtu: u32) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(mtu.to_be_bytes());
    message.extend(&packet[14..14 + 40 + 64]);
    let source = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    let mut summed = [&source[..], &packet[22..38], &(message.len() as u32).to_be_bytes(), &[0, 0, 0, 58]].concat();
    summed.extend(&message);
    let sum = pnet::packet::util::checksum(&summed, usize::MAX);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = [&packet[6..12], &[2, 0, 0, 0, 0, 9, 0x86, 0xdd, 0x60, 0, 0, 0]].concat();
    frame.extend((message.len() as u16).to_be_bytes());
    frame.extend([58, 255]);
    frame.extend(source);
    frame.extend(&packet[22..38]);
    frame.extend(message);
    frame
}
