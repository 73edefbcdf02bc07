//! A flow in bytes: the canonical encoding that the digest covers [4.4.2], and the form in which a slot keeps it.
//!
//! The encoding is protocol. Two nodes, whatever their versions, must make the same bytes of the same flow, or their
//! tables will look unequal for ever. All integers are big-endian; what is absent is zero.
//!
//! ```text
//!             IPv4  IPv6                                      IPv4  IPv6
//! source         4    16 ┐                reply source           4    16 ┐
//! destination    4    16 │                its port               2     2 │ ends
//! its port       2     2 │                reply destin. port     2     2 │
//! its port       2     2 │ key            its address            4    16 ┘
//! protocol       1     1 │                state                  1     1 ┐
//! zone direction 1     1 │                present                1     1 │ bits: reply source, destination, TCP
//! zone number    2     2 ┘                status                 2     2 │
//!               16    40                  window scales        1+1   1+1 │ tail
//!                                         flags                1+1   1+1 │
//!                                         mark                   4     4 ┘
//!                                                               40    88, then the attributes but for counters
//! ```
//!
//! The slot's 40 bytes are the encoding itself, for an IPv4 flow without attributes. Of any other flow they are these, and
//! the rest stands in the annex: the key of IPv6, the ends if one of them is there, all attributes.
//!
//! ```text
//! IPv4   0 key 16                                       │ 16 extent: head 4, length 2 │ 22 zero 6 │ 28 tail 12, its
//! IPv6   0 hash of the key 8 │ 8 zero 5 │ 13: 255 │ 0 2 │                                         │ present has bit 7
//! ```

use super::annex::Extent;
use super::digest::hash_key;
use crate::flow::{
    AttributeIter, Attributes, Endpoint, Flow, FlowKey, KeyBytes, PLAIN_KEY_LEN, PlainFlow, TcpInfo, Zone, attribute,
};
use core::net::IpAddr;

const REPLY_SOURCE: u8 = PlainFlow::REPLY_SOURCE;
const REPLY_DESTINATION: u8 = PlainFlow::REPLY_DESTINATION;
const TCP: u8 = PlainFlow::TCP;
/// In the slot only: not all is here, the rest stands in the annex.
const ANNEXED: u8 = 1 << 7;

/// In the slot only, in place of a zone's direction: the key is of IPv6. No direction has this number, so that the key
/// of an IPv4 flow is never taken for the hash of another.
const WIDE: u8 = 255;

const KEY_V4: usize = PLAIN_KEY_LEN;
const KEY_V6: usize = 40;
const ENDS_V4: usize = 12;
const ENDS_V6: usize = 36;
const TAIL: usize = 12;
const DIRECTION_AT: usize = 13;
const PRESENT_AT: usize = 29;

/// Most bytes that a flow has in the annex.
pub(super) const ANNEXED_MAX: usize = KEY_V6 + ENDS_V6 + Attributes::LEN_MAX;

/// Most bytes of an encoding.
const ENCODING_MAX: usize = ANNEXED_MAX + TAIL;

/// Where an annexed value is put together, if need be.
pub(super) type Scratch = Option<[u8; ANNEXED_MAX]>;

/// What names a flow, as bytes, and their hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Key {
    /// Its place in the table, and its bucket.
    pub(super) hash: u64,
    pub(super) bytes: KeyBytes,
}

impl Key {
    /// The key with these bytes.
    #[inline]
    pub(super) fn new(bytes: KeyBytes, seed: u64) -> Self {
        let hash = match &bytes {
            KeyBytes::V4(bytes) => hash_key(seed, bytes),
            KeyBytes::V6(bytes) => hash_key(seed, bytes),
        };
        Key { hash, bytes }
    }

    /// `None` if its addresses are of two families, or its zone has no direction that exists: what the wire cannot say
    /// must not stand in the queue for it.
    pub(super) fn pack(key: &FlowKey, seed: u64) -> Option<Self> {
        KeyBytes::of(key).map(|bytes| Key::new(bytes, seed))
    }
}

/// What a slot keeps of a flow, without its time-out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub(super) struct Record([u8; 40]);

