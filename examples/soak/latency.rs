//! A flow a second, and how long it takes into the backup's kernel: while no fault is on and the backup says that it is in
//! sync. What a fault overtakes says nothing and is left out.

use super::board::{Board, MACHINES};
use super::chaos::interrupt::interrupted;
use super::chaos::node::Status;
use super::chaos::probe::has;
use super::chaos::traffic::{Means, flow, open_sink};
use ssyncp::bridge::Sink;
use ssyncp::bridge::conntrack::ConntrackSink;
use ssyncp::flow::{Change, Flow};
use ssyncp::sys::namespace::Namespace;
use ssyncp::sys::netlink::{NETLINK_NETFILTER, NetlinkSocket};
use std::io;
use std::time::{Duration, Instant};

/// Number of the first probe: beyond all other flows.
pub const FIRST: u32 = 0xf000_0000;
/// Numbers of probes before they begin anew; each has ended long before.
const NUMBERS: u32 = 1 << 20;
/// Seconds that one lives if nobody can end it any more.
const TIMEOUT_S: u32 = 10;
/// Time between two.
const EVERY: Duration = Duration::from_secs(1);
/// Time between two questions.
const ASK_EVERY: Duration = Duration::from_micros(500);
/// Who has not arrived after this time is lost.
pub const LOST_AFTER: Duration = Duration::from_secs(2);

/// One probe.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    /// Seconds since the start of the run.
    pub at_s: f64,
    /// Milliseconds until it was in the backup's kernel; `None`: lost.
    pub delay_ms: Option<f64>,
}

/// The ways into both kernels.
#[derive(Debug)]
pub struct Prober {
    sinks: Vec<ConntrackSink>,
    eyes: Vec<NetlinkSocket>,
}

impl Prober {
    /// Opens them.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn open<'a>(machines: impl Iterator<Item = &'a Namespace> + Clone) -> io::Result<Self> {
        let eye = |machine: &Namespace| machine.run(|| NetlinkSocket::open(NETLINK_NETFILTER, 64 << 10));
        let sinks = machines.clone().map(open_sink).collect::<io::Result<_>>()?;
        Ok(Prober { sinks, eyes: machines.map(eye).collect::<io::Result<_>>()? })
    }

    /// Sends probes until all is over.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn run(&mut self, board: &Board) -> io::Result<Vec<Probe>> {
        let mut probes = Vec::new();
        for turn in 0_u32.. {
            if board.is_over() || interrupted() {
                break;
            }
            probes.extend(self.probe(board, FIRST + turn % NUMBERS * 4)?);
            std::thread::sleep(EVERY);
        }
        Ok(probes)
    }

    fn probe(&mut self, board: &Board, number: u32) -> io::Result<Option<Probe>> {
        let (calm, master) = (board.disturbances(), board.holder());
        let backup = MACHINES - 1 - master;
        let is_calm = || {
            let in_sync = board.status(backup).as_ref().is_some_and(Status::is_in_sync);
            calm % 2 == 0 && board.disturbances() == calm && board.holder() == master && in_sync && !board.is_paused()
        };
        if !is_calm() {
            return Ok(None);
        }
        let probe = Flow { timeout: TIMEOUT_S, ..flow(number, Means::Netlink) };
        let (at_s, start) = (board.now_s(), Instant::now());
        self.sinks[master].apply(&Change::Upsert(probe.clone()))?;
        self.sinks[master].flush()?;
        let mut found = has(&mut self.eyes[backup], &probe.key)?;
        while !found && start.elapsed() < LOST_AFTER && is_calm() {
            std::thread::sleep(ASK_EVERY);
            found = has(&mut self.eyes[backup], &probe.key)?;
        }
        let delay_ms = found.then(|| start.elapsed().as_secs_f64() * 1e3);
        self.sinks[master].apply(&Change::Delete(probe.key))?;
        self.sinks[master].flush()?;
        Ok((found || is_calm()).then_some(Probe { at_s, delay_ms }))
    }
}
