//! Lines of keepalived's format for whoever reads a FIFO.
//!
//! ```text
//!   nobody reads: only the newest state is kept ──open──▶ that state first ──▶ each change
//!        ▲                                                                        │
//!        └───────────────────────────── the reader has gone ──────────────────────┘
//! ```
//!
//! Nothing tells a writer that a FIFO is opened, so it is tried ten times a second (open(2) says ENXIO while nobody reads). A
//! line is shorter than PIPE_BUF and so is written whole or not at all. A reader that stands still has as many changes wait
//! as the ring holds, behind what fits the kernel's pipe. The FIFO itself stays when the daemon ends: a reader that waits in
//! open(2) is served again.

use super::{Shared, Transition};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::unix::pipe::{OpenOptions, Sender};
use tokio::sync::broadcast::Receiver;

/// Time between two looks whether somebody reads.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Why the lines of one reader have ended.
enum End {
    /// There is nothing more to tell.
    NothingMore,
    /// It reads no longer.
    ReaderGone,
}

/// Tells each reader the newest state, and then every change, until there is nothing more to tell.
pub(super) async fn write(
    shared: &Shared,
    path: &Path,
    mut newest: Option<Transition>,
    mut transitions: Receiver<Transition>,
) {
    let mut told = false;
    loop {
        let mut sender = match open(path) {
            Ok(sender) => sender,
            Err(error) => {
                let nobody_reads = error.raw_os_error() == Some(libc::ENXIO);
                if !nobody_reads && !std::mem::replace(&mut told, true) {
                    shared.fail(format!("notify_fifo {}: {error}", path.display()));
                }
                told &= !nobody_reads;
                // Whoever comes later is told the newest state and no history.
                tokio::select! {
                    next = shared.next(&mut transitions, "the FIFO") => match next {
                        Some(transition) => newest = Some(transition),
                        None => return,
                    },
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
                continue;
            }
        };
        told = false;
        // What waits is older than the state that the reader begins with, but for the newest of it.
        while let Ok(transition) = transitions.try_recv() {
            newest = Some(transition);
        }
        match serve(shared, &mut sender, &mut newest, &mut transitions).await {
            End::NothingMore => return,
            End::ReaderGone => {}
        }
    }
}

/// Opens the FIFO for writing, and makes it if it is not there.
fn open(path: &Path) -> io::Result<Sender> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_fifo() => {}
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is no FIFO; remove it, or name another")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?,
        Err(error) => return Err(error),
    }
    OpenOptions::new().open_sender(path)
}

async fn serve(
    shared: &Shared,
    sender: &mut Sender,
    newest: &mut Option<Transition>,
    transitions: &mut Receiver<Transition>,
) -> End {
    let mut unwritten = newest.clone();
    loop {
        if let Some(transition) = unwritten.take() {
            transition.arrived().await;
            if write_line(sender, &format!("{transition}\n")).await.is_err() {
                return End::ReaderGone;
            }
            shared.counters.lines_written.fetch_add(1, Ordering::Relaxed);
        }
        tokio::select! {
            biased;
            next = shared.next(transitions, "the FIFO") => match next {
                Some(transition) => {
                    *newest = Some(transition.clone());
                    unwritten = Some(transition);
                }
                None => return End::NothingMore,
            },
            _ = sender.ready(Interest::ERROR) => return End::ReaderGone,
        }
    }
}

async fn write_line(sender: &Sender, line: &str) -> io::Result<()> {
    loop {
        sender.writable().await?;
        match sender.try_write(line.as_bytes()) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
