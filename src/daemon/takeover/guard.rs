//! The guard: while the state is not here, nobody is told "there is no such connection".
//!
//! A packet of a live connection that reaches a kernel without its entry is answered by a RST or an ICMP error, or begins an
//! entry of its own that leads to another server. So until this node is master and its kernel has the table, unknown
//! connections of the addresses do not exist:
//!
//! ```text
//!   table inet ssyncp_guard_51 {                                        owned by our socket (NFT_TABLE_F_OWNER)
//!       in   prerouting mangle    not new, not invalid: accept          behind conntrack, before any translation
//!                                 to one of the addresses: drop
//!       out  output mangle        from one of the addresses: TCP RST, ICMP unreachable: drop
//!   }
//! ```
//!
//! A sender whose packet was dropped sends it again; one that was reset is gone. Packets of connections that the kernel knows
//! pass. A guard that outlived its guardian would keep the addresses shut for ever: so the table belongs to the socket, and
//! goes with the process, whatever it died of.

use crate::sys::netlink::NetlinkSocket;
use crate::sys::nftables::{
    Batch, Expression, FAMILY_INET, NF_ACCEPT, NF_DROP, STATE_INVALID, STATE_NEW, TABLE_OWNER, family, hook, octets,
    priority,
};
use std::io;
use std::net::IpAddr;

/// The guard of one group's addresses.
#[derive(Debug)]
pub struct Guard {
    table: String,
    /// Owner of the table, while there is one.
    socket: Option<NetlinkSocket>,
    /// What is protected at present.
    shut: Vec<IpAddr>,
}

impl Guard {
    /// A guard that lets everything pass, in the network namespace of the threads that will use it.
    pub fn new(sync_id: u8) -> Self {
        Guard { table: format!("ssyncp_guard_{sync_id}"), socket: None, shut: Vec::new() }
    }

    /// Drops what is described above for these addresses, and no others; nothing is done if that is so already.
    ///
    /// # Errors
    /// The operating system's error, with its cure; everything passes then.
    pub fn shut(&mut self, addresses: Vec<IpAddr>) -> io::Result<()> {
        if self.shut == addresses {
            return Ok(());
        }
        self.shut.clear();
        let mut batch = Batch::begin(&self.table, FAMILY_INET);
        // What goes wrong from here on closes the socket, and so ends the table.
        let mut socket = match self.socket.take() {
            None => Batch::socket()?,
            Some(socket) => {
                batch.remove_table();
                socket
            }
        };
        write_table(&mut batch, &addresses);
        batch.commit(&mut socket).map_err(|error| cure(&error))?;
        (self.socket, self.shut) = (Some(socket), addresses);
        Ok(())
    }

    /// Lets everything pass, at once: the empty table stays until [`Guard::clear_away`], because the kernel takes 15 ms to
    /// unhook it.
    pub fn lift(&mut self) {
        if self.shut.is_empty() {
            return;
        }
        self.shut.clear();
        let mut batch = Batch::begin(&self.table, FAMILY_INET);
        batch.remove_rules();
        if !self.commit(batch) {
            self.clear_away();
        }
    }

    /// Removes what a lifted guard left.
    pub fn clear_away(&mut self) {
        if self.shut.is_empty() && self.socket.is_some() {
            let mut batch = Batch::begin(&self.table, FAMILY_INET);
            batch.remove_table();
            self.commit(batch);
            // It goes all the same, with its owner.
            self.socket = None;
        }
    }

    fn commit(&mut self, batch: Batch) -> bool {
        let Some(socket) = &mut self.socket else { return false };
        let committed = batch.commit(socket);
        if let Err(error) = &committed {
            tracing::debug!("table {}: {error}", self.table);
        }
        committed.is_ok()
    }
}

fn cure(error: &io::Error) -> io::Error {
    let text = format!(
        "{error}; the guard needs nf_tables (`modprobe nf_tables`) of Linux 5.12 or later; without it remove guard = true"
    );
    io::Error::new(error.kind(), text)
}

fn write_table(batch: &mut Batch, addresses: &[IpAddr]) {
    batch.table(TABLE_OWNER);
    batch.chain("in", "filter", hook::PREROUTING, priority::MANGLE, NF_ACCEPT);
    batch.chain("out", "filter", hook::OUTPUT, priority::MANGLE, NF_ACCEPT);
    let known = [
        Expression::Connection(libc::NFT_CT_STATE),
        Expression::Mask((STATE_NEW | STATE_INVALID).to_ne_bytes().to_vec()),
        Expression::Compare(libc::NFT_CMP_EQ, vec![0; 4]),
        Expression::Verdict(NF_ACCEPT),
    ];
    batch.rule("in", &known);
    for address in addresses {
        batch.rule("in", &rule(&is(*address, 16, 24), &[]));
        let from = is(*address, 12, 8);
        batch.rule("out", &rule(&from, &reset()));
        batch.rule("out", &rule(&from, &unreachable(*address)));
    }
}

/// Drops and counts what meets both.
fn rule(first: &[Expression], second: &[Expression]) -> Vec<Expression> {
    [first, second, &[Expression::Count, Expression::Verdict(NF_DROP)]].concat()
}

/// The address stands at this offset of an IPv4 header, or at that of an IPv6 header.
fn is(address: IpAddr, offset4: u32, offset6: u32) -> Vec<Expression> {
    let (offset, length) = if address.is_ipv4() { (offset4, 4) } else { (offset6, 16) };
    vec![
        Expression::Meta(libc::NFT_META_NFPROTO),
        Expression::Compare(libc::NFT_CMP_EQ, vec![family(address)]),
        Expression::Payload { base: libc::NFT_PAYLOAD_NETWORK_HEADER, offset, length },
        Expression::Compare(libc::NFT_CMP_EQ, octets(address)),
    ]
}

/// TCP with the flag RST (RFC 9293 section 3.1).
fn reset() -> Vec<Expression> {
    const RST: u8 = 0x04;
    vec![
        Expression::Meta(libc::NFT_META_L4PROTO),
        Expression::Compare(libc::NFT_CMP_EQ, vec![libc::IPPROTO_TCP as u8]),
        Expression::Payload { base: libc::NFT_PAYLOAD_TRANSPORT_HEADER, offset: 13, length: 1 },
        Expression::Mask(vec![RST]),
        Expression::Compare(libc::NFT_CMP_NEQ, vec![0]),
    ]
}

/// Destination Unreachable: type 3 of ICMP (RFC 792), type 1 of ICMPv6 (RFC 4443 section 3.1).
fn unreachable(address: IpAddr) -> Vec<Expression> {
    let (protocol, kind) = if address.is_ipv4() { (libc::IPPROTO_ICMP, 3) } else { (libc::IPPROTO_ICMPV6, 1) };
    vec![
        Expression::Meta(libc::NFT_META_L4PROTO),
        Expression::Compare(libc::NFT_CMP_EQ, vec![protocol as u8]),
        Expression::Payload { base: libc::NFT_PAYLOAD_TRANSPORT_HEADER, offset: 0, length: 1 },
        Expression::Compare(libc::NFT_CMP_EQ, vec![kind]),
    ]
}
