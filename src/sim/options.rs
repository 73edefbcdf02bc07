//! What a world is made of. Swarmed from the seed: each seed has some faults and not others, each with a rate of its own,
//! so that rare meetings happen.
//!
//! ```text
//!   0            safety              loaded                  liveness at the longest           quiet
//!   ├── faults, traffic ──┼── no faults, traffic ──┼── no traffic; ends when all is equal ──┼── only heartbeats ──┤
//! ```
//!
//! All times of a world are in proportion to its interval of ADVERTs, so that a world of 10 ms and one of 200 ms live
//! through as much.

use super::attacker::Attack;
use super::faults::{FAULTS, Fault};
use super::random::Random;
use super::reload::{self, Reloads};
use super::workload::EXPIRY_MAX;
use crate::engine::breakage::Breakage;
use crate::engine::{Ack, Auth, Config, RoleMode};
use crate::time::Duration;
use crate::wire::{FRAME_LEN_MIN, NodeId, SECRETS_MAX, Secret};

/// Most nodes of a world.
pub(super) const NODES_MAX: usize = 8;
/// The group's number.
const SYNC_ID: u8 = 51;

/// One world's make.
#[derive(Clone, Debug)]
pub struct Options {
    /// 2 to 8.
    pub nodes: usize,
    /// Time with faults.
    pub safety: Duration,
    /// Time without faults in which the traffic goes on.
    pub loaded: Duration,
    /// Time within which everything must be equal and proven, once faults and traffic have stopped.
    pub liveness: Duration,
    /// Time after that in which only heartbeats may travel.
    pub quiet: Duration,
    /// The rule that is broken on purpose.
    pub breakage: Option<Breakage>,
    /// What all nodes are told; number, name, priority and randomness are each node's own.
    pub(super) config: Config,
    /// Each node's make.
    pub(super) seats: Vec<Seat>,
    pub(super) weather: Weather,
    pub(super) traffic: Traffic,
    /// Mean time between two faults of a kind; `None`: there are none.
    pub(super) faults: [Option<Duration>; FAULTS],
    /// Who has no secret and sits on the network; only in sealed worlds.
    pub(super) attack: Option<Attack>,
    /// All secrets that the nodes can ever have.
    pub(super) secrets: Vec<Secret>,
    /// How the nodes are given other secrets.
    pub(super) reloads: Option<Reloads>,
}

/// What one node has of its own.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    pub(super) priority: u8,
    /// Flows that its table holds.
    pub(super) capacity: u32,
    /// Parts in a million by which its clock is fast (or slow).
    pub(super) drift: i32,
    /// How long a turn takes at the least.
    pub(super) turn: Duration,
    /// Frames that its receive socket holds, and whether the daemon knows it and says so.
    pub(super) socket: usize,
    pub(super) knows_room: bool,
    /// Frames that it receives, and that it sends, in one turn.
    pub(super) frames_per_turn: usize,
    /// Events that its kernel keeps for it.
    pub(super) events: usize,
    /// Entries that one datagram of a dump names.
    pub(super) dump_chunk: usize,
    /// Time from the end of a dump to the next.
    pub(super) dump_interval: Duration,
    /// Least time from the start of a dump to the start of the next.
    pub(super) dump_spacing: Duration,
    /// Changes that its sink takes at once.
    pub(super) batch: usize,
    /// A backup writes into its kernel all the time, and not only when it takes over.
    pub(super) continuous: bool,
}

/// What the network does to a frame on its way to one receiver, in parts of a million.
#[derive(Clone, Debug)]
pub(super) struct Weather {
    /// Sync links; each frame travels on all of them.
    pub(super) links: u8,
    pub(super) delay: Duration,
    pub(super) jitter: Duration,
    pub(super) loss: u32,
    /// Gilbert's model: into the bad state, and out of it; in it everything is lost.
    pub(super) burst_begins: u32,
    pub(super) burst_ends: u32,
    pub(super) duplicate: u32,
    /// The copy comes up to [`Weather::late`] later.
    pub(super) late_duplicate: u32,
    pub(super) late: Duration,
    pub(super) reorder: u32,
    pub(super) corrupt: u32,
}

