//! Writes DATA frames: records straight into the slot that will leave, and the header last, when all is known.
//!
//! ```text
//!   new            push_upsert  push_delete  push_bucket_end           finish
//!   ┌──────────┬─────────────┬────────────┬──────────────┬─ ─ ─ ─ ┐
//!   │ 40 bytes │ 24 to 1020  │ 20 to 48   │ 16           │ room   │   header with count, size and checksum
//!   └──────────┴─────────────┴────────────┴──────────────┴─ ─ ─ ─ ┘
//! ```
//!
//! A `push` that fails has changed nothing: when it was [`PushError::Full`], send the frame and push again into the next
//! one. Whoever wants room behind the records (a seal's tag, say) lends a slot that is shorter by that.

use super::conn::{Address, Head, Plain, RECORD_LEN_MAX, RawEndpoint, RawTcp, RawZone, optional_len, present};
use super::frame::complete;
use super::record::{RawBucketEnd, RecordHeader, kind, operation};
use super::{BUCKETS, FRAME_LEN_MAX, Fragment, HEADER_LEN, Header, Kind, RECORDS_MAX, Section};
use crate::flow::{Endpoint, Flow, FlowKey, PlainFlow, Zone};
use core::net::IpAddr;
use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{Immutable, IntoBytes};

/// Why a record was not written. The frame is as it was.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum PushError {
    /// No room in this frame, or it has its [`RECORDS_MAX`]: send it, and push again into the next one.
    #[error("no room in this frame")]
    Full,
    /// The flow has addresses of both families, and no record can say that.
    #[error("addresses of both families in one flow")]
    MixedFamilies,
    /// A zone has one of the directions 0 (both), 1 (original) and 2 (reply).
    #[error("a zone of unknown direction")]
    ZoneDirection,
    /// There is no such bucket.
    #[error("no such bucket")]
    Bucket,
    /// A section's key or fragment is out of its bounds.
    #[error("a section's key or fragment is out of its bounds")]
    Section,
}

/// A DATA frame that is being written.
#[derive(Debug)]
pub struct DataWriter<'a> {
    slot: &'a mut [u8],
    header: Header,
    len: usize,
    count: u8,
}

impl<'a> DataWriter<'a> {
    /// Begins a frame in `slot`; `None` if the slot does not even hold the header. Of a slot longer than
    /// [`FRAME_LEN_MAX`] only that much is used. The header's kind is taken as DATA, whatever it says.
    pub fn new(slot: &'a mut [u8], header: Header) -> Option<Self> {
        Self::behind(slot, Header { kind: Kind::DATA, ..header }, 0)
    }

    /// Begins a frame of any kind whose records stand behind `fixed_len` bytes of its own.
    pub(super) fn behind(slot: &'a mut [u8], header: Header, fixed_len: usize) -> Option<Self> {
        let (usable, len) = (slot.len().min(FRAME_LEN_MAX), HEADER_LEN + fixed_len);
        let slot = slot.get_mut(..usable).filter(|slot| slot.len() >= len)?;
        Some(DataWriter { slot, header, len, count: 0 })
    }

    /// Appends "this connection is now so". The flow is expected to be canonical; one that is not is written at more
    /// length than needed and read as the same.
    ///
    /// # Errors
    /// [`PushError::Full`], but never from an empty frame of [`FRAME_LEN_MIN`](super::FRAME_LEN_MIN) bytes, which has
    /// room for every flow; [`PushError::MixedFamilies`] or [`PushError::ZoneDirection`] for what has no form on this
    /// wire.
    pub fn push_upsert(&mut self, flow: &Flow) -> Result<(), PushError> {
        match flow.key.source {
            IpAddr::V4(source) => self.upsert(flow, source.octets()),
            IpAddr::V6(source) => self.upsert(flow, source.octets()),
        }
    }

    /// The same of a flow in its shorter form.
    ///
    /// # Errors
    /// [`PushError::Full`], as for [`DataWriter::push_upsert`].
    pub fn push_plain(&mut self, plain: &PlainFlow) -> Result<(), PushError> {
        let bytes = &plain.encoding;
        if bytes[29] != 0 || bytes[36..] != [0; 4] || bytes[13..16] != [0; 3] {
            return self.push_upsert(&plain.flow());
        }
        const LEN: usize = size_of::<Plain<[u8; 4]>>();
        let space = self.take(LEN)?;
        space[..4].copy_from_slice(RecordHeader::new(kind::CONN4, operation::UPSERT, 0, LEN).as_bytes());
        // Addresses and ports have the same order here and there.
        space[4..17].copy_from_slice(&bytes[..13]);
        space[17] = bytes[28];
        space[18..20].copy_from_slice(&bytes[30..32]);
        space[20..].copy_from_slice(&plain.timeout.to_be_bytes());
        Ok(())
    }

