//! The loop of one group: one thread, one turn after the other, bounded work in each.
//!
//! ```text
//!   ┌▶ receive ▶ source ▶ time-outs ▶ sink ▶ audit ▶ role ▶ events ▶ transmit ▶ commands ▶ link ▶ rest ┐
//!   └──────────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Receiving comes before time-outs, so that a full socket buffer never looks like a dead peer. ADVERTs leave from the
//! thread that does the work: a heartbeat of its own would keep a dead engine's address alive. Whatever blocks
//! (addresses, HTTP) runs elsewhere and talks to the loop by channel.
//!
//! What the loop decides itself, and where to look at 3 a.m.:
//! - [`Feed`]: when the source is listened to, and when a dump of it is asked for;
//! - [`Drain`]: when the engine's changes go to the sink, and what happens when the sink refuses;
//! - [`Audit`]: whether the kernel holds what the sink was given;
//! - [`Watch`]: when a link counts as down.

mod commands;
mod duty;
mod fitness;
mod reins;

use crate::bridge::conntrack::Filter;
use crate::bridge::{Sink, Source};
use crate::daemon::audit::{Audit, AuditParts};
use crate::daemon::control::{FLUSHES_MAX, FlushOrder, GroupDesk, LISTINGS_MAX, Listing};
use crate::daemon::drain::Drain;
use crate::daemon::draining::Draining;
use crate::daemon::driven::line::Name;
use crate::daemon::feed::Feed;
use crate::daemon::journal::{Journal, Weight};
use crate::daemon::link::{Line, Verdict, Watch, Way};
use crate::daemon::measures::{Histogram, Measures};
use crate::daemon::notify::Notify;
use crate::daemon::pace::{Found, Pace, Waits};
use crate::daemon::protocol::Protocol;
use crate::daemon::room::{RoomWatch, Wanted};
use crate::daemon::settings::{Commit, Profile, Wait};
use crate::daemon::status::{EventRow, GroupStatus, LinkRow, Rates, WaitRow};
use crate::daemon::takeover::Takeover;
use crate::daemon::track::Heed;
use crate::engine::{Counters, KernelRoom, Role, Tuning};
use crate::sys::poll::{self, Descriptors};
use crate::time::{Duration, Instant};
use crate::transport::TransportCounters;
use fitness::Fitness;
use reins::Reins;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// Calls of the transport, in each direction, that one turn makes.
pub const BATCHES_PER_TURN: usize = 8;
/// Events that one turn takes from the engine.
pub const EVENTS_PER_TURN: usize = 256;
/// Commands that one turn answers.
pub const COMMANDS_PER_TURN: usize = 4;
/// Longest time that the last frames of a leaving node may take.
pub const FAREWELL: Duration = Duration::from_millis(100);
/// Intervals of silence after which the peers take a master for dead, and this node its own link.
const INTERVALS_OF_PATIENCE: u32 = 3;
/// Time that rates are measured over.
const METER_INTERVAL: Duration = Duration::from_secs(1);
/// Time between two looks whether the addresses of a master that gives its role away are gone.
const WITHDRAWAL_LOOK: Duration = Duration::from_micros(200);
/// Time between two looks at a source that has nothing to wait on.
pub const POLLED_SOURCE_INTERVAL: Duration = Duration::from_millis(1);

/// What a driver is made of.
#[allow(missing_debug_implementations, reason = "transports, sources and sinks need not be printable")]
pub struct Parts {
    /// The protocol.
    pub engine: Protocol,
    /// Frames in and out.
    pub line: Box<dyn Line>,
    /// Where flows come from.
    pub source: Option<Box<dyn Source>>,
    /// Where flows go to.
    pub sink: Option<Box<dyn Sink>>,
    /// Which flows source and audit were told to take.
    pub filter: Filter,
    /// When a backup writes into the sink.
    pub commit: Commit,
    /// Who compares what the sink has really become with the table.
    pub audit: AuditParts,
    /// Who adds and removes the addresses; none if the group has none.
    pub takeover: Option<Takeover>,
    /// What the priority depends on.
    pub tracks: Heed,
    /// The engine's settings, with the configured priority.
    pub tuning: Tuning,
    /// Who is told of the role.
    pub notify: Notify,
    /// Where commands come from.
    pub desk: GroupDesk,
    /// What happened before the driver was made.
    pub journal: Journal,
    /// Time from the end of one dump of the source to the next.
    pub dump_interval: Duration,
    /// Time between two ADVERTs.
    pub advert_interval: Duration,
    /// How the loop waits.
    pub wait: Wait,
    /// Largest frame that the engine makes until the line's limit changes.
    pub frame_len: usize,
    /// What tells the time; the system's clock, in life.
    pub clock: Box<dyn Fn() -> Instant>,
}

