//! AF_XDP sockets (Documentation/networking/af_xdp.rst): frames of one receive queue in and out through memory that is
//! shared with the kernel, past its network stack.
//!
//! ```text
//!            fill ring ─▶ chunk ┐                     ┌ receive ring ─▶ lent to the reader ─▶ fill ring …
//!   kernel                      ├ frame of the queue ─┘
//!            send ring ─▶ frame ──▶ wire ──▶ completion ring ─▶ slot is free again
//! ```
//!
//! Every chunk is in the fill ring but the few that the reader has at the moment, so that a process which is not
//! scheduled for a while loses nothing until the whole memory is full. Receiving takes no system call. Sending takes one
//! where the kernel asks for it (need-wakeup); in copy mode it always does, and sends one budget of frames in each.
//!
//! The traps, all of them met (Linux 6.18):
//!
//! * The kernel frees a queue some milliseconds *after* its socket was closed; until then `bind` says `EBUSY`.
//! * In copy mode a send call moves 32 frames (Linux 6.17: XDP_MAX_TX_SKB_BUDGET more) and then says `EAGAIN`, which
//!   means "call again". It means "full" only where a call has moved nothing.
//! * `EBUSY` from a send call means that one frame was taken and lost in a queue further down.
//! * Sent frames are charged to the send buffer until the other end has read them.
//! * Memory counts against RLIMIT_MEMLOCK, unless there is CAP_IPC_LOCK.
//! * A frame longer than a chunk comes in several descriptors (XDP_USE_SG, Linux 6.6); without that it is dropped.
//!
//! Why no package carries the rings: the one that builds without C and is kept up (`xdp` 0.8) never reads the need-wakeup
//! flag, and so costs a system call for each batch, has frames of at most a page, and no send budget.

mod cursor;
mod frames;
mod ledger;
mod memory;
mod queues;
mod ring;

pub use queues::receive_queues;

use super::socket::{SetupError, set_option};
use frames::Frames;
use ledger::{CHUNK_LEN, Ledger};
use memory::Umem;
use nix::errno::Errno;
use nix::sys::socket::sockopt;
use ring::{InRing, Mapped, OutRing};
use std::collections::VecDeque;
use std::io;
use std::mem::{MaybeUninit, size_of, size_of_val};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::{Duration, Instant};

/// Bytes that one chunk holds of a frame that arrives, behind the 256 that are the kernel's (XDP_PACKET_HEADROOM).
pub const CHUNK_ROOM: usize = CHUNK_LEN - 256;
/// Least and most chunks of receive memory; their number is a power of two.
const CHUNKS_LEAST: u32 = 2;
const CHUNKS_MOST: u32 = 1 << 16;
/// Fewer than so many are not tried where memory may not be locked.
const CHUNKS_LOCKED_LEAST: u32 = 64;

/// Frames after which chunks go back to the fill ring while a batch is still being read.
const REFILL_EVERY: usize = 16;
/// Frames of one send call, where the kernel can be told.
const SEND_BUDGET: u32 = 1024;
/// The option for that (linux/if_xdp.h); not in libc.
const XDP_MAX_TX_SKB_BUDGET: i32 = 9;
/// Pause between two tries to bind a queue that the kernel has not freed yet.
const BIND_PAUSE: Duration = Duration::from_millis(1);

/// How to open a socket.
#[derive(Clone, Debug)]
pub struct XskOptions {
    /// Number of the interface.
    pub index: u32,
    /// Its receive queue.
    pub queue: u32,
    /// Bytes of memory for frames that arrive: rounded down to a power of two of chunks of 4096 bytes.
    pub receive_memory: usize,
    /// Frames that may be on their way out; 0 for a socket that only receives.
    pub slots: u32,
    /// Longest frame in bytes, from the Ethernet header on, either way.
    pub frame_len: usize,
    /// Longest frame that must pass now, whatever it costs; for longer ones sharing memory with the driver is not given
    /// up.
    pub frame_len_now: usize,
    /// Bytes of send buffer to ask for.
    pub send_buffer: usize,
    /// Whether the driver may share memory with us, which takes a program in native mode.
    pub zero_copy: bool,
    /// How long to wait for a queue that another socket has just left.
    pub patience: Duration,
}

