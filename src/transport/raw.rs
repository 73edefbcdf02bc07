//! Frames over raw IPv4 or IPv6 sockets, protocol 114, many to a system call: the transport of production.
//!
//! ```text
//!                ┌ link 0: receive socket ─ recvmmsg ┐                        ┌ send socket ─ wire
//!  wire ─────────┤                                   ├→ deliver    fill → one batch of slots ─ sendmmsg
//!                └ link 1: receive socket ─ recvmmsg ┘                        └ send socket ─ wire
//! ```
//!
//! A frame is written once, into the slot that the kernel reads on every link. With several links each has its own
//! place in the batch, and a frame has left when every link that moves has taken it. A link that fails, or that takes
//! nothing in [`STALLED_CALLS_MAX`] calls while another has taken all, is not waited for: what it did not get is
//! counted as send errors. Receiving and transmitting allocate nothing.
//!
//! Slots have room for the largest frame of all, whatever the MTU is now: a peer may have a larger one, and it may change
//! at any moment. What is lent to be filled is as long as the link carries *now*.

pub use super::link::{LinkCondition, LinkCounters, LinkStatus, RawOptions};

use super::link::{self, Link, Links};
use super::{Limits, Transport, TransportCounters, TransportError, ipv4, ipv6};
use crate::sys::mmsg::{ReceiveBatch, SendBatch};
use crate::wire::{FRAME_LEN_MAX, FrameMeta};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

/// Calls in which a link with a full queue may hold up a batch that another link has already taken.
pub const STALLED_CALLS_MAX: u32 = 32;

/// A transport over raw IP sockets.
pub struct RawTransport {
    links: Links,
    batch: usize,
    is_ipv4: bool,
    counters: TransportCounters,
    incoming: ReceiveBatch,
    /// The link that the next [`Transport::receive`] begins with.
    first_link: usize,
    outgoing: Outgoing,
}

impl RawTransport {
    /// Opens the sockets, in the calling thread's network namespace.
    ///
    /// # Errors
    /// What is wrong with the options, the interfaces or the process's rights.
    pub fn open(options: &RawOptions) -> Result<Self, TransportError> {
        let links = Links::open(options)?;
        Ok(RawTransport {
            incoming: ReceiveBatch::new(options.batch, ipv4::HEADER_LEN_MAX + FRAME_LEN_MAX),
            outgoing: Outgoing::new(options.batch, SocketAddr::new(options.group, 0), links.len()),
            counters: TransportCounters::default(),
            first_link: 0,
            links,
            batch: options.batch,
            is_ipv4: options.group.is_ipv4(),
        })
    }

    /// Whether frames could pass on at least one link when they were last looked at: its interface is switched on, has a
    /// carrier, and is the one that our sockets are bound to.
    pub fn link_is_up(&self) -> bool {
        self.links.any_is_up()
    }

    /// Looks at the links, and mends what can be mended: sockets of an interface that was replaced by another of its
    /// name. Call it regularly, in the network namespace of the links: an interface that goes down makes sending fail, but
    /// one that only loses its carrier swallows frames, and receiving is silent in both cases.
    pub fn look(&mut self) {
        self.links.look();
    }

    /// The next link that has gone down or come back since this was last asked. However often one went up and down
    /// meanwhile, it is told of once.
    pub fn next_change(&mut self) -> Option<LinkStatus> {
        self.links.next_change()
    }

    /// How each link stands, in the order of the options.
    pub fn links(&self) -> Vec<LinkStatus> {
        self.links.status()
    }

    /// Opens anew the sockets of each interface that was replaced by another of its name, in the calling thread's
    /// network namespace. Links that are as they were keep their sockets; counters go on.
    ///
    /// # Errors
    /// As for [`RawTransport::open`]; a link that fails keeps its old sockets and does not keep the others from being
    /// opened.
    pub fn reopen(&mut self) -> Result<(), TransportError> {
        self.links.reopen()
    }
}

impl Transport for RawTransport {
    fn limits(&self) -> Limits {
        Limits { frame_len: self.links.frame_len(), batch: self.batch }
    }

