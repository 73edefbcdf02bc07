//! Whether there is one master: not two for long, not none for long, and none that takes the role without having the table
//! (docs/protocol.md 5), by what each node was told in ADVERTs that reached it.
//!
//! ```text
//!   two masters hear each other without a pause     for at most MEETING intervals                           [5.4.1]
//!   a backup is told of nobody who is, becomes, or
//!   is followed as a master                         for at most PATIENCE intervals: then it takes the role  [5.0.1, 3.5.8]
//!   Promoting                                       until its deadlines at most                             [5.2.2]
//!   Backup ▶ Promoting beside a living master       its heir, or of higher priority and allowed to; proven, with all that
//!                                                   the master has said that it sent, an equal table        [5.3.1, 5.3.4]
//!   cold Backup ▶ Promoting beside a warm backup    twice as late as that one, and one master-down after the last word of
//!                                                   a living master, by whomever                            [5.1.1]
//! ```
//!
//! Nobody is held to a time who is paused, frozen or slow, nor for the time before.

use super::Oracle;
use super::sent::{Beat, StreamId};
use crate::engine::election::master_down;
use crate::engine::{Engine, PeerStatus, Role, RoleMode, SyncState};
use crate::time::{Duration, Instant};
use crate::wire::{AdvertFlags, NodeId, WireRole};

/// Intervals within which two masters that hear each other have found out who stays: each hears the other at least once in
/// 5/2 of them, by the second time each has proven itself (3.5.2), and by the third both have judged; with a clock that is
/// 5 % slow, and as much again for frames that are late.
const MEETING: u32 = 16;
/// Intervals after which a backup is master if it is told of no other: 4 until the last peer that spoke of one is gone (3.5.8),
/// 4 of master-down, 4 more if it is cold (5.1.1), and as many again that a clock or a hold may take.
const PATIENCE: u32 = 16;
/// What turns may take.
const SLACK: Duration = Duration::from_millis(300);

/// What is known of a node's duty to take the role, or to leave it alone.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Duty {
    /// It is paused, frozen or slow.
    idle: bool,
    /// Since when it is not, or has its present role.
    free_since: Instant,
    /// Since when it has its present role.
    began_at: Instant,
    /// Its owner wants it to be without the role.
    draining: bool,
    /// What it does now its owner has just wished for.
    wished: bool,
    /// As a backup: when somebody last told it of a master, living or to be, or its role began.
    told_at: Instant,
    /// The same of the followed master itself, and of others who follow a living one, as far as they were established.
    led_at: Option<Instant>,
    led_by: Option<(NodeId, u64)>,
    witnessed_at: Option<Instant>,
    /// The stream whose master hands over to this node, and the last number that it first heard of.
    inherits: Option<(StreamId, u64)>,
    /// It has taken the role from a living master, and what it holds is still to be looked at.
    succeeds: bool,
    /// The master has said since that it is none any more, or has started anew: then only the skew is waited (5.0.3, 5.1.2).
    left: bool,
}

impl Oracle {
    /// A node is paused, frozen or slow from now on, or is so no more.
    pub(in crate::sim) fn idles(&mut self, now: Instant, node: usize, idle: bool) {
        let duty = &mut self.nodes[node].duty;
        (duty.idle, duty.free_since, duty.told_at) = (idle, now, now);
    }

    /// The owner wishes that a node takes the role, until [`Oracle::turned`].
    pub(in crate::sim) fn wished(&mut self, node: usize) {
        self.nodes[node].duty.wished = true;
    }

    /// The owner wishes that a node is without the role, or does so no more; somebody else may take it from now on.
    pub(in crate::sim) fn drains(&mut self, now: Instant, node: usize, draining: bool) {
        let duty = &mut self.nodes[node].duty;
        (duty.draining, duty.told_at) = (draining, now);
        self.handovers = true;
    }

    /// A planned switch was asked for: a mastership may be taken from a living master by whoever is its heir.
    pub(in crate::sim) fn handover_asked(&mut self) {
        self.handovers = true;
    }

    pub(super) fn wish_is_over(&mut self, node: usize) {
        self.nodes[node].duty.wished = false;
    }

