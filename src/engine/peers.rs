//! Whom this node hears, and whether they hear it: establishment by ADVERT (docs/protocol.md 3.5).
//!
//! ```text
//!   A                                   B
//!   ADVERT seq 1, lists nobody ───────▶ B notes c = its counter + 1 = 1; A is a candidate
//!   A: c = 2, B is a candidate ◀─────── ADVERT seq 1, lists A with heard = 1
//!   ADVERT seq 2, lists B, heard 1 ───▶ heard 1 ≥ c 1: A is established at B
//!   heard 2 ≥ c 2: established ◀─────── ADVERT seq 2, lists A with heard = 2
//! ```
//!
//! A recording cannot pass: it would have to list this node's incarnation, which was drawn at its start, and a number
//! that this node sent only after it first saw the sender's. Until then a candidate changes nothing: no role, no timer, no
//! term, and nothing of what is known of an older incarnation of the same node.

use super::audit::KernelRoom;
use super::breakage::{Breakage, Broken};
use super::durability::Acked;
use super::election::skew;
use super::event::Role;
use super::keyring::{Keys, Seal};
use super::window::Follower;
use crate::planted::{Plant, planted};
use crate::time::{Duration, Instant};
use crate::wire::{
    Advert, AdvertFlags, Capabilities, Follows, FrameError, Header, LINKS_MAX, NodeId, PEERS_MAX, PeerReport,
    ReplayWindow, WireRole,
};
use std::collections::VecDeque;

/// What a peer said about itself in its newest ADVERT.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word {
    pub(super) role: WireRole,
    pub(super) priority: u8,
    pub(super) interval: Duration,
    pub(super) flags: AdvertFlags,
    pub(super) term: u64,
    pub(super) term_start: u64,
    pub(super) stream_seq: u64,
    pub(super) history_start: u64,
    pub(super) digest: u64,
    pub(super) entries: u64,
    pub(super) follows: Follows,
    pub(super) hash_seed: u64,
    pub(super) capabilities: Capabilities,
    pub(super) kernel: KernelRoom,
}

impl Word {
    pub(super) fn new(header: &Header, advert: &Advert<'_>) -> Self {
        Word {
            role: advert.role,
            priority: advert.priority,
            // An interval is bounded before it is used: a peer must not make us wait for ever, nor spin.
            interval: Duration::from_millis(u64::from(advert.interval_ms).clamp(5, 40_000)),
            flags: advert.flags,
            term: header.term,
            term_start: advert.term_start,
            stream_seq: advert.stream_seq,
            history_start: advert.history_start,
            digest: advert.digest,
            entries: advert.entries,
            follows: advert.follows,
            hash_seed: advert.hash_seed,
            capabilities: advert.capabilities,
            kernel: KernelRoom { capacity: advert.kernel_capacity, buckets: advert.kernel_buckets },
        }
    }

    pub(super) fn is_master(&self) -> bool {
        self.role == WireRole::MASTER
    }

    pub(super) fn is_cold(&self) -> bool {
        self.flags.contains(AdvertFlags::COLD)
    }

    pub(super) fn is_draining(&self) -> bool {
        self.flags.contains(AdvertFlags::DRAINING)
    }

    /// It was master, and has what the present one may lack.
    pub(super) fn offers(&self) -> bool {
        self.flags.contains(AdvertFlags::OFFERS)
    }
}

/// How far a node was in the stream that it followed, by its own word; it is kept when the stream's master is silent.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Followed {
    pub(super) node: NodeId,
    pub(super) incarnation: u64,
    pub(super) frontier: u64,
    /// It said so when it last heard the master.
    pub(super) proven: bool,
}

impl Followed {
    /// What a further ADVERT makes of it.
    fn heard(self, advert: &Advert<'_>) -> Followed {
        let Some(report) = advert.peers.iter().find(|report| report.frontier() > 0) else { return self };
        let (node, incarnation, frontier) = (report.node(), report.incarnation(), report.frontier());
        let same = (self.node, self.incarnation) == (node, incarnation);
        let proven =
            if advert.follows.node == node { advert.flags.contains(AdvertFlags::PROVEN) } else { same && self.proven };
        Followed { node, incarnation, frontier, proven }
    }
}

