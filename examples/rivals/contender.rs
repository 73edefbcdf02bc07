//! The contenders: what runs on a machine, and when it is ready.
//!
//! All hold the same two addresses, elect with 10 ms between two adverts ([`Context::advert_interval`], for ssyncp's own
//! election), and do not preempt; processes that elect are real-time ones. (With its default `vrrp_rlimit_rttime`, 10 ms,
//! keepalived's VRRP process is killed on a busy machine.)

use super::process::Daemon;
use super::{Context, Doing, Trouble, conntrackd, keepalived};
use nix::ifaddrs::getifaddrs;
use serde::Serialize;
use serde_json::Value;
use ssyncp::daemon::client;
use ssyncp::demo::lab::{BACK, Balancer, FRONT, GATEWAY, PREFIX_LEN, SYNC, VIRTUAL};
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Time in which a machine must have found its place.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// VRRP priorities of lb-a and lb-b.
const PRIORITIES: [u8; 2] = [150, 100];

/// Who is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Contender {
    /// keepalived elects, conntrackd copies.
    KeepalivedConntrackd,
    /// ssyncp does both.
    Ssyncp,
    /// keepalived elects, ssyncp copies.
    KeepalivedSsyncp,
}

impl Contender {
    /// In the order in which they run.
    pub const ALL: [Contender; 3] = [Contender::KeepalivedConntrackd, Contender::Ssyncp, Contender::KeepalivedSsyncp];

    /// For `--only`.
    pub fn word(self) -> &'static str {
        match self {
            Contender::KeepalivedConntrackd => "conntrackd",
            Contender::Ssyncp => "ssyncp",
            Contender::KeepalivedSsyncp => "keepalived",
        }
    }

    /// For people, with versions.
    pub fn title(self) -> String {
        let version = |found: Option<String>| found.unwrap_or_else(|| "?".into());
        let elects = || format!("keepalived {}", version(keepalived::version()));
        let own = concat!("ssyncp ", env!("CARGO_PKG_VERSION"));
        match self {
            Contender::KeepalivedConntrackd => {
                format!("{} + conntrackd {}", elects(), version(conntrackd::version()))
            }
            Contender::Ssyncp => own.to_owned(),
            Contender::KeepalivedSsyncp => format!("{} + {own}", elects()),
        }
    }

    fn has_keepalived(self) -> bool {
        self != Contender::Ssyncp
    }

    fn has_ssyncp(self) -> bool {
        self != Contender::KeepalivedConntrackd
    }

    /// Whether its programs are there.
    ///
    /// # Errors
    /// [`Trouble::Missing`].
    pub fn check(self) -> Result<(), Trouble> {
        if self.has_keepalived() && !keepalived::is_installed() {
            return Err(Trouble::Missing(keepalived::PROGRAM));
        }
        if !self.has_ssyncp() && !conntrackd::is_installed() {
            return Err(Trouble::Missing(conntrackd::PROGRAM));
        }
        Ok(())
    }
}

/// The daemons of one machine. Dropping it kills them.
#[derive(Debug)]
pub struct Machine {
    contender: Contender,
    files: PathBuf,
    /// The one that copies, and the one that elects, if it is another.
    daemons: Vec<Daemon>,
}

