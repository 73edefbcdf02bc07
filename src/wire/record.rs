//! Records: what a DATA frame says about one key each.
//!
//! A record begins with four bytes that let anybody step over it: its type, what is done, which optional fields are
//! there, and its whole length in words of four bytes. The plain connection is as small as the draft's, 24 bytes.
//!
//! ```text
//!   every record         type u8 │ operation u8 │ present u8 │ length u8 (words, header included)
//!
//!   CONN4 (1)            0 header    4 source     8 destination   12 ports (2+2; ICMP: id, type<<8|code)
//!     upsert (1)        16 protocol u8, state u8, status u16     20 timeout u32, seconds remaining
//!                       24 then, in this order, what `present` names:
//!                          bit 0 reply source       address 4, port u16, zero u16   (DNAT)
//!                          bit 1 reply destination  address 4, port u16, zero u16   (SNAT)
//!                          bit 2 TCP                window scales u8 (original<<4|reply), flags u8 u8, zero u8
//!                          bit 3 mark               u32
//!                          bit 4 zone               id u16, direction u8, zero u8
//!                          bit 7 attributes         to the end: type u8, length u8, data, zeros to a multiple of 4
//!     delete (2)         the first 20 bytes with state and status zero; the zone (bit 4) if it is set
//!
//!   TABLE (0)            about the table itself, records of all types:
//!     bucket-end (3)     0 header    4 bucket u16, zero u16      8 since u64                     16 bytes whole
//!
//!   any other type       stepped over and given out as Record::Unknown
//! ```
//!
//! Checking and reading are two passes over the same bytes, so that a frame is applied whole or not at all. That no
//! key is twice in a frame is the sender's duty [3.3]; the reader does not look, because with order-free apply the
//! second of the two would merely win.

use super::{BUCKETS, FrameError};
use crate::flow::{Endpoint, Flow, FlowKey, TcpInfo, Zone};
use core::net::{IpAddr, Ipv4Addr};
use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Record types.
pub(super) mod kind {
    /// The table itself.
    pub(in crate::wire) const TABLE: u8 = 0;
    /// A connection over IPv4.
    pub(in crate::wire) const CONN4: u8 = 1;
}

/// What is done.
pub(super) mod operation {
    /// Full replacement.
    pub(in crate::wire) const UPSERT: u8 = 1;
    /// The key is gone.
    pub(in crate::wire) const DELETE: u8 = 2;
    /// The walk of a bucket is over.
    pub(in crate::wire) const BUCKET_END: u8 = 3;
}

/// Bits of `present`.
pub(super) mod present {
    /// The reply comes from elsewhere than the original packet went to.
    pub(in crate::wire) const REPLY_SOURCE: u8 = 1 << 0;
    /// The reply goes elsewhere than the original packet came from.
    pub(in crate::wire) const REPLY_DESTINATION: u8 = 1 << 1;
    /// TCP window scales and flags.
    pub(in crate::wire) const TCP: u8 = 1 << 2;
    /// Mark.
    pub(in crate::wire) const MARK: u8 = 1 << 3;
    /// Zone.
    pub(in crate::wire) const ZONE: u8 = 1 << 4;
    /// Attributes.
    pub(in crate::wire) const ATTRIBUTES: u8 = 1 << 7;
    /// All that an upsert may have.
    pub(in crate::wire) const ALL: u8 = REPLY_SOURCE | REPLY_DESTINATION | TCP | MARK | ZONE | ATTRIBUTES;
}

/// Bytes of a CONN4 delete, and of the part that it has in common with an upsert.
pub(super) const CONN4_HEAD_LEN: usize = 20;
/// Bytes of a CONN4 upsert without optional fields.
pub(super) const CONN4_PLAIN_LEN: usize = 24;
/// Bytes of a bucket-end.
pub(super) const BUCKET_END_LEN: usize = 16;

/// One change to one key, or a word about the table, borrowed from a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Record<'a> {
    /// The connection is now this (full replacement).
    Upsert(Conn4<'a>),
    /// The connection is gone. Only its key is known; the rest reads as zero.
    Delete(Conn4<'a>),
    /// All entries of this bucket have been sent since the stream's number `since`.
    BucketEnd {
        /// Which, below [`BUCKETS`].
        bucket: u16,
        /// Number of the last frame before the first of the bucket's walk; may be 0.
        since: u64,
    },
    /// A type of record that this version does not know: to be counted, and nothing else.
    Unknown {
        /// Its type.
        kind: u8,
    },
}

/// The records of a frame, in the order of the frame. All of them have been checked, so there is nothing left that
/// could fail.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Records<'a> {
    bytes: &'a [u8],
    count: u8,
}

