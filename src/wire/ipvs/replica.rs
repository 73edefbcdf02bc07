//! A connection of IPVS as a flow that keeps all that a record says, and back.
//!
//! [`Connection::flow`] is what conntrack would hold; this is what a replica of IPVS must hold, templates included. What
//! a flow has no field for goes into its attributes:
//!
//! ```text
//!   attribute 1   sequence words: position = initial, before = previous delta, after = delta; the client's side first
//!   attribute 4   flags 4 │ firewall mark 4 │ length of the engine's name 1 │ of its data 1 │ name │ data
//! ```
//!
//! Attribute 4 marks what is no plain masqueraded connection: a template (client port 0), another way of forwarding, a
//! firewall mark, a persistence engine, or an unusual flag. The real server always stands where replies come from; only
//! with the status bit of DNAT do they really.

use super::{Connection, ConnectionFlags, Sequence, Sequences, state};
use crate::flow::{Endpoint, Flow, FlowKey, SequenceAdjustment, Zone, attribute, protocol, status};
use core::net::IpAddr;

/// Bytes of attribute 4 before the engine's name.
const MARK_LEN: usize = 10;
/// Flags that follow from the rest of the record, or that each kernel sets for itself.
const DERIVED: u32 = ConnectionFlags::SYNC
    | ConnectionFlags::HASHED
    | ConnectionFlags::INACTIVE
    | ConnectionFlags::OUT_SEQ
    | ConnectionFlags::IN_SEQ;
/// Both bits of destination NAT.
const DST_NAT: u16 = status::DST_NAT | status::DST_NAT_DONE;

/// Why a flow cannot be said in a record of IPVS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unsayable {
    /// Not of IPv4.
    #[error("the record has room for IPv4 addresses only")]
    Family,
    /// Not TCP, UDP or SCTP.
    #[error("the record is for TCP, UDP and SCTP")]
    Protocol,
    /// In a conntrack zone: without it the key would be another flow's.
    #[error("the record has no room for a zone")]
    Zone,
    /// Its source is translated: a copy that does not know how would send the server's packets to the wrong host.
    #[error("the record has no room for a translated source")]
    SourceNat,
}

impl Connection<'_> {
    /// The connection, or the template, as a flow that [`Connection::of_flow`] reads back.
    pub fn to_flow(&self) -> Flow {
        let mut flow = self.flow().unwrap_or_else(|| Flow {
            timeout: self.timeout_s(),
            mark: self.firewall_mark,
            ..Flow::new(FlowKey {
                source: self.client.address,
                destination: self.service.address,
                source_port: self.client.port,
                destination_port: self.service.port,
                protocol: self.protocol,
                zone: Zone::DEFAULT,
            })
        });
        flow.reply_source = Some(self.server);
        flow = flow.canonical();
        if flow.reply_source.is_none() {
            flow.status &= !DST_NAT;
        }
        // Attributes of fixed length, and an engine with the most that its lengths can say, always fit.
        if let Some(Sequences { incoming, outgoing }) = self.sequences {
            let said =
                |side, flag| if self.flags.0 & flag != 0 { adjustment(side) } else { SequenceAdjustment::default() };
            let sides = [said(incoming, ConnectionFlags::IN_SEQ), said(outgoing, ConnectionFlags::OUT_SEQ)];
            if sides != [SequenceAdjustment::default(); 2] {
                let data = SequenceAdjustment::to_wire(&sides);
                let _ = flow.attributes.set(attribute::SEQUENCE_ADJUSTMENT, &data);
                flow.status |= status::SEQ_ADJUST;
            }
        }
        if let Some(data) = self.mark() {
            let _ = flow.attributes.set(attribute::IPVS, &data);
        }
        flow
    }

    /// The data of attribute 4; `None` if there is nothing to say.
    fn mark(&self) -> Option<Vec<u8>> {
        let own = if self.flags.is_template() { DERIVED & !ConnectionFlags::INACTIVE } else { DERIVED };
        let flags = self.flags.0 & !own;
        if flags == 0 && self.firewall_mark == 0 && self.engine.is_empty() {
            return None;
        }
        let mut data = Vec::with_capacity(MARK_LEN + self.engine.len() + self.engine_data.len());
        data.extend_from_slice(&flags.to_be_bytes());
        data.extend_from_slice(&self.firewall_mark.to_be_bytes());
        data.push(u8::try_from(self.engine.len()).ok()?);
        data.push(u8::try_from(self.engine_data.len()).ok()?);
        data.extend_from_slice(self.engine);
        data.extend_from_slice(self.engine_data);
        Some(data)
    }
}

