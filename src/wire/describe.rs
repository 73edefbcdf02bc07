//! A frame as text, for people: every field with its offset and its bytes, and what a receiver says to it.
//!
//! This is a second reading of the same bytes, made from tables and not from the decoder's structs. It therefore shows
//! frames that the decoder refuses, as far as they can be made out, and where the two readings differ one is wrong.
//!
//! ```text
//!   offset  bytes                     field                   value
//!        0  01                        count                   1
//!        1  51                        sync_id                 81
//!        2  00 40                     size                    64
//! ```

mod classic;

use super::conn::present;
use super::frame::checksum;
use super::record::{self, Record, kind, operation};
use super::{AdvertFlags, Capabilities, Frame, FrameFlags, HEADER_LEN, Kind, SyncCode, VERSION, WireRole};
use crate::flow::status;
use core::fmt::Write;
use core::net::{Ipv4Addr, Ipv6Addr};

/// Bytes of one line.
const LINE_LEN: usize = 8;
/// Bytes of the tag behind a sealed payload.
const TAG_LEN: usize = 16;

/// Describes what should be a frame, one field a line, and ends with the verdict of [`Frame::parse`] and
/// [`Frame::verify`], or, where it is of the classic profile, of [`Message`](super::classic::Message)'s. Takes any bytes.
pub fn describe(bytes: &[u8]) -> String {
    let mut page = Page { text: String::new(), bytes, at: 0 };
    page.line("offset", "bytes", "field", "value");
    let classic = classic::claims(bytes);
    page.fields(if classic { &classic::PREAMBLE[..] } else { &PREAMBLE });
    match bytes.get(4..6) {
        Some(&[VERSION, kind]) => {
            page.fields(&HEADER);
            let flags = bytes.get(6..8).map_or(0, number);
            if FrameFlags(flags as u16).is_sealed() {
                page.sealed();
            } else {
                page.payload(Kind(kind));
            }
        }
        _ if classic => page.classic(),
        _ => page.rest("message of another version"),
    }
    page.rest("surplus");
    if classic {
        page.classic_verdict();
    } else {
        page.verdict();
    }
    page.text
}

/// One field of a layout: a number of up to 16 bytes.
struct Field {
    name: &'static str,
    len: usize,
    show: fn(u128) -> String,
}

const fn field(name: &'static str, len: usize, show: fn(u128) -> String) -> Field {
    Field { name, len, show }
}

const PREAMBLE: [Field; 6] = [
    field("count", 1, decimal),
    field("sync_id", 1, decimal),
    field("size", 2, decimal),
    field("version", 1, decimal),
    field("kind", 1, |value| format!("{value} {}", Kind(value as u8).name())),
    field("flags", 2, |value| bits(value, &[(1, "sealed"), (0x100, "key_1"), (0x200, "key_2")])),
];

const HEADER: [Field; 5] = [
    field("checksum", 4, hex),
    field("node", 4, decimal),
    field("incarnation", 8, hex),
    field("seq", 8, decimal),
    field("term", 8, decimal),
];

const RECORD: [Field; 4] = [
    field("type", 1, |value| match value as u8 {
        kind::TABLE => "0 table".into(),
        kind::CONN4 => "1 conn4".into(),
        kind::CONN6 => "2 conn6".into(),
        _ => format!("{value} unknown"),
    }),
    field("operation", 1, |value| match value as u8 {
        operation::UPSERT => "1 upsert".into(),
        operation::DELETE => "2 delete".into(),
        operation::BUCKET_END => "3 bucket_end".into(),
        _ => format!("{value} unknown"),
    }),
    field("present", 1, |value| bits(value, &PRESENT)),
    field("length", 1, |value| format!("{value} words")),
];

const PRESENT: [(u128, &str); 6] = [
    (present::REPLY_SOURCE as u128, "reply_source"),
    (present::REPLY_DESTINATION as u128, "reply_destination"),
    (present::TCP as u128, "tcp"),
    (present::MARK as u128, "mark"),
    (present::ZONE as u128, "zone"),
    (present::ATTRIBUTES as u128, "attributes"),
];

