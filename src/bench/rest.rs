//! What a measuring thread spends, and how it waits: as the daemon's loop does ([`crate::daemon::pace`]), so that a figure
//! holds the wake-ups that production pays.

use crate::daemon::pace::{Found, Pace, Waits};
use crate::daemon::settings::Wait;
use crate::sys::clock;
use crate::sys::poll::{self, Descriptors};
use crate::time::{Duration, Instant};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// How a thread waits between two turns.
pub(super) struct Resting(Pace);

impl Resting {
    /// A thread at rest.
    pub(super) fn new() -> Self {
        Resting(Pace::new(Wait::default()))
    }

    /// Waits after a turn, until `readiness` or for `most`.
    pub(super) fn rest<'a>(&mut self, found: Found, readiness: impl FnOnce() -> Descriptors<'a>, most: Duration) {
        match self.0.after(clock::now(), found, most.is_zero()).waits(found, false, most, None) {
            Waits::No => {}
            Waits::Nap(nap) => std::thread::sleep(nap),
            // A wait that fails is one that did not wait.
            Waits::Frames(most) | Waits::FramesAndSource(most) => drop(poll::wait(&readiness(), Some(most))),
        }
    }
}

/// What a thread has used from a moment on.
pub(super) struct Stopwatch {
    begun: Instant,
    processor_s: f64,
}

/// What it was.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spent {
    /// Seconds on the wall.
    pub(super) wall_s: f64,
    /// Seconds of processor, user and system (getrusage(2), RUSAGE_THREAD).
    pub(super) processor_s: f64,
}

impl Stopwatch {
    /// Begins now, for the calling thread.
    pub(super) fn start() -> Self {
        Stopwatch { begun: clock::now(), processor_s: processor_s() }
    }

    /// What the calling thread has used since.
    pub(super) fn stop(self) -> Spent {
        let wall_s = clock::now().since(self.begun).as_secs_f64();
        Spent { wall_s, processor_s: processor_s() - self.processor_s }
    }
}

/// Seconds of processor that the calling thread has had.
pub(super) fn processor_s() -> f64 {
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    // It fails for no thread that asks about itself.
    getrusage(UsageWho::RUSAGE_THREAD).map_or(0.0, |usage| seconds(usage.user_time()) + seconds(usage.system_time()))
}
