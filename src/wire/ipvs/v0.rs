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
use zerocopy::byteorder::big_endian::U16;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
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
pub(super) fn record(bytes: &[u8], order: WordOrder) -> Result<(Record<'_>, &[u8]), MessageError> {
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

/// The words of both directions.
pub(super) fn sequences_of(words: &Words, order: WordOrder) -> Sequences {
    let value = |at: usize| match order {
        WordOrder::LittleEndian => u32::from_le_bytes(words[at]),
        WordOrder::BigEndian => u32::from_be_bytes(words[at]),
    };
    let sequence = |at: usize| Sequence { initial: value(at), delta: value(at + 1), previous_delta: value(at + 2) };
    Sequences { incoming: sequence(0), outgoing: sequence(3) }
}
