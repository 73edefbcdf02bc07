//! The world of a run: seats with an engine and a kernel each, the network between them, and time. An engine is called as
//! the daemon calls it: receive, source, time-outs, sink, role, events, transmit.

use super::checks::Glance;
use super::climate::{Climate, Weather};
use super::*;
use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

/// Turns without a step of time after which a node counts as spinning.
const SPIN_MAX: u32 = 200;

/// Frames of one turn after which a node counts as babbling.
const FRAMES_PER_TURN_MAX: usize = 20_000;

/// How a seat's source is compared with its table after it has become master.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Dump {
    Silent,
    /// To begin when the sink has taken everything: what is not written yet cannot be named.
    Wanted,
    Ends(Instant),
    Live,
}

/// A place for a node: what outlives the engine in it.
pub(super) struct Seat {
    pub(super) config: Config,
    pub(super) engine: Option<Engine>,
    /// The kernel: what the sink was told, and as master what the source said.
    pub(super) kernel: BTreeMap<FlowKey, Flow>,
    /// Frames that wait for a node that does not turn.
    waiting: VecDeque<Vec<u8>>,
    /// What the engine has handed out and the sink has not taken.
    pub(super) hand: Vec<Change>,
    pub(super) stalled_until: Option<Instant>,
    pub(super) restarts_at: Option<Instant>,
    /// Whether the sink answers.
    pub(super) commits: bool,
    pub(super) link: bool,
    pub(super) dump: Dump,
    pub(super) role: Role,
    turned_at: Instant,
    spins: u32,
    /// Since the last turn somebody has spoken to the engine.
    pub(super) spoken: bool,
}

impl Seat {
    fn new(config: Config, now: Instant) -> Seat {
        Seat {
            config,
            engine: None,
            kernel: BTreeMap::new(),
            waiting: VecDeque::new(),
            hand: Vec::new(),
            stalled_until: None,
            restarts_at: Some(now),
            commits: true,
            link: true,
            dump: Dump::Silent,
            role: Role::Init,
            turned_at: now,
            spins: 0,
            spoken: false,
        }
    }

    pub(super) fn is_awake(&self) -> bool {
        self.engine.is_some() && self.stalled_until.is_none()
    }

    fn due(&self) -> Option<Instant> {
        let awake = self.engine.as_ref().filter(|_| self.stalled_until.is_none());
        let dump = match self.dump {
            Dump::Ends(at) if awake.is_some() => Some(at),
            _ => None,
        };
        let timers = [awake.and_then(Engine::poll_timeout), self.stalled_until, self.restarts_at, dump];
        timers.into_iter().flatten().min()
    }
}

/// What the table has no room for does not happen in this world either.
fn keep_as_held(kernel: &mut BTreeMap<FlowKey, Flow>, engine: &Engine, now: Instant, key: &FlowKey) {
    match engine.table.get(key, now) {
        Some(held) => drop(kernel.insert(*key, held)),
        None => drop(kernel.remove(key)),
    }
}

struct InFlight {
    to: usize,
    damaged: bool,
    bytes: Vec<u8>,
}

pub(super) struct World<'a> {
    pub(super) now: Instant,
    pub(super) climate: Climate,
    pub(super) dice: Dice,
    pub(super) weather: Weather,
    pub(super) seats: Vec<Seat>,
    /// `cut[from][to]`: nothing passes.
    pub(super) cut: Vec<Vec<bool>>,
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    flying: BTreeMap<u64, InFlight>,
    flown: u64,
    /// Frames sent since it was last set to zero, by kind.
    pub(super) sent: [u64; 8],
    /// When a frame between two nodes was last kept from arriving as it was sent.
    pub(super) hindered_at: Vec<Vec<Instant>>,
    /// Since when two nodes are both master, awake, and hear each other.
    pub(super) rivals_since: BTreeMap<(usize, usize), Instant>,
    /// What the traffic believes to exist; a key that is not in it may be anything. Only in a gentle climate.
    pub(super) truth: BTreeMap<FlowKey, Option<Flow>>,
    pub(super) changed_at: BTreeMap<FlowKey, Instant>,
    trace: &'a RefCell<Vec<String>>,
}

