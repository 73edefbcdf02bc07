//! Flows as they are shown: which ones are wanted, and how one is written as JSON.

use crate::flow::{Attributes, Flow, FlowKey, SequenceAdjustment, Tuple, Zone, attribute, protocol};
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
    /// Original source port.
    pub source_port: Option<u16>,
    /// Original destination port.
    pub destination_port: Option<u16>,
    /// Conntrack zone.
    pub zone: Option<u16>,
}

impl FlowFilter {
    /// Whether a flow is wanted.
    pub fn matches(&self, key: &FlowKey) -> bool {
        self.protocol.is_none_or(|protocol| protocol == key.protocol)
            && self.source.is_none_or(|source| source == key.source)
            && self.destination.is_none_or(|destination| destination == key.destination)
            && self.port.is_none_or(|port| port == key.source_port || port == key.destination_port)
            && self.source_port.is_none_or(|port| port == key.source_port)
            && self.destination_port.is_none_or(|port| port == key.destination_port)
            && self.zone.is_none_or(|zone| zone == key.zone.id)
    }

    /// The only keys that can be wanted, if all of one is named: they are looked up, and not searched for. They differ in
    /// the direction of the zone, which has no name here.
    pub fn keys(&self) -> Option<[FlowKey; 3]> {
        let key = FlowKey {
            source: self.source?,
            destination: self.destination?,
            source_port: self.source_port?,
            destination_port: self.destination_port?,
            protocol: self.protocol?,
            zone: Zone { id: self.zone?, direction: Zone::BOTH },
        };
        let towards = |direction| FlowKey { zone: Zone { direction, ..key.zone }, ..key };
        Some([key, towards(Zone::ORIGINAL), towards(Zone::REPLY)])
    }
}

/// The number of a protocol that is named or numbered.
pub fn protocol_number(word: &str) -> Option<u8> {
    match word {
        "tcp" => Some(protocol::TCP),
        "udp" => Some(protocol::UDP),
        "icmp" => Some(protocol::ICMP),
        "icmpv6" => Some(protocol::ICMPV6),
        "sctp" => Some(protocol::SCTP),
        "dccp" => Some(protocol::DCCP),
        "gre" => Some(protocol::GRE),
        "udplite" => Some(protocol::UDPLITE),
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
    /// What only some flows have.
    #[serde(flatten)]
    pub attributes: AttributeRows,
}

/// The attributes of a flow as JSON shows them. What a flow does not have is left out.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct AttributeRows {
    /// Name of the helper.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub helper: Option<String>,
    /// Labels, 32 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
    /// The flow that expected this one, as `tcp 10.0.0.1:40000 -> [2001:db8::1]:21`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<String>,
    /// By how much sequence numbers are moved, original direction first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence_adjustment: Option<[SequenceRow; 2]>,
    /// All others, and what is not as long as it should be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<AttributeRow>,
}

/// An attribute that has no name here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AttributeRow {
    /// Its type on the wire.
    #[serde(rename = "type")]
    pub kind: u8,
    /// Its data in hexadecimal digits.
    pub data: String,
}

/// By how much the sequence numbers of one direction are moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SequenceRow {
    /// Sequence number from which `after` counts.
    pub position: u32,
    /// Offset before it.
    pub before: i32,
    /// Offset from there on.
    pub after: i32,
}

impl AttributeRows {
    fn new(attributes: &Attributes) -> Self {
        let mut rows = AttributeRows::default();
        for (kind, data) in attributes {
            let shown = match kind {
                attribute::HELPER => set(&mut rows.helper, attributes.helper().map(str::to_owned)),
                attribute::LABELS => set(&mut rows.labels, attributes.labels().map(|labels| hexadecimal(&labels))),
                attribute::MASTER => set(&mut rows.master, attributes.master().as_ref().map(tuple)),
                attribute::SEQUENCE_ADJUSTMENT => {
                    let sides = attributes.sequence_adjustment().map(|sides| sides.map(SequenceRow::new));
                    set(&mut rows.sequence_adjustment, sides)
                }
                _ => false,
            };
            if !shown {
                rows.attributes.push(AttributeRow { kind, data: hexadecimal(data) });
            }
        }
        rows
    }