    /// Appends "this connection is gone".
    ///
    /// # Errors
    /// As for [`DataWriter::push_upsert`].
    pub fn push_delete(&mut self, key: &FlowKey) -> Result<(), PushError> {
        match key.source {
            IpAddr::V4(source) => self.delete(key, source.octets()),
            IpAddr::V6(source) => self.delete(key, source.octets()),
        }
    }

    /// Appends "this bucket has been walked, from the frame after `since` on".
    ///
    /// # Errors
    /// [`PushError::Full`], or [`PushError::Bucket`] from [`BUCKETS`] on.
    pub fn push_bucket_end(&mut self, bucket: u16, since: u64) -> Result<(), PushError> {
        if bucket >= BUCKETS {
            return Err(PushError::Bucket);
        }
        const LEN: usize = size_of::<RawBucketEnd>();
        let header = RecordHeader::new(kind::TABLE, operation::BUCKET_END, 0, LEN);
        let mut space = self.take(LEN)?;
        put(&mut space, &RawBucketEnd { header, bucket: U16::new(bucket), zero: U16::ZERO, since: U64::new(since) });
        Ok(())
    }

    /// Appends one change to a section, or a fragment of one.
    ///
    /// # Errors
    /// [`PushError::Full`], or [`PushError::Section`] for one that a receiver would refuse.
    pub fn push_section(&mut self, section: &Section<'_>) -> Result<(), PushError> {
        let len = section.record_len().ok_or(PushError::Section)?;
        section.write(self.take(len)?);
        Ok(())
    }

    /// Appends as much of a value as there is room for, in one record: `rest` is all of it from its offset on. How many
    /// bytes of it the record took; the next begins behind them. A small remnant of a frame is not filled, since each
    /// record repeats the key.
    ///
    /// # Errors
    /// [`PushError::Full`], but never from an empty frame of [`FRAME_LEN_MIN`](super::FRAME_LEN_MIN) bytes;
    /// [`PushError::Section`] for what a receiver would refuse.
    pub fn push_section_part(&mut self, table: u16, key: &[u8], rest: Fragment<'_>) -> Result<usize, PushError> {
        const WORTH_A_RECORD: usize = 64;
        let room = (self.slot.len() - self.len).min(RECORD_LEN_MAX).saturating_sub(Section::fixed_len(key));
        let length = if rest.bytes.len() <= room { rest.bytes.len() } else { room & !3 };
        if length < rest.bytes.len().min(WORTH_A_RECORD) {
            return Err(PushError::Full);
        }
        let fragment = Fragment { bytes: &rest.bytes[..length], ..rest };
        self.push_section(&Section { table, key, fragment: Some(fragment) })?;
        Ok(length)
    }

