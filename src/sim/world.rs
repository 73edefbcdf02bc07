//! The run itself: virtual time goes from one thing that happens to the next, first with faults, then without.
//!
//! Nothing is looked at in steps: a node has its turn when a frame has come, when its kernel has news, or when its engine
//! or its sink is due, by its own clock. What happens at the same moment happens in the order in which it was planned.

use super::attacker::Attacker;
use super::coverage::Coverage;
use super::faults::Fault;
use super::network::Network;
use super::node::{Node, Stage};
use super::options::Options;
use super::oracle::{Attacks, End, Violation};
use super::random::Random;
use super::reload::Operator;
use super::seal::Reader;
use super::story::Story;
use super::watch::Watch;
use super::workload::Workload;
use crate::engine::{Engine, Role, RoleRequest, SyncState};
use crate::time::{Duration, Instant};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Frames that a node may send in each interval when nothing happens: an ADVERT and, of a backup, a STATUS; with a clock
/// that is 5 % fast, and the ends of the time counted in, [`QUIET_SLACK`] more in all.
const QUIET_FRAMES_PER_INTERVAL: u64 = 3;
const QUIET_SLACK: u64 = 8;

/// What became of a seed.
#[derive(Debug)]
pub struct Outcome {
    /// The first promise that was broken.
    pub violation: Option<Violation>,
    /// Changes that engines took, frames that nodes received, and faults (of frames too) that happened.
    pub operations: u64,
    /// What happened, by name.
    pub coverage: Coverage,
    /// Digest of the story.
    pub digest: u64,
    /// The story, if it was asked for.
    pub lines: Vec<String>,
    /// What an attacker did.
    pub attacks: Attacks,
}

/// Runs one world to its end, or to the first promise that is broken.
pub fn run(seed: u64, options: &Options, keep_lines: bool) -> Outcome {
    let mut world = World::new(seed, options, keep_lines);
    world.watch.story = options.without_attacker().map(|twin| told_without(seed, &twin));
    world.live();
    world.compare();
    let Watch { mut oracle, trace, mut coverage, operations, .. } = world.watch;
    oracle.cover(&mut coverage);
    world.nodes.iter().filter_map(|node| node.engine.as_ref()).for_each(|engine| coverage.engine(engine.counters()));
    if options.wraps() {
        coverage.note(super::coverage::Seen("wrap"));
    }
    let violation = world.violation;
    Outcome {
        violation,
        operations,
        coverage,
        digest: trace.digest(),
        lines: trace.into_lines(),
        attacks: std::mem::take(oracle.attacks()),
    }
}

/// What is told in the same world without the attacker.
fn told_without(seed: u64, twin: &Options) -> Story {
    let mut world = World::new(seed, twin, false);
    world.watch.story = Some(Story::default());
    world.live();
    world.watch.story.take().unwrap_or_default().told_again(world.violation.is_some())
}

/// Something that is going to happen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum What {
    /// A frame, by its number in the network.
    Arrives(u32),
    /// A node's turn.
    Turn(u8),
    /// The next stroke of traffic.
    Stroke,
    /// The next fault of a kind.
    Strikes(u8),
    /// A dead node starts.
    Restart(u8),
    /// A node that was paused or frozen runs again.
    Wake(u8),
    /// A slow node is as fast as before.
    Hurry(u8),
    /// A sink works again.
    SinkWorks(u8),
    /// An interface has its carrier back.
    Plug(u8),
    /// A node that has left comes back.
    Rejoin(u8),
    /// The daemon of a node that has left ends, and starts anew.
    Stop(u8),
    /// A node may have the role again.
    Undrain(u8),
    /// A node that returns is cut off for a moment.
    CutOff(u8),
    /// The loud attacker strikes.
    Attack,
    /// A node is given other secrets.
    Reload,
}

/// All that is going to happen, the next first.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    heap: BinaryHeap<Reverse<(Instant, u64, What)>>,
    planned: u64,
}

