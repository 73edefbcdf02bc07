//! Flows that another flow has announced and that have not come yet: an ftp server has said where it will listen, and
//! the kernel's helper, which has read it, lets exactly that connection through and translates it.
//!
//! Attribute 9 of the flow that announced them (the master) is a row of these, without padding [3.3.9]:
//!
//! ```text
//!   0        1          2       3       4          5           6             8             10            12
//!   │ length │ contents │ flags │ class │ protocol │ direction │ port mask   │ source port │ destination │ time-out u32 │
//!   16
//!   │ source 4|16 │ destination 4|16 │ mask of source 4|16 │ NAT: address 4|16, port 2 │ helper: n, text │ function: n, text │
//!                                                             contents bit 1              bit 2             bit 3
//! ```

use super::attributes::Tuple;
use core::net::IpAddr;

/// Bits of the second byte: which optional parts follow.
mod contents {
    pub(super) const IPV6: u8 = 1 << 0;
    pub(super) const NAT: u8 = 1 << 1;
    pub(super) const HELPER: u8 = 1 << 2;
    pub(super) const FUNCTION: u8 = 1 << 3;
    pub(super) const ALL: u8 = IPV6 | NAT | HELPER | FUNCTION;
}

/// Bytes before the addresses.
const HEAD_LEN: usize = 16;

/// Most bytes of the names of helpers and functions (`NF_CT_HELPER_NAME_LEN` less its zero, and what `CTA_EXPECT_FN`
/// is used for).
pub const EXPECTATION_NAME_MAX: usize = 31;

/// One announced flow (`struct nf_conntrack_expect`, `CTA_EXPECT_*`).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Expectation {
    /// Its original direction, as far as it is known: what the masks blank out is zero.
    pub tuple: Tuple,
    /// Which bits of the source address count; of the family of `tuple`.
    pub mask_address: IpAddr,
    /// Which bits of the source port count.
    pub mask_port: u16,
    /// Seconds that it waits, as first told.
    pub timeout: u32,
    /// `NF_CT_EXPECT_*`: 1 permanent, 2 inactive, 4 of user space.
    pub flags: u8,
    /// Class in the helper's policy.
    pub class: u8,
    /// How the flow that comes will be translated.
    pub nat: Option<ExpectationNat>,
    /// Helper of the master; empty if the kernel did not say.
    pub helper: String,
    /// Name of the function that completes the flow (`nat-follow-master`); empty if there is none.
    pub function: String,
}

/// Where an expected flow really goes (`CTA_EXPECT_NAT`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ExpectationNat {
    /// Untranslated address.
    pub address: IpAddr,
    /// Untranslated port, host order.
    pub port: u16,
    /// Direction of the master in which the announcement was made: 0 original, 1 reply.
    pub direction: u8,
}

impl Expectation {
    /// Whether `other` announces the same flow: it replaces this one.
    pub fn same_place(&self, other: &Expectation) -> bool {
        (self.tuple, self.mask_address, self.mask_port) == (other.tuple, other.mask_address, other.mask_port)
    }

    /// Whether `other` says the same; how long it waits does not count.
    pub fn same_value(&self, other: &Expectation) -> bool {
        *self == Expectation { timeout: self.timeout, ..other.clone() }
    }

    /// One entry of the row; `None` for mixed address families and for names that are too long.
    pub fn to_wire(&self) -> Option<Vec<u8>> {
        let names = [self.helper.as_bytes(), self.function.as_bytes()];
        if names.iter().any(|name| name.len() > EXPECTATION_NAME_MAX) {
            return None;
        }
        let ipv6 = self.tuple.source.is_ipv6();
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        let contents = bit(ipv6, contents::IPV6)
            | bit(self.nat.is_some(), contents::NAT)
            | bit(!names[0].is_empty(), contents::HELPER)
            | bit(!names[1].is_empty(), contents::FUNCTION);
        let direction = self.nat.map_or(0, |nat| nat.direction);
        let mut data = vec![0, contents, self.flags, self.class, self.tuple.protocol, direction];
        for number in [self.mask_port, self.tuple.source_port, self.tuple.destination_port] {
            data.extend_from_slice(&number.to_be_bytes());
        }
        data.extend_from_slice(&self.timeout.to_be_bytes());
        let addresses = [self.tuple.source, self.tuple.destination, self.mask_address];
        for address in addresses.into_iter().chain(self.nat.map(|nat| nat.address)) {
            match address {
                IpAddr::V4(address) if !ipv6 => data.extend_from_slice(&address.octets()),
                IpAddr::V6(address) if ipv6 => data.extend_from_slice(&address.octets()),
                _ => return None,
            }
        }
        if let Some(nat) = self.nat {
            data.extend_from_slice(&nat.port.to_be_bytes());
        }
        for name in names.into_iter().filter(|name| !name.is_empty()) {
            data.push(name.len() as u8);
            data.extend_from_slice(name);
        }
        data[0] = u8::try_from(data.len()).ok()?;
        Some(data)
    }

