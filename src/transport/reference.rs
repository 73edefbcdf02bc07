//! Frames over raw IP sockets, one to a system call, on nix's safe wrappers alone: what [`super::RawTransport`] is
//! held to.
//!
//! It is as plain as possible and makes no claim to speed: a queue of frames to send, a buffer to receive into, and the
//! same sockets. The conformance tests run against both; where they differ, one of them is wrong.

use super::link::{self, Links};
use super::raw::{LinkStatus, RawOptions, RawPort};
use super::{Limits, Transport, TransportCounters, TransportError, ipv4, ipv6};
use crate::sys::mmsg::Datagram;
use crate::sys::poll::Descriptors;
use crate::wire::{FRAME_LEN_MAX, FrameMeta};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg};
use socket2::Socket;
use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

/// The reference transport.
pub struct NixTransport {
    links: Links<RawPort>,
    batch: usize,
    is_ipv4: bool,
    counters: TransportCounters,
    destination: SockaddrStorage,
    buffer: Vec<u8>,
    /// Frames that have not left yet.
    outgoing: VecDeque<Outgoing>,
}

struct Outgoing {
    frame: Vec<u8>,
    /// The links that it still has to go to.
    to: VecDeque<usize>,
    /// Whether some link has taken it.
    taken: bool,
}

impl NixTransport {
    /// Opens the sockets, in the calling thread's network namespace.
    ///
    /// # Errors
    /// What is wrong with the options, the interfaces or the process's rights.
    pub fn open(options: &RawOptions) -> Result<Self, TransportError> {
        Ok(NixTransport {
            links: Links::open(options)?,
            batch: options.batch,
            is_ipv4: options.group.is_ipv4(),
            counters: TransportCounters::default(),
            destination: SockaddrStorage::from(SocketAddr::new(options.group, 0)),
            buffer: vec![0; ipv4::HEADER_LEN_MAX + FRAME_LEN_MAX],
            outgoing: VecDeque::new(),
        })
    }

    /// As [`super::RawTransport::link_is_up`].
    pub fn link_is_up(&self) -> bool {
        self.links.any_is_up()
    }

    /// As [`super::RawTransport::look`].
    pub fn look(&mut self) {
        self.links.look();
    }

    /// As [`super::RawTransport::links`].
    pub fn links(&self) -> Vec<LinkStatus> {
        self.links.status()
    }

    /// As [`super::RawTransport::reopen`].
    ///
    /// # Errors
    /// As there.
    pub fn reopen(&mut self) -> Result<(), TransportError> {
        self.links.reopen()
    }

    /// Sends what is queued, in order, until a link's queue is full; says how many frames have left. A link that has
    /// failed loses what is queued, which is counted.
    fn flush(&mut self) -> io::Result<usize> {
        let (mut left, another_is_up, alone) = (0, self.links.any_is_up(), self.links.len() == 1);
        while let Some(next) = self.outgoing.front_mut() {
            while let Some(&number) = next.to.front() {
                let link = self.links.get_mut(number);
                let result = match another_is_up && !link.is_up() {
                    true => Err(io::ErrorKind::NotConnected.into()),
                    false => send(&link.port.sender, &next.frame, &self.destination),
                };
                if result.as_ref().is_err_and(link::is_no_address) {
                    link.note_no_address();
                }
                match result {
                    Ok(()) => {
                        link.counters.frames_sent += 1;
                        link.counters.bytes_sent += next.frame.len() as u64;
                        next.taken = true;
                    }
                    Err(error) if link::is_full(&error) => return Ok(left),
                    Err(error) if link::is_link_failure(&error) && alone => {
                        link.counters.send_errors += self.outgoing.len() as u64;
                        self.counters.send_errors += self.outgoing.len() as u64;
                        self.outgoing.clear();
                        return Err(error);
                    }
                    Err(_) => {
                        link.counters.send_errors += 1;
                        self.counters.send_errors += 1;
                    }
                }
                next.to.pop_front();
            }
            if next.taken {
                self.counters.sent(next.frame.len());
                left += 1;
            }
            self.outgoing.pop_front();
        }
        Ok(left)
    }
}

