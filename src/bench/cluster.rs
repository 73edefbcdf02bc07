//! A master and its backups, a thread each, with a transport between them: records from `update` to the sink.
//!
//! ```text
//!   update ─▶ engine ─ poll_transmit ─▶ transport ═══ transport ─▶ handle_frame ─ engine ─ poll_applied ─▶ counted
//!   (due by the clock, or while few wait)                                        (stamp of each flow's mark: latency)
//! ```
//!
//! Source and sink are not the kernel's: the figures are those of engine, table, wire and transport. Each side takes its turns
//! and its rests as the daemon's loop does. Keys are visited in an order that no prefetcher guesses, and none twice before
//! all: no record takes another one with it.

use super::BenchError;
use super::Doing;
use super::rest::{Resting, Spent, Stopwatch};
use super::ways::Link;
use super::workload;
use crate::daemon::pace::Found;
use crate::engine::{Config, Engine, Role, RoleMode, RoleRequest, SyncState};
use crate::flow::{Change, Flow};
use crate::sys::clock;
use crate::time::{Duration, Instant};
use crate::wire::{FRAME_LEN_MAX, FRAME_LEN_MIN, NodeId, SECRET_LEN, Secret};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// Time in which engines must have come into sync.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Batches that one turn receives, and sends.
const BATCHES_PER_TURN: usize = 8;
/// Changes that one turn takes from an engine to its sink, at a time.
const SINK_BATCH: usize = 1024;
/// Records that may wait in a master that is fed as fast as it goes: eight batches of full frames.
const WAITING_MAX: u32 = 8 * 64 * 60;
/// Longest rest of a side: it looks then whether all is over.
const LOOK: Duration = Duration::from_millis(5);
/// Stamps that are remembered: more than records are under way.
const STAMPS: usize = 1 << 20;
/// A flow's mark is above this by the number of its stamp; other flows have none.
const STAMPED: u32 = 1 << 31;
/// Latencies that one run keeps.
const LATENCIES_MAX: usize = 1 << 20;
/// Time between two ADVERTs. Roles are given by hand: nobody waits for one, and a side may stand still for three of them.
const ADVERT_INTERVAL: Duration = Duration::from_millis(500);
/// Times that a master which has lost its role on a busy machine is filled anew.
const FILLS_MAX: usize = 5;

/// What a cluster is to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    /// Flows that its tables hold.
    pub(super) flows: u32,
    /// Whether its frames are sealed.
    pub(super) sealed: bool,
    /// Its group.
    pub(super) sync_id: u8,
}

/// Nodes in sync, the first of which is master.
pub(super) struct Cluster {
    master: Side,
    backups: Vec<Side>,
    flows: u32,
    next: u32,
    round: u32,
}

/// One node.
struct Side {
    engine: Engine,
    link: Link,
    resting: Resting,
    batch: Vec<Change>,
}

/// How a master is fed.
#[derive(Clone, Copy)]
enum Feed {
    /// As fast as it goes.
    FlatOut,
    /// So many records a second, each with a stamp; with a period, each alone.
    Paced { per_s: f64 },
}

/// What one run came to.
#[derive(Debug)]
pub(super) struct Run {
    /// Records that left the master.
    pub(super) sent: u64,
    /// Records that a backup's table took: of several, on average.
    pub(super) received: u64,
    /// Changes that a backup's sink was given: of several, the one with the fewest.
    pub(super) applied: u64,
    /// What the master's thread used.
    pub(super) sender: Spent,
    /// What a backup's thread used: of several, on average.
    pub(super) receiver: Spent,
    /// Nanoseconds from when a record was due to when the sink had it.
    pub(super) latencies_ns: Vec<u64>,
}

impl Cluster {
    /// Opens an engine at each link, the first one's the master, fills its table, and waits until all backups are in sync.
    pub(super) fn open(mut links: Vec<Link>, setup: Setup) -> Result<Self, BenchError> {
        if links.len() < 2 {
            return Err(BenchError::NobodyThere);
        }
        let now = clock::now();
        let master = Side::open(now, 1, links.remove(0), setup)?;
        let backups =
            (2..).zip(links).map(|(node, link)| Side::open(now, node, link, setup)).collect::<Result<_, _>>()?;
        let mut cluster = Cluster { master, backups, flows: setup.flows, next: 0, round: 0 };
        cluster.backups.iter_mut().for_each(|backup| backup.engine.set_role(now, RoleRequest::Backup));
        cluster.settle()?;
        Ok(cluster)
    }

