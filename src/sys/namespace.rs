//! Network namespaces without names: they live as long as somebody holds their descriptor or runs in them, so that
//! nothing is left behind after a crash.

use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// A network namespace, held by descriptor.
#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// Makes an empty one: its loopback is down and nothing else is in it.
    ///
    /// # Errors
    /// `EPERM` without CAP_SYS_ADMIN in the current user namespace.
    pub fn create() -> io::Result<Self> {
        on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok(Namespace(File::open("/proc/thread-self/ns/net")?))
        })
    }

    /// The namespace that the calling thread is in.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn current() -> io::Result<Self> {
        Ok(Namespace(File::open("/proc/thread-self/ns/net")?))
    }

    /// The namespace with a name, as `ip netns` makes them.
    ///
    /// # Errors
    /// The operating system's error; `NotFound` if there is none of that name.
    pub fn named(name: &str) -> io::Result<Self> {
        Ok(Namespace(File::open(format!("/run/netns/{name}"))?))
    }

    /// Runs `work` on a thread of its own inside the namespace and waits for it. Sockets that it opens stay in the
    /// namespace whoever uses them later; `/proc/sys/net` is the namespace's own.
    ///
    /// # Errors
    /// The operating system's error on entering, or that of `work`.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        on_a_thread(|| {
            setns(&self.0, CloneFlags::CLONE_NEWNET)?;
            work()
        })
    }

    /// A command that will run inside the namespace and that dies with the *thread* that spawns it (PDEATHSIG follows
    /// the thread, not the process): spawn it from a thread that lasts. It is in a process group of its own, so that
    /// Ctrl-C on the terminal reaches only its parent, who decides what becomes of it.
    ///
    /// # Errors
    /// The operating system's error (no descriptors left).
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> io::Result<Command> {
        let mut command = Command::new(program);
        command.process_group(0);
        let descriptor = self.0.try_clone()?;
        // SAFETY: between fork and exec only async-signal-safe system calls are made, and nothing is allocated.
        unsafe {
            command.pre_exec(move || {
                setns(&descriptor, CloneFlags::CLONE_NEWNET)?;
                nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
                Ok(())
            });
        }
        Ok(command)
    }
}

/// Makes the calling process root in a user namespace of its own (and puts it into a network namespace that belongs to
/// it), so that an ordinary user may then make network namespaces. To the world outside it stays the user that it was.
/// There is no way back. Only a process that has one thread can do it: call it first of all.
///
/// # Errors
/// `EPERM`, `ENOSPC` or `EACCES` where the system does not let an ordinary user do this, `EINVAL` when there is already
/// a second thread. After an error from the second half (the maps) the process may have lost its user's identity: it
/// can go on computing, but should not expect to create files.
pub fn become_root_in_user_namespace() -> io::Result<()> {
    let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
    // user_namespaces(7): an unprivileged process may map its own group only after it has given up setgroups(2).
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("0 {group} 1"))
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A thread may change its namespaces without touching the rest of the process.
fn on_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        scope.spawn(work).join().unwrap_or_else(|_| Err(io::Error::other("a thread inside a namespace panicked")))
    })
}
