//! Waiting for the first of a few descriptors, with a deadline in nanoseconds, and being woken by another thread.
//!
//! A node waits on fewer than ten descriptors, so `ppoll` is as fast as epoll here, has nanoseconds where epoll has
//! milliseconds, and needs no registration that could go stale when a socket is reopened.
//!
//! And an epoll is not idle while nobody waits on it: the kernel calls it, with interrupts off, for each packet that a
//! socket of it gets, and each epoll that it is in. At half a million frames a second that was a tenth of what a frame
//! cost its sender's processor (docs/benchmarks.md). So sockets that frames come by hang on none,
//! but for those of an interface with several queues, which are too many to be asked one by one.

use crate::time::Duration;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};

/// Most descriptors that one wait takes.
pub const WAIT_MAX: usize = 64;

/// Descriptors to wait on together, at most [`WAIT_MAX`]: a slice of them that lies on the stack.
#[derive(Clone, Copy, Debug, Default)]
pub struct Descriptors<'a>(Option<([BorrowedFd<'a>; WAIT_MAX], usize)>);

impl<'a> Descriptors<'a> {
    /// Adds one.
    ///
    /// # Panics
    /// If there are [`WAIT_MAX`].
    pub fn push(&mut self, descriptor: BorrowedFd<'a>) {
        let (list, count) = self.0.get_or_insert(([descriptor; WAIT_MAX], 0));
        list[*count] = descriptor;
        *count += 1;
    }
}

impl<'a> Deref for Descriptors<'a> {
    type Target = [BorrowedFd<'a>];

    fn deref(&self) -> &Self::Target {
        self.0.as_ref().map_or(&[], |(list, count)| &list[..*count])
    }
}

impl<'a> Extend<BorrowedFd<'a>> for Descriptors<'a> {
    fn extend<I: IntoIterator<Item = BorrowedFd<'a>>>(&mut self, more: I) {
        more.into_iter().for_each(|descriptor| self.push(descriptor));
    }
}

impl<'a> FromIterator<BorrowedFd<'a>> for Descriptors<'a> {
    fn from_iter<I: IntoIterator<Item = BorrowedFd<'a>>>(descriptors: I) -> Self {
        let mut all = Descriptors::default();
        all.extend(descriptors);
        all
    }
}

/// Waits until one of `descriptors` can be read (or has failed), or until `timeout` has passed; `None` waits for ever.
/// A signal ends the wait early, which is no error: the caller looks at everything after each wait anyway. It allocates
/// nothing.
///
/// # Errors
/// The operating system's error, and `InvalidInput` for more than [`WAIT_MAX`] descriptors.
pub fn wait(descriptors: &[BorrowedFd<'_>], timeout: Option<Duration>) -> io::Result<()> {
    wait_and_tell(descriptors, timeout).map(drop)
}

/// The same, and says whether it was the first descriptor that ended the wait: such as a [`Waker`], which need not be read
/// otherwise.
///
/// # Errors
/// As for [`wait`].
pub fn wait_and_tell(descriptors: &[BorrowedFd<'_>], timeout: Option<Duration>) -> io::Result<bool> {
    if descriptors.len() > WAIT_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one wait"));
    }
    // On the stack, because loops that allocate nothing wait here. What is beyond the descriptors is not waited on.
    let mut array = descriptors.first().map(|first| -> [PollFd<'_>; WAIT_MAX] {
        std::array::from_fn(|at| PollFd::new(*descriptors.get(at).unwrap_or(first), PollFlags::POLLIN))
    });
    let polled = array.as_mut().map_or(&mut [][..], |array| &mut array[..descriptors.len()]);
    match ppoll(polled, timeout.map(TimeSpec::from_duration), None) {
        Ok(_) => Ok(polled.first().is_some_and(|first| first.any() != Some(false))),
        Err(Errno::EINTR) => Ok(false),
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

    #[test]
    fn it_is_told_whether_the_first_has_ended_the_wait() {
        let (first, second) = (Waker::new().unwrap(), Waker::new().unwrap());
        let both = [first.as_fd(), second.as_fd()];
        second.wake();
        assert!(!wait_and_tell(&both, None).unwrap());
        first.wake();
        assert!(wait_and_tell(&both, None).unwrap());
        second.drain();
        assert!(wait_and_tell(&both, None).unwrap());
        first.drain();
        assert!(!wait_and_tell(&both, Some(Duration::from_millis(1))).unwrap());
    }

    #[test]
    fn each_of_the_descriptors_ends_the_wait_and_too_many_are_refused() {
        let wakers: Vec<Waker> = (0..=WAIT_MAX).map(|_| Waker::new().unwrap()).collect();
        let descriptors: Vec<BorrowedFd<'_>> = wakers.iter().map(Waker::as_fd).collect();
        for waker in &wakers[..WAIT_MAX] {
            waker.wake();
            wait(&descriptors[..WAIT_MAX], None).unwrap();
            waker.drain();
        }
        assert_eq!(wait(&descriptors, None).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let mut all: Descriptors<'_> = descriptors[..63].iter().copied().collect();
        assert_eq!(all.len(), 63);
        all.push(descriptors[63]);
        wakers[63].wake();
        wait(&all, None).unwrap();
        wait(&Descriptors::default(), Some(Duration::from_millis(1))).unwrap();
        wait(&[], Some(Duration::from_millis(1))).unwrap();
    }
}
