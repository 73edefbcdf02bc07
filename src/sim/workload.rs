//! The traffic: which flows and sections come, change and go, by the seed.
//!
//! A world has so many possible keys, numbered. Each change picks a number: what is there changes or ends, what is not
//! there opens. So keys come back soon after they have ended, which is what resurrects dead flows elsewhere. Strokes of
//! traffic come close together, with bursts and silences between.

use super::kernel::Kernel;
use super::options::Traffic;
use super::random::Random;
use crate::flow::{
    Attributes, Endpoint, Flow, FlowKey, Section, SectionChange, SectionKey, TcpInfo, Zone, attribute, protocol, status,
};
use crate::time::Duration;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One of so many strokes is a burst.
const BURST_ONE_IN: u64 = 32;
/// After one of so many strokes nothing comes for a while.
const SILENCE_ONE_IN: u64 = 64;
/// How much longer than a stroke a silence is.
const SILENCE: u32 = 100;
/// Seconds within which an entry that nobody refreshes would be told again, or end, in the course of a run.
const SHORT: u32 = 900;
/// Longest time of a section that has one, in seconds.
pub(super) const EXPIRY_MAX: u32 = 3;
/// Different sections that there can be.
const SECTIONS: u64 = 24;

/// The key of a number.
pub(super) fn key_of(number: u32, wide: bool, zoned: bool) -> FlowKey {
    let protocol = match number % 16 {
        3 | 9 => protocol::UDP,
        7 => protocol::ICMP,
        11 => protocol::SCTP,
        _ => protocol::TCP,
    };
    let zone = if zoned { Zone { id: 7, direction: (number % 3) as u8 } } else { Zone::DEFAULT };
    let (source, destination): (IpAddr, IpAddr) = if wide {
        let address = |bits: u128| Ipv6Addr::from(0x2001_0db8_u128 << 96 | bits).into();
        (address(1 << 64 | u128::from(number)), address(80))
    } else {
        (Ipv4Addr::from(10 << 24 | number).into(), Ipv4Addr::new(192, 0, 2, 10).into())
    };
    let protocol = if wide && protocol == protocol::ICMP { protocol::ICMPV6 } else { protocol };
    let destination_port = match protocol {
        protocol::ICMP => 0x0800,
        protocol::ICMPV6 => 0x8000,
        _ => 443,
    };
    FlowKey { source, destination, source_port: 40_000 + (number % 1000) as u16, destination_port, protocol, zone }
}

/// The number of a key; `None` if it is none of ours.
pub(super) fn number_of(key: &FlowKey) -> Option<u32> {
    match key.source {
        IpAddr::V4(source) => (source.octets()[0] == 10).then_some(u32::from(source) & 0x00ff_ffff),
        IpAddr::V6(source) => {
            let bits = u128::from(source);
            (bits >> 32 == 0x2001_0db8_u128 << 64 | 1 << 32).then_some(bits as u32)
        }
    }
}

/// The clients.
#[derive(Debug)]
pub(super) struct Workload {
    traffic: Traffic,
    keys: Vec<FlowKey>,
    /// The section that was changed last.
    section: u64,
    dice: Random,
}

impl Workload {
    pub(super) fn new(traffic: Traffic, mut dice: Random) -> Self {
        let mut of_1000 = |share: u64| share > 0 && dice.below(1000) < share;
        let keys = (0..traffic.keys).map(|number| {
            let (wide, zoned) = (of_1000(traffic.wide), of_1000(traffic.zoned));
            key_of(number, wide, zoned)
        });
        Workload { keys: keys.collect(), traffic, section: 0, dice }
    }

    /// Changes of the next stroke, and the time to the one after it.
    pub(super) fn stroke(&mut self) -> (u64, Duration) {
        let burst = self.dice.one_in(BURST_ONE_IN);
        let changes = self.dice.within(1, if burst { self.traffic.burst } else { self.traffic.changes });
        let rest = if self.dice.one_in(SILENCE_ONE_IN) { self.traffic.stroke * SILENCE } else { self.traffic.stroke };
        (changes, self.dice.around(rest))
    }

    /// One change of a flow, in this kernel.
    pub(super) fn change(&mut self, kernel: &mut Kernel) {
        let number = self.dice.below(self.keys.len() as u64) as u32;
        match kernel.get(number) {
            Some(_) if self.dice.below(1000) < u64::from(self.traffic.ends) => kernel.end(number),
            Some(held) => {
                let flow = self.changed(held.clone());
                kernel.put(number, flow);
            }
            None => {
                let flow = self.opened(number);
                kernel.put(number, flow);
            }
        }
    }

    /// The clients go home: what has little time left ends, and so much of the rest that at most `most` stay.
    pub(super) fn go_home(&mut self, kernel: &mut Kernel, most: usize) {
        let short: Vec<u32> = kernel.numbers(|flow| flow.timeout < SHORT).collect();
        short.into_iter().for_each(|number| kernel.end(number));
        while kernel.len() > most
            && let Some(number) = self.any(kernel)
        {
            kernel.end(number);
        }
    }

