//! What holds the daemon in. It reads packets that anybody can send, with rights that not everybody has: so before its
//! first thread starts, and after its control sockets are open, it gives up what it does not need, for good.
//!
//! ```text
//!   capabilities      those that the configuration needs     │ always
//!   no new privileges no program that is run gains any       │ ┐
//!   system calls      seccomp: none that only an intruder    │ │ unless the configuration names programs (hooks, scripts
//!                     would want, no program is run          │ │ of tracks): they would inherit all of it, and break
//!   files             Landlock: reads where it must, writes  │ │
//!                     beside its socket, FIFOs and taps      │ ┘
//! ```
//!
//! What the kernel does not grant is a warning with its reason and a field of the status, and the daemon runs without
//! it. What a reload asks for and the sandbox no longer gives needs a restart, and the refusal says so.

mod capabilities;
mod files;
mod system_calls;

use crate::daemon::privilege::{self, Capability};
use crate::daemon::settings::{Check, Group, Node, SecretFile, Settings, TransportKind};
use files::Places;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What holds a running daemon in.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sandbox {
    status: SandboxStatus,
    /// Capabilities that are left.
    capabilities: u64,
    /// Files are held in: what may be read and written. `None`: everything.
    places: Option<Places>,
}

/// The sandbox as `status` shows it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct SandboxStatus {
    /// Capabilities that the daemon has, by their names of capabilities(7), and what each is for.
    pub capabilities: Vec<CapabilityRow>,
    /// Nothing that is run gains rights (PR_SET_NO_NEW_PRIVS).
    pub no_new_privileges: Layer,
    /// System calls are filtered (seccomp).
    pub system_calls: Layer,
    /// Files out of the way cannot be reached (Landlock).
    pub files: Layer,
}

impl SandboxStatus {
    /// In one line: the capabilities, the layers, and why not all of them.
    pub fn words(&self) -> String {
        let names: Vec<&str> = self.capabilities.iter().map(|row| row.name.as_str()).collect();
        let layers = [
            ("no new privileges", &self.no_new_privileges),
            ("system calls", &self.system_calls),
            ("files", &self.files),
        ];
        let (on, off): (Vec<_>, Vec<_>) = layers.into_iter().partition(|(_, layer)| layer.applied);
        let on = on.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        // Mostly all of them are off for one reason.
        let mut reasons: Vec<&str> = off.iter().map(|(_, layer)| layer.reason.as_str()).collect();
        reasons.dedup();
        let off = off.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        let mut parts = vec![if names.is_empty() { "no capability reported".to_owned() } else { names.join(", ") }];
        if !on.is_empty() {
            parts.push(format!("held in: {on}"));
        }
        if !off.is_empty() {
            parts.push(format!("not held in: {off} ({})", reasons.join("; ")));
        }
        parts.join("; ")
    }
}

/// A capability that the daemon kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct CapabilityRow {
    /// As `CAP_NET_RAW`.
    pub name: String,
    /// What for.
    pub purpose: String,
}

/// One layer of the sandbox.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Layer {
    /// Whether it is in force.
    pub applied: bool,
    /// Why not; or how much of it.
    pub reason: String,
}

impl Layer {
    fn of(name: &str, result: Result<String, String>) -> Layer {
        match result {
            Ok(reason) => Layer { applied: true, reason },
            Err(reason) => {
                tracing::warn!("sandbox: {name}: {reason}");
                Layer { applied: false, reason }
            }
        }
    }

    fn left_out(reason: &str) -> Layer {
        Layer { applied: false, reason: reason.to_owned() }
    }
}

/// Why the upper layers are not put on.
const PROGRAMS: &str = "the configuration names programs (hooks, scripts of tracks), which would inherit it";
const SWITCHED_OFF: &str = "[node] sandbox = false";