/// What the clients do.
#[derive(Clone, Debug)]
pub(super) struct Traffic {
    /// Different flows that there can be.
    pub(super) keys: u32,
    /// Of 1000 chosen flows that exist, how many end.
    pub(super) ends: u32,
    /// Mean time between two strokes of traffic, and most changes of one.
    pub(super) stroke: Duration,
    pub(super) changes: u64,
    /// Most changes of a burst; one of 32 strokes is one.
    pub(super) burst: u64,
    /// Of 1000 flows, how many are IPv6, translated, in a zone, and have attributes.
    pub(super) wide: u64,
    pub(super) translated: u64,
    pub(super) zoned: u64,
    pub(super) attributes: u64,
    /// One of so many changes is submitted for acknowledgement; 0 is none.
    pub(super) submitted: u64,
    /// Of 1000 strokes, how many change a section.
    pub(super) sections: u64,
    /// Longest value of a section, in bytes.
    pub(super) section_len: u64,
    /// Of 1000 values of sections, how many have a time after which they go.
    pub(super) section_expires: u64,
}

impl Options {
    /// The world of a seed.
    pub fn of_seed(seed: u64) -> Options {
        let mut random = Random::new(seed ^ 0x6f70_7469_6f6e_7321);
        let config = config(&mut random);
        Options::build(&mut random, config).sealed(seed)
    }

    /// The world of a seed, with an operator's own history, intervals, delays, capacity and so on. (That the master's
    /// source reports every death, and that the nodes elect, is part of the world.)
    pub fn with_base(seed: u64, base: Config) -> Options {
        let mut random = Random::new(seed ^ 0x6f70_7469_6f6e_7321);
        let _ = config(&mut random);
        Options::build(&mut random, Config { role: RoleMode::Vrrp, source_expires: true, ..base }).attacked(seed)
    }

    /// Half of the worlds are sealed from their beginning, and of those half get other secrets while they live. Of the rest, one
    /// of four is sealed in the course of it. Drawn by itself, so that all else of a seed is the same with and without.
    fn sealed(mut self, seed: u64) -> Options {
        let mut random = Random::new(seed ^ 0x7365_616c_6564_2121);
        let (sealed, id) = (random.one_in(2), random.below(SECRETS_MAX as u64) as usize);
        let reloads = random.one_in(if sealed { 2 } else { 4 });
        let spacing = self.config.advert_interval * random.within(1, 6) as u32;
        if sealed || reloads {
            self.secrets = reload::secrets(seed);
        }
        self.config.secrets = self.secrets.get(id).filter(|_| sealed).cloned().into_iter().collect();
        self.reloads = reloads.then_some(Reloads { seed: random.next(), spacing });
        self.attacked(seed)
    }

    /// Two of three worlds in which nothing is believed that is not sealed have an attacker, half of them the quiet one. Drawn
    /// by itself, as the secrets are, so that all else of a seed is the same with and without.
    fn attacked(mut self, seed: u64) -> Options {
        let mut random = Random::new(seed ^ 0x6174_7461_636b_6572);
        let sealed = !self.config.secrets.is_empty() && self.config.auth == Auth::Enforce;
        let attack = Attack { seed: random.next(), quiet: random.one_in(2) };
        self.attack = (!random.one_in(3) && sealed).then_some(attack);
        self
    }

    /// The world that the quiet attacker must not make any other.
    pub(super) fn without_attacker(&self) -> Option<Options> {
        self.attack.filter(|attack| attack.quiet).map(|_| Options { attack: None, ..self.clone() })
    }

    fn build(random: &mut Random, config: Config) -> Options {
        let nodes = random.pick(&[2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 6, 8]);
        let interval = config.advert_interval;
        let weather = weather(random, interval);
        // Of n nodes each hears n − 1 others: larger worlds live for less long, so that all cost about the same.
        let ways = (nodes * (nodes - 1)) as u64 * u64::from(weather.links);
        let safety = interval * (random.within(80, 160) * 18 / (ways + 8)).clamp(40, 160) as u32;
        let traffic = traffic(random, &config);
        let unlike = random.one_in(8);
        let seats: Vec<Seat> = (0..nodes).map(|_| seat(random, interval, &config, unlike)).collect();
        let faults = faults(random, safety);
        // Who waits for a part of the members by default must know how many there are.
        let counted = random.one_in(2) || matches!(config.ack, Ack::Quorum | Ack::All);
        let config = Config { members: counted.then_some(nodes as u32), ..config };
        let secrets = config.secrets.clone();
        let mut options = Options {
            nodes,
            safety,
            loaded: interval * random.within(20, 40) as u32,
            liveness: Duration::ZERO,
            quiet: interval * 20,
            breakage: None,
            config,
            seats,
            weather,
            traffic,
            faults,
            attack: None,
            secrets,
            reloads: None,
        };
        options.liveness = options.bound();
        options
    }

    /// The same world in which nothing ever fails.
    #[must_use]
    pub fn without_faults(mut self) -> Options {
        self.faults = [None; FAULTS];
        self.attack = self.attack.filter(|attack| attack.quiet);
        self.reloads = None;
        self.weather = self.weather.fair();
        self
    }

