//! Frames past the kernel's network stack, over AF_XDP: a program in the receive path gives the group's frames to rings
//! in our own memory, and everything else on the host goes its way.
//!
//! ```text
//!                     ┌ the group's frames ─▶ queue 0 … n: receive ring ─▶ lent to deliver
//!   wire ─▶ program ──┤
//!                     └ all else, fragments, and the group's frames while no socket is bound
//!                                  └─▶ network stack ─▶ the port's raw socket ─▶ deliver
//!   fill ─▶ slot of queue 0 ─▶ send ring ─▶ wire                          (the IP headers are our own)
//!   fill ─▶ batch ─▶ slot of each link …                                  (of several links, or where no slot is free)
//! ```
//!
//! The raw socket is a member of the group: so the interface lets the group's frames in, switches that snoop IGMP send
//! them here, and what the program lets pass (when it has just been attached, or by a queue without a socket) is heard
//! all the same. It is looked at now and then, sooner when the rings are empty.
//!
//! The program is attached natively if the driver can, else in SKB mode, by a BPF link: whoever dies leaves nothing
//! behind. It is loaded once, so that an interface that was replaced is opened again without CAP_BPF.

use super::port::{Arrival, Dropped, Mode, Port};
use super::raw::RawPort;
use super::{RawOptions, TransportError, Wired, ethernet};
use crate::sys::bpf::{self, Attachment, BpfError, Redirect};
use crate::sys::mmsg::{ReceiveBatch, SendBatch};
use crate::sys::packet::Membership;
use crate::sys::poll::Descriptors;
use crate::sys::socket::{Interface, SetupError};
use crate::sys::xsk::{self, XskOptions, XskSocket};
use crate::wire::{FRAME_LEN_MAX, IP_PROTOCOL};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// How long to wait at the start for queues and for an interface that a process has just left.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(1);
/// Least memory of a queue, in bytes, when several share what was asked for.
const QUEUE_MEMORY_LEAST: usize = 4 << 20;
/// Frames that may be on their way out: at least so many, at least twice a batch.
const SLOTS_LEAST: u32 = 256;
/// Calls that bring frames by the rings before the raw socket is looked at again, which takes a system call.
const RING_CALLS_MAX: u32 = 64;
/// A call that brings none counts for so many: whoever waits until something can be read soon has it.
const EMPTY_CALL: u32 = 16;

/// A transport over AF_XDP.
pub type XdpTransport = Wired<XdpPort>;

/// One interface, reached by AF_XDP.
pub struct XdpPort {
    /// Member of the group, and what hears of it past the rings.
    stack: RawPort,
    /// Knows where frames come from.
    membership: Membership,
    /// Outlives the interface.
    redirect: Redirect,
    rings: Option<Rings>,
    group: IpAddr,
    index: u32,
    source: Option<([u8; 6], IpAddr)>,
    headers: Option<ethernet::Headers>,
    /// Calls since the raw socket was looked at.
    ring_calls: u32,
    /// Frames that were taken and then lost, and not told of yet.
    lost: u64,
}

/// What belongs to one interface and goes with it.
struct Rings {
    attachment: Attachment,
    /// Why the program does not run natively.
    native_refused: Option<String>,
    /// One for each receive queue; the first one sends.
    queues: Vec<XskSocket>,
    /// The queue that the next call begins with.
    first: usize,
    /// One descriptor for all queues, where there are several. Each frame pays for it, so one queue has none.
    gathered: Option<Epoll>,
}

impl Port for XdpPort {
    /// Slots for what the raw socket hears.
    type Incoming = ReceiveBatch;

    fn open(interface: &Interface, options: &RawOptions) -> Result<Self, TransportError> {
        // First of all the group, so that nothing is missed.
        let stack = RawPort::open(interface, options)?;
        let membership = Membership::join(options.group, interface).map_err(|error| unjoined(interface, error))?;
        let redirect = Redirect::load(IP_PROTOCOL, options.group).map_err(|error| refused(&interface.name, error))?;
        let rings = Rings::open(&redirect, interface, options, PATIENCE)?;
        Ok(XdpPort {
            stack,
            membership,
            redirect,
            rings: Some(rings),
            group: options.group,
            index: interface.index,
            source: None,
            headers: None,
            ring_calls: RING_CALLS_MAX,
            lost: 0,
        })
    }

    fn incoming(options: &RawOptions) -> ReceiveBatch {
        RawPort::incoming(options)
    }

    fn outgoing(options: &RawOptions) -> SendBatch {
        SendBatch::with_headers(options.batch, 0, FRAME_LEN_MAX)
    }