impl<'a> Records<'a> {
    /// Checks that `payload` is `count` records and nothing else.
    pub(super) fn decode(payload: &'a [u8], count: u8) -> Result<Self, FrameError> {
        let mut rest = payload;
        let mut found = 0;
        while !rest.is_empty() {
            let (record, after) = split(rest)?;
            check(record)?;
            rest = after;
            found += 1;
        }
        if found == usize::from(count) { Ok(Records { bytes: payload, count }) } else { Err(FrameError::CountMismatch) }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let (record, rest) = split(self.bytes).ok()?;
        self.bytes = rest;
        self.count = self.count.saturating_sub(1);
        Some(view(record))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::from(self.count), Some(usize::from(self.count)))
    }
}

impl ExactSizeIterator for Records<'_> {}
impl core::iter::FusedIterator for Records<'_> {}

/// A CONN4 record: a connection over IPv4, or the key of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Conn4<'a> {
    head: &'a Conn4Head,
    /// Upsert: the optional fields that `present` names, from byte 24 on. Delete: the zone, from byte 20 on.
    optional: &'a [u8],
    /// Seconds; 0 in a delete.
    timeout: u32,
}

impl<'a> Conn4<'a> {
    /// What names the connection.
    pub fn key(&self) -> FlowKey {
        let zone = self.field::<RawZone>(present::ZONE);
        FlowKey {
            source: IpAddr::V4(Ipv4Addr::from_octets(self.head.source)),
            destination: IpAddr::V4(Ipv4Addr::from_octets(self.head.destination)),
            source_port: self.head.source_port.get(),
            destination_port: self.head.destination_port.get(),
            protocol: self.head.protocol,
            zone: zone.map_or(Zone::DEFAULT, |zone| Zone { id: zone.id.get(), direction: zone.direction }),
        }
    }

    /// Key and value, in the one form that table and digest know.
    pub fn flow(&self) -> Flow {
        let mut flow = Flow {
            state: self.head.state,
            status: self.head.status.get(),
            timeout: self.timeout,
            ..Flow::new(self.key())
        };
        if self.head.header.present & !(present::ZONE | present::ATTRIBUTES) == 0 {
            return flow;
        }
        flow.reply_source = self.field::<RawEndpoint>(present::REPLY_SOURCE).map(RawEndpoint::get);
        flow.reply_destination = self.field::<RawEndpoint>(present::REPLY_DESTINATION).map(RawEndpoint::get);
        flow.tcp = self.field::<RawTcp>(present::TCP).map(RawTcp::get);
        flow.mark = self.field::<U32>(present::MARK).map_or(0, |mark| mark.get());
        flow.canonical()
    }

    /// The attributes as they travel, checked to be well-formed: type u8, length u8 (of the data alone), data, zeros
    /// to a multiple of four; types ascend. To be kept and passed on, whatever they are [3.3].
    pub fn attributes(&self) -> &'a [u8] {
        if self.head.header.present & present::ATTRIBUTES == 0 {
            return &[];
        }
        self.optional.get(optional_len(self.head.header.present)..).unwrap_or_default()
    }

    /// The optional field that the bit stands for: it begins where the fields of the lower bits end.
    fn field<T: FromBytes + KnownLayout + Immutable + Unaligned>(&self, bit: u8) -> Option<&'a T> {
        let present = self.head.header.present;
        if present & bit == 0 {
            return None;
        }
        let (field, _) = T::ref_from_prefix(self.optional.get(optional_len(present & (bit - 1))..)?).ok()?;
        Some(field)
    }
}

/// The first four bytes of every record.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub(super) struct RecordHeader {
    pub(super) kind: u8,
    pub(super) operation: u8,
    pub(super) present: u8,
    pub(super) words: u8,
}

/// What upsert and delete of a CONN4 have in common.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub(super) struct Conn4Head {
    pub(super) header: RecordHeader,
    pub(super) source: [u8; 4],
    pub(super) destination: [u8; 4],
    pub(super) source_port: U16,
    pub(super) destination_port: U16,
    pub(super) protocol: u8,
    pub(super) state: u8,
    pub(super) status: U16,
}

