//! What a pair still hears while the machine is busy with something else: `ssyncp bench --flood`.
//!
//! ```text
//!   sender ── a frame every 200 µs, with the moment in it ──▶ ═══ veth ═══ ──▶ receiver: how many came, and how late
//!   storm  ── as fast as it goes ───────────────────────────▶  ║
//!             calm            nothing
//!             small packets   UDP of 18 bytes to the host's own address, at a port that nobody reads
//!             foreign group   full frames of protocol 114 to the same multicast address
//!             stopped         the receiver is not scheduled for 50 ms of every 250
//! ```
//!
//! Sender and receiver are real-time threads, as the daemon's loops are; the storm is not. The bare pair under the same
//! storm is the limit of latency.

use super::bare::{self, BATCH};
use super::flood::{BareEnds, Receiving, Sending, Stamped, found};
use super::rest::Resting;
use super::street::{ADDRESSES, Street};
use super::workload::{SYNC_ID, full_frame};
use super::{BenchError, Doing};
use crate::daemon::pace::Found;
use crate::daemon::settings::REALTIME_PRIORITY;
use crate::sys::mmsg::SendBatch;
use crate::sys::namespace::Namespace;
use crate::sys::poll::Descriptors;
use crate::sys::socket::{interface, multicast_sender};
use crate::sys::{clock, schedule};
use crate::time::{Duration, Instant};
use crate::wire::{GROUP, IP_PROTOCOL};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Sync frames a second: those of some 300,000 records.
const FRAMES_PER_S: f64 = 5000.0;
/// The group whose frames are nobody's here.
const FOREIGN: u8 = SYNC_ID + 1;
/// Payload of a small packet: 60 bytes of Ethernet.
const SMALL: [u8; 18] = [0x5a; 18];
/// Bytes of the queue of a socket that nobody reads: as few as the kernel lets it have.
const UNREAD: usize = 1;
/// The receiver stands still for this long, so often.
const STOP: Duration = Duration::from_millis(50);
const STOP_EVERY: Duration = Duration::from_millis(250);
/// What has not come this long after the last one has is lost.
const SILENCE: Duration = Duration::from_millis(100);
/// Longest rest of a thread.
const LOOK: Duration = Duration::from_millis(5);
/// Latencies that one run keeps.
const LATENCIES_MAX: usize = 1 << 20;
/// Room in the kernel for what the storm sends.
const SEND_BUFFER: usize = 1 << 20;

/// What else happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Storm {
    /// Nothing.
    Calm,
    /// Small packets to the same host.
    SmallPackets,
    /// Frames of another group.
    ForeignGroup,
    /// The receiver is not scheduled for a while.
    Stopped,
}

/// All of them, and what rows call them.
pub(super) const STORMS: [(Storm, &str); 4] = [
    (Storm::Calm, "calm"),
    (Storm::SmallPackets, "small packets"),
    (Storm::ForeignGroup, "foreign group"),
    (Storm::Stopped, "receiver stopped"),
];

/// What one run came to.
#[derive(Debug)]
pub(super) struct Weathered {
    /// Sync frames that left, and that arrived.
    pub(super) sent: u64,
    pub(super) received: u64,
    /// Nanoseconds from when each was due until it was there.
    pub(super) latencies_ns: Vec<u64>,
    /// Packets a second of the storm; `None` where there is none.
    pub(super) storm_per_s: Option<f64>,
}

impl Weathered {
    /// Sync frames that did not arrive, of a hundred.
    pub(super) fn lost_percent(&self) -> f64 {
        self.sent.saturating_sub(self.received) as f64 / self.sent.max(1) as f64 * 100.0
    }
}

/// Sends sync frames through `ends` for this long, while the storm is on.
pub(super) fn weather(
    ends: &mut BareEnds,
    storm: Storm,
    street: &Street,
    time: Duration,
) -> Result<Weathered, BenchError> {
    let (sender, receiver) = ends;
    let receiver = receiver.as_mut().ok_or(BenchError::NobodyThere)?;
    let mut source = Source::open(storm, street)?;
    let (calm, over) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let raging = source.as_mut().map(|source| scope.spawn(|| source.rage(&calm)));
        let hearing = scope.spawn(|| hear(receiver.as_mut(), storm == Storm::Stopped, &over));
        let saying = scope.spawn(|| say(sender.as_mut(), clock::now() + time));
        let said = saying.join();
        calm.store(true, Ordering::Relaxed);
        let raged = raging.map(|thread| thread.join().map_err(|_| BenchError::Panicked)).transpose();
        over.store(true, Ordering::Relaxed);
        let (received, latencies_ns) = hearing.join().map_err(|_| BenchError::Panicked)?.doing("receiving frames")?;
        let sent = said.map_err(|_| BenchError::Panicked)?.doing("sending frames")?;
        let storm_per_s = raged?.transpose().doing("sending the storm")?;
        Ok(Weathered { sent, received, latencies_ns, storm_per_s })
    })
}

