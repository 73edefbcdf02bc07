//! What must be true at every step, and what must come true when the storm is over. None of it believes the engine's word
//! where it can look itself: tables are compared by content, kernels too.

use super::world::{Dump, World};
use super::*;
use crate::flow::attribute;
use std::hash::{DefaultHasher, Hash, Hasher};

/// What a frame that is refused must leave as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Glance {
    role: Role,
    digest: u64,
    entries: u32,
    term: u64,
    cold: bool,
    refused: u64,
    repair_deletes: u64,
}

impl Glance {
    pub(super) fn at(engine: &Engine) -> Glance {
        Glance {
            role: engine.role(),
            digest: engine.table.digest(),
            entries: engine.table.len(),
            term: engine.term,
            cold: engine.cold,
            refused: engine.drops.iter().map(|(_, count)| count).sum(),
            repair_deletes: engine.counters.repair_deletes,
        }
    }

    /// [1.2.1] [3.2.4]
    pub(super) fn assert_refused(&self, before: &Glance) {
        let deaf = matches!(before.role, Role::Init | Role::Fault | Role::None);
        let expected = Glance { refused: before.refused + u64::from(!deaf), ..*before };
        assert_eq!(*self, expected, "a damaged frame is not refused, or changes something");
    }
}

/// A flow as far as tables must agree on it: time-outs and counters aside.
fn agreed(mut flow: Flow) -> Flow {
    flow.timeout = 0;
    flow.attributes.remove(attribute::COUNTERS);
    flow
}

/// Keys and values in no order: equal sums, equal content.
fn content(flows: impl Iterator<Item = Flow>) -> (u64, u64) {
    let hash = |flow: Flow| {
        let mut hasher = DefaultHasher::new();
        agreed(flow).hash(&mut hasher);
        hasher.finish()
    };
    flows.fold((0, 0), |(sum, count), flow| (sum.wrapping_add(hash(flow)), count + 1))
}

fn table(engine: &Engine, now: Instant) -> BTreeMap<FlowKey, Flow> {
    engine.flows(now).map(|flow| (flow.key, agreed(flow))).collect()
}

/// Fails with the first keys that differ.
fn assert_same(what: &str, one: &BTreeMap<FlowKey, Flow>, other: &BTreeMap<FlowKey, Flow>) {
    let keys = one.keys().chain(other.keys().filter(|key| !one.contains_key(key)));
    let of = |flows: &BTreeMap<FlowKey, Flow>, key| flows.get(key).cloned().map(agreed);
    let different: Vec<_> = keys
        .filter(|key| of(one, key) != of(other, key))
        .take(5)
        .map(|key| (key.to_string(), of(one, key), of(other, key)))
        .collect();
    assert!(different.is_empty(), "{what}: {} against {} flows, {different:?}", one.len(), other.len());
}

