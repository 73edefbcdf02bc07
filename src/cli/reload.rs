//! `ssyncp reload`: let the daemon read its configuration anew.

use super::Reach;
use super::output::{complain, show, unanswered};
use crate::daemon::answers::ReloadAnswer;
use crate::daemon::client;
use hyper::Method;
use std::process::ExitCode;

/// What `ssyncp reload` can be asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ssyncp reload\n  ssyncp check && ssyncp reload --json\n\n\
    Neither role nor stream nor table is reset. Exit status: 2 if the file is wrong, 4 if it asks for what needs a\n\
    restart; then nothing has changed.")]
pub(super) struct Options {
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

pub(super) fn run(options: &Options) -> ExitCode {
    match client::send(&options.reach.socket, Method::POST, "/v1/reload", String::new()) {
        Ok(bytes) => show(&bytes, options.json, words),
        Err(error) => unanswered(&error),
    }
}

fn words(answer: &ReloadAnswer) -> String {
    answer.warnings.iter().for_each(|warning| complain(&format!("warning: {warning}")));
    if answer.changes.is_empty() {
        return "nothing has changed\n".to_owned();
    }
    answer.changes.iter().map(|change| format!("{change}\n")).collect()
}
