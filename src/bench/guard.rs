//! Fixed workloads whose instructions `tools/guard` counts, so that what has become dearer is seen before it is shipped.
//!
//! Seconds are those of the machine and of who else is at work on it. Instructions are not: valgrind runs the program on a
//! processor of its own, whose every count is the same in every run. It is the shipped program that is counted, so nothing
//! is built for it.
//!
//! ```text
//!   valgrind ── ssyncp bench --workload NAME:   prepare ─▶ counted_by_valgrind(work) ─▶ how much was done
//!                                               not counted       counted               compared with a literal
//! ```
//!
//! Nothing here reads a clock or draws a number. A workload that does not do what it always does fails: its count would say
//! nothing.

use super::workload::{self, FRAME_LEN, RECORDS, Stream};
use crate::bridge::conntrack::codec;
use crate::engine::{Config, Engine, Role, RoleMode, RoleRequest, SyncState};
use crate::flow::Change;
use crate::sys::netlink::{MessageWriter, Messages};
use crate::table::{Pending, Table};
use crate::time::{Duration, Instant};
use crate::wire::{
    BUCKETS, DataWriter, FRAME_LEN_MIN, Frame, FrameFlags, FrameMeta, Header, Kind, NodeId, SECRET_LEN, Sealer, Secret,
    TAG_LEN,
};
use core::net::{IpAddr, Ipv4Addr};
use std::hint::black_box;

/// Flows that a table holds: more than a processor's second cache does.
const FLOWS: u32 = 20_000;
/// Frames of a workload.
const FRAMES: usize = 100;
/// Turns of a workload in which nothing happens.
const IDLE_TURNS: u32 = 10_000;
/// Times that the recorded events are read.
const READINGS: usize = 1000;
/// When everything begins.
const START: Instant = Instant::from_nanos(1_000_000_000_000);
/// From where frames seem to come.
const META: FrameMeta = FrameMeta { link: 0, source: IpAddr::V4(Ipv4Addr::LOCALHOST) };
/// One TCP connection on Linux 6.18 as ctnetlink told of it: new, five changes, its end. As recorded, in host byte order.
const EVENTS: &[u8] = include_bytes!("events.netlink");

/// Prepares, does what is counted, and says how much that was.
type Work = fn() -> Option<u64>;

/// All of them: name, what is done, and how much it must be.
const WORKLOADS: [(&str, Work, u64); 11] = [
    ("apply", apply, 6000),
    ("send", send, 6000),
    ("digest", digest, 20_000),
    ("netlink-read", netlink_read, 7000),
    ("netlink-write", netlink_write, 6000),
    ("seal", seal, 100),
    ("open", open, 100),
    ("turn-idle-master", turn_idle_master, 10_000),
    ("turn-idle-backup", turn_idle_backup, 10_000),
    ("turn-of-a-master", turn_of_a_master, 6000),
    ("turn-of-a-backup", turn_of_a_backup, 6000),
];

/// The name under which all names are told.
const LIST: &str = "list";

/// Does the one of this name, or prints the names of all with "list"; what went wrong, if it was not what it always is.
pub(super) fn run(name: &str) -> Result<(), String> {
    if name == LIST {
        WORKLOADS.iter().for_each(|(name, ..)| println!("{name}"));
        return Ok(());
    }
    let (_, work, expected) =
        WORKLOADS.iter().find(|(known, ..)| *known == name).ok_or("there is no such workload".to_owned())?;
    match work() {
        Some(done) if done == *expected => Ok(()),
        done => Err(format!("workload {name}: {done:?} instead of {expected}")),
    }
}

/// What valgrind is told to count, by this name: the call, and all below it.
#[inline(never)]
fn counted_by_valgrind(work: &mut dyn FnMut()) {
    work();
    // Without this it could be a jump instead of a call, and then it would have no end.
    black_box(());
}

