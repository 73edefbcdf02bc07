//! The bytes of netlink: messages in a datagram, attributes in a message, attributes in attributes.
//!
//! ```text
//! 0        4      6      8          12         16                20
//! | length | kind | flags | sequence | port id | family, version, resource id | attribute | attribute | ...
//! |<--------- nlmsghdr, host order --------->|<-- nfgenmsg, resource id BE ->|
//!
//! attribute: | length u16 | kind u16 (bit 15: nested) | value | zeros to a multiple of 4 |
//! ```
//!
//! Reading never trusts a length and never panics; what does not fit is [`Malformed`]. Values are handed out as
//! bytes: nfnetlink's integers are big-endian, those of other families are in host order (linux/netlink.h).

use crate::planted::{Plant, planted};

/// Bytes of a netlink header (`struct nlmsghdr`).
pub const HEADER_SIZE: usize = 16;

/// Bytes of an attribute's header (`struct nlattr`).
const ATTRIBUTE_HEADER_SIZE: usize = 4;

/// Bit of an attribute's kind: its value is attributes again (`NLA_F_NESTED`).
pub const NESTED: u16 = 1 << 15;

/// The kind of an attribute without its two flag bits (`NLA_TYPE_MASK`).
const ATTRIBUTE_KIND_MASK: u16 = 0x3fff;

/// Kinds of messages that belong to netlink itself.
pub mod control {
    /// Nothing to do.
    pub const NO_OPERATION: u16 = 1;
    /// An error, or an acknowledgement if its code is 0.
    pub const ERROR: u16 = 2;
    /// A dump has ended.
    pub const DONE: u16 = 3;
}

/// Bits of a message's flags (`NLM_F_*`).
pub mod flags {
    /// It is a request.
    pub const REQUEST: u16 = 0x1;
    /// An answer is wanted even if all goes well.
    pub const ACKNOWLEDGE: u16 = 0x4;
    /// The kernel says that a dump is not one picture, because the table changed under it.
    pub const DUMP_INTERRUPTED: u16 = 0x10;
    /// All entries are asked for.
    pub const DUMP: u16 = 0x300;
    /// Do not touch one that exists.
    pub const EXCLUSIVE: u16 = 0x200;
    /// Make one if there is none.
    pub const CREATE: u16 = 0x400;
    /// Add at the end of a list.
    pub const APPEND: u16 = 0x800;
}

/// A length that points outside of what was received, or bytes too few for what should be there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a netlink message with a length that does not fit")]
pub struct Malformed;

/// One message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message<'a> {
    /// What it is: for nfnetlink `subsystem << 8 | operation`, else see [`control`].
    pub kind: u16,
    /// See [`flags`].
    pub flags: u16,
    /// Number of the request that it answers.
    pub sequence: u32,
    /// Port id of the socket whose request caused it; 0 if none did.
    pub port_id: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The address family of an nfnetlink message; `None` if it is too short to have one.
    pub fn family(&self) -> Option<u8> {
        self.payload.first().copied()
    }

    /// The attributes of an nfnetlink message, which follow 4 bytes of `struct nfgenmsg`; none if it is too short.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes::new(self.payload.get(4..).unwrap_or(&[]))
    }

    /// How a request or a dump ended: the positive errno, or 0 if it went well. `None` for other messages.
    pub fn error_code(&self) -> Option<i32> {
        if self.kind != control::ERROR && self.kind != control::DONE {
            return None;
        }
        let code = self.payload.first_chunk::<4>().map(|bytes| i32::from_ne_bytes(*bytes))?;
        Some(code.checked_neg().unwrap_or(i32::MAX))
    }
}

