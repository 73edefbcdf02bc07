//! `GET /metrics`: what the loops have counted and measured, for Prometheus.
//!
//! ```text
//!   driver ──Measures──▶ Families: name, help, kind, samples ──prometheus-client──▶ text
//! ```
//!
//! Nothing is counted twice: a scrape asks every loop once, and whatever its counters are called, they appear. Those of
//! [`LABELLED`] are gathered into families with labels; every other one becomes a family of its own, so that a counter
//! that somebody adds is a metric from then on. A group that does not answer is not made up: it is missing, and
//! `ssyncp_group_up` says so.

use super::Desk;
use crate::daemon::control::Command;
use crate::daemon::measures::{Histogram, Measures};
use crate::daemon::status::GroupStatus;
use crate::engine::{Auth, Role, SyncState};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The media type of Prometheus' text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A counter's name in the status, its family, its label with the value.
type Gathered = (&'static str, &'static str, Option<(&'static str, &'static str)>);

/// Counters of the status that belong together.
#[rustfmt::skip]
const LABELLED: &[Gathered] = &[
    ("engine_adverts_received", "frames_received", Some(("kind", "advert"))),
    ("engine_data_received", "frames_received", Some(("kind", "data"))),
    ("engine_status_received", "frames_received", Some(("kind", "status"))),
    ("engine_pulls_received", "frames_received", Some(("kind", "pull"))),
    ("engine_adverts_sent", "frames_sent", Some(("kind", "advert"))),
    ("engine_data_sent", "frames_sent", Some(("kind", "data"))),
    ("engine_data_resent", "frames_sent", Some(("kind", "data_again"))),
    ("engine_status_sent", "frames_sent", Some(("kind", "status"))),
    ("engine_pulls_sent", "frames_sent", Some(("kind", "pull"))),
    ("engine_ignored_by_role", "frames_ignored", Some(("reason", "role"))),
    ("engine_not_for_us", "frames_ignored", Some(("reason", "target"))),
    ("engine_records_applied", "records_received", Some(("result", "applied"))),
    ("engine_records_older", "records_received", Some(("result", "older"))),
    ("engine_records_unknown", "records_received", Some(("result", "unknown"))),
    ("engine_records_sent", "records_sent", None),
    ("engine_holes", "gaps", None),
    ("engine_buckets_repaired", "repaired_buckets", None),
    ("driver_source_overruns", "netlink_overruns", None),
];

/// What the families with more than one counter mean.
const HELP: &[(&str, &str)] = &[
    ("frames_received", "Frames that were taken, by kind"),
    ("frames_sent", "Frames that left, by kind; data_again are retransmissions"),
    ("frames_ignored", "Good frames that were not taken: this node takes part in nothing, or they were for another"),
    ("records_received", "Records that arrived, by what became of them"),
    ("records_sent", "Records that left for the first time"),
    ("gaps", "Gaps in a stream that could no longer be filled"),
    ("repaired_buckets", "Buckets of the table that were walked again and repaired here"),
    ("netlink_overruns", "Times that the kernel dropped changes because they were not read in time"),
];

