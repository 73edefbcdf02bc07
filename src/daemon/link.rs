//! Whether the sync links work, taken together: what the driver believes between the first error and the recovery.
//!
//! ```text
//!              an error                 it lasts, or carrier lost
//!      ┌─ Up ──────────▶ Failing ───────────────▶ Down ─┐
//!      │   ▲  frames move   │                      ▲    │ each second, and when the carrier is back:
//!      │   └────────────────┘                      └────┤ open it again
//!      └────────────────── carrier lost ───────────▶    └──▶ Up
//! ```
//!
//! Down means that no link is left. That one of several is down changes no role: it is an event and a line in the status,
//! and the transport itself opens again what can be opened.
//!
//! One error is an accident; errors that last longer than the peers would wait for us are a link that is down.

use crate::sys::poll::Descriptors;
use crate::time::{Duration, Instant};
use crate::transport::pcap::{Tap, TapStatus};
use crate::transport::{LinkStatus, Transport};
use std::io;

/// Time between two attempts to open a link that is down.
pub const REOPEN_INTERVAL: Duration = Duration::from_secs(1);
/// Longest time between two looks at the carrier of a link that works.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Looks within the time that the peers would wait for us: a lost carrier must be seen before it is taken for a dead
/// master. (The first look after the loss may still find that something was heard; the second asks.)
pub const LOOKS_WITHIN_PATIENCE: u32 = 3;
/// Time between two looks at a link that is down, whose return nothing else tells. An interface that was switched on just
/// before the start is one of them: the kernel needs some milliseconds until it calls it running.
pub const LOOK_INTERVAL_DOWN: Duration = Duration::from_millis(10);

/// A transport whose links can be looked at and opened again.
pub trait Line: Transport {
    /// Whether at least one of its links was up when they were last looked at.
    fn is_up(&self) -> bool;

    /// Looks at the links, and mends what can be mended of those that are down.
    fn look(&mut self) {}

    /// The next link that has gone down or come back since this was last asked.
    fn next_change(&mut self) -> Option<LinkStatus> {
        None
    }

    /// How each of its links stands; none for a transport that knows no links.
    fn links(&self) -> Vec<LinkStatus> {
        Vec::new()
    }

    /// Opens it anew; its counters go on.
    ///
    /// # Errors
    /// The operating system's error; the line stays as it was.
    fn reopen(&mut self) -> io::Result<()>;

    /// How its tap stands, if it has one.
    fn tap(&self) -> Option<TapStatus> {
        None
    }
}

impl<L: Line> Line for Tap<L> {
    fn is_up(&self) -> bool {
        self.inner().is_up()
    }

    fn look(&mut self) {
        self.inner_mut().look();
    }

    fn next_change(&mut self) -> Option<LinkStatus> {
        self.inner_mut().next_change()
    }

    fn links(&self) -> Vec<LinkStatus> {
        self.inner().links()
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.inner_mut().reopen()
    }

    fn tap(&self) -> Option<TapStatus> {
        Some(self.status())
    }
}

/// A transport without a link that could fail.
#[derive(Debug)]
pub struct AlwaysUp<T>(pub T);

impl<T: Transport> Transport for AlwaysUp<T> {
    fn limits(&self) -> crate::transport::Limits {
        self.0.limits()
    }

    fn receive(&mut self, deliver: &mut dyn FnMut(crate::wire::FrameMeta, &mut [u8])) -> io::Result<usize> {
        self.0.receive(deliver)
    }

    fn transmit(&mut self, fill: &mut dyn FnMut(&mut [u8]) -> Option<usize>) -> io::Result<usize> {
        self.0.transmit(fill)
    }

    fn pending(&self) -> usize {
        self.0.pending()
    }

    fn readiness(&self) -> Descriptors<'_> {
        self.0.readiness()
    }

    fn counters(&self) -> crate::transport::TransportCounters {
        self.0.counters()
    }
}

impl<T: Transport> Line for AlwaysUp<T> {
    fn is_up(&self) -> bool {
        true
    }

    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the driver must do about the link now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Nothing.
    Steady,
    /// It has gone down: tell the engine.
    WentDown,
    /// Try to open it again, then say [`Watch::reopened`].
    Reopen,
}

/// Where frames go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// To us.
    In,
    /// From us.
    Out,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Since when each way fails; that one works says nothing of the other.
    Up {
        failing: [Option<Instant>; 2],
    },
    Down {
        retry_at: Instant,
        carrier: bool,
    },
}

impl State {
    const WORKS: State = State::Up { failing: [None; 2] };
}

