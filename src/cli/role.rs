//! `ssyncp role`: tell the node its role.

use super::Reach;
use super::output::{print, unanswered};
use crate::daemon::client;
use hyper::Method;
use serde_json::{Value, json};
use std::fmt::Write;
use std::process::ExitCode;

/// What `ssyncp role` can be asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ssyncp role master\n  ssyncp role backup --group 51\n\n\
    The command returns when the node knows its wish; `ssyncp status` shows the role that it has.")]
pub(super) struct Options {
    /// The role to take: master takes over, backup gives up, none takes part in nothing.
    role: Role,
    /// Only this group (its sync id); all groups without it.
    #[arg(long, value_name = "ID")]
    group: Option<u8>,
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
    match client::send(&options.reach.socket, Method::POST, "/v1/role", body.to_string()) {
        Ok(answer) if options.json => print(&String::from_utf8_lossy(&answer)),
        Ok(answer) => print(&words(&serde_json::from_slice(&answer).unwrap_or_default())),
        Err(error) => unanswered(&error),
    }
}

fn words(answer: &Value) -> String {
    let mut text = String::new();
    for group in answer["groups"].as_array().into_iter().flatten() {
        let (requested, role) = (group["requested"].as_str().unwrap_or("?"), group["role"].as_str().unwrap_or("?"));
        // Writing into a string cannot fail.
        let _ = writeln!(text, "group {}: {requested} requested, {role} now", group["sync_id"]);
    }
    text
}
