//! Rules of docs/protocol.md that no other test is about, one by one.

use super::*;
use crate::engine::outbox::Outbox;
use crate::wire::{
    Advert, BucketRange, Follows, Frame, FrameError, FrameFlags, Header, Kind, Payload, Pull, Target, WireRole,
    encode_advert, encode_pull,
};

/// Everything of one kind that node `from` has sent since `since`.
fn sent(world: &World, from: usize, kind: Kind, since: Instant) -> Vec<(Instant, Vec<u8>)> {
    let wanted =
        |(at, by, bytes): &&(Instant, usize, Vec<u8>)| *by == from && *at >= since && header(bytes).kind == kind;
    world.sent.iter().filter(wanted).map(|(at, _, bytes)| (*at, bytes.clone())).collect()
}

fn header(bytes: &[u8]) -> Header {
    Frame::parse(bytes).unwrap().header()
}

fn advert(bytes: &[u8]) -> Advert<'_> {
    match Frame::parse(bytes).unwrap().verify().unwrap().payload() {
        Payload::Advert(advert) => advert,
        other => panic!("no ADVERT: {other:?}"),
    }
}

/// The newest ADVERT of node 1, with the next number, said in another way.
fn retold(world: &World, change: impl FnOnce(&mut Header, &mut Advert<'_>)) -> Vec<u8> {
    let adverts = sent(world, 1, Kind::ADVERT, Instant::ZERO);
    let bytes = &adverts.last().unwrap().1;
    let (mut header, mut advert) = (header(bytes), advert(bytes));
    header.seq += 20;
    change(&mut header, &mut advert);
    let mut slot = [0; 1480];
    let length = encode_advert(&mut slot, header, &advert).unwrap();
    slot[..length].to_vec()
}

/// [1.4.1] Frame 1 is lost; what frame 2 says is applied before frame 1 is there.
#[test]
fn a_record_does_not_wait_for_an_older_frame() {
    let mut world = World::elected_pair();
    world.passes = Box::new(|_, _, bytes| header(bytes).kind != Kind::DATA);
    world.upsert(0, 1);
    world.run(Duration::from_micros(100));
    world.passes = Box::new(|_, _, _| true);
    world.upsert(0, 2);
    world.run(Duration::from_micros(1500));
    let held: Vec<FlowKey> = world.table(1).into_keys().collect();
    assert_eq!(held, [key(2)]);
    world.run(ms(20));
    world.assert_equal(0, 1);
}

/// [3.2.10] A request to an earlier incarnation of this node is none to this one.
#[test]
fn a_control_frame_for_another_incarnation_is_ignored() {
    let mut world = World::elected_pair();
    let known = world.counter(0, "pulls_received");
    for (number, (node, incarnation)) in [(1, 1000), (7, 1001), (1, 1001)].into_iter().enumerate() {
        let header = Header {
            sync_id: 51,
            kind: Kind::PULL,
            flags: FrameFlags(0),
            node: NodeId(2),
            incarnation: 1002,
            seq: 1_000_000 + number as u64,
            term: 1,
        };
        let target = Target { node: NodeId(node), incarnation };
        let mut slot = [0; 1480];
        let length = encode_pull(&mut slot, header, &Pull { target, ranges: &[BucketRange::new(0, 1)] }).unwrap();
        world.hand_in(0, &mut slot[..length]);
    }
    assert_eq!(world.counter(0, "not_for_us"), 2);
    assert_eq!(world.counter(0, "pulls_received") - known, 1);
}

/// [3.2.11] Two masterships of one incarnation: other terms, and numbers that go on.
#[test]
fn stream_numbers_go_on_over_masterships() {
    let manual = |node| Config { role: RoleMode::Manual, ..config(node) };
    let mut world = World::new(vec![manual(1), manual(2)]);
    for request in [RoleRequest::Master, RoleRequest::Backup, RoleRequest::Master] {
        let now = world.now;
        world.node(0).engine.set_role(now, request);
        world.run(ms(500));
        if request == RoleRequest::Master {
            world.upsert(0, 1);
            world.run(ms(10));
            world.update(0, Change::Delete(key(1)));
            world.run(ms(10));
        }
    }
    let data = sent(&world, 0, Kind::DATA, Instant::ZERO);
    let seqs: Vec<u64> = data.iter().map(|(_, bytes)| header(bytes).seq).collect();
    let (first, last) = (header(&data[0].1), header(&data.last().unwrap().1));
    assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]), "{seqs:?}");
    assert_eq!(first.incarnation, last.incarnation);
    assert!(first.term < last.term);
}

