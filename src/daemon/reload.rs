//! What another configuration means to a daemon that runs: compared first, as a whole, and applied only if all of it can be.
//!
//! ```text
//!   file ──Settings::load──▶ every problem of it? ──▶ needs a restart? ──▶ Plan ──▶ groups come, change, go
//!                                   │                        │
//!                                   └───────── refused: nothing has changed
//! ```
//!
//! A key can be changed while the daemon runs only if it stands in [`GROUP_KEYS_LIVE`] or [`NODE_KEYS_LIVE`]: one that
//! somebody adds later needs a restart until it is put there.

use crate::daemon::settings::{Group, Problems, Sealing, Settings};
use crate::engine::Auth;
use serde::Serialize;
use serde_json::{Map, Value};
use std::fmt;

/// Keys of `[[group]]` that are applied without a restart.
pub const GROUP_KEYS_LIVE: &[&str] = &[
    "filter",
    "dump_interval",
    "commit",
    "audit",
    "audit_interval",
    "priority",
    "advert_interval",
    "preempt",
    "addresses",
    "foreign_addresses",
    "routes",
    "announce_refresh",
    "guard",
    "divide",
    "batch_delay",
    "wait",
    "latency_bound",
    "ack",
    "ack_timeout",
    "members",
    "ack_every",
    "ack_delay",
    "reorder_delay",
    "lag_limit",
    "commit_deadline",
    "handover_deadline",
    "merge_deadline",
    "takeover_grace",
    "startup_delay",
    "track",
    "notify",
    "notify_master",
    "notify_backup",
    "notify_fault",
    "notify_stop",
    "notify_fifo",
    "notify_timeout",
];
/// Keys of `[[track]]` that are applied without a restart: all but the name, which is the identity.
const TRACK_KEYS_LIVE: &[&str] =
    &["interface", "script", "process", "http", "file", "weight", "interval", "timeout", "rise", "fall"];
/// Keys of `[node]` that are applied without a restart.
pub const NODE_KEYS_LIVE: &[&str] = &["realtime_priority", "secret_file", "auth"];

/// What a reload has changed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reloaded {
    /// One sentence each; none if the file says what was in force already.
    pub changes: Vec<String>,
    /// What is open or at risk by that, one sentence each with its cure.
    pub warnings: Vec<String>,
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.changes.is_empty() {
            true => f.write_str("reloaded: nothing has changed"),
            false => write!(f, "reloaded: {}", self.changes.join("; ")),
        }
    }
}

/// Why a reload changed nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// The file cannot be used.
    #[error("not reloaded, the old settings stay in force: {}", .0.join("; "))]
    Configuration(Vec<String>),
    /// It asks for what cannot be changed while the daemon runs.
    #[error("not reloaded, the old settings stay in force: {}", .0.join("; "))]
    NeedsRestart(Vec<String>),
    /// A group that it adds could not be started.
    #[error("not reloaded, the old settings stay in force: {0}")]
    Failed(String),
}

impl Refusal {
    /// The reason's word.
    pub fn name(&self) -> &'static str {
        match self {
            Refusal::Configuration(_) => "bad_configuration",
            Refusal::NeedsRestart(_) => "needs_restart",
            Refusal::Failed(_) => "start_failed",
        }
    }

    /// Every problem, one line each.
    pub fn problems(&self) -> Vec<String> {
        match self {
            Refusal::Configuration(problems) | Refusal::NeedsRestart(problems) => problems.clone(),
            Refusal::Failed(problem) => vec![problem.clone()],
        }
    }
}

