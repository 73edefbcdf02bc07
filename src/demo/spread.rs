//! Many failovers in three numbers: median, 99th percentile and maximum, of each kind of event by itself.

use super::cause::Event;
use super::report::Failover;
use serde::Serialize;

/// Median, 99th percentile and maximum by nearest rank, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Half of all values are at most this.
    pub p50: f64,
    /// 99 of 100 values are at most this; with fewer than 100 values the largest.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

/// The times of all events of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Times {
    /// What happened.
    pub event: Event,
    /// How often.
    pub count: u32,
    /// From the event to the new master's first announcement; null where none was seen.
    pub takeover_ms: Option<Spread>,
    /// The longest hole of the UDP probes around each event.
    pub blackout_ms: Option<Spread>,
    /// The longest time without an echo among the fast TCP connections around each event.
    pub tcp_gap_ms: Option<Spread>,
}

impl Spread {
    /// Of these values; `None` without any.
    pub fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.collect();
        sorted.sort_by(f64::total_cmp);
        // Nearest rank: the smallest value that this many percent of all are not above.
        let percentile = |percent: usize| sorted.get((sorted.len() * percent).div_ceil(100).checked_sub(1)?).copied();
        Some(Spread { p50: percentile(50)?, p99: percentile(99)?, max: percentile(100)? })
    }

    /// In words, for people.
    pub(super) fn in_words(self) -> String {
        format!("p50 {:.1}, p99 {:.1}, max {:.1} ms", self.p50, self.p99, self.max)
    }
}

impl Times {
    /// In words, for people: a line for each time that was measured.
    pub(super) fn in_lines(&self) -> Vec<String> {
        let figures =
            [("takeover", self.takeover_ms), ("UDP blackout", self.blackout_ms), ("TCP gap", self.tcp_gap_ms)];
        let measured = figures.into_iter().filter_map(|(name, spread)| spread.map(|spread| (name, spread)));
        let lines: Vec<_> = measured.map(|(name, spread)| format!("  {name:<14}{}", spread.in_words())).collect();
        let title = format!("{} times {}:", self.count, self.event.in_words());
        if lines.is_empty() { lines } else { [vec![title], lines].concat() }
    }
}

/// The times of each kind of event that has happened, in the order in which they happen.
pub(super) fn times(failovers: &[Failover]) -> Vec<Times> {
    let mut kinds: Vec<Event> = failovers.iter().map(|failover| failover.event).collect();
    kinds.sort();
    kinds.dedup();
    let of_kind = |event: Event| failovers.iter().filter(move |failover| failover.event == event);
    let spread = |event, figure: fn(&Failover) -> Option<f64>| Spread::of(of_kind(event).filter_map(figure));
    let times = |event| Times {
        event,
        count: u32::try_from(of_kind(event).count()).unwrap_or(u32::MAX),
        takeover_ms: spread(event, |failover| failover.takeover_ms),
        blackout_ms: spread(event, |failover| failover.blackout_ms_max),
        tcp_gap_ms: spread(event, |failover| failover.tcp_gap_ms_max),
    };
    kinds.into_iter().map(times).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let hundred = Spread::of((1..=100).rev().map(f64::from));
        assert_eq!(hundred, Some(Spread { p50: 50.0, p99: 99.0, max: 100.0 }));
        assert_eq!(Spread::of((1..=200).map(f64::from)), Some(Spread { p50: 100.0, p99: 198.0, max: 200.0 }));
        assert_eq!(Spread::of([3.0, 1.0, 2.0].into_iter()), Some(Spread { p50: 2.0, p99: 3.0, max: 3.0 }));
        assert_eq!(Spread::of([7.0].into_iter()), Some(Spread { p50: 7.0, p99: 7.0, max: 7.0 }));
        assert_eq!(Spread::of(std::iter::empty()), None);
    }

    #[test]
    fn each_kind_of_event_has_times_of_its_own() {
        let failover = |event, takeover_ms, blackout_ms_max| Failover {
            event,
            takeover_ms,
            blackout_ms_max: Some(blackout_ms_max),
            ..Failover::default()
        };
        let all = times(&[
            failover(Event::Stop, Some(40.0), 50.0),
            failover(Event::Continue, None, 2.0),
            failover(Event::Stop, Some(30.0), 60.0),
            failover(Event::Continue, None, 1.0),
        ]);
        let words: Vec<_> = all.iter().map(|times| (times.event, times.count, times.takeover_ms)).collect();
        let takeover = Spread { p50: 30.0, p99: 40.0, max: 40.0 };
        assert_eq!(words, [(Event::Stop, 2, Some(takeover)), (Event::Continue, 2, None)]);
        assert_eq!(all[0].blackout_ms, Some(Spread { p50: 50.0, p99: 60.0, max: 60.0 }));
        assert_eq!(all[1].blackout_ms, Some(Spread { p50: 1.0, p99: 2.0, max: 2.0 }));
        assert_eq!(all[1].tcp_gap_ms, None);
    }
}
