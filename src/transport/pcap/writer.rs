//! IP packets into a pcap or pcapng file, without a link layer and with nanoseconds.

use etherparse::{IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header};
use pcap_parser::{EnhancedPacketBlock, InterfaceDescriptionBlock, SectionHeaderBlock};
use pcap_parser::{LegacyPcapBlock, PcapHeader};
use pcap_parser::{Linktype, ToVec};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

/// Largest IP packet.
const PACKET_LEN_MAX: u32 = 65_535;
/// First word of a pcap file whose stamps are nanoseconds.
const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
/// `if_tsresol` of pcapng: stamps are nanoseconds.
const NANOSECONDS: u8 = 9;

/// Why a packet could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The disk, or what stands for it.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Longer than an IP packet can be, or later than the format can say.
    #[error("the packet has no form in this file")]
    Unwritable,
}

/// The two formats.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// pcap with nanoseconds (libpcap's magic 0xa1b23c4d).
    Pcap,
    /// pcapng (draft-ietf-opsawg-pcapng).
    PcapNg,
}

impl Format {
    /// By the file's name: `.pcap` or `.pcapng`; `None` for any other.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "pcap" => Some(Format::Pcap),
            "pcapng" => Some(Format::PcapNg),
            _ => None,
        }
    }
}

/// A file that is being written.
pub struct Writer<W> {
    format: Format,
    output: W,
    written: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// [`WriteError::Io`].
    pub fn new(format: Format, output: W) -> Result<Self, WriteError> {
        let mut writer = Writer { format, output, written: 0 };
        match format {
            Format::Pcap => writer.put(PcapHeader {
                magic_number: MAGIC_NANOSECONDS,
                snaplen: PACKET_LEN_MAX,
                network: Linktype::RAW,
                ..PcapHeader::new()
            })?,
            Format::PcapNg => {
                writer.put(section())?;
                writer.put(interface())?;
            }
        }
        Ok(writer)
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Appends one IP packet, seen at `time` since the epoch.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn write(&mut self, time: Duration, packet: &[u8]) -> Result<(), WriteError> {
        let length = u32::try_from(packet.len()).ok().filter(|length| *length <= PACKET_LEN_MAX);
        let length = length.ok_or(WriteError::Unwritable)?;
        match self.format {
            Format::Pcap => self.put(LegacyPcapBlock {
                ts_sec: u32::try_from(time.as_secs()).map_err(|_| WriteError::Unwritable)?,
                ts_usec: time.subsec_nanos(),
                caplen: length,
                origlen: length,
                data: packet,
            }),
            Format::PcapNg => {
                let stamp = u64::try_from(time.as_nanos()).map_err(|_| WriteError::Unwritable)?;
                self.put(EnhancedPacketBlock {
                    block_type: 0,
                    block_len1: 0,
                    if_id: 0,
                    ts_high: (stamp >> 32) as u32,
                    ts_low: stamp as u32,
                    caplen: length,
                    origlen: length,
                    data: packet,
                    options: Vec::new(),
                    block_len2: 0,
                })
            }
        }
    }

    /// Hands what is buffered below on.
    ///
    /// # Errors
    /// [`WriteError::Io`].
    pub fn flush(&mut self) -> Result<(), WriteError> {
        Ok(self.output.flush()?)
    }

    /// Writes a block; its type and its lengths are filled in here.
    fn put(&mut self, mut block: impl ToVec) -> Result<(), WriteError> {
        let bytes = block.to_vec().map_err(|_| WriteError::Unwritable)?;
        self.output.write_all(&bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

fn section() -> SectionHeaderBlock<'static> {
    SectionHeaderBlock {
        block_type: 0,
        block_len1: 0,
        bom: 0,
        major_version: 1,
        minor_version: 0,
        // The section goes on to the end of the file.
        section_len: -1,
        options: Vec::new(),
        block_len2: 0,
    }
}

fn interface() -> InterfaceDescriptionBlock<'static> {
    InterfaceDescriptionBlock {
        block_type: 0,
        block_len1: 0,
        linktype: Linktype::RAW,
        reserved: 0,
        snaplen: PACKET_LEN_MAX,
        options: Vec::new(),
        block_len2: 0,
        if_tsresol: NANOSECONDS,
        if_tsoffset: 0,
    }
}

/// The IP header of a packet with `payload_len` bytes of `protocol`, TTL 255 and not to be fragmented. Both addresses are
/// of one family; `None` if they are not, or the packet would be too long.
pub fn ip_header(source: IpAddr, destination: IpAddr, protocol: u8, payload_len: usize) -> Option<IpHeaderBytes> {
    const TTL: u8 = 255;
    let payload_len = u16::try_from(payload_len).ok()?;
    let mut bytes = IpHeaderBytes { bytes: [0; 40], len: 0 };
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let (source, destination) = (source.octets(), destination.octets());
            let mut header = Ipv4Header::new(payload_len, TTL, IpNumber(protocol), source, destination).ok()?;
            header.header_checksum = header.calc_header_checksum();
            bytes.set(&header.to_bytes());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => bytes.set(
            &Ipv6Header {
                traffic_class: 0,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: payload_len,
                next_header: IpNumber(protocol),
                hop_limit: TTL,
                source: source.octets(),
                destination: destination.octets(),
            }
            .to_bytes(),
        ),
        _ => return None,
    }
    Some(bytes)
}

/// An IP header without options: 20 or 40 bytes.
#[derive(Clone, Copy, Debug)]
pub struct IpHeaderBytes {
    bytes: [u8; 40],
    len: usize,
}

impl IpHeaderBytes {
    fn set(&mut self, header: &[u8]) {
        self.len = header.len();
        self.bytes[..self.len].copy_from_slice(header);
    }
}

impl AsRef<[u8]> for IpHeaderBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::pcap::{Packet, Reader};
    use std::io::Cursor;

