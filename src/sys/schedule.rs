//! Real-time scheduling for the one thread that must be heard in time.
//!
//! A master that is not scheduled for three of its advertisement intervals is taken for dead. Under load an ordinary thread
//! waits that long on a busy processor; a real-time thread runs at once when a frame arrives. (keepalived does the
//! same: `vrrp_rt_priority`.)

use nix::errno::Errno;
use std::io;

/// Puts the calling thread into the round-robin class with `priority` (1 to 99, sched(7)). What it starts later is scheduled
/// as before, and the kernel keeps 5 % of each second for others (`kernel.sched_rt_runtime_us`).
///
/// # Errors
/// `EPERM` without CAP_SYS_NICE and without a sufficient RLIMIT_RTPRIO: go on as an ordinary thread. `EINVAL` for another
/// priority.
pub fn real_time(priority: u8) -> io::Result<()> {
    let parameter = libc::sched_param { sched_priority: priority.into() };
    // SAFETY: `parameter` lives until the call returns, which only reads it; 0 is the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &parameter) };
    Errno::result(result)?;
    Ok(())
}

/// Real-time priority of the calling thread; 0 for an ordinary one.
pub fn priority() -> u8 {
    let mut parameter = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel writes one `sched_param`, which lives until the call returns; 0 is the calling thread.
    let result = unsafe { libc::sched_getparam(0, &raw mut parameter) };
    // It fails for no thread that asks about itself (sched_getparam(2)).
    Errno::result(result).map_or(0, |_| u8::try_from(parameter.sched_priority).unwrap_or(0))
}

/// Puts the calling thread back among the ordinary ones.
///
/// # Errors
/// The operating system's error.
pub fn ordinary() -> io::Result<()> {
    let parameter = libc::sched_param { sched_priority: 0 };
    // SAFETY: `parameter` lives until the call returns, which only reads it; 0 is the calling thread. (Without
    // CAP_SYS_NICE the flag that `real_time` has set cannot be taken back, so it stays.)
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_OTHER | libc::SCHED_RESET_ON_FORK, &parameter) };
    Errno::result(result)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fields 40 and 41 of proc_pid_stat(5): real-time priority and scheduling policy.
    fn priority_and_policy() -> (u32, u32) {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, rest) = stat.rsplit_once(") ").unwrap();
        let fields: Vec<&str> = rest.split(' ').collect();
        (fields[37].parse().unwrap(), fields[38].parse().unwrap())
    }

    #[test]
    fn a_thread_in_real_time_is_round_robin_and_what_it_starts_is_not() {
        if real_time(10).is_err() {
            println!("skipped: needs root");
            return;
        }
        assert_eq!(priority_and_policy(), (10, 2));
        assert_eq!((priority(), std::thread::spawn(priority).join().unwrap()), (10, 0));
        assert_eq!(std::thread::spawn(priority_and_policy).join().unwrap(), (0, 0));
        ordinary().unwrap();
        assert_eq!((priority_and_policy(), priority()), ((0, 0), 0));
    }

    #[test]
    fn a_priority_beyond_the_class_is_refused() {
        assert!(real_time(100).is_err());
    }
}
