//! What keepalived said last, kept beside its FIFO for the next start of this program: keepalived says it once.
//!
//! ```text
//!   /run/ssyncp/keepalived.fifo.said:   boot 0f6e…        of this boot of the machine
//!                                       fifo 23 1187      about this pipe: device, inode
//!                                       INSTANCE "VI_51" MASTER 150
//! ```
//!
//! It is believed only about the same pipe, and while somebody has that pipe open for writing. Whatever was written while
//! this program was not there still stands in the pipe, and counts more, because it is newer. A keepalived that starts
//! anew says BACKUP first.

use super::fifo::Identity;
use super::line::{Line, Lines, Name, State};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where the kernel tells one boot from the next.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Most bytes that are read: a page for each of 64 groups would be more than enough.
const SIZE_MAX: u64 = 1 << 16;

/// Where the words about a FIFO are kept.
pub fn beside(fifo: &Path) -> PathBuf {
    let mut name = fifo.as_os_str().to_owned();
    name.push(".said");
    name.into()
}

fn head((device, inode): Identity) -> String {
    let boot = fs::read_to_string(BOOT_ID).unwrap_or_default();
    format!("boot {}\nfifo {device} {inode}\n", boot.trim())
}

/// Replaces what is kept.
///
/// # Errors
/// The operating system's error; what was kept before is then still there.
pub fn keep<'a>(file: &Path, identity: Identity, said: impl Iterator<Item = (&'a Name, State, u8)>) -> io::Result<()> {
    let mut text = head(identity);
    for (name, state, priority) in said {
        let (kind, name) = match name {
            Name::Instance(name) => ("INSTANCE", name),
            Name::Group(name) => ("GROUP", name),
        };
        text.push_str(&format!("{kind} \"{name}\" {} {priority}\n", state.word()));
    }
    let new = file.with_extension("said.new");
    fs::write(&new, text)?;
    fs::rename(&new, file)
}

/// What was said last of `name`, if it was kept about this very pipe.
pub fn recall(file: &Path, identity: Identity, name: &Name) -> Option<(State, u8)> {
    fs::metadata(file).ok().filter(|metadata| metadata.len() <= SIZE_MAX)?;
    let text = fs::read_to_string(file).ok()?;
    let said = text.strip_prefix(&head(identity))?;
    let mut last = None;
    Lines::default().feed(said.as_bytes(), |line| {
        let about = line.ok().and_then(|line| Line::parse(line).ok()).and_then(|line| line.about(name));
        last = about.or(last);
    });
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_recalled_of_the_same_pipe_only() {
        let place = tempfile::tempdir().unwrap();
        let file = beside(&place.path().join("fifo"));
        assert_eq!(file, place.path().join("fifo.said"));
        let (one, two) = (Name::Instance("VI_51".into()), Name::Group("G".into()));
        assert_eq!(recall(&file, (1, 2), &one), None);
        keep(&file, (1, 2), [(&one, State::Master, 150), (&two, State::Fault, 0)].into_iter()).unwrap();
        assert_eq!(recall(&file, (1, 2), &one), Some((State::Master, 150)));
        assert_eq!(recall(&file, (1, 2), &two), Some((State::Fault, 0)));
        assert_eq!(recall(&file, (1, 2), &Name::Instance("G".into())), None);
        assert_eq!((recall(&file, (1, 3), &one), recall(&file, (2, 2), &one)), (None, None));
        keep(&file, (1, 2), [(&one, State::Backup, 150)].into_iter()).unwrap();
        assert_eq!((recall(&file, (1, 2), &one), recall(&file, (1, 2), &two)), (Some((State::Backup, 150)), None));
    }

    #[test]
    fn what_was_kept_before_the_machine_booted_is_not_believed() {
        let place = tempfile::tempdir().unwrap();
        let (file, name) = (place.path().join("said"), Name::Instance("VI_51".into()));
        fs::write(&file, "boot of-yesterday\nfifo 1 2\nINSTANCE \"VI_51\" MASTER 150\n").unwrap();
        assert_eq!(recall(&file, (1, 2), &name), None);
    }
}
