//! `ssyncp replay`: the table that a recording makes.
//!
//! ```text
//!   recording ─┬─ frames of protocol 114 ──▶ one session a group: an engine that follows ──▶ flows
//!              ├─ those of the classic profile ──▶ the same with its engine ──────────────▶ flows
//!              └─ messages of IPVS ────────▶ one map of connections ──────────────────────▶ connections
//! ```

mod balancer;
mod classic;
mod session;
mod verify;

use super::output::{complain, print};
use super::recording::{Content, Seen, Source, Tally, unreadable};
use super::secrets::Secrets;
use super::{EXIT_NO, EXIT_USAGE, decode};
use crate::daemon::flows::FlowRow;
use crate::daemon::settings::parse_duration;
use crate::flow::Flow;
use crate::time::Duration;
use crate::wire;
use crate::wire::Secret;
use crate::wire::ipvs::WordOrder;
use balancer::Balancer;
use classic::ClassicSession;
use serde_json::{Value, json};
use session::Session;
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Instant;

/// The schema of `--json`.
const SCHEMA: &str = "ssyncp.replay/1";
/// Groups that are replayed at most; each has a table of its own.
const GROUPS_MAX: usize = 8;

/// What `ssyncp replay` can be asked.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  ssyncp replay sync.pcap --until 30s\n  ssyncp table --json > b.json; ssyncp replay sync.pcap --verify b.json\n\n\
    Frames are followed as a backup would that was there from the beginning, over every change of master.\n\
    Exit status: 1 if --verify finds a difference, or if the table cannot be verified because the recording\n\
    starts after the first join or lacks frames. A classic recording proves nothing by itself; it is compared as far\n\
    as its records go (without marks, status, helpers, labels)."
)]
pub(super) struct Options {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    secrets: Secrets,
    /// How fast: 1 as recorded, 10 ten times as fast, max without waiting.
    #[arg(long, value_name = "FACTOR", default_value = "max")]
    speed: Speed,
    /// Stop after this time from the first packet (as 30s, 500ms), or with this packet (a bare number).
    #[arg(long, value_name = "TIME|PACKET")]
    until: Option<Until>,
    /// Compare with a table: the output of `ssyncp table --json`. Time-outs do not count.
    #[arg(long, value_name = "TABLE")]
    verify: Option<PathBuf>,
    /// Only this group (its sync id).
    #[arg(long, value_name = "ID")]
    group: Option<u8>,
    /// Flows that a group's table holds.
    #[arg(long, value_name = "FLOWS", default_value_t = 262_144, value_parser = clap::value_parser!(u32).range(1..=1 << 28))]
    capacity: u32,
    /// Print JSON (docs/schemas/replay.json); --verify reads it, too.
    #[arg(long)]
    json: bool,
}

/// How fast a recording is replayed.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Speed {
    Max,
    Factor(f64),
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Speed::Max);
        }
        let factor = text.parse().ok().filter(|factor: &f64| factor.is_finite() && *factor > 0.0);
        factor.map(Speed::Factor).ok_or_else(|| "write a number above 0, or max".to_owned())
    }
}

/// Where a replay stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Until {
    Packet(u64),
    Time(Duration),
}

impl FromStr for Until {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Until::Packet).or_else(|_| parse_duration(text).map(Until::Time))
    }
}

