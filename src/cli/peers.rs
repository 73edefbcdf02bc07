//! `ssyncp peers`: the other nodes, one a line.

use super::Reach;
use super::output::{show, unanswered};
use crate::daemon::answers::PeersAnswer;
use crate::daemon::client;
use std::fmt::Write;
use std::process::ExitCode;

/// What `ssyncp peers` can be asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ssyncp peers\n  ssyncp peers --json | jq '.groups[].peers[].frontier'")]
pub(super) struct Options {
    /// Only this group (its sync id).
    #[arg(long, value_name = "ID")]
    group: Option<u8>,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

pub(super) fn run(options: &Options) -> ExitCode {
    let path = options.group.map_or("/v1/peers".to_owned(), |group| format!("/v1/peers?group={group}"));
    match client::fetch(&options.reach.socket, &path) {
        Ok(bytes) => show(&bytes, options.json, words),
        Err(error) => unanswered(&error),
    }
}

fn words(answer: &PeersAnswer) -> String {
    let mut text = String::new();
    for group in &answer.groups {
        // Writing into a string cannot fail, here and below.
        let _ = writeln!(text, "group {}: {}, {} peers", group.sync_id, group.role, group.peers.len());
        for peer in &group.peers {
            let state = match (peer.established, peer.cold) {
                (false, _) => "not proven in both directions",
                (true, true) => "cold",
                (true, false) => "warm",
            };
            let held = match group.role.as_str() {
                "master" => format!(", holds {} of {} frames", peer.frontier, group.stream_seq),
                _ => String::new(),
            };
            let _ = writeln!(
                text,
                "  node {} ({}): {}, priority {}, {state}{held}, heard {} ms ago",
                peer.node, peer.name, peer.role, peer.priority, peer.heard_ms
            );
        }
    }
    text
}
