//! The way in: what a frame does to roles, peers and the table.
//!
//! Order of the checks: size, version and checksum ([`Frame::parse`]), group, sender, flags and payload
//! ([`Frame::verify`]), then by kind: an ADVERT is the only thing that is taken from a node which is not established.

use super::breakage::Breakage;
use super::election::Input;
use super::event::{Event, Role};
use super::inbox::{Number, Stream};
use super::peers::{Arrival, Word};
use super::repair::Proof;
use super::sections::Taken;
use super::status::VERSIONS_MAX;
use super::{Engine, Progress, STREAM_SEQ_MAX, TERM_JUMP_MAX, TERM_MAX};
use crate::flow::FlowKey;
use crate::table::{Ahead, Applied, Refused};
use crate::time::Instant;
use crate::wire::{
    Advert, AdvertFlags, Frame, FrameError, FrameMeta, Header, Kind, NodeId, Payload, Pull, RECORDS_MAX, Record,
    Records, Status, Target, WireRole,
};

/// Whether the numbers of an ADVERT can be those of a stream: its start, its oldest frame and its newest in this order.
fn is_possible(advert: &Advert<'_>) -> bool {
    let &Advert { role, term_start, stream_seq, history_start, .. } = advert;
    let history = term_start.saturating_add(1)..=stream_seq.saturating_add(1);
    term_start <= stream_seq
        && stream_seq <= STREAM_SEQ_MAX
        && (role != WireRole::MASTER || history.contains(&history_start))
}

impl Engine {
    pub(super) fn receive(&mut self, now: Instant, meta: &FrameMeta, bytes: &mut [u8]) -> Result<(), FrameError> {
        if matches!(self.role(), Role::Init | Role::Fault | Role::None) {
            self.counters.ignored_by_role += 1;
            return Ok(());
        }
        let length = self.read_unopened(bytes);
        let bytes = &mut bytes[..length];
        let frame = Frame::parse(bytes).inspect_err(|error| self.report_version(*error, bytes))?;
        let header = frame.header();
        if header.sync_id != self.config.sync_id {
            return Err(FrameError::WrongGroup);
        }
        if self.breaks(Breakage::OwnNumberBeforeCipher) && header.node == self.config.node {
            self.report_duplicate(now, &header);
        }
        if self.is_copy(meta.link, &header) {
            self.counters.duplicates += 1;
            return Ok(());
        }
        let (frame, key) = if header.flags.is_sealed() {
            let Some(opened) = self.open(now, meta.source, &header, bytes)? else { return Ok(()) };
            opened
        } else {
            self.take_in_the_clear()?;
            (frame, None)
        };
        if header.node == self.config.node && !self.breaks(Breakage::OwnEchoAccepted) {
            match key {
                Some(_) => {
                    if let Payload::Advert(advert) = frame.verify()?.payload() {
                        self.meet_twin(now, &header, &advert);
                    }
                }
                None => self.report_duplicate(now, &header),
            }
            return Err(FrameError::OwnNode);
        }
        let taken = self.take(now, &header, frame.verify()?.payload());
        if let Some(peer) = self.peers.get_mut(header.node, header.incarnation) {
            let carried = if header.kind == Kind::DATA { &mut peer.carried_data } else { &mut peer.carried };
            carried.is_first(meta.link, header.seq);
            key.into_iter().for_each(|key| peer.keys.put(key));
            peer.sealed_with = header.flags.is_sealed().then(|| header.flags.key_id());
            peer.sealed_with.into_iter().for_each(|id| peer.keys.prove(id));
        }
        if header.kind == Kind::ADVERT {
            self.choose_seals(now);
        }
        taken
    }

    fn take(&mut self, now: Instant, header: &Header, payload: Payload<'_>) -> Result<(), FrameError> {
        match payload {
            Payload::Advert(advert) => self.receive_advert(now, header, &advert),
            Payload::Data(records) => self.receive_data(now, header, records),
            Payload::Status(status) => self.receive_status(now, header, &status),
            Payload::Pull(pull) => self.receive_pull(now, header, &pull),
            Payload::MergePull(it) => self.receive_merge_pull(now, header, &it),
            Payload::MergeRecords(it) => self.receive_merge_records(now, header, &it),
            Payload::DigestsRequest(it) => self.receive_digests_request(now, header, &it),
            Payload::DigestsAnswer(it) => self.receive_digests_answer(now, header, &it),
        }
    }

