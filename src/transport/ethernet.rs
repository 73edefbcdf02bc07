//! Ethernet II and IP headers around a frame, for transports that go past the kernel's IP: written for each frame that
//! leaves, read strictly from each packet that arrives.
//!
//! ```text
//!   0       6       12    14                                  34 (IPv4) or 54 (IPv6)
//!   │ group │ source│ type│ IP header: protocol 114, TTL 255  │ frame … │ padding, where the packet is short
//!     MAC     MAC
//! ```
//!
//! What the kernel does for raw sockets is done here: the header's checksum, the destination, fragments. A packet with a
//! VLAN tag is on another link than ours. Fragments are refused, not put together: a frame never leaves in pieces. The
//! destination's MAC address is not looked at: a bridge may have made unicast of multicast, and whether the interface
//! took the packet for itself is the kernel's to say.

use super::{Refusal, ipv4, ipv6};
use crate::planted::{Plant, planted};
use crate::wire::{IP_PROTOCOL, TTL};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of an Ethernet header without a VLAN tag.
const ETHERNET_LEN: usize = 14;
/// Ethertypes.
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
/// Flags and fragment offset of an IPv4 header: more fragments, or not the first.
const FRAGMENT: u16 = 0x3fff;
/// Don't fragment.
const WHOLE: [u8; 2] = [0x40, 0x00];

/// Bytes in front of a frame to `group`: Ethernet and IP header.
pub(super) const fn header_len(group: IpAddr) -> usize {
    ETHERNET_LEN + if group.is_ipv4() { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN }
}

/// Bytes of the longest headers in front of a frame to `group` that is taken: with IPv4 options, without a VLAN tag.
pub(super) const fn header_len_max(group: IpAddr) -> usize {
    ETHERNET_LEN + if group.is_ipv4() { ipv4::HEADER_LEN_MAX } else { ipv6::HEADER_LEN }
}

/// The hardware address that a group's packets go to (RFC 1112 section 6.4, RFC 2464 section 7).
pub(super) const fn group_mac(group: IpAddr) -> [u8; 6] {
    match group {
        IpAddr::V4(group) => {
            let [_, second, third, fourth] = group.octets();
            [0x01, 0x00, 0x5e, second & 0x7f, third, fourth]
        }
        IpAddr::V6(group) => {
            let [.., a, b, c, d] = group.octets();
            [0x33, 0x33, a, b, c, d]
        }
    }
}

/// The headers of frames that leave by one interface for one group.
#[derive(Clone, Debug)]
pub(super) struct Headers {
    bytes: [u8; ETHERNET_LEN + ipv6::HEADER_LEN],
    is_ipv4: bool,
    /// Sum of the words of the IPv4 header, length and checksum left out.
    sum: u32,
}

impl Headers {
    /// From the interface's hardware address and the address that frames come from, which is of the group's IP version.
    pub(super) fn new(mac: [u8; 6], source: IpAddr, group: IpAddr) -> Option<Self> {
        let mut bytes = [0; ETHERNET_LEN + ipv6::HEADER_LEN];
        bytes[..6].copy_from_slice(&group_mac(group));
        bytes[6..12].copy_from_slice(&mac);
        let ip = &mut bytes[ETHERNET_LEN..];
        match (source, group) {
            (IpAddr::V4(source), IpAddr::V4(group)) => {
                ip[0] = 0x45;
                ip[6..8].copy_from_slice(&WHOLE);
                (ip[8], ip[9]) = (TTL, IP_PROTOCOL);
                ip[12..16].copy_from_slice(&source.octets());
                ip[16..20].copy_from_slice(&group.octets());
            }
            (IpAddr::V6(source), IpAddr::V6(group)) => {
                ip[0] = 0x60;
                (ip[6], ip[7]) = (IP_PROTOCOL, TTL);
                ip[8..24].copy_from_slice(&source.octets());
                ip[24..40].copy_from_slice(&group.octets());
            }
            _ => return None,
        }
        let sum = words(&ip[..ipv4::HEADER_LEN]);
        bytes[12..14].copy_from_slice(if group.is_ipv4() { &IPV4 } else { &IPV6 });
        Some(Headers { bytes, is_ipv4: group.is_ipv4(), sum })
    }

