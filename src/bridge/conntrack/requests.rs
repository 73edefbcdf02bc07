//! Many requests in one datagram, and their answers.
//!
//! Only failures and questions are answered, so an empty message that asks for an acknowledgement is sent behind the
//! requests: when its answer comes, all others have come.
//!
//! ```text
//! we      | request 5 | request 6 | request 7 | nothing 8, acknowledge |
//! kernel                 error 6     entry 7    acknowledged 8                5 went well
//! ```

use super::OpenError;
use super::codec;
use crate::sys::netlink::{
    Message, MessageWriter, Messages, NETLINK_NETFILTER, NetlinkSocket, ReceiveError, control, flags,
};
use crate::sys::{clock, poll};
use crate::time::Duration;
use nix::errno::Errno;
use std::io;
use std::os::fd::AsFd;

/// Receive buffer for the answers.
const RECEIVE_BUFFER: usize = 4 << 20;

/// What an answer takes of the receive buffer at most, the kernel's own overhead included.
const ANSWER_COST: usize = 1280;

/// Send buffer: [`REQUESTS_MAX`] requests of at most 400 bytes.
const SEND_BUFFER: usize = 2 << 20;

/// Most requests that are sent together.
pub(super) const REQUESTS_MAX: usize = 3 * 1024;

/// The kernel answers inside of `send`; who waits longer than this waits for something that was lost.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// What the kernel says to one request.
#[derive(Debug)]
pub(super) enum Answer<'a> {
    /// It failed.
    Failed(Errno),
    /// What was asked for.
    Entry(Message<'a>),
}

/// A socket for requests, and the requests that are gathered for the next exchange.
#[derive(Debug)]
pub(super) struct Requests {
    socket: NetlinkSocket,
    writer: MessageWriter,
    first: u32,
    gathered: usize,
    capacity: usize,
}

impl Requests {
    /// Opens the socket and makes sure that the kernel has ctnetlink and lets us use it.
    pub(super) fn open() -> Result<Self, OpenError> {
        let socket = NetlinkSocket::open(NETLINK_NETFILTER, RECEIVE_BUFFER).map_err(OpenError::from_io)?;
        socket.raise_send_buffer(SEND_BUFFER);
        socket.shorten_errors()?;
        let capacity = (socket.receive_buffer()? / ANSWER_COST).clamp(1, REQUESTS_MAX);
        let mut requests = Requests { socket, writer: MessageWriter::new(), first: 1, gathered: 0, capacity };
        requests.add(codec::write_probe);
        let mut refused = None;
        let exchanged = requests.exchange(|_, answer| {
            if let Answer::Failed(errno) = answer {
                refused = Some(errno);
            }
        });
        match (refused, exchanged) {
            (Some(errno), _) => Err(OpenError::from_errno(errno)),
            (None, exchanged) => exchanged.map(|()| requests).map_err(OpenError::from_io),
        }
    }

    /// The port id that the kernel writes into events that our requests cause.
    pub(super) fn port_id(&self) -> io::Result<u32> {
        self.socket.port_id()
    }

    /// Requests that may be sent together so that no answer is lost, whatever the answers are.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Gathers one more request; `write` gets its sequence number.
    pub(super) fn add(&mut self, write: impl FnOnce(&mut MessageWriter, u32)) {
        write(&mut self.writer, self.first.wrapping_add(self.gathered as u32));
        self.gathered += 1;
    }

    /// Sends what was gathered, and hands over the answers with the number of their request, counted from 0 in the
    /// order of [`Requests::add`]. A request without an answer went well.
    ///
    /// # Errors
    /// The operating system's error if the whole could not be sent or answers were lost: what became of the requests is
    /// then unknown.
    pub(super) fn exchange(&mut self, mut answer: impl FnMut(usize, Answer<'_>)) -> io::Result<()> {
        let (first, end) = (self.first, self.gathered);
        let last = first.wrapping_add(end as u32);
        self.writer.begin(control::NO_OPERATION, flags::REQUEST | flags::ACKNOWLEDGE, last, 0, 0);
        self.writer.end();
        let sent = self.socket.send(self.writer.bytes());
        self.writer.clear();
        self.gathered = 0;
        self.first = last.wrapping_add(1);
        sent?;
        let deadline = clock::now() + ANSWER_WITHIN;
        loop {
            let Some(datagram) = self.socket.receive().map_err(lost)? else {
                let left = deadline.since(clock::now());
                if left.is_zero() {
                    return Err(io::Error::from(Errno::ETIMEDOUT));
                }
                poll::wait(&[self.socket.as_fd()], Some(left))?;
                continue;
            };
            for message in Messages::new(datagram) {
                let message = message.map_err(io::Error::other)?;
                let number = message.sequence.wrapping_sub(first) as usize;
                match message.error_code() {
                    // An answer to an earlier exchange that was given up.
                    _ if number > end => {}
                    Some(_) if number == end => return Ok(()),
                    // Of somebody who may not send it, the kernel looks at nothing but the first request.
                    Some(libc::EPERM) if number == 0 => {
                        answer(number, Answer::Failed(Errno::EPERM));
                        return Err(Errno::EPERM.into());
                    }
                    Some(0) => {}
                    Some(code) => answer(number, Answer::Failed(Errno::from_raw(code))),
                    None => answer(number, Answer::Entry(message)),
                }
            }
        }
    }
}

fn lost(error: ReceiveError) -> io::Error {
    match error {
        ReceiveError::Io(error) => error,
        ReceiveError::Overrun => io::Error::from(Errno::ENOBUFS),
        other => io::Error::other(other),
    }
}
