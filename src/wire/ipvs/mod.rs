//! Sync messages of the kernel's IPVS (UDP 8848), versions 0 and 1: read, never written.
//!
//! The kernel's sync daemon tells its backup of connections in datagrams that nobody numbers, acknowledges or repeats.
//! The layouts are those of net/netfilter/ipvs/ip_vs_sync.c. A message is read as the kernel's backup reads it, with one
//! difference: the kernel takes the records before a broken one, we take a message whole or refuse it whole. What the
//! kernel steps over (a protocol or a state that it does not know, say) is stepped over here, too, and named.
//!
//! ```text
//!   version 0                                          version 1
//!   +--------+--------+-----------------+              +--------+--------+-----------------+
//!   | count  | syncid |      size       |  0           | 0      | syncid |      size       |  0
//!   +--------+--------+-----------------+              +--------+--------+-----------------+
//!   | records of 24 or 48 bytes         |  4           | count  | 1      | 0               |  4
//!                                                      +--------+--------+-----------------+
//!                                                      | records of 36 (IPv4) or 72 bytes  |  8
//!                                                      | and options, each from a multiple |
//!                                                      | of 4 bytes on                     |
//! ```
//!
//! The kernel tells the two apart by bytes 0, 5, 6 and 7: zero, one, zero, zero is version 1, everything else 0.

mod connection;
pub mod state;
mod v0;
mod v1;

pub use connection::{Connection, ConnectionFlags, Forwarding, Sequence, Sequences};

/// UDP port of the first sync daemon thread; `net.ipv4.vs.sync_ports` takes the following ones, too.
pub const PORT: u16 = 8848;
/// Most ports that one sync daemon sends to (`IPVS_SYNC_PORTS_MAX` of include/net/ip_vs.h).
pub const PORTS_MAX: u16 = 64;

