//! How long a connection's first packet needs to be known elsewhere.
//!
//! ```text
//!   SYN ─▶ router ─event▶ daemon ─▶ sync link ─▶ daemon ─▶ its table      asked for, at the control socket
//!                                     │             └────▶ its kernel     told, by the kernel's own event
//!                                   watched
//! ```
//!
//! A question costs time of its own, and most of it is the question's. So the table is asked on an idle pair only; the kernel,
//! which a copy that is committed at once reaches last of all, tells by itself, and tells under load, too.

use super::contender::{Commit, Contender};
use super::generator::{Generator, client};
use super::lab::{Lab, SYNC};
use super::measures::{directory, packets};
use super::report::Latency;
use super::{Context, Doing, Trouble};
use ssyncp::sys::netlink::{NETLINK_NETFILTER, NetlinkSocket};
use ssyncp::sys::socket::{PacketSocket, interface};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Numbers of probes: beyond every other connection.
const PROBES: u32 = 0x80_0000;
const LOADED_PROBES: u32 = 0x90_0000;
/// Connections a second under which probes are timed, too.
const LOAD: u32 = 20_000;
/// Time from the load's begin to the first probe.
const WARM_UP: Duration = Duration::from_millis(500);
/// Longest time that a probe may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Time between two probes.
const EVERY: Duration = Duration::from_millis(3);
/// NFNLGRP_CONNTRACK_NEW (linux/netfilter/nfnetlink_compat.h).
const NEW: u32 = 1;
/// Bytes of the buffer for what a kernel tells.
const BUFFER: usize = 64 << 20;
/// Octets behind an address within which its port stands, in both languages and in netlink.
const PORT_WITHIN: usize = 64;

/// Single connections, of an idle pair and of a busy one: to the link and to the table, and, by a second pair that commits at
/// once, to the kernel.
///
/// # Errors
/// [`Trouble`].
pub fn latency(contender: Contender, context: &Context) -> Result<Latency, Trouble> {
    let mut latency = Latency::default();
    to_link_and_table(contender, context, &mut latency)?;
    to_kernel(contender, context, &mut latency)?;
    Ok(latency)
}

fn to_link_and_table(contender: Contender, context: &Context, latency: &mut Latency) -> Result<(), Trouble> {
    let (lab, directory) = (Lab::build()?, directory()?);
    let (a, b) = contender.start_pair(&lab, directory.path(), context, Commit::OnTakeover)?;
    let Some(b) = b else { return Ok(()) };
    let mut probe = Probe::open(&lab, Place::Link).doing("opening the way of probes")?;
    let mut question: Vec<f64> = Vec::new();
    for _ in 0..context.probes {
        let start = Instant::now();
        let _ = b.held();
        question.push(micros(start.elapsed()));
    }
    let (mut wire, mut table) = (Vec::new(), Vec::new());
    for number in 0..context.probes {
        let held = b.held();
        let start = Instant::now();
        wire.extend(probe.until_seen(PROBES + number).doing("probing")?);
        while b.held() <= held && start.elapsed() < PATIENCE {}
        table.push(micros(start.elapsed()));
        std::thread::sleep(EVERY);
    }
    let mut loaded = under_load(&lab, context, &mut probe)?;
    a.end();
    b.end();
    [latency.wire_us_p50, latency.wire_us_p99] = quantiles(&mut wire);
    [latency.table_us_p50, latency.table_us_p99] = quantiles(&mut table);
    [latency.question_us_p50, _] = quantiles(&mut question);
    [latency.loaded_wire_us_p50, latency.loaded_wire_us_p99] = quantiles(&mut loaded);
    Ok(())
}

