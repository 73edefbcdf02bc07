//! `ssyncp run`: the daemon in the foreground.

use super::output::{colour, complain};
use super::{EXIT_NO, EXIT_REFUSED, EXIT_USAGE};
use crate::daemon::group::StartError;
use crate::daemon::run::{self, RunError};
use crate::daemon::settings::{DEFAULT_FILE, Settings};
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// What `ssyncp run` can be asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ssyncp run -c /etc/ssyncp/ssyncp.toml --log-format json\n\n\
    The log goes to standard error; SSYNCP_LOG=debug, or ssyncp::daemon=trace, says more.")]
pub(super) struct Options {
    /// The configuration.
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_FILE)]
    config: PathBuf,
    /// How log lines are written.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum LogFormat {
    /// One line of words each.
    Text,
    /// One JSON object each.
    Json,
}

pub(super) fn run(options: &Options) -> ExitCode {
    let settings = match Settings::load(&options.config) {
        Ok(settings) => settings,
        Err(problems) => {
            for line in problems.to_string().lines() {
                complain(line);
            }
            return ExitCode::from(EXIT_USAGE);
        }
    };
    start_log(options.log_format);
    match run::run(&options.config, settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(exit_status(&error))
        }
    }
}

fn exit_status(error: &RunError) -> u8 {
    match error {
        RunError::Start { error: StartError::Config(_), .. } => EXIT_USAGE,
        RunError::Missing(_) | RunError::Control(_) | RunError::Start { .. } => EXIT_REFUSED,
        RunError::Died { .. } | RunError::Errand | RunError::Io(_) => EXIT_NO,
    }
}

fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_env("SSYNCP_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match format {
        LogFormat::Text => log.with_ansi(colour(&std::io::stderr())).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}
