//! What became of the forged frames, for people and programs.

use super::mutate::Kind;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// The schema of `--json`.
const SCHEMA: &str = "ssyncp.forgeries/1";

/// Counts of one or of all pairs.
#[derive(Default, Debug)]
pub(crate) struct Report {
    /// Forged frames.
    pub(crate) frames: u64,
    /// Of them, those that a node took.
    pub(crate) accepted: u64,
    /// Rounds in which anything of a node's state changed that only its peer may change.
    pub(crate) changed: u64,
    pub(crate) rounds: u64,
    /// Frames that the nodes told each other between, and how many of them were refused.
    pub(crate) honest: u64,
    pub(crate) honest_refused: u64,
    /// Pairs that were not in sync in the end.
    pub(crate) out_of_sync: u64,
    /// By kind of forgery, then by reason.
    pub(crate) kinds: BTreeMap<&'static str, BTreeMap<String, u64>>,
    pub(crate) threads: usize,
    pub(crate) took: Duration,
}

impl Report {
    /// Adds what became of some frames of one kind.
    pub(crate) fn note(&mut self, kind: &Kind, reasons: &BTreeMap<String, u64>) {
        for (reason, count) in reasons {
            self.frames += count;
            self.accepted += if reason == "taken" { *count } else { 0 };
            *self.kinds.entry(kind.name).or_default().entry(reason.clone()).or_default() += count;
        }
    }

    /// Adds what another pair was told.
    pub(crate) fn add(&mut self, other: &Report) {
        self.frames += other.frames;
        self.accepted += other.accepted;
        self.changed += other.changed;
        self.rounds += other.rounds;
        self.honest += other.honest;
        self.honest_refused += other.honest_refused;
        self.out_of_sync += other.out_of_sync;
        for (kind, reasons) in &other.kinds {
            let ours = self.kinds.entry(kind).or_default();
            reasons.iter().for_each(|(reason, count)| *ours.entry(reason.clone()).or_default() += count);
        }
    }

    /// How many were refused for each reason, whatever the forgery.
    pub(crate) fn reasons(&self) -> BTreeMap<&str, u64> {
        let mut all = BTreeMap::new();
        for (reason, count) in self.kinds.values().flatten() {
            *all.entry(reason.as_str()).or_default() += count;
        }
        all
    }

    /// How many the cipher refused: nothing else was wrong with them.
    pub(crate) fn reached_the_cipher(&self) -> u64 {
        self.reasons().get("forged").copied().unwrap_or(0)
    }

    /// Whether nothing was believed, nothing changed, and nothing honest was refused.
    pub(crate) fn held(&self) -> bool {
        self.accepted + self.changed + self.honest_refused + self.out_of_sync == 0
    }

    #[allow(dead_code, reason = "of the program; the tests look at the numbers")]
    pub(crate) fn json(&self) -> Value {
        let seconds = self.took.as_secs_f64();
        json!({
            "schema": SCHEMA,
            "held": self.held(),
            "frames": self.frames,
            "accepted": self.accepted,
            "reached_the_cipher": self.reached_the_cipher(),
            "reasons": self.reasons(),
            "kinds": self.kinds,
            "rounds": self.rounds,
            "rounds_in_which_state_changed": self.changed,
            "honest_frames": self.honest,
            "honest_frames_refused": self.honest_refused,
            "pairs_out_of_sync": self.out_of_sync,
            "threads": self.threads,
            "seconds": seconds,
            "frames_per_second": (self.frames as f64 / seconds).round(),
        })
    }

    #[allow(dead_code, reason = "of the program; the tests look at the numbers")]
    pub(crate) fn words(&self) -> String {
        let Report { frames, accepted, changed, honest, honest_refused, out_of_sync, .. } = self;
        let mut text =
            format!("{frames} forged frames: {accepted} accepted, {} reached the cipher\n", self.reached_the_cipher());
        for (kind, reasons) in &self.kinds {
            let reasons: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            let _ = writeln!(text, "  {kind:<10} {}", reasons.join(", "));
        }
        let _ = writeln!(text, "{changed} rounds of {} in which state changed", self.rounds);
        let _ =
            writeln!(text, "{honest} honest frames between, {honest_refused} refused; {out_of_sync} pairs out of sync");
        let (seconds, threads) = (self.took.as_secs_f64(), self.threads);
        let _ = writeln!(text, "{seconds:.1} s in {threads} threads, {:.0} frames a second", *frames as f64 / seconds);
        text
    }
}
