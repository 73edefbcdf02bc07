//! What only some entries have, between netlink's form and ours: labels, helper, master, adjusted sequence numbers,
//! SYN proxy, and what SCTP and DCCP keep.
//!
//! An entry that has none of it costs a comparison per attribute and no allocation.

use super::{Refusal, tuple};
use crate::bridge::conntrack::kernel;
use crate::flow::{
    AttributeError, Attributes, Flow, ProtocolInfo, SequenceAdjustment, Synproxy, Tuple, Zone, attribute, protocol,
};
use crate::sys::netlink::{Attribute, MessageWriter};

/// Most bytes of a helper's name (`NF_CT_HELPER_NAME_LEN` less its zero).
const HELPER_NAME_MAX: usize = 15;

/// Bytes of the labels (`struct nf_conn_labels`). Label n is bit n % 8 of byte n / 8, as little-endian machines keep
/// it.
const LABELS_LEN: usize = 16;

/// The extras of an entry, as they come.
#[derive(Default)]
pub(super) struct Extras<'a> {
    pub(super) sequence_adjustment: [Option<SequenceAdjustment>; 2],
    labels: Option<&'a [u8]>,
    helper: Option<&'a [u8]>,
    pub(super) master: Option<Tuple>,
    synproxy: Option<Synproxy>,
    pub(super) protocol: Option<ProtocolInfo>,
}

impl<'a> Extras<'a> {
    pub(super) fn take(&mut self, attribute: &Attribute<'a>) -> Result<(), Refusal> {
        match attribute.kind {
            kernel::SEQ_ADJ_ORIG => self.sequence_adjustment[0] = Some(adjustment(attribute)?),
            kernel::SEQ_ADJ_REPLY => self.sequence_adjustment[1] = Some(adjustment(attribute)?),
            // All zero is how the kernel says none.
            kernel::LABELS if attribute.value.len() != LABELS_LEN => return Err(Refusal::Malformed),
            kernel::LABELS if attribute.value.iter().any(|byte| *byte != 0) => self.labels = Some(attribute.value),
            kernel::HELP => self.helper = helper_name(attribute)?,
            kernel::TUPLE_MASTER => self.master = Some(tuple::read(attribute)?.tuple),
            // A translated TCP entry has it in all cases, and full of zeros if no SYN proxy is at work.
            kernel::SYNPROXY => self.synproxy = Some(synproxy(attribute)?).filter(|told| *told != Synproxy::default()),
            _ => {}
        }
        Ok(())
    }

    /// As a flow keeps them.
    pub(super) fn attributes(&self) -> Result<Attributes, Refusal> {
        let mut attributes = Attributes::NONE;
        let mut set = |kind, data: &[u8]| attributes.set(kind, data).map_err(|_: AttributeError| Refusal::Malformed);
        if let [Some(original), Some(reply)] = self.sequence_adjustment {
            set(attribute::SEQUENCE_ADJUSTMENT, &SequenceAdjustment::to_wire(&[original, reply]))?;
        }
        if let Some(labels) = self.labels {
            set(attribute::LABELS, labels)?;
        }
        if let Some(name) = self.helper {
            set(attribute::HELPER, name)?;
        }
        if let Some(master) = self.master.and_then(|master| master.to_wire()) {
            set(attribute::MASTER, &master)?;
        }
        if let Some(synproxy) = self.synproxy {
            set(attribute::SYNPROXY, &synproxy.to_wire())?;
        }
        if let Some(info) = self.protocol {
            set(attribute::PROTOCOL, &info.to_wire())?;
        }
        Ok(attributes)
    }
}

fn adjustment(attribute: &Attribute<'_>) -> Result<SequenceAdjustment, Refusal> {
    let mut told = SequenceAdjustment::default();
    for field in attribute.nested() {
        let field = field?;
        match field.kind {
            kernel::SEQADJ_POSITION => told.position = field.u32_be()?,
            kernel::SEQADJ_BEFORE => told.before = field.u32_be()?,
            kernel::SEQADJ_AFTER => told.after = field.u32_be()?,
            _ => {}
        }
    }
    Ok(told)
}

fn synproxy(attribute: &Attribute<'_>) -> Result<Synproxy, Refusal> {
    let mut told = Synproxy::default();
    for field in attribute.nested() {
        let field = field?;
        match field.kind {
            kernel::SYNPROXY_ISN => told.isn = field.u32_be()?,
            kernel::SYNPROXY_ITS => told.its = field.u32_be()?,
            kernel::SYNPROXY_TSOFF => told.timestamp_offset = field.u32_be()?,
            _ => {}
        }
    }
    Ok(told)
}

