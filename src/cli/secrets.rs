//! `--secret-file`: the secrets that open the sealed frames of a recording. It is the daemon's file, read as the daemon reads it.

use super::EXIT_USAGE;
use super::output::complain;
use crate::daemon::settings::{SecretFile, secret};
use crate::wire::Secret;
use std::path::PathBuf;
use std::process::ExitCode;

/// Where the secrets of a recording's group stand.
#[derive(Debug, clap::Args)]
pub(super) struct Secrets {
    /// Open sealed frames with the secrets in this file, which is that of the nodes.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

impl Secrets {
    /// The secrets, none if no file was named; or the exit status, after every problem was told.
    pub(super) fn read(&self) -> Result<Vec<Secret>, ExitCode> {
        let Some(path) = &self.secret_file else { return Ok(Vec::new()) };
        secret::read(&SecretFile::Path(path.clone())).map_err(|problems| {
            problems.iter().for_each(|problem| complain(problem));
            ExitCode::from(EXIT_USAGE)
        })
    }
}
