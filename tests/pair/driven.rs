//! keepalived elects over VRRP between two machines, and ssyncp keeps the connections: real TCP connections through NAT, whose
//! bytes are checked, outlive whatever happens to the master. The configurations are those of docs/operations.md, pasted.

use crate::keepalived;
use crate::machine::{PATIENCE, eventually, root};
use crate::process::Daemon;
use nix::sys::signal::Signal;
use serde_json::Value;
use ssyncp::daemon::client;
use ssyncp::demo::client::{Client, ClientPlan, ClientVerdict};
use ssyncp::demo::kernel;
use ssyncp::demo::lab::{self, CLIENT, GATEWAY, Lab, SERVER_PORT, SERVERS, VIRTUAL};
use ssyncp::demo::probe::{Probe, ProbePlan};
use ssyncp::demo::server::{Server, ServerPlan};
use ssyncp::demo::watch::Watcher;
use ssyncp::flow::protocol;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The program.
const SSYNCP: &str = env!("CARGO_BIN_EXE_ssyncp");
/// Live connections.
const CONNECTIONS: u32 = 200;
/// The two ways that docs/operations.md describes, by their headings.
const KEEPALIVED_HOLDS: &str = "### keepalived holds the addresses";
const SSYNCP_HOLDS: &str = "### SSYNCP holds the addresses";

/// The blocks of a section of docs/operations.md: keepalived.conf and ssyncp.toml of lb-a, then those of lb-b.
fn pasted(heading: &str) -> [[String; 2]; 2] {
    let document = include_str!("../../docs/operations.md");
    let section = document.split(&format!("{heading}\n")).nth(1).expect("the section is there");
    let section = section.split("\n### ").next().unwrap();
    let blocks: Vec<&str> = section.split("\n```").skip(1).step_by(2).collect();
    let block = |number: usize, kind: &str| blocks[number].strip_prefix(kind).expect(kind).to_owned();
    assert_eq!(blocks.len(), 4, "two files for each machine");
    [[block(0, "text\n"), block(1, "toml\n")], [block(2, "text\n"), block(3, "toml\n")]]
}

/// One machine's daemons, and their files.
struct Machine {
    files: PathBuf,
    ssyncp: Option<Daemon>,
    keepalived: Option<Daemon>,
}

impl Machine {
    /// Writes both files, with the names and paths of this laboratory in the place of the document's.
    fn new(directory: &Path, name: &str, [keepalived_conf, toml]: &[String; 2]) -> Self {
        let files = directory.join(name);
        let socket = files.with_extension("sock").display().to_string();
        let here = |text: &str| {
            // The daemons run as root here, which has given up the right to open what is another's.
            let fifo = format!("{} root root", files.with_extension("fifo").display());
            let text = text.replace("/run/ssyncp/keepalived.fifo ssyncp ssyncp", &fifo);
            let text = text.replace("/usr/bin/ssyncp status", &format!("{SSYNCP} status --socket {socket}"));
            text.replace("eth0", "front").replace("eth1", "sync").replace("eth2", "back")
        };
        // `enable_script_security` refuses a program below a directory that others may write to, as /tmp.
        let conf = here(keepalived_conf).replace("    enable_script_security\n", "");
        keepalived::configure(&files, &conf).unwrap();
        let fifo = files.with_extension("fifo").display().to_string();
        let toml = format!("{}\nkeepalived_fifo = \"{fifo}\"\n\n[control]\nsocket = \"{socket}\"\n", here(toml));
        fs::write(files.with_extension("toml"), toml).unwrap();
        Machine { files, ssyncp: None, keepalived: None }
    }

    fn start_ssyncp(&mut self, lab: &Lab, number: usize) {
        let settings = self.files.with_extension("toml").display().to_string();
        // A daemon that was killed has left its socket behind.
        drop(fs::remove_file(self.files.with_extension("sock")));
        let namespace = &lab.balancers[number].namespace;
        let log = self.files.with_extension("log");
        self.ssyncp = Some(Daemon::start(namespace, Path::new(SSYNCP), &["run", "-c", &settings], &log).unwrap());
    }

    fn start_keepalived(&mut self, lab: &Lab, number: usize) {
        self.keepalived = Some(keepalived::start(&lab.balancers[number].namespace, &self.files).unwrap());
    }

    fn group(&self) -> Value {
        let status = client::get(&self.files.with_extension("sock"), "/v1/status");
        status.map_or(Value::Null, |status| status["groups"][0].clone())
    }

    fn is(&self, role: &str, sync: &str) -> bool {
        let group = self.group();
        group["role"] == role && group["sync"] == sync
    }

    /// When its log says this for the last time, in seconds of the day.
    fn logged(&self, words: &str) -> Option<f64> {
        let log = fs::read_to_string(self.files.with_extension("log")).ok()?;
        let line = log.lines().rfind(|line| line.contains(words))?;
        let time = line.split(['T', 'Z']).nth(1)?;
        time.split(':').try_fold(0.0, |sum, part| Some(sum * 60.0 + part.parse::<f64>().ok()?))
    }

