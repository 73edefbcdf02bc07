//! Stands in for `sys::netlink` until that file is there; deleted on integration.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Netlink messages, one after the other in one buffer.
pub(super) struct MessageWriter {
    bytes: Vec<u8>,
    message_at: usize,
}

impl MessageWriter {
    pub(super) fn new() -> Self {
        MessageWriter { bytes: Vec::new(), message_at: 0 }
    }

    pub(super) fn begin(&mut self, kind: u16, flags: u16, seq: u32, family: u8, resource_id: u16) {
        self.message_at = self.bytes.len();
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&seq.to_ne_bytes());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&resource_id.to_be_bytes());
    }

    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.bytes.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    pub(super) fn nest(&mut self, kind: u16, inside: impl FnOnce(&mut Self)) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | 0x8000).to_ne_bytes());
        inside(self);
        let len = (self.bytes.len() - at) as u16;
        self.bytes[at..at + 2].copy_from_slice(&len.to_ne_bytes());
    }

    pub(super) fn end(&mut self) {
        let (at, len) = (self.message_at, (self.bytes.len() - self.message_at) as u32);
        self.bytes[at..at + 4].copy_from_slice(&len.to_ne_bytes());
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A netlink socket.
pub(super) struct NetlinkSocket(socket2::Socket);

impl NetlinkSocket {
    pub(super) fn open(protocol: i32, receive_buffer: usize) -> io::Result<Self> {
        let domain = socket2::Domain::from(libc::AF_NETLINK);
        let socket = socket2::Socket::new(domain, socket2::Type::RAW, Some(socket2::Protocol::from(protocol)))?;
        socket.set_recv_buffer_size(receive_buffer)?;
        Ok(NetlinkSocket(socket))
    }

    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.0.send(bytes).map(drop)
    }

    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        io::Read::read(&mut &self.0, buffer)
    }
}

impl AsFd for NetlinkSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
