//! The last things that happened in a group, for `status`: what the engine tells and what the driver itself sees. Each
//! goes to the log as well, in the same words.

use crate::daemon::events::{EventMessage, Events};
use crate::engine::{ElectionFailure, Event, Role, Store};
use crate::time::Instant;
use std::collections::VecDeque;

/// Most events that are kept.
pub const JOURNAL_MAX: usize = 32;

/// One event as it is shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// When.
    pub at: Instant,
    /// The event's name as docs/protocol.md lists it, or one of the driver's own.
    pub name: &'static str,
    /// What happened, in a sentence.
    pub text: String,
}

/// How loudly the log says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Weight {
    /// The course of things.
    Notice,
    /// An operator should look.
    Warning,
    /// Something does not work.
    Failure,
}

/// The last [`JOURNAL_MAX`] events of one group.
#[derive(Debug)]
pub struct Journal {
    sync_id: u8,
    entries: VecDeque<Entry>,
    /// Events since the start.
    count: u64,
    events: Option<Events>,
}

impl Journal {
    /// An empty one.
    pub fn new(sync_id: u8) -> Self {
        Journal { sync_id, entries: VecDeque::with_capacity(JOURNAL_MAX), count: 0, events: None }
    }

    /// One whose events others hear, too.
    pub fn published(sync_id: u8, events: Events) -> Self {
        Journal { events: Some(events), ..Self::new(sync_id) }
    }

    /// Events since the start.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The oldest first.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Notes and logs an event of the engine.
    pub fn event(&mut self, now: Instant, event: &Event) {
        self.note(now, weight(event), event.name(), describe(event));
    }

    /// Notes and logs something that the driver saw.
    pub fn note(&mut self, at: Instant, weight: Weight, name: &'static str, text: String) {
        let group = self.sync_id;
        match weight {
            Weight::Notice => tracing::info!(group, event = name, "{text}"),
            Weight::Warning => tracing::warn!(group, event = name, "{text}"),
            Weight::Failure => tracing::error!(group, event = name, "{text}"),
        }
        if self.entries.len() == JOURNAL_MAX {
            self.entries.pop_front();
        }
        self.count += 1;
        if let Some(events) = &self.events {
            events.publish(EventMessage::now(Some(group), self.count, name, text.clone()));
        }
        self.entries.push_back(Entry { at, name, text });
    }
}

fn weight(event: &Event) -> Weight {
    match event {
        Event::RoleChanged { to: Role::Fault, .. } | Event::LinkDown | Event::TableFull { .. } => Weight::Failure,
        // The other has taken the role in good order, and this node hands it over.
        Event::DuplicateMaster { term, own_term, .. } if term > own_term => Weight::Notice,
        Event::DuplicateMaster { .. }
        | Event::DuplicateNode { .. }
        | Event::PeerOneWay { .. }
        | Event::PeerDown { .. }
        | Event::MasterLost { .. }
        | Event::Diverged { .. }
        | Event::Lagging { .. }
        | Event::ElectionFailed { .. }
        | Event::CommitDeadlinePassed
        | Event::HandoverFailed { .. }
        | Event::MergeGivenUp { .. }
        | Event::DurabilityFailed { .. }
        | Event::SourceOverrun
        | Event::StallDetected { .. }
        | Event::AuthFailed { .. }
        | Event::SealChanged { secret: None }
        | Event::VersionMismatch { .. } => Weight::Warning,
        Event::RoleChanged { .. }
        | Event::NewMaster { .. }
        | Event::ElectionStarted
        | Event::PeerUp { .. }
        | Event::PeerLeft { .. }
        | Event::LinkUp
        | Event::HandoverStarted { .. }
        | Event::HandoverDone { .. }
        | Event::Draining { .. }
        | Event::SealChanged { .. }
        | Event::SyncStarted { .. }
        | Event::SyncProgress { .. }
        | Event::Repaired { .. }
        | Event::Merged { .. }
        | Event::InSync { .. } => Weight::Notice,
    }
}

