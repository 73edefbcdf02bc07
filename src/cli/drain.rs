//! `ssyncp drain`: be without the role while anybody else may have it.

use super::Reach;
use super::output::post;
use super::wait::{Look, Wait};
use crate::daemon::answers::{DrainAnswer, DrainRow};
use crate::daemon::status::GroupStatus;
use serde_json::json;
use std::process::ExitCode;

/// What `ssyncp drain` can be asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ssyncp drain --wait && systemctl reboot\n  ssyncp drain --off\n\n\
    A master gives the role away as soon as somebody is in sync; until then it works on. A draining node is master\n\
    again only if nobody else can be. A reload keeps it, a restart of the daemon ends it. With --wait the command\n\
    returns when somebody else is master.\n\n\
    Exit status: 0 done, 1 if nobody else became master in time, 4 if the group has no election.")]
pub(super) struct Options {
    /// End it: this node may have the role again.
    #[arg(long, conflicts_with = "wait")]
    off: bool,
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

pub(super) fn run(options: &Options) -> ExitCode {
    let body = json!({ "group": options.group, "off": options.off });
    let answer: DrainAnswer = match post(&options.reach, "/v1/drain", &body, options.json, words) {
        Ok(answer) => answer,
        Err(status) => return status,
    };
    let groups: Vec<u8> = answer.groups.iter().map(|group| group.sync_id).collect();
    options.wait.until(&options.reach, &groups, look)
}

fn look(group: &GroupStatus) -> Look {
    let elsewhere = group.role != "master" && group.role != "promoting" && group.master.is_some();
    if elsewhere { Look::Done } else { Look::Waiting }
}

fn words(answer: &DrainAnswer) -> String {
    let line = |group: &DrainRow| match group.draining.is_empty() {
        true => format!("group {}: not draining, {} now\n", group.sync_id, group.role),
        false => format!("group {}: draining ({}), {} now\n", group.sync_id, group.draining.join(", "), group.role),
    };
    answer.groups.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_drained_when_another_is_master() {
        let group = |role: &str, master| GroupStatus { role: role.into(), master, ..GroupStatus::default() };
        assert_eq!(look(&group("master", Some(1))), Look::Waiting);
        assert_eq!(look(&group("backup", None)), Look::Waiting);
        assert_eq!(look(&group("promoting", Some(2))), Look::Waiting);
        assert_eq!(look(&group("backup", Some(2))), Look::Done);
    }

    #[test]
    fn the_answer_names_the_reasons() {
        let row = |sync_id, draining: &[&str]| DrainRow {
            sync_id,
            role: "master".into(),
            draining: draining.iter().map(|cause| (*cause).to_owned()).collect(),
        };
        let groups = vec![row(51, &["operator", "track"]), row(52, &[])];
        let answer = DrainAnswer { schema: String::new(), groups };
        assert_eq!(
            words(&answer),
            "group 51: draining (operator, track), master now\ngroup 52: not draining, master now\n"
        );
    }
}
