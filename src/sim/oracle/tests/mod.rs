//! Each check is fed a lie that must make it fire, and the truth, at which it must stay silent. Two or three engines, a
//! network without delay, and now and then an impostor: another engine in the place of the one that is watched.

mod heed;
mod mastership;
mod merge;
mod roles;

use super::*;
use crate::engine::{Role, SyncState};
use crate::flow::{Zone, protocol};
use crate::time::Duration;
use crate::wire::{DataWriter, Frame, FrameMeta, Header, Kind, NodeId};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

const META: FrameMeta = FrameMeta { link: 0, source: IpAddr::V4(Ipv4Addr::LOCALHOST) };

fn flow(number: u16, mark: u32) -> Flow {
    let address = |last| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last));
    let key = FlowKey {
        source: address(1),
        destination: address(2),
        source_port: number,
        destination_port: 443,
        protocol: protocol::TCP,
        zone: Zone::DEFAULT,
    };
    Flow { state: 3, timeout: 600, mark, ..Flow::new(key) }
}

fn config(number: usize) -> Config {
    Config {
        incarnation: 100 + number as u64,
        seed: 7 + number as u64,
        capacity: 1000,
        history: 16,
        frame_len: 1208,
        members: Some(2),
        priority: if number == 0 { 150 } else { 100 },
        preempt: false,
        ..Config::new(NodeId(1 + number as u32), 51)
    }
}

/// Decides whether a frame reaches a node.
type Passes = fn(usize, &[u8]) -> bool;

/// Engines, who watches them, and what their kernels hold.
struct Stage {
    now: Instant,
    engines: Vec<Engine>,
    kernels: Vec<BTreeMap<FlowKey, Flow>>,
    oracle: Oracle,
    passes: Passes,
    /// Every frame that left.
    sent: Vec<(usize, Vec<u8>)>,
}

fn data(bytes: &[u8]) -> Option<Header> {
    let header = Frame::parse(bytes).expect("valid").header();
    (header.kind == Kind::DATA).then_some(header)
}

impl Stage {
    fn new(nodes: usize) -> Stage {
        let now = Instant::from_nanos(1_000_000_000);
        let mut oracle = Oracle::new(nodes);
        let mut engines = Vec::new();
        for number in 0..nodes {
            let mut engine = Engine::new(config(number), now).expect("valid");
            oracle.started(now, number, &engine, &config(number));
            engine.handle_link(now, true);
            engines.push(engine);
        }
        let kernels = vec![BTreeMap::new(); nodes];
        Stage { now, engines, kernels, oracle, passes: |_, _| true, sent: Vec::new() }
    }

    /// A pair: node 0 is master of 20 flows, node 1 is in sync.
    fn pair() -> Stage {
        let mut stage = Stage::new(2);
        stage.run(1000);
        assert_eq!((stage.engines[0].role(), stage.engines[1].role()), (Role::Master, Role::Backup));
        stage.dump();
        (0..20).for_each(|number| stage.update(Change::Upsert(flow(number, 1))));
        stage.run(1000);
        assert_eq!(stage.engines[1].sync_state(), SyncState::InSync);
        stage.is_silent();
        stage
    }

    fn run(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds / 5 {
            self.now += Duration::from_millis(5);
            (0..self.engines.len()).for_each(|node| self.turn(node));
        }
    }

    fn turn(&mut self, node: usize) {
        let now = self.now;
        let engine = &mut self.engines[node];
        engine.handle_timeout(now);
        self.oracle.turned(now, node, engine);
        let mut batch = Vec::new();
        engine.poll_applied(now, &mut batch, usize::MAX);
        for change in batch {
            self.oracle.applied(now, node, engine, &change);
            match change {
                Change::Upsert(flow) => drop(self.kernels[node].insert(flow.key, flow)),
                Change::Delete(key) => drop(self.kernels[node].remove(&key)),
            }
        }
        engine.handle_committed(now);
        while let Some(event) = engine.poll_event() {
            self.oracle.event(now, node, engine, &event);
        }
        self.oracle.fetched(now, node);
        self.transmit(node);
        self.oracle.turned(now, node, &self.engines[node]);
    }

