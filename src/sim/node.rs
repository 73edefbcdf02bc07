//! One node: an engine, its kernel, its clock, and the turn that the daemon's loop does (daemon/driver.rs).
//!
//! ```text
//!   receive ▶ source ▶ time-outs ▶ sink ▶ audit ▶ role ▶ events ▶ transmit
//! ```
//!
//! A turn has bounded work and takes some time; what comes meanwhile waits in the socket. What the daemon's `Feed` and
//! `Drain` decide (when a dump begins, when a refused batch is written again) is decided here by the same rules.

use super::attacker::{Attacker, Overheard, beset};
use super::coverage::Seen;
use super::kernel::{Heard, Kernel};
use super::network::Network;
use super::options::Seat;
use super::random::Random;
use super::watch::Watch;
use super::world::Agenda;
use crate::engine::{Ack, Auth, Config, Engine, Event, Held, Role, Ticket, UpdateError};
use crate::flow::{Change, SectionChange};
use crate::time::{Duration, Instant};
use crate::wire::{FRAME_LEN_MAX, FrameMeta, Secret};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};

/// Events of the kernel that one turn reads.
const EVENTS_PER_TURN: usize = 64;
/// Batches that one turn writes, and while promoting.
const BATCHES_PER_TURN: usize = 2;
const BATCHES_PER_TURN_PROMOTING: usize = 8;
/// Time after which a batch that was refused is written again.
const SINK_RETRY: Duration = Duration::from_millis(100);
/// Changes of sections, and tickets, that one turn takes.
const SECTIONS_PER_TURN: usize = 256;
/// Changes of sections that wait for the daemon; more are dropped.
const SECTIONS_WAITING_MAX: usize = 64;
/// Turns in a row that were due and did nothing, after which a node counts as spinning.
const SPIN_MAX: u32 = 200;
/// One millionth.
const MILLION: i128 = 1_000_000;

/// A clock of its own: with an offset, and a little fast or slow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    since: Instant,
    showed: Instant,
    drift: i32,
}

impl Clock {
    /// A clock that shows `shows` at `now`.
    pub(super) fn new(now: Instant, shows: Instant, drift: i32) -> Self {
        Clock { since: now, showed: shows, drift }
    }

    /// What it shows.
    pub(super) fn local(&self, now: Instant) -> Instant {
        let passed = i128::from(now.since(self.since).as_nanos() as u64);
        let passed = passed * (MILLION + i128::from(self.drift)) / MILLION;
        Instant::from_nanos(self.showed.as_nanos() + passed as u64)
    }

    /// The first moment at which it shows `local` or more.
    pub(super) fn world(&self, local: Instant) -> Instant {
        let passed = i128::from(local.since(self.showed).as_nanos() as u64);
        let rate = MILLION + i128::from(self.drift);
        let passed = (passed * MILLION + rate - 1) / rate;
        Instant::from_nanos(self.since.as_nanos().saturating_add(u64::try_from(passed).unwrap_or(u64::MAX)))
    }

    /// It stood still since then, and goes on from what it showed.
    fn stood(&mut self, since: Instant, now: Instant) {
        (self.since, self.showed) = (now, self.local(since));
    }
}

/// How it stands with the dump of the source; times are the node's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Dump {
    Silent,
    Due(Instant),
    Running,
}

/// Why a node does not run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rest {
    /// The process is stopped; its clock goes on.
    Paused,
    /// The machine is frozen, and its clock with it.
    Frozen,
}

/// What a turn may touch.
pub(super) struct Stage<'a> {
    pub(super) now: Instant,
    pub(super) network: &'a mut Network,
    pub(super) agenda: &'a mut Agenda,
    pub(super) watch: &'a mut Watch,
    pub(super) attacker: Option<&'a mut Attacker>,
    /// One of so many changes is submitted for acknowledgement; 0 is none.
    pub(super) submitted: u64,
}

