//! Packets past the kernel's IP (AF_PACKET, packet(7)): a ring that the kernel fills and we read in place, a socket that
//! sends whole Ethernet frames, and what the kernel's IP still has to do for both.
//!
//! ```text
//!   receiver   socket(protocol 0) → SO_ATTACH_FILTER → PACKET_VERSION → PACKET_IGNORE_OUTGOING
//!                                 → PACKET_RESERVE → PACKET_RX_RING → mmap
//!                                 → bind(ethertype, interface) → PACKET_ADD_MEMBERSHIP
//!   sender     socket(protocol 0) → SO_SNDBUF → PACKET_QDISC_BYPASS → bind(0, interface)
//!
//!   slot       kernel ─ writes header and packet ─ tp_status = USER ─▶ we read and change it ─ tp_status = KERNEL ─▶ kernel
//! ```
//!
//! A socket of protocol 0 hears nothing; with the filter in place before it is bound, it never hears anything else than
//! what it is for. The sender stays at protocol 0. It is a socket of its own, because an interface that goes down leaves
//! an error at every socket that hears it, which the next `sendmsg` would report long after the interface is back.
//!
//! **Which ring.** TPACKET_V2 hands over packet by packet, V3 block by block, and a block that is not full when its timer
//! ends, which counts in milliseconds. On one veth pair of two busy cores, 1208-byte frames, medians:
//!
//! | receiver | latency | its processor time a frame | sender's frames a second of processor |
//! |---|---:|---:|---:|
//! | `recvmmsg` | 43 to 74 µs | 1.0 µs | 440k |
//! | V2 ring | 36 to 39 µs | 0.38 µs | 430k |
//! | V3 ring, 1 ms | 590 to 610 µs | 0.14 µs | 530k |
//!
//! V3's half a millisecond would be on every acknowledgement and every election, so it is V2. (A V3 ring also holds fewer
//! frames than its bytes when they come one in a millisecond: each takes a block.)
//!
//! **How to send.** `sendmmsg` moved 430k to 440k frames a second of processor, a TX ring 365k, which also needs a system
//! call for each batch and copies to each link. With or without a queueing discipline made no difference on veth, which has
//! none; it is bypassed because there sync frames would stand in line behind all that the host sends.
//!
//! **How to wait.** By `ppoll`, with the socket on no epoll: an epoll is called for each packet, whether or not anybody waits,
//! and was most of what a transport cost beside a bare pair ([`crate::sys::poll`], docs/benchmarks.md).

pub mod ring;

use super::cbpf::Program;
use super::socket::{Interface, SetupError, interface_request, leave_by, packets_dropped, set_option};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, sockopt};
use ring::{BLOCK_LEN, RESERVE, Shape};
use socket2::{Domain, InterfaceIndexOrAddress, SockAddr, Socket, Type};
use std::cell::Cell;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

fn at<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> SetupError {
    move |source| SetupError { step, source: source.into() }
}

/// What a receiver is to hear.
#[derive(Clone, Debug)]
pub struct Listening {
    /// Ethertype, as 0x0800.
    pub ethertype: u16,
    /// What is kept of it; it sees packets from their Ethernet header on.
    pub filter: Program,
    /// A hardware address of a group, which the interface is to let through.
    pub group: [u8; 6],
    /// Packets that wait until they are read.
    pub slots: usize,
    /// Bytes of the longest packet, Ethernet header included; a longer one is cut off.
    pub packet_len: usize,
}

/// Hears packets of one interface, in a ring.
#[derive(Debug)]
pub struct PacketReceiver {
    descriptor: OwnedFd,
    ring: Mapping,
    shape: Shape,
    next: usize,
    /// The kernel forgets what it has told.
    dropped: Cell<u64>,
}

impl PacketReceiver {
    /// Opens it. Nothing that the filter does not let through is ever in the ring, nor anything that this host sends.
    ///
    /// # Errors
    /// The step and what the kernel said; `EPERM` at `socket` without CAP_NET_RAW.
    pub fn open(interface: &Interface, what: Listening) -> Result<Self, SetupError> {
        let none = || SetupError { step: "PACKET_RX_RING", source: Errno::EINVAL.into() };
        let shape = Shape::new(what.slots, what.packet_len).ok_or_else(none)?;
        let descriptor = packet_socket()?;
        what.filter.attach(&descriptor).map_err(at("SO_ATTACH_FILTER"))?;
        let version = libc::tpacket_versions::TPACKET_V2 as libc::c_int;
        set_option(&descriptor, libc::SOL_PACKET, libc::PACKET_VERSION, version).map_err(at("PACKET_VERSION"))?;
        set_option(&descriptor, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1 as libc::c_int)
            .map_err(at("PACKET_IGNORE_OUTGOING"))?;
        set_option(&descriptor, libc::SOL_PACKET, libc::PACKET_RESERVE, RESERVE as libc::c_uint)
            .map_err(at("PACKET_RESERVE"))?;
        let request = libc::tpacket_req {
            tp_block_size: BLOCK_LEN as u32,
            tp_block_nr: shape.blocks() as u32,
            tp_frame_size: shape.slot_len() as u32,
            tp_frame_nr: shape.slots() as u32,
        };
        set_option(&descriptor, libc::SOL_PACKET, libc::PACKET_RX_RING, request).map_err(at("PACKET_RX_RING"))?;
        let ring = Mapping::new(descriptor.as_fd(), shape.byte_len()).map_err(at("mmap"))?;
        bind(&descriptor, interface.index, what.ethertype).map_err(at("bind"))?;
        let mut address = [0; 8];
        address[..6].copy_from_slice(&what.group);
        let membership = libc::packet_mreq {
            mr_ifindex: interface.index as i32,
            mr_type: libc::PACKET_MR_MULTICAST as u16,
            mr_alen: 6,
            mr_address: address,
        };
        set_option(&descriptor, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, membership)
            .map_err(at("PACKET_ADD_MEMBERSHIP"))?;
        Ok(PacketReceiver { descriptor, ring, shape, next: 0, dropped: Cell::new(0) })
    }

