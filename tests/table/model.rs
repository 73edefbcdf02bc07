//! The table beside a model of it that has no slots, no links, no packing and no incremental digest: a map, two plain
//! vectors, and every sum computed from scratch. Flows are of both families, with and without attributes. After each of a
//! random list of operations all that can be observed must be equal, the table must be consistent inside, and its annex
//! must hold what the entries need and nothing else.
//!
//! Rules: [4.1] streams, [4.2] order-free apply, [4.4] digest, [4.5] bucket-end, [4.6] time-outs.

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use ssyncp::flow::{Change, Endpoint, Flow, FlowKey, TcpInfo, Zone};
use ssyncp::table::{Applied, BUCKETS, Pending, Refused, Table};
use ssyncp::time::{Duration, Instant};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::OnceLock;
use twox_hash::XxHash3_64;

const KEYS: usize = 20;
const SEEDS: [u64; 3] = [0x5eed, 0, u64::MAX];

/// The place of a key in the model's view.
#[derive(Clone, Debug)]
struct Held {
    alive: bool,
    /// With time-out 0.
    flow: Flow,
    deadline: u64,
    version: (u32, u64),
    unsent: bool,
    tombstone: bool,
    owed: bool,
    named: bool,
    /// The source has said something of it.
    said: bool,
    /// The source has told its clock, at some time: no mastership ends here, after which that would count no more.
    own: bool,
}

struct Model {
    capacity: usize,
    annex: usize,
    limit: usize,
    seed: u64,
    held: BTreeMap<FlowKey, Held>,
    wire: Vec<FlowKey>,
    sink: Vec<FlowKey>,
    /// After a reseed the order of the lists is the table's affair until they have run empty.
    orderly: bool,
    stream: u32,
    frontier: u64,
    touched: BTreeMap<u16, u64>,
    touched_at_least: u64,
    dumping: bool,
    /// Seconds.
    margin: u32,
    half_seconds: u64,
}

/// Who says a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Source,
    Stream,
}

#[derive(Clone, Debug)]
enum Op {
    Put(usize, Value),
    Take(usize),
    BeginDump,
    EndDump,
    Sent(u64),
    QueueBucket(usize),
    ApplyUpsert(usize, Value, u64),
    ApplyDelete(usize, u64, u64),
    Passed(u64),
    RemoveOlder(usize, u64),
    Pop,
    QueueExpired,
    QueueAll,
    ExpireAll,
    Reseed(usize),
    BeginStream,
    Margin(u32),
    Wait(u64),
}

#[derive(Clone, Debug)]
struct Value {
    state: u8,
    natted: bool,
    timeout: u32,
    /// Type and length of each attribute.
    attributes: &'static [(u8, usize)],
    /// Counts in the counters, where they are an attribute.
    counted: u8,
}

const COUNTERS: (u8, usize) = (6, 32);