    // ------------------------------------------------------------------ ADVERT

    fn receive_advert(&mut self, now: Instant, header: &Header, advert: &Advert<'_>) -> Result<(), FrameError> {
        // A node that knows no term yet cannot know how far the others are.
        let jump = if self.term == 0 { TERM_MAX } else { TERM_JUMP_MAX };
        if header.term > self.term.saturating_add(jump).min(TERM_MAX) {
            return Err(FrameError::TermJump);
        }
        if !is_possible(advert) {
            return Err(FrameError::AdvertField);
        }
        let own = (self.config.node, self.incarnation);
        let arrival = self.peers.advert(now, header, advert, own, self.control_seq + 1)?;
        self.counters.adverts_received += 1;
        match arrival {
            Arrival::Candidate | Arrival::Waiting => {
                self.advert_soon(now);
                return Ok(());
            }
            Arrival::Established { replaced } => self.established(now, header, replaced),
            Arrival::Known => {}
        }
        self.hear_proof(header, advert);
        if self.role() == Role::Master {
            self.told_by_advert(now, header, advert);
        } else {
            self.term = self.term.max(header.term);
        }
        let word = Word::new(header, advert);
        if word.priority == 0 {
            self.peer_left(now, header, &word);
        } else if word.is_master() {
            self.hear_master(now, header, &word);
        } else {
            self.hear_backup(now, header, &word);
            self.hear_offer(now, header);
        }
        self.note_company();
        self.hand_over_if_draining(now);
        self.settle(now);
        Ok(())
    }

    fn established(&mut self, now: Instant, header: &Header, replaced: bool) {
        let name =
            self.peers.get(header.node, header.incarnation).map(|peer| peer.name.to_string()).unwrap_or_default();
        self.event(Event::PeerUp { node: header.node, incarnation: header.incarnation, name });
        self.advert_soon(now);
        // The node of our master has started anew: whatever it mastered is over, and nobody needs to wait for it.
        if let Some(stream) = self.inbox.stream().filter(|stream| replaced && stream.node == header.node) {
            self.master_lost(stream.node);
            let interval = self.config.advert_interval;
            self.input(now, Input::MasterLeft { interval });
        }
    }

    fn peer_left(&mut self, now: Instant, header: &Header, word: &Word) {
        self.peers.remove(now, header.node, header.incarnation);
        self.event(Event::PeerLeft { node: header.node });
        let was_master = self.inbox.stream().is_some_and(|stream| stream.node == header.node);
        self.peer_is_gone(now, header.node, header.incarnation);
        if was_master {
            self.input(now, Input::MasterLeft { interval: word.interval });
        }
        self.advert_soon(now);
    }

    /// A node that is no master speaks. If it was the one we follow, its mastership is over.
    fn hear_backup(&mut self, now: Instant, header: &Header, word: &Word) {
        let followed = self.inbox.stream();
        let same = |stream: &Stream| stream.node == header.node && stream.incarnation == header.incarnation;
        if let Some(stream) = followed.filter(same) {
            self.peer_is_gone(now, header.node, header.incarnation);
            if !self.has_named_another(stream) {
                self.input(now, Input::MasterLeft { interval: word.interval });
            }
        }
        let elsewhere = word.follows.node != NodeId(0) && word.follows.node != self.config.node;
        // A master lives: when it does no more, a cold node gives way anew [5.1.1].
        self.deferred &= !elsewhere;
        if self.role() == Role::Master {
            if elsewhere && word.follows.term > self.term {
                // It hears a living master of a higher term, which we do not hear.
                self.given_to(word.follows.node);
                self.step_down(now, word);
            } else if header.term > self.term || (elsewhere && word.follows.term == self.term) {
                self.renew_term(now, header.term);
            }
            self.asked_for_role(now, header, word);
        }
    }

