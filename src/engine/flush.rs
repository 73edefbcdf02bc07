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
use super::event::Role;
use super::outbox::Mark;
use super::peers::Peer;
use crate::time::Instant;

/// A mark in the stream: everything that was submitted before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flush {
    /// What must have left the queue.
    mark: Mark,
    /// The frame up to which a follower must hold everything, once the records have left.
    seq: Option<u64>,
    /// The mastership, by its term: no two share one.
    term: u64,
}

impl Flush {
    /// The frame up to which a follower must hold everything; `None` while records wait to be sent.
    pub fn seq(&self) -> Option<u64> {
        self.seq
    }
}

/// Only a master submits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("this node is not master; only a master sends what could be waited for")]
pub struct NotMaster;

impl Engine {
    /// Marks everything that was submitted so far.
    ///
    /// # Errors
    /// [`NotMaster`].
    pub fn begin_flush(&self) -> Result<Flush, NotMaster> {
        if self.role() != Role::Master {
            return Err(NotMaster);
        }
        Ok(Flush { mark: self.outbox.mark(&self.table), seq: None, term: self.term })
    }

    /// Whether every proven follower holds what was submitted before the mark, and there is one.
    ///
    /// # Errors
    /// [`NotMaster`] if the mastership has ended meanwhile.
    pub fn is_flushed(&self, flush: &mut Flush) -> Result<bool, NotMaster> {
        if self.role() != Role::Master || self.term != flush.term {
            return Err(NotMaster);
        }
        if flush.seq.is_none() && self.outbox.has_left(&flush.mark, &self.table) {
            flush.seq = Some(self.outbox.seq());
        }
        let Some(seq) = flush.seq else { return Ok(false) };
        Ok(self.slowest_frontier().is_some_and(|frontier| frontier >= seq))
    }

    /// Frames that not every proven follower is known to hold; `None` without one.
    pub(super) fn unacknowledged(&self) -> Option<u64> {
        Some(self.outbox.seq() - self.slowest_frontier()?)
    }

    /// When the oldest of them left.
    pub(super) fn unacknowledged_since(&self) -> Option<Instant> {
        self.outbox.sent_at(self.slowest_frontier()? + 1)
    }

    /// What every proven follower of our stream holds; `None` if there is none, or this node is not master.
    fn slowest_frontier(&self) -> Option<u64> {
        let own = (self.config.node, self.incarnation);
        let follows = |peer: &&Peer| (peer.word.follows.node, peer.word.follows.incarnation) == own;
        let proven = self.peers.established().filter(follows).filter(|peer| !peer.word.is_cold());
        let slowest = proven.map(|peer| peer.frontier.max(self.outbox.term_start())).min();
        slowest.filter(|_| self.role() == Role::Master)
    }
}