    fn receive(&mut self, deliver: &mut dyn FnMut(FrameMeta, &mut [u8])) -> io::Result<usize> {
        let (mut room, mut delivered, mut failed) = (self.batch, 0, 0);
        for _ in 0..self.links.len() {
            let number = self.first_link;
            self.first_link = (number + 1) % self.links.len();
            match self.receive_from(number, room, deliver) {
                Ok((arrived, frames)) => {
                    room -= arrived;
                    delivered += frames;
                }
                Err(error) => {
                    failed += 1;
                    if failed == self.links.len() {
                        return Err(error);
                    }
                }
            }
            if room == 0 {
                break;
            }
        }
        Ok(delivered)
    }

    fn transmit(&mut self, fill: &mut dyn FnMut(&mut [u8]) -> Option<usize>) -> io::Result<usize> {
        let left_before = self.outgoing.flush(&mut self.links, &mut self.counters)?;
        if self.outgoing.pending() > 0 {
            return Ok(left_before);
        }
        // Before the next frame is made, so that none is longer than the link carries now.
        self.links.follow();
        self.outgoing.fill(self.batch - left_before, self.links.frame_len(), fill, &mut self.counters);
        Ok(left_before + self.outgoing.flush(&mut self.links, &mut self.counters)?)
    }

    fn pending(&self) -> usize {
        self.outgoing.pending()
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        Some(self.links.readiness())
    }

    fn counters(&self) -> TransportCounters {
        self.links.counters(self.counters)
    }
}

impl RawTransport {
    /// Takes at most `room` datagrams from one link; says how many arrived and how many of them were frames.
    fn receive_from(
        &mut self,
        number: usize,
        room: usize,
        deliver: &mut dyn FnMut(FrameMeta, &mut [u8]),
    ) -> io::Result<(usize, usize)> {
        let link = self.links.get_mut(number);
        let arrived = self.incoming.receive(link.receiver.as_fd(), room)?;
        if arrived > 0 {
            link.note_heard();
        }
        let mut frames = 0;
        for index in 0..arrived {
            let datagram = self.incoming.datagram(index);
            link.note_dropped(datagram.dropped);
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
                    frames += 1;
                    deliver(FrameMeta { link: number as u8, source }, frame);
                }
                Err(refusal) => self.counters.refuse(refusal),
            }
        }
        Ok((arrived, frames))
    }
}

/// The frames that are on their way out, and how far each link has got with them.
struct Outgoing {
    batch: SendBatch,
    cursors: Vec<Cursor>,
    /// Frames at the head of the batch that every link is done with.
    done: usize,
    /// For each frame of the batch, whether some link has taken it.
    taken: Vec<bool>,
}

/// A link's place in the batch.
#[derive(Clone, Default)]
struct Cursor {
    next: usize,
    stalled_calls: u32,
}

impl Cursor {
    /// Notes a call that began at `before`, with `filled` frames in the batch.
    fn note_progress(&mut self, before: usize, filled: usize) {
        if self.next > before {
            self.stalled_calls = 0;
        } else if self.next < filled {
            self.stalled_calls = self.stalled_calls.saturating_add(1);
        }
    }

    fn is_stuck(&self) -> bool {
        self.stalled_calls >= STALLED_CALLS_MAX
    }
}

impl Outgoing {
    fn new(batch: usize, destination: SocketAddr, links: usize) -> Self {
        Outgoing {
            batch: SendBatch::new(batch, FRAME_LEN_MAX, destination),
            cursors: vec![Cursor::default(); links],
            done: 0,
            taken: vec![false; batch],
        }
    }

    fn pending(&self) -> usize {
        self.batch.len() - self.done
    }

    /// Asks for at most `room` frames of at most `frame_len` bytes. The batch is empty before.
    fn fill(
        &mut self,
        room: usize,
        frame_len: usize,
        fill: &mut dyn FnMut(&mut [u8]) -> Option<usize>,
        counters: &mut TransportCounters,
    ) {
        for _ in 0..room {
            let Some(length) = self.batch.slot().and_then(|slot| fill(&mut slot[..frame_len])) else { break };
            if (1..=frame_len).contains(&length) {
                self.taken[self.batch.len()] = false;
                self.batch.commit(length);
            } else {
                counters.send_errors += 1;
            }
        }
    }

