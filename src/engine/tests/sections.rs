//! Sections: values of any length, lost, cut off, replaced and walked.

use super::*;
use crate::flow::Section;
use crate::wire::{Capabilities, Frame, Payload, Record};

fn name(key: &str) -> SectionKey {
    SectionKey { table: 7, key: key.as_bytes().into() }
}

/// Bytes that tell their place: no two words of it are alike.
fn value(salt: u32, length: usize) -> Box<[u8]> {
    (0..length as u32)
        .map(|at| ((at / 4).wrapping_mul(2_654_435_761).wrapping_add(salt) >> (8 * (at % 4))) as u8)
        .collect()
}

impl World {
    fn change_section(&mut self, at: usize, change: &SectionChange) -> Result<(), UpdateError> {
        let now = self.now;
        self.node(at).engine.update_section(now, change)
    }

    fn put(&mut self, at: usize, key: &str, value: &[u8]) {
        let section = Section { key: name(key), value: value.into(), expiry: 0 };
        self.change_section(at, &SectionChange::Put(section)).unwrap();
    }

    fn put_for(&mut self, at: usize, key: &str, expiry: u32) {
        let section = Section { key: name(key), value: Box::default(), expiry };
        self.change_section(at, &SectionChange::Put(section)).unwrap();
    }

    fn take(&mut self, at: usize, key: &str) {
        self.change_section(at, &SectionChange::Delete(name(key))).unwrap();
    }

    /// What is held of sections, and what the owner was told is the same.
    fn held(&self, at: usize) -> BTreeMap<SectionKey, Box<[u8]>> {
        let held = self.engine(at).sections(self.now).map(|section| (section.key, section.value)).collect();
        if self.role(at) == Role::Backup {
            assert!(self.nodes[at].as_ref().unwrap().sections == held, "the owner was told otherwise");
        }
        self.engine(at).table.assert_consistent();
        held
    }

    fn assert_proven_equal(&mut self) {
        let since = self.now;
        self.run_until("proven", |world| {
            let proven = world.engine(1).status().proven_at;
            world.sync(1) == SyncState::InSync && proven.is_some_and(|at| at > since)
        });
        assert!(self.held(0) == self.held(1), "proven, and not equal");
        self.assert_equal(0, 1);
        assert_eq!(self.engine(0).status().entries, self.engine(1).status().entries);
    }
}

fn small_frames(node: u32) -> Config {
    Config { frame_len: 1208, priority: if node == 1 { 150 } else { 100 }, ..config(node) }
}

fn pair_of(configs: [Config; 2]) -> World {
    let mut world = World::new(configs.into());
    world.slot_len = 1208;
    world.elected()
}

fn loses(world: &mut World, seed: u64, one_in: u64) {
    let mut roll = dice(seed);
    world.passes = Box::new(move |_, _, _| roll(one_in) != 0);
}

/// [3.3.12] [4.4.5] [4.5.2] Eight megabytes in frames of 1208 bytes; and a flow that changes meanwhile does not wait for them.
#[test]
fn a_long_value_arrives_in_small_frames_and_holds_up_no_flow() {
    let mut world = pair_of([small_frames(1), small_frames(2)]);
    world.put(0, "large", &value(1, 8 << 20));
    world.put(0, "small", b"value");
    world.run(ms(1));
    assert!(world.held(1).is_empty(), "half a value is no value");
    for number in 0..20 {
        world.upsert(0, number);
        world.run(Duration::from_micros(200));
        assert!(world.engine(1).flow(&key(number), world.now).is_some(), "flow {number} waits");
    }
    assert!(world.held(1).is_empty(), "it ought to last longer than twenty flows take");
    world.assert_proven_equal();
    assert!(world.held(1)[&name("large")] == value(1, 8 << 20), "all eight megabytes");
    assert_eq!(world.held(1)[&name("small")], (*b"value").into());
    assert_eq!(world.counter(1, "digests_differed"), 0);
    assert_eq!(world.counter(1, "section_partials_discarded"), 0);
    assert!(world.counter(1, "section_parts_received") > 8000);
}

/// [1.1.1] [3.3.12] A tenth of all frames is lost, while values of all lengths come, change and go.
#[test]
fn sections_survive_loss_and_end_proven_equal() {
    for seed in 1..3 {
        let mut world = pair_of([small_frames(1), small_frames(2)]);
        loses(&mut world, seed, 10);
        let mut choose = dice(seed + 100);
        for round in 0..200 {
            let key = format!("key {}", choose(20));
            if choose(4) == 0 {
                world.take(0, &key);
            } else {
                let length = [0, 5, 900, 3000, 200_000][choose(5) as usize] + choose(7) as usize;
                world.put(0, &key, &value(round, length));
            }
            world.upsert(0, round);
            let pause = choose(8);
            world.run(ms(pause));
        }
        world.passes = Box::new(|_, _, _| true);
        world.assert_proven_equal();
        assert!(world.counter(0, "section_values_restarted") > 0);
    }
}

