//! DIGESTS: which buckets differ. A follower whose total differs asks for the digests of a range of buckets, and walks
//! (by PULL) only those that are not the same.
//!
//! ```text
//!   request (kind 4)                                answer (kind 5)
//!    0 target: node u32, zero u32, incarnation u64   0 target: the asker
//!   16 first u16, count u16                         16 cut u64       number of the stream at which it was taken
//!                                                   24 first u16, count u16, zero u32
//!                                                   32 settled: 16 bytes, a bit for each bucket, from the lowest of
//!                                                      the last byte on: no change of the bucket waits to be sent
//!                                                   48 per bucket: digest u64; 0 where it is not settled
//! ```
//!
//! The answer to a long range comes in pieces of at most [`DIGESTS_MAX`] buckets, each a frame that fits every link.

use super::control::{RawTarget, encode, list};
use super::pull::BucketRange;
use super::{FrameError, Header, Kind, Target};
use zerocopy::byteorder::big_endian::{U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Most buckets in one answer.
pub const DIGESTS_MAX: usize = 128;

/// DIGESTS request: tell me the digests of these buckets [4.4.8].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DigestsRequest {
    /// The master that it is for.
    pub target: Target,
    /// Which buckets.
    pub buckets: BucketRange,
}

/// DIGESTS answer: these buckets had these digests when the stream stood at `cut` [4.4.8].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DigestsAnswer<'a> {
    /// Who asked.
    pub target: Target,
    /// Number of the last frame of the stream whose changes are in the digests.
    pub cut: u64,
    /// The first bucket.
    pub first: u16,
    /// A bit for each bucket, `first` in the lowest: no change of it waits to be sent, so that its digest is that of
    /// `cut`.
    pub settled: u128,
    /// Digest of each bucket, 1 to [`DIGESTS_MAX`]; 0 for one that is not settled.
    pub digests: &'a [BucketDigest],
}

/// Digest of a bucket. As it travels.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(C)]
pub struct BucketDigest(U64);

impl BucketDigest {
    /// The sum of the hashes of the bucket's entries [4.4.3].
    pub const fn new(digest: u64) -> Self {
        BucketDigest(U64::new(digest))
    }

    /// The sum.
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

/// Writes a whole DIGESTS request; otherwise as [`encode_advert`](super::encode_advert).
#[must_use]
pub fn encode_digests_request(slot: &mut [u8], header: Header, request: &DigestsRequest) -> Option<usize> {
    if !request.target.is_valid() || !request.buckets.is_valid() {
        return None;
    }
    let target = RawTarget::new(request.target);
    let header = Header { kind: Kind::DIGESTS_REQUEST, ..header };
    encode(slot, header, [target.as_bytes(), request.buckets.as_bytes(), &[]])
}

/// Writes a whole DIGESTS answer; otherwise as [`encode_advert`](super::encode_advert).
#[must_use]
pub fn encode_digests_answer(slot: &mut [u8], header: Header, answer: &DigestsAnswer<'_>) -> Option<usize> {
    if answer.digests.len() > DIGESTS_MAX || !answer.is_valid() {
        return None;
    }
    let fixed = RawAnswer {
        target: RawTarget::new(answer.target),
        cut: U64::new(answer.cut),
        buckets: BucketRange::new(answer.first, answer.digests.len() as u16),
        zero: U32::ZERO,
        settled: U128::new(answer.settled),
    };
    encode(slot, Header { kind: Kind::DIGESTS_ANSWER, ..header }, [fixed.as_bytes(), answer.digests.as_bytes(), &[]])
}

impl DigestsRequest {
    pub(super) fn decode(payload: &[u8]) -> Result<Self, FrameError> {
        let raw = RawRequest::ref_from_bytes(payload).map_err(|_| FrameError::DigestsLength)?;
        let target = raw.target.get().ok_or(FrameError::DigestsField)?;
        let request = DigestsRequest { target, buckets: raw.buckets };
        if request.buckets.is_valid() { Ok(request) } else { Err(FrameError::DigestsField) }
    }
}

impl<'a> DigestsAnswer<'a> {
    pub(super) fn decode(payload: &'a [u8]) -> Result<Self, FrameError> {
        let (raw, digests) = RawAnswer::ref_from_prefix(payload).map_err(|_| FrameError::DigestsLength)?;
        let count = u8::try_from(raw.buckets.count()).ok().filter(|count| usize::from(*count) <= DIGESTS_MAX);
        let count = count.filter(|_| raw.zero == U32::ZERO).ok_or(FrameError::DigestsField)?;
        let answer = DigestsAnswer {
            target: raw.target.get().ok_or(FrameError::DigestsField)?,
            cut: raw.cut.get(),
            first: raw.buckets.first(),
            settled: raw.settled.get(),
            digests: list(digests, count).ok_or(FrameError::DigestsLength)?,
        };
        if answer.is_valid() { Ok(answer) } else { Err(FrameError::DigestsField) }
    }

