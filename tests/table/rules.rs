//! The table's rules, one by one, with literal values. Numbers in brackets are sections of docs/protocol.md.

use ssyncp::flow::{Attributes, Change, Endpoint, Flow, FlowKey, TcpInfo, Zone};
use ssyncp::table::{Applied, BUCKETS, Pending, Refused, Table};
use ssyncp::time::Instant;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const SEED: u64 = 0x0123_4567_89ab_cdef;

fn table() -> Table {
    Table::new(100, 10, SEED)
}

fn key(last: u8) -> FlowKey {
    FlowKey {
        source: IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)),
        destination: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)),
        source_port: 40000,
        destination_port: 80,
        protocol: 6,
        zone: Zone::DEFAULT,
    }
}

fn flow(last: u8, state: u8) -> Flow {
    Flow { state, timeout: 120, ..Flow::new(key(last)) }
}

/// One of many flows.
fn numbered(number: u16) -> Flow {
    Flow { timeout: 120, ..Flow::new(FlowKey { source_port: number, ..key(1) }) }
}

fn at(second: u64) -> Instant {
    Instant::from_nanos(second * 1_000_000_000)
}

fn full() -> Flow {
    Flow {
        key: FlowKey { zone: Zone { id: 0x0102, direction: 2 }, ..key(1) },
        reply_source: Some(Endpoint { address: IpAddr::V4(Ipv4Addr::new(10, 9, 8, 7)), port: 8080 }),
        reply_destination: Some(Endpoint { address: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 5)), port: 61000 }),
        state: 3,
        status: 0x018e,
        timeout: 432_000,
        tcp: Some(TcpInfo { window_scale_original: 7, window_scale_reply: 9, flags_original: 0x23, flags_reply: 0x22 }),
        mark: 0xdead_beef,
        attributes: Attributes::NONE,
    }
}

/// Sends everything that waits, as frame `number`.
fn send_all(table: &mut Table, number: u64) -> Vec<Pending> {
    let mut sent = Vec::new();
    while let Some(pending) = table.peek_pending(at(0)) {
        sent.push(pending);
        table.sent(number);
    }
    sent
}

/// Everything that the sink has yet to take.
fn drain(table: &mut Table) -> Vec<Change> {
    std::iter::from_fn(|| table.pop_applied(at(0))).collect()
}

mod order {
    use super::*;

    /// [4.2.2]
    #[test]
    fn a_late_upsert_cannot_resurrect_a_deleted_flow() {
        let mut table = table();
        table.begin_stream();
        table.passed(4);
        assert_eq!(table.apply_delete(&key(1), 7, 4), Ok(Applied::Unchanged));
        assert_eq!(table.apply_upsert(&flow(1, 3), 6, at(0)), Ok(Applied::Older));
        assert_eq!(table.get(&key(1), at(0)), None);
        assert_eq!(table.apply_upsert(&flow(1, 3), 8, at(0)), Ok(Applied::Changed));
        assert_eq!(table.get(&key(1), at(0)), Some(flow(1, 3)));
        assert_eq!(table.tombstones(), 0);
    }

    /// [4.2] The same for a flow that is held, whether the sink has heard of the delete or not.
    #[test]
    fn the_tombstone_of_a_held_flow_outlives_the_sink_s_hearing() {
        let mut table = table();
        table.begin_stream();
        table.apply_upsert(&flow(1, 3), 1, at(0)).expect("room");
        table.passed(1);
        assert_eq!(table.apply_delete(&key(1), 5, 1), Ok(Applied::Changed));
        assert_eq!((table.len(), table.tombstones(), table.unapplied()), (0, 1, 1));
        assert_eq!(table.apply_upsert(&flow(1, 4), 4, at(0)), Ok(Applied::Older));
        assert_eq!(drain(&mut table), [Change::Delete(key(1))]);
        assert_eq!(table.apply_upsert(&flow(1, 4), 4, at(0)), Ok(Applied::Older));
        assert_eq!(table.tombstones(), 1);
        table.passed(4);
        assert_eq!(table.tombstones(), 1);
        table.passed(5);
        assert_eq!(table.tombstones(), 0);
    }

