//! From a link layer's frame to an IP datagram that is whole: tags and headers taken off, fragments put together.
//!
//! ```text
//!   Ethernet   6 destination  6 source  [2 tag type  2 tag]…  2 type │ IP
//!   SLL        14 …  2 type │ IP                  SLL2   2 type  18 … │ IP
//!   null/loop  4 family │ IP                      raw    IP
//! ```

use crate::planted::{Plant, planted};
use etherparse::defrag::IpDefragBuf;
use etherparse::{IpFragOffset, IpNumber, IpSlice, Ipv6ExtensionSlice};
use std::collections::VecDeque;
use std::net::IpAddr;

/// Datagrams that can wait for fragments at the same time; the one that waits longest gives way.
const WAITING_MAX: usize = 64;
/// Most VLAN tags before an Ethernet payload.
const TAGS_MAX: usize = 4;

/// Link types that are understood (`LINKTYPE_*` of tcpdump.org).
mod link {
    pub(super) const NULL: u16 = 0;
    pub(super) const ETHERNET: u16 = 1;
    /// `DLT_RAW` of most systems, written to files by some tools.
    pub(super) const RAW_DLT: u16 = 12;
    pub(super) const RAW: u16 = 101;
    pub(super) const LOOP: u16 = 108;
    pub(super) const SLL: u16 = 113;
    pub(super) const IPV4: u16 = 228;
    pub(super) const IPV6: u16 = 229;
    pub(super) const SLL2: u16 = 276;
}

/// Types of Ethernet payloads (IEEE 802 numbers).
mod ethertype {
    pub(super) const IPV4: u16 = 0x0800;
    pub(super) const IPV6: u16 = 0x86dd;
    /// 802.1Q, 802.1ad, and what was used before 802.1ad.
    pub(super) const TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
}

/// Why a packet is no IP datagram.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, thiserror::Error)]
pub enum LayerError {
    /// Of a link type that we do not know.
    #[error("link type {0} is not understood")]
    UnknownLink(u16),
    /// It ends before its headers do, or was cut by the tool that recorded it.
    #[error("the packet is cut off")]
    Truncated,
    /// Something else than IP: ARP, LLDP …
    #[error("it is no IP")]
    NotIp,
    /// An IP header that contradicts itself.
    #[error("its IP headers are malformed")]
    Malformed,
    /// Fragments that do not fit together.
    #[error("its fragments do not fit together")]
    Fragments,
}

/// One IP datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Datagram<'a> {
    /// Sender.
    pub source: IpAddr,
    /// Receiver.
    pub destination: IpAddr,
    /// Protocol of the payload; behind all extension headers in IPv6.
    pub protocol: u8,
    /// TTL, or hop limit; of the last fragment.
    pub ttl: u8,
    /// Bytes with the IP header, as that header says; of the last fragment.
    pub length: usize,
    /// Whether the header's checksum is right; `None` for IPv6, which has none.
    pub checksum: Option<bool>,
    /// Whether it came in fragments.
    pub fragmented: bool,
    /// What is in it.
    pub payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Source port, destination port and payload, if this is UDP and whole.
    pub fn udp(&self) -> Option<(u16, u16, &'a [u8])> {
        if self.protocol != IpNumber::UDP.0 {
            return None;
        }
        let udp = etherparse::UdpSlice::from_slice(self.payload).ok()?;
        Some((udp.source_port(), udp.destination_port(), udp.payload()))
    }
}

/// Takes the layers off; remembers fragments.
#[derive(Default)]
pub struct Layers {
    waiting: VecDeque<Waiting>,
    /// The datagram that was put together last.
    whole: Vec<u8>,
    evicted: u64,
}

/// A datagram of which something is missing.
struct Waiting {
    id: FragmentId,
    buffer: IpDefragBuf,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct FragmentId {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    identification: u32,
}

struct Fragment {
    id: FragmentId,
    offset: IpFragOffset,
    more: bool,
}

impl Layers {
    /// Without any fragment.
    pub fn new() -> Self {
        Layers::default()
    }

