//! The secret that the demo's nodes share: drawn anew for each run, and kept only beside a recording.

use super::{DemoError, Doing};
use crate::daemon::settings::{SecretFile, secret};
use crate::sys::clock;
use crate::wire::{SECRET_LEN, Secret};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// A secret in a file of the demo's own directory, where its nodes read it.
#[derive(Debug, Clone)]
pub(super) struct Drawn {
    file: PathBuf,
    secret: Secret,
}

impl Drawn {
    /// Draws one.
    pub(super) fn new(directory: &Path) -> Result<Self, DemoError> {
        let (file, line) = (directory.join("secret"), secret::line(0));
        let written = secret::new_file(&file).and_then(|mut new| new.write_all(line.as_bytes()));
        written.doing("writing a secret")?;
        // Not read from the file: who reads one can be looked into by nobody, not even by its own children.
        let parsed = secret::parse(&SecretFile::Path(file.clone()), line.as_bytes());
        let parsed = parsed.map_err(|problems| io::Error::other(problems.concat()));
        let secret = parsed.map(|mut secrets| secrets.remove(0)).doing("drawing a secret")?;
        Ok(Drawn { file, secret })
    }

    /// The lines of `[node]` that name it.
    pub(super) fn settings(&self) -> String {
        format!("secret_file = {}\n", toml::Value::String(self.file.display().to_string()))
    }

    /// The secret itself, for who listens.
    pub(super) fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Keeps it beside a recording, which nobody could read without it: `FILE.secret`, which must not exist.
    pub(super) fn keep_beside(&self, recording: &Path) -> io::Result<()> {
        let mut beside = recording.as_os_str().to_owned();
        beside.push(".secret");
        let taken = |error: io::Error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                let reason = format!("{} is there already; remove it, or name another recording", beside.display());
                io::Error::new(error.kind(), reason)
            }
            _ => error,
        };
        let mut file = secret::new_file(Path::new(&beside)).map_err(taken)?;
        file.write_all(&Zeroizing::new(std::fs::read(&self.file)?))
    }
}

/// One for engines in this process, which need no file.
pub(super) fn in_memory() -> Option<Secret> {
    let mut bytes = Zeroizing::new([0; SECRET_LEN]);
    clock::random(&mut *bytes);
    Secret::new(0, &bytes)
}
