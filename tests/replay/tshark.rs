//! `ssyncp decode` and Wireshark's tshark, which shares nothing with it, read the same in every recording.

use crate::machine;
use serde_json::Value;
use ssyncp::transport::pcap::{Format, Writer, ip_header};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What tshark is asked for: the columns of [`decoded`].
const FIELDS: [&str; 7] = ["frame.number", "frame.time_epoch", "ip.src", "ip.dst", "ip.proto", "ip.ttl", "ip.len"];

fn tshark(file: &Path) -> Vec<String> {
    let mut command = Command::new("tshark");
    command.arg("-n").arg("-r").arg(file).args([
        "-T",
        "fields",
        "-Y",
        "ip.proto == 114 or udp.dstport in {8848..8911}",
    ]);
    for field in FIELDS {
        command.args(["-e", field]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn decoded(file: &Path) -> Vec<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ssyncp"));
    let output = command.arg("decode").arg(file).arg("--json").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let row = |line: &str| {
        let object: Value = serde_json::from_str(line).unwrap();
        let fields = ["number", "time", "source", "destination", "protocol", "ttl", "length"];
        let words = fields.map(|field| object[field].as_str().map_or_else(|| object[field].to_string(), str::to_owned));
        words.join("\t")
    };
    text.lines().map(row).collect()
}

fn recordings(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "pcap")).collect()
}

#[test]
fn decode_and_tshark_agree_on_every_golden_frame() {
    if !machine::program("tshark") {
        return;
    }
    let (mut frames, mut classic) = (0, 0);
    for file in recordings("pcap") {
        let ours = decoded(&file);
        assert_eq!(ours, tshark(&file), "{}", file.display());
        assert!(ours[0].contains("\t114\t255\t"), "{}: {}", file.display(), ours[0]);
        frames += ours.len();
        let name = file.file_name().unwrap().to_string_lossy();
        classic += if name.starts_with("classic-") { ours.len() } else { 0 };
    }
    println!("{frames} golden frames, {classic} of them classic: decode and tshark agree on {FIELDS:?}");
    assert!(frames >= 48 && classic >= 15, "{frames} and {classic}");
}

/// Every frame of a conversation that an earlier release had.
#[test]
fn decode_and_tshark_agree_on_the_recordings_of_earlier_releases() {
    if !machine::program("tshark") {
        return;
    }
    for file in recordings("pcap/v0.1") {
        let ours = decoded(&file);
        assert!(!ours.is_empty(), "{}", file.display());
        assert_eq!(ours, tshark(&file), "{}", file.display());
    }
}

/// group6-v1 is IPv6, in fragments and to another port: tshark has other fields for it.
#[test]
fn decode_and_tshark_agree_on_the_captures_of_ipvs() {
    if !machine::program("tshark") {
        return;
    }
    let mut messages = 0;
    for file in recordings("pcap/ipvs").iter().filter(|file| !file.ends_with("group6-v1.pcap")) {
        let ours = decoded(file);
        assert_eq!(ours, tshark(file), "{}", file.display());
        messages += ours.len();
    }
    assert_eq!(messages, 26);
}

#[test]
fn tshark_reads_what_we_write() {
    if !machine::program("tshark") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    for (name, format) in [("ours.pcap", Format::Pcap), ("ours.pcapng", Format::PcapNg)] {
        let file = directory.path().join(name);
        let mut writer = Writer::new(format, fs::File::create(&file).unwrap()).unwrap();
        let header = ip_header([10, 0, 0, 1].into(), [224, 0, 0, 81].into(), 114, 3).unwrap();
        let packet = [header.as_ref(), b"abc"].concat();
        for second in [1_700_000_000, 1_700_000_001] {
            writer.write(Duration::new(second, 123_456_789), &packet).unwrap();
        }
        writer.flush().unwrap();
        let rest = "10.0.0.1\t224.0.0.81\t114\t255\t23";
        let expected = [format!("1\t1700000000.123456789\t{rest}"), format!("2\t1700000001.123456789\t{rest}")];
        assert_eq!(tshark(&file), expected, "{name}");
        assert_eq!(decoded(&file), expected, "{name}");
    }
}
