//! Frames on their way: loss, bursts, duplicates, delay, order, damage, and cuts in one or both directions.
//!
//! ```text
//!   node 1 ─ frame ─┬─▶ way 1▶2 by link 0:  cut? lost? bad state? damaged? late? twice?  ─▶ agenda ─▶ socket of node 2
//!                   ├─▶ way 1▶3 by link 0:  dice of its own
//!                   └─▶ recording: some of what was ever sent, to come again when nobody expects it
//! ```
//!
//! Every way (sender, receiver, link) has a Gilbert state of its own: in the bad one everything is lost. Buffers are used
//! again, so that a frame costs a copy for each receiver and no allocation.

use super::coverage::Seen;
use super::options::{NODES_MAX, Weather};
use super::random::Random;
use super::watch::Watch;
use super::world::{Agenda, What};
use crate::time::{Duration, Instant};

/// Frames of the past that are kept to come again.
const RECORDED: usize = 64;
/// One of so many frames is recorded.
const RECORDED_ONE_IN: u64 = 16;
/// Most bits that damage turns: CRC-32 finds every such damage in frames of this size, so that a frame which is
/// believed was not damaged.
const BITS_MAX: u64 = 3;

/// A set of nodes, by their numbers.
pub(super) type Nodes = u8;

/// Nothing passes from some nodes to others, until it ends.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    pub(super) from: Nodes,
    pub(super) to: Nodes,
    /// The same in the other direction.
    pub(super) both: bool,
    /// Which sync links.
    pub(super) links: u8,
    pub(super) begins: Instant,
    pub(super) ends: Instant,
    /// Passes and does not pass in turn, each for so long; zero if nothing passes at all.
    pub(super) flaps: Duration,
    /// Frames of at most so many bytes pass all the same: a path whose MTU is smaller than its ends believe.
    pub(super) passes: usize,
}

impl Cut {
    fn stops(&self, now: Instant, (from, to, link): (usize, usize, u8), length: usize) -> bool {
        let way = |one: Nodes, other: Nodes| one >> from & 1 == 1 && other >> to & 1 == 1;
        let covers = way(self.from, self.to) || (self.both && way(self.to, self.from));
        let flaps = self.flaps.as_nanos() as u64;
        let up = flaps > 0 && now.since(self.begins).as_nanos() as u64 / flaps % 2 == 1;
        covers && self.links >> link & 1 == 1 && now < self.ends && !up && length > self.passes
    }
}

/// A frame on its way to one receiver, or in its socket.
#[derive(Debug, Default)]
pub(super) struct Flight {
    pub(super) to: usize,
    pub(super) link: u8,
    pub(super) bytes: Vec<u8>,
    /// The attacker has sent it.
    pub(super) hostile: bool,
}

/// The network.
#[derive(Debug)]
pub(super) struct Network {
    nodes: usize,
    weather: Weather,
    dice: Random,
    flights: Vec<Flight>,
    free: Vec<u32>,
    /// Whether the way (link, from, to) is in its bad state.
    bad: [bool; 2 * NODES_MAX * NODES_MAX],
    cuts: Vec<Cut>,
    recording: Vec<Vec<u8>>,
    /// Nodes whose interface has no carrier.
    unplugged: Nodes,
}

impl Network {
    pub(super) fn new(nodes: usize, weather: Weather, dice: Random) -> Self {
        Network {
            nodes,
            weather,
            dice,
            flights: Vec::new(),
            free: Vec::new(),
            bad: [false; 2 * NODES_MAX * NODES_MAX],
            cuts: Vec::new(),
            recording: Vec::new(),
            unplugged: 0,
        }
    }

    /// A frame leaves a node, to all others, by all links.
    pub(super) fn carry(&mut self, now: Instant, from: usize, frame: &[u8], agenda: &mut Agenda, watch: &mut Watch) {
        if self.unplugged >> from & 1 == 1 {
            return;
        }
        if self.dice.one_in(RECORDED_ONE_IN) {
            self.record(frame);
        }
        for to in (0..self.nodes).filter(|to| *to != from) {
            for link in 0..self.weather.links {
                self.carry_by(now, (from, to, link), frame, agenda, watch);
            }
        }
    }

