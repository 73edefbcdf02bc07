//! Flows that are more than one line of the table: IPv6, attributes, and what a newer version says that this one does not
//! know.

use super::*;
use crate::flow::{Attributes, SequenceAdjustment, attribute};
use crate::wire::{Capabilities, DataWriter, Frame, FrameFlags, Header, Kind, Payload, Record};
use std::net::Ipv6Addr;

/// A type of attribute that no version knows yet.
const UNKNOWN: u8 = 200;

fn address(last: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last))
}

fn wide_key(number: u16) -> FlowKey {
    FlowKey { source: address(number), destination: address(0xffff), ..key(0) }
}

/// IPv6 behind NAT.
fn wide(number: u16) -> Flow {
    let reply_source = Some(Endpoint { address: address(0xeeee), port: 8443 });
    Flow { key: wide_key(number), reply_source, ..flow(0) }
}

fn attributed(flow: Flow, attributes: &[(u8, &[u8])]) -> Flow {
    let mut all = Attributes::NONE;
    attributes.iter().for_each(|(kind, data)| all.set(*kind, data).unwrap());
    Flow { attributes: all, ..flow }
}

/// With a helper, adjusted sequence numbers, counters, and something unknown.
fn rich(flow: Flow) -> Flow {
    let side = SequenceAdjustment { position: 1, before: 2, after: 3 };
    let adjusted = SequenceAdjustment::to_wire(&[side; 2]);
    let helper = (attribute::HELPER, &b"ftp"[..]);
    let counters = (attribute::COUNTERS, &[5; 32][..]);
    attributed(flow, &[(attribute::SEQUENCE_ADJUSTMENT, &adjusted), helper, counters, (UNKNOWN, &[1, 2, 3])])
}

/// One of each kind: both families, with and without attributes.
fn one_of_each() -> [Flow; 4] {
    [flow(1), rich(flow(2)), wide(3), rich(wide(4))]
}

fn filled_pair() -> World {
    let mut world = World::elected_pair();
    for flow in one_of_each() {
        world.update(0, Change::Upsert(flow));
    }
    world.run(ms(250));
    world
}

fn header(seq: u64) -> Header {
    let (kind, flags) = (Kind::DATA, FrameFlags(0));
    Header { sync_id: 51, kind, flags, node: NodeId(1), incarnation: 1001, seq, term: 1 }
}

/// Every flow that node `from` has sent since frame `since` of all frames.
fn said(world: &World, from: usize, since: usize) -> Vec<Flow> {
    let mut said = Vec::new();
    for (_, _, bytes) in world.sent[since..].iter().filter(|(_, by, _)| *by == from) {
        let frame = Frame::parse(bytes).unwrap();
        let Payload::Data(records) = frame.verify().unwrap().payload() else { continue };
        said.extend(records.filter_map(|record| match record {
            Record::Upsert(conn) => Some(conn.flow()),
            _ => None,
        }));
    }
    said
}

/// [1.1.1] [3.3.9] [3.3.10] Both families and all attributes arrive whole, are proven, and reach the sink.
#[test]
fn both_families_and_attributes_converge_and_are_proven() {
    let world = filled_pair();
    world.assert_equal(0, 1);
    assert_eq!(world.sync(1), SyncState::InSync);
    for flow in one_of_each() {
        assert_eq!(world.table(1)[&flow.key].attributes, flow.attributes);
        assert_eq!(world.nodes[1].as_ref().unwrap().sink[&flow.key].attributes, flow.attributes);
    }
    assert_eq!(world.table(1)[&wide_key(3)], Flow { timeout: 0, ..wide(3) });
}

/// [4.5.2] [4.4.5] What a walk brings is whole too.
#[test]
fn a_late_joiner_gets_both_families_and_attributes() {
    let mut world = World::new(vec![Config { priority: 150, ..config(1) }]);
    world.nodes.push(None);
    world.run(Duration::from_secs(1));
    world.dump_done(0);
    for number in 0..2000 {
        world.update(0, Change::Upsert(if number % 2 == 0 { rich(wide(number)) } else { wide(number) }));
        world.upsert(0, u32::from(number));
    }
    world.run(Duration::from_secs(1));
    world.start(1, config(2));
    world.run_until("in sync", |world| world.sync(1) == SyncState::InSync);
    world.assert_equal(0, 1);
    assert_eq!(world.engine(1).status().entries, 4000);
}

