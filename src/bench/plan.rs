//! What is measured, in which order: the machine, then the table, then each transport and its limit by turns.

use super::cluster::{Cluster, Run, Setup};
use super::flood::{Flood, flood, lonely_ns, of_transport};
use super::machine::{self, Applied};
use super::report::{Report, Row, median};
use super::storm::{self, STORMS, Storm, Weathered};
use super::street::Street;
use super::ways::{Bare, Link, WAYS, Way};
use super::workload::{FRAME_LEN, RECORDS, SYNC_ID};
use super::{BenchError, Options};
use crate::time::Duration;

/// Records a second of an idle line: each is alone on it.
const IDLE_PER_S: f64 = 400.0;
/// Fewest latencies of a run that have a p999.
const P999_FROM: usize = 1000;
/// Nanoseconds of a microsecond.
const NS_PER_US: f64 = 1000.0;

/// Everything between options and report.
pub(super) struct Plan<'a> {
    options: &'a Options,
    street: Option<Street>,
    time: Duration,
    report: Report,
    /// Bytes a second that can be copied.
    copy: Option<f64>,
}

/// What a bare pair reaches: the limit of the transports that are built on it.
#[derive(Clone, Copy, Default)]
struct Limit {
    sent: Option<f64>,
    received: Option<f64>,
    sender: Option<f64>,
    receiver: Option<f64>,
    /// Microseconds: p50, p99, p999.
    latency: [Option<f64>; 3],
}

impl<'a> Plan<'a> {
    /// What the options ask for, on this street.
    pub(super) fn new(options: &'a Options, street: Option<Street>) -> Self {
        let time = Duration::from_secs_f64(options.seconds);
        Plan { options, street, time, report: Report::new(options), copy: None }
    }

    /// Notes why something is not measured.
    pub(super) fn note(&mut self, note: Option<String>) {
        self.report.notes.extend(note);
    }

    /// Does all of it. What fails is noted, and its rows are null.
    pub(super) fn carry_out(mut self) -> Report {
        let wanted = |way: &&Way| {
            self.options.transport.is_empty() || self.options.transport.iter().any(|name| name == way.name)
        };
        let ways: Vec<&Way> = WAYS.iter().filter(wanted).collect();
        if self.options.flood {
            ways.into_iter().filter(|way| way.is_on_street()).for_each(|way| self.measure_storms(way));
        } else if self.options.scale {
            super::scale::measure(self.options, self.street.as_ref(), &ways, &mut self.report);
        } else {
            self.measure_machine();
            for way in ways {
                let limit = self.measure_frames(way);
                self.measure_records(way, limit);
            }
        }
        self.report
    }

    fn runs(&self) -> u32 {
        self.options.runs
    }

    fn row(
        &mut self,
        transport: Option<&'static str>,
        what: &'static str,
        unit: &'static str,
        figures: Vec<f64>,
        limit: Option<f64>,
    ) {
        self.report.rows.push(Row::new(transport, what, unit, figures, limit));
    }

    fn measure_machine(&mut self) {
        let repeat =
            |mut figure: Box<dyn FnMut() -> f64>| (0..self.options.runs).map(|_| figure()).collect::<Vec<f64>>();
        let time = self.time;
        let mut applied = Applied::new(self.options.flows);
        let bytes = applied.bytes();
        let walk = repeat(Box::new(move || machine::walk_per_s(bytes, time)));
        let copy = repeat(Box::new(move || machine::copy_per_s(time)));
        let crc32 = repeat(Box::new(move || machine::crc32_per_s(time)));
        let table = repeat(Box::new(move || applied.per_s(time)));
        let limit = middle(&walk);
        self.copy = middle(&copy);
        self.row(None, "memory walk", "lines/s", walk, None);
        self.row(None, "copy", "bytes/s", copy, None);
        self.row(None, "crc32", "bytes/s", crc32, None);
        let cipher = (0..self.options.runs).filter_map(|_| machine::cipher_per_s(time)).collect();
        self.row(None, "cipher", "bytes/s", cipher, None);
        self.row(None, "table apply", "records/s", table, limit);
    }

