//! Sockets for multicast over raw IPv4 and IPv6 and for Ethernet frames, and what the kernel knows of an interface.
//!
//! Everything here acts in the network namespace of the *calling thread*; a socket then stays in that namespace,
//! whoever uses it later. The order of the options matters, and is the one that was found to work:
//!
//! ```text
//! receiver   socket(RAW) → SO_RCVBUF → SO_RXQ_OVFL → IP_MULTICAST_ALL=0 → SO_BINDTODEVICE
//!                        → bind(group) → IP_ADD_MEMBERSHIP
//! sender     socket(RAW) → SO_SNDBUF → SO_RCVBUF=0 → IP_MULTICAST_ALL=0 → SO_BINDTODEVICE
//!                        → IP_MULTICAST_IF → LOOP=0 → TTL=255 → don't-fragment → IP_RECVERR
//! ```
//!
//! A raw socket of a protocol gets every datagram of it that reaches the host, so the sender is made deaf: no
//! memberships, and no datagrams of other sockets' memberships (IP_MULTICAST_ALL=0, which is 1 by default).
//!
//! IPv6 has an option of its own for each of these, and four traps (net/ipv6/raw.c, net/ipv6/ip6_output.c):
//!
//! * An unbound raw IPv6 socket hears every group that the host hears, whatever IPV6_MULTICAST_ALL says: only a filter
//!   that drops everything makes the sender deaf.
//! * IPV6_DONTFRAG works for UDP and ICMP only. For other protocols it takes IPV6_MTU_DISCOVER, and there PROBE, which
//!   looks at the interface's MTU alone: an ICMPv6 "packet too big" is as easily forged as any other.
//! * IPV6_V6ONLY is refused (`EINVAL`), and not needed: a raw IPv6 socket never sees IPv4.
//! * No header comes with a datagram: the hop limit is a control message, the sender the address of the message.

use super::cbpf;
use crate::time::Duration;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, sockopt};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use std::collections::HashSet;
use std::io::{self, IoSliceMut};
use std::mem::{MaybeUninit, size_of, size_of_val};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// What the kernel says of a network interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// Its name, at most 15 bytes.
    pub name: String,
    /// Its number. An interface that vanishes and comes back has another.
    pub index: u32,
    /// Its hardware address; all zero where it has none.
    pub mac: [u8; 6],
    /// Largest IP datagram in bytes that it carries in one piece.
    pub mtu: u32,
    /// An operator has switched it on (IFF_UP).
    pub up: bool,
    /// It has a carrier (IFF_RUNNING).
    pub running: bool,
    /// Its IPv4 addresses.
    pub ipv4: Vec<Ipv4Addr>,
}

/// The interface called `name`, in the calling thread's network namespace.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] if there is none; the operating system's error otherwise.
pub fn interface(name: &str) -> io::Result<Interface> {
    let found = pnet::datalink::interfaces().into_iter().find(|interface| interface.name == name);
    let found = found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let any = nix::sys::socket::socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    Ok(Interface {
        name: name.to_owned(),
        index: found.index,
        mac: found.mac.map_or([0; 6], |mac| mac.octets()),
        mtu: mtu(any.as_fd(), name)?,
        up: found.is_up(),
        running: found.is_running(),
        ipv4: found
            .ips
            .iter()
            .filter_map(|network| match network.ip() {
                std::net::IpAddr::V4(address) => Some(address),
                std::net::IpAddr::V6(_) => None,
            })
            .collect(),
    })
}

/// The addresses of this machine in the calling thread's network namespace, and its networks' broadcast addresses: what
/// is sent to one of them ends here. (Routes of type `local` for other addresses are not looked at.)
///
/// # Errors
/// If the system cannot list its interfaces: no machine is without any.
pub fn own_addresses() -> io::Result<HashSet<IpAddr>> {
    let interfaces = pnet::datalink::interfaces();
    if interfaces.is_empty() {
        return Err(io::Error::other("the system lists no network interface"));
    }
    let networks = interfaces.into_iter().flat_map(|interface| interface.ips);
    Ok(networks.flat_map(|network| [network.ip(), network.broadcast()]).collect())
}

