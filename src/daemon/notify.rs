//! Tells others of a group's role as keepalived does, so that its scripts work unchanged: hooks, and lines in a FIFO.
//!
//! ```text
//!   loop ──tell──▶ ring of 64 transitions ─┬▶ hooks, one at a time:  notify_master …, then  notify … INSTANCE "51" MASTER 150
//!      (never waits; the oldest is lost,   └▶ FIFO:                  INSTANCE "51" MASTER 150\n
//!       counted and told)
//! ```
//!
//! Words of keepalived: MASTER, BACKUP (also while promoting), FAULT, STOP (takes part in nothing, as at the end). Hooks run
//! in the order of the transitions, each for at most `notify_timeout`, and then are killed with all that they started.
//! MASTER is told when the addresses are here (a service that a hook starts may bind to them), or after
//! [`ADDRESSES_DEADLINE`].

mod fifo;

use crate::daemon::control::Alarm;
use crate::daemon::driven::line::Name;
use crate::daemon::errands::Errands;
use crate::daemon::program;
use crate::daemon::settings::{Group, Notifications};
use crate::engine::Role;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{Receiver, Sender};
use tokio::task::JoinHandle;

/// Transitions that wait for a hook or a reader of the FIFO; of more, the oldest are lost.
pub const TRANSITIONS_WAITING_MAX: usize = 64;
/// Failures that wait for the group's loop; more are only logged.
pub const FAILURES_MAX: usize = 16;
/// Longest time that MASTER waits for the addresses.
pub const ADDRESSES_DEADLINE: Duration = Duration::from_secs(1);
/// Time between two looks whether they are here.
const ADDRESSES_INTERVAL: Duration = Duration::from_millis(1);
/// Longest time that a group which leaves waits for its last hooks and lines.
pub const LEAVE_DEADLINE: Duration = Duration::from_secs(5);

/// A state in keepalived's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Has the role.
    Master,
    /// Does not have it, and may.
    Backup,
    /// May not: its sync links are gone.
    Fault,
    /// Takes part in nothing.
    Stop,
}

impl State {
    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            State::Master => "MASTER",
            State::Backup => "BACKUP",
            State::Fault => "FAULT",
            State::Stop => "STOP",
        }
    }

    /// What a role is called there; nothing for one that has just begun.
    pub const fn of(role: Role) -> Option<Self> {
        match role {
            Role::Init => None,
            Role::Backup | Role::Promoting => Some(State::Backup),
            Role::Master => Some(State::Master),
            Role::Fault => Some(State::Fault),
            Role::None => Some(State::Stop),
        }
    }
}

/// Says whether what a state needs is here.
pub type Arrival = Arc<dyn Fn() -> bool + Send + Sync>;

/// A change of state, as it is told.
#[derive(Clone)]
struct Transition {
    whose: Name,
    state: State,
    priority: u8,
    /// What it waits for.
    arrival: Option<Arrival>,
}

impl Transition {
    /// Returns when what it waits for is here, or has not come for too long.
    async fn arrived(&self) {
        let Some(here) = &self.arrival else { return };
        let looks = async {
            while !here() {
                tokio::time::sleep(ADDRESSES_INTERVAL).await;
            }
        };
        if tokio::time::timeout(ADDRESSES_DEADLINE, looks).await.is_err() {
            tracing::warn!("{self} is told although not every address is here");
        }
    }
}

impl fmt::Debug for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Transition {
    /// keepalived's line, without its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = self.whose.words();
        write!(f, "{kind} \"{name}\" {} {}", self.state.word(), self.priority)
    }
}

/// Who tells of one group's role.
#[derive(Debug)]
pub struct Notify {
    whose: Name,
    errands: Option<Errands>,
    last: Option<Transition>,
    transitions: Sender<Transition>,
    hooks: Option<Lane>,
    fifo: Option<Lane>,
    shared: Arc<Shared>,
    failures: mpsc::Receiver<String>,
}

/// What the tasks and the loop share.
#[derive(Debug)]
struct Shared {
    settings: Mutex<Notifications>,
    counters: Counters,
    failures: mpsc::SyncSender<String>,
    alarm: Option<Alarm>,
}

