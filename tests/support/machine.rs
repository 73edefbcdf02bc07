//! What tests ask of the machine that they run on: rights, programs, namespaces, and patience.
#![allow(dead_code)] // Each test file uses its own part.

use ssyncp::sys::namespace::Namespace;
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::time::{Duration, Instant};

/// Nothing that a test waits for takes longer; who waits so long waits for what will not come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Time between two looks at what is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Whether this process may make network namespaces; says so in one line if not.
pub(crate) fn root() -> bool {
    let root = nix::unistd::geteuid().is_root() && Namespace::create().is_ok();
    if !root {
        println!("skipped: needs root");
    }
    root
}

/// Whether a program is installed; says so in one line if not.
pub(crate) fn program(name: &str) -> bool {
    let installed = Command::new(name).arg("--version").output().is_ok();
    if !installed {
        println!("skipped: needs the program {name}");
    }
    installed
}

/// A name under which `ip` finds a namespace that has none.
pub(crate) fn path_of(namespace: &Namespace) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), namespace.as_fd().as_raw_fd())
}

/// Runs a program inside a namespace, and returns what it says; it must succeed.
fn run(namespace: &Namespace, program: &str, arguments: &[&str]) -> String {
    let output = namespace.run(|| Command::new(program).args(arguments).output()).unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs `ip` inside a namespace.
pub(crate) fn ip(namespace: &Namespace, arguments: &[&str]) -> String {
    run(namespace, "ip", arguments)
}

/// Runs a shell's script inside a namespace; it ends with the first command that fails.
pub(crate) fn shell(namespace: &Namespace, script: &str) {
    shell_output(namespace, script);
}

/// The same, and what it says.
pub(crate) fn shell_output(namespace: &Namespace, script: &str) -> String {
    run(namespace, "sh", &["-ec", script])
}

/// Looks until it is so.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}
