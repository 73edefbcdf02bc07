//! What becomes of network interfaces, told by the kernel when it happens (rtnetlink(7), group RTNLGRP_LINK).
//!
//! A notification is taken as "something has changed" and no more; what, the kernel is then *asked*, interface by
//! interface, and its answer is the only truth. So a lost or a foreign notification costs one question.
//!
//! ```text
//!   carrier lost ──▶ netif_carrier_off ──▶ link watch ──▶ operational state, IFF_RUNNING, RTM_NEWLINK
//!                        IFLA_CARRIER          │ at once; but up to 1 s later when another interface
//!                        says so now           │ changed in the second before
//! ```
//!
//! The link watch of net/core/link_watch.c is the reason for asking with RTM_GETLINK: within a second of an earlier
//! change flags and notification were 0.4 to 0.8 s late (Linux 6.18), and the answer to a question never was. A question
//! takes the kernel's rtnl lock, so it is not asked more often than needed: see `transport`.

use super::cbpf;
use super::netlink::{Attributes, MessageWriter, Messages, NETLINK_ROUTE, NetlinkSocket, ReceiveError, control, flags};
use nix::errno::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Bytes of receive buffer: some hundred notifications. Losing one is no harm, see above.
const RECEIVE_BUFFER: usize = 256 * 1024;
/// Most datagrams that one call takes.
const DATAGRAMS_MAX: usize = 1024;
/// Bytes of `struct ifinfomsg` (linux/rtnetlink.h): family, hardware type, index, flags, change mask.
const HEADER_SIZE: usize = 16;
/// Where a message has the address of who asked, and the number of its interface.
const PORT_ID: u32 = 12;
const INDEX: u32 = 16 + 4;
/// Group of interfaces (RTNLGRP_LINK).
const LINK_GROUP: u32 = 1;

/// Where an interface stands now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkState {
    /// The number that the name has now.
    pub index: u32,
    /// An operator has switched it on (IFF_UP).
    pub enabled: bool,
    /// It has a carrier (IFLA_CARRIER) and is operational (IFLA_OPERSTATE; RFC 2863).
    pub carrier: bool,
    /// Largest IP datagram in bytes that it carries in one piece.
    pub mtu: u32,
}

/// Watches the interfaces of one network namespace: that of the thread that opened it, whoever uses it later.
#[derive(Debug)]
pub struct InterfaceWatch {
    socket: NetlinkSocket,
    question: MessageWriter,
    sequence: u32,
    changed: bool,
}

impl InterfaceWatch {
    /// Listens from now on. Needs no privilege.
    ///
    /// # Errors
    /// The operating system's error (no descriptors left, a sandbox without AF_NETLINK).
    pub fn open() -> io::Result<Self> {
        let socket = NetlinkSocket::open(NETLINK_ROUTE, RECEIVE_BUFFER)?;
        socket.join(LINK_GROUP)?;
        Ok(InterfaceWatch { socket, question: MessageWriter::new(), sequence: 0, changed: false })
    }

    /// Hears from now on only of the interfaces with these numbers, so that a host on which others come and go by the
    /// hundred does not wake us. One that takes over a name has another number, and is found by asking.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn listen_to(&self, indices: &[u32]) -> io::Result<()> {
        // Loads are big-endian, what is loaded is in host order. Answers carry our own address, notifications never do.
        let indices: Vec<u32> = indices.iter().map(|index| index.to_be()).collect();
        let answers = cbpf::Program::new().load_u32(PORT_ID).accept_if(self.socket.port_id()?.to_be());
        answers.load_u32(INDEX).drop_unless(&indices).attach(&self.socket)
    }

    /// Whether some interface may have changed since the last call. One system call when none has.
    pub fn changed(&mut self) -> bool {
        for _ in 0..DATAGRAMS_MAX {
            match self.socket.receive() {
                Ok(None) => break,
                // Whatever it is, and be it that we have lost some: the kernel is to be asked.
                Ok(Some(_)) | Err(ReceiveError::Overrun | ReceiveError::Truncated(_)) => self.changed = true,
                Err(ReceiveError::Io(_)) => {
                    self.changed = true;
                    break;
                }
            }
        }
        std::mem::take(&mut self.changed)
    }

    /// How the interface called `name` stands. Notifications that come meanwhile are remembered for
    /// [`InterfaceWatch::changed`].
    ///
    /// # Errors
    /// `ENODEV` if there is no such interface; the operating system's error otherwise.
    pub fn ask(&mut self, name: &str) -> io::Result<LinkState> {
        if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains('\0') {
            return Err(Errno::ENODEV.into());
        }
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.question.clear();
        // Family "any", index 0: by name.
        self.question.begin(libc::RTM_GETLINK, flags::REQUEST, self.sequence, 0, 0);
        self.question.raw(&[0; HEADER_SIZE - 4]);
        self.question.attribute_text(libc::IFLA_IFNAME, name);
        self.question.end();
        self.socket.send(self.question.bytes())?;
        for _ in 0..DATAGRAMS_MAX {
            let datagram = match self.socket.receive() {
                Ok(Some(datagram)) => datagram,
                Ok(None) => break,
                // The answer is among those that were lost, or it still comes.
                Err(ReceiveError::Overrun | ReceiveError::Truncated(_)) => {
                    self.changed = true;
                    continue;
                }
                Err(ReceiveError::Io(error)) => return Err(error),
            };
            for message in Messages::new(datagram).map_while(Result::ok) {
                if message.sequence != self.sequence {
                    self.changed = true;
                } else if message.kind == control::ERROR {
                    return Err(io::Error::from_raw_os_error(message.error_code().unwrap_or(libc::EPROTO)));
                } else if message.kind == libc::RTM_NEWLINK {
                    return read(message.payload).ok_or_else(|| Errno::EPROTO.into());
                }
            }
        }
        // The kernel answers inside of `send`, so an answer that is not there was dropped for want of room.
        self.changed = true;
        Err(Errno::ENOBUFS.into())
    }
}

