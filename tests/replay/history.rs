//! What a pair of each release said to each other is followed for ever, and gives the table that its backup had.
//!
//! `pcap/vX.Y/pair.pcapng` is the sync link of a real pair of that release, `pair.json` the backup's table at its end, made
//! by `ssyncp demo --mix --connections 12 --record pair.pcapng --table pair.json`. They are never written anew.

use std::path::Path;
use std::process::Command;

/// Every release, and the flows that its pair held.
const RELEASES: [(&str, u32); 1] = [("v0.1", 167)];

/// [4.4.5] A recording of a former release is proven equal to its master's table, and is its backup's.
#[test]
fn the_pair_of_every_release_is_replayed_into_the_table_that_it_had() {
    let pcap = Path::new(env!("CARGO_MANIFEST_DIR")).join("pcap");
    for (release, flows) in RELEASES {
        let output = Command::new(env!("CARGO_BIN_EXE_ssyncp"))
            .arg("replay")
            .arg(pcap.join(release).join("pair.pcapng"))
            .arg("--verify")
            .arg(pcap.join(release).join("pair.json"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(said, format!("equal: {flows} flows\n"), "{release}: {told}");
        assert!(output.status.success(), "{release}: {told}");
    }
}

/// A release that is recorded is replayed.
#[test]
fn no_release_is_left_out() {
    let entries = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("pcap")).unwrap();
    let mut found: Vec<String> = entries
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().join("pair.pcapng").exists() || entry.path().join("conversation.pcap").exists())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    found.sort();
    assert_eq!(found, RELEASES.map(|(release, _)| release));
}
