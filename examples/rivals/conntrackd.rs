//! conntrackd (FTFW) as its documentation sets it up beside keepalived: an external cache, which Debian's primary-backup.sh
//! commits to the kernel when keepalived says MASTER.

use super::process::Daemon;
use ssyncp::sys::namespace::Namespace;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The program.
pub const PROGRAM: &str = "conntrackd";
/// Where it stands, for the script, which is given paths.
pub const PATH: &str = "/usr/sbin/conntrackd";
/// The script of Debian's package.
pub const SCRIPT: &str = "/usr/share/doc/conntrackd/examples/sync/primary-backup.sh";

/// Whether it is installed, with its script.
pub fn is_installed() -> bool {
    Command::new(PATH).arg("-v").output().is_ok() && Path::new(SCRIPT).exists()
}

/// Its version, as it says it.
pub fn version() -> Option<String> {
    let said = Command::new(PATH).arg("-v").output().ok()?;
    let text = format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    let word = text.split_ascii_whitespace().find(|word| word.trim_start_matches('v').starts_with(char::is_numeric))?;
    Some(word.trim_start_matches('v').trim_end_matches('.').to_owned())
}

fn file(files: &Path, suffix: &str) -> PathBuf {
    files.with_extension(format!("conntrackd.{suffix}"))
}

/// The script with the paths of this machine in the place of its own; what keepalived runs.
pub fn script(files: &Path) -> PathBuf {
    file(files, "sh")
}

/// Writes its configuration, with `host` as the last octet on the sync link, and the script.
///
/// # Errors
/// The operating system's error.
pub fn configure(files: &Path, host: u32) -> io::Result<()> {
    let path = |suffix| file(files, suffix).display().to_string();
    let text = format!(
        "Sync {{
            Mode FTFW {{
                ResendQueueSize 131072
                ACKWindowSize 300
            }}
            Multicast {{
                IPv4_address 225.0.0.50
                Group 3780
                IPv4_interface 192.0.2.{host}
                Interface sync
                SndSocketBuffer 67108864
                RcvSocketBuffer 67108864
                Checksum on
            }}
        }}
        General {{
            HashSize 65536
            HashLimit 524288
            LogFile {}
            Syslog off
            LockFile {}
            UNIX {{
                Path {}
            }}
            NetlinkBufferSize 67108864
            NetlinkBufferSizeMaxGrowth 134217728
            Filter From Userspace {{
                Protocol Accept {{
                    TCP
                    UDP
                }}
            }}
        }}\n",
        path("own.log"),
        path("lock"),
        path("ctl"),
    );
    fs::write(file(files, "conf"), text)?;
    let script = fs::read_to_string(SCRIPT)?
        .replace("CONNTRACKD_BIN=/usr/sbin/conntrackd", &format!("CONNTRACKD_BIN={PATH}"))
        .replace("CONNTRACKD_LOCK=/var/lock/conntrack.lock", &format!("CONNTRACKD_LOCK={}", path("lock")))
        .replace("CONNTRACKD_CONFIG=/etc/conntrackd/conntrackd.conf", &format!("CONNTRACKD_CONFIG={}", path("conf")));
    fs::write(self::script(files), script)?;
    fs::set_permissions(self::script(files), fs::Permissions::from_mode(0o755))
}

/// Starts it; one that was killed has left its socket and its lock behind.
///
/// # Errors
/// The operating system's error.
pub fn start(namespace: &Namespace, files: &Path) -> io::Result<Daemon> {
    for left in ["lock", "ctl"] {
        match fs::remove_file(file(files, left)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let conf = file(files, "conf").display().to_string();
    Daemon::start(namespace, Path::new(PATH), &["-C", &conf], &file(files, "log"))
}

/// Whether it answers.
pub fn answers(files: &Path) -> bool {
    statistics(files).is_some()
}

/// Entries of its external cache: what a takeover could commit.
pub fn external_entries(files: &Path) -> Option<u64> {
    let said = statistics(files)?;
    let cache = said.split("cache external:").nth(1)?;
    let line = cache.lines().find(|line| line.contains("current active connections"))?;
    line.split_ascii_whitespace().last()?.parse().ok()
}

fn statistics(files: &Path) -> Option<String> {
    let output = Command::new(PATH).arg("-C").arg(file(files, "conf")).arg("-s").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
