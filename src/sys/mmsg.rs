//! Many datagrams in one system call: `recvmmsg` and `sendmmsg` over memory that is set up once and used for ever.
//!
//! ```text
//!            one allocation each, never moved
//! headers    │ mmsghdr 0 │ mmsghdr 1 │ …        the kernel overwrites msg_len, msg_controllen and msg_flags here
//!                │   │
//! vectors    │ iovec 0 │ iovec 1 │ …            where a slot begins, and how long it is
//!                │
//! bytes      │ slot 0        │ slot 1        │ …
//! ```
//!
//! `msg_controllen` and `msg_namelen` go in as room and come out as use: one call that brings no control message leaves 0
//! there, and the slot would never again have room for one. [`ReceiveBatch::receive`] therefore restores both before *every*
//! call, in the headers that the last one has filled: the others still say what room there is, and need not be touched.

use nix::errno::Errno;
use std::io;
use std::mem::size_of;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};

/// Most datagrams that one system call moves (UIO_MAXIOV).
pub const BATCH_MAX: usize = 1024;
/// Bytes that a processor's caches move at once.
const CACHE_LINE: usize = 64;

/// Slots for incoming datagrams.
pub struct ReceiveBatch {
    headers: Block<libc::mmsghdr>,
    control: Block<Control>,
    senders: Block<libc::sockaddr_in6>,
    bytes: Block<u8>,
    _vectors: Block<libc::iovec>,
    slot_len: usize,
    /// Whether it is wanted who sent, and what the control messages tell.
    with_senders: bool,
    /// Headers that the kernel has written to since their room was restored.
    used: usize,
    received: usize,
    truncated: u64,
}

/// One datagram, lent by [`ReceiveBatch::datagram`].
#[derive(Debug)]
pub struct Datagram<'a> {
    /// Its bytes, at most one slot; what did not fit is lost.
    pub bytes: &'a mut [u8],
    /// Datagrams that the socket had dropped before it queued this one (SO_RXQ_OVFL: since it was opened, wraps at
    /// 2^32); the kernel says it only where the number is not zero.
    pub dropped: Option<u32>,
    /// Hop limit of an IPv6 datagram, where the socket asks for it (IPV6_RECVHOPLIMIT); an IPv4 one has its header.
    pub hop_limit: Option<u8>,
    /// Sender of an IPv6 datagram.
    pub source: Option<Ipv6Addr>,
    /// Whether it was longer than the slot.
    pub cut: bool,
}

/// Words of one control message that holds 32 bits: CMSG_SPACE(4).
const ITEM_WORDS: usize = 3;
/// Room for two of them (SO_RXQ_OVFL, IPV6_HOPLIMIT), with cmsghdr's alignment.
type Control = [u64; 2 * ITEM_WORDS];

impl std::fmt::Debug for ReceiveBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ReceiveBatch {{ {} of {} slots of {} bytes }}", self.received, self.capacity(), self.slot_len)
    }
}

// SAFETY: the raw pointers inside lead to memory that this value alone owns, on whichever thread it is.
unsafe impl Send for ReceiveBatch {}

impl ReceiveBatch {
    /// `count` slots (1 to [`BATCH_MAX`]) of `slot_len` bytes.
    pub fn new(count: usize, slot_len: usize) -> Self {
        Self::of(count, slot_len, true)
    }

    /// The same for a socket that only the kernel sends to: it copies neither its address nor control messages.
    pub fn without_senders(count: usize, slot_len: usize) -> Self {
        Self::of(count, slot_len, false)
    }

