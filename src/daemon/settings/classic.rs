//! What a group of the classic profile cannot be told, and why.
//!
//! The draft has records and nothing else: no node says who it is, hears another, or asks again. A setting that would need
//! any of that is a mistake of the file, and is refused rather than left without effect. What is in force is therefore
//! printed without them, too, so that it reads back.

use super::read::Section;
use super::{
    Commit, Group, Notifications, Profile, RoleKind, SourceKind, TransportKind, Wait, driven,
    duration_words as durations, size_words as sizes,
};
use crate::bridge::conntrack::Rule;
use crate::daemon::driven::line::Name;
use crate::time::Duration;
use crate::wire::classic::MESSAGE_LEN_MAX;
use serde::{Serialize, Serializer};
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

const NO_ELECTION: &str = "profile \"classic\" has no election; remove it (ssyncp role says who is master)";
const NO_ADDRESSES: &str = "profile \"classic\" has no election that could move addresses; remove them";
const NO_REPAIR: &str = "profile \"classic\" never sends again what was lost; remove it";
const NO_ACKNOWLEDGEMENT: &str = "profile \"classic\" has no acknowledgement; remove it";
const NO_PROOF: &str = "profile \"classic\" proves nothing, and only what is proven is audited; remove it";

/// Settings that the profile has no use for, and why.
const LACKS: &[(&str, &str)] = &[
    ("priority", NO_ELECTION),
    ("advert_interval", NO_ELECTION),
    ("preempt", NO_ELECTION),
    ("track", NO_ELECTION),
    ("addresses", NO_ADDRESSES),
    ("foreign_addresses", NO_ADDRESSES),
    ("routes", NO_ADDRESSES),
    ("announce_refresh", NO_ADDRESSES),
    ("virtual_mac", NO_ADDRESSES),
    ("guard", NO_ADDRESSES),
    ("divide", NO_ADDRESSES),
    ("history", NO_REPAIR),
    ("reorder_delay", NO_REPAIR),
    ("lag_limit", NO_ACKNOWLEDGEMENT),
    ("ack_timeout", NO_ACKNOWLEDGEMENT),
    ("members", NO_ACKNOWLEDGEMENT),
    ("ack_every", NO_ACKNOWLEDGEMENT),
    ("ack_delay", NO_ACKNOWLEDGEMENT),
    ("audit", NO_PROOF),
    ("audit_interval", NO_PROOF),
    ("startup_delay", NO_ELECTION),
    ("takeover_grace", "profile \"classic\" has one time-out for each state, and no other; remove it"),
    ("commit_deadline", "profile \"classic\" takes the role at once and writes its table then; remove it"),
    ("handover_deadline", "profile \"classic\" has no election; remove it (ssyncp role says who is master)"),
    ("merge_deadline", "profile \"classic\" merges nothing; remove it"),
];

/// Whether the profile has no such setting.
pub(super) fn lacks(key: &str) -> bool {
    LACKS.iter().any(|(lacked, _)| *lacked == key)
}

/// Notes every setting of a classic group that the profile cannot carry out.
pub(super) fn problems(section: &Section<'_, '_>, group: &Group) {
    if group.profile != Profile::Classic {
        return;
    }
    for (key, why) in LACKS.iter().filter(|(key, _)| section.get(key).is_some()) {
        section.wrong(key, *why);
    }
    let text = |key| section.get(key).and_then(|found| found.get_ref().as_str());
    if text("role") == Some("vrrp") {
        section.wrong("role", "profile \"classic\" has no election; write \"manual\" (ssyncp role says who is master)");
    }
    if section.get("ack").is_some() && text("ack") != Some("none") {
        section.wrong("ack", NO_ACKNOWLEDGEMENT);
    }
    if text("group").is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()) {
        section.wrong("group", "profile \"classic\" is of IPv4; write \"224.0.0.81\"");
    }
    if let Some(length) = group.frame_len.filter(|length| *length != MESSAGE_LEN_MAX) {
        section.wrong(
            "frame_len",
            format!("{length} bytes; a message of profile \"classic\" has {MESSAGE_LEN_MAX}; remove it"),
        );
    }
}

/// A classic group as it is written down.
#[derive(Serialize)]
struct Written<'a> {
    sync_id: u8,
    transport: TransportKind,
    interfaces: &'a [String],
    group: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    frame_len: Option<usize>,
    profile: Profile,
    source: SourceKind,
    filter: &'a [Rule],
    #[serde(serialize_with = "durations")]
    dump_interval: Duration,
    #[serde(serialize_with = "sizes")]
    event_buffer: u64,
    commit: Commit,
    role: RoleKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    keepalived_fifo: Option<&'a Path>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "driven::name")]
    instance: Option<Name>,
    capacity: u32,
    #[serde(serialize_with = "durations")]
    batch_delay: Duration,
    #[serde(flatten)]
    wait: Wait,
    #[serde(skip_serializing_if = "Option::is_none")]
    tap: Option<&'a Path>,
    #[serde(serialize_with = "sizes")]
    tap_size: u64,
    tap_files: u32,
    #[serde(flatten)]
    notifications: &'a Notifications,
}

