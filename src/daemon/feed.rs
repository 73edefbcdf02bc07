//! The source as the driver listens to it.
//!
//! ```text
//!              becomes master            request_dump ok          dump_complete
//!    Silent ──────────────────▶ Due(at) ────────────────▶ Running ──────────────▶ Live
//!      ▲                          ▲    refused: 1 s later    │ overrun, error      │
//!      │  no longer master        └──────────────────────────┴────────────────────┘
//!      └── from everywhere
//! ```
//!
//! Only a master's source counts. A backup reads and drops what its source says, so that the kernel's buffer does not
//! overflow; the dump that a new master asks for compares its table with the kernel and so makes up for all that. A
//! lost change (overrun) is made up for by the same dump, begun anew: the one that was running may have named a flow
//! whose death was among what was lost.

use crate::bridge::{Source, SourceError};
use crate::daemon::driver::Load;
use crate::daemon::journal::{Journal, Weight};
use crate::engine::{Engine, Role, UpdateError};
use crate::time::{Duration, Instant};
use std::os::fd::BorrowedFd;

/// Calls of the source that one turn makes.
pub(crate) const READS_PER_TURN: usize = 8;
/// Least time between two dumps, and after a refusal.
pub(crate) const DUMP_INTERVAL: Duration = Duration::from_secs(1);
/// Rest after a read that failed, so that an error that stays does not spin the loop.
pub(crate) const ERROR_PAUSE: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Dump {
    Silent,
    Due(Instant),
    Running,
    Live,
}

/// What the changes of a source come to; the engine, in life.
pub(crate) trait Listener {
    fn update(&mut self, now: Instant, change: &crate::flow::Change) -> Result<(), UpdateError>;
    fn begin_dump(&mut self, now: Instant);
    fn end_dump(&mut self, now: Instant);
    fn source_overrun(&mut self, now: Instant);
}

impl Listener for Engine {
    fn update(&mut self, now: Instant, change: &crate::flow::Change) -> Result<(), UpdateError> {
        Engine::update(self, now, change)
    }
    fn begin_dump(&mut self, now: Instant) {
        Engine::begin_dump(self, now);
    }
    fn end_dump(&mut self, now: Instant) {
        Engine::end_dump(self, now);
    }
    fn source_overrun(&mut self, now: Instant) {
        Engine::source_overrun(self, now);
    }
}

/// The source and what the driver remembers about it.
pub(crate) struct Feed {
    source: Option<Box<dyn Source>>,
    dump: Dump,
    dumped_at: Option<Instant>,
    paused_until: Option<Instant>,
    trouble: Option<String>,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    taken: u64,
    dropped_as_backup: u64,
    refused_table_full: u64,
    refused_unsupported: u64,
    overruns: u64,
    errors: u64,
    dumps: u64,
}

impl Feed {
    pub(crate) fn new(source: Option<Box<dyn Source>>) -> Self {
        let counts = Counts::default();
        Feed { source, dump: Dump::Silent, dumped_at: None, paused_until: None, trouble: None, counts }
    }

    /// Asks for a first dump although nothing is done with it yet: a source that cannot dump shall say so at the start,
    /// and not at the takeover.
    pub(crate) fn start(&mut self, now: Instant, journal: &mut Journal) {
        if let Some(Err(error)) = self.source.as_mut().map(|source| source.request_dump()) {
            self.failed(now, journal, "a dump", &error);
        }
    }

    /// This node has become master, or is no longer.
    pub(crate) fn master(&mut self, now: Instant, master: bool) {
        self.dump = if master { Dump::Due(now) } else { Dump::Silent };
    }

