//! A connection as IPVS knows it, and what it is as a flow.
//!
//! ```text
//!   client ────────▶ service (virtual address) ────────▶ server (real server)
//!   caddr:cport      vaddr:vport                         daddr:dport
//!
//!   as a flow: source = client, destination = service; with masquerading replies come from the server, else straight
//!   from the virtual address
//! ```

use super::{Skipped, state};
use crate::flow::{Endpoint, Flow, FlowKey, Zone, protocol, status};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One connection, or the template that makes a client's later connections go to the same server.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Connection<'a> {
    /// IANA protocol number; 0 in a template of a firewall-mark service.
    pub protocol: u8,
    /// Who connects; port 0 in a template.
    pub client: Endpoint,
    /// What it connects to: the virtual service. In a template of a firewall-mark service the mark stands as its address.
    pub service: Endpoint,
    /// Who serves it: the real server.
    pub server: Endpoint,
    /// `IP_VS_CONN_F_*`, as sent.
    pub flags: ConnectionFlags,
    /// State of the protocol, see [`state`]; of a template 0 or 1 (assured).
    pub state: u16,
    /// Firewall mark of its packets; 0 is none, and all that version 0 can say.
    pub firewall_mark: u32,
    /// Full time-out of its state in seconds; `None` where the sender leaves it to the receiver.
    pub timeout: Option<u32>,
    /// Shifts of TCP's sequence numbers, if an application helper has changed lengths.
    pub sequences: Option<Sequences>,
    /// Name of the persistence engine (`sip`); empty if there is none.
    pub engine: &'a [u8],
    /// What the engine recognises the client by (SIP's Call-ID).
    pub engine_data: &'a [u8],
}

impl Connection<'_> {
    /// Seconds until the receiver forgets it if nothing refreshes it: what the sender says, or else what the kernel takes.
    pub fn timeout_s(&self) -> u32 {
        self.timeout.unwrap_or_else(|| match self.flags.is_template() {
            true => state::UNKNOWN_TIMEOUT,
            false => state::default_timeout(self.protocol, self.state).unwrap_or(state::UNKNOWN_TIMEOUT),
        })
    }

    /// The connection as conntrack would hold it; `None` for a template, which is no connection. What conntrack knows and
    /// IPVS does not (window scales, zone) is left at its default.
    pub fn flow(&self) -> Option<Flow> {
        if self.flags.is_template() {
            return None;
        }
        let key = FlowKey {
            source: self.client.address,
            destination: self.service.address,
            source_port: self.client.port,
            destination_port: self.service.port,
            protocol: self.protocol,
            zone: Zone::DEFAULT,
        };
        let masquerades = self.flags.forwarding() == Forwarding::Masquerade;
        let translated = if masquerades { status::DST_NAT | status::DST_NAT_DONE } else { 0 };
        let opening = self.protocol == protocol::TCP && state::is_opening(self.state);
        let answered = if opening { 0 } else { status::SEEN_REPLY | status::ASSURED };
        let flow = Flow {
            reply_source: masquerades.then_some(self.server),
            state: if self.protocol == protocol::TCP { state::to_conntrack(self.state) } else { 0 },
            status: status::CONFIRMED | answered | translated,
            timeout: self.timeout_s(),
            mark: self.firewall_mark,
            ..Flow::new(key)
        };
        Some(flow.canonical())
    }
}

/// `IP_VS_CONN_F_*` of linux/ip_vs.h.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct ConnectionFlags(pub u32);

/// How packets reach the real server: the low three bits of the flags.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Forwarding {
    /// Destination NAT.
    Masquerade,
    /// The director itself serves.
    Local,
    /// In an IP tunnel.
    Tunnel,
    /// Direct routing: only the hardware address changes.
    Direct,
    /// Past IPVS, to the original destination.
    Bypass,
    /// A number that Linux does not use.
    Unknown,
}

impl ConnectionFlags {
    /// Entry created by sync.
    pub const SYNC: u32 = 0x0020;
    /// In the hash table.
    pub const HASHED: u32 = 0x0040;
    /// Replies do not pass the director.
    pub const NO_OUTPUT: u32 = 0x0080;
    /// Not established.
    pub const INACTIVE: u32 = 0x0100;
    /// Outgoing sequence numbers are shifted.
    pub const OUT_SEQ: u32 = 0x0200;
    /// Incoming sequence numbers are shifted.
    pub const IN_SEQ: u32 = 0x0400;
    /// The client's port is not known yet.
    pub const NO_CLIENT_PORT: u32 = 0x0800;
    /// A template.
    pub const TEMPLATE: u32 = 0x1000;
    /// Forgotten after one packet.
    pub const ONE_PACKET: u32 = 0x2000;

    const FORWARDING: u32 = 0x0007;
    const NAMES: [(u32, &str); 9] = [
        (Self::SYNC, "sync"),
        (Self::HASHED, "hashed"),
        (Self::NO_OUTPUT, "no_output"),
        (Self::INACTIVE, "inactive"),
        (Self::OUT_SEQ, "out_seq"),
        (Self::IN_SEQ, "in_seq"),
        (Self::NO_CLIENT_PORT, "no_client_port"),
        (Self::TEMPLATE, "template"),
        (Self::ONE_PACKET, "one_packet"),
    ];