    fn of(count: usize, slot_len: usize, with_senders: bool) -> Self {
        let count = count.clamp(1, BATCH_MAX);
        // Too many for a machine panic here, and do not wrap to few.
        let bytes = Block::new(0u8, count.saturating_mul(slot_len));
        let control = Block::new(Control::default(), count);
        let senders = Block::new(no_address(), count);
        let vectors =
            Block::from_fn(count, |i| libc::iovec { iov_base: bytes.at(i * slot_len).cast(), iov_len: slot_len });
        let headers = Block::from_fn(count, |i| {
            let mut header = empty_header();
            header.msg_hdr.msg_iov = vectors.at(i);
            header.msg_hdr.msg_iovlen = 1;
            if with_senders {
                header.msg_hdr.msg_control = control.at(i).cast();
                header.msg_hdr.msg_name = senders.at(i).cast();
            }
            header
        });
        let (used, received, truncated) = (count, 0, 0);
        let _vectors = vectors;
        ReceiveBatch { headers, control, senders, bytes, _vectors, slot_len, with_senders, used, received, truncated }
    }

    /// Takes what is waiting at `socket`, at most `most` datagrams and never more than there are slots, and says how
    /// many came. Never blocks; what the last call brought is gone.
    ///
    /// # Errors
    /// The operating system's error; that nothing is waiting is none.
    pub fn receive(&mut self, socket: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        self.received = 0;
        let headers = self.headers.slice_mut();
        let count = most.min(headers.len());
        if self.with_senders {
            for header in &mut headers[..self.used] {
                header.msg_hdr.msg_controllen = size_of::<Control>() as _;
                header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
            }
        }
        // SAFETY: the first `count` headers point to vectors, slots, addresses and control room (or to none, of no length)
        // that this value owns and that nobody else uses during the call; the lengths in them are those of the allocations.
        let result = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        let received = Errno::result(result).map(|received| received as usize);
        // The one that failed may have been written to as well.
        self.used = received.map_or(1, |received| received + 1).min(count);
        self.received = match received {
            Ok(received) => received,
            Err(Errno::EAGAIN) => 0,
            Err(error) => return Err(error.into()),
        };
        self.truncated += self.headers.slice()[..self.received].iter().filter(|header| was_cut(header)).count() as u64;
        Ok(self.received)
    }

    /// Most datagrams that one call takes.
    pub fn capacity(&self) -> usize {
        self.headers.slice().len()
    }

    /// Datagrams so far that were longer than a slot, and so were cut.
    pub fn truncated(&self) -> u64 {
        self.truncated
    }

    /// The datagrams of the last [`ReceiveBatch::receive`], in order of arrival, without those that were cut.
    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        let received = self.headers.slice()[..self.received].iter().zip(self.bytes.slice().chunks_exact(self.slot_len));
        received.filter(|(header, _)| !was_cut(header)).filter_map(|(header, slot)| slot.get(..header.msg_len as usize))
    }

    /// Datagram `index` of the last [`ReceiveBatch::receive`].
    ///
    /// # Panics
    /// If that call brought no such datagram.
    pub fn datagram(&mut self, index: usize) -> Datagram<'_> {
        assert!(index < self.received, "datagram {index} of {}", self.received);
        let header = self.headers.slice_mut()[index];
        let (dropped, hop_limit) = told(&header.msg_hdr, &self.control.slice()[index]);
        let source = source(&header.msg_hdr, &self.senders.slice()[index]);
        let start = index * self.slot_len;
        let length = (header.msg_len as usize).min(self.slot_len);
        let bytes = &mut self.bytes.slice_mut()[start..start + length];
        Datagram { bytes, dropped, hop_limit, source, cut: was_cut(&header) }
    }
}

fn was_cut(header: &libc::mmsghdr) -> bool {
    header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0
}

/// The sender's address, where it is an IPv6 one. A netlink socket writes another family here, and a shorter name.
fn source(header: &libc::msghdr, sender: &libc::sockaddr_in6) -> Option<Ipv6Addr> {
    let whole = header.msg_namelen as usize == size_of::<libc::sockaddr_in6>();
    let is_ipv6 = i32::from(sender.sin6_family) == libc::AF_INET6;
    (whole && is_ipv6).then(|| Ipv6Addr::from(sender.sin6_addr.s6_addr))
}

