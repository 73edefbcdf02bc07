//! From the spans of a TOML document to [`Settings`], collecting every problem on the way.
//!
//! Each getter of [`Section`] answers the value, or the default after it has noted what is wrong, so that one mistake
//! never hides the next.

use super::{
    ADDRESSES_MAX, AUDIT_INTERVAL, AUDIT_INTERVAL_MAX, AUDIT_INTERVAL_MIN, AuditMode, Commit, Control, DEFAULT_SOCKET,
    DUMP_INTERVAL, DUMP_INTERVAL_MAX, DUMP_INTERVAL_MIN, EVENT_BUFFER, EVENT_BUFFER_MAX, EVENT_BUFFER_MIN, GROUPS_MAX,
    Group, Node, Problem, Profile, REALTIME_PRIORITY, RoleKind, Sealing, Settings, SourceKind, TAP_FILES,
    TAP_FILES_MAX, TAP_SIZE, TAP_SIZE_MIN, TransportKind, classic, driven, notify, secret, takeover, track, value,
    wait, xdp,
};
use crate::bridge::conntrack::{Rule, filter::RULES_MAX};
use crate::engine::{Ack, Config, HISTORY_MAX};
use crate::time::Duration;
use crate::transport::pcap::Format;
use crate::wire::{GROUP, LINKS_MAX, NAME_LEN_MAX, NodeId};
use std::cell::RefCell;
use std::ops::{Range, RangeInclusive};
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

const ROOT_KEYS: &[&str] = &["node", "group", "control", "track"];
const NODE_KEYS: &[&str] = &["id", "name", "realtime_priority", "sandbox", "secret_file", "auth"];
const CONTROL_KEYS: &[&str] = &["socket", "listen"];
/// Every key of `[[group]]`.
pub(in crate::daemon) const GROUP_KEYS: &[&str] = &[
    "sync_id",
    "interfaces",
    "transport",
    "group",
    "frame_len",
    "profile",
    "source",
    "dump_interval",
    "event_buffer",
    "commit",
    "audit",
    "audit_interval",
    "role",
    "keepalived_fifo",
    "instance",
    "priority",
    "advert_interval",
    "preempt",
    "addresses",
    "foreign_addresses",
    "routes",
    "announce_refresh",
    "virtual_mac",
    "guard",
    "divide",
    "capacity",
    "history",
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
    "takeover_grace",
    "startup_delay",
    "handover_deadline",
    "merge_deadline",
    "tap",
    "tap_size",
    "tap_files",
    "filter",
    "track",
    "notify",
    "notify_master",
    "notify_backup",
    "notify_fault",
    "notify_stop",
    "notify_fifo",
    "notify_timeout",
];
/// How frames may travel, by the words of `transport`.
const TRANSPORTS: &[(&str, TransportKind)] = &[
    ("raw", TransportKind::Raw),
    ("packet", TransportKind::Packet),
    ("xdp", TransportKind::Xdp),
    ("memory", TransportKind::Memory),
];

/// Most keys of a section that a message lists.
const LISTED_KEYS: usize = 16;
/// Two words this far apart are no longer a typing mistake.
const TYPING_MISTAKE: f64 = 0.75;

/// Reads a whole document.
pub(super) fn settings(text: &str, open: secret::Opener) -> Result<Settings, Vec<Problem>> {
    let report = Report { text, problems: RefCell::default() };
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        for error in &errors {
            let span = error.span().unwrap_or(0..0);
            let which = match text.get(span.clone()) {
                Some(key) if error.message() == "duplicate key" => format!(" {key}; one of the two must go"),
                _ => String::new(),
            };
            report.note(span, format!("not TOML: {}{which}", error.message().replace('\n', "; ")));
        }
        return Err(report.into_problems());
    }
    let root = Section::open(&report, "the file", document.get_ref(), 0..0, ROOT_KEYS);
    let node = node(&root, open);
    let control = control(&root);
    let tracks = track::tracks(&root);
    let groups = groups(&root, &node, &tracks);
    let problems = report.into_problems();
    if problems.is_empty() { Ok(Settings { node, control, groups, tracks }) } else { Err(problems) }
}

/// Where problems are collected.
struct Report<'t> {
    text: &'t str,
    problems: RefCell<Vec<Problem>>,
}

impl Report<'_> {
    fn note(&self, span: Range<usize>, message: String) {
        let before = &self.text.as_bytes()[..span.start.min(self.text.len())];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        self.problems.borrow_mut().push(Problem { line: Some(line), message });
    }

    /// By line; within a line in the order in which they were found.
    fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| problem.line);
        problems
    }
}

