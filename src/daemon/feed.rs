//! The source as the driver listens to it.
//!
//! ```text
//!           start           becomes master         all is read            request_dump ok
//!   Filling ─────▶ Silent ─────────────▶ Leftover ────────────▶ Due(at) ────────────────▶ Running
//!                    ▲                                           ▲ ▲ ▲  refused: 1 s later   │ │
//!                    │  no longer master                         │ │ └───────────────────────┘ │ overrun, error: 1 s after
//!                    └── from everywhere                         │ └─────────────────────────┘   its start, or at once
//!                                                                └── complete: dump_interval later
//! ```
//!
//! Only a master's source counts. A backup has its source tell of ends alone, and has one use for them: what its kernel has
//! dropped is put back there if the table holds it. Filling: the first
//! dump, of a daemon that has just started, goes into the table before it follows a stream. Leftover: what waits to be read
//! when the role begins was said by a backup's kernel, and its ends are ends of copies, not of flows; who took them for
//! deletes would kill on all nodes what has only run out on one. The dump that a new master asks for compares its table with
//! the kernel and makes up for everything else that was dropped. A
//! lost change (overrun) is made up for by the same dump, begun anew: the one that was running may have named a flow
//! whose death was among what was lost. And a dump now and then tells what no event told: deaths of entries that the
//! kernel keeps silent about, and time-outs that packets have refreshed.

use crate::bridge::conntrack::Filter;
use crate::bridge::{Interest, Source, SourceError};
use crate::daemon::driver::Load;
use crate::daemon::journal::{Journal, Weight};
use crate::daemon::protocol::Protocol;
use crate::engine::UpdateError;
use crate::flow::{Change, Flow, FlowKey};
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

/// Longest time that the first dump may keep a node from following its master: then it asks for what is missing.
pub(crate) const FILL_PATIENCE: Duration = Duration::from_secs(5);
/// Most reads of what a backup's kernel has said that a new master makes before its dump: more than the largest buffer of
/// the default size holds.
pub(crate) const LEFTOVER_READS_MAX: u32 = 256;
/// Entries that a backup puts back in a second because of events; what is beyond that is the audit's. A kernel that is full
/// drops one for each that is written.
pub(crate) const PUT_BACK_PER_SECOND: u32 = 4096;

/// How it stands with the dump; [`Dump::Silent`] unless this node is master, or has just started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Dump {
    /// Until then at the latest.
    Filling(Instant),
    Silent,
    /// Reads that are left.
    Leftover(u32),
    Due(Instant),
    Running,
}

/// What the changes of a source come to; the engine, in life.
pub(crate) trait Listener {
    /// These changes come next, one by one.
    fn look_ahead(&self, changes: &[Change]);
    fn update(&mut self, now: Instant, change: &Change) -> Result<(), UpdateError>;
    fn begin_dump(&mut self, now: Instant);
    fn end_dump(&mut self, now: Instant);
    fn source_overrun(&mut self, now: Instant);
    fn put_back(&mut self, key: &FlowKey) -> bool;
    fn set_filling(&mut self, filling: bool);
    fn fill(&mut self, now: Instant, flow: &Flow) -> Result<(), UpdateError>;
}

