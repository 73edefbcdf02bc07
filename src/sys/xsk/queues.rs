//! How many receive queues an interface has (ETHTOOL_GCHANNELS of linux/ethtool.h).

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;

/// The command.
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    max_receive: u32,
    max_send: u32,
    max_other: u32,
    max_combined: u32,
    receive: u32,
    send: u32,
    other: u32,
    combined: u32,
}

/// Receive queues of the interface called `name`, in the calling thread's network namespace; `None` where its driver does
/// not tell.
///
/// # Errors
/// `ENODEV` if there is no such interface; the operating system's error otherwise.
pub fn receive_queues(name: &str) -> io::Result<Option<u32>> {
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains('\0') {
        return Err(Errno::ENODEV.into());
    }
    let mut channels = Channels { command: ETHTOOL_GCHANNELS, ..Channels::default() };
    // SAFETY: ifreq is plain data, for which zero bytes are a value.
    let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut channels).cast();
    let any = nix::sys::socket::socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: the kernel reads the request, and the command that it leads to, and writes one `struct ethtool_channels`
    // there; both live through the call.
    match Errno::result(unsafe { libc::ioctl(any.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) }) {
        Ok(_) => Ok(Some(channels.receive.saturating_add(channels.combined)).filter(|queues| *queues > 0)),
        Err(Errno::EOPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_that_does_not_tell_says_so_and_an_interface_that_is_not_there_is_an_error() {
        assert_eq!(receive_queues("lo").unwrap(), None);
        assert_eq!(receive_queues("no-such-link").unwrap_err().raw_os_error(), Some(libc::ENODEV));
        assert_eq!(receive_queues("").unwrap_err().raw_os_error(), Some(libc::ENODEV));
    }
}
