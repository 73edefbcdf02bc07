//! The laboratory: six machines on this one, made of network namespaces that have no names.
//!
//! ```text
//!                     lb-a  .2   virtual address 198.51.100.10   .2  lb-a
//!   client ── front ──┤            and gateway 203.0.113.1           ├── back ── server
//!  198.51.100.100     lb-b  .3   belong to whoever is master     .3  lb-b       203.0.113.101 ... 104
//!
//!                     lb-a  192.0.2.1 ── sync ── 192.0.2.2  lb-b
//! ```
//!
//! A third balancer, lb-c with .4 (and 192.0.2.3), stands beside them where three are asked for.
//!
//! front, back and sync are switches in a namespace of their own, as they would be devices of their own: when a
//! balancer dies, the other one keeps its carrier and everybody hears its announcement. A client knows only the virtual
//! address; a balancer translates the destination to a server and the source to the gateway address, so that answers
//! come back to whoever is master. All addresses are from the ranges for documentation (RFC 5737, RFC 3849). With IPv6 the
//! same stands a second time, with 2001:db8:f::/64 in front and 2001:db8:b::/64 in the back.
//!
//! The namespaces live as long as this process holds them: nothing is left behind, however it ends.

use super::kernel;
use super::links::{FarEnd, Links};
use super::nftables::{self, Policy};
use crate::sys::namespace::Namespace;
use crate::sys::socket::own_addresses;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::io;

/// The address that clients know.
pub const VIRTUAL: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
/// The address that servers know.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The clients' own address.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 100);
/// Ports of the virtual address; each belongs to one server, in this order.
pub const SERVICE_PORTS: [u16; 4] = [8001, 8002, 8003, 8004];
/// The servers' addresses.
pub const SERVERS: [Ipv4Addr; 4] = [
    Ipv4Addr::new(203, 0, 113, 101),
    Ipv4Addr::new(203, 0, 113, 102),
    Ipv4Addr::new(203, 0, 113, 103),
    Ipv4Addr::new(203, 0, 113, 104),
];
/// The address that clients of IPv6 know.
pub const VIRTUAL6: Ipv6Addr = front6(0x10);
/// The address that servers of IPv6 know.
pub const GATEWAY6: Ipv6Addr = back6(1);
/// The clients' own address of IPv6.
pub const CLIENT6: Ipv6Addr = front6(0x100);
/// The servers' addresses of IPv6.
pub const SERVERS6: [Ipv6Addr; 4] = [back6(0x101), back6(0x102), back6(0x103), back6(0x104)];
/// The port that every server listens on, TCP and UDP: not the one that clients know, so that ports are translated too.
pub const SERVER_PORT: u16 = 7000;
/// Name of the clients' network, and of every interface on it.
pub const FRONT: &str = "front";
/// Name of the servers' network, and of every interface on it.
pub const BACK: &str = "back";
/// Name of the link between the balancers, and of both interfaces on it.
pub const SYNC: &str = "sync";
/// All networks of IPv4 have 24 bits.
pub const PREFIX_LEN: u8 = 24;
/// All networks of IPv6 have 64 bits.
pub const PREFIX6_LEN: u8 = 64;
/// Source ports that a client can use towards one service: 1024 to 65535.
pub const CLIENT_PORTS: u32 = 64_512;

/// Most balancers.
pub const BALANCERS_MAX: usize = NAMES.len();
/// Names of the balancers.
const NAMES: [&str; 3] = ["lb-a", "lb-b", "lb-c"];
/// Ports that never go down carry this group; the balancers' groups follow.
const GROUP_OF_ENDS: u32 = 100;

/// The services as clients reach them.
pub fn services() -> [SocketAddrV4; 4] {
    SERVICE_PORTS.map(|port| SocketAddrV4::new(VIRTUAL, port))
}

/// The services of IPv6.
pub fn services6() -> [SocketAddr; 4] {
    SERVICE_PORTS.map(|port| SocketAddr::new(VIRTUAL6.into(), port))
}

const fn front6(host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, host)
}

const fn back6(host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, host)
}

/// One of the two machines that SSYNCP is about.
#[derive(Debug)]
pub struct Balancer {
    /// Its kernel.
    pub namespace: Namespace,
    /// Its name: `lb-a`, `lb-b` or `lb-c`.
    pub name: &'static str,
    /// Hardware address of its interface on front.
    pub hardware_address: [u8; 6],
    /// Last byte of its own addresses on front and back.
    host: u8,
    /// Group of its ports on the switches.
    group: u32,
}

/// Everything that is cabled together.
#[derive(Debug)]
pub struct Lab {
    /// The machine of the clients.
    pub client: Namespace,
    /// The machine of the servers.
    pub server: Namespace,
    /// `lb-a`, `lb-b`, and `lb-c` if there are three.
    pub balancers: Vec<Balancer>,
    switches: Switches,
    with_ipv6: bool,
}