impl Agenda {
    pub(super) fn push(&mut self, at: Instant, what: What) {
        self.planned += 1;
        self.heap.push(Reverse((at, self.planned, what)));
    }

    pub(super) fn pop(&mut self) -> Option<(Instant, What)> {
        self.heap.pop().map(|Reverse((at, _, what))| (at, what))
    }

    fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }
}

/// Which part of the run it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Safety,
    Loaded,
    Settling,
}

/// A running world.
#[derive(Debug)]
pub(super) struct World {
    options: Options,
    pub(super) now: Instant,
    pub(super) dice: Random,
    pub(super) interval: Duration,
    pub(super) links: u8,
    pub(super) nodes: Vec<Node>,
    pub(super) network: Network,
    pub(super) workload: Workload,
    pub(super) agenda: Agenda,
    pub(super) watch: Watch,
    attacker: Option<Attacker>,
    pub(super) operator: Option<Operator>,
    phase: Phase,
    violation: Option<Violation>,
}

impl World {
    pub(super) fn new(seed: u64, options: &Options, keep_lines: bool) -> World {
        let mut dice = Random::new(seed);
        let nodes: Vec<Node> = (0..options.nodes)
            .map(|number| Node::new(number, options.seats[number].clone(), options.config_of(number), dice.fork()))
            .collect();
        let network = Network::new(options.nodes, options.weather.clone(), dice.fork());
        let workload = Workload::new(options.traffic.clone(), dice.fork());
        let mut world = World {
            now: Instant::from_nanos(1),
            interval: options.config.advert_interval,
            links: options.weather.links,
            nodes,
            network,
            workload,
            agenda: Agenda::default(),
            watch: Watch::new(options.nodes, keep_lines),
            attacker: options
                .attack
                .map(|attack| Attacker::new(attack, options.nodes, options.config.sync_id, options.weather.links)),
            operator: options
                .reloads
                .map(|reloads| Operator::new(reloads, options.secrets.clone(), &options.config.secrets)),
            phase: Phase::Safety,
            violation: None,
            dice,
            options: options.clone(),
        };
        let reader = Reader::new(options.config.sync_id, options.secrets.clone());
        world.watch.oracle.read_with(reader);
        let attacks = world.watch.oracle.attacks();
        attacks.attacked = u64::from(options.attack.is_some());
        attacks.compared = u64::from(options.without_attacker().is_some());
        world.plan();
        world
    }

    fn plan(&mut self) {
        for node in 0..self.nodes.len() {
            let late = if self.dice.one_in(4) { 30 } else { 3 };
            let at = self.now + self.dice.around(self.interval * late / 2);
            self.agenda.push(at, What::Restart(node as u8));
        }
        self.agenda.push(self.now + self.interval, What::Stroke);
        for kind in 0..self.options.faults.len() {
            self.plan_fault(kind);
        }
        if let Some(reloads) = self.options.reloads {
            self.agenda.push(self.now + reloads.spacing * 4, What::Reload);
        }
        if self.attacker.as_ref().is_some_and(|attacker| !attacker.is_quiet()) {
            self.agenda.push(self.now + self.interval, What::Attack);
        }
    }

    fn plan_fault(&mut self, kind: usize) {
        if let Some(mean) = self.options.faults[kind] {
            let at = self.now + self.dice.around(mean);
            self.agenda.push(at, What::Strikes(kind as u8));
        }
    }

    // ------------------------------------------------------------------ phases

    fn live(&mut self) {
        let safety = self.now + self.options.safety;
        if !self.run_until(safety) {
            return;
        }
        self.heal();
        let loaded = self.now + self.options.loaded;
        if !self.run_until(loaded) {
            return;
        }
        if self.followers_are_in_sync() {
            self.watch.saw("in-sync-under-load");
        }
        self.go_home();
        if !self.settle() {
            return;
        }
        self.be_quiet();
    }