/// None; counters alone; what makes one block full, or two of them; more than the smallest annex has.
const ATTRIBUTES: [&[(u8, usize)]; 7] = [
    &[],
    &[COUNTERS],
    &[(2, 16)],
    &[(1, 24), (2, 16)],
    &[(3, 3), COUNTERS, (200, 0)],
    &[(1, 24), (2, 16), COUNTERS],
    &[(2, 16), COUNTERS, (77, 250), (78, 250)],
];

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let key = 0..KEYS;
    let attributes = prop_oneof![1 => Just(ATTRIBUTES[0]), 1 => prop::sample::select(&ATTRIBUTES[..])];
    let timeout = prop::sample::select(vec![0u32, 4, 10, 30, u32::MAX]);
    let value = (0u8..3, any::<bool>(), timeout, attributes, 0u8..2).prop_map(
        |(state, natted, timeout, attributes, counted)| Value { state, natted, timeout, attributes, counted },
    );
    let number = || prop_oneof![9 => 1u64..40, 1 => Just(1u64 << 40)];
    let op = prop_oneof![
        16 => (key.clone(), value.clone()).prop_map(|(key, value)| Op::Put(key, value)),
        8 => key.clone().prop_map(Op::Take),
        1 => Just(Op::BeginDump),
        1 => Just(Op::EndDump),
        8 => number().prop_map(Op::Sent),
        3 => key.clone().prop_map(Op::QueueBucket),
        16 => (key.clone(), value, number()).prop_map(|(key, value, number)| Op::ApplyUpsert(key, value, number)),
        16 => (key.clone(), number(), 0u64..30).prop_map(|(key, number, back)| Op::ApplyDelete(key, number, back)),
        4 => number().prop_map(Op::Passed),
        3 => (key, 0u64..40).prop_map(|(key, since)| Op::RemoveOlder(key, since)),
        12 => Just(Op::Pop),
        1 => Just(Op::QueueExpired),
        1 => Just(Op::QueueAll),
        1 => Just(Op::ExpireAll),
        1 => (0..SEEDS.len()).prop_map(Op::Reseed),
        2 => Just(Op::BeginStream),
        1 => (0u32..13).prop_map(Op::Margin),
        4 => (1u64..20).prop_map(Op::Wait),
    ];
    prop::collection::vec(op, 1..120)
}

/// Every other key is of IPv6.
fn key_of(number: u32) -> FlowKey {
    let (source, destination) = match number % 2 {
        0 => (Ipv4Addr::from(0x0a00_0000 + number).into(), Ipv4Addr::new(192, 0, 2, 1).into()),
        _ => (Ipv6Addr::from(0xfd << 120 | u128::from(number)).into(), Ipv6Addr::LOCALHOST.into()),
    };
    FlowKey {
        source,
        destination,
        source_port: 40_000,
        destination_port: 443,
        protocol: 6,
        zone: Zone { id: (number % 3) as u16, direction: 0 },
    }
}

fn plain_keys() -> Vec<FlowKey> {
    (0..KEYS as u32).map(key_of).collect()
}

/// Keys that all lie in one bucket under the first seed: the worst that a client who knew the seed could do.
fn crowded_keys() -> Vec<FlowKey> {
    static KEYS_OF_ONE_BUCKET: OnceLock<Vec<FlowKey>> = OnceLock::new();
    KEYS_OF_ONE_BUCKET
        .get_or_init(|| (0..).map(key_of).filter(|key| bucket(SEEDS[0], key) == 4095).take(KEYS).collect())
        .clone()
}

/// The canonical encoding, written a second time.
fn encode(flow: &Flow) -> Vec<u8> {
    let mut bytes = Vec::new();
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let key = &flow.key;
    bytes.extend(octets(key.source));
    bytes.extend(octets(key.destination));
    bytes.extend(key.source_port.to_be_bytes());
    bytes.extend(key.destination_port.to_be_bytes());
    bytes.extend([key.protocol, key.zone.direction]);
    bytes.extend(key.zone.id.to_be_bytes());
    let unspecified = if key.source.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let nothing = Endpoint { address: unspecified, port: 0 };
    let (from, to) = (flow.reply_source.unwrap_or(nothing), flow.reply_destination.unwrap_or(nothing));
    bytes.extend(octets(from.address));
    bytes.extend(from.port.to_be_bytes());
    bytes.extend(to.port.to_be_bytes());
    bytes.extend(octets(to.address));
    let present = u8::from(flow.reply_source.is_some())
        + 2 * u8::from(flow.reply_destination.is_some())
        + 4 * u8::from(flow.tcp.is_some());
    bytes.extend([flow.state, present]);
    bytes.extend(flow.status.to_be_bytes());
    let tcp = flow.tcp.unwrap_or_default();
    bytes.extend([tcp.window_scale_original, tcp.window_scale_reply, tcp.flags_original, tcp.flags_reply]);
    bytes.extend(flow.mark.to_be_bytes());
    for (kind, data) in without_counters(flow) {
        bytes.extend([kind, data.len() as u8]);
        bytes.extend(data);
        bytes.resize(bytes.len().div_ceil(4) * 4, 0);
    }
    bytes
}