    /// Datagrams of which fragments are missing: those that wait, and those that gave way.
    pub fn incomplete(&self) -> u64 {
        self.evicted + self.waiting.len() as u64
    }

    /// The datagram in a frame of this link type; `None` if it is a fragment and others are missing still.
    ///
    /// # Errors
    /// [`LayerError`]: the packet is none.
    pub fn datagram<'a>(&'a mut self, link: u16, frame: &'a [u8]) -> Result<Option<Datagram<'a>>, LayerError> {
        let ip = slice(network(link, frame)?)?;
        let mut datagram = header(&ip);
        let Some(fragment) = fragment(&ip, &datagram) else { return Ok(Some(datagram)) };
        if !self.put_together(&fragment, datagram.payload)? {
            return Ok(None);
        }
        datagram.fragmented = true;
        datagram.payload = &self.whole;
        Ok(Some(datagram))
    }

    /// The datagram or the fragment in an IP packet, by itself: for those who look at packets as they pass. Whether it is
    /// a fragment without the beginning.
    ///
    /// # Errors
    /// [`LayerError`]: the packet is none.
    pub fn peek(packet: &[u8]) -> Result<(Datagram<'_>, bool), LayerError> {
        let ip = slice(by_version(packet)?)?;
        let datagram = header(&ip);
        let later = fragment(&ip, &datagram).is_some_and(|fragment| fragment.offset != IpFragOffset::ZERO);
        Ok((datagram, later))
    }

    /// Takes a fragment; whether its datagram is whole now, and in `self.whole`.
    fn put_together(&mut self, fragment: &Fragment, payload: &[u8]) -> Result<bool, LayerError> {
        let at = match self.waiting.iter().position(|waiting| waiting.id == fragment.id) {
            Some(at) => at,
            None => self.wait_for(fragment.id),
        };
        let buffer = &mut self.waiting[at].buffer;
        if buffer.add(fragment.offset, fragment.more, payload).is_err() {
            self.waiting.remove(at);
            return Err(LayerError::Fragments);
        }
        if !buffer.is_complete() {
            return Ok(false);
        }
        if let Some(waiting) = self.waiting.remove(at) {
            self.whole = waiting.buffer.take_bufs().0;
        }
        Ok(true)
    }

    fn wait_for(&mut self, id: FragmentId) -> usize {
        if self.waiting.len() == WAITING_MAX {
            self.waiting.pop_front();
            self.evicted += 1;
        }
        let buffer = IpDefragBuf::new(IpNumber(id.protocol), Vec::new(), Vec::new());
        self.waiting.push_back(Waiting { id, buffer });
        self.waiting.len() - 1
    }
}

fn slice(packet: &[u8]) -> Result<IpSlice<'_>, LayerError> {
    IpSlice::from_slice(packet).map_err(|error| match error {
        etherparse::err::ip::SliceError::Len(_) => LayerError::Truncated,
        etherparse::err::ip::SliceError::IpHeaders(_) => LayerError::Malformed,
    })
}

/// Takes the link layer off.
fn network(link: u16, frame: &[u8]) -> Result<&[u8], LayerError> {
    match link {
        link::ETHERNET => ethernet(frame),
        link::SLL => behind(frame, 14),
        link::SLL2 => {
            let kind = u16_at(frame, 0)?;
            let packet = if planted(Plant::CookedHeader) { Some(&frame[20..]) } else { frame.get(20..) };
            by_type(kind, packet.ok_or(LayerError::Truncated)?)
        }
        link::NULL | link::LOOP => frame.get(4..).ok_or(LayerError::Truncated).and_then(by_version),
        link::RAW | link::RAW_DLT | link::IPV4 | link::IPV6 => by_version(frame),
        other => Err(LayerError::UnknownLink(other)),
    }
}