    /// All that is wrong ends.
    fn heal(&mut self) {
        self.phase = Phase::Loaded;
        self.watch.tell(self.now, format_args!("no faults from here on"));
        self.network.heal();
        for node in 0..self.nodes.len() {
            // So that each kernel can be compared with its table at the end.
            self.nodes[node].write_continuously();
            let number = node as u8;
            for what in [What::Restart(number), What::Wake(number), What::Hurry(number), What::SinkWorks(number)] {
                self.happens(what);
            }
            self.happens(What::Plug(number));
            self.happens(What::Rejoin(number));
            self.happens(What::Undrain(number));
        }
    }

    /// The traffic ends, and leaves what every table has room for.
    fn go_home(&mut self) {
        self.phase = Phase::Settling;
        self.watch.tell(self.now, format_args!("no traffic from here on"));
        let most = self.options.capacity_min() as usize / 2;
        for node in 0..self.nodes.len() {
            self.workload.go_home(&mut self.nodes[node].kernel, most);
            self.reschedule(node);
        }
    }

    /// A new master has written entries whose end its predecessor had not told when it lost the role (an event that its
    /// kernel lost, and no dump since). They have no clients: their clocks run out, where they would be too many.
    fn go_home_again(&mut self) {
        let most = self.options.capacity_min() as usize / 2;
        for node in 0..self.nodes.len() {
            if self.is_master(node) && self.nodes[node].is_settled() && self.nodes[node].kernel.len() > most {
                self.workload.go_home(&mut self.nodes[node].kernel, most);
                self.reschedule(node);
            }
        }
    }

    /// Waits until all is equal and proven, at most as long as was promised; whether the run goes on.
    fn settle(&mut self) -> bool {
        let begun: Vec<(u64, u64)> = self.nodes.iter().map(|node| (node.dumps.0, node.audits)).collect();
        let (start, end) = (self.now, self.now + self.options.liveness);
        let mut unsettled = Some("nothing yet".to_owned());
        while unsettled.is_some() && self.now < end {
            let step = self.now + self.interval / 2;
            if !self.run_until(step) {
                return false;
            }
            self.go_home_again();
            (0..self.nodes.len()).for_each(|node| self.happens(What::Rejoin(node as u8)));
            unsettled = self.unsettled(&begun);
        }
        if let Some(why) = unsettled {
            // What the oracle says of this end would only hide the reason.
            let text = format!("{why}, {:?} after faults and traffic have ended", self.now.since(start));
            self.watch.violated(self.now, "converges", text);
            return self.goes_on();
        }
        self.watch.tell(self.now, format_args!("all is equal and proven after {:?}", self.now.since(start)));
        true
    }

    /// Why it is not over yet; `None` if all is equal and proven.
    fn unsettled(&self, begun: &[(u64, u64)]) -> Option<String> {
        let masters: Vec<usize> = (0..self.nodes.len()).filter(|node| self.is_master(*node)).collect();
        let &[master] = &masters[..] else { return Some(format!("masters are {masters:?}")) };
        if self.nodes[master].dumps.1 <= begun[master].0 {
            return Some(format!("node {master} has not dumped its source"));
        }
        if let Some(node) = self.nodes.iter().position(|node| !node.is_settled()) {
            return Some(format!("something is on its way between kernel and engine of node {node}"));
        }
        let engine = self.nodes[master].running()?;
        let source = engine.status();
        if engine.sections(self.nodes[master].clock.local(self.now)).any(|section| section.expiry > 0) {
            return Some(format!("node {master} holds sections whose time comes"));
        }
        let entries = engine.flows(self.now).count();
        if source.pending > 0 || entries != self.nodes[master].kernel.len() {
            let flows = self.nodes[master].kernel.len();
            return Some(format!("node {master} has {entries} entries and its kernel {flows}"));
        }
        for (number, node) in self.nodes.iter().enumerate().filter(|(number, _)| *number != master) {
            let Some(engine) = node.running() else { return Some(format!("node {number} does not run")) };
            let follows = engine.following().is_some_and(|(node, ..)| node == source.node);
            if !follows || engine.sync_state() != SyncState::InSync {
                return Some(format!(
                    "node {number} is {} and follows {:?}",
                    engine.sync_state().name(),
                    engine.following()
                ));
            }
            if node.audits <= begun[number].1 {
                return Some(format!("node {number} has not compared its kernel with its table"));
            }
            let held = engine.status();
            if held.unapplied > 0 || (held.digest, held.entries) != (source.digest, source.entries) {
                return Some(format!("node {number} has {} entries, node {master} {}", held.entries, source.entries));
            }
        }
        None
    }

