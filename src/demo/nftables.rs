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
//! invalid. A rule is a list of expressions that work on registers, as in linux/netfilter/nf_tables.h: load something,
//! compare it (no match: the rule ends), do something. The whole set is one batch: the kernel takes all of it or
//! nothing.

use crate::flow::protocol;
use crate::sys::netlink::{MessageWriter, Messages, NetlinkSocket};
use core::net::{IpAddr, SocketAddr};
use std::io;

/// Name of the table that a balancer lives by.
pub(super) const TABLE: &str = "ssyncp_demo";
/// Name of the table that makes a machine deaf.
const DEAF: &str = "ssyncp_demo_deaf";

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

/// Loads the rules into the network namespace of the calling thread.
///
/// # Errors
/// The operating system's error; the kernel's refusal names the part that it refused.
pub fn load(policy: &Policy) -> io::Result<()> {
    let mut batch = Batch::begin();
    for gateway in &policy.gateways {
        batch.family = family(*gateway);
        batch.table();
        batch.chains_and_rules(policy, *gateway);
    }
    batch.commit()
}

/// From now on nothing that comes in by `interface` is heard, in the network namespace of the calling thread; what it sends
/// goes out as before. [`hear`] ends it.
///
/// # Errors
/// The operating system's error.
pub fn deafen(interface: &str) -> io::Result<()> {
    let mut batch = Batch { table: DEAF, ..Batch::begin() };
    batch.table();
    batch.chain("deaf", "filter", hook::PREROUTING, priority::RAW, NF_ACCEPT);
    let mut rule = phrase::interface(libc::NFT_META_IIFNAME, interface);
    rule.extend([Expression::Count, Expression::Verdict(NF_DROP)]);
    batch.rule("deaf", rule);
    batch.commit()
}

/// Undoes [`deafen`].
///
/// # Errors
/// The operating system's error.
pub fn hear() -> io::Result<()> {
    let mut batch = Batch { table: DEAF, ..Batch::begin() };
    batch.message(libc::NFT_MSG_DELTABLE, 0, format!("the end of table {DEAF}"), |to| to.attribute_text(1, DEAF));
    batch.commit()
}

/// The protocol family of an address, as nf_tables numbers it.
fn family(address: IpAddr) -> u8 {
    let family = if address.is_ipv4() { libc::NFPROTO_IPV4 } else { libc::NFPROTO_IPV6 };
    family as u8
}

/// An address as it stands in a packet.
fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// `enum nf_inet_hooks`, linux/netfilter.h.
mod hook {
    pub(super) const PREROUTING: u32 = 0;
    pub(super) const FORWARD: u32 = 2;
    pub(super) const OUTPUT: u32 = 3;
    pub(super) const POSTROUTING: u32 = 4;
}

/// `enum nf_ip_hook_priorities`, linux/netfilter_ipv4.h.
mod priority {
    pub(super) const RAW: i32 = -300;
    pub(super) const MANGLE: i32 = -150;
    pub(super) const DSTNAT: i32 = -100;
    pub(super) const FILTER: i32 = 0;
    pub(super) const SRCNAT: i32 = 100;
}

const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
const NFT_REG_VERDICT: u32 = 0;
const NFT_REG_1: u32 = 1;
const NFT_REG_2: u32 = 2;
const NFT_NAT_SNAT: u32 = 0;
const NFT_NAT_DNAT: u32 = 1;
/// `NF_CT_STATE_INVALID_BIT`, linux/netfilter/nf_conntrack_common.h.
const STATE_INVALID: u32 = 1;
/// `IPS_DST_NAT`, the same.
const STATUS_DNAT: u32 = 1 << 5;

