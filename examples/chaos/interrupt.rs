//! Ctrl-C, in order: whoever waits learns of it, everything is dropped on the way out, and nothing stays behind.
//!
//! The signals are blocked in every thread and taken by one that waits for nothing else. It only sets a flag; each wait of
//! this program ([`nap`]) looks at it. Daemons run in process groups of their own, so that the terminal does not kill them
//! first; namespaces and daemons end with this process anyway, however it ends.

use super::Trouble;
use nix::sys::signal::{SigSet, Signal};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Longest time that a wait does not look at the flag.
const LOOK_EVERY: Duration = Duration::from_millis(50);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Watches for SIGINT, SIGTERM and SIGHUP from now on. To be called by the first thread before there are others.
///
/// # Errors
/// The operating system's error.
pub fn watch() -> io::Result<()> {
    let mut signals = SigSet::empty();
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().for_each(|signal| signals.add(signal));
    signals.thread_block()?;
    let wait = move || {
        if let Ok(signal) = signals.wait() {
            INTERRUPTED.store(true, Ordering::SeqCst);
            eprintln!("chaos: {}: cleaning up", signal.as_str());
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait)?;
    Ok(())
}

/// Whether somebody wants this to end.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Waits so long.
///
/// # Errors
/// [`Trouble::Interrupted`].
pub fn nap(time: Duration) -> Result<(), Trouble> {
    let end = Instant::now() + time;
    loop {
        if interrupted() {
            return Err(Trouble::Interrupted);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(LOOK_EVERY));
    }
}

/// Looks until it is so, every 10 ms and for at most `patience`; says how long it took.
///
/// # Errors
/// [`Trouble::Never`], and [`Trouble::Interrupted`].
pub fn until(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) -> Result<Duration, Trouble> {
    let start = Instant::now();
    while !holds() {
        if start.elapsed() > patience {
            return Err(Trouble::Never { what: what.to_owned(), patience });
        }
        nap(Duration::from_millis(10))?;
    }
    Ok(start.elapsed())
}
