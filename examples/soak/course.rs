//! The course of a run: a pause, a fault, the way back to sync, again and again; and now and then a quiet moment.
//!
//! ```text
//!   ──pause──┤fault├──▶ in sync? ──pause──┤fault├──▶ in sync? ── … ──┤ traffic stops ├─ does a difference last? ─ swell, sweep ─ judge ─┤ …
//!     1..5 s          at most 30 s                                         7 s               3 s                     2 s   at most 30 s
//! ```

use super::board::{Board, MACHINES};
use super::chaos::interrupt::{nap, until};
use super::chaos::node::Status;
use super::chaos::verdict::{GIVE_UP, judge};
use super::chaos::{Context, Doing, Trouble, traffic};
use super::claim::Differences;
use super::faults::Urn;
use super::latency::Prober;
use super::load::{LASTING, Load};
use super::report::{Claim, FaultRow, Quiet, Standing};
use super::rig::Rig;
use super::verdict::Record;
use super::{gauge, log};
use nix::sys::signal::Signal;
use ssyncp::bridge::Sink;
use ssyncp::demo::kernel::Entry;
use ssyncp::flow::{Change, FlowKey, Zone};
use std::collections::HashSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Time without traffic before tables are compared; and what the end of all that is to end takes to arrive.
const QUIET: Duration = Duration::from_secs(7);
const SWEPT: Duration = Duration::from_secs(2);
/// Flows of a swell: those of so many seconds of load, but no more than this; and the time that it gets to arrive.
const SWELL_S: u32 = 60;
const SWELL_MAX: u32 = 100_000;
const SWELL_FIRST: u32 = 1 << 16;
const SWELLED: Duration = Duration::from_secs(20);
/// A quiet moment for each so many parts of a run, but never more often than the first, nor more rarely than the second.
const QUIETS: u32 = 20;
const QUIET_EVERY: (Duration, Duration) = (Duration::from_secs(25), Duration::from_secs(180));
/// Most samples of a machine: what is sampled and kept stays bounded, however long a run is.
const SAMPLES_MAX: u32 = 20_000;
/// After one of so many faults both kernels are read under load, and again after this time; so many differences are told.
const CLAIM_EVERY: usize = 3;
const CLAIM: Duration = Duration::from_secs(3);
const LASTING_MAX: usize = 5;
/// Time between two looks at a pair that is on its way.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a run is to be.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How long.
    pub time: Duration,
    /// What the faults are drawn from.
    pub seed: u64,
    /// Connections a second.
    pub rate: u32,
    /// Where samples and logs go.
    pub folder: PathBuf,
}

/// Runs, and says what was seen; also why it ended early, if it did.
///
/// # Errors
/// [`Trouble`], if there was nothing to be seen.
pub fn run(
    context: &Context,
    plan: &Plan,
    tell: &(dyn Fn(String) + Sync),
) -> Result<(Record, Option<Trouble>), Trouble> {
    let mut rig = Rig::build(context)?;
    let mut load = rig.load(plan.rate)?;
    rig.lab.start()?;
    load.open_lasting(0).doing("opening connections")?;
    let mut prober =
        Prober::open(rig.lab.nodes.iter().map(|node| &node.namespace)).doing("opening the way for probes")?;
    let board = Board::new();
    for machine in 0..MACHINES {
        board.lives(machine, rig.lab.nodes[machine].process().unwrap_or(0));
    }
    let every = (plan.time / SAMPLES_MAX).max(Duration::from_secs(1));
    let sockets: Vec<PathBuf> = rig.lab.nodes.iter().map(|node| node.file("sock")).collect();
    let mut record = Record::default();
    let problem = std::thread::scope(|scope| {
        let board = &board;
        for (machine, socket) in sockets.iter().enumerate() {
            scope.spawn(move || board.listen(machine, || Status::ask(socket)));
        }
        let load = scope.spawn(|| load.run(board));
        let gauge = scope.spawn(|| gauge::run(board, every, &plan.folder.join("samples.csv")));
        let probes = scope.spawn(|| prober.run(board));
        let course = Course { rig: &mut rig, board, rate: plan.rate, tell };
        let problem = course.perform(plan, &mut record).err();
        board.finish();
        let ended = |what, result: std::thread::Result<std::io::Result<()>>| match result {
            Ok(result) => result.doing(what).err(),
            Err(_) => Some(Trouble::Panicked),
        };
        let load = ended("making connections", load.join());
        let gauge = ended("sampling", gauge.join().map(|samples| samples.map(|samples| record.samples = samples)));
        let probes = ended("probing", probes.join().map(|probes| probes.map(|probes| record.probes = probes)));
        [problem, load, gauge, probes].into_iter().flatten().next()
    });
    record.begun = board.begun.load(Ordering::SeqCst);
    record.ended = board.ended.load(Ordering::SeqCst);
    for node in &rig.lab.nodes {
        let kept = log::keep(node, &plan.folder, &mut record.told);
        record.errors.extend(kept.doing("keeping a log")?);
    }
    Ok((record, problem))
}

