//! The source as the driver listens to it.
//!
//! ```text
//!              becomes master            request_dump ok
//!    Silent ──────────────────▶ Due(at) ────────────────▶ Running
//!      ▲                         ▲ ▲ ▲  refused: 1 s later   │ │
//!      │  no longer master       │ │ └───────────────────────┘ │ overrun, error: 1 s after its start, or at once
//!      └── from everywhere       │ └─────────────────────────┘
//!                                └── complete: dump_interval later
//! ```
//!
//! Only a master's source counts. A backup reads and drops what its source says, so that the kernel's buffer does not
//! overflow; the dump that a new master asks for compares its table with the kernel and so makes up for all that. A
//! lost change (overrun) is made up for by the same dump, begun anew: the one that was running may have named a flow
//! whose death was among what was lost. And a dump now and then tells what no event told: deaths of entries that the
//! kernel keeps silent about, and time-outs that packets have refreshed.

use crate::bridge::conntrack::Filter;
use crate::bridge::{Source, SourceError};
use crate::daemon::driver::Load;
use crate::daemon::journal::{Journal, Weight};
use crate::daemon::protocol::Protocol;
use crate::engine::UpdateError;
use crate::time::{Duration, Instant};
use std::os::fd::BorrowedFd;

/// Calls of the source that one turn makes.
pub(crate) const READS_PER_TURN: usize = 8;
/// The same while a dump runs: the kernel takes some 3 µs for each of its entries, and ADVERTs and live changes must
/// not wait for many of them.
pub(crate) const READS_PER_TURN_DUMPING: usize = 1;
/// Least time from the start of one dump to the start of the next, and after a refusal.
pub(crate) const DUMP_SPACING: Duration = Duration::from_secs(1);
/// Rest after a read that failed, so that an error that stays does not spin the loop.
pub(crate) const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// How it stands with the dump; [`Dump::Silent`] unless this node is master.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Dump {
    Silent,
    Due(Instant),
    Running,
}

/// What the changes of a source come to; the engine, in life.
pub(crate) trait Listener {
    fn update(&mut self, now: Instant, change: &crate::flow::Change) -> Result<(), UpdateError>;
    fn begin_dump(&mut self, now: Instant);
    fn end_dump(&mut self, now: Instant);
    fn source_overrun(&mut self, now: Instant);
}

impl Listener for Protocol {
    fn update(&mut self, now: Instant, change: &crate::flow::Change) -> Result<(), UpdateError> {
        Protocol::update(self, now, change)
    }
    fn begin_dump(&mut self, now: Instant) {
        Protocol::begin_dump(self, now);
    }
    fn end_dump(&mut self, now: Instant) {
        Protocol::end_dump(self, now);
    }
    fn source_overrun(&mut self, now: Instant) {
        Protocol::source_overrun(self, now);
    }
}

/// The source and what the driver remembers about it.
pub(crate) struct Feed {
    source: Option<Box<dyn Source>>,
    dump_interval: Duration,
    dump: Dump,
    dumped_at: Option<Instant>,
    paused_until: Option<Instant>,
    trouble: Option<String>,
    /// Connections that no group owns have been told of.
    left_over_told: bool,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    taken: u64,
    dropped_as_backup: u64,
    refused_table_full: u64,
    refused_annex_full: u64,
    refused_unsupported: u64,
    overruns: u64,
    errors: u64,
    dumps: u64,
    dumps_completed: u64,
}

impl Feed {
    /// `dump_interval`: from the end of one dump to the next.
    pub(crate) fn new(source: Option<Box<dyn Source>>, dump_interval: Duration) -> Self {
        let (dump, counts) = (Dump::Silent, Counts::default());
        Feed {
            source,
            dump_interval,
            dump,
            dumped_at: None,
            paused_until: None,
            trouble: None,
            left_over_told: false,
            counts,
        }
    }

    /// Asks for a first dump although nothing is done with it yet: a source that cannot dump shall say so at the start,
    /// and not at the takeover.
    pub(crate) fn start(&mut self, now: Instant, journal: &mut Journal) {
        if let Some(Err(error)) = self.source.as_mut().map(|source| source.request_dump()) {
            self.failed(now, journal, "a dump", &error);
        }
    }

    /// Another time between two dumps; one that is due stays due.
    pub(crate) fn set_dump_interval(&mut self, now: Instant, interval: Duration) {
        self.dump_interval = interval;
        if let Dump::Due(at) = self.dump {
            self.dump = Dump::Due(at.min(now + interval));
        }
    }