impl Sandbox {
    /// Holds in the calling thread and all that it starts from here on. `config` is the file that is read at a reload.
    pub fn enter(settings: &Settings, config: &Path) -> Sandbox {
        if !settings.node.sandbox {
            let off = || Layer::left_out(SWITCHED_OFF);
            let status =
                SandboxStatus { capabilities: Vec::new(), no_new_privileges: off(), system_calls: off(), files: off() };
            return Sandbox { status, capabilities: u64::MAX, places: None };
        }
        let kept = privilege::wanted(settings);
        let programs = runs_programs(settings);
        let (capabilities, problem) = capabilities::keep(&kept, programs);
        if let Some(problem) = problem {
            tracing::warn!("sandbox: capabilities: {problem}");
        }
        let rows = kept.iter().filter(|(capability, _)| capabilities & capability.mask() != 0);
        let row = |name: &str, purpose: &str| CapabilityRow { name: name.to_owned(), purpose: purpose.to_owned() };
        let rows = rows.map(|(capability, purpose)| row(capability.name(), purpose)).collect();
        if programs {
            let out = || Layer::left_out(PROGRAMS);
            let status =
                SandboxStatus { capabilities: rows, no_new_privileges: out(), system_calls: out(), files: out() };
            return Sandbox { status, capabilities, places: None };
        }
        let no_new_privileges =
            nix::sys::prctl::set_no_new_privs().map(|()| String::new()).map_err(|no| no.to_string());
        let places = Places::of(settings, config);
        let files = Layer::of("files", files::hold(&places));
        let status = SandboxStatus {
            capabilities: rows,
            no_new_privileges: Layer::of("no new privileges", no_new_privileges),
            // The last one: what comes before it makes system calls of its own.
            files: files.clone(),
            system_calls: Layer::of("system calls", system_calls::filter(capabilities & Capability::Bpf.mask() != 0)),
        };
        Sandbox { status, capabilities, places: files.applied.then_some(places) }
    }

    /// What the status shows.
    pub fn status(&self) -> &SandboxStatus {
        &self.status
    }

    /// Whether it keeps these groups from being added to those that have started: who starts them cannot load the program of
    /// AF_XDP any more.
    pub fn objection_to_adding(&self, groups: &[Group]) -> Option<String> {
        let gave_up_bpf = self.capabilities != u64::MAX && self.capabilities & Capability::Bpf.mask() != 0;
        let wants_it = groups.iter().any(|group| group.transport == TransportKind::Xdp);
        (gave_up_bpf && wants_it).then(|| {
            "needs a restart: this daemon has given up CAP_BPF, which opening transport = \"xdp\" takes".to_owned()
        })
    }

    /// What of other settings it does not let the daemon do any more, one sentence each.
    pub fn objections(&self, settings: &Settings, config: &Path) -> Vec<String> {
        let mut objections = Vec::new();
        if self.status.system_calls.applied && runs_programs(settings) {
            objections
                .push("needs a restart: the sandbox of this daemon lets it run no program (hooks, scripts)".into());
        }
        for (capability, purpose) in privilege::needed(settings) {
            if self.capabilities & capability.mask() == 0 {
                let name = capability.name();
                objections.push(format!("needs a restart: this daemon has not kept {name} (for {purpose})"));
            }
        }
        if let Some(places) = &self.places {
            let wanted = Places::of(settings, config);
            objections.extend(places.beyond(&wanted).map(|place| {
                format!("needs a restart: the sandbox of this daemon does not let it reach {}", place.display())
            }));
        }
        objections
    }
}

/// The sync links of the calling thread's group are open: it gives up what only that takes. (An interface that is replaced
/// is opened again without it.) The same for the thread that has started all groups.
pub(crate) fn links_are_open(node: &Node) {
    if node.sandbox {
        capabilities::give_up_bpf();
    }
}

/// The calling thread never opens a sync link: those of HTTP, errands, addresses, FIFOs and taps. It takes nothing from what they do,
/// nor from the programs that they run, so it is done with `sandbox = false`, too.
pub(crate) fn opens_no_link() {
    capabilities::give_up_bpf();
}

/// Whether the daemon is to start programs.
fn runs_programs(settings: &Settings) -> bool {
    let hooks = settings.groups.iter().any(|group| {
        let told = &group.notifications;
        [&told.notify, &told.notify_master, &told.notify_backup, &told.notify_fault, &told.notify_stop]
            .iter()
            .any(|hook| !hook.is_empty())
    });
    hooks || settings.tracks.iter().any(|track| matches!(track.check, Check::Script(_)))
}