    /// As conntrack writes what it knows, and the rest likewise.
    fn words(&self) -> String {
        let mut words = String::new();
        for (name, value) in [("helper", &self.helper), ("labels", &self.labels)] {
            if let Some(value) = value {
                words += &format!(" {name}={value}");
            }
        }
        if let Some(master) = &self.master {
            words += &format!(" master=\"{master}\"");
        }
        if let Some([original, reply]) = self.sequence_adjustment {
            words += &format!(" seqadj={}/{}", original.words(), reply.words());
        }
        for AttributeRow { kind, data } in &self.attributes {
            words += &format!(" attribute-{kind}={data}");
        }
        words
    }
}

impl SequenceRow {
    fn new(side: SequenceAdjustment) -> Self {
        let SequenceAdjustment { position, before, after } = side;
        SequenceRow { position, before: before.cast_signed(), after: after.cast_signed() }
    }

    fn words(&self) -> String {
        format!("{}:{:+}:{:+}", self.position, self.before, self.after)
    }
}

/// Whether there was anything to set.
fn set<T>(to: &mut Option<T>, value: Option<T>) -> bool {
    *to = value;
    to.is_some()
}

fn hexadecimal(data: &[u8]) -> String {
    data.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A tuple as a key prints.
fn tuple(tuple: &Tuple) -> String {
    let &Tuple { source, destination, source_port, destination_port, protocol } = tuple;
    FlowKey { source, destination, source_port, destination_port, protocol, zone: Zone::DEFAULT }.to_string()
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
            attributes: AttributeRows::new(&flow.attributes),
        }
    }

    /// One line, as `conntrack -L` writes it.
    pub fn line(&self) -> String {
        let name = match self.protocol {
            protocol::TCP => "tcp",
            protocol::UDP => "udp",
            protocol::ICMP => "icmp",
            protocol::ICMPV6 => "icmpv6",
            protocol::SCTP => "sctp",
            protocol::DCCP => "dccp",
            protocol::GRE => "gre",
            protocol::UDPLITE => "udplite",
            _ => "unknown",
        };
        let state = self.state_name.as_deref().map(|state| format!("{state} ")).unwrap_or_default();
        let mut line = format!("{name:<8} {} {} {state}", self.protocol, self.timeout_s);
        line += &format!("src={} dst={} ", self.source, self.destination);
        line += &self.ports(true, self.source_port, self.destination_port);
        line += &format!("src={} dst={} ", self.reply_source, self.reply_destination);
        line += &self.ports(false, self.reply_source_port, self.reply_destination_port);
        if self.status & crate::flow::status::ASSURED != 0 {
            line += "[ASSURED] ";
        }
        line += &format!("mark={}", self.mark);
        if self.zone != 0 {
            line += &format!(" zone={}", self.zone);
        }
        line + &self.attributes.words()
    }

    fn ports(&self, original: bool, source: u16, destination: u16) -> String {
        match self.protocol {
            protocol::ICMP | protocol::ICMPV6 if original => {
                format!("type={} code={} id={source} ", destination >> 8, destination & 0xff)
            }
            protocol::ICMP | protocol::ICMPV6 => format!("id={destination} "),
            protocol::TCP | protocol::UDP | protocol::SCTP | protocol::DCCP | protocol::UDPLITE => {
                format!("sport={source} dport={destination} ")
            }
            protocol::GRE => format!("srckey={source:#x} dstkey={destination:#x} "),
            _ => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Endpoint, status};
    use std::net::{Ipv4Addr, Ipv6Addr};

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

    fn wide() -> Flow {
        let address = |last| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last));
        let key = FlowKey { source: address(1), destination: address(2), ..flow().key };
        Flow { key, reply_source: None, ..flow() }
    }

    /// A flow with every attribute that has a name here, and two that nobody knows.
    fn attributed() -> Flow {
        let master = Tuple {
            source: wide().key.source,
            destination: wide().key.destination,
            source_port: 40000,
            destination_port: 21,
            protocol: 6,
        };
        let moved = SequenceAdjustment { position: 1000, before: 4, after: 0xffff_fffd };
        let sides = SequenceAdjustment::to_wire(&[moved, SequenceAdjustment::default()]);
        let mut flow = wide();
        for (kind, data) in [
            (attribute::HELPER, &b"ftp"[..]),
            (attribute::LABELS, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12, 0xab]),
            (attribute::MASTER, &master.to_wire().unwrap()),
            (attribute::SEQUENCE_ADJUSTMENT, &sides),
            (200, &[0xde, 0xad]),
            (201, &[]),
        ] {
            flow.attributes.set(kind, data).unwrap();
        }
        flow
    }

    #[test]
    fn a_line_of_ipv6_and_attributes() {
        assert_eq!(
            FlowRow::new(51, &attributed()).line(),
            "tcp      6 431999 ESTABLISHED src=2001:db8::1 dst=2001:db8::2 sport=40000 dport=80 \
             src=2001:db8::2 dst=2001:db8::1 sport=80 dport=40000 [ASSURED] mark=7 helper=ftp \
             labels=000000000000000000000000000012ab \
             master=\"tcp [2001:db8::1]:40000 -> [2001:db8::2]:21\" seqadj=1000:+4:-3/0:+0:+0 \
             attribute-200=dead attribute-201="
        );
        let key = FlowKey { protocol: protocol::ICMPV6, source_port: 5, destination_port: 128 << 8, ..wide().key };
        let echo = Flow { key, state: 0, status: 0, mark: 0, ..wide() };
        assert_eq!(
            FlowRow::new(51, &echo).line(),
            "icmpv6   58 431999 src=2001:db8::1 dst=2001:db8::2 type=128 code=0 id=5 src=2001:db8::2 dst=2001:db8::1 id=5 mark=0"
        );
    }

    #[test]
    fn json_shows_attributes_and_leaves_out_what_is_not_there() {
        let json = |flow: &Flow| serde_json::to_value(FlowRow::new(51, flow)).unwrap();
        let shown = json(&attributed());
        assert_eq!(shown["source"], "2001:db8::1");
        assert_eq!(shown["helper"], "ftp");
        assert_eq!(shown["master"], "tcp [2001:db8::1]:40000 -> [2001:db8::2]:21");
        let sides = serde_json::json!([
            {"position": 1000, "before": 4, "after": -3}, {"position": 0, "before": 0, "after": 0}
        ]);
        assert_eq!(shown["sequence_adjustment"], sides);
        assert_eq!(shown["attributes"], serde_json::json!([{"type": 200, "data": "dead"}, {"type": 201, "data": ""}]));
        let plain = json(&wide());
        for name in ["helper", "labels", "master", "sequence_adjustment", "attributes"] {
            assert_eq!(plain.get(name), None, "{name}");
        }
        for flow in [attributed(), wide(), flow()] {
            let row = FlowRow::new(51, &flow);
            let read: FlowRow = serde_json::from_slice(&serde_json::to_vec(&row).unwrap()).unwrap();
            assert_eq!(read, row);
        }
    }

    /// A helper's name that is no text, and labels that are too short, are shown as they are.
    #[test]
    fn what_is_malformed_is_shown_as_bytes() {
        let mut flow = wide();
        flow.attributes.set(attribute::HELPER, &[0xff]).unwrap();
        flow.attributes.set(attribute::LABELS, &[1]).unwrap();
        assert!(FlowRow::new(51, &flow).line().ends_with("mark=7 attribute-2=01 attribute-3=ff"));
    }

    #[test]
    fn a_filter_finds_ipv6_by_address_and_protocol_by_name() {
        let key = wide().key;
        let all = FlowFilter::default();
        assert!(FlowFilter { source: "2001:DB8:0::1".parse().ok(), ..all }.matches(&key));
        assert!(!FlowFilter { source: "2001:db8::2".parse().ok(), ..all }.matches(&key));
        assert!(FlowFilter { destination: "2001:db8::2".parse().ok(), port: Some(80), ..all }.matches(&key));
        let named = ["icmpv6", "sctp", "dccp", "gre", "udplite", "58", "ftp"].map(protocol_number);
        assert_eq!(named, [Some(58), Some(132), Some(33), Some(47), Some(136), Some(58), None]);
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
        assert!(FlowFilter { source_port: Some(40000), destination_port: Some(80), ..all }.matches(&key));
        assert!(!FlowFilter { source_port: Some(80), ..all }.matches(&key));
        assert!(!FlowFilter { destination_port: Some(40000), ..all }.matches(&key));
        assert!(!FlowFilter { zone: Some(9999), ..all }.matches(&key));
        assert!(FlowFilter { protocol: Some(6), source: Some(key.source), ..all }.matches(&key));
        assert!(!FlowFilter { source: Some(key.destination), ..all }.matches(&key));
        assert!(!FlowFilter { destination: Some(key.source), ..all }.matches(&key));
    }
}
