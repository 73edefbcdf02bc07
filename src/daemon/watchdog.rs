//! systemd's watchdog (`WatchdogSec=`): the main thread says that it lives for as long as the loop of every group turns.
//!
//! A loop that stands still for [`HEALTH_DEADLINE`] is not healthy, as `GET /v1/health` says too. Then nothing is said any
//! more, and when its time is over systemd kills the daemon and starts it anew: the peer has long been master by then.

use crate::daemon::control::GroupHandle;
use crate::daemon::http::HEALTH_DEADLINE;
use crate::sys::clock;
use crate::time::{Duration, Instant};
use sd_notify::NotifyState;

/// When to speak next; never, if systemd does not ask.
#[derive(Debug)]
pub(super) struct Watchdog {
    interval: Option<Duration>,
    due: Instant,
    /// The group whose loop stood still when this last looked.
    still: Option<u8>,
}

impl Watchdog {
    /// As systemd has told in the environment: it is spoken to twice in the time that it waits.
    pub(super) fn from_environment() -> Self {
        Self::new(sd_notify::watchdog_enabled())
    }

    fn new(patience: Option<Duration>) -> Self {
        Watchdog { interval: patience.map(|patience| patience / 2), due: clock::now(), still: None }
    }

    /// Longest time that the main thread may sleep.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.interval.map(|_| self.due.since(clock::now()))
    }

    /// Speaks if it is time to, and every group's loop turns.
    pub(super) fn look<'a>(&mut self, groups: impl Iterator<Item = &'a GroupHandle>) {
        let now = clock::now();
        if self.is_due(now) && self.all_turn(groups.map(|group| (group.sync_id, group.idle_for(now)))) {
            super::run::notify(&[NotifyState::Watchdog]);
        }
    }

    fn is_due(&mut self, now: Instant) -> bool {
        let Some(interval) = self.interval.filter(|_| now >= self.due) else { return false };
        self.due = now + interval;
        true
    }

    fn all_turn(&mut self, mut groups: impl Iterator<Item = (u8, Duration)>) -> bool {
        let still = groups.find(|(_, idle)| *idle > HEALTH_DEADLINE).map(|(sync_id, _)| sync_id);
        if let (Some(group), true) = (still, still != self.still) {
            tracing::error!(
                group,
                "its loop stands still: systemd is told nothing more, and will start the daemon anew"
            );
        }
        self.still = still;
        still.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_speaks_twice_in_the_time_that_systemd_waits_and_never_unasked() {
        let mut watchdog = Watchdog::new(Some(Duration::from_secs(30)));
        let start = watchdog.due;
        assert!(watchdog.is_due(start));
        assert!(!watchdog.is_due(start + Duration::from_millis(14_999)));
        assert!(watchdog.is_due(start + Duration::from_secs(15)));
        let mut unasked = Watchdog::new(None);
        assert_eq!(unasked.timeout(), None);
        assert!(!unasked.is_due(start + Duration::from_secs(3600)));
    }

    #[test]
    fn one_loop_that_stands_still_is_enough_for_silence_until_it_turns_again() {
        let mut watchdog = Watchdog::new(Some(Duration::from_secs(30)));
        let seconds = Duration::from_secs;
        assert!(watchdog.all_turn([(51, seconds(0)), (52, seconds(5))].into_iter()));
        assert!(!watchdog.all_turn([(51, seconds(0)), (52, Duration::from_millis(5001))].into_iter()));
        assert_eq!(watchdog.still, Some(52));
        assert!(watchdog.all_turn([(51, seconds(0)), (52, seconds(0))].into_iter()));
    }
}
