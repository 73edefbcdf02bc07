//! Sections: what is replicated beside flows (docs/protocol.md 3.3, SECTION).

use super::{Engine, UpdateError};
use crate::flow::{Section, SectionChange, SectionKey};
use crate::time::Instant;

impl Engine {
    /// The owner says that an entry of a section has changed.
    ///
    /// # Errors
    /// [`UpdateError`]; nothing has changed then.
    pub fn update_section(&mut self, now: Instant, change: &SectionChange) -> Result<(), UpdateError> {
        let _ = (now, change);
        Err(UpdateError::Unsupported)
    }

    /// The next change of a section that the followed stream has brought.
    pub fn poll_section(&mut self, now: Instant) -> Option<SectionChange> {
        let _ = now;
        None
    }

    /// One entry; its expiry is what is left of it.
    pub fn section(&self, key: &SectionKey, now: Instant) -> Option<Section> {
        let _ = (key, now);
        None
    }

    /// Every entry, in the order of tables and keys.
    pub fn sections(&self, now: Instant) -> impl Iterator<Item = Section> + '_ {
        let _ = now;
        std::iter::empty()
    }
}
