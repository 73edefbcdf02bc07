//! From bytes to a frame that may be believed, in two steps.
//!
//! [`Frame::parse`] asks what any receiver can ask of any frame: is it whole, is it of our version, is it undamaged,
//! does it name its sender. [`Frame::verify`] then reads the payload from end to end. The order is that of rule 3.2.8
//! of the protocol: cheap before dear, and what a forger could use to make us remember something comes last.
//!
//! ```text
//!   parse   1 size      it arrived whole                      Truncated Oversized SizeMismatch
//!           2 version   byte 4 says 1                         UnknownVersion, Truncated
//!           3 checksum  CRC-32 with its own field zero        Checksum
//!           4 sender    node, incarnation, number not zero    ZeroNode ZeroIncarnation ZeroSequence
//!   ......  5 the caller: group, replay window, own number    WrongGroup Replayed OwnNode
//!   open    6 seal      opened by its sender's key          Unsealed Sealed Forged
//!   verify  7 flags     none of unknown meaning               UnknownFlags
//!           8 kind      one that this version knows           UnknownKind
//!           9 payload   every record, every count             CountMismatch Record… Advert… Status… …
//!   ...... 10 the caller: replay window, establishment        Replayed Stale Unestablished …
//! ```
//!
//! Version comes before the length of our own header: a message of another version, such as the draft's of 32 bytes,
//! is of another version and not damaged.

use super::merge::PULL_MERGE;
use super::pull::PULL_WHAT_AT;
use super::{
    Advert, DigestsAnswer, DigestsRequest, FRAME_LEN_MAX, FrameError, FrameFlags, HEADER_LEN, Header, Kind, MergePull,
    MergeRecords, NodeId, Pull, Records, Status, VERSION,
};
use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Where the checksum stands in the frame.
pub(super) const CHECKSUM_AT: usize = 8;
/// Bytes that stand in every version of the protocol.
const PREAMBLE_LEN: usize = 8;

/// A frame that is whole, undamaged, of our version, and names its sender. What is in it is not yet known.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    header: &'a RawHeader,
    payload: &'a [u8],
    /// It was sealed, and has been opened.
    opened: bool,
}

