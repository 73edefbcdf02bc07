//! The calls that only look: status, peers, settings in force, health.

use super::request::group_query;
use super::{Desk, HEALTH_DEADLINE, Refusal, answer};
use crate::daemon::answers::{
    CONFIG_SCHEMA, ConfigAnswer, ERROR_SCHEMA, ErrorAnswer, HEALTH_SCHEMA, HealthAnswer, PEERS_SCHEMA, PeersAnswer,
    PeersRow,
};
use crate::daemon::control::Command;
use crate::daemon::settings::Settings;
use crate::daemon::status::{GroupStatus, NodeStatus, STATUS_SCHEMA};
use crate::sys::{clock, huge};
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use std::sync::Arc;

pub(super) async fn status(State(desk): State<Arc<Desk>>) -> Response {
    let groups = match statuses(&desk, None).await {
        Ok(groups) => groups,
        Err(refusal) => return desk.refuse(refusal),
    };
    let status = NodeStatus {
        schema: STATUS_SCHEMA.to_owned(),
        node: desk.roster.node().clone(),
        refused_requests: desk.refused_requests(),
        reload: desk.roster.last_reload(),
        huge_pages: huge::setting(),
        swap: desk.roster.swap(),
        sandbox: desk.roster.sandbox().status().clone(),
        groups,
    };
    answer(StatusCode::OK, &status)
}

async fn statuses(desk: &Desk, group: Option<u8>) -> Result<Vec<GroupStatus>, Refusal> {
    let groups = desk.groups(group)?;
    let mut statuses = Vec::with_capacity(groups.len());
    for group in &groups {
        statuses.push(desk.ask(group, Command::Status).await?);
    }
    Ok(statuses)
}

pub(super) async fn peers(State(desk): State<Arc<Desk>>, RawQuery(query): RawQuery) -> Response {
    let result = match group_query(query.as_deref().unwrap_or("")) {
        Ok(group) => statuses(&desk, group).await,
        Err(bad) => Err(bad.into()),
    };
    desk.finish(result.map(|groups| PeersAnswer {
        schema: PEERS_SCHEMA.to_owned(),
        node: desk.roster.node().clone(),
        groups: groups.into_iter().map(peers_row).collect(),
    }))
}

fn peers_row(group: GroupStatus) -> PeersRow {
    PeersRow { sync_id: group.sync_id, role: group.role, stream_seq: group.stream_seq, peers: group.peers }
}

/// Secrets never: [`Settings`] holds none, and one that it will name is a path.
pub(super) async fn config(State(desk): State<Arc<Desk>>) -> Response {
    let settings = Settings::clone(&desk.roster.settings());
    let file = desk.roster.file().display().to_string();
    answer(StatusCode::OK, &ConfigAnswer { schema: CONFIG_SCHEMA.to_owned(), file, settings })
}

pub(super) async fn health(State(desk): State<Arc<Desk>>) -> Response {
    let now = clock::now();
    let groups = desk.roster.groups();
    match groups.iter().find(|group| group.idle_for(now) > HEALTH_DEADLINE) {
        None => well(),
        Some(group) => {
            let sentence = format!("the loop of group {} has not turned for {HEALTH_DEADLINE:?}", group.sync_id);
            desk.refuse(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "loop_stuck", sentence))
        }
    }
}

pub(super) async fn ready(State(desk): State<Arc<Desk>>) -> Response {
    let statuses = match statuses(&desk, None).await {
        Ok(statuses) => statuses,
        Err(refusal) => return desk.refuse(refusal),
    };
    let reasons: Vec<String> = statuses
        .iter()
        .filter_map(|group| group.not_ready().map(|reason| format!("group {}: {reason}", group.sync_id)))
        .collect();
    if reasons.is_empty() {
        return well();
    }
    // Not being ready is an answer and no mistake of the asker: it is not counted as one.
    let body = ErrorAnswer {
        schema: ERROR_SCHEMA.to_owned(),
        error: reasons.join("; "),
        reason: "not_ready".to_owned(),
        problems: reasons,
    };
    answer(StatusCode::SERVICE_UNAVAILABLE, &body)
}

fn well() -> Response {
    answer(StatusCode::OK, &HealthAnswer { schema: HEALTH_SCHEMA.to_owned(), ok: true })
}
