//! The sink as the driver fills it.
//!
//! ```text
//!   engine ──poll_applied──▶ batch ──apply, flush──▶ sink ──▶ handle_committed
//!                              ▲         │ refused
//!                              └── kept ─┘  the same batch again, 100 ms later
//! ```
//!
//! A batch stays in hand until the sink has taken all of it; upserts and deletes may be repeated, so the whole batch is
//! simply written again. But a master's sink is its source as well, and knows better than a batch that it has refused: that
//! goes back to the engine, which hands out what of it is still owed, as it is then. `commit = "continuous"` writes whenever
//! there is something; `"on-takeover"` leaves a backup's kernel alone and writes while the node is promoting (and, as
//! master, what the deadline or a merge left over).

use crate::bridge::Sink;
use crate::bridge::conntrack::Filter;
use crate::daemon::driver::Load;
use crate::daemon::journal::{Journal, Weight};
use crate::daemon::protocol::Protocol;
use crate::daemon::settings::Commit;
use crate::engine::Role;
use crate::flow::{Change, FlowKey};
use crate::time::{Duration, Instant};

/// Changes that are taken in hand at once: one request to the kernel, of some 5 µs for each change.
pub(crate) const BATCH: usize = 256;
/// Batches that one turn writes: what arrives meanwhile waits for a millisecond or two. More while promoting, where nothing
/// else matters as much.
pub(crate) const BATCHES_PER_TURN: usize = 2;
/// The same while promoting.
pub(crate) const BATCHES_PER_TURN_PROMOTING: usize = 32;
/// Time after which a batch that was refused is written again.
pub(crate) const RETRY: Duration = Duration::from_millis(100);

/// Where the changes for the sink come from; the engine, in life.
pub(crate) trait Applied {
    fn role(&self) -> Role;
    fn poll_applied(&mut self, now: Instant, batch: &mut Vec<Change>, limit: usize) -> usize;
    fn handle_committed(&mut self, now: Instant);
    /// What a master's sink has refused, before or since: it may have become old. What is left in `batch` is written all the
    /// same.
    fn give_back(&mut self, batch: &mut Vec<Change>);
    /// Whether a master's frames have just told what its sink does not know.
    fn sink_waits(&self) -> bool;
}

impl Applied for Protocol {
    fn role(&self) -> Role {
        Protocol::role(self)
    }
    fn poll_applied(&mut self, now: Instant, batch: &mut Vec<Change>, limit: usize) -> usize {
        Protocol::poll_applied(self, now, batch, limit)
    }
    fn handle_committed(&mut self, now: Instant) {
        Protocol::handle_committed(self, now);
    }
    fn give_back(&mut self, batch: &mut Vec<Change>) {
        // The classic profile hears nothing of its sink, and so knows nothing better.
        let Some(engine) = self.ssyncp1() else { return };
        for change in batch.drain(..) {
            // A flow that is gone may be there anew, and this kernel has it; one that is not will end by its own clock.
            if let Change::Upsert(flow) = change {
                engine.put_back(&flow.key);
            }
        }
    }
    fn sink_waits(&self) -> bool {
        Protocol::sink_waits(self)
    }
}

/// The sink and the batch in hand.
pub(crate) struct Drain {
    sink: Option<Box<dyn Sink>>,
    commit: Commit,
    batch: Vec<Change>,
    retry_at: Option<Instant>,
    /// The last turn left nothing to write.
    settled: bool,
    trouble: Option<String>,
    written: u64,
    errors: u64,
}

impl Drain {
    pub(crate) fn new(sink: Option<Box<dyn Sink>>, commit: Commit) -> Self {
        let batch = Vec::with_capacity(BATCH);
        Drain { sink, commit, batch, retry_at: None, settled: true, trouble: None, written: 0, errors: 0 }
    }

    /// Another time at which a backup writes.
    pub(crate) fn set_commit(&mut self, commit: Commit) {
        self.commit = commit;
    }

    /// Other rules say which share of the kernel is this group's.
    pub(crate) fn set_filter(&mut self, filter: &Filter) {
        if let Some(sink) = &mut self.sink {
            sink.set_filter(filter);
        }
    }

