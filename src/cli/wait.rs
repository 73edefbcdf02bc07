//! `--wait[=TIME]`: look at the status until what was ordered has come about, or cannot any more.

use super::output::{complain, unanswered};
use super::{EXIT_NO, EXIT_UNREACHABLE, Reach};
use crate::daemon::client;
use crate::daemon::settings;
use crate::daemon::status::{GroupStatus, NodeStatus};
use crate::sys::clock;
use crate::time::Duration;
use std::process::ExitCode;

/// Time between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// The time that `--wait` without one waits.
const PATIENCE: &str = "60s";

/// How long to wait for the end of what was ordered.
#[derive(Debug, clap::Args)]
pub(super) struct Wait {
    /// Return when it has come about, or after TIME (60s if none is given) with exit status 1.
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = PATIENCE,
        value_parser = settings::duration)]
    wait: Option<Duration>,
}

/// What one look at a group says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Look {
    /// It has come about.
    Done,
    /// Not yet.
    Waiting,
    /// It will not come about; why.
    Failed(String),
}

impl Wait {
    /// Whether anything is waited for.
    pub(super) fn is_asked(&self) -> bool {
        self.wait.is_some()
    }

    /// Waits until `look` says of each of these groups that it is done. The exit status.
    pub(super) fn until(&self, reach: &Reach, groups: &[u8], look: impl Fn(&GroupStatus) -> Look) -> ExitCode {
        let Some(patience) = self.wait else { return ExitCode::SUCCESS };
        let until = clock::now() + patience;
        loop {
            let status = match client::fetch(&reach.socket, "/v1/status") {
                Ok(bytes) => serde_json::from_slice::<NodeStatus>(&bytes),
                Err(error) => return unanswered(&error),
            };
            let status = match status {
                Ok(status) => status,
                Err(error) => {
                    complain(&format!("the answer cannot be read: {error}"));
                    return ExitCode::from(EXIT_UNREACHABLE);
                }
            };
            let verdict = verdict(&status, groups, &look);
            match verdict {
                Look::Done => return ExitCode::SUCCESS,
                Look::Failed(why) => {
                    complain(&why);
                    return ExitCode::from(EXIT_NO);
                }
                Look::Waiting if clock::now() >= until => {
                    complain(&format!("not within {} ms", patience.as_millis()));
                    return ExitCode::from(EXIT_NO);
                }
                Look::Waiting => std::thread::sleep(LOOK_INTERVAL.min(until.since(clock::now()))),
            }
        }
    }
}

/// The first failure; else whether somebody is waited for.
fn verdict(status: &NodeStatus, groups: &[u8], look: impl Fn(&GroupStatus) -> Look) -> Look {
    let mut all = Look::Done;
    for sync_id in groups {
        let one = match status.groups.iter().find(|group| group.sync_id == *sync_id) {
            Some(group) => look(group),
            None => Look::Failed("it was removed from the configuration".into()),
        };
        match one {
            Look::Done => {}
            Look::Waiting => all = Look::Waiting,
            Look::Failed(why) => return Look::Failed(format!("group {sync_id}: {why}")),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_waited_for_and_one_failure_ends_it() {
        let group = |sync_id, role: &str| GroupStatus { sync_id, role: role.into(), ..GroupStatus::default() };
        let look = |group: &GroupStatus| match group.role.as_str() {
            "master" => Look::Done,
            "fault" => Look::Failed("no link".into()),
            _ => Look::Waiting,
        };
        let of = |groups: Vec<GroupStatus>, asked: &[u8]| {
            let node = crate::daemon::status::NodeName { id: 1, name: "a".into(), version: "1".into() };
            let status = NodeStatus {
                schema: String::new(),
                node,
                refused_requests: Default::default(),
                reload: None,
                huge_pages: None,
                swap: None,
                sandbox: Default::default(),
                groups,
            };
            verdict(&status, asked, look)
        };
        assert_eq!(of(vec![group(51, "master"), group(52, "backup")], &[51]), Look::Done);
        assert_eq!(of(vec![group(51, "master"), group(52, "backup")], &[51, 52]), Look::Waiting);
        let failed = Look::Failed("group 53: no link".into());
        assert_eq!(of(vec![group(52, "backup"), group(53, "fault")], &[52, 53]), failed);
        let gone = Look::Failed("group 54: it was removed from the configuration".into());
        assert_eq!(of(vec![], &[54]), gone);
    }
}