    /// [4.2.1]
    #[test]
    fn an_older_or_equally_old_upsert_is_refused() {
        let mut table = table();
        table.begin_stream();
        assert_eq!(table.apply_upsert(&flow(1, 3), 9, at(0)), Ok(Applied::Changed));
        assert_eq!(table.apply_upsert(&flow(1, 4), 8, at(0)), Ok(Applied::Older));
        assert_eq!(table.apply_upsert(&flow(1, 4), 9, at(0)), Ok(Applied::Older));
        assert_eq!(table.apply_delete(&key(1), 9, 0), Ok(Applied::Older));
        assert_eq!(table.get(&key(1), at(0)), Some(flow(1, 3)));
        assert_eq!(table.apply_upsert(&flow(1, 3), 10, at(0)), Ok(Applied::Unchanged));
        assert_eq!(table.apply_upsert(&flow(1, 4), 10, at(0)), Ok(Applied::Older), "the version was taken");
    }

    /// [4.2.2] At the frontier's next number nothing older can still arrive.
    #[test]
    fn only_a_delete_beyond_the_next_number_leaves_a_tombstone() {
        let mut table = table();
        table.begin_stream();
        assert_eq!(table.apply_delete(&key(1), 5, 4), Ok(Applied::Unchanged));
        assert_eq!(table.tombstones(), 0);
        assert_eq!(table.apply_delete(&key(2), 6, 4), Ok(Applied::Unchanged));
        assert_eq!(table.tombstones(), 1);
        assert_eq!(table.len(), 0);
        assert_eq!(table.digest(), 0, "a tombstone is not in the digest");
        table.passed(6);
        assert_eq!(table.tombstones(), 0);
    }

    #[test]
    fn tombstones_go_in_the_order_of_their_numbers_whatever_the_order_of_their_coming() {
        let mut table = Table::new(100, 100, SEED);
        table.begin_stream();
        for number in [44, 47, 41, 64, 42, 46, 43, 45] {
            table.apply_delete(&key(number as u8), number, 39).expect("room");
        }
        let mut left = Vec::new();
        for frontier in [40, 41, 43, 44, 63, 64] {
            table.passed(frontier);
            left.push(table.tombstones());
        }
        assert_eq!(left, [8, 7, 5, 4, 1, 0]);
        table.passed(50);
        assert_eq!(table.apply_delete(&key(1), 66, 0), Ok(Applied::Unchanged));
        assert_eq!(table.tombstones(), 1, "the frontier never goes back");
    }

    /// [4.2.3]
    #[test]
    fn a_tombstone_too_many_is_refused_and_changes_nothing() {
        let mut table = Table::new(100, 2, SEED);
        table.begin_stream();
        table.apply_upsert(&flow(1, 3), 1, at(0)).expect("room");
        table.apply_delete(&key(2), 10, 1).expect("room");
        table.apply_delete(&key(3), 11, 1).expect("room");
        let digest = table.digest();
        assert_eq!(table.apply_delete(&key(1), 12, 1), Err(Refused::TombstonesFull));
        assert_eq!(table.apply_delete(&key(4), 12, 1), Err(Refused::TombstonesFull));
        assert_eq!((table.len(), table.tombstones(), table.digest()), (1, 2, digest));
        assert_eq!(table.touched(table.bucket_of(&key(1))), 1);
        assert_eq!(table.apply_delete(&key(3), 13, 1), Ok(Applied::Unchanged), "its slot is taken already");
        assert_eq!(table.apply_delete(&key(1), 13, 12), Ok(Applied::Changed), "in order, none is needed");
    }

    /// [4.1.2]
    #[test]
    fn all_that_is_held_is_older_than_a_new_stream() {
        let mut table = table();
        table.begin_stream();
        table.apply_upsert(&flow(1, 3), 1_000_000, at(0)).expect("room");
        table.apply_delete(&key(2), 2_000_000, 0).expect("room");
        table.begin_stream();
        assert_eq!(table.tombstones(), 0, "tombstones of the former stream are dropped");
        assert_eq!(table.apply_upsert(&flow(1, 4), 1, at(0)), Ok(Applied::Changed));
        assert_eq!(table.apply_upsert(&flow(2, 4), 1, at(0)), Ok(Applied::Changed));
        assert_eq!(table.get(&key(1), at(0)), Some(flow(1, 4)));
    }

    /// [4.1] A former mastership's entries too, and what it had still to say is moot.
    #[test]
    fn a_new_stream_clears_the_wire_and_leaves_the_sink() {
        let mut table = table();
        table.begin_stream();
        table.apply_upsert(&flow(1, 3), 1, at(0)).expect("room");
        table.apply_upsert(&flow(2, 3), 2, at(0)).expect("room");
        drain(&mut table);
        table.apply_upsert(&flow(3, 3), 3, at(0)).expect("room");
        table.apply_delete(&key(2), 9, 3).expect("room");
        table.put(&flow(4, 3), at(0)).expect("room");
        table.take(&key(1));
        assert_eq!((table.pending(), table.unapplied(), table.len()), (2, 2, 2));
        table.begin_stream();
        assert_eq!((table.pending(), table.unapplied(), table.len(), table.tombstones()), (0, 2, 2, 0));
        assert_eq!(drain(&mut table), [Change::Upsert(flow(3, 3)), Change::Delete(key(2))]);
        assert!(table.take(&key(4)), "held when the stream began:");
        assert_eq!(table.peek_pending(at(0)), Some(Pending::Delete(key(4))), "its delete is said");
    }

