//! The balancers' rules, spoken to nf_tables directly, so that the demo needs no `nft`.
//!
//! ```text
//! table ip ssyncp_demo {                          and the same of table ip6, where there are services of IPv6
//!     untracked_in    prerouting raw      what comes over the sync link is not tracked
//!     untracked_out   output raw          nor what leaves over it
//!     invalid         prerouting mangle   a packet that conntrack cannot place is dropped and counted
//!     services        prerouting dstnat   virtual address and port -> a server              (DNAT)
//!     gateway         postrouting srcnat  towards the servers -> the gateway's address      (SNAT)
//!     forward         forward filter      only translated connections pass; the rest is dropped
//! }
//! ```
//!
//! With `nf_conntrack_tcp_loose=0` beside it, a connection whose entry is missing finds no way through: its packets are
//! invalid. The whole set is one batch: the kernel takes all of it or nothing.

use crate::flow::protocol;
use crate::sys::nftables::{
    Batch, Expression, NAT_DESTINATION, NAT_SOURCE, NF_ACCEPT, NF_DROP, REGISTER_1, REGISTER_2, STATE_INVALID, family,
    hook, octets, priority,
};
use core::net::{IpAddr, SocketAddr};
use std::io;

/// Name of the table that a balancer lives by.
pub(super) const TABLE: &str = "ssyncp_demo";
/// Name of the table of a second virtual address.
const SECOND: &str = "ssyncp_demo_second";

/// What the rules of a balancer are about.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Each service: the virtual address and port that clients know, and the server behind it. TCP, UDP and SCTP alike.
    pub services: Vec<(SocketAddr, SocketAddr)>,
    /// Interface towards the servers.
    pub back: &'static str,
    /// Addresses that servers see instead of the client's, one for each family.
    pub gateways: Vec<IpAddr>,
    /// The sync link.
    pub sync: &'static str,
}

/// `IPS_DST_NAT`, linux/netfilter/nf_conntrack_common.h.
const STATUS_DNAT: u32 = 1 << 5;

/// Loads the rules into the network namespace of the calling thread.
///
/// # Errors
/// The operating system's error; the kernel's refusal names the part that it refused.
pub fn load(policy: &Policy) -> io::Result<()> {
    let mut batch = Batch::begin(TABLE, family(IpAddr::from([0, 0, 0, 0])));
    for gateway in &policy.gateways {
        batch.set_family(family(*gateway));
        batch.table(0);
        chains_and_rules(&mut batch, policy, *gateway);
    }
    batch.commit(&mut Batch::socket()?)
}

/// Loads the rules of a second virtual address beside those of [`load`]: its services, whose servers listen at a port of their
/// own, and the gateway that these servers answer to.
///
/// # Errors
/// As of [`load`].
pub fn load_second(services: &[(SocketAddr, SocketAddr)], back: &str, port: u16, gateway: IpAddr) -> io::Result<()> {
    let mut batch = Batch::begin(SECOND, family(gateway));
    batch.table(0);
    batch.chain("services", "nat", hook::PREROUTING, priority::DSTNAT, NF_ACCEPT);
    for (service, server) in services {
        batch.rule("services", &[phrase::destination(*service, protocol::TCP), phrase::dnat(*server)].concat());
    }
    // Before that of the first gateway: who is translated first stays so.
    batch.chain("gateway", "nat", hook::POSTROUTING, priority::SRCNAT - 1, NF_ACCEPT);
    let to_servers = [phrase::interface(libc::NFT_META_OIFNAME, back), phrase::port(port, protocol::TCP)].concat();
    batch.rule("gateway", &[to_servers, phrase::snat(gateway)].concat());
    batch.commit(&mut Batch::socket()?)
}