/// Declares reasons once: the enum, its messages and its words.
macro_rules! reasons {
    ($(#[$outer:meta])* $type:ident { $($(#[$doc:meta])* $variant:ident $name:literal $message:literal)* }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, thiserror::Error)]
        pub enum $type { $($(#[$doc])* #[error($message)] $variant,)* }

        impl $type {
            /// The reason's word in logs and JSON.
            pub const fn name(self) -> &'static str {
                match self { $($type::$variant => $name,)* }
            }
        }
    };
}

reasons! {
    /// Why a whole message was refused.
    MessageError {
        /// Fewer bytes than the smallest header has.
        Truncated "truncated" "the message is shorter than its header"
        /// The size field is not the number of bytes that arrived.
        SizeMismatch "size_mismatch" "the size field differs from the number of bytes that arrived"
        /// A record goes on past the end of the message.
        RecordTruncated "record_truncated" "a record ends beyond the message"
        /// A record says that it is shorter than its fixed part.
        RecordLength "record_length" "a record is shorter than its fixed fields"
        /// A record of another version than 0.
        RecordVersion "record_version" "a record is of an unknown version"
        /// A record that is neither of IPv4 nor of IPv6.
        RecordType "record_type" "a record is of an unknown type"
        /// An option goes on past the end of its record, or has no data.
        OptionTruncated "option_truncated" "an option is empty or ends beyond its record"
        /// Sequence data that are not 24 bytes, or the name of an engine with more than 16.
        OptionLength "option_length" "an option has an impossible length"
        /// The same option twice.
        OptionTwice "option_twice" "an option stands twice in one record"
    }
}

reasons! {
    /// Why one record was stepped over, as the kernel does.
    Skipped {
        /// An option that we do not know and must (its type has not the bit `IPVS_OPT_F_PARAM`).
        UnknownOption "unknown_option" "an option is unknown and not marked as optional"
        /// Not TCP, UDP, SCTP, AH or ESP.
        UnknownProtocol "unknown_protocol" "IPVS balances no such protocol"
        /// A state that the protocol does not have.
        UnknownState "unknown_state" "the protocol has no such state"
        /// Data for a persistence engine that is not named.
        EngineMissing "engine_missing" "there are data for a persistence engine without its name"
    }
}

/// Order of the bytes in the sequence words of version 0, which its sender copies as they lie in its memory. Nothing in the
/// message tells it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum WordOrder {
    /// The sender is an x86, an ARM, a RISC-V.
    #[default]
    LittleEndian,
    /// The sender is an s390x, or another of its kind.
    BigEndian,
}

/// One record: the connection, or why the kernel steps over it.
pub type Record<'a> = Result<Connection<'a>, Skipped>;

/// A message of which every record has been checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message<'a> {
    /// 0 or 1.
    pub version: u8,
    /// Which sync daemons belong together; 0 belongs to all.
    pub sync_id: u8,
    /// Number of records.
    pub count: u8,
    /// Bytes behind the last record, which nobody reads; 0 from a kernel.
    pub surplus: usize,
    order: WordOrder,
    records: &'a [u8],
}

impl<'a> Message<'a> {
    /// Takes the payload of one UDP datagram as a message. `order` is that of the sequence words of version 0.
    ///
    /// # Errors
    /// [`MessageError`]: the first thing that is wrong with the message or one of its records.
    pub fn parse(bytes: &'a [u8], order: WordOrder) -> Result<Self, MessageError> {
        let Some((&[first, sync_id, size_high, size_low], after)) = bytes.split_first_chunk() else {
            return Err(MessageError::Truncated);
        };
        if usize::from(u16::from_be_bytes([size_high, size_low])) != bytes.len() {
            return Err(MessageError::SizeMismatch);
        }
        let (version, count, records) = match (first, after.split_first_chunk()) {
            (0, Some((&[count, 1, 0, 0], records))) => (1, count, records),
            _ => (0, first, after),
        };
        let mut message = Message { version, sync_id, count, surplus: 0, order, records };
        let mut walk = message.walk();
        for record in &mut walk {
            let _ = record?;
        }
        message.surplus = walk.rest.len();
        Ok(message)
    }

    /// Every record, in the order of the message.
    pub fn records(&self) -> impl Iterator<Item = Record<'a>> {
        // All were read once by `parse`; a second reading of the same bytes refuses nothing.
        self.walk().flatten()
    }

    fn walk(&self) -> Walk<'a> {
        Walk { version: self.version, order: self.order, left: self.count, rest: self.records }
    }
}

/// Goes from record to record; ends after the first error.
struct Walk<'a> {
    version: u8,
    order: WordOrder,
    left: u8,
    rest: &'a [u8],
}

