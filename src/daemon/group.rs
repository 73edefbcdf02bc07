//! The thread of one group, from its first breath: addresses left behind are removed, the sync link is waited for, then
//! the driver runs.
//!
//! ```text
//!   takeover ─▶ line ──is there──▶ source, sink ─▶ engine ─▶ driver … until told to stop
//!                ▲  │ no such interface
//!                └──┘ each second, answering "not ready" meanwhile
//! ```
//!
//! Everything is opened on the thread that uses it: transports and sources need not be able to move between threads.

use crate::daemon::audit::{AuditOrders, AuditParts};
use crate::daemon::build::{self, OpenError};
use crate::daemon::control::{Command, GroupDesk, Page};
use crate::daemon::draining::{Cause, Draining};
use crate::daemon::driven;
use crate::daemon::driver::{Driver, Parts};
use crate::daemon::errands::Errands;
use crate::daemon::events::Events;
use crate::daemon::journal::{Journal, Weight};
use crate::daemon::link::{Line, REOPEN_INTERVAL};
use crate::daemon::measures::Measures;
use crate::daemon::notify::{self, Notify};
use crate::daemon::privilege;
use crate::daemon::protocol::{NO_SWITCH, Protocol};
use crate::daemon::settings::{Group, Node, Profile, Settings};
use crate::daemon::status::{EventRow, GroupStatus};
use crate::daemon::takeover::Takeover;
use crate::daemon::track::{Board, Heed};
use crate::daemon::{sandbox, sections};
use crate::engine::{ClassicEngine, ConfigError, Engine, Role};
use crate::sys::{clock, poll, socket};
use crate::time::Duration;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::Sender;

/// Why a group could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A transport, source or sink could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The takeover thread could not be started.
    #[error("addresses: {0}")]
    Takeover(#[source] io::Error),
    /// The engine refused its configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// What all groups of a node share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Whoever listens to the node's events.
    pub events: Events,
    /// What is known of the tracks.
    pub board: Arc<Board>,
    /// Who runs what may take its time.
    pub errands: Errands,
}

/// What a group's thread reports to who started it.
#[derive(Debug)]
pub enum News {
    /// It runs, or waits for its link.
    Started,
    /// It cannot run.
    Failed(StartError),
    /// Its thread has ended, for whatever reason.
    Ended,
}

/// Runs a group until its desk says stop. The body of its thread.
pub fn run(settings: &Settings, group: &Group, desk: GroupDesk, shared: Shared, report: &Sender<(u8, News)>) {
    let node = &settings.node;
    // If who started this has ended, the stop is on its way too.
    let tell = |news| drop(report.send((group.sync_id, news)));
    // Naps are 200 µs; the default slack of 50 µs would blur them. A kernel that refuses only makes naps longer.
    let _ = nix::sys::prctl::set_timerslack(1000);
    privilege::be_heard_in_time(node.realtime_priority);
    let takeover = match start_takeover(group) {
        Ok(takeover) => takeover,
        Err(error) => return tell(News::Failed(error)),
    };
    let journal = Journal::published(group.sync_id, shared.events);
    let audit = settings.audit_orders(group);
    let tracks = Heed::new(&shared.board, &group.track, desk.alarm());
    let notify = Notify::new(group, &shared.errands, desk.alarm());
    let (node, group) = (node.clone(), group.clone());
    let draining = Draining::default();
    let mut waiting = Waiting { node, group, audit, desk, journal, takeover, tracks, notify, draining };
    let mut told = false;
    let siblings = settings.siblings(&waiting.group);
    let line = loop {
        match build::line(&waiting.group, &siblings) {
            Ok(line) => break line,
            Err(OpenError::NoInterface { name }) => {
                if !told {
                    waiting.say_that_it_waits(&name);
                    tell(News::Started);
                    told = true;
                }
                if !waiting.rest(&name) {
                    return waiting.end();
                }
            }
            Err(error) => return tell(News::Failed(error.into())),
        }
    };
    sandbox::links_are_open(&waiting.node);
    match waiting.driver(line) {
        Ok(driver) => {
            if !told {
                tell(News::Started);
            }
            driver.run();
        }
        Err(error) => {
            tell(News::Failed(error));
        }
    }
}

/// Also without addresses: a reload may bring some.
fn start_takeover(group: &Group) -> Result<Takeover, StartError> {
    Takeover::start(group.sync_id, group.into(), build::announcer).map_err(StartError::Takeover)
}

/// A group whose sync link is not there yet.
struct Waiting {
    node: Node,
    group: Group,
    audit: AuditOrders,
    desk: GroupDesk,
    journal: Journal,
    takeover: Takeover,
    tracks: Heed,
    notify: Notify,
    /// What was wished meanwhile, and holds when there is an engine.
    draining: Draining,
}

impl Waiting {
    fn say_that_it_waits(&mut self, name: &str) {
        let text = format!("there is no interface {name}; waiting for it");
        self.journal.note(clock::now(), Weight::Warning, "LinkDown", text);
        self.notify.state(notify::State::Fault, self.group.priority);
    }

    fn say_what_it_falls_back_to(&mut self, line: &dyn Line) {
        for link in line.links() {
            if let Some(reason) = link.mode.instead_of {
                let text = format!("sync link {} runs on {}, because of {reason}", link.name, link.mode.word);
                self.journal.note(clock::now(), Weight::Warning, "TransportFallback", text);
            }
        }
    }

