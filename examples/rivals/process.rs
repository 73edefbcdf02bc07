//! Daemons of the laboratory: started inside a namespace, logged into a file, and killed as a machine dies.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ssyncp::sys::namespace::Namespace;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Longest time that a daemon which is told to end may take.
const FAREWELL: Duration = Duration::from_secs(5);
/// Lines of a log that are shown when something fails.
const LOG_LINES: usize = 20;

/// A daemon. Dropping it kills it, with its children.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `program` inside `namespace`; what it says goes to the end of `log`. To be called from a thread that lasts.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn start(namespace: &Namespace, program: &Path, arguments: &[&str], log: &Path) -> io::Result<Self> {
        let output = File::options().create(true).append(true).open(log)?;
        let mut command = namespace.command(program)?;
        command.args(arguments).env_remove("NOTIFY_SOCKET");
        let child = command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).spawn();
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", program.display()));
        Ok(Daemon { child: child.map_err(named)?, log: log.to_owned() })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn tell(&self, signal: Signal) -> io::Result<()> {
        Ok(kill(Pid::from_raw(self.child.id() as i32), signal)?)
    }

    /// Kills it and its children in one go: none of them gets to say anything about the other's death. Does not wait.
    pub fn kill(&self) {
        let mut family = vec![self.child.id() as i32];
        // Stopped first, so that the list is complete and nobody sees a part of it die.
        let mut at = 0;
        while at < family.len() {
            let _ = kill(Pid::from_raw(family[at]), Signal::SIGSTOP);
            family.extend(children(family[at]));
            at += 1;
        }
        for process in family {
            let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
        }
    }

    /// Tells it to end, and waits until it has; false if it had to be killed.
    pub fn end(mut self) -> bool {
        let told = self.tell(Signal::SIGTERM).is_ok();
        let start = Instant::now();
        while told && start.elapsed() < FAREWELL {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n  ")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !self.has_ended() {
            self.kill();
        }
        let _ = self.child.wait();
    }
}

/// Processes that a process has started.
fn children(process: i32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    list.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect()
}
