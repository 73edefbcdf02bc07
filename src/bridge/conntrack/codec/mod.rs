//! Conntrack entries in the language of ctnetlink (linux/netfilter/nfnetlink_conntrack.h), both ways.
//!
//! ```text
//! nfgenmsg | TUPLE_ORIG { IP { src, dst }, PROTO { number, ports | ICMP id, type, code | nothing }, ZONE? }
//!          | TUPLE_REPLY { the same }            the mirror of the original one where there is no NAT
//!          | STATUS | TIMEOUT | MARK? | ZONE? | PROTOINFO? { TCP | SCTP | DCCP { state, ... } }
//!          | HELP? | TUPLE_MASTER? | SEQ_ADJ_ORIG? SEQ_ADJ_REPLY? | LABELS? | SYNPROXY?     flow attributes
//! ```
//!
//! What the kernel does with a request is not symmetric with what it tells (measured on Linux 6.18):
//!
//! * NAT bits in the status are ignored. NAT is made by a *mirrored* reply tuple plus NAT_SRC / NAT_DST; the kernel
//!   then rewrites the reply tuple and sets the bits itself. A side that is not named gets "the same address, and any
//!   port that is free", so both sides are always named, ports included, even if only one is translated.
//! * Window scales are kept only if the flags of *both* directions say so.
//! * SEEN_REPLY, ASSURED and FIXED_TIMEOUT can be set later, but never cleared; NAT, helper and master can never be
//!   changed.
//! * Labels are taken and lost in silence while no rule of the namespace has `ct label`.
//! * An absent mark in an event is mark 0; an absent PROTOINFO, master or sequence adjustment says nothing: see
//!   [`Decoded::complete`]. Nor do absent labels and an absent SYN proxy, and no bit of the status promises them: see
//!   [`Decoded::has_unpromised`].
//!
//! **Left out on purpose.** Packet and byte counters (`nf_conntrack_acct`) change with every packet, and start times
//! (`nf_conntrack_timestamp`, [`start_time`]) are told by dumps but not by events. The kernel takes neither from user
//! space, so that a copy could not have them, and a table that held them would differ after every takeover.

mod decode;
mod encode;
mod expectation;
mod extras;
mod tuple;

pub use decode::{Decoded, Happening, decode, judges_by_windows, start_time};
pub use encode::{
    Unwritable, Without, check_flow, check_key, write_create, write_delete, write_delete_by_reply, write_dump,
    write_dump_filter, write_get, write_probe, write_update,
};
pub use expectation::{
    DecodedExpectation, decode_expectation, is_expectation, master_key, write_expectation, write_expectation_delete,
    write_expectation_dump,
};

pub(super) use tuple::has_ports;

use crate::flow::status;
use crate::sys::netlink::Malformed;

/// `IP_CT_TCP_FLAG_*` that a copy can use: WINDOW_SCALE, SACK_PERM, CLOSE_INIT. The others belong to the sequence
/// windows, which cannot be copied: MAXACK_SET without its window would make the copy drop valid resets.
pub const TCP_FLAGS_CARRIED: u8 = 0x07;