/// A node.
#[derive(Debug)]
pub(super) struct Node {
    number: usize,
    seat: Seat,
    config: Config,
    dice: Random,
    pub(super) clock: Clock,
    /// In a box, because each turn takes it out and puts it back.
    pub(super) engine: Option<Box<Engine>>,
    pub(super) kernel: Kernel,
    /// It has the addresses: traffic comes here.
    pub(super) holds: bool,
    socket: VecDeque<u32>,
    sections: VecDeque<SectionChange>,
    hand: Vec<Change>,
    retry_at: Option<Instant>,
    settled: bool,
    dump: Dump,
    dumped_at: Option<Instant>,
    /// Dumps that were begun and completed.
    pub(super) dumps: (u64, u64),
    /// When the kernel is compared with the table next, by the node's clock, and how often it was.
    audit_at: Instant,
    pub(super) audits: u64,
    role: Role,
    resting: Option<(Rest, Instant)>,
    /// How many times longer than usual a turn takes.
    pub(super) slowness: u32,
    busy_until: Instant,
    more: bool,
    /// When its turn is on the agenda.
    pub(super) turn_at: Option<Instant>,
    idle_turns: u32,
    /// What a frame is written into.
    slot: Vec<u8>,
    pub(super) frames_sent: u64,
    /// For a breakage only: where the engine of before stood.
    #[cfg(any(test, feature = "breakages"))]
    memory: Option<crate::engine::breakage::Memory>,
}

impl Node {
    pub(super) fn new(number: usize, seat: Seat, config: Config, mut dice: Random) -> Self {
        let shows = Instant::from_nanos(dice.doubling(1_000_000_000, 1 << 50));
        Node {
            clock: Clock::new(Instant::ZERO, shows, seat.drift),
            kernel: Kernel::new(seat.events),
            hand: Vec::with_capacity(seat.batch),
            number,
            seat,
            config,
            dice,
            engine: None,
            holds: false,
            socket: VecDeque::new(),
            sections: VecDeque::new(),
            retry_at: None,
            settled: true,
            dump: Dump::Silent,
            dumped_at: None,
            dumps: (0, 0),
            audit_at: Instant::ZERO,
            audits: 0,
            role: Role::Init,
            resting: None,
            slowness: 1,
            busy_until: Instant::ZERO,
            more: false,
            turn_at: None,
            idle_turns: 0,
            slot: vec![0; FRAME_LEN_MAX],
            frames_sent: 0,
            #[cfg(any(test, feature = "breakages"))]
            memory: None,
        }
    }

    /// The engine, if the node runs.
    pub(super) fn running(&self) -> Option<&Engine> {
        self.engine.as_deref().filter(|_| self.resting.is_none())
    }

    /// Whether its kernel is to hold what its table holds. (A backup's kernel can have lost what its daemon did not hear of
    /// while it was master; the audit that repairs this is not part of a world.)
    pub(super) fn is_source(&self) -> bool {
        self.role == Role::Master
    }

    /// Whether nothing is on its way between kernel and engine.
    pub(super) fn is_settled(&self) -> bool {
        self.settled && self.hand.is_empty() && !self.kernel.has_news() && self.dump != Dump::Running
    }

    /// From now on it writes into its kernel whenever there is something to write.
    pub(super) fn write_continuously(&mut self) {
        self.seat.continuous = true;
    }

    // ------------------------------------------------------------------ life

    /// The daemon starts, with a new incarnation, on the kernel that is there.
    pub(super) fn start(&mut self, now: Instant, link_up: bool, watch: &mut Watch) {
        let incarnation = self.dice.next() | 1;
        let config = Config { incarnation, seed: self.dice.next(), ..self.config.clone() };
        let local = self.clock.local(now);
        let mut engine = match Engine::new(config.clone(), local) {
            Ok(engine) => engine,
            Err(error) => return watch.violated(now, "starts", error.to_string()),
        };
        if self.seat.knows_room {
            engine.set_receive_room(self.seat.socket as u32);
        }
        let preloaded = self.kernel.flows().filter(|flow| engine.preload(local, flow).is_ok()).count();
        if preloaded > 0 {
            watch.saw("preload");
        }
        watch.tell(
            now,
            format_args!("node {} starts, incarnation {incarnation:x}, {preloaded} flows preloaded", self.number),
        );
        #[cfg(any(test, feature = "breakages"))]
        if let Some(memory) = self.memory.take() {
            engine.remember(memory);
        }
        watch.oracle.started(now, self.number, &engine, &config);
        self.kernel.listen(true);
        if link_up {
            engine.handle_link(local, true);
        }
        self.engine = Some(Box::new(engine));
        (self.role, self.dump, self.dumped_at) = (Role::Init, Dump::Silent, None);
        // The clock may have begun anew since.
        self.audit_at = local + self.seat.dump_interval;
        (self.busy_until, self.slowness) = (now, 1);
    }

