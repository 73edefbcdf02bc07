//! What is claimed, and what vanishes: in sync means equal, and a follower loses what it holds only by its master's word.
//!
//! ```text
//!   follower claims in sync, holds everything up to n and nothing above
//!        shadow's print  ══ must be ══  print n of the stream       every time, at the cost of comparing two numbers
//!        engine.flows()  ══ must be ══  shadow                      at each new proof, and whenever there was work enough
//! ```

use super::prints::Name;
use super::sent::{Beat, StreamId};
use super::{Oracle, told};
use crate::engine::{Engine, Event, Role, SyncState};
use crate::time::{Duration, Instant};
use crate::wire::AdvertFlags;

/// A lost proof is reported within this time of its reason.
const REPORT_WITHIN: Duration = Duration::from_secs(1);

impl Oracle {
    /// A master that says that its digest is valid has said everything, and holds what it said.
    pub(super) fn judge_digest_sent(&mut self, now: Instant, at: usize, engine: &Engine, stream: StreamId, beat: Beat) {
        if !beat.flags.contains(AdvertFlags::DIGEST_VALID) {
            return;
        }
        if self.nodes[at].work >= self.nodes[at].shadow.len() {
            self.compare_whole(now, at, engine, None);
        }
        let node = &mut self.nodes[at];
        node.work += 1;
        let (held, Some(saying)) = (node.shadow.print(), &node.saying) else { return };
        let said = saying.print;
        if said != held && node.condemned.is_empty() {
            let (here, there) = (held.live, said.live);
            let text = format!(
                "node {at} says that its digest is valid at {} of {stream:?}; it holds {here} entries and has said {there}, and \
                 they are not the same",
                beat.stream_seq
            );
            self.broken(now, "digest-valid", text);
        }
        let newest = self.sent.streams.get(&stream).map(super::sent::Stream::newest);
        if newest != Some(beat.stream_seq) {
            let text = format!("node {at} says that it has sent {}; its last DATA was {newest:?}", beat.stream_seq);
            self.broken(now, "numbers", text);
        }
    }

    /// Whoever claims to be in sync is, whenever it can be told: when it holds everything up to its frontier and nothing
    /// above.
    pub(super) fn judge_claim(&mut self, now: Instant, at: usize, engine: &Engine) {
        let claims = engine.sync_state() == SyncState::InSync;
        let node = &mut self.nodes[at];
        let news = claims && !node.proven;
        node.proven = claims;
        if !claims || node.config.is_none() {
            return;
        }
        (node.was_proven, node.warm) = (true, true);
        let Some(stream) = node.following else {
            return self.broken(now, "in-sync", format!("node {at} claims to be in sync, and follows nobody"));
        };
        if news {
            self.note_equal(at);
            let node = &mut self.nodes[at];
            let before = if node.settled_at < now { node.settled_at } else { node.settled_before };
            (node.settled_at, node.settled_before) = (now, before);
            self.sightings.insert("proof");
            self.compare_whole(now, at, engine, None);
        }
        let node = &self.nodes[at];
        let frontier = node.frontier;
        if !node.taken.is_empty() {
            return;
        }
        let Some(expected) = self.sent.streams.get(&stream).and_then(|said| said.print(frontier)) else {
            let text = format!("node {at} claims to be in sync with {stream:?} at {frontier}, which was never sent");
            return self.broken(now, "in-sync", text);
        };
        if self.nodes[at].shadow.print() == expected {
            return;
        }
        self.compare_whole(now, at, engine, None);
        if self.nodes[at].shadow.print() != expected {
            let text = format!(
                "node {at} claims to be in sync with {stream:?} at {frontier}; it holds {} entries, the master had {} there{}",
                self.nodes[at].shadow.print().live,
                expected.live,
                self.first_difference(at, stream, frontier)
            );
            self.broken(now, "in-sync", text);
        }
    }

    /// Which entry differs, if the master has said nothing since.
    fn first_difference(&self, at: usize, stream: StreamId, frontier: u64) -> String {
        let said = self.sent.streams.get(&stream).filter(|said| said.newest() == frontier);
        let saying = said.and_then(|said| self.nodes[said.master].saying.as_ref());
        let Some(saying) = saying.filter(|saying| saying.stream == Some(stream)) else {
            return ", and they are not the same".into();
        };
        let shadow = &self.nodes[at].shadow;
        let missing = saying.content.iter().filter(|(name, value)| shadow.value(**name) != Some(**value));
        let surplus = shadow.entries().filter(|(name, _)| !saying.content.contains_key(name));
        let mut names: Vec<Name> = missing.map(|(name, _)| *name).chain(surplus.map(|(name, _)| name)).collect();
        names.sort_unstable();
        let Some(name) = names.first() else { return String::new() };
        let (here, there) = (shadow.value(*name), saying.content.get(name).copied());
        format!("; {} differ, as {}: {}, and {} there", names.len(), self.label(*name), told(here), told(there))
    }

