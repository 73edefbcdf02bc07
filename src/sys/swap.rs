//! Memory that is never written to swap, where what was secret would outlast the process.
//!
//! All of it, and not the few pages with keys: those are inside a library that allocates for itself, and are copied to stacks
//! and where the kernel saves registers. What is not touched is not filled in for it (`MCL_ONFAULT`), so nothing grows by this.

use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use std::io;

/// Lets this process keep as much memory from swap as it likes (RLIMIT_MEMLOCK).
///
/// # Errors
/// `EPERM` where there is a limit, and CAP_SYS_RESOURCE is missing that could lift it.
pub fn lift_limit() -> io::Result<()> {
    let (soft, _) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
    if soft != RLIM_INFINITY {
        setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY)?;
    }
    Ok(())
}

/// From here on no page of this process goes to swap, also none that it allocates later; what it allocates beyond a limit
/// is refused, so that is to be [lifted](lift_limit) first.
///
/// # Errors
/// The operating system's error (mlockall(2)); nothing has changed then.
pub fn forbid() -> io::Result<()> {
    let on_fault = MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
    Ok(mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault)?)
}