impl Listener for Protocol {
    fn look_ahead(&self, changes: &[Change]) {
        Protocol::look_ahead(self, changes);
    }
    fn update(&mut self, now: Instant, change: &Change) -> Result<(), UpdateError> {
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
    fn put_back(&mut self, key: &FlowKey) -> bool {
        self.ssyncp1().is_some_and(|engine| engine.put_back(key))
    }
    fn set_filling(&mut self, filling: bool) {
        if let Some(engine) = self.ssyncp1() {
            engine.set_filling(filling);
        }
    }
    fn fill(&mut self, now: Instant, flow: &Flow) -> Result<(), UpdateError> {
        self.ssyncp1().map_or(Err(UpdateError::NotMaster), |engine| engine.preload_found(now, flow))
    }
}

/// Changes that are taken together.
const BATCH: usize = 32;

/// The source and what the driver remembers about it.
pub(crate) struct Feed {
    source: Option<Box<dyn Source>>,
    /// What the source was told to tell.
    interest: Interest,
    dump_interval: Duration,
    dump: Dump,
    dumped_at: Option<Instant>,
    paused_until: Option<Instant>,
    trouble: Option<String>,
    /// Whether a backup puts back what its kernel drops.
    keeps: bool,
    /// Since when, and how many, entries were put back.
    put_back: (Instant, u32),
    /// The engine was told that it is being filled.
    filling: bool,
    /// The kernel may have dropped what nobody heard of.
    unheard: bool,
    /// Connections that no group owns have been told of.
    left_over_told: bool,
    counts: Counts,
    /// Changes that are taken together, so that the table waits for memory once and not for each.
    batch: Vec<Change>,
}

#[derive(Default)]
struct Counts {
    taken: u64,
    dropped_as_backup: u64,
    put_back: u64,
    preloaded: u64,
    refused_table_full: u64,
    refused_annex_full: u64,
    refused_unsupported: u64,
    overruns: u64,
    errors: u64,
    dumps: u64,
    dumps_completed: u64,
}

impl Counts {
    fn note(&mut self, taken: Result<(), UpdateError>) {
        match taken {
            Ok(()) => self.taken += 1,
            Err(UpdateError::NotMaster) => self.dropped_as_backup += 1,
            Err(UpdateError::TableFull | UpdateError::SectionsFull) => self.refused_table_full += 1,
            Err(UpdateError::AnnexFull) => self.refused_annex_full += 1,
            Err(UpdateError::Unsupported | UpdateError::SectionKey) => self.refused_unsupported += 1,
            // Said of submissions with a ticket, which a source has not.
            Err(UpdateError::MembersUnknown | UpdateError::TicketsFull) => {}
        }
    }
}

impl Feed {
    /// `dump_interval`: from the end of one dump to the next.
    pub(crate) fn new(source: Option<Box<dyn Source>>, dump_interval: Duration) -> Self {
        Feed {
            source,
            interest: Interest::Changes,
            dump_interval,
            dump: Dump::Silent,
            dumped_at: None,
            paused_until: None,
            trouble: None,
            keeps: false,
            put_back: (Instant::ZERO, 0),
            filling: false,
            unheard: false,
            left_over_told: false,
            counts: Counts::default(),
            batch: Vec::with_capacity(BATCH),
        }
    }

    /// Asks for a first dump, which goes into the table if it `fills` it. In any case a source that cannot dump shall say so
    /// at the start, and not at the takeover.
    pub(crate) fn start(&mut self, now: Instant, engine: &mut impl Listener, fills: bool, journal: &mut Journal) {
        match self.source.as_mut().map(|source| source.request_dump()) {
            Some(Ok(())) if fills => {
                (self.dump, self.filling) = (Dump::Filling(now + FILL_PATIENCE), true);
                engine.set_filling(true);
            }
            Some(Err(error)) => self.failed(now, journal, "a dump", &error),
            _ => {}
        }
    }

    /// Whether a backup puts back what its kernel drops.
    pub(crate) fn set_keeps(&mut self, keeps: bool) {
        self.keeps = keeps;
    }

    /// Whether the kernel may have dropped what was not put back, since this was asked last.
    pub(crate) fn take_unheard(&mut self) -> bool {
        std::mem::take(&mut self.unheard)
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
        if self.is_masters() {
            self.dump = Dump::Due(self.next_dump(now));
        }
        Ok(())
    }

    /// This node has become master, or is no longer.
    pub(crate) fn master(&mut self, now: Instant, master: bool) {
        let _ = now;
        self.dump = if master { Dump::Leftover(LEFTOVER_READS_MAX) } else { Dump::Silent };
    }

    /// Whether what the source says is what happens to flows, and not to copies of them.
    fn is_masters(&self) -> bool {
        matches!(self.dump, Dump::Due(_) | Dump::Running)
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
        if !self.follow_interest(now, journal) {
            return;
        }
        if let Dump::Due(at) = self.dump
            && now >= at
            && settled
        {
            self.request_dump(now, engine, journal);
        }
        let dumping = matches!(self.dump, Dump::Running | Dump::Filling(_));
        let reads = if dumping { READS_PER_TURN_DUMPING } else { READS_PER_TURN };
        for _ in 0..reads {
            let more = self.read(now, engine, journal, load);
            self.step(now, more.unwrap_or(false));
            match more {
                Some(true) => {}
                Some(false) => return self.end_filling(engine),
                None => return,
            }
        }
        self.end_filling(engine);
        load.more = true;
    }

    /// Has the source tell what this state makes use of; false if it could not be told. A backup hears of ends alone: what its
    /// own sink writes would be events for nobody.
    fn follow_interest(&mut self, now: Instant, journal: &mut Journal) -> bool {
        let wanted = if self.dump == Dump::Silent { Interest::Ends } else { Interest::Changes };
        let Some(source) = self.source.as_mut().filter(|_| self.interest != wanted) else { return true };
        match source.set_interest(wanted) {
            Ok(()) => self.interest = wanted,
            Err(error) => self.failed(now, journal, "choosing its events", &error),
        }
        self.interest == wanted
    }

    /// What a read means to a state that only waits for the end of what is there.
    fn step(&mut self, now: Instant, more: bool) {
        self.dump = match self.dump {
            Dump::Leftover(left) if !more || left <= 1 => Dump::Due(now),
            Dump::Leftover(left) => Dump::Leftover(left - 1),
            Dump::Filling(until) if now >= until => Dump::Silent,
            dump => dump,
        };
    }

