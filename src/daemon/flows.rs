//! Flows as they are shown: which ones are wanted, and how one is written as JSON.

use crate::flow::{Flow, FlowKey, protocol};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Flows that one answer holds unless the caller sets a limit.
pub const LIMIT_DEFAULT: usize = 1000;
/// Flows that one answer holds at most: the largest table.
pub const LIMIT_MAX: usize = 1 << 28;

/// Which flows are wanted; what is `None` does not matter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FlowFilter {
    /// IANA protocol number.
    pub protocol: Option<u8>,
    /// Original source address.
    pub source: Option<IpAddr>,
    /// Original destination address.
    pub destination: Option<IpAddr>,
    /// Original source or destination port.
    pub port: Option<u16>,
}

impl FlowFilter {
    /// Whether a flow is wanted.
    pub fn matches(&self, key: &FlowKey) -> bool {
        self.protocol.is_none_or(|protocol| protocol == key.protocol)
            && self.source.is_none_or(|source| source == key.source)
            && self.destination.is_none_or(|destination| destination == key.destination)
            && self.port.is_none_or(|port| port == key.source_port || port == key.destination_port)
    }
}

/// The number of a protocol that is named or numbered.
pub fn protocol_number(word: &str) -> Option<u8> {
    match word {
        "tcp" => Some(protocol::TCP),
        "udp" => Some(protocol::UDP),
        "icmp" => Some(protocol::ICMP),
        number => number.parse().ok(),
    }
}

/// One flow as JSON shows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct FlowRow {
    /// The group whose table it is in.
    pub sync_id: u8,
    /// IANA protocol number.
    pub protocol: u8,
    /// Original source address.
    pub source: IpAddr,
    /// Original source port; the identifier for ICMP.
    pub source_port: u16,
    /// Original destination address.
    pub destination: IpAddr,
    /// Original destination port; `type << 8 | code` for ICMP.
    pub destination_port: u16,
    /// Where replies come from.
    pub reply_source: IpAddr,
    /// Port of that.
    pub reply_source_port: u16,
    /// Where replies go to.
    pub reply_destination: IpAddr,
    /// Port of that.
    pub reply_destination_port: u16,
    /// State of the protocol, `enum tcp_conntrack` for TCP.
    pub state: u8,
    /// The state's name as conntrack shows it; null where the protocol has none.
    pub state_name: Option<String>,
    /// Conntrack status bits.
    pub status: u16,
    /// Seconds left to live.
    pub timeout_s: u32,
    /// Connection mark.
    pub mark: u32,
    /// Conntrack zone.
    pub zone: u16,
}

/// `enum tcp_conntrack` of linux/netfilter/nf_conntrack_tcp.h, as conntrack(8) names the states.
const TCP_STATES: [&str; 10] = [
    "NONE",
    "SYN_SENT",
    "SYN_RECV",
    "ESTABLISHED",
    "FIN_WAIT",
    "CLOSE_WAIT",
    "LAST_ACK",
    "TIME_WAIT",
    "CLOSE",
    "SYN_SENT2",
];

impl FlowRow {
    /// A flow of the table `sync_id`.
    pub fn new(sync_id: u8, flow: &Flow) -> Self {
        let key = &flow.key;
        let (from, to) = (flow.replies_from(), flow.replies_to());
        let state_name = match key.protocol {
            protocol::TCP => TCP_STATES.get(usize::from(flow.state)).map(|name| (*name).to_owned()),
            _ => None,
        };
        FlowRow {
            sync_id,
            protocol: key.protocol,
            source: key.source,
            source_port: key.source_port,
            destination: key.destination,
            destination_port: key.destination_port,
            reply_source: from.address,
            reply_source_port: from.port,
            reply_destination: to.address,
            reply_destination_port: to.port,
            state: flow.state,
            state_name,
            status: flow.status,
            timeout_s: flow.timeout,
            mark: flow.mark,
            zone: key.zone.id,
        }
    }

