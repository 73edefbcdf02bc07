//! A peer that has the secret, and has gone insane: whatever it says, for as long as it likes, nothing panics, nothing grows,
//! and what it makes others do stays within what it may ask for (docs/protocol.md 3.4.10).

use super::seal::{sealed, secret};
use super::*;
use crate::wire::{
    BucketRange, CURSOR_END, DigestsRequest, Frame, Header, Kind, MergePull, MissingRange, Pull, Sealer, Status,
    SyncCode, Target, encode_digests_request, encode_merge_pull, encode_pull, encode_status, unseal,
};

/// Node 3 of a sealed group, by its own hand from now on: its incarnation goes on, its numbers too.
struct Insane {
    sealer: Sealer,
    /// The next number of DATA and control frames.
    next: [u64; 2],
}

impl Insane {
    fn new() -> Self {
        Insane { sealer: Sealer::new(&[secret(1)], 51, NodeId(3), 1003), next: [1 << 20; 2] }
    }

    /// A frame in the clear, numbered and sealed as its own.
    fn seal(&mut self, mut header: Header, write: impl FnOnce(&mut [u8], Header) -> Option<usize>) -> Option<Vec<u8>> {
        let next = &mut self.next[usize::from(header.kind != Kind::DATA)];
        (header.node, header.incarnation, header.seq) = (NodeId(3), 1003, *next);
        *next += 1;
        let mut slot = vec![0; 1480];
        let length = write(&mut slot[..1464], header)?;
        slot[16..24].copy_from_slice(&header.incarnation.to_be_bytes());
        slot[24..32].copy_from_slice(&header.seq.to_be_bytes());
        slot[12..16].copy_from_slice(&3_u32.to_be_bytes());
        let length = self.sealer.seal(1, &mut slot, length)?;
        slot.truncate(length);
        Some(slot)
    }

    /// A frame of its own, as it is but for its number.
    fn resealed(&mut self, recorded: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = recorded.to_vec();
        let mut header = unseal(&[secret(1)], &mut bytes).ok()?.header();
        header.flags = crate::wire::FrameFlags(0);
        let length = bytes.len() - 16;
        self.seal(header, |slot, header| {
            let mut raw = header_of(&header, bytes[0], length);
            raw.extend_from_slice(&bytes[40..length]);
            slot.get_mut(..length)?.copy_from_slice(&raw);
            Some(length)
        })
    }

    /// Somebody's frame as its own, with some bytes behind the header changed.
    fn mutated(&mut self, recorded: &[u8], dice: &mut impl FnMut(u64) -> u64) -> Option<Vec<u8>> {
        let mut bytes = recorded.to_vec();
        let frame = unseal(&[secret(1)], &mut bytes).ok()?;
        let mut header = frame.header();
        header.flags = crate::wire::FrameFlags(0);
        if dice(4) == 0 {
            header.kind = Kind(1 + dice(7) as u8);
        }
        if dice(4) == 0 {
            header.term = [0, 1, 2, header.term + 1, 1 << 40, u64::MAX][dice(6) as usize];
        }
        let mut payload = bytes[40..bytes.len() - 16].to_vec();
        for _ in 0..dice(6) {
            if !payload.is_empty() {
                let at = dice(payload.len() as u64) as usize;
                payload[at] = [0, 1, 0x7f, 0xff, dice(256) as u8][dice(5) as usize];
            }
        }
        let count = bytes[0];
        self.seal(header, |slot, header| {
            let length = 40 + payload.len();
            let mut raw = header_of(&header, count, length);
            raw.extend_from_slice(&payload);
            slot.get_mut(..length)?.copy_from_slice(&raw);
            Some(length)
        })
    }
}

/// A node that is itself in all it hears and does, and insane in what it says: each of its frames arrives as it is, so that it
/// stays established with whoever comes, or changed, or both, and always under the next number.
struct Possessed {
    insane: Insane,
    seen: usize,
    dice: Box<dyn FnMut(u64) -> u64>,
}

impl Possessed {
    /// Node 3 of this world.
    fn new(world: &mut World, seed: u64) -> Self {
        world.passes = Box::new(|from, _, _| from != 2);
        Possessed { insane: Insane::new(), seen: world.sent.len(), dice: Box::new(dice(seed)) }
    }

    /// Its frames since the last time, each also up to eight times changed; and some of what anybody has ever sent.
    fn rages(&mut self, world: &mut World) {
        let own: Vec<usize> = (std::mem::replace(&mut self.seen, world.sent.len())..world.sent.len())
            .filter(|at| world.sent[*at].1 == 2)
            .collect();
        for at in own {
            let bytes = world.sent[at].2.clone();
            self.says(world, &bytes, true);
            for _ in 0..(self.dice)(8) {
                self.says(world, &bytes, false);
            }
        }
        for _ in 0..(self.dice)(3) {
            let at = (self.dice)(world.sent.len() as u64) as usize;
            let bytes = world.sent[at].2.clone();
            self.says(world, &bytes, false);
        }
    }