/// What was done, since the start.
#[derive(Debug, Default)]
struct Counters {
    hooks_run: AtomicU64,
    hooks_failed: AtomicU64,
    lines_written: AtomicU64,
    transitions_lost: AtomicU64,
}

/// A task that takes transitions.
#[derive(Debug)]
struct Lane {
    task: JoinHandle<()>,
    /// Closed when the task has ended.
    ended: mpsc::Receiver<()>,
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn settings(&self) -> MutexGuard<'_, Notifications> {
        // Whoever panicked while holding it has replaced the whole of it or nothing.
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, text: String) {
        if let Err(mpsc::TrySendError::Full(text) | mpsc::TrySendError::Disconnected(text)) =
            self.failures.try_send(text)
        {
            tracing::warn!("{text}");
        }
        self.alarm.as_ref().map(Alarm::ring);
    }

    /// Takes the next transition; `None` at the end. What was lost is counted and told.
    async fn next(&self, transitions: &mut Receiver<Transition>, whose: &str) -> Option<Transition> {
        loop {
            match transitions.recv().await {
                Ok(transition) => return Some(transition),
                Err(RecvError::Closed) => return None,
                Err(RecvError::Lagged(lost)) => {
                    self.counters.transitions_lost.fetch_add(lost, Ordering::Relaxed);
                    self.fail(format!("{whose} does not keep up: it was not told of {lost} changes of state"));
                }
            }
        }
    }
}

impl Notify {
    /// Tells whom the group's settings name, by tasks on the thread of the errands.
    pub fn new(group: &Group, errands: &Errands, alarm: Alarm) -> Self {
        let whose = group.instance.clone().unwrap_or_else(|| Name::Instance(group.sync_id.to_string()));
        let mut notify = Self { errands: Some(errands.clone()), ..Self::with_alarm(whose, Some(alarm)) };
        notify.replace(group);
        notify
    }

    /// Tells nobody.
    pub fn nobody(sync_id: u8) -> Self {
        Self::with_alarm(Name::Instance(sync_id.to_string()), None)
    }

    fn with_alarm(whose: Name, alarm: Option<Alarm>) -> Self {
        let (sender, failures) = mpsc::sync_channel(FAILURES_MAX);
        let shared = Shared {
            settings: Mutex::new(Notifications::default()),
            counters: Counters::default(),
            failures: sender,
            alarm,
        };
        Notify {
            whose,
            errands: None,
            last: None,
            transitions: Sender::new(TRANSITIONS_WAITING_MAX),
            hooks: None,
            fifo: None,
            shared: Arc::new(shared),
            failures,
        }
    }

    /// The node has this role now, and this priority; it is told when `arrival` says so. Never waits; tells only what is
    /// news.
    pub fn role(&mut self, role: Role, priority: u8, arrival: Option<Arrival>) {
        if let Some(state) = State::of(role) {
            self.tell(state, priority, arrival);
        }
    }

    /// The same in keepalived's words, at once.
    pub fn state(&mut self, state: State, priority: u8) {
        self.tell(state, priority, None);
    }

    fn tell(&mut self, state: State, priority: u8, arrival: Option<Arrival>) {
        if self.last.as_ref().is_some_and(|last| last.state == state) {
            return;
        }
        let transition = Transition { whose: self.whose.clone(), state, priority, arrival };
        self.last = Some(transition.clone());
        // With nobody to tell there is nobody to tell.
        let _ = self.transitions.send(transition);
    }

    /// Other settings: what waits is told by them, and a FIFO that stays is not touched.
    pub fn replace(&mut self, group: &Group) {
        let Some(errands) = self.errands.clone() else { return };
        let new = &group.notifications;
        let before = std::mem::replace(&mut *self.shared.settings(), new.clone());
        match (new.has_hooks(), &self.hooks) {
            (true, None) => {
                let (shared, transitions) = (Arc::clone(&self.shared), self.transitions.subscribe());
                self.hooks = Some(lane(&errands, async move { run_hooks(&shared, transitions).await }));
            }
            (false, Some(_)) => self.hooks = None,
            _ => {}
        }
        if before.notify_fifo != new.notify_fifo {
            self.fifo = new.notify_fifo.as_deref().map(|path| self.open(&errands, path));
        }
    }

