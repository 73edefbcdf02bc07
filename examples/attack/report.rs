//! What is told: a table for people, an object for programs (docs/schemas/attack.json).

use super::conntrackd::Rival;
use super::honest::Delay;
use serde::Serialize;
use std::collections::BTreeMap;

/// A takeover under attack may take so many seconds longer than one that nobody disturbs: what an attack achieves there is a
/// master-down (0.36 s here) at least, each time, or the hold of ten seconds; a busy machine does not take that long.
const DELAY_MAX_S: f64 = 1.0;
/// Name of the attack that is none: the master is killed, and that is all.
pub const KILL: &str = "kill";

/// Version of the JSON object's form.
pub const SCHEMA: &str = "ssyncp.attack/1";

/// What came of one attack. Sums are over both nodes.
#[derive(Debug, Clone, Default, Serialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Attack {
    /// Its name.
    pub name: String,
    /// What was sent, in a sentence.
    pub what: String,
    /// Hostile packets that were sent; each reaches both nodes.
    pub sent: u64,
    /// As many in a second.
    pub packets_per_s: f64,
    /// Frames that the nodes refused meanwhile, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Datagrams that the kernels dropped before a daemon saw them.
    pub dropped_by_kernel: u64,
    /// Records that differed from the truth, in kernels or tables; or, if there were more, that came to or went from the
    /// backup's kernel meanwhile.
    pub changed: u64,
    /// Changes of either node's role.
    pub role_changes: u64,
    /// How often a node lost a peer, or took one for new.
    pub peer_resets: u64,
    /// How often the backup compared its table anew.
    pub resyncs_caused: u64,
    /// Processor seconds that a node spends on a million hostile packets that reach its daemon; null where too few did.
    pub cpu_s_per_million: Option<f64>,
    /// Bytes that both nodes sent meanwhile beyond what honest traffic takes, for each byte of hostile packets.
    pub answer_per_byte: f64,
    /// Honest traffic meanwhile.
    pub delay: Delay,
    /// Seconds until a node that was killed and started in the middle of it was in sync; null where none was, or never.
    pub restart_in_sync_s: Option<f64>,
    /// Seconds until the backup was master after the master was killed; null where it was not, or never.
    pub takeover_s: Option<f64>,
    /// Afterwards the pair was as it was before, by itself.
    pub recovered: bool,
    /// What it has achieved, or why it says nothing; none if it is refuted.
    pub faults: Vec<String>,
}

/// What an attack must come to, beside changing nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Its frames are refused.
    Refused,
    /// The same, and a node that was killed meanwhile is in sync again.
    Restarted,
    /// The backup takes over, in about the time that it takes when nobody attacks.
    TakenOver,
}

impl Attack {
    /// The verdict; `undisturbed` is how long a takeover takes that nobody disturbs, in seconds, where that was measured.
    pub fn judge(&mut self, expected: Expected, undisturbed: Option<f64>) {
        let counted = [
            (self.changed, "records changed"),
            (self.role_changes, "changes of role"),
            (self.peer_resets, "peers lost or taken for new"),
            (self.resyncs_caused.saturating_sub(1), "resyncs beside the one that may be"),
        ];
        let mut faults: Vec<String> =
            counted.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        let mut fault = |is_one: bool, what: &str| faults.extend(is_one.then(|| what.to_owned()));
        fault(!self.recovered, "the pair did not recover");
        fault(self.sent == 0 && self.name != KILL, "nothing was sent");
        match expected {
            Expected::Refused => fault(self.refused.is_empty(), "nothing was refused: did it arrive?"),
            Expected::Restarted => {
                fault(self.restart_in_sync_s.is_none(), "the node that was killed did not come back")
            }
            Expected::TakenOver => match (self.takeover_s, undisturbed) {
                (None, _) => fault(true, "nobody took over"),
                (Some(took), Some(alone)) if took > alone + DELAY_MAX_S => {
                    fault(true, &format!("taken over after {took:.2} s, and after {alone:.2} s without"));
                }
                _ => {}
            },
        }
        self.faults = faults;
    }

    /// Whether it has achieved nothing that counts.
    pub fn is_harmless(&self) -> bool {
        self.faults.is_empty()
    }

