//! The protocol itself, without I/O: one [`Engine`] per replicated table.
//!
//! ```text
//!             update, set_role, leave …                   poll_event
//!    owner ──────────────────────────▶ ┌────────────┐ ──────────────────▶ owner
//!    link  ─────── handle_frame ─────▶ │   Engine   │ ─ poll_transmit ──▶ link
//!    clock ────── handle_timeout ────▶ └────────────┘ ─ poll_applied ───▶ sink  (then handle_committed)
//! ```
//!
//! The engine knows no socket, no clock and no thread. Time comes in as `now`, randomness as [`Config::seed`], so the same
//! calls give the same answers, always. Its parts: [`election`] (who is master), `peers` (whom we hear and who hears us),
//! `outbox` (the stream as its master sends it), `inbox` (the stream as a backup follows it), `repair` (what is not proven
//! equal), `merge` (what only one of two tables holds), and the table. `receive` and `transmit` are the two directions of the wire.

#![forbid(unsafe_code)]

mod audit;
pub mod breakage;
pub mod classic;
mod clocks;
pub mod config;
pub mod counters;
mod digests;
mod durability;
pub mod election;
pub mod event;
mod exposure;
mod flush;
mod handover;
mod inbox;
mod keyring;
mod merge;
mod numbers;
mod outbox;
mod patience;
mod peers;
mod progress;
mod receive;
mod refusal;
mod repair;
mod role;
mod sealing;
mod sections;
mod spans;
mod status;
mod strangers;
#[cfg(test)]
mod tests;
mod transmit;
mod tuning;
mod twins;
mod window;

pub use audit::KernelRoom;
pub use classic::{ClassicConfig, ClassicEngine, REFRESH_PERIOD};
pub use config::{
    ADVERT_INTERVALS, CAPACITY_MAX, Config, ConfigError, HANDOVER_DEADLINES, HISTORY_MAX, HISTORY_MIN, RoleMode,
};
pub use counters::Counters;
pub use durability::{Ack, DurabilityFailed, TICKETS_MAX, Ticket};
pub use event::{ElectionFailure, Event, Role, Store, SyncState};
pub use exposure::AtRisk;
pub use flush::{Flush, FlushState, NotMaster};
pub use handover::{SwitchoverError, UnknownPeer};
pub use keyring::Auth;
pub use progress::Progress;
pub use refusal::{ResyncError, UpdateError};
pub use sections::SectionUse;
pub use status::{EngineStatus, PeerSeal, PeerStatus, SealStatus};
pub use tuning::Tuning;

use crate::flow::{Change, Flow, FlowKey, KeyBytes};
pub use crate::table::Held;
use crate::table::{Ahead, Refused, Table};
use crate::time::{Duration, Instant};
use crate::wire::{DropCounters, FrameMeta, NodeId};
use breakage::Breakage;
use clocks::Copies;
use digests::Answers;
use durability::Durability;
use election::{Election, Input, State};
use exposure::Exposure;
use handover::Handover;
use inbox::Inbox;
use keyring::Keyring;
use merge::Merge;
use outbox::Outbox;
use patience::Patience;
use peers::Peers;
use repair::Repair;
use std::collections::VecDeque;
use std::ops::Range;
use twins::Twins;

/// Flows that are looked ahead for at a time.
const AHEAD: usize = 64;

/// Events that wait for the owner; when more come, the oldest are dropped and counted.
const EVENTS_MAX: usize = 256;
/// Least time between two reports of nodes that carry our own number: two of them in turn are no stream of events.
const DUPLICATE_REPORT_SPACING: Duration = Duration::from_secs(10);

/// Slots looked at per turn where the engine itself expires flows.
const EXPIRY_SLOTS: u32 = 4096;

/// Slots looked at per turn for what a completed dump did not name.
const SWEEP_SLOTS: u32 = 16_384;

/// A term more than this above the newest one known is not believed.
const TERM_JUMP_MAX: u64 = 1 << 20;

/// The highest term that is believed, and that a node takes.
const TERM_MAX: u64 = 1 << 62;

/// The highest number of a stream that is believed: a table counts versions in 48 bits, nine years of a million frames a
/// second.
const STREAM_SEQ_MAX: u64 = (1 << 48) - 1;

/// What the owner can wish of the role machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RoleRequest {
    /// Take the role.
    Master,
    /// Give it up, or do not take it.
    Backup,
    /// Take part in nothing.
    None,
}

