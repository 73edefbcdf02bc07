//! Clocks from a master's kernel to a backup's, over hours of an invented time: does a copy outlive the pauses between
//! two refreshments?
//!
//! ```text
//!   kernel a: T, always fresh ──dump, each 30 s──▶ table a ──by the rule [4.6.2]──▶ table b ──▶ kernel b: max(T, 180 s)
//! ```

use ssyncp::bridge::conntrack::SinkOptions;
use ssyncp::flow::{Change, Flow, FlowKey, Zone, protocol};
use ssyncp::table::{Pending, Table};
use ssyncp::time::{Duration, Instant};
use std::net::{IpAddr, Ipv4Addr};

/// Default of `dump_interval`; a dump takes up to a second more.
const DUMP_INTERVAL_MS: u64 = 30_000;
/// What the sink gives a copy at least.
const COPY_LIVES_S: u32 = 180;
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

/// Follows one flow for `dumps` dumps; the backup's clock stands `ahead_ms` from the master's. How often the copy was
/// written.
fn follow(timeout: u32, dumps: u32, ahead_ms: u64) -> u32 {
    let (mut master, mut backup) = (Table::new(8, 8, 1), Table::new(8, 8, 1));
    master.begin_stream();
    backup.begin_stream();
    let (mut now, mut number, mut written) = (1_000_000, 0, 0);
    let mut copy_dies_at = u64::MAX;
    for dump in 0..dumps {
        master.put(&flow(timeout), at(now)).expect("room");
        while let Some(Pending::Upsert(told)) = master.peek_pending(at(now)) {
            number += 1;
            master.sent(number);
            backup.apply_upsert(&told, number, at(now + WAY_MS + ahead_ms)).expect("room");
        }
        now += WAY_MS;
        assert!(now < copy_dies_at, "{timeout} s, clock {ahead_ms} ms ahead: the copy has died before dump {dump}");
        while let Some(Change::Upsert(copy)) = backup.pop_applied(at(now + ahead_ms)) {
            copy_dies_at = now + u64::from(copy.timeout.max(COPY_LIVES_S)) * 1000;
            written += 1;
        }
        // Dumps of all lengths below a second: 7919 is prime.
        now += DUMP_INTERVAL_MS + u64::from(dump) * 7919 % 1000;
    }
    assert_eq!(number, u64::from(written), "{timeout} s, clock {ahead_ms} ms ahead: a refreshment was lost on the way");
    written
}

/// [4.6.2] Whatever the time-out is, and however the clocks of two nodes round.
#[test]
fn a_copy_of_a_flow_that_lives_never_dies_in_a_backups_kernel() {
    assert_eq!(SinkOptions::default().minimum_timeout, Duration::from_secs(180));
    for timeout in (1..=700).chain([3600, 7200, 432_000]) {
        for ahead_ms in (0..1000).step_by(70) {
            follow(timeout, 60, ahead_ms);
        }
    }
}

/// [4.6.2] An hour of UDP (120 s) is written some 60 times, an established TCP connection (5 days) once.
#[test]
fn refreshing_costs_a_record_when_a_clock_has_run_to_half_and_not_one_per_dump() {
    assert!((39..=60).contains(&follow(120, 120, 0)));
    assert_eq!(follow(432_000, 120, 0), 1);
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
