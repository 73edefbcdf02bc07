//! `ssyncp sim`: whole clusters out of numbers, with every fault that there is, and a verdict.
//!
//! ```text
//!   seeds ──▶ threads, each a world at a time ──▶ batch ──▶ violations, each with the line that runs it again
//!                                                     └──▶ what occurred in how many of the seeds
//! ```

#[cfg(feature = "breakages")]
mod breakages;
mod report;

use super::output::{complain, print};
use super::{EXIT_NO, EXIT_USAGE};
use crate::daemon::settings::{Group, Node, Profile, Settings};
use crate::engine;
use crate::sim::{self, Batch, Outcome};
use crate::wire::FRAME_LEN_MIN;
use indicatif::{ProgressBar, ProgressStyle};
use report::Report;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

/// What `ssyncp sim` can be asked.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  ssyncp sim --seeds 10000\n  ssyncp sim --seed 7 --trace\n  ssyncp sim -c /etc/ssyncp/ssyncp.toml\n\n\
    A seed is a world: nodes, clocks, a network, kernels, traffic and faults. The same seed is the same world always.\n\
    Exit status: 1 if a promise was broken, or if something that has to occur did so in fewer than one of a hundred\n\
    seeds (judged from 200 seeds on)."
)]
pub(super) struct Options {
    /// So many seeds.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    seeds: u64,
    /// Begin with this seed.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    first: u64,
    /// This seed only.
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// Tell its story, a line for each change of state.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Worlds at a time [default: one for each processor].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Worlds with the settings of a group of this configuration.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Which group of it (its sync id), if there are several.
    #[arg(long, value_name = "ID", requires = "config")]
    group: Option<u8>,
    /// Print JSON (docs/schemas/sim.json; with --breakages docs/schemas/breakages.json).
    #[arg(long, conflicts_with = "trace")]
    json: bool,
    /// Break this rule on purpose; an unknown name shows them all.
    #[cfg(feature = "breakages")]
    #[arg(long = "break", value_name = "NAME", conflicts_with = "breakages", value_parser = breakages::named)]
    breakage: Option<engine::breakage::Breakage>,
    /// Break each rule that can be broken, and see after how many seeds it is found out (at most 1000 each).
    #[cfg(feature = "breakages")]
    #[arg(long, conflicts_with_all = ["seed", "config"])]
    breakages: bool,
}