impl Default for Record {
    fn default() -> Self {
        Record([0; 40])
    }
}

impl Record {
    /// A record of which nothing is known but the key. That of IPv6 has its key in the annex.
    pub(super) fn of_key(key: &Key) -> Self {
        let mut record = Record::default();
        match &key.bytes {
            KeyBytes::V4(bytes) => record.0[..KEY_V4].copy_from_slice(bytes),
            KeyBytes::V6(_) => {
                record.set_hash(key.hash);
                record.0[DIRECTION_AT] = WIDE;
                record.0[PRESENT_AT] = ANNEXED;
            }
        }
        record
    }

    /// The whole encoding, if nothing of it stands in the annex.
    pub(super) fn plain(&self) -> Option<&[u8; 40]> {
        (self.0[PRESENT_AT] & ANNEXED == 0).then_some(&self.0)
    }

    /// What stands in the annex.
    pub(super) fn extent(&self) -> Extent {
        if self.plain().is_some() {
            return Extent::NONE;
        }
        let head = u32::from_be_bytes([self.0[16], self.0[17], self.0[18], self.0[19]]);
        Extent { head, len: u16::from_be_bytes([self.0[20], self.0[21]]) }
    }

    /// This record, with its other part in the annex there.
    pub(super) fn with_extent(mut self, extent: Extent) -> Self {
        self.0[16..20].copy_from_slice(&extent.head.to_be_bytes());
        self.0[20..22].copy_from_slice(&extent.len.to_be_bytes());
        self
    }

    /// The hash of its key, if that is of IPv6; it holds for the seed that the table has.
    pub(super) fn hash(&self) -> Option<u64> {
        let hash = self.0.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
        hash.filter(|_| self.is_wide())
    }

    /// The table has another seed.
    pub(super) fn set_hash(&mut self, hash: u64) {
        self.0[..8].copy_from_slice(&hash.to_be_bytes());
    }

    /// Whether its key is of IPv6.
    pub(super) fn is_wide(&self) -> bool {
        self.0[DIRECTION_AT] == WIDE
    }

    /// The key's bytes of an IPv4 flow; of no key's bytes if it is of IPv6.
    pub(super) fn narrow_key(&self) -> &[u8; KEY_V4] {
        self.0.first_chunk().expect("a record is longer than its key")
    }

    /// What is left of it when it dies, and how many bytes of the annex that needs: of IPv4 all that a slot has room for,
    /// because a classic master says it once more; of IPv6 the key.
    pub(super) fn dead(&self, annexed: &[u8]) -> (Record, u16) {
        let View { ends, tail, .. } = self.view(annexed);
        let mut dead = *self;
        dead.0[KEY_V4..].fill(0);
        if self.is_wide() {
            dead.0[PRESENT_AT] = ANNEXED;
            return (dead, KEY_V6 as u16);
        }
        dead.0[KEY_V4..KEY_V4 + ends.len()].copy_from_slice(ends);
        dead.0[KEY_V4 + ENDS_V4..].copy_from_slice(&tail);
        (dead, 0)
    }

    /// All of it, with what stands in the annex.
    pub(super) fn view<'a>(&'a self, annexed: &'a [u8]) -> View<'a> {
        let tail = self.tail();
        let (key, rest) = if self.is_wide() { annexed.split_at(KEY_V6) } else { (&self.0[..KEY_V4], annexed) };
        let ends = ends_len(self.is_wide(), tail[1]);
        let (ends, attributes) = match self.plain() {
            Some(plain) => (&plain[KEY_V4..KEY_V4 + ends], &[][..]),
            None => rest.split_at(ends),
        };
        View { key, ends, tail, attributes }
    }

    /// State to mark, as the encoding has them.
    fn tail(&self) -> [u8; TAIL] {
        let mut tail = *self.0.last_chunk().expect("a record is longer than its tail");
        tail[1] &= !ANNEXED;
        tail
    }
}

/// Bytes of the ends, where one is there.
fn ends_len(is_wide: bool, present: u8) -> usize {
    match (present & (REPLY_SOURCE | REPLY_DESTINATION), is_wide) {
        (0, _) => 0,
        (_, false) => ENDS_V4,
        (_, true) => ENDS_V6,
    }
}

