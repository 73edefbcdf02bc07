//! A flow every 100 ms, and how long each takes to arrive on the other machine.
//!
//! ```text
//!   written into the master's kernel ── t ──▶ found in the backup's kernel (asked every millisecond)
//!                                    ── t ──▶ found in the backup's table (asked at the control socket, where a
//!                                             question costs a turn of the loop and some 0.5 ms)
//! ```

use super::interrupt::interrupted;
use super::node::Node;
use super::traffic::{Means, flow, open_sink};
use ssyncp::bridge::Sink;
use ssyncp::flow::{Change, FlowKey};
use ssyncp::sys::namespace::Namespace;
use ssyncp::sys::netlink::{MessageWriter, Messages, NETLINK_NETFILTER, NetlinkSocket};
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Time between two probes.
const EVERY: Duration = Duration::from_millis(100);
/// Who has not arrived after this time never will.
const LOST_AFTER: Duration = Duration::from_secs(30);

/// Where a probe is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The backup's kernel.
    Kernel,
    /// The backup's table.
    Table,
}

/// Sends probes from `from` until `stop`; milliseconds of each. One that never arrives counts with [`LOST_AFTER`].
///
/// # Errors
/// The operating system's error.
pub fn run(from: &Namespace, to: &Node, place: Place, first: u32, stop: &AtomicBool) -> io::Result<Vec<f64>> {
    let mut sink = open_sink(from)?;
    let mut eye = to.namespace.run(|| NetlinkSocket::open(NETLINK_NETFILTER, 64 << 10))?;
    let mut delays = Vec::new();
    for number in first.. {
        if stop.load(Ordering::Relaxed) || interrupted() {
            break;
        }
        let probe = flow(number, Means::Netlink);
        let start = Instant::now();
        sink.apply(&Change::Upsert(probe.clone()))?;
        sink.flush()?;
        while start.elapsed() < LOST_AFTER && !interrupted() {
            let found = match place {
                Place::Kernel => has(&mut eye, &probe.key)?,
                Place::Table => to.table_has(&probe.key),
            };
            if found {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        delays.push(start.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(EVERY.saturating_sub(start.elapsed()));
    }
    Ok(delays)
}

/// Asks a kernel for one entry (`IPCTNL_MSG_CT_GET`, linux/netfilter/nfnetlink_conntrack.h).
///
/// # Errors
/// The operating system's error.
pub fn has(eye: &mut NetlinkSocket, key: &FlowKey) -> io::Result<bool> {
    const CT_NEW: u16 = 0x100;
    const CT_GET: u16 = 0x101;
    const NLM_F_REQUEST: u16 = 1;
    const AF_INET: u8 = 2;
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (key.source, key.destination) else { return Ok(false) };
    let mut writer = MessageWriter::new();
    writer.begin(CT_GET, NLM_F_REQUEST, 1, AF_INET, 0);
    writer.nest(1, |tuple| {
        tuple.nest(1, |ip| {
            ip.attribute(1, &source.octets());
            ip.attribute(2, &destination.octets());
        });
        tuple.nest(2, |protocol| {
            protocol.attribute_u8(1, key.protocol);
            protocol.attribute_u16_be(2, key.source_port);
            protocol.attribute_u16_be(3, key.destination_port);
        });
    });
    writer.end();
    eye.send(writer.bytes())?;
    let mut found = false;
    while let Some(datagram) = eye.receive().map_err(io::Error::other)? {
        found |= Messages::new(datagram).flatten().any(|message| message.kind == CT_NEW);
    }
    Ok(found)
}
