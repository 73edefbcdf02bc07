//! The clients of the demo: a process with up to tens of thousands of live TCP connections, each of which echoes random
//! bytes that are checked, and which says after a death what became of each.
//!
//! One thread, one epoll, one tick of a millisecond. Fast connections ask every few milliseconds whether or not the
//! last question is answered (as a game or a call would); slow ones take evenly spread turns. After a death, and again
//! when the verdict is asked for, a *sweep* makes every connection ask once more at once:
//!
//! ```text
//!           death                     verdict asked                 verdict given
//!   ──────────┼──── sweep 1 ────────────────┼──── sweep 2 ────────────────┼─────▶
//!   ──answer  │            first answer     │            last answer      │
//!        └────── gap ────────┘              │
//!             │◀── `within` ──▶ survived needs the first answer in here, and the last one
//! ```
//!
//! The second sweep is there because the first could be answered through a master that is only just dying.

use super::connection::{Connection, Fate, Fault, State};
use super::part::{Answer, Order, Parent, Part, play, raise_descriptor_limit};
use super::traffic::{Noise, Rotation, median, milliseconds};
use crate::sys::clock;
use crate::sys::namespace::Namespace;
use crate::sys::poll::wait;
use crate::sys::tcp::retransmission_timeout;
use crate::time::{Duration, Instant};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

/// The client's grain of time.
const TICK: Duration = Duration::from_millis(1);
/// Events taken per turn.
const EVENTS_MAX: usize = 1024;
/// Most bytes read from a connection at once.
const READ_MAX: usize = 16 << 10;
/// Handshakes under way at the same time.
const OPENING_MAX: usize = 128;
/// Pause after a connection could not be opened.
const REOPEN_PAUSE: Duration = Duration::from_millis(20);
/// Connections that a sweep asks per millisecond, so that ten thousand take a second.
const SWEEP_PER_MS: usize = 10;
/// Least time for the answers of the second sweep, however late the verdict is asked for.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// Connections whose retransmission time-out is looked at.
const RTO_SAMPLES: usize = 64;
/// Descriptors that are not connections.
const DESCRIPTORS_SPARE: u64 = 32;

/// What the client does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientPlan {
    /// Where to connect; the connections take turns.
    pub targets: Vec<SocketAddr>,
    /// Addresses to connect from; those of the target's family take turns. Without one it is left to the kernel.
    pub sources: Vec<IpAddr>,
    /// Number of connections.
    pub connections: u32,
    /// How many of them are fast.
    pub fast: u32,
    /// A fast connection asks this often.
    pub fast_interval_ms: u64,
    /// Any other asks this often.
    pub slow_interval_ms: u64,
    /// What the random bytes follow from.
    pub seed: u64,
}

/// What became of the connections after a death.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClientVerdict {
    /// All of them: the sum of the next three.
    pub connections: u32,
    /// A new echo came back on the same socket in time, and another one when the verdict was asked for.
    pub survived: u32,
    /// RST, FIN, or a wrong byte; also those that were reset before and not opened again.
    pub reset: u32,
    /// No echo in time, or given up by the kernel; also those that could never be opened.
    pub stalled: u32,
    /// Those of `connections` that are of IPv6.
    pub ipv6_connections: u32,
    /// Those of `survived` that are of IPv6.
    pub ipv6_survived: u32,
    /// Median over the fast connections (over all if none is fast) of the longest time without an answer around the
    /// death. A connection that never answered again counts with the time until the verdict, which is a lower bound.
    pub tcp_gap_ms_p50: f64,
    /// The longest of these.
    pub tcp_gap_ms_max: f64,
    /// The smallest retransmission time-out (`tcpi_rto`) among the connections at the death: the RTO minimum in use
    /// (200 ms unless sysctl or route say otherwise) plus the round trip, rounded up to a tick. 200 if no connection
    /// was left to ask.
    pub rto_min_ms: u32,
    /// Bytes of echo found right since the client's start.
    pub bytes_checked: u64,
    /// Connections with a wrong byte in their echo, since the client's start.
    pub mismatches: u64,
}

/// The clients in a process of their own, killed when dropped.
#[derive(Debug)]
pub struct Client(Part);

impl Client {
    /// Starts them inside `namespace`; they begin to connect at once. Call it from a thread that lasts as long as they.
    ///
    /// # Errors
    /// The operating system's error; `InvalidInput` in words for a plan that cannot be carried out.
    pub fn spawn(namespace: &Namespace, plan: &ClientPlan) -> io::Result<Client> {
        Self::spawn_from(&std::env::current_exe()?, namespace, plan)
    }