/// The watch over one line.
#[derive(Clone, Debug)]
pub struct Watch {
    state: State,
    patience: Duration,
    look_every: Duration,
    look_at: Instant,
}

impl Watch {
    /// A link that works; errors may last for `patience` before it is called down.
    pub fn new(now: Instant, patience: Duration) -> Self {
        let look_every = LOOK_INTERVAL.min(patience / LOOKS_WITHIN_PATIENCE);
        Watch { state: State::WORKS, patience, look_every, look_at: now }
    }

    /// Errors may last this long from now on.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
        self.look_every = LOOK_INTERVAL.min(patience / LOOKS_WITHIN_PATIENCE);
    }

    /// Whether frames may be moved.
    pub fn usable(&self) -> bool {
        !matches!(self.state, State::Down { .. })
    }

    /// Whether the last thing heard of one of its ways was an error.
    pub fn failing(&self) -> bool {
        self.state != State::WORKS
    }

    /// When [`Watch::look`] is due.
    pub fn look_at(&self) -> Instant {
        self.look_at
    }

    /// Frames have moved this way.
    pub fn moved(&mut self, way: Way) {
        if let State::Up { failing } = &mut self.state {
            failing[way as usize] = None;
        }
    }

    /// Moving frames this way has failed.
    pub fn failed(&mut self, now: Instant, way: Way) -> Verdict {
        let State::Up { failing } = &mut self.state else { return Verdict::Steady };
        let since = *failing[way as usize].get_or_insert(now);
        if now.since(since) >= self.patience { self.go_down(now, true) } else { Verdict::Steady }
    }

    /// A look at the carrier, due at [`Watch::look_at`].
    pub fn look(&mut self, now: Instant, carrier: bool) -> Verdict {
        let verdict = self.judge(now, carrier);
        self.look_at = now + if self.usable() { self.look_every } else { LOOK_INTERVAL_DOWN };
        verdict
    }

    fn judge(&mut self, now: Instant, carrier: bool) -> Verdict {
        match self.state {
            State::Up { .. } if !carrier => self.go_down(now, false),
            State::Up { .. } => Verdict::Steady,
            State::Down { retry_at, carrier: before } if now >= retry_at || (carrier && !before) => {
                self.state = State::Down { retry_at: now + REOPEN_INTERVAL, carrier };
                Verdict::Reopen
            }
            State::Down { retry_at, .. } => {
                self.state = State::Down { retry_at, carrier };
                Verdict::Steady
            }
        }
    }

    /// The attempt that [`Verdict::Reopen`] asked for has been made; `works` if it succeeded and the carrier is there.
    pub fn reopened(&mut self, works: bool) {
        if works {
            self.state = State::WORKS;
        }
    }

    fn go_down(&mut self, now: Instant, carrier: bool) -> Verdict {
        self.state = State::Down { retry_at: now + REOPEN_INTERVAL, carrier };
        Verdict::WentDown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::pcap::TapOptions;
    use crate::transport::{Limits, LinkCondition, LinkCounters, MemoryHub, Mode, TransportCounters};
    use crate::wire::FrameMeta;

    /// A line that says of everything something else than a line by default.
    #[derive(Default)]
    struct Telling {
        looks: u32,
        reopened: u32,
        changes: Vec<LinkStatus>,
    }

    fn down(name: &str) -> LinkStatus {
        LinkStatus {
            name: name.to_owned(),
            condition: LinkCondition::NoCarrier,
            mtu: 9000,
            mode: Mode::default(),
            counters: LinkCounters::default(),
        }
    }

    impl Transport for Telling {
        fn limits(&self) -> Limits {
            Limits { frame_len: 1234, ..MemoryHub::new().port().limits() }
        }
        fn receive(&mut self, deliver: &mut dyn FnMut(FrameMeta, &mut [u8])) -> io::Result<usize> {
            MemoryHub::new().port().receive(deliver)
        }
        fn transmit(&mut self, fill: &mut dyn FnMut(&mut [u8]) -> Option<usize>) -> io::Result<usize> {
            MemoryHub::new().port().transmit(fill)
        }
        fn pending(&self) -> usize {
            7
        }
        fn readiness(&self) -> Descriptors<'_> {
            Descriptors::default()
        }
        fn counters(&self) -> TransportCounters {
            TransportCounters { send_errors: 3, ..TransportCounters::default() }
        }
    }

    impl Line for Telling {
        fn is_up(&self) -> bool {
            self.reopened > 0
        }
        fn look(&mut self) {
            self.looks += 1;
            self.changes.push(down("eth2"));
        }
        fn next_change(&mut self) -> Option<LinkStatus> {
            self.changes.pop()
        }
        fn links(&self) -> Vec<LinkStatus> {
            vec![down("eth1"), down("eth2")]
        }
        fn reopen(&mut self) -> io::Result<()> {
            self.reopened += 1;
            if self.reopened > 1 { Err(io::ErrorKind::NotFound.into()) } else { Ok(()) }
        }
    }

    #[test]
    fn a_tap_hides_nothing_of_the_line_below_it() {
        let [source, destination] = ["10.0.0.1", "224.0.0.81"].map(|address| address.parse().unwrap());
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tap.pcap");
        let options = TapOptions { file, file_len: 1 << 20, files: 1, source, destination };
        let mut tapped: Box<dyn Line> = Box::new(Tap::new(Telling::default(), &options).unwrap());
        assert_eq!((tapped.limits().frame_len, tapped.pending(), tapped.counters().send_errors), (1234, 7, 3));
        assert_eq!(tapped.next_change(), None);
        tapped.look();
        assert_eq!((tapped.next_change(), tapped.next_change()), (Some(down("eth2")), None));
        assert_eq!(tapped.links(), [down("eth1"), down("eth2")]);
        assert!(!tapped.is_up() && tapped.reopen().is_ok() && tapped.is_up() && tapped.reopen().is_err());
        assert_eq!(tapped.tap(), Some(TapStatus::default()));
        assert_eq!(AlwaysUp(MemoryHub::new().port()).tap(), None);
    }

    fn at(milliseconds: u64) -> Instant {
        Instant::from_nanos(milliseconds * 1_000_000)
    }

    fn watch() -> Watch {
        Watch::new(at(0), Duration::from_millis(300))
    }

    #[test]
    fn one_error_is_an_accident_and_forgotten_when_frames_move() {
        let mut watch = watch();
        assert_eq!(watch.failed(at(0), Way::In), Verdict::Steady);
        assert!(watch.failing() && watch.usable());
        watch.moved(Way::In);
        assert!(!watch.failing());
        assert_eq!(watch.failed(at(400), Way::In), Verdict::Steady);
        assert_eq!(watch.failed(at(699), Way::In), Verdict::Steady);
        assert!(watch.usable());
    }

    #[test]
    fn errors_that_last_longer_than_our_own_detection_time_are_a_link_that_is_down() {
        let mut watch = watch();
        watch.failed(at(0), Way::In);
        assert_eq!(watch.failed(at(300), Way::In), Verdict::WentDown);
        assert!(!watch.usable());
        assert_eq!(watch.failed(at(301), Way::In), Verdict::Steady);
    }

    /// [5.0.8] Who hears all and says nothing would stay master, and would be none to the others.
    #[test]
    fn a_link_that_only_receives_is_down_after_the_same_time() {
        let mut watch = watch();
        for time in (0..300).step_by(100) {
            assert_eq!(watch.failed(at(time), Way::Out), Verdict::Steady);
            watch.moved(Way::In);
        }
        assert_eq!(watch.failed(at(300), Way::Out), Verdict::WentDown);
        assert!(!watch.usable());
    }

    #[test]
    fn a_lost_carrier_is_down_at_once_and_its_return_is_tried_at_once() {
        let mut watch = watch();
        assert_eq!(watch.look(at(100), true), Verdict::Steady);
        assert_eq!(watch.look_at(), at(200));
        assert_eq!(watch.look(at(200), false), Verdict::WentDown);
        assert_eq!(watch.look(at(210), false), Verdict::Steady);
        assert_eq!(watch.look_at(), at(220));
        assert_eq!(watch.look(at(220), true), Verdict::Reopen);
        watch.reopened(true);
        assert!(watch.usable() && !watch.failing());
    }

    #[test]
    fn a_watch_of_fast_adverts_looks_as_fast() {
        let mut watch = Watch::new(at(0), Duration::from_millis(30));
        watch.look(at(0), true);
        assert_eq!(watch.look_at(), at(10));
        let mut watch = Watch::new(at(0), Duration::from_secs(3));
        watch.look(at(0), true);
        assert_eq!(watch.look_at(), at(100));
    }

    #[test]
    fn a_link_that_stays_down_is_opened_again_each_second_even_without_a_carrier() {
        let mut watch = watch();
        watch.look(at(0), false);
        let tries: Vec<u64> =
            (1..=35).map(|tenth| tenth * 100).filter(|ms| watch.look(at(*ms), false) == Verdict::Reopen).collect();
        assert_eq!(tries, vec![1000, 2000, 3000]);
        assert_eq!(watch.look_at(), at(3510));
    }
}
