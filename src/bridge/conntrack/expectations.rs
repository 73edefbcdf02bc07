//! What flows expect: asked from the kernel in one go, and kept by master while it is pending.
//!
//! An expectation travels as an attribute of its master. So whenever one comes or goes, the master is asked for and
//! handed over anew with all that it still expects:
//!
//! ```text
//! EXP NEW, EXP DESTROY ──▶ Pending ──▶ the master is asked for ──▶ Upsert(master with attribute 9)
//! dump of expectations ──▶ Pending, replaced                      before each dump of the table, which names all masters
//! ```
//!
//! The dump of expectations is read to its end at once (there are as many as `nf_conntrack_expect_max`, some thousands
//! at most). Events that are still unread then are worked off in their order afterwards, and end where the truth is.

use super::codec::{self, DecodedExpectation};
use super::{OpenError, Refusals};
use crate::flow::{Expectation, Flow, FlowKey, attribute, write_expectations};
use crate::sys::netlink::{MessageWriter, Messages, NETLINK_NETFILTER, NetlinkSocket, control};
use nix::errno::Errno;
use std::collections::HashMap;
use std::io;

/// Most expectations that are kept; what is beyond is counted and left out.
const EXPECTATIONS_MAX: usize = 65_536;

/// Most expectations of one master; an attribute holds 9 at most.
const EXPECTATIONS_PER_MASTER: usize = 32;

/// Most datagrams of one dump: 32 KiB each.
const DATAGRAMS_MAX: usize = 4096;

/// Receive buffer: the kernel builds one datagram ahead.
const RECEIVE_BUFFER: usize = 256 * 1024;

/// Asks the kernel for expectations.
#[derive(Debug)]
pub(super) struct ExpectationReader {
    socket: NetlinkSocket,
    writer: MessageWriter,
    sequence: u32,
}

impl ExpectationReader {
    pub(super) fn open() -> Result<Self, OpenError> {
        let socket = NetlinkSocket::open(NETLINK_NETFILTER, RECEIVE_BUFFER).map_err(OpenError::from_io)?;
        Ok(ExpectationReader { socket, writer: MessageWriter::new(), sequence: 0 })
    }

    /// All expectations of `master`, or all that there are. A master that is not there has none.
    ///
    /// # Errors
    /// The operating system's error.
    pub(super) fn read(
        &mut self,
        master: Option<&FlowKey>,
        refusals: &mut Refusals,
        mut take: impl FnMut(DecodedExpectation),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        codec::write_expectation_dump(&mut self.writer, self.sequence, master);
        let sent = self.socket.send(self.writer.bytes());
        self.writer.clear();
        sent?;
        for _ in 0..DATAGRAMS_MAX {
            // The kernel answers inside of `send` and `recv`: nothing waiting means nothing more. It says no word at
            // all about a master that cannot have expectations.
            let Some(datagram) = self.socket.receive().map_err(io::Error::other)? else { return Ok(()) };
            for message in Messages::new(datagram) {
                let message = message.map_err(io::Error::other)?;
                if message.sequence != self.sequence {
                    continue;
                }
                match (message.kind, message.error_code()) {
                    (control::DONE, Some(0)) | (_, Some(libc::ENOENT)) => return Ok(()),
                    (_, Some(code)) => return Err(Errno::from_raw(code).into()),
                    (_, None) => match codec::decode_expectation(&message) {
                        Ok(decoded) => take(decoded),
                        Err(refusal) => refusals.count(refusal),
                    },
                }
            }
        }
        Err(io::Error::other("the kernel's list of expectations has no end"))
    }
}

/// What is expected, by master.
#[derive(Default, Debug)]
pub(super) struct Pending {
    by_master: HashMap<FlowKey, Vec<Expectation>>,
    total: usize,
    /// Expectations that were left out, because there were too many, or too many for an attribute.
    pub(super) left_out: u64,
}

impl Pending {
    /// Takes what the kernel tells, and says whose expectations changed, if any did.
    pub(super) fn take(&mut self, told: DecodedExpectation) -> Option<FlowKey> {
        let key = codec::master_key(&told.master);
        if told.gone { self.remove(&key, &told.expectation) } else { self.add(key, told.expectation) }.then_some(key)
    }