    #[test]
    fn what_is_written_is_read_back_to_the_nanosecond() {
        let time = Duration::new(1_700_000_000, 123_456_789);
        for (format, offset) in [(Format::Pcap, 24), (Format::PcapNg, 72)] {
            let mut bytes = Vec::new();
            let mut writer = Writer::new(format, &mut bytes).unwrap();
            writer.write(time, b"abc").unwrap();
            writer.write(time, b"abcd").unwrap();
            let written = writer.written();
            assert_eq!(written, bytes.len() as u64);
            let mut reader = Reader::new(Cursor::new(bytes)).unwrap();
            let packet = reader.next_packet().unwrap().unwrap();
            assert_eq!(packet, Packet { number: 1, offset, time, link: 101, original_len: 3, bytes: b"abc" });
            assert_eq!(reader.next_packet().unwrap().unwrap().bytes, b"abcd");
            assert_eq!(reader.next_packet().unwrap(), None);
        }
    }

    #[test]
    fn what_has_no_form_in_the_file_is_refused() {
        let mut writer = Writer::new(Format::Pcap, Vec::new()).unwrap();
        let refused = |result| matches!(result, Err(WriteError::Unwritable));
        assert!(refused(writer.write(Duration::ZERO, &[0; 65_536])));
        assert!(refused(writer.write(Duration::from_secs(1 << 32), b"abc")));
        assert_eq!(writer.written(), 24);
    }

    #[test]
    fn the_name_of_a_file_decides_its_format() {
        let of = |name: &str| Format::of(Path::new(name));
        assert_eq!(
            (of("a.pcap"), of("a.pcapng"), of("a.cap"), of("pcap")),
            (Some(Format::Pcap), Some(Format::PcapNg), None, None)
        );
    }

    #[test]
    fn a_packet_gets_the_header_that_the_wire_would_have() {
        let header = |source: &str, to: &str| ip_header(source.parse().unwrap(), to.parse().unwrap(), 114, 3);
        let bytes = [0x45, 0, 0, 23, 0, 0, 0x40, 0, 255, 114, 0x91, 0x22, 10, 0, 0, 1, 224, 0, 0, 81];
        assert_eq!(header("10.0.0.1", "224.0.0.81").unwrap().as_ref(), bytes);
        let six = header("fe80::1", "ff02::81").unwrap();
        assert_eq!((six.as_ref().len(), &six.as_ref()[4..8]), (40, &[0, 3, 114, 255][..]));
        assert!(header("10.0.0.1", "ff02::81").is_none());
    }
}
