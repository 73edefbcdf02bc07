//! What a takeover means to the network: addresses and routes come up here, and the neighbours hear of it at once.
//!
//! ```text
//!   driver ──hold(true)──▶ thread:  guard lifted, RTM_NEWADDR, ARP ×2   ·250 ms·  ARP ×2  …  5 times in a second, RTM_NEWROUTE
//!          ──announce()──▶                       ARP ×2   ·250 ms·  ARP ×2  …  (IPv6: neighbour advertisements)
//!          ──hold(false)─▶          guard shut, RTM_DELROUTE, RTM_DELADDR
//!          ──replace(…)──▶          RTM_DELADDR of what is no longer wanted, RTM_NEWADDR of what is new
//! ```
//!
//! [`address`] moves addresses, [`route`] routes, [`mac`] the link address, and [`guard`] drops what must not be answered
//! yet; `mover` is the thread.
//!
//! The driver only says what it wishes, and never waits. The thread carries the *newest* wish out and tries again each
//! second for as long as the kernel's state is not the wished one; so no order of wishes, and no failure, leaves an
//! address where it must not be for good. What is held is added again each second, too: the kernel's "exists already"
//! is the cheapest proof that it is still there, and what somebody has removed is back, announced and told
//! ([`Takeover::next_told`]). Netlink connection, link addresses and packet sockets are fetched at the start: a takeover
//! is then a few system calls an address. At the start the wish is "not held", which removes what a dead predecessor
//! left behind; the same happens when the driver's thread dies, whatever it died of.

mod address;
pub mod guard;
mod mac;
mod mover;
mod route;

use self::mover::Mover;
use crate::daemon::announce::Announce;
use crate::daemon::journal::Weight;
use crate::daemon::settings::{Group, Moves, VirtualAddress, VirtualRoute};
use crate::daemon::status::{AddressStatus, RouteStatus};
use crate::daemon::{privilege, sandbox};
use crate::sys::schedule;
use crate::time::Duration;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use tokio::sync::watch;
use tokio::time::Instant;

pub use self::route::PROTOCOL as ROUTE_PROTOCOL;

/// Announcements of each address after a takeover; the first leaves at once.
pub const ANNOUNCEMENTS: u32 = 5;
/// Time between two of them.
pub const ANNOUNCEMENT_INTERVAL: Duration = Duration::from_millis(250);
/// Time after which a change that the kernel refused is tried again, and held addresses are looked at.
pub const RETRY: Duration = Duration::from_secs(1);
/// Sentences that wait to be told; more are only logged.
pub const TOLD_MAX: usize = 16;
/// Longest time that the kernel may take to answer at the start.
pub const START_DEADLINE: Duration = Duration::from_secs(5);

/// Opens a way to send Ethernet frames on the interface with an index.
pub type OpenAnnouncer = fn(u32) -> io::Result<Box<dyn Announce>>;

/// Everything that a takeover moves.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// The addresses.
    pub addresses: Vec<VirtualAddress>,
    /// What else.
    pub moves: Moves,
}

impl From<&Group> for Plan {
    fn from(group: &Group) -> Self {
        Plan { addresses: group.addresses.clone(), moves: group.moves.clone() }
    }
}

impl Plan {
    /// The group's addresses, whoever moves them.
    fn every_address(&self) -> Vec<IpAddr> {
        let moved = self.addresses.iter().map(|held| held.address);
        moved.chain(self.moves.foreign_addresses.iter().copied()).collect()
    }
}

/// Something that an operator should hear of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    /// How grave it is.
    pub weight: Weight,
    /// The event's name.
    pub event: &'static str,
    /// What has happened, in a sentence.
    pub text: String,
}

/// What one group's takeovers move, and the thread that moves it.
#[derive(Debug)]
pub struct Takeover {
    wish: watch::Sender<Wish>,
    told: mpsc::Receiver<Told>,
    moves: mpsc::Receiver<Duration>,
    orders: Arc<Orders>,
    thread: JoinHandle<()>,
}

/// A plan that is carried out. What two of them share keeps what is known of it.
#[derive(Debug)]
struct Orders {
    plan: Plan,
    /// Addresses, then routes: the order in which they come; they go in the opposite one.
    items: Vec<Arc<Item>>,
}

/// What the driver wishes.
#[derive(Clone, Debug)]
struct Wish {
    orders: Arc<Orders>,
    /// The addresses shall be here.
    hold: bool,
    /// Since when.
    since: Instant,
    /// Unknown connections shall not be answered, if there is a guard at all.
    guard: bool,
    /// How often the neighbours were to be told anew.
    announcements: u64,
}

/// One thing that moves.
#[derive(Clone, PartialEq, Eq, Debug)]
enum What {
    Address(VirtualAddress),
    Route(VirtualRoute),
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Address(address) => write!(f, "address {address}"),
            What::Route(route) => write!(f, "route {route}"),
        }
    }
}

/// One thing that moves, and what is known of it.
#[derive(Debug)]
struct Item {
    what: What,
    held: AtomicU8,
}

impl Item {
    const UNKNOWN: u8 = 0;
    const ABSENT: u8 = 1;
    const HELD: u8 = 2;

    fn unknown(what: What) -> Arc<Self> {
        Arc::new(Item { what, held: AtomicU8::new(Self::UNKNOWN) })
    }

    fn forget(&self) {
        self.held.store(Self::UNKNOWN, Ordering::Relaxed);
    }

