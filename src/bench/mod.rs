//! What this machine makes of the project, beside what it could make of anything: `ssyncp bench`.
//!
//! A figure alone says nothing: the machine may be slow, shared, or asleep. So each stands beside the *limit*, measured in
//! the same run a moment before: the same frames on the same system calls with nothing around them, or a bare walk through as
//! much memory. What could not be measured is null and has a note, never 0.
//!
//! ```text
//!   ways     each transport, one line each         street    the veth pair in namespaces of its own
//!   flood    frames through a transport │ bare: what it is built on, alone      (limit of the first)
//!   cluster  master ═ transport ═ backups: records, processor, latency
//!   storm    what still arrives while the machine is busy (--flood)
//!   scale    groups, nodes, entries: how cost grows (--scale)
//!   machine  memory walk, copy, CRC-32             workload  frames for the table alone
//!   guard    fixed workloads for tools/guard, which counts their instructions
//!   report   rows ── words, JSON (docs/schemas/bench.json) ── chart: SVG
//! ```

mod bare;
mod bare_ring;
mod bare_xdp;
mod chart;
mod cluster;
mod flood;
mod guard;
mod machine;
mod plan;
mod report;
mod rest;
mod scale;
mod storm;
mod street;
mod ways;
pub mod workload;

use crate::demo::links::Links;
use crate::sys::namespace::{Namespace, become_root_in_user_namespace};
use crate::transport::TransportError;
use plan::Plan;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use street::Street;

/// What `ssyncp bench` can be asked.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  ssyncp bench --seconds 1 --svg bench.svg\n\n\
    Each figure stands beside the limit of this machine, measured in the same run. Other work on the machine shows in both.")]
pub struct Options {
    /// Frames leave by this interface, by multicast, and nobody is there to hear them: only sending is measured.
    #[arg(long, value_name = "IF")]
    pub interface: Option<String>,
    /// Only these transports (with commas).
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = clap::builder::PossibleValuesParser::new(ways::names()))]
    pub transport: Vec<String>,
    /// Seconds of each run of each figure.
    #[arg(long, value_name = "N", default_value_t = 2.0, value_parser = seconds)]
    pub seconds: f64,
    /// Runs of each figure; shown are median, smallest and largest.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=101))]
    pub runs: u32,
    /// Flows that the tables hold.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1_000..=10_000_000))]
    pub flows: u32,
    /// Measure instead what of a slow stream of frames is lost, and how late it comes, while the host is flooded.
    #[arg(long, conflicts_with = "interface")]
    pub flood: bool,
    /// Measure instead how cost grows with groups, nodes and flows (up to --flows).
    #[arg(long, conflicts_with_all = ["flood", "interface"])]
    pub scale: bool,
    /// Print JSON (docs/schemas/bench.json).
    #[arg(long)]
    pub json: bool,
    /// Draw each figure beside its limit into this file (of --scale: curves).
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Only do this workload, and measure nothing: tools/guard counts its instructions.
    #[arg(long, value_name = "NAME", hide = true)]
    pub workload: Option<String>,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.01..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds from 0.01 to 3600".to_owned()),
    }
}

/// Why a figure, or all of them, could not be measured.
#[derive(Debug, thiserror::Error)]
enum BenchError {
    /// The operating system refused a step.
    #[error("{doing}: {source}")]
    Step { doing: &'static str, source: io::Error },
    /// A transport could not be opened.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// An engine does not take its configuration.
    #[error(transparent)]
    Config(#[from] crate::engine::ConfigError),
    /// Two engines did not find each other.
    #[error("{0}")]
    Stuck(&'static str),
    /// Nobody is at the other end.
    #[error("nobody is at the other end of the interface")]
    NobodyThere,
    /// A measuring thread died.
    #[error("a measuring thread panicked")]
    Panicked,
    /// The chart could not be drawn.
    #[error("chart: {0}")]
    Chart(String),
}

/// Names the step that an error of the operating system belongs to.
trait Doing<T> {
    /// The same result, with the step in its error.
    fn doing(self, step: &'static str) -> Result<T, BenchError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, step: &'static str) -> Result<T, BenchError> {
        self.map_err(|source| BenchError::Step { doing: step, source })
    }
}

/// Runs it. Exit status 0: there is a report, however many figures of it are null; 1: the chart could not be written.
///
/// Must be called by the first thread of the process before there is another one: an ordinary user becomes root of a user
/// namespace here.
pub fn run(options: &Options) -> ExitCode {
    if let Some(name) = &options.workload {
        return answer(guard::run(name));
    }
    let (street, trouble) = match street(options) {
        Ok(street) => (Some(street), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let mut plan = Plan::new(options, street);
    plan.note(trouble);
    let report = plan.carry_out();
    let text = if options.json { report.in_json() } else { report.in_words() };
    // A reader that has gone is no error.
    let _ = io::stdout().lock().write_all(text.as_bytes());
    answer(options.svg.as_deref().map_or(Ok(()), |file| chart::draw(&report, file)))
}

/// Done, or the reason why not.
fn answer(done: Result<(), impl std::fmt::Display>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ssyncp bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Where frames travel.
fn street(options: &Options) -> Result<Street, BenchError> {
    if let Some(interface) = &options.interface {
        return Ok(Street::Interface(interface.clone()));
    }
    if Namespace::create().is_err() {
        become_root_in_user_namespace().doing("becoming root of a user namespace (no namespaces for this user)")?;
    }
    Street::build()
}

/// Opens netlink in a namespace: a step that fails where links cannot be made.
fn links(namespace: &Namespace) -> Result<Links, BenchError> {
    Links::open(namespace).doing("opening rtnetlink")
}
