//! The node as all its threads see it: which groups run, which settings are in force, what the last reload came to.
//!
//! The main thread writes, the control interface reads; both hold a lock only while they copy or replace one thing.

use crate::daemon::control::GroupHandle;
use crate::daemon::events::{EventMessage, Events};
use crate::daemon::reload::{Refusal, Reloaded};
use crate::daemon::sandbox::Sandbox;
use crate::daemon::settings::Settings;
use crate::daemon::status::{NodeName, ReloadStatus, SwapStatus};
use crate::sys::clock;
use crate::sys::poll::Waker;
use crate::time::Instant;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use tokio::sync::oneshot;

/// Reloads that may wait for the main thread.
pub const RELOADS_WAITING_MAX: usize = 4;

/// Somebody who wants the configuration read anew, and waits for what comes of it.
pub type ReloadRequest = oneshot::Sender<Result<Reloaded, Refusal>>;

/// What all threads know of the node.
#[derive(Debug)]
pub struct Roster {
    node: NodeName,
    file: PathBuf,
    sandbox: Sandbox,
    events: Events,
    reloads: mpsc::SyncSender<ReloadRequest>,
    waker: Arc<Waker>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    settings: Arc<Settings>,
    groups: Arc<[GroupHandle]>,
    done: u64,
    refused: u64,
    last: Option<(Instant, ReloadStatus)>,
    swap: Option<SwapStatus>,
}

/// How often the configuration was read anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReloadCounts {
    /// And taken.
    pub done: u64,
    /// And refused.
    pub refused: u64,
}

impl Roster {
    /// A node with these groups; the requests for reloads come out of the receiver, and `waker` tells of them.
    pub fn new(
        file: &Path,
        settings: Settings,
        groups: Vec<GroupHandle>,
        waker: Arc<Waker>,
        sandbox: Sandbox,
    ) -> (Arc<Self>, mpsc::Receiver<ReloadRequest>) {
        let (reloads, requests) = mpsc::sync_channel(RELOADS_WAITING_MAX);
        let node = NodeName::new(&settings.node);
        let (settings, groups) = (Arc::new(settings), groups.into());
        let state = State { settings, groups, done: 0, refused: 0, last: None, swap: None };
        let (file, events, state) = (file.to_owned(), Events::default(), Mutex::new(state));
        (Arc::new(Roster { node, file, sandbox, events, reloads, waker, state }), requests)
    }

    /// This node.
    pub fn node(&self) -> &NodeName {
        &self.node
    }

    /// Where the configuration comes from.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// What holds the daemon in.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// The node's events.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// What is in force.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.lock().settings)
    }

    /// Every group, in the order of the configuration.
    pub fn groups(&self) -> Arc<[GroupHandle]> {
        Arc::clone(&self.lock().groups)
    }

    /// How often the configuration was read anew.
    pub fn reload_counts(&self) -> ReloadCounts {
        let state = self.lock();
        ReloadCounts { done: state.done, refused: state.refused }
    }

    /// The last reload; `None` if there was none.
    pub fn last_reload(&self) -> Option<ReloadStatus> {
        let (at, status) = self.lock().last.clone()?;
        Some(ReloadStatus { age_s: clock::now().since(at).as_secs_f64(), ..status })
    }

    /// Whether keys can come to a disk; `None` if there are none.
    pub fn swap(&self) -> Option<SwapStatus> {
        self.lock().swap.clone()
    }

    /// Notes what came of keeping them from it.
    pub(crate) fn note_swap(&self, swap: Option<SwapStatus>) {
        self.lock().swap = swap;
    }

    /// Asks the main thread for a reload; `None` if it has too many of them waiting, or has ended.
    pub fn ask_for_reload(&self) -> Option<oneshot::Receiver<Result<Reloaded, Refusal>>> {
        let (sender, receiver) = oneshot::channel();
        self.reloads.try_send(sender).ok()?;
        self.waker.wake();
        Some(receiver)
    }

    /// Other groups and settings are in force.
    pub(crate) fn replace(&self, settings: Settings, groups: Vec<GroupHandle>) {
        let mut state = self.lock();
        (state.settings, state.groups) = (Arc::new(settings), groups.into());
    }

    /// Remembers, logs and tells what came of a reload.
    pub(crate) fn note_reload(&self, result: &Result<Reloaded, Refusal>) {
        let (word, event, text) = match result {
            Ok(reloaded) => ("done", "Reloaded", reloaded.to_string()),
            Err(refusal) => ("refused", "ReloadRefused", refusal.to_string()),
        };
        match result {
            Ok(_) => tracing::info!(event, "{text}"),
            Err(_) => tracing::error!(event, "{text}"),
        }
        let mut state = self.lock();
        match result {
            Ok(_) => state.done += 1,
            Err(_) => state.refused += 1,
        }
        let number = state.done + state.refused;
        state.last = Some((clock::now(), ReloadStatus { age_s: 0.0, result: word.into(), text: text.clone() }));
        drop(state);
        self.events.publish(EventMessage::now(None, number, event, text));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Whoever panicked while holding it has replaced whole things or nothing.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
