//! Rules of nf_tables, spoken to the kernel directly: no program `nft` is needed, and a set of rules is one transaction.
//!
//! ```text
//!   batch begin │ table │ chain │ rule │ rule │ … │ batch end        the kernel takes all of it or nothing
//!
//!   a rule is a list of expressions on registers (linux/netfilter/nf_tables.h):
//!   load something, compare it (no match: the rule ends), do something
//! ```

use super::netlink::{MessageWriter, Messages, NetlinkSocket};
use std::io;
use std::net::IpAddr;

/// `enum nf_inet_hooks`, linux/netfilter.h.
pub mod hook {
    /// What comes in, before it is routed.
    pub const PREROUTING: u32 = 0;
    /// What passes through.
    pub const FORWARD: u32 = 2;
    /// What the machine itself sends.
    pub const OUTPUT: u32 = 3;
    /// What goes out, after it was routed.
    pub const POSTROUTING: u32 = 4;
}

/// `enum nf_ip_hook_priorities`, linux/netfilter_ipv4.h.
pub mod priority {
    /// Before connections are tracked.
    pub const RAW: i32 = -300;
    /// Behind that, and before any translation.
    pub const MANGLE: i32 = -150;
    /// Where destinations are translated.
    pub const DSTNAT: i32 = -100;
    /// Where packets are let through or not.
    pub const FILTER: i32 = 0;
    /// Where sources are translated.
    pub const SRCNAT: i32 = 100;
}

/// The packet goes no further.
pub const NF_DROP: u32 = 0;
/// The packet goes on behind this chain.
pub const NF_ACCEPT: u32 = 1;
/// Registers for values of up to 16 bytes.
pub const REGISTER_1: u32 = 1;
/// The second one.
pub const REGISTER_2: u32 = 2;
/// `NF_CT_STATE_INVALID_BIT`, linux/netfilter/nf_conntrack_common.h.
pub const STATE_INVALID: u32 = 1;
/// `NF_CT_STATE_BIT(IP_CT_NEW)`, the same.
pub const STATE_NEW: u32 = 1 << 3;
/// `NFT_TABLE_F_OWNER`: the table goes when the socket that made it is closed, whatever its process died of (Linux 5.12).
pub const TABLE_OWNER: u32 = 2;
/// The family of tables for both, IPv4 and IPv6.
pub const FAMILY_INET: u8 = libc::NFPROTO_INET as u8;
/// `NFT_NAT_SNAT`: the source is translated.
pub const NAT_SOURCE: u32 = 0;
/// `NFT_NAT_DNAT`: the destination is.
pub const NAT_DESTINATION: u32 = 1;

const REGISTER_VERDICT: u32 = 0;
/// Room for the kernel's answers to one batch.
const RECEIVE_BUFFER: usize = 1 << 20;

/// The protocol family of an address, as nf_tables numbers it.
pub fn family(address: IpAddr) -> u8 {
    let family = if address.is_ipv4() { libc::NFPROTO_IPV4 } else { libc::NFPROTO_IPV6 };
    family as u8
}