/// The MTU of the interface called `name`, in the network namespace of the socket `any`.
fn mtu(any: BorrowedFd<'_>, name: &str) -> io::Result<u32> {
    let answer = interface_request(any, name, libc::SIOCGIFMTU)?;
    // SAFETY: SIOCGIFMTU has filled just this member of the union (netdevice(7)).
    Ok(unsafe { answer.ifr_ifru.ifru_mtu } as u32)
}

/// One of the SIOCGIF… requests of netdevice(7): the kernel reads the name and fills the union.
pub(super) fn interface_request(any: BorrowedFd<'_>, name: &str, request: libc::Ioctl) -> io::Result<libc::ifreq> {
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains('\0') {
        return Err(Errno::ENODEV.into());
    }
    // SAFETY: ifreq is plain data, for which zero bytes are a value.
    let mut question: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
    for (to, from) in question.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: the descriptor is open, and these requests read and write one ifreq, which lives through the call.
    Errno::result(unsafe { libc::ioctl(any.as_raw_fd(), request, &raw mut question) })?;
    Ok(question)
}

/// A step of setting up a socket that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub struct SetupError {
    /// The system call or option.
    pub step: &'static str,
    /// What the kernel said.
    pub source: io::Error,
}

/// Names the step that an error comes from.
fn at<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> SetupError {
    move |source| SetupError { step, source: source.into() }
}

/// A non-blocking raw socket that hears the datagrams of `protocol` to `group` that come in at `interface`, and no
/// others. An IPv4 one comes with its IP header, an IPv6 one with its hop limit as a control message. See
/// [`granted_receive_buffer`] for what became of `buffer` (bytes).
///
/// # Errors
/// The step and what the kernel said; `EPERM` at `socket` without CAP_NET_RAW.
pub fn multicast_receiver(
    protocol: u8,
    group: IpAddr,
    interface: &Interface,
    buffer: usize,
) -> Result<Socket, SetupError> {
    let socket = raw_socket(protocol, group)?;
    // Only CAP_NET_ADMIN of the initial user namespace may go past net.core.rmem_max.
    if nix::sys::socket::setsockopt(&socket, sockopt::RcvBufForce, &buffer).is_err() {
        socket.set_recv_buffer_size(buffer).map_err(at("SO_RCVBUF"))?;
    }
    nix::sys::socket::setsockopt(&socket, sockopt::RxqOvfl, &1).map_err(at("SO_RXQ_OVFL"))?;
    match group {
        IpAddr::V4(group) => {
            socket.set_multicast_all_v4(false).map_err(at("IP_MULTICAST_ALL"))?;
            socket.bind_device(Some(interface.name.as_bytes())).map_err(at("SO_BINDTODEVICE"))?;
            socket.bind(&SocketAddrV4::new(group, 0).into()).map_err(at("bind"))?;
            socket
                .join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(interface.index))
                .map_err(at("IP_ADD_MEMBERSHIP"))?;
        }
        IpAddr::V6(group) => {
            socket.set_multicast_all_v6(false).map_err(at("IPV6_MULTICAST_ALL"))?;
            socket.set_recv_hoplimit_v6(true).map_err(at("IPV6_RECVHOPLIMIT"))?;
            socket.bind_device(Some(interface.name.as_bytes())).map_err(at("SO_BINDTODEVICE"))?;
            socket.bind(&SocketAddrV6::new(group, 0, 0, interface.index).into()).map_err(at("bind"))?;
            socket.join_multicast_v6(&group, interface.index).map_err(at("IPV6_ADD_MEMBERSHIP"))?;
        }
    }
    Ok(socket)
}