/// A flow in its canonical form, as somebody says it: what goes into a slot, and what into the annex.
pub(super) struct Packed<'a> {
    pub(super) key: Key,
    /// Its extent is still to be set.
    pub(super) record: Record,
    ends: [u8; ENDS_V6],
    attributes: &'a [u8],
}

impl<'a> Packed<'a> {
    /// Packs a flow; `None` if anything in it has no form on this wire.
    pub(super) fn new(flow: &'a Flow, seed: u64) -> Option<Self> {
        let attributes = flow.attributes.as_bytes();
        let flow = Flow {
            key: flow.key,
            reply_source: flow.reply_source,
            reply_destination: flow.reply_destination,
            state: flow.state,
            status: flow.status,
            timeout: 0,
            tcp: flow.tcp,
            mark: flow.mark,
            attributes: Attributes::NONE,
        }
        .canonical();
        let key = Key::pack(&flow.key, seed)?;
        let mut packed = Packed { key, record: Record::of_key(&key), ends: [0; ENDS_V6], attributes };
        let is_wide = packed.record.is_wide();
        put_ends(&mut packed.ends, is_wide, &flow)?;
        let bytes = &mut packed.record.0;
        bytes[28] = flow.state;
        bytes[PRESENT_AT] |= if flow.reply_source.is_some() { REPLY_SOURCE } else { 0 };
        bytes[PRESENT_AT] |= if flow.reply_destination.is_some() { REPLY_DESTINATION } else { 0 };
        bytes[30..32].copy_from_slice(&flow.status.to_be_bytes());
        if let Some(tcp) = flow.tcp {
            bytes[PRESENT_AT] |= TCP;
            bytes[32] = tcp.window_scale_original;
            bytes[33] = tcp.window_scale_reply;
            bytes[34] = tcp.flags_original;
            bytes[35] = tcp.flags_reply;
        }
        bytes[36..40].copy_from_slice(&flow.mark.to_be_bytes());
        if !attributes.is_empty() {
            bytes[PRESENT_AT] |= ANNEXED;
        } else if !is_wide {
            bytes[KEY_V4..KEY_V4 + ENDS_V4].copy_from_slice(&packed.ends[..ENDS_V4]);
        }
        Some(packed)
    }

    /// What is packed already.
    #[inline]
    pub(super) fn of_plain(plain: &PlainFlow, hash: u64) -> Self {
        let record = Record(plain.encoding);
        let mut ends = [0; ENDS_V6];
        ends[..ENDS_V4].copy_from_slice(&plain.encoding[KEY_V4..KEY_V4 + ENDS_V4]);
        Packed { key: Key { hash, bytes: KeyBytes::V4(*record.narrow_key()) }, record, ends, attributes: &[] }
    }

    /// What goes into the annex: the key of IPv6, the ends if there are any, attributes.
    pub(super) fn annexed(&self) -> [&[u8]; 3] {
        if self.record.plain().is_some() {
            return [&[]; 3];
        }
        let View { key, ends, attributes, .. } = self.view();
        [if self.record.is_wide() { key } else { &[] }, ends, attributes]
    }

    /// All of it.
    pub(super) fn view(&self) -> View<'_> {
        let key: &[u8] = match &self.key.bytes {
            KeyBytes::V4(bytes) => bytes,
            KeyBytes::V6(bytes) => bytes,
        };
        let tail = self.record.tail();
        View { key, ends: &self.ends[..ends_len(self.record.is_wide(), tail[1])], tail, attributes: self.attributes }
    }
}

/// Writes what is there of the reply direction's ends; `None` if one is of another family.
fn put_ends(ends: &mut [u8; ENDS_V6], is_wide: bool, flow: &Flow) -> Option<()> {
    let address_len = if is_wide { 16 } else { 4 };
    if let Some(source) = flow.reply_source {
        put_address(&mut ends[..address_len], source.address)?;
        ends[address_len..address_len + 2].copy_from_slice(&source.port.to_be_bytes());
    }
    if let Some(destination) = flow.reply_destination {
        ends[address_len + 2..address_len + 4].copy_from_slice(&destination.port.to_be_bytes());
        put_address(&mut ends[address_len + 4..2 * address_len + 4], destination.address)?;
    }
    Some(())
}

