//! The audit: what the kernel really holds, compared with what a proven backup has committed to it.
//!
//! ```text
//!            proven, sink settled        one datagram a turn         16,384 slots a turn
//!   Idle ──────────────────────▶ Reading ────────────────▶ Sweeping ─────────────────────▶ the result, Idle
//!    ▲                              ▲ every entry:             │ what was not named:          ▲
//!    │ proof lost, no longer        │ equal, other, unknown    │ missing                      │
//!    └─ backup, error: from         │                          ▼                              │
//!       everywhere                  └─ once more ◀── somebody unknown ── the second time ──▶ Removing
//! ```
//!
//! What is missing or other is written again at once. An unknown entry is stale by definition: this table is proven equal
//! to the master's, and a backup carries no traffic but its own. It is *extra* if it is seen in two readings while one
//! and the same proof stands, [`SETTLE`] apart, and then removed. So an entry whose end was on its way during the first
//! reading is none. An entry with an end on this machine is never touched.
//!
//! If only one unknown entry was refreshed between the two readings, packets of it pass here: the node carries traffic that
//! this group knows nothing of, whatever its role, and what is unknown may be alive. Then nothing is removed, and that is said.
//!
//! Why at all: a node whose daemon was dead finds entries in its kernel that have died on the other node meanwhile; as
//! master it would bring them back. So it does not take the role from a living master before its first audit is through.

use crate::bridge::conntrack::Filter;
use crate::bridge::{Inspector, Piece, Room};
use crate::daemon::drain::{self, Drain};
use crate::daemon::journal::{Journal, Weight};
use crate::daemon::settings::AuditMode;
use crate::daemon::status::KernelVerified;
use crate::engine::{Engine, Held, Role};
use crate::flow::{Flow, FlowKey};
use crate::time::{Duration, Instant};
use std::collections::HashMap;
use std::io;

/// Rest between two turns of an audit: the kernel takes some 3 µs for each of the 140 entries of a turn, and everything
/// else goes first.
pub(crate) const PAUSE: Duration = Duration::from_micros(300);
/// Slots of the table looked at per turn for what is missing.
pub(crate) const SLOTS_PER_TURN: u32 = 16_384;
/// Stale entries removed per turn.
pub(crate) const REMOVALS_PER_TURN: usize = 256;
/// Most unknown entries that are remembered from one reading to the next; the others wait for the next audit.
pub(crate) const SUSPECTS_MAX: usize = 65_536;
/// An audit that found less wrong than the one before, or the first to find anything, is followed by another so soon.
pub(crate) const RECHECK: Duration = Duration::from_secs(1);
/// Rest after an audit that failed, or was torn; twice as long after each one more, up to the interval of the audits.
pub(crate) const RETRY: Duration = Duration::from_secs(1);
/// Time between the two readings. A conntrack clock tells whole seconds: two of them are the fewest that tell an entry that
/// is refreshed from one that runs down; and what a dead daemon did not hear is to be gone within 3 s of its return.
pub(crate) const SETTLE: Duration = Duration::from_secs(2);
/// Rest before an audit that begins because events were lost: what they told of goes on for a while.
pub(crate) const HURRY_DELAY: Duration = Duration::from_millis(250);
/// Time between two such audits.
pub(crate) const HURRY_SPACING: Duration = Duration::from_secs(10);
/// A reading that was torn is nobody's fault, and is told of when the rest after it is so long.
pub(crate) const TORN_PATIENCE: Duration = Duration::from_secs(8);
/// A kernel that says nothing for so long, in the middle of a reading, has forgotten us.
pub(crate) const STUCK_AFTER: Duration = Duration::from_secs(5);
/// Longest time from the proof on that the first audit may keep this node from taking the role from a living master.
pub(crate) const PREEMPTION_PATIENCE: Duration = Duration::from_secs(30);

/// What an audit is made of.
#[allow(missing_debug_implementations, reason = "inspectors need not be printable")]
pub struct AuditParts {
    /// Who looks into the kernel; none where there is no kernel.
    pub inspector: Option<Box<dyn Inspector>>,
    /// What it is told, and may be told anew.
    pub orders: AuditOrders,
}

