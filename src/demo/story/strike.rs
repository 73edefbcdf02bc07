//! How a node is struck, and how it comes back.
//!
//! A strike is one moment: it begins with the clock and the signal, and whatever may take time (telling the clients, reaping
//! the dead) comes after.

use super::{READY_WITHIN, Story, differs, node_plan, realtime};
use crate::demo::cause::{Cause, Event};
use crate::demo::lab::VIRTUAL;
use crate::demo::node::{Node, NodeStatus};
use crate::demo::traffic::Noise;
use crate::demo::{DemoError, Doing};
use crate::sys::schedule;
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

/// Real-time priority of the hand that strikes, where there is one.
const STRIKING_PRIORITY: u8 = 1;
/// Most cuts of the sync link in one return.
const CUTS_MAX: u64 = 4;
/// Longest time between two of them, milliseconds: a return takes a few hundred.
const CUT_AFTER_MAX_MS: u64 = 250;
/// Longest time that one lasts, milliseconds.
const CUT_LASTS_MAX_MS: u64 = 300;

/// What a strike has come to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Struck {
    /// When it was, by CLOCK_REALTIME.
    pub(super) at: Duration,
    /// How long the node that was struck went on holding the address, where it could know better.
    pub(super) duplicate: Option<Duration>,
    /// Masterships taken by the node that returned while the kernels differed.
    pub(super) taken_differing: Option<u32>,
}

