//! What some flows have beside the fields that all have: labels, helpers, adjusted sequence numbers, a master.
//!
//! Attributes are kept as they travel [3.3.6], so that a version in the middle, which knows only some of them, loses
//! nothing on the way. Most flows have none, and then they cost one null pointer.
//!
//! ```text
//!   type u8 │ length u8 │ data, as many bytes as length says │ zeros to a multiple of 4      types ascend strictly
//! ```

use super::expectation::{Expectation, read_expectations};
use crate::planted::{Plant, planted};
use core::fmt;
use core::net::IpAddr;

/// Types of attributes, from 1; those of the protocol's rule 3.3.9.
pub mod attribute {
    /// [`SequenceAdjustment`](super::SequenceAdjustment) of both directions, 24 bytes (`CTA_SEQ_ADJ_ORIG`, `_REPLY`).
    pub const SEQUENCE_ADJUSTMENT: u8 = 1;
    /// Connection labels, 16 bytes (`CTA_LABELS`).
    pub const LABELS: u8 = 2;
    /// Name of the helper, 1 to 16 bytes of text (`CTA_HELP_NAME`).
    pub const HELPER: u8 = 3;
    /// What IPVS knows of a connection, see `ip_vs_sync_conn` in net/netfilter/ipvs/ip_vs_sync.c.
    pub const IPVS: u8 = 4;
    /// Tuple of the flow that expected this one (`CTA_TUPLE_MASTER`).
    pub const MASTER: u8 = 5;
    /// Packets and bytes of both directions, 32 bytes (`CTA_COUNTERS_ORIG`, `_REPLY`); takes no part in digests.
    pub const COUNTERS: u8 = 6;
    /// [`Synproxy`](super::Synproxy), 12 bytes (`CTA_SYNPROXY`).
    pub const SYNPROXY: u8 = 7;
    /// Nanoseconds since 1970 at which the flow began, 8 bytes (`CTA_TIMESTAMP_START`).
    pub const START: u8 = 8;
    /// Flows that this one expects and that have not come yet (`CTA_EXPECT_*`).
    pub const EXPECTATIONS: u8 = 9;
    /// [`ProtocolInfo`](super::ProtocolInfo): SCTP 8 bytes, DCCP 12 (`CTA_PROTOINFO_SCTP_*`, `CTA_PROTOINFO_DCCP_*`).
    pub const PROTOCOL: u8 = 10;
    /// Highest type that this version has a name for.
    pub const KNOWN_MAX: u8 = PROTOCOL;
}

/// Why attributes were not taken. Nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AttributeError {
    /// The bytes are no row of whole attributes with ascending types.
    #[error("malformed attributes")]
    Malformed,
    /// One has more than 255 bytes, or all together more than [`Attributes::LEN_MAX`].
    #[error("attributes too long for a record")]
    TooLong,
}

/// The attributes of one flow, in wire form: checked, ascending, each type at most once.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Attributes(Option<Box<[u8]>>);

impl Attributes {
    /// Most bytes of all attributes of a flow, headers and padding included: what the longest record (1020 bytes) has
    /// room for beside everything else that an IPv6 flow may have.
    pub const LEN_MAX: usize = 920;
    /// No attributes.
    pub const NONE: Attributes = Attributes(None);

    /// Takes attributes as they travel.
    ///
    /// # Errors
    /// [`AttributeError`] if they are not whole and ascending, or too long.
    pub fn from_wire(bytes: &[u8]) -> Result<Self, AttributeError> {
        check(bytes)?;
        Ok(Attributes((!bytes.is_empty()).then(|| bytes.into())))
    }