    /// The same from another executable than the running one, which must be `ssyncp`.
    ///
    /// # Errors
    /// As [`Client::spawn`].
    pub fn spawn_from(executable: &Path, namespace: &Namespace, plan: &ClientPlan) -> io::Result<Client> {
        Ok(Client(Part::start(executable, namespace, "client", plan)?))
    }

    /// Waits until every connection is established and has had a checked echo; returns how many are when that is so or
    /// the time is up. Those that fail are tried again all the while.
    ///
    /// # Errors
    /// The operating system's error, or that of the child.
    pub fn wait_connected(&mut self, deadline: Duration) -> io::Result<u32> {
        match self.0.ask(&Order::WaitConnected { within_ms: whole_milliseconds(deadline) }, deadline)? {
            Answer::Connected { connections, last_error } => {
                if let Some(reason) = last_error {
                    tracing::warn!(connections, reason, "not every connection could be established");
                }
                Ok(connections)
            }
            other => Err(self.0.unexpected(&other)),
        }
    }

    /// Says that the master has died just now.
    ///
    /// # Errors
    /// The operating system's error, or that of the child.
    pub fn mark_death(&mut self) -> io::Result<()> {
        self.0.tell(&Order::MarkDeath)
    }

    /// What became of the connections: as soon as that is known of all, at the latest `within` after
    /// [`Client::mark_death`] (or two seconds after this call, if that is later).
    ///
    /// # Errors
    /// The operating system's error, or that of the child (no death was marked).
    pub fn verdict(&mut self, within: Duration) -> io::Result<ClientVerdict> {
        let order = Order::Verdict { within_ms: whole_milliseconds(within) };
        match self.0.ask(&order, within.max(LAST_ANSWERS))? {
            Answer::Traffic(verdict) => Ok(verdict),
            other => Err(self.0.unexpected(&other)),
        }
    }

    /// Opens what broke or stalled anew; [`Client::wait_connected`] says when that is done.
    ///
    /// # Errors
    /// The operating system's error, or that of the child.
    pub fn restart(&mut self) -> io::Result<()> {
        self.0.tell(&Order::Restart)
    }
}

fn whole_milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Plays the clients in this process until the parent is gone.
pub(super) fn run(instructions: &str) -> ExitCode {
    play(instructions, |plan: ClientPlan, parent| {
        let descriptors = raise_descriptor_limit()?;
        let mut crowd = Crowd::new(plan, descriptors, clock::now())?;
        parent.answer(&Answer::Ready)?;
        crowd.live(parent)
    })
}

/// All connections, and what is going on with them.
struct Crowd {
    plan: ClientPlan,
    epoll: Epoll,
    connections: Vec<Connection>,
    /// Connections that are to be opened, and when the next attempt may be made.
    closed: VecDeque<usize>,
    opening: usize,
    open_at: Instant,
    last_error: Option<String>,
    streams: u64,
    fast: Rotation,
    slow: Rotation,
    sweep: Option<Rotation>,
    death: Option<Death>,
    question: Option<Question>,
    bytes_checked: u64,
    mismatches: u64,
    buffer: Vec<u8>,
    expected: Vec<u8>,
}

/// The death that counts at present.
#[derive(Clone, Copy)]
struct Death {
    at: Instant,
    rto_min_ms: u32,
}

/// What the parent waits for.
#[derive(Clone, Copy)]
enum Question {
    Connected { until: Instant },
    Verdict { first_by: Instant, last_by: Instant },
}

