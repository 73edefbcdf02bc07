//! Figures: how fresh the proof is under load, and what a cold resync costs under loss.

use super::interrupt::{nap, until};
use super::lab::{Lab, Plan};
use super::probe::{self, Place};
use super::traffic::{self, Means, Traffic};
use super::verdict::judge;
use super::{Context, Doing, Trouble};
use serde::Serialize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Longest time of a resync.
const RESYNC_PATIENCE: Duration = Duration::from_secs(120);
/// Settings of a table of 500,000 flows.
const LARGE: &str = "capacity = 1048576";
/// Numbers of the probes: beyond every other flow.
const PROBES_IN_KERNEL: u32 = 0x70_0000;
const PROBES_IN_TABLE: u32 = 0x78_0000;

/// The proof under load.
#[derive(Debug, Clone, Default, Serialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Proof {
    /// Changes in a second, as reached: half of them begin flows, half end them. Made by netlink.
    pub changes_per_s: f64,
    /// Seconds from the start of a cold backup, under this load, until it was in sync.
    pub in_sync_s: f64,
    /// Samples of the following 20 s, every 20 ms.
    pub samples: usize,
    /// Share of them that said `in_sync`.
    pub in_sync_share: f64,
    /// Milliseconds since the digest was last seen equal to the master's: median of the samples.
    pub digest_age_ms_p50: f64,
    /// The same, 99th percentile.
    pub digest_age_ms_p99: f64,
    /// The same, the oldest.
    pub digest_age_ms_max: f64,
}

/// A cold resync.
#[derive(Debug, Clone, Default, Serialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Resync {
    /// Per cent of the packets that get lost, in each direction.
    pub loss_percent: u32,
    /// Flows in the master's kernel when the backup starts with nothing.
    pub flows: u32,
    /// Seconds from the start of the backup's daemon until its table was proven equal.
    pub in_sync_s: f64,
    /// Seconds until its kernel had as many entries.
    pub kernel_s: f64,
    /// Flows that its kernel lacked or had too many or with other values at the end, probes included.
    pub different: u64,
    /// Octets on the wire in both directions until in sync, Ethernet headers included, for each flow.
    pub octets_per_flow: f64,
    /// Flows made meanwhile, and timed until the backup's kernel had them: how many.
    pub probes_in_kernel: usize,
    /// The longest of these times in milliseconds; null if there was none.
    pub kernel_delay_ms_max: Option<f64>,
    /// Flows made meanwhile, and timed until the backup's table had them: how many.
    pub probes_in_table: usize,
    /// The longest of these times in milliseconds, the question at the control socket included; null if there was none.
    pub table_delay_ms_max: Option<f64>,
    /// All flows arrived, with equal values.
    pub passed: bool,
}

/// Measures the age of the proof under 20,000 changes a second.
///
/// # Errors
/// [`Trouble`].
pub fn proof(context: &Context) -> Result<Proof, Trouble> {
    let (rate, time) = context.scale((10_000, 20), (2_000, 3));
    let mut lab = Lab::build(&Plan::new(context))?;
    lab.nodes[0].start()?;
    lab.nodes[0].until("master", super::node::Status::is_master)?;
    let traffic = Traffic::new(Means::Netlink, 0, u32::MAX, rate).ending(4, rate * 2);
    let (place, stop) = (traffic.place(&lab.nodes[0])?, AtomicBool::new(false));
    std::thread::scope(|scope| {
        let load = scope.spawn(|| traffic.run(place, &stop));
        let sampled = sample(&mut lab, time);
        stop.store(true, Ordering::Relaxed);
        let tally = load.join().unwrap_or(Err(Trouble::Panicked))?;
        sampled.map(|proof| Proof { changes_per_s: tally.changes_per_s().round(), ..proof })
    })
}

fn sample(lab: &mut Lab, time: Duration) -> Result<Proof, Trouble> {
    nap(Duration::from_secs(3))?;
    let start = Instant::now();
    lab.nodes[1].start()?;
    lab.nodes[1].until("in sync under load", super::node::Status::is_in_sync)?;
    let in_sync_s = start.elapsed().as_secs_f64();
    let (mut ages, mut samples, mut in_sync, start) = (Vec::new(), 0, 0, Instant::now());
    while start.elapsed() < time {
        if let Some(status) = lab.nodes[1].status() {
            samples += 1;
            in_sync += usize::from(status.is_in_sync());
            ages.extend(status.digest_age_s().map(|age| age * 1e3));
        }
        nap(Duration::from_millis(20))?;
    }
    ages.sort_by(f64::total_cmp);
    let at = |share: f64| ages.get((ages.len() as f64 * share) as usize).or(ages.last()).copied().unwrap_or(0.0);
    Ok(Proof {
        in_sync_s,
        samples,
        in_sync_share: in_sync as f64 / samples.max(1) as f64,
        digest_age_ms_p50: at(0.5),
        digest_age_ms_p99: at(0.99),
        digest_age_ms_max: at(1.0),
        ..Proof::default()
    })
}