/// An event in a sentence, with the words of product and protocol.
pub fn describe(event: &Event) -> String {
    match event {
        Event::RoleChanged { from, to, term } => format!("role: {} to {}, term {term}", from.name(), to.name()),
        Event::NewMaster { node, term } => format!("node {} is master, term {term}", node.0),
        Event::MasterLost { node } => format!("master {} is silent or has left", node.0),
        Event::ElectionStarted => "no master is heard; the election runs".into(),
        Event::ElectionFailed { cause: ElectionFailure::AnotherIsMaster } => {
            "this node was about to be master; another one is".into()
        }
        Event::ElectionFailed { cause: ElectionFailure::LinkDown } => {
            "this node was about to be master; its last sync link went down".into()
        }
        Event::ElectionFailed { cause: ElectionFailure::Withdrawn } => {
            "this node was about to be master; its owner does not want it any more".into()
        }
        Event::DuplicateMaster { node, term, own_term } => {
            format!("node {} is master too, term {term}; ours is {own_term}", node.0)
        }
        Event::DuplicateNode { incarnation } => {
            format!("another node uses this node's id (incarnation {incarnation:016x}); give one of them another")
        }
        Event::PeerUp { node, name, .. } => format!("peer {} ({name}) is up, both directions proven", node.0),
        Event::PeerOneWay { node } => format!("node {} is heard but does not hear us", node.0),
        Event::PeerDown { node } => format!("peer {} is silent", node.0),
        Event::PeerLeft { node } => format!("peer {} has left", node.0),
        Event::LinkDown => "all sync links are down".into(),
        Event::LinkUp => "a sync link is up".into(),
        Event::SyncStarted { from, buckets } => format!("filling {buckets} of 4096 buckets from node {}", from.0),
        Event::InSync { digest, entries, took } => {
            format!("in sync: {entries} flows, digest {digest:016x}, after {} ms", took.as_millis())
        }
        Event::Lagging { node } => format!("node {} does not keep up; nobody waits for it until it has", node.0),
        Event::SyncProgress { percent, buckets_left, eta } => {
            let eta = eta.map_or(String::new(), |eta| format!(", about {} s", eta.as_millis().div_ceil(1000)));
            format!("{percent} % compared or filled, {buckets_left} of 4096 buckets left{eta}")
        }
        Event::Diverged { buckets } => format!("{buckets} of 4096 buckets differ from the master's; they are repaired"),
        Event::Repaired { buckets, removed, took } => {
            format!("repaired: {buckets} buckets differed, {removed} flows removed, after {} ms", took.as_millis())
        }
        Event::HandoverStarted { heir } => format!("the role goes to node {}; addresses are withdrawn", heir.0),
        Event::HandoverDone { heir } => format!("node {} has taken the role over", heir.0),
        Event::HandoverFailed { heir } => format!("node {} has not become master in time; all stays as it was", heir.0),
        Event::Draining { draining: true } => "draining: somebody else is to be master".into(),
        Event::Draining { draining: false } => "draining no more: this node may be master".into(),
        Event::CommitDeadlinePassed => "the takeover went on before the whole table was written".into(),
        Event::Merged { from, adopted, took } => {
            format!("{adopted} flows that only node {} had are adopted, after {} ms", from.0, took.as_millis())
        }
        Event::MergeGivenUp { with, adopted } => format!(
            "the merge with node {} did not end in time, {adopted} flows are adopted; what only one of the two had may be lost",
            with.0
        ),
        Event::TableFull { store: Store::Flows, capacity } => {
            format!("the table is full at {capacity} flows; new ones are refused")
        }
        Event::TableFull { store: Store::Annex, capacity } => {
            format!("the annex is full at {capacity} blocks; IPv6 flows and attributes that need more are refused")
        }
        Event::TableFull { store: Store::Sections, capacity } => {
            format!("the sections are full (at most {capacity} entries); new ones, and longer values, are refused")
        }
        Event::SourceOverrun => "the kernel dropped changes; a dump is compared with the table".into(),
        Event::StallDetected { stalled } => {
            format!("this process did not run for {} ms; it starts anew as backup", stalled.as_millis())
        }
        Event::DurabilityFailed { submissions } => format!(
            "{submissions} changes were not acknowledged by as many peers as ack asks for; they are replicated all the same"
        ),
        Event::AuthFailed { node, source, reason, count } => {
            format!("{count} frames refused; the last from {source}, which says that it is node {}: {reason}", node.0)
        }
        Event::SealChanged { secret: Some(secret) } => format!("frames are sealed with secret {secret} now"),
        Event::SealChanged { secret: None } => "frames leave in the clear now: not every peer can open them".into(),
        Event::VersionMismatch { version: 0, .. } => {
            "somebody speaks the classic profile, this group another version of the protocol".into()
        }
        Event::VersionMismatch { node, version } => {
            format!("node {} speaks version {version} of the protocol, this group another", node.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::NodeId;

    #[test]
    fn a_master_of_a_higher_term_is_the_course_of_things_and_any_other_is_one_too_many() {
        let heard = |term| weight(&Event::DuplicateMaster { node: NodeId(2), term, own_term: 4 });
        assert_eq!([3, 4, 5].map(heard), [Weight::Warning, Weight::Warning, Weight::Notice]);
    }

    #[test]
    fn the_journal_keeps_the_last_32() {
        let mut journal = Journal::new(51);
        for number in 0..40 {
            journal.event(Instant::from_nanos(number), &Event::NewMaster { node: NodeId(2), term: number });
        }
        let texts: Vec<&str> = journal.entries().map(|entry| entry.text.as_str()).collect();
        assert_eq!(texts.len(), 32);
        assert_eq!(texts[0], "node 2 is master, term 8");
        assert_eq!(texts[31], "node 2 is master, term 39");
    }
}
