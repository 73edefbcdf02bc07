//! Two drivers, turn by turn on an invented clock: after the start a turn allocates nothing, and what a command asks for is
//! served piece by piece. Once over a medium in memory with an invented source, and once between two namespaces, over raw
//! sockets, from one kernel's connections to another's.

#[path = "support/allocations.rs"]
mod allocations;
#[macro_use]
#[path = "transport/support.rs"]
mod transport_support;

use allocations::allocations;
use ssyncp::bridge::conntrack::{ConntrackSink, ConntrackSource, Filter, SinkOptions, SourceOptions};
use ssyncp::bridge::synthetic::{SyntheticOptions, SyntheticSource};
use ssyncp::bridge::{Sink, Source};
use ssyncp::daemon::audit::{AuditOrders, AuditParts};
use ssyncp::daemon::control::{Command, GroupHandle, Listing, desk};
use ssyncp::daemon::driver::{Driver, Parts};
use ssyncp::daemon::flows::FlowFilter;
use ssyncp::daemon::journal::Journal;
use ssyncp::daemon::link::{AlwaysUp, Line};
use ssyncp::daemon::notify::Notify;
use ssyncp::daemon::settings::{AuditMode, Commit, Wait};
use ssyncp::daemon::track::Heed;
use ssyncp::engine::{Config, Engine, Tuning};
use ssyncp::flow::{Change, Flow, FlowKey, Zone, protocol, status};
use ssyncp::time::{Duration, Instant};
use ssyncp::transport::RawTransport;
use ssyncp::transport::memory::MemoryHub;
use ssyncp::wire::NodeId;
use std::cell::Cell;
use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use transport_support::Lan;
use transport_support::machine::root;

/// Flows of the source.
const FLOWS: u32 = 10_000;

/// A kernel that takes everything.
#[derive(Clone, Default)]
struct Kernel(Rc<Cell<u64>>);

impl Sink for Kernel {
    fn apply(&mut self, _: &Change) -> io::Result<()> {
        self.0.set(self.0.get() + 1);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<usize> {
        Ok(0)
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        vec![]
    }
}

struct Node {
    driver: Driver,
    handle: GroupHandle,
}

/// A master and a backup, and what they say of it.
struct Pair {
    clock: Rc<Cell<Instant>>,
    nodes: [Node; 2],
}

/// What of a node is not the engine.
struct Ends {
    line: Box<dyn Line>,
    source: Box<dyn Source>,
    sink: Box<dyn Sink>,
}

impl Pair {
    /// With an invented source and an invented kernel; how much that has been told.
    fn invented(changes_per_second: u32) -> (Self, Kernel) {
        let (hub, kernel) = (MemoryHub::new(), Kernel::default());
        let options = SyntheticOptions { flows: FLOWS, changes_per_second, ..SyntheticOptions::default() };
        let ends = || Ends {
            line: Box::new(AlwaysUp(hub.port())),
            source: Box::new(SyntheticSource::new(&options).unwrap()),
            sink: Box::new(kernel.clone()),
        };
        (Pair::new(ends(), ends()), kernel)
    }

    fn new(master: Ends, backup: Ends) -> Self {
        let clock = Rc::new(Cell::new(Instant::from_nanos(1_000_000_000)));
        let node = |id: u32, priority, ends: Ends| {
            let (handle, desk) = desk(51).unwrap();
            let config = Config {
                incarnation: u64::from(id),
                seed: 5,
                priority,
                capacity: 2 * FLOWS,
                ..Config::new(NodeId(id), 51)
            };
            let told = Rc::clone(&clock);
            let mut driver = Driver::new(Parts {
                tuning: Tuning::from(&config),
                advert_interval: config.advert_interval,
                wait: Wait::default(),
                frame_len: config.frame_len,
                engine: Engine::new(config, clock.get()).unwrap().into(),
                line: ends.line,
                source: Some(ends.source),
                sink: Some(ends.sink),
                commit: Commit::Continuous,
                filter: Filter::default(),
                audit: AuditParts {
                    inspector: None,
                    orders: AuditOrders { mode: AuditMode::Repair, interval: Duration::from_secs(60), sole: true },
                },
                takeover: None,
                tracks: Heed::nothing(),
                notify: Notify::nobody(51),
                desk,
                journal: Journal::new(51),
                dump_interval: Duration::from_millis(20),
                clock: Box::new(move || told.get()),
            });
            driver.start();
            Node { driver, handle }
        };
        let nodes = [node(1, 200, master), node(2, 100, backup)];
        Pair { clock, nodes }
    }

    /// A millisecond in the life of both; nobody sleeps longer than it takes to find out that there is work.
    fn turn(&mut self) {
        self.clock.set(self.clock.get() + Duration::from_millis(1));
        for node in &mut self.nodes {
            node.handle.wake();
            let found = node.driver.turn();
            node.driver.rest(found);
        }
    }

    fn counter(&self, node: usize, name: &str) -> u64 {
        self.nodes[node].driver.status(self.clock.get()).counters[name]
    }

