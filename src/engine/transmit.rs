//! The way out: which frame leaves next, and what is in it.
//!
//! Order: frames asked for again (others wait for them), STATUS, DIGESTS requests, PULL, RECORDS, DATA with DIGESTS answers
//! between, and last an ADVERT that is due. Whatever waits
//! is sent before an ADVERT, so that under any load its digest is that of a point in the stream and can be compared as soon
//! as it arrives; but only [`FRAMES_BEFORE_ADVERT_MAX`] frames go before it, because silence looks like death.

use super::Engine;
use super::breakage::Breakage;
use super::event::{Event, Role, SyncState};
use crate::table::Pending;
use crate::time::{Duration, Instant};
use crate::wire::{
    Advert, AdvertFlags, BucketRange, Capabilities, DataWriter, Follows, FrameFlags, HEADER_LEN, Header, Kind,
    MissingRange, NodeId, PEERS_MAX, PeerReport, Pull, PushError, RANGES_MAX, RECORDS_MAX, Status, SyncCode, Target,
    WireRole, encode_advert, encode_pull, encode_status,
};

/// Bytes of a plain CONN4 record, the shortest that a flow has: how long those will be that wait is not known before the
/// first frame.
pub(super) const PLAIN_RECORD_LEN: usize = 24;

/// What this version can take.
const CAPABILITIES: Capabilities = Capabilities::CONN6
    .with(Capabilities::ATTRIBUTES)
    .with(Capabilities::SECTION)
    .with(Capabilities::DIGESTS)
    .with(Capabilities::MERGE);

/// The delay between two requests grows up to so many times `reorder_delay`.
const ASK_DELAYS_MAX: u32 = 10;

/// Frames that are sent again one after the other, while anything else is due.
const RESENDS_IN_A_ROW: u32 = 8;

/// Frames that leave before an ADVERT that is due.
const FRAMES_BEFORE_ADVERT_MAX: u32 = 64;

impl Engine {
    /// The next frame to send, written into `slot`: its length, or `None` if nothing is to be sent now.
    pub fn poll_transmit(&mut self, now: Instant, slot: &mut [u8]) -> Option<usize> {
        if !self.link_up || self.role() == Role::None {
            return None;
        }
        self.renew_before_numbers_end(now);
        self.advance_handover(now);
        let limit = slot.len().min(self.config.frame_len);
        let length = self.next_frame(now, &mut slot[..limit])?;
        self.counters.frames_sent += 1;
        Some(length)
    }

    /// A frame that was asked for again leaves as it is stored, sealed or not; every other is sealed here, DATA before it
    /// is stored.
    fn next_frame(&mut self, now: Instant, slot: &mut [u8]) -> Option<usize> {
        let advert_due = self.advert_at <= now;
        let body = slot.len().checked_sub(self.keyring.overhead())?;
        if advert_due && self.sent_before_advert >= FRAMES_BEFORE_ADVERT_MAX && !self.leaving {
            let length = self.send_advert(now, &mut slot[..body])?;
            return self.keyring.seal_advert(slot, length);
        }
        // Who asks for all that was kept, again and again, must not hold up what is new.
        let others_first = self.resent_in_a_row >= RESENDS_IN_A_ROW;
        let mut length = if others_first { None } else { self.send_again(now, slot) };
        self.resent_in_a_row = if length.is_some() { self.resent_in_a_row + 1 } else { 0 };
        if length.is_none() {
            length = self.send_control(now, &mut slot[..body]);
            length = match length {
                Some(length) => Some(self.keyring.seal(slot, length)?),
                None => self.send_data_or_answer(now, slot),
            };
        }
        if length.is_none() && others_first {
            length = self.send_again(now, slot);
        }
        if length.is_none() && advert_due {
            let length = self.send_advert(now, &mut slot[..body])?;
            return self.keyring.seal_advert(slot, length);
        }
        self.sent_before_advert += u32::from(advert_due);
        length
    }

    fn send_control(&mut self, now: Instant, slot: &mut [u8]) -> Option<usize> {
        match self.send_status(now, slot) {
            None => match self.send_digests_request(now, slot) {
                None => match self.send_pull(now, slot) {
                    None => self.send_merge(now, slot),
                    sent => sent,
                },
                sent => sent,
            },
            sent => sent,
        }
    }

