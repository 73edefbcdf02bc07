//! Addresses, moved.
//!
//! An IPv6 address is added without duplicate address detection (IFA_F_NODAD): its second of waiting would be a second of
//! blackout, and the node that had the address is dead or has given it up. The kernel says yes to it before it takes packets
//! for it (the address's local route is made later, by a worker): neighbours that heard of it at once would send into the
//! void, and our own neighbour solicitations from it would stay without an answer for a second. So it is announced when the
//! route is there ([`LOCAL_DEADLINE`]).

use super::mover::{Mover, kernel_error};
use crate::daemon::settings::VirtualAddress;
use crate::time::Duration;
use futures_util::StreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::route::RouteType;
use rtnetlink::{AddressMessageBuilder, RouteMessageBuilder};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use tokio::time::Instant;

/// Longest time that announcements wait for the kernel to take packets for their IPv6 addresses.
pub(super) const LOCAL_DEADLINE: Duration = Duration::from_millis(250);
/// Time between two looks whether it does.
const LOCAL_INTERVAL: Duration = Duration::from_micros(500);

impl Mover {
    /// Adds or removes an address on the interface with an index; whether that changed anything.
    pub(super) async fn move_address(&self, index: u32, wanted: &VirtualAddress, hold: bool) -> io::Result<bool> {
        let done = if hold {
            let mut request = self.kernel.address().add(index, wanted.address, wanted.prefix_len);
            let message = request.message_mut();
            if wanted.address.is_ipv6() {
                message.header.flags |= AddressHeaderFlags::Nodad;
            }
            if let Some(scope) = wanted.scope {
                message.header.scope = scope.into();
            }
            if let Some(label) = &wanted.label {
                message.attributes.push(AddressAttribute::Label(label.clone()));
            }
            request.execute().await
        } else {
            self.kernel.address().del(address_message(index, wanted)).execute().await
        };
        match done.map_err(kernel_error) {
            Ok(()) => Ok(true),
            Err(error) if hold && error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            Err(error) if !hold && error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Waits until the kernel takes packets for an address that it has been given.
    pub(super) async fn until_local(&self, address: Ipv6Addr, until: Instant) {
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
