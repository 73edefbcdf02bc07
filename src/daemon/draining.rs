//! Why a group of this node is to be without the role. There may be several reasons at a time, and the engine knows only
//! whether there is one.
//!
//! ```text
//!   ssyncp drain      ─▶ Operator ─┐
//!   a tracked failure ─▶ Track    ─┴─▶ any? ─▶ Engine::set_draining
//! ```
//!
//! They live with the group's thread, also while it waits for its interfaces: a reload keeps them, a restart of the daemon
//! forgets them.

use std::collections::BTreeSet;

/// A reason to be without the role.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Cause {
    /// `ssyncp drain`.
    Operator,
    /// Something that is watched has failed, and has no weight of its own.
    Track,
}

impl Cause {
    /// The word for status and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Cause::Operator => "operator",
            Cause::Track => "track",
        }
    }
}

/// All reasons that there are now.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Draining(BTreeSet<Cause>);

impl Draining {
    /// A reason comes or goes; whether there is one now.
    pub fn set(&mut self, cause: Cause, holds: bool) -> bool {
        if holds {
            self.0.insert(cause);
        } else {
            self.0.remove(&cause);
        }
        !self.0.is_empty()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Their names.
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|cause| cause.name().to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reason_that_goes_does_not_take_the_other_with_it() {
        let mut draining = Draining::default();
        assert!(draining.set(Cause::Operator, true));
        assert!(draining.set(Cause::Track, true));
        assert_eq!(draining.names(), ["operator", "track"]);
        assert!(draining.set(Cause::Track, false));
        assert!(draining.set(Cause::Track, false));
        assert!(!draining.set(Cause::Operator, false));
        assert_eq!(draining, Draining::default());
    }
}
