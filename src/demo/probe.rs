//! The probe: a process that sends a small datagram per flow and millisecond through the pair and notes when none comes
//! back.
//!
//! A *hole* is the longest time without an arrival, from the window's start or the arrival before to the next arrival
//! or the window's end. Arrivals are stamped by the kernel, and where the probe itself was late with the first datagram
//! after an arrival, that time is taken off, so that a busy machine does not look like a broken network. A datagram
//! that is late at the *end* of a hole still makes it longer; how late the probe was at worst is reported beside.
//!
//! ```text
//!   sent      | | | | | | | | | | | | | | | | |
//!   arrived    | | | |               | | | | | |
//!           start    └──── hole ─────┘          end
//! ```

use super::part::{self, Answer, Order, Parent, Part, play, raise_descriptor_limit};
use super::traffic::{median, milliseconds, receive_stamped, wall_clock};
use crate::sys::clock;
use crate::sys::namespace::Namespace;
use crate::sys::poll::wait;
use crate::time::{Duration, Instant};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{setsockopt, sockopt};
use serde::{Deserialize, Serialize};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

/// Most flows of one probe.
pub const FLOWS_MAX: u32 = 1024;
/// Events taken per turn.
const EVENTS_MAX: usize = 256;
/// Datagrams taken from one flow before the others get their turn.
const TURN_MAX: usize = 64;
/// Datagrams that may be under way in a flow that is answered.
pub const ALIVE: u64 = 3;
/// Bytes of a probe: flow number and sequence number, big-endian.
const PROBE_LENGTH: usize = 16;

/// What the probe does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbePlan {
    /// UDP echo servers; the flows take turns.
    pub targets: Vec<SocketAddr>,
    /// Number of flows, each from a port of its own; at most [`FLOWS_MAX`].
    pub flows: u32,
    /// Each flow sends this often.
    pub interval_ms: u64,
}

/// What the probe saw in a window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeVerdict {
    /// Number of flows.
    pub flows: u32,
    /// Flows that are answered now: the newest echo is of one of the last [`ALIVE`] datagrams.
    pub alive: u32,
    /// Datagrams sent in the window, those that the kernel refused among them.
    pub sent: u64,
    /// Echoes of these that arrived in the window and were newer than all before them in their flow.
    pub answered: u64,
    /// Longest hole of each flow.
    pub gaps_ms: Vec<f64>,
    /// Median of `gaps_ms`.
    pub p50_ms: f64,
    /// Largest of `gaps_ms`.
    pub max_ms: f64,
    /// The latest that the probe was with sending: a hole may be this much longer than the network's.
    pub late_ms_max: f64,
}

/// A probe in a process of its own, killed when dropped.
#[derive(Debug)]
pub struct Probe(Part);

impl Probe {
    /// Starts one inside `namespace`; it sends from then on. Call it from a thread that lasts as long as the probe.
    ///
    /// # Errors
    /// The operating system's error; `InvalidInput` in words for a plan that cannot be carried out.
    pub fn spawn(namespace: &Namespace, plan: &ProbePlan) -> io::Result<Probe> {
        Self::spawn_from(&std::env::current_exe()?, namespace, plan)
    }

    /// The same from another executable than the running one, which must be `ssyncp`.
    ///
    /// # Errors
    /// As [`Probe::spawn`].
    pub fn spawn_from(executable: &Path, namespace: &Namespace, plan: &ProbePlan) -> io::Result<Probe> {
        Ok(Probe(Part::start(executable, namespace, "probe", plan)?))
    }

    /// Begins to measure, or begins anew.
    ///
    /// # Errors
    /// The operating system's error, or that of the child.
    pub fn start_window(&mut self) -> io::Result<()> {
        self.0.tell(&Order::StartWindow)
    }

    /// What was seen since [`Probe::start_window`]. The window stays open: a second call tells of the longer one.
    ///
    /// # Errors
    /// The operating system's error, or that of the child (no window was started).
    pub fn end_window(&mut self) -> io::Result<ProbeVerdict> {
        match self.0.ask(&Order::EndWindow, Duration::ZERO)? {
            Answer::Window(verdict) => Ok(verdict),
            other => Err(self.0.unexpected(&other)),
        }
    }
}

/// Plays the probe in this process until the parent is gone.
pub(super) fn run(instructions: &str) -> ExitCode {
    play(instructions, |plan: ProbePlan, parent| {
        raise_descriptor_limit()?;
        part::measure_in_time();
        let mut beat = Beat::open(&plan)?;
        parent.answer(&Answer::Ready)?;
        beat.live(parent)
    })
}

/// All flows, and the pace at which they send.
struct Beat {
    epoll: Epoll,
    flows: Vec<Flow>,
    interval: Duration,
    next: Instant,
    late: Duration,
    sent: u64,
    /// Start of the window by CLOCK_REALTIME.
    window: Option<Duration>,
}

