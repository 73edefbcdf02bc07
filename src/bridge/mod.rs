//! Where flows come from and where they go to. A bridge knows a kernel or a program, and nothing of frames.

pub mod conntrack;
pub mod synthetic;

use self::conntrack::Filter;
use crate::flow::{Change, Flow};
use std::io;
use std::os::fd::BorrowedFd;

/// What a source could not do.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Changes were lost between the kernel and us. Only a dump, compared with the table, brings them back. Said when what
    /// was waiting has been read: no change that is older than the loss comes after it.
    #[error("the kernel dropped changes because they were not read in time")]
    Overrun,
    /// The operating system refused.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// What one call of [`Source::read`] may yield beside the changes themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReadOutcome {
    /// Changes handed to `emit`.
    pub changes: usize,
    /// The dump that was asked for ended with this call: every entry that exists has been emitted since it began.
    pub dump_complete: bool,
    /// Everything that was waiting has been read.
    pub drained: bool,
}

/// What an owner wants to hear of between two dumps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interest {
    /// Every change.
    Changes,
    /// What ends, and nothing else: an owner who only keeps copies has no use for the rest, and the kernel does not make
    /// events that nobody listens to.
    Ends,
}

/// Where flows come from.
pub trait Source {
    /// Hands over what has happened since the last call: bounded work, never blocks.
    ///
    /// # Errors
    /// [`SourceError::Overrun`] when changes were lost (the owner then asks for a dump), [`SourceError::Io`] otherwise.
    fn read(&mut self, emit: &mut dyn FnMut(Change)) -> Result<ReadOutcome, SourceError>;

    /// Asks for every entry that exists. They come out of [`Source::read`] mixed with live changes; a dump that is
    /// running is started anew.
    ///
    /// # Errors
    /// The operating system's error.
    fn request_dump(&mut self) -> io::Result<()>;

    /// Has other rules decide from now on which flows are wanted; the owner asks for a dump afterwards. Nothing happens at
    /// a source that has no rules.
    ///
    /// # Errors
    /// The operating system's error; the old rules stay.
    fn set_filter(&mut self, _filter: &Filter) -> io::Result<()> {
        Ok(())
    }

    /// Says what its owner wants to hear of from now on; at first that is every change. Whoever wants more than before asks
    /// for a dump afterwards. A source may go on to tell all.
    ///
    /// # Errors
    /// The operating system's error; nothing is promised then of what it tells.
    fn set_interest(&mut self, _interest: Interest) -> io::Result<()> {
        Ok(())
    }

    /// Connections of the last whole dump that pass through this machine and that no group owns, where several groups
    /// divide what the source tells.
    fn left_over(&self) -> u64 {
        0
    }

    /// What to wait on for the next change once all has been read; `None` if there is nothing to wait on. A source with
    /// several descriptors hands out an epoll descriptor that stands for all of them.
    fn readiness(&self) -> Option<BorrowedFd<'_>>;

    /// Counters by name, for status and metrics.
    fn counters(&self) -> Vec<(&'static str, u64)>;
}

/// Where flows go to.
pub trait Sink {
    /// Takes one change into the batch that is being gathered; sends the batch when it is full.
    ///
    /// # Errors
    /// The operating system's error if the whole batch could not be handed over. What the kernel says about one entry
    /// is counted, see [`Sink::counters`].
    fn apply(&mut self, change: &Change) -> io::Result<()>;

    /// Hands over what is gathered and waits for the kernel's answer; says how many changes were taken since the last
    /// flush.
    ///
    /// # Errors
    /// As for [`Sink::apply`].
    fn flush(&mut self) -> io::Result<usize>;

    /// Has it write only what is this group's share of the kernel by this filter. Nothing happens at a sink that has a place
    /// of its own.
    fn set_filter(&mut self, _filter: &Filter) {}

    /// Counters by name, for status and metrics.
    fn counters(&self) -> Vec<(&'static str, u64)>;
}

/// How large the place is that a sink writes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Room {
    /// Entries that it can hold.
    pub capacity: u64,
    /// Entries that it holds, whosever they are.
    pub entries: u64,
    /// Buckets of its hash.
    pub buckets: u64,
}

/// What came of one call of [`Inspector::read`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece {
    /// More is to come.
    More,
    /// Every entry that was there from the beginning to now has been handed over.
    Complete,
    /// What was read is no whole picture: it was rebuilt meanwhile.
    Torn,
}

/// What is really there, in the place that a sink writes to.
pub trait Inspector {
    /// How large it is, and how full.
    ///
    /// # Errors
    /// The operating system's error.
    fn room(&self) -> io::Result<Room>;

    /// Begins to read everything that is there; what was being read is given up.
    ///
    /// # Errors
    /// The operating system's error.
    fn begin(&mut self) -> io::Result<()>;

    /// Hands over the next entries that a source of the same place would take: bounded work, never blocks.
    ///
    /// # Errors
    /// The operating system's error; the reading is then over.
    fn read(&mut self, found: &mut dyn FnMut(Flow)) -> io::Result<Piece>;

    /// Gives up what is being read.
    fn stop(&mut self);

    /// Whether an entry that is there is what a sink makes of this flow.
    fn agrees(&self, held: &Flow, wanted: &Flow) -> bool;

    /// Has other rules decide which entries are handed over; what is being read is given up. Nothing happens at an
    /// inspector that has no rules.
    fn set_filter(&mut self, _filter: &Filter) {}

    /// Whether a sink can write this flow at all, and a reading would hand it over.
    fn takes(&self, wanted: &Flow) -> bool;

    /// Whether one end of an entry is this machine itself, as of the last [`Inspector::begin`].
    fn is_local(&self, held: &Flow) -> bool;
}
