//! What is told: the lines of the verdict for people, an object for programs (docs/schemas/soak.json).

use serde::Serialize;
use std::collections::BTreeMap;

/// Version of the JSON object's form.
pub const SCHEMA: &str = "ssyncp.soak/1";

/// One line of the verdict.
#[derive(Debug, Clone, Default, Serialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Line {
    /// What it is about.
    pub name: String,
    /// What was seen; null if nothing was, or it never came.
    pub value: Option<f64>,
    /// What it may be.
    pub limit: f64,
    /// The limit is the least that it may be, and not the most.
    pub at_least: bool,
    /// KiB, s, ms, or nothing where things are counted.
    pub unit: String,
    /// Whether it is within its limit.
    pub passed: bool,
}

impl Line {
    /// A figure that may not be larger.
    pub fn at_most(name: &str, value: Option<f64>, limit: f64, unit: &str) -> Self {
        let passed = value.is_some_and(|value| value <= limit);
        Line { name: name.into(), value, limit, at_least: false, unit: unit.into(), passed }
    }

    /// A figure that may not be smaller.
    pub fn at_least(name: &str, value: Option<f64>, limit: f64, unit: &str) -> Self {
        let passed = value.is_some_and(|value| value >= limit);
        Line { name: name.into(), value, limit, at_least: true, unit: unit.into(), passed }
    }

    /// In words.
    pub fn words(&self) -> String {
        let figure = |value: f64| if self.unit.is_empty() { format!("{value:.0}") } else { format!("{value:.2}") };
        let verdict = if self.passed { "ok" } else { "FAILED" };
        let value = self.value.map_or("never".into(), figure);
        let bound = if self.at_least { "at least" } else { "at most" };
        format!("{:<40} {verdict:<6} {value:>10} {:<3} {bound} {}", self.name, self.unit, figure(self.limit))
    }
}

/// A fault, and what came of it.
#[derive(Debug, Clone, Default, Serialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct FaultRow {
    /// Seconds from the start of the run to its beginning.
    pub at_s: f64,
    /// Its kind.
    pub kind: String,
    /// In words.
    pub what: String,
    /// The machines that it hit.
    pub target: String,
    /// Seconds for which it was on.
    pub lasted_s: f64,
    /// Seconds from its end until one daemon was master, and the other proven equal since; null: never within 30 s.
    pub in_sync_s: Option<f64>,
    /// What a daemon answered that would not do it.
    pub refused: Option<String>,
}

/// A look at both kernels, under load or at a quiet moment, while the pair said that it was in sync.
#[derive(Debug, Clone, Default, Serialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Claim {
    /// Seconds from the start of the run.
    pub at_s: f64,
    /// Differences that were the same 3 s later; the first few in words.
    pub lasting: Vec<String>,
}

/// One life of a daemon.
#[derive(Debug, Clone, Default, Serialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct LifeRow {
    /// The machine: a or b.
    pub machine: String,
    /// Which life, from 1.
    pub life: u32,
    /// Seconds from the start of the run to the first look at it.
    pub begin_s: f64,
    /// And to the last.
    pub end_s: f64,
    /// Its memory at the end, in KiB.
    pub memory_kib: f64,
    /// What it grew by after its warm-up, by a robust slope, in KiB; null if it was too short to be judged.
    pub growth_kib: Option<f64>,
}

/// A daemon at a quiet moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Standing {
    /// Which life of it.
    pub life: u32,
    /// Open descriptors: the least of some reads, because each question at the control socket is one more.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
    /// Resident memory in KiB.
    pub memory_kib: u64,
}

/// A quiet moment: no fault, no traffic.
#[derive(Debug, Clone, Default, Serialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Quiet {
    /// Seconds from the start of the run.
    pub at_s: f64,
    /// Entries that the master's kernel counted before all that is to end was ended.
    pub tracked: u64,
    /// Flows in the master's kernel after that.
    pub entries: u64,
    /// Flows that only the master's kernel has.
    pub missing: u64,
    /// Flows that only the backup's kernel has.
    pub extra: u64,
    /// Flows whose values differ.
    pub stale: u64,
    /// The first few differences in words.
    pub examples: Vec<String>,
    /// Of the connections that never end, those that a kernel lacks.
    pub lasting_missing: u64,
    /// Seconds until the daemons said that they were master and in sync; null: never within 30 s.
    pub in_sync_s: Option<f64>,
    /// Seconds until the kernels were found equal; null: never within 30 s.
    pub equal_s: Option<f64>,
    /// The digests of both tables are the same.
    pub digests_equal: bool,
    /// What the daemons said of themselves.
    pub said: Vec<String>,
    /// Both daemons; null for one that is dead.
    pub standings: Vec<Option<Standing>>,
}

impl Quiet {
    /// Entries that differ.
    pub fn different(&self) -> u64 {
        self.missing + self.extra + self.stale
    }
}

/// Everything.
#[derive(Debug, Default, Serialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Report {
    /// `ssyncp.soak/1`.
    #[schemars(extend("const" = "ssyncp.soak/1"))]
    pub schema: String,
    /// What the faults were drawn from.
    pub seed: u64,
    /// Seconds that the run has lasted.
    pub seconds: f64,
    /// Connections begun.
    pub connections: u64,
    /// Every line passed.
    pub passed: bool,
    /// The verdict.
    pub lines: Vec<Line>,
    /// Faults, in their order.
    pub faults: Vec<FaultRow>,
    /// Quiet moments, in their order.
    pub quiets: Vec<Quiet>,
    /// Lives of both daemons.
    pub lives: Vec<LifeRow>,
    /// Looks at both kernels for differences that last.
    pub claims: Vec<Claim>,
    /// Warnings and errors of both logs, by the names of their events.
    pub warnings: BTreeMap<String, u64>,
    /// Lines of the logs that say ERROR without a fault that must say it; the first few.
    pub errors: Vec<String>,
    /// Why the run ended early, if it did.
    pub problem: Option<String>,
    /// Where configurations, logs and samples are.
    pub folder: String,
}
