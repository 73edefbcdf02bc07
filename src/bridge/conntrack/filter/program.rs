//! The rules as a socket filter for the socket of events: what never changes in an entry is decided before it wakes us.
//!
//! ```text
//! caused by one of our own sinks ──▶ drop
//! about an expectation           ──▶ accept
//! neither IPv4 nor IPv6          ──▶ drop
//! fetch into slots: protocol, where the addresses are, ports, zone
//! for each rule:         rule = 0
//!     for each alternative:   all = 1;  each term that fails: all = 0;  all == 1 ? rule = 1
//!     rule == 0 ──▶ drop
//! of a divided kernel:   rule = owner of the original destination;  0 ? rule = owner of the reply's;  not ours ──▶ drop
//! ```
//!
//! A term that is about mark or state counts as met here. Whatever the program cannot make out it lets pass, so that it
//! is refused by name and counted in user space.

use super::{Division, Ends, Filter, Network, Term, Test};
use crate::bridge::conntrack::kernel::{
    self, AF_INET, AF_INET6, EXP_DELETE, EXP_NEW, IP_V4_DST, IP_V4_SRC, IP_V6_DST, IP_V6_SRC, PROTO_DST_PORT,
    PROTO_NUM, PROTO_SRC_PORT, TUPLE_IP, TUPLE_ORIG, TUPLE_PROTO, TUPLE_REPLY, TUPLE_ZONE,
};
use crate::sys::cbpf::Program;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Offsets in an event: `nlmsg_type`, `nlmsg_pid`, `nfgen_family`, the first attribute. An attribute's value is behind
/// its header.
const KIND: u32 = 4;
const PORT_ID: u32 = 12;
const FAMILY: u32 = 16;
const ATTRIBUTES: u32 = 20;
const VALUE: u32 = 4;

/// Most sockets whose events can be dropped; each takes two instructions of the kernel's 4096.
pub(in crate::bridge::conntrack) const IGNORED_MAX: usize = 1024;

/// Most instructions; a rule that would go beyond is left to user space.
const INSTRUCTIONS_MAX: usize = 4000;

/// Memory slots of the program.
mod slot {
    pub(super) const TUPLE: u32 = 0;
    pub(super) const PROTOCOL: u32 = 1;
    /// Where the addresses are, or 0: source, then destination.
    pub(super) const V4: [u32; 2] = [2, 3];
    pub(super) const V6: [u32; 2] = [4, 5];
    /// Ports, or [`super::NO_PORT`].
    pub(super) const PORTS: [u32; 2] = [6, 7];
    pub(super) const ZONE: u32 = 8;
    pub(super) const GROUP: u32 = 9;
    /// Where the reply's destination is, or 0.
    pub(super) const REPLY_V4: u32 = 10;
    pub(super) const REPLY_V6: u32 = 11;
    pub(super) const TEST: u32 = 13;
    pub(super) const ALL: u32 = 14;
    pub(super) const RULE: u32 = 15;
}

/// What no port can be.
const NO_PORT: u32 = 0x1_0000;

/// The program for these rules. It also drops what was caused by a request of a socket in `ignore_port_ids`: the kernel
/// copies the requester's port id into `nlmsg_pid`, and writes 0 where a packet or a time-out was the cause.
pub(in crate::bridge::conntrack) fn program(filter: &Filter, ignore_port_ids: &[u32]) -> Program {
    let own = ignore_port_ids.iter().take(IGNORED_MAX);
    // Classic BPF loads big-endian, and port ids and kinds are in host order.
    let program = own.fold(Program::new().load_u32(PORT_ID), |program, id| program.drop_if(id.to_be()));
    let expectation = |program: Program, kind: u16| program.accept_if(kind.to_be().into());
    let program = [EXP_NEW, EXP_DELETE].into_iter().fold(program.load_u16(KIND), expectation);
    let program = program.load_u8(FAMILY).drop_unless(&[AF_INET.into(), AF_INET6.into()]);
    let program = fetch(program);
    let fitting = |program: Program, part: Program| {
        if program.len() + part.len() > INSTRUCTIONS_MAX { program } else { program.then(part) }
    };
    let divided = filter.division().map(division_program).unwrap_or_default();
    let rules = filter.rules.iter().map(|rule| rule_program(&rule.alternatives));
    rules.fold(fitting(program, divided), fitting)
}