impl From<Problems> for Refusal {
    fn from(problems: Problems) -> Self {
        Refusal::Configuration(problems.to_string().lines().map(str::to_owned).collect())
    }
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// Groups that have the kernel for themselves no longer when those are started.
    pub crowded: Vec<u8>,
    /// Groups that are to be started.
    pub added: Vec<Group>,
    /// Groups that go on with other settings.
    pub changed: Vec<Group>,
    /// Groups that are to leave.
    pub removed: Vec<u8>,
    /// Every difference in a sentence.
    pub sentences: Vec<String>,
    /// Steps that were left out, with their cure.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Compares what is in force with what is wanted.
    ///
    /// # Errors
    /// [`Refusal::NeedsRestart`] with everything that cannot be changed.
    pub fn new(old: &Settings, new: &Settings) -> Result<Self, Refusal> {
        let mut plan = Plan::default();
        let mut fixed = Vec::new();
        compare("[node]", &old.node, &new.node, NODE_KEYS_LIVE, &mut plan.sentences, &mut fixed);
        compare_secrets(&old.node.sealing, &new.node.sealing, &mut plan.sentences, &mut fixed);
        plan.warnings.extend(skipped_step(&old.node.sealing, &new.node.sealing).map(str::to_owned));
        compare("[control]", &old.control, &new.control, &[], &mut plan.sentences, &mut fixed);
        for group in &new.groups {
            let Some(before) = find(old, group.sync_id) else {
                plan.sentences.push(format!("group {}: added", group.sync_id));
                plan.added.push(group.clone());
                continue;
            };
            let title = format!("group {}", group.sync_id);
            compare(&title, before, group, GROUP_KEYS_LIVE, &mut plan.sentences, &mut fixed);
            // Also of what a group does not say itself: whether it has the kernel for itself.
            if before != group || old.node != new.node || old.audit_orders(before) != new.audit_orders(group) {
                plan.changed.push(group.clone());
            }
        }
        compare_tracks(old, new, &mut plan.sentences, &mut fixed);
        let mut meanwhile = old.clone();
        meanwhile.groups.extend(plan.added.iter().cloned());
        let crowded = old.groups.iter().filter(|group| old.is_sole(group) && !meanwhile.is_sole(group));
        plan.crowded = crowded.map(|group| group.sync_id).collect();
        for group in old.groups.iter().filter(|group| find(new, group.sync_id).is_none()) {
            plan.sentences.push(format!("group {}: removed", group.sync_id));
            plan.removed.push(group.sync_id);
        }
        wandering_addresses(old, new, &mut fixed);
        if fixed.is_empty() { Ok(plan) } else { Err(Refusal::NeedsRestart(fixed)) }
    }
}

/// Secrets come, go and change places; what is told of them are their numbers. A number that stands for another secret than
/// before would cut this node off from those that still have the old one.
fn compare_secrets(old: &Sealing, new: &Sealing, sentences: &mut Vec<String>, fixed: &mut Vec<String>) {
    let numbers = |sealing: &Sealing| match sealing.secrets.as_slice() {
        [] => "none".to_owned(),
        secrets => secrets.iter().map(|secret| secret.id().to_string()).collect::<Vec<_>>().join(", "),
    };
    for secret in &new.secrets {
        if old.secrets.iter().any(|other| other.id() == secret.id() && other != secret) {
            let id = secret.id();
            fixed.push(format!(
                "[node]: secret_file: secret {id} is another one than before, and the peers have the old one; give the new one \
                 a number of its own (ssyncp keygen --add), or restart all nodes"
            ));
        }
    }
    if old.secrets != new.secrets {
        sentences.push(format!("[node]: secrets: {} is now {}", numbers(old), numbers(new)));
    }
}

/// A step between taking everything and taking only what is sealed that parts this node from its peers, if they have not taken
/// it at the same moment: what one of them sends the other refuses.
fn skipped_step(old: &Sealing, new: &Sealing) -> Option<&'static str> {
    let auth = |sealing: &Sealing| sealing.auth.unwrap_or(Auth::Off);
    match (auth(old), auth(new)) {
        (Auth::Off, Auth::Enforce) => Some(
            "[node]: auth is \"enforce\", and nothing was sealed before: until a peer seals with this secret it and this node do \
             not hear each other, and both may be master. Write auth = \"permissive\" on every node, and \"enforce\" once ssyncp \
             status says on every node that every peer is ready",
        ),
        (Auth::Enforce, Auth::Off) => Some(
            "[node]: nothing is sealed any more, and auth was \"enforce\": a peer where it still is does not hear this node, and \
             both may be master. Write auth = \"permissive\" on every node, then \"off\" on every node, and then remove the secret",
        ),
        _ => None,
    }
}