    fn reopen(&mut self, interface: &Interface, options: &RawOptions) -> Result<(), TransportError> {
        self.stack.reopen(interface, options)?;
        self.membership.renew(interface).map_err(|error| unjoined(interface, error))?;
        if interface.index != self.index || self.rings.is_none() {
            self.lost += self.rings.take().map_or(0, |rings| rings.unsent() as u64);
            // No waiting: this is the thread that must be heard.
            self.rings = Some(Rings::open(&self.redirect, interface, options, Duration::ZERO)?);
            (self.index, self.source, self.headers) = (interface.index, None, None);
        }
        Ok(())
    }

    fn mode(&self) -> Mode {
        let Some(rings) = &self.rings else { return Mode { word: "xdp", instead_of: None } };
        let word = match rings.attachment.mode() {
            bpf::Mode::Native if rings.queues[0].is_zero_copy() => "xdp-zero-copy",
            bpf::Mode::Native => "xdp-native",
            bpf::Mode::Skb => "xdp-skb",
        };
        let instead_of = rings.native_refused.as_ref().map(|why| format!("xdp-native: {why}"));
        Mode { word, instead_of }
    }

    fn readiness(&self) -> Descriptors<'_> {
        let mut both = self.stack.readiness();
        both.extend(self.rings.as_ref().map(Rings::readiness));
        both
    }

    fn receive(
        &mut self,
        incoming: &mut ReceiveBatch,
        most: usize,
        mut take: impl FnMut(Arrival<'_>),
    ) -> io::Result<usize> {
        let group = self.group;
        let mut arrived = 0;
        if self.ring_calls >= RING_CALLS_MAX {
            self.ring_calls = 0;
            arrived += self.stack.receive(incoming, most, &mut take)?;
        }
        if let Some(rings) = &mut self.rings {
            arrived += rings.receive(most - arrived, &mut |packet| take(ethernet::frame(packet, group, FRAME_LEN_MAX)));
        }
        self.ring_calls += if arrived > 0 { 1 } else { EMPTY_CALL };
        Ok(arrived)
    }

    /// Each frame is copied into a slot of the send ring.
    fn send(&mut self, batch: &mut SendBatch, first: usize) -> io::Result<usize> {
        if self.headers.is_none() {
            return Err(Errno::EADDRNOTAVAIL.into());
        }
        if self.rings.is_none() {
            return Err(Errno::ENODEV.into());
        }
        let mut taken = 0;
        for index in first..batch.len() {
            let Some(slot) = self.slot() else { break };
            let (_, frame) = batch.with_header(index);
            slot[..frame.len()].copy_from_slice(frame);
            self.commit(frame.len());
            taken += 1;
        }
        match self.flush(taken) {
            // Those that were dropped are tried again, and then tell why.
            Err(dropped) if dropped.frames < taken => Ok(taken - dropped.frames),
            Err(dropped) => Err(dropped.error),
            Ok(()) if taken == 0 => Err(Errno::EAGAIN.into()),
            Ok(()) => Ok(taken),
        }
    }

    fn slot(&mut self) -> Option<&mut [u8]> {
        let header_len = ethernet::header_len(self.group);
        self.headers.as_ref()?;
        let slot = self.rings.as_mut()?.queues[0].slot()?;
        slot.get_mut(header_len..)
    }

    /// Headers of our own go in front of it.
    fn commit(&mut self, length: usize) {
        let (Some(headers), Some(rings)) = (&self.headers, &mut self.rings) else { return };
        let header_len = ethernet::header_len(self.group);
        let queue = &mut rings.queues[0];
        if let Some(slot) = queue.slot() {
            headers.write(&mut slot[..header_len], length);
            queue.commit(header_len + length);
        }
    }

    fn flush(&mut self, committed: usize) -> Result<(), Dropped> {
        let header_len = ethernet::header_len(self.group);
        let Some(rings) = &mut self.rings else { return Ok(()) };
        let (queue, lost) = (&mut rings.queues[0], &mut self.lost);
        queue.push(&mut |_, arrived| *lost += u64::from(!arrived)).map_err(|error| {
            // They leave in their order: what waited before them has left, or comes back too.
            let mut waited = queue.unsent().saturating_sub(committed);
            let mut dropped = Dropped { frames: 0, bytes: 0, error };
            queue.take_unsent_back(&mut |length| {
                if waited > 0 {
                    (waited, *lost) = (waited - 1, *lost + 1);
                } else {
                    dropped.frames += 1;
                    dropped.bytes += length - header_len;
                }
            });
            dropped
        })
    }

    fn push(&mut self) -> u64 {
        if let Some(Rings { queues, .. }) = &mut self.rings
            && queues[0].unsent() > 0
        {
            let lost = &mut self.lost;
            if queues[0].push(&mut |_, arrived| *lost += u64::from(!arrived)).is_err() {
                queues[0].take_unsent_back(&mut |_| *lost += 1);
            }
        }
        std::mem::take(&mut self.lost)
    }

    fn unsent(&self) -> usize {
        self.rings.as_ref().map_or(0, Rings::unsent)
    }

    /// An IPv4 link without an address will do, as for raw sockets: groups that stay on the link are heard from 0.0.0.0.
    fn renew_source(&mut self, group: IpAddr, _: bool) -> bool {
        let unnumbered = || group.is_ipv4().then_some(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let source = self.membership.source().or_else(unnumbered);
        let found = source.and_then(|source| Some((self.membership.mac().ok()?, source)));
        if found != self.source {
            self.source = found;
            self.headers = found.and_then(|(mac, source)| ethernet::Headers::new(mac, source, group));
        }
        self.headers.is_some()
    }

    fn frame_len_max(&self) -> usize {
        let packet_len = self.rings.as_ref().map_or(0, Rings::packet_len_max);
        packet_len.saturating_sub(ethernet::header_len(self.group)).min(FRAME_LEN_MAX)
    }

    fn dropped(&self) -> u64 {
        self.stack.dropped() + self.rings.as_ref().map_or(0, Rings::dropped)
    }

    fn receive_buffer(&self) -> u64 {
        self.rings.as_ref().map_or(0, Rings::receive_memory)
    }

    fn send_buffer(&self) -> u64 {
        self.rings.as_ref().and_then(|rings| rings.queues[0].send_buffer().ok()).unwrap_or(0) as u64
    }
}

impl Rings {
    /// Attaches the program, and binds a socket to each receive queue; frames come by them from then on.
    fn open(
        redirect: &Redirect,
        interface: &Interface,
        options: &RawOptions,
        patience: Duration,
    ) -> Result<Self, TransportError> {
        let name = &interface.name;
        let (attachment, native_refused) = attach(redirect, interface, patience)?;
        let told = xsk::receive_queues(name).map_err(|error| system("ETHTOOL_GCHANNELS", interface, error))?;
        if let Some(queues) = told.filter(|queues| *queues > bpf::QUEUES_MAX) {
            let most = bpf::QUEUES_MAX;
            let reason = format!("it has {queues} receive queues, and {most} can be served: `ethtool -L {name} …`");
            return Err(TransportError::Unsupported { interface: name.clone(), reason });
        }
        let mut queues = Vec::new();
        for queue in 0..told.unwrap_or(bpf::QUEUES_MAX) {
            let options = ring_options(interface, options, &attachment, queue, told, patience);
            let asked = options.receive_memory;
            let socket = match XskSocket::open(&options) {
                Ok(socket) => socket,
                // A driver that does not tell its queues: there are no more.
                Err(error) if queue > 0 && told.is_none() && errno(&error.source) == Errno::EINVAL => break,
                Err(error) => return Err(unbound(name, queue, error)),
            };
            redirect.set(queue, &socket).map_err(|error| refused(name, error))?;
            warn_of_little_memory(name, queue, asked, &socket);
            queues.push(socket);
        }
        let (mode, zero_copy) = (attachment.mode().name(), queues[0].is_zero_copy());
        match &native_refused {
            None => tracing::info!(interface = name, mode, zero_copy, queues = queues.len(), "AF_XDP"),
            Some(why) => tracing::warn!(
                interface = name,
                queues = queues.len(),
                "AF_XDP in SKB mode, because the driver does not run the program natively: {why}"
            ),
        }
        let gathered = (queues.len() > 1).then(|| gather(&queues)).transpose();
        let gathered = gathered.map_err(|error| system("epoll", interface, error))?;
        Ok(Rings { attachment, native_refused, queues, first: 0, gathered })
    }

    fn readiness(&self) -> BorrowedFd<'_> {
        self.gathered.as_ref().map_or(self.queues[0].as_fd(), |epoll| epoll.0.as_fd())
    }

    /// Queues take turns at being the first, so that a flood by one never silences another.
    fn receive(&mut self, most: usize, deliver: &mut dyn FnMut(&mut [u8])) -> usize {
        let mut arrived = 0;
        for _ in 0..self.queues.len() {
            let queue = self.first;
            self.first = (queue + 1) % self.queues.len();
            arrived += self.queues[queue].receive(most - arrived, deliver);
            if arrived == most {
                break;
            }
        }
        arrived
    }

    fn unsent(&self) -> usize {
        self.queues[0].unsent()
    }

    fn packet_len_max(&self) -> usize {
        self.queues.iter().map(XskSocket::frame_len_max).min().unwrap_or(0)
    }

    fn receive_memory(&self) -> u64 {
        self.queues.iter().map(XskSocket::receive_memory).sum::<usize>() as u64
    }

    /// What the kernel had no room for, and descriptors that made no sense: whatever they were, they are no frames to us.
    fn dropped(&self) -> u64 {
        let dropped = |queue: &XskSocket| queue.statistics().map_or(0, |counted| counted.dropped) + queue.impossible();
        self.queues.iter().map(dropped).sum()
    }
}