    fn transmit(&mut self, node: usize) {
        let mut slot = [0; 1208];
        while let Some(length) = self.engines[node].poll_transmit(self.now, &mut slot) {
            let bytes = slot[..length].to_vec();
            self.oracle.sent(self.now, node, &self.engines[node], &bytes);
            self.sent.push((node, bytes.clone()));
            for to in (0..self.engines.len()).filter(|to| *to != node) {
                if (self.passes)(to, &bytes) {
                    self.hand_in(to, &bytes);
                }
            }
        }
    }

    fn hand_in(&mut self, to: usize, bytes: &[u8]) {
        let mut lent = bytes.to_vec();
        self.oracle.before_frame(self.now, to, &self.engines[to], bytes);
        self.engines[to].handle_frame(self.now, META, &mut lent);
        self.oracle.after_frame(self.now, to, &self.engines[to]);
    }

    /// Node 0's source speaks.
    fn update(&mut self, change: Change) {
        self.engines[0].update(self.now, &change).expect("master");
        self.oracle.updated(self.now, 0, &self.engines[0], &change, None);
        match change {
            Change::Upsert(flow) => drop(self.kernels[0].insert(flow.key, flow)),
            Change::Delete(key) => drop(self.kernels[0].remove(&key)),
        }
    }

    fn dump(&mut self) {
        self.engines[0].begin_dump(self.now);
        self.oracle.dump_began(self.now, 0, &self.engines[0]);
        let flows: Vec<Flow> = self.kernels[0].values().cloned().collect();
        flows.into_iter().for_each(|flow| self.update(Change::Upsert(flow)));
        self.engines[0].end_dump(self.now);
        self.oracle.dumped(self.now, 0, &self.engines[0]);
    }

    /// Sends a change, and keeps its frame from node 1.
    fn lose(&mut self, change: Change) -> Vec<u8> {
        self.update(change);
        self.passes = |_, bytes| data(bytes).is_none();
        self.now += Duration::from_millis(5);
        self.transmit(0);
        self.passes = |_, _| true;
        let lost = self.sent.iter().rev().find(|(_, bytes)| data(bytes).is_some()).expect("sent");
        lost.1.clone()
    }

    fn end(&mut self) {
        let now = self.now;
        let ends: Vec<End<'_>> = self
            .engines
            .iter()
            .enumerate()
            .map(|(node, engine)| End { node, engine, kernel: Some(self.kernels[node].values().cloned().collect()) })
            .collect();
        self.oracle.ended(now, &ends);
    }

    #[track_caller]
    fn is_silent(&self) {
        assert_eq!(self.oracle.violation(), None);
    }

    #[track_caller]
    fn fires(&self, rule: &str) {
        let violation = self.oracle.violation().unwrap_or_else(|| panic!("{rule}: nothing was noticed"));
        assert_eq!(violation.rule, rule, "{}", violation.text);
    }
}

// ---------------------------------------------------------------------- silence

#[test]
fn a_pair_that_works_is_met_with_silence() {
    let mut stage = Stage::pair();
    (0..10).for_each(|number| stage.update(Change::Delete(flow(number, 0).key)));
    (5..40).for_each(|number| stage.update(Change::Upsert(flow(number, 2))));
    stage.run(500);
    stage.kernels[0].remove(&flow(39, 0).key);
    stage.dump();
    stage.run(500);
    stage.oracle.quiet(stage.now);
    stage.run(1000);
    stage.end();
    stage.is_silent();
    assert_eq!(stage.kernels[1].len(), 34);
    assert!(stage.oracle.sightings.contains("proof") && stage.oracle.sightings.contains("reconcile"));
}

#[test]
fn loss_a_hole_and_the_walk_behind_it_are_met_with_silence() {
    let mut stage = Stage::pair();
    for number in 0..30 {
        stage.passes = |_, bytes| data(bytes).is_none() || bytes[8] % 3 == 0;
        stage.update(Change::Upsert(flow(number, 3)));
        stage.run(20);
    }
    // More than the history of 16 frames is lost, and deletes with it: only a walk can find them.
    stage.passes = |to, _| to == 0;
    for number in 0..20 {
        stage.update(Change::Delete(flow(number, 0).key));
        stage.run(5);
    }
    stage.passes = |_, _| true;
    stage.run(3000);
    stage.end();
    stage.is_silent();
    assert!(stage.oracle.sightings.contains("hole") && stage.oracle.sightings.contains("walk-removal"));
}

