//! What came out: the figures of every failover, the worst of them, and the verdict. `--json` prints exactly this.
//!
//! What was not measured is null, never 0.

use super::cause::{Cause, Event};
use super::narrator::number;
use super::spread::{self, Times};
use serde::Serialize;

/// Name and version of the form of [`Report`].
pub const SCHEMA: &str = "ssyncp.demo/1";

/// Where the demo runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// In namespaces that root made.
    Root,
    /// In namespaces that an ordinary user made, as root of a user namespace.
    Userns,
    /// In one process: the kernel lets this user make no namespaces.
    Memory,
}

/// The figures of one event: a death, or whatever else the cause is made of.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Failover {
    /// What happened.
    pub event: Event,
    /// To whom: who died.
    pub died: String,
    /// Connections that were alive, or should have been: the sum of the next three.
    pub connections: u32,
    /// A new random echo came back on the same socket within 10 s of the death.
    pub survived: u32,
    /// Ended by the other side, or brought back a wrong byte.
    pub reset: u32,
    /// Brought nothing back in time.
    pub stalled: u32,
    /// Entries in the master's kernel just before the event (after one that mends: when the pair is in sync again).
    pub flows_master: u32,
    /// Entries in the backup's kernel then; with several backups in the one that differs most.
    pub flows_backup: u32,
    /// Entries of the master's that the backup has not.
    pub missing: u32,
    /// Entries of the backup's that the master has not.
    pub extra: u32,
    /// Entries that both have, with another protocol state, status, reply tuple or mark.
    pub stale: u32,
    /// Connections that ever brought back a wrong byte.
    pub mismatches: u64,
    /// Milliseconds from the event to the new master's first announcement seen on the wire; null where the role does not move.
    pub takeover_ms: Option<f64>,
    /// Median over the UDP probes of the longest hole, milliseconds.
    pub blackout_ms_p50: Option<f64>,
    /// The longest hole of all UDP probes, milliseconds.
    pub blackout_ms_max: Option<f64>,
    /// Median over the fast TCP connections of the longest time without an echo, milliseconds.
    pub tcp_gap_ms_p50: Option<f64>,
    /// The longest such time, milliseconds.
    pub tcp_gap_ms_max: Option<f64>,
    /// The minimum of TCP's retransmission time-out in use: a lower bound of what a lost segment costs, milliseconds.
    pub rto_min_ms: Option<u32>,
    /// The longest hole of all UDP probes while both kernels were compared, just before the event: what this machine does to
    /// them by itself, milliseconds.
    pub quiet_hole_ms: Option<f64>,
    /// The latest that the UDP probe was with sending: its holes may be this much longer than the network's, milliseconds.
    pub probe_late_ms: Option<f64>,
    /// ADVERTs as master that the node sent on the sync link after its successor's first one; null where it was dead.
    pub late_adverts: Option<u32>,
    /// Time from the first of these to the last, milliseconds.
    pub two_masters_ms: Option<f64>,
    /// How long the node went on holding the address after it could have known better, milliseconds; null where it was not
    /// woken.
    pub duplicate_address_ms: Option<f64>,
    /// How often the node that returned took the role while the two kernels differed; null where none returned.
    pub taken_differing: Option<u32>,
    /// What flowed beside TCP over IPv4; null without `--mix`.
    pub mix: Option<Mix>,
}

/// What flowed beside TCP over IPv4, and what of it lived on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Mix {
    /// TCP connections over IPv6, which are among `connections`.
    pub ipv6_connections: u32,
    /// Those of them that survived.
    pub ipv6_survived: u32,
    /// UDP flows of both families.
    pub udp_flows: u32,
    /// Those that were answered again after the death.
    pub udp_survived: u32,
    /// SCTP associations over IPv4.
    pub sctp_associations: u32,
    /// Those whose data came back again after the death.
    pub sctp_survived: u32,
}

impl Mix {
    /// Everything that did not live on.
    fn lost(&self) -> u32 {
        let (all, survived) = (
            self.ipv6_connections + self.udp_flows + self.sctp_associations,
            self.ipv6_survived + self.udp_survived + self.sctp_survived,
        );
        all.saturating_sub(survived)
    }