/// [4.5.2] [4.5.3] Who comes later gets sections as it gets flows: bucket by bucket, and what it has too much goes.
#[test]
fn a_cold_joiner_gets_sections_by_a_walk() {
    let mut world = pair_of([small_frames(1), small_frames(2)]);
    for number in 0..50 {
        world.put(0, &format!("key {number}"), &value(number, 100 * number as usize));
    }
    world.put(0, "large", &value(77, 300_000));
    world.run(ms(500));
    world.kill(1);
    world.run(ms(1500));
    world.start(1, Config { incarnation: 3, ..small_frames(2) });
    world.put(0, "new", &value(78, 200_000));
    world.assert_proven_equal();
    assert_eq!(world.held(1).len(), 52);
    assert!(world.counter(1, "buckets_repaired") >= 4096);
}

/// [1.5.1] What a backup holds it serves as master; half a value it forgets.
#[test]
fn a_new_master_serves_what_it_holds() {
    let mut world = pair_of([small_frames(1), small_frames(2)]);
    world.put(0, "whole", b"whole");
    world.run(ms(300));
    world.put(0, "half", &value(3, 1 << 20));
    world.run(Duration::from_micros(200));
    assert!(world.engine(1).table.partial_bytes() > 0);
    world.kill(0);
    world.run_until("master", |world| world.role(1) == Role::Master);
    assert_eq!(world.engine(1).table.partial_bytes(), 0);
    assert_eq!(world.held(1), BTreeMap::from([(name("whole"), (*b"whole").into())]));
    world.put(1, "new", b"by another");
    world.dump_done(1);
    world.start(0, Config { incarnation: 5, preempt: false, ..small_frames(1) });
    world.run_until("proven", |world| world.sync(0) == SyncState::InSync);
    assert_eq!(world.held(0), world.held(1));
    assert_eq!(world.held(0).len(), 2);
}

/// [3.3.12] However little room there is for parts that came early: their frames come again, and everything ends well.
#[test]
fn without_room_for_partial_values_frames_come_again() {
    for partial_bytes in [0, 3000] {
        let mut world = pair_of([small_frames(1), Config { partial_bytes, ..small_frames(2) }]);
        loses(&mut world, 9, 20);
        world.put(0, "one", &value(1, 100_000));
        world.put(0, "two", &value(2, 100_000));
        world.run(ms(50));
        assert!(world.counter(1, "data_no_partial_room") > 0);
        world.passes = Box::new(|_, _, _| true);
        world.assert_proven_equal();
        assert_eq!(world.held(1).len(), 2);
    }
}

/// [3.3.12] A value that changes while it is being sent is not sent to its end; the new one comes whole, under a number of
/// its own, and others are not kept waiting.
#[test]
fn a_value_that_changes_under_way_begins_anew() {
    let mut world = pair_of([small_frames(1), small_frames(2)]);
    world.put(0, "changes", &value(1, 4 << 20));
    world.put(0, "waits", &value(9, 5000));
    let mut told = Vec::new();
    for salt in 2..6 {
        world.run(ms(1));
        world.put(0, "changes", &value(salt, 4 << 20));
        told.extend(world.held(1).into_keys());
    }
    assert!(told.contains(&name("waits")), "what waits goes between two attempts");
    assert!(!told.contains(&name("changes")), "no attempt came to its end");
    assert!(world.counter(0, "section_values_restarted") > 1);
    world.assert_proven_equal();
    assert!(world.held(1)[&name("changes")] == value(5, 4 << 20), "the last value");
    assert!(world.counter(1, "section_partials_discarded") > 1);
}

/// [3.3.12] A delete ends a value that is under way.
#[test]
fn a_delete_overtakes_a_value_under_way() {
    let mut world = pair_of([small_frames(1), small_frames(2)]);
    world.put(0, "gone", &value(1, 1 << 20));
    world.run(Duration::from_micros(200));
    assert!(world.engine(1).table.partial_bytes() > 0);
    world.take(0, "gone");
    world.run(ms(2));
    assert_eq!(world.engine(1).table.partial_bytes(), 0);
    world.assert_proven_equal();
    assert!(world.held(1).is_empty());
    assert_eq!(world.counter(1, "digests_differed"), 0);
}

/// [8.0.2] A full store refuses what is new, says so, and is not proven; when there is room, it is asked for.
#[test]
fn full_sections_refuse_are_reported_and_heal() {
    let mut world = pair_of([small_frames(1), Config { section_bytes: 10_000, ..small_frames(2) }]);
    world.put(0, "kept", b"former");
    world.run(ms(300));
    world.put(0, "much", &value(1, 9000));
    world.put(0, "kept", &value(2, 2000));
    world.run(ms(500));
    assert_eq!(world.held(1), BTreeMap::from([(name("kept"), (*b"former").into()), (name("much"), value(1, 9000))]));
    assert_ne!(world.sync(1), SyncState::InSync);
    assert_eq!((world.events(1, "TableFull"), world.events(0, "TableFull")), (1, 0));
    assert!(world.counter(1, "sections_full") > 0);
    world.take(0, "much");
    world.assert_proven_equal();
    assert_eq!(world.held(1)[&name("kept")], value(2, 2000));
}

