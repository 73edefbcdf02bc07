//! A client of the control interface that blocks: one request, one connection, one deadline (but for who follows events).

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixStream;

/// Longest time for a whole request and its answer.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// Longest time until the daemon has taken the connection.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Longest silence of a daemon whose events are followed: it says something each 15 s.
pub const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Largest event in bytes.
pub const EVENT_MAX: usize = 1 << 20;
/// Largest answer in bytes: a table of some three million flows.
pub const ANSWER_MAX: usize = 1 << 30;

/// Why there is no answer to use.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers on the socket.
    #[error("{socket}: {error}")]
    Unreachable {
        /// The socket.
        socket: String,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// The daemon said no.
    #[error("{sentence}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The daemon's sentence.
        sentence: String,
        /// Everything that is wrong, if it named several things.
        problems: Vec<String>,
    },
}

impl From<ClientError> for io::Error {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Unreachable { error, .. } => error,
            refused @ ClientError::Refused { .. } => io::Error::other(refused.to_string()),
        }
    }
}

/// `GET path`; the answer's JSON.
///
/// # Errors
/// The operating system's error, or one of kind `Other` with the daemon's sentence.
pub fn get(socket: &Path, path: &str) -> io::Result<Value> {
    let bytes = fetch(socket, path)?;
    serde_json::from_slice(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// `POST path` with a JSON body; the answer's JSON.
///
/// # Errors
/// As for [`get`].
pub fn post(socket: &Path, path: &str, body: &Value) -> io::Result<Value> {
    let bytes = send(socket, Method::POST, path, body.to_string())?;
    serde_json::from_slice(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// `GET path`; the answer as it came.
///
/// # Errors
/// [`ClientError`].
pub fn fetch(socket: &Path, path: &str) -> Result<Bytes, ClientError> {
    send(socket, Method::GET, path, String::new())
}

/// Any request; the answer as it came.
///
/// # Errors
/// [`ClientError`].
pub fn send(socket: &Path, method: Method, path: &str, body: impl Into<Bytes>) -> Result<Bytes, ClientError> {
    let unreachable = |error| ClientError::Unreachable { socket: socket.display().to_string(), error };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(unreachable)?;
    let exchanged = runtime.block_on(async {
        let late = |what| move |_| io::Error::new(io::ErrorKind::TimedOut, what);
        let connecting = tokio::time::timeout(CONNECT_DEADLINE, UnixStream::connect(socket));
        let stream = connecting.await.map_err(late("nobody takes the connection"))??;
        let exchange = tokio::time::timeout(DEADLINE, exchange(stream, method, path, body.into()));
        exchange.await.map_err(late("no answer"))?
    });
    let (status, bytes) = exchanged.map_err(unreachable)?;
    if status.is_success() { Ok(bytes) } else { Err(refused(status, &bytes)) }
}

/// `GET path` of server-sent events: hands the data of each to `each`, and `None` now and then when there are none, until
/// that says no or the daemon ends.
///
/// # Errors
/// [`ClientError`]; also when the daemon ends.
pub fn follow(socket: &Path, path: &str, mut each: impl FnMut(Option<&str>) -> bool) -> Result<(), ClientError> {
    let unreachable = |error| ClientError::Unreachable { socket: socket.display().to_string(), error };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(unreachable)?;
    runtime.block_on(async {
        let late = |what| move |_| io::Error::new(io::ErrorKind::TimedOut, what);
        let connecting = tokio::time::timeout(CONNECT_DEADLINE, UnixStream::connect(socket));
        let stream = connecting.await.map_err(late("nobody takes the connection")).flatten().map_err(unreachable)?;
        let asking = tokio::time::timeout(DEADLINE, ask(stream, Method::GET, path, Bytes::new()));
        let response = asking.await.map_err(late("no answer")).flatten().map_err(unreachable)?;
        let status = response.status();
        let mut body = response.into_body();
        if !status.is_success() {
            let bytes = Limited::new(body, EVENT_MAX).collect().await.map_or(Bytes::new(), |body| body.to_bytes());
            return Err(refused(status, &bytes));
        }
        let mut waiting = Vec::new();
        loop {
            // Comments come when events do not.
            let frame = tokio::time::timeout(SILENCE_MAX, body.frame()).await.map_err(late("the daemon is silent"));
            let Some(frame) = frame.map_err(unreachable)? else { break };
            let data = frame.map_err(io::Error::other).map_err(unreachable)?.into_data().unwrap_or_default();
            waiting.extend_from_slice(&data);
            while let Some(end) = waiting.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = waiting.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                let goes_on = match line.split_once(':') {
                    Some(("data", data)) => each(Some(data.trim())),
                    Some(("", _)) => each(None),
                    _ => true,
                };
                if !goes_on {
                    return Ok(());
                }
            }
            if waiting.len() > EVENT_MAX {
                return Err(unreachable(io::Error::new(io::ErrorKind::InvalidData, "an event without an end")));
            }
        }
        Err(unreachable(io::Error::new(io::ErrorKind::UnexpectedEof, "the daemon has ended")))
    })
}

fn refused(status: StatusCode, bytes: &[u8]) -> ClientError {
    let body: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let sentence = body["error"].as_str().map_or_else(|| format!("the daemon answered {status}"), str::to_owned);
    let problems = body["problems"].as_array().into_iter().flatten();
    let problems = problems.filter_map(|problem| problem.as_str().map(str::to_owned)).collect();
    ClientError::Refused { status: status.as_u16(), sentence, problems }
}

async fn exchange(stream: UnixStream, method: Method, path: &str, body: Bytes) -> io::Result<(StatusCode, Bytes)> {
    let response = ask(stream, method, path, body).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await.map_err(io::Error::other)?;
    Ok((status, body.to_bytes()))
}

/// Sends a request; the answer, whose body is still to be read.
async fn ask(stream: UnixStream, method: Method, path: &str, body: Bytes) -> io::Result<Response<Incoming>> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // It ends with the runtime.
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    sender.send_request(request).await.map_err(io::Error::other)
}
