//! Which protocol a group speaks: SSYNCP/1 or the classic profile. The loop, feed and drain know only this, and ask the same
//! of both.
//!
//! ```text
//!   profile = "ssyncp1"   Protocol::Ssyncp1 ── Engine          elections, repair, proof
//!   profile = "classic"   Protocol::Classic ── ClassicEngine   records out, records in
//! ```

use crate::daemon::settings::{Profile, Sealing};
use crate::daemon::who::Who;
use crate::engine::{
    ClassicEngine, Counters, Engine, EngineStatus, Event, Flush, FlushState, KernelRoom, NotMaster, Role, RoleRequest,
    Tuning, UpdateError,
};
use crate::flow::{Change, Flow, FlowKey};
use crate::time::{Duration, Instant};
use crate::wire::classic::MESSAGE_LEN_MAX;
use crate::wire::{FrameMeta, NodeId};
use std::ops::Range;

/// The answer to whoever asks a classic group for what it does not have.
const NO_RESYNC: &str =
    "profile \"classic\" proves nothing that could be proven anew; its master sends all it holds every 30 s";
const NO_FLUSH: &str = "profile \"classic\" has no acknowledgement that could be waited for";
pub(crate) const NO_SWITCH: &str = "profile \"classic\" has no election; tell each node its role (ssyncp role)";

/// The engine of one group.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one a group, built once")]
pub enum Protocol {
    /// SSYNCP/1.
    Ssyncp1(Engine),
    /// The draft of 2002.
    Classic(ClassicEngine),
}

impl From<Engine> for Protocol {
    fn from(engine: Engine) -> Self {
        Protocol::Ssyncp1(engine)
    }
}

impl From<ClassicEngine> for Protocol {
    fn from(engine: ClassicEngine) -> Self {
        Protocol::Classic(engine)
    }
}

/// Asks whichever engine there is.
macro_rules! each {
    ($self:ident, $engine:ident => $answer:expr) => {
        match $self {
            Protocol::Ssyncp1($engine) => $answer,
            Protocol::Classic($engine) => $answer,
        }
    };
}

impl Protocol {
    /// The word of the configuration.
    pub fn profile(&self) -> Profile {
        match self {
            Protocol::Ssyncp1(_) => Profile::Ssyncp1,
            Protocol::Classic(_) => Profile::Classic,
        }
    }

    pub(crate) fn handle_frame(&mut self, now: Instant, meta: FrameMeta, frame: &mut [u8]) {
        each!(self, engine => engine.handle_frame(now, meta, frame));
    }

    pub(crate) fn handle_link(&mut self, now: Instant, up: bool) {
        each!(self, engine => engine.handle_link(now, up));
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        each!(self, engine => engine.handle_timeout(now));
    }

    /// Only SSYNCP/1 waits for its sink before it takes the role.
    pub(crate) fn handle_committed(&mut self, now: Instant) {
        if let Protocol::Ssyncp1(engine) = self {
            engine.handle_committed(now);
        }
    }

    /// Whether a merge has left work for a master's sink; the classic profile merges nothing.
    pub(crate) fn sink_waits(&self) -> bool {
        matches!(self, Protocol::Ssyncp1(engine) if engine.sink_waits())
    }

    /// These changes are about to come. The draft's engine keeps few flows, and looks at each when it comes.
    pub(crate) fn look_ahead(&self, changes: &[Change]) {
        if let Protocol::Ssyncp1(engine) = self {
            engine.look_ahead(changes.iter().map(Change::key));
        }
    }

    pub(crate) fn update(&mut self, now: Instant, change: &Change) -> Result<(), UpdateError> {
        each!(self, engine => engine.update(now, change))
    }

    pub(crate) fn begin_dump(&mut self, now: Instant) {
        each!(self, engine => engine.begin_dump(now));
    }

    pub(crate) fn end_dump(&mut self, now: Instant) {
        each!(self, engine => engine.end_dump(now));
    }

    pub(crate) fn source_overrun(&mut self, now: Instant) {
        each!(self, engine => engine.source_overrun(now));
    }

