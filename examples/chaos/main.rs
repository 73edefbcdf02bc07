//! Real faults for real pairs, on this machine: `tools/chaos`.
//!
//! Two or three `ssyncp run`, each in a network namespace with a connection table of its own; flows that are made and ended
//! in the master's kernel; a fault; and a judge that reads the kernels and shares nothing with what it judges. After each
//! fault, with no command given, the kernels must be equal within 3 s.
//!
//! ```text
//!   scenarios   what is done          lab, node     machines, links, daemons
//!   verdict     are they equal?       traffic       flows, by packets or by netlink
//!   report      table and JSON        limits, interrupt    what must be put back, however it ends
//! ```

#![allow(unreachable_pub, reason = "a program has no interface; `pub` says what its files have for each other")]

#[allow(dead_code, reason = "each tool has troubles of its own")]
#[path = "../common/mod.rs"]
mod common;
pub mod conntrackd;
pub mod interrupt;
pub mod lab;
mod limits;
mod measures;
pub mod node;
pub mod probe;
pub mod report;
pub mod scenarios;
pub mod traffic;
pub mod verdict;

use clap::Parser;
pub use common::{Doing, Trouble, beside};
use report::{Outcome, Report};
use scenarios::{SCENARIOS, Scenario};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What can be asked.
#[derive(Debug, clap::Parser)]
#[command(name = "chaos", about = "Breaks pairs of ssyncp in namespaces, and compares their kernels' tables")]
struct Options {
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Only these scenarios (names with commas, as of --list).
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Smaller and shorter: a look, no figures.
    #[arg(long)]
    quick: bool,
    /// Does the same to conntrackd where that is possible and it is installed, and shows its figures beside.
    #[arg(long)]
    with_conntrackd: bool,
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

/// What every scenario is told.
#[derive(Debug, Clone)]
pub struct Context {
    /// The program `ssyncp`.
    pub program: PathBuf,
    /// Whether this is the short form.
    pub quick: bool,
    /// Whether configurations and logs are kept.
    pub keep: bool,
}

impl Context {
    /// Rate and seconds of the long form, or of the short one.
    fn scale(&self, long: (u32, u64), short: (u32, u64)) -> (u32, Duration) {
        let (rate, seconds) = if self.quick { short } else { long };
        (rate, Duration::from_secs(seconds))
    }
}

/// Names of the measurements.
const PROOF: &str = "proof";
const RESYNC: &str = "resync";
/// Per cent of loss of each resync.
const LOSSES: [u32; 4] = [0, 1, 5, 20];
/// Entries that a kernel must be able to hold for a resync.
const RESYNC_TABLE: u64 = 1 << 20;

/// Exit status after SIGINT, by the shells' convention.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let options = Options::parse();
    if options.list {
        SCENARIOS.iter().for_each(|scenario| println!("{:<17} {}", scenario.name, scenario.what));
        println!("{PROOF:<17} figures: the age of the proof under 20,000 changes a second");
        println!("{RESYNC:<17} figures: a cold resync of 500,000 flows under 0, 1, 5 and 20 % loss");
        return ExitCode::SUCCESS;
    }
    let is_known = |name: &str| [PROOF, RESYNC].contains(&name) || SCENARIOS.iter().any(|it| it.name == name);
    let unknown = options.only.iter().find(|name| !is_known(name));
    if let Some(name) = unknown {
        eprintln!("chaos: there is no scenario {name}; --list names them");
        return ExitCode::from(2);
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("chaos: needs root: it makes network namespaces and writes to their kernels' tables");
        return ExitCode::from(2);
    }
    if let Err(error) = interrupt::watch() {
        eprintln!("chaos: watching for Ctrl-C: {error}");
        return ExitCode::FAILURE;
    }
    let program = options.ssyncp.clone().unwrap_or_else(beside);
    let report = perform(&options, &Context { program, quick: options.quick, keep: options.keep });
    if interrupt::interrupted() {
        return ExitCode::from(INTERRUPTED);
    }
    if options.json {
        println!("{}", serde_json::to_string(&report).unwrap_or_default());
    }
    if report.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn perform(options: &Options, context: &Context) -> Report {
    let tell = |line: String| {
        if !options.json && !interrupt::interrupted() {
            println!("{line}");
        }
    };
    let wanted =
        |name: &str| !interrupt::interrupted() && (options.only.is_empty() || options.only.iter().any(|it| it == name));
    let mut report = Report { schema: report::SCHEMA.into(), quick: options.quick, ..Report::default() };
    tell(report::head());
    for scenario in &SCENARIOS {
        if wanted(scenario.name) {
            let outcome = run(scenario, context);
            tell(outcome.line());
            report.faults.push(outcome);
        }
    }
    if wanted(PROOF) {
        match measures::proof(context) {
            Ok(proof) => {
                tell(proof.line());
                report.proof = Some(proof);
            }
            Err(trouble) => report.problems.push(format!("{PROOF}: {trouble}")),
        }
    }
    for loss in LOSSES {
        if wanted(RESYNC) {
            let measured = limits::Raised::to(RESYNC_TABLE).and_then(|_raised| measures::resync(context, loss));
            match measured {
                Ok(resync) => {
                    tell(resync.line());
                    report.resyncs.push(resync);
                }
                Err(trouble) => report.problems.push(format!("{RESYNC} at {loss} % loss: {trouble}")),
            }
        }
    }
    if options.with_conntrackd && conntrackd::is_installed() {
        tell("the same done to conntrackd:".into());
        report.conntrackd = Some(beside_it(context, &wanted, &tell, &mut report.problems));
    }
    report.problems.iter().for_each(|problem| tell(format!("FAILED {problem}")));
    report.passed = report.problems.is_empty()
        && report.faults.iter().all(|outcome| outcome.passed)
        && report.resyncs.iter().all(|resync| resync.passed);
    report
}

/// What conntrackd makes of the faults that are wanted.
fn beside_it(
    context: &Context,
    wanted: &dyn Fn(&str) -> bool,
    tell: &dyn Fn(String),
    problems: &mut Vec<String>,
) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for fault in conntrackd::FAULTS.into_iter().filter(|fault| wanted(fault)) {
        match limits::Raised::to(RESYNC_TABLE).and_then(|_raised| conntrackd::run(context, fault)) {
            Ok(outcome) => {
                tell(outcome.line());
                outcomes.push(outcome);
            }
            Err(trouble) => problems.push(format!("conntrackd, {fault}: {trouble}")),
        }
    }
    outcomes
}

/// One scenario, with whatever it needs from the machine.
pub fn run(scenario: &Scenario, context: &Context) -> Outcome {
    let start = Instant::now();
    let limit = limits::Raised::to(scenario.table);
    let outcome = limit.and_then(|_raised| (scenario.run)(context));
    let outcome = outcome.unwrap_or_else(|trouble| Outcome::default().problem(&trouble.to_string()));
    Outcome {
        name: scenario.name.into(),
        what: scenario.what.into(),
        seconds: start.elapsed().as_secs_f64(),
        ..outcome
    }
}
