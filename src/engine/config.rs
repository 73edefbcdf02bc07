//! What an engine must be told before it starts, and what it answers when it is told nonsense.

use super::durability::Ack;
use super::keyring::Auth;
use crate::table::{SectionLimits, Table};
use crate::time::{Duration, words};
use crate::wire::{FRAME_LEN_MAX, FRAME_LEN_MIN, NAME_LEN_MAX, NodeId, PEERS_MAX, SECRETS_MAX, Secret};
use core::ops::RangeInclusive;

/// Most flows, and most tombstones, that a table can be made for.
pub const CAPACITY_MAX: u32 = 1 << 28;
/// Fewest frames that can be kept for re-sending.
pub const HISTORY_MIN: u32 = 16;
/// Most frames that can be kept for re-sending.
pub const HISTORY_MAX: u32 = 1 << 20;

/// Most nodes of a group: this one, and as many as an ADVERT can list.
pub const MEMBERS_MAX: u32 = PEERS_MAX as u32 + 1;
/// Shortest time that a submission can wait for acknowledgement.
pub const ACK_TIMEOUT_MIN: Duration = Duration::from_millis(1);
/// Longest time that a submission can wait for acknowledgement.
pub const ACK_TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// What `advert_interval` may be: RFC 9568's field holds up to 40.95 s.
pub const ADVERT_INTERVALS: RangeInclusive<Duration> = Duration::from_millis(5)..=Duration::from_secs(40);
/// What `handover_deadline` may be: a switch takes a few milliseconds, and all of it is an outage if it fails.
pub const HANDOVER_DEADLINES: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);

/// What `merge_deadline` may be: a page takes one way there and back, and a full table over a long way some minutes.
pub const MERGE_DEADLINES: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);

/// Who decides the role.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RoleMode {
    /// The nodes elect by VRRP's rules (RFC 9568).
    Vrrp,
    /// The owner decides, by [`crate::engine::Engine::set_role`].
    Manual,
}

/// Everything an engine is told at its birth. Randomness comes in as `incarnation` and `seed`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// This node; not zero.
    pub node: NodeId,
    /// Its name for people, at most 32 bytes.
    pub name: String,
    /// The replicated table's number.
    pub sync_id: u8,
    /// Drawn at random for this start of the engine; not zero.
    pub incarnation: u64,
    /// Drawn at random; all of the engine's own randomness comes from it.
    pub seed: u64,
    /// The secrets that frames are sealed with, with distinct numbers: the first seals, the others open. Empty: nothing is
    /// sealed [3.4].
    pub secrets: Vec<Secret>,
    /// Whether frames that are not sealed are taken, where there is a secret.
    pub auth: Auth,
    /// Largest frame in bytes, 1208 to 8960.
    pub frame_len: usize,
    /// Most flows in the table.
    pub capacity: u32,
    /// Most tombstones (deletes that came before what they delete).
    pub tombstones: u32,
    /// Frames kept for re-sending.
    pub history: u32,
    /// Who decides the role.
    pub role: RoleMode,
    /// VRRP priority: 1 to 254, 255 for the owner of the addresses.
    pub priority: u8,
    /// Whether a node with a higher priority takes the role from one with a lower.
    pub preempt: bool,
    /// Time between two ADVERTs, 5 ms to 40 s.
    pub advert_interval: Duration,
    /// Longest time that a record waits for company while the line is busy.
    pub batch_delay: Duration,
    /// Frames after which a backup acknowledges.
    pub ack_every: u32,
    /// Time after which a backup acknowledges.
    pub ack_delay: Duration,
    /// Time that a gap may stand before it is asked for again.
    pub reorder_delay: Duration,
    /// Longest time that a master whose link is not proven in both directions delays our takeover.
    pub one_way_hold: Duration,
    /// Longest time that the first phase of a takeover (write the table to the sink) may take.
    pub commit_deadline: Duration,
    /// Longest time that a master waits for its heir before it takes the role back [5.3.2].
    pub handover_deadline: Duration,
    /// Longest time that a merge of two tables may take before the winner goes on without the rest [5.5.1].
    pub merge_deadline: Duration,
    /// At least this long an entry lives after a takeover, however little its clock had left [4.6.4].
    pub takeover_grace: Duration,
    /// So long after the first link is up this node's own timer does not run out [5.0.7].
    pub startup_delay: Duration,
    /// Whether the source reports every death itself (a kernel does); otherwise the master expires flows by time.
    pub source_expires: bool,
    /// Whose acknowledgement a submission waits for that does not say so itself.
    pub ack: Ack,
    /// Time after which a submission that is not acknowledged has failed.
    pub ack_timeout: Duration,
    /// Nodes of the group, this one included; what a quorum, and all, are counted from.
    pub members: Option<u32>,
    /// Time that a follower may have no credit, or stand still behind what was sent, before it is no longer waited for.
    pub lag_limit: Duration,
    /// Most entries of sections.
    pub sections: u32,
    /// Most bytes of all their values and keys.
    pub section_bytes: u32,
    /// Most bytes of values of which only a part has come.
    pub partial_bytes: u32,
    /// The number of the first frame of the first stream is one above this. Zero, but in tests of what happens near the end
    /// of numbers.
    pub first_seq: u64,
    /// The newest term known at birth. Zero, but in tests of what happens near the end of numbers.
    pub first_term: u64,
    /// The rule that is broken on purpose.
    #[cfg(any(test, feature = "breakages"))]
    #[doc(hidden)]
    pub breakage: Option<super::breakage::Breakage>,
}

