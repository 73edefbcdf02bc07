//! `ssyncp config`: the settings that the daemon runs with.

use super::output::{complain, print, unanswered};
use super::{EXIT_UNREACHABLE, Reach};
use crate::daemon::client;
use serde_json::Value;
use std::process::ExitCode;

/// What `ssyncp config` can be asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ssyncp config\n  ssyncp config | diff /etc/ssyncp/ssyncp.toml -\n\n\
    `ssyncp check --show` shows what a file says; this shows what is in force.")]
pub(super) struct Options {
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

pub(super) fn run(options: &Options) -> ExitCode {
    let bytes = match client::fetch(&options.reach.socket, "/v1/config") {
        Ok(bytes) => bytes,
        Err(error) => return unanswered(&error),
    };
    if options.json {
        return print(&String::from_utf8_lossy(&bytes));
    }
    let answer: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    match toml::to_string(&answer["settings"]) {
        Ok(text) => print(&text),
        Err(error) => {
            complain(&format!("the answer cannot be read: {error}"));
            ExitCode::from(EXIT_UNREACHABLE)
        }
    }
}