pub(super) async fn metrics(State(desk): State<Arc<Desk>>) -> Response {
    let mut families = Families::default();
    families.node(&desk);
    for group in desk.roster.groups().iter() {
        let label = vec![("group", group.sync_id.to_string())];
        let measures = desk.ask(group, Command::Measures).await;
        families.gauge("group_up", "Whether the group's loop answers", label, f64::from(u8::from(measures.is_ok())));
        match measures {
            Ok(measures) => families.group(&measures),
            Err(refusal) => desk.count(refusal.reason),
        }
    }
    match families.text() {
        Ok(text) => ([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

type Labels = Vec<(&'static str, String)>;

#[derive(Clone, PartialEq, Debug)]
enum Value {
    Counter(u64),
    Gauge(f64),
    Histogram(Histogram),
}

#[derive(Debug)]
struct Family {
    help: String,
    samples: Vec<(Labels, Value)>,
}

/// Every family by its name, without the prefix.
#[derive(Debug, Default)]
struct Families(BTreeMap<String, Family>);

impl Families {
    fn add(&mut self, name: &str, help: &str, labels: Labels, value: Value) {
        let new = || Family { help: help.to_owned(), samples: Vec::new() };
        self.0.entry(name.to_owned()).or_insert_with(new).samples.push((labels, value));
    }

    fn counter(&mut self, name: &str, help: &str, labels: Labels, value: u64) {
        self.add(name, help, labels, Value::Counter(value));
    }

    fn gauge(&mut self, name: &str, help: &str, labels: Labels, value: f64) {
        self.add(name, help, labels, Value::Gauge(value));
    }

    fn node(&mut self, desk: &Desk) {
        let node = desk.roster.node();
        let labels =
            vec![("version", node.version.clone()), ("node", node.id.to_string()), ("name", node.name.clone())];
        self.gauge("build_info", "The program and its node; always 1", labels, 1.0);
        let reloads = desk.roster.reload_counts();
        for (result, count) in [("done", reloads.done), ("refused", reloads.refused)] {
            let help = "Times that the configuration was read anew, by what came of it";
            self.counter("reloads", help, vec![("result", result.to_owned())], count);
        }
        for (reason, count) in desk.refused_requests() {
            let help = "Requests that the control interface refused, by reason";
            self.counter("requests_refused", help, vec![("reason", reason)], count);
        }
    }

    fn group(&mut self, measures: &Measures) {
        let group = &measures.status;
        let label = || vec![("group", group.sync_id.to_string())];
        self.state(group);
        for (name, count) in &group.counters {
            self.counted(group.sync_id, name, *count);
        }
        let histograms = [
            (
                "loop_lateness_seconds",
                "How late a turn of the loop began that a timer had asked for",
                &measures.lateness,
            ),
            ("commit_duration_seconds", "Writing the table to the kernel while taking over", &measures.commits),
            (
                "takeover_duration_seconds",
                "From the decision to take over until every address is here",
                &measures.takeovers,
            ),
        ];
        for (name, help, histogram) in histograms {
            self.add(name, help, label(), Value::Histogram(histogram.clone()));
        }
    }

    /// What is now, as gauges. What was not measured is left out.
    fn state(&mut self, group: &GroupStatus) {
        let label = || vec![("group", group.sync_id.to_string())];
        let roles = [Role::Init, Role::Backup, Role::Promoting, Role::Master, Role::Fault, Role::None];
        for role in roles.map(Role::name) {
            let labels = vec![("group", group.sync_id.to_string()), ("role", role.to_owned())];
            self.gauge("role", "1 for the role that this node has", labels, f64::from(u8::from(group.role == role)));
        }
        let states = [
            SyncState::Cold,
            SyncState::Syncing,
            SyncState::Lagging,
            SyncState::Diverged,
            SyncState::InSync,
            SyncState::Source,
        ];
        for sync in states.map(SyncState::name) {
            let labels = vec![("group", group.sync_id.to_string()), ("state", sync.to_owned())];
            let help = "1 for how far this node's table is from its master's";
            self.gauge("sync_state", help, labels, f64::from(u8::from(group.sync == sync)));
        }
        if let Some(seal) = &group.seal {
            for auth in [Auth::Off, Auth::Permissive, Auth::Enforce].map(Auth::name) {
                let labels = vec![("group", group.sync_id.to_string()), ("auth", auth.to_owned())];
                self.gauge("auth", "1 for what is asked of frames", labels, f64::from(u8::from(seal.auth == auth)));
            }
            for secret in &seal.secrets {
                let labels = vec![("group", group.sync_id.to_string()), ("secret", secret.to_string())];
                let seals = seal.seals_with == Some(*secret);
                self.gauge(
                    "seals_with",
                    "1 for the secret that frames are sealed with",
                    labels,
                    f64::from(u8::from(seals)),
                );
            }
            let help = "Whether every peer can open all secrets and seals with the first";
            self.gauge("seal_ready", help, label(), f64::from(u8::from(seal.ready)));
        }
        let established = group.peers.iter().filter(|peer| peer.established).count();
        let gauges = [
            ("term", "Newest term known", Some(group.term as f64)),
            ("priority", "VRRP priority in force, with what the tracks add", Some(f64::from(group.priority))),
            ("configured_priority", "VRRP priority of the configuration", group.configured_priority.map(f64::from)),
            ("entries", "Flows in the table", Some(group.entries as f64)),
            ("capacity_entries", "Flows that fit", Some(group.capacity as f64)),
            ("digest_age_seconds", "Time since the table was last proven equal to the master's", group.digest_age_s),
            ("unproven_buckets", "Buckets that are not proven, of 4096", Some(f64::from(group.buckets_unproven))),
            (
                "different_buckets",
                "Buckets that are known to differ from the master's, of 4096",
                Some(f64::from(group.buckets_different)),
            ),
            (
                "progress_ratio",
                "Share of the buckets that a repair has compared or walked",
                group.progress.map(|progress| f64::from(progress.percent) / 100.0),
            ),
            ("progress_left_seconds", "Time that the repair will still take", group.progress.and_then(|p| p.eta_s)),
            ("pending_records", "Records that wait to be sent", Some(group.pending as f64)),
            ("unapplied_records", "Records that wait for the kernel", Some(group.unapplied as f64)),
            (
                "unacknowledged_frames",
                "Frames of the master that not every proven peer is known to hold",
                group.unacknowledged.map(|frames| frames as f64),
            ),
            (
                "unacknowledged_age_seconds",
                "Age of the oldest record that not every proven peer is known to hold",
                group.unacknowledged_age_s,
            ),
            (
                "unacknowledged_records",
                "Records of the master that not every proven peer is known to hold",
                group.unacknowledged_records.map(|records| records as f64),
            ),
            ("unsent_age_seconds", "Age of the oldest change that waits to be sent", group.unsent_age_s),
            (
                "rpo_records",
                "Records that would be lost if this master died now; all entries while no peer is proven",
                group.rpo_records.map(|records| records as f64),
            ),
            (
                "rpo_seconds",
                "Age of the oldest record that would be lost if this master died now, or time since a peer was proven",
                group.rpo_s,
            ),
            ("established_peers", "Peers that are proven in both directions", Some(established as f64)),
            ("link_up", "Whether a sync link is up", Some(f64::from(u8::from(group.link_up)))),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                self.gauge(name, help, label(), value);
            }
        }
        for link in &group.links {
            let mut labels = vec![("group", group.sync_id.to_string()), ("link", link.name.clone())];
            labels.push(("transport", link.transport.clone()));
            self.gauge("link_transport", "1 for what the sync link runs on", labels, 1.0);
        }
        for peer in &group.peers {
            let labels = || vec![("group", group.sync_id.to_string()), ("node", peer.node.to_string())];
            let lagging = f64::from(u8::from(peer.lagging));
            self.gauge("peer_lagging", "Whether the peer stands still, and is not waited for", labels(), lagging);
            let help = "Frames above the newest that the peer can take";
            self.gauge("peer_credit_frames", help, labels(), peer.credit as f64);
            if let Some(ready) = peer.seal.ready {
                let help = "Whether the peer can open all secrets and seals with the first";
                self.gauge("peer_seal_ready", help, labels(), f64::from(u8::from(ready)));
            }
            if let Some(behind) = peer.behind {
                let help = "Records of this master that the proven peer is not known to hold";
                self.gauge("peer_behind_records", help, labels(), behind as f64);
            }
        }
        for track in &group.tracks {
            if let Some(up) = track.up {
                let labels = vec![("group", group.sync_id.to_string()), ("name", track.name.clone())];
                self.gauge("track_up", "Whether what the group tracks is up", labels, f64::from(u8::from(up)));
            }
            if let Some(number) = track.number {
                let labels = vec![("group", group.sync_id.to_string()), ("name", track.name.clone())];
                self.gauge("track_number", "The number in the file that the group tracks", labels, number.into());
            }
        }
        for address in &group.addresses {
            if let Some(held) = address.held {
                let labels = vec![("group", group.sync_id.to_string()), ("address", address.address.clone())];
                self.gauge("address_held", "Whether this node holds the address", labels, f64::from(u8::from(held)));
            }
        }
        for route in &group.routes {
            if let Some(held) = route.held {
                let labels = vec![("group", group.sync_id.to_string()), ("route", route.route.clone())];
                self.gauge("route_held", "Whether this node has the route", labels, f64::from(u8::from(held)));
            }
        }
    }

    /// A counter of the status under its family, or as one of its own.
    fn counted(&mut self, sync_id: u8, name: &str, count: u64) {
        let mut labels = vec![("group", sync_id.to_string())];
        if let Some(reason) = name.strip_prefix("engine_drop_") {
            labels.push(("reason", reason.to_owned()));
            return self.counter("frames_dropped", "Frames that were refused, by reason", labels, count);
        }
        if let Some((_, family, label)) = LABELLED.iter().find(|(known, ..)| *known == name) {
            labels.extend(label.map(|(label, value)| (label, value.to_owned())));
            let help = HELP.iter().find(|(known, _)| known == family).map_or("", |(_, help)| help);
            return self.counter(family, help, labels, count);
        }
        let help = format!("The counter {name} of ssyncp status --json");
        if name.ends_with("_buffer_bytes") {
            return self.gauge(name, &help, labels, count as f64);
        }
        // The unit comes last, before `_total`.
        let metric = match name.strip_prefix("transport_bytes_") {
            Some(direction) => format!("transport_{direction}_bytes"),
            None => name.to_owned(),
        };
        self.counter(&metric, &help, labels, count);
    }

    /// Prometheus' text format.
    fn text(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("ssyncp");
        registry.register_collector(Box::new(self));
        let mut openmetrics = String::new();
        text::encode(&mut openmetrics, &registry)?;
        Ok(text_format(&openmetrics))
    }
}

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, family) in &self.0 {
            let kind = match family.samples.first() {
                Some((_, Value::Counter(_))) => MetricType::Counter,
                Some((_, Value::Histogram(_))) => MetricType::Histogram,
                _ => MetricType::Gauge,
            };
            let mut descriptor = encoder.encode_descriptor(name, &family.help, None, kind)?;
            for (labels, value) in &family.samples {
                encode(value, descriptor.encode_family(labels)?)?;
            }
        }
        Ok(())
    }
}

fn encode(value: &Value, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
    match value {
        Value::Counter(count) => ConstCounter::new(*count).encode(encoder),
        Value::Gauge(value) => ConstGauge::new(*value).encode(encoder),
        Value::Histogram(histogram) => {
            let sum = histogram.sum().as_secs_f64();
            encoder.encode_histogram::<NoLabelSet>(sum, histogram.count(), &histogram.classes(), None)
        }
    }
}

/// From OpenMetrics, which is all that the library writes, to the older text format, which everything reads: there a
/// counter's type and help stand under the name that its samples have, and there are neither units nor an end.
fn text_format(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut help = None;
    for line in openmetrics.lines() {
        if line.starts_with("# HELP ") {
            help = Some(line);
            continue;
        }
        if line.starts_with("# UNIT ") || line == "# EOF" {
            continue;
        }
        let Some(described) = line.strip_prefix("# TYPE ") else {
            text += line;
            text.push('\n');
            continue;
        };
        let (name, kind) = described.split_once(' ').unwrap_or((described, "untyped"));
        let suffix = if kind == "counter" { "_total" } else { "" };
        let meaning = help.take().and_then(|help| help.split_once(name)).map_or("", |(_, meaning)| meaning.trim());
        text += &format!("# HELP {name}{suffix} {meaning}\n# TYPE {name}{suffix} {kind}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::status::TrackRow;
    use crate::time::Duration;

    fn text(status: GroupStatus) -> String {
        let mut measures = Measures::unmeasured(status);
        measures.lateness.observe(Duration::from_micros(150));
        let mut families = Families::default();
        families.group(&measures);
        families.text().unwrap()
    }

    fn group() -> GroupStatus {
        let counters = [
            ("engine_drop_checksum", 3),
            ("engine_data_resent", 4),
            ("engine_data_sent", 9),
            ("transport_bytes_sent", 77),
            ("transport_receive_buffer_bytes", 212_992),
            ("sink_created", 5),
        ];
        GroupStatus {
            sync_id: 51,
            role: "backup".into(),
            sync: "in_sync".into(),
            term: 7,
            counters: counters.map(|(name, count)| (name.to_owned(), count)).into(),
            ..GroupStatus::default()
        }
    }

    #[track_caller]
    fn says(text: &str, line: &str) {
        assert!(text.lines().any(|known| known == line), "{line}\nis missing in\n{text}");
    }

    #[test]
    fn counters_are_gathered_by_kind_and_reason_and_no_other_is_lost() {
        let text = text(group());
        says(&text, "# TYPE ssyncp_frames_dropped_total counter");
        says(&text, "# HELP ssyncp_frames_dropped_total Frames that were refused, by reason");
        says(&text, "ssyncp_frames_dropped_total{group=\"51\",reason=\"checksum\"} 3");
        says(&text, "ssyncp_frames_sent_total{group=\"51\",kind=\"data_again\"} 4");
        says(&text, "ssyncp_frames_sent_total{group=\"51\",kind=\"data\"} 9");
        says(&text, "ssyncp_transport_sent_bytes_total{group=\"51\"} 77");
        says(&text, "# TYPE ssyncp_transport_receive_buffer_bytes gauge");
        says(&text, "ssyncp_sink_created_total{group=\"51\"} 5");
    }

    #[test]
    fn what_is_now_is_a_gauge_and_what_was_not_measured_is_missing() {
        let text = text(group());
        says(&text, "ssyncp_role{group=\"51\",role=\"backup\"} 1.0");
        says(&text, "ssyncp_role{group=\"51\",role=\"master\"} 0.0");
        says(&text, "ssyncp_sync_state{group=\"51\",state=\"in_sync\"} 1.0");
        says(&text, "ssyncp_term{group=\"51\"} 7.0");
        assert!(!text.contains("digest_age") && !text.contains("unacknowledged") && !text.contains("rpo"), "{text}");
    }

    #[test]
    fn a_track_has_a_gauge_once_it_is_known_and_the_priority_has_two() {
        let row = |name: &str, up| TrackRow {
            name: name.into(),
            kind: "script".into(),
            number: (name == "b").then_some(-7),
            up,
            age_s: 0.0,
            weight: -50,
            output: String::new(),
            checks: 1,
            failures: 0,
            not_run: 0,
        };
        let tracks = vec![row("a", Some(true)), row("b", Some(false)), row("c", None)];
        let text = text(GroupStatus { tracks, priority: 100, configured_priority: Some(150), ..group() });
        says(&text, "ssyncp_track_up{group=\"51\",name=\"a\"} 1.0");
        says(&text, "ssyncp_track_up{group=\"51\",name=\"b\"} 0.0");
        says(&text, "ssyncp_track_number{group=\"51\",name=\"b\"} -7.0");
        assert!(!text.contains("track_number{group=\"51\",name=\"a\"}"), "{text}");
        assert!(!text.contains("name=\"c\""), "{text}");
        says(&text, "ssyncp_priority{group=\"51\"} 100.0");
        says(&text, "ssyncp_configured_priority{group=\"51\"} 150.0");
    }

    #[test]
    fn times_are_histograms_in_seconds() {
        let text = text(group());
        says(&text, "# TYPE ssyncp_loop_lateness_seconds histogram");
        says(&text, "ssyncp_loop_lateness_seconds_bucket{le=\"0.0001\",group=\"51\"} 0");
        says(&text, "ssyncp_loop_lateness_seconds_bucket{le=\"0.0002\",group=\"51\"} 1");
        says(&text, "ssyncp_loop_lateness_seconds_bucket{le=\"+Inf\",group=\"51\"} 1");
        says(&text, "ssyncp_loop_lateness_seconds_sum{group=\"51\"} 0.00015");
        says(&text, "ssyncp_takeover_duration_seconds_count{group=\"51\"} 0");
    }

    #[test]
    fn every_counter_that_is_gathered_is_one_of_the_engine_or_the_driver_and_is_explained() {
        let engine: Vec<String> =
            crate::engine::Counters::default().iter().map(|(name, _)| format!("engine_{name}")).collect();
        for (name, family, _) in LABELLED {
            assert!(engine.iter().any(|known| known == name) || *name == "driver_source_overruns", "{name}");
            assert!(HELP.iter().any(|(known, _)| known == family), "{family}");
        }
    }
}