impl Config {
    /// The defaults of product and protocol for node `node`; the random numbers are still to be drawn.
    pub fn new(node: NodeId, sync_id: u8) -> Self {
        Config {
            node,
            name: format!("node-{}", node.0),
            sync_id,
            incarnation: 0,
            seed: 0,
            secrets: Vec::new(),
            auth: Auth::Enforce,
            frame_len: 1480,
            capacity: 262_144,
            tombstones: 65_536,
            history: 4096,
            role: RoleMode::Vrrp,
            priority: 100,
            preempt: true,
            advert_interval: Duration::from_millis(100),
            batch_delay: Duration::from_millis(1),
            ack_every: 32,
            ack_delay: Duration::from_millis(5),
            reorder_delay: Duration::from_millis(2),
            one_way_hold: Duration::from_secs(10),
            commit_deadline: Duration::from_secs(1),
            handover_deadline: Duration::from_secs(2),
            merge_deadline: Duration::from_secs(10),
            takeover_grace: Duration::from_secs(180),
            startup_delay: Duration::ZERO,
            source_expires: true,
            ack: Ack::None,
            ack_timeout: Duration::from_secs(1),
            members: None,
            lag_limit: Duration::from_millis(500),
            sections: 4096,
            section_bytes: 16 << 20,
            partial_bytes: 4 << 20,
            first_seq: 0,
            first_term: 0,
            #[cfg(any(test, feature = "breakages"))]
            breakage: None,
        }
    }

    /// The table that it asks for, empty.
    pub(super) fn table(&self, hash_seed: u64) -> Table {
        let Config { sections: entries, section_bytes: bytes, partial_bytes, .. } = *self;
        let limits = SectionLimits { entries, bytes, partial_bytes };
        let table = Table::new(self.capacity, self.tombstones, hash_seed).with_section_limits(limits);
        #[cfg(any(test, feature = "breakages"))]
        let table = table.with_faults(crate::table::Faults {
            digest_forgets_deletes: self.broken().is(super::breakage::Breakage::DigestForgetsDeletes),
            parts_of_any_version: self.broken().is(super::breakage::Breakage::PartsOfAnyVersion),
        });
        table
    }

