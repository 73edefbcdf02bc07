//! What a takeover means to the network: the addresses come up here, and the neighbours hear of it at once.
//!
//! ```text
//!   driver ──hold(true)──▶ thread:  RTM_NEWADDR, ARP ×2   ·250 ms·  ARP ×2  …  5 times in a second
//!          ──announce()──▶                       ARP ×2   ·250 ms·  ARP ×2  …  (IPv6: neighbour advertisements)
//!          ──hold(false)─▶          RTM_DELADDR
//!          ──replace(…)──▶          RTM_DELADDR of what is no longer wanted, RTM_NEWADDR of what is new
//! ```
//!
//! An IPv6 address is added without duplicate address detection (IFA_F_NODAD): its second of waiting would be a second of
//! blackout, and the node that had the address is dead or has given it up. The kernel says yes to it before it takes packets
//! for it (the address's local route is made later, by a worker): neighbours that heard of it at once would send into the
//! void, and our own neighbour solicitations from it would stay without an answer for a second. So it is announced when the
//! route is there ([`LOCAL_DEADLINE`]).
//!
//! The driver only says what it wishes, and never waits. The thread carries the *newest* wish out and tries again each
//! second for as long as the kernel's state is not the wished one; so no order of wishes, and no failure, leaves an
//! address where it must not be for good. A held address is added again each second, too: the kernel's "exists already"
//! is the cheapest proof that it is still there, and one that somebody has removed is back, announced and told
//! ([`Takeover::next_loss`]). Netlink connection, link addresses and packet sockets are fetched at the start: a takeover
//! is then a few system calls an address. At the start the wish is "not held", which removes what a dead predecessor
//! left behind; the same happens when the driver's thread dies, whatever it died of.

use crate::daemon::announce::{Announce, announcements};
use crate::daemon::settings::VirtualAddress;
use crate::daemon::status::AddressStatus;
use crate::time::Duration;
use futures_util::StreamExt;
use rtnetlink::packet_route::address::{AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType};
use rtnetlink::packet_route::route::RouteType;
use rtnetlink::{AddressMessageBuilder, Handle, RouteMessageBuilder};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use tokio::sync::watch;
use tokio::time::Instant;

/// Announcements of each address after a takeover; the first leaves at once.
pub const ANNOUNCEMENTS: u32 = 5;
/// Time between two of them.
pub const ANNOUNCEMENT_INTERVAL: Duration = Duration::from_millis(250);
/// Time after which a change that the kernel refused is tried again, and held addresses are looked at.
pub const RETRY: Duration = Duration::from_secs(1);
/// Longest time that announcements wait for the kernel to take packets for their IPv6 addresses.
pub const LOCAL_DEADLINE: Duration = Duration::from_millis(250);
/// Time between two looks whether it does.
const LOCAL_INTERVAL: Duration = Duration::from_micros(500);
/// Losses that wait to be told; more are only logged.
pub const LOSSES_MAX: usize = 16;
/// Longest time that the kernel may take to answer at the start.
pub const START_DEADLINE: Duration = Duration::from_secs(5);

/// Opens a way to send Ethernet frames on the interface with an index.
pub type OpenAnnouncer = fn(u32) -> io::Result<Box<dyn Announce>>;

/// The addresses of one group, and the thread that moves them.
#[derive(Debug)]
pub struct Takeover {
    wish: watch::Sender<Wish>,
    losses: mpsc::Receiver<String>,
    moves: mpsc::Receiver<Duration>,
    addresses: Addresses,
    thread: JoinHandle<()>,
}

/// The addresses of a group. One that two lists share keeps what is known of it.
type Addresses = Arc<[Arc<Address>]>;

/// What the driver wishes.
#[derive(Clone, Debug)]
struct Wish {
    /// Which addresses are meant.
    addresses: Addresses,
    /// The addresses shall be here.
    hold: bool,
    /// Since when.
    since: Instant,
    /// How often the neighbours were to be told anew.
    announcements: u64,
}

