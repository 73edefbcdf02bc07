//! Ctrl-C, in order: the demo says so, removes its directory and ends with 130.
//!
//! The signals are blocked in every thread and taken by one that waits for nothing else, so that no handler is needed.
//! Processes that the demo has started die with it (PDEATHSIG), and the namespaces vanish with the last process in them.

use nix::sys::signal::{SigSet, Signal};
use std::io;
use std::path::PathBuf;

/// Exit status after SIGINT, by the shells' convention (128 + 2).
pub(super) const INTERRUPTED: u8 = 130;

/// Watches for SIGINT, SIGTERM and SIGHUP from now on; `directory` is what is to be removed then. To be called by the first
/// thread before there are others: they inherit what is blocked.
///
/// # Errors
/// The operating system's error.
pub(super) fn watch(directory: PathBuf) -> io::Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block()?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        if let Ok(signal) = signals.wait() {
            eprintln!("ssyncp demo: {}: cleaning up; no verdict", signal.as_str());
            // What cannot be removed now is removed by the next run.
            let _ = std::fs::remove_dir_all(&directory);
            std::process::exit(i32::from(INTERRUPTED));
        }
    })?;
    Ok(())
}