/// The loop of one group.
#[allow(missing_debug_implementations, reason = "transports, sources and sinks need not be printable")]
pub struct Driver {
    engine: Protocol,
    line: Box<dyn Line>,
    feed: Feed,
    filter: Filter,
    drain: Drain,
    audit: Audit,
    room: RoomWatch,
    takeover: Option<Takeover>,
    fitness: Fitness,
    notify: Notify,
    /// If keepalived decides the role.
    reins: Option<Reins>,
    desk: GroupDesk,
    journal: Journal,
    watch: Watch,
    tap_failed: bool,
    pace: Pace,
    role: Role,
    /// The group's addresses are to be here.
    holds_addresses: bool,
    /// They are not to be here, and the role waits until they are gone.
    withdraws: bool,
    draining: Draining,
    frame_len: usize,
    listings: Vec<Listing>,
    flushes: Vec<FlushOrder>,
    turns: u64,
    /// When the next turn is due; `None` if it only waits for something to happen.
    due_at: Option<Instant>,
    /// Frames came in the last turn.
    heard: bool,
    /// When this node began to take the role over.
    promoting_since: Option<Instant>,
    /// When it became master.
    master_since: Option<Instant>,
    last_commit: Duration,
    lateness: Histogram,
    commits: Histogram,
    takeovers: Histogram,
    meter: Meter,
    clock: Box<dyn Fn() -> Instant>,
}

/// What was counted a while ago, and the rates that follow from it.
struct Meter {
    at: Instant,
    counters: Counters,
    rates: Option<Rates>,
}

/// What one turn has found so far.
#[derive(Clone, Copy, Default)]
pub(crate) struct Load {
    pub(crate) worked: bool,
    pub(crate) more: bool,
    pub(crate) queue_full: bool,
}

impl Driver {
    /// A driver that has not turned yet.
    pub fn new(parts: Parts) -> Self {
        let now = (parts.clock)();
        let role = parts.engine.role();
        let meter = Meter { at: now, counters: parts.engine.counters(), rates: None };
        Driver {
            engine: parts.engine,
            line: parts.line,
            feed: Feed::new(parts.source, parts.dump_interval),
            filter: parts.filter,
            drain: Drain::new(parts.sink, parts.commit),
            audit: Audit::new(parts.audit, now),
            room: RoomWatch::default(),
            takeover: parts.takeover,
            fitness: Fitness::new(parts.tuning, parts.tracks),
            notify: parts.notify,
            reins: None,
            desk: parts.desk,
            journal: parts.journal,
            // As long as the peers wait before they take over: RFC 9568's Master_Down_Interval without the skew.
            watch: Watch::new(now, parts.advert_interval * INTERVALS_OF_PATIENCE),
            tap_failed: false,
            pace: Pace::new(parts.wait),
            role,
            holds_addresses: false,
            withdraws: false,
            draining: Draining::default(),
            frame_len: parts.frame_len,
            listings: Vec::with_capacity(LISTINGS_MAX),
            flushes: Vec::with_capacity(FLUSHES_MAX),
            turns: 0,
            due_at: None,
            heard: false,
            promoting_since: None,
            master_since: None,
            last_commit: Duration::ZERO,
            lateness: Histogram::of_lateness(),
            commits: Histogram::of_takeovers(),
            takeovers: Histogram::of_takeovers(),
            meter,
            clock: parts.clock,
        }
    }

    /// The same, driven by what keepalived says of an instance in a FIFO.
    pub fn driven_by(mut self, fifo: &Path, instance: &Name, advert_interval: Duration) -> Self {
        self.reins = Some(Reins::new(fifo, instance, advert_interval));
        self
    }

    /// The same, with the wishes that were heard before there was an engine.
    pub fn drained_by(mut self, draining: Draining) -> Self {
        let now = (self.clock)();
        if !draining.is_empty() && self.engine.set_draining(now, true).is_ok() {
            self.draining = draining;
        }
        self
    }

    /// Turns until the desk says stop, then gives the role away and says goodbye.
    pub fn run(mut self) {
        self.start();
        while !self.desk.stopped() {
            let found = self.turn();
            self.rest(found);
        }
        self.give_away();
        self.leave();
    }

