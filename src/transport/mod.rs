//! Frames in and out. A transport knows how to move one frame as one datagram, and nothing of what is in it.
//!
//! Memory is lent both ways, so that a ring can hand out its own slots: [`Transport::receive`] lends each frame that
//! has arrived, [`Transport::transmit`] lends an empty slot for each frame that can leave. Transmission is pulled: a
//! link that is slow means only that the engine is asked less often.

pub mod memory;
pub mod raw;

use crate::wire::FrameMeta;
use std::io;
use std::os::fd::BorrowedFd;

/// What a transport can carry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Largest frame in bytes that leaves in one piece.
    pub frame_len: usize,
    /// Most frames that one call moves.
    pub batch: usize,
}

/// What a transport has moved and what it has refused, by reason. All counts are since it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct TransportCounters {
    /// Frames handed to `deliver`.
    pub frames_received: u64,
    /// Bytes of those frames, without the headers below the frame.
    pub bytes_received: u64,
    /// Frames that left.
    pub frames_sent: u64,
    /// Bytes of those frames.
    pub bytes_sent: u64,
    /// Datagrams whose TTL was not 255: they have crossed a router.
    pub ttl_refused: u64,
    /// Datagrams too short or too odd to hold a frame.
    pub malformed: u64,
    /// Datagrams longer than the largest frame.
    pub oversized: u64,
    /// Frames that the kernel dropped before we read them (full socket buffer).
    pub dropped_by_kernel: u64,
    /// Sends that failed for another reason than a full queue.
    pub send_errors: u64,
    /// Bytes of receive buffer that the system really granted.
    pub receive_buffer: u64,
    /// Bytes of send buffer that the system really granted.
    pub send_buffer: u64,
}

/// A way for frames to travel: raw sockets, memory, and what else comes.
pub trait Transport {
    /// What it can carry.
    fn limits(&self) -> Limits;

    /// Lends every frame that has arrived, at most one batch, and says how many there were. Never blocks; 0 is "none".
    ///
    /// # Errors
    /// The operating system's error when the link itself fails (gone, down). What is wrong with one datagram is counted
    /// and is no error.
    fn receive(&mut self, deliver: &mut dyn FnMut(FrameMeta, &mut [u8])) -> io::Result<usize>;

    /// Calls `fill` with an empty slot for as long as it returns a length and the link takes more, at most one batch,
    /// and says how many frames left. A frame that `fill` has produced is never lost to a full queue: what the link does
    /// not take now leaves first in the next call. Never blocks.
    ///
    /// # Errors
    /// As for [`Transport::receive`].
    fn transmit(&mut self, fill: &mut dyn FnMut(&mut [u8]) -> Option<usize>) -> io::Result<usize>;

    /// What to wait on for the next frame; `None` if there is nothing to wait on.
    fn readiness(&self) -> Option<BorrowedFd<'_>>;

    /// What has been moved and refused so far.
    fn counters(&self) -> TransportCounters;
}