#[test]
fn frames_in_any_order_and_twice_are_met_with_silence() {
    let mut stage = Stage::pair();
    let first = stage.lose(Change::Upsert(flow(1, 7)));
    let second = stage.lose(Change::Delete(flow(1, 7).key));
    stage.hand_in(1, &second);
    stage.hand_in(1, &first);
    stage.hand_in(1, &first);
    stage.run(500);
    stage.end();
    stage.is_silent();
    assert!(stage.oracle.sightings.contains("tombstone-hit"));
}

#[test]
fn a_master_that_dies_and_comes_back_is_met_with_silence() {
    let mut stage = Stage::pair();
    stage.oracle.stopped(stage.now, 0);
    let restarted = Config { incarnation: 999, ..config(0) };
    let mut engine = Engine::new(restarted.clone(), stage.now).expect("valid");
    engine.handle_link(stage.now, false);
    stage.oracle.started(stage.now, 0, &engine, &restarted);
    stage.engines[0] = engine;
    stage.run(1000);
    assert_eq!(stage.engines[1].role(), Role::Master);
    let now = stage.now;
    stage.engines[1].begin_dump(now);
    stage.oracle.dump_began(now, 1, &stage.engines[1]);
    for flow in stage.kernels[1].values().cloned().collect::<Vec<_>>() {
        stage.engines[1].update(now, &Change::Upsert(flow.clone())).expect("master");
        stage.oracle.updated(now, 1, &stage.engines[1], &Change::Upsert(flow), None);
    }
    stage.engines[1].end_dump(now);
    stage.oracle.dumped(now, 1, &stage.engines[1]);
    stage.engines[0].handle_link(now, true);
    stage.kernels[0].clear();
    stage.run(2000);
    stage.end();
    stage.is_silent();
    assert_eq!(stage.kernels[0].len(), 20);
}

// ---------------------------------------------------------------------- what is said

#[test]
fn a_change_that_the_table_did_not_take_is_noticed() {
    let mut stage = Stage::pair();
    stage.oracle.updated(stage.now, 0, &stage.engines[0], &Change::Upsert(flow(99, 1)), None);
    stage.fires("table-is-source");
}

#[test]
fn a_frame_that_says_what_no_source_said_is_noticed() {
    let mut stage = Stage::pair();
    stage.engines[0].update(stage.now, &Change::Upsert(flow(3, 9))).expect("master");
    stage.run(20);
    stage.fires("stream-is-source");
}

/// A DATA frame of node 0 under the number of the last one and `ahead` more.
fn forged(stage: &Stage, ahead: u64) -> Vec<u8> {
    let last = stage.sent.iter().rev().find_map(|(_, bytes)| data(bytes)).expect("sent");
    written(Header { seq: last.seq + ahead, ..last })
}

/// A DATA frame with one record.
fn written(header: Header) -> Vec<u8> {
    let mut slot = [0; 1208];
    let mut writer = DataWriter::new(&mut slot, header).expect("room");
    writer.push_upsert(&flow(7, 1)).expect("room");
    let length = writer.finish();
    slot[..length].to_vec()
}

#[test]
fn another_content_under_an_old_number_is_noticed() {
    let mut stage = Stage::pair();
    let again = stage.sent.iter().rev().find(|(_, bytes)| data(bytes).is_some()).expect("sent").1.clone();
    stage.oracle.sent(stage.now, 0, &stage.engines[0], &again);
    stage.is_silent();
    let forged = forged(&stage, 0);
    stage.oracle.sent(stage.now, 0, &stage.engines[0], &forged);
    stage.fires("same-bytes");
}

#[test]
fn a_number_that_is_left_out_is_noticed() {
    let mut stage = Stage::pair();
    let forged = forged(&stage, 2);
    stage.oracle.sent(stage.now, 0, &stage.engines[0], &forged);
    stage.fires("numbers");
}

#[test]
fn a_backup_that_sends_data_is_noticed() {
    let mut stage = Stage::pair();
    let last = stage.sent.iter().rev().find_map(|(_, bytes)| data(bytes)).expect("sent");
    let forged = written(Header { node: NodeId(2), incarnation: 101, seq: last.seq + 1, ..last });
    stage.oracle.sent(stage.now, 1, &stage.engines[1], &forged);
    stage.fires("roles");
}

// ---------------------------------------------------------------------- what becomes of it

#[test]
fn a_frame_that_was_not_applied_is_noticed() {
    let mut stage = Stage::pair();
    let lost = stage.lose(Change::Upsert(flow(3, 9)));
    stage.oracle.before_frame(stage.now, 1, &stage.engines[1], &lost);
    stage.oracle.before_frame(stage.now, 1, &stage.engines[1], &lost);
    stage.oracle.after_frame(stage.now, 1, &stage.engines[1]);
    stage.fires("last-word");
}