    /// Waits until every backup is in sync and has everything; a master that is none, or no longer, is made one.
    fn settle(&mut self) -> Result<(), BenchError> {
        for _ in 0..FILLS_MAX {
            if self.master.engine.role() != Role::Master {
                self.fill()?;
            }
            self.until("the cluster does not come to rest", |it| {
                it.master.engine.role() != Role::Master || it.is_in_sync() && it.is_level()
            })?;
            if self.master.engine.role() == Role::Master && self.is_full() {
                return Ok(());
            }
        }
        Err(BenchError::Stuck("the master stands still too often to keep its role: other work has the processors"))
    }

    /// Makes the first side master, and gives it all flows; it may lose the role meanwhile, as who stands still for three
    /// ADVERTs does.
    fn fill(&mut self) -> Result<(), BenchError> {
        self.master.engine.set_role(clock::now(), RoleRequest::Master);
        self.until("the master is not master", |it| it.master.engine.role() == Role::Master)?;
        self.master.engine.begin_dump(clock::now());
        for number in 0..self.flows {
            let change = Change::Upsert(workload::flow(number, 1));
            if self.master.engine.update(clock::now(), &change).is_err() {
                return Ok(());
            }
            if number % 1024 == 0 {
                self.turn()?;
            }
        }
        self.master.engine.end_dump(clock::now());
        Ok(())
    }

    fn is_in_sync(&self) -> bool {
        self.master.is_idle() && self.backups.iter().all(|backup| backup.engine.sync_state() == SyncState::InSync)
    }

    fn is_full(&self) -> bool {
        self.backups.iter().all(|backup| backup.engine.status().entries == u64::from(self.flows))
    }

    /// Whether every backup has everything that the master has sent.
    fn is_level(&self) -> bool {
        let sent = self.master.engine.status().stream_seq;
        self.backups.iter().all(|backup| backup.engine.frontier() >= sent)
    }

    /// Records as fast as they go.
    pub(super) fn flood(&mut self, time: Duration) -> Result<Run, BenchError> {
        self.run(Feed::FlatOut, time)
    }

    /// So many records a second, with their latencies.
    pub(super) fn paced(&mut self, per_s: f64, time: Duration) -> Result<Run, BenchError> {
        self.run(Feed::Paced { per_s }, time)
    }

    fn run(&mut self, feed: Feed, time: Duration) -> Result<Run, BenchError> {
        self.settle()?;
        let stamps: Vec<AtomicU64> = (0..STAMPS).map(|_| AtomicU64::new(0)).collect();
        let over = AtomicBool::new(false);
        let Cluster { master, backups, flows, next, round } = self;
        let sent_before = master.engine.counters().records_sent;
        thread::scope(|scope| {
            let hearing = backups.iter_mut().map(|backup| {
                let receiver = thread::Builder::new().name("receiver".into());
                receiver.spawn_scoped(scope, || hear(backup, &stamps, &over)).doing("starting a thread")
            });
            let hearing = hearing.collect::<Result<Vec<_>, _>>();
            let mut keys = Keys { flows: *flows, next, round };
            let said = say(master, feed, &mut keys, &stamps, clock::now() + time);
            over.store(true, Ordering::Relaxed);
            let heard = hearing?.into_iter().map(|thread| thread.join().map_err(|_| BenchError::Panicked)?);
            let heard: Vec<Heard> = heard.collect::<Result<_, _>>()?;
            let (sent, sender) = said?;
            Ok(Run::of(sent - sent_before, sender, heard))
        })
    }

    /// A turn of each, in this thread.
    pub(super) fn turn(&mut self) -> Result<(), BenchError> {
        let now = clock::now();
        self.master.turn(now, |_| ())?;
        for backup in &mut self.backups {
            backup.turn(now, |_| ())?;
        }
        Ok(())
    }

