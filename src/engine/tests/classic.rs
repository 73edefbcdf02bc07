//! The classic profile: what leaves and when, what a record does at the receiver, and how it ends.

use crate::engine::classic::{ClassicConfig, ClassicEngine, REFRESH_PERIOD};
use crate::engine::{Event, Role, RoleRequest, Store, SyncState, UpdateError};
use crate::flow::{Change, Endpoint, Flow, FlowKey, SequenceAdjustment, Zone, attribute, protocol, status};
use crate::time::{Duration, Instant};
use crate::wire::classic::{Message, Writer};
use crate::wire::ipvs::{Connection, ConnectionFlags};
use crate::wire::{FrameMeta, NodeId};
use std::net::IpAddr;

const DELAY: Duration = Duration::from_millis(10);
const OWN: [u8; 4] = [10, 255, 0, 1];
const OTHER: [u8; 4] = [10, 255, 0, 2];

fn at(milliseconds: u64) -> Instant {
    Instant::from_nanos(milliseconds * 1_000_000)
}

fn engine(role: RoleRequest) -> ClassicEngine {
    let config = ClassicConfig {
        node: NodeId(1),
        sync_id: 51,
        capacity: 100,
        batch_delay: DELAY,
        seed: 7,
        own_addresses: vec![IpAddr::from(OWN)],
    };
    let mut engine = ClassicEngine::new(config, at(0));
    engine.handle_link(at(0), true);
    engine.set_role(at(0), role);
    while engine.poll_event().is_some() {}
    engine
}

fn flow(port: u16) -> Flow {
    let key = FlowKey {
        source: IpAddr::from([10, 0, 0, 1]),
        destination: IpAddr::from([192, 0, 2, 10]),
        source_port: port,
        destination_port: 80,
        protocol: protocol::TCP,
        zone: Zone::DEFAULT,
    };
    let server = Endpoint { address: IpAddr::from([10, 1, 0, 20]), port: 8080 };
    let status = status::SEEN_REPLY | status::ASSURED | status::CONFIRMED | status::DST_NAT | status::DST_NAT_DONE;
    Flow { reply_source: Some(server), state: 3, status, timeout: 432_000, ..Flow::new(key) }
}

fn udp(port: u16) -> Flow {
    let mut flow = flow(port);
    (flow.key.protocol, flow.state) = (protocol::UDP, 0);
    flow
}

fn put(engine: &mut ClassicEngine, now: Instant, flow: Flow) {
    engine.update(now, &Change::Upsert(flow)).unwrap();
}

fn delete(engine: &mut ClassicEngine, now: Instant, flow: &Flow) {
    engine.update(now, &Change::Delete(flow.key)).unwrap();
}

fn next_frame(engine: &mut ClassicEngine, now: Instant) -> Option<Vec<u8>> {
    let mut slot = [0; 1500];
    let len = engine.poll_transmit(now, &mut slot)?;
    Some(slot[..len].to_vec())
}

/// Client port and IPVS's state of each record of a frame.
fn said(frame: &[u8]) -> Vec<(u16, u16)> {
    let records = Message::parse(frame).unwrap().verify().unwrap();
    records.map(|record| record.map(|said| (said.client.port, said.state)).unwrap()).collect()
}

fn meta(source: [u8; 4]) -> FrameMeta {
    FrameMeta { link: 0, source: IpAddr::from(source) }
}

fn message(connections: &[Connection<'_>]) -> Vec<u8> {
    let mut slot = [0; 1208];
    let mut writer = Writer::new(&mut slot, 51).unwrap();
    assert!(connections.iter().all(|connection| writer.push(connection)));
    let len = writer.finish();
    slot[..len].to_vec()
}

fn hear(engine: &mut ClassicEngine, now: Instant, flows: &[Flow]) {
    let connections: Vec<_> = flows.iter().map(|flow| Connection::of_flow(flow).unwrap()).collect();
    engine.handle_frame(now, meta(OTHER), &message(&connections));
}

fn counter(engine: &ClassicEngine, name: &str) -> u64 {
    let status = engine.status();
    status.counters.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("no counter {name}")).1
}

