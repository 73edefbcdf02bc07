//! What a takeover moves, as the file says it: addresses and routes in the words of `ip`, the virtual MAC, the guard; and
//! which flows of the kernel are whose, where several groups share it.
//!
//! ```text
//!   addresses = ["192.0.2.10/24 dev eth0 scope link label eth0:1"]
//!   routes    = ["198.51.100.0/24 via 192.0.2.1 dev eth0 src 192.0.2.10 metric 50 table 100", "default via 192.0.2.1"]
//! ```

use super::read::Section;
use super::{ADDRESSES_MAX, Group, RoleKind, SourceKind, value};
use crate::bridge::conntrack::Division;
use crate::time::Duration;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Most routes that one group may have.
pub(super) const ROUTES_MAX: usize = 256;
/// Least `announce_refresh` that is not none.
const ANNOUNCE_REFRESH_MIN: Duration = Duration::from_secs(1);
/// Greatest `announce_refresh`.
const ANNOUNCE_REFRESH_MAX: Duration = Duration::from_secs(3600);
/// Longest label of an address in bytes, as of an interface's name (`IFNAMSIZ`).
const LABEL_MAX: usize = value::INTERFACE_NAME_MAX;
/// The routing table of who names none (`RT_TABLE_MAIN`, linux/rtnetlink.h).
pub(super) const TABLE_MAIN: u32 = 254;
/// Scopes that have a name (`enum rt_scope_t`, linux/rtnetlink.h).
const SCOPES: [(&str, u8); 4] = [("global", 0), ("site", 200), ("link", 253), ("host", 254)];

/// What a takeover moves beside the addresses, and what protects it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, JsonSchema)]
pub struct Moves {
    /// Addresses of the group that another program moves, as keepalived: guarded and divided by, and never touched.
    #[schemars(with = "Vec<String>")]
    pub foreign_addresses: Vec<IpAddr>,
    /// The routes that only the master has.
    #[schemars(with = "Vec<String>")]
    pub routes: Vec<VirtualRoute>,
    /// Time after which a master tells its neighbours its addresses anew; zero for never.
    #[serde(serialize_with = "super::duration_words")]
    #[schemars(with = "String")]
    pub announce_refresh: Duration,
    /// Whether the addresses have a link address that moves with them (RFC 9568 section 7.3).
    pub virtual_mac: bool,
    /// Whether packets of unknown connections to the addresses are dropped until this node is master and its kernel has the
    /// table.
    pub guard: bool,
}

/// Which flows of the kernel are a group's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Divide {
    /// Those in which one of its addresses occurs.
    Address,
    /// All.
    #[default]
    None,
}

/// An address that only the master holds: `192.0.2.10/24 dev eth0`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct VirtualAddress {
    /// The address, IPv4 or IPv6.
    pub address: IpAddr,
    /// Length of the network's prefix, 0 to 32 or 128.
    pub prefix_len: u8,
    /// The interface that gets it.
    pub device: String,
    /// `RT_SCOPE_*`; IPv4 only.
    pub scope: Option<u8>,
    /// Its name for old tools; IPv4 only.
    pub label: Option<String>,
}

/// A route that only the master has: `198.51.100.0/24 via 192.0.2.1 dev eth0`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct VirtualRoute {
    /// The network that it leads to.
    pub destination: IpAddr,
    /// Length of the network's prefix; 0: the default route.
    pub prefix_len: u8,
    /// The next router.
    pub via: Option<IpAddr>,
    /// The interface that packets leave by.
    pub device: Option<String>,
    /// The address that the node's own packets have.
    pub source: Option<IpAddr>,
    /// The smaller, the better (`RTA_PRIORITY`).
    pub metric: Option<u32>,
    /// The routing table.
    pub table: u32,
}