struct Flow {
    socket: UdpSocket,
    holes: Holes,
}

/// What one flow has heard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Holes {
    /// Sequence number of the first datagram of the window.
    first: u64,
    /// Sequence number of the next datagram.
    next: u64,
    /// Sequence number after the newest echo.
    expected: u64,
    answered: u64,
    /// The silence at present is counted from here.
    since: Duration,
    longest: Duration,
}

impl Holes {
    /// Begins a window at `now`.
    fn start(&mut self, now: Duration) {
        *self = Holes { first: self.next, next: self.next, expected: self.expected, since: now, ..Holes::default() };
    }

    /// Notes a datagram that leaves, and returns its sequence number. If all before it are answered it was overdue for
    /// as long as `interval` is over, and that silence was not the network's.
    fn sent(&mut self, at: Duration, interval: Duration) -> u64 {
        if self.all_answered() {
            self.since = self.since.max(at.saturating_sub(interval));
        }
        self.next += 1;
        self.next - 1
    }

    /// Notes an echo. One that is older than the newest, was never sent, or came before the window, closes no hole.
    fn arrived(&mut self, sequence: u64, at: Duration) {
        if sequence < self.expected || sequence >= self.next || at < self.since {
            return;
        }
        self.expected = sequence + 1;
        self.answered += u64::from(sequence >= self.first);
        self.longest = self.longest.max(at - self.since);
        self.since = at;
    }

    /// The longest hole if the window ends at `now`.
    fn longest_until(&self, now: Duration) -> Duration {
        if self.all_answered() { self.longest } else { self.longest.max(now.saturating_sub(self.since)) }
    }

    /// Whether echoes come back at present.
    fn is_alive(&self) -> bool {
        self.answered > 0 && self.next - self.expected <= ALIVE
    }

    fn all_answered(&self) -> bool {
        self.expected == self.next
    }
}

impl Beat {
    fn open(plan: &ProbePlan) -> io::Result<Beat> {
        if plan.targets.is_empty() || plan.flows == 0 || plan.flows > FLOWS_MAX || plan.interval_ms == 0 {
            let reason = format!("a probe needs a target, 1 to {FLOWS_MAX} flows, and an interval of at least 1 ms");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut flows = Vec::with_capacity(plan.flows as usize);
        for (number, target) in (0..plan.flows).zip(plan.targets.iter().cycle()) {
            let any: IpAddr =
                if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let socket = UdpSocket::bind((any, 0))?;
            socket.connect(target)?;
            socket.set_nonblocking(true)?;
            setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
            epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, number.into()))?;
            flows.push(Flow { socket, holes: Holes::default() });
        }
        let interval = Duration::from_millis(plan.interval_ms);
        Ok(Beat { epoll, flows, interval, next: clock::now(), late: Duration::ZERO, sent: 0, window: None })
    }

    fn live(&mut self, parent: &mut Parent) -> io::Result<()> {
        let mut events = vec![EpollEvent::empty(); EVENTS_MAX];
        loop {
            wait(&[self.epoll.0.as_fd(), parent.as_fd()], Some(self.next - clock::now()))?;
            self.send(clock::now());
            self.receive(&mut events)?;
            while let Some(order) = parent.order()? {
                // What has arrived before the order belongs to the time before it.
                self.receive(&mut events)?;
                parent.answer(&self.obey(&order))?;
            }
        }
    }

    /// Sends one datagram per flow, if it is time. A beat that was missed altogether is left out: two at once say no
    /// more than one.
    fn send(&mut self, now: Instant) {
        if now < self.next {
            return;
        }
        self.late = self.late.max(now - self.next);
        self.next += self.interval;
        if self.next < now {
            self.next = now + self.interval;
        }
        let at = wall_clock();
        for (number, flow) in (0_u64..).zip(&mut self.flows) {
            let sequence = flow.holes.sent(at, self.interval);
            let mut probe = [0; PROBE_LENGTH];
            probe[..8].copy_from_slice(&number.to_be_bytes());
            probe[8..].copy_from_slice(&sequence.to_be_bytes());
            // Whatever the kernel says, the datagram was due, and will be missing.
            let _ = flow.socket.send(&probe);
            self.sent += 1;
        }
    }

    fn receive(&mut self, events: &mut [EpollEvent]) -> io::Result<()> {
        let count = self.epoll.wait(events, EpollTimeout::ZERO)?;
        for event in &events[..count] {
            let number = event.data();
            let Some(flow) = self.flows.get_mut(number as usize) else { continue };
            for _ in 0..TURN_MAX {
                let mut echo = [0; PROBE_LENGTH + 1];
                // An ICMP error is taken off the socket by being returned; what it is about will be missing.
                let Ok(Some((length, at))) = receive_stamped(&flow.socket, &mut echo) else { break };
                if let Some(sequence) = sequence_of(&echo[..length], number) {
                    flow.holes.arrived(sequence, at);
                }
            }
        }
        Ok(())
    }

    fn obey(&mut self, order: &Order) -> Answer {
        match order {
            Order::StartWindow => {
                let now = wall_clock();
                (self.window, self.sent, self.late) = (Some(now), 0, Duration::ZERO);
                self.flows.iter_mut().for_each(|flow| flow.holes.start(now));
                Answer::Done
            }
            Order::EndWindow if self.window.is_some() => Answer::Window(self.verdict(wall_clock())),
            Order::EndWindow => Answer::Failed("the end of a window that was never started".into()),
            _ => Answer::Failed("an order for the client".into()),
        }
    }

    fn verdict(&self, now: Duration) -> ProbeVerdict {
        let gaps_ms: Vec<f64> = self.flows.iter().map(|flow| milliseconds(flow.holes.longest_until(now))).collect();
        ProbeVerdict {
            flows: self.flows.len() as u32,
            alive: self.flows.iter().filter(|flow| flow.holes.is_alive()).count() as u32,
            sent: self.sent,
            answered: self.flows.iter().map(|flow| flow.holes.answered).sum(),
            p50_ms: median(&gaps_ms).unwrap_or_default(),
            max_ms: gaps_ms.iter().copied().fold(0.0, f64::max),
            gaps_ms,
            late_ms_max: milliseconds(self.late),
        }
    }
}

