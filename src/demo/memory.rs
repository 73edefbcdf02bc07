//! The demo where the kernel lets this user make no namespaces: two engines in this one process, over the memory
//! transport, with synthetic flows.
//!
//! It shows less, and says so: no kernel's table, no TCP, no wire. What it proves is that the backup's table becomes
//! equal to the master's, and that the backup takes over with all of it when the master falls silent.
//!
//! ```text
//!   flows ─ update ─→ engine a ─ poll_transmit ─→ memory ─→ handle_frame ─ engine b ─ poll_applied ─→ held (a map)
//! ```

use super::narrator::{Narrator, number};
use super::report::{Failover, Mix};
use super::story::{MIX_ASSOCIATIONS, MIX_UDP_FLOWS};
use super::{DemoError, Doing, Options, seal};
use crate::engine::{Config, Engine, Role, RoleMode, SyncState};
use crate::flow::{Change, Endpoint, Flow, FlowKey, ProtocolInfo, TcpInfo, Zone, attribute, protocol, status};
use crate::sys::clock;
use crate::sys::poll::wait;
use crate::time::{Duration, Instant};
use crate::transport::Transport;
use crate::transport::memory::MemoryHub;
use crate::wire::{NodeId, Secret};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::HashMap;

/// Time in which a node must have found its place.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// Longest sleep between two turns.
const TURN_EVERY: Duration = Duration::from_millis(1);
/// Most time that passes for the nodes from one turn to the next, see [`Clock`].
const STEP_MAX: Duration = Duration::from_millis(5);
/// Changes that move from an engine to its map in one step.
const BATCH: usize = 1024;
/// Time between two ADVERTs, as in the laboratory.
const ADVERT_INTERVAL: Duration = Duration::from_millis(10);
/// Names of the two nodes.
const NAMES: [&str; 2] = ["a", "b"];
/// Their VRRP priorities.
const PRIORITIES: [u8; 2] = [150, 100];

/// Plays the story in memory, and returns the figures of each death: `connections` are synthetic flows, `survived` are
/// those that the new master holds with the same value as the dead one, `stalled` are the others. Times on a wire stay
/// `None`, but `takeover_ms` is there: from the last turn of the dead engine to the role of the other, pauses of this
/// process aside.
pub(super) fn run(options: &Options, narrator: &Narrator) -> Result<Vec<Failover>, DemoError> {
    let hub = MemoryHub::new();
    // Without SSYNCP the two hear nothing of each other.
    let other = MemoryHub::new();
    let port = |node: usize| if options.no_sync && node == 1 { other.port() } else { hub.port() };
    let clock = Clock::start();
    let secret = if options.seals() { seal::in_memory() } else { None };
    let start = |now, node| Side::start(now, node, options, secret.as_ref(), port(node));
    let sides = [start(clock.now, 0)?, start(clock.now, 1)?];
    let mut pair = Pair { clock, sides, master: 0 };
    pair.turn_until("a is not master", |pair| pair.sides[0].engine.role() == Role::Master)?;
    let flows = synthetic_flows(options);
    pair.sides[0].load(pair.clock.now, &flows);
    narrator.say(format_args!("a is master and holds {} synthetic flows", number(flows.len() as u64)));
    let mut failovers = Vec::new();
    for round in 0..options.failovers {
        if round > 0 {
            let back = 1 - pair.master;
            pair.sides[back] = start(pair.clock.now, back)?;
            narrator.say(format_args!("{} is back, its table empty: it joins late", NAMES[back]));
        }
        failovers.push(failover(&mut pair, options, narrator)?);
    }
    Ok(failovers)
}