/// The messages of one datagram. It ends with the datagram, or after the first [`Malformed`].
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    /// The messages of `datagram`.
    pub fn new(datagram: &'a [u8]) -> Self {
        Messages { rest: datagram }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.rest);
        let Some(header) = bytes.first_chunk::<HEADER_SIZE>() else { return Some(Err(Malformed)) };
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, p0, p1, p2, p3] = *header;
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let Some(payload) = bytes.get(HEADER_SIZE..length) else { return Some(Err(Malformed)) };
        self.rest = bytes.get(aligned(length)..).unwrap_or(&[]);
        Some(Ok(Message {
            kind: u16::from_ne_bytes([k0, k1]),
            flags: u16::from_ne_bytes([f0, f1]),
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
            port_id: u32::from_ne_bytes([p0, p1, p2, p3]),
            payload,
        }))
    }
}

/// One attribute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attribute<'a> {
    /// What it is, without the flag bits.
    pub kind: u16,
    /// Its value without padding.
    pub value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// The attributes that the value is made of.
    pub fn nested(&self) -> Attributes<'a> {
        Attributes::new(self.value)
    }

    /// The value as one byte; longer values yield their first.
    ///
    /// # Errors
    /// [`Malformed`] if it is empty.
    pub fn u8(&self) -> Result<u8, Malformed> {
        self.value.first().copied().ok_or(Malformed)
    }

    /// The value as a big-endian number of 16 bits.
    ///
    /// # Errors
    /// [`Malformed`] if it is of another size.
    pub fn u16_be(&self) -> Result<u16, Malformed> {
        self.value.try_into().map(u16::from_be_bytes).map_err(|_| Malformed)
    }

    /// The value as a big-endian number of 32 bits.
    ///
    /// # Errors
    /// [`Malformed`] if it is of another size.
    pub fn u32_be(&self) -> Result<u32, Malformed> {
        self.value.try_into().map(u32::from_be_bytes).map_err(|_| Malformed)
    }

    /// The value as a big-endian number of 64 bits.
    ///
    /// # Errors
    /// [`Malformed`] if it is of another size.
    pub fn u64_be(&self) -> Result<u64, Malformed> {
        self.value.try_into().map(u64::from_be_bytes).map_err(|_| Malformed)
    }
}

/// Attributes one after the other. It ends with the bytes, or after the first [`Malformed`].
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// The attributes in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Attributes { rest: bytes }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.rest);
        let Some([l0, l1, k0, k1]) = bytes.first_chunk::<ATTRIBUTE_HEADER_SIZE>() else { return Some(Err(Malformed)) };
        let length = usize::from(u16::from_ne_bytes([*l0, *l1]));
        let whole = planted(Plant::NetlinkLength).then(|| &bytes[ATTRIBUTE_HEADER_SIZE..length]);
        let Some(value) = whole.or(bytes.get(ATTRIBUTE_HEADER_SIZE..length)) else { return Some(Err(Malformed)) };
        self.rest = bytes.get(aligned(length)..).unwrap_or(&[]);
        Some(Ok(Attribute { kind: u16::from_ne_bytes([*k0, *k1]) & ATTRIBUTE_KIND_MASK, value }))
    }
}

/// Writes nfnetlink messages, one after the other, into a buffer that is used again and again.
///
/// ```
/// use ssyncp::sys::netlink::{Messages, MessageWriter, flags};
///
/// let mut writer = MessageWriter::new();
/// writer.begin(0x0100, flags::REQUEST, 1, 2, 0);
/// writer.nest(1, |tuple| tuple.attribute_u16_be(2, 80));
/// writer.end();
/// assert_eq!(Messages::new(writer.bytes()).count(), 1);
/// ```
#[derive(Clone, Default, Debug)]
pub struct MessageWriter {
    bytes: Vec<u8>,
    message: usize,
    oversized: bool,
    refused: u64,
}