impl FromStr for VirtualAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("\"{text}\" {what}; write it as \"192.0.2.10/24 dev eth0\"");
        let mut words = text.split_whitespace();
        let network = words.next().unwrap_or_default();
        let pairs = Pairs::read(words, &["dev", "scope", "label"]).map_err(|what| wrong(&what))?;
        let Some((address, prefix)) = network.split_once('/') else {
            return Err(wrong("has no prefix length"));
        };
        let address: IpAddr = address.parse().map_err(|_| wrong("has no valid address"))?;
        let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
        if address.is_unspecified() || address.is_multicast() || broadcast {
            return Err(wrong("is not the address of a host"));
        }
        let longest = bits(address);
        let prefix_len: u8 = prefix
            .parse()
            .ok()
            .filter(|length| *length <= longest)
            .ok_or_else(|| wrong(&format!("has a prefix length that is not 0 to {longest}")))?;
        let device = pairs.get("dev").ok_or_else(|| wrong("does not say which interface holds it"))?;
        value::interface(device)?;
        let scope =
            pairs.get("scope").map(|word| scope(word).ok_or_else(|| wrong("has no valid scope"))).transpose()?;
        let label = pairs.get("label").map(str::to_owned);
        if label.as_ref().is_some_and(|label| label.len() > LABEL_MAX) {
            return Err(wrong(&format!("has a label of more than {LABEL_MAX} bytes")));
        }
        if address.is_ipv6() && (scope.is_some() || label.is_some()) {
            return Err(format!("\"{text}\": scope and label are of IPv4; remove them"));
        }
        Ok(VirtualAddress { address, prefix_len, device: device.to_owned(), scope, label })
    }
}

impl fmt::Display for VirtualAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} dev {}", self.address, self.prefix_len, self.device)?;
        if let Some(scope) = self.scope {
            match SCOPES.iter().find(|(_, number)| *number == scope) {
                Some((name, _)) => write!(f, " scope {name}")?,
                None => write!(f, " scope {scope}")?,
            }
        }
        self.label.as_ref().map_or(Ok(()), |label| write!(f, " label {label}"))
    }
}

impl FromStr for VirtualRoute {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("\"{text}\" {what}; write it as \"198.51.100.0/24 via 192.0.2.1 dev eth0\"");
        let mut words = text.split_whitespace();
        let network = words.next().unwrap_or_default();
        let known = ["via", "dev", "src", "metric", "table"];
        let pairs = Pairs::read(words, &known).map_err(|what| wrong(&what))?;
        let address = |key: &str| match pairs.get(key) {
            None => Ok(None),
            Some(word) => word.parse::<IpAddr>().map(Some).map_err(|_| wrong(&format!("has no valid {key}"))),
        };
        let number = |key: &str| match pairs.get(key) {
            None => Ok(None),
            Some(word) => word.parse::<u32>().map(Some).map_err(|_| wrong(&format!("has no number as {key}"))),
        };
        let (via, source) = (address("via")?, address("src")?);
        let (destination, prefix_len) = match network {
            "default" => (unspecified(via.or(source)), 0),
            network => read_network(network).ok_or_else(|| wrong("leads to no network"))?,
        };
        if [via, source].into_iter().flatten().any(|other| other.is_ipv6() != destination.is_ipv6()) {
            return Err(wrong("mixes IPv4 and IPv6"));
        }
        let device = pairs.get("dev").map(str::to_owned);
        if via.is_none() && device.is_none() {
            return Err(wrong("says neither via whom nor by which interface"));
        }
        device.as_deref().map_or(Ok(()), value::interface)?;
        let table = match pairs.get("table") {
            Some("main") | None => TABLE_MAIN,
            _ => number("table")?.filter(|table| *table > 0).ok_or_else(|| wrong("has no valid table"))?,
        };
        Ok(VirtualRoute { destination, prefix_len, via, device, source, metric: number("metric")?, table })
    }
}

impl VirtualRoute {
    /// Whether the kernel can only have one of the two: same network, metric and table.
    pub fn collides(&self, other: &VirtualRoute) -> bool {
        let place = |route: &Self| (route.destination, route.prefix_len, route.metric.unwrap_or(0), route.table);
        place(self) == place(other)
    }
}

