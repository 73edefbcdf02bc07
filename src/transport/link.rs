//! The sync links of the socket transports: one receive and one send socket per interface, opened, watched and opened
//! again.
//!
//! An interface may vanish and come back with another number (a VLAN made anew, a driver loaded again). Sockets stay
//! bound to the old number and are silent for ever, without an error; [`Links::reopen`] finds such links by comparing
//! the numbers.

use super::{TransportCounters, TransportError, ipv4};
use crate::sys::socket::{self, Interface, SetupError};
use crate::wire::{FRAME_LEN_MAX, FRAME_LEN_MIN, GROUP, IP_PROTOCOL};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use socket2::Socket;
use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};

/// Most sync links of one transport.
pub const LINKS_MAX: usize = 8;
/// Most bytes of socket buffer that may be asked for.
const BUFFER_MOST: usize = 1 << 30;

/// How to open a [`super::RawTransport`] or a [`super::NixTransport`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RawOptions {
    /// The sync links, 1 to [`LINKS_MAX`]: frames go out on all and are taken from all.
    pub interfaces: Vec<String>,
    /// The multicast group.
    pub group: Ipv4Addr,
    /// Largest frame in bytes, [`FRAME_LEN_MIN`] to [`FRAME_LEN_MAX`]; `None`: what the link with the smallest MTU
    /// carries.
    pub frame_len: Option<usize>,
    /// Bytes of receive buffer to ask for, per link.
    pub receive_buffer: usize,
    /// Bytes of send buffer to ask for, per link.
    pub send_buffer: usize,
    /// Most frames that one call moves, 1 to 1024.
    pub batch: usize,
}

impl Default for RawOptions {
    fn default() -> Self {
        RawOptions {
            interfaces: Vec::new(),
            group: GROUP,
            frame_len: None,
            receive_buffer: 16 << 20,
            send_buffer: 1 << 20,
            batch: 64,
        }
    }
}

impl RawOptions {
    /// The defaults, for these interfaces.
    pub fn new<S: Into<String>>(interfaces: impl IntoIterator<Item = S>) -> Self {
        RawOptions { interfaces: interfaces.into_iter().map(Into::into).collect(), ..RawOptions::default() }
    }

    fn check(&self) -> Result<(), TransportError> {
        let wrong = |option, problem| Err(TransportError::Option { option, problem });
        let count = self.interfaces.len();
        if !(1..=LINKS_MAX).contains(&count) {
            return wrong("interfaces", format!("{count} interfaces; 1 to {LINKS_MAX} may be named"));
        }
        if self.interfaces.iter().collect::<BTreeSet<_>>().len() != count {
            return wrong("interfaces", "an interface is named twice".into());
        }
        if !self.group.is_multicast() {
            return wrong("group", format!("{} is no multicast address (224.0.0.0 to 239.255.255.255)", self.group));
        }
        let frame_len = self.frame_len.unwrap_or(FRAME_LEN_MIN);
        if !(FRAME_LEN_MIN..=FRAME_LEN_MAX).contains(&frame_len) {
            return wrong("frame_len", format!("{frame_len} bytes; {FRAME_LEN_MIN} to {FRAME_LEN_MAX}"));
        }
        for (option, bytes) in [("receive_buffer", self.receive_buffer), ("send_buffer", self.send_buffer)] {
            if bytes > BUFFER_MOST {
                return wrong(option, format!("{bytes} bytes; at most {BUFFER_MOST}"));
            }
        }
        if !(1..=crate::sys::mmsg::BATCH_MAX).contains(&self.batch) {
            return wrong("batch", format!("{} frames; 1 to {}", self.batch, crate::sys::mmsg::BATCH_MAX));
        }
        Ok(())
    }
}

/// How a sync link stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkStatus {
    /// The interface's name.
    pub name: String,
    /// Whether frames can pass: switched on, with a carrier, and our sockets are bound to it.
    pub up: bool,
    /// Whether the interface was replaced by another of its name: opening it again helps.
    pub replaced: bool,
}

/// One sync link.
pub(super) struct Link {
    name: String,
    index: u32,
    /// Hears the group.
    pub(super) receiver: Socket,
    /// Sends to it.
    pub(super) sender: Socket,
    drops: DropCount,
}

impl Link {
    fn open(interface: &Interface, options: &RawOptions) -> Result<Self, TransportError> {
        let refused = |error| refused(&interface.name, error);
        let receiver = socket::multicast_receiver(IP_PROTOCOL, options.group, interface, options.receive_buffer);
        let receiver = receiver.map_err(refused)?;
        let sender = socket::multicast_sender(IP_PROTOCOL, interface, options.send_buffer).map_err(refused)?;
        let link = Link {
            name: interface.name.clone(),
            index: interface.index,
            receiver,
            sender,
            drops: DropCount::default(),
        };
        link.warn_of_small_buffers(options);
        Ok(link)
    }