/// Measures a cold resync under so much loss in both directions.
///
/// # Errors
/// [`Trouble`].
pub fn resync(context: &Context, loss_percent: u32) -> Result<Resync, Trouble> {
    let flows = if context.quick { 20_000 } else { 500_000 };
    let mut lab = Lab::build(&Plan::new(context).with(LARGE))?;
    traffic::write(&lab.nodes[0], 0..flows)?;
    lab.nodes[0].start()?;
    lab.nodes[0].until("master of all flows", |it| it.is_master() && it.entries() >= u64::from(flows))?;
    lab.lose_everywhere(loss_percent * 10)?;
    let octets = |lab: &Lab| Ok::<u64, Trouble>(lab.nodes[0].octets_sent()? + lab.nodes[1].octets_sent()?);
    let before = octets(&lab)?;
    let start = Instant::now();
    lab.nodes[1].start()?;
    let stop = AtomicBool::new(false);
    let measured = std::thread::scope(|scope| {
        let (lab, stop) = (&lab, &stop);
        let send = move |place, first| probe::run(&lab.nodes[0].namespace, &lab.nodes[1], place, first, stop);
        let result = (|| {
            until("the backup has a first flow", RESYNC_PATIENCE, || {
                lab.nodes[1].status().is_some_and(|status| status.entries() > 0)
            })?;
            let in_kernel = scope.spawn(move || send(Place::Kernel, PROBES_IN_KERNEL));
            let in_table = scope.spawn(move || send(Place::Table, PROBES_IN_TABLE));
            let seen = until("the backup is in sync", RESYNC_PATIENCE, || {
                lab.nodes[1].status().is_some_and(|it| it.is_in_sync() && it.entries() >= u64::from(flows))
            });
            let (in_sync_s, after) = (start.elapsed().as_secs_f64(), octets(lab));
            let filled = until("the backup's kernel is as full", RESYNC_PATIENCE, || {
                lab.nodes[1].count().is_ok_and(|count| count >= u64::from(flows))
            });
            let kernel_s = start.elapsed().as_secs_f64();
            stop.store(true, Ordering::Relaxed);
            let delays = |thread: std::thread::ScopedJoinHandle<'_, std::io::Result<Vec<f64>>>| {
                let delays = thread.join().map_err(|_| Trouble::Panicked)?;
                delays.doing("probing")
            };
            let (in_kernel, in_table) = (delays(in_kernel)?, delays(in_table)?);
            seen.and(filled)?;
            Ok(Resync {
                loss_percent,
                flows,
                in_sync_s,
                kernel_s,
                octets_per_flow: (after? - before) as f64 / f64::from(flows),
                probes_in_kernel: in_kernel.len(),
                kernel_delay_ms_max: in_kernel.into_iter().max_by(f64::total_cmp),
                probes_in_table: in_table.len(),
                table_delay_ms_max: in_table.into_iter().max_by(f64::total_cmp),
                ..Resync::default()
            })
        })();
        stop.store(true, Ordering::Relaxed);
        result
    })?;
    lab.lose_everywhere(0)?;
    let verdict = judge(&lab, Instant::now())?;
    let difference = verdict.difference;
    let different = difference.missing + difference.extra + difference.stale;
    Ok(Resync { different, passed: different == 0 && verdict.equal_s.is_some(), ..measured })
}

impl Proof {
    /// In words.
    pub fn line(&self) -> String {
        format!(
            "proof under {:.0} changes/s: in sync after {:.2} s; age of the last matching digest p50 {:.0} ms, p99 {:.0} ms, \
             max {:.0} ms ({} samples, {:.1} % in sync)",
            self.changes_per_s,
            self.in_sync_s,
            self.digest_age_ms_p50,
            self.digest_age_ms_p99,
            self.digest_age_ms_max,
            self.samples,
            self.in_sync_share * 100.0
        )
    }
}

impl Resync {
    /// In words.
    pub fn line(&self) -> String {
        let delay = |count: usize, worst: Option<f64>| match worst {
            Some(worst) => format!("{worst:.0} ms of {count}"),
            None => "no probe".to_owned(),
        };
        format!(
            "resync of {} at {} % loss: {}, table {:.2} s, kernel {:.2} s, {:.1} octets a flow, {} different; longest delay of a \
             live change: table {}, kernel {}",
            self.flows,
            self.loss_percent,
            if self.passed { "complete" } else { "FAILED" },
            self.in_sync_s,
            self.kernel_s,
            self.octets_per_flow,
            self.different,
            delay(self.probes_in_table, self.table_delay_ms_max),
            delay(self.probes_in_kernel, self.kernel_delay_ms_max),
        )
    }
}