    /// The daemon dies; its kernel lives on, and so do the addresses for the moment.
    pub(super) fn crash(&mut self, now: Instant, network: &mut Network, watch: &mut Watch) {
        if let Some(engine) = self.engine.take() {
            watch.coverage.engine(engine.counters());
            #[cfg(any(test, feature = "breakages"))]
            (self.memory = engine.memory());
        }
        self.socket.drain(..).for_each(|number| network.land(number));
        self.sections.clear();
        self.hand.clear();
        (self.retry_at, self.settled, self.more) = (None, true, false);
        (self.resting, self.turn_at, self.idle_turns) = (None, None, 0);
        (self.role, self.dump) = (Role::Init, Dump::Silent);
        self.kernel.listen(false);
        watch.oracle.stopped(now, self.number);
    }

    /// The machine starts anew: an empty kernel, and a clock that shows little.
    pub(super) fn reboot(&mut self, now: Instant) {
        self.kernel.reboot();
        #[cfg(any(test, feature = "breakages"))]
        (self.memory = None);
        self.holds = false;
        let shows = Instant::from_nanos(self.dice.doubling(1_000_000_000, 60_000_000_000));
        self.clock = Clock::new(now, shows, self.seat.drift);
    }

    /// It does not run until then.
    pub(super) fn rest(&mut self, rest: Rest, now: Instant) {
        if self.engine.is_some() && self.resting.is_none() {
            self.resting = Some((rest, now));
        }
    }

    /// It runs again; whether its clock stood still meanwhile.
    pub(super) fn wake(&mut self, now: Instant) -> bool {
        let rested = self.resting.take();
        let froze = rested.is_some_and(|(rest, _)| rest == Rest::Frozen);
        if let Some((_, since)) = rested.filter(|_| froze) {
            self.clock.stood(since, now);
        }
        self.busy_until = self.busy_until.max(now);
        froze
    }

    /// Whether it does not run, or takes longer than usual.
    pub(super) fn is_idle(&self) -> bool {
        self.resting.is_some() || self.slowness > 1
    }

    /// From its next start on it has this priority.
    pub(super) fn set_priority(&mut self, priority: u8) {
        self.config.priority = priority;
    }

    /// From now on, and from its next start on, it has these secrets.
    pub(super) fn set_secrets(&mut self, secrets: &[Secret], auth: Auth) {
        (self.config.secrets, self.config.auth) = (secrets.to_vec(), auth);
    }

    /// Whether it is stopped or frozen.
    pub(super) fn is_resting(&self) -> bool {
        self.resting.is_some()
    }

    /// The engine and its own time, if it can be spoken to from outside now.
    pub(super) fn speak(&mut self, now: Instant) -> Option<(Instant, &mut Engine)> {
        let local = self.clock.local(now);
        self.engine.as_deref_mut().filter(|_| self.resting.is_none()).map(|engine| (local, engine))
    }

    /// Its owner wants a section changed.
    pub(super) fn want_section(&mut self, change: SectionChange) {
        if self.sections.len() < SECTIONS_WAITING_MAX {
            self.sections.push_back(change);
        }
    }

    /// A frame has come; whether its socket had room.
    pub(super) fn arrives(&mut self, flight: u32) -> bool {
        let fits = self.engine.is_some() && self.socket.len() < self.seat.socket;
        if fits {
            self.socket.push_back(flight);
        }
        fits
    }

