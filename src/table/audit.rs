//! The table against what the sink's side really holds: an audit names every entry that it finds there, and what it did
//! not name is missing.
//!
//! ```text
//!   begin_audit     nothing is named
//!   audit_held      each entry that is there        equal, other, unknown    named from now on
//!   pop_applied     changes meanwhile               not to be judged         named from now on
//!   audit_missing   slot by slot, at the end        live, waits for nobody, not named: missing
//! ```
//!
//! The mark is the one that a master's dump leaves: no node audits its sink while it is master, and each of the two
//! begins with a number of its own. So an audit needs no memory beside the table.

use super::Table;
use super::entry::{Entry, Kind, Place};
use super::record::Key;
use crate::flow::{Flow, FlowKey};
use crate::time::Instant;
use core::ops::Range;

/// What the table says of an entry that is really there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Held {
    /// The same.
    Equal,
    /// Something else.
    Differs,
    /// It has changed since the audit began, or waits for the sink: this audit cannot judge it.
    Unsettled,
    /// No such flow.
    Unknown,
}

impl Table {
    /// An audit begins; one that runs begins anew. The sink has taken everything that was popped before.
    pub fn begin_audit(&mut self) {
        self.next_dump();
    }

    /// An entry of this key is really there; `agrees` says whether it is what the table's flow asks for. If not, and if
    /// it is to be repaired, the flow goes to the sink again.
    pub fn audit_held(
        &mut self,
        key: &FlowKey,
        now: Instant,
        repair: bool,
        agrees: impl FnOnce(&Flow) -> bool,
    ) -> Held {
        let Some((at, hash)) = self.find_any(key) else { return Held::Unknown };
        let entry = *self.slots.get(at);
        match (entry.kind, entry.place) {
            (_, Place::Sink | Place::Wire) => return Held::Unsettled,
            (Kind::Live, _) if entry.dump == self.dump => return Held::Unsettled,
            (Kind::Live, _) => {}
            _ => return Held::Unknown,
        }
        self.slots.get_mut(at).dump = self.dump;
        if agrees(&self.flow_at(at, now)) {
            return Held::Equal;
        }
        if repair {
            self.place(at, hash, Place::Sink);
        }
        Held::Differs
    }

    /// Every entry that is there has been named: flows in these slots that were not are missing, if `takes` says that
    /// the sink takes them; also those whose clock has run out, which live until a master says otherwise [4.6.3]. Those
    /// that are to be repaired go to the sink again. How many are missing.
    pub fn audit_missing(
        &mut self,
        slots: Range<u32>,
        now: Instant,
        repair: bool,
        takes: impl Fn(&Flow) -> bool,
    ) -> u32 {
        let mut missing = 0;
        for at in slots.start..slots.end.min(self.slots()) {
            let entry: Entry = *self.slots.get(at);
            let settled = entry.kind == Kind::Live && entry.place == Place::Nowhere && entry.dump != self.dump;
            if !settled || !takes(&self.flow_at(at, now)) {
                continue;
            }
            missing += 1;
            if repair {
                self.place(at, self.slots.hash_at(at), Place::Sink);
            }
        }
        missing
    }

    /// Whether neither the flow is held, nor is its end still on the way to the sink.
    pub fn lacks(&self, key: &FlowKey) -> bool {
        let entry = self.find_any(key).map(|(at, _)| self.slots.get(at));
        entry.is_none_or(|entry| entry.kind != Kind::Live && entry.place != Place::Sink)
    }

    /// The slot of an entry, living or dead, and the hash of its key.
    fn find_any(&self, key: &FlowKey) -> Option<(u32, u64)> {
        let key = Key::pack(key, self.seed())?;
        self.slots.find(&key).ok().map(|at| (at, key.hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Change, Zone};
    use core::net::{IpAddr, Ipv4Addr};

    const NOW: Instant = Instant::from_nanos(10_000_000_000);
    const ALL: Range<u32> = 0..u32::MAX;

    fn key(port: u16) -> FlowKey {
        FlowKey {
            source: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
            destination: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)),
            source_port: port,
            destination_port: 80,
            protocol: 6,
            zone: Zone::DEFAULT,
        }
    }

    fn flow(port: u16, timeout: u32) -> Flow {
        Flow { timeout, mark: 7, ..Flow::new(key(port)) }
    }

    /// A backup's table with these flows, all of them taken by the sink, and an audit that has just begun.
    fn audited(ports: Range<u16>) -> Table {
        let mut table = Table::new(64, 8, 1);
        table.begin_stream();
        for port in ports {
            table.apply_upsert(&flow(port, 100), u64::from(port), NOW).unwrap();
        }
        while table.pop_applied(NOW).is_some() {}
        table.begin_audit();
        table
    }

    fn hold(table: &mut Table, port: u16, agrees: bool) -> Held {
        let held = table.audit_held(&key(port), NOW, true, |_| agrees);
        table.assert_consistent();
        held
    }

    fn popped(table: &mut Table) -> Vec<u16> {
        let changes = std::iter::from_fn(|| table.pop_applied(NOW));
        let mut ports: Vec<u16> = changes.map(|change| change.key().source_port).collect();
        ports.sort_unstable();
        ports
    }