    /// Records written so far.
    pub fn count(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether nothing has been written so far.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Writes the header and says how long the frame is.
    pub fn finish(self) -> usize {
        self.finish_behind(&[])
    }

    /// Writes the header, and behind it the bytes that [`DataWriter::behind`] has left room for.
    pub(super) fn finish_behind(self, fixed: &[u8]) -> usize {
        let frame = &mut self.slot[..self.len];
        frame[HEADER_LEN..HEADER_LEN + fixed.len()].copy_from_slice(fixed);
        complete(frame, &self.header, self.count).unwrap_or(0)
    }

    fn upsert<A: Address>(&mut self, flow: &Flow, source: A) -> Result<(), PushError> {
        let zone = zone(flow.key.zone)?;
        let reply_source = endpoint::<A>(flow.reply_source)?;
        let reply_destination = endpoint::<A>(flow.reply_destination)?;
        let attributes = flow.attributes.as_bytes();
        let present = bit(reply_source.is_some(), present::REPLY_SOURCE)
            | bit(reply_destination.is_some(), present::REPLY_DESTINATION)
            | bit(flow.tcp.is_some(), present::TCP)
            | bit(flow.mark != 0, present::MARK)
            | bit(zone.is_some(), present::ZONE)
            | bit(!attributes.is_empty(), present::ATTRIBUTES);
        let len = size_of::<Plain<A>>() + optional_len::<A>(present) + attributes.len();
        let mut head = head(&flow.key, source, operation::UPSERT, present, len)?;
        head.state = flow.state;
        head.status = U16::new(flow.status);
        let mut space = self.take(len)?;
        put(&mut space, &Plain { head, timeout: U32::new(flow.timeout) });
        if present == 0 {
            return Ok(());
        }
        if let Some(endpoint) = reply_source {
            put(&mut space, &endpoint);
        }
        if let Some(endpoint) = reply_destination {
            put(&mut space, &endpoint);
        }
        if let Some(tcp) = flow.tcp {
            let scales = tcp.window_scale_original << 4 | tcp.window_scale_reply & 0x0f;
            let (flags_original, flags_reply) = (tcp.flags_original, tcp.flags_reply);
            put(&mut space, &RawTcp { scales, flags_original, flags_reply, zero: 0 });
        }
        if flow.mark != 0 {
            put(&mut space, &U32::new(flow.mark));
        }
        if let Some(zone) = zone {
            put(&mut space, &zone);
        }
        space.copy_from_slice(attributes);
        Ok(())
    }

    fn delete<A: Address>(&mut self, key: &FlowKey, source: A) -> Result<(), PushError> {
        let zone = zone(key.zone)?;
        let present = bit(zone.is_some(), present::ZONE);
        let len = size_of::<Head<A>>() + optional_len::<A>(present);
        let head = head(key, source, operation::DELETE, present, len)?;
        let mut space = self.take(len)?;
        put(&mut space, &head);
        if let Some(zone) = zone {
            put(&mut space, &zone);
        }
        Ok(())
    }

    /// Takes the next `len` bytes for one record, if there is room for both. From here on nothing can fail.
    fn take(&mut self, len: usize) -> Result<&mut [u8], PushError> {
        if self.count() == RECORDS_MAX {
            return Err(PushError::Full);
        }
        let space = self.slot.get_mut(self.len..self.len + len).ok_or(PushError::Full)?;
        self.len += len;
        self.count += 1;
        Ok(space)
    }
}

/// Writes one piece and moves on behind it.
fn put<T: IntoBytes + Immutable>(space: &mut &mut [u8], piece: &T) {
    let (place, rest) = core::mem::take(space).split_at_mut(size_of::<T>());
    place.copy_from_slice(piece.as_bytes());
    *space = rest;
}

fn bit(present: bool, bit: u8) -> u8 {
    if present { bit } else { 0 }
}

/// The part that upserts and deletes share, state and status still zero.
fn head<A: Address>(key: &FlowKey, source: A, operation: u8, present: u8, len: usize) -> Result<Head<A>, PushError> {
    Ok(Head {
        header: RecordHeader::new(A::TYPE, operation, present, len),
        source,
        destination: A::of(key.destination).ok_or(PushError::MixedFamilies)?,
        source_port: U16::new(key.source_port),
        destination_port: U16::new(key.destination_port),
        protocol: key.protocol,
        state: 0,
        status: U16::ZERO,
    })
}

/// `None`: needs not be written.
fn zone(zone: Zone) -> Result<Option<RawZone>, PushError> {
    match zone {
        zone if zone.is_default() => Ok(None),
        Zone { id, direction } if direction <= Zone::REPLY => {
            Ok(Some(RawZone { id: U16::new(id), direction, zero: 0 }))
        }
        _ => Err(PushError::ZoneDirection),
    }
}

/// `None`: needs not be written.
fn endpoint<A: Address>(endpoint: Option<Endpoint>) -> Result<Option<RawEndpoint<A>>, PushError> {
    let Some(Endpoint { address, port }) = endpoint else { return Ok(None) };
    let address = A::of(address).ok_or(PushError::MixedFamilies)?;
    Ok(Some(RawEndpoint { address, port: U16::new(port), zero: U16::ZERO }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Attributes, KeyBytes, TcpInfo, protocol};
    use crate::wire::{Frame, FrameError, NodeId, Payload, Record};
    use core::net::{Ipv4Addr, Ipv6Addr};

    const HEADER: Header = Header {
        sync_id: 81,
        kind: Kind(0),
        flags: crate::wire::FrameFlags(0),
        node: NodeId(7),
        incarnation: 1,
        seq: 1,
        term: 1,
    };

    const KEY: FlowKey = FlowKey {
        source: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
        destination: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)),
        source_port: 40000,
        destination_port: 80,
        protocol: protocol::TCP,
        zone: Zone::DEFAULT,
    };

