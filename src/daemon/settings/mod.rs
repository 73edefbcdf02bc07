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
mod problems;
mod read;
mod value;

pub use problems::{Problem, Problems};
pub use value::duration as parse_duration;

use crate::bridge::conntrack::Rule;
use crate::daemon::audit::AuditOrders;
use crate::engine::{ClassicConfig, Config, RoleMode, Tuning};
use crate::time::Duration;
use crate::wire::classic::MESSAGE_LEN_MAX;
use crate::wire::{FRAME_LEN_MAX, NodeId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

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
    #[serde(serialize_with = "role_word")]
    #[schemars(with = "String")]
    pub role: RoleMode,
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
    /// Most flows in the table.
    pub capacity: u32,
    /// Frames kept for re-sending.
    pub history: u32,
    /// Longest time that a record waits for company.
    #[serde(serialize_with = "duration_words")]
    #[schemars(with = "String")]
    pub batch_delay: Duration,
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
    /// Where everything that the transport moves is recorded, too; nowhere unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tap: Option<PathBuf>,
    /// Bytes after which the tap begins a new file.
    #[serde(serialize_with = "size_words")]
    #[schemars(with = "String")]
    pub tap_size: u64,
    /// Files of the tap that are kept.
    pub tap_files: u32,
}

/// How frames travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TransportKind {
    /// Raw IP sockets, protocol 114.
    Raw,
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

/// An address that only the master holds: `192.0.2.10/24 dev eth0`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct VirtualAddress {
    /// The address, IPv4 or IPv6.
    pub address: IpAddr,
    /// Length of the network's prefix, 0 to 32 or 128.
    pub prefix_len: u8,
    /// The interface that gets it.
    pub device: String,
}

impl FromStr for VirtualAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        value::address(text)
    }
}

impl fmt::Display for VirtualAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} dev {}", self.address, self.prefix_len, self.device)
    }
}

impl Serialize for VirtualAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Settings {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Every problem that it has, by line; a file that cannot be read is one problem of its own.
    pub fn load(file: &Path) -> Result<Self, Problems> {
        let unreadable = |reason: String| Problems {
            file: file.to_owned(),
            problems: vec![Problem { line: None, message: reason }],
        };
        match std::fs::metadata(file) {
            Ok(metadata) if metadata.len() > FILE_MAX => {
                Err(unreadable(format!("{} bytes; a configuration has at most {FILE_MAX}", metadata.len())))
            }
            _ => match std::fs::read_to_string(file) {
                Ok(text) => Self::parse(&text, file),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    Err(unreadable("there is no such file; name another with -c FILE".into()))
                }
                Err(error) => Err(unreadable(format!("cannot be read: {error}"))),
            },
        }
    }

    /// Checks the text of a file; `file` is only named in the problems.
    ///
    /// # Errors
    /// Every problem that the text has, by line.
    pub fn parse(text: &str, file: &Path) -> Result<Self, Problems> {
        read::settings(text).map_err(|problems| Problems { file: file.to_owned(), problems })
    }

    /// What is in force, defaults included, as a file that reads back as the same settings.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("settings are strings, numbers and lists of them, which TOML can hold")
    }

    /// What an operator should know although it is no mistake.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = vec![
            "no secret: frames are protected against accidents (CRC-32) only, not against anyone who can send on the \
             sync link"
                .to_owned(),
        ];
        if self.groups.len() > 1 && self.groups.iter().any(|group| !self.is_sole(group) && group.audits()) {
            warnings.push(
                "several groups share this machine's kernel: audits do not look for stale entries, because what one \
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

    /// Whether no other group writes to the kernel's connection table.
    pub fn is_sole(&self, group: &Group) -> bool {
        let others = self.groups.iter().filter(|other| other.sync_id != group.sync_id);
        others.into_iter().all(|other| other.source != SourceKind::Conntrack)
    }
}

impl Group {
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
            incarnation,
            seed,
            frame_len,
            capacity: self.capacity,
            history: self.history,
            role: self.role,
            priority: self.priority,
            preempt: self.preempt,
            advert_interval: self.advert_interval,
            batch_delay: self.batch_delay,
            ack_every: self.ack_every,
            ack_delay: self.ack_delay,
            reorder_delay: self.reorder_delay,
            lag_limit: self.lag_limit,
            commit_deadline: self.commit_deadline,
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

fn role_word<S: Serializer>(role: &RoleMode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match role {
        RoleMode::Vrrp => "vrrp",
        RoleMode::Manual => "manual",
    })
}

fn size_words<S: Serializer>(size: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value::size_words(*size))
}

