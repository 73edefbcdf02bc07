//! Instructions of extended BPF, as the kernel takes them (RFC 9669; `struct bpf_insn` of linux/bpf.h).
//!
//! ```text
//!   code        8 bits   what to do: class (low 3 bits), and what of it
//!   registers   8 bits   destination (low 4), source (high 4)
//!   offset     16 bits   of memory from a register, or of a jump, counted from the next instruction
//!   immediate  32 bits   a constant
//! ```
//!
//! Ten registers of 64 bits: r0 is what a call or the program returns, r1 to r5 are arguments and are lost in a call.
//! Numbers in memory are loaded as the machine has them, so a number of the wire is compared with its bytes as they stand.

/// A register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Register(u8);

/// What a call or the program returns.
pub(super) const R0: Register = Register(0);
/// First argument; at the start the context.
pub(super) const R1: Register = Register(1);
/// Second argument.
pub(super) const R2: Register = Register(2);
/// Third argument.
pub(super) const R3: Register = Register(3);
/// Fourth argument.
pub(super) const R4: Register = Register(4);
/// Fifth argument.
pub(super) const R5: Register = Register(5);

/// How much a load takes from memory, above which the register is zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Width {
    /// One byte.
    U8 = 0x10,
    /// Two bytes.
    U16 = 0x08,
    /// Four bytes.
    U32 = 0x00,
}

/// What a jump asks of the low 32 bits of a register, or of whole registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Test {
    /// Different.
    NotEqual = 0x50,
    /// Greater, without sign.
    Above = 0x20,
    /// Less, without sign.
    Below = 0xa0,
    /// Some bit in common.
    AnyBit = 0x40,
}

/// One instruction.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

// Classes, sources and modes of linux/bpf_common.h and linux/bpf.h.
const LD: u8 = 0x00;
const LDX: u8 = 0x01;
const JMP: u8 = 0x05;
const JMP32: u8 = 0x06;
const ALU64: u8 = 0x07;
const MEM: u8 = 0x60;
const DW: u8 = 0x18;
const ADD: u8 = 0x00;
const MOV: u8 = 0xb0;
const CALL: u8 = 0x80;
const EXIT: u8 = 0x90;
/// The operand is a register and not the immediate.
const X: u8 = 0x08;
/// In the source register of a 64-bit load: the immediate is the descriptor of a map.
const PSEUDO_MAP_FD: Register = Register(1);

const fn instruction(code: u8, to: Register, from: Register, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: to.0 | from.0 << 4, offset, immediate }
}

/// `to` = what stands in memory at `from` + `offset`.
pub(super) const fn load(width: Width, to: Register, from: Register, offset: i16) -> Instruction {
    instruction(LDX | MEM | width as u8, to, from, offset, 0)
}

/// `to` = `from`.
pub(super) const fn copy(to: Register, from: Register) -> Instruction {
    instruction(ALU64 | MOV | X, to, from, 0, 0)
}

/// `to` = `value`.
pub(super) const fn constant(to: Register, value: i32) -> Instruction {
    instruction(ALU64 | MOV, to, R0, 0, value)
}

/// `to` = `to` + `value`.
pub(super) const fn add(to: Register, value: i32) -> Instruction {
    instruction(ALU64 | ADD, to, R0, 0, value)
}

/// `to` = the map with this descriptor. It takes two places, the second for the upper half of 64 bits.
pub(super) const fn map(to: Register, descriptor: i32) -> [Instruction; 2] {
    [instruction(LD | DW, to, PSEUDO_MAP_FD, 0, descriptor), instruction(0, R0, R0, 0, 0)]
}

/// Jumps if the low 32 bits of `register` are so with regard to `value`.
pub(super) const fn jump_if(test: Test, register: Register, value: u32) -> Instruction {
    instruction(JMP32 | test as u8, register, R0, 0, value.cast_signed())
}

/// Jumps if `register` is so with regard to `other`.
pub(super) const fn jump_if_register(test: Test, register: Register, other: Register) -> Instruction {
    instruction(JMP | test as u8 | X, register, other, 0, 0)
}

/// r0 = what this function of the kernel returns (`enum bpf_func_id`).
pub(super) const fn call(function: i32) -> Instruction {
    instruction(JMP | CALL, R0, R0, 0, function)
}

/// The program ends with r0.
pub(super) const fn exit() -> Instruction {
    instruction(JMP | EXIT, R0, R0, 0, 0)
}

impl Instruction {
    /// The same jump, over so many instructions.
    pub(super) const fn over(self, instructions: i16) -> Self {
        Instruction { offset: instructions, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers are those that `llvm-objdump -d` shows for the same instructions.
    #[test]
    fn instructions_are_encoded_as_the_standard_has_them() {
        let bytes = |i: Instruction| (i.code, i.registers, i.offset, i.immediate);
        assert_eq!(bytes(load(Width::U32, R2, R1, 4)), (0x61, 0x12, 4, 0));
        assert_eq!(bytes(load(Width::U16, R5, R2, 12)), (0x69, 0x25, 12, 0));
        assert_eq!(bytes(load(Width::U8, R5, R2, 23)), (0x71, 0x25, 23, 0));
        assert_eq!(bytes(copy(R4, R2)), (0xbf, 0x24, 0, 0));
        assert_eq!(bytes(constant(R3, 2)), (0xb7, 0x03, 0, 2));
        assert_eq!(bytes(add(R4, 34)), (0x07, 0x04, 0, 34));
        assert_eq!(bytes(map(R1, 7)[0]), (0x18, 0x11, 0, 7));
        assert_eq!(bytes(map(R1, 7)[1]), (0, 0, 0, 0));
        assert_eq!(bytes(jump_if(Test::NotEqual, R5, 114).over(3)), (0x56, 0x05, 3, 114));
        assert_eq!(bytes(jump_if(Test::Below, R5, 0x45)), (0xa6, 0x05, 0, 0x45));
        assert_eq!(bytes(jump_if(Test::AnyBit, R5, 0xff3f)), (0x46, 0x05, 0, 0xff3f));
        assert_eq!(bytes(jump_if(Test::NotEqual, R5, 0xffff_ffff)), (0x56, 0x05, 0, -1));
        assert_eq!(bytes(jump_if_register(Test::Above, R4, R3)), (0x2d, 0x34, 0, 0));
        assert_eq!(bytes(call(51)), (0x85, 0, 0, 51));
        assert_eq!(bytes(exit()), (0x95, 0, 0, 0));
    }
}