impl MessageWriter {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a message with its netlink and nfnetlink headers. `kind` is `subsystem << 8 | operation`, `family` an
    /// `AF_*`, `resource_id` what the subsystem makes of it (0, or the subsystem for the ends of a batch).
    pub fn begin(&mut self, kind: u16, flags: u16, seq: u32, family: u8, resource_id: u16) {
        self.message = self.bytes.len();
        self.oversized = false;
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&seq.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&resource_id.to_be_bytes());
    }

    /// Adds bytes as they are: what is left of another family's header than nfnetlink's (such as rtnetlink's
    /// `struct ifinfomsg`) behind the four that [`MessageWriter::begin`] wrote.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Adds an attribute with the bytes of `value`.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.put(kind, |writer| writer.bytes.extend_from_slice(value));
    }

    /// Adds an attribute of one byte.
    pub fn attribute_u8(&mut self, kind: u16, value: u8) {
        self.attribute(kind, &[value]);
    }

    /// Adds a big-endian attribute of 16 bits.
    pub fn attribute_u16_be(&mut self, kind: u16, value: u16) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// Adds a big-endian attribute of 32 bits.
    pub fn attribute_u32_be(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// Adds a big-endian attribute of 64 bits.
    pub fn attribute_u64_be(&mut self, kind: u16, value: u64) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// Adds a text, with the zero byte at its end that the kernel wants.
    pub fn attribute_text(&mut self, kind: u16, text: &str) {
        self.put(kind, |writer| {
            writer.bytes.extend_from_slice(text.as_bytes());
            writer.bytes.push(0);
        });
    }

    /// Adds an attribute whose value is the attributes that `fill` writes.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut MessageWriter)) {
        self.put(kind | NESTED, fill);
    }

    /// Ends the message. One with an attribute of more than 64 KiB cannot be said in netlink: it is taken back, and
    /// [`MessageWriter::refused`] counts it.
    pub fn end(&mut self) {
        let length = u32::try_from(self.bytes.len().saturating_sub(self.message)).ok().filter(|_| !self.oversized);
        match (length, self.bytes.get_mut(self.message..self.message + 4)) {
            (Some(length), Some(field)) => field.copy_from_slice(&length.to_ne_bytes()),
            _ => {
                self.bytes.truncate(self.message);
                self.refused += 1;
            }
        }
    }

    /// The messages that were ended since the last [`MessageWriter::clear`], ready to be sent as one datagram.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Messages so far that netlink cannot express.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Forgets the messages and keeps the buffer.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.message = 0;
    }

    fn put(&mut self, kind: u16, fill: impl FnOnce(&mut MessageWriter)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        fill(self);
        let length = u16::try_from(self.bytes.len().saturating_sub(start));
        self.oversized |= length.is_err();
        if let Some(field) = self.bytes.get_mut(start..start + 2) {
            field.copy_from_slice(&length.unwrap_or(0).to_ne_bytes());
        }
        self.bytes.resize(aligned(self.bytes.len()), 0);
    }
}

