//! A copy of everything that a transport moves, in a file: the tap.
//!
//! ```text
//!   transport ──receive/transmit──▶ Tap ──▶ engine            the group's thread: copies into memory, never waits
//!                                    │
//!                              buffer (4 MiB) ──▶ thread ──▶ name.pcap  name.1.pcap  name.2.pcap …
//!                                                             newest ──────────────▶ oldest
//! ```
//!
//! The disk is never waited for: when it is slower than the link, packets are left out and counted. When it fails, the tap
//! ends with a reason that can be asked for, and the transport goes on. What is in the file are IP packets as they were on
//! the wire, with headers made anew: a transport hands out frames without them.

use super::writer::{Format, Writer, ip_header};
use crate::sys::poll::Descriptors;
use crate::transport::{Limits, Transport, TransportCounters};
use crate::wire::{FrameMeta, IP_PROTOCOL};
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::mem;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Bytes of packets that may wait for the disk.
pub const TAP_BUFFER: usize = 4 << 20;
/// Longest time that the end of a tap waits for what is still to be written.
const FAREWELL: Duration = Duration::from_secs(1);
/// Bytes before each packet in the buffer: time in nanoseconds (8), length (4).
const LABEL_LEN: usize = 12;

/// Where a tap writes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TapOptions {
    /// The newest file; its extension decides the format.
    pub file: PathBuf,
    /// Bytes after which a new file is begun.
    pub file_len: u64,
    /// Files that are kept, the newest included; at least 1.
    pub files: u32,
    /// The address that our own frames carry in the recording.
    pub source: IpAddr,
    /// The address that all frames are sent to, of the same family.
    pub destination: IpAddr,
}

/// How a tap stands.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct TapStatus {
    /// Packets that were handed to the disk.
    pub packets: u64,
    /// Bytes of them, without the file's own headers.
    pub bytes: u64,
    /// Packets that were left out, because the disk was too slow or has failed.
    pub dropped: u64,
    /// Why it has ended; `None` while it writes.
    pub trouble: Option<String>,
}

/// A transport of which everything is copied into a file.
pub struct Tap<T> {
    inner: T,
    source: IpAddr,
    destination: IpAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the two threads share.
#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// Something to write, or the end.
    news: Condvar,
    /// The writer has ended.
    ended: Condvar,
    packets: AtomicU64,
    bytes: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicBool,
}

#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    closed: bool,
    ended: bool,
    trouble: Option<String>,
}

impl<T> Tap<T> {
    /// Taps a transport. A file that cannot be written is no error here: see [`Tap::status`]. Files of an earlier tap are
    /// moved on, never overwritten before their time.
    ///
    /// # Errors
    /// The operating system's: no thread can be made.
    pub fn new(inner: T, options: &TapOptions) -> io::Result<Self> {
        Self::begun_by(inner, options, || {})
    }

    /// The same; the thread that writes begins with `first`, as to give up rights that the caller has.
    ///
    /// # Errors
    /// As for [`Tap::new`].
    pub fn begun_by(inner: T, options: &TapOptions, first: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        lock(&shared.queue).bytes.reserve_exact(TAP_BUFFER);
        let mut disk = Disk { options: options.clone(), spare: Vec::with_capacity(TAP_BUFFER), shared: shared.clone() };
        let body = move || {
            first();
            disk.run();
        };
        let thread = std::thread::Builder::new().name("tap".into()).spawn(body)?;
        let (source, destination) = (options.source, options.destination);
        Ok(Tap { inner, source, destination, shared, thread: Some(thread) })
    }

    /// The transport below.
    pub fn inner(&self) -> &T {
        &self.inner
    }

    /// The transport below.
    pub fn inner_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    /// How the tap stands.
    pub fn status(&self) -> TapStatus {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TapStatus {
            packets: count(&self.shared.packets),
            bytes: count(&self.shared.bytes),
            dropped: count(&self.shared.dropped),
            trouble: lock(&self.shared.queue).trouble.clone(),
        }
    }
}

impl<T: Transport> Transport for Tap<T> {
    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn receive(&mut self, deliver: &mut dyn FnMut(FrameMeta, &mut [u8])) -> io::Result<usize> {
        let (shared, destination, now) = (&self.shared, self.destination, since_epoch());
        self.inner.receive(&mut |meta, frame| {
            shared.take(now, meta.source, destination, frame);
            deliver(meta, frame);
        })
    }