    fn warn_of_small_buffers(&self, options: &RawOptions) {
        let (receive, send) = (self.receive_buffer(), self.send_buffer());
        if receive < options.receive_buffer as u64 {
            tracing::warn!(
                interface = self.name,
                asked_bytes = options.receive_buffer,
                granted_bytes = receive,
                "receive buffer cut short by net.core.rmem_max; CAP_NET_ADMIN may go past it"
            );
        }
        if send < options.send_buffer as u64 {
            tracing::warn!(
                interface = self.name,
                asked_bytes = options.send_buffer,
                granted_bytes = send,
                "send buffer cut short by net.core.wmem_max; CAP_NET_ADMIN may go past it"
            );
        }
    }

    fn receive_buffer(&self) -> u64 {
        socket::granted_receive_buffer(&self.receiver).unwrap_or(0) as u64
    }

    fn send_buffer(&self) -> u64 {
        socket::granted_send_buffer(&self.sender).unwrap_or(0) as u64
    }

    /// Notes what a datagram said of drops before it.
    pub(super) fn note_dropped(&mut self, dropped: Option<u32>) {
        if let Some(now) = dropped {
            self.drops.note(now);
        }
    }

    /// Datagrams that the kernel has dropped, those included that no later datagram has told us of.
    fn dropped(&self) -> u64 {
        socket::dropped(&self.receiver).map_or(self.drops.total, |now| self.drops.at(now))
    }

    /// Whether frames can pass, and whether the interface was replaced by another of its name.
    fn is_up_or_replaced(&self) -> (bool, bool) {
        match socket::link_state(self.sender.as_fd(), &self.name) {
            Ok(now) => (now.up && now.index == self.index, now.index != self.index),
            Err(_) => (false, false),
        }
    }
}

/// The kernel's 32-bit count of drops at a socket, made 64 bits long.
#[derive(Clone, Copy, Default)]
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

/// All sync links of a transport.
pub(super) struct Links {
    links: Vec<Link>,
    /// Stands for all receivers where there are several.
    several: Option<Epoll>,
    options: RawOptions,
}

impl Links {
    /// Opens them, and says how long the largest frame is that all of them carry.
    pub(super) fn open(options: &RawOptions) -> Result<(Self, usize), TransportError> {
        options.check()?;
        let mut links = Vec::with_capacity(options.interfaces.len());
        let mut frame_len = FRAME_LEN_MAX;
        for name in &options.interfaces {
            let interface = interface(name)?;
            frame_len = frame_len.min(frame_len_of(&interface, options.frame_len)?);
            links.push(Link::open(&interface, options)?);
        }
        let several = gather(&links).map_err(|source| system("epoll", &options.interfaces[0], source))?;
        Ok((Links { links, several, options: options.clone() }, frame_len))
    }

    /// Opens anew each link whose interface has another number now. The others keep their sockets and what is queued in
    /// them.
    pub(super) fn reopen(&mut self) -> Result<(), TransportError> {
        let mut result = Ok(());
        for link in &mut self.links {
            if let Err(error) = reopen(link, &self.options) {
                result = Err(error);
            }
        }
        self.several = gather(&self.links).map_err(|source| system("epoll", &self.links[0].name, source))?;
        result
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Link> {
        self.links.iter_mut()
    }

    pub(super) fn get_mut(&mut self, index: usize) -> &mut Link {
        &mut self.links[index]
    }

    pub(super) fn len(&self) -> usize {
        self.links.len()
    }

    pub(super) fn status(&self) -> Vec<LinkStatus> {
        let status = |link: &Link| {
            let (up, replaced) = link.is_up_or_replaced();
            LinkStatus { name: link.name.clone(), up, replaced }
        };
        self.links.iter().map(status).collect()
    }

    pub(super) fn any_is_up(&self) -> bool {
        self.links.iter().any(|link| link.is_up_or_replaced().0)
    }

    pub(super) fn readiness(&self) -> BorrowedFd<'_> {
        self.several.as_ref().map_or_else(|| self.links[0].receiver.as_fd(), |several| several.0.as_fd())
    }

    /// What was `moved`, and what the kernel knows of these sockets beside it.
    pub(super) fn counters(&self, moved: TransportCounters) -> TransportCounters {
        TransportCounters {
            dropped_by_kernel: self.links.iter().map(Link::dropped).sum(),
            receive_buffer: self.links.iter().map(Link::receive_buffer).min().unwrap_or(0),
            send_buffer: self.links.iter().map(Link::send_buffer).min().unwrap_or(0),
            ..moved
        }
    }
}

/// Whether the operating system says that the link itself is gone, and not that it minds this one frame.
pub(super) fn is_link_failure(error: &io::Error) -> bool {
    use Errno::{EHOSTUNREACH, ENETDOWN, ENETUNREACH, ENODEV, ENXIO};
    matches!(errno(error), ENETDOWN | ENODEV | ENXIO | ENETUNREACH | EHOSTUNREACH)
}

/// Whether a queue on the way has no room: that of the socket, or one below it.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(errno(error), Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM)
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

