//! Cables, switches and addresses, by rtnetlink: the one place of the demo that knows the crate of that name.
//!
//! A [`Links`] speaks to one namespace. A veth pair is made in one message with its far end already inside another
//! namespace, and ports that carry the same group number go down in one message too, under one lock of the kernel: that
//! is how all cables of a machine are cut in the same instant.

use crate::sys::namespace::Namespace;
use core::net::IpAddr;
use futures_util::TryStreamExt;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkMessage};
use rtnetlink::{Handle, LinkBridge, LinkBridgePort, LinkUnspec, LinkVeth};
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// One end of a cable that is to be made inside another namespace.
#[derive(Debug, Clone, Copy)]
pub struct FarEnd<'a> {
    /// Where it goes.
    pub namespace: &'a Namespace,
    /// Its name there.
    pub name: &'a str,
}

/// The links of one namespace.
#[derive(Debug)]
pub struct Links {
    runtime: tokio::runtime::Runtime,
    handle: Handle,
}

impl Links {
    /// Opens a netlink socket inside `namespace`. It keeps speaking to that namespace whoever uses it.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn open(namespace: &Namespace) -> io::Result<Self> {
        namespace.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
            let handle = runtime.block_on(async {
                let (connection, handle, _) = rtnetlink::new_connection()?;
                tokio::spawn(connection);
                io::Result::Ok(handle)
            })?;
            Ok(Links { runtime, handle })
        })
    }

    /// Makes a switch that forwards from its first moment on: no spanning tree, no listening phase, no multicast
    /// snooping. Says its index.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn switch(&self, name: &str) -> io::Result<u32> {
        let switch = LinkBridge::new(name).forward_delay(0).mcast_snooping(false).up().build();
        self.runtime
            .block_on(self.handle.link().add(switch).execute())
            .map_err(|error| failed(&format!("switch {name}"), error))?;
        self.index(name)
    }

    /// Makes a cable from port `name` of switch number `switch` to `far`, with both ends up. The port joins `group`.
    /// (The far end goes up in a second step: a veth refuses to while its pair is still being made.)
    ///
    /// # Errors
    /// The operating system's error.
    pub fn cable(&self, name: &str, switch: u32, group: u32, far: FarEnd<'_>) -> io::Result<()> {
        let far_end = LinkUnspec::new_with_name(far.name).setns_by_fd(far.namespace.as_fd().as_raw_fd()).build();
        let cable = LinkVeth::new(name, far.name)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(far_end)))
            .controller(switch)
            .link_group(group)
            .up()
            .build();
        self.runtime
            .block_on(self.handle.link().add(cable).execute())
            .map_err(|error| failed(&format!("cable {name}"), error))?;
        Links::open(far.namespace)?.up(far.name)
    }

    /// Makes a cable from `name` here to `far`, without a switch, with both ends up.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn pair(&self, name: &str, far: FarEnd<'_>) -> io::Result<()> {
        let far_end = LinkUnspec::new_with_name(far.name).setns_by_fd(far.namespace.as_fd().as_raw_fd()).build();
        let pair = LinkVeth::new(name, far.name).set_info_data(InfoData::Veth(InfoVeth::Peer(far_end))).up().build();
        self.runtime
            .block_on(self.handle.link().add(pair).execute())
            .map_err(|error| failed(&format!("cable {name}"), error))?;
        Links::open(far.namespace)?.up(far.name)
    }

    /// Sets a link up.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn up(&self, name: &str) -> io::Result<()> {
        let message = LinkUnspec::new_with_name(name).up().build();
        self.runtime
            .block_on(self.handle.link().set(message).execute())
            .map_err(|error| failed(&format!("link {name}"), error))
    }

    /// Sets a link down; whoever is at the other end of a cable loses its carrier.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn down(&self, name: &str) -> io::Result<()> {
        let message = LinkUnspec::new_with_name(name).down().build();
        self.runtime
            .block_on(self.handle.link().set(message).execute())
            .map_err(|error| failed(&format!("link {name}"), error))
    }

    /// Lets nothing that a switch gets go out by its port `name`, or all of it again; what comes in by the port goes on. A
    /// switch that has learned no address floods, and floods it not to this port.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn forward_to(&self, name: &str, forward: bool) -> io::Result<()> {
        let port = LinkBridgePort::new(self.index(name)?).learning(forward).fdb_flush();
        let port = port.flood(forward).mcast_flood(forward).bcast_flood(forward).build();
        self.runtime
            .block_on(self.handle.link().set_port(port).execute())
            .map_err(|error| failed(&format!("port {name}"), error))
    }

    /// The hardware address of a link.
    ///
    /// # Errors
    /// The operating system's error; `InvalidData` for a link whose address does not have six bytes.
    pub fn hardware_address(&self, name: &str) -> io::Result<[u8; 6]> {
        let six = |attribute: &LinkAttribute| match attribute {
            LinkAttribute::Address(address) => address.as_slice().try_into().ok(),
            _ => None,
        };
        let missing = || io::Error::new(io::ErrorKind::InvalidData, format!("link {name} has no hardware address"));
        self.link(name)?.attributes.iter().find_map(six).ok_or_else(missing)
    }

    /// Sets all links of `group` down with one message.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn group_down(&self, group: u32) -> io::Result<()> {
        let message = LinkUnspec::new_with_index(0).down().link_group(group).build();
        // Only a new-link message without "create" is taken for a whole group (rtnl_newlink in net/core/rtnetlink.c).
        let request = self.handle.link().add(message).set_flags(NLM_F_REQUEST | NLM_F_ACK);
        self.runtime.block_on(request.execute()).map_err(|error| failed("cutting the links", error))
    }

    /// Removes all links of `group`, and with each its far end.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn group_remove(&self, group: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::Group(group));
        self.runtime
            .block_on(self.handle.link().del_with_message(message).execute())
            .map_err(|error| failed("removing the links", error))
    }

    /// Adds an address to a link.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn address(&self, link: &str, address: impl Into<IpAddr>, prefix_len: u8) -> io::Result<()> {
        let (index, address) = (self.index(link)?, address.into());
        self.runtime
            .block_on(self.handle.address().add(index, address, prefix_len).execute())
            .map_err(|error| failed(&format!("address {address} on {link}"), error))
    }

    /// Gives a link the hardware address that it has already. The kernel then tells the network of every address on it,
    /// if `arp_notify` is on there (net/ipv4/devinet.c): a gratuitous ARP without a packet socket.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn announce(&self, name: &str) -> io::Result<()> {
        let own = |attribute: &LinkAttribute| match attribute {
            LinkAttribute::Address(address) => Some(address.clone()),
            _ => None,
        };
        let link = self.link(name)?;
        let Some(address) = link.attributes.iter().find_map(own) else {
            return Err(io::Error::other(format!("link {name} has no hardware address")));
        };
        let message = LinkUnspec::new_with_index(link.header.index).address(address).build();
        self.runtime
            .block_on(self.handle.link().set(message).execute())
            .map_err(|error| failed(&format!("announcing on {name}"), error))
    }

    fn index(&self, name: &str) -> io::Result<u32> {
        Ok(self.link(name)?.header.index)
    }

    fn link(&self, name: &str) -> io::Result<LinkMessage> {
        let mut found = self.handle.link().get().match_name(name.to_owned()).execute();
        self.runtime
            .block_on(async { found.try_next().await })
            .map_err(|error| failed(&format!("link {name}"), error))?
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("there is no link {name}")))
    }
}

/// The operating system's error behind rtnetlink's, with the thing that it is about.
fn failed(what: &str, error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => {
            let cause = message.to_io();
            io::Error::new(cause.kind(), format!("{what}: {cause}"))
        }
        other => io::Error::other(format!("{what}: {other}")),
    }
}