/// [4.2.2] Deletes of IPv6 keys, in and out of order, with only a key.
#[test]
fn deletes_of_ipv6_flows_arrive_whatever_is_lost() {
    let mut world = World::elected_pair();
    let mut roll = dice(7);
    world.passes = Box::new(move |_, _, bytes| bytes[5] != Kind::DATA.0 || roll(3) != 0);
    let mut choose = dice(8);
    for _ in 0..1000 {
        let number = choose(60) as u16;
        let change = if choose(2) == 0 {
            Change::Delete(wide_key(number))
        } else {
            Change::Upsert(Flow { mark: choose(100) as u32, ..wide(number) })
        };
        world.update(0, change);
        world.run(ms(1));
    }
    world.passes = Box::new(|_, _, _| true);
    world.run_until("in sync", |world| world.sync(1) == SyncState::InSync && world.table(0) == world.table(1));
    world.assert_equal(0, 1);
    world.engine(1).table.assert_consistent();
    let blocks = |at| (world.engine(at).status().annex_used, world.table(at).len() as u64);
    let ((used, flows), (master_used, _)) = (blocks(1), blocks(0));
    assert_eq!((used, master_used), (2 * flows, 2 * flows), "two blocks each, and none for the dead");
}

/// [3.3.9] A newer master says something that this version does not know: a backup keeps it, survives its master, and says
/// it on, byte for byte.
#[test]
fn an_unknown_attribute_survives_a_takeover_and_is_sent_on_unchanged() {
    let mut world = filled_pair();
    world.start_third();
    world.run_until("in sync", |world| world.sync(2) == SyncState::InSync);
    world.kill(0);
    world.run_until("a takeover", |world| world.role(1) == Role::Master);
    let since = world.sent.len();
    // Its kernel knows nothing of the unknown one: the dump, and every change, names the flows without it.
    let now = world.now;
    let kernel: Vec<Flow> = world.node(1).sink.values().cloned().collect();
    assert_eq!(kernel.len(), 4);
    world.node(1).engine.begin_dump(now);
    for mut flow in kernel {
        flow.attributes.remove(UNKNOWN);
        world.update(1, Change::Upsert(Flow { mark: 5, ..flow }));
    }
    world.node(1).engine.end_dump(now);
    world.start(0, Config { incarnation: 5000, ..config(1) });
    world.run_until("in sync", |world| world.sync(0) == SyncState::InSync && world.sync(2) == SyncState::InSync);
    let told = said(&world, 1, since);
    for flow in [rich(flow(2)), rich(wide(4))] {
        assert_eq!(world.table(0)[&flow.key].mark, 5);
        let on_the_way = told.iter().find(|told| told.key == flow.key).expect("walked for the newcomer");
        assert_eq!(on_the_way.attributes.get(UNKNOWN), Some(&[1, 2, 3][..]));
        assert_eq!(world.table(0)[&flow.key].attributes, flow.attributes);
    }
    world.assert_equal(1, 0);
    world.assert_equal(1, 2);
}

/// [3.3.1] A type of record that comes later is skipped by its length and counted, and all others are applied.
#[test]
fn an_unknown_record_is_skipped_and_the_rest_of_its_frame_is_applied() {
    let mut world = World::elected_pair();
    let seq = world.engine(0).status().stream_seq + 1;
    let mut slot = [0; 1480];
    let mut writer = DataWriter::new(&mut slot, header(seq)).unwrap();
    writer.push_upsert(&wide(1)).unwrap();
    writer.push_bucket_end(77, 0).unwrap();
    writer.push_upsert(&flow(2)).unwrap();
    let length = writer.finish();
    let mut frame = slot[..length].to_vec();
    // The bucket-end becomes a record of type 99; the checksum is made anew.
    let at = frame.windows(4).position(|four| four == [0, 3, 0, 4]).expect("a bucket-end");
    frame[at] = 99;
    frame[8..12].fill(0);
    let checksum = crc32fast::hash(&frame);
    frame[8..12].copy_from_slice(&checksum.to_be_bytes());
    world.hand_in(1, &mut frame);
    assert_eq!((world.counter(1, "records_unknown"), world.counter(1, "records_applied")), (1, 2));
    assert_eq!(world.table(1).keys().copied().collect::<Vec<_>>(), [key(2), wide_key(1)]);
}

/// [4.4.2] Every packet changes the counters: that is nothing to be sent, and no difference between two tables.
#[test]
fn counters_alone_cost_no_record_and_no_proof() {
    let mut world = World::elected_pair();
    let counted = |count| attributed(wide(1), &[(attribute::COUNTERS, &[count; 32])]);
    world.update(0, Change::Upsert(counted(1)));
    world.run(ms(250));
    let (sent, digest) = (world.counter(0, "records_sent"), world.engine(0).status().digest);
    for count in 2..100 {
        world.update(0, Change::Upsert(counted(count)));
        world.run(ms(3));
    }
    assert_eq!((world.counter(0, "records_sent"), world.engine(0).status().digest), (sent, digest));
    assert_eq!(world.sync(1), SyncState::InSync);
    world.update(0, Change::Upsert(Flow { mark: 1, ..counted(100) }));
    world.run(ms(5));
    let held = world.table(1)[&wide_key(1)].attributes.get(attribute::COUNTERS).map(<[u8]>::to_vec);
    assert_eq!(held, Some(vec![100; 32]), "they go along with what is sent");
}