    /// Writes what may be written in one turn. Writing takes time, and the engine is told after each batch, by the clock: many
    /// batches are no stall, and one that takes longer than master-down is (docs/protocol.md 5.6.1).
    pub(crate) fn turn(
        &mut self,
        clock: &dyn Fn() -> Instant,
        engine: &mut impl Applied,
        journal: &mut Journal,
        load: &mut Load,
    ) {
        let (role, now) = (engine.role(), clock());
        if role == Role::Master && !self.batch.is_empty() {
            engine.give_back(&mut self.batch);
        }
        let wanted = self.commit == Commit::Continuous || matches!(role, Role::Promoting | Role::Master);
        if self.retry_at.is_some_and(|at| now < at) {
            return;
        }
        self.retry_at = None;
        if !wanted && self.batch.is_empty() {
            return;
        }
        self.settled = false;
        let batches = if role == Role::Promoting { BATCHES_PER_TURN_PROMOTING } else { BATCHES_PER_TURN };
        for _ in 0..batches {
            if self.batch.is_empty() && engine.poll_applied(now, &mut self.batch, BATCH) == 0 {
                self.settled = true;
                // Nothing is left: a promoting engine waits to hear exactly this.
                if role == Role::Promoting {
                    engine.handle_committed(now);
                }
                return;
            }
            load.worked = true;
            if !self.write(now, journal) {
                return;
            }
            engine.handle_committed(clock());
        }
        load.more = true;
    }

    /// Writes the batch in hand; whether the sink took it.
    fn write(&mut self, now: Instant, journal: &mut Journal) -> bool {
        let result = match &mut self.sink {
            None => Ok(()),
            Some(sink) => {
                self.batch.iter().try_for_each(|change| sink.apply(change)).and_then(|()| sink.flush().map(|_| ()))
            }
        };
        match result {
            Ok(()) => {
                self.written += self.batch.len() as u64;
                self.batch.clear();
                self.retry_at = None;
                if self.trouble.take().is_some() {
                    journal.note(now, Weight::Notice, "SinkRecovered", "the sink works again".into());
                }
                true
            }
            Err(error) => {
                self.errors += 1;
                self.retry_at = Some(now + RETRY);
                let text = format!("the sink refused {} changes: {error}", self.batch.len());
                if self.trouble.is_none() {
                    journal.note(now, Weight::Failure, "SinkFailed", text.clone());
                }
                self.trouble = Some(text);
                false
            }
        }
    }

    /// Deletes what no change of the engine speaks of, if nothing else is in hand; how many, or `None` if it could not be
    /// done now.
    pub(crate) fn delete(
        &mut self,
        keys: impl Iterator<Item = FlowKey>,
        now: Instant,
        journal: &mut Journal,
    ) -> Option<u64> {
        if !self.batch.is_empty() {
            return None;
        }
        self.batch.extend(keys.map(Change::Delete));
        let count = self.batch.len() as u64;
        let written = self.write(now, journal);
        self.batch.clear();
        written.then_some(count)
    }

    /// Whether the next turn need not wait for anything: a merge has left work for the sink.
    pub(crate) fn is_owed(&self, engine: &impl Applied) -> bool {
        self.retry_at.is_none() && engine.sink_waits()
    }

    /// Whether the sink has taken everything that it was to take by the end of the last turn.
    pub(crate) fn settled(&self) -> bool {
        self.settled
    }