/// One table of the document, with the keys that it may have.
pub(super) struct Section<'a, 't> {
    report: &'a Report<'t>,
    table: &'a DeTable<'t>,
    span: Range<usize>,
}

impl<'a, 't> Section<'a, 't> {
    /// Looks at a table and notes every key that it must not have.
    fn open(
        report: &'a Report<'t>,
        name: &str,
        table: &'a DeTable<'t>,
        span: Range<usize>,
        known: &'static [&'static str],
    ) -> Self {
        for key in table.keys() {
            let word = key.get_ref().as_ref();
            if !known.contains(&word) {
                report.note(key.span(), format!("unknown key \"{word}\" in {name}; {}", advice(word, known)));
            }
        }
        Section { report, table, span }
    }

    /// The tables of a list, as `[[key]]` writes it, at most so many.
    pub(super) fn sections(
        &self,
        key: &'static str,
        most: usize,
        known: &'static [&'static str],
    ) -> Vec<Section<'a, 't>> {
        let Some(found) = self.get(key) else { return Vec::new() };
        let Some(array) = found.get_ref().as_array() else {
            self.wrong(key, format!("there can be several; write [[{key}]] with two brackets"));
            return Vec::new();
        };
        if array.len() > most {
            self.wrong(key, format!("{} of them; at most {most}", array.len()));
        }
        let open = |item: &'a Spanned<DeValue<'t>>| match item.get_ref().as_table() {
            Some(table) => Some(Section::open(self.report, &format!("[[{key}]]"), table, item.span(), known)),
            None => {
                self.report.note(item.span(), format!("{key}: is no section; write [[{key}]] on a line of its own"));
                None
            }
        };
        array.iter().take(most).filter_map(open).collect()
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'t>>> {
        self.table.get(key)
    }

    /// Notes a problem at the key's value, or at the section if the key is not there.
    pub(super) fn wrong(&self, key: &str, problem: impl std::fmt::Display) {
        let span = self.get(key).map_or_else(|| self.span.clone(), Spanned::span);
        self.report.note(span, format!("{key}: {problem}"));
    }

    /// Applies `read` to the key's value; the default if it is not there, or after a problem was noted.
    pub(super) fn read<T>(&self, key: &str, default: T, read: impl FnOnce(&DeValue<'t>) -> Result<T, String>) -> T {
        let Some(found) = self.get(key) else { return default };
        match read(found.get_ref()) {
            Ok(value) => value,
            Err(problem) => {
                self.wrong(key, problem);
                default
            }
        }
    }

    pub(super) fn number<T: TryFrom<i128>>(&self, key: &str, default: T, range: RangeInclusive<i128>) -> T {
        self.read(key, default, |found| number(found, range))
    }

    pub(super) fn truth(&self, key: &str, default: bool) -> bool {
        self.read(key, default, |found| {
            found.as_bool().ok_or_else(|| format!("{} is no truth value; write true or false", shown(found)))
        })
    }

    pub(super) fn duration(&self, key: &str, default: Duration) -> Duration {
        self.read(key, default, |found| match found {
            DeValue::String(text) => value::duration(text),
            DeValue::Integer(number) => Err(format!("{number} has no unit; write \"{number}ms\" or \"{number}s\"")),
            other => Err(format!("{} is no duration; write \"100ms\", \"1s\" or \"5m\"", shown(other))),
        })
    }

    /// One word of `words`; those of `not_yet` are refused as such.
    pub(super) fn word<T: Copy>(&self, key: &str, default: T, words: &[(&str, T)], not_yet: &[&str]) -> T {
        self.read(key, default, |found| {
            let named = words.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ");
            let text = found.as_str().ok_or_else(|| format!("{} is no word; write {named}", shown(found)))?;
            match words.iter().find(|(word, _)| *word == text) {
                Some((_, value)) => Ok(*value),
                None if not_yet.contains(&text) => Err(format!("\"{text}\" is not in this version; write {named}")),
                None => Err(format!("\"{text}\" is unknown; write {named}")),
            }
        })
    }

    /// A list of strings, each read by `read`; those that cannot be read are noted and left out.
    pub(super) fn list<T>(
        &self,
        key: &str,
        most: usize,
        example: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let Some(found) = self.get(key) else { return Vec::new() };
        let Some(array) = found.get_ref().as_array() else {
            self.wrong(key, format!("{} is no list; write [{example}]", shown(found.get_ref())));
            return Vec::new();
        };
        if array.len() > most {
            self.wrong(key, format!("{} entries; at most {most}", array.len()));
        }
        let mut values = Vec::new();
        for item in array.iter().take(most) {
            let read = match item.get_ref().as_str() {
                Some(text) => read(text),
                None => Err(format!("{} is no text; write [{example}]", shown(item.get_ref()))),
            };
            match read {
                Ok(value) => values.push(value),
                Err(problem) => self.report.note(item.span(), format!("{key}: {problem}")),
            }
        }
        values
    }
}

