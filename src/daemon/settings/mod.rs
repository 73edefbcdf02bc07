//! The configuration: one TOML file in, typed settings out, and every mistake at once.
//!
//! ```text
//!   file ──toml──▶ table with spans ──read.rs──▶ Settings ──▶ engine::Config, one per group
//!                        │
//!                        └──▶ Problems: FILE:LINE: what is wrong; what to write instead
//! ```
//!
//! Nothing is ignored: a key that this version does not know, or knows and does not carry out yet, is a mistake and
//! says so. [`Settings::to_toml`] prints what is in force, defaults included, and reads back as the same settings.

mod classic;
pub mod driven;
mod notify;
mod problems;
mod read;
pub mod secret;
mod takeover;
#[cfg(test)]
mod tests;
mod track;
mod value;
pub mod wait;
mod xdp;

pub use driven::RoleKind;
pub use notify::{NOTIFY_TIMEOUT, Notifications};
pub use problems::{Problem, Problems};
#[cfg(test)]
pub(in crate::daemon) use read::GROUP_KEYS;
pub use secret::{Sealing, SecretFile};
pub use takeover::{Divide, Moves, VirtualAddress, VirtualRoute};
pub use track::{Check, CheckPace, HttpTarget, TRACKS_MAX, Track};
pub use value::duration as parse_duration;
pub use wait::{Wait, WaitKind};

use crate::bridge::conntrack::{Division, Filter, Rule};
use crate::daemon::audit::AuditOrders;
use crate::daemon::driven::line::Name;
use crate::engine::{Ack, ClassicConfig, Config, Tuning};
use crate::time::Duration;
use crate::wire::classic::MESSAGE_LEN_MAX;
use crate::wire::{FRAME_LEN_MAX, NodeId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Where the configuration is read from unless `-c` says otherwise.
pub const DEFAULT_FILE: &str = "/etc/ssyncp/ssyncp.toml";
/// Where the control socket is unless `[control] socket` says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/ssyncp/control.sock";
/// Most groups in one file.
pub const GROUPS_MAX: usize = 64;
/// Most addresses that one group may hold.
pub const ADDRESSES_MAX: usize = 256;
/// Default of `realtime_priority`: above the ordinary threads, below those of the kernel that handle interrupts (50).
pub const REALTIME_PRIORITY: u8 = 10;
/// Default of `dump_interval`.
pub const DUMP_INTERVAL: Duration = Duration::from_secs(30);
/// Least `dump_interval`.
pub const DUMP_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Greatest `dump_interval`.
pub const DUMP_INTERVAL_MAX: Duration = Duration::from_secs(3600);
/// Default of `event_buffer`.
pub const EVENT_BUFFER: u64 = 32 << 20;
/// Least `event_buffer`: the kernel's own least, a handful of events.
pub const EVENT_BUFFER_MIN: u64 = 4 << 10;
/// Greatest `event_buffer`: the kernel counts twice of it in 31 bits.
pub const EVENT_BUFFER_MAX: u64 = 1 << 29;
/// Default of `audit_interval`.
pub const AUDIT_INTERVAL: Duration = Duration::from_secs(60);
/// Least `audit_interval` that is not none.
pub const AUDIT_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Greatest `audit_interval`.
pub const AUDIT_INTERVAL_MAX: Duration = Duration::from_secs(3600);
/// A history that may take so many bytes is worth a warning.
pub const HISTORY_BYTES_NOTABLE: u64 = 1 << 30;
/// Default of `tap_size`.
pub const TAP_SIZE: u64 = 64 << 20;
/// Least `tap_size`.
pub const TAP_SIZE_MIN: u64 = 64 << 10;
/// Default of `tap_files`.
pub const TAP_FILES: u32 = 8;
/// Greatest `tap_files`.
pub const TAP_FILES_MAX: u32 = 1000;
/// Largest configuration file in bytes; a longer one is a mistake in the path.
pub const FILE_MAX: u64 = 1 << 20;

/// Everything that the file says, with defaults filled in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Settings {
    /// `[node]`.
    pub node: Node,
    /// `[control]`.
    pub control: Control,
    /// Every `[[group]]`, in the order of the file.
    #[serde(rename = "group", serialize_with = "classic::groups")]
    pub groups: Vec<Group>,
    /// Every `[[track]]`, in the order of the file.
    #[serde(rename = "track", skip_serializing_if = "Vec::is_empty")]
    pub tracks: Vec<Track>,
}