/// Drops what is not ours.
fn division_program(division: &Division) -> Program {
    const OWN: u32 = 1;
    const OTHER: u32 = 2;
    let program = Program::new().find_attribute(ATTRIBUTES, TUPLE_REPLY).accept_if(0);
    let program = program.find_nested(TUPLE_IP).accept_if(0).store(slot::GROUP);
    let program = program.find_nested(IP_V4_DST).store(slot::REPLY_V4);
    let program = program.recall(slot::GROUP).find_nested(IP_V6_DST).store(slot::REPLY_V6);
    let [own, others] = division.addresses();
    let owner =
        |v4, v6| owner_program(own, [v4, v6], OWN).then(owner_program(others, [v4, v6], OTHER)).recall(slot::RULE);
    let of_reply = owner(slot::REPLY_V4, slot::REPLY_V6);
    let of_original = owner(slot::V4[1], slot::V6[1]);
    program.constant(0).store(slot::RULE).then(of_original).when(0, of_reply).recall(slot::RULE).drop_unless(&[OWN])
}

/// Stores `owner` in [`slot::RULE`] if the address whose place is in the slot of its family is one of these.
fn owner_program(addresses: &BTreeSet<IpAddr>, [v4, v6]: [u32; 2], owner: u32) -> Program {
    let met = || Program::new().constant(owner).store(slot::RULE);
    // All IPv4 addresses are compared with one loading of the word.
    let four = addresses.iter().filter_map(|address| match address {
        IpAddr::V4(address) => Some(u32::from(*address)),
        IpAddr::V6(_) => None,
    });
    // The program of an address that is met leaves its owner's number in A, which is no host's address.
    let four = four.fold(Program::new().load_u32_behind(VALUE), |program, address| program.when(address, met()));
    let six = addresses.iter().filter(|address| address.is_ipv6());
    let six = six.fold(Program::new(), |program, address| match Network::new(*address, 128) {
        Some(network) => program.then(address_program(v6, &network_words(&network).1, met())),
        None => program,
    });
    Program::new().recall(v4).unless(0, four).then(six)
}

/// Puts what the tests need into its slots.
fn fetch(program: Program) -> Program {
    let program = program.find_attribute(ATTRIBUTES, TUPLE_ORIG).accept_if(0).store(slot::TUPLE);
    let program = program.find_nested(TUPLE_IP).accept_if(0).store(slot::GROUP);
    let addresses = slot::V4.into_iter().chain(slot::V6).zip([IP_V4_SRC, IP_V4_DST, IP_V6_SRC, IP_V6_DST]);
    let program =
        addresses.fold(program, |program, (slot, kind)| program.recall(slot::GROUP).find_nested(kind).store(slot));
    let program = program.recall(slot::TUPLE).find_nested(TUPLE_PROTO).accept_if(0).store(slot::GROUP);
    let program = program.find_nested(PROTO_NUM).accept_if(0).load_u8_behind(VALUE).store(slot::PROTOCOL);
    let program =
        slot::PORTS.into_iter().zip([PROTO_SRC_PORT, PROTO_DST_PORT]).fold(program, |program, (slot, kind)| {
            let found = Program::new().load_u16_behind(VALUE).store(slot);
            program.constant(NO_PORT).store(slot).recall(slot::GROUP).find_nested(kind).unless(0, found)
        });
    let zone = || Program::new().load_u16_behind(VALUE).store(slot::ZONE);
    let program = program.constant(0).store(slot::ZONE);
    let program = program.find_attribute(ATTRIBUTES, kernel::ZONE).unless(0, zone());
    let program = program.recall(slot::TUPLE).find_nested(TUPLE_ZONE).unless(0, zone());
    let of_reply = Program::new().find_nested(TUPLE_ZONE).unless(0, zone());
    program.find_attribute(ATTRIBUTES, TUPLE_REPLY).unless(0, of_reply)
}

