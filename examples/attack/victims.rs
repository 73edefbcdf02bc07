//! What the victims say of themselves, and what their kernels hold: before an attack, and after it.

use super::chaos::Trouble;
use super::chaos::lab::Lab;
use super::chaos::node::Node;
use super::chaos::traffic::{Means, client, flow};
use ssyncp::demo::kernel::{self, Entry};
use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

/// Counters of refusals, by their beginnings.
const REFUSALS: &str = "engine_drop_";
const TRANSPORT: [&str; 3] = ["transport_malformed", "transport_oversized", "transport_ttl_refused"];
/// Datagrams that the kernel dropped because nobody took them in time, or by the socket's filter.
const BY_KERNEL: &str = "transport_dropped_by_kernel";
/// Number of the first flow of the honest traffic.
pub const TRAFFIC_FROM: u32 = 1 << 20;

/// What one node has counted, and what has happened to it.
#[derive(Debug, Clone, Default)]
pub struct Sight {
    counters: BTreeMap<String, u64>,
    log: u64,
    cpu: Duration,
}

/// What has happened since.
#[derive(Debug, Clone, Default)]
pub struct Happened {
    /// Frames refused, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Datagrams that the kernel dropped.
    pub dropped: u64,
    /// How often each event was told of.
    pub events: BTreeMap<String, u64>,
    /// Processor time of the daemon.
    pub cpu: Duration,
}

impl Happened {
    /// How often one of these events was told of.
    pub fn count(&self, names: &[&str]) -> u64 {
        names.iter().filter_map(|name| self.events.get(*name)).sum()
    }
}

impl Sight {
    /// Looks at a node.
    pub fn of(node: &Node) -> Self {
        let status = node.status();
        let counters = status.iter().flat_map(|status| status.value()["counters"].as_object().into_iter().flatten());
        let counters = counters.map(|(name, count)| (name.clone(), count.as_u64().unwrap_or(0))).collect();
        let log = fs::metadata(node.file("log")).map_or(0, |file| file.len());
        Sight { counters, log, cpu: cpu(node) }
    }

    /// What has happened to the same node since.
    pub fn since(&self, node: &Node) -> Happened {
        let now = Sight::of(node);
        let grown = |name: &str| {
            let count = now.counters.get(name).copied().unwrap_or(0);
            // A daemon that was started anew counts anew.
            count.checked_sub(self.counters.get(name).copied().unwrap_or(0)).unwrap_or(count)
        };
        let mut refused = BTreeMap::new();
        for name in now.counters.keys() {
            let reason = name.strip_prefix(REFUSALS).or_else(|| TRANSPORT.contains(&name.as_str()).then_some(name));
            if let Some(reason) = reason.filter(|_| grown(name) > 0) {
                refused.insert(reason.to_owned(), grown(name));
            }
        }
        let log = fs::read(node.file("log")).unwrap_or_default();
        let news = String::from_utf8_lossy(log.get(self.log as usize..).unwrap_or_default()).into_owned();
        let cpu = now.cpu.checked_sub(self.cpu).unwrap_or(now.cpu);
        Happened { refused, dropped: grown(BY_KERNEL), events: events(&news), cpu }
    }
}

/// Events in a log, by name.
pub fn events(log: &str) -> BTreeMap<String, u64> {
    let mut events = BTreeMap::new();
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("event=\"") {
            let name = rest.split('"').next().unwrap_or_default();
            *events.entry(name.to_owned()).or_insert(0) += 1;
        }
    }
    events
}

/// Processor time that all threads of a daemon have used.
fn cpu(node: &Node) -> Duration {
    let Some(process) = node.process() else { return Duration::ZERO };
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let nanoseconds = tasks.map(|task| {
        let line = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        line.split_ascii_whitespace().next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0)
    });
    Duration::from_nanos(nanoseconds.sum())
}

/// What the kernels must hold: what was written before, and the honest traffic since.
#[derive(Debug, Default)]
pub struct Truth {
    entries: Vec<Entry>,
}

impl Truth {
    /// What the master's kernel holds now, at rest.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn of(lab: &Lab) -> Result<Self, Trouble> {
        Ok(Truth { entries: at_rest(lab.nodes[0].flows()?) })
    }

    /// Records that differ from the truth in either kernel: missing, changed, or there although nobody honest has made
    /// them. `made` are the numbers of the honest traffic.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn changed(&self, lab: &Lab, made: Range<u32>) -> Result<u64, Trouble> {
        let mut changed = 0;
        for node in &lab.nodes {
            let flows = node.flows()?;
            let traffic = flows.iter().filter(|entry| !is_at_rest(entry)).count() as u64;
            let difference = kernel::compare(&self.entries, &at_rest(flows));
            changed += difference.missing + difference.extra + difference.stale;
            changed += traffic.abs_diff(u64::from(made.end - made.start));
        }
        Ok(changed)
    }

    /// Whether both daemons' tables are equal to each other by digest and hold as many as the kernels.
    pub fn tables_agree(&self, lab: &Lab, made: Range<u32>) -> bool {
        let said: Vec<_> = lab.nodes.iter().filter_map(Node::status).collect();
        let expected = self.entries.len() as u64 + u64::from(made.end - made.start);
        said.len() == lab.nodes.len()
            && said.iter().all(|status| status.entries() == expected)
            && said.windows(2).all(|two| two[0].value()["digest"] == two[1].value()["digest"])
    }
}

fn at_rest(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.retain(is_at_rest);
    entries
}

/// Whether an entry is none of the honest traffic's.
fn is_at_rest(entry: &Entry) -> bool {
    let first = IpAddr::V4(client(TRAFFIC_FROM).0);
    let beyond = IpAddr::V4(client(2 * TRAFFIC_FROM).0);
    !(first..beyond).contains(&entry.original.source)
}

/// A flow of the honest traffic.
pub fn traffic(number: u32) -> ssyncp::flow::Flow {
    // Numbers of one kind: plain TCP with a translated destination.
    flow(TRAFFIC_FROM + number * 4, Means::Netlink)
}
