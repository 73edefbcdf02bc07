//! Packets out of a pcap or pcapng file, one at a time, with the time and the link layer of each.
//!
//! ```text
//!   pcap    header: byte order, µs or ns, link type │ packet │ packet …
//!   pcapng  section │ interface 0: link type, resolution │ interface 1 … │ packet of 0 │ packet of 1 │ section …
//! ```

use crate::planted::{Plant, planted};
use pcap_parser::traits::{PcapNGPacketBlock, PcapReaderIterator};
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

/// Bytes of the read buffer, and so the longest packet or block that a file may have. Tools cut packets at 256 KiB.
const BLOCK_LEN_MAX: usize = 1 << 20;
/// Most interfaces of one section of a pcapng file.
const INTERFACES_MAX: usize = 1024;
/// Units per second of a pcapng interface that names no resolution: microseconds.
const RESOLUTION_DEFAULT: u128 = 1_000_000;
const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// One packet of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet<'a> {
    /// Its number in the file, from 1, as Wireshark counts.
    pub number: u64,
    /// Where its record begins in the file, in bytes.
    pub offset: u64,
    /// When it was seen, since the epoch; zero where the file does not say.
    pub time: Duration,
    /// Link type (`LINKTYPE_*` of tcpdump.org).
    pub link: u16,
    /// Bytes that it had on the wire; more than are here if the tool cut it.
    pub original_len: u32,
    /// The link layer's frame.
    pub bytes: &'a [u8],
}

/// Why a file cannot be read, or not further.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be opened or read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The file is empty or begins as neither format does.
    #[error("this is neither a pcap nor a pcapng file")]
    NotARecording,
    /// It ends in the middle of something.
    #[error("offset {offset}: the file ends in the middle of a packet or block")]
    Truncated {
        /// Where what is cut off begins.
        offset: u64,
    },
    /// A packet or block is longer than any that a tool writes.
    #[error("offset {offset}: a packet or block is longer than {BLOCK_LEN_MAX} bytes")]
    TooLong {
        /// Where it begins.
        offset: u64,
    },
    /// A packet or block contradicts itself.
    #[error("offset {offset}: a packet or block is malformed")]
    Malformed {
        /// Where it begins.
        offset: u64,
    },
    /// A pcapng packet is of an interface that the file has not described.
    #[error("offset {offset}: a packet of interface {interface}, which the file does not describe")]
    NoInterface {
        /// Where the packet begins.
        offset: u64,
        /// The interface's number.
        interface: u32,
    },
    /// A pcapng section describes too many interfaces.
    #[error("offset {offset}: more than {INTERFACES_MAX} interfaces in one section")]
    TooManyInterfaces {
        /// Where the first one too many is described.
        offset: u64,
    },
}

/// What a pcapng file says about one of its interfaces.
#[derive(Clone, Copy, Debug)]
struct Interface {
    link: u16,
    /// Time stamps per second.
    resolution: u128,
    /// Seconds to add to them.
    offset: i64,
}

/// A file that is being read.
pub struct Reader {
    blocks: Box<dyn PcapReaderIterator + Send>,
    /// Link type and resolution of a pcap file.
    legacy: Option<Interface>,
    interfaces: Vec<Interface>,
    number: u64,
    offset: u64,
    /// The packet that is lent out.
    bytes: Vec<u8>,
    /// The file is at its end, or was left at an error.
    done: bool,
}

/// What one block of the file means.
enum Found {
    Packet { time: Duration, link: u16, original_len: u32 },
    Legacy(Interface),
    Section,
    Interface(Interface),
    Other,
}