/// The namespace of the switches, and how to speak to it.
#[derive(Debug)]
struct Switches {
    namespace: Namespace,
    links: Links,
    front: u32,
    back: u32,
    sync: u32,
}

impl Lab {
    /// Builds all of it. No balancer has the virtual address yet.
    ///
    /// # Errors
    /// The operating system's error, with the part that could not be built.
    pub fn build(with_ipv6: bool) -> io::Result<Self> {
        Self::with_balancers(2, with_ipv6)
    }

    /// The same with this many balancers, at most [`BALANCERS_MAX`].
    ///
    /// # Errors
    /// The operating system's error, with the part that could not be built.
    pub fn with_balancers(count: usize, with_ipv6: bool) -> io::Result<Self> {
        let switches = Switches::build()?;
        let client = machine(with_ipv6)?;
        let server = machine(with_ipv6)?;
        switches.links.cable("client", switches.front, GROUP_OF_ENDS, FarEnd { namespace: &client, name: FRONT })?;
        switches.links.cable("server", switches.back, GROUP_OF_ENDS, FarEnd { namespace: &server, name: BACK })?;
        Links::open(&client)?.address(FRONT, CLIENT, PREFIX_LEN)?;
        client.run(|| sysctl("ipv4/ip_local_port_range", "1024 65535"))?;
        let links = Links::open(&server)?;
        for address in SERVERS {
            links.address(BACK, address, PREFIX_LEN)?;
        }
        if with_ipv6 {
            Links::open(&client)?.address(FRONT, CLIENT6, PREFIX6_LEN)?;
            for address in SERVERS6 {
                links.address(BACK, address, PREFIX6_LEN)?;
            }
        }
        let names = NAMES.into_iter().take(count).zip(1..);
        let balancers =
            names.map(|(name, number)| Balancer::build(name, number + 1, number.into(), &switches, with_ipv6));
        let balancers = balancers.collect::<io::Result<_>>()?;
        Ok(Lab { client, server, balancers, switches, with_ipv6 })
    }

    /// Pulls all cables out of a balancer in the same instant.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn cut(&self, balancer: usize) -> io::Result<()> {
        self.switches.links.group_down(self.balancers[balancer].group)
    }

    /// Puts a new machine in the place of a balancer: another kernel with empty tables, new network cards, the same
    /// name.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn reboot(&mut self, balancer: usize) -> io::Result<()> {
        let old = &self.balancers[balancer];
        self.switches.links.group_remove(old.group)?;
        self.balancers[balancer] = Balancer::build(old.name, old.host, old.group, &self.switches, self.with_ipv6)?;
        Ok(())
    }

    /// Pulls a balancer's cable out of the sync switch, or puts it back.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn plug_sync(&self, balancer: usize, plugged: bool) -> io::Result<()> {
        self.plug(balancer, SYNC, plugged)
    }

    /// The same of its link to the clients.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn plug_front(&self, balancer: usize, plugged: bool) -> io::Result<()> {
        self.plug(balancer, FRONT, plugged)
    }

    fn plug(&self, balancer: usize, network: &str, plugged: bool) -> io::Result<()> {
        let port = format!("{}-{network}", self.balancers[balancer].name);
        if plugged { self.switches.links.up(&port) } else { self.switches.links.down(&port) }
    }

    /// Lets a balancer hear nothing on the sync link, or hear again; what it says is heard all the while. It is the switch that
    /// keeps silent: a rule in the balancer's own firewall would be no obstacle to sockets that hear what is before it.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn hear_sync(&self, balancer: usize, hears: bool) -> io::Result<()> {
        self.switches.links.forward_to(&format!("{}-{SYNC}", self.balancers[balancer].name), hears)
    }

    /// The machine of the switches: who listens at [`SYNC`] there hears whatever the balancers tell each other.
    pub fn switches(&self) -> &Namespace {
        &self.switches.namespace
    }

    /// Gives the virtual addresses to a balancer and announces them, as `ssyncp run` does; for the run without it.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn take_addresses(&self, balancer: usize) -> io::Result<()> {
        let links = Links::open(&self.balancers[balancer].namespace)?;
        let six = [(FRONT, VIRTUAL6.into(), PREFIX6_LEN), (BACK, GATEWAY6.into(), PREFIX6_LEN)];
        let four = [(FRONT, IpAddr::from(VIRTUAL), PREFIX_LEN), (BACK, GATEWAY.into(), PREFIX_LEN)];
        for (link, address, prefix_len) in four.into_iter().chain(six.into_iter().filter(|_| self.with_ipv6)) {
            links.address(link, address, prefix_len)?;
            links.announce(link)?;
        }
        Ok(())
    }
}

