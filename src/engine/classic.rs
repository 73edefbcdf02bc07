//! The classic profile without I/O: one [`ClassicEngine`] per replicated table, called as [`Engine`](super::Engine) is.
//!
//! ```text
//!   master   source ─ update ─▶ table ─ at most one record a flow ─▶ poll_transmit ─▶ link
//!                                 ▲ every flow again within REFRESH_PERIOD
//!   backup   link ─ handle_frame ─▶ table ─ poll_applied ─▶ sink
//!                                     └ ages out by the time-out of its state
//! ```
//!
//! There is nothing else: no election (the owner says who is master), no numbers, no acknowledgement, no proof. What is
//! lost on the way is made up for by the refreshment, and what nobody refreshes any more dies of age. The queue is the
//! table's own wire list: the newest record of each flow, and never more of them than the table holds.
//!
//! Nothing on the wire says that a flow has ended. A delete is therefore sent as the closing state of the protocol (TCP's
//! CLOSE lives 10 s at the receiver, SCTP's CLOSED 61); UDP has no such state, and ages out.

use super::counters::{Counters, counters};
use super::{Change, Event, Flow, Role, RoleRequest, SWEEP_SLOTS, Store, SyncState, UpdateError};
use super::{EVENTS_MAX, EngineStatus, splitmix64};
use crate::flow::{FlowKey, protocol};
use crate::table::{Applied, BUCKETS, Refused, Table};
use crate::time::{Duration, Instant};
use crate::wire::classic::{HEADER_LEN, MESSAGE_LEN_MAX, Message, RECORD_LEN, RECORD_LEN_FULL, Writer};
use crate::wire::ipvs::{Connection, Unsayable};
use crate::wire::{DropCounters, Frame, FrameError, FrameMeta, NodeId};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::ops::Range;

/// Within this time a master sends every flow that it holds again, so that a backup that starts late learns of it: half
/// the shortest time-out of a state that a connection can stay in (CLOSE_WAIT, 60 s).
pub const REFRESH_PERIOD: Duration = Duration::from_secs(30);
/// Steps in which it does so, each with as many buckets of the table.
const REFRESH_STEPS: u32 = 256;
/// By how much the steps may be late altogether.
const REFRESH_LATE_MAX: Duration = Duration::from_secs(1);
/// Time within which a backup looks at each entry once whether it is too old.
const AGEING_PERIOD: Duration = Duration::from_secs(1);
/// Slots that one look takes in.
const AGEING_SLOTS: u32 = 4096;
/// Waiting records that are looked at to see whether they fill a message, and that one message may use up: those of dead
/// flows without a closing state take no room in it.
const LOOK_MAX: usize = 200;
/// `TCP_CONNTRACK_CLOSE` of linux/netfilter/nf_conntrack_tcp.h.
const TCP_CLOSE: u8 = 8;
/// `SCTP_CONNTRACK_CLOSED` of linux/netfilter/nf_conntrack_sctp.h.
const SCTP_CLOSED: u8 = 1;

/// What an engine of the classic profile is told at its birth.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClassicConfig {
    /// This node, for status only: messages do not say who sent them.
    pub node: NodeId,
    /// The replicated table's number.
    pub sync_id: u8,
    /// Most flows in the table, 1 to 2^28.
    pub capacity: u32,
    /// Longest time that a record waits for company.
    pub batch_delay: Duration,
    /// Drawn at random: places in the table.
    pub seed: u64,
    /// Addresses of this node's sync links: what comes from one of them is an echo.
    pub own_addresses: Vec<IpAddr>,
}

counters! {
    ClassicCounters:
    /// Frames handed in, good or bad.
    frames_received,
    /// Good frames that came while this node is not backup.
    ignored_by_role,
    /// Frames handed out.
    frames_sent,
    /// Records applied to the table.
    records_applied,
    /// Records of a protocol that IPVS does not balance.
    records_unknown,
    /// Records handed out.
    records_sent,
    /// Flows that were sent again because their turn had come.
    records_refreshed,
    /// Flows that have died of age here.
    records_aged,
    /// Deletes that no record could say: the peers' copies die of age.
    deletes_unsaid,
    /// Changes from the source.
    updates,
    /// Changes of a flow that is not of IPv4.
    unsaid_family,
    /// Changes of a flow that is neither TCP, UDP nor SCTP.
    unsaid_protocol,
    /// Changes of a flow in a conntrack zone.
    unsaid_zone,
    /// Changes of a flow whose source is translated.
    unsaid_source_nat,
    /// Changes and records refused because the table is full.
    table_full,
    /// Flows deleted because a complete dump did not name them.
    dump_deletes,
    /// Times that the source lost changes.
    source_overruns,
    /// Events dropped because nobody fetched them.
    events_lost,
}

