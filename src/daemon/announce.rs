//! "This address is at this link address from now on", so that neighbours and switches follow at once: gratuitous ARP for
//! IPv4, unsolicited neighbour advertisements for IPv6.
//!
//! ```text
//!   broadcast ◀ mac  │ 0806 │ op 1  sender mac, address │ target 0,   address     ARP Announcement, RFC 5227 §3
//!   broadcast ◀ mac  │ 0806 │ op 2  sender mac, address │ target mac, address     gratuitous reply, RFC 5944 §4.6
//!   33:33::1  ◀ mac  │ 86dd │ address ▶ ff02::1, hops 255 │ ICMPv6 136, override  │ target address, its link address
//!                                                                                 RFC 4861 §7.2.6
//! ```
//!
//! Both forms of ARP are sent, because there are neighbours that heed only one of them.

use pnet::datalink::MacAddr;
use pnet::packet::arp::{ArpHardwareTypes, ArpOperation, ArpOperations, MutableArpPacket};
use pnet::packet::ethernet::{EtherTypes, MutableEthernetPacket};
use pnet::packet::ip::IpNextHeaderProtocols;
use pnet::packet::ipv6::MutableIpv6Packet;
use pnet::util::ipv6_checksum;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of an Ethernet header.
const ETHERNET_LEN: usize = 14;
/// Bytes of an Ethernet frame with an ARP packet, without padding.
pub const ARP_FRAME_LEN: usize = ETHERNET_LEN + 28;
/// Bytes of an Ethernet frame with a neighbour advertisement and one option.
pub const ADVERTISEMENT_FRAME_LEN: usize = ETHERNET_LEN + 40 + ADVERTISEMENT_LEN;
/// Bytes of a neighbour advertisement with its target's link address (RFC 4861 sections 4.4 and 4.6.1).
const ADVERTISEMENT_LEN: usize = 24 + 8;
/// Every node on the link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Its Ethernet address (RFC 2464 section 7).
const ALL_NODES_MAC: MacAddr = MacAddr(0x33, 0x33, 0, 0, 0, 1);

/// A way to send Ethernet frames on one interface.
pub trait Announce: Send {
    /// Sends one frame, which begins with its Ethernet header.
    ///
    /// # Errors
    /// The operating system's error.
    fn send(&mut self, frame: &[u8]) -> io::Result<()>;
}

/// Every form of the announcement of `address` at `mac`. `router` says whether the machine forwards IPv6 there: neighbours
/// strike one that says no from their list of routers.
pub fn announcements(mac: [u8; 6], address: IpAddr, router: bool) -> Vec<Vec<u8>> {
    let mac = MacAddr::from(mac);
    match address {
        IpAddr::V4(address) => vec![
            arp(ArpOperations::Request, mac, MacAddr::zero(), address).to_vec(),
            arp(ArpOperations::Reply, mac, mac, address).to_vec(),
        ],
        IpAddr::V6(address) => vec![advertisement(mac, address, router).to_vec()],
    }
}

fn advertisement(mac: MacAddr, address: Ipv6Addr, router: bool) -> [u8; ADVERTISEMENT_FRAME_LEN] {
    const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    const ROUTER: u8 = 0x80;
    const OVERRIDE: u8 = 0x20;
    const TARGET_LINK_ADDRESS: u8 = 2;
    let mut body = [0; ADVERTISEMENT_LEN];
    body[0] = NEIGHBOUR_ADVERTISEMENT;
    body[4] = OVERRIDE | if router { ROUTER } else { 0 };
    body[8..24].copy_from_slice(&address.octets());
    body[24..26].copy_from_slice(&[TARGET_LINK_ADDRESS, 1]);
    body[26..32].copy_from_slice(&mac.octets());
    let sum = ipv6_checksum(&body, 1, &[], &address, &ALL_NODES, IpNextHeaderProtocols::Icmpv6);
    body[2..4].copy_from_slice(&sum.to_be_bytes());

    let mut bytes = [0; ADVERTISEMENT_FRAME_LEN];
    let (head, packet) = bytes.split_at_mut(ETHERNET_LEN);
    if let Some(mut ethernet) = MutableEthernetPacket::new(head) {
        ethernet.set_destination(ALL_NODES_MAC);
        ethernet.set_source(mac);
        ethernet.set_ethertype(EtherTypes::Ipv6);
    }
    if let Some(mut ip) = MutableIpv6Packet::new(packet) {
        ip.set_version(6);
        ip.set_payload_length(ADVERTISEMENT_LEN as u16);
        ip.set_next_header(IpNextHeaderProtocols::Icmpv6);
        ip.set_hop_limit(255);
        ip.set_source(address);
        ip.set_destination(ALL_NODES);
        ip.set_payload(&body);
    }
    bytes
}

fn arp(operation: ArpOperation, mac: MacAddr, target: MacAddr, address: Ipv4Addr) -> [u8; ARP_FRAME_LEN] {
    let mut bytes = [0; ARP_FRAME_LEN];
    let (head, body) = bytes.split_at_mut(ETHERNET_LEN);
    if let Some(mut ethernet) = MutableEthernetPacket::new(head) {
        ethernet.set_destination(MacAddr::broadcast());
        ethernet.set_source(mac);
        ethernet.set_ethertype(EtherTypes::Arp);
    }
    if let Some(mut arp) = MutableArpPacket::new(body) {
        arp.set_hardware_type(ArpHardwareTypes::Ethernet);
        arp.set_protocol_type(EtherTypes::Ipv4);
        arp.set_hw_addr_len(6);
        arp.set_proto_addr_len(4);
        arp.set_operation(operation);
        arp.set_sender_hw_addr(mac);
        arp.set_sender_proto_addr(address);
        arp.set_target_hw_addr(target);
        arp.set_target_proto_addr(address);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_as_the_standards_draw_them() {
        let forms = announcements([2, 0, 0, 0, 0, 0xaa], IpAddr::from([192, 0, 2, 10]), false);
        let [request, reply] = &forms[..] else { panic!("{} forms", forms.len()) };
        #[rustfmt::skip]
        assert_eq!(request[..], [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 0xaa, 0x08, 0x06,
            0, 1, 0x08, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 0xaa, 192, 0, 2, 10, 0, 0, 0, 0, 0, 0, 192, 0, 2, 10,
        ]);
        #[rustfmt::skip]
        assert_eq!(reply[..], [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 0xaa, 0x08, 0x06,
            0, 1, 0x08, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 0xaa, 192, 0, 2, 10, 2, 0, 0, 0, 0, 0xaa, 192, 0, 2, 10,
        ]);
    }

    /// The checksum comes from another implementation.
    #[test]
    fn a_neighbour_hears_of_an_ipv6_address_by_an_unsolicited_advertisement() {
        let address = "2001:db8::10".parse().unwrap();
        let frame = announcements([2, 0, 0, 0, 0, 0xaa], address, true).remove(0);
        #[rustfmt::skip]
        assert_eq!(frame[..56], [
            0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0xaa, 0x86, 0xdd,
            0x60, 0, 0, 0, 0, 32, 58, 255,
            0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
            0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
            136, 0,
        ]);
        #[rustfmt::skip]
        assert_eq!(frame[58..], [
            0xa0, 0, 0, 0, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 2, 1, 2, 0, 0, 0, 0, 0xaa,
        ]);
        assert_eq!(frame[56..58], [0x78, 0x63]);
        assert_eq!(announcements([2, 0, 0, 0, 0, 0xaa], address, false)[0][58], 0x20);
    }
}
