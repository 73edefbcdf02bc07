//! The demo's temporary directory: configurations, control sockets and logs of the two nodes.
//!
//! It is removed at the end. A run that was killed leaves its directory behind; the next run of the same user removes
//! it: each directory holds a locked file, and a lock ends with its process, so that a directory without a holder is
//! certain to be a leftover.

use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// How the names of these directories begin; the process number follows.
const PREFIX: &str = "ssyncp-demo-";
/// The file whose lock says that the directory is in use.
const LOCK: &str = "lock";

/// The directory, removed when dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Scratch {
    /// Removes what dead runs left below `parent`, and makes a new one there that only this user can enter.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn create(parent: &Path) -> io::Result<Self> {
        remove_leftovers(parent);
        let path = parent.join(format!("{PREFIX}{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        let lock = Flock::lock(File::create(path.join(LOCK))?, FlockArg::LockExclusiveNonblock);
        Ok(Scratch { path, _lock: lock.map_err(|(_, error)| error)? })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next run.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes directories of runs that are dead. Those of other users stay: we may not lock or remove them.
fn remove_leftovers(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !is_directory || !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let Ok(file) = File::open(entry.path().join(LOCK)) else { continue };
        if Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leftover_goes_and_a_directory_in_use_stays() {
        let parent = tempfile::tempdir().unwrap();
        let (dead, alive) = (parent.path().join("ssyncp-demo-1"), parent.path().join("ssyncp-demo-2"));
        for directory in [&dead, &alive] {
            fs::create_dir(directory).unwrap();
            File::create(directory.join("lock")).unwrap();
        }
        let held = Flock::lock(File::open(alive.join("lock")).unwrap(), FlockArg::LockExclusive).unwrap();
        let ours = Scratch::create(parent.path()).unwrap();
        assert!(!dead.exists() && alive.exists() && ours.path().exists());
        drop(held);
        let path = ours.path().to_owned();
        drop(ours);
        assert!(!path.exists());
    }
}
