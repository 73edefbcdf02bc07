//! What is told: a table for people, an object for programs (docs/schemas/chaos.json).

use super::measures::{Proof, Resync};
use super::traffic::{Means, Tally};
use super::verdict::Verdict;
use serde::Serialize;

/// Version of the JSON object's form.
pub const SCHEMA: &str = "ssyncp.chaos/1";

/// What came of one fault.
#[derive(Debug, Clone, Default, Serialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Outcome {
    /// Name of the scenario.
    pub name: String,
    /// What happened, in a sentence.
    pub what: String,
    /// How the flows were made: `packets` or `netlink`.
    pub means: String,
    /// Flows that were made.
    pub made: u32,
    /// Flows that were ended.
    pub ended: u32,
    /// Made and ended in a second, as reached.
    pub changes_per_s: f64,
    /// Flows in the master's kernel at the end.
    pub entries: u64,
    /// Flows that only the master's kernel has: 3 s after the fault's end, or before that when all was equal.
    pub missing: u64,
    /// Flows that only another kernel has.
    pub extra: u64,
    /// Flows whose values differ.
    pub stale: u64,
    /// Entries that were in the kernel with the traffic when that stopped, and are in no kernel at the end: connections that
    /// equality has cost.
    pub lost: u64,
    /// Seconds from the fault's end until every daemon said that it is master or in sync; null: never within 30 s.
    pub in_sync_s: Option<f64>,
    /// Seconds from the fault's end until the beginning of the reading that found the kernels equal; null: never within 30 s.
    pub equal_s: Option<f64>,
    /// What the daemons said of themselves at the end.
    pub said: Vec<String>,
    /// The first few differences in words.
    pub examples: Vec<String>,
    /// A figure that belongs to this fault.
    pub note: Option<String>,
    /// Why there is no verdict, if there is none.
    pub problem: Option<String>,
    /// Everything was equal within 3 s, and known to be, and nothing was lost.
    pub passed: bool,
    /// How long the whole scenario took.
    pub seconds: f64,
}

impl Outcome {
    /// A verdict over what was made.
    pub fn new(verdict: Verdict, tally: Tally, means: Means) -> Self {
        let lost = tally.held.saturating_sub(verdict.held);
        let passed = verdict.is_good() && lost == 0;
        Outcome {
            means: if means == Means::Packets { "packets" } else { "netlink" }.into(),
            made: tally.made,
            ended: tally.ended,
            changes_per_s: tally.changes_per_s().round(),
            entries: verdict.entries,
            missing: verdict.difference.missing,
            extra: verdict.difference.extra,
            stale: verdict.difference.stale,
            lost,
            in_sync_s: verdict.in_sync_s,
            equal_s: verdict.equal_s,
            said: verdict.said,
            examples: verdict.difference.examples,
            passed,
            ..Outcome::default()
        }
    }

    /// With a figure beside.
    pub fn note(mut self, note: String) -> Self {
        self.note = Some(note);
        self
    }

    /// No success, for this reason.
    pub fn problem(mut self, problem: &str) -> Self {
        (self.problem, self.passed) = (Some(problem.to_owned()), false);
        self
    }

    /// Its line of the table.
    pub fn line(&self) -> String {
        let seconds = |value: Option<f64>| value.map_or("never".into(), |value| format!("{value:.2}"));
        let verdict = if self.passed { "ok" } else { "FAILED" };
        let mut line = format!(
            "{:<17} {verdict:<6} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>8} {:>8}",
            self.name,
            self.entries,
            self.missing,
            self.extra,
            self.stale,
            self.lost,
            self.changes_per_s,
            seconds(self.in_sync_s),
            seconds(self.equal_s),
        );
        for more in self.note.iter().chain(&self.problem) {
            line.push_str("  ");
            line.push_str(more);
        }
        if !self.passed {
            line.push_str(&format!("\n    they say: {}", self.said.join("; ")));
            self.examples.iter().for_each(|example| line.push_str(&format!("\n    {example}")));
        }
        line
    }
}

/// The head of the table.
pub fn head() -> String {
    format!(
        "{:<17} {:<6} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>8} {:>8}",
        "fault", "", "entries", "missing", "extra", "stale", "lost", "chg/s", "in sync", "equal s"
    )
}

/// Everything.
#[derive(Debug, Default, Serialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Report {
    /// `ssyncp.chaos/1`.
    #[schemars(extend("const" = "ssyncp.chaos/1"))]
    pub schema: String,
    /// Whether this was the short form.
    pub quick: bool,
    /// Every fault and every resync ended well.
    pub passed: bool,
    /// One for each fault.
    pub faults: Vec<Outcome>,
    /// The proof under load; null if it was not measured.
    pub proof: Option<Proof>,
    /// Cold resyncs, one for each share of loss.
    pub resyncs: Vec<Resync>,
    /// What conntrackd made of the same work; null unless asked for, or where it is not installed. `passed` and
    /// `in_sync_s` say nothing of it: it has no claim of equality.
    pub conntrackd: Option<Vec<Outcome>>,
    /// Measurements that came to nothing, and why.
    pub problems: Vec<String>,
}
