//! Rules of the protocol that a test can break on purpose, one at a time, to see whether the simulator notices (`ssyncp sim
//! --breakages`). Without the feature `breakages` (and outside unit tests) nothing can be broken, and the question whether
//! something is costs nothing: its answer is a constant.
//!
//! ```text
//!   Config::breakage ──▶ Broken ──▶ one condition at the rule, in inbox, outbox, peers, receive …
//! ```

use super::Engine;
use super::config::Config;

macro_rules! breakages {
    ($($(#[doc = $text:literal])+ $variant:ident, $name:literal, $rule:literal;)+) => {
        /// A rule that is broken on purpose. Each says what happens instead.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Breakage {
            $($(#[doc = $text])+ $variant,)+
        }

        impl Breakage {
            /// Every one: it, its name, and the number of the rule in docs/protocol.md.
            pub const ALL: &[(Breakage, &str, &str)] = &[$((Breakage::$variant, $name, $rule),)+];
        }
    };
}

breakages! {
    /// A delete that comes early leaves nothing behind.
    NoTombstones, "no-tombstones", "4.2.2";
    /// A delete that comes before the first word of its key leaves nothing behind.
    TombstoneOnlyForKnownKeys, "tombstone-only-for-known-keys", "4.2.2";
    /// The frontier goes on over a frame that is missing.
    FrontierOverAGap, "frontier-over-a-gap", "4.1.3";
    /// The end of a walk takes effect when it arrives, whatever of the walk is missing.
    BucketEndBeforeFrontier, "bucket-end-before-frontier", "4.5.3";
    /// The end of a walk that began before a hole takes effect.
    BucketEndWithoutSinceAboveBase, "bucket-end-without-since-above-base", "4.5.4";
    /// A node takes what itself has sent.
    OwnEchoAccepted, "own-echo-accepted", "3.2.5";
    /// What dies stays in the digest.
    DigestForgetsDeletes, "digest-forgets-deletes", "4.4.3";
    /// A bucket is compared with a digest that was taken before its last change.
    TouchedIgnored, "touched-ignored", "4.4.9";
    /// A node that comes back with its kernel's table goes on where its predecessor stood, and counts as proven as that.
    WarmRestartKeepsFrontier, "warm-restart-keeps-frontier", "4.1.2";
    /// What a complete dump does not name stays.
    OverrunIgnored, "overrun-ignored", "4.3.2";
    /// A follower acknowledges the highest number that it has heard of.
    AcknowledgedBeforeApplied, "acknowledged-before-applied", "3.6.1";
    /// The frontier of a follower that is not proven acknowledges.
    UnprovenFrontierAcknowledges, "unproven-frontier-acknowledges", "6.0.2";
    /// A master sends whatever its followers can take.
    CreditIgnored, "credit-ignored", "3.6.6";
    /// A follower that stands still is waited for, for ever.
    LaggingNeverReleased, "lagging-never-released", "3.6.6";
    /// A frame that is sent again says what the table says now.
    RetransmissionWithNewContent, "retransmission-with-new-content", "3.6.4";
    /// Whoever is heard counts as established.
    StaleIncarnationAccepted, "stale-incarnation-accepted", "3.5.3";
    /// Of the followed master DATA of every term is taken.
    DataOfAnyTerm, "data-of-any-term", "4.1.1";
    /// Parts of an older value are kept when a newer one of its key begins.
    PartsOfAnyVersion, "parts-of-any-version", "3.3.12";
    /// DATA of every established node is taken.
    DataOfAnyStream, "data-of-any-stream", "4.1.1";
    /// A backup removes what is over by its own clock.
    BackupExpiresByTime, "backup-expires-by-time", "4.6.3";
    /// A cold node takes the role as early as a warm one.
    ColdDoesNotWait, "cold-does-not-wait", "5.1.1";
    /// A node takes the role although another one hears the master.
    TakeoverDespiteWitness, "takeover-despite-witness", "5.2.3";
    /// Of two masters the one of higher priority stays, whatever its term.
    PriorityBeforeTerm, "priority-before-term", "5.4.1";
    /// An heir takes over although it misses what the master has sent.
    HeirBeforeLastNumber, "heir-before-final-number", "5.3.4";
    /// Who hears that another is to be master takes the role itself.
    OthersStartTimersInHandover, "others-start-timers-in-handover", "5.3.5";
    /// Entries that another node tells of are adopted, whoever has asked for them.
    AdoptUnasked, "adopt-unasked", "5.5.1";
    /// Who was master removes what the new one lacks before that one has asked for it.
    BucketEndsDuringMerge, "bucket-ends-during-merge", "5.5.4";
    /// A node takes over without what a peer holds beyond it.
    NoMergeBeforeTakeover, "no-merge-before-takeover", "5.2.5";
}

impl Breakage {
    /// The one of this name.
    pub fn named(name: &str) -> Option<Breakage> {
        Self::ALL.iter().find(|(_, it, _)| *it == name).map(|(breakage, ..)| *breakage)
    }

    /// Its name, as `ssyncp sim --break` takes it.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(it, ..)| *it == self).map_or("", |(_, name, _)| name)
    }
}

/// What is broken, for those parts of an engine that do not see its configuration. Has no size where nothing can be.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Broken(#[cfg(any(test, feature = "breakages"))] Option<Breakage>);

impl Broken {
    #[inline]
    #[allow(clippy::unused_self, reason = "without the feature the answer does not depend on it")]
    pub(super) const fn is(self, breakage: Breakage) -> bool {
        #[cfg(any(test, feature = "breakages"))]
        return matches!(self.0, Some(it) if it as u8 == breakage as u8);
        #[cfg(not(any(test, feature = "breakages")))]
        {
            let _ = breakage;
            false
        }
    }
}

impl Config {
    /// What is broken on purpose.
    #[inline]
    pub(super) const fn broken(&self) -> Broken {
        #[cfg(any(test, feature = "breakages"))]
        return Broken(self.breakage);
        #[cfg(not(any(test, feature = "breakages")))]
        Broken()
    }
}

impl Engine {
    /// Whether this rule is broken.
    #[inline]
    pub(super) const fn breaks(&self, breakage: Breakage) -> bool {
        self.config.broken().is(breakage)
    }
}

#[cfg(any(test, feature = "breakages"))]
pub use hands::Memory;

/// What of a breakage is more than a condition.
#[cfg(any(test, feature = "breakages"))]
mod hands {
    use super::super::Engine;
    use super::super::inbox::Stream;
    use crate::time::Instant;
    use crate::wire::{DataWriter, Frame, Payload, Record};

    /// How far a node was in the stream that it followed: what a daemon could have written down before it died.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Memory {
        stream: Stream,
        frontier: u64,
    }

    impl Engine {
        /// What [`Engine::remember`] of a successor takes; nothing if nothing is proven.
        pub fn memory(&self) -> Option<Memory> {
            let stream = self.inbox.stream().filter(|_| self.repair.is_proven())?;
            Some(Memory { stream, frontier: self.inbox.frontier() })
        }

        /// For `warm-restart-keeps-frontier`: this node's predecessor was so far, and was proven.
        pub fn remember(&mut self, memory: Memory) {
            self.memory = Some(memory);
        }

        /// Goes on where the predecessor stood.
        pub(in crate::engine) fn take_up(&mut self, now: Instant, stream: Stream, origin: u64) {
            let Some(memory) = self.memory.take().filter(|memory| memory.stream == stream) else { return };
            self.inbox.follow(stream, origin, memory.frontier);
            self.table.passed(self.inbox.local(memory.frontier));
            self.repair.matched(now);
            self.cold = false;
        }

        /// Writes the frame in `slot` anew: the same number, and the values that its keys have now.
        pub(in crate::engine) fn renew_content(&self, now: Instant, slot: &mut [u8], length: usize) -> usize {
            let stored = slot[..length].to_vec();
            let Ok(frame) = Frame::parse(&stored) else { return length };
            let header = frame.header();
            let Ok(verified) = frame.verify() else { return length };
            let Payload::Data(records) = verified.payload() else { return length };
            let Some(mut writer) = DataWriter::new(slot, header) else { return length };
            for record in records {
                let key = match record {
                    Record::Upsert(conn) => conn.key(),
                    Record::Delete(conn) => conn.key(),
                    Record::BucketEnd { bucket, since } => {
                        let _ = writer.push_bucket_end(bucket, since);
                        continue;
                    }
                    _ => continue,
                };
                let _ = match self.table.get(&key, now) {
                    Some(flow) => writer.push_upsert(&flow),
                    None => writer.push_delete(&key),
                };
            }
            writer.finish()
        }
    }
}

/// Where nothing can be broken these are never called, and do nothing.
#[cfg(not(any(test, feature = "breakages")))]
mod hands {
    use super::super::Engine;
    use super::super::inbox::Stream;
    use crate::time::Instant;

    impl Engine {
        #[allow(clippy::unused_self, reason = "has a body only with the feature")]
        pub(in crate::engine) const fn take_up(&mut self, _now: Instant, _stream: Stream, _origin: u64) {}

        #[allow(clippy::unused_self, reason = "has a body only with the feature")]
        pub(in crate::engine) const fn renew_content(&self, _now: Instant, _slot: &mut [u8], length: usize) -> usize {
            length
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_breakage_is_found_by_its_name_and_names_are_unique() {
        assert_eq!(Breakage::named("no-tombstones"), Some(Breakage::NoTombstones));
        assert_eq!(Breakage::named("no-such-thing"), None);
        assert_eq!(Breakage::PriorityBeforeTerm.name(), "priority-before-term");
        let names: std::collections::BTreeSet<_> = Breakage::ALL.iter().map(|(_, name, _)| name).collect();
        assert_eq!(names.len(), Breakage::ALL.len());
    }

    /// Each rule that can be broken bears the mark ◆ in docs/protocol.md, and no other does.
    #[test]
    fn the_protocol_marks_the_rules_that_can_be_broken() {
        let document = include_str!("../../docs/protocol.md");
        let marked = document.lines().filter_map(|line| line.strip_prefix("**[")?.split_once("]** ◆"));
        let marked: std::collections::BTreeSet<&str> = marked.map(|(rule, _)| rule).collect();
        let broken: std::collections::BTreeSet<&str> = Breakage::ALL.iter().map(|(.., rule)| *rule).collect();
        assert_eq!(marked, broken);
    }
}
