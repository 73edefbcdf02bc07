//! A hostile machine on the sync link of real pairs: `tools/attack`.
//!
//! ```text
//!   a, b        two `ssyncp run`, each with a connection table of its own, and honest traffic      (examples/chaos)
//!   stranger    hears every frame, and sends what it likes under any address                       hostile, forger
//!               the attacks: forged, replayed, changed, floods …                                   kinds
//!   siege       one after the other; what came of it is compared with the truth                    victims, honest
//!   report      table and JSON          conntrackd    the same done to it, beside
//! ```

#![allow(unreachable_pub, reason = "a program has no interface; `pub` says what its files have for each other")]

#[allow(dead_code, reason = "only its laboratory is used")]
#[path = "../chaos/main.rs"]
mod chaos;
mod conntrackd;
mod forger;
mod honest;
mod hostile;
pub mod kinds;
pub mod report;
pub mod siege;
mod victims;

pub use chaos::Context;
use chaos::{Trouble, interrupt};
use clap::Parser;
use kinds::KINDS;
use report::Report;
use siege::{Measure, Siege};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// What can be asked.
#[derive(Debug, clap::Parser)]
#[command(name = "attack", about = "A hostile machine on the sync link of real pairs in namespaces")]
struct Options {
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// How long each flood lasts.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Packets of each attack that is no flood.
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    packets: u64,
    /// The pair has no secret: what the attacks can do then.
    #[arg(long)]
    without_secret: bool,
    /// Does not attack conntrackd beside.
    #[arg(long)]
    no_peer: bool,
    /// Only these attacks (names with commas, as of --list).
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Keeps the daemons' configurations and logs, and says where.
    #[arg(long)]
    keep: bool,
    /// Says what there is.
    #[arg(long)]
    list: bool,
    /// The program; by default the one that was built beside this.
    #[arg(long, value_name = "FILE")]
    ssyncp: Option<PathBuf>,
}

/// Exit status after SIGINT, by the shells' convention.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let options = Options::parse();
    if options.list {
        KINDS.iter().for_each(|kind| println!("{:<15} {}", kind.name, kind.what));
        return ExitCode::SUCCESS;
    }
    if let Some(unknown) = options.only.iter().find(|name| KINDS.iter().all(|kind| kind.name != **name)) {
        eprintln!("attack: there is no attack {unknown}; --list names them");
        return ExitCode::from(2);
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("attack: needs root: it makes network namespaces and writes to their kernels' tables");
        return ExitCode::from(2);
    }
    if let Err(error) = interrupt::watch() {
        eprintln!("attack: watching for Ctrl-C: {error}");
        return ExitCode::FAILURE;
    }
    let program = options.ssyncp.clone().unwrap_or_else(chaos::beside);
    let context = Context { program, quick: false, keep: options.keep };
    let measure = Measure {
        packets: options.packets,
        time: Duration::from_secs(options.seconds),
        secret: !options.without_secret,
    };
    let tell = |line: String| {
        if !options.json && !interrupt::interrupted() {
            println!("{line}");
        }
    };
    let mut report = perform(&context, measure, &options.only, &tell);
    if !options.no_peer && !interrupt::interrupted() {
        conntrackd::beside(&context, &mut report, &tell);
        report.sum();
    }
    if interrupt::interrupted() {
        return ExitCode::from(INTERRUPTED);
    }
    report.problems.iter().for_each(|problem| tell(format!("FAILED {problem}")));
    if options.json {
        println!("{}", serde_json::to_string(&report).unwrap_or_default());
    }
    let fine = report.passed || (options.without_secret && report.problems.is_empty());
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// All attacks on one pair, or only some.
pub fn perform(context: &Context, measure: Measure, only: &[String], tell: &dyn Fn(String)) -> Report {
    let mut report = Report {
        schema: report::SCHEMA.into(),
        secret: measure.secret,
        processors: std::thread::available_parallelism().map_or(0, |count| count.get() as u64),
        kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        flows: siege::FLOWS,
        ..Report::default()
    };
    if let Err(trouble) = lay_siege(context, measure, only, tell, &mut report) {
        report.problems.push(trouble.to_string());
    }
    report.sum();
    tell(format!(
        "all: {} packets, at most {} a second; {} records changed, {} role changes, {} peer resets, {} resyncs: {}",
        report.sent,
        report.fastest_per_s,
        report.changed,
        report.role_changes,
        report.peer_resets,
        report.resyncs_caused,
        if report.passed { "passed" } else { "FAILED" }
    ));
    report
}

fn lay_siege(
    context: &Context,
    measure: Measure,
    only: &[String],
    tell: &dyn Fn(String),
    report: &mut Report,
) -> Result<(), Trouble> {
    let mut siege = Siege::lay(context, measure)?;
    let quiet = siege.quiet()?;
    tell(format!(
        "{} secret; honest traffic alone: p50 {:.2} ms, p99 {:.2} ms, {} of {} late",
        if measure.secret { "with a" } else { "without a" },
        quiet.p50_ms,
        quiet.p99_ms,
        quiet.late,
        quiet.flows
    ));
    report.quiet = Some(quiet);
    tell(report::head());
    for kind in KINDS.iter().filter(|kind| only.is_empty() || only.iter().any(|name| name == kind.name)) {
        let mut attack = siege.attack(kind)?;
        let undisturbed = report.attacks.iter().find(|it| it.name == report::KILL).and_then(|it| it.takeover_s);
        attack.judge(kind.pace.expected(), undisturbed);
        tell(attack.line());
        report.attacks.push(attack);
        report.recording_s = report::rounded(siege.recorded_s());
    }
    Ok(())
}
