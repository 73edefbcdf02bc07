//! Socket filters in classic BPF: the kernel drops what we do not want before it wakes us or fills our buffer.
//!
//! A program is straight: every test either ends it (drop, accept), or decides whether a part is run, and falls through
//! to the next; so there are no labels and it can be read from top to bottom. It works on an accumulator, an index and a few memory slots
//! (linux/filter.h, Documentation/networking/filter.rst). Numbers are loaded big-endian, as all classic BPF does.
//!
//! ```text
//! load_u8(16)                  A = byte 16
//! drop_unless(&[2])            A == 2 ?  no → drop
//! find_attribute(20, 1)        A = where the attribute of kind 1 is, looking from byte 20 on; 0 if nowhere
//! accept_if(0)                 A == 0 ? yes → accept
//! find_nested(2)               A = where in the attribute at A the attribute of kind 2 is; 0 if nowhere
//! ```

use nix::errno::Errno;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

const LOAD: u32 = libc::BPF_LD | libc::BPF_ABS;

/// Extensions of Linux, loads from a magic offset: the attribute of kind X from offset A on (`SKF_AD_NLATTR`), and the
/// one nested in the attribute at A (`SKF_AD_NLATTR_NEST`).
const FIND_ATTRIBUTE: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_NLATTR) as u32;
const FIND_NESTED: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_NLATTR_NEST) as u32;

/// Most values that one test can compare with: a jump reaches 255 instructions.
pub const VALUES_MAX: usize = 255;

/// A program under construction. What it ends in without having decided is accepted.
#[derive(Clone, Default, Debug)]
pub struct Program {
    instructions: Vec<libc::sock_filter>,
}

impl Program {
    /// An empty one, which accepts everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that drops everything.
    pub fn drop_all() -> Self {
        Self::new().decide(DROP)
    }

    /// A = the byte at `offset`.
    #[must_use]
    pub fn load_u8(self, offset: u32) -> Self {
        self.push(LOAD | libc::BPF_B, offset)
    }

    /// A = the two bytes at `offset`, big-endian.
    #[must_use]
    pub fn load_u16(self, offset: u32) -> Self {
        self.push(LOAD | libc::BPF_H, offset)
    }

    /// A = the four bytes at `offset`, big-endian.
    #[must_use]
    pub fn load_u32(self, offset: u32) -> Self {
        self.push(LOAD | libc::BPF_W, offset)
    }

    /// A = whom the packet was for, by its hardware address: PACKET_HOST, …, PACKET_OTHERHOST of linux/if_packet.h. For
    /// packet sockets.
    #[must_use]
    pub fn load_packet_type(self) -> Self {
        self.push(LOAD | libc::BPF_B, (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE) as u32)
    }

    /// A = the byte at A + `offset`.
    #[must_use]
    pub fn load_u8_behind(self, offset: u32) -> Self {
        self.push(libc::BPF_MISC | libc::BPF_TAX, 0).push(libc::BPF_LD | libc::BPF_IND | libc::BPF_B, offset)
    }

    /// A = the two bytes at A + `offset`, big-endian.
    #[must_use]
    pub fn load_u16_behind(self, offset: u32) -> Self {
        self.push(libc::BPF_MISC | libc::BPF_TAX, 0).push(libc::BPF_LD | libc::BPF_IND | libc::BPF_H, offset)
    }

    /// A = the four bytes at A + `offset`, big-endian.
    #[must_use]
    pub fn load_u32_behind(self, offset: u32) -> Self {
        self.push(libc::BPF_MISC | libc::BPF_TAX, 0).push(libc::BPF_LD | libc::BPF_IND | libc::BPF_W, offset)
    }

    /// A = the byte at `offset` from the end of the IPv4 header that begins at `header`: a load from X = 4 * (its low four bits).
    #[must_use]
    pub fn load_u8_behind_ipv4(self, header: u32, offset: u32) -> Self {
        self.push(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, header)
            .push(libc::BPF_LD | libc::BPF_IND | libc::BPF_B, header + offset)
    }

    /// A = the length of the packet in bytes.
    #[must_use]
    pub fn load_len(self) -> Self {
        self.push(libc::BPF_LD | libc::BPF_W | libc::BPF_LEN, 0)
    }

    /// Accepts the packet if A is less than `value`.
    #[must_use]
    pub fn accept_below(self, value: u32) -> Self {
        self.jump(libc::BPF_JGE, value, 1, 0).decide(ACCEPT)
    }

    /// A = `value`.
    #[must_use]
    pub fn constant(self, value: u32) -> Self {
        self.push(libc::BPF_LD | libc::BPF_IMM, value)
    }

    /// A = A and `mask`, bit by bit.
    #[must_use]
    pub fn and(self, mask: u32) -> Self {
        self.push(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask)
    }

    /// Goes on with the instructions of `next`.
    #[must_use]
    pub fn then(mut self, mut next: Program) -> Self {
        self.instructions.append(&mut next.instructions);
        self
    }

