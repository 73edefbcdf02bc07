//! Sealed groups: what a party without the secret can do, which is nothing (docs/protocol.md 3.4).

use super::*;
use crate::engine::Auth;
use crate::wire::{
    Advert, FrameError, FrameFlags, Header, Kind, PeerReport, SECRET_LEN, Sealer, Secret, WireRole, encode_advert,
};

pub(super) fn secret(id: u8) -> Secret {
    Secret::new(id, &[0x40 + id; SECRET_LEN]).unwrap()
}

pub(super) fn sealed(config: Config) -> Config {
    Config { secrets: vec![secret(1)], auth: Auth::Enforce, ..config }
}

pub(super) fn sealed_pair() -> World {
    World::new(vec![sealed(Config { priority: 150, ..config(1) }), sealed(config(2))]).elected()
}

/// [3.4.1] [3.4.2]
#[test]
fn a_sealed_pair_converges_and_every_frame_of_it_is_sealed() {
    let mut world = sealed_pair();
    for number in 0..300 {
        world.upsert(0, number);
        world.run(Duration::from_micros(700));
    }
    world.run(ms(300));
    world.assert_equal(0, 1);
    assert!(world.sent.iter().all(|(_, _, bytes)| bytes[7] == 1 && bytes[6] == 1), "SEALED, with secret 1");
    assert!(world.sent.iter().all(|(_, _, bytes)| bytes.len() <= 1480));
    assert_eq!(world.counter(1, "drop_forged") + world.counter(0, "drop_forged"), 0);
}

/// [3.4.5] A retransmission is the stored bytes: whatever is lost, no number of a channel is ever sealed twice.
#[test]
fn no_number_is_sealed_twice() {
    let mut world = sealed_pair();
    let mut count = 0_u32;
    world.passes = Box::new(move |_, _, bytes| {
        count += 1;
        bytes[5] != 2 || !count.is_multiple_of(3)
    });
    for number in 0..300 {
        world.upsert(0, number);
        world.run(Duration::from_micros(700));
    }
    world.run(Duration::from_secs(1));
    assert!(world.counter(0, "data_resent") > 10);
    let mut seen = BTreeMap::new();
    for (_, from, bytes) in &world.sent {
        let known = seen.entry((*from, bytes[16..24].to_vec(), bytes[5] == 2, bytes[24..32].to_vec())).or_insert(bytes);
        assert_eq!(*known, bytes);
    }
}

/// The newest frame of this kind that a node has sent.
fn newest(world: &World, from: usize, kind: Kind) -> Vec<u8> {
    world.sent.iter().rfind(|(_, by, bytes)| *by == from && bytes[5] == kind.0).unwrap().2.clone()
}

