//! Conntrack entries in the language of ctnetlink (linux/netfilter/nfnetlink_conntrack.h), both ways.
//!
//! ```text
//! nfgenmsg | TUPLE_ORIG { IP { src, dst }, PROTO { number, ports | ICMP id, type, code }, ZONE? }
//!          | TUPLE_REPLY { the same }            the mirror of the original one where there is no NAT
//!          | STATUS | TIMEOUT | MARK? | ZONE? | PROTOINFO? { TCP { state, scales, flags } } | more that we do not carry
//! ```
//!
//! What the kernel does with a request is not symmetric with what it tells (measured on Linux 6.18):
//!
//! * NAT bits in the status are ignored. NAT is made by a *mirrored* reply tuple plus NAT_SRC / NAT_DST; the kernel
//!   then rewrites the reply tuple and sets the bits itself. A side that is not named gets "the same address, and any
//!   port that is free", so both sides are always named, ports included, even if only one is translated.
//! * Window scales are kept only if the flags of *both* directions say so.
//! * SEEN_REPLY, ASSURED and FIXED_TIMEOUT can be set later, but never cleared; NAT can never be changed.
//! * An absent mark in an event is mark 0; an absent PROTOINFO says nothing: see [`Decoded::state_known`].

mod decode;
mod encode;

pub use decode::{Decoded, Happening, decode};
pub use encode::{
    Unwritable, check_flow, check_key, write_create, write_delete, write_delete_by_reply, write_dump, write_get,
    write_probe, write_update,
};

use crate::flow::{Flow, FlowKey, Zone, protocol, status};
use crate::sys::netlink::Malformed;
use std::net::IpAddr;

/// Protocols that this version replicates.
pub const PROTOCOLS: [u8; 3] = [protocol::ICMP, protocol::TCP, protocol::UDP];

/// `IP_CT_TCP_FLAG_*` that a copy can use: WINDOW_SCALE, SACK_PERM, CLOSE_INIT. The others belong to the sequence
/// windows, which cannot be copied: MAXACK_SET without its window would make the copy drop valid resets.
pub const TCP_FLAGS_CARRIED: u8 = 0x07;

/// `IP_CT_TCP_FLAG_BE_LIBERAL`: do not judge packets by sequence windows. A copy has none to judge by.
const TCP_BE_LIBERAL: u8 = 0x08;

/// IPS_FIXED_TIMEOUT: packets do not refresh the time-out.
const FIXED_TIMEOUT: u16 = 1 << 10;

/// Bits of the status that user space can give to an entry. They can be set later too, but never cleared.
pub const STATUS_SETTABLE: u16 = status::SEEN_REPLY | status::ASSURED | FIXED_TIMEOUT;

/// Why a message does not become a flow.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Refusal {
    /// A length or a value that cannot be.
    #[error("a malformed message")]
    Malformed,
    /// Not a conntrack entry.
    #[error("a message of another kind")]
    Kind,
    /// An address family that this version does not replicate.
    #[error("an address family that is not replicated")]
    Family,
    /// A protocol that this version does not replicate.
    #[error("a protocol that is not replicated")]
    Protocol,
    /// An ICMP type that has no answer, so that it makes no entry.
    #[error("an ICMP type without an answer")]
    IcmpType,
    /// A tuple, or a part of it, is missing.
    #[error("an entry without both of its tuples")]
    TupleMissing,
    /// The reply tuple is of another protocol, or is another ICMP answer than the request wants.
    #[error("a reply tuple that does not fit the original one")]
    ReplyMismatch,
}

impl Refusal {
    /// All of them, in the order of their counters.
    pub const ALL: [Refusal; 7] = [
        Refusal::Malformed,
        Refusal::Kind,
        Refusal::Family,
        Refusal::Protocol,
        Refusal::IcmpType,
        Refusal::TupleMissing,
        Refusal::ReplyMismatch,
    ];

    /// The name of its counter.
    pub const fn name(self) -> &'static str {
        match self {
            Refusal::Malformed => "refused_malformed",
            Refusal::Kind => "refused_kind",
            Refusal::Family => "refused_family",
            Refusal::Protocol => "refused_protocol",
            Refusal::IcmpType => "refused_icmp_type",
            Refusal::TupleMissing => "refused_tuple_missing",
            Refusal::ReplyMismatch => "refused_reply_mismatch",
        }
    }
}

impl From<Malformed> for Refusal {
    fn from(_: Malformed) -> Self {
        Refusal::Malformed
    }
}

/// One direction of an entry. For ICMP `source_port` is the identifier and `destination_port` is `type << 8 | code`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Tuple {
    source: IpAddr,
    destination: IpAddr,
    source_port: u16,
    destination_port: u16,
    protocol: u8,
}

impl Tuple {
    fn key(&self, zone: Zone) -> FlowKey {
        FlowKey {
            source: self.source,
            destination: self.destination,
            source_port: self.source_port,
            destination_port: self.destination_port,
            protocol: self.protocol,
            zone,
        }
    }

    fn original(key: &FlowKey) -> Self {
        Tuple {
            source: key.source,
            destination: key.destination,
            source_port: key.source_port,
            destination_port: key.destination_port,
            protocol: key.protocol,
        }
    }

    /// The reply tuple of a flow; `None` for an ICMP type that has no answer.
    fn reply(flow: &Flow) -> Option<Self> {
        let (mirror, from, to) = (mirror(&flow.key)?, flow.replies_from(), flow.replies_to());
        let (source_port, destination_port) = match flow.key.protocol {
            protocol::ICMP => (to.port, mirror.destination_port),
            _ => (from.port, to.port),
        };
        Some(Tuple { source: from.address, destination: to.address, source_port, destination_port, ..mirror })
    }
}

/// The reply tuple of a flow that is not translated; `None` for an ICMP type that has no answer.
fn mirror(key: &FlowKey) -> Option<Tuple> {
    let (source_port, destination_port) = match key.protocol {
        protocol::ICMP => {
            let [kind, code] = key.destination_port.to_be_bytes();
            (key.source_port, u16::from_be_bytes([icmp_answer(kind)?, code]))
        }
        _ => (key.destination_port, key.source_port),
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