fn ethernet(frame: &[u8]) -> Result<&[u8], LayerError> {
    let mut at = 12;
    for _ in 0..TAGS_MAX {
        if !ethertype::TAGS.contains(&u16_at(frame, at)?) {
            break;
        }
        at += 4;
    }
    behind(frame, at)
}

/// What is behind an ethertype at `at`.
fn behind(frame: &[u8], at: usize) -> Result<&[u8], LayerError> {
    by_type(u16_at(frame, at)?, frame.get(at + 2..).unwrap_or_default())
}

fn by_type(kind: u16, payload: &[u8]) -> Result<&[u8], LayerError> {
    match kind {
        ethertype::IPV4 | ethertype::IPV6 => Ok(payload),
        _ => Err(LayerError::NotIp),
    }
}

/// Where no type stands before the packet, its own first half byte tells what it is.
fn by_version(packet: &[u8]) -> Result<&[u8], LayerError> {
    match packet.first().ok_or(LayerError::Truncated)? >> 4 {
        4 | 6 => Ok(packet),
        _ => Err(LayerError::NotIp),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, LayerError> {
    let bytes = bytes.get(at..at + 2).and_then(|bytes| bytes.try_into().ok());
    bytes.map(u16::from_be_bytes).ok_or(LayerError::Truncated)
}

fn header<'a>(ip: &IpSlice<'a>) -> Datagram<'a> {
    let payload = ip.payload();
    let (ttl, length, checksum) = match ip {
        IpSlice::Ipv4(ip) => {
            let header = ip.header();
            let right = header.to_header().calc_header_checksum() == header.header_checksum();
            (header.ttl(), usize::from(header.total_len()), Some(right))
        }
        IpSlice::Ipv6(ip) => (ip.header().hop_limit(), 40 + usize::from(ip.header().payload_length()), None),
    };
    Datagram {
        source: ip.source_addr(),
        destination: ip.destination_addr(),
        protocol: payload.ip_number.0,
        ttl,
        length,
        checksum,
        fragmented: false,
        payload: payload.payload,
    }
}