/// One replicated table and the classic profile. See the module's figure.
#[derive(Debug)]
pub struct ClassicEngine {
    config: ClassicConfig,
    table: Table,
    role: Role,
    link_up: bool,
    leaving: bool,
    counters: ClassicCounters,
    drops: DropCounters,
    events: VecDeque<Event>,
    /// Numbers the records that are taken, so that of two about one flow the later one counts.
    records: u64,
    /// Since when the record waits that waits longest.
    waiting_since: Option<Instant>,
    refresh_at: Instant,
    refresh_step: u32,
    ageing_at: Instant,
    ageing_hand: u32,
    dump_complete: bool,
    full_reported: bool,
    version_reported: bool,
}

impl ClassicEngine {
    /// Builds it, as a backup. This is where it allocates.
    pub fn new(config: ClassicConfig, now: Instant) -> Self {
        let mut random = config.seed;
        ClassicEngine {
            table: Table::new(config.capacity, 0, splitmix64(&mut random)),
            role: Role::Backup,
            link_up: false,
            leaving: false,
            counters: ClassicCounters::default(),
            drops: DropCounters::default(),
            events: VecDeque::with_capacity(EVENTS_MAX),
            records: 0,
            waiting_since: None,
            refresh_at: now,
            refresh_step: 0,
            ageing_at: now,
            ageing_hand: 0,
            dump_complete: false,
            full_reported: false,
            version_reported: false,
            config,
        }
    }

    // ------------------------------------------------------------------ the world speaks

    /// A frame has arrived. What is wrong with it is counted under its name and changes nothing.
    pub fn handle_frame(&mut self, now: Instant, meta: FrameMeta, frame: &[u8]) {
        self.counters.frames_received += 1;
        if let Err(reason) = self.receive(now, meta, frame) {
            self.drops.count(reason);
        }
    }

    fn receive(&mut self, now: Instant, meta: FrameMeta, bytes: &[u8]) -> Result<(), FrameError> {
        if self.config.own_addresses.contains(&meta.source) {
            return Err(FrameError::OwnNode);
        }
        let message = Message::parse(bytes).inspect_err(|error| self.report_version(*error, bytes))?;
        if message.sync_id() != self.config.sync_id {
            return Err(FrameError::WrongGroup);
        }
        let records = message.verify()?;
        if self.role != Role::Backup {
            self.counters.ignored_by_role += 1;
            return Ok(());
        }
        for record in records {
            match record {
                Ok(connection) => self.apply(now, &connection),
                Err(_) => self.counters.records_unknown += 1,
            }
        }
        Ok(())
    }

    fn apply(&mut self, now: Instant, connection: &Connection<'_>) {
        self.records += 1;
        match self.table.apply_upsert(&connection.to_flow(), self.records, now) {
            Ok(Applied::Changed | Applied::Unchanged) => self.counters.records_applied += 1,
            // Records are numbered as they come, so none is older; and all are of IPv4.
            Ok(Applied::Older) | Err(Refused::Unsupported) => {}
            Err(Refused::TableFull | Refused::TombstonesFull) => self.table_is_full(false),
            Err(Refused::AnnexFull) => self.table_is_full(true),
        }
    }

    /// The sync links came up, or the last one went down. The role stays: nobody else can take it.
    /// Only who leaves waits for nothing any more.
    pub fn handle_link(&mut self, now: Instant, up: bool) {
        if self.link_up != up {
            self.link_up = up;
            self.event(if up { Event::LinkUp } else { Event::LinkDown });
        }
        if self.leaving && !up {
            self.set_role(now, RoleRequest::None);
        }
    }

