//! The classic profile: the messages of Cassen's draft of 2002, byte by byte.
//!
//! A message is one datagram: eight bytes, then records of connections as IPVS knows them. Nobody numbers, acknowledges
//! or repeats it, and it says neither who sent it nor that anything has ended.
//!
//! ```text
//!   0                   1                   2                   3
//!   0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//!  +---------------+---------------+-------------------------------+
//!  |     count     |    sync_id    |             size              |   0   size: the whole message
//!  +---------------+---------------+-------------------------------+
//!  |         reserved = 0          |           checksum            |   4   RFC 1071, this field taken as zero
//!  +-------------------------------+-------------------------------+
//!  |   zero = 0    |   protocol    |          client port          |   0 ┐
//!  +---------------+---------------+-------------------------------+     │
//!  |         service port          |          server port          |   4 │
//!  +-------------------------------+-------------------------------+     │
//!  |                        client address                         |   8 │ 24 bytes each
//!  +---------------------------------------------------------------+     │ (struct ip_vs_sync_conn)
//!  |                        service address                        |  12 │
//!  +---------------------------------------------------------------+     │
//!  |                        server address                         |  16 │
//!  +-------------------------------+-------------------------------+     │
//!  |             flags             |             state             |  20 ┘
//!  +-------------------------------+-------------------------------+
//!  |   from the client: initial, delta, previous delta (12 bytes)  |  24 ┐ only with a flag of IP_VS_CONN_F_SEQ_MASK
//!  |   from the server: the same (12 bytes)                        |  36 ┘ (struct ip_vs_sync_conn_options)
//!  +---------------------------------------------------------------+
//! ```
//!
//! One way in, one way out:
//!
//! ```text
//!   slot ──▶ Message::parse ──▶ Message ──▶ verify ──▶ Records ──▶ Connection, one after the other
//!            size, version,                 every
//!            checksum                       record
//!
//!   slot ◀── Writer
//! ```
//!
//! The record is that of the kernel's version 0, so struct, states and flags are [`ipvs`](super::ipvs)'s. Other than
//! there its sequence words are in network order.

use super::ipvs::{Connection, MessageError, Record, Skipped, WordOrder, v0};
use super::{FRAME_LEN_MIN, FrameError};
use crate::planted::{Plant, planted};

/// Bytes of the header.
pub const HEADER_LEN: usize = 8;
/// Bytes of a record without sequence words.
pub const RECORD_LEN: usize = 24;
/// Bytes of a record with them.
pub const RECORD_LEN_FULL: usize = 48;
/// Most records of a message.
pub const RECORDS_MAX: usize = 50;
/// Most bytes of a message: as many as 50 records without sequence words take, or 25 with them.
pub const MESSAGE_LEN_MAX: usize = HEADER_LEN + RECORDS_MAX * RECORD_LEN;

const _: () = assert!(MESSAGE_LEN_MAX == FRAME_LEN_MIN && MESSAGE_LEN_MAX == HEADER_LEN + 25 * RECORD_LEN_FULL);

/// Where the checksum stands.
const CHECKSUM_AT: usize = 6;

/// Whether a datagram says that it is of this format. Believe nothing of it.
pub fn claims(bytes: &[u8]) -> bool {
    bytes.get(4..CHECKSUM_AT) == Some(&[0, 0])
}

/// A message that is whole, undamaged, and of this format. What is in it is not yet known.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    count: u8,
    sync_id: u8,
    records: &'a [u8],
}