    /// Tells the engine how its link stands; to be called once, before the first turn.
    pub fn start(&mut self) {
        let now = (self.clock)();
        let fills = self.audit.room().is_some() && self.engine.ssyncp1().is_some();
        self.feed.set_keeps(self.audit.keeps());
        self.feed.start(now, &mut self.engine, fills, &mut self.journal);
        self.follow_receive_room();
        if self.line.is_up() {
            self.engine.handle_link(now, true);
        } else {
            self.journal.note(now, Weight::Warning, "LinkDown", "no sync link is up yet".into());
            self.watch.look(now, false);
        }
    }

    /// One turn.
    pub fn turn(&mut self) -> Found {
        let now = (self.clock)();
        let mut load = Load::default();
        self.turns += 1;
        self.desk.turned(now);
        self.note_lateness(now);
        self.receive(now, &mut load);
        self.feed.turn(now, &mut self.engine, self.drain.settled(), &mut self.journal, &mut load);
        if self.feed.take_unheard() {
            self.audit.hurry(now);
        }
        self.follow_tracks(now);
        self.engine.handle_timeout(now);
        self.follow_keepalived(now);
        self.drain.turn(&*self.clock, &mut self.engine, &mut self.journal, &mut load);
        if let Some(engine) = self.engine.ssyncp1() {
            self.audit.turn(now, engine, &mut self.drain, &mut self.journal);
        }
        self.look_at_room(now);
        self.follow_role(now);
        self.note_events(now);
        self.transmit(now, &mut load);
        load.more |= self.drain.is_owed(&self.engine);
        self.answer(now, &mut load);
        self.flush(now);
        self.look_at_link(now);
        match load {
            Load { more: true, .. } => Found::MoreThanOneTurn,
            Load { queue_full: true, .. } => Found::FullQueue,
            Load { worked: true, .. } => Found::Work,
            Load { .. } => Found::Nothing,
        }
    }

    /// How late this turn begins, if a timer asked for it; and the rates of the last second.
    fn note_lateness(&mut self, now: Instant) {
        if let Some(due) = self.due_at.take()
            && now >= due
        {
            self.lateness.observe(now.since(due));
        }
        let over = now.since(self.meter.at);
        if over >= METER_INTERVAL {
            let counters = self.engine.counters();
            self.meter = Meter { at: now, counters, rates: Some(rates(&self.meter.counters, &counters, over)) };
        }
    }

    fn receive(&mut self, now: Instant, load: &mut Load) {
        self.heard = false;
        if !self.watch.usable() {
            return;
        }
        let engine = &mut self.engine;
        for _ in 0..BATCHES_PER_TURN {
            match self.line.receive(&mut |meta, frame| engine.handle_frame(now, meta, frame)) {
                Ok(0) => return,
                Ok(_) => {
                    (load.worked, self.heard) = (true, true);
                    self.watch.moved(Way::In);
                }
                Err(error) => return self.link_failed(now, Way::In, &error),
            }
        }
        load.more = true;
    }

    fn transmit(&mut self, now: Instant, load: &mut Load) {
        if !self.watch.usable() {
            return;
        }
        self.send_batches(now, load);
        // A ring that the kernel has not emptied took them all the same, and nothing will call when it has.
        load.queue_full |= self.line.pending() > 0;
    }

    fn send_batches(&mut self, now: Instant, load: &mut Load) {
        for _ in 0..BATCHES_PER_TURN {
            let engine = &mut self.engine;
            let (mut asked, mut filled) = (false, 0);
            let sent = self.line.transmit(&mut |slot| {
                asked = true;
                let length = engine.poll_transmit(now, slot);
                filled += usize::from(length.is_some());
                length
            });
            match sent {
                Ok(sent) => {
                    load.worked |= sent > 0;
                    if sent > 0 {
                        self.watch.moved(Way::Out);
                    }
                    // Not asked for a frame, or not rid of those that it got: a queue below us is full, and nothing
                    // will call when it has drained.
                    if !asked || filled > sent {
                        load.queue_full = true;
                        return;
                    }
                    if filled == 0 {
                        return;
                    }
                }
                Err(error) => return self.link_failed(now, Way::Out, &error),
            }
        }
        load.more = true;
    }

    fn link_failed(&mut self, now: Instant, way: Way, error: &std::io::Error) {
        let doing = if way == Way::In { "receiving" } else { "sending" };
        if !self.watch.failing() {
            self.journal.note(now, Weight::Warning, "TransportFailed", format!("{doing} failed: {error}"));
        }
        if self.watch.failed(now, way) == Verdict::WentDown {
            self.journal.note(now, Weight::Failure, "TransportFailed", format!("{doing} still fails: {error}"));
            self.engine.handle_link(now, false);
        }
    }

