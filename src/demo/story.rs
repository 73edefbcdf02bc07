//! What happens, in the order in which it happens.
//!
//! ```text
//!   build ─ servers ─ lb-a becomes master, lb-b proves itself equal ─ clients connect, both kernels fill
//!     ┌─ (from the second round on: who died comes back, joins late, proves itself equal)
//!     │  compare both kernels, entry by entry
//!     │  an event, as SIGKILL to the master's process and all its cables cut ─ every connection must bring back a new echo
//!     │  the backup commits, takes the addresses, announces
//!     │  figures of this event
//!     └─ where the cause has a second event, as SIGCONT after SIGSTOP: the same once more
//!   verdict
//! ```
//!
//! How a node is struck and how it comes back stands in `strike`; nothing here waits for a fixed time but where the cause is one.
//!
//! Without SSYNCP the same happens to the same balancers, but that nobody copies the master's entries: after its death the other
//! one only gets the addresses, from us.

mod mix;
mod strike;

use super::cause::Event;
use super::client::{Client, ClientPlan, ClientVerdict};
use super::ear::{Ear, Late};
use super::kernel::{self, Difference};
use super::lab::{self, CLIENT, CLIENT6, FRONT, Lab, SERVER_PORT, SERVERS, SERVERS6, SYNC, VIRTUAL};
use super::narrator::{Narrator, number};
use super::node::{Node, NodePlan, NodeStatus};
use super::probe::{Probe, ProbePlan, ProbeVerdict};
use super::recorder::{Recorder, keep_table};
use super::report::{Failover, Mix};
use super::seal::Drawn;
use super::server::{Server, ServerPlan};
use super::traffic::milliseconds;
use super::watch::Watcher;
use super::{DemoError, Doing, Options};
use core::net::{IpAddr, SocketAddr};
use mix::MixTraffic;
pub(super) use mix::{MIX_ASSOCIATIONS, MIX_UDP_FLOWS};
use nix::time::{ClockId, clock_gettime};
use std::path::Path;
use std::time::{Duration, Instant};
use strike::Struck;

/// Time in which a new node must have found its place.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Time in which all connections must be up, and what each thousand of them adds.
const CONNECTED_WITHIN: Duration = Duration::from_secs(10);
/// The same, for each thousand connections.
const CONNECTED_WITHIN_PER_THOUSAND: Duration = Duration::from_secs(6);
/// Time in which two kernels must have become equal once traffic is steady.
const EQUAL_WITHIN: Duration = Duration::from_secs(10);
/// Time in which a connection must bring back an echo after a death to count as survived, beside what the takeover costs it
/// ([`survived_within`]).
const SURVIVED_WITHIN: Duration = Duration::from_secs(10);
/// Connections that ask every [`FAST_INTERVAL_MS`]; the others ask every [`SLOW_INTERVAL_MS`].
const FAST: u32 = 50;
/// Time between two echoes of a fast connection.
const FAST_INTERVAL_MS: u64 = 10;
/// Time between two echoes of any other: at least one a second, with some room for the journey.
const SLOW_INTERVAL_MS: u64 = 900;
/// Most echoes of all these in a millisecond: what is shown is a failover, and not how much two processors can carry. (After
/// an event each connection asks at once all the same.)
const SLOW_PER_MS_MAX: u64 = 4;
/// UDP probes side by side, so that there is a median.
const PROBE_FLOWS: u32 = 5;
/// Time between two datagrams of a probe: what it can resolve.
const PROBE_INTERVAL_MS: u64 = 1;
/// Time between two looks at both kernels' tables while they fill.
const ROW_EVERY: Duration = Duration::from_millis(100);
/// Most rows of that table, about.
const ROWS: u32 = 8;
/// Entries that differ which are shown by name.
const EXAMPLES: usize = 3;
/// Time between two looks at the nodes.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// VRRP priorities of lb-a, lb-b and lb-c.
const PRIORITIES: [u8; lab::BALANCERS_MAX] = [150, 100, 50];