    /// When DATA is due; never while a follower that is heeded can take no more. At once when the line is idle or a frame is full, else `batch_delay` after the last frame, or with
    /// the next ADVERT. A frame counts as full when the records that wait would fill it, were they as long as those of the
    /// last frame: IPv6 and attributes come in crowds as all traffic does.
    pub(super) fn data_at(&self) -> Option<Instant> {
        if self.role() != Role::Master || !self.link_up {
            return None;
        }
        if !self.may_send() {
            return None;
        }
        let pending = self.table.pending() as usize;
        let room = self.config.frame_len - HEADER_LEN - self.keyring.overhead();
        let full = (room / self.record_len).min(RECORDS_MAX);
        if pending >= full || self.sections_fill_a_frame() || (self.outbox.is_walking() && self.may_walk()) {
            return Some(Instant::ZERO);
        }
        if pending == 0 && !self.sections_wait() {
            return None;
        }
        let gathered = self.outbox.last_sent_at + self.config.batch_delay;
        Some(if self.leaving { Instant::ZERO } else { gathered.min(self.advert_at) })
    }

    /// Until when a change that came now would wait for others, on the master: who looks for changes before that wakes for
    /// nothing. `None` where one would leave at once.
    pub fn gathers_until(&self) -> Option<Instant> {
        let at_once = self.data_at() == Some(Instant::ZERO);
        if self.role() != Role::Master || !self.link_up || !self.may_send() || self.leaving || at_once {
            return None;
        }
        Some((self.outbox.last_sent_at + self.config.batch_delay).min(self.advert_at))
    }

    pub(super) fn send_data(&mut self, now: Instant, slot: &mut [u8]) -> Option<usize> {
        let waits = self.table.pending() > 0 || self.sections_wait();
        if self.role() == Role::Master && waits && !self.may_send() {
            self.wait_for_credit();
        }
        if self.data_at()? > now {
            return None;
        }
        if self.outbox.is_walking() && self.may_walk() {
            self.outbox.walk_on(&mut self.table);
        }
        let seq = self.outbox.next_seq();
        let sent_before = self.counters.records_sent;
        let body = slot.len().checked_sub(self.keyring.overhead())?;
        let mut writer = DataWriter::new(&mut slot[..body], self.header(Kind::DATA, seq))?;
        // Either kind goes first in every other frame: none waits behind more than a frame of the other.
        self.sections_first = !self.sections_first;
        let mut sections = if self.sections_first { self.write_sections(now, seq, &mut writer) } else { 0 };
        self.write_flows(now, seq, &mut writer);
        if !self.sections_first {
            sections = self.write_sections(now, seq, &mut writer);
        }
        self.write_bucket_ends(&mut writer);
        if writer.is_empty() {
            return None;
        }
        let count = writer.count();
        let length = writer.finish();
        if sections == 0 {
            self.record_len = ((length - HEADER_LEN) / count).max(PLAIN_RECORD_LEN);
        }
        let length = self.keyring.seal(slot, length)?;
        self.keyring.data_left(seq);
        self.outbox.keep(now, &slot[..length]);
        self.data_left(now);
        self.frame_left(now, self.counters.records_sent - sent_before);
        self.counters.data_sent += 1;
        Some(length)
    }

    fn write_bucket_ends(&mut self, writer: &mut DataWriter<'_>) {
        while let Some((bucket, since)) = self.outbox.walked(&self.table) {
            if writer.push_bucket_end(bucket, since).is_err() {
                return;
            }
            self.outbox.bucket_ended(bucket, since);
            self.counters.buckets_walked += 1;
            if !self.outbox.is_walking() {
                self.walks_ended();
            }
        }
    }

