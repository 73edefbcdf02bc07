//! How much is done for senders that nobody knows (docs/protocol.md 3.4.9). Each try derives a key, to see whether a stranger
//! has the secret; so tries are rationed, and by source address, so that one who floods does not spend what another needs.
//!
//! ```text
//!   source ─ hash, with a seed ─▶ its share, one of 64     a try in 8 ms ─┐ spent
//!                                                                         ▼
//!                                 the pool, for all        24 a ms, at most 48 at once ─ spent ─▶ Untried
//! ```
//!
//! A share is there for whoever falls into it, whatever all others do; the pool makes sure that a source which is alone is
//! tried often, and that one whose address is spoofed still gets through. All of it together is 32 tries a millisecond.

use super::splitmix64;
use crate::time::{Duration, Instant};
use std::net::IpAddr;

/// Shares: two sources meet in one with a chance of 1 in as many.
const SHARES: usize = 64;
/// Time for which a share pays one try: all of them together 8 a millisecond. It holds one.
const SHARE_COST: Duration = Duration::from_millis(8);
/// The same of the pool: 24 a millisecond.
const POOL_COST: Duration = Duration::from_nanos(41_667);
/// Tries that it holds.
const POOL_AT_ONCE: u32 = 48;

/// The budget for strangers: each part of it one point in time, as the generic cell rate algorithm keeps it.
#[derive(Debug)]
pub(super) struct Strangers {
    /// Who meets in one share at this node does not at another.
    seed: u64,
    shares: [PaidUntil; SHARES],
    pool: PaidUntil,
}

impl Strangers {
    pub(super) fn new(seed: u64) -> Self {
        Strangers { seed, shares: [PaidUntil::default(); SHARES], pool: PaidUntil::default() }
    }

    /// Whether one more frame from there may be tried now; it is paid for then.
    pub(super) fn may_try(&mut self, now: Instant, source: IpAddr) -> bool {
        let share = self.share_of(source);
        self.shares[share].take(now, SHARE_COST, 1) || self.pool.take(now, POOL_COST, POOL_AT_ONCE)
    }

    fn share_of(&self, source: IpAddr) -> usize {
        let bits = match source {
            IpAddr::V4(address) => u128::from(address.to_bits()),
            IpAddr::V6(address) => address.to_bits(),
        };
        let mut state = self.seed ^ (bits >> 64) as u64;
        let mut state = splitmix64(&mut state) ^ bits as u64;
        splitmix64(&mut state) as usize % SHARES
    }
}

/// A budget: up to when its tries are paid for.
#[derive(Clone, Copy, Default, Debug)]
struct PaidUntil(Instant);

impl PaidUntil {
    /// Takes one try of this cost, of so many that gather.
    fn take(&mut self, now: Instant, cost: Duration, at_once: u32) -> bool {
        let until = self.0.max(now) + cost;
        if until.since(now) > cost * at_once {
            return false;
        }
        self.0 = until;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn at(microseconds: u64) -> Instant {
        Instant::from_nanos(1_000_000_000 + microseconds * 1000)
    }

    /// The `number`th address of a network.
    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from(0x0a00_0000 + number).into()
    }

    /// How many of so many tries are granted, of which the nth comes from there.
    fn granted(strangers: &mut Strangers, now: Instant, tries: u32, from: impl Fn(u32) -> IpAddr) -> usize {
        (0..tries).filter(|nth| strangers.may_try(now, from(*nth))).count()
    }

    /// [3.4.9] One source: its share and the pool; then what has come in since.
    #[test]
    fn one_source_gets_its_share_and_the_pool_and_no_more() {
        let mut strangers = Strangers::new(7);
        let alone = |_| address(1);
        assert_eq!(granted(&mut strangers, at(0), 1000, alone), 49);
        assert_eq!(granted(&mut strangers, at(1_001), 1000, alone), 24);
        assert_eq!(granted(&mut strangers, at(9_001), 1000, alone), 49, "it does not gather for ever");
    }

    /// [3.4.9] Whatever one source does, another is tried at once, and 125 times a second.
    #[test]
    fn a_source_that_floods_takes_nothing_of_anothers_share() {
        let mut strangers = Strangers::new(7);
        let mut tried = 0;
        for turn in 0..1000 {
            granted(&mut strangers, at(turn * 1000), 1000, |_| address(1));
            tried += granted(&mut strangers, at(turn * 1000), 1, |_| address(2));
        }
        assert_eq!(tried, 125);
    }

    /// [3.4.9] Many addresses, as many as one likes: 112 at once, and 32 a millisecond in the long run.
    #[test]
    fn many_sources_meet_the_total() {
        let mut strangers = Strangers::new(7);
        let anybody = address;
        assert_eq!(granted(&mut strangers, at(0), 10_000, anybody), 112);
        assert_eq!(granted(&mut strangers, at(0), 10_000, anybody), 0);
        let in_a_second: usize = (1..=1000).map(|ms| granted(&mut strangers, at(ms * 1000), 10_000, anybody)).sum();
        assert_eq!(in_a_second, 24_000 - 1 + 64 * 125);
    }

    /// [3.4.9] Addresses of either family spread, and at another node in another way.
    #[test]
    fn sources_spread_over_all_shares_as_the_seed_says() {
        let used = |from: &dyn Fn(u32) -> IpAddr| {
            let strangers = Strangers::new(7);
            let mut counts = [0; SHARES];
            (0..6400).for_each(|nth| counts[strangers.share_of(from(nth))] += 1);
            counts
        };
        let high = |nth: u32| Ipv6Addr::from_bits(u128::from(nth) << 64 | 1).into();
        let low = |nth: u32| Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(nth)).into();
        let ways: [&dyn Fn(u32) -> IpAddr; 3] = [&address, &high, &low];
        for from in ways {
            // 100 are expected, and 10 more or fewer are one standard deviation.
            assert!(used(from).iter().all(|count| (60..140).contains(count)), "{:?}", used(from));
        }
        let (one, other) = (Strangers::new(7), Strangers::new(8));
        let alike = (0..6400).filter(|nth| one.share_of(address(*nth)) == other.share_of(address(*nth))).count();
        assert!((60..140).contains(&alike), "{alike} of 6400");
    }
}
