//! One part of the demo is one process: how it is started, how it is talked to, and how it ends.
//!
//! A part is this very binary (`ssyncp demo-part NAME INSTRUCTIONS`) inside a namespace. Parent and part talk in lines
//! of JSON: one [`Order`] down its standard input, one [`Answer`] up its standard output. The part speaks first, when
//! it is ready.
//!
//! ```text
//!   parent                              part
//!     │  fork, setns, exec ──────────────▶│  raise RLIMIT_NOFILE, open sockets
//!     │◀───────────────────────── "ready" │
//!     │ {"verdict":{"within_ms":10000}} ─▶│  (traffic goes on all the while)
//!     │◀────────────── {"traffic":{ ... }}│
//!     │  close, kill, wait ──────────────▶×  end of input ends it as well: an orphan does not stay
//! ```

use super::client::ClientVerdict;
use super::probe::ProbeVerdict;
use super::sctp::SctpVerdict;
use crate::sys::clock::now;
use crate::sys::namespace::Namespace;
use crate::sys::poll::wait;
use crate::sys::schedule::real_time;
use crate::time::{Duration, Instant};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, ExitCode, Stdio};

/// Longest line that either side reads, bytes.
const LINE_MAX: usize = 1 << 20;
/// How long a part may take to become ready, and longer than an order's own time it may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Descriptors that a part asks for where it may raise its hard limit (the default of fs.nr_open).
const DESCRIPTORS_WANTED: u64 = 1 << 20;

/// Real-time priority of what measures: the lowest.
const MEASURING_PRIORITY: u8 = 1;

/// What a part is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    /// Client: answer when every connection has had an echo, or when the time is up.
    WaitConnected {
        /// Time for it.
        within_ms: u64,
    },
    /// Client: the master has died just now.
    MarkDeath,
    /// Client: say what became of each connection since the death.
    Verdict {
        /// Time for it, counted from the death.
        within_ms: u64,
    },
    /// Client: open anew what broke. SCTP: open everything anew.
    Restart,
    /// Probe, SCTP: forget what was measured so far.
    StartWindow,
    /// Probe, SCTP: say what was measured.
    EndWindow,
}

/// What a part says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// It listens, or has begun to connect.
    Ready,
    /// The order is carried out.
    Done,
    /// How many connections are established and proven by an echo.
    Connected {
        /// Their number.
        connections: u32,
        /// The newest reason why one was not.
        last_error: Option<String>,
    },
    /// What became of the connections.
    Traffic(ClientVerdict),
    /// What the probe saw.
    Window(ProbeVerdict),
    /// How many SCTP associations live.
    Associations(SctpVerdict),
    /// It cannot go on, for this reason.
    Failed(String),
}

/// A part's process, seen from its parent. Dropping it kills the process.
#[derive(Debug)]
pub(super) struct Part {
    name: &'static str,
    child: Child,
    orders: ChildStdin,
    answers: Lines<ChildStdout>,
}

impl Part {
    /// Starts `executable demo-part NAME PLAN` inside `namespace` and waits until it says that it is ready. To be
    /// called from a thread that lasts as long as the part (see [`Namespace::command`]).
    ///
    /// # Errors
    /// The operating system's error; `Other` with the part's own words if it fails; `TimedOut`.
    pub(super) fn start(
        executable: &Path,
        namespace: &Namespace,
        name: &'static str,
        plan: &impl Serialize,
    ) -> io::Result<Part> {
        let instructions = serde_json::to_string(plan)?;
        let mut command = namespace.command(executable)?;
        command.args(["demo-part", name, &instructions]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let (Some(orders), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("a child without the pipes that were asked for"));
        };
        let mut part = Part { name, child, orders, answers: Lines::new(answers)? };
        match part.answer(now() + PATIENCE)? {
            Answer::Ready => Ok(part),
            other => Err(part.unexpected(&other)),
        }
    }

