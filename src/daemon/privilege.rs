//! Which capabilities the configuration needs, asked before anything is opened, so that a missing one is one plain line
//! with its cure instead of an "operation not permitted" from somewhere.

use crate::daemon::settings::{Settings, SourceKind, TransportKind};
use crate::sys::schedule;
use std::fmt;

/// A capability of linux/capability.h that the daemon can need.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Capability {
    /// `CAP_NET_ADMIN`: addresses, connection tracking, large socket buffers.
    NetAdmin,
    /// `CAP_NET_RAW`: raw and packet sockets.
    NetRaw,
    /// `CAP_IPC_LOCK`: as much memory as one likes that is never swapped.
    IpcLock,
}

impl Capability {
    /// Its number.
    const fn bit(self) -> u32 {
        match self {
            Capability::NetAdmin => 12,
            Capability::NetRaw => 13,
            Capability::IpcLock => 14,
        }
    }

    /// Its name as capabilities(7) writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Capability::NetAdmin => "CAP_NET_ADMIN",
            Capability::NetRaw => "CAP_NET_RAW",
            Capability::IpcLock => "CAP_IPC_LOCK",
        }
    }
}

/// What is missing, what for, and the cure.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub struct Missing(Vec<(Capability, &'static str)>);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named: Vec<String> =
            self.0.iter().map(|(capability, purpose)| format!("{} (for {purpose})", capability.name())).collect();
        let words: Vec<String> = self.0.iter().map(|(capability, _)| capability.name().to_lowercase()).collect();
        write!(
            f,
            "missing {}; run it as root or by its systemd unit, or give it to the program: \
             setcap {}+ep $(command -v ssyncp)",
            named.join(" and "),
            words.join(","),
        )
    }
}

/// Checks that this process has what `settings` need.
///
/// # Errors
/// What is missing.
pub fn check(settings: &Settings) -> Result<(), Missing> {
    // Without /proc nothing can be said beforehand; the kernel will say it when something is opened.
    match of_this_thread() {
        Some(effective) => check_against(settings, effective),
        None => Ok(()),
    }
}

/// Whether this thread has a capability, as far as can be known.
pub(crate) fn has(capability: Capability) -> bool {
    of_this_thread().is_some_and(|effective| effective & (1 << capability.bit()) != 0)
}

fn of_this_thread() -> Option<u64> {
    std::fs::read_to_string("/proc/thread-self/status").ok().as_deref().and_then(effective)
}

/// The line `CapEff` of /proc/PID/status: a mask in hexadecimal.
fn effective(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

fn check_against(settings: &Settings, effective: u64) -> Result<(), Missing> {
    let groups = &settings.groups;
    let raw = groups.iter().any(|group| group.transport == TransportKind::Raw);
    let addresses = groups.iter().any(|group| !group.addresses.is_empty());
    let conntrack = groups.iter().any(|group| group.source == SourceKind::Conntrack);
    let needed = [
        (conntrack, Capability::NetAdmin, "source = \"conntrack\""),
        (addresses && !conntrack, Capability::NetAdmin, "addresses"),
        (raw, Capability::NetRaw, "transport = \"raw\""),
        (addresses && !raw, Capability::NetRaw, "announcing addresses"),
    ];
    let missing: Vec<(Capability, &'static str)> = needed
        .into_iter()
        .filter(|(wanted, capability, _)| *wanted && effective & (1 << capability.bit()) == 0)
        .map(|(_, capability, purpose)| (capability, purpose))
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(Missing(missing)) }
}

/// Gives the calling thread this real-time priority, or none for 0. A master that is not scheduled for three of its
/// intervals is taken for dead, however well it is.
pub(crate) fn be_heard_in_time(priority: u8) {
    let result = if priority == 0 { schedule::ordinary() } else { schedule::real_time(priority) };
    if let Err(error) = result {
        tracing::info!(
            "no real-time scheduling ({error}): on a busy machine this node may be heard too late; it needs CAP_SYS_NICE"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn settings(group: &str) -> Settings {
        Settings::parse(&format!("[node]\nid = 1\n[[group]]\nsync_id = 1\n{group}\n"), Path::new("x")).unwrap()
    }

    #[test]
    fn the_mask_is_read_as_proc_writes_it() {
        assert_eq!(effective("Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t0000000000003000\n"), Some(0x3000));
        assert_eq!(effective("Name:\tx\n"), None);
    }

    #[test]
    fn what_is_missing_is_named_with_its_purpose_and_its_cure() {
        let settings = settings("interfaces = [\"eth1\"]");
        assert_eq!(check_against(&settings, 1 << 12 | 1 << 13), Ok(()));
        assert_eq!(
            check_against(&settings, 0).unwrap_err().to_string(),
            "missing CAP_NET_ADMIN (for source = \"conntrack\") and CAP_NET_RAW (for transport = \"raw\"); \
             run it as root or by its systemd unit, or give it to the program: \
             setcap cap_net_admin,cap_net_raw+ep $(command -v ssyncp)"
        );
        assert!(check_against(&settings, 1 << 12).unwrap_err().to_string().starts_with("missing CAP_NET_RAW (for"));
    }

    #[test]
    fn a_trial_in_memory_needs_nothing() {
        assert_eq!(check_against(&settings("transport = \"memory\"\nsource = \"synthetic\""), 0), Ok(()));
    }
}
