//! The stream: sent at once or gathered, applied in any order, repaired when frames are lost.

use super::*;
use crate::wire::{Frame, Kind, Payload};

fn data_frames(world: &World, since: Instant) -> Vec<(Instant, usize)> {
    let of_data = |(at, _, bytes): &(Instant, usize, Vec<u8>)| {
        let frame = Frame::parse(bytes).unwrap();
        let Payload::Data(records) = frame.verify().unwrap().payload() else { return None };
        (*at >= since).then(|| (*at, records.len()))
    };
    world.sent.iter().filter_map(of_data).collect()
}

/// [3.3.7] An idle line sends at once; what comes within `batch_delay` afterwards leaves together.
#[test]
fn the_first_change_leaves_at_once_and_the_next_are_gathered() {
    let mut world = World::elected_pair();
    world.run(ms(50));
    let start = world.now;
    world.upsert(0, 1);
    world.run(Duration::from_micros(100));
    for number in 2..=6 {
        world.upsert(0, number);
        world.run(Duration::from_micros(100));
    }
    world.run(ms(5));
    let frames = data_frames(&world, start);
    assert_eq!(
        frames.iter().map(|(at, records)| (at.since(start), *records)).collect::<Vec<_>>(),
        vec![(Duration::ZERO, 1), (ms(1), 5),]
    );
}

/// [3.3.7] Until the next frame is due no change is worth a wake-up, for it would wait for that frame. On an idle line, with a full
/// frame, on a backup and on who leaves, each is.
#[test]
fn who_looks_for_changes_is_told_how_long_one_would_wait() {
    let mut world = World::elected_pair();
    world.run(ms(50));
    let idle = world.node(0).engine.gathers_until();
    assert!(idle.is_none_or(|until| until <= world.now), "{idle:?}");
    let start = world.now;
    world.upsert(0, 1);
    world.run(Duration::from_micros(100));
    assert_eq!(world.node(0).engine.gathers_until(), Some(start + ms(1)));
    assert_eq!(world.node(1).engine.gathers_until(), None);
    world.upsert(0, 2);
    assert_eq!(world.node(0).engine.gathers_until(), Some(start + ms(1)));
    for number in 3..100 {
        world.upsert(0, number);
    }
    assert_eq!(world.node(0).engine.gathers_until(), None, "a full frame leaves at once");
    world.run(Duration::from_micros(10));
    assert!(world.node(0).engine.gathers_until() > Some(world.now));
    let now = world.now;
    world.node(0).engine.leave(now);
    assert_eq!(world.node(0).engine.gathers_until(), None);
}

/// [3.3.7] Frames that are full do not wait for anything.
#[test]
fn full_frames_leave_at_once() {
    let mut world = World::elected_pair();
    let start = world.now;
    for number in 0..500 {
        let plain = Flow { reply_source: None, tcp: None, ..flow(number) };
        world.update(0, Change::Upsert(plain));
    }
    world.run(Duration::from_micros(10));
    // (1480 − 40) / 24 = 60 plain records a frame: eight full ones, and 20 records that wait for company.
    assert_eq!(data_frames(&world, start).iter().map(|(_, records)| *records).collect::<Vec<_>>(), [60; 8]);
    world.run(ms(2));
    assert_eq!(data_frames(&world, start).len(), 9);
}

/// [3.3.7] Longer records fill a frame sooner: (1480 − 40) / 48 = 30 plain records of IPv6.
#[test]
fn full_frames_of_longer_records_leave_at_once() {
    let mut world = World::elected_pair();
    let start = world.now;
    for number in 0..500 {
        let key = FlowKey {
            source: "2001:db8::1".parse().unwrap(),
            destination: "2001:db8::2".parse().unwrap(),
            ..key(number)
        };
        world.update(0, Change::Upsert(Flow { timeout: 300, ..Flow::new(key) }));
    }
    world.run(Duration::from_micros(10));
    assert_eq!(data_frames(&world, start).iter().map(|(_, records)| *records).collect::<Vec<_>>(), [30; 16]);
    world.run(ms(2));
    assert_eq!(data_frames(&world, start).len(), 17);
}

