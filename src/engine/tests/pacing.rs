//! A peer that pulls the whole table costs a live change no more than 5 ms (docs/protocol.md 4.5.2).

use super::*;
use crate::wire::{Frame, Payload, Record};

fn us(microseconds: u64) -> Duration {
    Duration::from_micros(microseconds)
}

/// When each key was said, from the frame with this place on.
fn said(world: &World, from: usize) -> BTreeMap<FlowKey, Vec<Instant>> {
    let mut said: BTreeMap<FlowKey, Vec<Instant>> = BTreeMap::new();
    for (at, _, bytes) in &world.sent[from..] {
        let Payload::Data(records) = Frame::parse(bytes).unwrap().verify().unwrap().payload() else { continue };
        for record in records {
            if let Record::Upsert(conn) = record {
                said.entry(conn.flow().key).or_default().push(*at);
            }
        }
    }
    said
}

/// What changes met while a cold node pulled 20,000 flows: 5000 changes a second, each of another flow.
#[derive(Debug)]
struct Met {
    changes: usize,
    /// The longest from a change to the frame that says it, and to the cold node's table.
    to_frame: Duration,
    to_table: Duration,
    /// Frames that found the cold node's socket full.
    lost: u32,
}

/// The cold node takes one frame in `pace`, and its socket holds 256. Another backup, which takes everything at once, is in sync.
fn cold_resync(pace: Duration) -> Met {
    const FLOWS: u32 = 20_000;
    let with = |node, priority| Config { priority, history: 4096, ..config(node) };
    let mut world = World::new(vec![with(1, 150), with(2, 100), with(3, 90)]);
    world.kill(1);
    world.run(ms(1000));
    world.dump_done(0);
    for number in 0..FLOWS {
        world.upsert(0, number);
        if number % 50 == 0 {
            world.run(us(100));
        }
    }
    world.run(ms(1000));
    assert_eq!((world.role(0), world.sync(2)), (Role::Master, SyncState::InSync));
    let walked = world.counter(0, "buckets_walked");
    let next_at = world.now;
    world.socket = Some(Socket { node: 1, pace, room: 256, waiting: VecDeque::new(), next_at, lost: 0 });
    world.start(1, Config { incarnation: 77, ..with(2, 100) });
    world.node(1).engine.set_receive_room(256);
    world.run_until("it asks", |world| world.counter(1, "pulls_sent") > 0);
    let from = world.sent.len();
    let mut changes: Vec<(FlowKey, Instant)> = Vec::new();
    let mut open: VecDeque<(FlowKey, u32, Instant)> = VecDeque::new();
    let mut to_table = Duration::ZERO;
    while world.counter(0, "buckets_walked") - walked < 4096 || !open.is_empty() {
        let number = changes.len() as u32 + 1;
        let changed = Flow { mark: number, ..flow(number * 7919 % FLOWS) };
        changes.push((changed.key, world.now));
        open.push_back((changed.key, number, world.now));
        world.update(0, Change::Upsert(changed));
        world.run(us(200));
        let now = world.now;
        while let Some((_, _, at)) =
            open.pop_front_if(|(key, mark, _)| world.engine(1).flow(key, now).is_some_and(|flow| flow.mark == *mark))
        {
            to_table = to_table.max(now.since(at));
        }
        assert!(changes.len() < 10_000, "the walk does not end");
    }
    let said = said(&world, from);
    let sent = |(key, at): &(FlowKey, Instant)| said[key].iter().find(|sent| *sent >= at).map(|sent| sent.since(*at));
    let to_frame = changes[..changes.len() - 50].iter().map(|change| sent(change).unwrap()).max().unwrap();
    Met { changes: changes.len(), to_frame, to_table, lost: world.socket.as_ref().unwrap().lost }
}

/// [4.5.2] Of each change: on the wire within `batch_delay` (1 ms), whatever is pulled; and in the table of a node that takes
/// 20,000 frames a second within 5 ms: that is 64 frames of a walk and the three that were queued. Nothing overflows its
/// socket, from the first frame of the walk on: it was paced by STATUS before an ADVERT could say whom it follows.
#[test]
fn a_cold_resync_of_a_large_table_delays_no_live_change_by_more_than_5_ms() {
    let met = cold_resync(us(50));
    assert!(met.changes > 100, "{met:?}");
    assert!(met.to_frame <= ms(1), "{met:?}");
    assert!(met.to_table <= ms(5), "{met:?}");
    assert_eq!(met.lost, 0);
}

/// [4.5.2] A node that takes half as many waits twice as long for what is in its socket; what leaves the master is not delayed.
#[test]
fn a_slow_puller_delays_itself_only() {
    let met = cold_resync(us(100));
    assert!(met.to_frame <= ms(1), "{met:?}");
    assert!(met.to_table <= ms(10), "{met:?}");
    assert_eq!(met.lost, 0);
}
