//! Which flows are replicated: the operator's rules, in the operator's words.
//!
//! ```text
//!   rule        := alternative ("or" alternative)*          filter = ["not dst 192.168.0.0/16", "tcp or udp port 53"]
//!   alternative := term ("and" term)*                       a flow is replicated if it meets EVERY rule of the list,
//!   term        := ["not"] condition                        and a rule is met if one of its alternatives is
//!   condition   := tcp | udp | ... | NUMBER        protocols, several with commas; "proto" may stand before them
//!                | src | dst | addr PREFIX         original addresses, v4 and v6; addr: either
//!                | sport | dport | port N[-M]      original ports; port: either; "tcp dport 80" is "tcp and dport 80"
//!                | ct state S                      new (no reply seen), established (replies seen), related (expected)
//!                | ct status S                     expected, seen-reply, assured, snat, dnat
//!                | PROTOCOL state S                established, ... as conntrack -L shows them; of tcp, sctp, dccp
//!                | mark N[/MASK] | zone N
//! ```
//!
//! A condition about something that a flow does not have (the port of a ping) is not met, and its `not` is. Always left
//! out, whatever the rules say: the loopback networks, multicast that never leaves its link (RFC 5771, section 4; RFC
//! 4291, section 2.7: a node's own IGMP, VRRP and OSPF), and the sync protocol's own entry (114).
//!
//! **Where it is decided.** What is fixed for the life of an entry (protocol, addresses, ports, zone) is decided by the
//! kernel for events: a socket filter. Mark and states change, and a flow that was replicated and no longer meets the
//! rules has to be deleted at the peers: so its events are needed, and user space decides. Dumps name what the rules let
//! through and nothing else, and there the kernel decides what it can (one mark, one status). User space always looks
//! at every rule again, so that a kernel that cannot filter costs time and nothing else.
//!
//! **Division.** Where several groups share a kernel, a filter also holds its group's share of it ([`Division`]).

mod division;
mod parse;
pub(super) mod program;

pub use division::{Division, Owner};
pub use parse::FilterError;

use crate::bridge::conntrack::codec;
use crate::flow::{Flow, FlowKey, protocol, status};
use crate::sys::netlink::MessageWriter;
use serde::{Serialize, Serializer};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Most rules of one filter.
pub const RULES_MAX: usize = 64;

/// What is left out in all cases.
const ALWAYS: [&str; 2] = ["not addr 127.0.0.0/8, ::1, 224.0.0.0/24, ff02::/16", "not proto 114"];

/// All rules of a source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Filter {
    rules: Vec<Rule>,
    division: Option<Division>,
}

impl Filter {
    /// The rules of the operator, all of which a flow must meet, and what is left out in all cases.
    pub fn new(rules: &[Rule]) -> Self {
        let always = ALWAYS.iter().filter_map(|text| text.parse().ok());
        Filter { rules: always.chain(rules.iter().cloned()).collect(), division: None }
    }

    /// The same rules, for one group's share of a kernel.
    #[must_use]
    pub fn divided(self, division: Option<Division>) -> Self {
        Filter { division, ..self }
    }

    /// Whether the flow is replicated.
    pub fn matches(&self, flow: &Flow) -> bool {
        self.is_own(flow) && self.rules.iter().all(|rule| rule.holds(&flow.key, Some(flow)))
    }

    /// Whether a flow with this key may be replicated, whatever its mark, its state and its translation are.
    pub fn may_match(&self, key: &FlowKey) -> bool {
        let may_own = self.division.as_ref().is_none_or(|division| division.may_own(key));
        may_own && self.rules.iter().all(|rule| rule.holds(key, None))
    }

    /// Whether a flow may be replicated that has this key and this translation, whatever its mark and its state are.
    pub(super) fn may_take(&self, flow: &Flow) -> bool {
        self.is_own(flow) && self.rules.iter().all(|rule| rule.holds(&flow.key, None))
    }

    /// Whether the rules let a flow through that no group of this kernel owns.
    pub(super) fn is_left_over(&self, flow: &Flow) -> bool {
        let nobodys = self.division.as_ref().is_some_and(|division| division.owner(flow) == Owner::Nobody);
        nobodys && self.rules.iter().all(|rule| rule.holds(&flow.key, Some(flow)))
    }

