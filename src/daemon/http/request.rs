//! What a request asks for, read from its query or its body, before anybody is asked: pure functions of bytes.
//!
//! ```text
//!   /v1/flows?protocol=tcp&port=443 ─▶ FlowQuery        {"role": "backup", "group": 51} ─▶ RoleBody ─▶ RoleRequest
//!   /v1/peers?group=51 ─▶ group_query                   {"timeout_ms": 5000}            ─▶ FlushBody ─▶ Duration
//! ```
//!
//! What is not understood to its end is refused: a filter that is left out by mistake would answer another question.

use crate::daemon::flows::{FlowFilter, LIMIT_DEFAULT, LIMIT_MAX, protocol_number};
use crate::daemon::who::Who;
use crate::engine::RoleRequest;
use crate::planted::{Plant, planted};
use crate::time::Duration;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Time that a flush waits unless it says otherwise.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time that it may ask for.
const FLUSH_TIMEOUT_MAX: Duration = Duration::from_secs(50);

/// A request that says nothing that could be done.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{sentence}")]
pub struct BadRequest {
    /// One word, which is counted.
    pub reason: &'static str,
    /// What is wrong; what to send instead.
    pub sentence: String,
}

impl BadRequest {
    pub(super) fn new(reason: &'static str, sentence: impl Into<String>) -> Self {
        BadRequest { reason, sentence: sentence.into() }
    }
}

/// The query of a call that only knows `group`.
///
/// # Errors
/// [`BadRequest`]: `unknown_filter` or `bad_filter`.
pub fn group_query(query: &str) -> Result<Option<u8>, BadRequest> {
    let mut group = None;
    for (key, value) in pairs(query) {
        if key != "group" {
            return Err(BadRequest::new("unknown_filter", format!("{key}: known is group")));
        }
        let wrong = |_| BadRequest::new("bad_filter", format!("{key}: \"{value}\" is no group"));
        group = Some(value.parse().map_err(wrong)?);
    }
    Ok(group)
}

/// What `PUT /v1/sections/…` says beside the value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SectionQuery {
    /// The group.
    pub group: Option<u8>,
    /// Seconds until the entry is forgotten; 0 is never.
    pub expires_s: u32,
}

impl SectionQuery {
    /// Reads a query.
    ///
    /// # Errors
    /// [`BadRequest`]: `unknown_filter` or `bad_filter`.
    pub fn parse(query: &str) -> Result<Self, BadRequest> {
        let mut asked = SectionQuery { group: None, expires_s: 0 };
        for (key, value) in pairs(query) {
            let bad = |what: &str| BadRequest::new("bad_filter", format!("{key}: \"{value}\" is no {what}"));
            match key {
                "group" => asked.group = Some(value.parse().map_err(|_| bad("group"))?),
                "expires_s" => asked.expires_s = value.parse().map_err(|_| bad("number of seconds"))?,
                other => {
                    let sentence = format!("{other}: known are group and expires_s");
                    return Err(BadRequest::new("unknown_filter", sentence));
                }
            }
        }
        Ok(asked)
    }
}

/// What `/v1/flows` was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowQuery {
    /// Only this group; all without it.
    pub group: Option<u8>,
    /// Which flows.
    pub filter: FlowFilter,
    /// Most of them, up to [`LIMIT_MAX`].
    pub limit: usize,
}

impl FlowQuery {
    /// Reads a query.
    ///
    /// # Errors
    /// [`BadRequest`]: `unknown_filter` or `bad_filter`.
    pub fn parse(query: &str) -> Result<Self, BadRequest> {
        let mut asked = FlowQuery { group: None, filter: FlowFilter::default(), limit: LIMIT_DEFAULT };
        for (key, value) in pairs(query) {
            let bad = |what: &str| BadRequest::new("bad_filter", format!("{key}: \"{value}\" is no {what}"));
            match key {
                "group" => asked.group = Some(value.parse().map_err(|_| bad("group"))?),
                "protocol" => asked.filter.protocol = Some(protocol_number(&value).ok_or_else(|| bad("protocol"))?),
                "source" => asked.filter.source = Some(value.parse().map_err(|_| bad("address"))?),
                "destination" => asked.filter.destination = Some(value.parse().map_err(|_| bad("address"))?),
                "port" => asked.filter.port = Some(value.parse().map_err(|_| bad("port"))?),
                "source_port" => asked.filter.source_port = Some(value.parse().map_err(|_| bad("port"))?),
                "destination_port" => asked.filter.destination_port = Some(value.parse().map_err(|_| bad("port"))?),
                "zone" => asked.filter.zone = Some(value.parse().map_err(|_| bad("zone"))?),
                "limit" => {
                    let is_short = |limit: &usize| *limit <= LIMIT_MAX || planted(Plant::FlowLimit);
                    asked.limit = value.parse().ok().filter(is_short).ok_or_else(|| bad("limit"))?
                }
                other => {
                    let sentence = format!(
                        "{other}: known are group, protocol, source, destination, port, source_port, destination_port, zone and limit"
                    );
                    return Err(BadRequest::new("unknown_filter", sentence));
                }
            }
        }
        Ok(asked)
    }
}

