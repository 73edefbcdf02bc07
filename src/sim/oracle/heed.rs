//! Who is established, and whom a master waits for, by what each node was told in the frames that reached it.
//!
//! ```text
//!   N follows X, or takes it for established    X has listed N in an ADVERT that reached N                         [3.5.3]
//!   nobody                                      is its own peer                                                    [3.2.5]
//!   N acknowledges n                            N holds everything up to n                                         [3.6.1]
//!   master sends a new DATA n                   the edge of no proven follower that is not lagging is below n      [3.6.6]
//!   a proven follower is behind, stands still   after lag_limit it is lagging                                      [3.6.6]
//! ```

use super::Oracle;
use super::sent::StreamId;
use crate::engine::{Engine, PeerStatus, Role};
use crate::time::{Duration, Instant};
use crate::wire::{Advert, Frame, Header, Kind, NodeId, Payload, Status, SyncCode};
use std::collections::{BTreeMap, BTreeSet};

/// What a node's turn may take, and how long it may be overdue with what is judged here.
const SLACK: Duration = Duration::from_millis(100);

/// A node and its incarnation.
type Who = (NodeId, u64);

/// What a follower has told its master of itself.
#[derive(Clone, Copy, Default, Debug)]
struct Follower {
    /// The control frame that said so.
    told_by: u64,
    /// The last number that it can take.
    edge: u64,
    frontier: u64,
    proven: bool,
    /// The newest STATUS, which says so or not.
    status: u64,
    /// It follows this stream, by its newest ADVERT.
    follows: bool,
    /// The newest ADVERT.
    advert: u64,
    /// Since when it lacks something, or can take nothing more, and has not moved.
    behind_since: Option<Instant>,
    /// It was called lagging, and has not moved on since.
    released: bool,
    /// Since when it is seen that it should be called lagging, and is not.
    overdue_since: Option<Instant>,
}

/// What one node was told by the others.
#[derive(Clone, Default, Debug)]
pub(super) struct Heed {
    /// Those who have said that they hear this node, in its present incarnation.
    listed_by: BTreeSet<Who>,
    /// As a master, under its present stream.
    followers: BTreeMap<Who, Follower>,
    stream: Option<StreamId>,
    /// It says goodbye: it waits for nobody.
    leaves: bool,
}

impl Oracle {
    /// A node says goodbye.
    pub(in crate::sim) fn leaves(&mut self, node: usize) {
        self.nodes[node].heed.leaves = true;
    }

    /// The role of a node has changed, or it was built.
    pub(super) fn note_role(&mut self, now: Instant, at: usize, role: Role) {
        let _ = role;
        self.nodes[at].heed.leaves = false;
        self.begin_duty(now, at);
    }

    // ------------------------------------------------------------------ the way out

    /// A STATUS says nothing that its node does not hold.
    pub(super) fn judge_status_sent(&mut self, now: Instant, at: usize, status: &Status<'_>) {
        let node = &self.nodes[at];
        let Some(stream) = node.following else { return };
        let is_for = (status.target.node, status.target.incarnation) == (stream.node, stream.incarnation);
        if is_for && status.frontier > node.frontier {
            let (said, held) = (status.frontier, node.frontier);
            let text = format!("node {at} acknowledges {stream:?} up to {said}; it holds everything up to {held}");
            self.broken(now, "acknowledges", text);
        }
    }

    /// A master sends new DATA.
    pub(super) fn judge_credit(&mut self, now: Instant, at: usize, engine: &Engine, seq: u64) {
        let node = &mut self.nodes[at];
        let current = node.saying.as_ref().and_then(|saying| saying.stream);
        let heed = &mut node.heed;
        // At a new term a master knows nothing of its followers, and heeds nobody until they speak [3.6.9].
        if heed.stream != current {
            return;
        }
        for follower in heed.followers.values_mut() {
            follower.behind_since.get_or_insert(now);
        }
        let beyond = |(_, follower): &(&Who, &Follower)| follower.follows && follower.proven && follower.edge < seq;
        if heed.leaves || !heed.followers.iter().any(|it| beyond(&it)) {
            return;
        }
        let beyond: Vec<(Who, u64)> =
            heed.followers.iter().filter(beyond).map(|(who, follower)| (*who, follower.edge)).collect();
        let peers = engine.peers();
        for (who, edge) in beyond {
            if known(&peers, who).is_some_and(|peer| peer.established && !peer.lagging) {
                let text = format!("node {at} sends DATA {seq}; node number {} can take none above {edge}", who.0);
                return self.broken(now, "credit", text);
            }
        }
    }