    fn counter(&self, name: &str) -> u64 {
        self.group()["counters"][name].as_u64().unwrap_or_else(|| panic!("no counter {name}: {:#}", self.group()))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (name, daemon) in [("ssyncp", &self.ssyncp), ("keepalived", &self.keepalived)] {
                let log = daemon.as_ref().map(Daemon::log).unwrap_or_default();
                eprintln!("{} of {}, the end of its log:\n  {log}", name, self.files.display());
            }
        }
    }
}

/// Both machines at work, with connections through them. Processes end before the machines that they run in.
struct Pair {
    client: Client,
    probe: Probe,
    _server: Server,
    machines: [Machine; 2],
    lab: Lab,
    _directory: tempfile::TempDir,
}

/// Whether everything is there; says so in one line if not.
fn possible() -> bool {
    if !root() {
        return false;
    }
    let installed = keepalived::is_installed();
    if !installed {
        println!("skipped: needs the program keepalived");
    }
    installed
}

impl Pair {
    /// lb-a is master, lb-b is in sync, and every connection works.
    fn at_work(heading: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let lab = Lab::build(false).unwrap();
        let addresses: Vec<_> = SERVERS.iter().map(|address| SocketAddr::new((*address).into(), SERVER_PORT)).collect();
        let plan = ServerPlan { listen: addresses.clone(), udp: addresses };
        let server = Server::spawn_from(Path::new(SSYNCP), &lab.server, &plan).unwrap();
        let texts = pasted(heading);
        let mut machines =
            [(0, "lb-a"), (1, "lb-b")].map(|(at, name)| Machine::new(directory.path(), name, &texts[at]));
        for (number, machine) in machines.iter_mut().enumerate() {
            machine.start_ssyncp(&lab, number);
            machine.start_keepalived(&lab, number);
        }
        settled(&lab, &machines, 0);
        let targets: Vec<SocketAddr> = lab::services().map(SocketAddr::from).into();
        let plan = ProbePlan { targets: targets.clone(), flows: 5, interval_ms: 1 };
        let probe = Probe::spawn_from(Path::new(SSYNCP), &lab.client, &plan).unwrap();
        let plan = ClientPlan {
            targets,
            sources: vec![CLIENT.into()],
            connections: CONNECTIONS,
            fast: 20,
            fast_interval_ms: 10,
            slow_interval_ms: 300,
            seed: 5,
        };
        let mut client = Client::spawn_from(Path::new(SSYNCP), &lab.client, &plan).unwrap();
        assert_eq!(client.wait_connected(PATIENCE).unwrap(), CONNECTIONS);
        let pair = Pair { client, probe, _server: server, machines, lab, _directory: directory };
        pair.equal();
        pair
    }

    /// Waits until both kernels hold the same connections. (VRRP's own entries are nobody's connections.)
    fn equal(&self) {
        let dump = |at: usize| {
            let mut entries = kernel::dump(&self.lab.balancers[at].namespace).unwrap();
            entries.retain(|entry| [protocol::TCP, protocol::UDP].contains(&entry.original.protocol));
            entries
        };
        eventually("both kernels hold the connections", || {
            let (a, b) = (dump(0), dump(1));
            a.len() as u32 >= CONNECTIONS && kernel::compare(&a, &b) == kernel::Difference::default()
        });
    }

    /// Does something to the master, waits until `master` has taken over, and says what became of the connections.
    fn through(&mut self, what: &str, master: usize, act: impl FnOnce(&mut [Machine; 2], &Lab)) -> ClientVerdict {
        self.probe.start_window().unwrap();
        act(&mut self.machines, &self.lab);
        self.client.mark_death().unwrap();
        eventually("the other one is master", || self.machines[master].group()["role"] == "master");
        let verdict = self.client.verdict(Duration::from_secs(20)).unwrap();
        let window = self.probe.end_window().unwrap();
        println!(
            "{what}: {} of {} survived, {} reset, {} stalled; blackout {:.1} ms, at most {:.1} ms",
            verdict.survived, verdict.connections, verdict.reset, verdict.stalled, window.p50_ms, window.max_ms
        );
        verdict
    }
}

/// Waits until `master` is master, with the addresses, and the other one in sync, without them.
fn settled(lab: &Lab, machines: &[Machine; 2], master: usize) {
    eventually("one is master with the addresses, the other in sync without", || {
        machines[master].is("master", "source")
            && machines[1 - master].is("backup", "in_sync")
            && [VIRTUAL, GATEWAY]
                .iter()
                .all(|address| holds(lab, master, *address) && !holds(lab, 1 - master, *address))
    });
}

