//! What the processes look like from outside: `/proc`, once a second, for each machine.

use super::board::{Board, MACHINES};
use super::chaos::interrupt::interrupted;
use serde::Serialize;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

/// Reads of the descriptors of which the least counts: each question at the control socket is one more for a moment.
const READS: usize = 25;
const READ_EVERY: Duration = Duration::from_millis(20);

/// One look at one daemon.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// Seconds since the start of the run.
    pub at_s: f64,
    /// The machine: 0 or 1.
    pub machine: usize,
    /// Which life of its daemon, from 1.
    pub life: u32,
    /// Resident memory in KiB.
    pub memory_kib: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
    /// Flows in its table; null while it says nothing.
    pub entries: Option<u64>,
    /// Role and state in words.
    pub said: String,
}

/// Memory in KiB and threads of a process; `None` if it is dead.
fn standing(process: u32) -> Option<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    // proc(5): a process that has ended and was not waited for has no VmRSS.
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    };
    Some((field("VmRSS:")?, field("Threads:")?))
}

fn descriptors(process: u32) -> Option<u64> {
    Some(fs::read_dir(format!("/proc/{process}/fd")).ok()?.count() as u64)
}

/// Descriptors and threads of a process at rest, and its memory in KiB; `None` if it is dead.
pub fn at_rest(process: u32) -> Option<(u64, u64, u64)> {
    let mut least = u64::MAX;
    for _ in 0..READS {
        least = least.min(descriptors(process)?);
        std::thread::sleep(READ_EVERY);
    }
    let (memory, threads) = standing(process)?;
    Some((least, threads, memory))
}

/// Looks every `every` until all is over, and writes each look into `file` at once.
///
/// # Errors
/// The operating system's error of the file.
pub fn run(board: &Board, every: Duration, file: &Path) -> io::Result<Vec<Sample>> {
    let (mut samples, mut file) = (Vec::new(), File::create(file)?);
    writeln!(file, "at_s,machine,life,memory_kib,descriptors,threads,entries,said")?;
    while !board.is_over() && !interrupted() {
        for machine in 0..MACHINES {
            let Some(sample) = look(board, machine) else { continue };
            let entries = sample.entries.map_or(String::new(), |entries| entries.to_string());
            writeln!(
                file,
                "{:.2},{machine},{},{},{},{},{entries},\"{}\"",
                sample.at_s, sample.life, sample.memory_kib, sample.descriptors, sample.threads, sample.said
            )?;
            samples.push(sample);
        }
        std::thread::sleep(every);
    }
    Ok(samples)
}

fn look(board: &Board, machine: usize) -> Option<Sample> {
    let (life, process) = board.life(machine);
    if process == 0 {
        return None;
    }
    let (Some((memory_kib, threads)), Some(descriptors)) = (standing(process), descriptors(process)) else {
        // By itself, unless it has been killed meanwhile.
        board.has_ended(machine, process);
        return None;
    };
    let status = board.status(machine);
    let said = status.as_ref().map_or("silent".into(), |status| status.words());
    let entries = status.map(|status| status.entries());
    Some(Sample { at_s: board.now_s(), machine, life, memory_kib, descriptors, threads, entries, said })
}
