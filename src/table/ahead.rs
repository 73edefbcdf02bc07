//! Looking ahead: the slots of a frame's keys are read before the first of them is needed.
//!
//! A slot of a large table is in no cache, and to wait for one costs more than all that is done with it. A processor waits
//! for ten or more at a time, as long as none of them decides which is the next:
//!
//! ```text
//!   one by one   hash ─ wait ──────── apply │ hash ─ wait ──────── apply │ hash ─ wait ──────── apply
//!   ahead        hash hash hash ─ wait ──────── │ apply apply apply
//! ```
//!
//! What is read is thrown away: the tables of who looks ahead and who does not are the same.

use super::Table;
use super::record::Key;
use crate::flow::KeyBytes;

/// The hash of a key, as [`Table::look_ahead`] has found it: for that key only, and as long as the table has the seed that
/// it had.
#[derive(Clone, Copy, Default, Debug)]
pub struct Ahead(pub(super) u64);

impl Table {
    /// Reads the cells and slots of these keys, so that they are in the cache when they are needed. What `ahead` then has at
    /// the same place is of the same key, as far as it has room; where there is no key it says nothing. A frame's worth of keys
    /// is right: more than fits the nearest caches is read in vain.
    pub fn look_ahead(&self, keys: impl IntoIterator<Item = Option<KeyBytes>>, ahead: &mut [Ahead]) {
        let (seed, mut count) = (self.seed(), 0);
        for (ahead, key) in ahead.iter_mut().zip(keys) {
            ahead.0 = key.map_or(0, |key| Key::new(key, seed).hash);
            count += 1;
        }
        self.slots.read(&ahead[..count]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Flow, FlowKey, PlainFlow, Zone};
    use crate::table::{Applied, Table};
    use crate::time::Instant;
    use core::net::Ipv4Addr;

    const KEY: [u8; 16] = [127, 0, 0, 1, 127, 0, 0, 1, 0, 1, 0, 2, 6, 0, 0, 0];

    #[test]
    fn to_look_ahead_changes_nothing_and_what_it_finds_is_the_place_of_the_same_key() {
        let key = FlowKey {
            source: Ipv4Addr::LOCALHOST.into(),
            destination: Ipv4Addr::LOCALHOST.into(),
            source_port: 1,
            destination_port: 2,
            protocol: 6,
            zone: Zone::DEFAULT,
        };
        let mut table = Table::new(8, 8, 7);
        table.apply_upsert(&Flow::new(key), 1, Instant::ZERO).unwrap();
        let (before, mut ahead) = (table.digest(), [Ahead::default(); 2]);
        table.look_ahead([None, Some(KeyBytes::V4(KEY)), Some(KeyBytes::V6([0; 40]))], &mut ahead);
        assert_eq!((table.digest(), table.len()), (before, 1));
        let plain = PlainFlow::new(&KEY, 3, [0, 2], 60);
        assert_eq!(table.apply_plain(&plain, ahead[1], 2, Instant::ZERO), Ok(Applied::Changed));
        let held = Flow { state: 3, status: 2, timeout: 60, ..Flow::new(key) };
        assert_eq!((table.get(&key, Instant::ZERO), table.len()), (Some(held), 1));
        table.assert_consistent();
        assert_eq!(table.apply_delete_ahead(KeyBytes::V4(KEY), ahead[1], 3, 2), Ok(Applied::Changed));
        assert!(table.is_empty());
        table.assert_consistent();
    }
}
