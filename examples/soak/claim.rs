//! Is a pair equal while it says so, also under load? What is on its way differs at every moment, but nothing differs in the same
//! way for long.
//!
//! ```text
//!   in sync ── both kernels read ──── 3 s, in sync all the time ──── both kernels read
//!              └ differ: A, B, C                                     └ differ: C, D       C has lasted: a claim that is false
//! ```

use ssyncp::demo::kernel::{Entry, Tuple, status};
use std::collections::{HashMap, HashSet};

/// What a copy must share with its original.
type Value = (Tuple, Option<u8>, u32, u32);
/// One difference: whose, and what the master's kernel and the backup's have.
type Difference = (Tuple, Option<Value>, Option<Value>);

/// How two kernels differ at one moment.
#[derive(Debug, Clone, Default)]
pub struct Differences(HashSet<Difference>);

impl Differences {
    /// Of the master's kernel and the backup's.
    pub fn between(master: &[Entry], backup: &[Entry]) -> Self {
        let value = |entry: &Entry| (entry.reply, entry.state, entry.status & status::COMPARED, entry.mark);
        let map = |entries: &[Entry]| -> HashMap<Tuple, Value> {
            entries.iter().map(|entry| (entry.original, value(entry))).collect()
        };
        let (master, backup) = (map(master), map(backup));
        let keys: HashSet<&Tuple> = master.keys().chain(backup.keys()).collect();
        let both = keys.into_iter().map(|key| (*key, master.get(key).copied(), backup.get(key).copied()));
        Differences(both.filter(|(_, of_master, of_backup)| of_master != of_backup).collect())
    }

    /// Those that were there before, too, in words.
    pub fn lasting_since(&self, before: &Differences) -> Vec<String> {
        let words = |(key, of_master, of_backup): &Difference| {
            let side = |value: &Option<Value>| match value {
                Some((_, state, status, mark)) => format!("state {state:?} status {status:#x} mark {mark}"),
                None => "nothing".into(),
            };
            format!(
                "protocol {} {}:{} > {}:{}: master {}, backup {}",
                key.protocol,
                key.source,
                key.source_port,
                key.destination,
                key.destination_port,
                side(of_master),
                side(of_backup)
            )
        };
        self.0.intersection(&before.0).map(words).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};

    fn entry(port: u16, state: u8) -> Entry {
        let address = |last| IpAddr::V4(Ipv4Addr::new(192, 0, 2, last));
        let tuple = |source, destination, source_port, destination_port| Tuple {
            source: address(source),
            destination: address(destination),
            protocol: 6,
            source_port,
            destination_port,
            zone: 0,
        };
        let (original, reply) = (tuple(1, 2, port, 80), tuple(2, 1, 80, port));
        // SEEN_REPLY, ASSURED, CONFIRMED.
        Entry { original, reply, state: Some(state), status: 0b1110, mark: 0 }
    }

    #[test]
    fn what_is_on_its_way_does_not_last() {
        let before = Differences::between(&[entry(1, 3), entry(2, 3)], &[entry(1, 3)]);
        let after = Differences::between(&[entry(2, 3), entry(3, 1)], &[entry(2, 3)]);
        assert_eq!(after.lasting_since(&before), [""; 0]);
        assert_eq!((before.0.len(), after.0.len()), (1, 1));
    }

    #[test]
    fn missing_extra_and_stale_entries_last() {
        let (master, backup) = ([entry(1, 3), entry(2, 3)], [entry(2, 4), entry(3, 3)]);
        let before = Differences::between(&master, &backup);
        let mut lasting = before.lasting_since(&before);
        lasting.sort();
        let name = |port: u16| format!("protocol 6 192.0.2.1:{port} > 192.0.2.2:80");
        let flow = |state: u8| format!("state Some({state}) status 0x6 mark 0");
        let expected = [
            format!("{}: master {}, backup nothing", name(1), flow(3)),
            format!("{}: master {}, backup {}", name(2), flow(3), flow(4)),
            format!("{}: master nothing, backup {}", name(3), flow(3)),
        ];
        assert_eq!(lasting, expected);
    }

    #[test]
    fn a_flow_that_differs_in_another_way_has_moved_on() {
        let before = Differences::between(&[entry(1, 1)], &[]);
        let after = Differences::between(&[entry(1, 4)], &[entry(1, 3)]);
        assert_eq!(after.lasting_since(&before), [""; 0]);
    }

    #[test]
    fn the_kernels_own_progress_is_no_difference() {
        let other = Entry { status: 0b1110 | 1 << 8, ..entry(1, 3) };
        assert!(Differences::between(&[entry(1, 3)], &[other]).0.is_empty());
    }
}
