//! Memory that is never written to swap, where what was secret would outlast the process.
//!
//! All of it, and not the few pages with keys: those are inside a library that allocates for itself, and are copied to stacks
//! and registers' save areas. What is not touched is not filled in for it (`MCL_ONFAULT`), so nothing grows by this.

use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use std::io;

/// Bytes that this process may keep from swap without CAP_IPC_LOCK (RLIMIT_MEMLOCK); `None` for as many as it likes.
///
/// # Errors
/// The operating system's error.
pub fn limit() -> io::Result<Option<u64>> {
    let (soft, _) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
    Ok((soft != RLIM_INFINITY).then_some(soft))
}

/// From here on no page of this process goes to swap, also none that it allocates later. With a [`limit`] and without
/// CAP_IPC_LOCK allocations beyond it would fail from then on: look first.
///
/// # Errors
/// The operating system's error (mlockall(2)); nothing has changed then.
pub fn forbid() -> io::Result<()> {
    let on_fault = MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
    Ok(mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault)?)
}
