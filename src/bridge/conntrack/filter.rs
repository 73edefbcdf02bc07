//! Which events wake us at all: the socket filter of the event socket, and the same rule for what comes by dump.

use super::codec::PROTOCOLS;
use super::kernel::{AF_INET, IP_V4_DST, IP_V4_SRC, PROTO_NUM, TUPLE_IP, TUPLE_ORIG, TUPLE_PROTO};
use crate::flow::FlowKey;
use crate::sys::cbpf::Program;
use std::net::IpAddr;

/// Offsets in an event: `nlmsg_pid`, `nfgen_family`, the first attribute. An attribute's value is behind its header.
const PORT_ID: u32 = 12;
const FAMILY: u32 = 16;
const ATTRIBUTES: u32 = 20;
const VALUE: u32 = 4;

/// First byte of 127.0.0.0/8.
const LOOPBACK: u8 = 127;

/// Most sockets whose events can be dropped; each takes two instructions of the kernel's 4096.
pub(super) const IGNORED_MAX: usize = 1024;

/// A program for the event socket. It drops what was caused by a request of a socket in `ignore_port_ids` (the kernel
/// copies the requester's port id into `nlmsg_pid`, and writes 0 where a packet or a time-out was the cause), other
/// families and protocols than those that are replicated, and connections of the loopback network. Whatever it cannot
/// make out it lets pass, so that it is refused by name and counted in user space.
pub(super) fn program(ignore_port_ids: &[u32]) -> Program {
    let own = ignore_port_ids.iter().take(IGNORED_MAX);
    // Classic BPF loads big-endian, and the port id is in host order.
    let program = own.fold(Program::new().load_u32(PORT_ID), |program, id| program.drop_if(id.to_be()));
    let program = program.load_u8(FAMILY).drop_unless(&[AF_INET.into()]);
    let program = program.find_attribute(ATTRIBUTES, TUPLE_ORIG).accept_if(0).store(0);
    let program = program.find_nested(TUPLE_PROTO).accept_if(0).find_nested(PROTO_NUM).accept_if(0);
    let program = program.load_u8_behind(VALUE).drop_unless(&PROTOCOLS.map(u32::from));
    let program = program.recall(0).find_nested(TUPLE_IP).accept_if(0).store(1);
    let program = program.find_nested(IP_V4_SRC).accept_if(0).load_u8_behind(VALUE).drop_if(LOOPBACK.into());
    program.recall(1).find_nested(IP_V4_DST).accept_if(0).load_u8_behind(VALUE).drop_if(LOOPBACK.into())
}

/// Whether the flow never leaves the machine: one of its original addresses is in 127.0.0.0/8.
pub(super) fn is_loopback(key: &FlowKey) -> bool {
    let inside = |address: IpAddr| matches!(address, IpAddr::V4(address) if address.octets()[0] == LOOPBACK);
    inside(key.source) || inside(key.destination)
}
