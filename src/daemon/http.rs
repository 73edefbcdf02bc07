//! The control interface: HTTP and JSON on a Unix socket, and for reading calls on a TCP address if one is configured.
//!
//! ```text
//!   GET  /v1/status                                   everything that is known, ssyncp.status/1
//!   GET  /v1/flows?group=&protocol=&source=&destination=&port=&limit=     the table, ssyncp.flows/1
//!   POST /v1/role  {"group": 51, "role": "master"}    master, backup or none; without a group: every group
//!   GET  /healthz                                     200 while every loop turns
//!   GET  /readyz                                      200 while every group is master or in sync
//! ```
//!
//! `curl --unix-socket /run/ssyncp/control.sock http://localhost/v1/status` is a complete client. Everything here runs
//! on one thread of its own; a driver that does not answer in time costs its asker a 503 and the loop nothing. What is
//! refused is counted by its reason and shown in the status.

use crate::daemon::control::{Command, GroupHandle, Listing, Page, Unanswered};
use crate::daemon::flows::{FlowFilter, FlowRow, LIMIT_DEFAULT, LIMIT_MAX, protocol_number};
use crate::daemon::status::{GroupStatus, NodeName, NodeStatus, STATUS_SCHEMA};
use crate::engine::{Role, RoleRequest};
use crate::sys::clock;
use crate::time::Duration;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, RawQuery, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use nix::unistd::Group;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot, watch};

/// Longest body of a request in bytes.
pub const BODY_MAX: usize = 64 * 1024;
/// Time in which a driver must answer.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(2);
/// A loop that has not turned for this long is not healthy.
pub const HEALTH_DEADLINE: Duration = Duration::from_secs(5);
/// Pages of flows that wait between a driver and a slow reader.
pub const PAGES_MAX: usize = 4;
/// Mode of the control socket: its owner and its group.
pub const SOCKET_MODE: u32 = 0o660;
/// The group that the control socket is given to, if the system has it.
pub const SOCKET_GROUP: &str = "ssyncp";

/// The schema of errors.
pub const ERROR_SCHEMA: &str = "ssyncp.error/1";
/// The schema of `/v1/flows`.
pub const FLOWS_SCHEMA: &str = "ssyncp.flows/1";
/// The schema of `/v1/role`.
pub const ROLE_SCHEMA: &str = "ssyncp.role/1";
/// The schema of `/healthz` and `/readyz`.
pub const HEALTH_SCHEMA: &str = "ssyncp.health/1";

/// What the server needs to know.
#[derive(Debug)]
pub struct ServerOptions {
    /// This node.
    pub node: NodeName,
    /// Every group's driver.
    pub groups: Vec<GroupHandle>,
    /// The Unix socket.
    pub socket: PathBuf,
    /// The TCP address for reading calls.
    pub listen: Option<SocketAddr>,
    /// Time in which a driver must answer; [`ANSWER_DEADLINE`] but in tests.
    pub answer_deadline: Duration,
}

/// Why the control interface could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Somebody answers on the socket.
    #[error("another ssyncp is running: it answers on {0}")]
    AnotherRuns(PathBuf),
    /// The operating system refused.
    #[error("{place}: {error}")]
    Refused {
        /// The path or address.
        place: String,
        /// Its answer.
        #[source]
        error: io::Error,
    },
}

/// The running server; it ends when this is stopped or dropped.
#[derive(Debug)]
pub struct Server {
    stop: watch::Sender<()>,
    thread: JoinHandle<()>,
    socket: PathBuf,
    listen: Option<SocketAddr>,
}

