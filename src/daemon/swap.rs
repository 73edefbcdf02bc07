//! Keys are not to be found on a disk: where there is a secret, the daemon's memory stays out of swap. Where the host does not
//! let it, the daemon runs all the same, and says so with the cure. (It leaves no core dump either: `settings::secret`.)

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

/// Half of it would be worse than nothing: an allocation beyond a limit fails, and ends the daemon.
fn keep_out() -> Result<(), String> {
    const CURE: &str = "write LimitMEMLOCK=infinity into the unit, or start it as root, and start it anew";
    swap::lift_limit().map_err(|error| format!("there is a limit of locked memory: {error}; {CURE}"))?;
    swap::forbid().map_err(|error| format!("{error}; {CURE}"))
}
