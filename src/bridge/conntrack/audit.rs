//! What the kernel's connection table really holds, read back for an audit: a dump on a socket of its own, one datagram
//! (32 KiB, about 140 entries) a call, so that neither the events of the source nor the loop wait for it.
//!
//! ```text
//! begin   new socket, request ─ builds 1     read: receive 1 ─ builds 2     …     receive the end: closed
//! ```
//!
//! The kernel is one datagram ahead: what it tells may be older than what the sink has written since the last call.
//! Whoever compares has to leave out what was written since the audit began.
//!
//! What a sink makes of a flow is not all of the flow. Compared is what can be written and read back: translation, mark,
//! the status bits that user space can set, the state of TCP, labels and helper; and the time-out only where the kernel
//! would drop the entry long before its time. Window scales and TCP flags are left out: the kernel keeps them in some
//! entries only. But one: an entry that the kernel made itself, when this node was master, judges packets by sequence windows
//! that it has seen then. On a backup they are of the past, and with the role it would call everything invalid. So it is made
//! a copy like the others.

use super::codec::{self, STATUS_SETTABLE, TCP_BE_LIBERAL};
use super::{Filter, OpenError};
use crate::bridge::{Inspector, Piece, Room};
use crate::flow::{Flow, protocol};
use crate::sys::netlink::{MessageWriter, Messages, NETLINK_NETFILTER, NetlinkSocket, flags};
use crate::sys::socket;
use nix::errno::Errno;
use std::collections::HashSet;
use std::net::IpAddr;
use std::{fs, io};

/// Receive buffer of the socket: the kernel builds one datagram ahead.
const BUFFER: usize = 256 * 1024;

/// Sizes of the table, of the network namespace of the thread that reads them.
const ROOM: [&str; 3] = [
    "/proc/sys/net/netfilter/nf_conntrack_max",
    "/proc/sys/net/netfilter/nf_conntrack_count",
    "/proc/sys/net/netfilter/nf_conntrack_buckets",
];

/// The longest time-out that a kernel keeps: `INT_MAX` jiffies, of which there are at most 1000 in a second.
const TIMEOUT_MAX: u32 = i32::MAX as u32 / 1000;

/// Seconds that a clock may be behind before anybody calls it late.
const TIMEOUT_SLACK: u32 = 5;

/// Reads back the kernel's connection table.
#[derive(Debug, Default)]
pub struct ConntrackInspector {
    filter: Filter,
    dump: Option<NetlinkSocket>,
    torn: bool,
    own: HashSet<IpAddr>,
}

impl ConntrackInspector {
    /// Looks at the connection table in the network namespace of the calling thread, which is to be the one that goes on
    /// to use this, with the eyes of a source that has this filter.
    ///
    /// # Errors
    /// [`OpenError`] says what is missing and how to get it.
    pub fn open(filter: Filter) -> Result<Self, OpenError> {
        let inspector = ConntrackInspector { filter, ..ConntrackInspector::default() };
        match inspector.room() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(OpenError::MissingModule),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(inspector),
        }
    }

    fn read_datagram(&mut self, found: &mut dyn FnMut(Flow)) -> io::Result<Piece> {
        let dump = self.dump.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let Some(datagram) = dump.receive().map_err(io::Error::other)? else { return Ok(Piece::More) };
        for message in Messages::new(datagram) {
            let message = message.map_err(io::Error::other)?;
            self.torn |= message.flags & flags::DUMP_INTERRUPTED != 0;
            match message.error_code() {
                Some(0) if self.torn => return Ok(Piece::Torn),
                Some(0) => return Ok(Piece::Complete),
                Some(code) => return Err(Errno::from_raw(code).into()),
                // What cannot be read is no flow to the source either.
                None => {
                    let flow = codec::decode(&message).ok().map(|decoded| decoded.flow);
                    let judges = codec::judges_by_windows(&message);
                    let flow = flow.map(|flow| if judges { flow } else { as_copied(flow) });
                    flow.into_iter().filter(|flow| self.filter.matches(flow)).for_each(&mut *found);
                }
            }
        }
        Ok(Piece::More)
    }
}