fn helper_name<'a>(attribute: &Attribute<'a>) -> Result<Option<&'a [u8]>, Refusal> {
    for field in attribute.nested() {
        let field = field?;
        if field.kind == kernel::HELP_NAME {
            let name = text(field.value);
            let sound = (1..=HELPER_NAME_MAX).contains(&name.len()) && std::str::from_utf8(name).is_ok();
            return if sound { Ok(Some(name)) } else { Err(Refusal::Malformed) };
        }
    }
    Ok(None)
}

/// A text without the zero at its end.
pub(super) fn text(value: &[u8]) -> &[u8] {
    value.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Writes all that can be set at any time.
pub(super) fn write(writer: &mut MessageWriter, attributes: &Attributes) {
    if attributes.is_empty() {
        return;
    }
    if let Some([original, reply]) = attributes.sequence_adjustment() {
        write_adjustment(writer, kernel::SEQ_ADJ_ORIG, &original);
        write_adjustment(writer, kernel::SEQ_ADJ_REPLY, &reply);
    }
    if let Some(labels) = attributes.labels() {
        writer.attribute(kernel::LABELS, &labels);
    }
    if let Some(synproxy) = attributes.synproxy() {
        writer.nest(kernel::SYNPROXY, |writer| {
            writer.attribute_u32_be(kernel::SYNPROXY_ISN, synproxy.isn);
            writer.attribute_u32_be(kernel::SYNPROXY_ITS, synproxy.its);
            writer.attribute_u32_be(kernel::SYNPROXY_TSOFF, synproxy.timestamp_offset);
        });
    }
}

/// Writes the helper.
pub(super) fn write_helper(writer: &mut MessageWriter, attributes: &Attributes) {
    if let Some(name) = attributes.helper() {
        writer.nest(kernel::HELP, |writer| writer.attribute_text(kernel::HELP_NAME, name));
    }
}

/// Writes the master, which only a new entry can be given.
pub(super) fn write_master(writer: &mut MessageWriter, attributes: &Attributes, zone: Zone) {
    if let Some(master) = attributes.master() {
        let own = (zone.id != 0 && zone.direction == Zone::ORIGINAL).then_some(zone.id);
        tuple::write(writer, kernel::TUPLE_MASTER, &master, own);
    }
}

fn write_adjustment(writer: &mut MessageWriter, kind: u16, side: &SequenceAdjustment) {
    writer.nest(kind, |writer| {
        writer.attribute_u32_be(kernel::SEQADJ_POSITION, side.position);
        writer.attribute_u32_be(kernel::SEQADJ_BEFORE, side.before);
        writer.attribute_u32_be(kernel::SEQADJ_AFTER, side.after);
    });
}

/// Writes the state of SCTP or DCCP; the kernel takes it in full only.
pub(super) fn write_protocol_info(writer: &mut MessageWriter, flow: &Flow) {
    match (flow.key.protocol, flow.attributes.protocol_info()) {
        (protocol::SCTP, info) => {
            let (tag_original, tag_reply) = match info {
                Some(ProtocolInfo::Sctp { tag_original, tag_reply }) => (tag_original, tag_reply),
                _ => (0, 0),
            };
            writer.nest(kernel::PROTOINFO, |writer| {
                writer.nest(kernel::PROTOINFO_SCTP, |writer| {
                    writer.attribute_u8(kernel::SCTP_STATE, flow.state);
                    writer.attribute_u32_be(kernel::SCTP_VTAG_ORIGINAL, tag_original);
                    writer.attribute_u32_be(kernel::SCTP_VTAG_REPLY, tag_reply);
                });
            });
        }
        (protocol::DCCP, Some(ProtocolInfo::Dccp { role, handshake_sequence })) => {
            writer.nest(kernel::PROTOINFO, |writer| {
                writer.nest(kernel::PROTOINFO_DCCP, |writer| {
                    writer.attribute_u8(kernel::DCCP_STATE, flow.state);
                    writer.attribute_u8(kernel::DCCP_ROLE, role);
                    writer.attribute_u64_be(kernel::DCCP_HANDSHAKE_SEQ, handshake_sequence);
                });
            });
        }
        _ => {}
    }
}
