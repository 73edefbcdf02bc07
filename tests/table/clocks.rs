//! Clocks from a master's kernel to a backup's, over hours of an invented time: does a copy outlive the pauses between
//! two words of its master?
//!
//! ```text
//!   kernel a: T, always fresh ──dump, each 30 s──▶ table a ──by the rule [4.6.2]──▶ table b ──▶ kernel b: T + 275 s
//! ```

use ssyncp::flow::{Change, Flow, FlowKey, Zone, protocol};
use ssyncp::table::{BUCKETS, Pending, Table};
use ssyncp::time::{Duration, Instant};
use std::net::{IpAddr, Ipv4Addr};

/// Default of `dump_interval`; a dump takes up to a second more.
const DUMP_INTERVAL_MS: u64 = 30_000;
/// What a copy has over its flow: `takeover_grace`, and 95 s.
const MARGIN_S: u32 = 275;
/// Default of `takeover_grace`.
const GRACE_MS: u64 = 180_000;
/// A clock that has run out is waited for so long.
const PATIENCE: Duration = Duration::from_secs(75);
/// Every copy is looked at once in this time.
const ROUND_MS: u64 = 16_000;
/// From a change in the master's table to its copy in the backup's kernel.
const WAY_MS: u64 = 50;

fn at(milliseconds: u64) -> Instant {
    Instant::from_nanos(milliseconds * 1_000_000)
}

/// A flow that packets keep fresh without any other change.
fn flow(timeout: u32) -> Flow {
    let key = FlowKey {
        source: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
        destination: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)),
        source_port: 4000,
        destination_port: 53,
        protocol: protocol::UDP,
        zone: Zone::DEFAULT,
    };
    Flow { timeout, ..Flow::new(key) }
}

/// A backup's table, and the clock of its kernel's copy.
struct Backup {
    table: Table,
    /// What its clock shows more than the master's.
    ahead_ms: u64,
    hand: u32,
    copy_dies_at: u64,
    written: u32,
}

impl Backup {
    /// Gives the copy to the kernel, if there is a new one; by the master's clock.
    fn drain(&mut self, now: u64) {
        while let Some(Change::Upsert(copy)) = self.table.pop_applied(at(now + self.ahead_ms)) {
            self.copy_dies_at = now + u64::from(copy.timeout + MARGIN_S) * 1000;
            self.written += 1;
        }
    }

    /// Looks at its copies, once in a round, until it is `end`; the role might be taken at any time.
    fn pass(&mut self, mut now: u64, end: u64, what: &str) {
        while now < end {
            let left = self.copy_dies_at.saturating_sub(now);
            assert!(left >= GRACE_MS, "{what}, at {now}: the copy has {left} ms left");
            let slots = self.table.slots();
            self.table.renew_copies(at(now + self.ahead_ms), PATIENCE, &mut self.hand, slots, true);
            self.drain(now);
            now += ROUND_MS;
        }
    }
}

/// Follows one flow for `dumps` dumps of `interval_ms`; the backup's clock stands `ahead_ms` from the master's. How often the
/// master spoke of it, and how often the copy was written.
fn follow(timeout: u32, dumps: u32, interval_ms: u64, ahead_ms: u64) -> (u32, u32) {
    let what = format!("{timeout} s, dumps each {interval_ms} ms, clock {ahead_ms} ms ahead");
    let mut master = Table::new(8, 8, 1);
    let table = Table::new(8, 8, 1);
    let mut backup = Backup { table, ahead_ms, hand: 0, copy_dies_at: u64::MAX, written: 0 };
    master.begin_stream();
    backup.table.begin_stream();
    let (mut now, mut number) = (1_000_000, 0);
    for dump in 0..dumps {
        master.put(&flow(timeout), at(now)).expect("room");
        while let Some(Pending::Upsert(told)) = master.peek_pending(at(now)) {
            number += 1;
            master.sent(number);
            backup.table.apply_upsert(&told, number, at(now + WAY_MS + ahead_ms)).expect("room");
        }
        backup.drain(now + WAY_MS);
        // Dumps of all lengths below a second: 7919 is prime.
        let next = now + interval_ms + u64::from(dump) * 7919 % 1000;
        backup.pass(now + WAY_MS, next, &what);
        now = next;
    }
    assert!(number <= u64::from(backup.written), "{what}: a refreshment was lost on the way");
    (number as u32, backup.written)
}

