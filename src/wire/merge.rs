//! The merge of two tables: a PULL of what another stream left, and the pages of RECORDS that answer it.
//!
//! ```text
//!   PULL (kind 6), what 2                            RECORDS (kind 7)
//!    0 target: node u32, zero u32, incarnation u64    0 target: the asker
//!   16 what u8 (2: merge), zero 3                    16 cursor u64    of the PULL that this answers
//!   20 stream: node u32                              24 next u64      where to ask on; u64::MAX: that was all
//!   24 stream: incarnation u64                       32 records, as many as the header's count says
//!   32 after u64
//!   40 cursor u64     0 at first; u64::MAX: I am done
//! ```
//!
//! A cursor means something only to the node that gave it out.

use super::control::{RawTarget, encode};
use super::{DataWriter, FrameError, Header, Kind, NodeId, PushError, Record, Records, Section, Target};
use crate::flow::Flow;
use zerocopy::byteorder::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The cursor behind the last page: in RECORDS "that was all", in a PULL "I am done".
pub const CURSOR_END: u64 = u64::MAX;

/// PULL for a merge: send me your entries of this stream above `after`, and those of your own mastership [5.5.1].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct MergePull {
    /// Whom it asks.
    pub target: Target,
    /// Master of the stream that both have followed; not zero.
    pub node: NodeId,
    /// The master's incarnation; not zero.
    pub incarnation: u64,
    /// Up to this number of that stream the asker has everything.
    pub after: u64,
    /// Where the page before ended; 0 for the first, [`CURSOR_END`] to say that no more is asked for.
    pub cursor: u64,
}

/// RECORDS: a page of entries, in answer to a [`MergePull`]. All of them are upserts, sections, or of unknown type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MergeRecords<'a> {
    /// Who asked.
    pub target: Target,
    /// The cursor of the question.
    pub cursor: u64,
    /// The cursor of the next one, or [`CURSOR_END`].
    pub next: u64,
    /// The entries.
    pub records: Records<'a>,
}

/// Writes a whole PULL for a merge; otherwise as [`encode_advert`](super::encode_advert).
#[must_use]
pub fn encode_merge_pull(slot: &mut [u8], header: Header, pull: &MergePull) -> Option<usize> {
    if !pull.is_valid() {
        return None;
    }
    let fixed = RawMergePull {
        target: RawTarget::new(pull.target),
        what: PULL_MERGE,
        zero: [0; 3],
        node: U32::new(pull.node.0),
        incarnation: U64::new(pull.incarnation),
        after: U64::new(pull.after),
        cursor: U64::new(pull.cursor),
    };
    encode(slot, Header { kind: Kind::PULL, ..header }, [fixed.as_bytes(), &[], &[]])
}

impl MergePull {
    /// Decodes what begins like a PULL and has [`PULL_MERGE`] at its place.
    pub(super) fn decode(payload: &[u8]) -> Result<Self, FrameError> {
        let raw = RawMergePull::ref_from_bytes(payload).map_err(|_| FrameError::PullLength)?;
        let pull = MergePull {
            target: raw.target.get().ok_or(FrameError::PullField)?,
            node: NodeId(raw.node.get()),
            incarnation: raw.incarnation.get(),
            after: raw.after.get(),
            cursor: raw.cursor.get(),
        };
        if pull.is_valid() && raw.zero == [0; 3] { Ok(pull) } else { Err(FrameError::PullField) }
    }

    fn is_valid(&self) -> bool {
        self.target.is_valid() && self.node.0 != 0 && self.incarnation != 0
    }
}

impl<'a> MergeRecords<'a> {
    pub(super) fn decode(payload: &'a [u8], count: u8) -> Result<Self, FrameError> {
        let (raw, records) = RawMergeRecords::ref_from_prefix(payload).map_err(|_| FrameError::RecordsLength)?;
        let target = raw.target.get().ok_or(FrameError::RecordsField)?;
        let (cursor, next) = (raw.cursor.get(), raw.next.get());
        if cursor == CURSOR_END || next == 0 {
            return Err(FrameError::RecordsField);
        }
        let records = Records::decode(records, count)?;
        if !records.clone().all(|record| is_entry(&record)) {
            return Err(FrameError::RecordsField);
        }
        Ok(MergeRecords { target, cursor, next, records })
    }
}

/// A page tells what there is; what there is not, it leaves out.
fn is_entry(record: &Record<'_>) -> bool {
    match record {
        Record::Upsert(_) | Record::Unknown { .. } => true,
        Record::Section(section) => section.fragment.is_some(),
        Record::Delete(_) | Record::BucketEnd { .. } => false,
    }
}