    /// Turns until node 0 is master of so many flows and node 1 holds what it has.
    fn settle(&mut self, flows: u32) {
        for _ in 0..10_000 {
            self.turn();
            let [master, backup] = [0, 1].map(|node| self.nodes[node].driver.status(self.clock.get()));
            if master.entries == u64::from(flows) && backup.sync == "in_sync" && backup.entries == master.entries {
                return;
            }
        }
        let [master, backup] = [0, 1].map(|node| self.nodes[node].driver.status(self.clock.get()));
        panic!("never in sync: {master:#?} {backup:#?}");
    }
}

/// Two thousand turns of a pair whose source has so many changes a second.
fn turns_without_an_allocation(changes_per_second: u32) {
    let (mut pair, kernel) = Pair::invented(changes_per_second);
    pair.settle(FLOWS);
    let done = |pair: &Pair| {
        let frames = pair.counter(1, "engine_frames_received");
        [pair.counter(0, "driver_source_dumps_completed"), frames, kernel.0.get()]
    };
    let done_before = done(&pair);

    assert_eq!(allocations(|| (0..2000).for_each(|_| pair.turn())), 0);

    // Dumps, frames and, if there are any, changes for the kernel: something was done for nothing.
    let checked = if changes_per_second == 0 { 2 } else { 3 };
    for (before, after) in done_before.into_iter().zip(done(&pair)).take(checked) {
        assert!(after >= before + 10, "{done_before:?} {:?}", done(&pair));
    }
}

#[test]
fn a_turn_with_work_allocates_nothing_after_the_start() {
    turns_without_an_allocation(5_000);
}

#[test]
fn a_turn_without_work_and_the_wait_after_it_allocate_nothing() {
    turns_without_an_allocation(0);
}

fn open_sink() -> io::Result<ConntrackSink> {
    ConntrackSink::open(&SinkOptions::default()).map_err(io::Error::other)
}

/// A node in its namespace, with the kernel's own connections at both ends.
fn real(lan: &Lan, node: usize) -> Ends {
    let switch = "/proc/sys/net/netfilter/nf_conntrack_events";
    lan.nodes[node].run(|| std::fs::write(switch, "1")).unwrap();
    let line: RawTransport = transport_support::open(lan, node, &transport_support::options());
    let sink = lan.nodes[node].run(open_sink).unwrap();
    let options = SourceOptions { ignore_port_ids: vec![sink.port_id().unwrap()], ..SourceOptions::default() };
    let source = lan.nodes[node].run(move || ConntrackSource::open(&options).map_err(io::Error::other)).unwrap();
    Ends { line: Box::new(line), source: Box::new(source), sink: Box::new(sink) }
}

/// An answered connection to a server.
fn connection(number: u16) -> Flow {
    let key = FlowKey {
        source: IpAddr::V4(Ipv4Addr::new(10, 1, 0, 1)),
        destination: IpAddr::V4(Ipv4Addr::new(10, 2, 0, 1)),
        source_port: number,
        destination_port: 80,
        protocol: protocol::TCP,
        zone: Zone::DEFAULT,
    };
    let status = status::SEEN_REPLY | status::ASSURED | status::CONFIRMED;
    Flow { status, timeout: 300, state: 3, ..Flow::new(key) }
}

#[test]
fn from_a_kernel_over_raw_sockets_to_a_kernel_nothing_is_allocated() {
    if !root() {
        return;
    }
    let lan = Lan::new(2, 1);
    let mut pair = Pair::new(real(&lan, 0), real(&lan, 1));
    let mut world = lan.nodes[0].run(open_sink).unwrap();
    let mut tell = |change: Change| {
        world.apply(&change).unwrap();
        world.flush().unwrap();
    };
    (1000..2000).for_each(|number| tell(Change::Upsert(connection(number))));
    pair.settle(1000);
    let frames_before = pair.counter(1, "engine_frames_received");

    // In each turn a connection begins, and the oldest but some ends.
    let mut asked = 0;
    for number in 2000..3000 {
        tell(Change::Upsert(connection(number)));
        tell(Change::Delete(connection(number - 1000).key));
        asked += allocations(|| pair.turn());
    }
    assert_eq!(asked, 0);

    assert!(pair.counter(1, "engine_frames_received") > frames_before + 250);
    pair.settle(1000);
    assert_eq!(pair.counter(1, "sink_created"), 2000);
    assert_eq!(pair.counter(1, "sink_deleted"), 1000);
}

#[test]
fn a_listing_is_served_piece_by_piece_and_names_every_flow() {
    let (mut pair, _) = Pair::invented(0);
    pair.settle(FLOWS);
    let (sender, mut pages) = tokio::sync::mpsc::channel(4);
    let listing = Listing { filter: FlowFilter::default(), limit: usize::MAX, pages: sender, slot: 0 };
    // A backup's table stands still while its master is silent.
    let [_, backup] = &mut pair.nodes;
    backup.handle.send(Command::Flows(listing)).unwrap();
    let mut keys: HashSet<FlowKey> = HashSet::new();
    let mut sizes = Vec::new();
    let mut last = false;
    while !last {
        assert!(sizes.len() < 100, "a listing without an end");
        backup.driver.turn();
        while let Ok(page) = pages.try_recv() {
            sizes.push(page.flows.len());
            keys.extend(page.flows.iter().map(|flow| flow.key));
            last = page.last;
        }
    }
    assert_eq!((keys.len(), sizes.iter().sum::<usize>()), (10_000, 10_000));
    // Of 20,000 slots 4096 are looked at in a turn, and flows fill them from the front; the end is told by itself.
    assert_eq!(sizes, [4096, 4096, 1808, 0]);
}