    #[test]
    fn what_is_named_and_equal_is_left_alone_and_the_rest_is_missing_and_written_again() {
        let mut table = audited(1..6);
        assert_eq!(hold(&mut table, 2, true), Held::Equal);
        assert_eq!(hold(&mut table, 4, true), Held::Equal);
        assert_eq!(hold(&mut table, 9, true), Held::Unknown);
        assert_eq!(table.audit_missing(ALL, NOW, true, |flow| flow.key.source_port != 5), 2);
        table.assert_consistent();
        assert_eq!(popped(&mut table), [1, 3]);
    }

    #[test]
    fn what_is_other_is_compared_with_the_whole_flow_and_written_again() {
        let mut table = audited(1..3);
        let later = Instant::from_nanos(40_000_000_000);
        let seen = table.audit_held(&key(1), later, true, |wanted| {
            assert_eq!(*wanted, flow(1, 70));
            false
        });
        assert_eq!(seen, Held::Differs);
        assert_eq!(popped(&mut table), [1]);
        assert_eq!(hold(&mut table, 1, false), Held::Unsettled, "written since the audit began");
    }

    #[test]
    fn an_audit_that_only_reports_changes_nothing() {
        let mut table = audited(1..3);
        assert_eq!(table.audit_held(&key(1), NOW, false, |_| false), Held::Differs);
        assert_eq!(table.audit_missing(ALL, NOW, false, |_| true), 1);
        assert!(popped(&mut table).is_empty());
    }

    #[test]
    fn what_changes_during_an_audit_is_neither_other_nor_missing() {
        let mut table = audited(1..4);
        table.apply_upsert(&Flow { mark: 8, ..flow(1, 100) }, 10, NOW).unwrap();
        table.apply_upsert(&flow(20, 100), 11, NOW).unwrap();
        assert_eq!(hold(&mut table, 1, false), Held::Unsettled, "waits for the sink");
        assert_eq!(popped(&mut table), [1, 20]);
        assert_eq!(hold(&mut table, 1, false), Held::Unsettled, "was given to the sink");
        assert_eq!(table.audit_missing(ALL, NOW, true, |_| true), 2);
        assert_eq!(popped(&mut table), [2, 3]);
    }

    #[test]
    fn the_end_of_a_flow_that_the_sink_has_not_heard_of_is_not_lacked_yet() {
        let mut table = audited(1..3);
        table.apply_delete(&key(1), 10, 9).unwrap();
        assert!(!table.lacks(&key(1)) && !table.lacks(&key(2)) && table.lacks(&key(3)));
        assert_eq!(hold(&mut table, 1, false), Held::Unsettled);
        assert_eq!(table.pop_applied(NOW), Some(Change::Delete(key(1))));
        assert_eq!(hold(&mut table, 1, false), Held::Unknown);
        assert!(table.lacks(&key(1)));
    }

    /// A node that was master still has to send it: nothing of it has gone to the sink.
    #[test]
    fn what_waits_for_the_wire_is_not_judged() {
        let mut table = audited(1..3);
        table.put(&Flow { mark: 8, ..flow(1, 100) }, NOW).unwrap();
        table.begin_audit();
        assert_eq!((hold(&mut table, 1, false), table.pending()), (Held::Unsettled, 1));
        assert_eq!(table.audit_missing(ALL, NOW, true, |_| true), 1);
        assert_eq!(popped(&mut table), [2]);
    }

    /// A tombstone has been told to the sink: who still holds the flow holds it wrongly.
    #[test]
    fn a_tombstone_is_no_flow() {
        let mut table = audited(1..3);
        table.apply_delete(&key(1), 10, 0).unwrap();
        assert_eq!(table.pop_applied(NOW), Some(Change::Delete(key(1))));
        assert_eq!((table.tombstones(), hold(&mut table, 1, true)), (1, Held::Unknown));
        assert!(table.lacks(&key(1)));
    }

    /// [4.6.3] A clock that has run out is no end.
    #[test]
    fn what_has_expired_is_missing_like_any_other() {
        let mut table = audited(1..3);
        assert_eq!(table.audit_missing(ALL, Instant::from_nanos(110_000_000_000), true, |_| true), 2);
        assert_eq!(popped(&mut table), [1, 2]);
    }

    #[test]
    fn only_the_slots_asked_for_are_looked_at() {
        let mut table = audited(1..6);
        let slots = table.slots();
        let halves = [0..slots / 2, slots / 2..slots].map(|half| table.audit_missing(half, NOW, true, |_| true));
        assert_eq!(halves.iter().sum::<u32>(), 5);
        assert_eq!(table.audit_missing(0..0, NOW, true, |_| true), 0);
    }

    #[test]
    fn a_mark_of_an_audit_long_ago_is_no_mark() {
        let mut table = audited(1..3);
        assert_eq!(hold(&mut table, 1, true), Held::Equal);
        for _ in 0..255 {
            table.begin_audit();
            assert_eq!(table.audit_missing(ALL, NOW, false, |_| true), 2);
        }
    }
}
