//! Rules of the protocol that a test can switch off, one at a time, to see whether anything notices. Without the feature
//! `breakages` (and outside unit tests) nothing can be switched off, and the question costs nothing: it is a constant.

use super::Engine;

/// A rule that is broken on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[doc(hidden)]
#[allow(missing_docs, reason = "each is told by its name and its place in the code")]
pub enum Breakage {
    NoTombstones,
}

impl Breakage {
    /// Every one, with its name.
    pub const ALL: &[(Breakage, &str)] = &[(Breakage::NoTombstones, "no-tombstones")];
}

impl Engine {
    /// Whether this rule is switched off.
    #[inline]
    #[allow(clippy::unused_self, reason = "without the feature the answer does not depend on it")]
    pub(super) fn breaks(&self, breakage: Breakage) -> bool {
        #[cfg(any(test, feature = "breakages"))]
        return self.config.breakage == Some(breakage);
        #[cfg(not(any(test, feature = "breakages")))]
        {
            let _ = breakage;
            false
        }
    }
}
