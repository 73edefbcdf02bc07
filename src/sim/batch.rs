//! Many seeds and their verdict: nothing unsafe in any of them, and enough happened in them to mean something.
//!
//! ```text
//!   seed, outcome ──add──▶ Batch ◀──merge── another one, from another thread
//!                            └──▶ violations, medians, and of each event the share of the seeds in which it occurred
//! ```

use super::coverage::Coverage;
use super::oracle::{Attacks, Violation};
use super::world::{Outcome, run};
use super::{Options, REQUIRED};
use crate::time::Instant;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Seeds from which on it is judged whether enough has happened: in fewer, what is rare may be missing by chance.
pub const JUDGED_FROM: u64 = 200;
/// Violations that are kept with their text; all are counted.
const VIOLATIONS_MAX: usize = 1000;

/// Seeds of a hundred in which each required thing must occur at the least.
const SHARE_MIN_PERCENT: u64 = 1;

/// A seed that broke a promise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// The seed.
    pub seed: u64,
    /// The promise.
    pub violation: Violation,
}

/// How often something occurred.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Occurrence {
    /// Seeds in which it did.
    pub seeds: u64,
    /// Times in all of them.
    pub times: u64,
}

/// What is known of a row of seeds.
#[derive(Clone, Default, Debug)]
pub struct Batch {
    seeds: u64,
    found: u64,
    violations: Vec<Found>,
    operations: Vec<u64>,
    nodes: Vec<u64>,
    occurrences: BTreeMap<&'static str, Occurrence>,
    attacks: Attacks,
}

impl Batch {
    /// Takes in what became of a seed.
    pub fn add(&mut self, seed: u64, nodes: usize, outcome: Outcome) {
        self.seeds += 1;
        self.operations.push(outcome.operations);
        self.nodes.push(nodes as u64);
        self.attacks.merge(&outcome.attacks);
        for (name, times) in outcome.coverage.iter().filter(|(_, times)| *times > 0) {
            let occurrence = self.occurrences.entry(name).or_default();
            occurrence.seeds += 1;
            occurrence.times += times;
        }
        if let Some(violation) = outcome.violation {
            self.found += 1;
            if self.violations.len() < VIOLATIONS_MAX {
                self.violations.push(Found { seed, violation });
            }
        }
    }

    /// Takes in other seeds.
    pub fn merge(&mut self, other: Batch) {
        self.seeds += other.seeds;
        self.found += other.found;
        self.violations.extend(other.violations);
        self.violations.sort_by_key(|found| found.seed);
        self.violations.truncate(VIOLATIONS_MAX);
        self.operations.extend(other.operations);
        self.nodes.extend(other.nodes);
        self.attacks.merge(&other.attacks);
        for (name, more) in other.occurrences {
            let occurrence = self.occurrences.entry(name).or_default();
            occurrence.seeds += more.seeds;
            occurrence.times += more.times;
        }
    }

    /// Seeds that were run.
    pub fn seeds(&self) -> u64 {
        self.seeds
    }

    /// Seeds that broke a promise.
    pub fn found(&self) -> u64 {
        self.found
    }

    /// The lowest of them, at most a thousand.
    pub fn violations(&self) -> &[Found] {
        &self.violations
    }

    /// What attackers did in all of them.
    pub fn attacks(&self) -> &Attacks {
        &self.attacks
    }

    /// Operations of the median seed; 0 without seeds.
    pub fn operations_median(&self) -> u64 {
        median(&self.operations)
    }

    /// Nodes of the median seed; 0 without seeds.
    pub fn nodes_median(&self) -> u64 {
        median(&self.nodes)
    }

    /// Everything that occurred or had to, by name; and whether it had to.
    pub fn coverage(&self) -> impl Iterator<Item = (&'static str, Occurrence, bool)> + '_ {
        let never = REQUIRED.iter().filter(|name| !self.occurrences.contains_key(*name));
        let mut rows: BTreeMap<&'static str, Occurrence> = never.map(|name| (*name, Occurrence::default())).collect();
        rows.extend(self.occurrences.iter().map(|(name, occurrence)| (*name, *occurrence)));
        rows.into_iter().map(|(name, occurrence)| (name, occurrence, REQUIRED.contains(&name)))
    }

    /// Whether there are seeds enough to judge what they show.
    pub fn is_judged(&self) -> bool {
        self.seeds >= JUDGED_FROM
    }

    /// What had to occur and did so in fewer than one seed of a hundred; nothing while that is not judged.
    pub fn missing(&self) -> Vec<&'static str> {
        let rare = |occurrence: &Occurrence| occurrence.seeds * 100 < self.seeds * SHARE_MIN_PERCENT;
        let missing = self.coverage().filter(|(_, occurrence, required)| *required && rare(occurrence));
        missing.filter(|_| self.is_judged()).map(|(name, ..)| name).collect()
    }

