//! One node as it is seen from outside, and what is noted whenever somebody looks at it.

use super::prints::{Map, Name};
use super::sent::{Beat, Saying, Stream, StreamId};
use super::shadow::Shadow;
use super::{Label, Oracle};
use crate::engine::{Config, Engine, Role};
use crate::time::Instant;
use std::collections::BTreeMap;

/// A frame of the followed stream that went in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    /// It may have been refused for want of room: then it comes again.
    pub(super) uncertain: bool,
}

/// What is known of a node; the default is one that does not run.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) config: Option<Config>,
    pub(super) shadow: Shadow,
    /// Changed, and its sink has not been told.
    pub(super) unsunk: Map<Name, ()>,
    // Claims, as they were when somebody looked last.
    pub(super) role: Option<Role>,
    pub(super) following: Option<StreamId>,
    pub(super) frontier: u64,
    pub(super) proven: bool,
    /// It claimed to be proven since it began to follow.
    pub(super) was_proven: bool,
    pub(super) looked_at: Instant,
    // As a follower.
    pub(super) base: u64,
    /// What it took above the frontier.
    pub(super) taken: BTreeMap<u64, Taken>,
    /// Parts of sections' values that it took, by name and first frame: of each, by its place in
    /// [`super::sent::Sent::told`], its frame and its bytes.
    pub(super) parts: Map<(Name, u64), BTreeMap<usize, (u64, u64)>>,
    /// Frames that the engine has counted as not received, for want of room.
    pub(super) frames_refused: u64,
    /// New keys that found no room, and the frame that named them.
    pub(super) refused: Map<Name, u64>,
    /// When a proof was last lost for a reason: a hole, or a record that found no room.
    pub(super) doubted_at: Option<Instant>,
    /// When it was proven last, or began to follow.
    pub(super) settled_at: Instant,
    /// The same, before that moment.
    pub(super) settled_before: Instant,
    /// A walk has ended since the table was looked at as a whole; the first of them began at this time.
    pub(super) walk: Option<Instant>,
    /// Records since then.
    pub(super) work: usize,
    // As a master.
    pub(super) saying: Option<Saying>,
    pub(super) masterships: u64,
    /// When the newest of them began.
    pub(super) master_since: Instant,
    /// The mastership that the running dump began in.
    pub(super) dump_of: Option<u64>,
    /// What a dump did not name, and may still be there for some turns.
    pub(super) condemned: Vec<Name>,
    // As a member.
    /// Its last ADVERT.
    pub(super) beat: Option<Beat>,
    /// It has been proven, or said that it is not cold: it never is again.
    pub(super) warm: bool,
    pub(super) incarnation: u64,
    /// The incarnation under which it was master when it stalled: that one must be silent.
    pub(super) stalled: Option<u64>,
    /// When it last ran again after it had stood, as a master, for nearly as long as a stall takes, or longer.
    pub(super) stood_until: Option<Instant>,
    /// The last ADVERT that was handed to it: sender, incarnation, what it says.
    pub(super) handed: Option<(crate::wire::NodeId, u64, Beat)>,
    pub(super) rank: Option<super::roles::Rank>,
    pub(super) sent: u64,
    pub(super) events: usize,
    pub(super) turns: u64,
    pub(super) heed: super::heed::Heed,
    pub(super) duty: super::mastership::Duty,
    pub(super) merging: super::merge::Merging,
    /// The stream that it followed last, and where it stood when it left it, proven.
    pub(super) left: Option<super::merge::Left>,
}

impl Node {
    pub(super) fn new(config: &Config, engine: &Engine) -> Self {
        Node {
            incarnation: config.incarnation,
            config: Some(config.clone()),
            role: Some(engine.role()),
            ..Node::default()
        }
    }

    /// Frame `seq` named a new key, for which there was no room.
    pub(super) fn note_refused(&mut self, name: Name, seq: u64) {
        let highest = self.refused.entry(name).or_default();
        *highest = seq.max(*highest);
    }
}

