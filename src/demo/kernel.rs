//! What the kernels of the pair really hold: raw ctnetlink dumps, and how two of them differ.
//!
//! This is the judge of the demo, and a judge must not share the defendant's glasses: nothing here comes from the rooms
//! that replicate the table, neither their parser nor their idea of a flow. It asks for all entries
//! (`IPCTNL_MSG_CT_GET` with `NLM_F_DUMP`, linux/netfilter/nfnetlink_conntrack.h) and walks the attributes itself:
//!
//! ```text
//!   nlmsghdr 16 │ nfgenmsg 4 │ attributes, each: length 2 │ type 2 │ value, padded to 4
//!   headers in host order, values big-endian
//!
//!   1 TUPLE_ORIG ┬ 1 IP ─────── 1 and 2 source, destination of IPv4, 3 and 4 of IPv6     3 STATUS   8 MARK   18 ZONE
//!   2 TUPLE_REPLY├ 2 PROTO ──── 1 number, 2 and 3 ports, 4..6 ICMP id, type, code, 7..9 those of ICMPv6
//!                └ 3 ZONE       4 PROTOINFO ─ 1 TCP ─ 1 state
//! ```

use crate::sys::namespace::Namespace;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

/// Bytes of the receive buffer; the kernel never makes a dump's datagram longer than 32 KiB.
const BUFFER_LENGTH: usize = 64 << 10;
/// Seconds that the kernel may take for the next datagram of a dump.
const RECEIVE_TIMEOUT_S: i64 = 5;
/// How often a dump is begun anew because the table was resized meanwhile.
const ATTEMPTS_MAX: u32 = 5;
/// Differences that are told in words.
pub const EXAMPLES_MAX: usize = 5;
/// Entries of one dump: more than this many are refused rather than kept in memory.
const ENTRIES_MAX: usize = 1 << 24;

/// The status bits (`enum ip_conntrack_status`, linux/netfilter/nf_conntrack_common.h) that a copy must share.
pub mod status {
    /// A packet was seen in the reply direction.
    pub const SEEN_REPLY: u32 = 1 << 1;
    /// The entry is kept when the table is full.
    pub const ASSURED: u32 = 1 << 2;
    /// The source is translated.
    pub const SRC_NAT: u32 = 1 << 4;
    /// The destination is translated.
    pub const DST_NAT: u32 = 1 << 5;
    /// All of these: what [`compare`](super::compare) looks at. The bits of the NAT engine's own progress are not among
    /// them.
    pub const COMPARED: u32 = SEEN_REPLY | ASSURED | SRC_NAT | DST_NAT;
}

/// One direction of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// Where its packets come from.
    pub source: IpAddr,
    /// Where they go.
    pub destination: IpAddr,
    /// IANA protocol number.
    pub protocol: u8,
    /// Port; for ICMP the identifier; 0 where the protocol has none.
    pub source_port: u16,
    /// Port; for ICMP `type << 8 | code`; 0 where the protocol has none.
    pub destination_port: u16,
    /// Conntrack zone in which this direction is looked up.
    pub zone: u16,
}

/// One entry of a kernel's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The direction of the first packet; with its zone it names the entry.
    pub original: Tuple,
    /// The direction of the answers.
    pub reply: Tuple,
    /// State of TCP, DCCP or SCTP as the kernel numbers it; `None` for protocols without.
    pub state: Option<u8>,
    /// All status bits.
    pub status: u32,
    /// Connection mark.
    pub mark: u32,
}

/// How the backup's table differs from the master's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// Entries that only the master has.
    pub missing: u64,
    /// Entries that only the backup has.
    pub extra: u64,
    /// Same tuple and zone, but another protocol state, status (seen-reply, assured, NAT), reply tuple or mark.
    pub stale: u64,
    /// The first few in words.
    pub examples: Vec<String>,
}

/// All entries of the namespace's kernel table, in the kernel's order.
///
/// # Errors
/// The operating system's error (no CAP_NET_ADMIN in the namespace, no ctnetlink in the kernel); `InvalidData` for an
/// answer that makes no sense; `Other` if the table was resized again and again.
pub fn dump(namespace: &Namespace) -> io::Result<Vec<Entry>> {
    namespace.run(|| {
        for _ in 0..ATTEMPTS_MAX {
            if let Some(entries) = dump_once()? {
                return Ok(entries);
            }
        }
        Err(io::Error::other("the kernel's table is resized faster than it can be read"))
    })
}

