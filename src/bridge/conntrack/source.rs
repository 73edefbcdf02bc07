//! The kernel's connection table as a stream of changes.
//!
//! **Events and dump.** Both are asked from the kernel on sockets of their own, events first. Which of the two is newer
//! decides: an entry of the dump must not bring back what an event has already taken away. The kernel builds the next
//! datagram of a dump while it hands out the present one, never earlier (`netlink_recvmsg` calls `netlink_dump`), so an
//! entry can only be older than events that were read since the datagram before:
//!
//! ```text
//! dump     request ─ builds 1     receive 1 ─ builds 2          receive 2 ─ builds 3
//! events            read a, b                      read c, d
//!                   └─ newer than 1 may be         └─ newer than 2 may be; a, b are in 2 already
//! ```
//!
//! So the keys to remember are those of one batch of events, however long the dump takes. An event that is older than
//! the dump's entry does no harm: the event that made the difference is still to come.
//!
//! **Events that do not tell all.** An UPDATE has only what has changed: the kernel leaves the state of the protocol out
//! if there was another reason, and so the master and the adjusted sequence numbers. The entry is then asked for, and
//! the answer, which is newer than every event that was read so far, is handed over instead. Labels and SYN proxies are
//! left out as well, and nothing in the event says so: from the first entry on that has one, every UPDATE is asked for.
//!
//! **Filter.** What does not meet the rules is not handed over; where it may have been before, its end is.
//!
//! **Who listens.** Every event costs the kernel a message for each namespace in which somebody listens, even if a socket
//! filter throws it away afterwards. So an owner who only keeps copies hears of ends alone ([`Interest::Ends`]): what it
//! writes, half a million entries at a takeover, makes no events at all. For the same reason the sockets hang on no epoll:
//! that is called for each event, also while we sleep. A dump needs no waiting, because the kernel has its next datagram ready.
//!
//! **Silence.** Entries that were made while events were off, or (by default) while nobody listened in any namespace,
//! never tell what becomes of them. And no event says that a packet has refreshed a time-out. Both are seen by a dump
//! only, so an owner asks for one now and then, and removes what it no longer names.
//!
//! **Overrun.** The kernel says once that events were lost, and goes on dropping until the queue is empty. So the owner is
//! told of it, and a dump can begin, only when the queue has been read to its end. Otherwise an entry whose birth still
//! stands in the queue, and whose death was lost, would seem to have been named since the dump began.

use super::codec::{self, Decoded, Happening};
use super::expectations::{ExpectationReader, Pending};
use super::filter::{Filter, program};
use super::requests::{Answer, Requests};
use super::{OpenError, Refusals};
use crate::bridge::{Interest, ReadOutcome, Source, SourceError};
use crate::flow::{Change, Flow, FlowKey};
use crate::sys::netlink::{
    Message, MessageWriter, Messages, NETLINK_NETFILTER, NetlinkSocket, ReceiveBatch, ReceiveError, flags,
};
use nix::errno::Errno;
use std::collections::HashSet;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::{fs, io};
use tracing::warn;

/// Group of events of what ends (`NFNLGRP_CONNTRACK_DESTROY`, linux/netfilter/nfnetlink.h).
const GROUP_OF_ENDS: u32 = 3;
/// Groups of all other events: NEW, UPDATE; NEW, UPDATE, DESTROY of expectations.
const GROUPS_OF_CHANGES: [u32; 5] = [1, 2, 4, 5, 6];

/// Events per [`Source::read`].
const EVENTS_PER_READ: usize = 256;

/// Bytes for one event; the kernel's largest (everything, and a security context) have less than half of it. An odd number
/// of cache lines, or all slots would share the same few places of the cache.
const EVENT_SIZE: usize = 33 * 64;

/// Datagrams of a dump per [`Source::read`], 32 KiB or about 140 entries each: few, so that events come between them.
const DUMP_DATAGRAMS_PER_READ: usize = 1;

/// Times that a dump is begun anew because the kernel says that its table changed under it.
const DUMP_RESTARTS_MAX: u32 = 8;

/// Receive buffer of the dump socket: the kernel builds one datagram ahead.
const DUMP_BUFFER: usize = 256 * 1024;

/// Whether the kernel makes events: 0 never, 1 always, 2 for entries that are made while somebody listens.
const EVENTS_SWITCH: &str = "/proc/sys/net/netfilter/nf_conntrack_events";

