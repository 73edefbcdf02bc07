//! How cost grows with groups, nodes and entries: `ssyncp bench --scale`.
//!
//! ```text
//!   groups    1 … 16, a pair of threads each; of one transport each its own memory, or all on one cable, as daemons have it
//!   nodes     a master and 1 … 7 backups on one memory
//!   entries   10 k … 10 M in one table: what a record costs, and what a flow takes
//! ```
//!
//! Groups and nodes are asked twice: flat out, and at a rate that all of them share, so that what each costs beside its records
//! shows.

use super::cluster::{Cluster, Run, Setup};
use super::machine::{self, Applied};
use super::report::{Curve, Report, Row, median};
use super::street::Street;
use super::ways::{Link, Way, memory_ports};
use super::workload::SYNC_ID;
use super::{BenchError, Options};
use crate::time::Duration;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// Groups at a time.
const GROUPS: [u32; 5] = [1, 2, 4, 8, 16];
/// Nodes of a group.
const NODES: [u32; 7] = [2, 3, 4, 5, 6, 7, 8];
/// Flows of tables that are smaller than the largest.
const ENTRIES: [u32; 3] = [10_000, 100_000, 1_000_000];
/// Flows of each group, and of each node, at most.
const FLOWS: u32 = 50_000;
/// Records a second that all groups share.
const SHARED_PER_S: f64 = 100_000.0;

/// Rest of a cluster that waits for the others.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(1);

/// Measures all of it.
pub(super) fn measure(options: &Options, street: Option<&Street>, ways: &[&Way], report: &mut Report) {
    let mut scale = Scale { runs: options.runs, time: Duration::from_secs_f64(options.seconds), options, report };
    for way in ways {
        scale.groups(way, street);
    }
    if ways.iter().any(|way| !way.is_on_street()) {
        scale.nodes();
    }
    scale.entries();
}

struct Scale<'a> {
    options: &'a Options,
    runs: u32,
    time: Duration,
    report: &'a mut Report,
}

/// Flat out, and at the shared rate.
struct Both {
    flat_out: Vec<Run>,
    shared: Vec<Run>,
}

impl Scale<'_> {
    fn flows(&self) -> u32 {
        self.options.flows.min(FLOWS)
    }

    fn groups(&mut self, way: &Way, street: Option<&Street>) {
        let (name, mut total, mut cost) = (way.name, Vec::new(), Vec::new());
        for groups in GROUPS {
            let open = |group: u32| {
                let sync_id = SYNC_ID + group as u8;
                let siblings: Vec<u8> =
                    (0..groups).map(|other| SYNC_ID + other as u8).filter(|id| *id != sync_id).collect();
                let (here, there) = way.open_beside(street, &siblings)?;
                let links: Vec<Link> = [Some(here), there].into_iter().flatten().collect();
                Cluster::open(links, Setup { flows: self.flows(), sealed: false, sync_id })
            };
            let measured: Result<Vec<Vec<Both>>, BenchError> =
                (0..self.runs).map(|_| together(groups, &open, self.time)).collect();
            let runs = self.or_note(measured, &format!("{groups} groups, {name}"));
            let applied = each(&runs, |all| all.iter().flat_map(|both| &both.flat_out).map(Run::applied_per_s).sum());
            let cpu = each(&runs, |all| {
                let (used, records) =
                    all.iter().flat_map(|both| &both.shared).fold((0.0, 0), |(used, records), run| {
                        (used + run.sender.processor_s + run.receiver.processor_s, records + run.received)
                    });
                used / records as f64 * 1e6
            });
            total.extend(middle(&applied).map(|figure| (groups, figure / 1e6)));
            cost.extend(middle(&cpu).map(|figure| (groups, figure)));
            let of = |head: &str| format!("{head}, {groups} group{}", if groups == 1 { "" } else { "s" });
            self.row(Some(name), of("records applied"), "records/s", applied);
            self.row(Some(name), of("records at 100,000/s, both sides"), "CPU s per 1 M records", cpu);
        }
        self.curve("M records/s flat out, all groups together", name, total);
        self.curve("CPU s per 1 M records at 100,000/s, both sides, by groups", name, cost);
    }

    fn nodes(&mut self) {
        let (mut masters, mut backups) = (Vec::new(), Vec::new());
        for nodes in NODES {
            let setup = Setup { flows: self.flows(), sealed: false, sync_id: SYNC_ID };
            let open = |_| Cluster::open(memory_ports(nodes as usize), setup);
            let measured: Result<Vec<Vec<Both>>, BenchError> =
                (0..self.runs).map(|_| together(1, &open, self.time)).collect();
            let runs = self.or_note(measured, &format!("{nodes} nodes"));
            let of_runs = |pick: fn(&Both) -> &Vec<Run>, figure: fn(&Run) -> Option<f64>| -> Vec<f64> {
                runs.iter().flatten().flat_map(pick).filter_map(figure).collect()
            };
            let applied = of_runs(|both| &both.flat_out, |run| Some(run.applied_per_s()));
            let sender = of_runs(|both| &both.shared, Run::sender_per_million);
            let receiver = of_runs(|both| &both.shared, Run::receiver_per_million);
            masters.extend(middle(&sender).map(|figure| (nodes, figure)));
            backups.extend(middle(&receiver).map(|figure| (nodes, figure)));
            self.row(Some("memory"), format!("records applied, {nodes} nodes"), "records/s", applied);
            self.row(
                Some("memory"),
                format!("records at 100,000/s, sender, {nodes} nodes"),
                "CPU s per 1 M records",
                sender,
            );
            self.row(
                Some("memory"),
                format!("records at 100,000/s, receiver, {nodes} nodes"),
                "CPU s per 1 M records",
                receiver,
            );
        }
        let panel = "CPU s per 1 M records at 100,000/s, by nodes";
        self.curve(panel, "master", masters);
        self.curve(panel, "a backup", backups);
    }

    fn entries(&mut self) {
        let (mut cost, mut size) = (Vec::new(), Vec::new());
        let smaller = ENTRIES.into_iter().filter(|flows| *flows < self.options.flows);
        for flows in smaller.chain([self.options.flows]) {
            let mut table = Applied::new(flows);
            let bytes = table.bytes();
            let of_place = bytes as f64 / f64::from(table.places());
            let applied: Vec<f64> = (0..self.runs).map(|_| table.per_s(self.time)).collect();
            let ns: Vec<f64> = applied.iter().map(|per_s| 1e9 / per_s).collect();
            drop(table);
            let walk = machine::walk_per_s(bytes, self.time);
            cost.extend(middle(&ns).map(|figure| (flows, figure)));
            size.push((flows, of_place));
            let row = Row::new(None, format!("table apply, {flows} flows"), "records/s", applied, Some(walk));
            self.report.rows.push(row);
            self.row(None, format!("record, {flows} flows"), "ns of processor", ns);
            self.row(None, format!("place in a table of {flows}"), "bytes", vec![of_place]);
        }
        self.curve("ns of processor for a record, by flows in the table", "table apply", cost);
        self.curve("bytes of a place in the table, all included, by flows", "table", size);
    }

    fn or_note<T>(&mut self, measured: Result<Vec<T>, BenchError>, what: &str) -> Vec<T> {
        measured.unwrap_or_else(|error| {
            self.report.notes.push(format!("{what}: {error}"));
            Vec::new()
        })
    }

    fn row(&mut self, transport: Option<&'static str>, what: String, unit: &'static str, figures: Vec<f64>) {
        self.report.rows.push(Row::new(transport, what, unit, figures, None));
    }

    fn curve(&mut self, panel: &'static str, name: &'static str, points: Vec<(u32, f64)>) {
        self.report.curves.push(Curve { panel, name, points });
    }
}

