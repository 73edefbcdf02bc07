//! The nouns that every room shares: a flow, its key, and a change to it.
//!
//! A flow is what netfilter calls a conntrack entry and IPVS a connection. Its key is the *original* tuple (as the
//! client sent it), the protocol and the zone; everything else is its value. The reply tuple is stored only where it is
//! not the mirror image of the original one, which is to say only where NAT is at work.
//!
//! Every value has exactly one form (see [`Flow::canonical`]), because digests are computed over it.

#![forbid(unsafe_code)]

mod attributes;
mod expectation;
mod plain;
mod section;

pub use attributes::{
    AttributeError, AttributeIter, Attributes, ProtocolInfo, SequenceAdjustment, Synproxy, Tuple, attribute,
    check as check_attributes,
};
pub use expectation::{EXPECTATION_NAME_MAX, Expectation, ExpectationNat, read_expectations, write_expectations};
pub use plain::{KeyBytes, PLAIN_KEY_LEN, PlainFlow};
pub use section::{Section, SectionChange, SectionKey};

use core::fmt;
use core::net::IpAddr;

/// IANA protocol numbers that the project treats by name.
pub mod protocol {
    /// ICMP (RFC 792).
    pub const ICMP: u8 = 1;
    /// TCP (RFC 9293).
    pub const TCP: u8 = 6;
    /// UDP (RFC 768).
    pub const UDP: u8 = 17;
    /// DCCP (RFC 4340).
    pub const DCCP: u8 = 33;
    /// GRE (RFC 2784, and RFC 2637 for PPTP's, whose call numbers are its ports).
    pub const GRE: u8 = 47;
    /// ICMPv6 (RFC 4443).
    pub const ICMPV6: u8 = 58;
    /// SCTP (RFC 9260).
    pub const SCTP: u8 = 132;
    /// UDP-Lite (RFC 3828).
    pub const UDPLITE: u8 = 136;

    /// Whether the ports of a key are an identifier and `type << 8 | code`.
    pub const fn is_icmp(protocol: u8) -> bool {
        protocol == ICMP || protocol == ICMPV6
    }
}

/// The bits of a conntrack entry's status, low 16 of `enum ip_conntrack_status` in
/// linux/netfilter/nf_conntrack_common.h.
pub mod status {
    /// Another flow had announced this one.
    pub const EXPECTED: u16 = 1 << 0;
    /// A packet was seen in the reply direction.
    pub const SEEN_REPLY: u16 = 1 << 1;
    /// The entry is not dropped early when the table is full.
    pub const ASSURED: u16 = 1 << 2;
    /// The entry is in the table (its first packet has left the box).
    pub const CONFIRMED: u16 = 1 << 3;
    /// The source is translated.
    pub const SRC_NAT: u16 = 1 << 4;
    /// The destination is translated.
    pub const DST_NAT: u16 = 1 << 5;
    /// Sequence numbers are adjusted.
    pub const SEQ_ADJUST: u16 = 1 << 6;
    /// Source NAT has been decided.
    pub const SRC_NAT_DONE: u16 = 1 << 7;
    /// Destination NAT has been decided.
    pub const DST_NAT_DONE: u16 = 1 << 8;
}

/// A conntrack zone: a number, and the direction in which it applies (`enum` of `CTA_TUPLE_ZONE` / `CTA_ZONE`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Zone {
    /// Zone number; 0 is the default zone.
    pub id: u16,
    /// Where it applies: [`Zone::BOTH`], [`Zone::ORIGINAL`] or [`Zone::REPLY`].
    pub direction: u8,
}

impl Zone {
    /// The zone applies in both directions.
    pub const BOTH: u8 = 0;
    /// The zone applies in the original direction only.
    pub const ORIGINAL: u8 = 1;
    /// The zone applies in the reply direction only.
    pub const REPLY: u8 = 2;
    /// Zone 0 in both directions: what an entry has when nobody configured zones.
    pub const DEFAULT: Zone = Zone { id: 0, direction: Zone::BOTH };

    /// Whether this is the zone that needs not be written down.
    pub const fn is_default(self) -> bool {
        self.id == 0 && self.direction == Zone::BOTH
    }
}