impl Server {
    /// Opens the sockets and starts the thread.
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn start(options: ServerOptions) -> Result<Self, ServerError> {
        let unix = open_socket(&options.socket)?;
        let refused = |place: String| move |error| ServerError::Refused { place, error };
        let tcp = match options.listen {
            Some(address) => {
                let listener = std::net::TcpListener::bind(address)
                    .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
                Some(listener.map_err(refused(address.to_string()))?)
            }
            None => None,
        };
        let listen = tcp.as_ref().and_then(|listener| listener.local_addr().ok());
        let socket = options.socket.clone();
        let place = socket.display().to_string();
        let (stop, stopping) = watch::channel(());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(refused(place.clone()))?;
        let desk = Arc::new(Desk { options, refusals: Mutex::default(), requests: AtomicU64::new(0) });
        let body = move || {
            if let Err(error) = runtime.block_on(serve(desk, unix, tcp, stopping)) {
                tracing::error!("the control interface has stopped: {error}");
            }
        };
        let thread = std::thread::Builder::new().name("http".into()).spawn(body).map_err(refused(place))?;
        Ok(Server { stop, thread, socket, listen })
    }

    /// The TCP address that is listened on, with the port that the system chose if 0 was asked for.
    pub fn listen(&self) -> Option<SocketAddr> {
        self.listen
    }

    /// Ends the server and removes its socket. Answers that are under way are cut off.
    pub fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the control interface panicked");
        }
        if let Err(error) = std::fs::remove_file(&self.socket) {
            tracing::warn!("{} could not be removed: {error}", self.socket.display());
        }
    }
}

/// Binds the control socket. One that nobody answers on is a leftover and replaced.
fn open_socket(path: &Path) -> Result<std::os::unix::net::UnixListener, ServerError> {
    use std::os::unix::net::{UnixListener, UnixStream};
    let refused = |error| ServerError::Refused { place: path.display().to_string(), error };
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(refused)?;
    }
    match UnixStream::connect(path) {
        Ok(_) => return Err(ServerError::AnotherRuns(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(refused)?
        }
        // Nothing there; anything else shows when binding.
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(refused)?;
    give_to_group(path, SOCKET_GROUP);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE)).map_err(refused)?;
    listener.set_nonblocking(true).map_err(refused)?;
    Ok(listener)
}

