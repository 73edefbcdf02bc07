//! `ssyncp events`: follow what happens, one event a line.

use super::Reach;
use super::output::{print, unanswered};
use crate::daemon::client;
use crate::daemon::events::EventMessage;
use std::process::ExitCode;

/// What `ssyncp events` can be asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ssyncp events\n  ssyncp events --group 51 --json | jq -r .event\n\n\
    It begins with the state of every group, and ends with the daemon (exit status 3) or with whoever reads it.")]
pub(super) struct Options {
    /// Only this group (its sync id).
    #[arg(long, value_name = "ID")]
    group: Option<u8>,
    /// Print each event as a line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

pub(super) fn run(options: &Options) -> ExitCode {
    let path = options.group.map_or("/v1/events".to_owned(), |group| format!("/v1/events?group={group}"));
    let mut printed = ExitCode::SUCCESS;
    let followed = client::follow(&options.reach.socket, &path, |data| {
        let line = if options.json { format!("{data}\n") } else { words(data) };
        printed = print(&line);
        // A reader that has gone has had enough.
        printed == ExitCode::SUCCESS && !reader_has_gone()
    });
    match followed {
        Ok(()) => printed,
        Err(error) => unanswered(&error),
    }
}

/// A closed pipe shows as an error on the descriptor; writing to it would be no error here (`print`).
fn reader_has_gone() -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    let output = std::io::stdout();
    let mut descriptors = [PollFd::new(output.as_fd(), PollFlags::empty())];
    let looked = poll(&mut descriptors, PollTimeout::ZERO);
    looked.is_ok_and(|found| found > 0)
        && descriptors[0].revents().is_some_and(|found| found.contains(PollFlags::POLLERR))
}

/// `[time] group: name: text`, the time as `conntrack -E -o timestamp` writes it.
fn words(data: &str) -> String {
    let Ok(event) = serde_json::from_str::<EventMessage>(data) else { return format!("{data}\n") };
    let (seconds, milliseconds) = (event.unix_ms / 1000, event.unix_ms % 1000);
    let place = event.group.map_or("node".to_owned(), |group| format!("group {group}"));
    format!("[{seconds}.{milliseconds:03}] {place}: {}: {}\n", event.event, event.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line_with_its_time_in_seconds() {
        let mut event = EventMessage::now(Some(51), 3, "LinkUp", "a sync link is up".into());
        event.unix_ms = 1_763_774_740_007;
        let line = words(&serde_json::to_string(&event).unwrap());
        assert_eq!(line, "[1763774740.007] group 51: LinkUp: a sync link is up\n");
    }
}
