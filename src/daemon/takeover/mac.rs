//! A link address that moves with the addresses: neighbours need not be told anything new (RFC 9568 section 7.3).
//!
//! ```text
//!   eth0 (02:…)  ◀── vmac4-51-2    macvlan, private, 00:00:5e:00:01:33   the group's addresses of IPv4
//!                ◀── vmac6-51-2    macvlan, private, 00:00:5e:00:02:33   those of IPv6
//!                                                             └ sync_id: the number of the virtual router
//!                             └ index of eth0
//! ```
//!
//! The interfaces are made at the start and are down, so that a takeover only sets them up; they go when the node leaves. One
//! that a dead predecessor left is removed at the start, whatever this node is configured to make. Two groups of a node never have the same one, because their sync ids
//! differ. Where the kernel has no macvlan this is told, and the addresses come up on the interface itself: a takeover with
//! another link address is better than none.

use super::mover::{Mover, kernel_error};
use crate::daemon::journal::Weight;
use crate::daemon::settings::VirtualAddress;
use futures_util::StreamExt;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage, MacVlanMode};
use rtnetlink::{LinkMacVlan, LinkUnspec};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// What only the virtual interface is told, so that the kernel answers for its addresses with its link address and takes what
/// comes for them; those of keepalived's `use_vmac`.
const SYSCTLS: [(&str, &str); 7] = [
    // ARP is answered for addresses of the interface alone.
    ("ipv4/conf/{}/arp_ignore", "1"),
    // Packets for the addresses come from networks that another interface leads to.
    ("ipv4/conf/{}/rp_filter", "0"),
    ("ipv4/conf/{}/accept_local", "1"),
    // It has our addresses and no others.
    ("ipv6/conf/{}/addr_gen_mode", "1"),
    ("ipv6/conf/{}/accept_ra", "0"),
    ("ipv6/conf/{}/autoconf", "0"),
    ("ipv6/conf/{}/accept_dad", "0"),
];

/// The virtual interfaces of one group.
pub(super) struct VirtualLinks {
    sync_id: u8,
    wanted: bool,
    /// By the interface that they stand on, and the family: their names.
    made: BTreeMap<(String, bool), String>,
    up: bool,
    warned: BTreeSet<String>,
}

impl VirtualLinks {
    pub(super) fn new(sync_id: u8, wanted: bool) -> Self {
        VirtualLinks { sync_id, wanted, made: BTreeMap::new(), up: false, warned: BTreeSet::new() }
    }

    /// At most 15 bytes, while the index is below 100,000.
    fn name(&self, index: u32, six: bool) -> String {
        format!("vmac{}-{}-{index}", if six { 6 } else { 4 }, self.sync_id)
    }

    /// Whether an interface of that name and link address was made by this group, of this process or a dead one.
    fn is_ours(&self, name: &str, address: &[u8]) -> bool {
        let of = |six| {
            let index = name.strip_prefix(&format!("vmac{}-{}-", if six { 6 } else { 4 }, self.sync_id));
            index.is_some_and(|index| index.parse::<u32>().is_ok()) && address == self.mac(six)
        };
        of(false) || of(true)
    }

    /// The virtual router's link address.
    fn mac(&self, six: bool) -> [u8; 6] {
        [0, 0, 0x5e, 0, if six { 2 } else { 1 }, self.sync_id]
    }
}

impl Mover {
    /// Name of the interface that gets an address.
    pub(super) fn place(&self, address: &VirtualAddress) -> String {
        let key = (address.device.clone(), address.address.is_ipv6());
        self.virtual_links.made.get(&key).cloned().unwrap_or(key.0)
    }

    /// Makes the virtual interfaces that are missing, down.
    pub(super) async fn make_virtual_links(&mut self) {
        if !self.virtual_links.wanted {
            return;
        }
        let addresses = &self.orders.plan.addresses;
        let keys: BTreeSet<(String, bool)> =
            addresses.iter().map(|address| (address.device.clone(), address.address.is_ipv6())).collect();
        for key in keys {
            let Some(index) = self.devices.get(&key.0).map(|device| device.index) else { continue };
            if self.virtual_links.made.contains_key(&key) {
                continue;
            }
            match self.make_virtual_link(&key.0, index, key.1).await {
                Ok(name) => {
                    self.virtual_links.made.insert(key, name);
                }
                Err(error) => {
                    let text = format!(
                        "no virtual link address on {}: {error}; its addresses come up on {} itself. A kernel with \
                         macvlan is needed (`modprobe macvlan`, CONFIG_MACVLAN), or remove virtual_mac",
                        key.0, key.0
                    );
                    self.complain(format!("virtual {}", key.0), "VirtualMacRefused", text);
                }
            }
        }
    }

    /// Removes the virtual interfaces of a dead predecessor, which may have had other addresses, or this one's on another
    /// interface. Their addresses go with them.
    pub(super) async fn remove_virtual_leftovers(&mut self) {
        let mut answers = self.kernel.link().get().execute();
        let mut left = Vec::new();
        loop {
            match answers.next().await {
                None => break,
                Some(Ok(link)) => left.extend(self.virtual_leftover(&link).map(|name| (link.header.index, name))),
                Some(Err(error)) => {
                    let error = kernel_error(error);
                    let text = format!("what a dead predecessor may have left is not known: {error}");
                    return self.complain("virtual".to_owned(), "VirtualMacRefused", text);
                }
            }
        }
        for (index, name) in left {
            match self.kernel.link().del(index).execute().await.map_err(kernel_error) {
                Ok(()) => tracing::info!(group = self.sync_id, "{name}, which a dead predecessor left, is removed"),
                Err(error) => {
                    let text = format!("{name}, which a dead predecessor left, cannot be removed: {error}");
                    self.complain(name, "VirtualMacRefused", text);
                }
            }
        }
    }