impl fmt::Display for VirtualRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.prefix_len, self.destination, self.via.or(self.source)) {
            // Without another address nobody could tell the default routes of the families apart.
            (0, IpAddr::V4(_), _) | (0, IpAddr::V6(_), Some(_)) => f.write_str("default")?,
            (length, destination, _) => write!(f, "{destination}/{length}")?,
        }
        self.via.map_or(Ok(()), |via| write!(f, " via {via}"))?;
        self.device.as_ref().map_or(Ok(()), |device| write!(f, " dev {device}"))?;
        self.source.map_or(Ok(()), |source| write!(f, " src {source}"))?;
        self.metric.map_or(Ok(()), |metric| write!(f, " metric {metric}"))?;
        if self.table == TABLE_MAIN { Ok(()) } else { write!(f, " table {}", self.table) }
    }
}

impl Serialize for VirtualAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for VirtualRoute {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// `word value` pairs, each word once.
struct Pairs<'t>(Vec<(&'t str, &'t str)>);

impl<'t> Pairs<'t> {
    fn read(mut words: impl Iterator<Item = &'t str>, known: &[&str]) -> Result<Self, String> {
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        while let Some(word) = words.next() {
            if !known.contains(&word) {
                return Err(format!("has an unknown word, {word}"));
            }
            if pairs.iter().any(|(earlier, _)| *earlier == word) {
                return Err(format!("says {word} twice"));
            }
            pairs.push((word, words.next().ok_or_else(|| format!("says nothing behind {word}"))?));
        }
        Ok(Pairs(pairs))
    }

