//! The layouts, as tables: what stands where, in how many bytes, and how it is told.
//!
//! Nothing here is shared with the decoder but the numbers of types, bits and kinds: a second reading of the protocol.

use crate::flow::{attribute, status};
use crate::wire::conn::present;
use crate::wire::record::{kind, operation};
use crate::wire::{AdvertFlags, CURSOR_END, Capabilities, Kind, SyncCode, WireRole};
use core::fmt::Write;
use core::net::{Ipv4Addr, Ipv6Addr};

/// One field of a layout: a number of up to 16 bytes.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) len: usize,
    pub(super) show: fn(u128) -> String,
}

pub(super) const fn field(name: &'static str, len: usize, show: fn(u128) -> String) -> Field {
    Field { name, len, show }
}

pub(super) const PREAMBLE: [Field; 6] = [
    field("count", 1, decimal),
    field("sync_id", 1, decimal),
    field("size", 2, decimal),
    field("version", 1, decimal),
    field("kind", 1, |value| format!("{value} {}", Kind(value as u8).name())),
    field("flags", 2, |value| bits(value, &[(1, "sealed"), (0x100, "key_1"), (0x200, "key_2")])),
];

pub(super) const HEADER: [Field; 5] = [
    field("checksum", 4, hex),
    field("node", 4, decimal),
    field("incarnation", 8, hex),
    field("seq", 8, decimal),
    field("term", 8, decimal),
];