/// [1.3.1] Fifty changes to one flow between two turns cost one record; an insert and its delete cost nothing [4.2.5].
#[test]
fn changes_to_one_flow_are_coalesced() {
    let mut world = World::elected_pair();
    let start = world.now;
    for state in 0..50 {
        world.update(0, Change::Upsert(Flow { state, ..flow(1) }));
    }
    world.upsert(0, 2);
    world.update(0, Change::Delete(key(2)));
    world.run(ms(5));
    assert_eq!(data_frames(&world, start).iter().map(|(_, records)| *records).collect::<Vec<_>>(), [1]);
    assert_eq!(world.table(1)[&key(1)].state, 49);
}

/// A mark waits for nothing that will never leave: an insert that is cancelled while it waits was marked too.
#[test]
fn a_flush_on_an_idle_master_does_not_wait_for_a_record_that_was_cancelled() {
    let mut world = World::elected_pair();
    world.run_until("in sync", |world| world.sync(1) == SyncState::InSync);
    let start = world.now;
    world.upsert(0, 1);
    world.upsert(0, 2);
    let mut flush = world.engine(0).begin_flush(world.now, Duration::from_secs(60), None).unwrap();
    world.update(0, Change::Delete(key(2)));
    assert_eq!((world.engine(0).flush_state(world.now, &mut flush), flush.seq()), (Ok(FlushState::Waiting), None));
    world.run(ms(20));
    assert_eq!(world.engine(0).flush_state(world.now, &mut flush), Ok(FlushState::Done));
    assert_eq!(data_frames(&world, start).iter().map(|(_, records)| *records).collect::<Vec<_>>(), [1]);
}

/// A mark belongs to one mastership: what it marked was struck with the queue, and not sent.
#[test]
fn a_flush_of_a_former_mastership_is_not_done_by_an_empty_queue_of_a_later_one() {
    let mut world = World::elected_pair();
    world.run_until("in sync", |world| world.sync(1) == SyncState::InSync);
    let begin_anew = |world: &mut World| {
        let now = world.now;
        world.node(0).engine.set_role(now, RoleRequest::Backup);
        world.node(0).engine.set_role(now, RoleRequest::Master);
        world.node(0).engine.handle_committed(now);
        (world.role(0), world.engine(0).status().stream_seq)
    };
    let (_, newest) = begin_anew(&mut world);
    world.upsert(0, 1);
    let mut flush = world.engine(0).begin_flush(world.now, Duration::from_secs(60), None).unwrap();
    assert_eq!(begin_anew(&mut world), (Role::Master, newest), "no frame has left between the two");
    assert_eq!(world.engine(0).flush_state(world.now, &mut flush), Err(NotMaster));
}

/// [4.1.1] [4.2.1] Everything that the master's source says is on the backup, and in its sink.
#[test]
fn a_backup_holds_what_the_master_holds() {
    let mut world = World::elected_pair();
    for number in 0..1000 {
        world.upsert(0, number);
    }
    world.run(ms(20));
    for number in 0..300 {
        world.update(0, Change::Delete(key(number)));
    }
    world.run(ms(500));
    world.assert_equal(0, 1);
    assert_eq!(world.engine(1).status().entries, 700);
    assert_eq!(world.node(1).sink.len(), 700);
    assert_eq!(world.node(1).sink[&key(999)].reply_source, flow(999).reply_source);
    assert_eq!(world.sync(1), SyncState::InSync);
}

/// [3.6.2] [3.6.4] One frame in five is lost in both directions: everything arrives all the same, live, and in order of
/// nothing.
#[test]
fn lost_frames_are_asked_for_and_sent_again() {
    let mut world = World::elected_pair();
    let mut roll = dice(5);
    world.passes = Box::new(move |_, _, _| roll(5) != 0);
    let mut choose = dice(9);
    for _ in 0..400 {
        for _ in 0..20 {
            let number = choose(2000) as u32;
            let change = if choose(3) == 0 { Change::Delete(key(number)) } else { Change::Upsert(flow(number)) };
            world.update(0, change);
        }
        world.run(ms(2));
    }
    world.passes = Box::new(|_, _, _| true);
    let took = world.run_until("equal tables", |world| world.table(0) == world.table(1));
    assert!(took < ms(500), "took {took:?}");
    world.run(ms(300));
    world.assert_equal(0, 1);
    assert_eq!(world.sync(1), SyncState::InSync);
    assert!(world.counter(0, "data_resent") > 10);
    let (sink, table) = (world.node(1).sink.len(), world.table(1).len());
    assert_eq!(sink, table);
}

