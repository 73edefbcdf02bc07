//! keepalived (2.2.7 is what Debian 12 has) in a namespace: its own process, with its one child that speaks VRRP.

use super::process::Daemon;
use ssyncp::sys::namespace::Namespace;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The program.
pub const PROGRAM: &str = "keepalived";

/// Whether it is installed.
pub fn is_installed() -> bool {
    Command::new(PROGRAM).arg("--version").output().is_ok()
}

/// Its version, as it says it.
pub fn version() -> Option<String> {
    let said = Command::new(PROGRAM).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&said.stderr).into_owned();
    Some(text.lines().next()?.split_ascii_whitespace().nth(1)?.trim_start_matches('v').to_owned())
}

/// Files of one keepalived: `FILES.keepalived.conf`, and the others beside it.
fn file(files: &Path, suffix: &str) -> PathBuf {
    files.with_extension(format!("keepalived.{suffix}"))
}

/// Writes its configuration.
///
/// # Errors
/// The operating system's error.
pub fn configure(files: &Path, text: &str) -> io::Result<()> {
    fs::write(file(files, "conf"), text)
}

/// Starts it with the configuration that was written.
///
/// # Errors
/// The operating system's error.
pub fn start(namespace: &Namespace, files: &Path) -> io::Result<Daemon> {
    let (pid, vrrp) = (file(files, "pid"), file(files, "vrrp.pid"));
    // One that was killed leaves its files, and the next one takes them for a living keepalived's.
    for left in [&pid, &vrrp] {
        match fs::remove_file(left) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let words = [file(files, "conf"), pid, vrrp].map(|path| path.display().to_string());
    let arguments = ["-n", "-l", "-D", "-P", "-f", &words[0], "-p", &words[1], "-r", &words[2]];
    Daemon::start(namespace, Path::new(PROGRAM), &arguments, &file(files, "log"))
}
