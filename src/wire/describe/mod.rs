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
mod layout;

use super::frame::checksum;
use super::merge::PULL_MERGE;
use super::pull::PULL_WHAT_AT;
use super::record::{self, Record, kind, operation};
use super::{FrameError, FrameFlags, HEADER_LEN, Kind, Secret, TAG_LEN, VERSION, unseal};
use core::fmt::Write;
use layout::{Family, Field, number};

/// Bytes of one line.
const LINE_LEN: usize = 8;

/// Describes what should be a frame, one field a line, and ends with the verdict of [`unseal()`] and [`Frame::verify`](super::Frame::verify), or,
/// where it is of the classic profile, of [`Message`](super::classic::Message)'s. Takes any bytes. What one of the secrets
/// opens is shown in the clear; its header and its tag are those of the sealed frame.
pub fn describe(bytes: &[u8], secrets: &[Secret]) -> String {
    let (opened, verdict) = read(bytes, secrets);
    let shown = opened.as_deref().unwrap_or(bytes);
    let mut page = Page { text: String::new(), bytes: shown, at: 0 };
    page.line("offset", "bytes", "field", "value");
    let classic = crate::wire::classic::claims(bytes);
    page.fields(if classic { &classic::PREAMBLE[..] } else { &layout::PREAMBLE });
    match bytes.get(4..6) {
        Some(&[VERSION, kind]) => {
            page.fields(&layout::HEADER);
            let flags = bytes.get(6..8).map_or(0, number);
            let flags = FrameFlags(flags as u16);
            if opened.is_some() {
                page.opened(flags.key_id(), Kind(kind));
            } else if flags.is_sealed() {
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
        page.verdict(verdict, opened.is_some());
    }
    page.text
}

/// The bytes with the payload opened, if it was sealed and opens; and what is wrong with them.
fn read(bytes: &[u8], secrets: &[Secret]) -> (Option<Vec<u8>>, Option<FrameError>) {
    let mut copy = bytes.to_vec();
    let (sealed, error) = match unseal(secrets, &mut copy) {
        Ok(frame) => (frame.header().flags.is_sealed(), frame.verify().err()),
        Err(error) => (false, Some(error)),
    };
    let tag_at = bytes.len().saturating_sub(TAG_LEN);
    copy[tag_at..].copy_from_slice(&bytes[tag_at..]);
    (sealed.then_some(copy), error)
}

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
                self.fields(&layout::ADVERT);
                let name = self.peek(self.at, self.count_at(counts));
                let words = format!("{:?}", String::from_utf8_lossy(name));
                self.raw(name.len(), "name", &words);
                self.list("peer", self.count_at(counts + 1), &layout::PEER);
            }
            Kind::STATUS => {
                self.fields(&layout::TARGET);
                self.fields(&layout::STATUS);
                self.list("missing", self.count_at(HEADER_LEN + 37), &layout::MISSING);
            }
            Kind::PULL if self.count_at(HEADER_LEN + PULL_WHAT_AT) == usize::from(PULL_MERGE) => {
                self.fields(&layout::TARGET);
                self.fields(&layout::MERGE_PULL);
            }
            Kind::PULL => {
                self.fields(&layout::TARGET);
                self.fields(&layout::PULL);
                self.list("buckets", self.count_at(HEADER_LEN + 17), &layout::BUCKETS);
            }
            Kind::DIGESTS_REQUEST => {
                self.fields(&layout::TARGET);
                self.fields(&layout::BUCKETS);
            }
            Kind::DIGESTS_ANSWER => {
                self.fields(&layout::TARGET);
                self.fields(&layout::DIGESTS);
                let first = number(self.peek(HEADER_LEN + 24, 2));
                self.digests(first, number(self.peek(HEADER_LEN + 32, 16)));
            }
            Kind::RECORDS => {
                self.fields(&layout::TARGET);
                self.fields(&layout::MERGE_RECORDS);
                self.records();
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
                (Ok(()), Record::Section(section)) => {
                    let key = String::from_utf8_lossy(section.key);
                    match section.fragment {
                        None => format!("delete of section {}: {key:?}", section.table),
                        Some(part) => {
                            let end = part.offset as usize + part.bytes.len();
                            let (offset, total) = (part.offset, part.total);
                            format!("section {}: {key:?}, bytes {offset} to {end} of {total}", section.table)
                        }
                    }
                }
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
        self.fields(&layout::RECORD);
        match *record {
            [kind::CONN4, operation, present, ..] => self.connection(&layout::CONN4, operation, present),
            [kind::CONN6, operation, present, ..] => self.connection(&layout::CONN6, operation, present),
            [kind::SECTION, operation @ (operation::UPSERT | operation::DELETE), ..] => self.section(operation),
            [kind::TABLE, operation::BUCKET_END, ..] => self.fields(&layout::BUCKET_END),
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
        self.fields(&layout::CONN);
        if operation == operation::UPSERT {
            self.fields(&layout::TIMEOUT);
        }
        for (bit, fields) in family.optional {
            if present & bit != 0 {
                self.fields(fields);
            }
        }
        if operation == operation::UPSERT && present & super::conn::present::ATTRIBUTES != 0 {
            self.attributes();
        }
    }

    /// Attributes to the end of the record: what is known field by field, the others as they are.
    fn attributes(&mut self) {
        while let &[kind, length, ..] = self.peek(self.at, 2) {
            let layout = layout::attribute(kind);
            self.title(&format!("attribute {kind}: {}", layout.name));
            self.fields(&layout::ATTRIBUTE);
            let data = self.peek(self.at, usize::from(length));
            let (end, text) = (self.at + data.len(), String::from_utf8_lossy(data));
            match layout.data(data) {
                layout::Data::Fields(fields) => self.fields(fields),
                layout::Data::Text => self.raw(data.len(), "text", &format!("{text:?}")),
                layout::Data::Bytes => self.raw(data.len(), "data", ""),
            }
            let padding = end.next_multiple_of(4) - end;
            self.raw(padding, "padding", "");
        }
    }

    fn section(&mut self, operation: u8) {
        self.fields(&layout::SECTION);
        let key_len = usize::try_from(number(self.peek(self.at - 2, 2))).unwrap_or(0);
        if operation == operation::UPSERT {
            self.fields(&layout::FRAGMENT);
        }
        let key = self.peek(self.at, key_len);
        let text = String::from_utf8_lossy(key);
        self.raw(key.len(), "key", &format!("{text:?}"));
        self.raw(key.len().next_multiple_of(4) - key.len(), "padding", "");
        self.rest("value");
    }

    fn digests(&mut self, first: u128, settled: u128) {
        for nth in 0..128 {
            let bytes = self.peek(self.at, 8);
            if bytes.len() < 8 {
                return;
            }
            let word = if settled >> nth & 1 == 1 { layout::hex(number(bytes)) } else { "not settled".to_owned() };
            self.raw(8, &format!("digest_{}", first + nth), &word);
        }
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
        let tag_at = self.tag_at();
        self.raw(tag_at - self.at, "sealed payload", "");
        self.rest("tag");
    }

    /// What was sealed, in a page of its own that ends where the tag begins.
    fn opened(&mut self, id: u8, kind: Kind) {
        let whole = self.bytes;
        self.bytes = &whole[..self.tag_at()];
        self.title(&format!("opened with secret {id}"));
        self.payload(kind);
        self.rest("surplus");
        self.bytes = whole;
        self.rest("tag");
    }

    fn tag_at(&self) -> usize {
        self.bytes.len().saturating_sub(TAG_LEN).max(self.at)
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

    fn verdict(&mut self, refused: Option<FrameError>, opened: bool) {
        let bytes = self.bytes;
        let verdict = match refused {
            None => "accepted".to_owned(),
            Some(reason) => format!("refused: {}: {reason}", reason.name()),
        };
        let _ = writeln!(self.text, "{verdict}");
        if opened {
            // What is shown is not what the checksum is of; and it was right.
            return;
        }
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
            describe(&[], &[]),
            "offset  bytes                     field                   value\n\
             refused: truncated: the frame is shorter than its header\n"
        );
    }

    #[test]
    fn a_field_that_is_cut_off_is_shown_as_far_as_it_goes() {
        let text = describe(&[1, 81, 0], &[]);
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
        let text = describe(&frame, &[]);
        assert_eq!(tail(&text, "40 ")[0], "    40  00 00 00 00               tag");
        assert!(text.ends_with(
            "refused: checksum: the checksum does not fit the bytes\nthe bytes' own checksum is 0xbfa4562c\n"
        ));
        frame[4] = 2;
        assert!(!describe(&frame, &[]).contains("own checksum"), "another version may keep its checksum elsewhere");
    }

    #[test]
    fn bits_without_a_name_are_told_all_the_same() {
        assert_eq!(layout::bits(0, &layout::PRESENT), "0x0");
        assert_eq!(layout::bits(0x29, &layout::PRESENT), "0x29 reply_source mark unnamed_20");
    }

    #[test]
    fn records_and_their_attributes_are_told_one_by_one() {
        let mut frame = [0; 40].to_vec();
        (frame[0], frame[4], frame[5]) = (3, 1, 2);
        frame.extend_from_slice(&[1, 1, 0x80, 7, 10, 0, 0, 1, 10, 0, 0, 2, 0, 1, 0, 2, 17, 0, 0, 8, 0, 0, 0, 30]);
        frame.extend_from_slice(&[9, 1, 7, 0]);
        frame.extend_from_slice(&[1, 2, 0, 5, 10, 0, 0, 1, 10, 0, 0, 2, 0, 1, 0, 2, 17, 0, 0, 0]);
        frame.extend_from_slice(&[77, 1, 0, 2, 1, 2, 3, 4, 1, 2]);
        let text = describe(&frame, &[]);
        let has = |line: &str| assert!(text.lines().any(|it| it == line), "{line:?} is not in\n{text}");
        has("                                  --                      record 1: upsert udp 10.0.0.1:1 -> 10.0.0.2:2");
        has("    60  00 00 00 1e               timeout                 30 s");
        has("                                  --                      attribute 9: expectations");
        has("    65  01                        length                  1 bytes");
        has("    66  07                        data");
        has("    67  00                        padding");
        has("                                  --                      record 2: delete udp 10.0.0.1:1 -> 10.0.0.2:2");
        has("    86  00 00                     status                  0x0");
        has("                                  --                      record 3: type 77, stepped over");
        has("    92  01 02 03 04               unknown");
        has("    96  01 02                     surplus");
        let timeouts = text.lines().filter(|line| line.contains("timeout")).count();
        assert_eq!(timeouts, 1, "a delete has none");
    }
}
