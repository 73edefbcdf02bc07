//! What the demo's traffic is made of: bytes that look random and can be checked without being kept, turns that spread
//! work evenly over time, and the arrival time of a packet by the kernel's own stamp.
//!
//! Each connection sends one endless stream, cut into messages of 32 to 512 bytes. Byte `n` of the stream follows from
//! the connection's seed and `n` alone, so that whoever checks the echo recomputes what must come back from the offset
//! it has reached, and ten thousand connections with data in flight keep no copy of it:
//!
//! ```text
//!   offset  0        l0            l0+l1              l0+l1+l2
//!           ├─ message 0 ─┼─── message 1 ───┼── message 2 ──┤
//!                 ▲ received        ▲ written               ▲ asked
//! ```

use crate::time::{Duration, Instant};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::sys::time::TimeSpec;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};

/// Bytes of the shortest message.
pub(super) const MESSAGE_MIN: u64 = 32;
/// Bytes of the longest message.
pub(super) const MESSAGE_MAX: u64 = 512;

/// The random bytes of one connection: splitmix64 (Steele, Lea, Flood 2014), read at any offset.
#[derive(Debug, Clone, Copy)]
pub(super) struct Noise(u64);

impl Noise {
    /// The stream number `number` of a run with this seed; another number is another stream.
    pub(super) fn new(seed: u64, number: u64) -> Self {
        Noise(word(word(seed, 0), number))
    }

    /// Writes the bytes from `offset` on to the whole of `buffer`.
    pub(super) fn fill(self, offset: u64, buffer: &mut [u8]) {
        let skip = (offset % 8) as usize;
        let first = (8 - skip).min(buffer.len());
        let (head, rest) = buffer.split_at_mut(first);
        head.copy_from_slice(&word(self.0, offset / 8).to_le_bytes()[skip..skip + first]);
        for (index, chunk) in (offset / 8 + 1..).zip(rest.chunks_mut(8)) {
            chunk.copy_from_slice(&word(self.0, index).to_le_bytes()[..chunk.len()]);
        }
    }

    /// Word number `at`, for whoever wants a number that follows from the seed.
    pub(super) fn number(self, at: u64) -> u64 {
        word(self.0, at)
    }

    /// Bytes of message number `message`.
    pub(super) fn length(self, message: u64) -> u64 {
        MESSAGE_MIN + word(!self.0, message) % (MESSAGE_MAX - MESSAGE_MIN + 1)
    }
}

/// Word number `index` of the splitmix64 sequence with this seed.
fn word(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(index.wrapping_add(1)));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Turns: each of `count` items once per `period`, evenly spread, so that no burst disturbs what is measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rotation {
    start: Instant,
    period: Duration,
    count: u64,
    done: u64,
}

impl Rotation {
    /// `count` items, the first one due at `start`.
    pub(super) fn new(start: Instant, period: Duration, count: usize) -> Self {
        Rotation { start, period: period.max(Duration::from_millis(1)), count: count as u64, done: 0 }
    }

    /// The turns that are due, as numbers that count on over all rounds: the item is the number modulo the count. Who
    /// comes late by more than a round gets one round: what was missed is not made up for in a burst.
    pub(super) fn due(&mut self, now: Instant) -> Range<u64> {
        if self.count == 0 || now < self.start {
            return 0..0;
        }
        let elapsed = now.since(self.start).as_nanos();
        let due = elapsed * u128::from(self.count) / self.period.as_nanos() + 1;
        let due = u64::try_from(due).unwrap_or(u64::MAX);
        let first = self.done.max(due.saturating_sub(self.count));
        self.done = due;
        first..due
    }

    /// Whether every item has had its turn at least once.
    pub(super) fn is_round(&self) -> bool {
        self.done >= self.count
    }
}

/// The middle of `values` by nearest rank (the lower one of an even number); `None` without any.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}

/// Milliseconds with their fraction.
pub(super) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Now, by CLOCK_REALTIME, since the epoch: the clock of the kernel's packet stamps.
pub(super) fn wall_clock() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

/// Takes one packet from a socket with `SO_TIMESTAMPNS` on (socket(7)), without waiting: its length, and when the kernel
/// took it in, by CLOCK_REALTIME since the epoch. `None` if there is none.
///
/// # Errors
/// The operating system's error, an ICMP error that has come for this socket among them.
pub(super) fn receive_stamped(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Option<(usize, Duration)>> {
    let mut space = nix::cmsg_space!(TimeSpec);
    let mut parts = [io::IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let message = match recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut parts, Some(&mut space), flags) {
        Ok(message) => message,
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let stamp = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmTimestampns(time) => Some(Duration::from(time)),
        _ => None,
    });
    Ok(Some((message.bytes, stamp.unwrap_or_else(wall_clock))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at_ms(milliseconds: u64) -> Instant {
        Instant::from_nanos(milliseconds * 1_000_000)
    }

    #[test]
    fn the_words_are_those_of_splitmix64() {
        assert_eq!(word(0, 0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(word(0, 1), 0x6e78_9e6a_a1b9_65f4);
        assert_eq!(word(1_234_567, 0), 6_457_827_717_110_365_317);
        assert_eq!(word(1_234_567, 1), 3_203_168_211_198_807_973);
    }

    #[test]
    fn the_bytes_are_the_same_whatever_the_cut() {
        let mut whole = [0; 100];
        Noise(0).fill(0, &mut whole);
        assert_eq!(whole[..8], [0xaf, 0xcd, 0x1d, 0x7b, 0x39, 0xa8, 0x20, 0xe2]);
        for from in 0..100 {
            for to in from..100 {
                let mut piece = vec![0; to - from];
                Noise(0).fill(from as u64, &mut piece);
                assert_eq!(piece, whole[from..to], "{from}..{to}");
            }
        }
    }

    #[test]
    fn two_streams_of_one_seed_differ() {
        let (mut one, mut other) = ([0; 16], [0; 16]);
        Noise::new(7, 0).fill(0, &mut one);
        Noise::new(7, 1).fill(0, &mut other);
        assert_ne!(one, other);
        Noise::new(8, 0).fill(0, &mut other);
        assert_ne!(one, other);
    }

    #[test]
    fn messages_have_all_lengths_from_32_to_512() {
        let lengths: Vec<u64> = (0..100_000).map(|message| Noise(3).length(message)).collect();
        assert_eq!(lengths.iter().min(), Some(&32));
        assert_eq!(lengths.iter().max(), Some(&512));
    }

    #[test]
    fn turns_are_spread_over_the_period() {
        let mut rotation = Rotation::new(at_ms(0), SECOND, 10);
        assert_eq!(rotation.due(at_ms(0)), 0..1);
        assert_eq!(rotation.due(at_ms(99)), 1..1);
        assert_eq!(rotation.due(at_ms(100)), 1..2);
        assert!(!rotation.is_round());
        assert_eq!(rotation.due(at_ms(950)), 2..10);
        assert!(rotation.is_round());
        assert_eq!(rotation.due(at_ms(1000)), 10..11);
    }

    #[test]
    fn who_comes_late_does_not_make_up_for_it_in_a_burst() {
        let mut rotation = Rotation::new(at_ms(0), SECOND, 10);
        assert_eq!(rotation.due(at_ms(5000)), 41..51);
        assert_eq!(Rotation::new(at_ms(0), SECOND, 0).due(at_ms(5000)), 0..0);
        assert_eq!(Rotation::new(at_ms(9), SECOND, 4).due(at_ms(5)), 0..0);
    }

    #[test]
    fn the_median_of_an_even_number_is_the_lower_middle() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.0));
        assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&[]), None);
    }
}