/// Every flow of the table: client port, state, seconds left.
fn table(engine: &ClassicEngine, now: Instant) -> Vec<(u16, u8, u32)> {
    let flows = engine.flows_in(0..engine.slots(), now);
    let mut rows: Vec<_> = flows.map(|flow| (flow.key.source_port, flow.state, flow.timeout)).collect();
    rows.sort_unstable();
    rows
}

fn applied(engine: &mut ClassicEngine, now: Instant) -> Vec<Change> {
    let mut batch = Vec::new();
    engine.poll_applied(now, &mut batch, 1000);
    batch
}

/// Turns as the loop would, until `end`; the frames that leave.
fn turn_until(engine: &mut ClassicEngine, end: Instant) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut turns = 0;
    while let Some(due) = engine.poll_timeout().filter(|due| *due <= end) {
        turns += 1;
        assert!(turns < 100_000, "it spins");
        engine.handle_timeout(due);
        while let Some(frame) = next_frame(engine, due) {
            frames.push(frame);
        }
    }
    frames
}

/// [3.1.5]
#[test]
fn a_frame_leaves_when_it_is_full_or_its_oldest_record_has_waited() {
    let mut master = engine(RoleRequest::Master);
    master.handle_timeout(at(0));
    put(&mut master, at(100), flow(1));
    for port in 2..=49 {
        put(&mut master, at(105), flow(port));
    }
    assert_eq!(next_frame(&mut master, at(109)), None);
    assert_eq!(master.poll_timeout(), Some(at(110)), "the oldest has then waited for 10 ms");
    put(&mut master, at(109), flow(50));
    put(&mut master, at(109), flow(51));
    let frame = next_frame(&mut master, at(109)).expect("50 records fill it");
    assert_eq!((frame.len(), said(&frame)[0], said(&frame)[49]), (1208, (1, 1), (50, 1)));
    assert_eq!(next_frame(&mut master, at(118)), None, "the rest waits for company");
    assert_eq!(said(&next_frame(&mut master, at(119)).unwrap()), [(51, 1)]);
    assert_eq!((next_frame(&mut master, at(500)), counter(&master, "frames_sent")), (None, 2));
    assert_eq!(counter(&master, "records_sent"), 51);
}

/// [3.1.5]
#[test]
fn of_fifty_changes_of_a_flow_the_last_one_is_sent() {
    let mut master = engine(RoleRequest::Master);
    for state in [1, 2, 3, 4, 5, 6, 7, 8, 4] {
        put(&mut master, at(100), Flow { state, ..flow(1) });
    }
    assert_eq!(master.status().pending, 1);
    assert_eq!(said(&next_frame(&mut master, at(200)).unwrap()), [(1, 4)], "FIN_WAIT");
    assert_eq!(next_frame(&mut master, at(300)), None);
}

/// [3.1.8]
#[test]
fn every_flow_is_sent_again_within_the_period_so_that_a_late_joiner_learns() {
    assert_eq!(REFRESH_PERIOD, Duration::from_secs(30));
    let mut master = engine(RoleRequest::Master);
    for port in 1..=90 {
        put(&mut master, at(0), flow(port));
    }
    turn_until(&mut master, at(1_000));
    let mut late = engine(RoleRequest::Backup);
    let mut records = 0;
    for frame in turn_until(&mut master, at(31_500)) {
        records += said(&frame).len();
        late.handle_frame(at(31_500), meta(OTHER), &frame);
    }
    assert_eq!(table(&late, at(31_500)).len(), 90);
    assert!((90..=95).contains(&records), "each about once: {records}");
}

/// [3.1.8] Late steps are made up for, but not those of a night.
#[test]
fn a_slow_machine_keeps_the_period_and_one_that_slept_does_not_burst() {
    let mut master = engine(RoleRequest::Master);
    put(&mut master, at(0), flow(1));
    let refreshed = |engine: &ClassicEngine| counter(engine, "records_refreshed");
    let mut late = at(0);
    for _ in 0..300 {
        // Each step, and the one that was missed meanwhile.
        late = master.poll_timeout().unwrap() + Duration::from_millis(130);
        master.handle_timeout(late);
        master.handle_timeout(late);
        next_frame(&mut master, late + DELAY);
    }
    assert!(late < at(80_000) && refreshed(&master) >= 2, "{late:?}: {}", refreshed(&master));
    let (before, morning) = (refreshed(&master), late + Duration::from_secs(8 * 3600));
    let mut turns = 0;
    while master.poll_timeout().unwrap() <= morning {
        turns += 1;
        master.handle_timeout(morning);
        next_frame(&mut master, morning);
    }
    assert!(turns <= 12 && refreshed(&master) <= before + 1, "{turns} turns");
}