    /// When the loop must look although nothing was ready.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Changes that the engine has handed out and the sink has not taken.
    pub(crate) fn in_hand(&self) -> u64 {
        self.batch.len() as u64
    }

    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.clone()
    }

    /// What the sink itself counts.
    pub(crate) fn sink_counters(&self) -> Vec<(&'static str, u64)> {
        self.sink.as_ref().map(|sink| sink.counters()).unwrap_or_default()
    }

    /// What came of the engine's changes here.
    pub(crate) fn counters(&self) -> [(&'static str, u64); 2] {
        [("sink_changes_written", self.written), ("sink_errors", self.errors)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Zone;
    use std::cell::RefCell;
    use std::io;
    use std::net::{IpAddr, Ipv4Addr};
    use std::rc::Rc;

    #[derive(Default)]
    struct Table {
        role: Option<Role>,
        waiting: usize,
        committed: u32,
        given_back: usize,
    }

    impl Applied for Table {
        fn role(&self) -> Role {
            self.role.unwrap_or(Role::Backup)
        }
        fn poll_applied(&mut self, _: Instant, batch: &mut Vec<Change>, limit: usize) -> usize {
            let count = self.waiting.min(limit);
            self.waiting -= count;
            let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
            let key = FlowKey {
                source: address,
                destination: address,
                source_port: 1,
                destination_port: 2,
                protocol: 6,
                zone: Zone::DEFAULT,
            };
            batch.extend(std::iter::repeat_n(Change::Delete(key), count));
            count
        }
        fn handle_committed(&mut self, _: Instant) {
            self.committed += 1;
        }
        fn give_back(&mut self, batch: &mut Vec<Change>) {
            self.given_back += batch.len();
            batch.clear();
        }
        fn sink_waits(&self) -> bool {
            self.role() == Role::Master && self.waiting > 0
        }
    }

    #[derive(Clone, Default)]
    struct Kernel {
        taken: Rc<RefCell<usize>>,
        refusals: Rc<RefCell<u32>>,
    }

    impl Sink for Kernel {
        fn apply(&mut self, _: &Change) -> io::Result<()> {
            *self.taken.borrow_mut() += 1;
            Ok(())
        }
        fn flush(&mut self) -> io::Result<usize> {
            if *self.refusals.borrow() > 0 {
                *self.refusals.borrow_mut() -= 1;
                return Err(io::Error::from_raw_os_error(105));
            }
            Ok(0)
        }
        fn counters(&self) -> Vec<(&'static str, u64)> {
            vec![("own", 1)]
        }
    }

    fn at(milliseconds: u64) -> Instant {
        Instant::from_nanos(milliseconds * 1_000_000)
    }

    fn drain(commit: Commit) -> (Drain, Kernel, Journal) {
        let kernel = Kernel::default();
        (Drain::new(Some(Box::new(kernel.clone())), commit), kernel, Journal::new(51))
    }

    fn table(role: Role, waiting: usize) -> Table {
        Table { role: Some(role), waiting, ..Table::default() }
    }

    #[test]
    fn a_continuous_backup_writes_and_says_so() {
        let (mut drain, kernel, mut journal) = drain(Commit::Continuous);
        let mut table = table(Role::Backup, 10);
        drain.turn(&|| at(0), &mut table, &mut journal, &mut Load::default());
        assert_eq!((*kernel.taken.borrow(), table.committed, table.waiting), (10, 1, 0));
        assert_eq!(drain.counters(), [("sink_changes_written", 10), ("sink_errors", 0)]);
        assert_eq!(drain.sink_counters(), [("own", 1)]);
    }

    /// [5.2.1]
    #[test]
    fn on_takeover_leaves_a_backups_kernel_alone_until_it_promotes() {
        let (mut drain, kernel, mut journal) = drain(Commit::OnTakeover);
        let mut table = table(Role::Backup, 10);
        drain.turn(&|| at(0), &mut table, &mut journal, &mut Load::default());
        assert_eq!((*kernel.taken.borrow(), table.waiting), (0, 10));
        table.role = Some(Role::Promoting);
        drain.turn(&|| at(1), &mut table, &mut journal, &mut Load::default());
        assert_eq!((*kernel.taken.borrow(), table.waiting), (10, 0));
        assert_eq!(table.committed, 2);
    }

    #[test]
    fn a_promoting_node_with_nothing_to_write_is_told_that_all_is_written() {
        let (mut drain, _, mut journal) = drain(Commit::OnTakeover);
        let mut table = table(Role::Promoting, 0);
        drain.turn(&|| at(0), &mut table, &mut journal, &mut Load::default());
        assert_eq!(table.committed, 1);
    }

    /// [5.2.2]
    #[test]
    fn what_the_deadline_left_over_is_written_as_master() {
        let (mut drain, kernel, mut journal) = drain(Commit::OnTakeover);
        let mut table = table(Role::Master, 7);
        drain.turn(&|| at(0), &mut table, &mut journal, &mut Load::default());
        assert_eq!(*kernel.taken.borrow(), 7);
    }

    #[test]
    fn a_master_whom_a_merge_has_left_work_does_not_rest_unless_the_sink_refuses() {
        let (mut drain, kernel, mut journal) = drain(Commit::Continuous);
        let mut table = table(Role::Master, 5);
        assert!(drain.is_owed(&table));
        *kernel.refusals.borrow_mut() = 1;
        drain.turn(&|| at(0), &mut table, &mut journal, &mut Load::default());
        table.waiting = 5;
        assert!(!drain.is_owed(&table), "the same batch again, and not at once");
        drain.turn(&|| at(100), &mut table, &mut journal, &mut Load::default());
        assert!(!drain.is_owed(&table), "all is written");
    }

    /// What the sink has refused must not be written over what a master's kernel has learned since.
    #[test]
    fn a_batch_that_a_masters_sink_has_refused_goes_back_to_the_engine() {
        let (mut drain, kernel, mut journal) = drain(Commit::Continuous);
        let mut table = table(Role::Promoting, 5);
        *kernel.refusals.borrow_mut() = 1;
        drain.turn(&|| at(0), &mut table, &mut journal, &mut Load::default());
        assert_eq!((drain.in_hand(), table.given_back), (5, 0));
        table.role = Some(Role::Master);
        drain.turn(&|| at(100), &mut table, &mut journal, &mut Load::default());
        assert_eq!((drain.in_hand(), table.given_back, *kernel.taken.borrow()), (0, 5, 5));
        // What it takes as master, too; and the sink rests all the same.
        table.waiting = 3;
        *kernel.refusals.borrow_mut() = 1;
        drain.turn(&|| at(200), &mut table, &mut journal, &mut Load::default());
        table.waiting = 3;
        drain.turn(&|| at(299), &mut table, &mut journal, &mut Load::default());
        assert_eq!((drain.in_hand(), table.given_back, *kernel.taken.borrow()), (0, 8, 8));
        drain.turn(&|| at(300), &mut table, &mut journal, &mut Load::default());
        assert_eq!((drain.in_hand(), table.given_back, *kernel.taken.borrow()), (0, 8, 11));
    }

    #[test]
    fn whoever_is_master_no_longer_does_not_wait_for_a_sink_that_it_does_not_write_to() {
        let (mut drain, kernel, mut journal) = drain(Commit::OnTakeover);
        let mut table = table(Role::Master, 5);
        *kernel.refusals.borrow_mut() = 1;
        drain.turn(&|| at(0), &mut table, &mut journal, &mut Load::default());
        drain.turn(&|| at(50), &mut table, &mut journal, &mut Load::default());
        table.role = Some(Role::Backup);
        assert_eq!((drain.in_hand(), drain.wake_at()), (0, Some(at(100))));
        drain.turn(&|| at(100), &mut table, &mut journal, &mut Load::default());
        assert_eq!(drain.wake_at(), None);
    }

    #[test]
    fn a_refused_batch_is_an_event_stays_in_hand_and_is_written_again() {
        let (mut drain, kernel, mut journal) = drain(Commit::Continuous);
        let mut table = table(Role::Promoting, 5);
        *kernel.refusals.borrow_mut() = 2;
        drain.turn(&|| at(0), &mut table, &mut journal, &mut Load::default());
        assert_eq!((drain.in_hand(), table.committed), (5, 0));
        assert_eq!(drain.wake_at(), Some(at(100)));
        assert!(!drain.settled());
        assert!(drain.trouble().unwrap().starts_with("the sink refused 5 changes"));
        drain.turn(&|| at(99), &mut table, &mut journal, &mut Load::default());
        assert_eq!(*kernel.taken.borrow(), 5);
        drain.turn(&|| at(100), &mut table, &mut journal, &mut Load::default());
        drain.turn(&|| at(200), &mut table, &mut journal, &mut Load::default());
        assert_eq!((*kernel.taken.borrow(), drain.in_hand(), drain.wake_at()), (15, 0, None));
        assert_eq!(table.committed, 2);
        assert!(drain.settled());
        let events: Vec<&str> = journal.entries().map(|entry| entry.name).collect();
        assert_eq!(events, ["SinkFailed", "SinkRecovered"]);
        assert_eq!(drain.counters(), [("sink_changes_written", 5), ("sink_errors", 2)]);
        assert_eq!(drain.trouble(), None);
    }

    #[test]
    fn one_turn_writes_a_bounded_number_of_batches() {
        let (mut drain, kernel, mut journal) = drain(Commit::Continuous);
        let mut load = Load::default();
        drain.turn(&|| at(0), &mut table(Role::Backup, 100_000), &mut journal, &mut load);
        assert_eq!(*kernel.taken.borrow(), 512);
        assert!(load.more && !drain.settled());
        let (mut drain, kernel, mut journal) = self::drain(Commit::Continuous);
        drain.turn(&|| at(0), &mut table(Role::Promoting, 100_000), &mut journal, &mut load);
        assert_eq!(*kernel.taken.borrow(), 8192);
    }

    #[test]
    fn without_a_sink_changes_are_taken_as_written() {
        let mut drain = Drain::new(None, Commit::Continuous);
        let mut table = table(Role::Promoting, 3);
        drain.turn(&|| at(0), &mut table, &mut Journal::new(51), &mut Load::default());
        assert_eq!((table.waiting, table.committed), (0, 2));
    }
}
