//! Records of version 1: IPv4 or IPv6, and options behind them.
//!
//! ```text
//!   0 type  1 protocol  2 version (4 bits), size (12)  4 flags  8 state  10 cport  12 vport  14 dport
//!   16 fwmark  20 timeout  24 caddr, vaddr, daddr: 4 or 16 bytes each  36 or 72 options
//!
//!   option: 0 type  1 length  2 data       1 sequence words   2 data of the persistence engine   3 its name
//!           types with bit 0x40 may be stepped over
//! ```
//!
//! (`struct ip_vs_sync_v4`, `struct ip_vs_sync_v6`, `IPVS_OPT_*`.) A record begins at a multiple of 4 bytes; the last one
//! is not padded.

use super::connection::{checked, ipv4, ipv6};
use super::{Connection, ConnectionFlags, MessageError, Record, Sequences, Skipped, WordOrder, v0};
use crate::flow::Endpoint;
use crate::planted::{Plant, planted};
use core::net::IpAddr;
use zerocopy::byteorder::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// `STYPE_F_INET6`: the record is of IPv6.
const TYPE_IPV6: u8 = 1;
/// `SVER_MASK`: the bits of the size.
const SIZE_MASK: u16 = 0x0fff;
/// `IPVS_OPT_SEQ_DATA`.
const OPTION_SEQUENCES: u8 = 1;
/// `IPVS_OPT_PE_DATA`.
const OPTION_ENGINE_DATA: u8 = 2;
/// `IPVS_OPT_PE_NAME`.
const OPTION_ENGINE: u8 = 3;
/// `IPVS_OPT_F_PARAM`: whoever does not know the option steps over it.
const OPTION_OPTIONAL: u8 = 0x40;
/// `IP_VS_PENAME_MAXLEN`. (`IP_VS_PEDATA_MAXLEN` is 255, which is all that a length can say.)
const ENGINE_LEN_MAX: usize = 16;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Fixed {
    kind: u8,
    protocol: u8,
    version_size: U16,
    flags: U32,
    state: U16,
    client_port: U16,
    service_port: U16,
    server_port: U16,
    firewall_mark: U32,
    timeout: U32,
}

const _: () = assert!(size_of::<Fixed>() == 24);

/// Length of the smaller record, which must be there before the size is looked at.
const IPV4_LEN: usize = 36;

/// The record that `bytes` begin with, and what is behind it and its padding.
pub(super) fn record(bytes: &[u8]) -> Result<(Record<'_>, &[u8]), MessageError> {
    if bytes.len() < IPV4_LEN {
        return Err(MessageError::RecordTruncated);
    }
    let (fixed, _) = Fixed::ref_from_prefix(bytes).map_err(|_| MessageError::RecordTruncated)?;
    let size = usize::from(fixed.version_size.get() & SIZE_MASK);
    let (whole, _) = bytes.split_at_checked(size).ok_or(MessageError::RecordTruncated)?;
    // The last record is not padded.
    let rest = bytes.get(size.next_multiple_of(4)..).unwrap_or_default();
    if fixed.version_size.get() & !SIZE_MASK != 0 {
        return Err(MessageError::RecordVersion);
    }
    let behind = whole.get(size_of::<Fixed>()..).ok_or(MessageError::RecordLength)?;
    let (addresses, options) = match fixed.kind {
        kind if kind & TYPE_IPV6 != 0 => three(behind, ipv6)?,
        0 => three(behind, ipv4)?,
        _ => return Err(MessageError::RecordType),
    };
    let [client, service, server] = addresses;
    let options = Options::read(options)?;
    let endpoint = |address, port: U16| Endpoint { address, port: port.get() };
    let connection = Connection {
        protocol: fixed.protocol,
        client: endpoint(client, fixed.client_port),
        service: endpoint(service, fixed.service_port),
        server: endpoint(server, fixed.server_port),
        flags: ConnectionFlags(fixed.flags.get()),
        state: fixed.state.get(),
        firewall_mark: fixed.firewall_mark.get(),
        timeout: Some(fixed.timeout.get()).filter(|timeout| *timeout != 0),
        sequences: options.sequences,
        engine: options.engine.unwrap_or_default(),
        engine_data: options.engine_data.unwrap_or_default(),
    };
    let record = match options.unknown {
        true => Err(Skipped::UnknownOption),
        false => checked(connection),
    };
    Ok((record, rest))
}

/// Three addresses, and what is behind them.
fn three<const N: usize>(bytes: &[u8], read: fn([u8; N]) -> IpAddr) -> Result<([IpAddr; 3], &[u8]), MessageError> {
    let (addresses, rest) = <[[u8; N]; 3]>::ref_from_prefix(bytes).map_err(|_| MessageError::RecordLength)?;
    Ok((addresses.map(read), rest))
}

/// What the options of one record say.
#[derive(Default)]
struct Options<'a> {
    sequences: Option<Sequences>,
    engine: Option<&'a [u8]>,
    engine_data: Option<&'a [u8]>,
    unknown: bool,
}

impl<'a> Options<'a> {
    fn read(mut bytes: &'a [u8]) -> Result<Self, MessageError> {
        let mut options = Options::default();
        while !bytes.is_empty() {
            let Some((&[kind, length], rest)) = bytes.split_first_chunk() else {
                return Err(MessageError::OptionTruncated);
            };
            let length = usize::from(length);
            let data =
                if planted(Plant::OptionLength) { Some(rest.split_at(length)) } else { rest.split_at_checked(length) };
            let data = data.filter(|(data, _)| !data.is_empty());
            let (data, rest) = data.ok_or(MessageError::OptionTruncated)?;
            options.take(kind, data)?;
            bytes = rest;
        }
        Ok(options)
    }

    fn take(&mut self, kind: u8, data: &'a [u8]) -> Result<(), MessageError> {
        match kind & !OPTION_OPTIONAL {
            OPTION_SEQUENCES => {
                let words = FromBytes::ref_from_bytes(data).map_err(|_| MessageError::OptionLength)?;
                once(&mut self.sequences, v0::sequences_of(words, WordOrder::BigEndian))
            }
            OPTION_ENGINE_DATA => once(&mut self.engine_data, data),
            OPTION_ENGINE if data.len() > ENGINE_LEN_MAX => Err(MessageError::OptionLength),
            OPTION_ENGINE => once(&mut self.engine, data),
            _ => {
                self.unknown |= kind & OPTION_OPTIONAL == 0;
                Ok(())
            }
        }
    }
}

fn once<T>(place: &mut Option<T>, value: T) -> Result<(), MessageError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(MessageError::OptionTwice),
    }
}