impl Reader {
    /// Opens a file.
    ///
    /// # Errors
    /// [`ReadError::Io`] and [`ReadError::NotARecording`].
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        Self::new(File::open(path)?)
    }

    /// Reads from anything.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn new(input: impl Read + Send + 'static) -> Result<Self, ReadError> {
        let blocks = match pcap_parser::create_reader(BLOCK_LEN_MAX, input) {
            Ok(blocks) => blocks,
            Err(PcapError::ReadError) => return Err(io::Error::other("the file cannot be read").into()),
            Err(_) => return Err(ReadError::NotARecording),
        };
        let (legacy, interfaces) = (None, Vec::new());
        Ok(Reader { blocks, legacy, interfaces, number: 0, offset: 0, bytes: Vec::new(), done: false })
    }

    /// Bytes of the file that have been taken.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Lends the next packet; `None` at the end of the file, and after an error.
    ///
    /// # Errors
    /// [`ReadError`], once: what stands behind a broken block cannot be found.
    pub fn next_packet(&mut self) -> Result<Option<Packet<'_>>, ReadError> {
        while !self.done {
            let at = self.offset;
            match self.next_block() {
                Ok(Some(Found::Packet { time, link, original_len })) => {
                    self.number += 1;
                    let (number, bytes) = (self.number, self.bytes.as_slice());
                    return Ok(Some(Packet { number, offset: at, time, link, original_len, bytes }));
                }
                Ok(Some(found)) => self.note(found).inspect_err(|_| self.done = true)?,
                Ok(None) => self.done = true,
                Err(error) => {
                    self.done = true;
                    return Err(error);
                }
            }
        }
        Ok(None)
    }

    fn note(&mut self, found: Found) -> Result<(), ReadError> {
        match found {
            Found::Legacy(header) => self.legacy = Some(header),
            Found::Section => self.interfaces.clear(),
            Found::Interface(_) if self.interfaces.len() == INTERFACES_MAX => {
                return Err(ReadError::TooManyInterfaces { offset: self.offset });
            }
            Found::Interface(interface) => self.interfaces.push(interface),
            Found::Packet { .. } | Found::Other => {}
        }
        Ok(())
    }

    /// Takes one block; a packet's bytes are then in `self.bytes`.
    fn next_block(&mut self) -> Result<Option<Found>, ReadError> {
        let offset = self.offset;
        loop {
            let (length, found) = match self.blocks.next() {
                Ok((length, block)) => {
                    (length, understand(&block, offset, self.legacy, &self.interfaces, &mut self.bytes)?)
                }
                Err(PcapError::Eof) => return Ok(None),
                Err(PcapError::Incomplete(_)) => {
                    // Whole buffers are asked for, so this ends with a block, with a full buffer or with the file.
                    self.blocks.refill().map_err(|_| io::Error::other("the file cannot be read"))?;
                    continue;
                }
                Err(PcapError::UnexpectedEof) => return Err(ReadError::Truncated { offset }),
                Err(PcapError::BufferTooSmall) => return Err(ReadError::TooLong { offset }),
                Err(_) => return Err(ReadError::Malformed { offset }),
            };
            self.blocks.consume(length);
            self.offset += length as u64;
            return Ok(Some(found));
        }
    }
}

/// What a block means. A packet's bytes are copied, because the reader must be free to move its buffer.
fn understand(
    block: &PcapBlockOwned<'_>,
    offset: u64,
    legacy: Option<Interface>,
    interfaces: &[Interface],
    bytes: &mut Vec<u8>,
) -> Result<Found, ReadError> {
    let mut keep = |packet: &[u8]| {
        bytes.clear();
        bytes.extend_from_slice(packet);
    };
    let described = |interface: u32| {
        let found = usize::try_from(interface).ok().and_then(|at| interfaces.get(at));
        found.copied().ok_or(ReadError::NoInterface { offset, interface })
    };
    Ok(match block {
        PcapBlockOwned::LegacyHeader(header) => {
            let resolution = if header.is_nanosecond_precision() { NANOS_PER_SECOND } else { RESOLUTION_DEFAULT };
            Found::Legacy(Interface { link: link_type(header.network), resolution, offset: 0 })
        }
        PcapBlockOwned::Legacy(packet) => {
            let header = legacy.ok_or(ReadError::Malformed { offset })?;
            let fraction = u128::from(packet.ts_usec) * (NANOS_PER_SECOND / header.resolution);
            let time = Duration::from_secs(packet.ts_sec.into()) + nanoseconds(fraction);
            keep(packet.data);
            Found::Packet { time, link: header.link, original_len: packet.origlen }
        }
        PcapBlockOwned::NG(Block::SectionHeader(_)) => Found::Section,
        PcapBlockOwned::NG(Block::InterfaceDescription(block)) => Found::Interface(Interface {
            link: link_type(block.linktype),
            resolution: resolution(block.if_tsresol),
            offset: block.if_tsoffset,
        }),
        PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
            let interface = described(packet.if_id)?;
            let stamp = u128::from(packet.ts_high) << 32 | u128::from(packet.ts_low);
            let time = nanoseconds(stamp.saturating_mul(NANOS_PER_SECOND) / interface.resolution);
            let shift = Duration::from_secs(interface.offset.unsigned_abs());
            let time = if interface.offset < 0 { time.saturating_sub(shift) } else { time.saturating_add(shift) };
            let cut = planted(Plant::BlockLength).then(|| &packet.data[..packet.origlen as usize]);
            keep(cut.unwrap_or_else(|| packet.packet_data()));
            Found::Packet { time, link: interface.link, original_len: packet.origlen }
        }
        PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
            let interface = described(0)?;
            keep(packet.packet_data());
            Found::Packet { time: Duration::ZERO, link: interface.link, original_len: packet.origlen }
        }
        PcapBlockOwned::NG(_) => Found::Other,
    })
}

/// The upper half of the field tells of checksums behind the frames (pcap's `FCS len`).
fn link_type(link: Linktype) -> u16 {
    link.0 as u16
}