/// A frame as it arrives into a backup's table, CRC, digest, tombstones and the sink's list included.
fn apply() -> Option<u64> {
    let mut stream = Stream::new(FLOWS);
    let mut table = workload::table(&stream, START);
    let frames = frames(&mut stream);
    let mut records = 0;
    counted_by_valgrind(&mut || {
        records =
            frames.iter().map(|(frame, length)| workload::apply(&mut table, &frame[..*length], START) as u64).sum();
    });
    Some(records)
}

fn frames(stream: &mut Stream) -> Vec<([u8; FRAME_LEN], usize)> {
    let mut frames = vec![([0; FRAME_LEN], 0); FRAMES];
    for (frame, length) in &mut frames {
        *length = stream.next_frame(frame);
    }
    frames
}

/// Changes into a master's table, and from there into frames.
fn send() -> Option<u64> {
    let mut table = workload::table(&Stream::new(FLOWS), START);
    let flows: Vec<_> = (0..(FRAMES * RECORDS) as u32).map(|number| workload::flow(number * 3, 7)).collect();
    let (mut slot, mut sent) = ([0; FRAME_LEN], 0);
    counted_by_valgrind(&mut || {
        for (number, flows) in flows.chunks(RECORDS).enumerate() {
            for flow in flows {
                let _ = table.put(flow, START);
            }
            sent += frame_of_pending(&mut table, number as u64 + 1, &mut slot).unwrap_or(0);
        }
    });
    Some(sent)
}

fn frame_of_pending(table: &mut Table, number: u64, slot: &mut [u8]) -> Option<u64> {
    let (mut writer, mut sent) = (DataWriter::new(slot, header(number))?, 0);
    while let Some(pending) = table.peek_pending(START) {
        let pushed = match &pending {
            Pending::Upsert(flow) => writer.push_upsert(flow),
            Pending::Delete(key) => writer.push_delete(key),
        };
        if pushed.is_err() {
            break;
        }
        table.sent(number);
        sent += 1;
    }
    black_box(writer.finish());
    Some(sent)
}

fn header(seq: u64) -> Header {
    let (node, flags) = (NodeId(1), FrameFlags::default());
    Header { sync_id: 81, kind: Kind::DATA, flags, node, incarnation: 1, seq, term: 1 }
}

/// The digest of all flows anew, and of each bucket.
fn digest() -> Option<u64> {
    let mut table = workload::table(&Stream::new(FLOWS), START);
    counted_by_valgrind(&mut || {
        table.reseed(0x0dd5_eed5);
        black_box((0..BUCKETS).fold(table.digest(), |all, bucket| all.wrapping_add(table.bucket_digest(bucket))));
    });
    Some(table.len().into())
}

/// What the kernel says, read as flows.
fn netlink_read() -> Option<u64> {
    let mut read = 0;
    counted_by_valgrind(&mut || {
        for _ in 0..READINGS {
            let messages = Messages::new(black_box(EVENTS)).filter_map(Result::ok);
            read += messages.filter(|message| black_box(codec::decode(message)).is_ok()).count() as u64;
        }
    });
    Some(read)
}

/// Flows written as the kernel wants them.
fn netlink_write() -> Option<u64> {
    let mut writer = MessageWriter::new();
    let mut written = 0;
    counted_by_valgrind(&mut || {
        for frame in 0..FRAMES {
            writer.clear();
            for number in 0..RECORDS {
                let number = (frame * RECORDS + number) as u32;
                codec::write_create(
                    &mut writer,
                    number,
                    &workload::flow(number, 3),
                    432_000,
                    codec::Without::default(),
                );
                written += 1;
            }
            black_box(writer.bytes());
        }
    });
    Some(written)
}

/// A full frame in a slot that has room for its tag.
type Sealable = ([u8; FRAME_LEN], usize);

fn secret() -> Option<Secret> {
    Secret::new(0, &[0x5a; SECRET_LEN])
}

fn sealable() -> Option<Vec<Sealable>> {
    let frame = |seq| {
        let mut slot = [0; FRAME_LEN];
        let mut writer = DataWriter::new(&mut slot[..FRAME_LEN - TAG_LEN], header(seq))?;
        let mut numbers = 0..;
        while writer.push_upsert(&workload::flow(numbers.next()?, 3)).is_ok() {}
        let length = writer.finish();
        Some((slot, length))
    };
    (1..=FRAMES as u64).map(frame).collect()
}