    /// Frames through the transport, and its limit.
    fn measure_frames(&mut self, way: &Way) -> Limit {
        let Floods { bare, ours, lonely_ns } = self.floods(way);
        let limit = if way.bare.is_some() { limit_of(&bare, lonely_ns) } else { self.copies() };
        let name = Some(way.name);
        self.row(name, "frames sent", "frames/s", each(&ours, |flood| Some(flood.sent_per_s())), limit.sent);
        let received = each(&ours, Flood::received_per_s);
        let by_turns =
            received.iter().zip(each(&bare, Flood::received_per_s)).map(|(ours, bare)| ours / bare).collect();
        self.row(name, "frames received", "frames/s", received, limit.received);
        if way.bare.is_some() {
            self.row(name, "frames by bare", "of frames/s", by_turns, None);
        }
        let unit = "CPU s per 1 M frames";
        self.row(name, "frames, sender", unit, each(&ours, |flood| Some(sender_per_million(flood))), limit.sender);
        self.row(name, "frames, receiver", unit, each(&ours, receiver_per_million), limit.receiver);
        limit
    }

    /// The limit of who has no bare pair.
    fn copies(&self) -> Limit {
        let copies = self.copy.map(|bytes| bytes / FRAME_LEN as f64);
        Limit { sent: copies, received: copies, ..Limit::default() }
    }

    /// Floods through the bare pair and through the transport by turns, each opened anew: a moment in which the machine is
    /// slow is in both. Two pairs at a time would hear each other.
    fn floods(&mut self, way: &Way) -> Floods {
        let mut floods = Floods::default();
        let mut bare = way.bare;
        for _ in 0..self.runs() {
            if let Some((open, street)) = bare.zip(self.street.as_ref())
                && let Err(error) = floods.bare_turn(open, street, self.time)
            {
                self.note(Some(format!("the limit of {}: {error}", way.name)));
                bare = None;
            }
            let turn = way.open(self.street.as_ref()).and_then(|ends| flood(&mut of_transport(ends), self.time));
            match turn {
                Ok(flood) => floods.ours.push(flood),
                Err(error) => {
                    self.note(Some(format!("frames of {}: {error}", way.name)));
                    break;
                }
            }
        }
        floods
    }

    /// Two nodes in sync.
    fn pair(&self, way: &Way, sealed: bool) -> Result<Cluster, BenchError> {
        let (here, there) = way.open(self.street.as_ref())?;
        let links: Vec<Link> = [Some(here), there].into_iter().flatten().collect();
        Cluster::open(links, Setup { flows: self.options.flows, sealed, sync_id: SYNC_ID })
    }

    /// Floods, sealed and in the clear by turns, each by a new pair: a moment in which the machine is slow is in both. Then
    /// latencies.
    fn runs_of_records(&self, way: &Way) -> Result<Runs, BenchError> {
        let mut runs = Runs::default();
        let mut pair = None;
        for _ in 0..self.runs() {
            // Two pairs at a time would hear each other.
            drop(pair.take());
            runs.sealed.push(self.pair(way, true)?.flood(self.time)?);
            runs.clear.push(pair.insert(self.pair(way, false)?).flood(self.time)?);
        }
        let Some(mut pair) = pair else { return Ok(runs) };
        let half = middle(&each(&runs.clear, |run| Some(run.applied_per_s()))).unwrap_or(0.0) / 2.0;
        for _ in 0..self.runs() {
            runs.idle.push(pair.paced(IDLE_PER_S, self.time)?);
            runs.loaded.push(pair.paced(half.max(IDLE_PER_S), self.time)?);
        }
        Ok(runs)
    }

