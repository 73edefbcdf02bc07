//! Frames inside one process: a shared medium with any number of ports, for tests, the simulator's neighbours and the
//! demo.
//!
//! ```text
//!  port 0 ─ transmit ─┐         ┌→ queue of port 1 ─ receive ─ port 1
//!                     ├─ filter ┤
//!                     └         └→ queue of port 2 ─ receive ─ port 2
//! ```
//!
//! Every frame reaches every other port, in order. A queue that is full drops the newest frame and counts it, as a
//! socket buffer does. A port's readiness is an eventfd that can be read while frames wait (until a call has found
//! nothing), so a thread can sleep on it beside sockets. Nothing is allocated after [`MemoryHub::port`].

use super::{Limits, Transport, TransportCounters};
use crate::sys::poll::{Descriptors, Waker};
use crate::wire::FrameMeta;
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the medium does with one frame on its way to one port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It arrives.
    Deliver,
    /// It is lost.
    Drop,
    /// It arrives twice.
    Duplicate,
}

/// Decides over each frame: from which port, to which port, its bytes.
pub type Filter = Box<dyn FnMut(usize, usize, &[u8]) -> Fate + Send>;

/// A medium's measures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryOptions {
    /// Largest frame in bytes.
    pub frame_len: usize,
    /// Most frames that one call moves.
    pub batch: usize,
    /// Most frames that wait at one port.
    pub queue: usize,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        MemoryOptions { frame_len: 1480, batch: 64, queue: 1024 }
    }
}

/// A shared medium. Clones are the same medium.
#[derive(Clone)]
pub struct MemoryHub {
    options: MemoryOptions,
    medium: Arc<Mutex<Medium>>,
}

impl MemoryHub {
    /// A medium of the default measures.
    pub fn new() -> Self {
        MemoryHub::with_options(MemoryOptions::default())
    }

    /// A medium of these measures; each is at least 1.
    pub fn with_options(options: MemoryOptions) -> Self {
        let options = MemoryOptions {
            frame_len: options.frame_len.max(1),
            batch: options.batch.max(1),
            queue: options.queue.max(1),
        };
        MemoryHub { options, medium: Arc::new(Mutex::new(Medium { ports: Vec::new(), filter: None })) }
    }

    /// A new port. Ports are numbered from 0 in the order in which they are made; it is gone when it is dropped. If the
    /// process has no descriptor left for its readiness, there is nothing to wait on and it must be asked.
    pub fn port(&self) -> MemoryTransport {
        let waker = Waker::new()
            .inspect_err(|error| tracing::warn!(%error, "no descriptor for a port's readiness: it must be polled"))
            .ok()
            .map(Arc::new);
        let queue = || Queue::new(self.options.queue, self.options.frame_len);
        let mut medium = lock(&self.medium);
        let number = medium.ports.len();
        medium.ports.push(Some(Port { queue: queue(), waker: waker.clone(), dropped: 0 }));
        MemoryTransport {
            number,
            options: self.options,
            medium: Arc::clone(&self.medium),
            waker,
            incoming: queue(),
            outgoing: Queue::new(self.options.batch, self.options.frame_len),
            counters: TransportCounters::default(),
        }
    }

    /// Has `filter` decide over every frame from now on. It is called with the medium held: it must not use the medium.
    pub fn set_filter(&self, filter: Filter) {
        lock(&self.medium).filter = Some(filter);
    }

    /// Lets every frame arrive again.
    pub fn clear_filter(&self) {
        lock(&self.medium).filter = None;
    }
}

impl Default for MemoryHub {
    fn default() -> Self {
        MemoryHub::new()
    }
}

/// A port of a [`MemoryHub`].
pub struct MemoryTransport {
    number: usize,
    options: MemoryOptions,
    medium: Arc<Mutex<Medium>>,
    waker: Option<Arc<Waker>>,
    /// Frames that were taken from the medium in one go and are lent from here, so that nobody waits for `deliver`.
    incoming: Queue,
    /// Frames of one [`Transport::transmit`], so that nobody waits for `fill`. Empty between calls.
    outgoing: Queue,
    counters: TransportCounters,
}

impl MemoryTransport {
    /// Its number in the medium; a frame's [`FrameMeta::source`] is 127.1.0.0 plus its sender's.
    pub fn number(&self) -> usize {
        self.number
    }
}

impl Transport for MemoryTransport {
    fn limits(&self) -> Limits {
        Limits { frame_len: self.options.frame_len, batch: self.options.batch }
    }

    fn receive(&mut self, deliver: &mut dyn FnMut(FrameMeta, &mut [u8])) -> io::Result<usize> {
        let mut delivered = 0;
        while delivered < self.options.batch {
            if self.incoming.is_empty() {
                self.fetch();
            }
            let Some((from, frame)) = self.incoming.pop() else { break };
            self.counters.received(frame);
            delivered += 1;
            deliver(FrameMeta { link: 0, source: address(from) }, frame);
        }
        Ok(delivered)
    }