impl Inspector for ConntrackInspector {
    fn room(&self) -> io::Result<Room> {
        let number = |path| -> io::Result<u64> {
            fs::read_to_string(path)?.trim().parse().map_err(|_| io::Error::other(format!("{path} is no number")))
        };
        let [capacity, entries, buckets] = ROOM.map(number);
        Ok(Room { capacity: capacity?, entries: entries?, buckets: buckets? })
    }

    fn begin(&mut self) -> io::Result<()> {
        self.stop();
        self.own = socket::own_addresses()?;
        let dump = NetlinkSocket::open(NETLINK_NETFILTER, BUFFER)?;
        let mut writer = MessageWriter::new();
        codec::write_dump(&mut writer, 1, |_| {});
        dump.send(writer.bytes())?;
        (self.dump, self.torn) = (Some(dump), false);
        Ok(())
    }

    fn read(&mut self, found: &mut dyn FnMut(Flow)) -> io::Result<Piece> {
        let piece = self.read_datagram(found);
        if !matches!(piece, Ok(Piece::More)) {
            self.stop();
        }
        piece
    }

    fn stop(&mut self) {
        // A dump that has begun cannot be stopped but by closing.
        self.dump = None;
    }

    fn set_filter(&mut self, filter: &Filter) {
        self.stop();
        self.filter = filter.clone();
    }

    fn agrees(&self, held: &Flow, wanted: &Flow) -> bool {
        agrees(held, wanted)
    }

    fn takes(&self, wanted: &Flow) -> bool {
        codec::check_flow(wanted).is_ok() && self.filter.matches(wanted)
    }

    fn is_local(&self, held: &Flow) -> bool {
        ends_here(held, &self.own)
    }
}

/// Whether one end of an entry, before or behind translation, is a machine with these addresses.
pub(super) fn ends_here(flow: &Flow, own: &HashSet<IpAddr>) -> bool {
    let ends = [flow.key.source, flow.key.destination, flow.replies_from().address, flow.replies_to().address];
    ends.iter().any(|end| own.contains(end) || ends_anywhere(*end))
}

/// Whether what is sent to the address ends on whatever machine hears it.
fn ends_anywhere(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    broadcast || address.is_multicast() || address.is_unspecified() || address.is_loopback()
}

/// The entry as one that does not judge by sequence windows.
fn as_copied(mut flow: Flow) -> Flow {
    if flow.key.protocol == protocol::TCP {
        let tcp = flow.tcp.get_or_insert_default();
        tcp.flags_original |= TCP_BE_LIBERAL;
        tcp.flags_reply |= TCP_BE_LIBERAL;
    }
    flow
}

/// Whether the kernel judges packets of the entry by windows that it has seen itself.
fn judges_by_windows(held: &Flow) -> bool {
    let copied = held.tcp.is_some_and(|tcp| tcp.flags_original & tcp.flags_reply & TCP_BE_LIBERAL != 0);
    held.key.protocol == protocol::TCP && !copied
}

fn agrees(held: &Flow, wanted: &Flow) -> bool {
    let wanted = &wanted.clone().canonical();
    let translation = |flow: &Flow| (flow.reply_source, flow.reply_destination);
    let value = |flow: &Flow| (flow.status & STATUS_SETTABLE, flow.mark, flow.state);
    // The kernel may give an entry labels or a helper by itself.
    let labels = wanted.attributes.labels();
    let helper = wanted.attributes.helper();
    translation(held) == translation(wanted)
        && value(held) == value(wanted)
        && (labels.is_none() || labels == held.attributes.labels())
        && (helper.is_none() || helper == held.attributes.helper())
        && !dies_early(held.timeout, wanted.timeout)
        && !judges_by_windows(held)
}