/// What an audit is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AuditOrders {
    /// What is done with what is found.
    pub mode: AuditMode,
    /// From the end of one audit to the next; zero for none.
    pub interval: Duration,
    /// Whether no other group writes to the same kernel. If one does, nothing counts as extra: what this group's table
    /// lacks may be the other's, whose role may be another too.
    pub sole: bool,
}

/// What the audit asks of the table; the engine, in life.
pub(crate) trait Audited {
    fn role(&self) -> Role;
    fn proof(&self) -> Option<u64>;
    fn slots(&self) -> u32;
    fn begin_audit(&mut self);
    fn audit_held(&mut self, held: &Flow, now: Instant, repair: bool, inspector: &dyn Inspector) -> Held;
    fn audit_missing(&mut self, from: u32, now: Instant, repair: bool, inspector: &dyn Inspector) -> u32;
    fn lacks(&self, key: &FlowKey) -> bool;
    fn hold_preemption(&mut self, held: bool);
}

impl Audited for Engine {
    fn role(&self) -> Role {
        Engine::role(self)
    }
    fn proof(&self) -> Option<u64> {
        Engine::proof(self)
    }
    fn slots(&self) -> u32 {
        Engine::slots(self)
    }
    fn begin_audit(&mut self) {
        Engine::begin_audit(self);
    }
    fn audit_held(&mut self, held: &Flow, now: Instant, repair: bool, inspector: &dyn Inspector) -> Held {
        Engine::audit_held(self, &held.key, now, repair, |wanted| inspector.agrees(held, wanted))
    }
    fn audit_missing(&mut self, from: u32, now: Instant, repair: bool, inspector: &dyn Inspector) -> u32 {
        let slots = from..from.saturating_add(SLOTS_PER_TURN);
        Engine::audit_missing(self, slots, now, repair, |wanted| inspector.takes(wanted))
    }
    fn lacks(&self, key: &FlowKey) -> bool {
        Engine::lacks(self, key)
    }
    fn hold_preemption(&mut self, held: bool) {
        Engine::hold_preemption(self, held);
    }
}

/// Where an audit stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Idle,
    Reading {
        /// The kernel's last sign of life.
        heard: Instant,
    },
    Sweeping {
        from: u32,
    },
    Removing,
}

/// What an audit has found.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Findings {
    entries: u64,
    differing: u64,
    missing: u64,
    extra: u64,
}

impl Findings {
    fn wrong(&self) -> u64 {
        self.differing + self.missing + self.extra
    }

    /// Whether there were more stale entries than one audit remembers.
    fn has_more(&self) -> bool {
        self.extra >= SUSPECTS_MAX as u64
    }
}

/// The audit of one group's kernel.
pub(crate) struct Audit {
    parts: AuditParts,
    phase: Phase,
    next_at: Instant,
    /// The proof that the running audit rests on.
    proof: Option<u64>,
    proven_since: Option<Instant>,
    /// What the running audit has found so far.
    findings: Findings,
    /// Unknown entries of the first reading, and the seconds that each had left then; empty during it.
    suspects: HashMap<FlowKey, u32>,
    /// When the first reading ended; none before that.
    again: Option<Instant>,
    /// Unknown entries of this reading: of the first all, of the second those that were unknown before.
    unknown: Vec<(FlowKey, u32)>,
    /// Packets of an unknown entry pass here: nothing is removed while this node is backup.
    carries_traffic: bool,
    /// What one turn reads; kept for its room.
    piece: Vec<Flow>,
    last: Option<(Findings, Instant)>,
    /// Rest after the next audit that comes to nothing.
    retry: Duration,
    /// The running audit is to be followed by another soon.
    hurry: bool,
    hurried_at: Option<Instant>,
    trouble: bool,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    audits: u64,
    given_up: u64,
    errors: u64,
    differing: u64,
    missing: u64,
    extra: u64,
    removed: u64,
}

impl Audit {
    pub(crate) fn new(parts: AuditParts, now: Instant) -> Self {
        Audit {
            parts,
            phase: Phase::Idle,
            next_at: now,
            proof: None,
            proven_since: None,
            findings: Findings::default(),
            suspects: HashMap::new(),
            again: None,
            unknown: Vec::new(),
            carries_traffic: false,
            piece: Vec::new(),
            last: None,
            retry: RETRY,
            hurry: false,
            hurried_at: None,
            trouble: false,
            counts: Counts::default(),
        }
    }

