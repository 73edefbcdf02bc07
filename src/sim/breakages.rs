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
        Breakage::UnprovenFrontierAcknowledges => &["acknowledged"],
        Breakage::CreditIgnored => &["credit"],
        Breakage::LaggingNeverReleased => &["lagging"],
        Breakage::RetransmissionWithNewContent => &["same-bytes"],
        Breakage::StaleIncarnationAccepted | Breakage::StrangerWithoutEcho => &["established"],
        Breakage::TagNotTested | Breakage::UnsealedUnderEnforce => &["authentic"],
        Breakage::ReplayWindowNotTested => &["taken-once"],
        Breakage::NumberSealedTwice => &["nonce"],
        Breakage::OwnNumberBeforeCipher => &["stranger"],
        Breakage::MarkedBeforeCipher => &["attack"],
        Breakage::DataOfAnyTerm | Breakage::DataOfAnyStream => &["not-followed", "frontier"],
        // A value that is never put together is older than the walk that takes it.
        Breakage::PartsOfAnyVersion => &["last-word", "in-sync", "live-flow"],
        Breakage::BackupExpiresByTime => &["live-flow"],
        Breakage::ColdDoesNotWait => &["cold-waits"],
        Breakage::TakeoverDespiteWitness => &["takeover"],
        Breakage::PriorityBeforeTerm => &["two-masters"],
        Breakage::HeirBeforeLastNumber => &["succession"],
        Breakage::OthersStartTimersInHandover => &["takeover", "succession", "two-masters"],
        Breakage::AdoptUnasked => &["adopts"],
        Breakage::BucketEndsDuringMerge => &["merge"],
        Breakage::NoMergeBeforeTakeover => &["merge-first"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{Options, attempt};

    /// Seeds that are tried from the known one on: a change of the world moves what is rare.
    const SEARCHED: u64 = 12;

    /// Each one whose first seed is low, and that seed.
    const KNOWN: &[(&str, u64)] = &[
        ("no-tombstones", 1),
        ("tombstone-only-for-known-keys", 0),
        ("frontier-over-a-gap", 0),
        ("bucket-end-before-frontier", 0),
        ("bucket-end-without-since-above-base", 76),
        ("own-echo-accepted", 0),
        ("digest-forgets-deletes", 0),
        ("touched-ignored", 21),
        ("warm-restart-keeps-frontier", 2),
        ("overrun-ignored", 0),
        ("acknowledged-before-applied", 0),
        ("unproven-frontier-acknowledges", 0),
        ("credit-ignored", 0),
        ("lagging-never-released", 24),
        ("retransmission-with-new-content", 6),
        ("stale-incarnation-accepted", 1),
        ("tag-not-tested", 0),
        ("replay-window-not-tested", 0),
        ("number-sealed-twice", 0),
        ("own-number-before-cipher", 0),
        ("marked-before-cipher", 2),
        ("unsealed-under-enforce", 0),
        ("stranger-without-echo", 1),
        ("data-of-any-term", 4),
        ("parts-of-any-version", 40),
        ("data-of-any-stream", 0),
        ("backup-expires-by-time", 1),
        ("cold-does-not-wait", 11),
        ("takeover-despite-witness", 3),
        ("priority-before-term", 0),
        ("heir-before-final-number", 4),
        ("others-start-timers-in-handover", 11),
        ("adopt-unasked", 0),
        ("bucket-ends-during-merge", 2),
        ("no-merge-before-takeover", 13),
    ];

    #[test]
    fn each_breakage_of_which_a_seed_is_known_is_found_by_the_promise_that_it_breaks() {
        for (name, first) in KNOWN {
            let breakage = Breakage::named(name);
            let found = (*first..first + SEARCHED).find(|seed| {
                let options = Options { breakage, ..Options::of_seed(*seed) };
                let violation = attempt(*seed, &options, false).violation;
                violation.is_some_and(|violation| breakage.is_some_and(|breakage| fits(breakage, violation.rule)))
            });
            assert!(found.is_some(), "{name}, in {SEARCHED} seeds from {first} on");
        }
    }
}