/// One incarnation of another node.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) node: NodeId,
    pub(super) incarnation: u64,
    pub(super) name: Name,
    /// Proven in both directions.
    pub(super) established: bool,
    /// The candidate must prove that it has heard this control number of ours, or a later one.
    challenge: u64,
    window: ReplayWindow,
    newest_advert: u64,
    newest_status: u64,
    pub(super) word: Word,
    /// First frame of this incarnation that either of the two had to prove.
    pub(super) since: Instant,
    /// It was a candidate before, and has not proven itself.
    had_its_chance: bool,
    /// Last frame of any kind.
    pub(super) heard_at: Instant,
    /// Last ADVERT that proved both directions.
    proven_at: Instant,
    /// The last frame of *our* stream up to which it holds everything.
    pub(super) frontier: u64,
    /// What else it has told of itself as a follower of our stream.
    pub(super) follower: Follower,
    /// The same, as far as it was proven when it said so.
    pub(super) acked: Acked,
    /// As a follower of anybody's stream.
    pub(super) followed: Followed,
    /// What it offers was asked for, and so often it was told so.
    pub(super) merged: u8,
    /// A lone master that does not hear us was reported.
    pub(super) one_way_reported: bool,
    /// What each link has carried of its control frames.
    pub(super) carried: Carried,
    /// What each link has carried of its stream.
    pub(super) carried_data: Carried,
    /// What opens its frames.
    pub(super) keys: Keys,
    /// What its newest frame was sealed with.
    pub(super) sealed_with: Seal,
}

/// The highest number that each sync link has brought. A link keeps the order, so a number above it is brought by that
/// link for the first time.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Carried([u64; LINKS_MAX]);

impl Carried {
    /// Whether `link` would bring `seq` for the first time.
    pub(super) fn would_be_first(&self, link: u8, seq: u64) -> bool {
        self.0.get(usize::from(link)).is_some_and(|highest| seq > *highest)
    }

    /// Notes that `link` has brought `seq`; whether it brings it for the first time.
    pub(super) fn is_first(&mut self, link: u8, seq: u64) -> bool {
        let Some(highest) = self.0.get_mut(usize::from(link)) else { return false };
        let first = seq > *highest;
        *highest = seq.max(*highest);
        first
    }
}

/// A node's name without an allocation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    len: u8,
    bytes: [u8; crate::wire::NAME_LEN_MAX],
}

impl Name {
    fn new(name: &[u8]) -> Self {
        let mut bytes = [0; crate::wire::NAME_LEN_MAX];
        let len = name.len().min(bytes.len());
        bytes[..len].copy_from_slice(&name[..len]);
        Name { len: len as u8, bytes }
    }
}

impl core::fmt::Display for Name {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.bytes[..usize::from(self.len)]))
    }
}

impl Peer {
    /// Silence after which it is gone: three of its intervals and a skew.
    fn patience(&self) -> Duration {
        self.word.interval * 3 + skew(self.word.priority.max(1), self.word.interval)
    }

    pub(super) fn role(&self) -> Role {
        match self.word.role {
            WireRole::BACKUP => Role::Backup,
            WireRole::PROMOTING => Role::Promoting,
            WireRole::MASTER => Role::Master,
            WireRole::FAULT => Role::Fault,
            WireRole::NONE => Role::None,
            _ => Role::Init,
        }
    }

    /// Whether a control frame of this number was taken before.
    pub(super) fn was_taken(&self, seq: u64) -> bool {
        self.window.test(seq).is_err()
    }

    /// For a breakage only: a control frame of this number counts as taken.
    pub(super) fn mark(&mut self, seq: u64) {
        self.window.mark(seq);
    }

    /// The highest control number of it that has been accepted.
    pub(super) fn heard(&self) -> u64 {
        self.window.highest()
    }

    /// The control number of its newest ADVERT.
    pub(super) fn newest_advert(&self) -> u64 {
        self.newest_advert
    }