    /// In words, for people.
    pub(super) fn in_words(&self) -> String {
        format!(
            "IPv6 {} of {}, UDP {} of {}, SCTP {} of {}",
            number(self.ipv6_survived.into()),
            number(self.ipv6_connections.into()),
            self.udp_survived,
            self.udp_flows,
            self.sctp_survived,
            self.sctp_associations
        )
    }
}

impl Failover {
    /// Entries in which the two kernels differed.
    fn differences(&self) -> u32 {
        self.missing + self.extra + self.stale
    }

    /// What clients felt, for people.
    fn times_on_the_wire(&self) -> [(&'static str, String); 3] {
        let blackout = [self.blackout_ms_p50, self.blackout_ms_max].map(milliseconds);
        let gap = milliseconds(self.tcp_gap_ms_p50);
        let gap = match self.rto_min_ms {
            Some(minimum) => format!("median {gap} (RTO minimum {minimum} ms)"),
            None => gap,
        };
        [
            ("UDP blackout", format!("median {}, longest {}", blackout[0], blackout[1])),
            ("and without", format!("longest {}, before the event", milliseconds(self.quiet_hole_ms))),
            ("TCP gap", gap),
        ]
    }

    /// Who spoke or acted as master too late, for people; only what was looked at.
    fn claims_in_words(&self) -> Vec<(&'static str, String)> {
        let late = self.late_adverts.map(|adverts| {
            let lasting = milliseconds(self.two_masters_ms);
            ("two masters", format!("{adverts} late ADVERTs within {lasting}"))
        });
        let duplicate = self.duplicate_address_ms.map(|held| ("address twice", milliseconds(Some(held))));
        let differing = self.taken_differing.map(|taken| ("taken differing", number(taken.into())));
        late.into_iter().chain(duplicate).chain(differing).collect()
    }

    /// Whether all was lost that cannot live on without its entry. (A UDP flow begins anew with any packet.)
    fn is_all_lost(&self) -> bool {
        self.survived == 0 && self.mix.is_none_or(|mix| mix.sctp_survived == 0)
    }

    /// Whether nothing was lost.
    fn is_clean(&self) -> bool {
        let mix_lost = self.mix.map_or(0, |mix| mix.lost());
        self.survived == self.connections
            && self.differences() == 0
            && self.mismatches == 0
            && mix_lost == 0
            && self.taken_differing.unwrap_or(0) == 0
            && (self.event != Event::Continue || self.late_adverts == Some(0))
    }
}

/// The whole result. The figures at the top are the worst of all failovers, figure by figure; those that belong
/// together (what became of the connections; what the kernels held) come from one failover.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Where it ran.
    pub mode: Mode,
    /// Why the role moved.
    pub cause: Cause,
    /// What carried the frames; null where SSYNCP did not run.
    pub transport: Option<&'static str>,
    /// Whether SSYNCP ran.
    pub sync: bool,
    /// Whether its frames were sealed.
    pub sealed: bool,
    /// The worst.
    #[serde(flatten)]
    pub worst: Failover,
    /// How long all of it took.
    pub seconds: f64,
    /// The times of each kind of event: median, 99th percentile, maximum.
    pub times: Vec<Times>,
    /// Each event by itself.
    pub failovers: Vec<Failover>,
    /// Whether the outcome is the expected one: with SSYNCP nothing is lost, without it every connection is.
    pub as_expected: bool,
}

impl Report {
    /// Judges.
    pub fn new(
        mode: Mode,
        cause: Cause,
        transport: Option<&'static str>,
        seconds: f64,
        failovers: Vec<Failover>,
    ) -> Self {
        let sync = transport.is_some();
        let as_expected = !failovers.is_empty()
            && failovers.iter().all(|failover| {
                failover.connections > 0 && if sync { failover.is_clean() } else { failover.is_all_lost() }
            });
        let (worst, times) = (worst(&failovers), spread::times(&failovers));
        let sealed = false;
        Report { schema: SCHEMA, mode, cause, transport, sync, sealed, worst, seconds, times, failovers, as_expected }
    }

    /// The same of frames that were sealed, or not.
    #[must_use]
    pub fn sealed(self, sealed: bool) -> Self {
        Report { sealed, ..self }
    }

    /// One JSON object on one line.
    pub fn in_json(&self) -> String {
        serde_json::to_string(self).expect("numbers, words and lists of them always have a JSON form")
    }