    /// Gives every link what it has not had yet, and says how many frames have left with that. An error is that of the
    /// last link, when all have failed; the frames are dropped then, as a dead wire would.
    fn flush(&mut self, links: &mut Links, counters: &mut TransportCounters) -> io::Result<usize> {
        if self.batch.is_empty() {
            return Ok(0);
        }
        let mut failures = 0;
        let mut failure = None;
        let another_is_up = links.any_is_up();
        for (link, cursor) in links.iter_mut().zip(&mut self.cursors) {
            let before = cursor.next;
            if another_is_up && !link.is_up() {
                // Without a carrier its queue is full for ever, and would hold up the others.
                give_up(&self.batch, link, cursor, counters);
                failures += 1;
            } else if let Err(error) = push(&mut self.batch, link, cursor, &mut self.taken, counters) {
                failures += 1;
                failure = Some(error);
            }
            cursor.note_progress(before, self.batch.len());
        }
        self.leave_stalled_links_behind(links, counters);
        let left = self.settle(counters);
        match failure {
            Some(error) if failures == self.cursors.len() => Err(error),
            _ => Ok(left),
        }
    }

    /// A link that was left behind once is left behind at once in later batches, until it takes a frame again.
    fn leave_stalled_links_behind(&mut self, links: &mut Links, counters: &mut TransportCounters) {
        let filled = self.batch.len();
        if self.cursors.iter().all(|cursor| cursor.next < filled) {
            return;
        }
        for (link, cursor) in links.iter_mut().zip(&mut self.cursors) {
            if cursor.is_stuck() {
                give_up(&self.batch, link, cursor, counters);
            }
        }
    }

    /// Counts what every link is done with since the last call, and empties a batch that is done.
    fn settle(&mut self, counters: &mut TransportCounters) -> usize {
        let done = self.cursors.iter().map(|cursor| cursor.next).min().unwrap_or(0);
        let mut left = 0;
        for index in self.done..done {
            if self.taken[index] {
                counters.sent(self.batch.datagram_len(index));
                left += 1;
            }
        }
        self.done = done;
        if done == self.batch.len() {
            self.batch.clear();
            self.done = 0;
            self.cursors.iter_mut().for_each(|cursor| cursor.next = 0);
        }
        left
    }
}

/// Gives one link what it has not had yet, until its queue is full. A frame that it will not have is skipped and
/// counted; when the link itself has failed, all that is left of the batch is.
fn push(
    batch: &mut SendBatch,
    link: &mut Link,
    cursor: &mut Cursor,
    taken: &mut [bool],
    counters: &mut TransportCounters,
) -> io::Result<()> {
    while cursor.next < batch.len() {
        match batch.send(link.sender.as_fd(), cursor.next) {
            Ok(count) => {
                let sent = cursor.next..cursor.next + count;
                link.counters.frames_sent += count as u64;
                link.counters.bytes_sent += sent.clone().map(|index| batch.datagram_len(index) as u64).sum::<u64>();
                taken[sent].fill(true);
                cursor.next += count;
            }
            Err(error) if link::is_full(&error) => break,
            Err(error) if link::is_link_failure(&error) => {
                if link::is_no_address(&error) {
                    link.note_no_address();
                }
                give_up(batch, link, cursor, counters);
                return Err(error);
            }
            Err(_) => {
                link.counters.send_errors += 1;
                counters.send_errors += 1;
                cursor.next += 1;
            }
        }
    }
    Ok(())
}

/// The link does not get what is left of the batch.
fn give_up(batch: &SendBatch, link: &mut Link, cursor: &mut Cursor, counters: &mut TransportCounters) {
    let missed = (batch.len() - cursor.next) as u64;
    link.counters.send_errors += missed;
    counters.send_errors += missed;
    cursor.next = batch.len();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_stuck_after_thirty_two_calls_without_a_frame_and_until_it_takes_one() {
        let mut cursor = Cursor { next: 3, stalled_calls: 0 };
        for _ in 0..31 {
            cursor.note_progress(3, 8);
        }
        assert!(!cursor.is_stuck());
        cursor.note_progress(3, 8);
        assert!(cursor.is_stuck());
        // With nothing left to take it proves nothing.
        cursor.next = 8;
        cursor.note_progress(8, 8);
        assert!(cursor.is_stuck());
        cursor.next = 1;
        cursor.note_progress(0, 8);
        assert!(!cursor.is_stuck());
    }
}
