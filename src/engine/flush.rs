//! Has everything that was submitted so far arrived at the others? A mark is set now and looked at later.
//!
//! ```text
//!   queue     [ a b c d ]            mark: behind d; when all before it have left the queue …
//!   stream    … 41 42 43 | 44 45     … so everything is in frame 45 or before it …
//!   frontier  node 2: 44             … and node 2 does not have it yet
//! ```
//!
//! A change that replaces one which waits takes its place in the queue, so the mark never waits for what came later.

use super::Engine;
use super::durability::Ack;
use super::event::Role;
use super::outbox::Mark;
use crate::time::{Duration, Instant};

/// A mark in the stream: everything that was submitted before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flush {
    /// Behind the last record that must have left the queue.
    end: Mark,
    /// The frame up to which a follower must hold everything, once the records have left.
    seq: Option<u64>,
    /// By whom; `None`: by every proven follower, and by one at least.
    ack: Option<Ack>,
    deadline: Instant,
    /// Which mastership of this engine it belongs to.
    mastership: u64,
}

impl Flush {
    /// The frame up to which a follower must hold everything; `None` while records wait to be sent.
    pub fn seq(&self) -> Option<u64> {
        self.seq
    }

    /// When it is no longer waited for.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }
}

/// How far a flush is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlushState {
    /// Somebody does not hold everything yet.
    Waiting,
    /// Everything is held by those who were asked for.
    Done,
    /// Its time is over before that.
    TimedOut,
}

/// Only a master submits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("this node is not master; only a master sends what could be waited for")]
pub struct NotMaster;

impl Engine {
    /// Marks everything that was submitted so far. It is flushed when those followers hold it that `ack` asks for (with
    /// `None` every proven one, and one at least), which is waited for as long as `timeout`. A policy that counts members
    /// where they are not known is never fulfilled.
    ///
    /// # Errors
    /// [`NotMaster`].
    pub fn begin_flush(&self, now: Instant, timeout: Duration, ack: Option<Ack>) -> Result<Flush, NotMaster> {
        if self.role() != Role::Master {
            return Err(NotMaster);
        }
        let (end, mastership) = (self.outbox.mark(&self.table), self.durability.masterships);
        Ok(Flush { end, seq: None, ack, deadline: now + timeout, mastership })
    }

    /// Whether those who were asked for hold what was submitted before the mark.
    ///
    /// # Errors
    /// [`NotMaster`] if the mastership has ended meanwhile.
    pub fn flush_state(&self, now: Instant, flush: &mut Flush) -> Result<FlushState, NotMaster> {
        if self.role() != Role::Master || self.durability.masterships != flush.mastership {
            return Err(NotMaster);
        }
        if flush.seq.is_none() && self.outbox.has_left(&flush.end, &self.table) {
            flush.seq = Some(self.outbox.seq());
        }
        let acknowledged = self.acknowledged();
        let held = match flush.ack {
            None => acknowledged.slowest(),
            Some(ack) => ack.followers(self.config.members).and_then(|followers| acknowledged.by(followers)),
        };
        Ok(match flush.seq {
            Some(seq) if held.is_some_and(|held| held >= seq) => FlushState::Done,
            _ if flush.deadline <= now => FlushState::TimedOut,
            _ => FlushState::Waiting,
        })
    }
}