impl<'a> Message<'a> {
    /// Takes the bytes of one datagram as a message.
    ///
    /// # Errors
    /// [`FrameError::Truncated`], [`Oversized`](FrameError::Oversized), [`SizeMismatch`](FrameError::SizeMismatch),
    /// [`UnknownVersion`](FrameError::UnknownVersion) or [`Checksum`](FrameError::Checksum); the first that holds, in
    /// this order.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let Some((header, records)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            return Err(FrameError::Truncated);
        };
        if bytes.len() > MESSAGE_LEN_MAX {
            return Err(FrameError::Oversized);
        }
        let &[count, sync_id, size_high, size_low, reserved @ .., checksum_high, checksum_low] = header;
        if usize::from(u16::from_be_bytes([size_high, size_low])) != bytes.len() {
            return Err(FrameError::SizeMismatch);
        }
        if reserved != [0, 0] {
            return Err(FrameError::UnknownVersion);
        }
        if u16::from_be_bytes([checksum_high, checksum_low]) != checksum(bytes) {
            return Err(FrameError::Checksum);
        }
        Ok(Message { count, sync_id, records })
    }

    /// Group: which replicated table this is about.
    pub fn sync_id(&self) -> u8 {
        self.sync_id
    }

    /// Reads every record, and gives them out only if all of them can be understood.
    ///
    /// # Errors
    /// [`FrameError::RecordTruncated`], [`RecordField`](FrameError::RecordField) (the reserved byte is not zero, or the
    /// protocol has no such state) or [`CountMismatch`](FrameError::CountMismatch).
    pub fn verify(self) -> Result<Records<'a>, FrameError> {
        let mut rest = self.records;
        let mut found = 0_usize;
        while !rest.is_empty() {
            let (record, behind) = split(rest)?;
            if rest[0] != 0 || record == Err(Skipped::UnknownState) {
                return Err(FrameError::RecordField);
            }
            (rest, found) = (behind, found + 1);
        }
        if found != usize::from(self.count) && !planted(Plant::ClassicCount) {
            return Err(FrameError::CountMismatch);
        }
        Ok(Records(self.records))
    }
}

/// The records of a message of which every byte has been checked. One of a protocol that IPVS does not balance is
/// [`Skipped::UnknownProtocol`], to be stepped over and counted.
#[derive(Clone, Debug)]
pub struct Records<'a>(&'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        if self.0.is_empty() {
            return None;
        }
        // All were read once by `verify`; a second reading of the same bytes refuses nothing.
        let (record, rest) = split(self.0).ok()?;
        self.0 = rest;
        Some(record)
    }
}

/// The first record of some bytes, and what is behind it.
fn split(bytes: &[u8]) -> Result<(Record<'_>, &[u8]), FrameError> {
    v0::record(bytes, WordOrder::BigEndian).map_err(|error| match error {
        MessageError::RecordTruncated => FrameError::RecordTruncated,
        _ => FrameError::RecordLength,
    })
}

/// Writes one message into a lent slot.
#[derive(Debug)]
pub struct Writer<'a> {
    slot: &'a mut [u8],
    at: usize,
    count: u8,
    sync_id: u8,
}

impl<'a> Writer<'a> {
    /// Begins a message of at most [`MESSAGE_LEN_MAX`] bytes; `None` if the slot has no room for a header.
    pub fn new(slot: &'a mut [u8], sync_id: u8) -> Option<Self> {
        let end = slot.len().min(MESSAGE_LEN_MAX);
        let slot = &mut slot[..end];
        (end >= HEADER_LEN).then_some(Writer { slot, at: HEADER_LEN, count: 0, sync_id })
    }

    /// Adds a record; false, and nothing is changed, if it does not fit, or its addresses are not of IPv4.
    pub fn push(&mut self, connection: &Connection<'_>) -> bool {
        let written = v0::write(connection, &mut self.slot[self.at..]);
        if let Some(len) = written {
            self.at += len;
            self.count += 1;
        }
        written.is_some()
    }

    /// Records so far.
    pub fn count(&self) -> u8 {
        self.count
    }

    /// Writes the header; how many bytes the message has.
    pub fn finish(self) -> usize {
        let message = &mut self.slot[..self.at];
        let [size_high, size_low] = (self.at as u16).to_be_bytes();
        message[..HEADER_LEN].copy_from_slice(&[self.count, self.sync_id, size_high, size_low, 0, 0, 0, 0]);
        let checksum = checksum(message);
        message[CHECKSUM_AT..HEADER_LEN].copy_from_slice(&checksum.to_be_bytes());
        self.at
    }
}