/// The same bytes with some changed, and a checksum that fits.
fn changed(bytes: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    change(&mut bytes);
    bytes[8..12].fill(0);
    let checksum = crc32fast::hash(&bytes);
    bytes[8..12].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// The same bytes, which no key opens any more.
fn spoilt(bytes: &[u8]) -> Vec<u8> {
    changed(bytes, |bytes| *bytes.last_mut().unwrap() ^= 1)
}

/// An ADVERT as an incarnation of a node has sealed it.
fn advert(node: u32, incarnation: u64, seq: u64, peers: &[PeerReport]) -> Vec<u8> {
    let mut slot = [0; 1480];
    let (kind, flags, node) = (Kind::ADVERT, FrameFlags(0), NodeId(node));
    let header = Header { sync_id: 51, kind, flags, node, incarnation, seq, term: 1 };
    let advert = Advert { role: WireRole::BACKUP, priority: 100, interval_ms: 100, peers, ..Advert::default() };
    let length = encode_advert(&mut slot, header, &advert).unwrap();
    let length = Sealer::new(&[secret(1)], 51, node, incarnation).seal(1, &mut slot, length).unwrap();
    slot[..length].to_vec()
}

/// [3.4.6] A recording of what is held already is told by its number, whoever made it: it costs no cipher, and says nothing of
/// its sender's life.
#[test]
fn a_replayed_frame_of_the_stream_never_reaches_the_cipher_and_keeps_no_master_alive() {
    let mut world = sealed_pair();
    world.upsert(0, 1);
    world.run(ms(50));
    let recorded = newest(&world, 0, Kind::DATA);
    let statuses = world.counter(1, "status_sent");
    let copies = world.counter(1, "data_duplicate");
    for _ in 0..100 {
        world.hand_in(1, &mut spoilt(&recorded));
    }
    world.run(ms(50));
    assert_eq!((world.counter(1, "data_duplicate") - copies, world.counter(1, "drop_forged")), (100, 0));
    assert_eq!(world.counter(1, "status_sent"), statuses, "nobody is answered");
    // How long a takeover takes while nobody says anything, and while every frame of the dead master is said again.
    let takeover = |is_said_again: bool| {
        let mut world = sealed_pair();
        world.upsert(0, 1);
        world.run(ms(50));
        let recorded = frames_of(&world, 0);
        world.kill(0);
        world.run_until_with("the backup takes over", |world| {
            let said_again = recorded.iter().filter(|_| is_said_again);
            said_again.for_each(|bytes| world.hand_in(1, &mut bytes.clone()));
            world.role(1) == Role::Master
        })
    };
    assert_eq!(takeover(true), takeover(false));
}

/// Every frame that a node has sent.
fn frames_of(world: &World, from: usize) -> Vec<Vec<u8>> {
    world.sent.iter().filter(|(_, by, _)| *by == from).map(|(_, _, bytes)| bytes.clone()).collect()
}

/// [3.4.6] From who is not proven nothing but an ADVERT is opened.
#[test]
fn what_is_no_advert_of_an_unproven_sender_never_reaches_the_cipher() {
    let mut world = sealed_pair();
    world.upsert(0, 1);
    world.run(ms(150));
    for kind in [Kind::DATA, Kind::STATUS] {
        let from = usize::from(kind == Kind::STATUS);
        let bytes = changed(&newest(&world, from, kind), |bytes| bytes[16] ^= 1);
        let before = world.counter(1 - from, "drop_unestablished");
        world.hand_in(1 - from, &mut bytes.clone());
        assert_eq!(world.counter(1 - from, "drop_unestablished"), before + 1);
    }
    assert_eq!(world.counter(0, "drop_forged") + world.counter(1, "drop_forged"), 0);
}

/// [3.4.6] What is not sealed changes nothing where all has to be.
#[test]
fn what_is_not_sealed_is_refused_and_reported_once_in_ten_seconds() {
    let mut world = sealed_pair();
    let mut plain = World::elected_pair();
    plain.upsert(0, 1);
    plain.run(ms(50));
    let frames: Vec<Vec<u8>> = plain.sent.iter().rev().take(50).map(|(_, _, bytes)| bytes.clone()).collect();
    let before = world.engine(1).status();
    for bytes in &frames {
        world.hand_in(1, &mut bytes.clone());
    }
    world.run(Duration::from_micros(10));
    let after = world.engine(1).status();
    assert_eq!(world.counter(1, "drop_unsealed"), 50);
    assert_eq!((after.digest, after.frontier, after.peers), (before.digest, before.frontier, before.peers));
    let reports = |world: &World| {
        let events = world.nodes[1].as_ref().unwrap().events.iter();
        events.filter(|event| event.name() == "AuthFailed").cloned().collect::<Vec<_>>()
    };
    let event = |node, reason, count| {
        let source = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Event::AuthFailed { node: NodeId(node), source, reason, count }
    };
    let first = u32::from(frames[0][15]);
    let last = u32::from(frames[49][15]);
    assert_eq!(reports(&world), [event(first, FrameError::Unsealed, 1)]);
    world.run(ms(9_900));
    assert_eq!(reports(&world).len(), 1);
    world.run(ms(200));
    assert_eq!(reports(&world)[1..], [event(last, FrameError::Unsealed, 49)]);
    world.run(Duration::from_secs(20));
    let data = spoilt(&changed(&newest(&world, 0, Kind::ADVERT), |bytes| bytes[28] ^= 1));
    world.hand_in(1, &mut data.clone());
    world.hand_in(1, &mut changed(&data, |bytes| bytes[6] = 2));
    world.run(ms(1));
    assert_eq!(reports(&world)[2..], [event(1, FrameError::Forged, 1)]);
    world.run(Duration::from_secs(11));
    assert_eq!(reports(&world)[3..], [event(1, FrameError::Sealed, 1)]);
}

/// [3.4.6] Another version cannot be told from a forgery: it is counted, and nobody is woken.
#[test]
fn another_version_is_no_event_where_all_is_sealed() {
    let mut world = sealed_pair();
    let bytes = changed(&newest(&world, 0, Kind::ADVERT), |bytes| bytes[4] = 2);
    world.hand_in(1, &mut bytes.clone());
    world.run(ms(1));
    assert_eq!((world.counter(1, "drop_unknown_version"), world.events(1, "VersionMismatch")), (1, 0));
}

/// [3.4.9] One source: 49 keys are derived at once, and 24 in each millisecond after; what is known costs nothing of it.
#[test]
fn strangers_are_tried_as_far_as_the_budget_goes() {
    let mut world = sealed_pair();
    world.run(ms(100));
    let forged = |nth: u64| spoilt(&advert(9, 1 + nth, 1, &[]));
    let tried = |world: &mut World| {
        let before = world.counter(1, "drop_forged");
        (0..1000).for_each(|nth| world.hand_in(1, &mut forged(nth)));
        world.counter(1, "drop_forged") - before
    };
    assert_eq!(tried(&mut world), 49);
    assert_eq!((world.counter(1, "drop_untried"), world.counter(1, "drop_crowded")), (951, 0));
    world.run(Duration::from_micros(1001));
    assert_eq!(tried(&mut world), 24);
    world.run(ms(100));
    assert_eq!(tried(&mut world), 49, "it does not gather for ever");
    let mut known = spoilt(&changed(&newest(&world, 0, Kind::ADVERT), |bytes| bytes[28] ^= 1));
    let before = world.counter(1, "drop_forged");
    world.hand_in(1, &mut known);
    assert_eq!(world.counter(1, "drop_forged") - before, 1, "a peer's frame is always tried");
    assert_eq!(world.engine(1).status().peers.len(), 1, "nobody is remembered");
}

/// How long a backup that starts anew takes to be recognised by the master and to recognise it, while both are flooded with
/// 100,000 ADVERTs a second of incarnations that nobody knows, from these addresses in turn.
fn recognised_under_a_flood_from(sources: &[Ipv4Addr]) -> Duration {
    let mut world = sealed_pair();
    world.kill(1);
    world.run(Duration::from_secs(1));
    let (forged, mut sent, mut dice) = (spoilt(&advert(9, 1, 1, &[])), 0, dice(4711));
    let mut flood = |world: &mut World| {
        if !sources.is_empty() {
            let source = IpAddr::V4(sources[sent % sources.len()]);
            (0..2).for_each(|at| world.hand_in_as(FrameMeta { link: 0, source }, at, &mut forged.clone()));
            sent += 1;
        }
        // Not at regular times: what is tried then depends on how two clocks happen to stand to each other.
        world.run(Duration::from_micros(dice(20)));
    };
    (0..1000).for_each(|_| flood(&mut world));
    world.start(1, sealed(Config { incarnation: 5002, ..config(2) }));
    let start = world.now;
    let knows = |world: &World, at: usize| world.engine(at).status().peers.iter().any(|peer| peer.established);
    while !(knows(&world, 0) && knows(&world, 1)) {
        assert!(world.now.since(start) < Duration::from_secs(60));
        flood(&mut world);
    }
    world.now.since(start)
}

/// [3.4.9] A flood from another address, or from any number of them in other shares, costs a newcomer nothing.
#[test]
fn under_a_flood_from_elsewhere_a_newcomer_is_recognised_as_fast_as_without() {
    let alone = recognised_under_a_flood_from(&[]);
    let elsewhere: Vec<Ipv4Addr> = (1..10).map(|host| Ipv4Addr::new(192, 0, 2, host)).collect();
    let [one, nine] = [&elsewhere[..1], &elsewhere].map(recognised_under_a_flood_from);
    let bound = alone + Duration::from_micros(100);
    assert!(one <= bound && nine <= bound, "{alone:?} without, {one:?} with one source, {nine:?} with nine");
    assert!(alone < ms(26), "an answer within a quarter of an interval: {alone:?}");
}

/// [3.4.9] A flood from its own address (here that of all honest frames) delays it, and no more: about one in four of its ADVERTs is tried.
#[test]
fn under_a_flood_from_its_own_address_a_newcomer_still_gets_in() {
    let took = recognised_under_a_flood_from(&[Ipv4Addr::LOCALHOST]);
    assert!(took > ms(50) && took < Duration::from_secs(4), "{took:?}");
}

/// [3.4.9] [3.5.9] Recordings of a hundred former lives, sent again without end: a few places, no more ADVERTs than four in an
/// interval, and the present life gets in.
#[test]
fn recordings_of_old_incarnations_do_not_crowd_out_a_newcomer() {
    let mut world = World::new(vec![sealed(Config { priority: 150, ..config(1) })]);
    world.nodes.push(None);
    world.run(Duration::from_secs(1));
    let mut started = None;
    for turn in 0..4000_u64 {
        for life in 0..3 {
            world.hand_in(0, &mut advert(2, 1 + (3 * turn + life) % 100, 1 + turn / 33, &[]));
        }
        world.run(ms(1));
        let candidates = world.engine(0).status().peers.iter().filter(|peer| !peer.established).count();
        assert!(candidates <= 4, "{candidates} of node 2");
        if turn == 1000 {
            world.start(1, sealed(config(2)));
            started = Some(world.now);
        }
        let up = |world: &World| world.engine(0).status().peers.iter().any(|peer| peer.established);
        if started.is_some() && up(&world) {
            break;
        }
    }
    let took = world.now.since(started.unwrap());
    assert!(took < Duration::from_secs(2), "not after {took:?}");
    let adverts = world.sent.iter().filter(|(_, from, bytes)| *from == 0 && bytes[5] == 1).count() as u128;
    assert!(adverts <= world.now.as_nanos() as u128 / 25_000_000, "{adverts}");
}

/// [3.5.11] What this node has sealed in a former life says nothing; only who has heard this life is another one.
#[test]
fn a_recording_of_a_former_life_is_no_duplicate_node_and_a_living_one_is() {
    let mut world = sealed_pair();
    for seq in 1..50 {
        world.hand_in(0, &mut advert(1, 77, seq, &[PeerReport::new(NodeId(2), 1002, 0, 5, 0)]));
        world.hand_in(0, &mut advert(1, 78, seq, &[PeerReport::new(NodeId(1), 1001, 0, 1, 0)]));
        world.run(ms(5));
    }
    assert_eq!((world.events(0, "DuplicateNode"), world.counter(0, "drop_own_node")), (0, 98));
    world.nodes.push(None);
    world.start(2, sealed(Config { incarnation: 4711, ..config(1) }));
    world.run(ms(400));
    let twin = |at: usize| {
        let events = world.nodes[at].as_ref().unwrap().events.iter();
        events.filter(|event| event.name() == "DuplicateNode").cloned().collect::<Vec<_>>()
    };
    assert_eq!(twin(0), [Event::DuplicateNode { incarnation: 4711 }]);
    assert_eq!(twin(2), [Event::DuplicateNode { incarnation: 1001 }]);
}

/// [3.4.1] [5.6.1] After a stall a master has another incarnation, and other keys: it is opened and proven anew.
#[test]
fn a_master_that_stalled_seals_with_the_keys_of_its_new_incarnation() {
    let mut world = sealed_pair();
    world.upsert(0, 1);
    world.run(ms(100));
    let stalled = world.nodes[0].take();
    world.run_until("a new master", |world| world.role(1) == Role::Master);
    world.nodes[0] = stalled;
    world.run(Duration::from_secs(2));
    assert_eq!(world.events(0, "StallDetected"), 1);
    let peer = world.engine(1).status().peers[0].clone();
    assert!(peer.established && peer.incarnation != 1001 && peer.seal.sealed_with == Some(1));
    assert_eq!(world.counter(0, "drop_forged") + world.counter(1, "drop_forged"), 0);
    let master = usize::from(world.role(1) == Role::Master);
    world.upsert(master, 2);
    world.run(ms(300));
    world.assert_equal(0, 1);
    assert!(world.sent.iter().all(|(_, _, bytes)| bytes[7] == 1));
}

/// [3.4.7] Numbers are distinct and at most four; a set that is refused changes nothing.
#[test]
fn secrets_with_one_number_are_refused() {
    let twice = vec![secret(1), Secret::new(1, &[9; SECRET_LEN]).unwrap()];
    let problems = |secrets| Config { secrets, ..config(1) }.problems();
    assert_eq!(problems(twice.clone())[0].key, "secrets");
    assert_eq!(problems((0..4).map(secret).collect()), []);
    assert_eq!(problems((0..4).chain([0]).map(secret).collect()).len(), 2);
    let mut world = sealed_pair();
    let now = world.now;
    assert!(world.node(0).engine.set_secrets(now, twice, Auth::Off).is_err());
    assert_eq!(world.engine(0).status().seal.auth, Auth::Enforce);
}

/// Neither a secret nor a key shows in what is printed of an engine or its configuration.
#[test]
fn no_secret_shows_in_what_is_printed() {
    let world = sealed_pair();
    let bytes = [0x41_u8; SECRET_LEN];
    let config = sealed(config(1));
    let text = format!("{:?} {config:?} {config:#?}", world.engine(0));
    for hidden in [format!("{:?}", &bytes[..4]), "41414141".into(), "AAAA".into(), "prk".into(), "fingerprint".into()] {
        let hidden = hidden.trim_matches(['[', ']']);
        assert!(!text.contains(hidden), "{hidden}");
    }
    assert!(text.contains("Secret { id: 1, .. }") && text.contains("Key { id: 1, .. }"));
}
