//! What goes wrong with nodes and links, when, and for how long. (What goes wrong with single frames is the network's.)
//!
//! Each kind that a world has comes at random times around its own mean; what it does ends by itself, on the agenda, or
//! with the phase of faults.

use super::coverage::Seen;
use super::network::{Cut, Nodes};
use super::node::Rest;
use super::world::{What, World};
use crate::engine::RoleRequest;
use crate::time::Duration;
use crate::wire::NodeId;

/// Number of kinds.
pub(super) const FAULTS: usize = Fault::ALL.len();

/// The longest frame that passes a black hole, at the least and at the most: ADVERTs of eight nodes pass mostly, and a
/// frame with many records does not.
const SHORT: (u64, u64) = (250, 500);

/// A kind of fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// The daemon, or the machine, dies and comes back.
    Crash,
    /// The process is stopped for a while.
    Pause,
    /// The machine is frozen for a while, and its clock with it.
    Freeze,
    /// Each turn takes many times longer.
    Slow,
    /// Nothing passes between one node and another.
    Cut,
    /// Nothing passes in one direction.
    OneWay,
    /// The nodes are parted in two sets.
    Partition,
    /// One node is cut off again and again.
    Flap,
    /// A node's interface has no carrier, and it knows.
    LinkDown,
    /// A sink refuses everything.
    SinkFailure,
    /// More happens in a kernel than its queue of events holds.
    Overrun,
    /// A node says goodbye, and comes back.
    Leave,
    /// The operator wants another role, priority, or a comparison anew.
    Request,
    /// Frames of the past come again.
    Replay,
    /// Entries of a kernel die without an event.
    SilentDeath,
    /// Short frames pass, and long ones do not.
    BlackHole,
    /// A node dies and returns with a higher priority than all others, and its links fail while it does.
    Return,
    /// The operator wants another master, whichever node is asked.
    Switchover,
    /// The operator wants a node to be without the role for a while.
    Drain,
}

impl Fault {
    pub(super) const ALL: [Fault; 19] = [
        Fault::Crash,
        Fault::Pause,
        Fault::Freeze,
        Fault::Slow,
        Fault::Cut,
        Fault::OneWay,
        Fault::Partition,
        Fault::Flap,
        Fault::LinkDown,
        Fault::SinkFailure,
        Fault::Overrun,
        Fault::Leave,
        Fault::Request,
        Fault::Replay,
        Fault::SilentDeath,
        Fault::BlackHole,
        Fault::Return,
        Fault::Switchover,
        Fault::Drain,
    ];

    /// One of so many worlds has it.
    pub(super) const fn rarity(self) -> u64 {
        match self {
            Fault::Crash => 2,
            Fault::Freeze | Fault::Slow | Fault::Flap | Fault::LinkDown | Fault::Request => 5,
            _ => 3,
        }
    }
}

impl World {
    /// Something goes wrong.
    pub(super) fn strike(&mut self, fault: Fault) {
        let node = self.dice.below(self.nodes.len() as u64) as usize;
        match fault {
            Fault::Crash => self.crash(node),
            Fault::Pause => self.rest(node, Rest::Paused, "pause"),
            Fault::Freeze => self.rest(node, Rest::Frozen, "freeze"),
            Fault::Slow => {
                self.nodes[node].slowness = self.dice.doubling(4, 256) as u32;
                self.note_idle(node);
                let time = self.intervals(2, 15);
                self.lasts("slow", node, time, What::Hurry(node as u8));
            }
            Fault::Cut | Fault::OneWay | Fault::Partition | Fault::Flap | Fault::BlackHole => self.cut(fault, node),
            Fault::LinkDown => {
                self.network.plug(node, false);
                self.tell_link(node, false);
                let time = self.intervals(1, 20);
                self.lasts("link-down", node, time, What::Plug(node as u8));
            }
            Fault::SinkFailure => {
                self.nodes[node].kernel.refuses = true;
                let time = self.intervals(1, 15);
                self.lasts("sink-failure", node, time, What::SinkWorks(node as u8));
            }
            Fault::Overrun => {
                self.happened("event-storm", node);
                let changes = self.dice.doubling(32, 1024);
                self.traffic(changes);
            }
            Fault::Leave => self.leave(node),
            Fault::Request => self.request(node),
            Fault::Replay => {
                self.happened("replay", node);
                let frames = self.dice.within(1, 32);
                self.network.replay(self.now, frames, &mut self.agenda, &mut self.watch);
            }
            Fault::Return => self.die_and_return(node),
            Fault::Switchover => self.switchover(node),
            Fault::Drain => {
                self.drain(node, true);
                let time = self.intervals(1, 40);
                self.lasts("drain", node, time, What::Undrain(node as u8));
            }
            Fault::SilentDeath => {
                self.happened("silent-death", node);
                for _ in 0..self.dice.within(1, 8) {
                    let kernel = &mut self.nodes[node].kernel;
                    if let Some(number) = self.workload.any(kernel) {
                        kernel.die_silently(number);
                    }
                }
            }
        }
    }