    /// Answers commands for one second; false if the group shall end.
    fn rest(&mut self, missing: &str) -> bool {
        let until = clock::now() + REOPEN_INTERVAL;
        loop {
            let now = clock::now();
            self.desk.turned(now);
            while let Some(command) = self.desk.next() {
                self.answer(command, missing);
            }
            if self.desk.stopped() {
                return false;
            }
            let left = until.since(now);
            if left.is_zero() {
                return true;
            }
            if let Err(error) = poll::wait(&[self.desk.waker().as_fd()], Some(left)) {
                tracing::error!(group = self.group.sync_id, "waiting failed: {error}");
                std::thread::sleep(Duration::from_millis(100));
            }
            self.desk.waker().drain();
        }
    }

    fn answer(&mut self, command: Command, missing: &str) {
        let trouble = format!("there is no interface {missing}");
        match command {
            Command::Status(answer) => drop(answer.send(self.status(trouble))),
            Command::Measures(answer) => drop(answer.send(Measures::unmeasured(self.status(trouble)))),
            Command::Resync { answer, .. } => drop(answer.send(Err(trouble))),
            Command::Section(order) => order.refuse(sections::Refused::None(trouble)),
            Command::Flush(order) => drop(order.answer.send(Err(trouble))),
            Command::Reconfigure { group, audit, node, answer } => {
                self.takeover.replace((&*group).into());
                self.tracks.replace(&group.track);
                self.notify.replace(&group);
                privilege::be_heard_in_time(node.realtime_priority);
                (self.node, self.group, self.audit) = (*node, *group, audit);
                drop(answer.send(Ok(())));
            }
            Command::Flows(listing) => drop(listing.pages.try_send(Page { flows: Vec::new(), last: true })),
            Command::Role(_, answer) | Command::PeerDead { answer, .. } => drop(answer.send(Err(trouble))),
            Command::Switchover { answer, .. } => drop(answer.send(Err(trouble))),
            Command::Drain { cause, holds, answer } => drop(answer.send(self.drain(cause, holds))),
        }
    }

    /// A wish that holds needs no engine yet.
    fn drain(&mut self, cause: Cause, holds: bool) -> Result<(Role, Vec<String>), String> {
        if let Some((_, instance)) = self.group.keepalived() {
            return Err(driven::refusal(instance));
        }
        if self.group.profile == Profile::Classic {
            return Err(NO_SWITCH.to_owned());
        }
        self.draining.set(cause, holds);
        Ok((Role::Init, self.draining.names()))
    }

    fn status(&self, trouble: String) -> GroupStatus {
        let now = clock::now();
        let mut status = GroupStatus::waiting(self.group.sync_id, self.group.priority, trouble);
        status.profile = self.group.profile;
        status.tracks = self.tracks.rows(now);
        status.draining = self.draining.names();
        status.addresses = self.takeover.status();
        status.routes = self.takeover.routes();
        status.events = self.journal.count();
        status.last_events = self.journal.entries().map(|entry| EventRow::new(entry, now)).collect();
        status
    }

    fn driver(mut self, line: Box<dyn Line>) -> Result<Driver, StartError> {
        self.say_what_it_falls_back_to(&*line);
        let (node, group) = (&self.node, &self.group);
        let bridge = build::bridge(group)?;
        let frame_len = group.frame_len().unwrap_or(usize::MAX).min(line.limits().frame_len);
        let parts = Parts {
            engine: engine(node, group, frame_len)?,
            line,
            source: bridge.source,
            sink: bridge.sink,
            commit: group.commit,
            filter: group.flow_filter(),
            audit: AuditParts { inspector: bridge.inspector, orders: self.audit },
            takeover: Some(self.takeover),
            tracks: self.tracks,
            tuning: group.tuning(),
            notify: self.notify,
            desk: self.desk,
            journal: self.journal,
            dump_interval: group.dump_interval,
            advert_interval: group.advert_interval,
            wait: group.wait,
            frame_len,
            clock: Box::new(clock::now),
        };
        let driver = Driver::new(parts).drained_by(self.draining);
        Ok(match group.keepalived() {
            Some((fifo, instance)) => driver.driven_by(fifo, instance, group.advert_interval),
            None => driver,
        })
    }

    fn end(mut self) {
        self.takeover.finish();
        self.notify.state(notify::State::Stop, self.group.priority);
        self.notify.finish();
    }
}

/// The engine of the group's profile.
fn engine(node: &Node, group: &Group, frame_len: usize) -> Result<Protocol, ConfigError> {
    let now = clock::now();
    match group.profile {
        Profile::Ssyncp1 => {
            let config = group.engine_config(node, frame_len, clock::random_u64(), clock::random_u64());
            Ok(Engine::new(config, now)?.into())
        }
        Profile::Classic => {
            // An interface that has just vanished has no addresses; the driver sees to the rest.
            let interfaces = group.interfaces.iter().filter_map(|name| socket::interface(name).ok());
            let own_addresses = interfaces.flat_map(|interface| interface.ipv4).map(IpAddr::V4).collect();
            Ok(ClassicEngine::new(group.classic_config(node, own_addresses, clock::random_u64()), now).into())
        }
    }
}