/// Natively, else in SKB mode, and then why.
fn attach(
    redirect: &Redirect,
    interface: &Interface,
    patience: Duration,
) -> Result<(Attachment, Option<String>), TransportError> {
    let start = Instant::now();
    loop {
        let result = match redirect.attach(interface.index, bpf::Mode::Native) {
            Ok(attachment) => Ok((attachment, None)),
            Err(error) if is_taken(&error) || errno(&error.source) == Errno::EPERM => Err(error),
            Err(native) => {
                let skb = redirect.attach(interface.index, bpf::Mode::Skb);
                skb.map(|attachment| (attachment, Some(native.source.to_string())))
            }
        };
        match result {
            // A process that was killed may still be on its way out.
            Err(error) if is_taken(&error) && start.elapsed() < patience => std::thread::sleep(PAUSE),
            result => return result.map_err(|error| refused(&interface.name, error)),
        }
    }
}

fn is_taken(error: &BpfError) -> bool {
    matches!(errno(&error.source), Errno::EBUSY | Errno::EEXIST)
}

fn ring_options(
    interface: &Interface,
    options: &RawOptions,
    attachment: &Attachment,
    queue: u32,
    queues: Option<u32>,
    patience: Duration,
) -> XskOptions {
    let header_len_max = ethernet::header_len_max(options.group);
    let shared = options.receive_buffer / queues.unwrap_or(1) as usize;
    let frame_len_now = options.frame_len.unwrap_or(FRAME_LEN_MAX).min(interface.mtu as usize);
    XskOptions {
        index: interface.index,
        queue,
        receive_memory: shared.max(QUEUE_MEMORY_LEAST.min(options.receive_buffer)),
        slots: if queue == 0 { SLOTS_LEAST.max(2 * options.batch as u32) } else { 0 },
        frame_len: header_len_max + FRAME_LEN_MAX,
        frame_len_now: header_len_max + frame_len_now,
        send_buffer: options.send_buffer,
        zero_copy: attachment.mode() == bpf::Mode::Native,
        patience,
    }
}

