//! Who is master: the role machine. It knows roles, timers and requests, and nothing of frames or tables.
//!
//! Timers are those of RFC 9568 (its Active is our Master): `skew = (256 − priority) × interval / 256`,
//! `master-down = 3 × interval + skew`, with the *master's* interval. A takeover has two phases: a node is Promoting while
//! its table is written to the sink, and Master only afterwards, so that the addresses never go live before the state.
//!
//! ```text
//!            LinkUp              TimerExpired, Preempt, Inherit, Request(Master) Committed, TimerExpired
//!   Init ───────────▶ Backup ─────────────────────────────────────▶ Promoting ─────────────────────▶ Master
//!    ▲                ▲ │  ▲────────────── MasterHeard ────────────────┘                               │
//!    │  LinkDown      │ │  ▲──────────── Outranked, Stalled, Request(Backup) ──────────────────────────┘
//!  Fault ◀────────────┼─┘
//!    └────── LinkUp ──┘            Request(None) leads from everywhere to None, and every other request out of it
//! ```

use super::RoleRequest;
use super::config::RoleMode;
use super::event::Role;
use crate::time::{Duration, Instant};

/// `(256 − priority) × interval / 256` (RFC 9568 section 6.1).
pub fn skew(priority: u8, interval: Duration) -> Duration {
    interval * (256 - u32::from(priority)) / 256
}

/// `3 × interval + skew` (RFC 9568 section 6.1).
pub fn master_down(priority: u8, interval: Duration) -> Duration {
    interval * 3 + skew(priority, interval)
}

/// The role, with the timers that only this role has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Just built; no link has come up yet.
    Init,
    /// Waits until `down_at` for a sign of life of a master; `None` waits for a request only.
    Backup {
        /// When the master counts as dead.
        down_at: Option<Instant>,
    },
    /// Writes its table to the sink; Master when that is done, or at `give_up_at` all the same.
    Promoting {
        /// When availability wins over completeness.
        give_up_at: Instant,
        /// The term of the living master that is being replaced on purpose; 0 if the master is dead.
        against: u64,
    },
    /// Owns the stream and the addresses.
    Master,
    /// No link.
    Fault,
    /// Out of the game by request.
    None,
}

impl State {
    /// The role without its timers.
    pub fn role(self) -> Role {
        match self {
            State::Init => Role::Init,
            State::Backup { .. } => Role::Backup,
            State::Promoting { .. } => Role::Promoting,
            State::Master => Role::Master,
            State::Fault => Role::Fault,
            State::None => Role::None,
        }
    }
}

/// What can happen to a role.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input {
    /// A sync link is usable.
    LinkUp,
    /// None is.
    LinkDown,
    /// A sign of life of the established master of `term`, which advertises every `interval`.
    MasterHeard {
        /// Its term.
        term: u64,
        /// Its interval.
        interval: Duration,
    },
    /// The master has said goodbye, or its node has started anew: only the skew is waited.
    MasterLeft {
        /// Its interval.
        interval: Duration,
    },
    /// Nobody may take over for this long, whatever the timer says.
    Hold {
        /// How long.
        wait: Duration,
    },
    /// The state's own timer has run out.
    TimerExpired,
    /// This node is proven, and of higher priority than the master of `term`.
    Preempt {
        /// That master's term.
        term: u64,
    },
    /// The living master of `term` has named this node its heir, and this node holds all that it has sent.
    Inherit {
        /// That master's term.
        term: u64,
    },
    /// The sink holds the whole table.
    Committed,
    /// Another master stands above this one.
    Outranked {
        /// Its interval.
        interval: Duration,
    },
    /// The loop did not run for longer than the others wait.
    Stalled,
    /// The owner's wish.
    Request(RoleRequest),
}

/// The role machine of one node in one group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Election {
    mode: RoleMode,
    priority: u8,
    interval: Duration,
    commit_deadline: Duration,
    startup_delay: Duration,
    /// Before this the own timer does not run out.
    held_until: Instant,
    state: State,
}

impl Election {
    /// A machine in state Init.
    pub fn new(mode: RoleMode, priority: u8, interval: Duration, commit_deadline: Duration) -> Self {
        let (startup_delay, held_until) = (Duration::ZERO, Instant::ZERO);
        Election { mode, priority, interval, commit_deadline, startup_delay, held_until, state: State::Init }
    }

    /// One whose own timer does not run out for so long after a link has come up [5.0.7].
    pub fn with_startup_delay(self, startup_delay: Duration) -> Self {
        Election { startup_delay, ..self }
    }

    /// Whether this node has come up so lately that it takes no role by itself.
    pub fn is_held(&self, now: Instant) -> bool {
        now < self.held_until
    }