/// A CONN4 upsert without optional fields.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Conn4Plain {
    pub(super) head: Conn4Head,
    pub(super) timeout: U32,
}

/// One side of the reply direction.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawEndpoint {
    pub(super) address: [u8; 4],
    pub(super) port: U16,
    pub(super) zero: U16,
}

impl RawEndpoint {
    fn get(&self) -> Endpoint {
        Endpoint { address: IpAddr::V4(Ipv4Addr::from_octets(self.address)), port: self.port.get() }
    }
}

/// TCP window scales and flags.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawTcp {
    pub(super) scales: u8,
    pub(super) flags_original: u8,
    pub(super) flags_reply: u8,
    pub(super) zero: u8,
}

impl RawTcp {
    fn get(&self) -> TcpInfo {
        TcpInfo {
            window_scale_original: self.scales >> 4,
            window_scale_reply: self.scales & 0x0f,
            flags_original: self.flags_original,
            flags_reply: self.flags_reply,
        }
    }
}

/// A zone with its direction.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawZone {
    pub(super) id: U16,
    pub(super) direction: u8,
    pub(super) zero: u8,
}

/// A bucket-end record.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawBucketEnd {
    pub(super) header: RecordHeader,
    pub(super) bucket: U16,
    pub(super) zero: U16,
    pub(super) since: U64,
}

const _: () = assert!(size_of::<Conn4Head>() == CONN4_HEAD_LEN);
const _: () = assert!(size_of::<Conn4Plain>() == CONN4_PLAIN_LEN);
const _: () = assert!(size_of::<RawBucketEnd>() == BUCKET_END_LEN);

/// Bytes that the optional fields named by `present` take, attributes aside.
pub(super) const fn optional_len(present: u8) -> usize {
    const FIELDS: [(u8, u8); 5] = [
        (present::REPLY_SOURCE, 8),
        (present::REPLY_DESTINATION, 8),
        (present::TCP, 4),
        (present::MARK, 4),
        (present::ZONE, 4),
    ];
    const LEN: [u8; 32] = {
        let mut len = [0; 32];
        let mut bits = 0;
        while bits < 32 {
            let mut field = 0;
            while field < FIELDS.len() {
                if bits as u8 & FIELDS[field].0 != 0 {
                    len[bits] += FIELDS[field].1;
                }
                field += 1;
            }
            bits += 1;
        }
        len
    };
    LEN[(present & 0x1f) as usize] as usize
}

/// Cuts the first record off. Its length is at least its own header's, so that every step leads on.
pub(super) fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), FrameError> {
    let &[_, _, _, words, ..] = bytes else { return Err(FrameError::RecordTruncated) };
    if words == 0 {
        return Err(FrameError::RecordLength);
    }
    bytes.split_at_checked(4 * usize::from(words)).ok_or(FrameError::RecordTruncated)
}

/// Checks one whole record.
pub(super) fn check(record: &[u8]) -> Result<(), FrameError> {
    let (header, _) = RecordHeader::ref_from_prefix(record).map_err(|_| FrameError::RecordTruncated)?;
    match (header.kind, header.operation) {
        (kind::CONN4, operation::UPSERT) => check_upsert(header.present, record),
        (kind::CONN4, operation::DELETE) => check_delete(header.present, record),
        (kind::TABLE, operation::BUCKET_END) => check_bucket_end(header.present, record),
        (kind::CONN4 | kind::TABLE, _) => Err(FrameError::RecordOperation),
        _ => Ok(()),
    }
}

fn check_upsert(present: u8, record: &[u8]) -> Result<(), FrameError> {
    if present == 0 && record.len() == CONN4_PLAIN_LEN {
        return Ok(());
    }
    if present & !present::ALL != 0 {
        return Err(FrameError::RecordPresent);
    }
    let expected = CONN4_PLAIN_LEN + optional_len(present);
    let open_ended = present & present::ATTRIBUTES != 0;
    if record.len() < expected || (record.len() > expected && !open_ended) {
        return Err(FrameError::RecordLength);
    }
    let Record::Upsert(conn) = view(record) else { return Err(FrameError::RecordLength) };
    check_optional(&conn)?;
    check_attributes(conn.attributes())
}