fn reopen(link: &mut Link, options: &RawOptions) -> Result<(), TransportError> {
    let interface = interface(&link.name)?;
    if interface.index != link.index {
        let total = link.dropped();
        *link = Link::open(&interface, options)?;
        link.drops.total = total;
    }
    Ok(())
}

fn interface(name: &str) -> Result<Interface, TransportError> {
    socket::interface(name).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => TransportError::NoInterface { name: name.to_owned() },
        _ => system("interface", name, error),
    })
}

/// Bytes of the largest frame on this interface: what was asked for, or what its MTU leaves.
fn frame_len_of(interface: &Interface, asked: Option<usize>) -> Result<usize, TransportError> {
    let Interface { name, mtu, .. } = interface;
    let carried = (*mtu as usize).saturating_sub(ipv4::HEADER_LEN);
    if carried < FRAME_LEN_MIN {
        let least = (FRAME_LEN_MIN + ipv4::HEADER_LEN) as u32;
        return Err(TransportError::SmallMtu { name: name.clone(), mtu: *mtu, least });
    }
    match asked {
        Some(frame_len) if frame_len > carried => Err(TransportError::Option {
            option: "frame_len",
            problem: format!("{frame_len} bytes; interface {name:?} with its MTU of {mtu} carries {carried}"),
        }),
        Some(frame_len) => Ok(frame_len),
        None => Ok(carried.min(FRAME_LEN_MAX)),
    }
}

/// One descriptor for the receivers of several links.
fn gather(links: &[Link]) -> io::Result<Option<Epoll>> {
    if links.len() == 1 {
        return Ok(None);
    }
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for (number, link) in links.iter().enumerate() {
        epoll.add(&link.receiver, EpollEvent::new(EpollFlags::EPOLLIN, number as u64))?;
    }
    Ok(Some(epoll))
}

fn refused(interface: &str, error: SetupError) -> TransportError {
    match errno(&error.source) {
        Errno::EPERM if error.step == "socket" => TransportError::MissingCapability,
        Errno::ENODEV => TransportError::NoInterface { name: interface.to_owned() },
        _ => system(error.step, interface, error.source),
    }
}

fn system(op: &'static str, interface: &str, source: io::Error) -> TransportError {
    TransportError::System { op, interface: interface.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(change: impl FnOnce(&mut RawOptions)) -> String {
        let mut options = RawOptions::new(["eth0"]);
        change(&mut options);
        options.check().unwrap_err().to_string()
    }

    #[test]
    fn each_senseless_option_is_named() {
        assert!(RawOptions::new(["eth0"]).check().is_ok());
        assert_eq!(problem(|o| o.interfaces.clear()), "interfaces: 0 interfaces; 1 to 8 may be named");
        assert_eq!(problem(|o| o.interfaces.push("eth0".into())), "interfaces: an interface is named twice");
        assert_eq!(
            problem(|o| o.group = Ipv4Addr::new(10, 0, 0, 1)),
            "group: 10.0.0.1 is no multicast address (224.0.0.0 to 239.255.255.255)"
        );
        assert_eq!(problem(|o| o.frame_len = Some(1207)), "frame_len: 1207 bytes; 1208 to 8960");
        assert_eq!(problem(|o| o.frame_len = Some(8961)), "frame_len: 8961 bytes; 1208 to 8960");
        assert_eq!(problem(|o| o.receive_buffer = 1 << 31), "receive_buffer: 2147483648 bytes; at most 1073741824");
        assert_eq!(problem(|o| o.send_buffer = 1 << 31), "send_buffer: 2147483648 bytes; at most 1073741824");
        assert_eq!(problem(|o| o.batch = 0), "batch: 0 frames; 1 to 1024");
        assert_eq!(problem(|o| o.batch = 1025), "batch: 1025 frames; 1 to 1024");
    }

    #[test]
    fn the_largest_frame_is_what_the_mtu_leaves() {
        let with = |mtu| Interface {
            name: "eth0".into(),
            index: 2,
            mac: [0; 6],
            mtu,
            up: true,
            running: true,
            ipv4: Vec::new(),
        };
        assert_eq!(frame_len_of(&with(1500), None).unwrap(), 1480);
        assert_eq!(frame_len_of(&with(1228), None).unwrap(), 1208);
        assert_eq!(frame_len_of(&with(9000), None).unwrap(), 8960);
        assert_eq!(frame_len_of(&with(1500), Some(1300)).unwrap(), 1300);
        assert_eq!(
            frame_len_of(&with(1227), None).unwrap_err().to_string(),
            "interface \"eth0\" has an MTU of 1227 bytes; frames need at least 1228"
        );
        assert_eq!(
            frame_len_of(&with(1500), Some(1481)).unwrap_err().to_string(),
            "frame_len: 1481 bytes; interface \"eth0\" with its MTU of 1500 carries 1480"
        );
    }

    #[test]
    fn a_count_of_drops_outlives_its_thirty_two_bits() {
        let mut drops = DropCount::default();
        drops.note(u32::MAX);
        assert_eq!(drops.at(2), 4_294_967_298);
        drops.note(2);
        assert_eq!(drops.at(3), 4_294_967_299);
    }
}