    fn write_flows(&mut self, now: Instant, seq: u64, writer: &mut DataWriter<'_>) {
        loop {
            self.write_bucket_ends(writer);
            let pushed = match self.table.peek_plain(now) {
                Some(plain) => writer.push_plain(&plain),
                None => match self.table.peek_pending(now) {
                    Some(Pending::Upsert(flow)) => writer.push_upsert(&flow),
                    Some(Pending::Delete(key)) => writer.push_delete(&key),
                    None => return,
                },
            };
            match pushed {
                Ok(()) => self.counters.records_sent += 1,
                Err(PushError::Full) => return,
                // The table takes nothing that has no form here. If it did, one such must not stop all others.
                Err(_) => self.counters.records_unsayable += 1,
            }
            self.table.sent(self.outbox.local(seq));
            self.outbox.one_left();
        }
    }

    fn send_again(&mut self, now: Instant, slot: &mut [u8]) -> Option<usize> {
        if self.role() != Role::Master || !self.outbox.resend_waiting() {
            return None;
        }
        let length = self.outbox.send_again(now, self.resend_spacing(), slot);
        self.counters.resends_too_soon = self.outbox.too_soon();
        let mut length = length?;
        if self.breaks(Breakage::RetransmissionWithNewContent) || self.breaks(Breakage::NumberSealedTwice) {
            length = self.renew_content(now, slot, length)?;
        }
        self.counters.data_resent += 1;
        Some(length)
    }

    fn send_status(&mut self, now: Instant, slot: &mut [u8]) -> Option<usize> {
        let stream = self.inbox.stream()?;
        if self.inbox.status_at()? > now {
            return None;
        }
        let mut ranges = [MissingRange::new(1, 1); RANGES_MAX];
        let count = self.inbox.status_leaves(now, self.longest_ask_delay(), &mut ranges);
        let header = self.control_header(Kind::STATUS);
        let status = Status {
            target: Target { node: stream.node, incarnation: stream.incarnation },
            frontier: self.inbox.acknowledged_up_to(),
            base: self.inbox.base(),
            credit: self.inbox.credit(),
            state: self.sync_code(),
            missing: &ranges[..count],
        };
        let length = encode_status(slot, header, &status)?;
        self.counters.status_sent += 1;
        Some(length)
    }

    /// The longest time between two requests for what is missing. The master sends nothing twice within a round trip,
    /// so that asking often costs little; a lost request or answer that is made up for late costs everybody who waits.
    pub(super) fn longest_ask_delay(&self) -> Duration {
        (self.config.reorder_delay * ASK_DELAYS_MAX).min(self.config.advert_interval)
    }

    fn send_pull(&mut self, now: Instant, slot: &mut [u8]) -> Option<usize> {
        let stream = self.inbox.stream()?;
        if self.repair_waits() || self.repair.pull_at()? > now {
            return None;
        }
        let mut ranges = [BucketRange::new(0, 1); RANGES_MAX];
        let count = self.repair.pull_leaves(now, &mut ranges);
        if count == 0 {
            return None;
        }
        if let Some(buckets) = self.repair.diverged() {
            self.event(Event::Diverged { buckets });
            self.advert_soon(now);
        }
        let header = self.control_header(Kind::PULL);
        let target = Target { node: stream.node, incarnation: stream.incarnation };
        let length = encode_pull(slot, header, &Pull { target, ranges: &ranges[..count] })?;
        self.counters.pulls_sent += 1;
        Some(length)
    }