    /// Every problem of this configuration, not only the first.
    pub fn problems(&self) -> Vec<ConfigError> {
        let mut problems = Vec::new();
        let mut wrong = |key: &'static str, problem: String| problems.push(ConfigError { key, problem });
        if self.node.0 == 0 {
            wrong("id", "a node's id is a number from 1 to 4294967295".into());
        }
        if self.name.len() > NAME_LEN_MAX {
            wrong("name", format!("{} bytes; a name has at most {NAME_LEN_MAX}", self.name.len()));
        }
        if self.incarnation == 0 {
            wrong("incarnation", "must be drawn at random, and not zero".into());
        }
        if self.secrets.len() > SECRETS_MAX {
            wrong("secrets", format!("{}; a node holds at most {SECRETS_MAX}", self.secrets.len()));
        }
        for (at, secret) in self.secrets.iter().enumerate() {
            if self.secrets[..at].iter().any(|other| other.id() == secret.id()) {
                wrong("secrets", format!("two have the number {}; in frames a secret is known by it", secret.id()));
            }
        }
        if !(FRAME_LEN_MIN..=FRAME_LEN_MAX).contains(&self.frame_len) {
            wrong("frame_len", format!("{} bytes; a frame has {FRAME_LEN_MIN} to {FRAME_LEN_MAX}", self.frame_len));
        }
        if self.capacity == 0 || self.capacity > CAPACITY_MAX {
            wrong("capacity", format!("{}; a table holds 1 to {CAPACITY_MAX} flows", self.capacity));
        }
        if self.tombstones > CAPACITY_MAX {
            wrong("tombstones", format!("{}; a table holds at most {CAPACITY_MAX}", self.tombstones));
        }
        if self.history < HISTORY_MIN {
            wrong(
                "history",
                format!("{} frames; at least {HISTORY_MIN} are needed to answer a re-request", self.history),
            );
        }
        if self.history > HISTORY_MAX {
            wrong("history", format!("{} frames; at most {HISTORY_MAX} are kept", self.history));
        }
        if self.priority == 0 {
            wrong("priority", "0 says 'I am leaving'; a node has 1 to 254, or 255 as owner".into());
        }
        let interval = self.advert_interval;
        if !ADVERT_INTERVALS.contains(&interval) {
            wrong("advert_interval", format!("{} is not from 5ms to 40s", words(interval)));
        }
        for (key, time) in [("takeover_grace", self.takeover_grace), ("startup_delay", self.startup_delay)] {
            if time > Duration::from_secs(3600) {
                wrong(key, format!("{} is not from 0s to 1h", words(time)));
            }
        }
        if self.ack_every == 0 {
            wrong("ack_every", "0 frames; at least 1".into());
        }
        if !(Duration::from_millis(10)..=Duration::from_secs(60)).contains(&self.lag_limit) {
            wrong("lag_limit", format!("{} is not from 10ms to 60s", words(self.lag_limit)));
        }
        if !HANDOVER_DEADLINES.contains(&self.handover_deadline) {
            wrong("handover_deadline", format!("{} is not from 10ms to 60s", words(self.handover_deadline)));
        }
        if !MERGE_DEADLINES.contains(&self.merge_deadline) {
            wrong("merge_deadline", format!("{} is not from 100ms to 1h", words(self.merge_deadline)));
        }
        if self.first_seq > super::STREAM_SEQ_MAX {
            wrong("first_seq", format!("{}; at most 2^48 - 1", self.first_seq));
        }
        if self.first_term > super::TERM_MAX {
            wrong("first_term", format!("{}; at most 2^62", self.first_term));
        }
        if self.batch_delay > Duration::from_secs(1) {
            wrong("batch_delay", format!("{} is not from 0s to 1s", words(self.batch_delay)));
        }
        if !(ACK_TIMEOUT_MIN..=ACK_TIMEOUT_MAX).contains(&self.ack_timeout) {
            wrong("ack_timeout", format!("{} is not from 1ms to 1h", words(self.ack_timeout)));
        }
        match self.members {
            None if self.ack.counts_members() => wrong(
                "ack",
                format!(
                    "{:?} counts the nodes of the group, and nobody says how many there are; write members = 2, or as \
                     many as there are with this one",
                    self.ack.name()
                ),
            ),
            Some(members) if !(2..=MEMBERS_MAX).contains(&members) => {
                wrong("members", format!("{members}; a group has 2 to {MEMBERS_MAX} nodes, this one included"));
            }
            _ => {}
        }
        problems
    }
}

/// One thing that is wrong with a configuration, in plain English.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct ConfigError {
    /// The setting's name.
    pub key: &'static str,
    /// What is wrong with its value, and what may stand there.
    pub problem: String,
}
