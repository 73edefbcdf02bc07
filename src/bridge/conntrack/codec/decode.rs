//! From messages of the kernel to flows.

use super::extras::Extras;
use super::{Refusal, TCP_BE_LIBERAL, TCP_FLAGS_CARRIED, tuple};
use crate::bridge::conntrack::kernel;
use crate::flow::{Endpoint, Flow, ProtocolInfo, TcpInfo, Zone, attribute, protocol, status};
use crate::sys::netlink::{Attribute, Malformed, Message, flags};

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
    /// Whether the message says all that its status promises. An UPDATE has only what has changed: the kernel leaves
    /// out the protocol's state, the master and the adjusted sequence numbers if the reason was another one (a new
    /// mark, say). They are then unknown, and not zero.
    pub complete: bool,
}

impl Decoded {
    /// Whether the entry has something that no bit of the status promises, so that its absence from an UPDATE proves
    /// nothing: labels, or a SYN proxy.
    pub fn has_unpromised(&self) -> bool {
        let unpromised = |kind| matches!(kind, attribute::LABELS | attribute::SYNPROXY);
        self.flow.attributes.iter().any(|(kind, _)| unpromised(kind))
    }
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
    if !matches!(message.family().ok_or(Malformed)?, kernel::AF_INET | kernel::AF_INET6) {
        return Err(Refusal::Family);
    }
    let mut parts = Parts::default();
    for attribute in message.attributes() {
        parts.take(&attribute?)?;
    }
    let (flow, complete) = parts.flow()?;
    Ok(Decoded { happening, flow, complete })
}

/// The attributes of an entry, as they come.
#[derive(Default)]
struct Parts<'a> {
    original: Option<tuple::Read>,
    reply: Option<tuple::Read>,
    zone: Option<u16>,
    status: u16,
    timeout: u32,
    mark: u32,
    state: Option<u8>,
    tcp: TcpInfo,
    extras: Extras<'a>,
}

impl<'a> Parts<'a> {
    fn take(&mut self, attribute: &Attribute<'a>) -> Result<(), Refusal> {
        match attribute.kind {
            kernel::TUPLE_ORIG => self.original = Some(tuple::read(attribute)?),
            kernel::TUPLE_REPLY => self.reply = Some(tuple::read(attribute)?),
            kernel::ZONE => self.zone = Some(attribute.u16_be()?),
            kernel::STATUS => self.status = attribute.u32_be()? as u16,
            kernel::TIMEOUT => self.timeout = attribute.u32_be()?,
            kernel::MARK => self.mark = attribute.u32_be()?,
            kernel::PROTOINFO => self.protocol_info(attribute)?,
            _ => self.extras.take(attribute)?,
        }
        Ok(())
    }

