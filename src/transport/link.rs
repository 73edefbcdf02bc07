//! The sync links of the socket transports: one receive and one send socket per interface, opened, watched and opened
//! again.
//!
//! ```text
//!   RTM_NEWLINK ─▶ follow() ─▶ ask the kernel ─▶ condition, MTU ─▶ frame_len: of the smallest link
//!   now and then ─▶ look()  ─▶ the same for links that are silent, and what can be mended is: sockets of an
//!                              interface that was replaced, an IPv6 address that has become usable
//! ```
//!
//! An interface may vanish and come back with another number (a VLAN made anew, a driver loaded again). Sockets stay
//! bound to the old number and are silent for ever, without an error; only the number tells. And a lost carrier may be
//! told late (see `sys::interface`), so a link on which nothing was heard since the last look is asked about; one on which
//! frames arrive needs no question, which would take the kernel's rtnl lock.

use super::{TransportCounters, TransportError, ipv4, ipv6};
use crate::sys::interface::{InterfaceWatch, LinkState};
use crate::sys::socket::{self, Interface, SetupError};
use crate::wire::{FRAME_LEN_MAX, FRAME_LEN_MIN, GROUP, IP_PROTOCOL, LINKS_MAX};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use socket2::Socket;
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

/// Most bytes of socket buffer that may be asked for.
const BUFFER_MOST: usize = 1 << 30;
/// Least MTU of an interface that speaks IPv6 at all (RFC 8200 section 5).
const IPV6_MTU_MIN: usize = 1280;

/// How to open a [`super::RawTransport`] or a [`super::NixTransport`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RawOptions {
    /// The sync links, 1 to [`LINKS_MAX`]: frames go out on all and are taken from all.
    pub interfaces: Vec<String>,
    /// The multicast group: IPv4, or IPv6 of link-local scope (ff02::/16).
    pub group: IpAddr,
    /// Largest frame in bytes, [`FRAME_LEN_MIN`] to [`FRAME_LEN_MAX`]; `None`: what the link with the smallest MTU
    /// carries. It stays the largest when MTUs change later.
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
            group: IpAddr::V4(GROUP),
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
        match self.group {
            IpAddr::V4(group) if !group.is_multicast() => {
                return wrong("group", format!("{group} is no multicast address (224.0.0.0 to 239.255.255.255)"));
            }
            IpAddr::V6(group) if group.segments()[0] != 0xff02 => {
                return wrong("group", format!("{group} is no multicast address of link-local scope (ff02::/16)"));
            }
            _ => {}
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
    /// Whether frames can pass, and if not, why.
    pub condition: LinkCondition,
    /// Largest IP datagram in bytes that the interface carries in one piece, when it was last seen.
    pub mtu: u32,
    /// What has been moved since the transport was opened.
    pub counters: LinkCounters,
}

impl LinkStatus {
    /// Whether frames can pass.
    pub fn up(&self) -> bool {
        self.condition == LinkCondition::Up
    }
}

/// Whether frames can pass a link, and if not, why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkCondition {
    /// Switched on, with a carrier, and our sockets are bound to it.
    Up,
    /// There is no interface of this name any more.
    Missing,
    /// The interface was replaced by another of its name, to which our sockets are not bound yet.
    Replaced,
    /// Somebody has switched it off.
    Disabled,
    /// The cable, or whatever stands for it, is gone.
    NoCarrier,
    /// It does not carry the smallest frame.
    SmallMtu,
    /// It has no IPv6 address that frames could come from (yet).
    NoAddress,
}

impl LinkCondition {
    /// In words that follow the name of the link.
    pub const fn words(self) -> &'static str {
        match self {
            LinkCondition::Up => "up",
            LinkCondition::Missing => "there is no such interface",
            LinkCondition::Replaced => "the interface was made anew and is not opened yet",
            LinkCondition::Disabled => "switched off",
            LinkCondition::NoCarrier => "no carrier",
            LinkCondition::SmallMtu => "its MTU is too small for the smallest frame",
            LinkCondition::NoAddress => "no usable link-local IPv6 address",
        }
    }
}

/// What one link has moved.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct LinkCounters {
    /// Frames taken from it, copies of what another link brought included.
    pub frames_received: u64,
    /// Bytes of those frames.
    pub bytes_received: u64,
    /// Frames given to it.
    pub frames_sent: u64,
    /// Bytes of those frames.
    pub bytes_sent: u64,
    /// Frames that it did not take.
    pub send_errors: u64,
    /// Frames that the kernel dropped before we read them.
    pub dropped_by_kernel: u64,
}