/// [3.5.7] The last frame of a burst is lost, and nothing follows it: the next ADVERT tells.
#[test]
fn a_lost_tail_is_found_by_the_next_advert() {
    let mut world = World::elected_pair();
    world.passes = Box::new(|_, _, bytes| Frame::parse(bytes).unwrap().header().kind != Kind::DATA);
    world.upsert(0, 1);
    world.run(ms(1));
    world.passes = Box::new(|_, _, _| true);
    assert!(world.table(1).is_empty());
    world.run(ms(110));
    world.assert_equal(0, 1);
    assert_eq!(world.counter(0, "data_resent"), 1);
}

/// [4.1.4] A frame that comes twice is applied once.
#[test]
fn duplicates_are_counted_and_change_nothing() {
    let mut world = World::elected_pair();
    world.upsert(0, 1);
    world.run(ms(2));
    let last_data = world.sent.iter().rfind(|(_, _, bytes)| Frame::parse(bytes).unwrap().header().kind == Kind::DATA);
    let mut bytes = last_data.unwrap().2.clone();
    world.update(0, Change::Delete(key(1)));
    world.run(ms(2));
    world.hand_in(1, &mut bytes);
    assert!(world.table(1).is_empty());
    assert_eq!(world.counter(1, "data_duplicate"), 1);
}

/// [3.5.10] [3.5.3] DATA is taken from the followed stream only: not from a stranger, whatever it writes into the header.
#[test]
fn data_of_a_stranger_or_of_another_stream_is_not_applied() {
    use crate::wire::{DataWriter, FrameFlags, Header};
    let mut world = World::elected_pair();
    let header = Header {
        sync_id: 51,
        kind: Kind::DATA,
        flags: FrameFlags(0),
        node: NodeId(9),
        incarnation: 9,
        seq: 1,
        term: 1,
    };
    let forged = |header| {
        let mut slot = [0; 1480];
        let mut writer = DataWriter::new(&mut slot, header).unwrap();
        assert!(writer.push_upsert(&flow(1)).is_ok());
        let length = writer.finish();
        slot[..length].to_vec()
    };
    world.hand_in(1, &mut forged(header));
    assert_eq!(world.counter(1, "drop_unestablished"), 1);
    // The right node and incarnation, the wrong term.
    world.hand_in(1, &mut forged(Header { node: NodeId(1), incarnation: 1001, term: 2, seq: 50, ..header }));
    assert_eq!(world.counter(1, "data_not_followed"), 1);
    // Another group, and our own id.
    world.hand_in(1, &mut forged(Header { sync_id: 52, ..header }));
    assert_eq!(world.counter(1, "drop_wrong_group"), 1);
    world.hand_in(1, &mut forged(Header { node: NodeId(2), ..header }));
    assert_eq!(world.counter(1, "drop_own_node"), 1);
    world.run(ms(1));
    assert_eq!(world.events(1, "DuplicateNode"), 1);
    assert!(world.table(1).is_empty());
}

