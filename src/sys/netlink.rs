//! Netlink sockets: requests to the kernel, its answers, and its event groups.
//!
//! Three facts of the kernel shape this file (net/netlink/af_netlink.c):
//!
//! * A request is worked off inside `send`: when it returns, the answers are already in the receive queue.
//! * Events of conntrack come one per datagram, so [`NetlinkSocket::receive_many`] takes many datagrams at once.
//! * When the receive queue is full, the kernel reports [`ReceiveError::Overrun`] **once** and then goes on dropping in
//!   silence until the queue has been read *empty*. Whoever repairs an overrun has to drain first and look afterwards:
//!
//! ```text
//! queue   ▓▓▓▓▓▓▓▓ full      ▓▓▓▓▓▓ ▓▓▓ ▓ (empty)
//! kernel  ....drop drop      drop drop drop | delivers again
//! reader          ENOBUFS    read read read  EAGAIN → only a dump asked for from here on misses nothing
//! ```

mod message;

pub use super::mmsg::ReceiveBatch;
pub use message::{
    Attribute, Attributes, HEADER_SIZE, Malformed, Message, MessageWriter, Messages, NESTED, control, flags,
};

use super::socket::set_option;
use nix::errno::Errno;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The protocol of nfnetlink: conntrack, nf_tables and relatives (linux/netlink.h).
pub const NETLINK_NETFILTER: i32 = libc::NETLINK_NETFILTER;
/// The protocol of rtnetlink: interfaces, addresses, routes (linux/rtnetlink.h).
pub const NETLINK_ROUTE: i32 = libc::NETLINK_ROUTE;

/// Bytes of the buffer behind [`NetlinkSocket::receive`]. The kernel sizes the datagrams of a dump by the largest
/// buffer that a socket ever offered, up to 32 KiB; a smaller one later would cut them.
pub const RECEIVE_SIZE: usize = 64 * 1024;

/// Why nothing could be received.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// Messages were dropped because the receive buffer was full (`ENOBUFS`). It is said once; dropping goes on until
    /// the queue has been read empty.
    #[error("the kernel dropped netlink messages because the receive buffer was full")]
    Overrun,
    /// A datagram did not fit into the buffer, and what was cut off is lost.
    #[error("a netlink datagram of more than {0} bytes was cut off")]
    Truncated(usize),
    /// The operating system refused.
    #[error("{0}")]
    Io(#[source] io::Error),
}

impl From<io::Error> for ReceiveError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOBUFS) => ReceiveError::Overrun,
            _ => ReceiveError::Io(error),
        }
    }
}

/// A netlink socket that never blocks. It lives in the network namespace of the thread that opened it, whoever uses it
/// later.
#[derive(Debug)]
pub struct NetlinkSocket {
    descriptor: OwnedFd,
    buffer: Box<[u8]>,
}