fn each<T>(runs: &[T], figure: impl FnMut(&T) -> f64) -> Vec<f64> {
    runs.iter().map(figure).filter(|figure| figure.is_finite()).collect()
}

fn middle(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    median(&sorted)
}

/// So many clusters at a time, each in a thread of its own: flat out, and then at their share of the shared rate.
fn together(
    groups: u32,
    open: &(impl Fn(u32) -> Result<Cluster, BenchError> + Sync),
    time: Duration,
) -> Result<Vec<Both>, BenchError> {
    let meeting = Meeting::of(groups as usize);
    let one = |group| {
        let both = (|| {
            let mut cluster = open(group)?;
            meeting.wait(&mut cluster)?;
            let flat_out = vec![cluster.flood(time)?];
            meeting.wait(&mut cluster)?;
            let shared = vec![cluster.paced(SHARED_PER_S / f64::from(groups), time)?];
            Ok(Both { flat_out, shared })
        })();
        if both.is_err() {
            meeting.broken.store(true, Ordering::Relaxed);
        }
        both
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..groups)
            .map(|group| {
                let one = &one;
                scope.spawn(move || one(group))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| BenchError::Panicked)?).collect()
    })
}

/// Where clusters wait for each other. Their nodes take their turns meanwhile: a master that stood still would lose its role.
struct Meeting {
    size: usize,
    arrived: AtomicUsize,
    broken: AtomicBool,
}

impl Meeting {
    fn of(size: usize) -> Self {
        Meeting { size, arrived: AtomicUsize::new(0), broken: AtomicBool::new(false) }
    }

    /// Waits until all have come as often as this one.
    fn wait(&self, cluster: &mut Cluster) -> Result<(), BenchError> {
        let arrived = self.arrived.fetch_add(1, Ordering::Relaxed);
        let all = (arrived / self.size + 1) * self.size;
        while self.arrived.load(Ordering::Relaxed) < all {
            if self.broken.load(Ordering::Relaxed) {
                return Err(BenchError::Stuck("another group could not be measured"));
            }
            cluster.turn()?;
            thread::sleep(PAUSE);
        }
        Ok(())
    }
}
