//! The command line: one file a subcommand, and the exit status that they share.
//!
//! ```text
//!   0 done    1 the answer is no    2 usage or configuration    3 not reachable    4 refused
//! ```

mod check;
mod config;
mod decode;
mod drain;
mod events;
mod flush;
mod keygen;
mod manual;
mod output;
mod peer_dead;
mod peers;
mod record;
mod recording;
mod reload;
mod replay;
mod resync;
mod role;
mod run;
mod secrets;
mod section;
mod sim;
mod status;
mod switchover;
mod table;
mod wait;

use crate::bench;
use crate::daemon::settings::DEFAULT_SOCKET;
use crate::demo;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// The answer is no: not in sync, verification failed.
const EXIT_NO: u8 = 1;
/// Usage or configuration.
const EXIT_USAGE: u8 = 2;
/// The daemon, or what it needs, cannot be reached.
const EXIT_UNREACHABLE: u8 = 3;
/// Refused: a role, a key, a state, a privilege.
const EXIT_REFUSED: u8 = 4;

/// Keeps the connection tables of a pair of load balancers, NAT gateways or firewalls equal.
#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = true, disable_help_subcommand = true, max_term_width = 100)]
#[command(
    after_help = "Exit status: 0 done, 1 the answer is no, 2 usage or configuration, 3 not reachable, 4 refused."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon in the foreground (systemd: Type=notify).
    Run(run::Options),
    /// Validate a configuration: every problem at once.
    Check(check::Options),
    /// Make a secret that frames are sealed with.
    Keygen(keygen::Options),
    /// Show role, peers and how far in sync this node is; exit status 1 if a group is not ready.
    Status(status::Options),
    /// Show the flow table, as `conntrack -L` does.
    Table(table::Options),
    /// Follow what happens, as `conntrack -E` does.
    Events(events::Options),
    /// Show the other nodes, and how far they are.
    Peers(peers::Options),
    /// Show the settings that the daemon runs with.
    Config(config::Options),
    /// Tell the node its role.
    Role(role::Options),
    /// Give the role to another node, in good order; on a backup: ask for it.
    Switchover(switchover::Options),
    /// Be without the role while anybody else may have it.
    Drain(drain::Options),
    /// Swear that a node is dead, so that nothing of it is waited for.
    PeerDead(peer_dead::Options),
    /// Prove this node's table anew against its master's.
    Resync(resync::Options),
    /// Wait until the peers hold everything that was submitted so far; exit status 1 if they do not in time.
    Flush(flush::Options),
    /// Put, get, delete and list entries that are replicated beside the flows.
    Section(section::Options),
    /// Let the daemon read its configuration anew: all of it is applied, or nothing.
    Reload(reload::Options),
    /// Show every frame of a recording, with every check explained.
    Decode(decode::Options),
    /// Record what passes on a sync link.
    Record(record::Options),
    /// Rebuild the table from a recording, and compare it with another.
    Replay(replay::Options),
    /// Try the protocol in invented worlds with every fault that there is, each out of one number.
    Sim(sim::Options),
    /// Show a whole pair on this machine: real traffic, real failover, a verdict.
    #[command(after_help = "Example:\n  ssyncp demo --failovers 3")]
    Demo(demo::Options),
    /// Measure what this machine makes of the project, beside what it could make of anything.
    Bench(bench::Options),
    #[command(hide = true)]
    DemoPart(demo::PartOptions),
    /// Write the man pages and the shells' completions into a folder, for who makes a package.
    #[command(hide = true)]
    Manual(manual::Options),
}

/// How the daemon is reached; shared by the commands that talk to it.
#[derive(Debug, clap::Args)]
struct Reach {
    /// The daemon's control socket.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        // Before any thread is started, so that it can make a user namespace.
        Command::Demo(options) => demo::run(&options),
        // As the demo, and for the same reason.
        Command::Bench(options) => bench::run(&options),
        Command::DemoPart(options) => demo::run_part(&options),
        Command::Manual(options) => manual::run(&options),
        Command::Run(options) => run::run(&options),
        Command::Check(options) => check::run(&options),
        Command::Keygen(options) => keygen::run(&options),
        Command::Status(options) => status::run(&options),
        Command::Table(options) => table::run(&options),
        Command::Events(options) => events::run(&options),
        Command::Peers(options) => peers::run(&options),
        Command::Config(options) => config::run(&options),
        Command::Role(options) => role::run(&options),
        Command::Switchover(options) => switchover::run(&options),
        Command::Drain(options) => drain::run(&options),
        Command::PeerDead(options) => peer_dead::run(&options),
        Command::Resync(options) => resync::run(&options),
        Command::Flush(options) => flush::run(&options),
        Command::Section(options) => section::run(&options),
        Command::Reload(options) => reload::run(&options),
        Command::Decode(options) => decode::run(&options),
        Command::Record(options) => record::run(&options),
        Command::Replay(options) => replay::run(&options),
        Command::Sim(options) => sim::run(&options),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        let command = Arguments::command();
        for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
            let help = subcommand.get_after_help().map(ToString::to_string).unwrap_or_default();
            let example = format!("Example:\n  ssyncp {}", subcommand.get_name());
            assert!(help.contains(&example), "{}: {help}", subcommand.get_name());
        }
    }
}
