//! How much is done for senders that nobody knows (docs/protocol.md 3.4.9): a bucket of tokens, one for each key that is derived
//! to see whether a stranger has the secret.

use crate::time::{Duration, Instant};

/// Time for which one try is paid.
const TRY_COST: Duration = Duration::from_nanos(31_250);
/// Tries at once.
const TRIES_AT_ONCE: u32 = 64;

/// The budget for strangers, as the generic cell rate algorithm keeps it: one point in time.
#[derive(Default, Debug)]
pub(super) struct Strangers {
    /// Up to when tries are paid for.
    paid_until: Instant,
}

impl Strangers {
    /// Whether one more may be tried now; it is paid for then.
    pub(super) fn may_try(&mut self, now: Instant) -> bool {
        let from = self.paid_until.max(now);
        if from.since(now) + TRY_COST > TRY_COST * TRIES_AT_ONCE {
            return false;
        }
        self.paid_until = from + TRY_COST;
        true
    }
}