    fn open(&self, errands: &Errands, path: &Path) -> Lane {
        let (shared, transitions) = (Arc::clone(&self.shared), self.transitions.subscribe());
        let (path, last) = (path.to_owned(), self.last.clone());
        lane(errands, async move { fifo::write(&shared, &path, last, transitions).await })
    }

    /// The next sentence about a hook or a FIFO that failed.
    pub fn next_failure(&self) -> Option<String> {
        self.failures.try_recv().ok()
    }

    /// What was done since the start.
    pub fn counters(&self) -> [(&'static str, u64); 4] {
        let Counters { hooks_run, hooks_failed, lines_written, transitions_lost } = &self.shared.counters;
        [
            ("hooks_run", hooks_run.load(Ordering::Relaxed)),
            ("hooks_failed", hooks_failed.load(Ordering::Relaxed)),
            ("lines_written", lines_written.load(Ordering::Relaxed)),
            ("transitions_lost", transitions_lost.load(Ordering::Relaxed)),
        ]
    }

    /// Returns when everything is told, or nobody listens for too long.
    pub fn finish(self) {
        let Notify { transitions, hooks, fifo, failures, .. } = self;
        drop(transitions);
        let until = std::time::Instant::now() + LEAVE_DEADLINE;
        for lane in [hooks, fifo].into_iter().flatten() {
            let left = until.saturating_duration_since(std::time::Instant::now());
            if lane.ended.recv_timeout(left) == Err(mpsc::RecvTimeoutError::Timeout) {
                tracing::warn!("a hook, or the FIFO's reader, is not waited for any longer");
            }
        }
        // The loop turns no more: what is left is for the log.
        failures.try_iter().for_each(|text| tracing::warn!("{text}"));
    }
}

fn lane(errands: &Errands, task: impl Future<Output = ()> + Send + 'static) -> Lane {
    let (sender, ended) = mpsc::sync_channel(1);
    let task = errands.spawn(async move {
        let _sender = sender;
        task.await;
    });
    Lane { task, ended }
}

/// Runs the hooks of each transition, one after the other.
async fn run_hooks(shared: &Shared, mut transitions: Receiver<Transition>) {
    while let Some(transition) = shared.next(&mut transitions, "a hook").await {
        transition.arrived().await;
        let (hooks, limit) = {
            let settings = shared.settings();
            (settings.hooks(&transition), settings.notify_timeout)
        };
        for (key, words) in hooks {
            let outcome = program::run(&words, limit).await;
            shared.counters.hooks_run.fetch_add(1, Ordering::Relaxed);
            if !outcome.is_success() {
                shared.counters.hooks_failed.fetch_add(1, Ordering::Relaxed);
                let program = words.first().map_or("", String::as_str);
                shared.fail(format!("{key} ({program}) for {}: {outcome}", transition.state.word()));
            }
        }
    }
}

impl Notifications {
    fn has_hooks(&self) -> bool {
        [&self.notify, &self.notify_master, &self.notify_backup, &self.notify_fault, &self.notify_stop]
            .iter()
            .any(|words| !words.is_empty())
    }

