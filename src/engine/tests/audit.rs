//! What an owner that audits its sink asks of an engine.

use super::*;

/// [5.3.3] The owner's word holds a returning node back from a living master, and from no dead one.
#[test]
fn a_node_whose_owner_holds_it_does_not_preempt_but_replaces_a_dead_master() {
    let mut world = World::elected_pair();
    world.kill(0);
    world.run_until("master", |world| world.role(1) == Role::Master);
    world.dump_done(1);
    world.start(0, Config { priority: 150, incarnation: 5555, ..config(1) });
    world.node(0).engine.hold_preemption(true);
    world.run(Duration::from_secs(5));
    assert_eq!((world.role(0), world.sync(0)), (Role::Backup, SyncState::InSync));
    world.node(0).engine.hold_preemption(false);
    world.run_until("the return", |world| world.role(0) == Role::Master && world.role(1) == Role::Backup);
    world.node(1).engine.hold_preemption(true);
    world.kill(0);
    world.run_until("the other one again", |world| world.role(1) == Role::Master);
}

#[test]
fn each_proof_has_a_number_of_its_own_and_a_master_has_none() {
    let mut world = World::elected_pair();
    world.upsert(0, 1);
    world.run(ms(250));
    assert_eq!((world.engine(0).proof(), world.engine(1).proof()), (None, Some(1)));
    assert_eq!([1, 2].map(|number| world.engine(1).lacks(&key(number))), [false, true]);
    let sent = world.engine(0).status().stream_seq;
    assert!(sent > 0 && world.engine(1).frontier() == sent);
    // The link of the backup goes and comes: it follows anew, and proves anew.
    let now = world.now;
    world.node(1).engine.handle_link(now, false);
    assert_eq!(world.engine(1).proof(), None);
    world.node(1).engine.handle_link(now, true);
    world.run_until("proven", |world| world.engine(1).proof().is_some());
    assert_eq!(world.engine(1).proof(), Some(2));
}

/// [3.5.14] Whoever hears a node knows how large its kernel's table is.
#[test]
fn the_size_of_a_kernels_table_reaches_the_peers() {
    let mut world = World::new(vec![Config { priority: 150, ..config(1) }, config(2), config(3)]).elected();
    assert_eq!((world.engine(0).peer_room(), world.engine(1).peer_room()), (None, None));
    let room = |capacity| KernelRoom { capacity, buckets: capacity / 4 };
    for (node, capacity) in [(0, 4000), (1, 2000), (2, 1000)] {
        world.node(node).engine.set_kernel_room(room(capacity));
    }
    world.run(ms(250));
    assert_eq!(world.engine(1).peer_room(), Some(room(4000)), "a backup asks for the master's");
    assert_eq!(world.engine(0).peer_room(), Some(room(1000)), "a master asks for the smallest");
}