fn warn_of_little_memory(interface: &str, queue: u32, asked: usize, socket: &XskSocket) {
    // Rounding alone takes less than half.
    if socket.receive_memory() < asked / 2 {
        tracing::warn!(
            interface,
            queue,
            asked_bytes = asked,
            granted_bytes = socket.receive_memory(),
            "receive memory cut short by LimitMEMLOCK; CAP_IPC_LOCK may go past it"
        );
    }
}

fn gather(queues: &[XskSocket]) -> io::Result<Epoll> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for queue in queues {
        epoll.add(queue, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
    }
    Ok(epoll)
}

/// Why the program cannot run.
fn refused(interface: &str, error: BpfError) -> TransportError {
    let reason = match errno(&error.source) {
        Errno::EPERM => {
            "XDP needs the capabilities CAP_BPF and CAP_NET_ADMIN when it starts: run as root, or give them \
             in the systemd unit (docs/operations.md), and restart: a daemon that had no such group has given CAP_BPF up"
                .to_owned()
        }
        Errno::EBUSY | Errno::EEXIST => format!(
            "another XDP program is attached to it already (`ip link show {interface}` names it); two cannot be"
        ),
        Errno::ENODEV => return TransportError::NoInterface { name: interface.to_owned() },
        _ => error.to_string(),
    };
    TransportError::Unsupported { interface: interface.to_owned(), reason }
}

/// Why a queue cannot be had.
fn unbound(interface: &str, queue: u32, error: SetupError) -> TransportError {
    let reason = match errno(&error.source) {
        Errno::EPERM if error.step.starts_with("socket") => return TransportError::MissingCapability,
        Errno::EAFNOSUPPORT => "this kernel has no AF_XDP (CONFIG_XDP_SOCKETS), or the systemd unit does not allow it \
             (RestrictAddressFamilies=AF_XDP)"
            .to_owned(),
        Errno::EBUSY => format!("another AF_XDP socket has its receive queue {queue}"),
        Errno::ENODEV => return TransportError::NoInterface { name: interface.to_owned() },
        Errno::ENOBUFS if error.step == "XDP_UMEM_REG" => {
            "too little memory may be locked: raise LimitMEMLOCK= in the systemd unit, or give CAP_IPC_LOCK".to_owned()
        }
        _ => format!("receive queue {queue}: {error}"),
    };
    TransportError::Unsupported { interface: interface.to_owned(), reason }
}

fn unjoined(interface: &Interface, SetupError { step, source }: SetupError) -> TransportError {
    system(step, interface, source)
}

fn system(op: &'static str, interface: &Interface, source: io::Error) -> TransportError {
    TransportError::System { op, interface: interface.name.clone(), source }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}
