//! A program in the kernel's receive path (XDP) that hands one group's frames to AF_XDP sockets: loaded, attached and
//! filled with sockets by bpf(2) itself, without a compiler, a program file or a library.
//!
//! ```text
//!   Redirect::load     XSKMAP + program, checked by the verifier       needs CAP_BPF and CAP_NET_ADMIN (or CAP_SYS_ADMIN)
//!      .attach(eth1) ─▶ Attachment: a BPF link, native or SKB mode      CAP_NET_ADMIN
//!      .set(queue, socket)                                              nothing but the descriptors
//! ```
//!
//! All three are descriptors. The link holds the program at the interface for as long as somebody has its descriptor
//! open, so whoever dies, by whatever signal, leaves nothing attached. A socket that is closed leaves the map by itself.
//! Program and map outlive an interface that is replaced: attaching them to the next needs no capability that a daemon
//! gives up after its start.

mod instruction;
mod program;

use instruction::Instruction;
use nix::errno::Errno;
use std::ffi::{CStr, c_int, c_long};
use std::io;
use std::mem::size_of;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Receive queues that a map has room for.
pub const QUEUES_MAX: u32 = 64;

/// Bytes for what the verifier says of a program that it refuses.
const LOG_SIZE: usize = 64 * 1024;

/// Where in the receive path a program runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// In the driver, before the kernel makes a packet of what has arrived.
    Native,
    /// Behind it, with every driver; each frame has become an `sk_buff` already.
    Skb,
}

impl Mode {
    /// As `ip link` and its flags name it.
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Native => "native",
            Mode::Skb => "SKB",
        }
    }

    /// XDP_FLAGS_DRV_MODE and XDP_FLAGS_SKB_MODE of linux/if_link.h.
    const fn flag(self) -> u32 {
        match self {
            Mode::Native => 1 << 2,
            Mode::Skb => 1 << 1,
        }
    }
}

/// What the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}{}{log}", if .log.is_empty() { "" } else { "\n" })]
pub struct BpfError {
    /// The command of bpf(2).
    pub step: &'static str,
    /// What the kernel said.
    pub source: io::Error,
    /// What its verifier said, instruction by instruction; empty where it was not asked.
    pub log: String,
}

/// A program that redirects, and the map of sockets that it redirects to.
#[derive(Debug)]
pub struct Redirect {
    sockets: OwnedFd,
    program: OwnedFd,
}

/// A program at an interface. Dropping it takes the program away.
#[derive(Debug)]
pub struct Attachment {
    _link: OwnedFd,
    mode: Mode,
}

impl Redirect {
    /// Loads a program that redirects IP packets of `protocol` to `group`, and of no fragments, in Ethernet II frames
    /// without a VLAN tag.
    ///
    /// # Errors
    /// `EPERM` without the capabilities; what the verifier minds.
    pub fn load(protocol: u8, group: IpAddr) -> Result<Self, BpfError> {
        let sockets = create_map()?;
        let program = load_program(&program::redirect(protocol, group, sockets.as_raw_fd()))?;
        Ok(Redirect { sockets, program })
    }

    /// Has the program run for what arrives at the interface with number `index`, in the calling thread's network
    /// namespace.
    ///
    /// # Errors
    /// `EBUSY` or `EEXIST` if a program is attached already, `EOPNOTSUPP` and others if the driver cannot run one (as
    /// it is: MTU, queues), `EINVAL` if there is no such interface.
    pub fn attach(&self, index: u32, mode: Mode) -> Result<Attachment, BpfError> {
        /// `attach_type` BPF_XDP.
        const XDP: u32 = 37;
        let attributes =
            LinkCreate { program: self.program.as_raw_fd(), interface: index, kind: XDP, flags: mode.flag() };
        let link = descriptor(Command::LINK_CREATE, &attributes)?;
        Ok(Attachment { _link: link, mode })
    }