/// An AF_XDP socket, bound to one receive queue of one interface.
#[derive(Debug)]
pub struct XskSocket {
    descriptor: OwnedFd,
    frames: Frames,
    fill: OutRing<Mapped<u64>>,
    completion: InRing<Mapped<u64>>,
    receive: InRing<Mapped<libc::xdp_desc>>,
    send: Option<OutRing<Mapped<libc::xdp_desc>>>,
    /// Frames in the send ring, oldest first.
    queued: VecDeque<Queued>,
    /// The first so many of them were taken back: what is left in the ring in their place is for the kernel to skip.
    void: usize,
    /// Frames of those that the kernel has taken and lost.
    lost: u64,
    zero_copy: bool,
    frame_len_max: usize,
    receive_memory: usize,
    impossible: u64,
}

/// A frame in the send ring.
#[derive(Clone, Copy, Debug)]
struct Queued {
    length: usize,
    pieces: u32,
}

/// What the kernel has counted at a socket (XDP_STATISTICS).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct XskStatistics {
    /// Frames dropped because no memory was there for them, or the receive ring was full, or they were too long.
    pub dropped: u64,
    /// Descriptors of ours that it did not take.
    pub invalid: u64,
}

impl XskSocket {
    /// Opens and binds one, in the calling thread's network namespace.
    ///
    /// # Errors
    /// The step and the operating system's error: `EPERM` without CAP_NET_RAW, `EBUSY` at `bind` if another socket has
    /// the queue, `EINVAL` there if the interface has no such queue, `ENOBUFS` at `XDP_UMEM_REG` if not even the least
    /// memory may be locked (RLIMIT_MEMLOCK).
    pub fn open(options: &XskOptions) -> Result<Self, SetupError> {
        let mut chunks = chunks_of(options.receive_memory);
        let (descriptor, umem, ledger) = loop {
            match with_memory(options, chunks) {
                Err(error) if is_memory(&error.source) && chunks > CHUNKS_LOCKED_LEAST => chunks /= 2,
                other => break other?,
            }
        };
        let send_size = ledger.pieces_max().next_power_of_two();
        let option = |name, size: u32, step| set_option(&descriptor, libc::SOL_XDP, name, size).map_err(at(step));
        option(libc::XDP_UMEM_FILL_RING, chunks, "XDP_UMEM_FILL_RING")?;
        option(libc::XDP_UMEM_COMPLETION_RING, send_size, "XDP_UMEM_COMPLETION_RING")?;
        option(libc::XDP_RX_RING, chunks, "XDP_RX_RING")?;
        if options.slots > 0 {
            option(libc::XDP_TX_RING, send_size, "XDP_TX_RING")?;
            // An older kernel has no such option, and sends 32 in a call.
            let _ = set_option(&descriptor, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, SEND_BUDGET.min(send_size));
            ask_for_send_buffer(&descriptor, options.send_buffer).map_err(at("SO_SNDBUF"))?;
        }
        let offsets: libc::xdp_mmap_offsets =
            get_option(&descriptor, libc::XDP_MMAP_OFFSETS).map_err(at("XDP_MMAP_OFFSETS"))?;
        let ring = at("mmap");
        let socket = descriptor.as_fd();
        let (fill, completion, receive, send) = (|| {
            io::Result::Ok((
                OutRing::map(socket, libc::XDP_UMEM_PGOFF_FILL_RING as i64, &offsets.fr, chunks)?,
                InRing::map(socket, libc::XDP_UMEM_PGOFF_COMPLETION_RING as i64, &offsets.cr, send_size)?,
                InRing::map(socket, libc::XDP_PGOFF_RX_RING, &offsets.rx, chunks)?,
                (options.slots > 0)
                    .then(|| OutRing::map(socket, libc::XDP_PGOFF_TX_RING, &offsets.tx, send_size))
                    .transpose()?,
            ))
        })()
        .map_err(ring)?;
        let in_pieces = bind(&descriptor, options).map_err(at("bind"))?;
        let shown: libc::xdp_options = get_option(&descriptor, libc::XDP_OPTIONS).map_err(at("XDP_OPTIONS"))?;
        let mut socket = XskSocket {
            queued: VecDeque::with_capacity(options.slots as usize),
            void: 0,
            lost: 0,
            zero_copy: shown.flags & libc::XDP_OPTIONS_ZEROCOPY != 0,
            frame_len_max: if in_pieces { options.frame_len } else { options.frame_len.min(CHUNK_ROOM) },
            receive_memory: chunks as usize * CHUNK_LEN,
            impossible: 0,
            descriptor,
            frames: Frames::new(umem, ledger, options.frame_len),
            fill,
            completion,
            receive,
            send,
        };
        socket.refill();
        Ok(socket)
    }