/// How many entries the kernel counts in the namespace (`nf_conntrack_count`), those not yet
/// confirmed or already dying included.
///
/// # Errors
/// The operating system's error (connection tracking is not in the kernel); `InvalidData`.
pub fn count(namespace: &Namespace) -> io::Result<u64> {
    namespace.run(|| {
        let text = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count")?;
        text.trim().parse().map_err(|_| invalid("nf_conntrack_count is no number"))
    })
}

/// Compares two tables. Each entry counts once; time-outs do not count, as every packet changes them.
pub fn compare(master: &[Entry], backup: &[Entry]) -> Difference {
    let ours: HashMap<Tuple, &Entry> = master.iter().map(|entry| (entry.original, entry)).collect();
    let theirs: HashMap<Tuple, &Entry> = backup.iter().map(|entry| (entry.original, entry)).collect();
    let mut difference = Difference::default();
    for (tuple, entry) in &ours {
        match theirs.get(tuple) {
            None => difference.missing += 1,
            Some(copy) if !entry.is_copied_by(copy) => difference.stale += 1,
            Some(_) => {}
        }
    }
    difference.extra = theirs.keys().filter(|tuple| !ours.contains_key(tuple)).count() as u64;
    let lost = master.iter().filter_map(|entry| match theirs.get(&entry.original) {
        None => Some(format!("missing: {entry}")),
        Some(copy) if !entry.is_copied_by(copy) => Some(format!("stale: {entry}, on the backup {copy}")),
        Some(_) => None,
    });
    let grown = backup.iter().filter(|entry| !ours.contains_key(&entry.original));
    difference.examples = lost.chain(grown.map(|entry| format!("extra: {entry}"))).take(EXAMPLES_MAX).collect();
    difference
}

impl Entry {
    fn is_copied_by(&self, copy: &Entry) -> bool {
        self.state == copy.state
            && self.status & status::COMPARED == copy.status & status::COMPARED
            && self.reply == copy.reply
            && self.mark == copy.mark
    }
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tuple { source, destination, protocol, source_port, destination_port, zone } = self;
        write!(f, "proto {protocol} {source}:{source_port} > {destination}:{destination_port} zone {zone}")
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry { original, reply, state, status, mark } = self;
        write!(f, "[{original} | {reply} | state ")?;
        match state {
            Some(state) => write!(f, "{state}")?,
            None => write!(f, "-")?,
        }
        write!(f, " status {status:#x} mark {mark:#x}]")
    }
}

// Numbers of linux/netlink.h, linux/netfilter/nfnetlink.h and linux/netfilter/nfnetlink_conntrack.h.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;
const NLM_F_REQUEST: u16 = 0x01;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;
const CT_NEW: u16 = 0x100;
const CT_GET: u16 = 0x101;
const HEADER_LENGTH: usize = 16;
const NFGENMSG_LENGTH: usize = 4;
const AF_UNSPEC: u8 = 0;
/// The two high bits of an attribute's type are flags.
const TYPE_MASK: u16 = 0x3fff;

/// What a datagram says of the dump as a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Progress {
    /// It was the last one.
    done: bool,
    /// The table was resized while it was read: some entries may have been left out.
    interrupted: bool,
}

/// One dump; `None` if it was interrupted.
fn dump_once() -> io::Result<Option<Vec<Entry>>> {
    let netlink =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter)?;
    setsockopt(&netlink, sockopt::ReceiveTimeout, &TimeVal::seconds(RECEIVE_TIMEOUT_S))?;
    send(netlink.as_raw_fd(), &request(), MsgFlags::empty())?;
    let mut buffer = vec![0; BUFFER_LENGTH];
    let (mut entries, mut interrupted) = (Vec::new(), false);
    loop {
        // With MSG_TRUNC the length is that of the datagram, whatever fitted.
        let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC)?;
        let datagram = buffer.get(..length).ok_or_else(|| invalid("a datagram longer than 64 KiB"))?;
        let progress = parse(datagram, &mut entries)?;
        interrupted |= progress.interrupted;
        if progress.done {
            return Ok((!interrupted).then_some(entries));
        }
        if entries.len() > ENTRIES_MAX {
            return Err(invalid("a table without an end"));
        }
    }
}