/// `IP_CT_TCP_FLAG_BE_LIBERAL`: do not judge packets by sequence windows. A copy has none to judge by.
pub(super) const TCP_BE_LIBERAL: u8 = 0x08;

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
    /// Neither IPv4 nor IPv6, or both at once.
    #[error("addresses that are not of one family, IPv4 or IPv6")]
    Family,
    /// ICMP over IPv6, or ICMPv6 over IPv4.
    #[error("the ICMP of the other address family")]
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{
        Attributes, Endpoint, Flow, FlowKey, ProtocolInfo, SequenceAdjustment, Synproxy, TcpInfo, Tuple, Zone,
        attribute, protocol,
    };
    use crate::sys::netlink::{Message, MessageWriter, Messages, flags};
    use proptest::prelude::*;
    use std::net::IpAddr;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn tcp_key() -> FlowKey {
        FlowKey {
            source: address("10.0.0.1"),
            destination: address("192.0.2.10"),
            source_port: 40000,
            destination_port: 80,
            protocol: protocol::TCP,
            zone: Zone::DEFAULT,
        }
    }

    /// An event about a connection with DNAT, laid out as Linux does it: 10.0.0.1:40000 to 192.0.2.10:80, translated to
    /// 172.16.0.1:8080.
    #[rustfmt::skip]
    const NATTED: [u8; 204] = [
        204, 0, 0, 0,  0x00, 0x01,  0x00, 0x06,  0, 0, 0, 0,  0, 0, 0, 0,  2, 0, 0, 0,
        // TUPLE_ORIG { IP, PROTO }
        52, 0, 1, 0x80,
            20, 0, 1, 0x80,  8, 0, 1, 0, 10, 0, 0, 1,  8, 0, 2, 0, 192, 0, 2, 10,
            28, 0, 2, 0x80,  5, 0, 1, 0, 6, 0, 0, 0,  6, 0, 2, 0, 0x9c, 0x40, 0, 0,  6, 0, 3, 0, 0, 80, 0, 0,
        // TUPLE_REPLY
        52, 0, 2, 0x80,
            20, 0, 1, 0x80,  8, 0, 1, 0, 172, 16, 0, 1,  8, 0, 2, 0, 10, 0, 0, 1,
            28, 0, 2, 0x80,  5, 0, 1, 0, 6, 0, 0, 0,  6, 0, 2, 0, 0x1f, 0x90, 0, 0,  6, 0, 3, 0, 0x9c, 0x40, 0, 0,
        // ID, STATUS, TIMEOUT
        8, 0, 12, 0, 1, 2, 3, 4,  8, 0, 3, 0, 0, 0, 0x01, 0xae,  8, 0, 7, 0, 0, 0, 0x02, 0x58,
        // PROTOINFO { TCP { state, scales, flags } }
        48, 0, 4, 0x80,  44, 0, 1, 0x80,
            5, 0, 1, 0, 3, 0, 0, 0,  5, 0, 2, 0, 7, 0, 0, 0,  5, 0, 3, 0, 8, 0, 0, 0,
            6, 0, 4, 0, 0x2b, 0, 0, 0,  6, 0, 5, 0, 0x23, 0, 0, 0,
        // MARK
        8, 0, 8, 0, 0, 0, 0, 42,
    ];

    fn first(bytes: &[u8]) -> Message<'_> {
        Messages::new(bytes).next().unwrap().unwrap()
    }

    /// The flow that [`NATTED`] is about.
    fn natted() -> Flow {
        Flow {
            key: tcp_key(),
            reply_source: Some(Endpoint { address: address("172.16.0.1"), port: 8080 }),
            reply_destination: None,
            state: 3,
            status: 0x1ae,
            timeout: 600,
            tcp: Some(TcpInfo { window_scale_original: 7, window_scale_reply: 8, flags_original: 3, flags_reply: 3 }),
            mark: 42,
            attributes: Attributes::NONE,
        }
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn an_event_becomes_a_flow_without_the_flags_about_windows() {
        let decoded = Decoded { happening: Happening::New, flow: natted(), complete: true };
        assert_eq!(decode(&first(&NATTED)), Ok(decoded));
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn the_kind_and_the_flags_tell_what_has_happened() {
        let told = |bytes: &[u8]| decode(&first(bytes)).map(|decoded| decoded.happening);
        let mut bytes = NATTED;
        bytes[7] = 0;
        assert_eq!(told(&bytes), Ok(Happening::Update));
        bytes[4] = 2;
        assert_eq!(told(&bytes), Ok(Happening::Destroy));
        bytes[4] = 1;
        assert_eq!(told(&bytes), Err(Refusal::Kind));
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn each_thing_that_is_wrong_has_its_own_name() {
        let refused = |change: &dyn Fn(&mut [u8; 204])| {
            let mut bytes = NATTED;
            change(&mut bytes);
            decode(&first(&bytes)).unwrap_err()
        };
        assert_eq!(refused(&|bytes| bytes[16] = 7), Refusal::Family);
        assert_eq!(refused(&|bytes| bytes[52] = 58), Refusal::Protocol);
        assert_eq!(refused(&|bytes| bytes[104] = 17), Refusal::ReplyMismatch);
        // The reply tuple, the original source and the original port under a kind that nobody knows.
        assert_eq!(refused(&|bytes| bytes[74] = 30), Refusal::TupleMissing);
        assert_eq!(refused(&|bytes| bytes[30] = 30), Refusal::TupleMissing);
        assert_eq!(refused(&|bytes| bytes[58] = 30), Refusal::TupleMissing);
        // A window scale of 16, a mark of 3 bytes, an attribute beyond the end.
        assert_eq!(refused(&|bytes| bytes[168] = 16), Refusal::Malformed);
        assert_eq!(refused(&|bytes| bytes[196] = 7), Refusal::Malformed);
        assert_eq!(refused(&|bytes| bytes[20] = 255), Refusal::Malformed);
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn a_tcp_event_without_state_says_that_it_does_not_know() {
        let mut bytes = NATTED;
        bytes[150] = 30;
        let decoded = decode(&first(&bytes)).unwrap();
        assert_eq!((decoded.complete, decoded.flow.state, decoded.flow.tcp), (false, 0, None));
        assert_eq!(decoded.flow.reply_source, natted().reply_source);
        // The status promises a master, and adjusted sequence numbers.
        for bit in [0x01, 0x40] {
            let mut bytes = NATTED;
            bytes[139] |= bit;
            assert!(!decode(&first(&bytes)).unwrap().complete, "{bit:#x}");
        }
    }

    fn icmp(request: u16, answer: u16, answer_id: u16) -> Result<Decoded, Refusal> {
        let mut writer = MessageWriter::new();
        writer.begin(0x0100, 0, 1, 2, 0);
        for (kind, source, destination, id, code) in
            [(1, [10, 0, 0, 1], [192, 0, 2, 1], 7, request), (2, [192, 0, 2, 1], [203, 0, 113, 1], answer_id, answer)]
        {
            writer.nest(kind, |tuple| {
                tuple.nest(1, |ip| {
                    ip.attribute(1, &source);
                    ip.attribute(2, &destination);
                });
                tuple.nest(2, |layer| {
                    layer.attribute_u8(1, 1);
                    layer.attribute_u16_be(4, id);
                    layer.attribute_u8(5, (code >> 8) as u8);
                    layer.attribute_u8(6, code as u8);
                });
            });
        }
        writer.end();
        decode(&first(writer.bytes()))
    }

    #[test]
    fn an_icmp_query_keeps_its_identifier_on_each_side() {
        let flow = icmp(0x0800, 0x0000, 9).unwrap().flow;
        assert_eq!((flow.key.source_port, flow.key.destination_port), (7, 0x0800));
        assert_eq!(flow.reply_source, None);
        assert_eq!(flow.reply_destination, Some(Endpoint { address: address("203.0.113.1"), port: 9 }));
        assert!(icmp(0x0d00, 0x0e00, 7).is_ok() && icmp(0x1100, 0x1200, 7).is_ok() && icmp(0x0f00, 0x1000, 7).is_ok());
        assert_eq!(icmp(0x0800, 0x0800, 7), Err(Refusal::ReplyMismatch));
        assert_eq!(icmp(0x0800, 0x0001, 7), Err(Refusal::ReplyMismatch));
        assert_eq!(icmp(0x0300, 0x0300, 7), Err(Refusal::IcmpType));
    }

    /// The attributes of the one message in `writer`: kinds in order.
    fn kinds(writer: &MessageWriter) -> Vec<u16> {
        first(writer.bytes()).attributes().map(|attribute| attribute.unwrap().kind).collect()
    }

    #[test]
    fn a_new_entry_names_both_sides_of_its_translation() {
        let mut writer = MessageWriter::new();
        write_create(&mut writer, 5, &natted(), 700, Without::default());
        let message = first(writer.bytes());
        assert_eq!((message.kind, message.flags, message.sequence), (0x0100, 0x0601, 5));
        let attributes: Vec<_> = message.attributes().map(Result::unwrap).collect();
        // Tuples, STATUS, TIMEOUT, PROTOINFO, MARK, NAT_DST, NAT_SRC.
        assert_eq!(kinds(&writer), [1, 2, 3, 7, 4, 8, 13, 6]);
        // SEEN_REPLY | ASSURED | CONFIRMED; the NAT bits would be ignored.
        assert_eq!((attributes[2].u32_be(), attributes[3].u32_be()), (Ok(0x0e), Ok(700)));
        #[rustfmt::skip]
        assert_eq!(attributes[6].value, [
            8, 0, 1, 0, 172, 16, 0, 1,  8, 0, 2, 0, 172, 16, 0, 1,
            20, 0, 3, 0x80,  6, 0, 1, 0, 0x1f, 0x90, 0, 0,  6, 0, 2, 0, 0x1f, 0x90, 0, 0,
        ]);
        #[rustfmt::skip]
        assert_eq!(attributes[7].value, [
            8, 0, 1, 0, 10, 0, 0, 1,  8, 0, 2, 0, 10, 0, 0, 1,
            20, 0, 3, 0x80,  6, 0, 1, 0, 0x9c, 0x40, 0, 0,  6, 0, 2, 0, 0x9c, 0x40, 0, 0,
        ]);
    }

    #[test]
    fn translation_is_named_only_where_there_was_some_or_it_was_decided_that_there_is_none() {
        let names_it = |flow: &Flow| {
            let mut writer = MessageWriter::new();
            write_create(&mut writer, 1, flow, 1, Without::default());
            kinds(&writer).contains(&13)
        };
        let plain = Flow { reply_source: None, status: 0x0e, ..natted() };
        assert!(!names_it(&plain));
        assert!(names_it(&Flow { status: 0x18e, ..plain.clone() }));
        assert!(names_it(&Flow { reply_destination: natted().reply_source, ..plain.clone() }));
    }

    #[test]
    fn an_update_names_no_translation_and_clears_a_mark() {
        let mut writer = MessageWriter::new();
        write_update(&mut writer, 5, &Flow { mark: 0, ..natted() }, 700);
        assert_eq!((first(writer.bytes()).flags, kinds(&writer)), (0x0001, vec![1, 2, 3, 7, 4, 8]));
    }

    #[test]
    fn what_names_an_entry_is_its_original_tuple_and_its_zone() {
        let request = |zone: Zone, write: fn(&mut MessageWriter, u32, &FlowKey)| {
            let mut writer = MessageWriter::new();
            write(&mut writer, 1, &FlowKey { zone, ..tcp_key() });
            let tuple = first(writer.bytes()).attributes().next().unwrap().unwrap();
            let inside = tuple.nested().map(|part| part.unwrap().kind).collect::<Vec<_>>();
            (first(writer.bytes()).kind, kinds(&writer), inside)
        };
        let zone = |direction| Zone { id: 5, direction };
        assert_eq!(request(Zone::DEFAULT, write_delete), (0x0102, vec![1], vec![1, 2]));
        assert_eq!(request(zone(Zone::BOTH), write_delete), (0x0102, vec![1, 18], vec![1, 2]));
        assert_eq!(request(zone(Zone::ORIGINAL), write_get), (0x0101, vec![1], vec![1, 2, 3]));
        assert_eq!(request(zone(Zone::REPLY), write_get), (0x0101, vec![1], vec![1, 2]));
    }

    fn any_addresses() -> impl Strategy<Value = [IpAddr; 4]> {
        let four = any::<[[u8; 4]; 4]>().prop_map(|all| all.map(IpAddr::from));
        let six = any::<[[u8; 16]; 4]>().prop_map(|all| all.map(IpAddr::from));
        prop_oneof![four, six]
    }

    fn any_zone() -> impl Strategy<Value = Zone> {
        let zone = (1..=u16::MAX, 0..=2u8).prop_map(|(id, direction)| Zone { id, direction });
        prop_oneof![Just(Zone::DEFAULT), zone]
    }

    /// Protocol and the two numbers, for the family.
    fn any_ends(ipv4: bool) -> impl Strategy<Value = (u8, u16, u16)> {
        let kinds = if ipv4 { vec![0u16, 8, 13, 14, 15, 16, 17, 18] } else { vec![128, 129, 139, 140] };
        let number = if ipv4 { protocol::ICMP } else { protocol::ICMPV6 };
        let icmp = (prop::sample::select(kinds), any::<u8>(), any::<u16>())
            .prop_map(move |(kind, code, id)| (number, id, kind << 8 | u16::from(code)));
        let ports = (prop::sample::select(vec![6u8, 17, 33, 47, 132, 136]), any::<u16>(), any::<u16>());
        let none = prop::sample::select(vec![2u8, 50, 89, 114, 255]).prop_map(|number| (number, 0, 0));
        prop_oneof![icmp, ports, none]
    }

    fn any_attributes(key: FlowKey) -> impl Strategy<Value = Attributes> {
        let word = any::<u32>;
        let side = (word(), word(), word()).prop_map(|(position, before, after)| SequenceAdjustment {
            position,
            before,
            after,
        });
        let master = Tuple { destination: key.source, source: key.destination, ..tuple::original(&key) };
        (
            prop::option::of([side.clone(), side]),
            prop::option::of(any::<[u8; 16]>()),
            prop::option::of("[a-z-]{1,15}"),
            prop::option::of(Just(master)),
            prop::option::of((1..=u32::MAX, word(), word())),
            (word(), word()),
        )
            .prop_map(move |(sides, labels, helper, master, synproxy, tags)| {
                let mut attributes = Attributes::NONE;
                let mut set = |kind, data: &[u8]| attributes.set(kind, data).unwrap();
                sides.inspect(|sides| set(attribute::SEQUENCE_ADJUSTMENT, &SequenceAdjustment::to_wire(sides)));
                labels.filter(|labels| *labels != [0; 16]).inspect(|labels| set(attribute::LABELS, labels));
                helper.inspect(|name| set(attribute::HELPER, name.as_bytes()));
                master.inspect(|master| set(attribute::MASTER, &master.to_wire().unwrap()));
                synproxy.inspect(|&(isn, its, timestamp_offset)| {
                    set(attribute::SYNPROXY, &Synproxy { isn, its, timestamp_offset }.to_wire());
                });
                match key.protocol {
                    protocol::SCTP => {
                        let (tag_original, tag_reply) = tags;
                        set(attribute::PROTOCOL, &ProtocolInfo::Sctp { tag_original, tag_reply }.to_wire());
                    }
                    protocol::DCCP => {
                        let (role, handshake_sequence) = ((tags.0 & 1) as u8, u64::from(tags.1) << 16);
                        set(attribute::PROTOCOL, &ProtocolInfo::Dccp { role, handshake_sequence }.to_wire());
                    }
                    _ => {}
                }
                attributes
            })
    }

    fn any_key() -> impl Strategy<Value = (FlowKey, [IpAddr; 2])> {
        any_addresses().prop_flat_map(|[source, destination, from, to]| {
            (any_ends(source.is_ipv4()), any_zone()).prop_map(
                move |((protocol, source_port, destination_port), zone)| {
                    (FlowKey { source, destination, source_port, destination_port, protocol, zone }, [from, to])
                },
            )
        })
    }

    /// Flows as the kernel lets them be written: settable status bits, and flags that are carried.
    fn any_flow() -> impl Strategy<Value = Flow> {
        let tcp = (0..=15u8, 0..=15u8, 0..=7u8, 0..=7u8).prop_map(|(original, reply, flags, reply_flags)| TcpInfo {
            window_scale_original: original,
            window_scale_reply: reply,
            flags_original: flags,
            flags_reply: reply_flags,
        });
        let value = (any::<u8>(), any::<u16>(), any::<u32>(), any::<u32>());
        let port = || prop::option::of(any::<u16>());
        any_key().prop_flat_map(move |(key, [from, to])| {
            (port(), port(), value, tcp.clone(), any_attributes(key)).prop_map(
                move |(from_port, to_port, (state, status, timeout, mark), tcp, attributes)| {
                    let mut flow = Flow { status: status & STATUS_SETTABLE | status::CONFIRMED, ..Flow::new(key) };
                    (flow.timeout, flow.mark, flow.attributes) = (timeout, mark, attributes);
                    let ported = tuple::has_ports(key.protocol) || protocol::is_icmp(key.protocol);
                    let endpoint = |address, port: u16| Endpoint { address, port: if ported { port } else { 0 } };
                    flow.reply_source = from_port.map(|port| endpoint(from, port));
                    flow.reply_destination = to_port.map(|port| endpoint(to, port));
                    match key.protocol {
                        protocol::TCP => (flow.state, flow.tcp) = (state, Some(tcp)),
                        protocol::SCTP | protocol::DCCP => flow.state = state,
                        _ => {}
                    }
                    flow.canonical()
                },
            )
        })
    }

    proptest! {
        #[test]
        fn a_flow_that_is_written_is_read_back(flow in any_flow()) {
            prop_assert_eq!(check_flow(&flow), Ok(()));
            let mut writer = MessageWriter::new();
            write_update(&mut writer, 1, &flow, flow.timeout);
            let decoded = decode(&first(writer.bytes())).unwrap();
            let mut told = flow.clone();
            // An update does not carry what it cannot change.
            told.attributes.remove(attribute::HELPER);
            told.attributes.remove(attribute::MASTER);
            prop_assert_eq!(decoded.flow, told);
            prop_assert!(decoded.complete);
            writer.clear();
            write_create(&mut writer, 1, &flow, flow.timeout, Without::default());
            prop_assert_eq!(decode(&first(writer.bytes())).unwrap().flow.attributes, flow.attributes);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let message = Message { kind: 0x0100, flags: flags::CREATE, sequence: 0, port_id: 0, payload: &bytes };
            let _ = decode(&message);
        }

        #[test]
        fn no_broken_entry_makes_the_reader_panic(
            flow in any_flow(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        ) {
            let mut writer = MessageWriter::new();
            write_create(&mut writer, 1, &flow, 1, Without::default());
            let mut payload = first(writer.bytes()).payload.to_vec();
            for (position, byte) in damage {
                let position = position.index(payload.len());
                payload[position] = byte;
            }
            let _ = decode(&Message { kind: 0x0100, flags: 0, sequence: 0, port_id: 0, payload: &payload });
        }
    }
}