    /// [4.1] Ordinals have 16 bits; nobody notices when they run out.
    #[test]
    fn versions_survive_the_wrap_of_the_ordinal() {
        let mut table = Table::new(4, 4, SEED);
        table.apply_upsert(&flow(1, 3), 77, at(0)).expect("room");
        for stream in 1..=65_540u32 {
            table.begin_stream();
            let said = flow(1, (stream % 5) as u8);
            let before = table.get(&key(1), at(0)).map(|flow| flow.state);
            assert_eq!(
                table.apply_upsert(&said, 5, at(0)),
                Ok(if before == Some(said.state) { Applied::Unchanged } else { Applied::Changed }),
                "stream {stream}"
            );
            assert_eq!(table.apply_upsert(&said, 4, at(0)), Ok(Applied::Older), "stream {stream}");
        }
        table.assert_consistent();
    }
}

mod wire {
    use super::*;

    /// [4.2.4]
    #[test]
    fn an_insert_that_was_never_sent_and_its_delete_cost_nothing() {
        let mut table = table();
        assert_eq!(table.put(&flow(1, 1), at(0)), Ok(true));
        assert!(table.take(&key(1)));
        assert_eq!((table.len(), table.pending(), table.digest()), (0, 0, 0));
        assert!(!table.take(&key(1)));
    }

    /// [4.2.4]
    #[test]
    fn once_sent_a_delete_must_be_sent_too() {
        let mut table = table();
        table.put(&flow(1, 1), at(0)).expect("room");
        table.sent(1);
        table.put(&flow(1, 2), at(0)).expect("room");
        assert!(table.take(&key(1)));
        assert_eq!(table.len(), 0);
        assert_eq!(send_all(&mut table, 2), [Pending::Delete(key(1))]);
        assert_eq!(table.pending(), 0);
    }

    /// [4.2] A flow whose delete was never sent, and which comes back, was sent once: it does not cancel.
    #[test]
    fn a_flow_that_comes_back_before_its_delete_is_sent_is_sent_in_its_turn() {
        let mut table = table();
        table.put(&flow(1, 1), at(0)).expect("room");
        table.sent(1);
        table.take(&key(1));
        table.put(&flow(2, 1), at(0)).expect("room");
        assert_eq!(table.put(&flow(1, 5), at(0)), Ok(true));
        assert_eq!(table.peek_pending(at(0)), Some(Pending::Upsert(flow(1, 5))));
        assert!(table.take(&key(1)));
        assert_eq!(send_all(&mut table, 2), [Pending::Delete(key(1)), Pending::Upsert(flow(2, 1))]);
    }

    #[test]
    fn a_listing_piece_by_piece_names_every_flow_once_and_ends() {
        let mut table = table();
        for last in 1..=5 {
            table.put(&flow(last, 1), at(0)).expect("room");
        }
        let mut keys: Vec<FlowKey> = Vec::new();
        for slot in 0..table.slots() {
            keys.extend(table.iter_in(slot..slot + 1, at(0)).map(|flow| flow.key));
        }
        keys.sort_unstable();
        assert_eq!(keys, (1..=5).map(key).collect::<Vec<_>>());
        assert_eq!(table.iter_in(table.slots()..u32::MAX, at(0)).count(), 0);
    }

    /// [4.2.5]
    #[test]
    fn fifty_changes_cost_one_record_and_keep_their_turn() {
        let mut table = table();
        table.put(&flow(1, 0), at(0)).expect("room");
        table.put(&flow(2, 0), at(0)).expect("room");
        for state in 0..50 {
            assert_eq!(table.put(&flow(1, state), at(0)), Ok(true));
        }
        assert_eq!(table.pending(), 2);
        assert_eq!(send_all(&mut table, 1), [Pending::Upsert(flow(1, 49)), Pending::Upsert(flow(2, 0))]);
    }