/// Asks for a dump of all entries, of every family.
fn request() -> [u8; HEADER_LENGTH + NFGENMSG_LENGTH] {
    const LENGTH: usize = HEADER_LENGTH + NFGENMSG_LENGTH;
    let mut request = [0; LENGTH];
    request[..4].copy_from_slice(&(LENGTH as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&CT_GET.to_ne_bytes());
    request[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    request[HEADER_LENGTH] = AF_UNSPEC;
    request
}

/// Takes the entries out of one datagram of a dump.
fn parse(mut datagram: &[u8], entries: &mut Vec<Entry>) -> io::Result<Progress> {
    let mut progress = Progress::default();
    while !datagram.is_empty() {
        let header = datagram.get(..HEADER_LENGTH).ok_or_else(|| invalid("a cut netlink header"))?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let flags = u16::from_ne_bytes([header[6], header[7]]);
        let body = datagram.get(HEADER_LENGTH..length).ok_or_else(|| invalid("a netlink message of a wrong length"))?;
        progress.interrupted |= flags & NLM_F_DUMP_INTR != 0;
        match kind {
            CT_NEW => entries.push(entry(body).ok_or_else(|| invalid("an entry that cannot be read"))?),
            NLMSG_DONE | NLMSG_ERROR => {
                ended(body)?;
                return Ok(Progress { done: true, ..progress });
            }
            NLMSG_OVERRUN => return Err(invalid("the kernel has lost a part of the dump")),
            _ => return Err(invalid("a message of another kind")),
        }
        datagram = datagram.get(padded(length)..).unwrap_or_default();
    }
    Ok(progress)
}

/// The end of a dump: its body begins with zero or a negative error number.
fn ended(body: &[u8]) -> io::Result<()> {
    let code = body.first_chunk().ok_or_else(|| invalid("an end without a code"))?;
    match i32::from_ne_bytes(*code) {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
    }
}

/// Reads one entry: what follows the netlink header.
fn entry(body: &[u8]) -> Option<Entry> {
    let attributes = body.get(NFGENMSG_LENGTH..)?;
    let (mut original, mut reply) = (None, None);
    let (mut state, mut status, mut mark, mut zone) = (None, 0, 0, None);
    for attribute in Attributes(attributes) {
        let (kind, value) = attribute?;
        match kind {
            1 => original = Some(tuple(value)?),
            2 => reply = Some(tuple(value)?),
            3 => status = be32(value)?,
            4 => state = protocol_state(value)?,
            8 => mark = be32(value)?,
            18 => zone = Some(be16(value)?),
            _ => {}
        }
    }
    let (mut original, mut reply) = (original?, reply?);
    if let Some(zone) = zone {
        // A zone of both directions stands beside the tuples, that of one direction within its tuple.
        (original.zone, reply.zone) = (zone, zone);
    }
    Some(Entry { original, reply, state, status, mark })
}

/// Reads `CTA_TUPLE_ORIG` or `CTA_TUPLE_REPLY`.
fn tuple(value: &[u8]) -> Option<Tuple> {
    let (mut source, mut destination, mut protocol, mut zone) = (None, None, None, 0);
    let (mut source_port, mut destination_port, mut icmp_kind, mut icmp_code) = (0, 0, 0, 0);
    for attribute in Attributes(value) {
        match attribute? {
            (1, value) => {
                for attribute in Attributes(value) {
                    match attribute? {
                        (1, value) => source = Some(IpAddr::V4(Ipv4Addr::from(be32(value)?))),
                        (2, value) => destination = Some(IpAddr::V4(Ipv4Addr::from(be32(value)?))),
                        (3, value) => source = Some(IpAddr::V6(be128(value)?)),
                        (4, value) => destination = Some(IpAddr::V6(be128(value)?)),
                        _ => {}
                    }
                }
            }
            (2, value) => {
                for attribute in Attributes(value) {
                    match attribute? {
                        (1, value) => protocol = Some(*value.first()?),
                        (2 | 4 | 7, value) => source_port = be16(value)?,
                        (3, value) => destination_port = be16(value)?,
                        (5 | 8, value) => icmp_kind = u16::from(*value.first()?),
                        (6 | 9, value) => icmp_code = u16::from(*value.first()?),
                        _ => {}
                    }
                }
            }
            (3, value) => zone = be16(value)?,
            _ => {}
        }
    }
    let destination_port = destination_port | icmp_kind << 8 | icmp_code;
    Some(Tuple { source: source?, destination: destination?, protocol: protocol?, source_port, destination_port, zone })
}

/// Reads `CTA_PROTOINFO`: one nest per protocol (1 TCP, 2 DCCP, 3 SCTP), in which attribute 1 is the state of each. The
/// outer option is for bytes that make no sense, the inner one for a protocol that is not known.
#[expect(clippy::option_option, reason = "two different absences")]
fn protocol_state(value: &[u8]) -> Option<Option<u8>> {
    let mut state = None;
    for attribute in Attributes(value) {
        if let (1..=3, value) = attribute? {
            for attribute in Attributes(value) {
                if let (1, value) = attribute? {
                    state = Some(*value.first()?);
                }
            }
        }
    }
    Some(state)
}

/// Walks netlink attributes: type and value of each, `None` once where the bytes end in the middle of one.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = Option<(u16, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let rest = std::mem::take(&mut self.0);
        let [a, b, c, d, ..] = *rest else { return Some(None) };
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let Some(value) = rest.get(4..length) else { return Some(None) };
        self.0 = rest.get(padded(length)..).unwrap_or_default();
        Some(Some((u16::from_ne_bytes([c, d]) & TYPE_MASK, value)))
    }
}

