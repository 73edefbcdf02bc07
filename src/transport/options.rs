//! What a transport over sync links is asked for, and how long a frame may be on them.
//!
//! ```text
//!   MTU of the interface ─ IP header (20 or 40) = what it carries ─▶ min with what was asked for ─▶ frame_len
//! ```

use super::{TransportError, ipv4, ipv6};
use crate::sys::socket::Interface;
use crate::wire::{FRAME_LEN_MAX, FRAME_LEN_MIN, GROUP, LINKS_MAX};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Most bytes of socket buffer that may be asked for.
const BUFFER_MOST: usize = 1 << 30;
/// Least MTU of an interface that speaks IPv6 at all (RFC 8200 section 5).
const IPV6_MTU_MIN: usize = 1280;

/// How to open a transport over sync links: raw sockets, the reference, or one that goes past the kernel's IP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RawOptions {
    /// The sync links, 1 to [`LINKS_MAX`]: frames go out on all and are taken from all.
    pub interfaces: Vec<String>,
    /// The multicast group: IPv4, or IPv6 of link-local scope (ff02::/16).
    pub group: IpAddr,
    /// Largest frame in bytes, [`FRAME_LEN_MIN`] to [`FRAME_LEN_MAX`]; `None`: what the link with the smallest MTU
    /// carries. It stays the largest when MTUs change later.
    pub frame_len: Option<usize>,
    /// Bytes of receive buffer to ask for, per link.
    pub receive_buffer: usize,
    /// Bytes of send buffer to ask for, per link.
    pub send_buffer: usize,
    /// Most frames that one call moves, 1 to 1024.
    pub batch: usize,
    /// Groups (`sync_id`) that other threads of this process hear on these links: the kernel drops their frames before they
    /// wake this one, for sixteen groups would wake sixteen threads for each frame. Frames of groups that nobody here is in
    /// come through, and are counted as what they are. A ring of AF_XDP hears all.
    pub siblings: Vec<u8>,
}

/// Where in a frame its group stands (protocol.md 3.1; the same byte in ip_vs_sync's messages).
pub(super) const SYNC_ID_AT: u32 = 1;
/// Bytes from the start of a frame to the end of that.
pub(super) const PREAMBLE: usize = SYNC_ID_AT as usize + 1;

impl Default for RawOptions {
    fn default() -> Self {
        RawOptions {
            interfaces: Vec::new(),
            group: IpAddr::V4(GROUP),
            frame_len: None,
            receive_buffer: 16 << 20,
            send_buffer: 1 << 20,
            batch: 64,
            siblings: Vec::new(),
        }
    }
}

impl RawOptions {
    /// The defaults, for these interfaces.
    pub fn new<S: Into<String>>(interfaces: impl IntoIterator<Item = S>) -> Self {
        RawOptions { interfaces: interfaces.into_iter().map(Into::into).collect(), ..RawOptions::default() }
    }

    pub(super) fn check(&self) -> Result<(), TransportError> {
        let wrong = |option, problem| Err(TransportError::Option { option, problem });
        let count = self.interfaces.len();
        if !(1..=LINKS_MAX).contains(&count) {
            return wrong("interfaces", format!("{count} interfaces; 1 to {LINKS_MAX} may be named"));
        }
        if self.interfaces.iter().collect::<BTreeSet<_>>().len() != count {
            return wrong("interfaces", "an interface is named twice".into());
        }
        match self.group {
            IpAddr::V4(group) if !group.is_multicast() => {
                return wrong("group", format!("{group} is no multicast address (224.0.0.0 to 239.255.255.255)"));
            }
            IpAddr::V6(group) if group.segments()[0] != 0xff02 => {
                return wrong("group", format!("{group} is no multicast address of link-local scope (ff02::/16)"));
            }
            _ => {}
        }
        let frame_len = self.frame_len.unwrap_or(FRAME_LEN_MIN);
        if !(FRAME_LEN_MIN..=FRAME_LEN_MAX).contains(&frame_len) {
            return wrong("frame_len", format!("{frame_len} bytes; {FRAME_LEN_MIN} to {FRAME_LEN_MAX}"));
        }
        for (option, bytes) in [("receive_buffer", self.receive_buffer), ("send_buffer", self.send_buffer)] {
            if bytes > BUFFER_MOST {
                return wrong(option, format!("{bytes} bytes; at most {BUFFER_MOST}"));
            }
        }
        if !(1..=crate::sys::mmsg::BATCH_MAX).contains(&self.batch) {
            return wrong("batch", format!("{} frames; 1 to {}", self.batch, crate::sys::mmsg::BATCH_MAX));
        }
        Ok(())
    }
}