    /// [4.6.2] Equal but for the time-out: said again only when the peers' clock has run past half of it.
    #[test]
    fn a_value_that_says_nothing_new_is_not_queued_until_its_clock_has_run_to_half() {
        let mut table = table();
        table.put(&flow(1, 3), at(0)).expect("room");
        table.sent(1);
        assert_eq!(table.put(&flow(1, 3), at(60)), Ok(false));
        assert_eq!(table.get(&key(1), at(60)).map(|flow| flow.timeout), Some(60), "the clock that was sent");
        assert_eq!(table.put(&flow(1, 3), at(61)), Ok(true));
        assert_eq!(table.peek_pending(at(71)), Some(Pending::Upsert(Flow { timeout: 110, ..flow(1, 3) })));
        table.sent(2);
        let shorter = Flow { timeout: 5, ..flow(1, 3) };
        assert_eq!(table.put(&shorter, at(71)), Ok(false));
        assert_eq!(table.get(&key(1), at(71)).map(|flow| flow.timeout), Some(110));
    }

    #[test]
    fn what_waits_takes_the_newest_clock_along() {
        let mut table = table();
        table.put(&flow(1, 3), at(0)).expect("room");
        let shorter = Flow { timeout: 5, ..flow(1, 3) };
        assert_eq!(table.put(&shorter, at(0)), Ok(true));
        assert_eq!(table.peek_pending(at(0)), Some(Pending::Upsert(shorter)));
    }

    /// [4.5.2]
    #[test]
    fn a_walk_queues_the_whole_bucket_once() {
        let mut table = table();
        for last in 1..=3 {
            table.put(&flow(last, 1), at(0)).expect("room");
        }
        send_all(&mut table, 1);
        let bucket = table.bucket_of(&key(2));
        assert_eq!(table.bucket_pending(bucket), 0);
        assert_eq!(table.queue_bucket(bucket), 1);
        assert_eq!(table.queue_bucket(bucket), 0);
        assert_eq!(table.bucket_pending(bucket), 1);
        assert_eq!(send_all(&mut table, 2), [Pending::Upsert(flow(2, 1))]);
        assert_eq!((table.bucket_pending(bucket), table.touched(bucket)), (0, 2));
        assert_eq!(table.touched(table.bucket_of(&key(1))), 1);
    }

    /// [4.5] A bucket of a large table is a stretch of many slots, with holes in it.
    #[test]
    fn a_walk_of_a_large_table_finds_every_flow_in_its_own_bucket_and_in_no_other() {
        let mut table = Table::new(100_000, 0, SEED);
        let mut expected = vec![0; BUCKETS];
        for number in 0..20_000u32 {
            let key = FlowKey { source: IpAddr::V4(Ipv4Addr::from(number)), ..key(1) };
            table.put(&Flow::new(key), at(0)).expect("room");
            table.sent(1);
            expected[usize::from(table.bucket_of(&key))] += 1;
        }
        let queued: Vec<u32> = (0..BUCKETS as u16).map(|bucket| table.queue_bucket(bucket)).collect();
        assert_eq!(queued, expected);
        assert_eq!(table.pending(), 20_000);
    }

    /// A walk while the sink has not taken all: the wire first, then the sink, and neither is forgotten.
    #[test]
    fn a_walked_flow_still_goes_to_the_sink_that_waits_for_it() {
        let mut table = table();
        table.begin_stream();
        table.apply_upsert(&flow(1, 3), 1, at(0)).expect("room");
        table.begin_stream();
        assert_eq!(table.queue_bucket(table.bucket_of(&key(1))), 1);
        assert_eq!((table.pending(), table.unapplied()), (1, 1));
        assert_eq!(table.pop_applied(at(0)), None);
        table.sent(1);
        assert_eq!((table.pending(), table.unapplied()), (0, 1));
        assert_eq!(drain(&mut table), [Change::Upsert(flow(1, 3))]);
    }

    /// The source is newer than what a backup had still to tell the kernel.
    #[test]
    fn what_the_source_says_need_not_go_to_the_sink() {
        let mut table = table();
        table.begin_stream();
        table.apply_upsert(&flow(1, 3), 1, at(0)).expect("room");
        table.apply_upsert(&flow(2, 3), 1, at(0)).expect("room");
        table.begin_stream();
        assert_eq!(table.put(&flow(1, 3), at(0)), Ok(false), "the peers know it");
        assert_eq!(table.put(&flow(2, 4), at(0)), Ok(true));
        assert_eq!((table.pending(), table.unapplied()), (1, 0));
    }

