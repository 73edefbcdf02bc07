//! Sizes that hold at every moment, and what must be true when all faults are over.
//!
//! ```text
//!   at every moment     pending ≤ capacity, entries ≤ capacity, events of a turn ≤ 256
//!   in the quiet        frames of a node ≤ 4 in an ADVERT interval, and 16
//!   at the end          one master; all others follow it, are in sync, and hold what it holds, flow by flow; every kernel
//!                       holds what its table holds; no ticket is open
//! ```

use super::{End, Oracle};
use crate::engine::{Engine, Role, SyncState};
use crate::flow::{Flow, FlowKey, Section, SectionKey};
use crate::time::Instant;
use std::collections::BTreeMap;

/// A turn yields no more events than an engine keeps.
const EVENTS_OF_A_TURN_MAX: usize = 256;
/// Every how many turns an engine is asked for its sizes: the answer allocates.
const TURNS_BETWEEN: u64 = 64;
/// Frames of a node in one ADVERT interval when nothing happens: its ADVERT, and what it may answer.
const QUIET_FRAMES: u64 = 4;
/// Frames that may be on their way when the quiet begins.
const QUIET_START: u64 = 16;

/// A table for people to compare, without what time changes.
type Flows = BTreeMap<FlowKey, Flow>;

impl Oracle {
    pub(super) fn judge_bounds(&mut self, now: Instant, at: usize, engine: &Engine) {
        let node = &mut self.nodes[at];
        let Some(config) = &node.config else { return };
        let (events, capacity) =
            (core::mem::take(&mut node.events), u64::from(config.capacity) + u64::from(config.sections));
        node.turns += 1;
        if events > EVENTS_OF_A_TURN_MAX {
            self.broken(now, "bounds", format!("node {at} yielded {events} events in a turn"));
        } else if node.turns.is_multiple_of(TURNS_BETWEEN) {
            let status = engine.status();
            self.judge_sizes(
                now,
                at,
                (status.entries, status.pending, status.annex_used),
                (capacity, status.annex_blocks),
            );
        }
    }

    pub(super) fn judge_sizes(
        &mut self,
        now: Instant,
        at: usize,
        (entries, pending, annex): (u64, u64, u64),
        (capacity, blocks): (u64, u64),
    ) {
        if entries > capacity || pending > capacity || annex > blocks {
            let text = format!(
                "node {at} has {entries} entries, {pending} records that wait and {annex} blocks in use; room is for {capacity}, \
                 as many, and {blocks}"
            );
            self.broken(now, "bounds", text);
        }
    }

    pub(super) fn judge_end(&mut self, now: Instant, ends: &[End<'_>]) {
        self.judge_quiet(now, ends);
        let masters: Vec<&End<'_>> = ends.iter().filter(|end| end.engine.role() == Role::Master).collect();
        let [master] = masters[..] else {
            let roles: Vec<_> = ends.iter().map(|end| (end.node, end.engine.role().name())).collect();
            return self.broken(now, "one-master", format!("at the end the roles are {roles:?}"));
        };
        let expected = flows(master.engine.flows(now));
        let sections = sections(master.engine, now);
        for end in ends {
            let node = end.node;
            if node != master.node {
                let follows = self.nodes[node].following.and_then(|stream| self.sent.streams.get(&stream));
                if follows.is_none_or(|stream| stream.master != master.node) {
                    let text =
                        format!("node {node} follows {:?}; node {} is master", self.nodes[node].following, master.node);
                    return self.broken(now, "all-follow", text);
                }
                let state = end.engine.sync_state();
                if state != SyncState::InSync {
                    return self.broken(now, "all-in-sync", format!("at the end node {node} is {}", state.name()));
                }
                let held = flows(end.engine.flows(now));
                self.judge_equal(
                    now,
                    "equal-tables",
                    &format!("node {node} and its master {}", master.node),
                    &held,
                    &expected,
                );
                let held = self::sections(end.engine, now);
                self.judge_equal(now, "equal-sections", &format!("node {node} and its master"), &held, &sections);
            }
            if let Some(kernel) = &end.kernel {
                let (kernel, held) = (flows(kernel.iter().cloned()), flows(end.engine.flows(now)));
                let who = format!("the kernel of node {node} and its table");
                self.judge_equal(now, "kernel-is-table", &who, &kernel, &held);
            }
            self.compare_whole(now, node, end.engine, None);
        }
        // A dump submits until the end: what is not due yet may be open.
        ends.iter().for_each(|end| self.judge_deadlines(now, end.node));
    }

    fn judge_quiet(&mut self, now: Instant, ends: &[End<'_>]) {
        let Some(since) = self.quiet_since else { return };
        for end in ends {
            let node = &self.nodes[end.node];
            let Some(config) = &node.config else { continue };
            let intervals = (now.since(since).as_nanos() / config.advert_interval.as_nanos().max(1)) as u64;
            let (sent, allowed) = (node.sent, QUIET_START + QUIET_FRAMES * (intervals + 1));
            if sent > allowed {
                let text = format!(
                    "node {} sent {sent} frames in {intervals} quiet intervals; {allowed} are plenty",
                    end.node
                );
                return self.broken(now, "quiet", text);
            }
        }
    }

    fn judge_equal<K: Ord + core::fmt::Debug, V: PartialEq + core::fmt::Debug>(
        &mut self,
        now: Instant,
        rule: &'static str,
        who: &str,
        held: &BTreeMap<K, V>,
        expected: &BTreeMap<K, V>,
    ) {
        let missing = expected.keys().filter(|key| !held.contains_key(key)).count();
        let extra = held.keys().filter(|key| !expected.contains_key(key)).count();
        let differs = |(key, value): &(&K, &V)| held.get(key) != Some(value);
        let stale = expected.iter().filter(differs).count() - missing;
        if missing + extra + stale == 0 {
            return;
        }
        let first = expected.iter().find(differs).map(|(key, _)| key);
        let key = first.or_else(|| held.keys().find(|key| !expected.contains_key(key)));
        let both = key.map(|key| (key, held.get(key), expected.get(key)));
        let text = format!("{who}: {missing} missing, {extra} extra, {stale} stale; as {both:?}");
        self.broken(now, rule, text);
    }
}

fn flows(flows: impl Iterator<Item = Flow>) -> Flows {
    let plain = |flow: Flow| {
        let mut plain = Flow { timeout: 0, ..flow.canonical() };
        plain.attributes.remove(crate::flow::attribute::COUNTERS);
        (plain.key, plain)
    };
    flows.map(plain).collect()
}

fn sections(engine: &Engine, now: Instant) -> BTreeMap<SectionKey, Box<[u8]>> {
    engine.sections(now).map(|Section { key, value, .. }| (key, value)).collect()
}