    /// No promise was broken, and enough happened.
    pub fn is_passed(&self) -> bool {
        self.found == 0 && self.missing().is_empty()
    }
}

/// Runs a seed; a panic in it is a broken promise like any other, and does not end the batch.
pub fn attempt(seed: u64, options: &Options, keep_lines: bool) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| run(seed, options, keep_lines))).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned();
        let violation = Some(Violation { rule: "no-panic", text, at: Instant::ZERO });
        Outcome {
            violation,
            operations: 0,
            coverage: Coverage::default(),
            digest: 0,
            lines: Vec::new(),
            attacks: Attacks::default(),
        }
    })
}

/// The lower one of the two in the middle of an even number.
fn median(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    let middle = values.len().saturating_sub(1) / 2;
    if values.is_empty() { 0 } else { *sorted.select_nth_unstable(middle).1 }
}

#[cfg(test)]
mod tests {
    use super::super::coverage::Seen;
    use super::*;

    fn outcome(operations: u64, seen: &[&'static str], violation: bool) -> Outcome {
        let mut coverage = Coverage::default();
        seen.iter().for_each(|name| coverage.note(Seen(name)));
        let violation = violation.then(|| Violation { rule: "equal", text: "not".into(), at: Instant::ZERO });
        Outcome { violation, operations, coverage, digest: 0, lines: Vec::new(), attacks: Attacks::default() }
    }

    fn occurrence(batch: &Batch, name: &str) -> (u64, u64) {
        let row = batch.coverage().find(|(known, ..)| *known == name);
        row.map_or((0, 0), |(_, occurrence, _)| (occurrence.seeds, occurrence.times))
    }

    #[test]
    fn seeds_are_counted_in_whatever_order_threads_bring_them() {
        let (mut one, mut other) = (Batch::default(), Batch::default());
        other.add(3, 4, outcome(10, &["loss", "loss", "cut"], true));
        one.add(2, 2, outcome(30, &["loss"], true));
        other.add(1, 3, outcome(20, &[], false));
        one.merge(other);
        assert_eq!((one.seeds(), one.found()), (3, 2));
        assert_eq!(one.violations().iter().map(|found| found.seed).collect::<Vec<_>>(), [2, 3]);
        assert_eq!((one.operations_median(), one.nodes_median()), (20, 3));
        assert_eq!(occurrence(&one, "loss"), (2, 3));
        assert_eq!(occurrence(&one, "cut"), (1, 1));
        assert!(!one.is_passed());
        assert_eq!(Batch::default().operations_median(), 0);
    }

    #[test]
    fn what_had_to_occur_and_did_in_fewer_than_one_of_a_hundred_fails_the_batch_once_it_can_be_judged() {
        let all: Vec<&'static str> = REQUIRED.to_vec();
        let (first, rest) = all.split_first().unwrap();
        let mut batch = Batch::default();
        for seed in 0..199 {
            batch.add(seed, 3, outcome(1, rest, false));
        }
        assert!(!batch.is_judged() && batch.is_passed(), "too few to judge");
        batch.add(199, 3, outcome(1, &all, false));
        assert!(batch.is_judged());
        assert_eq!(batch.missing(), [*first], "one of two hundred is too rarely");
        assert!(!batch.is_passed());
        batch.add(200, 3, outcome(1, &all, false));
        assert_eq!(batch.missing(), [*first], "two of 201 are fewer than one of a hundred");
        let mut enough = Batch::default();
        (0..200).for_each(|seed| enough.add(seed, 3, outcome(1, if seed < 2 { &all } else { rest }, false)));
        assert_eq!(enough.missing(), Vec::<&str>::new());
        assert!(enough.is_passed());
    }
}
