//! Honest traffic at a steady rate, and how long each of its flows takes into the backup's kernel.
//!
//! ```text
//!   written into the master's kernel ── ctnetlink, daemon, wire, daemon, ctnetlink ──▶ the backup's kernel tells (NEW event)
//!   └ t0                                                                              └ t1     delay = t1 − t0
//! ```

use super::chaos::interrupt::interrupted;
use super::chaos::lab::Lab;
use super::chaos::traffic::{client, open_sink};
use super::victims::{TRAFFIC_FROM, traffic};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;
use ssyncp::bridge::Sink;
use ssyncp::bridge::conntrack::ConntrackSink;
use ssyncp::flow::Change;
use ssyncp::sys::netlink::{NETLINK_NETFILTER, NetlinkSocket};
use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Time between two flows.
const EVERY: Duration = Duration::from_millis(5);
/// Who has not arrived so long after the end is counted as late.
const LATE: Duration = Duration::from_secs(2);
/// NFNLGRP_CONNTRACK_NEW and NFNLGRP_CONNTRACK_DESTROY (linux/netfilter/nfnetlink_compat.h).
const COME_AND_GO: [u32; 2] = [1, 3];

/// How long the flows took.
#[derive(Debug, Clone, Default, Serialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Delay {
    /// Flows that were made.
    pub flows: u32,
    /// Of them, those that had not arrived two seconds after the last was made.
    pub late: u32,
    /// Half of them took no longer.
    pub p50_ms: f64,
    /// 99 of 100 took no longer.
    pub p99_ms: f64,
    /// None took longer.
    pub max_ms: f64,
}

/// The sockets of the traffic, in the namespaces of both machines, and how many flows were made so far.
pub struct Traffic {
    sink: ConntrackSink,
    events: NetlinkSocket,
    made: AtomicU32,
}

impl Traffic {
    /// Opens them.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn open(lab: &Lab) -> io::Result<Self> {
        let events = || {
            let socket = NetlinkSocket::open(NETLINK_NETFILTER, 8 << 20)?;
            COME_AND_GO.into_iter().try_for_each(|group| socket.join(group))?;
            Ok(socket)
        };
        let events = lab.nodes[1].namespace.run(events)?;
        Ok(Traffic { sink: open_sink(&lab.nodes[0].namespace)?, events, made: AtomicU32::new(0) })
    }

    /// Flows made since they were opened.
    pub fn made(&self) -> u32 {
        self.made.load(Ordering::Relaxed)
    }

    /// Makes flows until `stop` is set. Tells also how many other entries have come to the backup's kernel or gone from it
    /// meanwhile: nobody honest touches them.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn run(&mut self, stop: &AtomicBool) -> io::Result<(Delay, u64)> {
        let Traffic { sink, events, made } = self;
        // What was told before is not about this.
        while events.receive().map_err(io::Error::other)?.is_some() {}
        let ended = AtomicBool::new(false);
        let first = made.load(Ordering::Relaxed);
        std::thread::scope(|scope| {
            let eye = scope.spawn(|| watch(events, first, &ended, made));
            let mut begun = Vec::new();
            let start = Instant::now();
            while !stop.load(Ordering::Relaxed) && !interrupted() {
                begun.push(Instant::now());
                sink.apply(&Change::Upsert(traffic(made.fetch_add(1, Ordering::Relaxed))))?;
                sink.flush()?;
                let due = start + EVERY * begun.len() as u32;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            ended.store(true, Ordering::Relaxed);
            let (arrived, others) = eye.join().map_err(|_| io::Error::other("a thread has panicked"))??;
            Ok((delay(first, &begun, &arrived), others))
        })
    }
}

fn delay(first: u32, begun: &[Instant], arrived: &HashMap<u32, Instant>) -> Delay {
    let delays = begun.iter().zip(first..).filter_map(|(begin, number)| {
        let arrived = arrived.get(&number)?;
        Some(arrived.saturating_duration_since(*begin).as_secs_f64() * 1e3)
    });
    let mut delays: Vec<f64> = delays.collect();
    delays.sort_by(f64::total_cmp);
    let (flows, late) = (begun.len() as u32, (begun.len() - delays.len()) as u32);
    // Who is late took longer than any other.
    delays.resize(begun.len(), LATE.as_secs_f64() * 1e3);
    let at = |share: f64| delays.get(((delays.len() as f64 * share) as usize).min(delays.len().max(1) - 1)).copied();
    let of = |share| (at(share).unwrap_or(0.0) * 1000.0).round() / 1000.0;
    Delay { flows, late, p50_ms: of(0.5), p99_ms: of(0.99), max_ms: of(1.0) }
}

/// When each flow was first told of by the backup's kernel, and of how many entries of nobody's it has told.
fn watch(
    events: &mut NetlinkSocket,
    first: u32,
    ended: &AtomicBool,
    made: &AtomicU32,
) -> io::Result<(HashMap<u32, Instant>, u64)> {
    let (mut arrived, mut others) = (HashMap::new(), 0);
    let mut deadline = None;
    loop {
        let mut waiting = [PollFd::new(events.as_fd(), PollFlags::POLLIN)];
        poll(&mut waiting, PollTimeout::from(20_u8))?;
        let now = Instant::now();
        while let Some(datagram) = events.receive().map_err(io::Error::other)? {
            match number(datagram) {
                Some(number) if number >= first => drop(arrived.entry(number).or_insert(now)),
                Some(_) => {}
                None => others += 1,
            }
        }
        if ended.load(Ordering::Relaxed) {
            let end = *deadline.get_or_insert(now + LATE);
            let all = made.load(Ordering::Relaxed) - first;
            if arrived.len() as u32 >= all || now >= end || interrupted() {
                return Ok((arrived, others));
            }
        }
    }
}

/// Which flow of the traffic a message is about: by the first source address and the first source port in it, which are
/// those of the original direction (CTA_IP_V4_SRC and CTA_PROTO_SRC_PORT, linux/netfilter/nfnetlink_conntrack.h).
fn number(message: &[u8]) -> Option<u32> {
    let find = |length: u16, kind: u16, bytes: usize| {
        let head = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        let at = message.windows(4).position(|window| window == head)?;
        message.get(at + 4..at + 4 + bytes)
    };
    let address = u32::from_be_bytes(find(8, 1, 4)?.try_into().ok()?);
    let port = u16::from_be_bytes(find(6, 2, 2)?.try_into().ok()?);
    let first = u32::from(client(0).0);
    let number = address.checked_sub(first)?.checked_mul(4096)? + u32::from(port.checked_sub(1024)?);
    number.checked_sub(TRAFFIC_FROM).map(|number| number / 4)
}
