//! The servers behind the pair: a process that sends back what it gets, over TCP and over UDP.
//!
//! One thread, one epoll, level-triggered. A connection whose client does not read is not read either, so that at most
//! one buffer of unsent echo is kept for each. Descriptors are the bound on connections; without a free one the process
//! says so and ends, because an echo that is silently missing would be blamed on the pair. One that serves UDP alone is half of
//! the probe, and runs in real time as it does.

use super::part::{self, Answer, Parent, Part, play, raise_descriptor_limit};
use crate::sys::namespace::Namespace;
use crate::sys::poll::wait;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

/// Connections that may wait to be accepted; the kernel cuts it to net.core.somaxconn.
const BACKLOG: i32 = 4096;
/// Events taken per turn.
const EVENTS_MAX: usize = 1024;
/// Datagrams echoed, or connections accepted, on one socket before the others get their turn.
const TURN_MAX: usize = 256;
/// Most bytes taken from a connection at once, and so the most that is kept for it.
const ECHO_MAX: usize = 64 << 10;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerPlan {
    /// TCP: each connection gets its own bytes back.
    pub listen: Vec<SocketAddr>,
    /// UDP: each datagram is returned to its sender.
    pub udp: Vec<SocketAddr>,
}

/// A server in a process of its own, killed when dropped.
#[derive(Debug)]
pub struct Server(#[allow(dead_code, reason = "held for its Drop")] Part);

impl Server {
    /// Starts one inside `namespace` and waits until it listens. Call it from a thread that lasts as long as the
    /// server.
    ///
    /// # Errors
    /// The operating system's error, also that of the child (an address that is not there or in use).
    pub fn spawn(namespace: &Namespace, plan: &ServerPlan) -> io::Result<Server> {
        Self::spawn_from(&std::env::current_exe()?, namespace, plan)
    }

    /// The same from another executable than the running one, which must be `ssyncp`.
    ///
    /// # Errors
    /// As [`Server::spawn`].
    pub fn spawn_from(executable: &Path, namespace: &Namespace, plan: &ServerPlan) -> io::Result<Server> {
        Ok(Server(Part::start(executable, namespace, "server", plan)?))
    }
}

/// Plays the server in this process until the parent is gone.
pub(super) fn run(instructions: &str) -> ExitCode {
    play(instructions, |plan: ServerPlan, parent| {
        raise_descriptor_limit()?;
        if plan.listen.is_empty() {
            part::measure_in_time();
        }
        let mut echo = Echo::open(&plan)?;
        parent.answer(&Answer::Ready)?;
        echo.serve(parent)
    })
}

/// What a descriptor in the epoll is, at its token's index.
enum Place {
    Listener(TcpListener),
    Datagrams(UdpSocket),
    Connection(Connection),
    Free,
}

struct Connection {
    stream: TcpStream,
    /// Echo that the kernel would not take yet.
    unsent: Vec<u8>,
}

/// All sockets of the server.
struct Echo {
    epoll: Epoll,
    places: Vec<Place>,
    free: Vec<usize>,
    buffer: Vec<u8>,
}

impl Echo {
    fn open(plan: &ServerPlan) -> io::Result<Echo> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut echo = Echo { epoll, places: Vec::new(), free: Vec::new(), buffer: vec![0; ECHO_MAX] };
        for address in &plan.listen {
            let listener = listen(*address).map_err(|error| named(&error, "listen on TCP", *address))?;
            echo.add(Place::Listener(listener))?;
        }
        for address in &plan.udp {
            let socket = UdpSocket::bind(*address).map_err(|error| named(&error, "bind to UDP", *address))?;
            socket.set_nonblocking(true)?;
            echo.add(Place::Datagrams(socket))?;
        }
        Ok(echo)
    }

    fn serve(&mut self, parent: &mut Parent) -> io::Result<()> {
        let mut events = vec![EpollEvent::empty(); EVENTS_MAX];
        loop {
            wait(&[self.epoll.0.as_fd(), parent.as_fd()], None)?;
            // No order is meant for a server; the end of the input is what is looked for.
            while parent.order()?.is_some() {}
            let count = self.epoll.wait(&mut events, EpollTimeout::ZERO)?;
            // A place that is freed here is used again in the next turn at the earliest: its events may be in this one.
            let mut freed = Vec::new();
            for event in &events[..count] {
                let index = event.data() as usize;
                if self.turn(index)? {
                    self.places[index] = Place::Free;
                    freed.push(index);
                }
            }
            self.free.append(&mut freed);
        }
    }

    /// Does what there is to do at one place; true when it is over with it.
    fn turn(&mut self, index: usize) -> io::Result<bool> {
        match &mut self.places[index] {
            Place::Listener(_) => self.accept(index).map(|()| false),
            Place::Datagrams(socket) => {
                for _ in 0..TURN_MAX {
                    let Ok((length, sender)) = socket.recv_from(&mut self.buffer) else { break };
                    // A datagram that cannot be returned is a lost one, and the probe will see it.
                    let _ = socket.send_to(&self.buffer[..length], sender);
                }
                Ok(false)
            }
            Place::Connection(connection) => {
                let waited = !connection.unsent.is_empty();
                let over = connection.echo(&mut self.buffer).is_err();
                let waits = !connection.unsent.is_empty();
                if !over && waited != waits {
                    let interest = if waits { EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
                    self.epoll.modify(&connection.stream, &mut EpollEvent::new(interest, index as u64))?;
                }
                Ok(over)
            }
            Place::Free => Ok(false),
        }
    }

    fn accept(&mut self, index: usize) -> io::Result<()> {
        for _ in 0..TURN_MAX {
            let Place::Listener(listener) = &self.places[index] else { return Ok(()) };
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            self.add(Place::Connection(Connection { stream, unsent: Vec::new() }))?;
        }
        Ok(())
    }

    fn add(&mut self, place: Place) -> io::Result<()> {
        let index = self.free.pop().unwrap_or(self.places.len());
        let event = EpollEvent::new(EpollFlags::EPOLLIN, index as u64);
        match &place {
            Place::Listener(socket) => self.epoll.add(socket, event)?,
            Place::Datagrams(socket) => self.epoll.add(socket, event)?,
            Place::Connection(connection) => self.epoll.add(&connection.stream, event)?,
            Place::Free => {}
        }
        if index == self.places.len() {
            self.places.push(place);
        } else {
            self.places[index] = place;
        }
        Ok(())
    }
}

impl Connection {
    /// Sends what is left over, else takes one buffer and sends it; an error means that the connection is over.
    fn echo(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        if !self.unsent.is_empty() {
            let sent = written(self.stream.write(&self.unsent))?;
            self.unsent.drain(..sent);
            return Ok(());
        }
        let length = match self.stream.read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let sent = written(self.stream.write(&buffer[..length]))?;
        self.unsent.extend_from_slice(&buffer[sent..length]);
        Ok(())
    }
}

/// A full socket buffer has taken nothing, which is no error.
fn written(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn named(error: &io::Error, action: &str, address: SocketAddr) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {action} {address}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_peer_does_not_take_is_kept_and_sent_in_order() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        client.set_nonblocking(true).unwrap();
        let mut connection = Connection { stream, unsent: Vec::new() };
        let mut buffer = vec![0; ECHO_MAX];

        // The client writes and does not read, until its own side and the echo are both full.
        let pattern: Vec<u8> = (0..=250).cycle().take(251 * 64).collect();
        let mut sent = 0;
        while connection.unsent.is_empty() {
            while let Ok(length) = client.write(&pattern[sent % 251..]) {
                sent += length;
            }
            connection.echo(&mut buffer).unwrap();
        }
        let (mut received, mut chunk) = (0, vec![0; 1 << 20]);
        while received < sent {
            connection.echo(&mut buffer).unwrap();
            assert!(connection.unsent.len() <= ECHO_MAX);
            if let Ok(length) = client.read(&mut chunk) {
                for (offset, byte) in chunk[..length].iter().enumerate() {
                    assert_eq!(usize::from(*byte), (received + offset) % 251);
                }
                received += length;
            }
        }
        assert_eq!(received, sent);
    }
}