/// `[node]`: who this machine is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Node {
    /// Its number, not zero, another one on each node.
    #[serde(serialize_with = "node_number")]
    #[schemars(with = "u32")]
    pub id: NodeId,
    /// Its name for people, at most 32 bytes.
    pub name: String,
    /// Priority of the groups' threads among real-time threads (sched(7)), 1 to 99; 0: they are ordinary threads.
    pub realtime_priority: u8,
    /// Whether the daemon gives up what it does not need before it starts.
    pub sandbox: bool,
    /// What frames are sealed with.
    #[serde(flatten)]
    pub sealing: Sealing,
}

/// `[control]`: how operators and programs reach the daemon.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Control {
    /// The Unix socket on which all calls are taken.
    pub socket: PathBuf,
    /// A TCP address on which reading calls are taken; off unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
}

/// `[[group]]`: one replicated table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Group {
    /// The table's number, the same on all nodes.
    pub sync_id: u8,
    /// How frames travel.
    pub transport: TransportKind,
    /// The sync links; frames go out on all.
    pub interfaces: Vec<String>,
    /// The multicast address of the frames: IPv4, or IPv6 of link-local scope.
    pub group: IpAddr,
    /// Largest frame in bytes; what the links' MTUs leave unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame_len: Option<usize>,
    /// The format on the wire.
    pub profile: Profile,
    /// Where flows come from, and where a taking-over node writes them.
    pub source: SourceKind,
    /// Which flows are replicated: those that meet every rule.
    #[schemars(with = "Vec<String>")]
    pub filter: Vec<Rule>,
    /// Which flows of the kernel are this group's.
    pub divide: Divide,
    /// What that makes with the addresses of all groups; `None` if all of the kernel is this group's.
    #[serde(skip)]
    pub division: Option<Division>,
    /// Time from the end of one dump of the source to the next.
    #[serde(serialize_with = "duration_words")]
    #[schemars(with = "String")]
    pub dump_interval: Duration,
    /// Bytes of receive buffer for the source's events.
    #[serde(serialize_with = "size_words")]
    #[schemars(with = "String")]
    pub event_buffer: u64,
    /// When a backup writes flows into its sink.
    pub commit: Commit,
    /// What is done with what an audit of a backup's kernel finds.
    pub audit: AuditMode,
    /// Time from the end of one audit to the next; zero for none.
    #[serde(serialize_with = "duration_words")]
    #[schemars(with = "String")]
    pub audit_interval: Duration,
    /// Who decides the role.
    #[schemars(with = "String")]
    pub role: RoleKind,
    /// The FIFO that keepalived writes to, if it decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keepalived_fifo: Option<PathBuf>,
    /// Whose role it is, in keepalived's words: an instance, or `group:NAME`. Followed if keepalived decides, and told to
    /// hooks; these are told the sync id unless it is set.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "driven::name")]
    #[schemars(with = "Option<String>")]
    pub instance: Option<Name>,
    /// VRRP priority.
    pub priority: u8,
    /// Time between two ADVERTs.
    #[serde(serialize_with = "duration_words")]
    #[schemars(with = "String")]
    pub advert_interval: Duration,
    /// Whether a higher priority takes the role from a lower.
    pub preempt: bool,
    /// The addresses that the master holds.
    #[schemars(with = "Vec<String>")]
    pub addresses: Vec<VirtualAddress>,
    /// What else a takeover moves.
    #[serde(flatten)]
    pub moves: Moves,
    /// Most flows in the table.
    pub capacity: u32,
    /// Frames kept for re-sending.
    pub history: u32,
    /// Longest time that a record waits for company.
    #[serde(serialize_with = "duration_words")]
    #[schemars(with = "String")]
    pub batch_delay: Duration,
    /// How the loop waits.
    #[serde(flatten)]
    pub wait: Wait,
    /// Whose acknowledgement a change waits for.
    #[serde(serialize_with = "value::ack_word")]
    #[schemars(with = "String")]
    pub ack: Ack,
    /// Time after which a change that is not acknowledged counts as failed.
    #[serde(serialize_with = "duration_words")]
    #[schemars(with = "String")]
    pub ack_timeout: Duration,
    /// Nodes of the group, this one included; unknown unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub members: Option<u32>,
    /// Frames after which a backup acknowledges.
    pub ack_every: u32,
    /// Time after which a backup acknowledges.
    #[serde(serialize_with = "duration_words")]
    #[schemars(with = "String")]
    pub ack_delay: Duration,
    /// Time that a gap may stand before it is asked for again.
    #[serde(serialize_with = "duration_words")]
    #[schemars(with = "String")]
    pub reorder_delay: Duration,
    /// Time that a follower may stand still behind what was sent before nobody waits for it.
    #[serde(serialize_with = "duration_words")]
    #[schemars(with = "String")]
    pub lag_limit: Duration,
    /// Longest time that writing the table may delay a takeover.
    #[serde(serialize_with = "duration_words")]
    #[schemars(with = "String")]
    pub commit_deadline: Duration,
    /// Time that an entry has left at least when the role is taken over.
    #[serde(serialize_with = "duration_words")]
    #[schemars(with = "String")]
    pub takeover_grace: Duration,
    /// Time after the first link is up in which this node does not take the role by itself.
    #[serde(serialize_with = "duration_words")]
    #[schemars(with = "String")]
    pub startup_delay: Duration,
    /// Longest time that a planned switch may take before the old master takes the role back.
    #[serde(serialize_with = "duration_words")]
    #[schemars(with = "String")]
    pub handover_deadline: Duration,
    /// Longest time that the merge of two masters' tables may take.
    #[serde(serialize_with = "duration_words")]
    #[schemars(with = "String")]
    pub merge_deadline: Duration,
    /// Where everything that the transport moves is recorded, too; nowhere unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tap: Option<PathBuf>,
    /// Bytes after which the tap begins a new file.
    #[serde(serialize_with = "size_words")]
    #[schemars(with = "String")]
    pub tap_size: u64,
    /// Files of the tap that are kept.
    pub tap_files: u32,
    /// The tracks that the priority depends on, by their names.
    pub track: Vec<String>,
    /// Who is told of the role.
    #[serde(flatten)]
    pub notifications: Notifications,
}