    /// Reads one entry that is as long as its first byte says.
    fn from_wire(entry: &[u8]) -> Option<Self> {
        let (head, mut rest) = entry.split_first_chunk::<HEAD_LEN>()?;
        let &[_, contents, flags, class, protocol, direction, m0, m1, s0, s1, d0, d1, t0, t1, t2, t3] = head;
        let has = |bit: u8| contents & bit != 0;
        if contents & !contents::ALL != 0 || (direction != 0 && !has(contents::NAT)) {
            return None;
        }
        let ipv6 = has(contents::IPV6);
        let tuple = Tuple {
            source: take_address(&mut rest, ipv6)?,
            destination: take_address(&mut rest, ipv6)?,
            source_port: u16::from_be_bytes([s0, s1]),
            destination_port: u16::from_be_bytes([d0, d1]),
            protocol,
        };
        let mask_address = take_address(&mut rest, ipv6)?;
        let nat = if has(contents::NAT) {
            let address = take_address(&mut rest, ipv6)?;
            let (port, after) = rest.split_first_chunk::<2>()?;
            rest = after;
            Some(ExpectationNat { address, port: u16::from_be_bytes(*port), direction })
        } else {
            None
        };
        let helper = if has(contents::HELPER) { take_name(&mut rest)? } else { String::new() };
        let function = if has(contents::FUNCTION) { take_name(&mut rest)? } else { String::new() };
        let timeout = u32::from_be_bytes([t0, t1, t2, t3]);
        let mask_port = u16::from_be_bytes([m0, m1]);
        let whole = Expectation { tuple, mask_address, mask_port, timeout, flags, class, nat, helper, function };
        rest.is_empty().then_some(whole)
    }
}

/// A row of expectations in attribute form: in the order of their bytes, so that one set has one form, and as many as
/// 255 bytes hold. The second value is how many were left out.
pub fn write_expectations(expectations: &[Expectation]) -> (Vec<u8>, usize) {
    let mut entries: Vec<_> = expectations.iter().filter_map(Expectation::to_wire).collect();
    entries.sort_unstable();
    let (mut row, mut taken) = (Vec::new(), 0);
    for entry in &entries {
        if row.len() + entry.len() <= usize::from(u8::MAX) {
            row.extend_from_slice(entry);
            taken += 1;
        }
    }
    (row, expectations.len() - taken)
}

/// Reads a row of expectations; `None` if it is not whole.
pub fn read_expectations(mut row: &[u8]) -> Option<Vec<Expectation>> {
    let mut expectations = Vec::new();
    while let Some(&length) = row.first() {
        let (entry, rest) = row.split_at_checked(usize::from(length))?;
        expectations.push(Expectation::from_wire(entry)?);
        row = rest;
    }
    Some(expectations)
}

fn take_address(rest: &mut &[u8], ipv6: bool) -> Option<IpAddr> {
    if ipv6 {
        let (bytes, after) = rest.split_first_chunk::<16>()?;
        *rest = after;
        Some(IpAddr::from(*bytes))
    } else {
        let (bytes, after) = rest.split_first_chunk::<4>()?;
        *rest = after;
        Some(IpAddr::from(*bytes))
    }
}

