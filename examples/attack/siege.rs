//! One attack after the other on a pair of real daemons, and what came of each.
//!
//! ```text
//!   start as another group ─▶ record ─▶ start as this group ─▶ record ─▶ start both anew ─▶ record     the archive
//!
//!   for each attack:  look ─▶ honest traffic ───────────────────────────────▶ settle ─▶ look, compare with the truth
//!                             └ hostile frames, counted or for a time ┘
//! ```

use super::chaos::interrupt::{interrupted, nap, until};
use super::chaos::lab::{Lab, Plan};
use super::chaos::traffic as flows;
use super::chaos::{Context, Trouble};
use super::forger::Forger;
use super::honest::{Delay, Traffic};
use super::hostile::{Hostile, Wiretap};
use super::kinds::{Kinds, Pace, SYNC_ID};
use super::report::{Attack, rounded};
use super::victims::{Happened, Sight, Truth, events};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Flows in both kernels before anything happens.
pub const FLOWS: u32 = 4000;
/// The secret's file: number 1, 32 bytes.
const SECRET_FILE: &str = "1 8f3c1d5e7a902b46c8d1e0f3a5b7798642135fdebc0a987612345678deadbeef\n";
/// Sync id of the other group whose frames are recorded.
const OTHER_GROUP: u8 = 52;
/// Frames of a batch where none may get lost on the way, and the pause after it.
const COUNTED_BATCH: u64 = 64;
const COUNTED_PAUSE: Duration = Duration::from_millis(3);
/// Batches of a flood that are sent before its frames are made anew.
const SAME_BATCH: u32 = 128;
/// Time that honest traffic runs before hostile frames come, so that there is something to overhear.
const HEAD_START: Duration = Duration::from_millis(300);
/// Time for a recording.
const RECORDING: Duration = Duration::from_secs(1);
/// Time that a pair gets to be as it was.
const SETTLED_WITHIN: Duration = Duration::from_secs(15);
/// Events by which a peer is lost or proven anew.
const PEERS: [&str; 3] = ["PeerDown", "PeerLeft", "PeerUp"];

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    /// Frames of each attack that is counted.
    pub packets: u64,
    /// How long a flood lasts.
    pub time: Duration,
    /// Whether the pair has a secret.
    pub secret: bool,
}

/// A pair under attack.
pub struct Siege {
    lab: Lab,
    hostile: Hostile,
    forger: Forger,
    traffic: Traffic,
    truth: Truth,
    measure: Measure,
    context: Context,
    /// Processor time of both daemons in a second of honest traffic alone.
    idle: f64,
    /// Octets that both send in a second of it.
    chatter: f64,
    recorded: Instant,
}

