//! What is done with the bytes of each fuzz target, as plain functions: libFuzzer calls them, and so does
//! `tests/fuzz_corpora.rs` on a stable compiler, with every seed and every input that ever broke something.
//!
//! A body does more than wait for a panic: what can be read must be written again and read the same, and engines that
//! were told nonsense must find together afterwards.

#![allow(dead_code, unreachable_pub, reason = "each target uses one of them")]

mod attributes;
mod balancers;
mod captures;
mod engine;
mod fifo;
mod frames;
mod kernel;
mod operator;
mod packet;
mod recordings;
mod sealed;
mod sections;
mod third;
mod window;

use std::path::PathBuf;

/// One target.
pub struct Target {
    /// Its name: that of its program, and of its folders of seeds and inputs.
    pub name: &'static str,
    /// The files of src that it is about, as a regular expression: of them is told what it never reaches.
    pub room: &'static str,
    /// What it does with the bytes.
    pub body: fn(&[u8]),
    /// What it begins with: from the recordings, the examples of the documents, and by hand.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Every target.
#[rustfmt::skip]
pub const TARGETS: &[Target] = &[
    Target { name: "frame", room: "wire/(frame|advert|status|pull|digests|merge|control|checks|error|describe)", body: frames::frame, seeds: frames::frame_seeds },
    Target { name: "records", room: "wire/(record|conn|data|section|merge)", body: frames::records, seeds: frames::record_seeds },
    Target { name: "sections", room: "(table/sections|wire/(section|data))", body: sections::sections, seeds: sections::section_seeds },
    Target { name: "sealed", room: "wire/(seal|unseal)", body: sealed::sealed, seeds: sealed::sealed_seeds },
    Target { name: "window", room: "wire/sequence", body: window::window, seeds: window::window_seeds },
    Target { name: "classic", room: "(wire/classic|engine/classic)", body: balancers::classic, seeds: balancers::classic_seeds },
    Target { name: "ipvs", room: "wire/ipvs", body: balancers::ipvs, seeds: balancers::ipvs_seeds },
    Target { name: "attributes", room: "flow/(attributes|expectation)", body: attributes::attributes, seeds: attributes::attribute_seeds },
    Target { name: "packet", room: "transport/(ethernet|ipv4)", body: packet::packet, seeds: packet::packet_seeds },
    Target { name: "pcap", room: "transport/pcap/(reader|layers|writer)", body: recordings::pcap, seeds: recordings::pcap_seeds },
    Target { name: "pcapng", room: "transport/pcap/(reader|layers|writer)", body: recordings::pcapng, seeds: recordings::pcapng_seeds },
    Target { name: "netlink", room: "(sys/netlink/message|sys/interface|bridge/conntrack/(codec|source))", body: kernel::netlink, seeds: kernel::netlink_seeds },
    Target { name: "filter", room: "bridge/conntrack/filter", body: kernel::filter, seeds: kernel::filter_seeds },
    Target { name: "config", room: "daemon/settings", body: operator::config, seeds: operator::config_seeds },
    Target { name: "control", room: "daemon/(http/request|flows|who)", body: operator::control, seeds: operator::control_seeds },
    Target { name: "fifo", room: "daemon/driven/line", body: fifo::fifo, seeds: fifo::fifo_seeds },
    Target { name: "engine", room: "(engine|table)/", body: engine::engine, seeds: engine::seeds },
    Target { name: "third", room: "(engine|table)/", body: third::third, seeds: third::third_seeds },
];

/// Does with the bytes what the target does.
///
/// # Panics
/// If it finds something, or there is no such target.
pub fn run(target: &str, data: &[u8]) {
    (TARGETS.iter().find(|known| known.name == target).expect("a target").body)(data);
}

/// Inputs that once broke a target, and a small corpus that reaches far: committed files.
pub fn committed(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for kind in ["regressions", "corpus"] {
        let folder = captures::root().join("fuzz").join(kind).join(target);
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("a readable folder").path();
            found.push((path.clone(), std::fs::read(&path).expect("a readable file")));
        }
    }
    found.sort();
    found
}
