//! Recordings: files of any bytes, and packets of any link layer.

use super::captures::{self, packets};
use ssyncp::transport::pcap::{Format, Layers, Reader, Writer};
use ssyncp::wire::ipvs::{Message, WordOrder};
use std::io::Cursor;
use std::time::Duration;

/// An IPv4 packet of ours with four bytes in it.
const PACKET: [u8; 24] = [0x45, 0, 0, 24, 0, 1, 0x40, 0, 255, 114, 0, 0, 192, 0, 2, 1, 224, 0, 0, 81, 1, 2, 3, 4];

/// Most bytes that IP fragments of one datagram can hold.
const DATAGRAM_LEN_MAX: usize = 65_535 + 65_535;

/// A file; then its bytes as packets of one link type, which gets the fuzzer past the file's own header.
pub fn pcap(data: &[u8]) {
    file(data, Format::Pcap);
    packets_of_one_link(data);
}

/// A file that begins as a pcapng file does, or any other.
pub fn pcapng(data: &[u8]) {
    file(data, Format::PcapNg);
}

/// The recordings, and for [`packets_of_one_link`] their packets in a row.
pub fn pcap_seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = ["pcap", "pcap/ipvs"].into_iter().flat_map(captures::files).collect();
    for folder in ["pcap", "pcap/ipvs"] {
        for few in packets(folder).chunks(3) {
            let mut seed = few[0].1.to_be_bytes().to_vec();
            for (_, _, packet) in few.iter().filter(|(_, link, _)| *link == few[0].1) {
                seed.extend_from_slice(&(packet.len() as u16).to_be_bytes());
                seed.extend_from_slice(packet);
            }
            seeds.push(seed);
        }
    }
    seeds.extend(layers());
    seeds
}

/// An IP packet behind each link layer that there is, as [`packets_of_one_link`] reads it.
fn layers() -> impl Iterator<Item = Vec<u8>> {
    let ethernet = [&[0; 12][..], &[0x81, 0, 0, 5, 8, 0]].concat();
    let cooked = [&[0; 14][..], &[8, 0]].concat();
    let cooked_2 = [&[8, 0][..], &[0; 18]].concat();
    let heads = [(0, vec![2, 0, 0, 0]), (1, ethernet), (101, vec![]), (113, cooked), (276, cooked_2)];
    heads.into_iter().map(|(link, head): (u16, Vec<u8>)| {
        let length = (head.len() + PACKET.len()) as u16;
        [&link.to_be_bytes()[..], &length.to_be_bytes(), &head, &PACKET].concat()
    })
}

/// The same packets as pcapng, and small files with what our writer does not write.
pub fn pcapng_seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = packets("pcap")
        .chunks(4)
        .map(|few| {
            let mut bytes = Vec::new();
            let mut writer = Writer::new(Format::PcapNg, &mut bytes).expect("memory");
            for (time, _, packet) in few {
                writer.write(Duration::from_secs(*time), packet).expect("an IP packet");
            }
            bytes
        })
        .collect();
    seeds.push(blocks(false));
    seeds.push(blocks(true));
    seeds
}

/// A section with two interfaces (one with a resolution in powers of two and an offset), an enhanced and a simple
/// packet, and a block of unknown type, in either byte order.
fn blocks(big_endian: bool) -> Vec<u8> {
    let u16_of = |value: u16| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    let u32_of = |value: u32| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    let block = |kind: u32, body: &[u8]| {
        let len = u32_of(12 + body.len() as u32);
        [&u32_of(kind)[..], &len, body, &len].concat()
    };
    let option = |kind: u16, value: &[u8]| {
        let mut bytes = [u16_of(kind), u16_of(value.len() as u16)].concat();
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let offset = if big_endian { (-3_i64).to_be_bytes() } else { (-3_i64).to_le_bytes() };
    let options = [option(9, &[0x8a]), option(14, &offset), option(0, &[])].concat();
    let section = [&u32_of(0x1a2b_3c4d)[..], &u16_of(1), &u16_of(0), &[0xff; 8]].concat();
    let raw = [&u16_of(101)[..], &u16_of(0), &u32_of(0)].concat();
    let with_options = [&raw[..], &options].concat();
    let enhanced = [&[1_u32, 7, 9, 24, 24].map(u32_of).concat()[..], &PACKET].concat();
    let simple = [&u32_of(24)[..], &PACKET].concat();
    let unknown = [1, 2, 3, 4];
    [
        block(0x0a0d_0d0a, &section),
        block(1, &raw),
        block(1, &with_options),
        block(6, &enhanced),
        block(3, &simple),
        block(0x0bad, &unknown),
    ]
    .concat()
}

/// Everything in a file, within its own size; what was read is written in `format` and read as the same.
fn file(data: &[u8], format: Format) {
    let Ok(mut reader) = Reader::new(Cursor::new(data.to_vec())) else { return };
    let mut layers = Layers::new();
    let (mut number, mut bytes) = (0, 0);
    let mut kept = Vec::new();
    loop {
        match reader.next_packet() {
            Ok(Some(packet)) => {
                number += 1;
                bytes += packet.bytes.len();
                assert_eq!(packet.number, number);
                assert!(packet.offset <= data.len() as u64);
                assert!(bytes <= data.len(), "more packets than the file has bytes");
                look(&mut layers, packet.link, packet.bytes);
                kept.push((packet.time, packet.bytes.to_vec()));
            }
            Ok(None) => break,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                assert!(matches!(reader.next_packet(), Ok(None)), "an error ends the file");
                break;
            }
        }
    }
    assert!(reader.offset() <= data.len() as u64);
    // A reader has a buffer of a megabyte, which takes longer than all else here.
    if !kept.is_empty() {
        write_again(format, &kept);
    }
}

fn write_again(format: Format, packets: &[(Duration, Vec<u8>)]) {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(format, &mut bytes).expect("memory");
    // A time that the format cannot say, and a packet that no IP packet can be, are refused.
    let written = packets.iter().filter(|(time, packet)| writer.write(*time, packet).is_ok());
    let written: Vec<&(Duration, Vec<u8>)> = written.collect();
    let mut reader = Reader::new(Cursor::new(bytes)).expect("what we write is a recording");
    for (time, packet) in written {
        let again = reader.next_packet().expect("what we write is whole").expect("as many packets");
        assert_eq!((again.time, again.bytes), (*time, packet.as_slice()));
    }
    assert!(matches!(reader.next_packet(), Ok(None)));
}

/// Two bytes of link type, then packets, each behind two bytes of length.
fn packets_of_one_link(data: &[u8]) {
    let Some((link, mut rest)) = data.split_first_chunk::<2>() else { return };
    let mut layers = Layers::new();
    while let Some((length, behind)) = rest.split_first_chunk::<2>() {
        let (packet, behind) = behind.split_at(usize::from(u16::from_be_bytes(*length)).min(behind.len()));
        look(&mut layers, u16::from_be_bytes(*link), packet);
        rest = behind;
    }
}

fn look(layers: &mut Layers, link: u16, packet: &[u8]) {
    let _ = Layers::peek(packet).map(|(datagram, _)| assert!(datagram.payload.len() <= packet.len()));
    match layers.datagram(link, packet) {
        Ok(Some(datagram)) => {
            assert!(datagram.payload.len() <= if datagram.fragmented { DATAGRAM_LEN_MAX } else { packet.len() });
            assert_eq!(datagram.source.is_ipv4(), datagram.destination.is_ipv4());
            if let Some((_, _, payload)) = datagram.udp() {
                let _ = Message::parse(payload, WordOrder::LittleEndian);
            }
        }
        Ok(None) => {}
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
