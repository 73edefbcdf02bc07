//! The control interface: HTTP and JSON on a Unix socket, and for reading calls on a TCP address if one is configured.
//!
//! ```text
//!   socket ──▶ at most 64 connections ─▶ calls.rs ─┬─▶ look.rs, flows.rs, events.rs, metrics.rs
//!                                                  └─▶ change.rs                  request.rs: what they are asked
//!   listen ──▶ at most 64 connections ─▶ GET only ─▶ the same
//! ```
//!
//! What there is to call stands in one table (`calls`), from which both the routes and the OpenAPI document are made.
//! `curl --unix-socket /run/ssyncp/control.sock http://localhost/v1/status` is a complete client. Everything here runs
//! on one thread of its own; a driver that does not answer in time costs its asker a 503 and the loop nothing. What is
//! refused is counted by its reason and shown in the status.

mod calls;
mod change;
mod events;
mod flows;
mod handover;
mod look;
mod metrics;
pub mod request;
mod sections;

pub use calls::openapi;

use crate::daemon::answers::{ERROR_SCHEMA, ErrorAnswer};
use crate::daemon::control::{Command, GroupHandle, Unanswered};
use crate::daemon::roster::Roster;
use crate::daemon::sandbox;
use crate::time::Duration;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::unistd::Group;
use request::BadRequest;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio_io_timeout::TimeoutStream;

/// Longest body of a request in bytes.
pub const BODY_MAX: usize = 64 * 1024;
/// Time in which a driver must answer.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(2);
/// A loop that has not turned for this long is not healthy.
pub const HEALTH_DEADLINE: Duration = Duration::from_secs(5);
/// Time in which the head of a request must have arrived, and time that a connection may be idle.
pub const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// Longest head of a request in bytes.
pub const HEAD_MAX: usize = 16 * 1024;
/// Time in which its body must have arrived.
pub const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// Time in which something of an answer must have been taken by who asked.
pub const TAKING_DEADLINE: Duration = Duration::from_secs(30);
/// Connections that each of the two addresses has at the same time; who comes when there are so many is turned away.
pub const CONNECTIONS_MAX: usize = 64;
/// Subscribers of events that each of the two addresses has at the same time.
pub const SUBSCRIBERS_MAX: usize = 16;
/// Mode of the control socket: its owner and its group.
pub const SOCKET_MODE: u32 = 0o660;
/// The group that the control socket is given to, if the system has it.
pub const SOCKET_GROUP: &str = "ssyncp";

/// What the server needs to know.
#[derive(Debug)]
pub struct ServerOptions {
    /// This node, its groups, what is in force.
    pub roster: Arc<Roster>,
    /// Where it is called.
    pub sockets: Sockets,
    /// Time in which a driver must answer; [`ANSWER_DEADLINE`] but in tests.
    pub answer_deadline: Duration,
    /// How long clients are waited for.
    pub patience: Patience,
}

/// How long a client is waited for, which has a place that others may need; shorter in tests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patience {
    /// For the whole head of a request, and for the first one, or the next, to begin: [`HEAD_DEADLINE`].
    pub head: Duration,
    /// For the whole body: [`BODY_DEADLINE`].
    pub body: Duration,
    /// For the client to take anything of an answer: [`TAKING_DEADLINE`].
    pub taking: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience { head: HEAD_DEADLINE, body: BODY_DEADLINE, taking: TAKING_DEADLINE }
    }
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

/// The open sockets of a server that does not run yet: the control socket is the lock that keeps a second daemon away.
#[derive(Debug)]
pub struct Sockets {
    path: PathBuf,
    unix: std::os::unix::net::UnixListener,
    tcp: Option<std::net::TcpListener>,
}

impl Sockets {
    /// Binds the Unix socket, and the TCP address for reading calls.
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn open(path: &Path, listen: Option<SocketAddr>) -> Result<Self, ServerError> {
        let unix = open_socket(path)?;
        let refused = |place: String| move |error| ServerError::Refused { place, error };
        let tcp = match listen {
            Some(address) => {
                let listener = std::net::TcpListener::bind(address)
                    .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
                Some(listener.map_err(refused(address.to_string()))?)
            }
            None => None,
        };
        Ok(Sockets { path: path.to_owned(), unix, tcp })
    }
}

impl Server {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn start(options: ServerOptions) -> Result<Self, ServerError> {
        let Sockets { path: socket, unix, tcp } = options.sockets;
        let listen = tcp.as_ref().and_then(|listener| listener.local_addr().ok());
        let place = socket.display().to_string();
        let refused = |place: String| move |error| ServerError::Refused { place, error };
        let (stop, stopping) = watch::channel(());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(refused(place.clone()))?;
        let desk = Arc::new(Desk {
            roster: options.roster,
            answer_deadline: options.answer_deadline,
            patience: options.patience,
            refusals: Mutex::default(),
            subscribers: [SUBSCRIBERS_MAX; 2].map(|most| Arc::new(Semaphore::new(most))),
        });
        let body = move || {
            sandbox::opens_no_link();
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
    let full = accept(unix, calls::router(Arc::clone(&desk), Access::Full), &desk);
    let reading = async {
        match tcp {
            Some(tcp) => {
                let tcp = tokio::net::TcpListener::from_std(tcp)?;
                accept(tcp, calls::router(Arc::clone(&desk), Access::Reading), &desk).await
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = full => ended,
        ended = reading => ended,
        _ = stopping.changed() => Ok(()),
    }
}

/// Takes connections for ever. One too many is closed at once, so that it costs the others nothing.
async fn accept(mut listener: impl Listener, router: Router, desk: &Arc<Desk>) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let (stream, _) = listener.accept().await;
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            desk.count("too_many_connections");
            continue;
        };
        let (asked, router) = (Arc::new(AtomicBool::new(false)), TowerToHyperService::new(router.clone()));
        let noted = Arc::clone(&asked);
        let service = service_fn(move |request| {
            noted.store(true, Ordering::Relaxed);
            router.call(request)
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(desk.patience.head).max_buf_size(HEAD_MAX);
        let mut stream = Box::pin(TimeoutStream::new(stream));
        stream.as_mut().set_write_timeout_pinned(Some(desk.patience.taking));
        let connection = http.serve_connection(TokioIo::new(stream), service);
        let desk = Arc::clone(desk);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                if let Some(reason) = too_slow(&error, asked.load(Ordering::Relaxed)) {
                    desk.count(reason);
                }
                tracing::debug!("a client has broken off, or was left: {error}");
            }
            drop(place);
        });
    }
}

