//! One live connection of the client: what it has asked, what has come back, and what became of it.
//!
//! All that is known of it are a few offsets in its stream of random bytes (figure in `traffic`): messages are asked,
//! their bytes are written as far as the kernel takes them, and what comes back is compared with what the stream has at
//! that offset. A message is *answered* when its last byte is back and every byte so far was right.
//!
//! ```text
//!              messages asked before the death │ after it
//!   ────────────┬───────┬───────┬──────┬───────┼───────┬───────
//!               4       5       6      7       │   8       9
//!        answered ▲                            │   ▲ fresh: its answer proves that the connection lives on
//! ```

use super::traffic::{MESSAGE_MAX, Noise};
use crate::time::{Duration, Instant};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};

/// Most bytes that are asked and not yet answered before the regular questions pause (about a second of the fast ones);
/// the questions that decide what became of a connection are asked all the same.
const IN_FLIGHT_MAX: u64 = 32 << 10;

/// What the connection is at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Not opened yet, or not again.
    Closed,
    /// The SYN is on its way.
    Opening,
    /// Established.
    Open,
    /// Over, and not by our will.
    Broken(Fault),
}

/// Why a connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The other side, or somebody in its name, has ended it: RST or FIN.
    Reset,
    /// The kernel has given up (ETIMEDOUT and the like).
    GivenUp,
    /// A byte came back that was not sent.
    WrongByte,
}

/// What became of a connection after a death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It answers, and did so in time.
    Survived,
    /// It is over.
    Reset,
    /// It is not over, and does not answer.
    Stalled,
    /// Its time is not up yet.
    Open,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    /// The socket, while there is one.
    pub(super) socket: Option<Socket>,
    /// What it is at present.
    pub(super) state: State,
    /// Whether the epoll has been asked to say when it can be written.
    pub(super) waits_to_write: bool,
    longest_gap: Duration,
    /// When the newest answer came (before the first: when it was established or, earlier still, made).
    last_answer: Instant,
    noise: Noise,
    asked: u64,
    asked_end: u64,
    written: u64,
    received: u64,
    answered: u64,
    answered_end: u64,
    fresh: u64,
    fresh_answered: Option<Instant>,
    last_question: u64,
}

impl Connection {
    /// A connection that is yet to be opened.
    pub(super) fn new(noise: Noise, now: Instant) -> Self {
        Connection {
            socket: None,
            state: State::Closed,
            waits_to_write: false,
            longest_gap: Duration::ZERO,
            last_answer: now,
            noise,
            asked: 0,
            asked_end: 0,
            written: 0,
            received: 0,
            answered: 0,
            answered_end: noise.length(0),
            fresh: 0,
            fresh_answered: None,
            last_question: 0,
        }
    }