    fn protocol_info(&mut self, attribute: &Attribute<'_>) -> Result<(), Refusal> {
        for layer in attribute.nested() {
            let layer = layer?;
            match layer.kind {
                kernel::PROTOINFO_TCP => self.tcp_info(&layer)?,
                kernel::PROTOINFO_SCTP => self.sctp_info(&layer)?,
                kernel::PROTOINFO_DCCP => self.dccp_info(&layer)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn tcp_info(&mut self, layer: &Attribute<'_>) -> Result<(), Refusal> {
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
        Ok(())
    }

    fn sctp_info(&mut self, layer: &Attribute<'_>) -> Result<(), Refusal> {
        let (mut tag_original, mut tag_reply) = (0, 0);
        for field in layer.nested() {
            let field = field?;
            match field.kind {
                kernel::SCTP_STATE => self.state = Some(field.u8()?),
                kernel::SCTP_VTAG_ORIGINAL => tag_original = field.u32_be()?,
                kernel::SCTP_VTAG_REPLY => tag_reply = field.u32_be()?,
                _ => {}
            }
        }
        self.extras.protocol = Some(ProtocolInfo::Sctp { tag_original, tag_reply });
        Ok(())
    }

    fn dccp_info(&mut self, layer: &Attribute<'_>) -> Result<(), Refusal> {
        let (mut role, mut handshake_sequence) = (0, 0);
        for field in layer.nested() {
            let field = field?;
            match field.kind {
                kernel::DCCP_STATE => self.state = Some(field.u8()?),
                kernel::DCCP_ROLE => role = field.u8()?,
                kernel::DCCP_HANDSHAKE_SEQ => handshake_sequence = field.u64_be()?,
                _ => {}
            }
        }
        self.extras.protocol = Some(ProtocolInfo::Dccp { role, handshake_sequence });
        Ok(())
    }

    fn zone(&self, original: &tuple::Read, reply: &tuple::Read) -> Zone {
        // Zone 0 is none, wherever it stands: the default has one form.
        let of = |direction| move |id: u16| (id != 0).then_some(Zone { id, direction });
        let own = original.zone.and_then(of(Zone::ORIGINAL)).or_else(|| reply.zone.and_then(of(Zone::REPLY)));
        own.or_else(|| self.zone.and_then(of(Zone::BOTH))).unwrap_or(Zone::DEFAULT)
    }

    /// The flow, and whether it is told in full.
    fn flow(&self) -> Result<(Flow, bool), Refusal> {
        let original = self.original.as_ref().ok_or(Refusal::TupleMissing)?;
        let answer = self.reply.as_ref().ok_or(Refusal::TupleMissing)?;
        let reply = &answer.tuple;
        let key = tuple::key(&original.tuple, self.zone(original, answer));
        // What a reply to the untranslated flow looks like; only what differs from it by translation is allowed.
        let mirror = tuple::mirror(&key).ok_or(Refusal::IcmpType)?;
        if reply.protocol != key.protocol || reply.source.is_ipv4() != key.source.is_ipv4() {
            return Err(Refusal::ReplyMismatch);
        }
        let mut flow = Flow::new(key);
        let (from, to) = if protocol::is_icmp(key.protocol) {
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
        let has_state = match key.protocol {
            protocol::TCP => true,
            protocol::SCTP | protocol::DCCP => original.with_ports,
            _ => false,
        };
        if has_state {
            flow.state = self.state.unwrap_or(0);
        }
        if key.protocol == protocol::TCP {
            flow.tcp = Some(self.tcp);
        }
        flow.attributes = self.extras.attributes()?;
        let promised = |bit: u16, told: bool| self.status & bit == 0 || told;
        let complete = (!has_state || self.state.is_some())
            && promised(status::EXPECTED, self.extras.master.is_some())
            && promised(status::SEQ_ADJUST, self.extras.sequence_adjustment.iter().all(Option::is_some));
        Ok((flow.canonical(), complete))
    }
}

fn window_scale(attribute: &Attribute<'_>) -> Result<u8, Refusal> {
    attribute.u8().ok().filter(|scale| *scale <= 15).ok_or(Refusal::Malformed)
}

/// Whether the kernel judges packets of this TCP entry by sequence windows that it has seen itself, in one direction at
/// least: so it does with entries of its own, and not with copies as [`write_create`](super::write_create) makes them.
pub fn judges_by_windows(message: &Message<'_>) -> bool {
    let info = message.attributes().flatten().find(|attribute| attribute.kind == kernel::PROTOINFO);
    let tcp = info.and_then(|info| info.nested().flatten().find(|layer| layer.kind == kernel::PROTOINFO_TCP));
    let Some(tcp) = tcp else { return false };
    let is_flags = |kind| matches!(kind, kernel::TCP_FLAGS_ORIGINAL | kernel::TCP_FLAGS_REPLY);
    let mut flags = tcp.nested().flatten().filter(|field| is_flags(field.kind));
    flags.any(|field| field.u8().is_ok_and(|flags| flags & TCP_BE_LIBERAL == 0))
}

/// When the kernel saw the first packet, nanoseconds since 1970 (`nf_conntrack_timestamp` must be on). It is told in
/// dumps, answers and at the end, and cannot be given to a copy: see the module's text.
pub fn start_time(message: &Message<'_>) -> Option<u64> {
    let stamp = message.attributes().flatten().find(|attribute| attribute.kind == kernel::TIMESTAMP)?;
    let start = stamp.nested().flatten().find(|field| field.kind == kernel::TIMESTAMP_START)?;
    start.u64_be().ok()
}
