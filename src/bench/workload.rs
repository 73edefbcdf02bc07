//! The stream that a table is measured with: frames as a backup receives them, each made once and applied once.
//!
//! ```text
//!   of 100 records   50 update a flow that is held    25 insert one that is not    25 delete one
//! ```
//!
//! Keys are random and uniform over the flows held, so that no cache and no prefetcher knows the next one. Deletes come above
//! the frontier, as they do while a frame is missing, so each leaves a tombstone until [`FRONTIER_LAG`] frames later.

use crate::flow::{Flow, FlowKey, Zone, protocol, status};
use crate::table::{Ahead, Table};
use crate::time::Instant;
use crate::wire::{DataWriter, Frame, FrameFlags, Header, Kind, NodeId, Payload, RECORDS_MAX, Record, Records};
use core::net::{IpAddr, Ipv4Addr};

/// Bytes of a frame: what an Ethernet frame carries behind the IPv4 header.
pub const FRAME_LEN: usize = 1480;
/// Records of a frame: as many plain IPv4 connections as fit.
pub const RECORDS: usize = 60;
/// The group of all frames here.
pub const SYNC_ID: u8 = 81;
/// Frames that the frontier is behind what arrives.
pub const FRONTIER_LAG: u64 = 64;

/// The flow with this number, in this state of its protocol: TCP over IPv4, without translation.
pub fn flow(number: u32, state: u8) -> Flow {
    let key = FlowKey {
        source: IpAddr::V4(Ipv4Addr::from(0x0a00_0000 | number >> 8)),
        destination: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)),
        source_port: 1024 + (number & 0xff) as u16 * 199,
        destination_port: 443,
        protocol: protocol::TCP,
        zone: Zone::DEFAULT,
    };
    let answered = status::SEEN_REPLY | status::ASSURED | status::CONFIRMED;
    Flow { state, status: answered, timeout: 432_000, ..Flow::new(key) }
}

/// A full frame of this group: an update of each of so many flows.
pub fn full_frame(sync_id: u8) -> [u8; FRAME_LEN] {
    let mut slot = [0; FRAME_LEN];
    let (node, flags) = (NodeId(1), FrameFlags::default());
    let header = Header { sync_id, kind: Kind::DATA, flags, node, incarnation: 1, seq: 1, term: 1 };
    let Some(mut writer) = DataWriter::new(&mut slot, header) else { return slot };
    let mut numbers = 0..;
    while numbers.next().is_some_and(|number| writer.push_upsert(&flow(number, 3)).is_ok()) {}
    writer.finish();
    slot
}

/// Numbers that look random; the same ones in every run.
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Default for Numbers {
    fn default() -> Self {
        Numbers(0x9e37_79b9_7f4a_7c15)
    }
}

impl Numbers {
    /// A number below `size`.
    pub fn below(&mut self, size: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (((self.0 >> 32) * u64::from(size)) >> 32) as u32
    }
}

/// Makes the frames.
#[derive(Debug)]
pub struct Stream {
    live: Vec<u32>,
    dead: Vec<u32>,
    numbers: Numbers,
    seq: u64,
}

impl Stream {
    /// A stream over `flows` flows that are held, and a quarter as many that are not.
    pub fn new(flows: u32) -> Self {
        let live = (0..flows).collect();
        Stream { live, dead: (flows..flows + flows / 4 + 1).collect(), numbers: Numbers::default(), seq: 0 }
    }

    /// The flows that are held before the first frame.
    pub fn held(&self) -> impl Iterator<Item = Flow> + '_ {
        self.live.iter().map(|number| flow(*number, 1))
    }

    /// Makes the next frame.
    ///
    /// # Panics
    /// If the slot is shorter than a frame.
    pub fn next_frame(&mut self, slot: &mut [u8; FRAME_LEN]) -> usize {
        self.seq += 1;
        let (node, flags) = (NodeId(1), FrameFlags::default());
        let header = Header { sync_id: SYNC_ID, kind: Kind::DATA, flags, node, incarnation: 1, seq: self.seq, term: 1 };
        let mut writer = DataWriter::new(slot, header).expect("a frame has room for its header");
        let state = 2 + (self.seq % 200) as u8;
        for _ in 0..RECORDS {
            let pushed = match self.numbers.below(4) {
                0 if !self.dead.is_empty() => {
                    let number = self.take_dead();
                    self.live.push(number);
                    writer.push_upsert(&flow(number, state))
                }
                1 if self.live.len() > 1 => {
                    let number = self.take_live();
                    self.dead.push(number);
                    writer.push_delete(&flow(number, 0).key)
                }
                _ => {
                    let at = self.numbers.below(self.live.len() as u32) as usize;
                    writer.push_upsert(&flow(self.live[at], state))
                }
            };
            pushed.expect("a frame has room for its records");
        }
        writer.finish()
    }

    fn take_dead(&mut self) -> u32 {
        let at = self.numbers.below(self.dead.len() as u32) as usize;
        self.dead.swap_remove(at)
    }

    fn take_live(&mut self) -> u32 {
        let at = self.numbers.below(self.live.len() as u32) as usize;
        self.live.swap_remove(at)
    }
}

