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
//!
//! **Master and helper.** The kernel makes a flow that another one had announced only while that one is there: where it
//! is missing (`ENOENT`) the flow is tried again, because its master may be in the same batch, and at last written
//! without. A helper that this kernel does not have (`EOPNOTSUPP`) is left out too. Both are counted. An update does not
//! bring a master later: the connection goes on without.
//!
//! **Afterwards.** What the flows expect is compared with what the kernel holds for them, and added and taken back. And
//! because labels are lost in silence while no rule has `ct label`, one labelled flow of each batch is looked at.

use super::codec::{self, Unwritable, Without};
use super::expectations::ExpectationReader;
use super::filter::Owner;
use super::requests::{Answer, Requests};
use super::{Division, Filter, OpenError, Refusals};
use crate::bridge::Sink;
use crate::flow::{Attributes, Change, Expectation, Flow, FlowKey, attribute};
use crate::time::Duration;
use nix::errno::Errno;
use std::collections::{BTreeSet, HashMap};
use std::io;
use tracing::warn;

/// Most messages that one change takes in one round.
const MESSAGES_PER_CHANGE: usize = 3;

/// Times that a batch looks at what exists and amends it. A second time is needed if the kernel's own packets change the
/// entry in between, or if a master does not come; a third if a helper is missing as well.
const AMENDS_MAX: usize = 4;

/// Most names of helpers that are remembered as missing.
const HELPERS_MISSING_MAX: usize = 16;

/// Settings of a [`ConntrackSink`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SinkOptions {
    /// Least time-out that a copy gets, in whole seconds. How long a copy is to outlive its flow is the business of who
    /// says what is to be written; but none may be dead before it is there.
    pub minimum_timeout: Duration,
    /// Changes that are handed to the kernel together, 1 to 1024; fewer where the kernel grants too small a buffer for
    /// the answers.
    pub batch: usize,
}

impl Default for SinkOptions {
    fn default() -> Self {
        SinkOptions { minimum_timeout: Duration::from_secs(1), batch: 256 }
    }
}

/// Writes flows into the kernel's connection table.
#[derive(Debug)]
pub struct ConntrackSink {
    requests: Requests,
    expectations: ExpectationReader,
    minimum_timeout: u32,
    batch_max: usize,
    batch: Vec<Entry>,
    positions: HashMap<FlowKey, usize>,
    work: Work,
    taken: usize,
    /// Our share of the kernel, where it is shared.
    division: Option<Division>,
    /// Helpers that this kernel does not have.
    helpers_missing: BTreeSet<String>,
    labels_warned: bool,
    counters: Counters,
}

/// One change of the batch.
#[derive(Debug)]
struct Entry {
    /// `None` where a later change of the same key has taken over.
    change: Option<Change>,
    without: Without,
    /// Its master was missing once.
    waits_for_master: bool,
    /// It was in the kernel before.
    existed: bool,
}

impl Entry {
    fn flow(&self) -> Option<&Flow> {
        match &self.change {
            Some(Change::Upsert(flow)) => Some(flow),
            _ => None,
        }
    }

    fn attributes(&self) -> &Attributes {
        self.flow().map_or(&const { Attributes::NONE }, |flow| &flow.attributes)
    }
}

/// What the rounds of a batch work with; kept, so that a batch of plain flows allocates nothing.
#[derive(Default, Debug)]
struct Work {
    /// What is asked in this round.
    plan: Vec<Request>,
    /// Which of it failed.
    failed: Vec<bool>,
    /// Changes that have to be looked at.
    open: Vec<usize>,
    /// Those of the next round.
    again: Vec<usize>,
    /// What was found by looking.
    found: HashMap<usize, Flow>,
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
    /// Of another group's share of the kernel, and not written.
    others: u64,
    masters_missing: u64,
    helpers_missing: u64,
    labels_lost: u64,
    expectations_created: u64,
    expectations_removed: u64,
    expectations_refused: u64,
    expectations_unreadable: u64,
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
            expectations: ExpectationReader::open()?,
            batch: Vec::new(),
            positions: HashMap::new(),
            work: Work::default(),
            taken: 0,
            division: None,
            helpers_missing: BTreeSet::new(),
            labels_warned: false,
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

