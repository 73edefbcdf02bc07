//! The sync links of a transport: one [`Port`] per interface, opened, watched and opened again.
//!
//! ```text
//!   RTM_NEWLINK ─▶ follow() ─▶ ask the kernel ─▶ condition, MTU ─▶ frame_len: of the smallest link
//!   now and then ─▶ look()  ─▶ the same for links that are silent, and what can be mended is: the port of an
//!                              interface that was replaced, the address that frames come from
//! ```
//!
//! An interface may vanish and come back with another number (a VLAN made anew, a driver loaded again). Sockets stay
//! bound to the old number and are silent for ever, without an error; only the number tells. And a lost carrier may be
//! told late (see `sys::interface`), so a link on which nothing was heard since the last look is asked about; one on which
//! frames arrive needs no question, which would take the kernel's rtnl lock.

use super::options::{RawOptions, frame_len_of, header_len, least_mtu};
use super::port::{DESCRIPTORS_MAX, Mode, Port};
use super::{TransportCounters, TransportError};
use crate::sys::interface::{InterfaceWatch, LinkState};
use crate::sys::poll::{Descriptors, WAIT_MAX};
use crate::sys::socket::{self, Interface, SetupError};
use crate::wire::{FRAME_LEN_MAX, LINKS_MAX};
use nix::errno::Errno;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;

/// How a sync link stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkStatus {
    /// The interface's name.
    pub name: String,
    /// Whether frames can pass, and if not, why.
    pub condition: LinkCondition,
    /// Largest IP datagram in bytes that the interface carries in one piece, when it was last seen.
    pub mtu: u32,
    /// How the interface is reached.
    pub mode: Mode,
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
    /// It has no address that frames could come from (yet): with IPv6 a link-local one, with IPv4 any, where the headers
    /// are our own.
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
            LinkCondition::NoAddress => "no usable address that frames could come from",
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
pub(super) struct Link<P> {
    name: String,
    index: u32,
    pub(super) port: P,
    /// What it has moved, drops aside.
    pub(super) counters: LinkCounters,
    /// Drops at ports that were open before this one.
    dropped_before: u64,
    condition: LinkCondition,
    mtu: u32,
    /// The interface has lost our membership of the group, although it is the same.
    forgotten: bool,
    /// There is an address that frames can come from.
    addressed: bool,
    /// Something was heard since the last look.
    heard: bool,
    /// Whether it was up when [`Links::next_change`] last told of it.
    told_up: bool,
}

impl<P: Port> Link<P> {
    fn open(interface: &Interface, options: &RawOptions) -> Result<Self, TransportError> {
        let mut port = P::open(interface, options)?;
        let addressed = port.renew_source(options.group, false);
        let link = Link {
            name: interface.name.clone(),
            index: interface.index,
            port,
            counters: LinkCounters::default(),
            dropped_before: 0,
            condition: LinkCondition::NoCarrier,
            mtu: interface.mtu,
            forgotten: false,
            addressed,
            heard: false,
            told_up: true,
        };
        link.warn_of_small_buffers(options);
        Ok(link)
    }

    /// Opens it anew if its interface was replaced by another of its name, or has lost our membership.
    fn reopen(&mut self, options: &RawOptions) -> Result<(), TransportError> {
        let interface = interface(&self.name)?;
        if interface.index != self.index || self.forgotten {
            let dropped = self.dropped();
            self.port.reopen(&interface, options)?;
            (self.dropped_before, self.index, self.mtu) = (dropped, interface.index, interface.mtu);
            (self.forgotten, self.condition) = (false, LinkCondition::NoCarrier);
            self.addressed = self.port.renew_source(options.group, false);
            self.warn_of_small_buffers(options);
        }
        Ok(())
    }

    /// Whether frames can pass.
    pub(super) fn is_up(&self) -> bool {
        self.condition == LinkCondition::Up
    }

    /// Something has arrived: it has a carrier.
    pub(super) fn note_heard(&mut self) {
        self.heard = true;
    }

    /// There is nothing to write into the source field: a link that is not ready.
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

    /// Looks again for the address that frames come from, where nothing else keeps them from leaving.
    fn renew_source(&mut self, group: IpAddr) {
        if matches!(self.condition, LinkCondition::Up | LinkCondition::NoAddress) {
            self.addressed = self.port.renew_source(group, self.addressed);
            self.condition = if self.addressed { LinkCondition::Up } else { LinkCondition::NoAddress };
        }
    }

    /// Whether its port carries the frames that were asked for.
    fn holds(&self, options: &RawOptions) -> Result<(), TransportError> {
        let most = self.port.frame_len_max();
        match options.frame_len {
            Some(frame_len) if frame_len > most => Err(TransportError::Unsupported {
                interface: self.name.clone(),
                reason: format!("frame_len is {frame_len} bytes, and it carries {most}"),
            }),
            _ => Ok(()),
        }
    }

    /// Bytes of the largest frame that it carries; `None` if it carries none.
    fn carries(&self, group: IpAddr) -> Option<usize> {
        use LinkCondition::{Missing, Replaced, SmallMtu};
        let known = !matches!(self.condition, Missing | Replaced | SmallMtu);
        known.then(|| (self.mtu as usize).saturating_sub(header_len(group)).min(self.port.frame_len_max()))
    }