/// `length` rounded up to netlink's alignment of 4.
fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn a_message_is_written_byte_by_byte_as_the_kernel_reads_it() {
        let mut writer = MessageWriter::new();
        writer.begin(0x0100, 0x0605, 0x01020304, 2, 0x000a);
        writer.nest(1, |nest| nest.attribute_u8(2, 0xff));
        writer.attribute_u32_be(7, 600);
        writer.end();
        #[rustfmt::skip]
        assert_eq!(writer.bytes(), [
            40, 0, 0, 0,  0x00, 0x01,  0x05, 0x06,  0x04, 0x03, 0x02, 0x01,  0, 0, 0, 0,
            2, 0, 0x00, 0x0a,
            12, 0, 0x01, 0x80,  5, 0, 2, 0,  0xff, 0, 0, 0,
            8, 0, 7, 0,  0, 0, 0x02, 0x58,
        ]);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut writer = MessageWriter::new();
        for sequence in [1, 2] {
            writer.begin(0x0a01, flags::REQUEST, sequence, 10, 0);
            writer.attribute_text(1, "abc");
            writer.nest(3, |nest| {
                nest.attribute_u16_be(1, 0x1234);
                nest.attribute_u64_be(2, 5);
            });
            writer.end();
        }
        let messages: Vec<_> = Messages::new(writer.bytes()).map(Result::unwrap).collect();
        assert_eq!(messages.iter().map(|message| message.sequence).collect::<Vec<_>>(), [1, 2]);
        assert_eq!((messages[1].kind, messages[1].family()), (0x0a01, Some(10)));
        let attributes: Vec<_> = messages[1].attributes().map(Result::unwrap).collect();
        assert_eq!((attributes[0].kind, attributes[0].value), (1, &b"abc\0"[..]));
        assert_eq!(attributes[1].kind, 3);
        let inner: Vec<_> = attributes[1].nested().map(Result::unwrap).collect();
        assert_eq!((inner[0].u16_be(), inner[1].value), (Ok(0x1234), &[0, 0, 0, 0, 0, 0, 0, 5][..]));
        assert_eq!((inner[1].u64_be(), inner[1].u32_be(), inner[0].u64_be()), (Ok(5), Err(Malformed), Err(Malformed)));
    }

    #[test]
    fn a_length_beyond_the_end_is_malformed_and_ends_the_walk() {
        let mut bytes = [0u8; 24];
        bytes[..4].copy_from_slice(&25u32.to_ne_bytes());
        assert_eq!(Messages::new(&bytes).collect::<Vec<_>>(), [Err(Malformed)]);
        bytes[..4].copy_from_slice(&15u32.to_ne_bytes());
        assert_eq!(Messages::new(&bytes).collect::<Vec<_>>(), [Err(Malformed)]);
        bytes[..4].copy_from_slice(&24u32.to_ne_bytes());
        assert_eq!(Messages::new(&bytes).filter(Result::is_ok).count(), 1);
        bytes[20..22].copy_from_slice(&3u16.to_ne_bytes());
        let message = Messages::new(&bytes).next().unwrap().unwrap();
        assert_eq!(message.attributes().collect::<Vec<_>>(), [Err(Malformed)]);
    }

    #[test]
    fn an_error_and_the_end_of_a_dump_yield_their_number_and_an_acknowledgement_zero() {
        let minus_enoent = (-2i32).to_ne_bytes();
        let mut message = Message { kind: control::ERROR, flags: 0, sequence: 0, port_id: 0, payload: &minus_enoent };
        assert_eq!(message.error_code(), Some(2));
        message.payload = &[0; 4];
        assert_eq!(message.error_code(), Some(0));
        message.payload = &[0; 3];
        assert_eq!(message.error_code(), None);
        message = Message { kind: control::DONE, payload: &minus_enoent, ..message };
        assert_eq!(message.error_code(), Some(2));
        message = Message { kind: 0x0100, ..message };
        assert_eq!(message.error_code(), None);
    }

    #[test]
    fn a_message_that_netlink_cannot_express_is_taken_back_and_counted() {
        let mut writer = MessageWriter::new();
        writer.begin(1, 0, 1, 0, 0);
        writer.end();
        writer.begin(1, 0, 2, 0, 0);
        writer.attribute(1, &vec![0; 65_532]);
        writer.end();
        writer.begin(1, 0, 3, 0, 0);
        writer.attribute(1, &vec![0; 65_531]);
        writer.end();
        let sequences: Vec<_> = Messages::new(writer.bytes()).map(|message| message.unwrap().sequence).collect();
        assert_eq!((sequences, writer.refused()), (vec![1, 3], 1));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_walk_panic_or_run_for_ever(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let messages: Vec<_> = Messages::new(&bytes).collect();
            prop_assert!(messages.len() <= bytes.len() / HEADER_SIZE + 1);
            for message in messages.into_iter().flatten() {
                let _ = (message.family(), message.error_code());
                prop_assert!(message.attributes().count() <= bytes.len() / ATTRIBUTE_HEADER_SIZE + 1);
            }
            let outer = Attributes::new(&bytes).flatten();
            let inner: usize = outer.map(|attribute| attribute.nested().count()).sum();
            prop_assert!(inner <= bytes.len());
        }
    }
}