fn without_counters(flow: &Flow) -> Vec<(u8, &[u8])> {
    flow.attributes.iter().filter(|(kind, _)| *kind != COUNTERS.0).collect()
}

/// Time-outs and counters are no value.
fn same_value(one: &Flow, other: &Flow) -> bool {
    encode(one) == encode(other)
}

fn bucket(seed: u64, key: &FlowKey) -> u16 {
    let key_len = if key.source.is_ipv4() { 16 } else { 40 };
    (XxHash3_64::oneshot_with_seed(seed, &encode(&Flow::new(*key))[..key_len]) / (1 << 52)) as u16
}

/// Blocks that an entry needs in the annex.
fn blocks(alive: bool, flow: &Flow) -> usize {
    let wide = flow.key.source.is_ipv6();
    let key = if wide { 40 } else { 0 };
    let natted = flow.reply_source.is_some() || flow.reply_destination.is_some();
    let ends = match (natted, wide) {
        (true, true) => 36,
        (true, false) if !flow.attributes.is_empty() => 12,
        _ => 0,
    };
    let bytes = if alive { key + ends + flow.attributes.as_bytes().len() } else { key };
    bytes.div_ceil(60)
}

fn flow(key: FlowKey, value: &Value) -> Flow {
    let mut flow = Flow { state: value.state, timeout: value.timeout, ..Flow::new(key) };
    for &(kind, len) in value.attributes {
        let filled = if (kind, len) == COUNTERS { value.counted } else { kind };
        flow.attributes.set(kind, &vec![filled; len]).expect("fits a record");
    }
    if value.natted {
        let address = match key.source {
            IpAddr::V4(_) => Ipv4Addr::new(203, 0, 113, 9).into(),
            IpAddr::V6(_) => Ipv6Addr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 9]).into(),
        };
        flow.reply_destination = Some(Endpoint { address, port: 5000 });
        flow.tcp = Some(TcpInfo { window_scale_original: 7, flags_reply: 3, ..TcpInfo::default() });
        flow.mark = 77;
    }
    flow
}

impl Model {
    fn new(capacity: u32, limit: u32, annex: u32) -> Self {
        Model {
            capacity: capacity as usize,
            annex: annex as usize,
            limit: limit as usize,
            seed: SEEDS[0],
            held: BTreeMap::new(),
            wire: Vec::new(),
            sink: Vec::new(),
            orderly: true,
            stream: 0,
            frontier: 0,
            touched: BTreeMap::new(),
            touched_at_least: 0,
            dumping: false,
            margin: 0,
            half_seconds: 1,
        }
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(self.half_seconds * 500_000_000)
    }

    fn deadline(&self, timeout: u32) -> u64 {
        (self.half_seconds.div_ceil(2) + u64::from(timeout)).min(u64::from(u32::MAX))
    }

    fn remaining(&self, held: &Held) -> u32 {
        held.deadline.saturating_sub(self.half_seconds.div_ceil(2)) as u32
    }

    fn expired(&self, held: &Held) -> bool {
        self.half_seconds / 2 >= held.deadline
    }

    fn shown(&self, held: &Held) -> Flow {
        Flow { timeout: self.remaining(held), ..held.flow.clone() }
    }

    fn newborn(&self, flow: &Flow) -> Held {
        Held {
            alive: true,
            flow: Flow { timeout: 0, ..flow.clone() },
            deadline: self.deadline(flow.timeout),
            version: (self.stream, 0),
            unsent: false,
            tombstone: false,
            owed: false,
            named: true,
            said: false,
            own: false,
        }
    }

    fn touch(&mut self, key: &FlowKey, number: u64) {
        let touched = self.touched.entry(bucket(self.seed, key)).or_default();
        *touched = number.max(*touched);
    }