/// Bytes of the largest frame on this interface: what was asked for, or what its MTU leaves.
pub(super) fn frame_len_of(interface: &Interface, options: &RawOptions) -> Result<usize, TransportError> {
    let Interface { name, mtu, .. } = interface;
    let least = least_mtu(options.group);
    if (*mtu as usize) < least {
        return Err(TransportError::SmallMtu { name: name.clone(), mtu: *mtu, least: least as u32 });
    }
    let carried = *mtu as usize - header_len(options.group);
    match options.frame_len {
        Some(frame_len) if frame_len > carried => Err(TransportError::Option {
            option: "frame_len",
            problem: format!("{frame_len} bytes; interface {name:?} with its MTU of {mtu} carries {carried}"),
        }),
        Some(frame_len) => Ok(frame_len),
        None => Ok(carried.min(FRAME_LEN_MAX)),
    }
}

/// Bytes of IP header in front of a frame.
pub(super) fn header_len(group: IpAddr) -> usize {
    if group.is_ipv4() { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN }
}

/// The MTU of an interface that carries the smallest frame.
pub(super) fn least_mtu(group: IpAddr) -> usize {
    let least = FRAME_LEN_MIN + header_len(group);
    if group.is_ipv4() { least } else { least.max(IPV6_MTU_MIN) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(change: impl FnOnce(&mut RawOptions)) -> String {
        let mut options = RawOptions::new(["eth0"]);
        change(&mut options);
        options.check().unwrap_err().to_string()
    }

    #[test]
    fn each_senseless_option_is_named() {
        assert!(RawOptions::new(["eth0"]).check().is_ok());
        assert_eq!(problem(|o| o.interfaces.clear()), "interfaces: 0 interfaces; 1 to 8 may be named");
        assert_eq!(problem(|o| o.interfaces.push("eth0".into())), "interfaces: an interface is named twice");
        assert_eq!(
            problem(|o| o.group = "10.0.0.1".parse().unwrap()),
            "group: 10.0.0.1 is no multicast address (224.0.0.0 to 239.255.255.255)"
        );
        assert_eq!(
            problem(|o| o.group = "ff05::7251".parse().unwrap()),
            "group: ff05::7251 is no multicast address of link-local scope (ff02::/16)"
        );
        assert_eq!(problem(|o| o.frame_len = Some(1207)), "frame_len: 1207 bytes; 1208 to 8960");
        assert_eq!(problem(|o| o.frame_len = Some(8961)), "frame_len: 8961 bytes; 1208 to 8960");
        assert_eq!(problem(|o| o.receive_buffer = 1 << 31), "receive_buffer: 2147483648 bytes; at most 1073741824");
        assert_eq!(problem(|o| o.send_buffer = 1 << 31), "send_buffer: 2147483648 bytes; at most 1073741824");
        assert_eq!(problem(|o| o.batch = 0), "batch: 0 frames; 1 to 1024");
        assert_eq!(problem(|o| o.batch = 1025), "batch: 1025 frames; 1 to 1024");
    }

    fn frame_len(group: &str, mtu: u32, frame_len: Option<usize>) -> Result<usize, String> {
        let interface =
            Interface { name: "eth0".into(), index: 2, mac: [0; 6], mtu, up: true, running: true, ipv4: Vec::new() };
        let options = RawOptions { group: group.parse().unwrap(), frame_len, ..RawOptions::default() };
        frame_len_of(&interface, &options).map_err(|error| error.to_string())
    }

    #[test]
    fn the_largest_frame_is_what_the_mtu_leaves_behind_an_ipv4_header() {
        let frame_len = |mtu, asked| frame_len("224.0.0.81", mtu, asked);
        assert_eq!(frame_len(1500, None), Ok(1480));
        assert_eq!(frame_len(1228, None), Ok(1208));
        assert_eq!(frame_len(9000, None), Ok(8960));
        assert_eq!(frame_len(1500, Some(1300)), Ok(1300));
        assert_eq!(
            frame_len(1227, None),
            Err("interface \"eth0\" has an MTU of 1227 bytes; frames need at least 1228".into())
        );
        assert_eq!(
            frame_len(1500, Some(1481)),
            Err("frame_len: 1481 bytes; interface \"eth0\" with its MTU of 1500 carries 1480".into())
        );
    }

    #[test]
    fn an_ipv6_header_takes_twenty_bytes_more_and_ipv6_no_mtu_below_1280() {
        let frame_len = |mtu, asked| frame_len("ff02::7251", mtu, asked);
        assert_eq!(frame_len(1500, None), Ok(1460));
        assert_eq!(frame_len(1280, None), Ok(1240));
        assert_eq!(frame_len(9000, None), Ok(8960));
        assert_eq!(
            frame_len(1279, None),
            Err("interface \"eth0\" has an MTU of 1279 bytes; frames need at least 1280".into())
        );
    }
}
