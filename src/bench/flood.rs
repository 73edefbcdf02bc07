//! Frames as fast as they go: through a transport, and through bare `sendmmsg` and `recvmmsg` beside it.
//!
//! ```text
//!   sender's thread    ── 64 frames of 1480 bytes a call ──▶ ═══ ──▶ receiver's thread
//!                      until the time is over                        until nothing comes any more
//! ```
//!
//! The bare pair is the limit: the same frames on the same sockets and system calls, and nothing around them. Its frames are
//! written once and never read. Both wait as the daemon does.

use super::rest::{Resting, Spent, Stopwatch};
use super::street::Street;
use super::ways::{Ends, Link};
use super::workload::FRAME_LEN;
use super::{BenchError, Doing};
use crate::daemon::pace::Found;
use crate::sys::mmsg::{ReceiveBatch, SendBatch};
use crate::sys::socket::{interface, multicast_receiver, multicast_sender};
use crate::sys::{clock, poll};
use crate::time::{Duration, Instant};
use crate::wire::{FRAME_LEN_MAX, GROUP, IP_PROTOCOL};
use nix::errno::Errno;
use socket2::Socket;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Frames that one system call moves.
const BATCH: usize = 64;
/// Bytes of the buffers of bare sockets, as [`crate::transport::RawOptions`] asks for.
const BUFFERS: (usize, usize) = (16 << 20, 1 << 20);
/// Longest wait of a receiver before it looks whether all is over.
const LOOK: Duration = Duration::from_millis(5);
/// Longest IPv4 header.
const IP_HEADER_MAX: usize = 60;
/// Time between two frames that are alone on the line.
const LONELY: Duration = Duration::from_millis(2);

/// What one run of a flood came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flood {
    /// Frames that left.
    pub(super) sent: u64,
    /// What the sender's thread used.
    pub(super) sender: Spent,
    /// Frames that arrived, and what the receiver's thread used; `None` if nobody is there.
    pub(super) received: Option<(u64, Spent)>,
}

impl Flood {
    /// Frames a second that arrived. What comes after the sender's end counts for its time.
    pub(super) fn received_per_s(&self) -> Option<f64> {
        self.received.map(|(frames, _)| frames as f64 / self.sender.wall_s)
    }

    /// Frames a second that left.
    pub(super) fn sent_per_s(&self) -> f64 {
        self.sent as f64 / self.sender.wall_s
    }
}

/// Something that can be flooded: one call moves a batch and says how many frames, none if there was nothing to do.
trait Sending {
    fn send(&mut self) -> io::Result<usize>;
}

trait Receiving {
    fn receive(&mut self) -> io::Result<usize>;
    fn readiness(&self) -> Option<BorrowedFd<'_>>;
}

/// Floods a transport.
pub(super) fn through(ends: &mut Ends, time: Duration) -> Result<Flood, BenchError> {
    let frame = [0x5a; FRAME_LEN];
    let mut sender = OfTransport { link: &mut ends.0, frame };
    let mut receiver = ends.1.as_mut().map(|link| OfTransport { link, frame });
    flood(&mut sender, receiver.as_mut(), time)
}

/// One end of a transport, with the frame that it repeats.
struct OfTransport<'a> {
    link: &'a mut Link,
    frame: [u8; FRAME_LEN],
}

impl Sending for OfTransport<'_> {
    fn send(&mut self) -> io::Result<usize> {
        let frame = &self.frame;
        self.link.transmit(&mut |slot| {
            let length = slot.len().min(FRAME_LEN);
            slot[..length].copy_from_slice(&frame[..length]);
            Some(length)
        })
    }
}

impl Receiving for OfTransport<'_> {
    fn receive(&mut self) -> io::Result<usize> {
        self.link.receive(&mut |_, _| ())
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        self.link.readiness()
    }
}

/// Bare sockets on a street.
pub(super) struct Bare {
    sender: BareSender,
    receiver: Option<BareReceiver>,
}

struct BareSender {
    socket: Socket,
    batch: SendBatch,
}

struct BareReceiver {
    socket: Socket,
    batch: ReceiveBatch,
}

impl Bare {
    /// Opens them.
    pub(super) fn open(street: &Street) -> Result<Self, BenchError> {
        let (here, there) = street.at_each_end(|name| {
            let setup = |error: crate::sys::socket::SetupError| BenchError::Step {
                doing: "opening bare sockets",
                source: io::Error::other(error.to_string()),
            };
            let interface = interface(name).doing("looking at an interface")?;
            let group = IpAddr::V4(GROUP);
            let receiver = multicast_receiver(IP_PROTOCOL, group, &interface, BUFFERS.0).map_err(setup)?;
            let sender = multicast_sender(IP_PROTOCOL, group, &interface, BUFFERS.1).map_err(setup)?;
            Ok((sender, receiver))
        })?;
        let mut batch = SendBatch::new(BATCH, FRAME_LEN, SocketAddr::new(GROUP.into(), 0));
        while let Some(slot) = batch.slot() {
            slot.fill(0x5a);
            batch.commit(FRAME_LEN);
        }
        let receiver = there.map(|(_, socket)| {
            let batch = ReceiveBatch::new(BATCH, IP_HEADER_MAX + FRAME_LEN_MAX);
            BareReceiver { socket, batch }
        });
        Ok(Bare { sender: BareSender { socket: here.0, batch }, receiver })
    }