    /// Has frames of receive queue `queue` (below [`QUEUES_MAX`]) go to this AF_XDP socket, which must be bound.
    ///
    /// # Errors
    /// `E2BIG` for another queue, `EBADF` and others for another socket.
    pub fn set(&self, queue: u32, socket: impl AsFd) -> Result<(), BpfError> {
        let socket = socket.as_fd().as_raw_fd();
        let attributes = MapUpdate {
            map: self.sockets.as_raw_fd(),
            padding: 0,
            key: &raw const queue as u64,
            value: &raw const socket as u64,
            flags: 0,
        };
        call(Command::MAP_UPDATE_ELEM, &attributes)?;
        Ok(())
    }

    /// What becomes of a frame that arrives by queue 0 of the loopback interface (`enum xdp_action`).
    #[cfg(test)]
    fn verdict(&self, frame: &[u8]) -> Result<u32, BpfError> {
        let mut attributes = TestRun {
            program: self.program.as_raw_fd(),
            verdict: 0,
            size_in: frame.len() as u32,
            size_out: 0,
            frame: frame.as_ptr() as u64,
            frame_out: 0,
            repeat: 1,
            duration: 0,
        };
        call_mut(Command::PROG_TEST_RUN, &mut attributes)?;
        Ok(attributes.verdict)
    }
}

impl Attachment {
    /// Where it runs.
    pub fn mode(&self) -> Mode {
        self.mode
    }
}

/// `BPF_MAP_CREATE` of an XSKMAP: from number of receive queue to socket.
fn create_map() -> Result<OwnedFd, BpfError> {
    /// `map_type` BPF_MAP_TYPE_XSKMAP.
    const XSKMAP: u32 = 17;
    descriptor(
        Command::MAP_CREATE,
        &MapCreate { kind: XSKMAP, key_size: 4, value_size: 4, max_entries: QUEUES_MAX, flags: 0 },
    )
}

/// `BPF_PROG_LOAD`, and a second time with the verifier's log if it is refused.
fn load_program(instructions: &[Instruction]) -> Result<OwnedFd, BpfError> {
    /// `prog_type` BPF_PROG_TYPE_XDP.
    const XDP: u32 = 6;
    /// BPF_F_XDP_HAS_FRAGS: it does not mind frames in several pieces, of which it sees the first. Without it no jumbo
    /// frames pass in native mode. Linux 5.18.
    const HAS_FRAGS: u32 = 1 << 5;
    /// Its helpers are for any licence; the program itself is what Cargo.toml says.
    const LICENCE: &CStr = c"Dual MIT/GPL";
    let mut attributes = ProgLoad {
        kind: XDP,
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        licence: LICENCE.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: HAS_FRAGS,
        name: *b"ssyncp_redirect\0",
        interface: 0,
        attach_type: 0,
    };
    descriptor(Command::PROG_LOAD, &attributes).or_else(|first| {
        let mut log = vec![0u8; LOG_SIZE];
        (attributes.log_level, attributes.log_size, attributes.log) = (1, LOG_SIZE as u32, log.as_mut_ptr() as u64);
        descriptor(Command::PROG_LOAD, &attributes).map_err(|_| {
            let said = CStr::from_bytes_until_nul(&log).unwrap_or_default();
            BpfError { log: said.to_string_lossy().trim_end().to_owned(), ..first }
        })
    })
}

