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
//! **Events without state.** The kernel leaves the TCP state out of an UPDATE that has another reason. The entry is
//! then asked for, and the answer, which is newer than every event that was read so far, is handed over instead.
//!
//! **Silence.** Entries that were made while events were off, or (by default) while nobody listened in any namespace,
//! never tell what becomes of them. And no event says that a packet has refreshed a time-out. Both are seen by a dump
//! only, so an owner asks for one now and then, and removes what it no longer names.
//!
//! **Overrun.** The kernel says once that events were lost, and goes on dropping until the queue is empty. So the owner is
//! told of it, and a dump can begin, only when the queue has been read to its end. Otherwise an entry whose birth still
//! stands in the queue, and whose death was lost, would seem to have been named since the dump began.

use super::codec::{self, Decoded, Happening};
use super::filter;
use super::requests::{Answer, Requests};
use super::{OpenError, Refusals};
use crate::bridge::{ReadOutcome, Source, SourceError};
use crate::flow::{Change, FlowKey};
use crate::sys::netlink::{
    Message, MessageWriter, Messages, NETLINK_NETFILTER, NetlinkSocket, ReceiveBatch, ReceiveError, flags,
};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::{fs, io};
use tracing::warn;

/// Groups of events (`NFNLGRP_CONNTRACK_*`, linux/netfilter/nfnetlink.h): NEW, UPDATE, DESTROY.
const GROUPS: [u32; 3] = [1, 2, 3];

/// Events per [`Source::read`].
const EVENTS_PER_READ: usize = 256;

/// Bytes for one event; the kernel's largest (everything, and a security context) have less than half of it.
const EVENT_SIZE: usize = 2048;

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
}

impl Default for SourceOptions {
    fn default() -> Self {
        SourceOptions { receive_buffer: 32 << 20, ignore_port_ids: Vec::new() }
    }
}

/// Follows the kernel's connection table.
#[derive(Debug)]
pub struct ConntrackSource {
    events: NetlinkSocket,
    batch: ReceiveBatch,
    dump_socket: NetlinkSocket,
    questions: Requests,
    readiness: Epoll,
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
        if options.ignore_port_ids.len() > filter::IGNORED_MAX {
            let message = format!("more than {} port ids to ignore", filter::IGNORED_MAX);
            return Err(OpenError::Io(io::Error::new(io::ErrorKind::InvalidInput, message)));
        }
        let questions = Requests::open()?;
        let events = NetlinkSocket::open(NETLINK_NETFILTER, options.receive_buffer).map_err(OpenError::from_io)?;
        filter::program(&options.ignore_port_ids).attach(&events)?;
        for group in GROUPS {
            events.join(group).map_err(OpenError::from_io)?;
        }
        enable_events();
        let dump_socket = NetlinkSocket::open(NETLINK_NETFILTER, DUMP_BUFFER).map_err(OpenError::from_io)?;
        let readiness = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(io::Error::from)?;
        for socket in [&events, &dump_socket] {
            readiness.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, 0)).map_err(io::Error::from)?;
        }
        Ok(ConntrackSource {
            events,
            batch: ReceiveBatch::new(EVENTS_PER_READ, EVENT_SIZE),
            dump_socket,
            questions,
            readiness,
            dump: Dump::Idle,
            dump_wanted: false,
            dump_sequence: 0,
            overrun: false,
            translator: Translator::default(),
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
        let mut writer = MessageWriter::new();
        codec::write_dump(&mut writer, self.dump_sequence);
        // The kernel builds the first datagram in this call.
        self.translator.touched.clear();
        self.dump_socket.send(writer.bytes())?;
        self.dump = Dump::Running { interrupted: false, restarts };
        self.translator.counters.dumps_started += 1;
        Ok(())
    }

    /// Reads a bounded part of the dump; says whether it came to its end, and whether there may be more.
    fn read_dump(&mut self, emit: &mut dyn FnMut(Change)) -> Result<DumpProgress, SourceError> {
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

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        Some(self.readiness.0.as_fd())
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        self.translator.counters.named()
    }
}