/// One sync link.
pub(super) struct Link {
    name: String,
    index: u32,
    /// Hears the group.
    pub(super) receiver: Socket,
    /// Sends to it.
    pub(super) sender: Socket,
    /// What it has moved, drops aside.
    pub(super) counters: LinkCounters,
    drops: DropCount,
    condition: LinkCondition,
    mtu: u32,
    /// The interface has lost our membership of the group, although it is the same.
    forgotten: bool,
    /// Frames can leave: always with IPv4, with IPv6 once there is an address.
    addressed: bool,
    /// Something was heard since the last look.
    heard: bool,
    /// Whether it was up when [`Links::next_change`] last told of it.
    told_up: bool,
}

impl Link {
    fn open(interface: &Interface, options: &RawOptions) -> Result<Self, TransportError> {
        let refused = |error| refused(&interface.name, error);
        let Interface { name, index, mtu, .. } = interface.clone();
        let receiver = socket::multicast_receiver(IP_PROTOCOL, options.group, interface, options.receive_buffer);
        let receiver = receiver.map_err(refused)?;
        let sender = socket::multicast_sender(IP_PROTOCOL, options.group, interface, options.send_buffer);
        let sender = sender.map_err(refused)?;
        let link = Link {
            name,
            index,
            receiver,
            sender,
            counters: LinkCounters::default(),
            drops: DropCount::default(),
            condition: LinkCondition::NoCarrier,
            mtu,
            forgotten: false,
            addressed: is_addressed(options.group, index),
            heard: false,
            told_up: true,
        };
        link.warn_of_small_buffers(options);
        Ok(link)
    }

    /// Whether frames can pass.
    pub(super) fn is_up(&self) -> bool {
        self.condition == LinkCondition::Up
    }

    /// Something has arrived: it has a carrier.
    pub(super) fn note_heard(&mut self) {
        self.heard = true;
    }

    /// The kernel has nothing to write into the source field: with IPv6 that is a link that is not ready.
    pub(super) fn note_no_address(&mut self) {
        self.addressed = false;
        if self.is_up() {
            self.condition = LinkCondition::NoAddress;
        }
    }

    /// Asks the kernel how the interface stands.
    fn observe(&mut self, watch: &mut InterfaceWatch, options: &RawOptions) {
        match watch.ask(&self.name) {
            Ok(state) => self.take_note(state, options),
            Err(error) if errno(&error) == Errno::ENODEV => self.condition = LinkCondition::Missing,
            // The kernel has no answer, which says nothing of the link; the next look asks again.
            Err(error) => tracing::debug!(interface = self.name, "its state is unknown: {error}"),
        }
        if !self.is_up() && options.group.is_ipv6() {
            // Whoever comes back has to find out anew whether its address is its own (RFC 4862 section 5.4).
            self.addressed = false;
        }
    }

    fn take_note(&mut self, state: LinkState, options: &RawOptions) {
        let carries = state.mtu as usize >= least_mtu(options.group);
        // Below its least MTU an interface gives up IPv6 and every membership with it, and gets none of them back.
        self.forgotten |= !carries && options.group.is_ipv6();
        if state.index != self.index || (self.forgotten && carries) {
            self.condition = LinkCondition::Replaced;
            return;
        }
        self.mtu = state.mtu;
        self.condition = match state {
            LinkState { enabled: false, .. } => LinkCondition::Disabled,
            LinkState { carrier: false, .. } => LinkCondition::NoCarrier,
            _ if !carries => LinkCondition::SmallMtu,
            _ if !self.addressed => LinkCondition::NoAddress,
            _ => LinkCondition::Up,
        };
    }

    /// Bytes of the largest frame that it carries; `None` if it carries none.
    fn carries(&self, group: IpAddr) -> Option<usize> {
        use LinkCondition::{Missing, Replaced, SmallMtu};
        let known = !matches!(self.condition, Missing | Replaced | SmallMtu);
        known.then(|| (self.mtu as usize).saturating_sub(header_len(group)))
    }

