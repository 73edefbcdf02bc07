//! A namespace with connections in it, and a second, plain opinion of what its table holds: attributes are compared as
//! bytes, by code that shares nothing with the bridge's codec.
#![allow(dead_code, unreachable_pub)] // Each test file uses its own part.

#[path = "../support/machine.rs"]
mod machine;

#[allow(unused_imports)] // As above.
pub(crate) use machine::{PATIENCE, eventually, path_of, program, shell, shell_output};
use ssyncp::bridge::{ReadOutcome, Source, SourceError};
use ssyncp::flow::{Change, Flow, FlowKey, Zone};
use ssyncp::sys::namespace::Namespace;
use ssyncp::sys::netlink::{MessageWriter, Messages, NETLINK_NETFILTER, NetlinkSocket};
use ssyncp::sys::poll;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

pub const CT_NEW: u16 = 0x100;
pub const CT_GET: u16 = 0x101;
pub const CT_DELETE: u16 = 0x102;
pub const REQUEST: u16 = 1;
pub const ACK: u16 = 4;
pub const CREATE_EXCL: u16 = 0x600;
const DUMP: u16 = 0x300;

/// An empty namespace; `None`, and a line that says so, without root.
pub fn namespace() -> Option<Namespace> {
    if !machine::root() {
        return None;
    }
    let namespace = Namespace::create().unwrap();
    // By default entries that are made while nobody listens stay silent for ever, and "nobody" counts all namespaces.
    set_events(&namespace, "1");
    Some(namespace)
}

/// Whether entries that are made from now on will tell what happens to them: 0 no, 1 yes, 2 if somebody listens.
pub fn set_events(namespace: &Namespace, value: &str) {
    namespace.run(|| std::fs::write(EVENTS_SWITCH, value)).unwrap();
}

pub const EVENTS_SWITCH: &str = "/proc/sys/net/netfilter/nf_conntrack_events";

/// A namespace with addresses 10.9.0.1 and 10.9.0.2 on its loopback, in which packets make entries, by these rules.
pub fn namespace_with_rules(rules: &str) -> Option<Namespace> {
    let namespace = namespace()?;
    if !machine::program("nft") {
        return None;
    }
    shell(
        &namespace,
        &format!(
            "ip link set lo up; ip address add 10.9.0.1/32 dev lo; ip address add 10.9.0.2/32 dev lo
             nft -f - <<'END'
             table ip test {{
                 chain track {{ type filter hook output priority 0; ct state new accept; }}
                 {rules}
             }}
END"
        ),
    );
    Some(namespace)
}

pub fn address(text: &str) -> IpAddr {
    IpAddr::V4(text.parse::<Ipv4Addr>().unwrap())
}

pub fn key(protocol: u8, source: &str, source_port: u16, destination: &str, destination_port: u16) -> FlowKey {
    FlowKey {
        source: address(source),
        destination: address(destination),
        source_port,
        destination_port,
        protocol,
        zone: Zone::DEFAULT,
    }
}

/// What a source has told, applied in order.
#[derive(Default)]
pub struct Mirror {
    pub flows: HashMap<FlowKey, Flow>,
    pub changes: Vec<Change>,
    pub dumps: usize,
    pub overruns: usize,
}

impl Mirror {
    pub fn apply(&mut self, change: Change) {
        self.changes.push(change.clone());
        match change {
            Change::Upsert(flow) => drop(self.flows.insert(flow.key, flow)),
            Change::Delete(key) => drop(self.flows.remove(&key)),
        }
    }

