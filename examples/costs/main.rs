//! What replication costs, with conntrackd and with ssyncp, in the same namespaces and under the same packets:
//! `tools/compare-conntrackd`.
//!
//! ```text
//!   street ═ front ═ a ═ back ═ street       a forwards real packets: SYN, SYN+ACK, ACK, three events a connection
//!                    ║ sync
//!                    b                       has the copy; nothing else
//! ```
//!
//! Each of the two gets fresh daemons for each rate; then a table of many entries, written by ctnetlink, that a backup which
//! begins with nothing has to learn and to write into its kernel. Both keep the copy in their own table until a takeover
//! (conntrackd's external cache, `commit = "on-takeover"`), and have buffers that lose nothing. A run without any daemon says
//! what the router does alone, and one with a bare listener of the kernel's events what nobody can go below. Each rate is run
//! with the daemons on a processor of their own, and once more where the scheduler puts them.
//!
//! ```text
//!   contender   configurations, daemons, questions      generator   the packets       lab   namespaces and links
//!   measures    what is done, and measured              latency     single connections
//!   listener    the floor                               report      table and JSON
//! ```

#![allow(unreachable_pub, reason = "a program has no interface; `pub` says what its files have for each other")]

#[allow(dead_code, reason = "each tool has troubles of its own")]
#[path = "../common/mod.rs"]
mod common;
mod contender;
mod generator;
mod lab;
mod latency;
mod listener;
mod measures;
#[allow(dead_code, reason = "examples/rivals uses more of it")]
#[path = "../rivals/process.rs"]
mod process;
mod report;

use clap::Parser;
use common::{Doing, Trouble, beside};
use contender::Contender;
use report::{Report, Run};
use std::path::PathBuf;
use std::process::ExitCode;

/// What can be asked.
#[derive(Debug, clap::Parser)]
#[command(name = "compare-conntrackd", about = "What replication costs, with conntrackd and with ssyncp")]
struct Options {
    /// TCP connections at each rate.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    connections: u32,
    /// Connections a second (with commas); 0 is flat out.
    #[arg(long, value_name = "RATE", value_delimiter = ',', default_value = "10000,20000,0")]
    rates: Vec<u32>,
    /// Entries of the large table; 0 leaves it out.
    #[arg(long, default_value_t = 500_000, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    entries: u32,
    /// Single connections whose way to the backup is timed; 0 leaves it out.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    probes: u32,
    /// Only these contenders (with commas): listener, conntrackd, ssyncp.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Daemons run where the scheduler likes, not all on the first processor; without this the rates are run both ways.
    #[arg(long, conflicts_with = "pinned")]
    unpinned: bool,
    /// Daemons run on the first processor only.
    #[arg(long)]
    pinned: bool,
    /// Be the bare listener.
    #[arg(long, hide = true)]
    listen: bool,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// The program; by default the one that was built beside this.
    #[arg(long, value_name = "FILE")]
    ssyncp: Option<PathBuf>,
}

/// What every measurement is told.
#[derive(Debug, Clone)]
pub struct Context {
    /// The program `ssyncp`.
    pub program: PathBuf,
    /// TCP connections at each rate.
    pub connections: u32,
    /// Entries of the large table.
    pub entries: u32,
    /// Connections that are timed.
    pub probes: u32,
    /// Whether daemons have the first processor, and the packets the second.
    pub pinned: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.listen {
        let Err(error) = listener::listen() else { return ExitCode::SUCCESS };
        eprintln!("compare-conntrackd: listening: {error}");
        return ExitCode::FAILURE;
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("compare-conntrackd: needs root: it makes network namespaces and writes to their kernels' tables");
        return ExitCode::from(2);
    }
    if let Some(unknown) = options.only.iter().find(|name| Contender::named(name).is_none()) {
        eprintln!("compare-conntrackd: nobody is called {unknown}; there are listener, conntrackd and ssyncp");
        return ExitCode::from(2);
    }
    let context = Context {
        program: options.ssyncp.clone().unwrap_or_else(beside),
        connections: options.connections,
        entries: options.entries,
        probes: options.probes,
        pinned: !options.unpinned,
    };
    let report = perform(&options, &context);
    if options.json {
        println!("{}", serde_json::to_string(&report).unwrap_or_default());
    } else {
        print!("{}", report.in_words());
    }
    if report.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn perform(options: &Options, context: &Context) -> Report {
    let mut report = Report::new(context);
    let ways: Vec<Context> = ways(options).map(|pinned| Context { pinned, ..context.clone() }).collect();
    for context in &ways {
        for rate in &options.rates {
            match measures::alone(context, *rate) {
                Ok(reached_per_s) => {
                    let row = report::Alone { asked_per_s: *rate, pinned: context.pinned, reached_per_s };
                    report.router_alone.push(row);
                }
                Err(trouble) => report.problems.push(format!("router alone, {rate}/s: {trouble}")),
            }
        }
    }
    for contender in Contender::ALL {
        if !options.only.is_empty() && !options.only.iter().any(|name| Contender::named(name) == Some(contender)) {
            continue;
        }
        if !contender.is_installed(context) {
            report.problems.push(format!("{}: not installed", contender.name()));
            continue;
        }
        report.runs.push(run(contender, options, &ways, &mut report.problems));
    }
    report.compare();
    report
}

/// Whether daemons are pinned, each way that was asked for.
fn ways(options: &Options) -> impl Iterator<Item = bool> {
    [true, false].into_iter().filter(|pinned| if *pinned { !options.unpinned } else { !options.pinned })
}

fn run(contender: Contender, options: &Options, ways: &[Context], problems: &mut Vec<String>) -> Run {
    let mut run = Run::new(contender.name());
    let mut failed = |what: &str, trouble: Trouble| problems.push(format!("{}, {what}: {trouble}", contender.name()));
    for context in ways {
        for rate in &options.rates {
            let words = report::words_of_rate(*rate, context.pinned);
            eprintln!("{}: {} connections at {words}", contender.name(), context.connections);
            match measures::at_rate(contender, context, *rate) {
                Ok(row) => run.rates.push(row),
                Err(trouble) => failed(&words, trouble),
            }
        }
    }
    let Some(context) = ways.first().filter(|_| contender != Contender::Listener) else { return run };
    if context.entries > 0 {
        eprintln!("{}: a table of {} entries", contender.name(), context.entries);
        match measures::large(contender, context) {
            Ok(large) => run.large = Some(large),
            Err(trouble) => failed("large table", trouble),
        }
    }
    if context.probes > 0 {
        eprintln!("{}: {} probes", contender.name(), context.probes);
        match latency::latency(contender, context) {
            Ok(latency) => run.latency = Some(latency),
            Err(trouble) => failed("latency", trouble),
        }
    }
    run
}