impl NetlinkSocket {
    /// Opens a socket of netlink protocol `protocol` (such as [`NETLINK_NETFILTER`]) and asks for `receive_buffer`
    /// bytes of receive buffer: beyond the system's limit where CAP_NET_ADMIN allows, else as much as the limit gives.
    /// What was granted is told by [`NetlinkSocket::receive_buffer`].
    ///
    /// # Errors
    /// The operating system's error; `EPROTONOSUPPORT` where the kernel has no such protocol.
    pub fn open(protocol: i32, receive_buffer: usize) -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no pointers are passed.
        let raw = Errno::result(unsafe { libc::socket(libc::AF_NETLINK, kind, protocol) })?;
        // SAFETY: the descriptor was just made and nobody else owns it.
        let descriptor = unsafe { OwnedFd::from_raw_fd(raw) };
        let socket = NetlinkSocket { descriptor, buffer: vec![0; RECEIVE_SIZE].into_boxed_slice() };
        let size = i32::try_from(receive_buffer).unwrap_or(i32::MAX);
        if set_option(&socket.descriptor, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, size).is_err() {
            set_option(&socket.descriptor, libc::SOL_SOCKET, libc::SO_RCVBUF, size)?;
        }
        socket.bind()?;
        Ok(socket)
    }

    /// Bytes of receive buffer that the kernel granted. It books its own overhead into it and so doubles what was
    /// asked for: one conntrack event takes 1280 bytes of it.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn receive_buffer(&self) -> io::Result<usize> {
        let mut value: i32 = 0;
        let mut length = size_of::<i32>() as libc::socklen_t;
        // SAFETY: `value` and `length` live until the call returns, and `length` is the size of `value`.
        Errno::result(unsafe {
            libc::getsockopt(
                self.descriptor.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVBUF,
                (&raw mut value).cast(),
                &raw mut length,
            )
        })?;
        Ok(usize::try_from(value).unwrap_or(0))
    }

    /// Allows datagrams of up to `bytes` to be sent, as far as the kernel grants it.
    pub fn raise_send_buffer(&self, bytes: usize) {
        let size = i32::try_from(bytes).unwrap_or(i32::MAX);
        if set_option(&self.descriptor, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, size).is_err() {
            // Too small a buffer shows later, as EMSGSIZE from `send`.
            let _ = set_option(&self.descriptor, libc::SOL_SOCKET, libc::SO_SNDBUF, size);
        }
    }

    /// Has the kernel leave the request out of its error messages (`NETLINK_CAP_ACK`): shorter answers.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn shorten_errors(&self) -> io::Result<()> {
        set_option(&self.descriptor, libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, 1)
    }

    /// Joins a multicast group of the protocol (for nfnetlink: `NFNLGRP_*`, linux/netfilter/nfnetlink.h).
    ///
    /// # Errors
    /// `EPERM` without CAP_NET_ADMIN, and the operating system's other errors.
    pub fn join(&self, group: u32) -> io::Result<()> {
        let group = i32::try_from(group).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        set_option(&self.descriptor, libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, group)
    }

    /// Leaves a multicast group again; what is waiting stays.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn leave(&self, group: u32) -> io::Result<()> {
        let group = i32::try_from(group).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        set_option(&self.descriptor, libc::SOL_NETLINK, libc::NETLINK_DROP_MEMBERSHIP, group)
    }

    /// The address of this socket: what the kernel writes as `nlmsg_pid` into events that a request of it caused.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn port_id(&self) -> io::Result<u32> {
        let mut address = kernel_address();
        let mut length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        // SAFETY: `address` and `length` live until the call returns, and `length` is the size of `address`.
        Errno::result(unsafe {
            libc::getsockname(self.descriptor.as_raw_fd(), (&raw mut address).cast(), &raw mut length)
        })?;
        Ok(address.nl_pid)
    }

    /// Sends the messages in `bytes` to the kernel as one datagram. The kernel works them off, in order, before this
    /// returns.
    ///
    /// # Errors
    /// The operating system's error; `EMSGSIZE` if the datagram is larger than the send buffer.
    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        loop {
            // SAFETY: `bytes` is readable for its whole length until the call returns.
            let sent = unsafe { libc::send(self.descriptor.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
            match Errno::result(sent) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The next datagram; `None` if none is waiting.
    ///
    /// # Errors
    /// [`ReceiveError::Overrun`] and [`ReceiveError::Truncated`] when messages were lost.
    pub fn receive(&mut self) -> Result<Option<&[u8]>, ReceiveError> {
        let size = self.buffer.len();
        loop {
            let buffer = self.buffer.as_mut_ptr().cast();
            // SAFETY: `buffer` is writable for `size` bytes until the call returns. MSG_TRUNC makes the kernel return
            // the datagram's true length, which is compared with `size` below.
            let length = unsafe { libc::recv(self.descriptor.as_raw_fd(), buffer, size, libc::MSG_TRUNC) };
            match Errno::result(length) {
                Ok(length) => {
                    let length = usize::try_from(length).unwrap_or(0);
                    return self.buffer.get(..length).map(Some).ok_or(ReceiveError::Truncated(size));
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(None),
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
        }
    }

    /// Fills `batch` with the datagrams that are waiting, and says how many: 0 if none is. What did not fit into its
    /// slot is counted, see [`ReceiveBatch::truncated`], and left out of [`ReceiveBatch::datagrams`].
    ///
    /// # Errors
    /// [`ReceiveError::Overrun`] when messages were lost.
    pub fn receive_many(&self, batch: &mut ReceiveBatch) -> Result<usize, ReceiveError> {
        batch.receive(self.as_fd(), usize::MAX).map_err(ReceiveError::from)
    }

    fn bind(&self) -> io::Result<()> {
        // Port id 0 lets the kernel choose one that nobody has.
        let address = kernel_address();
        // SAFETY: `address` lives until the call returns, and its true size is passed.
        Errno::result(unsafe {
            libc::bind(
                self.descriptor.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_nl>() as libc::socklen_t,
            )
        })?;
        Ok(())
    }
}

impl AsFd for NetlinkSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// The kernel's own address, which is also "any" for bind.
fn kernel_address() -> libc::sockaddr_nl {
    // SAFETY: all-zero bytes are a valid sockaddr_nl.
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks for nothing and wants an answer. Without rights the answer is a refusal, of the first message of a datagram
    /// only: so each has a datagram of its own.
    fn ask_for_nothing(socket: &NetlinkSocket, sequence: u32) {
        let mut writer = MessageWriter::new();
        writer.begin(control::NO_OPERATION, flags::REQUEST | flags::ACKNOWLEDGE, sequence, 0, 0);
        writer.end();
        socket.send(writer.bytes()).unwrap();
    }

    #[test]
    fn two_sockets_have_two_port_ids() {
        let first = NetlinkSocket::open(NETLINK_NETFILTER, 64 * 1024).unwrap();
        let second = NetlinkSocket::open(NETLINK_NETFILTER, 64 * 1024).unwrap();
        assert_ne!(first.port_id().unwrap(), 0);
        assert_ne!(first.port_id().unwrap(), second.port_id().unwrap());
    }

    #[test]
    fn the_granted_buffer_is_twice_what_was_asked_for() {
        let socket = NetlinkSocket::open(NETLINK_NETFILTER, 64 * 1024).unwrap();
        assert_eq!(socket.receive_buffer().unwrap(), 128 * 1024);
    }

    #[test]
    fn an_unknown_protocol_is_the_operating_systems_error() {
        let error = NetlinkSocket::open(31, 4096).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPROTONOSUPPORT));
    }

    #[test]
    fn an_empty_queue_is_no_error() {
        let mut socket = NetlinkSocket::open(NETLINK_NETFILTER, 64 * 1024).unwrap();
        assert!(socket.receive().unwrap().is_none());
        assert_eq!(socket.receive_many(&mut ReceiveBatch::new(4, 64)).unwrap(), 0);
    }

    #[test]
    fn answers_are_waiting_when_send_returns_and_carry_their_sequence_numbers() {
        let mut socket = NetlinkSocket::open(NETLINK_NETFILTER, 64 * 1024).unwrap();
        ask_for_nothing(&socket, 7);
        ask_for_nothing(&socket, 8);
        let mut answer = |sequence: u32| {
            let datagram = socket.receive().unwrap().unwrap();
            let message = Messages::new(datagram).next().unwrap().unwrap();
            assert_eq!((message.kind, message.sequence), (control::ERROR, sequence));
            message.error_code()
        };
        let (first, second) = (answer(7), answer(8));
        assert_eq!(first, second);
        assert!(first.is_some());
    }

    #[test]
    fn a_datagram_that_does_not_fit_is_counted_and_left_out() {
        let socket = NetlinkSocket::open(NETLINK_NETFILTER, 64 * 1024).unwrap();
        (0..3).for_each(|sequence| ask_for_nothing(&socket, sequence));
        // An error message without the request is 20 bytes long and more.
        let mut batch = ReceiveBatch::new(2, 8);
        assert_eq!(socket.receive_many(&mut batch).unwrap(), 2);
        assert_eq!((batch.datagrams().count(), batch.truncated()), (0, 2));
        let mut batch = ReceiveBatch::new(2, 256);
        assert_eq!(socket.receive_many(&mut batch).unwrap(), 1);
        assert_eq!((batch.datagrams().count(), batch.truncated()), (1, 0));
    }

    #[test]
    fn a_full_queue_is_an_overrun_that_is_said_once() {
        let mut socket = NetlinkSocket::open(NETLINK_NETFILTER, 2048).unwrap();
        (0..64).for_each(|sequence| ask_for_nothing(&socket, sequence));
        assert!(matches!(socket.receive(), Err(ReceiveError::Overrun)));
        assert!(socket.receive().unwrap().is_some());
    }
}
