//! Flat lines, or it has failed: each line of the verdict is a figure and its limit.
//!
//! ```text
//!   memory        │ warm-up │≈≈≈≈≈≈≈≈≈≈≈≈≈≈≈│  each life of a daemon by itself: what the robust slope adds from the end of
//!                 start                 killed  the warm-up to the life's end
//!   descriptors,    ▲   ▲   ▲    ▲   ▲    ▲     at quiet moments, at rest: the last of a life equals the first
//!   threads
//!   latency       │ first third │    │ last third │  medians
//!   tables          ▲   ▲   ▲    ▲   ▲    ▲     at quiet moments: equal by content and by digest
//! ```

use super::gauge::Sample;
use super::latency::Probe;
use super::report::{Claim, FaultRow, LifeRow, Line, Quiet, Standing};
use super::robust::{median, slope, thirds};
use std::collections::BTreeMap;

/// What a daemon's memory may grow by in one life after its warm-up, in KiB.
pub const GROWTH_MAX_KIB: f64 = 1024.0;
/// Lives that are judged: those of so much of the whole run, and of so many seconds. (A third of each is its warm-up.)
pub const LIFE_MIN: f64 = 0.25;
pub const LIFE_MIN_S: f64 = 15.0;
/// Lives are compared at this age, in seconds; and how many times as large the later ones may be.
pub const AGE_S: (f64, f64) = (20.0, 40.0);
pub const HEAVIER_MAX: f64 = 1.5;
/// Seconds from a fault's end until the pair is proven equal again.
pub const IN_SYNC_MAX_S: f64 = 5.0;
/// Seconds for which a pair may say that it is in sync while its kernels differ: what is on its way to the kernel.
pub const CLAIM_MAX_S: f64 = 3.0;
/// The median delay of the last third of a run: so many times that of the first, and so many milliseconds.
pub const SLOWER_MAX: (f64, f64) = (2.0, 5.0);

/// Events that tell of a loss.
pub const LOSSES: [&str; 2] = ["MergeGivenUp", "TableFull"];

/// Everything that was seen.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Looks at the processes.
    pub samples: Vec<Sample>,
    /// Delays.
    pub probes: Vec<Probe>,
    /// Faults, and what came of them.
    pub faults: Vec<FaultRow>,
    /// Looks for differences that last.
    pub claims: Vec<Claim>,
    /// Quiet moments.
    pub quiets: Vec<Quiet>,
    /// Warnings and errors of the logs, by event.
    pub told: BTreeMap<String, u64>,
    /// Lines of the logs that say ERROR, and are not what a fault must say.
    pub errors: Vec<String>,
    /// Daemons that ended without having been killed.
    pub ended: u64,
    /// Connections begun.
    pub begun: u64,
}

impl Record {
    /// The verdict, line by line.
    pub fn judge(&self) -> Vec<Line> {
        let quiets = |sum: fn(&Quiet) -> u64| Some(self.quiets.iter().map(sum).sum::<u64>() as f64);
        let lost = self.probes.iter().filter(|probe| probe.delay_ms.is_none()).count() as f64;
        let mut lines = vec![
            Line::at_least("quiet moments", Some(self.quiets.len() as f64), 2.0, ""),
            Line::at_most("entries that differ at quiet moments", quiets(Quiet::different), 0.0, ""),
            Line::at_most(
                "quiet moments with unequal digests",
                quiets(|quiet| u64::from(!quiet.digests_equal)),
                0.0,
                "",
            ),
            Line::at_most("lasting connections lost", quiets(|quiet| quiet.lasting_missing), 0.0, ""),
            Line::at_most("in sync claimed while kernels differ", self.longest_claim(), CLAIM_MAX_S, "s"),
            Line::at_most("differences that last while in sync", self.false_claims(), 0.0, ""),
            Line::at_least("faults", Some(self.faults.len() as f64), 1.0, ""),
            Line::at_most("in sync after a fault, slowest", self.slowest(), IN_SYNC_MAX_S, "s"),
        ];
        for (machine, letter) in ["a", "b"].into_iter().enumerate() {
            let lives = || self.lives().into_iter().filter(move |life| life.machine == letter);
            let growth = lives().filter_map(|life| life.growth_kib).max_by(f64::total_cmp);
            let change = |of: fn(&Standing) -> u64| Some(self.change(machine, of));
            let heavier =
                self.heavier(machine).map(|times| (format!("memory of {letter}, later lives over earlier"), times));
            lines.extend(heavier.map(|(name, times)| Line::at_most(&name, Some(times), HEAVIER_MAX, "x")));
            lines.extend([
                Line::at_most(&format!("memory of {letter}, growth in a life"), growth, GROWTH_MAX_KIB, "KiB"),
                Line::at_most(
                    &format!("descriptors of {letter}, change in a life"),
                    change(|it| it.descriptors),
                    0.0,
                    "",
                ),
                Line::at_most(&format!("threads of {letter}, change in a life"), change(|it| it.threads), 0.0, ""),
            ]);
        }
        let (first, last) = self.delays().unzip();
        let losses = LOSSES.iter().filter_map(|event| self.told.get(*event)).sum::<u64>() as f64;
        let limit = first.unwrap_or(0.0) * SLOWER_MAX.0 + SLOWER_MAX.1;
        lines.extend([
            Line::at_most("delay, median of the last third", last, limit, "ms"),
            Line::at_most("probes lost in calm", Some(lost), 0.0, ""),
            Line::at_most("losses that the daemons told of", Some(losses), 0.0, ""),
            Line::at_most("unexpected errors in the logs", Some(self.errors.len() as f64), 0.0, ""),
            Line::at_most("daemons that ended by themselves", Some(self.ended as f64), 0.0, ""),
        ]);
        lines
    }

