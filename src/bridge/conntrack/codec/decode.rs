//! From messages of the kernel to flows.

use super::{Refusal, TCP_FLAGS_CARRIED, Tuple, mirror};
use crate::bridge::conntrack::kernel;
use crate::flow::{Endpoint, Flow, TcpInfo, Zone, protocol};
use crate::sys::netlink::{Attribute, Malformed, Message, flags};
use std::net::{IpAddr, Ipv4Addr};

/// What has happened to an entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Happening {
    /// It was made.
    New,
    /// It has changed, or it is an answer to a question or part of a dump.
    Update,
    /// It is gone.
    Destroy,
}

/// What a message says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decoded {
    /// What has happened.
    pub happening: Happening,
    /// The entry.
    pub flow: Flow,
    /// Whether the message says what state the protocol is in. The kernel leaves it out of an UPDATE that has another
    /// reason (a new mark, say); the flow's `state` and `tcp` are then unknown, and not zero.
    pub state_known: bool,
    /// The entry has something that is not replicated: a helper, labels, a master, sequence adjustment, SYN proxy.
    pub has_extensions: bool,
}

/// Reads an event, a part of a dump or the answer to a question.
///
/// # Errors
/// A [`Refusal`] that says why it is no flow.
pub fn decode(message: &Message<'_>) -> Result<Decoded, Refusal> {
    let created = flags::CREATE | flags::EXCLUSIVE;
    let happening = match message.kind {
        kernel::NEW if message.flags & created == created => Happening::New,
        kernel::NEW => Happening::Update,
        kernel::DELETE => Happening::Destroy,
        _ => return Err(Refusal::Kind),
    };
    if message.family().ok_or(Malformed)? != kernel::AF_INET {
        return Err(Refusal::Family);
    }
    let mut parts = Parts::default();
    for attribute in message.attributes() {
        parts.take(&attribute?)?;
    }
    let (flow, state_known) = parts.flow()?;
    Ok(Decoded { happening, flow, state_known, has_extensions: parts.has_extensions })
}

/// The attributes of an entry, as they come.
#[derive(Default)]
struct Parts {
    original: Option<Tuple>,
    reply: Option<Tuple>,
    zone: Zone,
    status: u16,
    timeout: u32,
    mark: u32,
    state: Option<u8>,
    tcp: TcpInfo,
    has_extensions: bool,
}

impl Parts {
    fn take(&mut self, attribute: &Attribute<'_>) -> Result<(), Refusal> {
        match attribute.kind {
            kernel::TUPLE_ORIG => self.original = Some(self.tuple(attribute, Zone::ORIGINAL)?),
            kernel::TUPLE_REPLY => self.reply = Some(self.tuple(attribute, Zone::REPLY)?),
            kernel::ZONE => self.zone = Zone { id: attribute.u16_be()?, direction: Zone::BOTH },
            kernel::STATUS => self.status = attribute.u32_be()? as u16,
            kernel::TIMEOUT => self.timeout = attribute.u32_be()?,
            kernel::MARK => self.mark = attribute.u32_be()?,
            kernel::PROTOINFO => self.protocol_info(attribute)?,
            kernel::HELP | kernel::TUPLE_MASTER | kernel::SEQ_ADJ_ORIG | kernel::SEQ_ADJ_REPLY | kernel::LABELS => {
                self.has_extensions = true
            }
            // A translated TCP entry has it in all cases, and full of zeros if no SYN proxy is at work.
            kernel::SYNPROXY => {
                let says = |part: Result<Attribute<'_>, _>| part.is_ok_and(|part| part.value.iter().any(|b| *b != 0));
                self.has_extensions |= attribute.nested().any(says);
            }
            _ => {}
        }
        Ok(())
    }

    /// A tuple, and the zone if it applies in that direction only.
    fn tuple(&mut self, attribute: &Attribute<'_>, direction: u8) -> Result<Tuple, Refusal> {
        let mut tuple = TupleParts::default();
        for part in attribute.nested() {
            let part = part?;
            match part.kind {
                kernel::TUPLE_IP | kernel::TUPLE_PROTO => tuple.take(&part)?,
                kernel::TUPLE_ZONE => self.zone = Zone { id: part.u16_be()?, direction },
                _ => {}
            }
        }
        tuple.whole()
    }

