//! Those that are compared: what each is told, how it is asked, and what its processes have used.
//!
//! conntrackd is asked by its own numbers on its socket, as `conntrackd -s`, `-n` and `-c` ask it, so that no process has to
//! start between two looks; ssyncp by HTTP on its socket. The bare listener is this program once more, and is asked nothing.

use super::lab::{Lab, SYNC};
use super::listener::READY;
use super::process::Daemon;
use super::{Context, Doing, Trouble};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use ssyncp::daemon::client;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Longest time in which anything must have become so.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Time from conntrackd's start until both have greeted each other (FTFW), about which it says nothing.
const GREETING: Duration = Duration::from_millis(2200);

/// Requests of conntrackd's socket (conntrackd.h, `enum`).
const COMMIT: i32 = 18;
const STATISTICS: i32 = 21;
const REQUEST_RESYNC: i32 = 23;

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contender {
    /// conntrackd, FTFW.
    Conntrackd,
    /// This project.
    Ssyncp,
    /// What takes the kernel's events and does nothing with them: the floor of both, on the router.
    Listener,
}

/// When a copy goes into the backup's kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// At a takeover (conntrackd: external cache).
    OnTakeover,
    /// At once (conntrackd: without one).
    AtOnce,
}

/// A daemon on one machine.
#[derive(Debug)]
pub struct Machine {
    contender: Contender,
    files: PathBuf,
    daemon: Daemon,
}

/// What a process has used so far.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Seconds of processor, all threads.
    pub processor_s: f64,
    /// Bytes of memory.
    pub resident: u64,
}

impl Contender {
    /// All of them, in the order in which they run.
    pub const ALL: [Contender; 3] = [Contender::Listener, Contender::Conntrackd, Contender::Ssyncp];

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Contender::ALL.into_iter().find(|contender| contender.name() == name)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Contender::Conntrackd => "conntrackd",
            Contender::Ssyncp => "ssyncp",
            Contender::Listener => "listener",
        }
    }

    /// Whether its program is there.
    pub fn is_installed(self, context: &Context) -> bool {
        match self {
            Contender::Conntrackd => Command::new("conntrackd").arg("-v").output().is_ok(),
            Contender::Ssyncp => context.program.is_file(),
            Contender::Listener => true,
        }
    }

    /// Starts it on the router (0) or on the machine with the copy (1), and waits until it answers.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn start(
        self,
        lab: &Lab,
        number: usize,
        directory: &Path,
        context: &Context,
        commit: Commit,
    ) -> Result<Machine, Trouble> {
        let files = directory.join(["a", "b"][number]);
        let own = std::env::current_exe().doing("finding this program")?;
        let (program, arguments, text) = match self {
            Contender::Conntrackd => (Path::new("conntrackd"), ["-C"].as_slice(), conntrackd(&files, number, commit)),
            Contender::Ssyncp => (context.program.as_path(), ["run", "-c"].as_slice(), ssyncp(&files, number, commit)),
            Contender::Listener => (own.as_path(), ["--listen"].as_slice(), String::new()),
        };
        let (configuration, program) = (files.with_extension("conf"), program.display().to_string());
        fs::write(&configuration, text).doing("writing a configuration")?;
        for suffix in ["lock", "sock"] {
            // One that was killed has left these behind.
            let _ = fs::remove_file(files.with_extension(suffix));
        }
        let pin = if context.pinned { ["-c", "0"] } else { ["-c", "0-1023"] };
        let configuration = configuration.display().to_string();
        let words: Vec<&str> = pin
            .into_iter()
            .chain([program.as_str()])
            .chain(arguments.iter().copied())
            // Who needs none has none.
            .chain(Some(configuration.as_str()).filter(|_| self != Contender::Listener))
            .collect();
        let namespace = if number == 0 { &lab.a } else { &lab.b };
        let daemon = Daemon::start(namespace, Path::new("taskset"), &words, &files.with_extension("log"));
        let mut machine = Machine { contender: self, files, daemon: daemon.doing("starting a daemon")? };
        machine.until("the daemon answers", Machine::is_ready)?;
        if self == Contender::Ssyncp {
            machine.take_role(["master", "backup"][number])?;
        }
        Ok(machine)
    }

    /// Starts both, and waits until the second follows the first. A listener is alone.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn start_pair(
        self,
        lab: &Lab,
        directory: &Path,
        context: &Context,
        commit: Commit,
    ) -> Result<(Machine, Option<Machine>), Trouble> {
        let a = self.start(lab, 0, directory, context, commit)?;
        if self == Contender::Listener {
            return Ok((a, None));
        }
        let mut b = self.start(lab, 1, directory, context, commit)?;
        match self {
            Contender::Ssyncp => b.until("the backup is in sync", Machine::is_in_sync)?,
            _ => std::thread::sleep(GREETING),
        }
        Ok((a, Some(b)))
    }
}

impl Machine {
    /// Entries of its own table that came from its kernel (on the router) or from the other machine; `None` if it does not
    /// answer.
    pub fn held(&self) -> Option<u64> {
        match self.contender {
            Contender::Listener => None,
            Contender::Ssyncp => self.group()["entries"].as_u64(),
            Contender::Conntrackd => {
                let text = self.ask(STATISTICS).ok()?;
                let cache = if self.files.ends_with("a") { "cache internal" } else { "cache external" };
                let (_, after) = text.split_once(cache)?;
                let (_, number) = after.split_once("current active connections:")?;
                number.split_ascii_whitespace().next()?.parse().ok()
            }
        }
    }

