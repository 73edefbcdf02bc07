//! What the tools that run machines have in common: why one of them has no figure, and where the program is.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why there is no figure, and no verdict.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The operating system refused a step.
    #[error("{doing}: {source}")]
    Step {
        /// Which.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// What was waited for did not come.
    #[error("never within {patience:?}: {what}")]
    Never {
        /// What that was.
        what: String,
        /// How long it was waited for.
        patience: Duration,
    },
    /// A program is missing.
    #[error("needs the program {0}")]
    Missing(&'static str),
    /// Somebody wants this to end.
    #[error("interrupted")]
    Interrupted,
    /// A thread of this program did not end well.
    #[error("a thread has panicked")]
    Panicked,
}

/// Names the step that an error of the operating system belongs to.
pub trait Doing<T> {
    /// The same result, with the step in its error.
    ///
    /// # Errors
    /// [`Trouble::Step`].
    fn doing(self, step: &'static str) -> Result<T, Trouble>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, step: &'static str) -> Result<T, Trouble> {
        self.map_err(|source| Trouble::Step { doing: step, source })
    }
}

/// The program `ssyncp` that was built with the tool: Cargo puts examples into a folder beside it.
pub fn beside() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.ancestors().nth(2).map(|folder| folder.join("ssyncp")).unwrap_or_default()
}
