//! Connections on the wire: CONN4 and CONN6, one layout with addresses of 4 or 16 bytes.
//!
//! ```text
//!                          CONN4 (1)   CONN6 (2)
//!   header                     0           0    type, operation, present, words
//!   source                     4           4
//!   destination                8          20
//!   ports                     12          36    2 + 2; ICMP: identifier, type<<8|code
//!   protocol, state, status   16          40    u8, u8, u16                           a delete ends here:
//!   timeout                   20          44    u32, seconds remaining                state and status are zero,
//!   plain upsert              24          48                                          the zone may follow
//!   then, in this order, what `present` names:
//!     bit 0 reply source       8          20    address, port u16, zero u16   (DNAT)
//!     bit 1 reply destination  8          20    address, port u16, zero u16   (SNAT)
//!     bit 2 TCP                4           4    window scales u8 (original<<4|reply), flags u8 u8, zero u8
//!     bit 3 mark               4           4    u32
//!     bit 4 zone               4           4    id u16, direction u8, zero u8
//!     bit 7 attributes     to the end           type u8, length u8, data, zeros to a multiple of 4
//!   everything but these      52         100    and so LEN_MAX (920) bytes of attributes always have room
//! ```
//!
//! Which family a record is of is asked once, at its first byte; behind that the code is the same, compiled twice.

use super::FrameError;
use super::record::{RecordHeader, operation};
use crate::flow::{Attributes, Endpoint, Flow, FlowKey, KeyBytes, PlainFlow, TcpInfo, Zone, check_attributes};
use core::fmt::Debug;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use zerocopy::byteorder::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Longest record in bytes: its length is a byte that counts words of four.
pub(super) const RECORD_LEN_MAX: usize = 4 * 255;

/// Bits of `present`.
pub(super) mod present {
    /// The reply comes from elsewhere than the original packet went to.
    pub(in crate::wire) const REPLY_SOURCE: u8 = 1 << 0;
    /// The reply goes elsewhere than the original packet came from.
    pub(in crate::wire) const REPLY_DESTINATION: u8 = 1 << 1;
    /// TCP window scales and flags.
    pub(in crate::wire) const TCP: u8 = 1 << 2;
    /// Mark.
    pub(in crate::wire) const MARK: u8 = 1 << 3;
    /// Zone.
    pub(in crate::wire) const ZONE: u8 = 1 << 4;
    /// Attributes.
    pub(in crate::wire) const ATTRIBUTES: u8 = 1 << 7;
    /// All that an upsert may have.
    pub(in crate::wire) const ALL: u8 = REPLY_SOURCE | REPLY_DESTINATION | TCP | MARK | ZONE | ATTRIBUTES;
}

/// A connection of either family, or the key of one, borrowed from a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Conn<'a> {
    head: AnyHead<'a>,
    /// Upsert: the optional fields that `present` names, from behind the time-out on. Delete: the zone.
    optional: &'a [u8],
    /// Seconds; 0 in a delete.
    timeout: u32,
}

