//! The demo where the kernel lets this user make no namespaces: two engines in this one process, over the memory transport,
//! with synthetic flows.
//!
//! It shows less, and says so: no kernel's table, no TCP, no wire. What it proves is that the backup's table becomes equal
//! to the master's, and that the backup takes over with all of it when the master falls silent.
//!
//! Built by whoever joins the rooms: it needs a working engine, `transport::memory` and `bridge::synthetic`.

use super::narrator::Narrator;
use super::report::Failover;
use super::{DemoError, Options};

/// Plays the story in memory, and returns the figures of each death: `connections` are synthetic flows, `survived` are those
/// that the new master holds with the same value as the dead one, `reset` is always 0, `stalled` are the others. Times on a
/// wire stay `None`, but `takeover_ms` (last turn of the dead engine to the role of the other).
pub(super) fn run(options: &Options, narrator: &Narrator) -> Result<Vec<Failover>, DemoError> {
    let _ = (options, narrator);
    Err(DemoError::NoMemoryMode)
}