impl Machine {
    /// Starts what a contender has on a balancer (0: lb-a, 1: lb-b). To be called from a thread that lasts.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn start(
        contender: Contender,
        context: &Context,
        balancer: &Balancer,
        number: usize,
        directory: &Path,
    ) -> Result<Self, Trouble> {
        let files = directory.join(balancer.name);
        let namespace = &balancer.namespace;
        let mut machine = Machine { contender, files, daemons: Vec::new() };
        let files = &machine.files;
        if contender.has_ssyncp() {
            let settings = files.with_extension("toml");
            // A daemon that was killed has left its socket behind.
            let _ = fs::remove_file(files.with_extension("sock"));
            fs::write(&settings, machine.settings(number, context.advert_interval))
                .doing("writing ssyncp's configuration")?;
            let arguments = ["run", "-c", &settings.display().to_string()];
            let log = files.with_extension("log");
            let daemon = Daemon::start(namespace, &context.program, &arguments, &log).doing("starting ssyncp")?;
            machine.daemons.push(daemon);
            machine.until("ssyncp answers", |machine| machine.group() != Value::Null)?;
        } else {
            conntrackd::configure(files, number as u32 + 1).doing("writing conntrackd's configuration")?;
            machine.daemons.push(conntrackd::start(namespace, files).doing("starting conntrackd")?);
            // Its script would start another one, in the background, if it did not answer.
            machine.until("conntrackd answers", |machine| conntrackd::answers(&machine.files))?;
        }
        if contender.has_keepalived() {
            let files = &machine.files;
            keepalived::configure(files, &machine.vrrp(number)).doing("writing keepalived's configuration")?;
            machine.daemons.push(keepalived::start(namespace, files).doing("starting keepalived")?);
        }
        Ok(machine)
    }

    /// ssyncp's configuration.
    fn settings(&self, number: usize, advert_interval: &str) -> String {
        let path = |suffix| self.files.with_extension(suffix).display().to_string();
        let role = if self.contender.has_keepalived() {
            format!("role = \"keepalived\"\ninstance = \"VI_51\"\nkeepalived_fifo = \"{}\"", path("fifo"))
        } else {
            format!(
                "priority = {}\npreempt = false\n\
                 addresses = [\"{VIRTUAL}/{PREFIX_LEN} dev {FRONT}\", \"{GATEWAY}/{PREFIX_LEN} dev {BACK}\"]",
                PRIORITIES[number]
            )
        };
        format!(
            "[node]\nid = {}\n[control]\nsocket = \"{}\"\n[[group]]\nsync_id = 51\ninterfaces = [\"{SYNC}\"]\n\
             advert_interval = \"{advert_interval}\"\n{role}\n",
            number + 1,
            path("sock"),
        )
    }

    /// keepalived's configuration.
    fn vrrp(&self, number: usize) -> String {
        let (fifo, notify) = if self.contender.has_ssyncp() {
            (format!("notify_fifo {}", self.files.with_extension("fifo").display()), String::new())
        } else {
            let script = conntrackd::script(&self.files).display().to_string();
            let notify = [("master", "primary"), ("backup", "backup"), ("fault", "fault")];
            let line = |(state, word)| format!("    notify_{state} \"{script} {word}\"\n");
            (String::new(), notify.map(line).concat())
        };
        format!(
            "global_defs {{
    router_id lb-{number}
    vrrp_version 3
    vrrp_rt_priority 10
    vrrp_rlimit_rttime 1000000
    vrrp_no_swap
    script_user root
    {fifo}
}}
vrrp_instance VI_51 {{
    state BACKUP
    nopreempt
    interface {FRONT}
    virtual_router_id 51
    priority {}
    advert_int 0.01
    virtual_ipaddress {{
        {VIRTUAL}/{PREFIX_LEN} dev {FRONT}
        {GATEWAY}/{PREFIX_LEN} dev {BACK}
    }}
{notify}}}
",
            PRIORITIES[number]
        )
    }

    /// Kills all of it, as a machine dies. Does not wait.
    pub fn kill(&self) {
        self.daemons.iter().for_each(Daemon::kill);
    }

    /// Waits until it is what is wanted.
    ///
    /// # Errors
    /// [`Trouble::Never`], with the end of its logs.
    fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) -> Result<(), Trouble> {
        let start = Instant::now();
        while !holds(self) {
            let ended = self.daemons.iter_mut().any(Daemon::has_ended);
            if ended || start.elapsed() > READY_WITHIN {
                let logs: Vec<String> = self.daemons.iter().map(Daemon::log).collect();
                let how = if ended { "a daemon has ended by itself" } else { "in time" };
                let what = format!("{}: {what}: {how}\n  {}", self.files.display(), logs.join("\n  "));
                return Err(Trouble::Never { what, patience: READY_WITHIN });
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Waits until it holds the addresses, and says of itself that it is master if it can.
    ///
    /// # Errors
    /// [`Trouble::Never`].
    pub fn until_master(&mut self, balancer: &Balancer) -> Result<(), Trouble> {
        self.until("master with the addresses", |machine| {
            let says = !machine.contender.has_ssyncp() || machine.group()["role"] == "master";
            says && holds(balancer, VIRTUAL) && holds(balancer, GATEWAY)
        })
    }

    /// Waits until it could take over `connections`: ssyncp is in sync, conntrackd has as many in its cache.
    ///
    /// # Errors
    /// [`Trouble::Never`].
    pub fn until_ready(&mut self, connections: u32) -> Result<(), Trouble> {
        self.until("ready to take over", |machine| {
            if machine.contender.has_ssyncp() {
                let group = machine.group();
                return group["role"] == "backup" && group["sync"] == "in_sync";
            }
            conntrackd::external_entries(&machine.files).is_some_and(|entries| entries >= u64::from(connections))
        })
    }

    fn group(&self) -> Value {
        let status = client::get(&self.files.with_extension("sock"), "/v1/status");
        status.map_or(Value::Null, |status| status["groups"][0].clone())
    }
}

/// Whether a balancer has an address.
pub fn holds(balancer: &Balancer, address: Ipv4Addr) -> bool {
    let look = || {
        let held = getifaddrs()?.filter_map(|entry| Some(entry.address?.as_sockaddr_in()?.ip()));
        Ok(held.into_iter().any(|held| held == address))
    };
    balancer.namespace.run(look).unwrap_or(false)
}