    pub(super) fn begin_duty(&mut self, now: Instant, at: usize) {
        let duty = &mut self.nodes[at].duty;
        (duty.free_since, duty.began_at, duty.told_at) = (now, now, now);
        (duty.led_at, duty.led_by, duty.witnessed_at, duty.left) = (None, None, None, false);
    }

    /// An ADVERT was handed to a node, old or new, of whomever: who is told of a master need not take the role. Only what is
    /// news, and no replay, makes it wait.
    pub(super) fn note_told(
        &mut self,
        now: Instant,
        at: usize,
        engine: &Engine,
        from: (NodeId, u64),
        beat: Beat,
        news: bool,
    ) {
        let Some(own) = self.nodes[at].config.as_ref().map(|config| config.node) else { return };
        let leads = beat.is_master();
        let duty = &mut self.nodes[at].duty;
        let stream = StreamId { node: from.0, incarnation: from.1, term: beat.term };
        if leads && beat.flags.contains(AdvertFlags::HANDING_OVER) && beat.follows.heir == own {
            let known = duty.inherits.filter(|(inherited, _)| *inherited == stream);
            duty.inherits = known.or(Some((stream, beat.stream_seq)));
        }
        duty.left |= duty.led_by.is_some_and(|led_by| led_by.0 == from.0 && (led_by.1 != from.1 || !leads));
        let follows = beat.follows.node != NodeId(0) && beat.follows.node != own;
        if !leads && !follows && beat.role != WireRole::PROMOTING {
            return;
        }
        duty.told_at = now;
        if news && (leads || follows) && engine.role() == Role::Backup {
            let is_established = |peer: &PeerStatus| (peer.node, peer.incarnation) == from && peer.established;
            let followed = engine.following().map(StreamId::from) == Some(stream);
            if (follows || followed) && engine.peers().iter().any(is_established) {
                if leads {
                    (duty.led_at, duty.led_by, duty.left) = (Some(now), Some(from), false);
                } else {
                    duty.witnessed_at = Some(now);
                }
            }
        }
    }

    // ------------------------------------------------------------------ at every moment

    /// What must hold of roles at every moment.
    pub(super) fn judge_mastership(&mut self, now: Instant, at: usize) {
        let node = &self.nodes[at];
        let (Some(config), duty) = (&node.config, node.duty) else { return };
        if duty.idle {
            return;
        }
        let interval = config.advert_interval;
        match node.role {
            Some(Role::Master) => self.judge_company(now, at, interval * MEETING + SLACK),
            Some(Role::Promoting) => {
                let deadlines = config.commit_deadline + config.merge_deadline + config.handover_deadline;
                let limit = deadlines * 11 / 10 + SLACK;
                if now.since(duty.free_since) > limit {
                    let text = format!("node {at} is promoting since {:?}; its deadlines are over", duty.free_since);
                    self.broken(now, "commit-deadline", text);
                }
            }
            Some(Role::Backup) if config.role == RoleMode::Vrrp && !duty.draining => {
                let limit = interval * PATIENCE + SLACK;
                if now.since(duty.told_at) > limit {
                    let text = format!("node {at} is backup, and was last told of a master at {:?}", duty.told_at);
                    self.broken(now, "masterless", text);
                }
            }
            _ => {}
        }
    }

    /// A master beside another one, whom it hears and who hears it.
    fn judge_company(&mut self, now: Instant, at: usize, limit: Duration) {
        for other in (0..self.nodes.len()).filter(|other| *other != at) {
            let it = &self.nodes[other];
            if it.role != Some(Role::Master) || it.duty.idle {
                continue;
            }
            let Some(heard) = self.hear_each_other_since(now, at, other) else { continue };
            let since = heard.max(it.duty.free_since).max(self.nodes[at].duty.free_since);
            if now.since(since) > limit {
                let text = format!("nodes {at} and {other} are both master, and hear each other, since {since:?}");
                return self.broken(now, "two-masters-stay", text);
            }
        }
    }

    // ------------------------------------------------------------------ takeovers