    /// The verdict and the figures in a frame, for people.
    pub fn in_words(&self) -> String {
        let worst = &self.worst;
        let verdict = match (self.sync, self.as_expected) {
            (true, true) if self.mode == Mode::Memory => "PASSED: no synthetic flow was lost",
            (true, true) => "PASSED: no connection was lost",
            (true, false) => "FAILED: not everything lived on",
            (false, true) => "AS EXPECTED: without SSYNCP no connection lived on",
            (false, false) => "UNEXPECTED: connections lived on without SSYNCP",
        };
        let mut rows = vec![
            ("connections", number(worst.connections.into())),
            ("survived", number(worst.survived.into())),
            ("reset", number(worst.reset.into())),
            ("stalled", number(worst.stalled.into())),
            (
                "entries",
                format!("master {}, backup {}", number(worst.flows_master.into()), number(worst.flows_backup.into())),
            ),
            (
                "differences",
                format!(
                    "{} missing, {} extra, {} stale",
                    number(worst.missing.into()),
                    number(worst.extra.into()),
                    number(worst.stale.into())
                ),
            ),
            ("takeover", milliseconds(worst.takeover_ms)),
        ];
        if let Some(mix) = &worst.mix {
            rows.insert(4, ("of the mix", mix.in_words()));
        }
        if self.mode != Mode::Memory {
            rows.extend(worst.times_on_the_wire());
            rows.extend(worst.claims_in_words());
        }
        if self.sync {
            rows.push(("frames", if self.sealed { "sealed" } else { "in the clear" }.to_owned()));
        }
        rows.push(("time", format!("{:.1} s", self.seconds)));
        if self.failovers.len() > 1 {
            rows.insert(0, ("events", format!("{}; the worst of each figure:", self.failovers.len())));
        }
        let mut lines: Vec<String> = rows.iter().map(|(name, value)| format!("{name:<16}{value}")).collect();
        if self.failovers.len() > 1 {
            lines.extend(self.times.iter().flat_map(Times::in_lines));
        }
        frame(verdict, &lines)
    }
}

/// The worst of each figure.
fn worst(failovers: &[Failover]) -> Failover {
    let Some(most_lost) = failovers.iter().min_by_key(|failover| failover.survived) else {
        return Failover::default();
    };
    let different = failovers.iter().max_by_key(|failover| failover.differences()).unwrap_or(most_lost);
    let most = |figure: fn(&Failover) -> Option<f64>| failovers.iter().filter_map(figure).max_by(f64::total_cmp);
    Failover {
        flows_master: different.flows_master,
        flows_backup: different.flows_backup,
        missing: different.missing,
        extra: different.extra,
        stale: different.stale,
        mismatches: failovers.iter().map(|failover| failover.mismatches).max().unwrap_or(0),
        takeover_ms: most(|failover| failover.takeover_ms),
        blackout_ms_p50: most(|failover| failover.blackout_ms_p50),
        blackout_ms_max: most(|failover| failover.blackout_ms_max),
        tcp_gap_ms_p50: most(|failover| failover.tcp_gap_ms_p50),
        tcp_gap_ms_max: most(|failover| failover.tcp_gap_ms_max),
        rto_min_ms: failovers.iter().filter_map(|failover| failover.rto_min_ms).max(),
        quiet_hole_ms: most(|failover| failover.quiet_hole_ms),
        probe_late_ms: most(|failover| failover.probe_late_ms),
        late_adverts: failovers.iter().filter_map(|failover| failover.late_adverts).max(),
        two_masters_ms: most(|failover| failover.two_masters_ms),
        duplicate_address_ms: most(|failover| failover.duplicate_address_ms),
        taken_differing: failovers.iter().filter_map(|failover| failover.taken_differing).max(),
        mix: failovers.iter().filter_map(|failover| failover.mix).max_by_key(Mix::lost),
        ..most_lost.clone()
    }
}

fn milliseconds(value: Option<f64>) -> String {
    value.map_or_else(|| "not measured".into(), |value| format!("{value:.1} ms"))
}