    /// The engine may follow a master as soon as it is no longer filled.
    fn end_filling(&mut self, engine: &mut impl Listener) {
        if !matches!(self.dump, Dump::Filling(_)) && std::mem::take(&mut self.filling) {
            engine.set_filling(false);
        }
    }

    /// Reads once; whether there may be more, or `None` after an error.
    fn read(
        &mut self,
        now: Instant,
        engine: &mut impl Listener,
        journal: &mut Journal,
        load: &mut Load,
    ) -> Option<bool> {
        let (masters, dump, mut copies) = (self.is_masters(), self.dump, self.copies(now));
        let (source, counts, batch) = (self.source.as_mut()?, &mut self.counts, &mut self.batch);
        let mut take_all = |batch: &mut Vec<Change>| {
            if masters {
                engine.look_ahead(batch);
            }
            for change in batch.drain(..) {
                let taken = match (dump, &change) {
                    _ if masters => engine.update(now, &change),
                    (Dump::Filling(_), Change::Upsert(flow)) => {
                        let filled = engine.fill(now, flow);
                        counts.preloaded += u64::from(filled.is_ok());
                        filled.and(Err(UpdateError::NotMaster))
                    }
                    (_, Change::Delete(key)) => {
                        counts.put_back += u64::from(copies.dropped(|| engine.put_back(key)));
                        Err(UpdateError::NotMaster)
                    }
                    _ => Err(UpdateError::NotMaster),
                };
                counts.note(taken);
            }
        };
        let outcome = source.read(&mut |change| {
            batch.push(change);
            if batch.len() == BATCH {
                take_all(batch);
            }
        });
        take_all(batch);
        self.put_back.1 += copies.put_back;
        self.unheard |= copies.left_out;
        match outcome {
            Ok(outcome) => {
                load.worked |= outcome.changes > 0;
                match self.dump {
                    Dump::Running if outcome.dump_complete => {
                        self.counts.dumps_completed += 1;
                        self.dump = Dump::Due(now + self.dump_interval);
                        engine.end_dump(now);
                        self.tell_left_over(now, journal);
                    }
                    Dump::Filling(_) if outcome.dump_complete => self.dump = Dump::Silent,
                    _ => {}
                }
                if outcome.changes > 0 && self.trouble.take().is_some() {
                    journal.note(now, Weight::Notice, "SourceRecovered", "the source works again".into());
                }
                Some(!outcome.drained && outcome.changes > 0)
            }
            Err(SourceError::Overrun) => {
                self.counts.overruns += 1;
                load.worked = true;
                if masters {
                    engine.source_overrun(now);
                    self.dump = Dump::Due(self.next_dump(now));
                }
                self.unheard |= !masters;
                if let Dump::Filling(_) = self.dump {
                    self.dump = Dump::Silent;
                }
                // All that was waiting has been read.
                Some(masters)
            }
            Err(SourceError::Io(error)) => {
                self.failed(now, journal, "reading", &error);
                match self.dump {
                    _ if masters => self.dump = Dump::Due(self.next_dump(now)),
                    Dump::Filling(_) => self.dump = Dump::Silent,
                    _ => {}
                }
                self.end_filling(engine);
                None
            }
        }
    }

    /// What a backup, or who was one just now, does with the ends that its kernel tells.
    fn copies(&mut self, now: Instant) -> Copies {
        if now.since(self.put_back.0) >= Duration::from_secs(1) {
            self.put_back = (now, 0);
        }
        let left = match self.dump {
            Dump::Leftover(_) => u32::MAX,
            _ if self.keeps => PUT_BACK_PER_SECOND.saturating_sub(self.put_back.1),
            _ => 0,
        };
        Copies { left, counted: self.keeps, put_back: 0, left_out: false }
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
    pub(crate) fn counters(&self) -> [(&'static str, u64); 11] {
        [
            ("source_changes_taken", self.counts.taken),
            ("source_changes_dropped_as_backup", self.counts.dropped_as_backup),
            ("source_copies_put_back", self.counts.put_back),
            ("source_flows_preloaded", self.counts.preloaded),
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

/// Copies that the kernel has dropped, as one read tells them.
struct Copies {
    /// So many may still be put back.
    left: u32,
    /// What is not put back is somebody's business.
    counted: bool,
    put_back: u32,
    left_out: bool,
}

impl Copies {
    /// One more; whether it was put back.
    fn dropped(&mut self, put_back: impl FnOnce() -> bool) -> bool {
        if self.put_back >= self.left {
            self.left_out |= self.counted;
            return false;
        }
        let back = put_back();
        self.put_back += u32::from(back);
        back
    }
}

#[cfg(test)]
mod tests;
