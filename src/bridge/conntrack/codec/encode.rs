//! From flows to requests for the kernel.

use super::{Refusal, STATUS_SETTABLE, TCP_BE_LIBERAL, TCP_FLAGS_CARRIED, extras, tuple};
use crate::bridge::conntrack::kernel;
use crate::flow::{Flow, FlowKey, TcpInfo, Tuple, Zone, protocol, status};
use crate::sys::netlink::{MessageWriter, flags};
use std::net::IpAddr;

/// Why a flow cannot be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a flow that conntrack cannot hold: {0}")]
pub struct Unwritable(#[from] pub Refusal);

/// What is not written into a new entry, because the kernel did not take it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Without {
    /// The master: it is not there.
    pub master: bool,
    /// The helper: this kernel does not have it.
    pub helper: bool,
}

/// Whether the flow with this key can be written: two addresses of one family, not the other family's ICMP, and no ICMP
/// type that has no answer.
///
/// # Errors
/// [`Unwritable`] with the reason.
pub fn check_key(key: &FlowKey) -> Result<(), Unwritable> {
    tuple::check_families(key.source, key.destination, key.protocol)?;
    if tuple::mirror(key).is_none() { Err(Unwritable(Refusal::IcmpType)) } else { Ok(()) }
}

/// As [`check_key`], for a whole flow: the addresses of its reply side are of the same family.
///
/// # Errors
/// [`Unwritable`] with the reason.
pub fn check_flow(flow: &Flow) -> Result<(), Unwritable> {
    let reply = [flow.reply_source, flow.reply_destination];
    if reply.iter().flatten().any(|endpoint| endpoint.address.is_ipv4() != flow.key.source.is_ipv4()) {
        return Err(Unwritable(Refusal::Family));
    }
    check_key(&flow.key)
}