/// An address as it stands in a packet.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// A step of a rule. Numbers are those of the kernel's headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    /// `meta`: a property of the packet (`enum nft_meta_keys`) into register 1.
    Meta(i32),
    /// `payload`: bytes of a header (`enum nft_payload_bases`) into register 1.
    Payload {
        /// Which header.
        base: i32,
        /// Where in it, in bytes.
        offset: u32,
        /// How many bytes, 1 to 16.
        length: u32,
    },
    /// `ct`: a property of the packet's connection (`enum nft_ct_keys`) into register 1.
    Connection(i32),
    /// `bitwise`: register 1 & mask, as long as the mask.
    Mask(Vec<u8>),
    /// `cmp`: go on only if register 1 is this (`NFT_CMP_EQ`) or is not (`NFT_CMP_NEQ`).
    Compare(i32, Vec<u8>),
    /// `immediate`: these bytes into a register.
    Immediate(u32, Vec<u8>),
    /// `immediate` into the verdict register.
    Verdict(u32),
    /// `nat`: translate to the address in register 1, and to the port in register 2 if there is one.
    Nat {
        /// [`NAT_SOURCE`] or [`NAT_DESTINATION`].
        kind: u32,
        /// As [`family`] says it.
        family: u8,
        /// Whether there is a port.
        port: bool,
    },
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
                number(to, 1, REGISTER_1);
                number(to, 2, *key as u32);
            }
            Expression::Payload { base, offset, length } => {
                number(to, 1, REGISTER_1);
                number(to, 2, *base as u32);
                number(to, 3, *offset);
                number(to, 4, *length);
            }
            Expression::Mask(mask) => {
                number(to, 1, REGISTER_1);
                number(to, 2, REGISTER_1);
                number(to, 3, mask.len() as u32);
                data(to, 4, mask);
                data(to, 5, &vec![0; mask.len()]);
            }
            Expression::Compare(operation, value) => {
                number(to, 1, REGISTER_1);
                number(to, 2, *operation as u32);
                data(to, 3, value);
            }
            Expression::Immediate(register, value) => {
                number(to, 1, *register);
                data(to, 2, value);
            }
            Expression::Verdict(code) => {
                number(to, 1, REGISTER_VERDICT);
                to.nest(2, |to| to.nest(2, |to| number(to, 1, *code)));
            }
            Expression::Nat { kind, family, port } => {
                number(to, 1, *kind);
                number(to, 2, u32::from(*family));
                number(to, 3, REGISTER_1);
                if *port {
                    number(to, 5, REGISTER_2);
                }
            }
            Expression::Untrack | Expression::Count => {}
        }
    }
}

/// All messages of one transaction about one table. Each has a number and asks for an answer, so that a refusal can be named.
#[derive(Debug)]
pub struct Batch {
    writer: MessageWriter,
    parts: Vec<String>,
    table: String,
    family: u8,
}

impl Batch {
    /// An empty transaction about the table of this name in this family.
    pub fn begin(table: &str, family: u8) -> Self {
        let mut writer = MessageWriter::new();
        mark(&mut writer, libc::NFNL_MSG_BATCH_BEGIN);
        Batch { writer, parts: Vec::new(), table: table.to_owned(), family }
    }

    /// What follows is about the table of the same name in another family.
    pub fn set_family(&mut self, family: u8) {
        self.family = family;
    }

    /// Makes the table, if it is not there; flags as [`TABLE_OWNER`].
    pub fn table(&mut self, flags: u32) {
        let name = self.table.clone();
        self.message(libc::NFT_MSG_NEWTABLE, libc::NLM_F_CREATE, format!("table {name}"), |to| {
            to.attribute_text(1, &name); // NFTA_TABLE_NAME
            if flags != 0 {
                to.attribute_u32_be(2, flags); // NFTA_TABLE_FLAGS
            }
        });
    }

    /// Removes the table with everything in it.
    pub fn remove_table(&mut self) {
        let name = self.table.clone();
        self.message(libc::NFT_MSG_DELTABLE, 0, format!("the end of table {name}"), |to| {
            to.attribute_text(1, &name); // NFTA_TABLE_NAME
        });
    }

    /// Removes every rule of the table, and leaves its chains.
    pub fn remove_rules(&mut self) {
        let name = self.table.clone();
        self.message(libc::NFT_MSG_DELRULE, 0, format!("the end of all rules of table {name}"), |to| {
            to.attribute_text(1, &name); // NFTA_RULE_TABLE
        });
    }