    /// Heard so recently that it counts as alive to those who ask us (docs/protocol.md 3.5, `follows`).
    pub(super) fn is_living(&self, now: Instant) -> bool {
        now.since(self.heard_at) < self.word.interval * 2
    }

    /// When its silence has lasted too long.
    pub(super) fn gone_at(&self) -> Instant {
        let last = if self.established { self.proven_at } else { self.heard_at };
        last + self.patience()
    }
}

/// Where a new candidate stands.
enum Place {
    Free,
    /// There, instead of who has not proven itself.
    Of(usize),
}

/// What an accepted ADVERT has made of its sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Arrival {
    /// Never seen before: to be answered at once.
    Candidate,
    /// Still not proven: to be answered, so that it can prove itself.
    Waiting,
    /// Proven just now; `replaced` an established older incarnation of the same node.
    Established { replaced: bool },
    /// Known and proven.
    Known,
}

/// Candidates of one node at once: its present life, and a few that may be recordings of others.
const CANDIDATES_OF_A_NODE: usize = 4;

/// Peers and candidates that have gone, of which that is remembered.
const GONE_MAX: usize = 256;
/// Intervals for which a candidate that has gone without having proven itself takes no place but a free one.
const UNPROVEN_INTERVALS: u32 = 100;

/// An incarnation that was a peer or a candidate before.
#[derive(Clone, Copy, Debug)]
struct Gone {
    node: NodeId,
    incarnation: u64,
    /// The highest control number that was heard of it: what is not above it is a recording.
    heard: u64,
    at: Instant,
    established: bool,
}

/// Everybody else in the group: at most [`PEERS_MAX`] established and as many candidates, so that strangers cannot crowd
/// out those that are proven.
///
/// A recording of an incarnation that is over can be a candidate, but never proves itself. Where there is no place, the first
/// such that had its chance gives way to who has not had one; who had one and comes again takes only a place that is free.
#[derive(Debug)]
pub(super) struct Peers {
    list: Vec<Peer>,
    /// Who was here before, the last to go behind.
    gone: VecDeque<Gone>,
    /// This node's own interval.
    interval: Duration,
    broken: Broken,
}

impl Peers {
    pub(super) fn new(broken: Broken, interval: Duration) -> Self {
        let gone = VecDeque::with_capacity(GONE_MAX);
        Peers { list: Vec::with_capacity(2 * PEERS_MAX), gone, interval, broken }
    }

    /// Whether a candidate may still be about to prove itself. Each side answers within a quarter of its interval: one of
    /// the slower of both is enough.
    pub(super) fn has_a_chance(&self, now: Instant, peer: &Peer) -> bool {
        !peer.had_its_chance && now.since(peer.since) < self.interval.max(peer.word.interval)
    }

    /// Whether an ADVERT of who is not known may make a candidate, as far as that can be told before its seal is opened.
    pub(super) fn may_come(&self, now: Instant, header: &Header) -> Result<(), FrameError> {
        let life = (header.node, header.incarnation);
        if self.gone(life).is_some_and(|gone| header.seq <= gone.heard) {
            return Err(FrameError::Replayed);
        }
        self.place_for(now, life).map(drop).ok_or(FrameError::Crowded)
    }

    fn gone(&self, life: (NodeId, u64)) -> Option<&Gone> {
        self.gone.iter().find(|gone| (gone.node, gone.incarnation) == life)
    }

    /// Whether this incarnation was a candidate not long ago, and has not proven itself.
    fn had_its_chance(&self, now: Instant, life: (NodeId, u64)) -> bool {
        let recently = |gone: &Gone| !gone.established && now.since(gone.at) < self.interval * UNPROVEN_INTERVALS;
        self.gone(life).is_some_and(recently)
    }