/// One death.
fn failover(pair: &mut Pair<impl Transport>, options: &Options, narrator: &Narrator) -> Result<Failover, DemoError> {
    let (master, backup) = (pair.master, 1 - pair.master);
    if !options.no_sync {
        pair.turn_until("the backup is not in sync", |pair| {
            pair.sides[backup].engine.status().sync == SyncState::InSync
        })?;
        narrator.say(format_args!("{} is backup and in sync", NAMES[backup]));
    }
    let now = pair.clock.now;
    let truth: HashMap<FlowKey, Flow> = pair.sides[master].engine.flows(now).map(|flow| (flow.key, flow)).collect();
    let copy = pair.sides[backup].held.clone();
    narrator.say(format_args!("{} falls silent, with {} flows", NAMES[master], number(truth.len() as u64)));
    pair.sides[master].alive = false;
    pair.turn_until("the backup does not take over", |pair| pair.sides[backup].engine.role() == Role::Master)?;
    let takeover = pair.clock.now.since(now);
    narrator.say(format_args!("{} is master after {:.1} ms", NAMES[backup], takeover.as_secs_f64() * 1e3));
    pair.master = backup;
    let held = pair.sides[backup].held.clone();
    pair.sides[backup].load(pair.clock.now, &held.values().cloned().collect::<Vec<_>>());

    let same =
        |table: &HashMap<FlowKey, Flow>, flow: &Flow| table.get(&flow.key).is_some_and(|copy| copy.same_value(flow));
    let alive = |wanted: fn(&FlowKey) -> bool| {
        count(truth.values().filter(|flow| wanted(&flow.key) && same(&held, flow)).count())
    };
    let survived = alive(|key| key.protocol == protocol::TCP);
    let missing = count(truth.keys().filter(|key| !copy.contains_key(*key)).count());
    let equal = count(truth.values().filter(|flow| same(&copy, flow)).count());
    let connections = options.connections;
    Ok(Failover {
        died: NAMES[master].into(),
        connections,
        survived,
        stalled: connections.saturating_sub(survived),
        flows_master: count(truth.len()),
        flows_backup: count(copy.len()),
        missing,
        extra: count(copy.keys().filter(|key| !truth.contains_key(*key)).count()),
        stale: count(truth.len()) - missing - equal,
        takeover_ms: Some(takeover.as_secs_f64() * 1e3),
        mix: options.mix.then(|| Mix {
            ipv6_connections: connections / 2,
            ipv6_survived: alive(|key| key.protocol == protocol::TCP && key.source.is_ipv6()),
            udp_flows: MIX_UDP_FLOWS,
            udp_survived: alive(|key| key.protocol == protocol::UDP),
            sctp_associations: MIX_ASSOCIATIONS.into(),
            sctp_survived: alive(|key| key.protocol == protocol::SCTP),
        }),
        ..Failover::default()
    })
}

/// The nodes' time. It stands still while this process does not run: a pause would otherwise look to each of the two
/// like the death of the other, although both had it.
struct Clock {
    now: Instant,
    real: Instant,
}

impl Clock {
    fn start() -> Self {
        let now = clock::now();
        Clock { now, real: now }
    }

    fn tick(&mut self) -> Instant {
        let real = clock::now();
        self.now += real.since(self.real).min(STEP_MAX);
        self.real = real;
        self.now
    }
}

/// Both nodes, and who is master.
struct Pair<T> {
    clock: Clock,
    sides: [Side<T>; 2],
    master: usize,
}

impl<T: Transport> Pair<T> {
    /// Gives both their turns until it is so; `otherwise` says what is wrong if it does not become so.
    fn turn_until(&mut self, otherwise: &'static str, so: impl Fn(&Self) -> bool) -> Result<(), DemoError> {
        let start = clock::now();
        while !so(self) {
            let now = self.clock.tick();
            if self.clock.real.since(start) > READY_WITHIN {
                return Err(DemoError::Stuck(otherwise));
            }
            for side in self.sides.iter_mut().filter(|side| side.alive) {
                side.turn(now)?;
            }
            wait(&[], Some(TURN_EVERY)).doing("waiting")?;
        }
        Ok(())
    }
}

/// One node: an engine, its link, and the flows that it has been told to hold.
struct Side<T> {
    engine: Engine,
    link: T,
    held: HashMap<FlowKey, Flow>,
    alive: bool,
}

impl<T: Transport> Side<T> {
    fn start(
        now: Instant,
        node: usize,
        options: &Options,
        secret: Option<&Secret>,
        link: T,
    ) -> Result<Self, DemoError> {
        let mut config = Config::new(NodeId(node as u32 + 1), 51);
        config.name = NAMES[node].into();
        config.incarnation = clock::random_u64();
        config.seed = clock::random_u64();
        // Both nodes share a thread: what takes one of them long, as a new seed for a large table, delays the other.
        config.capacity = 2 * (options.connections + MIX_UDP_FLOWS + u32::from(MIX_ASSOCIATIONS));
        config.frame_len = link.limits().frame_len.clamp(1208, 8960);
        config.role = RoleMode::Vrrp;
        config.priority = PRIORITIES[node];
        config.preempt = false;
        config.advert_interval = ADVERT_INTERVAL;
        config.secrets = secret.cloned().into_iter().collect();
        let mut engine = Engine::new(config, now).map_err(DemoError::Config)?;
        engine.handle_link(now, true);
        Ok(Side { engine, link, held: HashMap::new(), alive: true })
    }

    /// What a source tells a new master: every flow that exists.
    fn load(&mut self, now: Instant, flows: &[Flow]) {
        self.engine.begin_dump(now);
        for flow in flows {
            self.held.insert(flow.key, flow.clone());
            // A flow that is refused is missed in the figures.
            let _ = self.engine.update(now, &Change::Upsert(flow.clone()));
        }
        self.engine.end_dump(now);
    }