    /// Its line of the table.
    pub fn line(&self) -> String {
        let optional = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.2}"));
        let mut reasons: Vec<(&String, &u64)> = self.refused.iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let mut reasons: Vec<String> = reasons.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        if self.dropped_by_kernel > 0 {
            reasons.push(format!("(kernel {})", self.dropped_by_kernel));
        }
        let mut line = format!(
            "{:<15} {:>9} {:>8} {:>8} {:>6} {:>6} {:>7} {:>8} {:>8} {:>8}  {}",
            self.name,
            self.sent,
            self.packets_per_s,
            self.changed,
            self.role_changes,
            self.peer_resets,
            self.resyncs_caused,
            format!("{:.2}", self.delay.p50_ms),
            format!("{:.2}", self.delay.p99_ms),
            optional(self.cpu_s_per_million),
            reasons.join(", "),
        );
        if self.delay.late > 0 {
            line.push_str(&format!("; {} of {} honest flows came late", self.delay.late, self.delay.flows));
        }
        if let Some(seconds) = self.restart_in_sync_s {
            line.push_str(&format!("; back in sync after {seconds:.2} s"));
        }
        if let Some(seconds) = self.takeover_s {
            line.push_str(&format!("; taken over after {seconds:.2} s"));
        }
        match self.faults.as_slice() {
            [] => line.push_str("; passed"),
            faults => line.push_str(&format!("; FAILED: {}", faults.join(", "))),
        }
        line
    }
}

/// The head of the table.
pub fn head() -> String {
    format!(
        "{:<15} {:>9} {:>8} {:>8} {:>6} {:>6} {:>7} {:>8} {:>8} {:>8}  refused by both nodes",
        "attack", "packets", "per s", "changed", "roles", "peers", "resyncs", "p50 ms", "p99 ms", "CPU s/M"
    )
}

/// Everything.
#[derive(Debug, Default, Serialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Report {
    /// `ssyncp.attack/1`.
    #[schemars(extend("const" = "ssyncp.attack/1"))]
    pub schema: String,
    /// Whether the pair had a secret.
    pub secret: bool,
    /// Every attack has passed (nothing was changed, no role, no peer, no takeover delayed), with at most one resync in all:
    /// only then with a secret the exit status is 0.
    pub passed: bool,
    /// Processors of the machine.
    pub processors: u64,
    /// Its kernel.
    pub kernel: String,
    /// Flows in the tables, beside the honest traffic.
    pub flows: u32,
    /// Hostile packets.
    pub sent: u64,
    /// Sum over all attacks.
    pub changed: u64,
    /// Sum over all attacks.
    pub role_changes: u64,
    /// Sum over all attacks.
    pub peer_resets: u64,
    /// Sum over all attacks.
    pub resyncs_caused: u64,
    /// Hostile packets a second in the fastest flood.
    pub fastest_per_s: f64,
    /// Age of the oldest recording at the end, in seconds.
    pub recording_s: f64,
    /// Honest traffic without any attack; null if it was not measured.
    pub quiet: Option<Delay>,
    /// One for each attack.
    pub attacks: Vec<Attack>,
    /// The same done to conntrackd; null if it is not installed, or was not asked for.
    pub conntrackd: Option<Rival>,
    /// What came to nothing, and why.
    pub problems: Vec<String>,
}

impl Report {
    /// Adds the sums, and the verdict.
    pub fn sum(&mut self) {
        let sum = |of: fn(&Attack) -> u64| self.attacks.iter().map(of).sum();
        self.sent = sum(|it| it.sent);
        self.changed = sum(|it| it.changed);
        self.role_changes = sum(|it| it.role_changes);
        self.peer_resets = sum(|it| it.peer_resets);
        self.resyncs_caused = sum(|it| it.resyncs_caused);
        self.fastest_per_s = self.attacks.iter().map(|it| it.packets_per_s).fold(0.0, f64::max);
        self.passed =
            self.problems.is_empty() && self.attacks.iter().all(Attack::is_harmless) && self.resyncs_caused <= 1;
    }
}

/// Three digits are enough.
pub fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