/// What every node of the story is told alike.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told<'a> {
    /// Whether there is IPv6 too.
    pub(super) with_ipv6: bool,
    /// Where its files go.
    pub(super) directory: &'a Path,
    /// Where the nodes' logs go.
    pub(super) logs: &'a Path,
    /// What carries their frames, as the configuration says it.
    pub(super) transport: &'a str,
    /// Time between two of its ADVERTs, as the configuration says it.
    pub(super) advert_interval: &'a str,
    /// Whether it takes the role from one of lower priority.
    pub(super) preempt: bool,
    /// Whether it watches its link to the clients.
    pub(super) tracks: bool,
    /// What frames are sealed with, if they are.
    pub(super) secret: Option<&'a Drawn>,
}

/// Plays the story in a laboratory that is built, and returns the figures of each event.
pub(super) fn play(
    options: &Options,
    lab: Lab,
    told: Told<'_>,
    narrator: &Narrator,
) -> Result<Vec<Failover>, DemoError> {
    let mut story = Story::open(options, lab, told, narrator)?;
    story.fill()?;
    let mut failovers = Vec::new();
    for round in 1..=options.failovers {
        if round > 1 {
            story.recover()?;
        }
        failovers.extend(story.round(round == options.failovers)?);
    }
    Ok(failovers)
}

