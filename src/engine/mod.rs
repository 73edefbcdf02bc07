//! The protocol itself, without I/O. (Room under construction: bodies follow; signatures are final.)

pub mod config;
pub mod event;

use crate::flow::{Change, Flow};
use crate::time::Instant;
use crate::wire::{FrameMeta, NodeId};
pub use config::{Config, ConfigError, RoleMode};
pub use event::{Event, Role, SyncState};

/// Why a change from the owner was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UpdateError {
    /// Only the master's source is listened to.
    #[error("this node is not master")]
    NotMaster,
    /// The table has no room for another key; the refusal is counted.
    #[error("the table is full")]
    TableFull,
    /// Of a kind that this version does not replicate (another address family).
    #[error("this kind of flow is not replicated")]
    Unsupported,
}

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

/// What is known of one peer, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerStatus {
    /// Who.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Its incarnation.
    pub incarnation: u64,
    /// Its role, by its last ADVERT.
    pub role: Role,
    /// Its priority, by its last ADVERT.
    pub priority: u8,
    /// Proven in both directions.
    pub established: bool,
    /// Not yet proven equal to a master since it started, by its own word.
    pub cold: bool,
    /// The last number of our stream that it holds without a hole (only while we are master).
    pub frontier: u64,
    /// When it was last heard.
    pub heard_at: Instant,
}

/// The engine's state in one picture, for people and programs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EngineStatus {
    /// This node.
    pub node: NodeId,
    /// The group.
    pub sync_id: u8,
    /// The role.
    pub role: Role,
    /// Effective VRRP priority.
    pub priority: u8,
    /// Newest term known.
    pub term: u64,
    /// Who is master, if that is known.
    pub master: Option<NodeId>,
    /// How far our table is from its master's.
    pub sync: SyncState,
    /// Whether the table is not yet proven since the start.
    pub cold: bool,
    /// Flows in the table.
    pub entries: u64,
    /// Flows that fit.
    pub capacity: u64,
    /// Digest of the whole table.
    pub digest: u64,
    /// When our digest was last seen equal to the master's.
    pub proven_at: Option<Instant>,
    /// Buckets still to be walked, of 4096.
    pub buckets_unproven: u32,
    /// Number of the newest DATA frame sent.
    pub stream_seq: u64,
    /// Number up to which the followed stream is held without a hole.
    pub frontier: u64,
    /// Records that wait to be sent.
    pub pending: u64,
    /// Records that wait for the sink.
    pub unapplied: u64,
    /// Sync links up.
    pub link_up: bool,
    /// Peers, established or not.
    pub peers: Vec<PeerStatus>,
    /// Counters by name: frames and records in and out, and every drop by its reason.
    pub counters: Vec<(&'static str, u64)>,
}

/// One replicated table and its protocol; sans-IO. The owner calls `handle_*` when the world speaks, `update` and the
/// setters when it speaks itself, and then asks every `poll_*` until it answers nothing.
#[derive(Debug)]
pub struct Engine {}

#[allow(unused_variables, clippy::missing_errors_doc)]
impl Engine {
    /// Builds it; the only place where it allocates.
    pub fn new(config: Config, now: Instant) -> Result<Self, ConfigError> {
        unimplemented!()
    }
    /// A frame has arrived. The bytes may be changed in place.
    pub fn handle_frame(&mut self, now: Instant, meta: FrameMeta, frame: &mut [u8]) {
        unimplemented!()
    }
    /// Time has passed; harmless at any time, due at [`Engine::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        unimplemented!()
    }
    /// The sync links came up or all went down.
    pub fn handle_link(&mut self, now: Instant, up: bool) {
        unimplemented!()
    }
    /// Everything that [`Engine::poll_applied`] yielded so far is in the sink (the driver has flushed it).
    pub fn handle_committed(&mut self, now: Instant) {
        unimplemented!()
    }
    /// The sink can take nothing more before `handle_committed`... the owner's source changed something.
    pub fn update(&mut self, now: Instant, change: &Change) -> Result<(), UpdateError> {
        unimplemented!()
    }
    /// A dump of the source begins: entries that it does not name until `end_dump` have died unseen.
    pub fn begin_dump(&mut self, now: Instant) {
        unimplemented!()
    }
    /// The dump is complete: what it did not name is deleted, here and on the peers.
    pub fn end_dump(&mut self, now: Instant) {
        unimplemented!()
    }
    /// The source said that it lost changes; the owner then dumps.
    pub fn source_overrun(&mut self, now: Instant) {
        unimplemented!()
    }
    /// The owner's wish for the role.
    pub fn set_role(&mut self, now: Instant, request: RoleRequest) {
        unimplemented!()
    }
    /// Another priority, 1 to 255.
    pub fn set_priority(&mut self, now: Instant, priority: u8) -> Result<(), ConfigError> {
        unimplemented!()
    }
    /// Says goodbye (priority 0) so that the others need not wait; poll_transmit then yields the last frames.
    pub fn leave(&mut self, now: Instant) {
        unimplemented!()
    }
    /// The next frame to send, written into `slot`; its length, or `None` if there is none now.
    pub fn poll_transmit(&mut self, now: Instant, slot: &mut [u8]) -> Option<usize> {
        unimplemented!()
    }
    /// Moves changes that the sink has not seen into `batch` until the batch has `limit` of them; how many were moved.
    pub fn poll_applied(&mut self, now: Instant, batch: &mut Vec<Change>, limit: usize) -> usize {
        unimplemented!()
    }
    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        unimplemented!()
    }
    /// When [`Engine::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        unimplemented!()
    }
    /// The role now.
    pub fn role(&self) -> Role {
        unimplemented!()
    }
    /// The state in one picture; allocates, so not on the hot path.
    pub fn status(&self) -> EngineStatus {
        unimplemented!()
    }
    /// Every flow in the table, with its time-out as of `now`.
    pub fn flows(&self, now: Instant) -> impl Iterator<Item = Flow> + '_ {
        std::iter::empty()
    }
}
