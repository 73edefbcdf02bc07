//! Expectations in the language of ctnetlink (subsystem `NFNL_SUBSYS_CTNETLINK_EXP`), both ways.
//!
//! ```text
//! nfgenmsg | TUPLE | MASK | MASTER (its original tuple) | NAT? { TUPLE, DIR } | TIMEOUT | ID | FLAGS | CLASS
//!          | HELP_NAME? | FN?
//! ```
//!
//! The kernel tells no zone, so the master is known by its tuple alone. Only the source counts in a mask; the rest of it
//! is all ones. A time-out that is written is ignored where the helper has a policy (all in the kernel have).

use super::extras::text;
use super::{Refusal, tuple};
use crate::bridge::conntrack::kernel;
use crate::flow::{EXPECTATION_NAME_MAX, Expectation, ExpectationNat, FlowKey, Tuple, Zone};
use crate::sys::netlink::{Attribute, Malformed, Message, MessageWriter, flags};
use std::net::IpAddr;

/// What a message says about an expectation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DecodedExpectation {
    /// Whether it is gone: the flow has come, or it did not come in time.
    pub gone: bool,
    /// Original tuple of the flow that announced it.
    pub master: Tuple,
    /// What is expected.
    pub expectation: Expectation,
}

/// Whether a message is about an expectation.
pub fn is_expectation(message: &Message<'_>) -> bool {
    matches!(message.kind, kernel::EXP_NEW | kernel::EXP_DELETE)
}

/// Reads an event or a part of a dump.
///
/// # Errors
/// A [`Refusal`] that says why it is no expectation.
pub fn decode_expectation(message: &Message<'_>) -> Result<DecodedExpectation, Refusal> {
    let gone = match message.kind {
        kernel::EXP_NEW => false,
        kernel::EXP_DELETE => true,
        _ => return Err(Refusal::Kind),
    };
    let (mut told, mut mask, mut master) = (None, None, None);
    let (mut timeout, mut flags, mut class, mut nat) = (0, 0, 0, None);
    let (mut helper, mut function) = (String::new(), String::new());
    for attribute in message.attributes() {
        let attribute = attribute?;
        match attribute.kind {
            kernel::EXPECT_TUPLE => told = Some(tuple::read(&attribute)?.tuple),
            kernel::EXPECT_MASK => mask = Some(tuple::read(&attribute)?.tuple),
            kernel::EXPECT_MASTER => master = Some(tuple::read(&attribute)?.tuple),
            kernel::EXPECT_TIMEOUT => timeout = attribute.u32_be()?,
            kernel::EXPECT_FLAGS => flags = small(&attribute)?,
            kernel::EXPECT_CLASS => class = small(&attribute)?,
            kernel::EXPECT_HELP_NAME => helper = name(&attribute)?,
            kernel::EXPECT_FN => function = name(&attribute)?,
            kernel::EXPECT_NAT => nat = Some(translation(&attribute)?),
            _ => {}
        }
    }
    let missing = Refusal::TupleMissing;
    let (told, mask, master) = (told.ok_or(missing)?, mask.ok_or(missing)?, master.ok_or(missing)?);
    let expectation = Expectation {
        tuple: told,
        mask_address: mask.source,
        mask_port: mask.source_port,
        timeout,
        flags,
        class,
        nat,
        helper,
        function,
    };
    Ok(DecodedExpectation { gone, master, expectation })
}

/// The key of a flow with this original tuple, which the kernel names without a zone.
pub fn master_key(master: &Tuple) -> FlowKey {
    tuple::key(master, Zone::DEFAULT)
}

