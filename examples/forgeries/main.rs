//! Forged frames by the million, in one process: a sealed pair is told mutated copies of the very frames that its nodes are
//! about to give each other, and believes none of them.
//!
//! ```text
//!   node 1 ── sealed frames ──┬───────────────── held back ─────────────────▶ node 2 ── takes them, as if nothing had been
//!                             └─▶ mutated, checksum made to fit ─ × 1000s ──▶ node 2 ── counts why not; its state is as before
//! ```
//!
//! `cargo run --release --example forgeries -- --frames 1000000000 --json`. Exit status 1 if a forged frame was taken, or
//! anything of a node's state changed, or an honest frame was refused. `tests/forgeries.rs` is the short form.

mod mutate;
mod pair;
pub(crate) mod report;

use clap::Parser;
use mutate::{Dice, KINDS};
use pair::Pair;
use report::Report;
use std::process::ExitCode;
use std::time::Instant;

/// Forged frames in a round: what comes between two honest words of a node.
const ROUND: u64 = 8192;
/// Frames of one kind of forgery that are told in a row are this many times its weight.
const PER_WEIGHT: u64 = ROUND / 128;

#[derive(Debug, Parser)]
#[command(about = "Tells a sealed pair forged frames, and counts why it refuses them")]
pub(crate) struct Options {
    /// Forged frames at least; a round of them is always told to its end.
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) frames: u64,
    /// Pairs that are told them side by side; as many as there are processors if not said.
    #[arg(long)]
    pub(crate) threads: Option<usize>,
    /// What all randomness comes from.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[allow(dead_code, reason = "the tests begin at `run`")]
fn main() -> ExitCode {
    let options = Options::parse();
    let report = run(&options);
    if options.json {
        println!("{}", report.json());
    } else {
        print!("{}", report.words());
    }
    if report.held() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Tells all frames, and says what became of them.
pub(crate) fn run(options: &Options) -> Report {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = options.threads.unwrap_or(processors).max(1);
    let began = Instant::now();
    let share = options.frames.div_ceil(threads as u64);
    let mut all = Report::default();
    std::thread::scope(|scope| {
        let attack = |thread: u64| move || attack(share, options.seed.wrapping_add(thread << 32));
        let running: Vec<_> = (0..threads as u64).map(|thread| scope.spawn(attack(thread))).collect();
        for thread in running {
            all.add(&thread.join().expect("an attack ends"));
        }
    });
    all.threads = threads;
    all.took = began.elapsed();
    all
}

/// One pair, told at least so many forged frames.
fn attack(frames: u64, seed: u64) -> Report {
    let (mut pair, mut dice, mut report) = (Pair::in_sync(seed), Dice::new(seed), Report::default());
    while report.frames < frames {
        pair.speak(&mut dice);
        let before = pair.state();
        for victim in 0..2 {
            if !pair.waits_for(victim) {
                continue;
            }
            for kind in &KINDS {
                let count = PER_WEIGHT * kind.weight / 2;
                report.note(kind, &pair.forge(victim, kind, count, &mut dice));
            }
        }
        report.changed += u64::from(pair.state() != before);
        report.honest += pair.deliver();
        report.honest_refused += pair.honest_refused();
        report.rounds += 1;
    }
    report.out_of_sync += u64::from(!pair.ends_in_sync());
    report
}
