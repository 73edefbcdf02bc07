//! A planned switch: a living master gives the role to an heir (docs/protocol.md 5.3).

use super::Engine;
use crate::time::Instant;
use crate::wire::NodeId;

/// Why there is no planned switch. Nothing has changed then.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum SwitchoverError {
    /// Nobody is proven equal to the master, so that nobody may inherit.
    #[error("no backup is proven equal to the master; wait until one is in sync")]
    NoHeir,
    /// This node is not in a state to give the role, nor to ask for it.
    #[error("this node is neither master nor a backup that is in sync")]
    NotInSync,
}

impl Engine {
    /// A master hands the role over to `heir`, or to the best of its followers; a backup asks its master for it. Says who is
    /// to be the next master.
    ///
    /// # Errors
    /// [`SwitchoverError`]; nothing has changed then.
    pub fn switchover(&mut self, now: Instant, heir: Option<NodeId>) -> Result<NodeId, SwitchoverError> {
        let _ = (now, heir);
        Err(SwitchoverError::NoHeir)
    }

    /// A draining node gives the role to whoever is proven equal to it, as soon as somebody is, and does not take it again
    /// while anybody else may have it.
    pub fn set_draining(&mut self, now: Instant, draining: bool) {
        let _ = (now, draining);
    }

    /// Whether this node is to be without the role.
    pub fn is_draining(&self) -> bool {
        false
    }
}