/// How frames travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TransportKind {
    /// Raw IP sockets, protocol 114.
    Raw,
    /// Packet sockets with a ring (AF_PACKET); raw sockets where they cannot be had.
    Packet,
    /// AF_XDP; packet sockets where it cannot be had.
    Xdp,
    /// Inside this process only, for trials.
    Memory,
}

/// The format on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// SSYNCP/1.
    #[default]
    Ssyncp1,
    /// The draft of 2002.
    Classic,
}

/// Where flows come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// The kernel's connection tracking.
    Conntrack,
    /// Invented flows, for trials.
    Synthetic,
}

/// When a backup writes flows into its sink.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Commit {
    /// At once: the takeover has little left to write.
    Continuous,
    /// When it takes over: a backup's kernel stays empty.
    OnTakeover,
}

/// What is done with what an audit of a backup's kernel finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuditMode {
    /// What is missing or other is written again, what is stale is removed.
    Repair,
    /// It is told, and nothing more.
    Report,
    /// Nobody looks.
    Off,
}

/// What is wrong with a file that is text only so far.
fn not_text(file: &Path, before: &[u8]) -> Problems {
    let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
    let message = "not UTF-8, as TOML must be; save the file as UTF-8 (iconv -f latin1 -t utf8)".to_owned();
    Problems { file: file.to_owned(), problems: vec![Problem { line: Some(line), message }] }
}

