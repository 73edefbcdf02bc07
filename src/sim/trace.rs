//! The story of a run, a line per change of state, and one number that is the digest of the whole story.

use crate::time::Instant;

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

    /// One line. (FNV-1a, so that the digest depends on nothing but the bytes.)
    pub(super) fn line(&mut self, now: Instant, text: &str) {
        for byte in now.as_nanos().to_be_bytes().into_iter().chain(text.bytes()) {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
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
