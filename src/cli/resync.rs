//! `ssyncp resync`: prove this node's table anew.

use super::Reach;
use super::output::post;
use crate::daemon::answers::ResyncAnswer;
use serde_json::json;
use std::process::ExitCode;

/// What `ssyncp resync` can be asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ssyncp resync\n  ssyncp resync --full --group 51\n\n\
    The command returns when the comparison has begun; `ssyncp status` shows how far it is. A master refuses (exit\n\
    status 4): its table is the one that the others are to equal.")]
pub(super) struct Options {
    /// Walk the whole table, even if it proves equal.
    #[arg(long)]
    full: bool,
    /// Only this group (its sync id); every group of which this node is not master without it.
    #[arg(long, value_name = "ID")]
    group: Option<u8>,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

pub(super) fn run(options: &Options) -> ExitCode {
    let body = json!({ "group": options.group, "full": options.full });
    match post(&options.reach, "/v1/resync", &body, options.json, words) {
        Ok(_) => ExitCode::SUCCESS,
        Err(status) => status,
    }
}

fn words(answer: &ResyncAnswer) -> String {
    let doing = if answer.full { "walked" } else { "compared" };
    let line = |group: &crate::daemon::answers::ResyncRow| {
        format!("group {}: {} of 4096 buckets are {doing} anew\n", group.sync_id, group.buckets)
    };
    answer.groups.iter().map(line).collect()
}