    fn measure_records(&mut self, way: &Way, limit: Limit) {
        let Runs { clear, sealed, idle, loaded } = self.runs_of_records(way).unwrap_or_else(|error| {
            self.report.notes.push(format!("records of {}: {error}", way.name));
            Runs::default()
        });
        let (name, records) = (Some(way.name), RECORDS as f64);
        let (sent, received) =
            (limit.sent.map(|frames| frames * records), limit.received.map(|frames| frames * records));
        let per_s =
            |runs: &[Run], count: fn(&Run) -> u64| each(runs, |run| Some(count(run) as f64 / run.sender.wall_s));
        let (applied, applied_sealed) =
            (each(&clear, |run| Some(run.applied_per_s())), per_s(&sealed, |run| run.applied));
        let by_turns = applied_sealed.iter().zip(&applied).map(|(sealed, clear)| sealed / clear).collect();
        let in_the_clear = middle(&applied);
        self.row(name, "records sent", "records/s", per_s(&clear, |run| run.sent), sent);
        self.row(name, "records received", "records/s", per_s(&clear, |run| run.received), received);
        self.row(name, "records applied", "records/s", applied, received);
        // Beside what the same pair does in the clear.
        self.row(name, "records applied, sealed", "records/s", applied_sealed, in_the_clear);
        self.row(name, "sealed by unsealed", "of records/s", by_turns, None);
        let unit = "CPU s per 1 M records";
        let share = |cpu: Option<f64>| cpu.map(|per_million_frames| per_million_frames / records);
        let (sender, receiver) = (each(&clear, Run::sender_per_million), each(&clear, Run::receiver_per_million));
        let (in_the_clear, there) = (middle(&sender), middle(&receiver));
        self.row(name, "records, sender", unit, sender, share(limit.sender));
        self.row(name, "records, receiver", unit, receiver, share(limit.receiver));
        self.row(name, "records, sender, sealed", unit, each(&sealed, Run::sender_per_million), in_the_clear);
        self.row(name, "records, receiver, sealed", unit, each(&sealed, Run::receiver_per_million), there);
        for (runs, names) in [(idle, IDLE_NAMES), (loaded, LOADED_NAMES)] {
            let mut latencies: Vec<Vec<u64>> = runs.into_iter().map(|run| run.latencies_ns).collect();
            for ((what, quantile), limit) in names.into_iter().zip(QUANTILES).zip(limit.latency) {
                self.row(name, what, "µs", percentiles_us(&mut latencies, quantile), limit);
            }
        }
    }

    /// Sync frames while something else happens, and the bare pair's under the same.
    fn measure_storms(&mut self, way: &Way) {
        for (storm, what) in STORMS {
            let bare = way.bare.map(|open| self.weathered(storm, open));
            let ours = self.weathered(storm, |street| Ok(of_transport(way.open(Some(street))?)));
            let note = |error: BenchError| {
                self.report.notes.push(format!("{}, {what}: {error}", way.name));
                Vec::new()
            };
            let ours = ours.unwrap_or_else(note);
            let bare = bare.and_then(Result::ok).unwrap_or_default();
            self.rows_of_storm(way.name, what, ours, bare);
        }
    }

    fn weathered(
        &self,
        storm: Storm,
        open: impl Fn(&Street) -> Result<super::flood::BareEnds, BenchError>,
    ) -> Result<Vec<Weathered>, BenchError> {
        let street = self.street.as_ref().ok_or(BenchError::NobodyThere)?;
        let mut ends = open(street)?;
        (0..self.runs()).map(|_| storm::weather(&mut ends, storm, street, self.time)).collect()
    }

    fn rows_of_storm(&mut self, name: &'static str, what: &str, mut ours: Vec<Weathered>, mut bare: Vec<Weathered>) {
        let lost = |runs: &[Weathered]| each(runs, |run| Some(run.lost_percent()));
        let mut row = |head: &str, unit, figures, limit| {
            self.report.rows.push(Row::new(Some(name), format!("{head}, {what}"), unit, figures, limit));
        };
        row("lost", "% of frames", lost(&ours), middle(&lost(&bare)));
        let latencies = |runs: &mut [Weathered]| -> Vec<Vec<u64>> {
            runs.iter_mut().map(|run| std::mem::take(&mut run.latencies_ns)).collect()
        };
        let (mut of_ours, mut of_bare) = (latencies(&mut ours), latencies(&mut bare));
        for (head, quantile) in [("latency p50", 0.5), ("latency p99", 0.99)] {
            let limit = middle(&percentiles_us(&mut of_bare, quantile));
            row(head, "µs", percentiles_us(&mut of_ours, quantile), limit);
        }
        let storms = |runs: &[Weathered]| each(runs, |run| run.storm_per_s);
        if !storms(&ours).is_empty() {
            row("storm", "packets/s", storms(&ours), middle(&storms(&bare)));
        }
    }
}