    /// Only heartbeats travel.
    fn be_quiet(&mut self) {
        self.watch.oracle.quiet(self.now);
        let before: u64 = self.nodes.iter().map(|node| node.frames_sent).sum();
        let end = self.now + self.options.quiet;
        if !self.run_until(end) {
            return;
        }
        let sent = self.nodes.iter().map(|node| node.frames_sent).sum::<u64>() - before;
        let intervals = (self.options.quiet.as_nanos() / self.interval.as_nanos()) as u64;
        let most = (intervals * QUIET_FRAMES_PER_INTERVAL + QUIET_SLACK) * self.nodes.len() as u64;
        if sent > most {
            let text = format!("{sent} frames in {intervals} intervals in which nothing happened; at most {most}");
            self.watch.violated(self.now, "quiet", text);
        }
        self.end();
    }

    fn end(&mut self) {
        let ends = self.nodes.iter().enumerate().filter_map(|(node, it)| {
            let kernel = it.is_source().then(|| it.kernel.flows().cloned().collect());
            it.running().map(|engine| End { node, engine, kernel })
        });
        self.watch.oracle.ended(self.now, &ends.collect::<Vec<_>>());
        self.goes_on();
    }

    fn is_master(&self, node: usize) -> bool {
        self.nodes[node].running().is_some_and(|engine| engine.role() == Role::Master)
    }

    fn followers_are_in_sync(&self) -> bool {
        let proven = |engine: &Engine| matches!(engine.sync_state(), SyncState::InSync | SyncState::Source);
        self.nodes.iter().all(|node| node.running().is_some_and(proven))
    }

    // ------------------------------------------------------------------ time

    /// Lets time pass; whether no promise was broken.
    fn run_until(&mut self, end: Instant) -> bool {
        while self.agenda.next_at().is_some_and(|at| at <= end) {
            let Some((at, what)) = self.agenda.pop() else { break };
            self.now = at;
            self.happens(what);
            if !self.goes_on() {
                return false;
            }
        }
        self.now = end;
        true
    }

    fn goes_on(&mut self) -> bool {
        if self.violation.is_none()
            && let Some(violation) = self.watch.violation()
        {
            let violation = violation.clone();
            self.watch.tell(self.now, format_args!("VIOLATION {}: {}", violation.rule, violation.text));
            self.violation = Some(violation);
        }
        self.violation.is_none()
    }

    fn happens(&mut self, what: What) {
        match what {
            What::Arrives(flight) => self.arrives(flight),
            What::Turn(node) => self.turn(usize::from(node)),
            What::Stroke => self.stroke(),
            What::Strikes(kind) if self.phase == Phase::Safety => {
                self.strike(Fault::ALL[usize::from(kind)]);
                self.plan_fault(usize::from(kind));
            }
            What::Strikes(_) => {}
            What::Restart(node) => self.restart(usize::from(node)),
            What::Wake(node) => {
                let node = usize::from(node);
                if self.nodes[node].wake(self.now) {
                    self.watch.oracle.froze(self.now, node);
                }
                self.note_idle(node);
                self.tell_link(node, self.network.is_plugged(node));
                self.reschedule(node);
            }
            What::Hurry(node) => {
                self.nodes[usize::from(node)].slowness = 1;
                self.note_idle(usize::from(node));
            }
            What::SinkWorks(node) => self.nodes[usize::from(node)].kernel.refuses = false,
            What::Plug(node) => {
                self.network.plug(usize::from(node), true);
                self.tell_link(usize::from(node), true);
            }
            What::Rejoin(node) => self.rejoin(usize::from(node)),
            What::Undrain(node) => self.drain(usize::from(node), false),
            What::CutOff(node) if self.phase == Phase::Safety => self.cut_return(usize::from(node)),
            What::CutOff(_) => {}
            What::Attack => self.attack(),
            What::Reload if self.phase == Phase::Safety => self.reload(),
            What::Reload => {}
            What::Stop(node) if self.phase == Phase::Safety => {
                self.nodes[usize::from(node)].crash(self.now, &mut self.network, &mut self.watch);
                self.restart(usize::from(node));
            }
            What::Stop(node) => self.rejoin(usize::from(node)),
        }
    }