    fn leave(&mut self, key: &FlowKey) {
        self.wire.retain(|other| other != key);
        self.sink.retain(|other| other != key);
    }

    /// Whether it is a tombstone that waits for the frontier and for nobody else: it takes no room of a flow.
    fn is_buried(&self, held: &Held) -> bool {
        let key = &held.flow.key;
        !held.alive && !self.wire.contains(key) && !self.sink.contains(key)
    }

    fn slots(&self) -> impl Iterator<Item = &Held> {
        self.held.values().filter(|held| !self.is_buried(held))
    }

    fn is_full(&self) -> bool {
        self.slots().count() == self.capacity
    }

    fn annex_used(&self) -> usize {
        self.slots().map(|held| blocks(held.alive, &held.flow)).sum()
    }

    /// Whether this flow fits the annex, when what is held of its key has gone.
    fn annex_fits(&self, alive: bool, flow: &Flow) -> bool {
        let own = self.held.get(&flow.key).filter(|held| !self.is_buried(held));
        let own = own.map_or(0, |held| blocks(held.alive, &held.flow));
        self.annex_used() - own + blocks(alive, flow) <= self.annex
    }

    /// Gives a held key a value; whether it is another one, and whether the listener must hear. The clock of a copy may be
    /// named by the source with the margin that the sink was given: that says nothing.
    fn assign(&mut self, flow: &Flow, waiting: bool, by: By) -> Result<(bool, bool), Refused> {
        let old = self.held[&flow.key].clone();
        let changed = !old.alive || !same_value(&old.flow, flow);
        let (copy, slack) = match by {
            By::Source => (self.margin > 0 && !old.own, 0),
            By::Stream => (false, 2),
        };
        let news = flow.timeout.saturating_sub(if copy { self.margin } else { 0 });
        let refreshed = u64::from(news) > 2 * u64::from(self.remaining(&old).saturating_sub(slack));
        if !changed && !refreshed && (copy || !waiting) {
            return Ok((false, waiting));
        }
        if !self.annex_fits(true, flow) {
            return Err(Refused::AnnexFull);
        }
        let (tombstone, own) = (old.tombstone && !changed, old.own || by == By::Source);
        let (value, deadline) = (Flow { timeout: 0, ..flow.clone() }, self.deadline(flow.timeout));
        self.held.insert(flow.key, Held { alive: true, flow: value, deadline, tombstone, own, ..old });
        Ok((changed, true))
    }

    /// The source cannot take away what it cannot know.
    fn with_unknown(&self, flow: &Flow) -> Flow {
        let mut whole = flow.clone();
        let held = self.held.get(&flow.key).filter(|held| held.alive);
        for (kind, data) in held.iter().flat_map(|held| held.flow.attributes.iter()) {
            if kind > 10 && flow.attributes.get(kind).is_none() {
                whole.attributes.set(kind, data).expect("fits a record");
            }
        }
        whole
    }

    fn put(&mut self, flow: &Flow) -> Result<bool, Refused> {
        let held = self.held.get(&flow.key);
        let buried = held.filter(|held| self.is_buried(held)).map(|held| held.version);
        if held.is_none() || buried.is_some() {
            if self.is_full() {
                return Err(Refused::TableFull);
            }
            if !self.annex_fits(true, flow) {
                return Err(Refused::AnnexFull);
            }
            let newborn = self.newborn(flow);
            let version = buried.unwrap_or(newborn.version);
            self.held.insert(flow.key, Held { unsent: buried.is_none(), said: true, own: true, version, ..newborn });
            self.wire.push(flow.key);
            return Ok(true);
        }
        let waiting = self.wire.contains(&flow.key);
        let assigned = self.assign(&self.with_unknown(flow), waiting, By::Source);
        let held = self.held.get_mut(&flow.key).expect("held");
        held.named = true;
        let (_, due) = assigned?;
        held.owed = false;
        held.said |= due;
        self.sink.retain(|other| *other != flow.key);
        if due && !waiting {
            self.wire.push(flow.key);
        }
        Ok(due)
    }

