//! From flows to requests for the kernel.

use super::{PROTOCOLS, Refusal, STATUS_SETTABLE, TCP_BE_LIBERAL, TCP_FLAGS_CARRIED, Tuple, mirror};
use crate::bridge::conntrack::kernel;
use crate::flow::{Flow, FlowKey, TcpInfo, Zone, protocol, status};
use crate::sys::netlink::{MessageWriter, flags};
use std::net::IpAddr;

/// Why a flow cannot be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a flow that conntrack cannot hold in this version: {0}")]
pub struct Unwritable(#[from] pub Refusal);

/// Whether the flow with this key can be written: IPv4, and TCP, UDP or ICMP with a type that has an answer.
///
/// # Errors
/// [`Unwritable`] with the reason.
pub fn check_key(key: &FlowKey) -> Result<(), Unwritable> {
    let refusal = if !key.source.is_ipv4() || !key.destination.is_ipv4() {
        Refusal::Family
    } else if !PROTOCOLS.contains(&key.protocol) {
        Refusal::Protocol
    } else if mirror(key).is_none() {
        Refusal::IcmpType
    } else {
        return Ok(());
    };
    Err(Unwritable(refusal))
}

/// As [`check_key`], for a whole flow: the addresses of its reply side are IPv4 too.
///
/// # Errors
/// [`Unwritable`] with the reason.
pub fn check_flow(flow: &Flow) -> Result<(), Unwritable> {
    let reply = [flow.reply_source, flow.reply_destination];
    if reply.iter().flatten().any(|endpoint| !endpoint.address.is_ipv4()) {
        return Err(Unwritable(Refusal::Family));
    }
    check_key(&flow.key)
}

/// A request that makes the entry, and fails with `EEXIST` if there is one with its original or its reply tuple.
/// `timeout` is in seconds.
pub fn write_create(writer: &mut MessageWriter, sequence: u32, flow: &Flow, timeout: u32) {
    begin(writer, kernel::NEW, flags::CREATE | flags::EXCLUSIVE, sequence);
    write_tuple(writer, kernel::TUPLE_ORIG, &Tuple::original(&flow.key), flow.key.zone, Zone::ORIGINAL);
    if let Some(mirror) = mirror(&flow.key) {
        write_tuple(writer, kernel::TUPLE_REPLY, &mirror, flow.key.zone, Zone::REPLY);
    }
    write_value(writer, flow, timeout);
    if flow.mark != 0 {
        writer.attribute_u32_be(kernel::MARK, flow.mark);
    }
    let nat_done = status::SRC_NAT_DONE | status::DST_NAT_DONE;
    if flow.reply_source.is_some() || flow.reply_destination.is_some() || flow.status & nat_done != 0 {
        write_nat(writer, flow);
    }
    writer.end();
}

/// A request that changes the entry with this key, and fails with `ENOENT` if there is none. It carries everything but
/// NAT, which cannot be changed. `timeout` is in seconds.
pub fn write_update(writer: &mut MessageWriter, sequence: u32, flow: &Flow, timeout: u32) {
    begin(writer, kernel::NEW, 0, sequence);
    write_tuple(writer, kernel::TUPLE_ORIG, &Tuple::original(&flow.key), flow.key.zone, Zone::ORIGINAL);
    // The kernel finds the entry by its original tuple and does not look at this one.
    write_reply(writer, flow);
    write_value(writer, flow, timeout);
    writer.attribute_u32_be(kernel::MARK, flow.mark);
    writer.end();
}

/// A request that removes the entry with this key.
pub fn write_delete(writer: &mut MessageWriter, sequence: u32, key: &FlowKey) {
    write_key_request(writer, kernel::DELETE, sequence, key);
}

/// A request that removes the entry that a reply to `flow` would belong to, whatever its key is.
pub fn write_delete_by_reply(writer: &mut MessageWriter, sequence: u32, flow: &Flow) {
    begin(writer, kernel::DELETE, 0, sequence);
    write_reply(writer, flow);
    write_zone(writer, flow.key.zone);
    writer.end();
}

/// A question for the entry with this key.
pub fn write_get(writer: &mut MessageWriter, sequence: u32, key: &FlowKey) {
    write_key_request(writer, kernel::GET, sequence, key);
}

/// A question for all entries of the family that this version replicates.
pub fn write_dump(writer: &mut MessageWriter, sequence: u32) {
    begin(writer, kernel::GET, flags::DUMP, sequence);
    writer.end();
}

/// A question for the table's size, which shows whether we may ask at all.
pub fn write_probe(writer: &mut MessageWriter, sequence: u32) {
    begin(writer, kernel::GET_STATS, flags::ACKNOWLEDGE, sequence);
    writer.end();
}

fn begin(writer: &mut MessageWriter, kind: u16, extra_flags: u16, sequence: u32) {
    writer.begin(kind, flags::REQUEST | extra_flags, sequence, kernel::AF_INET, 0);
}

fn write_key_request(writer: &mut MessageWriter, kind: u16, sequence: u32, key: &FlowKey) {
    begin(writer, kind, 0, sequence);
    write_tuple(writer, kernel::TUPLE_ORIG, &Tuple::original(key), key.zone, Zone::ORIGINAL);
    write_zone(writer, key.zone);
    writer.end();
}

fn write_reply(writer: &mut MessageWriter, flow: &Flow) {
    if let Some(reply) = Tuple::reply(flow) {
        write_tuple(writer, kernel::TUPLE_REPLY, &reply, flow.key.zone, Zone::REPLY);
    }
}

fn write_tuple(writer: &mut MessageWriter, kind: u16, tuple: &Tuple, zone: Zone, direction: u8) {
    writer.nest(kind, |writer| {
        writer.nest(kernel::TUPLE_IP, |writer| {
            write_address(writer, kernel::IP_V4_SRC, tuple.source);
            write_address(writer, kernel::IP_V4_DST, tuple.destination);
        });
        writer.nest(kernel::TUPLE_PROTO, |writer| {
            writer.attribute_u8(kernel::PROTO_NUM, tuple.protocol);
            if tuple.protocol == protocol::ICMP {
                let [kind, code] = tuple.destination_port.to_be_bytes();
                writer.attribute_u16_be(kernel::PROTO_ICMP_ID, tuple.source_port);
                writer.attribute_u8(kernel::PROTO_ICMP_TYPE, kind);
                writer.attribute_u8(kernel::PROTO_ICMP_CODE, code);
            } else {
                writer.attribute_u16_be(kernel::PROTO_SRC_PORT, tuple.source_port);
                writer.attribute_u16_be(kernel::PROTO_DST_PORT, tuple.destination_port);
            }
        });
        if zone.id != 0 && zone.direction == direction {
            writer.attribute_u16_be(kernel::TUPLE_ZONE, zone.id);
        }
    });
}

/// IPv6 is refused by [`check_key`] before anything is written.
fn write_address(writer: &mut MessageWriter, kind: u16, address: IpAddr) {
    if let IpAddr::V4(address) = address {
        writer.attribute(kind, &address.octets());
    }
}

fn write_zone(writer: &mut MessageWriter, zone: Zone) {
    if zone.id != 0 && zone.direction == Zone::BOTH {
        writer.attribute_u16_be(kernel::ZONE, zone.id);
    }
}

/// What a create and an update have in common.
fn write_value(writer: &mut MessageWriter, flow: &Flow, timeout: u32) {
    write_zone(writer, flow.key.zone);
    writer.attribute_u32_be(kernel::STATUS, u32::from(flow.status & STATUS_SETTABLE | status::CONFIRMED));
    writer.attribute_u32_be(kernel::TIMEOUT, timeout);
    if flow.key.protocol == protocol::TCP {
        write_tcp(writer, flow.state, &flow.tcp.unwrap_or_default());
    }
}

fn write_tcp(writer: &mut MessageWriter, state: u8, tcp: &TcpInfo) {
    let mask = TCP_FLAGS_CARRIED | TCP_BE_LIBERAL;
    let flags = |carried: u8| [carried & TCP_FLAGS_CARRIED | TCP_BE_LIBERAL, mask];
    writer.nest(kernel::PROTOINFO, |writer| {
        writer.nest(kernel::PROTOINFO_TCP, |writer| {
            writer.attribute_u8(kernel::TCP_STATE, state);
            writer.attribute_u8(kernel::TCP_WSCALE_ORIGINAL, tcp.window_scale_original);
            writer.attribute_u8(kernel::TCP_WSCALE_REPLY, tcp.window_scale_reply);
            writer.attribute(kernel::TCP_FLAGS_ORIGINAL, &flags(tcp.flags_original));
            writer.attribute(kernel::TCP_FLAGS_REPLY, &flags(tcp.flags_reply));
        });
    });
}

/// Both translations, each to exactly one address and port, the untranslated side included.
fn write_nat(writer: &mut MessageWriter, flow: &Flow) {
    let (from, to) = (flow.replies_from(), flow.replies_to());
    // The destination is translated first, and of ICMP it could only touch the identifier, which the source decides.
    let from_port = if flow.key.protocol == protocol::ICMP { flow.key.source_port } else { from.port };
    write_nat_side(writer, kernel::NAT_DST, from.address, from_port);
    write_nat_side(writer, kernel::NAT_SRC, to.address, to.port);
}

fn write_nat_side(writer: &mut MessageWriter, kind: u16, address: IpAddr, port: u16) {
    writer.nest(kind, |writer| {
        write_address(writer, kernel::NAT_V4_MINIP, address);
        write_address(writer, kernel::NAT_V4_MAXIP, address);
        writer.nest(kernel::NAT_PROTO, |writer| {
            writer.attribute_u16_be(kernel::NAT_PORT_MIN, port);
            writer.attribute_u16_be(kernel::NAT_PORT_MAX, port);
        });
    });
}