    fn hear_master(&mut self, now: Instant, header: &Header, word: &Word) {
        if self.role() == Role::Master {
            if !self.gives_to(header.node) && !self.was_given_by(word) {
                self.event(Event::DuplicateMaster { node: header.node, term: word.term, own_term: self.term });
            }
            let rank = |term| if self.breaks(Breakage::PriorityBeforeTerm) { 0 } else { term };
            let theirs = (!word.is_cold(), rank(word.term), word.priority, header.node);
            let ours = (!self.cold, rank(self.term), self.election.priority(), self.config.node);
            if theirs < ours {
                // No two masterships share a term; and the loser is answered at once, so that it learns that it has lost.
                if word.term >= self.term {
                    self.renew_term(now, word.term);
                }
                return self.advert_soon(now);
            }
            self.given_to(header.node);
            self.step_down(now, word);
            self.term = self.term.max(word.term);
        } else if word.is_cold() && !self.cold {
            // It has nothing, and we have: to us it is no master, and no sign of life. It will step down for us.
            return;
        }
        let stream = Stream { node: header.node, incarnation: header.incarnation, term: word.term };
        match self.inbox.stream() {
            Some(followed) if followed == stream => {}
            None if self.copies.filling && self.role() == Role::Backup => {
                return self.input(now, Input::MasterHeard { term: word.term, interval: word.interval });
            }
            // A mastership that lost against the followed one; it will learn that by itself.
            Some(followed) if followed.term > stream.term => return,
            Some(followed) if followed.term == stream.term && !self.outranks_followed(&stream, word) => return,
            _ => self.follow(now, stream, word),
        }
        self.input(now, Input::MasterHeard { term: word.term, interval: word.interval });
        self.hear_handover(now, stream, word);
        if self.role() == Role::Backup {
            self.compare(now, word);
            self.consider_preempting(now, word);
        }
    }

    fn step_down(&mut self, now: Instant, word: &Word) {
        self.input(now, Input::Outranked { interval: word.interval });
    }

    /// Two living masters of one term: the higher priority, then the higher node id, is the one to follow.
    fn outranks_followed(&self, stream: &Stream, word: &Word) -> bool {
        let Some(followed) = self.inbox.stream() else { return true };
        let Some(peer) = self.peers.get(followed.node, followed.incarnation) else { return true };
        (word.priority, stream.node) > (peer.word.priority, followed.node)
    }

    /// Begins to follow a mastership (docs/protocol.md 4.1).
    fn follow(&mut self, now: Instant, stream: Stream, word: &Word) {
        self.event(Event::NewMaster { node: stream.node, term: stream.term });
        self.follows_anew(stream);
        self.table.begin_stream();
        if self.table.seed() != word.hash_seed {
            self.table.reseed(word.hash_seed);
        }
        let from = if self.cold { word.stream_seq.max(word.term_start) } else { word.term_start };
        self.inbox.follow(stream, word.term_start, from);
        self.know_followed(now, (stream.node, stream.incarnation), word.term_start);
        self.table.passed(self.inbox.local(from));
        self.repair.follow(now, word.interval, self.table.is_empty());
        if self.breaks(Breakage::WarmRestartKeepsFrontier) {
            self.take_up(now, stream, word.term_start);
        }
        (self.full_reported, self.annex_full_reported, self.annex_short) = (false, false, None);
        (self.sections_full_reported, self.sections_short, self.flows_short) = (false, None, false);
        (self.deferred, self.chances) = (false, 0);
        self.event(Event::SyncStarted { from: stream.node, buckets: self.repair.dirty() });
        self.advert_soon(now);
    }

    /// What a master's ADVERT says about its stream and its table, against what we hold.
    fn compare(&mut self, now: Instant, word: &Word) {
        if self.inbox.history_starts_at(now, word.history_start, &self.config) {
            self.counters.holes += 1;
            self.table.passed(self.inbox.local(self.inbox.frontier()));
            self.doubt(now);
        }
        self.inbox.sent_up_to(now, word.stream_seq, &self.config);
        let comparable = word.flags.contains(AdvertFlags::DIGEST_VALID) && self.inbox.is_complete_at(word.stream_seq);
        if !comparable {
            return;
        }
        if word.digest == self.table.digest() && word.entries == u64::from(self.table.len()) {
            self.counters.digests_matched += 1;
            if let Some(proof) = self.repair.matched(now) {
                self.proven(now, proof);
            }
        } else {
            self.counters.digests_differed += 1;
            if self.annex_short.is_some_and(|used| self.table.annex_used() < used) {
                self.annex_short = None;
                self.repair.hurry(now);
            }
            if self.sections_short.is_some_and(|used| self.table.section_bytes() < used) {
                self.sections_short = None;
                self.repair.hurry(now);
            }
            let fits = self.fits(word.entries);
            if self.repair.differed(now, fits) {
                self.proof_is_lost(now);
            }
        }
    }