    /// Other settings. What is being read was read by the old ones, and is given up.
    pub(crate) fn reconfigure(&mut self, now: Instant, orders: AuditOrders, engine: &mut impl Audited) {
        if orders == self.parts.orders {
            return;
        }
        self.parts.orders = orders;
        self.retry = RETRY;
        self.give_up(now);
        self.next_at = self.next_at.min(now + orders.interval);
        if !self.enabled() {
            self.forget(now);
            engine.hold_preemption(false);
        }
    }

    /// Other rules decide which entries are compared.
    pub(crate) fn set_filter(&mut self, now: Instant, filter: &Filter) {
        self.give_up(now);
        if let Some(inspector) = &mut self.parts.inspector {
            inspector.set_filter(filter);
        }
    }

    /// One turn, behind that of the sink.
    pub(crate) fn turn(&mut self, now: Instant, engine: &mut impl Audited, drain: &mut Drain, journal: &mut Journal) {
        if !self.enabled() {
            return;
        }
        if engine.role() != Role::Backup {
            self.forget(now);
        }
        let proof = engine.proof();
        if proof.is_some() {
            self.proven_since.get_or_insert(now);
        }
        engine.hold_preemption(self.keeps_from_preempting(now));
        if proof != self.proof {
            self.proof = proof;
            self.give_up(now);
        }
        if proof.is_none() || now < self.next_at {
            return;
        }
        self.next_at = now + PAUSE;
        match self.phase {
            Phase::Idle if !drain.settled() => {}
            Phase::Idle => self.begin(now, engine, journal),
            Phase::Reading { heard } => self.read(now, heard, engine, journal),
            Phase::Sweeping { from } => self.sweep(now, from, engine, journal),
            Phase::Removing => self.remove(now, engine, drain, journal),
        }
    }

    fn enabled(&self) -> bool {
        self.parts.inspector.is_some()
            && self.parts.orders.mode != AuditMode::Off
            && !self.parts.orders.interval.is_zero()
    }

    fn repairs(&self) -> bool {
        self.parts.orders.mode == AuditMode::Repair
    }

    /// Whether what the kernel says that it has dropped is put back: unless the owner wants to be told, and nothing more.
    pub(crate) fn keeps(&self) -> bool {
        self.parts.orders.mode != AuditMode::Report
    }

    /// The kernel may have dropped what it should hold, and nobody has heard of it: the next audit begins soon.
    pub(crate) fn hurry(&mut self, now: Instant) {
        let spaced = self.hurried_at.is_none_or(|at| now.since(at) >= HURRY_SPACING);
        if self.phase == Phase::Idle && self.again.is_none() && spaced {
            self.hurried_at = Some(now);
            self.next_at = self.next_at.min(now + HURRY_DELAY);
        } else {
            self.hurry = spaced;
        }
    }

    fn keeps_from_preempting(&self, now: Instant) -> bool {
        let patient = self.proven_since.is_none_or(|since| now < since + PREEMPTION_PATIENCE);
        let through = self.last.is_some_and(|(findings, _)| !findings.has_more());
        self.repairs() && !through && patient
    }

    /// What was found says nothing of a kernel that carries traffic, or of a node that takes part in nothing.
    fn forget(&mut self, now: Instant) {
        self.give_up(now);
        (self.proof, self.proven_since, self.last, self.carries_traffic) = (None, None, None, false);
        self.retry = RETRY;
    }

    fn give_up(&mut self, now: Instant) {
        self.counts.given_up += u64::from(self.phase != Phase::Idle);
        self.idle(if self.last.is_some() { self.next_at.max(now + RETRY) } else { now });
    }

    fn idle(&mut self, next_at: Instant) {
        if let Some(inspector) = &mut self.parts.inspector {
            inspector.stop();
        }
        (self.phase, self.next_at, self.again) = (Phase::Idle, next_at, None);
        // Their room is given back: a kernel full of stale entries is the exception.
        (self.suspects, self.unknown) = (HashMap::new(), Vec::new());
    }

