//! A whole pair on this machine: namespaces, real traffic, real failover, a verdict. (`ssyncp demo`)
//!
//! [`run`] finds out what this user may do, builds the laboratory ([`lab`]), and lets the story happen in it:
//!
//! ```text
//!   story ── node      `ssyncp run`, each in a balancer of the lab
//!     │   ── cause                      what happens to them, and why
//!     │   ── client, probe, sctp, server      processes with the traffic
//!     │   ── watch, ear, kernel         what is seen from outside: announcements, ADVERTs, the kernels' tables
//!     │   ── recorder                   what is kept: a recording of the sync link, the backup's table
//!     │   ── seal                       the secret that all nodes share, drawn for this run
//!   report, spread     figures, verdict, --json
//!   lab ── links (rtnetlink), nftables (nf_tables over netlink)
//! ```
//!
//! [`active`] is a story of its own: two groups, a master each. Where the kernel lets this user make no namespaces, [`memory`](self) mode shows what can be shown in one process.

mod active;
pub mod cause;
pub mod client;
mod connection;
pub mod ear;
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
mod seal;
pub mod server;
pub mod spread;
mod story;
mod traffic;
pub mod watch;

use crate::daemon::settings::duration;
use crate::engine::ADVERT_INTERVALS;
use crate::sys::namespace::{Namespace, become_root_in_user_namespace};
use cause::Cause;
use lab::{BALANCERS_MAX, Lab};
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
    /// How many times the master of the moment dies, or whatever else the cause is.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub failovers: u32,
    /// Why the role moves.
    #[arg(long, value_enum, default_value_t = Cause::NodeDeath)]
    pub cause: Cause,
    /// How long a stopped node, or a cut link, stays so.
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = duration)]
    pub stop_for: Duration,
    /// Time between two ADVERTs of a node: "10ms" (and "30ms" for who is not root), "1s".
    #[arg(long, value_name = "DURATION")]
    pub advert_interval: Option<String>,
    /// What carries the frames between the nodes.
    #[arg(long, value_enum, default_value_t = Carrier::Raw, conflicts_with_all = ["no_sync", "active_active"])]
    pub transport: Carrier,
    /// Load balancers. With three, nobody who died comes back: one failover, or two.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=BALANCERS_MAX as i64))]
    pub nodes: u8,
    /// What the random bytes, and the cuts of a reboot loop, follow from.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Half of the connections over IPv6.
    #[arg(long)]
    pub ipv6: bool,
    /// Not TCP over IPv4 alone: half of the connections over IPv6, and UDP flows and SCTP associations beside them.
    #[arg(long)]
    pub mix: bool,
    /// The same without SSYNCP: the connections must break.
    #[arg(long)]
    pub no_sync: bool,
    /// Frames in the clear, as without a secret; otherwise they are sealed with one that is drawn for this run.
    #[arg(long, conflicts_with = "no_sync")]
    pub no_secret: bool,
    /// Record what the nodes tell each other, from before the first one starts until the last death, for `ssyncp decode`
    /// and `replay`: .pcap or .pcapng. The secret that opens it is kept in FILE.secret.
    #[arg(long, value_name = "FILE", conflicts_with = "no_sync")]
    pub record: Option<PathBuf>,
    /// Keep the backup's table as it is then, as `ssyncp table --json` prints it, for `ssyncp replay --verify`.
    #[arg(long, value_name = "FILE", conflicts_with = "no_sync")]
    pub table: Option<PathBuf>,
    /// Keep what the nodes say of themselves in this directory.
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "no_sync")]
    pub logs: Option<PathBuf>,
    /// Both nodes at work, each as master of one of two groups that divide the kernel's table; each dies once.
    #[arg(long, conflicts_with_all = ["failovers", "cause", "nodes", "mix", "ipv6", "no_sync", "record", "table"])]
    pub active_active: bool,
    /// One JSON object instead of words.
    #[arg(long)]
    pub json: bool,
}

/// What can carry the frames between the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Carrier {
    /// Raw IP sockets.
    Raw,
    /// Packet sockets with a ring.
    Packet,
    /// AF_XDP.
    Xdp,
}

impl Carrier {
    /// Its word in the configuration.
    const fn word(self) -> &'static str {
        match self {
            Carrier::Raw => "raw",
            Carrier::Packet => "packet",
            Carrier::Xdp => "xdp",
        }
    }
}

impl Options {
    /// Whether frames are sealed.
    fn seals(&self) -> bool {
        !self.no_secret && !self.no_sync
    }

    /// The secret that they are sealed with.
    fn draw_secret(&self, directory: &std::path::Path) -> Result<Option<seal::Drawn>, DemoError> {
        self.seals().then(|| seal::Drawn::new(directory)).transpose()
    }