    fn transmit(&mut self, fill: &mut dyn FnMut(&mut [u8]) -> Option<usize>) -> io::Result<usize> {
        let (shared, source, destination, now) = (&self.shared, self.source, self.destination, since_epoch());
        self.inner.transmit(&mut |slot| {
            let length = fill(slot)?;
            if let Some(frame) = slot.get(..length) {
                shared.take(now, source, destination, frame);
            }
            Some(length)
        })
    }

    fn pending(&self) -> usize {
        self.inner.pending()
    }

    fn readiness(&self) -> Descriptors<'_> {
        self.inner.readiness()
    }

    fn counters(&self) -> TransportCounters {
        self.inner.counters()
    }
}

impl<T> Drop for Tap<T> {
    /// Lets the thread write what it has, for a while: a disk that hangs must not keep the daemon from ending.
    fn drop(&mut self) {
        let mut queue = lock(&self.shared.queue);
        queue.closed = true;
        self.shared.news.notify_one();
        let until = Instant::now() + FAREWELL;
        while !queue.ended {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return tracing::warn!("the tap's disk is too slow: the end of the recording may be missing");
            }
            queue = self.shared.ended.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(queue);
        if let Some(thread) = self.thread.take() {
            // A panic there has ended the process already, or is said on standard error.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Copies a frame into the buffer, as an IP packet.
    fn take(&self, now: Duration, source: IpAddr, destination: IpAddr, frame: &[u8]) {
        let source = same_family(source, destination);
        let header = ip_header(source, destination, IP_PROTOCOL, frame.len());
        let Some(header) = header.filter(|_| !self.failed.load(Ordering::Relaxed)) else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let header = header.as_ref();
        let length = header.len() + frame.len();
        let mut queue = lock(&self.queue);
        if queue.bytes.len() + LABEL_LEN + length > TAP_BUFFER {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let was_empty = queue.bytes.is_empty();
        queue.bytes.extend_from_slice(&(now.as_nanos() as u64).to_ne_bytes());
        queue.bytes.extend_from_slice(&(length as u32).to_ne_bytes());
        queue.bytes.extend_from_slice(header);
        queue.bytes.extend_from_slice(frame);
        drop(queue);
        if was_empty {
            self.news.notify_one();
        }
    }
}

/// A transport of memory has IPv4 addresses whatever the group's family is; a packet has one family.
fn same_family(source: IpAddr, destination: IpAddr) -> IpAddr {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V6(_)) => IpAddr::V6(source.to_ipv6_mapped()),
        (IpAddr::V6(_), IpAddr::V4(_)) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        _ => source,
    }
}

/// The thread that writes.
struct Disk {
    options: TapOptions,
    /// Empty, to be exchanged for what waits.
    spare: Vec<u8>,
    shared: Arc<Shared>,
}

impl Disk {
    fn run(&mut self) {
        let result = self.write();
        let mut queue = lock(&self.shared.queue);
        queue.trouble = result.err().map(|error| format!("{}: {error}", self.options.file.display()));
        self.shared.failed.store(queue.trouble.is_some(), Ordering::Relaxed);
        queue.ended = true;
        self.shared.ended.notify_all();
    }

    fn write(&mut self) -> Result<(), super::WriteError> {
        let mut writer = self.begin()?;
        loop {
            let closed = self.fetch();
            let mut rest = self.spare.as_slice();
            while let Some((time, packet, behind)) = next(rest) {
                if writer.written() >= self.options.file_len {
                    writer.flush()?;
                    writer = self.begin()?;
                }
                writer.write(time, packet)?;
                self.shared.packets.fetch_add(1, Ordering::Relaxed);
                self.shared.bytes.fetch_add(packet.len() as u64, Ordering::Relaxed);
                rest = behind;
            }
            writer.flush()?;
            if closed {
                return Ok(());
            }
        }
    }

