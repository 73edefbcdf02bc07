//! Programs that the daemon starts for its operator: they get a group of their own, to be killed as a whole, and none of
//! what the daemon has set for itself.
//!
//! ```text
//!   daemon: SIGTERM, SIGINT, SIGHUP blocked (it reads them from a descriptor)
//!      └─ fork ─ setpgid ─ unblock all ─ exec ─▶ script ─▶ what the script starts     one process group
//! ```
//!
//! A blocked signal is inherited over fork and exec (sigprocmask(2)): whatever a script starts could not be ended with
//! SIGTERM any more. Real-time priority is not inherited ([`super::schedule`]).

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// A command without a shell that will lead a process group of its own and has no signal blocked.
pub fn command<A: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).process_group(0);
    // SAFETY: between fork and exec only an async-signal-safe system call is made, and nothing is allocated.
    unsafe {
        command.pre_exec(|| Ok(SigSet::empty().thread_set_mask()?));
    }
    command
}

/// Kills the process group that a child of [`command`] leads, and that was not waited for yet. One that has ended already
/// is no error.
///
/// # Errors
/// The operating system's error.
pub fn kill_group(leader: u32) -> io::Result<()> {
    let leader = i32::try_from(leader).map_err(|_| Errno::ESRCH)?;
    match killpg(Pid::from_raw(leader), Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;

    #[test]
    fn a_child_has_no_signal_blocked_whatever_its_parent_has() {
        let blocked = std::thread::spawn(|| {
            let mask: SigSet = [Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
            mask.thread_block().unwrap();
            command("grep", ["SigBlk", "/proc/self/status"]).output().unwrap().stdout
        });
        assert_eq!(String::from_utf8(blocked.join().unwrap()).unwrap(), "SigBlk:\t0000000000000000\n");
    }

    #[test]
    fn what_a_child_has_started_dies_with_its_group() {
        let (mut read, write) = io::pipe().unwrap();
        let mut command = command("sh", ["-c", "sleep 1000 & echo x; wait"]);
        let mut child = command.stdin(Stdio::null()).stdout(write).spawn().unwrap();
        drop(command);
        // The pipe ends when nobody holds its other end any more: neither the shell nor what it has started.
        let mut first = [0];
        io::Read::read_exact(&mut read, &mut first).unwrap();
        kill_group(child.id()).unwrap();
        let mut rest = Vec::new();
        io::Read::read_to_end(&mut read, &mut rest).unwrap();
        assert!(!child.wait().unwrap().success());
        kill_group(child.id()).unwrap();
    }
}