    /// Holds an engine's whole table against its shadow. Whatever is missing must have gone for a reason; anything else that
    /// differs came from nowhere.
    pub(super) fn compare_whole(&mut self, now: Instant, at: usize, engine: &Engine, except: Option<Name>) {
        self.nodes[at].work = 0;
        let mut held = 0;
        for flow in engine.flows(now) {
            let (name, value) = (self.flow_name(&flow.key), super::Value::of_flow(&flow));
            held += u64::from(except != Some(name));
            if except != Some(name) && self.nodes[at].shadow.value(name) != Some(value) {
                self.out_of_nowhere(now, at, name, value);
            }
        }
        for section in engine.sections(now) {
            let name = self.section_name(section.key.table, &section.key.key);
            let value = super::Value::of_section(&section.value);
            held += u64::from(except != Some(name));
            if except != Some(name) && self.nodes[at].shadow.value(name) != Some(value) {
                self.out_of_nowhere(now, at, name, value);
            }
        }
        let shadow = &self.nodes[at].shadow;
        let excepted = except.is_some_and(|name| shadow.value(name).is_some());
        if shadow.print().live != held + u64::from(excepted) {
            let mut missing: Vec<Name> = shadow.entries().map(|(name, _)| name).collect();
            missing.retain(|name| Some(*name) != except && self.held(engine, *name, now).is_none());
            missing.sort_unstable();
            missing.into_iter().for_each(|name| self.removed(now, at, name));
        }
        self.nodes[at].walk = None;
    }

    fn out_of_nowhere(&mut self, now: Instant, at: usize, name: Name, value: super::Value) {
        let (label, expected) = (self.label(name), told(self.nodes[at].shadow.value(name)));
        let text = format!("node {at} holds {} of {label}, by nobody's word; it must be {expected}", told(Some(value)));
        self.broken(now, "nobody-said", text);
    }

    /// An entry is gone without a delete of it: by a walk that did not name it, because the master did not hold it.
    pub(super) fn removed(&mut self, now: Instant, at: usize, name: Name) {
        let node = &mut self.nodes[at];
        let config = node.config.as_ref();
        let by_owner = node.condemned.contains(&name) || config.is_some_and(|config| !config.source_expires);
        let (role, walk, following) = (node.role, node.walk, node.following);
        let word = node.shadow.value(name);
        // The walk named it, there was no room, and an older frame brought it after all: nobody has noted that it was named.
        // A word in doubt may not have been heard: its frame had been received before, without it, or not even now. Where no
        // word found no room, or a later one was heard for sure, no walk may take it.
        let doubtful = node.shadow.word(name).is_some_and(|word| word.uncertain);
        let refused = node.refused.get(&name).is_some_and(|seq| doubtful || *seq > node.shadow.seq(name));
        node.shadow.put(now, name, None, 0);
        node.unsunk.insert(name, ());
        if role == Some(Role::Master) && by_owner {
            self.note_unsaid(at, name);
            return;
        }
        let text = match (following.filter(|_| role != Some(Role::Master)), walk) {
            (Some(stream), Some(began)) => {
                let living = self.living_since(stream, name).filter(|since| *since < began && !refused);
                let Some(living) = living else {
                    self.judge_walk_removal(now, at, name);
                    self.sightings.insert("walk-removal");
                    return;
                };
                format!(
                    "a walk that began at {began:?} took it; at the master of {stream:?} it has lived since {living:?}"
                )
            }
            (Some(stream), None) => format!("it follows {stream:?}, where neither a delete nor a walk said so"),
            (None, _) => "it follows nobody, and its source did not say so".into(),
        };
        let (label, was) = (self.label(name), told(word));
        self.broken(now, "live-flow", format!("node {at} has lost {label}, which was {was}: {text}"));
    }

    /// Since when an entry lives at the master of a stream, as long as that mastership lasts.
    fn living_since(&self, stream: StreamId, name: Name) -> Option<Instant> {
        let master = &self.nodes[self.sent.streams.get(&stream)?.master];
        master.saying.as_ref().filter(|saying| saying.stream == Some(stream))?;
        Some(master.shadow.word(name).filter(|word| word.value.is_some())?.since)
    }

    /// What has diverged was missed or refused shortly before; or since the last proof, for so long as it is not made good.
    pub(super) fn judge_event(&mut self, now: Instant, at: usize, event: &Event) {
        let Event::Diverged { buckets } = event else { return };
        let node = &self.nodes[at];
        // A walk that ends may report what it has found, and be the proof that it is made good, in one turn.
        let settled_at = if node.settled_at < now { node.settled_at } else { node.settled_before };
        let is_reason = |doubted| now.since(doubted) <= REPORT_WITHIN || doubted >= settled_at;
        if !node.doubted_at.is_some_and(is_reason) {
            let text = format!("node {at} reports that {buckets} buckets have diverged; nothing was missed or refused");
            self.broken(now, "diverged", text);
        }
    }
}
