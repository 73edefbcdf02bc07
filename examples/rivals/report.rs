//! What is shown: a line a death and a line a contender, or one JSON object (docs/schemas/rivals.json). What was not measured is null, never 0.

use super::Context;
use super::contender::Contender;
use serde::Serialize;

/// The schema of [`Report`].
pub const SCHEMA: &str = "ssyncp.rivals/1";

/// All of it.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Report {
    /// `ssyncp.rivals/1`.
    #[schemars(extend("const" = "ssyncp.rivals/1"))]
    pub schema: String,
    /// Live TCP connections of each run.
    pub connections: u32,
    /// Deaths that were wanted of each run.
    pub failovers: u32,
    /// Processors of this machine.
    pub processors: Option<usize>,
    /// Load average over the last minute when the first run began.
    pub load: Option<f64>,
    /// The contenders, in the order in which they ran.
    pub runs: Vec<Run>,
}

/// One contender.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Run {
    /// Who.
    pub contender: Contender,
    /// With versions.
    pub title: String,
    /// Each death.
    pub failovers: Vec<Failover>,
    /// Connections that broke with RST, FIN or a wrong byte, over all deaths; null without one.
    pub reset: Option<u32>,
    /// Connections that brought back nothing in 10 s, over all deaths.
    pub stalled: Option<u32>,
    /// Connections that lived on, over all deaths.
    pub survived: Option<u32>,
    /// Median over the deaths of the median hole in the UDP probe's five flows.
    pub blackout_ms_p50: Option<f64>,
    /// The longest hole of all.
    pub blackout_ms_max: Option<f64>,
    /// Median over the deaths of the time until the address was announced.
    pub announced_ms_p50: Option<f64>,
    /// Why it ended before its end.
    pub problem: Option<String>,
}

/// One death.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Failover {
    /// Connections before it: the sum of the next three.
    pub connections: u32,
    /// A new echo came back on the same socket.
    pub survived: u32,
    /// RST, FIN, or a wrong byte.
    pub reset: u32,
    /// No echo in 10 s.
    pub stalled: u32,
    /// Connections with a wrong byte, since the clients' start.
    pub mismatches: u64,
    /// Time from the cut of the cables to the first announcement of the address.
    pub announced_ms: Option<f64>,
    /// Longest hole of the UDP probe, median of its flows; null if one is not answered at the end.
    pub blackout_ms_p50: Option<f64>,
    /// The same, largest of its flows.
    pub blackout_ms_max: Option<f64>,
    /// The latest that the probe was with sending: a hole may be this much longer than the network's.
    pub probe_late_ms_max: f64,
}

impl Report {
    /// Nothing has run yet.
    pub fn new(context: &Context) -> Self {
        let load = std::fs::read_to_string("/proc/loadavg").ok();
        Report {
            schema: SCHEMA.to_owned(),
            connections: context.connections,
            failovers: context.failovers,
            processors: std::thread::available_parallelism().ok().map(usize::from),
            load: load.and_then(|text| text.split(' ').next()?.parse().ok()),
            runs: Vec::new(),
        }
    }
}

/// The table's head.
pub fn head() -> String {
    format!(
        "{:<46} {:>8} {:>7} {:>7} {:>12} {:>12} {:>12}",
        "", "survived", "reset", "stalled", "announced", "blackout p50", "blackout max"
    )
}

impl Failover {
    /// A row of the table.
    pub fn line(&self, number: u32) -> String {
        let Failover { survived, reset, stalled, announced_ms, blackout_ms_p50, blackout_ms_max, .. } = self;
        let counts = [*survived, *reset, *stalled].map(|count| count.to_string());
        row(&format!("  death {number}"), counts, [*announced_ms, *blackout_ms_p50, *blackout_ms_max])
    }
}

impl Run {
    /// Nothing has happened yet.
    pub fn new(contender: Contender) -> Self {
        Run {
            contender,
            title: contender.title(),
            failovers: Vec::new(),
            reset: None,
            stalled: None,
            survived: None,
            blackout_ms_p50: None,
            blackout_ms_max: None,
            announced_ms_p50: None,
            problem: None,
        }
    }

    /// With what follows from its deaths.
    pub fn finish(mut self) -> Self {
        let deaths = &self.failovers;
        let sum = |count: fn(&Failover) -> u32| (!deaths.is_empty()).then(|| deaths.iter().map(count).sum());
        let figures = |figure: fn(&Failover) -> Option<f64>| -> Vec<f64> { deaths.iter().filter_map(figure).collect() };
        self.reset = sum(|death| death.reset);
        self.stalled = sum(|death| death.stalled);
        self.survived = sum(|death| death.survived);
        self.blackout_ms_p50 = median(figures(|death| death.blackout_ms_p50));
        self.blackout_ms_max = figures(|death| death.blackout_ms_max).into_iter().reduce(f64::max);
        self.announced_ms_p50 = median(figures(|death| death.announced_ms));
        self
    }

    /// The row of all its deaths, and why there are not more.
    pub fn line(&self) -> String {
        let counts = [self.survived, self.reset, self.stalled];
        let counts = counts.map(|count| count.map_or("-".to_owned(), |count| count.to_string()));
        let line = row(&self.title, counts, [self.announced_ms_p50, self.blackout_ms_p50, self.blackout_ms_max]);
        match &self.problem {
            Some(problem) => format!("{line}\n  ended early: {problem}"),
            None => line,
        }
    }
}

fn row(title: &str, [survived, reset, stalled]: [String; 3], times: [Option<f64>; 3]) -> String {
    let [announced, p50, max] = times.map(|time| time.map_or("-".to_owned(), |time| format!("{time:.1} ms")));
    format!("{title:<46} {survived:>8} {reset:>7} {stalled:>7} {announced:>12} {p50:>12} {max:>12}")
}

fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let upper = *figures.get(figures.len() / 2)?;
    let lower = *figures.get(figures.len().saturating_sub(1) / 2)?;
    Some(f64::midpoint(lower, upper))
}