/// [3.3.2] Whatever happens to a flow, and whatever is walked meanwhile, no frame has two records of one key.
#[test]
fn no_frame_has_two_records_of_one_key() {
    let mut world = World::elected_pair();
    let mut choose = dice(3);
    for turn in 0..100 {
        for _ in 0..60 {
            let number = choose(50) as u32;
            let change = if choose(3) == 0 { Change::Delete(key(number)) } else { Change::Upsert(flow(number)) };
            world.update(0, change);
        }
        world.run(Duration::from_micros(300));
        if turn == 50 {
            world.start(1, Config { incarnation: 5000, ..config(2) });
        }
    }
    let mut frames = 0;
    for (_, bytes) in sent(&world, 0, Kind::DATA, Instant::ZERO) {
        let Payload::Data(records) = Frame::parse(&bytes).unwrap().verify().unwrap().payload() else { unreachable!() };
        let keys: Vec<FlowKey> = records
            .filter_map(|record| match record {
                crate::wire::Record::Upsert(conn) | crate::wire::Record::Delete(conn) => Some(conn.key()),
                _ => None,
            })
            .collect();
        let distinct: std::collections::BTreeSet<&FlowKey> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
        frames += u32::from(keys.len() > 1);
    }
    assert!(frames > 10);
}

/// [3.4.4] Two ADVERTs swap places on the way: the older one, though never seen, counts no more.
#[test]
fn an_older_advert_is_stale() {
    let mut world = World::elected_pair();
    let start = world.now;
    world.passes = Box::new(|from, _, _| from != 1);
    world.run(ms(250));
    let adverts = sent(&world, 1, Kind::ADVERT, start);
    let [.., older, newer] = adverts.as_slice() else { panic!("too few ADVERTs") };
    world.hand_in(0, &mut newer.1.clone());
    assert_eq!(world.counter(0, "drop_stale"), 0);
    world.hand_in(0, &mut older.1.clone());
    assert_eq!(world.counter(0, "drop_stale"), 1);
}

/// [3.5.4] Ten ADVERTs a second when nothing happens, one at once when the role changes, and else never more than four
/// times the rate.
#[test]
fn adverts_come_once_an_interval_and_at_once_on_a_change() {
    let mut world = World::elected_pair();
    world.run(ms(1));
    let start = world.now;
    world.run(Duration::from_secs(1));
    assert_eq!(sent(&world, 0, Kind::ADVERT, start).len(), 10);
    world.kill(0);
    world.run_until("a new master", |world| world.role(1) == Role::Master);
    let became = world.now;
    let said = sent(&world, 1, Kind::ADVERT, Instant::from_nanos(became.as_nanos() - 1_000_000));
    assert!(said.iter().any(|(_, bytes)| advert(bytes).role == WireRole::MASTER), "within a millisecond");
    for node in [0, 1] {
        let adverts = sent(&world, node, Kind::ADVERT, Instant::ZERO);
        for pair in adverts.windows(2) {
            let same_role = advert(&pair[0].1).role == advert(&pair[1].1).role;
            assert!(!same_role || pair[1].0.since(pair[0].0) >= ms(25));
        }
    }
}

/// [3.5.6] A backup names its master while it hears it, and nobody two intervals later.
#[test]
fn a_backup_says_whom_it_follows_while_the_master_lives() {
    let mut world = World::elected_pair();
    let follows = |world: &World| {
        let adverts = sent(world, 1, Kind::ADVERT, Instant::ZERO);
        advert(&adverts.last().unwrap().1).follows
    };
    assert_eq!(follows(&world), Follows { node: NodeId(1), heir: NodeId(0), incarnation: 1001, term: 1 });
    world.kill(0);
    world.run(ms(310));
    assert_eq!(world.role(1), Role::Backup);
    assert_eq!(follows(&world).node, NodeId(0));
}

/// [3.5.8] Three of its intervals and its skew, 300 ms + 156/256 × 100 ms = 360.9375 ms, after its last ADVERT.
#[test]
fn a_silent_peer_is_forgotten_after_three_intervals_and_a_skew() {
    let mut world = World::elected_pair();
    world.kill(1);
    let last = sent(&world, 1, Kind::ADVERT, Instant::ZERO).last().unwrap().0;
    let gone = last + DELAY + Duration::from_nanos(360_937_500);
    world.run((gone - world.now) - Duration::from_micros(1));
    assert_eq!((world.events(0, "PeerDown"), world.engine(0).status().peers.len()), (0, 1));
    world.run(Duration::from_micros(2));
    assert_eq!((world.events(0, "PeerDown"), world.engine(0).status().peers.len()), (1, 0));
}

/// [3.5.9] Forty strangers: 32 are candidates, the others are refused, and the peer stays.
#[test]
fn strangers_cannot_crowd_out_a_peer() {
    let mut world = World::elected_pair();
    for stranger in 100..140 {
        let mut bytes = retold(&world, |header, _| {
            (header.node, header.incarnation) = (NodeId(stranger), u64::from(stranger));
        });
        world.hand_in(0, &mut bytes);
    }
    let peers = world.engine(0).status().peers;
    assert_eq!(peers.len(), 33);
    assert_eq!(peers.iter().filter(|peer| peer.established).map(|peer| peer.node).collect::<Vec<_>>(), [NodeId(2)]);
    assert_eq!(world.counter(0, "drop_crowded"), 8);
}