/// Either kind of group.
#[derive(Serialize)]
#[serde(untagged)]
enum Any<'a> {
    Ssyncp1(&'a Group),
    Classic(Box<Written<'a>>),
}

/// Writes groups down, each with the settings that its profile has.
pub(super) fn groups<S: Serializer>(groups: &[Group], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(groups.iter().map(|group| match group.profile {
        Profile::Ssyncp1 => Any::Ssyncp1(group),
        Profile::Classic => Any::Classic(Box::new(Written {
            sync_id: group.sync_id,
            transport: group.transport,
            interfaces: &group.interfaces,
            group: group.group,
            frame_len: group.frame_len,
            profile: group.profile,
            source: group.source,
            filter: &group.filter,
            dump_interval: group.dump_interval,
            event_buffer: group.event_buffer,
            commit: group.commit,
            role: group.role,
            keepalived_fifo: group.keepalived_fifo.as_deref(),
            instance: group.instance.clone(),
            capacity: group.capacity,
            batch_delay: group.batch_delay,
            wait: group.wait,
            tap: group.tap.as_deref(),
            tap_size: group.tap_size,
            tap_files: group.tap_files,
            notifications: &group.notifications,
        })),
    }))
}

#[cfg(test)]
mod tests {
    use crate::daemon::settings::{Problems, Settings};
    use std::path::Path;

    fn parse(text: &str) -> Result<Settings, Problems> {
        Settings::parse(text, Path::new("ssyncp.toml"))
    }

    const SMALLEST: &str = "[node]\nid = 1\n[[group]]\nsync_id = 51\ninterfaces = [\"eth1\"]\nprofile = \"classic\"\n";

    #[test]
    fn a_classic_group_is_printed_with_what_it_has_and_reads_back() {
        let settings = parse(SMALLEST).unwrap();
        let printed = settings.to_toml();
        let (_, group) = printed.split_once("[[group]]\n").unwrap();
        assert_eq!(
            group,
            r#"sync_id = 51
transport = "raw"
interfaces = ["eth1"]
group = "224.0.0.81"
profile = "classic"
source = "conntrack"
filter = []
dump_interval = "30s"
event_buffer = "32MiB"
commit = "continuous"
role = "manual"
capacity = 262144
batch_delay = "1ms"
wait = "adaptive"
latency_bound = "200us"
tap_size = "64MiB"
tap_files = 8
notify_timeout = "10s"
"#
        );
        assert_eq!(parse(&printed).unwrap(), settings);
        let recorded =
            format!("{SMALLEST}filter = [\"not dport 22\"]\ntap = \"/var/tmp/old.pcap\"\ntap_size = \"1MiB\"\n");
        let settings = parse(&recorded).unwrap();
        assert_eq!(parse(&settings.to_toml()).unwrap(), settings);
        let more = "role = \"manual\"\nack = \"none\"\nframe_len = 1208\nbatch_delay = \"900ms\"\ncapacity = 9\n";
        let settings = parse(&format!("{SMALLEST}{more}")).unwrap();
        assert_eq!((settings.groups[0].capacity, settings.groups[0].frame_len()), (9, Some(1208)));
    }

    /// [3.1.9]
    #[test]
    fn what_classic_cannot_do_is_refused_key_by_key() {
        let text = format!(
            "{SMALLEST}{}",
            r#"role = "vrrp"
priority = 100
advert_interval = "100ms"
preempt = true
addresses = ["192.0.2.10/24 dev eth0"]
history = 2
reorder_delay = "2ms"
ack = "one"
ack_every = 0
ack_delay = "5ms"
commit_deadline = "1s"
takeover_grace = "3m"
startup_delay = "5s"
handover_deadline = "2s"
merge_deadline = "10s"
audit = "repair"
audit_interval = "1m"
frame_len = 1480
capacity = 0
batch_delay = "2s"
"#
        );
        insta::assert_snapshot!(parse(&text).unwrap_err().to_string(), @r#"
        ssyncp.toml:7: role: profile "classic" has no election; write "manual" (ssyncp role says who is master)
        ssyncp.toml:8: priority: profile "classic" has no election; remove it (ssyncp role says who is master)
        ssyncp.toml:9: advert_interval: profile "classic" has no election; remove it (ssyncp role says who is master)
        ssyncp.toml:10: preempt: profile "classic" has no election; remove it (ssyncp role says who is master)
        ssyncp.toml:11: addresses: profile "classic" has no election that could move addresses; remove them
        ssyncp.toml:12: history: profile "classic" never sends again what was lost; remove it
        ssyncp.toml:13: reorder_delay: profile "classic" never sends again what was lost; remove it
        ssyncp.toml:14: ack: profile "classic" has no acknowledgement; remove it
        ssyncp.toml:15: ack_every: profile "classic" has no acknowledgement; remove it
        ssyncp.toml:16: ack_delay: profile "classic" has no acknowledgement; remove it
        ssyncp.toml:17: commit_deadline: profile "classic" takes the role at once and writes its table then; remove it
        ssyncp.toml:18: takeover_grace: profile "classic" has one time-out for each state, and no other; remove it
        ssyncp.toml:19: startup_delay: profile "classic" has no election; remove it (ssyncp role says who is master)
        ssyncp.toml:20: handover_deadline: profile "classic" has no election; remove it (ssyncp role says who is master)
        ssyncp.toml:21: merge_deadline: profile "classic" merges nothing; remove it
        ssyncp.toml:22: audit: profile "classic" proves nothing, and only what is proven is audited; remove it
        ssyncp.toml:23: audit_interval: profile "classic" proves nothing, and only what is proven is audited; remove it
        ssyncp.toml:24: frame_len: 1480 bytes; a message of profile "classic" has 1208; remove it
        ssyncp.toml:25: capacity: 0; a table holds 1 to 268435456 flows
        ssyncp.toml:26: batch_delay: 2s is not from 0s to 1s
        "#);
    }

    #[test]
    fn a_group_of_ipv6_is_refused_for_what_it_is() {
        let problems = parse(&format!("{SMALLEST}group = \"ff02::114\"\n")).unwrap_err().to_string();
        assert!(problems.contains("profile \"classic\" is of IPv4; write \"224.0.0.81\""), "{problems}");
    }
}