    fn status(&self) -> LinkStatus {
        LinkStatus {
            name: self.name.clone(),
            condition: self.condition,
            mtu: self.mtu,
            mode: self.port.mode(),
            counters: LinkCounters { dropped_by_kernel: self.dropped(), ..self.counters },
        }
    }

    fn warn_of_small_buffers(&self, options: &RawOptions) {
        let (receive, send) = (self.port.receive_buffer(), self.port.send_buffer());
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

    /// Frames that the kernel has dropped because nobody read them in time.
    fn dropped(&self) -> u64 {
        self.dropped_before + self.port.dropped()
    }
}

/// All sync links of a transport.
pub(super) struct Links<P> {
    links: Vec<Link<P>>,
    watch: InterfaceWatch,
    options: RawOptions,
    frame_len: usize,
    /// Why a link could not be opened again when that was tried last; told once.
    closed_for: Option<String>,
}

impl<P: Port> Links<P> {
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
            let link: Link<P> = Link::open(&interface, options)?;
            link.holds(options)?;
            links.push(link);
        }
        listen(&links, &watch)?;
        let mut links = Links { links, watch, options: options.clone(), frame_len, closed_for: None };
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
            link.renew_source(self.options.group);
        }
        if self.links.iter().any(|link| link.condition == LinkCondition::Replaced) {
            let why = self.reopen().err().map(|error| error.to_string());
            if let Some(why) = why.as_ref().filter(|_| why != self.closed_for) {
                tracing::warn!("a sync link cannot be opened again: {why}; it is tried on");
            }
            self.closed_for = why;
        }
    }

    /// Has every port move on what waits in it.
    pub(super) fn push(&mut self, counters: &mut TransportCounters) {
        for link in &mut self.links {
            let lost = link.port.push();
            link.counters.send_errors += lost;
            counters.send_errors += lost;
        }
    }

    /// Frames that wait in the port that has the most of them.
    pub(super) fn unsent(&self) -> usize {
        self.links.iter().map(|link| link.port.unsent()).max().unwrap_or(0)
    }

    /// Opens anew each link whose interface has another number now. The others keep their ports and what is queued in
    /// them.
    pub(super) fn reopen(&mut self) -> Result<(), TransportError> {
        let mut result = Ok(());
        for link in &mut self.links {
            if let Err(error) = link.reopen(&self.options) {
                result = Err(error);
            }
        }
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

    fn observe(&mut self, mut wanted: impl FnMut(&mut Link<P>) -> bool) {
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

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Link<P>> {
        self.links.iter_mut()
    }

    pub(super) fn get_mut(&mut self, index: usize) -> &mut Link<P> {
        &mut self.links[index]
    }

    /// The link, if there is one only.
    pub(super) fn only(&mut self) -> Option<&mut Link<P>> {
        match &mut self.links[..] {
            [link] => Some(link),
            _ => None,
        }
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

    /// The ports of all links, and what the kernel tells of interfaces.
    pub(super) fn readiness(&self) -> Descriptors<'_> {
        let mut all: Descriptors<'_> = [self.watch.as_fd()].into_iter().collect();
        self.links.iter().for_each(|link| all.extend(link.port.readiness().iter().copied()));
        all
    }

    /// What was `moved`, and what the ports know beside it.
    pub(super) fn counters(&self, moved: TransportCounters) -> TransportCounters {
        TransportCounters {
            dropped_by_kernel: self.links.iter().map(Link::dropped).sum(),
            receive_buffer: self.links.iter().map(|link| link.port.receive_buffer()).min().unwrap_or(0),
            send_buffer: self.links.iter().map(|link| link.port.send_buffer()).min().unwrap_or(0),
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

fn interface(name: &str) -> Result<Interface, TransportError> {
    socket::interface(name).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => TransportError::NoInterface { name: name.to_owned() },
        _ => system("interface", name, error),
    })
}

/// Has the watch hear of these links and no others.
fn listen<P>(links: &[Link<P>], watch: &InterfaceWatch) -> Result<(), TransportError> {
    let indices: Vec<u32> = links.iter().map(|link| link.index).collect();
    watch.listen_to(&indices).map_err(|source| system("SO_ATTACH_FILTER", &links[0].name, source))
}

/// Beside what else a loop waits on: a waker, and where flows come from.
const _: () = assert!(1 + LINKS_MAX * DESCRIPTORS_MAX + 2 <= WAIT_MAX);

pub(super) fn refused(interface: &str, error: SetupError) -> TransportError {
    match errno(&error.source) {
        Errno::EPERM if error.step == "socket" => TransportError::MissingCapability,
        Errno::ENODEV => TransportError::NoInterface { name: interface.to_owned() },
        _ => system(error.step, interface, error.source),
    }
}

pub(super) fn system(op: &'static str, interface: &str, source: io::Error) -> TransportError {
    TransportError::System { op, interface: interface.to_owned(), source }
}
