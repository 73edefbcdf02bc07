//! From no secret to a secret, and from one secret to the next, one node after the other (docs/protocol.md 3.4.7, 3.4.8).

use super::seal::secret;
use super::*;
use crate::wire::SECRETS_MAX;

/// What one node has configured: the numbers of its secrets, best first, and what it asks of others.
type Stand = (&'static [u8], Auth);

const ROLL_OUT: &[Stand] = &[(&[], Auth::Off), (&[1], Auth::Permissive), (&[1], Auth::Enforce)];
const ROTATION: &[Stand] =
    &[(&[1], Auth::Enforce), (&[1, 2], Auth::Enforce), (&[2, 1], Auth::Enforce), (&[2], Auth::Enforce)];

fn stood(config: Config, (ids, auth): Stand) -> Config {
    Config { secrets: ids.iter().map(|id| secret(*id)).collect(), auth, advert_interval: ms(20), ..config }
}

fn group(nodes: u32, stand: Stand) -> World {
    let configs = (1..=nodes).map(|node| stood(Config { priority: 200 - 50 * node as u8, ..config(node) }, stand));
    let mut world = World::new(configs.collect());
    world.run(ms(500));
    assert_eq!(world.role(0), Role::Master);
    world.dump_done(0);
    world.run(ms(200));
    world
}

fn reload(world: &mut World, at: usize, (ids, auth): Stand) {
    let now = world.now;
    world.node(at).engine.set_secrets(now, ids.iter().map(|id| secret(*id)).collect(), auth).unwrap();
}

/// A change each millisecond at whoever is master.
fn run_with_changes(world: &mut World, milliseconds: u32, number: &mut u32) {
    for _ in 0..milliseconds {
        *number += 1;
        if let Some(at) = (0..world.nodes.len()).find(|at| world.role(*at) == Role::Master) {
            world.upsert(at, *number % 500);
        }
        world.run(ms(1));
    }
}

/// Frames that were refused for their seal, by anybody.
fn refused(world: &World) -> u64 {
    let names = ["drop_unsealed", "drop_sealed", "drop_forged"];
    (0..world.nodes.len()).map(|at| names.iter().map(|name| world.counter(at, name)).sum::<u64>()).sum()
}

/// Whether the status of one node says that nothing is lost when it takes another stand: every peer has left what it would no
/// longer take, and each has something to seal with that all others take.
fn is_ready(status: &EngineStatus, (ids, auth): Stand) -> bool {
    let seals = |opens: &[u8], enforces: bool| {
        let clear = (!enforces).then_some(None);
        opens.iter().map(|id| Some(*id)).chain(clear).collect::<Vec<Option<u8>>>()
    };
    let own = seals(ids, auth == Auth::Enforce);
    let theirs: Vec<_> = status.peers.iter().map(|peer| seals(&peer.seal.opens, peer.seal.enforces)).collect();
    let all: Vec<_> = theirs.iter().chain([&own]).collect();
    let in_common = own.iter().any(|seal| all.iter().all(|takes| takes.contains(seal)));
    in_common && status.peers.iter().all(|peer| own.contains(&peer.seal.sealed_with))
}

/// Takes the nodes in this order from stand to stand. Whether each was ready for it.
fn walk(nodes: u32, stands: &[Stand], order: &[usize]) -> bool {
    let mut world = group(nodes, stands[0]);
    let mut stand = vec![0; nodes as usize];
    let (mut number, mut always_ready) = (0, true);
    run_with_changes(&mut world, 20, &mut number);
    for at in order {
        stand[*at] += 1;
        let next = stands[stand[*at]];
        always_ready &= is_ready(&world.engine(*at).status(), next);
        reload(&mut world, *at, next);
        run_with_changes(&mut world, 50, &mut number);
        if always_ready {
            assert_eq!(refused(&world), 0, "{order:?}, at {stand:?}");
            assert_eq!((0..nodes as usize).map(|at| world.events(at, "PeerDown")).sum::<usize>(), 0, "{order:?}");
        }
    }
    // What a wrong order has parted finds together again once all have the same.
    world.run(Duration::from_secs(3));
    assert_eq!((0..nodes as usize).filter(|at| world.role(*at) == Role::Master).count(), 1, "{order:?}");
    for at in 0..nodes as usize {
        let status = world.engine(at).status();
        assert_eq!(status.seal.seals_with, stands.last().unwrap().0.first().copied(), "{order:?}");
        assert_eq!(status.peers.iter().filter(|peer| peer.established).count(), nodes as usize - 1, "{order:?}");
        world.assert_equal(0, at);
    }
    always_ready
}

/// Every order in which so many nodes can take so many steps each.
fn orders(nodes: usize, steps: usize) -> Vec<Vec<usize>> {
    fn go(left: &mut [usize], order: &mut Vec<usize>, all: &mut Vec<Vec<usize>>) {
        if left.iter().all(|left| *left == 0) {
            return all.push(order.clone());
        }
        for at in 0..left.len() {
            if left[at] > 0 {
                left[at] -= 1;
                order.push(at);
                go(left, order, all);
                order.pop();
                left[at] += 1;
            }
        }
    }
    let mut all = Vec::new();
    go(&mut vec![steps; nodes], &mut Vec::new(), &mut all);
    all
}

/// Whether no node takes a step before all have taken the one before it.
fn in_step(order: &[usize], nodes: usize) -> bool {
    order.chunks(nodes).all(|round| (0..nodes).all(|at| round.contains(&at)))
}

/// [3.4.7] Whatever the order: a step for which the node's own status says that all are ready refuses no frame and loses no
/// peer, and the order of the documentation is such.
#[test]
fn a_secret_is_rolled_out_in_every_order() {
    let two = orders(2, 2);
    assert_eq!(two.len(), 6);
    for order in &two {
        assert_eq!(walk(2, ROLL_OUT, order), in_step(order, 2), "{order:?}");
    }
    for order in orders(3, 2).iter().step_by(7) {
        assert!(walk(3, ROLL_OUT, order) || !in_step(order, 3), "{order:?}");
    }
    assert!(walk(3, ROLL_OUT, &[2, 0, 1, 1, 0, 2]));
}

/// [3.4.8] The same of a second key: added, preferred, the first removed.
#[test]
fn a_secret_is_rotated_in_every_order() {
    let two = orders(2, 3);
    assert_eq!(two.len(), 20);
    let ready = two.iter().filter(|order| walk(2, ROTATION, order)).count();
    // All but those in which one node has only the second while the other still seals with the first.
    assert_eq!(ready, 12);
    for order in orders(3, 3).iter().step_by(97) {
        assert!(walk(3, ROTATION, order) || !in_step(order, 3), "{order:?}");
    }
    assert!(walk(3, ROTATION, &[1, 0, 2, 0, 2, 1, 2, 1, 0]));
}

/// The next stand of a rotation that goes round the four numbers.
fn rotations(pair: &mut World, count: u8, number: &mut u32) {
    for round in 0..count {
        let (old, new) = (round % SECRETS_MAX as u8, (round + 1) % SECRETS_MAX as u8);
        for ids in [vec![old, new], vec![new, old], vec![new]] {
            for at in [0, 1] {
                let secrets = ids.iter().map(|id| secret(*id)).collect();
                let now = pair.now;
                pair.node(at).engine.set_secrets(now, secrets, Auth::Enforce).unwrap();
                run_with_changes(pair, 3, number);
            }
            // As an operator would: the next step when both see what the last one has brought.
            let arrived = |world: &World, at: usize| {
                let peer = world.engine(at).status().peers[0].seal.clone();
                let mut held = ids.clone();
                held.sort_unstable();
                peer.opens == held && peer.sealed_with == Some(ids[0])
            };
            while !(arrived(pair, 0) && arrived(pair, 1)) {
                run_with_changes(pair, 1, number);
            }
        }
    }
}

/// [3.4.8] A hundred rotations under load: no frame is refused, no hole, nobody lost.
#[test]
fn a_hundred_rotations_under_load_lose_nothing() {
    let mut pair = group(2, (&[0], Auth::Enforce));
    let mut number = 0;
    rotations(&mut pair, 100, &mut number);
    pair.run(ms(200));
    assert!(number >= 1800);
    assert_eq!((refused(&pair), pair.counter(1, "holes")), (0, 0));
    assert_eq!((pair.events(0, "PeerDown"), pair.events(1, "PeerDown"), pair.events(1, "PeerUp")), (0, 0, 1));
    assert!(pair.events(0, "SealChanged") == 100 && pair.events(1, "SealChanged") == 100);
    pair.assert_equal(0, 1);
}

/// [3.4.8] What was lost on the way is sent again under the seal that it had, as long as all can open that.
#[test]
fn rotations_on_a_line_that_loses_frames_end_with_equal_tables() {
    let mut pair = group(2, (&[0], Auth::Enforce));
    let mut dice = dice(5);
    pair.passes = Box::new(move |_, _, bytes| bytes[5] != 2 || dice(5) != 0);
    let mut number = 0;
    rotations(&mut pair, 20, &mut number);
    pair.passes = Box::new(|_, _, _| true);
    pair.run(ms(500));
    assert!(pair.counter(0, "data_resent") > 50);
    assert_eq!((pair.events(0, "PeerDown"), pair.events(1, "PeerDown")), (0, 0));
    pair.assert_equal(0, 1);
}

/// [3.4.8] Frames of a seal that is gone are not sent again: the history begins behind them.
#[test]
fn what_was_sealed_with_a_secret_that_is_gone_is_not_sent_again() {
    let mut pair = group(2, ROTATION[0]);
    let mut number = 0;
    run_with_changes(&mut pair, 20, &mut number);
    let before = pair.engine(0).outbox.seq();
    assert!(before > 10);
    for stand in &ROTATION[1..3] {
        (0..2).for_each(|at| reload(&mut pair, at, *stand));
        run_with_changes(&mut pair, 50, &mut number);
    }
    assert_eq!(pair.engine(0).outbox.history_start(), 1, "both can open all of it still");
    reload(&mut pair, 1, ROTATION[3]);
    run_with_changes(&mut pair, 50, &mut number);
    let start = pair.engine(0).outbox.history_start();
    assert!(start > before && start < pair.engine(0).outbox.seq(), "node 2 cannot open what is older");
}

/// [3.4.8] Two secrets under one number: neither side relies on it, and both say so.
#[test]
fn a_secret_that_is_another_under_the_same_number_is_not_used_and_shows() {
    let mut pair = group(2, ROTATION[0]);
    let other = Secret::new(2, &[0x99; crate::wire::SECRET_LEN]).unwrap();
    let now = pair.now;
    pair.node(0).engine.set_secrets(now, vec![secret(2), secret(1)], Auth::Enforce).unwrap();
    pair.node(1).engine.set_secrets(now, vec![other, secret(1)], Auth::Enforce).unwrap();
    pair.run(ms(200));
    for at in 0..2 {
        let status = pair.engine(at).status();
        let waits = NodeId(2 - at as u32);
        assert_eq!((status.seal.seals_with, status.seal.waits_for), (Some(1), vec![waits]));
        assert_eq!((status.peers[0].seal.agrees, status.peers[0].seal.opens.clone()), (Some(false), vec![1, 2]));
    }
    assert_eq!((refused(&pair), pair.events(0, "PeerDown")), (0, 0));
}

/// [3.4.8] A node that comes with the old secret only is heard, answered so that it can hear, and waited for; a recording of
/// such a one changes nothing of what peers are sent.
#[test]
fn a_newcomer_with_the_old_secret_is_let_in() {
    let mut world = group(2, ROTATION[2]);
    world.nodes.push(None);
    assert_eq!(world.engine(0).status().seal.seals_with, Some(2));
    world.start(2, stood(Config { priority: 20, ..config(3) }, ROTATION[0]));
    world.run(ms(300));
    let status = world.engine(0).status();
    assert_eq!((status.seal.seals_with, status.seal.waits_for), (Some(1), vec![NodeId(3)]));
    let recorded = world.sent.iter().rfind(|(_, from, bytes)| *from == 2 && bytes[5] == 1).unwrap().2.clone();
    world.kill(2);
    world.run(ms(500));
    assert_eq!(world.engine(0).status().seal.seals_with, Some(2), "it is gone");
    let changes = world.events(0, "SealChanged");
    for _ in 0..100 {
        world.hand_in(0, &mut recorded.clone());
        world.run(ms(1));
    }
    assert_eq!((world.engine(0).status().seal.seals_with, world.events(0, "SealChanged")), (Some(2), changes));
}

/// [3.4.7] [3.5.13] What a node can open, and whether it takes what is not sealed, stands in its ADVERTs.
#[test]
fn a_status_tells_what_peers_can_open_and_do() {
    let mut pair = group(2, ROLL_OUT[1]);
    reload(&mut pair, 0, (&[1, 3], Auth::Enforce));
    pair.run(ms(100));
    let seal = pair.engine(1).status().peers[0].seal.clone();
    assert_eq!((seal.opens, seal.enforces, seal.agrees, seal.sealed_with), (vec![1, 3], true, None, Some(1)));
    let status = pair.engine(0).status();
    assert_eq!((status.seal.auth, status.seal.secrets, status.seal.seals_with), (Auth::Enforce, vec![1, 3], Some(1)));
    assert_eq!(status.peers[0].seal.agrees, Some(true));
    reload(&mut pair, 1, ROLL_OUT[0]);
    pair.run(ms(100));
    assert!(pair.events(0, "AuthFailed") == 1 && pair.events(1, "AuthFailed") == 1, "both say what is wrong");
}