/// [3.1.6] A record restarts the clock of its state, and nothing but age ends a flow.
#[test]
fn a_flow_ages_out_by_the_time_out_of_its_state() {
    let mut backup = engine(RoleRequest::Backup);
    hear(&mut backup, at(0), &[flow(1), Flow { state: 8, ..flow(2) }, Flow { state: 7, ..flow(3) }, udp(4)]);
    assert_eq!(table(&backup, at(0)), [(1, 3, 900), (2, 8, 10), (3, 7, 120), (4, 0, 300)]);
    assert_eq!(applied(&mut backup, at(0)).len(), 4);
    turn_until(&mut backup, at(9_000));
    assert_eq!(table(&backup, at(9_000)).len(), 4);
    turn_until(&mut backup, at(11_000));
    assert_eq!(table(&backup, at(11_000)), [(1, 3, 889), (3, 7, 109), (4, 0, 289)]);
    assert_eq!(applied(&mut backup, at(11_000)), [Change::Delete(flow(2).key)], "the sink hears of it");
    hear(&mut backup, at(500_000), &[flow(1)]);
    turn_until(&mut backup, at(1_300_000));
    assert_eq!(table(&backup, at(1_300_000)), [(1, 3, 100)]);
    turn_until(&mut backup, at(1_401_000));
    assert_eq!(table(&backup, at(1_401_000)), []);
    assert_eq!((counter(&backup, "records_aged"), backup.poll_timeout()), (4, None));
}

/// [3.1.6] The time-outs of the state and not the source's, or the tables would differ in all but name.
#[test]
fn a_masters_table_has_the_time_outs_that_its_backups_give() {
    let mut master = engine(RoleRequest::Master);
    put(&mut master, at(0), flow(1));
    put(&mut master, at(0), Flow { state: 8, ..flow(2) });
    put(&mut master, at(0), udp(3));
    assert_eq!(table(&master, at(0)), [(1, 3, 900), (2, 8, 10), (3, 0, 300)]);
}

/// [3.1.6]
#[test]
fn of_two_records_about_one_flow_the_later_one_counts() {
    let mut backup = engine(RoleRequest::Backup);
    hear(&mut backup, at(0), &[flow(1), Flow { state: 4, ..flow(1) }]);
    assert_eq!(table(&backup, at(0)), [(1, 4, 120)]);
    hear(&mut backup, at(1_000), &[Flow { state: 8, ..flow(1) }, flow(1)]);
    assert_eq!(table(&backup, at(1_000)), [(1, 3, 900)]);
}

/// [3.1.8]
#[test]
fn a_delete_is_said_as_the_closing_state_where_there_is_one() {
    let mut master = engine(RoleRequest::Master);
    put(&mut master, at(0), flow(1));
    put(&mut master, at(0), udp(2));
    assert_eq!(said(&next_frame(&mut master, at(10)).unwrap()), [(1, 1), (2, 0)]);
    delete(&mut master, at(20), &flow(1));
    delete(&mut master, at(20), &udp(2));
    assert_eq!(table(&master, at(20)), []);
    assert_eq!(said(&next_frame(&mut master, at(30)).unwrap()), [(1, 6)], "CLOSE");
    assert_eq!((next_frame(&mut master, at(99)), master.status().pending), (None, 0));
    assert_eq!((counter(&master, "deletes_unsaid"), counter(&master, "records_sent")), (1, 3));
    let mut sctp = udp(4);
    (sctp.key.protocol, sctp.state) = (protocol::SCTP, 4);
    put(&mut master, at(100), sctp.clone());
    assert_eq!(said(&next_frame(&mut master, at(110)).unwrap()), [(4, 8)], "ESTABLISHED");
    delete(&mut master, at(110), &sctp);
    assert_eq!(said(&next_frame(&mut master, at(120)).unwrap()), [(4, 13)], "CLOSED");
    // A flow that nobody was told of needs no last word.
    put(&mut master, at(150), flow(3));
    delete(&mut master, at(151), &flow(3));
    assert_eq!((next_frame(&mut master, at(199)), counter(&master, "deletes_unsaid")), (None, 1));
    delete(&mut master, at(200), &udp(9));
    assert_eq!(next_frame(&mut master, at(299)), None);
}

