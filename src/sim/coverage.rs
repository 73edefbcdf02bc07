//! What happened in a run, by name: every fault kind and every engine event that a batch must have seen often enough.

use crate::engine::Counters;

/// What a batch must have seen in one of a hundred seeds: without it, "no violation" would not mean much.
pub const REQUIRED: &[&str] = &[
    // What the network does.
    "black-hole",
    "burst-loss",
    "corrupt",
    "cut",
    "cut-frame",
    "duplicate",
    "flap",
    "late-duplicate",
    "link-down",
    "loss",
    "one-way",
    "partition",
    "reorder",
    "replay",
    // What happens to nodes and their kernels.
    "crash",
    "drain",
    "dump",
    "event-storm",
    "freeze",
    "leave",
    "pause",
    "preload",
    "priority-request",
    "reload",
    "return",
    "return-cut",
    "restart-cold",
    "restart-warm",
    "resync-request",
    "role-request",
    "roll-out",
    "silent-death",
    "sink-failure",
    "slow",
    "socket-full",
    "source-overrun",
    "switchover",
    "switchover-refused",
    "wrap",
    // What engines count.
    "beyond-window",
    "bucket-end-below-base",
    "bucket-matched",
    "bucket-differed",
    "bucket-undecided",
    "bucket-walked-twice",
    "credit-zero",
    "digest-round",
    "digests-differed",
    "history-exhausted",
    "incarnation-drawn",
    "lagging-release",
    "lagging-return",
    "partial-discarded",
    "partials-full",
    "reconcile",
    "repair-delete",
    "retransmission",
    "section-part",
    "sections-full",
    "stray-part",
    "suppressed-request",
    "table-full",
    "tombstone-hit",
    "tombstones-full",
    "value-restarted",
    // What tickets and proofs came to.
    "ack-failed",
    "acknowledged",
    "audit-repairs",
    "cold-takeover",
    "hole",
    "in-sync-under-load",
    "inheritance",
    "merge-adopted",
    "merge-done",
    "merge-first",
    "proof",
    "refused",
    "stall",
    "two-masters",
    "walk-removal",
    // What engines report.
    "CommitDeadlinePassed",
    "Diverged",
    "DuplicateMaster",
    "DuplicateNode",
    "Draining",
    "DurabilityFailed",
    "ElectionFailed",
    "ElectionStarted",
    "HandoverDone",
    "HandoverFailed",
    "HandoverStarted",
    "InSync",
    "Lagging",
    "LinkDown",
    "LinkUp",
    "MasterLost",
    "MergeGivenUp",
    "Merged",
    "NewMaster",
    "PeerDown",
    "PeerLeft",
    "PeerOneWay",
    "PeerUp",
    "Repaired",
    "RoleChanged",
    "SourceOverrun",
    "StallDetected",
    "SyncProgress",
    "SyncStarted",
    "TableFull",
    "AuthFailed",
    "SealChanged",
    "VersionMismatch",
];

/// What an engine's counters tell: the name here, and the counter's.
const COUNTED: &[(&str, &str)] = &[
    ("beyond-window", "data_beyond_window"),
    ("bucket-differed", "buckets_differed"),
    ("bucket-end-below-base", "bucket_ends_refused"),
    ("bucket-matched", "buckets_matched"),
    ("bucket-undecided", "buckets_undecided"),
    ("bucket-walked-twice", "buckets_walked_again"),
    ("credit-zero", "credit_waits"),
    ("digest-round", "digests_requests_sent"),
    ("digests-differed", "digests_differed"),
    ("digests-refused", "digests_requests_refused"),
    ("history-exhausted", "holes"),
    ("incarnation-drawn", "incarnations_drawn"),
    ("lagging-release", "lagging_released"),
    ("lagging-return", "lagging_returned"),
    ("partial-discarded", "section_partials_discarded"),
    ("partials-full", "data_no_partial_room"),
    ("pull-refused", "pulls_refused"),
    ("reconcile", "dump_deletes"),
    ("repair-delete", "repair_deletes"),
    ("retransmission", "data_resent"),
    ("section-part", "section_parts_received"),
    ("stray-part", "section_parts_stray"),
    ("suppressed-request", "requests_suppressed"),
    ("table-full", "table_full"),
    ("tombstone-hit", "tombstone_hits"),
    ("tombstones-full", "data_no_tombstone"),
    ("value-restarted", "section_values_restarted"),
];

/// Something that can happen in a world. Its name is that of the verdict's table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Seen(pub &'static str);

/// How often each happened.
#[derive(Clone, Default, Debug)]
pub struct Coverage(std::collections::BTreeMap<Seen, u64>);

impl Coverage {
    pub(super) fn note(&mut self, seen: Seen) {
        *self.0.entry(seen).or_default() += 1;
    }

    /// What an engine has counted since it was built; for each one, when it ends.
    pub(super) fn engine(&mut self, counters: &Counters) {
        for (counter, count) in counters.iter().filter(|(_, count)| *count > 0) {
            for (name, _) in COUNTED.iter().filter(|(_, wanted)| *wanted == counter) {
                *self.0.entry(Seen(name)).or_default() += count;
            }
        }
    }

    /// Everything that happened, with its number.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.iter().map(|(seen, count)| (seen.0, *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engines_counters_are_seen_under_their_names() {
        let mut coverage = Coverage::default();
        coverage.engine(&Counters { holes: 2, dump_deletes: 1, ..Counters::default() });
        coverage.engine(&Counters { holes: 3, ..Counters::default() });
        coverage.note(Seen("ElectionStarted"));
        let seen: Vec<_> = coverage.iter().collect();
        assert_eq!(seen, [("ElectionStarted", 1), ("history-exhausted", 5), ("reconcile", 1)]);
    }

    #[test]
    fn what_is_counted_is_a_counter_and_what_is_required_has_one_name() {
        let counters: Vec<&str> = Counters::default().iter().map(|(name, _)| name).collect();
        assert!(COUNTED.iter().all(|(_, counter)| counters.contains(counter)));
        let names: std::collections::BTreeSet<_> = REQUIRED.iter().collect();
        assert_eq!(names.len(), REQUIRED.len());
    }
}