fn check_delete(present: u8, record: &[u8]) -> Result<(), FrameError> {
    if present & !present::ZONE != 0 {
        return Err(FrameError::RecordPresent);
    }
    if record.len() != CONN4_HEAD_LEN + optional_len(present) {
        return Err(FrameError::RecordLength);
    }
    let Record::Delete(conn) = view(record) else { return Err(FrameError::RecordLength) };
    if conn.head.state != 0 || conn.head.status.get() != 0 {
        return Err(FrameError::RecordField);
    }
    check_optional(&conn)
}

/// Reserved bytes are zero, and a zone's direction is one that conntrack knows.
fn check_optional(conn: &Conn4<'_>) -> Result<(), FrameError> {
    let endpoint_fits = |bit| conn.field::<RawEndpoint>(bit).is_none_or(|endpoint| endpoint.zero.get() == 0);
    let fits = endpoint_fits(present::REPLY_SOURCE)
        && endpoint_fits(present::REPLY_DESTINATION)
        && conn.field::<RawTcp>(present::TCP).is_none_or(|tcp| tcp.zero == 0)
        && conn.field::<RawZone>(present::ZONE).is_none_or(|zone| zone.zero == 0 && zone.direction <= Zone::REPLY);
    if fits { Ok(()) } else { Err(FrameError::RecordField) }
}

/// Attributes fill their space exactly, ascend strictly from 1, and are padded with zeros.
fn check_attributes(mut bytes: &[u8]) -> Result<(), FrameError> {
    let mut previous = 0;
    while let &[kind, len, ref rest @ ..] = bytes {
        let data_len = usize::from(len);
        let padded_len = (2 + data_len).next_multiple_of(4) - 2;
        let (data, after) = rest.split_at_checked(padded_len).ok_or(FrameError::RecordAttribute)?;
        let padding_is_zero = data.iter().skip(data_len).all(|byte| *byte == 0);
        if kind <= previous || !padding_is_zero {
            return Err(FrameError::RecordAttribute);
        }
        previous = kind;
        bytes = after;
    }
    Ok(())
}

fn check_bucket_end(present: u8, record: &[u8]) -> Result<(), FrameError> {
    if present != 0 {
        return Err(FrameError::RecordPresent);
    }
    let raw = RawBucketEnd::ref_from_bytes(record).map_err(|_| FrameError::RecordLength)?;
    if raw.zero.get() != 0 || raw.bucket.get() >= BUCKETS {
        return Err(FrameError::RecordField);
    }
    Ok(())
}

