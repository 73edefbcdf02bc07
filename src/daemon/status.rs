//! The state of a node as JSON: `ssyncp.status/1`. Times end in their unit; what was not measured is null, never 0.

mod seal;

pub use seal::{PeerSealRow, SealRow};

use crate::daemon::journal::Entry;
use crate::daemon::sandbox::SandboxStatus;
use crate::daemon::settings::{Node, Profile, VirtualAddress, Wait, WaitKind};
use crate::daemon::track::TrackState;
use crate::engine::{EngineStatus, PeerStatus, Progress, SealStatus};
use crate::time::Instant;
use crate::transport::LinkStatus;
use crate::wire::Capabilities;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The schema of [`NodeStatus`].
pub const STATUS_SCHEMA: &str = "ssyncp.status/1";

/// `GET /v1/status`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct NodeStatus {
    /// `ssyncp.status/1`.
    #[schemars(extend("const" = "ssyncp.status/1"))]
    pub schema: String,
    /// Who answers.
    pub node: NodeName,
    /// Requests that the control interface refused, by reason.
    pub refused_requests: BTreeMap<String, u64>,
    /// The last time that the configuration was read anew; null if it was not since the start.
    #[serde(default)]
    pub reload: Option<ReloadStatus>,
    /// What the system does with a program that asks for huge pages (transparent_hugepage): always and madvise give them,
    /// never does not; null where it has none.
    #[serde(default)]
    pub huge_pages: Option<String>,
    /// Whether keys can come to a disk; null where there is no secret.
    #[serde(default)]
    pub swap: Option<SwapStatus>,
    /// What holds the daemon in.
    #[serde(default)]
    pub sandbox: SandboxStatus,
    /// Every group, in the order of the configuration.
    pub groups: Vec<GroupStatus>,
}

/// A node and its program.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct NodeName {
    /// Its number.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Version of the program.
    pub version: String,
}