/// The Internet checksum (RFC 1071) of a message with its own field taken as zero. Messages that are read whole have an
/// even length; a byte that is over counts as the high half of a word.
pub(super) fn checksum(message: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from);
    let words = message.chunks(2).enumerate().filter(|(at, _)| *at != CHECKSUM_AT / 2);
    // At most 32768 words: the sum of them fits 31 bits.
    let mut sum: u32 = words.map(|(_, pair)| word(pair)).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Endpoint;
    use crate::wire::ipvs::{ConnectionFlags, Sequence, Sequences};
    use core::net::IpAddr;

    /// 10.0.0.1:40000 -> 192.0.2.10:80 -> 10.1.0.20:8080, TCP, ESTABLISHED; the checksum is Python's.
    const ONE: [u8; 32] = [
        1, 81, 0, 32, 0, 0, 0x6c, 0x46, // header
        0, 6, 0x9c, 0x40, 0, 80, 0x1f, 0x90, 10, 0, 0, 1, 192, 0, 2, 10, 10, 1, 0, 20, 0, 0, 0, 1,
    ];

    fn connection() -> Connection<'static> {
        let end = |address: [u8; 4], port| Endpoint { address: IpAddr::from(address), port };
        Connection {
            protocol: 6,
            client: end([10, 0, 0, 1], 40000),
            service: end([192, 0, 2, 10], 80),
            server: end([10, 1, 0, 20], 8080),
            flags: ConnectionFlags(0),
            state: 1,
            firewall_mark: 0,
            timeout: None,
            sequences: None,
            engine: &[],
            engine_data: &[],
        }
    }

    /// [3.1.1]
    #[test]
    fn a_record_stands_where_the_figure_says() {
        let mut slot = [0xaa; 1500];
        let mut writer = Writer::new(&mut slot, 81).unwrap();
        assert!(writer.push(&connection()));
        assert_eq!(writer.finish(), 32);
        assert_eq!(slot[..32], ONE);
        assert_eq!(slot[32], 0xaa, "nothing behind the message is touched");
        let message = Message::parse(&ONE).unwrap();
        assert_eq!(message.sync_id(), 81);
        let records: Vec<_> = message.verify().unwrap().collect();
        assert_eq!(records, [Ok(connection())]);
    }

    /// [3.1.1]
    #[test]
    fn sequence_words_are_in_network_order_and_the_clients_come_first() {
        let side = |first| Sequence { initial: first, delta: first + 1, previous_delta: first + 2 };
        let sequences = Some(Sequences { incoming: side(0x0102_0304), outgoing: side(7) });
        let full = Connection { flags: ConnectionFlags(0x0600), sequences, ..connection() };
        let mut slot = [0; 56];
        let mut writer = Writer::new(&mut slot, 81).unwrap();
        assert!(writer.push(&full));
        assert_eq!(writer.finish(), 56);
        assert_eq!(slot[28..32], [6, 0, 0, 1]);
        assert_eq!(slot[32..44], [1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3, 6]);
        assert_eq!(slot[44..56], [0, 0, 0, 7, 0, 0, 0, 8, 0, 0, 0, 9]);
        assert_eq!(Message::parse(&slot).unwrap().verify().unwrap().next(), Some(Ok(full)));
    }

    /// [3.1.1]
    #[test]
    fn a_message_holds_fifty_plain_records_or_twenty_five_full_ones_or_a_mix() {
        let full = Connection { flags: ConnectionFlags(0x0200), sequences: Some(Sequences::default()), ..connection() };
        let fill = |order: &[&Connection<'static>]| {
            let mut slot = [0; 9000];
            let mut writer = Writer::new(&mut slot, 81).unwrap();
            let fitted = order.iter().cycle().take_while(|next| writer.push(next)).count();
            assert_eq!(usize::from(writer.count()), fitted);
            (fitted, writer.finish())
        };
        assert_eq!(fill(&[&connection()]), (50, 1208));
        assert_eq!(fill(&[&full]), (25, 1208));
        assert_eq!(fill(&[&connection(), &full]), (33, 1184));
    }

    #[test]
    fn a_slot_without_room_is_left_alone() {
        assert!(Writer::new(&mut [0; 7], 81).is_none());
        let mut slot = [0; 31];
        assert!(!Writer::new(&mut slot, 81).unwrap().push(&connection()));
        assert_eq!(slot, [0; 31]);
        let six = Endpoint { address: IpAddr::from([0; 16]), port: 1 };
        let mut slot = [0; 64];
        assert!(!Writer::new(&mut slot, 81).unwrap().push(&Connection { server: six, ..connection() }));
        assert_eq!(slot, [0; 64]);
    }

    /// RFC 1071 section 3: the example's sum is ddf2; here it stands behind a header of zeros.
    #[test]
    fn the_checksum_is_the_internet_checksum() {
        let mut message = [0; 16];
        message[8..].copy_from_slice(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(checksum(&message), !0xddf2);
        message[6] = 0x55;
        assert_eq!(checksum(&message), !0xddf2, "its own field counts as zero");
        assert_eq!(checksum(&message[..15]), !0xdcfb, "a byte over is the high half of a word");
        assert_eq!(checksum(&[]), 0xffff);
    }
}