    /// The loud attacker makes differences, as authentic frames that come again do, and takes up room in sockets: it ends with
    /// the faults.
    fn attack(&mut self) {
        if let Some(attacker) = self.attacker.as_mut().filter(|_| self.phase == Phase::Safety) {
            let again = attacker.strike(self.now, self.interval, &mut self.network, &mut self.agenda);
            self.agenda.push(again, What::Attack);
        }
    }

    /// Whether everything was told that is told without the attacker.
    fn compare(&mut self) {
        let untold = self.watch.story.as_ref().map_or(0, Story::untold);
        if untold > 0 && self.violation.is_none() {
            self.watch.violated(self.now, "attack", format!("without the attacker {untold} things more are told"));
            self.goes_on();
        }
    }

    fn arrives(&mut self, flight: u32) {
        let to = self.network.flight(flight).to;
        let node = &mut self.nodes[to];
        if !self.network.is_plugged(to) || !node.listens() {
            return self.network.land(flight);
        }
        if !node.arrives(flight) {
            self.watch.happened(super::coverage::Seen("socket-full"));
            return self.network.land(flight);
        }
        self.reschedule(to);
    }

    fn turn(&mut self, node: usize) {
        if self.nodes[node].turn_at != Some(self.now) {
            return;
        }
        self.nodes[node].turn_at = None;
        if self.nodes[node].due(self.now).is_some_and(|due| due <= self.now) {
            let submitted = self.workload.submitted();
            let World { now, nodes, network, agenda, watch, attacker, .. } = self;
            let attacker = attacker.as_mut();
            nodes[node].turn(&mut Stage { now: *now, network, agenda, watch, attacker, submitted });
        }
        self.reschedule(node);
    }

    /// Plans a node's next turn, unless it is planned for as early.
    pub(super) fn reschedule(&mut self, node: usize) {
        let Some(due) = self.nodes[node].due(self.now) else { return };
        let due = due.max(self.now);
        if self.nodes[node].turn_at.is_none_or(|at| due < at) {
            self.nodes[node].turn_at = Some(due);
            self.agenda.push(due, What::Turn(node as u8));
        }
    }

    /// Somebody has spoken to a node's engine from outside of its turns.
    pub(super) fn spoken(&mut self, node: usize) {
        if let Some(engine) = &self.nodes[node].engine {
            self.watch.oracle.turned(self.now, node, engine);
        }
        self.reschedule(node);
    }

    /// Whether a node does its work in time.
    pub(super) fn note_idle(&mut self, node: usize) {
        let idle = self.nodes[node].is_idle();
        self.watch.oracle.idles(self.now, node, idle);
    }

    /// A node learns how its links stand. Who does not run learns it when it runs: a daemon looks at its links.
    pub(super) fn tell_link(&mut self, node: usize, up: bool) {
        let Some((local, engine)) = self.nodes[node].speak(self.now) else { return };
        engine.handle_link(local, up);
        self.spoken(node);
    }

    // ------------------------------------------------------------------ nodes

    fn restart(&mut self, node: usize) {
        if self.nodes[node].engine.is_some() {
            return;
        }
        let warm = self.nodes[node].kernel.len() > 0;
        self.watch.happened(super::coverage::Seen(if warm { "restart-warm" } else { "restart-cold" }));
        let plugged = self.network.is_plugged(node);
        if let Some(attacker) = &mut self.attacker {
            attacker.forget(node);
        }
        self.nodes[node].start(self.now, plugged, &mut self.watch);
        self.reschedule(node);
    }