/// What names a flow: the original tuple, the protocol and the zone. Both addresses are of one family.
///
/// For ICMP and ICMPv6 `source_port` is the identifier and `destination_port` is `type << 8 | code`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FlowKey {
    /// Address of the side that sent the first packet.
    pub source: IpAddr,
    /// Address that the first packet was sent to.
    pub destination: IpAddr,
    /// Port of the source, host order.
    pub source_port: u16,
    /// Port of the destination, host order.
    pub destination_port: u16,
    /// IANA protocol number.
    pub protocol: u8,
    /// Conntrack zone.
    pub zone: Zone,
}

/// An address with a port (for ICMP: with an identifier).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Endpoint {
    /// Address.
    pub address: IpAddr,
    /// Port, host order.
    pub port: u16,
}

/// What a TCP entry needs so that the kernel that takes it over does not call its packets invalid.
///
/// Shapes are those of `CTA_PROTOINFO_TCP_*`: window scales 0–14 (15 bits of room), flags as `IP_CT_TCP_FLAG_*`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct TcpInfo {
    /// Window scale of the original direction, 0–15.
    pub window_scale_original: u8,
    /// Window scale of the reply direction, 0–15.
    pub window_scale_reply: u8,
    /// `IP_CT_TCP_FLAG_*` of the original direction.
    pub flags_original: u8,
    /// `IP_CT_TCP_FLAG_*` of the reply direction.
    pub flags_reply: u8,
}

impl TcpInfo {
    /// The widest scale that the wire carries (four bits); kernels know scales up to 14 (RFC 7323 section 2.3).
    pub const WINDOW_SCALE_MAX: u8 = 15;
}

/// One connection entry: key and value.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Flow {
    /// What names it.
    pub key: FlowKey,
    /// Source of the reply direction where it is not the original destination (DNAT). For ICMP the port is always the
    /// key's `destination_port`: the kernel derives the answer's type itself.
    pub reply_source: Option<Endpoint>,
    /// Destination of the reply direction where it is not the original source (SNAT). For ICMP the port is the
    /// identifier of the reply direction.
    pub reply_destination: Option<Endpoint>,
    /// State of the protocol (`enum tcp_conntrack`; 0 where the protocol has none).
    pub state: u8,
    /// Low 16 bits of the conntrack status, see [`status`].
    pub status: u16,
    /// Seconds that the entry has left to live if nothing refreshes it.
    pub timeout: u32,
    /// TCP window scales and flags; `None` for other protocols, and where they are all zero.
    pub tcp: Option<TcpInfo>,
    /// Connection mark; 0 is none.
    pub mark: u32,
    /// What only some flows have.
    pub attributes: Attributes,
}

impl Flow {
    /// The flow with nothing known but its key.
    pub const fn new(key: FlowKey) -> Self {
        Flow {
            key,
            reply_source: None,
            reply_destination: None,
            state: 0,
            status: 0,
            timeout: 0,
            tcp: None,
            mark: 0,
            attributes: Attributes::NONE,
        }
    }

    /// Where replies come from: the original destination, or what DNAT made of it.
    pub fn replies_from(&self) -> Endpoint {
        let key = &self.key;
        self.reply_source.unwrap_or(Endpoint { address: key.destination, port: key.destination_port })
    }

    /// Where replies go to: the original source, or what SNAT made of it.
    pub fn replies_to(&self) -> Endpoint {
        let key = &self.key;
        self.reply_destination.unwrap_or(Endpoint { address: key.source, port: key.source_port })
    }

    /// The one form of this value: window scales have four bits; a reply side that is the plain mirror, TCP information
    /// that says nothing or belongs to another protocol, and the type in an ICMP answer (the kernel derives it) are
    /// left out. Wire, table and digest know canonical flows only.
    #[must_use]
    pub fn canonical(mut self) -> Self {
        let key = self.key;
        if protocol::is_icmp(key.protocol)
            && let Some(source) = &mut self.reply_source
        {
            source.port = key.destination_port;
        }
        if self.reply_source == Some(Endpoint { address: key.destination, port: key.destination_port }) {
            self.reply_source = None;
        }
        if self.reply_destination == Some(Endpoint { address: key.source, port: key.source_port }) {
            self.reply_destination = None;
        }
        if let Some(tcp) = &mut self.tcp {
            tcp.window_scale_original = tcp.window_scale_original.min(TcpInfo::WINDOW_SCALE_MAX);
            tcp.window_scale_reply = tcp.window_scale_reply.min(TcpInfo::WINDOW_SCALE_MAX);
        }
        if self.tcp == Some(TcpInfo::default()) || key.protocol != protocol::TCP {
            self.tcp = None;
        }
        self
    }

