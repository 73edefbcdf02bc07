//! `GET /v1/flows`: the table, written page by page as its reader takes it, so that any table needs the memory of a few
//! pages, and the loop never waits for a slow reader.

use super::request::FlowQuery;
use super::{Desk, Refusal};
use crate::daemon::answers::FLOWS_SCHEMA;
use crate::daemon::control::{Command, GroupHandle, Listing, Page};
use crate::daemon::flows::FlowRow;
use crate::time::Duration;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Pages of flows that wait between a driver and a slow reader.
const PAGES_MAX: usize = 4;

pub(super) async fn flows(State(desk): State<Arc<Desk>>, RawQuery(query): RawQuery) -> Response {
    let asked = FlowQuery::parse(query.as_deref().unwrap_or("")).map_err(Refusal::from);
    match asked.and_then(|query| Ok((query, desk.groups(query.group)?))) {
        Ok((query, groups)) => {
            let pages = FlowPages::new(query, groups, desk.answer_deadline);
            let stream = futures_util::stream::unfold(pages, |mut pages| async move {
                pages.next().await.map(|chunk| (Ok::<_, Infallible>(chunk), pages))
            });
            ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(stream)).into_response()
        }
        Err(refusal) => desk.refuse(refusal),
    }
}

/// The answer of `/v1/flows`, made page by page as the reader takes it, so that a table of any size needs the memory of
/// a few pages:
/// `{"schema": …, "flows": [ … ], "count": n, "complete": true}`. `complete` is false if the limit cut it off, or a
/// driver stopped answering.
struct FlowPages {
    query: FlowQuery,
    groups: std::vec::IntoIter<GroupHandle>,
    deadline: Duration,
    current: Option<(GroupHandle, mpsc::Receiver<Page>)>,
    count: usize,
    stage: Stage,
    complete: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Head,
    Rows,
    Done,
}

impl FlowPages {
    fn new(query: FlowQuery, groups: Vec<GroupHandle>, deadline: Duration) -> Self {
        let groups = groups.into_iter();
        FlowPages { query, groups, deadline, current: None, count: 0, stage: Stage::Head, complete: true }
    }

    async fn next(&mut self) -> Option<Bytes> {
        match self.stage {
            Stage::Head => {
                self.stage = Stage::Rows;
                Some(Bytes::from(format!("{{\"schema\":\"{FLOWS_SCHEMA}\",\"flows\":[")))
            }
            Stage::Rows => match self.page().await {
                Some(rows) => Some(rows),
                None => {
                    self.stage = Stage::Done;
                    Some(Bytes::from(format!("],\"count\":{},\"complete\":{}}}\n", self.count, self.complete)))
                }
            },
            Stage::Done => None,
        }
    }

    /// The next page that has rows, from this group or the next ones.
    async fn page(&mut self) -> Option<Bytes> {
        loop {
            let (group, pages) = match &mut self.current {
                Some(current) => current,
                None => {
                    self.current = Some(self.ask_next()?);
                    continue;
                }
            };
            match tokio::time::timeout(self.deadline, pages.recv()).await {
                Ok(Some(page)) => {
                    // The driver may be asleep because there was no room.
                    group.wake();
                    let sync_id = group.sync_id;
                    if page.last {
                        self.current = None;
                    }
                    let rows = self.rows(sync_id, &page.flows);
                    if !rows.is_empty() {
                        return Some(rows);
                    }
                }
                // Cut off by a driver that has too many listings, has stopped, or does not answer.
                Ok(None) | Err(_) => {
                    self.complete = false;
                    return None;
                }
            }
        }
    }

    /// Asks the next group for its flows. One more than the limit is asked for, to know whether the limit cut it off.
    fn ask_next(&mut self) -> Option<(GroupHandle, mpsc::Receiver<Page>)> {
        let group = self.groups.next()?;
        let (sender, receiver) = mpsc::channel(PAGES_MAX);
        let limit = self.query.limit.saturating_sub(self.count).saturating_add(1);
        let listing = Listing { filter: self.query.filter, limit, pages: sender, slot: 0 };
        if group.send(Command::Flows(listing)).is_err() {
            self.complete = false;
            return None;
        }
        Some((group, receiver))
    }

    fn rows(&mut self, sync_id: u8, page: &[crate::flow::Flow]) -> Bytes {
        let room = self.query.limit - self.count;
        self.complete &= page.len() <= room;
        let mut bytes = Vec::with_capacity(page.len() * 320);
        for flow in page.iter().take(room) {
            if self.count > 0 {
                bytes.push(b',');
            }
            self.count += 1;
            // Numbers and addresses into memory: nothing here can fail.
            let written = serde_json::to_writer(&mut bytes, &FlowRow::new(sync_id, flow));
            debug_assert!(written.is_ok());
        }
        Bytes::from(bytes)
    }
}