    fn take(&mut self, key: &FlowKey) -> bool {
        let Some(held) = self.held.get_mut(key).filter(|held| held.alive) else { return false };
        held.alive = false;
        held.owed = false;
        if std::mem::take(&mut held.unsent) {
            self.held.remove(key);
            self.leave(key);
        } else {
            self.sink.retain(|other| other != key);
            if !self.wire.contains(key) {
                self.wire.push(*key);
            }
        }
        true
    }

    fn take_all(&mut self, wanted: impl Fn(&Self, &Held) -> bool) -> u32 {
        let keys: Vec<FlowKey> = self.live().filter(|held| wanted(self, held)).map(|held| held.flow.key).collect();
        // They join the wire list in the order of the slots, which is not the model's to know.
        self.orderly &= keys.len() < 2;
        keys.iter().filter(|key| self.take(key)).count() as u32
    }

    fn sent(&mut self, key: FlowKey, number: u64) {
        self.touch(&key, number);
        self.leave(&key);
        let stream = self.stream;
        let held = self.held.get_mut(&key).expect("held");
        if !held.alive {
            self.held.remove(&key);
            return;
        }
        held.version = (stream, number);
        held.unsent = false;
        if std::mem::take(&mut held.owed) {
            self.sink.push(key);
        }
    }

    fn apply_upsert(&mut self, flow: &Flow, number: u64) -> Result<Applied, Refused> {
        let version = (self.stream, number);
        let key = flow.key;
        let changed = match self.held.get(&key) {
            Some(held) if held.version >= version => return Ok(Applied::Older),
            Some(held) if !self.is_buried(held) => {
                let assigned = self.assign(flow, self.sink.contains(&key), By::Stream);
                if assigned.is_ok_and(|(_, due)| due) {
                    self.move_to_sink(&key);
                }
                assigned.map(|(changed, _)| changed)
            }
            _ if self.is_full() => return Err(Refused::TableFull),
            _ if !self.annex_fits(true, flow) => return Err(Refused::AnnexFull),
            _ => {
                self.held.insert(key, self.newborn(flow));
                self.sink.push(key);
                Ok(true)
            }
        };
        let held = self.held.get_mut(&key).expect("held");
        if held.alive {
            held.version = version;
            self.touch(&key, number);
        }
        let changed = changed?;
        Ok(if changed { Applied::Changed } else { Applied::Unchanged })
    }

    fn move_to_sink(&mut self, key: &FlowKey) {
        self.wire.retain(|other| other != key);
        let held = self.held.get_mut(key).expect("held");
        held.unsent = false;
        held.owed = false;
        if !self.sink.contains(key) {
            self.sink.push(*key);
        }
    }

    fn apply_delete(&mut self, key: &FlowKey, number: u64, frontier: u64) -> Result<Applied, Refused> {
        self.passed(frontier);
        let version = (self.stream, number);
        let early = number > self.frontier + 1;
        let old = self.held.get(key).cloned();
        if old.as_ref().is_some_and(|held| held.version >= version) {
            return Ok(Applied::Older);
        }
        let is_one = old.as_ref().is_some_and(|held| held.tombstone);
        if early && !is_one && self.tombstones() == self.limit {
            return Err(Refused::TombstonesFull);
        }
        let was_alive = old.as_ref().is_some_and(|held| held.alive);
        if was_alive {
            self.move_to_sink(key);
        }
        let waits = self.sink.contains(key) || self.wire.contains(key);
        if early || waits {
            let held = old.unwrap_or_else(|| self.newborn(&Flow::new(*key)));
            let held = Held { alive: false, unsent: false, owed: false, tombstone: early, version, ..held };
            self.held.insert(*key, held);
        } else {
            self.held.remove(key);
        }
        self.touch(key, number);
        Ok(if was_alive { Applied::Changed } else { Applied::Unchanged })
    }

