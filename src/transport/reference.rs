//! Frames over raw IPv4 sockets, one to a system call, on nix's safe wrappers alone: what [`super::RawTransport`] is
//! held to.
//!
//! It is as plain as possible and makes no claim to speed: a queue of frames to send, a buffer to receive into, and the
//! same sockets. The conformance tests run against both; where they differ, one of them is wrong.

use super::link::{self, Links};
use super::raw::RawOptions;
use super::{Limits, Transport, TransportCounters, TransportError, ipv4};
use crate::wire::FrameMeta;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg};
use socket2::Socket;
use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddrV4};
use std::os::fd::{AsRawFd, BorrowedFd};

/// The reference transport.
pub struct NixTransport {
    links: Links,
    limits: Limits,
    counters: TransportCounters,
    destination: SockaddrIn,
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
        let (links, frame_len) = Links::open(options)?;
        Ok(NixTransport {
            links,
            limits: Limits { frame_len, batch: options.batch },
            counters: TransportCounters::default(),
            destination: SockaddrIn::from(SocketAddrV4::new(options.group, 0)),
            buffer: vec![0; ipv4::HEADER_LEN_MAX + frame_len],
            outgoing: VecDeque::new(),
        })
    }

    /// As [`super::RawTransport::link_is_up`].
    pub fn link_is_up(&self) -> bool {
        self.links.any_is_up()
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
        let mut left = 0;
        while let Some(next) = self.outgoing.front_mut() {
            while let Some(&number) = next.to.front() {
                match send(&self.links.get_mut(number).sender, &next.frame, &self.destination) {
                    Ok(()) => next.taken = true,
                    Err(error) if link::is_full(&error) => return Ok(left),
                    Err(error) if link::is_link_failure(&error) && self.links.len() == 1 => {
                        self.counters.send_errors += self.outgoing.len() as u64;
                        self.outgoing.clear();
                        return Err(error);
                    }
                    Err(_) => self.counters.send_errors += 1,
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
        self.limits
    }

    fn receive(&mut self, deliver: &mut dyn FnMut(FrameMeta, &mut [u8])) -> io::Result<usize> {
        let (mut arrived, mut delivered) = (0, 0);
        for (number, link) in self.links.iter_mut().enumerate() {
            while arrived < self.limits.batch {
                let Some((length, dropped)) = receive(&link.receiver, &mut self.buffer)? else { break };
                arrived += 1;
                link.note_dropped(dropped);
                match ipv4::frame(&mut self.buffer[..length], self.limits.frame_len) {
                    Ok((source, frame)) => {
                        self.counters.received(frame);
                        delivered += 1;
                        deliver(FrameMeta { link: number as u8, source: IpAddr::V4(source) }, frame);
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
        for _ in left_before..self.limits.batch {
            let mut frame = vec![0; self.limits.frame_len];
            let Some(length) = fill(&mut frame) else { break };
            if (1..=self.limits.frame_len).contains(&length) {
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

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        Some(self.links.readiness())
    }

    fn counters(&self) -> TransportCounters {
        self.links.counters(self.counters)
    }
}

fn send(socket: &Socket, frame: &[u8], to: &SockaddrIn) -> io::Result<()> {
    sendmsg(socket.as_raw_fd(), &[IoSlice::new(frame)], &[], MsgFlags::MSG_DONTWAIT, Some(to))?;
    Ok(())
}

/// The next datagram's length, and the drops that it tells of.
fn receive(socket: &Socket, buffer: &mut [u8]) -> io::Result<Option<(usize, Option<u32>)>> {
    let mut control = nix::cmsg_space!(u32);
    let mut vectors = [IoSliceMut::new(buffer)];
    match recvmsg::<()>(socket.as_raw_fd(), &mut vectors, Some(&mut control), MsgFlags::MSG_DONTWAIT) {
        Ok(message) => {
            let dropped = message.cmsgs()?.find_map(|item| match item {
                ControlMessageOwned::RxqOvfl(count) => Some(count),
                _ => None,
            });
            Ok(Some((message.bytes, dropped)))
        }
        Err(nix::errno::Errno::EAGAIN) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
