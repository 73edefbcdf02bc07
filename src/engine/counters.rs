//! What the engine counts. Every refusal has a name; names are those of status and metrics.

macro_rules! counters {
    ($type:ident: $($(#[doc = $text:literal])+ $name:ident,)+) => {
        /// Counts since the engine was built.
        #[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
        pub struct $type {
            $($(#[doc = $text])+ pub $name: u64,)+
        }

        impl $type {
            /// Every counter with its name.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)+].into_iter()
            }
        }
    };
}

pub(super) use counters;

counters! {
    Counters:
    /// Frames handed in, good or bad.
    frames_received,
    /// Frames that came while this node takes part in nothing.
    ignored_by_role,
    /// Frames of every kind handed out, retransmissions included.
    frames_sent,
    /// DATA frames applied.
    data_received,
    /// DATA frames sent for the first time.
    data_sent,
    /// DATA frames sent again because a peer asked.
    data_resent,
    /// Requests for a frame that had just been sent again, and was not once more.
    resends_too_soon,
    /// Times that changes began to wait because a follower that is heeded could take no more.
    credit_waits,
    /// Followers that are heeded no longer because they stood still.
    lagging_released,
    /// Those that are heeded again.
    lagging_returned,
    /// Requests of ours that waited because another follower had asked for the same.
    requests_suppressed,
    /// New incarnations of this node since its start: after a stall, and where numbers came to their end.
    incarnations_drawn,
    /// Frames that had come by another sync link before: what several links bring several times.
    duplicates,
    /// DATA frames that were held already, although they came by this link or in another order.
    data_duplicate,
    /// DATA frames beyond what the window can note; they are asked for later.
    data_beyond_window,
    /// DATA frames of a stream that is not followed.
    data_not_followed,
    /// DATA frames that count as not received because the tombstones are all in use.
    data_no_tombstone,
    /// Records applied to the table.
    records_applied,
    /// Records that were older than what is held.
    records_older,
    /// Records of keys that a later frame had deleted already: what tombstones are for.
    tombstone_hits,
    /// Records of a type that this version does not know.
    records_unknown,
    /// Parts of sections' values, which come when a value is longer than a record.
    section_parts_received,
    /// Parts of values that can never be whole, because what stands before them was missed.
    section_parts_stray,
    /// Values of sections that came only in part: something newer replaced them, or they can never be whole.
    section_partials_discarded,
    /// DATA frames that count as not received because values that have come only in part take up all their room.
    data_no_partial_room,
    /// Values that changed while they were being sent, so that the rest of them was not sent.
    section_values_restarted,
    /// Copies that the sink was given again because their clock had run out without a word of the master.
    copies_renewed,
    /// Copies that the sink was given again because its kernel had dropped them.
    copies_put_back,
    /// Entries of sections whose time was over.
    sections_expired,
    /// Changes refused because the sections are full.
    sections_full,
    /// Records sent for the first time.
    records_sent,
    /// Flows and deletes that were to be sent and that no record can say.
    records_unsayable,
    /// ADVERTs sent.
    adverts_sent,
    /// ADVERTs accepted.
    adverts_received,
    /// STATUS frames sent.
    status_sent,
    /// STATUS frames accepted.
    status_received,
    /// Control frames that are meant for somebody else.
    not_for_us,
    /// PULL frames sent.
    pulls_sent,
    /// PULL frames accepted.
    pulls_received,
    /// PULL frames of peers that ask for more than they are granted.
    pulls_refused,
    /// DIGESTS requests sent.
    digests_requests_sent,
    /// DIGESTS requests accepted.
    digests_requests_received,
    /// DIGESTS requests of peers that ask for more than they are granted.
    digests_requests_refused,
    /// DIGESTS answers sent.
    digests_answers_sent,
    /// DIGESTS answers accepted.
    digests_answers_received,
    /// PULL frames for a merge sent.
    merge_pulls_sent,
    /// PULL frames for a merge accepted.
    merge_pulls_received,
    /// PULL frames for a merge of peers that ask for more than they are granted.
    merge_pulls_refused,
    /// Pages of a merge sent.
    merge_pages_sent,
    /// Pages of a merge taken.
    merge_pages_received,
    /// Pages of a merge that answer nothing that was asked, and change nothing.
    merge_pages_unasked,
    /// Entries that a merge has brought.
    merge_adopted,
    /// Those of a merge that were here already.
    merge_same,
    /// Those of a merge of which something newer is known here.
    merge_kept,
    /// Those of a merge that found no room.
    merge_refused,
    /// Times that no master asked for what this node had as one, until the merge's deadline.
    merge_offers_expired,
    /// Buckets walked for others.
    buckets_walked,
    /// Of them, those that were asked for again during their walk.
    buckets_walked_again,
    /// Buckets repaired here.
    buckets_repaired,
    /// Ends of walks that were not believed, because the walk began before a hole.
    bucket_ends_refused,
    /// Ends of walks that removed nothing, because the master was still to ask for what only this node has.
    bucket_ends_held_back,
    /// Flows removed here because the master no longer has them.
    repair_deletes,
    /// Holes: frames that could no longer be had.
    holes,
    /// Comparisons of the totals that matched.
    digests_matched,
    /// Comparisons of the totals that differed.
    digests_differed,
    /// Buckets whose digests were compared and are equal.
    buckets_matched,
    /// Buckets whose digests were compared and differ.
    buckets_differed,
    /// Buckets that an answer could not decide: not settled there, or touched since here.
    buckets_undecided,
    /// Changes from the source.
    updates,
    /// Changes of a kind that is not replicated.
    updates_unsupported,
    /// Attributes of types that this version does not know, which were dropped because beside what the source says now they
    /// have no room in a record.
    attributes_dropped,
    /// Changes refused because the table is full.
    table_full,
    /// Changes refused because the table's annex is full.
    annex_full,
    /// Flows deleted because a complete dump did not name them.
    dump_deletes,
    /// Submissions with a ticket that were not acknowledged in time.
    tickets_failed,
    /// Submissions refused because too many are waited for.
    tickets_refused,
    /// Submissions of the source that were not acknowledged in time, as the group's `ack` asks for.
    submissions_failed,
    /// Times that the source lost changes.
    source_overruns,
    /// Times that a backup's loop did not run for longer than master-down.
    stalls,
    /// Events dropped because nobody fetched them.
    events_lost,
}
