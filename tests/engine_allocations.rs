//! After its birth the engine allocates nothing on the data path: a counting allocator looks on while a master sends
//! and a backup applies flows of both families. (Events with names, and `status`, may allocate; neither happens per
//! record. Attributes of a flow that is handed out have a box of their own.)

#[path = "support/allocations.rs"]
mod allocations;

use allocations::allocations;
use ssyncp::engine::{Config, Engine, Role};
use ssyncp::flow::{Change, Flow, FlowKey, Zone, protocol};
use ssyncp::time::{Duration, Instant};
use ssyncp::wire::{FrameMeta, NodeId};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const META: FrameMeta = FrameMeta { link: 0, source: IpAddr::V4(Ipv4Addr::LOCALHOST) };

struct Pair {
    now: Instant,
    master: Engine,
    backup: Engine,
    slot: [u8; 1480],
    batch: Vec<Change>,
}

impl Pair {
    fn new() -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let engine = |node: u32, priority| {
            let config = Config { incarnation: u64::from(node), seed: 5, priority, ..Config::new(NodeId(node), 1) };
            let mut engine = Engine::new(config, now).expect("a valid configuration");
            engine.handle_link(now, true);
            engine
        };
        Pair { now, master: engine(1, 200), backup: engine(2, 100), slot: [0; 1480], batch: Vec::with_capacity(4096) }
    }

    /// A millisecond in the life of both.
    fn turn(&mut self) {
        self.now += Duration::from_millis(1);
        for _ in 0..2 {
            exchange(self.now, &mut self.master, &mut self.backup, &mut self.slot);
            exchange(self.now, &mut self.backup, &mut self.master, &mut self.slot);
        }
        self.batch.clear();
        self.backup.poll_applied(self.now, &mut self.batch, 4096);
        self.backup.handle_committed(self.now);
        self.master.handle_committed(self.now);
        while self.master.poll_event().is_some() {}
        while self.backup.poll_event().is_some() {}
    }
}

fn exchange(now: Instant, from: &mut Engine, to: &mut Engine, slot: &mut [u8]) {
    from.handle_timeout(now);
    while let Some(length) = from.poll_transmit(now, slot) {
        to.handle_frame(now, META, &mut slot[..length]);
    }
}

fn flow(number: u32) -> Flow {
    let (source, destination) = match number % 2 {
        0 => (Ipv4Addr::from(0x0a00_0000 + number).into(), Ipv4Addr::new(192, 0, 2, 10).into()),
        _ => (Ipv6Addr::from(u128::from(number)).into(), Ipv6Addr::LOCALHOST.into()),
    };
    let key = FlowKey {
        source,
        destination,
        source_port: 40_000,
        destination_port: 443,
        protocol: protocol::TCP,
        zone: Zone::DEFAULT,
    };
    Flow { state: 3, status: 0x0e, timeout: 432_000, ..Flow::new(key) }
}

#[test]
fn a_hundred_thousand_records_cost_no_allocation_on_either_side() {
    let mut pair = Pair::new();
    while pair.master.role() != Role::Master {
        pair.turn();
    }
    pair.master.begin_dump(pair.now);
    pair.master.end_dump(pair.now);
    (0..300).for_each(|_| pair.turn());

    let asked = allocations(|| {
        for round in 0..100_u32 {
            for number in 0..1000 {
                let change = match round % 4 {
                    3 => Change::Delete(flow(number).key),
                    state => Change::Upsert(Flow { state: state as u8, ..flow(number) }),
                };
                pair.master.update(pair.now, &change).expect("there is room");
            }
            pair.turn();
        }
        for number in 0..500 {
            pair.master.update(pair.now, &Change::Upsert(flow(number))).expect("there is room");
        }
        (0..300).for_each(|_| pair.turn());
    });
    assert_eq!(asked, 0);

    let (master, backup) = (pair.master.status(), pair.backup.status());
    assert_eq!((master.entries, backup.entries), (500, 500));
    assert_eq!(master.digest, backup.digest);
}