/// The expressions that the demo's rules are made of.
enum Expression {
    /// `meta`: a property of the packet (`enum nft_meta_keys`) into register 1.
    Meta(i32),
    /// `payload`: bytes of a header (`enum nft_payload_bases`) into register 1.
    Payload { base: i32, offset: u32, length: u32 },
    /// `ct`: a property of the packet's connection (`enum nft_ct_keys`) into register 1.
    Connection(i32),
    /// `bitwise`: register 1 & mask, in the host's byte order.
    Mask(u32),
    /// `cmp`: go on only if register 1 is this (`NFT_CMP_EQ`) or is not (`NFT_CMP_NEQ`).
    Compare(i32, Vec<u8>),
    /// `immediate`: these bytes into a register.
    Immediate(u32, Vec<u8>),
    /// `immediate` into the verdict register.
    Verdict(u32),
    /// `nat`: translate to the address in register 1, and to the port in register 2 if there is one.
    Nat { kind: u32, family: u8, port: bool },
    /// `notrack`.
    Untrack,
    /// `counter`.
    Count,
}

impl Expression {
    const fn name(&self) -> &'static str {
        match self {
            Expression::Meta(_) => "meta",
            Expression::Payload { .. } => "payload",
            Expression::Connection(_) => "ct",
            Expression::Mask(_) => "bitwise",
            Expression::Compare(..) => "cmp",
            Expression::Immediate(..) | Expression::Verdict(_) => "immediate",
            Expression::Nat { .. } => "nat",
            Expression::Untrack => "notrack",
            Expression::Count => "counter",
        }
    }

    /// Writes the attributes of the expression; their numbers are those of `enum nft_<name>_attributes`.
    fn write(&self, to: &mut MessageWriter) {
        let number = MessageWriter::attribute_u32_be;
        let data = |to: &mut MessageWriter, kind: u16, value: &[u8]| to.nest(kind, |to| to.attribute(1, value));
        match self {
            Expression::Meta(key) | Expression::Connection(key) => {
                number(to, 1, NFT_REG_1);
                number(to, 2, *key as u32);
            }
            Expression::Payload { base, offset, length } => {
                number(to, 1, NFT_REG_1);
                number(to, 2, *base as u32);
                number(to, 3, *offset);
                number(to, 4, *length);
            }
            Expression::Mask(mask) => {
                number(to, 1, NFT_REG_1);
                number(to, 2, NFT_REG_1);
                number(to, 3, 4);
                data(to, 4, &mask.to_ne_bytes());
                data(to, 5, &[0; 4]);
            }
            Expression::Compare(operation, value) => {
                number(to, 1, NFT_REG_1);
                number(to, 2, *operation as u32);
                data(to, 3, value);
            }
            Expression::Immediate(register, value) => {
                number(to, 1, *register);
                data(to, 2, value);
            }
            Expression::Verdict(code) => {
                number(to, 1, NFT_REG_VERDICT);
                to.nest(2, |to| to.nest(2, |to| number(to, 1, *code)));
            }
            Expression::Nat { kind, family, port } => {
                number(to, 1, *kind);
                number(to, 2, u32::from(*family));
                number(to, 3, NFT_REG_1);
                if *port {
                    number(to, 5, NFT_REG_2);
                }
            }
            Expression::Untrack | Expression::Count => {}
        }
    }
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
        vec![
            Expression::Payload { base: libc::NFT_PAYLOAD_NETWORK_HEADER, offset, length },
            Expression::Compare(libc::NFT_CMP_EQ, octets(to.ip())),
            Expression::Meta(libc::NFT_META_L4PROTO),
            Expression::Compare(libc::NFT_CMP_EQ, vec![protocol]),
            Expression::Payload { base: libc::NFT_PAYLOAD_TRANSPORT_HEADER, offset: 2, length: 2 },
            Expression::Compare(libc::NFT_CMP_EQ, to.port().to_be_bytes().to_vec()),
        ]
    }

    pub(super) fn connection_has(key: i32, bits: u32) -> Vec<Expression> {
        vec![Expression::Connection(key), Expression::Mask(bits), Expression::Compare(libc::NFT_CMP_NEQ, vec![0; 4])]
    }

    pub(super) fn dnat(to: SocketAddr) -> Vec<Expression> {
        vec![
            Expression::Immediate(NFT_REG_1, octets(to.ip())),
            Expression::Immediate(NFT_REG_2, to.port().to_be_bytes().to_vec()),
            Expression::Nat { kind: NFT_NAT_DNAT, family: family(to.ip()), port: true },
        ]
    }

    pub(super) fn snat(to: IpAddr) -> Vec<Expression> {
        vec![
            Expression::Immediate(NFT_REG_1, octets(to)),
            Expression::Nat { kind: NFT_NAT_SNAT, family: family(to), port: false },
        ]
    }
}