/// [4.6.2] [4.6.5] Whatever the time-out is, however seldom the master dumps, and however the clocks of two nodes round: a copy
/// has `takeover_grace` left.
#[test]
fn a_copy_of_a_flow_that_lives_never_comes_near_its_death_in_a_backups_kernel() {
    for timeout in (1..=100).chain((101..=700).step_by(7)).chain([3600, 7200, 432_000]) {
        for ahead_ms in (0..1000).step_by(210) {
            for (interval_ms, dumps) in [(1000, 100), (DUMP_INTERVAL_MS, 30), (600_000, 3), (3_600_000, 2)] {
                follow(timeout, dumps, interval_ms, ahead_ms);
            }
        }
    }
}

/// [4.6.2] An hour of UDP (120 s) is written some 60 times, an established TCP connection (5 days) once.
#[test]
fn refreshing_costs_a_record_when_a_clock_has_run_to_half_and_not_one_per_dump() {
    let (told, written) = follow(120, 120, DUMP_INTERVAL_MS, 0);
    assert!((39..=60).contains(&told) && told == written, "{told} {written}");
    assert_eq!(follow(432_000, 120, DUMP_INTERVAL_MS, 0), (1, 1));
}

/// [4.6.5] A minute and a quarter after its clock has run out, and then each time anew.
#[test]
fn a_backup_writes_a_copy_again_when_no_word_of_its_flow_has_come_for_long() {
    let mut backup = Table::new(8, 8, 1);
    backup.begin_stream();
    backup.apply_upsert(&flow(10), 1, at(1_000_000)).expect("room");
    let mut hand = 0;
    let mut renew = |backup: &mut Table, now| {
        let slots = backup.slots();
        let renewed = backup.renew_copies(at(now), PATIENCE, &mut hand, slots, true);
        (renewed, backup.pop_applied(at(now)).map(|change| change.key().source_port))
    };
    assert_eq!(renew(&mut backup, 1_000_000), (0, Some(4000)));
    assert_eq!(renew(&mut backup, 1_084_999), (0, None));
    assert_eq!(renew(&mut backup, 1_085_000), (1, Some(4000)));
    assert_eq!(renew(&mut backup, 1_159_999), (0, None));
    assert_eq!(renew(&mut backup, 1_160_000), (1, Some(4000)));
    // A delete ends it, also one that comes between two looks.
    backup.apply_delete(&flow(10).key, 2, 1).expect("held");
    assert!(matches!(backup.pop_applied(at(1_300_000)), Some(Change::Delete(_))));
    assert_eq!(renew(&mut backup, 1_300_000), (0, None));
}

/// [4.6.5] In parts, each slot once in a round.
#[test]
fn a_round_over_the_copies_looks_at_each_slot_once() {
    let mut backup = Table::new(60, 8, 1);
    backup.begin_stream();
    for port in 1..=60 {
        let mut flow = flow(10);
        flow.key.source_port = port;
        backup.apply_upsert(&flow, u64::from(port), at(0)).expect("room");
    }
    while backup.pop_applied(at(0)).is_some() {}
    let (mut hand, slots) = (0, backup.slots());
    let parts: Vec<u32> =
        (0..10).map(|_| backup.renew_copies(at(100_000), PATIENCE, &mut hand, slots / 10, true)).collect();
    assert_eq!((parts, slots, hand), (vec![6; 10], 60, 0));
}

/// [4.6.5] A master's kernel has no margin, and so its table is set back by it when another takes over.
#[test]
fn the_copies_of_a_former_master_are_written_again_before_its_kernel_drops_them() {
    let mut table = Table::new(8, 8, 1);
    table.begin_stream();
    for (number, timeout) in (1..).zip([120, 400]) {
        let mut flow = flow(timeout);
        flow.key.source_port = timeout as u16;
        table.put(&flow, at(1_000_000)).expect("room");
        table.sent(number);
    }
    table.set_clocks_back(Duration::from_secs(275));
    table.begin_stream();
    let (mut hand, slots) = (0, table.slots());
    let mut renewed = |table: &mut Table, now| table.renew_copies(at(now), PATIENCE, &mut hand, slots, true);
    assert_eq!(renewed(&mut table, 1_000_000), 1, "of 120 s nothing is left");
    assert_eq!(table.pop_applied(at(1_000_000)).map(|change| change.key().source_port), Some(120));
    // 400 s are 125 s by the table: its kernel has 200 s left when the table's patience is over, too.
    assert_eq!(renewed(&mut table, 1_074_999), 0);
    assert_eq!(renewed(&mut table, 1_199_999), 1, "the first, of which nobody speaks");
    assert_eq!(renewed(&mut table, 1_200_000), 1);
}

