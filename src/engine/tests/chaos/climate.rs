//! What one seed is like: how many nodes, how they are configured, how hard the weather gets.

use super::*;

/// What goes wrong with frames on their way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weather {
    /// Per mille of the frames that are lost, come twice, or are damaged.
    pub(super) loss: u64,
    pub(super) twice: u64,
    pub(super) damage: u64,
    /// A frame takes `delay` and up to `jitter` more.
    pub(super) delay: Duration,
    pub(super) jitter: Duration,
}

impl Weather {
    pub(super) const FAIR: Weather =
        Weather { loss: 0, twice: 0, damage: 0, delay: Duration::from_micros(50), jitter: Duration::from_micros(20) };
}

/// Drawn once for a seed.
#[derive(Clone, Debug)]
pub(super) struct Climate {
    pub(super) configs: Vec<Config>,
    /// The longest interval of any node: the unit in which mishaps last.
    pub(super) interval: Duration,
    /// Flows come from so many keys.
    pub(super) keys: u32,
    /// Changes of one burst, at most.
    pub(super) burst: u64,
    /// Mishaps of the storm.
    pub(super) mishaps: u32,
    /// Frames that wait for a stalled node; more are lost.
    pub(super) backlog: usize,
    /// Nobody is cut off, and there is always a survivor that holds everything: then no flow may be lost.
    pub(super) gentle: bool,
}

impl Climate {
    pub(super) fn draw(dice: &mut Dice) -> Climate {
        let gentle = dice.chance(250);
        let nodes = dice.between(2, 4) as u32;
        let interval = Duration::from_millis(dice.pick(&[10, 20, 50, 100, 100, 100, 250, 1000]));
        let odd_intervals = dice.chance(150);
        let manual = if gentle { 0 } else { dice.pick(&[0, 0, 0, 0, 0, 1, nodes]) };
        let tiny_table = !gentle && dice.chance(200);
        let tombstones = dice.pick(&[0, 1, 4, 64, 4096]);
        let preempt = dice.pick(&[Some(true), Some(false), None]);
        let configs = (1..=nodes).map(|node| {
            let factor = if odd_intervals { dice.between(1, 4) as u32 } else { 1 };
            Config {
                incarnation: dice.between(1, u64::MAX - 1),
                seed: dice.roll(u64::MAX),
                frame_len: dice.pick(&[1208, 1480]),
                capacity: if tiny_table { dice.between(8, 60) as u32 } else { 2048 },
                tombstones,
                history: dice.pick(&[16, 16, 24, 64, 256]),
                role: if node <= manual { RoleMode::Manual } else { RoleMode::Vrrp },
                priority: dice.pick(&[1, 100, 100, 150, 254, 255]),
                preempt: preempt.unwrap_or_else(|| dice.chance(500)),
                advert_interval: (interval / factor).max(Duration::from_millis(5)),
                batch_delay: Duration::from_micros(dice.pick(&[0, 200, 1000, 5000])),
                ack_every: dice.pick(&[1, 8, 32]),
                commit_deadline: interval * dice.pick(&[1, 10]),
                one_way_hold: interval * dice.pick(&[5, 30]),
                ..Config::new(NodeId(node), 51)
            }
        });
        let configs: Vec<Config> = configs.collect();
        Climate {
            interval: configs.iter().map(|config| config.advert_interval).max().unwrap_or(interval),
            configs,
            keys: dice.pick(&[5, 40, 300, 1500]),
            burst: dice.pick(&[5, 60, 600, 1500]),
            mishaps: dice.between(5, 25) as u32,
            backlog: dice.pick(&[8, 64, 1000]),
            gentle,
        }
    }

    /// Bad weather; in a gentle climate nothing is lost for so long that somebody could be taken for dead.
    pub(super) fn weather(&self, dice: &mut Dice) -> Weather {
        Weather {
            loss: if self.gentle { dice.pick(&[0, 0, 10]) } else { dice.pick(&[0, 10, 50, 200, 400]) },
            twice: dice.pick(&[0, 10, 200]),
            damage: if self.gentle { 0 } else { dice.pick(&[0, 0, 20]) },
            delay: Duration::from_micros(dice.between(20, 300)),
            jitter: match dice.roll(4) {
                0 if !self.gentle => dice.part(self.interval),
                0 | 1 => Duration::from_millis(3),
                _ => Duration::from_micros(100),
            },
        }
    }
}