    fn crash(&mut self, node: usize) {
        if self.nodes[node].engine.is_none() {
            return;
        }
        self.happened("crash", node);
        let warm = self.dice.one_in(2);
        self.nodes[node].crash(self.now, &mut self.network, &mut self.watch);
        if !warm {
            self.nodes[node].reboot(self.now);
        }
        let time = if self.dice.one_in(3) { self.intervals(0, 2) } else { self.intervals(2, 25) };
        self.agenda.push(self.now + time, What::Restart(node as u8));
    }

    fn rest(&mut self, node: usize, rest: Rest, name: &'static str) {
        self.nodes[node].rest(rest, self.now);
        self.note_idle(node);
        let time = if self.dice.one_in(2) { self.intervals(0, 3) } else { self.intervals(3, 20) };
        self.lasts(name, node, time, What::Wake(node as u8));
    }

    fn cut(&mut self, fault: Fault, node: usize) {
        let all = (1_u16 << self.nodes.len()).wrapping_sub(1) as Nodes;
        let other = (node + 1 + self.dice.below(self.nodes.len() as u64 - 1) as usize) % self.nodes.len();
        let one: Nodes = 1 << node;
        let (name, from, to, both) = match fault {
            Fault::Partition => {
                let some = (self.dice.next() as Nodes & all) | one;
                ("partition", some, all & !some, true)
            }
            Fault::OneWay if self.dice.one_in(2) => ("one-way", one, all & !one, false),
            Fault::OneWay => ("one-way", all & !one, one, false),
            Fault::Flap => ("flap", one, all & !one, !self.dice.one_in(3)),
            Fault::BlackHole => ("black-hole", one, all & !one, self.dice.one_in(2)),
            _ => ("cut", one, 1 << other, true),
        };
        let (least, most) = if fault == Fault::BlackHole { (30, 80) } else { (4, 30) };
        let time = if self.dice.one_in(2) { self.intervals(0, 4) } else { self.intervals(least, most) };
        let passes = if fault == Fault::BlackHole { self.dice.within(SHORT.0, SHORT.1) as usize } else { 0 };
        let links = if self.dice.one_in(2) { 0b11 } else { 0b01 << self.dice.below(2) };
        let links = if self.links == 1 { 0b11 } else { links };
        let flaps = if fault == Fault::Flap { self.intervals(0, 3) } else { Duration::ZERO };
        let cut = Cut { from, to, both, links, begins: self.now, ends: self.now + time, flaps, passes };
        self.watch.tell(self.now, format_args!("{name}: {from:08b} {to:08b}, links {links:02b}, for {time:?}"));
        self.watch.happened(Seen(name));
        self.network.cut(self.now, cut);
    }

    fn leave(&mut self, node: usize) {
        let Some((local, engine)) = self.nodes[node].speak(self.now) else { return };
        engine.leave(local);
        self.watch.oracle.leaves(node);
        self.spoken(node);
        let time = self.intervals(1, 15);
        let back = if self.dice.one_in(2) { What::Rejoin(node as u8) } else { What::Stop(node as u8) };
        self.lasts("leave", node, time, back);
    }

