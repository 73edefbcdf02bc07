//! Copies of flows for the kernel's connection table.
//!
//! Changes are gathered, at most one per key, and written in rounds of one datagram each, however many they are:
//!
//! ```text
//! round 1   CREATE | EXCL every upsert, DELETE every delete       most are done here
//! round 2   GET those that exist already (EEXIST)
//! round 3   UPDATE where that is enough,
//!           else DELETE it, DELETE who has its reply tuple, CREATE
//! ```
//!
//! An update is not enough where translation differs, or where SEEN_REPLY or ASSURED would have to be cleared: the
//! kernel allows neither. An `EEXIST` without an entry of that key means that a stale entry of another key holds the
//! reply tuple; the newer truth wins.

use super::codec::{self, Unwritable};
use super::requests::{Answer, Requests};
use super::{OpenError, Refusals};
use crate::bridge::Sink;
use crate::flow::{Change, Flow, FlowKey};
use crate::time::Duration;
use nix::errno::Errno;
use std::collections::HashMap;
use std::io;

/// Most messages that one change takes in one round.
const MESSAGES_PER_CHANGE: usize = 3;

/// Times that a batch looks at what exists and amends it. A second time is needed only if the kernel's own packets
/// change the entry in between.
const AMENDS_MAX: usize = 2;

/// Settings of a [`ConntrackSink`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SinkOptions {
    /// Least time-out that a copy gets, in whole seconds: it must outlive the pauses between refreshments.
    pub minimum_timeout: Duration,
    /// Changes that are handed to the kernel together, 1 to 1024; fewer where the kernel grants too small a buffer for
    /// the answers.
    pub batch: usize,
}

impl Default for SinkOptions {
    fn default() -> Self {
        SinkOptions { minimum_timeout: Duration::from_secs(180), batch: 256 }
    }
}

/// Writes flows into the kernel's connection table.
#[derive(Debug)]
pub struct ConntrackSink {
    requests: Requests,
    minimum_timeout: u32,
    batch_max: usize,
    /// The changes of the batch; `None` where a later change of the same key has taken over.
    batch: Vec<Option<Change>>,
    positions: HashMap<FlowKey, usize>,
    taken: usize,
    counters: Counters,
}

#[derive(Clone, Default, Debug)]
struct Counters {
    created: u64,
    updated: u64,
    replaced: u64,
    deleted: u64,
    delete_missing: u64,
    coalesced: u64,
    batches: u64,
    lost: u64,
    unsettled: u64,
    refusals: Refusals,
    errors: [u64; ERRORS.len() + 1],
}

/// Errors that have a counter of their own; all others share one.
const ERRORS: [(Errno, &str); 11] = [
    (Errno::EBUSY, "error_ebusy"),
    (Errno::EEXIST, "error_eexist"),
    (Errno::EINVAL, "error_einval"),
    (Errno::EMFILE, "error_emfile"),
    (Errno::ENOENT, "error_enoent"),
    (Errno::ENOMEM, "error_enomem"),
    (Errno::ENOSPC, "error_enospc"),
    (Errno::EOPNOTSUPP, "error_eopnotsupp"),
    (Errno::EPERM, "error_eperm"),
    (Errno::ERANGE, "error_erange"),
    (Errno::ETIMEDOUT, "error_etimedout"),
];

impl Counters {
    fn error(&mut self, errno: Errno) {
        let known = ERRORS.iter().position(|(known, _)| *known == errno);
        self.errors[known.unwrap_or(ERRORS.len())] += 1;
    }
}

/// What a request is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Purpose {
    Create,
    Update,
    Delete,
    /// Look at the entry that exists.
    Look,
    /// Remove the entry that is in the way, if there is one.
    Clear,
    /// Remove the entry that holds the reply tuple, if there is one.
    ClearReply,
}

/// One request: for which change of the batch, and what for.
#[derive(Clone, Copy, Debug)]
struct Request {
    change: usize,
    purpose: Purpose,
}

/// What came of a round.
#[derive(Default)]
struct Round {
    /// Changes that met something unexpected and have to look again.
    open: Vec<usize>,
    /// What was found by looking.
    found: HashMap<usize, Flow>,
}

impl ConntrackSink {
    /// Opens the kernel's connection table for writing, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`OpenError`] says what is missing and how to get it.
    pub fn open(options: &SinkOptions) -> Result<Self, OpenError> {
        let seconds = options.minimum_timeout.as_secs();
        let requests = Requests::open()?;
        Ok(ConntrackSink {
            minimum_timeout: u32::try_from(seconds).unwrap_or(u32::MAX),
            batch_max: options.batch.min(requests.capacity() / MESSAGES_PER_CHANGE).max(1),
            requests,
            batch: Vec::new(),
            positions: HashMap::new(),
            taken: 0,
            counters: Counters::default(),
        })
    }