    fn passed(&mut self, frontier: u64) {
        self.frontier = self.frontier.max(frontier);
        let (wire, sink, frontier) = (&self.wire, &self.sink, self.frontier);
        self.held
            .retain(|key, held| held.alive || wire.contains(key) || sink.contains(key) || held.version.1 > frontier);
    }

    fn remove_older(&mut self, of: u16, since: u64) -> u32 {
        let named = (self.stream, since);
        let dying = self.live().filter(|held| bucket(self.seed, &held.flow.key) == of && held.version <= named);
        let keys: Vec<FlowKey> = dying.map(|held| held.flow.key).collect();
        self.orderly &= keys.len() < 2;
        for key in &keys {
            self.move_to_sink(key);
            self.held.get_mut(key).expect("held").alive = false;
        }
        keys.len() as u32
    }

    fn popped(&mut self, key: FlowKey) -> Change {
        self.leave(&key);
        let held = self.held.get_mut(&key).expect("held");
        // Written only now: a dump or an audit that runs may have passed its place already.
        held.named |= held.alive;
        let held = held.clone();
        if held.alive {
            return Change::Upsert(self.shown(&held));
        }
        if !held.tombstone || held.version.1 <= self.frontier {
            self.held.remove(&key);
        }
        Change::Delete(key)
    }

    fn queue_bucket(&mut self, of: u16) -> u32 {
        let walked = self.live().filter(|held| bucket(self.seed, &held.flow.key) == of);
        let keys: Vec<FlowKey> = walked.map(|held| held.flow.key).filter(|key| !self.wire.contains(key)).collect();
        self.orderly &= keys.len() < 2;
        for key in &keys {
            self.held.get_mut(key).expect("held").owed = self.sink.contains(key);
            self.sink.retain(|other| other != key);
            self.wire.push(*key);
        }
        keys.len() as u32
    }

    fn queue_to_sink(&mut self, wanted: impl Fn(&Self, &Held) -> bool) -> u32 {
        let before = self.unapplied();
        let keys: Vec<FlowKey> = self.live().filter(|held| wanted(self, held)).map(|held| held.flow.key).collect();
        self.orderly &= keys.len() < 2;
        for key in keys {
            if self.wire.contains(&key) {
                self.held.get_mut(&key).expect("held").owed = true;
            } else if !self.sink.contains(&key) {
                self.sink.push(key);
            }
        }
        (self.unapplied() - before) as u32
    }

    fn begin_stream(&mut self) {
        for key in std::mem::take(&mut self.wire) {
            let held = self.held.get_mut(&key).expect("held");
            held.unsent = false;
            if !held.alive {
                self.held.remove(&key);
            } else if std::mem::take(&mut held.owed) {
                self.sink.push(key);
            }
        }
        let sink = &self.sink;
        self.held.retain(|key, held| held.alive || sink.contains(key));
        self.held.values_mut().for_each(|held| held.tombstone = false);
        self.stream += 1;
        self.frontier = 0;
        self.touched.clear();
        self.touched_at_least = 0;
        self.dumping = false;
    }

    fn live(&self) -> impl Iterator<Item = &Held> {
        self.held.values().filter(|held| held.alive)
    }

    fn tombstones(&self) -> usize {
        self.held.values().filter(|held| held.tombstone).count()
    }

    fn unapplied(&self) -> usize {
        self.sink.len() + self.held.values().filter(|held| held.owed).count()
    }
}

