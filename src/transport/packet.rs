//! Frames past the kernel's IP, by packet sockets: received in a ring that the kernel fills, sent as whole Ethernet frames.
//!
//! ```text
//!  wire ─ filter: protocol 114 to the group ─▶ slot of the ring ─▶ deliver        no system call, no copy
//!  fill ─▶ batch ─ headers of each link ─▶ sendmmsg ─▶ driver ─ wire              past the queueing discipline
//! ```
//!
//! What is gained: the host's IP, its firewall and its queues are not on the way, so that a host which is busy with
//! others' packets still hears its peer, and a frame costs about half as much processor time. What is lost: the firewall
//! is not on the way (who may speak to the group is to be decided by the link, or by sealed frames), shaping of the
//! interface does not apply, and fragments are not put together. Why this kind of ring: [`crate::sys::packet`].
//!
//! The ring has as many slots as a socket buffer of the size that was asked for holds frames at the worst
//! ([`super::TransportCounters::receive_room`]), each for the largest frame, whatever the MTU is now.

use super::link::refused;
use super::options::{PREAMBLE, SYNC_ID_AT};
use super::port::{Arrival, Mode, Port};
use super::wired::Wired;
use super::{DATAGRAM_LEAST, DATAGRAM_OVERHEAD, RawOptions, TransportError, ethernet};
use crate::sys::cbpf::Program;
use crate::sys::mmsg::SendBatch;
use crate::sys::packet::{self, Listening, Membership, PacketReceiver};
use crate::sys::poll::Descriptors;
use crate::sys::socket::{self, Interface};
use crate::wire::{FRAME_LEN_MAX, IP_PROTOCOL};
use nix::errno::Errno;
use socket2::Socket;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;

/// A transport over packet sockets.
pub type PacketTransport = Wired<PacketPort>;

/// The two packet sockets of one interface.
#[derive(Debug)]
pub struct PacketPort {
    group: IpAddr,
    receiver: PacketReceiver,
    sender: Socket,
    membership: Membership,
    source: Option<([u8; 6], IpAddr)>,
    /// What goes in front of each frame; none without a source.
    headers: Option<ethernet::Headers>,
    receive_buffer: usize,
}

impl Port for PacketPort {
    /// Packets lie in the ring of each port.
    type Incoming = ();

    fn open(interface: &Interface, options: &RawOptions) -> Result<Self, TransportError> {
        let refused = |error| refused(&interface.name, error);
        let group = options.group;
        let what = Listening {
            ethertype: if group.is_ipv4() { libc::ETH_P_IP } else { libc::ETH_P_IPV6 } as u16,
            filter: filter(group).then(without_siblings(options)),
            group: ethernet::group_mac(group),
            slots: options.receive_buffer / (DATAGRAM_LEAST + DATAGRAM_OVERHEAD),
            packet_len: ethernet::header_len_max(group) + FRAME_LEN_MAX,
        };
        Ok(PacketPort {
            group,
            receiver: PacketReceiver::open(interface, what).map_err(refused)?,
            sender: packet::sender(interface, options.send_buffer).map_err(refused)?,
            membership: Membership::join(group, interface).map_err(refused)?,
            source: None,
            headers: None,
            receive_buffer: options.receive_buffer,
        })
    }

    fn incoming(_: &RawOptions) {}

    fn outgoing(options: &RawOptions) -> SendBatch {
        SendBatch::with_headers(options.batch, ethernet::header_len(options.group), FRAME_LEN_MAX)
    }

    fn reopen(&mut self, interface: &Interface, options: &RawOptions) -> Result<(), TransportError> {
        // The sockets first: what fails leaves the old ones, which a later attempt replaces.
        self.membership.renew(interface).map_err(|error| refused(&interface.name, error))?;
        *self = Self::open(interface, options)?;
        Ok(())
    }

    fn mode(&self) -> Mode {
        Mode { word: "packet", instead_of: None }
    }