fn to_kernel(contender: Contender, context: &Context, latency: &mut Latency) -> Result<(), Trouble> {
    let (lab, directory) = (Lab::build()?, directory()?);
    let (a, b) = contender.start_pair(&lab, directory.path(), context, Commit::AtOnce)?;
    let mut probe = Probe::open(&lab, Place::Kernel).doing("opening the way of probes")?;
    let mut idle = Vec::new();
    for number in 0..context.probes {
        idle.extend(probe.until_seen(PROBES + number).doing("probing")?);
        std::thread::sleep(EVERY);
    }
    let mut loaded = under_load(&lab, context, &mut probe)?;
    a.end();
    b.into_iter().for_each(super::contender::Machine::end);
    [latency.kernel_us_p50, latency.kernel_us_p99] = quantiles(&mut idle);
    [latency.loaded_kernel_us_p50, latency.loaded_kernel_us_p99] = quantiles(&mut loaded);
    Ok(())
}

/// The same while many others connect.
fn under_load(lab: &Lab, context: &Context, probe: &mut Probe) -> Result<Vec<f64>, Trouble> {
    let (stop, mut loaded) = (AtomicBool::new(false), Vec::new());
    std::thread::scope(|scope| {
        let load = scope.spawn(|| packets(lab, context, 0, u32::MAX >> 12, LOAD, &stop));
        std::thread::sleep(WARM_UP);
        let result = (|| {
            for number in 0..context.probes {
                loaded.extend(probe.until_seen(LOADED_PROBES + number)?);
                std::thread::sleep(EVERY);
            }
            Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        load.join().map_err(|_| Trouble::Panicked)??;
        io::Result::doing(result, "probing")
    })?;
    Ok(loaded)
}

/// Where a probe is seen.
enum Place {
    /// On the backup's side of the sync link.
    Link,
    /// In the backup's kernel.
    Kernel,
}

enum Watch {
    Link(PacketSocket, Vec<u8>),
    Kernel(NetlinkSocket),
}

/// Sends the first packet of a connection, and watches for its client's address and port.
struct Probe {
    generator: Generator,
    watch: Watch,
}

impl Probe {
    fn open(lab: &Lab, place: Place) -> io::Result<Self> {
        let watch = lab.b.run(|| match place {
            Place::Link => Ok(Watch::Link(PacketSocket::watch(interface(SYNC)?.index)?, vec![0; 1 << 16])),
            Place::Kernel => {
                let socket = NetlinkSocket::open(NETLINK_NETFILTER, BUFFER)?;
                socket.join(NEW)?;
                io::Result::Ok(Watch::Kernel(socket))
            }
        })?;
        Ok(Probe { generator: Generator::open(&lab.street)?, watch })
    }

    /// Microseconds until it was seen; `None` if it was not.
    fn until_seen(&mut self, number: u32) -> io::Result<Option<f64>> {
        let (address, port) = client(number);
        let (address, port) = (address.octets(), port.to_be_bytes());
        while self.watch.next()?.is_some() {}
        let start = Instant::now();
        self.generator.begin(number)?;
        while start.elapsed() < PATIENCE {
            let Some(said) = self.watch.next()? else { continue };
            let took = start.elapsed();
            let mut places = said.windows(4).enumerate().filter(|(_, window)| *window == address);
            if places.any(|(at, _)| said[at..said.len().min(at + PORT_WITHIN)].windows(2).any(|window| window == port))
            {
                return Ok(Some(micros(took)));
            }
        }
        Ok(None)
    }
}

impl Watch {
    /// What was seen next; `None` if there is nothing yet.
    fn next(&mut self) -> io::Result<Option<&[u8]>> {
        match self {
            Watch::Link(socket, buffer) => {
                let received = socket.receive(buffer)?;
                Ok(received.map(|(length, _)| &buffer[..length.min(buffer.len())]))
            }
            Watch::Kernel(socket) => socket.receive().map_err(io::Error::other),
        }
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Median and 99th of 100.
fn quantiles(values: &mut [f64]) -> [Option<f64>; 2] {
    values.sort_by(f64::total_cmp);
    [0.5, 0.99].map(|share| {
        let rank = (values.len() as f64 * share).ceil() as usize;
        values.get(rank.saturating_sub(1)).copied()
    })
}
