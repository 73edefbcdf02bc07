//! One direction of an entry: addresses, protocol, and the two numbers that name its ends.
//!
//! ```text
//!                 first number          second number            answered by
//! ports           source port           destination port         the two exchanged
//! ICMP, ICMPv6    identifier            type << 8 | code         the identifier, the type that answers
//! anything else   0                     0                        0, 0
//! ```
//!
//! GRE's two keys (RFC 2637: call numbers) are its ports. A protocol without a tracker of its own in the kernel is
//! told without ports, whatever it is: DCCP in a kernel since 6.17, for one.

use super::Refusal;
use crate::bridge::conntrack::kernel;
use crate::flow::{Flow, FlowKey, Tuple, Zone, protocol};
use crate::sys::netlink::{Attribute, MessageWriter};
use std::net::IpAddr;

/// Whether entries of the protocol have ports.
pub(in crate::bridge::conntrack) const fn has_ports(protocol: u8) -> bool {
    matches!(
        protocol,
        protocol::TCP | protocol::UDP | protocol::UDPLITE | protocol::SCTP | protocol::DCCP | protocol::GRE
    )
}

/// The original direction of a flow.
pub(super) fn original(key: &FlowKey) -> Tuple {
    Tuple {
        source: key.source,
        destination: key.destination,
        source_port: key.source_port,
        destination_port: key.destination_port,
        protocol: key.protocol,
    }
}

/// The key of an entry with this original direction.
pub(super) fn key(tuple: &Tuple, zone: Zone) -> FlowKey {
    FlowKey {
        source: tuple.source,
        destination: tuple.destination,
        source_port: tuple.source_port,
        destination_port: tuple.destination_port,
        protocol: tuple.protocol,
        zone,
    }
}

/// The reply tuple of a flow; `None` for an ICMP type that has no answer.
pub(super) fn reply(flow: &Flow) -> Option<Tuple> {
    let (mirror, from, to) = (mirror(&flow.key)?, flow.replies_from(), flow.replies_to());
    let (source_port, destination_port) =
        if protocol::is_icmp(flow.key.protocol) { (to.port, mirror.destination_port) } else { (from.port, to.port) };
    Some(Tuple { source: from.address, destination: to.address, source_port, destination_port, ..mirror })
}

/// The reply tuple of a flow that is not translated; `None` for an ICMP type that has no answer.
pub(super) fn mirror(key: &FlowKey) -> Option<Tuple> {
    let (source_port, destination_port) = if protocol::is_icmp(key.protocol) {
        let [kind, code] = key.destination_port.to_be_bytes();
        let answer = if key.protocol == protocol::ICMP { icmp_answer(kind) } else { icmpv6_answer(kind) };
        (key.source_port, u16::from_be_bytes([answer?, code]))
    } else {
        (key.destination_port, key.source_port)
    };
    Some(Tuple {
        source: key.destination,
        destination: key.source,
        source_port,
        destination_port,
        protocol: key.protocol,
    })
}

/// The ICMP type that answers `kind`, and back (`invmap` in net/netfilter/nf_conntrack_proto_icmp.c).
const fn icmp_answer(kind: u8) -> Option<u8> {
    Some(match kind {
        8 => 0,
        0 => 8,
        13 => 14,
        14 => 13,
        15 => 16,
        16 => 15,
        17 => 18,
        18 => 17,
        _ => return None,
    })
}

/// The same for ICMPv6 (net/netfilter/nf_conntrack_proto_icmpv6.c): echo (RFC 4443) and node information (RFC 4620).
const fn icmpv6_answer(kind: u8) -> Option<u8> {
    Some(match kind {
        128 => 129,
        129 => 128,
        139 => 140,
        140 => 139,
        _ => return None,
    })
}

/// The family of nfnetlink that an address belongs to.
pub(super) const fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { kernel::AF_INET } else { kernel::AF_INET6 }
}

/// Writes a tuple, and the zone if it applies in this direction only.
pub(super) fn write(writer: &mut MessageWriter, kind: u16, tuple: &Tuple, zone: Option<u16>) {
    writer.nest(kind, |writer| {
        writer.nest(kernel::TUPLE_IP, |writer| {
            write_address(writer, [kernel::IP_V4_SRC, kernel::IP_V6_SRC], tuple.source);
            write_address(writer, [kernel::IP_V4_DST, kernel::IP_V6_DST], tuple.destination);
        });
        writer.nest(kernel::TUPLE_PROTO, |writer| write_protocol(writer, tuple));
        if let Some(zone) = zone {
            writer.attribute_u16_be(kernel::TUPLE_ZONE, zone);
        }
    });
}

/// Writes an address under its family's kind.
pub(super) fn write_address(writer: &mut MessageWriter, [v4, v6]: [u16; 2], address: IpAddr) {
    match address {
        IpAddr::V4(address) => writer.attribute(v4, &address.octets()),
        IpAddr::V6(address) => writer.attribute(v6, &address.octets()),
    }
}