/// Settings of a [`ConntrackSource`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceOptions {
    /// Bytes of receive buffer for events. One waiting event takes 640 bytes of it, so that 32 MiB bridge 170 ms at
    /// 300 000 events per second.
    pub receive_buffer: usize,
    /// Sockets whose writes are not to come back as changes: the port ids of the sinks of the same table.
    pub ignore_port_ids: Vec<u32>,
    /// Which flows are wanted.
    pub filter: Filter,
}

impl Default for SourceOptions {
    fn default() -> Self {
        SourceOptions { receive_buffer: 32 << 20, ignore_port_ids: Vec::new(), filter: Filter::default() }
    }
}

/// Follows the kernel's connection table.
#[derive(Debug)]
pub struct ConntrackSource {
    events: NetlinkSocket,
    batch: ReceiveBatch,
    dump_socket: NetlinkSocket,
    dump_writer: MessageWriter,
    questions: Requests,
    expectations: ExpectationReader,
    ignore_port_ids: Vec<u32>,
    interest: Interest,
    dump: Dump,
    dump_wanted: bool,
    dump_sequence: u32,
    /// Events were lost, and what was waiting then has not been read to its end.
    overrun: bool,
    translator: Translator,
}

/// How far the dump is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Dump {
    /// None is running.
    Idle,
    /// Its entries are handed over.
    Running { interrupted: bool, restarts: u32 },
    /// What is left of it is thrown away: the kernel begins no other before it has ended.
    Discarding,
    /// The kernel gave up in the middle, and will neither go on nor begin anew on this socket.
    Stuck,
}

impl ConntrackSource {
    /// Subscribes to the changes of the kernel's connection table, in the network namespace of the calling thread, and
    /// has the kernel make events for all entries that are made from now on.
    ///
    /// # Errors
    /// [`OpenError`] says what is missing and how to get it.
    pub fn open(options: &SourceOptions) -> Result<Self, OpenError> {
        if options.ignore_port_ids.len() > program::IGNORED_MAX {
            let message = format!("more than {} port ids to ignore", program::IGNORED_MAX);
            return Err(OpenError::Io(io::Error::new(io::ErrorKind::InvalidInput, message)));
        }
        let questions = Requests::open()?;
        let events = NetlinkSocket::open(NETLINK_NETFILTER, options.receive_buffer).map_err(OpenError::from_io)?;
        program::program(&options.filter, &options.ignore_port_ids).attach(&events)?;
        for group in GROUPS_OF_CHANGES.into_iter().chain([GROUP_OF_ENDS]) {
            events.join(group).map_err(OpenError::from_io)?;
        }
        enable_events();
        let dump_socket = NetlinkSocket::open(NETLINK_NETFILTER, DUMP_BUFFER).map_err(OpenError::from_io)?;
        Ok(ConntrackSource {
            events,
            batch: ReceiveBatch::without_senders(EVENTS_PER_READ, EVENT_SIZE),
            dump_socket,
            dump_writer: MessageWriter::new(),
            questions,
            expectations: ExpectationReader::open()?,
            ignore_port_ids: options.ignore_port_ids.clone(),
            interest: Interest::Changes,
            dump: Dump::Idle,
            dump_wanted: false,
            dump_sequence: 0,
            overrun: false,
            translator: Translator { filter: options.filter.clone(), ..Translator::default() },
        })
    }

