//! A whole pair on this machine: namespaces, real traffic, real failover, a verdict. (`ssyncp demo`)
//!
//! [`run`] finds out what this user may do, builds the laboratory ([`lab`]), and lets the story happen in it:
//!
//! ```text
//!   story ── node      two `ssyncp run`, each in a balancer of the lab
//!     │   ── client, probe, sctp, server      processes with the traffic
//!     │   ── watch, kernel              what is seen from outside: announcements, both kernels' tables
//!     │   ── recorder                   what is kept: a recording of the sync link, the backup's table
//!   report             figures, verdict, --json
//!   lab ── links (rtnetlink), nftables (nf_tables over netlink)
//! ```
//!
//! Where the kernel lets this user make no namespaces, [`memory`](self) mode shows what can be shown in one process.

pub mod client;
mod connection;
mod interrupt;
pub mod kernel;
pub mod lab;
mod limits;
pub mod links;
mod memory;
mod narrator;
pub mod nftables;
mod node;
mod part;
pub mod probe;
mod recorder;
pub mod report;
pub mod scratch;
pub mod sctp;
pub mod server;
mod story;
mod traffic;
pub mod watch;

use crate::sys::namespace::{Namespace, become_root_in_user_namespace};
use lab::Lab;
use narrator::Narrator;
use report::{Failover, Mode, Report};
use scratch::Scratch;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// What `ssyncp demo` can be asked.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Live TCP connections.
    #[arg(long, default_value_t = 1000)]
    pub connections: u32,
    /// How many times the master of the moment dies.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub failovers: u32,
    /// Not TCP over IPv4 alone: half of the connections over IPv6, and UDP flows and SCTP associations beside them.
    #[arg(long)]
    pub mix: bool,
    /// The same without SSYNCP: the connections must break.
    #[arg(long)]
    pub no_sync: bool,
    /// Record what the nodes tell each other, from before the first one starts until the last death, for `ssyncp decode`
    /// and `replay`: .pcap or .pcapng.
    #[arg(long, value_name = "FILE", conflicts_with = "no_sync")]
    pub record: Option<PathBuf>,
    /// Keep the backup's table as it is then, as `ssyncp table --json` prints it, for `ssyncp replay --verify`.
    #[arg(long, value_name = "FILE", conflicts_with = "no_sync")]
    pub table: Option<PathBuf>,
    /// One JSON object instead of words.
    #[arg(long)]
    pub json: bool,
}

/// What the demo's own processes (clients, servers, probe) are told; not for people.
#[derive(Debug, Clone, clap::Args)]
pub struct PartOptions {
    /// Which part to play.
    pub part: String,
    /// Its instructions, as JSON.
    pub instructions: String,
}

