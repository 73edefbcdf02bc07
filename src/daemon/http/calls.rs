//! What can be called: one table, from which the routes are made, and the OpenAPI document, and the list that an unknown
//! path is answered with. A call that is not in it does not exist; one that is in it is documented.

use super::request::{DrainBody, FlushBody, PeerDeadBody, ResyncBody, RoleBody, SwitchoverBody};
use super::{Access, Desk, change, events, finish_router, flows, handover, look, metrics, sections};
use crate::daemon::answers::{
    ConfigAnswer, DrainAnswer, ErrorAnswer, FlowsAnswer, FlushAnswer, HealthAnswer, PeerDeadAnswer, PeersAnswer,
    ReloadAnswer, ResyncAnswer, RoleAnswer, SectionAnswer, SectionDeleteAnswer, SectionsAnswer, SwitchoverAnswer,
    generator,
};
use crate::daemon::events::EventMessage;
use crate::daemon::sections::VALUE_MAX;
use crate::daemon::status::NodeStatus;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::header;
use axum::routing::{MethodRouter, delete, get, post, put};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The version of OpenAPI that the document is of. Its schemas are JSON Schema 2020-12.
const OPENAPI: &str = "3.1.0";
/// The media type of the document.
const OPENAPI_TYPE: &str = "application/openapi+json;version=3.1";

/// How a schema is asked for.
type Described = fn(&mut SchemaGenerator) -> Schema;

/// One call.
struct Call {
    path: &'static str,
    /// `get`; or `post`, `put` and `delete` for what changes something.
    method: &'static str,
    route: fn() -> MethodRouter<Arc<Desk>>,
    summary: &'static str,
    /// Parameters of the query, each with what it means.
    query: &'static [(&'static str, &'static str)],
    body: Option<Described>,
    /// Media type and, if it is JSON, schema of the answer.
    answer: (&'static str, Option<Described>),
}

const JSON: &str = "application/json";
const SECTION: &str = "/v1/sections/{table}/{key}";
const ENTRY: (&str, &str) = ("group", "The group (its sync id); needed if there are several.");
const GROUP: (&str, &str) = ("group", "Only this group (its sync id).");

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

fn look<T: JsonSchema>(path: &'static str, route: fn() -> MethodRouter<Arc<Desk>>, summary: &'static str) -> Call {
    Call { path, method: "get", route, summary, query: &[], body: None, answer: (JSON, Some(schema::<T>)) }
}

fn change<T: JsonSchema>(path: &'static str, route: fn() -> MethodRouter<Arc<Desk>>, summary: &'static str) -> Call {
    Call { method: "post", ..look::<T>(path, route, summary) }
}

/// A value is longer than other bodies.
fn put_section() -> MethodRouter<Arc<Desk>> {
    put(sections::put).layer(DefaultBodyLimit::max(VALUE_MAX))
}

/// The table.
#[rustfmt::skip]
fn calls() -> Vec<Call> {
    vec![
        look::<NodeStatus>("/v1/status", || get(look::status), "Everything that is known, counters included."),
        Call {
            query: &[
                GROUP,
                ("protocol", "tcp, udp, icmp or a number."),
                ("source", "Original source address."),
                ("destination", "Original destination address."),
                ("port", "Original source or destination port."),
                ("source_port", "Original source port."),
                ("destination_port", "Original destination port."),
                ("zone", "Conntrack zone. With protocol, both addresses and both ports: the one flow, looked up and not searched for."),
                ("limit", "Most flows; 1000 without it."),
            ],
            ..look::<FlowsAnswer>("/v1/flows", || get(flows::flows), "The flow table.")
        },
        Call {
            query: &[GROUP],
            ..look::<PeersAnswer>("/v1/peers", || get(look::peers), "The other nodes, and how far they are.")
        },
        Call {
            query: &[GROUP],
            answer: ("text/event-stream", Some(schema::<EventMessage>)),
            ..look::<EventMessage>("/v1/events", || get(events::events), "The state of every group, then whatever happens, as server-sent events.")
        },
        look::<ConfigAnswer>("/v1/config", || get(look::config), "The settings in force, defaults included."),
        look::<Value>("/v1/openapi.json", || get(document), "This document."),
        Call {
            answer: ("text/plain", None),
            ..look::<Value>("/metrics", || get(metrics::metrics), "The same numbers for Prometheus.")
        },
        Call {
            query: &[GROUP],
            ..look::<SectionsAnswer>("/v1/sections", || get(sections::list), "Every entry of the sections, without its value.")
        },
        Call {
            query: &[ENTRY],
            answer: ("application/octet-stream", None),
            ..look::<Value>(SECTION, || get(sections::get), "The value of an entry, as it is; on the control socket only.")
        },
        Call {
            method: "put",
            query: &[ENTRY, ("expires_s", "Seconds until it is forgotten; 0, and without it, never.")],
            ..change::<SectionAnswer>(SECTION, put_section, "On a master: make an entry, or change its value, which is the body as it is.")
        },
        Call {
            method: "delete",
            query: &[ENTRY],
            ..change::<SectionDeleteAnswer>(SECTION, || delete(sections::delete), "On a master: remove an entry.")
        },
        look::<HealthAnswer>("/healthz", || get(look::health), "200 while every loop turns."),
        look::<HealthAnswer>("/readyz", || get(look::ready), "200 while every group is master or in sync, else 503."),
        Call {
            body: Some(schema::<RoleBody>),
            ..change::<RoleAnswer>("/v1/role", || post(change::role), "Wish for a role: master, backup or none.")
        },
        Call {
            body: Some(schema::<SwitchoverBody>),
            ..change::<SwitchoverAnswer>("/v1/switchover", || post(handover::switchover), "Give the role to another node; on a backup: ask for it.")
        },
        Call {
            body: Some(schema::<DrainBody>),
            ..change::<DrainAnswer>("/v1/drain", || post(handover::drain), "Be without the role while anybody else may have it.")
        },
        Call {
            body: Some(schema::<PeerDeadBody>),
            ..change::<PeerDeadAnswer>("/v1/peer-dead", || post(handover::peer_dead), "Swear that a node is dead: nothing of it is waited for.")
        },
        Call {
            body: Some(schema::<ResyncBody>),
            ..change::<ResyncAnswer>("/v1/resync", || post(change::resync), "Prove this node's table anew against its master's.")
        },
        Call {
            body: Some(schema::<FlushBody>),
            ..change::<FlushAnswer>("/v1/flush", || post(change::flush), "Wait until every proven peer holds what was submitted so far.")
        },
        change::<ReloadAnswer>("/v1/reload", || post(change::reload), "Read the configuration anew; all of it is applied, or nothing."),
    ]
}

/// Every path there is.
pub(super) fn paths() -> Vec<&'static str> {
    let mut paths: Vec<&str> = calls().iter().map(|call| call.path).collect();
    paths.dedup();
    paths
}

