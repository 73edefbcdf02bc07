//! How many connections this machine can hold: descriptors, kernel tables and ports, asked before anything is built.

use super::lab;
use super::narrator::number;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::fs;

/// Descriptors that a process of the demo needs beside its connections.
const DESCRIPTORS_BESIDE: u64 = 64;
/// Entries of a kernel's table that are not the client's connections: the probes, and what a mix adds.
const ENTRIES_BESIDE: u64 = 256;

/// One thing that bounds the number of connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bound {
    /// Most connections that it lets through.
    connections: u64,
    /// What it is, for people.
    reason: String,
}

/// Raises the limit of descriptors as far as `connections` needs it, and refuses a number that cannot be, in one line.
///
/// # Errors
/// The line.
pub(super) fn prepare(connections: u32) -> Result<(), String> {
    let needed = u64::from(connections) + DESCRIPTORS_BESIDE;
    let ports = u64::from(lab::CLIENT_PORTS) * lab::SERVICE_PORTS.len() as u64;
    let mut bounds = vec![
        raise_descriptors(needed),
        Bound { connections: ports, reason: format!("one client has {} ports for them", number(ports)) },
    ];
    let table = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max").ok();
    if let Some(max) = table.and_then(|max| max.trim().parse::<u64>().ok()) {
        let reason = format!("net.netfilter.nf_conntrack_max is {}", number(max));
        bounds.push(Bound { connections: max.saturating_sub(ENTRIES_BESIDE), reason });
    }
    refuse(connections, bounds)
}

/// The refusal, if the narrowest bound asks for one.
fn refuse(connections: u32, bounds: Vec<Bound>) -> Result<(), String> {
    if connections == 0 {
        return Err("--connections 0: at least one is needed to show anything".into());
    }
    match bounds.into_iter().min_by_key(|bound| bound.connections) {
        Some(bound) if u64::from(connections) > bound.connections => Err(format!(
            "--connections {connections}: at most {} are possible here: {}",
            bound.connections, bound.reason
        )),
        _ => Ok(()),
    }
}

/// Raises this process's limit, which its children inherit, to `needed`; says how far that went. Only root gets more
/// than the hard limit, and nobody more than fs.nr_open.
fn raise_descriptors(needed: u64) -> Bound {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    let wanted = needed.max(soft);
    let granted = if wanted <= soft || setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted)).is_ok() {
        wanted
    } else {
        // Where even this fails, the soft limit stays what it was.
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_or(soft, |()| hard)
    };
    let reason = format!("a process may open {} files", number(granted));
    Bound { connections: granted.saturating_sub(DESCRIPTORS_BESIDE), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_bound_is_named_in_one_line() {
        let bound = |connections, reason: &str| Bound { connections, reason: reason.into() };
        let bounds = vec![bound(5000, "files"), bound(400, "the table"), bound(9000, "ports")];
        assert_eq!(refuse(400, bounds.clone()), Ok(()));
        let line = "--connections 401: at most 400 are possible here: the table";
        assert_eq!(refuse(401, bounds), Err(line.into()));
    }

    #[test]
    fn no_connection_at_all_is_refused() {
        assert!(refuse(0, Vec::new()).is_err());
    }

    #[test]
    fn more_descriptors_than_any_kernel_gives_are_not_granted() {
        assert!(raise_descriptors(1 << 40).connections < 1 << 40);
    }
}
