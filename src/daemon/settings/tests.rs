//! What a file of settings says, and what is told of its mistakes.

use super::*;

fn parse(text: &str) -> Result<Settings, Problems> {
    Settings::parse(text, Path::new("ssyncp.toml"))
}

fn problems(text: &str) -> String {
    parse(text).expect_err("a mistake was expected").to_string()
}

const SMALLEST: &str = "[node]\nid = 1\n[[group]]\nsync_id = 51\ninterfaces = [\"eth1\"]\n";

#[test]
fn a_group_that_stands_there_three_times_is_told_of_once_for_each_repetition() {
    let group = "[[group]]\nsync_id = 51\ninterfaces = [\"eth1\"]\n";
    let told = problems(&format!("[node]\nid = 1\n{}", group.repeat(3)));
    assert_eq!(
        told.lines().map(str::trim).collect::<Vec<_>>(),
        [
            "ssyncp.toml:7: sync_id: 51 is taken by a group above; each group has its own",
            "ssyncp.toml:10: sync_id: 51 is taken by a group above; each group has its own",
        ]
    );
}

#[test]
fn the_smallest_file_gets_the_defaults_of_the_product() {
    let settings = parse(SMALLEST).unwrap();
    assert_eq!(
        settings.to_toml(),
        r#"[node]
id = 1
name = "node-1"
realtime_priority = 10
sandbox = true

[control]
socket = "/run/ssyncp/control.sock"

[[group]]
sync_id = 51
transport = "raw"
interfaces = ["eth1"]
group = "224.0.0.81"
profile = "ssyncp1"
source = "conntrack"
filter = []
divide = "none"
dump_interval = "30s"
event_buffer = "32MiB"
commit = "continuous"
audit = "repair"
audit_interval = "1m"
role = "vrrp"
priority = 100
advert_interval = "100ms"
preempt = true
addresses = []
foreign_addresses = []
routes = []
announce_refresh = "0s"
virtual_mac = false
guard = false
capacity = 262144
history = 4096
batch_delay = "1ms"
wait = "adaptive"
latency_bound = "200us"
ack = "none"
ack_timeout = "1s"
ack_every = 32
ack_delay = "5ms"
reorder_delay = "2ms"
lag_limit = "500ms"
commit_deadline = "1s"
takeover_grace = "3m"
startup_delay = "0s"
handover_deadline = "2s"
merge_deadline = "10s"
tap_size = "64MiB"
tap_files = 8
track = []
notify_timeout = "10s"
"#
    );
}

#[test]
fn what_show_prints_reads_back_as_the_same_settings() {
    let text = r#"
            [node]
            id = 7
            name = "lb-a"
            [[group]]
            sync_id = 51
            interfaces = ["eth1", "eth2"]
            group = "239.1.2.3"
            frame_len = 4000
            source = "synthetic"
            dump_interval = "1m"
            event_buffer = "8KiB"
            commit = "on-takeover"
            audit = "off"
            audit_interval = "0s"
            role = "manual"
            ack = "quorum"
            ack_timeout = "250ms"
            members = 3
            priority = 150
            advert_interval = "1s"
            preempt = false
            addresses = ["192.0.2.10/24 dev eth0 scope link label eth0:1"]
            routes = ["198.51.100.0/24 via 192.0.2.1", "default via 2001:db8::1 table 7"]
            announce_refresh = "1m"
            virtual_mac = true
            guard = true
            capacity = 1000
            history = 64
            batch_delay = "500us"
            ack_every = 8
            ack_delay = "1ms"
            reorder_delay = "3ms"
            commit_deadline = "1m"
            takeover_grace = "90s"
            startup_delay = "5s"
            handover_deadline = "700ms"
            merge_deadline = "2m"
            tap = "/var/tmp/sync.pcapng"
            tap_size = "1536KiB"
            tap_files = 3
            [[group]]
            sync_id = 52
            transport = "memory"
            filter = ["not dst 10.0.0.0/8,2001:db8::/32", "ct state established or udp"]
            [control]
            socket = "/tmp/control.sock"
            listen = "127.0.0.1:9114"
        "#;
    let settings = parse(text).unwrap();
    assert_eq!(parse(&settings.to_toml()).unwrap(), settings);
    assert_eq!(settings.groups[0].batch_delay, Duration::from_micros(500));
    assert_eq!(settings.groups[0].dump_interval, Duration::from_secs(60));
    let deadlines = (settings.groups[0].commit_deadline, settings.groups[0].handover_deadline);
    assert_eq!(deadlines, (Duration::from_secs(60), Duration::from_millis(700)));
    assert_eq!((settings.groups[0].event_buffer, settings.groups[1].event_buffer), (8192, 33_554_432));
    assert_eq!(settings.groups[0].frame_len, Some(4000));
    let waits = (settings.groups[0].ack, settings.groups[0].ack_timeout, settings.groups[0].members);
    assert_eq!(waits, (Ack::Quorum, Duration::from_millis(250), Some(3)));
    assert_eq!((settings.groups[0].tap_size, settings.groups[0].tap_files), (1_572_864, 3));
    assert_eq!(settings.groups[1].transport, TransportKind::Memory);
    assert_eq!((settings.groups[0].audit, settings.groups[0].audit_interval), (AuditMode::Off, Duration::ZERO));
    assert!(!settings.groups[0].audits() && settings.groups[1].audits());
    assert_eq!(settings.groups[1].filter[1].to_string(), "ct state established or udp");
    assert_eq!(settings.control.listen, Some("127.0.0.1:9114".parse().unwrap()));
}

