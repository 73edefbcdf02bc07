//! The watcher: sees on the wire when somebody announces an address, which is when a takeover becomes true for the
//! neighbours.
//!
//! It listens to ARP on one interface and notes each gratuitous one (RFC 5227 section 2.3: sender and target protocol
//! address are the same) for the addresses it is told, with the kernel's time of arrival.
//!
//! ```text
//!   bytes  0           6           12    14                20    22        28       32        38       42
//!          ├ to ───────┼ from ─────┼ 0806┼ 1, 0800, 6, 4 ──┼ op ─┼ sender ──┼ its IP ┼ target ─┼ its IP ┤
//! ```

use crate::sys::clock::now;
use crate::sys::namespace::Namespace;
use crate::sys::poll::{Waker, wait};
use crate::sys::socket::{self, PacketSocket};
use crate::time::Duration;
use std::collections::VecDeque;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Announcements that are remembered; the oldest goes first.
const ANNOUNCEMENTS_MAX: usize = 4096;
/// ETH_P_ARP (linux/if_ether.h).
const ETHERTYPE_ARP: u16 = 0x0806;
/// Bytes of an Ethernet header and an ARP packet for IPv4.
const FRAME_LENGTH: usize = 42;

/// Watches for announcements in a thread of its own, which ends when this is dropped.
#[derive(Debug)]
pub struct Watcher(Watch<Announcements>);

impl Watcher {
    /// Begins to watch `interface` inside `namespace` for announcements of `addresses`.
    ///
    /// # Errors
    /// The operating system's error (no such interface; no CAP_NET_RAW).
    pub fn start(namespace: &Namespace, interface: &str, addresses: Vec<Ipv4Addr>) -> io::Result<Watcher> {
        let announcements = Announcements { addresses, arrivals: VecDeque::new() };
        Watch::start::<FRAME_LENGTH>(namespace, interface, ETHERTYPE_ARP, announcements).map(Watcher)
    }

    /// When the first announcement after `at` arrived; both by CLOCK_REALTIME since the epoch. Waits for it up to
    /// `timeout`. Announcements of the past count, as far as they are remembered (4096 of them). `None` also if
    /// watching has failed.
    pub fn first_announcement_after(&self, at: Duration, timeout: Duration) -> Option<Duration> {
        self.first_announcement(at, timeout, |_| true)
    }

    /// The same of the first announcement by the machine with this hardware address.
    pub fn first_announcement_by(&self, machine: [u8; 6], at: Duration, timeout: Duration) -> Option<Duration> {
        self.first_announcement(at, timeout, |sender| sender == machine)
    }

    fn first_announcement(&self, at: Duration, timeout: Duration, by: impl Fn([u8; 6]) -> bool) -> Option<Duration> {
        self.0.find(timeout, |seen| {
            seen.arrivals.iter().find(|(arrival, sender)| *arrival > at && by(*sender)).map(|(arrival, _)| *arrival)
        })
    }
}

/// What has been announced.
#[derive(Debug)]
struct Announcements {
    addresses: Vec<Ipv4Addr>,
    /// Arrivals by CLOCK_REALTIME since the epoch, in order, each with the hardware address of the frame's sender.
    arrivals: VecDeque<(Duration, [u8; 6])>,
}

impl Frames for Announcements {
    fn take(&mut self, frame: &[u8], at: Duration) -> bool {
        let Some(address) = announced(frame) else { return false };
        let (Some(sender), true) = (frame[6..].first_chunk(), self.addresses.contains(&address)) else { return false };
        if self.arrivals.len() == ANNOUNCEMENTS_MAX {
            self.arrivals.pop_front();
        }
        self.arrivals.push_back((at, *sender));
        true
    }
}

/// What becomes of the frames that a [`Watch`] sees.
pub(super) trait Frames: Send + 'static {
    /// Takes a frame, cut off at the watch's length, with its time of arrival by CLOCK_REALTIME since the epoch. Says whether
    /// that was worth waiting for.
    fn take(&mut self, frame: &[u8], at: Duration) -> bool;
}

/// A thread that hands the frames of one interface to a [`Frames`], until this is dropped.
#[derive(Debug)]
pub(super) struct Watch<F> {
    seen: Arc<Seen<F>>,
    stop: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

/// What has been seen, and who waits for more.
#[derive(Debug)]
struct Seen<F> {
    frames: Mutex<F>,
    grown: Condvar,
    stopping: AtomicBool,
    over: AtomicBool,
}

impl<F: Frames> Watch<F> {
    /// Begins to hand over frames of `ethertype`, the first `LENGTH` bytes of each.
    ///
    /// # Errors
    /// The operating system's error (no such interface; no CAP_NET_RAW).
    pub(super) fn start<const LENGTH: usize>(
        namespace: &Namespace,
        interface: &str,
        ethertype: u16,
        frames: F,
    ) -> io::Result<Self> {
        let mut socket = namespace.run(|| PacketSocket::open(socket::interface(interface)?.index, ethertype))?;
        let (seen, stop) = (Arc::new(Seen::new(frames)), Arc::new(Waker::new()?));
        let (seen_there, stop_there) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = std::thread::Builder::new().name(format!("watch-{interface}")).spawn(move || {
            if let Err(error) = watch::<LENGTH, F>(&mut socket, &seen_there, &stop_there) {
                tracing::error!(%error, "cannot watch any more");
            }
            seen_there.over.store(true, Ordering::Release);
            seen_there.grown.notify_all();
        })?;
        Ok(Watch { seen, stop, thread: Some(thread) })
    }

