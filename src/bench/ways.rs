//! The transports that are measured. A new one is a line in [`WAYS`], and a bare pair of its own if it is not built on sockets.

use super::flood::BareEnds;
use super::street::Street;
use super::{BenchError, bare, bare_ring, bare_xdp};
use crate::transport::memory::{MemoryHub, MemoryOptions};
use crate::transport::{NixTransport, PacketTransport, RawOptions, RawTransport, Transport, XdpTransport};

/// Frames that wait at a port of the memory transport.
const MEMORY_QUEUE: usize = 4096;

/// A transport that a thread can take with it.
pub(super) type Link = Box<dyn Transport + Send>;

/// Both ends of an open transport; the second may be nobody's.
pub(super) type Ends = (Link, Option<Link>);

/// One transport.
pub(super) struct Way {
    /// Its name in rows and on the command line.
    pub(super) name: &'static str,
    /// Opens both ends.
    open: Open,
    /// Opens what it is built on, with nothing around it: its limit. Copies of memory are that of who has none.
    pub(super) bare: Option<Bare>,
}

/// Opens a bare pair.
pub(super) type Bare = fn(&Street) -> Result<BareEnds, BenchError>;

/// What opening needs.
enum Open {
    /// Nothing of the kernel.
    Inside(fn() -> Ends),
    /// An interface at each end.
    OnStreet(fn(&RawOptions) -> Result<Link, BenchError>),
}

/// All of them.
pub(super) const WAYS: [Way; 5] = [
    Way { name: "memory", open: Open::Inside(memory), bare: None },
    Way { name: "raw", open: Open::OnStreet(raw), bare: Some(bare::sockets) },
    Way { name: "packet", open: Open::OnStreet(packet), bare: Some(bare_ring::packets) },
    Way { name: "nix", open: Open::OnStreet(nix), bare: Some(bare::sockets) },
    Way { name: "xdp", open: Open::OnStreet(xdp), bare: Some(bare_xdp::rings) },
];

fn raw(options: &RawOptions) -> Result<Link, BenchError> {
    Ok(Box::new(RawTransport::open(options)?))
}

fn packet(options: &RawOptions) -> Result<Link, BenchError> {
    Ok(Box::new(PacketTransport::open(options)?))
}

fn nix(options: &RawOptions) -> Result<Link, BenchError> {
    Ok(Box::new(NixTransport::open(options)?))
}

fn xdp(options: &RawOptions) -> Result<Link, BenchError> {
    Ok(Box::new(XdpTransport::open(options)?))
}

/// Their names.
pub(super) fn names() -> [&'static str; WAYS.len()] {
    WAYS.each_ref().map(|way| way.name)
}

impl Way {
    /// Opens both ends on `street`.
    pub(super) fn open(&self, street: Option<&Street>) -> Result<Ends, BenchError> {
        self.open_beside(street, &[])
    }

    /// The same for one of several groups: those beside it are `siblings`.
    pub(super) fn open_beside(&self, street: Option<&Street>, siblings: &[u8]) -> Result<Ends, BenchError> {
        match (&self.open, street) {
            (Open::Inside(open), _) => Ok(open()),
            (Open::OnStreet(open), Some(street)) => street.at_each_end(|interface| {
                open(&RawOptions { siblings: siblings.to_vec(), ..RawOptions::new([interface]) })
            }),
            (Open::OnStreet(_), None) => Err(BenchError::Stuck("there are no namespaces to cable")),
        }
    }

    /// Whether frames pass through the kernel, so that what the street carries besides can disturb them.
    pub(super) fn is_on_street(&self) -> bool {
        matches!(self.open, Open::OnStreet(_))
    }
}

fn memory() -> Ends {
    let mut ports = memory_ports(2);
    (ports.remove(0), ports.pop())
}

/// As many ends of one memory transport.
pub(super) fn memory_ports(count: usize) -> Vec<Link> {
    let hub = MemoryHub::with_options(MemoryOptions { queue: MEMORY_QUEUE, ..MemoryOptions::default() });
    (0..count).map(|_| Box::new(hub.port()) as Link).collect()
}
