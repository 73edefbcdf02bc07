//! The allocator of the program: the system's, with huge pages for what is large.
//!
//! A table of a million flows is some ninety megabytes that are read at random. With pages of 4 KiB nearly every read of it
//! misses the processor's cache of addresses as well (the TLB), with pages of 2 MiB nearly none does. Where
//! `transparent_hugepage` says `madvise`, the default of most distributions, a program must ask for them:
//!
//! ```text
//!   < 4 MiB    the system's allocator, untouched
//!   ≥ 4 MiB    a mapping of its own, aligned to 2 MiB, and madvise(MADV_HUGEPAGE)
//!
//!      mapped   ├──cut──┤■■■■■■■■■■■■■■■■■■■■■■■■■■■■■■├─cut─┤
//!                       ▲ multiple of 2 MiB            ▲ length, up to a whole page
//! ```
//!
//! Such a mapping comes zeroed, so that zeroed memory costs nothing until it is touched. `std`'s `System` would write every
//! zero of an aligned block, and glibc would keep its header in the page before it: that is why large blocks do not come from
//! there. What is freed goes back to the system at once. Only the length says who a block belongs to, so giving it back
//! needs no header. Asking is all that a program can do: [`setting`] tells what the system is set to.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;

/// Bytes from which on a block has a mapping of its own. Half as much could end up with one huge page or none.
pub const LARGE: usize = 4 << 20;
/// Bytes of a huge page on x86-64, and on arm64 with pages of 4 KiB.
pub const HUGE_PAGE: usize = 2 << 20;
/// Smallest page of Linux, which every mapping is aligned to.
const PAGE_LEAST: usize = 4 << 10;
/// Largest page of Linux, which the length of a mapping is a multiple of: what is cut off must begin with a page.
const PAGE_MOST: usize = 64 << 10;
/// How the system hands huge pages out (Documentation/admin-guide/mm/transhuge.rst).
const SWITCH: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// The allocator, to be named with `#[global_allocator]`.
#[derive(Clone, Copy, Default, Debug)]
pub struct HugePages;

// SAFETY: blocks of less than `LARGE` bytes are the system allocator's from birth to death. All others are private anonymous
// mappings of `mapped_len(size)` bytes, which overlap nothing else; both are known by the length of the layout, which the
// caller repeats (GlobalAlloc's contract). Nothing here panics.
unsafe impl GlobalAlloc for HugePages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_large(layout.size()) {
            return map(layout);
        }
        // SAFETY: the caller's promises are those that the system's allocator wants.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_large(layout.size()) {
            return map(layout);
        }
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if is_large(layout.size()) {
            // SAFETY: the caller says that `block` came from here with this layout, and that nobody uses it any more.
            return unsafe { unmap(block, mapped_len(layout.size())) };
        }
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        match (is_large(layout.size()), is_large(size)) {
            // SAFETY: as above.
            (false, false) => unsafe { System.realloc(block, layout, size) },
            // A block may move, but the system keeps no more than its pages aligned.
            (true, true) if layout.align() <= PAGE_LEAST => {
                // SAFETY: `block` is a mapping of this length, made here, that the caller gives up for what comes back.
                let moved = unsafe {
                    libc::mremap(block.cast(), mapped_len(layout.size()), mapped_len(size), libc::MREMAP_MAYMOVE)
                };
                if moved == libc::MAP_FAILED { ptr::null_mut() } else { moved.cast() }
            }
            // SAFETY: the caller promises a size that is not zero and not too large for the alignment, which is what a
            // layout wants; the new block is as long as the shorter of both, and overlaps nothing; the old one came from here.
            _ => unsafe {
                let new = Layout::from_size_align_unchecked(size, layout.align());
                let to = self.alloc(new);
                if !to.is_null() {
                    ptr::copy_nonoverlapping(block, to, layout.size().min(size));
                    self.dealloc(block, layout);
                }
                to
            },
        }
    }
}

fn is_large(size: usize) -> bool {
    size >= LARGE
}

/// Bytes that are mapped for so many. (No layout has more than `isize::MAX`, so nothing overflows.)
fn mapped_len(size: usize) -> usize {
    size.next_multiple_of(PAGE_MOST)
}

/// Zeroes, untouched, with huge pages where the system grants them; null if it refuses.
fn map(layout: Layout) -> *mut u8 {
    let (length, align) = (mapped_len(layout.size()), layout.align().max(HUGE_PAGE));
    let Some(whole) = length.checked_add(align) else { return ptr::null_mut() };
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping at an address that the kernel chooses touches no other.
    let start = unsafe { libc::mmap(ptr::null_mut(), whole, protection, kind, -1, 0) };
    if start == libc::MAP_FAILED {
        return ptr::null_mut();
    }
    let before = start.addr().wrapping_neg() & (align - 1);
    // SAFETY: `before` is less than `align`, so that block, cuts and their ends are inside of the mapping, which nobody knows of
    // yet. Advice that is not taken changes nothing.
    unsafe {
        let block = start.cast::<u8>().add(before);
        unmap(start.cast(), before);
        unmap(block.add(length), align - before);
        libc::madvise(block.cast(), length, libc::MADV_HUGEPAGE);
        block
    }
}