    fn says(&mut self, world: &mut World, bytes: &[u8], as_it_is: bool) {
        let said = if as_it_is { self.insane.resealed(bytes) } else { self.insane.mutated(bytes, &mut self.dice) };
        let Some(said) = said else { return };
        for at in 0..2 {
            world.hand_in(at, &mut said.clone());
        }
    }
}

/// The 40 bytes of a header, by hand; sealing completes size, flags and checksum.
fn header_of(header: &Header, count: u8, length: usize) -> Vec<u8> {
    let mut raw = vec![count, header.sync_id];
    raw.extend_from_slice(&(length as u16).to_be_bytes());
    raw.extend_from_slice(&[1, header.kind.0, 0, 0, 0, 0, 0, 0]);
    raw.extend_from_slice(&header.node.0.to_be_bytes());
    for number in [header.incarnation, header.seq, header.term] {
        raw.extend_from_slice(&number.to_be_bytes());
    }
    raw
}

/// Three nodes in sync: 1 is master, 3 has the lowest priority.
fn trio() -> World {
    let priority = |node: u32, priority| sealed(Config { priority, capacity: 2000, ..config(node) });
    let mut world = World::new(vec![priority(1, 150), priority(2, 100), priority(3, 50)]);
    world.run(ms(1000));
    assert_eq!(world.role(0), Role::Master);
    world.dump_done(0);
    (0..200).for_each(|number| world.upsert(0, number));
    world.run(ms(300));
    assert_eq!((world.sync(1), world.sync(2)), (SyncState::InSync, SyncState::InSync));
    world
}

/// [3.4.10] Thousands of frames of every kind, their content changed at random, sealed with a valid key, to a master and to a
/// backup. When it ends, the two others are a pair as before.
#[test]
fn whatever_a_peer_with_the_secret_says_nothing_breaks() {
    for seed in 0..12 {
        let mut world = trio();
        let mut dice = dice(seed);
        let recorded: Vec<Vec<u8>> = world.sent.iter().map(|(_, _, bytes)| bytes.clone()).collect();
        world.kill(2);
        let mut insane = Insane::new();
        for turn in 0..1500 {
            let source = &recorded[dice(recorded.len() as u64) as usize];
            if let Some(bytes) = insane.mutated(source, &mut dice) {
                for at in 0..2 {
                    world.hand_in(at, &mut bytes.clone());
                }
            }
            if turn % 5 == 0 {
                world.run(Duration::from_micros(dice(2000)));
            }
            if turn % 50 == 0 && world.role(0) == Role::Master {
                world.upsert(0, 200 + turn / 50);
            }
        }
        healed(&mut world, seed);
    }
}

/// [3.4.10] The same to a node that joins with nothing, all the while that it becomes established, is filled and is proven; and
/// to the master that fills it. The insane one is a peer of both.
#[test]
fn a_node_that_joins_beside_an_insane_one_is_filled_all_the_same() {
    for seed in 0..6 {
        let mut world = trio();
        world.kill(1);
        let mut possessed = Possessed::new(&mut world, seed);
        world.start(1, sealed(Config { incarnation: 777 + seed, priority: 100, capacity: 2000, ..config(2) }));
        let mut established = false;
        for turn in 0..2000 {
            world.run(Duration::from_micros(500));
            possessed.rages(&mut world);
            established |= world.engine(1).status().peers.iter().any(|it| it.node == NodeId(3) && it.established);
            if turn % 50 == 0 && world.role(0) == Role::Master {
                world.upsert(0, 200 + turn / 50);
            }
        }
        assert!(established, "seed {seed}: what it says is taken");
        healed(&mut world, seed);
    }
}

/// [3.4.10] The same to a node that is Promoting, and whose sink does not answer: whatever it hears, it is master in the end, or
/// follows one, and holds no more than it may.
#[test]
fn a_takeover_beside_an_insane_one_comes_to_an_end() {
    for seed in 0..6 {
        let mut world = trio();
        let mut possessed = Possessed::new(&mut world, seed);
        world.node(1).commits = false;
        world.kill(0);
        let mut promoting = 0;
        for _ in 0..3000 {
            world.run(Duration::from_micros(500));
            possessed.rages(&mut world);
            promoting += u32::from(world.role(1) == Role::Promoting);
        }
        assert!(promoting > 100, "seed {seed}: {promoting} of 3000 half milliseconds");
        world.node(1).commits = true;
        world.start(0, sealed(Config { incarnation: 777 + seed, priority: 150, capacity: 2000, ..config(1) }));
        healed(&mut world, seed);
    }
}

