//! The calls about entries of sections. A value is the body as it is, of no format; everything else is JSON.

use super::change::body_of;
use super::request::{BadRequest, SectionQuery, group_query};
use super::{Access, Desk, Refusal};
use crate::daemon::answers::{
    SECTION_DELETE_SCHEMA, SECTION_SCHEMA, SECTIONS_SCHEMA, SectionAnswer, SectionDeleteAnswer, SectionRow,
    SectionsAnswer, SectionsRow,
};
use crate::daemon::control::{Command, GroupHandle};
use crate::daemon::sections::{KEY_MAX, Order, Refused, VALUE_MAX};
use crate::flow::{Section, SectionKey};
use axum::Extension;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use tokio::sync::oneshot;

/// What a path names, percent-decoded.
type Place = Path<(String, String)>;

pub(super) async fn list(State(desk): State<Arc<Desk>>, RawQuery(query): RawQuery) -> Response {
    let result = list_all(&desk, query.as_deref().unwrap_or_default()).await;
    desk.finish(result)
}

/// Without a named group those are left out that have no sections.
async fn list_all(desk: &Desk, query: &str) -> Result<SectionsAnswer, Refusal> {
    let (mut groups, mut refusal) = (Vec::new(), None);
    for group in &desk.groups(group_query(query)?)? {
        match desk.ask(group, |answer| Command::Section(Order::List(answer))).await? {
            Ok((entries, room)) => groups.push(SectionsRow {
                sync_id: group.sync_id,
                entries_max: room.entries_max,
                bytes: room.bytes,
                bytes_max: room.bytes_max,
                sections: entries.iter().map(|entry| row(&entry.key, entry.bytes, entry.expiry)).collect(),
            }),
            Err(why) => refusal = refusal.or(Some(refused(group, &why))),
        }
    }
    match refusal {
        Some(refusal) if groups.is_empty() => Err(refusal),
        _ => Ok(SectionsAnswer { schema: SECTIONS_SCHEMA.to_owned(), groups }),
    }
}

/// What is listed everywhere; what stands in it is for who may use the control socket.
pub(super) async fn get(
    State(desk): State<Arc<Desk>>,
    Extension(access): Extension<Access>,
    Path((table, key)): Place,
    RawQuery(query): RawQuery,
) -> Response {
    if access == Access::Reading {
        let sentence = "values of sections are read on the control socket";
        return desk.refuse(Refusal::new(StatusCode::FORBIDDEN, "read_only", sentence));
    }
    match find(&desk, &table, &key, query.as_deref().unwrap_or_default()).await {
        Ok(section) => {
            let value = Vec::from(section.value);
            ([(header::CONTENT_TYPE, "application/octet-stream")], value).into_response()
        }
        Err(refusal) => desk.refuse(refusal),
    }
}

async fn find(desk: &Desk, table: &str, key: &str, query: &str) -> Result<Section, Refusal> {
    let (group, key) = (only_group(desk, group_query(query)?)?, place(table, key)?);
    let absent = format!("group {}: there is no entry of this key in section {}", group.sync_id, key.table);
    let found = ask(desk, &group, |answer| Order::Get(key, answer)).await?;
    found.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "unknown_section", absent))
}

pub(super) async fn put(
    State(desk): State<Arc<Desk>>,
    Path((table, key)): Place,
    RawQuery(query): RawQuery,
    request: Request,
) -> Response {
    let result = put_one(&desk, &table, &key, query.as_deref().unwrap_or_default(), request).await;
    desk.finish(result)
}

async fn put_one(desk: &Desk, table: &str, key: &str, query: &str, request: Request) -> Result<SectionAnswer, Refusal> {
    let SectionQuery { group, expires_s } = SectionQuery::parse(query)?;
    let (group, key) = (only_group(desk, group)?, place(table, key)?);
    let value = body_of(desk, request, VALUE_MAX).await?;
    let answer = SectionAnswer {
        schema: SECTION_SCHEMA.to_owned(),
        sync_id: group.sync_id,
        section: row(&key, value.len() as u64, expires_s),
    };
    let section = Section { key, value: Vec::from(value).into(), expiry: expires_s };
    ask(desk, &group, |answer| Order::Put(section, answer)).await?;
    Ok(answer)
}

pub(super) async fn delete(
    State(desk): State<Arc<Desk>>,
    Path((table, key)): Place,
    RawQuery(query): RawQuery,
) -> Response {
    let result = delete_one(&desk, &table, &key, query.as_deref().unwrap_or_default()).await;
    desk.finish(result)
}

async fn delete_one(desk: &Desk, table: &str, key: &str, query: &str) -> Result<SectionDeleteAnswer, Refusal> {
    let (group, place) = (only_group(desk, group_query(query)?)?, place(table, key)?);
    let number = place.table;
    let deleted = ask(desk, &group, |answer| Order::Delete(place, answer)).await?;
    let (schema, sync_id) = (SECTION_DELETE_SCHEMA.to_owned(), group.sync_id);
    Ok(SectionDeleteAnswer { schema, sync_id, table: number, key: key.to_owned(), deleted })
}

/// Asks a group, whose refusal is one of HTTP.
async fn ask<T>(
    desk: &Desk,
    group: &GroupHandle,
    order: impl FnOnce(oneshot::Sender<Result<T, Refused>>) -> Order,
) -> Result<T, Refusal> {
    let answer = desk.ask(group, |answer| Command::Section(order(answer))).await?;
    answer.map_err(|why| refused(group, &why))
}

fn refused(group: &GroupHandle, why: &Refused) -> Refusal {
    let (status, reason) = match why {
        Refused::NotMaster { .. } => (StatusCode::CONFLICT, "not_master"),
        Refused::Full(_) => (StatusCode::CONFLICT, "sections_full"),
        Refused::None(_) => (StatusCode::CONFLICT, "no_sections"),
        Refused::Key => (StatusCode::BAD_REQUEST, "bad_key"),
    };
    Refusal::new(status, reason, format!("group {}: {why}", group.sync_id))
}

/// One entry is in one group.
fn only_group(desk: &Desk, named: Option<u8>) -> Result<GroupHandle, Refusal> {
    let groups = desk.groups(named)?;
    let names = || groups.iter().map(|group| group.sync_id.to_string()).collect::<Vec<_>>().join(", ");
    match &groups[..] {
        [group] => Ok(group.clone()),
        _ => {
            let sentence = format!("there are several groups; name one of {} (group=51)", names());
            Err(Refusal::new(StatusCode::BAD_REQUEST, "which_group", sentence))
        }
    }
}

fn place(table: &str, key: &str) -> Result<SectionKey, BadRequest> {
    let wrong = |sentence| BadRequest::new("bad_key", sentence);
    let number = table.parse().map_err(|_| wrong(format!("{table:?} is no section; one has a number, 0 to 65535")))?;
    if key.is_empty() || key.len() > KEY_MAX {
        return Err(wrong(format!("a key of {} bytes; one has 1 to {KEY_MAX}", key.len())));
    }
    Ok(SectionKey { table: number, key: key.as_bytes().into() })
}

fn row(key: &SectionKey, bytes: u64, expiry: u32) -> SectionRow {
    let text = String::from_utf8_lossy(&key.key).into_owned();
    SectionRow { table: key.table, key: text, bytes, expires_s: (expiry > 0).then_some(expiry) }
}
