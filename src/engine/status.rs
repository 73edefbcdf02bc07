//! The engine's state in one picture, for people and programs. Allocates, so it is not for the hot path.

use super::Progress;
use super::event::{Role, SyncState};
use super::exposure::AtRisk;
use super::keyring::Auth;
use super::{Counters, Engine, NodeId};
use crate::time::Instant;
use crate::wire::{Capabilities, DropCounters};

/// Foreign protocol versions that are reported; more are only counted.
pub(super) const VERSIONS_MAX: usize = 32;

/// How this node seals what it sends, and why so. The default is a node that has no secret.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct SealStatus {
    /// What is asked of others; means something only where there is a secret.
    pub auth: Auth,
    /// Numbers of the secrets that this node holds, in the order in which it prefers them.
    pub secrets: Vec<u8>,
    /// Number of the secret that frames are sealed with now; `None`: they leave in the clear.
    pub seals_with: Option<u8>,
    /// Peers for whose sake that is not the first secret: they cannot open it yet, or their secret of that number is another.
    pub waits_for: Vec<NodeId>,
}

/// What a peer says of its secrets, and what it does. The default is a node that has no secret.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct PeerSeal {
    /// Numbers of the secrets that it can open, by its own word.
    pub opens: Vec<u8>,
    /// It takes no frame that is not sealed, by its own word.
    pub enforces: bool,
    /// Whether those are the same secrets as ours of these numbers; `None` while it has none, or one that this node has not,
    /// so that this cannot be told.
    pub agrees: Option<bool>,
    /// Number of the secret that its newest frame was sealed with; `None`: it came in the clear. Before this node refuses the
    /// one, or the other, every peer has to have left it.
    pub sealed_with: Option<u8>,
}

/// What is known of one peer.
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
    /// Is to be without the role, by its own word.
    pub draining: bool,
    /// The last number of our stream up to which it holds everything (0 unless it follows us).
    pub frontier: u64,
    /// Frames of our stream that it can take above the newest, by its own word (0 unless it follows us).
    pub credit: u64,
    /// It follows us and stands still: nobody waits for it.
    pub lagging: bool,
    /// The same, as far as it was proven when it said so: what counts for acknowledgement. `None` while it is not proven.
    pub acknowledged: Option<u64>,
    /// Records of this mastership that it is not known to hold, those included that wait to be sent; `None` while it is not
    /// proven, and on who is no master.
    pub behind: Option<u64>,
    /// What it can take, by its last ADVERT.
    pub capabilities: Capabilities,
    /// Most entries that its kernel's connection table takes; 0 if that is not known.
    pub kernel_capacity: u32,
    /// Hash buckets of that table; 0 if that is not known.
    pub kernel_buckets: u32,
    /// Its secrets.
    pub seal: PeerSeal,
    /// When it was last heard.
    pub heard_at: Instant,
}

/// The engine's state.
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
    /// To whom this master gives the role at present.
    pub heir: Option<NodeId>,
    /// This backup asks for the role, or was named heir.
    pub asks: bool,
    /// This node is to be without the role.
    pub draining: bool,
    /// How far our table is from its master's.
    pub sync: SyncState,
    /// Whether the table has not been proven since the start.
    pub cold: bool,
    /// Entries in the table: flows, and entries of sections.
    pub entries: u64,
    /// Flows that fit.
    pub capacity: u64,
    /// Blocks in use of the table's annex, which holds addresses of IPv6 and attributes.
    pub annex_used: u64,
    /// Blocks of it in all.
    pub annex_blocks: u64,
    /// Digest of the whole table.
    pub digest: u64,
    /// When our digest was last seen equal to the master's.
    pub proven_at: Option<Instant>,
    /// Buckets not proven, of 4096.
    pub buckets_unproven: u32,
    /// Buckets known to differ from the master's, of 4096.
    pub buckets_different: u32,
    /// How far it is on its way to be proven; `None` if it is, or follows nobody.
    pub progress: Option<Progress>,
    /// Number of the newest DATA frame sent.
    pub stream_seq: u64,
    /// Number up to which the followed stream is held without a hole.
    pub frontier: u64,
    /// Records that wait to be sent.
    pub pending: u64,
    /// Of them, those that wait since something was submitted: 0 while only a repair sends.
    pub unsent: u64,
    /// When the oldest of them was submitted; `None` if there are none.
    pub unsent_since: Option<Instant>,
    /// When the oldest record was submitted that not every proven follower is known to hold; `None` if there is none.
    pub unacknowledged_since: Option<Instant>,
    /// Frames of this mastership that not every proven follower is known to hold; `None` without a proven follower.
    pub unacknowledged: Option<u64>,
    /// Records of this mastership that not every proven follower is known to hold, those included that wait to be sent;
    /// `None` without a proven follower.
    pub unacknowledged_records: Option<u64>,
    /// What would be lost if this master died now; `None` if it is none.
    pub at_risk: Option<AtRisk>,
    /// Records that wait for the sink.
    pub unapplied: u64,
    /// How what this node sends is sealed.
    pub seal: SealStatus,
    /// Sync links up.
    pub link_up: bool,
    /// Peers, established or not.
    pub peers: Vec<PeerStatus>,
    /// Counters by name: frames and records in and out, and every drop as `drop_` with its reason.
    pub counters: Vec<(String, u64)>,
}