    /// One read; an overrun is counted and leads to a dump, as an owner would do it.
    pub fn read(&mut self, source: &mut impl Source) -> ReadOutcome {
        match source.read(&mut |change| self.apply(change)) {
            Ok(outcome) => {
                self.dumps += usize::from(outcome.dump_complete);
                outcome
            }
            Err(SourceError::Overrun) => {
                self.overruns += 1;
                source.request_dump().unwrap();
                ReadOutcome::default()
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Reads, waiting where nothing is there, until `done` says so.
    pub fn read_until(&mut self, source: &mut impl Source, mut done: impl FnMut(&Mirror) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let outcome = self.read(source);
            if done(self) {
                return;
            }
            assert!(Instant::now() < deadline, "it did not come: {} flows, {} dumps", self.flows.len(), self.dumps);
            if outcome.drained {
                poll::wait(&[source.readiness().unwrap()], Some(Duration::from_millis(100))).unwrap();
            }
        }
    }

    /// Reads until nothing is left.
    pub fn read_all(&mut self, source: &mut impl Source) {
        while !self.read(source).drained {}
    }
}

pub fn counter(counters: &[(&'static str, u64)], name: &str) -> u64 {
    counters.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("no counter {name}")).1
}

/// A socket for raw requests, in a namespace.
pub struct Raw(pub NetlinkSocket);

impl Raw {
    pub fn open(namespace: &Namespace) -> Self {
        Raw(namespace.run(|| NetlinkSocket::open(NETLINK_NETFILTER, 8 << 20)).unwrap())
    }

    /// Sends one request and waits for its acknowledgement; the errno, 0 if all went well.
    pub fn request(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut MessageWriter)) -> i32 {
        self.request_family(2, kind, flags, fill)
    }

    /// The same for an address family.
    pub fn request_family(&mut self, family: u8, kind: u16, flags: u16, fill: impl FnOnce(&mut MessageWriter)) -> i32 {
        let mut writer = MessageWriter::new();
        writer.begin(kind, REQUEST | ACK | flags, 1, family, 0);
        fill(&mut writer);
        writer.end();
        self.0.send(writer.bytes()).unwrap();
        let datagram = self.next_datagram();
        Messages::new(&datagram).find_map(|message| message.unwrap().error_code()).unwrap()
    }

    pub fn next_datagram(&mut self) -> Vec<u8> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(datagram) = self.0.receive().unwrap() {
                return datagram.to_vec();
            }
            assert!(Instant::now() < deadline, "no answer");
            poll::wait(&[self.0.as_fd()], Some(Duration::from_millis(100))).unwrap();
        }
    }

    pub fn flush(&mut self) {
        assert_eq!(self.request(CT_DELETE, 0, |_| {}), 0);
    }

    /// Of both families.
    pub fn flush_all(&mut self) {
        assert_eq!(self.request_family(0, CT_DELETE, 0, |_| {}), 0);
    }

    /// The whole table, every entry as the bytes of its attributes.
    pub fn dump(&mut self) -> Vec<Attributes> {
        let mut writer = MessageWriter::new();
        writer.begin(CT_GET, REQUEST | DUMP, 2, 2, 0);
        writer.end();
        self.0.send(writer.bytes()).unwrap();
        let mut entries = Vec::new();
        loop {
            let datagram = self.next_datagram();
            for message in Messages::new(&datagram).map(Result::unwrap) {
                match message.kind {
                    CT_NEW => entries.push(attributes(&message.payload[4..])),
                    3 => return entries,
                    other => panic!("kind {other}"),
                }
            }
        }
    }
}

/// Attributes by kind.
pub type Attributes = BTreeMap<u16, Vec<u8>>;

/// The plainest possible walk: it panics where a length is wrong.
pub fn attributes(mut bytes: &[u8]) -> Attributes {
    let mut found = Attributes::new();
    while !bytes.is_empty() {
        let length = usize::from(bytes[0]) | usize::from(bytes[1]) << 8;
        let kind = (u16::from(bytes[2]) | u16::from(bytes[3]) << 8) & 0x3fff;
        found.insert(kind, bytes[4..length].to_vec());
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
    }
    found
}

/// A 32-bit attribute.
pub fn number(entry: &Attributes, kind: u16) -> Option<u32> {
    entry.get(&kind).map(|value| u32::from_be_bytes(value.as_slice().try_into().unwrap()))
}

/// TCP: state, scales and flags of the two directions.
pub fn tcp(entry: &Attributes) -> Option<[u8; 5]> {
    let fields = attributes(attributes(entry.get(&4)?).get(&1)?);
    Some([1, 2, 3, 4, 5].map(|kind| fields.get(&kind).map_or(0, |value| value[0])))
}

/// What must be the same in a copy: both tuples and the zone byte by byte, status, mark, TCP state and scales, and the
/// flags but those about sequence windows and BE_LIBERAL.
pub type Essence = (Vec<u8>, Vec<u8>, Vec<u8>, u32, u32, Option<[u8; 5]>);

pub fn essence(entry: &Attributes) -> Essence {
    let bytes = |kind| entry.get(&kind).cloned().unwrap_or_default();
    let tcp = tcp(entry)
        .map(|[state, original, reply, flags, reply_flags]| [state, original, reply, flags & 0x07, reply_flags & 0x07]);
    (bytes(1), bytes(2), bytes(18), number(entry, 3).unwrap(), number(entry, 8).unwrap_or(0), tcp)
}

/// All entries in an order that does not depend on the kernel's.
pub fn essences(entries: &[Attributes]) -> Vec<Essence> {
    let mut essences: Vec<_> = entries.iter().map(essence).collect();
    essences.sort();
    essences
}

