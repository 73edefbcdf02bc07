//! A bare listener of conntrack events, in a process of its own: it takes what the kernel says, in batches, and does nothing
//! with it. No daemon that wants to know of every connection can cost less.

use ssyncp::sys::mmsg::ReceiveBatch;
use ssyncp::sys::netlink::{NETLINK_NETFILTER, NetlinkSocket, ReceiveError};
use ssyncp::sys::poll;
use std::io;
use std::os::fd::AsFd;

/// NFNLGRP_CONNTRACK_NEW, _UPDATE and _DESTROY (linux/netfilter/nfnetlink_compat.h).
const GROUPS: [u32; 3] = [1, 2, 3];
/// Bytes of its buffer, as both daemons ask for.
const BUFFER: usize = 128 << 20;
/// Events that one system call takes, and bytes of each.
const BATCH: (usize, usize) = (64, 2048);
/// What it says once it hears everything.
pub const READY: &str = "listening";

/// Listens until it is killed.
///
/// # Errors
/// The operating system's error.
pub fn listen() -> io::Result<()> {
    let socket = NetlinkSocket::open(NETLINK_NETFILTER, BUFFER)?;
    GROUPS.into_iter().try_for_each(|group| socket.join(group))?;
    let mut batch = ReceiveBatch::new(BATCH.0, BATCH.1);
    println!("{READY}");
    loop {
        poll::wait(&[socket.as_fd()], None)?;
        loop {
            match socket.receive_many(&mut batch) {
                Ok(0) => break,
                Ok(_) | Err(ReceiveError::Overrun) => {}
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }
}