    // ------------------------------------------------------------------ the way in

    /// A peer is established, perhaps anew: what its STATUS said before counts no more, and what it said meanwhile was not
    /// taken, nor is what comes late and was said before its ADVERT (3.4.3). With its next STATUS the master waits for it
    /// again (3.6.6).
    pub(super) fn note_established(&mut self, at: usize, who: Who) {
        if let Some(follower) = self.nodes[at].heed.followers.get_mut(&who) {
            follower.proven = false;
            follower.status = follower.status.max(follower.advert);
            (follower.behind_since, follower.overdue_since) = (None, None);
        }
    }

    /// A node was handed what it had sent itself.
    pub(super) fn judge_echo(&mut self, now: Instant, at: usize, engine: &Engine, bytes: &[u8]) {
        let Some(header) = Frame::parse(bytes).ok().map(|frame| frame.header()) else { return };
        let own = self.nodes[at].config.as_ref().is_some_and(|config| config.node == header.node);
        if own && known(&engine.peers(), (header.node, header.incarnation)).is_some() {
            self.broken(now, "own-echo", format!("node {at} has taken what it sent itself for a peer's"));
        }
    }

    /// A frame is about to be handed to a node: what it says of this node and its stream.
    pub(super) fn note_heed(&mut self, now: Instant, at: usize, bytes: &[u8]) {
        let control = [Kind::ADVERT.0, Kind::STATUS.0];
        // Byte 5 is the kind.
        if !bytes.get(5).is_some_and(|kind| control.contains(kind)) {
            return;
        }
        let Ok(verified) = Frame::parse(bytes).and_then(Frame::verify) else { return };
        let header = verified.header();
        match verified.payload() {
            Payload::Advert(advert) => self.note_advert(now, at, &header, &advert),
            Payload::Status(status) => self.note_status(now, at, &header, &status),
            _ => {}
        }
    }

    pub(super) fn note_advert(&mut self, now: Instant, at: usize, header: &Header, advert: &Advert<'_>) {
        let node = &mut self.nodes[at];
        let Some(own) = node.config.as_ref().map(|config| (config.node, node.incarnation)) else { return };
        let who = (header.node, header.incarnation);
        let stream = node.saying.as_ref().and_then(|saying| saying.stream);
        let follows =
            StreamId { node: advert.follows.node, incarnation: advert.follows.incarnation, term: advert.follows.term };
        // Who has taken this node for gone lists it no more, and follows it no more either. An ADVERT that was overtaken
        // by a newer one says nothing more [3.4.4].
        let mut newest = true;
        if let Some(follower) = node.heed.followers.get_mut(&who) {
            newest = header.seq > follower.advert;
            if newest {
                (follower.follows, follower.advert) = (stream == Some(follows), header.seq);
            }
        }
        let Some(report) = advert.peers.iter().find(|report| (report.node(), report.incarnation()) == own) else {
            return;
        };
        node.heed.listed_by.insert(who);
        if newest && stream == Some(follows) {
            self.note_follower(now, at, who, (header.seq, report.frontier(), report.credit()), None);
        }
    }

    pub(super) fn note_status(&mut self, now: Instant, at: usize, header: &Header, status: &Status<'_>) {
        let Some(stream) = self.nodes[at].saying.as_ref().and_then(|saying| saying.stream) else { return };
        let is_ours = (status.target.node, status.target.incarnation) == (stream.node, stream.incarnation);
        if is_ours && header.term >= stream.term {
            let (who, proven) = ((header.node, header.incarnation), status.state == SyncCode::PROVEN);
            self.note_follower(now, at, who, (header.seq, status.frontier, status.credit), Some(proven));
        }
    }