/// Gives a part of a mapping back; nothing, if it is empty.
///
/// # Safety
/// The part must be a mapping of [`map`], or the end of one, and nobody may use it any more.
unsafe fn unmap(start: *mut u8, length: usize) {
    if length > 0 {
        // It fails only where the process has too many mappings; the part is then lost to it, and that is all.
        // SAFETY: as the caller promises.
        unsafe { libc::munmap(start.cast(), length) };
    }
}

/// What the system does with a program that asks for huge pages: `always` and `madvise` give them, `never` does not; `None`
/// where the kernel has none.
pub fn setting() -> Option<String> {
    chosen(&std::fs::read_to_string(SWITCH).ok()?)
}

/// The word in brackets.
fn chosen(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    /// Kilobytes of a field of the mapping that holds this address (proc_pid_smaps(5)).
    fn smaps(block: *const u8, field: &str) -> u64 {
        let text = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        for line in text.lines() {
            if let Some((range, _)) = line.split_once(' ').filter(|(word, _)| word.contains('-')) {
                let ends: Vec<usize> = range.split('-').map(|end| usize::from_str_radix(end, 16).unwrap()).collect();
                inside = (ends[0]..ends[1]).contains(&block.addr());
            } else if let Some(rest) = line.strip_prefix(field).filter(|_| inside) {
                return rest.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap();
            }
        }
        panic!("no mapping holds the address")
    }

    #[test]
    fn a_large_block_is_aligned_zeroed_and_takes_no_memory_before_it_is_touched() {
        let layout = layout((64 << 20) + 3, 8);
        // SAFETY: the layout is not empty; the block is used inside its length, and given back with its own layout.
        unsafe {
            let block = HugePages.alloc_zeroed(layout);
            assert_eq!(block.addr() % (2 << 20), 0);
            assert!(smaps(block, "Size") >= 64 << 10);
            assert!(smaps(block, "Rss") < 64, "a neighbour that was merged with it may be in use, but this is not");
            assert_eq!((*block, *block.add((64 << 20) + 2)), (0, 0));
            *block.add(5 << 20) = 7;
            HugePages.dealloc(block, layout);
        }
    }

    #[test]
    fn a_touch_of_a_large_block_brings_a_huge_page_where_the_system_gives_them() {
        let layout = layout(32 << 20, 64);
        // SAFETY: as above.
        unsafe {
            let block = HugePages.alloc(layout);
            *block.add(9 << 20) = 1;
            let huge = smaps(block, "AnonHugePages");
            HugePages.dealloc(block, layout);
            match setting().as_deref() {
                // A fragmented memory may have none to give.
                Some("always" | "madvise") => assert!(huge == 0 || huge >= 2048, "{huge}"),
                _ => assert_eq!(huge, 0),
            }
        }
    }

    #[test]
    fn blocks_keep_what_they_hold_when_they_grow_and_shrink_past_the_limit() {
        let sizes = [100, 5 << 20, 40 << 20, 4 << 20, (4 << 20) - 1, 9 << 20];
        for align in [1, 16, 4096, 64 << 10, 4 << 20] {
            let mut held = layout(sizes[0], align);
            // SAFETY: each block is used inside its length, grown with the layout it has, and given back with its last one.
            unsafe {
                let mut block = HugePages.alloc(held);
                (0..100).for_each(|at| *block.add(at) = at as u8);
                for size in &sizes[1..] {
                    block = HugePages.realloc(block, held, *size);
                    held = layout(*size, align);
                    assert_eq!(block.addr() % align, 0, "{size} bytes, aligned to {align}");
                    assert!((0..100).all(|at| *block.add(at) == at as u8));
                    *block.add(*size - 1) = 1;
                }
                HugePages.dealloc(block, held);
            }
        }
    }

    #[test]
    fn what_cannot_be_mapped_is_null_and_no_panic() {
        // SAFETY: the layout is not empty.
        unsafe {
            assert!(HugePages.alloc(layout(1 << 60, 8)).is_null());
            assert!(HugePages.alloc_zeroed(layout(isize::MAX as usize - 7, 8)).is_null());
        }
    }

    #[test]
    fn the_setting_is_the_word_in_brackets() {
        assert_eq!(chosen("always [madvise] never\n").as_deref(), Some("madvise"));
        assert_eq!(chosen("always madvise [never]\n").as_deref(), Some("never"));
        assert_eq!(chosen(""), None);
    }
}
