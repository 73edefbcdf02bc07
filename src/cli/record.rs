//! `ssyncp record`: what passes on a link, into a file that `decode`, `replay` and every other tool can read.
//!
//! Frames of protocol 114 and sync messages of IPVS, in both directions, as IP packets with their real headers. The
//! packets are taken below the IP layer (AF_PACKET), so nothing needs to run here, and nobody notices.

use super::output::complain;
use super::{EXIT_NO, EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_USAGE};
use crate::daemon::settings::parse_duration;
use crate::sys::poll;
use crate::sys::socket::{self, PacketSocket};
use crate::time::Duration;
use crate::transport::pcap::{Format, Layers, WriteError, Writer};
use crate::wire::IP_PROTOCOL;
use crate::wire::ipvs::{PORT, PORTS_MAX};
use indicatif::ProgressBar;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use std::fs::File;
use std::io::{self, BufWriter};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Bytes of the longest packet that an interface hands out.
const PACKET_LEN_MAX: usize = 65_535;
/// Packets of one interface that are taken before the others are looked at.
const BATCH: usize = 256;
/// Packets of one interface that are taken at the end: more than its buffer holds of the smallest.
const BATCH_LAST: usize = 1 << 16;
/// Most interfaces.
const INTERFACES_MAX: usize = 32;
/// IANA protocol number of UDP.
const UDP: u8 = crate::flow::protocol::UDP;

/// What `ssyncp record` can be asked.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  ssyncp record sync.pcap -i eth1\n  ssyncp record sync.pcapng -i eth1 -i eth2 --duration 30s\n\n\
    Ends with Ctrl-C, or when it has enough. A recording from which `ssyncp replay --verify` shall rebuild the\n\
    table must begin before the backup joins. Exit status: 1 if the kernel had to drop packets."
)]
pub(super) struct Options {
    /// The file to write, which must not exist: .pcap or .pcapng.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// An interface to record; may be repeated. Without it, all are.
    #[arg(short, long, value_name = "IFACE")]
    interface: Vec<String>,
    /// End after so many packets.
    #[arg(long, value_name = "PACKETS", conflicts_with = "duration")]
    count: Option<u64>,
    /// End after this time, as 30s or 5m.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Duration>,
}

/// Why there is no recording.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}: a recording ends in .pcap or .pcapng")]
    Name(PathBuf),
    #[error("{0} is there already; remove it, or name another file")]
    Exists(PathBuf),
    #[error("there is no interface {0:?}")]
    NoInterface(String),
    #[error("more than {INTERFACES_MAX} interfaces; without -i, all are recorded")]
    TooMany,
    #[error("recording needs the capability CAP_NET_RAW: run it as root")]
    Rights,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the file: {0}")]
    Write(#[from] WriteError),
}

impl Failure {
    fn status(&self) -> u8 {
        match self {
            Failure::Name(_) | Failure::TooMany => EXIT_USAGE,
            Failure::NoInterface(_) => EXIT_UNREACHABLE,
            Failure::Exists(_) | Failure::Rights => EXIT_REFUSED,
            Failure::Io(_) | Failure::Write(_) => EXIT_NO,
        }
    }
}

pub(super) fn run(options: &Options) -> ExitCode {
    match record(options) {
        Ok((packets, 0)) => {
            complain(&format!("{packets} packets recorded in {}, none lost", options.file.display()));
            ExitCode::SUCCESS
        }
        Ok((packets, dropped)) => {
            complain(&format!("{packets} packets recorded; the kernel dropped {dropped} of all that passed"));
            ExitCode::from(EXIT_NO)
        }
        Err(failure) => {
            complain(&failure.to_string());
            ExitCode::from(failure.status())
        }
    }
}

