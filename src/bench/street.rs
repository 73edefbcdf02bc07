//! Where frames travel: a veth pair between two namespaces without names, or an interface that is there already.
//!
//! ```text
//!   here ══ sync ═════ veth ═════ sync ══ there        192.0.2.1 and 192.0.2.2, no IPv6, nothing else
//! ```

use super::{BenchError, Doing, links};
use crate::demo::links::FarEnd;
use crate::sys::namespace::Namespace;
use core::net::Ipv4Addr;
use std::io;

/// Name of both ends.
pub(super) const SYNC: &str = "sync";
/// Their addresses, of a range for documentation (RFC 5737).
pub(super) const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
/// Bits of their network.
const PREFIX_LEN: u8 = 24;

/// A way between two ends, or from one end into the dark.
pub(super) enum Street {
    /// Two namespaces and a cable.
    Veth { here: Namespace, there: Namespace },
    /// An interface of this machine; who is behind it is not our business.
    Interface(String),
}

impl Street {
    /// Builds a cable.
    pub(super) fn build() -> Result<Self, BenchError> {
        let create = || Namespace::create().doing("making a network namespace");
        let (here, there) = (create()?, create()?);
        for end in [&here, &there] {
            // Neighbour discovery would only be noise. A kernel without IPv6 has no such file.
            let quiet = || std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
            let _ = end.run(quiet);
            links(end)?.up("lo").doing("setting the loopback up")?;
        }
        links(&here)?.pair(SYNC, FarEnd { namespace: &there, name: SYNC }).doing("cabling")?;
        for (end, address) in [(&here, ADDRESSES[0]), (&there, ADDRESSES[1])] {
            links(end)?.address(SYNC, address, PREFIX_LEN).doing("giving an address")?;
        }
        Ok(Street::Veth { here, there })
    }

    /// Runs `open` at each end, with the name of its interface.
    pub(super) fn at_each_end<T: Send>(
        &self,
        open: impl Fn(&str) -> Result<T, BenchError> + Send + Sync,
    ) -> Result<(T, Option<T>), BenchError> {
        let within = |end: &Namespace| -> Result<T, BenchError> {
            let opened = end.run(|| io::Result::Ok(open(SYNC)));
            opened.doing("entering a namespace")?
        };
        match self {
            Street::Veth { here, there } => Ok((within(here)?, Some(within(there)?))),
            Street::Interface(name) => Ok((open(name)?, None)),
        }
    }
}
