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
    /// What does not open is read as if it had not been sealed.
    TagNotTested, "tag-not-tested", "3.4.2";
    /// A control frame is taken as often as it comes.
    ReplayWindowNotTested, "replay-window-not-tested", "3.4.3";
    /// A frame that is sent again says what the table says now, and is sealed anew under its number.
    NumberSealedTwice, "number-sealed-twice", "3.4.5";
    /// Who uses this node's number is reported before its seal is opened.
    OwnNumberBeforeCipher, "own-number-before-cipher", "3.4.6";
    /// The number of a frame counts as taken although its seal does not open.
    MarkedBeforeCipher, "marked-before-cipher", "3.4.6";
    /// What is not sealed is taken although everything has to be.
    UnsealedUnderEnforce, "unsealed-under-enforce", "3.4.7";
    /// Whoever has the secret counts as established.
    StrangerWithoutEcho, "stranger-without-echo", "3.5.3";
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
    use super::Breakage;
    use crate::time::Instant;
    use crate::wire::{DataWriter, Frame, HEADER_LEN, Payload, Record, TAG_LEN};

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

        /// Writes the frame in `slot` anew: the same number, and the values that its keys have now. `None` if it was sealed, and
        /// the sealer refuses to seal its number again.
        pub(in crate::engine) fn renew_content(
            &mut self,
            now: Instant,
            slot: &mut [u8],
            length: usize,
        ) -> Option<usize> {
            let mut stored = slot[..length].to_vec();
            let header = Frame::parse(&stored).ok()?.header();
            let sealed = header.flags.is_sealed();
            if sealed {
                self.strip_seal(&mut stored);
            }
            let verified = Frame::parse(&stored).and_then(Frame::verify).ok()?;
            let header = verified.header();
            let Payload::Data(records) = verified.payload() else { return Some(length) };
            let room = slot.len() - if sealed { TAG_LEN } else { 0 };
            let mut writer = DataWriter::new(&mut slot[..room], header)?;
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
            let length = writer.finish();
            if self.breaks(Breakage::NumberSealedTwice) {
                self.keyring.forget_numbers();
            }
            if sealed { self.keyring.seal(slot, length) } else { Some(length) }
        }

        /// For `tag-not-tested`: makes of a frame that does not open one in the clear, and says how long it is.
        pub(in crate::engine) fn read_unopened(&self, bytes: &mut [u8]) -> usize {
            let sealed = Frame::parse(bytes).is_ok_and(|frame| frame.header().flags.is_sealed());
            if !self.breaks(Breakage::TagNotTested) || !sealed || bytes.len() < HEADER_LEN + TAG_LEN {
                return bytes.len();
            }
            let mut copy = bytes.to_vec();
            if self.strip_seal(&mut copy) { bytes.len() } else { in_the_clear(bytes) }
        }

        /// Opens a frame and makes it what it was before it was sealed; whether it opened.
        fn strip_seal(&self, bytes: &mut Vec<u8>) -> bool {
            let Ok(header) = Frame::parse(bytes).map(|frame| frame.header()) else { return false };
            let mut secrets = self.config.secrets.iter().filter(|secret| secret.id() == header.flags.key_id());
            let key = secrets.next().map(|secret| secret.key(self.config.sync_id, header.node, header.incarnation));
            let opened = key.is_some_and(|key| key.open(bytes).is_ok());
            let length = in_the_clear(bytes);
            bytes.truncate(length);
            opened
        }
    }

    /// Takes flag and tag from a frame, whose payload stays as it is; its length then.
    fn in_the_clear(bytes: &mut [u8]) -> usize {
        let length = bytes.len() - TAG_LEN;
        let frame = &mut bytes[..length];
        frame[2..4].copy_from_slice(&(length as u16).to_be_bytes());
        frame[6..12].fill(0);
        let checksum = crc32fast::hash(frame);
        frame[8..12].copy_from_slice(&checksum.to_be_bytes());
        length
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
        pub(in crate::engine) const fn renew_content(
            &mut self,
            _now: Instant,
            _slot: &mut [u8],
            length: usize,
        ) -> Option<usize> {
            Some(length)
        }

        #[allow(clippy::unused_self, reason = "has a body only with the feature")]
        pub(in crate::engine) const fn read_unopened(&self, bytes: &mut [u8]) -> usize {
            bytes.len()
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