/// What the control messages tell: drops (SO_RXQ_OVFL) and hop limit (IPV6_HOPLIMIT). No other kind is switched on, and
/// both hold 32 bits, so each stands [`ITEM_WORDS`] words after the one before it.
#[allow(clippy::unnecessary_cast)] // These lengths are u32 with musl.
fn told(header: &libc::msghdr, control: &Control) -> (Option<u32>, Option<u8>) {
    const WHOLE: usize = size_of::<libc::cmsghdr>() + size_of::<u32>();
    let used = (header.msg_controllen as usize).min(size_of::<Control>());
    let (mut dropped, mut hop_limit) = (None, None);
    for item in control.chunks_exact(ITEM_WORDS).take(used.div_ceil(ITEM_WORDS * size_of::<u64>())) {
        let start = ptr::from_ref(item).cast::<u64>();
        // SAFETY: an item is as aligned as a cmsghdr and longer than WHOLE, and any bytes are a cmsghdr.
        let head = unsafe { start.cast::<libc::cmsghdr>().read() };
        if (head.cmsg_len as usize) < WHOLE {
            break;
        }
        // SAFETY: the u32 ends WHOLE bytes after the start, which is inside the item; it may lie unaligned.
        let value = unsafe { start.byte_add(size_of::<libc::cmsghdr>()).cast::<u32>().read_unaligned() };
        match (head.cmsg_level, head.cmsg_type) {
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => dropped = Some(value),
            (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => hop_limit = u8::try_from(value).ok(),
            _ => {}
        }
    }
    (dropped, hop_limit)
}

/// Slots for outgoing datagrams, to one address or to where the socket is bound. They are written in place, in order, and
/// the kernel reads them there. In front of each there may be room for a header, which each socket can be given anew.
///
/// ```text
///   bytes   │ header, datagram 0 │ header, datagram 1 │ free slot: as long as the longest … │
///                                ▲ at a cache line    ▲ end
/// ```
///
/// A slot is as long as the longest datagram can be, and the next one begins behind what was really written: so a batch
/// of short datagrams stays in a few pages, and in the nearest caches.
pub struct SendBatch {
    headers: Block<libc::mmsghdr>,
    vectors: Block<libc::iovec>,
    bytes: Block<u8>,
    _address: Option<Address>,
    /// Where each datagram's header begins.
    starts: Vec<usize>,
    /// Where the free slot begins.
    end: usize,
    /// Bytes in front of each datagram.
    headroom: usize,
    /// Bytes of a slot, headroom included.
    slot_len: usize,
    filled: usize,
}

// SAFETY: as for `ReceiveBatch`.
unsafe impl Send for SendBatch {}

impl SendBatch {
    /// `count` slots (1 to [`BATCH_MAX`]) of `slot_len` bytes for datagrams to `destination`.
    pub fn new(count: usize, slot_len: usize, destination: SocketAddr) -> Self {
        Self::build(count, 0, slot_len, Some(Address::new(destination)))
    }

    /// `count` slots (1 to [`BATCH_MAX`]) of `slot_len` bytes, each behind a header of `headroom` bytes, for a socket that
    /// knows where to send to.
    pub fn with_headers(count: usize, headroom: usize, slot_len: usize) -> Self {
        Self::build(count, headroom, headroom.saturating_add(slot_len), None)
    }

    fn build(count: usize, headroom: usize, slot_len: usize, address: Option<Address>) -> Self {
        let count = count.clamp(1, BATCH_MAX);
        let step = slot_len.checked_next_multiple_of(CACHE_LINE).unwrap_or(usize::MAX);
        let bytes = Block::new(0u8, count.saturating_mul(step));
        let vectors = Block::from_fn(count, |_| libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 });
        let headers = Block::from_fn(count, |i| {
            let mut header = empty_header();
            if let Some(address) = &address {
                (header.msg_hdr.msg_name, header.msg_hdr.msg_namelen) = address.for_the_kernel();
            }
            header.msg_hdr.msg_iov = vectors.at(i);
            header.msg_hdr.msg_iovlen = 1;
            header
        });
        let (starts, end, filled) = (vec![0; count], 0, 0);
        SendBatch { headers, vectors, bytes, _address: address, starts, end, headroom, slot_len, filled }
    }

    /// The next free slot, whole; what it holds is old. `None` if all are filled.
    pub fn slot(&mut self) -> Option<&mut [u8]> {
        if self.filled == self.vectors.slice().len() {
            return None;
        }
        Some(&mut self.bytes.slice_mut()[self.end + self.headroom..self.end + self.slot_len])
    }

    /// Makes the first `length` bytes of the free slot a datagram of the batch.
    ///
    /// # Panics
    /// If all slots are filled, or a slot is shorter than `length`.
    pub fn commit(&mut self, length: usize) {
        let room = self.slot_len - self.headroom;
        assert!(length <= room, "{length} bytes in a slot of {room}");
        let used = self.headroom + length;
        self.starts[self.filled] = self.end;
        self.vectors.slice_mut()[self.filled] = libc::iovec { iov_base: self.bytes.at(self.end).cast(), iov_len: used };
        self.end += used.next_multiple_of(CACHE_LINE);
        self.filled += 1;
    }

    /// Datagrams in the batch.
    pub fn len(&self) -> usize {
        self.filled
    }

    /// Whether nothing is in the batch.
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Length in bytes of datagram `index`, without its header.
    ///
    /// # Panics
    /// If the batch has no such datagram.
    pub fn datagram_len(&self, index: usize) -> usize {
        assert!(index < self.filled, "datagram {index} of {}", self.filled);
        self.vectors.slice()[index].iov_len - self.headroom
    }

    /// Datagram `index` with its header: the room in front of it, and its bytes.
    ///
    /// # Panics
    /// If the batch has no such datagram.
    pub fn with_header(&mut self, index: usize) -> (&mut [u8], &mut [u8]) {
        let length = self.datagram_len(index);
        let start = self.starts[index];
        self.bytes.slice_mut()[start..start + self.headroom + length].split_at_mut(self.headroom)
    }

    /// Hands the datagrams from number `first` on to `socket` and says how many of them it took (at least one). Never
    /// blocks. The batch stays as it is, so that another socket can be given the same bytes.
    ///
    /// # Errors
    /// The operating system's error for datagram `first`, of which nothing was sent; `WouldBlock` if the queue is full.
    ///
    /// # Panics
    /// If the batch has no datagram `first`.
    pub fn send(&mut self, socket: BorrowedFd<'_>, first: usize) -> io::Result<usize> {
        assert!(first < self.filled, "datagram {first} of {}", self.filled);
        let headers = &mut self.headers.slice_mut()[first..self.filled];
        // SAFETY: these headers point to the address, to vectors and to slots that this value owns and that nobody
        // else uses during the call; `commit` has set each length within its slot.
        let result = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                headers.len() as libc::c_uint,
                libc::MSG_DONTWAIT as _,
            )
        };
        Ok(Errno::result(result)? as usize)
    }

    /// Empties the batch.
    pub fn clear(&mut self) {
        (self.filled, self.end) = (0, 0);
    }
}