    pub(crate) fn turn(
        &mut self,
        now: Instant,
        engine: &mut impl Listener,
        role: Role,
        journal: &mut Journal,
        load: &mut Load,
    ) {
        if self.source.is_none() || self.paused_until.is_some_and(|until| now < until) {
            return;
        }
        self.paused_until = None;
        if let Dump::Due(at) = self.dump
            && now >= at
        {
            self.request_dump(now, engine, journal);
        }
        for _ in 0..READS_PER_TURN {
            let Some(more) = self.read(now, engine, role, journal, load) else { return };
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
        role: Role,
        journal: &mut Journal,
        load: &mut Load,
    ) -> Option<bool> {
        let (source, counts) = (self.source.as_mut()?, &mut self.counts);
        let outcome = source.read(&mut |change| {
            if role != Role::Master {
                counts.dropped_as_backup += 1;
                return;
            }
            match engine.update(now, &change) {
                Ok(()) => counts.taken += 1,
                Err(UpdateError::NotMaster) => counts.dropped_as_backup += 1,
                Err(UpdateError::TableFull) => counts.refused_table_full += 1,
                Err(UpdateError::Unsupported) => counts.refused_unsupported += 1,
            }
        });
        match outcome {
            Ok(outcome) => {
                load.worked |= outcome.changes > 0;
                if outcome.dump_complete && self.dump == Dump::Running {
                    self.dump = Dump::Live;
                    engine.end_dump(now);
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
                self.dump = Dump::Due(now + DUMP_INTERVAL);
            }
        }
    }

    fn next_dump(&self, now: Instant) -> Instant {
        self.dumped_at.map_or(now, |at| now.max(at + DUMP_INTERVAL))
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

    /// When the loop must look although nothing was ready.
    pub(crate) fn wake_at(&self, now: Instant, role: Role) -> Option<Instant> {
        let source = self.source.as_ref()?;
        let due = match self.dump {
            Dump::Due(at) => Some(at),
            _ => None,
        };
        let polled = (role == Role::Master && source.readiness().is_none())
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
    pub(crate) fn counters(&self) -> [(&'static str, u64); 7] {
        [
            ("source_changes_taken", self.counts.taken),
            ("source_changes_dropped_as_backup", self.counts.dropped_as_backup),
            ("source_changes_refused_table_full", self.counts.refused_table_full),
            ("source_changes_refused_unsupported", self.counts.refused_unsupported),
            ("source_overruns", self.counts.overruns),
            ("source_errors", self.counts.errors),
            ("source_dumps", self.counts.dumps),
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
            let feed = Feed::new(Some(Box::new(source)));
            Bench { feed, heard: Heard::default(), script, dumps, asked, journal: Journal::new(51) }
        }

        fn turn(&mut self, ms: u64, role: Role, script: &[Result<(usize, bool), Option<i32>>]) -> Vec<&'static str> {
            self.script.borrow_mut().extend(script.iter().copied());
            self.feed.turn(at(ms), &mut self.heard, role, &mut self.journal, &mut Load::default());
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
        assert_eq!(bench.turn(0, Role::Backup, &[Ok((3, true))]), Vec::<&str>::new());
        assert_eq!(bench.count("source_changes_dropped_as_backup"), 3);
        assert_eq!(bench.turn(1, Role::Backup, &[Err(None)]), Vec::<&str>::new());
        assert_eq!((*bench.asked.borrow(), bench.count("source_overruns")), (0, 1));
    }

    #[test]
    fn a_new_master_compares_its_table_with_a_dump() {
        let mut bench = Bench::new();
        bench.feed.master(at(5), true);
        assert_eq!(bench.feed.wake_at(at(5), Role::Master), Some(at(5)));
        assert_eq!(bench.turn(5, Role::Master, &[Ok((1, false))]), ["begin", "update"]);
        assert_eq!(bench.turn(6, Role::Master, &[Ok((1, true))]), ["update", "end"]);
        assert_eq!(bench.turn(7, Role::Master, &[Ok((1, true))]), ["update"]);
        assert_eq!(*bench.asked.borrow(), 1);
    }

    /// [4.3.2]
    #[test]
    fn an_overrun_begins_the_dump_anew_and_the_end_of_the_old_one_does_not_count() {
        let mut bench = Bench::new();
        bench.feed.master(at(0), true);
        assert_eq!(bench.turn(0, Role::Master, &[Err(None), Ok((0, true))]), ["begin", "overrun"]);
        // At most one dump a second, or a burst of overruns would never let one finish.
        assert_eq!(bench.turn(999, Role::Master, &[Ok((0, true))]), Vec::<&str>::new());
        assert_eq!(bench.turn(1000, Role::Master, &[Ok((1, true))]), ["begin", "update", "end"]);
        assert_eq!(*bench.asked.borrow(), 2);
    }

    #[test]
    fn a_refused_dump_is_an_event_and_is_asked_for_again() {
        let mut bench = Bench::new();
        bench.dumps.borrow_mut().push(Err(io::Error::from_raw_os_error(1)));
        bench.feed.master(at(0), true);
        assert_eq!(bench.turn(0, Role::Master, &[]), ["begin"]);
        assert_eq!(bench.events(), ["SourceFailed"]);
        assert!(bench.feed.trouble().unwrap().contains("a dump failed"));
        assert_eq!(bench.feed.wake_at(at(0), Role::Master), Some(at(100)));
        assert_eq!(bench.turn(500, Role::Master, &[]), Vec::<&str>::new());
        assert_eq!(bench.turn(1000, Role::Master, &[Ok((1, true))]), ["begin", "update", "end"]);
        assert_eq!(bench.events(), ["SourceFailed", "SourceRecovered"]);
        assert_eq!(bench.feed.trouble(), None);
    }

    #[test]
    fn a_source_that_fails_is_said_once_rests_and_is_dumped_again() {
        let mut bench = Bench::new();
        bench.feed.master(at(0), true);
        bench.turn(0, Role::Master, &[Ok((1, true))]);
        bench.turn(2000, Role::Master, &[Err(Some(5))]);
        assert_eq!(bench.turn(2050, Role::Master, &[Ok((1, false))]), Vec::<&str>::new());
        bench.script.borrow_mut().clear();
        assert_eq!(bench.turn(2100, Role::Master, &[Err(Some(5))]), ["begin"]);
        assert_eq!(bench.events(), ["SourceFailed"]);
        assert_eq!(bench.count("source_errors"), 2);
    }

    #[test]
    fn what_the_engine_refuses_is_counted_by_its_reason() {
        let mut bench = Bench::new();
        bench.feed.master(at(0), true);
        bench.turn(0, Role::Master, &[Ok((10, false))]);
        assert_eq!((bench.count("source_changes_taken"), bench.count("source_changes_refused_table_full")), (9, 1));
    }

    #[test]
    fn a_node_that_stops_being_master_forgets_its_dump() {
        let mut bench = Bench::new();
        bench.feed.master(at(0), true);
        bench.turn(0, Role::Master, &[]);
        bench.feed.master(at(1), false);
        assert_eq!(bench.turn(2, Role::Backup, &[Ok((1, true))]), Vec::<&str>::new());
        assert_eq!(bench.feed.wake_at(at(2), Role::Backup), None);
    }

    #[test]
    fn one_turn_reads_a_bounded_number_of_times() {
        let mut bench = Bench::new();
        let mut load = Load::default();
        bench.script.borrow_mut().extend(std::iter::repeat_n(Ok((1, false)), 20));
        bench.feed.turn(at(0), &mut bench.heard, Role::Backup, &mut bench.journal, &mut load);
        assert_eq!(bench.count("source_changes_dropped_as_backup"), 8);
        assert!(load.more);
    }
}