impl Settings {
    /// Reads and checks a file, and that of the secret.
    ///
    /// # Errors
    /// Every problem that they have, by line; a file that cannot be read is one problem of its own.
    pub fn load(file: &Path) -> Result<Self, Problems> {
        let unreadable = |reason: String| Problems {
            file: file.to_owned(),
            problems: vec![Problem { line: None, message: reason }],
        };
        match std::fs::metadata(file) {
            Ok(metadata) if metadata.len() > FILE_MAX => {
                Err(unreadable(format!("{} bytes; a configuration has at most {FILE_MAX}", metadata.len())))
            }
            _ => match std::fs::read(file).map(Zeroizing::new) {
                // Wiped, because somebody may have written the secret itself into it.
                Ok(bytes) => match std::str::from_utf8(&bytes) {
                    Ok(text) => Self::parse_with(text, file, secret::read),
                    Err(error) => Err(not_text(file, &bytes[..error.valid_up_to()])),
                },
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    Err(unreadable("there is no such file; name another with -c FILE".into()))
                }
                Err(error) => Err(unreadable(format!("cannot be read: {error}"))),
            },
        }
    }

    /// Checks the text of a file, and no other file: who runs a daemon calls [`Settings::load`], which reads the secrets too.
    /// `file` is only named in the problems.
    ///
    /// # Errors
    /// Every problem that the text has, by line.
    pub fn parse(text: &str, file: &Path) -> Result<Self, Problems> {
        Self::parse_with(text, file, |_| Ok(Vec::new()))
    }

    fn parse_with(text: &str, file: &Path, open: secret::Opener) -> Result<Self, Problems> {
        read::settings(text, open).map_err(|problems| Problems { file: file.to_owned(), problems })
    }

    /// What is in force, defaults included, as a file that reads back as the same settings.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("settings are strings, numbers and lists of them, which TOML can hold")
    }

    /// What an operator should know although it is no mistake.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = secret::warnings(self);
        if self.groups.len() > 1 && self.groups.iter().any(|group| !self.is_sole(group) && group.audits()) {
            warnings.push(
                "several groups share this machine's kernel and do not divide it: each takes the flows of the others, too \
                 (divide = \"address\", with addresses), and audits do not look for stale entries, because what one \
                 group lacks may be another's"
                    .to_owned(),
            );
        }
        for group in &self.groups {
            let bytes = u64::from(group.history) * group.frame_len.unwrap_or(FRAME_LEN_MAX) as u64;
            if group.profile == Profile::Ssyncp1 && bytes >= HISTORY_BYTES_NOTABLE {
                warnings.push(format!(
                    "group {}: history: {} frames may take {} MiB of memory (history times frame_len)",
                    group.sync_id,
                    group.history,
                    bytes >> 20
                ));
            }
            if group.transport == TransportKind::Memory {
                warnings.push(format!(
                    "group {}: transport \"memory\" reaches no other node; it is for trials",
                    group.sync_id
                ));
            }
        }
        warnings
    }

    /// What the audit of a group is told.
    pub fn audit_orders(&self, group: &Group) -> AuditOrders {
        let mode = if group.audits() { group.audit } else { AuditMode::Off };
        AuditOrders { mode, interval: group.audit_interval, sole: self.is_sole(group) }
    }

    /// Other groups whose frames this process hears on every link of this one.
    pub fn siblings(&self, group: &Group) -> Vec<u8> {
        let shares = |other: &&Group| {
            other.sync_id != group.sync_id
                && other.group == group.group
                && group.interfaces.iter().all(|interface| other.interfaces.contains(interface))
        };
        self.groups.iter().filter(shares).map(|other| other.sync_id).collect()
    }

    /// Whether no other group writes to the kernel's connection table, or to this group's share of it.
    pub fn is_sole(&self, group: &Group) -> bool {
        let others = self.groups.iter().filter(|other| other.sync_id != group.sync_id);
        let divided = |group: &Group| group.divide == Divide::Address;
        others.into_iter().all(|other| other.source != SourceKind::Conntrack || divided(group) && divided(other))
    }
}