/// Whether an entry has less than half of the time that it should have: both in seconds.
fn dies_early(held: u32, wanted: u32) -> bool {
    held.saturating_mul(2).saturating_add(TIMEOUT_SLACK) < wanted.min(TIMEOUT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Endpoint, FlowKey, TcpInfo, Zone, attribute, status};

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn flow() -> Flow {
        let key = FlowKey {
            source: IpAddr::from([198, 51, 100, 1]),
            destination: address(10),
            source_port: 40000,
            destination_port: 80,
            protocol: 6,
            zone: Zone::DEFAULT,
        };
        Flow { state: 3, status: status::SEEN_REPLY | status::ASSURED, timeout: 100, mark: 5, ..Flow::new(key) }
    }

    #[test]
    fn what_a_sink_writes_is_compared_and_what_it_cannot_write_is_not() {
        let same = |held: Flow| agrees(&as_copied(held), &flow());
        assert!(same(flow()));
        assert!(same(Flow { status: flow().status | status::CONFIRMED | status::DST_NAT_DONE, ..flow() }));
        assert!(!same(Flow { status: status::SEEN_REPLY, ..flow() }));
        assert!(!same(Flow { status: flow().status | 1 << 10, ..flow() }));
        assert!(!same(Flow { mark: 6, ..flow() }));
        assert!(!same(Flow { state: 4, ..flow() }));
        let elsewhere = Some(Endpoint { address: address(99), port: 80 });
        assert!(!same(Flow { reply_source: elsewhere, ..flow() }));
        assert!(!same(Flow { reply_destination: elsewhere, ..flow() }));
    }

    #[test]
    fn what_the_rules_leave_out_is_neither_read_nor_missed() {
        let mut inspector = ConntrackInspector::default();
        assert!(inspector.takes(&flow()));
        inspector.set_filter(&Filter::new(&["not dport 80".parse().unwrap()]));
        assert!(!inspector.takes(&flow()));
        assert!(inspector.takes(&Flow { key: FlowKey { destination_port: 81, ..flow().key }, ..flow() }));
    }

    #[test]
    fn labels_and_helper_count_where_the_flow_has_them() {
        for (kind, data, other) in
            [(attribute::LABELS, &[1; 16][..], &[2; 16][..]), (attribute::HELPER, b"ftp", b"sip")]
        {
            let with = |data| {
                let mut flow = flow();
                flow.attributes.set(kind, data).unwrap();
                flow
            };
            let held = |data| as_copied(with(data));
            assert!(agrees(&held(data), &with(data)) && agrees(&held(data), &flow()));
            assert!(!agrees(&as_copied(flow()), &with(data)) && !agrees(&held(other), &with(data)));
        }
    }

    #[test]
    fn a_clock_counts_only_if_it_has_less_than_half_of_the_time() {
        assert!(!dies_early(48, 101));
        assert!(dies_early(47, 100));
        assert!(!dies_early(0, 5));
        assert!(dies_early(0, 6));
        assert!(!dies_early(180, 10));
        assert!(!dies_early(2_147_483, u32::MAX), "no kernel keeps more");
        assert!(!agrees(&as_copied(Flow { timeout: 47, ..flow() }), &flow()));
    }

    #[test]
    fn an_entry_that_the_kernel_made_itself_is_not_what_a_sink_writes() {
        assert!(agrees(&as_copied(flow()), &flow()));
        assert!(!agrees(&flow(), &flow()), "it judges by the windows of a mastership that is over");
        let one_way = TcpInfo { flags_original: 0x08, ..TcpInfo::default() };
        assert!(!agrees(&Flow { tcp: Some(one_way), ..flow() }, &flow()));
        let udp = Flow { key: FlowKey { protocol: 17, ..flow().key }, state: 0, ..flow() };
        assert!(agrees(&udp, &udp), "who has no windows judges by none");
    }

    #[test]
    fn an_end_of_this_machine_makes_an_entry_local_before_and_behind_translation() {
        let inspector = ConntrackInspector { own: HashSet::from([address(1)]), ..ConntrackInspector::default() };
        let local = |flow: &Flow| inspector.is_local(flow);
        assert!(!local(&flow()));
        let to = |destination| Flow { key: FlowKey { destination, ..flow().key }, ..flow() };
        assert!(local(&to(address(1))));
        assert!(local(&Flow { key: FlowKey { source: address(1), ..flow().key }, ..flow() }));
        let own = Some(Endpoint { address: address(1), port: 80 });
        assert!(local(&Flow { reply_source: own, ..flow() }) && local(&Flow { reply_destination: own, ..flow() }));
        for anywhere in [[255, 255, 255, 255], [224, 0, 0, 81], [0, 0, 0, 0], [127, 0, 0, 1]] {
            assert!(local(&to(IpAddr::from(anywhere))), "{anywhere:?}");
        }
    }
}
