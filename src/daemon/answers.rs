//! Every JSON answer of the control interface and of the commands' `--json`, as types. Their JSON Schemas, and through
//! them the OpenAPI document, are derived from these types and from nothing else: docs/schemas holds what [`schemas`]
//! makes, and a test holds real answers to it.
//!
//! What was not measured is null, never 0, and never missing.

use crate::daemon::events::EventMessage;
use crate::daemon::flows::FlowRow;
use crate::daemon::settings::Settings;
use crate::daemon::status::{NodeName, NodeStatus, PeerRow};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The schema of [`ErrorAnswer`].
pub const ERROR_SCHEMA: &str = "ssyncp.error/1";
/// The schema of [`FlowsAnswer`].
pub const FLOWS_SCHEMA: &str = "ssyncp.flows/1";
/// The schema of [`RoleAnswer`].
pub const ROLE_SCHEMA: &str = "ssyncp.role/1";
/// The schema of [`HealthAnswer`].
pub const HEALTH_SCHEMA: &str = "ssyncp.health/1";
/// The schema of [`PeersAnswer`].
pub const PEERS_SCHEMA: &str = "ssyncp.peers/1";
/// The schema of [`ConfigAnswer`].
pub const CONFIG_SCHEMA: &str = "ssyncp.config/1";
/// The schema of [`ResyncAnswer`].
pub const RESYNC_SCHEMA: &str = "ssyncp.resync/1";
/// The schema of [`FlushAnswer`].
pub const FLUSH_SCHEMA: &str = "ssyncp.flush/1";
/// The schema of [`SwitchoverAnswer`].
pub const SWITCHOVER_SCHEMA: &str = "ssyncp.switchover/1";
/// The schema of [`DrainAnswer`].
pub const DRAIN_SCHEMA: &str = "ssyncp.drain/1";
/// The schema of [`PeerDeadAnswer`].
pub const PEER_DEAD_SCHEMA: &str = "ssyncp.peer-dead/1";
/// The schema of [`ReloadAnswer`].
pub const RELOAD_SCHEMA: &str = "ssyncp.reload/1";
/// The schema of [`SectionsAnswer`].
pub const SECTIONS_SCHEMA: &str = "ssyncp.sections/1";
/// The schema of [`SectionAnswer`].
pub const SECTION_SCHEMA: &str = "ssyncp.section/1";
/// The schema of [`SectionDeleteAnswer`].
pub const SECTION_DELETE_SCHEMA: &str = "ssyncp.section-delete/1";
/// The schema of [`CheckAnswer`].
pub const CHECK_SCHEMA: &str = "ssyncp.check/1";

/// Every request that is not carried out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ErrorAnswer {
    /// `ssyncp.error/1`.
    #[schemars(extend("const" = "ssyncp.error/1"))]
    pub schema: String,
    /// Why, in a sentence.
    pub error: String,
    /// Why, in a word; counted under it in `refused_requests` of the status.
    pub reason: String,
    /// Everything that is wrong, one sentence each, if it is several things.
    #[serde(default)]
    pub problems: Vec<String>,
}

/// `GET /v1/flows`.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct FlowsAnswer {
    /// `ssyncp.flows/1`.
    #[schemars(extend("const" = "ssyncp.flows/1"))]
    pub schema: String,
    /// The flows.
    pub flows: Vec<FlowRow>,
    /// How many they are.
    pub count: u64,
    /// False if the limit cut the answer off, or a group stopped answering.
    pub complete: bool,
}

/// `POST /v1/role`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RoleAnswer {
    /// `ssyncp.role/1`.
    #[schemars(extend("const" = "ssyncp.role/1"))]
    pub schema: String,
    /// Each group that was told.
    pub groups: Vec<RoleRow>,
}

/// One group of [`RoleAnswer`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct RoleRow {
    /// The group.
    pub sync_id: u8,
    /// The wish.
    pub requested: String,
    /// The role right after it was told.
    pub role: String,
}

/// `POST /v1/switchover`: what has begun. Whether it came to its end is told by status and events.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct SwitchoverAnswer {
    /// `ssyncp.switchover/1`.
    #[schemars(extend("const" = "ssyncp.switchover/1"))]
    pub schema: String,
    /// Each group whose role is to change hands.
    pub groups: Vec<SwitchoverRow>,
}

