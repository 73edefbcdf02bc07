//! The whole daemon: every group on a thread, HTTP on one, and this thread waiting for signals.
//!
//! ```text
//!   main ── privileges ─▶ control socket ─▶ groups ─▶ READY=1 ─▶ … SIGTERM … ─▶ STOPPING=1 ─▶ groups leave ─▶ exit
//! ```
//!
//! The control socket comes first: it is also the lock that keeps a second daemon from removing the first one's
//! addresses. A group's thread that ends by itself ends the daemon: half a node is worse than none, and systemd starts
//! it anew.

use crate::daemon::control::{self, GroupDesk, GroupHandle};
use crate::daemon::group::{self, News, StartError};
use crate::daemon::http::{ANSWER_DEADLINE, Server, ServerError, ServerOptions};
use crate::daemon::privilege;
use crate::daemon::settings::{Group, Settings};
use crate::daemon::status::NodeName;
use crate::sys::poll::{self, Waker};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use sd_notify::NotifyState;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

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
    /// The operating system refused something that it never refuses.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Runs the daemon until SIGTERM or SIGINT. Call it before any other thread is started: it blocks these signals for all
/// threads to come.
///
/// # Errors
/// [`RunError`].
pub fn run(settings: Settings) -> Result<(), RunError> {
    let signals = Signals::block()?;
    privilege::check(&settings)?;
    for warning in settings.warnings() {
        tracing::warn!("{warning}");
    }
    let mut handles = Vec::with_capacity(settings.groups.len());
    let mut desks = Vec::with_capacity(settings.groups.len());
    for group in &settings.groups {
        let (handle, desk) = control::desk(group.sync_id)?;
        handles.push(handle);
        desks.push(desk);
    }
    let server = Server::start(ServerOptions {
        node: NodeName::new(&settings.node),
        groups: handles.clone(),
        socket: settings.control.socket.clone(),
        listen: settings.control.listen,
        answer_deadline: ANSWER_DEADLINE,
    })?;
    let mut groups = Groups::new(handles)?;
    let result = groups.start(&settings, desks).and_then(|()| {
        notify(&[NotifyState::Ready, NotifyState::Status(&format!("{} groups run", settings.groups.len()))]);
        tracing::info!(
            node = settings.node.id.0,
            name = settings.node.name,
            "ssyncp {} runs",
            env!("CARGO_PKG_VERSION")
        );
        groups.watch(&signals)
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

    /// The next signal that asks the daemon to end.
    fn ending(&self) -> io::Result<Option<Signal>> {
        while let Some(info) = self.0.read_signal()? {
            match Signal::try_from(info.ssi_signo as i32) {
                Ok(Signal::SIGHUP) => {
                    tracing::warn!("SIGHUP: reloading is not in this version; restart to change settings")
                }
                Ok(signal) => return Ok(Some(signal)),
                Err(_) => {}
            }
        }
        Ok(None)
    }
}

/// The threads of all groups.
struct Groups {
    threads: Vec<(u8, JoinHandle<()>)>,
    handles: Vec<GroupHandle>,
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
    fn new(handles: Vec<GroupHandle>) -> io::Result<Self> {
        let (sender, reports) = mpsc::channel();
        let reporter = Reporter { reports: sender, waker: Arc::new(Waker::new()?) };
        Ok(Groups { threads: Vec::new(), handles, reporter, reports })
    }

    /// Starts every group and waits until each runs, or waits for its link.
    fn start(&mut self, settings: &Settings, desks: Vec<GroupDesk>) -> Result<(), RunError> {
        for (group, desk) in settings.groups.iter().zip(desks) {
            self.spawn(settings, group, desk)?;
        }
        let mut starting = self.threads.len();
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

    fn spawn(&mut self, settings: &Settings, group: &Group, desk: GroupDesk) -> io::Result<()> {
        let (settings, group, reporter) = (settings.clone(), group.clone(), self.reporter.clone());
        let sync_id = group.sync_id;
        let body = move || {
            let end = ReportsItsEnd(sync_id, reporter);
            group::run(&settings, &group, desk, &end.1.reports);
        };
        let thread = std::thread::Builder::new().name(format!("group-{sync_id}")).spawn(body)?;
        self.threads.push((sync_id, thread));
        Ok(())
    }

    /// Waits for a signal, or for a group that ends by itself.
    fn watch(&self, signals: &Signals) -> Result<(), RunError> {
        loop {
            poll::wait(&[signals.0.as_fd(), self.reporter.waker.as_fd()], None)?;
            if let Some(signal) = signals.ending()? {
                tracing::info!("{signal}: leaving");
                return Ok(());
            }
            self.reporter.waker.drain();
            while let Ok((sync_id, news)) = self.reports.try_recv() {
                if !matches!(news, News::Started) {
                    return Err(died(sync_id, news));
                }
            }
        }
    }

    /// Tells every group to leave, all at the same time, and waits until they have.
    fn leave(self) -> Result<(), RunError> {
        self.handles.iter().for_each(GroupHandle::stop);
        let mut result = Ok(());
        for (sync_id, thread) in self.threads {
            if thread.join().is_err() {
                result = Err(RunError::Died { sync_id });
            }
        }
        result
    }
}

fn died(sync_id: u8, news: News) -> RunError {
    match news {
        News::Failed(error) => RunError::Start { sync_id, error },
        News::Started | News::Ended => RunError::Died { sync_id },
    }
}

/// Tells systemd, if it is systemd that started us.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("systemd could not be told: {error}");
    }
}
