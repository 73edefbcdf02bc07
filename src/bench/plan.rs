//! What is measured, in which order: the machine, then the table, then each transport with its limit just before it.

use super::flood::{Bare, Flood};
use super::machine::{self, Applied};
use super::pair::{Pair, Run};
use super::report::{Report, Row, median};
use super::street::Street;
use super::ways::{WAYS, Way};
use super::workload::{FRAME_LEN, RECORDS};
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

/// What bare sockets reach: the limit of the transports that use them.
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
        self.measure_machine();
        let wanted = |way: &&Way| {
            self.options.transport.is_empty() || self.options.transport.iter().any(|name| name == way.name)
        };
        let ways: Vec<&Way> = WAYS.iter().filter(wanted).collect();
        for way in ways {
            let limit = self.limit_of(way);
            self.measure_frames(way, limit);
            self.measure_records(way, limit);
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

    /// Of bare sockets, or of copies where no socket is.
    fn limit_of(&mut self, way: &Way) -> Limit {
        if !way.is_on_street() {
            let copies = self.copy.map(|bytes| bytes / FRAME_LEN as f64);
            return Limit { sent: copies, received: copies, ..Limit::default() };
        }
        let Some(street) = &self.street else { return Limit::default() };
        let measured = || -> Result<(Vec<Flood>, Vec<Vec<u64>>), BenchError> {
            let mut bare = Bare::open(street)?;
            let floods = (0..self.runs()).map(|_| bare.flood(self.time)).collect::<Result<_, _>>()?;
            let latencies = match bare.latencies_ns(self.time) {
                Ok(latencies) => vec![latencies],
                Err(BenchError::NobodyThere) => Vec::new(),
                Err(error) => return Err(error),
            };
            Ok((floods, latencies))
        };
        match measured() {
            Ok((floods, mut latencies)) => Limit {
                sent: middle(&each(&floods, |flood| Some(flood.sent_per_s()))),
                received: middle(&each(&floods, Flood::received_per_s)),
                sender: middle(&each(&floods, |flood| Some(sender_per_million(flood)))),
                receiver: middle(&each(&floods, receiver_per_million)),
                latency: QUANTILES.map(|quantile| latencies.first_mut().and_then(|all| percentile_us(all, quantile))),
            },
            Err(error) => {
                self.note(Some(format!("the limit of {}: {error}", way.name)));
                Limit::default()
            }
        }
    }

    fn measure_frames(&mut self, way: &Way, limit: Limit) {
        let measured = || {
            let mut ends = way.open(self.street.as_ref())?;
            (0..self.runs()).map(|_| super::flood::through(&mut ends, self.time)).collect::<Result<Vec<Flood>, _>>()
        };
        let floods = measured().unwrap_or_else(|error: BenchError| {
            self.report.notes.push(format!("frames of {}: {error}", way.name));
            Vec::new()
        });
        let name = Some(way.name);
        self.row(name, "frames sent", "frames/s", each(&floods, |flood| Some(flood.sent_per_s())), limit.sent);
        self.row(name, "frames received", "frames/s", each(&floods, Flood::received_per_s), limit.received);
        let unit = "CPU s per 1 M frames";
        self.row(name, "frames, sender", unit, each(&floods, |flood| Some(sender_per_million(flood))), limit.sender);
        self.row(name, "frames, receiver", unit, each(&floods, receiver_per_million), limit.receiver);
    }

    fn measure_records(&mut self, way: &Way, limit: Limit) {
        let runs = |pair: &mut Pair, run: &dyn Fn(&mut Pair) -> Result<Run, BenchError>| {
            (0..self.runs()).map(|_| run(pair)).collect::<Result<Vec<Run>, _>>()
        };
        let measured = || -> Result<[Vec<Run>; 4], BenchError> {
            let open = |sealed| Pair::open(way.open(self.street.as_ref())?, self.options.flows, sealed);
            let sealed = runs(&mut open(true)?, &|pair| pair.flood(self.time))?;
            let mut pair = open(false)?;
            let floods = runs(&mut pair, &|pair| pair.flood(self.time))?;
            let idle = runs(&mut pair, &|pair| pair.paced(IDLE_PER_S, self.time))?;
            let half = middle(&each(&floods, |run| Some(run.applied as f64 / run.sender.wall_s))).unwrap_or(0.0) / 2.0;
            let loaded = runs(&mut pair, &|pair| pair.paced(half.max(IDLE_PER_S), self.time))?;
            Ok([floods, idle, loaded, sealed])
        };
        let [floods, idle, loaded, sealed] = measured().unwrap_or_else(|error| {
            self.report.notes.push(format!("records of {}: {error}", way.name));
            Default::default()
        });
        let (name, records) = (Some(way.name), RECORDS as f64);
        let (sent, received) =
            (limit.sent.map(|frames| frames * records), limit.received.map(|frames| frames * records));
        let per_s =
            |runs: &[Run], count: fn(&Run) -> u64| each(runs, |run| Some(count(run) as f64 / run.sender.wall_s));
        let applied = per_s(&floods, |run| run.applied);
        let in_the_clear = middle(&applied);
        self.row(name, "records sent", "records/s", per_s(&floods, |run| run.sent), sent);
        self.row(name, "records received", "records/s", per_s(&floods, |run| run.received), received);
        self.row(name, "records applied", "records/s", applied, received);
        // Beside what the same pair does in the clear.
        self.row(name, "records applied, sealed", "records/s", per_s(&sealed, |run| run.applied), in_the_clear);
        let unit = "CPU s per 1 M records";
        let share = |cpu: Option<f64>| cpu.map(|per_million_frames| per_million_frames / records);
        let sender = each(&floods, |run| Some(run.sender.processor_s / run.sent as f64 * 1e6));
        let receiver = each(&floods, |run| Some(run.receiver.processor_s / run.received as f64 * 1e6));
        self.row(name, "records, sender", unit, sender, share(limit.sender));
        self.row(name, "records, receiver", unit, receiver, share(limit.receiver));
        for (mut runs, names) in [(idle, IDLE_NAMES), (loaded, LOADED_NAMES)] {
            for ((what, quantile), limit) in names.into_iter().zip(QUANTILES).zip(limit.latency) {
                let figures =
                    runs.iter_mut().filter_map(|run| percentile_us(&mut run.latencies_ns, quantile)).collect();
                self.row(name, what, "µs", figures, limit);
            }
        }
    }
}

/// What is shown of latencies.
const QUANTILES: [f64; 3] = [0.5, 0.99, 0.999];
const IDLE_NAMES: [&str; 3] = ["latency idle p50", "latency idle p99", "latency idle p999"];
const LOADED_NAMES: [&str; 3] = ["latency half load p50", "latency half load p99", "latency half load p999"];

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
}