/// A command of bpf(2), and how errors name it.
struct Command(c_int, &'static str);

impl Command {
    const MAP_CREATE: Command = Command(0, "BPF_MAP_CREATE");
    const MAP_UPDATE_ELEM: Command = Command(2, "BPF_MAP_UPDATE_ELEM");
    const PROG_LOAD: Command = Command(5, "BPF_PROG_LOAD");
    #[cfg(test)]
    const PROG_TEST_RUN: Command = Command(10, "BPF_PROG_TEST_RUN");
    const LINK_CREATE: Command = Command(28, "BPF_LINK_CREATE");
}

/// What a command reads: a beginning of `union bpf_attr` (linux/bpf.h), the rest of which the kernel takes for zeros.
///
/// # Safety
/// The type is what its command reads: `repr(C)` without padding, pointers as `u64`, and each of those leads to as much
/// memory as the attributes beside it say, to be written only where the value was made from a `*mut`.
unsafe trait Attributes {}

#[repr(C)]
struct MapCreate {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

#[repr(C)]
struct MapUpdate {
    map: RawFd,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgLoad {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

#[repr(C)]
struct LinkCreate {
    program: RawFd,
    interface: u32,
    kind: u32,
    flags: u32,
}

// No padding: each is as long as its fields.
const _: () = assert!(size_of::<MapCreate>() == 20 && size_of::<MapUpdate>() == 32 && size_of::<LinkCreate>() == 16);
const _: () = assert!(size_of::<ProgLoad>() == 72);

#[cfg(test)]
#[repr(C)]
struct TestRun {
    program: RawFd,
    verdict: u32,
    size_in: u32,
    size_out: u32,
    frame: u64,
    frame_out: u64,
    repeat: u32,
    duration: u32,
}

// SAFETY: five words, no pointers.
unsafe impl Attributes for MapCreate {}
// SAFETY: the kernel reads the map's key_size and value_size at the two pointers: four bytes each, as `set` lends them.
unsafe impl Attributes for MapUpdate {}
// SAFETY: `load_program` lends the instructions with their number, a string that ends in zero, and a log with its size.
unsafe impl Attributes for ProgLoad {}
// SAFETY: four words, no pointers.
unsafe impl Attributes for LinkCreate {}
#[cfg(test)]
// SAFETY: `verdict` lends the frame with its length; nothing is written out.
unsafe impl Attributes for TestRun {}

/// A command that makes a descriptor.
fn descriptor(command: Command, attributes: &impl Attributes) -> Result<OwnedFd, BpfError> {
    let descriptor = call(command, attributes)?;
    // SAFETY: the kernel has just made it for us, and nobody else knows it. (All of these are close-on-exec.)
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as RawFd) })
}

fn call<T: Attributes>(command: Command, attributes: &T) -> Result<c_long, BpfError> {
    // SAFETY: of these commands none writes to attributes as short as ours. (BPF_PROG_LOAD would, from Linux 6.4 on, to
    // `log_true_size`, which lies behind them.)
    unsafe { bpf(command, &raw const *attributes) }
}

#[cfg(test)]
fn call_mut<T: Attributes>(command: Command, attributes: &mut T) -> Result<c_long, BpfError> {
    // SAFETY: they may be written to.
    unsafe { bpf(command, &raw mut *attributes) }
}

/// # Safety
/// `attributes` are what `command` reads, and live; if it writes to them, they come from a `&mut`.
unsafe fn bpf<T: Attributes>(command: Command, attributes: *const T) -> Result<c_long, BpfError> {
    // SAFETY: they lead to as many bytes, of a type for which `Attributes` vouches, as it does for all that they point to;
    // the rest is as the caller promises.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command.0, attributes, size_of::<T>()) };
    Errno::result(result).map_err(|errno| BpfError { step: command.1, source: errno.into(), log: String::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::namespace::Namespace;
    use instruction::{R0, R1, Width, exit, load};

    /// Verdicts of `enum xdp_action`.
    const PASS: u32 = 2;
    const REDIRECT: u32 = 4;

    const IPV4: &str = "224.0.0.81";
    const IPV6: &str = "ff02::7251";

    /// 8 bytes of protocol 114 from 10.0.0.1 to 224.0.0.81.
    const IPV4_FRAME: [u8; 42] = [
        1, 0, 0x5e, 0, 0, 0x51, 2, 0, 0, 0, 0, 1, 8, 0, // Ethernet II
        0x45, 0xc0, 0, 28, 0, 0, 0x40, 0, 255, 114, 0, 0, 10, 0, 0, 1, 224, 0, 0, 81, // IPv4, don't fragment
        1, 2, 3, 4, 5, 6, 7, 8,
    ];

    /// 8 bytes of next header 114 from fe80::1 to ff02::7251.
    const IPV6_FRAME: [u8; 62] = [
        0x33, 0x33, 0, 0, 0x72, 0x51, 2, 0, 0, 0, 0, 1, 0x86, 0xdd, // Ethernet II
        0x60, 0, 0, 0, 0, 8, 114, 255, // IPv6
        0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, //
        0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x72, 0x51, //
        1, 2, 3, 4, 5, 6, 7, 8,
    ];

    fn root() -> bool {
        let root = nix::unistd::geteuid().is_root() && Namespace::create().is_ok();
        if !root {
            println!("skipped: needs root");
        }
        root
    }

    /// Runs `test` with a program whose map has a socket at queue 0 of the loopback interface, in a namespace.
    fn with_socket(group: &str, test: impl FnOnce(&Redirect) + Send) {
        let namespace = Namespace::create().unwrap();
        let group: IpAddr = group.parse().unwrap();
        namespace
            .run(|| {
                let redirect = Redirect::load(114, group).unwrap();
                let socket = crate::sys::xsk::tests::on_loopback();
                redirect.set(0, &socket).unwrap();
                test(&redirect);
                Ok(())
            })
            .unwrap();
    }

    fn check(redirect: &Redirect, frame: &[u8], changes: &[(&str, usize, u8, u32)]) {
        for (claim, at, value, verdict) in changes {
            let mut frame = frame.to_vec();
            frame[*at] = *value;
            assert_eq!(redirect.verdict(&frame).unwrap(), *verdict, "{claim}: byte {at} is {value:#x}");
        }
    }

    #[test]
    fn of_ipv4_only_whole_packets_of_the_protocol_to_the_group_are_redirected() {
        if !root() {
            return;
        }
        with_socket(IPV4, |redirect| {
            check(
                redirect,
                &IPV4_FRAME,
                &[
                    ("as it is", 41, 8, REDIRECT),
                    ("another MAC of destination is the stack's to mind", 5, 0x52, REDIRECT),
                    ("VLAN", 12, 0x81, PASS),
                    ("another ethertype", 13, 6, PASS),
                    ("version 6", 14, 0x65, PASS),
                    ("version 3", 14, 0x35, PASS),
                    ("a header of four words", 14, 0x44, PASS),
                    ("options", 14, 0x46, REDIRECT),
                    ("the longest header", 14, 0x4f, REDIRECT),
                    ("version 5", 14, 0x50, PASS),
                    ("a fragment and more follow", 20, 0x20, PASS),
                    ("not the first fragment", 21, 1, PASS),
                    ("nor with a large offset", 20, 0x10, PASS),
                    ("without \"don't fragment\"", 20, 0, REDIRECT),
                    ("the reserved bit", 20, 0x80, REDIRECT),
                    ("any TTL: it is to be counted", 22, 1, REDIRECT),
                    ("UDP", 23, 17, PASS),
                    ("ICMP", 23, 1, PASS),
                    ("protocol 115", 23, 115, PASS),
                    ("any source", 26, 192, REDIRECT),
                    ("225.0.0.81", 30, 225, PASS),
                    ("224.1.0.81", 31, 1, PASS),
                    ("224.0.1.81", 32, 1, PASS),
                    ("224.0.0.18", 33, 18, PASS),
                ],
            );
            assert_eq!(redirect.verdict(&IPV4_FRAME[..34]).unwrap(), REDIRECT, "nothing behind the header");
            assert_eq!(redirect.verdict(&IPV4_FRAME[..33]).unwrap(), PASS, "a header cut short");
            assert_eq!(redirect.verdict(&IPV4_FRAME[..14]).unwrap(), PASS, "no header");
            assert_eq!(redirect.verdict(&IPV6_FRAME).unwrap(), PASS, "IPv6");
            let mut tagged = IPV4_FRAME.to_vec();
            tagged.splice(12..12, [0x81, 0, 0, 7]);
            assert_eq!(redirect.verdict(&tagged).unwrap(), PASS, "in a VLAN");
        });
    }

    #[test]
    fn of_ipv6_only_the_protocol_behind_the_first_header_and_to_the_group_is_redirected() {
        if !root() {
            return;
        }
        with_socket(IPV6, |redirect| {
            check(
                redirect,
                &IPV6_FRAME,
                &[
                    ("as it is", 61, 8, REDIRECT),
                    ("another ethertype", 12, 0x88, PASS),
                    ("version 4", 14, 0x45, PASS),
                    ("version 7", 14, 0x70, PASS),
                    ("any traffic class", 14, 0x6f, REDIRECT),
                    ("fragment header", 20, 44, PASS),
                    ("hop-by-hop options", 20, 0, PASS),
                    ("UDP", 20, 17, PASS),
                    ("any hop limit: it is to be counted", 21, 1, REDIRECT),
                    ("ff05::7251", 39, 5, PASS),
                    ("another word of the group", 43, 1, PASS),
                    ("another word of the group", 47, 1, PASS),
                    ("ff02::7252", 53, 0x52, PASS),
                ],
            );
            assert_eq!(redirect.verdict(&IPV6_FRAME[..54]).unwrap(), REDIRECT, "nothing behind the header");
            assert_eq!(redirect.verdict(&IPV6_FRAME[..53]).unwrap(), PASS, "a header cut short");
            assert_eq!(redirect.verdict(&IPV4_FRAME).unwrap(), PASS, "IPv4");
        });
    }

    #[test]
    fn where_no_socket_is_bound_the_network_stack_gets_the_frame() {
        if !root() {
            return;
        }
        let redirect = Redirect::load(114, IPV4.parse().unwrap()).unwrap();
        assert_eq!(redirect.verdict(&IPV4_FRAME).unwrap(), PASS);
        let namespace = Namespace::create().unwrap();
        let filled = namespace.run(|| {
            let socket = crate::sys::xsk::tests::on_loopback();
            redirect.set(0, &socket).unwrap();
            assert_eq!(redirect.verdict(&IPV4_FRAME).unwrap(), REDIRECT);
            assert_eq!(redirect.set(QUEUES_MAX, &socket).unwrap_err().source.raw_os_error(), Some(libc::E2BIG));
            Ok(())
        });
        filled.unwrap();
        assert_eq!(redirect.verdict(&IPV4_FRAME).unwrap(), PASS, "a closed socket has left the map");
    }

    #[test]
    fn a_program_that_is_refused_is_refused_with_the_verifiers_words() {
        if !root() {
            return;
        }
        // A read behind the context.
        let error = load_program(&[load(Width::U32, R0, R1, 4096), exit()]).unwrap_err();
        assert_eq!((error.step, error.source.raw_os_error()), ("BPF_PROG_LOAD", Some(libc::EACCES)));
        let said = error.to_string();
        assert!(said.contains("invalid bpf_context access off=4096 size=4"), "{said}");
    }

    #[test]
    fn an_interface_holds_one_program_and_lets_it_go_with_its_link() {
        if !root() {
            return;
        }
        let namespace = Namespace::create().unwrap();
        let work = namespace.run(|| {
            let redirect = Redirect::load(114, IPV4.parse().unwrap()).unwrap();
            let first = redirect.attach(1, Mode::Skb).unwrap();
            assert_eq!(first.mode(), Mode::Skb);
            let second = redirect.attach(1, Mode::Skb).unwrap_err();
            assert_eq!((second.step, second.source.raw_os_error()), ("BPF_LINK_CREATE", Some(libc::EBUSY)));
            drop(first);
            drop(redirect.attach(1, Mode::Skb).unwrap());
            let native = redirect.attach(1, Mode::Native).unwrap_err();
            assert_eq!(native.source.raw_os_error(), Some(libc::EOPNOTSUPP), "the loopback interface has no driver");
            let missing = redirect.attach(4711, Mode::Skb).unwrap_err();
            assert_eq!(missing.source.raw_os_error(), Some(libc::EINVAL));
            Ok(())
        });
        work.unwrap();
    }
}