    /// Bytes of receive buffer that the kernel granted for events.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn receive_buffer(&self) -> io::Result<usize> {
        self.events.receive_buffer()
    }

    /// Reads one batch of events; says whether there may be more.
    fn read_events(&mut self, emit: &mut dyn FnMut(Change)) -> Result<bool, SourceError> {
        let cut_before = self.batch.truncated();
        let filled = match self.events.receive_many(&mut self.batch) {
            Ok(filled) => filled,
            Err(ReceiveError::Io(error)) => return Err(error.into()),
            Err(_) => {
                self.lost_events();
                return Ok(true);
            }
        };
        self.translator.remember = matches!(self.dump, Dump::Running { .. });
        for message in self.batch.datagrams().flat_map(Messages::new) {
            match message {
                Ok(message) => self.translator.event(&message, emit),
                Err(malformed) => self.translator.counters.refusals.count(malformed.into()),
            }
        }
        let answered = self.translator.ask_for_unclear(&mut self.questions, emit);
        let cut = self.batch.truncated() - cut_before;
        self.translator.counters.events_cut += cut;
        if cut > 0 || answered.is_err() {
            self.lost_events();
        }
        let more = filled == self.batch.capacity();
        if !more && std::mem::take(&mut self.overrun) {
            return Err(SourceError::Overrun);
        }
        Ok(more)
    }

    /// Changes were lost: a dump that is running proves nothing any more.
    fn lost_events(&mut self) {
        self.overrun = true;
        self.translator.counters.overruns += 1;
        if matches!(self.dump, Dump::Running { .. }) {
            self.dump = Dump::Discarding;
        }
    }

    /// Begins the dump that is wanted, if it can begin now.
    fn begin_dump(&mut self) -> io::Result<()> {
        if self.dump == Dump::Stuck {
            return Err(io::Error::other("the kernel gave up in the middle of a dump: open the source anew"));
        }
        if self.dump_wanted && !self.overrun && self.dump == Dump::Idle {
            self.send_dump_request(0)?;
            self.dump_wanted = false;
        }
        Ok(())
    }

    fn send_dump_request(&mut self, restarts: u32) -> io::Result<()> {
        self.dump_sequence = self.dump_sequence.wrapping_add(1);
        let translator = &mut self.translator;
        translator.pending.reload(&mut self.expectations, &mut translator.counters.refusals)?;
        self.dump_writer.clear();
        codec::write_dump(&mut self.dump_writer, self.dump_sequence, |writer| translator.filter.narrow_dump(writer));
        // The kernel builds the first datagram in this call.
        translator.touched.clear();
        translator.left_over.begin(&translator.filter);
        self.dump_socket.send(self.dump_writer.bytes())?;
        self.dump = Dump::Running { interrupted: false, restarts };
        self.translator.counters.dumps_started += 1;
        Ok(())
    }

    /// Reads a bounded part of the dump; says whether it came to its end, and whether there may be more.
    fn read_dump(&mut self, emit: &mut dyn FnMut(Change)) -> Result<DumpProgress, SourceError> {
        if self.dump == Dump::Idle {
            return Ok(DumpProgress::Nothing);
        }
        for _ in 0..DUMP_DATAGRAMS_PER_READ {
            let ended = match self.dump_socket.receive() {
                Ok(None) => return Ok(DumpProgress::Nothing),
                Ok(Some(datagram)) => take_dump_datagram(datagram, &mut self.dump, &mut self.translator, emit),
                Err(error) => {
                    self.dump = Dump::Stuck;
                    return Err(SourceError::Io(io::Error::other(error)));
                }
            };
            // What comes next was built after everything that has been read so far.
            self.translator.touched.clear();
            if let Some(result) = ended {
                return self.end_dump(result);
            }
        }
        Ok(DumpProgress::More)
    }

    fn end_dump(&mut self, result: io::Result<()>) -> Result<DumpProgress, SourceError> {
        let dump = std::mem::replace(&mut self.dump, Dump::Idle);
        result?;
        match dump {
            Dump::Running { interrupted: false, .. } => {
                self.translator.counters.dumps_completed += 1;
                self.translator.left_over.last = self.translator.left_over.seen;
                return Ok(DumpProgress::Complete);
            }
            Dump::Running { interrupted: true, restarts } if restarts < DUMP_RESTARTS_MAX => {
                self.translator.counters.dump_restarts += 1;
                self.send_dump_request(restarts + 1)?;
            }
            Dump::Running { .. } => {
                let message = "the connection table changes too fast for the kernel to dump it as one picture";
                return Err(SourceError::Io(io::Error::other(message)));
            }
            Dump::Idle | Dump::Discarding | Dump::Stuck => self.begin_dump()?,
        }
        Ok(DumpProgress::More)
    }
}

/// What came of reading a part of the dump.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum DumpProgress {
    Nothing,
    More,
    Complete,
}

/// Hands over the entries of a datagram; says how the dump ended if it did.
fn take_dump_datagram(
    datagram: &[u8],
    dump: &mut Dump,
    translator: &mut Translator,
    emit: &mut dyn FnMut(Change),
) -> Option<io::Result<()>> {
    let mut ended = None;
    for message in Messages::new(datagram) {
        let Ok(message) = message else {
            translator.counters.refusals.count(codec::Refusal::Malformed);
            continue;
        };
        if let Dump::Running { interrupted, .. } = dump {
            *interrupted |= message.flags & flags::DUMP_INTERRUPTED != 0;
        }
        match message.error_code() {
            Some(0) => ended = Some(Ok(())),
            Some(code) => ended = Some(Err(Errno::from_raw(code).into())),
            None if matches!(dump, Dump::Running { .. }) => translator.dump_entry(&message, emit),
            None => {}
        }
    }
    ended
}

