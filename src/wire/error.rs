//! Why a frame was refused, and how often.
//!
//! Every reason has one variant, one word and one counter, in one list, so that a drop cannot be without a name. The
//! first part of the list is raised by this room, in the order in which a frame meets the checks; the rest by the
//! engine, which knows what a frame by itself cannot: who we are, whom we believe, and what we have already seen.

/// Declares the reasons once: the enum, its messages, its words and the list of all.
macro_rules! frame_errors {
    ($($(#[$doc:meta])* $variant:ident $name:literal $message:literal)*) => {
        /// Why a frame was refused. It has then changed nothing but a counter [1.2].
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, thiserror::Error)]
        pub enum FrameError {
            $($(#[$doc])* #[error($message)] $variant,)*
        }

        impl FrameError {
            /// Every reason there is, in the order of the checks.
            pub const ALL: &'static [FrameError] = &[$(FrameError::$variant,)*];

            /// The reason's word in counters, metrics and logs.
            pub const fn name(self) -> &'static str {
                match self { $(FrameError::$variant => $name,)* }
            }
        }
    };
}

frame_errors! {
    /// Fewer bytes than the header has.
    Truncated "truncated" "the frame is shorter than its header"
    /// More bytes than [`FRAME_LEN_MAX`](super::FRAME_LEN_MAX).
    Oversized "oversized" "the frame is longer than the largest frame"
    /// The size field is not the number of bytes that arrived.
    SizeMismatch "size_mismatch" "the size field differs from the number of bytes that arrived"
    /// A version of the protocol that this node does not speak.
    UnknownVersion "unknown_version" "the frame is of another version of the protocol"
    /// The CRC-32 does not fit the bytes.
    Checksum "checksum" "the checksum does not fit the bytes"
    /// The sender's number is zero.
    ZeroNode "zero_node" "the sender's node number is zero"
    /// The sender's incarnation is zero.
    ZeroIncarnation "zero_incarnation" "the sender's incarnation is zero"
    /// The frame's number is zero; they count from 1.
    ZeroSequence "zero_sequence" "the frame's sequence number is zero"
    /// It is not sealed, and here only sealed frames are taken.
    Unsealed "unsealed" "the frame is not sealed, and a secret is configured"
    /// It is sealed, and there is no key here.
    Sealed "sealed" "the frame is sealed and there is no key for it"
    /// It is sealed by somebody who does not have the secret of that number, or was changed on its way.
    Forged "forged" "the seal does not fit: another secret, or a forgery"
    /// Too many senders that are not known ask to be heard at once.
    Crowded "crowded" "too many unknown senders at once"
    /// Whether its sender, who is not known, has the secret was not looked at: more were asked of that than may be.
    Untried "untried" "more of unknown senders than is looked at"
    /// Flag bits that mean nothing to this version.
    UnknownFlags "unknown_flags" "the frame has flags of unknown meaning"
    /// A kind that this version does not know.
    UnknownKind "unknown_kind" "the frame is of an unknown kind"
    /// `count` is not the number of records (DATA), or not zero (all other kinds).
    CountMismatch "count_mismatch" "the count field differs from the number of records"
    /// A record goes on past the end of the frame.
    RecordTruncated "record_truncated" "a record ends beyond the frame"
    /// A record's length is not what its type, operation and present bits imply.
    RecordLength "record_length" "a record's length does not fit its fields"
    /// An operation that the record's type does not have.
    RecordOperation "record_operation" "a record's operation is not one of its type"
    /// A present bit that the record's type and operation do not have.
    RecordPresent "record_present" "a record has optional fields of unknown meaning"
    /// A field of a record has a value that it cannot have.
    RecordField "record_field" "a record's field has an impossible value"
    /// Attributes that do not end where their record ends, do not ascend, or are padded with anything but zero.
    RecordAttribute "record_attribute" "a record's attributes are malformed"
    /// An ADVERT whose length is not what its counts imply.
    AdvertLength "advert_length" "the ADVERT's length does not fit its counts"
    /// A field of an ADVERT has a value that it cannot have.
    AdvertField "advert_field" "a field of the ADVERT has an impossible value"
    /// A STATUS whose length is not what its counts imply.
    StatusLength "status_length" "the STATUS's length does not fit its counts"
    /// A field of a STATUS has a value that it cannot have.
    StatusField "status_field" "a field of the STATUS has an impossible value"
    /// A PULL whose length is not what its counts imply.
    PullLength "pull_length" "the PULL's length does not fit its counts"
    /// A field of a PULL has a value that it cannot have.
    PullField "pull_field" "a field of the PULL has an impossible value"
    /// A PULL that asks for something else than buckets or a merge.
    UnknownPull "unknown_pull" "the PULL asks for something unknown"
    /// A DIGESTS request or answer whose length is not what its counts imply.
    DigestsLength "digests_length" "the DIGESTS's length does not fit its counts"
    /// A field of a DIGESTS request or answer has a value that it cannot have.
    DigestsField "digests_field" "a field of the DIGESTS has an impossible value"
    /// RECORDS too short for what they begin with.
    RecordsLength "records_length" "the RECORDS are shorter than what they begin with"
    /// A field of RECORDS has a value that it cannot have, or a record says anything but what there is.
    RecordsField "records_field" "a field of the RECORDS has an impossible value"
    /// Of another group (another sync id).
    WrongGroup "wrong_group" "the frame is of another group"
    /// It carries our own node number.
    OwnNode "own_node" "the frame carries our own node number"
    /// Its number was seen before, or is too old to tell.
    Replayed "replayed" "the frame's number was seen before or is too old to tell"
    /// Older than the newest frame of its kind and sender, and of a kind of which only the newest counts.
    Stale "stale" "the frame is older than the newest of its kind"
    /// The sender's incarnation is not proven in both directions.
    Unestablished "unestablished" "the sender is not proven in both directions"
    /// Its term is further ahead than elections can have taken it.
    TermJump "term_jump" "the frame's term is impossibly far ahead"
}

/// How many frames were refused, by reason, since the start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DropCounters {
    counts: [u64; FrameError::ALL.len()],
}