    /// Time has passed; harmless at any time, due at [`ClassicEngine::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.role {
            Role::Master => {
                if self.dump_complete {
                    self.sweep(now);
                }
                if self.refresh_at <= now {
                    self.refresh(now);
                }
            }
            Role::Backup if self.ageing_at <= now => {
                let aged = self.table.age(now, &mut self.ageing_hand, AGEING_SLOTS);
                self.counters.records_aged += u64::from(aged);
                self.ageing_at = now + AGEING_PERIOD / self.table.slots().div_ceil(AGEING_SLOTS);
            }
            _ => {}
        }
    }

    /// Queues the next part of the table. Steps that are late are made up for, one a turn; a machine that slept begins anew
    /// from where it was.
    fn refresh(&mut self, now: Instant) {
        let buckets = BUCKETS as u32 / REFRESH_STEPS;
        let first = self.refresh_step * buckets;
        for bucket in first..first + buckets {
            self.counters.records_refreshed += u64::from(self.table.queue_bucket(bucket as u16));
        }
        self.refresh_step = (self.refresh_step + 1) % REFRESH_STEPS;
        let next = self.refresh_at + REFRESH_PERIOD / REFRESH_STEPS;
        self.refresh_at = if now > next + REFRESH_LATE_MAX { now } else { next };
        self.note_waiting(now);
    }

    // ------------------------------------------------------------------ the owner speaks

    /// The owner's source says that a flow has changed.
    ///
    /// # Errors
    /// [`UpdateError`]. A flow that no record can say any more is deleted.
    pub fn update(&mut self, now: Instant, change: &Change) -> Result<(), UpdateError> {
        if self.role != Role::Master {
            return Err(UpdateError::NotMaster);
        }
        self.counters.updates += 1;
        let result = match change {
            Change::Upsert(flow) => self.upsert(now, flow),
            Change::Delete(key) => {
                self.table.take(key);
                Ok(())
            }
        };
        self.note_waiting(now);
        result
    }

    fn upsert(&mut self, now: Instant, flow: &Flow) -> Result<(), UpdateError> {
        let timeout = match Connection::of_flow(flow) {
            Ok(connection) => connection.timeout_s(),
            Err(reason) => {
                self.count_unsaid(reason);
                self.table.take(&flow.key);
                return Err(UpdateError::Unsupported);
            }
        };
        // The time-out that the peers give it, so that both tables say the same, and so do they after a change of roles.
        match self.table.put(&Flow { timeout, ..flow.clone() }, now) {
            Ok(_) => Ok(()),
            Err(Refused::Unsupported) => Err(UpdateError::Unsupported),
            Err(Refused::TableFull | Refused::TombstonesFull) => {
                self.table_is_full(false);
                Err(UpdateError::TableFull)
            }
            Err(Refused::AnnexFull) => {
                self.table_is_full(true);
                Err(UpdateError::AnnexFull)
            }
        }
    }

    /// A dump of the source begins: what it does not name until [`ClassicEngine::end_dump`] has died unseen.
    pub fn begin_dump(&mut self, now: Instant) {
        let _ = now;
        self.dump_complete = false;
        self.table.begin_dump();
    }

    /// The dump is complete: what it did not name is deleted, over as many turns as the size of the table asks for.
    pub fn end_dump(&mut self, now: Instant) {
        self.dump_complete = true;
        self.sweep(now);
    }

    fn sweep(&mut self, now: Instant) {
        if self.role == Role::Master {
            self.counters.dump_deletes += u64::from(self.table.end_dump(SWEEP_SLOTS));
            self.note_waiting(now);
        }
        self.dump_complete = self.role == Role::Master && self.table.dumping();
    }

    /// The source has lost changes; the owner dumps it next.
    pub fn source_overrun(&mut self, now: Instant) {
        let _ = now;
        self.counters.source_overruns += 1;
        self.event(Event::SourceOverrun);
    }

    /// The owner's wish for the role, which is all that decides it. A new master sends what its source says from now on,
    /// and all that it holds within [`REFRESH_PERIOD`].
    pub fn set_role(&mut self, now: Instant, request: RoleRequest) {
        let to = match request {
            RoleRequest::Master => Role::Master,
            RoleRequest::Backup => Role::Backup,
            RoleRequest::None => Role::None,
        };
        self.leaving = false;
        let from = std::mem::replace(&mut self.role, to);
        if from == to {
            return;
        }
        self.table.begin_stream();
        (self.waiting_since, self.dump_complete, self.full_reported) = (None, false, false);
        (self.refresh_at, self.ageing_at) = (now, now);
        self.event(Event::RoleChanged { from, to, term: 0 });
    }

    /// What is queued is sent at once; then the role is None.
    pub fn leave(&mut self, now: Instant) {
        if self.role == Role::Master && self.link_up && self.table.pending() > 0 {
            self.leaving = true;
        } else {
            self.set_role(now, RoleRequest::None);
        }
    }

    // ------------------------------------------------------------------ the engine answers

    /// Writes the next frame into `slot`; its length, or `None` if nothing is due. A slot has at least 1208 bytes.
    pub fn poll_transmit(&mut self, now: Instant, slot: &mut [u8]) -> Option<usize> {
        if self.role != Role::Master || !self.link_up || !(self.leaving || self.is_due(now)) {
            return None;
        }
        let mut writer = Writer::new(slot, self.config.sync_id)?;
        for _ in 0..LOOK_MAX {
            let Some((flow, alive)) = self.table.pending_flows(now).next() else { break };
            let said = record_of(flow, alive);
            match said.as_ref().map(Connection::of_flow) {
                Some(Ok(connection)) if !writer.push(&connection) => break,
                Some(Ok(_)) => self.counters.records_sent += 1,
                // It must not hold up the rest.
                Some(Err(reason)) => self.count_unsaid(reason),
                None => self.counters.deletes_unsaid += 1,
            }
            self.table.sent(self.counters.frames_sent + 1);
        }
        let waits = self.table.pending() > 0;
        if self.leaving && !waits {
            self.set_role(now, RoleRequest::None);
        }
        if writer.count() == 0 {
            // Nothing but deletes that cannot be said; the rest is looked at in the next turn.
            self.waiting_since = self.waiting_since.filter(|_| waits);
            return None;
        }
        self.waiting_since = waits.then_some(now);
        self.counters.frames_sent += 1;
        Some(writer.finish())
    }

    /// Whether the waiting records fill a message, or the oldest has waited for long enough.
    fn is_due(&self, now: Instant) -> bool {
        let Some(since) = self.waiting_since else { return false };
        if now >= since + self.config.batch_delay {
            return true;
        }
        let fewest = (MESSAGE_LEN_MAX - HEADER_LEN) / RECORD_LEN_FULL;
        if (self.table.pending() as usize) < fewest {
            return false;
        }
        let mut len = HEADER_LEN;
        for (flow, alive) in self.table.pending_flows(now).take(LOOK_MAX) {
            let said = record_of(flow, alive);
            let full = |flow: &Flow| Connection::of_flow(flow).is_ok_and(|said| said.flags.has_sequences());
            len += said.map_or(0, |flow| if full(&flow) { RECORD_LEN_FULL } else { RECORD_LEN });
            if len + RECORD_LEN > MESSAGE_LEN_MAX {
                return true;
            }
        }
        false
    }

    /// Moves changes that the sink has not seen into `batch`, until it holds `limit`; says how many were moved. Templates,
    /// and connections that IPVS forwards without NAT, stay in the table: a sink is a connection tracker.
    pub fn poll_applied(&mut self, now: Instant, batch: &mut Vec<Change>, limit: usize) -> usize {
        let before = batch.len();
        while batch.len() < limit {
            let Some(change) = self.table.pop_applied(now) else { break };
            let wanted = match &change {
                Change::Upsert(flow) => Connection::is_conntracks(flow),
                Change::Delete(key) => key.source_port != 0,
            };
            if wanted {
                batch.push(change);
            }
        }
        batch.len() - before
    }

    /// The next event, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`ClassicEngine::handle_timeout`] and then [`ClassicEngine::poll_transmit`] are due; `None`: only when
    /// something happens.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let holds = !self.table.is_empty();
        match self.role {
            Role::Master if self.dump_complete || self.leaving => Some(Instant::ZERO),
            Role::Master => {
                let due = self.waiting_since.filter(|_| self.link_up).map(|since| since + self.config.batch_delay);
                [due, holds.then_some(self.refresh_at)].into_iter().flatten().min()
            }
            Role::Backup => holds.then_some(self.ageing_at),
            _ => None,
        }
    }

    /// The role now.
    pub fn role(&self) -> Role {
        self.role
    }

    /// One flow, with its time-out as of `now`.
    pub fn flow(&self, key: &FlowKey, now: Instant) -> Option<Flow> {
        self.table.get(key, now)
    }

    /// The flows in some of the table's [`ClassicEngine::slots`], with their time-outs as of `now`.
    pub fn flows_in(&self, slots: Range<u32>, now: Instant) -> impl Iterator<Item = Flow> + '_ {
        self.table.iter_in(slots, now)
    }

    /// Slots of the table, taken and empty.
    pub fn slots(&self) -> u32 {
        self.table.slots()
    }

    /// Another longest time that a record waits for company.
    pub fn set_batch_delay(&mut self, batch_delay: Duration) {
        self.config.batch_delay = batch_delay;
    }

    /// What moves, under the names that SSYNCP/1 has for it; all else is zero.
    pub fn rates(&self) -> Counters {
        let ClassicCounters { frames_received, frames_sent, records_applied, records_sent, updates, .. } =
            self.counters;
        Counters { frames_received, frames_sent, records_applied, records_sent, updates, ..Counters::default() }
    }

    /// The state in one picture. What the profile does not have is empty: no term, no priority, no peers, no proof.
    pub fn status(&self) -> EngineStatus {
        let own = self.counters.iter().map(|(name, count)| (name.to_owned(), count));
        let drops = self.drops.iter().map(|(name, count)| (format!("drop_{name}"), count));
        let master = self.role == Role::Master;
        EngineStatus {
            node: self.config.node,
            sync_id: self.config.sync_id,
            role: self.role,
            priority: 0,
            term: 0,
            master: master.then_some(self.config.node),
            heir: None,
            asks: false,
            draining: false,
            sync: if master { SyncState::Source } else { SyncState::Unknown },
            cold: false,
            entries: u64::from(self.table.len()),
            capacity: u64::from(self.table.capacity()),
            digest: self.table.digest(),
            proven_at: None,
            buckets_unproven: if master { 0 } else { BUCKETS as u32 },
            buckets_different: 0,
            progress: None,
            stream_seq: 0,
            frontier: 0,
            annex_used: u64::from(self.table.annex_used()),
            annex_blocks: u64::from(self.table.annex_blocks()),
            unsent: u64::from(self.table.pending()),
            unsent_since: None,
            unacknowledged: None,
            unacknowledged_records: None,
            unacknowledged_since: None,
            at_risk: None,
            pending: u64::from(self.table.pending()),
            unapplied: u64::from(self.table.unapplied()),
            seal: super::SealStatus::default(),
            link_up: self.link_up,
            peers: Vec::new(),
            counters: own.chain(drops).collect(),
        }
    }

    // ------------------------------------------------------------------ small helpers

    fn count_unsaid(&mut self, reason: Unsayable) {
        *match reason {
            Unsayable::Family => &mut self.counters.unsaid_family,
            Unsayable::Protocol => &mut self.counters.unsaid_protocol,
            Unsayable::Zone => &mut self.counters.unsaid_zone,
            Unsayable::SourceNat => &mut self.counters.unsaid_source_nat,
        } += 1;
    }

    fn note_waiting(&mut self, now: Instant) {
        if self.table.pending() == 0 {
            self.waiting_since = None;
        } else if self.waiting_since.is_none() {
            self.waiting_since = Some(now);
        }
    }

    fn report_version(&mut self, error: FrameError, bytes: &[u8]) {
        let Some(claim) = Frame::claim(bytes).filter(|_| error == FrameError::UnknownVersion) else { return };
        if !std::mem::replace(&mut self.version_reported, true) {
            self.event(Event::VersionMismatch { node: claim.node, version: claim.version });
        }
    }

    fn event(&mut self, event: Event) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
            self.counters.events_lost += 1;
        }
        self.events.push_back(event);
    }

    fn table_is_full(&mut self, annex: bool) {
        self.counters.table_full += 1;
        if !std::mem::replace(&mut self.full_reported, true) {
            let (store, capacity) = match annex {
                true => (Store::Annex, self.table.annex_blocks()),
                false => (Store::Flows, self.config.capacity),
            };
            self.event(Event::TableFull { store, capacity });
        }
    }
}

/// What the wire says of a flow: itself, or its closing state if it has died; `None` if its protocol has none, and for a
/// template or a connection without NAT, which without their attributes would be said as something else.
fn record_of(flow: Flow, alive: bool) -> Option<Flow> {
    match flow.key.protocol {
        _ if alive => Some(flow),
        _ if !Connection::is_conntracks(&flow) => None,
        protocol::TCP => Some(Flow { state: TCP_CLOSE, ..flow }),
        protocol::SCTP => Some(Flow { state: SCTP_CLOSED, ..flow }),
        _ => None,
    }
}