    /// Whether so many entries of the master would fit into our table. How many of them are flows it does not say: when flows
    /// were refused, and sections were not, those that are too many are flows.
    fn fits(&mut self, entries: u64) -> bool {
        let room_for_flows = u64::from(self.table.len()) + u64::from(self.table.room());
        if entries <= room_for_flows {
            self.flows_short = false;
            return true;
        }
        let only_flows = self.flows_short && self.sections_short.is_none();
        !only_flows && entries <= room_for_flows + u64::from(self.table.section_room())
    }

    /// The table is proven equal to its master's, by the total or by the last bucket.
    pub(super) fn proven(&mut self, now: Instant, proof: Proof) {
        self.cold = false;
        self.nothing_to_offer();
        let Proof { took, repaired } = proof;
        if let Some((buckets, removed)) = repaired {
            self.event(Event::Repaired { buckets, removed, took });
        }
        let (digest, entries) = (self.table.digest(), u64::from(self.table.len()));
        self.event(Event::InSync { digest, entries, took });
        self.proof_changed(now);
        self.consider_inheriting(now);
    }

    /// What stood proven does no longer; how many buckets differ is told when it is known.
    fn proof_is_lost(&mut self, now: Instant) {
        let Some(stream) = self.inbox.stream() else { return };
        self.event(Event::SyncStarted { from: stream.node, buckets: self.repair.dirty() });
        self.proof_changed(now);
    }

    fn doubt(&mut self, now: Instant) {
        if self.repair.doubt(now) {
            self.proof_is_lost(now);
        }
    }

    /// The record of frame `number` found no room: its bucket, and with it the table, is proven no longer, and no digest
    /// from before that frame proves it.
    fn refused(&mut self, now: Instant, key: &FlowKey, number: u64) {
        self.table.touch(key, number);
        self.bucket_refused(now, self.table.bucket_of(key));
    }

    pub(super) fn bucket_refused(&mut self, now: Instant, bucket: u16) {
        if self.repair.refused(now, bucket) {
            self.proof_is_lost(now);
        }
    }

    // ------------------------------------------------------------------ DATA

    fn receive_data(&mut self, now: Instant, header: &Header, records: Records<'_>) -> Result<(), FrameError> {
        if !self.peers.get(header.node, header.incarnation).is_some_and(|peer| peer.established) {
            return Err(FrameError::Unestablished);
        }
        let stream = Stream { node: header.node, incarnation: header.incarnation, term: header.term };
        if self.inbox.stream() != Some(stream) && !self.is_taken_for_followed(stream) {
            self.counters.data_not_followed += 1;
            return Ok(());
        }
        match self.inbox.number(header.seq) {
            // What is held already says nothing of now: anybody may have recorded it, and send it again for a dead master.
            Number::New => {
                self.sign_of_life(now, header);
                self.apply_frame(now, header.seq, records);
                self.consider_inheriting(now);
            }
            Number::Duplicate => {
                self.counters.data_duplicate += 1;
                self.inbox.duplicate(now, &self.config);
            }
            Number::Beyond => self.counters.data_beyond_window += 1,
        }
        Ok(())
    }

    /// Never, unless it is broken on purpose that one stream is followed and no other.
    fn is_taken_for_followed(&self, stream: Stream) -> bool {
        let Some(followed) = self.inbox.stream() else { return false };
        let same_node = (stream.node, stream.incarnation) == (followed.node, followed.incarnation);
        self.breaks(Breakage::DataOfAnyStream) || (self.breaks(Breakage::DataOfAnyTerm) && same_node)
    }

    /// A control frame such as only a master sends: if it is of the followed one, that lives [5.0.1]. Whether it is.
    pub(super) fn master_lives(&mut self, now: Instant, header: &Header) -> bool {
        let stream = Stream { node: header.node, incarnation: header.incarnation, term: header.term };
        let followed = self.inbox.stream() == Some(stream);
        if followed {
            self.sign_of_life(now, header);
        }
        followed
    }

    fn sign_of_life(&mut self, now: Instant, header: &Header) {
        let Some(peer) = self.peers.get_mut(header.node, header.incarnation) else { return };
        peer.heard_at = now;
        let (term, interval) = (peer.word.term, peer.word.interval);
        self.input(now, Input::MasterHeard { term, interval });
    }