    /// Whether the flow is no other group's, and not nobody's.
    pub(super) fn is_own(&self, flow: &Flow) -> bool {
        self.division.as_ref().is_none_or(|division| division.owner(flow) == Owner::Own)
    }

    /// Our share of the kernel; `None` if all of it is ours.
    pub(super) fn division(&self) -> Option<&Division> {
        self.division.as_ref()
    }

    /// Has a dump leave out what the kernel can recognise.
    pub(super) fn narrow_dump(&self, writer: &mut MessageWriter) {
        // Each can be said once; of several rules the first is taken, and user space looks at all.
        let (mut mark, mut bits) = (None, None);
        for rule in &self.rules {
            let [alternative] = rule.alternatives.as_slice() else { continue };
            for term in alternative.iter().filter(|term| !term.negated) {
                match &term.test {
                    Test::Mark { value, mask } => mark = mark.or(Some((*value, *mask))),
                    Test::Status(bit) if bit.count_ones() == 1 => bits = bits.or(Some(u32::from(*bit))),
                    _ => {}
                }
            }
        }
        codec::write_dump_filter(writer, mark, bits);
    }
}

impl Default for Filter {
    fn default() -> Self {
        Filter::new(&[])
    }
}

/// One entry of the operator's list. It prints as it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    text: String,
    alternatives: Vec<Vec<Term>>,
}

impl Rule {
    /// Whether the rule is met; without a flow, whether it can be.
    fn holds(&self, key: &FlowKey, flow: Option<&Flow>) -> bool {
        self.alternatives.iter().any(|terms| terms.iter().all(|term| term.holds(key, flow)))
    }
}

impl FromStr for Rule {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let alternatives = parse::alternatives(text)?;
        Ok(Rule { text: text.to_owned(), alternatives })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

/// A condition or its opposite.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Term {
    negated: bool,
    test: Test,
}

impl Term {
    fn holds(&self, key: &FlowKey, flow: Option<&Flow>) -> bool {
        match (self.test.of_key(key), flow) {
            (Some(holds), _) => holds != self.negated,
            (None, Some(flow)) => self.test.of_value(flow) != self.negated,
            // It may change at any time.
            (None, None) => true,
        }
    }
}

/// What is asked of a flow.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Test {
    Protocol(Vec<u8>),
    Address {
        ends: Ends,
        networks: Vec<Network>,
    },
    Port {
        ends: Ends,
        ranges: Vec<(u16, u16)>,
    },
    Zone(Vec<u16>),
    Mark {
        value: u32,
        mask: u32,
    },
    /// At least one of these.
    Connection {
        new: bool,
        established: bool,
        related: bool,
    },
    /// At least one of these bits.
    Status(u16),
    State {
        protocol: u8,
        states: Vec<u8>,
    },
}

/// Which end of a flow is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Ends {
    source: bool,
    destination: bool,
}

impl Test {
    /// The answer that the key gives; `None` if it takes more than that.
    fn of_key(&self, key: &FlowKey) -> Option<bool> {
        Some(match self {
            Test::Protocol(numbers) => numbers.contains(&key.protocol),
            Test::Address { ends, networks } => networks.iter().any(|network| {
                ends.source && network.contains(key.source) || ends.destination && network.contains(key.destination)
            }),
            Test::Port { ends, ranges } => {
                let inside = |port| ranges.iter().any(|&(low, high)| (low..=high).contains(&port));
                // A protocol that this kernel does not track is told without ports.
                let ported = codec::has_ports(key.protocol) && (key.source_port, key.destination_port) != (0, 0);
                ported && (ends.source && inside(key.source_port) || ends.destination && inside(key.destination_port))
            }
            Test::Zone(numbers) => numbers.contains(&key.zone.id),
            Test::State { protocol, .. } if *protocol != key.protocol => false,
            Test::Mark { .. } | Test::Connection { .. } | Test::Status(_) | Test::State { .. } => return None,
        })
    }

