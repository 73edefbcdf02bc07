//! Is every rule that is broken on purpose found out? The simulator's own test.

use super::{Worlds, bar};
use crate::cli::EXIT_NO;
use crate::cli::output::print;
use crate::engine::breakage::Breakage;
use crate::sim::{Outcome, fits};
use serde::Serialize;
use std::fmt::Write;
use std::process::ExitCode;
use std::time::Instant;

/// Name and version of the form of [`Table`].
const SCHEMA: &str = "ssyncp.breakages/1";
/// Seeds after which a breakage counts as not found.
const SEEDS_MAX: u64 = 1000;

/// What `ssyncp sim --breakages --json` prints.
#[derive(Debug, Serialize)]
struct Table {
    schema: &'static str,
    first: u64,
    seeds_max: u64,
    seconds: f64,
    breakages: Vec<Row>,
    passed: bool,
}

/// One rule that was broken.
#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    /// The rule's number in docs/protocol.md.
    rule: &'static str,
    /// The lowest seed that found it.
    seed: Option<u64>,
    /// Seeds up to that one, itself included; or all that were tried.
    seeds_needed: u64,
    /// What was seen there: the promise, and the sentence.
    promise: Option<&'static str>,
    text: Option<String>,
}

/// The breakage of this name.
pub(super) fn named(name: &str) -> Result<Breakage, String> {
    Breakage::named(name).ok_or_else(|| {
        let names: Vec<&str> = Breakage::ALL.iter().map(|(_, name, _)| *name).collect();
        format!("these rules can be broken: {}", names.join(", "))
    })
}

pub(super) fn run(worlds: &Worlds<'_>) -> ExitCode {
    let started = Instant::now();
    // A breakage may make an engine panic, which finds it; nobody needs to read of each.
    std::panic::set_hook(Box::new(|_| {}));
    let bar = bar(Breakage::ALL.len() as u64);
    let first = worlds.options.first;
    let rows = Breakage::ALL.iter().map(|(breakage, name, rule)| {
        let row = hunt(worlds, first, *breakage, name, rule);
        bar.inc(1);
        row
    });
    let breakages: Vec<Row> = rows.collect();
    bar.finish_and_clear();
    let seconds = started.elapsed().as_secs_f64();
    let passed = breakages.iter().all(|row| row.seed.is_some());
    let table = Table { schema: SCHEMA, first, seeds_max: SEEDS_MAX, seconds, breakages, passed };
    let json = || serde_json::to_string(&table).unwrap_or_default() + "\n";
    let printed = print(&if worlds.options.json { json() } else { words(&table) });
    if table.passed { printed } else { ExitCode::from(EXIT_NO) }
}

/// The lowest seed that finds the breakage out.
fn hunt(worlds: &Worlds<'_>, first: u64, breakage: Breakage, name: &'static str, rule: &'static str) -> Row {
    let keep = |found: &mut Vec<(u64, Outcome)>, seed, _, outcome: Outcome| {
        let fits = outcome.violation.as_ref().is_some_and(|violation| fits(breakage, violation.rule));
        // What is found must be the breakage's own: the seed is clean without it.
        let found_out = fits && worlds.is_clean(seed);
        if found_out {
            found.push((seed, outcome));
        }
        found_out
    };
    let found = worlds.each(first..first.saturating_add(SEEDS_MAX), Some(breakage), keep);
    let lowest = found.into_iter().flatten().min_by_key(|(seed, _)| *seed);
    let seed = lowest.as_ref().map(|(seed, _)| *seed);
    let violation = lowest.and_then(|(_, outcome)| outcome.violation);
    Row {
        name,
        rule,
        seed,
        seeds_needed: seed.map_or(SEEDS_MAX, |seed| seed - first + 1),
        promise: violation.as_ref().map(|violation| violation.rule),
        text: violation.map(|violation| violation.text),
    }
}

fn words(table: &Table) -> String {
    let mut text = format!("{:<38} {:>6} {:>6} {:>6}  seen as\n", "breakage", "rule", "seed", "seeds");
    for row in &table.breakages {
        let seed = row.seed.map_or("-".to_owned(), |seed| seed.to_string());
        let seen = row.promise.unwrap_or("NOT FOUND");
        let _ = writeln!(text, "{:<38} {:>6} {:>6} {:>6}  {seen}", row.name, row.rule, seed, row.seeds_needed);
    }
    let found = table.breakages.iter().filter(|row| row.seed.is_some()).count();
    text + &format!("{found} of {} found, in {:.1} s\n", table.breakages.len(), table.seconds)
}