impl Switches {
    fn build() -> io::Result<Self> {
        let namespace = machine(false)?;
        let links = Links::open(&namespace)?;
        let [front, back, sync] = [links.switch(FRONT)?, links.switch(BACK)?, links.switch(SYNC)?];
        Ok(Switches { namespace, links, front, back, sync })
    }
}

impl Balancer {
    fn build(name: &'static str, host: u8, group: u32, switches: &Switches, with_ipv6: bool) -> io::Result<Self> {
        let namespace = machine(with_ipv6)?;
        namespace.run(|| configure(with_ipv6))?;
        for (network, switch) in [(FRONT, switches.front), (BACK, switches.back), (SYNC, switches.sync)] {
            let far = FarEnd { namespace: &namespace, name: network };
            switches.links.cable(&format!("{name}-{network}"), switch, group, far)?;
        }
        let links = Links::open(&namespace)?;
        links.address(FRONT, Ipv4Addr::new(198, 51, 100, host), PREFIX_LEN)?;
        links.address(BACK, Ipv4Addr::new(203, 0, 113, host), PREFIX_LEN)?;
        links.address(SYNC, Ipv4Addr::new(192, 0, 2, host - 1), PREFIX_LEN)?;
        if with_ipv6 {
            links.address(FRONT, front6(host.into()), PREFIX6_LEN)?;
            links.address(BACK, back6(host.into()), PREFIX6_LEN)?;
        }
        let hardware_address = links.hardware_address(FRONT)?;
        Ok(Balancer { namespace, name, hardware_address, host, group })
    }

    /// Whether its kernel holds an address now.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn holds(&self, address: IpAddr) -> io::Result<bool> {
        let own = self.namespace.run(own_addresses)?;
        Ok(own.contains(&address))
    }

    /// Connections that its kernel tracks now.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn tracked(&self) -> io::Result<u32> {
        Ok(u32::try_from(kernel::count(&self.namespace)?).unwrap_or(u32::MAX))
    }
}

/// What makes a machine a balancer: it forwards, translates, tracks strictly and reports every change.
fn configure(with_ipv6: bool) -> io::Result<()> {
    sysctl("ipv4/ip_forward", "1")?;
    sysctl("ipv4/conf/all/rp_filter", "0")?;
    sysctl("ipv4/conf/default/rp_filter", "0")?;
    sysctl("ipv4/conf/default/arp_notify", "1")?;
    let at_port = |server: IpAddr| SocketAddr::new(server, SERVER_PORT);
    let four = services().into_iter().map(SocketAddr::from).zip(SERVERS.map(|server| at_port(server.into())));
    let six = services6().into_iter().zip(SERVERS6.map(|server| at_port(server.into())));
    let mut gateways = vec![GATEWAY.into()];
    if with_ipv6 {
        sysctl("ipv6/conf/all/forwarding", "1")?;
        // As arp_notify: an address that moves is announced.
        sysctl("ipv6/conf/default/ndisc_notify", "1")?;
        gateways.push(GATEWAY6.into());
    }
    nftables::load(&Policy { services: four.chain(six).collect(), back: BACK, gateways, sync: SYNC })?;
    // With the default, 1, a packet from the middle of a connection makes a new entry, and hides that one was missing.
    sysctl("netfilter/nf_conntrack_tcp_loose", "0")?;
    sysctl("netfilter/nf_conntrack_tcp_be_liberal", "0")?;
    // With the default, 2, entries that are made while nobody listens never report anything.
    sysctl("netfilter/nf_conntrack_events", "1")
}

/// An empty machine: loopback up, and no IPv6 where nobody speaks it (its neighbour discovery would only be noise). Where
/// somebody does, addresses are usable at once: who is where is known here.
fn machine(with_ipv6: bool) -> io::Result<Namespace> {
    let namespace = Namespace::create()?;
    let (name, value) = if with_ipv6 { ("accept_dad", "0") } else { ("disable_ipv6", "1") };
    namespace.run(|| match sysctl(&format!("ipv6/conf/default/{name}"), value) {
        Err(error) if error.kind() != io::ErrorKind::NotFound || with_ipv6 => Err(error),
        _ => Ok(()),
    })?;
    Links::open(&namespace)?.up("lo")?;
    Ok(namespace)
}

/// Sets a value below /proc/sys/net, in the namespace of the calling thread.
fn sysctl(name: &str, value: &str) -> io::Result<()> {
    std::fs::write(format!("/proc/sys/net/{name}"), value)
        .map_err(|error| io::Error::new(error.kind(), format!("setting net/{name} to {value}: {error}")))
}