    /// Expectations that are kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.total
    }

    /// Forgets a master that is gone.
    pub(super) fn forget(&mut self, master: &FlowKey) {
        if self.by_master.is_empty() {
            return;
        }
        self.total -= self.by_master.remove(master).map_or(0, |gone| gone.len());
    }

    /// Begins anew with what the kernel holds now. One that was known keeps its time-out as first told, so that its
    /// master does not look changed.
    pub(super) fn reload(&mut self, reader: &mut ExpectationReader, refusals: &mut Refusals) -> io::Result<()> {
        let known = std::mem::take(&mut self.by_master);
        self.total = 0;
        reader.read(None, refusals, |mut told| {
            let key = codec::master_key(&told.master);
            let same = known.get(&key).and_then(|list| list.iter().find(|old| old.same_value(&told.expectation)));
            told.expectation.timeout = same.map_or(told.expectation.timeout, |old| old.timeout);
            self.add(key, told.expectation);
        })
    }

    /// Gives a flow the attribute that says what it expects.
    pub(super) fn attach(&mut self, flow: &mut Flow) {
        if self.by_master.is_empty() {
            return;
        }
        let Some(list) = self.by_master.get(&flow.key) else { return };
        let (row, left_out) = write_expectations(list);
        let taken = flow.attributes.set(attribute::EXPECTATIONS, &row).is_ok();
        self.left_out += if taken { left_out } else { list.len() } as u64;
    }

    fn add(&mut self, key: FlowKey, expectation: Expectation) -> bool {
        let list = self.by_master.entry(key).or_default();
        if let Some(old) = list.iter_mut().find(|old| old.same_place(&expectation)) {
            let changed = !old.same_value(&expectation);
            if changed {
                *old = expectation;
            }
            return changed;
        }
        if self.total >= EXPECTATIONS_MAX || list.len() >= EXPECTATIONS_PER_MASTER {
            self.left_out += 1;
            if list.is_empty() {
                self.by_master.remove(&key);
            }
            return false;
        }
        list.push(expectation);
        self.total += 1;
        true
    }

    fn remove(&mut self, key: &FlowKey, expectation: &Expectation) -> bool {
        let Some(list) = self.by_master.get_mut(key) else { return false };
        let before = list.len();
        list.retain(|old| !old.same_place(expectation));
        let removed = before - list.len();
        self.total -= removed;
        if list.is_empty() {
            self.by_master.remove(key);
        }
        removed > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Tuple;
    use std::net::IpAddr;

    fn told(gone: bool, client_port: u16, port: u16, timeout: u32) -> DecodedExpectation {
        let tuple = |source_port, destination_port| Tuple {
            source: IpAddr::from([10, 0, 0, 1]),
            destination: IpAddr::from([10, 0, 0, 2]),
            source_port,
            destination_port,
            protocol: 6,
        };
        let expectation = Expectation {
            tuple: tuple(0, port),
            mask_address: IpAddr::from([255; 4]),
            mask_port: 0,
            timeout,
            flags: 0,
            class: 0,
            nat: None,
            helper: "ftp".into(),
            function: String::new(),
        };
        DecodedExpectation { gone, master: tuple(client_port, 21), expectation }
    }

    fn attached(pending: &mut Pending, client_port: u16) -> Vec<(u16, u32)> {
        let mut flow = Flow::new(codec::master_key(&told(false, client_port, 0, 0).master));
        pending.attach(&mut flow);
        let list = flow.attributes.expectations().unwrap_or_default();
        list.iter().map(|expectation| (expectation.tuple.destination_port, expectation.timeout)).collect()
    }

    #[test]
    fn a_master_is_told_with_what_it_still_expects() {
        let mut pending = Pending::default();
        let key = codec::master_key(&told(false, 1000, 0, 0).master);
        assert_eq!(pending.take(told(false, 1000, 5, 300)), Some(key));
        assert_eq!(pending.take(told(false, 1000, 6, 300)), Some(key));
        // The same again, with less time left, is no change.
        assert_eq!(pending.take(told(false, 1000, 5, 299)), None);
        assert_eq!(attached(&mut pending, 1000), [(5, 300), (6, 300)]);
        assert_eq!(attached(&mut pending, 1001), []);
        assert_eq!(pending.take(told(true, 1000, 5, 7)), Some(key));
        assert_eq!(pending.take(told(true, 1000, 5, 7)), None);
        assert_eq!(attached(&mut pending, 1000), [(6, 300)]);
        pending.forget(&key);
        assert_eq!((attached(&mut pending, 1000), pending.total), (vec![], 0));
    }

    #[test]
    fn what_is_too_much_is_counted() {
        let mut pending = Pending::default();
        assert_eq!((0..40).filter_map(|port| pending.take(told(false, 1000, port, 300))).count(), 32);
        assert_eq!((pending.total, pending.left_out), (32, 8));
        // 32 bytes each: 7 fit into 255.
        assert_eq!(attached(&mut pending, 1000).len(), 7);
        assert_eq!(pending.left_out, 8 + 25);
    }
}