    /// Refuses what makes no sense together, in one line.
    fn check(&self) -> Result<(), String> {
        if let Some(interval) = &self.advert_interval {
            let parsed = duration(interval).map_err(|wrong| format!("--advert-interval: {wrong}"))?;
            if !ADVERT_INTERVALS.contains(&parsed) {
                return Err(format!("--advert-interval: {interval} is not from 5ms to 40s"));
            }
        }
        if self.no_sync && (self.cause != Cause::NodeDeath || self.nodes > 2) {
            return Err("--no-sync: only the death of one of two nodes can be shown without SSYNCP".into());
        }
        if self.nodes > 2 && self.cause != Cause::NodeDeath {
            return Err(format!("--nodes {}: only with --cause node-death", self.nodes));
        }
        if self.nodes > 2 && self.failovers >= u32::from(self.nodes) {
            let most = self.nodes - 1;
            return Err(format!("--nodes {}: nobody comes back, so at most {most} --failovers", self.nodes));
        }
        Ok(())
    }
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
    /// There is no link to record, no node to ask, and none to stop.
    #[error("--record, --table, --cause and --nodes need network namespaces, which this user cannot build here ({0})")]
    NoNamespaces(io::Error),
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
    if let Err(line) = options.check().and_then(|()| limits::prepare(options.connections)) {
        eprintln!("ssyncp demo: {line}");
        return ExitCode::from(USAGE);
    }
    if options.active_active {
        return active::run(options);
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
    let with_ipv6 = options.mix || options.ipv6;
    let stage = Stage::find(options.nodes.into(), with_ipv6);
    let scratch = Scratch::create(&std::env::temp_dir()).doing("making a temporary directory")?;
    interrupt::watch(scratch.path().to_owned()).doing("watching for Ctrl-C")?;
    let report = |mode: Mode, transport: &'static str, failovers: Vec<Failover>| {
        let transport = (!options.no_sync).then_some(transport);
        let report = Report::new(mode, options.cause, transport, narrator.elapsed().as_secs_f64(), failovers);
        report.sealed(options.seals())
    };
    let keeps = options.record.is_some() || options.table.is_some();
    let needs_namespaces = keeps || options.nodes > 2 || options.cause != Cause::NodeDeath;
    let (mode, lab) = match stage {
        Stage::Lab(mode, lab) => (mode, lab),
        Stage::Memory(reason) if needs_namespaces => return Err(DemoError::NoNamespaces(reason)),
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
        "built{how}: clients, {} load balancers, servers, a sync link; strict NAT on all of them",
        options.nodes
    ));
    // Only root's nodes get real-time scheduling; the others must be allowed to be late on a busy machine.
    let usual = if mode == Mode::Root { "10ms" } else { "30ms" };
    let advert_interval = options.advert_interval.as_deref().unwrap_or(usual);
    let (directory, preempt, tracks) = (scratch.path(), options.cause.preempts(), options.cause.tracks());
    let logs = options.logs.as_deref().unwrap_or(directory);
    std::fs::create_dir_all(logs).doing("making the directory of the logs")?;
    let secret = options.draw_secret(directory)?;
    let secret = secret.as_ref();
    let transport = options.transport.word();
    let told = story::Told { with_ipv6, directory, logs, transport, advert_interval, preempt, tracks, secret };
    let failovers = story::play(options, *lab, told, narrator)?;
    Ok(report(mode, transport, failovers))
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
    fn find(balancers: usize, with_ipv6: bool) -> Stage {
        let mode = match Namespace::create() {
            Ok(_) => Mode::Root,
            Err(_) => match become_root_in_user_namespace() {
                Ok(()) => Mode::Userns,
                Err(error) => return Stage::Memory(error),
            },
        };
        match Lab::with_balancers(balancers, with_ipv6) {
            Ok(lab) => Stage::Lab(mode, Box::new(lab)),
            Err(error) => Stage::Memory(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args, Command, FromArgMatches};

    /// What these arguments mean.
    pub(super) fn options(arguments: &[&str]) -> Options {
        let command = Options::augment_args(Command::new("demo").no_binary_name(true));
        Options::from_arg_matches(&command.get_matches_from(arguments)).unwrap()
    }

    #[test]
    fn what_makes_no_sense_together_is_refused() {
        for (arguments, words) in [
            (&["--no-sync", "--cause", "stop"][..], "--no-sync: only the death of one of two nodes"),
            (&["--no-sync", "--nodes", "3"], "--no-sync: only the death of one of two nodes"),
            (&["--nodes", "3", "--cause", "graceful"], "--nodes 3: only with --cause node-death"),
            (&["--nodes", "3", "--failovers", "3"], "--nodes 3: nobody comes back, so at most 2 --failovers"),
            (&["--advert-interval", "10"], "--advert-interval: \"10\" has no unit; write \"10ms\" or \"10s\""),
            (&["--advert-interval", "4ms"], "--advert-interval: 4ms is not from 5ms to 40s"),
        ] {
            let refused = options(arguments).check().unwrap_err();
            assert!(refused.starts_with(words), "{refused}");
        }
        for arguments in [&[][..], &["--no-sync"], &["--nodes", "3", "--failovers", "2"], &["--cause", "one-way"]] {
            assert_eq!(options(arguments).check(), Ok(()), "{arguments:?}");
        }
    }

    #[test]
    fn a_demo_that_is_asked_for_nothing_is_one_death_at_ten_milliseconds_an_advert() {
        let usual = options(&[]);
        assert_eq!((usual.connections, usual.failovers, usual.nodes, usual.cause), (1000, 1, 2, Cause::NodeDeath));
        assert_eq!((usual.stop_for, usual.advert_interval, usual.seed), (Duration::from_secs(3), None, None));
    }
}
