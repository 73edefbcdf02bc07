//! Runs an operator's program with a limit: no shell, no input, its last line of output kept.
//!
//! ```text
//!   spawn ──▶ runs, writes ──▶ exits by itself ─▶ Ended: status, last line
//!               │   └─ what it started may hold its output open: not waited for
//!               └─ limit ──▶ SIGKILL to its process group ─▶ TimedOut
//! ```

use crate::sys::child;
use std::fmt;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::net::unix::pipe::Receiver;

/// Bytes of a program's last line that are kept.
pub const LINE_MAX: usize = 200;
/// Longest wait for output that a program has written before it ended: it is in the pipe already.
const OUTPUT_GRACE: Duration = Duration::from_millis(20);

/// What became of a program.
#[derive(Debug)]
pub enum Outcome {
    /// It has ended by itself.
    Ended {
        /// How.
        status: ExitStatus,
        /// The last line that it wrote, to either output; empty if it wrote nothing.
        line: String,
    },
    /// It was killed, with all that it had started, because it took too long.
    TimedOut {
        /// How long it was given.
        limit: Duration,
    },
    /// It could not be started.
    NotRun(io::Error),
}

impl Outcome {
    /// It has ended with status 0.
    pub fn is_success(&self) -> bool {
        matches!(self, Outcome::Ended { status, .. } if status.success())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // "exit status: 1" or "signal: 9 (SIGKILL)".
            Outcome::Ended { status, line } if line.is_empty() => write!(f, "{status}"),
            Outcome::Ended { status, line } => write!(f, "{status}: {line}"),
            Outcome::TimedOut { limit } => write!(f, "killed after {} ms", limit.as_millis()),
            Outcome::NotRun(error) => write!(f, "cannot be run: {error}"),
        }
    }
}

/// Runs the program that comes first in `words` with the others as arguments. Dropping the future kills it.
pub async fn run(words: &[String], limit: Duration) -> Outcome {
    match Running::start(words) {
        Ok(running) => running.finish(limit).await.unwrap_or_else(Outcome::NotRun),
        Err(error) => Outcome::NotRun(error),
    }
}

/// A program that runs. It is killed with all that it has started when this is dropped before its end.
struct Running {
    child: tokio::process::Child,
    output: Receiver,
    line: LastLine,
}

impl Drop for Running {
    fn drop(&mut self) {
        // No number once it was waited for: the group may be another's by then.
        if let Some(leader) = self.child.id()
            && let Err(error) = child::kill_group(leader)
        {
            tracing::warn!("a program could not be killed: {error}");
        }
    }
}

impl Running {
    fn start(words: &[String]) -> io::Result<Self> {
        let Some((program, arguments)) = words.split_first() else { return Err(io::ErrorKind::InvalidInput.into()) };
        let (output, input) = io::pipe()?;
        let output = Receiver::from_owned_fd(output.into())?;
        let mut command = child::command(program, arguments);
        command.stdin(Stdio::null()).stdout(input.try_clone()?).stderr(input);
        // With the command our end of its output goes, too.
        let child = tokio::process::Command::from(command).kill_on_drop(true).spawn()?;
        Ok(Running { child, output, line: LastLine::default() })
    }

    async fn finish(mut self, limit: Duration) -> io::Result<Outcome> {
        let Ok(status) = tokio::time::timeout(limit, self.end()).await else {
            // Killed and waited for, so that no zombie is left.
            if let Some(leader) = self.child.id() {
                child::kill_group(leader)?;
            }
            self.child.wait().await?;
            return Ok(Outcome::TimedOut { limit });
        };
        let status = status?;
        let _ = tokio::time::timeout(OUTPUT_GRACE, self.read_all()).await;
        Ok(Outcome::Ended { status, line: std::mem::take(&mut self.line).into_words() })
    }

    /// Reads until the program has ended: one whose output nobody reads would never end.
    async fn end(&mut self) -> io::Result<ExitStatus> {
        let mut open = true;
        loop {
            tokio::select! {
                status = self.child.wait() => return status,
                more = read(&mut self.output, &mut self.line), if open => open = more,
            }
        }
    }

    async fn read_all(&mut self) {
        while read(&mut self.output, &mut self.line).await {}
    }
}

/// Reads once; whether there may be more.
async fn read(output: &mut Receiver, line: &mut LastLine) -> bool {
    let mut buffer = [0; 4096];
    if output.readable().await.is_err() {
        return false;
    }
    match output.try_read(&mut buffer) {
        Ok(0) => false,
        Ok(length) => {
            line.add(&buffer[..length]);
            true
        }
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

/// The last line of a stream that was not empty, cut to [`LINE_MAX`] bytes.
#[derive(Debug, Default)]
struct LastLine {
    line: Vec<u8>,
    ended: bool,
}

impl LastLine {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' {
                self.ended = true;
                continue;
            }
            if std::mem::take(&mut self.ended) {
                self.line.clear();
            }
            if self.line.len() < LINE_MAX {
                self.line.push(*byte);
            }
        }
    }

    /// Without anything that could play with a terminal.
    fn into_words(self) -> String {
        let words = String::from_utf8_lossy(&self.line).into_owned();
        words.trim().chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_now(words: &[&str], limit: Duration) -> Outcome {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(&words, limit))
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn status_and_last_line_are_told() {
        let outcome = run_now(&["/bin/sh", "-c", "echo one; echo 'two  ' >&2; exit 3"], LONG);
        assert!(!outcome.is_success());
        assert_eq!(outcome.to_string(), "exit status: 3: two");
        let outcome = run_now(&["/bin/true"], LONG);
        assert!(outcome.is_success());
        assert_eq!(outcome.to_string(), "exit status: 0");
    }

    #[test]
    fn arguments_are_no_shells() {
        let outcome = run_now(&["/bin/echo", "$HOME; *"], LONG);
        assert_eq!(outcome.to_string(), "exit status: 0: $HOME; *");
    }

    #[test]
    fn what_takes_too_long_is_killed_with_all_that_it_started() {
        let outcome = run_now(&["/bin/sh", "-c", "sleep 1000 & wait"], Duration::from_millis(50));
        assert!(matches!(outcome, Outcome::TimedOut { .. }));
        assert_eq!(outcome.to_string(), "killed after 50 ms");
    }

    #[test]
    fn one_that_leaves_something_running_has_ended_all_the_same() {
        let outcome = run_now(&["/bin/sh", "-c", "sleep 5 & echo started"], LONG);
        assert_eq!(outcome.to_string(), "exit status: 0: started");
    }

    #[test]
    fn one_that_writes_a_lot_ends() {
        let outcome = run_now(&["/bin/sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x; echo; echo end"], LONG);
        assert_eq!(outcome.to_string(), "exit status: 0: end");
    }

    #[test]
    fn one_that_is_not_there_cannot_be_run() {
        let outcome = run_now(&["/nowhere/check"], LONG);
        assert_eq!(outcome.to_string(), "cannot be run: No such file or directory (os error 2)");
        assert!(matches!(outcome, Outcome::NotRun(_)));
    }

    #[test]
    fn the_last_line_is_short_and_harmless() {
        let mut line = LastLine::default();
        line.add(b"a\nb\x1b[2J");
        line.add(b"c\n\n");
        assert_eq!(line.into_words(), "b [2Jc");
        let mut line = LastLine::default();
        line.add(&[b'x'; 1000]);
        assert_eq!(line.into_words().len(), 200);
    }
}