    /// One line, as `conntrack -L` writes it.
    pub fn line(&self) -> String {
        let name = match self.protocol {
            protocol::TCP => "tcp",
            protocol::UDP => "udp",
            protocol::ICMP => "icmp",
            _ => "unknown",
        };
        let state = self.state_name.as_deref().map(|state| format!("{state} ")).unwrap_or_default();
        let mut line = format!("{name:<8} {} {} {state}", self.protocol, self.timeout_s);
        let sides = [
            (self.source, self.destination, self.source_port, self.destination_port),
            (self.reply_source, self.reply_destination, self.reply_source_port, self.reply_destination_port),
        ];
        for (number, (source, destination, source_port, destination_port)) in sides.into_iter().enumerate() {
            line += &format!("src={source} dst={destination} ");
            match (self.protocol, number) {
                (protocol::ICMP, 0) => {
                    let (kind, code) = (destination_port >> 8, destination_port & 0xff);
                    line += &format!("type={kind} code={code} id={source_port} ");
                }
                (protocol::ICMP, _) => line += &format!("id={destination_port} "),
                (protocol::TCP | protocol::UDP, _) => line += &format!("sport={source_port} dport={destination_port} "),
                _ => {}
            }
        }
        if self.status & crate::flow::status::ASSURED != 0 {
            line += "[ASSURED] ";
        }
        line += &format!("mark={}", self.mark);
        if self.zone != 0 {
            line += &format!(" zone={}", self.zone);
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Endpoint, Zone, status};
    use std::net::Ipv4Addr;

    fn flow() -> Flow {
        let key = FlowKey {
            source: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
            destination: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)),
            source_port: 40000,
            destination_port: 80,
            protocol: protocol::TCP,
            zone: Zone::DEFAULT,
        };
        let reply_source = Some(Endpoint { address: IpAddr::V4(Ipv4Addr::new(10, 9, 9, 9)), port: 8080 });
        Flow { reply_source, state: 3, status: status::ASSURED, timeout: 431_999, mark: 7, ..Flow::new(key) }
    }

    #[test]
    fn a_line_reads_as_conntrack_writes_it() {
        assert_eq!(
            FlowRow::new(51, &flow()).line(),
            "tcp      6 431999 ESTABLISHED src=10.0.0.1 dst=192.0.2.10 sport=40000 dport=80 \
             src=10.9.9.9 dst=10.0.0.1 sport=8080 dport=40000 [ASSURED] mark=7"
        );
    }

    #[test]
    fn an_echo_shows_type_code_and_identifier() {
        let mut echo = flow();
        echo.key = FlowKey { protocol: protocol::ICMP, source_port: 5, destination_port: 8 << 8, ..echo.key };
        let echo = Flow { reply_source: None, state: 0, status: 0, ..echo };
        assert_eq!(
            FlowRow::new(51, &echo).line(),
            "icmp     1 431999 src=10.0.0.1 dst=192.0.2.10 type=8 code=0 id=5 src=192.0.2.10 dst=10.0.0.1 id=5 mark=7"
        );
    }

    #[test]
    fn a_filter_wants_what_it_names_and_nothing_else() {
        let key = flow().key;
        let all = FlowFilter::default();
        assert!(all.matches(&key));
        assert!(FlowFilter { port: Some(80), ..all }.matches(&key));
        assert!(FlowFilter { port: Some(40000), ..all }.matches(&key));
        assert!(!FlowFilter { port: Some(81), ..all }.matches(&key));
        assert!(!FlowFilter { protocol: Some(17), ..all }.matches(&key));
        assert!(FlowFilter { protocol: Some(6), source: Some(key.source), ..all }.matches(&key));
        assert!(!FlowFilter { source: Some(key.destination), ..all }.matches(&key));
        assert!(!FlowFilter { destination: Some(key.source), ..all }.matches(&key));
    }
}
