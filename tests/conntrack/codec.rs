//! The codec against a second opinion: the package netlink-packet-netfilter reads the same messages of the kernel. It
//! knows neither zones nor the names of ICMP's fields, for those the bytes are looked at.

use crate::support::*;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload, Nla};
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoInfo, ProtoInfoTCP, ProtoTuple, Tuple,
};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner};
use ssyncp::bridge::conntrack::codec;
use ssyncp::flow::{Flow, TcpInfo, protocol};
use ssyncp::sys::netlink::{Message, MessageWriter, Messages};
use std::net::IpAddr;

fn oracle(bytes: &[u8]) -> Vec<ConntrackAttribute> {
    let message = NetlinkMessage::<NetfilterMessage>::deserialize(bytes).unwrap();
    let NetlinkPayload::InnerMessage(message) = message.payload else { panic!("no message of netfilter") };
    let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = message.inner else {
        panic!("no entry of conntrack")
    };
    attributes
}

/// Addresses, protocol, and the two numbers that name the direction's ends.
fn tuple(parts: &[Tuple]) -> (IpAddr, IpAddr, u8, u16, u16) {
    let nothing = IpAddr::from([0, 0, 0, 0]);
    let (mut source, mut destination, mut number, mut first, mut second) = (nothing, nothing, 0, 0, 0);
    for part in parts {
        match part {
            Tuple::Ip(parts) => {
                for part in parts {
                    match part {
                        IPTuple::SourceAddress(address) => source = *address,
                        IPTuple::DestinationAddress(address) => destination = *address,
                        other => panic!("{other:?}"),
                    }
                }
            }
            Tuple::Proto(parts) => {
                for part in parts {
                    match part {
                        ProtoTuple::Protocol(protocol) => number = u8::from(*protocol),
                        ProtoTuple::SourcePort(port) => first = *port,
                        ProtoTuple::DestinationPort(port) => second = *port,
                        other => {
                            let mut value = vec![0; other.value_len()];
                            other.emit_value(&mut value);
                            match (other.kind(), value.as_slice()) {
                                (4, [high, low]) => first = u16::from_be_bytes([*high, *low]),
                                (5, [kind]) => second |= u16::from(*kind) << 8,
                                (6, [code]) => second |= u16::from(*code),
                                other => panic!("{other:?}"),
                            }
                        }
                    }
                }
            }
            _ => {}
        }
    }
    (source, destination, number, first, second)
}

fn compare(flow: &Flow, attributes: &[ConntrackAttribute]) {
    let (key, from, to) = (flow.key, flow.replies_from(), flow.replies_to());
    let mut seen = 0;
    for attribute in attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(parts) => {
                let told = (key.source, key.destination, key.protocol, key.source_port, key.destination_port);
                assert_eq!(tuple(parts), told);
            }
            ConntrackAttribute::CtaTupleReply(parts) if key.protocol == protocol::ICMP => {
                // An echo reply.
                assert_eq!(tuple(parts), (from.address, to.address, 1, to.port, key.destination_port & 0x00ff));
            }
            ConntrackAttribute::CtaTupleReply(parts) => {
                assert_eq!(tuple(parts), (from.address, to.address, key.protocol, from.port, to.port));
            }
            ConntrackAttribute::CtaStatus(status) => assert_eq!(status.bits(), u32::from(flow.status)),
            ConntrackAttribute::CtaTimeout(timeout) => assert_eq!(*timeout, flow.timeout),
            ConntrackAttribute::CtaMark(mark) => assert_eq!(*mark, flow.mark),
            ConntrackAttribute::CtaProtoInfo(infos) => compare_tcp(flow, infos),
            _ => continue,
        }
        seen += 1;
    }
    // Tuples, status, time-out; mark and TCP information where there are any.
    assert!(seen >= 4 + usize::from(key.protocol == protocol::TCP) + usize::from(flow.mark != 0));
}

fn compare_tcp(flow: &Flow, infos: &[ProtoInfo]) {
    let [ProtoInfo::TCP(fields)] = infos else { panic!("{infos:?}") };
    let mut told = TcpInfo::default();
    for field in fields {
        match field {
            ProtoInfoTCP::State(state) => assert_eq!(*state, flow.state),
            ProtoInfoTCP::OriginalWindowScale(scale) => told.window_scale_original = *scale,
            ProtoInfoTCP::ReplyWindowScale(scale) => told.window_scale_reply = *scale,
            ProtoInfoTCP::OriginalFlags(flags) => told.flags_original = flags.flags & 0x07,
            ProtoInfoTCP::ReplyFlags(flags) => told.flags_reply = flags.flags & 0x07,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told, flow.tcp.unwrap_or_default());
}

#[test]
fn a_second_parser_reads_the_same_in_ten_thousand_entries_of_the_kernel() {
    let Some(namespace) = namespace() else { return };
    let mut raw = Raw::open(&namespace);
    fill_mixed(&mut raw);
    let mut writer = MessageWriter::new();
    writer.begin(CT_GET, REQUEST | 0x300, 2, 2, 0);
    writer.end();
    raw.0.send(writer.bytes()).unwrap();
    let mut entries = 0;
    loop {
        let datagram = raw.next_datagram();
        let mut position = 0;
        for message in Messages::new(&datagram).map(Result::unwrap) {
            if message.kind == 3 {
                assert_eq!(entries, 10_000);
                return;
            }
            let length = 16 + message.payload.len();
            let bytes = &datagram[position..position + length];
            position += length.next_multiple_of(4);
            compare_message(&message, bytes);
            entries += 1;
        }
    }
}

fn compare_message(message: &Message<'_>, bytes: &[u8]) {
    let decoded = codec::decode(message).unwrap();
    let kinds: Vec<_> = attributes(&message.payload[4..]).into_keys().collect();
    assert!(decoded.complete && decoded.flow.attributes.is_empty(), "{decoded:?} {kinds:?}");
    compare(&decoded.flow, &oracle(bytes));
    let raw = attributes(&message.payload[4..]);
    let zone_of = |kind| attributes(&raw[&kind]).get(&3).map(|value| u16::from_be_bytes([value[0], value[1]]));
    let whole = raw.get(&18).map(|value| u16::from_be_bytes([value[0], value[1]]));
    let zones = [whole, zone_of(1), zone_of(2)];
    let zone = decoded.flow.key.zone;
    let mut told = [None; 3];
    if zone.id != 0 {
        told[usize::from(zone.direction)] = Some(zone.id);
    }
    assert_eq!(told, zones);
}
