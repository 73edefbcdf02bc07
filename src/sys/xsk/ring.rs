//! The rings that the kernel shares with an AF_XDP socket, each mapped once: indices as atomics, entries as plain values.
//!
//! ```text
//!   mapping │ producer │ consumer │ flags │ … │ entry 0 │ entry 1 │ …        where each is, XDP_MMAP_OFFSETS tells
//! ```
//!
//! Of the two indices one side writes the one and the other side the other. Who produces writes entries and then the
//! index, with *release*; who consumes reads the index with *acquire* and then the entries, and says with *release*
//! that it is done with them, which the producer reads with *acquire* before it overwrites them. That is the whole of
//! the order; and since a ring belongs to one thread of ours, no two threads of this program meet in it.

use super::cursor::{Consumer, Producer};
use super::memory::Mapping;
use std::io;
use std::mem::{align_of, size_of};
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// What rings hold: addresses and descriptors.
///
/// # Safety
/// Any bytes are a value of it.
pub(super) unsafe trait Entry: Copy {}

// SAFETY: any bytes are a number.
unsafe impl Entry for u64 {}
// SAFETY: three numbers without padding.
unsafe impl Entry for libc::xdp_desc {}

/// Where the parts of a ring are, checked to be inside of its mapping.
#[derive(Debug)]
struct Shared<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    size: usize,
    _mapping: Mapping,
}

/// A ring into which we put.
#[derive(Debug)]
pub(super) struct OutRing<T> {
    shared: Shared<T>,
    cursor: Producer,
}

/// A ring from which we take.
#[derive(Debug)]
pub(super) struct InRing<T> {
    shared: Shared<T>,
    cursor: Consumer,
}

// SAFETY: the pointers lead into the mapping that the value owns, and the other side is the kernel, whoever we are.
unsafe impl<T: Entry + Send> Send for Shared<T> {}

impl<T: Entry> Shared<T> {
    fn map(socket: BorrowedFd<'_>, page_offset: i64, offsets: &libc::xdp_ring_offset, size: u32) -> io::Result<Self> {
        let size = size as usize;
        let at = |offset: u64| usize::try_from(offset).map_err(|_| strange());
        let (producer, consumer) = (at(offsets.producer)?, at(offsets.consumer)?);
        let (flags, entries) = (at(offsets.flags)?, at(offsets.desc)?);
        let length = size.checked_mul(size_of::<T>()).and_then(|length| length.checked_add(entries));
        let mapping = Mapping::of_socket(socket, page_offset, length.ok_or_else(strange)?)?;
        Ok(Shared {
            producer: mapping.place(producer, 1).ok_or_else(strange)?,
            consumer: mapping.place(consumer, 1).ok_or_else(strange)?,
            flags: mapping.place(flags, 1).ok_or_else(strange)?,
            entries: mapping.place(entries, size).ok_or_else(strange)?,
            size,
            _mapping: mapping,
        })
    }

    fn index(&self, which: NonNull<AtomicU32>) -> &AtomicU32 {
        // SAFETY: `map` has checked that it lies, aligned, in the mapping, which lives as long as `self`. The kernel
        // writes it as atomically as we do, and any bytes are a number.
        unsafe { which.as_ref() }
    }

    fn entry(&self, place: usize) -> NonNull<T> {
        assert!(place < self.size, "place {place} of {}", self.size);
        // SAFETY: `map` has checked that `size` entries lie in the mapping.
        unsafe { self.entries.add(place) }
    }

    /// Whether the kernel asks to be called (XDP_RING_NEED_WAKEUP).
    fn needs_wakeup(&self) -> bool {
        self.index(self.flags).load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

impl<T: Entry> OutRing<T> {
    /// Maps the ring of `size` entries at `page_offset` of a socket that has not been bound yet.
    pub(super) fn map(
        socket: BorrowedFd<'_>,
        page_offset: i64,
        offsets: &libc::xdp_ring_offset,
        size: u32,
    ) -> io::Result<Self> {
        let shared = Shared::map(socket, page_offset, offsets, size)?;
        let at = shared.index(shared.producer).load(Ordering::Relaxed);
        Ok(OutRing { shared, cursor: Producer::new(size, at) })
    }

    /// Puts an entry in, if there is room; the kernel does not see it yet.
    pub(super) fn push(&mut self, entry: T) -> bool {
        let Some(place) = self.cursor.advance() else { return false };
        // SAFETY: the place is inside, and between the two indices the entries are ours.
        unsafe { self.shared.entry(place).write(entry) };
        true
    }

    /// Shows the kernel what was put in.
    pub(super) fn publish(&self) {
        self.shared.index(self.shared.producer).store(self.cursor.produced(), Ordering::Release);
    }

    /// Looks how many more entries the kernel has taken since the last call.
    pub(super) fn take_note(&mut self) -> u32 {
        self.cursor.note_consumed(self.shared.index(self.shared.consumer).load(Ordering::Acquire))
    }

    /// Places that are free, as far as we know.
    pub(super) fn free(&self) -> u32 {
        self.cursor.free()
    }

    /// Places in all.
    pub(super) fn size(&self) -> u32 {
        self.shared.size as u32
    }

    /// Whether the kernel has taken everything, as far as we know.
    pub(super) fn is_empty(&self) -> bool {
        self.cursor.waiting() == 0
    }

    /// Whether the kernel asks to be called.
    pub(super) fn needs_wakeup(&self) -> bool {
        self.shared.needs_wakeup()
    }

    /// Replaces every entry that the kernel has not taken, oldest first. Only while it is certain that the kernel takes
    /// none meanwhile.
    pub(super) fn replace_waiting(&mut self, mut with: impl FnMut(T) -> T) {
        for place in self.cursor.waiting_places() {
            let entry = self.shared.entry(place);
            // SAFETY: the place is inside; nobody writes it but us.
            unsafe { entry.write(with(entry.read())) };
        }
    }
}

impl<T: Entry> InRing<T> {
    /// As [`OutRing::map`].
    pub(super) fn map(
        socket: BorrowedFd<'_>,
        page_offset: i64,
        offsets: &libc::xdp_ring_offset,
        size: u32,
    ) -> io::Result<Self> {
        let shared = Shared::map(socket, page_offset, offsets, size)?;
        let at = shared.index(shared.consumer).load(Ordering::Relaxed);
        Ok(InRing { shared, cursor: Consumer::new(size, at) })
    }

    /// Takes the next entry out. The kernel is not told yet.
    pub(super) fn pop(&mut self) -> Option<T> {
        if self.cursor.waiting() == 0 {
            self.cursor.note_produced(self.shared.index(self.shared.producer).load(Ordering::Acquire));
        }
        let place = self.cursor.advance()?;
        // SAFETY: the place is inside, the kernel has written it before its index, and any bytes are an entry.
        Some(unsafe { self.shared.entry(place).read() })
    }

    /// Tells the kernel what was taken out.
    pub(super) fn release(&self) {
        self.shared.index(self.shared.consumer).store(self.cursor.consumed(), Ordering::Release);
    }
}

/// The kernel says of its rings what cannot be.
fn strange() -> io::Error {
    nix::errno::Errno::EPROTO.into()
}

const _: () = assert!(align_of::<libc::xdp_desc>() == 8 && size_of::<libc::xdp_desc>() == 16);