/// [4.5.6] A bucket that somebody asks for while it is being walked is walked once more.
#[test]
fn a_bucket_asked_for_during_its_walk_is_walked_again() {
    let mut outbox = Outbox::new(16, 1208, 0);
    let mut table = Table::new(16, 16, 1);
    assert_eq!(outbox.want(5, 1), 0);
    outbox.walk_on(&mut table);
    assert_eq!((outbox.want(5, 1), outbox.want(5, 1)), (1, 0), "once more, however often it is asked for");
    for _ in 0..2 {
        assert_eq!(outbox.walked(&table), Some((5, 0)));
        outbox.bucket_ended(5, 0);
        outbox.walk_on(&mut table);
    }
    assert!(!outbox.is_walking());
}

/// [5.4.2] A term that is 2^20 ahead may be; one more cannot.
#[test]
fn an_impossible_term_is_refused() {
    let mut world = World::elected_pair();
    let mut far = retold(&world, |header, _| header.term = 1 + (1 << 20) + 1);
    world.hand_in(0, &mut far);
    assert_eq!((world.counter(0, "drop_term_jump"), world.engine(0).status().term), (1, 1));
    let mut near = retold(&world, |header, _| header.term = 1 + (1 << 20));
    world.hand_in(0, &mut near);
    assert_eq!((world.counter(0, "drop_term_jump"), world.engine(0).status().term), (1, 2 + (1 << 20)));
}

/// [5.4.3] A master that hears of term 6 goes on as master of term 7, in its DATA too.
#[test]
fn a_master_stands_above_every_term_that_it_hears() {
    let mut world = World::elected_pair();
    let mut heard = retold(&world, |header, _| header.term = 6);
    world.hand_in(0, &mut heard);
    let start = world.now;
    world.upsert(0, 1);
    world.run(ms(300));
    assert_eq!((world.role(0), world.engine(0).status().term), (Role::Master, 7));
    let data = sent(&world, 0, Kind::DATA, start);
    assert!(!data.is_empty() && data.iter().all(|(_, bytes)| header(bytes).term == 7));
    world.assert_equal(0, 1);
}

/// [5.4.4] Our peer follows a living master of a higher term, whom we do not hear: we are not the master any more.
#[test]
fn a_master_steps_down_for_one_that_only_its_peer_hears() {
    let mut world = World::elected_pair();
    let mut elsewhere = retold(&world, |header, advert| {
        header.term = 2;
        advert.follows = Follows { node: NodeId(3), heir: NodeId(0), incarnation: 9, term: 2 };
    });
    world.hand_in(0, &mut elsewhere);
    assert_eq!(world.role(0), Role::Backup);
}

/// [7.0.1] The names that hooks and logs rely on.
#[test]
fn events_have_the_names_of_the_protocol() {
    let (node, term) = (NodeId(1), 1);
    let events = [
        (Event::RoleChanged { from: Role::Init, to: Role::Backup, term }, "RoleChanged"),
        (Event::NewMaster { node, term }, "NewMaster"),
        (Event::MasterLost { node }, "MasterLost"),
        (Event::ElectionStarted, "ElectionStarted"),
        (Event::ElectionFailed { cause: ElectionFailure::LinkDown }, "ElectionFailed"),
        (Event::DuplicateMaster { node, term, own_term: term }, "DuplicateMaster"),
        (Event::DuplicateNode { incarnation: 1 }, "DuplicateNode"),
        (Event::PeerUp { node, incarnation: 1, name: "a".into() }, "PeerUp"),
        (Event::PeerOneWay { node }, "PeerOneWay"),
        (Event::PeerDown { node }, "PeerDown"),
        (Event::PeerLeft { node }, "PeerLeft"),
        (Event::LinkDown, "LinkDown"),
        (Event::LinkUp, "LinkUp"),
        (Event::SyncStarted { from: node, buckets: 1 }, "SyncStarted"),
        (Event::InSync { digest: 1, entries: 1, took: ms(1) }, "InSync"),
        (Event::SyncProgress { percent: 1, buckets_left: 1, eta: None }, "SyncProgress"),
        (Event::Diverged { buckets: 1 }, "Diverged"),
        (Event::Repaired { buckets: 1, removed: 1, took: ms(1) }, "Repaired"),
        (Event::CommitDeadlinePassed, "CommitDeadlinePassed"),
        (Event::HandoverStarted { heir: node }, "HandoverStarted"),
        (Event::HandoverDone { heir: node }, "HandoverDone"),
        (Event::HandoverFailed { heir: node }, "HandoverFailed"),
        (Event::Draining { draining: true }, "Draining"),
        (Event::TableFull { store: Store::Flows, capacity: 1 }, "TableFull"),
        (Event::SourceOverrun, "SourceOverrun"),
        (Event::StallDetected { stalled: ms(1) }, "StallDetected"),
        (
            Event::AuthFailed {
                node,
                source: std::net::Ipv4Addr::LOCALHOST.into(),
                reason: FrameError::Forged,
                count: 1,
            },
            "AuthFailed",
        ),
        (Event::SealChanged { secret: None }, "SealChanged"),
        (Event::VersionMismatch { node, version: 2 }, "VersionMismatch"),
    ];
    for (event, name) in events {
        assert_eq!(event.name(), name);
    }
}