    /// The answer that the rest of the flow gives.
    fn of_value(&self, flow: &Flow) -> bool {
        match self {
            Test::Mark { value, mask } => flow.mark & mask == *value,
            Test::Connection { new, established, related } => {
                let replied = flow.status & status::SEEN_REPLY != 0;
                *new && !replied || *established && replied || *related && flow.status & status::EXPECTED != 0
            }
            Test::Status(bits) => flow.status & bits != 0,
            Test::State { states, .. } => states.contains(&flow.state),
            _ => false,
        }
    }
}

/// A network: address and mask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Network {
    V4 { bits: u32, mask: u32 },
    V6 { bits: u128, mask: u128 },
}

impl Network {
    /// `None` if the prefix is too long, or the address has bits behind it.
    fn new(address: IpAddr, prefix_len: u8) -> Option<Self> {
        match address {
            IpAddr::V4(address) if prefix_len <= 32 => {
                let (bits, mask) = (u32::from(address), u32::MAX.checked_shl(32 - u32::from(prefix_len)).unwrap_or(0));
                (bits & !mask == 0).then_some(Network::V4 { bits, mask })
            }
            IpAddr::V6(address) if prefix_len <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix_len)).unwrap_or(0);
                let bits = u128::from(address);
                (bits & !mask == 0).then_some(Network::V6 { bits, mask })
            }
            _ => None,
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        match (self, address) {
            (Network::V4 { bits, mask }, IpAddr::V4(address)) => u32::from(address) & mask == *bits,
            (Network::V6 { bits, mask }, IpAddr::V6(address)) => u128::from(address) & mask == *bits,
            _ => false,
        }
    }
}

/// Protocols that have a name.
const PROTOCOLS: [(&str, u8); 8] = [
    ("tcp", protocol::TCP),
    ("udp", protocol::UDP),
    ("icmp", protocol::ICMP),
    ("icmpv6", protocol::ICMPV6),
    ("sctp", protocol::SCTP),
    ("dccp", protocol::DCCP),
    ("gre", protocol::GRE),
    ("udplite", protocol::UDPLITE),
];

/// Names of the states, as conntrack(8) shows them, by number (`enum tcp_conntrack`, `enum sctp_conntrack`,
/// `enum ct_dccp_states`).
const STATES: [(u8, &[&str]); 3] = [
    (
        protocol::TCP,
        &[
            "none",
            "syn_sent",
            "syn_recv",
            "established",
            "fin_wait",
            "close_wait",
            "last_ack",
            "time_wait",
            "close",
            "syn_sent2",
        ],
    ),
    (
        protocol::SCTP,
        &[
            "none",
            "closed",
            "cookie_wait",
            "cookie_echoed",
            "established",
            "shutdown_sent",
            "shutdown_recd",
            "shutdown_ack_sent",
            "heartbeat_sent",
        ],
    ),
    (
        protocol::DCCP,
        &["none", "request", "respond", "partopen", "open", "closereq", "closing", "timewait", "ignore", "invalid"],
    ),
];

