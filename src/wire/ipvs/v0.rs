//! Records of version 0: 24 bytes, IPv4 only, and 24 more with the sequence words.
//!
//! ```text
//!   0 zero  1 protocol  2 cport  4 vport  6 dport  8 caddr  12 vaddr  16 daddr  20 flags  22 state
//!   24 incoming: initial, delta, previous  36 outgoing: the same       only with a flag of CONN_F_SEQ_MASK
//! ```
//!
//! (`struct ip_vs_sync_conn_v0` and `struct ip_vs_sync_conn_options`.) There is no time-out: the receiver takes that of its
//! own table.

use super::connection::{checked, ipv4};
use super::{Connection, ConnectionFlags, MessageError, Record, Sequence, Sequences, WordOrder};
use crate::flow::Endpoint;
use core::net::IpAddr;
use zerocopy::byteorder::big_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Fixed {
    zero: u8,
    protocol: u8,
    client_port: U16,
    service_port: U16,
    server_port: U16,
    client: [u8; 4],
    service: [u8; 4],
    server: [u8; 4],
    flags: U16,
    state: U16,
}

const _: () = assert!(size_of::<Fixed>() == 24);

/// Six words in the sender's order.
type Words = [[u8; 4]; 6];

/// The record that `bytes` begin with, and what is behind it.
pub(in crate::wire) fn record(bytes: &[u8], order: WordOrder) -> Result<(Record<'_>, &[u8]), MessageError> {
    let (fixed, mut rest) = Fixed::ref_from_prefix(bytes).map_err(|_| MessageError::RecordTruncated)?;
    let flags = ConnectionFlags(u32::from(fixed.flags.get()));
    let mut sequences = None;
    if flags.has_sequences() {
        let (words, behind) = Words::ref_from_prefix(rest).map_err(|_| MessageError::RecordTruncated)?;
        sequences = Some(sequences_of(words, order));
        rest = behind;
    }
    let endpoint = |address, port: U16| Endpoint { address: ipv4(address), port: port.get() };
    let connection = Connection {
        protocol: fixed.protocol,
        client: endpoint(fixed.client, fixed.client_port),
        service: endpoint(fixed.service, fixed.service_port),
        server: endpoint(fixed.server, fixed.server_port),
        flags,
        state: fixed.state.get(),
        firewall_mark: 0,
        timeout: None,
        sequences,
        engine: &[],
        engine_data: &[],
    };
    Ok((checked(connection), rest))
}

/// Writes the record to the front of `slot`, sequence words in network order; how many bytes. `None`, and nothing is
/// written, if it does not fit, or is not of IPv4.
pub(in crate::wire) fn write(connection: &Connection<'_>, slot: &mut [u8]) -> Option<usize> {
    let address = |end: Endpoint| match end.address {
        IpAddr::V4(address) => Some(address.octets()),
        IpAddr::V6(_) => None,
    };
    let fixed = Fixed {
        zero: 0,
        protocol: connection.protocol,
        client_port: U16::new(connection.client.port),
        service_port: U16::new(connection.service.port),
        server_port: U16::new(connection.server.port),
        client: address(connection.client)?,
        service: address(connection.service)?,
        server: address(connection.server)?,
        // The low half: the others are the kernel's own.
        flags: U16::new(connection.flags.0 as u16),
        state: U16::new(connection.state),
    };
    if !connection.flags.has_sequences() {
        fixed.write_to_prefix(slot).ok()?;
        return Some(size_of::<Fixed>());
    }
    let Sequences { incoming, outgoing } = connection.sequences.unwrap_or_default();
    let words = [incoming, outgoing].map(|side| [side.initial, side.delta, side.previous_delta].map(u32::to_be_bytes));
    let (first, second) = slot.get_mut(..size_of::<Fixed>() + size_of::<Words>())?.split_at_mut(size_of::<Fixed>());
    fixed.write_to(first).ok()?;
    words.write_to(second).ok()?;
    Some(size_of::<Fixed>() + size_of::<Words>())
}

/// The words of both directions.
pub(super) fn sequences_of(words: &Words, order: WordOrder) -> Sequences {
    let value = |at: usize| match order {
        WordOrder::LittleEndian => u32::from_le_bytes(words[at]),
        WordOrder::BigEndian => u32::from_be_bytes(words[at]),
    };
    let sequence = |at: usize| Sequence { initial: value(at), delta: value(at + 1), previous_delta: value(at + 2) };
    Sequences { incoming: sequence(0), outgoing: sequence(3) }
}
