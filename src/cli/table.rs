//! `ssyncp table`: the flow table, one flow a line.

use super::output::{complain, print, unanswered};
use super::{EXIT_UNREACHABLE, Reach};
use crate::daemon::client;
use crate::daemon::flows::{FlowRow, LIMIT_MAX, protocol_number};
use serde::Deserialize;
use std::net::IpAddr;
use std::process::ExitCode;

/// What `ssyncp table` can be asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ssyncp table --protocol tcp --port 443\n  ssyncp table --source 192.0.2.7 --json")]
pub(super) struct Options {
    /// Only this protocol: tcp, udp, icmp or a number.
    #[arg(short, long, value_name = "PROTOCOL", value_parser = protocol)]
    protocol: Option<u8>,
    /// Only flows from this address.
    #[arg(short, long, value_name = "ADDRESS")]
    source: Option<IpAddr>,
    /// Only flows to this address.
    #[arg(short, long, value_name = "ADDRESS")]
    destination: Option<IpAddr>,
    /// Only flows from or to this port.
    #[arg(long)]
    port: Option<u16>,
    /// Only this group (its sync id).
    #[arg(long, value_name = "ID")]
    group: Option<u8>,
    /// Most flows to show; all of them without it.
    #[arg(long, value_name = "FLOWS", default_value_t = LIMIT_MAX, hide_default_value = true)]
    limit: usize,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

fn protocol(word: &str) -> Result<u8, String> {
    protocol_number(word).ok_or_else(|| "write tcp, udp, icmp or a number from 0 to 255".to_owned())
}

/// `ssyncp.flows/1` as far as it is printed here.
#[derive(Deserialize)]
struct Answer {
    flows: Vec<FlowRow>,
    complete: bool,
}

pub(super) fn run(options: &Options) -> ExitCode {
    let bytes = match client::fetch(&options.reach.socket, &path(options)) {
        Ok(bytes) => bytes,
        Err(error) => return unanswered(&error),
    };
    if options.json {
        return print(&String::from_utf8_lossy(&bytes));
    }
    let answer: Answer = match serde_json::from_slice(&bytes) {
        Ok(answer) => answer,
        Err(error) => {
            complain(&format!("the answer cannot be read: {error}"));
            return ExitCode::from(EXIT_UNREACHABLE);
        }
    };
    let mut text = String::new();
    for row in &answer.flows {
        text += &row.line();
        text.push('\n');
    }
    let printed = print(&text);
    let shown = answer.flows.len();
    let (noun, more) =
        (if shown == 1 { "flow" } else { "flows" }, if answer.complete { "" } else { "; there are more" });
    complain(&format!("{shown} {noun} shown{more}"));
    printed
}

fn path(options: &Options) -> String {
    let mut path = format!("/v1/flows?limit={}", options.limit);
    let mut add = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            path += &format!("&{key}={value}");
        }
    };
    add("protocol", options.protocol.map(|number| number.to_string()));
    add("source", options.source.map(|address| address.to_string()));
    add("destination", options.destination.map(|address| address.to_string()));
    add("port", options.port.map(|port| port.to_string()));
    add("group", options.group.map(|group| group.to_string()));
    path
}