    /// Gives an order and waits for the answer; `within` is the time that the order itself may take.
    ///
    /// # Errors
    /// As [`Part::start`]. After an error the part is of no use any more.
    pub(super) fn ask(&mut self, order: &Order, within: Duration) -> io::Result<Answer> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        if let Err(error) = self.orders.write_all(&line) {
            // It has failed before it was asked, and its last words say why.
            return Err(self.answer(now() + PATIENCE).err().unwrap_or(error));
        }
        self.answer(now() + within + PATIENCE)
    }

    /// Gives an order that is answered by [`Answer::Done`].
    ///
    /// # Errors
    /// As [`Part::ask`].
    pub(super) fn tell(&mut self, order: &Order) -> io::Result<()> {
        match self.ask(order, Duration::ZERO)? {
            Answer::Done => Ok(()),
            other => Err(self.unexpected(&other)),
        }
    }

    /// The error for an answer to another question.
    pub(super) fn unexpected(&self, answer: &Answer) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, format!("the {} says {answer:?} out of turn", self.name))
    }

    fn answer(&mut self, until: Instant) -> io::Result<Answer> {
        loop {
            if let Some(line) = self.answers.next().map_err(|error| self.ended(error))? {
                return match from_json(&line)? {
                    Answer::Failed(reason) => Err(io::Error::other(format!("the {}: {reason}", self.name))),
                    answer => Ok(answer),
                };
            }
            let left = until.since(now());
            if left.is_zero() {
                // A late answer must not pass for that to a later question.
                self.child.kill()?;
                return Err(io::Error::new(io::ErrorKind::TimedOut, format!("the {} does not answer", self.name)));
            }
            wait(&[self.answers.as_fd()], Some(left))?;
        }
    }

    /// Says how the process ended where its output did.
    fn ended(&mut self, error: io::Error) -> io::Error {
        if error.kind() != io::ErrorKind::UnexpectedEof {
            return error;
        }
        match self.child.wait() {
            Ok(status) => io::Error::new(error.kind(), format!("the {} ended ({status})", self.name)),
            Err(error) => error,
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Both fail only for a process that has ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The parent, seen from a part.
#[derive(Debug)]
pub(super) struct Parent(Lines<File>);

impl Parent {
    fn open() -> io::Result<Parent> {
        let input = io::stdin().as_fd().try_clone_to_owned()?;
        Ok(Parent(Lines::new(File::from(input))?))
    }

    /// Tells the parent something.
    ///
    /// # Errors
    /// The operating system's error (the parent is gone).
    pub(super) fn answer(&self, answer: &Answer) -> io::Result<()> {
        let mut line = serde_json::to_vec(answer)?;
        line.push(b'\n');
        let mut output = io::stdout().lock();
        output.write_all(&line)?;
        output.flush()
    }

    /// The next order, if there is one now.
    ///
    /// # Errors
    /// `UnexpectedEof` when the parent is gone; `InvalidData` for what is no order.
    pub(super) fn order(&mut self) -> io::Result<Option<Order>> {
        self.0.next()?.map(|line| from_json(&line)).transpose()
    }
}

impl AsFd for Parent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The life of a part's process: `work` gets the plan and the parent, says [`Answer::Ready`], and goes on until it
/// fails or the parent is gone. Why it failed is said to the parent.
pub(super) fn play<P: DeserializeOwned>(
    instructions: &str,
    work: impl FnOnce(P, &mut Parent) -> io::Result<()>,
) -> ExitCode {
    let result = Parent::open().and_then(|mut parent| {
        from_json(instructions).and_then(|plan| work(plan, &mut parent)).or_else(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Ok(()),
            _ => parent.answer(&Answer::Failed(error.to_string())).and(Err(error)),
        })
    });
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs this process before all ordinary ones, where that is allowed: what measures milliseconds must not wait for thousands
/// of connections, or for the rest of the machine. The nodes still go first.
pub(super) fn measure_in_time() {
    // Who may not measures all the same; how late a probe was at worst is reported.
    let _ = real_time(MEASURING_PRIORITY);
}

/// Raises the limit of open descriptors as far as the system lets us, and returns it.
///
/// # Errors
/// The operating system's error.
pub(super) fn raise_descriptor_limit() -> io::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if hard < DESCRIPTORS_WANTED && setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS_WANTED, DESCRIPTORS_WANTED).is_ok() {
        return Ok(DESCRIPTORS_WANTED);
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// Reads one JSON value. A cut one is `InvalidData` as well: `UnexpectedEof` is said of pipes only.
fn from_json<T: DeserializeOwned>(text: &str) -> io::Result<T> {
    serde_json::from_str(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Lines from a pipe, without waiting.
#[derive(Debug)]
struct Lines<R> {
    source: R,
    buffer: Vec<u8>,
}

impl<R: Read + AsFd> Lines<R> {
    /// Takes a pipe's reading end and makes it non-blocking.
    fn new(source: R) -> io::Result<Self> {
        let flags = OFlag::from_bits_retain(fcntl(&source, FcntlArg::F_GETFL)?);
        fcntl(&source, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Lines { source, buffer: Vec::new() })
    }

    /// The next whole line without its end; `None` if there is none yet.
    fn next(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.pop();
                return String::from_utf8(line).map(Some).map_err(|error| {
                    io::Error::new(io::ErrorKind::InvalidData, format!("a line that is no text: {error}"))
                });
            }
            if self.buffer.len() > LINE_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line without an end"));
            }
            let mut chunk = [0; 4096];
            match self.source.read(&mut chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.buffer.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl<R: AsFd> AsFd for Lines<R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_however_they_were_written() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut lines = Lines::new(reader).unwrap();
        assert_eq!(lines.next().unwrap(), None);
        writer.write_all(b"one\ntw").unwrap();
        assert_eq!(lines.next().unwrap().as_deref(), Some("one"));
        assert_eq!(lines.next().unwrap(), None);
        writer.write_all(b"o\n\n").unwrap();
        assert_eq!(lines.next().unwrap().as_deref(), Some("two"));
        assert_eq!(lines.next().unwrap().as_deref(), Some(""));
        drop(writer);
        assert_eq!(lines.next().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_line_without_an_end_is_refused() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut lines = Lines::new(reader).unwrap();
        let writing = std::thread::spawn(move || {
            // Fails when the reader is dropped.
            while writer.write_all(&[b'x'; 4096]).is_ok() {}
        });
        let error = loop {
            match lines.next() {
                Ok(line) => assert_eq!(line, None),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        drop(lines);
        writing.join().unwrap();
    }

    #[test]
    fn orders_look_the_same_for_ever() {
        let text = serde_json::to_string(&Order::Verdict { within_ms: 10_000 }).unwrap();
        assert_eq!(text, r#"{"verdict":{"within_ms":10000}}"#);
        assert_eq!(from_json::<Order>(r#""mark_death""#).unwrap(), Order::MarkDeath);
    }

    #[test]
    fn a_cut_order_is_no_end_of_input() {
        assert_eq!(from_json::<Order>(r#"{"verdict":"#).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