fn put_address(bytes: &mut [u8], address: IpAddr) -> Option<()> {
    match (address, bytes.len()) {
        (IpAddr::V4(address), 4) => bytes.copy_from_slice(&address.octets()),
        (IpAddr::V6(address), 16) => bytes.copy_from_slice(&address.octets()),
        _ => return None,
    }
    Some(())
}

/// The parts of a flow's encoding, wherever they stand.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    key: &'a [u8],
    /// May be empty if neither is there.
    ends: &'a [u8],
    tail: [u8; TAIL],
    attributes: &'a [u8],
}

impl<'a> View<'a> {
    /// The key.
    pub(super) fn key(&self) -> FlowKey {
        let (addresses, rest) = self.key.split_at(self.key.len() - 8);
        let (source, destination) = addresses.split_at(addresses.len() / 2);
        FlowKey {
            source: address(source),
            destination: address(destination),
            source_port: short(rest, 0),
            destination_port: short(rest, 2),
            protocol: rest[4],
            zone: Zone { id: short(rest, 6), direction: rest[5] },
        }
    }

    /// The flow, with `timeout` seconds to live. Allocates if it has attributes.
    pub(super) fn flow(&self, timeout: u32) -> Flow {
        let present = |bit: u8| self.tail[1] & bit != 0;
        let middle = self.ends.len() / 2;
        Flow {
            key: self.key(),
            reply_source: present(REPLY_SOURCE)
                .then(|| Endpoint { address: address(&self.ends[..middle - 2]), port: short(self.ends, middle - 2) }),
            reply_destination: present(REPLY_DESTINATION)
                .then(|| Endpoint { address: address(&self.ends[middle + 2..]), port: short(self.ends, middle) }),
            state: self.tail[0],
            status: short(&self.tail, 2),
            timeout,
            tcp: present(TCP).then(|| TcpInfo {
                window_scale_original: self.tail[4],
                window_scale_reply: self.tail[5],
                flags_original: self.tail[6],
                flags_reply: self.tail[7],
            }),
            mark: u32::from_be_bytes([self.tail[8], self.tail[9], self.tail[10], self.tail[11]]),
            // They were checked when the flow that had them was made.
            attributes: Attributes::from_wire(self.attributes).unwrap_or_default(),
        }
    }

    /// Type and data of each attribute.
    pub(super) fn attributes(&self) -> AttributeIter<'_> {
        AttributeIter::new(self.attributes)
    }

    /// Whether two flows of one key have the same value; counters are none of it.
    pub(super) fn same_value(&self, other: &View<'_>) -> bool {
        self.tail == other.tail
            && self.ends == other.ends
            && around_counters(self.attributes) == around_counters(other.attributes)
    }

    /// Hands out the canonical encoding [4.4.2].
    pub(super) fn encode<T>(&self, use_it: impl FnOnce(&[u8]) -> T) -> T {
        let mut bytes = [0; ENCODING_MAX];
        let mut len = 0;
        let mut put = |piece: &[u8], whole: usize| {
            bytes[len..len + piece.len()].copy_from_slice(piece);
            len += whole;
        };
        put(self.key, self.key.len());
        put(self.ends, if self.key.len() == KEY_V4 { ENDS_V4 } else { ENDS_V6 });
        put(&self.tail, TAIL);
        for piece in around_counters(self.attributes) {
            put(piece, piece.len());
        }
        use_it(&bytes[..len])
    }
}

fn address(bytes: &[u8]) -> IpAddr {
    match <[u8; 16]>::try_from(bytes) {
        Ok(wide) => IpAddr::from(wide),
        Err(_) => IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]),
    }
}