fn rule_program(alternatives: &[Vec<Term>]) -> Program {
    let program = alternatives.iter().fold(Program::new().constant(0).store(slot::RULE), |program, terms| {
        let program = program.constant(1).store(slot::ALL);
        let program = terms.iter().fold(program, term_program);
        program.recall(slot::ALL).when(1, Program::new().store(slot::RULE))
    });
    program.recall(slot::RULE).drop_if(0)
}

fn term_program(program: Program, term: &Term) -> Program {
    let Some(test) = test_program(term) else { return program };
    let failed = Program::new().constant(0).store(slot::ALL);
    program.constant(0).store(slot::TEST).then(test).recall(slot::TEST).when(term.negated.into(), failed)
}

/// Stores 1 in [`slot::TEST`] if the test is met; `None` if only user space can tell.
fn test_program(Term { negated, test }: &Term) -> Option<Program> {
    let met = || Program::new().constant(1).store(slot::TEST);
    let any = |slot: u32, numbers: &mut dyn Iterator<Item = u32>| {
        numbers.fold(Program::new(), |program, number| program.recall(slot).when(number, met()))
    };
    Some(match test {
        Test::Protocol(numbers) => any(slot::PROTOCOL, &mut numbers.iter().map(|number| u32::from(*number))),
        Test::Zone(numbers) => any(slot::ZONE, &mut numbers.iter().map(|number| u32::from(*number))),
        Test::Address { ends, networks } => networks.iter().fold(Program::new(), |program, network| {
            let (slots, words) = network_words(network);
            chosen(*ends, slots).fold(program, |program, slot| program.then(address_program(slot, &words, met())))
        }),
        Test::Port { ends, ranges } => ranges.iter().fold(Program::new(), |program, &(low, high)| {
            chosen(*ends, slot::PORTS)
                .fold(program, |program, slot| program.recall(slot).between(low.into(), high.into(), met()))
        }),
        // Of another protocol it is never met, whatever comes.
        Test::State { protocol, .. } if !negated => any(slot::PROTOCOL, &mut [u32::from(*protocol)].into_iter()),
        Test::State { .. } | Test::Mark { .. } | Test::Connection { .. } | Test::Status(_) => return None,
    })
}

/// The slots of the ends that are looked at.
fn chosen(ends: Ends, [source, destination]: [u32; 2]) -> impl Iterator<Item = u32> {
    [ends.source.then_some(source), ends.destination.then_some(destination)].into_iter().flatten()
}

/// Slots of the family's addresses, and the network in words: offset in the address, bits, mask.
fn network_words(network: &Network) -> ([u32; 2], Vec<(u32, u32, u32)>) {
    match *network {
        Network::V4 { bits, mask } => (slot::V4, vec![(0, bits, mask)]),
        Network::V6 { bits, mask } => {
            let word = |value: u128, number: u32| (value >> (96 - 32 * number)) as u32;
            let words = (0..4).map(|number| (4 * number, word(bits, number), word(mask, number)));
            // What is masked out need not be looked at, but one word has to be.
            (slot::V6, words.filter(|&(offset, _, mask)| mask != 0 || offset == 0).collect())
        }
    }
}

/// Runs `met` if the address whose place is in `slot` has these words.
fn address_program(slot: u32, words: &[(u32, u32, u32)], met: Program) -> Program {
    let inner = words.iter().rev().fold(met, |inner, &(offset, bits, mask)| {
        Program::new().recall(slot).load_u32_behind(VALUE + offset).and(mask).when(bits, inner)
    });
    Program::new().recall(slot).unless(0, inner)
}