    /// Whether it hears what it is there for.
    fn is_ready(&self) -> bool {
        match self.contender {
            Contender::Listener => self.daemon.log().contains(READY),
            // Without an external cache it has no such number, and answers all the same.
            Contender::Conntrackd => self.ask(STATISTICS).is_ok(),
            Contender::Ssyncp => self.held().is_some(),
        }
    }

    /// Whether it says that it is proven equal. (conntrackd says nothing of the kind.)
    pub fn is_in_sync(&self) -> bool {
        let group = self.group();
        group["role"] == "backup" && group["sync"] == "in_sync"
    }

    fn group(&self) -> Value {
        let status = client::get(&self.files.with_extension("sock"), "/v1/status");
        status.map_or(Value::Null, |status| status["groups"][0].clone())
    }

    fn take_role(&mut self, role: &str) -> Result<(), Trouble> {
        let told = client::post(&self.files.with_extension("sock"), "/v1/role", &json!({ "role": role }));
        told.map(drop).doing("telling a role")
    }

    /// Asks for everything that the other one has: conntrackd must be told to; ssyncp did it when it began to follow.
    ///
    /// # Errors
    /// [`Trouble::Step`].
    pub fn resync(&self) -> Result<(), Trouble> {
        match self.contender {
            Contender::Conntrackd => self.ask(REQUEST_RESYNC).map(drop).doing("asking for a resync"),
            Contender::Ssyncp | Contender::Listener => Ok(()),
        }
    }

    /// Has it write its table into its kernel, as at a takeover.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn commit(&mut self) -> Result<(), Trouble> {
        match self.contender {
            Contender::Conntrackd => self.ask(COMMIT).map(drop).doing("asking for the commit"),
            Contender::Ssyncp => self.take_role("master"),
            Contender::Listener => Ok(()),
        }
    }

    fn ask(&self, request: i32) -> io::Result<String> {
        let mut stream = UnixStream::connect(self.files.with_extension("sock"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&request.to_ne_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Waits until it is what is wanted, looking every 2 ms.
    ///
    /// # Errors
    /// [`Trouble::Never`], with the end of its log.
    pub fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> Result<(), Trouble> {
        let start = Instant::now();
        while !holds(self) {
            if self.daemon.has_ended() || start.elapsed() > PATIENCE {
                let what = format!("{}: {what}\n  {}", self.contender.name(), self.daemon.log());
                return Err(Trouble::Never { what, patience: start.elapsed() });
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// What its process has used.
    ///
    /// # Errors
    /// [`Trouble::Step`].
    pub fn usage(&self) -> Result<Usage, Trouble> {
        let process = PathBuf::from(format!("/proc/{}", self.daemon.id()));
        let read = || -> io::Result<Usage> {
            let mut nanoseconds = 0;
            for thread in fs::read_dir(process.join("task"))? {
                // A thread that has ended meanwhile had little to say.
                let text = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
                nanoseconds += text.split(' ').next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
            }
            let status = fs::read_to_string(process.join("status"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
            let kilobytes: u64 = line.split_ascii_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0);
            Ok(Usage { processor_s: nanoseconds as f64 / 1e9, resident: kilobytes << 10 })
        };
        read().doing("reading what a process has used")
    }

    /// Ends it in good order.
    pub fn end(self) {
        let _ = self.daemon.tell(Signal::SIGTERM);
        self.daemon.end();
    }
}

/// conntrackd's configuration: its own example's, with buffers and a table that hold all of it.
fn conntrackd(files: &Path, number: usize, commit: Commit) -> String {
    let at_once = if commit == Commit::AtOnce { "On" } else { "Off" };
    let file = |suffix: &str| files.with_extension(suffix).display().to_string();
    format!(
        "Sync {{
            Mode FTFW {{
                ResendQueueSize 131072
                PurgeTimeout 60
                DisableExternalCache {at_once}
            }}
            Multicast {{
                IPv4_address 225.0.0.50
                Group 3780
                IPv4_interface 10.255.0.{}
                Interface {SYNC}
                SndSocketBuffer 67108864
                RcvSocketBuffer 67108864
                Checksum on
            }}
        }}
        General {{
            Systemd Off
            HashSize 524288
            HashLimit 4194304
            LogFile off
            Syslog off
            LockFile {}
            UNIX {{
                Path {}
            }}
            NetlinkBufferSize 134217728
            NetlinkBufferSizeMaxGrowth 268435456
            Filter From Userspace {{
                Protocol Accept {{
                    TCP
                    UDP
                }}
                Address Ignore {{
                    IPv4_address 127.0.0.1
                    IPv4_address 10.255.0.1
                    IPv4_address 10.255.0.2
                }}
            }}
        }}\n",
        number + 1,
        file("lock"),
        file("sock"),
    )
}

/// ssyncp's configuration: what everybody has, but for room, and roles by hand.
fn ssyncp(files: &Path, number: usize, commit: Commit) -> String {
    let commit = if commit == Commit::AtOnce { "continuous" } else { "on-takeover" };
    let socket = toml::Value::String(files.with_extension("sock").display().to_string());
    format!(
        "[node]\nid = {}\n[control]\nsocket = {socket}\n[[group]]\nsync_id = 51\ninterfaces = [\"{SYNC}\"]\nrole = \"manual\"\n\
         commit = \"{commit}\"\ncapacity = 1048576\nevent_buffer = \"128MiB\"\n",
        number + 1,
    )
}
