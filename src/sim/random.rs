//! All the randomness of a world, from its seed. No floating point: its last bits are not the same everywhere.

use crate::time::Duration;

/// SplitMix64 (Steele, Lea and Flood 2014).
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 if that is 0.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.next() % end }
    }

    /// From `low` to `high`, both included.
    pub(super) fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True so many times in a million.
    pub(super) fn per_million(&mut self, share: u32) -> bool {
        share > 0 && self.below(1_000_000) < u64::from(share)
    }

    /// True in one of `cases` cases.
    pub(super) fn one_in(&mut self, cases: u64) -> bool {
        self.below(cases) == 0
    }

    /// One of several.
    pub(super) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// From `low` to `high`, both included, and each doubling as likely as any other.
    pub(super) fn doubling(&mut self, low: u64, high: u64) -> u64 {
        let steps = u64::from((high / low.max(1)).max(1).ilog2());
        let floor = low << self.below(steps + 1);
        self.within(floor, (floor * 2).min(high).max(floor))
    }

    /// A time from `low` to `high`.
    pub(super) fn time(&mut self, low: Duration, high: Duration) -> Duration {
        Duration::from_nanos(self.within(low.as_nanos() as u64, high.max(low).as_nanos() as u64))
    }

    /// A time around `mean`, from nothing to twice as long.
    pub(super) fn around(&mut self, mean: Duration) -> Duration {
        self.time(Duration::from_nanos(1), mean * 2)
    }

    /// Another stream of numbers, that does not disturb this one.
    pub(super) fn fork(&mut self) -> Random {
        Random(self.next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_the_published_one() {
        let mut random = Random::new(0);
        assert_eq!([random.next(), random.next()], [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]);
    }

    #[test]
    fn bounds_are_kept_and_reached() {
        let mut random = Random::new(7);
        let drawn: Vec<u64> = (0..1000).map(|_| random.within(3, 5)).collect();
        assert_eq!((drawn.iter().min(), drawn.iter().max()), (Some(&3), Some(&5)));
        let doubled: Vec<u64> = (0..4000).map(|_| random.doubling(32, 2000)).collect();
        assert!(doubled.iter().all(|number| (32..=2000).contains(number)));
        assert!(doubled.iter().filter(|number| **number < 64).count() > 400, "small ones are as likely as great ones");
        assert!(!(0..1000).any(|_| random.per_million(0)));
        assert!((0..1000).all(|_| random.per_million(1_000_000)));
        assert_eq!(random.below(0), 0);
    }
}