/// An address, and what is known of it.
#[derive(Debug)]
struct Address {
    wanted: VirtualAddress,
    held: AtomicU8,
}

impl Address {
    const UNKNOWN: u8 = 0;
    const ABSENT: u8 = 1;
    const HELD: u8 = 2;

    fn unknown(wanted: VirtualAddress) -> Arc<Self> {
        Arc::new(Address { wanted, held: AtomicU8::new(Self::UNKNOWN) })
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

impl Takeover {
    /// Starts the thread, in the network namespace of the caller, and returns when it has removed what was left behind.
    ///
    /// # Errors
    /// The operating system's error if there can be no thread or no netlink connection, `TimedOut` if the kernel does
    /// not answer.
    pub fn start(sync_id: u8, addresses: Vec<VirtualAddress>, open: OpenAnnouncer) -> io::Result<Self> {
        let addresses: Addresses = addresses.into_iter().map(Address::unknown).collect();
        let first = Wish { addresses: Arc::clone(&addresses), hold: false, since: Instant::now(), announcements: 0 };
        let (wish, wishes) = watch::channel(first);
        let (started, starting) = mpsc::sync_channel(1);
        let (loss, losses) = mpsc::sync_channel(LOSSES_MAX);
        let (moved, moves) = mpsc::sync_channel(LOSSES_MAX);
        let theirs = Arc::clone(&addresses);
        let body = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(started.send(Err(error))),
            };
            runtime.block_on(async move {
                match Mover::new(sync_id, theirs, open, loss, moved) {
                    Ok(mover) => mover.run(wishes, started).await,
                    Err(error) => drop(started.send(Err(error))),
                }
            });
        };
        let thread = std::thread::Builder::new().name(format!("takeover-{sync_id}")).spawn(body)?;
        match starting.recv_timeout(START_DEADLINE) {
            Ok(result) => result.map(|()| Takeover { wish, losses, moves, addresses, thread }),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the kernel does not answer about addresses")),
        }
    }

    /// Whether the addresses shall be here. Never blocks.
    pub fn hold(&self, hold: bool) {
        self.wish.send_modify(|wish| {
            if wish.hold != hold {
                (wish.hold, wish.since) = (hold, Instant::now());
            }
        });
    }

    /// Other addresses: those that are in both lists are not touched, the others go and come as the role asks for.
    /// Never blocks.
    pub fn replace(&mut self, wanted: &[VirtualAddress]) {
        let known = |one: &VirtualAddress| self.addresses.iter().find(|address| address.wanted == *one).cloned();
        let addresses: Addresses =
            wanted.iter().map(|one| known(one).unwrap_or_else(|| Address::unknown(one.clone()))).collect();
        self.addresses = Arc::clone(&addresses);
        self.wish.send_modify(|wish| wish.addresses = addresses);
    }

    /// Whether none of the addresses is here, as far as the kernel has said.
    pub fn is_withdrawn(&self) -> bool {
        self.addresses.iter().all(|address| address.held() == Some(false))
    }

    /// How long it took until every address was here, for the next takeover that has come so far.
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
        self.addresses.iter().map(|address| AddressStatus::new(&address.wanted, address.held())).collect()
    }

    /// The next sentence about an address that somebody else has removed, and that is back.
    pub fn next_loss(&self) -> Option<String> {
        self.losses.try_recv().ok()
    }

    /// Removes the addresses and returns when they are gone.
    pub fn finish(self) {
        drop(self.wish);
        if self.thread.join().is_err() {
            tracing::error!("the takeover thread panicked; the addresses may still be here");
        }
    }
}

/// An interface as it was when it was last looked up.
struct Device {
    index: u32,
    /// None if the link has no neighbours that could be told (loopback, tunnels, dummies).
    announcer: Option<(Box<dyn Announce>, [u8; 6])>,
}