fn take_name(rest: &mut &[u8]) -> Option<String> {
    let (&length, after) = rest.split_first()?;
    let (name, after) = after.split_at_checked(usize::from(length))?;
    *rest = after;
    let name = core::str::from_utf8(name).ok()?;
    (1..=EXPECTATION_NAME_MAX).contains(&name.len()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passive_ftp() -> Expectation {
        let address = |last| IpAddr::from([10, 0, 0, last]);
        Expectation {
            tuple: Tuple {
                source: address(1),
                destination: address(2),
                source_port: 0,
                destination_port: 0x1f90,
                protocol: 6,
            },
            mask_address: IpAddr::from([255; 4]),
            mask_port: 0,
            timeout: 300,
            flags: 0,
            class: 0,
            nat: Some(ExpectationNat { address: address(9), port: 0x1f91, direction: 1 }),
            helper: "ftp".into(),
            function: "nat-follow-master".into(),
        }
    }

    #[rustfmt::skip]
    const PASSIVE_FTP: [u8; 56] = [
        56, 0b1110, 0, 0, 6, 1, 0, 0, 0, 0, 0x1f, 0x90, 0, 0, 0x01, 0x2c,
        10, 0, 0, 1, 10, 0, 0, 2, 255, 255, 255, 255,
        10, 0, 0, 9, 0x1f, 0x91,
        3, b'f', b't', b'p',
        17, b'n', b'a', b't', b'-', b'f', b'o', b'l', b'l', b'o', b'w', b'-', b'm', b'a', b's', b't', b'e', b'r',
    ];

    /// [3.3.9]
    #[test]
    fn an_expectation_is_laid_out_as_the_protocol_says() {
        assert_eq!(passive_ftp().to_wire().as_deref(), Some(&PASSIVE_FTP[..]));
        assert_eq!(read_expectations(&PASSIVE_FTP), Some(vec![passive_ftp()]));
        let plain = Expectation { nat: None, helper: String::new(), function: String::new(), ..passive_ftp() };
        let bytes = plain.to_wire().unwrap();
        assert_eq!((bytes.len(), &bytes[..6]), (28, &[28, 0, 0, 0, 6, 0][..]));
        assert_eq!(read_expectations(&bytes), Some(vec![plain]));
    }

    #[test]
    fn ipv6_takes_sixteen_bytes_an_address_and_families_are_not_mixed() {
        let address: IpAddr = "2001:db8::1".parse().unwrap();
        let mut six = passive_ftp();
        (six.tuple.source, six.tuple.destination, six.mask_address) = (address, address, address);
        assert_eq!(six.to_wire(), None);
        six.nat = six.nat.map(|nat| ExpectationNat { address, ..nat });
        let bytes = six.to_wire().unwrap();
        assert_eq!((bytes[0], bytes[1]), (104, 0b1111));
        assert_eq!(read_expectations(&bytes), Some(vec![six]));
    }

    #[test]
    fn a_row_has_one_order_and_what_does_not_fit_is_told() {
        let port =
            |port| Expectation { tuple: Tuple { destination_port: port, ..passive_ftp().tuple }, ..passive_ftp() };
        let row = [port(5), port(1), port(4), port(2), port(3)];
        let (bytes, left_out) = write_expectations(&row);
        assert_eq!((bytes.len(), left_out), (4 * 56, 1));
        assert_eq!(read_expectations(&bytes).unwrap(), [port(1), port(2), port(3), port(4)]);
        assert_eq!(write_expectations(&[]), (vec![], 0));
        assert_eq!(read_expectations(&[]), Some(vec![]));
    }

    #[test]
    fn what_is_not_whole_is_nothing() {
        for end in 1..PASSIVE_FTP.len() {
            assert_eq!(read_expectations(&PASSIVE_FTP[..end]), None, "{end}");
        }
        let damaged = |at: usize, byte: u8| {
            let mut bytes = PASSIVE_FTP;
            bytes[at] = byte;
            read_expectations(&bytes)
        };
        assert_eq!(damaged(0, 0), None);
        assert_eq!(damaged(0, 55), None);
        assert_eq!(damaged(1, 0b1_1110), None);
        assert_eq!(damaged(1, 0b1100), None);
        assert_eq!(damaged(34, 4), None);
        assert_eq!(damaged(35, 0xff), None);
    }

    #[test]
    fn how_long_it_waits_is_no_other_value() {
        let later = Expectation { timeout: 7, ..passive_ftp() };
        assert!(later.same_value(&passive_ftp()) && later.same_place(&passive_ftp()));
        let other = Expectation { class: 1, ..passive_ftp() };
        assert!(!other.same_value(&passive_ftp()) && other.same_place(&passive_ftp()));
        let elsewhere = Expectation { mask_port: 1, ..passive_ftp() };
        assert!(!elsewhere.same_place(&passive_ftp()));
    }
}
