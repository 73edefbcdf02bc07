//! How long the loop rests between two turns.
//!
//! ```text
//!   load       idle            light                 sustained
//!   loop   ────block────│turn│──block──│turn│──block──│turn│nap│turn│nap│turn│nap│
//!                        ▲ at once                      few wake-ups, many frames each
//! ```
//!
//! A wake-up costs more than a frame. So the first work after a rest is done at once (latency), and under sustained
//! work the loop naps before the next turn, so that more is waiting for it when it wakes (throughput): wake-ups *fall*
//! as load rises. A turn that hit one of its limits left work behind and is followed by the next without any rest.

use crate::time::Duration;

/// Longest nap.
pub const NAP_MAX: Duration = Duration::from_micros(200);
/// Turns in a row that found work before the loop believes that the load lasts.
pub const SUSTAINED_TURNS: u32 = 4;

/// What a turn found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// Nothing to do.
    Nothing,
    /// Work, and all of it is done.
    Work,
    /// Work that waits for a queue below us to drain; nothing will tell us when it has.
    FullQueue,
    /// More work than one turn may do.
    MoreThanOneTurn,
}

/// What to do before the next turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rest {
    /// Nothing: go on at once.
    None,
    /// Sleep this long, whatever arrives.
    Nap(Duration),
    /// Sleep until something arrives or a deadline passes.
    Block,
}

/// The loop's memory of how busy it has been.
#[derive(Clone, Debug)]
pub struct Pace {
    nap: Duration,
    turns_with_work: u32,
    overdue: bool,
}

impl Pace {
    /// A loop at rest. A record that is gathered for at most `batch_delay` must not oversleep that: a nap is at most
    /// half of it.
    pub fn new(batch_delay: Duration) -> Self {
        Pace { nap: NAP_MAX.min(batch_delay / 2), turns_with_work: 0, overdue: false }
    }

    /// The rest after a turn. `due`: a deadline has passed while the turn ran.
    pub fn after(&mut self, found: Found, due: bool) -> Rest {
        self.turns_with_work = if found == Found::Nothing { 0 } else { self.turns_with_work.saturating_add(1) };
        // A deadline that is still due after a turn of its own is somebody's mistake; it must not become a spin.
        let stuck = due && std::mem::replace(&mut self.overdue, due);
        self.overdue = due;
        match found {
            Found::MoreThanOneTurn => Rest::None,
            Found::FullQueue => Rest::Nap(NAP_MAX),
            Found::Nothing if stuck => Rest::Nap(NAP_MAX),
            Found::Work if self.turns_with_work >= SUSTAINED_TURNS && !self.nap.is_zero() => Rest::Nap(self.nap),
            Found::Nothing | Found::Work if due => Rest::None,
            Found::Nothing | Found::Work => Rest::Block,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace() -> Pace {
        Pace::new(Duration::from_millis(1))
    }

    #[test]
    fn the_first_work_after_idle_is_followed_by_waiting_and_not_by_a_nap() {
        let mut pace = pace();
        assert_eq!(pace.after(Found::Nothing, false), Rest::Block);
        for _ in 0..3 {
            assert_eq!(pace.after(Found::Work, false), Rest::Block);
        }
    }

    #[test]
    fn sustained_work_is_done_in_naps_until_a_turn_finds_nothing() {
        let mut pace = pace();
        for _ in 0..3 {
            pace.after(Found::Work, false);
        }
        for _ in 0..10 {
            assert_eq!(pace.after(Found::Work, false), Rest::Nap(Duration::from_micros(200)));
        }
        assert_eq!(pace.after(Found::Nothing, false), Rest::Block);
        assert_eq!(pace.after(Found::Work, false), Rest::Block);
    }

    #[test]
    fn a_turn_that_hit_its_limit_is_followed_by_the_next_at_once() {
        let mut pace = pace();
        for _ in 0..10 {
            assert_eq!(pace.after(Found::MoreThanOneTurn, false), Rest::None);
        }
    }

    #[test]
    fn a_nap_never_outlasts_half_the_batch_delay() {
        let mut pace = Pace::new(Duration::from_micros(100));
        for _ in 0..3 {
            pace.after(Found::Work, false);
        }
        assert_eq!(pace.after(Found::Work, false), Rest::Nap(Duration::from_micros(50)));
        let mut never = Pace::new(Duration::ZERO);
        for _ in 0..9 {
            assert_eq!(never.after(Found::Work, false), Rest::Block);
        }
    }

    #[test]
    fn a_full_queue_is_tried_again_after_a_nap_because_nobody_will_call() {
        assert_eq!(pace().after(Found::FullQueue, false), Rest::Nap(Duration::from_micros(200)));
    }

    #[test]
    fn a_deadline_that_passed_during_the_turn_is_served_at_once_but_never_spun_on() {
        let mut pace = pace();
        assert_eq!(pace.after(Found::Nothing, true), Rest::None);
        assert_eq!(pace.after(Found::Nothing, true), Rest::Nap(Duration::from_micros(200)));
        assert_eq!(pace.after(Found::Nothing, false), Rest::Block);
        assert_eq!(pace.after(Found::Nothing, true), Rest::None);
    }
}