/// The file of the secrets, if it is one of the operator's.
fn secret_file(settings: &Settings) -> Option<&Path> {
    match &settings.node.sealing.secret_file {
        Some(SecretFile::Path(path)) => Some(path),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        Settings::parse(&format!("[node]\nid = 1\n{text}"), Path::new("x")).unwrap()
    }

    #[test]
    fn hooks_and_scripts_are_programs_and_checks_of_the_daemon_itself_are_none() {
        let group = "[[group]]\nsync_id = 1\ninterfaces = [\"eth1\"]\n";
        assert!(!runs_programs(&settings(group)));
        assert!(runs_programs(&settings(&format!("{group}notify_fault = [\"/bin/true\"]\n"))));
        let track = |check: &str| format!("{group}track = [\"t\"]\n[[track]]\nname = \"t\"\n{check}\n");
        assert!(runs_programs(&settings(&track("script = [\"/bin/true\"]"))));
        assert!(!runs_programs(&settings(&track("process = \"nginx\""))));
    }

    #[test]
    fn the_line_for_a_person_names_what_is_on_and_why_the_rest_is_not() {
        let on = || Layer { applied: true, reason: String::new() };
        let row = |name: &str| CapabilityRow { name: name.into(), purpose: String::new() };
        let status = |files| SandboxStatus {
            capabilities: vec![row("CAP_NET_RAW"), row("CAP_SYS_NICE")],
            no_new_privileges: on(),
            system_calls: on(),
            files,
        };
        let all = "CAP_NET_RAW, CAP_SYS_NICE; held in: no new privileges, system calls, files";
        assert_eq!(status(on()).words(), all);
        assert_eq!(
            status(Layer::left_out("no Landlock")).words(),
            "CAP_NET_RAW, CAP_SYS_NICE; held in: no new privileges, system calls; not held in: files (no Landlock)"
        );
        let group = "[[group]]\nsync_id = 1\ninterfaces = [\"eth1\"]\n";
        let off = settings(&format!("sandbox = false\n{group}"));
        assert_eq!(
            Sandbox::enter(&off, Path::new("x")).status().words(),
            "no capability reported; not held in: no new privileges, system calls, files ([node] sandbox = false)"
        );
    }

    #[test]
    fn a_reload_is_told_what_the_sandbox_does_not_give_back() {
        let group = "[[group]]\nsync_id = 1\ninterfaces = [\"eth1\"]\n";
        let before = settings("[[group]]\nsync_id = 1\ntransport = \"memory\"\nsource = \"synthetic\"\n");
        let config = Path::new("/etc/ssyncp/ssyncp.toml");
        let applied = Layer { applied: true, reason: String::new() };
        let sandbox = Sandbox {
            status: SandboxStatus { system_calls: applied, ..SandboxStatus::default() },
            capabilities: 1 << 13,
            places: Some(Places::of(&before, config)),
        };
        assert_eq!(sandbox.objections(&before, config), [""; 0]);
        let tap = "tap = \"/srv/taps/a.pcapng\"\nnotify = [\"/bin/true\"]\n";
        assert_eq!(
            sandbox.objections(&settings(&format!("{group}{tap}")), config),
            [
                "needs a restart: the sandbox of this daemon lets it run no program (hooks, scripts)",
                "needs a restart: this daemon has not kept CAP_NET_ADMIN (for source = \"conntrack\")",
                "needs a restart: the sandbox of this daemon does not let it reach /srv/taps",
            ]
        );
    }

    #[test]
    fn a_group_over_af_xdp_is_not_added_by_who_has_given_up_the_right_to_open_it() {
        let of = |transport: &str| {
            settings(&format!("[[group]]\nsync_id = 1\ninterfaces = [\"eth1\"]\ntransport = \"{transport}\"\n")).groups
        };
        let sandbox = |capabilities| Sandbox { capabilities, ..Sandbox::default() };
        let bpf = 1 << 39;
        let said = "needs a restart: this daemon has given up CAP_BPF, which opening transport = \"xdp\" takes";
        assert_eq!(sandbox(bpf | 1 << 13).objection_to_adding(&of("xdp")).as_deref(), Some(said));
        assert_eq!(sandbox(bpf).objection_to_adding(&of("packet")), None);
        assert_eq!(sandbox(1 << 13).objection_to_adding(&of("xdp")), None, "it never had it: packet sockets do");
        assert_eq!(sandbox(u64::MAX).objection_to_adding(&of("xdp")), None, "sandbox = false");
    }
}