impl Default for DropCounters {
    fn default() -> Self {
        DropCounters { counts: [0; FrameError::ALL.len()] }
    }
}

impl DropCounters {
    /// Counts one refused frame.
    pub fn count(&mut self, reason: FrameError) {
        let count = &mut self.counts[reason as usize];
        *count = count.wrapping_add(1);
    }

    /// Frames refused for `reason`.
    pub fn get(&self, reason: FrameError) -> u64 {
        self.counts[reason as usize]
    }

    /// Every reason's word with its count, those that are zero included: a metric that appears only after the first
    /// drop cannot be watched.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        FrameError::ALL.iter().map(|reason| (reason.name(), self.get(*reason)))
    }

    /// Frames refused, whatever for.
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.wrapping_add(*count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_reason_has_a_counter_of_its_own() {
        let mut counters = DropCounters::default();
        for (index, reason) in FrameError::ALL.iter().enumerate() {
            for _ in 0..=index {
                counters.count(*reason);
            }
        }
        assert_eq!(counters.get(FrameError::Truncated), 1);
        assert_eq!(counters.get(FrameError::SizeMismatch), 3);
        assert_eq!(counters.get(FrameError::TermJump), 39);
        assert_eq!(counters.iter().last(), Some(("term_jump", 39)));
        assert_eq!(counters.total(), 39 * 40 / 2);
    }

    #[test]
    fn names_are_distinct_snake_case_words() {
        let names: HashSet<&str> = FrameError::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), 39);
        assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')));
        assert_eq!(FrameError::OwnNode.name(), "own_node");
        // A name is its variant's name and nothing else.
        for reason in FrameError::ALL {
            assert_eq!(format!("{reason:?}").to_lowercase(), reason.name().replace('_', ""));
        }
    }

    #[test]
    fn a_reason_can_be_said_to_people() {
        assert_eq!(FrameError::Checksum.to_string(), "the checksum does not fit the bytes");
    }
}