impl<'a> Iterator for Walk<'a> {
    type Item = Result<Record<'a>, MessageError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let read = if self.version == 0 { v0::record(self.rest, self.order) } else { v1::record(self.rest) };
        Some(match read {
            Ok((record, rest)) => {
                self.rest = rest;
                Ok(record)
            }
            Err(error) => {
                self.left = 0;
                Err(error)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::protocol;

    /// A version 0 record: TCP 10.1.0.10:40001 -> 10.1.0.100:80 -> 10.2.0.11:8080, ESTABLISHED.
    const V0: [u8; 24] =
        [0, 6, 0x9c, 0x41, 0, 80, 0x1f, 0x90, 10, 1, 0, 10, 10, 1, 0, 100, 10, 2, 0, 11, 0x01, 0x00, 0, 1];
    /// The same as version 1, with a mark and a time-out of 900 s.
    const V1: [u8; 36] = [
        0, 6, 0, 36, 0, 0, 1, 0, 0, 1, 0x9c, 0x41, 0, 80, 0x1f, 0x90, 0, 0, 0, 7, 0, 0, 3, 0x84, 10, 1, 0, 10, 10, 1,
        0, 100, 10, 2, 0, 11,
    ];

    fn v0(records: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![records.len() as u8, 7, 0, 0];
        records.iter().for_each(|record| bytes.extend_from_slice(record));
        sized(bytes)
    }

    fn v1(records: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![0, 7, 0, 0, records.len() as u8, 1, 0, 0];
        for record in records {
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes.extend_from_slice(record);
        }
        sized(bytes)
    }

    fn sized(mut bytes: Vec<u8>) -> Vec<u8> {
        let size = (bytes.len() as u16).to_be_bytes();
        bytes[2..4].copy_from_slice(&size);
        bytes
    }

    /// `V1` with options behind it and its size corrected.
    fn with_options(options: &[u8]) -> Vec<u8> {
        let mut record = V1.to_vec();
        record.extend_from_slice(options);
        record[3] = record.len() as u8;
        record
    }

    fn only(bytes: &[u8]) -> Record<'_> {
        Message::parse(bytes, WordOrder::LittleEndian).unwrap().records().next().unwrap()
    }

    fn refusal(bytes: &[u8]) -> MessageError {
        Message::parse(bytes, WordOrder::LittleEndian).unwrap_err()
    }

    fn words(connection: &Connection<'_>) -> String {
        let (client, service, server) = (connection.client, connection.service, connection.server);
        format!(
            "{} {}:{} {}:{} {}:{} {:#x} {} mark {} timeout {:?}",
            connection.protocol,
            client.address,
            client.port,
            service.address,
            service.port,
            server.address,
            server.port,
            connection.flags.0,
            connection.state,
            connection.firewall_mark,
            connection.timeout,
        )
    }

    #[test]
    fn the_fields_of_both_versions_stand_where_the_kernel_puts_them() {
        let message = v0(&[&V0]);
        assert_eq!(
            words(&only(&message).unwrap()),
            "6 10.1.0.10:40001 10.1.0.100:80 10.2.0.11:8080 0x100 1 mark 0 timeout None"
        );
        let message = v1(&[&V1]);
        let read = Message::parse(&message, WordOrder::LittleEndian).unwrap();
        assert_eq!((read.version, read.sync_id, read.count, read.surplus), (1, 7, 1, 0));
        assert_eq!(
            words(&only(&message).unwrap()),
            "6 10.1.0.10:40001 10.1.0.100:80 10.2.0.11:8080 0x100 1 mark 7 timeout Some(900)"
        );
    }

    #[test]
    fn sequence_words_of_version_0_are_in_the_senders_order() {
        let mut record = V0.to_vec();
        record[20] = 0x06;
        record.extend([1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0, 6, 0, 0, 0]);
        let message = v0(&[&record, &V0]);
        let read = |order| {
            let message = Message::parse(&message, order).unwrap();
            assert_eq!(message.records().count(), 2);
            message.records().next().unwrap().unwrap().sequences.unwrap()
        };
        let little = read(WordOrder::LittleEndian);
        assert_eq!(little.incoming, Sequence { initial: 1, delta: 2, previous_delta: 3 });
        assert_eq!(little.outgoing, Sequence { initial: 4, delta: 5, previous_delta: 6 });
        assert_eq!(read(WordOrder::BigEndian).incoming.initial, 0x0100_0000);
    }

    #[test]
    fn options_of_version_1_are_read_and_records_are_padded_to_words() {
        let mut options = vec![1, 24];
        options.extend([0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0, 6]);
        options.extend([2, 5]);
        options.extend(b"a@b.c");
        options.extend([3, 3]);
        options.extend(b"sip");
        // Unknown, but marked as optional.
        options.extend([0x40 | 9, 1, 0xff]);
        let record = with_options(&options);
        assert_eq!(record.len() % 4, 1, "so that there is padding");
        let message = v1(&[&record, &V1]);
        let message = Message::parse(&message, WordOrder::BigEndian).unwrap();
        let all: Vec<_> = message.records().map(Result::unwrap).collect();
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].engine, all[0].engine_data), (&b"sip"[..], &b"a@b.c"[..]));
        assert_eq!(all[0].sequences.unwrap().outgoing, Sequence { initial: 4, delta: 5, previous_delta: 6 });
        assert_eq!((all[1].sequences, all[1].client.port), (None, 40001));
    }

    #[test]
    fn the_header_decides_the_version_as_the_kernel_does() {
        let mut message = v1(&[&V1]);
        message[5] = 2;
        // Byte 0 is then the count of version 0: no records, and the rest is surplus.
        let read = Message::parse(&message, WordOrder::LittleEndian).unwrap();
        assert_eq!((read.version, read.count, read.surplus), (0, 0, 40));
    }

    #[test]
    fn what_is_broken_is_refused_whole_and_by_name() {
        assert_eq!(refusal(&[0, 7, 0]), MessageError::Truncated);
        assert_eq!(refusal(&[0, 7, 0, 5]), MessageError::SizeMismatch);
        assert_eq!(refusal(&v0(&[&V0, &V0[..23]])), MessageError::RecordTruncated);
        assert_eq!(refusal(&v1(&[&V1, &V1[..35]])), MessageError::RecordTruncated);
        let mut long = V1;
        long[3] = 40;
        assert_eq!(refusal(&v1(&[&long])), MessageError::RecordTruncated);
        let mut record = V0;
        record[20] = 0x02;
        assert_eq!(refusal(&v0(&[&record])), MessageError::RecordTruncated, "sequence words are announced");
        let change = |at: usize, value: u8| {
            let mut record = V1;
            record[at] = value;
            v1(&[&record])
        };
        assert_eq!(refusal(&change(3, 35)), MessageError::RecordLength);
        assert_eq!(refusal(&change(0, 1)), MessageError::RecordLength, "IPv6 needs 72 bytes");
        assert_eq!(refusal(&change(2, 0x10)), MessageError::RecordVersion);
        assert_eq!(refusal(&change(0, 2)), MessageError::RecordType);
        assert_eq!(refusal(&v1(&[&with_options(&[2])])), MessageError::OptionTruncated);
        assert_eq!(refusal(&v1(&[&with_options(&[2, 0])])), MessageError::OptionTruncated);
        assert_eq!(refusal(&v1(&[&with_options(&[2, 2, 1])])), MessageError::OptionTruncated);
        assert_eq!(refusal(&v1(&[&with_options(&[1, 4, 0, 0, 0, 0])])), MessageError::OptionLength);
        let mut name = vec![3, 17];
        name.extend([b'x'; 17]);
        assert_eq!(refusal(&v1(&[&with_options(&name)])), MessageError::OptionLength);
        assert_eq!(refusal(&v1(&[&with_options(&[3, 1, 1, 3, 1, 1])])), MessageError::OptionTwice);
    }

    #[test]
    fn what_the_kernel_steps_over_is_stepped_over_by_name() {
        let skipped = |record: &[u8]| {
            let message = v1(&[record, &V1]);
            let message = Message::parse(&message, WordOrder::LittleEndian).unwrap();
            assert_eq!(message.records().filter(Result::is_ok).count(), 1, "the next one is read");
            message.records().next().unwrap().unwrap_err()
        };
        let change = |at: usize, value: u8| {
            let mut record = V1;
            record[at] = value;
            record
        };
        assert_eq!(skipped(&change(1, 1)), Skipped::UnknownProtocol);
        assert_eq!(skipped(&change(9, 11)), Skipped::UnknownState);
        assert_eq!(skipped(&with_options(&[9, 1, 0])), Skipped::UnknownOption);
        assert_eq!(skipped(&with_options(&[2, 1, 0])), Skipped::EngineMissing);
        assert_eq!(Skipped::EngineMissing.name(), "engine_missing");
        let mut record = V0;
        record[1] = protocol::ICMP;
        assert_eq!(only(&v0(&[&record])), Err(Skipped::UnknownProtocol));
    }

    #[test]
    fn a_template_has_a_state_of_its_own_and_needs_no_protocol() {
        let mut record = V1;
        (record[1], record[6]) = (0, 0x11);
        record[9] = 1;
        let message = v1(&[&record]);
        let template = only(&message).unwrap();
        assert!(template.flags.is_template());
        assert_eq!((template.state, state::name(&template)), (1, "ASSURED"));
        record[9] = 2;
        assert_eq!(only(&v1(&[&record])).unwrap().state, 0, "as the kernel takes what it does not know");
    }
}