#[test]
fn a_flow_that_comes_back_after_its_delete_is_noticed() {
    let mut stage = Stage::pair();
    let born = stage.lose(Change::Upsert(flow(50, 1)));
    let died = stage.lose(Change::Delete(flow(50, 1).key));
    // It is told that it took the delete, and never saw it: the older upsert brings the flow to life.
    stage.oracle.before_frame(stage.now, 1, &stage.engines[1], &died);
    stage.oracle.before_frame(stage.now, 1, &stage.engines[1], &died);
    stage.oracle.after_frame(stage.now, 1, &stage.engines[1]);
    stage.is_silent();
    stage.hand_in(1, &born);
    stage.fires("resurrected");
}

#[test]
fn an_old_frame_that_changes_something_is_noticed() {
    let mut stage = Stage::pair();
    let taken = stage.lose(Change::Upsert(flow(3, 9)));
    stage.hand_in(1, &taken);
    stage.is_silent();
    // As if the second copy had made the flow another.
    let key = Name::of_flow(&flow(3, 9).key);
    stage.oracle.nodes[1].shadow.put(stage.now, key, Some(Value::of_flow(&flow(3, 8))), 1);
    stage.hand_in(1, &taken);
    stage.fires("not-followed");
}

#[test]
fn a_frontier_that_passes_a_frame_which_never_came_is_noticed() {
    let mut stage = Stage::pair();
    let lost = stage.lose(Change::Upsert(flow(3, 9)));
    stage.engines[1].handle_frame(stage.now, META, &mut lost.clone());
    stage.oracle.turned(stage.now, 1, &stage.engines[1]);
    stage.fires("frontier");
}

#[test]
fn a_sink_that_is_told_what_nobody_said_is_noticed() {
    let mut stage = Stage::pair();
    stage.oracle.applied(stage.now, 1, &stage.engines[1], &Change::Upsert(flow(3, 9)));
    stage.fires("sink-is-table");
}

#[test]
fn an_entry_that_nobody_said_is_noticed() {
    let mut stage = Stage::pair();
    let key = Name::of_flow(&flow(3, 9).key);
    stage.oracle.nodes[1].shadow.put(stage.now, key, None, 1);
    stage.oracle.compare_whole(stage.now, 1, &stage.engines[1], None);
    stage.fires("nobody-said");
}

#[test]
fn a_live_flow_that_vanishes_is_noticed() {
    let mut stage = Stage::pair();
    let cold = Engine::new(config(1), stage.now).expect("valid");
    let change = Change::Delete(flow(3, 1).key);
    let name = Name::of_flow(&flow(3, 1).key);
    assert_eq!(stage.oracle.held(&cold, name, stage.now), None);
    stage.oracle.judge_applied(stage.now, 1, &cold, name, None);
    stage.fires("live-flow");
    assert_eq!(change.key(), &flow(3, 1).key);
}

#[test]
fn a_walk_may_take_what_its_master_did_not_hold_and_nothing_else() {
    let (living, dead) = (Name::of_flow(&flow(3, 1).key), Name::of_flow(&flow(4, 1).key));
    let mut stage = Stage::pair();
    stage.lose(Change::Delete(flow(4, 1).key));
    stage.oracle.nodes[1].walk = Some(stage.now);
    stage.oracle.removed(stage.now, 1, dead);
    stage.is_silent();
    stage.oracle.removed(stage.now, 1, living);
    stage.fires("live-flow");
}

/// Frame 9 of the walk found no room for it; then frame 9 came again, and nobody can tell whether it was heard.
#[test]
fn a_walk_may_take_what_it_named_in_vain_until_a_word_is_heard_for_sure() {
    for (refused, doubted, fires) in [(true, true, false), (true, false, true), (false, true, true)] {
        let mut stage = Stage::pair();
        let living = Name::of_flow(&flow(3, 1).key);
        let node = &mut stage.oracle.nodes[1];
        node.shadow.put(stage.now, living, Some(Value::of_flow(&flow(3, 1))), 9);
        if refused {
            node.note_refused(living, 9);
        }
        if doubted {
            node.shadow.doubt(living);
        }
        node.walk = Some(stage.now);
        stage.oracle.removed(stage.now, 1, living);
        if fires { stage.fires("live-flow") } else { stage.is_silent() }
    }
}