impl World<'_> {
    /// Safety, after every step.
    pub(super) fn check(&mut self) {
        self.check_rivals();
        if !self.dice.chance(60) {
            return;
        }
        let thorough = self.dice.chance(20);
        for at in 0..self.seats.len() {
            self.check_kernel(at);
            self.check_in_sync(at);
            if thorough && let Some(engine) = self.engine(at) {
                engine.table.assert_consistent();
            }
        }
    }

    /// The node that `at` follows, if it is still the master that it was.
    fn followed_by(&self, at: usize) -> Option<usize> {
        let stream = self.engine(at)?.inbox.stream()?;
        let is_it = |other: &usize| {
            self.engine(*other).is_some_and(|engine| {
                (engine.config.node, engine.incarnation, engine.term) == (stream.node, stream.incarnation, stream.term)
                    && engine.role() == Role::Master
            })
        };
        (0..self.seats.len()).find(is_it)
    }

    /// [1.1.2] Who says "in sync" at the master's last frame holds what the master holds.
    fn check_in_sync(&self, at: usize) {
        let (Some(engine), Some(master)) = (self.engine(at), self.followed_by(at)) else { return };
        let Some(master_engine) = self.engine(master) else { return };
        let settled = master_engine.table.pending() == 0 && engine.inbox.frontier() == master_engine.outbox.seq();
        if engine.sync_state() != SyncState::InSync || !settled {
            return;
        }
        if content(engine.flows(self.now)) != content(master_engine.flows(self.now)) {
            let what = format!("node {} says that it is in sync with node {}", at + 1, master + 1);
            assert_same(&what, &table(engine, self.now), &table(master_engine, self.now));
        }
    }

    /// A sink that was told everything holds the table.
    fn check_kernel(&self, at: usize) {
        let Some(engine) = self.engine(at) else { return };
        let seat = &self.seats[at];
        if engine.table.unapplied() > 0 || !seat.hand.is_empty() {
            return;
        }
        if content(engine.flows(self.now)) != content(seat.kernel.values().cloned()) {
            assert_same(&format!("table and kernel of node {}", at + 1), &table(engine, self.now), &seat.kernel);
        }
    }

    /// [5.4.1] Two nodes that hear each other are not both master for longer than three intervals and what establishing takes.
    fn check_rivals(&mut self) {
        let masters = self.masters();
        let (now, bound) = (self.now, self.climate.interval * 5 + Duration::from_millis(20));
        let mut rivals = BTreeMap::new();
        for (nth, &one) in masters.iter().enumerate() {
            for &other in &masters[nth + 1..] {
                let since = self.rivals_since.get(&(one, other)).copied().unwrap_or(now);
                let hindered = self.hindered_at[one][other].max(self.hindered_at[other][one]);
                let since = if self.cut[one][other] || self.cut[other][one] { now } else { since.max(hindered) };
                assert!(now.since(since) <= bound, "nodes {} and {} stay master together", one + 1, other + 1);
                rivals.insert((one, other), since);
            }
        }
        self.rivals_since = rivals;
    }

    /// [1.5.2] A node that is not cold deletes nothing because a cold master, which knows nothing, did not name it.
    pub(super) fn check_deletes(&self, at: usize, before: &Glance, after: &Glance) {
        if after.repair_deletes == before.repair_deletes || before.cold {
            return;
        }
        let Some(master) = self.followed_by(at).and_then(|master| self.engine(master)) else { return };
        assert!(!master.cold, "node {} deletes what its cold master did not name", at + 1);
    }

    /// [1.1.1] Everybody agrees, and everybody has proven it.
    pub(super) fn settled(&self) -> Result<(), String> {
        let masters = self.masters();
        let [master] = masters[..] else { return Err(format!("masters {masters:?}")) };
        for at in 0..self.seats.len() {
            let Some(engine) = self.engine(at) else { return Err(format!("node {} is dead", at + 1)) };
            if at == master {
                if self.seats[at].dump != Dump::Live {
                    return Err("a dump runs".into());
                }
                if engine.table.pending() > 0 || engine.cold {
                    return Err(format!(
                        "master {} has {} to send, cold {}",
                        at + 1,
                        engine.table.pending(),
                        engine.cold
                    ));
                }
                continue;
            }
            let status = engine.status();
            if (status.role, status.sync, status.master)
                != (Role::Backup, SyncState::InSync, Some(NodeId(master as u32 + 1)))
            {
                let holes = (status.frontier, status.buckets_unproven, engine.repair.pull_at());
                return Err(format!(
                    "node {} is {:?} {:?} of {:?}, {holes:?}",
                    at + 1,
                    status.role,
                    status.sync,
                    status.master
                ));
            }
            if engine.table.unapplied() > 0 {
                return Err(format!("node {} has not written all", at + 1));
            }
        }
        Ok(())
    }

    /// The last word: tables, digests and kernels are equal, and hold what the traffic believes to exist.
    pub(super) fn check_all_equal(&self) {
        let [master] = self.masters()[..] else { panic!("no master") };
        let engine = self.engine(master).unwrap();
        let reference = table(engine, self.now);
        for at in 0..self.seats.len() {
            self.check_kernel(at);
            let other = self.engine(at).unwrap();
            other.table.assert_consistent();
            assert_same(
                &format!("tables of node {} and master {}", at + 1, master + 1),
                &table(other, self.now),
                &reference,
            );
            assert_eq!(other.table.digest(), engine.table.digest(), "digest of node {}", at + 1);
        }
        if self.climate.gentle {
            for (key, expected) in &self.truth {
                let held = reference.get(key).map(|flow| flow.mark);
                assert_eq!(
                    held,
                    expected.as_ref().map(|flow| flow.mark),
                    "{key} is not what the traffic says since {:?}",
                    self.changed_at[key]
                );
            }
        }
    }
}
