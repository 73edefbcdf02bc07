//! What a node's kernel is to its engine: a table of connections that outlives the daemon, tells of changes by a queue of
//! bounded length, can be dumped, and takes what a backup was told.
//!
//! ```text
//!   traffic ─▶ ┌─────────┐ ─ events, at most so many ─▶ daemon      (full: dropped until the queue is empty, told then)
//!   sink  ───▶ │ entries │ ─ dump, a chunk a turn ────▶ daemon
//!              └─────────┘   entries of a chunk are as they are when it is read
//! ```
//!
//! As Linux does: what the sink itself writes makes no event; while nobody listens nothing is kept; an overrun is told
//! when the queue has been read to its end. Some entries die without an event (made while nobody listened, or by a clock
//! of the kernel's own on a backup): only a dump can tell.

use super::workload::number_of;
use crate::flow::{Change, Flow};
use std::collections::{BTreeMap, VecDeque};

/// What a read of the events came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Change(Change),
    /// Events were lost, and all that were kept have been read.
    Overrun,
    Nothing,
}

/// One node's kernel. Entries stand under the numbers of their keys.
#[derive(Debug)]
pub(super) struct Kernel {
    entries: BTreeMap<u32, Flow>,
    events: VecDeque<Change>,
    events_max: usize,
    overrun: bool,
    /// Somebody has a socket open.
    listening: bool,
    /// The next number that the dump looks at.
    dump: Option<u32>,
    /// The sink refuses.
    pub(super) refuses: bool,
}