fn padded(length: usize) -> usize {
    length.saturating_add(3) & !3
}

fn be32(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

fn be128(value: &[u8]) -> Option<Ipv6Addr> {
    Some(Ipv6Addr::from_octets(*value.first_chunk()?))
}

fn be16(value: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(value.try_into().ok()?))
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A datagram of a real dump (Linux 6.18): a connection to 127.0.0.1:443 that is redirected to port 80, in zone 5
    /// and with mark 7, and a ping.
    const DATAGRAM: &str = "\
        dc00000000012200000000004d7a0000020000003400018014000180080001007f000001080002007f0000011c0002800500\
        01000600000006000200b36a00000600030001bb00003400028014000180080001007f000001080002007f0000011c000280\
        0500010006000000060002000050000006000300b36a0000060012000005000008000300000001ae08000800000000070800\
        0c0050a6640608000b00000000010800070000069780300004802c0001800500010003000000050002000a00000005000300\
        0a00000006000400230000000600050023000000b400000000012200000000004d7a0000020000003c000180140001800800\
        01007f000001080002007f000001240002800500010001000000060004001234000005000500080000000500060000000000\
        3c00028014000180080001007f000001080002007f0000012400028005000100010000000600040012340000050005000000\
        00000500060000000000080003000000018a080008000000000708000c0069fc56c608000b0000000001080007000000001e";
    const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn bytes(hexadecimal: &str) -> Vec<u8> {
        let digits = hexadecimal.as_bytes().chunks(2);
        digits.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    fn tcp(source_port: u16, destination_port: u16, zone: u16) -> Tuple {
        Tuple { source: HOST, destination: HOST, protocol: 6, source_port, destination_port, zone }
    }

    fn connection(port: u16) -> Entry {
        Entry { original: tcp(port, 80, 0), reply: tcp(80, port, 0), state: Some(3), status: 0x0e, mark: 0 }
    }

    #[test]
    fn a_real_dump_is_read() {
        let mut entries = Vec::new();
        let progress = parse(&bytes(DATAGRAM), &mut entries).unwrap();
        assert_eq!(progress, Progress { done: false, interrupted: false });
        let redirected =
            Entry { original: tcp(45930, 443, 5), reply: tcp(80, 45930, 5), state: Some(3), status: 0x1ae, mark: 7 };
        let ping = Tuple {
            source: HOST,
            destination: HOST,
            protocol: 1,
            source_port: 0x1234,
            destination_port: 0x0800,
            zone: 0,
        };
        let pong = Tuple { destination_port: 0, ..ping };
        assert_eq!(entries, [redirected, Entry { original: ping, reply: pong, state: None, status: 0x18a, mark: 7 }]);
    }

    #[test]
    fn a_zone_of_one_direction_is_that_of_its_tuple() {
        let tuple_in_zone_9 = bytes(
            "14000180080001000a000001080002000a000002\
             0c0002800500010011000000\
             0600030000090000",
        );
        assert_eq!(
            tuple(&tuple_in_zone_9),
            Some(Tuple {
                source: IpAddr::from([10, 0, 0, 1]),
                destination: IpAddr::from([10, 0, 0, 2]),
                protocol: 17,
                source_port: 0,
                destination_port: 0,
                zone: 9
            })
        );
    }

    #[test]
    fn the_end_of_a_dump_is_found_and_an_error_in_its_place_is_returned() {
        let end = bytes("1400000003000200000000004d7a000000000000");
        assert_eq!(parse(&end, &mut Vec::new()).unwrap(), Progress { done: true, interrupted: false });
        let resized = bytes("1400000003001200000000004d7a000000000000");
        assert_eq!(parse(&resized, &mut Vec::new()).unwrap(), Progress { done: true, interrupted: true });
        // -EPERM, as the kernel says it to who lacks CAP_NET_ADMIN.
        let refused = bytes("1400000002000000000000004d7a0000ffffffff");
        assert_eq!(parse(&refused, &mut Vec::new()).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        let lost = bytes("1400000004000000000000004d7a000000000000");
        assert!(parse(&lost, &mut Vec::new()).is_err());
    }

    #[test]
    fn no_cut_of_a_real_dump_is_taken_for_a_whole_one() {
        let whole = bytes(DATAGRAM);
        for length in 1..whole.len() {
            let result = parse(&whole[..length], &mut Vec::new());
            // The first message alone is one.
            assert_eq!(result.is_ok(), length == 220, "{length}");
        }
    }

    #[test]
    fn the_request_is_a_dump_of_every_family() {
        assert_eq!(request(), [20, 0, 0, 0, 1, 1, 1, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    /// What the kernel says of `ping 2001:db8::2` from `::1` there, put together by hand from the header's numbers.
    #[test]
    fn a_tuple_of_ipv6_has_addresses_of_sixteen_bytes_and_icmpv6_its_own_numbers() {
        let ping = bytes(
            "2c00018014000300 20010db8000000000000000000000001 14000400 20010db8000000000000000000000002\
             24000280 0500010 03a000000 06000700 12340000 05000800 80000000 05000900 00000000"
                .replace(' ', "")
                .as_str(),
        );
        let tuple = tuple(&ping).unwrap();
        assert_eq!(
            (tuple.source.to_string(), tuple.destination.to_string()),
            ("2001:db8::1".into(), "2001:db8::2".into())
        );
        assert_eq!((tuple.protocol, tuple.source_port, tuple.destination_port), (58, 0x1234, 0x8000));
    }

    #[test]
    fn what_one_has_and_the_other_has_not_is_missing_or_extra() {
        let difference = compare(&[connection(1), connection(2)], &[connection(2), connection(3), connection(4)]);
        assert_eq!((difference.missing, difference.extra, difference.stale), (1, 2, 0));
        assert_eq!(
            difference.examples,
            [
                "missing: [proto 6 127.0.0.1:1 > 127.0.0.1:80 zone 0 | proto 6 127.0.0.1:80 > 127.0.0.1:1 zone 0 | \
                 state 3 status 0xe mark 0x0]",
                "extra: [proto 6 127.0.0.1:3 > 127.0.0.1:80 zone 0 | proto 6 127.0.0.1:80 > 127.0.0.1:3 zone 0 | \
                 state 3 status 0xe mark 0x0]",
                "extra: [proto 6 127.0.0.1:4 > 127.0.0.1:80 zone 0 | proto 6 127.0.0.1:80 > 127.0.0.1:4 zone 0 | \
                 state 3 status 0xe mark 0x0]",
            ]
        );
    }

    #[test]
    fn another_value_of_the_same_entry_is_stale() {
        let entry = connection(1);
        for stale in [
            Entry { state: Some(7), ..entry },
            Entry { state: None, ..entry },
            Entry { status: 0x0c, ..entry },
            Entry { status: 0x0a, ..entry },
            Entry { status: 0x1e, ..entry },
            Entry { status: 0x2e, ..entry },
            Entry { mark: 1, ..entry },
            Entry { reply: tcp(8080, 1, 0), ..entry },
            Entry { reply: tcp(80, 1, 5), ..entry },
        ] {
            let difference = compare(&[entry], &[stale]);
            assert_eq!((difference.missing, difference.extra, difference.stale), (0, 0, 1), "{stale:?}");
            assert!(difference.examples[0].starts_with("stale: "), "{difference:?}");
        }
        // The NAT engine's own progress, and helpers, are no part of the comparison.
        assert_eq!(compare(&[entry], &[Entry { status: 0x218e, ..entry }]), Difference::default());
    }

    #[test]
    fn the_same_tuple_in_another_zone_is_another_entry() {
        let entry = connection(1);
        let zoned = Entry { original: tcp(1, 80, 5), ..entry };
        let difference = compare(&[entry], &[zoned]);
        assert_eq!((difference.missing, difference.extra, difference.stale), (1, 1, 0));
    }

    #[test]
    fn five_examples_are_enough() {
        let many: Vec<Entry> = (1..=100).map(connection).collect();
        let difference = compare(&many, &[]);
        assert_eq!((difference.missing, difference.examples.len()), (100, 5));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = parse(&bytes, &mut Vec::new());
            let _ = entry(&bytes);
        }

        #[test]
        fn a_damaged_dump_never_panics(damage in proptest::collection::vec((0..400_usize, any::<u8>()), 1..8)) {
            let mut datagram = bytes(DATAGRAM);
            for (position, value) in damage {
                datagram[position] = value;
            }
            let mut entries = Vec::new();
            let _ = parse(&datagram, &mut entries);
            prop_assert!(entries.len() <= 20);
        }
    }
}
