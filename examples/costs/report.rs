//! What is shown: both beside each other, or one JSON object. What was not measured is null, never 0.

use super::Context;
use serde::Serialize;
use std::fmt::Write;

/// The form of [`Report`].
pub const SCHEMA: &str = "ssyncp.costs/1";

/// All of it.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// `ssyncp.costs/1`.
    pub schema: &'static str,
    /// TCP connections at each rate.
    pub connections: u32,
    /// Processors of this machine.
    pub processors: Option<usize>,
    /// Load average over the minute before.
    pub load: Option<f64>,
    /// What the router reaches when nobody listens.
    pub router_alone: Vec<Alone>,
    /// The bare listener, conntrackd and ssyncp.
    pub runs: Vec<Run>,
    /// Figures of all, and ssyncp's by conntrackd's.
    pub compared: Vec<Compared>,
    /// What ended before its end.
    pub problems: Vec<String>,
}

/// The router without daemons.
#[derive(Debug, Clone, Serialize)]
pub struct Alone {
    /// Connections a second that were wanted; 0: flat out.
    pub asked_per_s: u32,
    /// Whether daemons had the first processor for themselves, and the packets the second.
    pub pinned: bool,
    /// Connections a second that there were.
    pub reached_per_s: f64,
}

/// One contender.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// Who.
    pub contender: &'static str,
    /// Each rate.
    pub rates: Vec<Rate>,
    /// The large table.
    pub large: Option<Large>,
    /// Single connections.
    pub latency: Option<Latency>,
}

/// Connections at a rate.
#[derive(Debug, Clone, Serialize)]
pub struct Rate {
    /// Connections a second that were wanted; 0: flat out.
    pub asked_per_s: u32,
    /// Whether daemons had the first processor for themselves, and the packets the second.
    pub pinned: bool,
    /// Connections a second that there were.
    pub reached_per_s: f64,
    /// Seconds of processor of the router's daemon, for 100,000 connections.
    pub sender_cpu_s: f64,
    /// The same of the backup's.
    pub receiver_cpu_s: Option<f64>,
    /// Packets on the sync link, both directions, for each connection.
    pub packets: Option<f64>,
    /// Octets of them, Ethernet headers included.
    pub octets: Option<f64>,
    /// Entries that the backup lacked 15 s after the last packet.
    pub missing: Option<u64>,
}

/// The large table.
#[derive(Debug, Clone, Serialize)]
pub struct Large {
    /// Entries.
    pub entries: u32,
    /// Bytes of memory of an entry: (resident with them - resident before) / entries, on the router. Of ssyncp's table, which is
    /// there as a whole from the start on, there is nothing in it.
    pub sender_bytes: f64,
    /// The same on the backup.
    pub receiver_bytes: f64,
    /// Bytes of the whole process with all entries, by entries, on the router: what is taken at the start is in it.
    pub sender_resident: f64,
    /// The same on the backup.
    pub receiver_resident: f64,
    /// Seconds from the question (conntrackd), or from the first answer of a started daemon (ssyncp), until the backup held all.
    pub resync_s: f64,
    /// Octets on the sync link for each entry.
    pub resync_octets: f64,
    /// Seconds of processor of both, for all entries.
    pub resync_cpu_s: f64,
    /// Seconds until the backup's kernel had all; null if it never did.
    pub commit_s: Option<f64>,
}

/// Single connections, microseconds from the packet.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Latency {
    /// Until a frame about it was on the backup's link: median, 99th of 100.
    pub wire_us_p50: Option<f64>,
    /// The same.
    pub wire_us_p99: Option<f64>,
    /// Until the backup's table had one more; with one question at its control socket.
    pub table_us_p50: Option<f64>,
    /// The same.
    pub table_us_p99: Option<f64>,
    /// What the question alone takes, of the backup at rest: a part of the two above.
    pub question_us_p50: Option<f64>,
    /// On the wire, under 20,000 connections a second.
    pub loaded_wire_us_p50: Option<f64>,
    /// The same.
    pub loaded_wire_us_p99: Option<f64>,
    /// Until the backup's kernel had it, told by its own event, where copies are committed at once.
    pub kernel_us_p50: Option<f64>,
    /// The same.
    pub kernel_us_p99: Option<f64>,
    /// The same under 20,000 connections a second.
    pub loaded_kernel_us_p50: Option<f64>,
    /// The same.
    pub loaded_kernel_us_p99: Option<f64>,
}