/// Bits of the status that have a name.
const STATUS: [(&str, u16); 5] = [
    ("expected", status::EXPECTED),
    ("seen-reply", status::SEEN_REPLY),
    ("assured", status::ASSURED),
    ("snat", status::SRC_NAT),
    ("dnat", status::DST_NAT),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Zone;

    fn flow(protocol: u8, source: &str, source_port: u16, destination: &str, destination_port: u16) -> Flow {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        Flow::new(FlowKey { source, destination, source_port, destination_port, protocol, zone: Zone::DEFAULT })
    }

    fn web() -> Flow {
        let status = status::SEEN_REPLY | status::ASSURED | status::DST_NAT;
        Flow { state: 3, status, mark: 0x2a, ..flow(6, "10.0.0.1", 40000, "192.0.2.10", 80) }
    }

    fn matches(rules: &[&str], flow: &Flow) -> bool {
        let rules: Vec<Rule> = rules.iter().map(|text| text.parse().unwrap()).collect();
        Filter::new(&rules).matches(flow)
    }

    #[test]
    fn every_condition_holds_where_it_should_and_nowhere_else() {
        for (yes, no) in [
            ("tcp", "udp"),
            ("udp, tcp", "udp,icmp"),
            ("proto 6", "proto 132"),
            ("6", "47"),
            ("src 10.0.0.0/8", "src 192.0.2.0/24"),
            ("dst 192.0.2.10", "dst 10.0.0.1"),
            ("addr 192.0.2.0/24", "addr 2001:db8::/32"),
            ("addr 2001:db8::/32, 10.0.0.0/30", "addr 0.0.0.0/1 and addr 10.0.0.2"),
            ("dport 80", "sport 80"),
            ("port 79-81", "port 81-39999"),
            ("port 1,2,40000", "dport 40000"),
            ("tcp dport 80,443", "udp dport 80"),
            ("mark 42", "mark 0x2b"),
            ("mark 0x2/0x3", "mark 0x1/0x1"),
            ("zone 0", "zone 7"),
            ("ct state established", "ct state new"),
            ("ct state new,established", "ct state related"),
            ("ct status assured", "ct status expected,snat"),
            ("ct status dnat", "ct status snat"),
            ("tcp state established", "tcp state time_wait, close"),
            ("udp or tcp state established", "udp or tcp state close"),
            ("not udp and not port 443", "not tcp"),
            ("not not tcp", "not not udp"),
        ] {
            assert!(matches(&[yes], &web()), "{yes}");
            assert!(!matches(&[no], &web()), "{no}");
        }
    }

    #[test]
    fn every_rule_of_the_list_must_be_met() {
        assert!(matches(&["tcp", "dport 80"], &web()));
        assert!(!matches(&["tcp", "dport 81"], &web()));
        assert!(!matches(&["udp", "dport 80"], &web()));
    }

    #[test]
    fn what_never_leaves_the_machine_or_its_link_and_the_sync_protocol_are_always_left_out() {
        let out = |flow: &Flow| !matches(&[], flow) && !matches(&["port 0-65535 or not port 1"], flow);
        assert!(out(&flow(6, "127.0.0.1", 1, "127.0.0.1", 2)));
        assert!(out(&flow(6, "10.0.0.1", 1, "127.1.2.3", 2)));
        assert!(out(&flow(6, "::1", 1, "::1", 2)));
        assert!(out(&flow(114, "10.0.0.1", 0, "224.0.0.81", 0)));
        assert!(out(&flow(114, "10.0.0.1", 0, "239.1.2.3", 0)));
        assert!(out(&flow(2, "10.0.0.1", 0, "224.0.0.22", 0)));
        assert!(out(&flow(17, "fe80::1", 546, "ff02::1:2", 547)));
        assert!(matches(&[], &flow(17, "10.0.0.1", 1, "224.0.1.1", 123)));
        assert!(matches(&[], &flow(17, "2001:db8::1", 1, "ff05::2", 123)));
        assert!(matches(&[], &flow(6, "::2", 1, "::3", 2)) && matches(&[], &web()));
    }

    #[test]
    fn what_a_flow_does_not_have_meets_no_condition() {
        let ping = flow(1, "10.0.0.1", 80, "10.0.0.2", 0x0800);
        assert!(!matches(&["port 0-65535"], &ping));
        assert!(matches(&["not port 80"], &ping));
        assert!(!matches(&["tcp state none"], &ping));
        assert!(!matches(&["src ::/0"], &ping));
    }

    #[test]
    fn a_key_alone_is_refused_only_by_what_can_not_change() {
        let may = |text: &str| Filter::new(&[text.parse().unwrap()]).may_match(&web().key);
        for text in ["mark 1", "not mark 42", "ct state new", "ct status snat", "tcp state close", "tcp and mark 7"] {
            assert!(may(text), "{text}");
        }
        for text in ["udp", "not tcp", "udp and mark 42", "sctp state closed", "zone 1", "src 10.0.0.2"] {
            assert!(!may(text), "{text}");
        }
    }

    #[test]
    fn a_rule_prints_as_it_was_written() {
        let text = "not  dst 10.0.0.0/8,  2001:db8::/32 or mark 1";
        assert_eq!(text.parse::<Rule>().unwrap().to_string(), text);
    }
}