    fn status(&self) -> LinkStatus {
        LinkStatus {
            name: self.name.clone(),
            condition: self.condition,
            mtu: self.mtu,
            counters: LinkCounters { dropped_by_kernel: self.dropped(), ..self.counters },
        }
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
    watch: InterfaceWatch,
    /// Stands for all receivers and the watch.
    readiness: Epoll,
    options: RawOptions,
    frame_len: usize,
}

impl Links {
    /// Opens them.
    pub(super) fn open(options: &RawOptions) -> Result<Self, TransportError> {
        options.check()?;
        // Before the interfaces are looked at, so that no change between looking and listening is missed.
        let watch = InterfaceWatch::open().map_err(|source| system("netlink", &options.interfaces[0], source))?;
        let mut links = Vec::with_capacity(options.interfaces.len());
        let mut frame_len = FRAME_LEN_MAX;
        for name in &options.interfaces {
            let interface = interface(name)?;
            frame_len = frame_len.min(frame_len_of(&interface, options)?);
            links.push(Link::open(&interface, options)?);
        }
        let readiness = gather(&links, &watch).map_err(|source| system("epoll", &options.interfaces[0], source))?;
        listen(&links, &watch)?;
        let mut links = Links { links, watch, readiness, options: options.clone(), frame_len };
        links.observe(|_| true);
        Ok(links)
    }

    /// Takes note of what the kernel has told of interfaces. One system call if that is nothing.
    pub(super) fn follow(&mut self) {
        if self.watch.changed() {
            self.observe(|_| true);
        }
    }

    /// Looks at every link that may have changed without a word, and mends what can be mended. To be called in the
    /// network namespace of the links.
    pub(super) fn look(&mut self) {
        let changed = self.watch.changed();
        self.observe(|link| changed || !std::mem::take(&mut link.heard) || !link.is_up());
        for link in &mut self.links {
            if link.condition == LinkCondition::NoAddress && is_addressed(self.options.group, link.index) {
                (link.addressed, link.condition) = (true, LinkCondition::Up);
            }
        }
        if self.links.iter().any(|link| link.condition == LinkCondition::Replaced)
            && let Err(error) = self.reopen()
        {
            tracing::debug!("a sync link cannot be opened again yet: {error}");
        }
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
        let readiness = gather(&self.links, &self.watch);
        self.readiness = readiness.map_err(|source| system("epoll", &self.links[0].name, source))?;
        listen(&self.links, &self.watch)?;
        self.observe(|_| true);
        result
    }

    /// The next link that is up and was not, or the other way round, since this was last asked.
    pub(super) fn next_change(&mut self) -> Option<LinkStatus> {
        let link = self.links.iter_mut().find(|link| link.told_up != link.is_up())?;
        link.told_up = link.is_up();
        Some(link.status())
    }

    /// Bytes of the largest frame that all links carry now.
    pub(super) fn frame_len(&self) -> usize {
        self.frame_len
    }

    fn observe(&mut self, mut wanted: impl FnMut(&mut Link) -> bool) {
        for link in &mut self.links {
            if wanted(link) {
                link.observe(&mut self.watch, &self.options);
            }
        }
        let most = self.options.frame_len.unwrap_or(FRAME_LEN_MAX);
        let carried = self.links.iter().filter_map(|link| link.carries(self.options.group)).min();
        // While none is there, nothing leaves; what it was stays what is planned with.
        self.frame_len = carried.map_or(self.frame_len, |carried| carried.min(most));
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
        self.links.iter().map(Link::status).collect()
    }

    pub(super) fn any_is_up(&self) -> bool {
        self.links.iter().any(Link::is_up)
    }

