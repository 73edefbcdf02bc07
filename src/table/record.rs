//! A flow in forty bytes: the canonical encoding that the digest covers [4.4], and the form in which an entry keeps it.
//!
//! The layout is protocol. Two nodes, whatever their versions, must make the same bytes of the same flow, or their
//! tables will look unequal for ever. All integers are big-endian; what is absent is zero.
//!
//! ```text
//!  0 source address 4          ┐                      16 reply source address 4          ┐
//!  4 destination address 4     │                      20 reply source port 2             │
//!  8 source port 2             │                      22 reply destination port 2        │
//! 10 destination port 2        │ key                  24 reply destination address 4     │
//! 12 protocol 1                │                      28 state 1                         │ value
//! 13 zone direction 1          │                      29 present 1: bit 0 reply source,  │
//! 14 zone number 2             ┘                         bit 1 reply destination, bit 2 TCP
//!                                                     30 status 2                        │
//!                                                     32 window scale original 1, reply 1│
//!                                                     34 flags original 1, reply 1       │
//!                                                     36 mark 4                          ┘
//! ```

use crate::flow::{Attributes, Endpoint, Flow, FlowKey, TcpInfo, Zone};
use core::net::{IpAddr, Ipv4Addr};

const REPLY_SOURCE: u8 = 1 << 0;
const REPLY_DESTINATION: u8 = 1 << 1;
const TCP: u8 = 1 << 2;

/// The sixteen bytes that name an IPv4 flow.
pub(super) type KeyBytes = [u8; 16];

/// An IPv4 flow without its time-out, packed and canonical: equal flows are equal bytes, and the reverse.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub(super) struct Record([u8; 40]);

impl Default for Record {
    fn default() -> Self {
        Record([0; 40])
    }
}

/// The key's bytes; `None` if it is not IPv4, or its zone has no direction that exists: what the wire cannot say must
/// not stand in the queue for it.
pub(super) fn key_bytes(key: &FlowKey) -> Option<KeyBytes> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (key.source, key.destination) else { return None };
    if key.zone.direction > Zone::REPLY {
        return None;
    }
    let mut bytes = [0; 16];
    bytes[0..4].copy_from_slice(&source.octets());
    bytes[4..8].copy_from_slice(&destination.octets());
    bytes[8..10].copy_from_slice(&key.source_port.to_be_bytes());
    bytes[10..12].copy_from_slice(&key.destination_port.to_be_bytes());
    bytes[12] = key.protocol;
    bytes[13] = key.zone.direction;
    bytes[14..16].copy_from_slice(&key.zone.id.to_be_bytes());
    Some(bytes)
}

impl Record {
    /// Packs a flow in its canonical form; `None` if anything in it has no form on this wire.
    pub(super) fn pack(flow: &Flow) -> Option<Self> {
        let flow = flow.clone().canonical();
        let mut bytes = [0; 40];
        bytes[0..16].copy_from_slice(&key_bytes(&flow.key)?);
        if let Some(reply) = flow.reply_source {
            let IpAddr::V4(address) = reply.address else { return None };
            bytes[29] |= REPLY_SOURCE;
            bytes[16..20].copy_from_slice(&address.octets());
            bytes[20..22].copy_from_slice(&reply.port.to_be_bytes());
        }
        if let Some(reply) = flow.reply_destination {
            let IpAddr::V4(address) = reply.address else { return None };
            bytes[29] |= REPLY_DESTINATION;
            bytes[22..24].copy_from_slice(&reply.port.to_be_bytes());
            bytes[24..28].copy_from_slice(&address.octets());
        }
        bytes[28] = flow.state;
        bytes[30..32].copy_from_slice(&flow.status.to_be_bytes());
        if let Some(tcp) = flow.tcp {
            bytes[29] |= TCP;
            bytes[32] = tcp.window_scale_original;
            bytes[33] = tcp.window_scale_reply;
            bytes[34] = tcp.flags_original;
            bytes[35] = tcp.flags_reply;
        }
        bytes[36..40].copy_from_slice(&flow.mark.to_be_bytes());
        Some(Record(bytes))
    }

    /// A record of which nothing is known but the key.
    pub(super) fn of_key(key: &KeyBytes) -> Self {
        let mut bytes = [0; 40];
        bytes[0..16].copy_from_slice(key);
        Record(bytes)
    }

    /// The whole encoding.
    pub(super) fn bytes(&self) -> &[u8; 40] {
        &self.0
    }

    /// The key's part of it.
    pub(super) fn key_bytes(&self) -> &KeyBytes {
        self.0.first_chunk().expect("a record is longer than its key")
    }

    /// The key.
    pub(super) fn key(&self) -> FlowKey {
        FlowKey {
            source: self.address(0),
            destination: self.address(4),
            source_port: self.short(8),
            destination_port: self.short(10),
            protocol: self.0[12],
            zone: Zone { id: self.short(14), direction: self.0[13] },
        }
    }