impl<'a> Connection<'a> {
    /// The flow as a record says it. Lost are window scales and flags of TCP, marks of connections, labels, helpers, the
    /// time that is left, and whether replies were seen where the state does not tell.
    ///
    /// # Errors
    /// [`Unsayable`]: what must not be lost.
    pub fn of_flow(flow: &'a Flow) -> Result<Self, Unsayable> {
        let key = &flow.key;
        let server = flow.replies_from();
        if ![key.source, key.destination, server.address].iter().all(IpAddr::is_ipv4) {
            return Err(Unsayable::Family);
        }
        let mark = flow.attributes.get(attribute::IPVS).and_then(Mark::read);
        let mut flags = ConnectionFlags(mark.map_or(0, |mark| mark.flags & 0xffff));
        if !flags.is_template() && !matches!(key.protocol, protocol::TCP | protocol::UDP | protocol::SCTP) {
            return Err(Unsayable::Protocol);
        }
        if !key.zone.is_default() {
            return Err(Unsayable::Zone);
        }
        if flow.reply_destination.is_some() {
            return Err(Unsayable::SourceNat);
        }
        let mut connection_state = 0;
        if !flags.is_template() {
            connection_state = state::from_conntrack(key.protocol, flow.state);
            if !state::is_active(key.protocol, connection_state) {
                flags.0 |= ConnectionFlags::INACTIVE;
            }
        }
        let sequences = flow
            .attributes
            .sequence_adjustment()
            .map(|[original, reply]| Sequences { incoming: sequence(original), outgoing: sequence(reply) });
        if let Some(Sequences { incoming, outgoing }) = sequences {
            let moved = |side: Sequence, flag: u32| if side == Sequence::default() { 0 } else { flag };
            flags.0 |= moved(incoming, ConnectionFlags::IN_SEQ) | moved(outgoing, ConnectionFlags::OUT_SEQ);
        }
        Ok(Connection {
            protocol: key.protocol,
            client: Endpoint { address: key.source, port: key.source_port },
            service: Endpoint { address: key.destination, port: key.destination_port },
            server,
            flags,
            state: connection_state,
            firewall_mark: mark.map_or(0, |mark| mark.firewall_mark),
            timeout: None,
            sequences: sequences.filter(|_| flags.has_sequences()),
            engine: mark.map_or(&[], |mark| mark.engine),
            engine_data: mark.map_or(&[], |mark| mark.engine_data),
        })
    }

    /// Whether conntrack could hold a flow that [`Connection::to_flow`] made: it is no template, and if replies come from
    /// a server they come by NAT. Told by what every table keeps, attributes or not.
    pub fn is_conntracks(flow: &Flow) -> bool {
        let translated = flow.status & status::DST_NAT != 0;
        flow.key.source_port != 0 && flow.reply_source.is_some() == translated
    }
}

/// Attribute 4 as values.
#[derive(Clone, Copy)]
struct Mark<'a> {
    flags: u32,
    firewall_mark: u32,
    engine: &'a [u8],
    engine_data: &'a [u8],
}

impl<'a> Mark<'a> {
    /// `None` if its lengths do not fit.
    fn read(data: &'a [u8]) -> Option<Self> {
        let (&[f0, f1, f2, f3, m0, m1, m2, m3, name_len, data_len], rest) = data.split_first_chunk::<MARK_LEN>()?;
        let (engine, engine_data) = rest.split_at_checked(usize::from(name_len))?;
        (engine_data.len() == usize::from(data_len)).then_some(Mark {
            flags: u32::from_be_bytes([f0, f1, f2, f3]),
            firewall_mark: u32::from_be_bytes([m0, m1, m2, m3]),
            engine,
            engine_data,
        })
    }
}

fn adjustment(side: Sequence) -> SequenceAdjustment {
    SequenceAdjustment { position: side.initial, before: side.previous_delta, after: side.delta }
}