fn write_protocol(writer: &mut MessageWriter, tuple: &Tuple) {
    writer.attribute_u8(kernel::PROTO_NUM, tuple.protocol);
    let [kind, code] = tuple.destination_port.to_be_bytes();
    match tuple.protocol {
        protocol::ICMP => {
            writer.attribute_u16_be(kernel::PROTO_ICMP_ID, tuple.source_port);
            writer.attribute_u8(kernel::PROTO_ICMP_TYPE, kind);
            writer.attribute_u8(kernel::PROTO_ICMP_CODE, code);
        }
        protocol::ICMPV6 => {
            writer.attribute_u16_be(kernel::PROTO_ICMPV6_ID, tuple.source_port);
            writer.attribute_u8(kernel::PROTO_ICMPV6_TYPE, kind);
            writer.attribute_u8(kernel::PROTO_ICMPV6_CODE, code);
        }
        with_ports if has_ports(with_ports) => {
            writer.attribute_u16_be(kernel::PROTO_SRC_PORT, tuple.source_port);
            writer.attribute_u16_be(kernel::PROTO_DST_PORT, tuple.destination_port);
        }
        _ => {}
    }
}

/// A tuple as read, and its zone if it has one of its own.
pub(super) struct Read {
    pub(super) tuple: Tuple,
    pub(super) zone: Option<u16>,
    /// Whether it was told with ports: the kernel has a tracker for the protocol.
    pub(super) with_ports: bool,
}

/// Reads a tuple.
///
/// # Errors
/// The [`Refusal`] that says what is missing.
pub(super) fn read(attribute: &Attribute<'_>) -> Result<Read, Refusal> {
    let (mut parts, mut zone) = (Parts::default(), None);
    for part in attribute.nested() {
        let part = part?;
        match part.kind {
            kernel::TUPLE_IP => parts.take_addresses(&part)?,
            kernel::TUPLE_PROTO => parts.take_protocol(&part)?,
            kernel::TUPLE_ZONE => zone = Some(part.u16_be()?),
            _ => {}
        }
    }
    Ok(Read { tuple: parts.whole()?, zone, with_ports: parts.source_port.is_some() })
}

/// The parts of a tuple, as they come.
#[derive(Default)]
struct Parts {
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    protocol: Option<u8>,
    source_port: Option<u16>,
    destination_port: Option<u16>,
    icmp_id: Option<u16>,
    icmp_type: Option<u8>,
    icmp_code: Option<u8>,
}

impl Parts {
    fn take_addresses(&mut self, group: &Attribute<'_>) -> Result<(), Refusal> {
        for part in group.nested() {
            let part = part?;
            match part.kind {
                kernel::IP_V4_SRC => self.source = Some(address::<4>(&part)?),
                kernel::IP_V4_DST => self.destination = Some(address::<4>(&part)?),
                kernel::IP_V6_SRC => self.source = Some(address::<16>(&part)?),
                kernel::IP_V6_DST => self.destination = Some(address::<16>(&part)?),
                _ => {}
            }
        }
        Ok(())
    }

    fn take_protocol(&mut self, group: &Attribute<'_>) -> Result<(), Refusal> {
        for part in group.nested() {
            let part = part?;
            match part.kind {
                kernel::PROTO_NUM => self.protocol = Some(part.u8()?),
                kernel::PROTO_SRC_PORT => self.source_port = Some(part.u16_be()?),
                kernel::PROTO_DST_PORT => self.destination_port = Some(part.u16_be()?),
                kernel::PROTO_ICMP_ID | kernel::PROTO_ICMPV6_ID => self.icmp_id = Some(part.u16_be()?),
                kernel::PROTO_ICMP_TYPE | kernel::PROTO_ICMPV6_TYPE => self.icmp_type = Some(part.u8()?),
                kernel::PROTO_ICMP_CODE | kernel::PROTO_ICMPV6_CODE => self.icmp_code = Some(part.u8()?),
                _ => {}
            }
        }
        Ok(())
    }

    fn whole(&self) -> Result<Tuple, Refusal> {
        let missing = Refusal::TupleMissing;
        let source = self.source.ok_or(missing)?;
        let destination = self.destination.ok_or(missing)?;
        let protocol = self.protocol.ok_or(missing)?;
        check_families(source, destination, protocol)?;
        let (source_port, destination_port) = match protocol {
            protocol::TCP | protocol::UDP => (self.source_port.ok_or(missing)?, self.destination_port.ok_or(missing)?),
            protocol::ICMP | protocol::ICMPV6 => {
                let kind = [self.icmp_type.ok_or(missing)?, self.icmp_code.ok_or(missing)?];
                (self.icmp_id.ok_or(missing)?, u16::from_be_bytes(kind))
            }
            // Without a tracker in this kernel it has none.
            with_ports if has_ports(with_ports) => (self.source_port.unwrap_or(0), self.destination_port.unwrap_or(0)),
            _ => (0, 0),
        };
        Ok(Tuple { source, destination, source_port, destination_port, protocol })
    }
}

/// Whether both addresses are of one family, and the protocol is not the other family's ICMP.
pub(super) fn check_families(source: IpAddr, destination: IpAddr, protocol: u8) -> Result<(), Refusal> {
    match (source, destination, protocol) {
        (IpAddr::V4(_), IpAddr::V4(_), protocol::ICMPV6) | (IpAddr::V6(_), IpAddr::V6(_), protocol::ICMP) => {
            Err(Refusal::Protocol)
        }
        (IpAddr::V4(_), IpAddr::V4(_), _) | (IpAddr::V6(_), IpAddr::V6(_), _) => Ok(()),
        _ => Err(Refusal::Family),
    }
}

/// An address of `N` bytes.
fn address<const N: usize>(attribute: &Attribute<'_>) -> Result<IpAddr, Refusal>
where
    IpAddr: From<[u8; N]>,
{
    let bytes: [u8; N] = attribute.value.try_into().map_err(|_| Refusal::Malformed)?;
    Ok(IpAddr::from(bytes))
}