    fn get(&self, key: &str) -> Option<&'t str> {
        self.0.iter().find(|(word, _)| *word == key).map(|(_, value)| *value)
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn unspecified(like: Option<IpAddr>) -> IpAddr {
    match like {
        Some(IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    }
}

fn scope(word: &str) -> Option<u8> {
    SCOPES.iter().find(|(name, _)| *name == word).map(|(_, number)| *number).or_else(|| word.parse().ok())
}

/// A network, or one host; the kernel refuses an address with bits behind its prefix.
fn read_network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
    let address: IpAddr = address.parse().ok()?;
    let length = length.map_or(Some(bits(address)), |length| length.parse().ok())?;
    let host_bits = bits(address).checked_sub(length)?;
    let host = match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    };
    let behind = 1_u128.checked_shl(host_bits.into()).map_or(u128::MAX, |bit| bit - 1);
    (host & behind == 0).then_some((address, length))
}

impl Group {
    /// The group's addresses, whoever moves them.
    pub fn every_address(&self) -> Vec<IpAddr> {
        let moved = self.addresses.iter().map(|held| held.address);
        moved.chain(self.moves.foreign_addresses.iter().copied()).collect()
    }
}

/// Reads what a takeover moves beside the addresses.
pub(super) fn read(section: &Section<'_, '_>, role: RoleKind) -> Moves {
    let foreign_addresses = section.list("foreign_addresses", ADDRESSES_MAX, "\"192.0.2.10\"", |text| {
        text.parse::<IpAddr>().map_err(|_| format!("\"{text}\" is no address; write \"192.0.2.10\""))
    });
    // Where keepalived decides, the addresses come before the state does.
    let guard = role == RoleKind::Keepalived && !foreign_addresses.is_empty();
    Moves {
        foreign_addresses,
        routes: section.list("routes", ROUTES_MAX, "\"198.51.100.0/24 via 192.0.2.1 dev eth0\"", str::parse),
        announce_refresh: section.duration("announce_refresh", Duration::ZERO),
        virtual_mac: section.truth("virtual_mac", false),
        guard: section.truth("guard", guard),
    }
}

/// Reads how the kernel is divided; what is not said is decided when all groups are known ([`divide`]).
pub(super) fn read_divide(section: &Section<'_, '_>) -> Divide {
    section.word("divide", Divide::None, &[("address", Divide::Address), ("none", Divide::None)], &[])
}

/// Notes what cannot be together in one group.
pub(super) fn contradictions(section: &Section<'_, '_>, group: &Group) {
    let Moves { foreign_addresses, routes, announce_refresh, virtual_mac, guard } = &group.moves;
    let moved = !group.addresses.is_empty() || section.get("addresses").is_some();
    let known = moved || !foreign_addresses.is_empty() || section.get("foreign_addresses").is_some();
    for (key, given, enough) in [
        ("announce_refresh", !announce_refresh.is_zero(), moved),
        ("virtual_mac", *virtual_mac, moved),
        ("guard", *guard, known),
        ("divide", group.divide == Divide::Address, known),
    ] {
        if given && !enough {
            let cure = format!("is about addresses, and the group has none; name them as addresses, or remove {key}");
            section.wrong(key, cure);
        }
    }
    let held = |address: &IpAddr| group.addresses.iter().any(|held| held.address == *address);
    for (number, address) in foreign_addresses.iter().enumerate() {
        if held(address) || foreign_addresses[..number].contains(address) {
            section.wrong("foreign_addresses", format!("{address} stands there twice; name each address once"));
        }
    }
    if *virtual_mac && group.sync_id == 0 {
        section.wrong("virtual_mac", "is made of sync_id, and no virtual router has the number 0; write 1 to 255");
    }
    if !announce_refresh.is_zero() && !(ANNOUNCE_REFRESH_MIN..=ANNOUNCE_REFRESH_MAX).contains(announce_refresh) {
        let words = value::duration_words(*announce_refresh);
        section.wrong("announce_refresh", format!("{words} is not from 1s to 1h; write \"1m\", or \"0s\" for never"));
    }
    if group.divide == Divide::Address && group.source != SourceKind::Conntrack {
        section.wrong("divide", "only the source \"conntrack\" is shared; remove it, or write source = \"conntrack\"");
    }
    for (number, route) in routes.iter().enumerate() {
        if routes[..number].iter().any(|other| other.collides(route)) {
            section.wrong("routes", format!("{route}: its network, metric and table stand there twice"));
        }
    }
}

/// Notes an address or a route that a group above has, too.
pub(super) fn between_groups(section: &Section<'_, '_>, group: &Group, other: &Group) {
    let theirs = other.every_address();
    for address in group.every_address().into_iter().filter(|address| theirs.contains(address)) {
        let foreign = group.moves.foreign_addresses.contains(&address);
        let key = if foreign { "foreign_addresses" } else { "addresses" };
        section.wrong(key, format!("{address} is held by group {}; one group holds an address", other.sync_id));
    }
    let taken = |route: &&VirtualRoute| other.moves.routes.iter().any(|held| held.collides(route));
    for route in group.moves.routes.iter().filter(taken) {
        section.wrong("routes", format!("{route} is a route of group {}; one group has a route", other.sync_id));
    }
}

/// Decides whose the flows are, now that all groups are known: those that say nothing divide a kernel that they share. Each
/// group comes with whether it says it itself.
pub(super) fn divide(groups: Vec<(Group, bool)>) -> Vec<Group> {
    let shares = |group: &Group| group.source == SourceKind::Conntrack;
    let addresses = Group::every_address;
    let sharers: Vec<(u8, Vec<IpAddr>)> =
        groups.iter().filter(|(group, _)| shares(group)).map(|(group, _)| (group.sync_id, addresses(group))).collect();
    let decide = |(mut group, said): (Group, bool)| {
        if !said && shares(&group) && !addresses(&group).is_empty() && sharers.len() > 1 {
            group.divide = Divide::Address;
        }
        group.division = (group.divide == Divide::Address).then(|| {
            let others = sharers.iter().filter(|(sync_id, _)| *sync_id != group.sync_id);
            Division::new(addresses(&group), others.flat_map(|(_, held)| held.clone()))
        });
        group
    };
    groups.into_iter().map(decide).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::settings::{Problems, Settings};
    use std::path::Path;

    fn parse(text: &str) -> Result<Settings, Problems> {
        Settings::parse(&format!("[node]\nid = 1\n{text}"), Path::new("ssyncp.toml"))
    }

    fn group(sync_id: u8, more: &str) -> String {
        format!("[[group]]\nsync_id = {sync_id}\ninterfaces = [\"eth1\"]\n{more}\n")
    }

    #[test]
    fn addresses_are_read_as_ip_writes_them() {
        let read: VirtualAddress = "192.0.2.10/24  dev eth0 label eth0:1 scope link".parse().unwrap();
        assert_eq!((read.address, read.prefix_len, read.scope), (IpAddr::from([192, 0, 2, 10]), 24, Some(253)));
        assert_eq!(read.to_string(), "192.0.2.10/24 dev eth0 scope link label eth0:1");
        let plain: VirtualAddress = "2001:db8::10/64 dev eth0".parse().unwrap();
        assert_eq!((plain.prefix_len, plain.scope, plain.label.as_ref()), (64, None, None));
        assert_eq!(plain.to_string(), "2001:db8::10/64 dev eth0");
        for wrong in [
            "192.0.2.10/33 dev eth0",
            "2001:db8::10/129 dev eth0",
            "ff02::1/64 dev eth0",
            "::/64 dev eth0",
            "0.0.0.0/0 dev eth0",
            "224.0.0.1/24 dev eth0",
            "255.255.255.255/32 dev eth0",
            "192.0.2.10/24 dev a-name-that-is-too-long",
            "192.0.2.10/24 via eth0",
            "192.0.2.10/24 dev",
            "192.0.2.10/24 dev eth0 dev eth1",
            "192.0.2.10/24 dev eth0 scope wide",
            "192.0.2.10/24 dev eth0 label a-name-that-is-too-long",
            "2001:db8::10/64 dev eth0 scope link",
            "2001:db8::10/64 dev eth0 label eth0:1",
            "",
        ] {
            assert!(wrong.parse::<VirtualAddress>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn routes_are_read_as_ip_writes_them() {
        let text = "198.51.100.0/24 via 192.0.2.1 dev eth0 src 192.0.2.10 metric 50 table 100";
        let route: VirtualRoute = text.parse().unwrap();
        assert_eq!((route.destination, route.prefix_len), (IpAddr::from([198, 51, 100, 0]), 24));
        assert_eq!((route.via, route.device.as_deref()), (Some(IpAddr::from([192, 0, 2, 1])), Some("eth0")));
        assert_eq!((route.metric, route.table), (Some(50), 100));
        for text in [
            text,
            "default via 192.0.2.1",
            "default dev eth0",
            "default via 2001:db8::1",
            "::/0 dev eth0",
            "198.51.100.7/32 dev eth0",
            "2001:db8:1::/48 via fe80::1 dev eth0",
        ] {
            assert_eq!(text.parse::<VirtualRoute>().unwrap().to_string(), text);
        }
        assert_eq!("default dev eth0 table main".parse::<VirtualRoute>().unwrap().table, 254);
        assert_eq!("198.51.100.7 dev eth0".parse::<VirtualRoute>().unwrap().prefix_len, 32);
        for (wrong, why) in [
            ("", "leads to no network"),
            ("198.51.100.1/24 via 192.0.2.1", "leads to no network"),
            ("2001:db8::1/64 dev eth0", "leads to no network"),
            ("198.51.100.0/33 dev eth0", "leads to no network"),
            ("198.51.100.0/24", "says neither via whom nor by which interface"),
            ("198.51.100.0/24 via 2001:db8::1", "mixes IPv4 and IPv6"),
            ("default via 192.0.2.1 src 2001:db8::1", "mixes IPv4 and IPv6"),
            ("default via eth0", "has no valid via"),
            ("default dev eth0 metric low", "has no number as metric"),
            ("default dev eth0 table 0", "has no valid table"),
            ("default dev eth0 table", "says nothing behind table"),
            ("default dev eth0 dev eth1", "says dev twice"),
            ("default dev eth0 onlink", "has an unknown word, onlink"),
            ("default dev a-name-that-is-too-long", "is no interface"),
        ] {
            let error = wrong.parse::<VirtualRoute>().unwrap_err();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused_with_its_cure() {
        let one = group(
            0,
            "virtual_mac = true\naddresses = [\"192.0.2.10/24 dev eth0\"]\nannounce_refresh = \"999ms\"\n\
             routes = [\"default dev eth0\", \"default via 192.0.2.1\"]",
        );
        let two = group(2, "guard = true\nroutes = [\"default dev eth2 table main\"]\ndivide = \"address\"");
        let three = group(3, "source = \"synthetic\"\ndivide = \"address\"\naddresses = [\"192.0.2.11/24 dev eth0\"]");
        insta::assert_snapshot!(parse(&format!("{one}{two}{three}")).unwrap_err().to_string(), @r#"
        ssyncp.toml:6: virtual_mac: is made of sync_id, and no virtual router has the number 0; write 1 to 255
        ssyncp.toml:8: announce_refresh: 999ms is not from 1s to 1h; write "1m", or "0s" for never
        ssyncp.toml:9: routes: default via 192.0.2.1: its network, metric and table stand there twice
        ssyncp.toml:13: guard: is about addresses, and the group has none; name them as addresses, or remove guard
        ssyncp.toml:14: routes: default dev eth2 is a route of group 0; one group has a route
        ssyncp.toml:15: divide: is about addresses, and the group has none; name them as addresses, or remove divide
        ssyncp.toml:20: divide: only the source "conntrack" is shared; remove it, or write source = "conntrack"
        "#);
    }

    #[test]
    fn addresses_that_another_program_moves_are_guarded_where_keepalived_decides() {
        let foreign = "foreign_addresses = [\"192.0.2.10\", \"2001:db8::10\"]";
        let guard = |more: &str| parse(&group(51, more)).unwrap().groups[0].moves.guard;
        let driven = "role = \"keepalived\"\ninstance = \"VI_51\"";
        assert!(guard(&format!("{foreign}\n{driven}")) && !guard(&format!("{foreign}\n{driven}\nguard = false")));
        assert!(guard(&format!("{foreign}\nguard = true")) && !guard(foreign) && !guard(driven));
        let overlap = group(51, foreign) + &group(52, "addresses = [\"192.0.2.10/24 dev eth0\"]");
        let twice = group(53, "foreign_addresses = [\"192.0.2.11\", \"192.0.2.11\"]");
        let nonsense = group(54, "foreign_addresses = [\"eth0\"]");
        insta::assert_snapshot!(parse(&(overlap + &twice + &nonsense)).unwrap_err().to_string(), @r#"
        ssyncp.toml:10: addresses: 192.0.2.10 is held by group 51; one group holds an address
        ssyncp.toml:14: foreign_addresses: 192.0.2.11 stands there twice; name each address once
        ssyncp.toml:18: foreign_addresses: "eth0" is no address; write "192.0.2.10"
        "#);
    }

    #[test]
    fn groups_that_share_a_kernel_divide_it_by_their_addresses_unless_they_say_otherwise() {
        let [one, two] = ["addresses = [\"192.0.2.10/24 dev eth0\"]", "addresses = [\"192.0.2.20/24 dev eth0\"]"];
        let divided = |text: &str| parse(text).unwrap().groups.iter().map(|group| group.divide).collect::<Vec<_>>();
        let sole = |text: &str| {
            let settings = parse(text).unwrap();
            settings.groups.iter().map(|group| settings.is_sole(group)).collect::<Vec<_>>()
        };
        let both = group(51, one) + &group(52, two);
        assert_eq!((divided(&both), sole(&both)), (vec![Divide::Address; 2], vec![true; 2]));
        assert_eq!(divided(&group(51, one)), [Divide::None]);
        let invented = group(51, one) + &group(52, "source = \"synthetic\"");
        assert_eq!((divided(&invented), sole(&invented)[0]), (vec![Divide::None; 2], true));
        let nameless = group(51, one) + &group(52, "");
        assert_eq!((divided(&nameless), sole(&nameless)), (vec![Divide::Address, Divide::None], vec![false; 2]));
        let whole = group(51, one) + &group(52, &format!("{two}\ndivide = \"none\""));
        assert_eq!((divided(&whole), sole(&whole)), (vec![Divide::Address, Divide::None], vec![false; 2]));
        let alone = group(51, &format!("{one}\ndivide = \"address\""));
        assert_eq!(divided(&alone), [Divide::Address]);
        let printed = parse(&both).unwrap();
        assert_eq!(Settings::parse(&printed.to_toml(), Path::new("ssyncp.toml")).unwrap(), printed);
        let (own, others) = ([192, 0, 2, 10].into(), [192, 0, 2, 20].into());
        assert_eq!(printed.groups[0].division, Some(Division::new([own], [others])));
        assert_eq!(printed.groups[1].division, Some(Division::new([others], [own])));
    }
}
