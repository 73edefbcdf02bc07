//! The packets: TCP handshakes that the router forwards, at a rate or as fast as it forwards them.
//!
//! ```text
//!   street   front ── SYN ──▶ router ──▶ back        one entry, three events: new, answered, assured
//!            front ◀── router ◀── SYN+ACK ── back
//!            front ── ACK ──▶ router ──▶ back
//! ```

use etherparse::PacketBuilder;
use ssyncp::sys::namespace::Namespace;
use ssyncp::sys::socket::{PacketSocket, interface};
use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Hardware addresses: (street, router) of front and back.
const FRONT: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 1, 2], [2, 0, 0, 0, 1, 1]);
const BACK: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 2, 2], [2, 0, 0, 0, 2, 1]);
/// The server, and its port.
pub const SERVER: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 33, 0, 7), 80);
/// Time between two bursts at a rate.
const TICK: Duration = Duration::from_millis(1);

/// Client address and port of a connection: 4096 ports of each address of 10.16.0.0/12.
pub fn client(number: u32) -> (Ipv4Addr, u16) {
    (Ipv4Addr::from(0x0a10_0000 + (number >> 12)), 2000 + (number & 0xfff) as u16)
}

/// Both ends of all connections.
#[derive(Debug)]
pub struct Generator {
    front: PacketSocket,
    back: PacketSocket,
    frame: Vec<u8>,
}

impl Generator {
    /// Opens the ends.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn open(street: &Namespace) -> io::Result<Self> {
        // Ethertype 0: they send and receive nothing, so no queue fills that nobody reads.
        let open = |name| PacketSocket::open(interface(name)?.index, 0);
        street.run(|| Ok(Generator { front: open("front")?, back: open("back")?, frame: Vec::with_capacity(64) }))
    }

    /// Makes `count` connections from number `first` on, `rate` a second, or flat out with 0, until `stop` is set. Says how
    /// many were made a second.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn run(&mut self, first: u32, count: u32, rate: u32, stop: &AtomicBool) -> io::Result<f64> {
        let (start, mut made) = (Instant::now(), 0);
        while made < count && !stop.load(Ordering::Relaxed) {
            let due = match rate {
                0 => made + 64,
                rate => (start.elapsed().as_secs_f64() * f64::from(rate)) as u32,
            };
            let end = due.clamp(made, count);
            for number in made..end {
                self.connect(first + number)?;
            }
            made = end;
            if rate > 0 {
                std::thread::sleep(TICK);
            }
        }
        Ok(f64::from(made) / start.elapsed().as_secs_f64())
    }

    /// A handshake of TCP (RFC 9293, 3.5), through the router.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn connect(&mut self, number: u32) -> io::Result<()> {
        self.begin(number)?;
        let (address, port) = client(number);
        let answer = opening(BACK, SERVER.0, address).tcp(SERVER.1, port, 5000, 64240).syn().ack(1001);
        self.frame.clear();
        answer.write(&mut self.frame, &[]).map_err(wrong)?;
        self.back.send(&self.frame)?;
        let ack = opening(FRONT, address, SERVER.0).tcp(port, SERVER.1, 1001, 64240).ack(5001);
        self.frame.clear();
        ack.write(&mut self.frame, &[]).map_err(wrong)?;
        self.front.send(&self.frame)
    }

    /// Its first packet alone: one event.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn begin(&mut self, number: u32) -> io::Result<()> {
        let (address, port) = client(number);
        let syn = opening(FRONT, address, SERVER.0).tcp(port, SERVER.1, 1000, 64240).syn();
        self.frame.clear();
        syn.write(&mut self.frame, &[]).map_err(wrong)?;
        self.front.send(&self.frame)
    }
}

fn opening(
    mac: ([u8; 6], [u8; 6]),
    from: Ipv4Addr,
    to: Ipv4Addr,
) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    PacketBuilder::ethernet2(mac.0, mac.1).ipv4(from.octets(), to.octets(), 64)
}

fn wrong(error: etherparse::err::packet::BuildWriteError) -> io::Error {
    io::Error::other(format!("a packet that cannot be: {error}"))
}
