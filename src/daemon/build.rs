//! Which implementation stands behind each word of the configuration. The only file of the daemon that names concrete
//! transports, sources and sinks; everything else knows them by their traits.

use crate::bridge::conntrack::{self, ConntrackInspector, ConntrackSink, ConntrackSource, SinkOptions, SourceOptions};
use crate::bridge::synthetic::{MapSink, SyntheticOptions, SyntheticSource};
use crate::bridge::{Inspector, Sink, Source};
use crate::daemon::announce::Announce;
use crate::daemon::link::{AlwaysUp, Line};
use crate::daemon::sandbox;
use crate::daemon::settings::{Group, SourceKind, TransportKind};
use crate::sys::socket::{self, PacketSocket};
use crate::transport::memory::MemoryHub;
use crate::transport::packet::PacketPort;
use crate::transport::pcap::{Tap, TapOptions};
use crate::transport::raw::RawPort;
use crate::transport::xdp::XdpPort;
use crate::transport::{LinkStatus, Port, RawOptions, TransportError, Wired};
use std::io;
use std::net::Ipv4Addr;

/// Why a transport, a source or a sink could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// An interface is not there (yet).
    #[error("there is no interface {name}")]
    NoInterface {
        /// Which.
        name: String,
    },
    /// The sync links cannot be opened.
    #[error("transport: {0}")]
    Transport(#[source] TransportError),
    /// The kernel's connection table cannot be used.
    #[error("source: {0}")]
    Conntrack(#[from] conntrack::OpenError),
    /// No thread for the tap.
    #[error("tap: {0}")]
    Tap(#[source] io::Error),
    /// The operating system refused.
    #[error("source: {0}")]
    Io(#[from] io::Error),
}

impl From<TransportError> for OpenError {
    fn from(error: TransportError) -> Self {
        match error {
            TransportError::NoInterface { name } => OpenError::NoInterface { name },
            other => OpenError::Transport(other),
        }
    }
}

/// Opens the group's sync links, on which this process hears the groups `siblings` by others.
///
/// # Errors
/// [`OpenError`].
pub fn line(group: &Group, siblings: &[u8]) -> Result<Box<dyn Line>, OpenError> {
    // Best first. What cannot be had is followed by the next.
    const WAYS: [(TransportKind, &str, OpenWired); 3] = [
        (TransportKind::Xdp, "xdp", wired::<XdpPort>),
        (TransportKind::Packet, "packet", wired::<PacketPort>),
        (TransportKind::Raw, "raw", wired::<RawPort>),
    ];
    let Some(best) = WAYS.iter().position(|(kind, ..)| *kind == group.transport) else {
        // A hub of its own: nobody else is on it.
        return tapped(AlwaysUp(MemoryHub::new().port()), group);
    };
    first_of(&WAYS[best..], group, siblings)
}

type OpenWired = fn(&Group, &[u8], Option<String>) -> Result<Box<dyn Line>, OpenError>;

/// Opens the first of these ways that can be had; the line tells why it is not the one before. If none can, the last one
/// has the word: it asks for the least.
fn first_of(
    ways: &[(TransportKind, &str, OpenWired)],
    group: &Group,
    siblings: &[u8],
) -> Result<Box<dyn Line>, OpenError> {
    let mut reasons: Option<String> = None;
    for (number, (_, word, open)) in ways.iter().enumerate() {
        match open(group, siblings, reasons.clone()) {
            Err(OpenError::Transport(error)) if error.is_of_this_transport() && number + 1 < ways.len() => {
                let before = reasons.map_or_else(String::new, |before| before + "; ");
                reasons = Some(format!("{before}{word}: {error}"));
            }
            result => return result,
        }
    }
    Err(OpenError::Io(io::Error::from(io::ErrorKind::Unsupported)))
}

fn wired<P: Port + 'static>(
    group: &Group,
    siblings: &[u8],
    instead_of: Option<String>,
) -> Result<Box<dyn Line>, OpenError> {
    let options = RawOptions {
        interfaces: group.interfaces.clone(),
        group: group.group,
        frame_len: group.frame_len,
        siblings: siblings.to_vec(),
        ..RawOptions::default()
    };
    tapped(Wired::<P>::open(&options)?.instead_of(instead_of), group)
}

/// The line, with a tap if the group wants one.
fn tapped(line: impl Line + 'static, group: &Group) -> Result<Box<dyn Line>, OpenError> {
    let Some(file) = &group.tap else { return Ok(Box::new(line)) };
    let address = group.interfaces.first().and_then(|name| socket::interface(name).ok()?.ipv4.first().copied());
    let options = TapOptions {
        file: file.clone(),
        file_len: group.tap_size,
        files: group.tap_files,
        source: address.unwrap_or(Ipv4Addr::UNSPECIFIED).into(),
        destination: group.group,
    };
    Ok(Box::new(Tap::begun_by(line, &options, sandbox::opens_no_link).map_err(OpenError::Tap)?))
}

impl<P: Port> Line for Wired<P> {
    fn is_up(&self) -> bool {
        self.link_is_up()
    }

    fn look(&mut self) {
        Wired::look(self);
    }

    fn next_change(&mut self) -> Option<LinkStatus> {
        Wired::next_change(self)
    }

    fn links(&self) -> Vec<LinkStatus> {
        Wired::links(self)
    }

    fn reopen(&mut self) -> io::Result<()> {
        Wired::reopen(self).map_err(io::Error::other)
    }
}

/// Where flows come from and where they go to.
#[allow(missing_debug_implementations, reason = "sources and sinks need not be printable")]
pub struct Bridge {
    /// Where flows come from.
    pub source: Option<Box<dyn Source>>,
    /// Where they go to.
    pub sink: Option<Box<dyn Sink>>,
    /// Who looks at what is really there.
    pub inspector: Option<Box<dyn Inspector>>,
}

/// Opens the group's source and sink. The sink comes first, because the source must not take the sink's own writes for
/// the kernel's.
///
/// # Errors
/// [`OpenError`].
pub fn bridge(group: &Group) -> Result<Bridge, OpenError> {
    match group.source {
        SourceKind::Conntrack => {
            let filter = group.flow_filter();
            let mut sink = ConntrackSink::open(&SinkOptions::default())?;
            sink.set_filter(&filter);
            let ignore_port_ids = vec![sink.port_id()?];
            let inspector = ConntrackInspector::open(filter.clone())?;
            let receive_buffer = usize::try_from(group.event_buffer).unwrap_or(usize::MAX);
            let options = SourceOptions { receive_buffer, ignore_port_ids, filter };
            let source = ConntrackSource::open(&options)?;
            Ok(Bridge {
                source: Some(Box::new(source)),
                sink: Some(Box::new(sink)),
                inspector: Some(Box::new(inspector)),
            })
        }
        SourceKind::Synthetic => {
            let source = SyntheticSource::new(&SyntheticOptions::default())?;
            Ok(Bridge { source: Some(Box::new(source)), sink: Some(Box::new(MapSink::new())), inspector: None })
        }
    }
}

impl Announce for PacketSocket {
    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        PacketSocket::send(self, frame)
    }
}

/// A way to send Ethernet frames on the interface with an index.
///
/// # Errors
/// The operating system's error.
pub fn announcer(index: u32) -> io::Result<Box<dyn Announce>> {
    // Ethertype 0: it sends and receives nothing, so no queue fills that nobody reads.
    Ok(Box::new(PacketSocket::open(index, 0)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::settings::Settings;
    use std::path::Path;

    fn unsupported(_: &Group, _: &[u8], _: Option<String>) -> Result<Box<dyn Line>, OpenError> {
        Err(TransportError::Unsupported { interface: "eth1".into(), reason: "too old".into() }.into())
    }

    fn refused(_: &Group, _: &[u8], _: Option<String>) -> Result<Box<dyn Line>, OpenError> {
        let source = io::Error::from_raw_os_error(libc::ENOMEM);
        Err(TransportError::System { op: "mmap", interface: "eth1".into(), source }.into())
    }

    fn missing(_: &Group, _: &[u8], _: Option<String>) -> Result<Box<dyn Line>, OpenError> {
        Err(TransportError::NoInterface { name: "eth1".into() }.into())
    }

    /// Tells what it was told, as an error.
    fn last(_: &Group, _: &[u8], instead_of: Option<String>) -> Result<Box<dyn Line>, OpenError> {
        Err(TransportError::Unsupported { interface: "eth1".into(), reason: format!("{instead_of:?}") }.into())
    }

    fn end_of(ways: &[(&'static str, OpenWired)]) -> String {
        let text = "[node]\nid = 1\n[[group]]\nsync_id = 1\ninterfaces = [\"eth1\"]\n";
        let settings = Settings::parse(text, Path::new("x")).unwrap();
        let ways: Vec<_> = ways.iter().map(|(word, open)| (TransportKind::Raw, *word, *open)).collect();
        first_of(&ways, &settings.groups[0], &[]).err().unwrap().to_string()
    }

    #[test]
    fn what_cannot_be_had_is_followed_by_the_next_which_is_told_why() {
        let told = end_of(&[("xdp", unsupported), ("packet", refused), ("raw", last)]);
        let reasons = "xdp: interface \\\"eth1\\\": too old; \
                       packet: mmap on interface \\\"eth1\\\": Cannot allocate memory (os error 12)";
        assert_eq!(told, format!("transport: interface \"eth1\": Some(\"{reasons}\")"));
        assert_eq!(end_of(&[("raw", last)]), "transport: interface \"eth1\": None");
    }

    #[test]
    fn the_last_one_has_the_word_and_an_interface_that_is_missing_is_missing_for_all() {
        assert_eq!(end_of(&[("packet", refused), ("raw", unsupported)]), "transport: interface \"eth1\": too old");
        assert_eq!(end_of(&[("xdp", unsupported), ("packet", missing), ("raw", last)]), "there is no interface eth1");
    }
}