/// Frame 9 brings it, at last, and lets the frontier pass the end of a walk that had named it in vain.
#[test]
fn what_a_late_frame_brings_a_walk_may_take_if_it_was_named_in_vain_and_not_otherwise() {
    for (refused, passed, walked, fires) in [
        (true, true, true, None),
        (false, true, true, Some("live-flow")),
        (true, false, true, Some("last-word")),
        (true, true, false, Some("last-word")),
    ] {
        let mut stage = Stage::pair();
        let (name, value) = (Name::of_flow(&flow(99, 1).key), Value::of_flow(&flow(99, 1)));
        // Its master holds it, and has done so for long.
        stage.oracle.nodes[0].shadow.put(Instant::ZERO, name, Some(value), 0);
        let node = &mut stage.oracle.nodes[1];
        (node.frontier, node.walk) = (if passed { 12 } else { 8 }, walked.then_some(stage.now));
        if refused {
            node.note_refused(name, 10);
        }
        stage.oracle.judge_word(stage.now, 1, &stage.engines[1], (name, Some(value), 9), false);
        assert_eq!(stage.oracle.violation().map(|it| it.rule), fires);
    }
}

// ---------------------------------------------------------------------- claims

#[test]
fn in_sync_with_another_table_is_noticed() {
    let mut stage = Stage::pair();
    // The master has said one entry more than anybody knows of.
    let extra = flow(77, 1);
    let saying = stage.oracle.nodes[0].saying.as_mut().expect("master");
    saying.say(Name::of_flow(&extra.key), Some(Value::of_flow(&extra)));
    stage.update(Change::Upsert(flow(3, 5)));
    stage.run(5);
    stage.fires("in-sync");
}

#[test]
fn a_digest_that_is_called_valid_while_changes_wait_is_noticed() {
    let mut stage = Stage::pair();
    let unsaid = flow(77, 1);
    stage.oracle.nodes[0].shadow.put(stage.now, Name::of_flow(&unsaid.key), Some(Value::of_flow(&unsaid)), 0);
    stage.oracle.nodes[0].work = 0;
    stage.run(200);
    stage.fires("digest-valid");
}

#[test]
fn a_proof_is_lost_for_a_reason_only() {
    let mut stage = Stage::pair();
    let event = Event::Diverged { buckets: 7 };
    stage.oracle.nodes[1].doubted_at = Some(stage.now);
    stage.oracle.event(stage.now, 1, &stage.engines[1], &event);
    stage.is_silent();
    stage.oracle.nodes[1].doubted_at = None;
    stage.oracle.event(stage.now, 1, &stage.engines[1], &event);
    stage.fires("diverged");
}

#[test]
fn what_was_not_made_good_when_the_stream_was_left_is_a_reason_and_what_was_is_none() {
    for (settled_after, fires) in [(0, false), (1, true)] {
        let mut stage = Stage::pair();
        let node = &mut stage.oracle.nodes[1];
        node.doubted_at = Some(stage.now);
        node.settled_at = stage.now + Duration::from_millis(settled_after);
        stage.now += Duration::from_secs(5);
        stage.engines[1].set_role(stage.now, crate::engine::RoleRequest::None);
        stage.oracle.look(stage.now, 1, &stage.engines[1]);
        stage.oracle.judge_event(stage.now, 1, &Event::Diverged { buckets: 7 });
        if fires { stage.fires("diverged") } else { stage.is_silent() }
    }
}

// ---------------------------------------------------------------------- tickets

impl Stage {
    fn submit(&mut self, ticket: u64, number: u16, ack: Ack) {
        let change = Change::Upsert(flow(number, 4));
        self.engines[0].update(self.now, &change).expect("master");
        self.oracle.updated(self.now, 0, &self.engines[0], &change, Some((Ticket(ticket), ack)));
    }
}

#[test]
fn acknowledged_and_nowhere_present_is_noticed() {
    let mut stage = Stage::pair();
    stage.submit(1, 3, Ack::None);
    stage.oracle.resolved(stage.now, 0, Ticket(1), Ok(()));
    stage.submit(2, 4, Ack::One);
    stage.run(50);
    stage.oracle.resolved(stage.now, 0, Ticket(2), Ok(()));
    stage.is_silent();
    stage.submit(3, 5, Ack::One);
    stage.oracle.resolved(stage.now, 0, Ticket(3), Ok(()));
    stage.fires("acknowledged");
}

