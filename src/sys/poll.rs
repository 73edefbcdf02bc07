//! Waiting for the first of a few descriptors, with a deadline in nanoseconds, and being woken by another thread.
//!
//! A node waits on fewer than ten descriptors, so `ppoll` is as fast as epoll here, has nanoseconds where epoll has
//! milliseconds, and needs no registration that could go stale when a socket is reopened.

use crate::time::Duration;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Most descriptors that one wait takes.
pub const WAIT_MAX: usize = 64;

/// Waits until one of `descriptors` can be read (or has failed), or until `timeout` has passed; `None` waits for ever. A signal
/// ends the wait early, which is no error: the caller looks at everything after each wait anyway.
///
/// # Errors
/// The operating system's error, and `InvalidInput` for more than [`WAIT_MAX`] descriptors.
pub fn wait(descriptors: &[BorrowedFd<'_>], timeout: Option<Duration>) -> io::Result<()> {
    if descriptors.len() > WAIT_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one wait"));
    }
    let mut polled: Vec<PollFd<'_>> = descriptors.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    match ppoll(&mut polled, timeout.map(TimeSpec::from_duration), None) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Wakes a thread that sleeps in [`wait`]: an eventfd. Share it by `Arc`.
#[derive(Debug)]
pub struct Waker(EventFd);

impl Waker {
    /// A new one.
    ///
    /// # Errors
    /// The operating system's error (no descriptors left).
    pub fn new() -> io::Result<Self> {
        Ok(Waker(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?))
    }

    /// Ends the wait that is running, or the next one.
    pub fn wake(&self) {
        // Only a counter at its 64-bit limit refuses, and then the sleeper is awake already.
        let _ = self.0.write(1);
    }

    /// Forgets the wake-ups so far; called by the thread that was woken.
    pub fn drain(&self) {
        let _ = self.0.read();
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_that_comes_before_the_wait_is_not_lost() {
        let waker = Waker::new().unwrap();
        waker.wake();
        // Without the wake this would never return.
        wait(&[waker.as_fd()], None).unwrap();
        waker.drain();
        wait(&[waker.as_fd()], Some(Duration::from_millis(1))).unwrap();
    }
}