    /// Other rules; a master's table is compared with what they want by a dump, begun anew if one is running.
    ///
    /// # Errors
    /// The operating system's error; the old rules stay.
    pub(crate) fn set_filter(&mut self, now: Instant, filter: &Filter) -> std::io::Result<()> {
        let Some(source) = self.source.as_mut() else { return Ok(()) };
        source.set_filter(filter)?;
        if self.dump != Dump::Silent {
            self.dump = Dump::Due(self.next_dump(now));
        }
        Ok(())
    }

    /// This node has become master, or is no longer.
    pub(crate) fn master(&mut self, now: Instant, master: bool) {
        self.dump = if master { Dump::Due(now) } else { Dump::Silent };
    }

    /// One turn. `settled`: the sink has taken everything; only then a dump may begin, because what is still to be
    /// written would be missing from it, and count as dead.
    pub(crate) fn turn(
        &mut self,
        now: Instant,
        engine: &mut impl Listener,
        settled: bool,
        journal: &mut Journal,
        load: &mut Load,
    ) {
        if self.source.is_none() || self.paused_until.is_some_and(|until| now < until) {
            return;
        }
        self.paused_until = None;
        if let Dump::Due(at) = self.dump
            && now >= at
            && settled
        {
            self.request_dump(now, engine, journal);
        }
        let reads = if self.dump == Dump::Running { READS_PER_TURN_DUMPING } else { READS_PER_TURN };
        for _ in 0..reads {
            let Some(more) = self.read(now, engine, journal, load) else { return };
            if !more {
                return;
            }
        }
        load.more = true;
    }

    /// Reads once; whether there may be more, or `None` after an error.
    fn read(
        &mut self,
        now: Instant,
        engine: &mut impl Listener,
        journal: &mut Journal,
        load: &mut Load,
    ) -> Option<bool> {
        let (source, counts, silent) = (self.source.as_mut()?, &mut self.counts, self.dump == Dump::Silent);
        let outcome = source.read(&mut |change| {
            if silent {
                counts.dropped_as_backup += 1;
                return;
            }
            match engine.update(now, &change) {
                Ok(()) => counts.taken += 1,
                Err(UpdateError::NotMaster) => counts.dropped_as_backup += 1,
                Err(UpdateError::TableFull | UpdateError::SectionsFull) => counts.refused_table_full += 1,
                Err(UpdateError::AnnexFull) => counts.refused_annex_full += 1,
                Err(UpdateError::Unsupported | UpdateError::SectionKey) => counts.refused_unsupported += 1,
                // Said of submissions with a ticket, which a source has not.
                Err(UpdateError::MembersUnknown | UpdateError::TicketsFull) => {}
            }
        });
        match outcome {
            Ok(outcome) => {
                load.worked |= outcome.changes > 0;
                if outcome.dump_complete && self.dump == Dump::Running {
                    self.counts.dumps_completed += 1;
                    self.dump = Dump::Due(now + self.dump_interval);
                    engine.end_dump(now);
                    self.tell_left_over(now, journal);
                }
                if outcome.changes > 0 && self.trouble.take().is_some() {
                    journal.note(now, Weight::Notice, "SourceRecovered", "the source works again".into());
                }
                Some(!outcome.drained && outcome.changes > 0)
            }
            Err(SourceError::Overrun) => {
                self.counts.overruns += 1;
                load.worked = true;
                if self.dump != Dump::Silent {
                    engine.source_overrun(now);
                    self.dump = Dump::Due(self.next_dump(now));
                }
                Some(true)
            }
            Err(SourceError::Io(error)) => {
                self.failed(now, journal, "reading", &error);
                if self.dump != Dump::Silent {
                    self.dump = Dump::Due(self.next_dump(now));
                }
                None
            }
        }
    }

    /// Says once that connections pass here that are in no group's share.
    fn tell_left_over(&mut self, now: Instant, journal: &mut Journal) {
        let count = self.source.as_ref().map_or(0, |source| source.left_over());
        if count > 0 && !self.left_over_told {
            let text = format!(
                "connections pass this node that belong to no group, {count} at present: none of the groups' addresses \
                 occurs in them (divide = \"address\"), and they are not replicated"
            );
            journal.note(now, Weight::Warning, "FlowsLeftOver", text);
        }
        self.left_over_told = count > 0;
    }

