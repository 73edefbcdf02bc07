//! Why the role moves: what `--cause` can be, and the events that each of them is made of.
//!
//! A cause is one event or two: something breaks, and where the machine lives on, it is mended again. Each event has figures of
//! its own. What comes back between two rounds (a machine from nothing, a process on its old kernel) is no event: nobody but
//! the two nodes should notice it.
//!
//! ```text
//!   node-death    ─ node-death ─┐ a new machine joins          preempt    ─ node-death ─── return ─
//!   stop          ─ stop ─── continue ─┐ in sync again          sync-link  ─ sync-down ─── sync-up ─
//!   daemon-kill   ─ daemon-kill ─── restart ─                    one-way    ─ one-way ─── both-ways ─
//!   data-link     ─ data-down ─── data-up ─
//! ```

use serde::Serialize;

/// What makes the role move, again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// SIGKILL, and all cables cut in the same instant; a new machine with an empty kernel takes its place.
    #[default]
    NodeDeath,
    /// SIGKILL to the daemon alone: its kernel still holds the addresses, and answers for them. After --stop-for it starts anew.
    DaemonKill,
    /// SIGSTOP, and SIGCONT after --stop-for.
    Stop,
    /// The master's sync link is unplugged for --stop-for: two masters, then one again.
    SyncLink,
    /// The link to the clients of the master, which tracks it, is unplugged for --stop-for.
    DataLink,
    /// For --stop-for the backup does not hear the master, but the master hears the backup.
    OneWay,
    /// SIGTERM.
    Graceful,
    /// The master is asked to hand over (POST /v1/switchover).
    Switchover,
    /// The node of higher priority dies, comes back from nothing, and takes the role back.
    Preempt,
    /// As preempt, and its sync link is cut at random points of its return.
    RebootLoop,
}

/// One thing that happens to the pair, with figures of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// SIGKILL, and all cables cut.
    #[default]
    NodeDeath,
    /// SIGKILL to the daemon.
    DaemonKill,
    /// The daemon that was killed starts anew, on its old kernel.
    Restart,
    /// SIGSTOP to the daemon.
    Stop,
    /// SIGCONT to the one that was stopped.
    Continue,
    /// The master's sync link is unplugged.
    SyncDown,
    /// It is plugged in again.
    SyncUp,
    /// The master's link to the clients is unplugged.
    DataDown,
    /// It is plugged in again.
    DataUp,
    /// What the master says does not reach the backup any more.
    OneWay,
    /// It does again.
    BothWays,
    /// SIGTERM to the daemon.
    Graceful,
    /// A planned switch.
    Switchover,
    /// The node of higher priority is back from nothing, and takes the role back.
    Return,
}

impl Cause {
    /// What happens in each round, in this order.
    pub(super) fn events(self) -> &'static [Event] {
        match self {
            Cause::NodeDeath => &[Event::NodeDeath],
            Cause::DaemonKill => &[Event::DaemonKill, Event::Restart],
            Cause::Stop => &[Event::Stop, Event::Continue],
            Cause::SyncLink => &[Event::SyncDown, Event::SyncUp],
            Cause::OneWay => &[Event::OneWay, Event::BothWays],
            Cause::DataLink => &[Event::DataDown, Event::DataUp],
            Cause::Graceful => &[Event::Graceful],
            Cause::Switchover => &[Event::Switchover],
            Cause::Preempt | Cause::RebootLoop => &[Event::NodeDeath, Event::Return],
        }
    }

    /// Whether the nodes are configured to watch their link to the clients.
    pub(super) fn tracks(self) -> bool {
        self == Cause::DataLink
    }

    /// Whether the nodes are configured to preempt.
    pub(super) fn preempts(self) -> bool {
        matches!(self, Cause::Preempt | Cause::RebootLoop)
    }
}

impl Event {
    /// Whether the role moves, so that somebody announces the addresses.
    pub(super) fn moves_the_role(self) -> bool {
        !self.mends()
    }

    /// Whether it ends what another event began.
    pub(super) fn mends(self) -> bool {
        matches!(self, Event::Restart | Event::Continue | Event::SyncUp | Event::DataUp | Event::BothWays)
    }

    /// Whether a master and a backup in sync are there just before it.
    pub(super) fn finds_a_pair(self) -> bool {
        !self.mends() && self != Event::Return
    }

    /// Whether the node that it happens to goes on talking, so that it could claim a role that it has lost.
    pub(super) fn leaves_it_talking(self) -> bool {
        !matches!(self, Event::NodeDeath | Event::DaemonKill | Event::Restart | Event::Return)
    }

    /// What happens, for people: after a node's name.
    pub(super) fn in_words(self) -> &'static str {
        match self {
            Event::NodeDeath => "dies: SIGKILL, and all its cables cut",
            Event::DaemonKill => "loses its daemon to SIGKILL; its kernel still holds the addresses",
            Event::Restart => "has a daemon again, on its old kernel",
            Event::Stop => "is stopped: SIGSTOP",
            Event::Continue => "goes on: SIGCONT",
            Event::SyncDown => "loses its sync link",
            Event::SyncUp => "has its sync link back",
            Event::DataDown => "loses its link to the clients",
            Event::DataUp => "has its link to the clients back",
            Event::OneWay => "is not heard any more, and hears",
            Event::BothWays => "is heard again",
            Event::Graceful => "is ended: SIGTERM",
            Event::Switchover => "is asked to hand over",
            Event::Return => "is back, its kernel empty, and shall have the role again",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn every_round_begins_by_moving_the_role_and_what_is_broken_for_a_time_is_mended() {
        for cause in Cause::value_variants() {
            let events = cause.events();
            assert!(events[0].moves_the_role() && !events[0].mends(), "{cause:?}");
            assert!(events.len() <= 2, "{cause:?}");
        }
        assert_eq!(Cause::Stop.events(), [Event::Stop, Event::Continue]);
        assert_eq!(Cause::Preempt.events(), [Event::NodeDeath, Event::Return]);
    }

    #[test]
    fn a_cause_is_called_the_same_in_json_and_on_the_command_line() {
        for cause in Cause::value_variants() {
            let typed = cause.to_possible_value().unwrap();
            assert_eq!(serde_json::to_value(cause).unwrap(), typed.get_name());
        }
    }
}