/// The part that upserts and deletes share, of the family that the record's type says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum AnyHead<'a> {
    V4(&'a Head<[u8; 4]>),
    V6(&'a Head<[u8; 16]>),
}

impl<'a> Conn<'a> {
    /// What names the connection.
    #[inline]
    pub fn key(&self) -> FlowKey {
        match self.head {
            AnyHead::V4(head) => self.key_from(head),
            AnyHead::V6(head) => self.key_from(head),
        }
    }

    /// Key and value, in the one form that table and digest know.
    #[inline]
    pub fn flow(&self) -> Flow {
        match self.head {
            AnyHead::V4(head) => self.flow_from(head),
            AnyHead::V6(head) => self.flow_from(head),
        }
    }

    /// The key, in the form that table and digest know.
    #[inline]
    pub fn key_bytes(&self) -> KeyBytes {
        match self.head {
            AnyHead::V4(head) => KeyBytes::V4(self.key_bytes_from(head)),
            AnyHead::V6(head) => KeyBytes::V6(self.key_bytes_from(head)),
        }
    }

    #[inline]
    fn key_bytes_from<A: Address, const N: usize>(&self, head: &Head<A>) -> [u8; N] {
        let mut key = [0; N];
        // Addresses and ports have the same order here and there.
        key[..N - 4].copy_from_slice(&head.as_bytes()[size_of::<RecordHeader>()..][..N - 4]);
        key[N - 4] = head.protocol;
        if let Some(zone) = self.field::<A, RawZone>(head.header.present, present::ZONE) {
            key[N - 3] = zone.direction;
            key[N - 2..].copy_from_slice(zone.id.as_bytes());
        }
        key
    }

    /// Key and value, canonical, if it is of IPv4 and has no attributes: the same as [`Conn::flow`], in a form that costs less.
    #[inline]
    pub fn plain(&self) -> Option<PlainFlow> {
        let AnyHead::V4(head) = self.head else { return None };
        let present = head.header.present;
        let mut plain = PlainFlow::new(&self.key_bytes_from(head), head.state, head.status.to_bytes(), self.timeout);
        if present & present::ATTRIBUTES != 0 {
            return None;
        }
        if present & !present::ZONE != 0 {
            self.read_plain_optional(present, &mut plain);
        }
        Some(plain)
    }

    fn read_plain_optional(&self, present: u8, plain: &mut PlainFlow) {
        let endpoint = |bit| self.field::<[u8; 4], RawEndpoint<[u8; 4]>>(present, bit);
        if let Some(source) = endpoint(present::REPLY_SOURCE) {
            plain.set_reply_source(source.address, source.port.to_bytes());
        }
        if let Some(destination) = endpoint(present::REPLY_DESTINATION) {
            plain.set_reply_destination(destination.address, destination.port.to_bytes());
        }
        if let Some(tcp) = self.field::<[u8; 4], RawTcp>(present, present::TCP) {
            plain.set_tcp(tcp.get());
        }
        if let Some(mark) = self.field::<[u8; 4], U32>(present, present::MARK) {
            plain.set_mark(mark.to_bytes());
        }
    }

    /// The attributes as they travel, checked to be well-formed: type u8, length u8 (of the data alone), data, zeros
    /// to a multiple of four; types ascend. To be kept and passed on, whatever they are [3.3.9].
    pub fn attributes(&self) -> &'a [u8] {
        if self.present() & present::ATTRIBUTES == 0 {
            return &[];
        }
        let begin = match self.head {
            AnyHead::V4(head) => optional_len::<[u8; 4]>(head.header.present),
            AnyHead::V6(head) => optional_len::<[u8; 16]>(head.header.present),
        };
        self.optional.get(begin..).unwrap_or_default()
    }

    fn present(&self) -> u8 {
        match self.head {
            AnyHead::V4(head) => head.header.present,
            AnyHead::V6(head) => head.header.present,
        }
    }

    #[inline]
    fn key_from<A: Address>(&self, head: &Head<A>) -> FlowKey {
        let zone = self.field::<A, RawZone>(head.header.present, present::ZONE);
        FlowKey {
            source: head.source.into(),
            destination: head.destination.into(),
            source_port: head.source_port.get(),
            destination_port: head.destination_port.get(),
            protocol: head.protocol,
            zone: zone.map_or(Zone::DEFAULT, |zone| Zone { id: zone.id.get(), direction: zone.direction }),
        }
    }

    #[inline]
    fn flow_from<A: Address>(&self, head: &Head<A>) -> Flow {
        let present = head.header.present;
        // One value, built where the caller wants it: a copy of narrow stores by wide loads costs more than the rest.
        let mut flow = Flow {
            key: self.key_from(head),
            reply_source: None,
            reply_destination: None,
            state: head.state,
            status: head.status.get(),
            timeout: self.timeout,
            tcp: None,
            mark: 0,
            attributes: Attributes::NONE,
        };
        if present & !present::ZONE != 0 {
            self.read_optional::<A>(present, &mut flow);
        }
        flow
    }

    #[inline(never)]
    fn read_optional<A: Address>(&self, present: u8, flow: &mut Flow) {
        let endpoint = |bit| self.field::<A, RawEndpoint<A>>(present, bit).map(RawEndpoint::get);
        flow.reply_source = endpoint(present::REPLY_SOURCE);
        flow.reply_destination = endpoint(present::REPLY_DESTINATION);
        flow.tcp = self.field::<A, RawTcp>(present, present::TCP).map(RawTcp::get);
        flow.mark = self.field::<A, U32>(present, present::MARK).map_or(0, |mark| mark.get());
        // Nothing can fail here: a check has read them already.
        flow.attributes = Attributes::from_wire(self.attributes()).unwrap_or_default();
        let bare = Flow::new(flow.key);
        *flow = core::mem::replace(flow, bare).canonical();
    }

    /// The optional field that the bit stands for: it begins where the fields of the lower bits end.
    fn field<A: Address, T>(&self, present: u8, bit: u8) -> Option<&'a T>
    where
        T: FromBytes + KnownLayout + Immutable + Unaligned,
    {
        if present & bit == 0 {
            return None;
        }
        let (field, _) = T::ref_from_prefix(self.optional.get(optional_len::<A>(present & (bit - 1))..)?).ok()?;
        Some(field)
    }

    /// Reserved bytes are zero, and a zone's direction is one that conntrack knows.
    fn check_optional<A: Address>(&self, present: u8) -> Result<(), FrameError> {
        let endpoint_fits =
            |bit| self.field::<A, RawEndpoint<A>>(present, bit).is_none_or(|endpoint| endpoint.zero.get() == 0);
        let zone_fits = |zone: &RawZone| zone.zero == 0 && zone.direction <= Zone::REPLY;
        let fits = endpoint_fits(present::REPLY_SOURCE)
            && endpoint_fits(present::REPLY_DESTINATION)
            && self.field::<A, RawTcp>(present, present::TCP).is_none_or(|tcp| tcp.zero == 0)
            && self.field::<A, RawZone>(present, present::ZONE).is_none_or(zone_fits);
        if fits { Ok(()) } else { Err(FrameError::RecordField) }
    }
}

