//! `ssyncp switchover`: give the role to another node, in good order.

use super::Reach;
use super::output::post;
use super::wait::{Look, Wait};
use crate::daemon::answers::SwitchoverAnswer;
use crate::daemon::status::GroupStatus;
use crate::daemon::who::Who;
use serde_json::json;
use std::process::ExitCode;

/// What `ssyncp switchover` can be asked.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  ssyncp switchover --wait\n  ssyncp switchover --to lb2 --wait\n  ssyncp switchover --to 3 --group 51 --wait=5s\n\n\
    A master withdraws its addresses, sends what is left, and its heir takes over with all of it; a backup that is in\n\
    sync asks its master for that. If the heir does not come within handover_deadline, the master stays.\n\n\
    Exit status: 0 if it has begun (with --wait: is done), 1 if it failed or took too long, 4 if nobody may inherit."
)]
pub(super) struct Options {
    /// The node that is to be master, by its number or its name; without it the best of those in sync.
    #[arg(long, value_name = "NODE")]
    to: Option<Who>,
    /// Only this group (its sync id); without it every group of which this node is master, or, if there is none, every
    /// group.
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

pub(super) fn run(options: &Options) -> ExitCode {
    let body = json!({ "group": options.group, "to": options.to });
    let answer: SwitchoverAnswer = match post(&options.reach, "/v1/switchover", &body, options.json, words) {
        Ok(answer) if options.wait.is_asked() => answer,
        Ok(_) => return ExitCode::SUCCESS,
        Err(status) => return status,
    };
    let groups: Vec<u8> = answer.groups.iter().map(|group| group.sync_id).collect();
    let heir = |sync_id| answer.groups.iter().find(|group| group.sync_id == sync_id).map(|group| group.heir);
    options.wait.until(&options.reach, &groups, |group| look(group, heir(group.sync_id)))
}

/// A master that gives nothing any more has taken the role back; a backup that asks no more was not given it.
fn look(group: &GroupStatus, heir: Option<u32>) -> Look {
    let under_way = group.heir.is_some() || group.asks || group.role == "promoting";
    match (group.master == heir, under_way) {
        (true, _) => Look::Done,
        (false, true) => Look::Waiting,
        // Between two masters: the old one has just heard of the new one.
        (false, false) if group.role == "backup" && group.master.is_none() => Look::Waiting,
        (false, false) => Look::Failed("the heir did not take the role; the old master has it".into()),
    }
}

fn words(answer: &SwitchoverAnswer) -> String {
    answer
        .groups
        .iter()
        .map(|group| format!("group {}: the role goes to node {}\n", group.sync_id, group.heir))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_is_done_when_the_heir_is_master_and_failed_when_nothing_is_under_way() {
        let group = |role: &str, master, heir, asks| GroupStatus {
            role: role.into(),
            master,
            heir,
            asks,
            ..GroupStatus::default()
        };
        assert_eq!(look(&group("master", Some(1), Some(2), false), Some(2)), Look::Waiting);
        assert_eq!(look(&group("backup", None, None, false), Some(2)), Look::Waiting);
        assert_eq!(look(&group("backup", Some(2), None, false), Some(2)), Look::Done);
        assert_eq!(look(&group("backup", Some(1), None, true), Some(2)), Look::Waiting);
        assert_eq!(look(&group("promoting", Some(1), None, false), Some(2)), Look::Waiting);
        assert_eq!(look(&group("master", Some(2), None, false), Some(2)), Look::Done);
        let failed = Look::Failed("the heir did not take the role; the old master has it".into());
        assert_eq!(look(&group("master", Some(1), None, false), Some(2)), failed);
        assert_eq!(look(&group("backup", Some(1), None, false), Some(2)), failed);
    }
}
