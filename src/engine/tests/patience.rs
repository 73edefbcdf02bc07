//! A follower that stands still, is released, comes back, and stands still again (docs/protocol.md 3.6.10).

use super::*;
use crate::wire::{Frame, Payload, PeerReport, Status, encode_advert, encode_status};

/// Node 0 is master; 1 and 2 follow it, and are in sync.
fn three_in_sync() -> World {
    let with = |node, priority| Config { priority, ..config(node) };
    let mut world = World::new(vec![with(1, 150), with(2, 100), with(3, 90)]);
    world.run(ms(1000));
    world.dump_done(0);
    world.run_until("in sync", |world| [1, 2].iter().all(|at| world.sync(*at) == SyncState::InSync));
    world.run(ms(300));
    world
}

/// The same frame, said by a node that can take nothing.
fn without_credit(bytes: &[u8]) -> Vec<u8> {
    let frame = Frame::parse(bytes).unwrap();
    let header = frame.header();
    let mut slot = [0; 1480];
    let length = match frame.verify().unwrap().payload() {
        Payload::Advert(mut advert) => {
            let nothing = |it: &PeerReport| PeerReport::new(it.node(), it.incarnation(), 0, it.heard(), it.frontier());
            let peers: Vec<PeerReport> = advert.peers.iter().map(nothing).collect();
            advert.peers = &peers;
            encode_advert(&mut slot, header, &advert).unwrap()
        }
        Payload::Status(status) => encode_status(&mut slot, header, &Status { credit: 0, ..status }).unwrap(),
        _ => return bytes.to_vec(),
    };
    slot[..length].to_vec()
}

/// For so long, node 2 says that it can take nothing whenever it is heeded, and that it can when it is not. The longest that a
/// change of the master took to reach node 1.
fn besieged(world: &mut World, time: Duration) -> Duration {
    let (end, mut slowest) = (world.now + time, Duration::ZERO);
    let mut seen = world.sent.len();
    let mut number = 0;
    while world.now < end {
        number = (number + 1) % 1000;
        let mark = 1 + (world.now.since(Instant::ZERO).as_micros() % 1_000_000_007) as u32;
        let changed = Flow { mark, ..flow(number) };
        world.update(0, Change::Upsert(changed.clone()));
        let at = world.now;
        while world.engine(1).flow(&changed.key, world.now).is_none_or(|held| held.mark != mark) {
            world.run(Duration::from_micros(100));
            for at in std::mem::replace(&mut seen, world.sent.len())..world.sent.len() {
                let (_, from, mut bytes) = world.sent[at].clone();
                if from == 2 {
                    let peers = world.engine(0).status().peers;
                    let heeded = peers.iter().any(|peer| peer.node == NodeId(3) && !peer.lagging);
                    if heeded {
                        bytes = without_credit(&bytes);
                    }
                    world.hand_in(0, &mut bytes);
                }
            }
        }
        slowest = slowest.max(world.now.since(at));
    }
    slowest
}

/// [3.6.10] One that says again and again that it can take nothing costs the others 500 ms, then 250, and so on: after a
/// second, in which it was released eight times or so, no change waits for it for longer than 5 ms any more. When it has behaved
/// for ten minutes it is waited for as before.
#[test]
fn who_is_released_and_stands_still_again_is_waited_for_ever_more_shortly() {
    let mut world = three_in_sync();
    world.passes = Box::new(|from, _, _| from != 2);
    let first = besieged(&mut world, ms(400));
    assert!((ms(490)..ms(520)).contains(&first), "{first:?}");
    let second = besieged(&mut world, ms(200));
    assert!((ms(240)..ms(270)).contains(&second), "{second:?}");
    besieged(&mut world, ms(1200));
    let released = world.counter(0, "lagging_released");
    assert!(released >= 8, "{released}");
    let slowest = besieged(&mut world, Duration::from_secs(10));
    assert!(slowest <= ms(7), "{slowest:?}: 5 ms, and the next frame");
    let released = world.counter(0, "lagging_released") - released;
    assert!(released > 100, "{released}: it goes on");
    let reported = world.events(0, "Lagging");
    assert!((10..=13).contains(&reported), "{reported} reports in 12 s");
    world.passes = Box::new(|_, _, _| true);
    world.run(Duration::from_secs(14 * 60));
    world.assert_equal(0, 2);
    world.passes = Box::new(|from, _, _| from != 2);
    let again = besieged(&mut world, ms(400));
    assert!((ms(490)..ms(520)).contains(&again), "{again:?}");
}
