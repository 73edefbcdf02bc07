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

/// One of the two indices of a ring.
#[derive(Clone, Copy, Debug)]
pub(super) enum Index {
    Producer,
    Consumer,
}

/// Where a ring is: in memory that we share with the kernel; in tests, in memory where two threads of a model meet.
pub(super) trait Memory {
    /// What it holds.
    type Entry: Copy;

    fn load(&self, index: Index, order: Ordering) -> u32;

    fn store(&self, index: Index, value: u32, order: Ordering);

    /// # Safety
    /// The entry at this place must be ours: between what we have produced and what the other side has consumed.
    ///
    /// # Panics
    /// If the place is outside of the ring.
    unsafe fn write(&mut self, place: usize, entry: Self::Entry);

    /// # Safety
    /// Nobody may write the entry at this place meanwhile.
    ///
    /// # Panics
    /// If the place is outside of the ring.
    unsafe fn read(&self, place: usize) -> Self::Entry;
}

/// Where the parts of a ring are in a mapping, checked to be inside.
#[derive(Debug)]
pub(super) struct Mapped<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    size: usize,
    _mapping: Mapping,
}

/// A ring into which we put.
#[derive(Debug)]
pub(super) struct OutRing<M> {
    memory: M,
    cursor: Producer,
}

/// A ring from which we take.
#[derive(Debug)]
pub(super) struct InRing<M> {
    memory: M,
    cursor: Consumer,
}

// SAFETY: the pointers lead into the mapping that the value owns, and the other side is the kernel, whoever we are.
unsafe impl<T: Entry + Send> Send for Mapped<T> {}

impl<T: Entry> Mapped<T> {
    fn new(socket: BorrowedFd<'_>, page_offset: i64, offsets: &libc::xdp_ring_offset, size: u32) -> io::Result<Self> {
        let size = size as usize;
        let at = |offset: u64| usize::try_from(offset).map_err(|_| strange());
        let (producer, consumer) = (at(offsets.producer)?, at(offsets.consumer)?);
        let (flags, entries) = (at(offsets.flags)?, at(offsets.desc)?);
        let length = size.checked_mul(size_of::<T>()).and_then(|length| length.checked_add(entries));
        let mapping = Mapping::of_socket(socket, page_offset, length.ok_or_else(strange)?)?;
        Ok(Mapped {
            producer: mapping.place(producer, 1).ok_or_else(strange)?,
            consumer: mapping.place(consumer, 1).ok_or_else(strange)?,
            flags: mapping.place(flags, 1).ok_or_else(strange)?,
            entries: mapping.place(entries, size).ok_or_else(strange)?,
            size,
            _mapping: mapping,
        })
    }

    fn word(&self, which: NonNull<AtomicU32>) -> &AtomicU32 {
        // SAFETY: `new` has checked that it lies, aligned, in the mapping, which lives as long as `self`. The kernel
        // writes it as atomically as we do, and any bytes are a number.
        unsafe { which.as_ref() }
    }

    fn index(&self, index: Index) -> &AtomicU32 {
        self.word(match index {
            Index::Producer => self.producer,
            Index::Consumer => self.consumer,
        })
    }

    fn entry(&self, place: usize) -> NonNull<T> {
        assert!(place < self.size, "place {place} of {}", self.size);
        // SAFETY: `new` has checked that `size` entries lie in the mapping.
        unsafe { self.entries.add(place) }
    }

