//! What all commands say in the same way: text to a pipe that may close, and why the daemon did not answer.

use super::{EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_USAGE, Reach};
use crate::daemon::client::{self, ClientError};
use hyper::Method;
use serde::de::DeserializeOwned;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

/// Writes to standard output. A reader that has gone (`ssyncp table | head`) is no error.
pub(super) fn print(text: &str) -> ExitCode {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("standard output: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Reads an answer and prints it: as it came, or in words.
pub(super) fn show<T: DeserializeOwned>(bytes: &[u8], json: bool, words: impl FnOnce(&T) -> String) -> ExitCode {
    if json {
        return print(&String::from_utf8_lossy(bytes));
    }
    match serde_json::from_slice(bytes) {
        Ok(answer) => print(&words(&answer)),
        Err(error) => {
            complain(&format!("the answer cannot be read: {error}"));
            ExitCode::from(EXIT_UNREACHABLE)
        }
    }
}

/// Sends a call that changes something, and prints its answer. The answer, for whoever has more to do with it; else what the
/// command ends with.
pub(super) fn post<T: DeserializeOwned>(
    reach: &Reach,
    path: &str,
    body: &serde_json::Value,
    json: bool,
    words: impl FnOnce(&T) -> String,
) -> Result<T, ExitCode> {
    let sent = client::send(&reach.socket, Method::POST, path, body.to_string());
    let bytes = sent.map_err(|error| unanswered(&error))?;
    let printed = show(&bytes, json, words);
    let answer = serde_json::from_slice(&bytes).map_err(|_| printed)?;
    if printed == ExitCode::SUCCESS { Ok(answer) } else { Err(printed) }
}

/// One line to standard error.
pub(super) fn complain(text: &str) {
    // With standard error gone there is nobody left to tell.
    let _ = writeln!(io::stderr(), "ssyncp: {text}");
}

/// Says why there is no answer; the exit status for it.
pub(super) fn unanswered(error: &ClientError) -> ExitCode {
    match error {
        ClientError::Unreachable { error: cause, .. } => {
            let cure = match cause.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    "; is ssyncp running? name another socket with --socket"
                }
                io::ErrorKind::PermissionDenied => "; run as root or as a member of the socket's group",
                _ => "",
            };
            complain(&format!("{error}{cure}"));
            ExitCode::from(EXIT_UNREACHABLE)
        }
        // The daemon is there and the group is not.
        ClientError::Refused { status: 500.., .. } => {
            complain(&error.to_string());
            ExitCode::from(EXIT_UNREACHABLE)
        }
        // Somebody's configuration or request is wrong, and each problem has a line.
        ClientError::Refused { status: 422, sentence, problems } => {
            complain(sentence.split_once(": ").map_or(sentence.as_str(), |(what, _)| what));
            problems.iter().for_each(|problem| complain(problem));
            ExitCode::from(EXIT_USAGE)
        }
        ClientError::Refused { status: 400, .. } => {
            complain(&error.to_string());
            ExitCode::from(EXIT_USAGE)
        }
        ClientError::Refused { .. } => {
            complain(&error.to_string());
            ExitCode::from(EXIT_REFUSED)
        }
    }
}

/// Whether colour may be used: only on a terminal, and never with NO_COLOR (no-color.org).
pub(super) fn colour(terminal: &impl IsTerminal) -> bool {
    terminal.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