impl Story<'_> {
    /// Lets it happen to the victim.
    pub(super) fn strike(&mut self, event: Event, victim: usize) -> Result<Struck, DemoError> {
        if event == Event::Return {
            return self.come_back(victim);
        }
        let mut struck = Struck { at: realtime(), ..Struck::default() };
        // All namespaces share the kernel's lock of links and addresses: who cuts must not be put aside with it in hand.
        let hurried = schedule::real_time(STRIKING_PRIORITY);
        let before = Instant::now();
        let carried_out = self.carry_out(event, victim);
        let took = before.elapsed();
        if hurried.is_ok() {
            schedule::ordinary().doing("going on as an ordinary thread")?;
        }
        carried_out?;
        self.mark()?;
        // Reaped only now, so that nothing stands between the kill and the cut.
        if matches!(event, Event::NodeDeath | Event::DaemonKill) {
            self.nodes[victim] = None;
        }
        self.alive[victim] &= event != Event::NodeDeath;
        self.narrator.say(format_args!(
            "{} {}, within {:.1} ms",
            self.name(victim),
            event.in_words(),
            took.as_secs_f64() * 1e3
        ));
        if matches!(event, Event::Restart | Event::Continue | Event::SyncUp | Event::OneWay) {
            struck.duplicate = Some(self.until_given_up(victim, before)?);
        }
        Ok(struck)
    }

    /// The bare act, and nothing before or after it.
    fn carry_out(&mut self, event: Event, victim: usize) -> Result<(), DemoError> {
        let signal = |signal| self.nodes[victim].as_ref().map_or(Ok(()), |node| node.signal(signal));
        match event {
            Event::NodeDeath => {
                let killed = signal(Signal::SIGKILL);
                self.lab.cut(victim).doing("cutting the master's cables")?;
                killed.doing("killing the master")
            }
            Event::DaemonKill => signal(Signal::SIGKILL).doing("killing the master"),
            Event::Restart => {
                self.nodes[victim] = Some(Node::start(&self.lab.balancers[victim], node_plan(victim, self.told))?);
                Ok(())
            }
            Event::Graceful => signal(Signal::SIGTERM).doing("ending the master"),
            Event::Stop => {
                signal(Signal::SIGSTOP).doing("stopping the master")?;
                self.asleep = Some(victim);
                Ok(())
            }
            Event::Continue => {
                signal(Signal::SIGCONT).doing("waking the one that was master")?;
                self.asleep = None;
                Ok(())
            }
            Event::SyncDown => self.lab.plug_sync(victim, false).doing("cutting the sync link"),
            Event::SyncUp => self.lab.plug_sync(victim, true).doing("mending the sync link"),
            Event::DataDown => self.lab.plug_front(victim, false).doing("cutting the link to the clients"),
            Event::DataUp => self.lab.plug_front(victim, true).doing("mending the link to the clients"),
            Event::OneWay | Event::BothWays => self
                .beside(victim)
                .try_for_each(|backup| self.lab.hear_sync(backup, event == Event::BothWays))
                .doing("dropping what comes in by the sync link"),
            Event::Switchover => {
                let handed = self.nodes[victim].as_ref().map_or(Ok(()), Node::hand_over);
                handed.doing("asking the master to hand over")
            }
            Event::Return => Ok(()),
        }
    }

    /// From now on only answers to new questions count.
    fn mark(&mut self) -> Result<(), DemoError> {
        self.client.mark_death().doing("telling the clients")?;
        self.mix.as_mut().map_or(Ok(()), |mix| mix.begin_window())
    }

    /// Waits until a machine's kernel holds the address no more; the time since `since`, at most [`READY_WITHIN`].
    fn until_given_up(&self, balancer: usize, since: Instant) -> Result<Duration, DemoError> {
        while self.lab.balancers[balancer].holds(VIRTUAL.into()).doing("looking at addresses")? {
            if since.elapsed() > READY_WITHIN {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(since.elapsed())
    }

    /// The node of higher priority comes back from nothing, and takes the role back. In a reboot loop its sync link is cut
    /// meanwhile, and both kernels are compared at the moment at which it takes the role.
    fn come_back(&mut self, victim: usize) -> Result<Struck, DemoError> {
        let mut struck = Struck { at: realtime(), taken_differing: Some(0), ..Struck::default() };
        self.mark()?;
        self.reboot(victim)?;
        self.narrator.say(format_args!("{} {}", self.name(victim), Event::Return.in_words()));
        let mut cuts = match self.options.cause {
            Cause::RebootLoop => Cuts::new(Noise::new(self.seed, struck.at.as_nanos() as u64)),
            _ => Cuts::default(),
        };
        let start = Instant::now();
        let own = self.lab.balancers[victim].hardware_address;
        while self.watcher.first_announcement_by(own, struck.at, Duration::from_millis(1)).is_none() {
            if let Some(plugged) = cuts.due(start.elapsed()) {
                self.lab.plug_sync(victim, plugged).doing("cutting the sync link")?;
            }
            if start.elapsed() > READY_WITHIN {
                let node = self.nodes[victim].as_mut();
                return node
                    .map_or(Ok(()), |node| node.wait_until("master", Duration::ZERO, NodeStatus::is_master))
                    .map(|()| struck);
            }
        }
        let (before, after) = (self.master, victim);
        self.master = after;
        let difference = self.compare()?.difference;
        if differs(&difference) {
            struck.taken_differing = Some(1);
            let words = difference.examples.first().cloned().unwrap_or_default();
            self.narrator.say(format_args!("{} takes the role while the kernels differ: {words}", self.name(victim)));
        }
        self.master = before;
        self.lab.plug_sync(victim, true).doing("mending the sync link")?;
        if cuts.made > 0 {
            self.narrator.say(format_args!("its sync link was cut {} times on the way", cuts.made));
        }
        Ok(struck)
    }

    /// Between two rounds: whoever died is back, and everybody is in sync.
    pub(super) fn recover(&mut self) -> Result<(), DemoError> {
        let back = self.beside(self.master).next();
        match (self.options.cause, back) {
            // With three nodes nobody comes back: the next one dies.
            (Cause::NodeDeath, None) => self.rise()?,
            (Cause::Graceful, Some(back)) => {
                if let Some(node) = &mut self.nodes[back] {
                    node.wait_ended(READY_WITHIN)?;
                }
                self.nodes[back] = Some(Node::start(&self.lab.balancers[back], node_plan(back, self.told))?);
                self.narrator.say(format_args!("the daemon of {} starts anew, on its old kernel", self.name(back)));
            }
            _ => {}
        }
        if self.options.no_sync {
            return Ok(());
        }
        self.settle()?;
        self.narrator.say("all are in sync");
        Ok(())
    }

    /// The machine that died comes back from nothing.
    fn rise(&mut self) -> Result<(), DemoError> {
        let Some(back) = self.alive.iter().position(|alive| !alive) else { return Ok(()) };
        self.reboot(back)?;
        let name = self.name(back);
        if self.options.no_sync {
            self.client.restart().doing("opening the lost connections anew")?;
            self.mix.as_mut().map_or(Ok(()), |mix| mix.restart())?;
            self.narrator.say(format_args!("{name} is back, its kernel empty; the connections are opened anew"));
            return self.fill();
        }
        self.narrator.say(format_args!("{name} is back, its kernel empty: it joins late"));
        Ok(())
    }

    /// A new machine in the place of a dead one, with its node running.
    fn reboot(&mut self, balancer: usize) -> Result<(), DemoError> {
        self.lab.reboot(balancer).doing("rebuilding the dead balancer")?;
        self.alive[balancer] = true;
        if !self.options.no_sync {
            self.nodes[balancer] = Some(Node::start(&self.lab.balancers[balancer], node_plan(balancer, self.told))?);
        }
        Ok(())
    }
}

/// When the sync link is cut on a return, and when it is back: out of a seed.
#[derive(Debug, Default)]
struct Cuts {
    /// Moments at which the link changes, the first one down, in reverse.
    changes: Vec<(Duration, bool)>,
    /// Cuts that were made.
    made: u32,
}

impl Cuts {
    fn new(noise: Noise) -> Self {
        let mut random = (0..).map(|at| noise.number(at));
        let mut below = |bound: u64| random.next().map_or(0, |number| number % bound);
        let (mut at, mut changes) = (Duration::ZERO, Vec::new());
        for _ in 0..=below(CUTS_MAX) {
            at += Duration::from_millis(below(CUT_AFTER_MAX_MS));
            changes.push((at, false));
            at += Duration::from_millis(1 + below(CUT_LASTS_MAX_MS));
            changes.push((at, true));
        }
        changes.reverse();
        Cuts { changes, made: 0 }
    }

    /// What the link becomes now, if it changes: whether it is plugged.
    fn due(&mut self, since_start: Duration) -> Option<bool> {
        let (_, plugged) = self.changes.pop_if(|(at, _)| *at <= since_start)?;
        self.made += u32::from(!plugged);
        Some(plugged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_alternate_end_plugged_and_follow_from_the_seed() {
        for number in 0..200 {
            let mut cuts = Cuts::new(Noise::new(7, number));
            assert_eq!(cuts.changes, Cuts::new(Noise::new(7, number)).changes);
            let mut changes = Vec::new();
            while let Some(plugged) = cuts.due(Duration::from_secs(10)) {
                changes.push(plugged);
            }
            assert!((2..=8).contains(&changes.len()), "{changes:?}");
            assert!(changes.iter().enumerate().all(|(at, plugged)| *plugged == (at % 2 == 1)), "{changes:?}");
            assert_eq!(cuts.made as usize * 2, changes.len());
        }
    }
}
