//! SCTP through the pair: associations that are opened and kept alive by hand, because few kernels have an SCTP of their own
//! and conntrack does not need one.
//!
//! ```text
//!   client                        pair (NAT)                     server
//!     │ INIT tag c ────────────────────────────────────────────────▶│
//!     │◀──────────────────────────── INIT ACK tag s, state cookie   │
//!     │ COOKIE ECHO ───────────────────────────────────────────────▶│
//!     │◀──────────────────────────────────────────────── COOKIE ACK │     conntrack: ESTABLISHED, both tags kept
//!     │ DATA number ──────── every 100 ms ─────────────────────────▶│     dropped by conntrack if there is no entry, or
//!     │◀─────────────────────────────────────────────── DATA number │     if a tag is wrong
//! ```
//!
//! Chunks are those of RFC 9260 section 3.3, of which the smallest part that conntrack looks at is spoken. The server keeps
//! nothing: whatever arrives says what is to be answered.

use super::part::{Answer, Order, Parent, Part, play};
use crate::sys::clock;
use crate::sys::namespace::Namespace;
use crate::sys::poll::wait;
use crate::time::{Duration, Instant};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

/// Most associations of one client.
pub const ASSOCIATIONS_MAX: u16 = 1024;
/// Time between two packets of an association.
const INTERVAL: Duration = Duration::from_millis(100);
/// Numbers that may be under way in an association that is answered.
const ALIVE: u64 = 3;
/// First source port of the associations.
const FIRST_PORT: u16 = 30_000;
/// Longest packet that is read, with its IP header.
const PACKET_MAX: usize = 512;
/// Packets taken from a socket before the others get their turn.
const TURN_MAX: usize = 256;
/// The tag that the server chooses, for every association.
const SERVER_TAG: u32 = 0x5353_594e;

/// What stands before the payload of a DATA chunk: TSN, stream, number in it, protocol; all zero here.
const DATA_HEAD_LEN: usize = 12;

/// Chunk types of RFC 9260 section 3.2.
mod chunk {
    pub(super) const DATA: u8 = 0;
    pub(super) const INIT: u8 = 1;
    pub(super) const INIT_ACK: u8 = 2;
    pub(super) const COOKIE_ECHO: u8 = 10;
    pub(super) const COOKIE_ACK: u8 = 11;
}

/// What one side does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SctpPlan {
    /// Answers on these addresses, whatever the port.
    Server(Vec<Ipv4Addr>),
    /// Opens associations, which take turns among the targets.
    Client {
        /// Services.
        targets: Vec<SocketAddrV4>,
        /// Number of associations, at most [`ASSOCIATIONS_MAX`].
        associations: u16,
    },
}

/// What became of the associations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SctpVerdict {
    /// All of them.
    pub associations: u32,
    /// Those that are answered now.
    pub alive: u32,
}

/// One side in a process of its own, killed when dropped.
#[derive(Debug)]
pub struct Sctp(Part);

impl Sctp {
    /// Starts it inside `namespace`. Call it from a thread that lasts as long.
    ///
    /// # Errors
    /// The operating system's error; `InvalidInput` in words for a plan that cannot be carried out.
    pub fn spawn(namespace: &Namespace, plan: &SctpPlan) -> io::Result<Sctp> {
        Self::spawn_from(&std::env::current_exe()?, namespace, plan)
    }

    /// The same from another executable than the running one, which must be `ssyncp`.
    ///
    /// # Errors
    /// As [`Sctp::spawn`].
    pub fn spawn_from(executable: &Path, namespace: &Namespace, plan: &SctpPlan) -> io::Result<Sctp> {
        Ok(Sctp(Part::start(executable, namespace, "sctp", plan)?))
    }

    /// Forgets what was answered so far: from now on only an association whose newer data comes back is alive.
    ///
    /// # Errors
    /// The operating system's error, or that of the child.
    pub fn start_window(&mut self) -> io::Result<()> {
        self.0.tell(&Order::StartWindow)
    }

    /// Opens a client's associations anew, those that live among them.
    ///
    /// # Errors
    /// The operating system's error, or that of the child.
    pub fn restart(&mut self) -> io::Result<()> {
        self.0.tell(&Order::Restart)
    }