    /// [4.3.2]
    #[test]
    fn a_dump_takes_what_it_does_not_name() {
        let mut table = table();
        for last in 1..=4 {
            table.put(&flow(last, 1), at(0)).expect("room");
        }
        send_all(&mut table, 1);
        table.begin_dump();
        assert!(table.dumping());
        table.put(&flow(1, 1), at(0)).expect("room");
        table.put(&flow(5, 1), at(0)).expect("room");
        table.take(&key(2));
        assert_eq!(table.end_dump(u32::MAX), 2);
        assert!(!table.dumping());
        assert_eq!(table.len(), 2);
        assert_eq!(table.get(&key(1), at(0)), Some(flow(1, 1)));
        assert_eq!(table.get(&key(5), at(0)), Some(flow(5, 1)));
        assert_eq!(table.pending(), 4, "flow 5 and three deletes");
        assert_eq!(table.end_dump(u32::MAX), 0, "no dump runs");
    }

    /// [4.3.2] However the table changes between two pieces of the sweep: entries move up when others are freed.
    #[test]
    fn a_dump_that_is_ended_piece_by_piece_takes_exactly_what_it_did_not_name() {
        let mut table = Table::new(8192, 16, SEED);
        let (named, freed, silent) = (0..2000, 2000..4000, 4000..6000);
        for number in named.start..silent.end {
            table.put(&numbered(number), at(0)).expect("room");
        }
        table.begin_dump();
        for number in named.start..freed.end {
            table.put(&numbered(number), at(0)).expect("room");
        }
        let (mut taken, mut pieces) = (0, 0);
        let mut freed = freed;
        while table.dumping() {
            taken += table.end_dump(128);
            pieces += 1;
            // Never sent, so that its slot is free at once.
            freed.by_ref().take(40).for_each(|number| assert!(table.take(&numbered(number).key)));
        }
        assert_eq!((taken, table.len(), freed.len()), (2000, 2000, 0));
        assert_eq!(pieces, 64, "8,192 slots: 64 of 4096 buckets a piece");
        assert!(named.clone().all(|number| table.get(&numbered(number).key, at(0)).is_some()));
        table.assert_consistent();
    }

    /// A dump counts as the one that named an entry for one dump only, however many there were.
    #[test]
    fn three_hundred_dumps_forget_nothing() {
        let mut table = table();
        table.put(&flow(1, 1), at(0)).expect("room");
        table.put(&flow(2, 1), at(0)).expect("room");
        for _ in 0..300 {
            table.begin_dump();
            table.put(&flow(1, 1), at(0)).expect("room");
        }
        assert_eq!(table.end_dump(u32::MAX), 1);
        for unfinished in 254..258 {
            table.put(&flow(2, 1), at(0)).expect("room");
            for _ in 0..unfinished {
                table.begin_dump();
            }
            table.put(&flow(1, 1), at(0)).expect("room");
            assert_eq!(table.end_dump(u32::MAX), 1, "after {unfinished} that did not end");
        }
    }

    /// [4.1] Otherwise a dump that began in one mastership would delete what another master said since.
    #[test]
    fn a_dump_does_not_outlive_its_stream() {
        let mut table = table();
        table.begin_dump();
        table.begin_stream();
        table.apply_upsert(&flow(1, 3), 1, at(0)).expect("room");
        assert!(!table.dumping());
        assert_eq!(table.end_dump(u32::MAX), 0);
        assert_eq!(table.len(), 1);
    }

    /// [4.6.1] Only the master removes by time.
    #[test]
    fn the_master_takes_flows_whose_time_is_over_and_no_others() {
        let mut table = table();
        table.put(&Flow { timeout: 10, ..flow(1, 1) }, at(0)).expect("room");
        table.put(&Flow { timeout: 11, ..flow(2, 1) }, at(0)).expect("room");
        send_all(&mut table, 1);
        let mut hand = 0;
        assert_eq!(table.expire(at(9), &mut hand, 1000), 0);
        assert_eq!(table.expire(at(10), &mut hand, 1000), 1);
        assert_eq!(table.get(&key(1), at(10)), None);
        assert_eq!(send_all(&mut table, 2), [Pending::Delete(key(1))]);
        assert_eq!(table.get(&key(2), at(10)).map(|flow| flow.timeout), Some(1));
    }

    #[test]
    fn the_hand_goes_round_in_small_steps_and_from_anywhere() {
        let mut table = Table::new(10, 0, SEED);
        table.put(&Flow { timeout: 10, ..flow(1, 1) }, at(0)).expect("room");
        table.sent(1);
        let mut hand = u32::MAX;
        let taken: Vec<u32> = (0..10).map(|_| table.expire(at(10), &mut hand, 1)).collect();
        assert_eq!(taken.iter().sum::<u32>(), 1);
        assert_eq!(hand, 0, "ten slots hold ten flows");
    }
}

mod sink {
    use super::*;

