//! Mixed load: connections that begin and end through whichever machine has the address, and some that never end.
//!
//! ```text
//!   of sixteen that begin:  9  TCP, closed by FIN after 2 s        1  TCP, closed by FIN after 30 s
//!                           2  TCP, reset after 2 s                3  UDP with an answer       1  UDP without
//!   beside them:            1000 of TCP that last, each heard of every 20 s
//! ```
//!
//! All by real packets through NAT. Which machine has the address the kernels decide: a packet that comes to the other one is
//! dropped there before it is tracked ([`super::rig`]). What nobody ends any more is ended by the kernel's own clock.

use super::board::Board;
use super::chaos::interrupt::interrupted;
use super::chaos::traffic::{Side, Street};
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Connections that never end: the first numbers.
pub const LASTING: u32 = 1000;
/// So often each of them is heard of.
const HEARD_EVERY: Duration = Duration::from_secs(20);
/// Number of the first that ends.
const FIRST: u32 = 1 << 20;
/// Behind the last: there are probes.
const BEHIND: u32 = super::latency::FIRST;
/// The service of UDP: port that clients know, and the server's.
pub const UDP_SERVICE: (u16, u16) = (53, 5353);
/// How long the short ones live, and the others.
const SHORT: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(30);
/// Time between two bursts, and the longest that counts: who was held up does not make up for it.
const TICK: Duration = Duration::from_millis(2);
const TICK_MAX: Duration = Duration::from_millis(50);

/// What waits for its end: when, and which.
type Ends = VecDeque<(Duration, u32)>;

/// The traffic of all clients.
#[derive(Debug)]
pub struct Load {
    streets: Vec<Street>,
    rate: u32,
    next: u32,
    /// Time that it has run, pauses left out.
    clock: Duration,
    short: Ends,
    long: Ends,
}

impl Load {
    /// So many connections a second, through the machines behind these streets.
    pub fn new(streets: Vec<Street>, rate: u32) -> Self {
        Load { streets, rate, next: FIRST, clock: Duration::ZERO, short: Ends::new(), long: Ends::new() }
    }

    /// Opens those that last.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn open_lasting(&mut self, machine: usize) -> io::Result<()> {
        (0..LASTING).try_for_each(|number| self.streets[machine].connect(number))
    }

    /// Runs until the board says stop.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn run(&mut self, board: &Board) -> io::Result<()> {
        let (mut last, mut owed, mut heard) = (Instant::now(), 0.0, 0.0);
        while !board.is_over() && !interrupted() {
            std::thread::sleep(TICK);
            let passed = last.elapsed().min(TICK_MAX);
            last = Instant::now();
            if board.is_paused() {
                continue;
            }
            self.clock += passed;
            let machine = board.holder();
            owed += passed.as_secs_f64() * f64::from(self.rate);
            while owed >= 1.0 {
                self.begin(machine)?;
                owed -= 1.0;
                board.begun.fetch_add(1, Ordering::Relaxed);
            }
            self.end_due(machine)?;
            let before = heard as u32;
            heard += passed.as_secs_f64() * f64::from(LASTING) / HEARD_EVERY.as_secs_f64();
            (before..heard as u32).try_for_each(|turn| self.hear(machine, turn % LASTING))?;
        }
        Ok(())
    }

    fn begin(&mut self, machine: usize) -> io::Result<()> {
        let number = self.next;
        self.next = if number + 1 == BEHIND { FIRST } else { number + 1 };
        let street = &mut self.streets[machine];
        let (asked, answered) = UDP_SERVICE;
        match number % 16 {
            0..=10 => {
                street.connect(number)?;
                self.short.push_back((self.clock + SHORT, number));
            }
            11 => {
                street.connect(number)?;
                self.long.push_back((self.clock + LONG, number));
            }
            12..=14 => {
                street.udp(Side::Client, number, asked, answered)?;
                street.udp(Side::Server, number, asked, answered)?;
            }
            _ => street.udp(Side::Client, number, asked, answered)?,
        }
        Ok(())
    }

    fn end_due(&mut self, machine: usize) -> io::Result<()> {
        let street = &mut self.streets[machine];
        for ends in [&mut self.short, &mut self.long] {
            while ends.front().is_some_and(|(due, _)| *due <= self.clock) {
                let Some((_, number)) = ends.pop_front() else { break };
                match number % 16 {
                    9 | 10 => street.tcp(Side::Client, number, 1001, |segment| segment.rst().ack(5001), &[])?,
                    _ => close(street, number)?,
                }
            }
        }
        Ok(())
    }

    /// The same octet again, and its acknowledgement: as a keep-alive.
    fn hear(&mut self, machine: usize, number: u32) -> io::Result<()> {
        let street = &mut self.streets[machine];
        street.tcp(Side::Client, number, 1001, |segment| segment.psh().ack(5001), b"?")?;
        street.tcp(Side::Server, number, 5001, |segment| segment.ack(1002), &[])
    }
}

/// A close of TCP (RFC 9293, 3.6), the client first.
fn close(street: &mut Street, number: u32) -> io::Result<()> {
    street.tcp(Side::Client, number, 1001, |segment| segment.fin().ack(5001), &[])?;
    street.tcp(Side::Server, number, 5001, |segment| segment.fin().ack(1002), &[])?;
    street.tcp(Side::Client, number, 1002, |segment| segment.ack(5002), &[])
}