    /// Whether it is up to receive at all.
    pub(super) fn listens(&self) -> bool {
        self.engine.is_some()
    }

    /// When its next turn is due.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let engine = self.running()?;
        let ready = now.max(self.busy_until);
        if self.more || !self.socket.is_empty() || self.kernel.has_news() || !self.sections.is_empty() {
            return Some(ready);
        }
        let dump = match self.dump {
            Dump::Due(at) if self.settled => Some(at),
            Dump::Running => return Some(ready),
            _ => None,
        };
        let audit = (self.seat.continuous && self.settled && engine.proof().is_some()).then_some(self.audit_at);
        let audit = audit.filter(|_| self.hand.is_empty() && !self.kernel.refuses);
        let local = [dump, audit, self.retry_at, engine.poll_timeout()].into_iter().flatten().min()?;
        Some(if local <= self.clock.local(ready) { ready } else { self.clock.world(local) })
    }

    // ------------------------------------------------------------------ the turn

    /// One turn.
    pub(super) fn turn(&mut self, stage: &mut Stage<'_>) {
        let local = self.clock.local(stage.now);
        let Some(mut engine) = self.engine.take() else { return };
        self.more = false;
        let role = self.role;
        let mut worked = self.receive(local, &mut engine, stage);
        worked |= self.feed(local, &mut engine, stage);
        engine.handle_timeout(local);
        stage.watch.oracle.turned(stage.now, self.number, &engine);
        beset(stage, self.number, local, &mut engine);
        worked |= self.drain(local, &mut engine, stage);
        worked |= self.audit(local, &mut engine, stage);
        worked |= self.tickets(&mut engine, stage);
        self.follow_role(local, &engine, stage);
        worked |= self.note_events(&mut engine, stage);
        let before = self.role;
        worked |= self.transmit(local, &mut engine, stage);
        self.follow_role(local, &engine, stage);
        // A goodbye ends a mastership after events and tickets were fetched: no turn that did something is followed by rest.
        self.more |= self.role != before;
        stage.watch.oracle.turned(stage.now, self.number, &engine);
        self.engine = Some(engine);
        self.busy_until = stage.now + self.seat.turn * self.slowness;
        self.mind_spinning(worked || role != self.role, stage);
    }

    /// A node that says that something is due, and does nothing about it, would burn a processor.
    fn mind_spinning(&mut self, worked: bool, stage: &mut Stage<'_>) {
        let again = !worked && self.due(stage.now).is_some_and(|at| at <= self.busy_until);
        self.idle_turns = if again { self.idle_turns + 1 } else { 0 };
        if self.idle_turns > SPIN_MAX {
            let text = format!("node {}: something is due for {SPIN_MAX} turns, and nothing is done", self.number);
            stage.watch.violated(stage.now, "spins", text);
        }
    }

    fn receive(&mut self, local: Instant, engine: &mut Engine, stage: &mut Stage<'_>) -> bool {
        let (now, number, mut taken) = (stage.now, self.number, 0);
        while taken < self.seat.frames_per_turn
            && let Some(flight) = self.socket.pop_front()
        {
            taken += 1;
            let mut frame = std::mem::take(stage.network.flight(flight));
            let meta = FrameMeta { link: frame.link, source: IpAddr::V4(Ipv4Addr::LOCALHOST) };
            if frame.hostile {
                stage.watch.oracle.next_is_hostile();
            }
            let overheard = Overheard::before(stage, engine, &frame.bytes);
            stage.watch.oracle.before_frame(now, number, engine, &frame.bytes);
            engine.handle_frame(local, meta, &mut frame.bytes);
            stage.watch.oracle.after_frame(now, number, engine);
            overheard.after(stage, number, engine);
            *stage.network.flight(flight) = frame;
            stage.watch.operations += 1;
            stage.network.land(flight);
            beset(stage, number, local, engine);
        }
        self.more |= !self.socket.is_empty();
        taken > 0
    }

    // ------------------------------------------------------------------ source

    fn feed(&mut self, local: Instant, engine: &mut Engine, stage: &mut Stage<'_>) -> bool {
        let (now, mut worked) = (stage.now, false);
        if let Dump::Due(at) = self.dump
            && local >= at
            && self.settled
        {
            // First the engine: whatever the source yields from here on is named.
            engine.begin_dump(local);
            stage.watch.oracle.dump_began(now, self.number, engine);
            self.kernel.begin_dump();
            (self.dump, self.dumped_at) = (Dump::Running, Some(local));
            self.dumps.0 += 1;
        }
        for _ in 0..EVENTS_PER_TURN {
            match self.kernel.hear() {
                Heard::Change(change) => self.update(local, engine, &change, stage),
                Heard::Overrun => self.overrun(local, engine, stage),
                Heard::Nothing => break,
            }
            worked = true;
        }
        if self.dump == Dump::Running {
            worked = true;
            self.dump_on(local, engine, stage);
        }
        while let Some(change) = self.sections.pop_front() {
            worked = true;
            self.update_section(local, engine, &change, stage);
        }
        worked
    }

    fn update(&mut self, local: Instant, engine: &mut Engine, change: &Change, stage: &mut Stage<'_>) {
        if self.dump == Dump::Silent {
            return;
        }
        let submitted = stage.submitted > 0 && self.dice.one_in(stage.submitted);
        let taken = if submitted {
            let ack = self.dice.pick(&[Ack::None, Ack::One, Ack::Quorum, Ack::All]);
            // What cannot be waited for has happened all the same.
            match engine.submit(local, change, ack) {
                Err(UpdateError::TicketsFull | UpdateError::MembersUnknown) => {
                    stage.watch.saw("unwaited");
                    engine.update(local, change).map(|()| None)
                }
                taken => taken.map(|ticket| Some((ticket, ack))),
            }
        } else {
            engine.update(local, change).map(|()| None)
        };
        told(stage, taken, |watch, now, ticket| watch.oracle.updated(now, self.number, engine, change, ticket));
    }

    fn update_section(&mut self, local: Instant, engine: &mut Engine, change: &SectionChange, stage: &mut Stage<'_>) {
        let taken = if self.dice.one_in(3) {
            let ack = self.dice.pick(&[Ack::None, Ack::One, Ack::Quorum, Ack::All]);
            engine.submit_section(local, change, ack).map(|ticket| Some((ticket, ack)))
        } else {
            engine.update_section(local, change).map(|()| None)
        };
        told(stage, taken, |watch, now, ticket| watch.oracle.section_updated(now, self.number, engine, change, ticket));
    }

    fn overrun(&mut self, local: Instant, engine: &mut Engine, stage: &mut Stage<'_>) {
        if self.dump == Dump::Silent {
            return;
        }
        stage.watch.happened(Seen("source-overrun"));
        stage.watch.tell(stage.now, format_args!("node {}: the source has lost changes", self.number));
        engine.source_overrun(local);
        self.dump = Dump::Due(self.dumped_at.map_or(local, |at| local.max(at + self.seat.dump_spacing)));
    }

    fn dump_on(&mut self, local: Instant, engine: &mut Engine, stage: &mut Stage<'_>) {
        let mut kernel = std::mem::replace(&mut self.kernel, Kernel::new(0));
        let complete =
            kernel.dump(self.seat.dump_chunk, |flow| self.update(local, engine, &Change::Upsert(flow.clone()), stage));
        self.kernel = kernel;
        if complete {
            engine.end_dump(local);
            stage.watch.oracle.dumped(stage.now, self.number, engine);
            stage.watch.saw("dump");
            self.dump = Dump::Due(local + self.seat.dump_interval);
            self.dumps.1 = self.dumps.0;
        }
    }

    // ------------------------------------------------------------------ sink

    fn drain(&mut self, local: Instant, engine: &mut Engine, stage: &mut Stage<'_>) -> bool {
        let now = stage.now;
        let mut worked = false;
        for _ in 0..SECTIONS_PER_TURN {
            let Some(change) = engine.poll_section(local) else { break };
            worked = true;
            stage.watch.oracle.section_applied(now, self.number, engine, &change);
        }
        let role = engine.role();
        if role == Role::Master {
            self.give_back(engine);
        }
        let wanted = self.seat.continuous || matches!(role, Role::Promoting | Role::Master);
        if self.retry_at.is_some_and(|at| local < at) {
            return worked;
        }
        self.retry_at = None;
        if !wanted && self.hand.is_empty() {
            return worked;
        }
        self.settled = false;
        let batches = if role == Role::Promoting { BATCHES_PER_TURN_PROMOTING } else { BATCHES_PER_TURN };
        for _ in 0..batches {
            if self.hand.is_empty() && engine.poll_applied(local, &mut self.hand, self.seat.batch) == 0 {
                self.settled = true;
                if role == Role::Promoting {
                    engine.handle_committed(local);
                    stage.watch.oracle.turned(now, self.number, engine);
                }
                return worked;
            }
            worked = true;
            if !self.kernel.write(&self.hand) {
                stage.watch.happened(Seen("sink-failure"));
                self.retry_at = Some(local + SINK_RETRY);
                return worked;
            }
            for change in self.hand.drain(..) {
                stage.watch.oracle.applied(now, self.number, engine, &change);
            }
            engine.handle_committed(local);
            stage.watch.oracle.turned(now, self.number, engine);
        }
        self.more = true;
        worked
    }

    /// A master's kernel knows better than what it has refused: the engine hands out what of it is still owed.
    fn give_back(&mut self, engine: &mut Engine) {
        for change in self.hand.drain(..) {
            if let Change::Upsert(flow) = change {
                engine.put_back(&flow.key);
            }
        }
    }

    /// Whether a proven backup's kernel holds what its table holds (daemon/audit.rs, all of it in one turn): the kernel may
    /// hold what it had as master, or may have dropped something.
    fn audit(&mut self, local: Instant, engine: &mut Engine, stage: &mut Stage<'_>) -> bool {
        let ready = self.seat.continuous && self.settled && self.hand.is_empty() && !self.kernel.refuses;
        if !ready || local < self.audit_at || engine.proof().is_none() {
            return false;
        }
        self.audit_at = local + self.seat.dump_interval;
        self.audits += 1;
        engine.begin_audit();
        let mut unknown = Vec::new();
        for flow in self.kernel.flows() {
            let held = engine.audit_held(&flow.key, local, true, |wanted| wanted.same_value(flow));
            if held == Held::Unknown && engine.lacks(&flow.key) {
                unknown.push(Change::Delete(flow.key));
            }
        }
        let missing = engine.audit_missing(0..engine.slots(), local, true, |_| true);
        self.kernel.write(&unknown);
        if missing > 0 || !unknown.is_empty() {
            stage.watch.saw("audit-repairs");
        }
        self.more = true;
        true
    }

    // ------------------------------------------------------------------ the rest of the turn

    fn tickets(&mut self, engine: &mut Engine, stage: &mut Stage<'_>) -> bool {
        let mut worked = false;
        while let Some((ticket, result)) = engine.poll_ticket() {
            worked = true;
            stage.watch.saw(if result.is_ok() { "acknowledged" } else { "ack-failed" });
            stage.watch.oracle.resolved(stage.now, self.number, ticket, result);
        }
        stage.watch.oracle.fetched(stage.now, self.number);
        worked
    }

    fn follow_role(&mut self, local: Instant, engine: &Engine, stage: &mut Stage<'_>) {
        let role = engine.role();
        let before = std::mem::replace(&mut self.role, role);
        if before != role {
            stage.watch.tell(stage.now, format_args!("node {}: {} ▶ {}", self.number, before.name(), role.name()));
        }
        if (before == Role::Master) != (role == Role::Master) {
            self.holds = role == Role::Master;
            self.dump = if self.holds { Dump::Due(local) } else { Dump::Silent };
        }
        if role == Role::Master {
            self.holds = engine.holds_addresses();
        }
    }

    fn note_events(&mut self, engine: &mut Engine, stage: &mut Stage<'_>) -> bool {
        let mut worked = false;
        while let Some(event) = engine.poll_event() {
            worked = true;
            stage.watch.saw(event.name());
            if !matches!(event, Event::RoleChanged { .. } | Event::AuthFailed { .. }) {
                stage.watch.tell(stage.now, format_args!("node {}: {event:?}", self.number));
            }
            stage.watch.oracle.event(stage.now, self.number, engine, &event);
        }
        worked
    }

    fn transmit(&mut self, local: Instant, engine: &mut Engine, stage: &mut Stage<'_>) -> bool {
        for sent in 0..self.seat.frames_per_turn {
            let Some(length) = engine.poll_transmit(local, &mut self.slot) else { return sent > 0 };
            let frame = &self.slot[..length];
            self.frames_sent += 1;
            stage.watch.oracle.sent(stage.now, self.number, engine, frame);
            stage.watch.left(stage.now, self.number, frame);
            if let Some(attacker) = &mut stage.attacker {
                attacker.hears(frame);
            }
            stage.network.carry(stage.now, self.number, frame, stage.agenda, stage.watch);
        }
        self.more = true;
        true
    }
}