    fn request(&mut self, node: usize) {
        let (wish, priority) = (self.dice.below(4), self.dice.within(1, 254) as u8);
        let Some((local, engine)) = self.nodes[node].speak(self.now) else { return };
        let name = match wish {
            0 => {
                engine.set_role(local, RoleRequest::Master);
                self.watch.oracle.wished(node);
                "role-request"
            }
            1 => {
                engine.set_role(local, RoleRequest::Backup);
                "role-request"
            }
            2 => {
                // 0 is refused, and was not drawn.
                let _ = engine.set_priority(local, priority);
                "priority-request"
            }
            _ => return self.resync(node, priority.is_multiple_of(2)),
        };
        self.spoken(node);
        self.happened(name, node);
    }

    /// A machine dies, and comes back as the one that all others are to give way to. Twice on average its links fail for a
    /// moment while it does.
    fn die_and_return(&mut self, node: usize) {
        if self.nodes[node].engine.is_none() {
            return;
        }
        self.happened("return", node);
        self.nodes[node].crash(self.now, &mut self.network, &mut self.watch);
        self.nodes[node].reboot(self.now);
        self.nodes[node].set_priority(254);
        let back = self.now + self.intervals(4, 20);
        self.agenda.push(back, What::Restart(node as u8));
        for _ in 0..self.dice.within(1, 3) {
            let at = back + self.intervals(0, 20);
            self.agenda.push(at, What::CutOff(node as u8));
        }
    }

    /// The links of a node that returns fail for a moment.
    pub(super) fn cut_return(&mut self, node: usize) {
        let all = (1_u16 << self.nodes.len()).wrapping_sub(1) as Nodes;
        let one: Nodes = 1 << node;
        let (from, to) = if self.dice.one_in(2) { (one, all & !one) } else { (all & !one, one) };
        let ends = self.now + self.intervals(0, 5);
        let both = !self.dice.one_in(3);
        let cut = Cut { from, to, both, links: 0b11, begins: self.now, ends, flaps: Duration::ZERO, passes: 0 };
        self.happened("return-cut", node);
        self.network.cut(self.now, cut);
    }

    fn switchover(&mut self, node: usize) {
        let heir = self.dice.below(self.nodes.len() as u64 * 2) as u32 + 1;
        let heir = (heir <= self.nodes.len() as u32).then_some(NodeId(heir));
        let Some((local, engine)) = self.nodes[node].speak(self.now) else { return };
        let answer = engine.switchover(local, heir);
        self.watch.oracle.handover_asked();
        self.watch.tell(self.now, format_args!("switchover: node {node} is asked to make {heir:?} master: {answer:?}"));
        self.watch.happened(Seen(if answer.is_ok() { "switchover" } else { "switchover-refused" }));
        self.spoken(node);
    }

    /// A node is to be without the role from now on, or may have it again.
    pub(super) fn drain(&mut self, node: usize, draining: bool) {
        let Some((local, engine)) = self.nodes[node].speak(self.now) else { return };
        if draining || engine.is_draining() {
            engine.set_draining(local, draining);
            self.watch.oracle.drains(self.now, node, draining);
            self.spoken(node);
        }
    }

    /// One node is to compare its table anew, or all of them at the same time.
    fn resync(&mut self, node: usize, full: bool) {
        let all = self.dice.one_in(2);
        for node in (0..self.nodes.len()).filter(|other| all || *other == node) {
            let Some((local, engine)) = self.nodes[node].speak(self.now) else { continue };
            // Refused where there is nothing to compare with.
            let _ = engine.resync(local, full);
            self.spoken(node);
            self.happened("resync-request", node);
        }
    }

    /// A fault that ends by itself.
    fn lasts(&mut self, name: &'static str, node: usize, time: Duration, ends: What) {
        self.watch.tell(self.now, format_args!("{name}: node {node}, for {time:?}"));
        self.watch.happened(Seen(name));
        self.agenda.push(self.now + time, ends);
    }

    fn happened(&mut self, name: &'static str, node: usize) {
        self.watch.tell(self.now, format_args!("{name}: node {node}"));
        self.watch.happened(Seen(name));
    }

    /// A time of so many intervals of ADVERTs.
    fn intervals(&mut self, least: u32, most: u32) -> Duration {
        self.dice.time(self.interval * least, self.interval * most).max(Duration::from_micros(100))
    }
}
