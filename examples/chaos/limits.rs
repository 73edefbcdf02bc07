//! `nf_conntrack_max`: the one setting of the whole machine that is changed, and put back.
//!
//! It is a limit of each namespace's table, but there is one value for all. Two runs that raise and restore it at once would
//! undo each other's, so a lock file lets one at a time.

use super::{Doing, Trouble};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::io;

const MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

/// The raised limit; dropped, it is as before.
#[derive(Debug)]
pub struct Raised {
    before: u64,
    raised: u64,
    _lock: Flock<File>,
}

impl Raised {
    /// Raises the limit to `least`, if it is lower; `None` if there was nothing to do.
    ///
    /// # Errors
    /// [`Trouble::Step`]; of kind `WouldBlock` if another run has raised it.
    pub fn to(least: u64) -> Result<Option<Self>, Trouble> {
        let raise = || {
            let before = read()?;
            if before >= least {
                return Ok(None);
            }
            let file = File::create(std::env::temp_dir().join("ssyncp-chaos.lock"))?;
            let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno)?;
            fs::write(MAX, least.to_string())?;
            Ok(Some(Raised { before, raised: least, _lock: lock }))
        };
        raise().doing("raising nf_conntrack_max")
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        // Whoever has changed it since has other plans.
        if read().is_ok_and(|now| now == self.raised) && fs::write(MAX, self.before.to_string()).is_err() {
            eprintln!("chaos: nf_conntrack_max could not be set back to {}", self.before);
        }
    }
}

fn read() -> io::Result<u64> {
    fs::read_to_string(MAX)?.trim().parse().map_err(|_| io::Error::other("nf_conntrack_max is no number"))
}
