//! Active/active: both balancers work, each as master of one group, over one kernel table that the groups divide by virtual
//! address. (`ssyncp demo --active-active`)
//!
//! ```text
//!                 ┌ 198.51.100.10 ▶ lb-a (master of 51, backup of 52) ◀ 203.0.113.1  ┐
//!   client ─front─┤                                                                  ├─back─ servers, ports 7000 and 7001
//!                 └ 198.51.100.20 ▶ lb-b (master of 52, backup of 51) ◀ 203.0.113.11 ┘
//!
//!   lb-a dies ─ lb-b has both ─ lb-a comes back from nothing, and takes its group again ─ lb-b dies ─ lb-a has both
//! ```
//!
//! Half of the connections go to each virtual address, so each death must leave alone the half that the survivor serves
//! anyway, and save the other one.

use super::client::{Client, ClientPlan, ClientVerdict};
use super::kernel::{self, Difference};
use super::lab::{BACK, Balancer, CLIENT, FRONT, GATEWAY, Lab, SERVER_PORT, SERVERS, SERVICE_PORTS, SYNC, VIRTUAL};
use super::narrator::{self, Narrator, number};
use super::scratch::Scratch;
use super::seal::Drawn;
use super::server::{Server, ServerPlan};
use super::{DemoError, Doing, Options, Stage, interrupt, nftables};
use crate::daemon::client;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use serde::Serialize;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// The address of the second group that clients know.
const SECOND_VIRTUAL: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 20);
/// That which servers know.
const SECOND_GATEWAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 11);
/// The servers' port for it: by it the answers find the gateway of their group.
const SECOND_PORT: u16 = 7001;
/// Time in which roles must have settled, connections be up, and kernels be equal.
const SETTLED_WITHIN: Duration = Duration::from_secs(15);
/// The same, for each thousand connections.
const SETTLED_WITHIN_PER_THOUSAND: Duration = Duration::from_secs(1);
/// Time in which a connection must bring back an echo after a death to count as survived.
const SURVIVED_WITHIN: Duration = Duration::from_secs(10);
/// Connections that ask every 10 ms; the others ask every 900 ms.
const FAST: u32 = 50;
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Lines of a node's log that are shown when it fails.
const LOG_LINES: usize = 12;

/// What became of both deaths.
#[derive(Debug, Serialize)]
struct Report {
    active_active: bool,
    sealed: bool,
    deaths: Vec<Death>,
    as_expected: bool,
}

/// One death.
#[derive(Debug, Serialize)]
struct Death {
    died: &'static str,
    connections: u32,
    survived: u32,
    reset: u32,
    stalled: u32,
    mismatches: u64,
    /// How the kernels differed before it.
    missing: u64,
    extra: u64,
    stale: u64,
    /// From the kill until the survivor said that it is master of both groups.
    master_of_both_ms: f64,
    tcp_gap_ms_p50: f64,
    tcp_gap_ms_max: f64,
}

impl Death {
    fn is_as_expected(&self) -> bool {
        let kept = self.survived == self.connections && self.mismatches == 0;
        kept && (self.missing, self.extra, self.stale) == (0, 0, 0)
    }
}

