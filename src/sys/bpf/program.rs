//! The XDP program: frames of one IP protocol to one multicast group go to our sockets, everything else goes its way.
//!
//! ```text
//!   Ethernet II, no VLAN ─ IPv4, no fragment ─ protocol ─ group ─▶ the socket of the receive queue
//!        │                                                              │ has none
//!        └── anything else ──────────────────────────────────────▶ XDP_PASS: the network stack, as ever
//! ```
//!
//! What is not redirected is not touched. So is what finds no socket: while none is bound, frames of the group reach the
//! network stack, and there whoever has joined. A fragment passes too; the stack puts it together.
//!
//! Loads from the frame may be unaligned, which the verifier takes on every architecture with efficient unaligned access
//! (x86-64, AArch64 and others; it says so where not).

use super::instruction::{
    Instruction, R0, R1, R2, R3, R4, R5, Test, Width, add, call, constant, copy, exit, jump_if, jump_if_register, load,
    map,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Verdict: the network stack gets the frame (`enum xdp_action`).
pub(super) const XDP_PASS: i32 = 2;

// Where `struct xdp_md` has what.
const DATA: i16 = 0;
const DATA_END: i16 = 4;
const RX_QUEUE_INDEX: i16 = 16;

/// `bpf_redirect_map` of `enum bpf_func_id`.
const REDIRECT_MAP: i32 = 51;

// Where an Ethernet II frame has what.
const ETHERTYPE: i16 = 12;
const IP: i16 = 14;
const IPV4_FRAGMENT: i16 = IP + 6;
const IPV4_PROTOCOL: i16 = IP + 9;
const IPV4_DESTINATION: i16 = IP + 16;
const IPV4_END: i32 = IP as i32 + 20;
const IPV6_NEXT_HEADER: i16 = IP + 6;
const IPV6_DESTINATION: i16 = IP + 24;
const IPV6_END: i32 = IP as i32 + 40;

/// "More fragments", and the offset of a fragment.
const FRAGMENT: u16 = 0x3fff;

/// Two bytes of the wire, as a load of this machine sees them.
const fn two(bytes: [u8; 2]) -> u32 {
    u16::from_ne_bytes(bytes) as u32
}

/// The program that redirects `protocol` to `group` into the sockets of the XSKMAP with this descriptor.
pub(super) fn redirect(protocol: u8, group: IpAddr, sockets: i32) -> Vec<Instruction> {
    let mut program = Assembler::default();
    program.push(load(Width::U32, R2, R1, DATA)); //                r2 = first byte of the frame
    program.push(load(Width::U32, R3, R1, DATA_END)); //            r3 = behind its last byte
    match group {
        IpAddr::V4(group) => program.ipv4(protocol, group),
        IpAddr::V6(group) => program.ipv6(protocol, group),
    }
    program.push(load(Width::U32, R2, R1, RX_QUEUE_INDEX)); //      r2 = where in the map: the queue it came by
    program.extend(map(R1, sockets)); //                            r1 = the map
    program.push(constant(R3, XDP_PASS)); //                        r3 = what to do if no socket is there
    program.push(call(REDIRECT_MAP)); //                            r0 = XDP_REDIRECT, or r3
    program.push(exit());
    program.finish()
}

/// A program in which every test either falls through or jumps to its end, where frames pass.
#[derive(Default)]
struct Assembler {
    instructions: Vec<Instruction>,
    jumps: Vec<usize>,
}

impl Assembler {
    fn ipv4(&mut self, protocol: u8, group: Ipv4Addr) {
        self.at_least(IPV4_END);
        self.push(load(Width::U16, R5, R2, ETHERTYPE));
        self.pass_if(Test::NotEqual, two([0x08, 0x00]));
        self.push(load(Width::U8, R5, R2, IP)); //                  version 4, and a header of 5 to 15 words
        self.pass_if(Test::Below, 0x45);
        self.pass_if(Test::Above, 0x4f);
        self.push(load(Width::U16, R5, R2, IPV4_FRAGMENT));
        self.pass_if(Test::AnyBit, two(FRAGMENT.to_be_bytes()));
        self.push(load(Width::U8, R5, R2, IPV4_PROTOCOL));
        self.pass_if(Test::NotEqual, protocol.into());
        self.push(load(Width::U32, R5, R2, IPV4_DESTINATION));
        self.pass_if(Test::NotEqual, u32::from_ne_bytes(group.octets()));
    }

    fn ipv6(&mut self, protocol: u8, group: Ipv6Addr) {
        self.at_least(IPV6_END);
        self.push(load(Width::U16, R5, R2, ETHERTYPE));
        self.pass_if(Test::NotEqual, two([0x86, 0xdd]));
        self.push(load(Width::U8, R5, R2, IP)); //                  version 6, whatever the traffic class
        self.pass_if(Test::Below, 0x60);
        self.pass_if(Test::Above, 0x6f);
        self.push(load(Width::U8, R5, R2, IPV6_NEXT_HEADER)); //    so no extension header, and no fragment
        self.pass_if(Test::NotEqual, protocol.into());
        for (offset, word) in (IPV6_DESTINATION..).step_by(4).zip(group.octets().as_chunks::<4>().0) {
            self.push(load(Width::U32, R5, R2, offset));
            self.pass_if(Test::NotEqual, u32::from_ne_bytes(*word));
        }
    }

    /// The frame is so long, or passes; before this the verifier lets us read none of it.
    fn at_least(&mut self, length: i32) {
        self.push(copy(R4, R2));
        self.push(add(R4, length)); //                              r4 = behind the last byte that we will read
        self.jump_to_pass(jump_if_register(Test::Above, R4, R3));
    }

    /// The frame passes if r5 is so.
    fn pass_if(&mut self, test: Test, value: u32) {
        self.jump_to_pass(jump_if(test, R5, value));
    }

    fn jump_to_pass(&mut self, jump: Instruction) {
        self.jumps.push(self.instructions.len());
        self.push(jump);
    }

    fn push(&mut self, instruction: Instruction) {
        self.instructions.push(instruction);
    }

    fn extend(&mut self, instructions: impl IntoIterator<Item = Instruction>) {
        self.instructions.extend(instructions);
    }

    fn finish(mut self) -> Vec<Instruction> {
        let pass = self.instructions.len();
        for at in self.jumps {
            self.instructions[at] = self.instructions[at].over((pass - at - 1) as i16);
        }
        self.instructions.extend([constant(R0, XDP_PASS), exit()]);
        self.instructions
    }
}