/// The sequence number of an echo, if it is one and of this flow.
fn sequence_of(echo: &[u8], flow: u64) -> Option<u64> {
    let (number, sequence) = echo.split_first_chunk::<8>()?;
    (u64::from_be_bytes(*number) == flow).then_some(u64::from_be_bytes(sequence.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// A window that starts at 1000 ms, in which a datagram leaves each millisecond from then on until `until_ms`.
    fn sending(until_ms: u64) -> Holes {
        let mut holes = Holes::default();
        holes.start(ms(1000));
        for at in 1000..until_ms {
            assert_eq!(holes.sent(ms(at), ms(1)), at - 1000);
        }
        holes
    }

    #[test]
    fn the_longest_hole_is_found_wherever_it_is() {
        let mut holes = sending(1032);
        holes.arrived(0, ms(1003));
        holes.arrived(1, ms(1004));
        holes.arrived(9, ms(1012));
        assert_eq!(holes.longest_until(ms(1013)), ms(8));
        assert_eq!(holes.longest_until(ms(1032)), ms(20));
        assert_eq!(holes.answered, 3);
    }

    #[test]
    fn a_flow_that_hears_nothing_has_a_hole_as_long_as_the_window() {
        assert_eq!(sending(1300).longest_until(ms(1300)), ms(300));
    }

    #[test]
    fn an_old_or_repeated_or_invented_echo_closes_no_hole() {
        let mut holes = sending(1010);
        holes.arrived(5, ms(1001));
        holes.arrived(5, ms(1050));
        holes.arrived(4, ms(1060));
        holes.arrived(10, ms(1070));
        assert_eq!((holes.answered, holes.longest_until(ms(1100))), (1, ms(99)));
    }

    #[test]
    fn the_silence_of_a_probe_that_sends_nothing_is_no_hole() {
        let mut holes = sending(1001);
        holes.arrived(0, ms(1001));
        assert_eq!(holes.longest_until(ms(1050)), ms(1));
        // It was due at 1001 and left at 1050; 49 ms are the probe's own.
        holes.sent(ms(1050), ms(1));
        assert_eq!(holes.longest_until(ms(1053)), ms(4));
        // With one unanswered, lateness makes no difference any more.
        holes.sent(ms(1080), ms(1));
        holes.arrived(2, ms(1081));
        assert_eq!(holes.longest_until(ms(1081)), ms(32));
    }

    #[test]
    fn a_new_window_forgets_the_holes_and_the_echoes_before_it() {
        let mut holes = sending(1005);
        holes.arrived(3, ms(1500));
        holes.start(ms(2000));
        holes.sent(ms(2000), ms(1));
        holes.arrived(4, ms(1999));
        assert_eq!((holes.answered, holes.longest_until(ms(2000))), (0, ms(0)));
        // Sent before the window, it shows that the path is open and is not counted.
        holes.arrived(4, ms(2001));
        assert_eq!((holes.answered, holes.longest_until(ms(2003))), (0, ms(2)));
        holes.arrived(5, ms(2002));
        assert_eq!((holes.answered, holes.longest_until(ms(2003))), (1, ms(1)));
    }

    #[test]
    fn only_an_echo_of_this_flow_counts() {
        let echo = [0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 1, 2];
        assert_eq!(sequence_of(&echo, 7), Some(258));
        assert_eq!(sequence_of(&echo, 6), None);
        assert_eq!(sequence_of(&echo[..15], 7), None);
        assert_eq!(sequence_of(&[0; 17], 0), None);
    }
}