impl NodeName {
    /// The node of the configuration, running this program.
    pub fn new(node: &Node) -> Self {
        NodeName { id: node.id.0, name: node.name.clone(), version: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

/// Whether the daemon's memory, keys among it, is kept out of swap.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct SwapStatus {
    /// No page of it goes there.
    pub locked: bool,
    /// Why it may, with the cure; null where it may not.
    pub problem: Option<String>,
}

/// What the last reload came to.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ReloadStatus {
    /// Time since then.
    pub age_s: f64,
    /// done, or refused: then the old settings are in force.
    pub result: String,
    /// What has changed, or why nothing has.
    pub text: String,
}

/// One group of [`NodeStatus`].
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct GroupStatus {
    /// The group.
    pub sync_id: u8,
    /// Format on the wire: ssyncp1 or classic.
    #[serde(default)]
    pub profile: Profile,
    /// Role: init, backup, promoting, master, fault or none.
    pub role: String,
    /// Newest term known.
    pub term: u64,
    /// VRRP priority in force: the configured one, and what the tracks add.
    pub priority: u8,
    /// VRRP priority of the configuration; null with the classic profile, which has none.
    #[serde(default)]
    pub configured_priority: Option<u8>,
    /// The tracks that the priority depends on, in the order of the configuration.
    #[serde(default)]
    pub tracks: Vec<TrackRow>,
    /// The master's node number; null while none is known.
    pub master: Option<u32>,
    /// The node that this master gives the role to at present; null if it gives it to nobody.
    #[serde(default)]
    pub heir: Option<u32>,
    /// This backup asks its master for the role, or was named heir.
    #[serde(default)]
    pub asks: bool,
    /// Why this node is to be without the role: operator, track; none if it may have it.
    #[serde(default)]
    pub draining: Vec<String>,
    /// cold, syncing, lagging, diverged, in_sync or source; unknown with the classic profile, which proves nothing.
    pub sync: String,
    /// Not yet proven equal since the start.
    pub cold: bool,
    /// Flows in the table.
    pub entries: u64,
    /// Flows that fit.
    pub capacity: u64,
    /// Blocks in use of the table's annex, which holds addresses of IPv6 and attributes.
    #[serde(default)]
    pub annex_used: u64,
    /// Blocks of it in all, 64 bytes each.
    #[serde(default)]
    pub annex_blocks: u64,
    /// Digest of the table, 16 hexadecimal digits; null before there is a table.
    pub digest: Option<String>,
    /// Time since the digest was last seen equal to the master's.
    pub digest_age_s: Option<f64>,
    /// Buckets not proven, of 4096.
    pub buckets_unproven: u32,
    /// Buckets known to differ from the master's, of 4096.
    #[serde(default)]
    pub buckets_different: u32,
    /// How far this node is on its way to be proven equal; null if it is, or follows nobody.
    #[serde(default)]
    pub progress: Option<ProgressRow>,
    /// What the last audit of the kernel found; null before there was one, and on who is no backup.
    pub kernel_verified: Option<KernelVerified>,
    /// How large the kernel's table is; null where there is none.
    pub kernel: Option<KernelRow>,
    /// Number of the newest DATA frame sent.
    pub stream_seq: u64,
    /// Number up to which the followed stream is held without a hole.
    pub frontier: u64,
    /// Records that wait to be sent.
    pub pending: u64,
    /// Frames of this node's stream that not every proven peer is known to hold; null if it is not master, or has none.
    #[serde(default)]
    pub unacknowledged: Option<u64>,
    /// Records that not every proven peer is known to hold, those included that wait to be sent; null as above.
    #[serde(default)]
    pub unacknowledged_records: Option<u64>,
    /// Age of the oldest of these records. 0 if there are none; null as above.
    #[serde(default)]
    pub unacknowledged_age_s: Option<f64>,
    /// Age of the oldest change that waits to be sent. 0 if there is none; null if this node is not master.
    #[serde(default)]
    pub unsent_age_s: Option<f64>,
    /// Records that would be lost if this master died now: no proven peer is known to hold them. All entries while no peer
    /// is proven; null if this node is not master.
    #[serde(default)]
    pub rpo_records: Option<u64>,
    /// Age of the oldest of them, or time since a peer was proven. 0 if there are none; null as above.
    #[serde(default)]
    pub rpo_s: Option<f64>,
    /// Records that wait for the sink.
    pub unapplied: u64,
    /// What frames are sealed with; null without a secret, and with the classic profile.
    #[serde(default)]
    pub seal: Option<SealRow>,
    /// What the sync links run on: raw, packet, or xdp with its mode, and memory where there are none. Null before they
    /// are open.
    #[serde(default)]
    pub transport: Option<String>,
    /// A sync link is up.
    pub link_up: bool,
    /// Largest frame in bytes that all sync links carry now.
    #[serde(default)]
    pub frame_len: u64,
    /// Every sync link, in the order of the configuration.
    #[serde(default)]
    pub links: Vec<LinkRow>,
    /// What keeps the group from working: a missing interface, a source or a sink that fails; null if nothing does.
    pub trouble: Option<String>,
    /// Why the recording of the group's traffic has ended; not there while it goes on, or if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tap_trouble: Option<String>,
    /// The addresses that the master holds.
    pub addresses: Vec<AddressStatus>,
    /// The routes that only the master has.
    #[serde(default)]
    pub routes: Vec<RouteStatus>,
    /// The other nodes.
    pub peers: Vec<PeerRow>,
    /// What has moved lately; null until it was measured.
    #[serde(default)]
    pub rates: Option<Rates>,
    /// How the loop waits; null before it runs.
    #[serde(default)]
    pub wait: Option<WaitRow>,
    /// Frames that were refused, by reason, without the reasons that never were one.
    #[serde(default)]
    pub drops: BTreeMap<String, u64>,
    /// Counters of engine, transport, source, sink and driver, each with its prefix.
    pub counters: BTreeMap<String, u64>,
    /// Events of this group since the start; the number of the last one in `/v1/events`.
    #[serde(default)]
    pub events: u64,
    /// The last events, oldest first.
    pub last_events: Vec<EventRow>,
}

/// How far a table is on its way to be proven equal to the master's.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ProgressRow {
    /// Buckets that are compared or walked, in per cent, rounded down.
    pub percent: u8,
    /// Buckets that are still to be compared or walked, of 4096.
    pub buckets_left: u32,
    /// Records taken per second since it began.
    pub records_per_s: u64,
    /// Time that the rest will take, by the buckets done so far; null while none is.
    pub eta_s: Option<f64>,
}

impl ProgressRow {
    fn new(progress: Progress) -> Self {
        let Progress { percent, buckets_left, records_per_s, eta } = progress;
        ProgressRow { percent, buckets_left, records_per_s, eta_s: eta.map(|eta| eta.as_secs_f64()) }
    }
}

