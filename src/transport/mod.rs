//! Frames in and out. A transport knows how to move one frame as one datagram, and nothing of what is in it.
//!
//! Memory is lent both ways, so that a ring can hand out its own slots: [`Transport::receive`] lends each frame that
//! has arrived, [`Transport::transmit`] lends an empty slot for each frame that can leave. Transmission is pulled: a
//! link that is slow means only that the engine is asked less often.

pub mod ethernet;
mod ipv4;
mod ipv6;
mod link;
pub mod memory;
mod options;
mod outgoing;
pub mod packet;
pub mod pcap;
mod port;
pub mod raw;
pub mod reference;
mod wired;
pub mod xdp;

pub use memory::{Fate, MemoryHub, MemoryTransport};
pub use packet::PacketTransport;
pub use port::{Arrival, Mode, Port};
pub use raw::{LinkCondition, LinkCounters, LinkStatus, RawOptions, RawTransport};
pub use reference::NixTransport;
pub use wired::Wired;
pub use xdp::XdpTransport;

use crate::sys::poll::Descriptors;
use crate::wire::FrameMeta;
use std::io;

/// What a transport can carry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Largest frame in bytes that leaves in one piece now. It follows the link, and so may change with every call.
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
    /// Datagrams whose TTL or hop limit was not 255: they have crossed a router.
    pub ttl_refused: u64,
    /// Datagrams too short or too odd to hold a frame.
    pub malformed: u64,
    /// Datagrams longer than the largest frame.
    pub oversized: u64,
    /// Frames that the kernel dropped before we read them (full socket buffer).
    pub dropped_by_kernel: u64,
    /// Sends that failed for another reason than a full queue: one for each frame and link that did not get it.
    pub send_errors: u64,
    /// Bytes of receive buffer that the system really granted, by the link that got the least.
    pub receive_buffer: u64,
    /// Bytes of send buffer that the system really granted, by the link that got the least.
    pub send_buffer: u64,
}

/// Least memory that a driver gives a datagram, in bytes: a page.
const DATAGRAM_LEAST: usize = 4096;
/// What the kernel needs beside the bytes of a datagram: `sk_buff` (232) and `skb_shared_info` (320), rounded up.
const DATAGRAM_OVERHEAD: usize = 640;

impl TransportCounters {
    /// Frames of up to `frame_len` bytes that the receive buffer holds while nobody reads, at the worst. A buffer is
    /// charged with what a datagram takes in memory (`truesize`), not with its bytes: each is counted as a power of two of
    /// at least a page. And it is counted with the bytes that were asked for, although the kernel grants the double: the
    /// other half is for what is sent again, for ADVERTs, and for a second master. `None` where the buffer is not known.
    pub fn receive_room(&self, frame_len: usize) -> Option<u32> {
        let datagram = (frame_len + DATAGRAM_OVERHEAD).next_power_of_two().max(DATAGRAM_LEAST) + DATAGRAM_OVERHEAD;
        let frames = u32::try_from(self.receive_buffer / datagram as u64).unwrap_or(u32::MAX);
        (self.receive_buffer > 0).then_some(frames)
    }
}

/// Why a transport could not be opened, or opened again.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// There is no such interface: a wrong name, or one that is not there yet.
    #[error("there is no interface {name:?} in this network namespace")]
    NoInterface {
        /// The name that was asked for.
        name: String,
    },
    /// The process may not open raw sockets.
    #[error(
        "raw sockets need the capability CAP_NET_RAW: run as root, set AmbientCapabilities=CAP_NET_RAW in the systemd \
         unit, or run `setcap cap_net_raw+ep` on the program"
    )]
    MissingCapability,
    /// The interface cannot carry the smallest frame that every node must be able to send.
    #[error("interface {name:?} has an MTU of {mtu} bytes; frames need at least {least}")]
    SmallMtu {
        /// The interface.
        name: String,
        /// Its MTU.
        mtu: u32,
        /// What it would have to be.
        least: u32,
    },
    /// This kernel, this interface or this process has not what the transport needs; another transport may do.
    #[error("interface {interface:?}: {reason}")]
    Unsupported {
        /// The interface.
        interface: String,
        /// What is missing.
        reason: String,
    },
    /// An option has a value that makes no sense.
    #[error("{option}: {problem}")]
    Option {
        /// Its name in [`RawOptions`].
        option: &'static str,
        /// What is wrong, and what may stand there.
        problem: String,
    },
    /// The operating system refused something else.
    #[error("{op} on interface {interface:?}: {source}")]
    System {
        /// The system call or socket option.
        op: &'static str,
        /// The interface that it was for.
        interface: String,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Why a datagram is no frame for us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// It has crossed a router.
    Ttl,
    /// Its header contradicts itself or what arrived, or nothing follows it.
    Malformed,
    /// The frame is longer than the largest.
    Oversized,
}

impl TransportError {
    /// Whether another transport may do where this one does not. An interface that is missing is missing for all.
    pub fn is_of_this_transport(&self) -> bool {
        use TransportError::{MissingCapability, NoInterface, Option, SmallMtu, System, Unsupported};
        match self {
            MissingCapability | System { .. } | Unsupported { .. } => true,
            NoInterface { .. } | SmallMtu { .. } | Option { .. } => false,
        }
    }
}

impl TransportCounters {
    /// Counts a refused datagram under its reason.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        match refusal {
            Refusal::Ttl => self.ttl_refused += 1,
            Refusal::Malformed => self.malformed += 1,
            Refusal::Oversized => self.oversized += 1,
        }
    }

    /// Counts a frame that is handed to `deliver`.
    pub(super) fn received(&mut self, frame: &[u8]) {
        self.frames_received += 1;
        self.bytes_received += frame.len() as u64;
    }

    /// Counts a frame that has left.
    pub(super) fn sent(&mut self, frame_len: usize) {
        self.frames_sent += 1;
        self.bytes_sent += frame_len as u64;
    }
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
    /// and says how many frames left. A frame that `fill` has produced is never lost to a full queue: what the link
    /// does not take now leaves first in the next call. Never blocks.
    ///
    /// # Errors
    /// As for [`Transport::receive`]. The frames that were on their way are dropped then, as a dead wire would, and
    /// each is counted as a send error.
    fn transmit(&mut self, fill: &mut dyn FnMut(&mut [u8]) -> Option<usize>) -> io::Result<usize>;

    /// Frames that `fill` has produced and that have not left yet. While it is not zero, call [`Transport::transmit`]
    /// again soon, whether or not there is more to send: nothing signals that the queue has room again.
    fn pending(&self) -> usize {
        0
    }

    /// What to wait on for the next frame.
    fn readiness(&self) -> Descriptors<'_>;

    /// What has been moved and refused so far.
    fn counters(&self) -> TransportCounters;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receive_buffer_holds_fewer_frames_than_bytes_would_say() {
        let room = |receive_buffer, frame_len| {
            TransportCounters { receive_buffer, ..TransportCounters::default() }.receive_room(frame_len)
        };
        // A page and 640 bytes each: 4736.
        assert_eq!(room(16 << 20, 1480), Some(3542));
        assert_eq!(room(212_992, 1208), Some(44));
        // 16 KiB and 640 bytes each: 17024.
        assert_eq!(room(16 << 20, 8960), Some(985));
        assert_eq!(room(0, 1480), None);
    }
}