    /// What becomes of a client's associations.
    ///
    /// # Errors
    /// The operating system's error, or that of the child.
    pub fn verdict(&mut self) -> io::Result<SctpVerdict> {
        match self.0.ask(&Order::EndWindow, Duration::ZERO)? {
            Answer::Associations(verdict) => Ok(verdict),
            other => Err(self.0.unexpected(&other)),
        }
    }
}

/// Plays one side in this process until the parent is gone.
pub(super) fn run(instructions: &str) -> ExitCode {
    play(instructions, |plan: SctpPlan, parent| match plan {
        SctpPlan::Server(addresses) => serve(&addresses, parent),
        SctpPlan::Client { targets, associations } => Associations::open(targets, associations)?.live(parent),
    })
}

/// A socket of the whole protocol; where the kernel has no SCTP itself, nobody else answers.
fn raw_socket(address: Ipv4Addr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::RAW.nonblocking(), Some(Protocol::from(libc::IPPROTO_SCTP)))?;
    socket.bind(&SockAddr::from(SocketAddrV4::new(address, 0)))?;
    Ok(socket)
}

fn serve(addresses: &[Ipv4Addr], parent: &mut Parent) -> io::Result<()> {
    let mut sockets = addresses.iter().map(|address| raw_socket(*address)).collect::<io::Result<Vec<_>>>()?;
    parent.answer(&Answer::Ready)?;
    loop {
        let readable: Vec<_> = sockets.iter().map(AsFd::as_fd).chain([parent.as_fd()]).collect();
        wait(&readable, None)?;
        while parent.order()?.is_some() {}
        for socket in &mut sockets {
            for _ in 0..TURN_MAX {
                let mut bytes = [0; PACKET_MAX];
                let Ok(length) = socket.read(&mut bytes) else { break };
                let Some(packet) = Packet::parse(&bytes[..length]) else { continue };
                if let Some(answer) = packet.answer() {
                    let to = SockAddr::from(SocketAddrV4::new(packet.from, 0));
                    // A full buffer loses the answer, as a network would.
                    let _ = socket.send_to(&answer, &to);
                }
            }
        }
    }
}

/// One packet with one chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Packet<'a> {
    from: Ipv4Addr,
    source_port: u16,
    destination_port: u16,
    tag: u32,
    chunk: u8,
    value: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads an IPv4 packet; `None` unless it is whole and its checksum is right.
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header = usize::from(bytes.first()? & 0x0f) * 4;
        let from = Ipv4Addr::from(*bytes.get(12..16)?.first_chunk::<4>()?);
        let sctp = bytes.get(header..)?;
        let (head, body) = sctp.split_first_chunk::<12>()?;
        let sum = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
        let mut plain = sctp.to_vec();
        plain[8..12].fill(0);
        let &[chunk, _, l0, l1, ..] = body else { return None };
        let value = body.get(4..usize::from(u16::from_be_bytes([l0, l1])))?;
        (crc32c(&plain) == sum).then_some(Packet {
            from,
            source_port: u16::from_be_bytes([head[0], head[1]]),
            destination_port: u16::from_be_bytes([head[2], head[3]]),
            tag: u32::from_be_bytes([head[4], head[5], head[6], head[7]]),
            chunk,
            value,
        })
    }

    /// What a server says to it. The cookie is the client's tag: all that is to be remembered.
    fn answer(&self) -> Option<Vec<u8>> {
        let to = (self.destination_port, self.source_port);
        match self.chunk {
            chunk::INIT => {
                let tag = self.value.first_chunk::<4>()?;
                let cookie = [&[0, 7, 0, 8], &tag[..]].concat();
                let value = [&init_value(SERVER_TAG)[..], &cookie].concat();
                Some(packet(to, u32::from_be_bytes(*tag), chunk::INIT_ACK, &value))
            }
            _ if self.tag != SERVER_TAG => None,
            chunk::COOKIE_ECHO => {
                Some(packet(to, u32::from_be_bytes(*self.value.first_chunk()?), chunk::COOKIE_ACK, &[]))
            }
            // The same bytes back; the client's tag is among them.
            chunk::DATA => {
                let tag = u32::from_be_bytes(*self.value.get(DATA_HEAD_LEN..)?.first_chunk()?);
                Some(packet(to, tag, chunk::DATA, self.value))
            }
            _ => None,
        }
    }
}