    /// Where a candidate that is not known would stand: at the end, or in the place of one that gives way; `None` if nowhere.
    fn place_for(&self, now: Instant, (node, incarnation): (NodeId, u64)) -> Option<Place> {
        let candidates = || self.list.iter().enumerate().filter(|(_, peer)| !peer.established);
        let of_its_node = candidates().filter(|(_, peer)| peer.node == node).count();
        let crowd = if of_its_node >= CANDIDATES_OF_A_NODE { Some(node) } else { None };
        let room = candidates().count() < PEERS_MAX || planted(Plant::CandidateRoom);
        if crowd.is_none() && room {
            return Some(Place::Free);
        }
        if self.had_its_chance(now, (node, incarnation)) {
            return None;
        }
        let gives_way = |peer: &Peer| crowd.is_none_or(|node| peer.node == node) && !self.has_a_chance(now, peer);
        let first = candidates().filter(|(_, peer)| gives_way(peer)).min_by_key(|(_, peer)| peer.since);
        first.map(|(at, _)| Place::Of(at))
    }

    /// Somebody has gone.
    fn remember(&mut self, now: Instant, peer: &Peer) {
        let (node, incarnation) = (peer.node, peer.incarnation);
        let before = self.gone((node, incarnation)).map_or(0, |gone| gone.heard);
        self.gone.retain(|gone| (gone.node, gone.incarnation) != (node, incarnation));
        if self.gone.len() == GONE_MAX {
            self.gone.pop_front();
        }
        let heard = before.max(peer.heard());
        self.gone.push_back(Gone { node, incarnation, heard, at: now, established: peer.established });
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.list.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.list.iter_mut()
    }

    pub(super) fn established(&self) -> impl Iterator<Item = &Peer> {
        self.list.iter().filter(|peer| peer.established)
    }

    pub(super) fn get(&self, node: NodeId, incarnation: u64) -> Option<&Peer> {
        self.list.iter().find(|peer| peer.node == node && peer.incarnation == incarnation)
    }

    pub(super) fn get_mut(&mut self, node: NodeId, incarnation: u64) -> Option<&mut Peer> {
        self.list.iter_mut().find(|peer| peer.node == node && peer.incarnation == incarnation)
    }

    /// Takes an ADVERT. `own` is this node with its incarnation, `next_control` the number that its next control frame
    /// will have.
    pub(super) fn advert(
        &mut self,
        now: Instant,
        header: &Header,
        advert: &Advert<'_>,
        own: (NodeId, u64),
        next_control: u64,
    ) -> Result<Arrival, FrameError> {
        let Some(at) = self.position(header) else {
            return self.admit(now, header, advert, next_control);
        };
        let room = PEERS_MAX.saturating_sub(self.established().count());
        let credulous = self.broken.is(Breakage::StaleIncarnationAccepted)
            || (self.broken.is(Breakage::StrangerWithoutEcho) && header.flags.is_sealed());
        let again = self.broken.is(Breakage::ReplayWindowNotTested);
        let peer = &mut self.list[at];
        peer.window.test(header.seq).or_else(|reason| if again { Ok(()) } else { Err(reason) })?;
        if header.seq < peer.newest_advert {
            return Err(FrameError::Stale);
        }
        peer.window.mark(header.seq);
        peer.newest_advert = header.seq;
        peer.heard_at = now;
        peer.word = Word::new(header, advert);
        peer.followed = peer.followed.heard(advert);
        let report = advert.peers.iter().find(|report| report.node() == own.0 && report.incarnation() == own.1);
        let unheard = PeerReport::new(own.0, own.1, 0, 0, 0);
        let Some(report) = report.or(credulous.then_some(&unheard)) else {
            return Ok(if peer.established { Arrival::Known } else { Arrival::Waiting });
        };
        if peer.established {
            peer.proven_at = now;
            return Ok(Arrival::Known);
        }
        // Nobody can have heard what was not sent yet.
        if !(peer.challenge..next_control).contains(&report.heard()) && !credulous {
            return Ok(Arrival::Waiting);
        }
        if room == 0 {
            return Err(FrameError::Unestablished);
        }
        peer.established = true;
        peer.proven_at = now;
        // It may have been known before, and forgotten: until here what was recorded then could be sent again.
        peer.window = ReplayWindow::starting_at(header.seq);
        let replaced = self.forget_others(now, header);
        Ok(Arrival::Established { replaced })
    }

