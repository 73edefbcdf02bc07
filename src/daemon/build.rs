//! Which implementation stands behind each word of the configuration. The only file of the daemon that names concrete
//! transports, sources and sinks; everything else knows them by their traits.

use crate::bridge::{Sink, Source};
use crate::daemon::announce::Announce;
use crate::daemon::link::Line;
use crate::daemon::settings::{Group, SourceKind, TransportKind};
use std::io;

/// Why a transport, a source or a sink could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// An interface is not there (yet).
    #[error("there is no interface {name}")]
    NoInterface {
        /// Which.
        name: String,
    },
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

impl OpenError {
    fn refused(what: &'static str, error: io::Error) -> Self {
        OpenError::Refused { what, error }
    }
}

/// Opens the group's sync links.
///
/// # Errors
/// [`OpenError`].
pub fn line(group: &Group) -> Result<Box<dyn Line>, OpenError> {
    let not_here = || io::Error::from(io::ErrorKind::Unsupported);
    match group.transport {
        TransportKind::Raw => Err(OpenError::refused("raw sockets", not_here())),
        TransportKind::Memory => Err(OpenError::refused("memory", not_here())),
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
            Err(OpenError::refused("the kernel's connection tracking", io::ErrorKind::Unsupported.into()))
        }
        SourceKind::Synthetic => Ok(Bridge { source: None, sink: None }),
    }
}

/// A way to send Ethernet frames on the interface with an index.
///
/// # Errors
/// The operating system's error.
pub fn announcer(index: u32) -> io::Result<Box<dyn Announce>> {
    use pnet::datalink::{self, Channel};
    struct Datalink(Box<dyn datalink::DataLinkSender>);
    impl Announce for Datalink {
        fn send(&mut self, frame: &[u8]) -> io::Result<()> {
            self.0.send_to(frame, None).unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into()))
        }
    }
    let interface = datalink::interfaces().into_iter().find(|interface| interface.index == index);
    let interface = interface.ok_or(io::ErrorKind::NotFound)?;
    match datalink::channel(&interface, datalink::Config::default())? {
        Channel::Ethernet(sender, _) => Ok(Box::new(Datalink(sender))),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}
