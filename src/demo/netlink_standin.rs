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

    pub(super) fn attribute_u32_be(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    pub(super) fn attribute_text(&mut self, kind: u16, text: &str) {
        self.attribute(kind, &[text.as_bytes(), &[0]].concat());
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

/// One message, and a walk over all of a datagram.
pub(super) struct Message<'a> {
    pub(super) sequence: u32,
    kind: u16,
    payload: &'a [u8],
}

impl Message<'_> {
    pub(super) fn error_code(&self) -> Option<i32> {
        let code = self.payload.first_chunk::<4>().map(|bytes| i32::from_ne_bytes(*bytes))?;
        (self.kind == libc::NLMSG_ERROR as u16).then(|| code.saturating_neg())
    }
}

pub(super) struct Messages<'a>(&'a [u8]);

impl<'a> Messages<'a> {
    pub(super) fn new(datagram: &'a [u8]) -> Self {
        Messages(datagram)
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, io::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = std::mem::take(&mut self.0);
        let word = |at: usize| bytes.get(at..at + 4).map(|word| [word[0], word[1], word[2], word[3]]);
        let length = u32::from_ne_bytes(word(0)?) as usize;
        let payload = bytes.get(16..length)?;
        self.0 = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        let kind = u16::from_ne_bytes([bytes[4], bytes[5]]);
        Some(Ok(Message { sequence: u32::from_ne_bytes(word(8)?), kind, payload }))
    }
}

/// A netlink socket that never blocks.
pub(super) struct NetlinkSocket(socket2::Socket, Vec<u8>);

impl NetlinkSocket {
    pub(super) fn open(protocol: i32, receive_buffer: usize) -> io::Result<Self> {
        let domain = socket2::Domain::from(libc::AF_NETLINK);
        let socket = socket2::Socket::new(domain, socket2::Type::RAW, Some(socket2::Protocol::from(protocol)))?;
        socket.set_recv_buffer_size(receive_buffer)?;
        socket.set_nonblocking(true)?;
        Ok(NetlinkSocket(socket, vec![0; 65536]))
    }

    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.0.send(bytes).map(drop)
    }

    pub(super) fn receive(&mut self) -> io::Result<Option<&[u8]>> {
        match io::Read::read(&mut &self.0, &mut self.1) {
            Ok(length) => Ok(self.1.get(..length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for NetlinkSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