impl Siege {
    /// Builds a pair, records what is needed, and brings it to rest.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn lay(context: &Context, measure: Measure) -> Result<Self, Trouble> {
        let mut siege = Self::build(context, measure)?;
        let recorded = Instant::now();
        for (sync_id, which) in [(OTHER_GROUP, 0), (SYNC_ID, 1), (SYNC_ID, 2)] {
            for node in &mut siege.lab.nodes {
                node.kill()?;
                let text = node.configuration()?;
                let line = |id: u8| format!("sync_id = {id}\n");
                node.configure(
                    &text.replace(&line(OTHER_GROUP), &line(sync_id)).replace(&line(SYNC_ID), &line(sync_id)),
                )?;
            }
            siege.start()?;
            // What the nodes said before they were started anew has waited until now.
            step("listening", siege.forger.tap.listen())?;
            siege.forger.tap.forget();
            siege.honest(RECORDING)?;
            step("listening", siege.forger.tap.listen())?;
            let frames = siege.forger.tap.take();
            let archive = &mut siege.forger.archive;
            *[&mut archive.other_group, &mut archive.before_restart, &mut archive.early][which] = frames;
        }
        siege.recorded = recorded;
        siege.rest()?;
        Ok(siege)
    }

    fn build(context: &Context, measure: Measure) -> Result<Self, Trouble> {
        let lab = Lab::build(&Plan::new(context))?;
        for node in lab.nodes.iter().filter(|_| measure.secret) {
            let file = node.file("secret");
            let written = fs::write(&file, SECRET_FILE)
                .and_then(|()| fs::set_permissions(&file, fs::Permissions::from_mode(0o600)));
            step("writing a secret", written)?;
            let setting = format!("secret_file = {:?}\n\n[control]", file.display().to_string());
            node.configure(&node.configuration()?.replacen("[control]", &setting, 1))?;
        }
        let stranger = lab.stranger(9)?;
        let hostile = step("opening a raw socket", Hostile::open(&stranger))?;
        let tap = step("opening a packet socket", Wiretap::open(&stranger))?;
        let forger = Forger::new(tap, measure.secret).ok_or(Trouble::Panicked)?;
        let traffic = step("opening the way for flows", Traffic::open(&lab))?;
        flows::write(&lab.nodes[0], 0..FLOWS)?;
        let (context, truth, recorded) = (context.clone(), Truth::default(), Instant::now());
        Ok(Siege { lab, hostile, forger, traffic, truth, measure, context, idle: 0.0, chatter: 0.0, recorded })
    }

    /// A new pair in the place of one that is broken; the recordings stay.
    fn rebuild(&mut self) -> Result<(), Trouble> {
        let archive = std::mem::take(&mut self.forger.archive);
        let (idle, chatter, recorded) = (self.idle, self.chatter, self.recorded);
        for node in &mut self.lab.nodes {
            node.kill()?;
        }
        *self = Self::build(&self.context.clone(), self.measure)?;
        (self.forger.archive, self.idle, self.chatter, self.recorded) = (archive, idle, chatter, recorded);
        self.start()?;
        self.rest()
    }

    fn start(&mut self) -> Result<(), Trouble> {
        self.lab.start()?;
        let log = fs::read_to_string(self.lab.nodes[0].file("log")).unwrap_or_default();
        match events(&log).contains_key("RoleChanged") {
            true => Ok(()),
            // All that is counted by events would be 0 for ever.
            false => Err(Trouble::Never { what: "a log tells of a change of roles".into(), patience: Duration::ZERO }),
        }
    }

    /// Waits until the pair is at rest, and takes what its kernels hold for the truth.
    fn rest(&mut self) -> Result<(), Trouble> {
        until("the pair is at rest", SETTLED_WITHIN, || self.is_well())?;
        self.truth = Truth::of(&self.lab)?;
        until("both tables hold what the kernels hold", SETTLED_WITHIN, || {
            self.truth.tables_agree(&self.lab, 0..self.traffic.made())
        })
        .map(drop)
    }

    fn is_well(&self) -> bool {
        let status = |index: usize| self.lab.nodes[index].status();
        status(0).is_some_and(|it| it.is_master()) && status(1).is_some_and(|it| it.is_in_sync())
    }

    /// Seconds since the first frame was recorded.
    pub fn recorded_s(&self) -> f64 {
        self.recorded.elapsed().as_secs_f64()
    }

    /// Honest traffic alone.
    fn honest(&mut self, time: Duration) -> Result<Delay, Trouble> {
        let stop = AtomicBool::new(false);
        let traffic = &mut self.traffic;
        let delay = std::thread::scope(|scope| {
            let run = scope.spawn(|| traffic.run(&stop));
            let napped = nap(time);
            stop.store(true, Ordering::Relaxed);
            let ran = run.join().map_err(|_| Trouble::Panicked)?;
            napped.and(step("making honest traffic", ran))
        })?;
        Ok(delay.0)
    }

    /// Honest traffic alone, measured: what everything else is compared with.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn quiet(&mut self) -> Result<Delay, Trouble> {
        let before: Vec<Sight> = self.lab.nodes.iter().map(Sight::of).collect();
        let (start, octets) = (Instant::now(), self.octets()?);
        let delay = self.honest(self.measure.time)?;
        let spent: Duration = self.lab.nodes.iter().zip(&before).map(|(node, sight)| sight.since(node).cpu).sum();
        self.idle = spent.as_secs_f64() / start.elapsed().as_secs_f64();
        self.chatter = (self.octets()? - octets) as f64 / start.elapsed().as_secs_f64();
        Ok(delay)
    }

    /// Octets that both nodes have sent on the sync link.
    fn octets(&self) -> Result<u64, Trouble> {
        self.lab.nodes.iter().map(super::chaos::node::Node::octets_sent).sum()
    }

    /// One attack.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn attack(&mut self, kind: &Kinds) -> Result<Attack, Trouble> {
        if !self.settled() || self.truth.changed(&self.lab, 0..self.traffic.made())? > 0 {
            self.rebuild()?;
        }
        if kind.pace == Pace::KillMaster {
            return self.kill_master(kind);
        }
        let before: Vec<Sight> = self.lab.nodes.iter().map(Sight::of).collect();
        let (start, octets) = (Instant::now(), self.octets()?);
        let assault = self.assault(kind)?;
        let well = until("the pair is as it was", SETTLED_WITHIN, || self.settled());
        let well = match well {
            Err(Trouble::Interrupted) => return Err(Trouble::Interrupted),
            other => other.is_ok(),
        };
        let seconds = start.elapsed().as_secs_f64();
        let happened: Vec<Happened> =
            self.lab.nodes.iter().zip(&before).map(|(node, sight)| sight.since(node)).collect();
        let answered = (self.octets()? - octets) as f64 - self.chatter * seconds;
        let made = 0..self.traffic.made();
        let mut changed = self.truth.changed(&self.lab, made.clone())?;
        changed += u64::from(!self.truth.tables_agree(&self.lab, made));
        if kind.pace != Pace::FloodAndRestart {
            changed = changed.max(assault.others);
        }
        let attack = self.judge(kind, &assault, &happened, changed, seconds);
        Ok(Attack {
            answer_per_byte: rounded(answered.max(0.0) / assault.octets.max(1) as f64),
            recovered: well,
            ..attack
        })
    }

    /// How long a takeover takes while frames are sent.
    fn kill_master(&mut self, kind: &Kinds) -> Result<Attack, Trouble> {
        let Siege { lab, hostile, forger, .. } = self;
        lab.nodes[0].kill()?;
        let start = Instant::now();
        let is_master = || lab.nodes[1].status().is_some_and(|status| status.is_master());
        let mut sent = 0;
        while !is_master() && start.elapsed() < SETTLED_WITHIN {
            sent += counted(hostile, forger, kind, COUNTED_BATCH)?;
        }
        let took = start.elapsed();
        let taken = took < SETTLED_WITHIN;
        Ok(Attack {
            name: kind.name.into(),
            what: kind.what.into(),
            sent,
            packets_per_s: (sent as f64 / took.as_secs_f64()).round(),
            takeover_s: taken.then(|| rounded(took.as_secs_f64())),
            recovered: taken,
            ..Attack::default()
        })
    }

    fn settled(&self) -> bool {
        self.is_well() && self.truth.tables_agree(&self.lab, 0..self.traffic.made())
    }

    fn judge(&self, kind: &Kinds, assault: &Assault, happened: &[Happened], changed: u64, seconds: f64) -> Attack {
        // A node that is killed and started is lost and found once, changes its own role, and is filled once.
        let by_restart = u64::from(kind.pace == Pace::FloodAndRestart);
        let sum = |names: &[&str]| happened.iter().map(|it| it.count(names)).sum::<u64>();
        let (roles, peers) = match by_restart {
            0 => (sum(&["RoleChanged"]), sum(&PEERS)),
            _ => (happened[0].count(&["RoleChanged"]), happened[0].count(&["PeerUp"]).saturating_sub(1)),
        };
        let mut refused = std::collections::BTreeMap::new();
        for (reason, count) in happened.iter().flat_map(|it| &it.refused) {
            *refused.entry(reason.clone()).or_insert(0) += count;
        }
        let dropped: u64 = happened.iter().map(|it| it.dropped).sum();
        let delivered = (2 * assault.sent).saturating_sub(dropped);
        let spent: f64 = happened.iter().map(|it| it.cpu.as_secs_f64()).sum::<f64>() - self.idle * seconds;
        let measurable = kind.pace == Pace::Flood && delivered > 100_000;
        Attack {
            name: kind.name.into(),
            what: kind.what.into(),
            sent: assault.sent,
            packets_per_s: (assault.sent as f64 / assault.seconds.max(0.001)).round(),
            refused,
            dropped_by_kernel: dropped,
            changed,
            role_changes: roles,
            peer_resets: peers,
            resyncs_caused: sum(&["SyncStarted"]).saturating_sub(by_restart),
            cpu_s_per_million: measurable.then(|| rounded(spent.max(0.0) * 1e6 / delivered as f64)),
            delay: assault.delay.clone(),
            restart_in_sync_s: assault.back.map(|it| rounded(it.as_secs_f64())),
            ..Attack::default()
        }
    }

    /// Sends the frames while honest traffic runs.
    fn assault(&mut self, kind: &Kinds) -> Result<Assault, Trouble> {
        let Siege { lab, hostile, forger, traffic, measure, .. } = self;
        let before = hostile.octets();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let honest = scope.spawn(|| traffic.run(&stop));
            let done = nap(HEAD_START).and_then(|()| {
                let start = Instant::now();
                let (sent, back) = match kind.pace {
                    Pace::Counted | Pace::KillMaster => (counted(hostile, forger, kind, measure.packets)?, None),
                    Pace::Flood => (flood(hostile, forger, kind, || start.elapsed() >= measure.time)?, None),
                    Pace::FloodAndRestart => restart_under_flood(lab, hostile, forger, kind, measure.time)?,
                };
                Ok((sent, back, start.elapsed().as_secs_f64()))
            });
            stop.store(true, Ordering::Relaxed);
            let honest = honest.join().map_err(|_| Trouble::Panicked)?;
            let (sent, back, seconds) = done?;
            let (delay, others) = step("making honest traffic", honest)?;
            Ok(Assault { sent, octets: hostile.octets() - before, seconds, delay, others, back })
        })
    }
}