fn node(root: &Section<'_, '_>, open: secret::Opener) -> Node {
    let sealing = Sealing::default();
    let fallback = Node { id: NodeId(0), name: String::new(), realtime_priority: 0, sandbox: true, sealing };
    let Some(found) = root.get("node") else {
        root.report.note(0..0, "[node] is missing; write [node] with id = 1 (another number on each node)".into());
        return fallback;
    };
    let Some(table) = found.get_ref().as_table() else {
        root.wrong("node", "is no section; write [node] on a line of its own");
        return fallback;
    };
    let section = Section::open(root.report, "[node]", table, found.span(), NODE_KEYS);
    if section.get("id").is_none() {
        section.wrong("id", "is missing; write id = 1 (another number on each node)");
    }
    let id = section.number("id", 0_u32, 1..=i128::from(u32::MAX));
    let name = section.read("name", format!("node-{id}"), |found| match found.as_str() {
        None => Err(format!("{} is no text; write \"lb-a\"", shown(found))),
        Some(name) if name.is_empty() || name.len() > NAME_LEN_MAX => {
            Err(format!("a name has 1 to {NAME_LEN_MAX} bytes"))
        }
        Some(name) if name.chars().any(char::is_control) => Err("a name has no control characters".into()),
        Some(name) => Ok(name.to_owned()),
    });
    let realtime_priority = section.number("realtime_priority", REALTIME_PRIORITY, 0..=99);
    let sandbox = section.truth("sandbox", true);
    Node { id: NodeId(id), name, realtime_priority, sandbox, sealing: secret::sealing(&section, open) }
}

fn control(root: &Section<'_, '_>) -> Control {
    let fallback = Control { socket: DEFAULT_SOCKET.into(), listen: None };
    let Some(found) = root.get("control") else { return fallback };
    let Some(table) = found.get_ref().as_table() else {
        root.wrong("control", "is no section; write [control] on a line of its own");
        return fallback;
    };
    let section = Section::open(root.report, "[control]", table, found.span(), CONTROL_KEYS);
    let socket = section.read("socket", fallback.socket, |found| match found.as_str() {
        Some(path) if path.starts_with('/') && path.len() <= SOCKET_PATH_MAX => Ok(path.into()),
        Some(path) if path.len() > SOCKET_PATH_MAX => {
            Err(format!("{} bytes; the path of a socket has at most {SOCKET_PATH_MAX}", path.len()))
        }
        _ => Err(format!("{} is no absolute path; write \"{DEFAULT_SOCKET}\"", shown(found))),
    });
    let listen = section.read("listen", None, |found| {
        let wrong = || format!("{} is no address with a port; write \"127.0.0.1:9114\"", shown(found));
        found.as_str().and_then(|text| text.parse().ok()).map(Some).ok_or_else(wrong)
    });
    Control { socket, listen }
}

/// `sun_path` of linux/un.h holds 108 bytes with its terminating zero.
const SOCKET_PATH_MAX: usize = 107;

fn groups(root: &Section<'_, '_>, node: &Node, tracks: &[track::Track]) -> Vec<Group> {
    let Some(found) = root.get("group") else {
        root.report.note(0..0, "no [[group]]; write one with sync_id = 51 and interfaces = [\"eth1\"]".into());
        return Vec::new();
    };
    let Some(array) = found.get_ref().as_array() else {
        root.wrong("group", "there can be several; write [[group]] with two brackets");
        return Vec::new();
    };
    if array.len() > GROUPS_MAX {
        root.wrong("group", format!("{} groups; at most {GROUPS_MAX}", array.len()));
    }
    let mut groups: Vec<(Group, bool)> = Vec::new();
    for item in array.iter().take(GROUPS_MAX) {
        let Some(table) = item.get_ref().as_table() else {
            root.report.note(item.span(), "group: is no section; write [[group]] on a line of its own".into());
            continue;
        };
        let section = Section::open(root.report, "[[group]]", table, item.span(), GROUP_KEYS);
        let group = group(&section);
        contradictions(&section, &group);
        takeover::contradictions(&section, &group);
        classic::problems(&section, &group);
        track::problems(&section, &group, tracks);
        driven::problems(&section, &group);
        ranges(&section, &group, node);
        between_groups(&section, &group, groups.iter().map(|(group, _)| group));
        groups.push((group, section.get("divide").is_some()));
    }
    takeover::divide(groups)
}