    fn rejoin(&mut self, node: usize) {
        let Some((local, engine)) = self.nodes[node].speak(self.now) else { return };
        if engine.role() == Role::None {
            engine.set_role(local, RoleRequest::Backup);
            self.spoken(node);
        }
    }

    // ------------------------------------------------------------------ traffic

    fn stroke(&mut self) {
        if self.phase == Phase::Settling {
            return;
        }
        let (changes, rest) = self.workload.stroke();
        self.agenda.push(self.now + rest, What::Stroke);
        self.traffic(changes);
        if let Some(change) = self.workload.section()
            && let Some(node) = (0..self.nodes.len()).find(|node| self.is_master(*node))
        {
            self.nodes[node].want_section(change);
            self.reschedule(node);
        }
    }

    /// So many changes, in the kernels of those who have the addresses. Of a dead daemon they stay where they were until
    /// somebody else takes them.
    pub(super) fn traffic(&mut self, changes: u64) {
        let alive = self.nodes.iter().any(|node| node.holds && node.engine.is_some());
        let mut holders = [0; super::options::NODES_MAX];
        let mut count = 0;
        for (number, node) in self.nodes.iter_mut().enumerate() {
            node.holds &= node.engine.is_some() || !alive;
            if node.holds {
                (holders[count], count) = (number, count + 1);
            }
        }
        if count == 0 {
            return;
        }
        for _ in 0..changes {
            let node = holders[self.dice.below(count as u64) as usize];
            self.workload.change(&mut self.nodes[node].kernel);
        }
        holders[..count].iter().for_each(|node| self.reschedule(*node));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seeds, and the digests of what they tell.
    const STORIES: [(u64, u64); 3] =
        [(7, 0xbd48_9a99_290e_c47d), (17, 0x0bcf_eb1b_3d2b_48ea), (1000, 0x6db6_01d0_1cc8_4e2b)];

    #[test]
    fn without_any_fault_nothing_is_broken_and_all_is_in_sync() {
        for seed in 0..20 {
            let outcome = run(seed, &Options::of_seed(seed).without_faults(), true);
            assert_eq!(outcome.violation, None, "seed {seed}:\n{}", outcome.lines.join("\n"));
            // Not always the last line: a summary of what went before may be due afterwards.
            assert!(outcome.lines.iter().any(|line| line.contains("all is equal and proven")), "seed {seed}");
        }
    }

    #[test]
    fn the_same_seed_tells_the_same_story() {
        for seed in [1, 2] {
            let options = Options::of_seed(seed);
            let (once, again) = (run(seed, &options, true), run(seed, &options, false));
            assert_eq!((once.digest, once.operations), (again.digest, again.operations));
            assert!(once.lines.len() > 10 && again.lines.is_empty());
        }
        let other = |seed| run(seed, &Options::of_seed(seed), false).digest;
        assert_ne!(other(1), other(2));
    }

    /// Another engine, or another world, tells other stories: then the literals are to be what this test prints.
    #[test]
    fn stories_that_were_told_once_are_told_again() {
        let digest = |seed| run(seed, &Options::of_seed(seed), false).digest;
        let told = STORIES.map(|(seed, _)| (seed, digest(seed)));
        assert!(told == STORIES, "const STORIES: [(u64, u64); 3] = {told:#x?};");
    }

    #[test]
    fn what_is_planned_for_the_same_moment_happens_in_the_order_of_planning() {
        let mut agenda = Agenda::default();
        let at = Instant::from_nanos;
        agenda.push(at(7), What::Turn(3));
        agenda.push(at(5), What::Stroke);
        agenda.push(at(7), What::Arrives(0));
        let all: Vec<_> = std::iter::from_fn(|| agenda.pop()).collect();
        assert_eq!(all, [(at(5), What::Stroke), (at(7), What::Turn(3)), (at(7), What::Arrives(0))]);
    }
}