/// An address as it travels: what makes one layout into CONN4 and CONN6.
pub(super) trait Address:
    FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned + Copy + Debug + Into<IpAddr> + 'static
{
    /// Type of the family's records.
    const TYPE: u8;
    /// Bytes that the optional fields take, attributes aside, by the low five bits of `present`.
    const OPTIONAL_LEN: [u8; 32];
    /// The address, if it is of this family.
    fn of(address: IpAddr) -> Option<Self>;
    /// The record's head as one of a connection.
    fn conn<'a>(head: &'a Head<Self>, optional: &'a [u8], timeout: u32) -> Conn<'a>;
}

impl Address for [u8; 4] {
    const TYPE: u8 = super::record::kind::CONN4;
    const OPTIONAL_LEN: [u8; 32] = optional_lens(8);

    fn of(address: IpAddr) -> Option<Self> {
        if let IpAddr::V4(address) = address { Some(Ipv4Addr::octets(&address)) } else { None }
    }

    fn conn<'a>(head: &'a Head<Self>, optional: &'a [u8], timeout: u32) -> Conn<'a> {
        Conn { head: AnyHead::V4(head), optional, timeout }
    }
}

impl Address for [u8; 16] {
    const TYPE: u8 = super::record::kind::CONN6;
    const OPTIONAL_LEN: [u8; 32] = optional_lens(20);

    fn of(address: IpAddr) -> Option<Self> {
        if let IpAddr::V6(address) = address { Some(Ipv6Addr::octets(&address)) } else { None }
    }

    fn conn<'a>(head: &'a Head<Self>, optional: &'a [u8], timeout: u32) -> Conn<'a> {
        Conn { head: AnyHead::V6(head), optional, timeout }
    }
}

/// What upsert and delete of a connection have in common: 20 bytes of IPv4, 44 of IPv6. A delete is no more than this.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub(super) struct Head<A> {
    pub(super) header: RecordHeader,
    pub(super) source: A,
    pub(super) destination: A,
    pub(super) source_port: U16,
    pub(super) destination_port: U16,
    pub(super) protocol: u8,
    pub(super) state: u8,
    pub(super) status: U16,
}

/// An upsert without optional fields: 24 bytes of IPv4, 48 of IPv6.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Plain<A> {
    pub(super) head: Head<A>,
    pub(super) timeout: U32,
}

/// One side of the reply direction.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawEndpoint<A> {
    pub(super) address: A,
    pub(super) port: U16,
    pub(super) zero: U16,
}

impl<A: Address> RawEndpoint<A> {
    fn get(&self) -> Endpoint {
        Endpoint { address: self.address.into(), port: self.port.get() }
    }
}

