//! Two drivers over a medium in memory, turn by turn on an invented clock: after the start a turn allocates nothing, and
//! what a command asks for is served piece by piece.

use ssyncp::bridge::Sink;
use ssyncp::bridge::conntrack::Filter;
use ssyncp::bridge::synthetic::{SyntheticOptions, SyntheticSource};
use ssyncp::daemon::audit::{AuditOrders, AuditParts};
use ssyncp::daemon::control::{Command, GroupHandle, Listing, desk};
use ssyncp::daemon::driver::{Driver, Parts};
use ssyncp::daemon::flows::FlowFilter;
use ssyncp::daemon::journal::Journal;
use ssyncp::daemon::link::AlwaysUp;
use ssyncp::daemon::notify::Notify;
use ssyncp::daemon::settings::{AuditMode, Commit, Wait};
use ssyncp::daemon::track::Heed;
use ssyncp::engine::{Config, Engine, Tuning};
use ssyncp::flow::{Change, FlowKey};
use ssyncp::time::{Duration, Instant};
use ssyncp::transport::memory::MemoryHub;
use ssyncp::wire::NodeId;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::HashSet;
use std::io;
use std::rc::Rc;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is handed on unchanged to the system's allocator; counting touches a constant-initialised
// thread-local only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: as promised by our caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as promised by our caller.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

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

/// A master with an invented source and a backup with an invented kernel.
struct Pair {
    clock: Rc<Cell<Instant>>,
    nodes: [Node; 2],
    kernel: Kernel,
}

impl Pair {
    fn new(changes_per_second: u32) -> Self {
        let clock = Rc::new(Cell::new(Instant::from_nanos(1_000_000_000)));
        let (hub, kernel) = (MemoryHub::new(), Kernel::default());
        let node = |id: u32, priority| {
            let (handle, desk) = desk(51).unwrap();
            let config = Config {
                incarnation: u64::from(id),
                seed: 5,
                priority,
                capacity: 2 * FLOWS,
                ..Config::new(NodeId(id), 51)
            };
            let options = SyntheticOptions { flows: FLOWS, changes_per_second, ..SyntheticOptions::default() };
            let told = Rc::clone(&clock);
            let mut driver = Driver::new(Parts {
                tuning: Tuning::from(&config),
                advert_interval: config.advert_interval,
                wait: Wait::default(),
                frame_len: config.frame_len,
                engine: Engine::new(config, clock.get()).unwrap().into(),
                line: Box::new(AlwaysUp(hub.port())),
                source: Some(Box::new(SyntheticSource::new(&options).unwrap())),
                sink: Some(Box::new(kernel.clone())),
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
        let nodes = [node(1, 200), node(2, 100)];
        Pair { clock, nodes, kernel }
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

    /// Turns until node 0 is master and node 1 holds what it has.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            self.turn();
            let [master, backup] = [0, 1].map(|node| self.nodes[node].driver.status(self.clock.get()));
            if master.entries == u64::from(FLOWS) && backup.sync == "in_sync" && backup.entries > 0 {
                return;
            }
        }
        let [master, backup] = [0, 1].map(|node| self.nodes[node].driver.status(self.clock.get()));
        panic!("never in sync: {master:#?} {backup:#?}");
    }
}

/// Two thousand turns of a pair whose source has so many changes a second.
fn turns_without_an_allocation(changes_per_second: u32) {
    let mut pair = Pair::new(changes_per_second);
    pair.settle();
    let done = |pair: &Pair| {
        let frames = pair.counter(1, "engine_frames_received");
        [pair.counter(0, "driver_source_dumps_completed"), frames, pair.kernel.0.get()]
    };
    let done_before = done(&pair);

    let before = ALLOCATIONS.get();
    (0..2000).for_each(|_| pair.turn());
    assert_eq!(ALLOCATIONS.get() - before, 0);

    let done = done(&pair);
    assert!(ALLOCATIONS.get() > before, "the counter counts");
    // Dumps, frames and, if there are any, changes for the kernel: something was done for nothing.
    let checked = if changes_per_second == 0 { 2 } else { 3 };
    for (before, after) in done_before.into_iter().zip(done).take(checked) {
        assert!(after >= before + 10, "{done_before:?} {done:?}");
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

#[test]
fn a_listing_is_served_piece_by_piece_and_names_every_flow() {
    let mut pair = Pair::new(0);
    pair.settle();
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