/// A tuple of ports, or for protocol 1 of identifier, type and code.
pub fn write_tuple(writer: &mut MessageWriter, kind: u16, from: (u32, u16), to: (u32, u16), protocol: u8, zone: u16) {
    writer.nest(kind, |tuple| {
        tuple.nest(1, |ip| {
            ip.attribute_u32_be(1, from.0);
            ip.attribute_u32_be(2, to.0);
        });
        tuple.nest(2, |layer| {
            layer.attribute_u8(1, protocol);
            if protocol == 1 {
                layer.attribute_u16_be(4, from.1);
                layer.attribute_u8(5, (to.1 >> 8) as u8);
                layer.attribute_u8(6, to.1 as u8);
            } else {
                layer.attribute_u16_be(2, from.1);
                layer.attribute_u16_be(3, to.1);
            }
        });
        if zone != 0 {
            tuple.attribute_u16_be(3, zone);
        }
    });
}

/// TCP information with the same flags in both directions; scales 7 and 8.
pub fn write_tcp(writer: &mut MessageWriter, state: u8, flags: u8) {
    writer.nest(4, |info| {
        info.nest(1, |tcp| {
            tcp.attribute_u8(1, state);
            tcp.attribute_u8(2, 7);
            tcp.attribute_u8(3, 8);
            tcp.attribute(4, &[flags, flags]);
            tcp.attribute(5, &[flags, flags]);
        });
    });
}

/// NAT_SRC (6) or NAT_DST (13), to one address and port.
pub fn write_nat(writer: &mut MessageWriter, kind: u16, address: u32, port: u16) {
    writer.nest(kind, |nat| {
        nat.attribute_u32_be(1, address);
        nat.attribute_u32_be(2, address);
        nat.nest(3, |ports| {
            ports.attribute_u16_be(1, port);
            ports.attribute_u16_be(2, port);
        });
    });
}

pub fn io_error(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

/// One raw insert of the mixed table.
pub fn insert(
    raw: &mut Raw,
    original: ((u32, u16), (u32, u16), u8),
    zone: Zone,
    fill: impl FnOnce(&mut MessageWriter),
) {
    let (from, to, protocol) = original;
    let answer = if protocol == 1 { to.1 & 0xff } else { 0 };
    let (reply_from, reply_to) =
        if protocol == 1 { ((to.0, from.1), (from.0, answer)) } else { ((to.0, to.1), (from.0, from.1)) };
    let zone_of = |direction| if zone.direction == direction { zone.id } else { 0 };
    let errno = raw.request(CT_NEW, CREATE_EXCL, |writer| {
        write_tuple(writer, 1, from, to, protocol, zone_of(Zone::ORIGINAL));
        write_tuple(writer, 2, reply_from, reply_to, protocol, zone_of(Zone::REPLY));
        if zone_of(Zone::BOTH) != 0 {
            writer.attribute_u16_be(18, zone.id);
        }
        writer.attribute_u32_be(7, 600);
        fill(writer);
    });
    assert_eq!(errno, 0, "{original:?} {zone:?}");
}

/// 10,000 entries: three protocols, TCP in nine states with and without scales, no NAT, identity NAT, DNAT, SNAT, both,
/// zones of each direction, marks.
pub fn fill_mixed(raw: &mut Raw) {
    for i in 0..10_000u32 {
        let (client, port) = (0x0a000000 + i, 1024 + i as u16);
        let (protocol, to) = match i % 5 {
            0 => (1, (0xc0000200 + i % 16, 0x0800)),
            1 | 2 => (17, (0xc0000200 + i % 16, 53)),
            _ => (6, (0xc0000200 + i % 16, 80)),
        };
        let direction = (i / 7 % 3) as u8;
        let zone = if i % 7 == 0 { Zone { id: 1 + i as u16 % 9, direction } } else { Zone::DEFAULT };
        insert(raw, ((client, port), to, protocol), zone, |writer| {
            let bits = [0x8, 0xa, 0xe][i as usize % 3];
            writer.attribute_u32_be(3, bits);
            if i % 3 != 0 {
                writer.attribute_u32_be(8, i);
            }
            if protocol == 6 {
                write_tcp(writer, 1 + (i / 5 % 9) as u8, [0x03, 0x07, 0x02, 0x2b][i as usize / 5 % 4]);
            }
            let icmp = protocol == 1;
            let (dnat, snat) = ((0xac100000 + i % 250, 8080), (0xcb007100 + i / 250, 20000 + i as u16));
            match i / 5 % 5 {
                0 => {}
                1 => write_nat(writer, 6, client, port),
                2 => write_nat(writer, 13, dnat.0, if icmp { port } else { dnat.1 }),
                3 => write_nat(writer, 6, snat.0, snat.1),
                _ => {
                    write_nat(writer, 13, dnat.0, if icmp { port } else { dnat.1 });
                    write_nat(writer, 6, snat.0, snat.1);
                }
            }
        });
    }
}