/// What a source makes of a datagram of events, and then of one of a dump: changes, and how the dump ended if it did. Asks the
/// kernel nothing. For tests of what bytes can do.
#[doc(hidden)]
pub fn translate(filter: &Filter, events: &[u8], dump: &[u8], emit: &mut dyn FnMut(Change)) -> Option<io::Result<()>> {
    let mut translator = Translator { filter: filter.clone(), remember: true, ..Translator::default() };
    for message in Messages::new(events).flatten() {
        translator.event(&message, emit);
    }
    let mut running = Dump::Running { interrupted: false, restarts: 0 };
    take_dump_datagram(dump, &mut running, &mut translator, emit)
}

impl Source for ConntrackSource {
    fn read(&mut self, emit: &mut dyn FnMut(Change)) -> Result<ReadOutcome, SourceError> {
        let mut changes = 0;
        let mut counted = |change| {
            changes += 1;
            emit(change);
        };
        let more_events = self.read_events(&mut counted)?;
        self.begin_dump()?;
        let progress = self.read_dump(&mut counted)?;
        let drained = !more_events && progress != DumpProgress::More;
        Ok(ReadOutcome { changes, dump_complete: progress == DumpProgress::Complete, drained })
    }

    fn request_dump(&mut self) -> io::Result<()> {
        self.dump_wanted = true;
        if matches!(self.dump, Dump::Running { .. }) {
            self.dump = Dump::Discarding;
        }
        self.begin_dump()
    }

    /// The dump that the owner asks for names what is wanted anew; what it no longer names is removed, as after every dump.
    fn set_filter(&mut self, filter: &Filter) -> io::Result<()> {
        program::program(filter, &self.ignore_port_ids).attach(&self.events)?;
        self.translator.filter = filter.clone();
        self.translator.left_over = LeftOver::default();
        Ok(())
    }

    fn set_interest(&mut self, interest: Interest) -> io::Result<()> {
        if interest == self.interest {
            return Ok(());
        }
        for group in GROUPS_OF_CHANGES {
            match interest {
                Interest::Changes => self.events.join(group)?,
                Interest::Ends => self.events.leave(group)?,
            }
        }
        self.interest = interest;
        Ok(())
    }

    /// The events: while a dump runs, its next datagram is there without waiting.
    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        Some(self.events.as_fd())
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let mut named = self.translator.counters.named();
        named.push(("expectations_left_out", self.translator.pending.left_out));
        if self.translator.filter.division().is_some() {
            named.push(("left_over", self.translator.left_over.last));
        }
        named
    }

    fn left_over(&self) -> u64 {
        self.translator.left_over.last
    }
}

/// Makes changes of messages, and remembers what is needed to put them in order.
#[derive(Default, Debug)]
struct Translator {
    /// Whether the keys of events are to be kept in `touched`.
    remember: bool,
    /// Keys of events that may be newer than the next datagram of the dump; at most [`EVENTS_PER_READ`].
    touched: HashSet<FlowKey>,
    /// Keys of flows that events told too little of; at most [`EVENTS_PER_READ`].
    unclear: Vec<FlowKey>,
    /// Some flow has what an UPDATE may leave out without a word.
    unpromised_seen: bool,
    pending: Pending,
    filter: Filter,
    left_over: LeftOver,
    counters: Counters,
}

/// Connections that pass through the machine and belong to no group of a divided kernel, as the dumps name them.
#[derive(Default, Debug)]
struct LeftOver {
    /// Addresses of this machine: what ends on it is nobody's to replicate.
    own: HashSet<IpAddr>,
    /// Of the running dump.
    seen: u64,
    /// Of the last whole one.
    last: u64,
}

impl LeftOver {
    fn begin(&mut self, filter: &Filter) {
        self.seen = 0;
        // Without the addresses more count as passing through, which is only told.
        self.own =
            filter.division().map_or(HashSet::new(), |_| crate::sys::socket::own_addresses().unwrap_or_default());
    }

    fn see(&mut self, flow: &Flow, filter: &Filter) {
        self.seen += u64::from(filter.is_left_over(flow) && !super::audit::ends_here(flow, &self.own));
    }
}