/// One group of [`SwitchoverAnswer`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct SwitchoverRow {
    /// The group.
    pub sync_id: u8,
    /// The node that is to be master.
    pub heir: u32,
}

/// `POST /v1/drain`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct DrainAnswer {
    /// `ssyncp.drain/1`.
    #[schemars(extend("const" = "ssyncp.drain/1"))]
    pub schema: String,
    /// Each group that was told.
    pub groups: Vec<DrainRow>,
}

/// One group of [`DrainAnswer`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct DrainRow {
    /// The group.
    pub sync_id: u8,
    /// The role right after it was told.
    pub role: String,
    /// Every reason to be without the role that there is now: operator, track.
    pub draining: Vec<String>,
}

/// `POST /v1/peer-dead`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct PeerDeadAnswer {
    /// `ssyncp.peer-dead/1`.
    #[schemars(extend("const" = "ssyncp.peer-dead/1"))]
    pub schema: String,
    /// Who is dead.
    pub node: u32,
    /// Each group that knew the node.
    pub groups: Vec<PeerDeadRow>,
}

/// One group of [`PeerDeadAnswer`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct PeerDeadRow {
    /// The group.
    pub sync_id: u8,
    /// This node's role right after it was told.
    pub role: String,
}

/// `GET /healthz` and `GET /readyz`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HealthAnswer {
    /// `ssyncp.health/1`.
    #[schemars(extend("const" = "ssyncp.health/1"))]
    pub schema: String,
    /// Always true: what is not well is an error.
    pub ok: bool,
}

/// `GET /v1/peers`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct PeersAnswer {
    /// `ssyncp.peers/1`.
    #[schemars(extend("const" = "ssyncp.peers/1"))]
    pub schema: String,
    /// Who answers.
    pub node: NodeName,
    /// Every group.
    pub groups: Vec<PeersRow>,
}

/// One group of [`PeersAnswer`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct PeersRow {
    /// The group.
    pub sync_id: u8,
    /// This node's role in it.
    pub role: String,
    /// Number of the newest DATA frame of this node's stream.
    pub stream_seq: u64,
    /// The other nodes.
    pub peers: Vec<PeerRow>,
}

/// `GET /v1/config`: what is in force, defaults included, and nothing that is secret.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ConfigAnswer {
    /// `ssyncp.config/1`.
    #[schemars(extend("const" = "ssyncp.config/1"))]
    pub schema: String,
    /// Where it was read from.
    pub file: String,
    /// The settings, under the names that they have in the file.
    pub settings: Settings,
}

/// `POST /v1/resync`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ResyncAnswer {
    /// `ssyncp.resync/1`.
    #[schemars(extend("const" = "ssyncp.resync/1"))]
    pub schema: String,
    /// Whether every bucket is walked although the tables may be equal.
    pub full: bool,
    /// Each group whose table is proven anew.
    pub groups: Vec<ResyncRow>,
}

/// One group of [`ResyncAnswer`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ResyncRow {
    /// The group.
    pub sync_id: u8,
    /// Buckets that are to be proven, of 4096.
    pub buckets: u32,
}

/// `POST /v1/flush`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct FlushAnswer {
    /// `ssyncp.flush/1`.
    #[schemars(extend("const" = "ssyncp.flush/1"))]
    pub schema: String,
    /// Whether every group was flushed in time.
    pub flushed: bool,
    /// Each group that this node is master of.
    pub groups: Vec<FlushRow>,
}

/// One group of [`FlushAnswer`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct FlushRow {
    /// The group.
    pub sync_id: u8,
    /// Whether every proven peer holds what was submitted before the call, and there is one.
    pub flushed: bool,
    /// How long that took, or was waited for.
    pub took_ms: f64,
    /// The frame up to which they must hold everything; null while records still wait to be sent.
    pub seq: Option<u64>,
    /// Records that wait to be sent now.
    pub pending: u64,
    /// The nodes that hold everything, and are proven.
    pub held_by: Vec<u32>,
    /// The other nodes, each with its frontier.
    pub peers: Vec<PeerRow>,
}

/// `POST /v1/reload`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ReloadAnswer {
    /// `ssyncp.reload/1`.
    #[schemars(extend("const" = "ssyncp.reload/1"))]
    pub schema: String,
    /// What is different now, one sentence each.
    pub changes: Vec<String>,
    /// What is open or at risk by that, one sentence each with its cure; what was so before is not told again.
    pub warnings: Vec<String>,
}