    fn transmit(&mut self, fill: &mut dyn FnMut(&mut [u8]) -> Option<usize>) -> io::Result<usize> {
        for _ in 0..self.options.batch {
            let Some(length) = self.outgoing.slot().and_then(&mut *fill) else { break };
            if (1..=self.options.frame_len).contains(&length) {
                self.outgoing.commit(self.number, length);
            } else {
                self.counters.send_errors += 1;
            }
        }
        if self.outgoing.is_empty() {
            return Ok(0);
        }
        let mut left = 0;
        let mut medium = lock(&self.medium);
        while let Some((from, frame)) = self.outgoing.pop() {
            medium.spread(from, frame);
            self.counters.sent(frame.len());
            left += 1;
        }
        Ok(left)
    }

    fn readiness(&self) -> Descriptors<'_> {
        self.waker.as_ref().map(|waker| waker.as_fd()).into_iter().collect()
    }

    fn counters(&self) -> TransportCounters {
        let medium = lock(&self.medium);
        let dropped = medium.ports.get(self.number).and_then(Option::as_ref).map_or(0, |port| port.dropped);
        let buffer = (self.options.queue * self.options.frame_len) as u64;
        TransportCounters { dropped_by_kernel: dropped, receive_buffer: buffer, ..self.counters }
    }
}

impl MemoryTransport {
    /// Takes all that waits in the medium, or forgets the wake-ups if nothing does. A frame that comes later wakes
    /// anew, because both happen with the medium held.
    fn fetch(&mut self) {
        let mut medium = lock(&self.medium);
        let Some(Some(port)) = medium.ports.get_mut(self.number) else { return };
        mem::swap(&mut port.queue, &mut self.incoming);
        if let Some(waker) = self.waker.as_ref().filter(|_| self.incoming.is_empty()) {
            waker.drain();
        }
    }
}

impl Drop for MemoryTransport {
    fn drop(&mut self) {
        if let Some(port) = lock(&self.medium).ports.get_mut(self.number) {
            *port = None;
        }
    }
}

/// What the ports share.
struct Medium {
    /// Each under its number; `None` once it is gone.
    ports: Vec<Option<Port>>,
    filter: Option<Filter>,
}

struct Port {
    queue: Queue,
    waker: Option<Arc<Waker>>,
    dropped: u64,
}

impl Medium {
    fn spread(&mut self, from: usize, frame: &[u8]) {
        for (to, port) in self.ports.iter_mut().enumerate() {
            let Some(port) = port.as_mut().filter(|_| to != from) else { continue };
            let copies = match self.filter.as_mut().map_or(Fate::Deliver, |filter| filter(from, to, frame)) {
                Fate::Drop => 0,
                Fate::Deliver => 1,
                Fate::Duplicate => 2,
            };
            for _ in 0..copies {
                port.take(from, frame);
            }
        }
    }
}

impl Port {
    fn take(&mut self, from: usize, frame: &[u8]) {
        let was_empty = self.queue.is_empty();
        let Some(slot) = self.queue.slot() else {
            self.dropped += 1;
            return;
        };
        slot[..frame.len()].copy_from_slice(frame);
        self.queue.commit(from, frame.len());
        if was_empty && let Some(waker) = &self.waker {
            waker.wake();
        }
    }
}

/// Frames in a ring of slots.
struct Queue {
    bytes: Vec<u8>,
    slot_len: usize,
    /// Of each slot: the frame's sender and its length.
    labels: Vec<(usize, usize)>,
    head: usize,
    count: usize,
}

impl Queue {
    fn new(slots: usize, slot_len: usize) -> Self {
        Queue { bytes: vec![0; slots * slot_len], slot_len, labels: vec![(0, 0); slots], head: 0, count: 0 }
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The next free slot, whole; `None` if all are taken.
    fn slot(&mut self) -> Option<&mut [u8]> {
        let index = self.tail()?;
        Some(&mut self.bytes[index * self.slot_len..][..self.slot_len])
    }

    /// Makes the first `length` bytes of the free slot a frame from port `from`.
    fn commit(&mut self, from: usize, length: usize) {
        if let Some(index) = self.tail() {
            self.labels[index] = (from, length);
            self.count += 1;
        }
    }

    /// Takes the oldest frame out and lends it.
    fn pop(&mut self) -> Option<(usize, &mut [u8])> {
        if self.is_empty() {
            return None;
        }
        let index = self.head;
        self.head = (index + 1) % self.labels.len();
        self.count -= 1;
        let (from, length) = self.labels[index];
        Some((from, &mut self.bytes[index * self.slot_len..][..length]))
    }

    fn tail(&self) -> Option<usize> {
        (self.count < self.labels.len()).then(|| (self.head + self.count) % self.labels.len())
    }
}

fn address(port: usize) -> IpAddr {
    const FIRST: u32 = u32::from_be_bytes([127, 1, 0, 0]);
    IpAddr::V4(Ipv4Addr::from(FIRST.wrapping_add(port as u32)))
}

/// A port's owner that panicked (or a filter) leaves the medium whole: every change to it is complete or was not begun.
fn lock(medium: &Mutex<Medium>) -> MutexGuard<'_, Medium> {
    medium.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::poll;
    use crate::time::Duration;

