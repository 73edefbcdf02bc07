//! Ctrl-C, in order: the demo says so, ends what it has started, removes its directory and exits with 130.
//!
//! The signals are blocked in every thread and taken by one that waits for nothing else, so that no handler is needed.
//! Processes that the demo has started are in groups of their own, so that the terminal does not kill them under its
//! feet; they would die with it anyway (PDEATHSIG), but here they are waited for, too. The namespaces vanish with the
//! last process in them.

use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// Exit status after SIGINT, by the shells' convention (128 + 2).
const INTERRUPTED: i32 = 130;

/// Set before anything is ended, so that nobody takes that for a failure.
static ENDING: AtomicBool = AtomicBool::new(false);

/// Watches for SIGINT, SIGTERM and SIGHUP from now on; `directory` is what is to be removed then. To be called by the
/// first thread before there are others: they inherit what is blocked.
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
            ENDING.store(true, Ordering::SeqCst);
            eprintln!("ssyncp demo: {}: cleaning up; no verdict", signal.as_str());
            end_children();
            // What cannot be removed now is removed by the next run.
            let _ = std::fs::remove_dir_all(&directory);
            std::process::exit(INTERRUPTED);
        }
    })?;
    Ok(())
}

/// Called where the demo has failed: does not return if that is only because it is being ended.
pub(super) fn yield_to_ending() {
    while ENDING.load(Ordering::SeqCst) {
        std::thread::park();
    }
}

/// Kills and reaps the children of the first thread, which has started all of them. A kernel that does not list them
/// leaves it to PDEATHSIG.
fn end_children() {
    let own = std::process::id();
    let Ok(children) = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")) else { return };
    let children = children.split_ascii_whitespace().filter_map(|child| child.parse().ok()).map(Pid::from_raw);
    for child in children {
        // Both fail only for a child that has ended and been waited for.
        let _ = kill(child, Signal::SIGKILL);
        let _ = waitpid(child, None);
    }
}