/// One replicated table and its protocol. The owner calls `handle_*` when the world speaks, `update` and the setters when
/// it speaks itself, and then asks every `poll_*` until it answers nothing.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    incarnation: u64,
    random: u64,
    table: Table,
    election: Election,
    peers: Peers,
    keyring: Keyring,
    twins: Twins,
    outbox: Outbox,
    patience: Patience,
    inbox: Inbox,
    repair: Repair,
    durability: Durability,
    exposure: Exposure,
    answers: Answers,
    handover: Handover,
    merge: Merge,
    events: VecDeque<Event>,
    counters: Counters,
    drops: DropCounters,
    /// Newest term that an established node or this one has used.
    term: u64,
    /// Numbers of the control frames sent.
    control_seq: u64,
    /// Not yet proven equal to a master, nor a master with a complete dump, since the start.
    cold: bool,
    /// The dump that this mastership began with is complete.
    dumped: bool,
    /// When this node last became master.
    master_since: Instant,
    /// The one master-down that a cold node gives to a warmer one has been given.
    deferred: bool,
    /// Since when this node waits for masters that it hears and that do not hear it; no proven one was heard since.
    one_way_since: Option<Instant>,
    /// ADVERTs of the followed master at which the role could have been taken from it.
    chances: u32,
    /// Changes wait, and no new DATA may leave.
    held_up: bool,
    link_up: bool,
    leaving: bool,
    /// The source's dump has come to its end; what it did not name is still to be taken.
    dump_complete: bool,
    advert_at: Instant,
    /// Frames that have left since the next ADVERT is due.
    sent_before_advert: u32,
    /// Frames that have been sent again since any other has left.
    resent_in_a_row: u32,
    /// Bytes of a record in the last DATA frame, on average.
    record_len: usize,
    last_advert_at: Option<Instant>,
    /// An interval that the peers still count with, and the ADVERTs that keep to it.
    old_pace: Option<(Duration, u8)>,
    last_run: Instant,
    full_reported: bool,
    annex_full_reported: bool,
    sections_full_reported: bool,
    /// In the last DATA frame sections stood before flows.
    sections_first: bool,
    /// Blocks of the annex that were in use when a record of the followed stream found no room in it.
    annex_short: Option<u32>,
    /// A flow of the followed stream found no room.
    flows_short: bool,
    /// Bytes of sections that were held when a record of the followed stream found no room among them.
    sections_short: Option<u64>,
    /// The last other incarnation of our own number that was reported, and when.
    duplicate_reported: Option<(u64, Instant)>,
    versions_reported: Vec<(NodeId, u8)>,
    expiry_hand: u32,
    /// Looks after a backup's copies.
    copies: Copies,
    /// The owner does not want a living master to be replaced yet.
    preemption_held: bool,
    /// The size of this node's kernel's table, for the others.
    kernel_room: KernelRoom,
    /// For a breakage only: where this node's predecessor stood.
    #[cfg(any(test, feature = "breakages"))]
    memory: Option<breakage::Memory>,
}

impl Engine {
    /// Builds it. This is where it allocates; afterwards only [`Engine::status`] and names in events do.
    ///
    /// # Errors
    /// The first of [`Config::problems`].
    pub fn new(config: Config, now: Instant) -> Result<Self, ConfigError> {
        if let Some(problem) = config.problems().into_iter().next() {
            return Err(problem);
        }
        let mut random = config.seed;
        let hash_seed = splitmix64(&mut random);
        let mut engine = Engine {
            incarnation: config.incarnation,
            table: config.table(hash_seed),
            election: Election::new(config.role, config.priority, config.advert_interval, config.commit_deadline)
                .with_startup_delay(config.startup_delay),
            peers: Peers::new(config.broken(), config.advert_interval),
            keyring: Keyring::new(&config, config.incarnation),
            twins: Twins::default(),
            outbox: Outbox::new(config.history, config.frame_len, config.first_seq),
            patience: Patience::new(),
            inbox: Inbox::new(&config),
            repair: Repair::new(),
            durability: Durability::new(),
            exposure: Exposure::new(config.history),
            answers: Answers::new(),
            handover: Handover::default(),
            merge: Merge::new(),
            events: VecDeque::with_capacity(EVENTS_MAX),
            counters: Counters::default(),
            drops: DropCounters::default(),
            term: config.first_term,
            control_seq: 0,
            cold: true,
            dumped: false,
            master_since: now,
            deferred: false,
            one_way_since: None,
            chances: 0,
            held_up: false,
            link_up: false,
            leaving: false,
            dump_complete: false,
            advert_at: now,
            sent_before_advert: 0,
            resent_in_a_row: 0,
            record_len: transmit::PLAIN_RECORD_LEN,
            last_advert_at: None,
            old_pace: None,
            last_run: now,
            full_reported: false,
            annex_full_reported: false,
            sections_full_reported: false,
            sections_first: false,
            annex_short: None,
            flows_short: false,
            sections_short: None,
            duplicate_reported: None,
            versions_reported: Vec::with_capacity(status::VERSIONS_MAX),
            expiry_hand: 0,
            copies: Copies::new(now),
            preemption_held: false,
            kernel_room: KernelRoom::default(),
            #[cfg(any(test, feature = "breakages"))]
            memory: None,
            random,
            config,
        };
        engine.table.set_margin(engine.named_margin());
        Ok(engine)
    }