/// The value of INIT and INIT ACK: tag, window, streams out and in, first TSN.
fn init_value(tag: u32) -> [u8; 16] {
    let mut value = [0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1];
    value[..4].copy_from_slice(&tag.to_be_bytes());
    value
}

/// A packet with one chunk, from one port to another.
fn packet(ports: (u16, u16), tag: u32, kind: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16 + value.len());
    bytes.extend_from_slice(&ports.0.to_be_bytes());
    bytes.extend_from_slice(&ports.1.to_be_bytes());
    bytes.extend_from_slice(&tag.to_be_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&[kind, 0]);
    bytes.extend_from_slice(&(4 + value.len() as u16).to_be_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let sum = crc32c(&bytes);
    bytes[8..12].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// CRC-32C (RFC 9260 appendix A), bit by bit: a few thousand small packets are not worth a table.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 })
    })
}

/// How far an association is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Opening,
    /// Waits for the COOKIE ACK.
    Echoing {
        server_tag: u32,
    },
    Established {
        server_tag: u32,
        /// The first number of the window.
        first: u64,
        next: u64,
        /// The number after the newest one that came back.
        answered: u64,
    },
}

#[derive(Debug)]
struct Association {
    target: SocketAddrV4,
    port: u16,
    tag: u32,
    state: State,
}

impl Association {
    fn new(target: SocketAddrV4, port: u16) -> Self {
        Association { target, port, tag: clock::random_u64() as u32 | 1, state: State::Opening }
    }

    /// The packet that is due now.
    fn speak(&mut self) -> Vec<u8> {
        let ports = (self.port, self.target.port());
        match &mut self.state {
            State::Opening => packet(ports, 0, chunk::INIT, &init_value(self.tag)),
            State::Echoing { server_tag } => packet(ports, *server_tag, chunk::COOKIE_ECHO, &self.tag.to_be_bytes()),
            State::Established { server_tag, next, .. } => {
                let mut value = vec![0; DATA_HEAD_LEN];
                value.extend_from_slice(&self.tag.to_be_bytes());
                value.extend_from_slice(&next.to_be_bytes());
                *next += 1;
                packet(ports, *server_tag, chunk::DATA, &value)
            }
        }
    }

    /// Takes an answer; whether there is something to say to it at once.
    fn hear(&mut self, packet: &Packet<'_>) -> bool {
        if packet.tag != self.tag {
            return false;
        }
        let number = |at: usize| packet.value.get(at..).and_then(|bytes| bytes.first_chunk::<4>()).copied();
        match (&mut self.state, packet.chunk) {
            (State::Opening, chunk::INIT_ACK) => {
                let Some(tag) = number(0) else { return false };
                self.state = State::Echoing { server_tag: u32::from_be_bytes(tag) };
                true
            }
            (State::Echoing { server_tag }, chunk::COOKIE_ACK) => {
                self.state = State::Established { server_tag: *server_tag, first: 0, next: 0, answered: 0 };
                true
            }
            (State::Established { next, answered, .. }, chunk::DATA) => {
                let heard = packet.value.get(DATA_HEAD_LEN + 4..).and_then(|bytes| bytes.first_chunk::<8>()).copied();
                let heard = heard.map_or(0, |bytes| u64::from_be_bytes(bytes).saturating_add(1));
                if heard <= *next {
                    *answered = heard.max(*answered);
                }
                false
            }
            _ => false,
        }
    }

    fn start_window(&mut self) {
        if let State::Established { first, next, .. } = &mut self.state {
            *first = *next;
        }
    }

    /// Whether data of the window comes back at present.
    fn is_alive(&self) -> bool {
        matches!(self.state, State::Established { first, next, answered, .. }
            if answered > first && next - answered <= ALIVE)
    }
}

/// A client's side.
struct Associations {
    socket: Socket,
    all: Vec<Association>,
    next: Instant,
}

