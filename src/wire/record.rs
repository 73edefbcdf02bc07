//! Records: what a DATA frame says about one key each.
//!
//! A record begins with four bytes that let anybody step over it: its type, what is done, which optional fields are
//! there, and its whole length in words of four bytes. The plain connection is as small as the draft's, 24 bytes.
//!
//! ```text
//!   every record         type u8 │ operation u8 │ present u8 │ length u8 (words, header included)
//!
//!   CONN4 (1), CONN6 (2)  a connection over IPv4 or IPv6, see `conn`:
//!     upsert (1)         full replacement
//!     delete (2)         the key alone
//!
//!   SECTION (16)         keys and values that are no flows, see `section`: upsert, delete
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

use super::conn::{self, Conn};
use super::section::{self, Section};
use super::{BUCKETS, FrameError};
use crate::flow::KeyBytes;
use crate::planted::{Plant, planted};
use zerocopy::byteorder::big_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Record types.
pub(super) mod kind {
    /// The table itself.
    pub(in crate::wire) const TABLE: u8 = 0;
    /// A connection over IPv4.
    pub(in crate::wire) const CONN4: u8 = 1;
    /// A connection over IPv6.
    pub(in crate::wire) const CONN6: u8 = 2;
    /// Keys and values that are no flows.
    pub(in crate::wire) const SECTION: u8 = 16;
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

/// One change to one key, or a word about the table, borrowed from a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Record<'a> {
    /// The connection is now this (full replacement).
    Upsert(Conn<'a>),
    /// The connection is gone. Only its key is known; the rest reads as zero.
    Delete(Conn<'a>),
    /// All entries of this bucket have been sent since the stream's number `since`.
    BucketEnd {
        /// Which, below [`BUCKETS`].
        bucket: u16,
        /// Number of the last frame before the first of the bucket's walk; may be 0.
        since: u64,
    },
    /// A key of a section has this value, or is gone.
    Section(Section<'a>),
    /// A type of record that this version does not know: to be counted, and nothing else.
    Unknown {
        /// Its type.
        kind: u8,
    },
}

impl Record<'_> {
    /// The key of the connection that it is about, if it is about one.
    #[inline]
    pub fn key_bytes(self) -> Option<KeyBytes> {
        match self {
            Record::Upsert(conn) | Record::Delete(conn) => Some(conn.key_bytes()),
            _ => None,
        }
    }
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
        if found == usize::from(count) || planted(Plant::RecordCount) {
            Ok(Records { bytes: payload, count })
        } else {
            Err(FrameError::CountMismatch)
        }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    #[inline]
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

/// The first four bytes of every record.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub(super) struct RecordHeader {
    pub(super) kind: u8,
    pub(super) operation: u8,
    pub(super) present: u8,
    pub(super) words: u8,
}

impl RecordHeader {
    /// The header of a record of `len` bytes, which is a multiple of four and at most 1020.
    pub(super) fn new(kind: u8, operation: u8, present: u8, len: usize) -> Self {
        RecordHeader { kind, operation, present, words: (len / 4) as u8 }
    }
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

const _: () = assert!(size_of::<RawBucketEnd>() == 16);

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
    match header.kind {
        kind::CONN4 => conn::check::<[u8; 4]>(header, record),
        kind::CONN6 => conn::check::<[u8; 16]>(header, record),
        kind::TABLE => check_table(header, record),
        kind::SECTION => section::check(record),
        _ => Ok(()),
    }
}

fn check_table(header: &RecordHeader, record: &[u8]) -> Result<(), FrameError> {
    if header.operation != operation::BUCKET_END {
        return Err(FrameError::RecordOperation);
    }
    if header.present != 0 {
        return Err(FrameError::RecordPresent);
    }
    let raw = RawBucketEnd::ref_from_bytes(record).map_err(|_| FrameError::RecordLength)?;
    if raw.zero.get() != 0 || raw.bucket.get() >= BUCKETS {
        return Err(FrameError::RecordField);
    }
    Ok(())
}

/// Looks at one record. Total: what is too short for what it says it is reads as unknown, and a check has refused it.
#[inline]
pub(super) fn view(record: &[u8]) -> Record<'_> {
    let &[kind, operation, ..] = record else { return Record::Unknown { kind: 0 } };
    match (kind, operation) {
        (kind::CONN4, operation::UPSERT) => {
            conn::upsert::<[u8; 4]>(record).map_or(Record::Unknown { kind }, Record::Upsert)
        }
        (kind::CONN6, operation::UPSERT) => {
            conn::upsert::<[u8; 16]>(record).map_or(Record::Unknown { kind }, Record::Upsert)
        }
        (kind::CONN4, operation::DELETE) => {
            conn::delete::<[u8; 4]>(record).map_or(Record::Unknown { kind }, Record::Delete)
        }
        (kind::CONN6, operation::DELETE) => {
            conn::delete::<[u8; 16]>(record).map_or(Record::Unknown { kind }, Record::Delete)
        }
        _ => view_rare(record).unwrap_or(Record::Unknown { kind }),
    }
}

/// What is no connection.
#[cold]
fn view_rare(record: &[u8]) -> Option<Record<'_>> {
    match record {
        [kind::TABLE, operation::BUCKET_END, ..] => {
            let (raw, _) = RawBucketEnd::ref_from_prefix(record).ok()?;
            Some(Record::BucketEnd { bucket: raw.bucket.get(), since: raw.since.get() })
        }
        [kind::SECTION, ..] => section::read(record).ok().map(Record::Section),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Flow;

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
        let mut bytes = vec![77, 9, 0xff, 2, 1, 2, 3, 4];
        bytes.extend_from_slice(&PLAIN);
        let records = decode(&bytes).expect("valid");
        assert_eq!(records[0], Record::Unknown { kind: 77 });
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
