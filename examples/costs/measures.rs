//! What is done, and measured.

use super::contender::{Contender, Machine, PATIENCE, Usage};
use super::generator::{Generator, SERVER, client};
use super::lab::Lab;
use super::report::{Large, Latency, Rate};
use super::{Context, Doing, Trouble};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use ssyncp::bridge::Sink;
use ssyncp::bridge::conntrack::{ConntrackSink, SinkOptions};
use ssyncp::demo::kernel;
use ssyncp::flow::{Change, Flow, FlowKey, Zone, protocol, status};
use ssyncp::sys::namespace::Namespace;
use ssyncp::sys::socket::{PacketSocket, interface};
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Time in which the backup must have what the packets made.
const SETTLE: Duration = Duration::from_secs(15);
/// Time between two looks at that.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Numbers of probes: beyond every other connection.
const PROBES: u32 = 0x80_0000;
const LOADED_PROBES: u32 = 0x90_0000;
/// Connections a second under which probes are timed, too.
const LOAD: u32 = 20_000;
/// Longest time that a probe may take.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);
/// Time between two probes.
const PROBE_EVERY: Duration = Duration::from_millis(3);
/// Seconds that a written entry lives: longer than all of this.
const TIMEOUT_S: u32 = 3600;

/// Connections a second without any daemon.
///
/// # Errors
/// [`Trouble`].
pub fn alone(context: &Context, rate: u32) -> Result<f64, Trouble> {
    let lab = Lab::build()?;
    let count = if rate == 0 { context.connections } else { context.connections.min(rate * 2) };
    packets(&lab, context, 0, count, rate, &AtomicBool::new(false))
}

/// Makes connections, in a thread that has the second processor where daemons have the first.
fn packets(lab: &Lab, context: &Context, first: u32, count: u32, rate: u32, stop: &AtomicBool) -> Result<f64, Trouble> {
    let work = || -> io::Result<f64> {
        if context.pinned {
            let mut second = CpuSet::new();
            second.set(1)?;
            // With one processor there is nothing to divide.
            let _ = sched_setaffinity(Pid::from_raw(0), &second);
        }
        Generator::open(&lab.street)?.run(first, count, rate, stop)
    };
    let made = std::thread::scope(|scope| scope.spawn(work).join());
    made.map_err(|_| Trouble::Panicked)?.doing("sending packets")
}

/// Connections at a rate.
///
/// # Errors
/// [`Trouble`].
pub fn at_rate(contender: Contender, context: &Context, rate: u32) -> Result<Rate, Trouble> {
    let (lab, directory) = (Lab::build()?, directory()?);
    let (a, b) = contender.start_pair(&lab, directory.path(), context)?;
    let (wire, before) = (lab.wire()?, [a.usage()?, b.usage()?]);
    let reached_per_s = packets(&lab, context, 0, context.connections, rate, &AtomicBool::new(false))?;
    let (start, wanted) = (Instant::now(), u64::from(context.connections));
    while b.held().unwrap_or(0) < wanted && start.elapsed() < SETTLE {
        std::thread::sleep(LOOK_EVERY);
    }
    // The last entry has come; what is said of its state has not, perhaps.
    std::thread::sleep(LOOK_EVERY * 5);
    let (wire, after) = (lab.wire()?.since(wire), [a.usage()?, b.usage()?]);
    let cpu = |node: usize| (after[node].processor_s - before[node].processor_s) / wanted as f64 * 1e5;
    let row = Rate {
        asked_per_s: rate,
        reached_per_s,
        sender_cpu_s: cpu(0),
        receiver_cpu_s: cpu(1),
        packets: wire.packets as f64 / wanted as f64,
        octets: wire.octets as f64 / wanted as f64,
        missing: wanted.saturating_sub(b.held().unwrap_or(0)),
    };
    a.end();
    b.end();
    Ok(row)
}

/// A large table: its memory, a resync of it, and its way into a kernel.
///
/// # Errors
/// [`Trouble`].
pub fn large(contender: Contender, context: &Context) -> Result<Large, Trouble> {
    let (lab, directory, entries) = (Lab::build()?, directory()?, u64::from(context.entries));
    let mut a = contender.start(&lab, 0, directory.path(), context)?;
    let empty = a.usage()?;
    write(&lab.a, context.entries).doing("writing entries")?;
    a.until("the router's daemon has all entries", |a| a.held().is_some_and(|held| held >= entries))?;
    let full = a.usage()?;
    let mut b = contender.start(&lab, 1, directory.path(), context)?;
    if contender == Contender::Conntrackd {
        std::thread::sleep(Duration::from_millis(2200));
    }
    let (wire, before, start) = (lab.wire()?, [full, b.usage()?], Instant::now());
    b.resync()?;
    b.until("the backup has all entries", |b| {
        b.held().is_some_and(|held| held >= entries) && (contender == Contender::Conntrackd || b.is_in_sync())
    })?;
    let resync_s = start.elapsed().as_secs_f64();
    let (wire, after) = (lab.wire()?.since(wire), [a.usage()?, b.usage()?]);
    let used = |now: Usage, then: Usage| now.processor_s - then.processor_s;
    let bytes = |now: Usage, then: Usage| now.resident.saturating_sub(then.resident) as f64 / entries as f64;
    let commit_s = commit(&lab, &mut b, entries)?;
    let row = Large {
        entries: context.entries,
        sender_bytes: bytes(full, empty),
        receiver_bytes: bytes(after[1], before[1]),
        sender_resident: full.resident as f64 / entries as f64,
        receiver_resident: after[1].resident as f64 / entries as f64,
        resync_s,
        resync_octets: wire.octets as f64 / entries as f64,
        resync_cpu_s: used(after[0], before[0]) + used(after[1], before[1]),
        commit_s,
    };
    a.end();
    b.end();
    Ok(row)
}