pub(super) fn run(options: &Options) -> ExitCode {
    let other = match options.verify.as_deref().map(verify::Table::load).transpose() {
        Ok(other) => other,
        Err(problem) => {
            complain(&problem);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let secrets = match options.secrets.read() {
        Ok(secrets) => secrets,
        Err(status) => return status,
    };
    let mut replay = Replay::new(options, secrets);
    let tally = match options.source.read(std::io::stderr().is_terminal(), |seen| replay.take(seen)) {
        Ok(tally) => tally,
        Err(error) => return unreadable(&options.source.file, &error),
    };
    complain(&tally.words());
    replay.report(&tally);
    match other {
        Some(other) => replay.verify(&other),
        None => replay.show(),
    }
}

/// What has been rebuilt so far.
struct Replay<'a> {
    options: &'a Options,
    secrets: Vec<Secret>,
    order: WordOrder,
    sessions: BTreeMap<u8, Session>,
    classic: BTreeMap<u8, ClassicSession>,
    balancer: Balancer,
    /// Time of the first packet, and when it was replayed.
    start: Option<(Duration, Instant)>,
    /// Frames of groups beyond the most, and of groups that were not asked for.
    left_out: u64,
}

impl<'a> Replay<'a> {
    fn new(options: &'a Options, secrets: Vec<Secret>) -> Self {
        let order = decode::order(options.source.ipvs_order);
        let (sessions, classic, balancer) = (BTreeMap::new(), BTreeMap::new(), Balancer::default());
        Replay { options, secrets, order, sessions, classic, balancer, start: None, left_out: 0 }
    }

    /// Takes one packet; breaks where the replay is to stop.
    fn take(&mut self, seen: &Seen<'_>) -> ControlFlow<()> {
        let (first, began) = *self.start.get_or_insert_with(|| (seen.time, Instant::now()));
        // A clock that was set back while recording stands still here.
        let time = seen.time.saturating_sub(first);
        match self.options.until {
            Some(Until::Packet(last)) if seen.number > last => return ControlFlow::Break(()),
            Some(Until::Time(last)) if time > last => return ControlFlow::Break(()),
            _ => {}
        }
        if let Speed::Factor(factor) = self.options.speed {
            let due = Duration::try_from_secs_f64(time.as_secs_f64() / factor).unwrap_or(Duration::MAX);
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        }
        for session in self.classic.values_mut() {
            session.pass(time);
        }
        match seen.content {
            Content::Frame(frame) => self.frame(time, seen, frame),
            Content::Ipvs(_, message) => self.balancer.take(time, message, self.order, self.options.group),
        }
        ControlFlow::Continue(())
    }

    fn frame(&mut self, time: Duration, seen: &Seen<'_>, frame: &[u8]) {
        // The group's number stands in the second byte of every version.
        let Some(sync_id) = frame.get(1).copied().filter(|id| self.options.group.is_none_or(|group| group == *id))
        else {
            self.left_out += 1;
            return;
        };
        let full = self.sessions.len() + self.classic.len() == GROUPS_MAX;
        if wire::classic::claims(frame) {
            if full && !self.classic.contains_key(&sync_id) {
                self.left_out += 1;
                return;
            }
            let session = self.classic.entry(sync_id);
            let session = session.or_insert_with(|| ClassicSession::new(sync_id, self.options.capacity));
            return session.take(time, seen.datagram.source, seen.datagram.ttl, frame);
        }
        if !self.sessions.contains_key(&sync_id) {
            let session = match full {
                true => None,
                false => Session::new(sync_id, self.options.capacity, self.secrets.clone()),
            };
            match session {
                Some(session) => drop(self.sessions.insert(sync_id, session)),
                None => self.left_out += 1,
            }
        }
        let tell = self.options.speed != Speed::Max;
        if let Some(session) = self.sessions.get_mut(&sync_id) {
            session.take(time, seen.datagram.source, seen.datagram.ttl, frame);
            for event in session.events() {
                if tell {
                    complain(&format!("{:.3} s: group {sync_id}: {event}", time.as_secs_f64()));
                }
            }
        }
    }

    /// Says what was replayed, on standard error.
    fn report(&self, tally: &Tally) {
        for (sync_id, session) in &self.sessions {
            complain(&format!("group {sync_id}: {}", session.words()));
        }
        for (sync_id, session) in &self.classic {
            complain(&format!("group {sync_id}: {}", session.words()));
        }
        if tally.messages > 0 {
            complain(&format!("IPVS: {}", self.balancer.words()));
        }
        if self.left_out > 0 {
            complain(&format!("{} frames of other groups are left out", self.left_out));
        }
    }

    fn rows(&self) -> Vec<FlowRow> {
        fn rows(sync_id: u8, flows: impl Iterator<Item = Flow>) -> Vec<FlowRow> {
            flows.map(|flow| FlowRow::new(sync_id, &flow)).collect()
        }
        let sessions = self.sessions.iter().flat_map(|(id, session)| rows(*id, session.flows()));
        let classic = self.classic.iter().flat_map(|(id, session)| rows(*id, session.flows()));
        sessions.chain(classic).collect()
    }

    fn show(&self) -> ExitCode {
        if self.options.json {
            return print(&(self.json().to_string() + "\n"));
        }
        let flows = self.rows().into_iter().map(|row| row.line());
        let text: String = flows.chain(self.balancer.lines()).map(|line| line + "\n").collect();
        print(&text)
    }

    fn json(&self) -> Value {
        let rows = self.rows();
        let group = |sync_id: u8, mut group: Value| {
            group["sync_id"] = sync_id.into();
            group
        };
        let sessions = self.sessions.iter().map(|(id, session)| group(*id, session.json()));
        let classic = self.classic.iter().map(|(id, session)| group(*id, session.json()));
        let proven = self.classic.is_empty() && self.sessions.values().all(|session| session.unproven().is_none());
        json!({
            "schema": SCHEMA,
            "groups": sessions.chain(classic).collect::<Value>(),
            "count": rows.len(),
            "complete": proven,
            "flows": rows,
            "connections": self.balancer.json(),
        })
    }

    fn verify(&self, other: &verify::Table) -> ExitCode {
        if self.sessions.is_empty() && self.classic.is_empty() {
            complain("cannot verify: the recording holds no frames of this group");
            return ExitCode::from(EXIT_NO);
        }
        let mut unproven = self.sessions.iter().filter_map(|(id, session)| session.unproven().map(|why| (id, why)));
        if let Some((sync_id, why)) = unproven.next() {
            complain(&format!("cannot verify: group {sync_id}: {why}"));
            return ExitCode::from(EXIT_NO);
        }
        for (sync_id, session) in &self.classic {
            let unsaid = verify::UNSAID_BY_CLASSIC.join(", ");
            complain(&format!(
                "group {sync_id}: compared without {unsaid}, which no record says; {}",
                session.unproven()
            ));
        }
        let classic: Vec<u8> = self.classic.keys().copied().collect();
        let differences = other.compare(self.rows(), self.options.group, &classic);
        let printed = print(&differences.words());
        if differences.none() { printed } else { ExitCode::from(EXIT_NO) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_number_is_a_packet_and_one_with_a_unit_a_time() {
        assert_eq!("30".parse(), Ok(Until::Packet(30)));
        assert_eq!("30s".parse(), Ok(Until::Time(Duration::from_secs(30))));
        assert!("soon".parse::<Until>().is_err());
    }

    #[test]
    fn a_speed_is_a_number_above_zero_or_max() {
        assert_eq!("max".parse(), Ok(Speed::Max));
        assert_eq!("0.5".parse(), Ok(Speed::Factor(0.5)));
        assert!(["0", "-1", "inf", "NaN", "fast"].iter().all(|text| text.parse::<Speed>().is_err()));
    }
}
