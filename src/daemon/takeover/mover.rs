//! The thread that carries wishes out, again and again until the kernel agrees.

use super::address::LOCAL_DEADLINE;
use super::guard::Guard;
use super::mac::VirtualLinks;
use super::{ANNOUNCEMENT_INTERVAL, ANNOUNCEMENTS, Item, OpenAnnouncer, Orders, RETRY, Told, What, Wish};
use crate::daemon::announce::{Announce, announcements};
use crate::daemon::journal::Weight;
use crate::daemon::settings::VirtualAddress;
use crate::time::Duration;
use futures_util::StreamExt;
use rtnetlink::Handle;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType};
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, mpsc};
use tokio::sync::watch;
use tokio::time::Instant;

/// An interface as it was when it was last looked up.
pub(super) struct Device {
    pub(super) index: u32,
    /// None if the link has no neighbours that could be told (loopback, tunnels, dummies).
    announcer: Option<(Box<dyn Announce>, [u8; 6])>,
}

/// The thread's own state.
pub(super) struct Mover {
    pub(super) sync_id: u8,
    pub(super) orders: Arc<Orders>,
    /// What is no longer wanted, and still here.
    parting: Vec<Arc<Item>>,
    pub(super) kernel: Handle,
    pub(super) devices: HashMap<String, Device>,
    pub(super) virtual_links: VirtualLinks,
    guard: Guard,
    open: OpenAnnouncer,
    tell: mpsc::SyncSender<Told>,
    moves: mpsc::SyncSender<Duration>,
    /// The last refusal of each thing, so that it is said once.
    refusals: HashMap<String, String>,
}

/// Announcements that are still to be made.
#[derive(Clone, Copy)]
struct Pending {
    /// How many; those of a refresh have no end.
    left: Option<u32>,
    at: Instant,
}

impl Mover {
    pub(super) fn new(
        sync_id: u8,
        orders: Arc<Orders>,
        open: OpenAnnouncer,
        tell: mpsc::SyncSender<Told>,
        moves: mpsc::SyncSender<Duration>,
    ) -> io::Result<Self> {
        let (connection, kernel, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        let virtual_links = VirtualLinks::new(sync_id, orders.plan.moves.virtual_mac);
        Ok(Mover {
            sync_id,
            orders,
            parting: Vec::new(),
            kernel,
            devices: HashMap::new(),
            virtual_links,
            guard: Guard::new(sync_id),
            open,
            tell,
            moves,
            refusals: HashMap::new(),
        })
    }

    pub(super) async fn run(mut self, mut wishes: watch::Receiver<Wish>, started: mpsc::SyncSender<io::Result<()>>) {
        self.stand_guard(true);
        self.remove_virtual_leftovers().await;
        self.find_devices().await;
        // From the interfaces themselves: a predecessor may have had no virtual ones.
        self.carry_out(false).await;
        self.make_virtual_links().await;
        // Nobody waits any longer if the kernel was too slow; then the wishes' sender is gone too.
        drop(started.send(Ok(())));
        let mut pending: Option<Pending> = None;
        let (mut announcements, mut all_here) = (0, false);
        loop {
            let wish = wishes.borrow_and_update().clone();
            let parted = self.adopt(&wish.orders).await;
            // Shut before anything goes, lifted before anything comes.
            let guarded = self.stand_guard(wish.guard);
            let (settled, news) = self.carry_out(wish.hold).await;
            self.guard.clear_away();
            if wish.hold && settled && !all_here {
                // Nobody reads them fast enough if it is full; a measurement less is no harm.
                let _ = self.moves.try_send(wish.since.elapsed());
            }
            all_here = wish.hold && settled;
            let settled = settled && parted && guarded;
            let asked = std::mem::replace(&mut announcements, wish.announcements) != wish.announcements;
            if !wish.hold {
                pending = None;
            } else if news || asked {
                if asked {
                    self.announce_all();
                }
                pending = Some(Pending { left: Some(ANNOUNCEMENTS - 1), at: Instant::now() + ANNOUNCEMENT_INTERVAL });
            } else if pending.is_none() {
                pending = self.refresh();
            }
            let again_at = (wish.hold || !settled).then(|| Instant::now() + RETRY);
            if self.wait(&mut wishes, &mut pending, again_at).await.is_err() {
                self.carry_out(false).await;
                self.remove_virtual_links().await;
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
                    self.announce_all();
                    *pending = match *pending {
                        Some(Pending { left: Some(left), at }) if left > 1 => {
                            Some(Pending { left: Some(left - 1), at: at + ANNOUNCEMENT_INTERVAL })
                        }
                        _ => self.refresh(),
                    };
                }
            }
        }
    }