impl<'a> Frame<'a> {
    /// Takes the bytes of one datagram as a frame.
    ///
    /// # Errors
    /// [`FrameError::Truncated`], [`Oversized`](FrameError::Oversized), [`SizeMismatch`](FrameError::SizeMismatch),
    /// [`UnknownVersion`](FrameError::UnknownVersion), [`Checksum`](FrameError::Checksum),
    /// [`ZeroNode`](FrameError::ZeroNode), [`ZeroIncarnation`](FrameError::ZeroIncarnation) or
    /// [`ZeroSequence`](FrameError::ZeroSequence); the first that holds, in this order.
    pub fn parse(bytes: &'a [u8]) -> Result<Frame<'a>, FrameError> {
        let Some(&[_, _, size_high, size_low, version, _, _, _]) = bytes.first_chunk::<PREAMBLE_LEN>() else {
            return Err(FrameError::Truncated);
        };
        if bytes.len() > FRAME_LEN_MAX {
            return Err(FrameError::Oversized);
        }
        if usize::from(u16::from_be_bytes([size_high, size_low])) != bytes.len() {
            return Err(FrameError::SizeMismatch);
        }
        if version != VERSION {
            return Err(FrameError::UnknownVersion);
        }
        let (header, payload) = RawHeader::ref_from_prefix(bytes).map_err(|_| FrameError::Truncated)?;
        if header.checksum.get() != checksum(bytes) {
            return Err(FrameError::Checksum);
        }
        if header.node.get() == 0 {
            return Err(FrameError::ZeroNode);
        }
        if header.incarnation.get() == 0 {
            return Err(FrameError::ZeroIncarnation);
        }
        if header.seq.get() == 0 {
            return Err(FrameError::ZeroSequence);
        }
        Ok(Frame { header, payload, opened: false })
    }

    /// A frame whose bytes have been checked, or written, by this room.
    pub(super) fn of_checked(bytes: &'a [u8]) -> Option<Frame<'a>> {
        let (header, payload) = RawHeader::ref_from_prefix(bytes).ok()?;
        Some(Frame { header, payload, opened: false })
    }

    /// The same of one that was sealed, its payload in the clear and its tag cut off.
    pub(super) fn of_opened(bytes: &'a [u8]) -> Option<Frame<'a>> {
        Some(Frame { opened: true, ..Frame::of_checked(bytes)? })
    }

    /// What a message says of itself where [`Frame::parse`] has refused it, for logs; `None` if there is too little of
    /// it to say anything. Believe nothing of it.
    pub fn claim(bytes: &[u8]) -> Option<Claim> {
        let &[_, sync_id, _, _, version, _, _, _] = bytes.first_chunk::<PREAMBLE_LEN>()?;
        let node = bytes.get(12..16).and_then(|node| node.try_into().ok()).map_or(0, u32::from_be_bytes);
        Some(Claim { version, sync_id, node: NodeId(if version == VERSION { node } else { 0 }) })
    }

    /// The header as values.
    pub fn header(&self) -> Header {
        self.header.get()
    }

    /// Writes the frame as its sender would have sent it without a secret: its length, or `None` if it is sealed and was not
    /// opened, or `slot` has no room for it.
    pub fn write_unsealed(&self, slot: &mut [u8]) -> Option<usize> {
        let header = self.header();
        if header.flags.is_sealed() && !self.opened {
            return None;
        }
        let frame = slot.get_mut(..HEADER_LEN + self.payload.len())?;
        frame[HEADER_LEN..].copy_from_slice(self.payload);
        complete(frame, &Header { flags: FrameFlags(header.flags.unknown()), ..header }, self.header.count)
    }

    /// Reads the whole payload, and gives it out only if all of it can be understood.
    ///
    /// # Errors
    /// [`FrameError::Sealed`] (it was not opened), [`UnknownFlags`](FrameError::UnknownFlags),
    /// [`UnknownKind`](FrameError::UnknownKind), [`CountMismatch`](FrameError::CountMismatch), or what is wrong with
    /// the payload.
    pub fn verify(self) -> Result<Verified<'a>, FrameError> {
        let header = self.header();
        if header.flags.is_sealed() && !self.opened {
            return Err(FrameError::Sealed);
        }
        if header.flags.unknown() != 0 {
            return Err(FrameError::UnknownFlags);
        }
        let count = self.header.count;
        let payload = match header.kind {
            Kind::DATA => Payload::Data(Records::decode(self.payload, count)?),
            Kind::RECORDS => Payload::MergeRecords(MergeRecords::decode(self.payload, count)?),
            kind if kind.is_known() && count != 0 => return Err(FrameError::CountMismatch),
            Kind::ADVERT => Payload::Advert(Advert::decode(self.payload)?),
            Kind::STATUS => Payload::Status(Status::decode(self.payload)?),
            Kind::PULL if self.payload.get(PULL_WHAT_AT) == Some(&PULL_MERGE) => {
                Payload::MergePull(MergePull::decode(self.payload)?)
            }
            Kind::PULL => Payload::Pull(Pull::decode(self.payload)?),
            Kind::DIGESTS_REQUEST => Payload::DigestsRequest(DigestsRequest::decode(self.payload)?),
            Kind::DIGESTS_ANSWER => Payload::DigestsAnswer(DigestsAnswer::decode(self.payload)?),
            _ => return Err(FrameError::UnknownKind),
        };
        Ok(Verified { header, payload })
    }
}

/// What a message says of itself before anything of it has been checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// Version of the protocol; 0 is the classic profile.
    pub version: u8,
    /// Group.
    pub sync_id: u8,
    /// Sender; 0 where the version is not ours, because then we do not know where it would stand.
    pub node: NodeId,
}

/// A frame of which every byte has been checked: the only door to a payload.
#[derive(Clone, Debug)]
pub struct Verified<'a> {
    header: Header,
    payload: Payload<'a>,
}

impl<'a> Verified<'a> {
    /// The header as values.
    pub fn header(&self) -> Header {
        self.header
    }

    /// What is in it.
    pub fn payload(&self) -> Payload<'a> {
        self.payload.clone()
    }
}