#[test]
fn an_engine_is_told_what_the_group_says() {
    let settings = parse(&format!(
        "{SMALLEST}priority = 150\nhistory = 64\npreempt = false\n\
        takeover_grace = \"90s\"\nstartup_delay = \"5s\"\nmerge_deadline = \"2m\"\n"
    ))
    .unwrap();
    let config = settings.groups[0].engine_config(&settings.node, 1400, 11, 12);
    assert_eq!((config.node, config.sync_id, config.frame_len), (NodeId(1), 51, 1400));
    assert_eq!((config.incarnation, config.seed), (11, 12));
    assert_eq!((config.priority, config.history, config.preempt), (150, 64, false));
    let times = [config.takeover_grace, config.startup_delay, config.merge_deadline];
    assert_eq!(times, [90, 5, 120].map(Duration::from_secs));
    let tuning = settings.groups[0].tuning();
    assert_eq!([tuning.takeover_grace, tuning.startup_delay, tuning.merge_deadline], times);
    assert_eq!(config.problems(), vec![]);
}

#[test]
fn every_class_of_mistake_is_reported_at_once_with_its_line() {
    let text = r#"colour = "red"
[node]
id = "one"
nam = "lb-a"
socket = "/x"
secret_file = "secret"
[[group]]
sync_id = 51
interfaces = ["eth1", "eth1"]
transport = "udp"
profile = "classical"
source = "ipvs"
role = "etcd"
advert_interval = 100
batch_delay = "1 fortnight"
ack_delay = "5"
addresses = ["192.0.2.10 dev eth0", "192.0.2.300/24 dev eth0", "2001:db8::1/129 dev eth0", "192.0.2.10/24"]
frame_len = 100
[[group]]
sync_id = 51
interfaces = "eth1"
group = "192.0.2.1"
priority = 300
preempt = "yes"
commit = "sometimes"
audit = "maybe"
audit_interval = "2h"
history = 2
dump_interval = "999ms"
takeover_grace = "2h"
startup_delay = "3601s"
merge_deadline = "99ms"
filter = ["ct state establishd", "tcp"]
ack = "quorum"
[control]
listen = "localhost"
"#;
    insta::assert_snapshot!(problems(text), @r#"
        ssyncp.toml:1: unknown key "colour" in the file; known are node, group, control, track
        ssyncp.toml:3: id: "one" is no whole number; write one from 1 to 4294967295
        ssyncp.toml:4: unknown key "nam" in [node]; did you mean "name"?
        ssyncp.toml:5: unknown key "socket" in [node]; it belongs in [control]
        ssyncp.toml:6: secret_file: is no absolute path; write "/etc/ssyncp/secret". The secret itself stands in that file (ssyncp keygen /etc/ssyncp/secret), and not here
        ssyncp.toml:9: interfaces: "eth1" stands there twice; name each sync link once
        ssyncp.toml:10: transport: "udp" is not in this version; write "raw" or "packet" or "xdp" or "memory"
        ssyncp.toml:11: profile: "classical" is unknown; write "ssyncp1" or "classic"
        ssyncp.toml:12: source: "ipvs" is not in this version; write "conntrack" or "synthetic"
        ssyncp.toml:13: role: "etcd" is not in this version; write "vrrp" or "manual" or "keepalived"
        ssyncp.toml:14: advert_interval: 100 has no unit; write "100ms" or "100s"
        ssyncp.toml:15: batch_delay: "1 fortnight" is no duration; write a whole number with a unit, as "100ms", "1s" or "5m"
        ssyncp.toml:16: ack_delay: "5" has no unit; write "5ms" or "5s"
        ssyncp.toml:17: addresses: "192.0.2.10 dev eth0" has no prefix length; write it as "192.0.2.10/24 dev eth0"
        ssyncp.toml:17: addresses: "192.0.2.300/24 dev eth0" has no valid address; write it as "192.0.2.10/24 dev eth0"
        ssyncp.toml:17: addresses: "2001:db8::1/129 dev eth0" has a prefix length that is not 0 to 128; write it as "192.0.2.10/24 dev eth0"
        ssyncp.toml:17: addresses: "192.0.2.10/24" does not say which interface holds it; write it as "192.0.2.10/24 dev eth0"
        ssyncp.toml:18: frame_len: 100 bytes; a frame has 1208 to 8960
        ssyncp.toml:20: sync_id: 51 is taken by a group above; each group has its own
        ssyncp.toml:21: interfaces: "eth1" is no list; write ["eth1"]
        ssyncp.toml:22: group: "192.0.2.1" is no multicast address; write "224.0.0.81", or "ff02::7251" for IPv6
        ssyncp.toml:23: priority: 300 is not from 1 to 255
        ssyncp.toml:24: preempt: "yes" is no truth value; write true or false
        ssyncp.toml:25: commit: "sometimes" is unknown; write "continuous" or "on-takeover"
        ssyncp.toml:26: audit: "maybe" is unknown; write "repair" or "report" or "off"
        ssyncp.toml:27: audit_interval: 2h is not from 1s to 1h; write "1m", or "0s" for none
        ssyncp.toml:28: history: 2 frames; at least 16 are needed to answer a re-request
        ssyncp.toml:29: dump_interval: 999ms is not from 1s to 1h; write "30s"
        ssyncp.toml:30: takeover_grace: 2h is not from 0s to 1h
        ssyncp.toml:31: startup_delay: 3601s is not from 0s to 1h
        ssyncp.toml:32: merge_deadline: 99ms is not from 100ms to 1h
        ssyncp.toml:33: filter: "ct state establishd", column 10: "establishd" is no state of ct; write new, established or related (those of tcp: "tcp state time_wait")
        ssyncp.toml:34: ack: "quorum" counts the nodes of the group, and nobody says how many there are; write members = 2, or as many as there are with this one
        ssyncp.toml:36: listen: "localhost" is no address with a port; write "127.0.0.1:9114"
        "#);
}

/// [3.0.7]
#[test]
fn a_group_is_any_of_ipv4_or_one_of_ipv6_that_no_router_passes_on() {
    let with = |group: &str| parse(&format!("{SMALLEST}group = \"{group}\"\n"));
    assert_eq!(with("ff02::7251").unwrap().groups[0].group.to_string(), "ff02::7251");
    assert_eq!(with("224.0.0.99").unwrap().groups[0].group.to_string(), "224.0.0.99");
    for group in ["ff05::7251", "ff0e::1", "ff12::1", "ff01::1"] {
        assert_eq!(
            with(group).unwrap_err().to_string(),
            format!("ssyncp.toml:6: group: \"{group}\" is not of link-local scope (ff02::/16); write \"ff02::7251\"")
        );
    }
    for group in ["fe80::1", "2001:db8::1", "::"] {
        assert_eq!(
            with(group).unwrap_err().to_string(),
            format!(
                "ssyncp.toml:6: group: \"{group}\" is no multicast address; write \"224.0.0.81\", or \"ff02::7251\" \
                     for IPv6"
            )
        );
    }
}

#[test]
fn a_ninth_sync_link_and_one_that_stands_there_twice_are_mistakes() {
    let with =
        |interfaces: &str| parse(&format!("[node]\nid = 1\n[[group]]\nsync_id = 51\ninterfaces = {interfaces}\n"));
    let eight = r#"["e1", "e2", "e3", "e4", "e5", "e6", "e7", "e8"]"#;
    assert_eq!(with(eight).unwrap().groups[0].interfaces.len(), 8);
    assert_eq!(
        with(&eight.replace(']', ", \"e9\"]")).unwrap_err().to_string(),
        "ssyncp.toml:5: interfaces: 9 entries; at most 8"
    );
    assert_eq!(
        with(r#"["e1", "e2", "e1"]"#).unwrap_err().to_string(),
        "ssyncp.toml:5: interfaces: \"e1\" stands there twice; name each sync link once"
    );
}

#[test]
fn contradictions_are_mistakes() {
    let text = r#"[node]
id = 1
[[group]]
sync_id = 1
transport = "memory"
interfaces = ["eth1"]
priority = 255
preempt = false
[[group]]
sync_id = 2
interfaces = []
advert_interval = "10ms"
batch_delay = "20ms"
ack_delay = "11ms"
reorder_delay = "12ms"
addresses = ["192.0.2.10/24 dev eth0", "192.0.2.10/32 dev eth1"]
[[group]]
sync_id = 3
interfaces = ["eth1"]
role = "manual"
preempt = true
addresses = ["192.0.2.10/24 dev eth0"]
commit = "on-takeover"
audit = "report"
"#;
    insta::assert_snapshot!(problems(text), @r#"
        ssyncp.toml:6: interfaces: transport "memory" has none; remove them, or write transport = "raw"
        ssyncp.toml:8: preempt: the owner of the addresses (priority 255) always preempts; remove it, or write priority = 254
        ssyncp.toml:11: interfaces: names none; transport "raw" needs at least one, as ["eth1"]
        ssyncp.toml:13: batch_delay: 20ms is not shorter than advert_interval (10ms); write a shorter one
        ssyncp.toml:14: ack_delay: 11ms is not shorter than advert_interval (10ms); write a shorter one
        ssyncp.toml:15: reorder_delay: 12ms is not shorter than advert_interval (10ms); write a shorter one
        ssyncp.toml:16: addresses: 192.0.2.10 stands there twice; name each address once
        ssyncp.toml:21: preempt: with role "manual" nobody preempts; remove it, or write role = "vrrp"
        ssyncp.toml:22: addresses: 192.0.2.10 is held by group 2; one group holds an address
        ssyncp.toml:24: audit: with commit "on-takeover" a backup's kernel holds nothing to audit; remove it, or write audit = "off"
        "#);
}

#[test]
fn what_is_missing_is_named_where_it_belongs() {
    insta::assert_snapshot!(problems(""), @r#"
        ssyncp.toml:1: [node] is missing; write [node] with id = 1 (another number on each node)
        ssyncp.toml:1: no [[group]]; write one with sync_id = 51 and interfaces = ["eth1"]
        "#);
    insta::assert_snapshot!(problems("[node]\n[[group]]\n"), @r#"
        ssyncp.toml:1: id: is missing; write id = 1 (another number on each node)
        ssyncp.toml:2: sync_id: is missing; write sync_id = 51 (the same number on all nodes)
        ssyncp.toml:2: interfaces: is missing; write interfaces = ["eth1"] (the sync links)
        "#);
    insta::assert_snapshot!(problems("[node]\nid = 1\n[group]\nsync_id = 1\n"), @r#"ssyncp.toml:3: group: there can be several; write [[group]] with two brackets"#);
    insta::assert_snapshot!(problems("node = 1\ngroup = [1]\n"), @r#"
        ssyncp.toml:1: node: is no section; write [node] on a line of its own
        ssyncp.toml:2: group: is no section; write [[group]] on a line of its own
        "#);
}

#[test]
fn a_key_of_a_long_section_that_is_like_none_is_told_the_nearest() {
    let text = "[node]\nid = 1\n[[group]]\nsync_id = 51\ninterfaces = [\"eth1\"]\nsource = \"synthetic\"\ncolour = 1\n";
    insta::assert_snapshot!(
        problems(text),
        @r#"ssyncp.toml:7: unknown key "colour" in [[group]]; of its 54 keys the nearest are source, role, group; README.md explains all"#
    );
}

#[test]
fn broken_toml_is_reported_with_its_line_and_nothing_is_guessed_from_it() {
    insta::assert_snapshot!(problems("[node]\nid = \n[[group]\nsync_id = 1\n"), @r#"
        ssyncp.toml:2: not TOML: string values must be quoted, expected literal string
        ssyncp.toml:3: not TOML: unclosed array table, expected `]`
        "#);
    insta::assert_snapshot!(problems("[node]\nid = 1\nid = 2\n"), @r#"ssyncp.toml:3: not TOML: duplicate key id; one of the two must go"#);
}

#[test]
fn a_file_that_is_no_text_is_told_with_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ssyncp.toml");
    std::fs::write(&file, b"[node]\nid = 1\nname = \"K\xf6ln\"\n").unwrap();
    let error = Settings::load(&file).unwrap_err();
    let told = "ssyncp.toml:3: not UTF-8, as TOML must be; save the file as UTF-8 (iconv -f latin1 -t utf8)";
    assert!(error.to_string().ends_with(told), "{error}");
}

#[test]
fn a_missing_file_is_one_plain_line() {
    let error = Settings::load(Path::new("/nonexistent/ssyncp.toml")).unwrap_err();
    assert_eq!(error.to_string(), "/nonexistent/ssyncp.toml: there is no such file; name another with -c FILE");
}

#[test]
fn groups_that_share_the_kernel_are_warned_about() {
    let other = |source: &str| format!("{SMALLEST}[[group]]\nsync_id = 52\ninterfaces = [\"eth1\"]\n{source}\n");
    let (shared, sole) = (parse(&other("")).unwrap(), parse(&other("source = \"synthetic\"")).unwrap());
    assert!(!shared.is_sole(&shared.groups[0]) && sole.is_sole(&sole.groups[0]));
    assert!(shared.warnings()[1].contains("share this machine's kernel"), "{:?}", shared.warnings());
    assert_eq!(sole.warnings().len(), 1);
}

/// The kernel need not bring a group what another thread of this process hears: on all of its links, in the same multicast group.
#[test]
fn siblings_of_a_group_are_heard_on_every_link_of_it() {
    let others = "sync_id = 52\ninterfaces = [\"eth1\", \"eth2\"]\n[[group]]\nsync_id = 53\ninterfaces = [\"eth2\"]\n\
                  [[group]]\nsync_id = 54\ninterfaces = [\"eth1\"]\ngroup = \"224.0.0.82\"\n";
    let settings = parse(&format!("{SMALLEST}[[group]]\n{others}")).unwrap();
    let siblings: Vec<Vec<u8>> = settings.groups.iter().map(|group| settings.siblings(group)).collect();
    assert_eq!(siblings, [vec![52], vec![], vec![52], vec![]]);
}

#[test]
fn a_file_without_a_secret_is_warned_about() {
    let warnings = parse(SMALLEST).unwrap().warnings();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("a CRC tells accidents only"), "{warnings:?}");
}

#[test]
fn a_history_that_may_take_a_gibibyte_is_warned_about() {
    let warnings = |more: &str| parse(&format!("{SMALLEST}{more}")).unwrap().warnings();
    assert_eq!(
        warnings("history = 1048576")[1],
        "group 51: history: 1048576 frames may take 8960 MiB of memory (history times frame_len)"
    );
    assert_eq!(warnings("history = 524288\nframe_len = 2048").len(), 2);
    assert_eq!(warnings("history = 524287\nframe_len = 2048").len(), 1);
}
