//! What is kept of a demo beside its report: a recording of the sync link, and the backup's table.
//!
//! Both are made as an operator would make them, by this same program: `ssyncp record` in the machine of the switches, which
//! hears both nodes and outlives them, and `ssyncp table --json`.
//!
//! ```text
//!   record ├─ a alone ─┼─ b joins ─┼─ traffic ─┤ end   a dies      replay --verify: the same table?
//!                                  table --json ┘
//! ```
//!
//! With several deaths both end before the last one: a replay follows the others, and believes a table that was proven to
//! somebody.

use super::lab::{Lab, SYNC};
use super::seal::Drawn;
use super::{DemoError, Doing};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Time in which a recorder begins, and in which it ends.
const WITHIN: Duration = Duration::from_secs(10);
/// Time between two looks at it.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A running `ssyncp record`. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Recorder {
    child: Child,
    log: PathBuf,
}

impl Recorder {
    /// Begins to record the sync link into `file`, which must not exist, and keeps the secret beside it; `directory` is for what the recorder says. Call it
    /// from a thread that lasts.
    pub(super) fn start(lab: &Lab, file: &Path, secret: Option<&Drawn>, directory: &Path) -> Result<Self, DemoError> {
        if file.exists() {
            let reason = format!("{} is there already; remove it, or name another file", file.display());
            return Err(failed(io::Error::new(io::ErrorKind::AlreadyExists, reason)));
        }
        if let Some(secret) = secret {
            secret.keep_beside(file).map_err(failed)?;
        }
        let log = directory.join("record.log");
        let spawn = || {
            let mut command = lab.switches().command(std::env::current_exe()?)?;
            command.arg("record").arg(file).args(["-i", SYNC]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?).spawn()
        };
        let mut recorder = Recorder { child: spawn().map_err(failed)?, log: log.clone() };
        // The file is made after the sockets are open.
        recorder.wait(|_| file.exists().then_some(()))?;
        Ok(recorder)
    }

    /// Ends it, and sees that nothing was lost.
    pub(super) fn end(mut self) -> Result<(), DemoError> {
        let pid = i32::try_from(self.child.id()).map_err(|error| failed(io::Error::other(error)))?;
        kill(Pid::from_raw(pid), Signal::SIGINT).map_err(|error| failed(error.into()))?;
        let ended = self.wait(|ended| ended)?;
        if ended.success() { Ok(()) } else { Err(self.failure("has lost something")) }
    }

    /// Waits until `so` has an answer; it is given the exit status once there is one.
    fn wait<T>(&mut self, so: impl Fn(Option<ExitStatus>) -> Option<T>) -> Result<T, DemoError> {
        let start = Instant::now();
        loop {
            let ended = self.child.try_wait().map_err(failed)?;
            match so(ended) {
                Some(answer) => return Ok(answer),
                None if ended.is_some() => return Err(self.failure("ended by itself")),
                None if start.elapsed() > WITHIN => return Err(self.failure("does nothing")),
                None => std::thread::sleep(LOOK_EVERY),
            }
        }
    }

    fn failure(&self, problem: &str) -> DemoError {
        let words = fs::read_to_string(&self.log).unwrap_or_default();
        failed(io::Error::other(format!("ssyncp record {problem}: {}", words.trim_end())))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // Both fail only for a process that has ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes what `ssyncp table --json` says of the node behind `socket` into `file`.
pub(super) fn keep_table(socket: &Path, file: &Path) -> Result<(), DemoError> {
    let run = || {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["table", "--json", "--socket"]).arg(socket).stdin(Stdio::null()).stdout(File::create(file)?);
        let output = command.stderr(Stdio::piped()).spawn()?.wait_with_output()?;
        let words = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
        if output.status.success() { Ok(()) } else { Err(io::Error::other(words)) }
    };
    run().doing("keeping the table")
}

fn failed(source: io::Error) -> DemoError {
    DemoError::Step { doing: "recording the sync link", source }
}