/// Tracks come, change and go as they like.
fn compare_tracks(old: &Settings, new: &Settings, sentences: &mut Vec<String>, fixed: &mut Vec<String>) {
    let named = |settings: &Settings, name: &str| settings.tracks.iter().find(|track| track.name == name).cloned();
    for track in &new.tracks {
        match named(old, &track.name) {
            Some(before) => {
                compare(&format!("track {}", track.name), &before, track, TRACK_KEYS_LIVE, sentences, fixed);
            }
            None => sentences.push(format!("track {}: added", track.name)),
        }
    }
    let gone = old.tracks.iter().filter(|track| named(new, &track.name).is_none());
    sentences.extend(gone.map(|track| format!("track {}: removed", track.name)));
}

fn find(settings: &Settings, sync_id: u8) -> Option<&Group> {
    settings.groups.iter().find(|group| group.sync_id == sync_id)
}

/// Compares two sections key by key, as they stand in a file.
fn compare<T: Serialize>(
    title: &str,
    old: &T,
    new: &T,
    live: &[&str],
    changes: &mut Vec<String>,
    fixed: &mut Vec<String>,
) {
    let (old, new) = (keys(old), keys(new));
    let mut names: Vec<&String> = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key))).collect();
    names.sort();
    for key in names {
        let (before, after) = (old.get(key), new.get(key));
        if before == after {
            continue;
        }
        let sentence = format!("{title}: {key}: {} is now {}", shown(before), shown(after));
        if live.contains(&key.as_str()) {
            changes.push(sentence);
        } else {
            let (before, after) = (shown(before), shown(after));
            fixed.push(format!("{title}: {key}: needs a restart ({before} is in force, {after} in the file)"));
        }
    }
}

fn keys(section: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(section) {
        Ok(Value::Object(keys)) => keys,
        // Sections are structures of strings, numbers and lists.
        _ => Map::new(),
    }
}

fn shown(value: Option<&Value>) -> String {
    value.map_or("nothing".to_owned(), Value::to_string)
}