    // ------------------------------------------------------------------ the world speaks

    /// A frame has arrived. What is wrong with it is counted under its name and changes nothing.
    pub fn handle_frame(&mut self, now: Instant, meta: FrameMeta, frame: &mut [u8]) {
        self.counters.frames_received += 1;
        self.notice_stall(now);
        if let Err(reason) = self.receive(now, &meta, frame) {
            self.drops.count(reason);
            self.note_failure(now, reason, &meta, frame);
        }
    }

    /// Time has passed; harmless at any time, due at [`Engine::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        self.notice_stall(now);
        while let Some(gone) = self.peers.take_gone(now) {
            if gone.established {
                self.event(Event::PeerDown { node: gone.node });
                self.advert_soon(now);
            }
            self.peer_is_gone(now, gone.node, gone.incarnation);
            self.choose_seals(now);
        }
        self.report_refused(now);
        if self.election.deadline().is_some_and(|at| at <= now) {
            self.role_timer(now);
        }
        self.look_at_handover(now);
        if self.dump_complete {
            self.sweep(now);
        }
        self.release_lagging(now);
        self.inbox.notice_lag(now, &self.config);
        self.merge_timers(now);
        if self.role() == Role::Master && !self.config.source_expires {
            let expired = self.table.expire(now, &mut self.expiry_hand, EXPIRY_SLOTS);
            if expired > 0 {
                self.submitted(now);
            }
        }
        self.expire_sections(now);
        self.renew_copies(now);
        if self.role() == Role::Backup && self.breaks(Breakage::BackupExpiresByTime) {
            self.table.age(now, &mut self.expiry_hand, EXPIRY_SLOTS);
        }
        self.settle(now);
    }

    /// The sync links came up, or the last one went down.
    pub fn handle_link(&mut self, now: Instant, up: bool) {
        if self.link_up == up {
            return;
        }
        // First of all: a master whose link went down while it stood still has stood still.
        self.notice_stall(now);
        self.link_up = up;
        self.event(if up { Event::LinkUp } else { Event::LinkDown });
        self.input(now, if up { Input::LinkUp } else { Input::LinkDown });
        self.advert_soon(now);
    }

    /// The sync links now carry frames of this many bytes, at most [`crate::wire::FRAME_LEN_MAX`]. Stored frames that are
    /// longer can no longer be sent again: the history then begins behind the last of them, and who misses one repairs by
    /// buckets. To be told before the next frame is made, or with slots that are no longer than this.
    pub fn set_frame_len(&mut self, frame_len: usize) {
        self.config.frame_len = frame_len.clamp(crate::wire::FRAME_LEN_MIN, crate::wire::FRAME_LEN_MAX);
        self.outbox.set_frame_len(self.config.frame_len);
    }

    /// Everything that [`Engine::poll_applied`] and [`Engine::poll_section`] have yielded is in the sink. Ends the first phase of a takeover, if nothing is
    /// left to yield.
    pub fn handle_committed(&mut self, now: Instant) {
        if self.role() == Role::Master {
            self.notice_stall(now);
        }
        // To write may take long; of a node that is not master nobody expects anything meanwhile.
        self.last_run = now;
        let written = self.table.unapplied() == 0 && self.table.unapplied_sections() == 0;
        if self.role() == Role::Promoting && written && !self.merges_first() {
            self.input(now, Input::Committed);
        }
    }

    // ------------------------------------------------------------------ the owner speaks

    /// The owner's source says that a flow has changed.
    ///
    /// # Errors
    /// [`UpdateError`]; nothing has changed then.
    pub fn update(&mut self, now: Instant, change: &Change) -> Result<(), UpdateError> {
        if self.change(now, change)? {
            self.submitted(now);
        }
        Ok(())
    }

    /// The owner has several changes to tell of these flows: what is held of them is read into the cache, all at once.
    pub fn look_ahead<'a>(&self, keys: impl IntoIterator<Item = &'a FlowKey>) {
        let mut keys = keys.into_iter().map(KeyBytes::of).peekable();
        while keys.peek().is_some() {
            self.table.look_ahead(keys.by_ref().take(AHEAD), &mut [Ahead::default(); AHEAD]);
        }
    }

    /// Takes a change; whether others have to hear of it.
    fn change(&mut self, now: Instant, change: &Change) -> Result<bool, UpdateError> {
        if self.role() != Role::Master {
            return Err(UpdateError::NotMaster);
        }
        self.counters.updates += 1;
        match change {
            Change::Upsert(flow) => match self.put(flow, now) {
                Ok(waits) => Ok(waits),
                Err(Refused::Unsupported) => {
                    self.counters.updates_unsupported += 1;
                    Err(UpdateError::Unsupported)
                }
                Err(Refused::TableFull | Refused::TombstonesFull) => {
                    self.table_is_full();
                    Err(UpdateError::TableFull)
                }
                Err(Refused::AnnexFull) => {
                    self.annex_is_full();
                    Err(UpdateError::AnnexFull)
                }
            },
            Change::Delete(key) => Ok(self.table.take(key)),
        }
    }

    fn put(&mut self, flow: &Flow, now: Instant) -> Result<bool, Refused> {
        let put = self.table.put(flow, now);
        self.counters.attributes_dropped = self.table.attributes_dropped();
        put
    }

    /// A dump of the source begins: what it does not name until [`Engine::end_dump`] has died unseen.
    pub fn begin_dump(&mut self, now: Instant) {
        let _ = now;
        self.dump_complete = false;
        self.gap_is_dumped();
        self.table.begin_dump();
    }

    /// The dump is complete: what it did not name is deleted, here and on the peers, over as many turns as the size of the
    /// table asks for. A master's table is then worth copying. A dump that began before this mastership says nothing, and
    /// is to be asked for again.
    pub fn end_dump(&mut self, now: Instant) {
        self.dump_complete = true;
        self.sweep(now);
    }

    fn sweep(&mut self, now: Instant) {
        if self.role() != Role::Master || !self.table.dumping() {
            self.dump_complete = false;
            return;
        }
        let ignored = self.breaks(Breakage::OverrunIgnored);
        if !ignored {
            let taken = self.table.end_dump(SWEEP_SLOTS);
            self.counters.dump_deletes += u64::from(taken);
            if taken > 0 {
                self.submitted(now);
            }
        }
        if !self.table.dumping() || ignored {
            self.dump_complete = false;
            self.dumped = true;
            self.gap_is_closed();
            self.warm_up(now);
            self.advert_soon(now);
        }
    }

    /// The source has lost changes; the owner dumps it next.
    pub fn source_overrun(&mut self, now: Instant) {
        self.counters.source_overruns += 1;
        self.source_has_a_gap(now);
        self.event(Event::SourceOverrun);
    }

    /// The owner's wish for the role.
    pub fn set_role(&mut self, now: Instant, request: RoleRequest) {
        self.input(now, Input::Request(request));
        if request == RoleRequest::None {
            self.leaving = false;
            self.unfollow();
        } else if !self.link_up && self.role() != Role::Init {
            self.input(now, Input::LinkDown);
        } else if self.link_up {
            self.advert_soon(now);
        }
    }

    /// This node's table is proven anew against its master's, which costs little if they are equal; with `full` every
    /// bucket of it is walked again. Its role, its stream and what it holds stay; says how many buckets are in question.
    ///
    /// # Errors
    /// [`ResyncError`]; nothing has changed then.
    pub fn resync(&mut self, now: Instant, full: bool) -> Result<u32, ResyncError> {
        if self.role() == Role::Master {
            return Err(ResyncError::Master);
        }
        let from = self.inbox.stream().ok_or(ResyncError::NoMaster)?.node;
        self.repair.ask_anew(now, self.config.advert_interval, full);
        let buckets = self.repair.dirty();
        self.event(Event::SyncStarted { from, buckets });
        self.proof_changed(now);
        Ok(buckets)
    }

    /// Another priority, 1 to 255; the election goes on.
    ///
    /// # Errors
    /// [`ConfigError`] for 0, which means "I am leaving" on the wire.
    pub fn set_priority(&mut self, now: Instant, priority: u8) -> Result<(), ConfigError> {
        let changed = Config { priority, ..self.config.clone() };
        if let Some(problem) = changed.problems().into_iter().next() {
            return Err(problem);
        }
        self.config = changed;
        self.election.set_priority(priority);
        self.advert_soon(now);
        Ok(())
    }

    /// Says goodbye: what is queued is sent at once, then an ADVERT with priority 0, so that the others need not wait. The role
    /// is None when [`Engine::poll_transmit`] has yielded all of it.
    pub fn leave(&mut self, now: Instant) {
        if self.link_up && self.role() != Role::None {
            self.leaving = true;
            self.advert_at = now;
        } else {
            self.input(now, Input::Request(RoleRequest::None));
        }
    }

    // ------------------------------------------------------------------ the engine answers

    /// Moves changes that the sink has not seen into `batch`, until it holds `limit`; says how many were moved. For a master,
    /// whose source is the truth, only what a merge has brought [5.5.1], and what the commit deadline left over. What a flow
    /// says of its time is what its copy is to have: more than the flow [4.6.5].
    pub fn poll_applied(&mut self, now: Instant, batch: &mut Vec<Change>, limit: usize) -> usize {
        let before = batch.len();
        while batch.len() < limit {
            let Some(change) = self.table.pop_applied(now) else { break };
            batch.push(self.with_margin(change));
        }
        batch.len() - before
    }

    /// The next event, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Engine::handle_timeout`] and then [`Engine::poll_transmit`] are due; `None`: only when something happens.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if matches!(self.election.state(), State::Init | State::None) && !self.leaving {
            return None;
        }
        let mut due = self.election.deadline();
        let mut also = |at: Option<Instant>| due = [due, at].into_iter().flatten().min();
        also(self.link_up.then_some(self.advert_at));
        also(self.peers.next_gone_at());
        also(self.settle_at());
        also(self.data_at());
        also(self.section_expiry_at());
        also(self.copies_at());
        also(self.lag_at());
        also(self.handover_at());
        also(self.merge_at());
        if self.inbox.stream().is_some() {
            also(self.inbox.status_at());
            also(self.inbox.lag_at(&self.config));
            also(self.repair.pull_at().filter(|_| !self.repair_waits()));
            also(self.repair.ask_at().filter(|_| !self.repair_waits()));
        }
        let others_wait = self.outbox.resend_waiting() || (self.answers.are_waited_for() && self.link_up);
        if self.dump_complete || (self.role() == Role::Master && others_wait) {
            also(Some(Instant::ZERO));
        }
        due
    }

    /// The role now.
    pub fn role(&self) -> Role {
        self.election.state().role()
    }

    /// The stream that is followed: its master, the incarnation of it, and the term.
    pub fn following(&self) -> Option<(NodeId, u64, u64)> {
        self.inbox.stream().map(|stream| (stream.node, stream.incarnation, stream.term))
    }

    /// The number up to which the followed stream is held without a hole.
    pub fn frontier(&self) -> u64 {
        self.inbox.frontier()
    }

    /// One flow, with its time-out as of `now`.
    pub fn flow(&self, key: &FlowKey, now: Instant) -> Option<Flow> {
        self.table.get(key, now)
    }

    /// Every flow in the table, with its time-out as of `now`.
    pub fn flows(&self, now: Instant) -> impl Iterator<Item = Flow> + '_ {
        self.table.iter(now)
    }

    /// The flows in some of the table's [`Engine::slots`], with their time-outs as of `now`: a listing in bounded steps.
    pub fn flows_in(&self, slots: Range<u32>, now: Instant) -> impl Iterator<Item = Flow> + '_ {
        self.table.iter_in(slots, now)
    }

    /// Slots of the table, taken and empty: a third more than its capacity.
    pub fn slots(&self) -> u32 {
        self.table.slots()
    }

    // ------------------------------------------------------------------ small helpers

    /// An ADVERT at once, but not more often than four times an interval.
    fn advert_soon(&mut self, now: Instant) {
        let spacing = self.config.advert_interval / 4;
        let earliest = self.last_advert_at.map_or(now, |last| last + spacing);
        self.advert_at = self.advert_at.min(earliest.max(now));
    }

    /// This node's proof has begun or ended: its master may count on it, or may no longer [6.0.2].
    fn proof_changed(&mut self, now: Instant) {
        self.inbox.say_state();
        self.advert_soon(now);
    }

    fn event(&mut self, event: Event) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
            self.counters.events_lost += 1;
        }
        self.events.push_back(event);
    }

    fn table_is_full(&mut self) {
        self.counters.table_full += 1;
        if !std::mem::replace(&mut self.full_reported, true) {
            self.event(Event::TableFull { store: Store::Flows, capacity: self.config.capacity });
        }
    }

    fn annex_is_full(&mut self) {
        self.counters.annex_full += 1;
        if !std::mem::replace(&mut self.annex_full_reported, true) {
            self.event(Event::TableFull { store: Store::Annex, capacity: self.table.annex_blocks() });
        }
    }
}

/// The SplitMix64 generator (Steele, Lea and Flood 2014): all of the engine's randomness, from one seed.
fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