    fn look_at_link(&mut self, now: Instant) {
        let due = now >= self.watch.look_at();
        if due {
            self.line.look();
        }
        let changed = self.note_links(now);
        self.follow_frame_len(now);
        if !due && !changed {
            return;
        }
        if !self.tap_failed
            && let Some(trouble) = self.line.tap().and_then(|tap| tap.trouble)
        {
            self.tap_failed = true;
            self.journal.note(now, Weight::Failure, "TapFailed", format!("the recording has ended: {trouble}"));
        }
        match self.watch.look(now, self.line.is_up()) {
            Verdict::Steady => {}
            Verdict::WentDown => self.engine.handle_link(now, false),
            Verdict::Reopen => self.reopen(now),
        }
    }

    /// Says which links have gone down or come back; whether there was one.
    fn note_links(&mut self, now: Instant) -> bool {
        let mut changed = false;
        while let Some(link) = self.line.next_change() {
            changed = true;
            if link.up() {
                self.journal.note(now, Weight::Notice, "LinkUp", format!("sync link {} is up", link.name));
            } else {
                let text = format!("sync link {} is down: {}", link.name, link.condition.words());
                self.journal.note(now, Weight::Warning, "LinkDown", text);
            }
        }
        changed
    }

    /// Has the engine make its frames as large as the links carry now.
    fn follow_frame_len(&mut self, now: Instant) {
        let carries = self.engine.frame_len(self.line.limits().frame_len);
        let before = std::mem::replace(&mut self.frame_len, carries);
        if before == carries {
            return;
        }
        self.engine.set_frame_len(carries);
        self.follow_receive_room();
        let text =
            format!("frames have up to {carries} bytes now, before {before}: the MTU of a sync link has changed");
        self.journal.note(now, Weight::Notice, "FrameLengthChanged", text);
    }

    /// Tells the engine what the line's buffers hold, which is what it may be sent while it does something else.
    fn follow_receive_room(&mut self) {
        if let Some(frames) = self.line.counters().receive_room(self.line.limits().frame_len) {
            self.engine.set_receive_room(frames);
        }
    }

    fn look_at_room(&mut self, now: Instant) {
        if !self.room.is_due(now) {
            return;
        }
        let Some(room) = self.audit.room() else { return };
        let master = self.engine.peer_room().filter(|_| self.role == Role::Backup);
        let wanted = Wanted { capacity: self.engine.capacity(), master };
        let room = self.room.look(now, room, &wanted, &mut self.journal).unwrap_or_default();
        let short = |number| u32::try_from(number).unwrap_or(u32::MAX);
        let told = KernelRoom { capacity: short(room.capacity), buckets: short(room.buckets) };
        self.engine.set_kernel_room(told);
    }

    fn reopen(&mut self, now: Instant) {
        if let Err(error) = self.line.reopen() {
            return tracing::debug!(group = self.desk.sync_id, "the link cannot be opened yet: {error}");
        }
        let up = self.line.is_up();
        self.watch.reopened(up);
        if up {
            self.engine.handle_link(now, true);
        }
    }

    /// The state with everything that was measured; allocates.
    fn measures(&self, now: Instant) -> Measures {
        Measures {
            status: self.status(now),
            lateness: self.lateness.clone(),
            commits: self.commits.clone(),
            takeovers: self.takeovers.clone(),
        }
    }

    /// Everything that is known of this group; allocates.
    pub fn status(&self, now: Instant) -> GroupStatus {
        let engine = self.engine.status();
        let mut status = GroupStatus::of_engine(&engine, now);
        status.profile = self.engine.profile();
        status.draining = self.draining.names();
        status.configured_priority = (status.profile == Profile::Ssyncp1).then(|| self.fitness.configured_priority());
        status.tracks = self.fitness.heed().rows(now);
        status.unapplied += self.drain.in_hand();
        status.link_up &= self.watch.usable();
        status.frame_len = self.frame_len as u64;
        status.links = self.line.links().iter().map(LinkRow::new).collect();
        status.transport = Some(status.links.first().map_or("memory", |link| &link.transport).to_owned());
        status.trouble = self.feed.trouble().or_else(|| self.drain.trouble());
        if let Some(reins) = &self.reins {
            status.trouble = status.trouble.or_else(|| reins.trouble());
            status.count("keepalived", reins.counters());
        }
        status.kernel_verified = self.audit.verified(now);
        status.kernel = self.room.row(self.engine.peer_room());
        status.addresses = self.takeover.as_ref().map(Takeover::status).unwrap_or_default();
        status.routes = self.takeover.as_ref().map(Takeover::routes).unwrap_or_default();
        status.count("engine", engine.counters);
        status.count("transport", transport_counters(self.line.counters()));
        if let Some(tap) = self.line.tap() {
            status.count("tap", [("packets", tap.packets), ("bytes", tap.bytes), ("dropped", tap.dropped)]);
            status.tap_trouble = tap.trouble;
        }
        status.count("source", self.feed.source_counters());
        status.count("sink", self.drain.sink_counters());
        status.count("driver", self.feed.counters());
        status.count("driver", self.drain.counters());
        status.count("driver", self.audit.counters());
        status.count("driver", [("turns", self.turns)]);
        let (wait, rests) = (self.pace.wait(), self.pace.rests());
        status.wait = Some(WaitRow::new(wait));
        let rests = [("naps", rests.naps), ("naps_in_vain", rests.naps_in_vain), ("blocks", rests.blocks)];
        status.count("driver", rests);
        status.count("notify", self.notify.counters());
        status.rates = self.meter.rates;
        status.events = self.journal.count();
        status.last_events = self.journal.entries().map(|entry| EventRow::new(entry, now)).collect();
        status
    }