/// How a group's loop waits for frames and changes; how often it did is in the counters `driver_naps`, `driver_naps_in_vain`
/// and `driver_blocks`.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct WaitRow {
    /// adaptive, block, nap or spin.
    pub kind: WaitKind,
    /// Longest nap; null where there are none.
    pub latency_bound_s: Option<f64>,
}

impl WaitRow {
    /// Of a loop that waits so.
    pub fn new(wait: Wait) -> Self {
        let naps = matches!(wait.kind, WaitKind::Adaptive | WaitKind::Nap);
        WaitRow { kind: wait.kind, latency_bound_s: naps.then_some(wait.latency_bound.as_secs_f64()) }
    }
}

/// What moves in a second, over the last second or the time since somebody looked.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Rates {
    /// Time that they are measured over.
    pub over_s: f64,
    /// Frames that arrived.
    pub frames_received_per_s: f64,
    /// Frames that left.
    pub frames_sent_per_s: f64,
    /// Records that were applied to the table.
    pub records_received_per_s: f64,
    /// Records that left for the first time.
    pub records_sent_per_s: f64,
    /// Changes that the source told.
    pub updates_per_s: f64,
}

/// What an audit found: the kernel of a backup, against the table that was committed to it.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct KernelVerified {
    /// Entries in the kernel that the group's source would take.
    pub entries: u64,
    /// Entries that are other than what was committed.
    pub differing: u64,
    /// Flows that were committed and are not there.
    pub missing: u64,
    /// Entries that nobody committed, and that are not this machine's own.
    pub extra: u64,
    /// Time since the audit ended.
    pub age_s: f64,
}

/// The size of the kernel's table, and of the master's or (on a master) the smallest of the backups'.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct KernelRow {
    /// Entries that it can hold (`nf_conntrack_max`).
    pub capacity: u64,
    /// Entries that it holds, in all (`nf_conntrack_count`).
    pub entries: u64,
    /// Buckets of its hash (`nf_conntrack_buckets`).
    pub buckets: u64,
    /// Entries that the peer's kernel can hold; null until it is told.
    pub peer_capacity: Option<u64>,
    /// Buckets of the peer's hash; null until it is told.
    pub peer_buckets: Option<u64>,
}

/// One address of [`GroupStatus`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct AddressStatus {
    /// As configured: `192.0.2.10/24 dev eth0`.
    pub address: String,
    /// Whether this node holds it; null before that is known.
    pub held: Option<bool>,
}

/// One route of [`GroupStatus`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RouteStatus {
    /// As configured: `198.51.100.0/24 via 192.0.2.1 dev eth0`.
    pub route: String,
    /// Whether this node has it; null before that is known.
    pub held: Option<bool>,
}

/// One sync link of [`GroupStatus`].
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct LinkRow {
    /// The interface.
    pub name: String,
    /// Whether frames can pass.
    pub up: bool,
    /// `up`, or why they cannot.
    pub condition: String,
    /// MTU of the interface in bytes.
    pub mtu: u32,
    /// What it runs on: raw, packet, or xdp with its mode.
    #[serde(default)]
    pub transport: String,
    /// Why it does not run on what was asked for; null if it does.
    #[serde(default)]
    pub instead_of: Option<String>,
    /// Frames taken from it, copies of what another link brought included.
    pub frames_received: u64,
    /// Bytes of those frames.
    pub bytes_received: u64,
    /// Frames given to it.
    pub frames_sent: u64,
    /// Bytes of those frames.
    pub bytes_sent: u64,
    /// Frames that it did not take.
    pub send_errors: u64,
    /// Frames that the kernel dropped before they were read.
    pub dropped_by_kernel: u64,
}