    /// Whether `other` is the same entry with the same value. Time-out and counters do not count: every packet changes
    /// them.
    pub fn same_value(&self, other: &Flow) -> bool {
        let counted = |&(kind, _): &(u8, &[u8])| kind != attribute::COUNTERS;
        let plain = |flow: &Flow| Flow { timeout: 0, attributes: Attributes::NONE, ..flow.clone() };
        self.attributes.iter().filter(counted).eq(other.attributes.iter().filter(counted))
            && plain(self) == plain(other)
    }
}

/// A change to one key: the unit that sources yield, that the engine replicates, and that sinks take.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// The flow is now this (full replacement).
    Upsert(Flow),
    /// The flow is gone.
    Delete(FlowKey),
}

impl Change {
    /// The key that changes.
    pub fn key(&self) -> &FlowKey {
        match self {
            Change::Upsert(flow) => &flow.key,
            Change::Delete(key) => key,
        }
    }
}

impl fmt::Display for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.protocol {
            protocol::ICMP => "icmp",
            protocol::TCP => "tcp",
            protocol::UDP => "udp",
            protocol::DCCP => "dccp",
            protocol::GRE => "gre",
            protocol::ICMPV6 => "icmpv6",
            protocol::SCTP => "sctp",
            protocol::UDPLITE => "udplite",
            other => return write!(f, "proto-{other} {} -> {}", self.source, self.destination),
        };
        if protocol::is_icmp(self.protocol) {
            let (kind, code) = (self.destination_port >> 8, self.destination_port & 0xff);
            write!(
                f,
                "{name} {} -> {} id={} type={kind} code={code}",
                self.source, self.destination, self.source_port
            )?;
        } else {
            let end = core::net::SocketAddr::new;
            let (from, to) = (end(self.source, self.source_port), end(self.destination, self.destination_port));
            write!(f, "{name} {from} -> {to}")?;
        }
        if !self.zone.is_default() {
            write!(f, " zone={}", self.zone.id)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;

    fn flow() -> Flow {
        Flow::new(FlowKey {
            source: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
            destination: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)),
            source_port: 40000,
            destination_port: 80,
            protocol: protocol::TCP,
            zone: Zone::DEFAULT,
        })
    }

    #[test]
    fn a_reply_side_that_is_the_mirror_is_left_out() {
        let mut natted = flow();
        natted.reply_source = Some(Endpoint { address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)), port: 80 });
        natted.reply_destination = Some(Endpoint { address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), port: 40000 });
        natted.tcp = Some(TcpInfo::default());
        assert_eq!(natted.clone().canonical(), flow());
        natted.reply_source = Some(Endpoint { address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)), port: 8080 });
        assert_eq!(natted.canonical().reply_source.map(|to| to.port), Some(8080));
    }

    #[test]
    fn what_a_protocol_does_not_have_is_left_out() {
        let mut ping = flow();
        ping.key.protocol = protocol::ICMP;
        ping.key.destination_port = 0x0800;
        let plain = ping.clone();
        ping.tcp = Some(TcpInfo { flags_original: 1, ..TcpInfo::default() });
        ping.reply_source = Some(Endpoint { address: ping.key.destination, port: 0 });
        assert_eq!(ping.clone().canonical(), plain);
        let elsewhere = IpAddr::V4(Ipv4Addr::new(10, 9, 9, 9));
        ping.reply_source = Some(Endpoint { address: elsewhere, port: 0 });
        assert_eq!(ping.canonical().reply_source, Some(Endpoint { address: elsewhere, port: 0x0800 }));
    }

    #[test]
    fn a_time_out_alone_is_no_other_value() {
        let mut older = flow();
        older.timeout = 7;
        assert!(older.same_value(&flow()));
        older.mark = 1;
        assert!(!older.same_value(&flow()));
    }

    #[test]
    fn a_key_prints_as_an_operator_reads_it() {
        assert_eq!(flow().key.to_string(), "tcp 10.0.0.1:40000 -> 192.0.2.10:80");
    }
}
