//! The loop's side of a group whose role keepalived decides (protocol.md, 5.7): each word becomes a request, and one that the
//! role machine could not keep is made again.
//!
//! ```text
//!   MASTER ──▶ request ──▶ Promoting ─▶ Master          link down, a stall ──▶ Backup, and keepalived still says MASTER
//!                 ▲                                                               │ three intervals without a master
//!                 └───────────────────────────────────────────────────────────────┘
//! ```
//!
//! Where another node is master of the stream although keepalived says MASTER here, nothing is done but to say so: two nodes
//! that both are told so would take the role from each other for ever. The next word of either keepalived ends it.

use super::INTERVALS_OF_PATIENCE;
use crate::daemon::driven::line::Name;
use crate::daemon::driven::{self, News, Said};
use crate::daemon::journal::{Journal, Weight};
use crate::daemon::protocol::Protocol;
use crate::engine::{Role, RoleRequest};
use crate::time::{Duration, Instant};
use std::path::{Path, PathBuf};

/// What a loop knows of whoever drives it.
#[derive(Debug)]
pub(super) struct Reins {
    fifo: PathBuf,
    instance: Name,
    interval: Duration,
    news: News,
    /// This node should be master and is backup: whether another is, and since when it is so.
    odds: Option<(bool, Instant)>,
    /// That another is master has been told.
    contested: bool,
    /// When to look again.
    look_at: Option<Instant>,
    /// Requests that were made again.
    repeated: u64,
}

impl Reins {
    /// Nothing has been said yet.
    pub(super) fn new(fifo: &Path, instance: &Name, advert_interval: Duration) -> Self {
        Reins {
            fifo: fifo.to_owned(),
            instance: instance.clone(),
            interval: advert_interval,
            news: News::default(),
            odds: None,
            contested: false,
            look_at: None,
            repeated: 0,
        }
    }

    /// Another interval of the ADVERTs.
    pub(super) fn set_interval(&mut self, advert_interval: Duration) {
        self.interval = advert_interval;
    }

    /// Carries out what was said.
    pub(super) fn hear(&mut self, now: Instant, news: News, engine: &mut Protocol, journal: &mut Journal) {
        let before = std::mem::replace(&mut self.news, news);
        self.note(now, &before, journal);
        let Some(said) = self.news.said else { return };
        if before.said != self.news.said {
            self.odds = None;
            engine.set_role(now, said.request());
        }
    }

    fn note(&self, now: Instant, before: &News, journal: &mut Journal) {
        let (news, fifo) = (&self.news, self.fifo.display());
        if let Some(trouble) = news.trouble.as_ref().filter(|_| before.trouble != news.trouble) {
            journal.note(now, Weight::Failure, "KeepalivedLost", trouble.clone());
        }
        match (before.connected, news.connected) {
            (false, true) => {
                journal.note(now, Weight::Notice, "KeepalivedFound", format!("keepalived has {fifo} open"));
            }
            (true, false) => journal.note(now, Weight::Warning, "KeepalivedLost", self.silence()),
            _ => {}
        }
        let state = |said: Option<Said>| said.map(|said| said.state);
        if let Some(said) = news.said.filter(|_| state(before.said) != state(news.said)) {
            let text = format!("{} is {}, priority {}", self.instance, said.state.word(), said.priority);
            journal.note(now, Weight::Notice, "KeepalivedSays", text);
        }
    }

    /// Looks, once an interval, whether the role machine still does what was said last.
    pub(super) fn look(&mut self, now: Instant, engine: &mut Protocol, journal: &mut Journal) {
        let wished = self.news.said.is_some_and(|said| said.request() == RoleRequest::Master);
        if !wished || engine.role() != Role::Backup {
            (self.odds, self.contested, self.look_at) = (None, false, None);
            return;
        }
        if self.look_at.is_some_and(|at| now < at) {
            return;
        }
        self.look_at = Some(now + self.interval);
        let master = engine.status().master;
        let since = self.odds.filter(|(contested, _)| *contested == master.is_some()).map_or(now, |(_, since)| since);
        self.odds = Some((master.is_some(), since));
        self.contested &= master.is_some();
        if now.since(since) < self.interval * INTERVALS_OF_PATIENCE {
            return;
        }
        match master {
            Some(node) if !std::mem::replace(&mut self.contested, true) => {
                let text = format!("{} is MASTER, and node {} has the role", self.instance, node.0);
                journal.note(now, Weight::Warning, "RoleContested", text);
            }
            Some(_) => {}
            None => {
                self.odds = None;
                self.repeated += 1;
                engine.set_role(now, RoleRequest::Master);
            }
        }
    }