/// Whether a balancer has an address.
fn holds(lab: &Lab, number: usize, address: Ipv4Addr) -> bool {
    let look = || {
        let all = nix::ifaddrs::getifaddrs()?;
        Ok(all.filter_map(|entry| Some(IpAddr::V4(entry.address?.as_sockaddr_in()?.ip()))).any(|held| held == address))
    };
    lab.balancers[number].namespace.run(look).unwrap()
}

fn all_survive(verdict: &ClientVerdict) {
    assert_eq!((verdict.reset, verdict.stalled, verdict.mismatches), (0, 0, 0), "{verdict:?}");
    assert_eq!(verdict.survived, CONNECTIONS);
}

fn a_master_dies(heading: &str) {
    if !possible() {
        return;
    }
    let mut pair = Pair::at_work(heading);
    let watcher = Watcher::start(&pair.lab.client, lab::FRONT, vec![VIRTUAL]).unwrap();
    let died_at = realtime();
    let verdict = pair.through("death", 1, |machines, lab| {
        lab.cut(0).unwrap();
        machines[0].ssyncp.as_ref().unwrap().kill();
        machines[0].keepalived.as_ref().unwrap().kill();
    });
    all_survive(&verdict);
    let announced = watcher.first_announcement_after(died_at, PATIENCE).expect("the address is announced");
    let master = pair.machines[1].logged("promoting to master").expect("the log says when");
    let since = |at: f64| (at - died_at.as_secs_f64() % SECONDS_A_DAY) * 1e3;
    println!(
        "{}: announced after {:.1} ms, ssyncp master after {:.1} ms",
        heading.trim_start_matches('#'),
        since(announced.as_secs_f64() % SECONDS_A_DAY),
        since(master)
    );
}

/// Now, by the clock that packets and logs are stamped with.
fn realtime() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_REALTIME).unwrap().into()
}

/// The log is read for its time of day only: around midnight the printed figures are wrong, and nothing is asserted of them.
const SECONDS_A_DAY: f64 = 86_400.0;

/// [5.7.1]
#[test]
fn connections_outlive_a_master_that_dies_with_keepalived() {
    a_master_dies(KEEPALIVED_HOLDS);
}

/// [5.7.1] The same, and the addresses come when the state is there.
#[test]
fn connections_outlive_a_master_that_dies_where_ssyncp_holds_the_addresses() {
    a_master_dies(SSYNCP_HOLDS);
}

/// [5.7.1] Another priority and a reload: the other one preempts, and nothing breaks.
#[test]
fn connections_outlive_a_planned_move_by_priority() {
    if !possible() {
        return;
    }
    let mut pair = Pair::at_work(KEEPALIVED_HOLDS);
    let verdict = pair.through("move by priority", 1, |machines, _| {
        let conf = machines[0].files.with_extension("keepalived.conf");
        let text = fs::read_to_string(&conf).unwrap().replace("priority 150", "priority 70");
        keepalived::configure(&machines[0].files, &text).unwrap();
        machines[0].keepalived.as_ref().unwrap().tell(Signal::SIGHUP).unwrap();
    });
    all_survive(&verdict);
    settled(&pair.lab, &pair.machines, 1);
    let says = pair.machines[0].group()["last_events"].to_string();
    assert!(says.contains("VI_51 is BACKUP"), "{says}");
}

/// [5.7.1] It says STOP; and when it is back, and this node is proven, it takes the role again.
#[test]
fn connections_outlive_a_restart_of_keepalived() {
    if !possible() {
        return;
    }
    let mut pair = Pair::at_work(KEEPALIVED_HOLDS);
    let verdict = pair.through("keepalived stops", 1, |machines, _| {
        assert!(machines[0].keepalived.take().unwrap().end(), "it ends when it is told to");
    });
    all_survive(&verdict);
    settled(&pair.lab, &pair.machines, 1);
    let trouble = pair.machines[0].group()["trouble"].to_string();
    assert!(trouble.contains("keepalived does not have"), "{trouble}");
    let verdict = pair.through("keepalived is back", 0, |machines, lab| machines[0].start_keepalived(lab, 0));
    all_survive(&verdict);
    settled(&pair.lab, &pair.machines, 0);
    assert_eq!(pair.machines[0].counter("keepalived_malformed"), 0);
}

/// [5.7.1] keepalived says MASTER once; who starts later knows it all the same.
#[test]
fn a_daemon_that_is_killed_and_started_anew_beside_a_living_keepalived_is_master_again() {
    if !possible() {
        return;
    }
    let mut pair = Pair::at_work(KEEPALIVED_HOLDS);
    // Kept back by the script, keepalived would move the role meanwhile, which is another story.
    let verdict = pair.through("ssyncp is killed and started anew", 0, |machines, lab| {
        machines[0].ssyncp.take().unwrap().kill();
        machines[0].start_ssyncp(lab, 0);
    });
    all_survive(&verdict);
    settled(&pair.lab, &pair.machines, 0);
}