impl Oracle {
    pub(super) fn look(&mut self, now: Instant, at: usize, engine: &Engine) {
        self.look_further(now, at, engine, None, None);
    }

    pub(super) fn look_except(&mut self, now: Instant, at: usize, engine: &Engine, except: Option<Name>) {
        self.look_further(now, at, engine, except, None);
    }

    /// Notes what the engine claims now, and judges what it claims otherwise than before. `except` is changing in this very
    /// moment; frames below `history_start` can no longer be had, by the word of the master that was just heard.
    pub(super) fn look_further(
        &mut self,
        now: Instant,
        at: usize,
        engine: &Engine,
        except: Option<Name>,
        history_start: Option<u64>,
    ) {
        if self.nodes[at].config.is_none() {
            return;
        }
        self.settle_dump(now, at, engine);
        self.notice_stall(now, at);
        let (role, following) = (engine.role(), engine.following().map(StreamId::from));
        if following != self.nodes[at].following {
            self.leave_stream(now, at, engine, except);
            if let Some(stream) = following {
                self.follow(now, at, stream, engine.frontier());
            }
        } else if following.is_some() && engine.frontier() != self.nodes[at].frontier {
            self.move_frontier(now, at, engine.frontier(), history_start);
        }
        if self.nodes[at].role != Some(role) {
            self.change_role(now, at, engine, role, except);
        }
    }

    /// A stream is no longer followed. What its last walks took is looked at while that is known.
    fn leave_stream(&mut self, now: Instant, at: usize, engine: &Engine, except: Option<Name>) {
        if self.nodes[at].walk.is_some() {
            self.compare_whole(now, at, engine, except);
        }
        self.note_holder(at);
        self.note_followed(at);
        let node = &mut self.nodes[at];
        node.left = node.following.filter(|_| node.proven).map(|stream| (stream, node.frontier));
        // What was not made good until now may have been noticed now: the report of it comes after the new stream.
        if node.doubted_at.is_some_and(|doubted| doubted >= node.settled_at) {
            node.doubted_at = Some(now);
        }
        node.taken.clear();
        node.parts.clear();
        node.refused.clear();
        (node.following, node.walk) = (None, None);
        (node.proven, node.was_proven) = (false, false);
    }

    fn follow(&mut self, now: Instant, at: usize, stream: StreamId, frontier: u64) {
        self.judge_followed(now, at, stream);
        self.judge_established(now, at, stream);
        self.note_following(at);
        let node = &mut self.nodes[at];
        node.shadow.begin_stream();
        (node.following, node.frontier, node.base) = (Some(stream), frontier, frontier);
        (node.settled_at, node.settled_before) = (now, now);
        match self.sent.streams.get(&stream) {
            Some(said) if frontier <= said.newest() => {}
            Some(said) => {
                let newest = said.newest();
                self.broken(
                    now,
                    "frontier",
                    format!("node {at} begins to follow {stream:?} at {frontier}; it ends at {newest}"),
                );
            }
            None => self.broken(now, "not-followed", format!("node {at} follows {stream:?}, which nobody sends")),
        }
    }

    /// The frontier passes what is held, and only that; or it leaps over what can no longer be had.
    fn move_frontier(&mut self, now: Instant, at: usize, to: u64, history_start: Option<u64>) {
        let node = &mut self.nodes[at];
        let (Some(stream), from) = (node.following, node.frontier) else { return };
        node.frontier = to;
        if to < from {
            return self.broken(now, "frontier", format!("node {at}: the frontier went back from {from} to {to}"));
        }
        let mut hole = false;
        for seq in from + 1..=to {
            if node.taken.remove(&seq).is_none() {
                if history_start.is_some_and(|start| seq < start) {
                    (node.base, node.doubted_at, hole) = (seq, Some(now), true);
                    continue;
                }
                let text = format!(
                    "node {at} claims to hold {stream:?} up to {to}; frame {seq} was never taken (it held up to {from}; history \
                     start heard: {history_start:?})"
                );
                return self.broken(now, "frontier", text);
            }
            // A walk that began before a hole says nothing.
            if let Some(since) = self.sent.walked(stream, seq, node.base) {
                let began = self.sent.left_at(stream, since).unwrap_or_default();
                node.walk = Some(node.walk.map_or(began, |walk| walk.min(began)));
            }
        }
        if hole {
            self.sightings.insert("hole");
        }
    }