/// Gives the socket to the group called `name`, so that its members need not be root. Without that it works all the same.
fn give_to_group(path: &Path, name: &str) {
    let given = match Group::from_name(name) {
        Ok(Some(group)) => nix::unistd::chown(path, None, Some(group.gid)),
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = given {
        tracing::warn!("{} cannot be given to the group {name}: {error}", path.display());
    }
}

async fn serve(
    desk: Arc<Desk>,
    unix: std::os::unix::net::UnixListener,
    tcp: Option<std::net::TcpListener>,
    mut stopping: watch::Receiver<()>,
) -> io::Result<()> {
    let unix = tokio::net::UnixListener::from_std(unix)?;
    let full = axum::serve(unix, router(Arc::clone(&desk), true)).into_future();
    let reading = async {
        match tcp {
            Some(tcp) => axum::serve(tokio::net::TcpListener::from_std(tcp)?, router(desk, false)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = full => ended,
        ended = reading => ended,
        _ = stopping.changed() => Ok(()),
    }
}

/// What every request shares.
#[derive(Debug)]
struct Desk {
    options: ServerOptions,
    refusals: Mutex<BTreeMap<String, u64>>,
    requests: AtomicU64,
}

fn router(desk: Arc<Desk>, changing: bool) -> Router {
    let role = if changing { post(set_role) } else { post(read_only) };
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/flows", get(flows))
        .route("/v1/role", role)
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(desk)
}

/// A request that is not carried out: status, a reason of one word that is counted, and a sentence.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    reason: &'static str,
    sentence: String,
}

impl Refusal {
    fn new(status: StatusCode, reason: &'static str, sentence: impl Into<String>) -> Self {
        Refusal { status, reason, sentence: sentence.into() }
    }

    fn bad(reason: &'static str, sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, reason, sentence)
    }

    fn unanswered(sync_id: u8, why: Unanswered) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unanswered", format!("group {sync_id}: {why}"))
    }
}

impl Desk {
    fn refuse(&self, refusal: Refusal) -> Response {
        // A poisoned lock still holds valid counters.
        let mut refusals = self.refusals.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *refusals.entry(refusal.reason.to_owned()).or_default() += 1;
        drop(refusals);
        let body = json!({ "schema": ERROR_SCHEMA, "error": refusal.sentence, "reason": refusal.reason });
        answer(refusal.status, &body)
    }

    fn finish(&self, result: Result<Value, Refusal>) -> Response {
        match result {
            Ok(body) => answer(StatusCode::OK, &body),
            Err(refusal) => self.refuse(refusal),
        }
    }

    /// The groups that a request is about: the named one, or all.
    fn groups(&self, sync_id: Option<u8>) -> Result<Vec<&GroupHandle>, Refusal> {
        let wanted: Vec<&GroupHandle> =
            self.options.groups.iter().filter(|group| sync_id.is_none_or(|id| id == group.sync_id)).collect();
        match (wanted.is_empty(), sync_id) {
            (true, Some(id)) => {
                Err(Refusal::new(StatusCode::NOT_FOUND, "unknown_group", format!("there is no group {id}")))
            }
            _ => Ok(wanted),
        }
    }

    /// Sends a command and waits for its answer.
    async fn ask<T>(
        &self,
        group: &GroupHandle,
        make: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Refusal> {
        let unanswered = |why| Refusal::unanswered(group.sync_id, why);
        let (sender, receiver) = oneshot::channel();
        group.send(make(sender)).map_err(unanswered)?;
        match tokio::time::timeout(self.options.answer_deadline, receiver).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(unanswered(Unanswered::Stopped)),
            Err(_) => Err(unanswered(Unanswered::Silent)),
        }
    }

    async fn group_statuses(&self) -> Result<Vec<GroupStatus>, Refusal> {
        let mut statuses = Vec::with_capacity(self.options.groups.len());
        for group in &self.options.groups {
            statuses.push(self.ask(group, Command::Status).await?);
        }
        Ok(statuses)
    }
}

fn answer(status: StatusCode, body: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(mut bytes) => {
            bytes.push(b'\n');
            (status, [(header::CONTENT_TYPE, "application/json")], bytes).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn status(State(desk): State<Arc<Desk>>) -> Response {
    desk.requests.fetch_add(1, Ordering::Relaxed);
    let groups = match desk.group_statuses().await {
        Ok(groups) => groups,
        Err(refusal) => return desk.refuse(refusal),
    };
    let refused_requests = desk.refusals.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
    let status =
        NodeStatus { schema: STATUS_SCHEMA.to_owned(), node: desk.options.node.clone(), refused_requests, groups };
    answer(StatusCode::OK, &status)
}

/// The body of `POST /v1/role`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleBody {
    group: Option<u8>,
    role: String,
}

async fn set_role(
    State(desk): State<Arc<Desk>>,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Response {
    let result = change_role(&desk, body).await;
    desk.finish(result)
}

async fn change_role(
    desk: &Desk,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<Value, Refusal> {
    let too_large =
        |_| Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", format!("at most {BODY_MAX} bytes"));
    let body = body.map_err(too_large)?;
    let body: RoleBody = serde_json::from_slice(&body)
        .map_err(|error| Refusal::bad("bad_json", format!("{error}; send {{\"role\": \"master\"}}")))?;
    let request = match body.role.as_str() {
        "master" => RoleRequest::Master,
        "backup" => RoleRequest::Backup,
        "none" => RoleRequest::None,
        other => {
            let sentence = format!("\"{other}\" is no role to be given; send master, backup or none");
            return Err(Refusal::bad("unknown_role", sentence));
        }
    };
    let mut groups = Vec::new();
    for group in desk.groups(body.group)? {
        let told: Result<Role, String> = desk.ask(group, |answer| Command::Role(request, answer)).await?;
        let role = told.map_err(|why| {
            Refusal::new(StatusCode::CONFLICT, "role_refused", format!("group {}: {why}", group.sync_id))
        })?;
        groups.push(json!({ "sync_id": group.sync_id, "requested": body.role, "role": role.name() }));
    }
    Ok(json!({ "schema": ROLE_SCHEMA, "groups": groups }))
}

async fn flows(State(desk): State<Arc<Desk>>, RawQuery(query): RawQuery) -> Response {
    let listed = flow_query(query.as_deref().unwrap_or("")).and_then(|query| {
        let groups = desk.groups(query.group)?.into_iter().cloned().collect();
        Ok((query, groups))
    });
    match listed {
        Ok((query, groups)) => {
            let pages = FlowPages::new(query, groups, desk.options.answer_deadline);
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

/// Reads a query string. Values are numbers, addresses and words, none of which needs percent-encoding but the colon of
/// an IPv6 address, which many clients encode.
fn flow_query(text: &str) -> Result<FlowQuery, Refusal> {
    let mut query = FlowQuery { group: None, filter: FlowFilter::default(), limit: LIMIT_DEFAULT };
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = value.replace("%3A", ":").replace("%3a", ":");
        if value.is_empty() {
            continue;
        }
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

async fn health(State(desk): State<Arc<Desk>>) -> Response {
    let now = clock::now();
    let stuck = desk.options.groups.iter().find(|group| group.idle_for(now) > HEALTH_DEADLINE);
    match stuck {
        None => answer(StatusCode::OK, &json!({ "schema": HEALTH_SCHEMA, "ok": true })),
        Some(group) => {
            let sentence = format!("the loop of group {} has not turned for {HEALTH_DEADLINE:?}", group.sync_id);
            desk.refuse(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "loop_stuck", sentence))
        }
    }
}

async fn ready(State(desk): State<Arc<Desk>>) -> Response {
    let statuses = match desk.group_statuses().await {
        Ok(statuses) => statuses,
        Err(refusal) => return desk.refuse(refusal),
    };
    let reasons: Vec<String> = statuses
        .iter()
        .filter_map(|group| group.not_ready().map(|reason| format!("group {}: {reason}", group.sync_id)))
        .collect();
    if reasons.is_empty() {
        return answer(StatusCode::OK, &json!({ "schema": HEALTH_SCHEMA, "ok": true }));
    }
    // Not being ready is an answer and no mistake of the asker: it is not counted as one.
    let body = json!({ "schema": ERROR_SCHEMA, "error": reasons.join("; "), "reason": "not_ready" });
    answer(StatusCode::SERVICE_UNAVAILABLE, &body)
}

async fn read_only(State(desk): State<Arc<Desk>>) -> Response {
    let sentence = "this address is for reading; changing calls are taken on the control socket";
    desk.refuse(Refusal::new(StatusCode::FORBIDDEN, "read_only", sentence))
}

async fn unknown_path(State(desk): State<Arc<Desk>>, uri: Uri) -> Response {
    let sentence = format!("{}: known are /v1/status, /v1/flows, /v1/role, /healthz and /readyz", uri.path());
    desk.refuse(Refusal::new(StatusCode::NOT_FOUND, "unknown_path", sentence))
}

async fn wrong_method(State(desk): State<Arc<Desk>>, method: Method, uri: Uri) -> Response {
    let sentence = format!("{} does not take {method}", uri.path());
    desk.refuse(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", sentence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_given_to_its_group_where_the_system_has_it() {
        use std::os::unix::fs::MetadataExt;
        if !nix::unistd::geteuid().is_root() {
            return println!("skipped: needs root");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        let group = || std::fs::metadata(file.path()).unwrap().gid();
        give_to_group(file.path(), "no-such-group");
        assert_eq!(group(), 0);
        // Group 1 has this name on every Linux.
        give_to_group(file.path(), "daemon");
        assert_eq!(group(), 1);
    }

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