/// A box around a title and lines.
fn frame(title: &str, lines: &[String]) -> String {
    let width = lines.iter().map(|line| line.chars().count()).chain([title.chars().count()]).max().unwrap_or(0);
    let rule = "─".repeat(width + 2);
    let mut text = format!("┌{rule}┐\n│ {title:<width$} │\n├{rule}┤\n");
    for line in lines {
        text.push_str(&format!("│ {line:<width$} │\n"));
    }
    text.push_str(&format!("└{rule}┘"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;
    use std::collections::BTreeSet;

    fn clean() -> Failover {
        Failover {
            died: "lb-a".into(),
            connections: 1000,
            survived: 1000,
            flows_master: 1005,
            flows_backup: 1005,
            takeover_ms: Some(36.5),
            blackout_ms_p50: Some(40.0),
            blackout_ms_max: Some(41.0),
            tcp_gap_ms_p50: Some(212.0),
            tcp_gap_ms_max: Some(230.0),
            rto_min_ms: Some(200),
            ..Failover::default()
        }
    }

    fn judged(failover: Failover) -> bool {
        Report::new(Mode::Root, Cause::NodeDeath, Some("raw"), 12.0, vec![clean(), failover]).as_expected
    }

    #[test]
    fn one_lost_connection_or_one_different_entry_is_a_failure() {
        assert!(judged(clean()));
        assert!(!judged(Failover { survived: 999, reset: 1, ..clean() }));
        assert!(!judged(Failover { survived: 999, stalled: 1, ..clean() }));
        assert!(!judged(Failover { missing: 1, ..clean() }));
        assert!(!judged(Failover { extra: 1, ..clean() }));
        assert!(!judged(Failover { stale: 1, ..clean() }));
        assert!(!judged(Failover { mismatches: 1, ..clean() }));
        assert!(!judged(Failover { connections: 0, survived: 0, ..clean() }));
        assert!(judged(Failover { taken_differing: Some(0), ..clean() }));
        assert!(!judged(Failover { taken_differing: Some(1), ..clean() }));
        let woken = Failover { event: Event::Continue, late_adverts: Some(0), ..clean() };
        assert!(judged(woken.clone()));
        assert!(!judged(Failover { late_adverts: Some(1), ..woken }), "who was stopped must not speak as master");
        assert!(
            judged(Failover { event: Event::SyncUp, late_adverts: Some(1), ..clean() }),
            "it cannot know before it hears"
        );
        let mix = Mix { udp_flows: 9, udp_survived: 9, sctp_associations: 4, sctp_survived: 4, ..Mix::default() };
        assert!(judged(Failover { mix: Some(mix), ..clean() }));
        assert!(!judged(Failover { mix: Some(Mix { udp_survived: 8, ..mix }), ..clean() }));
        assert!(!judged(Failover { mix: Some(Mix { sctp_survived: 3, ..mix }), ..clean() }));
    }

    #[test]
    fn without_ssyncp_one_survivor_is_unexpected() {
        let lost = Failover { survived: 0, stalled: 1000, ..clean() };
        assert!(Report::new(Mode::Root, Cause::NodeDeath, None, 12.0, vec![lost.clone()]).as_expected);
        let survivor = Failover { survived: 1, stalled: 999, ..lost.clone() };
        assert!(!Report::new(Mode::Root, Cause::NodeDeath, None, 12.0, vec![survivor]).as_expected);
        let mix = Mix { udp_flows: 9, udp_survived: 9, sctp_associations: 4, ..Mix::default() };
        let with = |mix| {
            Report::new(Mode::Root, Cause::NodeDeath, None, 12.0, vec![Failover { mix: Some(mix), ..lost.clone() }])
        };
        assert!(with(mix).as_expected, "UDP begins anew");
        assert!(!with(Mix { sctp_survived: 1, ..mix }).as_expected);
    }

    #[test]
    fn nothing_done_is_no_success() {
        assert!(!Report::new(Mode::Root, Cause::NodeDeath, Some("raw"), 1.0, Vec::new()).as_expected);
    }

    #[test]
    fn the_top_level_is_the_worst_of_all_failovers() {
        let slow = Failover { takeover_ms: Some(90.0), blackout_ms_max: None, ..clean() };
        let lossy = Failover { survived: 990, reset: 4, stalled: 6, ..clean() };
        let stale = Failover { stale: 3, flows_master: 1010, died: "lb-b".into(), ..clean() };
        let worst = Report::new(Mode::Userns, Cause::NodeDeath, Some("raw"), 30.0, vec![slow, lossy, stale]).worst;
        assert_eq!((worst.connections, worst.survived, worst.reset, worst.stalled), (1000, 990, 4, 6));
        assert_eq!((worst.stale, worst.flows_master, worst.missing), (3, 1010, 0));
        assert_eq!((worst.takeover_ms, worst.blackout_ms_max), (Some(90.0), Some(41.0)));
    }

    #[test]
    fn the_object_is_flat_and_what_was_not_measured_is_null() {
        let memory = Failover {
            died: "a".into(),
            connections: 7,
            survived: 7,
            flows_master: 7,
            flows_backup: 7,
            ..Failover::default()
        };
        let report = Report::new(Mode::Memory, Cause::NodeDeath, Some("memory"), 1.5, vec![memory]);
        let failover = concat!(
            r#""event":"node-death","died":"a","connections":7,"survived":7,"reset":0,"stalled":0,"flows_master":7,"#,
            r#""flows_backup":7,"missing":0,"extra":0,"stale":0,"mismatches":0,"takeover_ms":null,"#,
            r#""blackout_ms_p50":null,"blackout_ms_max":null,"tcp_gap_ms_p50":null,"tcp_gap_ms_max":null,"#,
            r#""rto_min_ms":null,"quiet_hole_ms":null,"probe_late_ms":null,"late_adverts":null,"two_masters_ms":null,"#,
            r#""duplicate_address_ms":null,"taken_differing":null,"mix":null"#,
        );
        let head = r#""schema":"ssyncp.demo/1","mode":"memory","cause":"node-death","transport":"memory","sync":true,"sealed":false"#;
        let times = r#"{"event":"node-death","count":1,"takeover_ms":null,"blackout_ms":null,"tcp_gap_ms":null}"#;
        let tail = format!(r#""seconds":1.5,"times":[{times}],"failovers":[{{{failover}}}],"as_expected":true"#);
        let expected = format!("{{{head},{failover},{tail}}}");
        assert_eq!(report.in_json(), expected);
    }

    #[test]
    fn the_committed_schema_names_exactly_what_is_printed() {
        let schema: serde_json::Value = serde_json::from_str(include_str!("../../docs/schemas/demo.json")).unwrap();
        let report = Report::new(Mode::Root, Cause::NodeDeath, Some("raw"), 12.0, vec![clean()]);
        let printed: serde_json::Value = serde_json::from_str(&report.in_json()).unwrap();
        let keys = |object: &serde_json::Value| object.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        let required = |form: &serde_json::Value| {
            form["required"]
                .as_array()
                .unwrap()
                .iter()
                .map(|key| key.as_str().unwrap().to_owned())
                .collect::<BTreeSet<_>>()
        };
        for (form, object) in [
            (&schema, &printed),
            (&schema["$defs"]["failover"], &printed["failovers"][0]),
            (&schema["$defs"]["times"], &printed["times"][0]),
            (&schema["$defs"]["spread"], &printed["times"][0]["takeover_ms"]),
        ] {
            assert_eq!(keys(&form["properties"]), keys(object));
            assert_eq!(required(form), keys(object));
        }
        assert_eq!(schema["properties"]["schema"]["const"], printed["schema"]);
        let causes: Vec<_> = Cause::value_variants().iter().map(|cause| serde_json::to_value(cause).unwrap()).collect();
        assert_eq!(schema["properties"]["cause"]["enum"].as_array().unwrap(), &causes);
        let events = schema["$defs"]["event"]["enum"].as_array().unwrap();
        for event in Cause::value_variants().iter().flat_map(|cause| cause.events()) {
            assert!(events.contains(&serde_json::to_value(event).unwrap()), "{event:?}");
        }
        for mode in [Mode::Root, Mode::Userns, Mode::Memory] {
            let mode = serde_json::to_value(mode).unwrap();
            assert!(schema["properties"]["mode"]["enum"].as_array().unwrap().contains(&mode));
        }
    }

    #[test]
    fn the_frame_fits_its_longest_line() {
        let text = frame("yes", &["a longer line".into(), "é".into()]);
        let widths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
        assert_eq!(widths, [17; 6]);
    }
}