fn fragment(ip: &IpSlice<'_>, datagram: &Datagram<'_>) -> Option<Fragment> {
    let id = |identification| FragmentId {
        source: datagram.source,
        destination: datagram.destination,
        protocol: datagram.protocol,
        identification,
    };
    match ip {
        IpSlice::Ipv4(ip) => {
            let header = ip.header();
            let offset = header.fragments_offset();
            let fragment = Fragment { id: id(header.identification().into()), offset, more: header.more_fragments() };
            header.is_fragmenting_payload().then_some(fragment)
        }
        IpSlice::Ipv6(ip) => ip.extensions().clone().into_iter().find_map(|extension| match extension {
            Ipv6ExtensionSlice::Fragment(header) if header.is_fragmenting_payload() => {
                let offset = header.fragment_offset();
                Some(Fragment { id: id(header.identification()), offset, more: header.more_fragments() })
            }
            _ => None,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 packet of protocol 114, TTL 255, from 10.0.0.1 to 224.0.0.81, without a right checksum.
    fn ipv4(identification: u8, flags_and_offset: u16, payload: &[u8]) -> Vec<u8> {
        let length = 20 + payload.len() as u8;
        let [high, low] = flags_and_offset.to_be_bytes();
        let mut bytes = vec![0x45, 0, 0, length, 0, identification, high, low, 255, 114, 0, 0];
        bytes.extend([10, 0, 0, 1, 224, 0, 0, 81]);
        bytes.extend_from_slice(payload);
        bytes
    }

    fn payload_of(link: u16, frame: &[u8]) -> Result<Vec<u8>, LayerError> {
        Layers::new().datagram(link, frame).map(|datagram| datagram.unwrap().payload.to_vec())
    }

    #[test]
    fn every_link_type_is_taken_off() {
        let packet = ipv4(1, 0, b"frame");
        let before = |header: &[u8]| [header, &packet].concat();
        let mac = [0; 12];
        let frames = [
            (1, before(&[&mac[..], &[8, 0]].concat())),
            (1, before(&[&mac[..], &[0x81, 0, 0, 5, 8, 0]].concat())),
            (1, before(&[&mac[..], &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 8, 0]].concat())),
            (113, before(&[0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0])),
            (276, before(&[8, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0])),
            (0, before(&[2, 0, 0, 0])),
            (108, before(&[0, 0, 0, 2])),
            (101, packet.clone()),
            (12, packet.clone()),
            (228, packet.clone()),
        ];
        for (link, frame) in frames {
            assert_eq!(payload_of(link, &frame).as_deref(), Ok(&b"frame"[..]), "link {link}");
        }
        assert_eq!(payload_of(105, &packet), Err(LayerError::UnknownLink(105)));
    }

    #[test]
    fn what_is_no_datagram_is_refused_by_name() {
        let mut arp = vec![0; 42];
        arp[12..14].copy_from_slice(&[8, 6]);
        assert_eq!(payload_of(1, &arp), Err(LayerError::NotIp));
        assert_eq!(payload_of(101, &[0x15; 20]), Err(LayerError::NotIp));
        let packet = ipv4(1, 0, b"frame");
        for length in 1..packet.len() {
            assert_eq!(payload_of(101, &packet[..length]), Err(LayerError::Truncated), "{length}");
        }
        assert_eq!(payload_of(1, &[0; 13]), Err(LayerError::Truncated));
        let mut short_header = packet;
        short_header[0] = 0x44;
        assert_eq!(payload_of(101, &short_header), Err(LayerError::Malformed));
    }

    #[test]
    fn ethernet_padding_is_no_payload_and_the_header_is_told() {
        let mut frame = [&[0; 12][..], &[8, 0], &ipv4(1, 0, b"abc")].concat();
        frame.resize(60, 0);
        let mut layers = Layers::new();
        let datagram = layers.datagram(1, &frame).unwrap().unwrap();
        assert_eq!((datagram.payload, datagram.length), (&b"abc"[..], 23));
        assert_eq!((datagram.protocol, datagram.ttl, datagram.checksum), (114, 255, Some(false)));
        assert_eq!(
            (datagram.source.to_string(), datagram.destination.to_string()),
            ("10.0.0.1".into(), "224.0.0.81".into())
        );
        // The checksum of this header, by hand: ~(4500+0017+0001+0000+ff72+0a00+0001+e000+0051).
        frame[24..26].copy_from_slice(&[0xd1, 0x21]);
        assert_eq!(layers.datagram(1, &frame).unwrap().unwrap().checksum, Some(true));
    }

    #[test]
    fn fragments_are_put_together_in_any_order_and_not_mixed() {
        let more = 0x2000;
        let mut layers = Layers::new();
        let mut take = |packet: Vec<u8>| layers.datagram(101, &packet).map(|it| it.map(|it| it.payload.to_vec()));
        assert_eq!(take(ipv4(1, 1, b"tail")), Ok(None));
        assert_eq!(take(ipv4(2, more, b"another.")), Ok(None));
        assert_eq!(take(ipv4(1, more, b"headhead")), Ok(Some(b"headheadtail".to_vec())));
        assert_eq!(take(ipv4(3, more, b"odd")), Err(LayerError::Fragments));
        assert_eq!(layers.incomplete(), 1);
    }

    #[test]
    fn fragments_that_never_become_whole_give_way_and_are_counted() {
        let mut layers = Layers::new();
        for id in 0..=64 {
            assert_eq!(layers.datagram(101, &ipv4(id, 0x2000, b"headhead")), Ok(None));
        }
        assert_eq!(layers.incomplete(), 65);
        assert_eq!(layers.datagram(101, &ipv4(0, 1, b"tail")), Ok(None), "the oldest gave way");
        assert!(layers.datagram(101, &ipv4(64, 1, b"tail")).unwrap().is_some());
    }
}