    /// Lends each packet that has arrived to `take`, from its Ethernet header on, at most `most`, and says how many there
    /// were. No system call and no allocation.
    pub fn receive(&mut self, most: usize, mut take: impl FnMut(&mut [u8])) -> usize {
        for count in 0..most.min(self.shape.slots()) {
            let slot = self.ring.at(self.shape.offset(self.next), self.shape.slot_len());
            let header = slot.cast::<libc::tpacket2_hdr>();
            // SAFETY: the slot is inside of the mapping, begins at a multiple of 16 and is longer than its header, of which
            // tp_status is a word that the kernel and we access as one word only.
            let status = unsafe { AtomicU32::from_ptr(&raw mut (*header).tp_status) };
            if status.load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 {
                return count;
            }
            // SAFETY: as above, and any bytes are a number. With TP_STATUS_USER the slot is ours: the kernel has written
            // the rest of the header before, and does not write to it again before we give it back.
            let (mac, snaplen) = unsafe { ((*header).tp_mac, (*header).tp_snaplen) };
            if let Some(packet) = self.shape.packet(mac, snaplen) {
                // SAFETY: `packet` is inside of the slot and behind its header, so nothing else that we hold overlaps it;
                // its bytes are set, as fresh pages are zero; the slot is ours as above, and the mapping outlives this
                // borrow of `self`.
                take(unsafe { std::slice::from_raw_parts_mut(slot.byte_add(packet.start), packet.len()) });
            }
            status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
            self.next = self.shape.after(self.next);
        }
        most.min(self.shape.slots())
    }

    /// What has happened to the socket since this was last asked: `ENETDOWN` after its interface went down. Until it is
    /// asked, the socket counts as readable.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn check(&self) -> io::Result<()> {
        match nix::sys::socket::getsockopt(&self.descriptor, sockopt::SocketError)? {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(code)),
        }
    }

    /// Packets that passed the filter and found no free slot, since the receiver was opened.
    pub fn dropped(&self) -> u64 {
        // A socket that cannot say is one that has gone, and drops nothing.
        if let Ok(dropped) = packets_dropped(self.descriptor.as_fd()) {
            self.dropped.set(self.dropped.get() + u64::from(dropped));
        }
        self.dropped.get()
    }

    /// Packets that the ring holds.
    pub fn slots(&self) -> usize {
        self.shape.slots()
    }
}