fn sequence(side: SequenceAdjustment) -> Sequence {
    Sequence { initial: side.position, delta: side.after, previous_delta: side.before }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(last: u8, port: u16) -> Endpoint {
        Endpoint { address: IpAddr::from([10, 0, 0, last]), port }
    }

    fn connection() -> Connection<'static> {
        Connection {
            protocol: protocol::TCP,
            client: end(1, 40000),
            service: end(2, 80),
            server: end(3, 8080),
            flags: ConnectionFlags(0),
            state: 1,
            firewall_mark: 0,
            timeout: None,
            sequences: None,
            engine: &[],
            engine_data: &[],
        }
    }

    #[test]
    fn a_plain_masqueraded_connection_needs_no_attribute() {
        let flow = connection().to_flow();
        assert_eq!(flow.key.to_string(), "tcp 10.0.0.1:40000 -> 10.0.0.2:80");
        assert_eq!((flow.reply_source, flow.state, flow.timeout), (Some(end(3, 8080)), 3, 900));
        assert!(flow.attributes.is_empty());
        assert!(Connection::is_conntracks(&flow));
        assert_eq!(Connection::of_flow(&flow), Ok(connection()));
    }

    #[test]
    fn a_server_that_is_the_service_itself_is_no_translation() {
        let flow = Connection { server: end(2, 80), ..connection() }.to_flow();
        assert_eq!((flow.reply_source, flow.status), (None, 0b1110), "seen reply, assured, confirmed");
        assert!(Connection::is_conntracks(&flow));
    }

    /// States of TCP in conntrack's order; all but ESTABLISHED are inactive.
    #[test]
    fn states_of_conntrack_become_those_of_ipvs() {
        let flow = connection().to_flow();
        let said = |state| {
            let flow = Flow { state, ..flow.clone() };
            let connection = Connection::of_flow(&flow).unwrap();
            (connection.state, connection.flags.0)
        };
        let all: Vec<_> = (0..=9).map(said).collect();
        let inactive = 0x100;
        assert_eq!(
            all,
            [
                (0, inactive),
                (2, inactive),
                (3, inactive),
                (1, 0),
                (4, inactive),
                (7, inactive),
                (8, inactive),
                (5, inactive),
                (6, inactive),
                (2, inactive)
            ]
        );
    }

    /// [3.1.7]
    #[test]
    fn a_template_is_marked_and_comes_back() {
        let template = Connection { client: end(1, 0), flags: ConnectionFlags(0x1100), state: 0, ..connection() };
        let flow = template.to_flow();
        assert_eq!((flow.key.source_port, flow.timeout, flow.status), (0, 180, 0));
        assert_eq!(flow.attributes.get(4), Some(&[0, 0, 0x11, 0, 0, 0, 0, 0, 0, 0][..]));
        assert!(!Connection::is_conntracks(&flow));
        assert_eq!(Connection::of_flow(&flow), Ok(template));
    }

    #[test]
    fn other_ways_of_forwarding_are_marked_and_are_not_conntracks() {
        for flags in [1, 2, 3, 4, 0x80 | 3, 0x0800, 0x2000] {
            let other = Connection { flags: ConnectionFlags(flags), ..connection() };
            let flow = other.to_flow();
            assert_eq!(flow.attributes.get(4).map(|data| &data[2..4]), Some(&(flags as u16).to_be_bytes()[..]));
            assert_eq!(Connection::of_flow(&flow), Ok(other));
            assert_eq!(Connection::is_conntracks(&flow), flags & 7 == 0, "{flags:#x}");
        }
    }

    #[test]
    fn mark_and_engine_are_kept() {
        let sip = Connection { firewall_mark: 0x0102_0304, engine: b"sip", engine_data: b"a@b", ..connection() };
        let flow = sip.to_flow();
        assert_eq!(flow.attributes.get(4), Some(&b"\0\0\0\0\x01\x02\x03\x04\x03\x03sipa@b"[..]));
        assert_eq!(Connection::of_flow(&flow), Ok(sip));
        let mut short = flow.clone();
        short.attributes.set(4, b"\0\0\0\0\x01\x02\x03\x04\x03\x04sipa@b").unwrap();
        assert_eq!(Connection::of_flow(&short).unwrap().engine, b"", "lengths that do not fit say nothing");
    }

    /// [3.1.7]
    #[test]
    fn sequence_words_are_the_adjustment_with_the_clients_side_first() {
        let incoming = Sequence { initial: 1, delta: 2, previous_delta: 3 };
        let shifted = Connection {
            flags: ConnectionFlags(0x0400),
            sequences: Some(Sequences { incoming, outgoing: Sequence::default() }),
            ..connection()
        };
        let flow = shifted.to_flow();
        let adjustment = SequenceAdjustment { position: 1, before: 3, after: 2 };
        assert_eq!(flow.attributes.sequence_adjustment(), Some([adjustment, SequenceAdjustment::default()]));
        assert_ne!(flow.status & status::SEQ_ADJUST, 0);
        assert_eq!(Connection::of_flow(&flow), Ok(shifted));
        let other = Connection { flags: ConnectionFlags(0x0200), ..shifted };
        assert!(other.to_flow().attributes.is_empty(), "words without their flag say nothing");
    }

    /// [3.1.7]
    #[test]
    fn what_must_not_be_lost_is_not_said() {
        let flow = connection().to_flow();
        let said = |flow: Flow| Connection::of_flow(&flow).map(|_| ());
        let key = flow.key;
        assert_eq!(said(Flow { reply_destination: Some(end(9, 9)), ..flow.clone() }), Err(Unsayable::SourceNat));
        let zone = Zone { id: 1, direction: Zone::BOTH };
        assert_eq!(said(Flow { key: FlowKey { zone, ..key }, ..flow.clone() }), Err(Unsayable::Zone));
        assert_eq!(said(Flow { key: FlowKey { protocol: 1, ..key }, ..flow.clone() }), Err(Unsayable::Protocol));
        let six = IpAddr::from([0; 16]);
        assert_eq!(said(Flow { key: FlowKey { source: six, ..key }, ..flow.clone() }), Err(Unsayable::Family));
        let server = Some(Endpoint { address: six, port: 1 });
        assert_eq!(said(Flow { reply_source: server, ..flow }), Err(Unsayable::Family));
    }
}