    /// Lends every frame that has arrived, from its Ethernet header on, at most `most`; says how many there were. What is
    /// longer than the longest is cut off. No system call, unless the driver asks to be woken.
    pub fn receive(&mut self, most: usize, deliver: &mut dyn FnMut(&mut [u8])) -> usize {
        let mut frames = 0;
        let mut taken = 0;
        while frames < most {
            let Some(descriptor) = self.receive.pop() else { break };
            taken += 1;
            match self.frames.take(descriptor, deliver) {
                Some(delivered) => frames += usize::from(delivered),
                None => self.impossible += 1,
            }
            if taken % REFILL_EVERY == 0 {
                self.receive.release();
                self.refill();
            }
        }
        if taken > 0 {
            self.receive.release();
            self.refill();
        } else {
            // A driver that found the ring empty may have gone to sleep just when it was refilled: then no frame comes that
            // would have us look again.
            self.wake_for_receiving();
        }
        frames
    }

    /// Gives the kernel every chunk that is ours.
    fn refill(&mut self) {
        self.fill.take_note();
        while self.fill.free() > 0
            && let Some(address) = self.frames.ledger.offer()
        {
            self.fill.push(address);
        }
        self.fill.publish();
        self.wake_for_receiving();
    }

    /// Wakes a driver that waits for chunks, where there are some; one that does not share our memory never does.
    fn wake_for_receiving(&mut self) {
        if self.fill.needs_wakeup() && !self.fill.is_empty() {
            // SAFETY: nothing is read into; the call only wakes the driver (af_xdp.rst, XDP_USE_NEED_WAKEUP).
            unsafe {
                libc::recvfrom(
                    self.descriptor.as_raw_fd(),
                    ptr::null_mut(),
                    0,
                    libc::MSG_DONTWAIT,
                    ptr::null_mut(),
                    ptr::null_mut(),
                )
            };
        }
    }

    /// The bytes of the next frame to go out: room for the longest. `None` while all slots are on their way.
    pub fn slot(&mut self) -> Option<&mut [u8]> {
        let send = self.send.as_mut()?;
        if self.frames.ledger.open().is_none() {
            while let Some(address) = self.completion.pop() {
                self.impossible += u64::from(!self.frames.ledger.complete(address));
            }
            self.completion.release();
        }
        let slot = self.frames.ledger.open()?;
        if (send.free() as usize) < slot.len() / CHUNK_LEN {
            return None;
        }
        Some(self.frames.bytes(slot))
    }

    /// Puts the first `length` bytes of that slot into the send ring. They leave with the next [`XskSocket::push`].
    ///
    /// # Panics
    /// If there is no slot, or it is not so long, or for no bytes.
    pub fn commit(&mut self, length: usize) {
        let room = self.frames.ledger.open().map_or(0, |slot| slot.len());
        assert!((1..=room).contains(&length), "{length} bytes in a slot of {room}");
        let mut pieces = 0;
        for piece in self.frames.ledger.commit(length) {
            pieces += 1;
            let options = if piece.more { libc::XDP_PKT_CONTD } else { 0 };
            let descriptor = libc::xdp_desc { addr: piece.address, len: piece.length, options };
            let pushed = self.send.as_mut().is_some_and(|send| send.push(descriptor));
            debug_assert!(pushed, "the ring has room for all pieces of all slots");
        }
        self.queued.push_back(Queued { length, pieces });
    }

