//! `ssyncp check`: is this configuration right, and what is in force?

use super::EXIT_USAGE;
use super::output::print;
use crate::daemon::settings::{DEFAULT_FILE, Settings};
use std::path::PathBuf;
use std::process::ExitCode;

/// What `ssyncp check` can be asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ssyncp check -c /etc/ssyncp/ssyncp.toml\n  ssyncp check --show")]
pub(super) struct Options {
    /// The configuration.
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_FILE)]
    config: PathBuf,
    /// Print the settings in force, defaults included, as TOML.
    #[arg(long)]
    show: bool,
}

pub(super) fn run(options: &Options) -> ExitCode {
    match Settings::load(&options.config) {
        Ok(settings) if options.show => print(&settings.to_toml()),
        Ok(_) => print("ok\n"),
        Err(problems) => {
            print(&format!("{problems}\n"));
            ExitCode::from(EXIT_USAGE)
        }
    }
}
