//! Flows that are made and ended in a machine's kernel, at a rate.
//!
//! ```text
//!   packets   street ─ front ─ SYN ▶ machine ▶ back        a connection is three packets through NAT: three events
//!                       front ◀ machine ◀ SYN+ACK ─ back
//!             street ─ front ─ ACK ▶ machine ▶ back
//!   netlink   the entry is written as `conntrack -I` would; the kernel reports it as it does any other: one event
//! ```
//!
//! Ends are always written (as by `conntrack -D`): time-outs would take longer than anybody wants to wait. Who writes is
//! the project's own bridge, which nobody here judges; what came of it is read from the kernels afterwards.

use super::interrupt::interrupted;
use super::node::Node;
use super::{Doing, Trouble};
use etherparse::err::packet::BuildWriteError;
use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep, TcpHeader};
use ssyncp::bridge::Sink;
use ssyncp::bridge::conntrack::{ConntrackSink, SinkOptions};
use ssyncp::flow::{Change, Endpoint, Flow, FlowKey, Zone, protocol, status};
use ssyncp::sys::namespace::Namespace;
use ssyncp::sys::socket::{PacketSocket, interface};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What clients know.
pub const SERVICE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 10), 80);
/// The server behind it.
pub const SERVER: (Ipv4Addr, u16) = (Ipv4Addr::new(203, 0, 113, 7), 8080);
/// Hardware addresses: (street, machine) of front and back.
const FRONT: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 1, 2], [2, 0, 0, 0, 1, 1]);
const BACK: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 2, 2], [2, 0, 0, 0, 2, 1]);
/// Seconds that a written entry lives: longer than any scenario.
const TIMEOUT_S: u32 = 3000;
/// Time between two bursts.
const TICK: Duration = Duration::from_millis(2);

/// How flows come into a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    /// By real packets that the machine forwards and translates.
    Packets,
    /// By writing them.
    Netlink,
}

/// What is to happen.
#[derive(Debug, Clone)]
pub struct Traffic {
    /// How flows are made.
    pub means: Means,
    /// Flows that are made in a second.
    pub rate: u32,
    /// Number of the first one.
    pub first: u32,
    /// Most that are made.
    pub most: u32,
    /// Of four flows so many end.
    pub ended_of_four: u32,
    /// Ends come so many flows after the beginning.
    pub lag: u32,
}

/// The way into a machine: its sockets stay in its namespaces, whoever uses them.
#[derive(Debug)]
pub struct Place {
    sink: ConntrackSink,
    street: Option<Street>,
}

/// What has happened.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Flows that were made.
    pub made: u32,
    /// Flows that were ended.
    pub ended: u32,
    /// How long it took.
    pub seconds: f64,
    /// Entries in the kernel when it was over; 0 where nobody counted.
    pub held: u64,
}

impl Tally {
    /// Together with what had happened before.
    pub fn after(self, before: Tally) -> Tally {
        Tally {
            made: before.made + self.made,
            ended: before.ended + self.ended,
            seconds: before.seconds + self.seconds,
            held: self.held,
        }
    }

    /// Flows made and ended in a second.
    pub fn changes_per_s(&self) -> f64 {
        f64::from(self.made + self.ended) / self.seconds.max(0.001)
    }
}

impl Traffic {
    /// Flows that are made and stay.
    pub fn new(means: Means, first: u32, most: u32, rate: u32) -> Self {
        Traffic { means, rate, first, most, ended_of_four: 0, lag: 0 }
    }

    /// So many of four end, each when `lag` others have begun after it.
    pub fn ending(mut self, ended_of_four: u32, lag: u32) -> Self {
        (self.ended_of_four, self.lag) = (ended_of_four, lag);
        self
    }

