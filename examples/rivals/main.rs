//! The same failover for three ways to do it, side by side: `tools/compare-keepalived`.
//!
//! ```text
//!   keepalived + conntrackd     VRRPv3, advert_int 0.01; FTFW, Debian's primary-backup.sh
//!   ssyncp                      its own election, advert_interval = "10ms"
//!   keepalived + ssyncp         VRRPv3, advert_int 0.01; role = "keepalived"
//! ```
//!
//! Each gets the demo's laboratory: namespaces, DNAT and SNAT with strict tracking, live TCP connections whose bytes are
//! checked, a UDP probe of 1 ms through the same NAT. Then its master dies (all cables cut, all its processes killed), as
//! often as asked for; between two deaths the dead machine comes back from nothing. None of them preempts.
//!
//! ```text
//!   contender   configurations and daemons of each      race     what is done, and measured
//!   keepalived, conntrackd, process                      report   table and JSON
//! ```

#![allow(unreachable_pub, reason = "a program has no interface; `pub` says what its files have for each other")]

#[allow(dead_code, reason = "each tool has troubles of its own")]
#[path = "../common/mod.rs"]
mod common;
mod conntrackd;
pub mod contender;
mod keepalived;
#[allow(dead_code, reason = "tests/pair/driven.rs uses more of it")]
mod process;
pub mod race;
pub mod report;

use clap::Parser;
use common::{Doing, Trouble, beside};
use contender::Contender;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use report::{Report, Run};
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

/// What can be asked.
#[derive(Debug, clap::Parser)]
#[command(name = "compare-keepalived", about = "The same failovers with keepalived + conntrackd, and with ssyncp")]
struct Options {
    /// Live TCP connections.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    connections: u32,
    /// How often each contender's master dies.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    failovers: u32,
    /// Only these contenders (names with commas): conntrackd, ssyncp, keepalived.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Keeps configurations and logs, and says where.
    #[arg(long)]
    keep: bool,
    /// The program; by default the one that was built beside this.
    #[arg(long, value_name = "FILE")]
    ssyncp: Option<PathBuf>,
}

/// What every run is told.
#[derive(Debug, Clone)]
pub struct Context {
    /// The program `ssyncp`.
    pub program: PathBuf,
    /// Live TCP connections.
    pub connections: u32,
    /// Deaths.
    pub failovers: u32,
    /// Interval between adverts where ssyncp decides, as its configuration writes it.
    pub advert_interval: &'static str,
    /// Whether configurations and logs are kept.
    pub keep: bool,
}

/// Descriptors that a process needs beside its connections.
const DESCRIPTORS_BESIDE: u64 = 256;

fn main() -> ExitCode {
    let options = Options::parse();
    let known = |name: &String| Contender::ALL.iter().any(|contender| contender.word() == *name);
    if let Some(name) = options.only.iter().find(|name| !known(name)) {
        eprintln!("compare-keepalived: there is no contender {name}; there are conntrackd, ssyncp and keepalived");
        return ExitCode::from(2);
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("compare-keepalived: needs root: it makes network namespaces and runs daemons in them");
        return ExitCode::from(2);
    }
    if let Err(error) = raise_descriptors(u64::from(options.connections) + DESCRIPTORS_BESIDE) {
        eprintln!("compare-keepalived: {} connections need more descriptors: {error}", options.connections);
        return ExitCode::from(2);
    }
    let Options { connections, failovers, keep, .. } = options;
    let program = options.ssyncp.clone().unwrap_or_else(beside);
    let context = Context { program, connections, failovers, advert_interval: "10ms", keep };
    let tell = |line: String| {
        if !options.json {
            println!("{line}");
        }
    };
    let mut report = Report::new(&context);
    tell(report::head());
    for contender in Contender::ALL {
        if options.only.is_empty() || options.only.iter().any(|name| name == contender.word()) {
            let run = race::run(contender, &context, &tell);
            tell(run.line());
            report.runs.push(run);
        }
    }
    if options.json {
        println!("{}", serde_json::to_string(&report).unwrap_or_default());
    }
    let whole = |run: &Run| run.problem.is_none();
    if report.runs.iter().all(whole) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Lets this process and its children have so many descriptors.
fn raise_descriptors(needed: u64) -> io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < needed {
        setrlimit(Resource::RLIMIT_NOFILE, needed, hard.max(needed))?;
    }
    Ok(())
}