impl AsFd for PacketReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// The ring's memory, which the kernel writes to while we do.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory belongs to this value alone, on whichever thread it is.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(socket: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        // SAFETY: a new mapping at an address that the kernel chooses touches no memory of ours.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, socket.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::from(Errno::ENOMEM))?;
        Ok(Mapping { start, len })
    }

    /// The address of `len` bytes at `offset`.
    fn at(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(offset <= self.len && len <= self.len - offset, "{len} bytes at {offset} of {}", self.len);
        // SAFETY: the bytes are inside of the mapping.
        unsafe { self.start.as_ptr().add(offset) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `new` has made, and nothing refers to it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// A non-blocking socket that sends whole Ethernet frames by `interface`, past its queueing discipline, and hears nothing. A
/// full queue of the driver is told as `ENOBUFS`, too many frames on their way as `WouldBlock`.
///
/// # Errors
/// As for [`PacketReceiver::open`].
pub fn sender(interface: &Interface, buffer: usize) -> Result<Socket, SetupError> {
    let socket = Socket::from(packet_socket()?);
    if nix::sys::socket::setsockopt(&socket, sockopt::SndBufForce, &buffer).is_err() {
        socket.set_send_buffer_size(buffer).map_err(at("SO_SNDBUF"))?;
    }
    set_option(&socket, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1 as libc::c_int)
        .map_err(at("PACKET_QDISC_BYPASS"))?;
    bind(&socket, interface.index, 0).map_err(at("bind"))?;
    Ok(socket)
}

fn packet_socket() -> Result<OwnedFd, SetupError> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    nix::sys::socket::socket(AddressFamily::Packet, SockType::Raw, flags, None).map_err(at("socket"))
}

fn bind(socket: &impl AsFd, index: u32, ethertype: u16) -> io::Result<()> {
    // SAFETY: sockaddr_ll is plain data, for which zero bytes are a value.
    let mut address: libc::sockaddr_ll = unsafe { MaybeUninit::zeroed().assume_init() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex = i32::try_from(index).map_err(|_| Errno::ENODEV)?;
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    let descriptor = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel reads `length` bytes of `address`, which lives through the call.
    Errno::result(unsafe { libc::bind(descriptor, (&raw const address).cast(), length) })?;
    Ok(())
}

/// Whether switches send a group's packets to everybody, whoever has joined: 224.0.0.0/24 (RFC 4541 section 2.1.2).
fn is_flooded(group: Ipv4Addr) -> bool {
    group.octets()[..3] == [224, 0, 0]
}

/// What the kernel's IP does for packets that go past it: it is a member of the group, so that switches which listen to
/// IGMP or MLD send its packets to us (RFC 4541), and it knows where packets to the group come from.
///
/// A member's IP takes every packet through routing and delivery before it finds that nobody wants it; without a member
/// it is dropped at once. So nobody joins where no switch asks.
#[derive(Debug)]
pub struct Membership {
    socket: Socket,
    group: IpAddr,
    interface: Interface,
}

impl Membership {
    /// Joins `group` at `interface`.
    ///
    /// # Errors
    /// The step and what the kernel said.
    pub fn join(group: IpAddr, interface: &Interface) -> Result<Self, SetupError> {
        let domain = if group.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::DGRAM, None).map_err(at("socket(UDP)"))?;
        match group {
            IpAddr::V4(group) => {
                if !is_flooded(group) {
                    let at_index = InterfaceIndexOrAddress::Index(interface.index);
                    socket.join_multicast_v4_n(&group, &at_index).map_err(at("IP_ADD_MEMBERSHIP"))?;
                }
                // Not SO_BINDTODEVICE, which disconnecting would undo.
                leave_by(&socket, interface.index).map_err(at("IP_MULTICAST_IF"))?;
            }
            IpAddr::V6(group) => {
                socket.join_multicast_v6(&group, interface.index).map_err(at("IPV6_ADD_MEMBERSHIP"))?;
            }
        }
        Ok(Membership { socket, group, interface: interface.clone() })
    }

    /// Leaves the group and joins it again, at `interface`: one that has forgotten its members takes the old membership
    /// for the new one when the socket is closed.
    ///
    /// # Errors
    /// As for [`Membership::join`].
    pub fn renew(&mut self, interface: &Interface) -> Result<(), SetupError> {
        if let IpAddr::V6(group) = self.group {
            // That there is none to leave is no error here.
            let _ = self.socket.leave_multicast_v6(&group, self.interface.index);
        }
        *self = Self::join(self.group, interface)?;
        Ok(())
    }

    /// The address that the kernel would send from: with IPv4 0.0.0.0 where it knows none, with IPv6 `None`.
    pub fn source(&self) -> Option<IpAddr> {
        // Connecting sends nothing; it chooses the route and the source. Any port will do. What it has chosen before is
        // undone by connecting to nowhere.
        let to = match self.group {
            IpAddr::V4(_) => SocketAddr::new(self.group, 9),
            IpAddr::V6(group) => std::net::SocketAddrV6::new(group, 9, 0, self.interface.index).into(),
        };
        self.disconnect().ok()?;
        self.socket.connect(&SockAddr::from(to)).ok()?;
        Some(self.socket.local_addr().ok()?.as_socket()?.ip())
    }

    /// The interface's hardware address.
    ///
    /// # Errors
    /// The operating system's error: `ENODEV` if there is no such interface any more.
    pub fn mac(&self) -> io::Result<[u8; 6]> {
        let answer = interface_request(self.socket.as_fd(), &self.interface.name, libc::SIOCGIFHWADDR)?;
        // SAFETY: SIOCGIFHWADDR has filled just this member of the union (netdevice(7)).
        let address = unsafe { answer.ifr_ifru.ifru_hwaddr };
        Ok(std::array::from_fn(|byte| address.sa_data[byte] as u8))
    }

    fn disconnect(&self) -> io::Result<()> {
        // SAFETY: sockaddr is plain data, for which zero bytes are a value: AF_UNSPEC.
        let nowhere: libc::sockaddr = unsafe { MaybeUninit::zeroed().assume_init() };
        let length = size_of::<libc::sockaddr>() as libc::socklen_t;
        // SAFETY: the kernel reads `length` bytes of `nowhere`, which lives through the call.
        Errno::result(unsafe { libc::connect(self.socket.as_raw_fd(), &raw const nowhere, length) })?;
        Ok(())
    }
}