/// What was sent, and what honest traffic felt of it.
struct Assault {
    sent: u64,
    octets: u64,
    seconds: f64,
    delay: Delay,
    /// Entries that came to the backup's kernel or went, and are none of the traffic's.
    others: u64,
    back: Option<Duration>,
}

fn step<T>(doing: &'static str, result: io::Result<T>) -> Result<T, Trouble> {
    result.map_err(|source| if interrupted() { Trouble::Interrupted } else { Trouble::Step { doing, source } })
}

/// Fills the batch with at most `most` frames; says whether there are any.
fn fill(hostile: &mut Hostile, forger: &mut Forger, kind: &Kinds, most: u64) -> bool {
    hostile.clear();
    for _ in 0..most.min(1024) {
        let source = kind.source(forger.number);
        let put = hostile.put(|slot| ((kind.make)(forger, slot), source));
        forger.number += 1;
        if !put {
            break;
        }
    }
    hostile.waiting() > 0
}

/// So many frames, at a rate at which none is lost.
fn counted(hostile: &mut Hostile, forger: &mut Forger, kind: &Kinds, packets: u64) -> Result<u64, Trouble> {
    let (mut sent, mut rounds) = (0, 0);
    forger.number = 0;
    // A kind of which no frame can be made sends none.
    while sent < packets && rounds <= 2 * packets.div_ceil(COUNTED_BATCH) {
        step("listening", forger.tap.listen())?;
        if fill(hostile, forger, kind, COUNTED_BATCH.min(packets - sent)) {
            sent += step("sending", hostile.send())?;
        }
        rounds += 1;
        nap(COUNTED_PAUSE)?;
    }
    Ok(sent)
}