    #[test]
    fn the_sink_hears_the_last_word_once_and_in_turn() {
        let mut table = table();
        table.begin_stream();
        table.apply_upsert(&flow(1, 1), 1, at(0)).expect("room");
        table.apply_upsert(&flow(2, 1), 1, at(0)).expect("room");
        for number in 2..52 {
            table.apply_upsert(&flow(1, number as u8), number, at(0)).expect("room");
        }
        table.apply_delete(&key(2), 52, 51).expect("room");
        assert_eq!(table.unapplied(), 2);
        assert_eq!(drain(&mut table), [Change::Upsert(flow(1, 51)), Change::Delete(key(2))]);
        assert_eq!(table.unapplied(), 0);
    }

    #[test]
    fn a_flow_that_comes_back_before_the_sink_heard_of_its_death_is_an_upsert() {
        let mut table = table();
        table.begin_stream();
        table.apply_upsert(&flow(1, 1), 1, at(0)).expect("room");
        drain(&mut table);
        table.apply_delete(&key(1), 2, 1).expect("room");
        assert_eq!(table.apply_upsert(&flow(1, 1), 3, at(0)), Ok(Applied::Changed));
        assert_eq!(drain(&mut table), [Change::Upsert(flow(1, 1))]);
    }

    /// [4.6.2] The kernel's clock is refreshed by the rule that the master's peers' clocks are, two seconds early.
    #[test]
    fn the_sink_hears_a_time_out_only_when_its_clock_has_run_to_almost_half() {
        let mut table = table();
        table.begin_stream();
        table.apply_upsert(&flow(1, 3), 1, at(0)).expect("room");
        drain(&mut table);
        assert_eq!(table.apply_upsert(&flow(1, 3), 2, at(58)), Ok(Applied::Unchanged));
        assert_eq!(table.unapplied(), 0);
        assert_eq!(table.apply_upsert(&flow(1, 3), 3, at(59)), Ok(Applied::Unchanged));
        assert_eq!(table.unapplied(), 1);
        assert_eq!(table.pop_applied(at(59)), Some(Change::Upsert(flow(1, 3))));
    }

    /// [4.6.3]
    #[test]
    fn a_backup_keeps_an_expired_flow_and_tells_the_sink_again_on_takeover() {
        let mut table = table();
        table.begin_stream();
        table.apply_upsert(&flow(1, 3), 1, at(0)).expect("room");
        table.apply_upsert(&Flow { timeout: 121, ..flow(2, 3) }, 1, at(0)).expect("room");
        drain(&mut table);
        assert_eq!(table.get(&key(1), at(500)), Some(Flow { timeout: 0, ..flow(1, 3) }));
        assert_eq!(table.queue_expired(at(119)), 0);
        assert_eq!(table.queue_expired(at(120)), 1);
        assert_eq!(table.queue_expired(at(120)), 0, "it waits already");
        assert_eq!(table.pop_applied(at(120)), Some(Change::Upsert(Flow { timeout: 0, ..flow(1, 3) })));
        assert_eq!(table.queue_all_to_sink(), 2);
    }

    /// [4.5.3] Only if it was not named by the walk, only in this bucket, and what a former stream said goes too.
    #[test]
    fn a_bucket_end_removes_only_what_is_older_than_the_walk() {
        let mut table = table();
        table.begin_stream();
        for last in 1..=3 {
            table.apply_upsert(&flow(last, 3), 900, at(0)).expect("room");
        }
        table.begin_stream();
        table.apply_upsert(&flow(2, 3), 10, at(0)).expect("room");
        table.apply_upsert(&flow(3, 3), 11, at(0)).expect("room");
        drain(&mut table);
        let buckets = [1, 2, 3].map(|last| table.bucket_of(&key(last)));
        assert_eq!(buckets.map(|bucket| table.remove_older(bucket, 10)), [1, 1, 0]);
        assert_eq!(drain(&mut table), [Change::Delete(key(1)), Change::Delete(key(2))]);
        assert_eq!((table.len(), table.tombstones()), (1, 0));
        assert_eq!(table.bucket_digest(buckets[0]), 0);
    }

    #[test]
    fn a_bucket_that_does_not_exist_holds_nothing() {
        let mut table = table();
        table.put(&flow(1, 1), at(0)).expect("room");
        let beyond = table.bucket_of(&key(1)) + 4096;
        assert_eq!((table.bucket_digest(beyond), table.touched(beyond), table.bucket_pending(beyond)), (0, 0, 0));
        assert_eq!((table.queue_bucket(beyond), table.remove_older(beyond, 5)), (0, 0));
        assert_eq!(table.queue_bucket(u16::MAX), 0);
        assert_eq!(table.len(), 1);
    }
}

