//! Bare pairs: what a transport is built on, and nothing around it. They are the limits that transports stand beside.
//!
//! ```text
//!   raw, nix   sendmmsg ── 64 frames a call ──▶ ═══ ──▶ recvmmsg
//! ```
//!
//! The frames of a batch are written once, and of what arrives each frame's first bytes are read ([`super::flood`]). A
//! transport that is built on something else, as a ring, has a bare pair of its own: something that is [`Sending`], something
//! that is [`Receiving`], and a line in [`super::ways::WAYS`].

use super::flood::{BareEnds, Receiving, Sending};
use super::street::Street;
use super::workload::{FRAME_LEN, SYNC_ID, full_frame};
use super::{BenchError, Doing};
use crate::sys::mmsg::{ReceiveBatch, SendBatch};
use crate::sys::poll::Descriptors;
use crate::sys::socket::{SetupError, interface, multicast_receiver, multicast_sender};
use crate::wire::{FRAME_LEN_MAX, GROUP, IP_PROTOCOL};
use nix::errno::Errno;
use socket2::Socket;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

/// Frames that one system call moves.
pub(super) const BATCH: usize = 64;
/// Bytes of the buffers, as [`crate::transport::RawOptions`] asks for: receiving, sending.
const BUFFERS: (usize, usize) = (16 << 20, 1 << 20);
/// Longest IPv4 header.
const IP_HEADER_MAX: usize = 60;

/// Raw sockets at both ends.
pub(super) fn sockets(street: &Street) -> Result<BareEnds, BenchError> {
    let (here, there) = street.at_each_end(|name| {
        let setup = |error: SetupError| BenchError::Step {
            doing: "opening bare sockets",
            source: io::Error::other(error.to_string()),
        };
        let interface = interface(name).doing("looking at an interface")?;
        let group = IpAddr::V4(GROUP);
        let receiver = multicast_receiver(IP_PROTOCOL, group, &interface, BUFFERS.0).map_err(setup)?;
        let sender = multicast_sender(IP_PROTOCOL, group, &interface, BUFFERS.1).map_err(setup)?;
        Ok((sender, receiver))
    })?;
    let receiver = there.map(|(_, socket)| {
        let batch = ReceiveBatch::new(BATCH, IP_HEADER_MAX + FRAME_LEN_MAX);
        Box::new(BareReceiver { socket, batch }) as Box<dyn Receiving>
    });
    Ok((Box::new(BareSender::new(here.0)), receiver))
}

/// A sender's socket, with a batch that is always the same and one of a single frame.
pub(super) struct BareSender {
    socket: Socket,
    batch: SendBatch,
    single: SendBatch,
}

impl BareSender {
    fn new(socket: Socket) -> Self {
        let group = SocketAddr::new(GROUP.into(), 0);
        BareSender {
            socket,
            batch: same(BATCH, &full_frame(SYNC_ID), group),
            single: SendBatch::new(1, FRAME_LEN, group),
        }
    }
}

/// A batch of the same datagram.
pub(super) fn same(count: usize, datagram: &[u8], destination: SocketAddr) -> SendBatch {
    let mut batch = SendBatch::new(count, datagram.len(), destination);
    while let Some(slot) = batch.slot() {
        slot.copy_from_slice(datagram);
        batch.commit(datagram.len());
    }
    batch
}

/// Sends a batch, as far as the socket takes it now; how many.
pub(super) fn send(socket: BorrowedFd<'_>, batch: &mut SendBatch) -> io::Result<usize> {
    let mut sent = 0;
    while sent < batch.len() {
        match batch.send(socket, sent) {
            Ok(taken) => sent += taken,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

impl Sending for BareSender {
    fn send(&mut self) -> io::Result<usize> {
        send(self.socket.as_fd(), &mut self.batch)
    }

    fn send_one(&mut self, frame: &[u8; FRAME_LEN]) -> io::Result<bool> {
        self.single.clear();
        if let Some(slot) = self.single.slot() {
            slot.copy_from_slice(frame);
        }
        self.single.commit(FRAME_LEN);
        Ok(send(self.socket.as_fd(), &mut self.single)? > 0)
    }
}

struct BareReceiver {
    socket: Socket,
    batch: ReceiveBatch,
}

impl Receiving for BareReceiver {
    fn receive(&mut self, each: &mut dyn FnMut(&[u8])) -> io::Result<usize> {
        let arrived = self.batch.receive(self.socket.as_fd(), BATCH)?;
        for index in 0..arrived {
            let datagram = self.batch.datagram(index).bytes;
            // A raw socket of IPv4 shows its header, whose length is in its first octet, in words.
            let header_len = datagram.first().map_or(0, |octet| usize::from(octet & 0x0f) * 4);
            each(datagram.get(header_len..).unwrap_or_default());
        }
        Ok(arrived)
    }

    fn readiness(&self) -> Descriptors<'_> {
        [self.socket.as_fd()].into_iter().collect()
    }
}
