//! `/metrics` of a running pair: Prometheus' own checker likes it, and a cause is counted once, under its name.

use crate::support::{Node, Pair, eventually, root};
use socket2::SockAddr;
use ssyncp::daemon::client;
use ssyncp::sys::socket;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::{Command, Stdio};

/// ADVERTs so seldom that a busy machine is not taken for a stall, which would be counted.
const SELDOM: &str = "advert_interval = \"1s\"";

fn metrics(node: &Node) -> String {
    String::from_utf8(client::fetch(&node.socket(), "/metrics").unwrap().to_vec()).unwrap()
}

/// The value of one sample, named as Prometheus names it.
#[track_caller]
fn sample(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is missing in\n{text}")).parse().unwrap()
}

/// Frames that were dropped, by reason.
fn drops(node: &Node) -> BTreeMap<String, u64> {
    let text = metrics(node);
    let prefix = "ssyncp_frames_dropped_total{group=\"51\",reason=\"";
    let samples = text.lines().filter_map(|line| line.strip_prefix(prefix)?.split_once("\"} "));
    samples.map(|(reason, count)| (reason.to_owned(), count.parse().unwrap())).collect()
}

#[test]
fn promtool_finds_nothing_wrong_with_the_metrics_of_a_running_pair() {
    if !root() {
        return;
    }
    if Command::new("promtool").arg("--version").output().is_err() {
        return println!("skipped: needs the program promtool");
    }
    let mut pair = Pair::new("");
    pair.start();
    pair.a.connect(0..50);
    pair.until_equal(50);
    pair.settle();
    for node in [&pair.a, &pair.b] {
        let text = metrics(node);
        let mut promtool = Command::new("promtool");
        promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut promtool = promtool.spawn().unwrap();
        promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let said = promtool.wait_with_output().unwrap();
        let words = [said.stdout, said.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert!(said.status.success() && words.is_empty(), "{words}");
    }
}

#[test]
fn what_a_pair_does_is_measured() {
    if !root() {
        return;
    }
    let mut pair = Pair::new(SELDOM);
    pair.start();
    pair.a.connect(0..50);
    pair.until_equal(50);
    pair.settle();
    // Before b is proven it is not known, and not there.
    let none = "\nssyncp_unacknowledged_frames{group=\"51\"} 0.0\n";
    eventually("nothing is at risk", || metrics(&pair.a).contains(none));
    let (a, b) = (metrics(&pair.a), metrics(&pair.b));
    assert_eq!(sample(&a, "ssyncp_role{group=\"51\",role=\"master\"}"), 1.0);
    assert_eq!(sample(&b, "ssyncp_role{group=\"51\",role=\"master\"}"), 0.0);
    assert_eq!(sample(&b, "ssyncp_sync_state{group=\"51\",state=\"in_sync\"}"), 1.0);
    assert_eq!((sample(&a, "ssyncp_entries{group=\"51\"}"), sample(&b, "ssyncp_entries{group=\"51\"}")), (50.0, 50.0));
    assert!(sample(&a, "ssyncp_records_sent_total{group=\"51\"}") >= 50.0);
    assert!(sample(&b, "ssyncp_records_received_total{group=\"51\",result=\"applied\"}") >= 50.0);
    assert!(sample(&a, "ssyncp_frames_sent_total{group=\"51\",kind=\"advert\"}") > 0.0);
    assert!(sample(&b, "ssyncp_frames_received_total{group=\"51\",kind=\"data\"}") > 0.0);
    assert!(sample(&b, "ssyncp_digest_age_seconds{group=\"51\"}") < 60.0);
    assert!(sample(&a, "ssyncp_loop_lateness_seconds_count{group=\"51\"}") > 0.0);
    assert_eq!(sample(&a, "ssyncp_takeover_duration_seconds_count{group=\"51\"}"), 1.0);
    assert_eq!(sample(&a, "ssyncp_commit_duration_seconds_count{group=\"51\"}"), 1.0);
    assert_eq!(sample(&b, "ssyncp_commit_duration_seconds_count{group=\"51\"}"), 0.0);
    assert_eq!(sample(&a, "ssyncp_netlink_overruns_total{group=\"51\"}"), 0.0);
    assert!(!b.contains("ssyncp_unacknowledged_age_seconds"), "a backup risks nothing, and nothing is not 0");
    assert_eq!(drops(&pair.a).len(), ssyncp::wire::FrameError::ALL.len(), "every reason, also those that never were");
}

/// The plain record of most frames below: tcp 10.0.0.1:40000 -> 192.0.2.10:80.
const PLAIN: [u8; 24] = [1, 1, 0, 6, 10, 0, 0, 1, 192, 0, 2, 10, 0x9c, 0x40, 0, 80, 6, 3, 0, 14, 0, 6, 0x97, 0x80];

/// A frame of node 7 in group 51 with a correct size and checksum.
fn frame(kind: u8, count: u8, payload: &[u8], changes: &[(usize, u8)]) -> Vec<u8> {
    let mut frame = vec![0; 40];
    (frame[0], frame[1], frame[4], frame[5]) = (count, 51, 1, kind);
    (frame[15], frame[23], frame[31], frame[39]) = (7, 8, 9, 1);
    frame.extend_from_slice(payload);
    let size = u16::try_from(frame.len()).unwrap();
    frame[2..4].copy_from_slice(&size.to_be_bytes());
    changes.iter().for_each(|(at, value)| frame[*at] = *value);
    let checksum = crc32fast::hash(&frame);
    frame[8..12].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// One bad frame of each kind that a stranger can make, with the one reason under which it is counted.
fn bad_frames() -> Vec<(&'static str, Vec<u8>)> {
    let data = |record: &[u8], changes: &[(usize, u8)]| frame(2, 1, record, changes);
    let mut advert = vec![0; 96];
    advert[3] = 100;
    let mut status = vec![0; 40];
    (status[3], status[15], status[36]) = (1, 2, 2);
    let pull = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 1, 0, 0, 0, 7, 0, 1];
    let attribute = [&[1, 1, 0x80, 7], &PLAIN[4..], &[1, 24, 0, 0]].concat();
    let present = [&[1, 1, 0x10, 7], &PLAIN[4..], &[0, 1, 3, 0]].concat();
    let mut surplus = data(&PLAIN, &[]);
    surplus.push(0);
    let mut cut = data(&PLAIN, &[])[..39].to_vec();
    cut[3] = 39;
    let mut damaged = data(&PLAIN, &[]);
    damaged[63] ^= 0x80;
    vec![
        ("truncated", cut),
        ("size_mismatch", surplus),
        ("unknown_version", data(&PLAIN, &[(4, 2)])),
        ("checksum", damaged),
        ("zero_node", data(&PLAIN, &[(15, 0)])),
        ("zero_incarnation", data(&PLAIN, &[(23, 0)])),
        ("zero_sequence", data(&PLAIN, &[(31, 0)])),
        ("wrong_group", data(&PLAIN, &[(1, 52)])),
        ("sealed", data(&PLAIN, &[(7, 1)])),
        ("unknown_flags", data(&PLAIN, &[(7, 2)])),
        ("unknown_kind", frame(8, 0, &[], &[])),
        ("count_mismatch", frame(2, 2, &PLAIN, &[])),
        ("record_truncated", data(&PLAIN[..20], &[])),
        ("record_length", data(&[9, 9, 9, 0], &[])),
        ("record_operation", data(&PLAIN, &[(41, 3)])),
        ("record_present", data(&PLAIN, &[(42, 0x20)])),
        ("record_field", data(&present, &[])),
        ("record_attribute", data(&attribute, &[])),
        ("advert_length", frame(1, 0, &advert[..95], &[])),
        ("advert_field", frame(1, 0, &advert, &[(43, 0)])),
        ("status_length", frame(3, 0, &status[..39], &[])),
        ("status_field", frame(3, 0, &status, &[(43, 0)])),
        ("pull_length", frame(6, 0, &pull[..20], &[])),
        ("pull_field", frame(6, 0, &pull, &[(43, 0)])),
        ("unknown_pull", frame(6, 0, &pull, &[(56, 3)])),
        ("unestablished", data(&PLAIN, &[])),
        ("term_jump", frame(1, 0, &advert, &[(32, 1)])),
    ]
}

/// [1.2.1] [1.2.2] One bad frame of a kind, and the counter of its reason, and no other, is one higher.
#[test]
fn one_bad_frame_of_each_kind_is_counted_once_under_its_reason() {
    if !root() {
        return;
    }
    let mut pair = Pair::new(SELDOM);
    pair.start();
    // A backup that is in sync has proven its master; what it says before its master has proven it, too, is counted.
    eventually("b is proven", || pair.a.group()["peers"][0]["established"] == true);
    let open = || {
        let interface = socket::interface("si")?;
        socket::multicast_sender(114, Ipv4Addr::new(224, 0, 0, 81).into(), &interface, 4 << 20)
            .map_err(io::Error::other)
    };
    let wire = pair.stranger.run(open).unwrap();
    let to = SockAddr::from(SocketAddrV4::new(Ipv4Addr::new(224, 0, 0, 81), 0));
    let nodes = [&pair.a, &pair.b];
    // A peer that comes up may speak before it is proven.
    let before = nodes.map(drops);
    for (reason, frame) in bad_frames() {
        wire.send_to(&frame, &to).unwrap();
        for (node, before) in nodes.iter().zip(&before) {
            eventually(&format!("{reason} is counted"), || drops(node)[reason] > before[reason]);
        }
    }
    for (node, before) in nodes.iter().zip(&before) {
        let after = drops(node).into_iter().map(|(reason, count)| (reason.clone(), count - before[&reason]));
        let counted = after.filter(|(_, count)| *count > 0).collect::<BTreeMap<_, _>>();
        let expected = bad_frames().iter().map(|(reason, _)| ((*reason).to_owned(), 1)).collect();
        assert_eq!(counted, expected);
    }
}