impl Kernel {
    pub(super) fn new(events_max: usize) -> Self {
        Kernel {
            entries: BTreeMap::new(),
            events: VecDeque::new(),
            events_max,
            overrun: false,
            listening: false,
            dump: None,
            refuses: false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn get(&self, number: u32) -> Option<&Flow> {
        self.entries.get(&number)
    }

    pub(super) fn flows(&self) -> impl Iterator<Item = &Flow> {
        self.entries.values()
    }

    /// The numbers of some entries.
    pub(super) fn numbers(&self, wanted: impl Fn(&Flow) -> bool) -> impl Iterator<Item = u32> {
        self.entries.iter().filter(move |(_, flow)| wanted(flow)).map(|(number, _)| *number)
    }

    /// The entry at or after a number.
    pub(super) fn next(&self, number: u32) -> Option<u32> {
        self.entries.range(number..).next().map(|(number, _)| *number)
    }

    // ------------------------------------------------------------------ traffic

    /// A packet has made or changed an entry.
    pub(super) fn put(&mut self, number: u32, flow: Flow) {
        self.tell(|| Change::Upsert(flow.clone()));
        self.entries.insert(number, flow);
    }

    /// A connection has ended.
    pub(super) fn end(&mut self, number: u32) {
        if let Some(flow) = self.entries.remove(&number) {
            self.tell(|| Change::Delete(flow.key));
        }
    }

    /// An entry dies, and no event says so.
    pub(super) fn die_silently(&mut self, number: u32) {
        self.entries.remove(&number);
    }

    /// The machine starts anew.
    pub(super) fn reboot(&mut self) {
        self.entries.clear();
        self.listen(false);
        self.refuses = false;
    }

    fn tell(&mut self, change: impl FnOnce() -> Change) {
        if !self.listening || self.overrun {
            return;
        }
        if self.events.len() >= self.events_max {
            self.overrun = true;
        } else {
            self.events.push_back(change());
        }
    }

    // ------------------------------------------------------------------ the daemon

    /// The daemon opens its sockets, or they close because it is dead.
    pub(super) fn listen(&mut self, listening: bool) {
        self.listening = listening;
        self.events.clear();
        (self.overrun, self.dump) = (false, None);
    }

    /// Whether a read would find something.
    pub(super) fn has_news(&self) -> bool {
        self.overrun || !self.events.is_empty()
    }

    /// The next event.
    pub(super) fn hear(&mut self) -> Heard {
        match self.events.pop_front() {
            Some(change) => Heard::Change(change),
            None if std::mem::take(&mut self.overrun) => Heard::Overrun,
            None => Heard::Nothing,
        }
    }

    /// A dump begins, at the first entry.
    pub(super) fn begin_dump(&mut self) {
        self.dump = Some(0);
    }

    /// The next entries of the dump, as they are now; whether it is complete.
    pub(super) fn dump(&mut self, entries: usize, mut name: impl FnMut(&Flow)) -> bool {
        let Some(from) = self.dump else { return true };
        let mut walk = self.entries.range(from..);
        for (_, flow) in walk.by_ref().take(entries) {
            name(flow);
        }
        self.dump = walk.next().map(|(number, _)| *number);
        self.dump.is_none()
    }

    /// The sink's batch; `false` if it was refused as a whole.
    pub(super) fn write(&mut self, batch: &[Change]) -> bool {
        if self.refuses {
            return false;
        }
        for change in batch {
            // A key that is none of ours is the oracle's business.
            let Some(number) = number_of(change.key()) else { continue };
            match change {
                Change::Upsert(flow) => drop(self.entries.insert(number, flow.clone())),
                Change::Delete(_) => drop(self.entries.remove(&number)),
            }
        }
        true
    }

    #[cfg(test)]
    pub(super) fn holds(&self, key: &crate::flow::FlowKey) -> bool {
        number_of(key).is_some_and(|number| self.entries.contains_key(&number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::workload::key_of;

    fn flow(number: u32) -> Flow {
        Flow { timeout: 60, ..Flow::new(key_of(number, false, false)) }
    }

    fn listened(events_max: usize) -> Kernel {
        let mut kernel = Kernel::new(events_max);
        kernel.listen(true);
        kernel
    }

    #[test]
    fn an_overrun_is_told_when_what_was_kept_has_been_read() {
        let mut kernel = listened(2);
        (0..4).for_each(|number| kernel.put(number, flow(number)));
        assert_eq!(kernel.hear(), Heard::Change(Change::Upsert(flow(0))));
        // The queue is not empty yet: the kernel goes on dropping.
        kernel.end(0);
        assert_eq!(kernel.hear(), Heard::Change(Change::Upsert(flow(1))));
        assert_eq!(kernel.hear(), Heard::Overrun);
        assert_eq!(kernel.hear(), Heard::Nothing);
        kernel.end(1);
        assert_eq!(kernel.hear(), Heard::Change(Change::Delete(flow(1).key)));
        assert_eq!(kernel.len(), 2);
    }

    #[test]
    fn a_dump_takes_several_turns_and_names_what_is_there_when_it_comes_by() {
        let mut kernel = listened(16);
        (0..5).for_each(|number| kernel.put(number, flow(number)));
        kernel.begin_dump();
        let mut named = Vec::new();
        assert!(!kernel.dump(2, |flow| named.push(flow.key)));
        kernel.end(0);
        kernel.end(3);
        kernel.put(9, flow(9));
        assert!(!kernel.dump(2, |flow| named.push(flow.key)));
        assert!(kernel.dump(2, |flow| named.push(flow.key)));
        assert_eq!(named, [0, 1, 2, 4, 9].map(|number| flow(number).key));
    }

    #[test]
    fn the_sinks_own_writes_and_silent_deaths_make_no_event() {
        let mut kernel = listened(16);
        assert!(kernel.write(&[Change::Upsert(flow(1)), Change::Upsert(flow(2)), Change::Delete(flow(1).key)]));
        kernel.die_silently(2);
        assert_eq!((kernel.hear(), kernel.len()), (Heard::Nothing, 0));
        kernel.refuses = true;
        assert!(!kernel.write(&[Change::Upsert(flow(1))]));
        assert!(!kernel.holds(&flow(1).key));
    }

    #[test]
    fn while_nobody_listens_nothing_is_kept() {
        let mut kernel = Kernel::new(16);
        kernel.put(1, flow(1));
        kernel.listen(true);
        assert_eq!(kernel.hear(), Heard::Nothing);
        assert!(kernel.holds(&flow(1).key));
        kernel.reboot();
        assert!(!kernel.holds(&flow(1).key));
    }
}