    /// Runs `inner` if A is `value`, else goes on behind it.
    #[must_use]
    pub fn when(self, value: u32, inner: Program) -> Self {
        self.compare(value, 1, 0).past(inner)
    }

    /// Runs `inner` if A is not `value`, else goes on behind it.
    #[must_use]
    pub fn unless(self, value: u32, inner: Program) -> Self {
        self.compare(value, 0, 1).past(inner)
    }

    /// Runs `inner` if A is from `low` to `high`, else goes on behind it.
    #[must_use]
    pub fn between(self, low: u32, high: u32, inner: Program) -> Self {
        self.jump(libc::BPF_JGE, low, 0, 1).jump(libc::BPF_JGT, high, 0, 1).past(inner)
    }

    /// Number of its instructions.
    pub fn len(&self) -> usize {
        self.instructions.len()
    }

    /// Whether it has no instructions.
    pub fn is_empty(&self) -> bool {
        self.instructions.is_empty()
    }

    /// A = the offset of the netlink attribute of `kind`, looking from byte `from` on; 0 if there is none.
    #[must_use]
    pub fn find_attribute(self, from: u32, kind: u16) -> Self {
        self.push(libc::BPF_LD | libc::BPF_IMM, from).index(kind).push(LOAD | libc::BPF_W, FIND_ATTRIBUTE)
    }

    /// A = the offset of the netlink attribute of `kind` inside of the attribute at A; 0 if there is none.
    #[must_use]
    pub fn find_nested(self, kind: u16) -> Self {
        self.index(kind).push(LOAD | libc::BPF_W, FIND_NESTED)
    }

    /// Keeps A in memory slot `slot` (0–15).
    #[must_use]
    pub fn store(self, slot: u32) -> Self {
        self.push(libc::BPF_ST, slot)
    }

    /// A = memory slot `slot` (0–15).
    #[must_use]
    pub fn recall(self, slot: u32) -> Self {
        self.push(libc::BPF_LD | libc::BPF_MEM, slot)
    }

    /// Drops the packet if A is `value`.
    #[must_use]
    pub fn drop_if(self, value: u32) -> Self {
        self.compare(value, 0, 1).decide(DROP)
    }

    /// Accepts the packet if A is `value`.
    #[must_use]
    pub fn accept_if(self, value: u32) -> Self {
        self.compare(value, 0, 1).decide(ACCEPT)
    }

    /// Drops the packet unless A is one of the first [`VALUES_MAX`] of `values`.
    #[must_use]
    pub fn drop_unless(self, values: &[u32]) -> Self {
        let values = &values[..values.len().min(VALUES_MAX)];
        // Equal: jump over the comparisons that are left and the drop behind them.
        let comparisons = values.iter().zip((1..=values.len() as u8).rev());
        comparisons.fold(self, |program, (value, left)| program.compare(*value, left, 0)).decide(DROP)
    }

    /// Has `socket` drop what the program drops, from now on; what is queued already stays.
    ///
    /// # Errors
    /// `EINVAL` if the kernel does not take the program (more than 4096 instructions, no such memory slot).
    pub fn attach(self, socket: impl AsFd) -> io::Result<()> {
        let mut instructions = self.decide(ACCEPT).instructions;
        let length = u16::try_from(instructions.len()).map_err(|_| io::Error::from(Errno::EINVAL))?;
        let program = libc::sock_fprog { len: length, filter: instructions.as_mut_ptr() };
        // SAFETY: `program` and the instructions that it points to live until the call returns, `len` is their number,
        // and the kernel checks them before it takes a copy.
        Errno::result(unsafe {
            libc::setsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                size_of::<libc::sock_fprog>() as libc::socklen_t,
            )
        })?;
        Ok(())
    }

    fn index(self, value: u16) -> Self {
        self.push(libc::BPF_LDX | libc::BPF_IMM, value.into())
    }

    /// Jumps over `inner`, unless what comes before jumps over this.
    fn past(self, inner: Program) -> Self {
        let length = inner.instructions.len() as u32;
        self.push(libc::BPF_JMP | libc::BPF_JA, length).then(inner)
    }

    fn compare(self, value: u32, equal: u8, different: u8) -> Self {
        self.jump(libc::BPF_JEQ, value, equal, different)
    }

    fn jump(mut self, test: u32, value: u32, yes: u8, no: u8) -> Self {
        let code = (libc::BPF_JMP | test | libc::BPF_K) as u16;
        self.instructions.push(libc::sock_filter { code, jt: yes, jf: no, k: value });
        self
    }

    fn decide(self, bytes: u32) -> Self {
        self.push(libc::BPF_RET | libc::BPF_K, bytes)
    }

    fn push(mut self, code: u32, value: u32) -> Self {
        self.instructions.push(libc::sock_filter { code: code as u16, jt: 0, jf: 0, k: value });
        self
    }
}