    /// Has the kernel send what is in the send ring, as much as it takes now. `sent` is called for each frame that has
    /// left, with its length and whether it went further than our own queues.
    ///
    /// # Errors
    /// The operating system's error: `ENETDOWN` if the interface is switched off, `ENXIO` if it is gone. That a queue is
    /// full is none.
    pub fn push(&mut self, sent: &mut dyn FnMut(usize, bool)) -> io::Result<()> {
        let Some(send) = &self.send else { return Ok(()) };
        send.publish();
        // Each call takes a descriptor at least, or is the last.
        for _ in 0..=send.size() {
            self.settle(sent);
            let before = self.unsent();
            let Some(send) = &self.send else { break };
            if send.is_empty() || !send.needs_wakeup() {
                break;
            }
            // SAFETY: nothing is read from; the call only has the kernel look at the ring.
            let result = unsafe {
                libc::sendto(self.descriptor.as_raw_fd(), ptr::null(), 0, libc::MSG_DONTWAIT, ptr::null(), 0)
            };
            let result = Errno::result(result);
            if result == Err(Errno::EBUSY) {
                self.lost += 1;
            }
            let after = self.settle_and_count(sent);
            match result {
                Ok(_) if self.zero_copy => break,
                Ok(_) | Err(Errno::EBUSY) => {}
                Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM) if after < before => {}
                Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Frames in the send ring that have not left.
    pub fn unsent(&self) -> usize {
        self.queued.len() - self.void
    }

    /// Takes back what is in the send ring, as far as that can be done: `back` is called with the length of each frame, the
    /// oldest first. A driver that shares our memory may be reading them, so there they stay.
    pub fn take_unsent_back(&mut self, back: &mut dyn FnMut(usize)) {
        let Some(send) = &mut self.send else { return };
        if self.zero_copy {
            return;
        }
        while let Some(address) = self.completion.pop() {
            self.impossible += u64::from(!self.frames.ledger.complete(address));
        }
        self.completion.release();
        // In copy mode the kernel reads the ring only in a call of ours. It skips a descriptor that is none.
        let ledger = &mut self.frames.ledger;
        send.replace_waiting(|descriptor| {
            ledger.complete(descriptor.addr);
            libc::xdp_desc { addr: u64::MAX, len: 0, options: 0 }
        });
        self.queued.iter().skip(self.void).for_each(|frame| back(frame.length));
        self.void = self.queued.len();
    }

    /// Whether the driver shares our memory.
    pub fn is_zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// Longest frame in bytes that passes, either way.
    pub fn frame_len_max(&self) -> usize {
        self.frame_len_max
    }

    /// Bytes of memory for frames that arrive, as far as it could be had.
    pub fn receive_memory(&self) -> usize {
        self.receive_memory
    }

    /// Bytes of send buffer that were granted, in the unit in which they are asked for.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn send_buffer(&self) -> io::Result<usize> {
        Ok(nix::sys::socket::getsockopt(&self.descriptor, sockopt::SndBuf)? / 2)
    }

    /// Descriptors of the kernel's that could not be, and were not touched.
    pub fn impossible(&self) -> u64 {
        self.impossible
    }

    /// What the kernel has counted since the socket was opened.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn statistics(&self) -> io::Result<XskStatistics> {
        let counted: libc::xdp_statistics = get_option(&self.descriptor, libc::XDP_STATISTICS)?;
        Ok(XskStatistics {
            // An empty fill ring is counted beside rx_dropped, not instead of it.
            dropped: counted.rx_dropped + counted.rx_ring_full,
            invalid: counted.rx_invalid_descs + counted.tx_invalid_descs,
        })
    }

    fn settle_and_count(&mut self, sent: &mut dyn FnMut(usize, bool)) -> usize {
        self.settle(sent);
        self.unsent()
    }

    /// Forgets the frames that the kernel has taken out of the send ring.
    fn settle(&mut self, sent: &mut dyn FnMut(usize, bool)) {
        let Some(send) = &mut self.send else { return };
        let mut taken = send.take_note();
        while let Some(frame) = self.queued.front_mut() {
            let pieces = frame.pieces.min(taken);
            (frame.pieces, taken) = (frame.pieces - pieces, taken - pieces);
            if frame.pieces > 0 {
                break;
            }
            if self.void > 0 {
                self.void -= 1;
            } else {
                let arrived = self.lost == 0;
                self.lost = self.lost.saturating_sub(1);
                sent(frame.length, arrived);
            }
            self.queued.pop_front();
        }
    }
}

