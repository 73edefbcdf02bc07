//! The connection table of the Linux kernel, over ctnetlink: [`ConntrackSource`] reads it and follows its changes,
//! [`ConntrackSink`] writes copies into it, and [`ConntrackInspector`] reads back what has become of them.
//!
//! ```text
//!            kernel                                   source                          owner
//!  events    NEW UPDATE DESTROY ──filter──> socket ──> decode ────────────────────────> Change
//!                       UPDATE that tells too little ─> question ──> answer ──────────> Change
//!            expectations ──────────────────────────> question for their master ─────> Change
//!  dump      every entry ─────────────────> socket ──> decode, unless an event was newer ─> Change
//!
//!  sink      CREATE | EXCL, DELETE <── many per datagram ── gathered <───────────────── Change
//!            EEXIST ──> look at what is there ──> update, or delete and create
//!            what is expected of the flows that were written
//!
//!  inspector every entry ─────────────────> socket ──> decode ────────────────────────> Flow, to be compared
//! ```
//!
//! Both need CAP_NET_ADMIN in the user namespace that owns the network namespace. Both live in the network namespace of
//! the thread that opened them.

mod audit;
pub mod codec;
mod expectations;
pub mod filter;
mod kernel;
mod requests;
pub mod sink;
pub mod source;

pub use audit::ConntrackInspector;
pub use filter::{Division, Filter, Rule};
pub use sink::{ConntrackSink, SinkOptions};
pub use source::{ConntrackSource, SourceOptions};

use nix::errno::Errno;
use std::io;

/// Why the connection table cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not allowed.
    #[error(
        "no permission to use the connection table: CAP_NET_ADMIN is missing; run as root, or give it with \
         `AmbientCapabilities=CAP_NET_ADMIN` (systemd) or `setcap cap_net_admin+ep` on the program"
    )]
    MissingCapability,
    /// The kernel has no ctnetlink.
    #[error(
        "the kernel offers no connection table over netlink: load it with `modprobe nf_conntrack_netlink`, or build \
         the kernel with CONFIG_NF_CT_NETLINK"
    )]
    MissingModule,
    /// The operating system refused.
    #[error("cannot reach the connection table: {0}")]
    Io(#[from] io::Error),
}

impl OpenError {
    /// What the errno of an answer of nfnetlink means: it says `EINVAL` for a subsystem that it does not know.
    fn from_errno(errno: Errno) -> Self {
        match errno {
            Errno::EPERM | Errno::EACCES => OpenError::MissingCapability,
            Errno::EINVAL | Errno::EPROTONOSUPPORT => OpenError::MissingModule,
            other => OpenError::Io(other.into()),
        }
    }

    /// The same for a failed system call.
    fn from_io(error: io::Error) -> Self {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(errno) => OpenError::from_errno(errno),
            None => OpenError::Io(error),
        }
    }
}

/// One counter per [`codec::Refusal`].
#[derive(Clone, Default, Debug)]
struct Refusals([u64; codec::Refusal::ALL.len()]);

impl Refusals {
    fn count(&mut self, refusal: codec::Refusal) {
        self.0[refusal as usize] += 1;
    }

    fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
        codec::Refusal::ALL.iter().map(|refusal| refusal.name()).zip(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_a_counter_of_its_own() {
        let mut refusals = Refusals::default();
        codec::Refusal::ALL.into_iter().for_each(|refusal| refusals.count(refusal));
        assert!(refusals.counters().all(|(_, count)| count == 1));
        refusals.count(codec::Refusal::Protocol);
        assert!(refusals.counters().any(|counter| counter == ("refused_protocol", 2)));
    }

    #[test]
    fn what_is_missing_is_said_with_its_cure() {
        assert!(OpenError::from_errno(Errno::EPERM).to_string().contains("CAP_NET_ADMIN"));
        assert!(OpenError::from_errno(Errno::EINVAL).to_string().contains("modprobe nf_conntrack_netlink"));
        assert!(OpenError::from_io(Errno::EMFILE.into()).to_string().contains("Too many open files"));
    }
}