    fn apply_frame(&mut self, now: Instant, seq: u64, records: Records<'_>) {
        let number = self.inbox.local(seq);
        let mut frontier = self.inbox.local(self.inbox.frontier());
        if self.breaks(Breakage::NoTombstones) {
            frontier = frontier.max(number.saturating_sub(1));
        }
        let mut ahead = [Ahead::default(); RECORDS_MAX];
        self.table.look_ahead(records.clone().map(Record::key_bytes), &mut ahead);
        for (record, ahead) in records.zip(ahead) {
            let applied = match record {
                Record::Upsert(conn) => match conn.plain() {
                    Some(plain) => self.table.apply_plain(&plain, ahead, number, now),
                    None => self.table.apply_upsert(&conn.flow(), number, now),
                },
                Record::Delete(conn)
                    if self.breaks(Breakage::TombstoneOnlyForKnownKeys)
                        && self.table.get(&conn.key(), now).is_none() =>
                {
                    Ok(Applied::Unchanged)
                }
                Record::Delete(conn) => self.table.apply_delete_ahead(conn.key_bytes(), ahead, number, frontier),
                Record::BucketEnd { bucket, since } => {
                    self.inbox.bucket_end(seq, bucket, since);
                    continue;
                }
                Record::Section(section) => match self.apply_section(now, &section, number, frontier) {
                    Taken::Yes => continue,
                    Taken::NotReceived => return,
                },
                Record::Unknown { .. } => {
                    self.counters.records_unknown += 1;
                    continue;
                }
            };
            match (applied, record) {
                (Ok(Applied::Changed | Applied::Unchanged), _) => self.counters.records_applied += 1,
                (Ok(Applied::Older), _) => self.counters.records_older += 1,
                (Err(refused), Record::Upsert(conn)) => self.upsert_refused(now, &conn.key(), number, refused),
                (Err(_), _) => {
                    // The frame counts as not received: it is asked for again when there is room.
                    self.counters.data_no_tombstone += 1;
                    return;
                }
            }
        }
        self.counters.tombstone_hits = self.table.tombstone_hits();
        self.counters.data_received += 1;
        self.inbox.hold(now, seq, &self.config);
        self.table.passed(self.inbox.local(self.inbox.frontier()));
        self.end_buckets(now);
        self.count_sections();
        self.judge_buckets(now);
    }

    fn upsert_refused(&mut self, now: Instant, key: &FlowKey, number: u64, refused: Refused) {
        self.refused(now, key, number);
        match refused {
            Refused::TableFull | Refused::TombstonesFull => {
                self.flows_short = true;
                self.table_is_full();
            }
            Refused::AnnexFull => {
                self.annex_short = Some(self.table.annex_used());
                self.annex_is_full();
            }
            Refused::Unsupported => self.counters.updates_unsupported += 1,
        }
    }

    fn end_buckets(&mut self, now: Instant) {
        let waits = self.repair_waits();
        let (table, repair, counters) = (&mut self.table, &mut self.repair, &mut self.counters);
        let refused = self.inbox.take_bucket_ends(|bucket, since| {
            if waits {
                // What it would remove the master is still to ask for; the bucket is asked for again afterwards.
                counters.bucket_ends_held_back += 1;
                return;
            }
            let removed = table.remove_older(bucket, since);
            counters.repair_deletes += u64::from(removed);
            counters.buckets_repaired += 1;
            repair.bucket_walked(now, bucket, removed);
        });
        counters.bucket_ends_refused += refused;
        if let Some(progress) = self.repair.report(now, self.counters.records_applied) {
            let Progress { percent, buckets_left, eta, .. } = progress;
            self.event(Event::SyncProgress { percent, buckets_left, eta });
        }
    }

    // ------------------------------------------------------------------ STATUS and PULL

    fn receive_status(&mut self, now: Instant, header: &Header, status: &Status<'_>) -> Result<(), FrameError> {
        let ours = self.is_own(&status.target);
        let is_master = self.role() == Role::Master;
        self.peers.control(now, header, true)?;
        if !ours || !is_master {
            self.counters.not_for_us += 1;
            self.overhear(now, status);
            return Ok(());
        }
        self.counters.status_received += 1;
        self.told_by_status(now, header, status);
        // Nobody misses more than was kept: ranges that overlap cost no more than that.
        let mut left = self.config.history;
        for range in status.missing {
            let length = range.length().min(left);
            if length == 0 {
                break;
            }
            left -= length;
            self.outbox.ask_again(range.first(), length);
        }
        self.hear_proof_of_status(header, status);
        self.hand_over_if_draining(now);
        self.settle(now);
        Ok(())
    }