    /// Whether the kernel asks to be called (XDP_RING_NEED_WAKEUP).
    fn needs_wakeup(&self) -> bool {
        self.word(self.flags).load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

impl<T: Entry> Memory for Mapped<T> {
    type Entry = T;

    fn load(&self, index: Index, order: Ordering) -> u32 {
        self.index(index).load(order)
    }

    fn store(&self, index: Index, value: u32, order: Ordering) {
        self.index(index).store(value, order);
    }

    unsafe fn write(&mut self, place: usize, entry: T) {
        // SAFETY: the place is inside, and the caller says that it is ours.
        unsafe { self.entry(place).write(entry) };
    }

    unsafe fn read(&self, place: usize) -> T {
        // SAFETY: the place is inside, any bytes are an entry, and the caller says that nobody writes it.
        unsafe { self.entry(place).read() }
    }
}

impl<M: Memory> OutRing<M> {
    /// A ring of `size` entries as it is found.
    fn over(memory: M, size: u32) -> Self {
        let at = memory.load(Index::Producer, Ordering::Relaxed);
        OutRing { memory, cursor: Producer::new(size, at) }
    }

    /// Puts an entry in, if there is room; the kernel does not see it yet.
    pub(super) fn push(&mut self, entry: M::Entry) -> bool {
        let Some(place) = self.cursor.advance() else { return false };
        // SAFETY: of a free place the other side has said that it is done with it, and it has not been shown to it since.
        unsafe { self.memory.write(place, entry) };
        true
    }

    /// Shows the kernel what was put in.
    pub(super) fn publish(&self) {
        self.memory.store(Index::Producer, self.cursor.produced(), Ordering::Release);
    }

    /// Looks how many more entries the kernel has taken since the last call.
    pub(super) fn take_note(&mut self) -> u32 {
        self.cursor.note_consumed(self.memory.load(Index::Consumer, Ordering::Acquire))
    }

    /// Places that are free, as far as we know.
    pub(super) fn free(&self) -> u32 {
        self.cursor.free()
    }

    /// Whether the kernel has taken everything, as far as we know.
    pub(super) fn is_empty(&self) -> bool {
        self.cursor.waiting() == 0
    }

    /// Replaces every entry that the kernel has not taken, oldest first. Only while it is certain that the kernel takes
    /// none meanwhile.
    pub(super) fn replace_waiting(&mut self, mut with: impl FnMut(M::Entry) -> M::Entry) {
        for place in self.cursor.waiting_places() {
            // SAFETY: nobody writes an entry that we have produced but us.
            let entry = with(unsafe { self.memory.read(place) });
            // SAFETY: the caller says that the kernel does not look.
            unsafe { self.memory.write(place, entry) };
        }
    }
}

impl<T: Entry> OutRing<Mapped<T>> {
    /// Maps the ring of `size` entries at `page_offset` of a socket that has not been bound yet.
    pub(super) fn map(
        socket: BorrowedFd<'_>,
        page_offset: i64,
        offsets: &libc::xdp_ring_offset,
        size: u32,
    ) -> io::Result<Self> {
        Ok(Self::over(Mapped::new(socket, page_offset, offsets, size)?, size))
    }

    /// Places in all.
    pub(super) fn size(&self) -> u32 {
        self.memory.size as u32
    }

    /// Whether the kernel asks to be called.
    pub(super) fn needs_wakeup(&self) -> bool {
        self.memory.needs_wakeup()
    }
}

impl<M: Memory> InRing<M> {
    /// A ring of `size` entries as it is found.
    fn over(memory: M, size: u32) -> Self {
        let at = memory.load(Index::Consumer, Ordering::Relaxed);
        InRing { memory, cursor: Consumer::new(size, at) }
    }

    /// Takes the next entry out. The kernel is not told yet.
    pub(super) fn pop(&mut self) -> Option<M::Entry> {
        if self.cursor.waiting() == 0 {
            self.cursor.note_produced(self.memory.load(Index::Producer, Ordering::Acquire));
        }
        let place = self.cursor.advance()?;
        // SAFETY: the other side has written it before its index, and does not write it again before we release it.
        Some(unsafe { self.memory.read(place) })
    }

    /// Tells the kernel what was taken out.
    pub(super) fn release(&self) {
        self.memory.store(Index::Consumer, self.cursor.consumed(), Ordering::Release);
    }
}

impl<T: Entry> InRing<Mapped<T>> {
    /// As [`OutRing::map`].
    pub(super) fn map(
        socket: BorrowedFd<'_>,
        page_offset: i64,
        offsets: &libc::xdp_ring_offset,
        size: u32,
    ) -> io::Result<Self> {
        Ok(Self::over(Mapped::new(socket, page_offset, offsets, size)?, size))
    }
}

/// The kernel says of its rings what cannot be.
fn strange() -> io::Error {
    nix::errno::Errno::EPROTO.into()
}

const _: () = assert!(align_of::<libc::xdp_desc>() == 8 && size_of::<libc::xdp_desc>() == 16);

// Loom's threads change stacks, which address sanitizer does not follow.
#[cfg(all(test, not(sanitized)))]
mod tests {
    //! Both ends of a ring on two threads, in every order in which memory may show them to each other (loom).

    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU32;

    /// A ring's memory whose every access loom sees: an entry that both sides touch without an order between them ends the
    /// model.
    struct Model {
        producer: AtomicU32,
        consumer: AtomicU32,
        entries: Vec<UnsafeCell<u64>>,
    }

    impl Memory for Arc<Model> {
        type Entry = u64;

        fn load(&self, index: Index, order: Ordering) -> u32 {
            self.index(index).load(order)
        }

        fn store(&self, index: Index, value: u32, order: Ordering) {
            self.index(index).store(value, order);
        }

        unsafe fn write(&mut self, place: usize, entry: u64) {
            // SAFETY: loom has just seen that nobody else is at it.
            self.entries[place].with_mut(|at| unsafe { *at = entry });
        }

        unsafe fn read(&self, place: usize) -> u64 {
            // SAFETY: as above.
            self.entries[place].with(|at| unsafe { *at })
        }
    }

    impl Model {
        fn index(&self, index: Index) -> &AtomicU32 {
            match index {
                Index::Producer => &self.producer,
                Index::Consumer => &self.consumer,
            }
        }
    }

    /// One thread puts `count` numbers into a ring of `size`, another one takes them out; both wait for each other.
    fn numbers_pass(size: u32, count: u64) {
        loom::model(move || {
            // The indices wrap on the way.
            let at = u32::MAX;
            let entries = (0..size).map(|_| UnsafeCell::new(0)).collect();
            let memory = Arc::new(Model { producer: AtomicU32::new(at), consumer: AtomicU32::new(at), entries });
            let (mut out, mut incoming) = (OutRing::over(Arc::clone(&memory), size), InRing::over(memory, size));
            let producer = loom::thread::spawn(move || {
                for number in 1..=count {
                    while !out.push(number) {
                        if out.take_note() == 0 {
                            loom::thread::yield_now();
                        }
                    }
                    out.publish();
                }
            });
            let mut taken = 0;
            while taken < count {
                match incoming.pop() {
                    Some(number) => {
                        taken += 1;
                        assert_eq!(number, taken);
                        incoming.release();
                    }
                    None => loom::thread::yield_now(),
                }
            }
            producer.join().unwrap();
        });
    }

    #[test]
    fn whatever_order_memory_takes_no_entry_is_read_before_it_is_written_or_written_before_it_is_read() {
        numbers_pass(1, 3);
        numbers_pass(2, 3);
    }
}