    /// Writes the headers of a frame of `frame_len` bytes into the room in front of it, which is [`header_len`] long.
    pub(super) fn write(&self, room: &mut [u8], frame_len: usize) {
        room.copy_from_slice(&self.bytes[..room.len()]);
        let ip = &mut room[ETHERNET_LEN..];
        if self.is_ipv4 {
            let total_len = (ipv4::HEADER_LEN + frame_len) as u16;
            ip[2..4].copy_from_slice(&total_len.to_be_bytes());
            ip[10..12].copy_from_slice(&(!fold(self.sum + u32::from(total_len))).to_be_bytes());
        } else {
            ip[4..6].copy_from_slice(&(frame_len as u16).to_be_bytes());
        }
    }
}

/// The sender's address and the frame in a packet to `group`, from its Ethernet header on. The end may be padding, or may
/// have been cut off.
///
/// # Errors
/// [`Refusal`]: it is none, or its frame is empty or longer than `frame_len_max`.
pub fn frame(packet: &mut [u8], group: IpAddr, frame_len_max: usize) -> Result<(IpAddr, &mut [u8]), Refusal> {
    let (header, ip) = packet.split_at_mut_checked(ETHERNET_LEN).ok_or(Refusal::Malformed)?;
    match group {
        IpAddr::V4(group) if header[12..] == IPV4 => {
            ipv4_frame(ip, group, frame_len_max).map(|(source, frame)| (IpAddr::V4(source), frame))
        }
        IpAddr::V6(group) if header[12..] == IPV6 => {
            ipv6_frame(ip, group, frame_len_max).map(|(source, frame)| (IpAddr::V6(source), frame))
        }
        _ => Err(Refusal::Malformed),
    }
}

/// What the kernel checks before a raw socket gets the datagram (`ip_rcv_core` of net/ipv4/ip_input.c,
/// `ip_mc_validate_source` of net/ipv4/route.c); the rest is as for raw sockets.
fn ipv4_frame(ip: &mut [u8], group: Ipv4Addr, frame_len_max: usize) -> Result<(Ipv4Addr, &mut [u8]), Refusal> {
    let header_len = usize::from(ip.first().ok_or(Refusal::Malformed)? & 0x0f) * 4;
    let header = ip.get(..header_len.max(ipv4::HEADER_LEN)).ok_or(Refusal::Malformed)?;
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let ours = header[9] == IP_PROTOCOL && header[16..20] == group.octets();
    let source = Ipv4Addr::new(header[12], header[13], header[14], header[15]);
    let from_one = !source.is_multicast() && !source.is_broadcast();
    if !ours || !from_one || word(6) & FRAGMENT != 0 || fold(words(header)) != u16::MAX {
        return Err(Refusal::Malformed);
    }
    let arrived = if planted(Plant::PacketLength) { usize::MAX } else { ip.len() };
    let total_len = usize::from(word(2));
    ipv4::frame(&mut ip[..arrived.min(total_len)], frame_len_max)
}

/// As for IPv4. Extension headers are refused: nobody who speaks this protocol sends any.
fn ipv6_frame(ip: &mut [u8], group: Ipv6Addr, frame_len_max: usize) -> Result<(Ipv6Addr, &mut [u8]), Refusal> {
    let (header, payload) = ip.split_first_chunk_mut::<{ ipv6::HEADER_LEN }>().ok_or(Refusal::Malformed)?;
    let ours = header[6] == IP_PROTOCOL && header[24..40] == group.octets();
    let source: [u8; 16] = header[8..24].try_into().map_err(|_| Refusal::Malformed)?;
    let source = Ipv6Addr::from(source);
    if header[0] >> 4 != 6 || !ours || source.is_multicast() {
        return Err(Refusal::Malformed);
    }
    if header[7] != TTL {
        return Err(Refusal::Ttl);
    }
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    match length {
        0 => Err(Refusal::Malformed),
        _ if length > frame_len_max => Err(Refusal::Oversized),
        _ => payload.get_mut(..length).map(|frame| (source, frame)).ok_or(Refusal::Malformed),
    }
}

/// Sum of 16-bit words (RFC 1071), of at most 60 bytes.
fn words(bytes: &[u8]) -> u32 {
    bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum()
}