/// A non-blocking raw socket of the IP version of `group` whose multicast datagrams of `protocol` leave by `interface`,
/// once, with TTL or hop limit 255, unfragmented and unheard by this host. It receives nothing. See
/// [`granted_send_buffer`] for what became of `buffer` (bytes).
///
/// A full queue *below* the socket (a queueing discipline) is told as `ENOBUFS`, and not kept silent as by default.
///
/// # Errors
/// As for [`multicast_receiver`].
pub fn multicast_sender(
    protocol: u8,
    group: IpAddr,
    interface: &Interface,
    buffer: usize,
) -> Result<Socket, SetupError> {
    let socket = raw_socket(protocol, group)?;
    if nix::sys::socket::setsockopt(&socket, sockopt::SndBufForce, &buffer).is_err() {
        socket.set_send_buffer_size(buffer).map_err(at("SO_SNDBUF"))?;
    }
    socket.set_recv_buffer_size(0).map_err(at("SO_RCVBUF"))?;
    match group {
        IpAddr::V4(_) => send_ipv4(&socket, interface)?,
        IpAddr::V6(_) => send_ipv6(&socket, interface)?,
    }
    Ok(socket)
}

fn send_ipv4(socket: &Socket, interface: &Interface) -> Result<(), SetupError> {
    socket.set_multicast_all_v4(false).map_err(at("IP_MULTICAST_ALL"))?;
    socket.bind_device(Some(interface.name.as_bytes())).map_err(at("SO_BINDTODEVICE"))?;
    leave_by(socket, interface.index).map_err(at("IP_MULTICAST_IF"))?;
    socket.set_multicast_loop_v4(false).map_err(at("IP_MULTICAST_LOOP"))?;
    socket.set_multicast_ttl_v4(255).map_err(at("IP_MULTICAST_TTL"))?;
    set_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO).map_err(at("IP_MTU_DISCOVER"))?;
    // Without this the kernel says yes to a datagram that the queueing discipline then drops.
    nix::sys::socket::setsockopt(socket, sockopt::Ipv4RecvErr, &true).map_err(at("IP_RECVERR"))
}

/// Has IPv4 multicast leave by the interface with number `index`: by number, so that one without an address will do.
pub(super) fn leave_by(socket: &Socket, index: u32) -> io::Result<()> {
    let none = libc::in_addr { s_addr: 0 };
    let interface = libc::ip_mreqn { imr_multiaddr: none, imr_address: none, imr_ifindex: index as i32 };
    set_option(socket, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, interface)
}

fn send_ipv6(socket: &Socket, interface: &Interface) -> Result<(), SetupError> {
    cbpf::Program::drop_all().attach(socket).map_err(at("SO_ATTACH_FILTER"))?;
    socket.bind_device(Some(interface.name.as_bytes())).map_err(at("SO_BINDTODEVICE"))?;
    // It stands for the scope of a link-local destination, so that all links can be given the same address.
    socket.set_multicast_if_v6(interface.index).map_err(at("IPV6_MULTICAST_IF"))?;
    socket.set_multicast_loop_v6(false).map_err(at("IPV6_MULTICAST_LOOP"))?;
    socket.set_multicast_hops_v6(255).map_err(at("IPV6_MULTICAST_HOPS"))?;
    nix::sys::socket::setsockopt(socket, sockopt::Ipv6DontFrag, &true).map_err(at("IPV6_DONTFRAG"))?;
    set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)
        .map_err(at("IPV6_MTU_DISCOVER"))?;
    nix::sys::socket::setsockopt(socket, sockopt::Ipv6RecvErr, &true).map_err(at("IPV6_RECVERR"))
}

fn raw_socket(protocol: u8, group: IpAddr) -> Result<Socket, SetupError> {
    let domain = if group.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(i32::from(protocol)))).map_err(at("socket"))?;
    socket.set_nonblocking(true).map_err(at("O_NONBLOCK"))?;
    Ok(socket)
}

/// Whether datagrams to `group` can leave by the interface with number `index`, in the calling thread's network
/// namespace: whether there is an address that they can come from. An IPv6 interface has none for the first second or
/// two, while duplicate address detection runs (RFC 4862 section 5.4), and none at all below an MTU of 1280.
pub fn has_source_address(group: Ipv6Addr, index: u32) -> bool {
    // Connecting sends nothing; it chooses the route and the source. Any port will do.
    let to = SocketAddr::from(SocketAddrV6::new(group, 9, 0, index));
    UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).and_then(|socket| socket.connect(to)).is_ok()
}