    /// The way into a machine.
    ///
    /// # Errors
    /// [`Trouble::Step`].
    pub fn place(&self, node: &Node) -> Result<Place, Trouble> {
        let open = || {
            let street = match self.means {
                Means::Packets => Some(Street::open(&node.street)?),
                Means::Netlink => None,
            };
            Ok(Place { sink: open_sink(&node.namespace)?, street })
        };
        open().doing("opening the way for flows")
    }

    /// Makes it happen, until all are made or `stop` is set.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn run(&self, place: Place, stop: &AtomicBool) -> Result<Tally, Trouble> {
        self.perform(place, stop).map_err(|source| match interrupted() {
            true => Trouble::Interrupted,
            false => Trouble::Step { doing: "making flows", source },
        })
    }

    fn perform(&self, place: Place, stop: &AtomicBool) -> io::Result<Tally> {
        let Place { mut sink, mut street } = place;
        let (start, mut tally) = (Instant::now(), Tally::default());
        while tally.made < self.most && !stop.load(Ordering::Relaxed) && !interrupted() {
            let due = (start.elapsed().as_secs_f64() * f64::from(self.rate)) as u32;
            for number in tally.made..due.min(self.most) {
                // Who is far behind his rate must not catch up when nothing is to happen any more.
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                match &mut street {
                    Some(street) => street.connect(self.first + number)?,
                    None => sink.apply(&Change::Upsert(flow(self.first + number, self.means)))?,
                }
                if number >= self.lag && number % 4 < self.ended_of_four {
                    sink.apply(&Change::Delete(flow(self.first + number - self.lag, self.means).key))?;
                    tally.ended += 1;
                }
                tally.made += 1;
            }
            sink.flush()?;
            std::thread::sleep(TICK);
        }
        tally.seconds = start.elapsed().as_secs_f64();
        Ok(tally)
    }
}

/// Writes these flows as fast as the kernel takes them.
///
/// # Errors
/// [`Trouble`].
pub fn write(node: &Node, numbers: std::ops::Range<u32>) -> Result<(), Trouble> {
    change(node, numbers.map(|number| Change::Upsert(flow(number, Means::Netlink))))
}

/// Ends these flows as fast as the kernel does it.
///
/// # Errors
/// [`Trouble`].
pub fn end(node: &Node, numbers: std::ops::Range<u32>, means: Means) -> Result<(), Trouble> {
    change(node, numbers.map(|number| Change::Delete(flow(number, means).key)))
}

fn change(node: &Node, changes: impl Iterator<Item = Change>) -> Result<(), Trouble> {
    let work = || {
        let mut sink = open_sink(&node.namespace)?;
        for change in changes {
            if interrupted() {
                return Ok(());
            }
            sink.apply(&change)?;
        }
        sink.flush().map(drop)
    };
    work().doing("writing flows")?;
    if interrupted() { Err(Trouble::Interrupted) } else { Ok(()) }
}

/// A way to write into the kernel's table of a namespace.
///
/// # Errors
/// The operating system's error.
pub fn open_sink(namespace: &Namespace) -> io::Result<ConntrackSink> {
    let options = SinkOptions { batch: 256, ..SinkOptions::default() };
    namespace.run(|| ConntrackSink::open(&options).map_err(io::Error::other))
}

/// Where a flow comes from: 4096 ports of each address of 10.16.0.0/12.
pub fn client(number: u32) -> (Ipv4Addr, u16) {
    (Ipv4Addr::from(0x0a10_0000 + (number >> 12)), 1024 + (number & 0xfff) as u16)
}