const ADDRESSES4: [Field; 2] = [field("source", 4, address4), field("destination", 4, address4)];

const ADDRESSES6: [Field; 2] = [field("source", 16, address6), field("destination", 16, address6)];

const CONN: [Field; 5] = [
    field("source_port", 2, decimal),
    field("destination_port", 2, decimal),
    field("protocol", 1, decimal),
    field("state", 1, decimal),
    field("status", 2, |value| {
        let names: [(u16, &str); 8] = [
            (status::SEEN_REPLY, "seen_reply"),
            (status::ASSURED, "assured"),
            (status::CONFIRMED, "confirmed"),
            (status::SRC_NAT, "src_nat"),
            (status::DST_NAT, "dst_nat"),
            (status::SEQ_ADJUST, "seq_adjust"),
            (status::SRC_NAT_DONE, "src_nat_done"),
            (status::DST_NAT_DONE, "dst_nat_done"),
        ];
        bits(value, &names.map(|(bit, name)| (u128::from(bit), name)))
    }),
];

const TIMEOUT: [Field; 1] = [field("timeout", 4, |value| format!("{value} s"))];

const REPLY_SOURCE4: [Field; 3] =
    [field("reply_source", 4, address4), field("reply_source_port", 2, decimal), field("zero", 2, decimal)];

const REPLY_SOURCE6: [Field; 3] =
    [field("reply_source", 16, address6), field("reply_source_port", 2, decimal), field("zero", 2, decimal)];

const REPLY_DESTINATION4: [Field; 3] =
    [field("reply_destination", 4, address4), field("reply_destination_port", 2, decimal), field("zero", 2, decimal)];

const REPLY_DESTINATION6: [Field; 3] =
    [field("reply_destination", 16, address6), field("reply_destination_port", 2, decimal), field("zero", 2, decimal)];

const TCP: [Field; 4] = [
    field("window_scales", 1, |value| format!("{} original, {} reply", value >> 4, value & 15)),
    field("tcp_flags_original", 1, hex),
    field("tcp_flags_reply", 1, hex),
    field("zero", 1, decimal),
];

const MARK: [Field; 1] = [field("mark", 4, hex)];

const ZONE: [Field; 3] = [field("zone", 2, decimal), field("direction", 1, decimal), field("zero", 1, decimal)];