    fn change_role(&mut self, now: Instant, at: usize, engine: &Engine, role: Role, except: Option<Name>) {
        let from = self.nodes[at].role.replace(role);
        if from == Some(Role::Backup) && matches!(role, Role::Promoting | Role::Master) {
            self.judge_takeover(now, at, engine);
            self.judge_succession(now, at, engine);
            self.judge_cold_takeover(now, at, engine);
        }
        self.note_role(now, at, role);
        self.note_merge_role(now, at, engine, from, role);
        if role == Role::Master {
            self.compare_whole(now, at, engine, except);
            let node = &mut self.nodes[at];
            node.shadow.begin_stream();
            node.masterships += 1;
            node.master_since = now;
            node.condemned.clear();
            let content = node.shadow.entries().collect();
            node.saying = Some(Saying { content, print: node.shadow.print(), ..Saying::default() });
        } else if from == Some(Role::Master) {
            let node = &mut self.nodes[at];
            node.saying = None;
            node.condemned.clear();
        }
    }

    /// What a completed dump did not name goes over some turns.
    fn settle_dump(&mut self, now: Instant, at: usize, engine: &Engine) {
        if self.nodes[at].condemned.is_empty() {
            return;
        }
        let mut condemned = core::mem::take(&mut self.nodes[at].condemned);
        condemned.retain(|name| {
            let gone = self.held(engine, *name, now).is_none();
            if gone {
                self.nodes[at].shadow.put(now, *name, None, 0);
                self.note_ended(at, *name);
                self.note_unsaid(at, *name);
                self.sightings.insert("reconcile");
            }
            !gone && self.nodes[at].shadow.value(*name).is_some()
        });
        self.nodes[at].condemned = condemned;
    }

    /// Sections whose time is over go at the master, which says so to the others; not before their time by a clock that is
    /// 5 % fast.
    pub(super) fn settle_expired(&mut self, now: Instant, at: usize, engine: &Engine) {
        if self.expiring.is_empty() || engine.role() != Role::Master {
            return;
        }
        let (expiring, shadow) = (&self.expiring, &self.nodes[at].shadow);
        let over = expiring.iter().filter(|((name, value), at)| **at <= now && shadow.value(*name) == Some(*value));
        let gone = over.map(|((name, _), _)| *name).filter(|name| self.held(engine, *name, now).is_none());
        for name in gone.collect::<Vec<_>>() {
            self.nodes[at].shadow.put(now, name, None, 0);
            self.note_unsaid(at, name);
            self.sightings.insert("section-expired");
        }
    }

    /// The stream under which a master sends from now on.
    pub(super) fn speak(&mut self, now: Instant, at: usize, stream: StreamId, start: u64) {
        let Some(saying) = &mut self.nodes[at].saying else { return };
        if saying.stream == Some(stream) {
            return;
        }
        saying.stream = Some(stream);
        saying.parts.clear();
        let begun = Stream::new(at, start, now, saying.print);
        if let Some(before) = self.sent.streams.insert(stream, begun) {
            let text = format!("node {at} begins {stream:?} at {start}; it had one like that from {}", before.start);
            self.broken(now, "term", text);
        }
    }

    pub(super) fn is_flow(&self, name: Name) -> bool {
        matches!(self.names.get(&name), Some(Label::Flow(_)))
    }
}
