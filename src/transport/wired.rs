//! A transport over sync links: what is the same for raw sockets, packet rings and AF_XDP.
//!
//! ```text
//!                ┌ link 0: port ┐                            ┌ link 0: port ─ wire
//!  wire ─────────┤              ├─▶ deliver     fill ─▶ batch ┤
//!                └ link 1: port ┘                            └ link 1: port ─ wire
//! ```
//!
//! The batch is left out where there is one link that lends slots of its own ([`outgoing::straight`]).
//!
//! Links take turns at being the first to be received from, so that a flood on one never silences another. Receiving and
//! transmitting allocate nothing.
//!
//! Slots have room for the largest frame of all, whatever the MTU is now: a peer may have a larger one, and it may change
//! at any moment. What is lent to be filled is as long as the link carries *now*.

use super::link::{LinkStatus, Links};
use super::outgoing::{self, Outgoing};
use super::port::Port;
use super::{Limits, RawOptions, Transport, TransportCounters, TransportError};
use crate::sys::poll::Descriptors;
use crate::wire::FrameMeta;
use std::io;

/// A transport over sync links, each reached by a `P`.
pub struct Wired<P: Port> {
    links: Links<P>,
    batch: usize,
    counters: TransportCounters,
    incoming: P::Incoming,
    /// The link that the next [`Transport::receive`] begins with.
    first_link: usize,
    outgoing: Outgoing,
    instead_of: Option<String>,
}

impl<P: Port> Wired<P> {
    /// Opens the links, in the calling thread's network namespace.
    ///
    /// # Errors
    /// What is wrong with the options, the interfaces or the process's rights.
    pub fn open(options: &RawOptions) -> Result<Self, TransportError> {
        let links = Links::open(options)?;
        Ok(Wired {
            incoming: P::incoming(options),
            outgoing: Outgoing::new(P::outgoing(options), options.batch, links.len()),
            counters: TransportCounters::default(),
            first_link: 0,
            links,
            batch: options.batch,
            instead_of: None,
        })
    }

    /// Notes what was tried before this transport, and why it cannot be had: each link tells it.
    #[must_use]
    pub fn instead_of(mut self, reason: Option<String>) -> Self {
        self.instead_of = reason;
        self
    }

    /// Whether frames could pass on at least one link when they were last looked at: its interface is switched on, has a
    /// carrier, and is the one that we have opened.
    pub fn link_is_up(&self) -> bool {
        self.links.any_is_up()
    }

    /// Looks at the links, and mends what can be mended: what belongs to an interface that was replaced by another
    /// of its name. Call it regularly, in the network namespace of the links: an interface that goes down makes sending fail, but
    /// one that only loses its carrier swallows frames, and receiving is silent in both cases.
    pub fn look(&mut self) {
        self.links.look();
    }

    /// The next link that has gone down or come back since this was last asked. However often one went up and down
    /// meanwhile, it is told of once.
    pub fn next_change(&mut self) -> Option<LinkStatus> {
        self.links.next_change().map(|link| self.explained(link))
    }

    /// How each link stands, in the order of the options.
    pub fn links(&self) -> Vec<LinkStatus> {
        self.links.status().into_iter().map(|link| self.explained(link)).collect()
    }

    /// Opens anew each link whose interface was replaced by another of its name, in the calling thread's network
    /// namespace. Links that are as they were lose nothing; counters go on.
    ///
    /// # Errors
    /// As for [`Wired::open`]; a link that fails does not keep the others from being opened.
    pub fn reopen(&mut self) -> Result<(), TransportError> {
        self.links.reopen()
    }
}

impl<P: Port> Transport for Wired<P> {
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
        self.links.push(&mut self.counters);
        let left_before = self.outgoing.flush(&mut self.links, &mut self.counters)?;
        if self.outgoing.pending() > 0 {
            return Ok(left_before);
        }
        // Before the next frame is made, so that none is longer than the link carries now.
        self.links.follow();
        let (room, frame_len) = (self.batch - left_before, self.links.frame_len());
        if let Some(link) = self.links.only()
            && let Some(left) = outgoing::straight(link, room, frame_len, fill, &mut self.counters)
        {
            return Ok(left_before + left?);
        }
        self.outgoing.fill(room, frame_len, fill, &mut self.counters);
        Ok(left_before + self.outgoing.flush(&mut self.links, &mut self.counters)?)
    }

    fn pending(&self) -> usize {
        self.outgoing.pending() + self.links.unsent()
    }

    fn readiness(&self) -> Descriptors<'_> {
        self.links.readiness()
    }

    fn counters(&self) -> TransportCounters {
        self.links.counters(self.counters)
    }
}

impl<P: Port> Wired<P> {
    fn explained(&self, mut link: LinkStatus) -> LinkStatus {
        let reasons: Vec<String> = self.instead_of.iter().cloned().chain(link.mode.instead_of).collect();
        link.mode.instead_of = (!reasons.is_empty()).then(|| reasons.join("; "));
        link
    }

    /// Takes at most `room` datagrams from one link; says how many arrived and how many of them were frames.
    fn receive_from(
        &mut self,
        number: usize,
        room: usize,
        deliver: &mut dyn FnMut(FrameMeta, &mut [u8]),
    ) -> io::Result<(usize, usize)> {
        let Wired { links, incoming, counters, .. } = self;
        let link = links.get_mut(number);
        let (link_counters, mut frames) = (&mut link.counters, 0);
        let arrived = link.port.receive(incoming, room, |arrival| match arrival {
            Ok((source, frame)) => {
                counters.received(frame);
                link_counters.frames_received += 1;
                link_counters.bytes_received += frame.len() as u64;
                frames += 1;
                deliver(FrameMeta { link: number as u8, source }, frame);
            }
            Err(refusal) => counters.refuse(refusal),
        })?;
        if arrived > 0 {
            link.note_heard();
        }
        Ok((arrived, frames))
    }
}
