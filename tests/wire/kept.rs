//! Golden packets: `pcap/NAME.pcap` holds one, `pcap/NAME.txt` says in words what is in it. With `SSYNCP_BLESS` set they are
//! written anew.

use core::net::Ipv4Addr;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use pcap_file::{DataLink, Endianness};
use pnet::packet::Packet;
use pnet::packet::ip::IpNextHeaderProtocol;
use pnet::packet::ipv4::{Ipv4Flags, Ipv4Packet, MutableIpv4Packet, checksum};
use ssyncp::wire::{Secret, describe};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Bytes of the IPv4 header.
const IPV4_HEADER_LEN: usize = 20;

/// A golden's file.
pub(crate) fn file(name: &str, extension: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("pcap").join(format!("{name}.{extension}"))
}

/// The IPv4 packet that carries a frame, from 192.0.2.1.
pub(crate) fn packet_around(frame: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; IPV4_HEADER_LEN + frame.len()];
    let total_length = u16::try_from(bytes.len()).expect("fits");
    let mut packet = MutableIpv4Packet::new(&mut bytes).expect("room for the header");
    packet.set_version(4);
    packet.set_header_length(5);
    packet.set_total_length(total_length);
    packet.set_flags(Ipv4Flags::DontFragment);
    packet.set_ttl(255);
    packet.set_next_level_protocol(IpNextHeaderProtocol(114));
    packet.set_source(Ipv4Addr::new(192, 0, 2, 1));
    packet.set_destination(Ipv4Addr::new(224, 0, 0, 81));
    packet.set_payload(frame);
    let checksum = checksum(&packet.to_immutable());
    packet.set_checksum(checksum);
    bytes
}

/// The one packet of a golden's file.
pub(crate) fn read_packet(name: &str) -> Vec<u8> {
    let file = fs::File::open(file(name, "pcap")).unwrap_or_else(|error| panic!("pcap/{name}.pcap: {error}"));
    let mut reader = PcapReader::new(file).expect("a pcap file");
    assert_eq!(reader.header().datalink, DataLink::RAW);
    let packet = reader.next_packet().expect("one packet").expect("a whole packet").data.into_owned();
    assert!(reader.next_packet().is_none(), "pcap/{name}.pcap has more than one packet");
    packet
}

/// What stands beside it in words, as who has these secrets reads it.
pub(crate) fn text(name: &str, story: &str, packet: &[u8], secrets: &[Secret]) -> String {
    let ip = Ipv4Packet::new(packet).expect("an IPv4 packet");
    format!(
        "{name}\n{story}\n\nIPv4 {} -> {}, protocol {}, TTL {}, flags {:#x}, {} bytes\n\n{}",
        ip.get_source(),
        ip.get_destination(),
        ip.get_next_level_protocol().0,
        ip.get_ttl(),
        ip.get_flags(),
        ip.get_total_length(),
        describe(ip.payload(), secrets),
    )
}

/// Writes the files anew (name, story, frame) if that was asked for. Once, because the tests of a file run side by side.
pub(crate) fn bless(secrets: &[Secret], goldens: impl FnOnce() -> Vec<(&'static str, &'static str, Vec<u8>)>) {
    static ONCE: std::sync::Once = std::sync::Once::new();
    if std::env::var_os("SSYNCP_BLESS").is_none() {
        return;
    }
    ONCE.call_once(|| {
        for (name, story, frame) in goldens() {
            let packet = packet_around(&frame);
            let header =
                PcapHeader { datalink: DataLink::RAW, endianness: Endianness::Little, ..PcapHeader::default() };
            let out = fs::File::create(file(name, "pcap")).expect("writable");
            let mut writer = PcapWriter::with_header(out, header).expect("writable");
            let len = u32::try_from(packet.len()).expect("fits");
            writer.write_packet(&PcapPacket::new(Duration::from_secs(1_000_000_000), len, &packet)).expect("writable");
            fs::write(file(name, "txt"), text(name, story, &packet, secrets)).expect("writable");
        }
    });
}
