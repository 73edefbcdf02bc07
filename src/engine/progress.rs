//! How far a repair is: what an operator who waits for it wants to know.

use crate::table::BUCKETS;
use crate::time::Duration;

/// How far a table is on its way to be proven.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Buckets that are walked or proven, in per cent, rounded down.
    pub percent: u8,
    /// Buckets that are still to be compared or walked, of 4096.
    pub buckets_left: u32,
    /// Records taken per second since it began.
    pub records_per_s: u64,
    /// Time that the rest will take, by the buckets done so far; `None` while none is.
    pub eta: Option<Duration>,
}

impl Progress {
    /// So many buckets are left and so many records were taken, after so long.
    pub(super) fn of(buckets_left: u32, elapsed: Duration, records: u64) -> Self {
        let done = (BUCKETS as u64).saturating_sub(u64::from(buckets_left));
        let nanos = elapsed.as_nanos();
        let rate = u128::from(records) * 1_000_000_000 / nanos.max(1);
        let rest = nanos * u128::from(buckets_left) / u128::from(done.max(1));
        Progress {
            percent: (done * 100 / BUCKETS as u64) as u8,
            buckets_left,
            records_per_s: u64::try_from(rate).unwrap_or(u64::MAX),
            eta: (done > 0).then(|| Duration::from_nanos(u64::try_from(rest).unwrap_or(u64::MAX))),
        }
    }
}