    /// As they travel; empty if there are none.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Each with its type, ascending.
    pub fn iter(&self) -> AttributeIter<'_> {
        AttributeIter(self.as_bytes())
    }

    /// The data of one.
    pub fn get(&self, kind: u8) -> Option<&[u8]> {
        self.iter().find(|&(found, _)| found == kind).map(|(_, data)| data)
    }

    /// Adds one, or replaces the one of its type.
    ///
    /// # Errors
    /// [`AttributeError`] if it is of type 0, or does not fit; nothing is changed then.
    pub fn set(&mut self, kind: u8, data: &[u8]) -> Result<(), AttributeError> {
        let length = u8::try_from(data.len()).map_err(|_| AttributeError::TooLong)?;
        if kind == 0 {
            return Err(AttributeError::Malformed);
        }
        let mut bytes = Vec::with_capacity(self.as_bytes().len() + data.len() + 5);
        let mut put = |kind: u8, length: u8, data: &[u8]| {
            bytes.extend_from_slice(&[kind, length]);
            bytes.extend_from_slice(data);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        };
        for (other, data) in self.iter().filter(|&(other, _)| other < kind) {
            put(other, data.len() as u8, data);
        }
        put(kind, length, data);
        for (other, data) in self.iter().filter(|&(other, _)| other > kind) {
            put(other, data.len() as u8, data);
        }
        if bytes.len() > Self::LEN_MAX {
            return Err(AttributeError::TooLong);
        }
        self.0 = Some(bytes.into_boxed_slice());
        Ok(())
    }

    /// Removes one; whether it was there.
    pub fn remove(&mut self, kind: u8) -> bool {
        let Some(at) = self.iter().position(|(other, _)| other == kind) else { return false };
        let begin: usize = self.iter().take(at).map(|(_, data)| whole_len(data.len())).sum();
        let mut bytes = self.as_bytes().to_vec();
        let len = whole_len(usize::from(bytes[begin + 1]));
        bytes.drain(begin..begin + len);
        self.0 = (!bytes.is_empty()).then(|| bytes.into_boxed_slice());
        true
    }

    /// Adjusted sequence numbers, if both directions are there in full.
    pub fn sequence_adjustment(&self) -> Option<[SequenceAdjustment; 2]> {
        let data: &[u8; 24] = self.get(attribute::SEQUENCE_ADJUSTMENT)?.try_into().ok()?;
        let word = |at: usize| u32::from_be_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]]);
        let side = |at| SequenceAdjustment { position: word(at), before: word(at + 4), after: word(at + 8) };
        Some([side(0), side(12)])
    }

    /// Labels, as the kernel keeps them.
    pub fn labels(&self) -> Option<[u8; 16]> {
        self.get(attribute::LABELS)?.try_into().ok()
    }

    /// Name of the helper.
    pub fn helper(&self) -> Option<&str> {
        let name = core::str::from_utf8(self.get(attribute::HELPER)?).ok()?;
        (1..=16).contains(&name.len()).then_some(name)
    }

    /// Tuple of the flow that expected this one.
    pub fn master(&self) -> Option<Tuple> {
        Tuple::from_wire(self.get(attribute::MASTER)?)
    }

    /// What the kernel's synproxy keeps.
    pub fn synproxy(&self) -> Option<Synproxy> {
        let data: &[u8; 12] = self.get(attribute::SYNPROXY)?.try_into().ok()?;
        let word = |at: usize| u32::from_be_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]]);
        Some(Synproxy { isn: word(0), its: word(4), timestamp_offset: word(8) })
    }

    /// Flows that this one has announced; `None` if there are none, or if they cannot be read.
    pub fn expectations(&self) -> Option<Vec<Expectation>> {
        read_expectations(self.get(attribute::EXPECTATIONS)?)
    }

    /// What SCTP or DCCP keep; which of them is told by its length.
    pub fn protocol_info(&self) -> Option<ProtocolInfo> {
        ProtocolInfo::from_wire(self.get(attribute::PROTOCOL)?)
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for &'a Attributes {
    type Item = (u8, &'a [u8]);
    type IntoIter = AttributeIter<'a>;

    fn into_iter(self) -> AttributeIter<'a> {
        self.iter()
    }
}

/// Type and data of each attribute, ascending.
#[derive(Clone, Debug)]
pub struct AttributeIter<'a>(&'a [u8]);

impl<'a> AttributeIter<'a> {
    /// Over attributes as they travel; ends at the first that is not whole.
    pub fn new(bytes: &'a [u8]) -> Self {
        AttributeIter(bytes)
    }
}

impl<'a> Iterator for AttributeIter<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (kind, data, rest) = split(self.0).ok()?;
        self.0 = rest;
        Some((kind, data))
    }
}

