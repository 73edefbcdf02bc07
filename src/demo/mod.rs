//! A whole pair on this machine: namespaces, real traffic, real failover, a verdict. (Room under construction.)

pub mod lab;
pub mod links;
mod netlink_standin;
pub mod nftables;

use std::process::ExitCode;

/// What `ssyncp demo` can be asked.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Live TCP connections.
    #[arg(long, default_value_t = 1000)]
    pub connections: u32,
    /// How many times the master of the moment dies.
    #[arg(long, default_value_t = 1)]
    pub failovers: u32,
    /// The same without SSYNCP: the connections must break.
    #[arg(long)]
    pub no_sync: bool,
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

/// Runs the demo; exit 0 means that the expected verdict was reached.
pub fn run(options: &Options) -> ExitCode {
    let _ = options;
    ExitCode::FAILURE
}

/// Plays one part in a process of its own.
pub fn run_part(options: &PartOptions) -> ExitCode {
    let _ = options;
    ExitCode::FAILURE
}