/// [4.6.1] [4.6.3] Only the master removes by time, and sends the delete; who becomes master does so then.
#[test]
fn only_a_master_forgets_by_time() {
    let mut world = pair_of([small_frames(1), small_frames(2)]);
    world.put_for(0, "short", 2);
    world.put_for(0, "long", 60);
    world.put_for(0, "ever", 0);
    world.run(ms(1900));
    assert_eq!(world.held(1).len(), 3);
    assert_eq!(world.engine(1).section(&name("short"), world.now).unwrap().expiry, 1);
    world.run(ms(200));
    assert_eq!((world.held(0).len(), world.held(1).len()), (2, 2));
    assert_eq!((world.counter(0, "sections_expired"), world.counter(1, "sections_expired")), (1, 0));
    world.put_for(0, "short", 2);
    world.run(ms(500));
    // Nothing but ADVERTs arrives: the backup keeps what the master has forgotten.
    world.passes = Box::new(|from, _, bytes| from == 1 || bytes[5] == 1);
    world.run(ms(3000));
    assert_eq!((world.held(0).len(), world.held(1).len()), (2, 3));
    world.kill(0);
    world.run_until("master", |world| world.role(1) == Role::Master);
    world.run(ms(10));
    assert_eq!((world.held(1).len(), world.counter(1, "sections_expired")), (2, 1));
}

/// [3.3.11] What cannot be said, or has no room, is refused by name and changes nothing.
#[test]
fn a_change_that_cannot_be_is_refused_by_name() {
    let mut world = pair_of([Config { sections: 2, section_bytes: 100, ..small_frames(1) }, small_frames(2)]);
    let put = |key: &[u8], length| {
        SectionChange::Put(Section {
            key: SectionKey { table: 1, key: key.into() },
            value: value(1, length),
            expiry: 0,
        })
    };
    assert_eq!(world.change_section(1, &put(b"k", 1)), Err(UpdateError::NotMaster));
    assert_eq!(world.change_section(0, &put(b"", 1)), Err(UpdateError::SectionKey));
    assert_eq!(world.change_section(0, &put(&[1; 257], 1)), Err(UpdateError::SectionKey));
    assert_eq!(world.change_section(0, &put(b"k", 100)), Err(UpdateError::SectionsFull));
    assert_eq!(world.change_section(0, &put(b"k", 99)), Ok(()));
    assert_eq!(world.change_section(0, &put(b"l", 0)), Err(UpdateError::SectionsFull));
    assert_eq!(world.change_section(0, &put(b"k", 97)), Ok(()));
    assert_eq!(world.change_section(0, &put(b"l", 1)), Ok(()));
    assert_eq!(world.change_section(0, &put(b"m", 0)), Err(UpdateError::SectionsFull));
    assert_eq!((world.counter(0, "sections_full"), world.events(0, "TableFull")), (3, 0));
    world.run(ms(1));
    assert_eq!(world.events(0, "TableFull"), 1);
}

/// [3.5.13] [3.3.12] The capability is said, and of two values never parts stand between each other's.
#[test]
fn one_value_leaves_at_a_time() {
    let mut world = pair_of([small_frames(1), small_frames(2)]);
    assert!(world.engine(1).status().peers[0].capabilities.contains(Capabilities::SECTION));
    world.sent.clear();
    for number in 0..3 {
        world.put(0, &format!("{number}"), &value(number, 20_000));
        world.upsert(0, number);
    }
    world.run(ms(100));
    let mut parts = Vec::new();
    for (_, _, bytes) in world.sent.iter().filter(|(_, from, bytes)| *from == 0 && bytes[5] == 2) {
        let frame = Frame::parse(bytes).unwrap();
        let seq = frame.header().seq;
        let verified = frame.verify().unwrap();
        let Payload::Data(records) = verified.payload() else { continue };
        for record in records {
            let Record::Section(section) = record else { continue };
            let fragment = section.fragment.unwrap();
            parts.push((
                section.key[0],
                fragment.offset,
                fragment.offset as usize + fragment.bytes.len(),
                seq,
                fragment.back,
            ));
        }
    }
    let mut expected = (b'0', 0, 0);
    for (key, offset, end, seq, back) in parts {
        if offset == 0 {
            expected = (key, 0, seq);
        }
        assert_eq!((key, offset as usize, u64::from(back)), (expected.0, expected.1, seq - expected.2));
        expected.1 = end;
    }
    assert_eq!((expected.0, expected.1), (b'2', 20_000));
}