/// A destination at an address that stays.
enum Address {
    V4(Block<libc::sockaddr_in>),
    V6(Block<libc::sockaddr_in6>),
}

impl Address {
    fn new(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(address) => Address::V4(Block::new(
                libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: address.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
                    sin_zero: [0; 8],
                },
                1,
            )),
            SocketAddr::V6(address) => Address::V6(Block::new(
                libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: address.port().to_be(),
                    sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                    sin6_scope_id: address.scope_id(),
                    ..no_address()
                },
                1,
            )),
        }
    }

    fn for_the_kernel(&self) -> (*mut libc::c_void, libc::socklen_t) {
        match self {
            Address::V4(address) => (address.at(0).cast(), size_of::<libc::sockaddr_in>() as libc::socklen_t),
            Address::V6(address) => (address.at(0).cast(), size_of::<libc::sockaddr_in6>() as libc::socklen_t),
        }
    }
}

fn no_address() -> libc::sockaddr_in6 {
    // SAFETY: sockaddr_in6 is plain data, for which zero bytes are a value.
    unsafe { std::mem::zeroed() }
}

fn empty_header() -> libc::mmsghdr {
    // SAFETY: mmsghdr is plain data, for which zero bytes are a value.
    unsafe { std::mem::zeroed() }
}

