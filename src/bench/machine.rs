//! What the machine can do at all: the limits that stand beside the table, and the speed of what each frame passes through.
//!
//! ```text
//!   walk    one cache line at random, read and written, as a record's slot is      lines/s
//!   copy    a frame from one place of memory to another                            bytes/s
//!   crc32   over a frame                                                           bytes/s
//!   cipher  AES-256-GCM over a frame's payload, with the header as additional data  bytes/s
//! ```
//!
//! The walk does not wait for one line before it asks for the next: what a processor can overlap it may overlap. All of it is
//! counted by seconds of processor, not of the wall: one core is what is meant, and others may be at work on it, too.

use super::rest::processor_s;
use super::workload::{FRAME_LEN, Numbers, Stream, apply, table};
use crate::sys::clock;
use crate::table::Table;
use crate::time::{Duration, Instant};
use crate::wire::HEADER_LEN;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use std::hint::black_box;

/// Words of 8 bytes in a cache line.
const LINE_WORDS: usize = 8;
/// Steps of the walk between two looks at the clock.
const STEPS: usize = 1 << 14;
/// Frames that are copied in turn: together larger than most caches.
const COPIED_FRAMES: usize = 1 << 14;
/// Frames that are made before each stretch that is timed.
const FRAMES: usize = 512;

/// Lines a second of a walk through as many bytes as `bytes`.
pub(super) fn walk_per_s(bytes: usize, time: Duration) -> f64 {
    let lines = (bytes / (LINE_WORDS * 8)).max(1);
    let mut memory = vec![1_u64; lines * LINE_WORDS];
    let mut numbers = Numbers::default();
    per_s(time, || {
        for _ in 0..STEPS {
            let at = numbers.below(lines as u32) as usize * LINE_WORDS;
            memory[at] = memory[at].wrapping_add(1);
        }
        black_box(&mut memory);
        STEPS as f64
    })
}

/// Bytes a second that are copied, frame by frame, through more memory than caches hold.
pub(super) fn copy_per_s(time: Duration) -> f64 {
    let (from, mut to) = (vec![0x5a_u8; FRAME_LEN * COPIED_FRAMES], vec![0_u8; FRAME_LEN * COPIED_FRAMES]);
    per_s(time, || {
        for (to, from) in to.chunks_exact_mut(FRAME_LEN).zip(from.chunks_exact(FRAME_LEN)) {
            to.copy_from_slice(black_box(from));
        }
        black_box(&mut to);
        from.len() as f64
    })
}

/// Bytes a second of CRC-32 over frames that are in the cache, as one is that has just arrived.
pub(super) fn crc32_per_s(time: Duration) -> f64 {
    let frame = [0x5a_u8; FRAME_LEN];
    per_s(time, || {
        for _ in 0..FRAMES {
            black_box(crc32fast::hash(black_box(&frame)));
        }
        (FRAMES * FRAME_LEN) as f64
    })
}

/// Bytes a second that are sealed with AES-256-GCM, of a frame that is in the cache; `None` if the library refuses.
pub(super) fn cipher_per_s(time: Duration) -> Option<f64> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[0x5a; 32]).ok()?);
    let (mut payload, mut number) = ([0x5a_u8; FRAME_LEN - HEADER_LEN], 0_u64);
    let sealed = per_s(time, || {
        for _ in 0..FRAMES {
            number += 1;
            let mut nonce = [0; NONCE_LEN];
            nonce[4..].copy_from_slice(&number.to_be_bytes());
            let nonce = Nonce::assume_unique_for_key(nonce);
            let _ = black_box(key.seal_in_place_separate_tag(nonce, Aad::from([0; HEADER_LEN]), &mut payload));
        }
        (FRAMES * FRAME_LEN) as f64
    });
    Some(sealed)
}

fn per_s(time: Duration, mut some: impl FnMut() -> f64) -> f64 {
    let (start, mut done) = (processor_s(), 0.0);
    loop {
        done += some();
        let passed = processor_s() - start;
        if passed >= time.as_secs_f64() {
            return done / passed;
        }
    }
}

/// A table and the stream that it follows.
pub(super) struct Applied {
    stream: Stream,
    table: Table,
    frames: Vec<([u8; FRAME_LEN], usize)>,
    now: Instant,
}

impl Applied {
    /// A table that holds so many flows.
    pub(super) fn new(flows: u32) -> Self {
        let (stream, now) = (Stream::new(flows), clock::now());
        let table = table(&stream, now);
        Applied { stream, table, frames: vec![([0; FRAME_LEN], 0); FRAMES], now }
    }

    /// Bytes that the table takes.
    pub(super) fn bytes(&self) -> usize {
        self.table.bytes()
    }

    /// Flows that it has room for.
    pub(super) fn places(&self) -> u32 {
        self.table.capacity()
    }

    /// Records a second that it applies, CRC, digest, tombstones and the list for the sink included. Making frames is not in
    /// the time.
    pub(super) fn per_s(&mut self, time: Duration) -> f64 {
        let Applied { stream, table, frames, now } = self;
        let (mut records, mut passed) = (0, 0.0);
        while passed < time.as_secs_f64() {
            for (frame, length) in &mut *frames {
                *length = stream.next_frame(frame);
            }
            let start = processor_s();
            for (frame, length) in &*frames {
                records += apply(table, &frame[..*length], *now);
            }
            passed += processor_s() - start;
        }
        records as f64 / passed
    }
}