#[test]
fn all_and_a_quorum_count_the_members() {
    for (ack, fires) in [(Ack::One, false), (Ack::Quorum, false), (Ack::All, true)] {
        let mut stage = Stage::pair();
        stage.oracle.nodes[0].config.as_mut().expect("runs").members = Some(3);
        stage.submit(1, 3, ack);
        stage.run(50);
        stage.oracle.resolved(stage.now, 0, Ticket(1), Ok(()));
        if fires { stage.fires("acknowledged") } else { stage.is_silent() }
    }
}

#[test]
fn what_a_peer_held_when_it_died_counts() {
    let mut stage = Stage::pair();
    stage.submit(1, 3, Ack::One);
    stage.run(50);
    stage.oracle.stopped(stage.now, 1);
    stage.oracle.resolved(stage.now, 0, Ticket(1), Ok(()));
    stage.is_silent();
}

/// Whether nobody has a reason to object when the ticket of this submission resolves well, while what node 0 sends after it
/// is lost.
fn may_be_acknowledged(before: &[Change], submitted: &Change, after: &[Change]) -> bool {
    let mut stage = Stage::pair();
    stage.passes = |_, bytes| data(bytes).is_none();
    before.iter().for_each(|change| stage.update(change.clone()));
    stage.engines[0].update(stage.now, submitted).expect("master");
    stage.oracle.updated(stage.now, 0, &stage.engines[0], submitted, Some((Ticket(1), Ack::One)));
    for change in after {
        stage.update(change.clone());
    }
    stage.now += Duration::from_millis(5);
    stage.transmit(0);
    stage.oracle.resolved(stage.now, 0, Ticket(1), Ok(()));
    stage.oracle.violation().is_none()
}

/// Node 1 holds flow 3 with mark 1, and nothing of flow 33.
#[test]
fn what_changes_nothing_and_what_is_cancelled_is_held_by_whoever_holds_what_was_said() {
    let (upsert, delete) =
        (|number, mark| Change::Upsert(flow(number, mark)), |number| Change::Delete(flow(number, 0).key));
    assert!(may_be_acknowledged(&[], &upsert(3, 1), &[]), "said already, and held");
    assert!(may_be_acknowledged(&[], &upsert(3, 1), &[upsert(3, 2)]), "what comes later need not be held");
    assert!(may_be_acknowledged(&[], &delete(33), &[]), "nobody ever heard of it");
    assert!(may_be_acknowledged(&[], &upsert(33, 1), &[delete(33)]), "cancelled before it left");
    assert!(may_be_acknowledged(&[upsert(3, 2)], &upsert(3, 1), &[]), "back to what is held");
    assert!(!may_be_acknowledged(&[upsert(3, 2)], &upsert(3, 2), &[]), "changes nothing here, and is on its way");
    assert!(!may_be_acknowledged(&[], &upsert(33, 1), &[]), "not held");
    assert!(!may_be_acknowledged(&[], &delete(3), &[]), "still held");
}

/// Its word of it is still on its way when the same is submitted once more.
#[test]
fn who_left_with_the_very_table_counts_for_what_changes_nothing_and_for_nothing_else() {
    for (number, mark, fires) in [(3, 1, false), (3, 2, true), (33, 1, true)] {
        let mut stage = Stage::pair();
        stage.oracle.stopped(stage.now, 1);
        let change = Change::Upsert(flow(number, mark));
        stage.engines[0].update(stage.now, &change).expect("master");
        stage.oracle.updated(stage.now, 0, &stage.engines[0], &change, Some((Ticket(1), Ack::One)));
        stage.oracle.resolved(stage.now, 0, Ticket(1), Ok(()));
        if fires { stage.fires("acknowledged") } else { stage.is_silent() }
    }
}

#[test]
fn a_newer_word_counts_for_an_older_one() {
    let mut stage = Stage::pair();
    stage.submit(1, 3, Ack::One);
    stage.update(Change::Delete(flow(3, 0).key));
    stage.run(50);
    stage.oracle.resolved(stage.now, 0, Ticket(1), Ok(()));
    stage.submit(2, 4, Ack::One);
    stage.run(50);
    stage.update(Change::Delete(flow(4, 0).key));
    stage.run(50);
    stage.oracle.resolved(stage.now, 0, Ticket(2), Ok(()));
    stage.is_silent();
}