/// An array on the heap at an address that the kernel may be told: it stays when its owner moves.
struct Block<T>(NonNull<[T]>);

impl<T: Copy> Block<T> {
    fn new(item: T, count: usize) -> Self {
        // `vec!` of zeroes comes zeroed from the system, untouched until it is used.
        Block(NonNull::from(Box::leak(vec![item; count].into_boxed_slice())))
    }

    fn from_fn(count: usize, item: impl FnMut(usize) -> T) -> Self {
        Block(NonNull::from(Box::leak((0..count).map(item).collect())))
    }

    /// The address of item `index`, for the kernel.
    fn at(&self, index: usize) -> *mut T {
        assert!(index < self.0.len());
        // SAFETY: the item is inside the allocation.
        unsafe { self.0.cast::<T>().as_ptr().add(index) }
    }

    fn slice(&self) -> &[T] {
        // SAFETY: the array is ours, and nobody writes to it while we are borrowed: the kernel does so only during
        // calls that borrow the batch exclusively.
        unsafe { self.0.as_ref() }
    }

    fn slice_mut(&mut self) -> &mut [T] {
        // SAFETY: as for `slice`, and we are borrowed exclusively.
        unsafe { self.0.as_mut() }
    }
}

impl<T> Drop for Block<T> {
    fn drop(&mut self) {
        // SAFETY: `new` and `from_fn` have taken the pointer from just such a box, and nothing else frees it.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::sockopt;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    fn pair() -> (UdpSocket, UdpSocket, SocketAddr) {
        pair_at("127.0.0.1:0")
    }

    fn pair_at(home: &str) -> (UdpSocket, UdpSocket, SocketAddr) {
        let (sender, receiver) = (UdpSocket::bind(home).unwrap(), UdpSocket::bind(home).unwrap());
        receiver.set_nonblocking(true).unwrap();
        let to = receiver.local_addr().unwrap();
        (sender, receiver, to)
    }

    fn fill(batch: &mut SendBatch, texts: &[&[u8]]) {
        for text in texts {
            batch.slot().unwrap()[..text.len()].copy_from_slice(text);
            batch.commit(text.len());
        }
    }

    #[test]
    fn datagrams_of_many_lengths_arrive_in_order_and_whole() {
        let (sender, receiver, to) = pair();
        let mut out = SendBatch::new(4, 8, to);
        fill(&mut out, &[b"one", b"", b"eightlen"]);
        assert_eq!((out.len(), out.datagram_len(2)), (3, 8));
        assert_eq!(out.send(sender.as_fd(), 0).unwrap(), 3);
        let mut incoming = ReceiveBatch::new(4, 8);
        assert_eq!(incoming.receive(receiver.as_fd(), 4).unwrap(), 3);
        assert_eq!(incoming.datagram(0).bytes, b"one");
        assert_eq!(incoming.datagram(1).bytes, b"");
        assert_eq!(incoming.datagram(2).bytes, b"eightlen");
    }

    #[test]
    fn a_batch_is_sent_from_any_datagram_on_and_as_often_as_wanted() {
        let (sender, receiver, to) = pair();
        let mut out = SendBatch::new(3, 4, to);
        fill(&mut out, &[b"a", b"b", b"c"]);
        assert!(out.slot().is_none());
        assert_eq!(out.send(sender.as_fd(), 1).unwrap(), 2);
        assert_eq!(out.send(sender.as_fd(), 2).unwrap(), 1);
        let mut incoming = ReceiveBatch::new(8, 4);
        assert_eq!(incoming.receive(receiver.as_fd(), 8).unwrap(), 3);
        let heard: Vec<Vec<u8>> = (0..3).map(|i| incoming.datagram(i).bytes.to_vec()).collect();
        assert_eq!(heard, [b"b", b"c", b"c"]);
        out.clear();
        assert!(out.is_empty() && out.slot().is_some());
    }