impl AsFd for InterfaceWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The state in the payload of RTM_NEWLINK; `None` if it is too short to be one.
pub fn read(payload: &[u8]) -> Option<LinkState> {
    let header: &[u8; HEADER_SIZE] = payload.first_chunk()?;
    let index = u32::from_ne_bytes(header[4..8].try_into().ok()?);
    let flags = u32::from_ne_bytes(header[8..12].try_into().ok()?);
    let enabled = flags & libc::IFF_UP as u32 != 0;
    let (mut carrier, mut operates, mut mtu) = (true, true, 0);
    for attribute in Attributes::new(&payload[HEADER_SIZE..]).map_while(Result::ok) {
        match attribute.kind {
            libc::IFLA_CARRIER => carrier = attribute.u8().ok()? != 0,
            libc::IFLA_OPERSTATE => operates = operates_at(attribute.u8().ok()?),
            libc::IFLA_MTU => mtu = u32::from_ne_bytes(attribute.value.try_into().ok()?),
            _ => {}
        }
    }
    Some(LinkState { index, enabled, carrier: enabled && carrier && operates, mtu })
}

/// Operational states of linux/if.h in which frames pass. "Unknown" is what loopback and tunnels say. A carrier that is
/// back is worth nothing before the state follows: until the link watch has run, the queue swallows what is sent and
/// reports success (`noop_enqueue` of net/sched/sch_generic.c).
fn operates_at(state: u8) -> bool {
    const UNKNOWN: u8 = 0;
    const UP: u8 = 6;
    matches!(state, UNKNOWN | UP)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `ip` gets for a veth: index 7, switched on, MTU 1400, with a carrier.
    fn message(index: u8, flags: u8, operational: u8, carrier: u8) -> Vec<u8> {
        let mut bytes = vec![0, 0, 1, 0, index, 0, 0, 0, flags, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend([8, 0, 4, 0, 0x78, 5, 0, 0]);
        bytes.extend([5, 0, 16, 0, operational, 0, 0, 0]);
        bytes.extend([5, 0, 33, 0, carrier, 0, 0, 0]);
        bytes
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn an_interface_works_when_it_is_on_and_has_a_carrier() {
        let state = |carrier| Some(LinkState { index: 7, enabled: true, carrier, mtu: 1400 });
        assert_eq!(read(&message(7, 1, 6, 1)), state(true));
        assert_eq!(read(&message(7, 1, 6, 0)), state(false), "the carrier is lost, the operational state not yet told");
        assert_eq!(read(&message(7, 1, 2, 1)), state(false), "it is back, and the queue behind it not yet");
        assert_eq!(read(&message(7, 1, 0, 1)), state(true), "loopback and tunnels know none");
        assert_eq!(read(&message(7, 1, 5, 1)), state(false), "dormant: 802.1X has not let it in");
        assert_eq!(read(&message(7, 1, 3, 1)), state(false), "what it stands on is down");
        assert!(read(&message(7, 0, 2, 0)).is_some_and(|state| !state.enabled && !state.carrier));
    }

    #[test]
    fn a_message_that_is_too_short_is_none() {
        for length in 0..16 {
            assert_eq!(read(&message(7, 1, 6, 1)[..length]), None);
        }
    }

    #[test]
    fn the_loopback_interface_is_found_by_its_name() {
        let mut watch = InterfaceWatch::open().unwrap();
        let state = watch.ask("lo").unwrap();
        assert_eq!((state.index, state.mtu), (1, 65536));
        assert_eq!(watch.ask("lo").unwrap(), state);
    }

    #[test]
    fn a_name_that_no_interface_has_is_no_device() {
        let mut watch = InterfaceWatch::open().unwrap();
        for name in ["", "sixteen-letters!", "a\0b", "no-such-link"] {
            assert_eq!(watch.ask(name).unwrap_err().raw_os_error(), Some(libc::ENODEV), "{name:?}");
        }
    }
}