    /// The name of an interface that this group made.
    fn virtual_leftover(&self, link: &LinkMessage) -> Option<String> {
        let name = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        })?;
        let ours = link.attributes.iter().any(|attribute| match attribute {
            LinkAttribute::Address(address) => self.virtual_links.is_ours(&name, address),
            _ => false,
        });
        ours.then_some(name)
    }

    async fn make_virtual_link(&mut self, parent: &str, index: u32, six: bool) -> io::Result<String> {
        let name = self.virtual_links.name(index, six);
        self.remove_link(&name).await?;
        let link = LinkMacVlan::new(&name, index, MacVlanMode::Private)
            .address(self.virtual_links.mac(six).to_vec())
            .down()
            .build();
        self.kernel.link().add(link).execute().await.map_err(kernel_error)?;
        for (key, value) in SYSCTLS {
            let path = format!("/proc/sys/net/{}", key.replace("{}", &name));
            if let Err(error) = std::fs::write(&path, value) {
                tracing::warn!(group = self.sync_id, "{path} cannot be set to {value}: {error}");
            }
        }
        self.warn_of_parent(parent, six);
        self.find_device(&name).await?;
        Ok(name)
    }

    /// The interface below answers for every address of the machine, with its own link address, unless it is told not to.
    fn warn_of_parent(&mut self, parent: &str, six: bool) {
        let path = format!("/proc/sys/net/ipv4/conf/{parent}/arp_ignore");
        let ignores = std::fs::read_to_string(path).is_ok_and(|text| text.trim() != "0");
        if six || ignores || !self.virtual_links.warned.insert(parent.to_owned()) {
            return;
        }
        let text = format!(
            "{parent} answers ARP for the addresses with its own link address, too: set net.ipv4.conf.{parent}.arp_ignore=1"
        );
        self.tell(Weight::Warning, "VirtualMacShadowed", text);
    }

    /// Sets the virtual interfaces up, those of interfaces that have come meanwhile as well.
    pub(super) async fn raise_virtual_links(&mut self) {
        self.make_virtual_links().await;
        if !std::mem::replace(&mut self.virtual_links.up, true) {
            self.set_virtual_links(true).await;
        }
    }

    /// Sets them down.
    pub(super) async fn lower_virtual_links(&mut self) {
        if std::mem::replace(&mut self.virtual_links.up, false) {
            self.set_virtual_links(false).await;
        }
    }

    async fn set_virtual_links(&mut self, up: bool) {
        for name in self.virtual_links.made.values().cloned().collect::<Vec<_>>() {
            let Some(device) = self.devices.get(&name) else { continue };
            let link = LinkUnspec::new_with_index(device.index);
            let link = if up { link.up() } else { link.down() }.build();
            if let Err(error) = self.kernel.link().set(link).execute().await.map_err(kernel_error) {
                let doing = if up { "up" } else { "down" };
                self.complain(name.clone(), "VirtualMacRefused", format!("{name} cannot be set {doing}: {error}"));
            }
        }
    }

    /// Removes them for good.
    pub(super) async fn remove_virtual_links(&mut self) {
        for name in std::mem::take(&mut self.virtual_links.made).into_values() {
            if let Err(error) = self.remove_link(&name).await {
                tracing::error!(group = self.sync_id, "{name} cannot be removed: {error}");
            }
        }
    }

    async fn remove_link(&mut self, name: &str) -> io::Result<()> {
        self.find_device(name).await?;
        match self.devices.remove(name) {
            None => Ok(()),
            Some(device) => self.kernel.link().del(device.index).execute().await.map_err(kernel_error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9568 section 7.3.
    #[test]
    fn a_virtual_router_has_the_link_addresses_of_the_standard() {
        let links = VirtualLinks::new(51, true);
        assert_eq!((links.mac(false), links.mac(true)), ([0, 0, 0x5e, 0, 1, 51], [0, 0, 0x5e, 0, 2, 51]));
    }

    #[test]
    fn only_what_this_group_has_made_is_removed() {
        let links = VirtualLinks::new(51, false);
        let (four, six) = ([0, 0, 0x5e, 0, 1, 51], [0, 0, 0x5e, 0, 2, 51]);
        assert!(links.is_ours("vmac4-51-2", &four) && links.is_ours("vmac6-51-17", &six));
        for (name, address) in [
            ("vmac4-51-2", [2, 0, 0, 0, 0, 1]),
            ("vmac4-51-2", six),
            ("vmac4-5-12", four),
            ("vmac4-51-eth0", four),
            ("vmac4-51-", four),
            ("eth0", four),
        ] {
            assert!(!links.is_ours(name, &address), "{name}");
        }
    }

    #[test]
    fn names_of_virtual_interfaces_fit() {
        let links = VirtualLinks::new(255, true);
        assert_eq!(links.name(2, false), "vmac4-255-2");
        assert!(links.name(99_999, true).len() <= 15);
    }
}
