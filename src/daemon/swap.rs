//! Keys are not to be found on a disk: where there is a secret, the daemon's memory stays out of swap. Where the host does not
//! let it, the daemon runs all the same, and says so with the cure. (It leaves no core dump either: `settings::secret`.)

use crate::daemon::privilege::{self, Capability};
use crate::daemon::settings::Settings;
use crate::daemon::status::SwapStatus;
use crate::sys::swap;
use std::io;

/// Keeps this process out of swap if these settings have a secret; what came of it, or `None` if there is nothing to hide.
pub(crate) fn guard(settings: &Settings) -> Option<SwapStatus> {
    // While the rights to do so are there: a secret may come later, by a reload.
    let lifted = swap::lift_limit();
    let _secret = settings.node.sealing.secrets.first()?;
    let problem = keep_out(lifted).err();
    if let Some(problem) = &problem {
        tracing::warn!("keys may be written to swap: {problem}");
    }
    Some(SwapStatus { locked: problem.is_none(), problem })
}

/// Half of it would be worse than nothing: an allocation beyond a limit fails, and ends the daemon.
fn keep_out(lifted: io::Result<()>) -> Result<(), String> {
    const CURE: &str = "write LimitMEMLOCK=infinity into the unit, or start it as root, and start it anew";
    match lifted {
        // It goes for nobody who has this right, and the daemon keeps it then.
        Err(error) if !privilege::has(Capability::IpcLock) => {
            return Err(format!("there is a limit of locked memory: {error}; {CURE}"));
        }
        _ => {}
    }
    swap::forbid().map_err(|error| format!("{error}; {CURE}"))
}