/// A connection's fields that are not of one length: its addresses, and under their bits the optional ones.
struct Family {
    addresses: &'static [Field],
    optional: [(u8, &'static [Field]); 5],
}

const CONN4: Family = Family {
    addresses: &ADDRESSES4,
    optional: [
        (present::REPLY_SOURCE, &REPLY_SOURCE4),
        (present::REPLY_DESTINATION, &REPLY_DESTINATION4),
        (present::TCP, &TCP),
        (present::MARK, &MARK),
        (present::ZONE, &ZONE),
    ],
};

const CONN6: Family = Family {
    addresses: &ADDRESSES6,
    optional: [
        (present::REPLY_SOURCE, &REPLY_SOURCE6),
        (present::REPLY_DESTINATION, &REPLY_DESTINATION6),
        (present::TCP, &TCP),
        (present::MARK, &MARK),
        (present::ZONE, &ZONE),
    ],
};

const BUCKET_END: [Field; 3] = [field("bucket", 2, decimal), field("zero", 2, decimal), field("since", 8, decimal)];

const ADVERT: [Field; 20] = [
    field("role", 1, |value| format!("{value} {}", WireRole(value as u8).name())),
    field("priority", 1, decimal),
    field("interval", 2, |value| format!("{value} ms")),
    field("flags", 4, |value| {
        let names = [
            (AdvertFlags::COLD, "cold"),
            (AdvertFlags::DIGEST_VALID, "digest_valid"),
            (AdvertFlags::ASKS, "asks"),
            (AdvertFlags::HANDING_OVER, "handing_over"),
            (AdvertFlags::DRAINING, "draining"),
        ];
        bits(value, &names.map(|(flag, name)| (u128::from(flag.0), name)))
    }),
    field("term_start", 8, decimal),
    field("stream_seq", 8, decimal),
    field("history_start", 8, decimal),
    field("digest", 8, hex),
    field("entries", 8, decimal),
    field("follows_node", 4, decimal),
    field("follows_heir", 4, decimal),
    field("follows_incarnation", 8, hex),
    field("follows_term", 8, decimal),
    field("hash_seed", 8, hex),
    field("capabilities", 4, |value| bits(value, &Capabilities::NAMES.map(|(bit, name)| (u128::from(bit.0), name)))),
    field("kernel_capacity", 4, decimal),
    field("kernel_buckets", 4, decimal),
    field("name_length", 1, decimal),
    field("peer_count", 1, decimal),
    field("zero", 2, decimal),
];

const PEER: [Field; 5] = [
    field("node", 4, decimal),
    field("credit", 4, decimal),
    field("incarnation", 8, hex),
    field("heard", 8, decimal),
    field("frontier", 8, decimal),
];

const TARGET: [Field; 3] =
    [field("target_node", 4, decimal), field("zero", 4, decimal), field("target_incarnation", 8, hex)];

const STATUS: [Field; 6] = [
    field("frontier", 8, decimal),
    field("base", 8, decimal),
    field("credit", 4, decimal),
    field("state", 1, |value| format!("{value} {}", SyncCode(value as u8).name())),
    field("range_count", 1, decimal),
    field("zero", 2, decimal),
];

const MISSING: [Field; 2] = [field("first", 8, decimal), field("length", 4, decimal)];

const PULL: [Field; 3] = [
    field("what", 1, |value| if value == 1 { "1 buckets".into() } else { format!("{value} unknown") }),
    field("range_count", 1, decimal),
    field("zero", 2, decimal),
];

const BUCKETS: [Field; 2] = [field("first", 2, decimal), field("count", 2, decimal)];

/// The text so far, and how much of the bytes it has told.
struct Page<'a> {
    text: String,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Page<'a> {
    /// The payload of a frame that is not sealed.
    fn payload(&mut self, kind: Kind) {
        match kind {
            Kind::DATA => self.records(),
            Kind::ADVERT => {
                let counts = self.at + 92;
                self.fields(&ADVERT);
                let name = self.peek(self.at, self.count_at(counts));
                let words = format!("{:?}", String::from_utf8_lossy(name));
                self.raw(name.len(), "name", &words);
                self.list("peer", self.count_at(counts + 1), &PEER);
            }
            Kind::STATUS => {
                self.fields(&TARGET);
                self.fields(&STATUS);
                self.list("missing", self.count_at(HEADER_LEN + 37), &MISSING);
            }
            Kind::PULL => {
                self.fields(&TARGET);
                self.fields(&PULL);
                self.list("buckets", self.count_at(HEADER_LEN + 17), &BUCKETS);
            }
            _ => self.rest("payload of another kind"),
        }
    }

    fn records(&mut self) {
        let mut nth = 1;
        while let Ok((record, _)) = record::split(&self.bytes[self.at..]) {
            let title = match (record::check(record), record::view(record)) {
                (Err(reason), _) => format!("refused: {reason}"),
                (Ok(()), Record::Upsert(conn)) => format!("upsert {}", conn.key()),
                (Ok(()), Record::Delete(conn)) => format!("delete {}", conn.key()),
                (Ok(()), Record::BucketEnd { bucket, since }) => format!("end of bucket {bucket}, since {since}"),
                (Ok(()), Record::Unknown { kind }) => format!("type {kind}, stepped over"),
            };
            self.title(&format!("record {nth}: {title}"));
            self.record(record);
            nth += 1;
        }
    }

    /// One record, in a page of its own that ends where the record ends.
    fn record(&mut self, record: &[u8]) {
        let end = self.at + record.len();
        let whole = self.bytes;
        self.bytes = &whole[..end];
        self.fields(&RECORD);
        match *record {
            [kind::CONN4, operation, present, ..] => self.connection(&CONN4, operation, present),
            [kind::CONN6, operation, present, ..] => self.connection(&CONN6, operation, present),
            [kind::TABLE, operation::BUCKET_END, ..] => self.fields(&BUCKET_END),
            _ => {}
        }
        self.rest("unknown");
        self.bytes = whole;
    }

    fn connection(&mut self, family: &Family, operation: u8, present: u8) {
        if !matches!(operation, operation::UPSERT | operation::DELETE) {
            return;
        }
        self.fields(family.addresses);
        self.fields(&CONN);
        if operation == operation::UPSERT {
            self.fields(&TIMEOUT);
        }
        for (bit, fields) in family.optional {
            if present & bit != 0 {
                self.fields(fields);
            }
        }
        self.rest("attributes");
    }

    fn list(&mut self, name: &str, count: usize, fields: &[Field]) {
        for nth in 1..=count {
            if self.at == self.bytes.len() {
                return self.title(&format!("{name} {nth} of {count} is not there"));
            }
            self.title(&format!("{name} {nth} of {count}"));
            self.fields(fields);
        }
    }

    fn sealed(&mut self) {
        let tag_at = self.bytes.len().saturating_sub(TAG_LEN).max(self.at);
        self.raw(tag_at - self.at, "sealed payload", "");
        self.rest("tag");
    }

    /// As many of these fields as there are bytes for.
    fn fields(&mut self, fields: &[Field]) {
        for field in fields {
            let bytes = self.peek(self.at, field.len);
            if bytes.len() < field.len {
                return self.rest("cut off");
            }
            let value = (field.show)(number(bytes));
            self.raw(field.len, field.name, &value);
        }
    }

    fn rest(&mut self, name: &str) {
        self.raw(self.bytes.len() - self.at, name, "");
    }

    /// The next `len` bytes, under a name; nothing if that is none.
    fn raw(&mut self, len: usize, mut name: &str, mut value: &str) {
        for line in self.peek(self.at, len).chunks(LINE_LEN) {
            let bytes: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            self.line(&self.at.to_string(), &bytes.join(" "), name, value);
            (name, value) = ("", "");
            self.at += line.len();
        }
    }

    fn title(&mut self, title: &str) {
        self.line("", "", "--", title);
    }

    fn line(&mut self, offset: &str, bytes: &str, field: &str, value: &str) {
        let line = format!("{offset:>6}  {bytes:<24}  {field:<22}  {value}");
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    fn verdict(&mut self) {
        let bytes = self.bytes;
        let verdict = match Frame::parse(bytes).and_then(Frame::verify) {
            Ok(_) => "accepted".to_owned(),
            Err(reason) => format!("refused: {}: {reason}", reason.name()),
        };
        let _ = writeln!(self.text, "{verdict}");
        let claimed = bytes.get(8..12).map_or(0, number);
        if bytes.len() >= HEADER_LEN && bytes[4] == VERSION && claimed != u128::from(checksum(bytes)) {
            let _ = writeln!(self.text, "the bytes' own checksum is 0x{:08x}", checksum(bytes));
        }
    }

    /// Up to `len` bytes from `at` on.
    fn peek(&self, at: usize, len: usize) -> &'a [u8] {
        let bytes: &'a [u8] = self.bytes;
        let rest = bytes.get(at..).unwrap_or_default();
        &rest[..len.min(rest.len())]
    }

    /// The one-byte count at `at`; 0 if the frame ends before it.
    fn count_at(&self, at: usize) -> usize {
        self.bytes.get(at).copied().map_or(0, usize::from)
    }
}

fn number(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0, |number, byte| number << 8 | u128::from(*byte))
}