    /// Each life of each daemon.
    pub fn lives(&self) -> Vec<LifeRow> {
        let mut names: Vec<(usize, u32)> = self.samples.iter().map(|sample| (sample.machine, sample.life)).collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter().map(|(machine, life)| self.life(machine, life)).collect()
    }

    fn life(&self, machine: usize, life: u32) -> LifeRow {
        let of_it = self.samples.iter().filter(|sample| (sample.machine, sample.life) == (machine, life));
        let points: Vec<(f64, f64)> = of_it.map(|sample| (sample.at_s, sample.memory_kib as f64)).collect();
        let (begin, end) = (points.first().map_or(0.0, |point| point.0), points.last().map_or(0.0, |point| point.0));
        LifeRow {
            machine: if machine == 0 { "a" } else { "b" }.into(),
            life,
            begin_s: begin,
            end_s: end,
            memory_kib: points.last().map_or(0.0, |point| point.1),
            growth_kib: growth(&points).filter(|_| end - begin >= self.seconds() * LIFE_MIN),
        }
    }

    /// Seconds from the first sample to the last.
    fn seconds(&self) -> f64 {
        let ends = self.samples.first().zip(self.samples.last());
        ends.map_or(0.0, |(first, last)| last.at_s - first.at_s)
    }

    /// How many times as much memory the last third of the lives has as the first third, at the same age; `None` if fewer than
    /// two lives became so old.
    fn heavier(&self, machine: usize) -> Option<f64> {
        let mut lives: BTreeMap<u32, Vec<&Sample>> = BTreeMap::new();
        for sample in self.samples.iter().filter(|sample| sample.machine == machine) {
            lives.entry(sample.life).or_default().push(sample);
        }
        let at_age = |samples: &Vec<&Sample>| {
            let (begin, end) = (samples.first()?.at_s, samples.last()?.at_s);
            let of_age = samples.iter().filter(|it| (AGE_S.0..=AGE_S.1).contains(&(it.at_s - begin)));
            median(of_age.map(|it| it.memory_kib as f64)).filter(|_| end - begin >= AGE_S.1)
        };
        let old: Vec<f64> = lives.values().filter_map(at_age).collect();
        let third = old.len().div_ceil(3);
        let (first, last) = (median(old.iter().take(third).copied())?, median(old.iter().rev().take(third).copied())?);
        (old.len() > 1).then_some(last / first)
    }

    /// Differences that lasted under a claim; `None` if nobody ever looked.
    fn false_claims(&self) -> Option<f64> {
        let lasting = self.claims.iter().map(|claim| claim.lasting.len()).sum::<usize>();
        (!self.claims.is_empty()).then_some(lasting as f64)
    }

    /// The longest time for which a quiet pair said that it was in sync and its kernels differed; `None` if they never became
    /// equal.
    fn longest_claim(&self) -> Option<f64> {
        let claims = self.quiets.iter().map(|quiet| Some((quiet.equal_s? - quiet.in_sync_s?).max(0.0)));
        claims.collect::<Option<Vec<f64>>>()?.into_iter().max_by(f64::total_cmp)
    }

    /// `None` if a fault was never recovered from.
    fn slowest(&self) -> Option<f64> {
        let times = self.faults.iter().map(|fault| fault.in_sync_s);
        times.collect::<Option<Vec<f64>>>()?.into_iter().max_by(f64::total_cmp)
    }

    /// How much the last quiet moment of a life differs from the first, at most.
    fn change(&self, machine: usize, of: fn(&Standing) -> u64) -> f64 {
        let seen = || self.quiets.iter().filter_map(move |quiet| quiet.standings.get(machine)?.as_ref());
        let mut worst = 0;
        for last in seen() {
            if let Some(first) = seen().find(|first| first.life == last.life) {
                worst = worst.max(of(last).abs_diff(of(first)));
            }
        }
        worst as f64
    }