impl Translator {
    fn event(&mut self, message: &Message<'_>, emit: &mut dyn FnMut(Change)) {
        if codec::is_expectation(message) {
            return self.expectation_event(message);
        }
        let Some(decoded) = self.decode(message) else { return };
        let key = decoded.flow.key;
        if self.remember {
            self.touched.insert(key);
        }
        match decoded.happening {
            Happening::New => self.counters.events_new += 1,
            Happening::Update => self.counters.events_update += 1,
            Happening::Destroy => self.counters.events_destroy += 1,
        }
        match decoded.happening {
            Happening::Destroy => {
                self.pending.forget(&key);
                emit(Change::Delete(key));
            }
            Happening::Update if self.unpromised_seen => self.unclear.push(key),
            happening if decoded.complete => self.hand_over(happening, decoded.flow, emit),
            _ => self.unclear.push(key),
        }
    }

    fn expectation_event(&mut self, message: &Message<'_>) {
        match codec::decode_expectation(message) {
            Ok(told) => {
                self.counters.events_expectation += 1;
                // Those of masters that are not wanted must not take the place of others.
                if !self.filter.may_match(&codec::master_key(&told.master)) {
                    self.counters.filtered += 1;
                } else if let Some(master) = self.pending.take(told) {
                    self.unclear.push(master);
                }
            }
            Err(refusal) => self.counters.refusals.count(refusal),
        }
    }

    fn dump_entry(&mut self, message: &Message<'_>, emit: &mut dyn FnMut(Change)) {
        let Some(decoded) = self.read(message) else { return };
        self.left_over.see(&decoded.flow, &self.filter);
        if !self.filter.may_take(&decoded.flow) {
            self.counters.filtered += 1;
            return;
        }
        self.unpromised_seen |= decoded.has_unpromised();
        if self.touched.contains(&decoded.flow.key) {
            self.counters.dump_superseded += 1;
        } else if self.filter.matches(&decoded.flow) {
            self.counters.dump_entries += 1;
            self.hand_over(Happening::New, decoded.flow, emit);
        } else {
            // Not to name it is enough: the owner removes what a dump does not name.
            self.counters.filtered += 1;
        }
    }

    /// Hands over a flow that is told in full, if it is wanted; if it may have been wanted before, its end.
    fn hand_over(&mut self, happening: Happening, mut flow: Flow, emit: &mut dyn FnMut(Change)) {
        if self.filter.matches(&flow) {
            self.pending.attach(&mut flow);
            self.counters.with_attributes += u64::from(!flow.attributes.is_empty());
            emit(Change::Upsert(flow));
            return;
        }
        self.counters.filtered += 1;
        if happening != Happening::New {
            emit(Change::Delete(flow.key));
        }
    }

    /// Asks for the entries that events told too little of. The answers are newer than all events that were read.
    fn ask_for_unclear(&mut self, questions: &mut Requests, emit: &mut dyn FnMut(Change)) -> io::Result<()> {
        if self.unclear.is_empty() {
            return Ok(());
        }
        let mut unclear = std::mem::take(&mut self.unclear);
        unclear.sort_unstable();
        unclear.dedup();
        self.counters.questions += unclear.len() as u64;
        let answered = unclear.chunks(questions.capacity()).try_for_each(|keys| self.ask_for(keys, questions, emit));
        unclear.clear();
        self.unclear = unclear;
        answered
    }

    fn ask_for(&mut self, keys: &[FlowKey], questions: &mut Requests, emit: &mut dyn FnMut(Change)) -> io::Result<()> {
        for key in keys {
            questions.add(|writer, sequence| codec::write_get(writer, sequence, key));
        }
        let mut unanswered = None;
        questions.exchange(|_, answer| match answer {
            Answer::Entry(message) => {
                if let Some(decoded) = self.decode(&message) {
                    self.hand_over(Happening::Update, decoded.flow, emit);
                }
            }
            // It is gone; the event that says so is on its way.
            Answer::Failed(Errno::ENOENT) => self.counters.questions_gone += 1,
            Answer::Failed(errno) => unanswered = Some(errno),
        })?;
        unanswered.map_or(Ok(()), |errno| Err(errno.into()))
    }

    fn read(&mut self, message: &Message<'_>) -> Option<Decoded> {
        match codec::decode(message) {
            Ok(decoded) => Some(decoded),
            Err(refusal) => {
                self.counters.refusals.count(refusal);
                None
            }
        }
    }

    /// Reads a message of a flow that may be wanted.
    fn decode(&mut self, message: &Message<'_>) -> Option<Decoded> {
        let decoded = self.read(message)?;
        if !self.filter.may_take(&decoded.flow) {
            self.counters.filtered += 1;
            return None;
        }
        self.unpromised_seen |= decoded.has_unpromised();
        Some(decoded)
    }
}

