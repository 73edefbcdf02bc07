//! What an engine tells its owner has happened. One typed stream; the words are those of docs/protocol.md.

use crate::time::Duration;
use crate::wire::{FrameError, NodeId};
use std::net::IpAddr;

/// The role of a node in a group, as an operator names it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// Just started.
    Init,
    /// Follows a master, or waits for one.
    Backup,
    /// On the way from backup to master: writes its table to the sink first.
    Promoting,
    /// Owns the addresses and the stream.
    Master,
    /// Cannot work: its sync links are gone.
    Fault,
    /// Takes part in nothing, by its owner's wish.
    None,
}

impl Role {
    /// The word for logs, JSON and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Init => "init",
            Role::Backup => "backup",
            Role::Promoting => "promoting",
            Role::Master => "master",
            Role::Fault => "fault",
            Role::None => "none",
        }
    }
}

/// How far a node's table is from its master's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SyncState {
    /// Not yet proven equal to anything since it started.
    Cold,
    /// Follows a stream and is being filled or repaired.
    Syncing,
    /// Has been far behind its master for too long.
    Lagging,
    /// Was proven equal, and is known to differ now; what differs is being repaired.
    Diverged,
    /// Proven equal to the master's table.
    InSync,
    /// Is the master: its table is the one to equal.
    Source,
    /// Nobody can know: the classic profile proves nothing.
    Unknown,
}

impl SyncState {
    /// The word for logs, JSON and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            SyncState::Cold => "cold",
            SyncState::Syncing => "syncing",
            SyncState::Lagging => "lagging",
            SyncState::Diverged => "diverged",
            SyncState::InSync => "in_sync",
            SyncState::Source => "source",
            SyncState::Unknown => "unknown",
        }
    }
}

/// A part of the table that can be full.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Store {
    /// Slots of flows.
    Flows,
    /// Blocks for addresses of IPv6 and attributes.
    Annex,
    /// Entries of sections, or their bytes.
    Sections,
}

/// What ended a takeover before its end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ElectionFailure {
    /// A master that this node has to follow was heard first.
    AnotherIsMaster,
    /// The last sync link went down.
    LinkDown,
    /// The owner does not want it any more.
    Withdrawn,
}

/// Something that an operator or a hook wants to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// This node's role is now another.
    RoleChanged {
        /// Before.
        from: Role,
        /// Now.
        to: Role,
        /// Newest term that this node knows.
        term: u64,
    },
    /// A master is being followed.
    NewMaster {
        /// Who.
        node: NodeId,
        /// Of which term.
        term: u64,
    },
    /// The followed master has gone silent, or has left.
    MasterLost {
        /// Who.
        node: NodeId,
    },
    /// No master is there; this node's timer runs.
    ElectionStarted,
    /// This node was about to be master ([`Role::Promoting`]), and is not going to be.
    ElectionFailed {
        /// Why.
        cause: ElectionFailure,
    },
    /// Another node says that it is master; the lower one steps down. One with a higher term has taken the role from
    /// this one, as who preempts does; any other is one too many.
    DuplicateMaster {
        /// The other one.
        node: NodeId,
        /// Its term.
        term: u64,
        /// This node's term.
        own_term: u64,
    },
    /// Frames with this node's own id arrive from somebody else.
    DuplicateNode {
        /// The incarnation that they carry.
        incarnation: u64,
    },
    /// A peer's incarnation was proven in both directions.
    PeerUp {
        /// Who.
        node: NodeId,
        /// Its incarnation.
        incarnation: u64,
        /// Its name.
        name: String,
    },
    /// A master is heard, but does not hear us.
    PeerOneWay {
        /// Who.
        node: NodeId,
    },
    /// A peer has gone silent.
    PeerDown {
        /// Who.
        node: NodeId,
    },
    /// A peer has said that it leaves.
    PeerLeft {
        /// Who.
        node: NodeId,
    },
    /// The sync links are gone.
    LinkDown,
    /// The sync links are back.
    LinkUp,
    /// This node is being filled or repaired from a master.
    SyncStarted {
        /// From whom.
        from: NodeId,
        /// Buckets that are to be walked, of 4096.
        buckets: u32,
    },
    /// This node's table is proven equal to its master's.
    InSync {
        /// The digest of both.
        digest: u64,
        /// Flows in both.
        entries: u64,
        /// Time from the start of the filling.
        took: Duration,
    },
    /// How far it is: at most once per second, and each time at least ten per cent further.
    SyncProgress {
        /// Buckets that are walked or proven, in per cent.
        percent: u8,
        /// Buckets that are still to be compared or walked, of 4096.
        buckets_left: u32,
        /// Time that the rest will take; `None` while that is not known.
        eta: Option<Duration>,
    },
    /// A proven table is known to differ from its master's; or it differs still after a whole walk.
    Diverged {
        /// Buckets that are known to differ, of 4096.
        buckets: u32,
    },
    /// A follower of this master stands still: nobody waits for it any more until it has caught up.
    Lagging {
        /// Who.
        node: NodeId,
    },
    /// A table that had diverged is proven again.
    Repaired {
        /// Buckets that were found to differ.
        buckets: u32,
        /// Flows that were removed because the master does not have them.
        removed: u64,
        /// Time since the proof was lost.
        took: Duration,
    },
    /// This master gives its role to another node: from now on it does without the addresses.
    HandoverStarted {
        /// To whom.
        heir: NodeId,
    },
    /// The heir is master.
    HandoverDone {
        /// Who.
        heir: NodeId,
    },
    /// There was no planned switch: the heir did not come in time, or the master has not granted this node's wish.
    HandoverFailed {
        /// Who was to be the next master.
        heir: NodeId,
    },
    /// This node is to be without the role from now on, or may have it again.
    Draining {
        /// Which of both.
        draining: bool,
    },
    /// The first phase of a takeover was cut off by its deadline.
    CommitDeadlinePassed,
    /// What another node held and this one did not is in the table now.
    Merged {
        /// Who held it.
        from: NodeId,
        /// Entries that were absent here, or older.
        adopted: u64,
        /// Time since it was asked for.
        took: Duration,
    },
    /// A merge did not come to its end in time: what only one of the two nodes held may be lost.
    MergeGivenUp {
        /// With whom.
        with: NodeId,
        /// Entries that came before.
        adopted: u64,
    },
    /// A part of the table is full; new keys, and values that need more of it, are refused and counted.
    TableFull {
        /// Which part.
        store: Store,
        /// Flows, blocks of the annex, or entries of sections that fit (of the last, their bytes may be full before that).
        capacity: u32,
    },
    /// Submissions of the source were not acknowledged by as many followers as the group's `ack` asks for, in time or
    /// before the mastership ended. At most one of these a second.
    DurabilityFailed {
        /// How many since the last report.
        submissions: u64,
    },
    /// The source lost changes; a dump is compared with the table.
    SourceOverrun,
    /// The loop did not run for longer than others wait before they take over.
    StallDetected {
        /// How long it did not run.
        stalled: Duration,
    },
    /// Frames were refused because their seal does not fit, because they have none, or because there is no secret for it here.
    /// At most one of these every 10 s.
    AuthFailed {
        /// Who sent the last of them, by its own word, which nothing proves.
        node: NodeId,
        /// From where it came.
        source: IpAddr,
        /// What was wrong with it: [`Forged`](FrameError::Forged), [`Unsealed`](FrameError::Unsealed) or
        /// [`Sealed`](FrameError::Sealed).
        reason: FrameError,
        /// How many since the last report.
        count: u64,
    },
    /// What this node sends is sealed with another secret from now on, or is not sealed any more.
    SealChanged {
        /// The secret's number; `None`: frames leave in the clear.
        secret: Option<u8>,
    },
    /// A peer speaks another version of the protocol.
    VersionMismatch {
        /// Who, as far as the header says.
        node: NodeId,
        /// Its version.
        version: u8,
    },
}