fn duration_words<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value::duration_words(*duration))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, Problems> {
        Settings::parse(text, Path::new("ssyncp.toml"))
    }

    fn problems(text: &str) -> String {
        parse(text).expect_err("a mistake was expected").to_string()
    }

    const SMALLEST: &str = "[node]\nid = 1\n[[group]]\nsync_id = 51\ninterfaces = [\"eth1\"]\n";

    #[test]
    fn the_smallest_file_gets_the_defaults_of_the_product() {
        let settings = parse(SMALLEST).unwrap();
        assert_eq!(
            settings.to_toml(),
            r#"[node]
id = 1
name = "node-1"
realtime_priority = 10

[control]
socket = "/run/ssyncp/control.sock"

[[group]]
sync_id = 51
transport = "raw"
interfaces = ["eth1"]
group = "224.0.0.81"
profile = "ssyncp1"
source = "conntrack"
filter = []
dump_interval = "30s"
event_buffer = "32MiB"
commit = "continuous"
audit = "repair"
audit_interval = "1m"
role = "vrrp"
priority = 100
advert_interval = "100ms"
preempt = true
addresses = []
capacity = 262144
history = 4096
batch_delay = "1ms"
ack_every = 32
ack_delay = "5ms"
reorder_delay = "2ms"
lag_limit = "500ms"
commit_deadline = "1s"
tap_size = "64MiB"
tap_files = 8
"#
        );
    }

    #[test]
    fn what_show_prints_reads_back_as_the_same_settings() {
        let text = r#"
            [node]
            id = 7
            name = "lb-a"
            [[group]]
            sync_id = 51
            interfaces = ["eth1", "eth2"]
            group = "239.1.2.3"
            frame_len = 4000
            source = "synthetic"
            dump_interval = "1m"
            event_buffer = "8KiB"
            commit = "on-takeover"
            audit = "off"
            audit_interval = "0s"
            role = "manual"
            ack = "none"
            priority = 150
            advert_interval = "1s"
            preempt = false
            addresses = ["192.0.2.10/24 dev eth0"]
            capacity = 1000
            history = 64
            batch_delay = "500us"
            ack_every = 8
            ack_delay = "1ms"
            reorder_delay = "3ms"
            commit_deadline = "1m"
            tap = "/var/tmp/sync.pcapng"
            tap_size = "1536KiB"
            tap_files = 3
            [[group]]
            sync_id = 52
            transport = "memory"
            filter = ["not dst 10.0.0.0/8,2001:db8::/32", "ct state established or udp"]
            [control]
            socket = "/tmp/control.sock"
            listen = "127.0.0.1:9114"
        "#;
        let settings = parse(text).unwrap();
        assert_eq!(parse(&settings.to_toml()).unwrap(), settings);
        assert_eq!(settings.groups[0].batch_delay, Duration::from_micros(500));
        assert_eq!(settings.groups[0].dump_interval, Duration::from_secs(60));
        assert_eq!(settings.groups[0].commit_deadline, Duration::from_secs(60));
        assert_eq!((settings.groups[0].event_buffer, settings.groups[1].event_buffer), (8192, 33_554_432));
        assert_eq!(settings.groups[0].frame_len, Some(4000));
        assert_eq!((settings.groups[0].tap_size, settings.groups[0].tap_files), (1_572_864, 3));
        assert_eq!(settings.groups[1].transport, TransportKind::Memory);
        assert_eq!((settings.groups[0].audit, settings.groups[0].audit_interval), (AuditMode::Off, Duration::ZERO));
        assert!(!settings.groups[0].audits() && settings.groups[1].audits());
        assert_eq!(settings.groups[1].filter[1].to_string(), "ct state established or udp");
        assert_eq!(settings.control.listen, Some("127.0.0.1:9114".parse().unwrap()));
    }

    #[test]
    fn an_engine_is_told_what_the_group_says() {
        let settings = parse(&format!("{SMALLEST}priority = 150\nhistory = 64\npreempt = false\n")).unwrap();
        let config = settings.groups[0].engine_config(&settings.node, 1400, 11, 12);
        assert_eq!((config.node, config.sync_id, config.frame_len), (NodeId(1), 51, 1400));
        assert_eq!((config.incarnation, config.seed), (11, 12));
        assert_eq!((config.priority, config.history, config.preempt), (150, 64, false));
        assert_eq!(config.problems(), vec![]);
    }

    #[test]
    fn every_class_of_mistake_is_reported_at_once_with_its_line() {
        let text = r#"colour = "red"
[node]
id = "one"
nam = "lb-a"
socket = "/x"
secret_file = "/etc/ssyncp/secret"
[[group]]
sync_id = 51
interfaces = ["eth1", "eth1"]
transport = "xdp"
profile = "classical"
source = "ipvs"
role = "keepalived"
advert_interval = 100
batch_delay = "1 fortnight"
ack_delay = "5"
addresses = ["192.0.2.10 dev eth0", "192.0.2.300/24 dev eth0", "2001:db8::1/129 dev eth0", "192.0.2.10/24"]
frame_len = 100
[[group]]
sync_id = 51
interfaces = "eth1"
group = "192.0.2.1"
priority = 300
preempt = "yes"
commit = "sometimes"
audit = "maybe"
audit_interval = "2h"
history = 2
dump_interval = "999ms"
filter = ["ct state establishd", "tcp"]
ack = "quorum"
[control]
listen = "localhost"
"#;
        insta::assert_snapshot!(problems(text), @r#"
        ssyncp.toml:1: unknown key "colour" in the file; known are node, group, control
        ssyncp.toml:3: id: "one" is no whole number; write one from 1 to 4294967295
        ssyncp.toml:4: unknown key "nam" in [node]; did you mean "name"?
        ssyncp.toml:5: unknown key "socket" in [node]; it belongs in [control]
        ssyncp.toml:6: secret_file: not in this version: frames cannot be sealed yet; remove it
        ssyncp.toml:9: interfaces: "eth1" stands there twice; name each sync link once
        ssyncp.toml:10: transport: "xdp" is not in this version; write "raw" or "memory"
        ssyncp.toml:11: profile: "classical" is unknown; write "ssyncp1" or "classic"
        ssyncp.toml:12: source: "ipvs" is not in this version; write "conntrack" or "synthetic"
        ssyncp.toml:13: role: "keepalived" is not in this version; write "vrrp" or "manual"
        ssyncp.toml:14: advert_interval: 100 has no unit; write "100ms" or "100s"
        ssyncp.toml:15: batch_delay: "1 fortnight" is no duration; write a whole number with a unit, as "100ms", "1s" or "5m"
        ssyncp.toml:16: ack_delay: "5" has no unit; write "5ms" or "5s"
        ssyncp.toml:17: addresses: "192.0.2.10 dev eth0" has no prefix length; write it as "192.0.2.10/24 dev eth0"
        ssyncp.toml:17: addresses: "192.0.2.300/24 dev eth0" has no valid address; write it as "192.0.2.10/24 dev eth0"
        ssyncp.toml:17: addresses: "2001:db8::1/129 dev eth0" has a prefix length that is not 0 to 128; write it as "192.0.2.10/24 dev eth0"
        ssyncp.toml:17: addresses: "192.0.2.10/24" does not say which interface holds it; write it as "192.0.2.10/24 dev eth0"
        ssyncp.toml:18: frame_len: 100 bytes; a frame has 1208 to 8960
        ssyncp.toml:20: sync_id: 51 is taken by a group above; each group has its own
        ssyncp.toml:21: interfaces: "eth1" is no list; write ["eth1"]
        ssyncp.toml:22: group: "192.0.2.1" is no multicast address; write "224.0.0.81", or "ff02::7251" for IPv6
        ssyncp.toml:23: priority: 300 is not from 1 to 255
        ssyncp.toml:24: preempt: "yes" is no truth value; write true or false
        ssyncp.toml:25: commit: "sometimes" is unknown; write "continuous" or "on-takeover"
        ssyncp.toml:26: audit: "maybe" is unknown; write "repair" or "report" or "off"
        ssyncp.toml:27: audit_interval: 2h is not from 1s to 1h; write "1m", or "0s" for none
        ssyncp.toml:28: history: 2 frames; at least 16 are needed to answer a re-request
        ssyncp.toml:29: dump_interval: 999ms is not from 1s to 1h; write "30s"
        ssyncp.toml:30: filter: "ct state establishd", column 10: "establishd" is no state of ct; write new, established or related (those of tcp: "tcp state time_wait")
        ssyncp.toml:31: ack: "quorum" is not in this version; write "none"
        ssyncp.toml:33: listen: "localhost" is no address with a port; write "127.0.0.1:9114"
        "#);
    }

    /// [3.0.7]
    #[test]
    fn a_group_is_any_of_ipv4_or_one_of_ipv6_that_no_router_passes_on() {
        let with = |group: &str| parse(&format!("{SMALLEST}group = \"{group}\"\n"));
        assert_eq!(with("ff02::7251").unwrap().groups[0].group.to_string(), "ff02::7251");
        assert_eq!(with("224.0.0.99").unwrap().groups[0].group.to_string(), "224.0.0.99");
        for group in ["ff05::7251", "ff0e::1", "ff12::1", "ff01::1"] {
            assert_eq!(
                with(group).unwrap_err().to_string(),
                format!(
                    "ssyncp.toml:6: group: \"{group}\" is not of link-local scope (ff02::/16); write \"ff02::7251\""
                )
            );
        }
        for group in ["fe80::1", "2001:db8::1", "::"] {
            assert_eq!(
                with(group).unwrap_err().to_string(),
                format!(
                    "ssyncp.toml:6: group: \"{group}\" is no multicast address; write \"224.0.0.81\", or \"ff02::7251\" \
                     for IPv6"
                )
            );
        }
    }

    #[test]
    fn a_ninth_sync_link_and_one_that_stands_there_twice_are_mistakes() {
        let with =
            |interfaces: &str| parse(&format!("[node]\nid = 1\n[[group]]\nsync_id = 51\ninterfaces = {interfaces}\n"));
        let eight = r#"["e1", "e2", "e3", "e4", "e5", "e6", "e7", "e8"]"#;
        assert_eq!(with(eight).unwrap().groups[0].interfaces.len(), 8);
        assert_eq!(
            with(&eight.replace(']', ", \"e9\"]")).unwrap_err().to_string(),
            "ssyncp.toml:5: interfaces: 9 entries; at most 8"
        );
        assert_eq!(
            with(r#"["e1", "e2", "e1"]"#).unwrap_err().to_string(),
            "ssyncp.toml:5: interfaces: \"e1\" stands there twice; name each sync link once"
        );
    }

    #[test]
    fn contradictions_are_mistakes() {
        let text = r#"[node]
id = 1
[[group]]
sync_id = 1
transport = "memory"
interfaces = ["eth1"]
priority = 255
preempt = false
[[group]]
sync_id = 2
interfaces = []
advert_interval = "10ms"
batch_delay = "20ms"
ack_delay = "11ms"
reorder_delay = "12ms"
addresses = ["192.0.2.10/24 dev eth0", "192.0.2.10/32 dev eth1"]
[[group]]
sync_id = 3
interfaces = ["eth1"]
role = "manual"
preempt = true
addresses = ["192.0.2.10/24 dev eth0"]
commit = "on-takeover"
audit = "report"
"#;
        insta::assert_snapshot!(problems(text), @r#"
        ssyncp.toml:6: interfaces: transport "memory" has none; remove them, or write transport = "raw"
        ssyncp.toml:8: preempt: the owner of the addresses (priority 255) always preempts; remove it, or write priority = 254
        ssyncp.toml:11: interfaces: names none; transport "raw" needs at least one, as ["eth1"]
        ssyncp.toml:13: batch_delay: 20ms is not shorter than advert_interval (10ms); write a shorter one
        ssyncp.toml:14: ack_delay: 11ms is not shorter than advert_interval (10ms); write a shorter one
        ssyncp.toml:15: reorder_delay: 12ms is not shorter than advert_interval (10ms); write a shorter one
        ssyncp.toml:16: addresses: 192.0.2.10 stands there twice; name each address once
        ssyncp.toml:21: preempt: with role "manual" nobody preempts; remove it, or write role = "vrrp"
        ssyncp.toml:22: addresses: 192.0.2.10 is held by group 2; one group holds an address
        ssyncp.toml:24: audit: with commit "on-takeover" a backup's kernel holds nothing to audit; remove it, or write audit = "off"
        "#);
    }

    #[test]
    fn what_is_missing_is_named_where_it_belongs() {
        insta::assert_snapshot!(problems(""), @r#"
        ssyncp.toml:1: [node] is missing; write [node] with id = 1 (another number on each node)
        ssyncp.toml:1: no [[group]]; write one with sync_id = 51 and interfaces = ["eth1"]
        "#);
        insta::assert_snapshot!(problems("[node]\n[[group]]\n"), @r#"
        ssyncp.toml:1: id: is missing; write id = 1 (another number on each node)
        ssyncp.toml:2: sync_id: is missing; write sync_id = 51 (the same number on all nodes)
        ssyncp.toml:2: interfaces: is missing; write interfaces = ["eth1"] (the sync links)
        "#);
        insta::assert_snapshot!(problems("[node]\nid = 1\n[group]\nsync_id = 1\n"), @r#"ssyncp.toml:3: group: there can be several; write [[group]] with two brackets"#);
        insta::assert_snapshot!(problems("node = 1\ngroup = [1]\n"), @r#"
        ssyncp.toml:1: node: is no section; write [node] on a line of its own
        ssyncp.toml:2: group: is no section; write [[group]] on a line of its own
        "#);
    }

    #[test]
    fn broken_toml_is_reported_with_its_line_and_nothing_is_guessed_from_it() {
        insta::assert_snapshot!(problems("[node]\nid = \n[[group]\nsync_id = 1\n"), @r#"
        ssyncp.toml:2: not TOML: string values must be quoted, expected literal string
        ssyncp.toml:3: not TOML: unclosed array table, expected `]`
        "#);
        insta::assert_snapshot!(problems("[node]\nid = 1\nid = 2\n"), @r#"ssyncp.toml:3: not TOML: duplicate key"#);
    }

    #[test]
    fn a_missing_file_is_one_plain_line() {
        let error = Settings::load(Path::new("/nonexistent/ssyncp.toml")).unwrap_err();
        assert_eq!(error.to_string(), "/nonexistent/ssyncp.toml: there is no such file; name another with -c FILE");
    }

    #[test]
    fn groups_that_share_the_kernel_are_warned_about() {
        let other = |source: &str| format!("{SMALLEST}[[group]]\nsync_id = 52\ninterfaces = [\"eth1\"]\n{source}\n");
        let (shared, sole) = (parse(&other("")).unwrap(), parse(&other("source = \"synthetic\"")).unwrap());
        assert!(!shared.is_sole(&shared.groups[0]) && sole.is_sole(&sole.groups[0]));
        assert!(shared.warnings()[1].contains("share this machine's kernel"), "{:?}", shared.warnings());
        assert_eq!(sole.warnings().len(), 1);
    }

    #[test]
    fn a_file_without_a_secret_is_warned_about() {
        let warnings = parse(SMALLEST).unwrap().warnings();
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("against accidents"), "{warnings:?}");
    }

    #[test]
    fn a_history_that_may_take_a_gibibyte_is_warned_about() {
        let warnings = |more: &str| parse(&format!("{SMALLEST}{more}")).unwrap().warnings();
        assert_eq!(
            warnings("history = 1048576")[1],
            "group 51: history: 1048576 frames may take 8960 MiB of memory (history times frame_len)"
        );
        assert_eq!(warnings("history = 524288\nframe_len = 2048").len(), 2);
        assert_eq!(warnings("history = 524287\nframe_len = 2048").len(), 1);
    }
}
