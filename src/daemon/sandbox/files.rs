//! The files that the daemon can reach, by Landlock.
//!
//! Rights belong to folders, because what is written is made anew (sockets, FIFOs, taps that change files), and what is read
//! may be replaced (a configuration that an editor saves).

use super::secret_file;
use crate::daemon::settings::{Check, Settings};
use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, PathFdError, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetStatus,
};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The newest interface of the kernel whose rights are asked for; an older kernel gives what it has.
const INTERFACE: ABI = ABI::V5;
/// What is read while the daemon runs, whatever the configuration says: the kernel's own files.
const READ: [&str; 3] = ["/proc", "/sys", "/etc"];
/// Where sysctls of an interface are written (virtual MAC addresses).
const WRITTEN: &str = "/proc/sys/net";

/// Folders.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Places {
    read: BTreeSet<PathBuf>,
    written: BTreeSet<PathBuf>,
}

impl Places {
    /// What these settings, read from the file `config`, need.
    pub(super) fn of(settings: &Settings, config: &Path) -> Places {
        let mut read: BTreeSet<PathBuf> = READ.iter().map(PathBuf::from).collect();
        read.extend(folder(config));
        read.extend(secret_file(settings).and_then(folder));
        read.extend(std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from));
        read.extend(settings.tracks.iter().filter_map(|track| match &track.check {
            Check::File(path) => folder(Path::new(path)),
            _ => None,
        }));
        let mut written = BTreeSet::from([PathBuf::from(WRITTEN)]);
        written.extend(folder(&settings.control.socket));
        for group in &settings.groups {
            let files = [&group.tap, &group.keepalived_fifo, &group.notifications.notify_fifo];
            written.extend(files.into_iter().flatten().filter_map(|file| folder(file)));
        }
        Places { read, written }
    }

    /// What of `others` lies in no folder of these.
    pub(super) fn beyond<'a>(&'a self, others: &'a Places) -> impl Iterator<Item = &'a Path> {
        let within = |folders: &BTreeSet<PathBuf>, place: &Path| folders.iter().any(|folder| place.starts_with(folder));
        let read = others.read.iter().filter(move |place| !within(&self.read, place) && !within(&self.written, place));
        let written = others.written.iter().filter(move |place| !within(&self.written, place));
        read.chain(written).map(PathBuf::as_path)
    }
}

fn folder(file: &Path) -> Option<PathBuf> {
    match file.parent() {
        Some(folder) if folder == Path::new("") => std::env::current_dir().ok(),
        folder => folder.map(Path::to_owned),
    }
}

/// From here on the calling thread, and what it starts, reaches only `places`.
pub(super) fn hold(places: &Places) -> Result<String, String> {
    let status = restrict(places).map_err(|error| error.to_string())?;
    match status {
        RulesetStatus::FullyEnforced => Ok(String::new()),
        RulesetStatus::PartiallyEnforced => Ok("in part: this kernel knows an older Landlock".into()),
        RulesetStatus::NotEnforced => Err("this kernel has no Landlock, or it is switched off".into()),
    }
}

fn restrict(places: &Places) -> Result<RulesetStatus, landlock::RulesetError> {
    let all = AccessFs::from_all(INTERFACE);
    let read = AccessFs::from_read(INTERFACE) & !BitFlags::from(AccessFs::Execute);
    let written = all & !BitFlags::from(AccessFs::Execute);
    let mut rules = Ruleset::default().set_compatibility(CompatLevel::BestEffort).handle_access(all)?.create()?;
    for place in &places.read {
        rules = add(rules, place, read)?;
    }
    for place in &places.written {
        rules = add(rules, place, written)?;
    }
    Ok(rules.restrict_self()?.ruleset)
}

/// A folder that is not there now is not there later either; whoever needs it says so when it is opened.
fn add(
    rules: RulesetCreated,
    place: &Path,
    rights: BitFlags<AccessFs>,
) -> Result<RulesetCreated, landlock::RulesetError> {
    let opened: Result<PathFd, PathFdError> = PathFd::new(place);
    match opened {
        Ok(folder) => rules.add_rule(PathBeneath::new(folder, rights)),
        Err(_) => Ok(rules),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_beneath_a_folder_is_not_beyond_it() {
        let places = |read: &[&str], written: &[&str]| Places {
            read: read.iter().map(PathBuf::from).collect(),
            written: written.iter().map(PathBuf::from).collect(),
        };
        let held = places(&["/etc"], &["/run/ssyncp"]);
        let beyond = |others: &Places| held.beyond(others).map(Path::to_owned).collect::<Vec<_>>();
        assert_eq!(
            beyond(&places(&["/etc/ssyncp", "/run/ssyncp"], &["/run/ssyncp/fifos"])),
            [""; 0].map(PathBuf::from)
        );
        // What may be read may not be written, and a name that begins alike is another one.
        assert_eq!(beyond(&places(&["/etcetera"], &["/etc/ssyncp"])), ["/etcetera", "/etc/ssyncp"].map(PathBuf::from));
    }

    #[test]
    fn a_thread_that_is_held_in_reads_and_writes_only_there() {
        let inside = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "x").unwrap();
        let places = Places { read: BTreeSet::new(), written: BTreeSet::from([inside.path().to_owned()]) };
        let held = std::thread::spawn({
            let (inside, outside) = (inside.path().to_owned(), outside.path().to_owned());
            move || {
                hold(&places).map(|_| {
                    std::fs::write(inside.join("mine"), "x").unwrap();
                    (std::fs::read(outside.join("secret")).is_err(), std::fs::write(outside.join("new"), "x").is_err())
                })
            }
        });
        match held.join().unwrap() {
            Ok(refused) => assert_eq!(refused, (true, true)),
            Err(reason) => println!("skipped: {reason}"),
        }
        // The thread alone was held in.
        assert_eq!(std::fs::read(outside.path().join("secret")).unwrap(), b"x");
    }
}