pub(super) fn router(desk: Arc<Desk>, access: Access) -> Router {
    let router = calls().into_iter().fold(Router::new(), |router, call| router.route(call.path, (call.route)()));
    finish_router(router, desk, access)
}

async fn document() -> ([(header::HeaderName, &'static str); 1], String) {
    ([(header::CONTENT_TYPE, OPENAPI_TYPE)], format!("{:#}\n", openapi()))
}

/// The OpenAPI document; docs/openapi.json is what this returns.
pub fn openapi() -> Value {
    let mut generator = generator("/components/schemas");
    let error = schema::<ErrorAnswer>(&mut generator);
    let mut paths = Map::new();
    for call in calls() {
        let operations = paths.entry(call.path).or_insert_with(|| json!({}));
        operations[call.method] = operation(&call, &error, &mut generator);
    }
    let schemas = generator.take_definitions(true);
    json!({
        "openapi": OPENAPI,
        "info": {
            "title": "SSYNCP control interface",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "On the control socket, and for GET on `[control] listen`. There every other method is refused with 403.",
            "license": { "name": env!("CARGO_PKG_LICENSE"), "identifier": env!("CARGO_PKG_LICENSE") },
        },
        "servers": [{ "url": "http://localhost", "description": "curl --unix-socket /run/ssyncp/control.sock" }],
        "paths": paths,
        "components": { "schemas": schemas },
    })
}

fn operation(call: &Call, error: &Schema, generator: &mut SchemaGenerator) -> Value {
    let (media_type, answer) = call.answer;
    let answer = answer.map_or(json!({ "type": "string" }), |schema| schema(generator).into());
    let name = call.path.trim_start_matches("/v1").trim_matches('/').replace(".json", "");
    let parts: Vec<&str> = call.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
    // Several methods of one path are several operations.
    let name =
        if parts.is_empty() { name } else { format!("{}-{}", name.split('/').next().unwrap_or_default(), call.method) };
    let mut operation = json!({
        "operationId": name,
        "summary": call.summary,
        "responses": {
            "200": { "description": "Done.", "content": { media_type: { "schema": answer } } },
            "default": { "description": "Refused.", "content": { JSON: { "schema": error } } },
        },
    });
    if !call.query.is_empty() {
        let parameter = |(name, meaning): &(&str, &str)| {
            let schema = json!({ "type": "string" });
            json!({ "name": name, "in": "query", "description": meaning, "required": false, "schema": schema })
        };
        operation["parameters"] = call.query.iter().map(parameter).collect();
    }
    for part in parts {
        let parameter = json!({ "name": part, "in": "path", "required": true, "schema": { "type": "string" } });
        if let Some(parameters) = operation["parameters"].as_array_mut() {
            parameters.push(parameter);
        }
    }
    if let Some(body) = call.body {
        operation["requestBody"] = json!({ "content": { JSON: { "schema": body(generator) } } });
    }
    operation
}