fn chains_and_rules(batch: &mut Batch, policy: &Policy, gateway: IpAddr) {
    let all = |parts: Vec<Vec<Expression>>| parts.into_iter().flatten().collect::<Vec<_>>();
    let drop_and_count = || vec![Expression::Count, Expression::Verdict(NF_DROP)];

    batch.chain("untracked_in", "filter", hook::PREROUTING, priority::RAW, NF_ACCEPT);
    let from_sync = phrase::interface(libc::NFT_META_IIFNAME, policy.sync);
    batch.rule("untracked_in", &all(vec![from_sync, vec![Expression::Untrack]]));

    batch.chain("untracked_out", "filter", hook::OUTPUT, priority::RAW, NF_ACCEPT);
    let to_sync = phrase::interface(libc::NFT_META_OIFNAME, policy.sync);
    batch.rule("untracked_out", &all(vec![to_sync, vec![Expression::Untrack]]));

    batch.chain("invalid", "filter", hook::PREROUTING, priority::MANGLE, NF_ACCEPT);
    let invalid = phrase::connection_has(libc::NFT_CT_STATE, STATE_INVALID);
    batch.rule("invalid", &all(vec![invalid, drop_and_count()]));

    batch.chain("services", "nat", hook::PREROUTING, priority::DSTNAT, NF_ACCEPT);
    let of_family = |service: &&(SocketAddr, SocketAddr)| service.0.is_ipv4() == gateway.is_ipv4();
    for (service, server) in policy.services.iter().filter(of_family) {
        for protocol in [protocol::TCP, protocol::UDP, protocol::SCTP] {
            batch.rule("services", &all(vec![phrase::destination(*service, protocol), phrase::dnat(*server)]));
        }
    }

    batch.chain("gateway", "nat", hook::POSTROUTING, priority::SRCNAT, NF_ACCEPT);
    let to_servers = phrase::interface(libc::NFT_META_OIFNAME, policy.back);
    batch.rule("gateway", &all(vec![to_servers, phrase::snat(gateway)]));

    batch.chain("forward", "filter", hook::FORWARD, priority::FILTER, NF_DROP);
    let translated = phrase::connection_has(libc::NFT_CT_STATUS, STATUS_DNAT);
    batch.rule("forward", &all(vec![translated, vec![Expression::Verdict(NF_ACCEPT)]]));
}

/// Rules in the words of `nft`, as lists of expressions.
mod phrase {
    use super::*;

    pub(super) fn interface(meta: i32, name: &str) -> Vec<Expression> {
        let mut padded = [0; libc::IFNAMSIZ];
        padded[..name.len()].copy_from_slice(name.as_bytes());
        vec![Expression::Meta(meta), Expression::Compare(libc::NFT_CMP_EQ, padded.to_vec())]
    }

    pub(super) fn destination(to: SocketAddr, protocol: u8) -> Vec<Expression> {
        // Where the destination stands in an IPv4 header, and in an IPv6 header.
        let (offset, length) = if to.is_ipv4() { (16, 4) } else { (24, 16) };
        let address = [
            Expression::Payload { base: libc::NFT_PAYLOAD_NETWORK_HEADER, offset, length },
            Expression::Compare(libc::NFT_CMP_EQ, octets(to.ip())),
        ];
        [&address[..], &port(to.port(), protocol)].concat()
    }

    pub(super) fn port(to: u16, protocol: u8) -> Vec<Expression> {
        vec![
            Expression::Meta(libc::NFT_META_L4PROTO),
            Expression::Compare(libc::NFT_CMP_EQ, vec![protocol]),
            Expression::Payload { base: libc::NFT_PAYLOAD_TRANSPORT_HEADER, offset: 2, length: 2 },
            Expression::Compare(libc::NFT_CMP_EQ, to.to_be_bytes().to_vec()),
        ]
    }

    pub(super) fn connection_has(key: i32, bits: u32) -> Vec<Expression> {
        vec![
            Expression::Connection(key),
            Expression::Mask(bits.to_ne_bytes().to_vec()),
            Expression::Compare(libc::NFT_CMP_NEQ, vec![0; 4]),
        ]
    }

    pub(super) fn dnat(to: SocketAddr) -> Vec<Expression> {
        vec![
            Expression::Immediate(REGISTER_1, octets(to.ip())),
            Expression::Immediate(REGISTER_2, to.port().to_be_bytes().to_vec()),
            Expression::Nat { kind: NAT_DESTINATION, family: family(to.ip()), port: true },
        ]
    }

    pub(super) fn snat(to: IpAddr) -> Vec<Expression> {
        vec![
            Expression::Immediate(REGISTER_1, octets(to)),
            Expression::Nat { kind: NAT_SOURCE, family: family(to), port: false },
        ]
    }
}