/// The thread of one group must not remove what that of another has just added.
fn wandering_addresses(old: &Settings, new: &Settings, fixed: &mut Vec<String>) {
    for group in &new.groups {
        let others = old.groups.iter().filter(|other| other.sync_id != group.sync_id);
        for other in others {
            let theirs = |address: &std::net::IpAddr| other.addresses.iter().any(|held| held.address == *address);
            for address in group.addresses.iter().filter(|address| theirs(&address.address)) {
                fixed.push(format!(
                    "group {}: addresses: {} is held by group {}; remove it there, reload, and then add it here",
                    group.sync_id, address.address, other.sync_id
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::settings::GROUP_KEYS;
    use std::path::Path;

    fn settings(text: &str) -> Settings {
        Settings::parse(text, Path::new("ssyncp.toml")).unwrap()
    }

    fn group(sync_id: u8, more: &str) -> String {
        format!("[[group]]\nsync_id = {sync_id}\ninterfaces = [\"eth1\"]\n{more}\n")
    }

    fn plan(old: &str, new: &str) -> Result<Plan, Refusal> {
        let node = "[node]\nid = 1\n";
        Plan::new(&settings(&format!("{node}{old}")), &settings(&format!("{node}{new}")))
    }

    #[test]
    fn the_same_file_changes_nothing() {
        let same = group(51, "");
        assert_eq!(plan(&same, &same), Ok(Plan::default()));
        assert_eq!(Reloaded::default().to_string(), "reloaded: nothing has changed");
    }

    #[test]
    fn every_key_that_can_change_does_and_is_told() {
        let new = group(
            51,
            "priority = 200\nadvert_interval = \"1s\"\npreempt = false\ndump_interval = \"5s\"\ncommit = \"on-takeover\"\n\
             addresses = [\"192.0.2.10/24 dev eth0\"]\nbatch_delay = \"2ms\"\nwait = \"nap\"\nlatency_bound = \"1ms\"\nack_every = 8\nack_delay = \"6ms\"\n\
             reorder_delay = \"3ms\"\ncommit_deadline = \"2s\"\nhandover_deadline = \"3s\"\nmerge_deadline = \"1m\"\n\
             takeover_grace = \"5m\"\nstartup_delay = \"30s\"\nfilter = [\"not dport 22\"]\naudit = \"off\"\n\
             audit_interval = \"2m\"",
        );
        let plan = plan(&group(51, ""), &new).unwrap();
        assert_eq!((plan.added.len(), plan.changed.len(), plan.removed.len()), (0, 1, 0));
        assert_eq!(
            plan.sentences,
            [
                "group 51: ack_delay: \"5ms\" is now \"6ms\"",
                "group 51: ack_every: 32 is now 8",
                "group 51: addresses: [] is now [\"192.0.2.10/24 dev eth0\"]",
                "group 51: advert_interval: \"100ms\" is now \"1s\"",
                "group 51: audit: \"repair\" is now \"off\"",
                "group 51: audit_interval: \"1m\" is now \"2m\"",
                "group 51: batch_delay: \"1ms\" is now \"2ms\"",
                "group 51: commit: \"continuous\" is now \"on-takeover\"",
                "group 51: commit_deadline: \"1s\" is now \"2s\"",
                "group 51: dump_interval: \"30s\" is now \"5s\"",
                "group 51: filter: [] is now [\"not dport 22\"]",
                "group 51: handover_deadline: \"2s\" is now \"3s\"",
                "group 51: latency_bound: \"200us\" is now \"1ms\"",
                "group 51: merge_deadline: \"10s\" is now \"1m\"",
                "group 51: preempt: true is now false",
                "group 51: priority: 100 is now 200",
                "group 51: reorder_delay: \"2ms\" is now \"3ms\"",
                "group 51: startup_delay: \"0s\" is now \"30s\"",
                "group 51: takeover_grace: \"3m\" is now \"5m\"",
                "group 51: wait: \"adaptive\" is now \"nap\"",
            ]
        );
    }

    #[test]
    fn what_cannot_change_is_named_all_at_once_and_nothing_is_planned() {
        let old = format!("{}[control]\nsocket = \"/run/a\"\n", group(51, ""));
        let new = "[[group]]\nsync_id = 51\ninterfaces = [\"eth2\"]\ngroup = \"224.0.0.82\"\nsource = \"synthetic\"\n\
                   role = \"manual\"\npreempt = false\ncapacity = 10\nhistory = 64\nframe_len = 1400\npriority = 7\n\
                   [control]\nsocket = \"/run/b\"\nlisten = \"127.0.0.1:1\"\n";
        let refusal = plan(&old, new).unwrap_err();
        assert_eq!(refusal.name(), "needs_restart");
        assert_eq!(
            refusal.problems(),
            [
                "[control]: listen: needs a restart (nothing is in force, \"127.0.0.1:1\" in the file)",
                "[control]: socket: needs a restart (\"/run/a\" is in force, \"/run/b\" in the file)",
                "group 51: capacity: needs a restart (262144 is in force, 10 in the file)",
                "group 51: frame_len: needs a restart (nothing is in force, 1400 in the file)",
                "group 51: group: needs a restart (\"224.0.0.81\" is in force, \"224.0.0.82\" in the file)",
                "group 51: history: needs a restart (4096 is in force, 64 in the file)",
                "group 51: interfaces: needs a restart ([\"eth1\"] is in force, [\"eth2\"] in the file)",
                "group 51: role: needs a restart (\"vrrp\" is in force, \"manual\" in the file)",
                "group 51: source: needs a restart (\"conntrack\" is in force, \"synthetic\" in the file)",
            ]
        );
    }

    /// What makes each key another that needs a restart: what stands there before, then, and what the answer names.
    const RESTARTED: &[(&str, &str, &[&str])] = &[
        ("interfaces = [\"eth1\"]", "interfaces = [\"eth1\", \"eth2\"]", &["interfaces"]),
        ("interfaces = [\"eth1\"]", "transport = \"memory\"", &["interfaces", "transport"]),
        ("", "group = \"224.0.0.82\"", &["group"]),
        ("", "frame_len = 1400", &["frame_len"]),
        ("role = \"manual\"", "role = \"manual\"\nprofile = \"classic\"", &["profile"]),
        ("", "source = \"synthetic\"", &["source"]),
        ("", "event_buffer = \"1MiB\"", &["event_buffer"]),
        ("", "role = \"manual\"", &["role"]),
        ("role = \"keepalived\"\ninstance = \"A\"", "role = \"keepalived\"\ninstance = \"B\"", &["instance"]),
        (
            "role = \"keepalived\"\ninstance = \"A\"",
            "role = \"keepalived\"\ninstance = \"A\"\nkeepalived_fifo = \"/run/x\"",
            &["keepalived_fifo"],
        ),
        (
            "addresses = [\"192.0.2.1/24 dev a\"]",
            "addresses = [\"192.0.2.1/24 dev a\"]\nvirtual_mac = true",
            &["virtual_mac"],
        ),
        ("", "capacity = 10", &["capacity"]),
        ("", "history = 64", &["history"]),
        ("tap = \"/a.pcap\"", "tap = \"/b.pcap\"", &["tap"]),
        ("tap = \"/a.pcap\"", "tap = \"/a.pcap\"\ntap_size = \"1MiB\"", &["tap_size"]),
        ("tap = \"/a.pcap\"", "tap = \"/a.pcap\"\ntap_files = 2", &["tap_files"]),
    ];

    /// Every key of a group either changes while the daemon runs, or is named, alone, by who refuses to change it.
    #[test]
    fn each_key_that_needs_a_restart_is_named_and_no_other() {
        let whole = |more: &str| {
            let links =
                if more.contains("interfaces") || more.contains("memory") { "" } else { "interfaces = [\"eth1\"]\n" };
            format!("[[group]]\nsync_id = 51\n{links}{more}\n")
        };
        let mut known: Vec<&str> = ["sync_id"].into_iter().chain(GROUP_KEYS_LIVE.iter().copied()).collect();
        for (before, after, named) in RESTARTED {
            let refusal = plan(&whole(before), &whole(&format!("{after}\nbatch_delay = \"2ms\""))).err();
            let problems = refusal.map(|refusal| refusal.problems()).unwrap_or_default();
            let keys: Vec<&str> = problems.iter().filter_map(|problem| problem.split(": ").nth(1)).collect();
            assert_eq!(keys, *named, "{problems:?}");
            assert!(problems.iter().all(|problem| problem.contains(": needs a restart (")), "{problems:?}");
            known.extend(*named);
        }
        let mut all = GROUP_KEYS.to_vec();
        all.sort_unstable();
        known.sort_unstable();
        known.dedup();
        assert_eq!(known, all);
    }

    #[test]
    fn a_recording_and_the_profile_need_a_restart() {
        let new = group(51, "profile = \"classic\"\ntap = \"/var/tmp/a.pcap\"\ntap_size = \"1MiB\"\ntap_files = 2");
        assert_eq!(
            plan(&group(51, ""), &new).unwrap_err().problems(),
            [
                "group 51: profile: needs a restart (\"ssyncp1\" is in force, \"classic\" in the file)",
                "group 51: role: needs a restart (\"vrrp\" is in force, \"manual\" in the file)",
                "group 51: tap: needs a restart (nothing is in force, \"/var/tmp/a.pcap\" in the file)",
                "group 51: tap_files: needs a restart (8 is in force, 2 in the file)",
                "group 51: tap_size: needs a restart (\"64MiB\" is in force, \"1MiB\" in the file)",
            ]
        );
    }

    #[test]
    fn of_a_classic_group_everything_changes_that_it_has_and_that_others_may_change() {
        let classic = |more| group(51, &format!("profile = \"classic\"\n{more}"));
        let new = "filter = [\"tcp\"]\ndump_interval = \"5s\"\ncommit = \"on-takeover\"\nbatch_delay = \"2ms\"";
        assert_eq!(
            plan(&classic(""), &classic(new)).unwrap().sentences,
            [
                "group 51: batch_delay: \"1ms\" is now \"2ms\"",
                "group 51: commit: \"continuous\" is now \"on-takeover\"",
                "group 51: dump_interval: \"30s\" is now \"5s\"",
                "group 51: filter: [] is now [\"tcp\"]",
            ]
        );
        assert_eq!(plan(&classic(""), &classic("capacity = 9")).unwrap_err().problems().len(), 1);
    }

    #[test]
    fn a_step_that_parts_the_node_from_its_peers_is_warned_of_and_taken() {
        let sealing = |auth: &str| match auth {
            "" => String::new(),
            auth => format!("secret_file = \"/etc/ssyncp/secret\"\nauth = \"{auth}\"\n"),
        };
        let warned = |old: &str, new: &str| {
            let plan = plan(&(sealing(old) + &group(51, "")), &(sealing(new) + &group(51, ""))).unwrap();
            assert!(!plan.sentences.is_empty());
            plan.warnings.concat()
        };
        let cure = "Write auth = \"permissive\" on every node";
        for old in ["", "off"] {
            assert!(warned(old, "enforce").contains(cure) && warned("enforce", old).contains(cure));
            assert_eq!(warned(old, "permissive") + &warned("permissive", old), "");
        }
        assert_eq!(warned("permissive", "enforce") + &warned("enforce", "permissive") + &warned("", "off"), "");
    }

    #[test]
    fn tracks_and_hooks_come_change_and_go_without_a_restart() {
        let track = |name: &str, more: &str| format!("[[track]]\nname = \"{name}\"\n{more}\n");
        let one = track("a", "interface = \"eth0\"\nweight = -10") + &track("b", "process = \"nginx\"");
        let two = track("c", "http = \"http://127.0.0.1/\"") + &track("a", "script = [\"/bin/true\"]\nweight = 5");
        let old = group(51, "track = [\"a\", \"b\"]\nnotify_fifo = \"/run/a\"") + &one;
        let new = group(51, "track = [\"a\"]\nnotify = [\"/bin/hook\"]") + &two;
        assert_eq!(
            plan(&old, &new).unwrap().sentences,
            [
                "group 51: notify: nothing is now [\"/bin/hook\"]",
                "group 51: notify_fifo: \"/run/a\" is now nothing",
                "group 51: track: [\"a\",\"b\"] is now [\"a\"]",
                "track c: added",
                "track a: fall: nothing is now 1",
                "track a: interface: \"eth0\" is now nothing",
                "track a: interval: nothing is now \"1s\"",
                "track a: rise: nothing is now 1",
                "track a: script: nothing is now [\"/bin/true\"]",
                "track a: timeout: nothing is now \"1s\"",
                "track a: weight: -10 is now 5",
                "track b: removed",
            ]
        );
    }

    #[test]
    fn whoever_has_the_kernel_alone_no_longer_is_told_first_and_who_has_it_again_last() {
        let [one, two] = [group(51, ""), group(51, "") + &group(52, "")];
        let comes = plan(&one, &two).unwrap();
        assert_eq!((comes.crowded, comes.changed.len()), (vec![51], 1));
        let goes = plan(&two, &one).unwrap();
        assert_eq!((goes.crowded, goes.changed.len()), (vec![], 1));
        // A group that does not write to the kernel crowds nobody; one that comes for another that goes does.
        let other = group(52, "source = \"synthetic\"");
        let comes = plan(&one, &(one.clone() + &other)).unwrap();
        assert_eq!((comes.crowded, comes.changed.len()), (vec![], 0));
        let exchanged = plan(&two, &(group(51, "") + &group(53, ""))).unwrap();
        assert_eq!((exchanged.crowded, exchanged.changed.len()), (vec![], 0));
    }

    #[test]
    fn groups_come_and_go_and_a_sync_id_is_the_identity() {
        let plan = plan(&(group(51, "") + &group(52, "")), &(group(52, "") + &group(53, ""))).unwrap();
        assert_eq!((plan.added[0].sync_id, plan.removed), (53, vec![51]));
        assert_eq!(plan.sentences, ["group 53: added", "group 51: removed"]);
    }

    #[test]
    fn an_address_does_not_wander_between_groups_in_one_step() {
        let address = "addresses = [\"192.0.2.10/24 dev eth0\"]";
        let refusal = plan(&(group(51, address) + &group(52, "")), &(group(51, "") + &group(52, address))).unwrap_err();
        assert_eq!(
            refusal.problems(),
            ["group 52: addresses: 192.0.2.10 is held by group 51; remove it there, reload, and then add it here"]
        );
    }
}