fn short(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The attributes before and behind the counters.
fn around_counters(attributes: &[u8]) -> [&[u8]; 2] {
    let mut at = 0;
    while let Some(&[kind, length]) = attributes.get(at..at + 2) {
        let end = at + (2 + usize::from(length)).next_multiple_of(4);
        match kind {
            attribute::COUNTERS => return [&attributes[..at], attributes.get(end..).unwrap_or_default()],
            kind if kind > attribute::COUNTERS => break,
            _ => at = end,
        }
    }
    [attributes.get(..at).unwrap_or(attributes), attributes.get(at..).unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv6Addr;

    fn endpoint(address: [u8; 4], port: u16) -> Endpoint {
        Endpoint { address: IpAddr::from(address), port }
    }

    fn full() -> Flow {
        Flow {
            key: FlowKey {
                source: IpAddr::from([10, 0, 0, 1]),
                destination: IpAddr::from([192, 0, 2, 10]),
                source_port: 40000,
                destination_port: 80,
                protocol: 6,
                zone: Zone { id: 0x0102, direction: 2 },
            },
            reply_source: Some(endpoint([10, 9, 8, 7], 8080)),
            reply_destination: Some(endpoint([203, 0, 113, 5], 61000)),
            state: 3,
            status: 0x018e,
            timeout: 432_000,
            tcp: Some(TcpInfo {
                window_scale_original: 7,
                window_scale_reply: 9,
                flags_original: 0x23,
                flags_reply: 0x22,
            }),
            mark: 0xdead_beef,
            attributes: Attributes::NONE,
        }
    }

    fn encoding(flow: &Flow) -> Vec<u8> {
        Packed::new(flow, 7).expect("has a form").view().encode(<[u8]>::to_vec)
    }

    /// The flow as it comes back from a slot and the annex.
    fn kept(flow: &Flow) -> Flow {
        let packed = Packed::new(flow, 7).expect("has a form");
        let annexed = packed.annexed().concat();
        let back = packed.record.with_extent(Extent { head: 9, len: annexed.len() as u16 });
        let record = if packed.record.plain().is_some() { packed.record } else { back };
        assert!(record.view(&annexed).same_value(&packed.view()));
        record.view(&annexed).flow(flow.timeout)
    }

    /// [`full`] in IPv6, at the far end of what is not NAT.
    fn wide() -> Flow {
        let address = |last| IpAddr::from([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        let key = FlowKey { source: address(1), destination: address(2), ..full().key };
        Flow {
            key,
            reply_source: Some(Endpoint { address: address(0xaa), port: 8080 }),
            reply_destination: Some(Endpoint { address: address(0xbb), port: 61000 }),
            ..full()
        }
    }

    const FULL: [u8; 40] = [
        10, 0, 0, 1, 192, 0, 2, 10, 0x9c, 0x40, 0, 80, 6, 2, 1, 2, // key
        10, 9, 8, 7, 0x1f, 0x90, 0xee, 0x48, 203, 0, 113, 5, // reply side
        3, 7, 0x01, 0x8e, 7, 9, 0x23, 0x22, 0xde, 0xad, 0xbe, 0xef,
    ];

    /// [4.4.2] The encoding is protocol: these bytes never change.
    #[test]
    fn the_canonical_encoding_is_these_forty_bytes() {
        assert_eq!(encoding(&full()), FULL);
        assert_eq!(kept(&full()), full());
        let flow = full();
        let packed = Packed::new(&flow, 7).expect("IPv4");
        assert_eq!(packed.record.plain(), Some(&FULL), "the slot keeps the encoding itself");
        assert_eq!(packed.record.narrow_key(), &FULL[..16]);
        assert!(packed.annexed().concat().is_empty());
    }

    #[rustfmt::skip]
    const WIDE_FULL: [u8; 88] = [
        0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, // source
        0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, // destination
        0x9c, 0x40, 0, 80, 6, 2, 1, 2, // the rest of the key
        0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xaa, 0x1f, 0x90, // reply source
        0xee, 0x48, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xbb, // reply destination
        3, 7, 0x01, 0x8e, 7, 9, 0x23, 0x22, 0xde, 0xad, 0xbe, 0xef,
    ];

    /// [4.4.2]
    #[test]
    fn the_canonical_encoding_of_ipv6_has_the_same_fields_with_wider_addresses() {
        assert_eq!(encoding(&wide()), WIDE_FULL);
        assert_eq!(kept(&wide()), wide());
        let plain = Flow { reply_source: None, reply_destination: None, ..wide() };
        let mut bytes = WIDE_FULL;
        bytes[40..76].fill(0);
        bytes[77] = 4;
        assert_eq!(encoding(&plain), bytes);
        assert_eq!(kept(&plain), plain);
        assert_eq!(Packed::new(&plain, 7).expect("IPv6").annexed().concat(), WIDE_FULL[..40], "only the key");
    }

    /// [4.4.2] Attributes follow in wire form, those too that nobody here knows; counters do not.
    #[test]
    fn attributes_are_encoded_as_they_travel_but_for_counters() {
        let mut attributes = Attributes::NONE;
        for (kind, data) in [(attribute::HELPER, &b"ftp"[..]), (attribute::COUNTERS, &[1; 32]), (200, &[8, 9, 10])] {
            attributes.set(kind, data).expect("fits");
        }
        let tail = [3, 3, b'f', b't', b'p', 0, 0, 0, 200, 3, 8, 9, 10, 0, 0, 0];
        for (flow, fixed) in [(full(), &FULL[..]), (wide(), &WIDE_FULL[..])] {
            let flow = Flow { attributes: attributes.clone(), ..flow };
            assert_eq!(encoding(&flow), [fixed, &tail].concat());
            assert_eq!(kept(&flow), flow, "the counters are kept");
        }
        let bare = Flow { reply_source: None, reply_destination: None, attributes, ..full() };
        assert_eq!(kept(&bare), bare);
        assert_eq!(Packed::new(&bare, 7).expect("IPv4").annexed().concat().len(), 52, "attributes and nothing else");
    }

    /// Only counters, or none: one value. Any other attribute: another.
    #[test]
    fn counters_alone_are_no_value() {
        let with = |kinds: &[u8]| {
            let mut attributes = Attributes::NONE;
            kinds.iter().for_each(|kind| attributes.set(*kind, &[*kind; 8]).expect("fits"));
            Flow { attributes, ..full() }
        };
        let same = |a: &[u8], b: &[u8]| {
            let (a, b) = (with(a), with(b));
            Packed::new(&a, 7).expect("IPv4").view().same_value(&Packed::new(&b, 7).expect("IPv4").view())
        };
        for (a, b) in [(&[6][..], &[][..]), (&[2, 6, 9], &[2, 9]), (&[6, 9], &[9]), (&[2, 6], &[2])] {
            assert!(same(a, b) && same(b, a), "{a:?} {b:?}");
            assert_eq!(encoding(&with(a)), encoding(&with(b)), "{a:?} {b:?}");
        }
        for (a, b) in [(&[2][..], &[][..]), (&[2, 9], &[2]), (&[5, 6], &[6, 7]), (&[6], &[7])] {
            assert!(!same(a, b) && !same(b, a), "{a:?} {b:?}");
        }
    }

    /// Where the reply comes from, or goes to, is value; also where it stands in the annex.
    #[test]
    fn other_ends_are_another_value() {
        let mut attributes = Attributes::NONE;
        attributes.set(9, &[1]).expect("fits");
        for flow in [full(), wide(), Flow { attributes, ..full() }] {
            let moved = |end: Option<Endpoint>| end.map(|end| Endpoint { port: end.port + 1, ..end });
            let source = Flow { reply_source: moved(flow.reply_source), ..flow.clone() };
            let destination = Flow { reply_destination: moved(flow.reply_destination), ..flow.clone() };
            let [flow, source, destination] =
                [&flow, &source, &destination].map(|flow| Packed::new(flow, 7).expect("has a form"));
            assert!(flow.view().same_value(&flow.view()));
            assert!(!flow.view().same_value(&source.view()) && !flow.view().same_value(&destination.view()));
        }
    }

    /// Of IPv4 all but the attributes, whether or not there was a reply side; of IPv6 the key. What an IPv6 key keeps in its
    /// slot is the key of no IPv4 flow, whatever its hash.
    #[test]
    fn a_dead_record_needs_no_more_of_the_annex_than_a_key() {
        let bare = Flow { reply_source: None, reply_destination: None, ..full() };
        for (flow, needed) in [(full(), 0), (bare, 0), (wide(), 40)] {
            let mut attributes = Attributes::NONE;
            attributes.set(9, &[1; 50]).expect("fits");
            let attributed = Flow { attributes, ..flow.clone() };
            let packed = Packed::new(&attributed, 7).expect("has a form");
            let record = packed.record.with_extent(Extent { head: 9, len: 99 });
            let (dead, left) = record.dead(&packed.annexed().concat());
            let plain = Packed::new(&flow, 7).expect("has a form");
            let expected = if needed == 0 { plain.record } else { Record::of_key(&packed.key) };
            assert_eq!((dead, left, dead.extent().len), (expected, needed, 0));
            assert_eq!(dead.hash(), (needed == 40).then_some(packed.key.hash));
            assert_eq!(dead.narrow_key()[13], if needed == 40 { 255 } else { 2 });
        }
    }

    #[test]
    fn what_a_canonical_flow_leaves_out_takes_no_part() {
        let plain = Flow { status: 0x000e, state: 3, timeout: 9, ..Flow::new(full().key) };
        let mut bytes = [0; 40];
        bytes[..16].copy_from_slice(&FULL[..16]);
        bytes[28] = 3;
        bytes[31] = 0x0e;
        let spelled_out = Flow {
            reply_source: Some(endpoint([192, 0, 2, 10], 80)),
            reply_destination: Some(endpoint([10, 0, 0, 1], 40000)),
            tcp: Some(TcpInfo::default()),
            ..plain.clone()
        };
        assert_eq!(encoding(&plain), bytes);
        assert_eq!(encoding(&spelled_out), bytes);
        assert_eq!(kept(&spelled_out), plain);
    }

    /// A port that differs, or an address that differs, is NAT; zero is an address and a port like any other.
    #[test]
    fn half_a_difference_is_a_difference() {
        let key = full().key;
        for (source, destination) in [
            (endpoint([192, 0, 2, 10], 81), endpoint([10, 0, 0, 1], 40001)),
            (endpoint([192, 0, 2, 11], 80), endpoint([10, 0, 0, 2], 40000)),
            (endpoint([0, 0, 0, 0], 0), endpoint([0, 0, 0, 0], 0)),
        ] {
            let flow = Flow { reply_source: Some(source), reply_destination: Some(destination), ..Flow::new(key) };
            assert_eq!(kept(&flow), flow);
            assert_eq!(encoding(&flow)[29], 0b011);
        }
    }

    /// The wire has four bits for a scale: a wider one would make the peers' digests differ for ever.
    #[test]
    fn a_window_scale_is_kept_as_wide_as_the_wire_carries_it() {
        let tcp = TcpInfo { window_scale_original: 16, window_scale_reply: 255, ..TcpInfo::default() };
        assert_eq!(encoding(&Flow { tcp: Some(tcp), ..full() })[32..34], [15, 15]);
    }

    #[test]
    fn what_the_wire_cannot_say_is_not_packed() {
        let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
        let other = |address| Some(Endpoint { address, port: 80 });
        let (key, wide_key) = (full().key, wide().key);
        let odd = Zone { id: 1, direction: 3 };
        for wrong in [
            Flow { key: FlowKey { source: v6, ..key }, ..full() },
            Flow { key: FlowKey { destination: v6, ..key }, ..full() },
            Flow { key: FlowKey { zone: odd, ..key }, ..full() },
            Flow { key: FlowKey { zone: odd, ..wide_key }, ..wide() },
            Flow { reply_source: other(v6), ..full() },
            Flow { reply_destination: other(v6), ..full() },
            Flow { reply_source: other(key.source), ..wide() },
            Flow { reply_destination: other(key.source), ..wide() },
        ] {
            assert!(Packed::new(&wrong, 7).is_none(), "{wrong:?}");
        }
    }
}