#[test]
fn deletes_that_cannot_be_said_do_not_hold_up_the_rest() {
    let mut master = engine(RoleRequest::Master);
    for port in 1..=60 {
        put(&mut master, at(0), udp(port));
    }
    while next_frame(&mut master, at(10)).is_some() || next_frame(&mut master, at(20)).is_some() {}
    for port in 1..=60 {
        delete(&mut master, at(30), &udp(port));
    }
    put(&mut master, at(30), flow(1));
    assert_eq!(next_frame(&mut master, at(30)), None, "one record fills nothing");
    assert_eq!(said(&next_frame(&mut master, at(40)).unwrap()), [(1, 1)]);
    assert_eq!(counter(&master, "deletes_unsaid"), 60);
}

/// [3.1.8]
#[test]
fn what_a_dump_does_not_name_is_closed() {
    let mut master = engine(RoleRequest::Master);
    put(&mut master, at(0), flow(1));
    put(&mut master, at(0), flow(2));
    assert!(next_frame(&mut master, at(10)).is_some());
    master.begin_dump(at(20));
    put(&mut master, at(20), flow(2));
    master.end_dump(at(20));
    assert_eq!(said(&next_frame(&mut master, at(40)).unwrap()), [(1, 6)]);
    assert_eq!((table(&master, at(40)).len(), counter(&master, "dump_deletes")), (1, 1));
}

/// [3.1.7]
#[test]
fn what_no_record_can_say_is_refused_and_counted_by_reason() {
    let mut master = engine(RoleRequest::Master);
    put(&mut master, at(0), flow(1));
    assert!(next_frame(&mut master, at(10)).is_some());
    let gateway = Some(Endpoint { address: IpAddr::from([10, 9, 9, 9]), port: 1 });
    let mut zoned = flow(3);
    zoned.key.zone.id = 7;
    let mut ping = flow(4);
    ping.key.protocol = protocol::ICMP;
    let mut six = flow(5);
    six.key.source = IpAddr::from([0; 16]);
    for unsayable in [Flow { reply_destination: gateway, ..flow(1) }, zoned, ping, six] {
        assert_eq!(master.update(at(20), &Change::Upsert(unsayable)), Err(UpdateError::Unsupported));
    }
    for reason in ["source_nat", "zone", "protocol", "family"] {
        assert_eq!(counter(&master, &format!("unsaid_{reason}")), 1, "{reason}");
    }
    assert_eq!(said(&next_frame(&mut master, at(40)).unwrap()), [(1, 6)], "what was said of it before is taken back");
}

/// [3.1.4] What comes from an own address is an echo, whatever it says; what is of another group is not ours.
#[test]
fn echoes_and_other_groups_are_refused_by_name() {
    let mut backup = engine(RoleRequest::Backup);
    let good = message(&[Connection::of_flow(&flow(1)).unwrap()]);
    backup.handle_frame(at(0), meta(OWN), &good);
    let mut elsewhere = good.clone();
    elsewhere[1] = 50;
    let sum = u16::from_be_bytes([good[6], good[7]]) + 1;
    elsewhere[6..8].copy_from_slice(&sum.to_be_bytes());
    backup.handle_frame(at(0), meta(OTHER), &elsewhere);
    assert_eq!((counter(&backup, "drop_own_node"), counter(&backup, "drop_wrong_group")), (1, 1));
    assert_eq!((table(&backup, at(0)), counter(&backup, "frames_received")), (vec![], 2));
    backup.handle_frame(at(0), meta(OTHER), &good);
    assert_eq!(table(&backup, at(0)).len(), 1);
}