fn decimal(value: u128) -> String {
    value.to_string()
}

fn hex(value: u128) -> String {
    format!("0x{value:x}")
}

fn address4(value: u128) -> String {
    Ipv4Addr::from_bits(value as u32).to_string()
}

fn address6(value: u128) -> String {
    Ipv6Addr::from_bits(value).to_string()
}

/// The number and the names of its bits; bits without a name are told as a number of their own.
fn bits(value: u128, names: &[(u128, &str)]) -> String {
    let mut text = hex(value);
    let mut unnamed = value;
    for (bit, name) in names {
        if value & bit != 0 {
            let _ = write!(text, " {name}");
            unnamed &= !bit;
        }
    }
    if unnamed != 0 {
        let _ = write!(text, " unnamed_{unnamed:x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines that end a description, from the one that begins with `from` on.
    fn tail<'a>(text: &'a str, from: &str) -> Vec<&'a str> {
        text.lines().skip_while(|line| !line.trim_start().starts_with(from)).collect()
    }

    #[test]
    fn nothing_is_described_as_nothing() {
        assert_eq!(
            describe(&[]),
            "offset  bytes                     field                   value\n\
             refused: truncated: the frame is shorter than its header\n"
        );
    }

    #[test]
    fn a_field_that_is_cut_off_is_shown_as_far_as_it_goes() {
        let text = describe(&[1, 81, 0]);
        assert_eq!(
            tail(&text, "1 "),
            [
                "     1  51                        sync_id                 81",
                "     2  00                        cut off",
                "refused: truncated: the frame is shorter than its header",
            ]
        );
    }

    #[test]
    fn a_sealed_frame_too_short_for_its_tag_is_all_tag() {
        let mut frame = [0; 44];
        (frame[3], frame[4], frame[5], frame[7]) = (44, 1, 2, 1);
        let text = describe(&frame);
        assert_eq!(tail(&text, "40 ")[0], "    40  00 00 00 00               tag");
        assert!(text.ends_with(
            "refused: checksum: the checksum does not fit the bytes\nthe bytes' own checksum is 0xbfa4562c\n"
        ));
        frame[4] = 2;
        assert!(!describe(&frame).contains("own checksum"), "another version may keep its checksum elsewhere");
    }

    #[test]
    fn bits_without_a_name_are_told_all_the_same() {
        assert_eq!(bits(0, &PRESENT), "0x0");
        assert_eq!(bits(0x29, &PRESENT), "0x29 reply_source mark unnamed_20");
    }

    #[test]
    fn records_are_told_one_by_one_and_attributes_as_they_are() {
        let mut frame = [0; 40].to_vec();
        (frame[0], frame[4], frame[5]) = (3, 1, 2);
        frame.extend_from_slice(&[1, 1, 0x80, 7, 10, 0, 0, 1, 10, 0, 0, 2, 0, 1, 0, 2, 17, 0, 0, 8, 0, 0, 0, 30]);
        frame.extend_from_slice(&[9, 1, 7, 0]);
        frame.extend_from_slice(&[1, 2, 0, 5, 10, 0, 0, 1, 10, 0, 0, 2, 0, 1, 0, 2, 17, 0, 0, 0]);
        frame.extend_from_slice(&[77, 1, 0, 2, 1, 2, 3, 4, 1, 2]);
        let text = describe(&frame);
        let has = |line: &str| assert!(text.lines().any(|it| it == line), "{line:?} is not in\n{text}");
        has("                                  --                      record 1: upsert udp 10.0.0.1:1 -> 10.0.0.2:2");
        has("    60  00 00 00 1e               timeout                 30 s");
        has("    64  09 01 07 00               attributes");
        has("                                  --                      record 2: delete udp 10.0.0.1:1 -> 10.0.0.2:2");
        has("    86  00 00                     status                  0x0");
        has("                                  --                      record 3: type 77, stepped over");
        has("    92  01 02 03 04               unknown");
        has("    96  01 02                     surplus");
        let timeouts = text.lines().filter(|line| line.contains("timeout")).count();
        assert_eq!(timeouts, 1, "a delete has none");
    }
}