/// The sum in ones' complement.
fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 81));
    const GROUP6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x7251));
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

    /// 4 bytes "data" from 10.0.0.1: 0x45 … with the checksum 0x9121 (worked out by hand).
    const PLAIN: [u8; 38] = [
        0x01, 0x00, 0x5e, 0, 0, 0x51, 2, 0, 0, 0, 0, 7, 0x08, 0x00, //
        0x45, 0, 0, 24, 0, 0, 0x40, 0, 255, 114, 0x91, 0x21, 10, 0, 0, 1, 224, 0, 0, 81, //
        b'd', b'a', b't', b'a',
    ];

    /// The same from fe80::1.
    const PLAIN6: [u8; 58] = [
        0x33, 0x33, 0, 0, 0x72, 0x51, 2, 0, 0, 0, 0, 7, 0x86, 0xdd, //
        0x60, 0, 0, 0, 0, 4, 114, 255, //
        0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, //
        0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x72, 0x51, //
        b'd', b'a', b't', b'a',
    ];

    /// The packet with one byte of its IPv4 header changed, and the checksum made right again.
    fn with(index: usize, value: u8) -> Vec<u8> {
        let mut packet = PLAIN.to_vec();
        packet[index] = value;
        summed(packet)
    }

    fn summed(mut packet: Vec<u8>) -> Vec<u8> {
        let header_len = usize::from(packet[14] & 15) * 4;
        let sum = pnet::packet::util::checksum(&packet[14..14 + header_len.clamp(12, packet.len() - 14)], 5);
        packet[24..26].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    fn refusal(mut packet: Vec<u8>) -> Refusal {
        frame(&mut packet, GROUP, 4).unwrap_err()
    }

    #[test]
    fn a_frame_is_dressed_as_the_kernel_would_dress_it() {
        let headers = Headers::new(MAC, "10.0.0.1".parse().unwrap(), GROUP).unwrap();
        let mut packet = [0xaa; 38];
        let (room, data) = packet.split_at_mut(34);
        headers.write(room, data.len());
        data.copy_from_slice(b"data");
        assert_eq!(packet, PLAIN);
        let headers = Headers::new(MAC, "fe80::1".parse().unwrap(), GROUP6).unwrap();
        let mut packet = [0xaa; 58];
        let (room, data) = packet.split_at_mut(54);
        headers.write(room, data.len());
        data.copy_from_slice(b"data");
        assert_eq!(packet, PLAIN6);
        assert_eq!((header_len(GROUP), header_len(GROUP6)), (34, 54));
        assert_eq!((header_len_max(GROUP), header_len_max(GROUP6)), (74, 54));
        assert!(Headers::new(MAC, "fe80::1".parse().unwrap(), GROUP).is_none());
    }

    #[test]
    fn the_checksum_is_right_for_every_length() {
        let headers = Headers::new(MAC, "192.0.2.255".parse().unwrap(), GROUP).unwrap();
        for length in (1..=8960).step_by(7) {
            let mut room = [0; 34];
            headers.write(&mut room, length);
            let header = pnet::packet::ipv4::Ipv4Packet::new(&room[14..]).unwrap();
            assert_eq!(header.get_checksum(), pnet::packet::ipv4::checksum(&header), "{length}");
            assert_eq!(usize::from(header.get_total_length()), 20 + length);
        }
    }

    #[test]
    fn a_groups_hardware_address_holds_its_last_bits() {
        assert_eq!(group_mac("239.255.1.2".parse().unwrap()), [0x01, 0x00, 0x5e, 0x7f, 1, 2]);
        assert_eq!(group_mac("ff02::1:ff00:42".parse().unwrap()), [0x33, 0x33, 0xff, 0, 0, 0x42]);
    }

    #[test]
    fn the_frame_follows_the_headers_and_padding_follows_the_frame() {
        let source: IpAddr = "10.0.0.1".parse().unwrap();
        let mut packet = PLAIN.to_vec();
        assert_eq!(frame(&mut packet, GROUP, 4), Ok((source, &mut b"data".to_vec()[..])));
        packet.resize(60, 0xee);
        assert_eq!(frame(&mut packet, GROUP, 4), Ok((source, &mut b"data".to_vec()[..])));
        let mut packet = PLAIN6.to_vec();
        packet.resize(70, 0xee);
        let source: IpAddr = "fe80::1".parse().unwrap();
        assert_eq!(frame(&mut packet, GROUP6, 4), Ok((source, &mut b"data".to_vec()[..])));
    }

    #[test]
    fn options_belong_to_the_header() {
        let mut packet = PLAIN.to_vec();
        packet.splice(34..34, [1, 1, 1, 0]);
        (packet[14], packet[17]) = (0x46, 28);
        assert_eq!(frame(&mut summed(packet), GROUP, 4).unwrap().1, b"data");
    }

    /// [3.0.1] [3.0.2] Protocol 114, to the group, TTL 255, whole; and nothing else.
    #[test]
    fn what_is_not_exactly_ours_is_refused() {
        assert_eq!(refusal(with(22, 254)), Refusal::Ttl);
        assert_eq!(refusal(with(23, 17)), Refusal::Malformed, "UDP");
        assert_eq!(refusal(with(33, 82)), Refusal::Malformed, "another group");
        assert_eq!(refusal(with(20, 0x60)), Refusal::Malformed, "more fragments follow");
        assert_eq!(refusal(with(21, 1)), Refusal::Malformed, "not the first fragment");
        assert_eq!(refusal(with(26, 224)), Refusal::Malformed, "from a group");
        assert_eq!(refusal(with(14, 0x65)), Refusal::Malformed, "version 6");
        assert_eq!(refusal(with(14, 0x44)), Refusal::Malformed, "a header of 16 bytes");
        assert_eq!(refusal(with(17, 20)), Refusal::Malformed, "no frame");
        assert_eq!(refusal(with(17, 25)), Refusal::Oversized);
        let mut summed_wrong = PLAIN.to_vec();
        summed_wrong[25] ^= 1;
        assert_eq!(refusal(summed_wrong), Refusal::Malformed, "the checksum");
        let mut tagged = PLAIN.to_vec();
        tagged.splice(12..12, [0x81, 0x00, 0, 5]);
        assert_eq!(refusal(tagged), Refusal::Malformed, "on VLAN 5");
        let mut cut = PLAIN.to_vec();
        cut.pop();
        assert_eq!(refusal(cut), Refusal::Malformed, "less arrived than the length says");
    }

    /// [3.0.5]
    #[test]
    fn over_ipv6_what_is_not_exactly_ours_is_refused() {
        let with = |index: usize, value: u8| {
            let mut packet = PLAIN6;
            packet[index] = value;
            frame(&mut packet, GROUP6, 4).map(|(_, frame)| frame.len())
        };
        assert_eq!(with(0, 1), Ok(4), "a bridge has made unicast of it");
        assert_eq!(with(21, 254), Err(Refusal::Ttl));
        for (index, value) in [(12, 8), (14, 0x40), (20, 44), (20, 17), (22, 0xff), (53, 0x52), (19, 0)] {
            assert_eq!(with(index, value), Err(Refusal::Malformed), "byte {index} is {value}");
        }
        assert_eq!(with(19, 5), Err(Refusal::Oversized));
        assert_eq!(frame(&mut PLAIN6.to_vec()[..57], GROUP6, 4), Err(Refusal::Malformed), "the end is missing");
        assert_eq!(frame(&mut PLAIN.to_vec(), GROUP6, 4), Err(Refusal::Malformed), "IPv4");
    }

    #[test]
    fn a_packet_of_any_length_is_refused_without_panic() {
        for length in 0..PLAIN.len() {
            assert_eq!(refusal(PLAIN[..length].to_vec()), Refusal::Malformed, "{length} bytes");
            assert!(frame(&mut PLAIN6.to_vec()[..length], GROUP6, 4).is_err());
        }
    }

    proptest::proptest! {
        #[test]
        fn any_packet_is_a_refusal_or_a_frame_within_bounds(
            changes in proptest::collection::vec((0usize..58, 0u8..), 0..6), length in 0usize..80, six: bool,
        ) {
            let (mut packet, group) = if six { (PLAIN6.to_vec(), GROUP6) } else { (PLAIN.to_vec(), GROUP) };
            packet.resize(length, 0);
            for (index, value) in changes {
                if let Some(byte) = packet.get_mut(index) {
                    *byte = value;
                }
            }
            if let Ok((_, data)) = frame(&mut packet, group, 16) {
                assert!((1..=16).contains(&data.len()));
            }
        }
    }
}