/// Runs it. Exit status 0: every connection has survived both deaths; 1: not, or there is no verdict.
pub(super) fn run(options: &Options) -> ExitCode {
    let narrator = Narrator::new(options.json);
    match play(options, &narrator) {
        Ok(report) => {
            if options.json {
                narrator::line(serde_json::to_string(&report).unwrap_or_default());
            }
            let verdict = if report.as_expected { "as expected" } else { "NOT as expected" };
            narrator.print(format_args!("{verdict}: whoever died, the other one was master of both groups"));
            if report.as_expected { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            interrupt::yield_to_ending();
            eprintln!("ssyncp demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn play(options: &Options, narrator: &Narrator) -> Result<Report, DemoError> {
    let lab = match Stage::find(2, false) {
        Stage::Lab(_, lab) => *lab,
        Stage::Memory(reason) => return Err(DemoError::NoNamespaces(reason)),
    };
    let scratch = Scratch::create(&std::env::temp_dir()).doing("making a temporary directory")?;
    interrupt::watch(scratch.path().to_owned()).doing("watching for Ctrl-C")?;
    let secret = options.draw_secret(scratch.path())?;
    let mut story = Story::open(options, lab, scratch.path(), secret.as_ref(), narrator)?;
    let first = story.death(0)?;
    story.bring_back(0)?;
    let deaths = vec![first, story.death(1)?];
    let as_expected = deaths.iter().all(Death::is_as_expected);
    Ok(Report { active_active: true, sealed: options.seals(), deaths, as_expected })
}

/// Everybody who takes part. Fields are dropped in this order: processes before the machines that they run in.
struct Story<'a> {
    narrator: &'a Narrator,
    directory: &'a Path,
    secret: Option<&'a Drawn>,
    within: Duration,
    connections: u32,
    client: Client,
    _server: Server,
    nodes: [Option<Node>; 2],
    lab: Lab,
}

impl<'a> Story<'a> {
    fn open(
        options: &Options,
        lab: Lab,
        directory: &'a Path,
        secret: Option<&'a Drawn>,
        narrator: &'a Narrator,
    ) -> Result<Self, DemoError> {
        let connections = options.connections;
        let at = |port: u16| SERVERS.map(|server| SocketAddr::new(server.into(), port));
        let listen = [at(SERVER_PORT), at(SECOND_PORT)].concat();
        let server =
            Server::spawn(&lab.server, &ServerPlan { listen, udp: Vec::new() }).doing("starting the servers")?;
        lab.balancers.iter().try_for_each(share)?;
        let mut nodes = [Some(Node::start(&lab.balancers[0], 0, secret, directory)?), None];
        nodes[1] = Some(Node::start(&lab.balancers[1], 1, secret, directory)?);
        each_has_its_own(&nodes)?;
        narrator.say(format_args!("lb-a is master of group 51 ({VIRTUAL}), lb-b of group 52 ({SECOND_VIRTUAL})"));
        let targets = [VIRTUAL, SECOND_VIRTUAL]
            .map(|address: Ipv4Addr| SERVICE_PORTS.map(|port| SocketAddr::new(IpAddr::from(address), port)));
        let plan = ClientPlan {
            targets: targets.concat(),
            sources: vec![CLIENT.into()],
            connections,
            fast: FAST.min(connections),
            fast_interval_ms: 10,
            slow_interval_ms: 900,
            seed: options.seed.unwrap_or_else(crate::sys::clock::random_u64),
        };
        let mut client = Client::spawn(&lab.client, &plan).doing("starting the clients")?;
        let within = SETTLED_WITHIN + SETTLED_WITHIN_PER_THOUSAND * (connections / 1000);
        let connected = client.wait_connected(within).doing("connecting")?;
        if connected < connections {
            return Err(DemoError::NotConnected { connected, wanted: connections, within });
        }
        narrator.say(format_args!("all {} connections work, half of them through each", number(connections.into())));
        Ok(Story { narrator, directory, secret, within, connections, client, _server: server, nodes, lab })
    }

    /// The kernels' difference, as soon as there is none, or when the time is up.
    fn settle(&self) -> Result<Difference, DemoError> {
        let start = Instant::now();
        loop {
            let dump = |at: usize| kernel::dump(&self.lab.balancers[at].namespace).doing("reading a kernel's table");
            let (a, b) = (dump(0)?, dump(1)?);
            let difference = kernel::compare(&a, &b);
            let enough = a.len() >= self.connections as usize;
            if enough && difference == Difference::default() || start.elapsed() > self.within {
                return Ok(difference);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// One machine dies, with its cables.
    fn death(&mut self, victim: usize) -> Result<Death, DemoError> {
        let Difference { missing, extra, stale, .. } = self.settle()?;
        let (died, survivor) = (self.lab.balancers[victim].name, 1 - victim);
        let killed_at = Instant::now();
        // Dropping it kills it.
        let node = self.nodes[victim].take();
        let killed = node.map_or(Ok(()), |mut node| node.child.kill().map(|()| drop(node)));
        self.lab.cut(victim).doing("cutting the cables")?;
        killed.doing("killing a node")?;
        self.client.mark_death().doing("telling the clients")?;
        self.narrator.say(format_args!("{died} dies"));
        if let Some(node) = &self.nodes[survivor] {
            node.wait("master of both groups", |node| {
                node.is(0, "master", "source") && node.is(1, "master", "source")
            })?;
        }
        let master_of_both_ms = killed_at.elapsed().as_secs_f64() * 1e3;
        let verdict = self.client.verdict(SURVIVED_WITHIN).doing("checking every connection")?;
        let ClientVerdict { connections, survived, reset, stalled, mismatches, .. } = verdict;
        self.narrator.say(format_args!(
            "{} is master of both after {master_of_both_ms:.0} ms; {} of {} connections live on",
            self.lab.balancers[survivor].name,
            number(survived.into()),
            number(connections.into())
        ));
        let (tcp_gap_ms_p50, tcp_gap_ms_max) = (verdict.tcp_gap_ms_p50, verdict.tcp_gap_ms_max);
        Ok(Death {
            died,
            connections,
            survived,
            reset,
            stalled,
            mismatches,
            missing,
            extra,
            stale,
            master_of_both_ms,
            tcp_gap_ms_p50,
            tcp_gap_ms_max,
        })
    }

    /// The machine that died comes back from nothing, and takes its group again.
    fn bring_back(&mut self, at: usize) -> Result<(), DemoError> {
        self.lab.reboot(at).doing("rebuilding the dead balancer")?;
        share(&self.lab.balancers[at])?;
        self.nodes[at] = Some(Node::start(&self.lab.balancers[at], at, self.secret, self.directory)?);
        each_has_its_own(&self.nodes)?;
        self.narrator.say(format_args!("{} is back, and master of its group again", self.lab.balancers[at].name));
        Ok(())
    }
}

/// Waits until each node is master of its own group and a proven backup of the other.
fn each_has_its_own(nodes: &[Option<Node>; 2]) -> Result<(), DemoError> {
    for (own, node) in nodes.iter().enumerate() {
        let Some(node) = node else { continue };
        let at_work = |node: &Node| node.is(own, "master", "source") && node.is(1 - own, "backup", "in_sync");
        node.wait("master of one group and in sync with the other", at_work)?;
    }
    Ok(())
}

/// Gives a balancer the rules of the second group.
fn share(balancer: &Balancer) -> Result<(), DemoError> {
    let services: Vec<_> = SERVICE_PORTS
        .into_iter()
        .zip(SERVERS)
        .map(|(port, server)| {
            (SocketAddr::new(SECOND_VIRTUAL.into(), port), SocketAddr::new(server.into(), SECOND_PORT))
        })
        .collect();
    let load = || nftables::load_second(&services, BACK, SECOND_PORT, SECOND_GATEWAY.into());
    balancer.namespace.run(load).doing("loading the rules of the second group")
}

/// A running node. Dropping it kills it.
struct Node {
    name: &'static str,
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Node {
    /// Starts this same program as `ssyncp run` inside the balancer. To be called from a thread that lasts.
    fn start(balancer: &Balancer, number: usize, secret: Option<&Drawn>, directory: &Path) -> Result<Self, DemoError> {
        let name = balancer.name;
        let file = |suffix: &str| directory.join(format!("{name}.{suffix}"));
        let (settings, socket, log) = (file("toml"), file("sock"), file("log"));
        let start = || {
            if socket.exists() {
                // A node that died as machines die has left it behind.
                fs::remove_file(&socket)?;
            }
            fs::write(&settings, configuration(name, number, secret, &socket))?;
            let output = File::options().create(true).append(true).open(&log)?;
            let mut command = balancer.namespace.command(std::env::current_exe()?)?;
            command.arg("run").arg("-c").arg(&settings).env_remove("NOTIFY_SOCKET");
            command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).spawn()
        };
        let child = start().doing("starting ssyncp run")?;
        Ok(Node { name, child, socket, log })
    }

    /// What it says of one of its groups.
    fn is(&self, group: usize, role: &str, sync: &str) -> bool {
        let status = client::get(&self.socket, "/v1/status").unwrap_or_default();
        status["groups"][group]["role"] == role && status["groups"][group]["sync"] == sync
    }

    fn wait(&self, what: &str, holds: impl Fn(&Self) -> bool) -> Result<(), DemoError> {
        let start = Instant::now();
        while !holds(self) {
            if start.elapsed() > SETTLED_WITHIN {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let log = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n  ");
                let problem = format!("is not {what} after {SETTLED_WITHIN:?}");
                return Err(DemoError::Node { name: self.name, problem, log });
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Both fail only for a process that has ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The configuration file, as an operator would write it: the higher priority for its own group.
fn configuration(name: &str, number: usize, secret: Option<&Drawn>, socket: &Path) -> String {
    let secret = secret.map(Drawn::settings).unwrap_or_default();
    let socket = toml::Value::String(socket.display().to_string());
    let mut text = format!("[node]\nid = {}\nname = \"{name}\"\n{secret}\n[control]\nsocket = {socket}\n", number + 1);
    for (group, (front, back)) in [(VIRTUAL, GATEWAY), (SECOND_VIRTUAL, SECOND_GATEWAY)].into_iter().enumerate() {
        let (sync_id, priority) = (51 + group, if group == number { 150 } else { 100 });
        text += &format!(
            "\n[[group]]\nsync_id = {sync_id}\ninterfaces = [\"{SYNC}\"]\npriority = {priority}\n\
             advert_interval = \"30ms\"\naddresses = [\"{front}/24 dev {FRONT}\", \"{back}/24 dev {BACK}\"]\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::settings::{Divide, Settings};

    #[test]
    fn each_node_has_the_higher_priority_for_its_own_group_and_the_kernel_is_divided() {
        let text = configuration("lb-b", 1, None, Path::new("/tmp/a \"strange\" place/lb-b.sock"));
        let settings = Settings::parse(&text, Path::new("lb-b.toml")).unwrap();
        let groups: Vec<_> =
            settings.groups.iter().map(|group| (group.sync_id, group.priority, group.divide)).collect();
        assert_eq!(groups, [(51, 100, Divide::Address), (52, 150, Divide::Address)]);
    }
}
