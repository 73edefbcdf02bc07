//! What a batch of seeds showed: as JSON (`ssyncp.sim/1`, docs/schemas/sim.json) and in words.

use crate::sim::{Attacks, Batch, JUDGED_FROM};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Name and version of the form of [`Report`].
const SCHEMA: &str = "ssyncp.sim/1";
/// Violations that are shown in words; JSON has more of them.
const SHOWN_MAX: usize = 20;

/// What `ssyncp sim --json` prints.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    schema: &'static str,
    first: u64,
    seeds: u64,
    jobs: u64,
    seconds: f64,
    seeds_per_minute: f64,
    /// Of the median seed, as the next one.
    operations: u64,
    nodes: u64,
    /// Seeds that broke a promise.
    violated: u64,
    violations: Vec<ViolationRow>,
    coverage: Vec<CoverageRow>,
    attack: AttackRow,
    /// Whether there were seeds enough to judge what occurred.
    judged: bool,
    /// What occurred too rarely.
    missing: Vec<&'static str>,
    pub(super) passed: bool,
}

/// One seed that broke a promise.
#[derive(Debug, Serialize)]
struct ViolationRow {
    seed: u64,
    rule: &'static str,
    text: String,
    at_s: f64,
    again: String,
}

/// One thing that can occur.
#[derive(Debug, Serialize)]
struct CoverageRow {
    name: &'static str,
    seeds: u64,
    /// Of all seeds, 0 to 1.
    share: f64,
    times: u64,
    required: bool,
}

/// What was sealed, and what those did who have no secret.
#[derive(Debug, Serialize)]
struct AttackRow {
    /// Worlds that were sealed, or were to be in the course of their life.
    sealed: u64,
    /// Worlds with an attacker.
    attacked: u64,
    /// Of them, those that were held, step by step, against the same world without it.
    compared: u64,
    /// Frames of attackers that nodes received.
    frames: u64,
    /// Of them, those that were not refused: what honest nodes had sent.
    not_refused: u64,
    refused: BTreeMap<&'static str, u64>,
}

impl Report {
    /// `again` is the line that runs a seed again.
    pub(super) fn new(batch: &Batch, first: u64, jobs: u64, seconds: f64, again: impl Fn(u64) -> String) -> Report {
        let seeds = batch.seeds();
        let violations = batch.violations().iter().map(|found| ViolationRow {
            seed: found.seed,
            rule: found.violation.rule,
            text: found.violation.text.clone(),
            at_s: found.violation.at.as_nanos() as f64 / 1e9,
            again: again(found.seed),
        });
        let coverage = batch.coverage().map(|(name, occurrence, required)| CoverageRow {
            name,
            seeds: occurrence.seeds,
            share: occurrence.seeds as f64 / seeds.max(1) as f64,
            times: occurrence.times,
            required,
        });
        let Attacks { sealed, attacked, compared, frames, not_refused, refused } = batch.attacks().clone();
        Report {
            schema: SCHEMA,
            first,
            seeds,
            jobs,
            seconds,
            seeds_per_minute: if seconds > 0.0 { seeds as f64 / seconds * 60.0 } else { 0.0 },
            operations: batch.operations_median(),
            nodes: batch.nodes_median(),
            violated: batch.found(),
            violations: violations.collect(),
            coverage: coverage.collect(),
            attack: AttackRow { sealed, attacked, compared, frames, not_refused, refused },
            judged: batch.is_judged(),
            missing: batch.missing(),
            passed: batch.is_passed(),
        }
    }

    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    pub(super) fn words(&self) -> String {
        let mut text = String::new();
        if self.seeds > 1 {
            let _ = writeln!(text, "{:<30} {:>7} {:>12}", "occurred", "seeds %", "times");
            for row in &self.coverage {
                let rare = self.missing.contains(&row.name);
                let mark = if rare { "  too rarely" } else { "" };
                let _ = writeln!(text, "{:<30} {:>7.1} {:>12}{mark}", row.name, row.share * 100.0, row.times);
            }
            text.push('\n');
        }
        for row in self.violations.iter().take(SHOWN_MAX) {
            let _ = writeln!(text, "VIOLATION {} at {:.6} s: {}\n  {}", row.rule, row.at_s, row.text, row.again);
        }
        if self.violations.len() > SHOWN_MAX {
            let _ = writeln!(text, "… and {} more seeds", self.violated - SHOWN_MAX as u64);
        }
        let Report { seeds, seconds, seeds_per_minute, operations, nodes, violated, .. } = self;
        let _ =
            writeln!(text, "{seeds} seeds in {seconds:.1} s, {seeds_per_minute:.0} a minute with {} jobs", self.jobs);
        let _ = writeln!(text, "the median seed has {operations} operations and {nodes} nodes");
        let AttackRow { sealed, attacked, compared, frames, not_refused, .. } = self.attack;
        let _ =
            writeln!(text, "{sealed} worlds sealed, {attacked} attacked, {compared} compared with the same without it");
        let _ =
            writeln!(text, "{frames} frames of attackers, {not_refused} not refused: repeated, and of honest nodes");
        if !self.judged {
            let _ = writeln!(text, "too few seeds to judge whether enough occurred: {JUDGED_FROM} are needed");
        }
        if !self.missing.is_empty() {
            let _ = writeln!(text, "in fewer than one of a hundred seeds occurred: {}", self.missing.join(", "));
        }
        let verdict = if self.passed { "passed" } else { "FAILED" };
        let _ = writeln!(text, "{verdict}: {violated} violations");
        text
    }
}
