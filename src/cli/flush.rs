//! `ssyncp flush`: wait until the peers hold what was submitted so far.

use super::output::{complain, show, unanswered};
use super::{EXIT_NO, Reach};
use crate::daemon::answers::FlushAnswer;
use crate::daemon::client;
use crate::daemon::settings;
use crate::time::Duration;
use hyper::Method;
use serde_json::json;
use std::fmt::Write;
use std::process::ExitCode;

/// What `ssyncp flush` can be asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ssyncp flush --timeout 2s && ssyncp role backup\n\n\
    Exit status: 0 if every proven peer holds everything, 1 if not in time, 4 if this node is not master.")]
pub(super) struct Options {
    /// How long to wait, at most 50s.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = settings::duration)]
    timeout: Duration,
    /// Only this group (its sync id); every group of which this node is master without it.
    #[arg(long, value_name = "ID")]
    group: Option<u8>,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

pub(super) fn run(options: &Options) -> ExitCode {
    let timeout_ms = u64::try_from(options.timeout.as_millis()).unwrap_or(u64::MAX);
    let body = json!({ "group": options.group, "timeout_ms": timeout_ms });
    let bytes = match client::send(&options.reach.socket, Method::POST, "/v1/flush", body.to_string()) {
        Ok(bytes) => bytes,
        Err(error) => return unanswered(&error),
    };
    let flushed = serde_json::from_slice(&bytes).is_ok_and(|answer: FlushAnswer| answer.flushed);
    let printed = show(&bytes, options.json, words);
    if flushed {
        return printed;
    }
    complain("not every proven peer holds everything");
    ExitCode::from(EXIT_NO)
}

fn words(answer: &FlushAnswer) -> String {
    let mut text = String::new();
    for group in &answer.groups {
        let verdict = if group.flushed { "flushed" } else { "not flushed" };
        let frame =
            group.seq.map_or(format!("{} records wait to be sent", group.pending), |seq| format!("frame {seq}"));
        // Writing into a string cannot fail, here and below.
        let _ = writeln!(text, "group {}: {verdict} after {:.1} ms: {frame}", group.sync_id, group.took_ms);
        for peer in &group.peers {
            let state = if peer.acknowledged.is_some() { "proven" } else { "not proven" };
            let all = if group.held_by.contains(&peer.node) { "everything, to" } else { "to" };
            let _ =
                writeln!(text, "  node {} ({}): {state}, holds {all} frame {}", peer.node, peer.name, peer.frontier);
        }
    }
    text
}