    fn until(&mut self, otherwise: &'static str, so: impl Fn(&Self) -> bool) -> Result<(), BenchError> {
        let start = clock::now();
        while !so(self) {
            if clock::now().since(start) > READY_WITHIN {
                return Err(BenchError::Stuck(otherwise));
            }
            self.turn()?;
        }
        Ok(())
    }
}

impl Run {
    /// Changes a second that came to a backup's sink.
    pub(super) fn applied_per_s(&self) -> f64 {
        self.applied as f64 / self.sender.wall_s
    }

    /// Seconds of processor that the master used for a million records.
    pub(super) fn sender_per_million(&self) -> Option<f64> {
        Some(self.sender.processor_s / self.sent as f64 * 1e6)
    }

    /// The same of a backup.
    pub(super) fn receiver_per_million(&self) -> Option<f64> {
        Some(self.receiver.processor_s / self.received as f64 * 1e6)
    }

    fn of(sent: u64, sender: Spent, heard: Vec<Heard>) -> Self {
        let received = heard.iter().map(|it| it.received).sum::<u64>() / heard.len().max(1) as u64;
        let applied = heard.iter().map(|it| it.applied).min().unwrap_or(0);
        let mean = |seconds: fn(&Spent) -> f64| {
            heard.iter().map(|it| seconds(&it.spent)).sum::<f64>() / heard.len().max(1) as f64
        };
        let receiver = Spent { wall_s: mean(|spent| spent.wall_s), processor_s: mean(|spent| spent.processor_s) };
        let latencies_ns = heard.into_iter().flat_map(|it| it.latencies_ns).collect();
        Run { sent, received, applied, sender, receiver, latencies_ns }
    }
}

impl Side {
    fn open(now: Instant, node: u32, link: Link, setup: Setup) -> Result<Self, BenchError> {
        let Setup { flows, sealed, sync_id } = setup;
        let frame_len = link.limits().frame_len;
        let config = Config {
            incarnation: clock::random_u64(),
            seed: clock::random_u64(),
            secrets: Secret::new(0, &[0x5a; SECRET_LEN]).filter(|_| sealed).into_iter().collect(),
            capacity: flows + flows / 8,
            frame_len: frame_len.clamp(FRAME_LEN_MIN, FRAME_LEN_MAX),
            role: RoleMode::Manual,
            advert_interval: ADVERT_INTERVAL,
            ..Config::new(NodeId(node), sync_id)
        };
        let mut engine = Engine::new(config, now)?;
        engine.handle_link(now, true);
        if let Some(frames) = link.counters().receive_room(frame_len) {
            engine.set_receive_room(frames);
        }
        Ok(Side { engine, link, resting: Resting::new(), batch: Vec::with_capacity(SINK_BATCH) })
    }

    /// One turn, in the daemon's order: receive, time, sink, send. `sink` sees each change.
    fn turn(&mut self, now: Instant, mut sink: impl FnMut(&[Change])) -> Result<Found, BenchError> {
        let Side { engine, link, batch, .. } = self;
        let (mut received, mut sent, mut more) = (0, 0, true);
        for _ in 0..BATCHES_PER_TURN {
            let frames = link.receive(&mut |meta, frame| engine.handle_frame(now, meta, frame)).doing("receiving")?;
            received += frames;
            more = frames >= link.limits().batch;
            if !more {
                break;
            }
        }
        if engine.poll_timeout().is_some_and(|due| due <= now) {
            engine.handle_timeout(now);
        }
        while engine.poll_applied(now, batch, SINK_BATCH) > 0 {
            sink(batch);
            batch.clear();
        }
        engine.handle_committed(now);
        while engine.poll_event().is_some() {}
        for _ in 0..BATCHES_PER_TURN {
            let frames = link.transmit(&mut |slot| engine.poll_transmit(now, slot)).doing("sending")?;
            sent += frames;
            if frames == 0 {
                break;
            }
        }
        Ok(match (received + sent, link.pending()) {
            (_, 1..) => Found::FullQueue,
            _ if more => Found::MoreThanOneTurn,
            (0, 0) => Found::Nothing,
            _ => Found::Work,
        })
    }

