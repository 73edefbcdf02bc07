//! Whom a group tells of its role: hooks and a FIFO, with the keys and the words of keepalived.conf(5).

use super::read::{Section, shown};
use super::track::command;
use super::{duration_words, value};
use crate::time::Duration;
use schemars::JsonSchema;
use serde::Serialize;
use std::path::PathBuf;

/// Default of `notify_timeout`.
pub const NOTIFY_TIMEOUT: Duration = Duration::from_secs(10);
/// Least `notify_timeout`.
const NOTIFY_TIMEOUT_MIN: Duration = Duration::from_millis(10);
/// Greatest `notify_timeout`.
const NOTIFY_TIMEOUT_MAX: Duration = Duration::from_secs(600);

/// The part of `[[group]]` that says who is told of its role.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Notifications {
    /// Run at each change, after the one that is for it alone; gets INSTANCE, name, state and priority.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notify: Vec<String>,
    /// Run when this node has become master.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notify_master: Vec<String>,
    /// Run when this node has become backup.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notify_backup: Vec<String>,
    /// Run when this node can take no role.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notify_fault: Vec<String>,
    /// Run when this node takes part no longer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notify_stop: Vec<String>,
    /// Where a line for each change goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notify_fifo: Option<PathBuf>,
    /// Time that one hook may take.
    #[serde(serialize_with = "duration_words")]
    #[schemars(with = "String")]
    pub notify_timeout: Duration,
}

impl Default for Notifications {
    /// Nobody is told.
    fn default() -> Self {
        Notifications {
            notify: Vec::new(),
            notify_master: Vec::new(),
            notify_backup: Vec::new(),
            notify_fault: Vec::new(),
            notify_stop: Vec::new(),
            notify_fifo: None,
            notify_timeout: NOTIFY_TIMEOUT,
        }
    }
}

/// Reads them.
pub(super) fn notifications(section: &Section<'_, '_>) -> Notifications {
    let timeout = section.duration("notify_timeout", NOTIFY_TIMEOUT);
    if !(NOTIFY_TIMEOUT_MIN..=NOTIFY_TIMEOUT_MAX).contains(&timeout) {
        let given = value::duration_words(timeout);
        section.wrong("notify_timeout", format!("{given} is not from 10ms to 10m; write \"10s\""));
    }
    let hook = |key| if section.get(key).is_some() { command(section, key) } else { Vec::new() };
    Notifications {
        notify: hook("notify"),
        notify_master: hook("notify_master"),
        notify_backup: hook("notify_backup"),
        notify_fault: hook("notify_fault"),
        notify_stop: hook("notify_stop"),
        notify_fifo: section.read("notify_fifo", None, |found| match found.as_str() {
            Some(path) if path.starts_with('/') && !path.contains('\0') => Ok(Some(path.into())),
            _ => Err(format!("{} is no absolute path; write \"/run/ssyncp/notify\"", shown(found))),
        }),
        notify_timeout: timeout,
    }
}

#[cfg(test)]
mod tests {
    use crate::daemon::settings::{Problems, Settings};
    use std::path::Path;
    use std::time::Duration;

    fn parse(more: &str) -> Result<Settings, Problems> {
        let text = format!("[node]\nid = 1\n[[group]]\nsync_id = 51\ninterfaces = [\"eth1\"]\n{more}");
        Settings::parse(&text, Path::new("ssyncp.toml"))
    }

    #[test]
    fn who_is_told_is_read_and_shown_as_it_reads_back_also_of_a_classic_group() {
        let text = r#"
instance = "VI_51"
notify = ["/etc/keepalived/notify.sh", "arg"]
notify_master = ["/etc/keepalived/master.sh"]
notify_backup = ["/b"]
notify_fault = ["/f"]
notify_stop = ["/s"]
notify_fifo = "/run/keepalived.fifo"
notify_timeout = "500ms"
"#;
        for profile in ["ssyncp1", "classic"] {
            let settings = parse(&format!("profile = \"{profile}\"\n{text}")).unwrap();
            assert_eq!(parse_whole(&settings.to_toml()), settings);
            let told = &settings.groups[0].notifications;
            assert_eq!(settings.groups[0].instance.as_ref().unwrap().to_string(), "VI_51");
            assert_eq!(told.notify, ["/etc/keepalived/notify.sh", "arg"]);
            let single = [&told.notify_master, &told.notify_backup, &told.notify_fault, &told.notify_stop];
            assert_eq!(single, [&["/etc/keepalived/master.sh"], &["/b"], &["/f"], &["/s"]]);
            assert_eq!(told.notify_fifo.as_deref(), Some(Path::new("/run/keepalived.fifo")));
            assert_eq!(told.notify_timeout, Duration::from_millis(500));
        }
    }

    fn parse_whole(text: &str) -> Settings {
        Settings::parse(text, Path::new("ssyncp.toml")).unwrap()
    }

    #[test]
    fn every_mistake_of_a_hook_is_told_at_once_with_its_cure() {
        let text = "instance = \"group:\"\nnotify = \"/bin/x arg\"\nnotify_master = []\nnotify_stop = [\"x.sh\"]\n\
                    notify_fifo = \"fifo\"\nnotify_timeout = \"1h\"\nnotify_fautl = [\"/x\"]\n";
        insta::assert_snapshot!(parse(text).unwrap_err(), @r#"
        ssyncp.toml:6: instance: "group:" is no name of keepalived's; write "VI_51", or "group:NAME"
        ssyncp.toml:7: notify: "/bin/x arg" is no list; write ["/etc/ssyncp/check", "argument"]
        ssyncp.toml:8: notify_master: names no program; write ["/etc/ssyncp/check", "argument"]
        ssyncp.toml:9: notify_stop: "x.sh" is no absolute path; write ["/etc/ssyncp/check", "argument"]
        ssyncp.toml:10: notify_fifo: "fifo" is no absolute path; write "/run/ssyncp/notify"
        ssyncp.toml:11: notify_timeout: 1h is not from 10ms to 10m; write "10s"
        ssyncp.toml:12: unknown key "notify_fautl" in [[group]]; did you mean "notify_fault"?
        "#);
    }
}
