//! By which promise each rule that is broken on purpose must be found out: the one that it breaks, and not one that suffers
//! by accident.
//!
//! ```text
//!   seed, unbroken ── must be clean ──┐
//!   seed, broken ──▶ promise P ───────┴──▶ found, if P is in the breakage's row
//! ```

use crate::engine::breakage::Breakage;

/// Whether this promise (the oracle's short name) is one that the breakage breaks.
pub fn fits(breakage: Breakage, promise: &str) -> bool {
    promises(breakage).contains(&promise)
}

const fn promises(breakage: Breakage) -> &'static [&'static str] {
    match breakage {
        Breakage::NoTombstones | Breakage::TombstoneOnlyForKnownKeys => &["resurrected"],
        Breakage::FrontierOverAGap => &["frontier"],
        Breakage::BucketEndBeforeFrontier | Breakage::BucketEndWithoutSinceAboveBase => &["live-flow"],
        Breakage::OwnEchoAccepted => &["own-echo"],
        // What is dead in the table and alive in its digest never equals the master's, or equals what it must not.
        Breakage::DigestForgetsDeletes => &["diverged", "all-in-sync", "converges", "in-sync"],
        Breakage::TouchedIgnored => &["in-sync", "diverged"],
        Breakage::WarmRestartKeepsFrontier => &["resurrected", "in-sync", "last-word"],
        Breakage::OverrunIgnored => &["converges", "kernel-is-table"],
        Breakage::AcknowledgedBeforeApplied => &["acknowledges"],
        Breakage::CreditIgnored => &["credit"],
        Breakage::LaggingNeverReleased => &["lagging"],
        Breakage::RetransmissionWithNewContent => &["same-bytes"],
        Breakage::StaleIncarnationAccepted => &["established"],
        Breakage::DataOfAnyTerm | Breakage::DataOfAnyStream => &["not-followed", "frontier"],
        Breakage::PartsOfAnyVersion => &["last-word", "in-sync"],
        Breakage::BackupExpiresByTime => &["live-flow"],
        Breakage::ColdDoesNotWait => &["cold-waits"],
        Breakage::TakeoverDespiteWitness => &["takeover"],
        Breakage::PriorityBeforeTerm => &["two-masters"],
    }
}