    /// When to look again.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.look_at
    }

    /// Why nobody but keepalived is asked for the role.
    pub(super) fn refusal(&self) -> String {
        driven::refusal(&self.instance)
    }

    /// What an operator should see to.
    pub(super) fn trouble(&self) -> Option<String> {
        let silence = || (!self.news.connected).then(|| self.silence());
        let contest = || self.contested.then(|| format!("{} is MASTER, and another node has the role", self.instance));
        self.news.trouble.clone().or_else(silence).or_else(contest)
    }

    fn silence(&self) -> String {
        format!(
            "keepalived does not have {} open: it does not run, or names another notify_fifo; the role stays as it is",
            self.fifo.display()
        )
    }

    /// Counters of the FIFO, and of the requests that were made again.
    pub(super) fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.news.counters.named().into_iter().chain([("repeated_requests", self.repeated)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::driven::Counters;
    use crate::daemon::driven::line::State;
    use crate::engine::{Config, Engine, RoleMode};
    use crate::wire::NodeId;

    fn at(milliseconds: u64) -> Instant {
        Instant::from_nanos(milliseconds * 1_000_000)
    }

    fn news(state: State, number: u64) -> News {
        let said = Some(Said { state, priority: 150, number });
        News { said, connected: true, trouble: None, counters: Counters::default() }
    }

    /// An engine with a link, its reins, and what they note.
    struct Bench {
        engine: Protocol,
        reins: Reins,
        journal: Journal,
    }

    impl Bench {
        fn new() -> Self {
            let config = Config { role: RoleMode::Manual, incarnation: 1, seed: 1, ..Config::new(NodeId(1), 51) };
            let mut engine: Protocol = Engine::new(config, at(0)).unwrap().into();
            engine.handle_link(at(0), true);
            let name = Name::parse("VI_51").unwrap();
            let reins = Reins::new(Path::new("/run/fifo"), &name, Duration::from_millis(100));
            Bench { engine, reins, journal: Journal::new(51) }
        }

        fn hear(&mut self, milliseconds: u64, news: News) -> Role {
            self.reins.hear(at(milliseconds), news, &mut self.engine, &mut self.journal);
            self.look(milliseconds)
        }

        fn look(&mut self, milliseconds: u64) -> Role {
            self.engine.handle_timeout(at(milliseconds));
            if self.engine.role() == Role::Promoting {
                self.engine.handle_committed(at(milliseconds));
            }
            self.reins.look(at(milliseconds), &mut self.engine, &mut self.journal);
            self.engine.role()
        }

        fn noted(&self) -> Vec<&'static str> {
            self.journal.entries().map(|entry| entry.name).collect()
        }
    }

    /// [5.7.1]
    #[test]
    fn master_is_a_request_for_the_role_and_every_other_state_one_to_give_it_up() {
        let mut bench = Bench::new();
        let mut number = 0;
        let mut say = |bench: &mut Bench, state| {
            number += 1;
            bench.hear(number, news(state, number))
        };
        assert_eq!(say(&mut bench, State::Backup), Role::Backup);
        for other in [State::Backup, State::Fault, State::Stop, State::Deleted] {
            assert_eq!(say(&mut bench, State::Master), Role::Master);
            assert_eq!(say(&mut bench, other), Role::Backup, "{other:?}");
        }
        assert_eq!(bench.reins.repeated, 0);
    }

    #[test]
    fn silence_of_keepalived_is_told_and_changes_no_role() {
        let mut bench = Bench::new();
        assert_eq!(bench.hear(1, news(State::Master, 1)), Role::Master);
        assert_eq!(bench.reins.trouble(), None);
        assert_eq!(bench.hear(2, News { connected: false, ..news(State::Master, 1) }), Role::Master);
        assert!(bench.reins.trouble().unwrap().contains("/run/fifo open"));
        assert_eq!(bench.hear(3, news(State::Master, 1)), Role::Master);
        assert_eq!(bench.reins.trouble(), None);
        assert_eq!(bench.noted(), ["KeepalivedFound", "KeepalivedSays", "KeepalivedLost", "KeepalivedFound"]);
    }

    #[test]
    fn a_fifo_that_cannot_be_read_is_told_once() {
        let mut bench = Bench::new();
        let broken = News { trouble: Some("keepalived_fifo /run/fifo: it is no FIFO".into()), ..News::default() };
        bench.hear(1, broken.clone());
        bench.hear(2, broken);
        assert_eq!(bench.noted(), ["KeepalivedLost"]);
        assert_eq!(bench.reins.trouble().unwrap(), "keepalived_fifo /run/fifo: it is no FIFO");
    }

    /// [5.7.2]
    #[test]
    fn a_master_that_lost_its_link_asks_again_three_intervals_after_it_is_back() {
        let mut bench = Bench::new();
        assert_eq!(bench.hear(1, news(State::Master, 1)), Role::Master);
        bench.engine.handle_link(at(10), false);
        assert_eq!(bench.look(10), Role::Fault);
        bench.engine.handle_link(at(1000), true);
        assert_eq!((bench.look(1000), bench.reins.wake_at()), (Role::Backup, Some(at(1100))));
        assert_eq!([1100, 1200, 1299].map(|at| bench.look(at)), [Role::Backup; 3]);
        bench.look(1300);
        assert_eq!((bench.look(1300), bench.reins.wake_at(), bench.reins.repeated), (Role::Master, None, 1));
    }

    /// [5.7.2]
    #[test]
    fn a_backup_that_is_alone_asks_for_nothing() {
        let mut bench = Bench::new();
        bench.hear(1, news(State::Backup, 1));
        assert_eq!((bench.look(60_000), bench.reins.wake_at(), bench.reins.repeated), (Role::Backup, None, 0));
    }
}