/// A request that announces a flow on behalf of `master`; it fails with `ENOENT` if that is not there, and with
/// `EOPNOTSUPP` if it has no helper.
pub fn write_expectation(writer: &mut MessageWriter, sequence: u32, master: &FlowKey, told: &Expectation) {
    begin(writer, kernel::EXP_NEW, flags::CREATE, sequence, master);
    write_master(writer, master);
    tuple::write(writer, kernel::EXPECT_TUPLE, &told.tuple, None);
    // The kernel reads no more of it than the source.
    let mask = Tuple { source: told.mask_address, source_port: told.mask_port, ..told.tuple };
    tuple::write(writer, kernel::EXPECT_MASK, &mask, None);
    writer.attribute_u32_be(kernel::EXPECT_TIMEOUT, told.timeout);
    writer.attribute_u32_be(kernel::EXPECT_FLAGS, told.flags.into());
    writer.attribute_u32_be(kernel::EXPECT_CLASS, told.class.into());
    if let Some(nat) = told.nat {
        writer.nest(kernel::EXPECT_NAT, |writer| {
            writer.attribute_u32_be(kernel::EXPECT_NAT_DIR, nat.direction.into());
            // Its destination is not used, but has to be there.
            let place = Tuple { source: nat.address, source_port: nat.port, ..told.tuple };
            tuple::write(writer, kernel::EXPECT_NAT_TUPLE, &place, None);
        });
    }
    if !told.helper.is_empty() {
        writer.attribute_text(kernel::EXPECT_HELP_NAME, &told.helper);
    }
    if !told.function.is_empty() {
        writer.attribute_text(kernel::EXPECT_FN, &told.function);
    }
    writer.end();
}

/// A request that takes an announcement back; `ENOENT` if it is not there.
pub fn write_expectation_delete(writer: &mut MessageWriter, sequence: u32, master: &FlowKey, told: &Expectation) {
    begin(writer, kernel::EXP_DELETE, 0, sequence, master);
    tuple::write(writer, kernel::EXPECT_TUPLE, &told.tuple, None);
    write_zone(writer, master.zone);
    writer.end();
}

/// A question for all expectations, or for those of one flow.
pub fn write_expectation_dump(writer: &mut MessageWriter, sequence: u32, master: Option<&FlowKey>) {
    let family = master.map_or(kernel::AF_UNSPEC, |master| tuple::family(master.source));
    writer.begin(kernel::EXP_GET, flags::REQUEST | flags::DUMP, sequence, family, 0);
    if let Some(master) = master {
        write_master(writer, master);
    }
    writer.end();
}

fn begin(writer: &mut MessageWriter, kind: u16, extra_flags: u16, sequence: u32, master: &FlowKey) {
    writer.begin(kind, flags::REQUEST | extra_flags, sequence, tuple::family(master.source), 0);
}

fn write_master(writer: &mut MessageWriter, master: &FlowKey) {
    tuple::write(writer, kernel::EXPECT_MASTER, &tuple::original(master), None);
    write_zone(writer, master.zone);
}

fn write_zone(writer: &mut MessageWriter, zone: Zone) {
    if zone.id != 0 {
        writer.attribute_u16_be(kernel::EXPECT_ZONE, zone.id);
    }
}

/// A number of 32 bits that is small in fact.
fn small(attribute: &Attribute<'_>) -> Result<u8, Refusal> {
    u8::try_from(attribute.u32_be()?).map_err(|_| Refusal::Malformed)
}

fn name(attribute: &Attribute<'_>) -> Result<String, Refusal> {
    let name = std::str::from_utf8(text(attribute.value)).map_err(|_| Malformed)?;
    if name.len() <= EXPECTATION_NAME_MAX { Ok(name.to_owned()) } else { Err(Refusal::Malformed) }
}

fn translation(attribute: &Attribute<'_>) -> Result<ExpectationNat, Refusal> {
    let (mut place, mut direction): (Option<(IpAddr, u16)>, _) = (None, 0);
    for field in attribute.nested() {
        let field = field?;
        match field.kind {
            kernel::EXPECT_NAT_DIR => direction = small(&field)?,
            kernel::EXPECT_NAT_TUPLE => {
                let told = tuple::read(&field)?.tuple;
                place = Some((told.source, told.source_port));
            }
            _ => {}
        }
    }
    let (address, port) = place.ok_or(Refusal::TupleMissing)?;
    Ok(ExpectationNat { address, port, direction })
}
