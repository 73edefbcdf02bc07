//! Recordings: pcap and pcapng files, read and written.
//!
//! ```text
//!   file ──Reader──▶ Packet ──Layers──▶ Datagram          Tap ──bytes──▶ thread ──Writer──▶ file, file.1, file.2 …
//!        pcap-parser  link-layer  etherparse  IP payload,     copies what a transport moves
//!                     frame                   put together
//! ```
//!
//! A file is read by one buffer of fixed size, and fragments wait in a table of fixed size, so no file costs more memory
//! than any other. What is wrong with a file has a name and an offset; what is wrong with one packet has a name and is no
//! error of the file. What is written are IP packets without a link layer (`LINKTYPE_RAW`), which every tool can read.

mod layers;
mod reader;
mod tap;
mod writer;

pub use layers::{Datagram, LayerError, Layers};
pub use reader::{Packet, ReadError, Reader};
pub use tap::{TAP_BUFFER, Tap, TapOptions, TapStatus};
pub use writer::{Format, WriteError, Writer, ip_header};