pub(super) const RECORD: [Field; 4] = [
    field("type", 1, |value| match value as u8 {
        kind::TABLE => "0 table".into(),
        kind::CONN4 => "1 conn4".into(),
        kind::CONN6 => "2 conn6".into(),
        kind::SECTION => "16 section".into(),
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

pub(super) const PRESENT: [(u128, &str); 6] = [
    (present::REPLY_SOURCE as u128, "reply_source"),
    (present::REPLY_DESTINATION as u128, "reply_destination"),
    (present::TCP as u128, "tcp"),
    (present::MARK as u128, "mark"),
    (present::ZONE as u128, "zone"),
    (present::ATTRIBUTES as u128, "attributes"),
];

pub(super) const ADDRESSES4: [Field; 2] = [field("source", 4, address4), field("destination", 4, address4)];

pub(super) const ADDRESSES6: [Field; 2] = [field("source", 16, address6), field("destination", 16, address6)];

pub(super) const CONN: [Field; 5] = [
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

pub(super) const TIMEOUT: [Field; 1] = [field("timeout", 4, |value| format!("{value} s"))];

pub(super) const REPLY_SOURCE4: [Field; 3] =
    [field("reply_source", 4, address4), field("reply_source_port", 2, decimal), field("zero", 2, decimal)];

pub(super) const REPLY_SOURCE6: [Field; 3] =
    [field("reply_source", 16, address6), field("reply_source_port", 2, decimal), field("zero", 2, decimal)];

pub(super) const REPLY_DESTINATION4: [Field; 3] =
    [field("reply_destination", 4, address4), field("reply_destination_port", 2, decimal), field("zero", 2, decimal)];

pub(super) const REPLY_DESTINATION6: [Field; 3] =
    [field("reply_destination", 16, address6), field("reply_destination_port", 2, decimal), field("zero", 2, decimal)];

pub(super) const TCP: [Field; 4] = [
    field("window_scales", 1, |value| format!("{} original, {} reply", value >> 4, value & 15)),
    field("tcp_flags_original", 1, hex),
    field("tcp_flags_reply", 1, hex),
    field("zero", 1, decimal),
];

pub(super) const MARK: [Field; 1] = [field("mark", 4, hex)];

pub(super) const ZONE: [Field; 3] =
    [field("zone", 2, decimal), field("direction", 1, decimal), field("zero", 1, decimal)];

/// A connection's fields that are not of one length: its addresses, and under their bits the optional ones.
pub(super) struct Family {
    pub(super) addresses: &'static [Field],
    pub(super) optional: [(u8, &'static [Field]); 5],
}

pub(super) const CONN4: Family = Family {
    addresses: &ADDRESSES4,
    optional: [
        (present::REPLY_SOURCE, &REPLY_SOURCE4),
        (present::REPLY_DESTINATION, &REPLY_DESTINATION4),
        (present::TCP, &TCP),
        (present::MARK, &MARK),
        (present::ZONE, &ZONE),
    ],
};

pub(super) const CONN6: Family = Family {
    addresses: &ADDRESSES6,
    optional: [
        (present::REPLY_SOURCE, &REPLY_SOURCE6),
        (present::REPLY_DESTINATION, &REPLY_DESTINATION6),
        (present::TCP, &TCP),
        (present::MARK, &MARK),
        (present::ZONE, &ZONE),
    ],
};

/// Behind it the key.
pub(super) const SECTION: [Field; 2] = [field("table", 2, decimal), field("key_length", 2, decimal)];

/// Between key length and key of an upsert.
pub(super) const FRAGMENT: [Field; 4] = [
    field("expiry", 4, |value| if value == 0 { "never".into() } else { format!("{value} s") }),
    field("total", 4, decimal),
    field("offset", 4, decimal),
    field("back", 4, decimal),
];

pub(super) const ATTRIBUTE: [Field; 2] =
    [field("attribute", 1, decimal), field("length", 1, |value| format!("{value} bytes"))];

/// What the data of an attribute is.
pub(super) enum Data {
    /// These fields, and nothing else.
    Fields(&'static [Field]),
    /// Text.
    Text,
    /// Not known here, or not as long as it should be.
    Bytes,
}

/// One type of attribute.
pub(super) struct Attribute {
    pub(super) name: &'static str,
    /// By the length of the data; of none for what is not made of fields.
    fields: &'static [(usize, &'static [Field])],
}

impl Attribute {
    /// How to tell this data.
    pub(super) fn data(&self, data: &[u8]) -> Data {
        match self.fields.iter().find(|(len, _)| *len == data.len()) {
            Some((_, fields)) => Data::Fields(fields),
            None if self.name == "helper" => Data::Text,
            None => Data::Bytes,
        }
    }
}

/// What is known of a type of attribute.
pub(super) fn attribute(kind: u8) -> Attribute {
    let (name, fields): (_, &[(usize, &[Field])]) = match kind {
        attribute::SEQUENCE_ADJUSTMENT => ("sequence_adjustment", &[(24, &SEQUENCE_ADJUSTMENT)]),
        attribute::LABELS => ("labels", &[(16, &LABELS)]),
        attribute::HELPER => ("helper", &[]),
        attribute::IPVS => ("ipvs", &[]),
        attribute::MASTER => ("master", &[(16, &MASTER4), (40, &MASTER6)]),
        attribute::COUNTERS => ("counters", &[(32, &COUNTERS)]),
        attribute::SYNPROXY => ("synproxy", &[(12, &SYNPROXY)]),
        attribute::START => ("start", &[(8, &START)]),
        attribute::EXPECTATIONS => ("expectations", &[]),
        attribute::PROTOCOL => ("protocol", &[]),
        _ => ("unknown, kept", &[]),
    };
    Attribute { name, fields }
}

const SEQUENCE_ADJUSTMENT: [Field; 6] = [
    field("original_position", 4, decimal),
    field("original_before", 4, hex),
    field("original_after", 4, hex),
    field("reply_position", 4, decimal),
    field("reply_before", 4, hex),
    field("reply_after", 4, hex),
];

const LABELS: [Field; 1] = [field("labels", 16, hex)];

const MASTER4: [Field; 6] = [
    field("protocol", 1, decimal),
    field("zero", 3, decimal),
    field("source_port", 2, decimal),
    field("destination_port", 2, decimal),
    field("source", 4, address4),
    field("destination", 4, address4),
];

const MASTER6: [Field; 6] = [
    field("protocol", 1, decimal),
    field("zero", 3, decimal),
    field("source_port", 2, decimal),
    field("destination_port", 2, decimal),
    field("source", 16, address6),
    field("destination", 16, address6),
];

const COUNTERS: [Field; 4] = [
    field("packets_original", 8, decimal),
    field("bytes_original", 8, decimal),
    field("packets_reply", 8, decimal),
    field("bytes_reply", 8, decimal),
];

const SYNPROXY: [Field; 3] = [field("isn", 4, hex), field("its", 4, hex), field("timestamp_offset", 4, hex)];

const START: [Field; 1] = [field("start", 8, |value| format!("{value} ns since 1970"))];

pub(super) const BUCKET_END: [Field; 3] =
    [field("bucket", 2, decimal), field("zero", 2, decimal), field("since", 8, decimal)];

pub(super) const ADVERT: [Field; 20] = [
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
            (AdvertFlags::PROVEN, "proven"),
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
    field("capabilities", 4, |value| {
        let text = bits(value & 0xffff, &Capabilities::NAMES.map(|(bit, name)| (u128::from(bit.0), name)));
        match value >> 16 {
            0 => text,
            check => format!("{text} secrets_check_{check:04x}"),
        }
    }),
    field("kernel_capacity", 4, decimal),
    field("kernel_buckets", 4, decimal),
    field("name_length", 1, decimal),
    field("peer_count", 1, decimal),
    field("zero", 2, decimal),
];

pub(super) const PEER: [Field; 5] = [
    field("node", 4, decimal),
    field("credit", 4, decimal),
    field("incarnation", 8, hex),
    field("heard", 8, decimal),
    field("frontier", 8, decimal),
];

pub(super) const TARGET: [Field; 3] =
    [field("target_node", 4, decimal), field("zero", 4, decimal), field("target_incarnation", 8, hex)];

pub(super) const STATUS: [Field; 6] = [
    field("frontier", 8, decimal),
    field("base", 8, decimal),
    field("credit", 4, decimal),
    field("state", 1, |value| format!("{value} {}", SyncCode(value as u8).name())),
    field("range_count", 1, decimal),
    field("zero", 2, decimal),
];

pub(super) const MISSING: [Field; 2] = [field("first", 8, decimal), field("length", 4, decimal)];

pub(super) const PULL: [Field; 3] = [
    field("what", 1, |value| if value == 1 { "1 buckets".into() } else { format!("{value} unknown") }),
    field("range_count", 1, decimal),
    field("zero", 2, decimal),
];

pub(super) const MERGE_PULL: [Field; 6] = [
    field("what", 1, |_| "2 merge".into()),
    field("zero", 3, decimal),
    field("stream_node", 4, decimal),
    field("stream_incarnation", 8, hex),
    field("after", 8, decimal),
    field("cursor", 8, |value| if value == CURSOR_END.into() { "done".into() } else { hex(value) }),
];

pub(super) const MERGE_RECORDS: [Field; 2] = [
    field("cursor", 8, hex),
    field("next", 8, |value| if value == CURSOR_END.into() { "that was all".into() } else { hex(value) }),
];

/// Behind it the digests, one of 8 bytes for each bucket.
pub(super) const DIGESTS: [Field; 5] = [
    field("cut", 8, decimal),
    field("first", 2, decimal),
    field("count", 2, decimal),
    field("zero", 4, decimal),
    field("settled", 16, hex),
];

pub(super) const BUCKETS: [Field; 2] = [field("first", 2, decimal), field("count", 2, decimal)];

pub(super) fn number(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0, |number, byte| number << 8 | u128::from(*byte))
}

pub(super) fn decimal(value: u128) -> String {
    value.to_string()
}

pub(super) fn hex(value: u128) -> String {
    format!("0x{value:x}")
}

pub(super) fn address4(value: u128) -> String {
    Ipv4Addr::from_bits(value as u32).to_string()
}

pub(super) fn address6(value: u128) -> String {
    Ipv6Addr::from_bits(value).to_string()
}

/// The number and the names of its bits; bits without a name are told as a number of their own.
pub(super) fn bits(value: u128, names: &[(u128, &str)]) -> String {
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