    pub(crate) fn set_role(&mut self, now: Instant, request: RoleRequest) {
        each!(self, engine => engine.set_role(now, request));
    }

    pub(crate) fn leave(&mut self, now: Instant) {
        each!(self, engine => engine.leave(now));
    }

    pub(crate) fn poll_transmit(&mut self, now: Instant, slot: &mut [u8]) -> Option<usize> {
        each!(self, engine => engine.poll_transmit(now, slot))
    }

    /// The next flows for the sink. Sections have none: whoever wants one reads it in the table.
    pub(crate) fn poll_applied(&mut self, now: Instant, batch: &mut Vec<Change>, limit: usize) -> usize {
        if let Protocol::Ssyncp1(engine) = self {
            while engine.poll_section(now).is_some() {}
        }
        each!(self, engine => engine.poll_applied(now, batch, limit))
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        each!(self, engine => engine.poll_event())
    }

    /// Until when no change is worth a wake-up. The draft's engine waits with its first change, and says nothing of the next.
    pub(crate) fn gathers_until(&self) -> Option<Instant> {
        match self {
            Protocol::Ssyncp1(engine) => engine.gathers_until(),
            Protocol::Classic(_) => None,
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        each!(self, engine => engine.poll_timeout())
    }

    pub(crate) fn role(&self) -> Role {
        each!(self, engine => engine.role())
    }

    pub(crate) fn status(&self) -> EngineStatus {
        each!(self, engine => engine.status())
    }

    pub(crate) fn slots(&self) -> u32 {
        each!(self, engine => engine.slots())
    }

    /// SSYNCP/1's engine, for what only that profile knows.
    pub(crate) fn ssyncp1(&mut self) -> Option<&mut Engine> {
        match self {
            Protocol::Ssyncp1(engine) => Some(engine),
            Protocol::Classic(_) => None,
        }
    }

    /// What is counted for rates; nothing of the classic profile, whose counters have other names.
    pub(crate) fn counters(&self) -> Counters {
        match self {
            Protocol::Ssyncp1(engine) => *engine.counters(),
            Protocol::Classic(engine) => engine.rates(),
        }
    }

    /// Largest frame that it makes where the link carries frames of `carries` bytes.
    pub(crate) fn frame_len(&self, carries: usize) -> usize {
        match self {
            Protocol::Ssyncp1(_) => carries,
            Protocol::Classic(_) => carries.min(MESSAGE_LEN_MAX),
        }
    }

    /// Messages of the classic profile are never longer than 1208 bytes, which every link carries.
    pub(crate) fn set_frame_len(&mut self, frame_len: usize) {
        if let Protocol::Ssyncp1(engine) = self {
            engine.set_frame_len(frame_len);
        }
    }

    /// The sync links can hold so many frames that were not read yet. The classic profile has no word for it.
    pub(crate) fn set_receive_room(&mut self, frames: u32) {
        if let Protocol::Ssyncp1(engine) = self {
            engine.set_receive_room(frames);
        }
    }

    /// Flows that fit the table.
    pub(crate) fn capacity(&self) -> u64 {
        self.status().capacity
    }

    /// The size of this node's kernel's table; the classic profile has nobody to tell.
    pub(crate) fn set_kernel_room(&mut self, room: KernelRoom) {
        if let Protocol::Ssyncp1(engine) = self {
            engine.set_kernel_room(room);
        }
    }

    pub(crate) fn peer_room(&self) -> Option<KernelRoom> {
        match self {
            Protocol::Ssyncp1(engine) => engine.peer_room(),
            Protocol::Classic(_) => None,
        }
    }

    /// The table is proven anew; how many buckets are in question, or why not.
    pub(crate) fn resync(&mut self, now: Instant, full: bool) -> Result<u32, String> {
        match self {
            Protocol::Ssyncp1(engine) => engine.resync(now, full).map_err(|error| error.to_string()),
            Protocol::Classic(_) => Err(NO_RESYNC.to_owned()),
        }
    }

    /// Marks what was submitted so far; why it cannot be waited for, if not.
    pub(crate) fn begin_flush(&self, now: Instant, timeout: Duration) -> Result<Flush, String> {
        match self {
            Protocol::Ssyncp1(engine) => engine.begin_flush(now, timeout, None).map_err(|error| error.to_string()),
            Protocol::Classic(_) => Err(NO_FLUSH.to_owned()),
        }
    }

    pub(crate) fn flush_state(&self, now: Instant, flush: &mut Flush) -> Result<FlushState, NotMaster> {
        match self {
            Protocol::Ssyncp1(engine) => engine.flush_state(now, flush),
            Protocol::Classic(_) => Err(NotMaster),
        }
    }

    /// A master gives the role away, or a backup asks for it if it may; who is to be master then, or why there is no switch.
    pub(crate) fn switchover(&mut self, now: Instant, to: Option<&Who>, asks: bool) -> Result<Option<NodeId>, String> {
        match self {
            Protocol::Ssyncp1(engine) if engine.role() != Role::Master && !asks => Ok(None),
            Protocol::Ssyncp1(engine) => {
                let to = to.map(|who| number(engine, who)).transpose()?;
                engine.switchover(now, to).map(Some).map_err(|error| error.to_string())
            }
            Protocol::Classic(_) => Err(NO_SWITCH.to_owned()),
        }
    }

    /// Whether this node is to be without the role.
    pub(crate) fn set_draining(&mut self, now: Instant, draining: bool) -> Result<(), String> {
        match self {
            Protocol::Ssyncp1(engine) => {
                engine.set_draining(now, draining);
                Ok(())
            }
            Protocol::Classic(_) => Err(NO_SWITCH.to_owned()),
        }
    }

    /// A node is dead, by its operator's oath; why that changes nothing, if so.
    pub(crate) fn peer_is_dead(&mut self, now: Instant, node: NodeId) -> Result<(), String> {
        match self {
            Protocol::Ssyncp1(engine) => engine.peer_is_dead(now, node).map_err(|error| error.to_string()),
            Protocol::Classic(_) => Err(NO_SWITCH.to_owned()),
        }
    }

    /// Whether the group's addresses belong here.
    pub(crate) fn holds_addresses(&self) -> bool {
        match self {
            Protocol::Ssyncp1(engine) => engine.holds_addresses(),
            Protocol::Classic(engine) => engine.role() == Role::Master,
        }
    }

    /// Other settings for an engine that runs.
    pub(crate) fn reconfigure(&mut self, now: Instant, tuning: &Tuning) -> Result<(), String> {
        match self {
            Protocol::Ssyncp1(engine) => engine.reconfigure(now, tuning).map_err(|error| error.to_string()),
            Protocol::Classic(engine) => {
                engine.set_batch_delay(tuning.batch_delay);
                Ok(())
            }
        }
    }

    /// Other secrets for an engine that runs; the classic profile has no seal.
    pub(crate) fn set_secrets(&mut self, now: Instant, sealing: &Sealing) -> Result<(), String> {
        match self {
            Protocol::Ssyncp1(engine) => {
                let secrets = sealing.secrets.clone();
                engine.set_secrets(now, secrets, sealing.auth()).map_err(|error| error.to_string())
            }
            Protocol::Classic(_) => Ok(()),
        }
    }

    /// One flow.
    pub(crate) fn flow(&self, key: &FlowKey, now: Instant) -> Option<Flow> {
        each!(self, engine => engine.flow(key, now))
    }

    /// Flows of some slots of the table; `most` of those that are wanted.
    pub(crate) fn flows_in(
        &self,
        slots: Range<u32>,
        now: Instant,
        most: usize,
        wanted: impl Fn(&Flow) -> bool,
    ) -> Vec<Flow> {
        each!(self, engine => engine.flows_in(slots, now).filter(wanted).take(most).collect())
    }
}

/// The number of a node that an operator names: this one or a peer.
fn number(engine: &Engine, who: &Who) -> Result<NodeId, String> {
    let peers = engine.peers();
    let own = (engine.node(), engine.name());
    let known: Vec<_> = [own].into_iter().chain(peers.iter().map(|peer| (peer.node, &*peer.name))).collect();
    who.number(&known)
}
