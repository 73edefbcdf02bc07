//! The story of a run, a line per change of state, and one number that is the digest of the whole story.

use crate::time::Instant;
use core::fmt::{self, Write};

/// Collects the story; without lines only its digest.
#[derive(Debug)]
pub(super) struct Trace {
    lines: Option<Vec<String>>,
    digest: u64,
}

impl Trace {
    pub(super) fn new(keep: bool) -> Self {
        Trace { lines: keep.then(Vec::new), digest: 0xcbf2_9ce4_8422_2325 }
    }

    /// One line. Without lines nothing is kept of it but the digest, into which it is written as it is made.
    pub(super) fn tell(&mut self, now: Instant, text: fmt::Arguments<'_>) {
        let mut digest = Digest(self.digest);
        digest.take(&now.as_nanos().to_be_bytes());
        // Writing into a number cannot fail.
        let _ = digest.write_fmt(text);
        self.digest = digest.0;
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>12.6} {text}", now.as_nanos() as f64 / 1e9));
        }
    }

    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    pub(super) fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}

/// FNV-1a: it depends on nothing but the bytes.
struct Digest(u64);

impl Digest {
    fn take(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    }
}

impl Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.take(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The digest is that of FNV-1a over eight bytes of time and the text, however the text comes in pieces.
    #[test]
    fn the_digest_is_that_of_the_lines_whether_they_are_kept_or_not() {
        let (mut kept, mut hashed) = (Trace::new(true), Trace::new(false));
        for trace in [&mut kept, &mut hashed] {
            trace.tell(Instant::from_nanos(1_500_000_000), format_args!("node {}: {}", 2, "backup"));
        }
        assert_eq!(kept.digest(), hashed.digest());
        let mut whole = Trace::new(false);
        whole.tell(Instant::from_nanos(1_500_000_000), format_args!("node 2: backup"));
        assert_eq!(whole.digest(), hashed.digest());
        let mut later = Trace::new(false);
        later.tell(Instant::from_nanos(1_500_000_001), format_args!("node 2: backup"));
        assert_ne!(later.digest(), hashed.digest());
        assert_eq!(kept.into_lines(), ["    1.500000 node 2: backup"]);
        assert!(hashed.into_lines().is_empty());
    }
}