    fn full() -> Flow {
        Flow {
            key: FlowKey { zone: Zone { id: 0x0102, direction: Zone::REPLY }, ..KEY },
            reply_source: Some(Endpoint { address: IpAddr::V4(Ipv4Addr::new(10, 9, 8, 7)), port: 8080 }),
            reply_destination: Some(Endpoint { address: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 5)), port: 1025 }),
            state: 3,
            status: 0x01be,
            timeout: 432_000,
            tcp: Some(TcpInfo {
                window_scale_original: 7,
                window_scale_reply: 9,
                flags_original: 0x23,
                flags_reply: 0x33,
            }),
            mark: 0xdead_beef,
            attributes: Attributes::NONE,
        }
    }

    /// What one record says that `write` wrote.
    fn read_back<T>(write: impl FnOnce(&mut DataWriter<'_>), read: impl FnOnce(Record<'_>) -> T) -> T {
        let mut slot = [0x5a; 1208];
        let mut writer = DataWriter::new(&mut slot, HEADER).unwrap();
        write(&mut writer);
        let length = writer.finish();
        let Payload::Data(records) = Frame::parse(&slot[..length]).unwrap().verify().unwrap().payload() else {
            panic!()
        };
        assert_eq!(records.clone().count(), 1);
        read(records.into_iter().next().unwrap())
    }

    #[test]
    fn what_the_shorter_form_cannot_say_is_said_in_the_longer_one() {
        let key = [10, 0, 0, 1, 192, 0, 2, 10, 0x9c, 0x40, 0, 80, 6, 0, 0, 0];
        let changes: [fn(&mut PlainFlow); 4] = [
            |_| {},
            |plain| plain.encoding[39] = 1, // a mark
            |plain| plain.encoding[15] = 7, // a zone
            |plain| plain.encoding[29] = PlainFlow::REPLY_SOURCE,
        ];
        let lengths = changes.map(|change| {
            let mut plain = PlainFlow::new(&key, 3, [0, 8], 60);
            change(&mut plain);
            let said = read_back(
                |writer| writer.push_plain(&plain).unwrap(),
                |record| {
                    let Record::Upsert(conn) = record else { panic!("{record:?}") };
                    (conn.flow(), conn.key_bytes())
                },
            );
            assert_eq!(said, (plain.flow(), KeyBytes::of(&plain.key()).unwrap()));
            payload(|writer| writer.push_plain(&plain).unwrap()).len()
        });
        assert_eq!(lengths, [24, 28, 28, 32]);
    }

    #[test]
    fn the_key_of_a_record_is_that_of_its_flow() {
        let six = |last| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last));
        let of_six = FlowKey { source: six(1), destination: six(2), zone: Zone { id: 9, direction: 1 }, ..KEY };
        for flow in [full(), Flow::new(of_six)] {
            let read = read_back(
                |writer| writer.push_upsert(&flow).unwrap(),
                |record| if let Record::Upsert(conn) = record { conn.key_bytes() } else { panic!() },
            );
            assert_eq!(read, KeyBytes::of(&flow.key).unwrap());
        }
    }

    /// A value that is longer than a record fills it.
    #[test]
    fn a_part_of_a_value_fills_the_record() {
        let value: Vec<u8> = (0..5000_u32).map(|at| at as u8).collect();
        let rest = Fragment { expiry: 0, total: 5000, offset: 0, back: 0, bytes: &value };
        let mut taken = 0;
        let read = read_back(
            |writer| taken = writer.push_section_part(7, b"web", rest).unwrap(),
            |record| {
                if let Record::Section(section) = record { section.fragment.unwrap().bytes.to_vec() } else { panic!() }
            },
        );
        assert_eq!((taken % 4, &read[..]), (0, &value[..taken]));
        assert!((960..1020).contains(&taken), "{taken} of the 1020 bytes that a record has");
    }

    /// The payload that `write` produces.
    fn payload(write: impl FnOnce(&mut DataWriter<'_>)) -> Vec<u8> {
        let mut slot = [0xaa; 1480];
        let mut writer = DataWriter::new(&mut slot, HEADER).expect("room");
        write(&mut writer);
        let len = writer.finish();
        slot[HEADER_LEN..len].to_vec()
    }

    /// [3.3.3] The plain connection takes 24 bytes.
    #[test]
    fn a_plain_connection_is_24_bytes() {
        let bytes =
            payload(|writer| assert!(writer.push_upsert(&Flow { state: 3, timeout: 300, ..Flow::new(KEY) }).is_ok()));
        assert_eq!(
            bytes,
            [
                1, 1, 0, 6, // CONN4, upsert, nothing optional, 6 words
                10, 0, 0, 1, 192, 0, 2, 10, 0x9c, 0x40, 0, 80, // tuple
                6, 3, 0, 0, 0, 0, 1, 44, // TCP, ESTABLISHED, status, timeout
            ]
        );
    }

    /// [3.3] Optional fields stand in the order of their bits.
    #[test]
    fn a_connection_with_everything_is_52_bytes() {
        let bytes = payload(|writer| assert!(writer.push_upsert(&full()).is_ok()));
        assert_eq!(
            bytes,
            [
                1, 1, 0x1f, 13, // all but attributes, 13 words
                10, 0, 0, 1, 192, 0, 2, 10, 0x9c, 0x40, 0, 80, // tuple
                6, 3, 0x01, 0xbe, 0, 6, 0x97, 0x80, // TCP, ESTABLISHED, status, timeout
                10, 9, 8, 7, 0x1f, 0x90, 0, 0, // reply source
                203, 0, 113, 5, 0x04, 0x01, 0, 0, // reply destination
                0x79, 0x23, 0x33, 0, // TCP
                0xde, 0xad, 0xbe, 0xef, // mark
                1, 2, 2, 0, // zone
            ]
        );
    }

    /// [3.3.4] A delete is a key.
    #[test]
    fn a_delete_is_20_bytes_and_24_with_a_zone() {
        let bytes = payload(|writer| {
            assert!(writer.push_delete(&KEY).is_ok());
            assert!(writer.push_delete(&full().key).is_ok());
        });
        assert_eq!(
            bytes,
            [
                1, 2, 0, 5, 10, 0, 0, 1, 192, 0, 2, 10, 0x9c, 0x40, 0, 80, 6, 0, 0, 0, //
                1, 2, 0x10, 6, 10, 0, 0, 1, 192, 0, 2, 10, 0x9c, 0x40, 0, 80, 6, 0, 0, 0, 1, 2, 2, 0,
            ]
        );
    }

    /// [3.3.5] [4.5] A bucket-end is about the table: type 0, operation 3.
    #[test]
    fn a_bucket_end_is_16_bytes() {
        let bytes = payload(|writer| assert!(writer.push_bucket_end(4095, 0x0102_0304_0506_0708).is_ok()));
        assert_eq!(bytes, [0, 3, 0, 4, 0x0f, 0xff, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    }

    /// A window scale has four bits; a fifth must not spill into its neighbour.
    #[test]
    fn a_window_scale_that_is_too_large_spills_nowhere() {
        let tcp = Some(TcpInfo { window_scale_original: 0x17, window_scale_reply: 0x89, ..TcpInfo::default() });
        let bytes = payload(|writer| assert!(writer.push_upsert(&Flow { tcp, ..Flow::new(KEY) }).is_ok()));
        assert_eq!(bytes[24..], [0x79, 0, 0, 0]);
    }

    /// [3.3.3]
    #[test]
    fn every_optional_field_comes_back_without_the_others() {
        let full = full();
        let bare = Flow::new(KEY);
        let cases = [
            (Flow { reply_source: full.reply_source, ..bare.clone() }, 32),
            (Flow { reply_destination: full.reply_destination, ..bare.clone() }, 32),
            (Flow { tcp: full.tcp, ..bare.clone() }, 28),
            (Flow { mark: 1, ..bare.clone() }, 28),
            (Flow { key: FlowKey { zone: Zone { id: 0, direction: Zone::ORIGINAL }, ..KEY }, ..bare.clone() }, 28),
        ];
        for (flow, len) in cases {
            let mut slot = [0; 1480];
            let mut writer = DataWriter::new(&mut slot, HEADER).expect("room");
            assert!(writer.push_upsert(&flow).is_ok());
            assert_eq!(writer.finish(), HEADER_LEN + len);
            let frame = Frame::parse(&slot[..HEADER_LEN + len]).and_then(Frame::verify).expect("valid");
            let Payload::Data(mut records) = frame.payload() else { panic!("not DATA") };
            let Some(Record::Upsert(conn)) = records.next() else { panic!("not an upsert") };
            assert_eq!((conn.flow(), conn.key()), (flow.clone(), flow.key));
        }
    }

    #[test]
    fn what_has_no_form_on_this_wire_is_refused_by_name() {
        let mut slot = [0; 1480];
        let mut writer = DataWriter::new(&mut slot, HEADER).expect("room");
        let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
        let v4 = Endpoint { address: KEY.source, port: 1 };
        let six = Flow::new(FlowKey { source: v6, destination: v6, ..KEY });
        for mixed in [
            Flow::new(FlowKey { destination: v6, ..KEY }),
            Flow::new(FlowKey { source: v6, ..KEY }),
            Flow { reply_source: Some(Endpoint { address: v6, port: 1 }), ..Flow::new(KEY) },
            Flow { reply_destination: Some(Endpoint { address: v6, port: 1 }), ..Flow::new(KEY) },
            Flow { reply_source: Some(v4), ..six.clone() },
            Flow { reply_destination: Some(v4), ..six.clone() },
        ] {
            assert_eq!(writer.push_upsert(&mixed), Err(PushError::MixedFamilies));
        }
        assert_eq!(writer.push_delete(&FlowKey { source: v6, ..KEY }), Err(PushError::MixedFamilies));
        assert_eq!(writer.push_delete(&FlowKey { destination: v6, ..KEY }), Err(PushError::MixedFamilies));
        let zone = Zone { id: 1, direction: 3 };
        assert_eq!(writer.push_delete(&FlowKey { zone, ..KEY }), Err(PushError::ZoneDirection));
        assert_eq!(writer.push_bucket_end(4096, 1), Err(PushError::Bucket));
        assert!(writer.is_empty());
        assert_eq!(writer.finish(), 40);
    }

    /// [8.0.3]
    #[test]
    fn a_frame_takes_255_records_and_not_one_more() {
        let mut slot = [0; 8960];
        let mut writer = DataWriter::new(&mut slot, HEADER).expect("room");
        for bucket in 0..255 {
            assert!(writer.push_bucket_end(bucket, 1).is_ok());
        }
        assert_eq!(writer.push_bucket_end(255, 1), Err(PushError::Full));
        assert_eq!(writer.push_delete(&KEY), Err(PushError::Full));
        assert_eq!(writer.count(), 255);
        assert_eq!(writer.finish(), 40 + 255 * 16);
        assert_eq!(slot[0], 255);
        assert!(Frame::parse(&slot[..4120]).and_then(Frame::verify).is_ok());
    }

    #[test]
    fn a_record_that_does_not_fit_leaves_the_frame_as_it_was() {
        let mut slot = [0xaa; 40 + 24 + 19];
        let mut writer = DataWriter::new(&mut slot, HEADER).expect("room");
        assert!(writer.push_upsert(&Flow::new(KEY)).is_ok());
        assert_eq!(writer.push_upsert(&Flow::new(KEY)), Err(PushError::Full));
        assert_eq!(writer.push_delete(&KEY), Err(PushError::Full));
        assert!(writer.push_bucket_end(1, 1).is_ok());
        assert_eq!(writer.count(), 2);
        assert_eq!(writer.finish(), 80);
        assert_eq!(slot[80..], [0xaa; 3]);
        assert!(DataWriter::new(&mut [0; 39], HEADER).is_none());
        assert!(DataWriter::new(&mut [0; 40], HEADER).is_some());
    }

    /// [3.3] A 1480-byte frame (Ethernet less the IPv4 header) carries 60 plain connections.
    #[test]
    fn sixty_plain_connections_fit_an_ethernet_frame() {
        let mut slot = [0; 1480];
        let mut writer = DataWriter::new(&mut slot, HEADER).expect("room");
        while writer.push_upsert(&Flow::new(KEY)).is_ok() {}
        assert_eq!((writer.count(), writer.finish()), (60, 1480));
        assert_eq!(Frame::parse(&slot[..1479]).err(), Some(FrameError::SizeMismatch));
    }

    #[test]
    fn a_slot_longer_than_any_frame_is_used_up_to_the_longest_frame() {
        let mut slot = vec![0; 20_000];
        let mut writer = DataWriter::new(&mut slot, HEADER).expect("room");
        while writer.push_upsert(&full()).is_ok() {}
        assert_eq!((writer.count(), writer.finish()), (171, 40 + 171 * 52));
    }
}