    /// One turn of the loop, in the daemon's order: receive, time, what was applied, send.
    fn turn(&mut self, now: Instant) -> Result<(), DemoError> {
        let Side { engine, link, held, .. } = self;
        while link.receive(&mut |meta, frame| engine.handle_frame(now, meta, frame)).doing("receiving")? > 0 {}
        if engine.poll_timeout().is_some_and(|due| due <= now) {
            engine.handle_timeout(now);
        }
        let mut batch = Vec::new();
        while engine.poll_applied(now, &mut batch, BATCH) > 0 {
            for change in batch.drain(..) {
                match change {
                    Change::Upsert(flow) => held.insert(flow.key, flow),
                    Change::Delete(key) => held.remove(&key),
                };
            }
        }
        engine.handle_committed(now);
        while engine.poll_event().is_some() {}
        while link.transmit(&mut |slot| engine.poll_transmit(now, slot)).doing("sending")? > 0 {}
        Ok(())
    }
}

/// The flows of all connections; with a mix every second one of TCP and UDP is of IPv6, and SCTP comes with its tags.
fn synthetic_flows(options: &Options) -> Vec<Flow> {
    let tcp = (0..options.connections).map(|number| synthetic_flow(number, options.mix && number % 2 == 1));
    let others = if options.mix { (MIX_UDP_FLOWS, u32::from(MIX_ASSOCIATIONS)) } else { (0, 0) };
    let udp = (0..others.0).map(|number| udp_flow(synthetic_flow(number, number % 2 == 1)));
    tcp.chain(udp).chain((0..others.1).map(|number| sctp_flow(synthetic_flow(number, false), number))).collect()
}

/// An established TCP connection through both translations, as the laboratory's balancers hold them.
fn synthetic_flow(number: u32, ipv6: bool) -> Flow {
    // The low 16 bits of an address of IPv6 tell what an octet or two tell of one of IPv4.
    let address = |network: [u8; 3], host: u16| match ipv6 {
        false => IpAddr::V4(Ipv4Addr::new(network[0], network[1], network[2], host as u8)),
        true => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, network[0].into(), network[2].into(), 0, 0, 0, host)),
    };
    let port = 1024 + (number % 60_000) as u16;
    Flow {
        reply_source: Some(Endpoint { address: address([203, 0, 113], 101 + (number % 4) as u16), port: 7000 }),
        reply_destination: Some(Endpoint { address: address([203, 0, 113], 1), port }),
        state: 3,
        status: status::SEEN_REPLY
            | status::ASSURED
            | status::CONFIRMED
            | status::SRC_NAT
            | status::DST_NAT
            | status::SRC_NAT_DONE
            | status::DST_NAT_DONE,
        timeout: 432_000,
        tcp: Some(TcpInfo { window_scale_original: 7, window_scale_reply: 7, flags_original: 0x23, flags_reply: 0x23 }),
        ..Flow::new(FlowKey {
            source: address([198, 18, (number / 60_000) as u8], 1),
            destination: address([198, 51, 100], 10),
            source_port: port,
            destination_port: 8001 + (number % 4) as u16,
            protocol: protocol::TCP,
            zone: Zone::DEFAULT,
        })
    }
}

/// The same as a UDP flow.
fn udp_flow(flow: Flow) -> Flow {
    Flow { key: FlowKey { protocol: protocol::UDP, ..flow.key }, state: 0, tcp: None, timeout: 120, ..flow }
}

/// The same as an established SCTP association, with its tags.
fn sctp_flow(flow: Flow, number: u32) -> Flow {
    /// `SCTP_CONNTRACK_ESTABLISHED`, linux/netfilter/nf_conntrack_sctp.h.
    const ESTABLISHED: u8 = 4;
    let tags = ProtocolInfo::Sctp { tag_original: number + 1, tag_reply: !number };
    let mut flow =
        Flow { key: FlowKey { protocol: protocol::SCTP, ..flow.key }, state: ESTABLISHED, tcp: None, ..flow };
    // There is room: the flow has no other attribute.
    let _ = flow.attributes.set(attribute::PROTOCOL, &tags.to_wire());
    flow
}

fn count(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(connections: u32, mix: bool) -> Options {
        Options { connections, mix, ..crate::demo::tests::options(&["--json"]) }
    }

    #[test]
    fn no_two_synthetic_flows_have_the_same_key() {
        for mix in [false, true] {
            let flows = synthetic_flows(&options(130_000, mix));
            let keys: std::collections::HashSet<FlowKey> = flows.iter().map(|flow| flow.key).collect();
            assert_eq!(keys.len(), if mix { 130_150 } else { 130_000 });
            let ipv6 = |wanted| keys.iter().filter(|key| key.protocol == wanted && key.source.is_ipv6()).count();
            assert_eq!([protocol::TCP, protocol::UDP].map(ipv6), if mix { [65_000, 50] } else { [0, 0] });
            assert_eq!(
                flows.iter().filter(|flow| flow.attributes.protocol_info().is_some()).count(),
                if mix { 50 } else { 0 }
            );
        }
    }
}