/// Bytes of receive buffer that were granted, in the unit in which they are asked for. (The kernel doubles what it is
/// told, for its own bookkeeping, and shows the double.)
///
/// # Errors
/// The operating system's error.
pub fn granted_receive_buffer(socket: &Socket) -> io::Result<usize> {
    Ok(socket.recv_buffer_size()? / 2)
}

/// Bytes of send buffer that were granted, in the unit in which they are asked for.
///
/// # Errors
/// The operating system's error.
pub fn granted_send_buffer(socket: &Socket) -> io::Result<usize> {
    Ok(socket.send_buffer_size()? / 2)
}

/// Datagrams that the kernel has dropped at this socket since it was opened, mostly because its buffer was full; wraps
/// at 2^32. SO_RXQ_OVFL tells the same with the next datagram that arrives, which may be never.
///
/// # Errors
/// The operating system's error.
pub fn dropped(socket: &Socket) -> io::Result<u32> {
    // SK_MEMINFO_VARS of linux/sock_diag.h: nine words, the drops in the last.
    const WORDS: usize = libc::SK_MEMINFO_DROPS as usize + 1;
    let mut words = [0u32; WORDS];
    let mut length = size_of_val(&words) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `words`, which is as long and lives through the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            words.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    Errno::result(result)?;
    Ok(words[WORDS - 1])
}

/// What an option of a socket can be set to.
///
/// # Safety
/// It has no padding, which the kernel would read as if it were something, and no pointer that means anything after the
/// call. (Where an option lends memory to the kernel, as XDP_UMEM_REG does, who makes the value answers for that memory.)
pub(super) unsafe trait OptionValue: Copy {}

// SAFETY: a number.
unsafe impl OptionValue for i32 {}
// SAFETY: a number.
unsafe impl OptionValue for u32 {}
// SAFETY: four numbers of 32 bits.
unsafe impl OptionValue for libc::tpacket_req {}
// SAFETY: numbers of 32, 16 and 16 bits, and eight bytes.
unsafe impl OptionValue for libc::packet_mreq {}
// SAFETY: three numbers of 32 bits, two of them addresses.
unsafe impl OptionValue for libc::ip_mreqn {}

const _: () = assert!(size_of::<libc::tpacket_req>() == 16 && size_of::<libc::packet_mreq>() == 16);
const _: () = assert!(size_of::<libc::ip_mreqn>() == 12);

/// Sets an option that neither socket2 nor nix has. `value` must be of the type that the option's manual page names;
/// the kernel checks its size.
pub(super) fn set_option<T: OptionValue>(socket: &impl AsFd, level: i32, name: i32, value: T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    let descriptor = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel reads `length` bytes of `value`, all of which are set and live through the call.
    let result = unsafe { libc::setsockopt(descriptor, level, name, (&raw const value).cast(), length) };
    Errno::result(result)?;
    Ok(())
}

/// Whole Ethernet frames in and out of one interface (AF_PACKET, packet(7)): for gratuitous ARP, and for watching a
/// wire.
///
/// It sees what arrives; only with ethertype `ETH_P_ALL` (3) does it see what this host sends, too. It never blocks.
#[derive(Debug)]
pub struct PacketSocket {
    descriptor: OwnedFd,
    control: Vec<u8>,
}

impl PacketSocket {
    /// Opens one on the interface with number `index` for frames of `ethertype` (0: sends only, receives nothing).
    ///
    /// # Errors
    /// The operating system's error: `EPERM` without CAP_NET_RAW, `ENODEV` or `ENXIO` if there is no such interface.
    pub fn open(index: u32, ethertype: u16) -> io::Result<Self> {
        Self::bind(SockType::Raw, index, ethertype)
    }