    /// Waits for packets and takes them all; whether the tap is closed.
    fn fetch(&mut self) -> bool {
        self.spare.clear();
        let mut queue = lock(&self.shared.queue);
        while queue.bytes.is_empty() && !queue.closed {
            queue = self.shared.news.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        mem::swap(&mut queue.bytes, &mut self.spare);
        queue.closed
    }

    /// Moves the files on by one, forgets the oldest, and begins the newest.
    fn begin(&self) -> Result<Writer<BufWriter<File>>, super::WriteError> {
        let name = |age| aged(&self.options.file, age);
        for age in (1..self.options.files).rev() {
            move_on(&name(age - 1), &name(age))?;
        }
        let format = Format::of(&self.options.file).unwrap_or(Format::Pcap);
        Writer::new(format, BufWriter::new(File::create(&self.options.file)?))
    }
}

/// The packet at the front of the buffer, and what is behind it.
fn next(bytes: &[u8]) -> Option<(Duration, &[u8], &[u8])> {
    let (time, rest) = bytes.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (packet, rest) = rest.split_at_checked(u32::from_ne_bytes(*length) as usize)?;
    Some((Duration::from_nanos(u64::from_ne_bytes(*time)), packet, rest))
}

/// `name.pcap` at age 0, `name.1.pcap` at age 1.
fn aged(file: &Path, age: u32) -> PathBuf {
    match (age, file.extension().and_then(|extension| extension.to_str())) {
        (0, _) | (_, None) => file.to_owned(),
        (age, Some(extension)) => file.with_extension(format!("{age}.{extension}")),
    }
}

fn move_on(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::MemoryHub;
    use crate::transport::pcap::{Layers, Reader};

    fn options(file: PathBuf) -> TapOptions {
        let [source, destination] = ["10.0.0.1", "224.0.0.81"].map(|address| address.parse().unwrap());
        TapOptions { file, file_len: 1 << 20, files: 2, source, destination }
    }

    /// Sends one frame of these bytes.
    fn send(transport: &mut impl Transport, frame: &[u8]) {
        let mut left = Some(frame);
        let sent = transport.transmit(&mut |slot| {
            let frame = left.take()?;
            slot[..frame.len()].copy_from_slice(frame);
            Some(frame.len())
        });
        assert_eq!(sent.unwrap(), 1);
    }

    /// Sender and payload of every packet in a file.
    fn recorded(file: &Path) -> Vec<(String, String)> {
        let (mut reader, mut layers) = (Reader::open(file).unwrap(), Layers::new());
        let mut all = Vec::new();
        while let Some(packet) = reader.next_packet().unwrap() {
            let datagram = layers.datagram(packet.link, packet.bytes).unwrap().unwrap();
            assert_eq!((datagram.protocol, datagram.ttl, datagram.checksum), (114, 255, Some(true)));
            assert_eq!(datagram.destination.to_string(), "224.0.0.81");
            assert!(packet.time > Duration::from_secs(1_700_000_000));
            all.push((datagram.source.to_string(), String::from_utf8_lossy(datagram.payload).into_owned()));
        }
        all
    }

    #[test]
    fn both_directions_are_recorded_and_nothing_is_changed() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["tap.pcap", "tap.pcapng"] {
            let file = directory.path().join(name);
            let hub = MemoryHub::new();
            let mut other = hub.port();
            let mut tap = Tap::new(hub.port(), &options(file.clone())).unwrap();
            send(&mut tap, b"ours");
            send(&mut other, b"theirs");
            let mut heard = Vec::new();
            tap.receive(&mut |_, frame| heard.push(frame.to_vec())).unwrap();
            assert_eq!(heard, [b"theirs"]);
            assert_eq!(other.receive(&mut |_, frame| assert_eq!(frame, b"ours")).unwrap(), 1);
            drop(tap);
            let expected = [("10.0.0.1", "ours"), ("127.1.0.0", "theirs")];
            assert_eq!(recorded(&file), expected.map(|(from, frame)| (from.to_owned(), frame.to_owned())), "{name}");
        }
    }

    #[test]
    fn files_are_moved_on_by_size_and_only_so_many_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tap.pcap");
        fs::write(&file, "of an earlier run").unwrap();
        let mut tap = Tap::new(MemoryHub::new().port(), &TapOptions { file_len: 60, ..options(file.clone()) }).unwrap();
        for frame in [b"one", b"two", b"six"] {
            send(&mut tap, frame);
        }
        drop(tap);
        let frames =
            |name| recorded(&directory.path().join(name)).into_iter().map(|(_, frame)| frame).collect::<Vec<_>>();
        assert_eq!((frames("tap.1.pcap"), frames("tap.pcap")), (vec!["two".to_owned()], vec!["six".to_owned()]));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_tap_that_cannot_write_says_so_and_the_transport_goes_on() {
        let hub = MemoryHub::new();
        let mut other = hub.port();
        let mut tap = Tap::new(hub.port(), &options("/nowhere/at/all/tap.pcap".into())).unwrap();
        let start = Instant::now();
        while tap.status().trouble.is_none() {
            assert!(start.elapsed() < Duration::from_secs(60), "it never says so");
            std::thread::yield_now();
        }
        send(&mut tap, b"ours");
        assert_eq!(other.receive(&mut |_, frame| assert_eq!(frame, b"ours")).unwrap(), 1);
        let trouble = "/nowhere/at/all/tap.pcap: No such file or directory (os error 2)".to_owned();
        assert_eq!(tap.status(), TapStatus { packets: 0, bytes: 0, dropped: 1, trouble: Some(trouble) });
    }
}
