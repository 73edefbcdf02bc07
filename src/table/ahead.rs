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
use crate::flow::FlowKey;

impl Table {
    /// Reads the slots in which these keys begin to be looked for, so that they are in the cache when they are. A frame's worth
    /// of keys is right: more than fits the nearest caches is read in vain.
    pub fn look_ahead(&self, keys: impl IntoIterator<Item = FlowKey>) {
        let packed = keys.into_iter().filter_map(|key| Key::pack(&key, self.seed()));
        let read = packed.fold(0_u32, |read, key| read ^ self.slots.get(self.slots.home(key.hash)).deadline);
        // Nobody may find out that this was for nothing.
        core::hint::black_box(read);
    }
}

#[cfg(test)]
mod tests {
    use crate::flow::{Flow, FlowKey, Zone};
    use crate::table::Table;
    use crate::time::Instant;
    use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    #[test]
    fn to_look_ahead_changes_nothing_and_takes_keys_that_have_no_form() {
        let key = |source: IpAddr| FlowKey {
            source,
            destination: IpAddr::V4(Ipv4Addr::LOCALHOST),
            source_port: 1,
            destination_port: 2,
            protocol: 6,
            zone: Zone::DEFAULT,
        };
        let (narrow, mixed) = (key(Ipv4Addr::LOCALHOST.into()), key(Ipv6Addr::LOCALHOST.into()));
        let mut table = Table::new(8, 8, 7);
        table.put(&Flow::new(narrow), Instant::ZERO).unwrap();
        let before = table.digest();
        table.look_ahead([narrow, mixed, FlowKey { source_port: 9, ..narrow }]);
        assert_eq!((table.digest(), table.len()), (before, 1));
        table.assert_consistent();
    }
}
