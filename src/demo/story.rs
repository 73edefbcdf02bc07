//! What happens, in the order in which it happens.
//!
//! ```text
//!   build ─ servers ─ lb-a becomes master, lb-b proves itself equal ─ clients connect, both kernels fill
//!     ┌─ (from the second death on: the dead machine comes back from nothing, joins late, proves itself equal)
//!     │  compare both kernels, entry by entry
//!     │  SIGKILL to the master's process and all its cables cut ─ every connection must bring back a new echo
//!     │  the backup commits, takes the addresses, announces
//!     └─ figures of this death
//!   verdict
//! ```
//!
//! Without SSYNCP the same happens to the same balancers, but that nobody copies the master's entries: after its death the other
//! one only gets the addresses, from us.

use super::client::{Client, ClientPlan, ClientVerdict};
use super::kernel::{self, Difference};
use super::lab::{self, CLIENT, CLIENT6, FRONT, Lab, SERVER_PORT, SERVERS, SERVERS6, VIRTUAL};
use super::narrator::{Narrator, number};
use super::node::{Node, NodePlan, NodeStatus};
use super::probe::{Probe, ProbePlan};
use super::recorder::{Recorder, keep_table};
use super::report::{Failover, Mix};
use super::sctp::{Sctp, SctpPlan};
use super::server::{Server, ServerPlan};
use super::watch::Watcher;
use super::{DemoError, Doing, Options};
use core::net::{IpAddr, SocketAddr};
use nix::time::{ClockId, clock_gettime};
use std::path::Path;
use std::time::{Duration, Instant};

/// Time in which a new node must have found its place.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// Time in which all connections must be up, and what each thousand of them adds.
const CONNECTED_WITHIN: Duration = Duration::from_secs(10);
/// The same, for each thousand connections.
const CONNECTED_WITHIN_PER_THOUSAND: Duration = Duration::from_secs(1);
/// Time in which two kernels must have become equal once traffic is steady.
const EQUAL_WITHIN: Duration = Duration::from_secs(10);
/// Time in which a connection must bring back an echo after a death to count as survived.
const SURVIVED_WITHIN: Duration = Duration::from_secs(10);
/// Connections that ask every [`FAST_INTERVAL_MS`]; the others ask every [`SLOW_INTERVAL_MS`].
const FAST: u32 = 50;
/// Time between two echoes of a fast connection.
const FAST_INTERVAL_MS: u64 = 10;
/// Time between two echoes of any other: at least one a second, with some room for the journey.
const SLOW_INTERVAL_MS: u64 = 900;
/// UDP probes side by side, so that there is a median.
const PROBE_FLOWS: u32 = 5;
/// Time between two datagrams of a probe: what it can resolve.
const PROBE_INTERVAL_MS: u64 = 1;
/// UDP flows of the mix, over both families.
pub(super) const MIX_UDP_FLOWS: u32 = 100;
/// Time between two datagrams of each.
const MIX_UDP_INTERVAL_MS: u64 = 100;
/// SCTP associations of the mix.
pub(super) const MIX_ASSOCIATIONS: u16 = 50;
/// Time between two looks at the mix.
const MIX_EVERY: Duration = Duration::from_millis(10);
/// Time for which traffic flows undisturbed before a death: each connection asks once more.
const STEADY: Duration = Duration::from_millis(1000);
/// Time between two looks at both kernels' tables while they fill.
const ROW_EVERY: Duration = Duration::from_millis(100);
/// Most rows of that table, about.
const ROWS: u32 = 8;
/// Entries that differ which are shown by name.
const EXAMPLES: usize = 3;
/// VRRP priorities of lb-a and lb-b.
const PRIORITIES: [u8; 2] = [150, 100];

/// What every node of the story is told alike.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told<'a> {
    /// Whether there is IPv6 too.
    pub(super) with_ipv6: bool,
    /// Where its files go.
    pub(super) directory: &'a Path,
    /// Time between two of its ADVERTs, as the configuration says it.
    pub(super) advert_interval: &'static str,
}

/// Plays the story in a laboratory that is built, and returns the figures of each death.
pub(super) fn play(
    options: &Options,
    lab: Lab,
    told: Told<'_>,
    narrator: &Narrator,
) -> Result<Vec<Failover>, DemoError> {
    let mut story = Story::open(options, lab, told, narrator)?;
    story.fill()?;
    (0..options.failovers).map(|number| story.failover(number)).collect()
}