/// Frames are sealed.
fn seal() -> Option<u64> {
    let (mut frames, mut sealer) = (sealable()?, Sealer::new(&[secret()?], 81, NodeId(1), 1));
    let mut sealed = 0;
    counted_by_valgrind(&mut || {
        sealed = frames.iter_mut().filter_map(|(slot, length)| sealer.seal(0, slot, *length)).count() as u64;
    });
    Some(sealed)
}

/// Frames are opened, from the first look at them on.
fn open() -> Option<u64> {
    let (mut frames, mut sealer) = (sealable()?, Sealer::new(&[secret()?], 81, NodeId(1), 1));
    for (slot, length) in &mut frames {
        *length = sealer.seal(0, slot, *length)?;
    }
    let (key, mut opened) = (secret()?.key(81, NodeId(1), 1), 0);
    let open = |bytes: &mut [u8]| Frame::parse(bytes).is_ok() && key.open(bytes).is_ok();
    counted_by_valgrind(&mut || {
        opened = frames.iter_mut().filter_map(|(slot, length)| open(&mut slot[..*length]).then_some(())).count() as u64;
    });
    Some(opened)
}

/// A master at rest: nothing has come, nothing waits, no time is up.
fn turn_idle_master() -> Option<u64> {
    let mut nodes = Nodes::in_sync()?;
    let now = nodes.now;
    idle(&mut nodes.master, now)
}

/// The same of a backup.
fn turn_idle_backup() -> Option<u64> {
    let mut nodes = Nodes::in_sync()?;
    let now = nodes.now;
    idle(&mut nodes.backup, now)
}

fn idle(engine: &mut Engine, now: Instant) -> Option<u64> {
    let (mut node, mut turns) = (Outlet::new(), 0);
    counted_by_valgrind(&mut || {
        for _ in 0..IDLE_TURNS {
            node.turn(engine, now);
            turns += 1;
        }
    });
    (node.frames == 0 && node.changes == 0).then_some(turns)
}

/// A master is told of a full frame's changes, and sends them: a hundred times.
fn turn_of_a_master() -> Option<u64> {
    let mut nodes = Nodes::in_sync()?;
    let before = nodes.master.counters().records_sent;
    let mut node = Outlet::new();
    let Nodes { now, master, .. } = &mut nodes;
    counted_by_valgrind(&mut || {
        for frame in 0..FRAMES as u32 {
            for number in 0..RECORDS as u32 {
                let flow = workload::flow((frame * RECORDS as u32 + number) * 3, 7);
                let _ = master.update(*now, &Change::Upsert(flow));
            }
            node.turn(master, *now);
            *now += Duration::from_millis(1);
        }
        node.turn(master, *now);
    });
    Some(nodes.master.counters().records_sent - before)
}

/// A backup is given a full frame, and gives its changes to its sink: a hundred times.
fn turn_of_a_backup() -> Option<u64> {
    let mut nodes = Nodes::in_sync()?;
    let mut frames = Vec::new();
    for number in 0..(FRAMES * RECORDS) as u32 {
        let _ = nodes.master.update(nodes.now, &Change::Upsert(workload::flow(number * 3, 7)));
    }
    while let Some(frame) = nodes.frame_of_master() {
        frames.push(frame);
    }
    let mut node = Outlet::new();
    let Nodes { now, backup, .. } = &mut nodes;
    counted_by_valgrind(&mut || {
        for frame in &mut frames {
            backup.handle_frame(*now, META, frame);
            node.turn(backup, *now);
        }
    });
    Some(node.changes)
}

/// What a loop around an engine does each turn, with where it puts what comes out.
struct Outlet {
    batch: Vec<Change>,
    slot: [u8; FRAME_LEN],
    frames: u64,
    changes: u64,
}

