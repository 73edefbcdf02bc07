//! What happens to the pair: drawn from the seed, done one after the other.
//!
//! Kills are few, and in the first half of a run only machine b's daemon is killed, in the second only a's: so each has a life
//! that is half as long as the run.

use super::board::{Board, MACHINES};
use super::chaos::Trouble;
use super::chaos::interrupt::nap;
use super::rig::Rig;
use fastrand::Rng;
use nix::sys::signal::Signal;
use serde_json::json;
use std::time::Duration;

/// A kind of fault, and how often it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Frames get lost on their way to one machine, or to both.
    Loss,
    /// Nothing arrives, at one machine or at both.
    Silence,
    /// A machine's link goes down and up.
    Cut,
    /// SIGKILL, and a new start.
    Kill,
    /// SIGSTOP, SIGCONT.
    Stop,
    /// The master gives the role away.
    Switchover,
    /// Both read their configurations anew.
    Reload,
    /// Both get another secret.
    Rotate,
    /// The links' MTU becomes smaller, and what it was.
    Mtu,
    /// The backup walks the whole table.
    Resync,
}

/// All kinds; each stands here as often as it comes in as many draws.
const URN: [Kind; 20] = [
    Kind::Loss,
    Kind::Loss,
    Kind::Loss,
    Kind::Loss,
    Kind::Loss,
    Kind::Silence,
    Kind::Silence,
    Kind::Silence,
    Kind::Cut,
    Kind::Cut,
    Kind::Kill,
    Kind::Kill,
    Kind::Stop,
    Kind::Stop,
    Kind::Switchover,
    Kind::Switchover,
    Kind::Reload,
    Kind::Rotate,
    Kind::Mtu,
    Kind::Resync,
];

impl Kind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Loss => "loss",
            Kind::Silence => "silence",
            Kind::Cut => "cut",
            Kind::Kill => "kill",
            Kind::Stop => "stop",
            Kind::Switchover => "switchover",
            Kind::Reload => "reload",
            Kind::Rotate => "rotate",
            Kind::Mtu => "mtu",
            Kind::Resync => "resync",
        }
    }
}

/// Time that the weather lasts beyond the fault.
const WEATHER: Duration = Duration::from_secs(1);

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Which.
    pub kind: Kind,
    /// The machines that it hits.
    pub hits: [bool; MACHINES],
    /// Of a thousand packets so many get lost (of a loss).
    pub loss: u32,
    /// What gets lost in both directions beside it, of a thousand; 0: nothing.
    pub weather: u32,
    /// How long it is on.
    pub time: Duration,
}

/// Where faults come from. Kinds are drawn without putting back: each comes within any twenty.
#[derive(Debug)]
pub struct Urn {
    dice: Rng,
    left: Vec<Kind>,
}

impl Urn {
    /// The faults of a seed.
    pub fn new(seed: u64) -> Self {
        Urn { dice: Rng::with_seed(seed), left: Vec::new() }
    }

    /// Time until the next fault.
    pub fn pause(&mut self) -> Duration {
        Duration::from_millis(self.dice.u64(1_000..=5_000))
    }

    /// The next one; `late`: in the second half of the run.
    pub fn draw(&mut self, late: bool) -> Fault {
        if self.left.is_empty() {
            self.left = URN.to_vec();
            self.dice.shuffle(&mut self.left);
        }
        let kind = self.left.pop().unwrap_or(Kind::Loss);
        let hits = match (kind, self.dice.u8(0..4)) {
            (Kind::Kill, _) => [late, !late],
            (Kind::Loss | Kind::Silence, 0 | 1) => [true, true],
            (_, which) => [which % 2 == 0, which % 2 == 1],
        };
        let milliseconds = match kind {
            Kind::Loss | Kind::Mtu => 1_000..=8_000,
            Kind::Silence | Kind::Cut => 100..=6_000,
            Kind::Kill => 1..=3_000,
            Kind::Stop => 50..=5_000,
            Kind::Switchover | Kind::Reload | Kind::Rotate | Kind::Resync => 0..=0,
        };
        let time = Duration::from_millis(self.dice.u64(milliseconds));
        let rainy = self.dice.u8(0..4) == 0 && !matches!(kind, Kind::Loss | Kind::Silence);
        let weather = if rainy { self.dice.u32(10..=50) } else { 0 };
        Fault { kind, hits, loss: self.dice.u32(10..=200), weather, time }
    }
}