    fn send(port: &mut MemoryTransport, frames: &[&[u8]]) {
        let mut frames = frames.iter();
        while port
            .transmit(&mut |slot| {
                let frame = frames.next()?;
                slot[..frame.len()].copy_from_slice(frame);
                Some(frame.len())
            })
            .unwrap()
            > 0
        {}
    }

    fn heard(port: &mut MemoryTransport) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while port.receive(&mut |_, frame| frames.push(frame.to_vec())).unwrap() > 0 {}
        frames
    }

    fn readable(port: &MemoryTransport) -> bool {
        use nix::poll::{PollFd, PollFlags, PollTimeout};
        let mut polled = [PollFd::new(port.readiness()[0], PollFlags::POLLIN)];
        nix::poll::poll(&mut polled, PollTimeout::ZERO).unwrap() == 1
    }

    #[test]
    fn the_filter_decides_for_each_port_alone() {
        let hub = MemoryHub::new();
        let (mut a, mut b, mut c) = (hub.port(), hub.port(), hub.port());
        hub.set_filter(Box::new(|from, to, frame| {
            assert_eq!((from, frame), (0, b"x".as_slice()));
            if to == 1 { Fate::Drop } else { Fate::Duplicate }
        }));
        send(&mut a, &[b"x"]);
        assert_eq!(heard(&mut b), Vec::<Vec<u8>>::new());
        assert_eq!(heard(&mut c), [b"x", b"x"]);
        hub.clear_filter();
        send(&mut a, &[b"y"]);
        assert_eq!(heard(&mut b), [b"y"]);
    }

    #[test]
    fn a_full_queue_drops_the_newest_and_counts_it() {
        let hub = MemoryHub::with_options(MemoryOptions { frame_len: 8, batch: 64, queue: 2 });
        let (mut a, mut b) = (hub.port(), hub.port());
        send(&mut a, &[b"1", b"2", b"3", b"4", b"5"]);
        assert_eq!(heard(&mut b), [b"1", b"2"]);
        assert_eq!(b.counters().dropped_by_kernel, 3);
        assert_eq!(a.counters().dropped_by_kernel, 0);
    }

    #[test]
    fn it_is_ready_while_frames_wait_and_not_when_none_was_found() {
        let hub = MemoryHub::with_options(MemoryOptions { frame_len: 8, batch: 2, queue: 8 });
        let (mut a, mut b) = (hub.port(), hub.port());
        assert!(!readable(&b));
        send(&mut a, &[b"1", b"2", b"3"]);
        assert!(readable(&b) && !readable(&a));
        assert_eq!(b.receive(&mut |_, _| {}).unwrap(), 2);
        assert!(readable(&b), "one frame waits in the port");
        send(&mut a, &[b"4", b"5"]);
        assert_eq!(b.receive(&mut |_, _| {}).unwrap(), 2, "one from the port, one from the medium");
        assert!(readable(&b));
        assert_eq!(b.receive(&mut |_, _| {}).unwrap(), 1);
        assert!(!readable(&b));
    }

    #[test]
    fn a_sleeping_thread_is_woken_by_a_frame() {
        let hub = MemoryHub::new();
        let (mut a, mut b) = (hub.port(), hub.port());
        let sleeper = std::thread::spawn(move || {
            poll::wait(&b.readiness(), Some(Duration::from_secs(10))).unwrap();
            heard(&mut b)
        });
        send(&mut a, &[b"wake"]);
        assert_eq!(sleeper.join().unwrap(), [b"wake"]);
    }

    #[test]
    fn no_frame_slips_past_a_receiver_that_goes_to_sleep() {
        let hub = MemoryHub::with_options(MemoryOptions { frame_len: 8, batch: 1, queue: 8192 });
        let (mut a, mut b) = (hub.port(), hub.port());
        let speaker = std::thread::spawn(move || (0..8192u32).for_each(|n| send(&mut a, &[&n.to_be_bytes()])));
        for n in 0..8192u32 {
            let mut frames = Vec::new();
            while b.receive(&mut |_, frame| frames.push(frame.to_vec())).unwrap() == 0 {
                poll::wait(&b.readiness(), Some(Duration::from_secs(10))).unwrap();
                assert!(readable(&b), "slept for ten seconds before frame {n}");
            }
            assert_eq!(frames, [n.to_be_bytes()]);
        }
        speaker.join().unwrap();
    }

    #[test]
    fn a_port_that_is_gone_gets_nothing_and_keeps_its_number() {
        let hub = MemoryHub::new();
        let (mut a, b) = (hub.port(), hub.port());
        drop(b);
        let mut c = hub.port();
        assert_eq!((a.number(), c.number()), (0, 2));
        send(&mut a, &[b"x"]);
        let mut source = None;
        c.receive(&mut |meta, _| source = Some(meta.source.to_string())).unwrap();
        assert_eq!(source.as_deref(), Some("127.1.0.0"));
    }
}