mod digest {
    use super::*;

    /// [4.4.1] [4.4.3] Protocol: these numbers are the same on every node and in every version. They were computed with the
    /// reference implementation of XXH3 (python3-xxhash), from the bytes in src/table/record.rs.
    #[test]
    fn the_digest_of_known_flows_is_known() {
        let mut table = table();
        assert_eq!(table.digest(), 0);
        table.put(&full(), at(0)).expect("room");
        assert_eq!(table.bucket_of(&full().key), 2353);
        assert_eq!(table.digest(), 0x9180_ce66_6770_d990);
        table.put(&flow(1, 1), at(0)).expect("room");
        assert_eq!(table.bucket_of(&key(1)), 2023);
        assert_eq!(table.digest(), 0x91cb_1223_a377_d779);
        assert_eq!(table.bucket_digest(2353), 0x9180_ce66_6770_d990);
        table.reseed(0);
        assert_eq!(table.bucket_of(&full().key), 142);
        assert_eq!(table.digest(), 0x65ff_2fd4_d706_4160);
    }

    /// [4.4.3]
    #[test]
    fn two_tables_that_came_to_the_same_by_other_ways_have_the_same_digest() {
        let (mut master, mut backup) = (table(), Table::new(5, 0, SEED));
        for last in 1..=3 {
            master.put(&flow(last, 0), at(0)).expect("room");
            master.put(&flow(last, last), at(5)).expect("room");
        }
        master.take(&key(2));
        backup.begin_stream();
        backup.apply_upsert(&flow(3, 3), 2, at(7)).expect("room");
        assert_ne!(master.digest(), backup.digest());
        backup.apply_upsert(&Flow { timeout: 9, ..flow(1, 1) }, 1, at(9)).expect("room");
        assert_eq!(master.digest(), backup.digest());
        for bucket in 0..BUCKETS as u16 {
            assert_eq!(master.bucket_digest(bucket), backup.bucket_digest(bucket));
        }
    }

    /// [4.4.2] Every field but the time-out.
    #[test]
    fn every_field_of_the_value_counts() {
        let mut table = table();
        table.put(&full(), at(0)).expect("room");
        let digest = table.digest();
        let other = Endpoint { address: IpAddr::V4(Ipv4Addr::new(9, 9, 9, 9)), port: 9 };
        for change in [
            Flow { reply_source: Some(other), ..full() },
            Flow { reply_source: None, ..full() },
            Flow { reply_destination: Some(other), ..full() },
            Flow { reply_destination: None, ..full() },
            Flow { state: 4, ..full() },
            Flow { status: 0x008e, ..full() },
            Flow { tcp: None, ..full() },
            Flow { mark: 0, ..full() },
        ] {
            table.put(&change, at(0)).expect("room");
            assert_ne!(table.digest(), digest, "{change:?}");
            table.put(&Flow { timeout: 1, ..full() }, at(0)).expect("room");
            assert_eq!(table.digest(), digest);
        }
    }

    #[test]
    fn a_reseed_keeps_every_entry_and_every_list() {
        let mut table = table();
        table.begin_stream();
        for last in 1..=60 {
            table.apply_upsert(&flow(last, 3), u64::from(last), at(0)).expect("room");
        }
        while table.unapplied() > 20 {
            table.pop_applied(at(0));
        }
        for last in 1..=10 {
            table.put(&flow(last, 4), at(0)).expect("room");
        }
        for last in 61..=65 {
            table.apply_delete(&key(last), 100, 0).expect("room");
        }
        let digest = table.digest();
        table.reseed(99);
        assert_eq!(table.seed(), 99);
        assert_ne!(table.digest(), digest);
        assert_eq!(
            (table.len(), table.pending(), table.unapplied(), table.tombstones()),
            (60, 10, 20, 5),
            "members of the lists"
        );
        for last in 1..=60 {
            assert_eq!(table.get(&key(last), at(0)), Some(flow(last, if last <= 10 { 4 } else { 3 })));
            assert_eq!(table.touched(table.bucket_of(&key(last))), 100, "at least what touched it before");
        }
        table.assert_consistent();
        table.reseed(SEED);
        assert_eq!(table.digest(), digest);
    }
}

mod limits {
    use super::*;