/// A master's that was told a flow with so many seconds at 1000 s as a backup, and whose copies have 305 s more at most.
fn of_a_new_master(told: Option<u32>) -> Table {
    let mut table = Table::new(8, 8, 1);
    table.set_margin(Duration::from_secs(305));
    table.begin_stream();
    if let Some(timeout) = told {
        table.apply_upsert(&flow(timeout), 1, at(1_000_000)).expect("room");
    }
    table.begin_stream();
    table.begin_reign();
    table
}

/// [4.6.2] The sink was given 100 s and 275 more, 5 s late; 60 s later its node is master. What a dump then says of the copy
/// is what the sink was given, until a packet sets the clock; from the first word on, the source's words are its own.
#[test]
fn what_names_a_copy_with_its_margin_is_no_news() {
    let mut table = of_a_new_master(Some(100));
    let mut put = |timeout, now| table.put(&flow(timeout), at(now)).expect("room");
    assert!(!put(320, 1_060_000) && !put(220, 1_160_000) && !put(120, 1_260_000));
    assert!(!put(305, 1_260_000), "written again when its clock had run out");
    assert!(put(306, 1_260_000), "more than any copy has");
    table.sent(1);
    assert_eq!(left(&table, 1_260_000), [306]);
    let mut put = |timeout, now| table.put(&flow(timeout), at(now)).expect("room");
    assert!(!put(306, 1_413_000) && put(307, 1_413_000), "twice 153 s, without a margin");
    // It waits: the newest word of an own clock is the one that goes.
    assert!(put(40, 1_414_000));
    assert_eq!(left(&table, 1_414_000), [40]);
}

/// A walk takes the one flow, which was told 100 s at 1,000 s: what the source names meanwhile is the copy's time and no news.
fn assert_walked_as_a_copy(table: &mut Table) {
    assert_eq!((0..BUCKETS as u16).map(|bucket| table.queue_bucket(bucket)).sum::<u32>(), 1);
    assert_eq!(table.put(&flow(370), at(1_005_000)), Ok(true));
    assert_eq!(left(table, 1_005_000), [95]);
    table.sent(1);
    assert_eq!(table.put(&flow(360), at(1_015_000)), Ok(false));
    assert_eq!(left(table, 1_015_000), [85]);
}

fn left(table: &Table, now: u64) -> Vec<u32> {
    table.iter(at(now)).map(|flow| flow.timeout).collect()
}

/// [4.5] [4.6.2] A walk takes a copy with what its flow was told; a dump meanwhile, or a merge before, makes it no word of ours.
#[test]
fn a_copy_that_waits_for_the_wire_keeps_its_flows_own_time() {
    let mut table = of_a_new_master(Some(100));
    assert_walked_as_a_copy(&mut table);

    let mut table = of_a_new_master(None);
    table.adopt(&flow(100), at(1_000_000)).expect("room");
    table.sent(1);
    assert_eq!(table.put(&flow(375), at(1_001_000)), Ok(false));
    assert_eq!(left(&table, 1_001_000), [99]);
}

/// [4.6.2] A word of an earlier mastership is no word of this one, also while a walk has the flow wait for the wire.
#[test]
fn what_the_source_said_in_an_earlier_mastership_is_a_copy_in_the_next() {
    let mut table = of_a_new_master(None);
    assert_eq!(table.put(&flow(100), at(1_000_000)), Ok(true));
    table.sent(1);
    table.begin_stream();
    table.begin_stream();
    table.begin_reign();
    assert_walked_as_a_copy(&mut table);
}

/// [4.6.4] In the table, at once, and not for sections.
#[test]
fn a_takeover_gives_every_flow_its_grace_and_takes_no_time_away() {
    let mut table = Table::new(8, 8, 1);
    table.begin_stream();
    for timeout in [10, 120, 180, 181, 432_000] {
        let mut flow = flow(timeout);
        flow.key.source_port = timeout as u16;
        table.apply_upsert(&flow, 1, at(1_000_000)).expect("room");
    }
    table.restart_clocks(at(1_060_000), Duration::from_secs(180));
    let mut left: Vec<u32> = table.iter(at(1_060_000)).map(|flow| flow.timeout).collect();
    left.sort_unstable();
    assert_eq!(left, [180, 180, 180, 180, 431_940]);
    table.assert_consistent();
}