    fn carry_by(
        &mut self,
        now: Instant,
        (from, to, link): (usize, usize, u8),
        frame: &[u8],
        agenda: &mut Agenda,
        watch: &mut Watch,
    ) {
        if self.cuts.iter().any(|cut| cut.stops(now, (from, to, link), frame.len())) {
            return watch.saw("cut-frame");
        }
        if self.is_lost(from, to, link, watch) {
            return;
        }
        let weather = &self.weather;
        let mut delay = weather.delay + Duration::from_nanos(self.dice.below(weather.jitter.as_nanos() as u64 + 1));
        if self.dice.per_million(weather.reorder) {
            delay += weather.delay * self.dice.within(2, 50) as u32;
            watch.happened(Seen("reorder"));
        }
        let (duplicate, late) = (weather.duplicate, weather.late_duplicate);
        let (short, long) = (weather.delay * 4, weather.late);
        self.fly(now + delay, to, link, frame, agenda, watch);
        if self.dice.per_million(duplicate) {
            watch.happened(Seen("duplicate"));
            let delay = self.dice.around(short);
            self.fly(now + delay, to, link, frame, agenda, watch);
        }
        if self.dice.per_million(late) {
            watch.happened(Seen("late-duplicate"));
            let delay = self.dice.around(long / 2);
            self.fly(now + delay, to, link, frame, agenda, watch);
        }
    }

    fn is_lost(&mut self, from: usize, to: usize, link: u8, watch: &mut Watch) -> bool {
        let bad = &mut self.bad[(usize::from(link) * NODES_MAX + from) * NODES_MAX + to];
        let turns = if *bad { self.weather.burst_ends } else { self.weather.burst_begins };
        if self.dice.per_million(turns) {
            *bad = !*bad;
        }
        if *bad {
            watch.happened(Seen("burst-loss"));
            return true;
        }
        let lost = self.dice.per_million(self.weather.loss);
        if lost {
            watch.happened(Seen("loss"));
        }
        lost
    }

    /// A frame of the attacker leaves, and arrives.
    pub(super) fn inject(&mut self, at: Instant, (to, link): (usize, u8), frame: &[u8], agenda: &mut Agenda) {
        let number = self.board(to, link, frame);
        self.flights[number as usize].hostile = true;
        agenda.push(at, What::Arrives(number));
    }

    fn board(&mut self, to: usize, link: u8, frame: &[u8]) -> u32 {
        let number = self.free.pop().unwrap_or_else(|| {
            self.flights.push(Flight::default());
            self.flights.len() as u32 - 1
        });
        let flight = &mut self.flights[number as usize];
        (flight.to, flight.link, flight.hostile) = (to, link, false);
        flight.bytes.clear();
        flight.bytes.extend_from_slice(frame);
        number
    }

    fn fly(&mut self, at: Instant, to: usize, link: u8, frame: &[u8], agenda: &mut Agenda, watch: &mut Watch) {
        let number = self.board(to, link, frame);
        if self.dice.per_million(self.weather.corrupt) {
            watch.happened(Seen("corrupt"));
            damage(&mut self.dice, &mut self.flights[number as usize].bytes);
        }
        agenda.push(at, What::Arrives(number));
    }

    fn record(&mut self, frame: &[u8]) {
        if self.recording.len() < RECORDED {
            self.recording.push(frame.to_vec());
            return;
        }
        // A random place: some of the very first stay for long.
        let at = self.dice.below(RECORDED as u64) as usize;
        self.recording[at].clear();
        self.recording[at].extend_from_slice(frame);
    }