#[test]
fn a_word_of_another_mastership_counts_for_none() {
    let mut stage = Stage::pair();
    stage.submit(1, 3, Ack::One);
    stage.run(50);
    stage.oracle.tickets.open.values_mut().for_each(|open| open.since = stage.now);
    stage.oracle.resolved(stage.now, 0, Ticket(1), Ok(()));
    stage.fires("acknowledged");
}

#[test]
fn a_ticket_is_resolved_once_and_in_time() {
    let mut stage = Stage::pair();
    stage.submit(1, 3, Ack::One);
    stage.run(1000);
    stage.is_silent();
    stage.run(500);
    stage.fires("ticket");
    let mut stage = Stage::pair();
    stage.submit(1, 3, Ack::None);
    stage.oracle.resolved(stage.now, 0, Ticket(1), Err(DurabilityFailed));
    stage.is_silent();
    stage.oracle.resolved(stage.now, 0, Ticket(1), Ok(()));
    stage.fires("ticket");
}

// ---------------------------------------------------------------------- bounds and the end

#[test]
fn more_than_there_is_room_for_is_noticed() {
    for (sizes, fires) in [((10, 10, 20), false), ((11, 0, 0), true), ((0, 11, 0), true), ((0, 0, 21), true)] {
        let mut stage = Stage::new(1);
        stage.oracle.judge_sizes(stage.now, 0, sizes, (10, 20));
        if fires { stage.fires("bounds") } else { stage.is_silent() }
    }
    let mut stage = Stage::new(1);
    stage.oracle.nodes[0].events = 256;
    stage.oracle.turned(stage.now, 0, &stage.engines[0]);
    stage.is_silent();
    stage.oracle.nodes[0].events = 257;
    stage.oracle.turned(stage.now, 0, &stage.engines[0]);
    stage.fires("bounds");
}

#[test]
fn chatter_in_the_quiet_is_noticed() {
    let mut stage = Stage::pair();
    stage.oracle.quiet(stage.now);
    stage.run(1000);
    stage.end();
    stage.is_silent();
    // Ten intervals: 16 + 4 x 11 are plenty.
    stage.oracle.nodes[1].sent = 61;
    stage.end();
    stage.fires("quiet");
}

#[test]
fn an_end_that_is_not_equal_is_noticed() {
    let ended = |spoil: fn(&mut Stage)| {
        let mut stage = Stage::pair();
        spoil(&mut stage);
        stage.end();
        stage.oracle.violation().map(|it| it.rule)
    };
    assert_eq!(ended(|_| {}), None);
    let zombie = |stage: &mut Stage| drop(stage.kernels[0].remove(&flow(3, 1).key));
    assert_eq!(ended(zombie), Some("kernel-is-table"));
    let stale = |stage: &mut Stage| drop(stage.kernels[1].insert(flow(3, 1).key, flow(3, 2)));
    assert_eq!(ended(stale), Some("kernel-is-table"));
    let behind = |stage: &mut Stage| drop(stage.lose(Change::Upsert(flow(3, 5))));
    assert_eq!(ended(behind), Some("equal-tables"));
    let masterless = |stage: &mut Stage| {
        let now = stage.now;
        stage.engines[0].set_role(now, crate::engine::RoleRequest::None);
    };
    assert_eq!(ended(masterless), Some("one-master"));
    let unanswered = |stage: &mut Stage| {
        stage.submit(1, 3, Ack::One);
        stage.kernels[0].insert(flow(3, 4).key, flow(3, 4));
        stage.run(50);
    };
    assert_eq!(ended(unanswered), None, "it may take until its time-out");
    let overdue = |stage: &mut Stage| {
        stage.submit(1, 3, Ack::One);
        stage.kernels[0].insert(flow(3, 4).key, flow(3, 4));
        stage.run(50);
        stage.now += Duration::from_secs(2);
    };
    assert_eq!(ended(overdue), Some("ticket"));
    let unfollowed = |stage: &mut Stage| {
        let now = stage.now;
        stage.engines[1].set_role(now, crate::engine::RoleRequest::None);
    };
    assert_eq!(ended(unfollowed), Some("all-follow"));
    let doubtful = |stage: &mut Stage| {
        let _ = stage.engines[1].resync(stage.now, true);
    };
    assert_eq!(ended(doubtful), Some("all-in-sync"));
}
