//! Frames over raw IPv4 or IPv6 sockets, protocol 114, many to a system call: the transport of production.
//!
//! ```text
//!  wire ─ receive socket ─ recvmmsg ─▶ slots ─▶ deliver        fill ─▶ slots ─ sendmmsg ─▶ send socket ─ wire
//! ```
//!
//! The kernel's IP does most of the work: it fills in source addresses and checksums, reassembles, knows who has joined
//! which group, and passes everything through the host's firewall. That makes it the way that works everywhere.

pub use super::link::{LinkCondition, LinkCounters, LinkStatus};
pub use super::options::RawOptions;
pub use super::outgoing::STALLED_CALLS_MAX;

use super::link::refused;
use super::options::{PREAMBLE, SYNC_ID_AT};
use super::port::{Arrival, Mode, Port};
use super::wired::Wired;
use super::{TransportError, ipv4, ipv6};
use crate::sys::cbpf::Program;
use crate::sys::mmsg::{ReceiveBatch, SendBatch};
use crate::sys::poll::Descriptors;
use crate::sys::socket::{self, Interface, SetupError};
use crate::wire::{FRAME_LEN_MAX, IP_PROTOCOL};
use socket2::Socket;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

/// A transport over raw IP sockets.
pub type RawTransport = Wired<RawPort>;

/// The two raw sockets of one interface.
#[derive(Debug)]
pub struct RawPort {
    index: u32,
    is_ipv4: bool,
    /// Hears the group.
    pub(super) receiver: Socket,
    /// Sends to it.
    pub(super) sender: Socket,
    drops: DropCount,
}

impl RawPort {
    /// Notes what a datagram said of drops before it.
    pub(super) fn note_dropped(&mut self, dropped: Option<u32>) {
        if let Some(now) = dropped {
            self.drops.note(now);
        }
    }
}

impl Port for RawPort {
    /// Slots for what one call of `recvmmsg` brings.
    type Incoming = ReceiveBatch;

    fn open(interface: &Interface, options: &RawOptions) -> Result<Self, TransportError> {
        let refused = |error| refused(&interface.name, error);
        let receiver = socket::multicast_receiver(IP_PROTOCOL, options.group, interface, options.receive_buffer);
        let sender = socket::multicast_sender(IP_PROTOCOL, options.group, interface, options.send_buffer);
        let receiver = receiver.map_err(refused)?;
        if !options.siblings.is_empty() {
            let source = |source| refused(SetupError { step: "SO_ATTACH_FILTER", source });
            without_siblings(options).attach(&receiver).map_err(source)?;
        }
        Ok(RawPort {
            index: interface.index,
            is_ipv4: options.group.is_ipv4(),
            receiver,
            sender: sender.map_err(refused)?,
            drops: DropCount::default(),
        })
    }

    fn incoming(options: &RawOptions) -> ReceiveBatch {
        ReceiveBatch::new(options.batch, ipv4::HEADER_LEN_MAX + FRAME_LEN_MAX)
    }

    fn outgoing(options: &RawOptions) -> SendBatch {
        SendBatch::new(options.batch, FRAME_LEN_MAX, SocketAddr::new(options.group, 0))
    }

    fn reopen(&mut self, interface: &Interface, options: &RawOptions) -> Result<(), TransportError> {
        if let IpAddr::V6(group) = options.group {
            // Before the new one joins: the membership that the interface has forgotten would be taken from the new one
            // when the old socket is closed. That there is none to leave is no error here.
            let _ = self.receiver.leave_multicast_v6(&group, self.index);
        }
        *self = Self::open(interface, options)?;
        Ok(())
    }

    fn mode(&self) -> Mode {
        Mode { word: "raw", instead_of: None }
    }

    fn readiness(&self) -> Descriptors<'_> {
        [self.receiver.as_fd()].into_iter().collect()
    }

    fn receive(
        &mut self,
        incoming: &mut ReceiveBatch,
        most: usize,
        mut take: impl FnMut(Arrival<'_>),
    ) -> io::Result<usize> {
        let arrived = incoming.receive(self.receiver.as_fd(), most)?;
        for index in 0..arrived {
            let datagram = incoming.datagram(index);
            self.note_dropped(datagram.dropped);
            take(if self.is_ipv4 {
                ipv4::frame(datagram.bytes, FRAME_LEN_MAX).map(|(source, frame)| (IpAddr::V4(source), frame))
            } else {
                ipv6::frame(datagram, FRAME_LEN_MAX).map(|(source, frame)| (IpAddr::V6(source), frame))
            });
        }
        Ok(arrived)
    }

    fn send(&mut self, batch: &mut SendBatch, first: usize) -> io::Result<usize> {
        batch.send(self.sender.as_fd(), first)
    }

    /// The kernel writes it into each datagram. With IPv4 it may be 0.0.0.0; with IPv6 a datagram that has none fails.
    fn renew_source(&mut self, group: IpAddr, known: bool) -> bool {
        match group {
            IpAddr::V4(_) => true,
            IpAddr::V6(group) => known || socket::has_source_address(group, self.index),
        }
    }

    /// Those included that no later datagram has told us of.
    fn dropped(&self) -> u64 {
        socket::dropped(&self.receiver).map_or(self.drops.total, |now| self.drops.at(now))
    }

    fn receive_buffer(&self) -> u64 {
        socket::granted_receive_buffer(&self.receiver).unwrap_or(0) as u64
    }

    fn send_buffer(&self) -> u64 {
        socket::granted_send_buffer(&self.sender).unwrap_or(0) as u64
    }
}

/// What the receiving socket drops. The kernel shows an IPv4 datagram with its header, an IPv6 one without. What is too short
/// for a frame passes, and is counted where it is refused: a load from behind the end would drop it in silence.
fn without_siblings(options: &RawOptions) -> Program {
    let program = Program::new().load_len();
    let program = if options.group.is_ipv4() {
        program.accept_below((ipv4::HEADER_LEN_MAX + PREAMBLE) as u32).load_u8_behind_ipv4(0, SYNC_ID_AT)
    } else {
        program.accept_below(PREAMBLE as u32).load_u8(SYNC_ID_AT)
    };
    options.siblings.iter().fold(program, |program, sibling| program.drop_if((*sibling).into()))
}

/// The kernel's 32-bit count of drops at a socket, made 64 bits long.
#[derive(Clone, Copy, Default, Debug)]
struct DropCount {
    last: u32,
    total: u64,
}

impl DropCount {
    fn at(self, now: u32) -> u64 {
        self.total + u64::from(now.wrapping_sub(self.last))
    }

    fn note(&mut self, now: u32) {
        *self = DropCount { last: now, total: self.at(now) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_of_drops_outlives_its_thirty_two_bits() {
        let mut drops = DropCount::default();
        drops.note(u32::MAX);
        assert_eq!(drops.at(2), 4_294_967_298);
        drops.note(2);
        assert_eq!(drops.at(3), 4_294_967_299);
    }
}