/// Records until told to end; packets written, and packets that the kernel dropped.
fn record(options: &Options) -> Result<(u64, u64), Failure> {
    let signals = signals()?;
    let mut sockets = open(&options.interface)?;
    let mut recorder = Recorder::create(options)?;
    complain(&format!("recording into {}; end it with Ctrl-C", options.file.display()));
    // Hidden where standard error is no terminal.
    let progress = ProgressBar::new_spinner();
    let until = options.duration.map(|duration| Instant::now() + duration);
    let mut ending = false;
    while !ending && !recorder.is_full() {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let descriptors: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).chain([signals.as_fd()]).collect();
        poll::wait(&descriptors, left)?;
        // What has arrived by now is taken still.
        ending = left.is_some_and(|left| left.is_zero()) || signals.read_signal().map_err(io::Error::from)?.is_some();
        for socket in &mut sockets {
            recorder.take(socket, if ending { BATCH_LAST } else { BATCH })?;
        }
        // What is on the screen is in the file.
        recorder.writer.flush()?;
        progress.set_message(format!("{} packets, {} bytes", recorder.packets, recorder.writer.written()));
        progress.tick();
    }
    progress.finish_and_clear();
    let mut dropped = 0;
    for socket in &sockets {
        dropped += u64::from(socket.dropped()?);
    }
    Ok((recorder.packets, dropped))
}

/// The file, and how much of it there is.
struct Recorder {
    writer: Writer<BufWriter<File>>,
    buffer: Vec<u8>,
    packets: u64,
    enough: u64,
}

impl Recorder {
    fn create(options: &Options) -> Result<Self, Failure> {
        let format = Format::of(&options.file).ok_or_else(|| Failure::Name(options.file.clone()))?;
        let file = File::create_new(&options.file).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Failure::Exists(options.file.clone()),
            _ => Failure::Io(io::Error::other(format!("{}: {error}", options.file.display()))),
        })?;
        let mut writer = Writer::new(format, BufWriter::new(file))?;
        writer.flush()?;
        let enough = options.count.unwrap_or(u64::MAX);
        Ok(Recorder { writer, buffer: vec![0; PACKET_LEN_MAX], packets: 0, enough })
    }

    fn is_full(&self) -> bool {
        self.packets >= self.enough
    }

    /// Takes what has arrived at a socket, at most so many packets.
    fn take(&mut self, socket: &mut PacketSocket, most: usize) -> Result<(), Failure> {
        for _ in 0..most {
            if self.is_full() {
                break;
            }
            let Some((length, time)) = receive(socket, &mut self.buffer)? else { break };
            let packet = &self.buffer[..length.min(PACKET_LEN_MAX)];
            if is_wanted(packet) {
                self.writer.write(time, packet)?;
                self.packets += 1;
            }
        }
        Ok(())
    }
}

/// An interface that goes down is no end: it may come back.
fn receive(socket: &mut PacketSocket, buffer: &mut [u8]) -> io::Result<Option<(usize, Duration)>> {
    match socket.receive(buffer) {
        Err(error) if error.kind() == io::ErrorKind::NetworkDown => Ok(None),
        result => result,
    }
}

/// Frames of protocol 114, and datagrams to the ports of IPVS with all their fragments. (Later fragments of other UDP
/// datagrams are taken, too: they do not tell their port.)
fn is_wanted(packet: &[u8]) -> bool {
    let Ok((datagram, later)) = Layers::peek(packet) else { return false };
    let port = datagram.payload.get(2..4).map(|port| u16::from_be_bytes([port[0], port[1]]));
    match datagram.protocol {
        IP_PROTOCOL => true,
        UDP if later => true,
        UDP => port.is_some_and(|port| (PORT..PORT + PORTS_MAX).contains(&port)),
        _ => false,
    }
}

/// Ctrl-C and its kind, as something to wait on.
fn signals() -> io::Result<SignalFd> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block()?;
    Ok(SignalFd::with_flags(&signals, nix::sys::signalfd::SfdFlags::SFD_NONBLOCK)?)
}

fn open(names: &[String]) -> Result<Vec<PacketSocket>, Failure> {
    if names.len() > INTERFACES_MAX {
        return Err(Failure::TooMany);
    }
    let watch = |index| {
        PacketSocket::watch(index).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => Failure::Rights,
            _ => Failure::Io(error),
        })
    };
    if names.is_empty() {
        return Ok(vec![watch(0)?]);
    }
    let index = |name: &String| socket::interface(name).map_err(|_| Failure::NoInterface(name.clone()));
    names.iter().map(|name| watch(index(name)?.index)).collect()
}
