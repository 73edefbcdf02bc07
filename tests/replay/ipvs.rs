//! Sync messages of a real kernel's IPVS, against what the kernel that received them lists.
//!
//! `pcap/ipvs/NAME.pcap` was seen on the backup's sync interface; `NAME.txt` is what its /proc/net/ip_vs_conn_sync said at
//! one or more moments. For each listing there must be a point in the recording at which the replayed connections are
//! exactly those listed.

use proptest::prelude::*;
use serde_json::Value;
use ssyncp::wire::ipvs::{Message, WordOrder};
use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::Command;

/// Every capture, and how many packets it has.
const CAPTURES: [(&str, usize); 15] = [
    ("fwmark-v0", 1),
    ("fwmark-v1", 1),
    ("group6-v1", 2),
    ("many-v0", 3),
    ("mixed46-v1", 2),
    ("persist-v1", 2),
    ("ports2-v1", 2),
    ("seq-v0", 2),
    ("seq-v1", 3),
    ("sip-pe-v1", 1),
    ("tcp4-dr-v0", 2),
    ("tcp4-dr-v1", 2),
    ("tcp4-nat-v1", 2),
    ("tcp6-nat-v1", 2),
    ("udp4-v0", 1),
];

fn file(name: &str, extension: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("pcap/ipvs").join(format!("{name}.{extension}"))
}