/// All floods of frames.
#[derive(Default)]
struct Floods {
    bare: Vec<Flood>,
    ours: Vec<Flood>,
    /// Latencies of single frames through the bare pair.
    lonely_ns: Vec<u64>,
}

impl Floods {
    /// Through the bare pair; the first time single frames as well.
    fn bare_turn(&mut self, open: Bare, street: &Street, time: Duration) -> Result<(), BenchError> {
        let mut ends = open(street)?;
        self.bare.push(flood(&mut ends, time)?);
        if self.bare.len() == 1 {
            self.lonely_ns = match lonely_ns(&mut ends, time) {
                Err(BenchError::NobodyThere) => Vec::new(),
                latencies => latencies?,
            };
        }
        Ok(())
    }
}

/// All runs of a pair's records.
#[derive(Default)]
struct Runs {
    clear: Vec<Run>,
    sealed: Vec<Run>,
    idle: Vec<Run>,
    loaded: Vec<Run>,
}

/// What is shown of latencies.
const QUANTILES: [f64; 3] = [0.5, 0.99, 0.999];
const IDLE_NAMES: [&str; 3] = ["latency idle p50", "latency idle p99", "latency idle p999"];
const LOADED_NAMES: [&str; 3] = ["latency half load p50", "latency half load p99", "latency half load p999"];

/// Of a bare pair.
fn limit_of(floods: &[Flood], mut lonely_ns: Vec<u64>) -> Limit {
    Limit {
        sent: middle(&each(floods, |flood| Some(flood.sent_per_s()))),
        received: middle(&each(floods, Flood::received_per_s)),
        sender: middle(&each(floods, |flood| Some(sender_per_million(flood)))),
        receiver: middle(&each(floods, receiver_per_million)),
        latency: QUANTILES.map(|quantile| percentile_us(&mut lonely_ns, quantile)),
    }
}

fn each<T>(runs: &[T], figure: impl Fn(&T) -> Option<f64>) -> Vec<f64> {
    runs.iter().filter_map(figure).collect()
}

fn middle(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    median(&sorted)
}

fn sender_per_million(flood: &Flood) -> f64 {
    flood.sender.processor_s / flood.sent as f64 * 1e6
}

fn receiver_per_million(flood: &Flood) -> Option<f64> {
    flood.received.map(|(frames, spent)| spent.processor_s / frames as f64 * 1e6)
}

/// Of each run; or of all together, where each alone has too few.
fn percentiles_us(runs: &mut [Vec<u64>], quantile: f64) -> Vec<f64> {
    let of_each: Vec<f64> = runs.iter_mut().filter_map(|run| percentile_us(run, quantile)).collect();
    if of_each.is_empty() { percentile_us(&mut runs.concat(), quantile).into_iter().collect() } else { of_each }
}

/// The smallest value that this share of all is not above; none of too few.
fn percentile_us(latencies_ns: &mut [u64], quantile: f64) -> Option<f64> {
    if latencies_ns.is_empty() || (quantile > 0.99 && latencies_ns.len() < P999_FROM) {
        return None;
    }
    latencies_ns.sort_unstable();
    let rank = (latencies_ns.len() as f64 * quantile).ceil() as usize;
    latencies_ns.get(rank.saturating_sub(1)).map(|ns| *ns as f64 / NS_PER_US)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_was_measured_and_too_few_have_none() {
        let mut thousand: Vec<u64> = (1..=1000).rev().map(|us| us * 1000).collect();
        assert_eq!(QUANTILES.map(|quantile| percentile_us(&mut thousand, quantile)), [500.0, 990.0, 999.0].map(Some));
        let mut few: Vec<u64> = vec![3000, 1000, 2000];
        assert_eq!(QUANTILES.map(|quantile| percentile_us(&mut few, quantile)), [Some(2.0), Some(3.0), None]);
        assert_eq!(percentile_us(&mut [], 0.5), None);
    }

    #[test]
    fn runs_that_have_too_few_each_have_enough_together() {
        let mut runs = [vec![1000; 600], vec![2000; 400]];
        assert_eq!(percentiles_us(&mut runs, 0.999), [2.0]);
        assert_eq!(percentiles_us(&mut runs, 0.5), [1.0, 2.0]);
        assert_eq!(percentiles_us(&mut [vec![1000; 600]], 0.999), [] as [f64; 0]);
    }
}