    fn protocol_info(&mut self, attribute: &Attribute<'_>) -> Result<(), Refusal> {
        for layer in attribute.nested() {
            let layer = layer?;
            if layer.kind != kernel::PROTOINFO_TCP {
                continue;
            }
            for field in layer.nested() {
                let field = field?;
                match field.kind {
                    kernel::TCP_STATE => self.state = Some(field.u8()?),
                    kernel::TCP_WSCALE_ORIGINAL => self.tcp.window_scale_original = window_scale(&field)?,
                    kernel::TCP_WSCALE_REPLY => self.tcp.window_scale_reply = window_scale(&field)?,
                    kernel::TCP_FLAGS_ORIGINAL => self.tcp.flags_original = field.u8()? & TCP_FLAGS_CARRIED,
                    kernel::TCP_FLAGS_REPLY => self.tcp.flags_reply = field.u8()? & TCP_FLAGS_CARRIED,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// The flow, and whether its state is known.
    fn flow(&self) -> Result<(Flow, bool), Refusal> {
        let original = self.original.ok_or(Refusal::TupleMissing)?;
        let reply = self.reply.ok_or(Refusal::TupleMissing)?;
        let key = original.key(self.zone);
        // What a reply to the untranslated flow looks like; only what differs from it by translation is allowed.
        let mirror = mirror(&key).ok_or(Refusal::IcmpType)?;
        if reply.protocol != key.protocol {
            return Err(Refusal::ReplyMismatch);
        }
        let mut flow = Flow::new(key);
        let (from, to) = if key.protocol == protocol::ICMP {
            if reply.destination_port != mirror.destination_port {
                return Err(Refusal::ReplyMismatch);
            }
            (key.destination_port, reply.source_port)
        } else {
            (reply.source_port, reply.destination_port)
        };
        flow.reply_source = Some(Endpoint { address: reply.source, port: from });
        flow.reply_destination = Some(Endpoint { address: reply.destination, port: to });
        flow.status = self.status;
        flow.timeout = self.timeout;
        flow.mark = self.mark;
        let has_state = key.protocol == protocol::TCP;
        if has_state {
            flow.state = self.state.unwrap_or(0);
            flow.tcp = Some(self.tcp);
        }
        Ok((flow.canonical(), !has_state || self.state.is_some()))
    }
}

fn window_scale(attribute: &Attribute<'_>) -> Result<u8, Refusal> {
    attribute.u8().ok().filter(|scale| *scale <= 15).ok_or(Refusal::Malformed)
}

/// The parts of a tuple, as they come.
#[derive(Default)]
struct TupleParts {
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    protocol: Option<u8>,
    source_port: Option<u16>,
    destination_port: Option<u16>,
    icmp_id: Option<u16>,
    icmp_type: Option<u8>,
    icmp_code: Option<u8>,
}

impl TupleParts {
    fn take(&mut self, group: &Attribute<'_>) -> Result<(), Refusal> {
        for part in group.nested() {
            let part = part?;
            match (group.kind, part.kind) {
                (kernel::TUPLE_IP, kernel::IP_V4_SRC) => self.source = Some(ipv4(&part)?),
                (kernel::TUPLE_IP, kernel::IP_V4_DST) => self.destination = Some(ipv4(&part)?),
                (kernel::TUPLE_PROTO, kernel::PROTO_NUM) => self.protocol = Some(part.u8()?),
                (kernel::TUPLE_PROTO, kernel::PROTO_SRC_PORT) => self.source_port = Some(part.u16_be()?),
                (kernel::TUPLE_PROTO, kernel::PROTO_DST_PORT) => self.destination_port = Some(part.u16_be()?),
                (kernel::TUPLE_PROTO, kernel::PROTO_ICMP_ID) => self.icmp_id = Some(part.u16_be()?),
                (kernel::TUPLE_PROTO, kernel::PROTO_ICMP_TYPE) => self.icmp_type = Some(part.u8()?),
                (kernel::TUPLE_PROTO, kernel::PROTO_ICMP_CODE) => self.icmp_code = Some(part.u8()?),
                _ => {}
            }
        }
        Ok(())
    }

    fn whole(&self) -> Result<Tuple, Refusal> {
        let missing = Refusal::TupleMissing;
        let protocol = self.protocol.ok_or(missing)?;
        let (source_port, destination_port) = match protocol {
            protocol::TCP | protocol::UDP => (self.source_port.ok_or(missing)?, self.destination_port.ok_or(missing)?),
            protocol::ICMP => {
                let kind = [self.icmp_type.ok_or(missing)?, self.icmp_code.ok_or(missing)?];
                (self.icmp_id.ok_or(missing)?, u16::from_be_bytes(kind))
            }
            _ => return Err(Refusal::Protocol),
        };
        let source = self.source.ok_or(missing)?;
        let destination = self.destination.ok_or(missing)?;
        Ok(Tuple { source, destination, source_port, destination_port, protocol })
    }
}

fn ipv4(attribute: &Attribute<'_>) -> Result<IpAddr, Refusal> {
    let bytes: [u8; 4] = attribute.value.try_into().map_err(|_| Refusal::Malformed)?;
    Ok(IpAddr::V4(Ipv4Addr::from(bytes)))
}