/// Frames at their pace, each with the moment at which it was due.
fn say(sender: &mut dyn Sending, until: Instant) -> io::Result<u64> {
    // Who may not goes on as an ordinary thread, as the daemon does.
    let _ = schedule::real_time(REALTIME_PRIORITY);
    let (mut frame, mut sent, start) = (Stamped::new(SYNC_ID), 0, clock::now());
    loop {
        let due = start + Duration::from_secs_f64(sent as f64 / FRAMES_PER_S);
        let now = clock::now();
        if now >= until {
            return Ok(sent);
        }
        if now < due {
            thread::sleep(due.since(now));
        } else if sender.send_one(frame.at(due))? {
            sent += 1;
        } else {
            thread::yield_now();
        }
    }
}

/// Receives until it is over and nothing has come for a while: how many, and how late.
fn hear(receiver: &mut dyn Receiving, stops: bool, over: &AtomicBool) -> io::Result<(u64, Vec<u64>)> {
    let _ = schedule::real_time(REALTIME_PRIORITY);
    let mut latencies = Vec::with_capacity(LATENCIES_MAX);
    let (mut resting, mut received) = (Resting::new(), 0);
    let (mut last_heard, mut next_stop) = (clock::now(), clock::now() + STOP_EVERY);
    loop {
        let before = received;
        let frames = receiver.receive(&mut |bytes| {
            let Some(age) = Stamped::age_ns(SYNC_ID, bytes, clock::now()) else { return };
            received += 1;
            if latencies.len() < LATENCIES_MAX {
                latencies.push(age);
            }
        })?;
        let now = clock::now();
        if received > before {
            last_heard = now;
        }
        if over.load(Ordering::Relaxed) && now.since(last_heard) > SILENCE {
            return Ok((received, latencies));
        }
        if stops && now >= next_stop {
            next_stop = now + STOP_EVERY;
            thread::sleep(STOP);
        }
        resting.rest(found(frames), || receiver.readiness(), LOOK);
    }
}

/// Who makes the storm: a socket, and a batch that it sends again and again.
struct Source {
    socket: OwnedFd,
    batch: SendBatch,
    /// Keeps the port of small packets taken, so that nobody answers them.
    _unread: Option<UdpSocket>,
}

impl Source {
    /// `None` for a storm that sends nothing.
    fn open(storm: Storm, street: &Street) -> Result<Option<Self>, BenchError> {
        let Street::Veth { here, there } = street else { return Err(BenchError::NobodyThere) };
        match storm {
            Storm::Calm | Storm::Stopped => Ok(None),
            Storm::SmallPackets => Source::small_packets(here, there).doing("preparing small packets").map(Some),
            Storm::ForeignGroup => Source::foreign_group(here).doing("preparing a foreign group").map(Some),
        }
    }

    fn small_packets(here: &Namespace, there: &Namespace) -> io::Result<Self> {
        let unread = there.run(|| UdpSocket::bind((ADDRESSES[1], 0)))?;
        // A size that cannot be set is one that is larger.
        let _ = socket2::SockRef::from(&unread).set_recv_buffer_size(UNREAD);
        let socket = here.run(|| UdpSocket::bind((ADDRESSES[0], 0)))?;
        socket.set_nonblocking(true)?;
        let batch = bare::same(BATCH, &SMALL, unread.local_addr()?);
        Ok(Source { socket: socket.into(), batch, _unread: Some(unread) })
    }

    fn foreign_group(here: &Namespace) -> io::Result<Self> {
        let group = IpAddr::V4(GROUP);
        let socket = here.run(|| {
            let interface = interface(super::street::SYNC)?;
            let socket = multicast_sender(IP_PROTOCOL, group, &interface, SEND_BUFFER);
            socket.map_err(|error| io::Error::other(error.to_string()))
        })?;
        let batch = bare::same(BATCH, &full_frame(FOREIGN), SocketAddr::new(group, 0));
        Ok(Source { socket: socket.into(), batch, _unread: None })
    }

    /// Sends until all is calm: packets a second.
    fn rage(&mut self, calm: &AtomicBool) -> io::Result<f64> {
        let (start, mut sent, mut resting) = (clock::now(), 0, Resting::new());
        while !calm.load(Ordering::Relaxed) {
            match bare::send(self.socket.as_fd(), &mut self.batch)? {
                0 => resting.rest(Found::FullQueue, Descriptors::default, LOOK),
                packets => sent += packets,
            }
        }
        Ok(sent as f64 / clock::now().since(start).as_secs_f64())
    }
}