impl Rig {
    fn load(&self, rate: u32) -> Result<Load, Trouble> {
        let streets = self.lab.nodes.iter().map(|node| traffic::Street::open(&node.street));
        let streets = streets.collect::<std::io::Result<_>>();
        Ok(Load::new(streets.doing("opening the way for connections")?, rate))
    }
}

struct Course<'a> {
    rig: &'a mut Rig,
    board: &'a Board,
    rate: u32,
    tell: &'a (dyn Fn(String) + Sync),
}

impl Course<'_> {
    fn perform(mut self, plan: &Plan, record: &mut Record) -> Result<(), Trouble> {
        let (start, mut urn) = (Instant::now(), Urn::new(plan.seed));
        let quiet_every = (plan.time / QUIETS).clamp(QUIET_EVERY.0, QUIET_EVERY.1);
        nap(Duration::from_secs(2))?;
        self.quiet(record)?;
        let mut last_quiet = Instant::now();
        let board = self.board;
        let all_live = || board.ended.load(Ordering::SeqCst) == 0;
        // A machine so slow that the first quiet moment took all the time has its fault all the same.
        while (record.faults.is_empty() || start.elapsed() + QUIET < plan.time) && all_live() {
            nap(urn.pause())?;
            let fault = urn.draw(start.elapsed() > plan.time / 2);
            record.faults.push(self.disturb(&fault)?);
            if record.faults.len() % CLAIM_EVERY == 1 {
                record.claims.extend(self.claim()?);
            }
            if last_quiet.elapsed() >= quiet_every {
                self.quiet(record)?;
                last_quiet = Instant::now();
            }
        }
        self.quiet(record)
    }

    fn disturb(&mut self, fault: &super::faults::Fault) -> Result<FaultRow, Trouble> {
        let (at_s, start) = (self.board.now_s(), Instant::now());
        self.board.disturb();
        let happened = fault.happen(self.rig, self.board);
        let (lasted_s, ended) = (start.elapsed().as_secs_f64(), Instant::now());
        let refused = happened?;
        let in_sync_s = self.back_in_sync(ended)?;
        self.board.disturb();
        let row = FaultRow {
            at_s,
            kind: fault.kind.name().into(),
            what: fault.words(),
            target: fault.target(),
            lasted_s,
            in_sync_s,
            refused,
        };
        let sync = in_sync_s.map_or("never in sync".into(), |time| format!("in sync after {time:.2} s"));
        let refused = row.refused.as_ref().map_or(String::new(), |why| format!(" (refused: {why})"));
        (self.tell)(format!("{at_s:>8.1} s  {:<22} {:<9} {lasted_s:>6.2} s  {sync}{refused}", row.what, row.target));
        Ok(row)
    }

    /// Seconds from `ended` until one is master and the other was proven equal after that moment.
    fn back_in_sync(&self, ended: Instant) -> Result<Option<f64>, Trouble> {
        while ended.elapsed() < GIVE_UP {
            let asked = Instant::now();
            let statuses: Vec<Status> = self.rig.lab.nodes.iter().filter_map(|node| node.status()).collect();
            let masters = statuses.iter().filter(|status| status.is_master()).count();
            let proven = statuses.iter().any(|status| {
                let since_s = asked.saturating_duration_since(ended).as_secs_f64();
                status.is_in_sync() && status.digest_age_s().is_some_and(|age| age <= since_s)
            });
            if masters == 1 && proven {
                return Ok(Some(ended.elapsed().as_secs_f64()));
            }
            nap(LOOK_EVERY)?;
        }
        Ok(None)
    }

    /// What differs now and in the same way some seconds later, under load; `None` if the pair did not say all the time that
    /// it was in sync, or the role moved.
    fn claim(&self) -> Result<Option<Claim>, Trouble> {
        let (at_s, start, master) = (self.board.now_s(), Instant::now(), self.board.holder());
        let nodes = &self.rig.lab.nodes;
        let (master, backup) = (&nodes[master], &nodes[MACHINES - 1 - master]);
        let claims = || {
            let (first, second) = (master.status(), backup.status());
            first.is_some_and(|status| status.is_master()) && second.is_some_and(|status| status.is_in_sync())
        };
        let before = Differences::between(&master.flows()?, &backup.flows()?);
        while start.elapsed() < CLAIM {
            if !claims() {
                return Ok(None);
            }
            nap(LOOK_EVERY)?;
        }
        let after = Differences::between(&master.flows()?, &backup.flows()?);
        let mut lasting = after.lasting_since(&before);
        if !claims() {
            return Ok(None);
        }
        lasting.truncate(LASTING_MAX);
        lasting.iter().for_each(|difference| (self.tell)(format!("            lasts: {difference}")));
        Ok(Some(Claim { at_s, lasting }))
    }

    /// Stops the traffic, and compares: first all entries, of which some end meanwhile, then those that last.
    fn quiet(&mut self, record: &mut Record) -> Result<(), Trouble> {
        self.board.disturb();
        self.board.pause(true);
        nap(QUIET)?;
        record.claims.extend(self.claim()?);
        let at_s = self.board.now_s();
        let tracked = self.rig.lab.nodes[self.board.holder()].count()?;
        self.swell()?;
        self.sweep()?;
        nap(SWEPT)?;
        let verdict = judge(&self.rig.lab, Instant::now())?;
        let digests_equal = self.digests_become_equal()?;
        let lasting_missing = self.lasting_missing()?;
        let standings = (0..MACHINES).map(|machine| self.standing(machine)).collect();
        self.board.pause(false);
        self.board.disturb();
        let quiet = Quiet {
            at_s,
            tracked,
            entries: verdict.entries,
            missing: verdict.difference.missing,
            extra: verdict.difference.extra,
            stale: verdict.difference.stale,
            examples: verdict.difference.examples,
            lasting_missing,
            in_sync_s: verdict.in_sync_s,
            equal_s: verdict.equal_s,
            digests_equal,
            said: verdict.said,
            standings,
        };
        (self.tell)(format!(
            "{at_s:>8.1} s  quiet: {tracked} entries, then {}: {} different, digests {}, {} lasting ones missing{}",
            quiet.entries,
            quiet.different(),
            if digests_equal { "equal" } else { "UNEQUAL" },
            quiet.lasting_missing,
            quiet.standings.iter().zip(["a", "b"]).fold(String::new(), |words, (it, letter)| match it {
                Some(it) => format!(
                    "{words}; {letter}: {:.1} MiB, {} descriptors, {} threads",
                    it.memory_kib as f64 / 1024.0,
                    it.descriptors,
                    it.threads
                ),
                None => format!("{words}; {letter}: dead"),
            })
        ));
        quiet.examples.iter().for_each(|example| (self.tell)(format!("            {example}")));
        record.quiets.push(quiet);
        Ok(())
    }

    fn digests_become_equal(&self) -> Result<bool, Trouble> {
        let start = Instant::now();
        while start.elapsed() < GIVE_UP {
            let digest = |machine: usize| Some(self.rig.lab.nodes[machine].status()?.value()["digest"].clone());
            let digests = (digest(0), digest(1));
            if digests.0.is_some_and(|digest| digest.is_string() && Some(digest) == digests.1) {
                return Ok(true);
            }
            nap(LOOK_EVERY)?;
        }
        Ok(false)
    }

    fn lasting_missing(&self) -> Result<u64, Trouble> {
        let mut missing = 0;
        for node in &self.rig.lab.nodes {
            let name = |entry: &Entry| (entry.original.source, entry.original.source_port, entry.original.protocol);
            let held: HashSet<_> = node.flows()?.iter().map(name).collect();
            let lasting = (0..LASTING).map(traffic::client).map(|(address, port)| (IpAddr::V4(address), port, 6));
            missing += lasting.filter(|name| !held.contains(name)).count() as u64;
        }
        Ok(missing)
    }

    /// Fills both tables as high as they ever are, the same each time: memory that is used for the first time later on is then
    /// no table's.
    fn swell(&self) -> Result<(), Trouble> {
        let (master, nodes) = (self.board.holder(), &self.rig.lab.nodes);
        let flows = (self.rate * SWELL_S).min(SWELL_MAX);
        traffic::write(&nodes[master], SWELL_FIRST..SWELL_FIRST + flows)?;
        let arrived = || nodes[MACHINES - 1 - master].count().is_ok_and(|count| count >= u64::from(flows));
        match until("a swell has arrived", SWELLED, arrived) {
            // What does not come the judge will see.
            Ok(_) | Err(Trouble::Never { .. }) => Ok(()),
            Err(other) => Err(other),
        }
    }

    /// Ends everything in the master's kernel but the connections that last. A takeover gives every entry its grace and the
    /// margin of its copy (docs/protocol.md 4.6), and here roles move more often than that: what has ended would stay.
    fn sweep(&self) -> Result<(), Trouble> {
        let master = &self.rig.lab.nodes[self.board.holder()];
        let lasting: HashSet<_> = (0..LASTING).map(traffic::client).collect();
        let lasts = |entry: &Entry| match entry.original.source {
            IpAddr::V4(address) => lasting.contains(&(address, entry.original.source_port)),
            IpAddr::V6(_) => false,
        };
        let ended = master.flows()?.into_iter().filter(|entry| !lasts(entry));
        let sweep = || {
            let mut sink = traffic::open_sink(&master.namespace)?;
            for Entry { original, .. } in ended {
                sink.apply(&Change::Delete(FlowKey {
                    source: original.source,
                    destination: original.destination,
                    source_port: original.source_port,
                    destination_port: original.destination_port,
                    protocol: original.protocol,
                    zone: Zone::DEFAULT,
                }))?;
            }
            sink.flush().map(drop)
        };
        sweep().doing("ending what has ended")
    }

    fn standing(&self, machine: usize) -> Option<Standing> {
        let (life, process) = self.board.life(machine);
        let (descriptors, threads, memory_kib) = gauge::at_rest(process)?;
        Some(Standing { life, descriptors, threads, memory_kib })
    }
}

impl Drop for Course<'_> {
    fn drop(&mut self) {
        // Whoever is stopped does not answer, and the listener waits for the answer.
        for node in &self.rig.lab.nodes {
            let _ = node.tell(Signal::SIGCONT);
        }
    }
}