    /// Whether the numbers of this world begin near their end.
    pub(super) fn wraps(&self) -> bool {
        self.config.first_seq > 0
    }

    /// What a node is told at its start but for the randomness.
    pub(super) fn config_of(&self, node: usize) -> Config {
        Config {
            node: NodeId(node as u32 + 1),
            name: format!("node-{}", node + 1),
            priority: self.seats[node].priority,
            capacity: self.seats[node].capacity,
            #[cfg(any(test, feature = "breakages"))]
            breakage: self.breakage,
            ..self.config.clone()
        }
    }

    /// Flows for which every table has room.
    pub(super) fn capacity_min(&self) -> u32 {
        self.seats.iter().map(|seat| seat.capacity).min().unwrap_or(self.config.capacity)
    }

    /// Time within which all must be equal once nothing fails and nothing changes any more: an election with its holds
    /// (10 intervals, one-way hold, commit deadline and a sink's rest), three dumps of the source, and a repair whose
    /// back-off has doubled for as long as there were faults, so that its next attempt is at most as far away as all of
    /// them lasted; 60 intervals for the repair itself, and for clocks that differ by 5 %.
    fn bound(&self) -> Duration {
        let config = &self.config;
        let dumps = self.seats.iter().map(|seat| seat.dump_interval + seat.dump_spacing).max().unwrap_or_default();
        // A loser whom nobody asks repairs nothing before its deadline.
        let merges = config.merge_deadline * 2;
        let elections = config.one_way_hold + config.commit_deadline + Duration::from_millis(200) + merges;
        let repair = (self.safety + self.loaded) * 2 + Duration::from_secs(2);
        // Each master rounds the time that a section has left up to whole seconds.
        let expiry = Duration::from_secs(if self.traffic.section_expires > 0 { u64::from(EXPIRY_MAX) * 3 } else { 0 });
        config.advert_interval * 70 + elections + dumps * 3 + repair + config.lag_limit * 2 + expiry
    }
}

impl Weather {
    /// Only the delay is left.
    pub(super) fn fair(&self) -> Weather {
        Weather {
            links: self.links,
            delay: self.delay,
            jitter: Duration::ZERO,
            loss: 0,
            burst_begins: 0,
            burst_ends: 1_000_000,
            duplicate: 0,
            late_duplicate: 0,
            late: Duration::ZERO,
            reorder: 0,
            corrupt: 0,
        }
    }
}

fn config(random: &mut Random) -> Config {
    let ms = Duration::from_millis;
    let interval = ms(random.pick(&[10, 20, 20, 50, 50, 100, 200]));
    let capacity = random.doubling(32, 2000) as u32;
    let wraps = random.one_in(8);
    Config {
        frame_len: if random.one_in(4) { 1480 } else { FRAME_LEN_MIN },
        capacity,
        tombstones: random.doubling(4, 512) as u32,
        history: random.doubling(16, 256) as u32,
        preempt: !random.one_in(3),
        advert_interval: interval,
        batch_delay: Duration::from_micros(random.pick(&[0, 100, 1000, 2000])),
        ack_every: random.pick(&[1, 4, 16, 32]),
        ack_delay: Duration::from_micros(random.pick(&[500, 2000, 5000])),
        reorder_delay: Duration::from_micros(random.pick(&[500, 1000, 2000, 5000])),
        one_way_hold: interval * random.within(4, 20) as u32,
        commit_deadline: interval * random.within(2, 10) as u32,
        handover_deadline: (interval * random.within(2, 10) as u32).max(ms(100)),
        merge_deadline: interval * 30,
        ack: random.pick(&[Ack::None, Ack::None, Ack::One, Ack::Quorum]),
        ack_timeout: interval * random.within(2, 10) as u32,
        lag_limit: interval * random.within(2, 6) as u32,
        sections: random.doubling(16, 256) as u32,
        section_bytes: random.doubling(16 << 10, 256 << 10) as u32,
        partial_bytes: random.doubling(16 << 10, 128 << 10) as u32,
        first_seq: if wraps { (1 << 48) - 1 - random.below(400) } else { 0 },
        first_term: if wraps { random.doubling(1, 1 << 40) } else { 0 },
        ..Config::new(NodeId(1), SYNC_ID)
    }
}