    fn held(&self) -> Option<bool> {
        match self.held.load(Ordering::Relaxed) {
            Self::UNKNOWN => None,
            state => Some(state == Self::HELD),
        }
    }

    fn set_held(&self, held: bool) {
        self.held.store(if held { Self::HELD } else { Self::ABSENT }, Ordering::Relaxed);
    }
}

impl Orders {
    /// The orders of a plan; what is known of things that stay is taken from the orders before.
    fn new(plan: Plan, before: &[Arc<Item>]) -> Arc<Self> {
        let addresses = plan.addresses.iter().cloned().map(What::Address);
        let all = addresses.chain(plan.moves.routes.iter().cloned().map(What::Route));
        let known = |what: &What| before.iter().find(|item| item.what == *what).cloned();
        let items = all.map(|what| known(&what).unwrap_or_else(|| Item::unknown(what))).collect();
        Arc::new(Orders { plan, items })
    }
}

impl Takeover {
    /// Starts the thread, in the network namespace of the caller, and returns when it has removed what was left behind.
    ///
    /// # Errors
    /// The operating system's error if there can be no thread or no netlink connection, `TimedOut` if the kernel does
    /// not answer.
    pub fn start(sync_id: u8, plan: Plan, open: OpenAnnouncer) -> io::Result<Self> {
        let orders = Orders::new(plan, &[]);
        let (since, theirs) = (Instant::now(), Arc::clone(&orders));
        let first = Wish { orders: Arc::clone(&orders), hold: false, since, guard: true, announcements: 0 };
        let (wish, wishes) = watch::channel(first);
        let (started, starting) = mpsc::sync_channel(1);
        let (tell, told) = mpsc::sync_channel(TOLD_MAX);
        let (moved, moves) = mpsc::sync_channel(TOLD_MAX);
        // As soon as the group's own thread, which is the caller: a role without its addresses is no takeover.
        let priority = schedule::priority();
        let body = move || {
            sandbox::opens_no_link();
            privilege::be_heard_in_time(priority);
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(started.send(Err(error))),
            };
            runtime.block_on(async move {
                match Mover::new(sync_id, theirs, open, tell, moved) {
                    Ok(mover) => mover.run(wishes, started).await,
                    Err(error) => drop(started.send(Err(error))),
                }
            });
        };
        let thread = std::thread::Builder::new().name(format!("takeover-{sync_id}")).spawn(body)?;
        match starting.recv_timeout(START_DEADLINE) {
            Ok(result) => result.map(|()| Takeover { wish, told, moves, orders, thread }),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the kernel does not answer about addresses")),
        }
    }

    /// Whether addresses and routes shall be here. Never blocks.
    pub fn hold(&self, hold: bool) {
        self.wish.send_if_modified(|wish| {
            let other = wish.hold != hold;
            if other {
                (wish.hold, wish.since) = (hold, Instant::now());
            }
            other
        });
    }

    /// Whether unknown connections of the addresses shall go without an answer, where the plan has a guard; at the start they
    /// do. Never blocks.
    pub fn guard(&self, guard: bool) {
        self.wish.send_if_modified(|wish| std::mem::replace(&mut wish.guard, guard) != guard);
    }

    /// Another plan: what is in both is not touched, the rest goes and comes as the role asks for. Whether there is a virtual
    /// MAC stays as it was at the start. Never blocks.
    pub fn replace(&mut self, plan: Plan) {
        if self.orders.plan == plan {
            return;
        }
        self.orders = Orders::new(plan, &self.orders.items);
        self.wish.send_modify(|wish| wish.orders = Arc::clone(&self.orders));
    }

    /// Tells whoever waits elsewhere whether everything is here.
    pub fn arrival(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let orders = Arc::clone(&self.orders);
        move || orders.items.iter().all(|item| item.held() == Some(true))
    }

    /// Whether nothing of it is here, as far as the kernel has said.
    pub fn is_withdrawn(&self) -> bool {
        self.orders.items.iter().all(|item| item.held() == Some(false))
    }

    /// How long it took until everything was here, for the next takeover that has come so far.
    pub fn next_move(&self) -> Option<Duration> {
        self.moves.try_recv().ok()
    }

    /// Tells the neighbours anew where the addresses are, if they are here: another node may have held them meanwhile
    /// and told its own. Never blocks.
    pub fn announce(&self) {
        self.wish.send_modify(|wish| wish.announcements += 1);
    }

    /// Which addresses are here.
    pub fn status(&self) -> Vec<AddressStatus> {
        let address = |item: &Arc<Item>| match &item.what {
            What::Address(address) => Some(AddressStatus::new(address, item.held())),
            What::Route(_) => None,
        };
        self.orders.items.iter().filter_map(address).collect()
    }

    /// Which routes are here.
    pub fn routes(&self) -> Vec<RouteStatus> {
        let route = |item: &Arc<Item>| match &item.what {
            What::Address(_) => None,
            What::Route(route) => Some(RouteStatus { route: route.to_string(), held: item.held() }),
        };
        self.orders.items.iter().filter_map(route).collect()
    }

    /// The next thing to be told: that somebody else has removed what is held, and that it is back; that the kernel refuses
    /// something.
    pub fn next_told(&self) -> Option<Told> {
        self.told.try_recv().ok()
    }

    /// Removes everything and returns when it is gone.
    pub fn finish(self) {
        drop(self.wish);
        if self.thread.join().is_err() {
            tracing::error!("the takeover thread panicked; the addresses may still be here");
        }
    }
}