/// Everybody who takes part. Fields are dropped in this order: processes before the machines that they run in.
struct Story<'a> {
    options: &'a Options,
    narrator: &'a Narrator,
    told: Told<'a>,
    client: Client,
    probe: Probe,
    mix: Option<MixTraffic>,
    _server: Server,
    /// The two nodes; none where SSYNCP does not run.
    nodes: [Option<Node>; 2],
    watcher: Watcher,
    recorder: Option<Recorder>,
    /// Who is master.
    master: usize,
    lab: Lab,
}

impl<'a> Story<'a> {
    /// Starts servers, nodes and clients.
    fn open(options: &'a Options, lab: Lab, told: Told<'a>, narrator: &'a Narrator) -> Result<Self, DemoError> {
        let mut addresses: Vec<IpAddr> = SERVERS.map(IpAddr::from).into();
        let mut targets: Vec<SocketAddr> = lab::services().map(SocketAddr::from).into();
        let mut sources: Vec<IpAddr> = vec![CLIENT.into()];
        if options.mix {
            addresses.extend(SERVERS6.map(IpAddr::from));
            targets.extend(lab::services6());
            sources.push(CLIENT6.into());
        }
        let addresses: Vec<_> = addresses.into_iter().map(|server| SocketAddr::new(server, SERVER_PORT)).collect();
        let plan = ServerPlan { listen: addresses.clone(), udp: addresses };
        let server = Server::spawn(&lab.server, &plan).doing("starting the servers")?;
        narrator.say(format_args!("{} servers echo what they get", SERVERS.len()));

        let recorder = match &options.record {
            Some(file) => Some(Recorder::start(&lab, file, told.directory)?),
            None => None,
        };
        let mut nodes = [None, None];
        if options.no_sync {
            lab.take_addresses(0).doing("giving lb-a the addresses")?;
            narrator.say("SSYNCP stays off; lb-a has the virtual address");
        } else {
            nodes = start_pair(&lab, told, narrator)?;
        }
        let watcher = Watcher::start(&lab.client, FRONT, vec![VIRTUAL]).doing("watching for announcements")?;

        let plan = ProbePlan { targets: targets.clone(), flows: PROBE_FLOWS, interval_ms: PROBE_INTERVAL_MS };
        let probe = Probe::spawn(&lab.client, &plan).doing("starting the UDP probe")?;
        let mix = if options.mix { Some(MixTraffic::start(&lab, &targets, narrator)?) } else { None };
        let plan = ClientPlan {
            targets,
            sources,
            connections: options.connections,
            fast: FAST.min(options.connections),
            fast_interval_ms: FAST_INTERVAL_MS,
            slow_interval_ms: SLOW_INTERVAL_MS,
            seed: crate::sys::clock::random_u64(),
        };
        let client = Client::spawn(&lab.client, &plan).doing("starting the clients")?;
        narrator.say(format_args!(
            "{} TCP connections to {VIRTUAL} begin: random bytes out, the same bytes back, all checked",
            number(options.connections.into())
        ));
        let (_server, master) = (server, 0);
        Ok(Story { options, narrator, told, client, probe, mix, _server, nodes, watcher, recorder, master, lab })
    }

    /// Waits for all connections, and shows both kernels' tables filling meanwhile.
    fn fill(&mut self) -> Result<(), DemoError> {
        let thousands = self.options.connections / 1000;
        let within = CONNECTED_WITHIN + CONNECTED_WITHIN_PER_THOUSAND * thousands;
        let start = Instant::now();
        self.narrator.add("entries in the kernels:     lb-a     lb-b");
        let (mut shown, mut retried) = (0, false);
        loop {
            let connected = self.client.wait_connected(ROW_EVERY).doing("connecting")?;
            let row = [self.tracked(0)?, self.tracked(1)?];
            let all = connected >= self.options.connections;
            if row[self.master] >= shown || all {
                self.narrator.add(format_args!("{:>32} {:>8}", number(row[0].into()), number(row[1].into())));
                shown = row[self.master] + self.options.connections / ROWS + 1;
            }
            if all {
                break;
            }
            let missing = self.options.connections - connected;
            if start.elapsed() > within {
                return Err(DemoError::NotConnected { connected, wanted: self.options.connections, within });
            } else if start.elapsed() > within / 2 && !retried {
                self.narrator
                    .say(format_args!("{} are not up yet; those that broke are opened anew", number(missing.into())));
                self.client.restart().doing("opening connections anew")?;
                retried = true;
            }
        }
        self.narrator.say(format_args!("all {} connections work", number(self.options.connections.into())));
        if let Some(mix) = &mut self.mix {
            mix.must_be_alive()?;
        }
        self.settle()
    }

