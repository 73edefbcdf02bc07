//! The whole daemon: every group on a thread, HTTP on one, and this thread waiting for signals.
//!
//! ```text
//!   main ── privileges ─▶ control socket ─▶ sandbox ─▶ groups ─▶ READY=1 ─▶ … SIGTERM … ─▶ STOPPING=1 ─▶ groups hand over, leave ─▶ exit
//!                                                        ▲  │ SIGHUP, POST /v1/reload
//!                                                        └──┘ read, check, compare, apply all of it or nothing
//! ```
//!
//! The control socket comes first: it is also the lock that keeps a second daemon from removing the first one's
//! addresses. A group's thread that ends by itself ends the daemon: half a node is worse than none, and systemd starts
//! it anew.

use crate::daemon::audit::AuditOrders;
use crate::daemon::control::{self, Command, GroupHandle};
use crate::daemon::driven::Readers;
use crate::daemon::errands::ErrandsThread;
use crate::daemon::group::{self, News, Shared, StartError};
use crate::daemon::http::{ANSWER_DEADLINE, Patience, Server, ServerError, ServerOptions, Sockets};
use crate::daemon::privilege;
use crate::daemon::reload::{Plan, Refusal, Reloaded};
use crate::daemon::roster::{ReloadRequest, Roster};
use crate::daemon::sandbox::{self, Sandbox};
use crate::daemon::settings::{Group, Node, Settings};
use crate::daemon::swap;
use crate::daemon::track::Tracker;
use crate::daemon::watchdog::Watchdog;
use crate::sys::poll::{self, Waker};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use sd_notify::NotifyState;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::sync::oneshot;

/// Longest time that a group which a reload adds may take until it runs.
pub const START_DEADLINE: std::time::Duration = std::time::Duration::from_secs(10);

