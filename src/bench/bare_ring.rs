//! The bare pair of packet sockets: what [`crate::transport::PacketTransport`] is built on, and nothing around it.
//!
//! ```text
//!   packet   sendmmsg ── 64 frames with ready-made headers a call ──▶ ═══ ──▶ ring of slots: taken out, first bytes read
//! ```

use super::bare::BATCH;
use super::flood::{BareEnds, Receiving, Sending};
use super::street::Street;
use super::workload::{FRAME_LEN, SYNC_ID, full_frame};
use super::{BenchError, Doing};
use crate::sys::cbpf::Program;
use crate::sys::mmsg::SendBatch;
use crate::sys::packet::{self, Listening, PacketReceiver};
use crate::sys::poll::Descriptors;
use crate::sys::socket::{Interface, SetupError, interface};
use crate::wire::{FRAME_LEN_MAX, GROUP, IP_PROTOCOL, TTL};
use socket2::Socket;
use std::io;
use std::os::fd::AsFd;

/// Ethernet and IPv4 header.
const HEADER_LEN: usize = 34;
/// Hardware address of the group (RFC 1112 section 6.4).
const GROUP_MAC: [u8; 6] = [0x01, 0x00, 0x5e, 0x00, 0x00, 0x51];
/// Packets that wait until they are read, as many as the transport's ring has.
const SLOTS: usize = 3542;
/// Bytes of send buffer, as [`crate::transport::RawOptions`] asks for.
const SEND_BUFFER: usize = 1 << 20;

/// Packet sockets at both ends.
pub(super) fn packets(street: &Street) -> Result<BareEnds, BenchError> {
    let (here, there) = street.at_each_end(|name| {
        let interface = interface(name).doing("looking at an interface")?;
        let sender = packet::sender(&interface, SEND_BUFFER).map_err(setup)?;
        let headers = headers(&interface);
        let filter = Program::new().load_u8(23).drop_unless(&[IP_PROTOCOL.into()]);
        let packet_len = 14 + 60 + FRAME_LEN_MAX;
        let what = Listening { ethertype: libc::ETH_P_IP as u16, filter, group: GROUP_MAC, slots: SLOTS, packet_len };
        Ok((sender, headers, PacketReceiver::open(&interface, what).map_err(setup)?))
    })?;
    let receiver = there.map(|(_, _, ring)| Box::new(BareRing { ring }) as Box<dyn Receiving>);
    let (socket, headers, _) = here;
    let batch = |count| {
        let mut batch = SendBatch::with_headers(count, HEADER_LEN, FRAME_LEN);
        while let Some(slot) = batch.slot() {
            slot.copy_from_slice(&full_frame(SYNC_ID));
            batch.commit(FRAME_LEN);
            batch.with_header(batch.len() - 1).0.copy_from_slice(&headers);
        }
        batch
    };
    Ok((Box::new(BareSender { socket, batch: batch(BATCH), single: batch(1) }), receiver))
}

fn setup(error: SetupError) -> BenchError {
    BenchError::Step { doing: "opening bare packet sockets", source: io::Error::other(error.to_string()) }
}

/// In front of each frame. Nobody checks the sum.
fn headers(interface: &Interface) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    bytes[..6].copy_from_slice(&GROUP_MAC);
    bytes[6..12].copy_from_slice(&interface.mac);
    bytes[12..16].copy_from_slice(&[0x08, 0x00, 0x45, 0x00]);
    bytes[16..18].copy_from_slice(&((20 + FRAME_LEN) as u16).to_be_bytes());
    (bytes[20], bytes[22], bytes[23]) = (0x40, TTL, IP_PROTOCOL);
    bytes[30..34].copy_from_slice(&GROUP.octets());
    bytes
}

struct BareSender {
    socket: Socket,
    batch: SendBatch,
    single: SendBatch,
}

impl Sending for BareSender {
    fn send(&mut self) -> io::Result<usize> {
        super::bare::send(self.socket.as_fd(), &mut self.batch)
    }

    fn send_one(&mut self, frame: &[u8; FRAME_LEN]) -> io::Result<bool> {
        self.single.with_header(0).1.copy_from_slice(frame);
        Ok(super::bare::send(self.socket.as_fd(), &mut self.single)? > 0)
    }
}

struct BareRing {
    ring: PacketReceiver,
}

impl Receiving for BareRing {
    fn receive(&mut self, each: &mut dyn FnMut(&[u8])) -> io::Result<usize> {
        Ok(self.ring.receive(BATCH, |packet| each(packet.get(HEADER_LEN..).unwrap_or_default())))
    }

    fn readiness(&self) -> Descriptors<'_> {
        [self.ring.as_fd()].into_iter().collect()
    }
}