/// One figure of all.
#[derive(Debug, Clone, Serialize)]
pub struct Compared {
    /// Which.
    pub what: String,
    /// That of a bare listener of events, which does nothing: the floor.
    pub listener: Option<f64>,
    /// conntrackd's.
    pub conntrackd: Option<f64>,
    /// ssyncp's.
    pub ssyncp: Option<f64>,
    /// ssyncp's by conntrackd's.
    pub ratio: Option<f64>,
}

/// A figure of a rate.
type OfRate = fn(&Rate) -> Option<f64>;

/// A rate in words.
pub fn words_of_rate(rate: u32, pinned: bool) -> String {
    let rate = if rate == 0 { "flat out".to_owned() } else { format!("{rate}/s") };
    if pinned { rate } else { format!("{rate}, not pinned") }
}

impl Report {
    /// Nothing has run yet.
    pub fn new(context: &Context) -> Self {
        let load = std::fs::read_to_string("/proc/loadavg").ok();
        Report {
            schema: SCHEMA,
            connections: context.connections,
            processors: std::thread::available_parallelism().ok().map(usize::from),
            load: load.and_then(|text| text.split(' ').next()?.parse().ok()),
            router_alone: Vec::new(),
            runs: Vec::new(),
            compared: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Puts all beside each other.
    pub fn compare(&mut self) {
        let mut compared = Vec::new();
        let of = |name: &str| self.runs.iter().find(|run| run.contender == name);
        let (floor, theirs, ours) = (of("listener"), of("conntrackd"), of("ssyncp"));
        let mut row = |what: String, figure: &dyn Fn(&Run) -> Option<f64>| {
            let [listener, conntrackd, ssyncp] = [floor, theirs, ours].map(|run| run.and_then(figure));
            let both = ssyncp.zip(conntrackd);
            let ratio = both.and_then(|(ssyncp, conntrackd)| (conntrackd > 0.0).then(|| ssyncp / conntrackd));
            compared.push(Compared { what, listener, conntrackd, ssyncp, ratio });
        };
        let mut asked: Vec<(u32, bool)> = Vec::new();
        for rate in self.runs.iter().flat_map(|run| &run.rates).map(|rate| (rate.asked_per_s, rate.pinned)) {
            if !asked.contains(&rate) {
                asked.push(rate);
            }
        }
        let names: [(&str, OfRate); 6] = [
            ("sender CPU s per 100k", |rate| Some(rate.sender_cpu_s)),
            ("receiver CPU s per 100k", |rate| rate.receiver_cpu_s),
            ("sync packets per connection", |rate| rate.packets),
            ("sync octets per connection", |rate| rate.octets),
            ("connections/s reached", |rate| Some(rate.reached_per_s)),
            ("missing", |rate| rate.missing.map(|count| count as f64)),
        ];
        for (rate, pinned) in asked {
            let is_it = |row: &&Rate| row.asked_per_s == rate && row.pinned == pinned;
            let words = words_of_rate(rate, pinned);
            for (name, figure) in names {
                let of_rate = |run: &Run| run.rates.iter().find(is_it).and_then(figure);
                row(format!("{words}: {name}"), &of_rate);
            }
            let alone = self.router_alone.iter().find(|alone| alone.asked_per_s == rate && alone.pinned == pinned);
            let share = |run: &Run| {
                let reached = run.rates.iter().find(is_it)?.reached_per_s;
                alone.map(|alone| reached / alone.reached_per_s)
            };
            row(format!("{words}: of the router alone"), &share);
        }
        row("bytes per entry, sender".into(), &|run| run.large.as_ref().map(|large| large.sender_bytes));
        row("bytes per entry, receiver".into(), &|run| run.large.as_ref().map(|large| large.receiver_bytes));
        row("whole process by entries, sender".into(), &|run| run.large.as_ref().map(|large| large.sender_resident));
        row("whole process by entries, receiver".into(), &|run| {
            run.large.as_ref().map(|large| large.receiver_resident)
        });
        row("resync, s".into(), &|run| run.large.as_ref().map(|large| large.resync_s));
        row("resync, octets per entry".into(), &|run| run.large.as_ref().map(|large| large.resync_octets));
        row("resync, CPU s of both".into(), &|run| run.large.as_ref().map(|large| large.resync_cpu_s));
        row("kernel commit, s".into(), &|run| run.large.as_ref().and_then(|large| large.commit_s));
        let latency = |figure: fn(&Latency) -> Option<f64>| move |run: &Run| run.latency.as_ref().and_then(figure);
        row("latency to the wire, µs p50".into(), &latency(|it| it.wire_us_p50));
        row("latency to the wire, µs p99".into(), &latency(|it| it.wire_us_p99));
        row("latency to the table, µs p50".into(), &latency(|it| it.table_us_p50));
        row("latency to the table, µs p99".into(), &latency(|it| it.table_us_p99));
        row("(its question alone, µs p50)".into(), &latency(|it| it.question_us_p50));
        row("latency to the kernel, µs p50".into(), &latency(|it| it.kernel_us_p50));
        row("latency to the kernel, µs p99".into(), &latency(|it| it.kernel_us_p99));
        row("to the kernel at 20,000/s, µs p50".into(), &latency(|it| it.loaded_kernel_us_p50));
        row("to the kernel at 20,000/s, µs p99".into(), &latency(|it| it.loaded_kernel_us_p99));
        row("to the wire at 20,000/s, µs p50".into(), &latency(|it| it.loaded_wire_us_p50));
        row("to the wire at 20,000/s, µs p99".into(), &latency(|it| it.loaded_wire_us_p99));
        self.compared = compared;
    }

    /// A table.
    pub fn in_words(&self) -> String {
        let mut text = String::new();
        let pinned = "daemons on processor 0 and packets on 1, unless not pinned";
        let load = self.load.map_or("-".to_owned(), |load| format!("{load:.2}"));
        let _ = writeln!(text, "{} connections at each rate, {pinned}; load before: {load}", self.connections);
        for alone in &self.router_alone {
            let _ = writeln!(
                text,
                "the router alone, {}: {:.0} connections/s",
                words_of_rate(alone.asked_per_s, alone.pinned),
                alone.reached_per_s
            );
        }
        let _ = writeln!(text, "\n{:<50} {:>12} {:>12} {:>12} {:>8}", "", "listener", "conntrackd", "ssyncp", "ratio");
        for row in &self.compared {
            let figure = |figure: Option<f64>| match figure {
                None => "-".to_owned(),
                Some(figure) if figure.abs() >= 100.0 => format!("{figure:.0}"),
                Some(figure) => format!("{figure:.3}"),
            };
            let _ = writeln!(
                text,
                "{:<50} {:>12} {:>12} {:>12} {:>8}",
                row.what,
                figure(row.listener),
                figure(row.conntrackd),
                figure(row.ssyncp),
                figure(row.ratio)
            );
        }
        for problem in &self.problems {
            let _ = writeln!(text, "FAILED {problem}");
        }
        text
    }
}

impl Run {
    /// Nothing was measured yet.
    pub fn new(contender: &'static str) -> Self {
        Run { contender, rates: Vec::new(), large: None, latency: None }
    }
}