fn seat(random: &mut Random, interval: Duration, config: &Config, unlike: bool) -> Seat {
    let drift = match random.below(4) {
        0 => random.within(0, 100_000) as i32 - 50_000,
        _ => random.within(0, 400) as i32 - 200,
    };
    Seat {
        priority: random.within(1, 254) as u8,
        capacity: if unlike {
            config.capacity - random.below(u64::from(config.capacity / 2)) as u32
        } else {
            config.capacity
        },
        drift,
        turn: Duration::from_micros(random.pick(&[20, 50, 100, 200])),
        socket: random.doubling(8, 512) as usize,
        frames_per_turn: random.doubling(4, 64) as usize,
        events: random.doubling(16, 1024) as usize,
        dump_chunk: random.doubling(8, 140) as usize,
        dump_interval: interval * random.within(10, 60) as u32,
        dump_spacing: interval * random.within(1, 5) as u32,
        batch: random.doubling(8, 1024) as usize,
        continuous: !random.one_in(4),
        knows_room: random.one_in(2),
    }
}

fn weather(random: &mut Random, interval: Duration) -> Weather {
    let delay = Duration::from_micros(random.doubling(20, 1000));
    // A world with everything at once shows less than one with some of it.
    let mut sometimes = |most: u64| if random.one_in(2) { random.doubling(500, most) as u32 } else { 0 };
    let (loss, burst_begins, duplicate) = (sometimes(200_000), sometimes(5_000), sometimes(50_000));
    let (late_duplicate, reorder, corrupt) = (sometimes(5_000), sometimes(100_000), sometimes(20_000));
    Weather {
        links: if random.one_in(6) { 2 } else { 1 },
        delay,
        jitter: delay * random.below(4) as u32,
        loss,
        burst_begins,
        burst_ends: random.doubling(5_000, 200_000) as u32,
        duplicate,
        late_duplicate,
        late: interval * 20,
        reorder,
        corrupt,
    }
}

fn traffic(random: &mut Random, config: &Config) -> Traffic {
    let capacity = u64::from(config.capacity.min(4000));
    // In one world of five there are more flows than the table holds.
    let keys = if random.one_in(5) { capacity * random.within(2, 3) } else { capacity * random.within(8, 14) / 10 };
    let mut of_1000 = |cases: u64, most: u64| if random.one_in(cases) { random.within(1, most) } else { 0 };
    let (wide, translated, zoned) = (of_1000(2, 300), of_1000(2, 500), of_1000(4, 200));
    let (attributes, sections, section_expires) = (of_1000(3, 200), of_1000(2, 200), of_1000(4, 500));
    Traffic {
        keys: keys as u32,
        ends: random.pick(&[100, 300, 500]),
        stroke: config.advert_interval / random.pick(&[4, 8, 16]),
        changes: random.within(4, 12),
        burst: random.doubling(16, 256),
        wide,
        translated,
        zoned,
        attributes,
        submitted: random.pick(&[0, 0, 8, 64]),
        sections,
        section_len: random.pick(&[200, 2_000, 10_000, 30_000]),
        section_expires,
    }
}

fn faults(random: &mut Random, safety: Duration) -> [Option<Duration>; FAULTS] {
    let mut faults = [None; FAULTS];
    for (kind, rate) in Fault::ALL.iter().zip(&mut faults) {
        *rate = random.one_in(kind.rarity()).then(|| safety / random.doubling(1, 8) as u32);
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_gives_a_configuration_that_an_engine_takes() {
        for seed in 0..2000 {
            let options = Options::of_seed(seed);
            assert!((2..=NODES_MAX).contains(&options.nodes));
            for node in 0..options.nodes {
                let config = Config { incarnation: 1, ..options.config_of(node) };
                assert_eq!(config.problems(), vec![], "seed {seed}");
            }
        }
    }

    #[test]
    fn half_of_the_worlds_have_three_nodes_or_more() {
        let mut nodes: Vec<usize> = (0..1000).map(|seed| Options::of_seed(seed).nodes).collect();
        nodes.sort_unstable();
        assert_eq!((nodes[0], nodes[500], nodes[999]), (2, 3, 8));
    }

    #[test]
    fn each_fault_is_in_some_worlds_and_not_in_others() {
        for kind in 0..FAULTS {
            let with = (0..400).filter(|seed| Options::of_seed(*seed).faults[kind].is_some()).count();
            assert!((20..380).contains(&with), "{:?} in {with} of 400", Fault::ALL[kind]);
        }
    }

    #[test]
    fn an_operators_values_are_kept() {
        let base = Config {
            history: 99,
            capacity: 77,
            advert_interval: Duration::from_millis(33),
            ..Config::new(NodeId(9), 7)
        };
        let options = Options::with_base(5, base);
        let config = options.config_of(1);
        assert_eq!((config.history, config.capacity, config.sync_id), (99, 77, 7));
        assert_eq!((config.advert_interval, config.node), (Duration::from_millis(33), NodeId(2)));
        assert!(options.safety >= Duration::from_millis(33 * 40));
    }
}