fn step(table: &mut Table, model: &mut Model, keys: &[FlowKey], op: &Op) -> TestCaseResult {
    let now = model.now();
    match op {
        Op::Put(key, value) => {
            let flow = flow(keys[*key], value);
            prop_assert_eq!(table.put(&flow, now), model.put(&flow));
        }
        Op::Take(key) => prop_assert_eq!(table.take(&keys[*key]), model.take(&keys[*key])),
        Op::BeginDump => {
            table.begin_dump();
            model.dumping = true;
            model.held.values_mut().for_each(|held| held.named = false);
        }
        Op::EndDump => {
            // What the sink has yet to take is in no dump.
            let gone = |model: &Model, held: &Held| {
                let brought = held.owed || (held.said && model.sink.contains(&held.flow.key));
                !held.named && !brought
            };
            let taken = if model.dumping { model.take_all(gone) } else { 0 };
            model.dumping = false;
            prop_assert_eq!(table.end_dump(u32::MAX), taken);
        }
        Op::Sent(number) => match table.peek_pending(now) {
            Some(pending) => {
                table.sent(*number);
                model.sent(named_by(&pending), *number);
            }
            None => table.sent(*number),
        },
        Op::QueueBucket(key) => {
            let bucket = bucket(model.seed, &keys[*key]);
            prop_assert_eq!(table.queue_bucket(bucket), model.queue_bucket(bucket));
        }
        Op::ApplyUpsert(key, value, number) => {
            let flow = flow(keys[*key], value);
            prop_assert_eq!(table.apply_upsert(&flow, *number, now), model.apply_upsert(&flow, *number));
        }
        Op::ApplyDelete(key, number, back) => {
            let frontier = model.frontier.max(number.saturating_sub(*back).min(20));
            let key = &keys[*key];
            prop_assert_eq!(table.apply_delete(key, *number, frontier), model.apply_delete(key, *number, frontier));
        }
        Op::Passed(frontier) => {
            table.passed(*frontier);
            model.passed(*frontier);
        }
        Op::RemoveOlder(key, since) => {
            let bucket = bucket(model.seed, &keys[*key]);
            prop_assert_eq!(table.remove_older(bucket, *since), model.remove_older(bucket, *since));
        }
        Op::Pop => {
            let popped = table.pop_applied(now);
            prop_assert_eq!(popped.is_some(), !model.sink.is_empty());
            if let Some(change) = popped {
                let key = *change.key();
                let expected = if model.orderly { model.sink[0] } else { key };
                prop_assert_eq!(key, expected, "first in, first out");
                prop_assert!(model.sink.contains(&key));
                prop_assert_eq!(change, model.popped(key));
            }
        }
        Op::QueueExpired => prop_assert_eq!(table.queue_expired(now), model.queue_to_sink(Model::expired)),
        Op::QueueAll => prop_assert_eq!(table.queue_all_to_sink(), model.queue_to_sink(|_, _| true)),
        Op::ExpireAll => {
            // Often enough for the hand to come round, wherever it stood, however many slots are freed under it.
            let mut hand = 3;
            let taken = (0..200).map(|_| table.expire(now, &mut hand, 2)).sum::<u32>();
            prop_assert_eq!(taken, model.take_all(Model::expired));
        }
        Op::Reseed(seed) => {
            table.reseed(SEEDS[*seed]);
            if model.seed != SEEDS[*seed] {
                model.seed = SEEDS[*seed];
                model.orderly = false;
                model.touched_at_least = model.touched.values().copied().max().unwrap_or(0).max(model.touched_at_least);
            }
        }
        Op::BeginStream => {
            table.begin_stream();
            model.begin_stream();
        }
        Op::Margin(seconds) => {
            table.set_margin(Duration::from_secs((*seconds).into()));
            model.margin = model.margin.max(*seconds);
        }
        Op::Wait(half_seconds) => model.half_seconds += half_seconds,
    }
    model.orderly |= model.wire.len() < 2 && model.sink.len() < 2;
    Ok(())
}

fn named_by(pending: &Pending) -> FlowKey {
    match pending {
        Pending::Upsert(flow) => flow.key,
        Pending::Delete(key) => *key,
    }
}