/// What a program returns is the number of bytes to keep.
const DROP: u32 = 0;
const ACCEPT: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netlink::{MessageWriter, Messages, NETLINK_NETFILTER, NetlinkSocket, control, flags};

    /// No subsystem has this number, so every request comes back in an error: 16 + 4 bytes, then the request itself.
    const UNKNOWN_KIND: u16 = 0xfe00;
    const ECHOED_ATTRIBUTES: u32 = 20 + 16 + 4;

    /// Sends three requests through a socket with `program`; says which of them were answered.
    fn answered(program: Program) -> Vec<u32> {
        let mut socket = NetlinkSocket::open(NETLINK_NETFILTER, 64 * 1024).unwrap();
        program.attach(&socket).unwrap();
        let mut writer = MessageWriter::new();
        for sequence in 1..=3u8 {
            writer.begin(UNKNOWN_KIND, flags::REQUEST, sequence.into(), sequence, 0);
            writer.attribute_u8(5, 0);
            writer.nest(6, |outer| outer.nest(2, |inner| inner.attribute_u8(7, sequence * 10)));
            writer.end();
            // Without rights only the first message of a datagram is answered.
            socket.send(writer.bytes()).unwrap();
            writer.clear();
        }
        let mut sequences = Vec::new();
        while let Some(datagram) = socket.receive().unwrap() {
            let message = Messages::new(datagram).next().unwrap().unwrap();
            assert_eq!(message.kind, control::ERROR);
            sequences.push(message.sequence);
        }
        sequences
    }

    #[test]
    fn an_empty_program_accepts() {
        assert_eq!(answered(Program::new()), [1, 2, 3]);
    }

    #[test]
    fn a_program_that_drops_all_lets_nothing_pass() {
        assert_eq!(answered(Program::drop_all()), [] as [u32; 0]);
    }

    #[test]
    fn numbers_of_each_width_are_compared_big_endian() {
        assert_eq!(answered(Program::new().load_u32(8).drop_if(2u32.to_be())), [1, 3]);
        assert_eq!(answered(Program::new().load_u16(8).drop_if(u32::from(3u16.to_be()))), [1, 2]);
        assert_eq!(answered(Program::new().load_u8(36).drop_if(1)), [2, 3]);
    }

    #[test]
    fn one_of_several_values_passes_and_all_others_are_dropped() {
        assert_eq!(answered(Program::new().load_u8(36).drop_unless(&[3, 1])), [1, 3]);
        assert_eq!(answered(Program::new().load_u8(36).drop_unless(&[2]).drop_if(2)), [] as [u32; 0]);
        assert_eq!(answered(Program::new().load_u8(36).drop_unless(&[])), [] as [u32; 0]);
    }

    #[test]
    fn an_early_accept_ends_the_program() {
        assert_eq!(answered(Program::new().load_u8(36).accept_if(2).drop_unless(&[1])), [1, 2]);
    }

    #[test]
    fn attributes_are_found_in_attributes() {
        let inner = |program: Program| program.find_attribute(ECHOED_ATTRIBUTES, 6).find_nested(2).find_nested(7);
        assert_eq!(answered(inner(Program::new()).load_u8_behind(4).drop_unless(&[20, 30])), [2, 3]);
        assert_eq!(answered(inner(Program::new()).drop_if(0)), [1, 2, 3]);
        assert_eq!(answered(Program::new().find_attribute(ECHOED_ATTRIBUTES, 9).drop_if(0)), [] as [u32; 0]);
        let kept = Program::new().find_attribute(ECHOED_ATTRIBUTES, 6).store(3).load_u8(0).recall(3);
        assert_eq!(answered(kept.find_nested(2).find_nested(7).load_u8_behind(4).drop_if(10)), [2, 3]);
    }

    #[test]
    fn a_part_runs_only_where_its_condition_holds() {
        let drop_all = || Program::new().constant(1).drop_if(1);
        assert_eq!(answered(Program::new().load_u8(36).when(2, drop_all())), [1, 3]);
        assert_eq!(answered(Program::new().load_u8(36).unless(2, drop_all())), [2]);
        assert_eq!(answered(Program::new().load_u8(36).between(2, 3, drop_all())), [1]);
        assert_eq!(answered(Program::new().load_u8(36).between(0, 1, drop_all())), [2, 3]);
        assert_eq!(answered(Program::new().load_u8(36).and(1).when(1, drop_all())), [2]);
        let long = (0..300).fold(Program::new(), |program, number| program.constant(number));
        assert_eq!(long.len(), 300);
        assert_eq!(answered(Program::new().load_u8(36).when(2, long.then(drop_all()))), [1, 3]);
    }

    #[test]
    fn wider_numbers_are_loaded_behind_an_attribute() {
        let inner = || Program::new().find_attribute(ECHOED_ATTRIBUTES, 6).find_nested(2).find_nested(7);
        // The value is a byte, and zeros up to the multiple of four.
        assert_eq!(answered(inner().load_u16_behind(4).drop_unless(&[20 << 8])), [2]);
        assert_eq!(answered(inner().load_u32_behind(4).drop_unless(&[30 << 24])), [3]);
    }

    #[test]
    fn a_program_that_the_kernel_refuses_is_an_error() {
        let socket = NetlinkSocket::open(NETLINK_NETFILTER, 64 * 1024).unwrap();
        let error = Program::new().recall(16).attach(&socket).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }
}