impl Outlet {
    fn new() -> Self {
        Outlet { batch: Vec::with_capacity(1024), slot: [0; FRAME_LEN], frames: 0, changes: 0 }
    }

    /// A turn in the daemon's order, behind receiving.
    fn turn(&mut self, engine: &mut Engine, now: Instant) {
        if engine.poll_timeout().is_some_and(|due| due <= now) {
            engine.handle_timeout(now);
        }
        while engine.poll_applied(now, &mut self.batch, 1024) > 0 {
            self.changes += self.batch.len() as u64;
            self.batch.clear();
        }
        engine.handle_committed(now);
        while black_box(engine.poll_event()).is_some() {}
        while let Some(length) = engine.poll_transmit(now, &mut self.slot) {
            black_box(&self.slot[..length]);
            self.frames += 1;
        }
    }
}

/// A master and its backup, in sync, without anything between them.
struct Nodes {
    now: Instant,
    master: Engine,
    backup: Engine,
}

impl Nodes {
    /// Time that two engines have to come into sync.
    const PATIENCE: Duration = Duration::from_secs(20);

    fn in_sync() -> Option<Self> {
        let engine = |node: u32| {
            let config = Config {
                incarnation: u64::from(node),
                seed: 5,
                capacity: FLOWS + FLOWS / 8,
                frame_len: FRAME_LEN.max(FRAME_LEN_MIN),
                role: RoleMode::Manual,
                ..Config::new(NodeId(node), 81)
            };
            let mut engine = Engine::new(config, START).ok()?;
            engine.handle_link(START, true);
            Some(engine)
        };
        let mut nodes = Nodes { now: START, master: engine(1)?, backup: engine(2)? };
        nodes.backup.set_role(START, RoleRequest::Backup);
        nodes.master.set_role(START, RoleRequest::Master);
        nodes.until(|nodes| nodes.master.role() == Role::Master)?;
        nodes.master.begin_dump(nodes.now);
        for number in 0..FLOWS {
            nodes.master.update(nodes.now, &Change::Upsert(workload::flow(number, 1))).ok()?;
        }
        nodes.master.end_dump(nodes.now);
        nodes.until(|nodes| {
            let held = nodes.backup.status().entries == u64::from(FLOWS);
            held && nodes.master.pending() == 0 && nodes.backup.sync_state() == SyncState::InSync
        })?;
        // What is still owed to each other, as the last acknowledgement.
        nodes.turn();
        Some(nodes)
    }

    fn until(&mut self, so: impl Fn(&Self) -> bool) -> Option<()> {
        while !so(self) {
            if self.now.since(START) > Self::PATIENCE {
                return None;
            }
            self.turn();
        }
        Some(())
    }

    /// A millisecond: everything that waits leaves, arrives and is applied.
    fn turn(&mut self) {
        self.now += Duration::from_millis(1);
        let (mut slot, mut batch) = ([0; FRAME_LEN], Vec::new());
        let Nodes { now, master, backup } = self;
        for _ in 0..2 {
            exchange(*now, master, backup, &mut slot);
            exchange(*now, backup, master, &mut slot);
        }
        for engine in [master, backup] {
            while engine.poll_applied(*now, &mut batch, 1024) > 0 {
                batch.clear();
            }
            engine.handle_committed(*now);
            while engine.poll_event().is_some() {}
        }
    }

    fn frame_of_master(&mut self) -> Option<Vec<u8>> {
        let mut slot = [0; FRAME_LEN];
        let length = self.master.poll_transmit(self.now, &mut slot)?;
        Some(slot[..length].to_vec())
    }
}

fn exchange(now: Instant, from: &mut Engine, to: &mut Engine, slot: &mut [u8]) {
    from.handle_timeout(now);
    while let Some(length) = from.poll_transmit(now, slot) {
        to.handle_frame(now, META, &mut slot[..length]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_does_what_it_always_does() {
        for (name, ..) in WORKLOADS {
            assert_eq!(run(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn a_workload_that_nobody_knows_is_refused() {
        assert_eq!(run("sleep"), Err("there is no such workload".to_owned()));
    }
}
