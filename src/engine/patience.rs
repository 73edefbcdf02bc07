//! How long a master waits for a follower that stands still: half as long each time that it had to be released, down to
//! [`SHORTEST`]; a minute without a release gives one halving back (docs/protocol.md 3.6.10).
//!
//! ```text
//!   waited for   500 ms    250     125     63    31   16   8   5   5   5  …     8        16   …  500 ms
//!                released ┘ returns, released ┘                      └─ a minute ─┘ a minute ┘
//! ```
//!
//! A follower that is slow, or whose link flaps, does not need to be waited for again and again: what it misses stands in the
//! history, or is repaired. And one that has the secret and has gone insane cannot hold up what is new for the others by
//! saying that it can take nothing, coming back, and saying so again. It is remembered by the node's number: to start anew
//! is no excuse.

use crate::time::{Duration, Instant};
use crate::wire::{NodeId, PEERS_MAX};

/// The shortest wait: what a walk may cost a live change, too.
const SHORTEST: Duration = Duration::from_millis(5);

/// So much time without a release gives one halving back.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// Halvings that count: with them 60 s, the longest limit, are below [`SHORTEST`].
const HALVINGS_MAX: u32 = 14;

/// Least time between two reports of one follower.
const REPORT_SPACING: Duration = Duration::from_secs(1);

/// A node that was released.
#[derive(Clone, Copy, Debug)]
struct Known {
    node: NodeId,
    /// Halvings that it had after its last release, and when that was.
    halvings: u32,
    at: Instant,
    reported_at: Instant,
}

impl Known {
    fn halvings(&self, now: Instant) -> u32 {
        let forgiven = now.since(self.at).as_nanos() / FORGIVEN_AFTER.as_nanos();
        self.halvings.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX))
    }
}

/// Who had to be released, at most [`PEERS_MAX`] nodes, and the last time of each.
#[derive(Debug)]
pub(super) struct Patience {
    known: Vec<Known>,
}

impl Patience {
    pub(super) fn new() -> Self {
        Patience { known: Vec::with_capacity(PEERS_MAX) }
    }

    /// How long `node` is waited for that stands still since then, where anybody else is waited for as long as `usual`.
    pub(super) fn limit(&self, since: Instant, node: NodeId, usual: Duration) -> Duration {
        let halvings = self.known.iter().find(|it| it.node == node).map_or(0, |it| it.halvings(since));
        (usual / (1 << halvings)).max(SHORTEST.min(usual))
    }

    /// It was waited for in vain. Whether that is to be reported.
    pub(super) fn released(&mut self, now: Instant, node: NodeId) -> bool {
        let before = self.known.iter().position(|it| it.node == node).map(|at| self.known.swap_remove(at));
        let halvings = before.map_or(0, |it| it.halvings(now)) + 1;
        let news = before.is_none_or(|it| now.since(it.reported_at) >= REPORT_SPACING);
        let reported_at = before.filter(|_| !news).map_or(now, |it| it.reported_at);
        if self.known.len() == PEERS_MAX
            && let Some(oldest) = (0..self.known.len()).min_by_key(|at| self.known[*at].at)
        {
            self.known.swap_remove(oldest);
        }
        self.known.push(Known { node, halvings: halvings.min(HALVINGS_MAX), at: now, reported_at });
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Instant {
        Instant::from_nanos(milliseconds * 1_000_000)
    }

    fn limit(patience: &Patience, node: u32, now: u64) -> u128 {
        patience.limit(at(now), NodeId(node), Duration::from_millis(500)).as_micros()
    }

    /// [3.6.10]
    #[test]
    fn each_release_halves_it_and_each_minute_without_one_gives_a_halving_back() {
        let mut patience = Patience::new();
        let limits: Vec<u128> = (0..9)
            .map(|_| {
                let before = limit(&patience, 7, 1000);
                patience.released(at(1000), NodeId(7));
                before
            })
            .collect();
        assert_eq!(limits, [500_000, 250_000, 125_000, 62_500, 31_250, 15_625, 7812, 5000, 5000]);
        assert_eq!(limit(&patience, 8, 1000), 500_000, "of another");
        assert_eq!([60_999, 61_000, 181_000, 241_000].map(|now| limit(&patience, 7, now)), [5000, 5000, 7812, 15_625]);
        assert_eq!([481_000, 541_000, 900_000].map(|now| limit(&patience, 7, now)), [250_000, 500_000, 500_000]);
        patience.released(at(481_000), NodeId(7));
        assert_eq!(limit(&patience, 7, 481_000), 125_000, "from what it had regained");
    }

    /// [3.6.10] However often it was released, it regains all of it in a quarter of an hour.
    #[test]
    fn halvings_have_an_end_and_a_usual_limit_below_the_shortest_stays() {
        let mut patience = Patience::new();
        assert_eq!((0..1000).filter(|_| patience.released(at(0), NodeId(7))).count(), 1);
        assert_eq!(limit(&patience, 7, 0), 5000);
        assert_eq!(limit(&patience, 7, 840_000), 500_000);
        assert_eq!(patience.limit(at(0), NodeId(7), Duration::from_millis(60_000)).as_millis(), 5);
        assert_eq!(patience.limit(at(0), NodeId(7), Duration::from_millis(3)).as_millis(), 3);
    }

    #[test]
    fn one_follower_is_reported_once_a_second_at_most() {
        let mut patience = Patience::new();
        let reported = [0, 10, 999, 1000, 1500, 2000].map(|now| patience.released(at(now), NodeId(7)));
        assert_eq!(reported, [true, false, false, true, false, true]);
        assert!(patience.released(at(2000), NodeId(8)), "another one");
    }

    /// [1.2.2]
    #[test]
    fn it_remembers_no_more_nodes_than_there_can_be_peers() {
        let mut patience = Patience::new();
        assert!((1..=33).all(|node| patience.released(at(u64::from(node)), NodeId(node))));
        assert_eq!(patience.known.len(), 32);
        assert_eq!(
            [1, 2, 33].map(|node| limit(&patience, node, 40)),
            [500_000, 250_000, 250_000],
            "the oldest is forgotten"
        );
    }
}