/// Makes changes of messages, and remembers what is needed to put them in order.
#[derive(Default, Debug)]
struct Translator {
    /// Whether the keys of events are to be kept in `touched`.
    remember: bool,
    /// Keys of events that may be newer than the next datagram of the dump; at most [`EVENTS_PER_READ`].
    touched: HashSet<FlowKey>,
    /// Keys of events that did not tell the state; at most [`EVENTS_PER_READ`].
    unclear: Vec<FlowKey>,
    counters: Counters,
}

impl Translator {
    fn event(&mut self, message: &Message<'_>, emit: &mut dyn FnMut(Change)) {
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
            Happening::Destroy => emit(Change::Delete(key)),
            _ if decoded.state_known => emit(Change::Upsert(decoded.flow)),
            _ => self.unclear.push(key),
        }
    }

    fn dump_entry(&mut self, message: &Message<'_>, emit: &mut dyn FnMut(Change)) {
        let Some(decoded) = self.decode(message) else { return };
        if self.touched.contains(&decoded.flow.key) {
            self.counters.dump_superseded += 1;
        } else {
            self.counters.dump_entries += 1;
            emit(Change::Upsert(decoded.flow));
        }
    }

    /// Asks for the entries that events told too little of. The answers are newer than all events that were read.
    fn ask_for_unclear(&mut self, questions: &mut Requests, emit: &mut dyn FnMut(Change)) -> io::Result<()> {
        if self.unclear.is_empty() {
            return Ok(());
        }
        self.unclear.sort_unstable();
        self.unclear.dedup();
        self.counters.questions += self.unclear.len() as u64;
        let unclear = std::mem::take(&mut self.unclear);
        for keys in unclear.chunks(questions.capacity()) {
            for key in keys {
                questions.add(|writer, sequence| codec::write_get(writer, sequence, key));
            }
            let mut unanswered = None;
            questions.exchange(|_, answer| match answer {
                Answer::Entry(message) => {
                    if let Some(decoded) = self.decode(&message) {
                        emit(Change::Upsert(decoded.flow));
                    }
                }
                // It is gone; the event that says so is on its way.
                Answer::Failed(Errno::ENOENT) => self.counters.questions_gone += 1,
                Answer::Failed(errno) => unanswered = Some(errno),
            })?;
            if let Some(errno) = unanswered {
                return Err(errno.into());
            }
        }
        Ok(())
    }

    fn decode(&mut self, message: &Message<'_>) -> Option<Decoded> {
        match codec::decode(message) {
            Ok(decoded) if filter::is_loopback(&decoded.flow.key) => {
                self.counters.skipped_loopback += 1;
                None
            }
            Ok(decoded) => {
                self.counters.with_extensions += u64::from(decoded.has_extensions);
                Some(decoded)
            }
            Err(refusal) => {
                self.counters.refusals.count(refusal);
                None
            }
        }
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
    skipped_loopback: u64,
    with_extensions: u64,
    refusals: Refusals,
}

impl Counters {
    fn named(&self) -> Vec<(&'static str, u64)> {
        let mut named = vec![
            ("events_new", self.events_new),
            ("events_update", self.events_update),
            ("events_destroy", self.events_destroy),
            ("events_cut", self.events_cut),
            ("overruns", self.overruns),
            ("questions", self.questions),
            ("questions_gone", self.questions_gone),
            ("dumps_started", self.dumps_started),
            ("dumps_completed", self.dumps_completed),
            ("dump_restarts", self.dump_restarts),
            ("dump_entries", self.dump_entries),
            ("dump_superseded", self.dump_superseded),
            ("skipped_loopback", self.skipped_loopback),
            ("with_extensions", self.with_extensions),
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