impl Associations {
    fn open(targets: Vec<SocketAddrV4>, associations: u16) -> io::Result<Self> {
        if targets.is_empty() || associations == 0 || associations > ASSOCIATIONS_MAX {
            let reason = format!("SCTP needs a target and 1 to {ASSOCIATIONS_MAX} associations");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        let association = |(number, target): (u16, &SocketAddrV4)| Association::new(*target, FIRST_PORT + number);
        let all = (0..associations).zip(targets.iter().cycle()).map(association).collect();
        Ok(Associations { socket: raw_socket(Ipv4Addr::UNSPECIFIED)?, all, next: clock::now() })
    }

    fn live(&mut self, parent: &mut Parent) -> io::Result<()> {
        parent.answer(&Answer::Ready)?;
        loop {
            wait(&[self.socket.as_fd(), parent.as_fd()], Some(self.next - clock::now()))?;
            if clock::now() >= self.next {
                self.next = clock::now() + INTERVAL;
                (0..self.all.len()).for_each(|number| self.send(number));
            }
            self.receive();
            while let Some(order) = parent.order()? {
                self.receive();
                parent.answer(&self.obey(&order))?;
            }
        }
    }

    fn obey(&mut self, order: &Order) -> Answer {
        match order {
            Order::StartWindow => self.all.iter_mut().for_each(Association::start_window),
            Order::Restart => self.all.iter_mut().for_each(|one| *one = Association::new(one.target, one.port)),
            Order::EndWindow => {
                return Answer::Associations(SctpVerdict {
                    associations: self.all.len() as u32,
                    alive: self.all.iter().filter(|one| one.is_alive()).count() as u32,
                });
            }
            _ => return Answer::Failed("an order for another part".into()),
        }
        Answer::Done
    }

    fn send(&mut self, number: usize) {
        let association = &mut self.all[number];
        let bytes = association.speak();
        // The port of a raw socket's destination must be zero. What the kernel refuses is missing, and shows.
        let _ = self.socket.send_to(&bytes, &SockAddr::from(SocketAddrV4::new(*association.target.ip(), 0)));
    }

    fn receive(&mut self) {
        for _ in 0..TURN_MAX {
            let mut bytes = [0; PACKET_MAX];
            let Ok(length) = self.socket.read(&mut bytes) else { break };
            let Some(packet) = Packet::parse(&bytes[..length]) else { continue };
            let number = usize::from(packet.destination_port.wrapping_sub(FIRST_PORT));
            let Some(association) = self.all.get_mut(number) else { continue };
            if packet.from == *association.target.ip() && association.hear(&packet) {
                self.send(number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of CRC-32C, "123456789".
    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    fn with_header(sctp: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 132, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        bytes.extend_from_slice(sctp);
        bytes
    }

    #[test]
    fn an_association_is_opened_in_two_round_trips_and_lives_while_it_is_answered() {
        let target = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 8001);
        let mut one = Association { target, port: 30_000, tag: 7, state: State::Opening };
        for expected in [true, true, false] {
            assert!(!one.is_alive());
            let said = with_header(&one.speak());
            let answer = Packet::parse(&said).and_then(|packet| packet.answer()).expect("an answer");
            let answer = with_header(&answer);
            let heard = Packet::parse(&answer).expect("whole");
            assert_eq!((heard.source_port, heard.destination_port, heard.tag), (8001, 30_000, 7));
            assert_eq!(one.hear(&heard), expected);
        }
        assert!(one.is_alive());
        one.start_window();
        assert!(!one.is_alive(), "nothing of the new window has come back");
        let said = with_header(&one.speak());
        let answer = with_header(&Packet::parse(&said).and_then(|packet| packet.answer()).expect("an answer"));
        one.hear(&Packet::parse(&answer).expect("whole"));
        assert!(one.is_alive());
        (0..3).for_each(|_| drop(one.speak()));
        assert!(one.is_alive());
        one.speak();
        assert!(!one.is_alive(), "four are unanswered");
    }

    #[test]
    fn a_damaged_packet_or_a_wrong_tag_is_not_heard() {
        let mut said = with_header(&packet((1, 2), SERVER_TAG, chunk::COOKIE_ECHO, &[0, 0, 0, 7]));
        assert!(Packet::parse(&said).and_then(|packet| packet.answer()).is_some());
        said[38] ^= 1;
        assert_eq!(Packet::parse(&said), None);
        let stranger = with_header(&packet((1, 2), SERVER_TAG ^ 1, chunk::COOKIE_ECHO, &[0, 0, 0, 7]));
        assert_eq!(Packet::parse(&stranger).and_then(|packet| packet.answer()), None);
        assert_eq!(Packet::parse(&said[..30]), None);
    }
}