/// TCP window scales and flags.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawTcp {
    pub(super) scales: u8,
    pub(super) flags_original: u8,
    pub(super) flags_reply: u8,
    pub(super) zero: u8,
}

impl RawTcp {
    fn get(&self) -> TcpInfo {
        TcpInfo {
            window_scale_original: self.scales >> 4,
            window_scale_reply: self.scales & 0x0f,
            flags_original: self.flags_original,
            flags_reply: self.flags_reply,
        }
    }
}

/// A zone with its direction.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawZone {
    pub(super) id: U16,
    pub(super) direction: u8,
    pub(super) zero: u8,
}

const _: () = assert!(size_of::<Head<[u8; 4]>>() == 20 && size_of::<Plain<[u8; 4]>>() == 24);
const _: () = assert!(size_of::<Head<[u8; 16]>>() == 44 && size_of::<Plain<[u8; 16]>>() == 48);
/// What lets a writer promise that every flow fits a record, and every record the smallest frame, with a seal's tag.
const _: () = {
    let longest = size_of::<Plain<[u8; 16]>>() + optional_len::<[u8; 16]>(0x1f) + Attributes::LEN_MAX;
    assert!(longest <= RECORD_LEN_MAX && super::HEADER_LEN + longest + 16 <= super::FRAME_LEN_MIN);
};

/// Bytes that the optional fields named by `present` take, attributes aside.
pub(super) const fn optional_len<A: Address>(present: u8) -> usize {
    A::OPTIONAL_LEN[(present & 0x1f) as usize] as usize
}

const fn optional_lens(endpoint: u8) -> [u8; 32] {
    let fields = [
        (present::REPLY_SOURCE, endpoint),
        (present::REPLY_DESTINATION, endpoint),
        (present::TCP, 4),
        (present::MARK, 4),
        (present::ZONE, 4),
    ];
    let mut lens = [0; 32];
    let mut bits = 0;
    while bits < 32 {
        let mut field = 0;
        while field < fields.len() {
            if bits as u8 & fields[field].0 != 0 {
                lens[bits] += fields[field].1;
            }
            field += 1;
        }
        bits += 1;
    }
    lens
}

/// Checks a whole record of this family.
#[inline]
pub(super) fn check<A: Address>(header: &RecordHeader, record: &[u8]) -> Result<(), FrameError> {
    match header.operation {
        operation::UPSERT => check_upsert::<A>(header.present, record),
        operation::DELETE => check_delete::<A>(header.present, record),
        _ => Err(FrameError::RecordOperation),
    }
}

#[inline]
fn check_upsert<A: Address>(present: u8, record: &[u8]) -> Result<(), FrameError> {
    if present == 0 && record.len() == size_of::<Plain<A>>() {
        return Ok(());
    }
    if present & !present::ALL != 0 {
        return Err(FrameError::RecordPresent);
    }
    let expected = size_of::<Plain<A>>() + optional_len::<A>(present);
    let open_ended = present & present::ATTRIBUTES != 0;
    if record.len() < expected || (record.len() > expected && !open_ended) {
        return Err(FrameError::RecordLength);
    }
    let conn = upsert::<A>(record).ok_or(FrameError::RecordLength)?;
    conn.check_optional::<A>(present)?;
    check_attributes(conn.attributes()).map_err(|_| FrameError::RecordAttribute)
}

fn check_delete<A: Address>(present: u8, record: &[u8]) -> Result<(), FrameError> {
    if present & !present::ZONE != 0 {
        return Err(FrameError::RecordPresent);
    }
    if record.len() != size_of::<Head<A>>() + optional_len::<A>(present) {
        return Err(FrameError::RecordLength);
    }
    let (head, _) = Head::<A>::ref_from_prefix(record).map_err(|_| FrameError::RecordLength)?;
    if head.state != 0 || head.status.get() != 0 {
        return Err(FrameError::RecordField);
    }
    delete::<A>(record).ok_or(FrameError::RecordLength)?.check_optional::<A>(present)
}

/// Looks at an upsert; `None` if it is too short for one.
#[inline]
pub(super) fn upsert<A: Address>(record: &[u8]) -> Option<Conn<'_>> {
    let (plain, optional) = Plain::<A>::ref_from_prefix(record).ok()?;
    Some(A::conn(&plain.head, optional, plain.timeout.get()))
}

