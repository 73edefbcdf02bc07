//! `ssyncp role`: tell the node its role.

use super::Reach;
use super::output::post;
use super::wait::{Look, Wait};
use crate::daemon::answers::{RoleAnswer, RoleRow};
use serde_json::json;
use std::process::ExitCode;

/// What `ssyncp role` can be asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ssyncp role master --wait\n  ssyncp role backup --group 51\n\n\
    The command returns when the node knows its wish; with --wait when it has the role. `ssyncp switchover` moves the\n\
    role in good order.\n\n\
    Exit status: 0 done, 1 if the node does not have the role in time.")]
pub(super) struct Options {
    /// The role to take: master takes over, backup gives up, none takes part in nothing.
    role: Role,
    /// Only this group (its sync id); all groups without it.
    #[arg(long, value_name = "ID")]
    group: Option<u8>,
    #[command(flatten)]
    wait: Wait,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Role {
    Master,
    Backup,
    None,
}

pub(super) fn run(options: &Options) -> ExitCode {
    let role = match options.role {
        Role::Master => "master",
        Role::Backup => "backup",
        Role::None => "none",
    };
    let mut body = json!({ "role": role });
    if let Some(group) = options.group {
        body["group"] = group.into();
    }
    let answer: RoleAnswer = match post(&options.reach, "/v1/role", &body, options.json, words) {
        Ok(answer) => answer,
        Err(status) => return status,
    };
    let groups: Vec<u8> = answer.groups.iter().map(|group| group.sync_id).collect();
    let has = |found: &str| if found == role { Look::Done } else { Look::Waiting };
    options.wait.until(&options.reach, &groups, |group| has(&group.role))
}

fn words(answer: &RoleAnswer) -> String {
    let line =
        |group: &RoleRow| format!("group {}: {} requested, {} now\n", group.sync_id, group.requested, group.role);
    answer.groups.iter().map(line).collect()
}
