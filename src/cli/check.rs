//! `ssyncp check`: is this configuration right, and what is in force?

use super::output::{complain, print};
use super::{EXIT_NO, EXIT_USAGE};
use crate::daemon::answers::{CHECK_SCHEMA, CheckAnswer, ProblemRow};
use crate::daemon::settings::{DEFAULT_FILE, Problems, Settings};
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
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: &Options) -> ExitCode {
    let loaded = Settings::load(&options.config);
    let right = loaded.is_ok();
    let warnings = loaded.as_ref().map(Settings::warnings).unwrap_or_default();
    if !options.json {
        warnings.iter().for_each(|warning| complain(&format!("warning: {warning}")));
    }
    let printed = match loaded {
        loaded if options.json => print_json(options, loaded, warnings),
        Ok(settings) if options.show => print(&settings.to_toml()),
        Ok(_) => print("ok\n"),
        Err(problems) => print(&format!("{problems}\n")),
    };
    if right { printed } else { ExitCode::from(EXIT_USAGE) }
}

fn print_json(options: &Options, loaded: Result<Settings, Problems>, warnings: Vec<String>) -> ExitCode {
    let (settings, problems) = match loaded {
        Ok(settings) => (options.show.then_some(settings), Vec::new()),
        Err(problems) => (None, problems.problems),
    };
    let row = |problem: crate::daemon::settings::Problem| ProblemRow { line: problem.line, message: problem.message };
    let answer = CheckAnswer {
        schema: CHECK_SCHEMA.to_owned(),
        file: options.config.display().to_string(),
        ok: problems.is_empty(),
        problems: problems.into_iter().map(row).collect(),
        warnings,
        settings,
    };
    match serde_json::to_string(&answer) {
        Ok(text) => print(&format!("{text}\n")),
        Err(_) => ExitCode::from(EXIT_NO),
    }
}
