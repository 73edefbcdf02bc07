//! The bare pair of AF_XDP: the same rings and the same program, frames that are written once into every slot, and of
//! what arrives the first bytes are read.

use super::bare::BATCH;
use super::flood::{BareEnds, Receiving, Sending};
use super::street::Street;
use super::workload::{FRAME_LEN, SYNC_ID, full_frame};
use super::{BenchError, Doing};
use crate::sys::bpf::{Attachment, BpfError, Mode, Redirect};
use crate::sys::poll::Descriptors;
use crate::sys::socket::{Interface, SetupError, interface};
use crate::sys::xsk::{XskOptions, XskSocket};
use crate::time::Duration;
use crate::wire::{GROUP, IP_PROTOCOL, TTL};
use std::io;
use std::os::fd::AsFd;

/// Bytes of Ethernet and IPv4 header.
const HEADERS_LEN: usize = 14 + 20;
/// Frames that may be on their way out, as in [`crate::transport::XdpTransport`].
const SLOTS: u32 = 256;
/// Bytes of the buffers: receiving, sending.
const BUFFERS: (usize, usize) = (16 << 20, 1 << 20);
/// Time that the kernel may take to free the queue of the pair before this one.
const PATIENCE: Duration = Duration::from_secs(1);

/// A queue at both ends, and the program at the receiving one.
pub(super) fn rings(street: &Street) -> Result<BareEnds, BenchError> {
    let (here, there) = street.at_each_end(End::open)?;
    let receiver = there.map(|end| end.hear()).transpose()?;
    Ok((Box::new(end_that_sends(here)), receiver.map(|receiver| Box::new(receiver) as Box<dyn Receiving>)))
}

/// A queue, and what a receiver needs beside it.
struct End {
    socket: XskSocket,
    redirect: Redirect,
    _attachment: Attachment,
    mac: [u8; 6],
}

impl End {
    fn open(name: &str) -> Result<Self, BenchError> {
        let Interface { index, mac, .. } = interface(name).doing("looking at an interface")?;
        let redirect = Redirect::load(IP_PROTOCOL, GROUP.into()).map_err(refused)?;
        let attachment = redirect.attach(index, Mode::Native).or_else(|_| redirect.attach(index, Mode::Skb));
        let attachment = attachment.map_err(refused)?;
        let options = XskOptions {
            index,
            queue: 0,
            receive_memory: BUFFERS.0,
            slots: SLOTS,
            frame_len: HEADERS_LEN + FRAME_LEN,
            frame_len_now: HEADERS_LEN + FRAME_LEN,
            send_buffer: BUFFERS.1,
            zero_copy: attachment.mode() == Mode::Native,
            patience: PATIENCE,
        };
        let socket = XskSocket::open(&options).map_err(|error: SetupError| BenchError::Step {
            doing: "opening a bare AF_XDP socket",
            source: io::Error::other(error.to_string()),
        })?;
        Ok(End { socket, redirect, _attachment: attachment, mac })
    }

    /// From now on frames come by its queue.
    fn hear(self) -> Result<Self, BenchError> {
        self.redirect.set(0, &self.socket).map_err(refused)?;
        Ok(self)
    }
}

fn refused(error: BpfError) -> BenchError {
    BenchError::Step { doing: "running the XDP program", source: io::Error::other(error.to_string()) }
}

/// Writes a frame into every slot; nobody hears these.
fn end_that_sends(mut end: End) -> End {
    let frame = frame(end.mac);
    while let Some(slot) = end.socket.slot() {
        slot[..frame.len()].copy_from_slice(&frame);
        end.socket.commit(frame.len());
    }
    // What does not leave now leaves with the first batch.
    let _ = end.socket.push(&mut |_, _| ());
    end
}

/// Headers without a checksum, which nobody at the other end looks at, and a frame.
fn frame(mac: [u8; 6]) -> [u8; HEADERS_LEN + FRAME_LEN] {
    let mut frame = [0; HEADERS_LEN + FRAME_LEN];
    frame[HEADERS_LEN..].copy_from_slice(&full_frame(SYNC_ID));
    let [_, second, third, fourth] = GROUP.octets();
    frame[..6].copy_from_slice(&[0x01, 0x00, 0x5e, second & 0x7f, third, fourth]);
    frame[6..12].copy_from_slice(&mac);
    (frame[12], frame[14], frame[22], frame[23]) = (0x08, 0x45, TTL, IP_PROTOCOL);
    frame[16..18].copy_from_slice(&((20 + FRAME_LEN) as u16).to_be_bytes());
    frame[30..34].copy_from_slice(&GROUP.octets());
    frame
}

impl Sending for End {
    fn send(&mut self) -> io::Result<usize> {
        for _ in 0..BATCH {
            if self.socket.slot().is_none() {
                break;
            }
            self.socket.commit(HEADERS_LEN + FRAME_LEN);
        }
        let mut sent = 0;
        self.socket.push(&mut |_, arrived| sent += usize::from(arrived))?;
        Ok(sent)
    }

    fn send_one(&mut self, frame: &[u8; FRAME_LEN]) -> io::Result<bool> {
        let Some(slot) = self.socket.slot() else { return Ok(false) };
        slot[HEADERS_LEN..HEADERS_LEN + FRAME_LEN].copy_from_slice(frame);
        self.socket.commit(HEADERS_LEN + FRAME_LEN);
        self.socket.push(&mut |_, _| ())?;
        Ok(true)
    }
}

impl Receiving for End {
    fn receive(&mut self, each: &mut dyn FnMut(&[u8])) -> io::Result<usize> {
        Ok(self.socket.receive(BATCH, &mut |packet| each(packet.get(HEADERS_LEN..).unwrap_or_default())))
    }

    fn readiness(&self) -> Descriptors<'_> {
        [self.socket.as_fd()].into_iter().collect()
    }
}
