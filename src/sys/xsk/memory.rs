//! Memory that is shared with the kernel: mapped once, given back at the end.

use super::ledger::CHUNK_LEN;
use crate::sys::socket::OptionValue;
use nix::errno::Errno;
use std::ffi::c_int;
use std::io;
use std::mem::{align_of, size_of};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};

/// Bytes of a huge page, where there are any.
const HUGE_PAGE: usize = 2 << 20;

/// Pages mapped into our memory.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: it is memory that this value alone owns, on whichever thread.
unsafe impl Send for Mapping {}

impl Mapping {
    /// `length` bytes that the kernel keeps for a socket.
    pub(super) fn of_socket(socket: BorrowedFd<'_>, offset: i64, length: usize) -> io::Result<Self> {
        Self::map(length, libc::MAP_SHARED | libc::MAP_POPULATE, socket.as_raw_fd(), offset)
    }

    fn anonymous(length: usize, more: c_int) -> io::Result<Self> {
        Self::map(length, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | more, -1, 0)
    }

    fn map(length: usize, flags: c_int, descriptor: c_int, offset: i64) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the kernel chooses where, so no memory of ours is replaced.
        let start = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, descriptor, offset) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Mapping { start: NonNull::new(start.cast()).ok_or(Errno::ENOMEM)?, length })
    }

    /// Where `count` values lie from byte `offset` on; `None` if that is outside, or not aligned.
    pub(super) fn place<T>(&self, offset: usize, count: usize) -> Option<NonNull<T>> {
        let end = count.checked_mul(size_of::<T>())?.checked_add(offset)?;
        // A mapping begins at a page, so the offset alone decides.
        if end > self.length || !offset.is_multiple_of(align_of::<T>()) {
            return None;
        }
        // SAFETY: it is inside, as was just checked.
        Some(unsafe { self.start.add(offset) }.cast())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: these pages were mapped by `map` for this value, and what points into them is gone with it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

// SAFETY: two numbers of 64 bits and four of 32. The address is that of a [`Umem`]: the kernel keeps its pages for as long as
// the socket lives, and writes only there, also when they have left our memory.
unsafe impl OptionValue for libc::xdp_umem_reg {}

const _: () = assert!(size_of::<libc::xdp_umem_reg>() == 32);

/// The frames' memory (UMEM).
#[derive(Debug)]
pub(super) struct Umem {
    mapping: Mapping,
    length: usize,
}

impl Umem {
    /// `length` bytes, all zero, in huge pages if there are any.
    pub(super) fn new(length: usize) -> io::Result<Self> {
        let huge = Mapping::anonymous(length.next_multiple_of(HUGE_PAGE), libc::MAP_HUGETLB | libc::MAP_POPULATE);
        let mapping = huge.or_else(|_| {
            let mapping = Mapping::anonymous(length, 0)?;
            // SAFETY: the pages are those that were just mapped. It is a wish; what becomes of it does not matter.
            unsafe { libc::madvise(mapping.start.as_ptr().cast(), mapping.length, libc::MADV_HUGEPAGE) };
            io::Result::Ok(mapping)
        })?;
        // The kernel writes to these very pages. A process that is started (a hook is forked) must not get them: whoever
        // writes first would get a copy and the other one keep the pages, or all of them be copied at once, which takes
        // milliseconds in which nothing of ours runs.
        // SAFETY: the pages are those that were just mapped, and stay as they are for us.
        let kept = unsafe { libc::madvise(mapping.start.as_ptr().cast(), mapping.length, libc::MADV_DONTFORK) };
        Errno::result(kept)?;
        Ok(Umem { mapping, length })
    }

    /// What the kernel is told of it.
    pub(super) fn registration(&self) -> libc::xdp_umem_reg {
        libc::xdp_umem_reg {
            addr: self.mapping.start.as_ptr() as u64,
            len: self.length as u64,
            chunk_size: CHUNK_LEN as u32,
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        }
    }

    /// Some of its bytes, which the kernel must not have: the ledger sees to that.
    ///
    /// # Panics
    /// If they lie outside.
    pub(super) fn bytes(&mut self, range: Range<usize>) -> &mut [u8] {
        assert!(range.start <= range.end && range.end <= self.length, "{range:?} of {}", self.length);
        // SAFETY: inside, as was just checked, and initialised, as fresh pages are zero. Nobody else reads or writes
        // them: of ours, `&mut self` sees to it; and the kernel, as long as it keeps to its own protocol, writes only
        // to chunks that the fill ring gave it, and reads only those that the send ring did.
        unsafe { std::slice::from_raw_parts_mut(self.mapping.start.add(range.start).as_ptr(), range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zero_and_its_parts_are_where_they_are_asked_for() {
        let mut umem = Umem::new(3 * CHUNK_LEN).unwrap();
        assert_eq!(umem.registration().len, 12288);
        umem.bytes(4096..4099).copy_from_slice(b"abc");
        assert_eq!(umem.bytes(4095..4100), b"\0abc\0");
        assert_eq!(umem.bytes(12288..12288), b"");
    }

    /// `dc` of proc_pid_smaps(5): do not copy on fork.
    #[test]
    fn a_process_that_is_forked_does_not_get_the_frames() {
        let umem = Umem::new(64 * CHUNK_LEN).unwrap();
        let first = format!("{:x}-", umem.mapping.start.as_ptr().addr());
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let of_it = maps.lines().skip_while(|line| !line.starts_with(&first));
        let flags = of_it.skip(1).find_map(|line| line.strip_prefix("VmFlags:")).unwrap();
        assert!(flags.split_whitespace().any(|flag| flag == "dc"), "{flags}");
    }

    #[test]
    #[should_panic = "12287..12289 of 12288"]
    fn nothing_is_lent_outside() {
        Umem::new(3 * CHUNK_LEN).unwrap().bytes(12287..12289);
    }

    #[test]
    fn a_place_is_inside_and_aligned_or_none() {
        let mapping = Mapping::anonymous(4096, 0).unwrap();
        assert!(mapping.place::<u32>(4092, 1).is_some());
        assert!(mapping.place::<u32>(4092, 2).is_none());
        assert!(mapping.place::<u32>(2, 1).is_none());
        assert!(mapping.place::<u64>(8, usize::MAX).is_none());
        assert!(mapping.place::<u64>(usize::MAX - 7, 1).is_none());
    }
}