/// Looks at a delete; `None` if it is too short for one.
#[inline]
pub(super) fn delete<A: Address>(record: &[u8]) -> Option<Conn<'_>> {
    let (head, optional) = Head::<A>::ref_from_prefix(record).ok()?;
    Some(A::conn(head, optional, 0))
}

#[cfg(test)]
mod tests {
    use super::super::record::{check as check_record, view};
    use super::super::{DataWriter, HEADER_LEN, Header, Record};
    use super::*;
    use crate::flow::{attribute, protocol};

    const SIX: FlowKey = FlowKey {
        source: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
        destination: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2)),
        source_port: 40000,
        destination_port: 80,
        protocol: protocol::TCP,
        zone: Zone::DEFAULT,
    };

    /// tcp [2001:db8::1]:40000 -> [2001:db8::2]:80, established, 300 s.
    const PLAIN6: [u8; 48] = [
        2, 1, 0, 12, // CONN6, upsert, nothing optional, 12 words
        0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, // source
        0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, // destination
        0x9c, 0x40, 0, 80, 6, 3, 0, 0x0e, 0, 0, 1, 44, // ports, TCP, ESTABLISHED, status, timeout
    ];

    fn full6() -> Flow {
        let mut flow = Flow {
            key: FlowKey { zone: Zone { id: 7, direction: Zone::ORIGINAL }, ..SIX },
            reply_source: Some(Endpoint { address: IpAddr::V6(Ipv6Addr::LOCALHOST), port: 8080 }),
            reply_destination: Some(Endpoint { address: IpAddr::V6(Ipv6Addr::LOCALHOST), port: 1025 }),
            state: 3,
            status: 0x01be,
            timeout: 300,
            tcp: Some(TcpInfo { window_scale_original: 7, ..TcpInfo::default() }),
            mark: 5,
            ..Flow::new(SIX)
        };
        flow.attributes.set(attribute::HELPER, b"ftp").expect("fits");
        flow
    }

    fn record(write: impl FnOnce(&mut DataWriter<'_>)) -> Vec<u8> {
        let mut slot = [0xaa; super::super::FRAME_LEN_MIN];
        let mut writer = DataWriter::new(&mut slot, Header::default()).expect("room");
        write(&mut writer);
        let len = writer.finish();
        slot[HEADER_LEN..len].to_vec()
    }

    fn with_header(present: u8, record: &[u8], more: &[u8]) -> Vec<u8> {
        let mut record = [record, more].concat();
        (record[2], record[3]) = (present, (record.len() / 4) as u8);
        record
    }

    /// [3.3.10]
    #[test]
    fn a_plain_ipv6_connection_is_48_bytes() {
        let flow = Flow { state: 3, status: 0x0e, timeout: 300, ..Flow::new(SIX) };
        assert_eq!(record(|writer| writer.push_upsert(&flow).expect("fits")), PLAIN6);
        assert_eq!(check_record(&PLAIN6), Ok(()));
        let Record::Upsert(conn) = view(&PLAIN6) else { panic!("not an upsert") };
        assert_eq!((conn.flow(), conn.key(), conn.attributes()), (flow, SIX, &[][..]));
    }

    /// [3.3.10] [3.3.9] Reply ends have 20 bytes, and attributes come behind everything.
    #[test]
    fn an_ipv6_connection_with_everything_is_100_bytes_and_its_attributes() {
        let bytes = record(|writer| writer.push_upsert(&full6()).expect("fits"));
        let expected = [
            &[2, 1, 0x9f, 27][..],
            &PLAIN6[4..42],
            &[0x01, 0xbe, 0, 0, 1, 44],
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x1f, 0x90, 0, 0],
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x04, 0x01, 0, 0],
            &[0x70, 0, 0, 0, 0, 0, 0, 5, 0, 7, 1, 0],
            &[3, 3, b'f', b't', b'p', 0, 0, 0],
        ]
        .concat();
        assert_eq!(bytes, expected);
        assert_eq!(check_record(&bytes), Ok(()));
        let Record::Upsert(conn) = view(&bytes) else { panic!("not an upsert") };
        assert_eq!((conn.flow(), conn.key()), (full6(), full6().key));
    }

    /// [3.3.10]
    #[test]
    fn an_ipv6_delete_is_44_bytes_and_48_with_a_zone() {
        let bytes = record(|writer| writer.push_delete(&SIX).expect("fits"));
        assert_eq!(bytes, [&[2, 2, 0, 11][..], &PLAIN6[4..41], &[0, 0, 0]].concat());
        let zoned = record(|writer| writer.push_delete(&full6().key).expect("fits"));
        assert_eq!(zoned, [&[2, 2, 0x10, 12][..], &PLAIN6[4..41], &[0, 0, 0, 0, 7, 1, 0]].concat());
        for bytes in [&bytes, &zoned] {
            assert_eq!(check_record(bytes), Ok(()));
        }
        let Record::Delete(conn) = view(&zoned) else { panic!("not a delete") };
        assert_eq!(conn.key(), full6().key);
        for index in [41, 42, 43] {
            let mut dirty = bytes.clone();
            dirty[index] = 1;
            assert_eq!(check_record(&dirty), Err(FrameError::RecordField), "byte {index}");
        }
    }

    /// [3.3.10] [3.2.9]
    #[test]
    fn an_ipv6_record_is_checked_as_an_ipv4_record_is() {
        for (bit, len) in [(1, 20), (2, 20), (4, 4), (8, 4), (16, 4)] {
            assert_eq!(check_record(&with_header(bit, &PLAIN6, &vec![0; len])), Ok(()));
            for wrong in [len - 4, len + 4] {
                assert_eq!(check_record(&with_header(bit, &PLAIN6, &vec![0; wrong])), Err(FrameError::RecordLength));
            }
        }
        let mut dirty = [0; 20];
        dirty[19] = 1;
        assert_eq!(check_record(&with_header(1, &PLAIN6, &dirty)), Err(FrameError::RecordField));
        assert_eq!(check_record(&with_header(2, &PLAIN6, &dirty)), Err(FrameError::RecordField));
        assert_eq!(check_record(&with_header(16, &PLAIN6, &[0, 1, 3, 0])), Err(FrameError::RecordField));
        assert_eq!(check_record(&with_header(0x20, &PLAIN6, &[])), Err(FrameError::RecordPresent));
        let mut operation = PLAIN6;
        operation[1] = 3;
        assert_eq!(check_record(&operation), Err(FrameError::RecordOperation));
    }

    /// [3.3.6] [8.0.3] 920 bytes of attributes are taken, and not 4 more, although a small record would have room.
    #[test]
    fn attributes_that_no_other_record_has_room_for_are_refused() {
        let row = |kinds: [u8; 4], last: u8| {
            let mut row = Vec::new();
            for (kind, len) in kinds.into_iter().zip([254, 254, 254, last]) {
                row.extend_from_slice(&[kind, len]);
                row.resize(row.len() + usize::from(len), kind);
            }
            row
        };
        let plain4 = [1, 1, 0, 6, 10, 0, 0, 1, 192, 0, 2, 10, 0x9c, 0x40, 0, 80, 6, 3, 0, 14, 0, 0, 1, 44];
        for plain in [&plain4[..], &PLAIN6] {
            let longest = with_header(0x80, plain, &row([1, 2, 3, 200], 150));
            assert_eq!(check_record(&longest), Ok(()));
            let Record::Upsert(conn) = view(&longest) else { panic!("not an upsert") };
            assert_eq!((conn.attributes().len(), conn.flow().attributes.as_bytes().len()), (920, 920));
            let too_long = with_header(0x80, plain, &row([1, 2, 3, 200], 154));
            assert_eq!(check_record(&too_long), Err(FrameError::RecordAttribute));
        }
    }

    /// [8.0.3] The longest flow that there can be fits the smallest frame that may be configured.
    #[test]
    fn the_longest_flow_fits_the_smallest_frame() {
        let mut flow = full6();
        for (kind, len) in [(1, 254), (2, 254), (3, 254), (4, 150)] {
            flow.attributes.set(kind, &vec![kind; len]).expect("fits");
        }
        let bytes = record(|writer| writer.push_upsert(&flow).expect("fits"));
        assert_eq!(bytes.len(), 1020);
        let Record::Upsert(conn) = view(&bytes) else { panic!("not an upsert") };
        assert_eq!(conn.flow(), flow);
    }
}