    /// Frames of the recording come again, to anybody: to those who had them, and to who sent them.
    pub(super) fn replay(&mut self, now: Instant, frames: u64, agenda: &mut Agenda, watch: &mut Watch) {
        for _ in 0..frames.min(self.recording.len() as u64) {
            let at = self.dice.below(self.recording.len() as u64) as usize;
            let to = self.dice.below(self.nodes as u64) as usize;
            let frame = std::mem::take(&mut self.recording[at]);
            let delay = self.dice.around(self.weather.delay);
            self.fly(now + delay, to, 0, &frame, agenda, watch);
            self.recording[at] = frame;
        }
    }

    /// The frame that has arrived.
    pub(super) fn flight(&mut self, number: u32) -> &mut Flight {
        &mut self.flights[number as usize]
    }

    /// The frame is done with.
    pub(super) fn land(&mut self, number: u32) {
        self.free.push(number);
    }

    /// Nothing passes here for a while.
    pub(super) fn cut(&mut self, now: Instant, cut: Cut) {
        self.cuts.retain(|old| now < old.ends);
        self.cuts.push(cut);
    }

    /// A node's interface loses its carrier, or has it back.
    pub(super) fn plug(&mut self, node: usize, up: bool) {
        self.unplugged = self.unplugged & !(1 << node) | u8::from(!up) << node;
    }

    /// Whether a node's interface has a carrier.
    pub(super) fn is_plugged(&self, node: usize) -> bool {
        self.unplugged >> node & 1 == 0
    }

    /// From here on, frames arrive.
    pub(super) fn heal(&mut self) {
        self.weather = self.weather.fair();
        self.cuts.clear();
        self.unplugged = 0;
        self.bad.fill(false);
    }
}

