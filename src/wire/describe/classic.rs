//! The draft's messages, field by field.

use super::Page;
use super::layout::{Field, address4, decimal, field, hex, number};
use crate::wire::FrameError;
use crate::wire::classic::{self, Message, RECORD_LEN};
use crate::wire::ipvs::{Connection, ConnectionFlags, WordOrder, state, v0};
use core::fmt::Write;

pub(super) const PREAMBLE: [Field; 5] = [
    field("count", 1, decimal),
    field("sync_id", 1, decimal),
    field("size", 2, decimal),
    field("reserved", 2, |value| format!("{value} classic")),
    field("checksum", 2, hex),
];

const RECORD: [Field; 10] = [
    field("zero", 1, decimal),
    field("protocol", 1, decimal),
    field("client_port", 2, decimal),
    field("service_port", 2, decimal),
    field("server_port", 2, decimal),
    field("client", 4, address4),
    field("service", 4, address4),
    field("server", 4, address4),
    field("flags", 2, |value| {
        let flags = ConnectionFlags(value as u32);
        let named = [flags.forwarding().name()].into_iter().chain(flags.names());
        format!("{} {}", hex(value), named.collect::<Vec<_>>().join(" "))
    }),
    field("state", 2, decimal),
];

const SEQUENCES: [Field; 6] = [
    field("client_initial", 4, decimal),
    field("client_delta", 4, signed),
    field("client_previous", 4, signed),
    field("server_initial", 4, decimal),
    field("server_delta", 4, signed),
    field("server_previous", 4, signed),
];

/// A shift of sequence numbers: modulo 2^32, so it may be meant to go down.
fn signed(value: u128) -> String {
    (value as u32 as i32).to_string()
}

impl Page<'_> {
    /// Every record behind the header.
    pub(super) fn classic(&mut self) {
        let mut nth = 1;
        while let Some(fixed) = self.bytes.get(self.at..).filter(|rest| rest.len() >= RECORD_LEN) {
            let full = ConnectionFlags(number(&fixed[20..22]) as u32).has_sequences();
            let title = match v0::record(fixed, WordOrder::BigEndian) {
                Ok((Ok(connection), _)) => words(&connection),
                Ok((Err(skipped), _)) => format!("stepped over: {skipped}"),
                Err(error) => format!("refused: {error}"),
            };
            self.title(&format!("record {nth}: {title}"));
            self.fields(&RECORD);
            if full {
                self.fields(&SEQUENCES);
            }
            nth += 1;
        }
    }

    /// What a receiver of the classic profile says to it.
    pub(super) fn classic_verdict(&mut self) {
        let bytes = self.bytes;
        let verdict = match Message::parse(bytes).and_then(Message::verify) {
            Ok(_) => "accepted (classic)".to_owned(),
            Err(reason) => format!("refused: {}: {reason}", reason.name()),
        };
        let _ = writeln!(self.text, "{verdict}");
        if Message::parse(bytes).err() == Some(FrameError::Checksum) {
            let _ = writeln!(self.text, "the bytes' own checksum is 0x{:04x}", classic::checksum(bytes));
        }
    }
}

fn words(connection: &Connection<'_>) -> String {
    let flow = connection.to_flow();
    let (server, name) = (connection.server, state::name(connection));
    let kind = if connection.flags.is_template() { "template" } else { connection.flags.forwarding().name() };
    format!("{} -> {}:{}, {kind}, {name}", flow.key, server.address, server.port)
}