/// Why the daemon does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A capability is missing.
    #[error(transparent)]
    Missing(#[from] privilege::Missing),
    /// The control interface could not be opened.
    #[error(transparent)]
    Control(#[from] ServerError),
    /// A group could not be started.
    #[error("group {sync_id}: {error}")]
    Start {
        /// Which.
        sync_id: u8,
        /// Why.
        #[source]
        error: StartError,
    },
    /// A group's thread ended although nobody asked it to.
    #[error("group {sync_id} has stopped by itself; see the lines above")]
    Died {
        /// Which.
        sync_id: u8,
    },
    /// The thread of checks and hooks has a task that panicked.
    #[error("a check or a hook has stopped by itself; see the lines above")]
    Errand,
    /// The operating system refused something that it never refuses.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Runs the daemon with the settings of a file until SIGTERM or SIGINT. Call it before any other thread is started: it
/// blocks these signals for all threads to come.
///
/// # Errors
/// [`RunError`].
pub fn run(file: &Path, settings: Settings) -> Result<(), RunError> {
    let signals = Signals::block()?;
    privilege::check(&settings)?;
    warn(&settings.warnings());
    let sockets = Sockets::open(&settings.control.socket, settings.control.listen)?;
    let swap = swap::guard(&settings);
    // Before the first thread, because each thread holds itself in; after what needs more rights.
    let sandbox = Sandbox::enter(&settings, file);
    let members = settings.groups.iter().map(|group| Member::new(group.sync_id)).collect::<io::Result<Vec<_>>>()?;
    let handles = members.iter().map(|member| member.handle.clone()).collect();
    let waker = Arc::new(Waker::new()?);
    let (roster, requests) = Roster::new(file, settings, handles, Arc::clone(&waker), sandbox);
    let settings = roster.settings();
    roster.note_swap(swap);
    let (answer_deadline, patience) = (ANSWER_DEADLINE, Patience::default());
    let server = Server::start(ServerOptions { roster: Arc::clone(&roster), sockets, answer_deadline, patience })?;
    let errands = ErrandsThread::start(Arc::clone(&waker))?;
    let mut groups = Groups::new(waker, &roster, errands);
    let handles = roster.groups();
    let started = groups.start(&settings, members).and_then(|()| Ok(groups.readers.follow(&settings, &handles)?));
    let result = started.and_then(|()| {
        sandbox::links_are_open(&settings.node);
        notify(&[NotifyState::Ready, NotifyState::Status(&format!("{} groups run", settings.groups.len()))]);
        tracing::info!(
            node = settings.node.id.0,
            name = settings.node.name,
            "ssyncp {} runs",
            env!("CARGO_PKG_VERSION")
        );
        groups.watch(&signals, &roster, &requests)
    });
    notify(&[NotifyState::Stopping, NotifyState::Status("leaving")]);
    let left = groups.leave();
    server.stop();
    result.and(left)
}

/// SIGTERM, SIGINT and SIGHUP as something to wait on.
struct Signals(SignalFd);

impl Signals {
    fn block() -> io::Result<Self> {
        let mask: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
        mask.thread_block()?;
        Ok(Signals(SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
    }

    /// The next signal.
    fn next(&self) -> io::Result<Option<Signal>> {
        let Some(info) = self.0.read_signal()? else { return Ok(None) };
        Ok(Signal::try_from(info.ssi_signo as i32).ok())
    }
}

/// A group whose thread runs, or is about to.
struct Member {
    sync_id: u8,
    handle: GroupHandle,
    /// The other end of the handle, until the thread has it.
    desk: Option<control::GroupDesk>,
    thread: Option<JoinHandle<()>>,
}

impl Member {
    fn new(sync_id: u8) -> io::Result<Self> {
        let (handle, desk) = control::desk(sync_id)?;
        Ok(Member { sync_id, handle, desk: Some(desk), thread: None })
    }

    /// Waits until its thread has ended; false if it panicked.
    fn join(self) -> bool {
        self.thread.is_none_or(|thread| thread.join().is_ok())
    }
}

/// The threads of all groups, in the order of the configuration.
struct Groups {
    members: Vec<Member>,
    shared: Shared,
    tracker: Tracker,
    errands: ErrandsThread,
    /// Whoever reads what keepalived says.
    readers: Readers,
    reporter: Reporter,
    reports: mpsc::Receiver<(u8, News)>,
}

/// A group's line to the main thread, which sleeps in a wait and not on a channel.
#[derive(Clone)]
struct Reporter {
    reports: mpsc::Sender<(u8, News)>,
    waker: Arc<Waker>,
}

/// Reports the end of a thread, also when it panics.
struct ReportsItsEnd(u8, Reporter);

impl Drop for ReportsItsEnd {
    fn drop(&mut self) {
        drop(self.1.reports.send((self.0, News::Ended)));
        self.1.waker.wake();
    }
}

impl Groups {
    fn new(waker: Arc<Waker>, roster: &Roster, errands: ErrandsThread) -> Self {
        let (sender, reports) = mpsc::channel();
        let mut tracker = Tracker::new(errands.errands().clone());
        tracker.replace(&roster.settings());
        let (events, board) = (roster.events().clone(), Arc::clone(tracker.board()));
        let shared = Shared { events, board, errands: errands.errands().clone() };
        let reporter = Reporter { reports: sender, waker };
        let readers = Readers::default();
        Groups { members: Vec::new(), shared, tracker, errands, readers, reporter, reports }
    }

    /// Starts every group and waits until each runs, or waits for its link.
    fn start(&mut self, settings: &Settings, members: Vec<Member>) -> Result<(), RunError> {
        for (group, member) in settings.groups.iter().zip(members) {
            self.spawn(settings, group, member)?;
        }
        let mut starting = self.members.len();
        while starting > 0 {
            // This end holds a sender of its own, so the channel cannot be closed; and every thread reports its end.
            match self.reports.recv() {
                Ok((_, News::Started)) => starting -= 1,
                Ok((sync_id, news)) => return Err(died(sync_id, news)),
                Err(mpsc::RecvError) => break,
            }
        }
        Ok(())
    }

    fn spawn(&mut self, settings: &Settings, group: &Group, mut member: Member) -> io::Result<()> {
        let Some(desk) = member.desk.take() else { return Ok(()) };
        let (settings, group, reporter) = (settings.clone(), group.clone(), self.reporter.clone());
        let (sync_id, shared) = (group.sync_id, self.shared.clone());
        let body = move || {
            let end = ReportsItsEnd(sync_id, reporter);
            group::run(&settings, &group, desk, shared, &end.1.reports);
        };
        member.thread = Some(std::thread::Builder::new().name(format!("group-{sync_id}")).spawn(body)?);
        self.members.push(member);
        Ok(())
    }

    /// Waits for a signal that ends the daemon, or for a group that ends by itself; reloads meanwhile.
    fn watch(
        &mut self,
        signals: &Signals,
        roster: &Roster,
        requests: &mpsc::Receiver<ReloadRequest>,
    ) -> Result<(), RunError> {
        let mut watchdog = Watchdog::from_environment();
        loop {
            poll::wait(&[signals.0.as_fd(), self.reporter.waker.as_fd()], watchdog.timeout())?;
            watchdog.look(self.members.iter().map(|member| &member.handle));
            self.reporter.waker.drain();
            if self.errands.died() {
                return Err(RunError::Errand);
            }
            while let Some(signal) = signals.next()? {
                if signal != Signal::SIGHUP {
                    tracing::info!("{signal}: leaving");
                    return Ok(());
                }
                // What comes of it is in the log, the events and the status.
                drop(self.reload(roster)?);
            }
            while let Ok(request) = requests.try_recv() {
                // Whoever asked may have gone meanwhile.
                drop(request.send(self.reload(roster)?));
            }
            while let Ok((sync_id, news)) = self.reports.try_recv() {
                if !matches!(news, News::Started) {
                    return Err(died(sync_id, news));
                }
            }
        }
    }

    /// Reads the configuration anew, and applies all of it or nothing. An error means that the daemon has to end.
    fn reload(&mut self, roster: &Roster) -> Result<Result<Reloaded, Refusal>, RunError> {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => notify(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!("systemd could not be told: {error}"),
        }
        let result = self.try_to_reload(roster)?;
        roster.note_reload(&result);
        notify(&[NotifyState::Ready, NotifyState::Status(&format!("{} groups run", self.members.len()))]);
        Ok(result)
    }

    fn try_to_reload(&mut self, roster: &Roster) -> Result<Result<Reloaded, Refusal>, RunError> {
        let old = &*roster.settings();
        let checked = Settings::load(roster.file()).map_err(Refusal::from).and_then(|new| {
            let plan = Plan::new(old, &new)?;
            let mut objections = roster.sandbox().objections(&new, roster.file());
            objections.extend(roster.sandbox().objection_to_adding(&plan.added));
            if !objections.is_empty() {
                return Err(Refusal::NeedsRestart(objections));
            }
            privilege::check(&new).map_err(|missing| Refusal::Failed(missing.to_string()))?;
            Ok((plan, new))
        });
        let (plan, new) = match checked {
            Ok(checked) => checked,
            Err(refusal) => return Ok(Err(refusal)),
        };
        // What an audit does not know, it removes: it must not take the flows of a group that comes for stale ones.
        let crowded = || old.groups.iter().filter(|group| plan.crowded.contains(&group.sync_id));
        let audits = |sole: bool| crowded().map(move |group| (group, AuditOrders { sole, ..old.audit_orders(group) }));
        self.change(&old.node, audits(false));
        if let Err(problem) = self.add(&new, &plan.added)? {
            self.change(&old.node, audits(true));
            return Ok(Err(Refusal::Failed(problem)));
        }
        for sync_id in &plan.removed {
            self.remove(*sync_id)?;
        }
        self.tracker.replace(&new);
        self.change(&new.node, plan.changed.iter().map(|group| (group, new.audit_orders(group))));
        let place = |member: &Member| new.groups.iter().position(|group| group.sync_id == member.sync_id);
        self.members.sort_by_key(place);
        let handles: Vec<_> = self.members.iter().map(|member| member.handle.clone()).collect();
        self.readers.follow(&new, &handles)?;
        let mut warnings = plan.warnings;
        warnings.extend(new.warnings().into_iter().filter(|warning| !old.warnings().contains(warning)));
        warn(&warnings);
        if new.node.sealing.secrets != old.node.sealing.secrets {
            roster.note_swap(swap::guard(&new));
        }
        roster.replace(new, handles);
        Ok(Ok(Reloaded { changes: plan.sentences, warnings }))
    }

    /// Starts groups; if one of them cannot run, none of them does.
    fn add(&mut self, settings: &Settings, groups: &[Group]) -> Result<Result<(), String>, RunError> {
        for (number, group) in groups.iter().enumerate() {
            let started = match Member::new(group.sync_id).and_then(|member| self.spawn(settings, group, member)) {
                Ok(()) => self.wait_for_start(group.sync_id)?,
                Err(error) => Err(error.to_string()),
            };
            if let Err(problem) = started {
                for group in &groups[..=number] {
                    self.remove(group.sync_id)?;
                }
                return Ok(Err(format!("group {}: {problem}", group.sync_id)));
            }
        }
        Ok(Ok(()))
    }

    fn wait_for_start(&self, sync_id: u8) -> Result<Result<(), String>, RunError> {
        let until = Instant::now() + START_DEADLINE;
        loop {
            match self.reports.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok((id, News::Started)) if id == sync_id => return Ok(Ok(())),
                Ok((id, News::Failed(error))) if id == sync_id => return Ok(Err(error.to_string())),
                Ok((id, News::Ended)) if id == sync_id => return Ok(Err("it has stopped by itself".into())),
                Ok((_, News::Started)) => {}
                Ok((id, news)) => return Err(died(id, news)),
                Err(_) => return Ok(Err(format!("it has not started within {START_DEADLINE:?}"))),
            }
        }
    }

    /// Tells groups their new settings, all at the same time. They were checked: what a group still says is only logged.
    fn change<'a>(&self, node: &Node, groups: impl Iterator<Item = (&'a Group, AuditOrders)>) {
        let mut answers = Vec::new();
        for (group, audit) in groups {
            let Some(member) = self.members.iter().find(|member| member.sync_id == group.sync_id) else { continue };
            let (answer, receiver) = oneshot::channel();
            let (group, node) = (Box::new(group.clone()), Box::new(node.clone()));
            let command = Command::Reconfigure { group, audit, node, answer };
            match member.handle.send_patiently(command, START_DEADLINE) {
                Ok(()) => answers.push((member.sync_id, receiver)),
                Err(why) => tracing::error!(group = member.sync_id, "the new settings were not taken: {why}"),
            }
        }
        let until = Instant::now() + START_DEADLINE;
        for (group, mut receiver) in answers {
            let answer = loop {
                match receiver.try_recv() {
                    Err(oneshot::error::TryRecvError::Empty) if Instant::now() < until => {
                        std::thread::sleep(std::time::Duration::from_millis(1));
                    }
                    answer => break answer,
                }
            };
            match answer {
                Ok(Ok(())) => {}
                Ok(Err(why)) => tracing::error!(group, "the new settings were not taken: {why}"),
                Err(why) => tracing::error!(group, "the group does not answer: {why}"),
            }
        }
    }

    /// Lets one group leave, and waits until it has.
    fn remove(&mut self, sync_id: u8) -> Result<(), RunError> {
        let Some(at) = self.members.iter().position(|member| member.sync_id == sync_id) else { return Ok(()) };
        let member = self.members.remove(at);
        member.handle.stop();
        let whole = member.join();
        // Its last words must not be taken for those of a group of the same name that comes later.
        while let Ok((id, news)) = self.reports.try_recv() {
            if id != sync_id && !matches!(news, News::Started) {
                return Err(died(id, news));
            }
        }
        if whole { Ok(()) } else { Err(RunError::Died { sync_id }) }
    }

    /// Tells every group to leave, all at the same time, and waits until they have.
    fn leave(self) -> Result<(), RunError> {
        self.members.iter().for_each(|member| member.handle.stop());
        let mut result = Ok(());
        for member in self.members {
            let sync_id = member.sync_id;
            if !member.join() {
                result = Err(RunError::Died { sync_id });
            }
        }
        result
    }
}

/// Tells an operator what is no mistake and should be known.
fn warn(warnings: &[String]) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}