impl Engine {
    /// How far our table is from its master's.
    pub fn sync_state(&self) -> SyncState {
        if self.role() == Role::Master {
            SyncState::Source
        } else if self.inbox.stream().is_some() && self.inbox.is_lagging() {
            SyncState::Lagging
        } else if self.inbox.stream().is_some() && self.repair.is_proven() {
            SyncState::InSync
        } else if self.cold {
            SyncState::Cold
        } else if self.inbox.stream().is_some() && self.repair.is_diverged() {
            SyncState::Diverged
        } else {
            SyncState::Syncing
        }
    }

    /// How far a follower is; by the clock of the last call.
    fn progress(&self) -> Option<Progress> {
        self.inbox.stream()?;
        self.repair.progress(self.last_run, self.counters.records_applied)
    }

    /// Entries in the table: flows, and entries of sections.
    pub fn entries(&self) -> u64 {
        u64::from(self.table.len())
    }

    /// Flows whose change waits to be sent.
    pub fn pending(&self) -> u32 {
        self.table.pending()
    }

    /// What it has counted so far, without an allocation.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// This node's number.
    pub fn node(&self) -> NodeId {
        self.config.node
    }

    /// This node's name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Frames that were refused, by reason, since the engine was built.
    pub fn drops(&self) -> &DropCounters {
        &self.drops
    }

    /// Effective VRRP priority.
    pub fn priority(&self) -> u8 {
        self.election.priority()
    }

    /// Newest term known.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Whether the table has not been proven since the start.
    pub fn is_cold(&self) -> bool {
        self.cold
    }

    /// What is known of the peers, established or not: the part of [`Engine::status`] for who asks often.
    pub fn peers(&self) -> Vec<PeerStatus> {
        self.peers_with(self.figures().unsent)
    }

    fn peers_with(&self, unsent: u64) -> Vec<PeerStatus> {
        self.peers.iter().map(|peer| self.peer_status(peer, unsent)).collect()
    }

    /// The state in one picture.
    pub fn status(&self) -> EngineStatus {
        let (role, figures) = (self.role(), self.figures());
        EngineStatus {
            node: self.config.node,
            sync_id: self.config.sync_id,
            role,
            priority: self.election.priority(),
            term: self.term,
            master: if role == Role::Master {
                Some(self.config.node)
            } else {
                self.inbox.stream().map(|stream| stream.node)
            },
            heir: self.heir(),
            asks: self.is_about_to_inherit(),
            draining: self.is_draining(),
            sync: self.sync_state(),
            cold: self.cold,
            entries: self.entries(),
            capacity: u64::from(self.table.capacity()),
            annex_used: u64::from(self.table.annex_used()),
            annex_blocks: u64::from(self.table.annex_blocks()),
            digest: self.table.digest(),
            proven_at: self.repair.proven_at(),
            buckets_unproven: if role == Role::Master { 0 } else { self.repair.dirty() },
            buckets_different: if role == Role::Master { 0 } else { self.repair.different() },
            progress: self.progress(),
            stream_seq: self.outbox.seq(),
            frontier: self.inbox.frontier(),
            pending: u64::from(self.table.pending()) + u64::from(self.table.pending_sections()),
            unsent: figures.unsent,
            unsent_since: figures.unsent_since,
            unacknowledged_since: figures.unacknowledged_since,
            unacknowledged: figures.unacknowledged,
            unacknowledged_records: figures.unacknowledged_records,
            at_risk: figures.at_risk,
            unapplied: u64::from(self.table.unapplied()) + u64::from(self.table.unapplied_sections()),
            seal: self.seal_status(),
            link_up: self.link_up,
            peers: self.peers_with(figures.unsent),
            counters: self.all_counters(),
        }
    }

    fn all_counters(&self) -> Vec<(String, u64)> {
        let own = self.counters.iter().map(|(name, count)| (name.to_owned(), count));
        let drops = self.drops.iter().map(|(name, count)| (format!("drop_{name}"), count));
        own.chain(drops).collect()
    }

    fn peer_status(&self, peer: &super::peers::Peer, unsent: u64) -> PeerStatus {
        let acknowledged = peer.acked.frontier().filter(|_| peer.established);
        let proven = acknowledged.filter(|_| self.role() == Role::Master);
        PeerStatus {
            node: peer.node,
            name: peer.name.to_string(),
            incarnation: peer.incarnation,
            role: peer.role(),
            priority: peer.word.priority,
            established: peer.established,
            cold: peer.word.is_cold(),
            draining: peer.word.is_draining(),
            frontier: peer.frontier,
            credit: peer.follower.credit(self.outbox.seq()),
            lagging: peer.follower.lagging,
            acknowledged,
            behind: proven.map(|frontier| self.exposure.records_above(frontier) + unsent),
            capabilities: peer.word.capabilities,
            kernel_capacity: peer.word.kernel.capacity,
            kernel_buckets: peer.word.kernel.buckets,
            seal: self.peer_seal(peer),
            heard_at: peer.heard_at,
        }
    }
}
