//! How long the loop rests between two turns.
//!
//! ```text
//!   load       idle            light                 sustained
//!   loop   ────block────│turn│──block──│turn│──block──│turn│nap│turn│nap│turn│nap│
//!                        ▲ at once                      few wake-ups, many frames and events each
//! ```
//!
//! A wake-up costs more than a frame or an event. So the first work after a rest is done at once (latency), and where work
//! comes in numbers the loop naps before it looks again, so that more is waiting for it when it wakes (throughput): wake-ups
//! *fall* as load rises. A turn that hit one of its limits left work behind and is followed by the next without any rest.
//!
//! **When naps pay.** A nap that finds work has saved the wake-ups of all but one piece of it; one that finds none was a
//! wake-up for nothing. And work that comes sooner after the last than a nap lasts would have been found by one. Each of these
//! is counted for or against napping, within bounds, so that the loop neither forgets a burst in the silence before the next
//! one nor remembers it for long:
//!
//! ```text
//!   score  0 ──── block ──── 4 ──── nap ──── 8
//!             a nap, or as long as one, brought work: +1        it did not: −1
//! ```

use crate::daemon::settings::{Wait, WaitKind};
use crate::time::{Duration, Instant};

/// Nap before what is late is tried again: a queue below us that was full, or a deadline that stays due.
pub const RETRY_NAP: Duration = Duration::from_micros(200);
/// Longest time that a source is not read while a frame gathers, however long `batch_delay` is: its buffer in the kernel is finite.
const GATHER_MOST: Duration = Duration::from_millis(1);
/// Score from which on the loop naps.
pub const NAPS_PAY: u32 = 4;
/// Highest score: how much silence a loop under load forgives.
pub const SCORE_MAX: u32 = 8;

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

/// What the loop waits for, at most how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waits {
    /// It does not wait.
    No,
    /// For the time to pass.
    Nap(Duration),
    /// For a frame, or for somebody who asks.
    Frames(Duration),
    /// For those, and for the source.
    FramesAndSource(Duration),
}

impl Rest {
    /// In detail, where the next deadline is `left` away. `gathers`: time until the frame that a master gathers is due. What the
    /// source says before that would wait for that frame: it is read then, all at once. But not where frames come in numbers
    /// (`heard`): a nap takes those together, and a wait would wake for each.
    pub fn waits(self, found: Found, heard: bool, left: Duration, gathers: Option<Duration>) -> Waits {
        let flooded = heard && matches!(self, Rest::Nap(_));
        match (self, gathers) {
            (Rest::None, _) => Waits::No,
            (_, Some(gathers)) if !left.is_zero() && found != Found::FullQueue && !flooded => {
                Waits::Frames(left.min(gathers).min(GATHER_MOST))
            }
            (Rest::Nap(nap), _) => Waits::Nap(nap.min(left.max(Duration::from_micros(1)))),
            (Rest::Block, _) => Waits::FramesAndSource(left),
        }
    }
}

/// The loop's memory of how busy it has been.
#[derive(Clone, Debug)]
pub struct Pace {
    wait: Wait,
    score: u32,
    /// When the last turn that found work has ended.
    worked_at: Option<Instant>,
    /// The last rest was a nap.
    napped: bool,
    overdue: bool,
    rests: Rests,
}

/// How the loop has rested so far.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Rests {
    /// Naps.
    pub naps: u64,
    /// Naps after which there was nothing to do.
    pub naps_in_vain: u64,
    /// Waits for something to arrive.
    pub blocks: u64,
}

impl Pace {
    /// A loop at rest.
    pub fn new(wait: Wait) -> Self {
        Pace { wait, score: 0, worked_at: None, napped: false, overdue: false, rests: Rests::default() }
    }

    /// Another wait from now on.
    pub fn set_wait(&mut self, wait: Wait) {
        (self.wait, self.score) = (wait, 0);
    }

    /// The wait in force.
    pub fn wait(&self) -> Wait {
        self.wait
    }

    /// How it has rested so far.
    pub fn rests(&self) -> Rests {
        self.rests
    }

