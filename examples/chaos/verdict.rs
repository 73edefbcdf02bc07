//! Are the kernels equal, and since when?
//!
//! The judge reads what the kernels really hold, by a reader of its own (`ssyncp::demo::kernel`: raw dumps of ctnetlink, no
//! code of the bridge, no digest of the engine), and compares key and value:
//!
//! - compared: both tuples with their zones, protocol state, mark, and of the status SEEN_REPLY, ASSURED, SRC_NAT, DST_NAT;
//! - left out, because it rightly differs: time-outs (every packet changes them), counters and timestamps (they stay with
//!   each kernel), the status bits of the kernel's own progress (CONFIRMED, the two NAT_DONE, HELPER, OFFLOAD), TCP's
//!   window scales and flags of tracking, and the entry's number in its kernel.
//!
//! ```text
//!   the fault's end ──────── LIMIT 3 s ────────┬──────────── GIVE_UP 30 s
//!        └ looks: one master, all others in    │ still unequal here: what differs now is the verdict,
//!          sync, as many entries; then content └ and whether it ever becomes equal is told beside
//! ```

use super::Trouble;
use super::interrupt::nap;
use super::lab::Lab;
use ssyncp::demo::kernel::{self, Difference};
use std::time::{Duration, Instant};

/// Within this time of the fault's end everything must be equal.
pub const LIMIT: Duration = Duration::from_secs(3);
/// After this time nobody waits any more.
pub const GIVE_UP: Duration = Duration::from_secs(30);
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// Flows in the master's kernel.
    pub entries: u64,
    /// Entries that its kernel counts at the end.
    pub held: u64,
    /// How the others differ from it, together: when all was equal, or else at the limit.
    pub difference: Difference,
    /// Seconds from the fault's end until every daemon said that it is master or in sync.
    pub in_sync_s: Option<f64>,
    /// Seconds from the fault's end until the kernels were read and found equal.
    pub equal_s: Option<f64>,
    /// What the daemons say at the end, a word for each.
    pub said: Vec<String>,
}

impl Verdict {
    /// Whether everything was equal in time, and known to be.
    pub fn is_good(&self) -> bool {
        let in_time = |seconds: Option<f64>| seconds.is_some_and(|seconds| seconds <= LIMIT.as_secs_f64());
        in_time(self.in_sync_s) && in_time(self.equal_s) && self.difference == Difference::default()
    }
}

/// Waits until all is equal, or for the limit and longer; `returned` is when the fault ended and traffic stopped.
///
/// # Errors
/// [`Trouble`].
pub fn judge(lab: &Lab, returned: Instant) -> Result<Verdict, Trouble> {
    let mut verdict = Verdict::default();
    let mut late = None;
    loop {
        let statuses: Vec<_> = lab.nodes.iter().map(super::node::Node::status).collect();
        verdict.said = statuses.iter().map(|it| it.as_ref().map_or("silent".into(), |it| it.words())).collect();
        let masters: Vec<usize> =
            (0..statuses.len()).filter(|at| statuses[*at].as_ref().is_some_and(|it| it.is_master())).collect();
        let in_sync = statuses.iter().flatten().filter(|it| it.is_in_sync()).count();
        let master = masters.first().copied().unwrap_or(0);
        let settled = masters.len() == 1 && in_sync + 1 == lab.nodes.len();
        if settled && verdict.in_sync_s.is_none() {
            verdict.in_sync_s = Some(returned.elapsed().as_secs_f64());
        } else if !settled {
            verdict.in_sync_s = None;
        }
        if settled && equal_counts(lab)? {
            let (entries, difference, read) = compare(lab, master)?;
            if difference == Difference::default() {
                verdict.entries = entries;
                verdict.equal_s = Some(read.duration_since(returned).as_secs_f64());
                verdict.held = lab.nodes[master].count()?;
                verdict.difference = late.unwrap_or_default();
                return Ok(verdict);
            }
        }
        if late.is_none() && returned.elapsed() > LIMIT {
            let (entries, difference, _) = compare(lab, master)?;
            verdict.entries = entries;
            late = Some(difference);
        }
        if returned.elapsed() > GIVE_UP {
            verdict.held = lab.nodes[master].count()?;
            verdict.difference = late.unwrap_or_default();
            return Ok(verdict);
        }
        nap(LOOK_EVERY)?;
    }
}

/// The same of kernels whose daemons say nothing of roles: the first is the master, and nothing is asked of anybody.
///
/// # Errors
/// [`Trouble`].
pub fn judge_kernels(lab: &Lab, returned: Instant) -> Result<Verdict, Trouble> {
    let mut late = None;
    loop {
        let (entries, difference, read) = compare(lab, 0)?;
        if difference == Difference::default() {
            let equal_s = Some(read.duration_since(returned).as_secs_f64());
            let (held, difference) = (lab.nodes[0].count()?, late.unwrap_or_default());
            return Ok(Verdict { entries, held, equal_s, difference, ..Verdict::default() });
        }
        if returned.elapsed() > LIMIT {
            late.get_or_insert(difference);
        }
        if returned.elapsed() > GIVE_UP {
            let (held, difference) = (lab.nodes[0].count()?, late.unwrap_or_default());
            return Ok(Verdict { entries, held, difference, ..Verdict::default() });
        }
        nap(Duration::from_millis(500))?;
    }
}

fn equal_counts(lab: &Lab) -> Result<bool, Trouble> {
    let counts: Vec<u64> = lab.nodes.iter().map(super::node::Node::count).collect::<Result<_, _>>()?;
    // A kernel also counts what is no flow of ours, and what is dying.
    let (least, most) = (counts.iter().min().copied().unwrap_or(0), counts.iter().max().copied().unwrap_or(0));
    Ok(most - least <= 16)
}

/// How the kernels differ from that of `master`, and when the reading of the last of them began: how long the judge takes to
/// read is no merit or fault of what it judges.
fn compare(lab: &Lab, master: usize) -> Result<(u64, Difference, Instant), Trouble> {
    let flows = lab.nodes[master].flows()?;
    let mut sum = Difference::default();
    let mut read = Instant::now();
    for (_, node) in lab.nodes.iter().enumerate().filter(|(at, _)| *at != master) {
        read = Instant::now();
        let copy = node.flows()?;
        let difference = kernel::compare(&flows, &copy);
        sum.missing += difference.missing;
        sum.extra += difference.extra;
        sum.stale += difference.stale;
        sum.examples.extend(difference.examples);
    }
    sum.examples.truncate(kernel::EXAMPLES_MAX);
    Ok((flows.len() as u64, sum, read))
}