impl Transport for NixTransport {
    fn limits(&self) -> Limits {
        Limits { frame_len: self.links.frame_len(), batch: self.batch }
    }

    fn receive(&mut self, deliver: &mut dyn FnMut(FrameMeta, &mut [u8])) -> io::Result<usize> {
        let (mut arrived, mut delivered) = (0, 0);
        for (number, link) in self.links.iter_mut().enumerate() {
            while arrived < self.batch {
                let Some(datagram) = receive(&link.port.receiver, &mut self.buffer)? else { break };
                arrived += 1;
                link.note_heard();
                link.port.note_dropped(datagram.dropped);
                let found = if self.is_ipv4 {
                    ipv4::frame(datagram.bytes, FRAME_LEN_MAX).map(|(source, frame)| (IpAddr::V4(source), frame))
                } else {
                    ipv6::frame(datagram, FRAME_LEN_MAX).map(|(source, frame)| (IpAddr::V6(source), frame))
                };
                match found {
                    Ok((source, frame)) => {
                        self.counters.received(frame);
                        link.counters.frames_received += 1;
                        link.counters.bytes_received += frame.len() as u64;
                        delivered += 1;
                        deliver(FrameMeta { link: number as u8, source }, frame);
                    }
                    Err(refusal) => self.counters.refuse(refusal),
                }
            }
        }
        Ok(delivered)
    }

    fn transmit(&mut self, fill: &mut dyn FnMut(&mut [u8]) -> Option<usize>) -> io::Result<usize> {
        let left_before = self.flush()?;
        if self.pending() > 0 {
            return Ok(left_before);
        }
        self.links.follow();
        let frame_len = self.links.frame_len();
        for _ in left_before..self.batch {
            let mut frame = vec![0; frame_len];
            let Some(length) = fill(&mut frame) else { break };
            if (1..=frame_len).contains(&length) {
                frame.truncate(length);
                self.outgoing.push_back(Outgoing { frame, to: (0..self.links.len()).collect(), taken: false });
            } else {
                self.counters.send_errors += 1;
            }
        }
        Ok(left_before + self.flush()?)
    }

    fn pending(&self) -> usize {
        self.outgoing.len()
    }

    fn readiness(&self) -> Descriptors<'_> {
        self.links.readiness()
    }

    fn counters(&self) -> TransportCounters {
        self.links.counters(self.counters)
    }
}

fn send(socket: &Socket, frame: &[u8], to: &SockaddrStorage) -> io::Result<()> {
    sendmsg(socket.as_raw_fd(), &[IoSlice::new(frame)], &[], MsgFlags::MSG_DONTWAIT, Some(to))?;
    Ok(())
}

/// The next datagram, and what is told beside it.
fn receive<'a>(socket: &Socket, buffer: &'a mut [u8]) -> io::Result<Option<Datagram<'a>>> {
    let mut control = nix::cmsg_space!(u32, i32);
    let mut vectors = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let message = match recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut vectors, Some(&mut control), flags) {
        Ok(message) => message,
        Err(nix::errno::Errno::EAGAIN) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let (mut dropped, mut hop_limit) = (None, None);
    for item in message.cmsgs()? {
        match item {
            ControlMessageOwned::RxqOvfl(count) => dropped = Some(count),
            ControlMessageOwned::Ipv6HopLimit(limit) => hop_limit = u8::try_from(limit).ok(),
            _ => {}
        }
    }
    let source = message.address.as_ref().and_then(SockaddrStorage::as_sockaddr_in6).map(|from| from.ip());
    let (length, cut) = (message.bytes, message.flags.contains(MsgFlags::MSG_TRUNC));
    Ok(Some(Datagram { bytes: &mut buffer[..length], dropped, hop_limit, source, cut }))
}