    /// Whether a change is for our share of the kernel: the groups of its sender may be divided otherwise.
    fn is_own(&self, change: &Change) -> bool {
        let Some(division) = &self.division else { return true };
        match change {
            Change::Upsert(flow) => division.owner(flow) == Owner::Own,
            Change::Delete(key) => division.may_own(key),
        }
    }

    /// Writes the batch. Afterwards it is empty, whatever happens: one that cannot be written is counted as lost, and
    /// repeating it is up to the owner, who has the table.
    fn settle(&mut self) -> io::Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.counters.batches += 1;
        let mut work = std::mem::take(&mut self.work);
        let settled = self.write_batch(&mut work);
        self.work = work;
        if settled.is_err() {
            self.counters.lost += self.batch.iter().filter(|entry| entry.change.is_some()).count() as u64;
        }
        self.batch.clear();
        self.positions.clear();
        settled
    }

    fn write_batch(&mut self, work: &mut Work) -> io::Result<()> {
        work.plan.clear();
        work.found.clear();
        work.plan.extend(self.batch.iter().enumerate().filter_map(|(change, entry)| match entry.change.as_ref()? {
            Change::Upsert(_) => Some(Request { change, purpose: Purpose::Create }),
            Change::Delete(_) => Some(Request { change, purpose: Purpose::Delete }),
        }));
        self.round(work)?;
        for _ in 0..AMENDS_MAX {
            if work.open.is_empty() {
                break;
            }
            work.plan.clear();
            work.plan.extend(work.open.iter().map(|&change| Request { change, purpose: Purpose::Look }));
            work.found.clear();
            let open = std::mem::take(&mut work.open);
            self.round(work)?;
            work.open = open;
            self.plan_amends(work);
            self.round(work)?;
        }
        self.counters.unsettled += work.open.len() as u64;
        work.open.clear();
        self.look_at_labels()?;
        self.write_expectations()
    }

    fn plan_amends(&mut self, work: &mut Work) {
        work.plan.clear();
        for &change in &work.open {
            let mut ask = |purpose| work.plan.push(Request { change, purpose });
            let entry = &mut self.batch[change];
            let existing = work.found.get(&change);
            entry.existed |= existing.is_some();
            match (entry.flow(), existing) {
                (Some(flow), Some(existing)) if can_become(existing, flow, entry.without) => ask(Purpose::Update),
                _ => {
                    ask(Purpose::Clear);
                    ask(Purpose::ClearReply);
                    ask(Purpose::Create);
                }
            }
        }
    }

    /// Sends the plan in one datagram and sorts the answers. What met something unexpected is open afterwards.
    fn round(&mut self, work: &mut Work) -> io::Result<()> {
        for request in &work.plan {
            self.ask(request);
        }
        let Work { plan, failed, open, again, found } = work;
        failed.clear();
        failed.resize(plan.len(), false);
        again.clear();
        let (counters, batch, missing) = (&mut self.counters, &mut self.batch, &mut self.helpers_missing);
        self.requests.exchange(|number, answer| {
            let Some(&Request { change, purpose }) = plan.get(number) else { return };
            match answer {
                Answer::Entry(message) if purpose == Purpose::Look => {
                    found.extend(codec::decode(&message).ok().map(|decoded| (change, decoded.flow)));
                }
                Answer::Entry(_) => {}
                Answer::Failed(errno) => {
                    failed[number] = true;
                    match (purpose, errno) {
                        (Purpose::Create, Errno::EEXIST) | (Purpose::Update, Errno::ENOENT | Errno::EBUSY) => {
                            again.push(change);
                        }
                        (Purpose::Create, errno) if give_in(&mut batch[change], errno, counters, missing) => {
                            again.push(change);
                        }
                        (Purpose::Delete, Errno::ENOENT) => counters.delete_missing += 1,
                        (Purpose::Look | Purpose::Clear | Purpose::ClearReply, Errno::ENOENT) => {}
                        (_, errno) => counters.error(errno),
                    }
                }
            }
        })?;
        std::mem::swap(open, again);
        self.count_successes(&work.plan, &work.failed);
        Ok(())
    }

    fn ask(&mut self, request: &Request) {
        let entry = &self.batch[request.change];
        let Some(change) = &entry.change else { return };
        let minimum = self.minimum_timeout;
        self.requests.add(|writer, sequence| match (change, request.purpose) {
            (Change::Upsert(flow), Purpose::Create) => {
                codec::write_create(writer, sequence, flow, flow.timeout.max(minimum), entry.without);
            }
            (Change::Upsert(flow), Purpose::Update) => {
                codec::write_update(writer, sequence, flow, flow.timeout.max(minimum));
            }
            (Change::Upsert(flow), Purpose::ClearReply) => codec::write_delete_by_reply(writer, sequence, flow),
            (change, Purpose::Look) => codec::write_get(writer, sequence, change.key()),
            (change, _) => codec::write_delete(writer, sequence, change.key()),
        });
    }

    /// Whether labels are kept: looks at one flow that was written with some.
    fn look_at_labels(&mut self) -> io::Result<()> {
        let labelled = self.batch.iter().filter(|entry| entry.attributes().labels().is_some());
        let mut labelled = labelled.filter_map(Entry::flow);
        let Some(flow) = labelled.next() else { return Ok(()) };
        let count = 1 + labelled.count() as u64;
        self.requests.add(|writer, sequence| codec::write_get(writer, sequence, &flow.key));
        let mut lost = false;
        self.requests.exchange(|_, answer| {
            if let Answer::Entry(message) = answer {
                lost = codec::decode(&message).is_ok_and(|found| found.flow.attributes.labels().is_none());
            }
        })?;
        if lost {
            self.counters.labels_lost += count;
            if !std::mem::replace(&mut self.labels_warned, true) {
                warn!(
                    "the kernel does not keep connection labels, because no rule of this network namespace uses them; \
                     load the same rules as on the peer (one `ct label` in nftables is enough)"
                );
            }
        }
        Ok(())
    }

    /// Makes the kernel expect what the flows of the batch expect, and nothing else.
    fn write_expectations(&mut self) -> io::Result<()> {
        let mut asked = Vec::new();
        for entry in &self.batch {
            let Some(flow) = entry.flow().filter(|flow| !flow.attributes.is_empty()) else { continue };
            let (row, helped) = (flow.attributes.get(attribute::EXPECTATIONS), flow.attributes.helper().is_some());
            if entry.without.helper || (row.is_none() && !(helped && entry.existed)) {
                continue;
            }
            let wanted = flow.attributes.expectations();
            self.counters.expectations_unreadable += u64::from(row.is_some() && wanted.is_none());
            let wanted = wanted.unwrap_or_default();
            let mut present = Vec::new();
            if entry.existed {
                let refusals = &mut self.counters.refusals;
                self.expectations.read(Some(&flow.key), refusals, |told| present.push(told.expectation))?;
            }
            let lacks = |list: &[Expectation], one: &Expectation| !list.iter().any(|other| other.same_value(one));
            for gone in present.iter().filter(|one| lacks(&wanted, one)) {
                let write = |writer: &mut _, sequence| {
                    codec::write_expectation_delete(writer, sequence, &flow.key, gone);
                };
                self.requests.add(write);
                asked.push(Purpose::Delete);
            }
            for new in wanted.iter().filter(|one| lacks(&present, one)) {
                self.requests.add(|writer, sequence| codec::write_expectation(writer, sequence, &flow.key, new));
                asked.push(Purpose::Create);
            }
            if asked.len() + EXPECTATIONS_PER_FLOW > self.requests.capacity() {
                exchange_expectations(&mut self.requests, &mut asked, &mut self.counters)?;
            }
        }
        exchange_expectations(&mut self.requests, &mut asked, &mut self.counters)
    }

    fn count_successes(&mut self, requests: &[Request], failed: &[bool]) {
        let counters = &mut self.counters;
        let mut replaces = None;
        for (request, failed) in requests.iter().zip(failed) {
            match request.purpose {
                _ if *failed => {}
                Purpose::Clear | Purpose::ClearReply => replaces = Some(request.change),
                Purpose::Create if replaces == Some(request.change) => counters.replaced += 1,
                Purpose::Create => counters.created += 1,
                Purpose::Update => counters.updated += 1,
                Purpose::Delete => counters.deleted += 1,
                Purpose::Look => {}
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
        if !self.is_own(change) {
            self.counters.others += 1;
            return Ok(());
        }
        if let Some(earlier) = self.positions.insert(*change.key(), self.batch.len()) {
            self.batch[earlier].change = None;
            self.counters.coalesced += 1;
        }
        let mut entry = Entry {
            change: Some(change.clone()),
            without: Without::default(),
            waits_for_master: false,
            existed: false,
        };
        if !self.helpers_missing.is_empty() {
            entry.without.helper = entry.attributes().helper().is_some_and(|name| self.helpers_missing.contains(name));
            self.counters.helpers_missing += u64::from(entry.without.helper);
        }
        self.batch.push(entry);
        if self.batch.len() >= self.batch_max { self.settle() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<usize> {
        self.settle()?;
        Ok(std::mem::take(&mut self.taken))
    }

    fn set_filter(&mut self, filter: &Filter) {
        self.division = filter.division().cloned();
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
            ("others", counters.others),
            ("masters_missing", counters.masters_missing),
            ("helpers_missing", counters.helpers_missing),
            ("labels_lost", counters.labels_lost),
            ("expectations_created", counters.expectations_created),
            ("expectations_removed", counters.expectations_removed),
            ("expectations_refused", counters.expectations_refused),
            ("expectations_unreadable", counters.expectations_unreadable),
        ];
        named.extend(counters.refusals.counters());
        let names = ERRORS.iter().map(|(_, name)| *name).chain(["error_other"]);
        named.extend(names.zip(counters.errors));
        named
    }
}

/// Most requests about the expectations of one flow: a row holds 9, and the kernel keeps a few dozen.
const EXPECTATIONS_PER_FLOW: usize = 128;

/// Asks for what was gathered, and counts what came of it.
fn exchange_expectations(requests: &mut Requests, asked: &mut Vec<Purpose>, counters: &mut Counters) -> io::Result<()> {
    if asked.is_empty() {
        return Ok(());
    }
    let (mut created, mut removed) = (0, 0);
    asked.iter().for_each(|purpose| if *purpose == Purpose::Create { created += 1 } else { removed += 1 });
    requests.exchange(|number, answer| {
        let Answer::Failed(errno) = answer else { return };
        match (asked.get(number), errno) {
            // It has come true, or its time is over.
            (Some(Purpose::Delete), _) => removed -= 1,
            (Some(_), _) => {
                created -= 1;
                counters.expectations_refused += 1;
            }
            (None, errno) => counters.error(errno),
        }
    })?;
    counters.expectations_created += created;
    counters.expectations_removed += removed;
    asked.clear();
    Ok(())
}

/// Whether a new entry that the kernel refused is to be tried again, with less where it has to be.
fn give_in(entry: &mut Entry, errno: Errno, counters: &mut Counters, missing: &mut BTreeSet<String>) -> bool {
    match errno {
        Errno::ENOENT if entry.attributes().master().is_some() && !entry.without.master => {
            // Its master may have come behind it in the same batch.
            entry.without.master = std::mem::replace(&mut entry.waits_for_master, true);
            counters.masters_missing += u64::from(entry.without.master);
            true
        }
        Errno::EOPNOTSUPP if !entry.without.helper => {
            let Some(name) = entry.attributes().helper().map(str::to_owned) else { return false };
            if missing.len() < HELPERS_MISSING_MAX && missing.insert(name.clone()) {
                warn!(helper = name, "the kernel does not have this helper: its flows are written without");
            }
            entry.without.helper = true;
            counters.helpers_missing += 1;
            true
        }
        _ => false,
    }
}

/// Whether an update makes `existing` what `flow` says. A master can not be given later, so it does not matter.
fn can_become(existing: &Flow, flow: &Flow, without: Without) -> bool {
    let translation = |flow: &Flow| (flow.reply_source, flow.reply_destination);
    let to_be_cleared = existing.status & codec::STATUS_SETTABLE & !flow.status;
    let (old, new) = (&existing.attributes, &flow.attributes);
    // They can be set and changed, and never taken away.
    let stays = |kind: u8| old.get(kind).is_none() || new.get(kind).is_some();
    let same_helper = without.helper || old.master().is_some() || old.helper() == new.helper();
    translation(existing) == translation(&flow.clone().canonical())
        && to_be_cleared == 0
        && same_helper
        && [attribute::SEQUENCE_ADJUSTMENT, attribute::LABELS, attribute::SYNPROXY].into_iter().all(stays)
}