    /// Floods them.
    pub(super) fn flood(&mut self, time: Duration) -> Result<Flood, BenchError> {
        flood(&mut self.sender, self.receiver.as_mut(), time)
    }

    /// Nanoseconds of single frames on an idle line, from before the system call that sends one to after the one that
    /// brings it, for a receiver that sleeps meanwhile.
    pub(super) fn latencies_ns(&mut self, time: Duration) -> Result<Vec<u64>, BenchError> {
        let Bare { sender, receiver } = self;
        let receiver = receiver.as_mut().ok_or(BenchError::NobodyThere)?;
        let mut single = SendBatch::new(1, FRAME_LEN, SocketAddr::new(GROUP.into(), 0));
        let (over, until) = (AtomicBool::new(false), clock::now() + time);
        thread::scope(|scope| {
            let heard = scope.spawn(|| -> io::Result<Vec<u64>> {
                let mut latencies = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    poll::wait(&[receiver.socket.as_fd()], Some(LOOK))?;
                    let arrived = receiver.batch.receive(receiver.socket.as_fd(), BATCH)?;
                    let now = clock::now().as_nanos();
                    for index in 0..arrived {
                        let bytes = receiver.batch.datagram(index).bytes;
                        if let Some(stamp) = bytes.last_chunk() {
                            latencies.push(now.saturating_sub(u64::from_le_bytes(*stamp)));
                        }
                    }
                }
                Ok(latencies)
            });
            let mut said = Ok(());
            while said.is_ok() && clock::now() < until {
                thread::sleep(LONELY);
                single.clear();
                if let Some(slot) = single.slot() {
                    slot[FRAME_LEN - 8..].copy_from_slice(&clock::now().as_nanos().to_le_bytes());
                }
                single.commit(FRAME_LEN);
                said = single.send(sender.socket.as_fd(), 0).map(drop);
            }
            over.store(true, Ordering::Relaxed);
            said.doing("sending a bare frame")?;
            heard.join().map_err(|_| BenchError::Panicked)?.doing("receiving bare frames")
        })
    }
}

impl Sending for BareSender {
    fn send(&mut self) -> io::Result<usize> {
        let mut sent = 0;
        while sent < self.batch.len() {
            match self.batch.send(self.socket.as_fd(), sent) {
                Ok(taken) => sent += taken,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(sent)
    }
}

impl Receiving for BareReceiver {
    fn receive(&mut self) -> io::Result<usize> {
        self.batch.receive(self.socket.as_fd(), BATCH)
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }
}

fn flood(
    sender: &mut (impl Sending + Send),
    receiver: Option<&mut (impl Receiving + Send)>,
    time: Duration,
) -> Result<Flood, BenchError> {
    let (over, until) = (AtomicBool::new(false), clock::now() + time);
    thread::scope(|scope| {
        let hearing = receiver.map(|receiver| scope.spawn(|| hear(receiver, &over)));
        let said = say(sender, until);
        over.store(true, Ordering::Relaxed);
        let heard = hearing.map(|thread| thread.join().map_err(|_| BenchError::Panicked)).transpose()?;
        let (sent, sender) = said.doing("sending frames")?;
        let received = heard.transpose().doing("receiving frames")?;
        Ok(Flood { sent, sender, received })
    })
}

fn say(sender: &mut impl Sending, until: Instant) -> io::Result<(u64, Spent)> {
    let (watch, mut resting, mut sent) = (Stopwatch::start(), Resting::new(), 0);
    while clock::now() < until {
        match sender.send()? {
            0 => resting.rest(Found::FullQueue, None, LOOK),
            frames => sent += frames as u64,
        }
    }
    Ok((sent, watch.stop()))
}

/// Receives until it is over and nothing comes any more.
fn hear(receiver: &mut impl Receiving, over: &AtomicBool) -> io::Result<(u64, Spent)> {
    let (watch, mut resting, mut heard) = (Stopwatch::start(), Resting::new(), 0);
    loop {
        let last = over.load(Ordering::Relaxed);
        let frames = receiver.receive()?;
        heard += frames as u64;
        let found = match frames {
            0 if last => return Ok((heard, watch.stop())),
            0 => Found::Nothing,
            BATCH.. => Found::MoreThanOneTurn,
            _ => Found::Work,
        };
        resting.rest(found, receiver.readiness(), LOOK);
    }
}
