//! `ssyncp decode`: every frame of a recording, with every check explained.

pub(super) mod json;

use super::output::{complain, print};
use super::recording::{Content, Order, Seen, Source, unreadable};
use super::secrets::Secrets;
use crate::wire::ipvs::{Connection, Message, WordOrder, state};
use crate::wire::{FrameError, Outcome, Secret, TTL, checks, describe};
use std::fmt::Write;
use std::ops::ControlFlow;
use std::process::ExitCode;

/// What `ssyncp decode` can be asked.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  ssyncp decode sync.pcap\n  ssyncp decode sync.pcapng --json | jq 'select(.verdict != \"accepted\")'\n  \
    ssyncp decode sealed.pcap --secret-file /etc/ssyncp/secret\n\n\
    Frames of IP protocol 114, and sync messages of the kernel's IPVS (UDP 8848).\n\
    Exit status: 1 if the file breaks off; what stands before that is shown."
)]
pub(super) struct Options {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    secrets: Secrets,
    /// Print one JSON object for each frame (docs/schemas/frame.json).
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: &Options) -> ExitCode {
    let mut printed = ExitCode::SUCCESS;
    let order = order(options.source.ipvs_order);
    let secrets = match options.secrets.read() {
        Ok(secrets) => secrets,
        Err(status) => return status,
    };
    let read = options.source.read(false, |seen| {
        printed = print(&if options.json { json::line(seen, order, &secrets) } else { words(seen, order, &secrets) });
        if printed == ExitCode::SUCCESS { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    match read {
        Ok(tally) => {
            complain(&tally.words());
            printed
        }
        Err(error) => unreadable(&options.source.file, &error),
    }
}

/// The order of IPVS's words, as the codec names it.
pub(super) fn order(order: Order) -> WordOrder {
    match order {
        Order::Little => WordOrder::LittleEndian,
        Order::Big => WordOrder::BigEndian,
    }
}

/// One packet as text.
fn words(seen: &Seen<'_>, order: WordOrder, secrets: &[Secret]) -> String {
    let ip = &seen.datagram;
    let time = json::seconds(seen.time);
    let mut text = format!("#{} {time} {} -> {}, protocol {}", seen.number, ip.source, ip.destination, ip.protocol);
    // Writing into a string cannot fail, here and below.
    let _ = write!(text, ", TTL {}, {} bytes", ip.ttl, ip.length);
    let _ = writeln!(text, "{}", if ip.fragmented { ", put together" } else { "" });
    match seen.content {
        Content::Frame(frame) => {
            for (name, passed, reason) in frame_checks(seen, frame, secrets) {
                let _ = writeln!(text, "  {}  {name}: {reason}", mark(passed));
            }
            text += &describe(frame, secrets);
        }
        Content::Ipvs(port, bytes) => {
            let _ = writeln!(text, "  IPVS sync message to port {port}, {} bytes", bytes.len());
            text += &message_words(bytes, order);
        }
    }
    text.push('\n');
    text
}

fn mark(passed: Option<bool>) -> &'static str {
    match passed {
        Some(true) => "ok  ",
        Some(false) => "FAIL",
        None => " -  ",
    }
}

/// Every check of a frame, those of the transport first: its name, whether it passed (`None`: not reached), and why.
fn frame_checks(seen: &Seen<'_>, frame: &[u8], secrets: &[Secret]) -> Vec<(&'static str, Option<bool>, String)> {
    let ip = &seen.datagram;
    let mut all = Vec::new();
    if let Some(right) = ip.checksum {
        let reason = if right { "the IP header is undamaged" } else { "the IP header's checksum does not fit it" };
        all.push(("ip_checksum", Some(right), reason.to_owned()));
    }
    let near = ip.ttl == TTL;
    let reason = if near { "it has crossed no router" } else { "it has crossed a router" };
    all.push(("ttl", Some(near), format!("TTL {}, {reason}", ip.ttl)));
    for check in checks(frame, secrets) {
        let (passed, reason) = match check.outcome {
            Outcome::Passed => (Some(true), format!("{}? yes", check.question)),
            Outcome::Opened(id) => (Some(true), format!("{}? yes, by secret {id}", check.question)),
            Outcome::Failed(FrameError::Sealed) => (Some(false), not_opened(check.question, frame)),
            Outcome::Failed(error) => (Some(false), format!("{}? no: {}: {error}", check.question, error.name())),
            Outcome::NotReached => (None, format!("{}? not asked any more", check.question)),
        };
        all.push((check.name, passed, reason));
    }
    all
}

/// A frame for which there is no secret, and which one it would take.
fn not_opened(question: &str, frame: &[u8]) -> String {
    let (id, error) = (frame.get(6).map_or(0, |flags| flags & 3), FrameError::Sealed);
    format!("{question}? no: {}: {error} (secret {id}; see --secret-file)", error.name())
}

fn message_words(bytes: &[u8], order: WordOrder) -> String {
    let message = match Message::parse(bytes, order) {
        Ok(message) => message,
        Err(error) => return format!("refused: {}: {error}\n", error.name()),
    };
    let Message { version, sync_id, count, surplus, .. } = message;
    let mut text = format!("  version {version}, sync id {sync_id}, {count} records, {surplus} bytes behind them\n");
    for record in message.records() {
        let _ = match record {
            Ok(connection) => writeln!(text, "  {}", connection_words(&connection)),
            Err(skipped) => writeln!(text, "  stepped over: {}: {skipped}", skipped.name()),
        };
    }
    text + "accepted\n"
}

/// One connection in a line: the columns of `ipvsadm -Lnc`, and what it does not show.
pub(super) fn connection_words(connection: &Connection<'_>) -> String {
    let timeout = connection.timeout_s();
    let endpoint =
        |endpoint: crate::flow::Endpoint| std::net::SocketAddr::new(endpoint.address, endpoint.port).to_string();
    let mut text = format!(
        "{:<4} {:02}:{:02} {:<11} {} -> {} -> {} {}",
        protocol_name(connection.protocol),
        timeout / 60,
        timeout % 60,
        state::name(connection),
        endpoint(connection.client),
        endpoint(connection.service),
        endpoint(connection.server),
        connection.flags.forwarding().name(),
    );
    for flag in connection.flags.names() {
        let _ = write!(text, " {flag}");
    }
    if connection.firewall_mark != 0 {
        let _ = write!(text, " mark={}", connection.firewall_mark);
    }
    if let Some(words) = connection.sequences {
        let _ = write!(text, " in={:?} out={:?}", words.incoming, words.outgoing);
    }
    if !connection.engine.is_empty() {
        let (name, data) = (connection.engine.escape_ascii(), connection.engine_data.escape_ascii());
        let _ = write!(text, " engine={name} data={data}");
    }
    text
}

/// A protocol as `ipvsadm` names it.
pub(super) fn protocol_name(protocol: u8) -> String {
    match protocol {
        0 => "IP".into(),
        6 => "TCP".into(),
        17 => "UDP".into(),
        50 => "ESP".into(),
        51 => "AH".into(),
        132 => "SCTP".into(),
        other => other.to_string(),
    }
}
