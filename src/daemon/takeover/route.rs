//! Routes, moved: behind the addresses that they may need, and gone before them.
//!
//! Each carries our mark as its origin ([`PROTOCOL`], `proto 114` of `ip route`). A route is removed only with that mark: so
//! one that somebody else had made before stays, and one of a dead predecessor goes.

use super::mover::{Mover, kernel_error};
use crate::daemon::settings::VirtualRoute;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::{RouteMessage, RouteProtocol, RouteScope};
use std::io;
use std::net::IpAddr;

/// The origin of our routes (`rtm_protocol`, rtnetlink(7)): no other daemon's, and easy to remember.
pub const PROTOCOL: u8 = 114;

impl Mover {
    /// Adds or removes a route, by the interface with an index if it names one; whether that changed anything.
    pub(super) async fn move_route(&self, index: Option<u32>, wanted: &VirtualRoute, hold: bool) -> io::Result<bool> {
        let message = route_message(index, wanted, hold).map_err(io::Error::other)?;
        let done = if hold {
            self.kernel.route().add(message).execute().await
        } else {
            self.kernel.route().del(message).execute().await
        };
        match done.map_err(kernel_error) {
            Ok(()) => Ok(true),
            Err(error) if hold && error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            Err(error) if !hold && error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// What names a route to the kernel; to remove one, network, metric, table and origin say which.
fn route_message(index: Option<u32>, wanted: &VirtualRoute, hold: bool) -> Result<RouteMessage, String> {
    let mut route = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(wanted.destination, wanted.prefix_len)
        .map_err(|error| error.to_string())?
        .table_id(wanted.table)
        .protocol(RouteProtocol::Other(PROTOCOL));
    if let Some(metric) = wanted.metric {
        route = route.priority(metric);
    }
    if !hold {
        return Ok(route.scope(RouteScope::NoWhere).build());
    }
    // Whoever is reached without a router is on the link.
    let on_link = wanted.via.is_none() && wanted.destination.is_ipv4();
    route = route.scope(if on_link { RouteScope::Link } else { RouteScope::Universe });
    if let Some(via) = wanted.via {
        route = route.gateway(via).map_err(|error| error.to_string())?;
    }
    if let Some(index) = index {
        route = route.output_interface(index);
    }
    if let Some(source) = wanted.source {
        route = route.pref_source(source).map_err(|error| error.to_string())?;
    }
    Ok(route.build())
}