fn died(sync_id: u8, news: News) -> RunError {
    match news {
        News::Failed(error) => RunError::Start { sync_id, error },
        News::Started | News::Ended => RunError::Died { sync_id },
    }
}

/// Tells systemd, if it is systemd that started us.
pub(super) fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("systemd could not be told: {error}");
    }
}

#[cfg(test)]
mod tests {
    use crate::daemon::driver::FAREWELL;
    use crate::daemon::notify::LEAVE_DEADLINE;
    use crate::engine::HANDOVER_DEADLINES;
    use std::time::Duration;

    const UNIT: &str = include_str!("../../packaging/ssyncp.service");

    /// Whoever is killed in the middle of a switch leaves its addresses, and its peers wait for its silence.
    #[test]
    fn systemd_waits_longer_than_any_configuration_lets_a_master_take_to_end() {
        let mut values = UNIT.lines().filter_map(|line| line.strip_prefix("TimeoutStopSec="));
        let patience = Duration::from_secs(values.next().unwrap().parse().unwrap());
        assert_eq!(values.next(), None);
        assert_eq!((patience, *HANDOVER_DEADLINES.end()), (Duration::from_secs(75), Duration::from_secs(60)));
        // What is left is for addresses, routes and virtual interfaces: each is a question to the kernel.
        let (handover, hooks) = (Duration::from_secs(60), LEAVE_DEADLINE);
        assert!(patience >= handover + FAREWELL + hooks + Duration::from_secs(5));
    }
}
