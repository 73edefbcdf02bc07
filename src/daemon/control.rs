//! How others talk to the thread that drives a group: a bounded queue of commands, a waker, and an answer channel in
//! each command. The loop answers between two turns and never waits for who asked.
//!
//! ```text
//!   http ──try_send──▶ [ at most 16 commands ] ──▶ driver
//!        ◀──────────── oneshot, or pages of flows ──┘
//! ```

use crate::daemon::answers::FlushRow;
use crate::daemon::audit::AuditOrders;
use crate::daemon::draining::Cause;
use crate::daemon::driven::News;
use crate::daemon::flows::FlowFilter;
use crate::daemon::measures::Measures;
use crate::daemon::sections;
use crate::daemon::settings::{Group, Node};
use crate::daemon::status::GroupStatus;
use crate::daemon::who::Who;
use crate::engine::{Flush, Role, RoleRequest};
use crate::flow::Flow;
use crate::sys::clock;
use crate::sys::poll::Waker;
use crate::time::{Duration, Instant};
use crate::wire::NodeId;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::oneshot;

/// Commands that may wait for one driver.
pub const QUEUE_MAX: usize = 16;
/// Slots of the table, taken or empty, that one turn looks at for a listing.
pub const PAGE_SLOTS: u32 = 4096;
/// Listings that one driver serves at the same time.
pub const LISTINGS_MAX: usize = 4;
/// Flushes that one driver waits for at the same time.
pub const FLUSHES_MAX: usize = 4;

/// What a driver can be asked.
#[derive(Debug)]
pub enum Command {
    /// The state in one picture.
    Status(oneshot::Sender<GroupStatus>),
    /// The flows of the table.
    Flows(Listing),
    /// The owner's wish for the role; the answer is the role right after it was told.
    Role(RoleRequest, oneshot::Sender<Result<Role, String>>),
    /// The state, and all that was measured.
    Measures(oneshot::Sender<Measures>),
    /// The table is to be proven anew, walked as a whole if `full`; the answer is how many buckets are in question.
    Resync {
        /// Whether every bucket is walked although the tables may be equal.
        full: bool,
        /// Where the answer goes.
        answer: oneshot::Sender<Result<u32, String>>,
    },
    /// Whoever is master gives the role away, to this node if one is named; a backup asks for it, if it may.
    Switchover {
        /// To whom.
        to: Option<Who>,
        /// Whether a backup asks its master for the role.
        asks: bool,
        /// Where the answer goes: who is to be master, or nobody because this node is backup and was not to ask.
        answer: oneshot::Sender<Result<Option<NodeId>, String>>,
    },
    /// There is a reason to be without the role, or there is that reason no more; the answer is the role, and all reasons.
    Drain {
        /// Which reason.
        cause: Cause,
        /// Whether it holds.
        holds: bool,
        /// Where the answer goes.
        answer: oneshot::Sender<Result<(Role, Vec<String>), String>>,
    },
    /// The operator swears that a node is dead; the answer is this node's role right after that.
    PeerDead {
        /// Which node.
        node: NodeId,
        /// Where the answer goes.
        answer: oneshot::Sender<Result<Role, String>>,
    },
    /// Something about entries of sections.
    Section(sections::Order),
    /// Somebody waits until what was submitted has arrived.
    Flush(FlushOrder),
    /// Other settings of the same group and its node, of which those are applied that can be.
    Reconfigure {
        /// All settings of the group.
        group: Box<Group>,
        /// What its audit is told.
        audit: AuditOrders,
        /// Those of the node: its secrets, and the thread's real-time priority.
        node: Box<Node>,
        /// Where the answer goes.
        answer: oneshot::Sender<Result<(), String>>,
    },
}

/// Somebody who waits until what was submitted so far has arrived.
#[derive(Debug)]
pub struct FlushOrder {
    /// When it is no longer waited for.
    pub deadline: Instant,
    /// When the driver heard of it, and what it then marked.
    pub mark: Option<(Instant, Flush)>,
    /// Where the answer goes: what was reached, or why it cannot be.
    pub answer: oneshot::Sender<Result<FlushRow, String>>,
}

/// A listing of flows that is being served, one page a turn. It is no snapshot: what changes meanwhile may be missed or
/// be seen twice, as in `conntrack -L`.
#[derive(Debug)]
pub struct Listing {
    /// Which flows.
    pub filter: FlowFilter,
    /// How many more are wanted.
    pub limit: usize,
    /// Where the pages go; the asker closes it when it has heard enough.
    pub pages: tokio::sync::mpsc::Sender<Page>,
    /// The slot of the table that is looked at next.
    pub slot: u32,
}

/// Some flows of a listing. A listing whose pages end without a last one was cut off.
#[derive(Debug)]
pub struct Page {
    /// The flows; may be none.
    pub flows: Vec<Flow>,
    /// Nothing comes after these.
    pub last: bool,
}

/// Why a driver did not take a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unanswered {
    /// Its queue is full.
    #[error("the group is busy")]
    Busy,
    /// Its thread has ended.
    #[error("the group has stopped")]
    Stopped,
    /// It did not answer in time.
    #[error("the group does not answer")]
    Silent,
}

/// The asking side; cheap to clone.
#[derive(Clone, Debug)]
pub struct GroupHandle {
    /// Which group.
    pub sync_id: u8,
    commands: mpsc::SyncSender<Command>,
    shared: Arc<Shared>,
}