    /// Another node asks the master that we follow to send again: what it gets comes to us as well.
    fn overhear(&mut self, now: Instant, status: &Status<'_>) {
        let follows =
            |stream: Stream| (stream.node, stream.incarnation) == (status.target.node, status.target.incarnation);
        if self.inbox.stream().is_some_and(follows)
            && self.inbox.asked_by_another(now, status.missing, self.longest_ask_delay())
        {
            self.counters.requests_suppressed += 1;
        }
    }

    /// Whether others follow the same stream, and may miss the same frames.
    fn note_company(&mut self) {
        let Some(stream) = self.inbox.stream() else { return };
        let followed = (stream.node, stream.incarnation);
        let mut followers =
            self.peers.established().map(|peer| (peer.word.follows.node, peer.word.follows.incarnation));
        self.inbox.set_company(followers.any(|follows| follows == followed));
    }

    fn receive_pull(&mut self, now: Instant, header: &Header, pull: &Pull<'_>) -> Result<(), FrameError> {
        let ours = self.is_own(&pull.target);
        let is_master = self.role() == Role::Master;
        self.peers.control(now, header, false)?;
        if !ours || !is_master {
            self.counters.not_for_us += 1;
            return Ok(());
        }
        let count = pull.ranges.iter().map(|range| u32::from(range.count())).sum();
        if !self.answers.grant_pull(now, (header.node, header.incarnation), count) {
            self.counters.pulls_refused += 1;
            return Ok(());
        }
        self.counters.pulls_received += 1;
        self.pulled_by(header.node, header.incarnation);
        for range in pull.ranges {
            self.counters.buckets_walked_again += self.outbox.want(range.first(), range.count());
        }
        Ok(())
    }

    // ------------------------------------------------------------------ small helpers

    /// Whether another link has brought this very frame, and this one brings it for the first time: the price of several
    /// links, and nobody's fault. What the same link brings twice is judged further on. It is asked before the seal is opened,
    /// so where frames have to be sealed it notes nothing: whoever forges a header would have a say in what counts as a copy.
    fn is_copy(&mut self, link: u8, header: &Header) -> bool {
        let stream = Stream { node: header.node, incarnation: header.incarnation, term: header.term };
        let (followed, notes) = (self.inbox.stream() == Some(stream), self.take_in_the_clear().is_ok());
        let Some(peer) = self.peers.get_mut(header.node, header.incarnation) else { return false };
        let (taken, carried) = if header.kind == Kind::DATA {
            (followed && self.inbox.number(header.seq) == Number::Duplicate, &mut peer.carried_data)
        } else {
            (peer.was_taken(header.seq), &mut peer.carried)
        };
        taken && if notes { carried.is_first(link, header.seq) } else { carried.would_be_first(link, header.seq) }
    }

    pub(super) fn is_own(&self, target: &Target) -> bool {
        target.node == self.config.node && target.incarnation == self.incarnation
    }

    pub(super) fn report_duplicate(&mut self, now: Instant, header: &Header) {
        let incarnation = header.incarnation;
        let is_known =
            |(known, at): (u64, Instant)| known == incarnation || now.since(at) < super::DUPLICATE_REPORT_SPACING;
        if incarnation != self.incarnation && !self.duplicate_reported.is_some_and(is_known) {
            self.duplicate_reported = Some((incarnation, now));
            self.event(Event::DuplicateNode { incarnation });
        }
    }

    /// Where every frame has to be sealed this cannot be told from a forgery, and is only counted.
    fn report_version(&mut self, error: FrameError, bytes: &[u8]) {
        if !self.keyring.takes_unsealed() {
            return;
        }
        // Where frames have to be sealed nobody can be believed who speaks another version: it is counted, and that is all.
        let believed = error == FrameError::UnknownVersion && self.take_in_the_clear().is_ok();
        let Some(claim) = Frame::claim(bytes).filter(|_| believed) else { return };
        let seen = (claim.node, claim.version);
        if self.versions_reported.len() < VERSIONS_MAX && !self.versions_reported.contains(&seen) {
            self.versions_reported.push(seen);
            self.event(Event::VersionMismatch { node: seen.0, version: seen.1 });
        }
    }
}