fn group(section: &Section<'_, '_>) -> Group {
    let default = Config::new(NodeId(1), 0);
    if section.get("sync_id").is_none() {
        section.wrong("sync_id", "is missing; write sync_id = 51 (the same number on all nodes)");
    }
    let profile =
        section.word("profile", Profile::Ssyncp1, &[("ssyncp1", Profile::Ssyncp1), ("classic", Profile::Classic)], &[]);
    let role = section.word(
        "role",
        if profile == Profile::Classic { RoleKind::Manual } else { RoleKind::Vrrp },
        &[("vrrp", RoleKind::Vrrp), ("manual", RoleKind::Manual), ("keepalived", RoleKind::Keepalived)],
        &["etcd"],
    );
    Group {
        sync_id: section.number("sync_id", 0, 0..=255),
        transport: section.word("transport", TransportKind::Raw, TRANSPORTS, &["udp"]),
        interfaces: section
            .list("interfaces", LINKS_MAX, "\"eth1\"", |name| value::interface(name).map(|()| name.to_owned())),
        group: section.read("group", GROUP.into(), |found| match found.as_str() {
            Some(text) => value::multicast_group(text),
            None => Err(format!("{} is no address; write \"{GROUP}\"", shown(found))),
        }),
        frame_len: section.read("frame_len", None, |found| number(found, 0..=i128::from(u16::MAX)).map(Some)),
        profile,
        source: section.word(
            "source",
            SourceKind::Conntrack,
            &[("conntrack", SourceKind::Conntrack), ("synthetic", SourceKind::Synthetic)],
            &["ipvs", "api"],
        ),
        filter: section.list("filter", RULES_MAX, "\"not dst 192.168.0.0/16\"", |text| {
            text.parse::<Rule>().map_err(|error| format!("\"{text}\", {error}"))
        }),
        dump_interval: section.duration("dump_interval", DUMP_INTERVAL),
        commit: section.word(
            "commit",
            Commit::Continuous,
            &[("continuous", Commit::Continuous), ("on-takeover", Commit::OnTakeover)],
            &[],
        ),
        audit: section.word(
            "audit",
            AuditMode::Repair,
            &[("repair", AuditMode::Repair), ("report", AuditMode::Report), ("off", AuditMode::Off)],
            &[],
        ),
        audit_interval: section.duration("audit_interval", AUDIT_INTERVAL),
        role,
        keepalived_fifo: driven::fifo(section, role),
        instance: driven::instance(section),
        priority: section.number("priority", default.priority, 1..=255),
        advert_interval: section.duration("advert_interval", default.advert_interval),
        // Where nobody elects, nobody preempts.
        preempt: section.truth("preempt", default.preempt && role == RoleKind::Vrrp),
        moves: takeover::read(section, role),
        divide: takeover::read_divide(section),
        division: None,
        addresses: section.list("addresses", ADDRESSES_MAX, "\"192.0.2.10/24 dev eth0\"", str::parse),
        capacity: section.number("capacity", default.capacity, 0..=i128::from(u32::MAX)),
        history: section.number("history", default.history, 0..=i128::from(HISTORY_MAX)),
        batch_delay: section.duration("batch_delay", default.batch_delay),
        wait: wait::read(section),
        ack: section.word("ack", default.ack, &Ack::EVERY.map(|ack| (ack.name(), ack)), &[]),
        ack_timeout: section.duration("ack_timeout", default.ack_timeout),
        members: section.read("members", None, |found| number(found, 0..=i128::from(u32::MAX)).map(Some)),
        ack_every: section.number("ack_every", default.ack_every, 0..=i128::from(u32::MAX)),
        ack_delay: section.duration("ack_delay", default.ack_delay),
        reorder_delay: section.duration("reorder_delay", default.reorder_delay),
        lag_limit: section.duration("lag_limit", default.lag_limit),
        commit_deadline: section.duration("commit_deadline", default.commit_deadline),
        takeover_grace: section.duration("takeover_grace", default.takeover_grace),
        startup_delay: section.duration("startup_delay", default.startup_delay),
        handover_deadline: section.duration("handover_deadline", default.handover_deadline),
        merge_deadline: section.duration("merge_deadline", default.merge_deadline),
        tap: section.read("tap", None, |found| match found.as_str().map(Path::new) {
            Some(path) if path.is_absolute() && Format::of(path).is_some() => Ok(Some(path.to_owned())),
            _ => {
                Err(format!("{} is no absolute path to a .pcap or .pcapng; write \"/var/tmp/sync.pcap\"", shown(found)))
            }
        }),
        event_buffer: section.read("event_buffer", EVENT_BUFFER, |found| match found.as_str().map(value::size) {
            Some(Ok(size)) if !(EVENT_BUFFER_MIN..=EVENT_BUFFER_MAX).contains(&size) => {
                Err(format!("{} is not from 4KiB to 512MiB; write \"32MiB\"", shown(found)))
            }
            Some(size) => size,
            None => Err(format!("{} is no size; write \"32MiB\"", shown(found))),
        }),
        tap_size: section.read("tap_size", TAP_SIZE, |found| match found.as_str().map(value::size) {
            Some(Ok(size)) if size < TAP_SIZE_MIN => Err(format!("{} is less than 64KiB", shown(found))),
            Some(size) => size,
            None => Err(format!("{} is no size; write \"64MiB\"", shown(found))),
        }),
        tap_files: section.number("tap_files", TAP_FILES, 1..=i128::from(TAP_FILES_MAX)),
        track: track::heeded(section),
        notifications: notify::notifications(section),
    }
}