/// [8.0.2] A full annex is a full table: said once, counted, not proven; and repaired as soon as there is room.
#[test]
fn a_full_annex_is_said_and_repaired_when_room_comes() {
    let small = Config { capacity: 10, ..config(2) };
    let mut world = World::new(vec![Config { priority: 150, ..config(1) }, small]);
    world.run(Duration::from_secs(1));
    world.dump_done(0);
    world.run(ms(300));
    // 9 blocks each; the small table has 64 of them, and would have slots for all.
    let heavy = |number| attributed(wide(number), &[(UNKNOWN, &[7; 255]), (UNKNOWN + 1, &[8; 196])]);
    (0..7).for_each(|number| world.update(0, Change::Upsert(heavy(number))));
    world.run(ms(300));
    assert_eq!(world.sync(1), SyncState::InSync);
    assert_eq!((world.engine(1).status().annex_used, world.engine(1).status().annex_blocks), (63, 64));
    world.update(0, Change::Upsert(heavy(7)));
    world.update(
        0,
        Change::Upsert(attributed(heavy(6), &[(UNKNOWN, &[7; 255]), (UNKNOWN + 1, &[8; 255]), (255, &[9; 99])])),
    );
    world.run(ms(2));
    assert_eq!(world.sync(1), SyncState::Diverged, "it need not wait for an ADVERT");
    world.run(Duration::from_secs(20));
    assert_eq!((world.events(1, "TableFull"), world.events(0, "TableFull")), (1, 0));
    // Two more in each walk, and these ever more rarely: about 0.1, 0.2, 0.4, ... 12.8 s after one another.
    let refused = world.counter(1, "annex_full");
    assert!((10..=24).contains(&refused), "{refused}");
    assert_ne!(world.sync(1), SyncState::InSync);
    assert_eq!(world.table(1)[&wide_key(6)], Flow { timeout: 0, ..heavy(6) }, "it keeps the value that it had");
    assert_eq!(world.engine(1).status().entries, 7);
    for number in 0..3 {
        world.update(0, Change::Delete(wide_key(number)));
    }
    let took = world.run_until("in sync again", |world| world.sync(1) == SyncState::InSync);
    assert!(took < Duration::from_secs(1), "took {took:?}");
    world.assert_equal(0, 1);
}

/// [8.0.2] A master that has no room for its source's flow says so by name.
#[test]
fn a_full_annex_refuses_the_source_by_name() {
    let mut world = World::new(vec![Config { priority: 150, capacity: 10, ..config(1) }, config(2)]);
    world.run(Duration::from_secs(1));
    let now = world.now;
    let heavy = |number| Change::Upsert(attributed(wide(number), &[(UNKNOWN, &[7; 255]), (UNKNOWN + 1, &[8; 196])]));
    for number in 0..7 {
        assert_eq!(world.node(0).engine.update(now, &heavy(number)), Ok(()));
    }
    assert_eq!(world.node(0).engine.update(now, &heavy(7)), Err(UpdateError::AnnexFull));
    assert_eq!(world.node(0).engine.update(now, &heavy(8)), Err(UpdateError::AnnexFull));
    assert_eq!(world.node(0).engine.update(now, &Change::Upsert(flow(9))), Ok(()), "a plain flow needs none of it");
    world.run(ms(1));
    assert_eq!((world.counter(0, "annex_full"), world.events(0, "TableFull")), (2, 1));
    assert_eq!(UpdateError::AnnexFull.to_string(), "the annex of the table is full");
}

/// [3.5.13] Every node says what it can take, and shows what its peers can.
#[test]
fn a_node_says_what_it_can_take() {
    let world = World::elected_pair();
    assert_eq!(world.engine(1).status().peers[0].capabilities, Capabilities(31));
    assert!(Capabilities(31).contains(Capabilities::CONN6) && Capabilities(31).contains(Capabilities::ATTRIBUTES));
    assert!(Capabilities(31).contains(Capabilities::DIGESTS) && Capabilities(31).contains(Capabilities::SECTION));
    assert!(Capabilities(31).contains(Capabilities::MERGE));
}

impl World {
    /// A third node joins the pair.
    fn start_third(&mut self) {
        self.nodes.push(None);
        self.start(2, Config { priority: 50, ..config(3) });
    }
}