impl Fault {
    /// The machines that it hits, by their letters.
    pub fn target(&self) -> String {
        let letters = ['a', 'b'].into_iter().zip(self.hits).filter(|(_, hit)| *hit);
        match self.kind {
            Kind::Switchover | Kind::Reload | Kind::Rotate | Kind::Mtu | Kind::Resync => "the pair".into(),
            _ => letters.map(|(letter, _)| letter.to_string()).collect::<Vec<_>>().join(" and "),
        }
    }

    /// In words.
    pub fn words(&self) -> String {
        match self.kind {
            Kind::Loss => format!("{:.1} % loss", f64::from(self.loss) / 10.0),
            kind if self.weather > 0 => format!("{}, {:.1} % loss", kind.name(), f64::from(self.weather) / 10.0),
            kind => kind.name().into(),
        }
    }

    fn machines(&self) -> impl Iterator<Item = usize> {
        (0..MACHINES).zip(self.hits).filter(|(_, hit)| *hit).map(|(machine, _)| machine)
    }

    /// Does it, and undoes it. A daemon that refuses is a sentence: roles move while one asks.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn happen(&self, rig: &mut Rig, board: &Board) -> Result<Option<String>, Trouble> {
        if self.weather == 0 {
            return self.strike(rig, board);
        }
        rig.lab.lose_everywhere(self.weather)?;
        let refused = self.strike(rig, board)?;
        nap(WEATHER)?;
        rig.lab.lose_everywhere(0)?;
        Ok(refused)
    }

    fn strike(&self, rig: &mut Rig, board: &Board) -> Result<Option<String>, Trouble> {
        match self.kind {
            Kind::Loss | Kind::Silence => {
                let loss = if self.kind == Kind::Loss { self.loss } else { 1000 };
                self.machines().try_for_each(|machine| rig.lab.lose(machine, loss))?;
                nap(self.time)?;
                rig.lab.lose_everywhere(0)?;
            }
            Kind::Cut => {
                self.machines().try_for_each(|machine| rig.lab.cut(machine))?;
                nap(self.time)?;
                self.machines().try_for_each(|machine| rig.lab.mend(machine))?;
            }
            Kind::Kill => {
                for machine in self.machines() {
                    board.lives(machine, 0);
                    rig.lab.nodes[machine].kill()?;
                    nap(self.time)?;
                    rig.lab.nodes[machine].start()?;
                    board.lives(machine, rig.lab.nodes[machine].process().unwrap_or(0));
                }
            }
            Kind::Stop => {
                self.machines().try_for_each(|machine| rig.lab.nodes[machine].tell(Signal::SIGSTOP))?;
                nap(self.time)?;
                self.machines().try_for_each(|machine| rig.lab.nodes[machine].tell(Signal::SIGCONT))?;
            }
            Kind::Mtu => {
                rig.narrow(true)?;
                nap(self.time)?;
                rig.narrow(false)?;
            }
            Kind::Switchover => return Ok(rig.post(board.holder(), "/v1/switchover", &json!({})).err()),
            Kind::Resync => {
                let backup = MACHINES - 1 - board.holder();
                return Ok(rig.post(backup, "/v1/resync", &json!({ "full": true })).err());
            }
            Kind::Reload => rig.reload()?,
            Kind::Rotate => rig.rotate()?,
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_comes_within_any_twenty_and_a_seed_tells_the_same_again() {
        let draw = |seed| {
            let mut urn = Urn::new(seed);
            (0..20).map(|_| urn.draw(false)).collect::<Vec<_>>()
        };
        let mut kinds: Vec<Kind> = draw(7).iter().map(|fault| fault.kind).collect();
        kinds.sort();
        kinds.dedup();
        assert_eq!(kinds.len(), 10);
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn in_the_first_half_only_b_is_killed_and_then_only_a() {
        let killed = |late| {
            let mut urn = Urn::new(1);
            let kills = (0..60).map(|_| urn.draw(late)).filter(|fault| fault.kind == Kind::Kill);
            kills.map(|fault| fault.hits).collect::<Vec<_>>()
        };
        assert_eq!(killed(false), [[false, true]; 6]);
        assert_eq!(killed(true), [[true, false]; 6]);
    }
}