    /// The flow, with `timeout` seconds to live.
    pub(super) fn flow(&self, timeout: u32) -> Flow {
        let present = |bit: u8| self.0[29] & bit != 0;
        Flow {
            key: self.key(),
            reply_source: present(REPLY_SOURCE).then(|| Endpoint { address: self.address(16), port: self.short(20) }),
            reply_destination: present(REPLY_DESTINATION)
                .then(|| Endpoint { address: self.address(24), port: self.short(22) }),
            state: self.0[28],
            status: self.short(30),
            timeout,
            tcp: present(TCP).then(|| TcpInfo {
                window_scale_original: self.0[32],
                window_scale_reply: self.0[33],
                flags_original: self.0[34],
                flags_reply: self.0[35],
            }),
            mark: u32::from_be_bytes([self.0[36], self.0[37], self.0[38], self.0[39]]),
            attributes: Attributes::NONE,
        }
    }

    fn address(&self, at: usize) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]))
    }

    fn short(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.0[at], self.0[at + 1]])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv6Addr;

    fn endpoint(address: [u8; 4], port: u16) -> Endpoint {
        Endpoint { address: IpAddr::from(address), port }
    }

    fn full() -> Flow {
        Flow {
            key: FlowKey {
                source: IpAddr::from([10, 0, 0, 1]),
                destination: IpAddr::from([192, 0, 2, 10]),
                source_port: 40000,
                destination_port: 80,
                protocol: 6,
                zone: Zone { id: 0x0102, direction: 2 },
            },
            reply_source: Some(endpoint([10, 9, 8, 7], 8080)),
            reply_destination: Some(endpoint([203, 0, 113, 5], 61000)),
            state: 3,
            status: 0x018e,
            timeout: 432_000,
            tcp: Some(TcpInfo {
                window_scale_original: 7,
                window_scale_reply: 9,
                flags_original: 0x23,
                flags_reply: 0x22,
            }),
            mark: 0xdead_beef,
            attributes: Attributes::NONE,
        }
    }

    const FULL: [u8; 40] = [
        10, 0, 0, 1, 192, 0, 2, 10, 0x9c, 0x40, 0, 80, 6, 2, 1, 2, // key
        10, 9, 8, 7, 0x1f, 0x90, 0xee, 0x48, 203, 0, 113, 5, // reply side
        3, 7, 0x01, 0x8e, 7, 9, 0x23, 0x22, 0xde, 0xad, 0xbe, 0xef,
    ];

    /// [4.4.2] The encoding is protocol: these bytes never change.
    #[test]
    fn the_canonical_encoding_is_these_forty_bytes() {
        let record = Record::pack(&full()).expect("IPv4");
        assert_eq!(record.bytes(), &FULL);
        assert_eq!(record.flow(432_000), full());
        assert_eq!(record.key_bytes(), &FULL[..16]);
    }

    #[test]
    fn what_a_canonical_flow_leaves_out_takes_no_part() {
        let plain = Flow { status: 0x000e, state: 3, timeout: 9, ..Flow::new(full().key) };
        let mut bytes = [0; 40];
        bytes[..16].copy_from_slice(&FULL[..16]);
        bytes[28] = 3;
        bytes[31] = 0x0e;
        let spelled_out = Flow {
            reply_source: Some(endpoint([192, 0, 2, 10], 80)),
            reply_destination: Some(endpoint([10, 0, 0, 1], 40000)),
            tcp: Some(TcpInfo::default()),
            ..plain.clone()
        };
        assert_eq!(Record::pack(&plain).expect("IPv4").bytes(), &bytes);
        assert_eq!(Record::pack(&spelled_out).expect("IPv4").bytes(), &bytes);
        assert_eq!(Record::pack(&spelled_out).expect("IPv4").flow(9), plain);
    }

    /// A port that differs, or an address that differs, is NAT; zero is an address and a port like any other.
    #[test]
    fn half_a_difference_is_a_difference() {
        let key = full().key;
        for (source, destination) in [
            (endpoint([192, 0, 2, 10], 81), endpoint([10, 0, 0, 1], 40001)),
            (endpoint([192, 0, 2, 11], 80), endpoint([10, 0, 0, 2], 40000)),
            (endpoint([0, 0, 0, 0], 0), endpoint([0, 0, 0, 0], 0)),
        ] {
            let flow = Flow { reply_source: Some(source), reply_destination: Some(destination), ..Flow::new(key) };
            let record = Record::pack(&flow).expect("IPv4");
            assert_eq!(record.flow(0), flow);
            assert_eq!(record.bytes()[29], 0b011);
        }
    }

    /// The wire has four bits for a scale: a wider one would make the peers' digests differ for ever.
    #[test]
    fn a_window_scale_is_kept_as_wide_as_the_wire_carries_it() {
        let tcp = TcpInfo { window_scale_original: 16, window_scale_reply: 255, ..TcpInfo::default() };
        let record = Record::pack(&Flow { tcp: Some(tcp), ..full() }).expect("IPv4");
        assert_eq!(record.bytes()[32..34], [15, 15]);
    }

    #[test]
    fn another_address_family_anywhere_is_not_packed() {
        let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
        let other = Endpoint { address: v6, port: 80 };
        let key = full().key;
        assert_eq!(Record::pack(&Flow { key: FlowKey { source: v6, ..key }, ..full() }), None);
        assert_eq!(Record::pack(&Flow { key: FlowKey { destination: v6, ..key }, ..full() }), None);
        assert_eq!(Record::pack(&Flow { reply_source: Some(other), ..full() }), None);
        assert_eq!(Record::pack(&Flow { reply_destination: Some(other), ..full() }), None);
    }
}