    fn request_dump(&mut self, now: Instant, engine: &mut impl Listener, journal: &mut Journal) {
        let Some(source) = self.source.as_mut() else { return };
        // First the engine: whatever the source yields from here on is named.
        engine.begin_dump(now);
        self.dumped_at = Some(now);
        match source.request_dump() {
            Ok(()) => {
                self.counts.dumps += 1;
                self.dump = Dump::Running;
            }
            Err(error) => {
                self.failed(now, journal, "a dump", &error);
                self.dump = Dump::Due(now + DUMP_SPACING);
            }
        }
    }

    fn next_dump(&self, now: Instant) -> Instant {
        self.dumped_at.map_or(now, |at| now.max(at + DUMP_SPACING))
    }

    fn failed(&mut self, now: Instant, journal: &mut Journal, what: &str, error: &std::io::Error) {
        self.counts.errors += 1;
        self.paused_until = Some(now + ERROR_PAUSE);
        let text = format!("the source: {what} failed: {error}");
        if self.trouble.as_ref() != Some(&text) {
            journal.note(now, Weight::Failure, "SourceFailed", text.clone());
            self.trouble = Some(text);
        }
    }

    /// What the loop waits on.
    pub(crate) fn readiness(&self) -> Option<BorrowedFd<'_>> {
        if self.paused_until.is_some() { None } else { self.source.as_ref()?.readiness() }
    }

    /// When the loop must look although nothing was ready. A dump that waits for the sink is not waited for here: the
    /// sink's own deadline is.
    pub(crate) fn wake_at(&self, now: Instant, settled: bool) -> Option<Instant> {
        let source = self.source.as_ref()?;
        let due = match self.dump {
            Dump::Due(at) if settled => Some(at),
            _ => None,
        };
        let polled = (self.dump != Dump::Silent && source.readiness().is_none())
            .then_some(now + crate::daemon::driver::POLLED_SOURCE_INTERVAL);
        // While it is paused nothing is done, not even a dump that is due.
        self.paused_until.or_else(|| [due, polled].into_iter().flatten().min())
    }

    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.clone()
    }

    /// What the source itself counts.
    pub(crate) fn source_counters(&self) -> Vec<(&'static str, u64)> {
        self.source.as_ref().map(|source| source.counters()).unwrap_or_default()
    }

    /// What came of the source's changes here.
    pub(crate) fn counters(&self) -> [(&'static str, u64); 9] {
        [
            ("source_changes_taken", self.counts.taken),
            ("source_changes_dropped_as_backup", self.counts.dropped_as_backup),
            ("source_changes_refused_table_full", self.counts.refused_table_full),
            ("source_changes_refused_annex_full", self.counts.refused_annex_full),
            ("source_changes_refused_unsupported", self.counts.refused_unsupported),
            ("source_overruns", self.counts.overruns),
            ("source_errors", self.counts.errors),
            ("source_dumps", self.counts.dumps),
            ("source_dumps_completed", self.counts.dumps_completed),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::ReadOutcome;
    use crate::flow::{Change, Flow, FlowKey, Zone};
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::io;
    use std::net::{IpAddr, Ipv4Addr};
    use std::rc::Rc;

    type Script = Rc<RefCell<VecDeque<Result<(usize, bool), Option<i32>>>>>;

    /// Yields what its script says: (changes, dump complete), an error number, or `None` for an overrun.
    struct Scripted {
        script: Script,
        dumps: Rc<RefCell<Vec<io::Result<()>>>>,
        asked: Rc<RefCell<u32>>,
    }

    impl Source for Scripted {
        fn read(&mut self, emit: &mut dyn FnMut(Change)) -> Result<ReadOutcome, SourceError> {
            match self.script.borrow_mut().pop_front() {
                None => Ok(ReadOutcome { changes: 0, dump_complete: false, drained: true }),
                Some(Ok((changes, dump_complete))) => {
                    (0..changes).for_each(|number| emit(change(number as u16)));
                    Ok(ReadOutcome { changes, dump_complete, drained: false })
                }
                Some(Err(None)) => Err(SourceError::Overrun),
                Some(Err(Some(number))) => Err(SourceError::Io(io::Error::from_raw_os_error(number))),
            }
        }
        fn request_dump(&mut self) -> io::Result<()> {
            *self.asked.borrow_mut() += 1;
            self.dumps.borrow_mut().pop().unwrap_or(Ok(()))
        }
        fn readiness(&self) -> Option<BorrowedFd<'_>> {
            None
        }
        fn counters(&self) -> Vec<(&'static str, u64)> {
            vec![]
        }
    }

    #[derive(Default)]
    struct Heard(Vec<&'static str>);

    impl Listener for Heard {
        fn update(&mut self, _: Instant, change: &Change) -> Result<(), UpdateError> {
            self.0.push("update");
            if change.key().source_port == 9 { Err(UpdateError::TableFull) } else { Ok(()) }
        }
        fn begin_dump(&mut self, _: Instant) {
            self.0.push("begin");
        }
        fn end_dump(&mut self, _: Instant) {
            self.0.push("end");
        }
        fn source_overrun(&mut self, _: Instant) {
            self.0.push("overrun");
        }
    }

    fn change(port: u16) -> Change {
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Change::Upsert(Flow::new(FlowKey {
            source: address,
            destination: address,
            source_port: port,
            destination_port: 1,
            protocol: 6,
            zone: Zone::DEFAULT,
        }))
    }

    fn at(milliseconds: u64) -> Instant {
        Instant::from_nanos(milliseconds * 1_000_000)
    }

    struct Bench {
        feed: Feed,
        heard: Heard,
        script: Script,
        dumps: Rc<RefCell<Vec<io::Result<()>>>>,
        asked: Rc<RefCell<u32>>,
        journal: Journal,
    }

    impl Bench {
        fn new() -> Self {
            let (script, dumps, asked) = (Script::default(), Rc::default(), Rc::default());
            let source = Scripted { script: Rc::clone(&script), dumps: Rc::clone(&dumps), asked: Rc::clone(&asked) };
            let feed = Feed::new(Some(Box::new(source)), Duration::from_secs(30));
            Bench { feed, heard: Heard::default(), script, dumps, asked, journal: Journal::new(51) }
        }

        fn turn(&mut self, ms: u64, script: &[Result<(usize, bool), Option<i32>>]) -> Vec<&'static str> {
            self.script.borrow_mut().extend(script.iter().copied());
            self.feed.turn(at(ms), &mut self.heard, true, &mut self.journal, &mut Load::default());
            std::mem::take(&mut self.heard.0)
        }

        fn count(&self, name: &str) -> u64 {
            self.feed.counters().iter().find(|(known, _)| *known == name).unwrap().1
        }

        fn events(&self) -> Vec<&'static str> {
            self.journal.entries().map(|entry| entry.name).collect()
        }
    }

    #[test]
    fn a_backup_reads_its_source_and_drops_what_it_says() {
        let mut bench = Bench::new();
        assert_eq!(bench.turn(0, &[Ok((3, true))]), Vec::<&str>::new());
        assert_eq!(bench.count("source_changes_dropped_as_backup"), 3);
        assert_eq!(bench.turn(1, &[Err(None)]), Vec::<&str>::new());
        assert_eq!((*bench.asked.borrow(), bench.count("source_overruns")), (0, 1));
    }

    #[test]
    fn a_new_master_compares_its_table_with_a_dump() {
        let mut bench = Bench::new();
        bench.feed.master(at(5), true);
        assert_eq!(bench.feed.wake_at(at(5), true), Some(at(5)));
        assert_eq!(bench.turn(5, &[Ok((1, false))]), ["begin", "update"]);
        assert_eq!(bench.turn(6, &[Ok((1, true))]), ["update", "end"]);
        assert_eq!(bench.turn(7, &[Ok((1, true))]), ["update"]);
        assert_eq!((*bench.asked.borrow(), bench.count("source_dumps_completed")), (1, 1));
    }

    #[test]
    fn the_next_dump_begins_an_interval_after_the_end_of_the_last() {
        let mut bench = Bench::new();
        bench.feed.master(at(0), true);
        assert_eq!(bench.turn(0, &[Ok((1, false))]), ["begin", "update"]);
        assert_eq!(bench.feed.wake_at(at(0), true), Some(at(1)), "a running dump is waited for");
        assert_eq!(bench.turn(5_000, &[Ok((0, true))]), ["end"]);
        assert_eq!(bench.turn(34_999, &[Ok((1, false))]), ["update"]);
        assert_eq!(bench.turn(35_000, &[Ok((1, true))]), ["begin", "update", "end"]);
        assert_eq!(bench.turn(64_999, &[]), Vec::<&str>::new());
        assert_eq!(bench.turn(65_000, &[]), ["begin"]);
        assert_eq!((bench.count("source_dumps"), bench.count("source_dumps_completed")), (3, 2));
    }

    /// [4.3.2] What the sink has not written yet is not in the kernel, and must not be taken for dead.
    #[test]
    fn a_dump_waits_until_the_sink_has_taken_everything() {
        let mut bench = Bench::new();
        bench.feed.master(at(0), true);
        bench.script.borrow_mut().push_back(Ok((1, false)));
        bench.feed.turn(at(0), &mut bench.heard, false, &mut bench.journal, &mut Load::default());
        assert_eq!(bench.feed.wake_at(at(0), false), Some(at(1)), "it does not keep the loop awake");
        assert_eq!(std::mem::take(&mut bench.heard.0), ["update"], "live changes are taken meanwhile");
        assert_eq!(bench.turn(1, &[Ok((1, true))]), ["begin", "update", "end"]);
    }

    /// [4.3.2]
    #[test]
    fn an_overrun_begins_the_dump_anew_and_the_end_of_the_old_one_does_not_count() {
        let mut bench = Bench::new();
        bench.feed.master(at(0), true);
        assert_eq!(bench.turn(0, &[Err(None)]), ["begin", "overrun"]);
        // At most one dump a second, or a burst of overruns would never let one finish.
        assert_eq!(bench.turn(999, &[Ok((0, true))]), Vec::<&str>::new());
        assert_eq!(bench.turn(1000, &[Ok((1, true))]), ["begin", "update", "end"]);
        assert_eq!(*bench.asked.borrow(), 2);
    }

    #[test]
    fn a_refused_dump_is_an_event_and_is_asked_for_again() {
        let mut bench = Bench::new();
        bench.dumps.borrow_mut().push(Err(io::Error::from_raw_os_error(1)));
        bench.feed.master(at(0), true);
        assert_eq!(bench.turn(0, &[]), ["begin"]);
        assert_eq!(bench.events(), ["SourceFailed"]);
        assert!(bench.feed.trouble().unwrap().contains("a dump failed"));
        assert_eq!(bench.feed.wake_at(at(0), true), Some(at(100)));
        assert_eq!(bench.turn(500, &[]), Vec::<&str>::new());
        assert_eq!(bench.turn(1000, &[Ok((1, true))]), ["begin", "update", "end"]);
        assert_eq!(bench.events(), ["SourceFailed", "SourceRecovered"]);
        assert_eq!(bench.feed.trouble(), None);
    }

    #[test]
    fn a_source_that_fails_is_said_once_rests_and_is_dumped_again() {
        let mut bench = Bench::new();
        bench.feed.master(at(0), true);
        bench.turn(0, &[Ok((1, true))]);
        bench.turn(2000, &[Err(Some(5))]);
        assert_eq!(bench.turn(2050, &[Ok((1, false))]), Vec::<&str>::new());
        bench.script.borrow_mut().clear();
        assert_eq!(bench.turn(2100, &[Err(Some(5))]), ["begin"]);
        assert_eq!(bench.events(), ["SourceFailed"]);
        assert_eq!(bench.count("source_errors"), 2);
    }

    #[test]
    fn what_the_engine_refuses_is_counted_by_its_reason() {
        let mut bench = Bench::new();
        bench.feed.master(at(0), true);
        bench.turn(0, &[Ok((10, false))]);
        assert_eq!((bench.count("source_changes_taken"), bench.count("source_changes_refused_table_full")), (9, 1));
    }

    #[test]
    fn a_node_that_stops_being_master_forgets_its_dump() {
        let mut bench = Bench::new();
        bench.feed.master(at(0), true);
        bench.turn(0, &[]);
        bench.feed.master(at(1), false);
        assert_eq!(bench.turn(2, &[Ok((1, true))]), Vec::<&str>::new());
        assert_eq!(bench.feed.wake_at(at(2), true), None);
    }

    #[test]
    fn one_turn_reads_a_bounded_number_of_times() {
        let mut bench = Bench::new();
        let mut load = Load::default();
        bench.script.borrow_mut().extend(std::iter::repeat_n(Ok((1, false)), 20));
        bench.feed.turn(at(0), &mut bench.heard, true, &mut bench.journal, &mut load);
        assert_eq!(bench.count("source_changes_dropped_as_backup"), 8);
        assert!(load.more);
        bench.feed.master(at(0), true);
        assert_eq!(bench.turn(0, &[]), ["begin", "update"], "ADVERTs must not wait for a dump");
    }
}
