//! Keys and values as numbers, and whole tables as one sum.
//!
//! ```text
//!   key ──▶ Name (64 bits)    value ──▶ Value (64 bits)      Print = Σ mix(name, value) over the entries, and their number
//! ```
//!
//! A sum does not depend on the order and costs one addition a change, so a snapshot of a table is a copy of two numbers. It is
//! this oracle's own: it shares neither code nor formula with the digest of the protocol (4.4), which it has to judge.

use crate::flow::{Endpoint, Flow, FlowKey, SectionKey, attribute};
use core::fmt;
use core::hash::{BuildHasherDefault, Hasher};
use core::net::IpAddr;
use std::collections::HashMap;

/// A map whose order is the same in every run.
pub(super) type Map<K, V> = HashMap<K, V, BuildHasherDefault<Mix>>;

/// What names an entry, of flows or of sections.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Name(u64);

/// What an entry is, time-out and counters aside.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Value(u64);

impl Name {
    pub(super) fn of_flow(key: &FlowKey) -> Name {
        let ports = u64::from(key.source_port) << 16 | u64::from(key.destination_port);
        let zone = u64::from(key.zone.id) << 8 | u64::from(key.zone.direction);
        let rest = ports << 32 | zone << 8 | u64::from(key.protocol);
        Name(Mix(1).address(key.source).address(key.destination).word(rest).finish())
    }

    pub(super) fn of_section(table: u16, key: &[u8]) -> Name {
        Name(Mix(2).word(u64::from(table)).bytes(key).finish())
    }
}

impl Value {
    pub(super) fn of_flow(flow: &Flow) -> Value {
        let rest = u64::from(flow.mark) << 32 | u64::from(flow.status) << 16 | u64::from(flow.state);
        let mut mix = Mix(3).endpoint(flow.reply_source).endpoint(flow.reply_destination).word(rest);
        if let Some(tcp) = flow.tcp {
            let it = [tcp.window_scale_original, tcp.window_scale_reply, tcp.flags_original, tcp.flags_reply];
            mix = mix.bytes(&it);
        }
        for (kind, data) in flow.attributes.iter().filter(|(kind, _)| *kind != attribute::COUNTERS) {
            mix = mix.word(u64::from(kind)).bytes(data);
        }
        Value(mix.finish())
    }

    pub(super) fn of_section(value: &[u8]) -> Value {
        Value(Mix(4).bytes(value).finish())
    }
}

/// The bytes of a frame as one number.
pub(super) fn of_frame(frame: &[u8]) -> u64 {
    Mix(5).bytes(frame).finish()
}

/// A whole table as two numbers.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Print {
    sum: u64,
    /// Entries.
    pub(super) live: u64,
}

impl Print {
    pub(super) fn add(&mut self, name: Name, value: Value) {
        self.sum = self.sum.wrapping_add(Mix(name.0).word(value.0).finish());
        self.live += 1;
    }

    pub(super) fn remove(&mut self, name: Name, value: Value) {
        self.sum = self.sum.wrapping_sub(Mix(name.0).word(value.0).finish());
        self.live = self.live.wrapping_sub(1);
    }
}

/// What a name stands for: to ask an engine for it, and for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Label {
    Flow(FlowKey),
    Section(SectionKey),
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Label::Flow(key) => key.fmt(f),
            Label::Section(key) => write!(f, "section {} key {:02x?}", key.table, key.key),
        }
    }
}

/// Multiplies and turns, a word at a time; the end mixes all bits (SplitMix64's finaliser).
#[derive(Clone, Copy, Default)]
pub(super) struct Mix(u64);

impl Mix {
    fn word(self, word: u64) -> Mix {
        Mix((self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29))
    }

    fn bytes(self, bytes: &[u8]) -> Mix {
        let (words, rest) = bytes.as_chunks::<8>();
        let mix = words.iter().fold(self.word(bytes.len() as u64), |mix, word| mix.word(u64::from_le_bytes(*word)));
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        mix.word(u64::from_le_bytes(last))
    }

    fn address(self, address: IpAddr) -> Mix {
        match address {
            IpAddr::V4(it) => self.word(4).word(u64::from(u32::from(it))),
            IpAddr::V6(it) => self.word(6).word((u128::from(it) >> 64) as u64).word(u128::from(it) as u64),
        }
    }

    fn endpoint(self, endpoint: Option<Endpoint>) -> Mix {
        match endpoint {
            None => self.word(1),
            Some(it) => self.word(2).address(it.address).word(u64::from(it.port)),
        }
    }
}

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn write(&mut self, bytes: &[u8]) {
        *self = self.bytes(bytes);
    }

    fn write_u8(&mut self, number: u8) {
        *self = self.word(u64::from(number));
    }

    fn write_u32(&mut self, number: u32) {
        *self = self.word(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        *self = self.word(number);
    }

    fn write_usize(&mut self, number: usize) {
        *self = self.word(number as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Zone, protocol};
    use core::net::Ipv4Addr;

    fn flow(port: u16) -> Flow {
        let address = |last| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last));
        let (source, destination) = (address(1), address(2));
        let (protocol, zone) = (protocol::TCP, Zone::DEFAULT);
        Flow::new(FlowKey { source, destination, source_port: port, destination_port: 80, protocol, zone })
    }

    #[test]
    fn a_print_does_not_depend_on_the_order_and_forgets_what_left() {
        let entry = |port| (Name::of_flow(&flow(port).key), Value::of_flow(&flow(port)));
        let print = |ports: &[u16]| {
            let mut print = Print::default();
            ports.iter().for_each(|port| print.add(entry(*port).0, entry(*port).1));
            print
        };
        assert_eq!(print(&[1, 2, 3]), print(&[3, 1, 2]));
        assert_ne!(print(&[1, 2]), print(&[1, 3]));
        let mut left = print(&[1, 2, 3]);
        left.remove(entry(3).0, entry(3).1);
        assert_eq!(left, print(&[1, 2]));
    }

    #[test]
    fn a_time_out_and_counters_are_no_other_value_and_everything_else_is() {
        let plain = Value::of_flow(&flow(1));
        let mut other = Flow { timeout: 77, ..flow(1) };
        other.attributes.set(attribute::COUNTERS, &[1; 32]).expect("room");
        assert_eq!(Value::of_flow(&other), plain);
        other.attributes.set(attribute::LABELS, &[1; 16]).expect("room");
        assert_ne!(Value::of_flow(&other), plain);
        assert_ne!(Value::of_flow(&Flow { mark: 1, ..flow(1) }), plain);
        assert_ne!(Value::of_flow(&Flow { state: 1, ..flow(1) }), plain);
        assert_ne!(Value::of_flow(&Flow { status: 1, ..flow(1) }), plain);
    }
}
