//! Times that a loop measures, as histograms that Prometheus can read.

use crate::daemon::status::GroupStatus;
use crate::time::Duration;

/// Upper ends of the classes of lateness, in microseconds: from a nap to what looks like death.
const LATENESS_US: &[u64] = &[50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 50_000, 100_000, 500_000];
/// Upper ends of the classes of takeovers and their commits, in microseconds.
const TAKEOVER_US: &[u64] = &[1_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000];

/// How often something took how long.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Histogram {
    bounds_us: &'static [u64],
    counts: Vec<u64>,
    sum: Duration,
}

impl Histogram {
    /// For the lateness of a loop.
    pub fn of_lateness() -> Self {
        Self::new(LATENESS_US)
    }

    /// For takeovers and their parts.
    pub fn of_takeovers() -> Self {
        Self::new(TAKEOVER_US)
    }

    fn new(bounds_us: &'static [u64]) -> Self {
        Histogram { bounds_us, counts: vec![0; bounds_us.len() + 1], sum: Duration::ZERO }
    }

    /// Once more, so long. Allocates nothing.
    pub fn observe(&mut self, took: Duration) {
        let class = self.bounds_us.iter().take_while(|bound| took > Duration::from_micros(**bound)).count();
        self.counts[class] += 1;
        self.sum += took;
    }

    /// How often in all.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How long in all.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// Every class by its upper end in seconds, the last one without end, with how often it was met (not cumulated).
    pub fn classes(&self) -> Vec<(f64, u64)> {
        let bounds = self.bounds_us.iter().map(|bound| Duration::from_micros(*bound).as_secs_f64());
        bounds.chain([f64::MAX]).zip(self.counts.iter().copied()).collect()
    }
}

/// All that is measured in one group.
#[derive(Clone, PartialEq, Debug)]
pub struct Measures {
    /// Its state and counters.
    pub status: GroupStatus,
    /// How late turns began that a timer had asked for.
    pub lateness: Histogram,
    /// Writing the table to the sink while taking over.
    pub commits: Histogram,
    /// From the decision to take over until every address is here.
    pub takeovers: Histogram,
}

impl Measures {
    /// Of a group that has measured nothing yet.
    pub fn unmeasured(status: GroupStatus) -> Self {
        let takeovers = Histogram::of_takeovers();
        Measures { status, lateness: Histogram::of_lateness(), commits: takeovers.clone(), takeovers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_in_the_first_class_that_holds_it() {
        let mut lateness = Histogram::of_lateness();
        for microseconds in [0, 50, 51, 1_000, 700_000] {
            lateness.observe(Duration::from_micros(microseconds));
        }
        let classes = lateness.classes();
        assert_eq!((classes[0], classes[1], classes[4]), ((0.00005, 2), (0.0001, 1), (0.001, 1)));
        assert_eq!(classes[11], (f64::MAX, 1));
        assert_eq!((lateness.count(), lateness.sum()), (5, Duration::from_micros(701_101)));
    }
}