    /// Sends the SYN; [`Connection::opened`] says how it went, once the socket can be written.
    ///
    /// # Errors
    /// The operating system's error (no descriptor, no port, an address that is not ours).
    pub(super) fn open(&mut self, source: Option<IpAddr>, target: SocketAddr) -> io::Result<&Socket> {
        let socket = Socket::new(Domain::for_address(target), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        if let Some(source) = source {
            // The port is chosen at connect, per target: else the number of ports would bound the connections of a
            // source.
            setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        match socket.connect(&target.into()) {
            Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => return Err(error),
            _ => self.state = State::Opening,
        }
        Ok(self.socket.insert(socket))
    }

    /// Looks at the result of the handshake and asks the first question.
    ///
    /// # Errors
    /// Why it failed; the connection is closed again then.
    pub(super) fn opened(&mut self, now: Instant) -> io::Result<()> {
        let error = match &self.socket {
            Some(socket) => socket.take_error()?,
            None => None,
        };
        if let Some(error) = error {
            self.socket = None;
            self.state = State::Closed;
            return Err(error);
        }
        self.state = State::Open;
        self.last_answer = now;
        self.ask();
        Ok(())
    }

    /// Asks a regular question, unless too much is unanswered.
    pub(super) fn ask_in_turn(&mut self) {
        if self.asked_end - self.received < IN_FLIGHT_MAX {
            self.ask();
        }
    }

    /// Asks: sends the next message.
    pub(super) fn ask(&mut self) {
        if self.state == State::Open {
            self.asked_end += self.noise.length(self.asked);
            self.asked += 1;
            self.write();
        }
    }

    /// Writes what was asked, as far as the kernel takes it.
    pub(super) fn write(&mut self) {
        let mut buffer = [0; 8 * MESSAGE_MAX as usize];
        while self.wants_to_write() {
            let Some(socket) = &mut self.socket else { return };
            let length = (self.asked_end - self.written).min(buffer.len() as u64) as usize;
            self.noise.fill(self.written, &mut buffer[..length]);
            match socket.write(&buffer[..length]) {
                Ok(length) => self.written += length as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return self.fail(&error),
            }
        }
    }

    /// Whether there is something that the kernel has not taken yet.
    pub(super) fn wants_to_write(&self) -> bool {
        self.state == State::Open && self.written < self.asked_end
    }

    /// Takes what has come back, at most one `buffer` full, and compares it; returns the number of right bytes.
    pub(super) fn read(&mut self, buffer: &mut [u8], expected: &mut [u8], now: Instant) -> u64 {
        let Some(socket) = &mut self.socket else { return 0 };
        match socket.read(buffer) {
            Ok(0) => self.end(Fault::Reset),
            Ok(length) => return self.check(&buffer[..length], &mut expected[..length], now),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => self.fail(&error),
        }
        0
    }

    /// Compares an echo, byte by byte, with what was written.
    fn check(&mut self, echo: &[u8], expected: &mut [u8], now: Instant) -> u64 {
        self.noise.fill(self.received, expected);
        let right = echo.iter().zip(&*expected).take_while(|(one, other)| one == other).count() as u64;
        let right = right.min(self.written - self.received);
        self.received += right;
        while self.received >= self.answered_end {
            self.answered += 1;
            self.answered_end += self.noise.length(self.answered);
            self.longest_gap = self.longest_gap.max(now - self.last_answer);
            self.last_answer = now;
            if self.fresh_answered.is_none() && self.answered > self.fresh {
                self.fresh_answered = Some(now);
            }
        }
        if right < echo.len() as u64 {
            self.end(Fault::WrongByte);
        }
        right
    }

    /// Whether it is established and has been answered at least once.
    pub(super) fn is_proven(&self) -> bool {
        self.state == State::Open && self.answered > 0
    }

    /// From now on only answers to questions that are yet to be asked count.
    pub(super) fn mark_death(&mut self) {
        self.fresh = self.asked;
        self.fresh_answered = None;
        self.longest_gap = Duration::ZERO;
    }

    /// The verdict wants an answer to a question that is yet to be asked.
    pub(super) fn mark_question(&mut self) {
        self.last_question = self.asked;
    }

    /// What became of it: *survived* needs an answer by `first_by` to a question asked after the death, and one by
    /// `last_by` to a question asked after [`Connection::mark_question`].
    pub(super) fn fate(&self, now: Instant, first_by: Instant, last_by: Instant) -> Fate {
        match (self.state, self.fresh_answered) {
            (State::Broken(Fault::Reset | Fault::WrongByte), _) => Fate::Reset,
            (State::Broken(Fault::GivenUp) | State::Closed | State::Opening, _) => Fate::Stalled,
            (State::Open, Some(at)) if at > first_by => Fate::Stalled,
            (State::Open, None) if now > first_by => Fate::Stalled,
            (State::Open, Some(_)) if self.answered > self.last_question => Fate::Survived,
            (State::Open, _) if now > last_by => Fate::Stalled,
            (State::Open, _) => Fate::Open,
        }
    }

    /// The longest time without an answer since the last one before the death; one that has not answered since counts
    /// on.
    pub(super) fn gap(&self, now: Instant) -> Duration {
        if self.state == State::Open && self.fresh_answered.is_some() {
            self.longest_gap
        } else {
            self.longest_gap.max(now - self.last_answer)
        }
    }

    /// Whether it is established and has not answered since the death, or since the verdict was asked for.
    pub(super) fn is_silent(&self) -> bool {
        self.state == State::Open && (self.fresh_answered.is_none() || self.answered <= self.last_question)
    }

    fn fail(&mut self, error: &io::Error) {
        let reset = matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused | io::ErrorKind::BrokenPipe
        );
        self.end(if reset { Fault::Reset } else { Fault::GivenUp });
    }

    fn end(&mut self, fault: Fault) {
        self.socket = None;
        self.state = State::Broken(fault);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Instant = Instant::from_nanos(100);
    const LAST: Instant = Instant::from_nanos(200);

    fn at(nanoseconds: u64) -> Instant {
        Instant::from_nanos(nanoseconds)
    }

    /// An established connection without a socket: what is asked counts as written.
    fn open() -> Connection {
        let mut connection = Connection::new(Noise::new(1, 1), Instant::ZERO);
        connection.state = State::Open;
        connection
    }

    fn ask(connection: &mut Connection) {
        connection.ask();
        connection.written = connection.asked_end;
    }

    /// Returns the bytes that are still owed.
    fn echo(connection: &Connection) -> Vec<u8> {
        let mut bytes = vec![0; (connection.written - connection.received) as usize];
        connection.noise.fill(connection.received, &mut bytes);
        bytes
    }

    fn answer(connection: &mut Connection, when: u64) {
        let bytes = echo(connection);
        connection.check(&bytes, &mut vec![0; bytes.len()], at(when));
    }

    #[test]
    fn a_message_is_answered_by_its_last_byte() {
        let mut connection = open();
        ask(&mut connection);
        let bytes = echo(&connection);
        let (last, most) = bytes.split_last().unwrap();
        assert_eq!(connection.check(most, &mut vec![0; most.len()], at(5)), most.len() as u64);
        assert!(!connection.is_proven());
        assert_eq!(connection.check(&[*last], &mut [0], at(6)), 1);
        assert!(connection.is_proven());
        assert_eq!(connection.last_answer, at(6));
    }

    #[test]
    fn one_wrong_byte_ends_it_and_is_found_wherever_it_is() {
        for position in [0, 7, 31] {
            let mut connection = open();
            ask(&mut connection);
            let mut bytes = echo(&connection);
            bytes[position] ^= 1;
            assert_eq!(connection.check(&bytes, &mut vec![0; bytes.len()], at(5)), position as u64);
            assert_eq!(connection.state, State::Broken(Fault::WrongByte));
            assert_eq!(connection.fate(at(6), LIMIT, LAST), Fate::Reset);
        }
    }

    #[test]
    fn bytes_that_were_never_sent_are_wrong_even_where_they_are_the_next_of_the_stream() {
        let mut connection = open();
        ask(&mut connection);
        let mut bytes = vec![0; connection.written as usize + 1];
        connection.noise.fill(0, &mut bytes);
        assert_eq!(connection.check(&bytes, &mut vec![0; bytes.len()], at(5)), connection.written);
        assert_eq!(connection.state, State::Broken(Fault::WrongByte));
    }

    #[test]
    fn an_answer_to_an_old_question_does_not_prove_survival() {
        let mut connection = open();
        ask(&mut connection);
        connection.mark_death();
        connection.mark_question();
        answer(&mut connection, 10);
        assert_eq!(connection.fate(at(50), LIMIT, LAST), Fate::Open);
        assert_eq!(connection.fate(at(101), LIMIT, LAST), Fate::Stalled);
        ask(&mut connection);
        answer(&mut connection, 60);
        assert_eq!(connection.fate(at(61), LIMIT, LAST), Fate::Survived);
    }

    #[test]
    fn an_answer_after_the_time_is_no_survival() {
        let mut connection = open();
        connection.mark_death();
        connection.mark_question();
        ask(&mut connection);
        answer(&mut connection, 101);
        assert_eq!(connection.fate(at(101), LIMIT, LAST), Fate::Stalled);
    }

    #[test]
    fn one_that_answers_after_the_death_and_then_falls_silent_has_stalled() {
        let mut connection = open();
        connection.mark_death();
        ask(&mut connection);
        answer(&mut connection, 10);
        connection.mark_question();
        ask(&mut connection);
        assert_eq!(connection.fate(at(150), LIMIT, LAST), Fate::Open);
        assert_eq!(connection.fate(at(201), LIMIT, LAST), Fate::Stalled);
        answer(&mut connection, 150);
        assert_eq!(connection.fate(at(150), LIMIT, LAST), Fate::Survived);
    }

    #[test]
    fn the_gap_begins_with_the_last_answer_before_the_death() {
        let mut connection = open();
        for when in [10, 20] {
            ask(&mut connection);
            answer(&mut connection, when);
        }
        connection.mark_death();
        for when in [75, 80] {
            ask(&mut connection);
            answer(&mut connection, when);
        }
        assert_eq!(connection.gap(at(500)), Duration::from_nanos(55));
        connection.end(Fault::Reset);
        assert_eq!(connection.gap(at(500)), Duration::from_nanos(420));
    }

    #[test]
    fn errors_are_told_apart() {
        for (kind, fate) in [
            (io::ErrorKind::ConnectionReset, Fate::Reset),
            (io::ErrorKind::BrokenPipe, Fate::Reset),
            (io::ErrorKind::TimedOut, Fate::Stalled),
            (io::ErrorKind::HostUnreachable, Fate::Stalled),
        ] {
            let mut connection = open();
            connection.fail(&kind.into());
            assert_eq!(connection.fate(at(1), LIMIT, LAST), fate, "{kind:?}");
        }
    }

    #[test]
    fn regular_questions_pause_when_too_much_is_unanswered() {
        let mut connection = open();
        for _ in 0..10_000 {
            connection.ask_in_turn();
        }
        assert!((32 << 10..(32 << 10) + 512).contains(&connection.asked_end));
        let before = connection.asked;
        connection.ask();
        assert_eq!(connection.asked, before + 1);
    }
}
