//! Who decides the role, and what must be known of keepalived if it does.
//!
//! ```text
//!   role = "keepalived"
//!   instance = "VI_51"                            or "group:NAME", a vrrp_sync_group
//!   keepalived_fifo = "/run/ssyncp/keepalived.fifo"      the same path as of its notify_fifo; this is the default
//! ```

use super::Group;
use super::read::{Section, shown};
use crate::daemon::driven::line::Name;
use crate::engine::RoleMode;
use serde::{Serialize, Serializer};
use std::path::{Path, PathBuf};

/// Default of `keepalived_fifo`.
pub const KEEPALIVED_FIFO: &str = "/run/ssyncp/keepalived.fifo";

/// Who decides the role.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RoleKind {
    /// The nodes of the group, by VRRP's timers.
    Vrrp,
    /// An operator.
    Manual,
    /// keepalived on this machine.
    Keepalived,
}

impl RoleKind {
    /// What the engine is told: it elects, or it is told.
    pub fn mode(self) -> RoleMode {
        match self {
            RoleKind::Vrrp => RoleMode::Vrrp,
            RoleKind::Manual | RoleKind::Keepalived => RoleMode::Manual,
        }
    }
}

impl Group {
    /// The FIFO that this group follows, and whom in it; none if keepalived does not decide.
    pub fn keepalived(&self) -> Option<(&Path, &Name)> {
        match (self.role, &self.keepalived_fifo, &self.instance) {
            (RoleKind::Keepalived, Some(fifo), Some(instance)) => Some((fifo, instance)),
            _ => None,
        }
    }
}

/// Reads `keepalived_fifo`, which has a default where keepalived decides.
pub(super) fn fifo(section: &Section<'_, '_>, role: RoleKind) -> Option<PathBuf> {
    let default = (role == RoleKind::Keepalived).then(|| KEEPALIVED_FIFO.into());
    section.read("keepalived_fifo", default, |found| match found.as_str() {
        Some(path) if path.starts_with('/') && !path.ends_with('/') => Ok(Some(path.into())),
        _ => Err(format!("{} is no absolute path; write \"{KEEPALIVED_FIFO}\"", shown(found))),
    })
}

/// Reads `instance`.
pub(super) fn instance(section: &Section<'_, '_>) -> Option<Name> {
    section.read("instance", None, |found| match found.as_str() {
        Some(text) => Name::parse(text).map(Some),
        None => Err(format!("{} is no name; write \"VI_51\", or \"group:NAME\"", shown(found))),
    })
}

/// Notes what does not go together.
pub(super) fn problems(section: &Section<'_, '_>, group: &Group) {
    let given = |key| section.get(key).is_some();
    if group.role == RoleKind::Keepalived {
        if !given("instance") {
            section.wrong(
                "instance",
                "is missing; write instance = \"VI_51\" (keepalived's vrrp_instance), or \"group:NAME\"",
            );
        }
        if given("preempt") && group.preempt {
            section.wrong("preempt", "with role \"keepalived\" its nopreempt decides; remove it");
        }
        return;
    }
    for key in ["keepalived_fifo", "instance"].into_iter().filter(|key| given(key)) {
        section.wrong(key, "only role \"keepalived\" has one; remove it, or write role = \"keepalived\"");
    }
}

/// Writes a name as it was read.
pub(super) fn name<S: Serializer>(name: &Option<Name>, serializer: S) -> Result<S::Ok, S::Error> {
    match name {
        Some(name) => serializer.collect_str(name),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use crate::daemon::settings::{Problems, Settings};
    use crate::engine::RoleMode;
    use std::path::Path;

    const SMALLEST: &str = "[node]\nid = 1\n[[group]]\nsync_id = 51\ninterfaces = [\"eth1\"]\n";

    fn parse(more: &str) -> Result<Settings, Problems> {
        Settings::parse(&format!("{SMALLEST}{more}"), Path::new("ssyncp.toml"))
    }

    #[test]
    fn a_group_that_keepalived_drives_needs_an_instance_and_reads_back() {
        let settings = parse("role = \"keepalived\"\ninstance = \"VI_51\"\n").unwrap();
        let (fifo, name) = settings.groups[0].keepalived().unwrap();
        assert_eq!((fifo, name.to_string()), (Path::new("/run/ssyncp/keepalived.fifo"), "VI_51".to_owned()));
        let config = settings.groups[0].engine_config(&settings.node, 1480, 1, 1);
        assert_eq!(config.role, RoleMode::Manual);
        let printed = settings.to_toml();
        for line in
            ["role = \"keepalived\"\n", "keepalived_fifo = \"/run/ssyncp/keepalived.fifo\"\n", "instance = \"VI_51\"\n"]
        {
            assert!(printed.contains(line), "{printed}");
        }
        assert_eq!(Settings::parse(&printed, Path::new("x")).unwrap(), settings);
        let other = parse("role = \"keepalived\"\ninstance = \"group:G\"\nkeepalived_fifo = \"/run/k\"\n").unwrap();
        let (fifo, name) = other.groups[0].keepalived().unwrap();
        assert_eq!((fifo, name.to_string()), (Path::new("/run/k"), "group:G".to_owned()));
        assert_eq!(parse("").unwrap().groups[0].keepalived(), None);
        let manual = parse("role = \"manual\"\n").unwrap();
        assert_eq!((manual.groups[0].keepalived(), manual.groups[0].role.mode()), (None, RoleMode::Manual));
        assert_eq!(Settings::parse(&manual.to_toml(), Path::new("x")).unwrap(), manual);
    }

    #[test]
    fn keepalived_drives_a_classic_group_too() {
        let settings = parse("profile = \"classic\"\nrole = \"keepalived\"\ninstance = \"VI_51\"\n").unwrap();
        assert!(settings.groups[0].keepalived().is_some());
        assert_eq!(Settings::parse(&settings.to_toml(), Path::new("x")).unwrap(), settings);
    }

    #[test]
    fn what_does_not_go_together_is_named_with_its_cure() {
        let problems = |more| parse(more).unwrap_err().to_string();
        insta::assert_snapshot!(
            problems("role = \"keepalived\"\npreempt = true\nkeepalived_fifo = \"fifo\"\n"),
            @r#"
        ssyncp.toml:3: instance: is missing; write instance = "VI_51" (keepalived's vrrp_instance), or "group:NAME"
        ssyncp.toml:7: preempt: with role "keepalived" its nopreempt decides; remove it
        ssyncp.toml:8: keepalived_fifo: "fifo" is no absolute path; write "/run/ssyncp/keepalived.fifo"
        "#);
        insta::assert_snapshot!(
            problems("role = \"keepalived\"\ninstance = \"group:\"\nkeepalived_fifo = \"/run/k/\"\n"),
            @r#"
        ssyncp.toml:7: instance: "group:" is no name of keepalived's; write "VI_51", or "group:NAME"
        ssyncp.toml:8: keepalived_fifo: "/run/k/" is no absolute path; write "/run/ssyncp/keepalived.fifo"
        "#);
        insta::assert_snapshot!(
            problems("instance = \"VI_51\"\nkeepalived_fifo = \"/run/k\"\n"),
            @r#"
        ssyncp.toml:6: instance: only role "keepalived" has one; remove it, or write role = "keepalived"
        ssyncp.toml:7: keepalived_fifo: only role "keepalived" has one; remove it, or write role = "keepalived"
        "#);
    }
}
