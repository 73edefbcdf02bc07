//! `ssyncp peer-dead`: swear that a node is dead.

use super::Reach;
use super::output::post;
use crate::daemon::answers::{PeerDeadAnswer, PeerDeadRow};
use serde_json::json;
use std::process::ExitCode;

/// What `ssyncp peer-dead` can be asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ssyncp peer-dead 2\n\n\
    For whoever knows it for certain, as after switching its power off: what is known of the node is forgotten, and if\n\
    it was master its role is taken without waiting for its silence. A node that lives comes back by itself.\n\n\
    Exit status: 0 done, 4 if the node is not known here.")]
pub(super) struct Options {
    /// The number of the node.
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    node: u32,
    /// Only this group (its sync id); every group that knows the node without it.
    #[arg(long, value_name = "ID")]
    group: Option<u8>,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

pub(super) fn run(options: &Options) -> ExitCode {
    let body = json!({ "group": options.group, "node": options.node });
    match post(&options.reach, "/v1/peer-dead", &body, options.json, words) {
        Ok(_) => ExitCode::SUCCESS,
        Err(status) => status,
    }
}

fn words(answer: &PeerDeadAnswer) -> String {
    let line = |group: &PeerDeadRow| {
        format!("group {}: node {} is forgotten, {} now\n", group.sync_id, answer.node, group.role)
    };
    answer.groups.iter().map(line).collect()
}
