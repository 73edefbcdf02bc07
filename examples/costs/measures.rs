//! What is done, and measured.

use super::contender::{Commit, Contender, Machine, PATIENCE, Usage};
use super::generator::{Generator, SERVER, client};
use super::lab::Lab;
use super::report::{Large, Rate};
use super::{Context, Doing, Trouble};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use ssyncp::bridge::Sink;
use ssyncp::bridge::conntrack::{ConntrackSink, SinkOptions};
use ssyncp::demo::kernel;
use ssyncp::flow::{Change, Flow, FlowKey, Zone, protocol, status};
use ssyncp::sys::namespace::Namespace;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Time in which the backup must have what the packets made.
const SETTLE: Duration = Duration::from_secs(15);
/// Time between two looks at that.
const LOOK_EVERY: Duration = Duration::from_millis(20);
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
///
/// # Errors
/// [`Trouble`].
pub fn packets(
    lab: &Lab,
    context: &Context,
    first: u32,
    count: u32,
    rate: u32,
    stop: &AtomicBool,
) -> Result<f64, Trouble> {
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
    let (a, b) = contender.start_pair(&lab, directory.path(), context, Commit::OnTakeover)?;
    let of_b = |b: &Option<Machine>| b.as_ref().map(Machine::usage).transpose();
    let (wire, before, before_b) = (lab.wire()?, a.usage()?, of_b(&b)?);
    let reached_per_s = packets(&lab, context, 0, context.connections, rate, &AtomicBool::new(false))?;
    let (start, wanted) = (Instant::now(), u64::from(context.connections));
    let held = || b.as_ref().and_then(Machine::held).unwrap_or(0);
    while b.is_some() && held() < wanted && start.elapsed() < SETTLE {
        std::thread::sleep(LOOK_EVERY);
    }
    // The last entry has come; what is said of its state has not, perhaps.
    std::thread::sleep(LOOK_EVERY * 5);
    let (wire, after, after_b) = (lab.wire()?.since(wire), a.usage()?, of_b(&b)?);
    let cpu = |before: Usage, after: Usage| (after.processor_s - before.processor_s) / wanted as f64 * 1e5;
    // Of a listener, who tells nobody, there is no wire.
    let told = |count: u64| b.is_some().then_some(count as f64 / wanted as f64);
    let row = Rate {
        asked_per_s: rate,
        pinned: context.pinned,
        reached_per_s,
        sender_cpu_s: cpu(before, after),
        receiver_cpu_s: before_b.zip(after_b).map(|(before, after)| cpu(before, after)),
        packets: told(wire.packets),
        octets: told(wire.octets),
        missing: b.is_some().then(|| wanted.saturating_sub(held())),
    };
    a.end();
    b.into_iter().for_each(Machine::end);
    Ok(row)
}

/// A large table: its memory, a resync of it, and its way into a kernel.
///
/// # Errors
/// [`Trouble`].
pub fn large(contender: Contender, context: &Context) -> Result<Large, Trouble> {
    let (lab, directory, entries) = (Lab::build()?, directory()?, u64::from(context.entries));
    let mut a = contender.start(&lab, 0, directory.path(), context, Commit::OnTakeover)?;
    let empty = a.usage()?;
    write(&lab.a, context.entries, Change::Upsert).doing("writing entries")?;
    a.until("the router's daemon has all entries", |a| a.held().is_some_and(|held| held >= entries))?;
    let full = a.usage()?;
    let mut b = contender.start(&lab, 1, directory.path(), context, Commit::OnTakeover)?;
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
    let sender_cpu_s = used(after[0], before[0]);
    a.end();
    let commit_s = commit(&lab, &mut b, entries)?;
    let row = Large {
        entries: context.entries,
        sender_bytes: bytes(full, empty),
        receiver_bytes: bytes(after[1], before[1]),
        sender_resident: full.resident as f64 / entries as f64,
        receiver_resident: after[1].resident as f64 / entries as f64,
        resync_s,
        resync_octets: wire.octets as f64 / entries as f64,
        resync_cpu_s: sender_cpu_s + used(after[1], before[1]),
        commit_s,
    };
    b.end();
    Ok(row)
}

/// Seconds until the backup's kernel has all entries.
///
/// The router is dead by then, and its kernel is empty. All namespaces share one kernel: it has one hash of connections, and builds
/// an event for all of them where anybody at all listens, so that a router that lives would make each entry of the backup
/// dearer, which on two machines it cannot.
fn commit(lab: &Lab, b: &mut Machine, entries: u64) -> Result<Option<f64>, Trouble> {
    let written = u32::try_from(entries).unwrap_or(u32::MAX);
    write(&lab.a, written, |flow| Change::Delete(flow.key)).doing("emptying the router's kernel")?;
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

/// Writes entries into a kernel by ctnetlink, or takes them back, in batches: plain TCP, established.
fn write(namespace: &Namespace, entries: u32, change: fn(Flow) -> Change) -> io::Result<()> {
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
            sink.apply(&change(Flow { status: answered, timeout: TIMEOUT_S, state: 3, ..Flow::new(key) }))?;
        }
        sink.flush().map(drop)
    })
}

/// A directory for what daemons leave.
///
/// # Errors
/// [`Trouble::Step`].
pub fn directory() -> Result<tempfile::TempDir, Trouble> {
    tempfile::Builder::new().prefix("ssyncp-costs-").tempdir().doing("making a directory")
}