    /// Each bucket with its digest; `None` for one that is not settled.
    pub fn iter(&self) -> impl Iterator<Item = (u16, Option<u64>)> + 'a {
        let DigestsAnswer { first, settled, digests, .. } = *self;
        digests
            .iter()
            .zip(0..)
            .map(move |(digest, nth)| (first.wrapping_add(nth), (settled >> nth & 1 == 1).then(|| digest.get())))
    }

    fn is_valid(&self) -> bool {
        let range = BucketRange::new(self.first, u16::try_from(self.digests.len()).unwrap_or(u16::MAX));
        let beyond = self.settled.checked_shr(self.digests.len() as u32).unwrap_or(0);
        let unsettled_are_zero =
            self.digests.iter().zip(0..).all(|(digest, nth)| self.settled >> nth & 1 == 1 || digest.get() == 0);
        self.target.is_valid() && range.is_valid() && beyond == 0 && unsettled_are_zero
    }
}

/// A request as it travels.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawRequest {
    target: RawTarget,
    buckets: BucketRange,
}

/// The fixed part of an answer as it travels.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawAnswer {
    target: RawTarget,
    cut: U64,
    buckets: BucketRange,
    zero: U32,
    settled: U128,
}

const _: () = assert!(size_of::<RawRequest>() == 20 && size_of::<RawAnswer>() == 48);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::NodeId;
    use crate::wire::control::with;

    const TARGET: Target = Target { node: NodeId(1), incarnation: 2 };

    const REQUEST: [u8; 20] = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 16, 15, 240];

    /// Buckets 4093 to 4095, of which the one in the middle is not settled.
    const ANSWER: [u8; 72] = [
        0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, // target
        0, 0, 0, 0, 0, 0, 0x13, 0x89, 0x0f, 0xfd, 0, 3, 0, 0, 0, 0, // cut, first, count, zero
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, // settled
        0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, // 4093
        0, 0, 0, 0, 0, 0, 0, 0, // 4094
        0, 0, 0, 0, 0, 0, 0, 9, // 4095
    ];

    fn answer(digests: &[BucketDigest]) -> DigestsAnswer<'_> {
        DigestsAnswer { target: TARGET, cut: 5001, first: 4093, settled: 5, digests }
    }

    /// [4.4.8]
    #[test]
    fn request_and_answer_are_written_and_read_field_by_field() {
        let request = DigestsRequest { target: TARGET, buckets: BucketRange::new(16, 4080) };
        let mut slot = [0xaa; 112];
        assert_eq!(encode_digests_request(&mut slot, Header::default(), &request), Some(60));
        assert_eq!((slot[5], &slot[40..60]), (4, &REQUEST[..]));
        assert_eq!(DigestsRequest::decode(&REQUEST), Ok(request));
        let digests = [BucketDigest::new(0x0102_0304_0506_0708), BucketDigest::new(0), BucketDigest::new(9)];
        assert_eq!(encode_digests_answer(&mut slot, Header::default(), &answer(&digests)), Some(112));
        assert_eq!((slot[5], &slot[40..]), (5, &ANSWER[..]));
        let read = DigestsAnswer::decode(&ANSWER).expect("valid");
        assert_eq!(read, answer(&digests));
        let buckets: Vec<(u16, Option<u64>)> = read.iter().collect();
        assert_eq!(buckets, [(4093, Some(0x0102_0304_0506_0708)), (4094, None), (4095, Some(9))]);
    }

    #[test]
    fn requests_of_impossible_shape_are_refused() {
        let refused = |changes: &[(usize, u8)]| DigestsRequest::decode(&with(&REQUEST, changes)).err();
        assert_eq!(DigestsRequest::decode(&REQUEST[..19]), Err(FrameError::DigestsLength));
        assert_eq!(DigestsRequest::decode(&[&REQUEST[..], &[0]].concat()), Err(FrameError::DigestsLength));
        assert_eq!(refused(&[(3, 0)]), Some(FrameError::DigestsField), "target node 0");
        assert_eq!(refused(&[(7, 1)]), Some(FrameError::DigestsField), "reserved in the target");
        assert_eq!(refused(&[(18, 0), (19, 0)]), Some(FrameError::DigestsField), "no bucket");
        assert_eq!(refused(&[(17, 17)]), Some(FrameError::DigestsField), "beyond the last bucket");
    }

    #[test]
    fn answers_of_impossible_shape_are_refused() {
        let refused = |changes: &[(usize, u8)]| DigestsAnswer::decode(&with(&ANSWER, changes)).err();
        assert_eq!(DigestsAnswer::decode(&ANSWER[..47]), Err(FrameError::DigestsLength));
        assert_eq!(DigestsAnswer::decode(&ANSWER[..64]), Err(FrameError::DigestsLength));
        assert_eq!(DigestsAnswer::decode(&[&ANSWER[..], &[0; 8]].concat()), Err(FrameError::DigestsLength));
        assert_eq!(refused(&[(15, 0)]), Some(FrameError::DigestsField), "target incarnation 0");
        assert_eq!(refused(&[(25, 0xfe)]), Some(FrameError::DigestsField), "beyond the last bucket");
        assert_eq!(refused(&[(27, 129)]), Some(FrameError::DigestsField), "more than an answer has");
        assert_eq!(refused(&[(26, 1)]), Some(FrameError::DigestsField), "many more");
        assert_eq!(refused(&[(31, 1)]), Some(FrameError::DigestsField), "reserved");
        assert_eq!(refused(&[(47, 13)]), Some(FrameError::DigestsField), "a bit for a bucket that is not there");
        assert_eq!(refused(&[(32, 0x80)]), Some(FrameError::DigestsField), "the last bit");
        assert_eq!(refused(&[(63, 1)]), Some(FrameError::DigestsField), "a digest that is not settled");
        let none = with(&ANSWER[..48], &[(27, 0), (47, 0)]);
        assert_eq!(DigestsAnswer::decode(&none), Err(FrameError::DigestsField), "no bucket");
    }

    /// [8.0.3] The longest answer fits the smallest frame, even with a seal's tag of 16 bytes.
    #[test]
    fn what_would_be_refused_is_not_written() {
        let mut slot = [0; 1208 - 16];
        let digests = [BucketDigest::new(1); 129];
        let mut encode = |answer: DigestsAnswer<'_>| encode_digests_answer(&mut slot, Header::default(), &answer);
        let full = DigestsAnswer { first: 3968, settled: u128::MAX, ..answer(&digests[..128]) };
        assert_eq!(encode(full), Some(1112));
        assert_eq!(encode(DigestsAnswer { first: 3969, ..full }), None, "beyond the last bucket");
        assert_eq!(encode(DigestsAnswer { first: 0, digests: &digests, ..full }), None);
        assert_eq!(encode(DigestsAnswer { digests: &[], settled: 0, ..full }), None);
        assert_eq!(encode(DigestsAnswer { settled: u128::MAX >> 1, ..full }), None, "a digest that is not settled");
        assert_eq!(encode(DigestsAnswer { target: Target::default(), ..full }), None, "nobody's");
        let request = DigestsRequest { target: TARGET, buckets: BucketRange::new(1, 4096) };
        assert_eq!(encode_digests_request(&mut slot, Header::default(), &request), None);
    }
}
