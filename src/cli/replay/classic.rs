//! One group of a recording in the classic profile, followed by the daemon's engine for it as a backup.
//!
//! ```text
//!   recorded message ──▶ ClassicEngine, a backup ──▶ table ──▶ dies of age, by the time of the recording
//! ```
//!
//! Nothing can be proven here: messages have no numbers, nobody acknowledges them, and no digest says what the master holds.
//! A master says everything anew within half a minute, so a recording that is longer than that has heard of every flow.

use crate::engine::{ClassicConfig, ClassicEngine, REFRESH_PERIOD};
use crate::flow::Flow;
use crate::time::{Duration, Instant};
use crate::wire::{FrameMeta, NodeId, TTL};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The node that follows; a number that nobody gives to a machine.
const OWN_NODE: NodeId = NodeId(u32::MAX - 1);
/// Where the engine's time begins.
const START: Instant = Instant::from_nanos(1_000_000_000);
/// Looks at the table for one gap in the recording; what is older than its time-out is not shown in any case.
const STEPS_MAX: usize = 100_000;

/// One group that is being followed.
pub(super) struct ClassicSession {
    engine: ClassicEngine,
    now: Instant,
    first: Option<Duration>,
    last: Duration,
    frames: u64,
    /// Messages that have crossed a router.
    far: u64,
}

impl ClassicSession {
    /// Follows group `sync_id` with a table of so many flows.
    pub(super) fn new(sync_id: u8, capacity: u32) -> Self {
        let config = ClassicConfig {
            node: OWN_NODE,
            sync_id,
            capacity,
            batch_delay: Duration::from_millis(1),
            seed: 1,
            own_addresses: Vec::new(),
        };
        let mut engine = ClassicEngine::new(config, START);
        engine.handle_link(START, true);
        let (first, last) = (None, Duration::ZERO);
        ClassicSession { engine, now: START, first, last, frames: 0, far: 0 }
    }

    /// Shows the engine one message, seen so long after the start of the recording.
    pub(super) fn take(&mut self, time: Duration, source: IpAddr, ttl: u8, message: &[u8]) {
        self.pass(time);
        self.first.get_or_insert(time);
        self.frames += 1;
        if ttl != TTL {
            // A node's transport refuses it.
            self.far += 1;
            return;
        }
        self.engine.handle_frame(self.now, FrameMeta { link: 0, source }, message);
    }

    /// Lets time pass until so long after the start of the recording; what is too old by then dies.
    pub(super) fn pass(&mut self, time: Duration) {
        self.last = self.last.max(time);
        let target = START + self.last;
        for _ in 0..STEPS_MAX {
            let Some(due) = self.engine.poll_timeout().filter(|due| *due < target) else { break };
            self.now = self.now.max(due);
            self.engine.handle_timeout(self.now);
        }
        self.now = target;
    }

    /// The table. A flow whose time is over and that nobody has looked at since is not in it.
    pub(super) fn flows(&self) -> impl Iterator<Item = Flow> {
        self.engine.flows_in(0..self.engine.slots(), self.now).filter(|flow| flow.timeout > 0)
    }

    /// Why this table may not be the master's.
    pub(super) fn unproven(&self) -> String {
        let mut text =
            "the classic profile has no numbers and no digest: that no message is missing cannot be proven".to_owned();
        let heard = self.last.saturating_sub(self.first.unwrap_or(self.last));
        if heard < REFRESH_PERIOD {
            let (heard, period) = (heard.as_secs(), REFRESH_PERIOD.as_secs());
            text += &format!("; it was recorded for {heard} s, and a master says everything within {period} s");
        }
        text
    }

    /// How it went, in one line.
    pub(super) fn words(&self) -> String {
        let mut text =
            format!("classic: {} messages, {} flows: {}", self.frames, self.flows().count(), self.unproven());
        for (name, count) in self.drops() {
            text += &format!("; {count} × {name}");
        }
        text
    }

    /// How it went, as JSON; what the profile does not have is zero or null.
    pub(super) fn json(&self) -> Value {
        json!({
            "profile": "classic",
            "frames": self.frames,
            "entries": self.flows().count(),
            "master": null,
            "term": 0,
            "digest": null,
            "proven": false,
            "reason": self.unproven(),
            "refused": self.drops().collect::<BTreeMap<_, _>>(),
        })
    }

    /// Messages that were refused, and records that were stepped over, by reason.
    fn drops(&self) -> impl Iterator<Item = (String, u64)> {
        let counted = self.engine.status().counters.into_iter();
        let drops = counted.filter_map(|(name, count)| match name.as_str() {
            "records_unknown" | "table_full" => Some((name, count)),
            _ => name.strip_prefix("drop_").map(|name| (name.to_owned(), count)),
        });
        drops.chain([("ttl".to_owned(), self.far)]).filter(|(_, count)| *count > 0)
    }
}