    /// The port id to be ignored by the source of the same table, so that our own writes do not come back as changes.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn port_id(&self) -> io::Result<u32> {
        self.requests.port_id()
    }

    /// Writes the batch. Afterwards it is empty, whatever happens: one that cannot be written is counted as lost, and
    /// repeating it is up to the owner, who has the table.
    fn settle(&mut self) -> io::Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.counters.batches += 1;
        let settled = self.write_batch();
        if settled.is_err() {
            self.counters.lost += self.batch.iter().flatten().count() as u64;
        }
        self.batch.clear();
        self.positions.clear();
        settled
    }

    fn write_batch(&mut self) -> io::Result<()> {
        let mut open = self.round(&self.first_requests())?.open;
        for _ in 0..AMENDS_MAX {
            if open.is_empty() {
                break;
            }
            let looks: Vec<_> = open.iter().map(|change| Request { change: *change, purpose: Purpose::Look }).collect();
            let found = self.round(&looks)?.found;
            let amends = self.amending_requests(&open, &found);
            open = self.round(&amends)?.open;
        }
        self.counters.unsettled += open.len() as u64;
        Ok(())
    }

    fn first_requests(&self) -> Vec<Request> {
        let changes = self.batch.iter().enumerate();
        let purposes = changes.filter_map(|(change, content)| match content.as_ref()? {
            Change::Upsert(_) => Some(Request { change, purpose: Purpose::Create }),
            Change::Delete(_) => Some(Request { change, purpose: Purpose::Delete }),
        });
        purposes.collect()
    }

    fn amending_requests(&self, open: &[usize], found: &HashMap<usize, Flow>) -> Vec<Request> {
        let mut requests = Vec::new();
        for &change in open {
            let mut ask = |purpose| requests.push(Request { change, purpose });
            match (&self.batch[change], found.get(&change)) {
                (Some(Change::Upsert(flow)), Some(existing)) if can_become(existing, flow) => ask(Purpose::Update),
                _ => {
                    ask(Purpose::Clear);
                    ask(Purpose::ClearReply);
                    ask(Purpose::Create);
                }
            }
        }
        requests
    }

    /// Sends `requests` in one datagram and sorts the answers.
    fn round(&mut self, requests: &[Request]) -> io::Result<Round> {
        for request in requests {
            self.ask(request);
        }
        let mut round = Round::default();
        let mut failed = vec![false; requests.len()];
        let counters = &mut self.counters;
        self.requests.exchange(|number, answer| {
            let Some(&Request { change, purpose }) = requests.get(number) else { return };
            match answer {
                Answer::Entry(message) if purpose == Purpose::Look => {
                    round.found.extend(codec::decode(&message).ok().map(|decoded| (change, decoded.flow)));
                }
                Answer::Entry(_) => {}
                Answer::Failed(errno) => {
                    failed[number] = true;
                    match (purpose, errno) {
                        (Purpose::Create, Errno::EEXIST) | (Purpose::Update, Errno::ENOENT | Errno::EBUSY) => {
                            round.open.push(change);
                        }
                        (Purpose::Delete, Errno::ENOENT) => counters.delete_missing += 1,
                        (Purpose::Look | Purpose::Clear | Purpose::ClearReply, Errno::ENOENT) => {}
                        (_, errno) => counters.error(errno),
                    }
                }
            }
        })?;
        self.count_successes(requests, &failed);
        Ok(round)
    }

    fn ask(&mut self, request: &Request) {
        let Some(change) = &self.batch[request.change] else { return };
        let minimum = self.minimum_timeout;
        self.requests.add(|writer, sequence| match (change, request.purpose) {
            (Change::Upsert(flow), Purpose::Create) => {
                codec::write_create(writer, sequence, flow, flow.timeout.max(minimum));
            }
            (Change::Upsert(flow), Purpose::Update) => {
                codec::write_update(writer, sequence, flow, flow.timeout.max(minimum));
            }
            (Change::Upsert(flow), Purpose::ClearReply) => codec::write_delete_by_reply(writer, sequence, flow),
            (change, Purpose::Look) => codec::write_get(writer, sequence, change.key()),
            (change, _) => codec::write_delete(writer, sequence, change.key()),
        });
    }

    fn count_successes(&mut self, requests: &[Request], failed: &[bool]) {
        let counters = &mut self.counters;
        let mut replaces = None;
        for (request, failed) in requests.iter().zip(failed) {
            match request.purpose {
                Purpose::Clear => replaces = Some(request.change),
                _ if *failed => {}
                Purpose::Create if replaces == Some(request.change) => counters.replaced += 1,
                Purpose::Create => counters.created += 1,
                Purpose::Update => counters.updated += 1,
                Purpose::Delete => counters.deleted += 1,
                Purpose::Look | Purpose::ClearReply => {}
            }
        }
    }
}

impl Sink for ConntrackSink {
    fn apply(&mut self, change: &Change) -> io::Result<()> {
        self.taken += 1;
        let writable = match change {
            Change::Upsert(flow) => codec::check_flow(flow),
            Change::Delete(key) => codec::check_key(key),
        };
        if let Err(Unwritable(refusal)) = writable {
            self.counters.refusals.count(refusal);
            return Ok(());
        }
        if let Some(earlier) = self.positions.insert(*change.key(), self.batch.len()) {
            self.batch[earlier] = None;
            self.counters.coalesced += 1;
        }
        self.batch.push(Some(change.clone()));
        if self.batch.len() >= self.batch_max { self.settle() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<usize> {
        self.settle()?;
        Ok(std::mem::take(&mut self.taken))
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let counters = &self.counters;
        let mut named = vec![
            ("created", counters.created),
            ("updated", counters.updated),
            ("replaced", counters.replaced),
            ("deleted", counters.deleted),
            ("delete_missing", counters.delete_missing),
            ("coalesced", counters.coalesced),
            ("batches", counters.batches),
            ("lost", counters.lost),
            ("unsettled", counters.unsettled),
        ];
        named.extend(counters.refusals.counters());
        let names = ERRORS.iter().map(|(_, name)| *name).chain(["error_other"]);
        named.extend(names.zip(counters.errors));
        named
    }
}

/// Whether an update makes `existing` what `flow` says.
fn can_become(existing: &Flow, flow: &Flow) -> bool {
    let translation = |flow: &Flow| (flow.reply_source, flow.reply_destination);
    let to_be_cleared = existing.status & codec::STATUS_SETTABLE & !flow.status;
    translation(existing) == translation(&flow.clone().canonical()) && to_be_cleared == 0
}