    /// Median delays of the first and of the last third.
    fn delays(&self) -> Option<(f64, f64)> {
        let arrived = self.probes.iter().filter_map(|probe| Some((probe.at_s, probe.delay_ms?)));
        thirds(&arrived.collect::<Vec<_>>())
    }
}

/// What a life's memory (second, KiB) grows by after its warm-up, by its robust slope; `None` if it is too short to tell.
pub fn growth(points: &[(f64, f64)]) -> Option<f64> {
    let (begin, end) = (points.first()?.0, points.last()?.0);
    if end - begin < LIFE_MIN_S {
        return None;
    }
    let warm = begin + (end - begin) / 3.0;
    let judged: Vec<(f64, f64)> = points.iter().copied().filter(|point| point.0 >= warm).collect();
    Some(slope(&judged)? * (end - warm))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An hour of 40 MiB and noise of up to 512 KiB, and what is added in an hour.
    fn hour(leak_kib: f64) -> Vec<(f64, f64)> {
        let noise = |second: u32| f64::from(second * 7919 % 512);
        (0..3600).map(|at| (f64::from(at), 40_960.0 + noise(at) + leak_kib * f64::from(at) / 3600.0)).collect()
    }

    fn line<'a>(lines: &'a [Line], name: &str) -> &'a Line {
        lines.iter().find(|line| line.name == name).unwrap()
    }

    fn standing(life: u32, descriptors: u64) -> Option<Standing> {
        Some(Standing { life, descriptors, threads: 5, memory_kib: 40_000 })
    }

    fn good_quiet(at_s: f64) -> Quiet {
        Quiet {
            at_s,
            entries: 1000,
            in_sync_s: Some(0.0),
            equal_s: Some(0.1),
            digests_equal: true,
            standings: vec![standing(1, 30), standing(1, 31)],
            ..Quiet::default()
        }
    }

    /// An hour in which nothing is wrong.
    fn good() -> Record {
        let sample = |machine: usize, (at_s, memory): (f64, f64)| Sample {
            at_s,
            machine,
            life: 1,
            memory_kib: memory as u64,
            descriptors: 30,
            threads: 5,
            entries: Some(1000),
            said: String::new(),
        };
        let fault = FaultRow { in_sync_s: Some(0.8), ..FaultRow::default() };
        let delay = |at: u32| Probe { at_s: f64::from(at), delay_ms: Some(f64::from(at % 5) + 1.0) };
        Record {
            samples: (0..2).flat_map(|machine| hour(0.0).into_iter().map(move |it| sample(machine, it))).collect(),
            probes: (0..3600).map(delay).collect(),
            faults: vec![fault],
            claims: vec![Claim::default()],
            quiets: (0..60).map(|minute| good_quiet(f64::from(minute) * 60.0)).collect(),
            begun: 3_600_000,
            ..Record::default()
        }
    }

    /// Names of the lines that fail after something was done to a good hour.
    fn failures(harm: impl FnOnce(&mut Record)) -> Vec<String> {
        let mut record = good();
        harm(&mut record);
        record.judge().into_iter().filter(|line| !line.passed).map(|line| line.name).collect()
    }

    #[test]
    fn noise_is_flat_and_two_mebibytes_an_hour_are_a_leak() {
        let flat = growth(&hour(0.0)).unwrap();
        assert!(flat.abs() < 100.0, "{flat}");
        let leak = growth(&hour(2048.0)).unwrap();
        assert!((1200.0..1500.0).contains(&leak), "{leak}");
    }

    #[test]
    fn what_a_warm_up_adds_is_no_leak() {
        let mut memory = hour(0.0);
        memory.iter_mut().filter(|point| point.0 < 1000.0).for_each(|point| point.1 /= 2.0);
        assert!(growth(&memory).unwrap().abs() < 100.0);
    }

    #[test]
    fn a_life_of_ten_seconds_says_nothing() {
        assert_eq!(growth(&hour(2048.0)[..10]), None);
        assert_eq!(growth(&[]), None);
    }

    #[test]
    fn an_hour_in_which_nothing_is_wrong_passes_every_line() {
        assert_eq!(failures(|_| {}), [""; 0]);
    }

    #[test]
    fn a_leak_of_memory_fails_the_line_of_its_machine() {
        let leak = |record: &mut Record| {
            let of_b = record.samples.iter_mut().filter(|sample| sample.machine == 1);
            of_b.for_each(|sample| sample.memory_kib += (sample.at_s * 0.6) as u64);
        };
        assert_eq!(failures(leak), ["memory of b, growth in a life"]);
    }

    #[test]
    fn a_leak_behind_restarts_fails_too() {
        // Killed after half an hour: 30 MiB an hour in the second life, none in the first.
        let leak = |record: &mut Record| {
            for sample in record.samples.iter_mut().filter(|sample| sample.machine == 0 && sample.at_s >= 1800.0) {
                sample.life = 2;
                sample.memory_kib += ((sample.at_s - 1800.0) * 8.5) as u64;
            }
        };
        assert_eq!(failures(leak), ["memory of a, growth in a life"]);
    }

    #[test]
    fn another_level_after_a_restart_is_no_leak() {
        let restart = |record: &mut Record| {
            for sample in record.samples.iter_mut().filter(|sample| sample.machine == 0 && sample.at_s >= 1800.0) {
                sample.life = 2;
                sample.memory_kib += 4096;
            }
        };
        assert_eq!(failures(restart), [""; 0]);
    }

    #[test]
    fn short_lives_are_compared_at_the_same_age_and_not_by_their_growth() {
        // Killed every minute: each life grows by 6 MiB until it has its table again.
        let killed = |heavier: u64| {
            move |record: &mut Record| {
                for sample in record.samples.iter_mut().filter(|sample| sample.machine == 1 && sample.at_s < 1800.0) {
                    let (life, age) = (sample.at_s as u64 / 60, sample.at_s as u64 % 60);
                    sample.life = life as u32 + 1;
                    sample.memory_kib += age * 100 + life * heavier;
                }
                record.samples.iter_mut().filter(|it| it.machine == 1 && it.at_s >= 1800.0).for_each(|it| it.life = 31);
            }
        };
        assert_eq!(failures(killed(0)), [""; 0]);
        assert_eq!(failures(killed(2000)), ["memory of b, later lives over earlier"]);
    }

    #[test]
    fn one_descriptor_an_hour_fails() {
        let leak = |record: &mut Record| record.quiets[59].standings[0] = standing(1, 31);
        assert_eq!(failures(leak), ["descriptors of a, change in a life"]);
    }

    #[test]
    fn descriptors_of_another_life_are_not_compared() {
        let restart = |record: &mut Record| record.quiets[59].standings[0] = standing(2, 33);
        assert_eq!(failures(restart), [""; 0]);
    }

    #[test]
    fn nobody_to_judge_is_no_success() {
        let empty = |record: &mut Record| *record = Record::default();
        let failed = failures(empty);
        for name in ["quiet moments", "faults", "memory of a, growth in a life", "delay, median of the last third"] {
            assert!(failed.iter().any(|it| it == name), "{name}: {failed:?}");
        }
    }

    #[test]
    fn a_single_thing_gone_wrong_fails_its_line() {
        assert_eq!(failures(|it| it.quiets[7].stale = 1), ["entries that differ at quiet moments"]);
        assert_eq!(failures(|it| it.quiets[7].digests_equal = false), ["quiet moments with unequal digests"]);
        assert_eq!(failures(|it| it.quiets[7].lasting_missing = 1), ["lasting connections lost"]);
        assert_eq!(failures(|it| it.quiets[7].equal_s = Some(3.1)), ["in sync claimed while kernels differ"]);
        assert_eq!(failures(|it| it.quiets[7].equal_s = None), ["in sync claimed while kernels differ"]);
        assert_eq!(failures(|it| it.faults[0].in_sync_s = Some(5.1)), ["in sync after a fault, slowest"]);
        assert_eq!(failures(|it| it.faults[0].in_sync_s = None), ["in sync after a fault, slowest"]);
        assert_eq!(failures(|it| it.probes[9].delay_ms = None), ["probes lost in calm"]);
        assert_eq!(failures(|it| it.errors.push("ERROR".into())), ["unexpected errors in the logs"]);
        assert_eq!(failures(|it| it.claims[0].lasting.push("one".into())), ["differences that last while in sync"]);
        assert_eq!(failures(|it| it.claims.clear()), ["differences that last while in sync"]);
        assert_eq!(failures(|it| it.told.extend([("TableFull".into(), 1)])), ["losses that the daemons told of"]);
        assert_eq!(failures(|it| it.told.extend([("PeerDown".into(), 9)])), [""; 0]);
        assert_eq!(failures(|it| it.ended = 1), ["daemons that ended by themselves"]);
    }

    #[test]
    fn a_delay_that_more_than_doubles_fails() {
        let slower = |by: f64| {
            move |record: &mut Record| {
                let late = record.probes.iter_mut().filter(|probe| probe.at_s > 2000.0);
                late.for_each(|probe| probe.delay_ms = probe.delay_ms.map(|delay| delay + by));
            }
        };
        // The median is 3 ms: 11 ms are just allowed.
        assert_eq!(failures(slower(8.0)), [""; 0]);
        assert_eq!(failures(slower(8.5)), ["delay, median of the last third"]);
        let lines = good().judge();
        assert_eq!((line(&lines, "delay, median of the last third").value, lines.len()), (Some(3.0), 19));
    }
}
