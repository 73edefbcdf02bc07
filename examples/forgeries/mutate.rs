//! What a forger does to a frame that he has seen: everything but to seal it.

#![allow(clippy::ptr_arg, reason = "all forgeries have one type, and some change the length")]

use ssyncp::wire::{FRAME_LEN_MAX, HEADER_LEN, VERSION};

/// A stream of numbers out of one (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Dice(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `sides`, which is not 0.
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        (self.next() % sides as u64) as usize
    }
}

/// A kind of forgery.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// Of 128 frames so many are of it.
    pub(crate) weight: u64,
    pub(crate) how: How,
}

/// Where its frames come from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum How {
    /// A frame on its way, changed; the checksum is made to fit then.
    Changed(fn(&mut Vec<u8>, &mut Dice, &[Vec<u8>])),
    /// The same frame, sealed with a secret that was guessed.
    Guessed,
    /// A frame that was taken before, unchanged.
    Replayed,
}

const fn changed(name: &'static str, weight: u64, how: fn(&mut Vec<u8>, &mut Dice, &[Vec<u8>])) -> Kind {
    Kind { name, weight, how: How::Changed(how) }
}

/// All of them. Those that never come as far as the cipher are few: they cost nobody anything.
pub(crate) const KINDS: [Kind; 9] = [
    changed("bits", 38, bits),
    changed("bytes", 24, bytes),
    changed("cut", 12, cut),
    changed("longer", 12, longer),
    changed("splice", 16, splice),
    changed("numbers", 14, numbers),
    changed("sender", 4, sender),
    Kind { name: "guessed", weight: 6, how: How::Guessed },
    Kind { name: "replayed", weight: 2, how: How::Replayed },
];

/// 1 to 8 bits behind the header.
fn bits(frame: &mut Vec<u8>, dice: &mut Dice, _: &[Vec<u8>]) {
    for _ in 0..=dice.roll(8) {
        let at = HEADER_LEN + dice.roll(frame.len() - HEADER_LEN);
        frame[at] ^= 1 << dice.roll(8);
    }
}

/// A run of up to 16 bytes behind the header: of one value, of any, or from elsewhere in the frame.
fn bytes(frame: &mut Vec<u8>, dice: &mut Dice, _: &[Vec<u8>]) {
    let at = HEADER_LEN + dice.roll(frame.len() - HEADER_LEN);
    let end = (at + 1 + dice.roll(16)).min(frame.len());
    let value = dice.next().to_le_bytes();
    match dice.roll(3) {
        0 => frame[at..end].fill([0, 0xff, value[0]][dice.roll(3)]),
        1 => frame[at..end].iter_mut().zip(value.iter().cycle()).for_each(|(byte, other)| *byte = *other),
        _ => {
            let from = HEADER_LEN + dice.roll(frame.len() - HEADER_LEN - (end - at) + 1);
            frame.copy_within(from..from + (end - at), at);
        }
    }
}

/// The end is gone; seldom part of the header, too.
fn cut(frame: &mut Vec<u8>, dice: &mut Dice, _: &[Vec<u8>]) {
    let least = if dice.roll(64) == 0 { 0 } else { HEADER_LEN };
    frame.truncate(least + dice.roll(frame.len() - least));
}

/// Bytes behind the end: zero, any, or the end again.
fn longer(frame: &mut Vec<u8>, dice: &mut Dice, _: &[Vec<u8>]) {
    let more = 1 + dice.roll(32.min(FRAME_LEN_MAX - frame.len()));
    match dice.roll(3) {
        0 => frame.resize(frame.len() + more, 0),
        1 => frame.extend((0..more).map(|_| dice.next() as u8)),
        _ => frame.extend_from_within(frame.len() - more.min(frame.len())..),
    }
}

/// The beginning of one frame and the end of another: header and payload, or cut anywhere behind the header.
fn splice(frame: &mut Vec<u8>, dice: &mut Dice, others: &[Vec<u8>]) {
    let other = &others[dice.roll(others.len())];
    let at = if dice.roll(2) == 0 { HEADER_LEN } else { HEADER_LEN + dice.roll(frame.len() - HEADER_LEN) };
    frame.truncate(at);
    frame.extend_from_slice(&other[at.min(other.len() - 1)..]);
}

/// What a header says of its frame: number, term, kind, count. A number that was taken goes no further, so most are newer.
fn numbers(frame: &mut Vec<u8>, dice: &mut Dice, _: &[Vec<u8>]) {
    let any = dice.next();
    let add = |frame: &mut [u8], at: usize, more: u64| {
        let field: &mut [u8] = &mut frame[at..at + 8];
        let number = field.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        field.copy_from_slice(&number.wrapping_add(more).to_be_bytes());
    };
    match dice.roll(8) {
        0..3 => add(frame, 24, 1 + any % 1000),
        3 => add(frame, 24, any),
        4 => add(frame, 24, (any % 4).wrapping_neg()),
        5 => add(frame, 32, [1, 2, any, 1_u64.wrapping_neg()][dice.roll(4)]),
        6 => frame[5] = any as u8,
        _ => frame[0] = any as u8,
    }
}

/// Who is said to have sent it, and how: most of these no cipher sees.
fn sender(frame: &mut Vec<u8>, dice: &mut Dice, _: &[Vec<u8>]) {
    let any = dice.next().to_be_bytes();
    match dice.roll(8) {
        0 => frame[12..16].copy_from_slice(&any[..4]),
        1 => frame[12..16].fill(0),
        2 => frame[16..24].copy_from_slice(&any),
        3 => frame[16..24].fill(0),
        4 => frame[24..32].fill(0),
        5 => frame[1] = any[0],
        6 => frame[6] = any[0] & 3,
        _ => frame[7] ^= [1, 2, 0x81][usize::from(any[0] % 3)],
    }
}

/// Size, version and checksum as they should be, as far as there is room for them.
pub(crate) fn mend(frame: &mut [u8]) {
    let size = (frame.len() as u16).to_be_bytes();
    if let Some(field) = frame.get_mut(2..4) {
        field.copy_from_slice(&size);
    }
    if frame.len() < HEADER_LEN {
        return;
    }
    frame[4] = VERSION;
    frame[8..12].fill(0);
    let checksum = crc32fast::hash(frame);
    frame[8..12].copy_from_slice(&checksum.to_be_bytes());
}