/// A table that holds the stream's flows and follows it from now on.
pub fn table(stream: &Stream, now: Instant) -> Table {
    let flows = (stream.live.len() + stream.dead.len()) as u32;
    let mut table = Table::new(flows + flows / 8, flows / 8, 0x5eed);
    for flow in stream.held() {
        // There is room for all of them.
        let _ = table.put(&flow, now);
        table.sent(1);
    }
    table.begin_stream();
    table
}

/// What a backup does with a frame: checks it with its CRC, looks ahead, applies each record, and gives the sink what has
/// changed. Says how many records there were.
pub fn apply(table: &mut Table, frame: &[u8], now: Instant) -> usize {
    let Some((number, records)) = records(frame) else { return 0 };
    let mut ahead = [Ahead::default(); RECORDS_MAX];
    table.look_ahead(records.clone().map(Record::key_bytes), &mut ahead);
    apply_records(table, number, records, now, Some(&ahead))
}

/// The same without looking ahead: what that is worth.
pub fn apply_one_by_one(table: &mut Table, frame: &[u8], now: Instant) -> usize {
    let Some((number, records)) = records(frame) else { return 0 };
    apply_records(table, number, records, now, None)
}

fn records(frame: &[u8]) -> Option<(u64, Records<'_>)> {
    let frame = Frame::parse(frame).and_then(Frame::verify).ok()?;
    let Payload::Data(records) = frame.payload() else { return None };
    Some((frame.header().seq, records))
}

fn apply_records(
    table: &mut Table,
    number: u64,
    records: Records<'_>,
    now: Instant,
    ahead: Option<&[Ahead; RECORDS_MAX]>,
) -> usize {
    let (frontier, mut count) = (number.saturating_sub(FRONTIER_LAG), 0);
    for (at, record) in records.enumerate() {
        count += 1;
        let applied = match (record, ahead) {
            (Record::Upsert(conn), Some(ahead)) => match conn.plain() {
                Some(plain) => table.apply_plain(&plain, ahead[at], number, now),
                None => table.apply_upsert(&conn.flow(), number, now),
            },
            (Record::Upsert(conn), None) => table.apply_upsert(&conn.flow(), number, now),
            (Record::Delete(conn), Some(ahead)) => {
                table.apply_delete_ahead(conn.key_bytes(), ahead[at], number, frontier)
            }
            (Record::Delete(conn), None) => table.apply_delete(&conn.key(), number, frontier),
            _ => continue,
        };
        // What is refused is missed by who compares the tables.
        let _ = applied;
    }
    while table.pop_applied(now).is_some() {}
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_nanos(1_000_000_000);

    #[test]
    fn a_table_that_was_fed_the_stream_holds_what_the_stream_holds() {
        let mut stream = Stream::new(1000);
        let mut table = table(&stream, NOW);
        let (mut slot, mut records) = ([0; FRAME_LEN], 0);
        for _ in 0..100 {
            let length = stream.next_frame(&mut slot);
            records += apply(&mut table, &slot[..length], NOW);
        }
        assert_eq!(records, 6000);
        let mut held: Vec<FlowKey> = table.iter(NOW).map(|flow| flow.key).collect();
        let mut live: Vec<FlowKey> = stream.live.iter().map(|number| flow(*number, 0).key).collect();
        held.sort();
        live.sort();
        // A key that a frame names twice keeps what came first: 60 of 1000 keys in a frame make a few of those.
        let missed = live.iter().filter(|key| held.binary_search(key).is_err()).count();
        assert!(missed < 100 && held.len().abs_diff(live.len()) < 100, "{missed} of {} missed", live.len());
        assert!(table.tombstones() > 100, "{}", table.tombstones());
    }

    #[test]
    fn of_the_records_a_half_are_updates_and_a_quarter_each_inserts_and_deletes() {
        let mut stream = Stream::new(100_000);
        let (mut slot, mut deletes) = ([0; FRAME_LEN], 0);
        for _ in 0..1000 {
            let length = stream.next_frame(&mut slot);
            let frame = Frame::parse(&slot[..length]).and_then(Frame::verify).unwrap();
            let Payload::Data(records) = frame.payload() else { panic!() };
            deletes += records.filter(|record| matches!(record, Record::Delete(_))).count();
        }
        assert!((14_500..15_500).contains(&deletes), "{deletes} of 60000");
        assert!((99_000..101_000).contains(&stream.live.len()), "as many come as go");
    }

    #[test]
    fn a_full_frame_is_a_frame_of_its_group() {
        let bytes = full_frame(7);
        let frame = Frame::parse(&bytes).and_then(Frame::verify).unwrap();
        let Payload::Data(records) = frame.payload() else { panic!() };
        assert_eq!((frame.header().sync_id, records.count()), (7, 60));
    }

    #[test]
    fn a_frame_that_is_broken_changes_nothing() {
        let mut stream = Stream::new(100);
        let mut table = table(&stream, NOW);
        let mut slot = [0; FRAME_LEN];
        let length = stream.next_frame(&mut slot);
        slot[100] ^= 1;
        let digest = table.digest();
        assert_eq!(apply(&mut table, &slot[..length], NOW), 0);
        assert_eq!(table.digest(), digest);
    }
}