    fn send_advert(&mut self, now: Instant, slot: &mut [u8]) -> Option<usize> {
        self.warm_up(now);
        let mut reports = [PeerReport::new(NodeId(0), 0, 0, 0, 0); PEERS_MAX];
        let count = self.peer_reports(now, &mut reports);
        let header = self.control_header(Kind::ADVERT);
        let is_master = self.role() == Role::Master;
        let follows = self.follows(now);
        let proven = follows.node != NodeId(0) && self.sync_state() == SyncState::InSync;
        let advert = Advert {
            role: self.wire_role(),
            priority: if self.leaving { 0 } else { self.election.priority() },
            interval_ms: u16::try_from(self.config.advert_interval.as_millis()).unwrap_or(u16::MAX),
            flags: self.advert_flags().with_if(AdvertFlags::PROVEN, proven).with_if(AdvertFlags::OFFERS, self.offers()),
            term_start: self.outbox.term_start(),
            stream_seq: self.outbox.seq(),
            history_start: if is_master { self.outbox.history_start() } else { 0 },
            digest: self.table.digest(),
            entries: u64::from(self.table.len()),
            follows,
            hash_seed: self.table.seed(),
            capabilities: self.keyring.capabilities(CAPABILITIES),
            kernel_capacity: self.kernel_room.capacity,
            kernel_buckets: self.kernel_room.buckets,
            name: self.config.name.as_bytes(),
            peers: &reports[..count],
        };
        let length = encode_advert(slot, header, &advert)?;
        self.counters.adverts_sent += 1;
        self.last_advert_at = Some(now);
        self.advert_at = now + self.pace_of_adverts();
        self.sent_before_advert = 0;
        if self.leaving {
            self.leaving = false;
            self.input(now, super::Input::Request(super::RoleRequest::None));
        }
        Some(length)
    }

    /// Established peers first, then who may be about to prove itself; who had the time for it can wait.
    fn peer_reports(&self, now: Instant, reports: &mut [PeerReport; PEERS_MAX]) -> usize {
        let candidates = || self.peers.iter().filter(|peer| !peer.established);
        let hopeful = candidates().filter(|peer| self.peers.has_a_chance(now, peer));
        let others = candidates().filter(|peer| !self.peers.has_a_chance(now, peer));
        let followed = self.inbox.stream();
        let mut count = 0;
        for (report, peer) in reports.iter_mut().zip(self.peers.established().chain(hopeful).chain(others)) {
            let follows = followed.is_some_and(|it| it.node == peer.node && it.incarnation == peer.incarnation);
            let frontier = if follows { self.inbox.acknowledged_up_to() } else { 0 };
            *report = PeerReport::new(peer.node, peer.incarnation, self.inbox.credit(), peer.heard(), frontier);
            count += 1;
        }
        for (report, twin) in reports[count..].iter_mut().zip(self.twins.reports(self.config.node)) {
            *report = twin;
            count += 1;
        }
        count
    }

    fn advert_flags(&self) -> AdvertFlags {
        let mut flags = self.handover_flags();
        if self.cold {
            flags = flags.with(AdvertFlags::COLD);
        }
        if self.role() == Role::Master && !self.cold && self.table.pending() == 0 && self.table.pending_sections() == 0
        {
            flags = flags.with(AdvertFlags::DIGEST_VALID);
        }
        flags
    }

    /// The stream that is followed, while its master lives.
    fn follows(&self, now: Instant) -> Follows {
        let nobody = self.named_heir();
        let Some(stream) = self.inbox.stream() else { return nobody };
        match self.peers.get(stream.node, stream.incarnation) {
            Some(peer) if peer.is_living(now) => {
                Follows { node: stream.node, heir: NodeId(0), incarnation: stream.incarnation, term: stream.term }
            }
            _ => nobody,
        }
    }

    fn wire_role(&self) -> WireRole {
        match self.role() {
            Role::Init => WireRole::INIT,
            Role::Backup => WireRole::BACKUP,
            Role::Promoting => WireRole::PROMOTING,
            Role::Master => WireRole::MASTER,
            Role::Fault => WireRole::FAULT,
            Role::None => WireRole::NONE,
        }
    }

    fn sync_code(&self) -> SyncCode {
        match self.sync_state() {
            SyncState::Cold | SyncState::Unknown => SyncCode::COLD,
            SyncState::InSync | SyncState::Source => SyncCode::PROVEN,
            SyncState::Syncing | SyncState::Diverged => SyncCode::SYNCING,
            SyncState::Lagging => SyncCode::LAGGING,
        }
    }

    pub(super) fn control_header(&mut self, kind: Kind) -> Header {
        self.control_seq += 1;
        self.header(kind, self.control_seq)
    }

    pub(super) fn header(&self, kind: Kind, seq: u64) -> Header {
        Header {
            sync_id: self.config.sync_id,
            kind,
            flags: FrameFlags(0),
            node: self.config.node,
            incarnation: self.incarnation,
            seq,
            term: self.term,
        }
    }
}