/// By how much the sequence numbers of one direction are moved (`CTA_SEQADJ_*`): up to `position` by `before`, from
/// there on by `after`, both modulo 2^32.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct SequenceAdjustment {
    /// Sequence number from which `after` counts.
    pub position: u32,
    /// Offset before it.
    pub before: u32,
    /// Offset after it.
    pub after: u32,
}

impl SequenceAdjustment {
    /// Both directions as the attribute's data, original first.
    pub fn to_wire(sides: &[SequenceAdjustment; 2]) -> [u8; 24] {
        let mut data = [0; 24];
        let words = sides.iter().flat_map(|side| [side.position, side.before, side.after]);
        for (bytes, word) in data.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        data
    }
}

/// What the kernel's synproxy keeps of a connection that it has answered for (`CTA_SYNPROXY_*`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Synproxy {
    /// Initial sequence number that it chose.
    pub isn: u32,
    /// Initial timestamp of the client.
    pub its: u32,
    /// Offset of timestamps, modulo 2^32.
    pub timestamp_offset: u32,
}

impl Synproxy {
    /// The attribute's data.
    pub fn to_wire(&self) -> [u8; 12] {
        let mut data = [0; 12];
        for (bytes, word) in data.chunks_exact_mut(4).zip([self.isn, self.its, self.timestamp_offset]) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        data
    }
}

/// What SCTP or DCCP keep of a connection beside its state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ProtocolInfo {
    /// Verification tags (RFC 9260 section 8.5), host order: those that packets of each direction carry.
    Sctp {
        /// Of the original direction.
        tag_original: u32,
        /// Of the reply direction.
        tag_reply: u32,
    },
    /// DCCP (RFC 4340).
    Dccp {
        /// Which side is the client: 0 the original direction, 1 the reply (`enum ct_dccp_roles`).
        role: u8,
        /// Sequence number of the handshake.
        handshake_sequence: u64,
    },
}

impl ProtocolInfo {
    /// The attribute's data: SCTP both tags; DCCP the role, three zeros, the sequence number.
    pub fn to_wire(&self) -> Vec<u8> {
        match *self {
            ProtocolInfo::Sctp { tag_original, tag_reply } => {
                [tag_original.to_be_bytes(), tag_reply.to_be_bytes()].concat()
            }
            ProtocolInfo::Dccp { role, handshake_sequence } => {
                [&[role, 0, 0, 0][..], &handshake_sequence.to_be_bytes()].concat()
            }
        }
    }

    /// Reads [`ProtocolInfo::to_wire`]; `None` for anything else.
    pub fn from_wire(data: &[u8]) -> Option<Self> {
        match *data {
            [a, b, c, d, e, f, g, h] => Some(ProtocolInfo::Sctp {
                tag_original: u32::from_be_bytes([a, b, c, d]),
                tag_reply: u32::from_be_bytes([e, f, g, h]),
            }),
            [role, 0, 0, 0, ref sequence @ ..] => {
                let handshake_sequence = u64::from_be_bytes(sequence.try_into().ok()?);
                Some(ProtocolInfo::Dccp { role, handshake_sequence })
            }
            _ => None,
        }
    }
}

/// One direction of a flow: who to whom. Both addresses are of one family.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tuple {
    /// Sender.
    pub source: IpAddr,
    /// Receiver.
    pub destination: IpAddr,
    /// Sender's port, host order.
    pub source_port: u16,
    /// Receiver's port, host order.
    pub destination_port: u16,
    /// IANA protocol number.
    pub protocol: u8,
}

impl Tuple {
    /// Longest wire form.
    pub const WIRE_LEN_MAX: usize = 40;