/// [3.1.4]
#[test]
fn only_a_backup_takes_records_and_only_a_master_sends_them() {
    let mut master = engine(RoleRequest::Master);
    hear(&mut master, at(0), &[flow(1)]);
    assert_eq!((table(&master, at(0)), counter(&master, "ignored_by_role")), (vec![], 1));
    let mut backup = engine(RoleRequest::Backup);
    assert_eq!(backup.update(at(0), &Change::Upsert(flow(1))), Err(UpdateError::NotMaster));
    hear(&mut backup, at(0), &[flow(1)]);
    assert_eq!(next_frame(&mut backup, at(1_000)), None);
    let sync = |engine: &ClassicEngine| (engine.status().sync, engine.status().master);
    assert_eq!(sync(&backup), (SyncState::Unknown, None));
    backup.set_role(at(2_000), RoleRequest::Master);
    assert_eq!(backup.poll_event(), Some(Event::RoleChanged { from: Role::Backup, to: Role::Master, term: 0 }));
    assert_eq!(sync(&backup), (SyncState::Source, Some(NodeId(1))));
    let frames = turn_until(&mut backup, at(32_500));
    assert_eq!(said(&frames[0]), [(1, 1)], "what it was sent, it sends");
    backup.set_role(at(33_000), RoleRequest::Backup);
    assert_eq!(table(&backup, at(33_000)).len(), 1);
}

/// [3.1.4]
#[test]
fn a_link_that_is_down_changes_no_role_and_loses_nothing() {
    let mut master = engine(RoleRequest::Master);
    master.handle_timeout(at(0));
    master.handle_link(at(0), false);
    put(&mut master, at(0), flow(1));
    assert_eq!((next_frame(&mut master, at(50)), master.role()), (None, Role::Master));
    assert_ne!(master.poll_timeout(), Some(at(10)), "nothing to wake up for");
    master.handle_link(at(60), true);
    assert_eq!(said(&next_frame(&mut master, at(60)).unwrap()), [(1, 1)]);
    let events: Vec<_> = std::iter::from_fn(|| master.poll_event()).collect();
    assert_eq!(events, [Event::LinkDown, Event::LinkUp]);
}

#[test]
fn who_leaves_says_first_what_is_queued() {
    let mut master = engine(RoleRequest::Master);
    for port in 1..=60 {
        put(&mut master, at(0), flow(port));
    }
    master.leave(at(1));
    assert_eq!(said(&next_frame(&mut master, at(1)).unwrap()).len(), 50);
    assert_eq!(master.role(), Role::Master);
    assert_eq!(said(&next_frame(&mut master, at(1)).unwrap()).len(), 10);
    assert_eq!((master.role(), master.poll_timeout()), (Role::None, None));
    let mut backup = engine(RoleRequest::Backup);
    backup.leave(at(1));
    assert_eq!(backup.role(), Role::None);
}

/// [3.1.7]
/// Whom the link leaves while it leaves has nobody to tell, and must not turn for ever.
#[test]
fn who_leaves_and_loses_the_link_is_gone() {
    let mut master = engine(RoleRequest::Master);
    put(&mut master, at(100), flow(1));
    master.leave(at(100));
    assert_eq!((master.role(), master.poll_timeout()), (Role::Master, Some(Instant::ZERO)));
    master.handle_link(at(101), false);
    assert_eq!((master.role(), master.poll_timeout()), (Role::None, None));
}

/// The closing record of a flow whose values stand in the annex says what its other records said.
#[test]
fn a_flow_with_attributes_is_closed_at_its_own_server() {
    let mut master = engine(RoleRequest::Master);
    let mut helped = flow(1);
    helped.attributes.set(attribute::HELPER, b"ftp").unwrap();
    let side = SequenceAdjustment { position: 1, before: 2, after: 3 };
    let adjusted = SequenceAdjustment::to_wire(&[side; 2]);
    helped.attributes.set(attribute::SEQUENCE_ADJUSTMENT, &adjusted).unwrap();
    put(&mut master, at(100), helped.clone());
    let server = |frame: &[u8]| {
        let records = Message::parse(frame).unwrap().verify().unwrap();
        records.map(|said| said.map(|said| (said.server, said.state, said.sequences.is_some())).unwrap()).next()
    };
    let open = next_frame(&mut master, at(110)).expect("due");
    assert_eq!(server(&open), Some((flow(1).reply_source.unwrap(), 1, true)));
    delete(&mut master, at(120), &helped);
    let closed = next_frame(&mut master, at(130)).expect("due");
    assert_eq!(server(&closed), Some((flow(1).reply_source.unwrap(), 6, false)));
}