/// What a program's JSON output says of a capture. One capture went to a port of its own.
fn ssyncp(command: &str, name: &str, more: &[&str]) -> String {
    let mut ssyncp = Command::new(env!("CARGO_BIN_EXE_ssyncp"));
    ssyncp.arg(command).arg(file(name, "pcap")).args(["--ipvs-port", "8848", "--ipvs-port", "8849"]);
    let output = ssyncp.args(["--ipvs-port", "9999", "--json"]).args(more).output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Lines such as `TCP 10.1.0.10:40001 10.1.0.100:80 10.2.0.11:80 ESTABLISHED`, of the first `packets` packets.
fn replayed(name: &str, packets: usize) -> BTreeSet<String> {
    let replay: Value = serde_json::from_str(&ssyncp("replay", name, &["--until", &packets.to_string()])).unwrap();
    let connections = replay["connections"].as_array().unwrap();
    let lines: BTreeSet<String> = connections.iter().map(line).collect();
    assert_eq!(lines.len(), connections.len(), "{name}: none twice");
    lines
}

fn line(row: &Value) -> String {
    let text = |field: &str| row[field].as_str().unwrap().to_owned();
    let end = |side: &str| format!("{}:{}", text(side), row[format!("{side}_port")]);
    let protocol = match row["protocol"].as_u64().unwrap() {
        0 => "IP",
        6 => "TCP",
        17 => "UDP",
        other => panic!("protocol {other}"),
    };
    format!("{protocol} {} {} {} {}", end("client"), end("service"), end("server"), text("state_name"))
}

/// The backup's listings in a `.txt`, oldest first.
fn listings(name: &str) -> Vec<BTreeSet<String>> {
    let text = fs::read_to_string(file(name, "txt")).unwrap();
    let sections = text.split("### ").filter(|section| section.starts_with("backup (B): /proc/net/ip_vs_conn_sync"));
    let listings: Vec<_> = sections.map(|section| section.lines().filter_map(listed).collect()).collect();
    assert!(!listings.is_empty(), "{name}.txt has a listing");
    listings
}

/// `TCP 0A01000A 9C41 0A010064 0050 0A02000B 0050 ESTABLISHED SYNC 898`
fn listed(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [protocol @ ("IP" | "TCP" | "UDP"), client, cport, service, vport, server, dport, state, "SYNC", _] = words[..]
    else {
        return None;
    };
    let end = |address, port| format!("{}:{}", address_of(address), u16::from_str_radix(port, 16).unwrap());
    Some(format!("{protocol} {} {} {} {state}", end(client, cport), end(service, vport), end(server, dport)))
}

fn address_of(word: &str) -> IpAddr {
    match u32::from_str_radix(word, 16) {
        Ok(bits) => IpAddr::V4(Ipv4Addr::from_bits(bits)),
        Err(_) => IpAddr::V6(word.parse::<Ipv6Addr>().unwrap()),
    }
}

#[test]
fn the_replayed_connections_are_those_that_the_kernels_backup_lists() {
    let mut compared = 0;
    for (name, packets) in CAPTURES {
        let mut from = 1;
        for listing in listings(name) {
            let found = (from..=packets).find(|packets| replayed(name, *packets) == listing);
            let Some(at) = found else {
                panic!(
                    "{name}: no point after packet {from} has {listing:#?}, but the end has {:#?}",
                    replayed(name, packets)
                );
            };
            from = at;
            compared += listing.len();
        }
        assert_eq!(replayed(name, packets), listings(name).pop().unwrap(), "{name}: the end");
    }
    println!("{compared} listed connections in {} captures", CAPTURES.len());
    assert!(compared > 200, "{compared}");
}

#[test]
fn every_capture_here_is_compared() {
    let names = fs::read_dir(file("any", "pcap").parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let names: BTreeSet<String> = names
        .filter(|path| path.extension().is_some_and(|extension| extension == "pcap"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, CAPTURES.map(|(name, _)| name.to_owned()).into());
}

/// The words that were given to the kernel before it sent them on; the sender of version 0 was an x86.
#[test]
fn sequence_words_of_both_versions_are_the_ones_that_were_set() {
    let deltas = r#"{"in":{"delta":5,"initial":287454020,"previous_delta":4294967294},"out":{"delta":4294967295,"initial":1432778632,"previous_delta":7}}"#;
    for name in ["seq-v0", "seq-v1"] {
        let replay: Value = serde_json::from_str(&ssyncp("replay", name, &[])).unwrap();
        let connection = &replay["connections"][0];
        assert_eq!(connection["sequences"].to_string(), deltas, "{name}");
        assert_eq!(connection["state_name"], "TIME_WAIT", "{name}");
    }
    let other: Value = serde_json::from_str(&ssyncp("replay", "seq-v0", &["--ipvs-order", "big"])).unwrap();
    assert_eq!(other["connections"][0]["sequences"]["in"]["initial"], 0x4433_2211);
}

/// What `ipvsadm -Lnc --persistent-conn` shows of the persistence engine in sip-pe-v1.txt.
#[test]
fn the_persistence_engine_and_its_data_are_told() {
    let replay: Value = serde_json::from_str(&ssyncp("replay", "sip-pe-v1", &[])).unwrap();
    let engines = replay["connections"].as_array().unwrap().iter().filter(|row| row["template"] == true);
    let engines: Vec<String> = engines.map(|row| format!("{} {}", row["client"], row["engine"])).collect();
    assert_eq!(
        engines,
        [
            r#""10.1.0.10" {"data":"call-a@10.1.0.10","name":"sip"}"#,
            r#""10.1.0.20" {"data":"call-bbbbb-0123456789@10.1.0.20","name":"sip"}"#,
        ]
    );
}

#[test]
fn every_message_of_the_kernel_is_accepted_whole() {
    let mut records = 0;
    for (name, _) in CAPTURES {
        for line in ssyncp("decode", name, &[]).lines() {
            let object: Value = serde_json::from_str(line).unwrap();
            assert_eq!((&object["verdict"], &object["ipvs"]["surplus"]), (&"accepted".into(), &0.into()), "{name}");
            let all = object["ipvs"]["records"].as_array().unwrap();
            assert_eq!(all.len() as u64, object["ipvs"]["count"].as_u64().unwrap(), "{name}");
            assert!(all.iter().all(|row| row["skipped"].is_null()), "{name}: nothing is stepped over");
            records += all.len();
        }
    }
    assert_eq!(records, 415, "all that the captures hold");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

    /// Any bytes with a size that fits, so that more than the first check is reached.
    #[test]
    fn no_bytes_make_reading_panic_and_no_record_goes_missing(
        mut bytes in prop::collection::vec(prop_oneof![3 => any::<u8>(), 2 => Just(0_u8), 1 => Just(36_u8)], 4..400),
        version_1: bool,
    ) {
        if version_1 && bytes.len() >= 12 {
            bytes[0] = 0;
            bytes[5..8].copy_from_slice(&[1, 0, 0]);
            bytes[8] &= 1;
            bytes[10] = 0;
        }
        let size = (bytes.len() as u16).to_be_bytes();
        bytes[2..4].copy_from_slice(&size);
        if let Ok(message) = Message::parse(&bytes, WordOrder::LittleEndian) {
            prop_assert_eq!(message.records().count(), usize::from(message.count));
            message.records().flatten().for_each(|connection| drop(connection.flow()));
        }
    }
}