    /// A chain at a hook; `kind` is `filter` or `nat`, `policy` what happens to who gets to its end.
    pub fn chain(&mut self, name: &str, kind: &str, hook: u32, priority: i32, policy: u32) {
        let table = self.table.clone();
        self.message(libc::NFT_MSG_NEWCHAIN, libc::NLM_F_CREATE, format!("chain {name}"), |to| {
            to.attribute_text(1, &table); // NFTA_CHAIN_TABLE
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

    /// A rule at the end of a chain.
    pub fn rule(&mut self, chain: &str, expressions: &[Expression]) {
        let (table, flags) = (self.table.clone(), libc::NLM_F_CREATE | libc::NLM_F_APPEND);
        self.message(libc::NFT_MSG_NEWRULE, flags, format!("a rule of chain {chain}"), |to| {
            to.attribute_text(1, &table); // NFTA_RULE_TABLE
            to.attribute_text(2, chain); // NFTA_RULE_CHAIN
            to.nest(4, |to| {
                // NFTA_RULE_EXPRESSIONS: a list of NFTA_LIST_ELEM, each NFTA_EXPR_NAME and NFTA_EXPR_DATA
                for expression in expressions {
                    to.nest(1, |to| {
                        to.attribute_text(1, expression.name());
                        to.nest(2, |to| expression.write(to));
                    });
                }
            });
        });
    }

    /// A socket that batches can be sent by.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn socket() -> io::Result<NetlinkSocket> {
        let socket = NetlinkSocket::open(libc::NETLINK_NETFILTER, RECEIVE_BUFFER)?;
        // A batch is one datagram.
        socket.raise_send_buffer(RECEIVE_BUFFER);
        Ok(socket)
    }

    /// Sends everything and waits until each message is answered.
    ///
    /// # Errors
    /// The operating system's error; the kernel's refusal names the part that it refused.
    pub fn commit(mut self, socket: &mut NetlinkSocket) -> io::Result<()> {
        mark(&mut self.writer, libc::NFNL_MSG_BATCH_END);
        socket.send(self.writer.bytes())?;
        let (mut answered, mut refusal) = (0, None);
        while answered < self.parts.len() {
            let Some(datagram) = socket.receive().map_err(io::Error::other)? else {
                // The kernel answers a batch within the call that sends it; of one that it refuses it answers a part.
                let silence = || io::Error::new(io::ErrorKind::TimedOut, "nf_tables does not answer");
                return Err(refusal.unwrap_or_else(silence));
            };
            for message in Messages::new(datagram) {
                let message = message.map_err(io::Error::other)?;
                match message.error_code() {
                    Some(0) => answered += 1,
                    Some(code) => {
                        answered += 1;
                        refusal.get_or_insert(self.refusal(message.sequence, code));
                    }
                    None => {}
                }
            }
        }
        refusal.map_or(Ok(()), Err)
    }

    fn message(&mut self, kind: i32, flags: i32, part: String, body: impl FnOnce(&mut MessageWriter)) {
        let kind = (libc::NFNL_SUBSYS_NFTABLES << 8 | kind) as u16;
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags) as u16;
        self.parts.push(part);
        self.writer.begin(kind, flags, self.parts.len() as u32, self.family, 0);
        body(&mut self.writer);
        self.writer.end();
    }

    /// The kernel's refusal of one message, with what that message was about.
    fn refusal(&self, sequence: u32, code: i32) -> io::Error {
        let part = (sequence as usize).checked_sub(1).and_then(|index| self.parts.get(index));
        let error = io::Error::from_raw_os_error(code);
        io::Error::new(error.kind(), format!("nf_tables refuses {}: {error}", part.map_or("the batch", String::as_str)))
    }
}

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
        let mut batch = Batch::begin("ssyncp_test", FAMILY_INET);
        batch.table(0);
        batch.chain("forward", "filter", hook::FORWARD, priority::FILTER, NF_DROP);
        let error = batch.refusal(2, libc::EEXIST);
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(error.to_string(), "nf_tables refuses chain forward: File exists (os error 17)");
        assert_eq!(batch.refusal(0, libc::EPERM).kind(), io::ErrorKind::PermissionDenied);
        assert!(batch.refusal(9, libc::EPERM).to_string().starts_with("nf_tables refuses the batch: "));
    }
}