/// A RECORDS frame that is being written.
#[derive(Debug)]
pub struct MergeWriter<'a> {
    records: DataWriter<'a>,
    target: Target,
    cursor: u64,
}

impl<'a> MergeWriter<'a> {
    /// Begins the page that answers the question with this cursor; `None` if the slot does not hold even an empty one,
    /// or if a receiver would refuse it. The header's kind is taken as RECORDS, whatever it says.
    pub fn new(slot: &'a mut [u8], header: Header, target: Target, cursor: u64) -> Option<Self> {
        if !target.is_valid() || cursor == CURSOR_END {
            return None;
        }
        let header = Header { kind: Kind::RECORDS, ..header };
        let records = DataWriter::behind(slot, header, size_of::<RawMergeRecords>())?;
        Some(MergeWriter { records, target, cursor })
    }

    /// Appends an entry.
    ///
    /// # Errors
    /// As for [`DataWriter::push_upsert`].
    pub fn push_upsert(&mut self, flow: &Flow) -> Result<(), PushError> {
        self.records.push_upsert(flow)
    }

    /// Appends an entry of a section, or a fragment of one.
    ///
    /// # Errors
    /// As for [`DataWriter::push_section`]; [`PushError::Section`] also for a delete.
    pub fn push_section(&mut self, section: &Section<'_>) -> Result<(), PushError> {
        if section.fragment.is_none() {
            return Err(PushError::Section);
        }
        self.records.push_section(section)
    }

    /// Entries written so far.
    pub fn count(&self) -> usize {
        self.records.count()
    }

    /// Writes the header and says how long the frame is. `next` is the cursor of the next page, or [`CURSOR_END`]; 0
    /// would be refused and is written as that.
    pub fn finish(self, next: u64) -> usize {
        let next = if next == 0 { CURSOR_END } else { next };
        let fixed = RawMergeRecords {
            target: RawTarget::new(self.target),
            cursor: U64::new(self.cursor),
            next: U64::new(next),
        };
        self.records.finish_behind(fixed.as_bytes())
    }
}

/// What a PULL asks for: 2 is what is left of a stream.
pub(super) const PULL_MERGE: u8 = 2;

/// A merge's PULL as it travels.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawMergePull {
    target: RawTarget,
    what: u8,
    zero: [u8; 3],
    node: U32,
    incarnation: U64,
    after: U64,
    cursor: U64,
}

/// The fixed part of RECORDS as it travels.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawMergeRecords {
    target: RawTarget,
    cursor: U64,
    next: U64,
}