    /// A control frame other than ADVERT, from an established peer only.
    pub(super) fn control(&mut self, now: Instant, header: &Header, is_status: bool) -> Result<&mut Peer, FrameError> {
        let again = self.broken.is(Breakage::ReplayWindowNotTested);
        let peer = self.get_mut(header.node, header.incarnation).ok_or(FrameError::Unestablished)?;
        if !peer.established {
            return Err(FrameError::Unestablished);
        }
        peer.window.test(header.seq).or_else(|reason| if again { Ok(()) } else { Err(reason) })?;
        if is_status {
            if header.seq < peer.newest_status {
                return Err(FrameError::Stale);
            }
            peer.newest_status = header.seq;
        }
        peer.window.mark(header.seq);
        peer.heard_at = now;
        Ok(peer)
    }

    /// Takes out one peer whose silence has lasted too long.
    pub(super) fn take_gone(&mut self, now: Instant) -> Option<Peer> {
        let at = self.list.iter().position(|peer| peer.gone_at() <= now)?;
        let gone = self.list.swap_remove(at);
        self.remember(now, &gone);
        Some(gone)
    }

    /// Takes out one that has said goodbye.
    pub(super) fn remove(&mut self, now: Instant, node: NodeId, incarnation: u64) -> Option<Peer> {
        let at = self.list.iter().position(|peer| peer.node == node && peer.incarnation == incarnation)?;
        let gone = self.list.swap_remove(at);
        self.remember(now, &gone);
        Some(gone)
    }

    /// When the next one may be gone.
    pub(super) fn next_gone_at(&self) -> Option<Instant> {
        self.list.iter().map(Peer::gone_at).min()
    }

    /// This node has a new incarnation: what was proven with the old one must be proven anew.
    pub(super) fn doubt_all(&mut self, now: Instant, next_control: u64) {
        for peer in &mut self.list {
            peer.established = false;
            peer.since = now;
            peer.challenge = next_control;
        }
    }

    /// A new mastership of this node: what peers held of an older stream counts no more.
    pub(super) fn forget_frontiers(&mut self) {
        for peer in &mut self.list {
            peer.frontier = 0;
            peer.follower = Follower::default();
            peer.acked.forget();
        }
    }

    fn position(&self, header: &Header) -> Option<usize> {
        self.list.iter().position(|peer| peer.node == header.node && peer.incarnation == header.incarnation)
    }

    fn admit(
        &mut self,
        now: Instant,
        header: &Header,
        advert: &Advert<'_>,
        challenge: u64,
    ) -> Result<Arrival, FrameError> {
        match self.place_for(now, (header.node, header.incarnation)).ok_or(FrameError::Crowded)? {
            Place::Free => {}
            Place::Of(at) => {
                let gone = self.list.swap_remove(at);
                self.remember(now, &gone);
            }
        }
        let window = ReplayWindow::starting_at(header.seq);
        self.list.push(Peer {
            node: header.node,
            incarnation: header.incarnation,
            name: Name::new(advert.name),
            established: false,
            challenge,
            window,
            newest_advert: header.seq,
            newest_status: 0,
            word: Word::new(header, advert),
            since: now,
            had_its_chance: self.had_its_chance(now, (header.node, header.incarnation)),
            heard_at: now,
            proven_at: now,
            frontier: 0,
            follower: Follower::default(),
            acked: Acked::default(),
            followed: Followed::default().heard(advert),
            merged: 0,
            one_way_reported: false,
            carried: Carried::default(),
            carried_data: Carried::default(),
            keys: Keys::default(),
            sealed_with: None,
        });
        Ok(Arrival::Candidate)
    }

    /// Drops every other incarnation of the node that has just proven itself; whether an established one was among them.
    fn forget_others(&mut self, now: Instant, header: &Header) -> bool {
        let before = self.established().count();
        let other = |peer: &Peer| peer.node == header.node && peer.incarnation != header.incarnation;
        while let Some(at) = self.list.iter().position(other) {
            let gone = self.list.swap_remove(at);
            self.remember(now, &gone);
        }
        self.established().count() < before
    }
}
