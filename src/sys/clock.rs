//! The daemon's clock and its source of random numbers.

use crate::time::Instant;
use nix::time::{ClockId, clock_gettime};

/// Now, by CLOCK_BOOTTIME: monotonic, and it goes on while the machine is suspended, so that a node that slept knows
/// it.
pub fn now() -> Instant {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("CLOCK_BOOTTIME exists since Linux 2.6.39");
    Instant::from_nanos(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

/// Random bytes from the kernel.
pub fn random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the kernel's random numbers are always there after boot");
}

/// A random number from the kernel that is not zero.
pub fn random_u64() -> u64 {
    loop {
        let number = getrandom::u64().expect("the kernel's random numbers are always there after boot");
        if number != 0 {
            return number;
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_clock_does_not_run_backwards() {
        let first = super::now();
        assert!(super::now() >= first);
        assert!(first > crate::time::Instant::ZERO);
    }
}