/// Seconds until the backup's kernel has all entries.
fn commit(lab: &Lab, b: &mut Machine, entries: u64) -> Result<Option<f64>, Trouble> {
    let count = || kernel::count(&lab.b).doing("counting entries");
    let start = Instant::now();
    b.commit()?;
    while count()? < entries {
        if start.elapsed() > PATIENCE {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(Some(start.elapsed().as_secs_f64()))
}

/// Writes entries into a kernel by ctnetlink, in batches: plain TCP, established.
fn write(namespace: &Namespace, entries: u32) -> io::Result<()> {
    namespace.run(|| {
        let mut sink = ConntrackSink::open(&SinkOptions::default()).map_err(io::Error::other)?;
        for number in 0..entries {
            let (address, port) = client(number);
            let key = FlowKey {
                source: IpAddr::V4(address),
                destination: IpAddr::V4(SERVER.0),
                source_port: port,
                destination_port: SERVER.1,
                protocol: protocol::TCP,
                zone: Zone::DEFAULT,
            };
            let answered = status::SEEN_REPLY | status::ASSURED | status::CONFIRMED;
            sink.apply(&Change::Upsert(Flow { status: answered, timeout: TIMEOUT_S, state: 3, ..Flow::new(key) }))?;
        }
        sink.flush().map(drop)
    })
}

/// Single connections, of an idle pair and of a busy one.
///
/// # Errors
/// [`Trouble`].
pub fn latency(contender: Contender, context: &Context) -> Result<Latency, Trouble> {
    let (lab, directory) = (Lab::build()?, directory()?);
    let (a, b) = contender.start_pair(&lab, directory.path(), context)?;
    let mut probe = Probe::open(&lab).doing("opening the way of probes")?;
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
        while b.held() <= held && start.elapsed() < PROBE_PATIENCE {}
        table.push(micros(start.elapsed()));
        std::thread::sleep(PROBE_EVERY);
    }
    let (stop, mut loaded) = (AtomicBool::new(false), Vec::new());
    let measured = std::thread::scope(|scope| {
        let load = scope.spawn(|| packets(&lab, context, 0, u32::MAX >> 12, LOAD, &stop));
        std::thread::sleep(Duration::from_millis(500));
        let result = (|| {
            for number in 0..context.probes {
                loaded.extend(probe.until_seen(LOADED_PROBES + number)?);
                std::thread::sleep(PROBE_EVERY);
            }
            Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        load.join().map_err(|_| Trouble::Panicked)??;
        io::Result::doing(result, "probing")
    });
    measured?;
    a.end();
    b.end();
    Ok(Latency {
        wire_us_p50: quantile(&mut wire, 0.5),
        wire_us_p99: quantile(&mut wire, 0.99),
        table_us_p50: quantile(&mut table, 0.5),
        table_us_p99: quantile(&mut table, 0.99),
        question_us_p50: quantile(&mut question, 0.5),
        loaded_wire_us_p50: quantile(&mut loaded, 0.5),
        loaded_wire_us_p99: quantile(&mut loaded, 0.99),
    })
}

/// Sends the first packet of a connection, and watches the sync link for its client's address and port.
struct Probe {
    generator: Generator,
    watch: PacketSocket,
    buffer: Vec<u8>,
}

impl Probe {
    fn open(lab: &Lab) -> io::Result<Self> {
        let watch = lab.b.run(|| PacketSocket::watch(interface(super::lab::SYNC)?.index))?;
        Ok(Probe { generator: Generator::open(&lab.street)?, watch, buffer: vec![0; 1 << 16] })
    }

    /// Microseconds until a frame about it was on the backup's side of the link; `None` if none came.
    fn until_seen(&mut self, number: u32) -> io::Result<Option<f64>> {
        let (address, port) = client(number);
        let (address, port) = (address.octets(), port.to_be_bytes());
        while self.watch.receive(&mut self.buffer)?.is_some() {}
        let start = Instant::now();
        self.generator.begin(number)?;
        while start.elapsed() < PROBE_PATIENCE {
            let Some((length, _)) = self.watch.receive(&mut self.buffer)? else { continue };
            let took = start.elapsed();
            let frame = &self.buffer[..length.min(self.buffer.len())];
            let mut places = frame.windows(4).enumerate().filter(|(_, window)| *window == address);
            // Both put the ports some octets behind the addresses.
            if places.any(|(at, _)| frame[at..frame.len().min(at + 64)].windows(2).any(|window| window == port)) {
                return Ok(Some(micros(took)));
            }
        }
        Ok(None)
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn quantile(values: &mut [f64], share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * share).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied()
}

fn directory() -> Result<tempfile::TempDir, Trouble> {
    tempfile::Builder::new().prefix("ssyncp-costs-").tempdir().doing("making a directory")
}
