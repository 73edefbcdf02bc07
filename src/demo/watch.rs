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
pub struct Watcher {
    seen: Arc<Seen>,
    stop: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

/// What has been seen, and who waits for more.
#[derive(Debug, Default)]
struct Seen {
    log: Mutex<Log>,
    grown: Condvar,
    stopping: AtomicBool,
}

#[derive(Debug, Default)]
struct Log {
    /// Arrivals by CLOCK_REALTIME since the epoch, in order.
    arrivals: VecDeque<Duration>,
    over: bool,
}

impl Watcher {
    /// Begins to watch `interface` inside `namespace` for announcements of `addresses`.
    ///
    /// # Errors
    /// The operating system's error (no such interface; no CAP_NET_RAW).
    pub fn start(namespace: &Namespace, interface: &str, addresses: Vec<Ipv4Addr>) -> io::Result<Watcher> {
        let mut socket = namespace.run(|| PacketSocket::open(socket::interface(interface)?.index, ETHERTYPE_ARP))?;
        let (seen, stop) = (Arc::new(Seen::default()), Arc::new(Waker::new()?));
        let (seen_there, stop_there) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = std::thread::Builder::new().name("arp-watch".into()).spawn(move || {
            if let Err(error) = watch(&mut socket, &addresses, &seen_there, &stop_there) {
                tracing::error!(%error, "cannot watch for announcements any more");
            }
            seen_there.lock().over = true;
            seen_there.grown.notify_all();
        })?;
        Ok(Watcher { seen, stop, thread: Some(thread) })
    }

    /// When the first announcement after `at` arrived; both by CLOCK_REALTIME since the epoch. Waits for it up to
    /// `timeout`. Announcements of the past count, as far as they are remembered (4096 of them). `None` also if
    /// watching has failed.
    pub fn first_announcement_after(&self, at: Duration, timeout: Duration) -> Option<Duration> {
        let until = now() + timeout;
        let mut log = self.seen.lock();
        loop {
            if let Some(arrival) = log.arrivals.iter().find(|arrival| **arrival > at) {
                return Some(*arrival);
            }
            let left = until.since(now());
            if left.is_zero() || log.over {
                return None;
            }
            log = self.seen.grown.wait_timeout(log, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.seen.stopping.store(true, Ordering::Release);
        self.stop.wake();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed already.
            let _ = thread.join();
        }
    }
}

impl Seen {
    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, arrival: Duration) {
        let mut log = self.lock();
        if log.arrivals.len() == ANNOUNCEMENTS_MAX {
            log.arrivals.pop_front();
        }
        log.arrivals.push_back(arrival);
        self.grown.notify_all();
    }
}

/// The thread: takes frames until it is told to stop.
fn watch(socket: &mut PacketSocket, addresses: &[Ipv4Addr], seen: &Seen, stop: &Waker) -> io::Result<()> {
    let mut frame = [0; FRAME_LENGTH];
    while !seen.stopping.load(Ordering::Acquire) {
        wait(&[socket.as_fd(), stop.as_fd()], None)?;
        loop {
            match socket.receive(&mut frame) {
                Ok(Some((length, at))) => {
                    if announced(&frame[..length]).is_some_and(|address| addresses.contains(&address)) {
                        seen.note(at);
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
        let seen = Arc::new(Seen::default());
        for millisecond in 0..5000 {
            seen.note(Duration::from_millis(millisecond));
        }
        let watcher = Watcher { seen: Arc::clone(&seen), stop: Arc::new(Waker::new().unwrap()), thread: None };
        let first_after = |ms| watcher.first_announcement_after(Duration::from_millis(ms), Duration::ZERO);
        assert_eq!(first_after(1000), Some(Duration::from_millis(1001)));
        assert_eq!(first_after(0), Some(Duration::from_millis(904)));
        assert_eq!(first_after(4999), None);
    }
}
