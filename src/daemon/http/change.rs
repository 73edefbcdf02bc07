//! The calls that change something: role, resync, flush, reload. They are taken on the control socket only.

use super::request::{FlushBody, ResyncBody, RoleBody};
use super::{BODY_MAX, Desk, Refusal};
use crate::daemon::answers::{
    FLUSH_SCHEMA, FlushAnswer, FlushRow, RELOAD_SCHEMA, RESYNC_SCHEMA, ROLE_SCHEMA, ReloadAnswer, ResyncAnswer,
    ResyncRow, RoleAnswer, RoleRow,
};
use crate::daemon::control::{Command, FlushOrder, GroupHandle, Unanswered};
use crate::daemon::reload;
use crate::engine::Role;
use crate::sys::clock;
use crate::time::Duration;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Longest time that a reload may take: groups are started and ended one after the other.
const RELOAD_DEADLINE: Duration = Duration::from_secs(50);

/// Takes the body of a request.
pub(super) async fn body(desk: &Desk, request: Request) -> Result<Bytes, Refusal> {
    body_of(desk, request, BODY_MAX).await
}

/// The same, where the route takes so many bytes.
pub(super) async fn body_of(desk: &Desk, request: Request, most: usize) -> Result<Bytes, Refusal> {
    let late = |_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "body_too_late", "the body did not come in time");
    let too_large = |_| Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", format!("at most {most} bytes"));
    let body = tokio::time::timeout(desk.patience.body, Bytes::from_request(request, &()));
    body.await.map_err(late)?.map_err(too_large)
}

pub(super) async fn role(State(desk): State<Arc<Desk>>, request: Request) -> Response {
    let result = change_role(&desk, request).await;
    desk.finish(result)
}

async fn change_role(desk: &Desk, request: Request) -> Result<RoleAnswer, Refusal> {
    let body = RoleBody::parse(&body(desk, request).await?)?;
    let request = body.request()?;
    let mut groups = Vec::new();
    for group in &desk.groups(body.group)? {
        let told: Result<Role, String> = desk.ask(group, |answer| Command::Role(request, answer)).await?;
        let role = told.map_err(|why| refused("role_refused", group, &why))?;
        groups.push(RoleRow { sync_id: group.sync_id, requested: body.role.clone(), role: role.name().to_owned() });
    }
    Ok(RoleAnswer { schema: ROLE_SCHEMA.to_owned(), groups })
}

pub(super) fn refused(reason: &'static str, group: &GroupHandle, why: &str) -> Refusal {
    Refusal::new(StatusCode::CONFLICT, reason, format!("group {}: {why}", group.sync_id))
}

pub(super) async fn resync(State(desk): State<Arc<Desk>>, request: Request) -> Response {
    let result = start_resync(&desk, request).await;
    desk.finish(result)
}

/// Without a named group one that refuses, because it is master, is no reason to refuse the others.
async fn start_resync(desk: &Desk, request: Request) -> Result<ResyncAnswer, Refusal> {
    let body = ResyncBody::parse(&body(desk, request).await?)?;
    let mut groups = Vec::new();
    let mut refusal = None;
    for group in &desk.groups(body.group)? {
        match desk.ask(group, |answer| Command::Resync { full: body.full, answer }).await? {
            Ok(buckets) => groups.push(ResyncRow { sync_id: group.sync_id, buckets }),
            Err(why) => refusal = refusal.or(Some(refused("resync_refused", group, &why))),
        }
    }
    match refusal {
        Some(refusal) if groups.is_empty() => Err(refusal),
        _ => Ok(ResyncAnswer { schema: RESYNC_SCHEMA.to_owned(), full: body.full, groups }),
    }
}

pub(super) async fn flush(State(desk): State<Arc<Desk>>, request: Request) -> Response {
    let result = wait_for_flush(&desk, request).await;
    desk.finish(result)
}

/// All groups are asked first and waited for then, so that they share the time. Without a named group those of which
/// this node is not master are left out.
async fn wait_for_flush(desk: &Desk, request: Request) -> Result<FlushAnswer, Refusal> {
    let body = FlushBody::parse(&body(desk, request).await?)?;
    let deadline = clock::now() + body.timeout()?;
    let mut waiting = Vec::new();
    for group in desk.groups(body.group)? {
        let (answer, receiver) = oneshot::channel();
        let order = Command::Flush(FlushOrder { deadline, mark: None, answer });
        group.send(order).map_err(|why| Refusal::unanswered(group.sync_id, why))?;
        waiting.push((group, receiver));
    }
    let mut groups: Vec<FlushRow> = Vec::new();
    let mut refusal = None;
    for (group, receiver) in waiting {
        let patience = deadline.since(clock::now()) + desk.answer_deadline;
        match tokio::time::timeout(patience, receiver).await {
            Ok(Ok(Ok(row))) => groups.push(row),
            Ok(Ok(Err(why))) => refusal = refusal.or(Some(refused("flush_refused", &group, &why))),
            Ok(Err(_)) => return Err(Refusal::unanswered(group.sync_id, Unanswered::Stopped)),
            Err(_) => return Err(Refusal::unanswered(group.sync_id, Unanswered::Silent)),
        }
    }
    match refusal {
        Some(refusal) if groups.is_empty() => Err(refusal),
        _ => {
            let flushed = groups.iter().all(|group| group.flushed);
            Ok(FlushAnswer { schema: FLUSH_SCHEMA.to_owned(), flushed, groups })
        }
    }
}

pub(super) async fn reload(State(desk): State<Arc<Desk>>) -> Response {
    let result = wait_for_reload(&desk).await;
    desk.finish(result)
}

async fn wait_for_reload(desk: &Desk) -> Result<ReloadAnswer, Refusal> {
    let unavailable = |sentence: &str| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "unanswered", sentence);
    let asked = desk.roster.ask_for_reload().ok_or_else(|| unavailable("too many reloads wait already"))?;
    match tokio::time::timeout(RELOAD_DEADLINE, asked).await {
        Ok(Ok(Ok(reloaded))) => Ok(ReloadAnswer {
            schema: RELOAD_SCHEMA.to_owned(),
            changes: reloaded.changes,
            warnings: reloaded.warnings,
        }),
        Ok(Ok(Err(why))) => {
            let status = match why {
                reload::Refusal::Configuration(_) => StatusCode::UNPROCESSABLE_ENTITY,
                reload::Refusal::NeedsRestart(_) | reload::Refusal::Failed(_) => StatusCode::CONFLICT,
            };
            Err(Refusal { problems: why.problems(), ..Refusal::new(status, why.name(), why.to_string()) })
        }
        Ok(Err(_)) | Err(_) => Err(unavailable("the main thread does not answer")),
    }
}
