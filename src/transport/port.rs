//! What a transport needs of a way to reach one interface: the part in which raw sockets, packet rings and AF_XDP differ.
//!
//! ```text
//!   Wired ── Outgoing ─ frames, and how far each link has got     Links ── Link ─ condition, MTU, counters
//!     │           │ send()                                          │        │ open(), reopen(), renew_source()
//!     └───────────┴──────────────── Port: two sockets, a ring ──────┴────────┘
//! ```
//!
//! Everything that is the same for all of them (watching interfaces, following MTUs, leaving a stuck link behind,
//! counting) stands in [`super::link`] and [`super::wired`], and is written once.

use super::{RawOptions, Refusal, TransportError};
use crate::sys::mmsg::SendBatch;
use crate::sys::poll::Descriptors;
use crate::sys::socket::Interface;
use crate::wire::FRAME_LEN_MAX;
use std::io;
use std::net::IpAddr;

/// Most descriptors that a port is waited on by.
pub(super) const DESCRIPTORS_MAX: usize = 2;

/// What has arrived: the sender's address and a frame, or why it is none.
pub type Arrival<'a> = Result<(IpAddr, &'a mut [u8]), Refusal>;

/// How a link is reached, in the words of `status`.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Mode {
    /// One word: "raw", "packet".
    pub word: &'static str,
    /// What was tried before it and cannot be had, and why; nothing if it is what was asked for.
    pub instead_of: Option<String>,
}

/// Frames that will not leave.
#[derive(Debug)]
pub struct Dropped {
    /// How many.
    pub frames: usize,
    /// Their bytes, without the headers below the frame.
    pub bytes: usize,
    /// What the operating system said.
    pub error: io::Error,
}

/// A way to reach one interface. It is opened in the network namespace of the calling thread, and stays there.
pub trait Port: Sized {
    /// What the ports of a transport share to receive with. Made once, so that receiving allocates nothing.
    type Incoming;

    /// Opens it on `interface`. The options have been checked.
    ///
    /// # Errors
    /// [`TransportError::NoInterface`] if the interface is gone; otherwise what the kernel refused.
    fn open(interface: &Interface, options: &RawOptions) -> Result<Self, TransportError>;

    /// What is shared, for these options.
    fn incoming(options: &RawOptions) -> Self::Incoming;

    /// A batch of outgoing frames as [`Port::send`] wants it: with an address, or with room for headers.
    fn outgoing(options: &RawOptions) -> SendBatch;

    /// Opens it anew in place of itself: on another interface of the same name, or on the same one when that has lost
    /// its memberships (it may then not be possible to have both open at once). What it counts begins at 0 again.
    ///
    /// # Errors
    /// As for [`Port::open`]; it stays as it was as far as it can.
    fn reopen(&mut self, interface: &Interface, options: &RawOptions) -> Result<(), TransportError>;

    /// How the interface is reached.
    fn mode(&self) -> Mode;

    /// One of them is readable when something has arrived, or when it has failed: at most two. On no epoll that each packet
    /// would call, but for the queues of an interface that has several.
    fn readiness(&self) -> Descriptors<'_>;

    /// Lends what has arrived to `take`, at most `most` packets, and says how many there were. Never blocks.
    ///
    /// # Errors
    /// The operating system's error when the link itself fails. What is wrong with one packet is an [`Arrival`].
    fn receive(
        &mut self,
        incoming: &mut Self::Incoming,
        most: usize,
        take: impl FnMut(Arrival<'_>),
    ) -> io::Result<usize>;

    /// Sends the frames of the batch from number `first` on and says how many of them it took (at least one). Never
    /// blocks, and leaves the frames as they are: other ports are given the same.
    ///
    /// # Errors
    /// The operating system's error for frame `first`, which was not sent: see [`super::link::is_full`] and
    /// [`super::link::is_link_failure`].
    fn send(&mut self, batch: &mut SendBatch, first: usize) -> io::Result<usize>;

    /// Room for the next frame in memory that the interface reads itself, as long as the longest frame, behind what its headers
    /// take. `None`: the port has no such memory, or cannot send now; [`Port::send`] is for all frames then.
    fn slot(&mut self) -> Option<&mut [u8]> {
        None
    }

    /// Takes the first `length` bytes of that slot as a frame. It leaves with the next [`Port::flush`].
    fn commit(&mut self, length: usize) {
        debug_assert!(false, "a frame of {length} bytes in a slot that was not lent");
    }

    /// Sends the `committed` frames that were taken since the last call, as much as the interface takes now; the rest waits.
    ///
    /// # Errors
    /// Why some of them were dropped, and which part: the last ones.
    fn flush(&mut self, committed: usize) -> Result<(), Dropped> {
        debug_assert_eq!(committed, 0);
        Ok(())
    }

    /// Moves on what was taken and the interface does not have yet, and says how many frames that were taken have
    /// been lost since the last call. Nothing waits in a port that hands everything on at once.
    fn push(&mut self) -> u64 {
        0
    }

    /// Frames that were taken and that the interface does not have yet.
    fn unsent(&self) -> usize {
        0
    }

    /// Finds out where frames come from, in the network namespace of the link: at each look, because addresses come and
    /// go. `known` is its last answer. Whether there is such an address; without one no frame can leave.
    fn renew_source(&mut self, group: IpAddr, known: bool) -> bool;

    /// Bytes of the longest frame that it can carry, whatever the MTU is.
    fn frame_len_max(&self) -> usize {
        FRAME_LEN_MAX
    }

    /// Frames that the kernel has dropped since it was opened, because nobody read them in time.
    fn dropped(&self) -> u64;

    /// Bytes of receive buffer that were granted, in the unit of [`RawOptions::receive_buffer`].
    fn receive_buffer(&self) -> u64;

    /// Bytes of send buffer that were granted.
    fn send_buffer(&self) -> u64;
}
