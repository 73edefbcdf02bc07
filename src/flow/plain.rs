//! A flow of IPv4 without attributes in the form in which wire, table and digest hold most of what they hold: 40 bytes.

use super::{Endpoint, Flow, FlowKey, TcpInfo, Zone, protocol};
use core::net::IpAddr;

/// Bytes of the key at the beginning of [`PlainFlow::encoding`].
pub const PLAIN_KEY_LEN: usize = 16;

/// What names a flow, as the canonical encoding begins (docs/protocol.md 4.4.2): addresses, ports, protocol, zone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyBytes {
    /// With addresses of IPv4.
    V4([u8; PLAIN_KEY_LEN]),
    /// With addresses of IPv6.
    V6([u8; 40]),
}

impl KeyBytes {
    /// `None` if its addresses are of two families, or its zone has no direction that exists.
    #[inline]
    pub fn of(key: &FlowKey) -> Option<Self> {
        if key.zone.direction > Zone::REPLY {
            return None;
        }
        match (key.source, key.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                Some(KeyBytes::V4(key_bytes(source.octets(), destination.octets(), key)))
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                Some(KeyBytes::V6(key_bytes(source.octets(), destination.octets(), key)))
            }
            _ => None,
        }
    }
}

fn key_bytes<const A: usize, const N: usize>(source: [u8; A], destination: [u8; A], key: &FlowKey) -> [u8; N] {
    let mut bytes = [0; N];
    bytes[..A].copy_from_slice(&source);
    bytes[A..2 * A].copy_from_slice(&destination);
    bytes[2 * A..2 * A + 2].copy_from_slice(&key.source_port.to_be_bytes());
    bytes[2 * A + 2..2 * A + 4].copy_from_slice(&key.destination_port.to_be_bytes());
    bytes[2 * A + 4..2 * A + 6].copy_from_slice(&[key.protocol, key.zone.direction]);
    bytes[2 * A + 6..].copy_from_slice(&key.zone.id.to_be_bytes());
    bytes
}

/// The canonical encoding of a flow of IPv4 without attributes (docs/protocol.md 4.4.2), and its time-out. All integers are
/// big-endian; what is absent is zero.
///
/// ```text
///  0 source 4, destination 4 │ 8 their ports 2 + 2 │ 12 protocol │ 13 zone direction, number 2     the key
/// 16 reply source 4, port 2  │ 22 reply port 2, destination 4
/// 28 state │ 29 present │ 30 status 2 │ 32 window scales 1 + 1, flags 1 + 1 │ 36 mark 4
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlainFlow {
    /// The key, and the value behind it.
    pub encoding: [u8; 40],
    /// Seconds that the entry has left to live.
    pub timeout: u32,
}

impl PlainFlow {
    /// Bit of `present`: the reply comes from elsewhere than the original packet went to.
    pub const REPLY_SOURCE: u8 = 1 << 0;
    /// Bit of `present`: the reply goes elsewhere than the original packet came from.
    pub const REPLY_DESTINATION: u8 = 1 << 1;
    /// Bit of `present`: there is TCP information.
    pub const TCP: u8 = 1 << 2;

    /// A flow of this key with nothing else known.
    pub fn new(key: &[u8; PLAIN_KEY_LEN], state: u8, status: [u8; 2], timeout: u32) -> Self {
        let mut encoding = [0; 40];
        encoding[..PLAIN_KEY_LEN].copy_from_slice(key);
        encoding[28] = state;
        encoding[30..32].copy_from_slice(&status);
        PlainFlow { encoding, timeout }
    }

