//! `GET /v1/flows`: the table, written page by page as its reader takes it, so that any table needs the memory of a few
//! pages, and the loop never waits for a slow reader.

use super::{Desk, Refusal, pairs};
use crate::daemon::answers::FLOWS_SCHEMA;
use crate::daemon::control::{Command, GroupHandle, Listing, Page};
use crate::daemon::flows::{FlowFilter, FlowRow, LIMIT_DEFAULT, LIMIT_MAX, protocol_number};
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
    let listed = flow_query(query.as_deref().unwrap_or("")).and_then(|query| Ok((query, desk.groups(query.group)?)));
    match listed {
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

/// What `/v1/flows` was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct FlowQuery {
    group: Option<u8>,
    filter: FlowFilter,
    limit: usize,
}

fn flow_query(text: &str) -> Result<FlowQuery, Refusal> {
    let mut query = FlowQuery { group: None, filter: FlowFilter::default(), limit: LIMIT_DEFAULT };
    for (key, value) in pairs(text) {
        let bad = |what: &str| Refusal::bad("bad_filter", format!("{key}: \"{value}\" is no {what}"));
        match key {
            "group" => query.group = Some(value.parse().map_err(|_| bad("group"))?),
            "protocol" => query.filter.protocol = Some(protocol_number(&value).ok_or_else(|| bad("protocol"))?),
            "source" => query.filter.source = Some(value.parse().map_err(|_| bad("address"))?),
            "destination" => query.filter.destination = Some(value.parse().map_err(|_| bad("address"))?),
            "port" => query.filter.port = Some(value.parse().map_err(|_| bad("port"))?),
            "limit" => {
                query.limit = value.parse().ok().filter(|limit| *limit <= LIMIT_MAX).ok_or_else(|| bad("limit"))?
            }
            other => {
                let sentence = format!("{other}: known are group, protocol, source, destination, port and limit");
                return Err(Refusal::bad("unknown_filter", sentence));
            }
        }
    }
    Ok(query)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_strictly() {
        let query =
            flow_query("group=51&protocol=tcp&source=10.0.0.1&destination=2001%3Adb8%3A%3a1&port=80&limit=5").unwrap();
        assert_eq!((query.group, query.limit), (Some(51), 5));
        assert_eq!(query.filter.protocol, Some(6));
        assert_eq!(query.filter.source, Some("10.0.0.1".parse().unwrap()));
        assert_eq!(query.filter.destination, Some("2001:db8::1".parse().unwrap()));
        assert_eq!(query.filter.port, Some(80));
        assert_eq!(flow_query("").unwrap().limit, 1000);
        assert_eq!(flow_query("port=").unwrap().filter, FlowFilter::default());
        for (text, reason) in [
            ("port=70000", "bad_filter"),
            ("protocol=tpc", "bad_filter"),
            ("source=10.0.0", "bad_filter"),
            ("limit=-1", "bad_filter"),
            ("group=256", "bad_filter"),
            ("colour=red", "unknown_filter"),
        ] {
            assert_eq!(flow_query(text).unwrap_err().reason, reason, "{text}");
        }
    }
}