    fn begin(&mut self, now: Instant, engine: &mut impl Audited, journal: &mut Journal) {
        let Some(inspector) = &mut self.parts.inspector else { return };
        // First the engine: what the sink gets from here on is not judged.
        engine.begin_audit();
        match inspector.begin() {
            Ok(()) => {
                self.phase = Phase::Reading { heard: now };
                if self.again.is_none() {
                    self.findings = Findings::default();
                }
                self.findings.entries = 0;
            }
            Err(error) => self.failed(now, journal, &error),
        }
    }

    fn read(&mut self, now: Instant, heard: Instant, engine: &mut impl Audited, journal: &mut Journal) {
        let Some(inspector) = &mut self.parts.inspector else { return };
        self.piece.clear();
        let piece = &mut self.piece;
        let result = inspector.read(&mut |flow| piece.push(flow));
        let heard = if self.piece.is_empty() { heard } else { now };
        self.judge(now, engine);
        match result {
            Ok(Piece::More) if now.since(heard) < STUCK_AFTER => self.phase = Phase::Reading { heard },
            Ok(Piece::More) => self.failed(now, journal, &io::ErrorKind::TimedOut.into()),
            Ok(Piece::Complete) => self.phase = Phase::Sweeping { from: 0 },
            Ok(Piece::Torn) => {
                self.counts.given_up += 1;
                if self.retry >= TORN_PATIENCE {
                    self.tell(now, journal, "its table changes faster than it can be read");
                }
                self.rest(now);
            }
            Err(error) => self.failed(now, journal, &error),
        }
    }

    /// Compares what one turn has read.
    fn judge(&mut self, now: Instant, engine: &mut impl Audited) {
        let (repair, sole) = (self.repairs() && self.again.is_none(), self.parts.orders.sole);
        let Some(inspector) = self.parts.inspector.as_deref() else { return };
        self.findings.entries += self.piece.len() as u64;
        for held in &self.piece {
            match engine.audit_held(held, now, repair, inspector) {
                Held::Differs if self.again.is_none() => self.findings.differing += 1,
                Held::Equal | Held::Unsettled | Held::Differs => {}
                Held::Unknown if !sole || inspector.is_local(held) => {}
                Held::Unknown => {
                    if let Some(first) = self.again {
                        // The kernel may name an entry twice; it is taken off, so that it counts once.
                        let Some(left) = self.suspects.remove(&held.key) else { continue };
                        self.carries_traffic |= was_refreshed(left, held.timeout, now.since(first));
                    }
                    if self.unknown.len() < SUSPECTS_MAX {
                        self.unknown.push((held.key, held.timeout));
                    }
                }
            }
        }
    }

    fn sweep(&mut self, now: Instant, from: u32, engine: &mut impl Audited, journal: &mut Journal) {
        let repair = self.repairs();
        let Some(inspector) = self.parts.inspector.as_deref() else { return };
        // The second reading was for the unknown ones: the table has been swept by the first.
        if self.again.is_none() {
            self.findings.missing += u64::from(engine.audit_missing(from, now, repair, inspector));
            let next = from.saturating_add(SLOTS_PER_TURN);
            if next < engine.slots() {
                self.phase = Phase::Sweeping { from: next };
                return;
            }
            if !self.unknown.is_empty() {
                self.suspects = self.unknown.drain(..).collect();
                (self.again, self.phase, self.next_at) = (Some(now), Phase::Idle, now + SETTLE);
                return;
            }
        }
        self.findings.extra = self.unknown.len() as u64;
        if self.findings.extra > 0 && repair && !self.carries_traffic {
            self.phase = Phase::Removing;
        } else {
            self.conclude(now, journal);
        }
    }

    fn remove(&mut self, now: Instant, engine: &mut impl Audited, drain: &mut Drain, journal: &mut Journal) {
        let stale = self.unknown.len().saturating_sub(REMOVALS_PER_TURN);
        // Whatever has come back since is not ours to remove.
        let keys = self.unknown[stale..].iter().map(|(key, _)| *key).filter(|key| engine.lacks(key));
        let Some(removed) = drain.delete(keys, now, journal) else {
            // The sink has trouble, and has said so.
            self.next_at = now + drain::RETRY;
            return;
        };
        self.counts.removed += removed;
        self.unknown.truncate(stale);
        if self.unknown.is_empty() {
            self.conclude(now, journal);
        }
    }

