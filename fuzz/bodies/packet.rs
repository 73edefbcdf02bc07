//! Ethernet packets as packet sockets and AF_XDP see them, past the kernel's IP.

use super::captures::packets;
use ssyncp::transport::ethernet;
use ssyncp::wire::{GROUP, GROUP6, IP_PROTOCOL, TTL};
use std::net::IpAddr;

/// Largest frame that is taken.
const FRAME_LEN_MAX: usize = 1480;
/// Bytes of Ethernet's header, and of IPv6's.
const ETHERNET_LEN: usize = 14;
const IPV6_LEN: usize = 40;

/// A packet as it is; then the same with what is equal in all packets of ours put right, over either IP.
pub fn packet(data: &[u8]) {
    take(data, IpAddr::V4(GROUP));
    take(data, IpAddr::V6(GROUP6));
    for group in [IpAddr::V4(GROUP), IpAddr::V6(GROUP6)] {
        let mut packet = data.to_vec();
        if mend(&mut packet, group) {
            take(&packet, group);
        }
    }
}

/// The packets of the recordings behind an Ethernet header, and one over IPv6.
pub fn packet_seeds() -> Vec<Vec<u8>> {
    let raw = packets("pcap").into_iter().filter(|(_, link, _)| *link != 1);
    let plain = raw.map(|(_, _, ip)| [&[0x01, 0, 0x5e, 0, 0, 0x51, 2, 0, 0, 0, 0, 7, 8, 0][..], &ip].concat());
    let mut wide = vec![0; ETHERNET_LEN + IPV6_LEN + 48];
    wide[ETHERNET_LEN + 5] = 48;
    mend(&mut wide, IpAddr::V6(GROUP6));
    plain.chain([wide]).collect()
}

fn take(data: &[u8], group: IpAddr) {
    let mut packet = data.to_vec();
    let Ok((source, frame)) = ethernet::frame(&mut packet, group, FRAME_LEN_MAX) else { return };
    assert!((1..=FRAME_LEN_MAX).contains(&frame.len()));
    assert_eq!(source.is_ipv4(), group.is_ipv4());
    let (begin, end) = match group {
        IpAddr::V4(_) => {
            let header_len = usize::from(data[ETHERNET_LEN] & 15) * 4;
            (header_len, usize::from(u16::from_be_bytes([data[16], data[17]])))
        }
        IpAddr::V6(_) => (IPV6_LEN, IPV6_LEN + usize::from(u16::from_be_bytes([data[18], data[19]]))),
    };
    assert_eq!(frame, &data[ETHERNET_LEN + begin..ETHERNET_LEN + end], "something else than what its header says");
}

/// Type, protocol, TTL, group and checksum; false if the packet is too short for them.
fn mend(packet: &mut [u8], group: IpAddr) -> bool {
    let Some(ip) = packet.get_mut(12..) else { return false };
    match group {
        IpAddr::V4(group) => {
            let header_len = usize::from(ip.get(2).copied().unwrap_or(0) & 15) * 4;
            if header_len < 20 || ip.len() < 2 + header_len {
                return false;
            }
            ip[..2].copy_from_slice(&[8, 0]);
            let header = &mut ip[2..2 + header_len];
            header[6..8].copy_from_slice(&[0x40, 0]);
            header[8..12].copy_from_slice(&[TTL, IP_PROTOCOL, 0, 0]);
            header[16..20].copy_from_slice(&group.octets());
            let words = header.chunks_exact(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
            let mut sum: u32 = words.sum();
            while sum > 0xffff {
                sum = (sum >> 16) + (sum & 0xffff);
            }
            header[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        }
        IpAddr::V6(group) => {
            if ip.len() < 2 + IPV6_LEN {
                return false;
            }
            ip[..3].copy_from_slice(&[0x86, 0xdd, 0x60]);
            ip[8..10].copy_from_slice(&[IP_PROTOCOL, TTL]);
            ip[26..42].copy_from_slice(&group.octets());
        }
    }
    true
}