    /// Lets traffic flow until the backup's kernel equals the master's. Where it never does, the figures will say so.
    fn settle(&mut self) -> Result<(), DemoError> {
        std::thread::sleep(STEADY);
        if self.options.no_sync {
            return Ok(());
        }
        self.find_master()?;
        let start = Instant::now();
        while differs(&self.compare()?.2) && start.elapsed() < EQUAL_WITHIN {
            std::thread::sleep(ROW_EVERY / 10);
        }
        Ok(())
    }

    /// Waits until one node is master and the other one a backup in sync, whichever: on a machine that is short of time the
    /// role may move by itself.
    fn find_master(&mut self) -> Result<(), DemoError> {
        let start = Instant::now();
        let is = |node: &Option<Node>, so: fn(&NodeStatus) -> bool| node.as_ref().is_some_and(|node| node.is(so));
        loop {
            let [a, b] = &self.nodes;
            let stands = [(0, a, b), (1, b, a)].into_iter().find(|(_, master, backup)| {
                is(master, NodeStatus::is_master) && is(backup, NodeStatus::is_ready_backup)
            });
            if let Some((master, ..)) = stands {
                if master != self.master {
                    let name = self.lab.balancers[master].name;
                    self.narrator
                        .say(format_args!("{name} has become master meanwhile: the other one was not heard in time"));
                }
                self.master = master;
                return Ok(());
            }
            if start.elapsed() > READY_WITHIN {
                // Whoever should be backup says in its error, and in its log, what it is instead.
                let backup = self.nodes[1 - self.master].as_mut();
                return backup
                    .map_or(Ok(()), |node| node.wait_until("in sync", Duration::ZERO, NodeStatus::is_ready_backup));
            }
            std::thread::sleep(ROW_EVERY / 10);
        }
    }

    /// One death, from the comparison before it to the last echo after it.
    fn failover(&mut self, round: u32) -> Result<Failover, DemoError> {
        if round > 0 {
            self.bring_back()?;
        }
        let (master, backup) = (self.master, 1 - self.master);
        let dead = self.lab.balancers[master].name;
        self.probe.start_window().doing("starting the UDP probe's window")?;
        let (flows_master, flows_backup, difference) = self.compare()?;
        self.tell_difference(flows_master, flows_backup, &difference);
        if round + 1 == self.options.failovers {
            self.keep(backup)?;
        }

        let died_at = self.kill(master)?;
        if self.options.no_sync {
            self.lab.take_addresses(backup).doing("moving the addresses")?;
        }
        let takeover_ms = self.await_takeover(backup, died_at);
        let traffic = self.client.verdict(SURVIVED_WITHIN).doing("checking every connection")?;
        let window = self.probe.end_window().doing("ending the UDP probe's window")?;
        let mix = self.mix.as_mut().map(|mix| mix.verdict(&traffic)).transpose()?;
        self.master = backup;
        self.tell_traffic(&traffic, mix);
        let ClientVerdict { connections, survived, reset, stalled, mismatches, .. } = traffic;
        Ok(Failover {
            died: dead.into(),
            connections,
            survived,
            reset,
            stalled,
            flows_master,
            flows_backup,
            missing: count(difference.missing),
            extra: count(difference.extra),
            stale: count(difference.stale),
            mismatches,
            takeover_ms,
            blackout_ms_p50: Some(window.p50_ms),
            blackout_ms_max: Some(window.max_ms),
            tcp_gap_ms_p50: Some(traffic.tcp_gap_ms_p50),
            tcp_gap_ms_max: Some(traffic.tcp_gap_ms_max),
            rto_min_ms: Some(traffic.rto_min_ms),
            mix,
        })
    }

    /// The machine that died comes back from nothing.
    fn bring_back(&mut self) -> Result<(), DemoError> {
        let back = 1 - self.master;
        self.lab.reboot(back).doing("rebuilding the dead balancer")?;
        let name = self.lab.balancers[back].name;
        if self.options.no_sync {
            self.client.restart().doing("opening the lost connections anew")?;
            if let Some(mix) = &mut self.mix {
                mix.sctp.restart().doing("opening the lost associations anew")?;
            }
            self.narrator.say(format_args!("{name} is back, its kernel empty; the connections are opened anew"));
            return self.fill();
        }
        self.narrator.say(format_args!("{name} is back, its kernel empty: it joins late"));
        let plan = node_plan(back, self.told);
        self.nodes[back] = Some(Node::start(&self.lab.balancers[back], plan)?);
        self.find_master()?;
        self.narrator.say(format_args!("{} is backup and in sync", self.lab.balancers[1 - self.master].name));
        self.settle()
    }