    #[test]
    fn datagrams_lie_one_behind_the_other_and_every_slot_has_room_for_the_longest() {
        let mut batch = SendBatch::with_headers(4, 2, 200);
        let mut starts = Vec::new();
        for (length, byte) in [(1, b'a'), (200, b'b'), (100, b'c'), (200, b'd')] {
            let slot = batch.slot().unwrap();
            assert_eq!(slot.len(), 200);
            slot.fill(b'-');
            slot[..length].fill(byte);
            starts.push(slot.as_ptr() as usize);
            batch.commit(length);
            batch.with_header(batch.len() - 1).0.fill(b'h');
        }
        assert!(batch.slot().is_none());
        let steps: Vec<usize> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(steps, [64, 256, 128], "as many cache lines as header and datagram take");
        for (index, (length, byte)) in [(1, b'a'), (200, b'b'), (100, b'c'), (200, b'd')].into_iter().enumerate() {
            let (header, datagram) = batch.with_header(index);
            assert_eq!((&*header, &*datagram), (&b"hh"[..], &vec![byte; length][..]));
        }
        batch.clear();
        assert_eq!(batch.slot().unwrap().as_ptr() as usize, starts[0], "the same memory again");
    }

    #[test]
    fn an_empty_queue_is_none_and_no_error() {
        let (_, receiver, _) = pair();
        assert_eq!(ReceiveBatch::new(4, 8).receive(receiver.as_fd(), 4).unwrap(), 0);
    }

    #[test]
    fn a_batch_that_asks_for_no_senders_gets_the_bytes_alone() {
        let (sender, receiver, to) = pair_at("[::1]:0");
        nix::sys::socket::setsockopt(&receiver, sockopt::Ipv6RecvHopLimit, &true).unwrap();
        let mut incoming = ReceiveBatch::without_senders(4, 8);
        for text in [b"one", b"two"] {
            sender.send_to(text, to).unwrap();
            assert_eq!(incoming.receive(receiver.as_fd(), 4).unwrap(), 1);
            let datagram = incoming.datagram(0);
            assert_eq!((&*datagram.bytes, datagram.source, datagram.hop_limit), (&text[..], None, None));
            assert!(!datagram.cut);
        }
    }

    /// What one call has used has room again in the next, also beyond what that one brings.
    #[test]
    fn every_slot_of_every_call_has_room_for_what_is_told() {
        let (sender, receiver, to) = pair_at("[::1]:0");
        nix::sys::socket::setsockopt(&receiver, sockopt::Ipv6RecvHopLimit, &true).unwrap();
        let mut incoming = ReceiveBatch::new(4, 8);
        for count in [1, 3, 2, 4, 1, 4] {
            (0..count).for_each(|_| assert_eq!(sender.send_to(b"x", to).unwrap(), 1));
            assert_eq!(incoming.receive(receiver.as_fd(), 4).unwrap(), count);
            for index in 0..count {
                let datagram = incoming.datagram(index);
                assert_eq!((datagram.source, datagram.hop_limit), (Some(Ipv6Addr::LOCALHOST), Some(64)));
            }
        }
    }

    #[test]
    fn a_call_brings_no_more_than_it_is_allowed_to() {
        let (sender, receiver, to) = pair();
        for _ in 0..5 {
            sender.send_to(b"x", to).unwrap();
        }
        let mut incoming = ReceiveBatch::new(3, 8);
        assert_eq!(incoming.receive(receiver.as_fd(), 1).unwrap(), 1);
        assert_eq!(incoming.receive(receiver.as_fd(), 99).unwrap(), 3);
        assert_eq!(incoming.receive(receiver.as_fd(), 3).unwrap(), 1);
    }