/// The body of `POST /v1/role`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RoleBody {
    /// Only this group; all without it.
    pub group: Option<u8>,
    /// master, backup or none.
    pub role: String,
}

impl RoleBody {
    /// Reads a body.
    ///
    /// # Errors
    /// [`BadRequest`]: `bad_json`.
    pub fn parse(body: &[u8]) -> Result<Self, BadRequest> {
        read(body, "{\"role\": \"master\"}")
    }

    /// The role by its name.
    ///
    /// # Errors
    /// [`BadRequest`]: `unknown_role`.
    pub fn request(&self) -> Result<RoleRequest, BadRequest> {
        match self.role.as_str() {
            "master" => Ok(RoleRequest::Master),
            "backup" => Ok(RoleRequest::Backup),
            "none" => Ok(RoleRequest::None),
            other => {
                let sentence = format!("\"{other}\" is no role to be given; send master, backup or none");
                Err(BadRequest::new("unknown_role", sentence))
            }
        }
    }
}

/// The body of `POST /v1/switchover`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SwitchoverBody {
    /// Only this group; without it every group of which this node is master, or, if there is none, every group.
    pub group: Option<u8>,
    /// The number or the name of the node that is to be master; without it the best of those that may. A backup can name only
    /// itself.
    pub to: Option<Who>,
}

impl SwitchoverBody {
    /// Reads a body.
    ///
    /// # Errors
    /// [`BadRequest`]: `bad_json`.
    pub fn parse(body: &[u8]) -> Result<Self, BadRequest> {
        read(body, "{\"group\": 51, \"to\": 2}")
    }
}

/// The body of `POST /v1/drain`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DrainBody {
    /// Only this group; all without it.
    pub group: Option<u8>,
    /// No longer.
    pub off: bool,
}

impl DrainBody {
    /// Reads a body.
    ///
    /// # Errors
    /// [`BadRequest`]: `bad_json`.
    pub fn parse(body: &[u8]) -> Result<Self, BadRequest> {
        read(body, "{\"group\": 51, \"off\": false}")
    }
}

/// The body of `POST /v1/peer-dead`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PeerDeadBody {
    /// Only this group; without it every group that knows the node.
    pub group: Option<u8>,
    /// The number of the node that is dead.
    #[schemars(range(min = 1))]
    pub node: u32,
}

impl PeerDeadBody {
    /// Reads a body.
    ///
    /// # Errors
    /// [`BadRequest`]: `bad_json`.
    pub fn parse(body: &[u8]) -> Result<Self, BadRequest> {
        read(body, "{\"node\": 2}")
    }
}

/// The body of `POST /v1/resync`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ResyncBody {
    /// Only this group; without it every group of which this node is not master.
    pub group: Option<u8>,
    /// Walk every bucket although the tables may be equal.
    pub full: bool,
}

impl ResyncBody {
    /// Reads a body.
    ///
    /// # Errors
    /// [`BadRequest`]: `bad_json`.
    pub fn parse(body: &[u8]) -> Result<Self, BadRequest> {
        read(body, "{\"group\": 51, \"full\": true}")
    }
}

/// The body of `POST /v1/flush`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FlushBody {
    /// Only this group; without it every group of which this node is master.
    pub group: Option<u8>,
    /// How long to wait in milliseconds, at most 50000; 10000 without it.
    pub timeout_ms: Option<u64>,
}

impl FlushBody {
    /// Reads a body.
    ///
    /// # Errors
    /// [`BadRequest`]: `bad_json`.
    pub fn parse(body: &[u8]) -> Result<Self, BadRequest> {
        read(body, "{\"group\": 51, \"timeout_ms\": 1000}")
    }