    /// Whether this is a template and no connection.
    pub const fn is_template(self) -> bool {
        self.0 & Self::TEMPLATE != 0
    }

    /// Whether sequence words belong to it (`IP_VS_CONN_F_SEQ_MASK`).
    pub const fn has_sequences(self) -> bool {
        self.0 & (Self::OUT_SEQ | Self::IN_SEQ) != 0
    }

    /// How packets reach the real server.
    pub const fn forwarding(self) -> Forwarding {
        match self.0 & Self::FORWARDING {
            0 => Forwarding::Masquerade,
            1 => Forwarding::Local,
            2 => Forwarding::Tunnel,
            3 => Forwarding::Direct,
            4 => Forwarding::Bypass,
            _ => Forwarding::Unknown,
        }
    }

    /// The words of all bits that have one.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(bit, _)| self.0 & bit != 0).map(|(_, name)| name)
    }
}

impl Forwarding {
    /// The word that ipvsadm uses, in small letters.
    pub const fn name(self) -> &'static str {
        match self {
            Forwarding::Masquerade => "masq",
            Forwarding::Local => "local",
            Forwarding::Tunnel => "tunnel",
            Forwarding::Direct => "route",
            Forwarding::Bypass => "bypass",
            Forwarding::Unknown => "unknown",
        }
    }
}

/// `struct ip_vs_seq`: how one direction's sequence numbers are shifted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Sequence {
    /// Sequence number from which on `delta` holds.
    pub initial: u32,
    /// Added to numbers from `initial` on.
    pub delta: u32,
    /// Added to numbers before it.
    pub previous_delta: u32,
}

/// Both directions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Sequences {
    /// From the client.
    pub incoming: Sequence,
    /// From the server.
    pub outgoing: Sequence,
}

/// The record as the kernel takes it, or why it steps over it (`ip_vs_proc_sync_conn`).
pub(super) fn checked(mut connection: Connection<'_>) -> Result<Connection<'_>, Skipped> {
    if connection.flags.is_template() {
        // The protocol of a template is not looked at, and a state that templates do not have is none.
        if connection.state > state::TEMPLATE_ASSURED {
            connection.state = 0;
        }
    } else {
        let states = state::count(connection.protocol).ok_or(Skipped::UnknownProtocol)?;
        if connection.state >= states {
            return Err(Skipped::UnknownState);
        }
    }
    if !connection.engine_data.is_empty() && connection.engine.is_empty() {
        return Err(Skipped::EngineMissing);
    }
    Ok(connection)
}

pub(super) fn ipv4(octets: [u8; 4]) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(octets))
}

pub(super) fn ipv6(octets: [u8; 16]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> Connection<'static> {
        let endpoint = |last, port| Endpoint { address: ipv4([10, 0, 0, last]), port };
        Connection {
            protocol: protocol::TCP,
            client: endpoint(1, 40000),
            service: endpoint(2, 80),
            server: endpoint(3, 8080),
            flags: ConnectionFlags(0),
            state: 1,
            firewall_mark: 9,
            timeout: None,
            sequences: None,
            engine: &[],
            engine_data: &[],
        }
    }

    #[test]
    fn only_masquerading_makes_replies_come_from_the_server() {
        let flow = connection().flow().unwrap();
        assert_eq!(flow.key.to_string(), "tcp 10.0.0.1:40000 -> 10.0.0.2:80");
        assert_eq!(flow.reply_source, Some(Endpoint { address: ipv4([10, 0, 0, 3]), port: 8080 }));
        assert_eq!((flow.state, flow.timeout, flow.mark), (3, 900, 9));
        assert_eq!(flow.status, 0b1_0010_1110, "seen reply, assured, confirmed, DNAT and done");
        for flags in 1..=4 {
            let direct = Connection { flags: ConnectionFlags(flags), ..connection() }.flow().unwrap();
            assert_eq!((direct.reply_source, direct.status), (None, 0b1110));
        }
    }

    #[test]
    fn a_connection_that_still_opens_has_seen_no_reply() {
        let opening = Connection { state: 2, ..connection() }.flow().unwrap();
        assert_eq!((opening.state, opening.timeout), (1, 120));
        assert_eq!(opening.status & (status::SEEN_REPLY | status::ASSURED), 0);
    }

    #[test]
    fn a_template_is_no_flow() {
        let template = Connection { flags: ConnectionFlags(0x1100), state: 1, ..connection() };
        assert_eq!(template.flow(), None);
        assert_eq!(template.timeout_s(), 180);
        assert_eq!(Connection { timeout: Some(300), ..template }.timeout_s(), 300);
        assert_eq!(template.flags.names().collect::<Vec<_>>(), ["inactive", "template"]);
    }

    #[test]
    fn forwarding_is_told_by_its_number() {
        let names = |flags| ConnectionFlags(flags).forwarding().name();
        assert_eq!([0x80, 0x81, 2, 3, 4, 7].map(names), ["masq", "local", "tunnel", "route", "bypass", "unknown"]);
    }
}