impl Event {
    /// The event's name as docs/protocol.md lists it.
    pub const fn name(&self) -> &'static str {
        match self {
            Event::RoleChanged { .. } => "RoleChanged",
            Event::NewMaster { .. } => "NewMaster",
            Event::MasterLost { .. } => "MasterLost",
            Event::ElectionStarted => "ElectionStarted",
            Event::ElectionFailed { .. } => "ElectionFailed",
            Event::DuplicateMaster { .. } => "DuplicateMaster",
            Event::DuplicateNode { .. } => "DuplicateNode",
            Event::PeerUp { .. } => "PeerUp",
            Event::PeerOneWay { .. } => "PeerOneWay",
            Event::PeerDown { .. } => "PeerDown",
            Event::PeerLeft { .. } => "PeerLeft",
            Event::LinkDown => "LinkDown",
            Event::LinkUp => "LinkUp",
            Event::SyncStarted { .. } => "SyncStarted",
            Event::InSync { .. } => "InSync",
            Event::SyncProgress { .. } => "SyncProgress",
            Event::Diverged { .. } => "Diverged",
            Event::Lagging { .. } => "Lagging",
            Event::Repaired { .. } => "Repaired",
            Event::HandoverStarted { .. } => "HandoverStarted",
            Event::HandoverDone { .. } => "HandoverDone",
            Event::HandoverFailed { .. } => "HandoverFailed",
            Event::Draining { .. } => "Draining",
            Event::CommitDeadlinePassed => "CommitDeadlinePassed",
            Event::Merged { .. } => "Merged",
            Event::MergeGivenUp { .. } => "MergeGivenUp",
            Event::TableFull { .. } => "TableFull",
            Event::DurabilityFailed { .. } => "DurabilityFailed",
            Event::SourceOverrun => "SourceOverrun",
            Event::StallDetected { .. } => "StallDetected",
            Event::AuthFailed { .. } => "AuthFailed",
            Event::SealChanged { .. } => "SealChanged",
            Event::VersionMismatch { .. } => "VersionMismatch",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::SyncState;

    #[test]
    fn the_words_of_a_sync_state_are_those_of_logs_json_and_metrics() {
        use SyncState::{Cold, Diverged, InSync, Lagging, Source, Syncing, Unknown};
        let names = [Cold, Syncing, Lagging, Diverged, InSync, Source, Unknown].map(SyncState::name);
        assert_eq!(names, ["cold", "syncing", "lagging", "diverged", "in_sync", "source", "unknown"]);
    }
}
