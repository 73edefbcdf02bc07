//! Keys are not to be found on a disk: where there is a secret, the daemon's memory stays out of swap. Where the host does not
//! let it, the daemon runs all the same, and says so with the cure. (It leaves no core dump either: `settings::secret`.)

use crate::daemon::privilege::{self, Capability};
use crate::daemon::settings::Settings;
use crate::daemon::status::SwapStatus;
use crate::sys::swap;

/// Keeps this process out of swap if these settings have a secret; what came of it, or `None` if there is nothing to hide.
pub(crate) fn guard(settings: &Settings) -> Option<SwapStatus> {
    let _secret = settings.node.sealing.secrets.first()?;
    let problem = keep_out().err();
    if let Some(problem) = &problem {
        tracing::warn!("keys may be written to swap: {problem}");
    }
    Some(SwapStatus { locked: problem.is_none(), problem })
}

fn keep_out() -> Result<(), String> {
    const CURE: &str = "write LimitMEMLOCK=infinity into the unit, or start it as root";
    let limited = swap::limit().map_err(|error| format!("{error}; {CURE}"))?;
    match limited.filter(|_| !privilege::has(Capability::IpcLock)) {
        // Half of it is not enough, and an allocation that fails would end the daemon.
        Some(bytes) => Err(format!("the limit of locked memory is {bytes} bytes; {CURE}")),
        None => swap::forbid().map_err(|error| format!("{error}; {CURE}")),
    }
}