const _: () = assert!(size_of::<RawMergePull>() == 48 && size_of::<RawMergeRecords>() == 32);
/// The longest record fits the smallest page, with a seal's tag.
const _: () = assert!(super::HEADER_LEN + 32 + super::conn::RECORD_LEN_MAX + 16 <= super::FRAME_LEN_MIN);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{FlowKey, Zone};
    use crate::wire::control::with;
    use core::net::IpAddr;

    const TARGET: Target = Target { node: NodeId(1), incarnation: 2 };

    const PULL: [u8; 48] = [
        0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, // target
        2, 0, 0, 0, 0, 0, 0, 3, // what, zero, the stream's node
        0, 0, 0, 0, 0, 0, 0, 4, // its incarnation
        0, 0, 0, 0, 0, 0, 0, 5, // after
        0, 0, 0, 0, 0, 0, 0, 6, // cursor
    ];

    /// Nothing but udp 10.0.0.1:1 -> 10.0.0.2:2.
    const PAGE: [u8; 56] = [
        0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, // target
        0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 7, // cursor, next
        1, 1, 0, 6, 10, 0, 0, 1, 10, 0, 0, 2, 0, 1, 0, 2, 17, 0, 0, 0, 0, 0, 0, 30,
    ];

    fn flow() -> Flow {
        let key = FlowKey {
            source: IpAddr::from([10, 0, 0, 1]),
            destination: IpAddr::from([10, 0, 0, 2]),
            source_port: 1,
            destination_port: 2,
            protocol: 17,
            zone: Zone::DEFAULT,
        };
        Flow { timeout: 30, ..Flow::new(key) }
    }

    /// [5.5.2]
    #[test]
    fn question_and_page_are_written_and_read_field_by_field() {
        let pull = MergePull { target: TARGET, node: NodeId(3), incarnation: 4, after: 5, cursor: 6 };
        let mut slot = [0xaa; 96];
        assert_eq!(encode_merge_pull(&mut slot, Header::default(), &pull), Some(88));
        assert_eq!((slot[5], &slot[40..88]), (6, &PULL[..]));
        assert_eq!(MergePull::decode(&PULL), Ok(pull));
        let mut writer = MergeWriter::new(&mut slot, Header::default(), TARGET, 6).expect("room");
        assert_eq!(writer.push_upsert(&flow()), Ok(()));
        assert_eq!(writer.push_upsert(&flow()), Err(PushError::Full));
        assert_eq!((writer.count(), writer.finish(7)), (1, 96));
        assert_eq!((slot[0], slot[5], &slot[40..]), (1, 7, &PAGE[..]));
        let page = MergeRecords::decode(&PAGE, 1).expect("valid");
        assert_eq!((page.target, page.cursor, page.next), (TARGET, 6, 7));
        let flows: Vec<Flow> = page
            .records
            .filter_map(|it| if let Record::Upsert(conn) = it { Some(conn.flow()) } else { None })
            .collect();
        assert_eq!(flows, [flow()]);
    }

    #[test]
    fn questions_of_impossible_shape_are_refused() {
        let refused = |changes: &[(usize, u8)]| MergePull::decode(&with(&PULL, changes)).err();
        assert_eq!(MergePull::decode(&PULL[..47]), Err(FrameError::PullLength));
        assert_eq!(MergePull::decode(&[&PULL[..], &[0]].concat()), Err(FrameError::PullLength));
        for index in [3, 15, 23, 31] {
            assert_eq!(refused(&[(index, 0)]), Some(FrameError::PullField), "byte {index}");
        }
        for index in [4, 17, 18, 19] {
            assert_eq!(refused(&[(index, 1)]), Some(FrameError::PullField), "byte {index}");
        }
        assert_eq!(encode_merge_pull(&mut [0; 100], Header::default(), &MergePull::default()), None, "nobody's");
    }

    #[test]
    fn pages_of_impossible_shape_are_refused() {
        let refused = |changes: &[(usize, u8)]| MergeRecords::decode(&with(&PAGE, changes), 1).err();
        assert_eq!(MergeRecords::decode(&PAGE[..31], 0), Err(FrameError::RecordsLength));
        assert_eq!(MergeRecords::decode(&PAGE[..32], 1), Err(FrameError::CountMismatch));
        assert!(MergeRecords::decode(&PAGE[..32], 0).is_ok(), "an empty page is a page");
        assert_eq!(refused(&[(3, 0)]), Some(FrameError::RecordsField), "target node 0");
        assert_eq!(refused(&[(7, 1)]), Some(FrameError::RecordsField), "reserved in the target");
        assert_eq!(refused(&[(31, 0)]), Some(FrameError::RecordsField), "next page 0");
        let end: Vec<(usize, u8)> = (16..24).map(|index| (index, 0xff)).collect();
        assert_eq!(refused(&end), Some(FrameError::RecordsField), "answers a question that was none");
        assert_eq!(refused(&[(34, 0x20)]), Some(FrameError::RecordPresent));
        let page = |record: &[u8]| MergeRecords::decode(&[&PAGE[..32], record].concat(), 1).err();
        let delete = [1, 2, 0, 5, 10, 0, 0, 1, 10, 0, 0, 2, 0, 1, 0, 2, 17, 0, 0, 0];
        assert_eq!(page(&delete), Some(FrameError::RecordsField));
        assert_eq!(page(&[0, 3, 0, 4, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]), Some(FrameError::RecordsField));
        assert_eq!(page(&[16, 2, 0, 3, 0, 9, 0, 1, b'k', 0, 0, 0]), Some(FrameError::RecordsField));
        assert_eq!(page(&[77, 2, 0, 2, 0, 9, 0, 1]), None, "of a later version");
    }

    #[test]
    fn what_would_be_refused_is_not_written() {
        let mut slot = [0; 1208];
        assert!(MergeWriter::new(&mut slot, Header::default(), Target::default(), 0).is_none());
        assert!(MergeWriter::new(&mut slot, Header::default(), TARGET, CURSOR_END).is_none());
        assert!(MergeWriter::new(&mut slot[..71], Header::default(), TARGET, 0).is_none());
        let mut writer = MergeWriter::new(&mut slot, Header::default(), TARGET, 0).expect("room");
        let gone = Section { table: 1, key: b"k", fragment: None };
        assert_eq!(writer.push_section(&gone), Err(PushError::Section));
        assert_eq!(writer.finish(0), 72);
        assert_eq!(MergeRecords::decode(&slot[40..72], 0).map(|page| page.next), Ok(CURSOR_END));
    }
}