    /// Rests after a turn, for as long as what it found allows.
    pub fn rest(&mut self, found: Found) {
        let now = (self.clock)();
        let mut deadline = self.watch.look_at();
        let bridges = [self.feed.wake_at(now, self.drain.settled()), self.drain.wake_at(), self.audit.wake_at()];
        let flushes = self.flushes.iter().map(|order| order.deadline);
        let roles = [self.engine.poll_timeout(), self.reins.as_ref().and_then(Reins::wake_at)];
        for at in bridges.into_iter().chain(roles).flatten().chain(flushes) {
            deadline = deadline.min(at);
        }
        if self.withdraws {
            deadline = deadline.min(now + WITHDRAWAL_LOOK);
        }
        // What is due at once was not asked for by a timer.
        self.due_at = (deadline > now).then_some(deadline);
        let left = deadline.since(now);
        let gathers = self.engine.gathers_until().filter(|until| *until > now).map(|until| until.since(now));
        match self.pace.after(now, found, left.is_zero()).waits(found, self.heard, left, gathers) {
            Waits::No => {}
            Waits::Nap(nap) => std::thread::sleep(nap),
            Waits::Frames(most) => self.block(most, None),
            Waits::FramesAndSource(most) => self.block(most, self.feed.readiness()),
        }
    }

    /// Until a frame comes, somebody asks, `source` has something, or `most` has passed.
    fn block(&self, most: Duration, source: Option<BorrowedFd<'_>>) {
        let waker = self.desk.waker();
        let line = if self.watch.failing() { Descriptors::default() } else { self.line.readiness() };
        let mut descriptors: Descriptors<'_> = [waker.as_fd()].into_iter().collect();
        descriptors.extend(line.iter().copied().chain(source));
        // A link that fails is not waited on, because its error could be ready for ever; a nap keeps the loop from
        // spinning.
        let most = if self.watch.failing() && self.watch.usable() { most.min(Duration::from_millis(1)) } else { most };
        match poll::wait_and_tell(&descriptors, Some(most)) {
            Ok(woken) if woken => waker.drain(),
            Ok(_) => {}
            Err(error) => {
                tracing::error!(group = self.desk.sync_id, "waiting failed: {error}");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

fn rates(before: &Counters, now: &Counters, over: Duration) -> Rates {
    let rate = |count: fn(&Counters) -> u64| (count(now) - count(before)) as f64 / over.as_secs_f64();
    Rates {
        over_s: over.as_secs_f64(),
        frames_received_per_s: rate(|counters| counters.frames_received),
        frames_sent_per_s: rate(|counters| counters.frames_sent),
        records_received_per_s: rate(|counters| counters.records_applied),
        records_sent_per_s: rate(|counters| counters.records_sent),
        updates_per_s: rate(|counters| counters.updates),
    }
}

fn transport_counters(counters: TransportCounters) -> [(&'static str, u64); 11] {
    [
        ("frames_received", counters.frames_received),
        ("bytes_received", counters.bytes_received),
        ("frames_sent", counters.frames_sent),
        ("bytes_sent", counters.bytes_sent),
        ("ttl_refused", counters.ttl_refused),
        ("malformed", counters.malformed),
        ("oversized", counters.oversized),
        ("dropped_by_kernel", counters.dropped_by_kernel),
        ("send_errors", counters.send_errors),
        ("receive_buffer_bytes", counters.receive_buffer),
        ("send_buffer_bytes", counters.send_buffer),
    ]
}
