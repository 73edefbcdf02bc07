//! Whose flow is it, where several groups share one kernel: that of the group whose virtual address occurs in it.
//!
//! ```text
//!   original     client ─▶ VIRTUAL        DNAT, or a service of the node      decides, if it is anybody's address
//!   reply        server ─▶ VIRTUAL        SNAT, masquerade                    decides where the first does not
//! ```
//!
//! So each flow has one owner or none, on every node alike, whatever roles the groups have there: what one group's source
//! takes, sink writes and audit judges is no business of the others. Both addresses are fixed for the life of an entry, and
//! are told with each event: the kernel decides, in the socket filter.

use crate::flow::{Flow, FlowKey};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Whose flow it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// Ours.
    Own,
    /// Another group's.
    Other,
    /// No group's.
    Nobody,
}

/// One group's share of a kernel that several groups share.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Division {
    own: BTreeSet<IpAddr>,
    others: BTreeSet<IpAddr>,
}

impl Division {
    /// The virtual addresses of a group, and those of all others on the same kernel.
    pub fn new(own: impl IntoIterator<Item = IpAddr>, others: impl IntoIterator<Item = IpAddr>) -> Self {
        Division { own: own.into_iter().collect(), others: others.into_iter().collect() }
    }

    /// Whose flow it is.
    pub fn owner(&self, flow: &Flow) -> Owner {
        match self.of(flow.key.destination) {
            Owner::Nobody => self.of(flow.replies_to().address),
            decided => decided,
        }
    }

    /// Whether a flow with this key may be ours, whatever its translation is.
    pub fn may_own(&self, key: &FlowKey) -> bool {
        self.of(key.destination) != Owner::Other
    }

    /// Our addresses, and those of the others.
    pub(super) fn addresses(&self) -> [&BTreeSet<IpAddr>; 2] {
        [&self.own, &self.others]
    }

    fn of(&self, address: IpAddr) -> Owner {
        if self.own.contains(&address) {
            Owner::Own
        } else if self.others.contains(&address) {
            Owner::Other
        } else {
            Owner::Nobody
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Endpoint, Zone};

    fn flow(source: &str, destination: &str, reply_to: Option<&str>) -> Flow {
        let key = FlowKey {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            source_port: 40000,
            destination_port: 80,
            protocol: 6,
            zone: Zone::DEFAULT,
        };
        let reply_destination = reply_to.map(|to| Endpoint { address: to.parse().unwrap(), port: 40000 });
        Flow { reply_destination, ..Flow::new(key) }
    }

    fn division() -> Division {
        let addresses = |texts: [&str; 2]| texts.map(|text| text.parse().unwrap());
        Division::new(addresses(["192.0.2.10", "2001:db8::10"]), addresses(["192.0.2.20", "203.0.113.2"]))
    }

    #[test]
    fn a_flow_belongs_to_the_group_whose_address_occurs_in_it() {
        for (owner, flow) in [
            (Owner::Own, flow("198.51.100.1", "192.0.2.10", None)),
            (Owner::Own, flow("2001:db8:1::1", "2001:db8::10", None)),
            (Owner::Own, flow("10.0.0.1", "198.51.100.1", Some("192.0.2.10"))),
            (Owner::Own, flow("192.0.2.10", "198.51.100.1", None)),
            (Owner::Other, flow("198.51.100.1", "192.0.2.20", None)),
            (Owner::Other, flow("10.0.0.1", "198.51.100.1", Some("203.0.113.2"))),
            (Owner::Nobody, flow("10.0.0.1", "198.51.100.1", Some("198.51.100.9"))),
            (Owner::Nobody, flow("10.0.0.1", "198.51.100.1", None)),
            // Where the first packet came to decides before where the answers come to.
            (Owner::Own, flow("10.0.0.1", "192.0.2.10", Some("203.0.113.2"))),
            (Owner::Other, flow("10.0.0.1", "203.0.113.2", Some("192.0.2.10"))),
            (Owner::Nobody, flow("192.0.2.10", "198.51.100.1", Some("198.51.100.9"))),
        ] {
            assert_eq!(division().owner(&flow), owner, "{flow:?}");
        }
    }

    #[test]
    fn a_key_alone_is_refused_only_if_it_names_anothers_address() {
        let may = |destination| division().may_own(&flow("10.0.0.1", destination, None).key);
        assert!(may("192.0.2.10") && may("198.51.100.1"));
        assert!(!may("192.0.2.20"));
    }
}