    fn conclude(&mut self, now: Instant, journal: &mut Journal) {
        let (found, before) = (self.findings, self.last.map(|(findings, _)| findings));
        (self.trouble, self.retry) = (false, RETRY);
        self.counts.audits += 1;
        self.counts.differing += found.differing;
        self.counts.missing += found.missing;
        self.counts.extra += found.extra;
        let wrong = |findings: Option<Findings>| findings.map(|findings| findings.wrong());
        match (found.wrong(), wrong(before)) {
            (0, Some(0)) => {}
            (0, _) => {
                let text = format!("the kernel holds what was written to it: {} entries", found.entries);
                journal.note(now, Weight::Notice, "KernelVerified", text);
            }
            _ if before.is_some_and(|before| Findings { entries: found.entries, ..before } == found) => {}
            _ => journal.note(now, Weight::Warning, "KernelDiffers", self.describe(&found)),
        }
        // More stale entries than one audit remembers look the same again and again; the kernel gets emptier of them.
        let fewer =
            |before: Findings| found.wrong() < before.wrong() || (found.has_more() && found.entries < before.entries);
        let less = before.is_none_or(|before| before.wrong() == 0 || fewer(before));
        let soon = (found.wrong() > 0 && less) || std::mem::take(&mut self.hurry);
        let rest = if soon { RECHECK.min(self.parts.orders.interval) } else { self.parts.orders.interval };
        self.last = Some((found, now));
        self.idle(now + rest);
    }

    fn describe(&self, found: &Findings) -> String {
        let Findings { entries, differing, missing, extra } = found;
        let done = match (self.repairs(), self.carries_traffic) {
            (true, false) => "this is repaired",
            (true, true) => {
                "what is missing or other is repaired; nothing is removed, because packets of unknown connections pass \
                 here: this node carries traffic that the group does not replicate"
            }
            (false, _) => "nothing is repaired (audit = \"report\")",
        };
        format!(
            "of the kernel's {entries} entries {differing} are other and {extra} stale; {missing} are missing; {done}"
        )
    }

    fn failed(&mut self, now: Instant, journal: &mut Journal, error: &io::Error) {
        self.counts.errors += 1;
        self.tell(now, journal, &error.to_string());
        self.rest(now);
    }

    /// Says once why no audit comes to its end.
    fn tell(&mut self, now: Instant, journal: &mut Journal, why: &str) {
        if !std::mem::replace(&mut self.trouble, true) {
            journal.note(now, Weight::Warning, "AuditFailed", format!("the kernel cannot be read back: {why}"));
        }
    }

    /// An audit came to nothing.
    fn rest(&mut self, now: Instant) {
        let rest = self.retry.min(self.parts.orders.interval);
        self.retry = rest * 2;
        self.idle(now + rest);
    }

    /// When the loop must look although nothing was ready.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        (self.enabled() && self.proof.is_some()).then_some(self.next_at)
    }

    /// How large the kernel's table is; `None` where there is none.
    pub(crate) fn room(&self) -> Option<io::Result<Room>> {
        self.parts.inspector.as_ref().map(|inspector| inspector.room())
    }

    /// What the last audit found; `None` before there was one.
    pub(crate) fn verified(&self, now: Instant) -> Option<KernelVerified> {
        let (Findings { entries, differing, missing, extra }, at) = self.last?;
        Some(KernelVerified { entries, differing, missing, extra, age_s: now.since(at).as_secs_f64() })
    }

    /// What came of all audits.
    pub(crate) fn counters(&self) -> [(&'static str, u64); 7] {
        [
            ("audits", self.counts.audits),
            ("audits_given_up", self.counts.given_up),
            ("audit_errors", self.counts.errors),
            ("audit_differing", self.counts.differing),
            ("audit_missing", self.counts.missing),
            ("audit_extra", self.counts.extra),
            ("audit_removed", self.counts.removed),
        ]
    }
}

/// Whether an entry that had `before` seconds left, at least `elapsed` ago, has seen a packet since: its clock, told in whole
/// seconds, runs down otherwise.
fn was_refreshed(before: u32, after: u32, elapsed: Duration) -> bool {
    u64::from(after) > u64::from(before).saturating_sub(elapsed.as_secs()) + 1
}

#[cfg(test)]
mod tests;
