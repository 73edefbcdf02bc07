//! A recording for the commands that read one: packet by packet, with what is ours told apart from the rest.

use super::output::complain;
use super::{EXIT_NO, EXIT_REFUSED, EXIT_USAGE};
use crate::transport::pcap::{Datagram, LayerError, Layers, ReadError, Reader};
use crate::wire::IP_PROTOCOL;
use crate::wire::ipvs::{PORT, PORTS_MAX};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Packets between two pictures of the progress.
const PROGRESS_EVERY: u64 = 1024;

/// Which recording, and what of it.
#[derive(Debug, clap::Args)]
pub(super) struct Source {
    /// A pcap or pcapng file.
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    /// UDP port on which kernel IPVS sync messages are looked for, instead of 8848 to 8911; may be repeated.
    #[arg(long, value_name = "PORT")]
    ipvs_port: Vec<u16>,
    /// Byte order of the machine that sent IPVS sync messages of version 0, which do not tell it.
    #[arg(long, value_enum, default_value_t = Order::Little)]
    pub(super) ipvs_order: Order,
}

/// A byte order by its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(super) enum Order {
    Little,
    Big,
}

/// What a packet holds for us.
#[derive(Clone, Copy)]
pub(super) enum Content<'a> {
    /// What should be a frame of protocol 114.
    Frame(&'a [u8]),
    /// What should be a sync message of IPVS, and the port that it went to.
    Ipvs(u16, &'a [u8]),
}

/// One packet of ours.
pub(super) struct Seen<'a> {
    /// Its number in the file, from 1.
    pub(super) number: u64,
    /// Its place in the file.
    pub(super) offset: u64,
    /// When it was seen, since the epoch.
    pub(super) time: Duration,
    /// Its IP header, and what is behind it.
    pub(super) datagram: Datagram<'a>,
    /// What it holds.
    pub(super) content: Content<'a>,
}

/// What was in a file.
#[derive(Default)]
pub(super) struct Tally {
    /// Packets.
    pub(super) packets: u64,
    /// Of them, frames of protocol 114.
    pub(super) frames: u64,
    /// Of them, datagrams to a port of IPVS.
    pub(super) messages: u64,
    /// The rest, by what they are.
    pub(super) others: BTreeMap<String, u64>,
}

impl Tally {
    /// In one line.
    pub(super) fn words(&self) -> String {
        let Tally { packets, frames, messages, others } = self;
        let mut text = format!("{packets} packets: {frames} frames of protocol 114, {messages} messages of IPVS");
        for (what, count) in others {
            text += &format!(", {count} × {what}");
        }
        text
    }
}

impl Source {
    /// Shows every packet of ours to `visit`, until it breaks. `progress` may be shown while nothing is printed.
    pub(super) fn read(
        &self,
        progress: bool,
        mut visit: impl FnMut(&Seen<'_>) -> ControlFlow<()>,
    ) -> Result<Tally, ReadError> {
        let mut reader = Reader::open(&self.file)?;
        let (mut layers, mut tally) = (Layers::new(), Tally::default());
        let bar = self.bar(progress);
        let mut other = |what: String| *tally.others.entry(what).or_default() += 1;
        while let Some(packet) = reader.next_packet()? {
            tally.packets += 1;
            if packet.number % PROGRESS_EVERY == 0 {
                bar.set_position(packet.offset);
            }
            let datagram = match layers.datagram(packet.link, packet.bytes) {
                Ok(Some(datagram)) => datagram,
                Ok(None) => {
                    other("fragment of a datagram that is not whole yet".into());
                    continue;
                }
                Err(LayerError::NotIp) => {
                    other("no IP".into());
                    continue;
                }
                Err(error) => {
                    other(format!("refused ({error})"));
                    continue;
                }
            };
            let Some(content) = self.content(&datagram) else {
                other(format!("protocol {}", datagram.protocol));
                continue;
            };
            let (number, offset, time) = (packet.number, packet.offset, packet.time);
            if visit(&Seen { number, offset, time, datagram, content }).is_break() {
                tally.packets -= 1;
                break;
            }
            match content {
                Content::Frame(_) => tally.frames += 1,
                Content::Ipvs(..) => tally.messages += 1,
            }
        }
        bar.finish_and_clear();
        if layers.incomplete() > 0 {
            tally.others.insert("datagram that never became whole".into(), layers.incomplete());
        }
        Ok(tally)
    }

    fn content<'a>(&self, datagram: &Datagram<'a>) -> Option<Content<'a>> {
        if datagram.protocol == IP_PROTOCOL {
            return Some(Content::Frame(datagram.payload));
        }
        let (_, port, payload) = datagram.udp()?;
        let ours = match self.ipvs_port.as_slice() {
            [] => (PORT..PORT + PORTS_MAX).contains(&port),
            ports => ports.contains(&port),
        };
        ours.then_some(Content::Ipvs(port, payload))
    }

    fn bar(&self, wanted: bool) -> ProgressBar {
        let length = std::fs::metadata(&self.file).map_or(0, |metadata| metadata.len());
        // Standard error, and nothing at all if that is no terminal.
        let target = if wanted { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(length), target);
        match ProgressStyle::with_template("{wide_bar} {bytes} of {total_bytes}, {eta} left") {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        }
    }
}

/// Says why a file could not be read, or not further; the exit status for it.
pub(super) fn unreadable(file: &Path, error: &ReadError) -> ExitCode {
    complain(&format!("{}: {error}", file.display()));
    match error {
        ReadError::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => ExitCode::from(EXIT_REFUSED),
        ReadError::Io(_) | ReadError::NotARecording => ExitCode::from(EXIT_USAGE),
        _ => ExitCode::from(EXIT_NO),
    }
}