    /// Kills a machine: its process and its cables. Says when (CLOCK_REALTIME).
    fn kill(&mut self, victim: usize) -> Result<Duration, DemoError> {
        let before = Instant::now();
        let died_at = realtime();
        let died = self.nodes[victim].as_mut().map_or(Ok(()), Node::kill);
        self.lab.cut(victim).doing("cutting the master's cables")?;
        let took = before.elapsed();
        died.doing("killing the master")?;
        self.client.mark_death().doing("telling the clients")?;
        if let Some(mix) = &mut self.mix {
            mix.begin_window()?;
        }
        // Reaped only now, so that nothing stands between the kill and the cut.
        let killed = self.nodes[victim].take().is_some();
        let what = if killed { "SIGKILL, and all its cables cut" } else { "all its cables cut" };
        self.narrator.say(format_args!(
            "{} dies: {what}, within {:.1} ms",
            self.lab.balancers[victim].name,
            took.as_secs_f64() * 1e3
        ));
        Ok(died_at)
    }

    /// Waits for the announcement of the new master; milliseconds from the death to it.
    fn await_takeover(&self, backup: usize, died_at: Duration) -> Option<f64> {
        let name = self.lab.balancers[backup].name;
        let announced = self.watcher.first_announcement_after(died_at, SURVIVED_WITHIN);
        let Some(announced) = announced else {
            self.narrator.say(format_args!("{name} has not announced {VIRTUAL} within {SURVIVED_WITHIN:?}"));
            return None;
        };
        let took = announced.saturating_sub(died_at).as_secs_f64() * 1e3;
        let entries = if self.options.no_sync { "no entries" } else { "its entries in the kernel" };
        self.narrator.say(format_args!("{name} has {VIRTUAL} now and {entries}; announced after {took:.1} ms"));
        Some(took)
    }

    /// Both kernels' tables, read by code that knows nothing of SSYNCP's own: entries of the master and of the backup, and
    /// how they differ.
    fn compare(&self) -> Result<(u32, u32, Difference), DemoError> {
        let dump =
            |balancer: usize| kernel::dump(&self.lab.balancers[balancer].namespace).doing("dumping a kernel's table");
        let (master, backup) = (dump(self.master)?, dump(1 - self.master)?);
        Ok((count(master.len()), count(backup.len()), kernel::compare(&master, &backup)))
    }

    fn tracked(&self, balancer: usize) -> Result<u32, DemoError> {
        self.lab.balancers[balancer].tracked().doing("counting a kernel's entries")
    }

    fn tell_difference(&self, flows_master: u32, flows_backup: u32, difference: &Difference) {
        let [master, backup] = [self.master, 1 - self.master].map(|balancer| self.lab.balancers[balancer].name);
        self.narrator.say(format_args!(
            "both kernels, entry by entry: {master} {}, {backup} {}; {} missing, {} extra, {} stale",
            number(flows_master.into()),
            number(flows_backup.into()),
            difference.missing,
            difference.extra,
            difference.stale
        ));
        // Without SSYNCP every entry is missing: nothing to name.
        let examples = if self.options.no_sync { 0 } else { EXAMPLES };
        for example in difference.examples.iter().take(examples) {
            self.narrator.add(example);
        }
    }

    /// What is to be left behind. It is taken before the last death: after it there is nobody left to prove anything to.
    fn keep(&mut self, backup: usize) -> Result<(), DemoError> {
        let Options { record, table, .. } = self.options;
        if let (Some(file), Some(node)) = (table, &self.nodes[backup]) {
            keep_table(node.socket(), file)?;
            self.narrator.say(format_args!("{} holds the table of {}", file.display(), node.name()));
        }
        if let (Some(file), Some(recorder)) = (record, self.recorder.take()) {
            recorder.end()?;
            self.narrator.say(format_args!("{} holds every frame until now", file.display()));
        }
        Ok(())
    }

    fn tell_traffic(&self, traffic: &ClientVerdict, mix: Option<Mix>) {
        self.narrator.say(format_args!(
            "{} of {} connections brought back a new echo ({} reset, {} stalled); {} bytes checked so far",
            number(traffic.survived.into()),
            number(traffic.connections.into()),
            traffic.reset,
            traffic.stalled,
            number(traffic.bytes_checked)
        ));
        if let Some(mix) = mix {
            self.narrator.say(format_args!("of the mix live on: {}", mix.in_words()));
        }
    }
}

/// What flows beside TCP.
struct MixTraffic {
    udp: Probe,
    sctp: Sctp,
    _server: Sctp,
    /// Since when answers count.
    since: Instant,
}