impl<'a> World<'a> {
    pub(super) fn new(climate: Climate, mut dice: Dice, trace: &'a RefCell<Vec<String>>) -> World<'a> {
        let now = Instant::from_nanos(1_000_000_000);
        let count = climate.configs.len();
        let seats = climate.configs.iter().map(|config| {
            let late = if dice.chance(500) { Duration::ZERO } else { dice.part(climate.interval * 10) };
            Seat::new(config.clone(), now + late)
        });
        let seats = seats.collect();
        let world = World {
            now,
            weather: Weather::FAIR,
            seats,
            cut: vec![vec![false; count]; count],
            queue: BinaryHeap::new(),
            flying: BTreeMap::new(),
            flown: 0,
            sent: [0; 8],
            hindered_at: vec![vec![Instant::ZERO; count]; count],
            rivals_since: BTreeMap::new(),
            truth: BTreeMap::new(),
            changed_at: BTreeMap::new(),
            trace,
            climate,
            dice,
        };
        world.note(format!("{:?}", world.climate));
        world
    }

    pub(super) fn note(&self, what: String) {
        self.trace.borrow_mut().push(format!("{:?} {what}", self.now));
    }

    pub(super) fn engine(&self, at: usize) -> Option<&Engine> {
        self.seats[at].engine.as_ref()
    }

    /// Who is awake and master.
    pub(super) fn masters(&self) -> Vec<usize> {
        let is_master = |at: &usize| {
            let seat = &self.seats[*at];
            seat.is_awake() && seat.engine.as_ref().is_some_and(|engine| engine.role() == Role::Master)
        };
        (0..self.seats.len()).filter(is_master).collect()
    }

    /// Lets time pass until `end`.
    pub(super) fn run_to(&mut self, end: Instant) {
        loop {
            let frame = self.queue.peek().map(|Reverse((at, _))| *at);
            let next = self.seats.iter().filter_map(Seat::due).chain(frame).min();
            let mut next = next.unwrap_or(end).max(self.now);
            // Now and then somebody looks in before anything is due: then nothing may happen.
            if next > self.now && self.dice.chance(20) {
                let early = self.dice.part(next - self.now);
                next = self.now + early;
            }
            if next >= end {
                break;
            }
            self.now = next;
            self.deliver();
            for at in 0..self.seats.len() {
                self.wake(at);
                if self.seats[at].is_awake()
                    && (self.seats[at].due().is_some_and(|due| due <= self.now)
                        || self.seats[at].spoken
                        || self.dice.chance(5))
                {
                    self.turn(at);
                }
            }
            self.check();
        }
        self.now = end;
    }

    // ------------------------------------------------------------------ nodes

    /// A new engine, which knows nothing, on a kernel that is empty.
    pub(super) fn start(&mut self, at: usize) {
        let incarnation = self.dice.between(1, u64::MAX - 1);
        let seed = self.dice.roll(u64::MAX);
        let seat = &mut self.seats[at];
        let config = Config { incarnation, seed, ..seat.config.clone() };
        let mut engine = Engine::new(config, self.now).unwrap();
        if seat.link {
            engine.handle_link(self.now, true);
        }
        seat.engine = Some(engine);
        (seat.spoken, seat.role, seat.restarts_at) = (true, Role::Init, None);
        self.note(format!("node {} starts, incarnation {incarnation:x}", at + 1));
    }

    /// The machine dies, and its kernel with it.
    pub(super) fn kill(&mut self, at: usize, restarts_at: Instant) {
        let seat = &mut self.seats[at];
        seat.engine = None;
        seat.kernel.clear();
        seat.waiting.clear();
        seat.hand.clear();
        (seat.stalled_until, seat.restarts_at) = (None, Some(restarts_at));
        (seat.dump, seat.role) = (Dump::Silent, Role::Init);
        self.note(format!("node {} is dead until {restarts_at:?}", at + 1));
    }

    fn wake(&mut self, at: usize) {
        if self.seats[at].restarts_at.is_some_and(|restart| restart <= self.now) {
            self.start(at);
        }
        if self.seats[at].stalled_until.is_some_and(|until| until <= self.now) {
            self.seats[at].stalled_until = None;
            self.note(format!("node {} runs again, {} frames wait", at + 1, self.seats[at].waiting.len()));
            while let Some(bytes) = self.seats[at].waiting.pop_front() {
                self.hand_in(at, bytes, false);
            }
            self.seats[at].spoken = true;
        }
    }

    /// One turn of a node, in the daemon's order.
    fn turn(&mut self, at: usize) {
        let now = self.now;
        let seat = &mut self.seats[at];
        let Some(engine) = &mut seat.engine else { return };
        let dump_ends = matches!(seat.dump, Dump::Ends(end) if end <= now);
        let due = engine.poll_timeout();
        let writes = seat.commits && (engine.table.unapplied() > 0 || !seat.hand.is_empty());
        let idle = !seat.spoken && !dump_ends && !writes && due.is_none_or(|due| due > now);
        let role_before = engine.role();
        if dump_ends {
            seat.dump = Dump::Live;
        }
        if dump_ends && role_before == Role::Master {
            let flows: Vec<Flow> = seat.kernel.values().cloned().collect();
            for flow in flows {
                if engine.update(now, &Change::Upsert(flow.clone())).is_err() {
                    keep_as_held(&mut seat.kernel, engine, now, &flow.key);
                }
            }
            engine.end_dump(now);
            // What the dump did not name has died unseen.
            let held: BTreeSet<FlowKey> = engine.flows(now).map(|flow| flow.key).collect();
            seat.kernel.retain(|key, _| held.contains(key));
        }
        engine.handle_timeout(now);
        let limit = if self.dice.chance(100) || !seat.commits { self.dice.between(1, 50) as usize } else { usize::MAX };
        // A sink that does not answer keeps a batch in hand.
        if seat.commits || seat.hand.is_empty() {
            engine.poll_applied(now, &mut seat.hand, limit);
        }
        if seat.commits {
            for change in seat.hand.drain(..) {
                match &change {
                    Change::Upsert(flow) => drop(seat.kernel.insert(flow.key, flow.clone())),
                    Change::Delete(key) => drop(seat.kernel.remove(key)),
                }
                if engine.role() == Role::Master {
                    // What is written late changes the kernel under its source, which says so.
                    if engine.update(now, &change).is_err() {
                        keep_as_held(&mut seat.kernel, engine, now, change.key());
                    }
                    self.truth.remove(change.key());
                }
            }
            engine.handle_committed(now);
        }
        let role = engine.role();
        let mut events = Vec::new();
        while let Some(event) = engine.poll_event() {
            events.push(event);
        }
        for event in events {
            self.note(format!("node {}: {event:?}", at + 1));
        }
        self.follow_role(at, role);
        self.begin_dump(at);
        self.transmit(at, idle && role == role_before);
        let seat = &mut self.seats[at];
        assert!(!idle || role == role_before, "node {}: a role changes before it is due", at + 1);
        // A sink that has not taken all yet is written on at once, as long as it takes anything.
        seat.spoken = seat.commits && seat.engine.as_ref().is_some_and(|engine| engine.table.unapplied() > 0);
        seat.spins = if seat.turned_at == now { seat.spins + 1 } else { 0 };
        seat.turned_at = now;
        assert!(seat.spins < SPIN_MAX, "node {} spins: something is due, and nothing is done about it", at + 1);
    }

    fn follow_role(&mut self, at: usize, role: Role) {
        let before = std::mem::replace(&mut self.seats[at].role, role);
        if (before == Role::Master) == (role == Role::Master) {
            return;
        }
        if role != Role::Master {
            self.seats[at].dump = Dump::Silent;
            return;
        }
        self.seats[at].dump = Dump::Wanted;
        self.doubt_recent_changes();
    }

    fn begin_dump(&mut self, at: usize) {
        let (now, longest) = (self.now, self.dice.pick(&[0, 1, 1, 10]));
        let seat = &mut self.seats[at];
        let Some(engine) = seat.engine.as_mut().filter(|engine| engine.table.unapplied() == 0) else { return };
        if seat.dump == Dump::Wanted && seat.hand.is_empty() {
            engine.begin_dump(now);
            seat.dump = Dump::Ends(now + self.dice.part(self.climate.interval * longest));
        }
    }

    fn transmit(&mut self, at: usize, silent: bool) {
        let mut slot = [0; 1480];
        let mut frames = 0;
        loop {
            let Some(engine) = &mut self.seats[at].engine else { return };
            let Some(length) = engine.poll_transmit(self.now, &mut slot) else { return };
            assert!(!silent, "node {}: a frame of kind {} leaves before it is due", at + 1, slot[5]);
            frames += 1;
            assert!(frames < FRAMES_PER_TURN_MAX, "node {} babbles", at + 1);
            self.carry(at, &slot[..length]);
        }
    }

    // ------------------------------------------------------------------ network

    fn carry(&mut self, from: usize, bytes: &[u8]) {
        let kind = bytes[5];
        self.sent[usize::from(kind) % 8] += 1;
        for to in (0..self.seats.len()).filter(|to| *to != from) {
            if self.cut[from][to]
                || !self.seats[from].link
                || !self.seats[to].link
                || self.dice.chance(self.weather.loss)
            {
                self.hindered_at[from][to] = self.now;
                continue;
            }
            let twice = self.dice.chance(self.weather.twice);
            for copy in 0..1 + u32::from(twice) {
                let mut copied = bytes.to_vec();
                let hit = self.dice.chance(self.weather.damage);
                if hit {
                    self.hindered_at[from][to] = self.now;
                    for _ in 0..self.dice.between(1, 3) {
                        let bit = self.dice.roll(bytes.len() as u64 * 8) as usize;
                        copied[bit / 8] ^= 1 << (bit % 8);
                    }
                }
                let damaged = copied != bytes;
                let mut delay = self.weather.delay + self.dice.part(self.weather.jitter);
                if copy > 0 && self.dice.chance(100) {
                    delay += self.dice.part(self.climate.interval * 20);
                }
                self.flown += 1;
                self.queue.push(Reverse((self.now + delay, self.flown)));
                self.flying.insert(self.flown, InFlight { to, damaged, bytes: copied });
            }
        }
    }

    /// Copies that wander for long would be answered, and it would not be quiet.
    pub(super) fn forget_late_copies(&mut self) {
        self.queue.clear();
        self.flying.clear();
    }

    fn deliver(&mut self) {
        while let Some(Reverse((at, number))) = self.queue.peek().copied()
            && at <= self.now
        {
            self.queue.pop();
            let Some(frame) = self.flying.remove(&number) else { continue };
            let backlog = self.climate.backlog;
            let seat = &mut self.seats[frame.to];
            if seat.engine.is_none() || !seat.link {
                continue;
            }
            if seat.stalled_until.is_none() {
                self.hand_in(frame.to, frame.bytes, frame.damaged);
            } else if seat.waiting.len() < backlog && !frame.damaged {
                seat.waiting.push_back(frame.bytes);
            }
        }
    }

    fn hand_in(&mut self, at: usize, mut bytes: Vec<u8>, damaged: bool) {
        let meta = FrameMeta { link: 0, source: IpAddr::V4(Ipv4Addr::LOCALHOST) };
        let now = self.now;
        let seat = &mut self.seats[at];
        let Some(engine) = &mut seat.engine else { return };
        seat.spoken = true;
        let before = Glance::at(engine);
        engine.handle_frame(now, meta, &mut bytes);
        let after = Glance::at(engine);
        if damaged {
            after.assert_refused(&before);
        } else {
            self.check_deletes(at, &before, &after);
        }
    }
}
