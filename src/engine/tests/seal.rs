//! Sealed groups: what a party without the secret can do, which is nothing (docs/protocol.md 3.4).

use super::*;
use crate::engine::Auth;
use crate::wire::{SECRET_LEN, Secret};

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
    world.run(Duration::from_millis(300));
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
        bytes[5] != 2 || count % 3 != 0
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