    /// Opens one for watching: every packet that the interface sends or receives, without its link layer, multicast of
    /// groups that nobody here has joined included. Index 0 is every interface (and then what the hardware lets through).
    ///
    /// # Errors
    /// As [`PacketSocket::open`].
    pub fn watch(index: u32) -> io::Result<Self> {
        const BUFFER: usize = 16 << 20;
        let socket = Self::bind(SockType::Datagram, index, libc::ETH_P_ALL as u16)?;
        // Without CAP_NET_ADMIN the buffer is as large as the administrator allows.
        if nix::sys::socket::setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).is_err() {
            nix::sys::socket::setsockopt(&socket, sockopt::RcvBuf, &BUFFER)?;
        }
        if index != 0 {
            let membership = libc::packet_mreq {
                mr_ifindex: i32::try_from(index).map_err(|_| Errno::ENODEV)?,
                mr_type: libc::PACKET_MR_ALLMULTI as u16,
                mr_alen: 0,
                mr_address: [0; 8],
            };
            set_option(&socket, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, membership)?;
        }
        Ok(socket)
    }

    /// Packets that the kernel has dropped since the last call, because nobody read them in time.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn dropped(&self) -> io::Result<u32> {
        packets_dropped(self.descriptor.as_fd())
    }

    fn bind(kind: SockType, index: u32, ethertype: u16) -> io::Result<Self> {
        // Protocol 0: nothing is delivered before the socket is bound to its interface.
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let descriptor = nix::sys::socket::socket(AddressFamily::Packet, kind, flags, None)?;
        nix::sys::socket::setsockopt(&descriptor, sockopt::ReceiveTimestampns, &true)?;
        // SAFETY: sockaddr_ll is plain data, for which zero bytes are a value.
        let mut address: libc::sockaddr_ll = unsafe { MaybeUninit::zeroed().assume_init() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = ethertype.to_be();
        address.sll_ifindex = i32::try_from(index).map_err(|_| Errno::ENODEV)?;
        let length = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the kernel reads `length` bytes of `address`, which lives through the call.
        Errno::result(unsafe { libc::bind(descriptor.as_raw_fd(), (&raw const address).cast(), length) })?;
        Ok(PacketSocket { descriptor, control: nix::cmsg_space!(libc::timespec) })
    }

    /// Sends one frame, from the destination's hardware address to the end of the payload.
    ///
    /// # Errors
    /// The operating system's error: `WouldBlock` if the queue is full, `ENETDOWN` if the interface is down.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        nix::sys::socket::send(self.descriptor.as_raw_fd(), frame, MsgFlags::empty())?;
        Ok(())
    }

    /// Takes the next frame, if one is there: its length (at most that of `buffer`; the rest is cut off) and when the
    /// kernel got it, since the epoch of CLOCK_REALTIME.
    ///
    /// # Errors
    /// The operating system's error: `ENETDOWN` once after the interface went down.
    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<(usize, Duration)>> {
        let mut vectors = [IoSliceMut::new(buffer)];
        let control = Some(self.control.as_mut_slice());
        let flags = MsgFlags::MSG_DONTWAIT;
        let message = match nix::sys::socket::recvmsg::<()>(self.descriptor.as_raw_fd(), &mut vectors, control, flags) {
            Ok(message) => message,
            Err(Errno::EAGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let at = message.cmsgs()?.find_map(|item| match item {
            ControlMessageOwned::ScmTimestampns(time) => {
                Some(Duration::new(time.tv_sec() as u64, time.tv_nsec() as u32))
            }
            _ => None,
        });
        Ok(Some((message.bytes, at.unwrap_or_default())))
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Packets that the kernel has dropped since this was last asked of a packet socket: they passed its filter and found no
/// room (PACKET_STATISTICS, packet(7)).
pub(super) fn packets_dropped(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut words = [0_u32; 2];
    let mut length = size_of_val(&words) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which `words` has: struct tpacket_stats is two words.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            words.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    Errno::result(result)?;
    Ok(words[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_described_as_it_is() {
        let loopback = interface("lo").unwrap();
        assert_eq!((loopback.name.as_str(), loopback.index, loopback.mac), ("lo", 1, [0; 6]));
        assert_eq!(loopback.mtu, 65536);
    }

    #[test]
    fn an_interface_that_is_not_there_is_not_found() {
        assert_eq!(interface("no-such-link").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
