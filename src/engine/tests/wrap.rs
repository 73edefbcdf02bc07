//! Numbers that come to their end: of a stream, of control frames, of terms.

use super::*;

/// A pair after its election, made of these configurations.
fn pair_of(change: impl Fn(Config) -> Config) -> World {
    let mut world = World::new(vec![change(Config { priority: 150, ..config(1) }), change(config(2))]);
    world.run(Duration::from_secs(1));
    assert_eq!((world.role(0), world.role(1)), (Role::Master, Role::Backup));
    world.dump_done(0);
    world.run_until("in sync", |world| world.sync(1) == SyncState::InSync);
    world
}

/// Changes each millisecond, with one frame in five lost; afterwards both tables must be equal, and proven.
fn trouble(world: &mut World, milliseconds: u32) {
    let (mut roll, mut choose) = (dice(5), dice(7));
    world.passes = Box::new(move |_, _, _| roll(5) != 0);
    for _ in 0..milliseconds {
        let number = choose(300) as u32;
        let change = if choose(4) == 0 { Change::Delete(key(number)) } else { Change::Upsert(flow(number)) };
        world.update(0, change);
        world.run(ms(1));
    }
    world.passes = Box::new(|_, _, _| true);
    world.run_until("in sync", |world| world.sync(1) == SyncState::InSync && world.table(1) == world.table(0));
    world.run(ms(300));
    world.assert_equal(0, 1);
    assert_eq!(world.sync(1), SyncState::InSync);
}

/// [8.0.4] The stream's numbers end after 400 frames: a new stream of a new incarnation begins with 1. The master stays
/// master, in the next term; the backup follows it, keeps what it holds, and is proven again.
#[test]
fn a_stream_whose_numbers_end_goes_on_as_another_incarnation() {
    let mut world = pair_of(|config| Config { first_seq: (1 << 48) - 1 - 400, ..config });
    (1000..1200).for_each(|number| world.upsert(0, number));
    world.run(ms(50));
    assert!(world.engine(0).status().stream_seq > (1 << 48) - 400);
    let roles = (world.events(0, "RoleChanged"), world.events(1, "RoleChanged"));
    let before = world.engine(1).following().unwrap();
    trouble(&mut world, 1000);
    let after = world.engine(1).following().unwrap();
    assert_eq!((after.0, after.1 != before.1, after.2), (NodeId(1), true, before.2 + 1));
    assert!(world.engine(0).status().stream_seq < 2000);
    assert_eq!(roles, (world.events(0, "RoleChanged"), world.events(1, "RoleChanged")), "nobody's role has changed");
    assert_eq!((world.role(0), world.counter(0, "incarnations_drawn")), (Role::Master, 1));
    let held = (1000..1200).filter(|number| world.node(1).sink.contains_key(&key(*number))).count();
    assert_eq!(held, 200);
}

/// [8.0.4] What waits to be sent when the numbers end is sent in the new stream: a delete too, which nothing else would tell.
#[test]
fn what_waits_when_the_numbers_end_is_not_lost() {
    let mut world = pair_of(|config| config);
    (0..50).for_each(|number| world.upsert(0, number));
    world.run(ms(50));
    (0..20).for_each(|number| world.update(0, Change::Delete(key(number))));
    (100..105).for_each(|number| world.upsert(0, number));
    let now = world.now;
    let engine = &mut world.node(0).engine;
    engine.outbox = Outbox::new(engine.config.history, engine.config.frame_len, (1 << 48) - 1);
    engine.renew_before_numbers_end(now);
    assert_eq!((engine.status().pending, engine.status().stream_seq), (25, 0));
    world.run(ms(60));
    assert_eq!((world.table(1).len(), world.engine(1).status().frontier > 0), (35, true));
    world.run(ms(300));
    world.assert_equal(0, 1);
    assert_eq!(
        (world.sync(1), world.counter(1, "pulls_sent")),
        (SyncState::InSync, world.counter(1, "pulls_sent").min(1))
    );
}

/// [8.0.4] Control numbers of both nodes end under traffic.
#[test]
fn control_numbers_that_end_cost_no_role_and_no_table() {
    let mut world = pair_of(|config| config);
    (0..2).for_each(|at| world.node(at).engine.control_seq = (1 << 62) - 20);
    let roles = (world.events(0, "RoleChanged"), world.events(1, "RoleChanged"));
    trouble(&mut world, 3000);
    assert_eq!(roles, (world.events(0, "RoleChanged"), world.events(1, "RoleChanged")));
    assert_eq!([0, 1].map(|at| world.counter(at, "incarnations_drawn")), [1, 1]);
    assert!((0..2).all(|at| world.engine(at).control_seq < 5000));
}

/// [8.0.5] The last term is 2^62: takeovers go on in it, told apart by incarnations, and of two masters the higher priority
/// stays.
#[test]
fn the_last_term_has_as_many_masterships_as_are_needed() {
    const LAST: u64 = 1 << 62;
    let mut world = pair_of(|config| Config { first_term: LAST - 1, ..config });
    assert_eq!(world.engine(0).status().term, LAST);
    trouble(&mut world, 300);
    world.kill(0);
    world.run_until("takeover", |world| world.role(1) == Role::Master);
    assert_eq!((world.engine(1).status().term, world.counter(1, "incarnations_drawn")), (LAST, 1));
    world.dump_done(1);
    world.start(0, Config { priority: 150, incarnation: 5, ..config(1) });
    world.run_until("the higher priority is master again", |world| {
        (world.role(0), world.role(1)) == (Role::Master, Role::Backup)
    });
    assert_eq!((world.engine(0).status().term, world.counter(0, "incarnations_drawn")), (LAST, 1));
    world.dump_done(0);
    world.run_until("in sync", |world| world.sync(1) == SyncState::InSync);
    trouble(&mut world, 300);
    assert_eq!((world.role(0), world.engine(0).status().term), (Role::Master, LAST));
}