    /// Some flow of this kernel.
    pub(super) fn any(&mut self, kernel: &Kernel) -> Option<u32> {
        kernel.next(self.dice.below(self.keys.len() as u64) as u32).or_else(|| kernel.next(0))
    }

    fn opened(&mut self, number: u32) -> Flow {
        let dice = &mut self.dice;
        let key = self.keys[number as usize];
        let wide = key.source.is_ipv6();
        let mut flow = Flow { status: status::CONFIRMED, state: 1, ..Flow::new(key) };
        flow.timeout = if dice.one_in(8) { dice.within(1, 10) as u32 } else { dice.within(30, 432_000) as u32 };
        if key.protocol == protocol::TCP {
            let scale = dice.below(15) as u8;
            flow.tcp = Some(TcpInfo { window_scale_original: scale, window_scale_reply: 7, ..TcpInfo::default() });
        }
        if dice.below(1000) < self.traffic.translated {
            let address: IpAddr =
                if wide { Ipv6Addr::from(0xfd00_u128 << 112 | 7).into() } else { Ipv4Addr::new(10, 2, 0, 7).into() };
            flow.reply_source = Some(Endpoint { address, port: 8443 });
            flow.status |= status::DST_NAT | status::DST_NAT_DONE;
        }
        if dice.below(1000) < self.traffic.attributes {
            let _ = flow.attributes.set(attribute::LABELS, &[dice.next() as u8; 16]);
            if dice.one_in(3) {
                let _ = flow.attributes.set(attribute::START, &dice.next().to_be_bytes());
            }
        }
        flow.canonical()
    }

    fn changed(&mut self, mut flow: Flow) -> Flow {
        let dice = &mut self.dice;
        match dice.below(4) {
            0 => flow.state = 1 + (flow.state + 1) % 8,
            1 => flow.mark = dice.next() as u32,
            2 => flow.status ^= status::SEEN_REPLY,
            _ => flow.timeout = dice.within(1, 432_000) as u32,
        }
        if !flow.attributes.is_empty() && dice.one_in(4) {
            flow.attributes = Attributes::NONE;
        }
        flow
    }

    /// One of so many changes is submitted for acknowledgement; 0 is none.
    pub(super) fn submitted(&self) -> u64 {
        self.traffic.submitted
    }

    /// Now and then, a change of a section.
    pub(super) fn section(&mut self) -> Option<SectionChange> {
        let dice = &mut self.dice;
        if self.traffic.sections == 0 || dice.below(1000) >= self.traffic.sections {
            return None;
        }
        // One that has just begun to leave changes again.
        let number = if dice.one_in(3) { self.section } else { dice.below(SECTIONS) };
        self.section = number;
        let name =
            if number.is_multiple_of(5) { vec![number as u8; 200] } else { vec![number as u8; 1 + number as usize] };
        let key = SectionKey { table: 1 + (number % 3) as u16, key: name.into() };
        if dice.one_in(4) {
            return Some(SectionChange::Delete(key));
        }
        let most = if dice.one_in(3) { self.traffic.section_len } else { 64 };
        let (length, byte) = (dice.below(most + 1), dice.next() as u8);
        let expires = self.traffic.section_expires > 0 && dice.below(1000) < self.traffic.section_expires;
        let expiry = if expires { dice.within(1, u64::from(EXPIRY_MAX)) as u32 } else { 0 };
        let value = (0..length).map(|at| byte.wrapping_add((at / 100) as u8)).collect();
        Some(SectionChange::Put(Section { key, value, expiry }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::options::Options;
    use std::collections::BTreeSet;

    #[test]
    fn a_key_has_the_number_that_it_was_made_of() {
        for number in [0, 1, 77, 65_535, 65_536, 100_000] {
            for (wide, zoned) in [(false, false), (true, false), (false, true), (true, true)] {
                assert_eq!(number_of(&key_of(number, wide, zoned)), Some(number));
            }
        }
        let foreign = FlowKey { source: Ipv4Addr::new(11, 0, 0, 1).into(), ..key_of(1, false, false) };
        assert_eq!(number_of(&foreign), None);
    }

    #[test]
    fn flows_open_change_end_and_come_back() {
        let traffic = Traffic { keys: 50, ends: 300, wide: 300, ..Options::of_seed(1).traffic };
        let mut workload = Workload::new(traffic, Random::new(5));
        let mut kernel = Kernel::new(usize::MAX);
        let (mut most, mut seen) = (0, BTreeSet::new());
        for _ in 0..5_000 {
            workload.change(&mut kernel);
            most = most.max(kernel.len());
            seen.extend(kernel.flows().map(|flow| flow.key));
        }
        assert_eq!(seen.len(), 50);
        assert!((30..=50).contains(&most), "{most}");
        assert!(kernel.flows().all(|flow| flow.clone().canonical() == *flow), "only the one form of each value");
        workload.go_home(&mut kernel, 20);
        assert!(kernel.len() <= 20 && kernel.flows().all(|flow| flow.timeout >= 900));
    }
}