/// The thread's own state.
struct Mover {
    sync_id: u8,
    addresses: Addresses,
    /// Addresses that are no longer wanted, and still here.
    parting: Vec<Arc<Address>>,
    kernel: Handle,
    devices: HashMap<String, Device>,
    open: OpenAnnouncer,
    losses: mpsc::SyncSender<String>,
    moves: mpsc::SyncSender<Duration>,
    /// The last refusal of each address, so that it is said once.
    refusals: HashMap<IpAddr, String>,
}

/// Announcements that are still to be made.
#[derive(Clone, Copy)]
struct Pending {
    left: u32,
    at: Instant,
}

impl Mover {
    fn new(
        sync_id: u8,
        addresses: Addresses,
        open: OpenAnnouncer,
        losses: mpsc::SyncSender<String>,
        moves: mpsc::SyncSender<Duration>,
    ) -> io::Result<Self> {
        let (connection, kernel, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        let (devices, refusals) = (HashMap::new(), HashMap::new());
        let parting = Vec::new();
        Ok(Mover { sync_id, addresses, parting, kernel, devices, open, losses, moves, refusals })
    }

    async fn run(mut self, mut wishes: watch::Receiver<Wish>, started: mpsc::SyncSender<io::Result<()>>) {
        self.find_devices().await;
        self.carry_out(false).await;
        // Nobody waits any longer if the kernel was too slow; then the wishes' sender is gone too.
        drop(started.send(Ok(())));
        let mut pending: Option<Pending> = None;
        let (mut announcements, mut all_here) = (0, false);
        loop {
            let wish = wishes.borrow_and_update().clone();
            let parted = self.adopt(&wish.addresses).await;
            let (settled, news) = self.carry_out(wish.hold).await;
            if wish.hold && settled && !all_here {
                // Nobody reads them fast enough if it is full; a measurement less is no harm.
                let _ = self.moves.try_send(wish.since.elapsed());
            }
            all_here = wish.hold && settled;
            let settled = settled && parted;
            let asked = std::mem::replace(&mut announcements, wish.announcements) != wish.announcements;
            if !wish.hold {
                pending = None;
            } else if news || asked {
                if asked {
                    (0..self.addresses.len()).for_each(|number| self.announce(number));
                }
                pending = Some(Pending { left: ANNOUNCEMENTS - 1, at: Instant::now() + ANNOUNCEMENT_INTERVAL });
            }
            let again_at = (wish.hold || !settled).then(|| Instant::now() + RETRY);
            if self.wait(&mut wishes, &mut pending, again_at).await.is_err() {
                self.carry_out(false).await;
                return;
            }
        }
    }

    /// Waits for another wish or the next look, announcing meanwhile; an error if nobody wishes any longer.
    async fn wait(
        &mut self,
        wishes: &mut watch::Receiver<Wish>,
        pending: &mut Option<Pending>,
        again_at: Option<Instant>,
    ) -> Result<(), watch::error::RecvError> {
        loop {
            let announce_at = pending.map(|pending| pending.at);
            tokio::select! {
                biased;
                changed = wishes.changed() => return changed,
                () = sleep_until(again_at) => return Ok(()),
                () = sleep_until(announce_at) => {
                    (0..self.addresses.len()).for_each(|number| self.announce(number));
                    *pending = pending.and_then(|Pending { left, at }| {
                        (left > 1).then_some(Pending { left: left - 1, at: at + ANNOUNCEMENT_INTERVAL })
                    });
                }
            }
        }
    }

    /// Takes another list of addresses; what is not in it goes, and is tried again until it has gone. Whether it has.
    async fn adopt(&mut self, wanted: &Addresses) -> bool {
        if !Arc::ptr_eq(&self.addresses, wanted) {
            let stays = |old: &&Arc<Address>| wanted.iter().any(|new| new.wanted == old.wanted);
            self.parting.extend(self.addresses.iter().filter(|old| !stays(old)).cloned());
            self.parting.retain(|old| !stays(&old));
            self.addresses = Arc::clone(wanted);
            self.find_devices().await;
        }
        for address in std::mem::take(&mut self.parting) {
            match self.move_one(&address.wanted, false).await {
                Ok(changed) => self.tell(&address.wanted, None, false, changed),
                Err(error) => {
                    self.refused(&address.wanted, false, &error);
                    self.parting.push(address);
                }
            }
        }
        self.parting.is_empty()
    }

    /// Makes the kernel's state the wished one. Whether it now is, and whether an address came up.
    async fn carry_out(&mut self, hold: bool) -> (bool, bool) {
        let (mut settled, mut news, mut late) = (true, false, Vec::new());
        for number in 0..self.addresses.len() {
            let before = self.addresses[number].held();
            // One that is held is looked at all the same.
            if before == Some(false) && !hold {
                continue;
            }
            let wanted = self.addresses[number].wanted.clone();
            match self.move_one(&wanted, hold).await {
                Ok(changed) => {
                    self.addresses[number].set_held(hold);
                    self.refusals.remove(&wanted.address);
                    if hold && (changed || before != Some(true)) {
                        news = true;
                        match wanted.address {
                            // The kernel takes packets for it at once.
                            IpAddr::V4(_) => self.announce(number),
                            IpAddr::V6(address) => late.push((number, address)),
                        }
                    }
                    self.tell(&wanted, before, hold, changed);
                }
                Err(error) => {
                    settled = false;
                    self.addresses[number].forget();
                    self.refused(&wanted, hold, &error);
                }
            }
        }
        // All of them first: what one announcement brings may need another address at once, as that of a gateway.
        let until = Instant::now() + LOCAL_DEADLINE;
        for (_, address) in &late {
            self.until_local(*address, until).await;
        }
        late.iter().for_each(|(number, _)| self.announce(*number));
        (settled, news)
    }

    /// Waits until the kernel takes packets for an address that it has been given.
    async fn until_local(&self, address: Ipv6Addr, until: Instant) {
        while !self.is_local(address).await {
            if Instant::now() >= until {
                tracing::warn!(
                    group = self.sync_id,
                    "{address} is announced, but the kernel takes no packets for it yet"
                );
                return;
            }
            tokio::time::sleep(LOCAL_INTERVAL).await;
        }
    }

    async fn is_local(&self, address: Ipv6Addr) -> bool {
        let question = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(address, 128).build();
        let answer = self.kernel.route().get(question).execute().next().await;
        matches!(answer, Some(Ok(route)) if route.header.kind == RouteType::Local)
    }

    /// Says what has become of an address.
    fn tell(&self, wanted: &VirtualAddress, before: Option<bool>, hold: bool, changed: bool) {
        let group = self.sync_id;
        match (hold, changed) {
            (true, true) if before == Some(true) => {
                let text = format!("address {wanted} was removed by somebody else; it is back");
                if let Err(mpsc::TrySendError::Full(text)) = self.losses.try_send(text) {
                    tracing::warn!(group, "{text}");
                }
            }
            (true, true) => tracing::info!(group, "address {wanted} added"),
            (true, false) if before == Some(true) => {}
            (true, false) => tracing::warn!(group, "address {wanted} was there already"),
            (false, true) => tracing::info!(group, "address {wanted} removed"),
            (false, false) => {}
        }
    }

    /// Says a refusal once, until another reason or a success comes.
    fn refused(&mut self, wanted: &VirtualAddress, hold: bool, error: &io::Error) {
        let doing = if hold { "added" } else { "removed" };
        let reason = format!("address {wanted} cannot be {doing}: {error}; tried again each second");
        if self.refusals.get(&wanted.address) != Some(&reason) {
            tracing::error!(group = self.sync_id, "{reason}");
            self.refusals.insert(wanted.address, reason);
        }
    }

    /// Adds or removes one address; whether that changed anything.
    async fn move_one(&mut self, wanted: &VirtualAddress, hold: bool) -> io::Result<bool> {
        // An interface that was made anew has another index: the second attempt looks it up again.
        for attempt in 0..2 {
            if attempt == 1 || !self.devices.contains_key(&wanted.device) {
                self.find_device(&wanted.device).await?;
            }
            let Some(device) = self.devices.get(&wanted.device) else {
                // Without an interface there is no address on it.
                return if hold { Err(no_interface(&wanted.device)) } else { Ok(false) };
            };
            match self.request(device.index, wanted, hold).await {
                Ok(()) => return Ok(true),
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {
                    self.devices.remove(&wanted.device);
                }
                Err(error) if hold && error.raw_os_error() == Some(libc::EEXIST) => return Ok(false),
                Err(error) if !hold && error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        if hold { Err(no_interface(&wanted.device)) } else { Ok(false) }
    }

    async fn request(&self, index: u32, wanted: &VirtualAddress, hold: bool) -> io::Result<()> {
        let done = if hold {
            let mut request = self.kernel.address().add(index, wanted.address, wanted.prefix_len);
            if wanted.address.is_ipv6() {
                request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
            }
            request.execute().await
        } else {
            self.kernel.address().del(address_message(index, wanted)).execute().await
        };
        done.map_err(kernel_error)
    }

    async fn find_devices(&mut self) {
        for number in 0..self.addresses.len() {
            let name = self.addresses[number].wanted.device.clone();
            if !self.devices.contains_key(&name)
                && let Err(error) = self.find_device(&name).await
            {
                tracing::warn!(group = self.sync_id, "interface {name} cannot be looked up: {error}");
            }
        }
    }

    /// Looks an interface up and opens its announcer; afterwards it is in `devices` if it exists.
    async fn find_device(&mut self, name: &str) -> io::Result<()> {
        self.devices.remove(name);
        let mut answers = self.kernel.link().get().match_name(name).execute();
        let link = match answers.next().await {
            Some(Ok(link)) => link,
            None => return Ok(()),
            Some(Err(error)) => match kernel_error(error) {
                error if error.raw_os_error() == Some(libc::ENODEV) => return Ok(()),
                error => return Err(error),
            },
        };
        let mac = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Address(bytes) => <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            _ => None,
        });
        let index = link.header.index;
        let speaks_arp =
            link.header.link_layer_type == LinkLayerType::Ether && !link.header.flags.contains(LinkFlags::Noarp);
        let announcer = match mac.filter(|_| speaks_arp) {
            None => None,
            Some(mac) => match (self.open)(index) {
                Ok(announcer) => Some((announcer, mac)),
                Err(error) => {
                    tracing::error!(group = self.sync_id, "nobody can be told about addresses on {name}: {error}");
                    None
                }
            },
        };
        self.devices.insert(name.to_owned(), Device { index, announcer });
        Ok(())
    }

    /// Announces an address, if it is here.
    fn announce(&mut self, number: usize) {
        let address = &self.addresses[number];
        let device = self.devices.get_mut(&address.wanted.device).filter(|_| address.held() == Some(true));
        let Some((announcer, mac)) = device.and_then(|device| device.announcer.as_mut()) else { return };
        let wanted = &address.wanted;
        for frame in announcements(*mac, wanted.address, wanted.address.is_ipv6() && forwards_ipv6(&wanted.device)) {
            if let Err(error) = announcer.send(&frame) {
                tracing::warn!(group = self.sync_id, "address {} could not be announced: {error}", address.wanted);
            }
        }
    }
}

/// What names an address on an interface to the kernel.
fn address_message(index: u32, wanted: &VirtualAddress) -> AddressMessage {
    match wanted.address {
        IpAddr::V4(address) => {
            AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(address, wanted.prefix_len).build()
        }
        IpAddr::V6(address) => {
            AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(address, wanted.prefix_len).build()
        }
    }
}

/// Whether the machine is a router on this interface (RFC 4861 section 6.2.1, IsRouter).
fn forwards_ipv6(device: &str) -> bool {
    std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{device}/forwarding")).is_ok_and(|text| text.trim() != "0")
}

/// For ever, if there is no instant to wait for.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn no_interface(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("there is no interface {name}"))
}

fn kernel_error(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}