/// The driver's side.
#[derive(Debug)]
pub struct GroupDesk {
    /// Which group.
    pub sync_id: u8,
    commands: mpsc::Receiver<Command>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    waker: Waker,
    stop: AtomicBool,
    turned_at: AtomicU64,
    /// What keepalived says, until the loop has taken it: only the newest counts.
    news: Mutex<Option<News>>,
}

/// Wakes a driver that may have ended meanwhile.
#[derive(Clone, Debug)]
pub struct Alarm(Weak<Shared>);

impl Alarm {
    /// Wakes it; whether it was still there.
    pub fn ring(&self) -> bool {
        self.0.upgrade().is_some_and(|shared| {
            shared.waker.wake();
            true
        })
    }
}

/// A new pair of handle and desk.
///
/// # Errors
/// The operating system's error (no descriptors left).
pub fn desk(sync_id: u8) -> std::io::Result<(GroupHandle, GroupDesk)> {
    let (sender, receiver) = mpsc::sync_channel(QUEUE_MAX);
    let turned_at = AtomicU64::new(clock::now().as_nanos());
    let (waker, stop, news) = (Waker::new()?, AtomicBool::new(false), Mutex::new(None));
    let shared = Arc::new(Shared { waker, stop, turned_at, news });
    let handle = GroupHandle { sync_id, commands: sender, shared: Arc::clone(&shared) };
    Ok((handle, GroupDesk { sync_id, commands: receiver, shared }))
}

impl GroupHandle {
    /// Puts a command into the queue and wakes the driver.
    ///
    /// # Errors
    /// [`Unanswered::Busy`] or [`Unanswered::Stopped`].
    pub fn send(&self, command: Command) -> Result<(), Unanswered> {
        self.commands.try_send(command).map_err(|error| match error {
            mpsc::TrySendError::Full(_) => Unanswered::Busy,
            mpsc::TrySendError::Disconnected(_) => Unanswered::Stopped,
        })?;
        self.shared.waker.wake();
        Ok(())
    }

    /// The same, and tries again until `patience` has passed if the queue is full.
    ///
    /// # Errors
    /// As for [`GroupHandle::send`].
    pub fn send_patiently(&self, command: Command, patience: Duration) -> Result<(), Unanswered> {
        let until = clock::now() + patience;
        let mut command = command;
        loop {
            match self.commands.try_send(command) {
                Ok(()) => break,
                Err(mpsc::TrySendError::Disconnected(_)) => return Err(Unanswered::Stopped),
                Err(mpsc::TrySendError::Full(_)) if clock::now() >= until => return Err(Unanswered::Busy),
                Err(mpsc::TrySendError::Full(back)) => command = back,
            }
            self.shared.waker.wake();
            std::thread::sleep(Duration::from_millis(1));
        }
        self.shared.waker.wake();
        Ok(())
    }

    /// Wakes the driver: there is room for another page.
    pub fn wake(&self) {
        self.shared.waker.wake();
    }

    /// Leaves what keepalived says for the driver, in the place of what it has not taken yet.
    pub fn drive(&self, news: News) {
        *self.shared.news.lock().unwrap_or_else(PoisonError::into_inner) = Some(news);
        self.shared.waker.wake();
    }

    /// Asks the driver to say goodbye and end.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.waker.wake();
    }

    /// Time since the loop last turned.
    pub fn idle_for(&self, now: Instant) -> Duration {
        now.since(Instant::from_nanos(self.shared.turned_at.load(Ordering::Relaxed)))
    }
}

impl GroupDesk {
    /// The next command, if one waits.
    pub fn next(&self) -> Option<Command> {
        self.commands.try_recv().ok()
    }

    /// What keepalived has said since this was asked last.
    pub fn news(&self) -> Option<News> {
        self.shared.news.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What wakes the driver.
    pub fn waker(&self) -> &Waker {
        &self.shared.waker
    }

    /// A way to wake this driver for whoever has something for it.
    pub fn alarm(&self) -> Alarm {
        Alarm(Arc::downgrade(&self.shared))
    }

    /// Whether the driver shall end.
    pub fn stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Acquire)
    }

    /// The loop has turned.
    pub fn turned(&self, now: Instant) {
        self.shared.turned_at.store(now.as_nanos(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_nobody_reads_refuses_instead_of_growing() {
        let (handle, desk) = desk(51).unwrap();
        for _ in 0..16 {
            handle.send(Command::Status(oneshot::channel().0)).unwrap();
        }
        assert_eq!(handle.send(Command::Status(oneshot::channel().0)), Err(Unanswered::Busy));
        assert!(desk.next().is_some());
        handle.send(Command::Status(oneshot::channel().0)).unwrap();
        drop(desk);
        assert_eq!(handle.send(Command::Status(oneshot::channel().0)), Err(Unanswered::Stopped));
    }

    #[test]
    fn of_what_keepalived_says_only_the_newest_waits_and_it_is_taken_once() {
        let (handle, desk) = desk(51).unwrap();
        assert_eq!(desk.news(), None);
        for malformed in 0..100 {
            let counters = crate::daemon::driven::Counters { malformed, ..Default::default() };
            handle.drive(News { counters, ..News::default() });
        }
        assert_eq!(desk.news().unwrap().counters.malformed, 99);
        assert_eq!(desk.news(), None);
    }

    #[test]
    fn a_loop_that_stopped_turning_is_seen() {
        let (handle, desk) = desk(51).unwrap();
        desk.turned(Instant::from_nanos(5_000_000_000));
        assert_eq!(handle.idle_for(Instant::from_nanos(8_000_000_000)), Duration::from_secs(3));
        assert!(!desk.stopped());
        handle.stop();
        assert!(desk.stopped());
    }
}