    /// The rest after a turn that ended `now`. `due`: a deadline has passed while the turn ran.
    pub fn after(&mut self, now: Instant, found: Found, due: bool) -> Rest {
        self.judge(now, found);
        // A deadline that is still due after a turn of its own is somebody's mistake; it must not become a spin.
        let stuck = due && std::mem::replace(&mut self.overdue, due);
        self.overdue = due;
        let nap = Rest::Nap(self.wait.latency_bound);
        let rest = match (found, self.wait.kind) {
            (Found::MoreThanOneTurn, _) | (_, WaitKind::Spin) => Rest::None,
            (Found::FullQueue, _) => Rest::Nap(RETRY_NAP),
            (Found::Nothing, _) if stuck => Rest::Nap(RETRY_NAP),
            (_, WaitKind::Nap) => nap,
            (Found::Work, WaitKind::Adaptive) if self.score >= NAPS_PAY => nap,
            (Found::Nothing | Found::Work, _) if due => Rest::None,
            (Found::Nothing | Found::Work, _) => Rest::Block,
        };
        self.napped = matches!(rest, Rest::Nap(_));
        self.rests.naps += u64::from(self.napped);
        self.rests.blocks += u64::from(rest == Rest::Block);
        rest
    }

    /// Whether a nap has paid, or would have.
    fn judge(&mut self, now: Instant, found: Found) {
        if found == Found::Nothing {
            if self.napped {
                self.rests.naps_in_vain += 1;
                self.score = self.score.saturating_sub(1);
            }
            return;
        }
        let soon = self.worked_at.is_some_and(|at| now.since(at) <= self.wait.latency_bound);
        self.worked_at = Some(now);
        self.score = if self.napped || soon { SCORE_MAX.min(self.score + 1) } else { self.score.saturating_sub(1) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAP: Rest = Rest::Nap(Duration::from_micros(200));

    /// A loop, and a clock in microseconds.
    struct Loop(Pace, u64);

    impl Loop {
        fn new(kind: WaitKind) -> Self {
            Loop(Pace::new(Wait { kind, latency_bound: Duration::from_micros(200) }), 1_000_000)
        }

        /// The rest after a turn so many microseconds later.
        fn after(&mut self, micros: u64, found: Found) -> Rest {
            self.1 += micros;
            self.0.after(Instant::from_nanos(self.1 * 1000), found, false)
        }

        /// So many turns with work, 20 µs apart.
        fn busy(&mut self, turns: u32) {
            for _ in 0..turns {
                self.after(20, Found::Work);
            }
        }
    }

    fn adaptive() -> Loop {
        Loop::new(WaitKind::Adaptive)
    }

    /// With a `batch_delay` of a second the source would otherwise not be read for as long, and its buffer run over.
    #[test]
    fn while_a_frame_gathers_the_source_waits_for_it_but_never_longer_than_a_millisecond() {
        let ms = Duration::from_millis;
        let waits = |rest: Rest, gathers| rest.waits(Found::Work, false, ms(70), gathers);
        assert_eq!(waits(Rest::Block, Some(ms(1) / 2)), Waits::Frames(ms(1) / 2));
        assert_eq!(waits(Rest::Block, Some(ms(900))), Waits::Frames(ms(1)));
        assert_eq!(waits(Rest::Nap(ms(1)), Some(ms(900))), Waits::Frames(ms(1)));
        assert_eq!(waits(Rest::None, Some(ms(900))), Waits::No);
        assert_eq!(waits(Rest::Block, None), Waits::FramesAndSource(ms(70)));
        assert_eq!(waits(Rest::Nap(ms(1)), None), Waits::Nap(ms(1)));
        // The deadline comes first.
        assert_eq!(Rest::Block.waits(Found::Work, false, ms(1) / 4, Some(ms(1) / 2)), Waits::Frames(ms(1) / 4));
        assert_eq!(Rest::Nap(ms(2)).waits(Found::Nothing, false, ms(1), None), Waits::Nap(ms(1)));
    }

    /// Each frame of a flood would end a wait; a nap takes many of them.
    #[test]
    fn a_master_under_a_flood_naps_also_while_a_frame_gathers() {
        let ms = Duration::from_millis;
        let (nap, soon) = (Rest::Nap(ms(1)), Some(ms(1) / 2));
        assert_eq!(nap.waits(Found::Work, true, ms(70), soon), Waits::Nap(ms(1)));
        assert_eq!(Rest::Block.waits(Found::Work, true, ms(70), soon), Waits::Frames(ms(1) / 2));
        // What is late, or waits for room below, is tried again soon.
        assert_eq!(Rest::Nap(RETRY_NAP).waits(Found::FullQueue, false, ms(70), soon), Waits::Nap(RETRY_NAP));
        assert_eq!(
            Rest::Nap(ms(1)).waits(Found::Work, false, Duration::ZERO, soon),
            Waits::Nap(Duration::from_micros(1))
        );
    }

    #[test]
    fn work_that_comes_seldom_is_waited_for_and_never_napped_on() {
        let mut pace = adaptive();
        for _ in 0..50 {
            assert_eq!(pace.after(201, Found::Work), Rest::Block);
            assert_eq!(pace.after(10, Found::Nothing), Rest::Block);
        }
        assert_eq!(pace.0.rests(), Rests { naps: 0, naps_in_vain: 0, blocks: 100 });
    }

    #[test]
    fn work_that_comes_sooner_than_a_nap_lasts_is_napped_on_from_the_fifth_piece_on() {
        let mut pace = adaptive();
        for _ in 0..4 {
            assert_eq!(pace.after(200, Found::Work), Rest::Block);
        }
        for _ in 0..10 {
            assert_eq!(pace.after(200, Found::Work), NAP);
        }
        assert_eq!(pace.after(300, Found::Nothing), Rest::Block);
        assert_eq!(pace.0.rests(), Rests { naps: 10, naps_in_vain: 1, blocks: 5 });
    }

    /// A burst each millisecond: what the silence between them counts against napping, the burst makes good.
    #[test]
    fn bursts_are_napped_on_from_their_first_piece_once_they_are_known() {
        let mut pace = adaptive();
        pace.busy(9);
        for _ in 0..50 {
            assert_eq!(pace.after(250, Found::Work), NAP);
            assert_eq!(pace.after(250, Found::Nothing), Rest::Block);
            assert_eq!(pace.after(500, Found::Work), NAP);
            assert_eq!(pace.after(250, Found::Work), NAP);
        }
    }

    /// A thousand events a second are one each turn: a nap after each would be a second wake-up for nothing.
    #[test]
    fn naps_that_find_nothing_are_given_up() {
        let mut pace = adaptive();
        pace.busy(20);
        assert_eq!(pace.after(250, Found::Nothing), Rest::Block);
        let naps: usize = (0..20)
            .map(|_| {
                let rest = pace.after(1000, Found::Work);
                if rest == NAP {
                    assert_eq!(pace.after(250, Found::Nothing), Rest::Block);
                }
                usize::from(rest == NAP)
            })
            .sum();
        // From 7 on, two less each time.
        assert_eq!(naps, 2);
    }

    #[test]
    fn a_turn_that_hit_its_limit_is_followed_by_the_next_at_once() {
        for (_, kind) in WaitKind::WORDS {
            let mut pace = Loop::new(kind);
            for _ in 0..10 {
                assert_eq!(pace.after(100, Found::MoreThanOneTurn), Rest::None);
            }
        }
    }

    #[test]
    fn block_never_naps_nap_never_blocks_and_spin_does_neither() {
        for (kind, rest) in [(WaitKind::Block, Rest::Block), (WaitKind::Nap, NAP), (WaitKind::Spin, Rest::None)] {
            let mut pace = Loop::new(kind);
            for _ in 0..10 {
                assert_eq!(pace.after(10, Found::Work), rest);
                assert_eq!(pace.after(10, Found::Nothing), rest);
            }
        }
    }

    #[test]
    fn a_full_queue_is_tried_again_after_a_nap_because_nobody_will_call() {
        assert_eq!(adaptive().after(10, Found::FullQueue), NAP);
        assert_eq!(Loop::new(WaitKind::Block).after(10, Found::FullQueue), NAP);
    }

    #[test]
    fn a_deadline_that_passed_during_the_turn_is_served_at_once_but_never_spun_on() {
        let (mut pace, now) = (adaptive().0, Instant::from_nanos(1_000_000));
        assert_eq!(pace.after(now, Found::Nothing, true), Rest::None);
        assert_eq!(pace.after(now, Found::Nothing, true), NAP);
        assert_eq!(pace.after(now, Found::Nothing, false), Rest::Block);
        assert_eq!(pace.after(now, Found::Nothing, true), Rest::None);
    }

    #[test]
    fn another_wait_is_in_force_at_once_and_remembers_nothing() {
        let mut pace = adaptive();
        pace.busy(20);
        let wait = Wait { kind: WaitKind::Adaptive, latency_bound: Duration::from_micros(50) };
        pace.0.set_wait(wait);
        assert_eq!((pace.0.wait(), pace.after(20, Found::Work)), (wait, Rest::Block));
    }
}