    /// How long to wait.
    ///
    /// # Errors
    /// [`BadRequest`]: `bad_timeout`.
    pub fn timeout(&self) -> Result<Duration, BadRequest> {
        let timeout = self.timeout_ms.map_or(FLUSH_TIMEOUT, Duration::from_millis);
        if timeout > FLUSH_TIMEOUT_MAX {
            let most = FLUSH_TIMEOUT_MAX.as_millis();
            return Err(BadRequest::new("bad_timeout", format!("timeout_ms: at most {most}")));
        }
        Ok(timeout)
    }
}

/// The pairs of a query string; what has no value says nothing. Values are numbers, addresses and words, none of which
/// needs percent-encoding but the colon of an IPv6 address, which many clients encode.
fn pairs(query: &str) -> impl Iterator<Item = (&str, String)> {
    query.split('&').filter_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (!value.is_empty()).then(|| (key, value.replace("%3A", ":").replace("%3a", ":")))
    })
}

/// Reads a body of JSON; none at all is the default one.
fn read<T: DeserializeOwned>(body: &[u8], example: &str) -> Result<T, BadRequest> {
    let text = if body.is_empty() { &b"{}"[..] } else { body };
    serde_json::from_slice(text).map_err(|error| BadRequest::new("bad_json", format!("{error}; send {example}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_strictly() {
        let text = "group=51&protocol=tcp&source=10.0.0.1&destination=2001%3Adb8%3A%3a1&port=80&limit=5";
        let query = FlowQuery::parse(text).unwrap();
        assert_eq!((query.group, query.limit), (Some(51), 5));
        assert_eq!(query.filter.protocol, Some(6));
        assert_eq!(query.filter.source, Some("10.0.0.1".parse().unwrap()));
        assert_eq!(query.filter.destination, Some("2001:db8::1".parse().unwrap()));
        assert_eq!(query.filter.port, Some(80));
        assert_eq!(FlowQuery::parse("").unwrap().limit, 1000);
        assert_eq!(FlowQuery::parse("port=").unwrap().filter, FlowFilter::default());
        for (text, reason) in [
            ("port=70000", "bad_filter"),
            ("protocol=tpc", "bad_filter"),
            ("source=10.0.0", "bad_filter"),
            ("limit=-1", "bad_filter"),
            ("group=256", "bad_filter"),
            ("colour=red", "unknown_filter"),
        ] {
            assert_eq!(FlowQuery::parse(text).unwrap_err().reason, reason, "{text}");
        }
    }

    #[test]
    fn a_flush_waits_ten_seconds_and_fifty_at_most() {
        let timeout = |body: &[u8]| FlushBody::parse(body).unwrap().timeout().map_err(|bad| bad.reason);
        assert_eq!(timeout(b""), Ok(Duration::from_secs(10)));
        assert_eq!(timeout(b"{\"timeout_ms\": 50000}"), Ok(Duration::from_secs(50)));
        assert_eq!(timeout(b"{\"timeout_ms\": 50001}"), Err("bad_timeout"));
        assert_eq!(timeout(b"{\"timeout_ms\": 18446744073709551615}"), Err("bad_timeout"));
    }

    #[test]
    fn a_body_with_a_field_too_many_is_refused_and_a_role_needs_a_name() {
        assert_eq!(ResyncBody::parse(b"{\"fill\": true}").unwrap_err().reason, "bad_json");
        assert_eq!(ResyncBody::parse(b"").unwrap(), ResyncBody { group: None, full: false });
        assert_eq!(SwitchoverBody::parse(b"").unwrap(), SwitchoverBody { group: None, to: None });
        assert_eq!(DrainBody::parse(b"{\"off\": true}").unwrap(), DrainBody { group: None, off: true });
        assert_eq!(PeerDeadBody::parse(b"").unwrap_err().reason, "bad_json");
        assert_eq!(PeerDeadBody::parse(b"{\"node\": 2}").unwrap(), PeerDeadBody { group: None, node: 2 });
        assert_eq!(RoleBody::parse(b"").unwrap_err().reason, "bad_json");
        assert_eq!(RoleBody::parse(b"{\"role\": \"none\"}").unwrap().request(), Ok(RoleRequest::None));
        let other = RoleBody::parse(b"{\"role\": \"Master\", \"group\": 51}").unwrap();
        assert_eq!((other.group, other.request().unwrap_err().reason), (Some(51), "unknown_role"));
    }
}