    pub(super) fn readiness(&self) -> BorrowedFd<'_> {
        self.readiness.0.as_fd()
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
    use Errno::{EADDRNOTAVAIL, EHOSTUNREACH, ENETDOWN, ENETUNREACH, ENODEV, ENXIO};
    matches!(errno(error), ENETDOWN | ENODEV | ENXIO | ENETUNREACH | EHOSTUNREACH | EADDRNOTAVAIL)
}

/// Whether there is no address that a datagram could come from.
pub(super) fn is_no_address(error: &io::Error) -> bool {
    errno(error) == Errno::EADDRNOTAVAIL
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
    if interface.index != link.index || link.forgotten {
        if let IpAddr::V6(group) = options.group {
            // Before the new one joins: the membership that the interface has forgotten would be taken from the new one
            // when the old socket is closed. That there is none to leave is no error here.
            let _ = link.receiver.leave_multicast_v6(&group, link.index);
        }
        let total = link.dropped();
        let (counters, told_up) = (link.counters, link.told_up);
        *link = Link { counters, told_up, ..Link::open(&interface, options)? };
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
fn frame_len_of(interface: &Interface, options: &RawOptions) -> Result<usize, TransportError> {
    let Interface { name, mtu, .. } = interface;
    let least = least_mtu(options.group);
    if (*mtu as usize) < least {
        return Err(TransportError::SmallMtu { name: name.clone(), mtu: *mtu, least: least as u32 });
    }
    let carried = *mtu as usize - header_len(options.group);
    match options.frame_len {
        Some(frame_len) if frame_len > carried => Err(TransportError::Option {
            option: "frame_len",
            problem: format!("{frame_len} bytes; interface {name:?} with its MTU of {mtu} carries {carried}"),
        }),
        Some(frame_len) => Ok(frame_len),
        None => Ok(carried.min(FRAME_LEN_MAX)),
    }
}

/// Bytes of IP header in front of a frame.
fn header_len(group: IpAddr) -> usize {
    if group.is_ipv4() { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN }
}

/// The MTU of an interface that carries the smallest frame.
fn least_mtu(group: IpAddr) -> usize {
    let least = FRAME_LEN_MIN + header_len(group);
    if group.is_ipv4() { least } else { least.max(IPV6_MTU_MIN) }
}

/// Whether frames to the group have an address to come from. With IPv4 that may be 0.0.0.0.
fn is_addressed(group: IpAddr, index: u32) -> bool {
    match group {
        IpAddr::V4(_) => true,
        IpAddr::V6(group) => socket::has_source_address(group, index),
    }
}

/// Has the watch hear of these links and no others.
fn listen(links: &[Link], watch: &InterfaceWatch) -> Result<(), TransportError> {
    let indices: Vec<u32> = links.iter().map(|link| link.index).collect();
    watch.listen_to(&indices).map_err(|source| system("SO_ATTACH_FILTER", &links[0].name, source))
}

/// One descriptor for the receivers of all links and for what the kernel tells of interfaces.
fn gather(links: &[Link], watch: &InterfaceWatch) -> io::Result<Epoll> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(watch, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
    for link in links {
        epoll.add(&link.receiver, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
    }
    Ok(epoll)
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
            problem(|o| o.group = "10.0.0.1".parse().unwrap()),
            "group: 10.0.0.1 is no multicast address (224.0.0.0 to 239.255.255.255)"
        );
        assert_eq!(
            problem(|o| o.group = "ff05::7251".parse().unwrap()),
            "group: ff05::7251 is no multicast address of link-local scope (ff02::/16)"
        );
        assert_eq!(problem(|o| o.frame_len = Some(1207)), "frame_len: 1207 bytes; 1208 to 8960");
        assert_eq!(problem(|o| o.frame_len = Some(8961)), "frame_len: 8961 bytes; 1208 to 8960");
        assert_eq!(problem(|o| o.receive_buffer = 1 << 31), "receive_buffer: 2147483648 bytes; at most 1073741824");
        assert_eq!(problem(|o| o.send_buffer = 1 << 31), "send_buffer: 2147483648 bytes; at most 1073741824");
        assert_eq!(problem(|o| o.batch = 0), "batch: 0 frames; 1 to 1024");
        assert_eq!(problem(|o| o.batch = 1025), "batch: 1025 frames; 1 to 1024");
    }

    fn frame_len(group: &str, mtu: u32, frame_len: Option<usize>) -> Result<usize, String> {
        let interface =
            Interface { name: "eth0".into(), index: 2, mac: [0; 6], mtu, up: true, running: true, ipv4: Vec::new() };
        let options = RawOptions { group: group.parse().unwrap(), frame_len, ..RawOptions::default() };
        frame_len_of(&interface, &options).map_err(|error| error.to_string())
    }

    #[test]
    fn the_largest_frame_is_what_the_mtu_leaves_behind_an_ipv4_header() {
        let frame_len = |mtu, asked| frame_len("224.0.0.81", mtu, asked);
        assert_eq!(frame_len(1500, None), Ok(1480));
        assert_eq!(frame_len(1228, None), Ok(1208));
        assert_eq!(frame_len(9000, None), Ok(8960));
        assert_eq!(frame_len(1500, Some(1300)), Ok(1300));
        assert_eq!(
            frame_len(1227, None),
            Err("interface \"eth0\" has an MTU of 1227 bytes; frames need at least 1228".into())
        );
        assert_eq!(
            frame_len(1500, Some(1481)),
            Err("frame_len: 1481 bytes; interface \"eth0\" with its MTU of 1500 carries 1480".into())
        );
    }

    #[test]
    fn an_ipv6_header_takes_twenty_bytes_more_and_ipv6_no_mtu_below_1280() {
        let frame_len = |mtu, asked| frame_len("ff02::7251", mtu, asked);
        assert_eq!(frame_len(1500, None), Ok(1460));
        assert_eq!(frame_len(1280, None), Ok(1240));
        assert_eq!(frame_len(9000, None), Ok(8960));
        assert_eq!(
            frame_len(1279, None),
            Err("interface \"eth0\" has an MTU of 1279 bytes; frames need at least 1280".into())
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