/// Everybody who takes part. Fields are dropped in this order: processes before the machines that they run in.
struct Story<'a> {
    options: &'a Options,
    narrator: &'a Narrator,
    told: Told<'a>,
    seed: u64,
    client: Client,
    probe: Probe,
    mix: Option<MixTraffic>,
    _servers: [Server; 2],
    /// The nodes by balancer; none where SSYNCP does not run, or has died.
    nodes: Vec<Option<Node>>,
    /// Machines that are there.
    alive: Vec<bool>,
    /// The node that cannot answer because it is stopped.
    asleep: Option<usize>,
    watcher: Watcher,
    ear: Option<Ear>,
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
        if told.with_ipv6 {
            addresses.extend(SERVERS6.map(IpAddr::from));
            targets.extend(lab::services6());
            sources.push(CLIENT6.into());
        }
        let addresses: Vec<_> = addresses.into_iter().map(|server| SocketAddr::new(server, SERVER_PORT)).collect();
        let spawn = |plan| Server::spawn(&lab.server, &plan).doing("starting the servers");
        let tcp = spawn(ServerPlan { listen: addresses.clone(), udp: Vec::new() })?;
        let _servers = [tcp, spawn(ServerPlan { listen: Vec::new(), udp: addresses })?];
        narrator.say(format_args!("{} servers echo what they get", SERVERS.len()));

        let recorder = match &options.record {
            Some(file) => Some(Recorder::start(&lab, file, told.secret, told.directory)?),
            None => None,
        };
        let secrets = told.secret.map(|drawn| drawn.secret().clone()).into_iter().collect();
        let late = options.cause.events().iter().any(|event| event.leaves_it_talking());
        let ear = if late {
            Some(Ear::open(lab.switches(), SYNC, secrets).doing("listening at the sync switch")?)
        } else {
            None
        };
        let mut nodes: Vec<Option<Node>> = lab.balancers.iter().map(|_| None).collect();
        if options.no_sync {
            lab.take_addresses(0).doing("giving lb-a the addresses")?;
            narrator.say("SSYNCP stays off; lb-a has the virtual address");
        } else {
            nodes = start_nodes(&lab, told, narrator)?;
        }
        let watcher = Watcher::start(&lab.client, FRONT, vec![VIRTUAL]).doing("watching for announcements")?;

        let plan = ProbePlan { targets: targets.clone(), flows: PROBE_FLOWS, interval_ms: PROBE_INTERVAL_MS };
        let probe = Probe::spawn(&lab.client, &plan).doing("starting the UDP probe")?;
        let mix = if options.mix { Some(MixTraffic::start(&lab, &targets, narrator)?) } else { None };
        let seed = options.seed.unwrap_or_else(crate::sys::clock::random_u64);
        let plan = ClientPlan {
            targets,
            sources,
            connections: options.connections,
            fast: FAST.min(options.connections),
            fast_interval_ms: FAST_INTERVAL_MS,
            slow_interval_ms: SLOW_INTERVAL_MS.max(u64::from(options.connections) / SLOW_PER_MS_MAX),
            seed,
        };
        let client = Client::spawn(&lab.client, &plan).doing("starting the clients")?;
        narrator.say(format_args!(
            "{} TCP connections to {VIRTUAL} begin: random bytes out (seed {seed}), the same bytes back, all checked",
            number(options.connections.into())
        ));
        let (alive, asleep, master) = (vec![true; nodes.len()], None, 0);
        Ok(Story {
            options,
            narrator,
            told,
            seed,
            client,
            probe,
            mix,
            _servers,
            nodes,
            alive,
            asleep,
            watcher,
            ear,
            recorder,
            master,
            lab,
        })
    }

    /// Waits for all connections, and shows both kernels' tables filling meanwhile.
    fn fill(&mut self) -> Result<(), DemoError> {
        let thousands = self.options.connections / 1000;
        let within = CONNECTED_WITHIN + CONNECTED_WITHIN_PER_THOUSAND * thousands;
        let start = Instant::now();
        let names: String = self.lab.balancers.iter().map(|balancer| format!("{:>9}", balancer.name)).collect();
        self.narrator.add(format_args!("entries in the kernels:{names}"));
        let (mut shown, mut retried) = (0, false);
        loop {
            let connected = self.client.wait_connected(ROW_EVERY).doing("connecting")?;
            let row = (0..self.alive.len()).map(|at| self.tracked(at)).collect::<Result<Vec<_>, _>>()?;
            let all = connected >= self.options.connections;
            if row[self.master] >= shown || all {
                let entries: String = row.iter().map(|count| format!("{:>9}", number((*count).into()))).collect();
                self.narrator.add(format_args!("                       {entries}"));
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
    /// Waits until the kernels of all backups equal the master's. Where they never do, the figures will say so.
    fn settle(&mut self) -> Result<(), DemoError> {
        if self.options.no_sync {
            return Ok(());
        }
        self.find_master()?;
        self.compare_until_equal().map(drop)
    }

    /// The last of the comparisons until one finds no difference. The tables are read one after the other, so a single one
    /// also finds what changes meanwhile: as all UDP flows do that have lived for two seconds, and become ASSURED.
    fn compare_until_equal(&self) -> Result<Compared, DemoError> {
        let start = Instant::now();
        loop {
            let compared = self.compare()?;
            if !differs(&compared.difference) || self.options.no_sync || start.elapsed() >= EQUAL_WITHIN {
                return Ok(compared);
            }
            std::thread::sleep(ROW_EVERY / 10);
        }
    }

    /// Waits until one node is master and all others are backups in sync, whichever: on a machine that is short of time the
    /// role may move by itself.
    fn find_master(&mut self) -> Result<(), DemoError> {
        let start = Instant::now();
        loop {
            let so = |so: fn(&NodeStatus) -> bool| self.awake().filter(move |(_, node)| node.is(so)).map(|(at, _)| at);
            let (masters, ready) = (so(NodeStatus::is_master), so(NodeStatus::is_ready_backup));
            let (masters, ready): (Vec<usize>, usize) = (masters.collect(), ready.count());
            // Where the nodes preempt, the role comes to lb-a by itself; before that nothing stands.
            let stands = ready + 1 == self.awake().count() && (!self.told.preempt || masters == [0]);
            if let ([master], true) = (&masters[..], stands) {
                if *master != self.master {
                    self.narrator.say(format_args!("{} has become master meanwhile", self.name(*master)));
                }
                self.master = *master;
                return Ok(());
            }
            if start.elapsed() > READY_WITHIN {
                // Whoever should be backup says in its error, and in its log, what it is instead.
                let backups = self.nodes.iter_mut().enumerate().filter(|(at, _)| *at != self.master);
                return backups
                    .filter_map(|(_, node)| node.as_mut())
                    .try_for_each(|node| node.wait_until("in sync", Duration::ZERO, NodeStatus::is_ready_backup));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// The nodes that run and can answer.
    fn awake(&self) -> impl Iterator<Item = (usize, &Node)> {
        let nodes = self.nodes.iter().enumerate().filter(|(at, _)| Some(*at) != self.asleep);
        nodes.filter_map(|(at, node)| Some((at, node.as_ref()?)))
    }

    /// The machines beside this one that are there.
    fn beside(&self, balancer: usize) -> impl Iterator<Item = usize> {
        (0..self.alive.len()).filter(move |at| *at != balancer && self.alive[*at])
    }

    fn name(&self, balancer: usize) -> &'static str {
        self.lab.balancers[balancer].name
    }

    /// All events of one round, and what they did.
    fn round(&mut self, is_last: bool) -> Result<Vec<Failover>, DemoError> {
        let (began, since) = (Instant::now(), realtime());
        let mut figures = Vec::new();
        let mut victim = self.master;
        for event in self.options.cause.events() {
            if event.mends() {
                std::thread::sleep(self.options.stop_for.saturating_sub(began.elapsed()));
            }
            let keep = is_last && !event.mends();
            figures.push(self.witness(*event, &mut victim, since, keep)?);
        }
        Ok(figures)
    }

    /// One event, from the comparison before it to the last echo after it. The victim of a pair is who is master by then.
    fn witness(
        &mut self,
        event: Event,
        victim: &mut usize,
        since: Duration,
        keep: bool,
    ) -> Result<Failover, DemoError> {
        self.probe.start_window().doing("starting the UDP probe's window")?;
        let before = if event.finds_a_pair() { Some(self.compare_and_tell()?) } else { None };
        let quiet = self.probe.end_window().doing("ending the UDP probe's window")?;
        if keep {
            self.keep()?;
        }
        self.probe.start_window().doing("starting the UDP probe's window")?;
        if event.finds_a_pair() && !self.options.no_sync {
            self.find_master()?;
            *victim = self.master;
        }
        let victim = *victim;
        let struck = self.strike(event, victim)?;
        let takeover_ms = if event.moves_the_role() { self.await_takeover(event, victim, struck.at)? } else { None };
        let traffic = self.client.verdict(survived_within(takeover_ms)).doing("checking every connection")?;
        let window = self.probe.end_window().doing("ending the UDP probe's window")?;
        let mix = self.mix.as_mut().map(|mix| mix.verdict(&traffic)).transpose()?;
        self.tell_traffic(&traffic, mix);
        let quiet_hole_ms = before.as_ref().map(|_| quiet.max_ms);
        let compared = match before {
            Some(compared) => compared,
            None => {
                self.settle()?;
                self.compare_and_tell()?
            }
        };
        let late = self.ear.as_ref().filter(|_| event.leaves_it_talking());
        let late = late.map(|ear| ear.late_claims_of(node_id(victim), since, struck.at));
        let seen = Seen { struck, takeover_ms, traffic, window, quiet_hole_ms, mix, compared, late };
        Ok(seen.into_figures(event, self.name(victim)))
    }

    /// Waits for the announcement of the new master, and finds out who that is; milliseconds from the event to it.
    fn await_takeover(&mut self, event: Event, victim: usize, struck_at: Duration) -> Result<Option<f64>, DemoError> {
        if self.options.no_sync {
            let backup = self.beside(victim).next().unwrap_or(victim);
            self.lab.take_addresses(backup).doing("moving the addresses")?;
        }
        let announced = if event == Event::Return {
            let own = self.lab.balancers[victim].hardware_address;
            self.watcher.first_announcement_by(own, struck_at, SURVIVED_WITHIN)
        } else {
            self.watcher.first_announcement_after(struck_at, SURVIVED_WITHIN)
        };
        let Some(announced) = announced else {
            self.narrator.say(format_args!("nobody has announced {VIRTUAL} within {SURVIVED_WITHIN:?}"));
            return Ok(None);
        };
        self.master = if event == Event::Return { victim } else { self.successor_of(victim) };
        let took = milliseconds(announced.saturating_sub(struck_at));
        let entries = if self.options.no_sync { "no entries" } else { "its entries in the kernel" };
        let name = self.name(self.master);
        self.narrator.say(format_args!("{name} has {VIRTUAL} now and {entries}; announced after {took:.1} ms"));
        Ok(Some(took))
    }

    /// Who has taken the role from the victim: whoever says so, among several.
    fn successor_of(&self, victim: usize) -> usize {
        let others: Vec<usize> = self.beside(victim).collect();
        let start = Instant::now();
        while others.len() > 1 && start.elapsed() < SURVIVED_WITHIN {
            let says_so = |(at, node): &(usize, &Node)| *at != victim && node.is(NodeStatus::is_master);
            if let Some((at, _)) = self.awake().find(says_so) {
                return at;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        others.first().copied().unwrap_or(victim)
    }

    /// The kernels' tables, read by code that knows nothing of SSYNCP's own.
    fn compare(&self) -> Result<Compared, DemoError> {
        let dump =
            |balancer: usize| kernel::dump(&self.lab.balancers[balancer].namespace).doing("dumping a kernel's table");
        let master = dump(self.master)?;
        let mut worst: Option<Compared> = None;
        for backup in self.beside(self.master) {
            let backup = dump(backup)?;
            let difference = kernel::compare(&master, &backup);
            if worst.as_ref().is_none_or(|worst| differences(&worst.difference) < differences(&difference)) {
                let [flows_master, flows_backup] = [master.len(), backup.len()].map(count);
                worst = Some(Compared { flows_master, flows_backup, difference });
            }
        }
        Ok(worst.unwrap_or_else(|| Compared { flows_master: count(master.len()), ..Compared::default() }))
    }

    fn compare_and_tell(&self) -> Result<Compared, DemoError> {
        let compared = self.compare_until_equal()?;
        let difference = &compared.difference;
        self.narrator.say(format_args!(
            "the kernels, entry by entry: {} {}, beside it {}; {} missing, {} extra, {} stale",
            self.name(self.master),
            number(compared.flows_master.into()),
            number(compared.flows_backup.into()),
            difference.missing,
            difference.extra,
            difference.stale
        ));
        // Without SSYNCP every entry is missing: nothing to name.
        let examples = if self.options.no_sync { 0 } else { EXAMPLES };
        for example in difference.examples.iter().take(examples) {
            self.narrator.add(example);
        }
        Ok(compared)
    }

    fn tracked(&self, balancer: usize) -> Result<u32, DemoError> {
        self.lab.balancers[balancer].tracked().doing("counting a kernel's entries")
    }

    /// What is to be left behind. It is taken before the last death: after it there is nobody left to prove anything to.
    fn keep(&mut self) -> Result<(), DemoError> {
        let Options { record, table, .. } = self.options;
        let backup = self.beside(self.master).next().and_then(|backup| self.nodes[backup].as_ref());
        if let (Some(file), Some(node)) = (table, backup) {
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

/// What was seen around one event.
struct Seen {
    struck: Struck,
    takeover_ms: Option<f64>,
    traffic: ClientVerdict,
    window: ProbeVerdict,
    quiet_hole_ms: Option<f64>,
    mix: Option<Mix>,
    compared: Compared,
    late: Option<Late>,
}

impl Seen {
    fn into_figures(self, event: Event, victim: &str) -> Failover {
        let Seen { struck, takeover_ms, traffic, window, quiet_hole_ms, mix, compared, late } = self;
        let ClientVerdict { connections, survived, reset, stalled, mismatches, .. } = traffic;
        let Compared { flows_master, flows_backup, difference } = compared;
        Failover {
            event,
            died: victim.into(),
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
            quiet_hole_ms,
            probe_late_ms: Some(window.late_ms_max),
            late_adverts: late.map(|late| late.adverts),
            two_masters_ms: late.map(|late| milliseconds(late.lasting)),
            duplicate_address_ms: struck.duplicate.map(milliseconds),
            taken_differing: struck.taken_differing,
            mix,
        }
    }
}

/// Two kernels' tables: the master's, and that of the backup that differs most.
#[derive(Debug, Default)]
struct Compared {
    flows_master: u32,
    flows_backup: u32,
    difference: Difference,
}

/// Starts `ssyncp run` on all balancers, one after the other; the first one becomes master.
fn start_nodes(lab: &Lab, told: Told<'_>, narrator: &Narrator) -> Result<Vec<Option<Node>>, DemoError> {
    let names: Vec<_> = lab.balancers.iter().map(|balancer| balancer.name).collect();
    narrator.say(format_args!(
        "ssyncp run starts on {}; between them IP protocol 114 by {}, {}",
        names.join(" and then on "),
        told.transport,
        if told.secret.is_some() { "sealed" } else { "in the clear" }
    ));
    let mut nodes = Vec::new();
    for (at, balancer) in lab.balancers.iter().enumerate() {
        let mut node = Node::start(balancer, node_plan(at, told))?;
        if at == 0 {
            node.wait_until("master", READY_WITHIN, NodeStatus::is_master)?;
            narrator.say(format_args!("{} is master and has {VIRTUAL}", balancer.name));
        } else {
            node.wait_until("in sync", READY_WITHIN, NodeStatus::is_ready_backup)?;
            narrator.say(format_args!("{} is backup and in sync", balancer.name));
        }
        // It would run on something else where this cannot be had, which is not what was to be shown.
        node.wait_until("on the transport that was asked for", READY_WITHIN, |status| {
            status.transport.starts_with(told.transport)
        })?;
        nodes.push(Some(node));
    }
    Ok(nodes)
}

fn node_plan(balancer: usize, told: Told<'_>) -> NodePlan<'_> {
    let Told { directory, logs, transport, advert_interval, with_ipv6, preempt, tracks, secret } = told;
    let (id, priority) = (node_id(balancer), PRIORITIES[balancer]);
    NodePlan { id, priority, transport, advert_interval, preempt, tracks, with_ipv6, directory, logs, secret }
}

/// Number of the node on a balancer.
fn node_id(balancer: usize) -> u32 {
    balancer as u32 + 1
}

/// Now, by the clock that arrivals of packets are stamped with.
fn realtime() -> Duration {
    clock_gettime(ClockId::CLOCK_REALTIME).map_or(Duration::ZERO, Duration::from)
}

/// Whether two kernels' tables are not the same.
fn differs(difference: &Difference) -> bool {
    differences(difference) != 0
}

/// Entries in which two kernels' tables differ.
fn differences(difference: &Difference) -> u64 {
    let Difference { missing, extra, stale, .. } = difference;
    missing + extra + stale
}

/// Figures of the report have 32 bits; the kernel's table has fewer entries.
fn count(value: impl TryInto<u32>) -> u32 {
    value.try_into().unwrap_or(u32::MAX)
}

/// TCP waits twice as long after each time that it has sent in vain (RFC 6298, 5.5): what left just before an outage ends
/// leaves again after as much time once more. That is no loss, and with adverts of 1 s comes up to 8 s after the death.
fn survived_within(takeover_ms: Option<f64>) -> Duration {
    let takeover = Duration::from_secs_f64(takeover_ms.unwrap_or_default().max(0.0) / 1e3);
    SURVIVED_WITHIN + takeover * 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_takeover_is_waited_for_twice_as_long() {
        assert_eq!(survived_within(None), Duration::from_secs(10));
        assert_eq!(survived_within(Some(40.0)), Duration::from_millis(10_080));
        assert_eq!(survived_within(Some(3750.0)), Duration::from_millis(17_500));
    }
}