/// The insane one is gone. The two others are a pair in sync, within what they may hold.
fn healed(world: &mut World, seed: u64) {
    world.kill(2);
    for at in 0..2 {
        assert_eq!(world.counter(at, "drop_forged"), 0, "each frame had a valid seal");
        let status = world.engine(at).status();
        assert!(status.entries <= 2000 && status.peers.len() <= 64);
    }
    world.run(Duration::from_secs(30));
    let masters: Vec<usize> = (0..2).filter(|at| world.role(*at) == Role::Master).collect();
    assert_eq!(masters.len(), 1, "seed {seed}");
    world.dump_done(masters[0]);
    world.run(Duration::from_secs(2));
    assert_eq!(world.sync(1 - masters[0]), SyncState::InSync, "seed {seed}");
    world.assert_equal(0, 1);
}

/// Frames that node 0 sends while the insane one asks `each` again and again, 20 times a millisecond for 100 ms, and the
/// longest that a change of the master took to reach the honest backup.
fn besieged(mut each: impl FnMut(&mut Insane, Target) -> Option<Vec<u8>>) -> (usize, Duration) {
    let mut world = trio();
    world.kill(2);
    let mut insane = Insane::new();
    let target = Target { node: NodeId(1), incarnation: 1001 };
    let from = world.sent.len();
    let mut slowest = Duration::ZERO;
    for turn in 0..100 {
        world.upsert(0, 1000 + turn);
        let at = world.now;
        for _ in 0..20 {
            let mut bytes = each(&mut insane, target).unwrap();
            world.hand_in(0, &mut bytes);
            world.run(Duration::from_micros(50));
        }
        world.run_until("the change arrives", |world| world.engine(1).flow(&key(1000 + turn), world.now).is_some());
        slowest = slowest.max(world.now.since(at));
    }
    assert_eq!(world.counter(0, "drop_forged"), 0);
    (world.sent[from..].iter().filter(|(_, by, _)| *by == 0).count(), slowest)
}

fn control(kind: Kind) -> Header {
    Header { sync_id: 51, kind, term: 1, ..Header::default() }
}

/// [3.4.10] What is asked for without end is answered within what each may ask for, and live changes go on.
#[test]
fn requests_without_end_starve_nobody() {
    // All that is kept, again and again.
    let (sent, slowest) = besieged(|insane, target| {
        let missing = [MissingRange::new(1, u32::MAX); 64];
        insane.seal(control(Kind::STATUS), |slot, header| {
            let status =
                Status { target, frontier: 0, base: 0, credit: u32::MAX, state: SyncCode::PROVEN, missing: &missing };
            encode_status(slot, header, &status)
        })
    });
    assert!(slowest <= ms(5), "{slowest:?}");
    assert!(sent < 20_000, "{sent}");
    // Every bucket.
    let (sent, slowest) = besieged(|insane, target| {
        insane.seal(control(Kind::PULL), |slot, header| {
            encode_pull(slot, header, &Pull { target, ranges: &[BucketRange::new(0, 4096)] })
        })
    });
    assert!(slowest <= ms(5), "{slowest:?}");
    assert!(sent < 4000, "{sent}");
    // The digests of every bucket: 32 frames each time, twice in a period.
    let (sent, slowest) = besieged(|insane, target| {
        insane.seal(control(Kind::DIGESTS_REQUEST), |slot, header| {
            encode_digests_request(slot, header, &DigestsRequest { target, buckets: BucketRange::new(0, 4096) })
        })
    });
    assert!(slowest <= ms(5), "{slowest:?}");
    assert!(sent < 500, "{sent}");
    // Pages of a merge: 512 in a period.
    let (sent, slowest) = besieged(|insane, target| {
        insane.seal(control(Kind::PULL), |slot, header| {
            let pull = MergePull { target, node: NodeId(3), incarnation: 1003, after: 0, cursor: CURSOR_END / 2 };
            encode_merge_pull(slot, header, &pull)
        })
    });
    assert!(slowest <= ms(5), "{slowest:?}");
    assert!(sent < 2000, "{sent}");
}

/// The frames of this file are what they are said to be.
#[test]
fn an_insane_frame_is_sealed_and_its_own() {
    let mut insane = Insane::new();
    let mut bytes = insane.mutated(&trio().sent[0].2, &mut dice(1)).unwrap();
    assert!(Frame::parse(&bytes).is_ok());
    let header = unseal(&[secret(1)], &mut bytes).unwrap().header();
    assert_eq!((header.node, header.incarnation, header.seq), (NodeId(3), 1003, 1 << 20));
}