/// Why the demo has no verdict.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    /// The operating system refused a step.
    #[error("{doing}: {source}")]
    Step { doing: &'static str, source: io::Error },
    /// A node did not do what it should.
    #[error("ssyncp run on {name} {problem}; the end of its log:\n  {log}")]
    Node { name: &'static str, problem: String, log: String },
    /// The traffic did not get going.
    #[error("only {connected} of {wanted} connections work after {within:?}")]
    NotConnected { connected: u32, wanted: u32, within: Duration },
    /// The traffic beside TCP did not get going.
    #[error("only {udp} UDP flows and {sctp} SCTP associations work after {within:?}")]
    NotAlive { udp: u32, sctp: u32, within: Duration },
    /// There is no link to record, and no node to ask.
    #[error("--record and --table need network namespaces, which this user cannot build here ({0})")]
    NothingToKeep(io::Error),
    /// An engine in memory did not do what it should.
    #[error("{0}")]
    Stuck(&'static str),
    /// An engine in memory does not take its configuration.
    #[error("{0}")]
    Config(crate::engine::ConfigError),
}

/// Names the step that an error of the operating system belongs to.
trait Doing<T> {
    /// The same result, with the step in its error.
    fn doing(self, step: &'static str) -> Result<T, DemoError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, step: &'static str) -> Result<T, DemoError> {
        self.map_err(|source| DemoError::Step { doing: step, source })
    }
}

/// Exit status for a number that cannot be, as for any other mistake in the arguments.
const USAGE: u8 = 2;

/// Runs the demo. Exit status 0: the verdict is the expected one; 1: it is not, or there is none; 2: the number of connections
/// is impossible here; 130: interrupted.
///
/// Must be called by the first thread of the process before there is another one: an ordinary user becomes root of a user
/// namespace here.
pub fn run(options: &Options) -> ExitCode {
    if let Err(line) = limits::prepare(options.connections) {
        eprintln!("ssyncp demo: {line}");
        return ExitCode::from(USAGE);
    }
    let narrator = Narrator::new(options.json);
    match perform(options, &narrator) {
        Ok(report) => {
            if options.json {
                narrator::line(report.in_json());
            }
            narrator.print(report.in_words());
            if report.as_expected { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            interrupt::yield_to_ending();
            eprintln!("ssyncp demo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Plays one part in a process of its own.
pub fn run_part(options: &PartOptions) -> ExitCode {
    match options.part.as_str() {
        "client" => client::run(&options.instructions),
        "server" => server::run(&options.instructions),
        "probe" => probe::run(&options.instructions),
        "sctp" => sctp::run(&options.instructions),
        other => {
            eprintln!("ssyncp demo-part: no part is called {other:?}; there are client, server, probe and sctp");
            ExitCode::from(2)
        }
    }
}

/// Everything between the options and the report.
fn perform(options: &Options, narrator: &Narrator) -> Result<Report, DemoError> {
    let stage = Stage::find(options.mix);
    let scratch = Scratch::create(&std::env::temp_dir()).doing("making a temporary directory")?;
    interrupt::watch(scratch.path().to_owned()).doing("watching for Ctrl-C")?;
    let report = |mode: Mode, transport: &'static str, failovers: Vec<Failover>| {
        let transport = (!options.no_sync).then_some(transport);
        Report::new(mode, transport, narrator.elapsed().as_secs_f64(), failovers)
    };
    let (mode, lab) = match stage {
        Stage::Lab(mode, lab) => (mode, lab),
        Stage::Memory(reason) if options.record.is_some() || options.table.is_some() => {
            return Err(DemoError::NothingToKeep(reason));
        }
        Stage::Memory(reason) => {
            narrator.say(format_args!("this user cannot build network namespaces here ({reason}):"));
            narrator.say("both nodes run in this one process, over the memory transport, with synthetic flows");
            return Ok(report(Mode::Memory, "memory", memory::run(options, narrator)?));
        }
    };
    let how = match mode {
        Mode::Userns => ", inside a user namespace",
        _ => "",
    };
    narrator.say(format_args!(
        "built{how}: clients, load balancers lb-a and lb-b, servers, a sync link; strict NAT on both"
    ));
    // Only root's nodes get real-time scheduling; the others must be allowed to be late on a busy machine.
    let advert_interval = if mode == Mode::Root { "10ms" } else { "30ms" };
    let told = story::Told { with_ipv6: options.mix, directory: scratch.path(), advert_interval };
    let failovers = story::play(options, *lab, told, narrator)?;
    Ok(report(mode, "raw", failovers))
}

/// What this user may do here.
enum Stage {
    /// Make namespaces; the laboratory is built in them.
    Lab(Mode, Box<Lab>),
    /// Nothing of the kind, for this reason.
    Memory(io::Error),
}

impl Stage {
    /// Tries the best first.
    fn find(with_ipv6: bool) -> Stage {
        let mode = match Namespace::create() {
            Ok(_) => Mode::Root,
            Err(_) => match become_root_in_user_namespace() {
                Ok(()) => Mode::Userns,
                Err(error) => return Stage::Memory(error),
            },
        };
        match Lab::build(with_ipv6) {
            Ok(lab) => Stage::Lab(mode, Box::new(lab)),
            Err(error) => Stage::Memory(error),
        }
    }
}