/// The word for a client that was not waited for any longer. Who has asked and is silent is only forgotten: a scraper may keep its
/// connection open from one time to the next, and is refused nothing.
fn too_slow(error: &hyper::Error, has_asked: bool) -> Option<&'static str> {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    if source.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
        return Some("answer_not_taken");
    }
    (error.is_timeout() && !has_asked).then_some("head_too_late")
}

/// What may be done at an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Access {
    /// Everything.
    Full,
    /// Nothing that changes anything.
    Reading,
}

/// What every request shares.
#[derive(Debug)]
struct Desk {
    roster: Arc<Roster>,
    answer_deadline: Duration,
    patience: Patience,
    refusals: Mutex<BTreeMap<String, u64>>,
    /// Places for those who follow the events, by [`Access`].
    subscribers: [Arc<Semaphore>; 2],
}

/// A request that is not carried out: status, a reason of one word that is counted, and a sentence.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    reason: &'static str,
    sentence: String,
    /// Everything that is wrong, if it is several things.
    problems: Vec<String>,
}

impl Refusal {
    fn new(status: StatusCode, reason: &'static str, sentence: impl Into<String>) -> Self {
        Refusal { status, reason, sentence: sentence.into(), problems: Vec::new() }
    }

    fn unanswered(sync_id: u8, why: Unanswered) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unanswered", format!("group {sync_id}: {why}"))
    }
}

impl From<BadRequest> for Refusal {
    fn from(bad: BadRequest) -> Self {
        Self::new(StatusCode::BAD_REQUEST, bad.reason, bad.sentence)
    }
}

impl Desk {
    fn count(&self, reason: &str) {
        // A poisoned lock still holds valid counters.
        let mut refusals = self.refusals.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *refusals.entry(reason.to_owned()).or_default() += 1;
    }

    fn refused_requests(&self) -> BTreeMap<String, u64> {
        self.refusals.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    fn refuse(&self, refusal: Refusal) -> Response {
        self.count(refusal.reason);
        let Refusal { status, reason, sentence, problems } = refusal;
        let schema = ERROR_SCHEMA.to_owned();
        answer(status, &ErrorAnswer { schema, error: sentence, reason: reason.to_owned(), problems })
    }

    fn finish(&self, result: Result<impl serde::Serialize, Refusal>) -> Response {
        match result {
            Ok(body) => answer(StatusCode::OK, &body),
            Err(refusal) => self.refuse(refusal),
        }
    }

    /// The groups that a request is about: the named one, or all.
    fn groups(&self, sync_id: Option<u8>) -> Result<Vec<GroupHandle>, Refusal> {
        let groups = self.roster.groups();
        let wanted: Vec<GroupHandle> =
            groups.iter().filter(|group| sync_id.is_none_or(|id| id == group.sync_id)).cloned().collect();
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
        match tokio::time::timeout(self.answer_deadline, receiver).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(unanswered(Unanswered::Stopped)),
            Err(_) => Err(unanswered(Unanswered::Silent)),
        }
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

/// Turns away whatever does not only read, before anything looks at it.
async fn only_reading(State(desk): State<Arc<Desk>>, request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    let sentence = "this address is for reading; changing calls are taken on the control socket";
    desk.refuse(Refusal::new(StatusCode::FORBIDDEN, "read_only", sentence))
}

async fn unknown_path(State(desk): State<Arc<Desk>>, uri: Uri) -> Response {
    let sentence = format!("{}: known are {}", uri.path(), calls::paths().join(", "));
    desk.refuse(Refusal::new(StatusCode::NOT_FOUND, "unknown_path", sentence))
}

async fn wrong_method(State(desk): State<Arc<Desk>>, method: Method, uri: Uri) -> Response {
    let sentence = format!("{} does not take {method}", uri.path());
    desk.refuse(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", sentence))
}

/// The base of every router: what is said to those who ask for what is not there.
fn finish_router(router: Router<Arc<Desk>>, desk: Arc<Desk>, access: Access) -> Router {
    let router = router.fallback(unknown_path).method_not_allowed_fallback(wrong_method);
    let router = router.layer(DefaultBodyLimit::max(BODY_MAX));
    let router = match access {
        Access::Full => router,
        Access::Reading => router.layer(middleware::from_fn_with_state(Arc::clone(&desk), only_reading)),
    };
    router.layer(axum::Extension(access)).with_state(desk)
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
}