    /// 76 bytes a place, 36 a tombstone, and 101 KiB for the buckets of the digest and the rest.
    #[test]
    fn every_part_of_a_table_counts_in_its_bytes() {
        let bytes = |capacity, tombstones| Table::new(capacity, tombstones, 1).bytes();
        assert_eq!((bytes(1 << 20, 1) - bytes(1 << 19, 1)) >> 19, 76);
        assert_eq!((bytes(1, 1 << 20) - bytes(1, 1 << 19)) >> 19, 36);
        assert_eq!(bytes(1, 1) >> 10, 101);
    }

    /// [8.0.2]
    #[test]
    fn a_full_table_refuses_new_keys_and_takes_changes_of_old_ones() {
        let mut table = Table::new(3, 3, SEED);
        for last in 1..=3 {
            table.put(&flow(last, 1), at(0)).expect("room");
        }
        let digest = table.digest();
        assert_eq!(table.put(&flow(4, 1), at(0)), Err(Refused::TableFull));
        assert_eq!(table.apply_upsert(&flow(4, 1), 1, at(0)), Err(Refused::TableFull));
        assert_eq!(table.apply_delete(&key(4), 9, 1), Ok(Applied::Unchanged), "a tombstone needs no slot");
        assert_eq!(table.tombstones(), 1);
        assert_eq!((table.digest(), table.len(), table.pending()), (digest, 3, 3));
        assert_eq!(table.put(&flow(3, 2), at(0)), Ok(true));
        send_all(&mut table, 1);
        table.take(&key(1));
        assert_eq!(table.put(&flow(4, 1), at(0)), Err(Refused::TableFull), "a delete that waits holds its slot");
        send_all(&mut table, 2);
        assert_eq!(table.put(&flow(4, 1), at(0)), Ok(true));
    }

    #[test]
    fn a_table_of_nothing_refuses_everything_and_answers() {
        let mut table = Table::new(0, 0, SEED);
        assert_eq!(table.put(&flow(1, 1), at(0)), Err(Refused::TableFull));
        assert_eq!(table.get(&key(1), at(0)), None);
        assert_eq!(table.end_dump(u32::MAX), 0);
        table.sent(1);
        table.reseed(1);
        table.assert_consistent();
    }

    #[test]
    fn a_key_of_two_families_is_refused_by_name() {
        let mut table = table();
        let key = FlowKey { source: IpAddr::V6(Ipv6Addr::LOCALHOST), ..key(1) };
        assert_eq!(table.put(&Flow::new(key), at(0)), Err(Refused::Unsupported));
        assert_eq!(table.apply_upsert(&Flow::new(key), 1, at(0)), Err(Refused::Unsupported));
        assert_eq!(table.apply_delete(&key, 1, 0), Err(Refused::Unsupported));
        assert!(!table.take(&key));
        assert_eq!(table.get(&key, at(0)), None);
        assert_eq!(table.bucket_of(&key), 0, "the bucket of what has none");
    }

    /// An IPv4 entry fits one cache line, and three slots in four can be taken.
    #[test]
    fn a_million_flows_take_less_than_86_bytes_each() {
        assert_eq!(Table::new(1_000_000, 0, SEED).bytes() / 1_000_000, 76);
    }

    #[test]
    fn a_refusal_reads_as_a_sentence() {
        assert_eq!(Refused::TableFull.to_string(), "the table is full");
        assert_eq!(Refused::AnnexFull.to_string(), "the annex of the table is full");
        assert_eq!(Refused::TombstonesFull.to_string(), "too many tombstones");
        assert_eq!(Refused::Unsupported.to_string(), "this kind of flow is not replicated");
    }
}

/// [8.0.2] Room is what is left for new keys; a delete that has not been sent still takes some.
#[test]
fn room_is_what_is_left_for_new_keys() {
    let mut table = table();
    assert_eq!(table.room(), 100);
    (0..30).for_each(|number| assert_eq!(table.put(&numbered(number), at(0)), Ok(true)));
    assert_eq!(table.room(), 70);
    send_all(&mut table, 1);
    assert!(table.take(&numbered(3).key));
    assert_eq!(table.room(), 70);
    send_all(&mut table, 2);
    assert_eq!(table.room(), 71);
}

/// A listing in pieces names every flow once.
#[test]
fn a_listing_in_pieces_names_every_flow_once() {
    let mut table = table();
    (0..50).for_each(|number| assert_eq!(table.put(&numbered(number), at(0)), Ok(true)));
    let half = table.slots() / 2;
    let pieces = [0..half, half..table.slots(), table.slots()..u32::MAX];
    let mut ports: Vec<u16> = Vec::new();
    for piece in pieces {
        ports.extend(table.iter_in(piece, at(0)).map(|flow| flow.key.source_port));
    }
    ports.sort_unstable();
    assert_eq!(ports, (0..50).collect::<Vec<u16>>());
}
