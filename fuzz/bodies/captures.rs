//! The recordings of the repository, read by another's code than ours: what the fuzzers begin with.

use std::fs;
use std::path::{Path, PathBuf};

/// The repository.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    if here.join("pcap").is_dir() { here.to_owned() } else { here.join("..") }
}

/// A text of the repository.
pub fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).expect("a text of the repository")
}

/// Every recording in a folder of the repository, whole.
pub fn files(folder: &str) -> Vec<Vec<u8>> {
    paths(folder).iter().map(|path| fs::read(path).expect("a readable capture")).collect()
}

/// Time (seconds), link type and bytes of every packet in a folder's recordings.
pub fn packets(folder: &str) -> Vec<(u64, u16, Vec<u8>)> {
    let mut packets = Vec::new();
    for path in paths(folder) {
        let file = fs::File::open(&path).expect("a readable capture");
        let mut reader = pcap_file::pcap::PcapReader::new(file).expect("a capture");
        let link = u32::from(reader.header().datalink) as u16;
        while let Some(packet) = reader.next_packet() {
            let packet = packet.expect("a whole packet");
            packets.push((packet.timestamp.as_secs(), link, packet.data.into_owned()));
        }
    }
    packets
}

/// The payload of every IPv4 packet without a link layer.
pub fn payloads(folder: &str) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for (_, link, data) in packets(folder) {
        if link == 1 {
            continue;
        }
        let header = usize::from(data.first().copied().unwrap_or(0) & 0x0f) * 4;
        found.extend(data.get(header..).map(<[u8]>::to_vec));
    }
    found
}

/// The payload of every UDP datagram in Ethernet and IPv4.
pub fn datagrams(folder: &str) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for (_, link, data) in packets(folder) {
        let udp = data.get(12..14) == Some(&[8, 0]) && data.get(23) == Some(&17);
        if link == 1 && udp {
            let header = usize::from(data[14] & 0x0f) * 4;
            found.extend(data.get(14 + header + 8..).map(<[u8]>::to_vec));
        }
    }
    found
}

fn paths(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).expect("the repository");
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "pcap"))
        .collect();
    found.sort();
    found
}