/// One peer of [`GroupStatus`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct PeerRow {
    /// Its number.
    pub node: u32,
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: String,
    /// Its priority.
    pub priority: u8,
    /// Proven in both directions.
    pub established: bool,
    /// Not yet proven equal, by its own word.
    pub cold: bool,
    /// Is to be without the role, by its own word.
    #[serde(default)]
    pub draining: bool,
    /// What it can take, by its last ADVERT: `conn6`, `attributes`, …
    pub capabilities: Vec<String>,
    /// Most entries that its kernel's connection table takes; null until it is told.
    pub kernel_capacity: Option<u32>,
    /// Hash buckets of that table; null until they are told.
    pub kernel_buckets: Option<u32>,
    /// What it holds of our stream.
    pub frontier: u64,
    /// Frames of our stream that it can take above the newest, by its own word; 0 unless it follows us.
    pub credit: u64,
    /// It follows us and stands still: nobody waits for it.
    pub lagging: bool,
    /// The same as far as it is proven, which is what counts; null while it is not proven, and on who is no master.
    #[serde(default)]
    pub acknowledged: Option<u64>,
    /// Records of this master that it is not known to hold, those included that wait to be sent; null as above.
    #[serde(default)]
    pub behind: Option<u64>,
    /// What it seals with, and can open.
    #[serde(default)]
    pub seal: PeerSealRow,
    /// Time since it was heard.
    pub heard_ms: u64,
}

/// One track of [`GroupStatus`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct TrackRow {
    /// Its name.
    pub name: String,
    /// interface, script, process, http or file.
    pub kind: String,
    /// Whether it is up; null before the first result.
    pub up: Option<bool>,
    /// The number of a file; null of other kinds, and before the first result.
    #[serde(default)]
    pub number: Option<i32>,
    /// Time since that changed.
    pub age_s: f64,
    /// Subtracted from the priority while it is down (negative), added while it is up (positive); 0: no role while down. Of a
    /// file: the number is multiplied by it and added.
    pub weight: i16,
    /// What the last look found: of a script its last line.
    pub output: String,
    /// Looks so far.
    pub checks: u64,
    /// Of these, how many were bad.
    pub failures: u64,
    /// Of these, how many could not even be made.
    pub not_run: u64,
}

impl TrackRow {
    /// What is known of a track, seen from now.
    pub fn new(track: &TrackState, now: Instant) -> Self {
        let TrackState { name, kind, weight, up, number, since, output, checks, failures, not_run } = track.clone();
        let age_s = now.since(since).as_secs_f64();
        TrackRow { name, kind: kind.to_owned(), up, number, age_s, weight, output, checks, failures, not_run }
    }
}

/// One event of [`GroupStatus`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct EventRow {
    /// Time since it happened.
    pub age_s: f64,
    /// Its name.
    pub event: String,
    /// In words.
    pub text: String,
}

impl GroupStatus {
    /// A group whose engine could not be started yet.
    pub fn waiting(sync_id: u8, priority: u8, trouble: String) -> Self {
        GroupStatus {
            sync_id,
            priority,
            role: "init".into(),
            sync: "cold".into(),
            cold: true,
            trouble: Some(trouble),
            ..GroupStatus::default()
        }
    }

    /// What the engine says of itself; the driver adds what it knows.
    pub fn of_engine(engine: &EngineStatus, now: Instant) -> Self {
        let age = |since: Option<Instant>| since.map_or(0.0, |since| now.since(since).as_secs_f64());
        GroupStatus {
            sync_id: engine.sync_id,
            profile: Profile::default(),
            role: engine.role.name().into(),
            term: engine.term,
            priority: engine.priority,
            configured_priority: None,
            tracks: Vec::new(),
            master: engine.master.map(|node| node.0),
            heir: engine.heir.map(|node| node.0),
            asks: engine.asks,
            draining: Vec::new(),
            sync: engine.sync.name().into(),
            cold: engine.cold,
            entries: engine.entries,
            capacity: engine.capacity,
            annex_used: engine.annex_used,
            annex_blocks: engine.annex_blocks,
            digest: Some(format!("{:016x}", engine.digest)),
            digest_age_s: engine.proven_at.map(|at| now.since(at).as_secs_f64()),
            buckets_unproven: engine.buckets_unproven,
            buckets_different: engine.buckets_different,
            progress: engine.progress.map(ProgressRow::new),
            kernel_verified: None,
            kernel: None,
            stream_seq: engine.stream_seq,
            frontier: engine.frontier,
            pending: engine.pending,
            unacknowledged: engine.unacknowledged,
            unacknowledged_records: engine.unacknowledged_records,
            unacknowledged_age_s: engine.unacknowledged.map(|_| age(engine.unacknowledged_since)),
            unsent_age_s: engine.at_risk.map(|_| age(engine.unsent_since)),
            rpo_records: engine.at_risk.map(|risk| risk.records),
            rpo_s: engine.at_risk.map(|risk| age(risk.since)),
            unapplied: engine.unapplied,
            seal: SealRow::new(engine),
            transport: None,
            link_up: engine.link_up,
            frame_len: 0,
            links: Vec::new(),
            trouble: None,
            tap_trouble: None,
            addresses: Vec::new(),
            routes: Vec::new(),
            peers: engine.peers.iter().map(|peer| PeerRow::new(&engine.seal, peer, now)).collect(),
            wait: None,
            rates: None,
            drops: drops(engine),
            counters: BTreeMap::new(),
            events: 0,
            last_events: Vec::new(),
        }
    }

