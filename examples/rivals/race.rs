//! What is done to each contender, and what is measured.
//!
//! ```text
//!   start both ─ connect ─ steady ─┬─ ready? ─ probe's window ─ cut all cables and kill ─ verdict of every connection ─┐
//!                                  └──────── the dead machine from nothing, what broke is opened anew ◀───────────────┘
//! ```

use super::contender::{Contender, Machine};
use super::report::{Failover, Run};
use super::{Context, Doing, Trouble};
use nix::time::{ClockId, clock_gettime};
use ssyncp::demo::client::{Client, ClientPlan};
use ssyncp::demo::lab::{self, CLIENT, FRONT, Lab, SERVER_PORT, SERVERS, VIRTUAL};
use ssyncp::demo::probe::{Probe, ProbePlan, ProbeVerdict};
use ssyncp::demo::server::{Server, ServerPlan};
use ssyncp::demo::watch::Watcher;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Time in which all connections must be up.
const CONNECTED_WITHIN: Duration = Duration::from_secs(60);
/// Time for which traffic flows undisturbed before a death: each connection asks once more.
const STEADY: Duration = Duration::from_millis(1500);
/// Time in which a connection must bring back an echo after a death to count as survived.
const SURVIVED_WITHIN: Duration = Duration::from_secs(10);
/// Time in which every flow of the probe must be answered once the connections are judged.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);
/// Connections that ask every 10 ms; the others ask every 900 ms.
const FAST: u32 = 50;

/// Runs one contender to its end, or until it cannot go on.
pub fn run(contender: Contender, context: &Context, tell: &dyn Fn(String)) -> Run {
    let mut run = Run::new(contender);
    let result = contender.check().and_then(|()| Race::open(contender, context)).and_then(|mut race| {
        for round in 0..context.failovers {
            if round > 0 {
                race.bring_back()?;
            }
            let failover = race.failover()?;
            tell(failover.line(round + 1));
            run.failovers.push(failover);
        }
        Ok(())
    });
    run.problem = result.err().map(|trouble| trouble.to_string());
    run.finish()
}

/// Everybody who takes part. Fields are dropped in this order: processes before the machines that they run in.
struct Race<'a> {
    contender: Contender,
    context: &'a Context,
    client: Client,
    probe: Probe,
    _server: Server,
    watcher: Watcher,
    machines: [Machine; 2],
    /// Who is master.
    master: usize,
    lab: Lab,
    directory: tempfile::TempDir,
}

impl<'a> Race<'a> {
    fn open(contender: Contender, context: &'a Context) -> Result<Self, Trouble> {
        let mut directory =
            tempfile::Builder::new().prefix("ssyncp-rivals-").tempdir().doing("making a temporary directory")?;
        if context.keep {
            directory.disable_cleanup(true);
            eprintln!("kept: {}", directory.path().display());
        }
        let lab = Lab::build(false).doing("building the lab")?;
        let program = &context.program;
        let addresses: Vec<_> = SERVERS.iter().map(|server| SocketAddr::new((*server).into(), SERVER_PORT)).collect();
        let plan = ServerPlan { listen: addresses.clone(), udp: addresses };
        let server = Server::spawn_from(program, &lab.server, &plan).doing("starting the servers")?;
        let watcher = Watcher::start(&lab.client, FRONT, vec![VIRTUAL]).doing("watching for announcements")?;

        let start =
            |number: usize| Machine::start(contender, context, &lab.balancers[number], number, directory.path());
        let mut first = start(0)?;
        first.until_master(&lab.balancers[0])?;
        let mut machines = [first, start(1)?];
        machines[1].until_ready(0)?;

        let targets: Vec<SocketAddr> = lab::services().map(SocketAddr::from).into();
        let plan = ProbePlan { targets: targets.clone(), flows: 5, interval_ms: 1 };
        let probe = Probe::spawn_from(program, &lab.client, &plan).doing("starting the UDP probe")?;
        let plan = ClientPlan {
            targets,
            sources: vec![CLIENT.into()],
            connections: context.connections,
            fast: FAST.min(context.connections),
            fast_interval_ms: 10,
            slow_interval_ms: 900,
            seed: 114,
        };
        let client = Client::spawn_from(program, &lab.client, &plan).doing("starting the clients")?;
        let mut race =
            Race { contender, context, client, probe, _server: server, watcher, machines, master: 0, lab, directory };
        race.settle()?;
        Ok(race)
    }

    /// Waits until all connections work, and the backup could take them.
    fn settle(&mut self) -> Result<(), Trouble> {
        let wanted = self.context.connections;
        let connected = self.client.wait_connected(CONNECTED_WITHIN).doing("connecting")?;
        if connected < wanted {
            let what = format!("{wanted} connections work ({connected} do)");
            return Err(Trouble::Never { what, patience: CONNECTED_WITHIN });
        }
        std::thread::sleep(STEADY);
        self.machines[1 - self.master].until_ready(wanted)
    }

    /// The dead machine comes back from nothing, and what broke is opened anew.
    fn bring_back(&mut self) -> Result<(), Trouble> {
        let back = 1 - self.master;
        self.lab.reboot(back).doing("rebuilding the dead balancer")?;
        let balancer = &self.lab.balancers[back];
        self.machines[back] = Machine::start(self.contender, self.context, balancer, back, self.directory.path())?;
        self.client.restart().doing("opening lost connections anew")?;
        self.settle()
    }

    /// One death.
    fn failover(&mut self) -> Result<Failover, Trouble> {
        let (master, backup) = (self.master, 1 - self.master);
        self.probe.start_window().doing("starting the probe's window")?;
        let died_at = realtime();
        // Nobody hears anything of it from here on; the processes need some milliseconds more to be dead.
        self.lab.cut(master).doing("cutting the master's cables")?;
        self.machines[master].kill();
        self.client.mark_death().doing("telling the clients")?;
        let traffic = self.client.verdict(SURVIVED_WITHIN).doing("checking every connection")?;
        let window = self.window()?;
        let announced = self.watcher.first_announcement_after(died_at, Duration::ZERO);
        self.master = backup;
        // A probe that is never answered again has no blackout, only a lower bound of one.
        let answered = window.alive == window.flows;
        Ok(Failover {
            connections: traffic.connections,
            survived: traffic.survived,
            reset: traffic.reset,
            stalled: traffic.stalled,
            mismatches: traffic.mismatches,
            announced_ms: announced.map(|at| milliseconds(at.saturating_sub(died_at))),
            blackout_ms_p50: answered.then_some(window.p50_ms),
            blackout_ms_max: answered.then_some(window.max_ms),
            probe_late_ms_max: window.late_ms_max,
        })
    }

    /// What the probe saw, as soon as all its flows are answered, or when its time is up.
    fn window(&mut self) -> Result<ProbeVerdict, Trouble> {
        let start = Instant::now();
        loop {
            let window = self.probe.end_window().doing("ending the probe's window")?;
            if window.alive == window.flows || start.elapsed() > ANSWERED_WITHIN {
                return Ok(window);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Now, by the clock that arrivals of packets are stamped with.
fn realtime() -> Duration {
    clock_gettime(ClockId::CLOCK_REALTIME).map_or(Duration::ZERO, Duration::from)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