    /// Rests until something arrives, a deadline of the engine, or `most`.
    fn rest(&mut self, found: Found, most: Duration) {
        let now = clock::now();
        let due = self.engine.poll_timeout().map_or(LOOK, |at| at.since(now));
        self.resting.rest(found, || self.link.readiness(), due.min(most).min(LOOK));
    }

    fn is_idle(&self) -> bool {
        self.link.pending() == 0 && self.engine.pending() == 0
    }
}

/// The keys in turn, and a value that each has not had yet.
struct Keys<'a> {
    flows: u32,
    next: &'a mut u32,
    round: &'a mut u32,
}

impl Keys<'_> {
    fn flow(&mut self) -> Flow {
        let number = *self.next;
        *self.next += 1;
        if *self.next >= self.flows {
            (*self.next, *self.round) = (0, self.round.wrapping_add(1));
        }
        workload::flow(number, 2 + (*self.round % 200) as u8)
    }
}

/// The master's thread: takes changes in and turns until the time is over. Records that have left, in all.
fn say(
    side: &mut Side,
    feed: Feed,
    keys: &mut Keys<'_>,
    stamps: &[AtomicU64],
    until: Instant,
) -> Result<(u64, Spent), BenchError> {
    let (watch, start) = (Stopwatch::start(), clock::now());
    // A key that waits already would wait no more: then no record is sent for it.
    let (mut begun, waiting_most) = (0_u64, WAITING_MAX.min(keys.flows / 2));
    let mut now = clock::now();
    // Asked at the end, so that a machine that stood still has had a turn all the same.
    loop {
        let mut most = LOOK;
        match feed {
            Feed::FlatOut => {
                for _ in side.engine.pending()..waiting_most {
                    // Refused by nobody: every key is held already.
                    let _ = side.engine.update(now, &Change::Upsert(keys.flow()));
                }
            }
            Feed::Paced { per_s } => {
                let due = |number: u64| start + Duration::from_secs_f64(number as f64 / per_s);
                while due(begun) <= now {
                    let stamp = begun as usize % STAMPS;
                    stamps[stamp].store(due(begun).as_nanos(), Ordering::Relaxed);
                    let flow = Flow { mark: STAMPED + stamp as u32, ..keys.flow() };
                    let _ = side.engine.update(now, &Change::Upsert(flow));
                    begun += 1;
                }
                most = due(begun).since(now);
            }
        }
        let found = side.turn(now, |_| ())?;
        let rest = matches!(feed, Feed::Paced { .. }) || found == Found::FullQueue;
        if rest || side.engine.pending() >= waiting_most {
            side.rest(found, most.min(due_left(until)));
        }
        now = clock::now();
        if now >= until {
            break;
        }
    }
    Ok((side.engine.counters().records_sent, watch.stop()))
}

fn due_left(until: Instant) -> Duration {
    until.since(clock::now())
}

/// What the backup's thread has seen.
struct Heard {
    received: u64,
    applied: u64,
    spent: Spent,
    latencies_ns: Vec<u64>,
}

/// The backup's thread: turns until it is over and nothing comes any more.
fn hear(side: &mut Side, stamps: &[AtomicU64], over: &AtomicBool) -> Result<Heard, BenchError> {
    let mut latencies_ns = Vec::with_capacity(LATENCIES_MAX);
    let (watch, mut applied, before) = (Stopwatch::start(), 0, side.engine.counters().records_applied);
    loop {
        let last = over.load(Ordering::Relaxed);
        let found = side.turn(clock::now(), |changes| {
            applied += changes.len() as u64;
            let now = clock::now().as_nanos();
            let marks = changes.iter().filter_map(|change| match change {
                Change::Upsert(flow) => flow.mark.checked_sub(STAMPED),
                Change::Delete(_) => None,
            });
            let room = LATENCIES_MAX - latencies_ns.len();
            latencies_ns.extend(marks.take(room).filter_map(|stamp| {
                let begun = stamps.get(stamp as usize)?.load(Ordering::Relaxed);
                (begun > 0).then(|| now.saturating_sub(begun))
            }));
        })?;
        if last && found == Found::Nothing {
            break;
        }
        side.rest(found, LOOK);
    }
    let received = side.engine.counters().records_applied - before;
    Ok(Heard { received, applied, spent: watch.stop(), latencies_ns })
}