    fn note_follower(&mut self, now: Instant, at: usize, who: Who, told: (u64, u64, u32), proven: Option<bool>) {
        let node = &mut self.nodes[at];
        let Some(stream) = node.saying.as_ref().and_then(|saying| saying.stream) else { return };
        if node.heed.stream != Some(stream) {
            (node.heed.stream, node.heed.followers) = (Some(stream), BTreeMap::new());
        }
        let Some(said) = self.sent.streams.get(&stream) else { return };
        let (newest, start, (by, frontier, credit)) = (said.newest(), said.start, told);
        let near = node.config.as_ref().map_or(0, |config| u64::from(config.history / 2));
        let follower = node.heed.followers.entry(who).or_default();
        let frontier = frontier.clamp(start, newest);
        let moved = frontier > follower.frontier;
        follower.frontier = follower.frontier.max(frontier);
        match proven {
            // One that was overtaken by a newer one says nothing more of the proof [3.4.4].
            Some(proven) if by > follower.status => (follower.proven, follower.status) = (proven, by),
            Some(_) => {}
            None => (follower.follows, follower.advert) = (true, follower.advert.max(by)),
        }
        let grew = frontier + u64::from(credit) > follower.edge;
        if by > follower.told_by {
            (follower.told_by, follower.edge) = (by, frontier + u64::from(credit));
        }
        let behind = follower.frontier < newest || follower.edge <= newest;
        if moved || !behind {
            (follower.behind_since, follower.overdue_since) = (None, None);
        }
        if behind {
            follower.behind_since.get_or_insert(now);
        }
        // Who was released is heeded again, and has its time anew [3.6.6].
        let near = newest - follower.frontier.max(start) <= near && follower.edge > newest;
        if follower.released && (moved || grew) && near {
            follower.released = false;
            (follower.behind_since, follower.overdue_since) = (behind.then_some(now), None);
        }
    }

    /// A master has called a follower lagging.
    pub(super) fn note_released(&mut self, at: usize, node: NodeId) {
        let followers = self.nodes[at].heed.followers.iter_mut().filter(|((id, _), _)| *id == node);
        followers.for_each(|(_, follower)| follower.released = true);
    }

    // ------------------------------------------------------------------ at every moment

    /// A follower that is behind and stands still is called lagging in time, while its master runs.
    pub(super) fn judge_lagging(&mut self, now: Instant, at: usize, engine: &Engine) {
        let node = &mut self.nodes[at];
        let Some(config) = node.config.as_ref().filter(|_| node.role == Some(Role::Master)) else { return };
        let limit = (config.lag_limit.max(config.advert_interval * 2)) * 5 / 4 + config.advert_interval + SLACK;
        let stands = |follower: &Follower| {
            follower.follows && follower.proven && follower.behind_since.is_some_and(|since| now.since(since) > limit)
        };
        let current = node.saying.as_ref().and_then(|saying| saying.stream);
        if node.heed.leaves || node.heed.stream != current || !node.heed.followers.values().any(stands) {
            return;
        }
        let peers = engine.peers();
        let mut late = None;
        for (who, follower) in &mut node.heed.followers {
            let heeded = stands(follower) && known(&peers, *who).is_some_and(|peer| peer.established && !peer.lagging);
            follower.overdue_since = if heeded { follower.overdue_since.or(Some(now)) } else { None };
            if follower.overdue_since.is_some_and(|since| now.since(since) > SLACK + config.advert_interval) {
                late = Some((*who, follower.behind_since));
            }
        }
        let Some((who, since)) = late else { return };
        // One that was not heard for a while may have been taken for gone, and for another when it came back.
        let peer = self.index(who.0);
        if peer.is_some_and(|peer| since.is_some_and(|since| self.is_heard_since(at, peer, since))) {
            let text =
                format!("node {at} still waits for node number {}, which has stood still since {since:?}", who.0);
            self.broken(now, "lagging", text);
        }
    }

    /// A node begins to follow: only one that has said that it hears this node.
    pub(super) fn judge_established(&mut self, now: Instant, at: usize, stream: StreamId) {
        let heed = &self.nodes[at].heed;
        if !heed.listed_by.contains(&(stream.node, stream.incarnation)) {
            let text = format!("node {at} follows {stream:?}, whose master has never said that it hears this node");
            self.broken(now, "established", text);
        }
    }
}

fn known(peers: &[PeerStatus], (node, incarnation): Who) -> Option<&PeerStatus> {
    peers.iter().find(|peer| peer.node == node && peer.incarnation == incarnation)
}