    /// What names it.
    #[inline]
    pub fn key(&self) -> FlowKey {
        let bytes = &self.encoding;
        FlowKey {
            source: IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]),
            destination: IpAddr::from([bytes[4], bytes[5], bytes[6], bytes[7]]),
            source_port: u16::from_be_bytes([bytes[8], bytes[9]]),
            destination_port: u16::from_be_bytes([bytes[10], bytes[11]]),
            protocol: bytes[12],
            zone: Zone { id: u16::from_be_bytes([bytes[14], bytes[15]]), direction: bytes[13] },
        }
    }

    /// The same flow in the form that everybody understands.
    #[inline]
    pub fn flow(&self) -> Flow {
        let bytes = &self.encoding;
        let mut flow = Flow {
            state: bytes[28],
            status: u16::from_be_bytes([bytes[30], bytes[31]]),
            timeout: self.timeout,
            mark: u32::from_be_bytes([bytes[36], bytes[37], bytes[38], bytes[39]]),
            ..Flow::new(self.key())
        };
        if bytes[29] & Self::REPLY_SOURCE != 0 {
            let port = u16::from_be_bytes([bytes[20], bytes[21]]);
            let address = IpAddr::from([bytes[16], bytes[17], bytes[18], bytes[19]]);
            flow.reply_source = Some(Endpoint { address, port });
        }
        if bytes[29] & Self::REPLY_DESTINATION != 0 {
            let port = u16::from_be_bytes([bytes[22], bytes[23]]);
            let address = IpAddr::from([bytes[24], bytes[25], bytes[26], bytes[27]]);
            flow.reply_destination = Some(Endpoint { address, port });
        }
        flow.tcp = (bytes[29] & Self::TCP != 0).then(|| TcpInfo {
            window_scale_original: bytes[32],
            window_scale_reply: bytes[33],
            flags_original: bytes[34],
            flags_reply: bytes[35],
        });
        flow
    }

    /// The reply comes from here. As [`super::Flow::canonical`]: nothing if that is where the original packet went to, and the
    /// port of an ICMP answer is the kernel's to derive.
    pub fn set_reply_source(&mut self, address: [u8; 4], port: [u8; 2]) {
        let bytes = &mut self.encoding;
        let port = if protocol::is_icmp(bytes[12]) { [bytes[10], bytes[11]] } else { port };
        if (&address[..], &port[..]) != (&bytes[4..8], &bytes[10..12]) {
            bytes[16..20].copy_from_slice(&address);
            bytes[20..22].copy_from_slice(&port);
            bytes[29] |= Self::REPLY_SOURCE;
        }
    }

    /// The reply goes here; nothing if that is where the original packet came from.
    pub fn set_reply_destination(&mut self, address: [u8; 4], port: [u8; 2]) {
        let bytes = &mut self.encoding;
        if (&address[..], &port[..]) != (&bytes[0..4], &bytes[8..10]) {
            bytes[22..24].copy_from_slice(&port);
            bytes[24..28].copy_from_slice(&address);
            bytes[29] |= Self::REPLY_DESTINATION;
        }
    }

    /// TCP information; nothing if it says nothing, or belongs to another protocol.
    pub fn set_tcp(&mut self, tcp: TcpInfo) {
        if tcp != TcpInfo::default() && self.encoding[12] == protocol::TCP {
            let scale = |scale: u8| scale.min(TcpInfo::WINDOW_SCALE_MAX);
            self.encoding[32] = scale(tcp.window_scale_original);
            self.encoding[33] = scale(tcp.window_scale_reply);
            self.encoding[34] = tcp.flags_original;
            self.encoding[35] = tcp.flags_reply;
            self.encoding[29] |= Self::TCP;
        }
    }

    /// Connection mark.
    pub fn set_mark(&mut self, mark: [u8; 4]) {
        self.encoding[36..].copy_from_slice(&mark);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 16] = [10, 0, 0, 1, 192, 0, 2, 10, 0x9c, 0x40, 0, 80, 6, 2, 1, 2];

    /// [4.4.2]
    #[test]
    fn what_is_set_stands_where_the_encoding_has_it() {
        let mut plain = PlainFlow::new(&KEY, 3, [0x01, 0x8e], 60);
        plain.set_reply_source([10, 9, 8, 7], [0x1f, 0x90]);
        plain.set_reply_destination([203, 0, 113, 5], [0xee, 0x48]);
        plain.set_tcp(TcpInfo {
            window_scale_original: 7,
            window_scale_reply: 9,
            flags_original: 0x23,
            flags_reply: 0x22,
        });
        plain.set_mark([0xde, 0xad, 0xbe, 0xef]);
        #[rustfmt::skip]
        assert_eq!(plain.encoding, [
            10, 0, 0, 1, 192, 0, 2, 10, 0x9c, 0x40, 0, 80, 6, 2, 1, 2, //
            10, 9, 8, 7, 0x1f, 0x90, 0xee, 0x48, 203, 0, 113, 5, //
            3, 7, 0x01, 0x8e, 7, 9, 0x23, 0x22, 0xde, 0xad, 0xbe, 0xef,
        ]);
        assert_eq!(KeyBytes::of(&plain.key()), Some(KeyBytes::V4(KEY)));
        assert_eq!(plain.flow().reply_source.map(|end| end.port), Some(8080));
    }

    /// The mirror, and what belongs to another protocol, are left out.
    #[test]
    fn what_says_nothing_is_not_set() {
        let bare = PlainFlow::new(&KEY, 3, [0, 8], 60);
        let mut plain = bare;
        plain.set_reply_source([192, 0, 2, 10], [0, 80]);
        plain.set_reply_destination([10, 0, 0, 1], [0x9c, 0x40]);
        plain.set_tcp(TcpInfo::default());
        assert_eq!(plain, bare);
        let mut ping = KEY;
        ping[12] = protocol::ICMP;
        let bare = PlainFlow::new(&ping, 0, [0, 8], 60);
        let mut plain = bare;
        plain.set_reply_source([192, 0, 2, 10], [9, 9]);
        plain.set_tcp(TcpInfo { flags_reply: 1, ..TcpInfo::default() });
        assert_eq!(plain, bare, "the kernel derives the type of an answer");
    }
}
