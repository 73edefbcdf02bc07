//! What a world is made of. Swarmed from the seed: each seed has some faults and not others, so that rare meetings happen.

use super::random::Random;
use crate::engine::Config;
use crate::engine::breakage::Breakage;
use crate::time::Duration;

/// One world's make.
#[derive(Clone, Debug)]
pub struct Options {
    /// 2 to 8.
    pub nodes: usize,
    /// Time with faults.
    pub safety: Duration,
    /// Time within which everything must be equal and proven, once the faults have stopped.
    pub liveness: Duration,
    /// The rule that is broken on purpose.
    pub breakage: Option<Breakage>,
}

impl Options {
    /// The world of a seed.
    pub fn of_seed(seed: u64) -> Options {
        let mut random = Random::new(seed ^ 0x6f70_7469_6f6e_7321);
        Options {
            nodes: random.within(2, 5) as usize,
            safety: Duration::from_secs(10),
            liveness: Duration::from_secs(30),
            breakage: None,
        }
    }

    /// The world of a seed, with an operator's own settings.
    pub fn with_base(seed: u64, base: Config) -> Options {
        let _ = base;
        Options::of_seed(seed)
    }
}