    fn readiness(&self) -> Descriptors<'_> {
        [self.receiver.as_fd()].into_iter().collect()
    }

    fn receive(&mut self, (): &mut (), most: usize, mut take: impl FnMut(Arrival<'_>)) -> io::Result<usize> {
        let group = self.group;
        let arrived = self.receiver.receive(most, |packet| take(ethernet::frame(packet, group, FRAME_LEN_MAX)));
        if arrived == 0 {
            self.receiver.check()?;
        }
        Ok(arrived)
    }

    fn send(&mut self, batch: &mut SendBatch, first: usize) -> io::Result<usize> {
        let Some(headers) = &self.headers else { return Err(Errno::EADDRNOTAVAIL.into()) };
        for index in first..batch.len() {
            let (room, frame) = batch.with_header(index);
            headers.write(room, frame.len());
        }
        batch.send(self.sender.as_fd(), first)
    }

    fn renew_source(&mut self, group: IpAddr, _: bool) -> bool {
        let source = self.membership.source().filter(|source| is_taken_from(*source, group));
        let found = source.and_then(|source| Some((self.membership.mac().ok()?, source)));
        if found != self.source {
            self.source = found;
            self.headers = found.and_then(|(mac, source)| ethernet::Headers::new(mac, source, group));
        }
        self.headers.is_some()
    }

    fn dropped(&self) -> u64 {
        self.receiver.dropped()
    }

    fn receive_buffer(&self) -> u64 {
        self.receive_buffer as u64
    }

    fn send_buffer(&self) -> u64 {
        socket::granted_send_buffer(&self.sender).unwrap_or(0) as u64
    }
}

/// Whether receivers take packets to `group` that come from `source`: from 0.0.0.0 only if the group never leaves the link
/// (224.0.0.0/24; `ip_mc_validate_source` of net/ipv4/route.c).
fn is_taken_from(source: IpAddr, group: IpAddr) -> bool {
    match group {
        IpAddr::V4(group) => !source.is_unspecified() || group.octets()[..3] == [224, 0, 0],
        IpAddr::V6(_) => !source.is_unspecified(),
    }
}

/// Behind [`filter`]: drops frames of groups that another thread of this process hears, but for those that are too short to say
/// theirs.
fn without_siblings(options: &RawOptions) -> Program {
    const ETHERNET: u32 = 14;
    if options.siblings.is_empty() {
        return Program::new();
    }
    let least = (ethernet::header_len_max(options.group) + PREAMBLE) as u32;
    let program = Program::new().load_len().accept_below(least);
    let program = if options.group.is_ipv4() {
        program.load_u8_behind_ipv4(ETHERNET, SYNC_ID_AT)
    } else {
        program.load_u8(least - PREAMBLE as u32 + SYNC_ID_AT)
    };
    options.siblings.iter().fold(program, |program, sibling| program.drop_if((*sibling).into()))
}

/// Lets through what a raw socket that has joined the group would get: protocol 114 to the group, not sent to another
/// host's hardware address (which a promiscuous interface hears, too; the kernel also marks packets of VLANs that are not
/// ours so). Offsets are from the Ethernet header on.
fn filter(group: IpAddr) -> Program {
    let program = Program::new().load_packet_type().drop_if(u32::from(libc::PACKET_OTHERHOST)).load_u16(12);
    match group {
        IpAddr::V4(group) => program
            .drop_unless(&[libc::ETH_P_IP as u32])
            .load_u8(14 + 9)
            .drop_unless(&[IP_PROTOCOL.into()])
            .load_u32(14 + 16)
            .drop_unless(&[group.to_bits()]),
        IpAddr::V6(group) => {
            let program = program.drop_unless(&[libc::ETH_P_IPV6 as u32]).load_u8(14 + 6);
            let words = group.to_bits().to_be_bytes();
            words.chunks_exact(4).zip(0..).fold(
                program.drop_unless(&[IP_PROTOCOL.into()]),
                |program, (word, number)| {
                    let word = u32::from_be_bytes([word[0], word[1], word[2], word[3]]);
                    program.load_u32(14 + 24 + 4 * number).drop_unless(&[word])
                },
            )
        }
    }
}