#[derive(Clone, Default, Debug)]
struct Counters {
    events_new: u64,
    events_update: u64,
    events_destroy: u64,
    events_cut: u64,
    overruns: u64,
    questions: u64,
    questions_gone: u64,
    dumps_started: u64,
    dumps_completed: u64,
    dump_restarts: u64,
    dump_entries: u64,
    dump_superseded: u64,
    events_expectation: u64,
    filtered: u64,
    with_attributes: u64,
    refusals: Refusals,
}

impl Counters {
    fn named(&self) -> Vec<(&'static str, u64)> {
        let mut named = vec![
            ("events_new", self.events_new),
            ("events_update", self.events_update),
            ("events_destroy", self.events_destroy),
            ("events_expectation", self.events_expectation),
            ("events_cut", self.events_cut),
            ("overruns", self.overruns),
            ("questions", self.questions),
            ("questions_gone", self.questions_gone),
            ("dumps_started", self.dumps_started),
            ("dumps_completed", self.dumps_completed),
            ("dump_restarts", self.dump_restarts),
            ("dump_entries", self.dump_entries),
            ("dump_superseded", self.dump_superseded),
            ("filtered", self.filtered),
            ("with_attributes", self.with_attributes),
        ];
        named.extend(self.refusals.counters());
        named
    }
}

/// Has the kernel make events for every entry. Without it, entries that were made while nobody listened stay silent.
fn enable_events() {
    let value = fs::read_to_string(EVENTS_SWITCH);
    if value.as_ref().is_ok_and(|value| value.trim() == "1") {
        return;
    }
    if let Err(error) = fs::write(EVENTS_SWITCH, "1") {
        warn!(
            %error, value = value.unwrap_or_default().trim(),
            "cannot set {EVENTS_SWITCH} to 1: what happens to connections from before now may go unnoticed"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Expectation, Tuple, Zone};

    /// An event: a flow to `port` expects another one.
    fn expected_by(port: u16) -> MessageWriter {
        let address = |last| IpAddr::from([10, 0, 0, last]);
        let tuple =
            Tuple { source: address(1), destination: address(2), source_port: 0, destination_port: 5000, protocol: 6 };
        let expectation = Expectation {
            tuple,
            mask_address: address(255),
            mask_port: 0,
            timeout: 300,
            flags: 0,
            class: 0,
            nat: None,
            helper: "ftp".into(),
            function: String::new(),
        };
        let master = FlowKey {
            source: address(1),
            destination: address(2),
            source_port: 40000,
            destination_port: port,
            protocol: 6,
            zone: Zone::DEFAULT,
        };
        let mut writer = MessageWriter::new();
        codec::write_expectation(&mut writer, 1, &master, &expectation);
        writer
    }

    /// The kernel says nothing of the expectations of a flow that is gone.
    #[test]
    fn what_a_flow_expected_that_is_gone_is_forgotten() {
        let mut translator = Translator::default();
        let event = expected_by(21);
        translator.event(&Messages::new(event.bytes()).next().unwrap().unwrap(), &mut |_| ());
        let master = translator.unclear[0];
        let mut end = MessageWriter::new();
        codec::write_create(&mut end, 1, &Flow::new(master), 1, codec::Without::default());
        let mut end = end.bytes().to_vec();
        // nlmsg_type, in the order of the host: IPCTNL_MSG_CT_DELETE of NFNL_SUBSYS_CTNETLINK.
        end[4..6].copy_from_slice(&0x0102_u16.to_ne_bytes());
        let mut changes = Vec::new();
        translator.event(&Messages::new(&end).next().unwrap().unwrap(), &mut |change| changes.push(change));
        assert_eq!((changes, translator.pending.len()), (vec![Change::Delete(master)], 0));
    }

    /// Nobody else's expectations fill the room for those of flows that are wanted.
    #[test]
    fn what_a_filtered_flow_expects_is_not_kept() {
        let filter = Filter::new(&["dport 21".parse().unwrap()]);
        let mut translator = Translator { filter, ..Translator::default() };
        for (port, kept) in [(2121, 0), (21, 1)] {
            let event = expected_by(port);
            let message = Messages::new(event.bytes()).next().unwrap().unwrap();
            translator.event(&message, &mut |change| panic!("{change:?}"));
            assert_eq!((translator.unclear.len(), translator.pending.len()), (kept, kept), "port {port}");
        }
        assert_eq!((translator.counters.filtered, translator.counters.events_expectation), (1, 2));
    }
}