/// What became of a change that the engine was told of.
fn told(
    stage: &mut Stage<'_>,
    taken: Result<Option<(Ticket, Ack)>, UpdateError>,
    tell: impl FnOnce(&mut Watch, Instant, Option<(Ticket, Ack)>),
) {
    match taken {
        Ok(ticket) => {
            stage.watch.operations += 1;
            tell(stage.watch, stage.now, ticket);
        }
        Err(UpdateError::TableFull) => stage.watch.happened(Seen("table-full")),
        Err(UpdateError::AnnexFull) => stage.watch.happened(Seen("annex-full")),
        Err(UpdateError::SectionsFull) => stage.watch.happened(Seen("sections-full")),
        Err(UpdateError::TicketsFull) => stage.watch.happened(Seen("tickets-full")),
        Err(
            UpdateError::NotMaster | UpdateError::Unsupported | UpdateError::SectionKey | UpdateError::MembersUnknown,
        ) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanoseconds: u64) -> Instant {
        Instant::from_nanos(nanoseconds)
    }

    #[test]
    fn a_fast_clock_shows_more_and_a_slow_one_less() {
        let fast = Clock::new(at(1_000), at(5_000_000_000), 50_000);
        assert_eq!(fast.local(at(1_000)), at(5_000_000_000));
        assert_eq!(fast.local(at(1_000_001_000)), at(6_050_000_000));
        let slow = Clock::new(at(0), at(0), -200);
        assert_eq!(slow.local(at(1_000_000_000)), at(999_800_000));
    }

    #[test]
    fn a_time_that_a_clock_is_to_show_is_found_and_not_missed() {
        for drift in [-50_000, -200, 0, 1, 200, 50_000] {
            let clock = Clock::new(at(77), at(1_000_000), drift);
            for local in [1_000_000, 1_000_001, 1_234_567, 9_876_543_210] {
                let world = clock.world(at(local));
                assert!(clock.local(world) >= at(local), "{drift} {local}");
                assert!(world == at(77) || clock.local(at(world.as_nanos() - 1)) < at(local), "{drift} {local}");
            }
        }
    }

    #[test]
    fn a_frozen_clock_has_not_moved() {
        // Neither forward nor, if it is slow, back: no engine is told of a time before the last.
        for drift in [-50_000, 0, 50_000] {
            let mut clock = Clock::new(at(0), at(1_000_000), drift);
            let shown = clock.local(at(2_000_000));
            clock.stood(at(2_000_000), at(500_000_000));
            assert_eq!(clock.local(at(500_000_000)), shown);
        }
        let mut clock = Clock::new(at(0), at(1_000_000), 0);
        clock.stood(at(2_000), at(5_000));
        assert_eq!(clock.local(at(6_000)), at(1_003_000));
    }
}
