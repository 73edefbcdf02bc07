//! A long run of a real pair under mixed load and random faults: `tools/soak MINUTES`.
//!
//! ```text
//!   rig       two `ssyncp run` with a secret and an address that moves      (machines and links: examples/chaos)
//!   load      connections that begin, end, and last                        latency   a probe a second
//!   faults    drawn from the seed                                           course    when what happens
//!   gauge     memory, descriptors, threads, each second                     board     what the threads know of each other
//!   claim     are they equal while they say so, under load?                 log       the daemons' logs
//!   verdict   flat lines, or it has failed                                  robust    its arithmetic
//!   report    lines and JSON                    plot      SVG
//! ```

#![allow(unreachable_pub, reason = "a program has no interface; `pub` says what its files have for each other")]

mod board;
#[allow(dead_code, reason = "only its laboratory and its judge are used")]
#[path = "../chaos/main.rs"]
mod chaos;
mod claim;
pub mod course;
mod faults;
mod gauge;
mod latency;
mod load;
mod log;
mod plot;
pub mod report;
mod rig;
mod robust;
mod verdict;

pub use chaos::Context;
use chaos::{Doing, Trouble, interrupt};
use clap::Parser;
use course::Plan;
use report::Report;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// What can be asked.
#[derive(Debug, clap::Parser)]
#[command(name = "soak", about = "A long run of a pair of ssyncp in namespaces, under load and random faults")]
struct Options {
    /// How long; a fraction will do.
    #[arg(value_name = "MINUTES", value_parser = minutes)]
    minutes: f64,
    /// One JSON object at the end, instead of lines.
    #[arg(long)]
    json: bool,
    /// Draws the run; without this into the folder.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// What the faults are drawn from; by default another one each time.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Connections that begin in a second.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Where configurations, logs, samples, picture and report go; by default target/soak/seed-N.
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// The program; by default the one that was built beside this.
    #[arg(long, value_name = "FILE")]
    ssyncp: Option<PathBuf>,
}

/// Most minutes: a week.
const MINUTES_MAX: f64 = 10_080.0;
/// Exit status after SIGINT, by the shells' convention.
const INTERRUPTED: u8 = 130;

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|_| "is no number".to_owned())?;
    if (0.5..=MINUTES_MAX).contains(&minutes) { Ok(minutes) } else { Err(format!("0.5 to {MINUTES_MAX}")) }
}

fn main() -> ExitCode {
    let options = Options::parse();
    if !nix::unistd::geteuid().is_root() {
        eprintln!("soak: needs root: it makes network namespaces and writes to their kernels' tables");
        return ExitCode::from(2);
    }
    if let Err(error) = interrupt::watch() {
        eprintln!("soak: watching for Ctrl-C: {error}");
        return ExitCode::FAILURE;
    }
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let folder = options.folder.clone().unwrap_or_else(|| Path::new("target/soak").join(format!("seed-{seed}")));
    let plan = Plan { time: Duration::from_secs_f64(options.minutes * 60.0), seed, rate: options.rate, folder };
    let program = options.ssyncp.clone().unwrap_or_else(chaos::beside);
    let tell = |line: String| {
        if !options.json {
            println!("{line}");
        }
    };
    tell(format!(
        "seed {seed}, {} connections/s, {} minutes; in {}",
        plan.rate,
        options.minutes,
        plan.folder.display()
    ));
    let report = match perform(&Context { program, quick: false, keep: false }, &plan, options.svg.as_deref(), &tell) {
        Ok(report) => report,
        Err(trouble) => {
            eprintln!("soak: {trouble}");
            return ExitCode::from(if interrupt::interrupted() { INTERRUPTED } else { 1 });
        }
    };
    tell(String::new());
    report.lines.iter().for_each(|line| tell(line.words()));
    let lasting = report.claims.iter().flat_map(|claim| &claim.lasting);
    lasting.for_each(|difference| tell(format!("  {difference}")));
    report.errors.iter().for_each(|error| tell(format!("  {error}")));
    report.problem.iter().for_each(|problem| tell(format!("FAILED it ended early: {problem}")));
    tell(if report.passed { "flat".into() } else { format!("FAILED: --seed {seed} has the same faults") });
    if options.json {
        println!("{}", serde_json::to_string(&report).unwrap_or_default());
    }
    match (interrupt::interrupted(), report.passed) {
        (true, _) => ExitCode::from(INTERRUPTED),
        (false, true) => ExitCode::SUCCESS,
        (false, false) => ExitCode::FAILURE,
    }
}

/// A run, its verdict, its picture and its report in the folder. One that ended early has all of these, too, and has failed.
///
/// # Errors
/// [`Trouble`], if there is nothing to tell.
pub fn perform(
    context: &Context,
    plan: &Plan,
    svg: Option<&Path>,
    tell: &(dyn Fn(String) + Sync),
) -> Result<Report, Trouble> {
    std::fs::create_dir_all(&plan.folder).doing("making the folder")?;
    let (record, problem) = course::run(context, plan, tell)?;
    let lines = record.judge();
    let report = Report {
        schema: report::SCHEMA.into(),
        seed: plan.seed,
        seconds: record.samples.last().map_or(0.0, |sample| sample.at_s),
        connections: record.begun,
        passed: problem.is_none() && lines.iter().all(|line| line.passed),
        lines,
        faults: record.faults.clone(),
        quiets: record.quiets.clone(),
        lives: record.lives(),
        claims: record.claims.clone(),
        warnings: record.told.clone(),
        errors: record.errors.clone(),
        problem: problem.map(|trouble| trouble.to_string()),
        folder: plan.folder.display().to_string(),
    };
    let picture = svg.map_or_else(|| plan.folder.join("soak.svg"), Path::to_path_buf);
    plot::draw(&record, &picture).doing("drawing")?;
    let json = serde_json::to_vec_pretty(&report).unwrap_or_default();
    std::fs::write(plan.folder.join("report.json"), json).doing("writing the report")?;
    Ok(report)
}
