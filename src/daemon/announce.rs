//! Gratuitous ARP: "this address is at this link address from now on", so that neighbours and switches follow at once.
//!
//! ```text
//!   broadcast ◀ mac  │ 0806 │ op 1  sender mac, address │ target 0,   address     ARP Announcement, RFC 5227 §3
//!   broadcast ◀ mac  │ 0806 │ op 2  sender mac, address │ target mac, address     gratuitous reply, RFC 5944 §4.6
//! ```
//!
//! Both forms are sent, because there are neighbours that heed only one of them.

use pnet::datalink::MacAddr;
use pnet::packet::arp::{ArpHardwareTypes, ArpOperation, ArpOperations, MutableArpPacket};
use pnet::packet::ethernet::{EtherTypes, MutableEthernetPacket};
use std::io;
use std::net::Ipv4Addr;

/// Bytes of an Ethernet frame with an ARP packet, without padding.
pub const ARP_FRAME_LEN: usize = 14 + 28;

/// A way to send Ethernet frames on one interface.
pub trait Announce: Send {
    /// Sends one frame, which begins with its Ethernet header.
    ///
    /// # Errors
    /// The operating system's error.
    fn send(&mut self, frame: &[u8]) -> io::Result<()>;
}

/// Both forms of the announcement of `address` at `mac`.
pub fn announcements(mac: [u8; 6], address: Ipv4Addr) -> [[u8; ARP_FRAME_LEN]; 2] {
    let mac = MacAddr::from(mac);
    [frame(ArpOperations::Request, mac, MacAddr::zero(), address), frame(ArpOperations::Reply, mac, mac, address)]
}

fn frame(operation: ArpOperation, mac: MacAddr, target: MacAddr, address: Ipv4Addr) -> [u8; ARP_FRAME_LEN] {
    let mut bytes = [0; ARP_FRAME_LEN];
    let (head, body) = bytes.split_at_mut(14);
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
        let [request, reply] = announcements([2, 0, 0, 0, 0, 0xaa], Ipv4Addr::new(192, 0, 2, 10));
        #[rustfmt::skip]
        assert_eq!(request, [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 0xaa, 0x08, 0x06,
            0, 1, 0x08, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 0xaa, 192, 0, 2, 10, 0, 0, 0, 0, 0, 0, 192, 0, 2, 10,
        ]);
        #[rustfmt::skip]
        assert_eq!(reply, [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 0xaa, 0x08, 0x06,
            0, 1, 0x08, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 0xaa, 192, 0, 2, 10, 2, 0, 0, 0, 0, 0xaa, 192, 0, 2, 10,
        ]);
    }
}