    /// The next announcement that is nobody's news.
    fn refresh(&self) -> Option<Pending> {
        let every = self.orders.plan.moves.announce_refresh;
        (!every.is_zero()).then(|| Pending { left: None, at: Instant::now() + every })
    }

    /// Takes another plan; what is not in it goes, and is tried again until it has gone. Whether it has.
    async fn adopt(&mut self, orders: &Arc<Orders>) -> bool {
        if !Arc::ptr_eq(&self.orders, orders) {
            let stays = |old: &&Arc<Item>| orders.items.iter().any(|new| new.what == old.what);
            self.parting.extend(self.orders.items.iter().rev().filter(|old| !stays(old)).cloned());
            self.parting.retain(|old| !stays(&old));
            self.orders = Arc::clone(orders);
            self.find_devices().await;
            self.make_virtual_links().await;
        }
        for item in std::mem::take(&mut self.parting) {
            match self.move_one(&item.what, false).await {
                Ok(changed) => self.tell_of(&item.what, None, false, changed),
                Err(error) => {
                    self.refused(&item.what, false, &error);
                    self.parting.push(item);
                }
            }
        }
        self.parting.is_empty()
    }

    /// Shuts or lifts the guard; whether it now is as it should be.
    fn stand_guard(&mut self, wanted: bool) -> bool {
        if !wanted || !self.orders.plan.moves.guard {
            self.guard.lift();
            return true;
        }
        let subject = "guard".to_owned();
        match self.guard.shut(self.orders.plan.every_address()) {
            Ok(()) => {
                self.refusals.remove(&subject);
                true
            }
            Err(error) => {
                self.complain(subject, "GuardRefused", format!("packets cannot be held back: {error}"));
                false
            }
        }
    }

    /// Makes the kernel's state the wished one. Whether it now is, and whether an address came up.
    async fn carry_out(&mut self, hold: bool) -> (bool, bool) {
        let (mut settled, mut news, mut late) = (true, false, Vec::new());
        let orders = Arc::clone(&self.orders);
        if hold {
            self.raise_virtual_links().await;
        }
        let count = orders.items.len();
        // What came last goes first: routes need the addresses.
        for number in (0..count).map(|number| if hold { number } else { count - 1 - number }) {
            let item = &orders.items[number];
            let before = item.held();
            // One that is held is looked at all the same.
            if before == Some(false) && !hold {
                continue;
            }
            match self.move_one(&item.what, hold).await {
                Ok(changed) => {
                    item.set_held(hold);
                    self.refusals.remove(&item.what.to_string());
                    if let What::Address(wanted) = &item.what
                        && hold
                        && (changed || before != Some(true))
                    {
                        news = true;
                        match wanted.address {
                            // The kernel takes packets for it at once.
                            IpAddr::V4(_) => self.announce(wanted),
                            IpAddr::V6(address) => late.push((wanted, address)),
                        }
                    }
                    self.tell_of(&item.what, before, hold, changed);
                }
                Err(error) => {
                    settled = false;
                    item.forget();
                    self.refused(&item.what, hold, &error);
                }
            }
        }
        // All of them first: what one announcement brings may need another address at once, as that of a gateway.
        let until = Instant::now() + LOCAL_DEADLINE;
        for (_, address) in &late {
            self.until_local(*address, until).await;
        }
        late.iter().for_each(|(wanted, _)| self.announce(wanted));
        if !hold {
            self.lower_virtual_links().await;
        }
        (settled, news)
    }