    /// Protocol 1, zero 3, ports 2 + 2, then both addresses: 16 bytes of IPv4, 40 of IPv6. `None` for mixed families.
    pub fn to_wire(&self) -> Option<Vec<u8>> {
        let mut data = vec![self.protocol, 0, 0, 0];
        data.extend_from_slice(&self.source_port.to_be_bytes());
        data.extend_from_slice(&self.destination_port.to_be_bytes());
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                data.extend_from_slice(&source.octets());
                data.extend_from_slice(&destination.octets());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                data.extend_from_slice(&source.octets());
                data.extend_from_slice(&destination.octets());
            }
            _ => return None,
        }
        Some(data)
    }

    /// Reads [`Tuple::to_wire`]; `None` for anything else.
    pub fn from_wire(data: &[u8]) -> Option<Self> {
        let &[protocol, 0, 0, 0, s0, s1, d0, d1, ref addresses @ ..] = data else { return None };
        let (source, destination) = match addresses.len() {
            8 => {
                let four = |at: usize| <[u8; 4]>::try_from(&addresses[at..at + 4]).map(IpAddr::from);
                (four(0).ok()?, four(4).ok()?)
            }
            32 => {
                let sixteen = |at: usize| <[u8; 16]>::try_from(&addresses[at..at + 16]).map(IpAddr::from);
                (sixteen(0).ok()?, sixteen(16).ok()?)
            }
            _ => return None,
        };
        Some(Tuple {
            source,
            destination,
            source_port: u16::from_be_bytes([s0, s1]),
            destination_port: u16::from_be_bytes([d0, d1]),
            protocol,
        })
    }
}

/// Bytes of an attribute whose data has this length.
const fn whole_len(data_len: usize) -> usize {
    (2 + data_len).next_multiple_of(4)
}

/// Checks a row of attributes without looking into any; what [`Attributes::from_wire`] takes.
///
/// # Errors
/// As [`Attributes::from_wire`].
pub fn check(bytes: &[u8]) -> Result<(), AttributeError> {
    let (mut rest, mut last) = (bytes, 0);
    while !rest.is_empty() {
        let (kind, data, after) = split(rest)?;
        let padding = &rest[2 + data.len()..rest.len() - after.len()];
        if kind <= last || padding.iter().any(|&byte| byte != 0) {
            return Err(AttributeError::Malformed);
        }
        (rest, last) = (after, kind);
    }
    if bytes.len() > Attributes::LEN_MAX { Err(AttributeError::TooLong) } else { Ok(()) }
}