/// `if_tsresol`: a negative power of ten, or of two if the highest bit is set.
fn resolution(exponent: u8) -> u128 {
    match exponent & 0x7f {
        power if exponent & 0x80 != 0 => 1 << power,
        // 10^38 is the largest power of ten in 128 bits; finer stamps are no time that anybody measures.
        power => 10_u128.pow(u32::from(power).min(38)),
    }
}

fn nanoseconds(count: u128) -> Duration {
    Duration::from_nanos(u64::try_from(count).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pcap header in little-endian, microseconds, link type 101, and one packet of three bytes at 1.000002 s.
    fn legacy() -> Vec<u8> {
        let mut bytes = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 101, 0, 0, 0];
        bytes.extend([1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 9, 0, 0, 0, 7, 8, 9]);
        bytes
    }

    /// A pcapng section in big-endian with an interface of link type 1 whose stamps are 2^-10 s, 5 s later than they say,
    /// and one packet of three bytes.
    fn section() -> Vec<u8> {
        let mut bytes = vec![0x0a, 0x0d, 0x0d, 0x0a, 0, 0, 0, 28, 0x1a, 0x2b, 0x3c, 0x4d, 0, 1, 0, 0];
        bytes.extend([0xff; 8]);
        bytes.extend([0, 0, 0, 28]);
        bytes.extend([0, 0, 0, 1, 0, 0, 0, 28, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0x8a, 0, 0, 0, 0, 0, 0, 28]);
        bytes.extend([0, 0, 0, 6, 0, 0, 0, 36, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1]);
        bytes.extend([0, 0, 0, 3, 0, 0, 0, 3, 7, 8, 9, 0, 0, 0, 0, 36]);
        bytes
    }

    fn reader(bytes: Vec<u8>) -> Reader {
        Reader::new(io::Cursor::new(bytes)).unwrap()
    }

    #[test]
    fn a_packet_of_a_pcap_file_is_told_with_place_time_and_link() {
        let mut reader = reader(legacy());
        let packet = reader.next_packet().unwrap().unwrap();
        let time = Duration::new(1, 2000);
        assert_eq!(packet, Packet { number: 1, offset: 24, time, link: 101, original_len: 9, bytes: &[7, 8, 9] });
        assert_eq!(reader.next_packet().unwrap(), None);
        let mut nanoseconds = legacy();
        nanoseconds[..2].copy_from_slice(&[0x4d, 0x3c]);
        assert_eq!(self::reader(nanoseconds).next_packet().unwrap().unwrap().time, Duration::new(1, 2));
    }

    #[test]
    fn a_packet_of_a_pcapng_file_has_the_link_and_the_clock_of_its_interface() {
        let mut reader = reader(section());
        let packet = reader.next_packet().unwrap().unwrap();
        assert_eq!((packet.offset, packet.link, packet.bytes), (56, 1, &[7, 8, 9][..]));
        assert_eq!(packet.time, Duration::new(1, 976_562), "1025 / 1024 s");
        assert_eq!(reader.next_packet().unwrap(), None);
    }

    #[test]
    fn a_new_section_forgets_the_interfaces_of_the_last() {
        let mut bytes = section();
        let packet = bytes.split_off(56);
        bytes.extend_from_slice(&section()[..28]);
        bytes.extend(packet);
        let error = reader(bytes).next_packet().unwrap_err();
        assert_eq!(error.to_string(), "offset 84: a packet of interface 0, which the file does not describe");
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_once_with_its_place() {
        for text in ["", "no recording at all, but long enough for a header"] {
            let error = Reader::new(io::Cursor::new(text)).err().unwrap();
            assert_eq!(error.to_string(), "this is neither a pcap nor a pcapng file");
        }
        let mut cut = legacy();
        cut.extend_from_slice(&legacy()[24..42]);
        let mut reader = reader(cut);
        assert!(reader.next_packet().unwrap().is_some());
        let error = reader.next_packet().unwrap_err();
        assert_eq!(error.to_string(), "offset 43: the file ends in the middle of a packet or block");
        assert_eq!(reader.next_packet().unwrap(), None, "and then nothing");
        let mut long = legacy();
        long[34] = 0x7f;
        long.resize(3 << 20, 0);
        let error = self::reader(long).next_packet().unwrap_err();
        assert_eq!(error.to_string(), "offset 24: a packet or block is longer than 1048576 bytes");
    }

    /// Whatever one byte says, reading ends, and with no more packets than there are bytes for.
    #[test]
    fn no_byte_of_a_file_can_make_reading_panic_or_go_on_for_ever() {
        for file in [legacy(), section()] {
            for at in 0..file.len() {
                for value in [0, 1, 0x0a, 0x7f, 0x80, 0xff] {
                    let mut bytes = file.clone();
                    bytes[at] = value;
                    let Ok(mut reader) = Reader::new(io::Cursor::new(bytes)) else { continue };
                    let mut packets = 0;
                    while let Ok(Some(_)) = reader.next_packet() {
                        packets += 1;
                        assert!(packets <= 4);
                    }
                }
            }
        }
    }
}