    /// What is run at a transition, in order: that of the state as it stands, then the one for all with four words more.
    fn hooks(&self, transition: &Transition) -> Vec<(&'static str, Vec<String>)> {
        let (key, own) = match transition.state {
            State::Master => ("notify_master", &self.notify_master),
            State::Backup => ("notify_backup", &self.notify_backup),
            State::Fault => ("notify_fault", &self.notify_fault),
            State::Stop => ("notify_stop", &self.notify_stop),
        };
        let mut all = self.notify.clone();
        if !all.is_empty() {
            let Transition { whose, state, priority, .. } = transition;
            let (kind, name) = whose.words();
            all.extend([kind.into(), name.into(), state.word().into(), priority.to_string()]);
        }
        [(key, own.clone()), ("notify", all)].into_iter().filter(|(_, words)| !words.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::errands::ErrandsThread;
    use crate::daemon::settings::Settings;
    use crate::sys::poll::Waker;
    use std::sync::atomic::AtomicBool;
    use std::time::Instant;

    fn group(more: &str) -> Group {
        let text = format!("[node]\nid = 1\n[[group]]\nsync_id = 51\ninterfaces = [\"eth1\"]\n{more}");
        Settings::parse(&text, Path::new("ssyncp.toml")).unwrap().groups.remove(0)
    }

    fn errands() -> ErrandsThread {
        ErrandsThread::start(Arc::new(Waker::new().unwrap())).unwrap()
    }

    fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < Duration::from_secs(30), "never: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn alarm() -> Alarm {
        crate::daemon::control::desk(51).unwrap().1.alarm()
    }

    #[test]
    fn roles_are_told_in_keepalived_s_words_and_one_that_has_just_begun_is_none() {
        let words = [Role::Init, Role::Backup, Role::Promoting, Role::Master, Role::Fault, Role::None]
            .map(|role| State::of(role).map(State::word));
        assert_eq!(words, [None, Some("BACKUP"), Some("BACKUP"), Some("MASTER"), Some("FAULT"), Some("STOP")]);
    }

    #[test]
    fn the_hook_of_a_state_comes_before_the_one_for_all_and_only_that_gets_words() {
        let settings = group("notify = [\"/all\", \"x\"]\nnotify_master = [\"/m\", \"y\"]\nnotify_stop = [\"/s\"]");
        let said = |state| {
            let whose = Name::Group("G".into());
            let transition = Transition { whose, state, priority: 90, arrival: None };
            let hooks = settings.notifications.hooks(&transition).into_iter();
            hooks.map(|(key, words)| format!("{key} {}", words.join(" "))).collect::<Vec<_>>()
        };
        assert_eq!(said(State::Master), ["notify_master /m y", "notify /all x GROUP G MASTER 90"]);
        assert_eq!(said(State::Fault), ["notify /all x GROUP G FAULT 90"]);
        assert_eq!(said(State::Stop), ["notify_stop /s", "notify /all x GROUP G STOP 90"]);
    }

    #[test]
    fn what_waits_for_a_hook_that_stands_still_is_bounded_and_the_oldest_is_lost_counted_and_told() {
        let directory = tempfile::tempdir().unwrap();
        let (began, goes_on) = (directory.path().join("began"), directory.path().join("goes-on"));
        let hook = format!(
            "notify = [\"/bin/sh\", \"-c\", \"touch {}; until test -e {}; do sleep 0.01; done\"]\nnotify_timeout = \"1m\"",
            began.display(),
            goes_on.display()
        );
        let errands = errands();
        let mut notify = Notify::new(&group(&hook), errands.errands(), alarm());
        notify.state(State::Backup, 1);
        eventually("the hook runs", || began.exists());
        for _ in 0..50 {
            notify.state(State::Master, 1);
            notify.state(State::Backup, 1);
        }
        std::fs::write(&goes_on, "").unwrap();
        let mut failures = Vec::new();
        eventually("the rest is told", || {
            failures.extend(notify.next_failure());
            notify.counters()[0] == ("hooks_run", 65)
        });
        failures.extend(notify.next_failure());
        assert_eq!(failures, ["a hook does not keep up: it was not told of 36 changes of state"]);
        assert_eq!(notify.counters()[3], ("transitions_lost", 36));
        notify.finish();
    }

    #[test]
    fn master_is_told_when_the_addresses_are_here() {
        let directory = tempfile::tempdir().unwrap();
        let told = directory.path().join("told");
        let here = Arc::new(AtomicBool::new(false));
        let (looked, asked) = mpsc::channel();
        let (seen, file) = (Arc::clone(&here), told.clone());
        let arrival: Arrival = Arc::new(move || {
            // Nothing has been told at any look at which they were not here.
            let _ = looked.send(file.exists());
            seen.load(Ordering::Relaxed)
        });
        let errands = errands();
        let hook = format!("notify_master = [\"/usr/bin/touch\", \"{}\"]", told.display());
        let mut notify = Notify::new(&group(&hook), errands.errands(), alarm());
        notify.role(Role::Master, 100, Some(arrival));
        assert_eq!([asked.recv(), asked.recv()], [Ok(false), Ok(false)]);
        here.store(true, Ordering::Relaxed);
        notify.finish();
        assert!(told.exists());
    }
}
