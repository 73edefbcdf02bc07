//! SECTION: keys and values that are no flows, such as IPVS services; long values come in fragments.
//!
//! ```text
//!    0 header: type 16, operation, present 0, words
//!    4 table u16         6 key length u16
//!      upsert (1)                                     delete (2)
//!    8 expiry u32        12 total length u32            8 key, zeros to a multiple of 4
//!   16 offset u32        20 back u32
//!   24 key, zeros to a multiple of 4
//!    … value from `offset` on, zeros to a multiple of 4
//!
//!   value   ├──────── 996 ────────┼──────── 996 ────────┼─ rest ─┤          (1020 less 24 and the key)
//!   record   offset 0, back 0      offset 992, back 0    offset 1984, back 1     the third in the next frame
//! ```
//!
//! How many bytes of the value a fragment has is not written down: as many as there is room for, or, in the last one,
//! as `total` leaves. So all but the last are whole words, and every offset is a multiple of four.

use super::FrameError;
use super::record::{RecordHeader, operation};
use zerocopy::byteorder::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Longest key of a section's entry, in bytes.
pub const SECTION_KEY_MAX: usize = 256;

/// One change to one key of a section, or a fragment of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Section<'a> {
    /// Which section.
    pub table: u16,
    /// Key, 1 to [`SECTION_KEY_MAX`] bytes.
    pub key: &'a [u8],
    /// The value, or a part of it; `None`: the key is gone.
    pub fragment: Option<Fragment<'a>>,
}

/// A value of a section, or consecutive bytes of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment<'a> {
    /// Seconds that remain until it is forgotten; 0 is never.
    pub expiry: u32,
    /// Bytes of the whole value.
    pub total: u32,
    /// Where in the value `bytes` stand; a multiple of four.
    pub offset: u32,
    /// How many frames ago the fragment with offset 0 was sent; that frame's number is the value's version. 0 with
    /// offset 0.
    pub back: u32,
    /// At least one, unless the value is empty; a multiple of four, unless the value ends here.
    pub bytes: &'a [u8],
}

impl Section<'_> {
    /// Bytes of an upsert's record beside the value.
    pub(super) fn fixed_len(key: &[u8]) -> usize {
        size_of::<RawSection>() + size_of::<RawFragment>() + key.len().next_multiple_of(4)
    }

    /// Bytes of the record; `None` if a receiver would refuse it.
    pub(super) fn record_len(&self) -> Option<usize> {
        if self.key.is_empty() || self.key.len() > SECTION_KEY_MAX {
            return None;
        }
        let key_len = self.key.len().next_multiple_of(4);
        let len = match &self.fragment {
            None => size_of::<RawSection>() + key_len,
            Some(fragment) if fragment.is_valid() => {
                Section::fixed_len(self.key) + fragment.bytes.len().next_multiple_of(4)
            }
            Some(_) => return None,
        };
        (len <= super::conn::RECORD_LEN_MAX).then_some(len)
    }

    /// Writes the record into a space of exactly [`Section::record_len`].
    pub(super) fn write(&self, space: &mut [u8]) {
        let operation = if self.fragment.is_some() { operation::UPSERT } else { operation::DELETE };
        let header = RecordHeader::new(super::record::kind::SECTION, operation, 0, space.len());
        let (table, key_len) = (U16::new(self.table), U16::new(self.key.len() as u16));
        let fixed = RawSection { header, table, key_len };
        let fragment = self.fragment.as_ref().map(RawFragment::new);
        let parts = [
            fixed.as_bytes(),
            fragment.as_ref().map_or(&[][..], IntoBytes::as_bytes),
            self.key,
            self.fragment.map_or(&[][..], |fragment| fragment.bytes),
        ];
        let mut at = 0;
        for part in parts {
            let end = at + part.len();
            let padded_end = end.next_multiple_of(4);
            space[at..end].copy_from_slice(part);
            space[end..padded_end].fill(0);
            at = padded_end;
        }
    }
}

impl Fragment<'_> {
    /// Whether the value ends here.
    pub fn is_last(&self) -> bool {
        self.end() == u64::from(self.total)
    }

    fn end(&self) -> u64 {
        u64::from(self.offset) + self.bytes.len() as u64
    }

    fn is_valid(&self) -> bool {
        let brings_something = !self.bytes.is_empty() || self.total == 0;
        let ends_well = self.is_last() || (self.end() < u64::from(self.total) && self.bytes.len().is_multiple_of(4));
        let begins_well = self.offset.is_multiple_of(4) && (self.offset != 0 || self.back == 0);
        brings_something && ends_well && begins_well
    }
}

/// What an upsert and a delete begin with, as it travels.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawSection {
    header: RecordHeader,
    table: U16,
    key_len: U16,
}