/// A request that makes the entry, and fails with `EEXIST` if there is one with its original or its reply tuple, with
/// `ENOENT` if its master is not there, and with `EOPNOTSUPP` if the kernel does not have its helper. `timeout` is in
/// seconds.
pub fn write_create(writer: &mut MessageWriter, sequence: u32, flow: &Flow, timeout: u32, without: Without) {
    begin(writer, kernel::NEW, flags::CREATE | flags::EXCLUSIVE, sequence, &flow.key);
    write_tuple(writer, kernel::TUPLE_ORIG, &tuple::original(&flow.key), flow.key.zone, Zone::ORIGINAL);
    if let Some(mirror) = tuple::mirror(&flow.key) {
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
    if !flow.attributes.is_empty() {
        extras::write(writer, &flow.attributes);
        if !without.helper {
            extras::write_helper(writer, &flow.attributes);
        }
        if !without.master {
            extras::write_master(writer, &flow.attributes, flow.key.zone);
        }
    }
    writer.end();
}

/// A request that changes the entry with this key, and fails with `ENOENT` if there is none. It carries everything but
/// what cannot be changed: translation, helper and master. `timeout` is in seconds.
pub fn write_update(writer: &mut MessageWriter, sequence: u32, flow: &Flow, timeout: u32) {
    begin(writer, kernel::NEW, 0, sequence, &flow.key);
    write_tuple(writer, kernel::TUPLE_ORIG, &tuple::original(&flow.key), flow.key.zone, Zone::ORIGINAL);
    // The kernel finds the entry by its original tuple and does not look at this one.
    write_reply(writer, flow);
    write_value(writer, flow, timeout);
    writer.attribute_u32_be(kernel::MARK, flow.mark);
    extras::write(writer, &flow.attributes);
    writer.end();
}

/// A request that removes the entry with this key.
pub fn write_delete(writer: &mut MessageWriter, sequence: u32, key: &FlowKey) {
    write_key_request(writer, kernel::DELETE, sequence, key);
}

/// A request that removes the entry that a reply to `flow` would belong to, whatever its key is.
pub fn write_delete_by_reply(writer: &mut MessageWriter, sequence: u32, flow: &Flow) {
    begin(writer, kernel::DELETE, 0, sequence, &flow.key);
    write_reply(writer, flow);
    write_zone(writer, flow.key.zone);
    writer.end();
}

/// A question for the entry with this key.
pub fn write_get(writer: &mut MessageWriter, sequence: u32, key: &FlowKey) {
    write_key_request(writer, kernel::GET, sequence, key);
}

/// A question for all entries of both families; `narrow` may add what the kernel is to leave out.
pub fn write_dump(writer: &mut MessageWriter, sequence: u32, narrow: impl FnOnce(&mut MessageWriter)) {
    writer.begin(kernel::GET, flags::REQUEST | flags::DUMP, sequence, kernel::AF_UNSPEC, 0);
    narrow(writer);
    writer.end();
}

/// Narrows a dump to one mark under its mask, and to entries that have these bits of the status.
pub fn write_dump_filter(writer: &mut MessageWriter, mark: Option<(u32, u32)>, status: Option<u32>) {
    if let Some((value, mask)) = mark {
        writer.attribute_u32_be(kernel::MARK, value);
        writer.attribute_u32_be(kernel::MARK_MASK, mask);
    }
    if let Some(bits) = status {
        writer.attribute_u32_be(kernel::STATUS, bits);
        writer.attribute_u32_be(kernel::STATUS_MASK, bits);
    }
}

/// A question for the table's size, which shows whether we may ask at all.
pub fn write_probe(writer: &mut MessageWriter, sequence: u32) {
    writer.begin(kernel::GET_STATS, flags::REQUEST | flags::ACKNOWLEDGE, sequence, kernel::AF_UNSPEC, 0);
    writer.end();
}

fn begin(writer: &mut MessageWriter, kind: u16, extra_flags: u16, sequence: u32, key: &FlowKey) {
    writer.begin(kind, flags::REQUEST | extra_flags, sequence, tuple::family(key.source), 0);
}

fn write_key_request(writer: &mut MessageWriter, kind: u16, sequence: u32, key: &FlowKey) {
    begin(writer, kind, 0, sequence, key);
    write_tuple(writer, kernel::TUPLE_ORIG, &tuple::original(key), key.zone, Zone::ORIGINAL);
    write_zone(writer, key.zone);
    writer.end();
}

fn write_reply(writer: &mut MessageWriter, flow: &Flow) {
    if let Some(reply) = tuple::reply(flow) {
        write_tuple(writer, kernel::TUPLE_REPLY, &reply, flow.key.zone, Zone::REPLY);
    }
}

fn write_tuple(writer: &mut MessageWriter, kind: u16, tuple: &Tuple, zone: Zone, direction: u8) {
    let own = (zone.id != 0 && zone.direction == direction).then_some(zone.id);
    tuple::write(writer, kind, tuple, own);
}

pub(super) fn write_zone(writer: &mut MessageWriter, zone: Zone) {
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
    } else {
        extras::write_protocol_info(writer, flow);
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
    let (icmp, ports) = (protocol::is_icmp(flow.key.protocol), tuple::has_ports(flow.key.protocol));
    // The destination is translated first, and of ICMP it could only touch the identifier, which the source decides.
    let from_port = if icmp { flow.key.source_port } else { from.port };
    write_nat_side(writer, kernel::NAT_DST, from.address, (icmp || ports).then_some(from_port));
    write_nat_side(writer, kernel::NAT_SRC, to.address, (icmp || ports).then_some(to.port));
}

fn write_nat_side(writer: &mut MessageWriter, kind: u16, address: IpAddr, port: Option<u16>) {
    writer.nest(kind, |writer| {
        tuple::write_address(writer, [kernel::NAT_V4_MINIP, kernel::NAT_V6_MINIP], address);
        tuple::write_address(writer, [kernel::NAT_V4_MAXIP, kernel::NAT_V6_MAXIP], address);
        if let Some(port) = port {
            writer.nest(kernel::NAT_PROTO, |writer| {
                writer.attribute_u16_be(kernel::NAT_PORT_MIN, port);
                writer.attribute_u16_be(kernel::NAT_PORT_MAX, port);
            });
        }
    });
}
