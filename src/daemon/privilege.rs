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
    /// `CAP_IPC_LOCK`: memory of AF_XDP beyond the limit that a user has.
    IpcLock,
    /// `CAP_SYS_NICE`: real-time scheduling.
    SysNice,
    /// `CAP_BPF`: the program of AF_XDP.
    Bpf,
}

impl Capability {
    /// Its number.
    const fn bit(self) -> u32 {
        match self {
            Capability::NetAdmin => 12,
            Capability::NetRaw => 13,
            Capability::IpcLock => 14,
            Capability::SysNice => 23,
            Capability::Bpf => 39,
        }
    }

    /// The bit that stands for it in a set.
    pub(crate) const fn mask(self) -> u64 {
        1 << self.bit()
    }

    /// Its name as capabilities(7) writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Capability::NetAdmin => "CAP_NET_ADMIN",
            Capability::NetRaw => "CAP_NET_RAW",
            Capability::IpcLock => "CAP_IPC_LOCK",
            Capability::SysNice => "CAP_SYS_NICE",
            Capability::Bpf => "CAP_BPF",
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
    match std::fs::read_to_string("/proc/thread-self/status").ok().as_deref().and_then(effective) {
        Some(effective) => check_against(settings, effective),
        None => Ok(()),
    }
}

/// Whether this thread has a capability, as far as can be known.
pub(crate) fn has(capability: Capability) -> bool {
    let status = std::fs::read_to_string("/proc/thread-self/status");
    status.ok().as_deref().and_then(effective).is_some_and(|effective| effective & capability.mask() != 0)
}

/// The line `CapEff` of /proc/PID/status: a mask in hexadecimal.
fn effective(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

fn check_against(settings: &Settings, effective: u64) -> Result<(), Missing> {
    let missing: Vec<_> =
        needed(settings).into_iter().filter(|(capability, _)| effective & capability.mask() == 0).collect();
    if missing.is_empty() { Ok(()) } else { Err(Missing(missing)) }
}

/// What the settings cannot do without, and what for.
pub(crate) fn needed(settings: &Settings) -> Vec<(Capability, &'static str)> {
    let groups = &settings.groups;
    let on = |kind| groups.iter().any(|group| group.transport == kind);
    let (raw, packet, xdp) = (on(TransportKind::Raw), on(TransportKind::Packet), on(TransportKind::Xdp));
    let addresses = groups.iter().any(|group| !group.addresses.is_empty());
    let conntrack = groups.iter().any(|group| group.source == SourceKind::Conntrack);
    let needed = [
        (conntrack, Capability::NetAdmin, "source = \"conntrack\""),
        (addresses && !conntrack, Capability::NetAdmin, "addresses"),
        (raw, Capability::NetRaw, "transport = \"raw\""),
        (packet && !raw, Capability::NetRaw, "transport = \"packet\""),
        // What AF_XDP needs beside it is asked for when it is opened: without it, packet sockets do.
        (xdp && !raw && !packet, Capability::NetRaw, "transport = \"xdp\""),
        (addresses && !raw && !packet && !xdp, Capability::NetRaw, "announcing addresses"),
    ];
    needed.into_iter().filter(|(wanted, ..)| *wanted).map(|(_, capability, purpose)| (capability, purpose)).collect()
}

/// What is needed, and what makes it better where there is a right to it; one line for each capability.
pub(crate) fn wanted(settings: &Settings) -> Vec<(Capability, &'static str)> {
    let mut wanted = needed(settings);
    let has = |wanted: &[(Capability, _)], capability| wanted.iter().any(|(other, _)| *other == capability);
    if has(&wanted, Capability::NetRaw) && !has(&wanted, Capability::NetAdmin) {
        wanted.push((Capability::NetAdmin, "large socket buffers"));
    }
    wanted.push((Capability::SysNice, "realtime_priority"));
    if settings.groups.iter().any(|group| group.transport == TransportKind::Xdp) {
        wanted.push((Capability::IpcLock, "memory of transport = \"xdp\""));
        wanted.push((Capability::Bpf, "opening transport = \"xdp\"; a group's thread gives it up after that"));
    } else if !settings.node.sealing.secrets.is_empty() {
        wanted.push((Capability::IpcLock, "keys out of swap"));
    }
    wanted
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
    fn whatever_goes_past_the_kernel_needs_no_more_than_raw_sockets() {
        for word in ["packet", "xdp"] {
            let settings =
                settings(&format!("interfaces = [\"eth1\"]\ntransport = \"{word}\"\nsource = \"synthetic\""));
            assert_eq!(check_against(&settings, 1 << 13), Ok(()));
            let missing = check_against(&settings, 1 << 12).unwrap_err().to_string();
            assert!(missing.starts_with(&format!("missing CAP_NET_RAW (for transport = \"{word}\")")), "{missing}");
        }
    }

    #[test]
    fn af_xdp_keeps_what_it_is_opened_with_and_no_other_transport_does() {
        let names = |word: &str| {
            let group = format!("interfaces = [\"eth1\"]\ntransport = \"{word}\"\nsource = \"synthetic\"");
            wanted(&settings(&group)).iter().map(|(capability, _)| capability.name()).collect::<Vec<_>>()
        };
        assert_eq!(names("packet"), ["CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_SYS_NICE"]);
        assert_eq!(names("xdp"), ["CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_SYS_NICE", "CAP_IPC_LOCK", "CAP_BPF"]);
        assert_eq!((Capability::Bpf.mask(), Capability::IpcLock.mask()), (0x80_0000_0000, 0x4000));
    }

    #[test]
    fn a_trial_in_memory_needs_nothing() {
        assert_eq!(check_against(&settings("transport = \"memory\"\nsource = \"synthetic\""), 0), Ok(()));
    }
}