impl AsFd for XskSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Chunks for so many bytes of receive memory.
fn chunks_of(bytes: usize) -> u32 {
    let chunks = u32::try_from(bytes / CHUNK_LEN).unwrap_or(u32::MAX).clamp(CHUNKS_LEAST, CHUNKS_MOST);
    // The largest power of two that is not larger.
    1 << chunks.ilog2()
}

/// A socket with its memory registered.
fn with_memory(options: &XskOptions, chunks: u32) -> Result<(OwnedFd, Umem, Ledger), SetupError> {
    let (family, flags) = (libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK);
    // SAFETY: no memory is passed.
    let descriptor = Errno::result(unsafe { libc::socket(family, flags, 0) }).map_err(at("socket(AF_XDP)"))?;
    // SAFETY: the kernel has just made it for us, and nobody else knows it.
    let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let ledger = Ledger::new(chunks, options.slots, options.frame_len.max(1));
    let umem = Umem::new(ledger.memory_len()).map_err(at("mmap"))?;
    set_option(&descriptor, libc::SOL_XDP, libc::XDP_UMEM_REG, umem.registration()).map_err(at("XDP_UMEM_REG"))?;
    Ok((descriptor, umem, ledger))
}

fn is_memory(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM))
}

/// Without CAP_NET_ADMIN the buffer is as large as the administrator allows.
fn ask_for_send_buffer(socket: &OwnedFd, bytes: usize) -> nix::Result<()> {
    nix::sys::socket::setsockopt(socket, sockopt::SndBufForce, &bytes)
        .or_else(|_| nix::sys::socket::setsockopt(socket, sockopt::SndBuf, &bytes))
}

/// Binds with the best that kernel and driver can do; whether frames may come in several pieces then.
fn bind(socket: &OwnedFd, options: &XskOptions) -> io::Result<bool> {
    let (wakeup, pieces) = (libc::XDP_USE_NEED_WAKEUP, libc::XDP_USE_SG);
    let ways = [
        (options.zero_copy, libc::XDP_ZEROCOPY | pieces),
        (options.zero_copy && options.frame_len_now <= CHUNK_ROOM, libc::XDP_ZEROCOPY),
        // Linux 6.6.
        (true, libc::XDP_COPY | pieces),
        (true, libc::XDP_COPY),
    ];
    let mut result = Err(Errno::EINVAL);
    for (_, flags) in ways.into_iter().filter(|(wanted, _)| *wanted) {
        result = bind_with(socket, options, flags | wakeup).map(|()| flags & pieces != 0);
        match result {
            Ok(_) | Err(Errno::EBUSY | Errno::ENODEV | Errno::ENETDOWN | Errno::EPERM) => break,
            Err(_) => {}
        }
    }
    Ok(result?)
}

/// Binds, and waits for a queue that is not free yet.
fn bind_with(socket: &OwnedFd, options: &XskOptions, flags: u16) -> nix::Result<()> {
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: flags,
        sxdp_ifindex: options.index,
        sxdp_queue_id: options.queue,
        sxdp_shared_umem_fd: 0,
    };
    let length = size_of_val(&address) as libc::socklen_t;
    let start = Instant::now();
    loop {
        // SAFETY: the kernel reads `length` bytes of `address`, which lives through the call.
        match Errno::result(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) }) {
            Err(Errno::EBUSY) if start.elapsed() < options.patience => std::thread::sleep(BIND_PAUSE),
            result => return result.map(drop),
        }
    }
}

/// An option of SOL_XDP.
fn get_option<T: Plain>(socket: &OwnedFd, name: i32) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which `value` has.
    Errno::result(unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_XDP, name, value.as_mut_ptr().cast(), &raw mut length)
    })?;
    // SAFETY: any bytes are a value of it, zeros where the kernel wrote none.
    Ok(unsafe { value.assume_init() })
}

/// What the kernel tells of a socket.
///
/// # Safety
/// Any bytes are a value of it.
unsafe trait Plain {}

// SAFETY: numbers.
unsafe impl Plain for libc::xdp_mmap_offsets {}
// SAFETY: numbers.
unsafe impl Plain for libc::xdp_options {}
// SAFETY: numbers.
unsafe impl Plain for libc::xdp_statistics {}

/// Names the step that an error comes from.
fn at<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> SetupError {
    move |source| SetupError { step, source: source.into() }
}

#[cfg(test)]
pub(in crate::sys) mod tests;