fn compare(table: &Table, model: &Model, keys: &[FlowKey]) -> TestCaseResult {
    table.assert_consistent();
    let now = model.now();
    prop_assert_eq!(table.len() as usize, model.live().count());
    prop_assert_eq!(table.is_empty(), model.live().count() == 0);
    prop_assert_eq!(table.tombstones() as usize, model.tombstones());
    prop_assert_eq!(table.pending() as usize, model.wire.len());
    prop_assert_eq!(table.unapplied() as usize, model.unapplied());
    prop_assert_eq!(table.dumping(), model.dumping);
    prop_assert_eq!(table.annex_used() as usize, model.annex_used());
    prop_assert!(model.annex_used() <= model.annex && table.annex_blocks() as usize == model.annex);
    prop_assert_eq!(table.seed(), model.seed);

    let mut flows: Vec<Flow> = table.iter(now).collect();
    flows.sort_by_key(|flow| flow.key);
    prop_assert_eq!(flows, model.live().map(|held| model.shown(held)).collect::<Vec<_>>());

    let (mut total, mut buckets) = (0u64, vec![0u64; BUCKETS]);
    for held in model.live() {
        let h = XxHash3_64::oneshot_with_seed(model.seed, &encode(&held.flow));
        let sum = &mut buckets[usize::from(bucket(model.seed, &held.flow.key))];
        (total, *sum) = (total.wrapping_add(h), sum.wrapping_add(h));
    }
    prop_assert_eq!(table.digest(), total);
    for key in keys {
        let alive = model.held.get(key).filter(|held| held.alive);
        prop_assert_eq!(table.get(key, now), alive.map(|held| model.shown(held)));
        let bucket_of = bucket(model.seed, key);
        prop_assert_eq!(table.bucket_of(key), bucket_of);
        prop_assert_eq!(table.bucket_digest(bucket_of), buckets[usize::from(bucket_of)]);
        let pending = model.wire.iter().filter(|key| bucket(model.seed, key) == bucket_of).count();
        prop_assert_eq!(table.bucket_pending(bucket_of) as usize, pending);
        let touched = model.touched.get(&bucket_of).copied().unwrap_or(0).max(model.touched_at_least);
        prop_assert_eq!(table.touched(bucket_of), touched);
    }

    let first = table.peek_pending(now);
    prop_assert_eq!(first.is_some(), !model.wire.is_empty());
    if let Some(pending) = first {
        let key = named_by(&pending);
        prop_assert!(model.wire.contains(&key));
        prop_assert!(!model.orderly || model.wire[0] == key, "first in, first out");
        let held = &model.held[&key];
        let expected = if held.alive { Pending::Upsert(model.shown(held)) } else { Pending::Delete(key) };
        prop_assert_eq!(pending, expected);
    }
    Ok(())
}

fn run(capacity: u32, limit: u32, annex: u32, keys: &[FlowKey], ops: &[Op]) -> TestCaseResult {
    let mut table = Table::with_annex(capacity, limit, annex, SEEDS[0]);
    let mut model = Model::new(capacity, limit, annex);
    for op in ops {
        step(&mut table, &mut model, keys, op)?;
        compare(&table, &model, keys)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_roomy_table_is_its_model(ops in ops()) {
        run(64, 64, 256, &plain_keys(), &ops)?;
    }

    #[test]
    fn a_tiny_table_is_its_model(capacity in 0u32..14, limit in 0u32..4, annex in 0u32..14, ops in ops()) {
        run(capacity, limit, annex, &plain_keys(), &ops)?;
    }

    #[test]
    fn a_table_with_a_tiny_annex_is_its_model(annex in 0u32..14, ops in ops()) {
        run(64, 64, annex, &plain_keys(), &ops)?;
    }

    #[test]
    fn a_table_of_keys_that_share_the_last_bucket_is_its_model(capacity in 4u32..40, ops in ops()) {
        run(capacity, 8, 2 * capacity, &crowded_keys(), &ops)?;
    }
}