pub(super) fn run(options: &Options) -> ExitCode {
    let base = match options.config.is_some().then(|| options.base()).transpose() {
        Ok(base) => base,
        Err(problem) => {
            complain(&problem);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let worlds = Worlds { base, options };
    #[cfg(feature = "breakages")]
    if options.breakages {
        return breakages::run(&worlds);
    }
    match options.seed {
        Some(seed) if options.trace => story(&worlds, seed),
        Some(seed) => batch(&worlds, seed, 1),
        None => batch(&worlds, options.first, options.seeds),
    }
}

impl Options {
    /// What the engine of the operator's group is told.
    fn base(&self) -> Result<engine::Config, String> {
        let file = self.config.as_deref().unwrap_or(std::path::Path::new(""));
        let Settings { node, groups, .. } = Settings::load(file).map_err(|problems| problems.to_string())?;
        let wanted = |group: &&Group| self.group.is_none_or(|sync_id| group.sync_id == sync_id);
        match groups.iter().filter(wanted).collect::<Vec<_>>().as_slice() {
            [group] => group_base(group, &node),
            [] => Err(format!("{}: there is no such group", file.display())),
            _ => Err(format!("{}: has several groups; name one with --group", file.display())),
        }
    }

    fn jobs(&self) -> u64 {
        let cores = || thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
        self.jobs.map_or_else(cores, u64::from)
    }

    #[cfg(feature = "breakages")]
    fn breakage(&self) -> Option<engine::breakage::Breakage> {
        self.breakage
    }

    #[cfg(not(feature = "breakages"))]
    #[allow(clippy::unused_self, reason = "with the feature the answer depends on it")]
    fn breakage(&self) -> Option<engine::breakage::Breakage> {
        None
    }

    /// The line that runs a seed again.
    fn again(&self, seed: u64) -> String {
        let mut line = format!("ssyncp sim --seed {seed} --trace");
        if let Some(file) = &self.config {
            line += &format!(" -c {}", file.display());
        }
        if let Some(sync_id) = self.group {
            line += &format!(" --group {sync_id}");
        }
        #[cfg(feature = "breakages")]
        if let Some(breakage) = self.breakage {
            line += &format!(" --break {}", breakage.name());
        }
        line
    }
}

fn group_base(group: &Group, node: &Node) -> Result<engine::Config, String> {
    if group.profile == Profile::Classic {
        return Err(format!(
            "group {}: the classic profile proves nothing, so nothing is there to be tried",
            group.sync_id
        ));
    }
    Ok(group.engine_config(node, group.frame_len.unwrap_or(FRAME_LEN_MIN), 1, 1))
}

/// Which world each seed is.
struct Worlds<'a> {
    base: Option<engine::Config>,
    options: &'a Options,
}

impl Worlds<'_> {
    fn of_seed(&self, seed: u64, breakage: Option<engine::breakage::Breakage>) -> sim::Options {
        let mut world = match &self.base {
            Some(base) => sim::Options::with_base(seed, base.clone()),
            None => sim::Options::of_seed(seed),
        };
        world.breakage = breakage;
        world
    }

    /// Whether nothing is found in a seed when no rule is broken.
    #[cfg(feature = "breakages")]
    fn is_clean(&self, seed: u64) -> bool {
        sim::attempt(seed, &self.of_seed(seed, None), false).violation.is_none()
    }

    /// Runs so many seeds on all threads and tells `seen` of each, on its thread, in about the order of their numbers. Behind
    /// a seed for which that says true none is begun; all below it are run.
    fn each<T: Default + Send>(
        &self,
        seeds: std::ops::Range<u64>,
        breakage: Option<engine::breakage::Breakage>,
        seen: impl Fn(&mut T, u64, usize, Outcome) -> bool + Sync,
    ) -> Vec<T> {
        let (next, end) = (AtomicU64::new(seeds.start), AtomicU64::new(seeds.end));
        let work = || {
            let mut own = T::default();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= end.load(Ordering::Relaxed) {
                    return own;
                }
                let world = self.of_seed(seed, breakage);
                if seen(&mut own, seed, world.nodes, sim::attempt(seed, &world, false)) {
                    end.fetch_min(seed + 1, Ordering::Relaxed);
                }
            }
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..self.options.jobs()).map(|_| scope.spawn(work)).collect();
            // A thread that panicked has been told of on standard error already, and what it did not count shows as a
            // smaller number of seeds.
            threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
        })
    }
}

/// Runs a row of seeds and says what came of it.
fn batch(worlds: &Worlds<'_>, first: u64, seeds: u64) -> ExitCode {
    let started = Instant::now();
    let bar = bar(seeds);
    let parts = worlds.each(
        first..first.saturating_add(seeds),
        worlds.options.breakage(),
        |batch: &mut Batch, seed, nodes, outcome| {
            batch.add(seed, nodes, outcome);
            bar.inc(1);
            false
        },
    );
    bar.finish_and_clear();
    let whole = parts.into_iter().reduce(|mut one, other| {
        one.merge(other);
        one
    });
    let batch = whole.unwrap_or_default();
    let again = |seed| worlds.options.again(seed);
    let report = Report::new(&batch, first, worlds.options.jobs(), started.elapsed().as_secs_f64(), again);
    let printed = print(&if worlds.options.json { report.json() } else { report.words() });
    if report.passed { printed } else { ExitCode::from(EXIT_NO) }
}

/// Tells the story of one seed.
fn story(worlds: &Worlds<'_>, seed: u64) -> ExitCode {
    let world = worlds.of_seed(seed, worlds.options.breakage());
    let outcome = sim::attempt(seed, &world, true);
    let mut text: String = outcome.lines.iter().map(|line| format!("{line}\n")).collect();
    text += &format!(
        "seed {seed}: {} nodes, {} operations, digest {:016x}\n",
        world.nodes, outcome.operations, outcome.digest
    );
    if let Some(violation) = &outcome.violation {
        text += &format!("VIOLATION {}: {}\n", violation.rule, violation.text);
    }
    let printed = print(&text);
    if outcome.violation.is_none() { printed } else { ExitCode::from(EXIT_NO) }
}

/// Standard error, and nothing at all if that is no terminal.
fn bar(seeds: u64) -> ProgressBar {
    let bar = ProgressBar::new(seeds);
    match ProgressStyle::with_template("{wide_bar} {pos} of {len} seeds, {per_sec}, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