impl Crowd {
    fn new(plan: ClientPlan, descriptors: u64, now: Instant) -> io::Result<Crowd> {
        let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidInput, reason);
        if plan.connections == 0 || plan.targets.is_empty() {
            return Err(invalid("a client needs at least one connection and one target".into()));
        }
        if plan.fast > plan.connections || plan.fast_interval_ms == 0 || plan.slow_interval_ms == 0 {
            return Err(invalid("more fast connections than connections, or an interval of zero".into()));
        }
        if u64::from(plan.connections) + DESCRIPTORS_SPARE > descriptors {
            return Err(invalid(format!(
                "{} connections need more descriptors than the {descriptors} that RLIMIT_NOFILE allows",
                plan.connections
            )));
        }
        let (count, fast) = (plan.connections as usize, plan.fast as usize);
        Ok(Crowd {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            connections: (0..count as u64).map(|number| Connection::new(Noise::new(plan.seed, number), now)).collect(),
            closed: (0..count).collect(),
            opening: 0,
            open_at: now,
            last_error: None,
            streams: count as u64,
            fast: Rotation::new(now, Duration::from_millis(plan.fast_interval_ms), fast),
            slow: Rotation::new(now, Duration::from_millis(plan.slow_interval_ms), count - fast),
            sweep: None,
            death: None,
            question: None,
            bytes_checked: 0,
            mismatches: 0,
            buffer: vec![0; READ_MAX],
            expected: vec![0; READ_MAX],
            plan,
        })
    }

    fn live(&mut self, parent: &mut Parent) -> io::Result<()> {
        let mut events = vec![EpollEvent::empty(); EVENTS_MAX];
        let mut tick = clock::now();
        loop {
            wait(&[self.epoll.0.as_fd(), parent.as_fd()], Some(tick - clock::now()))?;
            let count = self.epoll.wait(&mut events, EpollTimeout::ZERO)?;
            let now = clock::now();
            for event in &events[..count] {
                self.handle(event.data() as usize, event.events(), now)?;
            }
            while let Some(order) = parent.order()? {
                if let Some(answer) = self.obey(&order, now) {
                    parent.answer(&answer)?;
                }
            }
            if now >= tick {
                tick = now + TICK;
                self.open_some(now)?;
                self.ask_due(now)?;
                if let Some(answer) = self.answer(now) {
                    self.question = None;
                    parent.answer(&answer)?;
                }
            }
        }
    }

    fn obey(&mut self, order: &Order, now: Instant) -> Option<Answer> {
        match order {
            Order::WaitConnected { within_ms } => {
                self.question = Some(Question::Connected { until: now + Duration::from_millis(*within_ms) });
                None
            }
            Order::MarkDeath => {
                self.mark_death(now);
                Some(Answer::Done)
            }
            Order::Verdict { within_ms } => {
                let Some(death) = self.death else {
                    return Some(Answer::Failed("a verdict without a death".into()));
                };
                let first_by = death.at + Duration::from_millis(*within_ms);
                self.question = Some(Question::Verdict { first_by, last_by: first_by.max(now + LAST_ANSWERS) });
                self.connections.iter_mut().for_each(Connection::mark_question);
                self.begin_sweep(now);
                None
            }
            Order::Restart => {
                self.restart(now);
                Some(Answer::Done)
            }
            Order::StartWindow | Order::EndWindow => Some(Answer::Failed("an order for the probe".into())),
        }
    }

    fn mark_death(&mut self, now: Instant) {
        let sockets = self.connections.iter().filter_map(|connection| connection.socket.as_ref());
        let rto = sockets.take(RTO_SAMPLES).filter_map(|socket| retransmission_timeout(socket).ok()).min();
        let rto_min_ms = rto.map_or(200, |rto| u32::try_from(rto.as_millis()).unwrap_or(u32::MAX));
        self.death = Some(Death { at: now, rto_min_ms });
        self.connections.iter_mut().for_each(Connection::mark_death);
        self.begin_sweep(now);
    }

    fn begin_sweep(&mut self, now: Instant) {
        let count = self.connections.len();
        self.sweep = Some(Rotation::new(now, Duration::from_millis(count.div_ceil(SWEEP_PER_MS) as u64), count));
    }

    /// Makes new connections, on new streams, of those that did not live through the last death.
    fn restart(&mut self, now: Instant) {
        for (index, connection) in self.connections.iter_mut().enumerate() {
            let stalled = self.death.is_some() && connection.is_silent();
            if stalled || matches!(connection.state, State::Broken(_)) {
                *connection = Connection::new(Noise::new(self.plan.seed, self.streams), now);
                self.streams += 1;
                self.closed.push_back(index);
            }
        }
        self.death = None;
        self.last_error = None;
    }

    /// Starts handshakes.
    fn open_some(&mut self, now: Instant) -> io::Result<()> {
        while self.opening < OPENING_MAX && now >= self.open_at {
            let Some(index) = self.closed.pop_front() else { break };
            let target = self.plan.targets[index % self.plan.targets.len()];
            let turn = index / self.plan.targets.len();
            let of_family = |source: &&IpAddr| source.is_ipv4() == target.is_ipv4();
            let count = self.plan.sources.iter().filter(of_family).count().max(1);
            let source = self.plan.sources.iter().filter(of_family).nth(turn % count).copied();
            match self.connections[index].open(source, target) {
                Ok(socket) => {
                    self.epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLOUT, index as u64))?;
                    self.opening += 1;
                }
                Err(error) => self.try_again(index, &error, now),
            }
        }
        Ok(())
    }

    fn try_again(&mut self, index: usize, error: &io::Error, now: Instant) {
        let target = self.plan.targets[index % self.plan.targets.len()];
        self.last_error = Some(format!("connect to {target}: {error}"));
        self.closed.push_back(index);
        self.open_at = now + REOPEN_PAUSE;
    }

    fn handle(&mut self, index: usize, flags: EpollFlags, now: Instant) -> io::Result<()> {
        let connection = &mut self.connections[index];
        match connection.state {
            State::Opening => {
                self.opening -= 1;
                // The interest of an opening connection is to write; from now on it is to read.
                connection.waits_to_write = true;
                if let Err(error) = connection.opened(now) {
                    self.try_again(index, &error, now);
                }
            }
            State::Open => {
                if flags.contains(EpollFlags::EPOLLOUT) {
                    connection.write();
                }
                if flags.intersects(!EpollFlags::EPOLLOUT) {
                    self.bytes_checked += connection.read(&mut self.buffer, &mut self.expected, now);
                    if connection.state == State::Broken(Fault::WrongByte) {
                        self.mismatches += 1;
                    }
                }
            }
            State::Closed | State::Broken(_) => {}
        }
        self.settle(index)
    }

    /// Tells the epoll what the connection waits for, where that has changed.
    fn settle(&mut self, index: usize) -> io::Result<()> {
        let connection = &mut self.connections[index];
        let waits = connection.wants_to_write();
        if let (State::Open, Some(socket)) = (connection.state, &connection.socket)
            && waits != connection.waits_to_write
        {
            let mut interest = EpollFlags::EPOLLIN;
            interest.set(EpollFlags::EPOLLOUT, waits);
            self.epoll.modify(socket, &mut EpollEvent::new(interest, index as u64))?;
            connection.waits_to_write = waits;
        }
        Ok(())
    }

    /// Lets those ask whose turn it is.
    fn ask_due(&mut self, now: Instant) -> io::Result<()> {
        let (count, fast) = (self.connections.len(), self.plan.fast as usize);
        for turn in self.fast.due(now) {
            let index = turn as usize % fast;
            self.connections[index].ask_in_turn();
            self.settle(index)?;
        }
        for turn in self.slow.due(now) {
            let index = fast + turn as usize % (count - fast);
            self.connections[index].ask_in_turn();
            self.settle(index)?;
        }
        if let Some(mut sweep) = self.sweep.take() {
            for turn in sweep.due(now).filter(|turn| *turn < count as u64) {
                self.connections[turn as usize].ask();
                self.settle(turn as usize)?;
            }
            self.sweep = Some(sweep).filter(|sweep| !sweep.is_round());
        }
        Ok(())
    }

    /// The answer to the parent's question, if it can be given.
    fn answer(&mut self, now: Instant) -> Option<Answer> {
        match self.question? {
            Question::Connected { until } => {
                let proven = self.connections.iter().filter(|connection| connection.is_proven()).count();
                let all = proven == self.connections.len();
                (all || now >= until).then(|| Answer::Connected {
                    connections: proven as u32,
                    last_error: self.last_error.take().filter(|_| !all),
                })
            }
            Question::Verdict { first_by, last_by } => self.verdict(now, first_by, last_by).map(Answer::Traffic),
        }
    }

    /// What became of all connections; `None` while that of one is open.
    fn verdict(&self, now: Instant, first_by: Instant, last_by: Instant) -> Option<ClientVerdict> {
        let (mut survived, mut reset, mut stalled) = (0, 0, 0);
        let (mut ipv6_connections, mut ipv6_survived) = (0, 0);
        for (connection, target) in self.connections.iter().zip(self.plan.targets.iter().cycle()) {
            ipv6_connections += u32::from(target.is_ipv6());
            match connection.fate(now, first_by, last_by) {
                Fate::Survived => {
                    survived += 1;
                    ipv6_survived += u32::from(target.is_ipv6());
                }
                Fate::Reset => reset += 1,
                Fate::Stalled => stalled += 1,
                Fate::Open => return None,
            }
        }
        let fast = if self.plan.fast > 0 { self.plan.fast as usize } else { self.connections.len() };
        let gaps: Vec<f64> = self.connections[..fast].iter().map(|one| milliseconds(one.gap(now))).collect();
        Some(ClientVerdict {
            connections: self.plan.connections,
            survived,
            reset,
            stalled,
            ipv6_connections,
            ipv6_survived,
            tcp_gap_ms_p50: median(&gaps)?,
            tcp_gap_ms_max: gaps.iter().copied().fold(0.0, f64::max),
            rto_min_ms: self.death?.rto_min_ms,
            bytes_checked: self.bytes_checked,
            mismatches: self.mismatches,
        })
    }
}