/// What a frame holds, by its kind.
#[derive(Clone, Debug)]
pub enum Payload<'a> {
    /// ADVERT: who I am, whom I hear, how far I am.
    Advert(Advert<'a>),
    /// DATA: records of the stream.
    Data(Records<'a>),
    /// STATUS: what I hold and what I miss.
    Status(Status<'a>),
    /// PULL: buckets that I ask for.
    Pull(Pull<'a>),
    /// PULL: what I ask for of another stream.
    MergePull(MergePull),
    /// RECORDS: a page of entries, in answer to that.
    MergeRecords(MergeRecords<'a>),
    /// DIGESTS: buckets whose digests I ask for.
    DigestsRequest(DigestsRequest),
    /// DIGESTS: the digests of buckets.
    DigestsAnswer(DigestsAnswer<'a>),
}

/// The 40 bytes of the header as they travel.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug)]
#[repr(C)]
struct RawHeader {
    count: u8,
    sync_id: u8,
    size: U16,
    version: u8,
    kind: u8,
    flags: U16,
    checksum: U32,
    node: U32,
    incarnation: U64,
    seq: U64,
    term: U64,
}

const _: () = assert!(size_of::<RawHeader>() == HEADER_LEN);

impl RawHeader {
    fn get(&self) -> Header {
        Header {
            sync_id: self.sync_id,
            kind: Kind(self.kind),
            flags: FrameFlags(self.flags.get()),
            node: NodeId(self.node.get()),
            incarnation: self.incarnation.get(),
            seq: self.seq.get(),
            term: self.term.get(),
        }
    }
}

/// Puts the header, with size and checksum, before a payload that already stands in `frame`. The slice is the whole
/// frame and no byte more: at least the header, at most [`FRAME_LEN_MAX`]; otherwise nothing is written.
pub(super) fn complete(frame: &mut [u8], header: &Header, count: u8) -> Option<usize> {
    let len = write_header(frame, header, count)?;
    complete_checksum(frame);
    Some(len)
}

/// Puts the header before a payload, its checksum zero.
pub(super) fn write_header(frame: &mut [u8], header: &Header, count: u8) -> Option<usize> {
    let len = frame.len();
    if len > FRAME_LEN_MAX {
        return None;
    }
    let raw = RawHeader {
        count,
        sync_id: header.sync_id,
        size: U16::new(len as u16),
        version: VERSION,
        kind: header.kind.0,
        flags: U16::new(header.flags.0),
        checksum: U32::ZERO,
        node: U32::new(header.node.0),
        incarnation: U64::new(header.incarnation),
        seq: U64::new(header.seq),
        term: U64::new(header.term),
    };
    raw.write_to_prefix(frame).ok()?;
    Some(len)
}

/// Puts the checksum into a whole frame in which it is zero.
pub(super) fn complete_checksum(frame: &mut [u8]) {
    let checksum = crc32fast::hash(frame);
    frame[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&checksum.to_be_bytes());
}

/// CRC-32 of the frame with the checksum's own field taken as zero. The frame is lent and may not be changed, so its
/// first 16 bytes are summed from a copy.
pub(super) fn checksum(frame: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    match frame.split_first_chunk::<16>() {
        Some((start, rest)) => {
            let mut start = *start;
            start[CHECKSUM_AT..CHECKSUM_AT + 4].fill(0);
            crc.update(&start);
            crc.update(rest);
        }
        None => crc.update(frame),
    }
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An empty DATA frame, by hand; the checksum was computed with zlib's crc32.
    const EMPTY: [u8; 40] = [
        0, 81, 0, 40, 1, 2, 0, 0, // count, sync id, size, version, kind, flags
        0x96, 0x8c, 0x8b, 0x06, 0, 0, 0, 7, // checksum, node
        0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, // incarnation
        0, 0, 0, 0, 0, 0, 1, 2, // seq
        0, 0, 0, 0, 0, 0, 0, 3, // term
    ];

    /// [3.2.1]
    #[test]
    fn the_header_stands_where_the_figure_says() {
        let header = Frame::parse(&EMPTY).expect("valid").header();
        assert_eq!(
            header,
            Header {
                sync_id: 81,
                kind: Kind::DATA,
                flags: FrameFlags(0),
                node: NodeId(7),
                incarnation: 0x1122_3344_5566_7788,
                seq: 258,
                term: 3,
            }
        );
        let mut slot = [0xaa; 40];
        assert_eq!(complete(&mut slot, &header, 0), Some(40));
        assert_eq!(slot, EMPTY);
    }

    /// [3.2.3]
    #[test]
    fn a_message_of_the_draft_is_of_another_version_and_not_damaged() {
        let mut classic = [0_u8; 32];
        (classic[0], classic[1], classic[3]) = (1, 81, 32);
        assert_eq!(Frame::parse(&classic).err(), Some(FrameError::UnknownVersion));
        assert_eq!(Frame::claim(&classic), Some(Claim { version: 0, sync_id: 81, node: NodeId(0) }));
        assert_eq!(Frame::claim(&EMPTY), Some(Claim { version: 1, sync_id: 81, node: NodeId(7) }));
        assert_eq!(Frame::claim(&EMPTY[..7]), None);
        let mut newer = EMPTY;
        newer[4] = 2;
        assert_eq!(Frame::claim(&newer), Some(Claim { version: 2, sync_id: 81, node: NodeId(0) }));
        assert_eq!(Frame::claim(&EMPTY[..15]), Some(Claim { version: 1, sync_id: 81, node: NodeId(0) }));
    }

    #[test]
    fn a_frame_longer_than_the_size_field_can_say_is_not_written() {
        assert_eq!(complete(&mut [0; 8961], &Header::default(), 0), None);
        assert_eq!(complete(&mut [0; 39], &Header::default(), 0), None);
        let mut longest = [0; 8960];
        let header = Header { kind: Kind::DATA, node: NodeId(1), incarnation: 1, seq: 1, ..Header::default() };
        assert_eq!(complete(&mut longest, &header, 0), Some(8960));
        assert!(Frame::parse(&longest).is_ok());
    }
}