impl Group {
    /// Which flows of the kernel are replicated.
    pub fn flow_filter(&self) -> Filter {
        Filter::new(&self.filter).divided(self.division.clone())
    }

    /// Whether a backup's kernel is compared with what was committed to it.
    pub fn audits(&self) -> bool {
        let committed = self.source == SourceKind::Conntrack && self.commit == Commit::Continuous;
        // The classic profile proves nothing, and only what is proven can be audited.
        let proven = self.profile == Profile::Ssyncp1;
        committed && proven && self.audit != AuditMode::Off && !self.audit_interval.is_zero()
    }

    /// Largest frame in bytes that the engine may make; `None`: what the link carries.
    pub fn frame_len(&self) -> Option<usize> {
        match self.profile {
            Profile::Ssyncp1 => self.frame_len,
            Profile::Classic => Some(MESSAGE_LEN_MAX),
        }
    }

    /// What a classic engine of this group is told; the addresses are those of the sync links, the random number is drawn
    /// by the caller.
    pub fn classic_config(&self, node: &Node, own_addresses: Vec<IpAddr>, seed: u64) -> ClassicConfig {
        let (sync_id, capacity, batch_delay) = (self.sync_id, self.capacity, self.batch_delay);
        ClassicConfig { node: node.id, sync_id, capacity, batch_delay, seed, own_addresses }
    }

    /// What the engine of this group is told; `frame_len` is what the link carries, the random numbers are drawn by the
    /// caller.
    pub fn engine_config(&self, node: &Node, frame_len: usize, incarnation: u64, seed: u64) -> Config {
        Config {
            name: node.name.clone(),
            secrets: node.sealing.secrets.clone(),
            auth: node.sealing.auth(),
            incarnation,
            seed,
            frame_len,
            capacity: self.capacity,
            history: self.history,
            role: self.role.mode(),
            priority: self.priority,
            preempt: self.preempt,
            advert_interval: self.advert_interval,
            batch_delay: self.batch_delay,
            ack: self.ack,
            ack_timeout: self.ack_timeout,
            members: self.members,
            ack_every: self.ack_every,
            ack_delay: self.ack_delay,
            reorder_delay: self.reorder_delay,
            lag_limit: self.lag_limit,
            commit_deadline: self.commit_deadline,
            takeover_grace: self.takeover_grace,
            startup_delay: self.startup_delay,
            handover_deadline: self.handover_deadline,
            merge_deadline: self.merge_deadline,
            ..Config::new(node.id, self.sync_id)
        }
    }

    /// What of it the engine takes while it runs.
    pub fn tuning(&self) -> Tuning {
        Tuning {
            priority: self.priority,
            preempt: self.preempt,
            advert_interval: self.advert_interval,
            batch_delay: self.batch_delay,
            ack_every: self.ack_every,
            ack_delay: self.ack_delay,
            reorder_delay: self.reorder_delay,
            lag_limit: self.lag_limit,
            commit_deadline: self.commit_deadline,
            handover_deadline: self.handover_deadline,
            merge_deadline: self.merge_deadline,
            takeover_grace: self.takeover_grace,
            startup_delay: self.startup_delay,
            ack: self.ack,
            ack_timeout: self.ack_timeout,
            members: self.members,
        }
    }
}

/// Reads a duration with its unit, as `"100ms"`.
///
/// # Errors
/// What is wrong, and what to write instead.
pub fn duration(text: &str) -> Result<Duration, String> {
    value::duration(text)
}

fn node_number<S: Serializer>(id: &NodeId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u32(id.0)
}

fn size_words<S: Serializer>(size: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value::size_words(*size))
}

fn duration_words<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value::duration_words(*duration))
}