    /// Says what has become of a thing.
    fn tell_of(&self, what: &What, before: Option<bool>, hold: bool, changed: bool) {
        let group = self.sync_id;
        match (hold, changed) {
            (true, true) if before == Some(true) => {
                let event = match what {
                    What::Address(_) => "AddressLost",
                    What::Route(_) => "RouteLost",
                };
                self.tell(Weight::Warning, event, format!("{what} was removed by somebody else; it is back"));
            }
            (true, true) => tracing::info!(group, "{what} added"),
            (true, false) if before == Some(true) => {}
            (true, false) => tracing::warn!(group, "{what} was there already"),
            (false, true) => tracing::info!(group, "{what} removed"),
            (false, false) => {}
        }
    }

    /// Says a refusal once, until another reason or a success comes.
    fn refused(&mut self, what: &What, hold: bool, error: &io::Error) {
        let doing = if hold { "added" } else { "removed" };
        let text = format!("{what} cannot be {doing}: {error}; tried again each second");
        self.complain(what.to_string(), "TakeoverRefused", text);
    }

    /// Tells of a trouble with a subject, unless that is what was told of it last.
    pub(super) fn complain(&mut self, subject: String, event: &'static str, text: String) {
        if self.refusals.get(&subject) != Some(&text) {
            self.tell(Weight::Failure, event, text.clone());
            self.refusals.insert(subject, text);
        }
    }

    pub(super) fn tell(&self, weight: Weight, event: &'static str, text: String) {
        if let Err(mpsc::TrySendError::Full(told)) = self.tell.try_send(Told { weight, event, text }) {
            tracing::error!(group = self.sync_id, "{}", told.text);
        }
    }

    /// Adds or removes one thing; whether that changed anything.
    async fn move_one(&mut self, what: &What, hold: bool) -> io::Result<bool> {
        let name = match what {
            What::Address(address) => Some(self.place(address)),
            What::Route(route) => route.device.clone(),
        };
        // An interface that was made anew has another index: the second attempt looks it up again.
        for attempt in 0..2 {
            if let Some(name) = &name
                && (attempt == 1 || !self.devices.contains_key(name))
            {
                self.find_device(name).await?;
            }
            let index = name.as_ref().and_then(|name| self.devices.get(name)).map(|device| device.index);
            let moved = match (what, &name, index) {
                // Without an interface there is nothing on it.
                (_, Some(name), None) => return if hold { Err(no_interface(name)) } else { Ok(false) },
                (What::Address(address), _, Some(index)) => self.move_address(index, address, hold).await,
                (What::Route(route), ..) => self.move_route(index, route, hold).await,
                (What::Address(_), None, None) => return Ok(false),
            };
            match (moved, &name) {
                (Err(error), Some(name)) if error.raw_os_error() == Some(libc::ENODEV) => {
                    self.devices.remove(name);
                }
                (moved, _) => return moved,
            }
        }
        match name {
            Some(name) if hold => Err(no_interface(&name)),
            _ => Ok(false),
        }
    }

    async fn find_devices(&mut self) {
        let orders = Arc::clone(&self.orders);
        for address in &orders.plan.addresses {
            if !self.devices.contains_key(&address.device)
                && let Err(error) = self.find_device(&address.device).await
            {
                tracing::warn!(group = self.sync_id, "interface {} cannot be looked up: {error}", address.device);
            }
        }
    }

    /// Looks an interface up and opens its announcer; afterwards it is in `devices` if it exists.
    pub(super) async fn find_device(&mut self, name: &str) -> io::Result<()> {
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

    /// Announces every address that is here.
    fn announce_all(&mut self) {
        let orders = Arc::clone(&self.orders);
        for item in orders.items.iter().filter(|item| item.held() == Some(true)) {
            if let What::Address(wanted) = &item.what {
                self.announce(wanted);
            }
        }
    }

    fn announce(&mut self, wanted: &VirtualAddress) {
        let name = self.place(wanted);
        let device = self.devices.get_mut(&name);
        let Some((announcer, mac)) = device.and_then(|device| device.announcer.as_mut()) else { return };
        for frame in announcements(*mac, wanted.address, wanted.address.is_ipv6() && forwards_ipv6(&name)) {
            if let Err(error) = announcer.send(&frame) {
                tracing::warn!(group = self.sync_id, "address {wanted} could not be announced: {error}");
            }
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

pub(super) fn kernel_error(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}