/// Cuts the first attribute off: type, data, the rest.
fn split(bytes: &[u8]) -> Result<(u8, &[u8], &[u8]), AttributeError> {
    let &[kind, length, ..] = bytes else { return Err(AttributeError::Malformed) };
    let whole_len = whole_len(usize::from(length));
    let whole_len = if planted(Plant::AttributePadding) { whole_len.min(bytes.len()) } else { whole_len };
    let (whole, rest) = bytes.split_at_checked(whole_len).ok_or(AttributeError::Malformed)?;
    Ok((kind, &whole[2..2 + usize::from(length)], rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_stand_in_the_order_of_their_types_whatever_the_order_in_which_they_came() {
        let mut attributes = Attributes::NONE;
        attributes.set(attribute::HELPER, b"ftp").expect("fits");
        attributes.set(200, &[]).expect("fits");
        attributes.set(attribute::LABELS, &[7; 2]).expect("fits");
        assert_eq!(attributes.as_bytes(), [2, 2, 7, 7, 3, 3, b'f', b't', b'p', 0, 0, 0, 200, 0, 0, 0]);
        assert_eq!(attributes.helper(), Some("ftp"));
        assert_eq!(attributes.get(200), Some(&[][..]));
        assert_eq!(attributes.get(4), None);
        attributes.set(attribute::HELPER, b"sip").expect("fits");
        assert_eq!(attributes.helper(), Some("sip"));
        assert!(attributes.remove(attribute::HELPER));
        assert!(!attributes.remove(attribute::HELPER));
        assert_eq!(attributes.as_bytes(), [2, 2, 7, 7, 200, 0, 0, 0]);
        attributes.remove(2);
        attributes.remove(200);
        assert_eq!(attributes, Attributes::NONE);
    }

    /// [3.3.6]
    #[test]
    fn only_whole_ascending_attributes_are_taken() {
        let whole = [1, 1, 9, 0, 2, 0, 0, 0];
        assert_eq!(Attributes::from_wire(&whole).expect("whole").as_bytes(), whole);
        for wrong in [
            &[1][..],
            &[1, 3, 0, 0],
            &[1, 1, 7, 1],
            &[2, 0, 0, 0, 1, 0, 0, 0],
            &[1, 0, 0, 0, 1, 0, 0, 0],
            &[0, 0, 0, 0],
        ] {
            assert_eq!(Attributes::from_wire(wrong), Err(AttributeError::Malformed), "{wrong:?}");
        }
    }

    #[test]
    fn what_no_record_has_room_for_is_refused_and_changes_nothing() {
        let mut attributes = Attributes::NONE;
        for kind in [1, 2, 3] {
            attributes.set(kind, &[kind; 254]).expect("256 bytes each");
        }
        assert_eq!(attributes.set(4, &[4; 151]), Err(AttributeError::TooLong));
        assert_eq!(attributes.as_bytes().len(), 768);
        attributes.set(4, &[4; 150]).expect("920 bytes in all");
        assert_eq!(attributes.set(5, &[0; 256]), Err(AttributeError::TooLong));
        assert_eq!(attributes.set(0, &[]), Err(AttributeError::Malformed));
        assert_eq!(check(&[attributes.as_bytes(), &[9, 0, 0, 0]].concat()), Err(AttributeError::TooLong));
    }

    #[test]
    fn what_is_known_reads_back_as_it_was_said() {
        let sides = [
            SequenceAdjustment { position: 1, before: 2, after: 0xffff_fffe },
            SequenceAdjustment { position: 0x0102_0304, before: 5, after: 6 },
        ];
        let data = SequenceAdjustment::to_wire(&sides);
        assert_eq!(data[8..16], [0xff, 0xff, 0xff, 0xfe, 1, 2, 3, 4]);
        let synproxy = Synproxy { isn: 1, its: 2, timestamp_offset: 0xffff_ffff };
        let mut attributes = Attributes::NONE;
        attributes.set(attribute::SEQUENCE_ADJUSTMENT, &data).expect("fits");
        attributes.set(attribute::SYNPROXY, &synproxy.to_wire()).expect("fits");
        assert_eq!(attributes.sequence_adjustment(), Some(sides));
        assert_eq!(attributes.synproxy(), Some(synproxy));
        assert_eq!(attributes.labels(), None);
    }

    #[test]
    fn the_length_tells_sctp_from_dccp() {
        let sctp = ProtocolInfo::Sctp { tag_original: 0x0102_0304, tag_reply: 5 };
        assert_eq!(sctp.to_wire(), [1, 2, 3, 4, 0, 0, 0, 5]);
        let dccp = ProtocolInfo::Dccp { role: 1, handshake_sequence: 0x0102 };
        assert_eq!(dccp.to_wire(), [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        for info in [sctp, dccp] {
            let mut attributes = Attributes::NONE;
            attributes.set(attribute::PROTOCOL, &info.to_wire()).expect("fits");
            assert_eq!(attributes.protocol_info(), Some(info));
        }
        assert_eq!(ProtocolInfo::from_wire(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2]), None);
        assert_eq!(ProtocolInfo::from_wire(&[1; 7]), None);
    }

    #[test]
    fn a_tuple_has_sixteen_bytes_of_ipv4_and_forty_of_ipv6() {
        let four = Tuple {
            source: IpAddr::from([10, 0, 0, 1]),
            destination: IpAddr::from([10, 0, 0, 2]),
            source_port: 0x1234,
            destination_port: 21,
            protocol: 6,
        };
        let data = four.to_wire().expect("one family");
        assert_eq!(data, [6, 0, 0, 0, 0x12, 0x34, 0, 21, 10, 0, 0, 1, 10, 0, 0, 2]);
        assert_eq!(Tuple::from_wire(&data), Some(four));
        let six = Tuple { source: IpAddr::from([1; 16]), destination: IpAddr::from([2; 16]), ..four };
        assert_eq!(Tuple::from_wire(&six.to_wire().expect("one family")), Some(six));
        assert_eq!(Tuple { source: IpAddr::from([1; 16]), ..four }.to_wire(), None);
        assert_eq!(Tuple::from_wire(&data[..15]), None);
        assert_eq!(Tuple::from_wire(&[6, 1, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]), None);
    }
}