/// As many as the machine can send, until it is enough.
fn flood(hostile: &mut Hostile, forger: &mut Forger, kind: &Kinds, enough: impl Fn() -> bool) -> Result<u64, Trouble> {
    let mut sent = 0;
    forger.number = 0;
    while !enough() {
        step("listening", forger.tap.listen())?;
        fill(hostile, forger, kind, u64::MAX);
        for _ in 0..SAME_BATCH {
            if enough() || interrupted() {
                break;
            }
            sent += step("sending", hostile.send())?;
        }
    }
    Ok(sent)
}

/// A flood in which the backup's daemon is killed and started; also tells how long it took until that was in sync again.
fn restart_under_flood(
    lab: &mut Lab,
    hostile: &mut Hostile,
    forger: &mut Forger,
    kind: &Kinds,
    time: Duration,
) -> Result<(u64, Option<Duration>), Trouble> {
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| flood(hostile, forger, kind, || enough.load(Ordering::Relaxed)));
        let restarted = nap(time / 4).and_then(|()| {
            // In this thread: a daemon dies with the thread that has started it.
            lab.nodes[1].kill()?;
            lab.nodes[1].start()?;
            let in_sync = || lab.nodes[1].status().is_some_and(|status| status.is_in_sync());
            match until("the backup is in sync again", SETTLED_WITHIN, in_sync) {
                Err(Trouble::Never { .. }) => Ok(None),
                other => other.map(Some),
            }
        });
        enough.store(true, Ordering::Relaxed);
        let sent = sender.join().map_err(|_| Trouble::Panicked)??;
        Ok((sent, restarted?))
    })
}