/// All messages of one transaction. Each has a number and asks for an answer, so that a refusal can be named.
struct Batch {
    writer: MessageWriter,
    parts: Vec<String>,
    /// Of the table that is written at present.
    family: u8,
    /// Its name.
    table: &'static str,
}

impl Batch {
    fn begin() -> Self {
        let mut writer = MessageWriter::new();
        mark(&mut writer, libc::NFNL_MSG_BATCH_BEGIN);
        Batch { writer, parts: Vec::new(), family: libc::NFPROTO_IPV4 as u8, table: TABLE }
    }

    fn message(&mut self, kind: i32, flags: i32, part: String, body: impl FnOnce(&mut MessageWriter)) {
        let kind = (libc::NFNL_SUBSYS_NFTABLES << 8 | kind) as u16;
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | flags) as u16;
        self.parts.push(part);
        self.writer.begin(kind, flags, self.parts.len() as u32, self.family, 0);
        body(&mut self.writer);
        self.writer.end();
    }

    fn table(&mut self) {
        let table = self.table;
        self.message(libc::NFT_MSG_NEWTABLE, 0, format!("table {table}"), |to| {
            to.attribute_text(1, table); // NFTA_TABLE_NAME
        });
    }

    fn chain(&mut self, name: &str, kind: &str, hook: u32, priority: i32, policy: u32) {
        let table = self.table;
        self.message(libc::NFT_MSG_NEWCHAIN, 0, format!("chain {name}"), |to| {
            to.attribute_text(1, table); // NFTA_CHAIN_TABLE
            to.attribute_text(3, name); // NFTA_CHAIN_NAME
            to.nest(4, |to| {
                // NFTA_CHAIN_HOOK
                to.attribute_u32_be(1, hook);
                to.attribute(2, &priority.to_be_bytes());
            });
            to.attribute_u32_be(5, policy); // NFTA_CHAIN_POLICY
            to.attribute_text(7, kind); // NFTA_CHAIN_TYPE
        });
    }

    fn rule(&mut self, chain: &str, expressions: Vec<Expression>) {
        let table = self.table;
        self.message(libc::NFT_MSG_NEWRULE, libc::NLM_F_APPEND, format!("a rule of chain {chain}"), |to| {
            to.attribute_text(1, table); // NFTA_RULE_TABLE
            to.attribute_text(2, chain); // NFTA_RULE_CHAIN
            to.nest(4, |to| {
                // NFTA_RULE_EXPRESSIONS: a list of NFTA_LIST_ELEM, each NFTA_EXPR_NAME and NFTA_EXPR_DATA
                for expression in &expressions {
                    to.nest(1, |to| {
                        to.attribute_text(1, expression.name());
                        to.nest(2, |to| expression.write(to));
                    });
                }
            });
        });
    }

    fn chains_and_rules(&mut self, policy: &Policy, gateway: IpAddr) {
        let all = |parts: Vec<Vec<Expression>>| parts.into_iter().flatten().collect::<Vec<_>>();
        let drop_and_count = || vec![Expression::Count, Expression::Verdict(NF_DROP)];

        self.chain("untracked_in", "filter", hook::PREROUTING, priority::RAW, NF_ACCEPT);
        let from_sync = phrase::interface(libc::NFT_META_IIFNAME, policy.sync);
        self.rule("untracked_in", all(vec![from_sync, vec![Expression::Untrack]]));

        self.chain("untracked_out", "filter", hook::OUTPUT, priority::RAW, NF_ACCEPT);
        let to_sync = phrase::interface(libc::NFT_META_OIFNAME, policy.sync);
        self.rule("untracked_out", all(vec![to_sync, vec![Expression::Untrack]]));

        self.chain("invalid", "filter", hook::PREROUTING, priority::MANGLE, NF_ACCEPT);
        let invalid = phrase::connection_has(libc::NFT_CT_STATE, STATE_INVALID);
        self.rule("invalid", all(vec![invalid, drop_and_count()]));

        self.chain("services", "nat", hook::PREROUTING, priority::DSTNAT, NF_ACCEPT);
        let of_family = |service: &&(SocketAddr, SocketAddr)| service.0.is_ipv4() == gateway.is_ipv4();
        for (service, server) in policy.services.iter().filter(of_family) {
            for protocol in [protocol::TCP, protocol::UDP, protocol::SCTP] {
                self.rule("services", all(vec![phrase::destination(*service, protocol), phrase::dnat(*server)]));
            }
        }

        self.chain("gateway", "nat", hook::POSTROUTING, priority::SRCNAT, NF_ACCEPT);
        let to_servers = phrase::interface(libc::NFT_META_OIFNAME, policy.back);
        self.rule("gateway", all(vec![to_servers, phrase::snat(gateway)]));

        self.chain("forward", "filter", hook::FORWARD, priority::FILTER, NF_DROP);
        let translated = phrase::connection_has(libc::NFT_CT_STATUS, STATUS_DNAT);
        self.rule("forward", all(vec![translated, vec![Expression::Verdict(NF_ACCEPT)]]));
    }

    /// Sends everything and waits until each message is answered.
    fn commit(mut self) -> io::Result<()> {
        mark(&mut self.writer, libc::NFNL_MSG_BATCH_END);
        let mut socket = NetlinkSocket::open(libc::NETLINK_NETFILTER, RECEIVE_BUFFER)?;
        socket.send(self.writer.bytes())?;
        let mut answered = 0;
        while answered < self.parts.len() {
            let Some(datagram) = socket.receive().map_err(io::Error::other)? else {
                // The kernel answers a batch within the call that sends it.
                return Err(io::Error::new(io::ErrorKind::TimedOut, "nf_tables does not answer"));
            };
            for message in Messages::new(datagram) {
                let message = message.map_err(io::Error::other)?;
                match message.error_code() {
                    Some(0) => answered += 1,
                    Some(code) => return Err(self.refusal(message.sequence, code)),
                    None => {}
                }
            }
        }
        Ok(())
    }

    /// The kernel's refusal of one message, with what that message was about.
    fn refusal(&self, sequence: u32, code: i32) -> io::Error {
        let part = (sequence as usize).checked_sub(1).and_then(|index| self.parts.get(index));
        let error = io::Error::from_raw_os_error(code);
        io::Error::new(error.kind(), format!("nf_tables refuses {}: {error}", part.map_or("the batch", String::as_str)))
    }
}

/// Room for the kernel's answers to one batch.
const RECEIVE_BUFFER: usize = 256 * 1024;

/// The message that opens or closes a batch.
fn mark(writer: &mut MessageWriter, kind: i32) {
    let subsystem = libc::NFNL_SUBSYS_NFTABLES as u16;
    writer.begin(kind as u16, libc::NLM_F_REQUEST as u16, 0, libc::AF_UNSPEC as u8, subsystem);
    writer.end();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_part_that_was_refused() {
        let mut batch = Batch::begin();
        batch.table();
        batch.chain("forward", "filter", hook::FORWARD, priority::FILTER, NF_DROP);
        let error = batch.refusal(2, libc::EEXIST);
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(error.to_string(), "nf_tables refuses chain forward: File exists (os error 17)");
        assert_eq!(batch.refusal(0, libc::EPERM).kind(), io::ErrorKind::PermissionDenied);
        assert!(batch.refusal(9, libc::EPERM).to_string().starts_with("nf_tables refuses the batch: "));
    }
}