fn damage(dice: &mut Random, bytes: &mut Vec<u8>) {
    if dice.one_in(4) {
        bytes.truncate(dice.below(bytes.len() as u64) as usize);
        return;
    }
    for _ in 0..dice.within(1, BITS_MAX) {
        let bit = dice.below(bytes.len() as u64 * 8) as usize;
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::options::Options;

    const MS: u64 = 1_000_000;

    fn fair() -> Weather {
        let weather = Options::of_seed(1).weather.fair();
        Weather { links: 1, delay: Duration::from_millis(1), ..weather }
    }

    fn at(milliseconds: u64) -> Instant {
        Instant::from_nanos(milliseconds * MS)
    }

    /// Sends 10,000 frames from node 0 of a pair, one each millisecond: when each copy arrives, and its bytes.
    fn carried(mut network: Network) -> (Vec<(u64, Vec<u8>)>, Watch) {
        let (mut agenda, mut watch) = (Agenda::default(), Watch::new(2, false));
        for number in 0..10_000_u32 {
            network.carry(at(u64::from(number)), 0, &number.to_be_bytes(), &mut agenda, &mut watch);
        }
        let mut arrived = Vec::new();
        while let Some((at, what)) = agenda.pop() {
            let What::Arrives(number) = what else { panic!("only frames are on the agenda") };
            arrived.push((at.as_nanos() / MS, network.flight(number).bytes.clone()));
        }
        (arrived, watch)
    }

    fn network(weather: Weather) -> Network {
        Network::new(2, weather, Random::new(3))
    }

    #[test]
    fn in_fair_weather_everything_arrives_once_in_order_and_after_the_delay() {
        let (arrived, _) = carried(network(fair()));
        let expected: Vec<(u64, Vec<u8>)> =
            (0..10_000_u32).map(|number| (u64::from(number) + 1, number.to_be_bytes().to_vec())).collect();
        assert_eq!(arrived, expected);
    }

    #[test]
    fn one_frame_of_ten_is_lost_where_that_is_said() {
        let (arrived, watch) = carried(network(Weather { loss: 100_000, ..fair() }));
        assert!((8_800..9_200).contains(&arrived.len()), "{}", arrived.len());
        assert_eq!(watch.count("loss"), 10_000 - arrived.len() as u64);
    }

    #[test]
    fn bursts_take_many_frames_in_a_row() {
        let weather = Weather { burst_begins: 10_000, burst_ends: 50_000, ..fair() };
        let (arrived, watch) = carried(network(weather));
        let gaps = arrived.windows(2).filter(|pair| pair[1].0 - pair[0].0 > 1).count() as u64;
        let lost = watch.count("burst-loss");
        assert!((1_000..2_400).contains(&lost), "{lost} lost");
        assert!(lost / gaps > 10, "{lost} lost in {gaps} bursts");
    }

    #[test]
    fn duplicates_and_late_ones_are_whole_and_come_later() {
        let late = Duration::from_secs(1);
        let weather = Weather { duplicate: 50_000, late_duplicate: 50_000, late, ..fair() };
        let (arrived, watch) = carried(network(weather));
        let copies = watch.count("duplicate") + watch.count("late-duplicate");
        assert!((800..1_200).contains(&copies), "{copies}");
        assert_eq!(arrived.len() as u64, 10_000 + copies);
        let newest = |at: u64, bytes: &[u8]| at - u64::from(u32::from_be_bytes(bytes.try_into().unwrap()));
        assert!(arrived.iter().any(|(at, bytes)| newest(*at, bytes) > 700));
        assert!(arrived.iter().all(|(at, bytes)| newest(*at, bytes) <= 1_001));
    }

    #[test]
    fn reordered_frames_are_overtaken() {
        let (arrived, _) = carried(network(Weather { reorder: 100_000, ..fair() }));
        let overtaken = arrived.windows(2).filter(|pair| pair[1].1 < pair[0].1).count();
        assert!((700..1_300).contains(&overtaken), "{overtaken}");
    }

    #[test]
    fn damaged_frames_are_never_what_was_sent() {
        let (arrived, watch) = carried(network(Weather { corrupt: 100_000, ..fair() }));
        let whole = arrived.iter().filter(|(at, bytes)| **bytes == ((*at - 1) as u32).to_be_bytes()).count() as u64;
        // Two bits of a few can be the same one, which undoes it.
        let damaged = watch.count("corrupt");
        assert!((800..1_200).contains(&damaged), "{damaged}");
        assert!((9_990 - damaged..=10_100 - damaged).contains(&whole), "{whole} whole, {damaged} damaged");
    }

    #[test]
    fn a_cut_stops_its_direction_and_its_links_for_its_time() {
        let cut = Cut {
            from: 0b01,
            to: 0b10,
            both: false,
            links: 0b01,
            begins: at(100),
            ends: at(200),
            flaps: Duration::ZERO,
            passes: 0,
        };
        assert!(cut.stops(at(199), (0, 1, 0), 40));
        assert!(!cut.stops(at(200), (0, 1, 0), 40), "it has ended");
        assert!(!cut.stops(at(150), (1, 0, 0), 40), "the other direction");
        assert!(!cut.stops(at(150), (0, 1, 1), 40), "the other link");
        assert!(Cut { both: true, ..cut.clone() }.stops(at(150), (1, 0, 0), 40));
        let narrow = Cut { passes: 200, ..cut.clone() };
        assert!(narrow.stops(at(150), (0, 1, 0), 201));
        assert!(!narrow.stops(at(150), (0, 1, 0), 200));
        let flapping = Cut { flaps: Duration::from_millis(10), ..cut };
        let stops = |ms: &u64| flapping.stops(at(*ms), (0, 1, 0), 40);
        let stopped: Vec<bool> = [100, 109, 110, 119, 120].iter().map(stops).collect();
        assert_eq!(stopped, [true, true, false, false, true]);
    }

    #[test]
    fn without_a_carrier_nothing_leaves() {
        let mut unplugged = network(fair());
        unplugged.plug(0, false);
        assert_eq!(carried(unplugged).0, vec![]);
        let mut again = network(fair());
        again.plug(0, false);
        again.plug(0, true);
        assert_eq!(carried(again).0.len(), 10_000);
    }
}