/// Settings that are fine alone and not together.
fn contradictions(section: &Section<'_, '_>, group: &Group) {
    let given = |key| section.get(key).is_some();
    match group.transport {
        TransportKind::Memory if !group.interfaces.is_empty() => {
            section.wrong("interfaces", "transport \"memory\" has none; remove them, or write transport = \"raw\"");
        }
        TransportKind::Memory => {}
        TransportKind::Raw | TransportKind::Packet | TransportKind::Xdp if !given("interfaces") => {
            section.wrong("interfaces", "is missing; write interfaces = [\"eth1\"] (the sync links)");
        }
        kind @ (TransportKind::Raw | TransportKind::Packet | TransportKind::Xdp)
            if group.interfaces.is_empty()
                && section.get("interfaces").is_some_and(|found| is_empty(found.get_ref())) =>
        {
            let word = TRANSPORTS.iter().find(|(_, other)| *other == kind).map_or("raw", |(word, _)| word);
            let cure = format!("names none; transport \"{word}\" needs at least one, as [\"eth1\"]");
            section.wrong("interfaces", cure);
        }
        _ => {}
    }
    for (number, name) in group.interfaces.iter().enumerate() {
        if group.interfaces[..number].contains(name) {
            section.wrong("interfaces", format!("\"{name}\" stands there twice; name each sync link once"));
        }
    }
    if group.source != SourceKind::Conntrack && !group.filter.is_empty() {
        section.wrong("filter", "only the source \"conntrack\" has one; remove it, or write source = \"conntrack\"");
    }
    if group.priority == 255 && given("preempt") && !group.preempt {
        section.wrong(
            "preempt",
            "the owner of the addresses (priority 255) always preempts; remove it, or write priority = 254",
        );
    }
    if group.role == RoleKind::Manual && given("preempt") && group.preempt {
        section.wrong("preempt", "with role \"manual\" nobody preempts; remove it, or write role = \"vrrp\"");
    }
    if group.commit == Commit::OnTakeover && given("audit") && group.audit != AuditMode::Off {
        section.wrong(
            "audit",
            "with commit \"on-takeover\" a backup's kernel holds nothing to audit; remove it, or write audit = \"off\"",
        );
    }
    for (key, delay) in
        [("batch_delay", group.batch_delay), ("ack_delay", group.ack_delay), ("reorder_delay", group.reorder_delay)]
    {
        if delay >= group.advert_interval && given(key) && group.profile == Profile::Ssyncp1 {
            let (delay, interval) = (value::duration_words(delay), value::duration_words(group.advert_interval));
            section
                .wrong(key, format!("{delay} is not shorter than advert_interval ({interval}); write a shorter one"));
        }
    }
    for (number, address) in group.addresses.iter().enumerate() {
        if group.addresses[..number].iter().any(|other| other.address == address.address) {
            section.wrong("addresses", format!("{} stands there twice; name each address once", address.address));
        }
    }
}