/// [4.6.6] [4.5.7] What waits is not queued twice, what is gone does not come back; and what was only found in the kernel, and
/// named by nobody, may be somebody else's.
#[test]
fn what_is_put_back_is_held_and_is_no_hearsay() {
    let named = |port| {
        let mut flow = flow(60);
        flow.key.source_port = port;
        flow
    };
    let mut table = Table::new(8, 8, 1);
    table.preload(&named(1), Duration::from_secs(275), true, at(1_000_000)).expect("room");
    table.preload(&named(2), Duration::from_secs(275), false, at(1_000_000)).expect("room");
    table.begin_stream();
    table.apply_upsert(&named(3), 1, at(1_000_000)).expect("room");
    assert!(!table.put_back(&named(3).key, false), "it waits already");
    table.pop_applied(at(1_000_000));
    assert!(table.put_back(&named(3).key, false) && !table.put_back(&named(3).key, false));
    assert!(!table.put_back(&named(9).key, true), "not held");
    assert!(!table.put_back(&named(1).key, false) && table.put_back(&named(2).key, false));
    assert!(table.put_back(&named(1).key, true), "proven, it is the master's");
    while table.pop_applied(at(1_000_000)).is_some() {}
    table.apply_delete(&named(3).key, 2, 1).expect("held");
    assert!(!table.put_back(&named(3).key, true));
    while table.pop_applied(at(1_000_000)).is_some() {}

    // The walk of its bucket does not name either of the two: one is deleted, the other forgotten.
    for port in [1, 2] {
        assert_eq!(table.remove_older(table.bucket_of(&named(port).key), 2), 1);
    }
    assert_eq!((table.len(), table.pop_applied(at(1_000_000))), (0, Some(Change::Delete(named(2).key))));
    assert_eq!(table.pop_applied(at(1_000_000)), None);
    table.assert_consistent();
}

/// [4.5.7] [4.6.5] Its clock in the kernel has no margin that anybody knows of.
#[test]
fn what_was_found_in_the_kernel_is_written_again_before_it_runs_out_there() {
    let mut table = Table::new(8, 8, 1);
    let margin = Duration::from_secs(275);
    table.preload(&flow(275), margin, true, at(1_000_000)).expect("room");
    let (mut hand, slots) = (0, table.slots());
    assert_eq!(table.renew_copies(at(1_075_000), PATIENCE, &mut hand, slots, false), 0, "nobody has named it");
    assert_eq!(table.renew_copies(at(1_074_999), PATIENCE, &mut hand, slots, true), 0);
    assert_eq!(table.renew_copies(at(1_075_000), PATIENCE, &mut hand, slots, true), 1, "200 s before its end there");
}

/// [3.1.6] For a stream that says nothing of deaths.
#[test]
fn what_has_outlived_its_time_goes_to_the_sink_as_a_delete() {
    let mut backup = Table::new(8, 0, 1);
    backup.begin_stream();
    let named = |port, timeout| {
        let mut flow = flow(timeout);
        flow.key.source_port = port;
        flow
    };
    for (number, (port, timeout)) in (1..).zip([(1, 10), (2, 60), (3, 10)]) {
        backup.apply_upsert(&named(port, timeout), number, at(0)).expect("room");
    }
    while backup.pop_applied(at(0)).is_some() {}
    let (mut hand, slots) = (0, backup.slots());
    assert_eq!(backup.age(at(9_999), &mut hand, slots), 0);
    // In two steps, as the loop does.
    let aged = backup.age(at(10_000), &mut hand, slots / 2) + backup.age(at(10_000), &mut hand, slots - slots / 2);
    assert_eq!((aged, hand, backup.len()), (2, 0, 1));
    backup.assert_consistent();
    // One comes back before the sink has heard of its death.
    backup.apply_upsert(&named(3, 10), 4, at(10_000)).expect("room");
    let told: Vec<Change> = std::iter::from_fn(|| backup.pop_applied(at(10_000))).collect();
    let deleted = told.iter().filter(|change| matches!(change, Change::Delete(key) if key.source_port == 1)).count();
    assert_eq!((told.len(), deleted, backup.len()), (2, 1, 2));
    backup.assert_consistent();
}

#[test]
fn who_waits_for_the_wire_is_shown_in_turn_and_with_its_last_value() {
    let mut master = Table::new(8, 0, 1);
    master.begin_stream();
    let named = |port| {
        let mut flow = flow(60);
        flow.key.source_port = port;
        flow
    };
    for port in [5, 4] {
        master.put(&named(port), at(0)).expect("room");
        master.sent(1);
    }
    master.put(&named(6), at(0)).expect("room");
    master.take(&named(5).key);
    let waits: Vec<_> = master.pending_flows(at(0)).map(|(flow, lives)| (flow.key.source_port, lives)).collect();
    assert_eq!(waits, [(6, true), (5, false)]);
    assert_eq!(master.pending_flows(at(0)).nth(1), Some((Flow { timeout: 60, ..named(5) }, false)));
}