/// What an upsert has behind that.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawFragment {
    expiry: U32,
    total: U32,
    offset: U32,
    back: U32,
}

const _: () = assert!(size_of::<RawSection>() == 8 && size_of::<RawFragment>() == 16);

impl RawFragment {
    fn new(fragment: &Fragment<'_>) -> Self {
        RawFragment {
            expiry: U32::new(fragment.expiry),
            total: U32::new(fragment.total),
            offset: U32::new(fragment.offset),
            back: U32::new(fragment.back),
        }
    }
}

/// Checks a whole record.
pub(super) fn check(record: &[u8]) -> Result<(), FrameError> {
    read(record).map(|_| ())
}

/// Reads a whole record.
pub(super) fn read(record: &[u8]) -> Result<Section<'_>, FrameError> {
    let header = RecordHeader::ref_from_prefix(record).map_err(|_| FrameError::RecordTruncated)?.0;
    if !matches!(header.operation, operation::UPSERT | operation::DELETE) {
        return Err(FrameError::RecordOperation);
    }
    if header.present != 0 {
        return Err(FrameError::RecordPresent);
    }
    let (raw, rest) = RawSection::ref_from_prefix(record).map_err(|_| FrameError::RecordLength)?;
    let key_len = usize::from(raw.key_len.get());
    if key_len == 0 || key_len > SECTION_KEY_MAX {
        return Err(FrameError::RecordField);
    }
    let section = |key, fragment| Section { table: raw.table.get(), key, fragment };
    if header.operation == operation::DELETE {
        let (key, rest) = padded(rest, key_len)?;
        return if rest.is_empty() { Ok(section(key, None)) } else { Err(FrameError::RecordLength) };
    }
    let (fixed, rest) = RawFragment::ref_from_prefix(rest).map_err(|_| FrameError::RecordLength)?;
    let (key, space) = padded(rest, key_len)?;
    let left = fixed.total.get().checked_sub(fixed.offset.get()).ok_or(FrameError::RecordField)?;
    let len = space.len().min(usize::try_from(left).unwrap_or(usize::MAX));
    let (bytes, surplus) = padded(space, len)?;
    if !surplus.is_empty() {
        return Err(FrameError::RecordLength);
    }
    let fragment = Fragment {
        expiry: fixed.expiry.get(),
        total: fixed.total.get(),
        offset: fixed.offset.get(),
        back: fixed.back.get(),
        bytes,
    };
    if fragment.is_valid() { Ok(section(key, Some(fragment))) } else { Err(FrameError::RecordField) }
}

