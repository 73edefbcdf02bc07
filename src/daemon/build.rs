//! Which implementation stands behind each word of the configuration. The only file of the daemon that names concrete
//! transports, sources and sinks; everything else knows them by their traits.

use crate::bridge::conntrack::{self, ConntrackSink, ConntrackSource, SinkOptions, SourceOptions};
use crate::bridge::synthetic::{MapSink, SyntheticOptions, SyntheticSource};
use crate::bridge::{Sink, Source};
use crate::daemon::announce::Announce;
use crate::daemon::link::{AlwaysUp, Line};
use crate::daemon::settings::{Group, SourceKind, TransportKind};
use crate::sys::socket::PacketSocket;
use crate::transport::{Limits, MemoryHub, RawOptions, RawTransport, Transport, TransportCounters, TransportError};
use crate::wire::FrameMeta;
use std::io;
use std::os::fd::BorrowedFd;

/// Why a transport, a source or a sink could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// An interface is not there (yet).
    #[error("there is no interface {name}")]
    NoInterface {
        /// Which.
        name: String,
    },
    /// The sync links cannot be used.
    #[error(transparent)]
    Line(TransportError),
    /// The kernel's connection table cannot be reached.
    #[error(transparent)]
    Conntrack(#[from] conntrack::OpenError),
    /// The operating system refused.
    #[error("{what}: {error}")]
    Refused {
        /// What was opened.
        what: &'static str,
        /// Its answer.
        #[source]
        error: io::Error,
    },
}

impl From<TransportError> for OpenError {
    fn from(error: TransportError) -> Self {
        match error {
            TransportError::NoInterface { name } => OpenError::NoInterface { name },
            other => OpenError::Line(other),
        }
    }
}

/// Opens the group's sync links.
///
/// # Errors
/// [`OpenError`].
pub fn line(group: &Group) -> Result<Box<dyn Line>, OpenError> {
    match group.transport {
        TransportKind::Raw => {
            let options = RawOptions {
                interfaces: group.interfaces.clone(),
                group: group.group,
                frame_len: group.frame_len,
                ..RawOptions::default()
            };
            Ok(Box::new(RawLine(RawTransport::open(&options)?)))
        }
        TransportKind::Memory => Ok(Box::new(AlwaysUp(MemoryHub::new().port()))),
    }
}

/// Raw sockets, whose interfaces can go and come.
struct RawLine(RawTransport);

impl Transport for RawLine {
    fn limits(&self) -> Limits {
        self.0.limits()
    }

    fn receive(&mut self, deliver: &mut dyn FnMut(FrameMeta, &mut [u8])) -> io::Result<usize> {
        self.0.receive(deliver)
    }

    fn transmit(&mut self, fill: &mut dyn FnMut(&mut [u8]) -> Option<usize>) -> io::Result<usize> {
        self.0.transmit(fill)
    }

    fn pending(&self) -> usize {
        self.0.pending()
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        self.0.readiness()
    }

    fn counters(&self) -> TransportCounters {
        self.0.counters()
    }
}

impl Line for RawLine {
    fn is_up(&self) -> bool {
        self.0.link_is_up()
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.0.reopen().map_err(io::Error::other)
    }
}

/// Where flows come from and where they go to.
#[allow(missing_debug_implementations, reason = "sources and sinks need not be printable")]
pub struct Bridge {
    /// Where flows come from.
    pub source: Option<Box<dyn Source>>,
    /// Where they go to.
    pub sink: Option<Box<dyn Sink>>,
}

/// Opens the group's source and sink. The sink comes first, because the source must not take the sink's own writes for
/// the kernel's.
///
/// # Errors
/// [`OpenError`].
pub fn bridge(group: &Group) -> Result<Bridge, OpenError> {
    match group.source {
        SourceKind::Conntrack => {
            let sink = ConntrackSink::open(&SinkOptions::default())?;
            let own = sink.port_id().map_err(|error| OpenError::Refused { what: "the sink's netlink port", error })?;
            let source =
                ConntrackSource::open(&SourceOptions { ignore_port_ids: vec![own], ..SourceOptions::default() })?;
            Ok(Bridge { source: Some(Box::new(source)), sink: Some(Box::new(sink)) })
        }
        SourceKind::Synthetic => {
            let source = SyntheticSource::new(&SyntheticOptions::default());
            let source = source.map_err(|error| OpenError::Refused { what: "the synthetic source", error })?;
            Ok(Bridge { source: Some(Box::new(source)), sink: Some(Box::new(MapSink::new())) })
        }
    }
}

/// A way to send Ethernet frames on the interface with an index.
///
/// # Errors
/// The operating system's error.
pub fn announcer(index: u32) -> io::Result<Box<dyn Announce>> {
    struct SendOnly(PacketSocket);
    impl Announce for SendOnly {
        fn send(&mut self, frame: &[u8]) -> io::Result<()> {
            self.0.send(frame)
        }
    }
    Ok(Box::new(SendOnly(PacketSocket::open(index, 0)?)))
}