    /// What has been seen so far.
    pub(super) fn lock(&self) -> MutexGuard<'_, F> {
        self.seen.lock()
    }

    /// Waits until `find` finds something, up to `timeout`; `None` also if watching has failed.
    pub(super) fn find<T>(&self, timeout: Duration, find: impl Fn(&F) -> Option<T>) -> Option<T> {
        let until = now() + timeout;
        let mut frames = self.seen.lock();
        loop {
            let found = find(&frames);
            let left = until.since(now());
            if found.is_some() || left.is_zero() || self.seen.over.load(Ordering::Acquire) {
                return found;
            }
            frames = self.seen.grown.wait_timeout(frames, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl<F> Drop for Watch<F> {
    fn drop(&mut self) {
        self.seen.stopping.store(true, Ordering::Release);
        self.stop.wake();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed already.
            let _ = thread.join();
        }
    }
}

impl<F> Seen<F> {
    fn new(frames: F) -> Self {
        let [stopping, over] = [AtomicBool::new(false), AtomicBool::new(false)];
        Seen { frames: Mutex::new(frames), grown: Condvar::new(), stopping, over }
    }

    fn lock(&self) -> MutexGuard<'_, F> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread: takes frames until it is told to stop.
fn watch<const LENGTH: usize, F: Frames>(socket: &mut PacketSocket, seen: &Seen<F>, stop: &Waker) -> io::Result<()> {
    let mut frame = [0; LENGTH];
    while !seen.stopping.load(Ordering::Acquire) {
        wait(&[socket.as_fd(), stop.as_fd()], None)?;
        loop {
            match socket.receive(&mut frame) {
                Ok(Some((length, at))) => {
                    if seen.lock().take(&frame[..length], at) {
                        seen.grown.notify_all();
                    }
                }
                Ok(None) => break,
                // Said once; frames come again when the link is up again.
                Err(error) if error.kind() == io::ErrorKind::NetworkDown => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// The address that an Ethernet frame announces, if it is a gratuitous ARP request or reply for IPv4 (RFC 826, RFC
/// 5227).
fn announced(frame: &[u8]) -> Option<Ipv4Addr> {
    let arp = frame.get(12..FRAME_LENGTH)?;
    let [0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1 | 2, ..] = arp else { return None };
    let (sender, target) = (&arp[16..20], &arp[26..30]);
    let octets: [u8; 4] = sender.try_into().ok()?;
    (sender == target).then_some(Ipv4Addr::from(octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `arping -U 192.0.2.10` sends it: a request from and for the same address.
    const REQUEST: [u8; 42] = [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x5e, 0x00, 0x01, 0x33, 0x08, 0x06, // Ethernet
        0x00, 0x01, 0x08, 0x00, 0x06, 0x04, 0x00, 0x01, // hardware, protocol, lengths, operation
        0x00, 0x00, 0x5e, 0x00, 0x01, 0x33, 192, 0, 2, 10, // sender
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 192, 0, 2, 10, // target
    ];

    #[test]
    fn gratuitous_requests_and_replies_announce() {
        assert_eq!(announced(&REQUEST), Some(Ipv4Addr::new(192, 0, 2, 10)));
        let mut reply = REQUEST;
        reply[21] = 2;
        assert_eq!(announced(&reply), Some(Ipv4Addr::new(192, 0, 2, 10)));
    }

    #[test]
    fn nothing_else_announces() {
        // An ordinary question, a reverse ARP request, another hardware, another protocol, another length, another
        // ethertype.
        for (position, value) in [(41, 11), (21, 3), (15, 6), (16, 0x86), (19, 16), (13, 0)] {
            let mut frame = REQUEST;
            frame[position] = value;
            assert_eq!(announced(&frame), None, "byte {position}");
        }
        assert_eq!(announced(&REQUEST[..41]), None);
    }

    #[test]
    fn the_first_after_a_time_is_found_among_many_and_old_ones_are_forgotten() {
        let mut announcements =
            Announcements { addresses: vec![Ipv4Addr::new(192, 0, 2, 10)], arrivals: VecDeque::new() };
        for millisecond in 0..5000 {
            assert!(announcements.take(&REQUEST, Duration::from_millis(millisecond)));
        }
        let mut other = REQUEST;
        (other[31], other[41]) = (11, 11);
        assert!(!announcements.take(&other, Duration::from_millis(6000)));
        let seen = Arc::new(Seen::new(announcements));
        let watcher = Watcher(Watch { seen, stop: Arc::new(Waker::new().unwrap()), thread: None });
        let first_after = |ms| watcher.first_announcement_after(Duration::from_millis(ms), Duration::ZERO);
        assert_eq!(first_after(1000), Some(Duration::from_millis(1001)));
        assert_eq!(first_after(0), Some(Duration::from_millis(904)));
        assert_eq!(first_after(4999), None);
        let first_by = |sender| watcher.first_announcement_by(sender, Duration::from_millis(1000), Duration::ZERO);
        assert_eq!(first_by([0x00, 0x00, 0x5e, 0x00, 0x01, 0x33]), Some(Duration::from_millis(1001)));
        assert_eq!(first_by([0x00, 0x00, 0x5e, 0x00, 0x01, 0x34]), None);
    }
}