    /// Whether what the node does now was its owner's wish.
    pub(super) fn is_wished(&self, at: usize) -> bool {
        self.nodes[at].duty.wished
    }

    /// A backup takes the role while it follows a living master: it has the whole table, and may.
    pub(super) fn judge_succession(&mut self, now: Instant, at: usize, engine: &Engine) {
        let (Some(stream), Some(config)) = (self.nodes[at].following, &self.nodes[at].config) else { return };
        if self.is_wished(at) || engine.following().is_none() {
            return;
        }
        let (preempt, priority) = (config.preempt, engine.priority());
        let Some(said) = self.sent.streams.get(&stream) else { return };
        let (master, node) = (said.master, &self.nodes[at]);
        let word = node.handed.filter(|handed| (handed.0, handed.1) == (stream.node, stream.incarnation));
        let word = word.map(|(.., beat)| beat);
        let heir = node.duty.inherits.filter(|(inherited, _)| *inherited == stream);
        let last =
            heir.map_or(word.filter(|word| word.term == stream.term).map_or(0, |word| word.stream_seq), |it| it.1);
        let above = word.is_none_or(|word| priority > word.priority);
        let problem = if !self.handovers && !preempt {
            Some("it may not preempt".into())
        } else if heir.is_none() && !above {
            Some(format!("its priority {priority} is not above that of its master"))
        } else if engine.sync_state() != SyncState::InSync {
            Some(format!("it is {}", engine.sync_state().name()))
        } else if last > node.frontier {
            Some(format!("it holds everything up to {}, and has heard of {last}", node.frontier))
        } else {
            None
        };
        // What is in the frame that led to it is known when all of it was looked at.
        self.nodes[at].duty.succeeds = true;
        self.sightings.insert(if heir.is_some() { "inheritance" } else { "preemption" });
        if let Some(problem) = problem {
            let text = format!("node {at} takes the role from the living master {master}; {problem}");
            self.broken(now, "succession", text);
        }
    }

    /// Whoever has just taken the role from a living master holds what that had said, up to its frontier.
    pub(super) fn judge_inheritance(&mut self, now: Instant, at: usize, engine: &Engine) {
        if !core::mem::take(&mut self.nodes[at].duty.succeeds) {
            return;
        }
        self.compare_whole(now, at, engine, None);
        let node = &self.nodes[at];
        let Some(stream) = node.following.filter(|_| node.taken.is_empty()) else { return };
        let expected = self.sent.streams.get(&stream).and_then(|said| said.print(node.frontier));
        if expected != Some(node.shadow.print()) {
            let text = format!("node {at} takes the role from the living master of {stream:?}; its table is another");
            self.broken(now, "succession", text);
        }
    }

    /// A cold node takes the role.
    pub(super) fn judge_cold_takeover(&mut self, now: Instant, at: usize, engine: &Engine) {
        let node = &self.nodes[at];
        let Some(config) = node.config.as_ref().filter(|config| config.role == RoleMode::Vrrp) else { return };
        if self.is_wished(at) || !engine.is_cold() || engine.following().is_some() {
            return;
        }
        self.sightings.insert("cold-takeover");
        let down = master_down(config.priority.max(engine.priority()), config.advert_interval);
        let duty = &self.nodes[at].duty;
        let since = duty.led_at.unwrap_or(duty.began_at);
        let patient = now.since(since) > if duty.left { down * 9 / 10 } else { down * 9 / 5 }
            && duty.witnessed_at.is_none_or(|witnessed| now.since(witnessed) > down * 9 / 10);
        let warm = |peer: &&PeerStatus| peer.established && !peer.cold && peer.role == Role::Backup;
        if let Some(peer) = engine.peers().iter().find(|peer| warm(peer)).filter(|_| !patient) {
            let text = format!(
                "node {at} is cold and takes over {:?} after the last word of a master ({:?} after that of a witness), with a \
                 master-down of {down:?}; it hears node number {}, which is not cold",
                now.since(since),
                duty.witnessed_at.map(|witnessed| now.since(witnessed)),
                peer.node
            );
            self.broken(now, "cold-waits", text);
        }
    }
}