/// The flow of a number: what packets make is always TCP with a translated destination; what is written is that, plain TCP,
/// TCP with a translated source, or UDP with a mark.
pub fn flow(number: u32, means: Means) -> Flow {
    let kind = if means == Means::Packets { 0 } else { number % 4 };
    let (address, port) = client(number);
    let key = FlowKey {
        source: IpAddr::V4(address),
        destination: IpAddr::V4(SERVICE.0),
        source_port: port,
        destination_port: SERVICE.1,
        protocol: if kind == 3 { protocol::UDP } else { protocol::TCP },
        zone: Zone::DEFAULT,
    };
    let answered = status::SEEN_REPLY | status::ASSURED | status::CONFIRMED;
    let flow = Flow { status: answered, timeout: TIMEOUT_S, state: 3, ..Flow::new(key) };
    match kind {
        0 => {
            let server = Endpoint { address: IpAddr::V4(SERVER.0), port: SERVER.1 };
            Flow { reply_source: Some(server), status: answered | status::DST_NAT, ..flow }
        }
        1 => flow,
        2 => {
            let gateway = Endpoint { address: IpAddr::V4(Ipv4Addr::from(u32::from(address) | 1 << 23)), port };
            Flow { reply_destination: Some(gateway), status: answered | status::SRC_NAT, ..flow }
        }
        _ => Flow { state: 0, mark: number, ..flow },
    }
}

/// Both ends of all connections.
#[derive(Debug)]
pub struct Street {
    front: PacketSocket,
    back: PacketSocket,
    frame: Vec<u8>,
}

/// Who says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// In front of the machine; its numbers begin with 1000.
    Client,
    /// Behind it; its numbers begin with 5000.
    Server,
}

/// A segment of TCP before its flags are set.
pub type Segment = PacketBuilderStep<TcpHeader>;

impl Street {
    /// Opens it.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn open(street: &Namespace) -> io::Result<Self> {
        // Ethertype 0: they send and receive nothing, so no queue fills that nobody reads.
        let open = |name| PacketSocket::open(interface(name)?.index, 0);
        street.run(|| Ok(Street { front: open("front")?, back: open("back")?, frame: Vec::with_capacity(64) }))
    }

    /// A handshake of TCP (RFC 9293, 3.5), through the machine.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn connect(&mut self, number: u32) -> io::Result<()> {
        self.tcp(Side::Client, number, 1000, Segment::syn, &[])?;
        self.tcp(Side::Server, number, 5000, |segment| segment.syn().ack(1001), &[])?;
        self.tcp(Side::Client, number, 1001, |segment| segment.ack(5001), &[])
    }

    /// One segment of a connection.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn tcp(
        &mut self,
        side: Side,
        number: u32,
        sequence: u32,
        flags: impl FnOnce(Segment) -> Segment,
        payload: &[u8],
    ) -> io::Result<()> {
        let (ip, from, to) = opening(side, number, SERVICE.1, SERVER.1);
        self.frame.clear();
        flags(ip.tcp(from, to, sequence, 64240)).write(&mut self.frame, payload).map_err(wrong)?;
        self.send(side)
    }

    /// One datagram to (or from) the service at these ports: that of the address that clients know, and the server's.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn udp(&mut self, side: Side, number: u32, service: u16, server: u16) -> io::Result<()> {
        let (ip, from, to) = opening(side, number, service, server);
        self.frame.clear();
        ip.udp(from, to).write(&mut self.frame, b"?").map_err(wrong)?;
        self.send(side)
    }

    fn send(&self, side: Side) -> io::Result<()> {
        match side {
            Side::Client => self.front.send(&self.frame),
            Side::Server => self.back.send(&self.frame),
        }
    }
}

/// Ethernet and IP of a packet, and its ports.
fn opening(side: Side, number: u32, service: u16, server: u16) -> (PacketBuilderStep<IpHeaders>, u16, u16) {
    let (address, port) = client(number);
    let packet = |mac: ([u8; 6], [u8; 6]), from: Ipv4Addr, to: Ipv4Addr| {
        PacketBuilder::ethernet2(mac.0, mac.1).ipv4(from.octets(), to.octets(), 64)
    };
    match side {
        Side::Client => (packet(FRONT, address, SERVICE.0), port, service),
        Side::Server => (packet(BACK, SERVER.0, address), server, port),
    }
}

fn wrong(error: BuildWriteError) -> io::Error {
    io::Error::other(format!("a packet that cannot be: {error}"))
}