    #[test]
    fn a_datagram_longer_than_a_slot_is_cut_and_harms_no_neighbour() {
        let (sender, receiver, to) = pair();
        sender.send_to(b"0123456789", to).unwrap();
        sender.send_to(b"next", to).unwrap();
        let mut incoming = ReceiveBatch::new(2, 4);
        assert_eq!(incoming.receive(receiver.as_fd(), 2).unwrap(), 2);
        assert_eq!(incoming.datagram(0).bytes, b"0123");
        assert_eq!(incoming.datagram(1).bytes, b"next");
        assert_eq!((incoming.datagrams().next(), incoming.truncated()), (Some(&b"next"[..]), 1));
    }

    /// The kernel leaves `msg_controllen` at 0 after a datagram without control messages; a slot must have room again.
    #[test]
    fn drops_are_told_even_in_slots_that_carried_no_control_message_before() {
        let (sender, receiver, to) = pair();
        nix::sys::socket::setsockopt(&receiver, sockopt::RxqOvfl, &1).unwrap();
        nix::sys::socket::setsockopt(&receiver, sockopt::RcvBuf, &1).unwrap();
        let mut incoming = ReceiveBatch::new(1, 2048);
        sender.send_to(b"calm", to).unwrap();
        assert_eq!(incoming.receive(receiver.as_fd(), 1).unwrap(), 1);
        assert_eq!(incoming.datagram(0).dropped, None);
        const SENT: u32 = 50;
        for _ in 0..SENT {
            sender.send_to(&[0; 1000], to).unwrap();
        }
        let mut queued = 0;
        while incoming.receive(receiver.as_fd(), 1).unwrap() > 0 {
            queued += 1;
        }
        assert!(queued < SENT, "the buffer held everything, so the test shows nothing");
        sender.send_to(b"after", to).unwrap();
        assert_eq!(incoming.receive(receiver.as_fd(), 1).unwrap(), 1);
        assert_eq!(incoming.datagram(0).dropped, Some(SENT - queued));
    }

    #[test]
    fn an_ipv6_datagram_tells_its_sender_its_hop_limit_and_the_drops_before_it() {
        let (sender, receiver, to) = pair_at("[::1]:0");
        nix::sys::socket::setsockopt(&receiver, sockopt::Ipv6RecvHopLimit, &true).unwrap();
        nix::sys::socket::setsockopt(&receiver, sockopt::RxqOvfl, &1).unwrap();
        nix::sys::socket::setsockopt(&receiver, sockopt::RcvBuf, &1).unwrap();
        nix::sys::socket::setsockopt(&sender, sockopt::Ipv6Ttl, &77).unwrap();
        let mut out = SendBatch::new(64, 1000, to);
        (0..64).for_each(|_| out.commit(1000));
        assert_eq!(out.send(sender.as_fd(), 0).unwrap(), 64);
        let mut incoming = ReceiveBatch::new(1, 8);
        let mut queued = 0;
        while incoming.receive(receiver.as_fd(), 1).unwrap() > 0 {
            let datagram = incoming.datagram(0);
            assert_eq!((datagram.source, datagram.hop_limit), (Some(Ipv6Addr::LOCALHOST), Some(77)));
            assert_eq!((datagram.dropped, datagram.cut), (None, true));
            queued += 1;
        }
        sender.send_to(b"after", to).unwrap();
        assert_eq!(incoming.receive(receiver.as_fd(), 1).unwrap(), 1);
        let datagram = incoming.datagram(0);
        assert_eq!((datagram.bytes, datagram.hop_limit), (b"after".to_vec().as_mut_slice(), Some(77)));
        assert_eq!((datagram.dropped, datagram.cut), (Some(64 - queued), false));
    }

    #[test]
    fn an_ipv4_datagram_has_neither() {
        let (sender, receiver, to) = pair();
        sender.send_to(b"old", to).unwrap();
        let mut incoming = ReceiveBatch::new(1, 8);
        assert_eq!(incoming.receive(receiver.as_fd(), 1).unwrap(), 1);
        let datagram = incoming.datagram(0);
        assert_eq!((datagram.source, datagram.hop_limit, datagram.cut), (None, None, false));
    }
}