/// `GET /v1/sections`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct SectionsAnswer {
    /// `ssyncp.sections/1`.
    #[schemars(extend("const" = "ssyncp.sections/1"))]
    pub schema: String,
    /// Each group that has sections.
    pub groups: Vec<SectionsRow>,
}

/// One group of [`SectionsAnswer`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct SectionsRow {
    /// The group.
    pub sync_id: u8,
    /// Entries that fit.
    pub entries_max: u64,
    /// Bytes of keys and values, those included that are gone while a peer has yet to hear of it.
    pub bytes: u64,
    /// Bytes that fit.
    pub bytes_max: u64,
    /// Every entry, in the order of sections and keys.
    pub sections: Vec<SectionRow>,
}

/// One entry of a section, without its value.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct SectionRow {
    /// The section that it is in.
    pub table: u16,
    /// What names it; bytes that are no text are shown as U+FFFD.
    pub key: String,
    /// Length of its value.
    pub bytes: u64,
    /// Time until it is forgotten; null: never.
    pub expires_s: Option<u32>,
}

/// `PUT /v1/sections/{table}/{key}`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct SectionAnswer {
    /// `ssyncp.section/1`.
    #[schemars(extend("const" = "ssyncp.section/1"))]
    pub schema: String,
    /// The group.
    pub sync_id: u8,
    /// The entry.
    pub section: SectionRow,
}

/// `DELETE /v1/sections/{table}/{key}`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct SectionDeleteAnswer {
    /// `ssyncp.section-delete/1`.
    #[schemars(extend("const" = "ssyncp.section-delete/1"))]
    pub schema: String,
    /// The group.
    pub sync_id: u8,
    /// The section.
    pub table: u16,
    /// The key.
    pub key: String,
    /// Whether there was such an entry.
    pub deleted: bool,
}

/// `ssyncp check --json`.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct CheckAnswer {
    /// `ssyncp.check/1`.
    #[schemars(extend("const" = "ssyncp.check/1"))]
    pub schema: String,
    /// The file.
    pub file: String,
    /// Whether it can be used.
    pub ok: bool,
    /// Everything that is wrong with it.
    pub problems: Vec<ProblemRow>,
    /// What an operator should know although it is no mistake.
    pub warnings: Vec<String>,
    /// What would be in force, with `--show`; else null, and null if there are problems.
    pub settings: Option<Settings>,
}

/// One problem of [`CheckAnswer`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ProblemRow {
    /// Line in the file, from 1; null if the file as a whole is meant.
    pub line: Option<usize>,
    /// What is wrong; what to write instead.
    pub message: String,
}

/// How schemas are made here: as answers are written (everything that is always there is required).
pub fn generator(definitions: &'static str) -> SchemaGenerator {
    let mut settings = SchemaSettings::draft2020_12().for_serialize();
    settings.definitions_path = definitions.into();
    SchemaGenerator::new(settings)
}

/// Every schema by the name of its file in docs/schemas, without `.json`.
pub fn schemas() -> Vec<(&'static str, Value)> {
    fn schema<T: JsonSchema>() -> Value {
        generator("/$defs").into_root_schema_for::<T>().into()
    }
    vec![
        ("check", schema::<CheckAnswer>()),
        ("config", schema::<ConfigAnswer>()),
        ("drain", schema::<DrainAnswer>()),
        ("error", schema::<ErrorAnswer>()),
        ("event", schema::<EventMessage>()),
        ("flows", schema::<FlowsAnswer>()),
        ("flush", schema::<FlushAnswer>()),
        ("health", schema::<HealthAnswer>()),
        ("peer-dead", schema::<PeerDeadAnswer>()),
        ("peers", schema::<PeersAnswer>()),
        ("reload", schema::<ReloadAnswer>()),
        ("resync", schema::<ResyncAnswer>()),
        ("role", schema::<RoleAnswer>()),
        ("section", schema::<SectionAnswer>()),
        ("section-delete", schema::<SectionDeleteAnswer>()),
        ("sections", schema::<SectionsAnswer>()),
        ("status", schema::<NodeStatus>()),
        ("switchover", schema::<SwitchoverAnswer>()),
    ]
}