/// Looks at one record. Total: what is too short for what it says it is reads as unknown, and a check has refused it.
pub(super) fn view(record: &[u8]) -> Record<'_> {
    let unknown = Record::Unknown { kind: record.first().copied().unwrap_or_default() };
    let Ok((header, _)) = RecordHeader::ref_from_prefix(record) else { return unknown };
    match (header.kind, header.operation) {
        (kind::CONN4, operation::UPSERT) => match Conn4Plain::ref_from_prefix(record) {
            Ok((plain, optional)) => {
                Record::Upsert(Conn4 { head: &plain.head, optional, timeout: plain.timeout.get() })
            }
            Err(_) => unknown,
        },
        (kind::CONN4, operation::DELETE) => match Conn4Head::ref_from_prefix(record) {
            Ok((head, optional)) => Record::Delete(Conn4 { head, optional, timeout: 0 }),
            Err(_) => unknown,
        },
        (kind::TABLE, operation::BUCKET_END) => match RawBucketEnd::ref_from_prefix(record) {
            Ok((raw, _)) => Record::BucketEnd { bucket: raw.bucket.get(), since: raw.since.get() },
            Err(_) => unknown,
        },
        _ => unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A plain upsert: tcp 10.0.0.1:40000 -> 192.0.2.10:80, established, 300 s.
    const PLAIN: [u8; 24] = [1, 1, 0, 6, 10, 0, 0, 1, 192, 0, 2, 10, 0x9c, 0x40, 0, 80, 6, 3, 0, 0x0e, 0, 0, 1, 44];

    /// The plain upsert with other `present` bits and with `more` behind it.
    fn upsert(present: u8, more: &[u8]) -> Vec<u8> {
        let mut record = PLAIN.to_vec();
        record.extend_from_slice(more);
        (record[2], record[3]) = (present, (record.len() / 4) as u8);
        record
    }

    fn decode(bytes: &[u8]) -> Result<Vec<Record<'_>>, FrameError> {
        // However many there are: the count is judged elsewhere.
        (0..=2)
            .map(|count| Records::decode(bytes, count))
            .find(|it| *it != Err(FrameError::CountMismatch))
            .map_or(Err(FrameError::CountMismatch), |records| records.map(Iterator::collect))
    }

    fn flow_of(bytes: &[u8]) -> Flow {
        match decode(bytes).as_deref() {
            Ok([Record::Upsert(conn)]) => conn.flow(),
            other => panic!("not one upsert: {other:?}"),
        }
    }

    /// [3.3.3]
    #[test]
    fn a_plain_connection_is_read_field_by_field() {
        let flow = flow_of(&PLAIN);
        assert_eq!(flow.key.to_string(), "tcp 10.0.0.1:40000 -> 192.0.2.10:80");
        assert_eq!((flow.state, flow.status, flow.timeout), (3, 0x000e, 300));
        assert_eq!(Flow { state: 0, status: 0, timeout: 0, ..flow }, Flow::new(flow.key));
    }

    /// [3.3.8] What is said at more length than needed is the same flow.
    #[test]
    fn a_flow_has_one_form_however_it_was_sent() {
        let mirrored = upsert(
            0x1f,
            &[
                192, 0, 2, 10, 0, 80, 0, 0, // the original destination
                10, 0, 0, 1, 0x9c, 0x40, 0, 0, // the original source
                0, 0, 0, 0, // TCP information that says nothing
                0, 0, 0, 0, // no mark
                0, 0, 0, 0, // the default zone
            ],
        );
        assert_eq!(flow_of(&mirrored), flow_of(&PLAIN));
    }

    /// [3.3.1] Unknown types are skipped by their length.
    #[test]
    fn an_unknown_type_is_stepped_over() {
        let mut bytes = vec![2, 9, 0xff, 2, 1, 2, 3, 4];
        bytes.extend_from_slice(&PLAIN);
        let records = decode(&bytes).expect("valid");
        assert_eq!(records[0], Record::Unknown { kind: 2 });
        assert!(matches!(records[1], Record::Upsert(_)));
    }

    #[test]
    fn a_length_that_leads_nowhere_is_refused() {
        assert_eq!(decode(&[9, 1, 0, 0]), Err(FrameError::RecordLength));
        assert_eq!(decode(&[9, 1, 0]), Err(FrameError::RecordTruncated));
        assert_eq!(decode(&[9, 1, 0, 2, 0, 0, 0]), Err(FrameError::RecordTruncated));
        assert_eq!(decode(&PLAIN[..20]), Err(FrameError::RecordTruncated));
    }

    #[test]
    fn a_length_is_what_the_present_bits_imply() {
        for (bit, len) in [(1, 8), (2, 8), (4, 4), (8, 4), (16, 4)] {
            assert!(decode(&upsert(bit, &vec![0; len])).is_ok());
            assert_eq!(decode(&upsert(bit, &vec![0; len - 4])), Err(FrameError::RecordLength));
            assert_eq!(decode(&upsert(bit, &vec![0; len + 4])), Err(FrameError::RecordLength));
        }
        assert_eq!(decode(&upsert(0, &[0; 4])), Err(FrameError::RecordLength));
        assert_eq!(decode(&[1, 1, 0, 1]), Err(FrameError::RecordLength));
        assert_eq!(decode(&[1, 1, 0x80, 1]), Err(FrameError::RecordLength));
        assert_eq!(decode(&[1, 2, 0, 1]), Err(FrameError::RecordLength));
        assert_eq!(decode(&[0, 3, 0, 1]), Err(FrameError::RecordLength));
        let mut delete = PLAIN;
        delete[1] = 2;
        assert_eq!(decode(&delete), Err(FrameError::RecordLength), "four bytes too many");
        let bucket_end = [0, 3, 0, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
        assert_eq!(decode(&bucket_end), Err(FrameError::RecordLength), "four bytes too many");
    }

    #[test]
    fn unknown_present_bits_are_refused() {
        for bit in [0x20, 0x40] {
            assert_eq!(decode(&upsert(bit, &[])), Err(FrameError::RecordPresent));
        }
        let delete = |present: u8| {
            let mut record = [0_u8; 24];
            record[..4].copy_from_slice(&[1, 2, present, 6]);
            record
        };
        assert!(decode(&delete(0x10)).is_ok());
        for bit in [0x01, 0x02, 0x04, 0x08, 0x20, 0x40, 0x80] {
            assert_eq!(decode(&delete(0x10 | bit)), Err(FrameError::RecordPresent));
        }
        assert_eq!(decode(&[0, 3, 1, 4, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]), Err(FrameError::RecordPresent));
    }

    #[test]
    fn a_type_has_its_own_operations() {
        for (kind, operation) in [(1, 0), (1, 3), (1, 4), (0, 0), (0, 1), (0, 2), (0, 4)] {
            let mut record = PLAIN;
            (record[0], record[1]) = (kind, operation);
            assert_eq!(decode(&record), Err(FrameError::RecordOperation), "type {kind} operation {operation}");
        }
    }

    /// [3.2.9]
    #[test]
    fn reserved_bytes_are_zero() {
        assert_eq!(decode(&upsert(1, &[1, 2, 3, 4, 0, 1, 0, 1])), Err(FrameError::RecordField));
        assert_eq!(decode(&upsert(1, &[1, 2, 3, 4, 0, 1, 1, 0])), Err(FrameError::RecordField));
        assert_eq!(decode(&upsert(2, &[1, 2, 3, 4, 0, 1, 0, 1])), Err(FrameError::RecordField));
        assert_eq!(decode(&upsert(4, &[1, 2, 3, 4])), Err(FrameError::RecordField));
        assert_eq!(decode(&upsert(16, &[0, 1, 0, 1])), Err(FrameError::RecordField));
        assert_eq!(decode(&upsert(16, &[0, 1, 3, 0])), Err(FrameError::RecordField));
        assert!(decode(&upsert(16, &[0, 1, 2, 0])).is_ok());
        for index in [17, 18, 19] {
            let mut delete = [0_u8; 20];
            delete[..4].copy_from_slice(&[1, 2, 0, 5]);
            assert!(decode(&delete).is_ok());
            delete[index] = 1;
            assert_eq!(decode(&delete), Err(FrameError::RecordField), "byte {index}");
        }
        assert_eq!(decode(&[0, 3, 0, 4, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]), Err(FrameError::RecordField));
    }

    /// [8.0.3]
    #[test]
    fn there_are_4096_buckets() {
        let last = [0, 3, 0, 4, 0x0f, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
        assert_eq!(decode(&last), Ok(vec![Record::BucketEnd { bucket: 4095, since: 9 }]));
        let beyond = [0, 3, 0, 4, 0x10, 0x00, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
        assert_eq!(decode(&beyond), Err(FrameError::RecordField));
    }

    /// [3.3] Unknown attributes are kept, so they must at least be whole.
    #[test]
    fn attributes_are_kept_as_they_came() {
        let attributes = [2, 2, 0xaa, 0xbb, 8, 3, 1, 2, 3, 0, 0, 0, 200, 0, 0, 0];
        let record = upsert(0x88, &[&[0, 0, 0, 5], &attributes[..]].concat());
        let records = decode(&record).expect("valid");
        let Record::Upsert(conn) = records[0] else { panic!("not an upsert") };
        assert_eq!(conn.attributes(), attributes);
        assert_eq!(conn.flow().mark, 5);
        let Record::Upsert(plain) = view(&PLAIN) else { panic!("not an upsert") };
        assert!(plain.attributes().is_empty());
        assert!(decode(&upsert(0x80, &[])).is_ok(), "an empty list is a list");
    }

    /// [3.3.6]
    #[test]
    fn malformed_attributes_are_refused() {
        let cases: [&[u8]; 6] = [
            &[1, 3, 0, 0],             // longer than the record
            &[1, 255, 0, 0],           // much longer
            &[1, 1, 7, 1],             // padded with one
            &[2, 0, 0, 0, 1, 0, 0, 0], // descending
            &[1, 0, 0, 0, 1, 0, 0, 0], // twice
            &[0, 0, 0, 0],             // type 0
        ];
        for attributes in cases {
            assert_eq!(decode(&upsert(0x80, attributes)), Err(FrameError::RecordAttribute), "{attributes:?}");
        }
    }

    #[test]
    fn records_know_how_many_are_left() {
        let bytes = [PLAIN, PLAIN].concat();
        let mut records = Records::decode(&bytes, 2).expect("valid");
        assert_eq!(records.len(), 2);
        records.next();
        assert_eq!(records.len(), 1);
        assert_eq!(records.clone().count(), 1);
        assert_eq!(Records::decode(&bytes, 1), Err(FrameError::CountMismatch));
        assert_eq!(Records::decode(&bytes, 3), Err(FrameError::CountMismatch));
    }
}