#[test]
fn templates_and_what_is_not_translated_stay_in_the_table() {
    let mut backup = engine(RoleRequest::Backup);
    let plain = flow(1);
    let connection = Connection::of_flow(&plain).unwrap();
    let client = |port| Endpoint { port, ..connection.client };
    let template = Connection { client: client(0), flags: ConnectionFlags(0x1000), state: 0, ..connection };
    let direct = Connection { client: client(2), flags: ConnectionFlags(3), ..connection };
    backup.handle_frame(at(0), meta(OTHER), &message(&[template, connection, direct]));
    assert_eq!(table(&backup, at(0)), [(0, 0, 180), (1, 3, 900), (2, 3, 900)]);
    let sunk: Vec<u16> = applied(&mut backup, at(0)).iter().map(|change| change.key().source_port).collect();
    assert_eq!(sunk, [1]);
    turn_until(&mut backup, at(182_000));
    assert_eq!((table(&backup, at(182_000)).len(), applied(&mut backup, at(182_000))), (2, vec![]));
}

/// What a dead template was is forgotten with its attributes: to say its end as that of a connection would make one.
#[test]
fn the_end_of_a_template_is_not_said() {
    let mut node = engine(RoleRequest::Backup);
    let plain = flow(1);
    let connection = Connection::of_flow(&plain).unwrap();
    let client = |port| Endpoint { port, ..connection.client };
    let template = Connection { client: client(0), flags: ConnectionFlags(0x1000), state: 0, ..connection };
    let direct = Connection { client: client(2), flags: ConnectionFlags(3), ..connection };
    node.handle_frame(at(0), meta(OTHER), &message(&[template, connection, direct]));
    node.set_role(at(0), RoleRequest::Master);
    node.begin_dump(at(0));
    node.end_dump(at(0));
    let frames: Vec<_> = turn_until(&mut node, at(100)).iter().flat_map(|frame| said(frame)).collect();
    assert_eq!((frames, counter(&node, "deletes_unsaid")), (vec![(1, 6)], 2));
}

/// [3.1.2]
#[test]
fn a_record_of_an_unknown_protocol_is_stepped_over_and_counted() {
    let mut backup = engine(RoleRequest::Backup);
    let plain = flow(1);
    let connection = Connection::of_flow(&plain).unwrap();
    let tunnel = Connection { protocol: 47, ..connection };
    backup.handle_frame(at(0), meta(OTHER), &message(&[tunnel, connection]));
    assert_eq!((table(&backup, at(0)).len(), counter(&backup, "records_unknown")), (1, 1));
}

/// [3.1.3]
#[test]
fn another_version_is_reported_once() {
    let mut backup = engine(RoleRequest::Backup);
    let mut frame = [0; 40];
    (frame[3], frame[4], frame[15]) = (40, 1, 7);
    for _ in 0..3 {
        backup.handle_frame(at(0), meta(OTHER), &frame);
    }
    assert_eq!(counter(&backup, "drop_unknown_version"), 3);
    let events: Vec<_> = std::iter::from_fn(|| backup.poll_event()).collect();
    assert_eq!(events, [Event::VersionMismatch { node: NodeId(7), version: 1 }]);
}

#[test]
fn a_full_table_refuses_what_is_new_and_says_so_once() {
    let mut master = engine(RoleRequest::Master);
    let results: Vec<_> = (1..=102).map(|port| master.update(at(0), &Change::Upsert(flow(port)))).collect();
    assert_eq!(results[99..], [Ok(()), Err(UpdateError::TableFull), Err(UpdateError::TableFull)]);
    assert_eq!(counter(&master, "table_full"), 2);
    let events: Vec<_> = std::iter::from_fn(|| master.poll_event()).collect();
    assert_eq!(events, [Event::TableFull { store: Store::Flows, capacity: 100 }]);
}

/// What a loop shows as rates moves under the names of SSYNCP/1.
#[test]
fn what_moves_is_told_under_the_names_of_the_other_profile() {
    let mut master = engine(RoleRequest::Master);
    (1..=3).for_each(|port| put(&mut master, at(0), flow(port)));
    let mut slot = [0; 1500];
    assert!(master.poll_transmit(at(20), &mut slot).is_some());
    let rates = master.rates();
    assert_eq!((rates.updates, rates.records_sent, rates.frames_sent), (3, 3, 1));
    assert_eq!((rates.frames_received, rates.records_applied), (0, 0));
}
