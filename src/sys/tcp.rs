//! What the kernel knows about one TCP connection (`TCP_INFO`, tcp(7)).

use crate::time::Duration;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// The connection's retransmission time-out at this moment (`tcpi_rto`): smoothed round trip + the larger of four
/// deviations and the RTO minimum (200 ms, sysctl `tcp_rto_min_us`, route option `rto_min`), rounded up to a tick;
/// doubled after each expiry.
///
/// # Errors
/// The operating system's error (not a TCP socket).
pub fn retransmission_timeout(socket: impl AsFd) -> io::Result<Duration> {
    // SAFETY: all fields of tcp_info are integers, for which zero is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `info`, which lives until after the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(Duration::from_micros(info.tcpi_rto.into())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_has_a_time_out_and_a_file_has_none() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(retransmission_timeout(&stream).unwrap() >= Duration::from_millis(1));
        assert!(retransmission_timeout(std::fs::File::open("/dev/null").unwrap()).is_err());
    }
}