/// The first `len` bytes, and what follows their padding, which is zero.
fn padded(bytes: &[u8], len: usize) -> Result<(&[u8], &[u8]), FrameError> {
    let (padded, rest) = bytes.split_at_checked(len.next_multiple_of(4)).ok_or(FrameError::RecordLength)?;
    let (data, padding) = padded.split_at(len);
    if padding.iter().any(|byte| *byte != 0) {
        return Err(FrameError::RecordField);
    }
    Ok((data, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Section 9, key "web", the value "hello" to the end, one hour.
    const WHOLE: [u8; 36] = [
        16, 1, 0, 9, 0, 9, 0, 3, // SECTION, upsert, 9 words; table, key length
        0, 0, 14, 16, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, // expiry, total, offset, back
        b'w', b'e', b'b', 0, b'h', b'e', b'l', b'l', b'o', 0, 0, 0,
    ];

    const DELETE: [u8; 12] = [16, 2, 0, 3, 0, 9, 0, 3, b'w', b'e', b'b', 0];

    fn with(record: &[u8], changes: &[(usize, u8)]) -> Vec<u8> {
        let mut record = record.to_vec();
        for (index, value) in changes {
            record[*index] = *value;
        }
        record
    }

    fn fragment(total: u32, offset: u32, back: u32, bytes: &[u8]) -> Section<'_> {
        Section { table: 9, key: b"web", fragment: Some(Fragment { expiry: 3600, total, offset, back, bytes }) }
    }

    fn written(section: &Section<'_>) -> Option<Vec<u8>> {
        let mut space = vec![0xaa; section.record_len()?];
        section.write(&mut space);
        Some(space)
    }

    /// [3.3.11]
    #[test]
    fn a_section_is_written_and_read_field_by_field() {
        assert_eq!(written(&fragment(5, 0, 0, b"hello")).as_deref(), Some(&WHOLE[..]));
        assert_eq!(read(&WHOLE), Ok(fragment(5, 0, 0, b"hello")));
        let gone = Section { table: 9, key: b"web", fragment: None };
        assert_eq!(written(&gone).as_deref(), Some(&DELETE[..]));
        assert_eq!(read(&DELETE), Ok(gone));
    }

    /// [3.3.11] All but the last fragment are whole words, and the last is what is left.
    #[test]
    fn a_long_value_comes_in_fragments() {
        let middle = with(&WHOLE, &[(15, 20), (19, 8), (23, 2), (33, 1), (34, 2), (35, 3)]);
        assert_eq!(read(&middle), Ok(fragment(20, 8, 2, b"hello\x01\x02\x03")));
        assert_eq!(written(&fragment(20, 8, 2, b"hello\x01\x02\x03")), Some(middle));
        let last = with(&WHOLE, &[(15, 13), (19, 8), (23, 2)]);
        assert_eq!(read(&last), Ok(fragment(13, 8, 2, b"hello")));
        assert!(fragment(13, 8, 2, b"hello").fragment.is_some_and(|it| it.is_last()));
        assert!(!fragment(14, 8, 2, b"hello").fragment.is_some_and(|it| it.is_last()));
        let empty = with(&WHOLE[..28], &[(3, 7), (15, 0)]);
        assert_eq!(read(&empty), Ok(fragment(0, 0, 0, b"")));
        assert_eq!(written(&fragment(0, 0, 0, b"")), Some(empty));
    }

    /// [3.3.11] [3.2.9]
    #[test]
    fn sections_of_impossible_shape_are_refused() {
        let refused = |changes: &[(usize, u8)]| read(&with(&WHOLE, changes)).err();
        assert_eq!(refused(&[(1, 3)]), Some(FrameError::RecordOperation));
        assert_eq!(refused(&[(2, 1)]), Some(FrameError::RecordPresent));
        assert_eq!(refused(&[(7, 0)]), Some(FrameError::RecordField), "no key");
        assert_eq!(refused(&[(6, 1), (7, 1)]), Some(FrameError::RecordField), "a key of 257 bytes");
        assert_eq!(refused(&[(6, 1), (7, 0)]), Some(FrameError::RecordLength), "a key of 256 bytes");
        assert_eq!(refused(&[(27, 1)]), Some(FrameError::RecordField), "key padded with one");
        assert_eq!(refused(&[(33, 1)]), Some(FrameError::RecordField), "value padded with one");
        assert_eq!(refused(&[(15, 4)]), Some(FrameError::RecordLength), "four bytes too many");
        assert_eq!(refused(&[(15, 7), (19, 8)]), Some(FrameError::RecordField), "begins behind its end");
        assert_eq!(refused(&[(15, 8), (19, 8)]), Some(FrameError::RecordLength), "begins at its end");
        assert_eq!(refused(&[(15, 11), (19, 6)]), Some(FrameError::RecordField), "offset within a word");
        assert_eq!(refused(&[(23, 1)]), Some(FrameError::RecordField), "the first fragment is its own");
        let brings_nothing = with(&WHOLE[..28], &[(3, 7)]);
        assert_eq!(read(&brings_nothing), Err(FrameError::RecordField));
        assert_eq!(read(&with(&WHOLE[..28], &[(3, 7), (15, 8), (19, 8)])), Err(FrameError::RecordField));
        for len in [4, 8, 12, 20, 24] {
            assert_eq!(read(&WHOLE[..len]), Err(FrameError::RecordLength), "{len} bytes");
        }
        assert_eq!(read(&DELETE[..8]), Err(FrameError::RecordLength));
        assert_eq!(read(&[&DELETE[..], &[0; 4]].concat()), Err(FrameError::RecordLength));
        assert_eq!(read(&with(&DELETE, &[(11, 1)])), Err(FrameError::RecordField));
    }

    #[test]
    fn what_would_be_refused_is_not_written() {
        let key = [1; 257];
        let delete = |len: usize| Section { table: 1, key: &key[..len], fragment: None }.record_len();
        assert_eq!((delete(0), delete(1), delete(256), delete(257)), (None, Some(12), Some(264), None));
        let value = [7; 1020];
        let len = |total, offset, back, len: usize| fragment(total, offset, back, &value[..len]).record_len();
        assert_eq!(len(992, 0, 0, 992), Some(1020), "the longest");
        assert_eq!(len(993, 0, 0, 993), None, "longer than a record");
        assert_eq!(len(9, 0, 0, 6), None, "ends within a word");
        assert_eq!(len(9, 2, 0, 7), None, "begins within a word");
        assert_eq!(len(9, 4, 0, 8), None, "ends beyond the value");
        assert_eq!(len(9, 0, 1, 9), None, "the first fragment is its own");
        assert_eq!(len(9, 4, 0, 0), None, "brings nothing");
        assert_eq!(len(u32::MAX, u32::MAX - 3, 9, 3), Some(32));
    }
}