/// [3.5.10] Two nodes that take turns with our number are two reports, and not one for each of their frames.
#[test]
fn nodes_that_take_turns_with_our_number_are_no_stream_of_events() {
    let mut world = World::elected_pair();
    let own = |incarnation| {
        let target = crate::wire::Target { node: NodeId(1), incarnation: 1001 };
        let ranges = &[crate::wire::BucketRange::new(0, 1)];
        let (node, kind, seq) = (NodeId(2), Kind::PULL, incarnation);
        let flags = crate::wire::FrameFlags(0);
        let header = crate::wire::Header { sync_id: 51, kind, flags, node, incarnation, seq, term: 1 };
        let mut slot = [0; 1480];
        let length = crate::wire::encode_pull(&mut slot, header, &crate::wire::Pull { target, ranges }).unwrap();
        slot[..length].to_vec()
    };
    let before = world.counter(1, "drop_own_node");
    for nth in 0..1000 {
        world.hand_in(1, &mut own(7 + nth % 2));
    }
    world.run(ms(1));
    assert_eq!((world.counter(1, "drop_own_node") - before, world.events(1, "DuplicateNode")), (1000, 1));
    world.run(Duration::from_secs(11));
    world.hand_in(1, &mut own(7));
    world.run(ms(1));
    assert_eq!(world.events(1, "DuplicateNode"), 1, "this one is known");
    world.hand_in(1, &mut own(8));
    world.run(ms(1));
    assert_eq!(world.events(1, "DuplicateNode"), 2);
}

/// [8.0.2] A full table refuses new keys, says so, and is not proven.
#[test]
fn a_full_table_is_said_and_not_called_in_sync() {
    let small = Config { capacity: 10, ..config(2) };
    let mut world = World::new(vec![Config { priority: 150, ..config(1) }, small]);
    world.run(Duration::from_secs(1));
    world.dump_done(0);
    world.run(ms(300));
    assert_eq!(world.sync(1), SyncState::InSync);
    for number in 0..40 {
        world.upsert(0, number);
    }
    world.run(Duration::from_secs(5));
    assert_eq!(world.events(1, "TableFull"), 1);
    assert!(world.counter(1, "table_full") >= 30);
    assert_ne!(world.sync(1), SyncState::InSync);
    for number in 5..40 {
        world.update(0, Change::Delete(key(number)));
    }
    world.run_until("in sync again", |world| world.sync(1) == SyncState::InSync);
    world.assert_equal(0, 1);
}

/// [1.2.1] What is broken is refused under its name, and changes nothing [3.2.4].
#[test]
fn a_broken_frame_is_counted_under_its_reason() {
    let mut world = World::elected_pair();
    let mut frame = world.sent.last().unwrap().2.clone();
    let before = world.engine(1).status();
    frame[40] ^= 1;
    world.hand_in(1, &mut frame);
    assert_eq!(world.counter(1, "drop_checksum"), 1);
    world.hand_in(1, &mut frame[..20].to_vec());
    assert_eq!(world.counter(1, "drop_size_mismatch"), 1);
    world.hand_in(1, &mut frame[..7].to_vec());
    assert_eq!(world.counter(1, "drop_truncated"), 1);
    frame[4] = 9;
    world.hand_in(1, &mut frame);
    world.hand_in(1, &mut frame);
    world.run(Duration::from_micros(1));
    assert_eq!(world.counter(1, "drop_unknown_version"), 2);
    assert_eq!(world.events(1, "VersionMismatch"), 1);
    assert_eq!(world.engine(1).status().digest, before.digest);
}

/// A source that is not the master's is not listened to.
#[test]
fn a_backup_takes_no_changes_from_its_own_source() {
    let mut world = World::elected_pair();
    let now = world.now;
    let refused = world.node(1).engine.update(now, &Change::Upsert(flow(1)));
    assert_eq!(refused, Err(UpdateError::NotMaster));
    assert!(world.table(1).is_empty());
}

/// What has no form on the wire must not stand in the queue for it, where it would block everything behind it.
#[test]
fn a_flow_that_the_wire_cannot_say_is_refused_at_once() {
    let mut world = World::elected_pair();
    let now = world.now;
    let odd = |direction| {
        let mut odd = flow(1);
        odd.key.zone = Zone { id: 7, direction };
        Change::Upsert(odd)
    };
    assert_eq!(world.node(0).engine.update(now, &odd(3)), Err(UpdateError::Unsupported));
    assert_eq!(world.node(0).engine.update(now, &odd(2)), Ok(()));
    world.upsert(0, 2);
    world.run(ms(10));
    assert_eq!(world.table(1).len(), 2);
}