impl MixTraffic {
    fn start(lab: &Lab, targets: &[SocketAddr], narrator: &Narrator) -> Result<Self, DemoError> {
        let server = SctpPlan::Server(SERVERS.into());
        let server = Sctp::spawn(&lab.server, &server).doing("starting the SCTP servers")?;
        let client = SctpPlan::Client { targets: lab::services().into(), associations: MIX_ASSOCIATIONS };
        let sctp = Sctp::spawn(&lab.client, &client).doing("starting the SCTP clients")?;
        let plan = ProbePlan { targets: targets.to_vec(), flows: MIX_UDP_FLOWS, interval_ms: MIX_UDP_INTERVAL_MS };
        let udp = Probe::spawn(&lab.client, &plan).doing("starting the UDP flows")?;
        narrator.say(format_args!(
            "{MIX_UDP_FLOWS} UDP flows and {MIX_ASSOCIATIONS} SCTP associations begin; of TCP and UDP half is IPv6"
        ));
        Ok(MixTraffic { udp, sctp, _server: server, since: Instant::now() })
    }

    /// From now on only what was sent later counts.
    fn begin_window(&mut self) -> Result<(), DemoError> {
        self.since = Instant::now();
        self.udp.start_window().doing("starting the window of the UDP flows")?;
        self.sctp.start_window().doing("starting the window of the SCTP associations")
    }

    /// Waits until everything is answered, or until its time is up: UDP flows and SCTP associations that live then.
    fn alive(&mut self, within: Duration) -> Result<(u32, u32), DemoError> {
        loop {
            let udp = self.udp.end_window().doing("asking for the UDP flows")?;
            let sctp = self.sctp.verdict().doing("asking for the SCTP associations")?;
            let all = udp.alive == udp.flows && sctp.alive == sctp.associations;
            if all || self.since.elapsed() > within {
                return Ok((udp.alive, sctp.alive));
            }
            std::thread::sleep(MIX_EVERY);
        }
    }

    /// Before anybody dies, all of it must work.
    fn must_be_alive(&mut self) -> Result<(), DemoError> {
        self.begin_window()?;
        match self.alive(CONNECTED_WITHIN)? {
            (MIX_UDP_FLOWS, sctp) if sctp == u32::from(MIX_ASSOCIATIONS) => Ok(()),
            (udp, sctp) => Err(DemoError::NotAlive { udp, sctp, within: CONNECTED_WITHIN }),
        }
    }

    /// What lives on after the death, at the latest when TCP's time is up, too.
    fn verdict(&mut self, tcp: &ClientVerdict) -> Result<Mix, DemoError> {
        let (udp_survived, sctp_survived) = self.alive(SURVIVED_WITHIN)?;
        Ok(Mix {
            ipv6_connections: tcp.ipv6_connections,
            ipv6_survived: tcp.ipv6_survived,
            udp_flows: MIX_UDP_FLOWS,
            udp_survived,
            sctp_associations: MIX_ASSOCIATIONS.into(),
            sctp_survived,
        })
    }
}

/// Starts `ssyncp run` on both balancers; the first one becomes master.
fn start_pair(lab: &Lab, told: Told<'_>, narrator: &Narrator) -> Result<[Option<Node>; 2], DemoError> {
    let [a, b] = &lab.balancers;
    narrator.say("ssyncp run starts on lb-a and then on lb-b; between them raw IP protocol 114");
    let mut node_a = Node::start(a, node_plan(0, told))?;
    node_a.wait_until("master", READY_WITHIN, NodeStatus::is_master)?;
    narrator.say(format_args!("lb-a is master and has {VIRTUAL}"));
    let mut node_b = Node::start(b, node_plan(1, told))?;
    node_b.wait_until("in sync", READY_WITHIN, NodeStatus::is_ready_backup)?;
    narrator.say("lb-b is backup and in sync");
    Ok([Some(node_a), Some(node_b)])
}

fn node_plan(balancer: usize, told: Told<'_>) -> NodePlan<'_> {
    let Told { directory, advert_interval, with_ipv6 } = told;
    NodePlan { id: balancer as u32 + 1, priority: PRIORITIES[balancer], advert_interval, with_ipv6, directory }
}

/// Now, by the clock that arrivals of packets are stamped with.
fn realtime() -> Duration {
    clock_gettime(ClockId::CLOCK_REALTIME).map_or(Duration::ZERO, Duration::from)
}

/// Whether two kernels' tables are not the same.
fn differs(difference: &Difference) -> bool {
    let Difference { missing, extra, stale, .. } = difference;
    *missing != 0 || *extra != 0 || *stale != 0
}

/// Figures of the report have 32 bits; the kernel's table has fewer entries.
fn count(value: impl TryInto<u32>) -> u32 {
    value.try_into().unwrap_or(u32::MAX)
}
