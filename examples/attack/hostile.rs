//! The third party on the sync link: it hears every frame, and sends what it likes under whatever address it likes.
//!
//! ```text
//!   sync link ──▶ packet socket ──▶ Wiretap: the newest frame of each kind and sender, and the last few of all
//!             ◀── raw socket with our own IP header (source as we please, TTL 255), many to a system call
//! ```

use ssyncp::sys::mmsg::SendBatch;
use ssyncp::sys::namespace::Namespace;
use ssyncp::sys::socket::{PacketSocket, interface};
use ssyncp::wire::{Frame, GROUP, Header, Kind, NodeId};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use super::chaos::lab::SYNC;
use socket2::{Domain, Protocol, Socket, Type};

/// Datagrams of one system call.
const BATCH: usize = 512;
/// Largest frame that is sent: what an MTU of 1500 leaves.
pub const FRAME_MAX: usize = 1480;
/// Bytes of an Ethernet header, and of an IPv4 header without options.
const ETHERNET: usize = 14;
const IPV4: usize = 20;
/// Frames that are remembered as they came.
const RECENT_MAX: usize = 256;
/// Pause when the way out is full.
const FULL_PAUSE: Duration = Duration::from_micros(200);

/// A way to send any IPv4 datagram of protocol 114 to the group.
pub struct Hostile {
    socket: Socket,
    batch: SendBatch,
    octets: u64,
}

impl Hostile {
    /// Opens it in the stranger's namespace.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn open(stranger: &Namespace) -> io::Result<Self> {
        let open = || {
            // 255 is IPPROTO_RAW: whoever uses it writes the IP header.
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)))?;
            socket.bind_device(Some(SYNC.as_bytes()))?;
            socket.set_nonblocking(true)?;
            socket.set_send_buffer_size(4 << 20)?;
            Ok(socket)
        };
        let socket = stranger.run(open)?;
        let group = SocketAddr::new(IpAddr::V4(GROUP), 0);
        Ok(Hostile { socket, batch: SendBatch::new(BATCH, IPV4 + FRAME_MAX, group), octets: 0 })
    }

    /// Puts one datagram into the batch: `fill` writes the frame and says how long it is and where it pretends to come from.
    /// Says whether there was room. A frame without bytes is left out.
    pub fn put(&mut self, fill: impl FnOnce(&mut [u8]) -> (usize, Ipv4Addr)) -> bool {
        let Some(slot) = self.batch.slot() else { return false };
        let (head, frame) = slot.split_at_mut(IPV4);
        let (length, source) = fill(frame);
        if length == 0 {
            return true;
        }
        // Version and length of the header; don't fragment; TTL 255; protocol 114. The kernel fills in length and checksum.
        head.fill(0);
        (head[0], head[6], head[8], head[9]) = (0x45, 0x40, 255, ssyncp::wire::IP_PROTOCOL);
        head[2..4].copy_from_slice(&((IPV4 + length) as u16).to_be_bytes());
        head[12..16].copy_from_slice(&source.octets());
        head[16..20].copy_from_slice(&GROUP.octets());
        self.batch.commit(IPV4 + length);
        true
    }

    /// Datagrams that wait to be sent.
    pub fn waiting(&self) -> usize {
        self.batch.len()
    }

    /// Sends the batch; says how many left. It stays as it is, to be sent again.
    ///
    /// # Errors
    /// The operating system's error, but for a queue that is full, for which it waits.
    pub fn send(&mut self) -> io::Result<u64> {
        let mut sent = 0;
        while sent < self.batch.len() {
            match self.batch.send(self.socket.as_fd(), sent) {
                Ok(count) => {
                    let left = (sent..sent + count).map(|at| ETHERNET + self.batch.datagram_len(at));
                    self.octets += left.sum::<usize>() as u64;
                    sent += count;
                }
                Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS)) => {
                    std::thread::sleep(FULL_PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(sent as u64)
    }

    /// Octets that were sent, Ethernet headers included.
    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// Empties the batch.
    pub fn clear(&mut self) {
        self.batch.clear();
    }
}

/// Ears on the sync link. Headers are in the clear, also of sealed frames: who listens knows every number.
pub struct Wiretap {
    socket: PacketSocket,
    newest: BTreeMap<(NodeId, Kind), Vec<u8>>,
    recent: VecDeque<Vec<u8>>,
    buffer: Vec<u8>,
    heard: u64,
}

impl Wiretap {
    /// Opens it in the stranger's namespace.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn open(stranger: &Namespace) -> io::Result<Self> {
        let socket = stranger.run(|| PacketSocket::open(interface(SYNC)?.index, libc::ETH_P_IP as u16))?;
        let (newest, recent) = (BTreeMap::new(), VecDeque::new());
        Ok(Wiretap { socket, newest, recent, buffer: vec![0; 2048], heard: 0 })
    }

    /// Takes in what has come since; says how many frames that were.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn listen(&mut self) -> io::Result<u64> {
        let before = self.heard;
        while let Some((length, _)) = self.socket.receive(&mut self.buffer)? {
            let datagram = &self.buffer[..length.min(self.buffer.len())];
            if datagram.get(ETHERNET + 9) != Some(&ssyncp::wire::IP_PROTOCOL) {
                continue;
            }
            let Some(frame) = datagram.get(ETHERNET + IPV4..) else { continue };
            let Ok(parsed) = Frame::parse(frame) else { continue };
            let header = parsed.header();
            self.newest.insert((header.node, header.kind), frame.to_vec());
            if self.recent.len() == RECENT_MAX {
                self.recent.pop_front();
            }
            self.recent.push_back(frame.to_vec());
            self.heard += 1;
        }
        Ok(self.heard - before)
    }

    /// The last frames, the oldest first.
    pub fn recent(&self) -> &VecDeque<Vec<u8>> {
        &self.recent
    }

    /// Everything that is remembered of the last frames; they are forgotten here.
    pub fn take(&mut self) -> Vec<Vec<u8>> {
        self.recent.drain(..).collect()
    }

    /// The newest frame of a kind that a node has sent.
    pub fn newest(&self, node: NodeId, kind: Kind) -> Option<&[u8]> {
        self.newest.get(&(node, kind)).map(Vec::as_slice)
    }

    /// The header that the node's next frame would have: the highest number on the kind's channel, and one more.
    pub fn next_header(&self, node: NodeId, kind: Kind) -> Option<Header> {
        let same_channel = |other: Kind| (other == Kind::DATA) == (kind == Kind::DATA);
        let headers = self.newest.iter().filter(|((from, _), _)| *from == node);
        let headers = headers.filter_map(|(_, frame)| Frame::parse(frame).ok().map(|frame| frame.header()));
        let channel = headers.filter(|header| same_channel(header.kind));
        let newest = channel.max_by_key(|header| header.seq)?;
        Some(Header { kind, seq: newest.seq + 1, flags: ssyncp::wire::FrameFlags(0), ..newest })
    }

    /// Forgets who has spoken: they have started anew.
    pub fn forget(&mut self) {
        self.newest.clear();
        self.recent.clear();
    }
}