/// Ranges are the engine's to know, but for those of the daemon itself: what would be refused at the start is a problem
/// of the file.
fn ranges(section: &Section<'_, '_>, group: &Group, node: &Node) {
    if !(DUMP_INTERVAL_MIN..=DUMP_INTERVAL_MAX).contains(&group.dump_interval) {
        let words = value::duration_words;
        let (given, least, most) = (words(group.dump_interval), words(DUMP_INTERVAL_MIN), words(DUMP_INTERVAL_MAX));
        section.wrong(
            "dump_interval",
            format!("{given} is not from {least} to {most}; write \"{}\"", words(DUMP_INTERVAL)),
        );
    }
    let audited = group.audit_interval.is_zero() || group.audit_interval >= AUDIT_INTERVAL_MIN;
    if !audited || group.audit_interval > AUDIT_INTERVAL_MAX {
        let words = value::duration_words;
        let (given, least, most) = (words(group.audit_interval), words(AUDIT_INTERVAL_MIN), words(AUDIT_INTERVAL_MAX));
        section.wrong(
            "audit_interval",
            format!("{given} is not from {least} to {most}; write \"{}\", or \"0s\" for none", words(AUDIT_INTERVAL)),
        );
    }
    let frame_len = group.frame_len.unwrap_or(1480);
    let node = Node { id: NodeId(node.id.0.max(1)), ..node.clone() };
    let problems = group.engine_config(&node, frame_len, 1, 1).problems();
    // What the profile does not have is refused as such, whatever its value.
    for error in problems.into_iter().filter(|error| !(group.profile == Profile::Classic && classic::lacks(error.key)))
    {
        section.wrong(error.key, error.problem);
    }
}

fn between_groups<'g>(section: &Section<'_, '_>, group: &Group, before: impl Iterator<Item = &'g Group> + Clone) {
    // Once, however many there are above.
    if before.clone().any(|other| other.sync_id == group.sync_id) && section.get("sync_id").is_some() {
        section.wrong("sync_id", format!("{} is taken by a group above; each group has its own", group.sync_id));
    }
    for other in before {
        takeover::between_groups(section, group, other);
        xdp::between_groups(section, group, other);
    }
}

fn number<T: TryFrom<i128>>(found: &DeValue<'_>, range: RangeInclusive<i128>) -> Result<T, String> {
    let DeValue::Integer(digits) = found else {
        return Err(format!(
            "{} is no whole number; write one from {} to {}",
            shown(found),
            range.start(),
            range.end()
        ));
    };
    let number = i128::from_str_radix(digits.as_str(), digits.radix()).ok().filter(|number| range.contains(number));
    let out_of_range = || format!("{digits} is not from {} to {}", range.start(), range.end());
    number.and_then(|number| T::try_from(number).ok()).ok_or_else(out_of_range)
}

fn is_empty(found: &DeValue<'_>) -> bool {
    found.as_array().is_some_and(|array| array.is_empty())
}

/// A value as the operator wrote it, or its type if it is a long one.
pub(super) fn shown(found: &DeValue<'_>) -> String {
    match found {
        DeValue::String(text) => format!("\"{text}\""),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a section".to_owned(),
    }
}

/// What an unknown key may have been meant to be.
fn advice(word: &str, known: &[&str]) -> String {
    let sections = [("[node]", NODE_KEYS), ("[[group]]", GROUP_KEYS), ("[control]", CONTROL_KEYS)];
    if let Some((section, _)) = sections.iter().find(|(_, keys)| keys.contains(&word)) {
        return format!("it belongs in {section}");
    }
    let mut likely: Vec<_> = known.iter().map(|key| (strsim::jaro_winkler(word, key), *key)).collect();
    likely.sort_by(|a, b| b.0.total_cmp(&a.0));
    match likely[..] {
        [(likeness, key), ..] if likeness >= TYPING_MISTAKE => format!("did you mean \"{key}\"?"),
        // A list that fills a screen helps nobody.
        [(_, first), (_, second), (_, third), ..] if known.len() > LISTED_KEYS => {
            format!("of its {} keys the nearest are {first}, {second}, {third}; README.md explains all", known.len())
        }
        _ => format!("known are {}", known.join(", ")),
    }
}