    /// Adds counters under a prefix.
    pub fn count<N: AsRef<str>>(&mut self, prefix: &str, counters: impl IntoIterator<Item = (N, u64)>) {
        let prefixed = |(name, count): (N, u64)| (format!("{prefix}_{}", name.as_ref()), count);
        self.counters.extend(counters.into_iter().map(prefixed));
    }

    /// Why this node could not take over now (as backup) or does not serve (as master); `None` if all is well.
    pub fn not_ready(&self) -> Option<String> {
        if let Some(trouble) = &self.trouble {
            return Some(trouble.clone());
        }
        match (self.role.as_str(), self.sync.as_str()) {
            ("master", _) | ("backup", "in_sync") => None,
            // Nothing will ever prove more: what a classic backup was sent is all that it can have.
            ("backup", "unknown") if self.link_up => None,
            (role, sync) => Some(format!("{role}, {sync}")),
        }
    }
}

fn drops(engine: &EngineStatus) -> BTreeMap<String, u64> {
    let named = engine.counters.iter().filter_map(|(name, count)| Some((name.strip_prefix("drop_")?, *count)));
    named.filter(|(_, count)| *count > 0).map(|(name, count)| (name.to_owned(), count)).collect()
}

impl PeerRow {
    fn new(own: &SealStatus, peer: &PeerStatus, now: Instant) -> Self {
        PeerRow {
            node: peer.node.0,
            name: peer.name.clone(),
            role: peer.role.name().into(),
            priority: peer.priority,
            established: peer.established,
            cold: peer.cold,
            draining: peer.draining,
            capabilities: Capabilities::NAMES
                .iter()
                .filter(|(bit, _)| peer.capabilities.contains(*bit))
                .map(|(_, name)| (*name).to_owned())
                .collect(),
            kernel_capacity: Some(peer.kernel_capacity).filter(|capacity| *capacity > 0),
            kernel_buckets: Some(peer.kernel_buckets).filter(|buckets| *buckets > 0),
            frontier: peer.frontier,
            credit: peer.credit,
            lagging: peer.lagging,
            acknowledged: peer.acknowledged,
            behind: peer.behind,
            seal: PeerSealRow::new(own, peer),
            heard_ms: u64::try_from(now.since(peer.heard_at).as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl LinkRow {
    /// A link as of now.
    pub fn new(link: &LinkStatus) -> Self {
        let counters = link.counters;
        LinkRow {
            name: link.name.clone(),
            up: link.up(),
            condition: link.condition.words().to_owned(),
            mtu: link.mtu,
            transport: link.mode.word.to_owned(),
            instead_of: link.mode.instead_of.clone(),
            frames_received: counters.frames_received,
            bytes_received: counters.bytes_received,
            frames_sent: counters.frames_sent,
            bytes_sent: counters.bytes_sent,
            send_errors: counters.send_errors,
            dropped_by_kernel: counters.dropped_by_kernel,
        }
    }
}

impl EventRow {
    /// A journal's entry as of `now`.
    pub fn new(entry: &Entry, now: Instant) -> Self {
        EventRow { age_s: now.since(entry.at).as_secs_f64(), event: entry.name.into(), text: entry.text.clone() }
    }
}

impl AddressStatus {
    /// An address and whether it is held.
    pub fn new(address: &VirtualAddress, held: Option<bool>) -> Self {
        AddressStatus { address: address.to_string(), held }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Role, SyncState};
    use crate::time::Duration;
    use crate::wire::NodeId;

    pub(super) fn engine() -> EngineStatus {
        EngineStatus {
            node: NodeId(1),
            sync_id: 51,
            role: Role::Backup,
            priority: 100,
            term: 7,
            master: Some(NodeId(2)),
            heir: None,
            asks: false,
            draining: false,
            sync: SyncState::InSync,
            cold: false,
            entries: 3,
            capacity: 10,
            annex_used: 5,
            annex_blocks: 64,
            digest: 0xabc,
            proven_at: Some(Instant::from_nanos(1_000_000_000)),
            buckets_unproven: 0,
            buckets_different: 0,
            progress: None,
            stream_seq: 0,
            frontier: 9,
            pending: 0,
            unsent: 0,
            unsent_since: None,
            unacknowledged_since: None,
            unacknowledged: None,
            unacknowledged_records: None,
            at_risk: None,
            unapplied: 0,
            seal: crate::engine::SealStatus::default(),
            link_up: true,
            peers: vec![PeerStatus {
                capabilities: Capabilities::NONE,
                node: NodeId(2),
                name: "lb-b".into(),
                incarnation: 5,
                role: Role::Master,
                priority: 150,
                established: true,
                cold: false,
                draining: false,
                frontier: 0,
                credit: 0,
                lagging: false,
                acknowledged: None,
                behind: None,
                kernel_capacity: 0,
                kernel_buckets: 0,
                seal: crate::engine::PeerSeal::default(),
                heard_at: Instant::from_nanos(1_900_000_000),
            }],
            counters: vec![("drop_checksum".into(), 2), ("drop_stale".into(), 0), ("holes".into(), 1)],
        }
    }

    #[test]
    fn times_are_ages_and_the_digest_is_hexadecimal() {
        let mut status = GroupStatus::of_engine(&engine(), Instant::from_nanos(2_000_000_000));
        status.count("transport", [("frames_sent", 4)]);
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!(json["digest"], "0000000000000abc");
        assert_eq!(json["digest_age_s"], 1.0);
        assert_eq!(json["peers"][0]["heard_ms"], 100);
        assert_eq!(json["counters"]["transport_frames_sent"], 4);
        assert_eq!(json["trouble"], serde_json::Value::Null);
        assert_eq!(json["drops"], serde_json::json!({ "checksum": 2 }));
    }

    #[test]
    fn how_far_a_repair_is_stands_in_the_json() {
        let progress =
            Progress { percent: 75, buckets_left: 1024, records_per_s: 5000, eta: Some(Duration::from_millis(2500)) };
        let syncing = EngineStatus { progress: Some(progress), buckets_different: 31, ..engine() };
        let json = serde_json::to_value(GroupStatus::of_engine(&syncing, Instant::ZERO)).unwrap();
        let expected = serde_json::json!({ "percent": 75, "buckets_left": 1024, "records_per_s": 5000, "eta_s": 2.5 });
        assert_eq!(json["progress"], expected);
        assert_eq!(json["buckets_different"], 31);
        let json = serde_json::to_value(GroupStatus::of_engine(&engine(), Instant::ZERO)).unwrap();
        assert!(json["progress"].is_null() && json["peers"][0]["behind"].is_null());
    }

    #[test]
    fn what_was_not_measured_is_null() {
        let status = EngineStatus { proven_at: None, master: None, ..engine() };
        let json = serde_json::to_value(GroupStatus::of_engine(&status, Instant::ZERO)).unwrap();
        assert!(json["digest_age_s"].is_null() && json["master"].is_null());
        let waiting = serde_json::to_value(GroupStatus::waiting(51, 100, "no eth1".into())).unwrap();
        assert!(waiting["digest"].is_null());
    }

    #[test]
    fn ready_is_a_master_or_a_backup_in_sync() {
        let now = Instant::ZERO;
        let group = |role, sync| GroupStatus::of_engine(&EngineStatus { role, sync, ..engine() }, now).not_ready();
        assert_eq!(group(Role::Backup, SyncState::InSync), None);
        assert_eq!(group(Role::Master, SyncState::Source), None);
        assert_eq!(group(Role::Backup, SyncState::Syncing), Some("backup, syncing".into()));
        assert_eq!(group(Role::Fault, SyncState::InSync), Some("fault, in_sync".into()));
        assert_eq!(GroupStatus::waiting(51, 100, "no eth1".into()).not_ready(), Some("no eth1".into()));
        assert_eq!(group(Role::Backup, SyncState::Unknown), None, "classic: nothing will ever prove more");
        let unplugged = EngineStatus { sync: SyncState::Unknown, link_up: false, ..engine() };
        assert_eq!(GroupStatus::of_engine(&unplugged, now).not_ready(), Some("backup, unknown".into()));
    }
}