    /// The state now.
    pub fn state(&self) -> State {
        self.state
    }

    /// The priority now.
    pub fn priority(&self) -> u8 {
        self.priority
    }

    /// Another priority; the next timer uses it.
    pub fn set_priority(&mut self, priority: u8) {
        self.priority = priority;
    }

    /// Another interval and commit deadline; timers that run are not touched, the next ones use them.
    pub fn set_timers(&mut self, interval: Duration, commit_deadline: Duration) {
        (self.interval, self.commit_deadline) = (interval, commit_deadline);
    }

    /// Another time to hold back after a link has come up; what runs is not touched.
    pub fn set_startup_delay(&mut self, startup_delay: Duration) {
        self.startup_delay = startup_delay;
    }

    /// When [`Input::TimerExpired`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Backup { down_at } => down_at,
            State::Promoting { give_up_at, .. } => Some(give_up_at),
            State::Init | State::Master | State::Fault | State::None => None,
        }
    }

    /// Moves by one input and says from which role to which, if the role changed.
    pub fn handle(&mut self, now: Instant, input: Input) -> Option<(Role, Role)> {
        let before = self.state;
        if let (Input::LinkUp, State::Init | State::Fault) = (input, before) {
            self.held_until = now + self.startup_delay;
        }
        self.state = self.next(now, input);
        let (from, to) = (before.role(), self.state.role());
        (from != to).then_some((from, to))
    }

    /// The transition table, every state with every input.
    fn next(&self, now: Instant, input: Input) -> State {
        use Input::*;
        use RoleRequest as Wish;
        let state = self.state;
        match (state, input) {
            (_, Request(Wish::None)) => State::None,
            (State::None, Request(Wish::Backup | Wish::Master)) => self.backup(now, self.interval),
            (State::None, _) => State::None,

            (State::Init | State::Fault, LinkUp) => self.backup(now, self.interval),
            (State::Init | State::Fault, _) => state,
            (_, LinkDown) => State::Fault,
            (_, LinkUp) => state,

            (State::Backup { .. }, MasterHeard { interval, .. }) => self.backup(now, interval),
            (State::Backup { down_at: Some(at) }, MasterLeft { interval }) => {
                let shorter = at.min(now + skew(self.priority, interval));
                State::Backup { down_at: Some(shorter.max(self.held_until)) }
            }
            (State::Backup { down_at: Some(at) }, Hold { wait }) => State::Backup { down_at: Some(at.max(now + wait)) },
            (State::Backup { down_at: Some(_) }, TimerExpired) => self.promoting(now, 0),
            (State::Backup { down_at: Some(_) }, Preempt { .. }) if now < self.held_until => state,
            (State::Backup { down_at: Some(_) }, Preempt { term }) => self.promoting(now, term),
            (State::Backup { .. }, Inherit { term }) => self.promoting(now, term),
            (State::Backup { .. }, Request(Wish::Master)) => self.promoting(now, u64::MAX),
            (State::Backup { .. }, Request(Wish::Backup)) => self.backup(now, self.interval),
            (State::Backup { .. }, Stalled) => self.backup(now, self.interval),
            (State::Backup { .. }, MasterLeft { .. } | Hold { .. } | TimerExpired | Preempt { .. }) => state,
            (State::Backup { .. }, Committed | Outranked { .. }) => state,

            (State::Promoting { against, .. }, MasterHeard { term, interval }) if term > against => {
                self.backup(now, interval)
            }
            (State::Promoting { .. }, Committed | TimerExpired) => State::Master,
            (State::Promoting { .. }, Request(Wish::Backup)) => self.backup(now, self.interval),
            (State::Promoting { .. }, Stalled) => state, // writing the table is what took so long
            (State::Promoting { .. }, Outranked { interval }) => self.backup(now, interval),
            (State::Promoting { .. }, MasterHeard { .. } | MasterLeft { .. } | Hold { .. }) => state,
            (State::Promoting { .. }, Preempt { .. } | Inherit { .. } | Request(Wish::Master)) => state,

            (State::Master, Outranked { interval }) => self.backup(now, interval),
            (State::Master, Stalled | Request(Wish::Backup)) => self.backup(now, self.interval),
            (State::Master, MasterHeard { .. } | MasterLeft { .. } | Hold { .. } | TimerExpired) => state,
            (State::Master, Preempt { .. } | Inherit { .. } | Committed | Request(Wish::Master)) => state,
        }
    }

    fn backup(&self, now: Instant, interval: Duration) -> State {
        let down_at = match self.mode {
            RoleMode::Vrrp => Some(self.held_until.max(now + master_down(self.priority, interval))),
            RoleMode::Manual => None,
        };
        State::Backup { down_at }
    }

    fn promoting(&self, now: Instant, against: u64) -> State {
        State::Promoting { give_up_at: now + self.commit_deadline, against }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn at(milliseconds: u64) -> Instant {
        Instant::from_nanos(milliseconds * MS)
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn machine(mode: RoleMode, state: State) -> Election {
        Election { state, ..Election::new(mode, 100, ms(256), ms(1000)) }
    }

    /// [5.0.1] The literal figures of RFC 9568 section 6.1 for an interval of 256 ms.
    #[test]
    fn skew_and_master_down_are_those_of_rfc_9568() {
        assert_eq!(skew(100, ms(256)), ms(156));
        assert_eq!(skew(254, ms(256)), ms(2));
        assert_eq!(skew(255, ms(256)), ms(1));
        assert_eq!(skew(1, ms(256)), ms(255));
        assert_eq!(master_down(100, ms(256)), ms(924));
        assert_eq!(master_down(255, ms(256)), ms(769));
        assert_eq!(skew(100, ms(40_000)), Duration::from_micros(24_375_000));
    }

    /// [5.0.2] The exhaustive transition table: every state with every input, against literal roles.
    #[test]
    fn every_state_answers_every_input_as_the_table_says() {
        use Role::*;
        let states = [
            State::Init,
            State::Backup { down_at: Some(at(500)) },
            State::Promoting { give_up_at: at(500), against: 0 },
            State::Promoting { give_up_at: at(500), against: 7 },
            State::Master,
            State::Fault,
            State::None,
        ];
        let heard = Input::MasterHeard { term: 7, interval: ms(100) };
        #[rustfmt::skip]
        let table: [(Input, [Role; 7]); 14] = [
            (Input::LinkUp,                               [Backup, Backup,    Promoting, Promoting, Master, Backup, None]),
            (Input::LinkDown,                             [Init,   Fault,     Fault,     Fault,     Fault,  Fault,  None]),
            (heard,                                       [Init,   Backup,    Backup,    Promoting, Master, Fault,  None]),
            (Input::MasterLeft { interval: ms(100) },     [Init,   Backup,    Promoting, Promoting, Master, Fault,  None]),
            (Input::Hold { wait: ms(100) },               [Init,   Backup,    Promoting, Promoting, Master, Fault,  None]),
            (Input::TimerExpired,                         [Init,   Promoting, Master,    Master,    Master, Fault,  None]),
            (Input::Preempt { term: 7 },                  [Init,   Promoting, Promoting, Promoting, Master, Fault,  None]),
            (Input::Inherit { term: 7 },                  [Init,   Promoting, Promoting, Promoting, Master, Fault,  None]),
            (Input::Committed,                            [Init,   Backup,    Master,    Master,    Master, Fault,  None]),
            (Input::Outranked { interval: ms(100) },      [Init,   Backup,    Backup,    Backup,    Backup, Fault,  None]),
            (Input::Stalled,                              [Init,   Backup,    Promoting, Promoting, Backup, Fault,  None]),
            (Input::Request(RoleRequest::Master),         [Init,   Promoting, Promoting, Promoting, Master, Fault,  Backup]),
            (Input::Request(RoleRequest::Backup),         [Init,   Backup,    Backup,    Backup,    Backup, Fault,  Backup]),
            (Input::Request(RoleRequest::None),           [None,   None,      None,      None,      None,   None,   None]),
        ];
        for (input, expected) in table {
            for (state, to) in states.into_iter().zip(expected) {
                let mut election = machine(RoleMode::Vrrp, state);
                let from = state.role();
                let change = election.handle(at(100), input);
                assert_eq!(election.state().role(), to, "{state:?} with {input:?}");
                assert_eq!(change, (from != to).then_some((from, to)), "{state:?} with {input:?}");
            }
        }
    }

    /// [5.0.1] A backup adopts the master's interval: 3 × 100 ms + 156/256 × 100 ms.
    #[test]
    fn a_sign_of_life_restarts_the_timer_with_the_masters_interval() {
        let mut election = machine(RoleMode::Vrrp, State::Backup { down_at: Some(at(500)) });
        election.handle(at(1000), Input::MasterHeard { term: 1, interval: ms(100) });
        assert_eq!(election.deadline(), Some(Instant::from_nanos(1_360_937_500)));
    }

    /// [5.0.3] Priority 0 makes the others wait their skew only, never longer than they would have waited.
    #[test]
    fn a_goodbye_shortens_the_wait_to_the_skew() {
        let mut election = machine(RoleMode::Vrrp, State::Backup { down_at: Some(at(900)) });
        election.handle(at(100), Input::MasterLeft { interval: ms(256) });
        assert_eq!(election.deadline(), Some(at(256)));
        election.handle(at(200), Input::MasterLeft { interval: ms(2560) });
        assert_eq!(election.deadline(), Some(at(256)));
    }

    #[test]
    fn a_hold_lengthens_the_wait_and_never_shortens_it() {
        let mut election = machine(RoleMode::Vrrp, State::Backup { down_at: Some(at(300)) });
        election.handle(at(290), Input::Hold { wait: ms(100) });
        assert_eq!(election.deadline(), Some(at(390)));
        election.handle(at(290), Input::Hold { wait: ms(1) });
        assert_eq!(election.deadline(), Some(at(390)));
    }

    /// [5.0.4] In mode `manual` no timer ever makes a master.
    #[test]
    fn a_manual_backup_has_no_timer_and_obeys() {
        let mut election = Election::new(RoleMode::Manual, 100, ms(100), ms(1000));
        election.handle(at(0), Input::LinkUp);
        assert_eq!(election.state(), State::Backup { down_at: None });
        election.handle(at(1), Input::TimerExpired);
        election.handle(at(1), Input::Preempt { term: 1 });
        election.handle(at(1), Input::MasterLeft { interval: ms(100) });
        assert_eq!(election.state(), State::Backup { down_at: None });
        election.handle(at(2), Input::Request(RoleRequest::Master));
        assert_eq!(election.state().role(), Role::Promoting);
        election.handle(at(3), Input::Committed);
        assert_eq!(election.state(), State::Master);
    }

    /// [5.2.2] The first phase ends at its deadline at the latest.
    #[test]
    fn promoting_gives_up_waiting_at_the_commit_deadline() {
        let mut election = machine(RoleMode::Vrrp, State::Backup { down_at: Some(at(500)) });
        election.handle(at(500), Input::TimerExpired);
        assert_eq!(election.deadline(), Some(at(1500)));
    }

    /// [5.0.7] Until the startup hold is over neither the own timer makes a master, nor a goodbye, nor preemption; a request
    /// does. After it, the timer is what it always is.
    #[test]
    fn a_node_that_has_just_come_up_takes_no_role_by_itself_before_its_hold_is_over() {
        let fresh = || Election::new(RoleMode::Vrrp, 100, ms(100), ms(1000)).with_startup_delay(ms(5000));
        let mut election = fresh();
        election.handle(at(1000), Input::LinkUp);
        assert_eq!(election.deadline(), Some(at(6000)));
        election.handle(at(1500), Input::MasterHeard { term: 1, interval: ms(256) });
        assert_eq!(election.deadline(), Some(at(6000)));
        election.handle(at(1600), Input::MasterLeft { interval: ms(256) });
        assert_eq!(election.deadline(), Some(at(6000)));
        assert_eq!(election.handle(at(1700), Input::Preempt { term: 1 }), None);
        election.handle(at(5900), Input::MasterHeard { term: 1, interval: ms(256) });
        assert_eq!(election.deadline(), Some(at(6824)));
        election.handle(at(6000), Input::MasterLeft { interval: ms(256) });
        assert_eq!(election.deadline(), Some(at(6156)));
        assert_eq!(election.handle(at(6000), Input::Preempt { term: 1 }), Some((Role::Backup, Role::Promoting)));

        let mut election = fresh();
        election.handle(at(1000), Input::LinkUp);
        let asked = election.handle(at(1001), Input::Request(RoleRequest::Master));
        assert_eq!(asked, Some((Role::Backup, Role::Promoting)));
    }

    /// [5.0.7] A link that comes back is a start, too; a second link that joins the first is none.
    #[test]
    fn the_hold_begins_with_the_first_link_and_anew_when_all_were_down() {
        let mut election = Election::new(RoleMode::Vrrp, 100, ms(256), ms(1000)).with_startup_delay(ms(5000));
        election.handle(at(0), Input::LinkUp);
        election.handle(at(4900), Input::LinkUp);
        assert_eq!(election.deadline(), Some(at(5000)));
        election.handle(at(9000), Input::LinkDown);
        election.handle(at(10_000), Input::LinkUp);
        assert_eq!(election.deadline(), Some(at(15_000)));
        // Another delay is for the next start.
        election.set_startup_delay(ms(7000));
        assert_eq!(election.deadline(), Some(at(15_000)));
        election.handle(at(11_000), Input::LinkDown);
        election.handle(at(12_000), Input::LinkUp);
        assert_eq!(election.deadline(), Some(at(19_000)));
    }
}
